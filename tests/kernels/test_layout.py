"""Repeated patches and samples, kept once for training: the same weights and losses as with every one of them."""

from collections import Counter

import numpy as np
import pytest
from advfeat.kernels import L2, LINF, formulas, get_engine
from advfeat.kernels.cpu.layout import merge
from problems import RHO
from test_engines import Case, J, same_bits
from tolerances import PARITY

from advfeat import PatchDistribution

NOISELESS = {"every run": ("all per run", (0, 1, 2)), "one run": ("all per run", (1,))}
NOISELESS |= {sharing: (sharing, (0,)) for sharing in ("shared samples", "shared inputs")}
TRAININGS = [("train", "rate", 3, J[0], "step", "eps", LINF, 0)]
TRAININGS += [("train", "rate", 3, objective, "step", "eps", norm, 2) for objective in J for norm in (LINF, L2)]
every_training = pytest.mark.parametrize("call", TRAININGS, ids=lambda call: "-".join(map(str, call)))


def noiseless(seed, k=3, n=23, P=50, d=37):
    """Samples with 0, 1, 2 ... robust patches each, so that some have one kind of patch alone."""
    law = PatchDistribution(
        n_classes=k, patch_dim=d, n_patches=P, n_robust=1, alpha=3.0, beta=1.0, partition="bernoulli"
    )  # fmt: skip
    return law.sample(n, seed)


def repeated(name, dtype="float64"):
    """A case in which some runs, or all from shared samples, are noiseless."""
    sharing, runs = NOISELESS[name]
    case = Case("several chunks", sharing, dtype)
    for r in runs:
        data = noiseless(r)
        case.X[r] = data.X
        if len(case.y) == len(case.X):
            case.y[r] = data.y
    return case


def pack(case):
    return get_engine("numba").pack(case.X, case.y, len(case.W), case.active)


@pytest.fixture(params=PARITY)
def dtype(request):
    return request.param


@pytest.fixture(params=NOISELESS)
def case(request, dtype):
    return repeated(request.param, dtype)


@every_training
def test_training_on_repeated_patches_is_training_on_all_of_them(case, call):
    for value, truth in zip(case.call(get_engine("numba"), *call), case.truth(*call)):
        case.agree(value, truth)


@every_training
def test_a_run_with_repeated_patches_is_the_run_alone(case, call):
    engine = get_engine("numba")
    same_bits(case.call(engine, *call), case.run_by_run(engine, *call))


@every_training
def test_repeated_patches_do_not_depend_on_threads(case, call, set_threads):
    results = []
    for n in (1, 2, 3):
        set_threads(n)
        results.append(case.call(get_engine("numba"), *call))
    same_bits(results[0], results[1])
    same_bits(results[0], results[2])


def test_repeated_patches_take_fewer_lanes(case):
    """Half of them or less in noiseless runs; other runs keep all of theirs, and all runs count every sample."""
    batch = pack(case)
    lanes, whole = (np.bincount(t[:, 0], t[:, 4] * t[:, 5]) for t in (batch.distinct.data.table, batch.data.table))
    few = lanes <= whole / 2
    assert few.any()
    assert (few | (lanes == whole)).all()
    np.testing.assert_array_equal(batch.distinct.count, 23)


def test_the_loss_counts_every_sample():
    """Nine samples of one class and one of another: their mean, not the mean of the two that differ."""
    case = repeated("every run").run(0)
    case.X, case.y = np.repeat(case.X[:, :2], [9, 1], axis=1), np.repeat([[0, 1]], [9, 1], axis=1)
    call = "train", np.zeros(1), 1, J[0], "step", "eps", LINF, 0
    _, loss, _ = case.call(get_engine("numba"), *call)
    F = formulas.forward(case.W, case.X, case.q, RHO)
    assert len(pack(case).distinct.data.y) == 2
    np.testing.assert_allclose(loss, formulas.cross_entropy(F, case.y).mean(axis=1), rtol=PARITY["float64"])


def test_merged_samples_are_the_samples_as_often_as_they_stand_in_the_data():
    data = noiseless(5)
    X, y, times, copies = merge(data.X, data.y)

    def patches(sample, number):
        return frozenset((patch.tobytes(), int(n)) for patch, n in zip(sample, number) if n)

    expected = Counter(
        (label, frozenset(Counter(patch.tobytes() for patch in sample).items()))
        for sample, label in zip(data.X, data.y.tolist())
    )
    np.testing.assert_array_equal(times.sum(axis=1), 50)
    assert (times == 0).any()
    assert (np.diff(y) >= 0).all()
    assert {(label, patches(*s)): n for label, *s, n in zip(y.tolist(), X, times, copies)} == expected


def test_zeros_of_either_sign_are_one_number():
    """Noise times 0 is -0.0 half of the time: the data are noiseless all the same, and their bytes stay as they are."""
    data = noiseless(5)
    signed = np.where(data.X == 0, 0.0 * np.random.default_rng(0).standard_normal(data.X.shape), data.X)
    before = signed.tobytes()
    assert before != data.X.tobytes()
    for one, two in zip(merge(signed, data.y), merge(data.X, data.y), strict=True):
        np.testing.assert_array_equal(one, two)
    assert signed.tobytes() == before


FEW = {  # X (N, P, d) of which too little repeats
    "noise": np.random.default_rng(0).standard_normal((6, 4, 3)),
    "one patch": np.ones((6, 1, 3)),
    "three of four patches differ": np.tile(np.arange(4.0)[:, None] % 3, (6, 1, 3)),
    "the first sample alone repeats": np.concatenate(
        [np.ones((1, 4, 3)), np.random.default_rng(0).standard_normal((5, 4, 3))]
    ),
}


@pytest.mark.parametrize("X", FEW.values(), ids=FEW)
def test_samples_in_which_little_repeats_stay_as_they_are(X):
    y = np.arange(6)[None] % 2
    assert merge(X, y[0]) is None
    for n_runs in (1, 2):
        batch = get_engine("numba").pack(X[None], y, n_runs)
        assert batch.distinct is batch


def test_samples_of_which_some_are_left_out_stay_as_they_are():
    case = repeated("every run")
    case.active = np.arange(69).reshape(3, 23) % 3 != 1
    batch = pack(case)
    assert batch.distinct is batch


@every_training
def test_repeated_patches_that_fill_whole_blocks(dtype, call):
    """48 patches twice and 16 thrice leave 64 a sample: whole blocks on every machine, with weights 2 and 3."""
    case = Case("whole blocks, four neurons", dtype=dtype)
    for name in ("X", "start"):
        short = getattr(case, name)
        setattr(case, name, np.concatenate([short, short, short[:, :, :16]], axis=2))
    assert pack(case).distinct.patches == 64
    for value, truth in zip(case.call(get_engine("numba"), *call), case.truth(*call)):
        case.agree(value, truth)

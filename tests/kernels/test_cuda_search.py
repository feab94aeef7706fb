"""The GPU engine's search against the formulas and the CPU engine, its kernel run on the CPU (cuda_on_cpu.h)."""

import re
from fractions import Fraction

import numpy as np
import pytest
from advfeat.kernels import L1, LINF, branch_and_bound, get_engine
from advfeat.kernels.formulas import sigma
from advfeat.kernels.gpu import branch_and_bound as gpu_branch_and_bound
from advfeat.kernels.gpu import device as gpu_device
from advfeat.kernels.gpu.device import GpuMemoryError
from emulated_gpu import EmulatedGpu, compiler
from test_search import EFFORTS, NORMS, ball, problem
from test_search import SHAPES as OTHERS
from test_search import problems as those
from tolerances import PARITY, REORDERED

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")

LARGE = {"many coordinates": (2, 161, 3), "many neurons": (41, 6, 4)}  # m, d, q
EFFORTS = EFFORTS | {"boxes": (6, 4, 17)}
SHAPES = OTHERS | LARGE | {"a number": (1, 1, 12), "long": (3, 4000, 3)}


def problems(shape, *args, **more):
    return those(SHAPES[shape], *args, **more)


EVERY = {"interval": 1, "linear": 1, "tangents": 3, "one box": 3, "boxes": 5}  # so-manyth problem is tried
GLANCE = 3, 1, 5  # steps, rounds, boxes: some of everything
CASES = [("linf", 0), ("l2", 0), ("l2", 0.3), ("l1", 0), ("l1", 0.3)]


class Together(EmulatedGpu):
    """Blocks run side by side, and so share what is to do; few of them, so that they have many warps."""

    multiprocessors = 1

    def launch(self, *args, **more):
        super().launch(*args, together="search:search" in args, **more)


def some(shape, norm, penalty, effort, every=1, **changes):
    """Arguments of `search`, of every so-manyth of the problems."""
    W, X, rows, numbers, q, rho = problems(shape, norm, penalty)
    given = {"W": W, "X": X, "rows": rows[::every], "numbers": numbers[::every], "norm": norm, "q": q, "rho": rho}
    return given | dict(zip(("n_steps", "n_rounds", "n_nodes"), effort)) | changes


def same(found, truth):
    for ours, theirs in zip(found, truth, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def patch(given, i):
    shared = (given[name] for name in ("norm", "q", "rho"))
    return problem(given["W"], given["X"], given["rows"][i], given["numbers"][i], *shared)


# ------------------------------------------------------------------ against the other engines
def test_the_constants_are_the_formulas():
    text = "".join((gpu_device.SOURCES / file).read_text() for file in ("search.cuh", "relaxation.cuh", "search.cu"))
    given = {name: float(number) for name, number in re.findall(r"\b([A-Z_]+) = ([\d.e-]+)[,;]", text)}
    for name in ("TRIES", "MIXTURES", "HALVINGS", "SETTLED", "NEGLIGIBLE", "EXACT"):
        assert given[name] == getattr(branch_and_bound, name), name
    assert given["GOLDEN"] == pytest.approx(branch_and_bound.GOLDEN, abs=2e-16)
    powers = given["FIRST_MULTIPLIER"] * 2.0 ** np.arange(given["MULTIPLIERS"])
    np.testing.assert_array_equal(powers, branch_and_bound.MULTIPLIERS)
    assert (given["HEAD"], given["PATCH_NUMBERS"]) == (gpu_branch_and_bound.HEAD, gpu_branch_and_bound.PATCH)
    for last in ("NEURON_ROWS", "COORDINATE_ROWS"):
        rows = re.search(r"enum \{([^}]*), " + last, text).group(1).split(",")
        assert len(rows) == gpu_branch_and_bound.VECTORS
    bounds = re.search(r"__launch_bounds__\((\d+), (\d+)\)", text).groups()
    most = gpu_branch_and_bound.MOST_WARPS * gpu_branch_and_bound.WARP
    assert bounds == (str(most), str(gpu_branch_and_bound.BLOCKS))


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("norm", "penalty"), CASES)
@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "long"])
def test_it_agrees_with_the_other_engines(shape, effort, norm, penalty):
    code = NORMS[norm]
    given = some(shape, code, penalty, EFFORTS[effort], EVERY[effort] * (1 + (shape in LARGE)))
    lower, upper, delta, nodes = gpu_branch_and_bound.search(EmulatedGpu(), **given)
    size = np.abs(upper).max()
    # where to stop, which range to halve and how far to go are decisions that rounding may turn the other way; steps
    # inside a face of the l_1 ball swing
    close = 1e2 * PARITY["float64"] if effort in ("interval", "linear") else 1e-5 if code == L1 else 1e-7
    for name in ("numpy", "numba"):
        low, up, _, count = get_engine(name).search(**given)
        for ours, theirs in ((lower, low), (upper, up), (nodes, count)):
            share = (np.abs(ours - theirs) <= close * size).mean()
            assert share >= {"interval": 1, "linear": 0.9}.get(effort, 0.75), name
    for i, here in enumerate(delta):
        assert abs(branch_and_bound.value(patch(given, i)[0], here) - upper[i]) <= REORDERED * size
        length = {LINF: np.abs(here).max(), L1: np.abs(here).sum()}.get(code, np.linalg.norm(here))
        assert length <= given["numbers"][i, 0] * (1 + 1e-12)


@pytest.mark.parametrize(("norm", "shape", "effort"), [("linf", "many neurons", (2, 1, 5)), ("l1", "wide", (2, 0, 1))])
def test_of_equal_ones_the_first_is_taken(norm, shape, effort):
    """Numbers that add up exactly: entries of a gradient, and neurons, as large as each other, 32 places apart too."""
    given = some(shape, NORMS[norm], 0, effort)
    rng = np.random.default_rng(9)
    given["W"], given["X"] = (rng.integers(-1, 2, given[name].shape) / 1.0 for name in ("W", "X"))
    given["W"][..., 32:] = given["W"][..., : max(given["W"].shape[-1] - 32, 0)]
    given["W"][:, :, 32:] = given["W"][:, :, : max(given["W"].shape[2] - 32, 0)]
    given["numbers"][:, 0] = rng.integers(1, 8, 20) / 4
    for ours, theirs in zip(gpu_branch_and_bound.search(EmulatedGpu(), **given), get_engine("numpy").search(**given)):
        assert (np.abs(ours - theirs) <= 1e-9).reshape(20, -1).all(axis=1).mean() >= 0.9


# ------------------------------------------------------------------ soundness
@pytest.mark.parametrize(("norm", "penalty"), CASES)
def test_every_allowance_for_rounding_is_made(norm, penalty):
    """With long vectors the slack is so much larger than actual errors that none of its terms can be missing."""
    given = some("long", NORMS[norm], penalty, (2, 2, 9), 5)
    given["numbers"][:, 0] *= np.geomspace(0.05, 1, 4)
    pads = np.array([branch_and_bound.slack(*patch(given, i))[0] for i in range(4)])
    found, truth = gpu_branch_and_bound.search(EmulatedGpu(), **given), get_engine("numpy").search(**given)
    # one may differ: where every chord is sigma itself, rounding decides whether a box can be halved
    assert (np.abs(found[0] - truth[0]) <= (1e-2 if norm == "l1" else 1e-4) * pads).mean() >= 0.75


@pytest.mark.parametrize(("norm", "penalty"), CASES)
def test_no_point_of_the_ball_is_below_the_bound(norm, penalty):
    rng, code = np.random.default_rng(4), NORMS[norm]
    given = some("four and a half", code, penalty, GLANCE, 3, n_nodes=6)
    given["numbers"][:, 2] = 0
    lower, upper, _, nodes = gpu_branch_and_bound.search(EmulatedGpu(), **given)
    assert nodes.max() == 5
    for i in range(len(lower)):
        p, _ = patch(given, i)
        delta = ball(code, p.eps, len(given["X"][0]), 20_000, rng)
        h = sigma(p.z + delta @ p.W.T, p.q, p.rho).sum(axis=1) - sigma(p.v + delta @ p.V.T, p.q, p.rho).sum(axis=1)
        spent = np.abs(delta).sum(axis=1) if code == L1 else (delta**2).sum(axis=1)
        assert lower[i] <= (h + p.penalty * spent).min()
        assert lower[i] < upper[i]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("effort", ["interval", "linear", "one box"])
def test_without_a_budget_the_bound_is_the_exact_value_less_its_slack(effort, scale):
    """h in rational numbers: what rounding does to a computed value stays far inside the slack."""
    given = some("four and a half", LINF, 0, EFFORTS[effort], 4)
    given["W"] = given["W"] * scale
    given["numbers"] = given["numbers"] * [0, 0, 0]
    lower, upper, delta, _ = gpu_branch_and_bound.search(EmulatedGpu(), **given)
    assert not delta.any()
    rho = Fraction(given["rho"])

    def exact(w, x):
        z = sum(Fraction(a) * Fraction(b) for a, b in zip(w, x))
        clipped = min(max(z / rho, Fraction(0)), Fraction(1))
        return rho / given["q"] * clipped ** given["q"] + max(z - rho, Fraction(0))

    for i, (sample, run, label, rival) in enumerate(given["rows"]):
        x = given["X"][sample]
        h = sum(exact(w, x) for w in given["W"][run, label]) - sum(exact(w, x) for w in given["W"][run, rival])
        pad, pad_z = branch_and_bound.slack(*patch(given, i))
        assert abs(Fraction(upper[i]) - h) <= Fraction(pad) / 8
        assert lower[i] <= h
        assert h - Fraction(lower[i]) <= Fraction(1.1 * pad if effort != "interval" else pad + 9 * pad_z)


def test_zeros_are_no_trouble():
    """Neurons, gradients, patches and radii of 0."""
    given = some("four and a half", 1, 0.3, GLANCE, 4)
    given["W"][0, 0], given["W"][0, 1, :4], given["X"][4] = 0, 0, 0
    for norm in NORMS.values():
        given["norm"] = norm
        for price in (0, 0.3):
            given["numbers"][:, 1] = price * (norm != LINF)
            found, truth = gpu_branch_and_bound.search(EmulatedGpu(), **given), get_engine("numpy").search(**given)
            for ours, theirs in zip(found[:2], truth):
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-7 * np.abs(truth[1]).max())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e160, 1e307])
def test_an_overflow_bounds_nothing(norm, scale):
    """The search ends, and what cannot be bounded in double is not."""
    given = some("four and a half", NORMS[norm], 0.3, GLANCE, 5)
    with np.errstate(over="ignore"):
        given["W"] = given["W"] * scale
    lower, upper, _, _ = gpu_branch_and_bound.search(EmulatedGpu(), **given)
    assert not (lower > upper).any()
    assert (scale < 1e300) or not np.isfinite(lower).any()
    given["W"][0, 0, 3] = np.nan
    assert np.isnan(gpu_branch_and_bound.search(EmulatedGpu(), **given)[0][given["rows"][:, 1] == 0]).any()


# ------------------------------------------------------------------ bits
MIXED = "four and a half", "many neurons", "many coordinates"


def mixed(shape, norm, every=1):
    return some(shape, NORMS[norm], 0.3, GLANCE, every if shape == "four and a half" else 4)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", MIXED)
@pytest.mark.one_in(2)
def test_bits_do_not_depend_on_the_order_of_threads(shape, norm):
    given = mixed(shape, norm)
    truth = gpu_branch_and_bound.search(EmulatedGpu(0), **given)
    for order in (1, 2, 3, 7):
        same(gpu_branch_and_bound.search(Together(order), **given), truth)


@pytest.mark.parametrize("norm", NORMS)
def test_a_problem_among_others_is_the_problem_alone(norm):
    given = mixed("four and a half", norm)
    truth = gpu_branch_and_bound.search(EmulatedGpu(), **given)
    for i in (0, 3, 9):
        one = given | {name: given[name][i : i + 1] for name in ("rows", "numbers")}
        same(gpu_branch_and_bound.search(EmulatedGpu(), **one), [part[i : i + 1] for part in truth])
    mix = np.random.default_rng(6).permutation(len(given["rows"]))
    shuffled = given | {name: given[name][mix] for name in ("rows", "numbers")}
    same(gpu_branch_and_bound.search(EmulatedGpu(), **shuffled), [part[mix] for part in truth])


@pytest.mark.parametrize("norm", NORMS)
def test_bits_do_not_depend_on_memory(norm, monkeypatch):
    """Weights and working vectors in shared or global memory, many or few warps and blocks, one launch or several."""
    given = mixed("four and a half", norm, 2)
    truth = gpu_branch_and_bound.search(EmulatedGpu(), **given)
    m, d = SHAPES["four and a half"][:2]
    seen = set()
    for shared_bytes in (12_000, 6_144, 6_000, 5_000):
        block = gpu_branch_and_bound.layout(m, d, given["n_nodes"], shared_bytes)
        seen.add((block.vectors_near, block.weights_near))
        same(gpu_branch_and_bound.search(Together(shared_bytes=shared_bytes), **given), truth)
    assert seen == {(True, True), (True, False), (False, False)}
    for memory in (6_000, 7_000, 30_000):
        device = Together(memory=memory)
        same(gpu_branch_and_bound.search(device, **given), truth)
        assert (device.launched.count("search:search") > 1) == (memory < 10_000)
    monkeypatch.setattr(gpu_branch_and_bound, "MOST_PROBLEMS", 3)
    device = EmulatedGpu()
    same(gpu_branch_and_bound.search(device, **given), truth)
    assert device.launched.count("search:search") == -(-len(given["rows"]) // 3)


# ------------------------------------------------------------------ what it refuses, and nothing to do
def test_what_does_not_fit_is_refused_before_any_work():
    given = some("four and a half", LINF, 0, GLANCE)
    device = EmulatedGpu(memory=3_000)
    with pytest.raises(GpuMemoryError) as caught:
        gpu_branch_and_bound.search(device, **given)
    assert caught.value.needed > caught.value.free == 3_000
    assert not device.launched
    enough = gpu_branch_and_bound.search(EmulatedGpu(memory=caught.value.needed), **given)
    same(enough, gpu_branch_and_bound.search(EmulatedGpu(), **given))
    with pytest.raises(GpuMemoryError):
        gpu_branch_and_bound.search(EmulatedGpu(memory=caught.value.needed - 8), **given)
    assert caught.value.fits < 2


def test_rho_needs_an_inverse():
    with pytest.raises(ValueError, match="must be a finite float64 number"):
        gpu_branch_and_bound.search(EmulatedGpu(), **some("four and a half", LINF, 0, GLANCE, rho=1e-310))


def test_a_search_of_nothing_is_empty():
    given = some("four and a half", LINF, 0, GLANCE)
    given |= {name: given[name][:0] for name in ("rows", "numbers")}
    found = gpu_branch_and_bound.search(EmulatedGpu(), **given)
    assert [part.shape for part in found] == [(0,), (0,), (0, 7), (0,)]


def test_slices_hold_one_pair_each():
    pairs = np.array([[0, 1]] * 5 + [[0, 2]] + [[1, 2]] * 4)
    assert gpu_branch_and_bound.slices(pairs, 2).tolist() == [0, 2, 4, 5, 6, 8, 10]
    assert gpu_branch_and_bound.slices(pairs, 9).tolist() == [0, 5, 6, 10]

"""Every attack under every norm and budget: its set, its report; runs and samples that do not know of each other."""

from dataclasses import replace

import numpy as np
import pytest
import torch_reference
from advfeat.kernels import get_engine

from advfeat import (
    APGD,
    FGSM,
    PGD,
    Aligned,
    FeatureSwap,
    OneStepAscent,
    PatchCNN,
    PatchData,
    PatchDistribution,
    Rescue,
    Square,
    ThreatModel,
    feature_swap,
    one_step_ascent,
)
from advfeat.attacks import base
from advfeat.core import ball

Q, RHO = 3, 0.7
LAW = PatchDistribution(n_classes=4, patch_dim=9, n_patches=5, n_robust=2, alpha=1.5, beta=1.0, noise_std=0.25)
RUNS = [LAW.sample(7, seed) for seed in range(3)]
RUNS = [replace(run, y=(run.y + (np.arange(7) == 4)) % 4) for run in RUNS]  # sample 4 is wrong without any attack
DATA = PatchData.stack(RUNS)
U, V = LAW.features
W = 0.4 * U[:, None] + 0.4 * V[:, None] + np.random.default_rng(0).standard_normal((3, 4, 3, 9)) / 5
NET = PatchCNN(W, Q, RHO)
SEEDS = [5, 6, 5]
EPS = {"linf": 0.15, "l2": 0.4, "l1": 0.8}

ATTACKS = [
    FGSM(),
    FGSM("dlr"),
    OneStepAscent(0.5),
    OneStepAscent([0.5, 1.0, 0.5], "margin", 3),
    OneStepAscent(0.5, "dlr", 2, name="one_step_dlr"),
    PGD("cross_entropy", n_steps=5, n_restarts=2),
    PGD("margin", n_steps=5),
    PGD("neg_label_logit", n_steps=4, schedule="linear"),
    PGD("margin", n_steps=5, momentum=0.75, schedule="cosine", name="pgd_momentum"),
    PGD("dlr", n_steps=5, step=0.5),
    PGD("dlr", n_steps=3, all_targets=True),
    PGD("cross_entropy", n_steps=3, all_targets=True),
    APGD("cross_entropy", n_steps=10),
    APGD("dlr", n_steps=10, n_restarts=2),
    APGD("margin", n_steps=9, all_targets=True),
    Rescue(n_steps=4, n_restarts=2),
    Rescue(n_steps=4, all_targets=False, name="rescue_one"),
    FeatureSwap(),
    FeatureSwap(all_classes=True),
    Aligned(n_leaders=2),
    Square(n_steps=12, n_restarts=2),
]
AIMED = [a for a in ATTACKS if isinstance(a, Rescue) or not getattr(a, "all_targets", False)]  # the others aim at all
attacks = pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
sets = pytest.mark.parametrize(("norm", "budget"), [(n, b) for n in ball.NORMS for b in ball.BUDGETS])


def model(norm, budget, **options):
    """A radius per norm; a global budget is spent on two patches or so."""
    eps = EPS[norm] * (2 if budget == "global" and norm != "linf" else 1)
    return ThreatModel(norm, options.pop("eps", eps), budget, **options)


def torch_margins(X, labels):
    """F_y - max_{j != y} F_j in PyTorch float64."""
    F = torch_reference.logits(W, X, Q, RHO)
    rest = np.where(np.arange(4) == labels[..., None], -np.inf, F).max(axis=-1)
    return np.take_along_axis(F, labels[..., None], -1)[..., 0] - rest


def beyond(X, norm, budget):
    """Rounding of x + delta: half an ulp of the largest number per coordinate, summed in the norm at worst."""
    n = X.shape[-1] * (X.shape[-2] if budget == "global" else 1)
    return {"linf": 1, "l2": n**0.5, "l1": n}[norm] * 2**-52 * (np.abs(X).max() + 1)


@attacks
@sets
@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.one_in(5)
def test_attacks_stay_in_ball_and_box_and_report_their_best_point(attack, norm, budget, boxed):
    box = (DATA.X.min() - 0.05, DATA.X.max() + 0.02) if boxed else None
    limits = model(norm, budget, box=box)
    found = attack(NET, DATA, limits, SEEDS)
    assert found.X_adv.dtype == found.margin.dtype == np.float64
    size = ball.length(found.X_adv - DATA.X, norm, "patch" if norm == "linf" else budget)
    assert size.max() <= limits.eps + beyond(DATA.X, norm, budget)
    assert size.max() > 0.1 * limits.eps
    if boxed:
        assert box[0] <= found.X_adv.min() <= found.X_adv.max() <= box[1]
    np.testing.assert_allclose(found.margin, torch_margins(found.X_adv, DATA.y), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found.success, found.margin <= 0)
    assert (found.margin <= NET.margin(DATA.X, DATA.y)).all()
    assert found.forward_calls.min() >= 1
    right = NET.margin(DATA.X, DATA.y) > 0
    assert 0 < right.mean() < 1
    np.testing.assert_array_equal(found.X_adv[~right], DATA.X[~right])
    np.testing.assert_array_equal(found.forward_calls > 1, right)  # a wrong one is left alone
    assert (found.iterations[~right] == 0).all()
    assert (found.gradient_calls > 0).any() != isinstance(attack, (Square, Aligned, FeatureSwap))


@attacks
@sets
@pytest.mark.one_in(5)
def test_radius_zero_is_the_identity(attack, norm, budget):
    data = replace(DATA, X=np.where(np.abs(DATA.X) < 0.02, -0.0, DATA.X))
    for eps in (0, np.where(np.arange(7) % 2, 0.0, model(norm, budget).eps) + np.zeros((3, 1))):
        found = attack(NET, data, model(norm, budget, eps=eps), SEEDS)
        still = np.broadcast_to(eps, (3, 7)) == 0
        np.testing.assert_array_equal(found.X_adv[still].view(np.int64), data.X[still].view(np.int64))
        np.testing.assert_array_equal(found.margin[still], NET.margin(data.X, data.y)[still])


@attacks
@sets
@pytest.mark.one_in(5)
def test_a_run_in_a_batch_is_the_run_alone_and_a_sample_among_others_itself(attack, norm, budget):
    limits = model(norm, budget)
    found = attack(NET, DATA, limits, SEEDS)
    one = replace(attack, lr=0.5) if isinstance(attack, OneStepAscent) else attack
    alone = one(NET.run(2), RUNS[2], limits, 5)
    few = np.arange(7) % 2 == 0
    some = one(NET.run(2), RUNS[2], limits, 5, active=few)
    for field in ("X_adv", "margin", "success", "iterations", "gradient_calls", "forward_calls"):
        np.testing.assert_array_equal(getattr(alone, field), getattr(found, field)[2])
        np.testing.assert_array_equal(getattr(some, field)[few], getattr(alone, field)[few])
    np.testing.assert_array_equal(some.X_adv[~few], RUNS[2].X[~few])
    assert np.isnan(some.margin[~few]).all()
    assert not some.success[~few].any()
    assert (some.forward_calls[~few] == 0).all()


@attacks
def test_the_number_of_samples_worked_on_at_a_time_changes_nothing(attack, monkeypatch):
    limits = model("l2", "patch")
    whole = attack(NET, DATA, limits, SEEDS)
    monkeypatch.setattr(base, "CHUNK_BYTES", 2 * DATA.X[:, :1].nbytes)
    parts = attack(NET, DATA, limits, SEEDS)
    np.testing.assert_array_equal(parts.X_adv, whole.X_adv)
    np.testing.assert_array_equal(parts.margin, whole.margin)


@pytest.mark.parametrize("attack", [a for a in ATTACKS if not isinstance(a, (OneStepAscent, FeatureSwap))], ids=str)
@pytest.mark.parametrize("norm", ball.NORMS)
def test_radii_per_sample_are_radii_alone(attack, norm):
    """What a sample meets under its own radius, in a batch of other radii, is what it meets where all have that one."""
    radii = EPS[norm] * np.linspace(0.4, 1.2, 7)
    mixed = attack(NET.run(0), (RUNS[0].X, RUNS[0].y), ThreatModel(norm, radii), 5)
    size = ball.length((mixed.X_adv - RUNS[0].X)[None], norm)[0]
    assert (size <= radii + beyond(DATA.X, norm, "patch")).all()
    for n in (0, 3, 6):
        alone = attack(NET.run(0), (RUNS[0].X, RUNS[0].y), ThreatModel(norm, radii[n]), 5)
        assert mixed.success[n] == alone.success[n]
        if not alone.success[n]:
            np.testing.assert_allclose(mixed.margin[n], alone.margin[n], rtol=0, atol=1e-9)


@attacks
def test_the_point_of_smallest_margin_is_kept(attack, monkeypatch):
    """The reported margin is the smallest of all points whose logits were asked for, up to the first success."""
    met = []

    def watch(problem, F, on):
        met.append(np.where(on, problem.margin(F), np.nan))

    evaluate = base.AttackProblem.evaluate

    def watched(problem, X, on):
        F = evaluate(problem, X, on)
        watch(problem, F, on)
        return F

    monkeypatch.setattr(base.AttackProblem, "evaluate", watched)
    monkeypatch.setattr(base.AttackProblem, "offered", lambda problem, loop, objective: None)
    found = attack(NET, DATA, model("l2", "patch", eps=0.6), SEEDS)
    np.testing.assert_array_equal(found.margin, np.nanmin(met, axis=0))
    asked = (~np.isnan(met)).sum(axis=0)
    np.testing.assert_array_equal(asked, found.forward_calls)
    first = np.argmax(np.array(met) <= 0, axis=0)
    np.testing.assert_array_equal(np.where(found.success, first + 1, asked), asked)  # and then it rests


@pytest.mark.parametrize("objective", ["cross_entropy", "margin", "neg_label_logit"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("kind", ["pgd", "one_step", "aligned"])
def test_the_engines_loops_are_the_general_ones(objective, norm, kind, monkeypatch):
    options = {"pgd": PGD(objective, n_steps=4, n_restarts=2), "one_step": OneStepAscent(0.3, objective, 2)}
    attack, limits = {**options, "aligned": Aligned()}[kind], ThreatModel(norm, [0.5 * EPS[norm], EPS[norm], 0])
    fast = attack(NET, DATA, limits, SEEDS)
    monkeypatch.setattr(base.AttackProblem, "offered", lambda problem, loop, objective: None)
    monkeypatch.setattr(base.AttackProblem, "radius_per_run", lambda problem: None)
    slow = attack(NET, DATA, limits, SEEDS)
    both = ~(fast.success | slow.success)
    np.testing.assert_array_equal(fast.success, slow.success)
    np.testing.assert_allclose(fast.margin[both], slow.margin[both], rtol=0, atol=1e-9)
    assert 0 < both.mean() < 1
    assert (slow.gradient_calls <= fast.gradient_calls).all()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_backends_agree(backend):
    for attack in (PGD(n_steps=4, momentum=0.5), Aligned(), APGD(n_steps=6), Rescue(n_steps=4)):
        net = PatchCNN(W, Q, RHO, backend)
        assert net.engine.name == get_engine(backend).name
        found, truth = attack(net, DATA, model("l2", "global"), SEEDS), attack(NET, DATA, model("l2", "global"), SEEDS)
        np.testing.assert_allclose(found.margin, truth.margin, rtol=0, atol=1e-8)


@pytest.mark.parametrize("attack", AIMED, ids=lambda a: a.name)
@sets
def test_targeted_success_is_the_targets_strict_win(attack, norm, budget):
    targets = (DATA.y + 1 + np.arange(7) % 3) % 4
    limits = model(norm, budget, targets=targets)
    limits = replace(limits, eps=1.5 * limits.eps)
    found = attack(NET, DATA, limits, SEEDS)
    np.testing.assert_allclose(found.margin, -torch_margins(found.X_adv, targets), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found.success, found.margin < 0)
    np.testing.assert_array_equal(found.success, NET.predict(found.X_adv) == targets)
    clean = -torch_margins(DATA.X, targets)
    assert (found.margin <= clean + 1e-9).all()
    if not isinstance(attack, (Square, FeatureSwap, OneStepAscent)):
        assert found.margin.mean() < clean.mean() - 0.05


def test_a_targeted_tie_is_no_success_and_an_untargeted_one_is():
    net, X = PatchCNN(np.zeros((4, 1, 9))), RUNS[0].X
    found = PGD(n_steps=2)(net, (X, RUNS[0].y), ThreatModel())
    assert found.success.all()
    assert (found.forward_calls == 1).all()  # nothing to do
    targets = (RUNS[0].y + 1) % 4
    assert not PGD(n_steps=2)(net, (X, RUNS[0].y), ThreatModel(targets=targets)).success.any()


# ------------------------------------------------------------------ single attacks
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_class_one_step_is_the_function(norm):
    limits = ThreatModel(norm, EPS[norm])
    found = OneStepAscent(0.5)(NET, DATA, limits)
    X = one_step_ascent(NET, DATA.X, DATA.y, lr=0.5, eps=EPS[norm], norm=norm)
    better = NET.margin(X, DATA.y) < NET.margin(DATA.X, DATA.y)
    right = NET.margin(DATA.X, DATA.y) > 0
    np.testing.assert_array_equal(found.X_adv, np.where((better & right)[..., None, None], X, DATA.X))


@pytest.mark.parametrize("norm", ball.NORMS)
def test_the_class_feature_swap_is_the_function(norm):
    found = FeatureSwap()(NET, DATA, ThreatModel(norm, EPS[norm]), SEEDS)
    X = feature_swap(DATA, eps=EPS[norm], norm=norm, rng=SEEDS)
    changed = (found.X_adv != DATA.X).any(axis=(2, 3))
    assert changed.mean() > 0.3
    np.testing.assert_array_equal(found.X_adv[changed], X[changed])


@sets
def test_fgsm_moves_by_eps_along_the_autograd_gradient(norm, budget):
    limits = model(norm, budget)
    found = FGSM("margin")(NET, DATA, limits)
    g = torch_reference.input_gradient(W, DATA.X, DATA.y, Q, RHO, "margin")
    expected = DATA.X + limits.eps * ball.steepest(g, norm, "patch" if norm == "linf" else budget)
    moved = (found.X_adv != DATA.X).any(axis=(2, 3))
    assert moved.mean() > 0.5
    np.testing.assert_allclose(found.X_adv[moved], expected[moved], rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ball.NORMS)
def test_starts_hang_on_seed_restart_and_sample(norm, monkeypatch):
    drawn, start = [], base.AttackProblem.start
    monkeypatch.setattr(base.AttackProblem, "start", lambda *args: drawn.append(start(*args)) or drawn[-1])

    def starts(net, data, seed):
        """Two restarts' first points, (2, R, N, P, d), the clean ones of samples that are wrong."""
        drawn.clear()
        limits = ThreatModel(norm, 0.01 * EPS[norm])
        PGD(n_steps=1, n_restarts=2)(net, data, limits, seed, active=net.margin(data.X, data.y) > 0.1)
        return np.array(drawn)

    together, alone = starts(NET, DATA, SEEDS), starts(NET.run(2), RUNS[2], 5)
    right = NET.run(2).margin(RUNS[2].X, RUNS[2].y) > 0.1
    assert len(alone) == 2
    assert 1 < right.sum() < len(right)
    np.testing.assert_array_equal(alone[:, 0], together[:, 2])
    assert ((alone[0, 0] != alone[1, 0]).any(axis=(1, 2)) == right).all()
    other = starts(NET.run(2), RUNS[2], 6)
    assert ((alone[:, 0] != other[:, 0]).any(axis=(2, 3)) == right).all()
    delta = (alone[0, 0] - RUNS[2].X)[right]
    assert (delta[0] != delta[1]).any()
    generator = (starts(NET, DATA, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(next(generator).copy(), next(generator))


@pytest.mark.parametrize(("norm", "rho"), [("l2", 10.0), ("l1", 10.0), ("l1", 0.1)])
def test_aligned_spends_a_global_budget_on_the_patches_that_gain_most(norm, rho):
    """One neuron per class on a feature of its own: a single patch gets the whole budget, since sigma is convex."""
    net = PatchCNN(np.eye(2, 4)[:, None], Q, rho)
    X, y = np.zeros((1, 3, 4)), np.array([0])
    X[0, :, 0], X[0, 1, 1] = 0.9, 0.5
    found = Aligned()(net, (X, y), ThreatModel(norm, 1.0, "global"))
    expected = X.copy()
    expected[0, 1, 1] = 1.5
    np.testing.assert_array_equal(found.X_adv, expected)


def test_square_changes_a_window_of_the_best_point_so_far(monkeypatch):
    """p_init = 0.04: one patch and round(0.2 * 9) = 2 coordinates, then 1; one that did not help is forgotten."""
    evaluate, changed = base.AttackProblem.evaluate, []

    def watched(problem, X, on):
        changed.append(np.not_equal(problem.best_X, X).sum(axis=(2, 3))[on].max())
        return evaluate(problem, X, on)

    monkeypatch.setattr(base.AttackProblem, "evaluate", watched)
    found = Square(n_steps=40, p_init=0.04)(NET, DATA, ThreatModel(eps=0.02), SEEDS)
    assert max(changed[1:]) == 2
    assert (found.margin < NET.margin(DATA.X, DATA.y))[NET.margin(DATA.X, DATA.y) > 0].all()

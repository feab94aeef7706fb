"""certify and robust_radius: agreement with global searches and closed forms, confirmed points, bad arguments."""

import re

import numpy as np
import pytest
import torch_reference
from global_search import ORDER, Problem, grid_minimum, problems_of, sigma, subdivision_minimum, worst_margin
from scipy.optimize import brentq
from tolerances import beyond_the_ball

from advfeat import PatchCNN
from advfeat.patches.certify import certify, robust_radius

METHODS = ("interval", "linear", "tangents", "branch_and_bound")
SETS = [(norm, budget) for norm in ("linf", "l2", "l1") for budget in ("patch", "global")]
AGREE = 1e-6  # branch and bound against grid-plus-polish


def small_problems(seed, n, budget):
    """n networks and samples of the stated smallness: d <= 3, m <= 2, at most 3 coordinates per ball."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        d = int(rng.integers(1, 4))
        P = int(rng.integers(1, 3)) if budget == "patch" else 3 // d
        k, m, q, rho = rng.integers(2, 4), rng.integers(1, 3), rng.integers(2, 6), rng.choice([0.1, 1.0, 10.0])
        net, X = PatchCNN(rng.standard_normal((k, m, d)), int(q), float(rho)), rng.standard_normal((1, P, d))
        F = net.logits(X)
        if F.max() > 0:
            yield net, X, F.argmax(axis=1)


def shared(norm, budget):
    """Do the patches share the radius?  Then there may be a duality gap, and the search is not exhaustive."""
    return budget == "global" and norm != "linf"


def sizes(delta, norm, budget):
    """The perturbation's size, the largest over the patches or of the whole sample, per sample."""
    flat = delta.reshape(*delta.shape[:-2], -1)
    return np.linalg.norm(flat, ORDER[norm], axis=-1) if budget == "global" else patchwise(delta, norm)


def patchwise(delta, norm):
    return np.linalg.norm(delta, ORDER[norm], axis=-1).max(axis=-1)


def torch_margin(net, X, y):
    """(R or 1, N)."""
    X = np.array(np.broadcast_to(X, (net.n_runs, *X.shape[-3:])))
    F = torch_reference.logits(net.weights, X, net.q, net.rho)
    return -torch_reference.objective(F, np.array(np.broadcast_to(y, F.shape[:2])), "margin")


# ------------------------------------------------------------------ the searches themselves
@pytest.mark.parametrize(("norm", "budget"), SETS)
def test_grid_and_subdivision_agree(norm, budget):
    for net, X, y in small_problems(2, 6, budget):
        rival = (y[0] + 1) % net.shape[0]
        for problem in problems_of(net.W, X[0], y[0], rival, net.q, net.rho, budget):
            lower, upper = subdivision_minimum(problem, 0.2, norm, tol=1e-5)
            value, delta = grid_minimum(problem, 0.2, norm)
            assert lower - 1e-12 <= value <= upper + 1e-9
            assert np.linalg.norm(delta, ORDER[norm]) <= 0.2 * (1 + 1e-12)


def test_searches_find_a_minimum_in_the_middle():
    """2 sigma(x + 0.1) + 2 sigma(-x - 0.1) - sigma(x): q = 2, minimum of its parabolas at x = -0.1 or beyond."""
    problem = Problem(np.array([[1.0], [-1.0], [1.0]]), np.array([0.1, -0.1, 0]), np.array([2.0, 2.0, -1.0]), 2, 1.0)
    assert grid_minimum(problem, 1.0, "linf")[0] == pytest.approx(0, abs=1e-12)
    shifted = problem._replace(z=np.array([-0.1, 0.1, 0]))  # at x > 0: (x - 0.1)^2 - x^2 / 2, smallest at x = 0.2
    value, x = grid_minimum(shifted, 1.0, "linf")
    assert (value, x[0]) == (pytest.approx(-0.01, abs=1e-12), pytest.approx(0.2, abs=1e-5))
    assert subdivision_minimum(shifted, 1.0, "linf")[0] == pytest.approx(-0.01, abs=2e-6)


# ------------------------------------------------------------------ branch and bound against the searches
def searched(net, X, y, rival, eps, price, norm, joint):
    """The engine's search of every patch of one sample, until its bounds are AGREE / 2 apart: lower, upper, delta."""
    rows = np.array([[p, 0, y, rival] for p in range(len(X))])
    numbers = np.tile([eps, price, AGREE / 2], (len(X), 1))
    code = list(ORDER).index(norm)
    return net.engine.search(net.weights, X, rows, numbers, code, net.q, net.rho, 100, 4, 1000, joint)[:3]


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize(("norm", "price"), [("linf", 0.0), ("l2", 0.0), ("l1", 0.0), ("l2", 0.3)])
def test_branch_and_bound_meets_the_global_search(norm, price, joint):
    off_the_corners = 0
    for net, X, y in small_problems(11, 25, "patch"):
        rival = int(y[0] + 1) % net.shape[0]
        for eps in (0.1, 0.6):
            lower, upper, delta = searched(net, X[0], y[0], rival, eps, price, norm, joint)
            problems = problems_of(net.W, X[0], y[0], rival, net.q, net.rho, "patch")
            for p, problem in enumerate(problems):
                problem = problem._replace(price=price)
                truth, best = grid_minimum(problem, eps, norm)
                assert lower[p] <= truth <= lower[p] + AGREE
                assert abs(upper[p] - truth) <= AGREE
                assert abs(problem.value(delta[p]) - upper[p]) <= 1e-12
                size = np.abs(best).max() if norm == "l1" else np.abs(best).min()  # eps at a vertex, at a corner
                off_the_corners += size < 0.99 * eps and problem.value(0 * best) > truth + AGREE
    assert off_the_corners >= 3


@pytest.mark.parametrize(("norm", "budget"), SETS)
def test_certify_decides_as_the_global_search(norm, budget):
    undecided = 0
    for net, X, y in small_problems(13, 6, budget):
        for eps in (0.1, 0.5):
            found = certify(net, X, y, eps, norm=norm, budget=budget, max_nodes=500)
            worst, _ = worst_margin(net, X[0], y[0], eps, norm, budget)
            assert found.lower[0] <= worst + 1e-12
            assert found.upper[0] >= worst - 1e-9
            assert not (found.certified[0] and worst <= 0)
            assert not (found.broken[0] and worst > AGREE)
            undecided += found.undecided[0]
    assert undecided <= (3 if shared(norm, budget) else 0)


@pytest.mark.parametrize(("norm", "budget"), SETS)
def test_robust_radius_meets_the_global_search(norm, budget):
    for net, X, y in small_problems(12, 3, budget):
        found = robust_radius(net, X, y, norm=norm, budget=budget, rtol=1e-4)
        low, high = float(found.certified[0]), float(found.broken[0])
        assert 0 < low < high
        assert worst_margin(net, X[0], y[0], low * (1 - AGREE), norm, budget)[0] > 0
        assert worst_margin(net, X[0], y[0], high * (1 + AGREE), norm, budget)[0] <= 1e-9
        assert high <= low * (2 if shared(norm, budget) else 1.03)
        margin = torch_margin(net, found.X_adv, y)[0]
        assert margin[0] <= 1e-9
        assert sizes(found.X_adv - X, norm, budget)[0] <= high + beyond_the_ball(X, high)


# ------------------------------------------------------------------ radii in closed form
def assert_brackets(found, true, below, above):
    """certified <= true <= broken, nearer to it than these shares."""
    assert (found.certified <= true * (1 + 1e-12)).all()
    assert (found.broken >= true * (1 - 1e-12)).all()
    assert (found.certified >= true * (1 - below)).all()
    assert (found.broken <= true * (1 + above)).all()


@pytest.mark.parametrize(("q", "rho"), [(2, 0.3), (3, 1.0), (5, 4.0)])
def test_radius_of_two_features(q, rho):
    """w_0 = a e_1, w_1 = b e_2, l_inf: sum_p sigma(a(x_1 - eps)) = sum_p sigma(b(x_2 + eps))."""
    rng = np.random.default_rng(q)
    a, b, X = 1.3, 0.8, rng.uniform(0, 1, (5, 3, 2)) + np.array([1.0, -0.7])
    net = PatchCNN(np.array([[[a, 0]], [[0, b]]]), q, rho)

    def margin(eps, x):
        return sigma(a * (x[:, 0] - eps), q, rho).sum() - sigma(b * (x[:, 1] + eps), q, rho).sum()

    true = np.array([brentq(margin, 0, 3, (x,), xtol=1e-14) for x in X])
    for budget in ("patch", "global"):
        assert_brackets(robust_radius(net, X, np.zeros(5, int), budget=budget, rtol=1e-6), true, 2e-6, 2e-6)


@pytest.mark.parametrize(("norm", "budget"), SETS)
def test_radius_of_one_feature(norm, budget):
    """w_0 = a e_1, w_1 = 0: broken once every patch's x_1 is removed, |(x_1)_+| over the patches, exactly 0 there."""
    X = np.random.default_rng(1).uniform(-0.5, 1.5, (6, 3, 2))
    X[:, 0, 0] = 1.0
    net = PatchCNN(np.array([[[1.3, 0]], [[0, 0]]]), 3, 0.4)
    true = np.linalg.norm(np.maximum(X[..., 0], 0), ORDER[norm] if budget == "global" else np.inf, axis=-1)
    found = robust_radius(net, X, np.zeros(6, int), norm=norm, budget=budget)
    assert_brackets(found, true, *((0.15, np.inf) if shared(norm, budget) else (0.03, 2e-3)))
    assert (torch_margin(net, found.X_adv, np.zeros((1, 6), int)) == 0).all()


@pytest.mark.parametrize(("norm", "budget"), SETS)
def test_radius_of_the_linear_part(norm, budget):
    """All preactivations above rho: sum_p <w_0 - w_1, x_p> / (|w_0 - w_1|_* P, sqrt P or 1), for two runs."""
    W = np.array([[[10.0, 6, 11]], [[7, 10, 11]]])
    X = np.random.default_rng(7).uniform(2, 3, (2, 3, 4, 3))
    X[..., 1] = 0.7 * X[..., 0]
    net = PatchCNN(np.stack([W, 2 * W]), 3, 1e-3)
    patches = 4 if norm == "linf" or budget == "patch" else {"l2": 2, "l1": 1}[norm]
    true = (X @ [3.0, -4, 0]).sum(axis=-1) / ({"linf": 7, "l2": 5, "l1": 4}[norm] * patches)
    found = robust_radius(net, X, np.zeros((2, 3), int), norm=norm, budget=budget, rtol=1e-6)
    assert_brackets(found, true, *((1e-3, 1e-3) if shared(norm, budget) else (3e-6, 3e-6)))


def test_radius_of_samples_that_are_wrong_or_stay_right():
    net, X = PatchCNN(np.array([[[1.0, 0]], [[0, 1.0]]])), np.array([[[2.0, 0]], [[0, 2.0]], [[1.0, 1.0]]])
    found = robust_radius(net, X, [0, 0, 0], high=0.5)
    np.testing.assert_array_equal(found.broken, [np.inf, 0, 0])
    np.testing.assert_array_equal(found.certified, [0.5, 0, 0])
    np.testing.assert_array_equal(found.X_adv[1:], X[1:])


# ------------------------------------------------------------------ the points, by PyTorch
@pytest.mark.parametrize(("norm", "budget"), SETS)
def test_pytorch_confirms_the_points(norm, budget):
    rng = np.random.default_rng(4)
    net = PatchCNN(rng.standard_normal((3, 4, 2, 5)).astype("float32"), 3, 0.5)
    X = rng.standard_normal((3, 10, 3, 5))
    y = net.logits(X).argmax(axis=-1)
    for method in METHODS:
        found = certify(net, X, y, 0.3, norm=norm, budget=budget, method=method)
        known = np.isfinite(found.upper)
        margin = torch_margin(net, found.X_adv, y)
        np.testing.assert_allclose(margin[known], found.upper[known], rtol=0, atol=1e-9)
        assert (margin[found.broken] <= 0).all()
        assert (sizes(found.X_adv - X, norm, budget) <= 0.3 + beyond_the_ball(X, 0.3)).all()
    assert found.broken.any()
    assert found.certified.any()


# ------------------------------------------------------------------ bad arguments
NET = PatchCNN(np.random.default_rng(0).standard_normal((2, 3, 4)))
RUNS = PatchCNN(np.random.default_rng(1).standard_normal((3, 2, 3, 4)))
X, Y = np.random.default_rng(2).standard_normal((5, 2, 4)), np.array([0, 1, 0, 1, 0])
BROKEN = PatchCNN(np.ones((2, 3, 4)))
BROKEN.W[0, 0, 0] = np.nan
WITH_NAN = np.where(np.arange(4) == 3, np.nan, X)
EITHER = [
    ({"norm": "l_2"}, "norm = 'l_2': unknown; did you mean 'l2'?"),
    ({"norm": 2}, "norm = 2: unknown"),
    ({"budget": "globel"}, "budget = 'globel': unknown; did you mean 'global'?"),
    ({"method": "brunch_and_bound"}, "method = 'brunch_and_bound': unknown; did you mean 'branch_and_bound'?"),
    ({"max_nodes": -1}, "max_nodes = -1: must be an integer >= 1"),
    ({"max_nodes": 1.5}, "max_nodes = 1.5: must be an integer >= 1"),
    ({"net": BROKEN}, "W holds NaN or infinite values: every weight must be finite"),
    ({"X": X[:0], "y": Y[:0]}, "0, 2, 4): no axis may be empty"),
    ({"X": X[..., :3]}, "must be (N, P, 4)"),
    ({"X": X[0]}, "X has shape (2, 4): must be (N, P, 4)"),
    ({"X": WITH_NAN}, "X holds NaN or infinite values"),
    ({"y": Y[:3]}, "y has shape (3,): must hold one label for each of the 5 samples"),
    ({"y": Y + 1}, "y holds 2: labels must be in 0..1"),
]
CERTIFY = [
    ({"eps": -0.1}, "eps = -0.1: must be a number, finite and >= 0"),
    ({"eps": np.nan}, "eps = nan: must be a number, finite and >= 0"),
    ({"eps": np.inf}, "eps = inf: must be a number, finite and >= 0"),
    ({"eps": "0.1"}, "eps = '0.1': must be a number, finite and >= 0"),
    ({"eps": [0.1, 0.2, -1.0, 0.1, 0.1]}, "eps = -1.0: must be a number, finite and >= 0"),
    ({"eps": [0.1, 0.2]}, "eps has shape (2,): must be"),
    ({"net": RUNS, "eps": np.ones((2, 5))}, "eps has shape (2, 5): must be"),
    ({"active": np.ones(3, bool)}, "active has shape (3,): must be"),
]
RADIUS = [
    ({"rtol": 0.0}, "rtol = 0.0: must be a number, finite and > 0"),
    ({"rtol": np.nan}, "rtol = nan: must be a number, finite and > 0"),
    ({"high": -1.0}, "high = -1.0: must be a number, finite and >"),
    ({"high": np.inf}, "high = inf: must be a number, finite and >"),
]


@pytest.mark.parametrize(("bad", "message"), EITHER + CERTIFY)
def test_certify_names_what_is_wrong(bad, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        certify(**{"net": NET, "X": X, "y": Y, "eps": 0.1, **bad})


@pytest.mark.parametrize(("bad", "message"), EITHER + RADIUS)
def test_robust_radius_names_what_is_wrong(bad, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        robust_radius(**{"net": NET, "X": X, "y": Y, **bad})


@pytest.mark.parametrize(("bad", "message"), [({"X": X.astype(int)}, "X has dtype"), ({"y": Y * 1.0}, "y has dtype")])
def test_wrong_dtypes(bad, message):
    for function, eps in ((certify, {"eps": 0.1}), (robust_radius, {})):
        with pytest.raises(TypeError, match=message):
            function(**{"net": NET, "X": X, "y": Y, **eps, **bad})

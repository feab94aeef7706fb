"""No certificate may exceed the smallest margin of its ball: sampling, corners, and exact rational arithmetic."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from global_search import exact_margin, fractions, problems_of, random_ball
from tolerances import REORDERED

from advfeat import PatchCNN
from advfeat.patches.certify import certify, interval_margin

METHODS = ("interval", "linear", "tangents", "branch_and_bound")
SETS = [(norm, budget) for norm in ("linf", "l2", "l1") for budget in ("patch", "global")]
SCALES = (2.0**-27, 1.0, 2.0**27)  # about 1e-8 and 1e8


def bounds(net, X, y, eps, norm, budget, **options):
    """The certificate of every method that the threat has."""
    for method in METHODS:
        yield method, certify(net, X, y, eps, norm=norm, budget=budget, method=method, **options)


def smallest(net, X, y, n, points, budget):
    """min over the points of one sample's F_y - max F_j, patch by patch where its ball is; `points` (M, D)."""
    rivals = set(range(net.shape[0])) - {int(y[n])}
    parts = [problems_of(net.W.astype(float), X[n], y[n], j, net.q, net.rho, budget) for j in rivals]
    blocks = np.array_split(points, len(points) // 8192 + 1)  # in the cache
    return min(sum(min(p.value(block).min() for block in blocks) for p in part) for part in parts)


def magnitude(net, X, eps):
    return np.linalg.norm(net.W, axis=-1).sum() * (np.abs(X) + eps).sum()


# ------------------------------------------------------------------ sampling and enumeration
@pytest.mark.one_in(5)
@pytest.mark.parametrize(("norm", "budget"), SETS)
def test_a_million_points_per_sample_never_pass_below_a_bound(norm, budget):
    rng = np.random.default_rng([len(norm), len(budget)])
    for q, rho, eps in ((2, 0.3, 0.4), (3, 2.0, 1.1), (5, 30.0, 0.7)):
        net, X, y = PatchCNN(rng.standard_normal((3, 2, 2)), q, rho), rng.standard_normal((1, 2, 2)), np.array([1])
        net, X = (net, X) if net.margin(X, y)[0] > 0 else (net.with_weights(-net.W), -X)
        y = net.logits(X).argmax(axis=1)
        points = random_ball(rng, (10**6, 2 if budget == "patch" else 4), eps, norm)
        least = smallest(net, X, y, 0, points, budget)
        for method, found in bounds(net, X, y, eps, norm, budget):
            assert found.lower[0] <= least + REORDERED * magnitude(net, X, eps), method
            assert found.upper[0] >= least - 0.1 * abs(least) - 0.1 or method != "branch_and_bound"


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_corners_never_pass_below_a_bound(norm):
    rng = np.random.default_rng(5)
    for d, P, q, rho, eps in ((10, 2, 3, 1.0, 0.2), (10, 1, 2, 0.2, 0.5), (6, 3, 5, 20.0, 0.4), (4, 2, 3, 5.0, 1.5)):
        net = PatchCNN(rng.standard_normal((3, 3, d)), q, rho)
        X = rng.standard_normal((4, P, d))
        y = net.logits(X).argmax(axis=1)
        corners = np.array(list(itertools.product([-eps, eps], repeat=d)))
        points = corners if norm == "linf" else eps * np.concatenate([np.eye(d), -np.eye(d)])
        for method, found in bounds(net, X, y, eps, norm, "patch"):
            for n in range(len(X)):
                least = smallest(net, X, y, n, points, "patch")
                assert found.lower[n] <= least + REORDERED * magnitude(net, X, eps), method


# ------------------------------------------------------------------ exact arithmetic
def vertices(d, eps, norm):
    """Exact points of the ball, its extreme ones among them: corners, +-eps e_i, Pythagorean directions; (M, d)."""
    eps = Fraction(eps)
    if norm == "linf":
        return [[eps * s for s in signs] for signs in itertools.product((-1, 0, 1), repeat=d)]
    axes = [[eps * s * (i == j) for j in range(d)] for i in range(d) for s in (-1, 1)]
    if norm == "l1":
        return [[0] * d, *axes]
    pairs = [(3, 4), (4, 3), (-3, 4), (4, -3), (-3, -4), (-4, -3), (3, -4), (-4, 3)]
    return [[0] * d, *axes] + [[eps * a / 5, eps * b / 5] + [0] * (d - 2) for a, b in pairs if d >= 2]


def exact_least(net, x, y, eps, norm, budget):
    """min over those points of the margin of one sample x (P, d), exact."""
    W, x, rho = fractions(net.W), fractions(x), Fraction(net.rho)
    P, d = x.shape
    if budget == "global" and norm != "linf":
        deltas = (np.reshape(v, (P, d)) for v in vertices(P * d, eps, norm))
        return min(exact_margin(W, x + delta, y, net.q, rho) for delta in deltas)
    two = ([y, j] for j in set(range(len(W))) - {y})
    return min(
        sum(min(exact_margin(W[pair], [p + np.array(v)], 0, net.q, rho) for v in vertices(d, eps, norm)) for p in x)
        for pair in two
    )


@pytest.mark.parametrize(("norm", "budget"), SETS)
@pytest.mark.parametrize("seed", range(6))
def test_preactivations_on_the_knots(norm, budget, seed):
    """Small dyadic numbers: preactivations, their ranges' ends and margins hit 0 and rho exactly, and tie."""
    rng = np.random.default_rng(seed)
    scale = [2.0**-27, 1.0, 2.0**27][seed % 3]
    net = PatchCNN(rng.integers(-2, 3, (2, 2, 2)) / 2 * scale, (2, 3, 5)[seed // 2], scale * [1.0, 0.5][seed % 2])
    X, eps = rng.integers(-3, 4, (6, 2, 2)) / 2, [0.5, 1.0, 0.25][seed % 3]
    y = net.logits(X).argmax(axis=1)
    found = list(bounds(net, X, y, eps, norm, budget))
    for n in range(len(X)):
        least = exact_least(net, X[n], int(y[n]), eps, norm, budget)
        clean = exact_margin(net.W, X[n], int(y[n]), net.q, net.rho)
        for method, one in found:
            assert one.lower[n] == -np.inf or Fraction(one.lower[n]) <= least, method
            assert not (one.certified[n] and least <= 0), method
            assert one.broken[n] or clean > 0, method


def first_float(condition, low, high):
    """The smallest float in (low, high] with the condition, which holds from there on."""
    while np.nextafter(low, high) < high:
        middle = low + (high - low) / 2
        low, high = (low, middle) if condition(middle) else (middle, high)
    return high


def refuses_the_first_broken_radius(net, x, y, margin, high, norm, budget):
    """`margin(eps)`, the exact smallest margin, falls through 0: that radius and the last one before it."""
    broken = first_float(lambda eps: margin(eps) <= 0, 0.0, high)
    assert margin(high) <= 0 < margin(0.0)
    for eps in (broken, np.nextafter(broken, 0), np.nextafter(broken, np.inf), broken * (1 - 1e-9), broken / 2):
        truth = margin(float(eps))
        for method, found in bounds(net, x[None], np.array([y]), float(eps), norm, budget):
            assert Fraction(found.lower[0]) <= truth, (method, eps)
            assert not (found.certified[0] and truth <= 0), (method, eps)
            assert not (found.broken[0] and truth > REORDERED * magnitude(net, x, eps)), (method, eps)
    # branch and bound at half the radius, unless the margin drowns in the absolute slack (docs/certificates.md)
    assert found.certified[0] or truth < REORDERED * magnitude(net, x, eps)


@pytest.mark.parametrize("q", [2, 3, 5])
@pytest.mark.parametrize("rho", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("scale", SCALES)
def test_two_features_where_the_margin_is_exactly_zero(q, rho, scale):
    """w_0 = a e_1, w_1 = b e_2, worst at (-eps, eps): sum_p sigma(a(x_1 - eps)) - sigma(b(x_2 + eps))."""
    rng = np.random.default_rng(int(q + rho))
    a, b = rng.uniform(0.5, 2, 2) * scale
    x = np.stack([rng.uniform(2, 3, 2), rng.uniform(-0.5, 0.5, 2)], axis=1)
    net = PatchCNN(np.array([[[a, 0]], [[0, b]]]), q, rho * scale)

    def margin(eps):
        return exact_margin(net.W, fractions(x) + np.array([-Fraction(eps), Fraction(eps)]), 0, q, net.rho)

    refuses_the_first_broken_radius(net, x, 0, margin, 4.0, "linf", "patch")


@pytest.mark.parametrize(("norm", "budget"), SETS)
@pytest.mark.parametrize(("q", "rho"), [(2, 1e-8), (3, 1.0), (5, 1e8)])
def test_one_feature_where_the_margin_is_exactly_zero(norm, budget, q, rho):
    """w_0 = a e_1, w_1 = -b e_1 on one patch: the worst is sigma(a(x - eps)) - sigma(b(eps - x)), 0 at eps = x."""
    x = np.array([0.7, 1 / 3, 2.0])
    X = np.stack([x, -x], axis=-1)[:, None]
    for scale in SCALES:
        net = PatchCNN(scale * np.array([[[1.3, 0]], [[-0.9, 0]]]), q, rho * scale)
        for eps in (x, np.nextafter(x, 9)):
            for method, found in bounds(net, X, np.zeros(3, int), eps, norm, budget):
                assert (found.lower <= 0).all(), method


@pytest.mark.parametrize(("norm", "budget"), SETS)
@pytest.mark.parametrize("scale", SCALES)
def test_linear_part_where_the_margin_is_exactly_zero(norm, budget, scale):
    """All preactivations above rho: margin = sum_p <w_0 - w_1, x_p> - eps |w_0 - w_1|_* (P, sqrt P or 1), exact."""
    W = np.array([[[10, 6, 11]], [[7, 10, 11]]]) * scale  # the difference (3, -4, 0) has l_2 norm 5
    x = np.random.default_rng(7).uniform(2, 3, (4, 3))
    x[:, 1] = 0.7 * x[:, 0]
    net = PatchCNN(W, 3, scale / 1000)
    patches = 4 if norm == "linf" or budget == "patch" else {"l2": 2, "l1": 1}[norm]
    clean, slope = exact_margin(W, x, 0, 3, net.rho), {"linf": 7, "l2": 5, "l1": 4}[norm] * patches * Fraction(scale)
    refuses_the_first_broken_radius(net, x, 0, lambda eps: clean - Fraction(eps) * slope, 0.9, norm, budget)


@pytest.mark.parametrize(("q", "exponent"), [(2, 161.7), (3, 107.9), (4, 80.9), (5, 64.6)])
def test_powers_that_underflow(q, exponent):
    """sigma(z) of a few units of the smallest float: every neuron is rounded to whole units, and so is the margin."""
    z = np.random.default_rng(0).uniform(0.5, 3, (500, 2, 3, 1)) * 10.0**-exponent
    net, X, y = PatchCNN(z, q, 1.0), np.ones((1, 1, 1)), np.array([0])
    wrong = np.array([exact_margin(one, X[0], 0, q, 1.0) <= 0 for one in z])
    assert not (interval_margin(net, X, y, eps=0.0)[:, 0] > 0)[wrong].any()
    for method, found in bounds(net, X, y, 0.0, "linf", "patch"):
        assert not found.certified[wrong].any(), method


@pytest.mark.parametrize("size", [1e155, 1e200, 1e300])
def test_what_overflows_is_not_certified(size):
    net, X = PatchCNN(size * np.array([[[1.0, 0]], [[0, 1.0]]])), size * np.array([[[1.0, 1e-3]]])
    with np.errstate(all="ignore"):
        for method, found in bounds(net, X, np.array([0]), 1e-3 * size, "linf", "patch"):
            assert not found.certified[0], method
            assert not np.isnan(found.lower[0]), method

"""Chords, parabolas and caps on rivals with many dense neurons: points, each other, global search, exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from advfeat.kernels import L1, L2, LINF, get_engine, joint
from extreme_certificates import exactly_inside
from global_search import Problem, exact_sigma, fractions, grid_minimum, random_ball, subdivision_minimum

NORMS = {"linf": LINF, "l2": L2, "l1": L1}
PRICED = [("linf", 0.0), ("l2", 0.0), ("l1", 0.0), ("l2", 0.4)]
EFFORTS = [(30, 0, 1), (6, 4, 1), (6, 4, 33), (6, 4, 129)]  # steps, rounds of tightening, boxes
POINTS = [20_000, pytest.param(10**6, marks=pytest.mark.slow)]


def problems(seed, norm, price, n=4, m=6, d=5, dtype=float):
    """W (1, 2, m, d) with a rival of dense neurons and, half of the times, a strong one along an axis."""
    rng = np.random.default_rng([seed, NORMS[norm]])
    W, X, q = rng.standard_normal((1, 2, m, d)), 0.4 * rng.standard_normal((n, d)), int(rng.integers(2, 6))
    W[0, 0] *= 0.4
    W[0, 1] += 0.7 * rng.choice([-1, 1], (m, d))  # far from any axis
    if seed % 2:
        W[0, 1, 0] *= np.where(np.arange(d) == rng.integers(d), 4, 0.1)
    eps = rng.uniform(0.1, 0.7, n) * {"linf": 1, "l2": np.sqrt(d) / 1.5, "l1": d / 2}[norm]
    rows = np.stack([np.arange(n), np.zeros(n, int), np.zeros(n, int), np.ones(n, int)], axis=1)
    numbers = np.stack([eps, price / eps, np.full(n, 1e-9)], axis=1)
    return W.astype(dtype).astype(float), X, rows, numbers, NORMS[norm], q, float(rng.choice([0.7, 3.0, 20.0]))


def terms(W, x, price, q, rho):
    """h as a problem of the global searches."""
    m, forms = W.shape[2], W[0].reshape(-1, W.shape[3])
    return Problem(forms, forms @ x, np.repeat([1.0, -1.0], m), q, rho, price)


def searched(given, effort, parabolas, engine="numba"):
    return get_engine(engine).search(*given, *effort, parabolas)


def capped(given, engine="numba"):
    """The label's least sum less the rival's cap: what `Pairs.cap` takes, here with a price of 0 for any."""
    W, X, rows, numbers, norm, q, rho = given
    none, free = np.concatenate([W, 0 * W[:, :1]], axis=1), numbers * [1, 0, 1]
    label = get_engine(engine).search(none, X, rows + np.array([0, 0, 0, 1]), free, norm, q, rho, 30, 0, 1)[0]
    return label - get_engine(engine).caps(W, X, rows[:, [0, 1, 3]], numbers[:, 0], norm, q, rho)


def every_bound(given, engine="numba"):
    """lower and upper (n,) of each kind of bound."""
    found = {}
    for effort in EFFORTS:
        for parabolas in (False, True):
            found[effort, parabolas] = searched(given, effort, parabolas, engine)[:2]
    found["cap"] = capped(given, engine), np.full(len(given[2]), np.inf)
    return found


def into_ball(delta, eps, norm):
    """The nearest point of the ball, or for l_1 one on the ray."""
    if norm == "linf":
        return np.clip(delta, -eps, eps)
    size = np.linalg.norm(delta, {"l2": 2, "l1": 1}[norm], axis=-1, keepdims=True)
    return delta * np.minimum(1, eps / np.where(size > 0, size, 1))


def attacked(problem, points, eps, norm):
    """The least value on the ways of projected gradients from the best points."""
    here = points[np.argsort(problem.value(points), kind="stable")[:50]]
    least = problem.value(here).min()
    for step in np.repeat([0.5, 0.2, 0.05, 0.01], 8):
        g = problem.gradient(here)
        size = np.abs(g).max(axis=1, keepdims=True)
        g = np.sign(g) if norm == "linf" else g / np.where(size > 0, size, 1)
        here = into_ball(here - step * eps * g, eps, norm)
        least = min(least, problem.value(here).min())
    return least


@pytest.mark.parametrize("n_points", POINTS)
@pytest.mark.parametrize(("norm", "price"), PRICED)
def test_no_point_of_the_ball_is_below_any_bound(norm, price, n_points):
    """Nor is any bound above a value that another search met; and some bound nearly meets the points."""
    rng, nearest, better = np.random.default_rng(1), np.inf, 0
    for seed in range(6 if n_points < 10**6 else 12):
        m, d = ((6, 5), (12, 8))[seed // 2 % 2]
        given = problems(seed, norm, price, m=m, d=d)
        bounds = every_bound(given)
        least = np.empty(len(given[2]))
        for i, (eps, lam, _) in enumerate(given[3]):
            problem = terms(given[0], given[1][i], lam, given[5], given[6])
            points = random_ball(rng, (n_points, d), eps, norm)
            blocks = np.array_split(points, n_points // 8192 + 1)  # in the cache
            least[i] = min(min(problem.value(block).min() for block in blocks), attacked(problem, points, eps, norm))
        met = np.min([upper for _, upper in bounds.values()], axis=0)
        for kind, (lower, _) in bounds.items():
            assert (lower <= least).all(), (seed, kind)
            assert (lower <= met).all(), (seed, kind)
            nearest = min(nearest, ((least - lower) / np.abs(least)).min())
        chords, parabolas = (bounds[EFFORTS[1], on][0] for on in (False, True))
        better += (parabolas > chords + 1e-6).sum()
    assert nearest < 1e-6
    assert (better > 0) == (norm != "l1")


@pytest.mark.parametrize(("norm", "price"), PRICED)
def test_searches_with_parabolas_meet_the_global_search(norm, price):
    """d = 3, six dense neurons: both bounds come to within 1e-6 of the least value, from below and from above."""
    for seed in range(4):
        given = problems(seed, norm, price, n=2, d=3)
        lower, upper, *_ = searched(given, (30, 4, 4001), True)
        for i, (eps, lam, _) in enumerate(given[3]):
            problem = terms(given[0], given[1][i], lam, given[5], given[6])
            truth, _ = grid_minimum(problem, eps, norm)
            assert lower[i] <= truth
            assert truth - 1e-6 <= lower[i]
            assert abs(upper[i] - truth) <= 1e-6
            if not price:
                low, up = subdivision_minimum(problem, eps, norm, tol=1e-3)
                assert lower[i] <= up
                assert upper[i] >= low
        assert (capped(given) <= upper).all()


@pytest.mark.parametrize("first", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in range(40, 2040, 200))])
def test_engines_bound_alike_and_never_contradict_each_other(first):
    """Networks over norms, prices, q, rho, scales, float32 weights."""
    apart, close = 0, 0
    for seed in range(first, first + (200 if first else 40)):
        rng = np.random.default_rng([9, seed])
        norm, price = PRICED[seed % 4]
        m, d = int(rng.integers(1, 9)), int(rng.integers(1, 9))
        dtype = [float, np.float32][seed // 4 % 2]
        W, X, rows, numbers, code, q, rho = problems(seed, norm, price, 2, m, d, dtype)
        a, b = 10.0 ** rng.uniform(-30, 30, 2) if seed % 3 == 0 else (1.0, 1.0)  # of weights, of inputs
        W = (a * W).astype(dtype).astype(float)
        price = numbers[:, 1] * (a / b if norm == "l2" else a)
        numbers = np.stack([b * numbers[:, 0], price, a * b * numbers[:, 2]], axis=1)
        given = W, b * X, rows, numbers, code, q, a * b * rho
        ours, theirs = every_bound(given), every_bound(given, "numpy")
        met = np.min([upper for found in (ours, theirs) for _, upper in found.values()], axis=0)
        for kind in ours:
            (lower, _), (low, _) = ours[kind], theirs[kind]
            assert (lower <= met).all(), (seed, kind)
            assert (low <= met).all(), (seed, kind)
            close += (np.abs(lower - low) <= 1e-6 * np.abs(met) + 1e-9 * a * b).sum()
            apart += lower.size
    assert close >= 0.95 * apart


@pytest.mark.parametrize("engine", ["numba", "numpy"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_parabolas_and_caps_are_sound_in_exact_arithmetic(norm, engine):
    """Large inputs whose products with the rival's weights cancel: what is left of preactivations is rounding."""
    rng, near = np.random.default_rng(4), np.inf
    for turn in range(12):
        m, d, q = 3, 4, (2, 3, 4)[turn % 3]
        W, X = rng.standard_normal((1, 2, m, d)), rng.standard_normal((3, d))
        W[0, 1] += np.sign(W[0, 1])
        flat = np.linalg.svd(np.concatenate([W[0, 0, :1], W[0, 1, :2]]))[2][3]  # almost orthogonal to some neurons
        X, rho = (0.2 * X + 1e6 * flat * rng.choice([-1, 1], (3, 1))), float(rng.choice([1e-3, 1.0, 1e3]))
        W[0, 1, 2] = W[0, 1, :2].sum(axis=0) * rng.choice([-1, 1])
        W[0, 0, 1:] = 0
        rows, eps = np.array([[i, 0, 0, 1] for i in range(3)]), rng.uniform(0.1, 1, 3)
        given = W, X, rows, np.stack([eps, 0 * eps, 0 * eps], axis=1), NORMS[norm], q, rho
        bounds = {True: searched(given, (6, 4, 33), True, engine)[0], "cap": capped(given, engine)}
        signs = np.sign(np.concatenate([W[0, 1], -W[0, 0, :1], W[0, 1, :1] - W[0, 0, :1]]))
        points = signs if norm == "linf" else 0.99999 * W[0, 1] / np.linalg.norm(W[0, 1], axis=1)[:, None]
        for i in range(3):
            for v in points:
                at = fractions(X[i]) + exactly_inside(v[None], Fraction(eps[i]), norm, "patch")[0]
                h = [sum(exact_sigma(w @ at, q, Fraction(rho)) for w in fractions(W[0, c])) for c in (0, 1)]
                for kind, lower in bounds.items():
                    assert Fraction(lower[i]) <= h[0] - h[1], (turn, kind)
                    near = min(near, float((h[0] - h[1] - Fraction(lower[i])) / max(abs(h[0] - h[1]), 1)))
    assert near < 1e-3


@pytest.mark.parametrize("engine", ["numba", "numpy"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_dense_neuron_is_bounded_to_its_end(norm, engine):
    """Nothing else in h, and 0 in the middle: there the parabola's tangent is flat, and its bound is -M."""
    rng = np.random.default_rng(6)
    for d in (3, 4, 9):
        W = np.zeros((1, 2, 2, d))
        W[0, 1, 0] = rng.choice([-1.0, 1.0], d)
        for eps, rho in ((0.25, 16.0), (0.25, 0.5)):
            given = W, np.zeros((1, d)), np.array([[0, 0, 0, 1]]), np.array([[eps, 0, 0]]), NORMS[norm], 3, rho
            end = eps * (d if norm == "linf" else np.sqrt(d))
            truth = -float(exact_sigma(Fraction(end), 3, Fraction(rho)))
            for effort in EFFORTS:
                lower = searched(given, effort, True, engine)[0][0]
                assert truth * (1 + 1e-7) <= lower <= truth * (1 - 1e-14)


# ------------------------------------------------------------------ neurons that share no coordinate
@pytest.mark.parametrize("sweeps", [joint.FIRST_SWEEPS, joint.SWEEPS])
def test_a_diagonal_for_other_neurons_than_the_last_one(sweeps):
    """Coordinates that the last box's neurons did not have are not lost to the next box's."""
    V, first = np.zeros((2, 8)), np.array([1.0, 0.0])
    V[0, :4], V[1, 4:] = [1, 2, 3, 4], [4, 3, 2, 2]
    fresh = joint.diagonal(V, 1 - first, joint.start(8), joint.FIRST_SWEEPS, LINF)[1]
    _, _, Y = joint.diagonal(V, first, joint.start(8), joint.FIRST_SWEEPS, LINF)
    s, most, _ = joint.diagonal(V, 1 - first, Y, sweeps, LINF)
    assert most <= 1.001 * fresh
    assert np.linalg.eigvalsh(np.diag(s) - np.outer(V[1], V[1]))[0] >= -1e-9
    assert joint.diagonal(V, first + 1, Y, sweeps, LINF)[1] <= 1.02 * (fresh + 2 * np.sum(V[0]) ** 2)


def test_engines_bound_neurons_that_share_no_coordinate_alike():
    """Three parallel neurons, which halving one of them takes out of a box, and twelve on other coordinates."""
    rng = np.random.default_rng(5)
    W, X, signs = np.zeros((1, 2, 15, 50)), 0.05 * rng.standard_normal((6, 50)), rng.choice([-1, 1], 10)
    W[0, 1, :3, :10] = np.array([[1.3], [1.2], [1.1]]) * signs
    W[0, 1, 3:, 10:] = 0.5 * rng.standard_normal((12, 40))
    W[0, 0, 0] = 0.1 * rng.standard_normal(50)
    X[:, :10] += 0.02 * signs
    rows = np.array([[i, 0, 0, 1] for i in range(6)])
    given = W, X, rows, np.tile([0.3, 0, 0], (6, 1)), LINF, 3, 30.0
    for boxes in (33, 65):
        ours, theirs = (searched(given, (6, 4, boxes), True, name) for name in ("numba", "numpy"))
        np.testing.assert_allclose(ours[0], theirs[0], rtol=0, atol=1e-7 * np.abs(theirs[1]).max())


# ------------------------------------------------------------------ numbers that leave their range
@pytest.mark.parametrize("engine", ["numba", "numpy"])
@pytest.mark.parametrize("scale", [1e-250, 1e-140, 1e-80, 1e80, 1e140])
def test_parabolas_out_of_range_are_no_bounds_of_their_own(engine, scale):
    """The engines alone: where gamma, its root times V, or four of them would leave float64, chords are taken."""
    W, X, rows, numbers, norm, q, rho = problems(1, "linf", 0.0)
    for weights, inputs in ((scale, 1.0), (1.0, scale), (scale**0.5, scale**0.5)):
        by = weights * inputs
        given = weights * W, inputs * X, rows, numbers * [inputs, 0, 0], norm, q, by * rho
        with np.errstate(all="ignore"):
            lower, upper, *_ = searched(given, (6, 4, 33), True, engine)
            chords = searched(given, (6, 4, 33), False, engine)
        assert (lower <= chords[1]).all()
        assert (chords[0] <= upper).all()
        assert not np.isnan(lower).any()

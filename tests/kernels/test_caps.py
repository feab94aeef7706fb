"""Upper bounds of a class's activations on a ball (kernels/caps.py): engines, points, other bounds, rounding."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from advfeat.kernels import L1, L2, LINF, caps, get_engine
from advfeat.kernels.branch_and_bound import dual
from advfeat.kernels.formulas import sigma
from engines import ENGINES, engine_of
from global_search import exact_sigma, fractions, random_ball
from problems import random_problem
from tolerances import PARITY

NORMS = {"linf": LINF, "l2": L2, "l1": L1}
SHAPES = {"one neuron": (1, 3, 2), "two": (2, 1, 3), "six": (6, 5, 3), "wide": (5, 40, 4)}  # m, d, q


def problems(shape, norm, seed=3, n=20):
    m, d, q = SHAPES.get(shape, shape)
    W, X, _ = random_problem(seed, (2, 10, 1, d, 3, m))
    W[0, 0, 0] *= 6  # a leader
    rng = np.random.default_rng(seed)
    rows = np.stack([np.arange(n), np.arange(n) // 10, rng.integers(0, 3, n)], axis=1)
    eps = rng.uniform(0.05, 0.6, n) * {LINF: 1, L2: np.sqrt(d), L1: d}[norm]
    return W.astype(float), X.reshape(-1, d).astype(float), rows, eps, norm, q, 0.7


def intervals(W, X, rows, eps, norm, q, rho):
    w = W[rows[:, 1], rows[:, 2]]
    z = np.einsum("bmd,bd->bm", w, X[rows[:, 0]])
    return sigma(z + eps[:, None] * dual(w, norm), q, rho).sum(axis=1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "numpy"])
def test_engines_give_the_formulas_caps(engine, shape, norm):
    given = problems(shape, NORMS[norm])
    found, truth = engine_of(engine).caps(*given), get_engine("numpy").caps(*given)
    np.testing.assert_allclose(found, truth, rtol=1e2 * PARITY["float64"])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", ["six", "wide"])
def test_blocks_are_bounds_as_well(shape, norm, monkeypatch):
    """Blocks of two neurons: both engines agree, no point is above, and whole sets are never the looser bound."""
    given = problems(shape, NORMS[norm])
    whole = get_engine("numba").caps(*given)
    monkeypatch.setattr(caps, "MOST_NEURONS", 2)
    found, truth = (get_engine(name).caps(*given) for name in ("numba", "numpy"))
    np.testing.assert_allclose(found, truth, rtol=1e2 * PARITY["float64"])
    assert (whole <= found * (1 + 1e-9)).all()
    assert (whole < found * (1 - 1e-3)).any()
    assert_no_point_is_above(given, found, 2000)


def assert_no_point_is_above(given, found, n):
    W, X, rows, eps, norm, q, rho = given
    rng, name = np.random.default_rng(0), {v: k for k, v in NORMS.items()}[norm]
    nearest = 1.0
    for i, (patch, run, label) in enumerate(rows):
        w = W[run, label]
        points = random_ball(rng, (n, X.shape[1]), eps[i], name)
        if norm == LINF:  # where neurons, and pairs of them, are at their ends
            pairs = [w[list(s)].sum(axis=0) for size in (1, 2, 3) for s in combinations(range(len(w)), size)]
            points = np.concatenate([points, eps[i] * np.sign(pairs)])
        met = sigma((X[patch] + points) @ w.T, q, rho).sum(axis=1).max()
        assert met <= found[i]
        nearest = min(nearest, 1 - met / found[i])
    return nearest


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_point_of_the_ball_is_above_the_cap(shape, norm):
    given = problems(shape, NORMS[norm], seed=5)
    found = get_engine("numba").caps(*given)
    nearest = assert_no_point_is_above(given, found, 20_000)
    if norm == "linf":
        assert nearest < 1e-2  # some cap is met, or nearly so
    assert (found <= intervals(*given) * (1 + 1e-9) + 1e-300).all()
    assert shape in ("one neuron", "two") or (found < intervals(*given) * (1 - 1e-3)).any()


def test_a_cap_is_met_where_neurons_share_no_coordinate():
    """w_r = a_r e_r, l_inf: every neuron reaches its end at once, and the cap is the sum of their activations."""
    a, x, eps = np.array([5.0, 1.0, 0.7, -0.4]), np.array([0.3, 1.0, -0.2, 0.5]), 0.4
    W, rows = np.diag(a)[None, None], np.zeros((1, 3), np.int64)
    truth = sigma(a * x + eps * np.abs(a), 3, 10.0).sum()
    for engine in ("numpy", "numba"):
        found = get_engine(engine).caps(W, x[None], rows, np.array([eps]), LINF, 3, 10.0)[0]
        assert truth <= found <= truth * 1.05


@pytest.mark.parametrize("norm", NORMS)
def test_caps_and_searches_never_contradict_each_other(norm):
    """The label's least sum less the cap is below every value that a search meets, and caps are below intervals."""
    W, X, rows, eps, code, q, rho = problems("six", NORMS[norm], seed=7)
    rival, engine = (rows[:, 2] + 1) % 3, get_engine("numba")
    numbers = np.stack([eps, 0 * eps, 0 * eps], axis=1)
    met = engine.search(W, X, np.column_stack([rows, rival]), numbers, code, q, rho, 6, 4, 200)
    none = np.concatenate([W, 0 * W[:, :1]], axis=1)
    label = engine.search(none, X, np.column_stack([rows, 0 * rival + 3]), numbers, code, q, rho, 30, 0, 1)[0]
    cap = engine.caps(W, X, np.column_stack([rows[:, :2], rival]), eps, code, q, rho)
    assert (label - cap <= met[1]).all()
    assert (met[0] - 1e-9 <= met[1]).all()
    assert (cap <= intervals(W, X, np.column_stack([rows[:, :2], rival]), eps, code, q, rho) * (1 + 1e-9)).all()


def test_the_same_bits_whatever_stands_beside():
    given = problems("six", LINF)
    W, X, rows, eps, *rest = given
    whole, engine = get_engine("numba").caps(*given), get_engine("numba")
    one = [engine.caps(W, X, rows[i : i + 1], eps[i : i + 1], *rest)[0] for i in range(len(rows))]
    np.testing.assert_array_equal(whole, one)
    assert len(engine.caps(W, X, rows[:0], eps[:0], *rest)) == 0


# ------------------------------------------------------------------ the lemma, and rounding
def test_steps_fall_and_their_sums_are_above():
    rng = np.random.default_rng(1)
    for _ in range(200):
        F = np.concatenate([[0], rng.standard_normal(rng.integers(1, 9)).cumsum()])
        steps = caps.steps(F)
        assert (np.diff(steps) <= 1e-12).all()
        assert (steps.cumsum() >= F[1:] - 1e-12).all()
        touched = np.abs(steps.cumsum() - F[1:]) <= 1e-12
        assert touched[-1]


@pytest.mark.parametrize("engine", ["numpy", "numba"])
def test_rounding_is_outward(engine):
    """At d = 1 and one neuron the cap is sigma at the end of the ball: never below it in exact arithmetic."""
    rng = np.random.default_rng(2)
    for scale in (2.0**-40, 1.0, 2.0**40):
        W, X = rng.standard_normal((1, 200, 1, 1)), scale * rng.standard_normal((1, 1))
        rows = np.stack([np.zeros(200, np.int64), np.zeros(200, np.int64), np.arange(200)], axis=1)
        eps = np.full(200, 0.3 * scale)
        found = get_engine(engine).caps(W, X, rows, eps, LINF, 3, scale)
        for w, cap in zip(fractions(W[0, :, 0, 0]), found):
            end = w * Fraction(X[0, 0]) + Fraction(eps[0]) * abs(w)
            assert exact_sigma(end, 3, Fraction(scale)) <= Fraction(cap)
        assert (found < 9 * scale).all()


@pytest.mark.parametrize("engine", ["numpy", "numba"])
def test_rounding_is_outward_where_products_cancel(engine):
    """Inputs of 1e6 almost orthogonal to three parallel neurons, whose ends one corner reaches; a leader at 0."""
    rng = np.random.default_rng(8)
    w = rng.uniform(0.5, 2, (100, 1, 2))
    W = w * np.array([1.0, 0.9, 0.6])[:, None] * (1 + 1e-9 * rng.standard_normal((100, 3, 2)))
    W = np.concatenate([np.zeros((100, 1, 3)), np.pad(W, ((0, 0), (0, 0), (0, 1)))], axis=1)
    W[:, 0, 2] = 9
    X = 1e6 * np.stack([w[:, 0, 1], -w[:, 0, 0], np.full(100, -1e-5)], axis=1)
    rows, eps = np.stack([np.arange(100), np.zeros(100, int), np.arange(100)], axis=1), np.full(100, 0.5)
    found = get_engine(engine).caps(W[None], X, rows, eps, LINF, 3, 4.0)
    for v, x, cap in zip(fractions(W), fractions(X), found):
        truth = sum(exact_sigma(one @ x + sum(one) / 2, 3, Fraction(4)) for one in v)
        assert 0 < truth <= Fraction(cap) <= truth + Fraction(1, 100)


@pytest.mark.parametrize("engine", ["numpy", "numba"])
def test_what_overflows_has_no_cap(engine):
    W, X, rows = np.full((1, 1, 2, 2), 1e200), np.full((2, 2), 1e200), np.array([[0, 0, 0], [1, 0, 0]])
    with np.errstate(all="ignore"):
        found = get_engine(engine).caps(W, X, rows, np.full(2, 1e200), LINF, 3, 1.0)
    assert (found == np.inf).all()

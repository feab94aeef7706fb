"""Bounds of one patch's least margin (kernels/branch_and_bound.py): the Numba engine against the reference, and both
against the mathematics: support functions, chords, minorants, ranges."""

import numpy as np
import pytest
from advfeat.kernels import L1, L2, LINF, branch_and_bound, get_engine
from advfeat.kernels.formulas import sigma, sigma_prime
from engines import ON_GPU, engine_of
from problems import random_problem
from tolerances import PARITY, REORDERED

NORMS = {"linf": LINF, "l2": L2, "l1": L1}
EFFORTS = {"interval": (0, 0, 1), "linear": (2, 0, 1), "tangents": (30, 0, 1)}
EFFORTS |= {"one box": (6, 4, 1), "boxes": (6, 4, 33)}  # steps, rounds of tightening, boxes
SHAPES = {"one of everything": (1, 1, 2), "four and a half": (9, 7, 3), "wide": (3, 33, 5)}  # m, d, q


def problems(shape, norm, penalty, seed=3):
    m, d, q = SHAPES.get(shape, shape)
    W, X, _ = random_problem(seed, (2, 10, 1, d, 3, m))
    rng = np.random.default_rng(seed)
    rows = np.stack([np.arange(20), np.repeat([0, 1], 10), np.arange(20) % 3, (np.arange(20) + 1) % 3], axis=1)
    eps = rng.uniform(0.05, 0.6, 20) * {LINF: 1, L2: np.sqrt(d), L1: d}[norm]
    price = 0 * eps if norm == LINF or not penalty else penalty / eps
    return W, X.reshape(-1, d), rows, np.stack([eps, price, np.full(20, 1e-6)], axis=1), q, 0.7


@pytest.mark.one_in(7)
@pytest.mark.parametrize("penalty", [0, 0.3])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("engine", ["numba", *ON_GPU])
def test_the_engines_agree(engine, shape, effort, norm, penalty):
    W, X, rows, numbers, q, rho = problems(shape, NORMS[norm], penalty)
    answers = [
        engine_of(name).search(W, X, rows, numbers, NORMS[norm], q, rho, *EFFORTS[effort]) for name in (engine, "numpy")
    ]
    (lower, upper, delta, nodes), (low, up, _, count) = answers
    size = np.abs(up).max()
    # where to stop, which range to halve and how far to go are decisions that rounding may turn the other way
    strict = effort in ("interval", "linear")
    close = size * (1e2 * PARITY["float64"] if strict else 1e-7)
    for ours, theirs in ((lower, low), (upper, up), (nodes, count)):
        assert (np.abs(ours - theirs) <= close).mean() >= {"interval": 1, "linear": 0.9}.get(effort, 0.8)
    for i in range(len(rows)):
        p, _ = problem(W, X, rows[i], numbers[i], NORMS[norm], q, rho)
        np.testing.assert_allclose(branch_and_bound.value(p, delta[i]), upper[i], rtol=0, atol=REORDERED * size)


def problem(W, X, row, numbers, norm, q, rho):
    sample, run, label, rival = row
    x, up, down = X[sample], W[run, label], W[run, rival]
    return branch_and_bound.PatchProblem(up, down, up @ x, down @ x, *numbers[:2], norm, q, rho), x


def ball(norm, eps, d, n, rng):
    """Points of the ball, many of them on its boundary and at its corners."""
    points = rng.standard_normal((n, d)) * rng.integers(0, 2, (n, d))
    size = {LINF: np.abs(points).max(axis=1), L2: np.linalg.norm(points, axis=1), L1: np.abs(points).sum(axis=1)}[norm]
    points *= (eps * np.minimum(1, rng.uniform(0.3, 1.5, n)) / np.where(size > 0, size, 1))[:, None]
    return np.concatenate([points, eps * np.sign(points)]) if norm == LINF else points


@pytest.mark.parametrize("penalty", [0, 0.3])
@pytest.mark.parametrize("norm", NORMS)
def test_the_support_function_is_attained_and_never_passed(norm, penalty):
    rng, norm, eps = np.random.default_rng(1), NORMS[norm], 0.8
    penalty *= norm != LINF
    for v in rng.standard_normal((20, 4)) * np.geomspace(0.01, 3, 20)[:, None]:
        best, at = branch_and_bound.support(v, norm, eps, penalty), branch_and_bound.furthest(v, norm, eps, penalty)
        assert at @ v - penalty * branch_and_bound.psi(at, norm) == pytest.approx(best, abs=1e-14)
        delta = ball(norm, eps, 4, 2000, rng)
        spent = np.abs(delta).sum(axis=1) if norm == L1 else (delta**2).sum(axis=1)
        assert (delta @ v - penalty * spent).max() <= best + 1e-14
        length = {LINF: np.abs(at).max(), L2: np.linalg.norm(at), L1: np.abs(at).sum()}[norm]
        assert length <= eps * (1 + 1e-14)


@pytest.mark.parametrize("q", [2, 3, 5])
def test_chords_lie_above_sigma(q):
    rng, rho = np.random.default_rng(2), 0.7
    low = rng.uniform(-2, 2, 500)
    high = low + rng.uniform(0, 2, 500) * (rng.random(500) < 0.9)
    slope, offset = branch_and_bound.chord(low, high, q, rho)
    for share in np.linspace(0, 1, 21):
        z = low + share * (high - low)
        assert (slope * z + offset - sigma(z, q, rho) >= -1e-14).all()
    for end in (low, high):
        np.testing.assert_allclose(slope * end + offset, sigma(end, q, rho), atol=1e-14)
    assert ((slope >= 0) & (slope <= 1)).all()
    at = sigma_prime(low, q, rho)
    np.testing.assert_array_equal(slope[high == low], at[high == low])


@pytest.mark.one_in(5)
@pytest.mark.parametrize("penalty", [0, 0.3])
@pytest.mark.parametrize("norm", NORMS)
def test_minorants_ranges_and_bounds_hold_at_every_point(norm, penalty):
    """c + <a, delta> <= h, ranges hold wherever a minimiser may be, lower <= h + lambda psi, at 20,000 points each."""
    rng, norm = np.random.default_rng(4), NORMS[norm]
    W, X, rows, numbers, q, rho = problems("four and a half", norm, penalty, seed=5)
    shrunk, finished = [], 0
    for row, given in zip(rows[:8], numbers[:8]):
        p, x = problem(W, X, row, given, norm, q, rho)
        pad, pad_z = branch_and_bound.slack(p, x)
        assert 0 < pad < 1e-10
        assert 0 < pad_z < 1e-10
        reach = p.eps * branch_and_bound.dual(p.V, norm)
        low, high, start = p.v - reach, p.v + reach, np.zeros(len(x))
        _, a, c, end = branch_and_bound.relax(p, low, high, start, 6)
        _, least = branch_and_bound.descend(p, end, 5)
        tight = branch_and_bound.tighten(p, low, high, a, least - c + 2 * pad, p.penalty, pad_z)
        delta = ball(norm, p.eps, len(x), 20_000, rng)
        h = sigma(p.z + delta @ p.W.T, q, rho).sum(axis=1) - sigma(p.v + delta @ p.V.T, q, rho).sum(axis=1)
        assert (c + delta @ a <= h + pad).all()
        spent = np.abs(delta).sum(axis=1) if norm == L1 else (delta**2).sum(axis=1)
        inside = c + delta @ a + p.penalty * spent <= least
        z = p.v + delta[inside] @ p.V.T
        assert (z >= tight[0] - pad_z).all()
        assert (z <= tight[1] + pad_z).all()
        shrunk.append((tight[1] - tight[0]).sum() / (high - low).sum())
        bound, value, _, used = branch_and_bound.Search(p, x, 6, 4).run(65, 1e-9)
        here = (h + p.penalty * spent).min()
        assert bound <= min(here, value)
        assert value <= least + 1e-12
        assert used > 63 or value <= here + 1e-9
        finished += used <= 63
    assert min(shrunk) < 0.95
    assert max(shrunk) <= 1
    assert finished > 0


@pytest.mark.parametrize("norm", NORMS)
def test_more_work_never_loosens_a_bound(norm):
    W, X, rows, numbers, q, rho = problems("four and a half", NORMS[norm], 0, seed=8)
    engine = get_engine("numba")
    lower = {
        effort: engine.search(W, X, rows, numbers, NORMS[norm], q, rho, *options)[0]
        for effort, options in EFFORTS.items()
    }
    pairs = ("interval", "tangents"), ("linear", "tangents"), ("interval", "one box"), ("one box", "boxes")
    for weak, strong in pairs:
        assert (lower[strong] >= lower[weak] - 1e-9).all(), (weak, strong)
        assert (lower[strong] > lower[weak] + 1e-6).any(), (weak, strong)


def test_a_search_of_nothing_is_empty():
    """No patch left to work on is the usual end of a certificate, whatever the number of threads."""
    W, rows, numbers = np.ones((1, 2, 3, 4)), np.empty((0, 4), np.int64), np.empty((0, 3))
    for name in ("numpy", "numba"):
        found = get_engine(name).search(W, np.empty((0, 4)), rows, numbers, 0, 3, 1.0, 2, 1, 4)
        assert [len(part) for part in found] == [0, 0, 0, 0]

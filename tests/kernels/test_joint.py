"""Parabolas above a rival's dense neurons, and their diagonal (kernels/joint.py)."""

import numpy as np
import pytest
from advfeat.kernels import L1, L2, LINF, branch_and_bound, get_engine, joint
from advfeat.kernels.formulas import sigma
from global_search import random_ball
from problems import random_problem
from test_search import NORMS, problem, problems
from tolerances import PARITY

DENSE = {"five": (6, 5, 3), "twelve": (8, 12, 4), "square": (5, 7, 2)}  # m, d, q
EFFORTS = {"root": (6, 4, 1), "boxes": (6, 4, 33)}


# ------------------------------------------------------------------ parabolas and diagonals
@pytest.mark.parametrize("q", [2, 3, 5])
def test_parabolas_lie_above_sigma(q):
    rng, rho = np.random.default_rng(2), 0.7
    low, high = -rng.uniform(0, 3, 400), rng.uniform(0, 3, 400) ** 3
    gamma = joint.curvature(np.ones(400, bool), low, high, q, rho)
    assert (gamma > 0).all()
    for share in np.linspace(0, 1, 41):
        t = low + share * (high - low)
        assert (sigma(t, q, rho) <= gamma * t * t).all()
    touched = [
        np.abs(gamma * t * t - sigma(t, q, rho)) < 1e-8 * sigma(t, q, rho) for t in (high, 2 * (1 - 1 / q) * rho)
    ]
    assert (touched[0] | (touched[1] & (high > 2 * (1 - 1 / q) * rho))).all()
    assert not joint.curvature(np.ones(2, bool), np.array([0.1, -2.0]), np.array([1.0, -1.0]), q, rho).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_diagonal_is_above_the_parabolas(norm):
    """diag(s) - V^T Gamma V has no negative eigenvalue, is not far above, and M bounds sum s_i delta_i^2."""
    rng, norm = np.random.default_rng(3), NORMS[norm]
    for m, d in ((1, 1), (2, 3), (6, 5), (20, 30), (9, 100)):
        V, gamma = rng.standard_normal((m, d)), rng.uniform(0, 2, m) * (rng.random(m) < 0.8)
        gamma[0] = 1.0
        for scale in (1e-100, 1.0, 1e100):
            s, most, _ = joint.diagonal(V * scale, gamma, joint.start(d), joint.FIRST_SWEEPS, norm)
            form = V.T @ (gamma[:, None] * V)
            s, most = s / scale / scale, most / scale / scale
            assert np.linalg.eigvalsh(np.diag(s) - form)[0] >= -1e-12 * s.max()
            assert most == pytest.approx(s.sum() if norm == LINF else s.max(), rel=1e-12)
            assert most <= 1.01 * (np.abs(form).sum() if norm == LINF else 1.03 * np.linalg.eigvalsh(form)[-1])


def test_the_largest_eigenvalue_is_bounded_closely():
    rng = np.random.default_rng(4)
    for n in (1, 2, 7, 20):
        A = rng.standard_normal((n, 2 * n))
        bound, truth = joint.largest_eigenvalue(A @ A.T, 2 * n), np.linalg.eigvalsh(A @ A.T)[-1]
        assert truth <= bound <= truth * n ** (0.5**joint.SQUARINGS) * (1 + 1e-8)
    assert joint.largest_eigenvalue(np.ones((1, 1)), 10**8) > 1 + 1e-8  # entries that are sums of many products


def test_neurons_along_an_axis_keep_their_chords():
    V = np.array([[1.0, 0.2, 0.2], [0.5, 0.5, 0.5], [0.0, 0.0, 3.0]])
    for norm in (LINF, L2):
        np.testing.assert_array_equal(joint.dense(V, norm), [False, True, False])
    assert not joint.dense(V, L1).any()


# ------------------------------------------------------------------ the search with them
def dense_problems(shape, norm, penalty, seed):
    return problems(DENSE[shape], NORMS[norm], penalty, seed)


@pytest.mark.parametrize(("norm", "penalty"), [("linf", 0), ("l2", 0), ("l2", 0.3)])
@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("shape", DENSE)
def test_engines_search_alike_with_parabolas(shape, effort, norm, penalty):
    W, X, rows, numbers, q, rho = dense_problems(shape, norm, penalty, 3)
    found, truth = (
        get_engine(name).search(W, X, rows, numbers, NORMS[norm], q, rho, *EFFORTS[effort], True)
        for name in ("numba", "numpy")
    )
    close = np.abs(truth[1]).max() * (1e2 * PARITY["float64"] if effort == "root" else 1e-7)
    for ours, theirs in zip(found[:2], truth[:2]):
        assert (np.abs(ours - theirs) <= close).mean() >= 0.8


@pytest.mark.parametrize(("norm", "penalty"), [("linf", 0), ("l2", 0), ("l2", 0.3)])
@pytest.mark.parametrize("shape", DENSE)
def test_no_value_of_the_ball_is_below_a_bound_with_parabolas(shape, norm, penalty):
    """Nor is a bound with chords alone above a value that was met with parabolas, nor the other way round."""
    W, X, rows, numbers, q, rho = dense_problems(shape, norm, penalty, 5)
    engine, rng, code = get_engine("numba"), np.random.default_rng(6), NORMS[norm]
    given = W, X, rows, numbers, code, q, rho
    plain = engine.search(*given, 6, 4, 33)
    for effort in EFFORTS.values():
        found = engine.search(*given, *effort, True)
        assert (found[0] <= plain[1] + 1e-12).all()
        assert (plain[0] <= found[1] + 1e-12).all()
        for i, row in enumerate(rows):
            p, _ = problem(W, X, row, numbers[i], code, q, rho)
            points = random_ball(rng, (4000, X.shape[1]), p.eps, norm)
            if norm == "linf":
                points = np.concatenate([points, p.eps * np.sign(p.V), -p.eps * np.sign(p.W)])
            h = sigma(p.z + points @ p.W.T, q, rho).sum(axis=1) - sigma(p.v + points @ p.V.T, q, rho).sum(axis=1)
            assert found[0][i] <= (h + p.penalty * (points**2).sum(axis=1)).min()


@pytest.mark.parametrize("seed", [1, 2])
def test_parabolas_bound_many_dense_neurons_better(seed):
    """Where a rival has many neurons in all directions; and the search takes chords where those are better."""
    rng = np.random.default_rng(seed)
    W, X = rng.standard_normal((1, 2, 12, 40)), 0.05 * rng.standard_normal((10, 40))
    W[0, 0] *= 0.1
    rows = np.stack([np.arange(10), *np.zeros((2, 10), int), np.ones(10, int)], axis=1)
    numbers = np.tile([0.3, 0, 1e-6], (10, 1))
    engine = get_engine("numba")
    for nodes in (1, 33):
        chords, parabolas = (
            engine.search(W, X, rows, numbers, LINF, 3, 30.0, 6, 4, nodes, on)[0] for on in (False, True)
        )
        assert (parabolas > chords + 0.2 * np.abs(chords)).all()
    W, X, *_ = random_problem(seed, (1, 10, 1, 3, 2, 2))
    rows[:, 0], X = np.arange(10), X.reshape(-1, 3)
    numbers = np.tile([0.1, 0, 1e-6], (10, 1))
    chords, parabolas = (engine.search(W, X, rows, numbers, LINF, 3, 0.5, 6, 4, 1, on)[0] for on in (False, True))
    assert (parabolas >= chords - 1e-9).all()


def test_what_overflows_is_not_bounded_with_parabolas():
    W, X, rows = np.full((1, 2, 3, 4), 1e200), np.full((1, 4), 1e200), np.array([[0, 0, 0, 1]])
    for name in ("numpy", "numba"):
        with np.errstate(all="ignore"):
            lower = get_engine(name).search(W, X, rows, np.array([[1e200, 0, 1]]), LINF, 3, 1.0, 6, 4, 5, True)[0]
        assert (lower == -np.inf).all()
    assert branch_and_bound.most_nodes(20, 100) > 1e5

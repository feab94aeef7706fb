"""Auto-PGD: its published checkpoints, step sizes and restarts from the best point."""

import numpy as np
import pytest

from advfeat import APGD, PatchCNN, PatchDistribution, ThreatModel
from advfeat.attacks import apgd, base
from advfeat.core import ball, objectives

LAW = PatchDistribution(n_classes=4, patch_dim=9, n_patches=5, n_robust=2, alpha=1.5, beta=1.0, noise_std=0.25)
DATA = LAW.sample(8, 0)
U, V = LAW.features
NET = PatchCNN(0.4 * U[:, None] + 0.4 * V[:, None] + np.random.default_rng(0).standard_normal((4, 3, 9)) / 5, 3, 0.7)


def test_checkpoints_are_the_published_ones():
    """Croce & Hein 2020, Sec. 3.1: p = 0, 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99."""
    assert apgd.checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert apgd.checkpoints(20) == [0, 5, 9, 12, 14, 16, 18, 19, 20]
    assert apgd.checkpoints(1) == [0, 1]


def trace(attack, limits, monkeypatch):
    """Points, objectives and moves z - x of one call, from the frame's own methods."""
    X, J, moves = [], [], []
    evaluate, step = base.AttackProblem.evaluate, base.AttackProblem.step

    def evaluated(problem, at, on):
        F = evaluate(problem, at, on)
        X.append(at.copy())
        J.append(objectives.value(attack.objective, F, problem.y))
        return F

    def stepped(problem, at, move):
        moves.append((at.copy(), move.copy()))
        return step(problem, at, move)

    monkeypatch.setattr(base.AttackProblem, "evaluate", evaluated)
    monkeypatch.setattr(base.AttackProblem, "step", stepped)
    attack(NET, DATA, limits, 3)
    return np.array(X[1:])[:, 0], np.array(J[1:])[:, 0], moves  # the clean point comes first


@pytest.mark.parametrize("rho", [0.75, 0.1])  # with the second, the first condition hardly ever halves
@pytest.mark.parametrize("norm", ball.NORMS)
def test_algorithm_1_step_by_step(norm, rho, monkeypatch):
    """The points of a run are recomputed from the published rules, with step sizes and restarts of every sample."""
    n, eps = 30, {"linf": 0.02, "l2": 0.05, "l1": 0.1}[norm]  # too small to break a right sample, so none rests
    X, J, moves = trace(APGD("margin", n_steps=n, rho=rho), ThreatModel(norm, eps), monkeypatch)
    right = NET.margin(DATA.X, DATA.y) > 0.3
    assert right.sum() >= 5
    assert len(X) == n + 1
    firsts = [moves[0], *moves[1::2]]  # steps along the gradient; between them those with momentum
    assert len(firsts) == n
    marks, halvings, backs = apgd.checkpoints(n), 0, 0
    for s in np.flatnonzero(right):
        eta, best, last, rose, halved, best_before = 2 * eps, 0, 0, 0, False, J[0, s]
        at, before, here = X[0, s], X[0, s], J[0, s]
        for it in range(n):
            origin, move = firsts[it]
            np.testing.assert_array_equal(origin[0, s], at)
            length = np.linalg.norm(move[0, s], {"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=-1)
            np.testing.assert_allclose(length[length > 0], eta, rtol=1e-12)
            delta = ball.project((at + move[0, s] - DATA.X[s])[None, None], np.full((1, 1), eps), norm)[0, 0]
            z = DATA.X[s] + delta
            if it:
                z = at + 0.75 * (z - at) + 0.25 * (at - before)
                z = DATA.X[s] + ball.project((z - DATA.X[s])[None, None], np.full((1, 1), eps), norm)[0, 0]
            np.testing.assert_allclose(X[it + 1, s], z, rtol=0, atol=1e-12)
            rose += J[it + 1, s] > here
            before, at, here = at, X[it + 1, s], J[it + 1, s]
            best = it + 1 if J[it + 1, s] > J[best, s] else best
            if it + 1 in marks:
                if rose < rho * (it + 1 - last) or (not halved and best_before == J[best, s]):
                    halvings, backs = halvings + 1, backs + (best != it + 1)
                    eta, halved, at, here = eta / 2, True, X[best, s], J[best, s]
                else:
                    halved = False
                best_before, rose, last = J[best, s], 0, it + 1
    assert 0 < backs <= halvings
    assert halvings < len(marks[1:]) * right.sum()


def test_apgd_ends_higher_than_where_its_steps_would_bounce():
    """On one linear piece the best of the ball is known: every patch at the corner sign(w_2 - w_1)."""
    W = np.array([[[2.0, -1.0, 0.5]], [[-1.0, 1.5, 0.25]]])
    net, X, y = PatchCNN(W, 2, 1e-3), np.full((1, 4, 3), 5.0), np.array([0])
    eps = 0.4
    found = APGD("margin", n_steps=25)(net, (X, y), ThreatModel(eps=eps), 0)
    gap = W[0, 0] - W[1, 0]
    expected = net.margin(X - eps * np.sign(gap), y)
    np.testing.assert_allclose(found.margin, expected, rtol=1e-12)

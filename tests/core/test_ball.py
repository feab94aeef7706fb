"""Balls of perturbations: projections, directions and random points, for every norm and budget."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from advfeat.core import ball

ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
sets = pytest.mark.parametrize(("norm", "budget"), [(n, b) for n in ball.NORMS for b in ball.BUDGETS])
SLACK = 1e-12


def rows(delta, budget):
    return delta.reshape(*delta.shape[:2], 1, -1) if budget == "global" else delta


@st.composite
def perturbations(draw):
    """delta (R, N, P, d), eps (R, N) with zeros, and a generator."""
    shape = tuple(draw(st.integers(1, n)) for n in (2, 3, 4, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    delta = rng.standard_normal(shape) * rng.choice([0, 0.1, 1, 1, 10], shape)
    return delta, rng.choice([0, 0.3, 1.0, 5.0], shape[:2]), rng


@sets
@given(perturbations())
def test_projections_are_the_nearest_points(norm, budget, problem):
    """In the ball, the identity inside, and <delta - p, z - p> <= 0 for all z of the ball (convexity)."""
    delta, eps, _ = problem
    near = ball.project(delta, eps, norm, budget)
    assert near.shape == delta.shape
    assert (ball.length(near, norm, budget) <= eps * (1 + SLACK)).all()
    size = np.linalg.norm(rows(delta, budget), ORDER[norm], axis=-1)
    inside = size <= eps[..., None]
    np.testing.assert_array_equal(rows(near, budget)[inside], rows(delta, budget)[inside])
    away = rows(delta - near, budget)
    # the largest <away, z> over the ball is eps |away|_*, so the nearest point attains it
    best = eps[..., None] * np.linalg.norm(away, ball.DUAL[norm], axis=-1)
    attained = (away * rows(near, budget)).sum(axis=-1)
    np.testing.assert_allclose(attained, best, rtol=0, atol=1e-10 * (1 + np.abs(delta).sum()))


@given(perturbations())
def test_the_projection_to_l1_is_the_soft_threshold(problem):
    delta, eps, _ = problem
    near = ball.project(delta, eps, "l1")
    for at in np.ndindex(delta.shape[:3]):
        x, radius = delta[at], eps[at[:2]]
        if np.abs(x).sum() > radius:
            theta = optimize.brentq(lambda t, x=x, r=radius: np.maximum(np.abs(x) - t, 0).sum() - r, 0, np.abs(x).max())
            np.testing.assert_allclose(near[at], np.sign(x) * np.maximum(np.abs(x) - theta, 0), atol=1e-10)


@sets
@given(perturbations())
def test_steepest_ascent_attains_the_dual_norm(norm, budget, problem):
    g, _, _ = problem
    u = rows(ball.steepest(g, norm, budget), budget)
    assert np.linalg.norm(u, ORDER[norm], axis=-1).max() <= 1 + SLACK
    dual = np.linalg.norm(rows(g, budget), ball.DUAL[norm], axis=-1)
    np.testing.assert_allclose((u * rows(g, budget)).sum(axis=-1), dual, rtol=1e-12)
    assert (ball.steepest(0 * g, norm, budget) == 0).all()


@sets
def test_random_points_are_uniform_in_the_ball(norm, budget):
    """|x| / eps to the power of the dimension is uniform on [0, 1]; every coordinate is as often positive."""
    rng, shape, eps = np.random.default_rng(5), (3, 4), 0.7
    points = np.array([ball.random_point(rng, shape, eps, norm, budget) for _ in range(2000)])
    size = np.linalg.norm(rows(points[None], budget)[0], ORDER[norm], axis=-1) / eps
    dimension = 12 if budget == "global" and norm != "linf" else 4
    if norm == "linf" and budget == "global":
        size, dimension = np.abs(points).max(axis=-1) / eps, 4
    assert size.max() <= 1 + SLACK
    assert stats.kstest(size.ravel() ** dimension, "uniform").pvalue > 1e-6
    assert (np.abs((points > 0).mean(axis=0) - 0.5) < 6 * 0.5 / 2000**0.5).all()


@pytest.mark.parametrize("scale", [1e-200, 1e-160, 1.0, 1e160, 1e300])
@pytest.mark.parametrize("budget", ball.BUDGETS)
def test_l2_lengths_survive_squares_that_under_or_overflow(scale, budget):
    delta = np.random.default_rng(3).standard_normal((2, 3, 4, 5))
    eps = np.full((2, 3), 0.7)
    plain = ball.length(delta, "l2", budget)
    np.testing.assert_allclose(ball.length(scale * delta, "l2", budget), scale * plain, rtol=1e-14)
    for answer, truth in (
        (ball.project(scale * delta, scale * eps, "l2", budget) / scale, ball.project(delta, eps, "l2", budget)),
        (ball.steepest(scale * delta, "l2", budget), ball.steepest(delta, "l2", budget)),
    ):
        np.testing.assert_allclose(answer, truth, rtol=1e-13)

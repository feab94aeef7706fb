"""Lemma B.1: the exact law of the largest of m Gaussian numbers, against closed forms, the C library and draws."""

import math

import numpy as np
import pytest
from scipy import stats
from tolerances import SIGMAS

from advfeat.theory import gaussian_maximum as G

ROUNDING = 1e-11  # relative, of probabilities: the tail's slope t times the rounding of t, times log p where p is tiny
M = [1, 2, 3, 10, 100, 10**6, 10**12, 2**53]
TINY = [1e-290, 1e-30, 1e-5, 0.3, 0.5, 0.99]


def log_Phi(t):
    """log Phi(t) from math.erfc, precise in both tails."""
    upper = math.erfc(t / math.sqrt(2)) / 2
    return math.log1p(-upper) if t > 0 else math.log(math.erfc(-t / math.sqrt(2)) / 2)


def test_the_law_is_a_power_of_phi():
    for m in M:
        for t in (-3.0, 0.0, 1.5, 5.0, 9.0):
            exact = math.exp(m * log_Phi(t)), -math.expm1(m * log_Phi(t))
            np.testing.assert_allclose([G.cdf(0.2 * t, m, 0.2), G.sf(0.2 * t, m, 0.2)], exact, rtol=ROUNDING)


@pytest.mark.parametrize("p", TINY)
def test_quantiles_in_both_tails(p):
    """m log Phi(t / std) is log p, and log(1 - delta), from the C library's erfc."""
    for m, t, u in zip(M, G.quantile(p, M, 3.0), G.upper_quantile(p, M, 3.0)):
        np.testing.assert_allclose([math.exp(m * log_Phi(t / 3)), G.cdf(t, m, 3.0)], p, rtol=ROUNDING)
        np.testing.assert_allclose([-math.expm1(m * log_Phi(u / 3)), G.sf(u, m, 3.0)], p, rtol=ROUNDING)


def test_a_tail_beyond_the_rounding_of_one():
    """P[M > t] = 1e-30 at m = 10^12: one number beyond t has probability 1e-42."""
    np.testing.assert_allclose(G.upper_quantile(1e-30, 10**12), stats.norm.isf(1e-42), rtol=1e-14)
    np.testing.assert_allclose(G.sf(stats.norm.isf(1e-42), 10**12), 1e-30, rtol=ROUNDING)


def test_means_with_closed_forms():
    root, angle = math.sqrt(math.pi), math.asin(1 / 3) / math.pi
    exact = [0, 1 / root, 1.5 / root, 3 / root * (0.5 + angle), 2.5 / root * (0.5 + 3 * angle)]
    np.testing.assert_allclose(G.mean([1, 2, 3, 4, 5]), exact, atol=1e-12)


@pytest.mark.parametrize("m", [5, 10, 1000, 10**12])
def test_the_mean_is_the_quantiles_average(m):
    """E[M] = int_0^1 quantile(p) dp, by Gauss-Legendre in x with p = 1 / (1 + exp(-x))."""
    x, weight = np.polynomial.legendre.leggauss(400)
    x, weight = 40 * x, 40 * weight
    p, rest = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(x))
    t = np.where(x < 0, G.quantile(np.minimum(p, 0.5), m), G.upper_quantile(np.minimum(rest, 0.5), m))
    assert G.mean(m, 0.1) == pytest.approx(0.1 * (weight * p * rest) @ t, rel=1e-10)


def test_the_quoted_distance_of_the_asymptote():
    over = G.asymptote([10, 100, 10**12]) / G.mean([10, 100, 10**12])
    assert np.round(over, 2).tolist() == [1.39, 1.21, 1.05]
    assert (round(G.asymptote(10), 3), round(G.mean(10), 3), round(G.quantile(0.5, 10), 3)) == (2.146, 1.539, 1.499)
    assert round(G.asymptote(10) / G.quantile(0.5, 10), 2) == 1.43
    assert (np.diff(G.asymptote(M[1:]) / G.mean(M[1:])) < 0).all()


@pytest.mark.parametrize("delta", [1e-100, 1e-3, 0.1, 0.5, 0.999])
def test_bounds_keep_their_word(delta):
    m = np.array([m for m in M if m < 10**12 or delta > 1e-50])
    upper, above = G.upper_bound(delta, m, 0.5)
    np.testing.assert_allclose(upper, 0.5 * np.sqrt(2 * np.log(m / delta)), rtol=1e-12)
    np.testing.assert_allclose(above, G.sf(upper, m, 0.5), rtol=ROUNDING)
    assert (above <= delta / 2).all()
    lower, below = G.lower_bound(delta, m, 0.5)
    assert (below <= delta * (1 + ROUNDING)).all()
    there = np.isfinite(lower)
    np.testing.assert_allclose(below[there], G.cdf(lower[there], m[there], 0.5), rtol=ROUNDING)
    assert (below[~there] == 0).all()
    np.testing.assert_array_equal(np.isneginf(lower), m <= math.log(1 / delta))
    assert (lower <= upper).all() or delta > 0.5
    if delta > 1e-50:
        assert below[-1] == pytest.approx(delta, rel=1e-6)  # tight for many numbers


@pytest.mark.parametrize("m", [1, 10, 10**12])
def test_draws_follow_the_law(m):
    draws = G.draw(20_000, 5, m, 0.3)
    assert draws.shape == (20_000,)
    assert stats.kstest(draws, lambda t: G.cdf(t, m, 0.3)).pvalue > 1e-6
    assert abs(draws.mean() - G.mean(m, 0.3)) < SIGMAS * draws.std() / math.sqrt(20_000)


def test_draws_are_like_the_largest_of_drawn_numbers():
    rng = np.random.default_rng(1)
    brute = 2.0 * rng.standard_normal((20_000, 7)).max(axis=1)
    assert stats.ks_2samp(brute, G.draw(20_000, rng, 7, 2.0)).pvalue > 1e-6


def test_shapes_and_seeds():
    m, std = np.array([[1], [10], [10**12]]), np.array([0.1, 1.0])
    draws = G.draw(4, 0, m, std)
    assert draws.shape == (4, 3, 2)
    assert draws.dtype == np.float64
    np.testing.assert_array_equal(draws, G.draw(4, np.random.default_rng(0), m, std))
    for values in (G.mean(m, std), G.asymptote(m, std), G.quantile(0.3, m, std), G.sf(0.1, m, std)):
        assert values.shape == (3, 2)
        assert not np.isnan(values).any()
    assert np.ndim(G.mean(10)) == np.ndim(G.lower_bound(0.1, 10).value) == np.ndim(G.cdf(0.0, 1)) == 0
    assert G.mean(10, 0.25) == 0.25 * G.mean(10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: G.mean(0), "m = 0: must be an integer >= 1"),
        (lambda: G.mean([3, 2.5]), "m = 2.5"),
        (lambda: G.mean(2**53 + 1), "m = 9007199254740993: must be an integer <= 2"),
        (lambda: G.mean(3, 0.0), "std = 0.0: must be a number, finite and > 0"),
        (lambda: G.quantile(1.0, 3), "p = 1.0: must be a number, > 0 and < 1"),
        (lambda: G.quantile([0.5, 0.0], 3), "p = 0.0"),
        (lambda: G.upper_bound(2, 3), "delta = 2"),
        (lambda: G.lower_bound(-0.1, 3), "delta = -0.1"),
        (lambda: G.cdf(float("inf"), 3), "t = inf"),
        (lambda: G.draw(-1, 0, 3), "n = -1"),
        (lambda: G.cdf([0.0, 1.0], [1, 2, 3]), r"shapes t \(2,\), m \(3,\), std \(\): must broadcast"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()

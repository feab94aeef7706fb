"""The largest of m Gaussian numbers (Li & Li 2025, Lemma B.1): where max_s <w_{i,s}, f> stands at initialisation.

M = max(g_1, .., g_m), g_s ~ N(0, std^2) independent.  Phi is the standard normal distribution function.  Everything is
float64 and broadcasts over its arguments; t, std and all results are in the units of a weight.  The exact values keep
their relative precision in both tails for m up to 2^53, since all work is done on log Phi.

At initialisation the asymptote std sqrt(2 log m) is far above what it stands for: it exceeds the mean of M by 39% at
m = 10 (2.146 against 1.539 at std = 1; the median, 1.499, by 43%), by 21% at m = 100, and still by 5% at m = 10^12.

Every function raises ValueError for an m that is no integer in 1..2^53, an std that is not finite and positive, a
probability outside (0, 1), and shapes that do not broadcast.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr, ndtri_exp

from ..core import checks

LARGEST = 2**53
STEP = 0.02  # of the mean's sum; the density's width is 1 at m = 1 and 1/8 at 2^53
GRID = np.arange(-10, 14 + STEP / 2, STEP)  # beyond it lies less than 1e-22 of the mean


class Bound(NamedTuple):
    """A bound and the probability that M lies beyond it, exactly."""

    value: np.ndarray
    probability: np.ndarray


def _arguments(m, std, **others) -> list[np.ndarray]:
    """Checked float64 arrays of one shape: others.., m, std; `p`, `delta` are probabilities, `t` any number."""
    arrays = {}
    for name, value in {**others, "m": m, "std": std}.items():
        flat = np.ravel(np.asarray(value, object))
        if name == "m":
            flat = [checks.integer(name, v, 1) for v in flat.tolist()]
            if max(flat, default=1) > LARGEST:
                raise ValueError(f"m = {max(flat)}: must be an integer <= 2^53")
        values = checks.per_run(name, flat, len(flat), above=None if name == "t" else 0)
        if name in ("p", "delta") and (values >= 1).any():
            raise ValueError(f"{name} = {float(values.max())!r}: must be a number, > 0 and < 1")
        arrays[name] = values.reshape(np.shape(value))
    try:
        return list(np.broadcast_arrays(*arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
        raise ValueError(f"shapes {shapes}: must broadcast to one") from None


def cdf(t, m, std=1.0):
    """P[M <= t] = Phi(t / std)^m, exactly."""
    t, m, std = _arguments(m, std, t=t)
    return np.exp(m * log_ndtr(t / std))


def sf(t, m, std=1.0):
    """P[M > t] = 1 - Phi(t / std)^m = -expm1(m log Phi(t / std)), exactly, down to m 1e-308."""
    t, m, std = _arguments(m, std, t=t)
    return -np.expm1(m * log_ndtr(t / std))


def _inverse(log_p, m, std):
    """t with m log Phi(t / std) = log_p; ndtri_exp turns to the other tail where log_p / m is near 0."""
    return std * ndtri_exp(log_p / m)


def quantile(p, m, std=1.0):
    """t with P[M <= t] = p: std Phi^-1(p^(1/m)), 0 < p < 1."""
    p, m, std = _arguments(m, std, p=p)
    return _inverse(np.log(p), m, std)


def upper_quantile(delta, m, std=1.0):
    """t with P[M > t] = delta, 0 < delta < 1: precise where 1 - delta rounds to 1."""
    delta, m, std = _arguments(m, std, delta=delta)
    return _inverse(np.log1p(-delta), m, std)


def mean(m, std=1.0):
    """E[M] = std int t m phi(t) Phi(t)^(m-1) dt, phi the standard normal density.

    The integrand is analytic and vanishes at both ends, so that the sum over equidistant points converges faster than
    any power of their distance: the error is rounding, below 1e-12 std.
    """
    m, std = _arguments(m, std)
    log_phi = -(GRID**2) / 2 - np.log(2 * np.pi) / 2
    log_Phi = log_ndtr(GRID)
    distinct, where = np.unique(m, return_inverse=True)
    values = [STEP * (GRID @ np.exp(np.log(n) + log_phi + (n - 1) * log_Phi)) for n in distinct]
    return (std * np.asarray(values)[where].reshape(m.shape))[()]


def asymptote(m, std=1.0):
    """std sqrt(2 log m): E[M] / asymptote -> 1 from below, slowly (see the numbers above)."""
    m, std = _arguments(m, std)
    return std * np.sqrt(2 * np.log(m))


def upper_bound(delta, m, std=1.0) -> Bound:
    """std sqrt(2 log(m / delta)), which M exceeds with probability <= delta (Lemma B.1); beside it that probability.

    1 - Phi(t) <= exp(-t^2 / 2) / 2 for t >= 0 and m events: P[M > bound] <= delta / 2, half of what is claimed.
    """
    delta, m, std = _arguments(m, std, delta=delta)
    value = std * np.sqrt(2 * (np.log(m) - np.log(delta)))
    return Bound(value, -np.expm1(m * log_ndtr(value / std)))


def lower_bound(delta, m, std=1.0) -> Bound:
    """t with 1 - Phi(t / std) = log(1 / delta) / m; M stays at or below it with probability <= delta.  Beside it that
    probability, Phi(t / std)^m.

    Phi^m = (1 - (1 - Phi))^m <= exp(-m (1 - Phi)) = delta.  Where m <= log(1 / delta) there is no such t: the bound is
    -inf and the probability 0.
    """
    delta, m, std = _arguments(m, std, delta=delta)
    tail = -np.log(delta) / m
    with np.errstate(divide="ignore"):
        log_Phi = np.where(tail < 1, np.log1p(-np.minimum(tail, 1)), -np.inf)
    return Bound((std * ndtri_exp(log_Phi))[()], np.exp(m * log_Phi))


def draw(n: int, rng, m, std=1.0) -> np.ndarray:
    """n independent M for each m and std -> float64 (n, *shape), by the inverse distribution function: O(n) for any m.

    P[M <= t] = U with log U = -E, E exponential, which resolves both tails.  `rng` is a Generator or a seed.
    """
    m, std = _arguments(m, std)
    E = np.random.default_rng(rng).standard_exponential((checks.integer("n", n, 0), *m.shape))
    return _inverse(-np.maximum(E, np.finfo(np.float64).tiny), m, std)

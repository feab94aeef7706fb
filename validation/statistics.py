"""Intervals and fits that the ledger's rules use."""

from typing import NamedTuple

import numpy as np
from scipy import stats

OF_ORDER = 10.0  # in units of sigma_0 sqrt(2 log m): up to here every rule that says O~(sigma_0) takes a correlation


def order_of(c) -> float:
    """The most that counts as O~(sigma_0) in a setting: ten times sigma_0 sqrt(2 log m), near the start's maximum."""
    return OF_ORDER * c.init_std * np.sqrt(2 * np.log(c.n_neurons))


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share."""
    low, high = stats.binomtest(int(successes), int(n)).proportion_ci(confidence, method="wilson")
    return float(low), float(high)


class Exponent(NamedTuple):
    """y = constant * x^slope, fitted to log y over log x, with the slope's confidence interval."""

    slope: float
    low: float
    high: float
    constant: float

    def __str__(self):
        return f"{self.slope:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def off(self, expected: float) -> float:
        """Distance of the interval's farther end from `expected`."""
        return max(abs(self.low - expected), abs(self.high - expected))


def fit_exponent(x, y, confidence: float = 0.95) -> Exponent:
    """Least squares of log y on log x; x, y > 0 of one shape, at least three points.  Student's interval."""
    x, y = np.log(np.ravel(x)), np.log(np.ravel(y))
    fit = stats.linregress(x, y)
    half = fit.stderr * stats.t.ppf((1 + confidence) / 2, len(x) - 2)
    return Exponent(fit.slope, fit.slope - half, fit.slope + half, float(np.exp(fit.intercept)))


def fit_paired(x, y) -> Exponent:
    """Exponent common to all columns of y (n, ...) over x (n,), each column with a constant of its own.

    Columns share their draws from row to row, so their constants carry no information on the exponent.  Columns with a
    NaN are left out; NaN where none is left.
    """
    y = np.asarray(y).reshape(len(x), -1)
    y = y[:, np.isfinite(y).all(axis=0)]
    if y.size < 3:
        return Exponent(*4 * [np.nan])
    return fit_exponent(np.broadcast_to(np.asarray(x, float)[:, None], y.shape), y / stats.gmean(y, axis=0))


def spread(values, digits: int = 3) -> str:
    """'median [minimum, maximum]' of what is finite."""
    values = np.ravel(np.asarray(values, float))
    values = values[np.isfinite(values)]
    if not len(values):
        return "none"
    return f"{np.median(values):.{digits}g} [{values.min():.{digits}g}, {values.max():.{digits}g}]"

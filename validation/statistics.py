"""Intervals and fits that the ledger's rules use."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats


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


def fit_exponent(x, y, confidence: float = 0.95) -> Exponent:
    """Least squares of log y on log x; x, y > 0 of one shape, at least three points.  Student's interval."""
    x, y = np.log(np.ravel(x)), np.log(np.ravel(y))
    fit = stats.linregress(x, y)
    half = fit.stderr * stats.t.ppf((1 + confidence) / 2, len(x) - 2)
    return Exponent(fit.slope, fit.slope - half, fit.slope + half, float(np.exp(fit.intercept)))


def spread(values, digits: int = 3) -> str:
    """'median [minimum, maximum]' of what is finite."""
    values = np.ravel(np.asarray(values, float))
    values = values[np.isfinite(values)]
    if not len(values):
        return "none"
    return f"{np.median(values):.{digits}g} [{values.min():.{digits}g}, {values.max():.{digits}g}]"


def shortfall(error, tolerance) -> float:
    """log10(tolerance / error): decades left before the tolerance is reached, negative beyond it."""
    error = float(np.max(error))
    return float(np.log10(tolerance / max(error, 1e-300))) if np.isfinite(error) else float("nan")

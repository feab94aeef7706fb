"""Where adversarial training stops the non-robust features (Lemma 5.2, leading order)."""

from __future__ import annotations

from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from ..core import checks
from ..core.types import BoolArray, Float64Array, PerPoint


@overload
def plateau(beta: float, q: int, rho: float, ascent_lr: float) -> float: ...
@overload
def plateau(beta: PerPoint, q: int, rho: PerPoint, ascent_lr: PerPoint) -> Float64Array: ...
def plateau(beta: PerPoint, q: int, rho: PerPoint, ascent_lr: PerPoint) -> float | Float64Array:
    """B* with (B*)^q = rho^(q-1) beta^(2-q) / ascent_lr.

    One ascent step on -F_y takes ascent_lr sum_s sigma'(beta B_s) B_s off the strength beta of a non-robust patch.  In
    the polynomial part the rest vanishes, and B stops, where (sum_s (B_s)_+^q)^(1/q) = B*; needs eps >= beta.  In the
    units of a weight.  beta, rho, ascent_lr: numbers, or arrays that broadcast.  ValueError for one that is not
    positive, and for a q that is no integer in 2..100.
    """
    for name, value in (("beta", beta), ("rho", rho), ("ascent_lr", ascent_lr)):
        checks.numbers(name, value, above=0)
    checks.degree(q)
    return (rho ** (q - 1) * beta ** (2 - q) / ascent_lr) ** (1 / q)


def phase_two_started(B: ArrayLike, beta: PerPoint, q: int, rho: PerPoint, ascent_lr: PerPoint) -> BoolArray:
    """Whether ascent_lr sum_s sigma'(beta B_s) B_s >= beta / 2, for B (..., m) -> bool (...).

    beta, rho, ascent_lr: numbers, or arrays that broadcast against B's leading axes.

    The rule for "Phase II has begun" for a class: the ascent step takes at least half of a non-robust patch away.
    ValueError for numbers that are not positive, and for a q that is no integer in 2..100; NaN in B is not started.
    """
    checks.degree(q)
    B = checks.float64("B", B)
    for name, value in (("beta", beta), ("rho", rho), ("ascent_lr", ascent_lr)):
        checks.numbers(name, value, above=0)
    slopes = np.clip(np.expand_dims(beta, -1) * B / np.expand_dims(rho, -1), 0, 1) ** (q - 1)
    return ascent_lr * (slopes * B).sum(axis=-1) >= beta / 2


def stopping(chi: Float64Array, q: int) -> Float64Array:
    """Where a feature stops, as a share of B*: (1 + chi^(q/(q-2)))^(-1/q), chi = |w_orth(0)|^2 / (B*)^2.

    While a neuron learns v, both B and w_orth move with the patch that the ascent leaves: dB = c (beta - g B),
    dw_orth = -c g w_orth, g = eta~ sigma'(beta B) = beta B^(q-1) / (B*)^q.  Hence w_orth falls as (1 - x^q)^(1/q),
    x = B / B*, and the left-over preactivation, beta B - g (B^2 + |w_orth|^2), is zero where 1 - x^q =
    chi x^(q-2) (1 - x^q)^(2/q).  For chi >> 1 that is z = beta B = (rho^(q-1) / (eta~ |w_orth|^2))^(1/(q-2)).
    """
    return (1 + chi ** (q / (q - 2))) ** (-1 / q)

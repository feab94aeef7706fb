"""Where robust accuracy can be had on the whole l_inf ball; derivations and proofs in docs/robust-window.md.

Filters are shared by all patches, so an attacker of radius e may add e u_j to *every* patch.  A diagonal network
w_{i,s} = A u_i with A max(alpha - e, e) <= rho, the polynomial part of the activation, keeps its prediction iff

    P_R (alpha - e)^q > P e^q,            i.e.  e < alpha / (1 + (P / P_R)^(1/q)) = eps_hi,

and a network of the non-robust features, w_{i,s} = B v_i, loses it iff P_NR (beta - e)^q <= P e^q (a tie is wrong),

    i.e.  e >= beta / (1 + (P / P_NR)^(1/q)) = eps_lo.

Between the two, a test radius tells the trainings apart; as P / P_R grows at a fixed density ratio c (Assumption 2.3),
the window tends to (beta/2, c^(1/q) beta).  For large A the first condition becomes P_R (alpha - e) > P e (equality
suffices where P_NR > 0), and at any A this is enough: a smaller window, or none.  `find_window` says which holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Literal

import numpy as np

from ..core import checks
from ..core.ball import NORMS, Norm


def density_ratio(alpha: float, beta: float, n_patches: int, n_robust: int, exponent: float = 3) -> float:
    """c = P_R alpha^a / (P_NR beta^a); non-robust features are denser (Assumption 2.3) when c < 1.

    ValueError unless alpha, beta, exponent > 0, n_patches >= 1, 0 <= n_robust <= n_patches.
    """
    _check(alpha, beta, n_patches, n_robust)
    checks.number("exponent", exponent, above=0)
    return density(alpha, beta, n_patches, n_robust, exponent)


def density(alpha, beta, n_patches, n_robust, exponent) -> float:
    """`density_ratio` of any real numbers, unchecked, as a map needs it between the points of a sweep."""
    others = n_patches - n_robust
    return n_robust * alpha**exponent / (others * beta**exponent) if others else float("inf")


def robust_window(alpha: float, beta: float, n_patches: int, n_robust: int, q: int = 3) -> tuple[float, float]:
    """(eps_lo, eps_hi) for constant strengths; empty when eps_lo >= eps_hi.  Radii are in the units of alpha, beta.

    ``eps_lo`` is 0 without non-robust patches, ``eps_hi`` is 0 without robust ones.  ValueError
    unless alpha, beta > 0, n_patches >= 1, 0 <= n_robust <= n_patches, q in 2..100.
    """
    _check(alpha, beta, n_patches, n_robust, q)
    return edges(alpha, beta, n_patches, n_robust, q)


def edges(alpha, beta, n_patches, n_robust, q) -> tuple[float, float]:
    """`robust_window` of any real numbers, unchecked, as a map needs it between the points of a sweep."""
    others = n_patches - n_robust
    low = beta / (1 + (n_patches / others) ** (1 / q)) if others else 0.0
    high = alpha / (1 + (n_patches / n_robust) ** (1 / q)) if n_robust else 0.0
    return low, high


@dataclass(frozen=True)
class Window:
    """The open interval (low, high) of test radii, or why there is none.

    Attributes
    ----------
    low, high : eps_lo and the upper end, in the units of alpha and beta; NaN where `failed` leaves them without meaning
    failed : the premise that fails, with its numbers; "" where the window stands
    premise : the premise on the size of the robust features as far as it is known; "" where it is not met by anything
    """

    low: float
    high: float
    failed: str = ""
    premise: str = ""

    @property
    def stands(self) -> bool:
        """Whether no premise fails."""
        return not self.failed

    @property
    def ends(self) -> list[float] | None:
        """[low, high], or None where there is no window."""
        return [self.low, self.high] if self.stands else None

    def place(self, eps: float) -> Literal["inside", "below", "above", "no window"]:
        """Where a radius lies: "inside", "below", "above", or "no window"."""
        if not self.stands:
            return "no window"
        return "below" if eps <= self.low else "above" if eps >= self.high else "inside"

    def sentence(self, eps: float) -> str:
        """The window and a test radius in words, without a full stop."""
        if not self.stands:
            return f"There is no window of test radii, where diagonal networks tell the trainings apart: {self.failed}"
        return (
            f"The test radius {eps:g} lies {self.place(eps)} the window ({self.low:.4g}, {self.high:.4g}) in which "
            f"diagonal networks tell the trainings apart ({self.premise})"
        )


def find_window(
    alpha: float,
    beta: float,
    n_patches: int,
    n_robust: int,
    q: int,
    rho: float,
    *,
    norm: Norm = "linf",
    strength: float | None = None,
) -> Window:
    """The window of test radii where its premises hold, else the first premise that fails, with its numbers.

    Its premises, in this order (docs/robust-window.md): balls of the norm l_inf; eps_lo < eps_hi; and a robust feature
    of size A = `strength` in the polynomial part, A (alpha - e) <= rho for every e of the window, that is
    A (alpha - eps_lo) <= rho (then A e < rho too, since eps_hi <= alpha / 2).  Where only the last one fails, radii up
    to alpha P_R / (P + P_R) are left, at which P_R (alpha - e) > P e holds at any A; eps_lo needs no such premise: from
    it on networks of the non-robust features break at any size.
    Constant strengths, features parallel to the axes and diagonal networks are the caller's part.

    Parameters
    ----------
    alpha, beta, n_patches, n_robust, q, rho : numbers, as in `robust_window`, and rho > 0
    strength : the largest <w_{i,s}, u_i>, measured or predicted, in the units of a weight; NaN for a training that
        diverged; None where it is not known, and then the window holds under that premise
    """
    _check(alpha, beta, n_patches, n_robust, q)
    checks.number("rho", rho, above=0)
    if strength is not None:
        checks.instance("strength", strength, Real, "a number, or None")
    checks.choice("norm", norm, NORMS)
    return window_of(alpha, beta, n_patches, n_robust, q, rho, norm, strength)


def window_of(alpha, beta, n_patches, n_robust, q, rho, norm, strength) -> Window:
    """`find_window` of any real numbers, unchecked, as a map needs it between the points of a sweep."""
    if norm != "linf":
        return Window(np.nan, np.nan, f"it is one of l_inf balls, and norm = {norm!r}")
    low, high = edges(alpha, beta, n_patches, n_robust, q)
    if not low < high:
        return Window(low, high, f"it is empty, eps_lo = {low:.4g} >= eps_hi = {high:.4g}")
    if strength is None:
        return Window(low, high, premise="as long as A (alpha - eps_lo) <= rho; A is not known")
    if not np.isfinite(strength):
        return Window(low, high, f"the robust feature's A = {strength:g}, the training diverged")
    reach = f"A (alpha - eps_lo) = {strength * (alpha - low):.4g}"
    if strength * (alpha - low) <= rho:
        return Window(low, high, premise=f"{reach} <= rho = {rho:g}")
    left, sure = f"{reach} > rho = {rho:g}", alpha * n_robust / (n_patches + n_robust)
    if low < sure:
        return Window(low, sure, premise=f"{left}: what is left at any A, e < alpha P_R / (P + P_R)")
    edge = diagonal_edge(alpha, n_patches, n_robust, q, rho, strength)
    return Window(
        low, high, f"{left}, the robust feature leaves the activation's polynomial part; networks of this A hold up to "
        f"{edge:.4g}, of a larger one less, down to alpha P_R / (P + P_R) = {sure:.4g}",
    )  # fmt: skip


def diagonal_edge(alpha: float, n_patches: int, n_robust: int, q: int, rho: float, strength: float) -> float:
    """The radius e up to which networks w_{i,s} = A u_i, A = `strength` > 0, keep their predictions: where
    P_R sigma(A (alpha - e)) = P sigma(A e), by bisection to 1e-9 alpha.

    eps_hi while A (alpha - eps_hi) <= rho; beyond that it falls with A, to alpha P_R / (P + P_R).  q <= 100.
    """
    checks.small_degree(q)

    def sigma(z):  # numbers, not arrays: a map of a sweep asks for tens of thousands
        return z - (1 - 1 / q) * rho if z > rho else rho / q * (max(z, 0.0) / rho) ** q

    low, high = 0.0, alpha / 2
    for _ in range(30):
        e = (low + high) / 2
        holds = n_robust * sigma(strength * (alpha - e)) > n_patches * sigma(strength * e)
        low, high = (e, high) if holds else (low, e)
    return low


def contradiction(alpha: float, beta: float, eps: float, n_patches: int, n_robust: int, q: int = 3) -> bool:
    """Whether no network can hold two classes robust in the polynomial part: eps >= beta and
    P_R (alpha - eps)_+^q <= P_NR eps^q.

    Then, noiseless, of any weights with alpha <w_{i,s}, u_j> <= rho for all i, j, s, at most one class is robust on the
    whole l_inf ball of radius eps (docs/robust-window.md, Proposition 1).  Under Assumption 2.3 (density ratio c < 1
    with exponent q) eps >= beta alone suffices.  It says nothing of weights outside the polynomial part: there two
    robust classes exist as soon as eps < alpha / 2 (Proposition 2).

    Raises
    ------
    ValueError
        Unless alpha, beta, eps > 0, n_patches >= 1, 0 <= n_robust <= n_patches, q in 2..100.
    """
    _check(alpha, beta, n_patches, n_robust, q)
    checks.number("eps", eps, above=0)
    return eps >= beta and n_robust * max(alpha / eps - 1, 0.0) ** q <= n_patches - n_robust


def _check(alpha, beta, n_patches, n_robust, q=2):
    """Errors for numbers that no data have."""
    checks.number("alpha", alpha, above=0)
    checks.number("beta", beta, above=0)
    checks.integer("n_robust", n_robust, 0, checks.integer("n_patches", n_patches, 1))
    checks.degree(q)

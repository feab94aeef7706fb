"""Where robust accuracy can be had on the whole l_inf ball; derivations and proofs in docs/robust-window.md.

Filters are shared by all patches, so an attacker of radius e may add e u_j to *every* patch.  A diagonal network
w_{i,s} = A u_i with A max(alpha - e, e) <= rho, the polynomial part of the activation, keeps its prediction iff

    P_R (alpha - e)^q > P e^q,            i.e.  e < alpha / (1 + (P / P_R)^(1/q)) = eps_hi,

and a network of the non-robust features, w_{i,s} = B v_i, loses it iff P_NR (beta - e)^q <= P e^q (a tie is wrong),

    i.e.  e >= beta / (1 + (P / P_NR)^(1/q)) = eps_lo.

Between the two, a test radius tells the trainings apart; as P / P_R grows at a fixed density ratio c (Assumption 2.3),
the window tends to (beta/2, c^(1/q) beta).  For large A the first condition becomes P_R (alpha - e) > P e (equality
suffices where P_NR > 0).
"""

from __future__ import annotations

from .. import checks


def density_ratio(alpha: float, beta: float, n_patches: int, n_robust: int, exponent: float = 3) -> float:
    """c = P_R alpha^a / (P_NR beta^a); non-robust features are denser (Assumption 2.3) when c < 1."""
    others = n_patches - n_robust
    return n_robust * alpha**exponent / (others * beta**exponent) if others else float("inf")


def robust_window(alpha: float, beta: float, n_patches: int, n_robust: int, q: int = 3) -> tuple[float, float]:
    """(eps_lo, eps_hi) for constant strengths; empty when eps_lo >= eps_hi.  Radii are in the units of alpha, beta.

    ``eps_lo`` is 0 without non-robust patches, ``eps_hi`` is 0 without robust ones.
    """
    others = n_patches - n_robust
    low = beta / (1 + (n_patches / others) ** (1 / q)) if others else 0.0
    high = alpha / (1 + (n_patches / n_robust) ** (1 / q)) if n_robust else 0.0
    return low, high


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
        Unless alpha, beta, eps > 0, n_patches >= 1, 0 <= n_robust <= n_patches, q >= 2.
    """
    alpha, beta, eps = (
        checks.number(name, value, above=0) for name, value in (("alpha", alpha), ("beta", beta), ("eps", eps))
    )
    checks.integer("n_patches", n_patches, 1)
    checks.integer("q", q, 2)
    if checks.integer("n_robust", n_robust, 0) > n_patches:
        raise ValueError(f"n_robust = {n_robust}: must be an integer in 0..n_patches = {n_patches}")
    return eps >= beta and n_robust * max(alpha / eps - 1, 0.0) ** q <= n_patches - n_robust

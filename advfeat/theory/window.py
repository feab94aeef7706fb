"""Where robust accuracy can be had on the whole l_inf ball: the window of diagonal networks.

Filters are shared by all patches, so an attacker of radius e may add e u_j to *every* patch.  A diagonal network
w_{i,s} = A u_i with all preactivations in the polynomial part of the activation keeps its prediction iff

    P_R (alpha - e)^q > P e^q,            i.e.  e < alpha / (1 + (P / P_R)^(1/q)) = eps_hi,

and a network of the non-robust features, w_{i,s} = B v_i, loses it iff P_NR (beta - e)^q < P e^q,

    i.e.  e > beta / (1 + (P / P_NR)^(1/q)) = eps_lo.

Between the two, a test radius tells the trainings apart; as P grows the window tends to (beta/2, c^(1/q) beta), c the
density ratio of Assumption 2.3.  In the linear part the first condition becomes P_R (alpha - e) > P e.
"""

from __future__ import annotations


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

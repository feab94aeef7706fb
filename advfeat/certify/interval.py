"""The interval certificate: one pass over the network, the same radius for all samples of a run."""

from __future__ import annotations

import numpy as np

from .. import checks
from ..attacks.ball import DUAL, NORMS
from ..network import PatchCNN

UNIT = np.finfo(np.float64).eps / 2


def interval_margin(net: PatchCNN, X, y, *, eps, norm: str = "linf") -> np.ndarray:
    """Lower bound on min_{|delta_p| <= eps} F_y - max_{j != y} F_j, from intervals of the preactivations.

    Every preactivation stays in z +- eps |w|_*, |.|_* the dual norm (l_1 for l_inf, l_2 for l_2, l_inf for l_1), and
    sigma never decreases, so F_y >= sum sigma(z - eps |w|_*) and F_j <= sum sigma(z + eps |w|_*).  A positive bound
    certifies.

    Rounding is outward.  The bound is computed in float64 from the exact values of weights and inputs; with unit
    roundoff u, the radius of z is widened by 4(d+2)u (eps |w|_* + |w|_2 max|x|_2), which covers the error of the dot
    products, and the sums are moved apart by the relative 4(Pm + q + 8)u, which covers activation, summation and the
    final subtraction.

    Returns
    -------
    (N,) or (R, N) float64.
    """
    eps = checks.per_run("eps", eps, net.n_runs, low=0)
    checks.choice("norm", norm, NORMS)
    net = net.astype(np.float64)
    X, y = net.check(X, y)
    k, m, d = net.shape
    P = X.shape[2]
    dual = np.linalg.norm(net.weights, DUAL[norm], axis=-1)
    reach = eps[:, None, None] * dual
    longest = np.linalg.norm(X, axis=-1).max(axis=(1, 2))[:, None, None]
    reach = reach + 4 * (d + 2) * UNIT * (reach + longest * np.linalg.norm(net.weights, axis=-1))
    lower, upper = net.engine.interval(net.weights, net.pack(X), net.q, net.rho, reach)
    slack = 4 * (P * m + net.q + 8) * UNIT
    y = np.broadcast_to(y, lower.shape[:2])[..., None]
    label = np.take_along_axis(lower * (1 - slack), y, -1)[..., 0]
    rivals = np.where(np.arange(k) == y, -np.inf, upper * (1 + slack)).max(axis=-1)
    return net.answer(label - rivals - 2 * P * m * (1 + net.rho) * np.finfo(float).tiny)

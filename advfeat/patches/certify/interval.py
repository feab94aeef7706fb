"""The interval certificate: one pass over the network, the same radius for all samples of a run."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ...core import checks
from ...core.ball import NORMS, Norm, norms
from ...core.model import Checked
from ...core.types import Float64Array, PerRun
from ...kernels.branch_and_bound import TINY, UNIT_ROUNDOFF
from ..network import PatchCNN

DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


def interval_margin(net: PatchCNN, X: ArrayLike, y: ArrayLike, *, eps: PerRun, norm: Norm = "linf") -> Float64Array:
    """Lower bound on min_{|delta_p| <= eps} F_y - max_{j != y} F_j, from intervals of the preactivations.

    Every preactivation stays in z +- eps |w|_*, |.|_* the dual norm (l_1 for l_inf, l_2 for l_2, l_inf for l_1), and
    sigma never decreases, so F_y >= sum sigma(z - eps |w|_*) and F_j <= sum sigma(z + eps |w|_*).  A positive bound
    certifies.

    Rounding is outward.  The bound is computed in float64 from the exact values of weights and inputs; with unit
    roundoff u, the radius of z is widened by 4(d+2)u (eps |w|_* + |w|_2 max|x|_2), which covers the error of the dot
    products, and the sums are moved apart by the relative 4(Pm + q + 8)u, which covers activation, summation and the
    final subtraction.  The smallest normal number, in the radius and for every sigma (times 1 + rho), covers what
    underflows; norms do not.  What overflows has the bound -inf.

    Returns
    -------
    (N,) or (R, N) float64.
    """
    checks.instance("net", net, PatchCNN, "a PatchCNN")
    eps = checks.per_run("eps", eps, net.n_runs, low=0)
    checks.choice("norm", norm, NORMS)
    return net.drop_runs_axis(interval_bound(net.astype(np.float64), Checked(net, (X, y)), eps, norm))


def interval_bound(net: PatchCNN, held: Checked, eps: Float64Array, norm: Norm) -> Float64Array:
    """The same, (R, N), of a float64 network for data that it has checked."""
    X, y = held.X, held.y
    k, m, d = net.shape
    P = X.shape[2]
    with np.errstate(all="ignore"):
        reach = eps[:, None, None] * norms(net.weights, DUAL[norm])
        longest = norms(X if X.strides[0] else X[:1], "l2").max(axis=(1, 2))[:, None, None]  # one X for all runs
        reach = reach + 4 * (d + 2) * UNIT_ROUNDOFF * (reach + longest * norms(net.weights, "l2")) + TINY
        lower, upper = net.engine.interval(net.weights, held.batch, net.q, net.rho, reach)
        slack = 4 * (P * m + net.q + 8) * UNIT_ROUNDOFF
        y = y[..., None]
        label = np.take_along_axis(lower * (1 - slack), y, -1)[..., 0]
        rivals = np.where(np.arange(k) == y, -np.inf, upper * (1 + slack)).max(axis=-1)
        bound = label - rivals - 2 * P * m * (1 + net.rho) * TINY
    return np.where(bound < np.inf, bound, -np.inf)

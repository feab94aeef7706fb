"""Certified, broken or undecided: bounds of the least margin from below and from above, refined where they disagree."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from ...core import checks
from ...core.ball import BUDGETS, NORMS, Budget, Norm
from ...core.progress import Progress, Stopwatch
from ...core.records import record
from ...core.runs import per_sample, spread_over_runs
from ...core.types import BoolArray, Float64Array, IntArray, PerSample, StrArray
from ..network import PatchCNN
from .pairs import Pairs
from .scaling import Scale, exponents

#: Weakest and cheapest first; every method starts with those before it.
Method = Literal["interval", "linear", "tangents", "branch_and_bound"]
METHODS: tuple[Method, ...] = get_args(Method)
STAGES = {"interval": (0, 0, 1), "linear": (2, 0, 1), "tangents": (30, 0, 1)}  # steps, rounds of tightening, nodes
STEPS, ROUNDS = 6, 4  # of branch and bound, per node
MAX_NODES = 64  # where none are given
CHUNK_BYTES = 2**25  # best perturbations of the samples that are worked on at a time
FEW = 16  # samples that are worked on at a time where there is a time limit, or somebody who watches


@record
class Certificate:
    """What is known of the least margin min F_y - max_{j != y} F_j over every sample's ball.

    Arrays (N,) for a single network, (R, N) for a batch.

    Attributes
    ----------
    lower : float64
        Sound lower bound of the exact margin, outward rounding included, at any scale of weights, inputs, rho and eps;
        -inf where nothing is known, NaN where a sample is not active.  Work on a sample ends when it is decided, so the
        bound of a certified or broken one need not be the tightest.
    upper : float64
        Smallest margin met, the network's own at `X_adv` in floating point; never below `lower`, never above the clean
        one, inf where none was finite.
    X_adv : float64, like X with a runs axis for a batch
    nodes : int
        Boxes of branch and bound, over all of a sample's patches and rivals.
    reason : str
        Why work on the sample ended: "decided"; "budget" where a patch has used `max_nodes`; "time limit"; "given up";
        "numerical floor" where no box can be halved any more, or all bounds meet within rounding; "duality gap" where a
        shared budget's dual function is not positive, so that no box would certify; "method" where a weaker one than
        branch and bound was asked for; "" where it is not active.
    duality_gap : float64
        Under a budget that patches share, the part of upper - lower that would be left at the multiplier in use if the
        searches of all patches met: no number of boxes closes it.  NaN for other budgets.
    """

    eps: Float64Array
    norm: Norm
    budget: Budget
    method: Method
    lower: Float64Array
    upper: Float64Array
    X_adv: Float64Array
    nodes: IntArray
    reason: StrArray
    duality_gap: Float64Array

    @property
    def certified(self) -> BoolArray:
        """Right for every perturbation of the ball: lower > 0."""
        return self.lower > 0

    @property
    def broken(self) -> BoolArray:
        """Wrong at X_adv (a tie is wrong): upper <= 0."""
        return self.upper <= 0

    @property
    def undecided(self) -> BoolArray:
        """Samples that are neither certified nor broken; False where a run has none."""
        return ~np.isnan(self.lower) & ~self.certified & ~self.broken

    @property
    def timed_out(self) -> BoolArray:
        """Samples that the time limit left undecided."""
        return self.reason == "time limit"


def stages(method: Method, max_nodes: int):
    """(steps, rounds, nodes) of the searches up to `method`; branch and bound with 1, 8, 64, ... `max_nodes` nodes."""
    for name in METHODS[: METHODS.index(method) + 1]:
        if name != "branch_and_bound":
            yield STAGES[name]
    nodes = 1 if method == "branch_and_bound" else max_nodes + 1
    while nodes <= max_nodes:
        yield STEPS, ROUNDS, nodes
        nodes = max_nodes if nodes < max_nodes < 8 * nodes else 8 * nodes


def alike(scales, where):
    """The places `where` (n, 2) by their scales (n, 4): (Scale, places), one pair at ordinary scales."""
    for scale in np.unique(scales, axis=0):
        yield Scale(*scale.tolist()), where[(scales == scale).all(axis=1)]


def certify(
    net: PatchCNN,
    X: ArrayLike,
    y: ArrayLike,
    eps: PerSample,
    *,
    norm: Norm = "linf",
    budget: Budget = "patch",
    method: Method = "branch_and_bound",
    max_nodes: int | None = None,
    give_up: bool | None = None,
    active: ArrayLike | None = None,
    progress: Progress | None = None,
    time_limit: float | None = None,
) -> Certificate:
    """Bound the least margin over |delta| <= eps from both sides; float64, whatever the network's dtype.

    Parameters
    ----------
    eps : float or array >= 0
        Radius: one number, (R,) for a batch, or one per sample, (N,) for a single network or (R, N).
    norm, budget : {"linf", "l2", "l1"}, {"patch", "global"}
        Every patch has the radius eps, or all patches of a sample share it (the same set for l_inf).
    method : {"interval", "linear", "tangents", "branch_and_bound"}
        Intervals of the preactivations; tangents of the label's sigma below and chords of the rival's above, at two
        tangent points or at the best ones; the same on ever smaller ranges of the rival's preactivations, and caps of
        the rival's activations by sums of its preactivations, until both bounds meet or `max_nodes` boxes per patch and
        rival are spent (docs/certificates.md, kernels/branch_and_bound.py, kernels/caps.py).
    max_nodes : int, optional
        64 by default, in stages of 1, 8, 64, ... boxes; up to about 10^5 at the default's shapes, where the waiting
        boxes of one search fill 64 MiB.
    give_up : bool, optional
        Leave a sample when a bound is still three times as far from 0 as the last stage raised it: by default where
        `max_nodes` is not given.
    active : (N,) or (R, N) bool, optional
        Samples to work on; the others have NaN bounds.
    progress, time_limit : optional
        As in :mod:`advfeat.core.progress`; what is open when the time is over stays undecided, with this `reason`.
        What is decided by then depends on the machine and its load: every bound is sound, but bits do not come again.

    Notes
    -----
    Every stage works on the rivals that the stage before left open, on samples that are not broken yet.  Perturbations
    that the search meets are tried on the network: they are what `upper` and `broken` rest on.  At extreme scales the
    search is given an equal problem at scale one (patches/certify/scaling.py).
    """
    checks.choice("norm", norm, NORMS)
    checks.choice("budget", budget, BUDGETS)
    checks.choice("method", method, METHODS)
    give_up = max_nodes is None if give_up is None else bool(give_up)
    max_nodes = MAX_NODES if max_nodes is None else checks.integer("max_nodes", max_nodes, 1)
    net = checks.instance("net", net, PatchCNN, "a PatchCNN").astype(np.float64)
    X, y = net.labelled(X, y)
    shape = (net.n_runs, X.shape[1])
    eps = per_sample("eps", eps, shape, net.batched)
    scales = exponents(net.weights, net.q, net.rho, X, eps)
    X, y = np.broadcast_to(X, (shape[0], *X.shape[1:])), np.broadcast_to(y, shape)
    active = np.ones(shape, bool) if active is None else active
    wanted = spread_over_runs("active", active, shape, net.batched, np.bool_)
    k, _, d = net.shape
    lower, upper, duality = (np.full(shape, np.nan) for _ in range(3))
    nodes, X_adv, reason = np.zeros(shape, int), X.copy(), np.full(shape, "", "<U16")
    where, clock, done = np.argwhere(wanted), Stopwatch(progress, time_limit), 0
    size = max(1, CHUNK_BYTES // (8 * (k - 1) * X.shape[2] * d))
    size = min(size, FEW) if clock.limited or clock.watched else size
    for scale, places in alike(scales[tuple(where.T)], where):
        for start in range(0, len(places), size):
            at = tuple(places[start : start + size].T)
            with np.errstate(all="ignore"):  # what under- or overflows is in the bounds
                pairs = Pairs(net, X[at], y[at], at[0], eps[at], norm, budget, scale, give_up, clock)
                for steps, rounds, n in stages(method, max_nodes):
                    pairs.refine(steps, rounds, n)
                    if rounds and n == 1 < max_nodes:
                        pairs.cap()
            done += len(at[0])
            clock.tell(f"{method}, {done} of {len(where)} samples", done / len(where))
            lower[at], upper[at], nodes[at], X_adv[at] = pairs.lower(), pairs.margin, pairs.nodes(), pairs.X_adv
            reason[at], duality[at] = pairs.reason(method), pairs.duality_gap()
    found = lower, upper, X_adv, nodes, reason, duality
    return Certificate(net.drop_runs_axis(eps), norm, budget, method, *map(net.drop_runs_axis, found))

"""Robust radii: the largest radius that is certified and the smallest that is broken, sample by sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ...core import ball, checks
from ...core.progress import Progress, Stopwatch
from ...core.records import record
from ...core.runs import per_sample
from ...core.types import BoolArray, Float64Array, PerSample
from ..network import PatchCNN
from .certificate import METHODS, Method, certify
from .scaling import LARGEST

MAX_HALVINGS = 200


@record
class RobustRadius:
    """Where robustness ends: certified <= true radius <= broken; arrays (N,) or (R, N).

    Attributes
    ----------
    certified : float64
        Largest radius found at which the sample is certified; 0 for a sample that is wrong when clean.
    broken : float64
        Smallest radius found at which it is broken, by X_adv; inf where `high` was given and stands.
    X_adv : float64, like X with a runs axis for a batch
    timed_out : bool
        The time limit left an end of the sample wider than `rtol`.
    """

    norm: ball.Norm
    budget: ball.Budget
    method: Method
    certified: Float64Array
    broken: Float64Array
    X_adv: Float64Array
    timed_out: BoolArray


def robust_radius(
    net: PatchCNN,
    X: ArrayLike,
    y: ArrayLike,
    *,
    norm: ball.Norm = "linf",
    budget: ball.Budget = "patch",
    method: Method = "branch_and_bound",
    max_nodes: int | None = None,
    give_up: bool | None = None,
    rtol: float = 1e-3,
    high: PerSample | None = None,
    progress: Progress | None = None,
    time_limit: float | None = None,
) -> RobustRadius:
    """Bisection with :func:`certify` for the largest certified and the smallest broken radius of every sample.

    Parameters
    ----------
    max_nodes, give_up : of :func:`certify`.
    rtol : float
        Each end is found to this share of itself.
    high : float or array >= 0, optional
        Largest radius to look at, shaped like `eps` of :func:`certify`.  By default, and at most, the size of X: at
        delta = -X all logits are 0, a tie, so every network is broken there.
    progress, time_limit : optional
        As in :mod:`advfeat.core.progress`; the ends are as far as they were narrowed when the time is over.

    Notes
    -----
    Robustness is monotone in the radius, so what is certified at eps is taken as certified below it, what is broken as
    broken above.  First the broken end is bisected, with the perturbations that a search of one box per patch meets,
    whatever the method; then the certified one, with `method`.
    """
    rtol = checks.number("rtol", rtol, above=0)
    checks.choice("norm", norm, ball.NORMS)
    checks.choice("budget", budget, ball.BUDGETS)
    checks.choice("method", method, METHODS)
    if max_nodes is not None:
        checks.integer("max_nodes", max_nodes, 1)
    net = checks.instance("net", net, PatchCNN, "a PatchCNN").astype(np.float64)
    X, y = net.labelled(X, y)
    shape = (net.n_runs, X.shape[1])
    X, y = np.broadcast_to(X, (shape[0], *X.shape[1:])), np.broadcast_to(y, shape)
    runs = net if net.batched else net.with_weights(net.weights)

    clock = Stopwatch(progress, time_limit)

    def look(eps, todo, **options):
        return certify(runs, X, y, eps, norm=norm, budget=budget, active=todo, time_limit=clock.left, **options)

    def told(what, begin, todo, width):
        """A bisection is as far as its widest bracket (n,) has been halved on the way to `rtol`."""
        share = min(np.log2(max(width[todo].max(initial=0), rtol)) / np.log2(rtol), 1) if rtol < 1 else 1
        clock.tell(f"{what}, {todo.sum()} samples left", begin + share / 2)
        return not todo.any() or clock.is_up()

    effort = {"method": method, "max_nodes": max_nodes, "give_up": give_up}
    with np.errstate(over="ignore"):
        X_adv, broken, certified = np.zeros_like(X), ball.length(X, norm, budget) * (1 + 1e-9), np.zeros(shape)
    unsure = np.minimum(broken, LARGEST)
    if high is not None:
        high = per_sample("high", high, shape, net.batched)
        asked = high < unsure  # beyond the size of X nothing is left to be asked
        first = look(np.where(asked, high, 0), asked, **effort)
        X_adv[asked], unsure[asked] = first.X_adv[asked], high[asked]
        broken[asked] = np.where(first.broken, high, np.inf)[asked]
        certified[asked & first.certified] = high[asked & first.certified]
    wrong = runs.margin(X, y) <= 0
    certified[wrong], broken[wrong], unsure[wrong], X_adv[wrong] = 0, 0, 0, X[wrong]
    doubt = certified.copy()  # nothing has been found up to here; certificates have failed from `unsure` on

    def halve(todo, eps, **options):
        found = look(eps, todo, **options)
        won, lost, open_ = todo & found.certified, todo & found.broken & (eps < broken), todo & found.undecided
        certified[won], doubt[won | open_] = np.maximum(certified, eps)[won], np.maximum(doubt, eps)[won | open_]
        broken[lost], X_adv[lost] = eps[lost], found.X_adv[lost]
        unsure[lost | open_] = np.minimum(unsure, eps)[lost | open_]

    for _ in range(MAX_HALVINGS):
        todo = np.isfinite(broken) & (broken - doubt > rtol * broken)
        if told("broken radii", 0, todo, 1 - doubt / np.where(todo, broken, 1)):
            break
        halve(todo, np.where(todo, broken, 0) / 2 + doubt / 2, max_nodes=1)
    unsure = np.where(np.isfinite(broken), broken, unsure)  # a weaker search failed: ask `method` itself
    for _ in range(MAX_HALVINGS):
        todo = unsure - certified > rtol * unsure
        if told("certified radii", 0.5, todo, 1 - certified / np.where(todo, unsure, 1)):
            break
        halve(todo, certified / 2 + unsure / 2, **effort)
    found = certified, broken, X_adv, todo & clock.timed_out
    return RobustRadius(norm, budget, method, *map(net.drop_runs_axis, found))

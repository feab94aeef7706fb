"""What the recursions need of the data: classes, strengths and counts of patches, no patch itself (Def. 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from ..core import checks
from ..core.types import Float64Array, Law
from ..kernels.recursion import Types

MOST_VALUES = 10_000  # of a discrete strength law


def _pack(runs, n_classes) -> Types:
    """Runs as lists of (y, weight, {(feature, strength): count}), padded to one shape."""
    S = max(len(run) for run in runs)
    C = max(len(kinds) for run in runs for *_, kinds in run)
    R = len(runs)
    types = Types(np.zeros((R, S), np.int64), np.zeros((R, S)), np.zeros((R, S, C), np.int64), *np.zeros((2, R, S, C)))
    for r, run in enumerate(runs):
        for j, (y, weight, kinds) in enumerate(run):
            types.y[r, j], types.weight[r, j] = y, weight
            types.feature[r, j] = y
            for c, ((robust, strength), count) in enumerate(kinds.items()):
                types.feature[r, j, c] = y if robust else n_classes + y
                types.strength[r, j, c], types.count[r, j, c] = strength, count
    return types


def _merged(samples):
    """Samples with the same class and patches as one, weights added up; in order of first appearance."""
    held = {}
    for y, weight, kinds in samples:
        key = (y, tuple(sorted(kinds.items())))
        held[key] = held.get(key, 0.0) + weight
    return [(y, weight, dict(kinds)) for (y, kinds), weight in held.items()]


def empirical_types(y: ArrayLike, robust: ArrayLike, strength: ArrayLike, n_classes: int) -> Types:
    """The sample types of data: equal patches of a sample counted, equal samples weighted (1/N each).

    Parameters
    ----------
    y : int array, (N,) or (R, N)
    robust, strength : arrays, (N, P) or (R, N, P)
        As in :class:`advfeat.PatchData`.  With constant strengths and P_R fixed there are at most k types of two kinds,
        whatever N and P; with a strength of its own for every patch there are N types of P kinds.
    """
    y, robust = checks.array("y", y), checks.array("robust", robust)
    strength = checks.float64("strength", strength)
    if robust.shape != strength.shape or robust.shape[:-1] != y.shape or y.ndim not in (1, 2):
        raise ValueError(
            f"y, robust, strength have shapes {y.shape}, {robust.shape}, {strength.shape}: must be (N,), (N, P), (N, P)"
            " or the same with a leading runs axis"
        )
    k = checks.integer("n_classes", n_classes, 2)
    if not np.issubdtype(y.dtype, np.integer) or y.size == 0 or y.min() < 0 or y.max() >= k:
        raise ValueError(f"y = {checks.shown(y)}: must be integers in 0..{k - 1}, one per sample")
    if strength.shape[-1] == 0 or not np.isin(robust, (0, 1)).all():
        raise ValueError(f"robust has shape {robust.shape}: must be bool, at least one patch per sample")
    if not np.isfinite(strength).all():
        raise ValueError("strength holds NaN or infinite values: every strength must be finite")
    y, robust, strength = (a.reshape(-1, *a.shape[y.ndim - 1 :]) for a in (y, robust.astype(bool), strength))
    return _weighed(y, *_counted(robust, strength), k)


def _counted(robust, strength):
    """Kinds of patches of every sample, (R, N, C), as a robust kind or not, its strength and count: non-robust ones
    first, by strength; padding has strength and count 0 and is robust."""
    lowest, highest = (
        np.stack([function(strength, axis=-1, where=part, initial=start) for part in (~robust, robust)], axis=-1)
        for function, start in ((np.min, np.inf), (np.max, -np.inf))
    )
    if (lowest >= highest).all():  # one strength of either kind at most
        count = np.stack([(~robust).sum(axis=-1), robust.sum(axis=-1)], axis=-1)
        kind, value = np.broadcast_to(np.array([False, True]), count.shape), np.where(count > 0, lowest, 0.0)
    else:
        order = np.lexsort((strength, robust), axis=-1)
        kind, value = (np.take_along_axis(a, order, axis=-1) for a in (robust, strength))
        new = np.ones(kind.shape, bool)
        new[..., 1:] = (kind[..., 1:] != kind[..., :-1]) | (value[..., 1:] != value[..., :-1])
        place = np.cumsum(new, axis=-1) - 1
        shape = (*place.shape[:-1], place.max() + 1)
        sample = np.arange(place[..., 0].size).reshape(*shape[:-1], 1)
        count = np.bincount((sample * shape[-1] + place).ravel(), minlength=np.prod(shape)).reshape(shape)
        at = (*np.nonzero(new)[:-1], place[new])
        first, (kind, value) = (kind[new], value[new]), (np.ones(shape, bool), np.zeros(shape))
        kind[at], value[at] = first
    used = np.argsort(count == 0, axis=-1, kind="stable")[..., : (count > 0).sum(axis=-1).max()]  # padding last
    return (np.take_along_axis(a, used, axis=-1) for a in (np.where(count > 0, kind, True), value, count))


def _weighed(y, kind, value, count, k) -> Types:
    """Equal samples of a run as one, in order of first appearance, weights of 1/N added up."""
    (R, N), C = y.shape, kind.shape[-1]
    run = np.repeat(np.arange(R), N)
    rows = np.column_stack([run, y.ravel(), *(a.reshape(R * N, C) for a in (kind, value, count))])
    _, first, times = np.unique(rows, axis=0, return_index=True, return_counts=True)
    order = np.argsort(first)
    first, times = first[order], times[order]
    run = run[first]
    place = np.arange(len(first)) - np.searchsorted(run, run)
    shape, each = (R, place.max() + 1), (R, place.max() + 1, C)
    types = Types(np.zeros(shape, np.int64), np.zeros(shape), np.zeros(each, np.int64), *np.zeros((2, *each)))
    at, sample = (run, place), (run, first % N)
    types.y[at], types.weight[at] = y[sample], np.cumsum(np.full(N, 1 / N))[times - 1]
    types.feature[at] = types.y[at][:, None] + np.where(kind[sample], 0, k)
    types.strength[at], types.count[at] = value[sample], count[sample]
    return types


def population_types(
    n_classes: int,
    n_patches: int,
    n_robust: int,
    alpha: float | Law,
    beta: float | Law,
    *,
    partition: checks.Partition = "uniform",
    shared: bool = False,
    n_nodes: int = 24,
    n_points: int = 64,
    seeds: Sequence[int] = (0,),
) -> Types:
    """The sample types of the population: labels uniform, D_J as in :class:`advfeat.PatchDistribution`.

    Constant strengths are exact (k types, or k (P + 1) with a Bernoulli partition).  Random ones (`alpha`, `beta`
    frozen scipy.stats laws):

    - ``shared``: one strength per sample for its robust patches and one for the others.  A discrete law is exact; a
      continuous one is integrated by `n_nodes` Gauss-Legendre nodes in the quantile.
    - independent strengths couple through the logit into a P-dimensional integral: `n_points` scrambled Sobol points
      (a power of 2), one run per entry of `seeds`.  The spread over these runs gives the standard error; start all of
      them from one state (:func:`standard_error`).
    """
    from scipy import stats  # half a second to load: not at every start of the library

    k, P = checks.integer("n_classes", n_classes, 2), checks.integer("n_patches", n_patches, 1)
    P_R = checks.integer("n_robust", n_robust, 0)
    if P_R > P:
        raise ValueError(f"n_robust = {n_robust}: must be <= n_patches = {P}")
    checks.choice("partition", partition, checks.PARTITIONS)
    checks.truth("shared", shared)
    laws = checks.strengths("alpha", alpha), checks.strengths("beta", beta)
    numbers = np.arange(P + 1) if partition == "bernoulli" else np.array([P_R])
    shares = stats.binom.pmf(numbers, P, P_R / P) if partition == "bernoulli" else np.ones(1)
    parts = [(n, w / k) for n, w in zip(numbers.tolist(), shares.tolist()) if w > 0]
    if shared or not any(hasattr(law, "ppf") for law in laws):
        nodes = [_nodes(law, checks.integer("n_nodes", n_nodes, 1)) for law in laws]
        run = [
            (y, share * w_a * w_b, {key: n for key, n in (((True, a), n), ((False, b), P - n)) if n})
            for y in range(k)
            for n, share in parts
            for (a, w_a), (b, w_b) in product(*nodes)
        ]
        return _pack([_merged(run)], k)
    if checks.integer("n_points", n_points, 1) & (n_points - 1):
        raise ValueError(f"n_points = {n_points}: must be a power of 2")
    if P > stats.qmc.Sobol.MAXDIM:
        raise ValueError(f"n_patches = {P}: independent strengths need <= {stats.qmc.Sobol.MAXDIM}; see `shared`")
    runs = []
    for seed in checks.seeds(seeds, np.size(seeds), "seeds"):
        points = stats.qmc.Sobol(P, seed=np.random.default_rng(seed)).random(n_points)
        points = np.clip(points, np.finfo(float).tiny, 1 - np.finfo(float).eps / 2)
        values = [law.ppf(points) if hasattr(law, "ppf") else np.full(points.shape, law) for law in laws]
        run = []
        for y, (n, share), a, b in (
            (y, part, a, b) for y in range(k) for part in parts for a, b in zip(*(v.tolist() for v in values))
        ):
            kinds = {}
            for kind in [(True, s) for s in a[:n]] + [(False, s) for s in b[n:]]:
                kinds[kind] = kinds.get(kind, 0) + 1
            run.append((y, share / len(points), kinds))
        runs.append(run)
    return _pack(runs, k)


def _nodes(law, n):
    """Pairs (strength, weight) of a number, a discrete law or a continuous one."""
    if not hasattr(law, "ppf"):
        return [(law, 1.0)]
    if not hasattr(law, "pmf"):
        x, w = np.polynomial.legendre.leggauss(n)
        return list(zip(law.ppf((x + 1) / 2).tolist(), (w / 2).tolist()))
    values = getattr(getattr(law, "dist", law), "xk", None)  # scipy's laws of given values; others live on integers
    if values is None:
        low, high = law.ppf([1e-16, 1 - 1e-16])
        if high - low > MOST_VALUES:
            raise ValueError(f"a strength law has {high - low:.3g} values: must have at most {MOST_VALUES}")
        values = np.arange(low, high + 1)
    pairs = [(float(v), float(w)) for v, w in zip(values, law.pmf(values)) if w > 0]
    if abs(sum(w for _, w in pairs) - 1) > 1e-9:
        raise ValueError(f"a strength law has weight {sum(w for _, w in pairs):g} on its values: must be 1")
    return pairs


def standard_error(values: ArrayLike, axis: int = 0) -> Float64Array:
    """Standard error of the mean of independent (quasi-)Monte Carlo replicates along `axis`."""
    values = checks.float64("values", values)
    n = values.shape[checks.integer("axis", axis, -values.ndim, values.ndim - 1)] if values.ndim else 1
    if n < 2:
        raise ValueError(f"values have shape {values.shape}: must be two replicates or more along axis {axis}")
    return values.std(axis=axis, ddof=1) / np.sqrt(n)

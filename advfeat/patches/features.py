"""What is measured of a patch network and its data: correlations, feature learning accuracy, gaps between samples."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from ..core import checks
from ..core.types import Array, FeaturesLike, Float64Array, FloatArray, IntArray, Share
from .data import FeatureKind, PatchData


@runtime_checkable
class Neurons(Protocol):
    """What is asked of a patch network here, a `PatchCNN`."""

    @property
    def weights(self) -> FloatArray: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...

    def accuracy(self, X: ArrayLike, y: ArrayLike) -> Share: ...

    def drop_runs_axis(self, values: Array) -> Array: ...


def correlations(net: Neurons, features: FeaturesLike) -> dict[str, Float64Array]:
    """Weight-feature correlations (Sec. 5, 6.1) of a `PatchCNN`; `features` = (u, v).  Leading runs axis for a batch.

    Returns
    -------
    dict of float64 arrays
        ``A``, ``B`` (k, m): <w_{i,s}, u_i>, <w_{i,s}, v_i>; ``norm`` (k, m): |w_{i,s}|;
        ``off_u``, ``off_v`` (k, 2): minimum and maximum over s and j != i of <w_{i,s}, u_j>, <w_{i,s}, v_j>.
    """
    W = checks.instance("net", net, Neurons, "a PatchCNN").weights.astype(np.float64)
    k = net.shape[0]
    own, out = np.eye(k, dtype=bool), {}
    for name, f in zip(("A", "B"), checks.pair("features", features, k, net.shape[2])):
        f = checks.cast("features", f, np.float64)
        C = np.einsum("risj,lj->risl", W, f)
        out[name] = np.einsum("risi->ris", C).copy()
        others = [np.where(own[:, None], fill, C) for fill in (np.inf, -np.inf)]
        extremes = [others[0].min(axis=(2, 3)), others[1].max(axis=(2, 3))]
        out["off_u" if name == "A" else "off_v"] = np.stack(extremes, axis=-1)
    out["norm"] = np.linalg.norm(W, axis=-1)
    return {name: net.drop_runs_axis(value) for name, value in out.items()}


def smallest_gap(X: FloatArray, y: IntArray, block: int = 1 << 22) -> float:
    """min |X - X'|_inf over pairs of samples (n, P, d) with different labels (Sec. 2.5); inf where there is no pair.

    A pair is at least as far apart as at the largest coordinate of either of its samples.  Pairs are looked at in the
    order of this bound, in blocks of about `block` numbers, until it reaches the smallest gap found: n^2 + `block`
    numbers of memory, where all pairs at once take n^2 P d.
    """
    X = X.reshape(len(X), -1)
    there = X[:, np.abs(X).argmax(axis=1)]  # (n, n): sample i at the largest coordinate of sample j
    bound = np.abs(there - there.diagonal())
    i, j = np.nonzero(np.triu(y[:, None] != y))
    bound = np.maximum(bound[i, j], bound[j, i])
    order, found, step = np.argsort(bound), np.inf, max(block // X.shape[1], 1)
    for first in range(0, len(order), step):
        chosen = order[first : first + step]
        if bound[chosen[0]] >= found:
            break
        found = min(found, np.abs(X[i[chosen]] - X[j[chosen]]).max(axis=1).min())
    return float(found)


def strongest(C: FloatArray) -> FloatArray:
    """max_s of correlations (..., k, m) -> (..., k)."""
    return C.max(axis=-1)


def q_sum(C: FloatArray, q: int) -> FloatArray:
    """(sum_s (C_s)_+^q)^(1/q) of correlations (..., k, m) -> (..., k); the class's strength in the logit.  q <= 100."""
    checks.small_degree(q)
    return (np.maximum(C, 0) ** q).sum(axis=-1) ** (1 / q)


def normalized(C: FloatArray, norm: FloatArray) -> FloatArray:
    """mean_i max_s C_{i,s} / |w_{i,s}| (Sec. 6.1) of (..., k, m) -> (...)."""
    return (C / np.maximum(norm, np.finfo(float).tiny)).max(axis=-1).mean(axis=-1)


def feature_learning_accuracy(net: Neurons, data: PatchData, feature: FeatureKind) -> Share:
    """Def. 4.1: accuracy on data in which only the `feature` ("robust" or "non_robust") is left, noise included."""
    checks.instance("net", net, Neurons, "a PatchCNN")
    kept = checks.instance("data", data, PatchData, "a PatchData").representative(feature)
    return net.accuracy(kept.X, kept.y)

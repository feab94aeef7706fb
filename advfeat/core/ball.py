"""Balls of perturbations: projection, direction of steepest ascent, random points.  Arrays only.

A perturbation is ``delta (R, N, P, d)``, a radius ``eps (R, N)``.  With budget "patch" every patch has the radius of
its sample, with "global" all patches of a sample share it; for l_inf both are the same set.
"""

from typing import Literal, get_args

import numpy as np

Norm = Literal["linf", "l2", "l1"]
Budget = Literal["patch", "global"]
NORMS: tuple[Norm, ...] = get_args(Norm)
BUDGETS: tuple[Budget, ...] = get_args(Budget)
#: Lengths between them have squares that neither under- nor overflow, by dtype.
SQUARES = {np.dtype("float64"): (1e-140, 1e140), np.dtype("float32"): (1e-17, 1e17)}
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}  # NumPy's order of the dual norm


def _rows(delta, budget):
    """The vectors whose length is bounded, along the last axis."""
    P, d = delta.shape[-2:]
    return delta.reshape(*delta.shape[:-2], 1, P * d) if budget == "global" else delta


def length(delta, norm: str, budget: str = "patch") -> np.ndarray:
    """The largest norm of a sample's vectors, (R, N)."""
    return norms(_rows(delta, budget), norm).max(axis=-1)


def norms(rows, norm: str) -> np.ndarray:
    """The norms of the vectors along the last axis."""
    if norm == "l2":
        return _euclidean(rows)[..., 0]
    return np.linalg.norm(rows, {"linf": np.inf, "l1": 1}[norm], axis=-1)


def squared(size):
    """Whether squares of vectors of this length neither under- nor overflow."""
    low, high = SQUARES[np.asarray(size).dtype]
    return (size > low) & (size < high)


def _euclidean(rows):
    """l_2 norms (..., 1), also where squares under- or overflow."""
    with np.errstate(over="ignore"):
        size = np.linalg.norm(rows, axis=-1, keepdims=True)
    odd = ~squared(size)[..., 0]
    if odd.any():
        top = np.abs(rows[odd]).max(axis=-1, keepdims=True)
        top = np.where(top > 0, top, 1)
        size[odd] = top * np.linalg.norm(rows[odd] / top, axis=-1, keepdims=True)
    return size


def project(delta, eps, norm: str, budget: str = "patch") -> np.ndarray:
    """The nearest point of the ball: clip_eps, delta min(1, eps/|delta|), or for l_1 the soft threshold.

    l_1: sign(delta) max(|delta| - theta, 0) with the theta that gives length eps (Duchi et al. 2008).
    """
    eps = np.asarray(eps)[..., None, None]
    if norm == "linf":
        return np.clip(delta, -eps, eps)
    rows = _rows(delta, budget)
    if norm == "l2":
        size = _euclidean(rows)
        rows = rows * np.where(size > eps, eps / np.where(size > 0, size, 1), 1)
    else:
        outside = np.abs(rows).sum(axis=-1) > eps[..., 0]
        rows = rows.copy()
        rows[outside] = _soft_threshold(rows[outside], np.broadcast_to(eps[..., 0], outside.shape)[outside])
    return rows.reshape(delta.shape)


def shrink(delta, eps, norm: str, budget: str, allowed: float) -> np.ndarray:
    """delta (..., P, d), along its ray into the ball where longer than eps (...) by more than the share `allowed`."""
    rows, eps = _rows(delta, budget), np.asarray(eps)[..., None, None]
    size = norms(rows, norm)[..., None]
    return (rows * np.where(size > eps * (1 + allowed), eps / np.where(size > 0, size, 1), 1)).reshape(delta.shape)


def _soft_threshold(rows, eps):
    """Rows (M, n) longer than eps (M,) in l_1, projected to that length."""
    size = np.abs(rows)
    down = -np.sort(-size, axis=-1)
    excess = np.cumsum(down, axis=-1) - eps[:, None]
    count = np.arange(1, rows.shape[-1] + 1)
    last = np.maximum((down * count > excess).sum(axis=-1), 1)[:, None]
    theta = np.take_along_axis(excess, last - 1, -1) / last
    return np.sign(rows) * np.maximum(size - theta, 0)


def steepest(gradient, norm: str, budget: str = "patch") -> np.ndarray:
    """The unit vector of steepest ascent, 0 at 0: sign (l_inf), gradient/|gradient| (l_2), one coordinate (l_1).

    l_1: the first coordinate of largest absolute value, with its sign.
    """
    if norm == "linf":
        return np.sign(gradient)
    rows = _rows(gradient, budget)
    if norm == "l2":
        size = _euclidean(rows)
        return (rows / np.where(size > 0, size, 1)).reshape(gradient.shape)
    at = np.abs(rows).argmax(axis=-1)[..., None]
    out = np.zeros_like(rows)
    np.put_along_axis(out, at, np.sign(np.take_along_axis(rows, at, -1)), -1)
    return out.reshape(gradient.shape)


def random_point(rng: np.random.Generator, shape, eps: float, norm: str, budget: str = "patch") -> np.ndarray:
    """A uniform point of one sample's ball, (P, d)."""
    rows = (1, shape[0] * shape[1]) if budget == "global" and norm != "linf" else shape
    if norm == "linf":
        return rng.uniform(-eps, eps, shape)
    direction = rng.standard_normal(rows) if norm == "l2" else rng.laplace(size=rows)
    radius = eps * rng.random((rows[0], 1)) ** (1 / rows[1])
    return (radius * direction / np.linalg.norm(direction, 2 if norm == "l2" else 1, -1, keepdims=True)).reshape(shape)

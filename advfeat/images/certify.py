"""Certificates for networks of layers in evaluation mode: intervals, and the linear relaxation.

Let z range over the ball of radius eps around x, cut with the box.  *Intervals* (Gowal et al. 2018): every value lies
within r of c, and an affine layer takes (c, r) to (A c + b, |A| r).  The *linear relaxation* (CROWN: Zhang et al. 2018;
DeepPoly: Singh et al. 2019): where an input z of a ReLU lies in [l, u], l < 0 < u,

    alpha z <= sigma(z) <= u (z - l) / (u - l),      alpha = 1 where u > -l, else 0,

so that a lower bound of a . z_k in front of a layer is one behind it, back to the image, where its least value over
the ball is known exactly.  [l, u] are the better of intervals and of the relaxation itself.

Everything is computed in float64, and rounding is bounded, not neglected: a sum of n products is off by at most
n u / (1 - n u) of the sum of their magnitudes, u = 2^-53 (Higham 2002, Sec. 3.1).  Intervals move outwards by that.
The relaxation takes the coefficients a of a value to A^T a, off by no more than that share of |A|^T |a|.  Where
|x| <= m in front of A, the bound is then off by at most that share of |a| . (|A| m), which every layer takes from it:
coefficients may cancel.  What is certified is the network with its weights in exact arithmetic.
"""

from __future__ import annotations

from copy import copy
from typing import NamedTuple

import numpy as np

from ..core import checks
from ..kernels.layers import formulas
from .network import Network

UNIT = 2.0**-53  # float64's unit roundoff
ROWS_BYTES = 2**27  # of coefficients of one layer that are pulled back together
KINDS = ("convolution", "batch_norm", "normalise", "relu", "add", "sum_pool", "linear")
METHODS = ("interval", "linear")


class Box(NamedTuple):
    """Where a value lies: within `radius` of `centre`, (N, *shape) each."""

    centre: np.ndarray
    radius: np.ndarray

    @property
    def low(self):
        return self.centre - self.radius

    @property
    def high(self):
        return self.centre + self.radius

    @property
    def size(self):
        """What no magnitude exceeds."""
        return np.abs(self.centre) + self.radius

    @classmethod
    def between(cls, low, high, slack: float) -> Box:
        """What lies between `low` and `high`, however its own middle is rounded."""
        centre = (low + high) / 2
        return cls(centre, (high - low) / 2 * (1 + slack) + slack * np.abs(centre))


class Affine:
    """An operation other than a ReLU as z -> A z + b; `terms` of b are the magnitudes that it was made of."""

    def __init__(self, net: Network, number: int):
        operation = net.program.operations[number]
        arrays = [net.arrays()[name].astype(np.float64) for name in operation.arrays]
        self.kind, self.options = operation.kind, operation.options
        self.sides = net.program.shapes[operation.inputs[0]]
        self.A, self.b = (arrays[0] if arrays else None), (arrays[1] if len(arrays) == 2 else None)
        self.terms = None if self.b is None else np.abs(self.b)
        if self.kind == "batch_norm":
            weight, bias, mean, variance = arrays
            self.A = weight / np.sqrt(variance + operation.options["eps"])
            self.b, self.terms = bias - mean * self.A, np.abs(bias) + np.abs(mean * self.A)
        elif self.kind == "normalise":
            self.A = 1 / np.asarray(operation.options["deviation"], np.float64)
            self.b = -np.asarray(operation.options["mean"], np.float64) * self.A
            self.terms = np.abs(self.b)

    def apply(self, X, A=None):
        """A X; with another array in the place of A."""
        A, o = self.A if A is None else A, self.options
        if self.kind == "convolution":
            return formulas.convolution(X, A, o["stride"], o["padding"])
        if self.kind in ("batch_norm", "normalise"):
            return X * A.reshape(-1, *[1] * (X.ndim - 2))
        if self.kind == "linear":
            return formulas.linear(X, A)
        return formulas.sum_pool(X, o["size"]) * o["scale"]

    def back(self, G):
        """A^T G."""
        o = self.options
        if self.kind == "convolution":
            return formulas.convolution_input_gradient(G, self.A, o["stride"], o["padding"], self.sides[1:])
        if self.kind in ("batch_norm", "normalise"):
            return self.apply(G)
        if self.kind == "linear":
            return formulas.linear_input_gradient(G, self.A, self.sides)
        return formulas.sum_pool_gradient(G, self.sides[1:], o["size"]) * o["scale"]

    def moved(self, values, by):
        """values + b, with another array in the place of b; nothing is added where there is none."""
        return values if by is None else values + by.reshape(-1, *[1] * (values.ndim - 2))

    def reach(self, size):
        """|A| size + |b|, term by term."""
        return self.moved(self.apply(size, None if self.A is None else np.abs(self.A)), self.terms)

    def box(self, box: Box, slack: float) -> Box:
        centre = self.moved(self.apply(box.centre), self.b)
        radius = self.apply(box.radius, None if self.A is None else np.abs(self.A))
        return Box(centre, radius + slack * self.reach(box.size))


class Relaxation(NamedTuple):
    """low_slope z + low_move <= sigma(z) <= high_slope z + high_move, of a ReLU's input in a box."""

    low_slope: np.ndarray
    low_move: np.ndarray
    high_slope: np.ndarray
    high_move: np.ndarray


def relaxed(box: Box, q: int, rho: float) -> Relaxation:
    """Of sigma, a convex function: above it the chord over [l, u], below it a tangent (at 0, or at the end where
    the box is on one side; of a smoothed ReLU in the middle)."""
    low, high = box.low, box.high
    at_low, at_high = formulas.relu(low, q, rho), formulas.relu(high, q, rho)
    wide = high > low
    slope = np.where(wide, (at_high - at_low) / np.where(wide, high - low, 1), formulas.sigma_prime(high, q, rho))
    if q == 1:
        tangent = np.where(low >= 0, 1.0, np.where(high <= 0, 0.0, high > -low))
        move = np.zeros_like(low)
    else:
        tangent = formulas.sigma_prime(box.centre, q, rho)
        move = formulas.relu(box.centre, q, rho) - tangent * box.centre
    return Relaxation(tangent, move, slope, at_low - slope * low)


class Bounds:
    """The boxes of all values of some images, and bounds of linear functions of them.

    Parameters
    ----------
    X : (N, C, H, W); eps : float, (N,) or one number; norm : "linf" or "l2" of the whole image
    method : "interval", or "linear", which tightens the boxes of ReLUs' inputs by the relaxation.
    """

    def __init__(self, net: Network, X, eps, norm: str = "linf", method: str = "linear"):
        checks.choice("method", method, METHODS)
        self.net, self.norm, self.program = net, checks.choice("norm", norm, ("linf", "l2")), net.program
        X = X.astype(np.float64)
        self.X, self.eps = X, np.broadcast_to(np.asarray(eps, np.float64), len(X)).reshape(-1, 1, 1, 1)
        # No sum has more terms than the largest value has numbers, or there are layers; twice that, and some more for
        # the few roundings beside.
        terms = max(int(np.prod(shape)) for shape in self.program.shapes) + len(self.program.operations)
        self.slack = slack = 2 * UNIT * (terms + 64)
        low, high = X - self.eps, X + self.eps
        if net.box is not None:
            low, high = np.maximum(low, net.box[0]), np.minimum(high, net.box[1])
            low, high = np.minimum(low, X), np.maximum(high, X)  # a box of 0.1 ends below float32's 0.1
        self.boxes = [Box.between(low, high, slack)]
        self.affine, self.relaxations, self.reach, bent = {}, {}, {}, False
        for number, operation in enumerate(self.program.operations):
            box = self.boxes[operation.inputs[0]]
            if operation.kind == "relu":
                q, rho = operation.options["q"], operation.options["rho"]
                if method == "linear" and bent:
                    box = self.boxes[operation.inputs[0]] = self.tightened(operation.inputs[0], box)
                r, bent = relaxed(box, q, rho), True
                self.relaxations[number] = r
                low, high = formulas.relu(box.low, q, rho), formulas.relu(box.high, q, rho)
                self.boxes.append(Box.between(low, high, slack))
                steepest = np.maximum(r.low_slope, r.high_slope)
                self.reach[number] = steepest * box.size + np.abs(r.low_move) + np.abs(r.high_move) + high
            elif operation.kind == "add":
                other = self.boxes[operation.inputs[1]]
                radius = box.radius + other.radius
                self.boxes.append(Box(box.centre + other.centre, radius + slack * (box.size + other.size)))
            else:
                affine = self.affine[number] = Affine(net, number)
                self.reach[number], box = affine.reach(box.size), affine.box(box, slack)
                if norm == "l2" and operation.inputs[0] == 0 and operation.kind in ("convolution", "linear"):
                    squares = affine.apply(np.ones_like(X), affine.A**2)
                    exact = self.eps.reshape(-1, *[1] * (squares.ndim - 1)) * np.sqrt(squares) * (1 + slack)
                    centre, exact = affine.moved(affine.apply(X), affine.b), exact + slack * affine.reach(np.abs(X))
                    box = _better(box, centre - exact, centre + exact, slack)
                self.boxes.append(box)

    def tightened(self, v: int, box: Box) -> Box:
        """The box of value v by the relaxation, of those of its numbers that may have either sign."""
        low, high = box.low.reshape(len(self.X), -1), box.high.reshape(len(self.X), -1)
        either = np.flatnonzero(((low < 0) & (high > 0)).any(axis=0))
        size, shape = low.shape[1], box.centre.shape[1:]
        largest = max(int(np.prod(s)) for s in self.program.shapes)
        rows = max(ROWS_BYTES // (8 * largest * len(self.X)), 1)
        low, high = low.copy(), high.copy()
        for first in range(0, len(either), rows):
            some = either[first : first + rows]
            A = np.zeros((len(some), size))
            A[np.arange(len(some)), some] = 1
            A = A.reshape(len(some), *shape)
            low[:, some] = np.maximum(low[:, some], self.least(v, A))
            high[:, some] = np.minimum(high[:, some], -self.least(v, -A))
        return Box.between(*(a.reshape(box.centre.shape) for a in (low, np.maximum(high, low))), self.slack)

    def least(self, v: int, A) -> np.ndarray:
        """A lower bound of sum A_m . (value v) over the ball, for every row m: A (M, *shape) -> (N, M)."""
        N, M = len(self.X), len(A)
        held = {v: np.broadcast_to(A, (N, *A.shape)).reshape(N * M, *A.shape[1:])}
        constant, size = np.zeros((N, M)), np.zeros((N, M))

        def along(G, values):
            """sum of G times values for every image and row."""
            return (G.reshape(N, M, -1) @ values.reshape(N, -1, 1))[..., 0]

        for number in reversed(range(v)):
            G = held.pop(number + 1, None)
            if G is None:
                continue
            operation = self.program.operations[number]
            if operation.kind != "add":
                size += along(np.abs(G), self.reach[number])
            if operation.kind == "relu":
                r = self.relaxations[number]
                up, down = np.maximum(G, 0).reshape(N, M, *G.shape[1:]), np.minimum(G, 0).reshape(N, M, *G.shape[1:])
                constant += along(up, r.low_move) + along(down, r.high_move)
                G = (up * r.low_slope[:, None] + down * r.high_slope[:, None]).reshape(G.shape)
            elif operation.kind != "add":
                affine = self.affine[number]
                if affine.b is not None:
                    constant += G.reshape(N, M, len(affine.b), -1).sum(axis=-1) @ affine.b
                G = affine.back(G)
            for u in operation.inputs:
                held[u] = held[u] + G if u in held else G
        G = held.pop(0, None)
        if G is None:
            return constant - self.slack * size
        box, G = self.boxes[0], G.reshape(N, M, -1)
        centre, radius = box.centre.reshape(N, -1, 1), box.radius.reshape(N, -1, 1)
        within = ((G @ centre) - np.abs(G) @ radius)[..., 0]
        if self.norm == "l2":
            x = (G @ self.X.reshape(N, -1, 1))[..., 0]
            within = np.maximum(within, x - self.eps.reshape(N, 1) * np.linalg.norm(G, axis=-1))
        size += along(np.abs(G), box.size)
        return within + constant - self.slack * size

    def least_by_intervals(self, A) -> np.ndarray:
        """`least` of the logits by the box of what the last layer reads: A (M, k) -> (N, M)."""
        number = self.program.logits - 1
        box, affine = self.boxes[self.program.operations[number].inputs[0]], self.affine[number]
        G = A @ affine.A
        centre, radius = (a.reshape(len(a), -1) for a in box)
        move = 0.0 if affine.b is None else A @ affine.b
        return centre @ G.T - radius @ np.abs(G).T + move - self.slack * (self.reach[number] @ np.abs(A).T)

    def of_images(self, rows) -> Bounds:
        """The same of some of the images."""
        part = copy(self)
        part.X, part.eps = self.X[rows], self.eps[rows]
        part.boxes = [Box(*(a[rows] for a in box)) for box in self.boxes]
        part.reach = {n: a[rows] for n, a in self.reach.items()}
        part.relaxations = {n: Relaxation(*(a[rows] for a in r)) for n, r in self.relaxations.items()}
        return part


def _better(box: Box, low, high, slack: float) -> Box:
    low, high = np.maximum(box.low, low), np.minimum(box.high, high)
    return Box.between(low, np.maximum(low, high), slack)


def margin_bound(net: Network, X, y, eps, *, norm: str = "linf", method: str = "linear") -> np.ndarray:
    """A lower bound of F_y - max_{j != y} F_j over the ball around every image, (N,) float64; > 0: certified.

    X (N, C, H, W), y (N,), eps one number or one per image.  "interval" pulls nothing back but the last layer, whose
    difference of two logits is bounded as one linear function; "linear" costs seconds per image where a layer has
    thousands of numbers whose ReLU may go either way.
    """
    for operation in net.program.operations:
        checks.choice("layer", operation.kind, KINDS)
    X, y = (a[0] for a in net.check(X, y))
    eps, out = np.broadcast_to(np.asarray(eps, np.float64), len(X)), np.empty(len(X))
    largest = max(int(np.prod(shape)) for shape in net.program.shapes)
    n = max(min(ROWS_BYTES // (8 * largest * 8), 32), 1)
    for first in range(0, len(X), n):
        some = slice(first, first + n)
        bounds = Bounds(net, X[some], eps[some], norm, method)
        last, k = net.program.logits, net.n_classes
        low = np.empty((len(X[some]), k))
        for label in np.unique(y[some]):
            rows = np.flatnonzero(y[some] == label)
            A = np.eye(k)[[label] * k] - np.eye(k)
            part = bounds.of_images(rows)
            low[rows] = part.least(last, A) if method == "linear" else part.least_by_intervals(A)
            low[rows, label] = np.inf
        out[some] = low.min(axis=1)
    return out

"""One patch and its ball for :mod:`advfeat.kernels.cpu.branch_and_bound`: products, activation, chords, norms, steps.

Sums over coordinates may be taken in any order (`REORDER`): the bounds' slack covers every order, and one compiled
kernel always takes the same.  Rows are passed as a matrix and an index, since a view costs two atomic counts.
"""

import math
from typing import NamedTuple

import numpy as np

from ..branch_and_bound import HALVINGS
from ..formulas import L1, L2, LINF
from ..jit import part

REORDER = {"reassoc", "contract"}


class CompiledPatchProblem(NamedTuple):
    """One patch: the rows of weights that belong to label and rival, and what delta may be."""

    up: int
    down: int
    eps: float
    penalty: float
    norm: int
    q: int
    rho: float
    pad_h: float
    pad_z: float
    n_steps: int
    n_rounds: int


class Joint(NamedTuple):
    """One thread's memory for kernels/joint.py; state: M, what is added to pad_h, sweeps to be done."""

    dense: np.ndarray
    A: np.ndarray
    Y: np.ndarray
    G: np.ndarray
    squares: np.ndarray
    s: np.ndarray
    state: np.ndarray


class Pool(NamedTuple):
    """One thread's memory: nodes (n, ...), vectors of neurons Z (rows, m) and of coordinates D (rows, d)."""

    bound: np.ndarray
    bent: np.ndarray  # whether nodes have parabolas (kernels/joint.py)
    low: np.ndarray
    high: np.ndarray
    delta: np.ndarray
    Z: np.ndarray
    D: np.ndarray
    joint: Joint


# rows of Pool.Z and Pool.D; kernels are compiled anew per literal, and these are none
UP, DOWN, T, DT, SLOPE, CHORD, REST, PARABOLA, R, DR = map(np.int64, range(10))
GRADIENT, RIVAL, VERTEX, MOVE, POINT, MINORANT, LAST, BEFORE, BENT = map(np.int64, range(9))
NONE = np.int64(-1)


@part(fastmath=REORDER)
def dot(A, i, B, j):
    total = 0.0
    for c in range(A.shape[1]):
        total += A[i, c] * B[j, c]
    return total


@part(fastmath=REORDER)
def images(out, i, start, W, a, D, j):
    """out[i] = start + W[a] @ D[j]; start is a row of `out`, or none if negative."""
    for r in range(W.shape[1]):
        total = 0.0
        for c in range(W.shape[2]):
            total += W[a, r, c] * D[j, c]
        out[i, r] = total + (out[start, r] if start >= 0 else 0.0)


@part(fastmath=REORDER)
def pull(D, i, W, a, Z, j):
    """D[i] = Z[j] @ W[a], four neurons at a time."""
    m, d = W.shape[1], W.shape[2]
    for c in range(d):
        D[i, c] = 0.0
    for r in range(0, m // 4 * 4, 4):
        g0, g1, g2, g3 = Z[j, r], Z[j, r + 1], Z[j, r + 2], Z[j, r + 3]
        for c in range(d):
            D[i, c] += (g0 * W[a, r, c] + g1 * W[a, r + 1, c]) + (g2 * W[a, r + 2, c] + g3 * W[a, r + 3, c])
    for r in range(m // 4 * 4, m):
        for c in range(d):
            D[i, c] += Z[j, r] * W[a, r, c]


# ------------------------------------------------------------------ the activation
@part
def sigma(z, q, rho):
    x = min(max(z / rho, 0.0), 1.0)
    power = x
    for _ in range(q - 1):
        power *= x
    return rho / q * power + max(z - rho, 0.0)


@part
def sigma_prime(z, q, rho):
    x = min(max(z / rho, 0.0), 1.0)
    power = x
    for _ in range(q - 2):
        power *= x
    return power


@part
def chord(low, high, q, rho):
    at_low, at_high = sigma(low, q, rho), sigma(high, q, rho)
    if high - low > 1e-9 * (abs(low) + abs(high)):
        slope = min(max((at_high - at_low) / (high - low), 0.0), 1.0)
    else:
        slope = sigma_prime(low, q, rho)
    return slope, max(at_low - slope * low, at_high - slope * high)


@part
def height(low, high, q, rho):
    """How far the chord lies above sigma in the middle of the range's positive part."""
    middle = (max(low, 0.0) + high) / 2
    slope, offset = chord(low, high, q, rho)
    return slope * middle + offset - sigma(middle, q, rho)


# ------------------------------------------------------------------ the ball
@part
def supported(size, norm, eps, penalty):
    """S(v) from the dual norm of v."""
    if norm == L1:
        return eps * max(size - penalty, 0.0)
    if norm == L2 and size < 2 * penalty * eps:
        return size / 4 * (size / penalty)
    return eps * size - (penalty * eps * eps if norm == L2 else 0.0)


@part(fastmath=REORDER)
def dual_shifted(W, a, r, sign, mu, D, i, norm):
    """The dual norm of sign * W[a, r] - mu D[i]."""
    total = 0.0
    if norm == LINF:
        for c in range(D.shape[1]):
            total += abs(sign * W[a, r, c] - mu * D[i, c])
    elif norm == L2:
        for c in range(D.shape[1]):
            x = sign * W[a, r, c] - mu * D[i, c]
            total += x * x
        total = math.sqrt(total)
    else:
        for c in range(D.shape[1]):
            total = max(total, abs(sign * W[a, r, c] - mu * D[i, c]))
    return total


@part(fastmath=REORDER)
def dual(D, i, norm):
    total = 0.0
    if norm == LINF:
        for c in range(D.shape[1]):
            total += abs(D[i, c])
    elif norm == L2:
        for c in range(D.shape[1]):
            total += D[i, c] * D[i, c]
        total = math.sqrt(total)
    else:
        for c in range(D.shape[1]):
            total = max(total, abs(D[i, c]))
    return total


@part(fastmath=REORDER)
def psi(D, i, norm):
    total = 0.0
    for c in range(D.shape[1]):
        total += abs(D[i, c]) if norm == L1 else D[i, c] * D[i, c]
    return total


@part
def away(D, i, size, p):
    """D[VERTEX] = a delta that attains S(-D[i]); `size` is the dual norm of D[i]."""
    d = D.shape[1]
    if p.norm == LINF:
        for c in range(d):
            D[VERTEX, c] = -p.eps if D[i, c] > 0.0 else p.eps if D[i, c] < 0.0 else 0.0
    elif p.norm == L2:
        scale = 0.0
        if size < 2 * p.penalty * p.eps:
            scale = -1 / (2 * p.penalty)
        elif size > 0.0:
            scale = -p.eps / size
        for c in range(d):
            D[VERTEX, c] = scale * D[i, c]
    else:
        found = size <= p.penalty
        for c in range(d):
            D[VERTEX, c] = 0.0
            if not found and abs(D[i, c]) == size:
                D[VERTEX, c] = -p.eps if D[i, c] > 0.0 else p.eps
                found = True


@part
def aim(D, p, points, n, first):
    """`search.aim` from points[n], whose gradient is D[GRADIENT], to D[VERTEX]."""
    away(D, GRADIENT, dual(D, GRADIENT, p.norm), p)
    d, square, bent = D.shape[1], 0.0, 0.0
    for i in range(d):
        if p.norm == L2:
            D[GRADIENT, i] += 2 * p.penalty * points[n, i]
        moved = points[n, i] - D[BEFORE, i]
        square += moved * moved
        bent += moved * (D[GRADIENT, i] - D[LAST, i])
    for i in range(d):
        D[LAST, i], D[BEFORE, i] = D[GRADIENT, i], points[n, i]
    if first or not bent > 0.0:
        return
    length = square / bent
    for i in range(d):
        D[VERTEX, i] = points[n, i] - length * D[GRADIENT, i]
    if p.norm == LINF:
        for i in range(d):
            D[VERTEX, i] = min(max(D[VERTEX, i], -p.eps), p.eps)
    elif p.norm == L2:
        size = dual(D, VERTEX, L2)
        for i in range(d):
            D[VERTEX, i] *= p.eps / size if size > p.eps else 1.0
    else:
        low = length * p.penalty
        high = max(low, dual(D, VERTEX, L1))
        if beyond(D, low) > p.eps:
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                if beyond(D, middle) > p.eps:
                    low = middle
                else:
                    high = middle
            low = high
        for i in range(d):
            size = max(abs(D[VERTEX, i]) - low, 0.0)
            D[VERTEX, i] = size if D[VERTEX, i] > 0.0 else -size


@part
def beyond(D, threshold):
    total = 0.0
    for i in range(D.shape[1]):
        total += max(abs(D[VERTEX, i]) - threshold, 0.0)
    return total

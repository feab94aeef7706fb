"""Parabolas and their diagonal (:mod:`advfeat.kernels.joint`) for :mod:`advfeat.kernels.cpu.branch_and_bound`."""

import math

import numpy as np

from ..branch_and_bound import UNIT_ROUNDOFF
from ..formulas import L2
from ..jit import part
from ..joint import ALONG_AN_AXIS, COLUMNS, FIRST_SWEEPS, LEAST, MORE, MOST, SQUARINGS, SWEEPS
from .patch import BENT, DOWN, GRADIENT, PARABOLA, REORDER, SLOPE, Joint, R, images, pull, sigma
from .tiles import I0


@part
def joint_memory(m, d, on):
    """A thread's memory for parabolas; next to none where they are not used."""
    m, d = (m, d) if on else (1, 1)
    squares = np.empty((2, m, m))
    rows = np.empty((d, COLUMNS)), np.empty((m + 1, COLUMNS))
    return Joint(np.zeros(m), np.empty((m, d)), *rows, squares, np.empty(d), np.zeros(3))


@part
def offer(W, down, j, Y):
    """Mark the dense neurons, and begin anew with Y; whether there are any."""
    found = False
    for r in range(W.shape[1]):
        total = largest = 0.0
        for c in range(W.shape[2]):
            size = abs(W[down, r, c])
            total, largest = total + size, max(largest, size)
        j.dense[r] = 1.0 if largest < ALONG_AN_AXIS * total else 0.0
        found = found or largest < ALONG_AN_AXIS * total
    for i in range(Y.shape[0]):
        for c in range(COLUMNS):
            j.Y[i, c] = Y[i, c]
    j.state[2] = FIRST_SWEEPS
    return found


@part
def curvature(dense, low, high, q, rho):
    """`joint.curvature` of one neuron."""
    if not (dense > 0.0 and low < 0.0 and high > 0.0):
        return 0.0
    top = min(high, 2 * (1 - 1 / q) * rho)
    gamma = sigma(top, q, rho) / (top * top) * MORE
    return gamma if LEAST * LEAST < gamma < math.inf else 0.0


@part
def largest_eigenvalue(M, n, d):
    """Of M[0, :n, :n], sums of d products, which is lost."""
    trace = 0.0
    for a in range(n):
        trace += M[0, a, a]
    bound, here = trace, 0
    for k in range(SQUARINGS + 1):
        scale = 1 / trace
        for a in range(n):
            for b in range(n):
                M[here, a, b] *= scale
        if k == SQUARINGS:
            break
        trace = 0.0
        for a in range(n):
            for b in range(n):
                M[1 - here, a, b] = 0.0
            for c in range(n):
                factor = M[here, a, c]
                for b in range(n):
                    M[1 - here, a, b] += factor * M[here, c, b]
            trace += M[1 - here, a, a]
        bound *= trace ** (0.5 ** (k + 1))
        here = 1 - here
    return bound * max(MORE, 1 + 16 * n * (n + d) * UNIT_ROUNDOFF)


@part(fastmath=REORDER)
def product(A, a, b, s):
    """sum_i A[a, i] A[b, i] / s[i]"""
    total = 0.0
    for i in range(A.shape[1]):
        total += A[a, i] * A[b, i] / s[i]
    return total


@part
def sweep(j, n):
    """G <- A Y, Y <- A^T G with rows of length 1, s their lengths before; rows of length 0 stay what they were."""
    new = len(j.G) - 1
    for a in range(n):
        for c in range(COLUMNS):
            j.G[a, c] = 0.0
        for i in range(j.A.shape[1]):
            factor = j.A[a, i]
            for c in range(COLUMNS):
                j.G[a, c] += factor * j.Y[i, c]
    for i in range(j.A.shape[1]):
        for c in range(COLUMNS):
            j.G[new, c] = 0.0
        for a in range(n):
            factor = j.A[a, i]
            for c in range(COLUMNS):
                j.G[new, c] += factor * j.G[a, c]
        square = 0.0
        for c in range(COLUMNS):
            square += j.G[new, c] * j.G[new, c]
        j.s[i] = math.sqrt(square)
        if square > 0.0:
            for c in range(COLUMNS):
                j.Y[i, c] = j.G[new, c] / j.s[i]


@part
def majorise(W, sizes, p, w, n, length):
    """`Search.bend` for node n: gamma in Z[PARABOLA], s, state[0] = M, state[1] what rounding adds to pad_h; whether
    there are parabolas."""
    j, d, count, size = w.joint, W.shape[2], I0, 0.0
    weighted = 0.0
    for r in range(W.shape[1]):
        gamma = curvature(j.dense[r], w.low[n, r], w.high[n, r], p.q, p.rho)
        w.Z[PARABOLA, r] = gamma
        if gamma > 0.0:
            root = math.sqrt(gamma)
            for c in range(d):
                j.A[count, c] = root * W[p.down, r, c]
                size = max(size, abs(j.A[count, c]))
            count += 1
            reach = sizes[0, p.down, r] * length + p.eps * sizes[1, p.down, r]
            weighted += gamma * reach * reach
    j.state[1] = 0.0
    if not LEAST < size < MOST:
        return False
    for a in range(count):
        for c in range(d):
            j.A[a, c] /= size
    if p.norm == L2:
        for c in range(d):
            j.s[c] = 1.0
    else:
        for _ in range(int(j.state[2])):
            sweep(j, count)
        j.state[2] = SWEEPS
        top = 0.0
        for c in range(d):
            top = max(top, j.s[c])
        for c in range(d):
            j.s[c] = max(j.s[c], 1e-9 * top)
    for a in range(count):
        for b in range(count):
            j.squares[0, a, b] = product(j.A, a, b, j.s)
    factor = largest_eigenvalue(j.squares, count, d)
    factor = (factor if p.norm == L2 else max(factor, 1.0)) * (size * size * MORE)
    total = 0.0
    for c in range(d):
        j.s[c] *= factor
        total += j.s[c]
    j.state[0] = (j.s[0] if p.norm == L2 else total) * p.eps * p.eps
    unit = 16 * (d + 2 * W.shape[1] + p.q + 16) * UNIT_ROUNDOFF
    j.state[1] = unit * (2 * weighted + 8 * j.state[0])
    if not j.state[1] < math.inf:
        j.state[1] = 0.0
        return False
    return True


@part
def bent_gradient(W, p, w, n):
    """The parabolas' and their diagonal's share of the gradient at node n's delta, added to it, and of the offset."""
    images(w.Z, R, DOWN, W, p.down, w.delta, n)
    offset = -w.joint.state[0]
    for r in range(w.Z.shape[1]):
        w.Z[SLOPE, r] = 2 * w.Z[PARABOLA, r] * w.Z[R, r]
        offset += w.Z[PARABOLA, r] * w.Z[R, r] * (w.Z[R, r] - 2 * w.Z[DOWN, r])
    pull(w.D, BENT, W, p.down, w.Z, SLOPE)
    for i in range(w.D.shape[1]):
        here = w.joint.s[i] * w.delta[n, i]
        w.D[GRADIENT, i] += 2 * here - w.D[BENT, i]
        offset -= here * w.delta[n, i]
    return offset

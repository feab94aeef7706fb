"""The caps of :mod:`advfeat.kernels.caps` class by class: sets are listed once, then eight patches at a time pass them.

Sets of a block are pairs of a part of its few and a part of its many neurons.  For every part of the many the largest
of eps |.|_* + few_v over the parts of the few of one size is kept: the innermost loop is over neighbours in memory.
"""

import math

import numpy as np

from ..branch_and_bound import ROOT, TINY, UNIT_ROUNDOFF
from ..caps import HALVINGS
from ..formulas import L2, LINF
from ..jit import jit, part
from .patch import REORDER, dot, sigma

LANES = 8  # patches at a time


@part
def ones(s):
    """How many bits of s are set."""
    count = 0
    while s > 0:
        s &= s - 1
        count += 1
    return count


@part
def lowest(s):
    """The number of the lowest bit that is set."""
    bit = 0
    while not (s >> bit) & 1:
        bit += 1
    return bit


@part
def sums(out, V, rows, first, n):
    """out[s] = the sum of the rows V[rows[first + bit]] of the bits set in s, for s < 2^n."""
    for c in range(V.shape[1]):
        out[0, c] = 0.0
    for s in range(1, 1 << n):
        r, before = rows[first + lowest(s)], s & (s - 1)
        for c in range(V.shape[1]):
            out[s, c] = out[before, c] + V[r, c]


@part(fastmath=REORDER)
def size_of_sum(A, i, B, j, V, r, weight, norm):
    """The dual norm of A[i] + B[j] + weight V[r]."""
    total = 0.0
    if norm == LINF:
        for c in range(A.shape[1]):
            total += abs(A[i, c] + B[j, c] + weight * V[r, c])
    elif norm == L2:
        for c in range(A.shape[1]):
            x = A[i, c] + B[j, c] + weight * V[r, c]
            total += x * x
        total = math.sqrt(total)
    else:
        for c in range(A.shape[1]):
            total = max(total, abs(A[i, c] + B[j, c] + weight * V[r, c]))
    return total


@part
def keep(top, p, g, i, n, eps, start):
    """top[p, j] = max(top[p, j], start + eps g[i, j]), j < n."""
    for j in range(n):
        here = start + eps * g[i, j]
        top[p, j] = here if here > top[p, j] else top[p, j]


@part
def largest(F, top, g, few_v, many_v, eps, members, n_few, n_many):
    """F[p, k] = max over sets of k members of few_v + many_v + eps g, for the patches p of a group."""
    for p in range(F.shape[0]):
        for k in range(F.shape[1]):
            F[p, k] = -math.inf
    for size in range(n_few + 1):
        for p in range(F.shape[0]):
            for j in range(1 << n_many):
                top[p, j] = -math.inf
        for i in range(1 << n_few):
            if members[i] == size:
                for p in range(F.shape[0]):
                    keep(top, p, g, i, 1 << n_many, eps[p], few_v[p, i])
        for p in range(F.shape[0]):
            for j in range(1 << n_many):
                k = size + members[j]
                F[p, k] = max(F[p, k], top[p, j] + many_v[p, j])


@part
def of_steps(F, corners, pad, q, rho):
    """sum_n sigma(g_n + 2 pad), g_n the steps of the least concave sequence above F[0] <- 0, F[1], ..., F[-1]."""
    F[0] = 0.0
    corners[0], count = 0, 1
    for n in range(1, len(F)):
        while count > 1:
            before, last = corners[count - 2], corners[count - 1]
            if (F[last] - F[before]) * (n - last) > (F[n] - F[last]) * (last - before):
                break
            count -= 1
        corners[count] = n
        count += 1
    total = 0.0
    for i in range(1, count):
        n = corners[i] - corners[i - 1]
        total += n * sigma((F[corners[i]] - F[corners[i - 1]]) / n + 2 * pad, q, rho)
    return total


@part
def above(F, led, p, a, b, weight, pad, q, rho, line, corners):
    """The bound where the leader's preactivation is between a and b."""
    for n in range(1, len(line)):
        line[n] = min(F[p, n], led[p, n] - weight * a)
    return sigma(b, q, rho) + of_steps(line, corners, pad, q, rho)


@part
def with_leader(F, led, p, low, high, weight, pad, q, rho, line, corners, ends, bounds):
    """The largest bound over the leader's range, halved where it is largest."""
    ends[0, 0], ends[0, 1], count = low, high, 1
    bounds[0] = above(F, led, p, low, high, weight, pad, q, rho, line, corners)
    for _ in range(HALVINGS):
        i = 0
        for other in range(1, count):
            if bounds[other] > bounds[i]:
                i = other
        a, b = ends[i, 0], ends[i, 1]
        middle = (a + b) / 2
        if not a < middle < b:
            break
        ends[i, 1], ends[count, 0], ends[count, 1] = middle, middle, b
        bounds[i] = above(F, led, p, a, middle, weight, pad, q, rho, line, corners)
        bounds[count] = above(F, led, p, middle, b, weight, pad, q, rho, line, corners)
        count += 1
    most = bounds[0]
    for other in range(1, count):
        most = max(most, bounds[other])
    return most


@jit
def caps(
    lo, hi, _, W, sizes, X, firsts, order, rows, eps, neurons, weights, block_ends, norm, q, rho, found
):  # fmt: skip
    """Of classes lo to hi - 1: patches order[firsts[c] : firsts[c + 1]] of `rows` (patch, class's row of W).

    W (R k, m, d), sizes (2, R k, m) its l_2 and dual norms; neurons (R k, m), weights (R k,) as in `caps.Blocks`.
    """
    m, d = W.shape[1], W.shape[2]
    most, begin = 0, 0
    for end in block_ends:
        most, begin = max(most, end - begin), end
    n_few = most // 2
    n_many = most - n_few
    few, many = np.empty((1 << n_few, d)), np.empty((1 << n_many, d))
    alone, led_size = np.empty((1 << n_few, 1 << n_many)), np.empty((1 << n_few, 1 << n_many))
    few_v, many_v = np.empty((LANES, 1 << n_few)), np.empty((LANES, 1 << n_many))
    members, top = np.empty(1 << n_many, np.int64), np.empty((LANES, 1 << n_many))
    for s in range(1 << n_many):
        members[s] = ones(s)
    v, reach, lane = np.empty((LANES, m)), np.empty(LANES), np.empty(LANES, np.int64)
    pads, totals = np.empty(LANES), np.empty(LANES)
    line, corners = np.empty(most + 1), np.empty(most + 1, np.int64)
    ends, bounds = np.empty((HALVINGS + 1, 2)), np.empty(HALVINGS + 1)
    for c in range(lo, hi):
        row = rows[order[firsts[c]], 1]
        V, mine, weight = W[row], neurons[row], weights[row]
        for n in range(firsts[c], firsts[c + 1]):
            found[order[n]] = 0.0
        begin = 0
        for b in range(len(block_ends)):
            count = block_ends[b] - begin
            a_few = count // 2
            a_many = count - a_few
            sums(few, V, mine, 1 + begin, a_few)
            sums(many, V, mine, 1 + begin + a_few, a_many)
            for i in range(1 << a_few):
                for j in range(1 << a_many):
                    alone[i, j] = size_of_sum(few, i, many, j, V, mine[0], 0.0, norm)
                    if b == 0:
                        led_size[i, j] = size_of_sum(few, i, many, j, V, mine[0], weight, norm)
            F, led = np.empty((LANES, count + 1)), np.empty((LANES, count + 1))
            for at in range(firsts[c], firsts[c + 1], LANES):
                for p in range(LANES):
                    lane[p] = order[min(at + p, firsts[c + 1] - 1)]
                    reach[p] = eps[lane[p]]
                    pads[p], totals[p] = slack(V, sizes, row, mine[0], weight, X, rows[lane[p], 0], reach[p], q)
                    few_v[p, 0] = many_v[p, 0] = 0.0
                    known = pads[p] < math.inf  # of what overflows nothing is known
                    reach[p] = reach[p] if known else 0.0
                    for r in range(m):
                        v[p, r] = dot(V, mine[r], X, rows[lane[p], 0]) if known else 0.0
                    for s in range(1, 1 << a_few):
                        few_v[p, s] = few_v[p, s & (s - 1)] + v[p, 1 + begin + lowest(s)]
                    for s in range(1, 1 << a_many):
                        many_v[p, s] = many_v[p, s & (s - 1)] + v[p, 1 + begin + a_few + lowest(s)]
                largest(F, top, alone, few_v, many_v, reach, members, a_few, a_many)
                if b == 0:
                    largest(led, top, led_size, few_v, many_v, reach, members, a_few, a_many)
                for p in range(min(LANES, firsts[c + 1] - at)):
                    i, pad = lane[p], pads[p]
                    if b == 0:
                        for n in range(count + 1):
                            led[p, n] += weight * v[p, 0]
                        high = reach[p] * sizes[1, row, mine[0]] + pad
                        found[i] += with_leader(
                            F, led, p, v[p, 0] - high, v[p, 0] + high, weight, pad, q, rho, line[: count + 1],
                            corners, ends, bounds,
                        )  # fmt: skip
                    else:
                        for n in range(count + 1):
                            line[n] = F[p, n]
                        found[i] += of_steps(line[: count + 1], corners, pad, q, rho)
                    if b == len(block_ends) - 1:
                        unit = 16 * (m + q + 8) * UNIT_ROUNDOFF
                        found[i] += unit * found[i] + TINY * 2 * m * (1 + rho + totals[p])
                        if not (pad < math.inf and found[i] <= math.inf):
                            found[i] = math.inf
            begin = block_ends[b]


@part
def slack(V, sizes, row, leader, weight, X, patch, eps, q):
    """What sums of preactivations may be off by, and what they are at most."""
    m, d = V.shape
    square = 0.0
    for c in range(d):
        square += X[patch, c] * X[patch, c]
    length = math.sqrt(square)
    total = weights = 0.0
    for r in range(m):
        factor = weight if r == leader else 1.0
        total += factor * (sizes[0, row, r] * length + eps * sizes[1, row, r])
        weights += factor * sizes[0, row, r]
    lost = ROOT * d * (2 * m * (length + eps) * weight + weights + total)
    return 16 * (d + 2 * m + q + 16) * UNIT_ROUNDOFF * total + lost + TINY, total

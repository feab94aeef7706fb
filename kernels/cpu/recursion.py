"""The recursion of :mod:`advfeat.kernels.recursion` run by run, float64, for LLVM's own vectoriser.

A run keeps phi as (2k, K), so that every inner loop streams over neurons.  The iteration's patches are *columns*: for
each, its slopes U, the ascent's neuron weights G and their image HG.  Q = c sum U G^T with c = lr * step has low rank
when columns are few: then H + c sum (U HG^T + HG U^T) + c^2 sum U (G H G^T) U^T costs 2 columns K^2, where the products
(I + Q) H (I + Q)^T cost 2 K^3.
"""

import math

import numpy as np

from ..formulas import CROSS_ENTROPY, LINF, MARGIN
from ..jit import jit, part
from .sums import exponentials
from .tiles import I0
from .vectors import VECTOR_BYTES, fma


# Rows are passed as a matrix and an index: a view of a row costs two atomic counts, more than the work on it.
@part
def fill(out, i, number):
    for a in range(out.shape[1]):
        out[i, a] = number


@part
def copy(out, i, matrix, j):
    for a in range(out.shape[1]):
        out[i, a] = matrix[j, a]


@part
def add(out, i, factor, matrix, j):
    for a in range(out.shape[1]):
        out[i, a] = fma(factor, matrix[j, a], out[i, a])


@part
def dot(x, i, y, j, lo, hi):
    """Four sums at a time: one would wait for every addition."""
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    whole = lo + (hi - lo) // 4 * 4
    for a in range(lo, whole, 4):
        s0 = fma(x[i, a], y[j, a], s0)
        s1 = fma(x[i, a + 1], y[j, a + 1], s1)
        s2 = fma(x[i, a + 2], y[j, a + 2], s2)
        s3 = fma(x[i, a + 3], y[j, a + 3], s3)
    for a in range(whole, hi):
        s0 = fma(x[i, a], y[j, a], s0)
    return (s0 + s1) + (s2 + s3)


@part
def respond(z, c, k, q, rho, count, slope, value, F):
    """slope = sigma'(z), F_i += count * sum of sigma(z) over class i's neurons; row c of z and slope."""
    K = z.shape[1]
    inverse, part_of = 1 / rho, rho / q
    for a in range(K):
        value[a] = min(max(z[c, a] * inverse, 0.0), 1.0)
        slope[c, a] = value[a]
    for _ in range(q - 2):
        for a in range(K):
            slope[c, a] *= value[a]
    for a in range(K):
        value[a] = part_of * value[a] * slope[c, a] + max(z[c, a] - rho, 0.0)
    m = K // k
    for i in range(k):
        total = 0.0
        for a in range(i * m, (i + 1) * m):
            total += value[a]
        F[i] += count * total


@part
def objective_weights(F, y, objective, C):
    """C_i = dJ/dF_i, as `formulas.objective_gradient`; behind the k numbers of C a register's room."""
    k = len(F)
    for i in range(k):
        C[i] = 0.0
    if objective == CROSS_ENTROPY:
        top, rivals = F[0], 0.0
        for i in range(k):
            top = max(top, F[i])
        for i in range(k):
            C[i] = F[i] - top
        exponentials(C, k)
        for i in range(k):
            if i != y:
                rivals += C[i]
        total = rivals + C[y]
        for i in range(k):
            C[i] /= total
        C[y] = -rivals / total
        return
    if objective == MARGIN:
        rival = -1
        for i in range(k):
            if i != y and (rival < 0 or F[i] > F[rival]):
                rival = i
        C[rival] = 1.0
    C[y] -= 1.0


@part
def span_of(objective, y, m, K):
    """First and last + 1 neuron that an objective's gradient may reach: the class y of -F_y, else all."""
    if objective in (CROSS_ENTROPY, MARGIN):
        return 0, K
    return y * m, (y + 1) * m


@part
def unseen(reach, eps, axes):
    """`recursion.tail`."""
    if not reach > eps:
        return 0.0
    t = eps / reach
    return min(1.0, axes * (1 - t * t) ** (max(axes - 1.0, 0.0) / 2))


@part
def gram_few(H, U, G, HG, V, c, n, spans):
    """H <- (I + Q) H (I + Q)^T from n columns: H + U V^T + V U^T with V = c HG + c^2/2 U (G H G^T)."""
    K = len(H)
    for i in range(n):
        for a in range(K):
            V[i, a] = c * HG[i, a]
        for j in range(n):
            add(V, i, 0.5 * c * c * dot(G, i, HG, j, spans[i, 0], spans[i, 1]), U, j)
    for a in range(K):
        for i in range(n):
            u, v = U[i, a], V[i, a]
            for b in range(a + 1):
                H[a, b] = fma(u, V[i, b], fma(v, U[i, b], H[a, b]))
        for b in range(a):
            H[b, a] = H[a, b]


@part
def gram_many(H, U, G, c, n, spans):
    """The same by (I + Q) H (I + Q)^T = H + M + M^T + M Q^T, M = Q H."""
    K = len(H)
    Q, M, square, turned = np.zeros((K, K)), np.zeros((K, K)), np.zeros((K, K)), np.empty((K, K))
    for i in range(n):
        for a in range(K):
            for b in range(spans[i, 0], spans[i, 1]):
                Q[a, b] = fma(c * U[i, a], G[i, b], Q[a, b])
    for a in range(K):
        for b in range(K):
            add(M, a, Q[a, b], H, b)
            turned[b, a] = Q[a, b]
    for a in range(K):
        for b in range(K):
            add(square, a, M[a, b], turned, b)
    for a in range(K):
        for b in range(a + 1):
            H[a, b] += M[a, b] + M[b, a] + 0.5 * (square[a, b] + square[b, a])
            H[b, a] = H[a, b]


@jit
def recursion(
    lo, hi, scratch, phi, runs, gram, types, watch, q, rho, lr, n_iter, objective, step, eps, norm, n_steps, flagged,
    bad,
):  # fmt: skip
    """`recursion.recursion` for runs[lo:hi]."""
    K, two_k = phi.shape[1:]
    k, (S, C), D = two_k // 2, types.feature.shape[1:], watch.orthogonal.shape[2]
    m = K // k
    most = S * C if n_steps else 1
    U, G, HG, GW = np.empty((S * C, K)), np.empty((most, K)), np.empty((most, K)), np.empty((most, D))
    V, spans = np.empty((min(most, K), K)), np.empty((most, 2), np.int64)
    z, slope, delta = np.empty((C, K)), np.empty((C, K)), np.empty((C, two_k))
    table, change = np.empty((two_k, K)), np.empty((two_k, K))
    value, ascent, F, weights = np.empty(K), np.empty((1, K)), np.empty(k), np.empty(k + VECTOR_BYTES // 8)
    for number in range(lo, hi):
        r = runs[number]
        H, W = gram[r], watch.orthogonal[r]
        for a in range(K if n_steps else 0):
            for b in range(a):
                H[b, a] = H[a, b]
        for f in range(two_k):
            for a in range(K):
                table[f, a] = phi[r, a, f]
        for it in range(n_iter):
            for f in range(two_k):
                fill(change, f, 0.0)
            n, fine, seen = I0, True, False
            for j in range(S):
                if types.weight[r, j] == 0.0:
                    continue
                y, first = types.y[r, j], n
                for c in range(C):
                    own, s = types.feature[r, j, c], types.strength[r, j, c]
                    for a in range(K):
                        z[c, a] = s * table[own, a]
                    if n_steps:
                        fill(delta, c, 0.0)
                        fill(G, first + c, 0.0)
                        fill(HG, first + c, 0.0)
                        fill(GW, first + c, 0.0)
                for t in range(n_steps + 1):
                    for i in range(k):
                        F[i] = 0.0
                    for c in range(C):
                        if types.count[r, j, c] != 0.0:
                            respond(z, c, k, q, rho[r], types.count[r, j, c], slope, value, F)
                    if t == n_steps:
                        break
                    objective_weights(F, y, objective, weights)
                    left, right = span_of(objective, y, m, K)
                    for c in range(C):
                        if types.count[r, j, c] == 0.0:
                            continue
                        g = first + c
                        spans[g, 0], spans[g, 1] = (left, right) if n_steps == 1 else (0, K)
                        for a in range(left, right):
                            ascent[0, a] = weights[a // m] * slope[c, a]
                            G[g, a] += ascent[0, a]
                            if ascent[0, a] != 0.0:
                                add(HG, g, ascent[0, a], H, a)
                                if D:
                                    add(GW, g, ascent[0, a], W, a)
                        for f in range(two_k):
                            delta[c, f] += step[r] * dot(ascent, I0, table, f, left, right)
                        reach = step[r] * math.sqrt(max(dot(G, g, HG, g, I0, K), 0.0))
                        if norm == LINF:
                            for f in range(two_k):
                                delta[c, f] = min(max(delta[c, f], -eps[r]), eps[r])
                            if D:
                                for a in range(D):
                                    seen |= abs(step[r] * GW[g, a]) > eps[r]
                            else:
                                watch.risk[r] += unseen(reach, eps[r], watch.axes[r])
                                seen |= watch.risk[r] > watch.limit
                        else:
                            size = math.sqrt(dot(delta, c, delta, c, I0, two_k) + reach * reach)
                            if size > eps[r]:
                                for a in range(K):
                                    G[g, a] *= eps[r] / size
                                    HG[g, a] *= eps[r] / size
                                for a in range(D):
                                    GW[g, a] *= eps[r] / size
                                for f in range(two_k):
                                    delta[c, f] *= eps[r] / size
                        own, s = types.feature[r, j, c], types.strength[r, j, c]
                        for a in range(K):
                            z[c, a] = fma(step[r], HG[g, a], s * table[own, a])
                        for f in range(two_k):
                            add(z, c, delta[c, f], table, f)
                for i in range(k):
                    fine &= math.isfinite(F[i])
                objective_weights(F, y, I0 + CROSS_ENTROPY, weights)
                for c in range(C):
                    count = types.count[r, j, c] * types.weight[r, j]
                    if count == 0.0:
                        continue
                    for i in range(k):
                        for a in range(i * m, (i + 1) * m):
                            U[n, a] = -count * weights[i] * slope[c, a]
                    add(change, types.feature[r, j, c], types.strength[r, j, c], U, n)
                    if n_steps:
                        for f in range(two_k):
                            if delta[c, f] != 0.0:
                                add(change, f, delta[c, f], U, n)
                        if n != first + c:
                            copy(G, n, G, first + c)
                            copy(HG, n, HG, first + c)
                            copy(GW, n, GW, first + c)
                            copy(spans, n, spans, first + c)
                    n += 1
            if not fine:
                bad[r] = it
                break
            if seen and flagged[r] < 0:
                flagged[r] = it
            if flagged[r] >= 0 and not watch.go_on:
                break
            for f in range(two_k):
                add(table, f, lr[r], change, f)
            if n_steps:
                if n <= K // 2:
                    gram_few(H, U, G, HG, V, lr[r] * step[r], n, spans)
                else:
                    gram_many(H, U, G, lr[r] * step[r], n, spans)
                for i in range(n):
                    for a in range(K if D else 0):
                        add(W, a, lr[r] * step[r] * U[i, a], GW, i)
        for f in range(two_k):
            for a in range(K):
                phi[r, a, f] = table[f, a]

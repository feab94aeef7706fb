"""The recursion of :mod:`advfeat.kernels.recursion` for L runs side by side, a lane a run, float64.

The runs of a block have types of one pattern: the same classes, features, and places that are used.  All else differs
from lane to lane.  A lane has the bits of :mod:`advfeat.kernels.cpu.recursion`, whose order of operations stands here
again, over rows of lanes instead of neurons; the lower half of H is kept alone.
"""

import math

import numpy as np

from ..formulas import CROSS_ENTROPY, LINF, MARGIN
from ..jit import jit, part
from . import rows
from .layout import LINE_BYTES
from .recursion import span_of, unseen
from .rows import L

LEAST = 3  # runs of a block: fewer are faster alone
# rows of numbers per run: rho, 1 / rho, rho / q, and these
LR, STEP, EPS, RATE, HALF, NUMBERS = 3, 4, 5, 6, 7, 8


@part
def table(n):
    """Room for n rows, from the first byte of a cache line on."""
    memory = np.empty((n + 1) * L)
    first = -memory.ctypes.data % LINE_BYTES // 8
    return memory[first : first + n * L].reshape(n, L)


@part
def begin(runs, phi, gram, types, watch, q, rho, lr, step, eps, n_steps, numbers, T, H, W, strength, count, weighted):
    """Lanes of the runs' states and numbers."""
    K, two_k = phi.shape[1:]
    (S, C), D = types.feature.shape[1:], watch.orthogonal.shape[2]
    for lane in range(L):
        r = runs[lane]
        c = lr[r] * step[r]
        numbers[0, lane], numbers[1, lane], numbers[2, lane] = rho[r], 1 / rho[r], rho[r] / q
        numbers[3, lane], numbers[4, lane], numbers[5, lane] = lr[r], step[r], eps[r]
        numbers[6, lane], numbers[7, lane] = c, 0.5 * c * c
        for f in range(two_k):
            for a in range(K):
                T[f * K + a, lane] = phi[r, a, f]
        for a in range(K if n_steps else 0):
            for b in range(a + 1):
                H[a * (a + 1) // 2 + b, lane] = gram[r, a, b]
            for x in range(D):
                W[a * D + x, lane] = watch.orthogonal[r, a, x]
        for j in range(S):
            for c in range(C):
                strength[j * C + c, lane], count[j * C + c, lane] = types.strength[r, j, c], types.count[r, j, c]
                weighted[j * C + c, lane] = types.count[r, j, c] * types.weight[r, j]


@part
def end(lane, r, phi, gram, watch, n_steps, T, H, W):
    """A lane's state back to its run."""
    K, two_k = phi.shape[1:]
    D = watch.orthogonal.shape[2]
    for f in range(two_k):
        for a in range(K):
            phi[r, a, f] = T[f * K + a, lane]
    for a in range(K if n_steps else 0):
        for b in range(a + 1):
            gram[r, a, b] = gram[r, b, a] = H[a * (a + 1) // 2 + b, lane]
        for x in range(D):
            watch.orthogonal[r, a, x] = W[a * D + x, lane]


@part
def objective_weights(F, weights, k, y, objective):
    if objective == CROSS_ENTROPY:
        rows.softmax_weights(F, weights, 0, k, y)
    elif objective == MARGIN:
        rows.margin_weights(F, weights, k, y)
    else:
        weights[...] = 0.0
        weights[y] = -1.0


@part
def update_gram(H, U, G, HG, V, numbers, factors, n, K, lo, hi):
    """H <- (I + Q) H (I + Q)^T from n columns, as `recursion.gram_few`."""
    for i in range(n):
        for j in range(n):
            rows.pair(factors, j, numbers, HALF, G, i * K, HG, j * K, lo[i], hi[i])
        rows.combine(V, i * K, HG, i * K, numbers, RATE, factors, U, n, K)
    i = 0
    while i < n:
        left = n - i
        if left >= 5:
            rows.gram(5, H, U, i * K, V, i * K, K)
            i += 5
        elif left >= 2:
            rows.gram(2, H, U, i * K, V, i * K, K)
            i += 2
        else:
            rows.gram(1, H, U, i * K, V, i * K, K)
            i += 1


@part
def update_gram_by_products(H, U, G, numbers, factor, Q, M, square, turned, whole, n, K, lo, hi):
    """The same as H + M + M^T + M Q^T, M = Q H, as `recursion.gram_many`."""
    Q[...], M[...], square[...] = 0.0, 0.0, 0.0
    for i in range(n):
        for a in range(K):
            rows.scale(factor, 0, U, i * K + a, numbers, RATE, 1)
            rows.add(Q, a * K + lo[i], factor, 0, G, i * K + lo[i], hi[i] - lo[i])
    for a in range(K):
        for b in range(K):
            turned[b * K + a] = Q[a * K + b]
            at = a * (a + 1) // 2 + b if b <= a else b * (b + 1) // 2 + a
            whole[a * K + b] = H[at]
    for a in range(K):
        for b in range(K):
            rows.add(M, a * K, Q, a * K + b, whole, b * K, K)
        for b in range(K):
            rows.add(square, a * K, M, a * K + b, turned, b * K, K)
    for a in range(K):
        for b in range(a + 1):
            here, there = a * K + b, b * K + a
            rows.add_both(H, a * (a + 1) // 2 + b, M, square, here, there)


@part
def patches(types, r, place, feature, y, ends):
    """The columns of a run's pattern: the place and feature of every patch kind that counts, class and end of every
    type; how many types there are."""
    n, used = 0, 0
    for j in range(types.y.shape[1]):
        if types.weight[r, j] == 0.0:
            continue
        for c in range(types.feature.shape[2]):
            if types.count[r, j, c] != 0.0:
                place[n], feature[n] = j * types.feature.shape[2] + c, types.feature[r, j, c]
                n += 1
        y[used], ends[used] = types.y[r, j], n
        used += 1
    return used


@part
def stop(it, runs, alive, fine, seen, go_on, flagged, bad, phi, gram, watch, n_steps, T, H, W):
    """End the lanes that do not reach the next iteration; whether any does."""
    going = False
    for lane in range(L):
        if alive[lane]:
            r = runs[lane]
            if fine[0, lane] != 0.0:
                bad[r] = it
            elif seen[0, lane] != 0.0 and flagged[r] < 0:
                flagged[r] = it
            if bad[r] >= 0 or (flagged[r] >= 0 and not go_on):
                alive[lane] = False
                end(lane, r, phi, gram, watch, n_steps, T, H, W)
            going |= alive[lane]
    return going


@part
def learn_class(y, n, T, numbers, strength, weighted, place, feature, of, slope, weights, change, U):
    """Move the features of the class y by all n columns; `of` is a column's type."""
    K = len(change)
    k = len(T) // (2 * K)
    m = K // k
    for f in (y, k + y):
        only, several = -1, False
        for g in range(n):
            if feature[g] == f:
                only, several = g, only >= 0
        if several:
            change[...] = 0.0
            for g in range(n):
                if feature[g] == f:
                    for i in range(k):
                        rows.slopes(U, i * m, slope, g * K + i * m, weighted, place[g], weights, of[g] * k + i, m)
                    rows.add(change, 0, strength, place[g], U, 0, K)
            rows.add(T, f * K, numbers, LR, change, 0, K)
        elif only >= 0:
            for i in range(k):
                t, a, w = f * K + i * m, only * K + i * m, of[only] * k + i
                rows.learn(T, t, numbers, LR, strength, place[only], slope, a, weighted, weights, w, m)


@jit
def standard_lanes(
    lo, hi, scratch, phi, blocks, members, gram, types, watch, q, rho, lr, n_iter, objective, step, eps, norm, n_steps,
    flagged, bad,
):  # fmt: skip
    """`recursion.recursion` without ascents for the blocks lo..hi-1 of runs `blocks` (B, L), of which the first
    `members` count.  The state of a run that diverges is left as it was before the first iteration."""
    K, two_k = phi.shape[1:]
    k, columns = two_k // 2, types.feature.shape[1] * types.feature.shape[2]
    m = K // k
    numbers, alive, none = table(NUMBERS), np.empty(L, np.bool_), table(0)
    T, change, U, F = table(two_k * K), table(K), table(K), table(k)
    strength, count, weighted = table(columns), table(columns), table(columns)
    slope, weights, fine = table(columns * K), table(types.y.shape[1] * k), table(1)
    place, feature, of = np.empty(columns, np.int64), np.empty(columns, np.int64), np.empty(columns, np.int64)
    y, ends = np.empty(types.y.shape[1], np.int64), np.empty(types.y.shape[1], np.int64)
    for block in range(lo, hi):
        runs = blocks[block]
        begin(runs, phi, gram, types, watch, q, rho, lr, step, eps, n_steps, numbers, T, none, none, strength, count,
              weighted)  # fmt: skip
        for lane in range(L):
            alive[lane] = lane < members[block]
        used = patches(types, runs[0], place, feature, y, ends)
        for label in range(k):  # without ascents, classes of samples do not see each other's features
            for it in range(n_iter):
                fine[...] = 0.0
                n = 0
                for j in range(used):
                    first, n = n, ends[j]
                    if y[j] != label:
                        continue
                    F[...] = 0.0
                    for g in range(first, n):
                        of[g] = j
                        for i in range(k):
                            t, a = feature[g] * K + i * m, g * K + i * m
                            rows.respond_clean(T, t, strength, slope, a, q, numbers, count, place[g], F, i, m)
                    rows.finite(fine, F, k)
                    rows.softmax_weights(F, weights, j * k, k, label)
                learn_class(label, n, T, numbers, strength, weighted, place, feature, of, slope, weights, change, U)
                going = False
                for lane in range(L):
                    if alive[lane] and fine[0, lane] != 0.0:
                        alive[lane], bad[runs[lane]] = False, it
                    going |= alive[lane]
                if not going:
                    break
        for lane in range(L):
            if alive[lane]:
                end(lane, runs[lane], phi, gram, watch, n_steps, T, none, none)


@jit
def adversarial_lanes(
    lo, hi, scratch, phi, blocks, members, gram, types, watch, q, rho, lr, n_iter, objective, step, eps, norm, n_steps,
    flagged, bad,
):  # fmt: skip
    """`recursion.recursion` with ascents for the blocks lo..hi-1 of runs `blocks` (B, L), of which the first `members`
    count."""
    K, two_k = phi.shape[1:]
    k, (S, C), D = two_k // 2, types.feature.shape[1:], watch.orthogonal.shape[2]
    m, columns = K // k, S * C
    numbers, alive = table(NUMBERS), np.empty(L, np.bool_)
    T, change, H, W = table(two_k * K), table(K), table(K * (K + 1) // 2), table(K * D)
    strength, count, weighted = table(columns), table(columns), table(columns)
    Z, slope, U, ascent = table(C * K), table(C * K), table(columns * K), table(K)
    G, HG, V = table(columns * K), table(columns * K), table(min(columns, K) * K)
    GW, delta = table(columns * D), table(columns * two_k)
    F, weights, factor, factors, reach = table(k), table(k), table(1), table(columns), table(1)
    seen, fine = table(1), table(1)
    place, feature = np.empty(columns, np.int64), np.empty(columns, np.int64)
    left, right = np.empty(columns, np.int64), np.empty(columns, np.int64)
    y, ends = np.empty(S, np.int64), np.empty(S, np.int64)
    room = K * K if columns > K // 2 else 0
    Q, M, square, turned, whole = table(room), table(room), table(room), table(room), table(room)
    for block in range(lo, hi):
        runs = blocks[block]
        begin(runs, phi, gram, types, watch, q, rho, lr, step, eps, n_steps, numbers, T, H, W, strength, count,
              weighted)  # fmt: skip
        for lane in range(L):
            alive[lane] = lane < members[block]
        used = patches(types, runs[0], place, feature, y, ends)
        for it in range(n_iter):
            seen[...] = 0.0
            fine[...] = 0.0
            G[...], HG[...], GW[...], delta[...] = 0.0, 0.0, 0.0, 0.0
            n = 0
            for j in range(used):
                first, n = n, ends[j]
                low, high = span_of(objective, y[j], m, K)
                for g in range(first, n):
                    left[g], right[g] = (low, high) if n_steps == 1 else (0, K)
                    rows.scale(Z, (g - first) * K, T, feature[g] * K, strength, place[g], K)
                for t in range(n_steps + 1):
                    F[...] = 0.0
                    for g in range(first, n):
                        for i in range(k):
                            a = (g - first) * K + i * m
                            rows.respond(Z, a, slope, a, q, numbers, count, place[g], F, i, m)
                    if t == n_steps:
                        break
                    objective_weights(F, weights, k, y[j], objective)
                    for g in range(first, n):
                        z, column, d = (g - first) * K, g * K, g * two_k
                        for i in range(low // m, high // m):
                            rows.climb(ascent, i * m, G, column + i * m, slope, z + i * m, weights, i, m)
                        rows.spread(HG, column, ascent, 0, H, low, high, K)
                        rows.shift(delta, d, ascent, 0, T, K, low, high, numbers, STEP, two_k)
                        rows.lengths(reach, 0, G, column, HG, column, K, numbers, STEP)
                        for a in range(low, high if D else low):
                            rows.add_where(GW, g * D, ascent, a, W, a * D, D)
                        if norm == LINF:
                            rows.clip(delta, d, numbers, EPS, two_k)
                            if D:
                                rows.beyond(seen, GW, g * D, numbers, STEP, numbers, EPS, D)
                            else:
                                for lane in range(L):
                                    if alive[lane]:
                                        r = runs[lane]
                                        watch.risk[r] += unseen(reach[0, lane], eps[r], watch.axes[r])
                                        if watch.risk[r] > watch.limit:
                                            seen[0, lane] = 1.0
                        else:
                            rows.shrinking(factor, delta, d, two_k, reach, 0, numbers, EPS)
                            rows.multiply(G, column, factor, 0, K)
                            rows.multiply(HG, column, factor, 0, K)
                            rows.multiply(GW, g * D, factor, 0, D)
                            rows.multiply(delta, d, factor, 0, two_k)
                        own = feature[g]
                        rows.move(Z, z, T, own, HG, column, delta, d, strength, place[g], numbers, STEP, K, two_k)
                rows.finite(fine, F, k)
                rows.softmax_weights(F, weights, 0, k, y[j])
                for g in range(first, n):
                    for i in range(k):
                        rows.slopes(U, g * K + i * m, slope, (g - first) * K + i * m, weighted, place[g], weights, i, m)
            if not stop(it, runs, alive, fine, seen, watch.go_on, flagged, bad, phi, gram, watch, n_steps, T, H, W):
                break
            for f in range(two_k):
                change[...] = 0.0
                for g in range(n):
                    if feature[g] == f:
                        rows.add(change, 0, strength, place[g], U, g * K, K)
                    rows.add_where(change, 0, delta, g * two_k + f, U, g * K, K)
                rows.add(T, f * K, numbers, LR, change, 0, K)
            if n <= K // 2:
                update_gram(H, U, G, HG, V, numbers, factors, n, K, left, right)
            else:
                update_gram_by_products(H, U, G, numbers, factor, Q, M, square, turned, whole, n, K, left, right)
            for g in range(n if D else 0):
                for a in range(K):
                    rows.scale(factor, 0, U, g * K + a, numbers, RATE, 1)
                    rows.add(W, a * D, factor, 0, GW, g * D, D)
        for lane in range(L):
            if alive[lane]:
                end(lane, runs[lane], phi, gram, watch, n_steps, T, H, W)


def lanes_of_runs(types):
    """Blocks of runs whose types have one pattern, (B, L) numbers of which the first `members` (B,) count, and the runs
    (n,) that are left, few of a pattern."""
    used = (types.weight[..., None] != 0) & (types.count != 0)
    feature = np.where(used, types.feature + 1, 0).reshape(len(used), math.prod(used.shape[1:]))
    pattern = np.concatenate([types.y, feature], axis=1)
    if (pattern == pattern[:1]).all():
        group = np.zeros(len(pattern), np.int64)
    else:
        group = np.unique(pattern, axis=0, return_inverse=True)[1].reshape(-1)
    blocks, members, alone = [], [], []
    for number in range(group.max(initial=-1) + 1):
        runs = np.flatnonzero(group == number)
        for i in range(0, len(runs), L):
            some = runs[i : i + L]
            if len(some) < LEAST:
                alone.append(some)
            else:
                blocks.append(np.concatenate([some, np.repeat(some[:1], L - len(some))]))
                members.append(len(some))
    blocks = np.array(blocks, np.int64).reshape(-1, L)
    return blocks, np.array(members, np.int64), np.concatenate([*alone, np.empty(0, np.int64)])

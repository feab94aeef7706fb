"""The hot loops of the Numba CPU engine, compiled for the target's vector width.

Layout (private to the engine).  A patch is a *lane*.  Lanes are kept in blocks of ``B = 2 V`` (two SIMD registers of V
numbers); a block of inputs is stored ``(d, B)``, a block of preactivations ``(K, B)``, so that preactivations and input
gradients are streams of vector multiply-adds over patches.  For the weight gradient a chunk's inputs are turned into
``(lanes, d)`` first, and the stream runs over coordinates; all products are the same register tile
(:mod:`advfeat.kernels.cpu.tiles`).

Samples are cut into *chunks* of at most 256 lanes (a fixed function of the shapes, never of threads or of the number of
runs); a chunk's lanes are its samples' patches in order, padded with zeros to whole blocks.  A lane's numbers meet
another lane's only in the sum over a sample's patches, so logits do not depend on a sample's neighbours.  Chunks are
joined to at most 16 *groups* per run; a group adds up its chunks' weight gradients, `update` adds up the groups, both
in order: one machine, one set of bits, whatever the threads and the batch.

The table of chunks, int64 (C, 6), has the columns run, first block, blocks, first slot, samples, patches per sample; a
*slot* is a sample's position in the packed order.  The table of groups, int64 (G, 3): run, first chunk, chunks.
Kernels work on the chunks, groups or runs ``lo..hi-1`` with scratch memory of their own and release the GIL;
:mod:`advfeat.kernels.cpu.engine` spreads them over threads.
"""

import math

from ..formulas import CROSS_ENTROPY as _CROSS_ENTROPY
from ..formulas import NEG_LABEL_LOGIT
from ..jit import jit, part
from .blocks import climb, coefficients, descent, forward, gram, margin, scale_slopes, sum_patches
from .lanes import copy, meet, tile_blend, tile_shifted, tile_update
from .sums import tile_spread
from .tiles import I0, I1, NO, YES, product
from .vectors import BLOCK_BYTES, VECTOR_BYTES

CROSS_ENTROPY = type(I0)(_CROSS_ENTROPY)


@part
def chunk(table, c):
    """Run, first block, blocks, first slot, samples, patches per sample."""
    return table[c, 0], table[c, 1], table[c, 2], table[c, 3], table[c, 4], table[c, 5]


@jit
def pack(lo, hi, scratch, rows, start, table, d, out):
    """out (blocks, d, B) <- rows (., d), the patches of slot s from row start[s] on; zeros behind the last lane."""
    B = BLOCK_BYTES // out.itemsize
    for c in range(lo, hi):
        _, b0, blocks, s0, n, P = chunk(table, c)
        for lane in range(blocks * B):
            at = (b0 + lane // B) * d * B + lane % B
            inside = lane < n * P
            row = start[s0 + lane // P] + lane % P if inside else 0
            for j in range(d):
                out[at + j * B] = rows[row, j] if inside else 0.0


@jit
def unpack(lo, hi, scratch, X, table, d, target, rows):
    """rows (samples * P, d) <- X (blocks, d, B): the inverse of `pack`, to the samples `target` of the slots."""
    B = BLOCK_BYTES // X.itemsize
    for c in range(lo, hi):
        _, b0, _, s0, n, P = chunk(table, c)
        for lane in range(n * P):
            at = (b0 + lane // B) * d * B + lane % B
            row = target[s0 + lane // P] * P + lane % P
            for j in range(d):
                rows[row, j] = X[at + j * B]


@jit
def logits(lo, hi, w, net, data, F):
    """F (slots, k), float64."""
    B = BLOCK_BYTES // data.X.itemsize
    for c in range(lo, hi):
        r, b0, blocks, s0, n, P = chunk(data.table, c)
        forward(net, r, data.X, b0 * net.d * B, blocks, w)
        sum_patches(w.f, blocks * B, net.k, data.times, b0 * B, P, n, F, s0)


@jit
def input_gradient(lo, hi, w, net, data, ascent, out):
    """out (blocks, d, B) = dJ/dx of the objective J, per sample."""
    B = BLOCK_BYTES // data.X.itemsize
    size = net.d * B
    for c in range(lo, hi):
        r, b0, blocks, s0, n, P = chunk(data.table, c)
        X, x0 = data.X, b0 * size
        if ascent.objective != NEG_LABEL_LOGIT:
            forward(net, r, X, x0, blocks, w)
            sum_patches(w.f, blocks * B, net.k, data.times, b0 * B, P, n, w.F, I0)
            coefficients(w.F, n, data.y, data.copies, s0, ascent.objective, 1.0, w.C)
            scale_slopes(net, blocks, data, b0 * B, P, n, YES, w)
        b = 0
        while b < blocks:
            done = descent(net, r, X, x0, b, blocks - b, P, n, data.y, s0, ascent.objective, w)
            copy(out, x0 + b * size, w.D, I0, done * size)
            b += done


@jit
def pull_back(lo, hi, w, net, data, C, out):
    """out (blocks, d, B) = sum_i C[slot, i] dF_i/dx, per sample; C (slots, k) float64."""
    B = BLOCK_BYTES // data.X.itemsize
    size = net.d * B
    for c in range(lo, hi):
        r, b0, blocks, s0, n, P = chunk(data.table, c)
        x0 = b0 * size
        forward(net, r, data.X, x0, blocks, w)
        for s in range(n):
            for i in range(net.k):
                w.C[s, i] = C[s0 + s, i]
        scale_slopes(net, blocks, data, b0 * B, P, n, YES, w)
        b = 0
        while b < blocks:
            done = descent(net, r, data.X, x0, b, blocks - b, P, n, data.y, s0, CROSS_ENTROPY, w)
            copy(out, x0 + b * size, w.D, I0, done * size)
            b += done


@jit
def ascend(lo, hi, w, net, data, ascent, Xa):
    """Xa (blocks, d, B) <- the inputs after `ascent.n_steps` > 0 gradient ascent steps from the clean inputs."""
    B = BLOCK_BYTES // data.X.itemsize
    for c in range(lo, hi):
        r, b0, blocks, s0, n, P = chunk(data.table, c)
        x0 = b0 * net.d * B
        for step in range(ascent.n_steps):
            climb(net, r, data.X, x0, blocks, data, b0 * B, P, n, s0, ascent, NO, NO, step == 0, w)
        copy(Xa, x0, w.Xa, I0, blocks * net.d * B)


@jit
def pgd(lo, hi, w, net, data, ascent, Xa, best):
    """Projected steepest ascent from Xa; Xa is left with every sample's best iterate and `best` with its margin.

    `best` (slots) enters as the margin to beat (inf); a sample rests at its first iterate with margin <= 0.
    """
    B, V = BLOCK_BYTES // data.X.itemsize, VECTOR_BYTES // data.X.itemsize
    zero, one = data.X.dtype.type(0), data.X.dtype.type(1)
    size = net.d * B
    for c in range(lo, hi):
        r, b0, blocks, s0, n, P = chunk(data.table, c)
        copy(w.Xa, I0, Xa, b0 * size, blocks * size)
        for it in range(ascent.n_steps + 1):
            forward(net, r, w.Xa, I0, blocks, w)
            sum_patches(w.f, blocks * B, net.k, data.times, b0 * B, P, n, w.F, I0)
            alive = False
            for s in range(n):
                value = margin(w.F, s, data.y[s0 + s])[0]
                better = best[s0 + s] > 0.0 and value < best[s0 + s]
                if better:
                    best[s0 + s] = value
                lane, end = s * P, s * P + P if s + 1 < n else blocks * B
                flag = one if better else zero
                tile_spread(w.T, lane, data.times, b0 * B + lane, (end - lane + V - 1) // V, flag, YES)
                alive = alive or best[s0 + s] > 0.0
            for b in range(blocks):
                tile_blend(Xa, (b0 + b) * size, w.Xa, b * size, net.d, w.T, b * B)
            if not alive or it == ascent.n_steps:
                break
            climb(net, r, data.X, b0 * size, blocks, data, b0 * B, P, n, s0, ascent, YES, YES, NO, w)


@part
def group_gradient(g, w, net, data, groups, ascent, part, loss):
    """part[g] (K, row) <- sum over the group of e_{n,i} sigma' x~ and loss[g] <- its summed cross-entropy, at the
    inputs x~ that `ascent.n_steps` ascent steps reach from x (0 steps: standard training)."""
    B = BLOCK_BYTES // data.X.itemsize
    loss[g] = 0.0
    first, chunks = groups[g, 1], groups[g, 2]
    for c in range(first, first + chunks):
        r, b0, blocks, s0, n, P = chunk(data.table, c)
        X, x0 = data.X, b0 * net.d * B
        for step in range(ascent.n_steps):
            climb(net, r, data.X, b0 * net.d * B, blocks, data, b0 * B, P, n, s0, ascent, NO, NO, step == 0, w)
            X, x0 = w.Xa, I0
        forward(net, r, X, x0, blocks, w)
        sum_patches(w.f, blocks * B, net.k, data.times, b0 * B, P, n, w.F, I0)
        loss[g] += coefficients(w.F, n, data.y, data.copies, s0, CROSS_ENTROPY, -1.0, w.C)
        for s in range(n):
            for i in range(net.k):
                w.C[s, i] *= data.copies[s0 + s]
        scale_slopes(net, blocks, data, b0 * B, P, n, NO, w)
        gram(net, X, x0, blocks, w, part, g * net.k * net.m * net.row, c > first)


@part
def update(r, thread, threads, net, first, lr, count, part, loss):
    """W[r] += lr[r]/count[r] * sum over the run's groups of part[g], this thread's share; returns the mean loss."""
    total = 0.0
    for g in range(first[r], first[r + 1]):
        total += loss[g]
    V = VECTOR_BYTES // net.W.itemsize
    size = net.k * net.m * net.row
    lo, hi = size // V * thread // threads, size // V * (thread + 1) // threads
    rate = net.W.dtype.type(lr[r] / count[r])
    tile_update(net.W[r], lo * V, part, first[r] * size + lo * V, size, first[r + 1] - first[r], hi - lo, rate)
    return total / count[r]


@jit
def gradient(lo, hi, w, net, data, groups, ascent, part, loss):
    """`group_gradient` of the groups lo..hi-1."""
    for g in range(lo, hi):
        group_gradient(g, w, net, data, groups, ascent, part, loss)


@jit
def update_runs(lo, hi, w, net, first, lr, count, part, loss, mean_loss):
    """`update` of the runs lo..hi-1."""
    for r in range(lo, hi):
        mean_loss[r] = update(r, 0, 1, net, first, lr, count, part, loss)


@jit
def train(lo, hi, w, net, data, groups, first, ascent, lr, count, n_iter, part, loss, mean_loss, bad):
    """`n_iter` full-batch iterations of the runs lo..hi-1, run after run; bad[r]: first iteration with a loss that is
    not finite (-1: none), where the run stops."""
    for r in range(lo, hi):
        for it in range(n_iter):
            for g in range(first[r], first[r + 1]):
                group_gradient(g, w, net, data, groups, ascent, part, loss)
            mean_loss[r] = update(r, 0, 1, net, first, lr, count, part, loss)
            if not math.isfinite(mean_loss[r]):
                bad[r] = it
                break


@jit
def train_together(
    lo, hi, w, net, data, groups, first, ascent, lr, count, n_iter, part, loss, mean_loss, bad, threads, arrivals
):
    """`train` of all runs as thread lo of a team: iterations in step, groups and weights shared out, two barriers."""
    goal = 0
    for it in range(n_iter if hi > lo else 0):
        for g in range(len(groups) * lo // threads, len(groups) * hi // threads):
            if bad[groups[g, 0]] < 0:
                group_gradient(g, w, net, data, groups, ascent, part, loss)
        goal += threads
        meet(arrivals, goal)
        for r in range(len(bad)):
            if bad[r] < 0 or bad[r] == it:  # another thread may have seen this iteration's loss already
                mean = update(r, lo, threads, net, first, lr, count, part, loss)
                mean_loss[r] = mean  # every thread writes the same number
                if not math.isfinite(mean):
                    bad[r] = it
        goal += threads
        meet(arrivals, goal)


@jit
def interval(lo, hi, w, net, data, shift, lower, upper):
    """lower, upper (slots, k) = sum_p sum_r sigma(z -+ shift[r, a]), shift (R, K) >= 0."""
    B = BLOCK_BYTES // data.X.itemsize
    one = data.X.dtype.type(1)
    for c in range(lo, hi):
        r, b0, blocks, s0, n, P = chunk(data.table, c)
        preactivations(net, r, data.X, b0 * net.d * B, blocks, w)
        for side in range(2):
            for b in range(blocks):
                for i in range(net.k):
                    at, h, f = (b * (net.k * net.m | 1) + i * net.m) * B, i * net.m, (i * blocks + b) * B
                    sign = one if side else -one
                    tile_shifted(w.S, at, net.m, net.q, net.rho, net.inverse, shift[r], h, sign, w.f, f)
            sum_patches(w.f, blocks * B, net.k, data.times, b0 * B, P, n, upper if side else lower, s0)


@part
def preactivations(net, r, X, x0, blocks, w):
    """w.S <- Z of one chunk."""
    B = BLOCK_BYTES // X.itemsize
    K = net.k * net.m
    at_c, at_x = (I0, B, (K | 1) * B), (x0, I0, net.d * B)
    product(w.S, at_c, net.W[r], (I0, net.row, I1, I0), X, at_x, K, net.d, I1, blocks, NO)


@jit
def aligned(lo, hi, w, net, data, cross, leaders, eps, choice):
    """The aligned attack: per target class and patch the best of a few directions, the best target per sample.

    cross[r, c, a] = <w_a, dir_c>, dir_c the steepest unit direction of neuron c; leaders (R, k, n) the neurons tried.
    A patch moves by +eps dir_c (c of the target), by -eps dir_c (c of the label) or not at all; since the margin is a
    sum over patches, the choice is exact patch by patch.  choice (slots, 2 P): its first P columns are left with the
    code of every patch's direction, c + 1, -(c + 1) or 0.
    """
    B = BLOCK_BYTES // data.X.itemsize
    m, q, rho, inverse, rows = net.m, net.q, net.rho, net.inverse, net.k * net.m | 1
    n_leaders = leaders.shape[2]
    zero = data.X.dtype.type(0)
    for c in range(lo, hi):
        r, b0, blocks, s0, n, P = chunk(data.table, c)
        preactivations(net, r, data.X, b0 * net.d * B, blocks, w)
        for s in range(n):
            label = data.y[s0 + s]
            best = math.inf
            for target in range(net.k):
                if target == label:
                    continue
                total = 0.0
                for b in range(s * P // B, ((s + 1) * P - 1) // B + 1):
                    for x in range(B):  # t[0:B]: the best value per lane, t[B:2B]: the code of its direction
                        w.t[x] = math.inf
                    for e in range(2 * n_leaders + 1):
                        neuron = leaders[r, target if e < n_leaders else label, e % n_leaders]
                        scale = eps[r] if e < n_leaders else -eps[r] if e < 2 * n_leaders else zero
                        code = neuron + 1 if e < n_leaders else -neuron - 1 if e < 2 * n_leaders else 0
                        at, to = label * m, target * m
                        shift = cross[r, neuron]
                        tile_shifted(w.S, (b * rows + at) * B, m, q, rho, inverse, shift, at, scale, w.f, I0)
                        tile_shifted(w.S, (b * rows + to) * B, m, q, rho, inverse, shift, to, scale, w.f, B)
                        for x in range(B):
                            if w.f[x] - w.f[B + x] < w.t[x]:
                                w.t[x] = w.f[x] - w.f[B + x]
                                w.t[B + x] = code
                    for lane in range(max(s * P, b * B), min((s + 1) * P, (b + 1) * B)):
                        total += w.t[lane - b * B]
                        choice[s0 + s, P + lane - s * P] = int(w.t[B + lane - b * B])
                if total < best:
                    best = total
                    for p in range(P):
                        choice[s0 + s, p] = choice[s0 + s, P + p]

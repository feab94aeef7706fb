"""The hot loops of the Numba CPU engine, compiled for the vector width of this machine.

Layout (private to the engine).  A patch is a *lane*.  Lanes are kept in blocks of ``B = 2 V`` (two SIMD registers of V
numbers); a block of inputs is stored ``(d, B)``, a block of preactivations ``(K, B)``, so that all three products are
streams of vector multiply-adds on tiles that stay in L1/L2:

================  =============================================  =================
product           formula, per block                             tile
================  =============================================  =================
preactivations    Z[a, l] = sum_j W[a, j] X[j, l]                ``product``
input gradient    D[j, l] = sum_a W[a, j] G[a, l]                ``product``
weight gradient   dW[a, j] = sum over blocks and l of G X        ``gram``
================  =============================================  =================

Samples are cut into *chunks* (a fixed function of the shapes, never of threads or of the number of runs); a chunk's
lanes are its samples' patches in order, padded with zeros to whole blocks.  A lane's numbers meet another lane's only
in the sum over a sample's patches, so logits do not depend on a sample's neighbours, and the weight gradient is summed
in chunk order: one machine, one set of bits, whatever the threads and the batch.

The table of chunks, int64 (C, 5), has the columns run, first block, blocks, first slot, samples; a *slot* is a sample's
position in the packed order.  Kernels work on the chunks (or runs) ``lo..hi-1`` with scratch memory of their own and
release the GIL; :mod:`advfeat.kernels.numba_engine` spreads them over threads.
"""


import math

from .cpu_blocks import climb, coefficients, forward, input_gradient_block, margin, scale_slopes, sum_patches
from .cpu_tiles import BLOCK_BYTES, GA, I0, I1, NO, YES, gram, product, tile_sigma
from .jit import jit
from .reference import CROSS_ENTROPY as _CROSS_ENTROPY
from .reference import NEG_LABEL_LOGIT

CROSS_ENTROPY = type(I0)(_CROSS_ENTROPY)


@jit
def pack(lo, hi, scratch, rows, source, table, P, d, out):
    """out (blocks, d, B) <- rows (samples * P, d), slot s taken from sample source[s]; zeros behind the last lane."""
    B = BLOCK_BYTES // out.itemsize
    for c in range(lo, hi):
        b0, blocks, s0, n = table[c, 1], table[c, 2], table[c, 3], table[c, 4]
        for lane in range(blocks * B):
            at = (b0 + lane // B) * d * B + lane % B
            inside = lane < n * P
            row = source[s0 + lane // P] * P + lane % P if inside else 0
            for j in range(d):
                out[at + j * B] = rows[row, j] if inside else 0.0


@jit
def unpack(lo, hi, scratch, X, table, P, d, target, rows):
    """rows (samples * P, d) <- X (blocks, d, B): the inverse of `pack`, to the samples `target` of the slots."""
    B = BLOCK_BYTES // X.itemsize
    for c in range(lo, hi):
        b0, s0, n = table[c, 1], table[c, 3], table[c, 4]
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
        r, b0, blocks, s0, n = data.table[c, 0], data.table[c, 1], data.table[c, 2], data.table[c, 3], data.table[c, 4]
        forward(net, r, data.X, b0 * net.d * B, blocks, data.P, n, w)
        for s in range(n):
            for i in range(net.k):
                F[s0 + s, i] = w.F[s, i]


@jit
def input_gradient(lo, hi, w, net, data, objective, out):
    """out (blocks, d, B) = dJ/dx of the objective J, per sample."""
    size = net.d * BLOCK_BYTES // data.X.itemsize
    for c in range(lo, hi):
        r, b0, blocks, s0, n = data.table[c, 0], data.table[c, 1], data.table[c, 2], data.table[c, 3], data.table[c, 4]
        if objective != NEG_LABEL_LOGIT:
            forward(net, r, data.X, b0 * size, blocks, data.P, n, w)
            coefficients(w.F, n, data.y, s0, objective, 1.0, w.C)
            scale_slopes(w.S, blocks, net.k, net.m, data.P, n, w.C, w.t)
        for b in range(blocks):
            input_gradient_block(net, r, data.X, b0 * size, b, data.P, n, data.y, s0, objective, w)
            for x in range(size):
                out[(b0 + b) * size + x] = w.D[x]


@jit
def ascend(lo, hi, w, net, data, ascent, Xa):
    """Xa (blocks, d, B) = the inputs after `ascent.n_steps` gradient ascent steps from Xa."""
    size = net.d * BLOCK_BYTES // data.X.itemsize
    for c in range(lo, hi):
        r, b0, blocks, s0, n = data.table[c, 0], data.table[c, 1], data.table[c, 2], data.table[c, 3], data.table[c, 4]
        for x in range(blocks * size):
            w.Xa[x] = Xa[b0 * size + x]
        for _ in range(ascent.n_steps):
            climb(net, r, data.X, b0 * size, blocks, data.P, n, data.y, s0, ascent, NO, NO, w)
        for x in range(blocks * size):
            Xa[b0 * size + x] = w.Xa[x]


@jit
def pgd(lo, hi, w, net, data, ascent, Xa, best):
    """Projected steepest ascent from Xa; Xa is left with every sample's best iterate and `best` with its margin.

    `best` (slots) enters as the margin to beat (inf); a sample rests at its first iterate with margin <= 0.
    """
    B = BLOCK_BYTES // data.X.itemsize
    size = net.d * B
    for c in range(lo, hi):
        r, b0, blocks, s0, n = data.table[c, 0], data.table[c, 1], data.table[c, 2], data.table[c, 3], data.table[c, 4]
        for x in range(blocks * size):
            w.Xa[x] = Xa[b0 * size + x]
        for it in range(ascent.n_steps + 1):
            forward(net, r, w.Xa, I0, blocks, data.P, n, w)
            alive = False
            for s in range(n):
                value = margin(w.F, s, data.y[s0 + s])[0]
                if best[s0 + s] > 0.0 and value < best[s0 + s]:
                    best[s0 + s] = value
                    for lane in range(s * data.P, (s + 1) * data.P):
                        at = lane // B * size + lane % B
                        for j in range(net.d):
                            Xa[b0 * size + at + j * B] = w.Xa[at + j * B]
                alive = alive or best[s0 + s] > 0.0
            if not alive or it == ascent.n_steps:
                break
            climb(net, r, data.X, b0 * size, blocks, data.P, n, data.y, s0, ascent, YES, YES, w)


@jit
def gradient(lo, hi, w, net, data, ascent, part, loss):
    """part[c] (K, d) = sum over the chunk of e_{n,i} sigma' x~ and loss[c] = its summed cross-entropy, at the inputs
    x~ that `ascent.n_steps` ascent steps reach from x (0 steps: standard training)."""
    size = net.d * BLOCK_BYTES // data.X.itemsize
    for c in range(lo, hi):
        r, b0, blocks, s0, n = data.table[c, 0], data.table[c, 1], data.table[c, 2], data.table[c, 3], data.table[c, 4]
        X, x0 = data.X, b0 * size
        if ascent.n_steps > 0:
            for x in range(blocks * size):
                w.Xa[x] = X[x0 + x]
            for _ in range(ascent.n_steps):
                climb(net, r, data.X, b0 * size, blocks, data.P, n, data.y, s0, ascent, NO, NO, w)
            X, x0 = w.Xa, I0
        forward(net, r, X, x0, blocks, data.P, n, w)
        loss[c] = coefficients(w.F, n, data.y, s0, CROSS_ENTROPY, -1.0, w.C)
        scale_slopes(w.S, blocks, net.k, net.m, data.P, n, w.C, w.t)
        gram(part[c], net.k * net.m, net.d, w.S, X, x0, blocks)


@jit
def update(lo, hi, W, data, first, lr, part, loss, mean_loss):
    """W[r] += (lr[r]/N_r) sum_c part[c] and mean_loss[r], chunks in order, for the runs lo..hi-1."""
    for r in range(lo, hi):
        count, total = 0, 0.0
        for c in range(first[r], first[r + 1]):
            count += data.table[c, 4]
            total += loss[c]
        mean_loss[r] = total / count
        rate = W.dtype.type(lr[r] / count)
        for a in range(W.shape[1]):
            step = part[first[r], a]
            for c in range(first[r] + 1, first[r + 1]):
                step += part[c, a]
            W[r, a] += rate * step


@jit
def train(lo, hi, w, net, data, first, ascent, lr, n_iter, part, loss, mean_loss, bad):
    """`n_iter` full-batch iterations of the runs lo..hi-1, run after run; bad[r]: first iteration with a loss that is
    not finite (-1: none), where the run stops."""
    for r in range(lo, hi):
        for it in range(n_iter):
            gradient(first[r], first[r + 1], w, net, data, ascent, part, loss)
            update(r, r + 1, net.W, data, first, lr, part, loss, mean_loss)
            if not math.isfinite(mean_loss[r]):
                bad[r] = it
                break


@jit
def interval(lo, hi, w, net, data, shift, lower, upper):
    """lower, upper (slots, k) = sum_p sum_r sigma(z -+ shift[r, a]), shift (R, K) >= 0."""
    B = BLOCK_BYTES // data.X.itemsize
    one = data.X.dtype.type(1)
    for c in range(lo, hi):
        r, b0, blocks, s0, n = data.table[c, 0], data.table[c, 1], data.table[c, 2], data.table[c, 3], data.table[c, 4]
        for side in range(2):
            for b in range(blocks):
                product(w.S, I0, net.k * net.m, net.W[r], I0, net.d, I1, data.X, (b0 + b) * net.d * B, net.d)
                for i in range(net.k):
                    at, sign = i * net.m, one if side else -one
                    f_at = (b * net.k + i) * B
                    tile_sigma(False, w.S, at * B, net.m, net.q, net.rho, shift[r], at, sign, w.f, f_at)
            sum_patches(w.f, B, net.k, data.P, n, upper if side else lower, s0)


@jit
def aligned(lo, hi, w, net, data, cross, leaders, eps, choice):
    """The aligned attack: per target class and patch the best of a few directions, the best target per sample.

    cross[r, c, a] = <w_a, dir_c>, dir_c the steepest unit direction of neuron c; leaders (R, k, n) the neurons tried.
    A patch moves by +eps dir_c (c of the target), by -eps dir_c (c of the label) or not at all; since the margin is a
    sum over patches, the choice is exact patch by patch.  choice (slots, 2 P): its first P columns are left with the
    code of every patch's direction, c + 1, -(c + 1) or 0.
    """
    B = BLOCK_BYTES // data.X.itemsize
    m, P, q, rho, rows = net.m, data.P, net.q, net.rho, max(net.k * net.m, GA)
    n_leaders = leaders.shape[2]
    zero = data.X.dtype.type(0)
    for c in range(lo, hi):
        r, b0, blocks, s0, n = data.table[c, 0], data.table[c, 1], data.table[c, 2], data.table[c, 3], data.table[c, 4]
        for b in range(blocks):
            product(w.S, b * rows * B, net.k * m, net.W[r], I0, net.d, I1, data.X, (b0 + b) * net.d * B, net.d)
        for s in range(n):
            label = data.y[s0 + s]
            best = math.inf
            for target in range(net.k):
                if target == label:
                    continue
                total = 0.0
                for b in range(s * P // B, ((s + 1) * P - 1) // B + 1):
                    for x in range(B):  # D[0:B]: the best value per lane, D[B:2B]: the code of its direction
                        w.D[x] = math.inf
                    for e in range(2 * n_leaders + 1):
                        neuron = leaders[r, target if e < n_leaders else label, e % n_leaders]
                        scale = eps[r] if e < n_leaders else -eps[r] if e < 2 * n_leaders else zero
                        code = neuron + 1 if e < n_leaders else -neuron - 1 if e < 2 * n_leaders else 0
                        at, to = label * m, target * m
                        shift = cross[r, neuron]
                        tile_sigma(False, w.S, (b * rows + at) * B, m, q, rho, shift, at, scale, w.f, I0)
                        tile_sigma(False, w.S, (b * rows + to) * B, m, q, rho, shift, to, scale, w.f, B)
                        for x in range(B):
                            if w.f[x] - w.f[B + x] < w.D[x]:
                                w.D[x] = w.f[x] - w.f[B + x]
                                w.D[B + x] = code
                    for lane in range(max(s * P, b * B), min((s + 1) * P, (b + 1) * B)):
                        total += w.D[lane - b * B]
                        choice[s0 + s, P + lane - s * P] = int(w.D[B + lane - b * B])
                if total < best:
                    best = total
                    for p in range(P):
                        choice[s0 + s, p] = choice[s0 + s, P + p]

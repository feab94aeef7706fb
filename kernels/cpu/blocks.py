"""The network on one chunk of lanes: logits, objectives, input gradients, ascent steps and the weight gradient.

Layout and names: see :mod:`advfeat.kernels.cpu.kernels`.
"""

import math
from typing import NamedTuple

import numpy as np

from ..formulas import CROSS_ENTROPY, L2, LINF, MARGIN, NEG_LABEL_LOGIT
from ..jit import part, stands_alone
from .lanes import clear, tile_clip, tile_move, tile_sigma, tile_slope, transpose_tile
from .sums import exponentials, tile_scale, tile_spread, tile_sum, tile_weigh
from .tiles import I0, I1, MR, NO, YES, climb_product, product
from .vectors import BLOCK_BYTES, VECTOR_BYTES

PANEL_BYTES = 2**14  # inputs of one pass over a block: half of a 32 KiB L1
WEIGHT_BYTES = 3 * 2**17  # weights (or slopes) of one pass over a chunk: three quarters of a 512 KiB L2


class CpuNetwork(NamedTuple):
    """Weights of all runs and the constants of the network; ``rho`` and ``inverse`` = 1/rho have the weights' dtype."""

    W: np.ndarray  # (R, K row)
    k: int
    m: int
    d: int
    row: int  # numbers from one neuron's weights to the next
    q: int
    rho: np.floating
    inverse: np.floating


class Packed(NamedTuple):
    """Samples in the engine's layout."""

    X: np.ndarray  # (blocks d B,)
    y: np.ndarray  # (slots,) int64
    table: np.ndarray  # (C, 6) int64
    times: np.ndarray  # (blocks B + V,) how often a lane's patch stands in its sample; 0 behind a chunk's last lane
    copies: np.ndarray  # (slots,) float64, how often a sample stands in the data


class Ascent(NamedTuple):
    """Steps x~ <- x + project_eps(x~ - x + step * direction)."""

    objective: int
    step: np.ndarray  # (R,)
    eps: np.ndarray  # (R,)
    norm: int
    n_steps: int


class Scratch(NamedTuple):
    """One thread's memory, large enough for one chunk of `blocks` blocks, L = blocks B lanes."""

    S: np.ndarray  # (blocks, K | 1, B) preactivations, then sigma' or G
    Xa: np.ndarray  # (blocks, d, B) perturbed inputs
    Xt: np.ndarray  # (d / B, L, B) inputs, lanes as rows
    D: np.ndarray  # (., d, B) input gradients of a few blocks
    f: np.ndarray  # (k L + V,) class sums per lane
    T: np.ndarray  # (k L + V,) coefficients per lane
    t: np.ndarray  # (2 B,)
    C: np.ndarray  # (samples + 8, k) float64, coefficients dJ/dF; the last rows, a register, may be overwritten
    F: np.ndarray  # (samples, k) float64, logits of the chunk


@part
def panels(length, row_bytes, budget):
    """Length of even passes of at most `budget` bytes over `length` rows."""
    passes = max(1, (length * row_bytes + budget - 1) // budget)
    return (length + passes - 1) // passes


@part
def sum_patches(f, L, k, times, l0, P, n, out, o0):
    """out[o0 + s, i] = sum over sample s's P lanes of times * class sum f (k, L), in float64."""
    stands_alone()
    for s in range(n):
        for i in range(k):
            out[o0 + s, i] = tile_sum(f, i * L + s * P, times, l0 + s * P, P)


@part
def forward(net, run, X, x0, blocks, w):
    """w.f <- class sums of sigma(Z) and w.S <- sigma'(Z) for one chunk whose inputs start at X[x0]."""
    stands_alone()
    B = BLOCK_BYTES // X.itemsize
    K, W, L = net.k * net.m, net.W[run], blocks * B
    clear(w.f, net.k * L)
    depth = panels(net.d, BLOCK_BYTES, PANEL_BYTES)
    rows = panels(K, depth * X.itemsize, WEIGHT_BYTES)
    for j in range(0, net.d, depth):
        for a in range(0, K, rows):
            n, t, at_w = min(rows, K - a), min(depth, net.d - j), (a * net.row + j, net.row, I1, I0)
            for b in range(blocks):
                at = (b * (K | 1) + a) * B
                product(w.S, (at, B, I0), W, at_w, X, (x0 + (b * net.d + j) * B, I0, I0), n, t, I1, I1, j > 0)
                r = a if j + t == net.d else a + n
                while r < a + n:  # class by class
                    i = r // net.m
                    stop = min(i * net.m + net.m, a + n)
                    s0 = at + (r - a) * B
                    tile_sigma(w.S, s0, stop - r, net.q, net.rho, net.inverse, w.f, i * L + b * B)
                    r = stop


@part
def margin(F, s, y):
    """F_y - max_{j != y} F_j of row s, and the first j that attains the maximum."""
    stands_alone()
    rival = 1 if y == 0 else 0
    for j in range(F.shape[1]):
        if j != y and F[s, j] > F[s, rival]:
            rival = j
    return F[s, y] - F[s, rival], rival


@part
def coefficients(F, n, y, copies, s0, objective, sign, C):
    """C[s, i] = sign * dJ/dF_i of the objective J; returns the summed cross-entropy where that is J."""
    stands_alone()
    loss, k = 0.0, F.shape[1]
    if objective != CROSS_ENTROPY:
        for s in range(n):
            for i in range(k):
                C[s, i] = 0.0
            if objective == MARGIN:
                C[s, margin(F, s, y[s0 + s])[1]] = sign
            C[s, y[s0 + s]] -= sign
        return loss
    for s in range(n):
        top = F[s, 0]
        for i in range(1, k):
            top = max(top, F[s, i])
        for i in range(k):
            C[s, i] = F[s, i] - top
        loss -= copies[s0 + s] * C[s, y[s0 + s]]
    exponentials(C, n * k)
    for s in range(n):
        label, rivals = y[s0 + s], 0.0
        for i in range(k):
            if i != label:
                rivals += C[s, i]
        scale = sign / (rivals + C[s, label])
        loss += copies[s0 + s] * math.log1p(rivals + (C[s, label] - 1.0))
        for i in range(k):
            C[s, i] *= scale
        C[s, label] = -scale * rivals  # not p_y - 1, which is 0 from a margin of 38 on
    return loss


@part
def scale_slopes(net, blocks, data, l0, P, n, flat, w):
    """w.S[a, l] *= w.C[sample of l, class of a] * times[l], with `flat` * 1; lanes behind the last sample become 0."""
    stands_alone()
    B, V = BLOCK_BYTES // w.S.itemsize, VECTOR_BYTES // w.S.itemsize
    L, K, m = blocks * B, net.k * net.m, net.m
    if P % B == 0:  # every block holds one sample
        b = 0
        for s in range(n):
            for _ in range(P // B):
                for i in range(net.k):
                    at, value = (b * (K | 1) + i * m) * B, w.S.dtype.type(w.C[s, i])
                    tile_weigh(w.S, at, m, data.times, l0 + b * B, value, flat)
                b += 1
        return
    for i in range(net.k):
        for s in range(n):  # the lanes written past a sample's last are the next one's, who comes later
            end = s * P + P if s + 1 < n else L
            registers = (end - s * P + V - 1) // V
            tile_spread(w.T, i * L + s * P, data.times, l0 + s * P, registers, w.S.dtype.type(w.C[s, i]), flat)
    for b in range(blocks):
        for i in range(net.k):
            tile_scale(w.S, (b * (K | 1) + i * net.m) * B, net.m, w.T, i * L + b * B)


@part
def label_blocks(y, s0, P, n, B, b, blocks):
    """How many of the blocks b ... b + blocks - 1 hold the lanes of one label alone (0: the first one does not)."""
    label, s = y[s0 + b * B // P], b * B // P
    while s < n and y[s0 + s] == label:
        s += 1
    return blocks if s == n else min(blocks, s * P // B - b)  # behind the last lane inputs are 0, and so is sigma'


@part
def label_descent(net, r, X, x0, label, blocks, more, w):
    """w.D (blocks, d, B) = [w.D +] the label class's part of -grad F_y, times the mask w.t."""
    B = BLOCK_BYTES // X.itemsize
    d, m = net.d, net.m
    at_w, at_s, at_d = label * m * net.row, (I0, B, m * B), (I0, B, d * B)
    depth = panels(d, BLOCK_BYTES, PANEL_BYTES)
    for j in range(0, d, depth):
        at_x, t = (x0 + j * B, I0, d * B), min(depth, d - j)
        product(w.S, at_s, net.W[r], (at_w + j, net.row, I1, I0), X, at_x, m, t, I1, blocks, j > 0)
    tile_slope(w.S, I0, blocks * m, net.q, net.rho, net.inverse, w.t)
    product(w.D, at_d, net.W[r], (at_w, I1, net.row, I0), w.S, (I0, I0, m * B), d, m, I1, blocks, more)


@part
def descent(net, r, X, x0, b, blocks, P, n, y, s0, objective, w):
    """w.D (g, d, B) <- grad J on g <= `blocks` blocks from b on of a chunk whose inputs start at X[x0]; returns g.

    J = -F_y touches the label's neurons only; for other objectives w.S must hold G.
    """
    stands_alone()
    B = BLOCK_BYTES // X.itemsize
    K, d = net.k * net.m, net.d
    blocks = min(blocks, max(PANEL_BYTES // (d * BLOCK_BYTES), 1))
    if objective != NEG_LABEL_LOGIT:
        depth, block = panels(K, BLOCK_BYTES, PANEL_BYTES), (K | 1) * B
        for a in range(0, K, depth):
            at_w, at_g, t = (a * net.row, I1, net.row, I0), (b * block + a * B, I0, block), min(depth, K - a)
            product(w.D, (I0, B, d * B), net.W[r], at_w, w.S, at_g, d, t, I1, blocks, a > 0)
        return blocks
    x, alone = x0 + b * d * B, label_blocks(y, s0, P, n, B, b, blocks)
    if alone > 0:
        for lane in range(B):
            w.t[lane] = -1.0
        label_descent(net, r, X, x, y[s0 + b * B // P], alone, NO, w)
        return alone
    lane, end = b * B, min((b + 1) * B, n * P)
    s = lane // P
    while lane < end:  # one label after the other; samples are packed in label order
        label, first = y[s0 + s], lane
        while lane < end and y[s0 + s] == label:
            s += 1
            lane = s * P
        for i in range(B):
            w.t[i] = -1.0 if first <= b * B + i < lane else 0.0
        label_descent(net, r, X, x, label, I1, first > b * B, w)
    return I1


@part
def climb(net, r, X, x0, blocks, data, l0, P, n, s0, ascent, steepest, known, start, w):
    """One ascent step to w.Xa, from w.Xa or, with `start`, from X; `known`: w.S and w.F are already those of w.Xa."""
    stands_alone()
    size, step, eps = net.d * BLOCK_BYTES // X.itemsize, ascent.step[r], ascent.eps[r]
    last, a0 = (X, x0) if start else (w.Xa, I0)
    if ascent.objective != NEG_LABEL_LOGIT:
        if not known:
            forward(net, r, last, a0, blocks, w)
            sum_patches(w.f, blocks * (size // net.d), net.k, data.times, l0, P, n, w.F, I0)
        coefficients(w.F, n, data.y, data.copies, s0, ascent.objective, 1.0, w.C)
        scale_slopes(net, blocks, data, l0, P, n, YES, w)
    b, B = 0, size // net.d
    gradient_steps = ascent.objective == NEG_LABEL_LOGIT and ascent.norm == LINF and not steepest
    in_registers = start and gradient_steps and 4 <= net.m <= MR
    while b < blocks:
        at, x, here, done = b * size, x0 + b * size, a0 + b * size, 0
        if in_registers:
            done = label_blocks(data.y, s0, P, n, B, b, blocks - b)
            climb_product(net, r, data.y[s0 + b * B // P], X, x, done, step, eps, w.Xa, at)
        if done == 0:
            done = descent(net, r, last, a0, b, blocks - b, P, n, data.y, s0, ascent.objective, w)
            if ascent.norm == L2:
                for i in range(0, done * size, size):
                    if steepest:
                        tile_move(True, w.Xa, at + i, X, x + i, last, here + i, w.D, i, net.d, step, eps)
                    else:
                        tile_move(False, w.Xa, at + i, X, x + i, last, here + i, w.D, i, net.d, step, eps)
            elif steepest:
                tile_clip(True, w.Xa, at, X, x, last, here, w.D, I0, done * net.d, step, eps)
            else:
                tile_clip(False, w.Xa, at, X, x, last, here, w.D, I0, done * net.d, step, eps)
        b += done


@part
def gram(net, X, x0, blocks, w, part, p0, more):
    """part (K, row) = [part +] sum over the chunk's lanes of G[a, l] X[j, l], G in w.S."""
    stands_alone()
    B, V = BLOCK_BYTES // X.itemsize, VECTOR_BYTES // X.itemsize
    K, d, L = net.k * net.m, net.d, blocks * B
    for b in range(blocks):
        for j in range(0, (d + B - 1) // B * B, V):
            for h in range(0, B, V):
                at = (j // B * L + b * B + h) * B + j % B
                if d - j >= V:
                    transpose_tile(True, w.Xt, at, X, x0 + (b * d + j) * B + h, d - j)
                else:
                    transpose_tile(False, w.Xt, at, X, x0 + (b * d + j) * B + h, d - j)
    long = panels(blocks, B * BLOCK_BYTES, PANEL_BYTES)
    rows = panels(K, L * X.itemsize, WEIGHT_BYTES)
    for a in range(0, K, rows):
        for b in range(0, blocks, long):
            at_c, at_x = (p0 + a * net.row, net.row, B), (b * B * B, B * B, L * B)
            at_g, n, o = ((b * (K | 1) + a) * B, B, I1, (K | 1) * B), min(rows, K - a), min(long, blocks - b)
            product(part, at_c, w.S, at_g, w.Xt, at_x, n, B, o, (d + B - 1) // B, more or b > 0)

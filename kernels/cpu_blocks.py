"""The network on blocks of lanes: activation, logits, objectives, input gradients and ascent steps of one chunk.

Layout and names: see :mod:`advfeat.kernels.cpu_kernels`.
"""

import math
from typing import NamedTuple

import numpy as np

from .cpu_tiles import BLOCK_BYTES, GA, I0, I1, product, tile_move, tile_scale, tile_sigma
from .jit import part, stands_alone
from .reference import CROSS_ENTROPY, L2, MARGIN, NEG_LABEL_LOGIT


class Net(NamedTuple):
    """Weights of all runs and the constants of the network; ``rho`` has the weights' dtype."""

    W: np.ndarray  # (R, K d)
    k: int
    m: int
    d: int
    q: int
    rho: np.floating


class Packed(NamedTuple):
    """Samples in the engine's layout."""

    X: np.ndarray  # (blocks d B,)
    y: np.ndarray  # (slots,) int64
    table: np.ndarray  # (C, 5) int64
    P: int


class Ascent(NamedTuple):
    """Steps x~ <- x + project_eps(x~ - x + step * direction)."""

    objective: int
    step: np.ndarray  # (R,)
    eps: np.ndarray  # (R,)
    norm: int
    n_steps: int


class Scratch(NamedTuple):
    """One thread's memory, large enough for one chunk."""

    S: np.ndarray  # (blocks max(K, GA) B,) preactivations, then sigma' or G
    Xa: np.ndarray  # (blocks d B,) perturbed inputs
    D: np.ndarray  # (2 d B,) one block's input gradient
    t: np.ndarray  # (2 B,)
    f: np.ndarray  # (blocks k B,) class sums per lane
    C: np.ndarray  # (samples, k) float64, coefficients dJ/dF
    F: np.ndarray  # (samples, k) float64, logits of the chunk


@part
def sum_patches(f, B, k, P, n, out, o0):
    """out[o0 + s, i] = sum over sample s's P lanes of the class sums f (blocks, k, B), in float64 and lane order."""
    stands_alone()
    for s in range(n):
        for i in range(k):
            total = 0.0
            for lane in range(s * P, (s + 1) * P):
                total += f[(lane // B * k + i) * B + lane % B]
            out[o0 + s, i] = total


@part
def forward(net, r, X, x0, blocks, P, n, w):
    """Logits w.F (n, k) of one chunk whose inputs start at X[x0]; w.S (blocks, K, B) is left with sigma'."""
    stands_alone()
    B = BLOCK_BYTES // X.itemsize
    rows = max(net.k * net.m, GA)
    for b in range(blocks):
        product(w.S, b * rows * B, net.k * net.m, net.W[r], I0, net.d, I1, X, x0 + b * net.d * B, net.d)
        for i in range(net.k):
            at, f_at = (b * rows + i * net.m) * B, (b * net.k + i) * B
            tile_sigma(True, w.S, at, net.m, net.q, net.rho, w.S, I0, net.rho, w.f, f_at)
    sum_patches(w.f, B, net.k, P, n, w.F, I0)


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
def coefficients(F, n, y, s0, objective, sign, C):
    """C[s, i] = sign * dJ/dF_i of the objective J; returns the summed cross-entropy where that is J."""
    stands_alone()
    loss = 0.0
    k = F.shape[1]
    for s in range(n):
        label = y[s0 + s]
        if objective == CROSS_ENTROPY:
            top = F[s, 0]
            for i in range(1, k):
                top = max(top, F[s, i])
            total = 0.0
            for i in range(k):
                C[s, i] = math.exp(F[s, i] - top)
                total += C[s, i]
            for i in range(k):
                C[s, i] *= sign / total
            loss += top + math.log(total) - F[s, label]
        else:
            for i in range(k):
                C[s, i] = 0.0
            if objective == MARGIN:
                C[s, margin(F, s, label)[1]] = sign
        C[s, label] -= sign
    return loss


@part
def scale_slopes(S, blocks, k, m, P, n, C, t):
    """S[a, l] *= C[sample of l, class of a]; lanes past the last sample become 0."""
    stands_alone()
    B = BLOCK_BYTES // S.itemsize
    rows = max(k * m, GA)
    for b in range(blocks):
        for i in range(k):
            for x in range(B):
                s = (b * B + x) // P
                t[x] = C[s, i] if s < n else 0.0
            tile_scale(S, (b * rows + i * m) * B, m, t)


@part
def label_gradient(net, r, X, x0, block, P, n, y, s0, w):
    """w.D (d, B) = -grad F_y on one block of lanes: only the label class's m neurons enter."""
    stands_alone()
    B = BLOCK_BYTES // X.itemsize
    d, m = net.d, net.m
    first = True
    lane, end = block * B, min((block + 1) * B, n * P)
    while lane < end:  # once per label in the block; samples are packed in label order
        label = y[s0 + lane // P]
        stop = lane
        while stop < end and y[s0 + stop // P] == label:
            stop += 1
        product(w.S, I0, m, net.W[r], label * m * d, d, I1, X, x0, d)
        tile_sigma(True, w.S, I0, m, net.q, net.rho, w.S, I0, net.rho, w.f, I0)
        for x in range(B):
            w.t[x] = -1.0 if lane <= block * B + x < stop else 0.0
        tile_scale(w.S, I0, m, w.t)
        product(w.D, I0 if first else d * B, d, net.W[r], label * m * d, I1, d, w.S, I0, m)
        if not first:
            for x in range(d * B):
                w.D[x] += w.D[d * B + x]
        first = False
        lane = stop


@part
def input_gradient_block(net, r, X, x0, block, P, n, y, s0, objective, w):
    """w.D (d, B) = grad J on block `block` of a chunk (inputs at X[x0]); w.S must hold G unless J = -F_y."""
    stands_alone()
    B = BLOCK_BYTES // X.itemsize
    if objective == NEG_LABEL_LOGIT:
        label_gradient(net, r, X, x0 + block * net.d * B, block, P, n, y, s0, w)
    else:
        K = net.k * net.m
        product(w.D, I0, net.d, net.W[r], I0, I1, net.d, w.S, block * max(K, GA) * B, K)


@part
def climb(net, r, X, x0, blocks, P, n, y, s0, ascent, steepest, known, w):
    """One ascent step of a chunk whose perturbed inputs are w.Xa; `known`: w.S and w.F are already those of w.Xa."""
    stands_alone()
    size = net.d * BLOCK_BYTES // X.itemsize
    if ascent.objective != NEG_LABEL_LOGIT:
        if not known:
            forward(net, r, w.Xa, I0, blocks, P, n, w)
        coefficients(w.F, n, y, s0, ascent.objective, 1.0, w.C)
        scale_slopes(w.S, blocks, net.k, net.m, P, n, w.C, w.t)
    for b in range(blocks):
        input_gradient_block(net, r, w.Xa, I0, b, P, n, y, s0, ascent.objective, w)
        at, step, eps = b * size, ascent.step[r], ascent.eps[r]
        if ascent.norm == L2 and steepest:
            tile_move(True, True, w.Xa, at, X, x0 + at, w.D, net.d, step, eps)
        elif ascent.norm == L2:
            tile_move(True, False, w.Xa, at, X, x0 + at, w.D, net.d, step, eps)
        elif steepest:
            tile_move(False, True, w.Xa, at, X, x0 + at, w.D, net.d, step, eps)
        else:
            tile_move(False, False, w.Xa, at, X, x0 + at, w.D, net.d, step, eps)

"""Convolutions of 3x3 windows at stride 1 by Winograd's F(4x4, 3x3): tiles lifted, 36 products each, tiles lowered.

A unit is a row of tiles of one image, a chunk is some units: V[p][cb][t] are the lifted inputs of product p,
M[p][kb][t] the products with the lifted weights U[p], packed as those of a direct convolution; all of a chunk stays in
the cache.  The input gradient is the same kernel with weights turned by 180 degrees and channels in and out exchanged.
"""

from typing import NamedTuple

from ...jit import part, stands_alone
from .direct import correlate, multiply
from .rows import MASK_O, MASK_Z, NORM, RESIDUAL, ROWS, SUMS, fill
from .tiles import lift_across, lift_down, lower_across, lower_down, weights_in, weights_out

PAD = 5  # registers between the products' weights, so that they do not fall on the same lines of a cache


class Tiling(NamedTuple):
    """A convolution of N images H x W with C and K channels in and out, in blocks, and how it is cut."""

    N: int
    H: int
    W: int
    C: int
    K: int
    Cb: int
    Kb: int
    TH: int  # rows of tiles
    TW: int  # tiles in a row
    units: int  # of a chunk
    groups: int  # of chunks, each with weight gradients of its own


@part
def lift(lanes, s, count, source, channels, b0, b1, V, v0, v_product, T, S, ua, ub):
    """V of the units ua..ub, blocks b0..b1 of `channels`: inputs (count = 6) or gradients by outputs (4)."""
    stands_alone()
    L = len(lanes)
    kind, x, z, c = source
    s_row = (4 * s.TW + 2) * L
    for i in range(6):
        if count == 6:
            fill(S, i * s_row, L)
            fill(S, i * s_row + (s.W + 1) * L, s_row - (s.W + 1) * L)
        else:
            fill(S, i * s_row + s.W * L, s_row - s.W * L)
    for cb in range(b0, b1):
        c0, step = cb * L, channels * L
        for u in range(ua, ub):
            n, y = u // s.TH, 4 * (u % s.TH)
            place, at = (n * channels + cb) * s.H * s.W * L, v0 + ((cb - b0) * T + (u - ua) * s.TW) * L
            if count == 6:
                if kind == 0:
                    lift_down(lanes, 0, 6, S, s_row, x, place, z, c, c0, step, y - 1, s.H, s.W)
                elif kind == 1:
                    lift_down(lanes, 1, 6, S, s_row, x, place, z, c, c0, step, y - 1, s.H, s.W)
                elif kind == 2:
                    lift_down(lanes, 2, 6, S, s_row, x, place, z, c, c0, step, y - 1, s.H, s.W)
                else:
                    lift_down(lanes, 3, 6, S, s_row, x, place, z, c, c0, step, y - 1, s.H, s.W)
                lift_across(lanes, 6, V, at, v_product, S, s_row, s.TW)
            else:
                if kind == 0:
                    lift_down(lanes, 0, 4, S, s_row, x, place, z, c, c0, step, y, s.H, s.W)
                elif kind == 2:
                    lift_down(lanes, 2, 4, S, s_row, x, place, z, c, c0, step, y, s.H, s.W)
                else:
                    lift_down(lanes, 3, 4, S, s_row, x, place, z, c, c0, step, y, s.H, s.W)
                lift_across(lanes, 4, V, at, v_product, S, s_row, s.TW)


@part
def lower(lanes, s, target, bias, k0, k1, M, m0, m_product, T, S, ua, ub, q0):
    """The answers of the units ua..ub, blocks k0..k1 of channels."""
    stands_alone()
    L = len(lanes)
    kind, y, z, r, o, c, sums = target
    s_row, step = (4 * s.TW + 2) * L, s.Kb * L
    for kb in range(k0, k1):
        c0, q = kb * L, q0 + kb * L
        for u in range(ua, ub):
            n, first = u // s.TH, 4 * (u % s.TH)
            place, rows = ((n * s.Kb + kb) * s.H + first) * s.W * L, min(4, s.H - first)
            lower_across(lanes, S, s_row, M, m0 + ((kb - k0) * T + (u - ua) * s.TW) * L, m_product, s.TW)
            if kind == 0:
                lower_down(lanes, 0, y, place, rows, s.W, S, s_row, z, r, o, bias, c, c0, step, sums, q, step)
            elif kind == SUMS:
                lower_down(lanes, 1, y, place, rows, s.W, S, s_row, z, r, o, bias, c, c0, step, sums, q, step)
            elif kind == RESIDUAL:
                lower_down(lanes, 2, y, place, rows, s.W, S, s_row, z, r, o, bias, c, c0, step, sums, q, step)
            elif kind == NORM:
                lower_down(lanes, 16, y, place, rows, s.W, S, s_row, z, r, o, bias, c, c0, step, sums, q, step)
            elif kind == MASK_Z | NORM:
                lower_down(lanes, 20, y, place, rows, s.W, S, s_row, z, r, o, bias, c, c0, step, sums, q, step)
            elif kind == MASK_Z | NORM | RESIDUAL:
                lower_down(lanes, 22, y, place, rows, s.W, S, s_row, z, r, o, bias, c, c0, step, sums, q, step)
            elif kind == MASK_O | NORM:
                lower_down(lanes, 24, y, place, rows, s.W, S, s_row, z, r, o, bias, c, c0, step, sums, q, step)
            elif kind == MASK_O | NORM | RESIDUAL:
                lower_down(lanes, 26, y, place, rows, s.W, S, s_row, z, r, o, bias, c, c0, step, sums, q, step)
            elif kind == MASK_O:
                lower_down(lanes, 8, y, place, rows, s.W, S, s_row, z, r, o, bias, c, c0, step, sums, q, step)
            else:
                lower_down(lanes, 10, y, place, rows, s.W, S, s_row, z, r, o, bias, c, c0, step, sums, q, step)


# ------------------------------------------------------------------ kernels: thread `tid` of `nt`
@part
def convolve_tiles(lanes, s, source, target, U, bias, work, tid, nt):
    """target <- the convolution of what the source reads, plus a bias per channel."""
    L = len(lanes)
    T = (s.units * s.TW + ROWS - 1) // ROWS * ROWS
    chunks, u_product = (s.N * s.TH + s.units - 1) // s.units, s.Cb * L * s.Kb * L + PAD * L
    v0, v_product, m_product = 6 * (4 * s.TW + 2) * L, (s.Cb * T + 1) * L, (s.Kb * T + 1) * L
    m0, S = v0 + 36 * v_product, work[: 6 * (4 * s.TW + 2) * L]
    for chunk in range(chunks * tid // nt, chunks * (tid + 1) // nt):
        ua = chunk * s.units
        ub = min(ua + s.units, s.N * s.TH)
        n = ((ub - ua) * s.TW + ROWS - 1) // ROWS * ROWS
        lift(lanes, s, 6, source, s.Cb, 0, s.Cb, work, v0, v_product, T, S, ua, ub)
        for p in range(36):
            multiply(lanes, work, m0 + p * m_product, work, v0 + p * v_product, U, p * u_product, T, n, s.Cb, s.Kb)
        q0 = chunk * 2 * s.Kb * L
        if len(target.sums) > 1:
            for i in range(q0, q0 + 2 * s.Kb * L):
                target.sums[i] = 0.0
        lower(lanes, s, target, bias, 0, s.Kb, work, m0, m_product, T, S, ua, ub, q0)


@part
def weight_gradient_tiles(lanes, s, source, slopes, D, work, tid, nt):
    """D[group][p] = the gradient by lifted weights of a group of chunks."""
    L = len(lanes)
    T = (s.units * s.TW + 1) // 2 * 2
    chunks, d_product = (s.N * s.TH + s.units - 1) // s.units, s.Cb * L * s.Kb * L + PAD * L
    v0, v_product, g_product = 6 * (4 * s.TW + 2) * L, (s.Cb * T + 1) * L, (s.Kb * T + 1) * L
    g0, S = v0 + 36 * v_product, work[: 6 * (4 * s.TW + 2) * L]
    for group in range(s.groups * tid // nt, s.groups * (tid + 1) // nt):
        more = False
        for chunk in range(chunks * group // s.groups, chunks * (group + 1) // s.groups):
            ua = chunk * s.units
            ub = min(ua + s.units, s.N * s.TH)
            n = (ub - ua) * s.TW
            lift(lanes, s, 6, source, s.Cb, 0, s.Cb, work, v0, v_product, T, S, ua, ub)
            lift(lanes, s, 4, slopes, s.Kb, 0, s.Kb, work, g0, g_product, T, S, ua, ub)
            for p in range(36):
                if n % 2:
                    for cb in range(s.Cb):
                        fill(work, v0 + p * v_product + (cb * T + n) * L, L)
                    for kb in range(s.Kb):
                        fill(work, g0 + p * g_product + (kb * T + n) * L, L)
                correlate(lanes, D, (group * 36 + p) * d_product, work, v0 + p * v_product, work, g0 + p * g_product, T,
                          (n + 1) // 2 * 2, s.Cb, 0, s.Kb, s.Kb, more)  # fmt: skip
            more = True


@part
def weights_of(lanes, s, V, turned, kb, w):
    """w[tap][c][k] of the channels out in block kb of weights V (O, C, 3, 3), in rows of L; the rest is 0."""
    L, rows = len(lanes), s.Cb * len(lanes)
    stop = min(L, s.K - kb * L)
    fill(w, 0, 9 * rows * L)
    for c in range(s.C):
        for tap in range(9):
            if turned:
                at, v, step = ((8 - tap) * rows + c) * L, (c * s.K + kb * L) * 9 + tap, 9
            else:
                at, v, step = (tap * rows + c) * L, (kb * L * s.C + c) * 9 + tap, s.C * 9
            for k in range(stop):
                w[at + k] = V[v + k * step]


@part
def weights_to(lanes, s, w, kb, V):
    """V (K, C, 3, 3) in block kb of the channels out, from w[tap][c][k]."""
    L, rows = len(lanes), s.Cb * len(lanes)
    for c in range(s.C):
        for tap in range(9):
            for k in range(min(L, s.K - kb * L)):
                V[((kb * L + k) * s.C + c) * 9 + tap] = w[(tap * rows + c) * L + k]


@part
def lift_weights_in(lanes, s, V, U, turned, work, tid, nt):
    """U of weights V (O, C, 3, 3); `turned` 1: those of the input gradient, s being its tiling."""
    L = len(lanes)
    u_product, rows = s.Cb * L * s.Kb * L + PAD * L, s.Cb * L
    for kb in range(s.Kb * tid // nt, s.Kb * (tid + 1) // nt):
        weights_of(lanes, s, V, turned, kb, work)
        wide = L * min(2, s.Kb - kb // 2 * 2)
        weights_in(lanes, U, kb // 2 * 2 * rows * L + kb % 2 * L, u_product, wide, work, 0, rows * L, rows)


@part
def lower_weights_out(lanes, s, D, V, work, tid, nt):
    """V (K, C, 3, 3) of the gradients by lifted weights, summed over groups in order."""
    L = len(lanes)
    d_product, rows = s.Cb * L * s.Kb * L + PAD * L, s.Cb * L
    for kb in range(s.Kb * tid // nt, s.Kb * (tid + 1) // nt):
        wide = L * min(2, s.Kb - kb // 2 * 2)
        weights_out(lanes, work, 0, rows * L, D, kb // 2 * 2 * rows * L + kb % 2 * L, d_product, wide, 36 * d_product,
                    s.groups, rows)  # fmt: skip
        weights_to(lanes, s, work, kb, V)


# ------------------------------------------------------------------ wide layers: tiles are lifted once, by all threads;
# then each has panels of channels out, whose lifted weights and gradients are never stored whole
@part
def lift_all(lanes, s, count, source, channels, V, work, tid, nt):
    """V[p][block][t] of all units, inputs (count = 6) or gradients by outputs (4)."""
    L = len(lanes)
    T = (s.N * s.TH * s.TW + ROWS - 1) // ROWS * ROWS
    units, v_product = s.N * s.TH, (channels * T + 1) * L
    ua, ub = units * tid // nt, units * (tid + 1) // nt
    lift(lanes, s, count, source, channels, 0, channels, V, ua * s.TW * L, v_product, T, work, ua, ub)
    if tid == nt - 1 and units * s.TW < T:
        for p in range(36):
            for block in range(channels):
                fill(V, p * v_product + (block * T + units * s.TW) * L, (T - units * s.TW) * L)


@part
def convolve_wide(lanes, s, V, W, turned, target, bias, work, tid, nt):
    """target <- the convolution of lifted inputs V with weights W (O, C, 3, 3), in one chunk."""
    L = len(lanes)
    T = (s.N * s.TH * s.TW + ROWS - 1) // ROWS * ROWS
    rows, panels = s.Cb * L, (s.Kb + 1) // 2
    u0, u_product = 6 * (4 * s.TW + 2) * L, rows * 2 * L + PAD * L
    m0, m_product = u0 + 36 * u_product, (2 * T + 1) * L
    S, w = work[:u0], work[m0:]  # the weights of a block as they are, where its products will be
    for panel in range(panels * tid // nt, panels * (tid + 1) // nt):
        k0, k1 = 2 * panel, min(2 * panel + 2, s.Kb)
        for kb in range(k0, k1):
            weights_of(lanes, s, W, turned, kb, w)
            weights_in(lanes, work, u0 + (kb - k0) * L, u_product, (k1 - k0) * L, w, 0, rows * L, rows)
        for p in range(36):
            v = p * (s.Cb * T + 1) * L
            multiply(lanes, work, m0 + p * m_product, V, v, work, u0 + p * u_product, T, T, s.Cb, k1 - k0)
        if len(target.sums) > 1:
            for i in range(k0 * L, k1 * L):
                target.sums[i] = target.sums[s.Kb * L + i] = 0.0
        lower(lanes, s, target, bias, k0, k1, work, m0, m_product, T, S, 0, s.N * s.TH, 0)


@part
def weight_gradient_wide(lanes, s, V, G, W, work, tid, nt):
    """W (K, C, 3, 3) <- the gradient by weights, of lifted inputs V and gradients by outputs G."""
    L = len(lanes)
    T = (s.N * s.TH * s.TW + ROWS - 1) // ROWS * ROWS
    rows, panels = s.Cb * L, (s.Kb + 1) // 2
    d_product = rows * 2 * L + PAD * L
    w = work[36 * d_product :]
    for panel in range(panels * tid // nt, panels * (tid + 1) // nt):
        k0, k1 = 2 * panel, min(2 * panel + 2, s.Kb)
        for p in range(36):
            correlate(lanes, work, p * d_product - k0 * rows * L, V, p * (s.Cb * T + 1) * L, G,
                      (p * (s.Kb * T + 1) + k0 * T) * L, T, T, s.Cb, k0, k1, s.Kb, False)  # fmt: skip
        for kb in range(k0, k1):
            weights_out(lanes, w, 0, rows * L, work, (kb - k0) * L, d_product, (k1 - k0) * L, 0, 1, rows)
            weights_to(lanes, s, w, kb, W)

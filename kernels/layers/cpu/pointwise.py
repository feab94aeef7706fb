"""What is done pixel by pixel: additions, activations, pooling, batch norm's coefficients, blocks of channels and back.

Images are (N, Cb, H W, L), a kernel's items are their planes; thread `tid` of `nt` takes its share of them.  Sums are
(planes of images, 2, K) float64, one row per image.
"""

import numpy as np

from ...jit import part
from .direct import read, write
from .rows import add_row, fill, join_row, smooth_row

I0, I1 = np.int64(0), np.int64(1)


@part
def join(lanes, kind, y, z, r, c, d, sums, N, pixels, Kb, work, tid, nt):
    """y = c0 z + c1 [+ d0 r + d1] [max(., 0)], with sums of y and y^2 of every image; kind as of `join_row`."""
    L = len(lanes)
    for plane in range(N * Kb * tid // nt, N * Kb * (tid + 1) // nt):
        n, kb = plane // Kb, plane % Kb
        at, c0, step, q0 = plane * pixels * L, kb * L, Kb * L, (2 * n * Kb + kb) * L
        if kind & 4:
            fill(sums, q0, L)
            fill(sums, q0 + step, L)
        if kind == 0:
            join_row(lanes, 0, y, at, pixels, z, r, c, d, c0, step, sums, q0, step)
        elif kind == 1:
            join_row(lanes, 1, y, at, pixels, z, r, c, d, c0, step, sums, q0, step)
        elif kind == 2:
            join_row(lanes, 2, y, at, pixels, z, r, c, d, c0, step, sums, q0, step)
        elif kind == 3:
            join_row(lanes, 3, y, at, pixels, z, r, c, d, c0, step, sums, q0, step)
        elif kind == 4:
            join_row(lanes, 4, y, at, pixels, z, r, c, d, c0, step, sums, q0, step)
        elif kind == 5:
            join_row(lanes, 5, y, at, pixels, z, r, c, d, c0, step, sums, q0, step)
        elif kind == 6:
            join_row(lanes, 6, y, at, pixels, z, r, c, d, c0, step, sums, q0, step)
        else:
            join_row(lanes, 7, y, at, pixels, z, r, c, d, c0, step, sums, q0, step)


@part
def smooth(lanes, back, y, z, g, c, q, rho, inverse, N, pixels, Kb, work, tid, nt):
    """y = sigma(c0 z + c1), or with `back` 1 y = g sigma'(c0 z + c1)."""
    L = len(lanes)
    for plane in range(N * Kb * tid // nt, N * Kb * (tid + 1) // nt):
        at, c0 = plane * pixels * L, plane % Kb * L
        if back:
            smooth_row(lanes, 1, y, at, pixels, z, g, c, c0, Kb * L, q, rho, inverse)
        else:
            smooth_row(lanes, 0, y, at, pixels, z, g, c, c0, Kb * L, q, rho, inverse)


@part
def finish(lanes, source, target, N, pixels, Kb, work, tid, nt):
    """target <- the epilogue of what the source reads, a gradient that no convolution makes; sums of every image."""
    L = len(lanes)
    for plane in range(N * Kb * tid // nt, N * Kb * (tid + 1) // nt):
        n, kb = plane // Kb, plane % Kb
        at, q0 = plane * pixels * L, (2 * n * Kb + kb) * L
        if len(target.sums) > 1:
            fill(target.sums, q0, L)
            fill(target.sums, q0 + Kb * L, L)
        read(lanes, source, work, I0, I0, pixels, pixels, at, I1, kb * L, Kb * L)
        write(lanes, target, at, pixels, work, I0, kb * L, Kb * L, q0)


# ------------------------------------------------------------------ pooling
@part
def pool(lanes, source, y, scale, N, H, W, kh, kw, Kb, work, tid, nt):
    """y = scale times the sums over windows of kh x kw of what the source reads."""
    L = len(lanes)
    h, w = H // kh, W // kw
    for plane in range(N * Kb * tid // nt, N * Kb * (tid + 1) // nt):
        read(lanes, source, work, I0, I0, H * W, H * W, plane * H * W * L, I1, plane % Kb * L, Kb * L)
        at = plane * h * w * L
        fill(y, at, h * w * L)
        for i in range(h):
            for j in range(w):
                for a in range(kh):
                    for b in range(kw):
                        add_row(lanes, y, at + (i * w + j) * L, I1, work, ((i * kh + a) * W + j * kw + b) * L, I1)
        for i in range(at, at + h * w * L):
            y[i] *= scale


@part
def spread(lanes, g, target, scale, N, H, W, kh, kw, Kb, work, tid, nt):
    """target <- the epilogue of scale g for every pixel of g's window."""
    L = len(lanes)
    h, w = H // kh, W // kw
    for plane in range(N * Kb * tid // nt, N * Kb * (tid + 1) // nt):
        n, kb = plane // Kb, plane % Kb
        q0 = (2 * n * Kb + kb) * L
        if len(target.sums) > 1:
            fill(target.sums, q0, L)
            fill(target.sums, q0 + Kb * L, L)
        for y in range(H):
            for x in range(W):
                at, g0 = (y * W + x) * L, ((plane * h + y // kh) * w + x // kw) * L
                for l in range(L):
                    work[at + l] = scale * g[g0 + l]
        write(lanes, target, plane * H * W * L, H * W, work, I0, kb * L, Kb * L, q0)


# ------------------------------------------------------------------ layouts
@part
def to_blocks(lanes, y, x, N, C, pixels, Kb, work, tid, nt):
    """Images (N, C, pixels) in blocks of channels, 0 behind the last one."""
    L = len(lanes)
    for plane in range(N * Kb * tid // nt, N * Kb * (tid + 1) // nt):
        n, kb = plane // Kb, plane % Kb
        for l in range(L):
            c = kb * L + l
            for i in range(pixels):
                y[(plane * pixels + i) * L + l] = x[(n * C + c) * pixels + i] if c < C else 0


@part
def to_plain(lanes, y, x, N, C, pixels, Kb, work, tid, nt):
    """The way back, (N, C, pixels)."""
    L = len(lanes)
    for plane in range(N * C * tid // nt, N * C * (tid + 1) // nt):
        n, c = plane // C, plane % C
        at = ((n * Kb + c // L) * pixels) * L + c % L
        for i in range(pixels):
            y[plane * pixels + i] = x[at + i * L]


# ------------------------------------------------------------------ batch norm
@part
def summed(sums, rows, K, k):
    """The two sums of channel k over all rows, in order."""
    first, second = 0.0, 0.0
    for row in range(rows):
        first += sums[2 * row * K + k]
        second += sums[(2 * row + 1) * K + k]
    return first, second


@part
def norm_coefficients(train, sums, rows, count, weight, bias, mean, variance, eps, c, statistics, work, tid, nt):
    """c (4, K): z's batch norm is c0 z + c1, its standardised value c2 z + c3; statistics (2, K) the mean and biased
    variance that were used.  Channels behind the last one get 0."""
    K, C = len(c) // 4, len(weight)
    for k in range(C * tid // nt, C * (tid + 1) // nt):
        if train:
            first, second = summed(sums, rows, K, k)
            m = first / count
            v = max(second / count - m * m, 0.0)
        else:
            m, v = float(mean[k]), float(variance[k])
        inverse = 1 / np.sqrt(v + eps)
        scale = weight[k] * inverse
        c[k], c[K + k], c[2 * K + k], c[3 * K + k] = scale, bias[k] - m * scale, inverse, -m * inverse
        statistics[k], statistics[C + k] = m, v


@part
def norm_gradient(train, sums, rows, count, weight, statistics, eps, c, weight_slope, bias_slope, work, tid, nt):
    """c (3, K): the gradient by z is c0 g + c1 z + c2, g that by the batch norm's answer; and those by its weight and
    bias."""
    K, C = len(c) // 3, len(weight)
    for k in range(C * tid // nt, C * (tid + 1) // nt):
        total, along = summed(sums, rows, K, k)
        weight_slope[k], bias_slope[k] = along, total
        m, inverse = statistics[k], 1 / np.sqrt(statistics[C + k] + eps)
        scale = weight[k] * inverse
        share = along / count if train else 0.0
        # every number is written once: another thread may read it already
        c[k], c[K + k] = scale, -scale * inverse * share
        c[2 * K + k] = -scale * (total / count - m * inverse * share) if train else 0.0

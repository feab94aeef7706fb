"""Convolutions of any window, stride and padding: windows into columns, products by the register tile, rows out.

A chunk is a few rows of answers, T pixels in whole tiles; its columns V[q][t] are depth blocks q of L numbers: (a, b,
channel block) of an image in blocks, or L of the numbers (a, b, c) of an image as it is given, (N, C, H, W).  M[kb][t]
are its products with packed weights P[panel][q][l][registers], a panel being two blocks of channels out, or the last
one alone.  Chunks, groups and the order of their sums depend on shapes alone, so threads change no bit.
"""

from typing import NamedTuple

import numpy as np

from ...jit import part, stands_alone
from .rows import (
    MASK_O,
    MASK_Z,
    NORM,
    RESIDUAL,
    ROWS,
    SUMS,
    add_row,
    fill,
    read_row,
    tile,
    write_row,
)

DEPTH = 256  # numbers of one pass of a tile: a panel of two float32 registers of 16 is 32 KB then
Z0 = np.int64(0)


class Shape(NamedTuple):
    """A convolution: images in and out in blocks of channels, its window, and how it is cut into chunks."""

    N: int
    H: int
    W: int
    h: int
    w: int
    C: int  # channels in
    Cb: int  # blocks of them
    Kb: int  # blocks of channels out
    kh: int
    kw: int
    stride: int
    padding: int
    plain: int  # 1: the image lies as it is given
    Q: int  # depth blocks
    rows: int  # of answers, in a chunk
    images: int  # whose answers are one chunk of the input gradient
    groups: int  # of chunks, each with weight gradients of its own


class Reading(NamedTuple):
    """What a convolution reads, and the prologue with its coefficients (., K)."""

    kind: int
    x: np.ndarray
    z: np.ndarray
    c: np.ndarray


class Writing(NamedTuple):
    """What it writes, and the epilogue: images that it reads besides, coefficients (4, K), sums (chunks, 2, K)."""

    kind: int
    y: np.ndarray
    z: np.ndarray
    r: np.ndarray
    o: np.ndarray
    c: np.ndarray
    sums: np.ndarray


# ------------------------------------------------------------------ in
@part
def read(lanes, source, V, v0, first, last, n, place, step, c0, c_step):
    """`read_row` by the source's prologue."""
    stands_alone()
    kind, x, z, c = source
    if kind == 0:
        read_row(lanes, 0, V, v0, first, last, n, x, place, step, z, place, c, c0, c_step)
    elif kind == 1:
        read_row(lanes, 1, V, v0, first, last, n, x, place, step, z, place, c, c0, c_step)
    elif kind == 2:
        read_row(lanes, 2, V, v0, first, last, n, x, place, step, z, place, c, c0, c_step)
    else:
        read_row(lanes, 3, V, v0, first, last, n, x, place, step, z, place, c, c0, c_step)


@part
def span(n, b, stride, padding, w):
    """The answers first <= j < last whose pixel s j + b - p lies in 0..n-1."""
    first = max(0, (padding - b + stride - 1) // stride)
    last = min(w, (n - 1 - b + padding) // stride + 1)
    return min(first, w), max(last, min(first, w))


@part
def columns(lanes, s, source, V, T, ua, ub):
    """V of the rows of answers ua..ub of all images."""
    stands_alone()
    L = len(lanes)
    if s.plain:
        plain_columns(lanes, s, source, V, T, ua, ub)
        return
    for a in range(s.kh):
        for b in range(s.kw):
            first, last = span(s.W, b, s.stride, s.padding, s.w)
            for cb in range(s.Cb):
                v0 = ((a * s.kw + b) * s.Cb + cb) * T * L
                for u in range(ua, ub):
                    n, i = u // s.h, u % s.h
                    y = s.stride * i + a - s.padding
                    at = v0 + (u - ua) * s.w * L
                    if y < 0 or y >= s.H:
                        fill(V, at, s.w * L)
                    else:
                        place = (((n * s.Cb + cb) * s.H + y) * s.W + b - s.padding) * L
                        read(lanes, source, V, at, first, last, s.w, place, s.stride, cb * L, s.Cb * L)


@part
def plain_columns(lanes, s, source, V, T, ua, ub):
    """`columns` of images as they are given, x c0 + c1 of each: number (a, b, c) lies in lane l of block q, q L + l."""
    L = len(lanes)
    _, x, _, c = source
    fill(V, 0, s.Q * T * L)
    for a in range(s.kh):
        for b in range(s.kw):
            first, last = span(s.W, b, s.stride, s.padding, s.w)
            for ch in range(s.C):
                d = (a * s.kw + b) * s.C + ch
                v0 = d // L * T * L + d % L
                scale, move = c[ch], c[s.C + ch]
                for u in range(ua, ub):
                    n, i = u // s.h, u % s.h
                    y = s.stride * i + a - s.padding
                    if 0 <= y < s.H:
                        place = ((n * s.C + ch) * s.H + y) * s.W + b - s.padding
                        at = v0 + (u - ua) * s.w * L
                        for j in range(first, last):
                            V[at + j * L] = scale * x[place + j * s.stride] + move


@part
def gradients(lanes, s, source, V, v0, T, k0, k1, ua, ub):
    """V[kb][t] of the gradients by the answers, rows ua..ub, blocks k0..k1."""
    stands_alone()
    L = len(lanes)
    for kb in range(k0, k1):
        for u in range(ua, ub):
            n, i = u // s.h, u % s.h
            place = ((n * s.Kb + kb) * s.h + i) * s.w * L
            read(lanes, source, V, v0 + ((kb - k0) * T + (u - ua) * s.w) * L, Z0, s.w, s.w, place, 1, kb * L, s.Kb * L)


# ------------------------------------------------------------------ products
@part
def multiply(lanes, M, m0, V, v0, P, p0, T, n, Q, Kb):
    """M[kb][t] = sum over q, l of V[q][t][l] P[panel][q][l], t < n, a multiple of ROWS; depth blocks T L apart."""
    stands_alone()
    L = len(lanes)
    most = max(DEPTH // L, 1)
    passes = (Q + most - 1) // most
    step = (Q + passes - 1) // passes
    for q in range(0, Q, step):
        depth, more = min(step, Q - q), q > 0
        for kb in range(0, Kb, 2):
            p, m = p0 + kb * Q * L * L, m0 + kb * T * L
            if kb + 1 < Kb:
                p += q * L * 2 * L
                for t in range(0, n, ROWS):
                    tile(lanes, ROWS, 2, 0, M, m + t * L, L, T * L, V, v0 + (q * T + t) * L, T * L, P, p, Z0,
                         2 * L * L, L, depth, more)  # fmt: skip
            else:
                p += q * L * L
                for t in range(0, n, ROWS):
                    tile(lanes, ROWS, 1, 0, M, m + t * L, L, T * L, V, v0 + (q * T + t) * L, T * L, P, p, Z0,
                         L * L, L, depth, more)  # fmt: skip


@part
def correlate(lanes, D, d0, V, v0, G, g0, T, n, Q, k0, k1, Kb, more):
    """D[panel][q][l] [+]= sum over t < n, even, of V[q][t][l] G[kb][t]; blocks k0..k1 of Kb, k0 even, are in G."""
    stands_alone()
    L = len(lanes)
    rows = min(L, ROWS)
    for kb in range(k0, k1, 2):
        d, g = d0 + kb * Q * L * L, g0 + (kb - k0) * T * L
        for q in range(Q):
            v = v0 + q * T * L
            for l in range(0, L, rows):
                if kb + 1 < Kb:
                    at = d + (q * L + l) * 2 * L
                    if L == 2:
                        tile(lanes, 2, 2, 1, D, at, 2 * L, L, V, v + l, Z0, G, g, T * L, Z0, n, 1, more)
                    elif L == 4 or ROWS == 4:
                        tile(lanes, 4, 2, 1, D, at, 2 * L, L, V, v + l, Z0, G, g, T * L, Z0, n, 1, more)
                    else:
                        tile(lanes, 8, 2, 1, D, at, 2 * L, L, V, v + l, Z0, G, g, T * L, Z0, n, 1, more)
                else:
                    at = d + (q * L + l) * L
                    if L == 2:
                        tile(lanes, 2, 1, 1, D, at, L, L, V, v + l, Z0, G, g, T * L, Z0, n, 1, more)
                    elif L == 4 or ROWS == 4:
                        tile(lanes, 4, 1, 1, D, at, L, L, V, v + l, Z0, G, g, T * L, Z0, n, 1, more)
                    else:
                        tile(lanes, 8, 1, 1, D, at, L, L, V, v + l, Z0, G, g, T * L, Z0, n, 1, more)


# ------------------------------------------------------------------ out
@part
def write(lanes, target, place, n, M, m0, c0, c_step, q0):
    """`write_row` by the target's epilogue, whose images lie as the answer does."""
    stands_alone()
    kind, y, z, r, o, c, sums = target
    if kind == 0:
        write_row(lanes, 0, y, place, n, M, m0, z, place, r, place, o, place, c, c0, c_step, sums, q0, c_step)
    elif kind == SUMS:
        write_row(lanes, 1, y, place, n, M, m0, z, place, r, place, o, place, c, c0, c_step, sums, q0, c_step)
    elif kind == RESIDUAL:
        write_row(lanes, 2, y, place, n, M, m0, z, place, r, place, o, place, c, c0, c_step, sums, q0, c_step)
    elif kind == NORM:
        write_row(lanes, 16, y, place, n, M, m0, z, place, r, place, o, place, c, c0, c_step, sums, q0, c_step)
    elif kind == MASK_Z | NORM:
        write_row(lanes, 20, y, place, n, M, m0, z, place, r, place, o, place, c, c0, c_step, sums, q0, c_step)
    elif kind == MASK_Z | NORM | RESIDUAL:
        write_row(lanes, 22, y, place, n, M, m0, z, place, r, place, o, place, c, c0, c_step, sums, q0, c_step)
    elif kind == MASK_O | NORM:
        write_row(lanes, 24, y, place, n, M, m0, z, place, r, place, o, place, c, c0, c_step, sums, q0, c_step)
    elif kind == MASK_O | NORM | RESIDUAL:
        write_row(lanes, 26, y, place, n, M, m0, z, place, r, place, o, place, c, c0, c_step, sums, q0, c_step)
    elif kind == MASK_O:
        write_row(lanes, 8, y, place, n, M, m0, z, place, r, place, o, place, c, c0, c_step, sums, q0, c_step)
    else:
        write_row(lanes, 10, y, place, n, M, m0, z, place, r, place, o, place, c, c0, c_step, sums, q0, c_step)


# ------------------------------------------------------------------ kernels: thread `tid` of `nt`
@part
def convolve(lanes, s, source, target, P, bias, work, tid, nt):
    """target <- the convolution of what the source reads, plus a bias per channel."""
    L = len(lanes)
    T = (s.rows * s.w + ROWS - 1) // ROWS * ROWS
    chunks, m0 = (s.N * s.h + s.rows - 1) // s.rows, s.Q * T * L
    biased = len(bias) > 0
    for chunk in range(chunks * tid // nt, chunks * (tid + 1) // nt):
        ua = chunk * s.rows
        ub = min(ua + s.rows, s.N * s.h)
        n = (ub - ua) * s.w
        columns(lanes, s, source, work, T, ua, ub)
        multiply(lanes, work, m0, work, 0, P, 0, T, (n + ROWS - 1) // ROWS * ROWS, s.Q, s.Kb)
        q0 = chunk * 2 * s.Kb * L
        for i in range(q0, min(q0 + 2 * s.Kb * L, len(target.sums))):
            target.sums[i] = 0.0
        for kb in range(s.Kb):
            if biased:
                for i in range(n * L):
                    work[m0 + kb * T * L + i] += bias[kb * L + i % L]
            for u in range(ua, ub):
                k, i = u // s.h, u % s.h
                place = ((k * s.Kb + kb) * s.h + i) * s.w * L
                m = m0 + (kb * T + (u - ua) * s.w) * L
                write(lanes, target, place, s.w, work, m, kb * L, s.Kb * L, q0 + kb * L)


@part
def input_gradient(lanes, s, source, target, P, work, tid, nt):
    """target <- the gradient by the image, from that by the answers, with the weights turned: every window's share is
    added where the window lies."""
    L = len(lanes)
    T = (s.images * s.h * s.w + ROWS - 1) // ROWS * ROWS
    chunks, m0 = (s.N + s.images - 1) // s.images, s.Kb * T * L
    line = m0 + s.Q * T * L
    width = s.W + 2 * s.padding + s.stride + s.kw
    for chunk in range(chunks * tid // nt, chunks * (tid + 1) // nt):
        na = chunk * s.images
        nb = min(na + s.images, s.N)
        n = (nb - na) * s.h * s.w
        gradients(lanes, s, source, work, 0, T, 0, s.Kb, na * s.h, nb * s.h)
        multiply(lanes, work, m0, work, 0, P, 0, T, (n + ROWS - 1) // ROWS * ROWS, s.Kb, s.Q)
        if s.plain:
            plain_shares(lanes, s, target, work, m0, T, na, nb, source)
            continue
        q0 = chunk * 2 * s.Cb * L
        for i in range(q0, min(q0 + 2 * s.Cb * L, len(target.sums))):
            target.sums[i] = 0.0
        for cb in range(s.Cb):
            for k in range(na, nb):
                for y in range(s.H):
                    fill(work, line, width * L)
                    for a in range(s.kh):
                        i = y + s.padding - a
                        if i < 0 or i % s.stride or i // s.stride >= s.h:
                            continue
                        for b in range(s.kw):
                            m = m0 + (((a * s.kw + b) * s.Cb + cb) * T + ((k - na) * s.h + i // s.stride) * s.w) * L
                            add_row(lanes, work, line + b * L, s.stride, work, m, s.w)
                    place = ((k * s.Cb + cb) * s.H + y) * s.W * L
                    write(lanes, target, place, s.W, work, line + s.padding * L, cb * L, s.Cb * L, q0 + cb * L)


@part
def plain_shares(lanes, s, target, M, m0, T, na, nb, source):
    """The shares of images as they are given, times c0 of what was read of them."""
    L = len(lanes)
    y, c = target.y, target.c
    size = s.C * s.H * s.W
    fill(y, na * size, (nb - na) * size)
    for a in range(s.kh):
        for b in range(s.kw):
            first, last = span(s.W, b, s.stride, s.padding, s.w)
            for ch in range(s.C):
                d = (a * s.kw + b) * s.C + ch
                for n in range(na, nb):
                    for i in range(s.h):
                        row = s.stride * i + a - s.padding
                        if 0 <= row < s.H:
                            at = ((n * s.C + ch) * s.H + row) * s.W + b - s.padding
                            m = m0 + (d // L * T + ((n - na) * s.h + i) * s.w) * L + d % L
                            for j in range(first, last):
                                y[at + j * s.stride] += c[ch] * M[m + j * L]


@part
def weight_gradient(lanes, s, source, slopes, D, work, tid, nt):
    """D[group][panel][q][l] = the gradient by packed weights of a group of chunks; `slopes` reads the answers'."""
    L = len(lanes)
    T = (s.rows * s.w + 1) // 2 * 2
    chunks, g0 = (s.N * s.h + s.rows - 1) // s.rows, s.Q * T * L
    for group in range(s.groups * tid // nt, s.groups * (tid + 1) // nt):
        more = False
        for chunk in range(chunks * group // s.groups, chunks * (group + 1) // s.groups):
            ua = chunk * s.rows
            ub = min(ua + s.rows, s.N * s.h)
            n = (ub - ua) * s.w
            columns(lanes, s, source, work, T, ua, ub)
            gradients(lanes, s, slopes, work, g0, T, 0, s.Kb, ua, ub)
            if n % 2:
                for block in range(s.Q + s.Kb):
                    fill(work, (block * T + n) * L, L)
            d0, even = group * s.Q * L * s.Kb * L, (n + 1) // 2 * 2
            correlate(lanes, D, d0, work, 0, work, g0, T, even, s.Q, 0, s.Kb, s.Kb, more)
            more = True


# ------------------------------------------------------------------ weights in and out
@part
def depth_of(s, L, c, a, b):
    """Block and lane of weight (c, a, b) in a column."""
    if s.plain:
        d = (a * s.kw + b) * s.C + c
        return d // L, d % L
    return (a * s.kw + b) * s.Cb + c // L, c % L


@part
def pack(lanes, s, V, P, turned, work, tid, nt):
    """P of weights V (O, C, kh, kw), 0 elsewhere; `turned` 1: for the input gradient, whose panels are depth blocks."""
    L = len(lanes)
    O = len(V) // (s.C * s.kh * s.kw)
    outer, inner = (s.Q, s.Kb) if turned else (s.Kb, s.Q)  # blocks of panels, of their depth
    for pair in range((outer + 1) // 2 * tid // nt, (outer + 1) // 2 * (tid + 1) // nt):
        fill(P, 2 * pair * inner * L * L, min(2, outer - 2 * pair) * inner * L * L)
    size = s.C * s.kh * s.kw
    first, last = (outer + 1) // 2 * tid // nt, (outer + 1) // 2 * (tid + 1) // nt
    for c in range(s.C):
        for a in range(s.kh):
            for b in range(s.kw):
                q, l = depth_of(s, L, c, a, b)
                v = (c * s.kh + a) * s.kw + b
                if turned:
                    if first <= q // 2 < last:
                        wide = min(2, outer - q // 2 * 2) * L
                        at = q // 2 * 2 * inner * L * L + (q % 2) * L + l
                        for o in range(O):
                            P[at + o * wide] = V[o * size + v]
                else:
                    for pair in range(first, last):
                        wide = min(2, outer - 2 * pair) * L
                        at = 2 * pair * inner * L * L + (q * L + l) * wide
                        for o in range(2 * pair * L, min(O, 2 * pair * L + wide)):
                            P[at + o - 2 * pair * L] = V[o * size + v]


@part
def unpack(lanes, s, D, V, work, tid, nt):
    """V (O, C, kh, kw) = the sum of D over groups, in order."""
    L = len(lanes)
    O = len(V) // (s.C * s.kh * s.kw)
    size = s.Q * L * s.Kb * L
    pairs = (s.Kb + 1) // 2
    for pair in range(pairs * tid // nt, pairs * (tid + 1) // nt):
        wide = min(2, s.Kb - 2 * pair) * L
        for c in range(s.C):
            for a in range(s.kh):
                for b in range(s.kw):
                    q, l = depth_of(s, L, c, a, b)
                    place = 2 * pair * s.Q * L * L + (q * L + l) * wide
                    for o in range(min(wide, O - 2 * pair * L)):
                        total = D[place + o]
                        for group in range(1, s.groups):
                            total += D[group * size + place + o]
                        V[(((2 * pair * L + o) * s.C + c) * s.kh + a) * s.kw + b] = total

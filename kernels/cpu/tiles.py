"""The register tile of the CPU engine: the one inner loop of every product.

A tile is C (r, B) = sum_t A[r, t] X[t, :] for r <= MR rows and one block of B = 2 V lanes: 12 accumulators, two
registers of inputs, one scalar broadcast.  All products of the network are made of it:

================  ====================================  ==============
product           formula                               lanes
================  ====================================  ==============
preactivations    Z[a, l] = sum_j W[a, j] X[j, l]       patches l
input gradient    D[j, l] = sum_a W[a, j] G[a, l]       patches l
weight gradient   dW[a, j] = sum_l G[a, l] X[j, l]      coordinates j
================  ====================================  ==============
"""

import numpy as np
from numba import types
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic

from ..jit import part, stands_alone
from .vectors import BLOCK_BYTES, Vectors

MR = 6  # rows of a tile: 12 accumulators + 2 inputs + 1 broadcast fill AVX2's 16 registers
I0, I1, NO, YES = np.int64(0), np.int64(1), np.bool_(False), np.bool_(True)  # kernels are compiled anew per literal


def _multiply(v, sums, at_a, a_row, a_depth, at_x, depth):
    """sums[r] += sum over t < depth of A[r, t] X[t, :]: the inner loop.

    Every row of A has an address of its own, hidden from the compiler, which would else step from row to row by
    additions that wait for each other.
    """
    rows = [v.opaque(v.row(at_a, r, a_row)) for r in range(len(sums))]

    def step(t):
        row = v.row(at_x, t, 2 * v.lanes)
        x = [v.load(row, h) for h in range(2)]
        for at, pair in zip(rows, sums, strict=True):
            a = v.splat(v.builder.load(v.row(at, t, a_depth)))
            for total, x_h in zip(pair, x, strict=True):
                v.builder.store(v.fma(a, x_h, v.builder.load(total)), total)

    v.loop(depth, step)


@intrinsic
def _tile(typingctx, n, C, c0, c_row, A, a0, a_row, a_depth, a_outer, X, x0, x_outer, depth, outer, more):
    """C[r] (B) = [C[r] +] sum over o < outer and t < depth of A[r, t, o] X[o, t, :], r < n (literal)."""
    if not isinstance(n, types.IntegerLiteral):
        raise RequireLiteralValue(n)

    def codegen(context, builder, signature, args):
        _, vC, vc0, vc_row, vA, va0, va_row, va_depth, va_outer, vX, vx0, vx_outer, vdepth, vouter, vmore = args
        v = Vectors(context, builder, C)
        at_c, at_a, at_x = v.pointer(C, vC, vc0), v.pointer(A, vA, va0), v.pointer(X, vX, vx0)
        sums = [v.variables(2) for _ in range(n.literal_value)]
        with builder.if_then(vmore):
            for r, pair in enumerate(sums):
                for h, total in enumerate(pair):
                    builder.store(v.load(v.row(at_c, r, vc_row), h), total)

        def long(o):
            _multiply(v, sums, v.row(at_a, o, va_outer), va_row, va_depth, v.row(at_x, o, vx_outer), vdepth)

        v.loop(vouter, long)
        for r, pair in enumerate(sums):
            for h, total in enumerate(pair):
                v.store(builder.load(total), v.row(at_c, r, vc_row), h)
        return context.get_dummy_value()

    i, b = types.intp, types.boolean
    return types.void(n, C, i, i, A, i, i, i, i, X, i, i, i, i, b), codegen


@part
def product(C, c, A, a, X, x, rows, depth, outer, blocks, more):
    """For every block of lanes: C (rows, B) = [C +] sum over o < outer and t < depth of A[r, t, o] X[o, t, :].

    c = (C's first number, strides of rows and blocks), a = (A's first, strides of rows, of t, of o), x = (X's first,
    strides of o and blocks); X's t are B apart.  `more`: C is added to.
    """
    stands_alone()
    tiles = (rows + MR - 1) // MR
    height = (rows + tiles - 1) // tiles  # even heights: 10 rows are 5 + 5
    (_, c1, c2), (_, a1, a2, a3), (_, x1, x2) = c, a, x
    for b in range(blocks):
        x0 = x[0] + b * x2
        for r in range(0, rows, height):
            n, c0, a0 = min(height, rows - r), c[0] + b * c2 + r * c1, a[0] + r * a1
            if n == 6:
                _tile(6, C, c0, c1, A, a0, a1, a2, a3, X, x0, x1, depth, outer, more)
            elif n == 5:
                _tile(5, C, c0, c1, A, a0, a1, a2, a3, X, x0, x1, depth, outer, more)
            elif n == 4:
                _tile(4, C, c0, c1, A, a0, a1, a2, a3, X, x0, x1, depth, outer, more)
            elif n == 3:
                _tile(3, C, c0, c1, A, a0, a1, a2, a3, X, x0, x1, depth, outer, more)
            elif n == 2:
                _tile(2, C, c0, c1, A, a0, a1, a2, a3, X, x0, x1, depth, outer, more)
            else:
                _tile(1, C, c0, c1, A, a0, a1, a2, a3, X, x0, x1, depth, outer, more)


@intrinsic
def _tile_climb(typingctx, m, Xa, a0, X, x0, W, w0, row, d, q, rho, inverse, step, eps):
    """Xa <- X + clip_eps(step * D), D[j, :] = -sum_r sigma'(Z[r, :]) W[r, j], Z[r, :] = sum_j W[r, j] X[j, :]; r < m
    (literal)."""
    if not isinstance(m, types.IntegerLiteral):
        raise RequireLiteralValue(m)

    def codegen(context, builder, signature, args):
        _, vXa, va0, vX, vx0, vW, vw0, vrow, vd, vq, vrho, vinverse, vstep, veps = args
        v = Vectors(context, builder, X)
        at_a, at_x, at_w = v.pointer(Xa, vXa, va0), v.pointer(X, vX, vx0), v.pointer(W, vW, vw0)
        step, high, low = v.splat(vstep), v.splat(veps), v.splat(builder.fneg(veps))
        sums = [v.variables(2) for _ in range(m.literal_value)]
        _multiply(v, sums, at_w, vrow, 1, at_x, vd)
        _, slopes = v.sigma([builder.load(total) for pair in sums for total in pair], vq, vrho, vinverse)
        slopes = [builder.fneg(s) for s in slopes]

        def body(j):
            a, x, first = v.row(at_a, j, 2 * v.lanes), v.row(at_x, j, 2 * v.lanes), v.at(at_w, j)
            w = [v.splat(builder.load(v.row(first, r, vrow))) for r in range(m.literal_value)]
            for h in range(2):
                total = v.zero
                for w_r, slope in zip(w, slopes[h::2], strict=True):
                    total = v.fma(w_r, slope, total)
                delta = v.clip(builder.fmul(step, total), low, high)
                v.store(builder.fadd(v.load(x, h), delta), a, h)

        v.loop(vd, body)
        return context.get_dummy_value()

    i, number = types.intp, X.dtype
    return types.void(m, Xa, i, X, i, W, i, i, i, i, number, number, number, number), codegen


@part
def climb_product(net, r, label, X, x0, blocks, step, eps, Xa, a0):
    """Xa <- X + clip_eps(step grad (-F_label)) on blocks of one label alone, the slopes of the label's
    4 <= m <= MR neurons in registers."""
    stands_alone()
    m, size = net.m, net.d * (BLOCK_BYTES // X.itemsize)
    w, row, q, rho, inverse = (r * net.k + label) * m * net.row, net.row, net.q, net.rho, net.inverse
    for b in range(blocks):
        x, a = x0 + b * size, a0 + b * size
        if m == 6:
            _tile_climb(6, Xa, a, X, x, net.W, w, row, net.d, q, rho, inverse, step, eps)
        elif m == 5:
            _tile_climb(5, Xa, a, X, x, net.W, w, row, net.d, q, rho, inverse, step, eps)
        else:
            _tile_climb(4, Xa, a, X, x, net.W, w, row, net.d, q, rho, inverse, step, eps)

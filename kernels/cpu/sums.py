"""From class sums of lanes to coefficients of lanes: sums over patches, exponentials, factors."""

import math

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .vectors import Vectors

index = types.intp
LOG2_HIGH = 6.93147180369123816490e-01  # the first 32 bits of log(2): times a number of turns, exact
LOG2_LOW = 1.90821492927058770002e-10  # log(2) - LOG2_HIGH


@intrinsic
def tile_sum(typingctx, f, f0, times, l0, lanes):
    """sum over lanes of f[f0 + lane] * times[l0 + lane] in float64: register sums, then a tree over their lanes.

    Reads up to V - 1 numbers past the last lane of both arrays; they do not count.
    """

    def codegen(context, builder, signature, args):
        vf, vf0, vtimes, vl0, vlanes = args
        v = Vectors(context, builder, f)
        at_f, at_t = v.pointer(f, vf, vf0), v.pointer(times, vtimes, vl0)
        wide = ir.VectorType(ir.DoubleType(), v.lanes)
        total = cgutils.alloca_once_value(builder, ir.Constant(wide, [0.0] * v.lanes))
        whole = builder.sdiv(vlanes, v.word(v.lanes))

        def product(i):
            return builder.fmul(v.load(v.row(at_f, i, v.lanes)), v.load(v.row(at_t, i, v.lanes)))

        def add(x):
            x = x if v.bits == 64 else builder.fpext(x, wide)
            builder.store(builder.fadd(builder.load(total), x), total)

        v.loop(whole, lambda i: add(product(i)))
        left = builder.sub(vlanes, builder.mul(whole, v.word(v.lanes)))
        with builder.if_then(builder.icmp_signed(">", left, v.word(0))):
            kind, number = ir.VectorType(ir.IntType(32), v.lanes), ir.VectorType(v.word, v.lanes)
            undefined = ir.Constant(number, ir.Undefined)
            first = builder.insert_element(undefined, left, ir.IntType(32)(0))
            left = builder.shuffle_vector(first, undefined, ir.Constant(kind, [0] * v.lanes))
            inside = builder.icmp_signed(">", left, ir.Constant(number, list(range(v.lanes))))
            add(builder.select(inside, product(whole), v.zero))
        value, n = builder.load(total), v.lanes
        while n > 1:
            n //= 2
            kind, undefined = ir.VectorType(ir.IntType(32), n), ir.Constant(value.type, ir.Undefined)
            low = builder.shuffle_vector(value, undefined, ir.Constant(kind, list(range(n))))
            high = builder.shuffle_vector(value, undefined, ir.Constant(kind, list(range(n, 2 * n))))
            value = builder.fadd(low, high)
        return builder.extract_element(value, ir.IntType(32)(0))

    return types.float64(f, index, times, index, index), codegen


def exponential(v, x):
    """exp(x) of a register of float64 numbers <= 0, to 1 ulp; 0 below -700.

    exp(x) = 2^i exp(r), |r| <= log(2)/2: i by adding 1.5 * 2^52, exp(r) by its Taylor polynomial of degree 13.
    """
    builder, words, shift = v.builder, ir.VectorType(v.word, v.lanes), v.constant(1.5 * 2.0**52)
    moved = v.fma(v.clip(x, v.constant(-700.0), v.zero), v.constant(1 / math.log(2)), shift)
    turns = builder.fsub(moved, shift)
    r = v.fma(turns, v.constant(-LOG2_HIGH), v.clip(x, v.constant(-700.0), v.zero))
    r = v.fma(turns, v.constant(-LOG2_LOW), r)
    total = v.constant(1 / math.factorial(13))
    for power in range(12, -1, -1):
        total = v.fma(total, r, v.constant(1 / math.factorial(power)))
    bits = builder.shl(builder.bitcast(moved, words), ir.Constant(words, [52] * v.lanes))
    bits = builder.add(bits, ir.Constant(words, [1023 << 52] * v.lanes))
    total = builder.fmul(total, builder.bitcast(bits, v.type))
    return v.where("<", x, v.constant(-700.0), v.zero, total)


@intrinsic
def exponentials(typingctx, table, n):
    """table[:n] <- exp(table[:n]), float64 numbers <= 0, as :func:`exponential`.  Rounds n up to whole registers."""

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, signature.args[0])
        at = v.pointer(signature.args[0], args[0], v.word(0))

        def body(i):
            here = v.row(at, i, v.lanes)
            v.store(exponential(v, v.load(here)), here)

        v.loop(builder.sdiv(builder.add(args[1], v.word(v.lanes - 1)), v.word(v.lanes)), body)
        return context.get_dummy_value()

    return types.void(table, index), codegen


@intrinsic
def tile_spread(typingctx, T, t0, weight, w0, registers, value, flat):
    """T[t0 : t0 + V registers] <- value * weight[w0 : ...]; with `flat`, value where the weight is not 0."""

    def codegen(context, builder, signature, args):
        vT, vt0, vweight, vw0, vregisters, vvalue, vflat = args
        v = Vectors(context, builder, T)
        at_t, at_w = v.pointer(T, vT, vt0), v.pointer(weight, vweight, vw0)
        all_lanes = v.splat(vvalue)

        def body(i):
            w = v.load(v.row(at_w, i, v.lanes))
            w = builder.select(vflat, v.where(">", w, v.zero, v.one, v.zero), w)
            v.store(builder.fmul(all_lanes, w), v.row(at_t, i, v.lanes))

        v.loop(vregisters, body)
        return context.get_dummy_value()

    return types.void(T, index, weight, index, index, T.dtype, types.boolean), codegen


@intrinsic
def tile_scale(typingctx, S, s0, rows, T, t0):
    """S[r, :] *= T[t0 : t0 + B], r < rows, on one block of lanes."""

    def codegen(context, builder, signature, args):
        vS, vs0, vrows, vT, vt0 = args
        v = Vectors(context, builder, S)
        at_s, at_t = v.pointer(S, vS, vs0), v.pointer(T, vT, vt0)
        factor = [v.load(at_t, h) for h in range(2)]

        def body(r):
            at = v.row(at_s, r, 2 * v.lanes)
            for h in range(2):
                v.store(builder.fmul(v.load(at, h), factor[h]), at, h)

        v.loop(vrows, body)
        return context.get_dummy_value()

    return types.void(S, index, index, T, index), codegen


@intrinsic
def tile_weigh(typingctx, S, s0, rows, weight, w0, value, flat):
    """S[r, :] *= value * weight[w0 : w0 + B], r < rows, on one block of lanes; with `flat`, value where that is > 0."""

    def codegen(context, builder, signature, args):
        vS, vs0, vrows, vweight, vw0, vvalue, vflat = args
        v = Vectors(context, builder, S)
        at_s, at_w, value = v.pointer(S, vS, vs0), v.pointer(weight, vweight, vw0), v.splat(vvalue)
        factor = [v.load(at_w, h) for h in range(2)]
        factor = [builder.select(vflat, v.where(">", w, v.zero, v.one, v.zero), w) for w in factor]
        factor = [builder.fmul(value, w) for w in factor]

        def body(r):
            at = v.row(at_s, r, 2 * v.lanes)
            for h in range(2):
                v.store(builder.fmul(v.load(at, h), factor[h]), at, h)

        v.loop(vrows, body)
        return context.get_dummy_value()

    return types.void(S, index, index, weight, index, S.dtype, types.boolean), codegen

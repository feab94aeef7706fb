"""Register tiles of the CPU engine: the two inner loops of every product, as vector code for this machine.

A *block* is B = 2 V lanes, two SIMD registers of V numbers.  `product` streams a block through tiles of MR rows,
`gram` reduces blocks to tiles of GA x GJ weights; both keep 12 accumulators in registers.  The vectors are explicit
LLVM types, so no auto-vectoriser decides about speed, and the order of every sum is written here, so no compiler
decides about bits.
"""

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic

from .jit import part, stands_alone

_FEATURES = llvm.get_host_cpu_features()
VECTOR_BYTES = 64 if _FEATURES.get("avx512f") else 32 if _FEATURES.get("avx2") else 16
BLOCK_BYTES = 2 * VECTOR_BYTES  # B = BLOCK_BYTES // itemsize lanes
MR = 6  # neurons per product tile: 12 accumulators + 2 inputs + 1 broadcast fill AVX2's 16 registers
I0, I1, NO, YES = np.int64(0), np.int64(1), np.bool_(False), np.bool_(True)  # kernels are compiled anew per literal
GA, GJ = 6, 2  # weights per gram tile: 12 accumulators, 8 loads for 12 multiply-adds; measured above 4x3, 5x2, 3x4


def _vector(array_type):
    single = array_type.dtype == types.float32
    lanes = VECTOR_BYTES // (4 if single else 8)
    return ir.VectorType(ir.FloatType() if single else ir.DoubleType(), lanes), lanes


def _pointer(context, builder, array_type, value, offset):
    return builder.gep(context.make_array(array_type)(context, builder, value).data, [offset])


def _load(builder, vector, pointer, offset):
    at = builder.bitcast(builder.gep(pointer, [ir.IntType(64)(offset)]), vector.as_pointer())
    return builder.load(at, align=4)


def _store(builder, vector, value, pointer, offset):
    at = builder.bitcast(builder.gep(pointer, [ir.IntType(64)(offset)]), vector.as_pointer())
    builder.store(value, at, align=4)


def _prefetch(builder, pointer, offset):
    """Bring the cache line at `pointer + offset` nearer."""
    word, at = ir.IntType(32), builder.gep(pointer, [ir.IntType(64)(offset)])
    kind = ir.FunctionType(ir.VoidType(), [at.type, word, word, word])
    call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch")
    builder.call(call, [at, word(0), word(3), word(1)])


def _fma(builder, vector, lanes, a, b, c):
    name = f"llvm.fma.v{lanes}f{32 if isinstance(vector.element, ir.FloatType) else 64}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
    return builder.call(function, [a, b, c])


def _broadcast(builder, vector, lanes, scalar):
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))


def _rows(builder, count, body):
    """for r in range(count): body(r), as an LLVM loop that is never unrolled: tiles are wide enough as they are.

    The remaining count passes through an empty assembly statement, so no trip count is known; unrolled copies of every
    tile would quadruple the time of compilation.
    """
    word = count.type
    before, loop, after = builder.block, builder.append_basic_block("rows"), builder.append_basic_block("rows.end")
    builder.cbranch(builder.icmp_signed(">", count, word(0)), loop, after)
    builder.position_at_end(loop)
    r, left = builder.phi(word), builder.phi(word)
    r.add_incoming(word(0), before)
    left.add_incoming(count, before)
    body(r)
    fewer = builder.sub(left, word(1))
    fewer = builder.asm(ir.FunctionType(word, [word]), "", "=r,0", [fewer], False)
    r.add_incoming(builder.add(r, word(1)), builder.block)
    left.add_incoming(fewer, builder.block)
    builder.cbranch(builder.icmp_signed(">", fewer, word(0)), loop, after)
    builder.position_at_end(after)


def _accumulators(builder, vector, lanes, n):
    zero = ir.Constant(vector, [0.0] * lanes)
    return [cgutils.alloca_once_value(builder, zero) for _ in range(n)]


@intrinsic
def _tile_product(typingctx, rows, C, c0, A, a0, a_row, a_depth, X, x0, depth):
    """C[r, :] = sum_t A[a0 + r*a_row + t*a_depth] X[t, :], r < rows (literal), on one block of lanes."""
    if not isinstance(rows, types.IntegerLiteral):
        raise RequireLiteralValue(rows)
    n_rows = rows.literal_value

    def codegen(context, builder, signature, args):
        _, vC, vc0, vA, va0, va_row, va_depth, vX, vx0, vdepth = args
        vector, lanes = _vector(C)
        pointer_c = _pointer(context, builder, C, vC, vc0)
        pointer_a = _pointer(context, builder, A, vA, va0)
        pointer_x = _pointer(context, builder, X, vX, vx0)
        word = vc0.type
        acc = _accumulators(builder, vector, lanes, 2 * n_rows)

        def body(t):
            x_at = builder.gep(pointer_x, [builder.mul(t, word(2 * lanes))])
            x = [_load(builder, vector, x_at, h * lanes) for h in range(2)]
            a_at = builder.gep(pointer_a, [builder.mul(t, va_depth)])
            for r in range(n_rows):
                a = builder.load(builder.gep(a_at, [builder.mul(va_row, word(r))]))
                a = _broadcast(builder, vector, lanes, a)
                for h in range(2):
                    total = builder.load(acc[2 * r + h])
                    builder.store(_fma(builder, vector, lanes, a, x[h], total), acc[2 * r + h])

        _rows(builder, vdepth, body)
        for r, total in enumerate(acc):
            _store(builder, vector, builder.load(total), pointer_c, r * lanes)
        return context.get_dummy_value()

    index = types.intp
    return types.void(rows, C, index, A, index, index, index, X, index, index), codegen


@intrinsic
def _tile_gram(typingctx, C, c0, c_row, G, g0, g_block, X, x0, x_block, blocks):
    """C[r, s] = sum over blocks and lanes of G[r, l] X[s, l] for a tile of GA x GJ weights."""

    def codegen(context, builder, signature, args):
        vC, vc0, vc_row, vG, vg0, vg_block, vX, vx0, vx_block, vblocks = args
        vector, lanes = _vector(C)
        pointer_c = _pointer(context, builder, C, vC, vc0)
        pointer_g = _pointer(context, builder, G, vG, vg0)
        pointer_x = _pointer(context, builder, X, vX, vx0)
        word = vc0.type
        acc = _accumulators(builder, vector, lanes, GA * GJ)

        def body(b):
            g_at = builder.gep(pointer_g, [builder.mul(b, vg_block)])
            x_at = builder.gep(pointer_x, [builder.mul(b, vx_block)])
            for s in range(GJ):  # the next tile's inputs: blocks lie pages apart, out of the hardware's sight
                _prefetch(builder, x_at, 2 * (GJ + s) * lanes)
            for h in range(2):
                x = [_load(builder, vector, x_at, (2 * s + h) * lanes) for s in range(GJ)]
                for r in range(GA):
                    g = _load(builder, vector, g_at, (2 * r + h) * lanes)
                    for s in range(GJ):
                        total = builder.load(acc[r * GJ + s])
                        builder.store(_fma(builder, vector, lanes, g, x[s], total), acc[r * GJ + s])

        _rows(builder, vblocks, body)
        for r in range(GA):
            for s in range(GJ):
                total, n = builder.load(acc[r * GJ + s]), lanes
                while n > 1:  # a fixed tree over the lanes
                    n //= 2
                    half = ir.VectorType(ir.IntType(32), n)
                    undefined = ir.Constant(total.type, ir.Undefined)
                    low = builder.shuffle_vector(total, undefined, ir.Constant(half, list(range(n))))
                    high = builder.shuffle_vector(total, undefined, ir.Constant(half, list(range(n, 2 * n))))
                    total = builder.fadd(low, high)
                value = builder.extract_element(total, ir.Constant(ir.IntType(32), 0))
                builder.store(value, builder.gep(pointer_c, [builder.add(builder.mul(vc_row, word(r)), word(s))]))
        return context.get_dummy_value()

    index = types.intp
    return types.void(C, index, index, G, index, index, X, index, index, index), codegen


@intrinsic
def tile_sigma(typingctx, slopes, S, s0, m, q, rho, shift, h0, factor, f, f0):
    """f (B) = sum_r sigma(z_r), z_r = S[r, :], or with `slopes` (literal) False z_r = S[r, :] + factor * shift[r].

    sigma(z) = (rho/q) v^q + max(z - rho, 0), v = clip(z / rho, 0, 1); NaN passes through.  With `slopes` True, S[r, :]
    is left with sigma'(z_r) = v^(q-1).
    """
    if not isinstance(slopes, types.BooleanLiteral):
        raise RequireLiteralValue(slopes)
    keep_slopes = slopes.literal_value

    def codegen(context, builder, signature, args):
        _, vS, vs0, vm, vq, vrho, vshift, vh0, vfactor, vf, vf0 = args
        vector, lanes = _vector(S)
        pointer_s = _pointer(context, builder, S, vS, vs0)
        pointer_h = _pointer(context, builder, shift, vshift, vh0)
        pointer_f = _pointer(context, builder, f, vf, vf0)
        word = vs0.type
        zero, one = (ir.Constant(vector, [value] * lanes) for value in (0.0, 1.0))
        rho_all = _broadcast(builder, vector, lanes, vrho)
        part = builder.fdiv(vrho, builder.sitofp(vq, vector.element))
        part = _broadcast(builder, vector, lanes, part)
        acc = _accumulators(builder, vector, lanes, 2)
        power = _accumulators(builder, vector, lanes, 2)

        def body(r):
            at = builder.gep(pointer_s, [builder.mul(r, word(2 * lanes))])
            z = [_load(builder, vector, at, h * lanes) for h in range(2)]
            if not keep_slopes:
                move = builder.fmul(vfactor, builder.load(builder.gep(pointer_h, [r])))
                z = [builder.fadd(x, _broadcast(builder, vector, lanes, move)) for x in z]
            v = [builder.fdiv(x, rho_all) for x in z]
            v = [builder.select(builder.fcmp_ordered("<", x, zero), zero, x) for x in v]
            v = [builder.select(builder.fcmp_ordered(">", x, one), one, x) for x in v]
            for h in range(2):
                builder.store(v[h], power[h])

            def raise_power(_):
                for h in range(2):
                    builder.store(builder.fmul(builder.load(power[h]), v[h]), power[h])

            _rows(builder, builder.sub(vq, word(2)), raise_power)
            for h in range(2):
                slope = builder.load(power[h])
                if keep_slopes:
                    _store(builder, vector, slope, at, h * lanes)
                over = builder.fsub(z[h], rho_all)
                over = builder.select(builder.fcmp_ordered("<", over, zero), zero, over)
                value = _fma(builder, vector, lanes, builder.fmul(part, slope), v[h], over)
                builder.store(builder.fadd(builder.load(acc[h]), value), acc[h])

        _rows(builder, vm, body)
        for h in range(2):
            _store(builder, vector, builder.load(acc[h]), pointer_f, h * lanes)
        return context.get_dummy_value()

    index = types.intp
    return types.void(slopes, S, index, index, index, S.dtype, shift, index, S.dtype, f, index), codegen


@intrinsic
def tile_scale(typingctx, S, s0, rows, t):
    """S[r, :] *= t (B), r < rows, on one block of lanes."""

    def codegen(context, builder, signature, args):
        vS, vs0, vrows, vt = args
        vector, lanes = _vector(S)
        pointer_s = _pointer(context, builder, S, vS, vs0)
        pointer_t = _pointer(context, builder, t, vt, vs0.type(0))
        factor = [_load(builder, vector, pointer_t, h * lanes) for h in range(2)]

        def body(r):
            at = builder.gep(pointer_s, [builder.mul(r, vs0.type(2 * lanes))])
            for h in range(2):
                _store(builder, vector, builder.fmul(_load(builder, vector, at, h * lanes), factor[h]), at, h * lanes)

        _rows(builder, vrows, body)
        return context.get_dummy_value()

    return types.void(S, types.intp, types.intp, t), codegen


@intrinsic
def tile_move(typingctx, euclidean, unit, Xa, a0, X, x0, D, d, step, eps):
    """Xa <- X + project_eps(Xa - X + step * direction(D)) on one block of lanes, D (d, B).

    The literals choose the norm (l_inf or, with `euclidean`, l_2 patch by patch) and the direction: D, or with `unit`
    sign(D) and D/|D|_2.  The l_2 form overwrites D.
    """
    if not (isinstance(euclidean, types.BooleanLiteral) and isinstance(unit, types.BooleanLiteral)):
        raise RequireLiteralValue(euclidean)

    def codegen(context, builder, signature, args):
        _, _, vXa, va0, vX, vx0, vD, vd, vstep, veps = args
        vector, lanes = _vector(Xa)
        pointer_a = _pointer(context, builder, Xa, vXa, va0)
        pointer_x = _pointer(context, builder, X, vX, vx0)
        pointer_d = _pointer(context, builder, D, vD, va0.type(0))
        zero, one = (ir.Constant(vector, [value] * lanes) for value in (0.0, 1.0))
        rate, radius = (_broadcast(builder, vector, lanes, value) for value in (vstep, veps))

        def over(condition, a, b, yes, no):
            return builder.select(builder.fcmp_ordered(condition, a, b), yes, no)

        def row(j, h):
            offset = builder.add(builder.mul(j, va0.type(2 * lanes)), va0.type(h * lanes))
            return [builder.gep(pointer, [offset]) for pointer in (pointer_a, pointer_x, pointer_d)]

        def clip(j):
            for h in range(2):
                at_a, at_x, at_d = row(j, h)
                g, x = _load(builder, vector, at_d, 0), _load(builder, vector, at_x, 0)
                if unit.literal_value:
                    g = builder.fsub(over(">", g, zero, one, zero), over("<", g, zero, one, zero))
                delta = builder.fadd(builder.fsub(_load(builder, vector, at_a, 0), x), builder.fmul(rate, g))
                delta = over(">", delta, radius, radius, delta)
                delta = over("<", delta, builder.fneg(radius), builder.fneg(radius), delta)
                _store(builder, vector, builder.fadd(x, delta), at_a, 0)

        if not euclidean.literal_value:
            _rows(builder, vd, clip)
            return context.get_dummy_value()

        def norms(acc):
            name = f"llvm.sqrt.v{lanes}f{32 if lanes == VECTOR_BYTES // 4 else 64}"
            root = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector]), name)
            return [builder.call(root, [builder.load(a)]) for a in acc]

        factor = [rate, rate]
        if unit.literal_value:
            lengths = _accumulators(builder, vector, lanes, 2)

            def measure(j):
                for h in range(2):
                    g = _load(builder, vector, row(j, h)[2], 0)
                    builder.store(_fma(builder, vector, lanes, g, g, builder.load(lengths[h])), lengths[h])

            _rows(builder, vd, measure)
            factor = [over(">", n, zero, builder.fdiv(rate, n), zero) for n in norms(lengths)]
        lengths = _accumulators(builder, vector, lanes, 2)

        def step_to(j):
            for h in range(2):
                at_a, at_x, at_d = row(j, h)
                delta = builder.fsub(_load(builder, vector, at_a, 0), _load(builder, vector, at_x, 0))
                delta = builder.fadd(delta, builder.fmul(factor[h], _load(builder, vector, at_d, 0)))
                _store(builder, vector, delta, at_d, 0)
                builder.store(_fma(builder, vector, lanes, delta, delta, builder.load(lengths[h])), lengths[h])

        _rows(builder, vd, step_to)
        shrink = [over(">", n, radius, builder.fdiv(radius, n), one) for n in norms(lengths)]

        def shrink_to(j):
            for h in range(2):
                at_a, at_x, at_d = row(j, h)
                delta = builder.fmul(shrink[h], _load(builder, vector, at_d, 0))
                _store(builder, vector, builder.fadd(_load(builder, vector, at_x, 0), delta), at_a, 0)

        _rows(builder, vd, shrink_to)
        return context.get_dummy_value()

    index, number = types.intp, Xa.dtype
    return types.void(euclidean, unit, Xa, index, X, index, D, index, number, number), codegen


@part
def product(C, c0, rows, A, a0, a_row, a_depth, X, x0, depth):
    """C (rows, B) = A (rows, depth) X (depth, B) on one block, by tiles of at most MR rows of even height."""
    stands_alone()
    B = BLOCK_BYTES // C.itemsize
    tiles = (rows + MR - 1) // MR
    step = (rows + tiles - 1) // tiles
    r = 0
    while r < rows:
        n = min(step, rows - r)
        c, a = c0 + r * B, a0 + r * a_row
        if n == 6:
            _tile_product(6, C, c, A, a, a_row, a_depth, X, x0, depth)
        elif n == 5:
            _tile_product(5, C, c, A, a, a_row, a_depth, X, x0, depth)
        elif n == 4:
            _tile_product(4, C, c, A, a, a_row, a_depth, X, x0, depth)
        elif n == 3:
            _tile_product(3, C, c, A, a, a_row, a_depth, X, x0, depth)
        elif n == 2:
            _tile_product(2, C, c, A, a, a_row, a_depth, X, x0, depth)
        else:
            _tile_product(1, C, c, A, a, a_row, a_depth, X, x0, depth)
        r += n


@part
def gram(C, K, d, S, X, x0, blocks):
    """C (K, d) = sum over blocks of S (K, B) X (d, B)^T; edge tiles overlap instead of shrinking."""
    stands_alone()
    B = BLOCK_BYTES // C.itemsize
    rows = max(K, GA)
    for a in range(0, K, GA):
        at = max(0, min(a, K - GA))
        for j in range(0, d, GJ):
            jt = min(j, d - GJ)
            _tile_gram(C, at * d + jt, d, S, at * B, rows * B, X, x0 + jt * B, d * B, blocks)

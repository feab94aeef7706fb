"""What is done to rows of registers, L channels each: the register tile, and what is done to numbers on their way.

Images lie in blocks of L channels, (N, C/L, H, W, L), so a register holds L channels of one pixel.  `lanes` is a tuple
of L numbers: its type tells the compiler L.

Prologues, on what a convolution reads: 0: x   1: max(c0 x + c1, 0)   2: c0 x + c1 z + c2   3: c0 x + c1, c per channel.
Epilogues, on what it writes, are sums of these bits:

=========  ================================================================================
SUMS       sums of y and y^2, for the batch norm behind it
RESIDUAL   y + r first
MASK_Z     0 where c0 z + c1 <= 0: the gradient in front of a ReLU behind a batch norm of z
MASK_O     0 where o <= 0: the gradient in front of a ReLU whose answer is o
NORM       sums of g and g (c2 z + c3), z's standardised value: what batch norm's gradient needs
=========  ================================================================================
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic

from ...cpu.vectors import VECTOR_BITS, Vectors

SUMS, RESIDUAL, MASK_Z, MASK_O, NORM = 1, 2, 4, 8, 16
ROWS = 8 if VECTOR_BITS == 512 else 4  # of a tile: 16 sums in 32 registers, or 8 in 16
index = types.intp


def literal(*values):
    """Python's numbers of literal types, the L of a tuple; RequireLiteralValue makes the compiler try with literals."""
    found = []
    for value in values:
        if isinstance(value, types.UniTuple):
            found.append(value.count)
        elif isinstance(value, types.IntegerLiteral):
            found.append(value.literal_value)
        else:
            raise RequireLiteralValue(value)
    return found


def walk(v, count, pointers, steps, body):
    """`count` times body(pointers), each of which then moves on by its step (numbers); never unrolled."""
    builder, word = v.builder, v.word
    before, loop, after = builder.block, builder.append_basic_block("walk"), builder.append_basic_block("walk.end")
    builder.cbranch(builder.icmp_signed(">", count, word(0)), loop, after)
    builder.position_at_end(loop)
    left, here = builder.phi(word), [builder.phi(p.type) for p in pointers]
    left.add_incoming(count, before)
    for at, p in zip(here, pointers):
        at.add_incoming(p, before)
    body(here)
    fewer = v.opaque(builder.sub(left, word(1)))
    for at, step in zip(here, steps):
        at.add_incoming(v.at(at, step), builder.block)
    left.add_incoming(fewer, builder.block)
    builder.cbranch(builder.icmp_signed(">", fewer, word(0)), loop, after)
    builder.position_at_end(after)


@intrinsic
def tile(typingctx, lanes, rows, registers, weights, C, c0, c_row, c_register, A, a0, a_outer, X, x0, x_register,
         x_outer, depth, outer, more):  # fmt: skip
    """C[r, h] = [C[r, h] +] sum over o < outer and t < depth of A[r, t, o] X[t, h, o], a register each; r < rows, h <
    registers (literal).

    weights = 0 (literal): rows are pixels, A's are L apart and its t are 1 apart, X's t `registers` registers apart.
    weights = 1: rows are channels, A's are 1 apart and its t are L apart, X's t one register apart, its h `x_register`.
    `depth` is even.
    """
    L, n, m, by_weight = literal(lanes, rows, registers, weights)

    def codegen(context, builder, signature, args):
        vC, vc0, vc_row, vc_register, vA, va0, va_outer = args[4:11]
        vX, vx0, vx_register, vx_outer, vdepth, vouter, vmore = args[11:]
        v = Vectors(context, builder, C, L)
        at_c, at_a, at_x = v.pointer(C, vC, vc0), v.pointer(A, vA, va0), v.pointer(X, vX, vx0)
        sums = [v.variables(m) for _ in range(n)]
        heads = [builder.mul(v.word(h), vc_register) for h in range(m)]
        places = [[v.at(v.row(at_c, r, vc_row), head) for head in heads] for r in range(n)]
        with builder.if_then(vmore):
            for r in range(n):
                for h in range(m):
                    builder.store(v.load(places[r][h]), sums[r][h])
        a_row, a_step, x_step = (1, L, L) if by_weight else (L, 1, m * L)

        def long(o):
            first = v.row(at_x, o, vx_outer)
            xs = [v.at(first, builder.mul(v.word(h), vx_register)) for h in range(m)] if by_weight else [first]

            def step(here):
                for u in range(2):
                    x = [v.load(v.at(at, u * x_step)) for at in here[1:]]
                    x = x if by_weight else [v.load(v.at(here[1], u * x_step), h) for h in range(m)]
                    for r in range(n):
                        a = v.splat(builder.load(v.at(here[0], r * a_row + u * a_step)))
                        for h in range(m):
                            builder.store(v.fma(a, x[h], builder.load(sums[r][h])), sums[r][h])

            half = builder.sdiv(vdepth, v.word(2))
            walk(v, half, [v.row(at_a, o, va_outer), *xs], [2 * a_step] + [2 * x_step] * len(xs), step)

        v.loop(vouter, long)
        for r in range(n):
            for h in range(m):
                v.store(builder.load(sums[r][h]), places[r][h])
        return context.get_dummy_value()

    i = index
    return types.void(lanes, rows, registers, weights, C, i, i, i, A, i, i, X, i, i, i, i, i, types.boolean), codegen


@intrinsic
def fill(typingctx, S, start, n):
    """S[start : start + n] = 0."""

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, S)
        at = v.pointer(S, args[0], args[1])
        cgutils.memset(builder, at, builder.mul(args[2], v.word(v.bits // 8)), 0)
        return context.get_dummy_value()

    return types.void(S, index, index), codegen


# ------------------------------------------------------------------ what is read
def coefficients(v, array, value, first, step, count):
    """`count` registers of per-channel numbers, `step` apart."""
    at = v.pointer(array, value, first)
    return [v.load(v.row(at, j, step)) for j in range(count)]


def prologue(v, kind, c, x, z):
    """A register on its way in."""
    if kind == 0:
        return x
    if kind == 2:
        return v.fma(c[0], x, v.fma(c[1], z, c[2]))
    y = v.fma(c[0], x, c[1])
    return v.where(">", y, v.zero, y, v.zero) if kind == 1 else y


@intrinsic
def read_row(typingctx, lanes, kind, V, v0, first, last, n, x, x0, x_step, z, z0, c, c_0, c_step):
    """V[t] = prologue(x[t x_step]) for first <= t < last, 0 for other t < n; x0 is the place of t = 0, which may lie
    outside.  One channel block; `kind` literal."""
    L, pro = literal(lanes, kind)

    def codegen(context, builder, signature, args):
        vV, vv0, vfirst, vlast, vn, vx, vx0, vx_step, vz, vz0, vc, vc0, vc_step = args[2:]
        v = Vectors(context, builder, V, L)
        at_v, at_x, at_z = v.pointer(V, vV, vv0), v.pointer(x, vx, vx0), v.pointer(z, vz, vz0)
        held = coefficients(v, c, vc, vc0, vc_step, (0, 2, 3, 2)[pro])

        def zeros(start, count):
            v.loop(count, lambda t: v.store(v.zero, v.row(at_v, builder.add(t, start), L)))

        def body(t):
            t = builder.add(t, vfirst)
            place = builder.mul(builder.mul(t, vx_step), v.word(L))
            other = v.load(v.at(at_z, place)) if pro == 2 else None
            v.store(prologue(v, pro, held, v.load(v.at(at_x, place)), other), v.row(at_v, t, L))

        zeros(v.word(0), vfirst)
        v.loop(builder.sub(vlast, vfirst), body)
        zeros(vlast, builder.sub(vn, vlast))
        return context.get_dummy_value()

    i = index
    return types.void(lanes, kind, V, i, i, i, i, x, i, i, z, i, c, i, i), codegen


@intrinsic
def add_row(typingctx, lanes, S, s0, s_step, M, m0, n):
    """S[t s_step] += M[t], t < n registers."""
    (L,) = literal(lanes)

    def codegen(context, builder, signature, args):
        vS, vs0, vs_step, vM, vm0, vn = args[1:]
        v = Vectors(context, builder, S, L)
        at_s, at_m = v.pointer(S, vS, vs0), v.pointer(M, vM, vm0)

        def body(t):
            at = v.row(at_s, builder.mul(t, vs_step), L)
            v.store(builder.fadd(v.load(at), v.load(v.row(at_m, t, L))), at)

        v.loop(vn, body)
        return context.get_dummy_value()

    return types.void(lanes, S, index, index, M, index, index), codegen


# ------------------------------------------------------------------ what is written
def epilogue(v, kind, c, y, z, r, o):
    """A register on its way out, and the two that are summed (None where nothing is)."""
    builder = v.builder
    if kind & RESIDUAL:
        y = builder.fadd(y, r)
    if kind & MASK_Z:
        y = v.where(">", v.fma(c[0], z, c[1]), v.zero, y, v.zero)
    if kind & MASK_O:
        y = v.where(">", o, v.zero, y, v.zero)
    if kind & SUMS:
        return y, y
    return y, v.fma(c[2], z, c[3]) if kind & NORM else None


def add_sums(v, context, sums, vsums, places, totals):
    """Add registers to float64 sums at two places."""
    builder = v.builder
    wide = ir.VectorType(ir.DoubleType(), v.lanes)
    start = context.make_array(sums)(context, builder, vsums).data
    for place, total in zip(places, totals):
        at = builder.bitcast(builder.gep(start, [place]), wide.as_pointer())
        total = total if v.bits == 64 else builder.fpext(total, wide)
        builder.store(builder.fadd(builder.load(at, align=8), total), at, align=8)


@intrinsic
def write_row(typingctx, lanes, kind, y, y0, n, M, m0, z, z0, r, r0, o, o0, c, c0, c_step, sums, q0, q_step):
    """y[t] = epilogue(M[t]), t < n registers of one channel block; float64 sums at q0, q0 + q_step; literal `kind`."""
    L, epi = literal(lanes, kind)

    def codegen(context, builder, signature, args):
        vy, vy0, vn, vM, vm0, vz, vz0, vr, vr0, vo, vo0, vc, vc0, vc_step, vsums, vq0, vq_step = args[2:]
        v = Vectors(context, builder, y, L)
        at_y, at_m = v.pointer(y, vy, vy0), v.pointer(M, vM, vm0)
        at_z, at_r, at_o = v.pointer(z, vz, vz0), v.pointer(r, vr, vr0), v.pointer(o, vo, vo0)
        held = coefficients(v, c, vc, vc0, vc_step, 4) if epi & (MASK_Z | NORM) else None
        totals = v.variables(2)

        def body(t):
            def load(at, bits):
                return v.load(v.row(at, t, L)) if epi & bits else None

            value, beside = epilogue(v, epi, held, v.load(v.row(at_m, t, L)), load(at_z, MASK_Z | NORM),
                                     load(at_r, RESIDUAL), load(at_o, MASK_O))  # fmt: skip
            v.store(value, v.row(at_y, t, L))
            if beside is not None:
                builder.store(builder.fadd(builder.load(totals[0]), value), totals[0])
                builder.store(v.fma(value, beside, builder.load(totals[1])), totals[1])

        v.loop(vn, body)
        if epi & (SUMS | NORM):
            places = vq0, builder.add(vq0, vq_step)
            add_sums(v, context, sums, vsums, places, [builder.load(total) for total in totals])
        return context.get_dummy_value()

    i = index
    return types.void(lanes, kind, y, i, i, M, i, z, i, r, i, o, i, c, i, i, sums, i, i), codegen


@intrinsic
def join_row(typingctx, lanes, kind, y, a, n, z, r, c, d, c0, c_step, sums, q0, q_step):
    """y[a + t] = c0 z + c1 [+ d0 r + d1] [max(., 0)], t < n registers; kind (literal): bits 1: r, 2: max, 4: sums of y
    and y^2."""
    L, bits = literal(lanes, kind)

    def codegen(context, builder, signature, args):
        vy, va, vn, vz, vr, vc, vd, vc0, vc_step, vsums, vq0, vq_step = args[2:]
        v = Vectors(context, builder, y, L)
        at_y, at_z, at_r = v.pointer(y, vy, va), v.pointer(z, vz, va), v.pointer(r, vr, va)
        scale, move = coefficients(v, c, vc, vc0, vc_step, 2)
        other = coefficients(v, d, vd, vc0, vc_step, 2)
        totals = v.variables(2)

        def body(t):
            value = v.fma(scale, v.load(v.row(at_z, t, L)), move)
            if bits & 1:
                value = builder.fadd(value, v.fma(other[0], v.load(v.row(at_r, t, L)), other[1]))
            if bits & 2:
                value = v.where(">", value, v.zero, value, v.zero)
            v.store(value, v.row(at_y, t, L))
            if bits & 4:
                builder.store(builder.fadd(builder.load(totals[0]), value), totals[0])
                builder.store(v.fma(value, value, builder.load(totals[1])), totals[1])

        v.loop(vn, body)
        if bits & 4:
            places = vq0, builder.add(vq0, vq_step)
            add_sums(v, context, sums, vsums, places, [builder.load(total) for total in totals])
        return context.get_dummy_value()

    i = index
    return types.void(lanes, kind, y, i, i, z, r, c, d, i, i, sums, i, i), codegen


@intrinsic
def smooth_row(typingctx, lanes, kind, y, a, n, z, g, c, c0, c_step, q, rho, inverse):
    """The smoothed ReLU of x = c0 z + c1: y[a + t] = sigma(x), or with kind = 1 (literal) g sigma'(x); t < n."""
    L, back = literal(lanes, kind)

    def codegen(context, builder, signature, args):
        vy, va, vn, vz, vg, vc, vc0, vc_step, vq, vrho, vinverse = args[2:]
        v = Vectors(context, builder, y, L)
        at_y, at_z, at_g = v.pointer(y, vy, va), v.pointer(z, vz, va), v.pointer(g, vg, va)
        scale, move = coefficients(v, c, vc, vc0, vc_step, 2)

        def body(t):
            values, slopes = v.sigma([v.fma(scale, v.load(v.row(at_z, t, L)), move)], vq, vrho, vinverse)
            value = builder.fmul(slopes[0], v.load(v.row(at_g, t, L))) if back else values[0]
            v.store(value, v.row(at_y, t, L))

        v.loop(vn, body)
        return context.get_dummy_value()

    i = index
    return types.void(lanes, kind, y, i, i, z, g, c, i, i, i, y.dtype, y.dtype), codegen

"""Winograd's F(4x4, 3x3) on rows of registers: images, weights and gradients there and back.

In each direction four outputs of a window of three cost 6 products instead of 12: the polynomials of window and inputs
are taken at the points 0, a, -a, b, -b and infinity (Toom 1963, Winograd 1980, Lavin & Gray 2016), a = 5/8 and b = 3/2,
whose float32 errors are half of those of 1 and 2.  With A = a^2, B = b^2, six inputs d, three weights g and four
outputs y are transformed by

    B^T d:  AB d0 - (A + B) d2 + d4,   (d4 - B d2) +- a (d3 - B d1),   (d4 - A d2) +- b (d3 - A d1),
            AB d1 - (A + B) d3 + d5
    G g:    g0 / AB,   (g0 + A g2 +- a g1) / (2A (A - B)),   (g0 + B g2 +- b g1) / (2B (B - A)),   g2
    A^T m:  y_i = 0^i m0 + a^i (m1 + (-1)^i m2) + b^i (m3 + (-1)^i m4) + [i = 3] m5

and y = A^T [(G g) * (B^T d)] in each direction.  The weight gradient takes outputs' gradients by A and returns by G^T.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...cpu.vectors import Vectors
from .rows import MASK_O, MASK_Z, NORM, RESIDUAL, SUMS, add_sums, coefficients, epilogue, literal, prologue

a, b = 5 / 8, 3 / 2
A, B = a * a, b * b
FA, FB = 2 * A * (A - B), 2 * B * (B - A)
index = types.intp


def lift_input(v, d):
    """B^T d: six registers of six."""
    c, f = v.constant, v.fma
    out = [f(c(-A - B), d[2], f(c(A * B), d[0], d[4]))]
    for point, other in ((a, B), (b, A)):
        even, odd = f(c(-other), d[2], d[4]), f(c(-other), d[1], d[3])
        out += [f(c(point), odd, even), f(c(-point), odd, even)]
    return [*out, f(c(-A - B), d[3], f(c(A * B), d[1], d[5]))]


def lift_output(v, g):
    """A g: six registers of four gradients by outputs."""
    c, f = v.constant, v.fma
    out = [g[0]]
    for point, square in ((a, A), (b, B)):
        even, odd = f(c(square), g[2], g[0]), f(c(square), g[3], g[1])
        out += [f(c(point), odd, even), f(c(-point), odd, even)]
    return [*out, g[3]]


def lower_output(v, m):
    """A^T m: four outputs of six registers."""
    c, f, add, sub, mul = v.constant, v.fma, v.builder.fadd, v.builder.fsub, v.builder.fmul
    s1, d1, s2, d2 = add(m[1], m[2]), sub(m[1], m[2]), add(m[3], m[4]), sub(m[3], m[4])
    return [
        add(add(m[0], s1), s2),
        f(c(b), d2, mul(c(a), d1)),
        f(c(B), s2, mul(c(A), s1)),
        f(c(b * B), d2, f(c(a * A), d1, m[5])),
    ]


def lift_weights(v, g):
    """G g: six registers of three weights."""
    c, f, mul = v.constant, v.fma, v.builder.fmul
    out = [mul(c(1 / (A * B)), g[0])]
    for point, square, factor in ((a, A, FA), (b, B, FB)):
        even = f(c(square / factor), g[2], mul(c(1 / factor), g[0]))
        out += [f(c(point / factor), g[1], even), f(c(-point / factor), g[1], even)]
    return [*out, g[2]]


def lower_weights(v, u):
    """G^T u: three gradients by weights of six registers."""
    c, f, add, sub, mul = v.constant, v.fma, v.builder.fadd, v.builder.fsub, v.builder.fmul
    s1, d1, s2, d2 = add(u[1], u[2]), sub(u[1], u[2]), add(u[3], u[4]), sub(u[3], u[4])
    return [
        f(c(1 / FB), s2, f(c(1 / FA), s1, mul(c(1 / (A * B)), u[0]))),
        f(c(b / FB), d2, mul(c(a / FA), d1)),
        f(c(B / FB), s2, f(c(A / FA), s1, u[5])),
    ]


# ------------------------------------------------------------------ images in
@intrinsic
def lift_down(typingctx, lanes, kind, count, S, s_row, x, place, z, c, c0, c_step, y0, H, W):
    """S[i][1 + j] = sum over r of T[i, r] prologue(x[y0 + r, j]), j < W, of one channel block of an image at `place`;
    rows outside are 0.  count = 6 (literal): T = B^T on six rows; 4: T = A on four, at S[i][j]."""
    L, pro, rows = literal(lanes, kind, count)

    def codegen(context, builder, signature, args):
        vS, vs_row, vx, vplace, vz, vc, vc0, vc_step, vy0, vH, vW = args[3:]
        v = Vectors(context, builder, S, L)
        at_s, at_x, at_z = v.pointer(S, vS, v.word(0)), v.pointer(x, vx, vplace), v.pointer(z, vz, vplace)
        held = coefficients(v, c, vc, vc0, vc_step, (0, 2, 3, 2)[pro]) if pro else [v.one]
        factors, offsets = [], []
        for r in range(rows):
            y = builder.add(vy0, v.word(r))
            inside = builder.and_(builder.icmp_signed(">=", y, v.word(0)), builder.icmp_signed("<", y, vH))
            offsets.append(builder.mul(builder.select(inside, y, v.word(0)), builder.mul(vW, v.word(L))))
            one, nothing = ir.Constant(v.number, 1.0), ir.Constant(v.number, 0.0)
            factor = v.splat(builder.select(inside, one, nothing))
            factors.append([builder.fmul(k, factor) for k in held])
        xs, zs = [v.at(at_x, o) for o in offsets], [v.at(at_z, o) for o in offsets]
        targets = [v.at(v.row(at_s, i, vs_row), L if rows == 6 else 0) for i in range(6)]

        def body(j):
            values = []
            for r in range(rows):
                value = v.load(v.row(xs[r], j, L))
                other = v.load(v.row(zs[r], j, L)) if pro == 2 else None
                values.append(prologue(v, pro, factors[r], value, other) if pro else builder.fmul(factors[r][0], value))
            for target, value in zip(targets, lift_input(v, values) if rows == 6 else lift_output(v, values)):
                v.store(value, v.row(target, j, L))

        v.loop(vW, body)
        return context.get_dummy_value()

    i = index
    return types.void(lanes, kind, count, S, i, x, i, z, c, i, i, i, i, i), codegen


@intrinsic
def lift_across(typingctx, lanes, count, V, v0, v_product, S, s_row, n):
    """V[i, j][t] = sum over r of T[j, r] S[i][4 t + r], t < n tiles; count as of `lift_down`."""
    L, rows = literal(lanes, count)

    def codegen(context, builder, signature, args):
        vV, vv0, vv_product, vS, vs_row, vn = args[2:]
        v = Vectors(context, builder, V, L)
        at_v, at_s = v.pointer(V, vV, vv0), v.pointer(S, vS, v.word(0))
        sources = [v.row(at_s, i, vs_row) for i in range(6)]
        targets = [v.row(at_v, 6 * i, vv_product) for i in range(6)]

        def body(t):
            for source, target in zip(sources, targets):
                first, out = v.row(source, t, 4 * L), v.row(target, t, L)
                values = [v.load(v.at(first, r * L)) for r in range(rows)]
                for j, value in enumerate(lift_input(v, values) if rows == 6 else lift_output(v, values)):
                    v.store(value, v.row(out, j, vv_product))

        v.loop(vn, body)
        return context.get_dummy_value()

    i = index
    return types.void(lanes, count, V, i, i, S, i, i), codegen


# ------------------------------------------------------------------ images out
@intrinsic
def lower_across(typingctx, lanes, S, s_row, M, m0, m_product, n):
    """S[i][4 t + r] = sum over j of A^T[r, j] M[i, j][t], t < n tiles."""
    (L,) = literal(lanes)

    def codegen(context, builder, signature, args):
        vS, vs_row, vM, vm0, vm_product, vn = args[1:]
        v = Vectors(context, builder, S, L)
        at_m, at_s = v.pointer(M, vM, vm0), v.pointer(S, vS, v.word(0))
        sources = [v.row(at_m, 6 * i, vm_product) for i in range(6)]
        targets = [v.row(at_s, i, vs_row) for i in range(6)]

        def body(t):
            for source, target in zip(sources, targets):
                first, out = v.row(source, t, L), v.row(target, t, 4 * L)
                values = [v.load(v.row(first, j, vm_product)) for j in range(6)]
                for r, value in enumerate(lower_output(v, values)):
                    v.store(value, v.at(out, r * L))

        v.loop(vn, body)
        return context.get_dummy_value()

    i = index
    return types.void(lanes, S, i, M, i, i, i), codegen


@intrinsic
def lower_down(typingctx, lanes, kind, y, place, rows, W, S, s_row, z, r, o, bias, c, c0, c_step, sums, q0, q_step):
    """y[row, j] = epilogue(sum over i of A^T[row, i] S[i][j] + bias), row < rows <= 4, j < W, of one channel block at
    `place`; sums as of `write_row`."""
    L, epi = literal(lanes, kind)

    def codegen(context, builder, signature, args):
        vy, vplace, vrows, vW, vS, vs_row, vz, vr, vo, vbias, vc, vc0, vc_step, vsums, vq0, vq_step = args[2:]
        v = Vectors(context, builder, y, L)
        at_y, at_s = v.pointer(y, vy, vplace), v.pointer(S, vS, v.word(0))
        at_z, at_r, at_o = v.pointer(z, vz, vplace), v.pointer(r, vr, vplace), v.pointer(o, vo, vplace)
        held = coefficients(v, c, vc, vc0, vc_step, 4) if epi & (MASK_Z | NORM) else None
        biased = v.load(v.pointer(bias, vbias, vc0))
        sources = [v.row(at_s, i, vs_row) for i in range(6)]
        line = builder.mul(vW, v.word(L))
        totals = [v.variables(4), v.variables(4)]  # a chain of additions per row

        def run(whole):
            def body(j):
                outputs = lower_output(v, [v.load(v.row(source, j, L)) for source in sources])
                for row in range(4):
                    at = builder.add(builder.mul(j, v.word(L)), builder.mul(line, v.word(row)))

                    def one(row=row, at=at):
                        def load(pointer, bits):
                            return v.load(v.at(pointer, at)) if epi & bits else None

                        value = builder.fadd(outputs[row], biased)
                        value, beside = epilogue(v, epi, held, value, load(at_z, MASK_Z | NORM), load(at_r, RESIDUAL),
                                                 load(at_o, MASK_O))  # fmt: skip
                        v.store(value, v.at(at_y, at))
                        if beside is not None:
                            first, second = totals[0][row], totals[1][row]
                            builder.store(builder.fadd(builder.load(first), value), first)
                            builder.store(v.fma(value, beside, builder.load(second)), second)

                    if whole or row == 0:
                        one()
                    else:
                        with builder.if_then(builder.icmp_signed(">", vrows, v.word(row))):
                            one()

            v.loop(vW, body)

        with builder.if_else(builder.icmp_signed(">=", vrows, v.word(4))) as (then, other):
            with then:
                run(True)
            with other:
                run(False)
        if epi & (SUMS | NORM):
            parts = [[builder.load(one) for one in four] for four in totals]
            whole = [builder.fadd(builder.fadd(p[0], p[1]), builder.fadd(p[2], p[3])) for p in parts]
            add_sums(v, context, sums, vsums, (vq0, builder.add(vq0, vq_step)), whole)
        return context.get_dummy_value()

    i = index
    return types.void(lanes, kind, y, i, i, i, S, i, z, r, o, bias, c, i, i, sums, i, i), codegen


# ------------------------------------------------------------------ weights
@intrinsic
def weights_in(typingctx, lanes, U, u0, u_product, u_row, w, w0, w_tap, n):
    """U[p][k] = (G w[., ., k] G^T)_p, k < n rows of L channels out; w's taps are `w_tap` apart, its rows L."""
    (L,) = literal(lanes)

    def codegen(context, builder, signature, args):
        vU, vu0, vu_product, vu_row, vw, vw0, vw_tap, vn = args[1:]
        v = Vectors(context, builder, U, L)
        at_u, at_w = v.pointer(U, vU, vu0), v.pointer(w, vw, vw0)

        def body(k):
            source, target = v.row(at_w, k, L), v.row(at_u, k, vu_row)
            taps = [[v.load(v.row(source, 3 * i + j, vw_tap)) for i in range(3)] for j in range(3)]
            half = [lift_weights(v, column) for column in taps]
            for i in range(6):
                for j, value in enumerate(lift_weights(v, [half[s][i] for s in range(3)])):
                    v.store(value, v.row(target, 6 * i + j, vu_product))

        v.loop(vn, body)
        return context.get_dummy_value()

    i = index
    return types.void(lanes, U, i, i, i, w, i, i, i), codegen


@intrinsic
def weights_out(typingctx, lanes, w, w0, w_tap, U, u0, u_product, u_row, u_group, groups, n):
    """w[., ., k] = G^T (sum over groups of U[p][k]) G, k < n rows of L channels out."""
    (L,) = literal(lanes)

    def codegen(context, builder, signature, args):
        vw, vw0, vw_tap, vU, vu0, vu_product, vu_row, vu_group, vgroups, vn = args[1:]
        v = Vectors(context, builder, U, L)
        at_u, at_w = v.pointer(U, vU, vu0), v.pointer(w, vw, vw0)
        totals = v.variables(9)

        def body(k):
            source, target = v.row(at_u, k, vu_row), v.row(at_w, k, L)
            for total in totals:
                builder.store(v.zero, total)

            def group(g):
                first, half = v.row(source, g, vu_group), []
                for i in range(6):
                    half.append(lower_weights(v, [v.load(v.row(first, 6 * i + j, vu_product)) for j in range(6)]))
                for s in range(3):
                    for r, value in enumerate(lower_weights(v, [half[i][s] for i in range(6)])):
                        builder.store(builder.fadd(builder.load(totals[3 * r + s]), value), totals[3 * r + s])

            v.loop(vgroups, group)
            for tap, total in enumerate(totals):
                v.store(builder.load(total), v.row(target, tap, vw_tap))

        v.loop(vn, body)
        return context.get_dummy_value()

    i = index
    return types.void(lanes, w, i, i, U, i, i, i, i, i, i), codegen

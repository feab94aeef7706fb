"""What is done to lanes between the products: activations, steps, transposition; a barrier."""

import platform

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic

from .vectors import Vectors

index = types.intp


@intrinsic
def copy(typingctx, target, t0, source, s0, n):
    """target[t0 : t0 + n] <- source[s0 : s0 + n], of one dtype and apart in memory."""

    def codegen(context, builder, signature, args):
        vtarget, vt0, vsource, vs0, vn = args
        v = Vectors(context, builder, target)
        cgutils.raw_memcpy(
            builder, v.pointer(target, vtarget, vt0), v.pointer(source, vsource, vs0), vn, v.word(v.bits // 8)
        )
        return context.get_dummy_value()

    return types.void(target, index, source, index, index), codegen


@intrinsic
def clear(typingctx, target, n):
    """target[:n] <- 0."""

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, target)
        start = v.pointer(target, args[0], v.word(0))
        cgutils.memset(builder, start, builder.mul(args[1], v.word(v.bits // 8)), 0)
        return context.get_dummy_value()

    return types.void(target, index), codegen


@intrinsic
def tile_blend(typingctx, Y, y0, X, x0, rows, mask, m0):
    """Y[r, :] <- X[r, :] in the lanes where mask[m0 : m0 + B] > 0, r < rows, on one block of lanes."""

    def codegen(context, builder, signature, args):
        vY, vy0, vX, vx0, vrows, vmask, vm0 = args
        v = Vectors(context, builder, Y)
        at_y, at_x, at_m = v.pointer(Y, vY, vy0), v.pointer(X, vX, vx0), v.pointer(mask, vmask, vm0)
        masks = [v.load(at_m, h) for h in range(2)]

        def body(r):
            y, x = v.row(at_y, r, 2 * v.lanes), v.row(at_x, r, 2 * v.lanes)
            for h in range(2):
                v.store(v.where(">", masks[h], v.zero, v.load(x, h), v.load(y, h)), y, h)

        v.loop(vrows, body)
        return context.get_dummy_value()

    return types.void(Y, index, X, index, index, mask, index), codegen


@intrinsic
def tile_sigma(typingctx, S, s0, rows, q, rho, inverse, f, f0):
    """f[f0 : f0 + B] += sum_r sigma(S[r, :]), row after row, and S[r, :] <- sigma'(S[r, :]), on one block of lanes."""

    def codegen(context, builder, signature, args):
        vS, vs0, vrows, vq, vrho, vinverse, vf, vf0 = args
        v = Vectors(context, builder, S)
        at_s, at_f = v.pointer(S, vS, vs0), v.pointer(f, vf, vf0)
        sums = v.variables(2)
        for h, total in enumerate(sums):
            builder.store(v.load(at_f, h), total)

        def body(r):
            at = v.row(at_s, r, 2 * v.lanes)
            values, slopes = v.sigma([v.load(at, h) for h in range(2)], vq, vrho, vinverse)
            for h, total in enumerate(sums):
                v.store(slopes[h], at, h)
                builder.store(builder.fadd(builder.load(total), values[h]), total)

        v.loop(vrows, body)
        for h, total in enumerate(sums):
            v.store(builder.load(total), at_f, h)
        return context.get_dummy_value()

    return types.void(S, index, index, index, S.dtype, S.dtype, f, index), codegen


@intrinsic
def tile_slope(typingctx, S, s0, rows, q, rho, inverse, t):
    """S[r, :] <- sigma'(S[r, :]) t (B) on one block of lanes."""

    def codegen(context, builder, signature, args):
        vS, vs0, vrows, vq, vrho, vinverse, vt = args
        v = Vectors(context, builder, S)
        at_s, at_t = v.pointer(S, vS, vs0), v.pointer(t, vt, v.word(0))
        factor = [v.load(at_t, h) for h in range(2)]

        def body(r):
            at = v.row(at_s, r, 2 * v.lanes)
            _, slopes = v.sigma([v.load(at, h) for h in range(2)], vq, vrho, vinverse)
            for h in range(2):
                v.store(builder.fmul(slopes[h], factor[h]), at, h)

        v.loop(vrows, body)
        return context.get_dummy_value()

    return types.void(S, index, index, index, S.dtype, S.dtype, t), codegen


@intrinsic
def tile_shifted(typingctx, S, s0, m, q, rho, inverse, shift, h0, factor, f, f0):
    """f (B) <- sum_r sigma(S[r, :] + factor * shift[h0 + r]) over m rows of one block of lanes."""

    def codegen(context, builder, signature, args):
        vS, vs0, vm, vq, vrho, vinverse, vshift, vh0, vfactor, vf, vf0 = args
        v = Vectors(context, builder, S)
        at_s, at_h, at_f = v.pointer(S, vS, vs0), v.pointer(shift, vshift, vh0), v.pointer(f, vf, vf0)
        sums = v.variables(2)

        def body(r):
            at = v.row(at_s, r, 2 * v.lanes)
            move = v.splat(builder.fmul(vfactor, builder.load(v.at(at_h, r))))
            values, _ = v.sigma([builder.fadd(v.load(at, h), move) for h in range(2)], vq, vrho, vinverse)
            for total, value in zip(sums, values, strict=True):
                builder.store(builder.fadd(builder.load(total), value), total)

        v.loop(vm, body)
        for h, total in enumerate(sums):
            v.store(builder.load(total), at_f, h)
        return context.get_dummy_value()

    number = S.dtype
    return types.void(S, index, index, index, number, number, shift, index, number, f, index), codegen


@intrinsic
def tile_clip(typingctx, unit, Xa, a0, X, x0, last, l0, D, d0, d, step, eps):
    """Xa <- X + clip_eps(last - X + step * direction) on one block of lanes; the direction is D (d, B), or with `unit`
    (literal) sign(D)."""
    if not isinstance(unit, types.BooleanLiteral):
        raise RequireLiteralValue(unit)

    def codegen(context, builder, signature, args):
        _, vXa, va0, vX, vx0, vlast, vl0, vD, vd0, vd, vstep, veps = args
        v = Vectors(context, builder, Xa)
        at_a, at_x = v.pointer(Xa, vXa, va0), v.pointer(X, vX, vx0)
        at_l, at_d = v.pointer(last, vlast, vl0), v.pointer(D, vD, vd0)
        step, high, low = v.splat(vstep), v.splat(veps), v.splat(builder.fneg(veps))

        def body(j):
            a, x_at, l_at, d_at = (v.row(p, j, 2 * v.lanes) for p in (at_a, at_x, at_l, at_d))
            for h in range(2):
                x, g = v.load(x_at, h), v.load(d_at, h)
                move = builder.fmul(step, v.sign(g) if unit.literal_value else g)
                delta = v.clip(builder.fadd(builder.fsub(v.load(l_at, h), x), move), low, high)
                v.store(builder.fadd(x, delta), a, h)

        v.loop(vd, body)
        return context.get_dummy_value()

    number = Xa.dtype
    return types.void(unit, Xa, index, X, index, last, index, D, index, index, number, number), codegen


@intrinsic
def tile_move(typingctx, unit, Xa, a0, X, x0, last, l0, D, d0, d, step, eps):
    """Xa <- X + delta min(1, eps/|delta|), delta = last - X + step * direction, patch by patch on one block of lanes.

    The direction is D (d, B), or with `unit` (literal) D/|D|_2; D is overwritten.
    """
    if not isinstance(unit, types.BooleanLiteral):
        raise RequireLiteralValue(unit)

    def codegen(context, builder, signature, args):
        _, vXa, va0, vX, vx0, vlast, vl0, vD, vd0, vd, vstep, veps = args
        v = Vectors(context, builder, Xa)
        at_a, at_x = v.pointer(Xa, vXa, va0), v.pointer(X, vX, vx0)
        at_l, at_d = v.pointer(last, vlast, vl0), v.pointer(D, vD, vd0)
        rate, radius = v.splat(vstep), v.splat(veps)

        def for_rows(change):
            """|result|_2 per lane of change(h, *rows j of Xa, X, last, D) over the rows j."""
            squares = v.variables(2)

            def body(j):
                rows = [v.row(p, j, 2 * v.lanes) for p in (at_a, at_x, at_l, at_d)]
                for h, total in enumerate(squares):
                    value = change(h, *rows)
                    builder.store(v.fma(value, value, builder.load(total)), total)

            v.loop(vd, body)
            return [v.root(builder.load(total)) for total in squares]

        factor = [rate, rate]
        if unit.literal_value:
            lengths = for_rows(lambda h, a, x, b, g: v.load(g, h))
            factor = [v.where(">", n, v.zero, builder.fdiv(rate, n), v.zero) for n in lengths]

        def step_to(h, a, x, before, g):
            delta = builder.fadd(builder.fsub(v.load(before, h), v.load(x, h)), builder.fmul(factor[h], v.load(g, h)))
            v.store(delta, g, h)
            return delta

        shrink = [v.where(">", n, radius, builder.fdiv(radius, n), v.one) for n in for_rows(step_to)]

        def arrive(h, a, x, before, g):
            v.store(builder.fadd(v.load(x, h), builder.fmul(shrink[h], v.load(g, h))), a, h)
            return v.zero

        for_rows(arrive)
        return context.get_dummy_value()

    return types.void(unit, Xa, index, X, index, last, index, D, index, index, Xa.dtype, Xa.dtype), codegen


@intrinsic
def transpose_tile(typingctx, whole, Y, y0, X, x0, d):
    """Y[l, j] = X[j, l], l < V lanes and V coordinates j, rows of B numbers; d >= V where `whole` (literal), else rows
    from X's d-th on repeat the last."""
    if not isinstance(whole, types.BooleanLiteral):
        raise RequireLiteralValue(whole)

    def codegen(context, builder, signature, args):
        _, vY, vy0, vX, vx0, vd = args
        v = Vectors(context, builder, Y)
        at_y, at_x = v.pointer(Y, vY, vy0), v.pointer(X, vX, vx0)
        numbers, last = [v.word(j) for j in range(v.lanes)], builder.sub(vd, v.word(1))
        if not whole.literal_value:
            numbers = [builder.select(builder.icmp_signed("<", j, last), j, last) for j in numbers]
        rows = [v.load(v.row(at_x, j, 2 * v.lanes)) for j in numbers]
        t = 1
        while t < v.lanes:  # exchange the off-diagonal t x t squares of every 2t x 2t square
            for i in (i for i in range(v.lanes) if not i & t):
                a, b = rows[i], rows[i + t]
                rows[i] = v.shuffle(a, b, [v.lanes + (x ^ t) if x & t else x for x in range(v.lanes)])
                rows[i + t] = v.shuffle(a, b, [v.lanes + x if x & t else x ^ t for x in range(v.lanes)])
            t *= 2
        for lane, row in enumerate(rows):
            v.store(row, v.row(at_y, lane, 2 * v.lanes))
        return context.get_dummy_value()

    return types.void(whole, Y, index, X, index, index), codegen


@intrinsic
def tile_update(typingctx, W, w0, part, p0, stride, groups, registers, rate):
    """W[w0 : w0 + V registers] += rate * sum over g < groups of part[p0 + g stride : ...], in order of g."""

    def codegen(context, builder, signature, args):
        vW, vw0, vpart, vp0, vstride, vgroups, vregisters, vrate = args
        v = Vectors(context, builder, W)
        at_w, at_p, factor = v.pointer(W, vW, vw0), v.pointer(part, vpart, vp0), v.splat(vrate)

        def body(i):
            here, at = v.row(at_p, i, v.lanes), v.row(at_w, i, v.lanes)
            (total,) = v.variables(1)
            builder.store(v.zero, total)

            def add(g):
                builder.store(builder.fadd(builder.load(total), v.load(v.row(here, g, vstride))), total)

            v.loop(vgroups, add)
            v.store(builder.fadd(v.load(at), builder.fmul(factor, builder.load(total))), at)

        v.loop(vregisters, body)
        return context.get_dummy_value()

    return types.void(W, index, part, index, index, index, index, W.dtype), codegen


@intrinsic
def meet(typingctx, arrivals, goal):
    """A barrier: add 1 to arrivals[0] and wait until it reaches `goal`, spinning first, then giving the core away."""

    def codegen(context, builder, signature, args):
        word, status = ir.IntType(64), ir.IntType(32)
        counter = context.make_array(arrivals)(context, builder, args[0]).data
        builder.atomic_rmw("add", counter, word(1), "seq_cst")
        give_way = ir.FunctionType(status, [])
        give_way = cgutils.get_or_insert_function(builder.module, give_way, "sched_yield")
        before, wait = builder.block, builder.append_basic_block("wait")
        patience, after = builder.append_basic_block("patience"), builder.append_basic_block("met")
        builder.branch(wait)
        builder.position_at_end(wait)
        spins = builder.phi(word)
        spins.add_incoming(word(0), before)
        here = builder.load_atomic(counter, "seq_cst", 8)
        builder.cbranch(builder.icmp_signed(">=", here, args[1]), after, patience)
        builder.position_at_end(patience)
        if platform.machine() in ("x86_64", "AMD64"):
            pause = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, pause, "llvm.x86.sse2.pause"), [])
        with builder.if_then(builder.icmp_signed(">", spins, word(100))):  # both threads on one core: a few µs are lost
            builder.call(give_way, [])
        spins.add_incoming(builder.add(spins, word(1)), builder.block)
        builder.branch(wait)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(arrivals, index), codegen

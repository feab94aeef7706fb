"""Rows of L lanes, a lane a run: what the recursion does to runs side by side, written as vectors.

Row r of an array begins at its number r L.  Products and sums stand in the order in which `recursion` takes them for a
run alone, and are fused where they are there, so a lane has the bits of its run.
"""

import inspect

from numba import types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic

from .sums import exponential
from .vectors import Vectors

L = 8
index = types.intp


class Rows(Vectors):
    """Registers of L lanes of float64; rows by number."""

    def __init__(self, context, builder, signature, args):
        arrays = [kind for kind in signature.args if isinstance(kind, types.Array)]
        super().__init__(context, builder, arrays[0], L)
        self.first = {id(value): self.pointer(kind, value, 0) for kind, value in zip(signature.args, args)
                      if isinstance(kind, types.Array)}  # fmt: skip

    def address(self, array, row):
        """Address of a row of an array that is an argument, or of the row-th row from an address on."""
        return self.row(self.first.get(id(array), array), row, L)

    def get(self, array, row):
        return self.load(self.address(array, row))

    def put(self, value, array, row):
        self.store(value, self.address(array, row))

    def sum(self, a, b):
        return self.builder.fadd(a, b)

    def product(self, a, b):
        return self.builder.fmul(a, b)

    def most(self, a, b):
        """max(a, b) as Python has it: a where b is not larger, NaN too."""
        return self.where(">", b, a, b, a)

    def where_not_0(self, x, yes, no):
        return self.builder.select(self.builder.fcmp_unordered("!=", x, self.zero), yes, no)

    def total(self, value):
        """A register that a loop changes."""
        return self.variables(1, value)[0]

    def add_to(self, total, value):
        self.builder.store(self.sum(self.builder.load(total), value), total)

    def add_product(self, total, a, b):
        self.builder.store(self.fma(a, b, self.builder.load(total)), total)


def on_rows(emit):
    """Make of emit(v, *args) an intrinsic whose arguments are arrays of float64 and whole numbers."""

    def typed(typingctx, *kinds):
        def codegen(context, builder, signature, args):
            emit(Rows(context, builder, signature, args), *args)
            return context.get_dummy_value()

        return types.void(*(kind if isinstance(kind, types.Array) else index for kind in kinds)), codegen

    of_emit = list(inspect.signature(emit).parameters.values())[1:]
    typed.__signature__ = inspect.Signature([inspect.Parameter("typingctx", of_emit[0].kind), *of_emit])
    typed.__name__, typed.__doc__ = emit.__name__, emit.__doc__
    return intrinsic(typed)


# ------------------------------------------------------------------ responses and objectives
@on_rows
def scale(v, Z, z, T, t, s, s0, n):
    """Z[z + i] = s T[t + i], i < n."""
    factor, target, source = v.get(s, s0), v.address(Z, z), v.address(T, t)
    v.loop(n, lambda i: v.put(v.product(factor, v.get(source, i)), target, i))


def responses(v, at_z, factor, S, s, q, numbers, count, c0, F, f, n):
    """S[s + i] = sigma'(z_i), F[f] += count sum_i sigma(z_i), z_i = factor times the i-th row from at_z on, i < n."""
    rho, inverse, part = (v.get(numbers, v.word(row)) for row in range(3))
    at_s, total = v.address(S, s), v.total(v.zero)

    def body(i):
        z = v.get(at_z, i) if factor is None else v.product(factor, v.get(at_z, i))
        value = v.clip(v.product(z, inverse), v.zero, v.one)
        (slope,) = v.power([value], q)
        v.put(slope, at_s, i)
        v.add_to(total, v.sum(v.product(v.product(part, value), slope), v.most(v.builder.fsub(z, rho), v.zero)))

    v.loop(n, body)
    v.put(v.sum(v.get(F, f), v.product(v.get(count, c0), v.builder.load(total))), F, f)


@on_rows
def respond(v, Z, z, S, s, q, numbers, count, c0, F, f, n):
    """Responses to z_i = Z[z + i]; numbers: rho, 1 / rho, rho / q."""
    responses(v, v.address(Z, z), None, S, s, q, numbers, count, c0, F, f, n)


@on_rows
def respond_clean(v, T, t, strength, S, s, q, numbers, count, c0, F, f, n):
    """Responses to z_i = strength T[t + i], both of the patch c0."""
    responses(v, v.address(T, t), v.get(strength, c0), S, s, q, numbers, count, c0, F, f, n)


@on_rows
def softmax_weights(v, F, C, c, k, y):
    """C[c + i] = dJ/dF_i of cross entropy for the class y, i < k."""
    b, top, rivals, at_c = v.builder, v.total(v.get(F, v.word(0))), v.total(v.zero), v.address(C, c)
    v.loop(k, lambda i: b.store(v.most(b.load(top), v.get(F, i)), top))

    def exponent(i):
        value = exponential(v, b.fsub(v.get(F, i), b.load(top)))
        v.put(value, at_c, i)
        with b.if_then(b.icmp_signed("!=", i, y)):
            v.add_to(rivals, value)

    v.loop(k, exponent)
    whole = v.sum(b.load(rivals), v.get(at_c, y))
    v.loop(k, lambda i: v.put(b.fdiv(v.get(at_c, i), whole), at_c, i))
    v.put(b.fdiv(b.fneg(b.load(rivals)), whole), at_c, y)


@on_rows
def margin_weights(v, F, C, k, y):
    """C[i] = dJ/dF_i of the margin, -1 for y and 1 for the largest of the others, the first of equal ones."""
    b = v.builder
    best, has = v.total(v.zero), v.total(v.zero)  # the number of the rival, and 1 where there is one

    def rival(i):
        with b.if_then(b.icmp_signed("!=", i, y)):
            larger = b.fcmp_ordered(">", v.get(F, i), v.get(C, v.word(0)))
            take = b.or_(larger, b.fcmp_ordered("==", b.load(has), v.zero))
            v.put(b.select(take, v.get(F, i), v.get(C, v.word(0))), C, v.word(0))  # the rival's logit, for now
            b.store(b.select(take, v.splat(b.sitofp(i, v.number)), b.load(best)), best)
            b.store(v.one, has)

    v.loop(k, rival)

    def weight(i):
        number = v.splat(b.sitofp(i, v.number))
        v.put(v.where("==", number, b.load(best), v.one, v.zero), C, i)

    v.loop(k, weight)
    v.put(v.constant(-1.0), C, y)


# ------------------------------------------------------------------ ascent
@on_rows
def climb(v, A, a, G, g, S, s, weight, w0, n):
    """A[a + i] = weight S[s + i], G[g + i] += A[a + i], i < n."""
    factor, at_a, at_g, at_s = v.get(weight, w0), v.address(A, a), v.address(G, g), v.address(S, s)

    def body(i):
        value = v.product(factor, v.get(at_s, i))
        v.put(value, at_a, i)
        v.put(v.sum(v.get(at_g, i), value), at_g, i)

    v.loop(n, body)


ROWS = 4  # of H that `spread` takes at a time


@on_rows
def spread(v, HG, g, A, a, H, lo, hi, n):
    """HG[g + j] += A[a + i] H_{ij}, j < n, for lo <= i < hi in turn, where A is not 0; H by rows of its lower half.

    Several rows i pass over HG together, every j in the order of i.
    """
    b, at_g, at_a = v.builder, v.address(HG, g), v.address(A, a)

    def place(i, j):  # of H_{ij}, j <= i
        return b.add(b.sdiv(b.mul(i, b.add(i, v.word(1))), v.word(2)), j)

    def together(first, width):
        numbers = [b.add(first, v.word(r)) for r in range(width)]
        factors = [v.get(at_a, i) for i in numbers]
        used = [b.fcmp_unordered("!=", factor, v.zero) for factor in factors]
        after = b.add(first, v.word(width))

        def add(j, places):
            total = v.get(at_g, j)
            for factor, on, (array, at) in zip(factors, used, places):
                total = b.select(on, v.fma(factor, v.get(array, at), total), total)
            v.put(total, at_g, j)

        rows = [v.address(H, place(i, v.word(0))) for i in numbers]
        v.loop(b.add(first, v.word(1)), lambda j: add(j, [(row, j) for row in rows]))
        for c, j in enumerate(numbers[1:], 1):
            add(j, [(H, place(i, j) if c <= r else place(j, i)) for r, i in enumerate(numbers)])
        column = cgutils.alloca_once_value(b, place(after, first))

        def below(j):  # H_{ij} stands in row j; in the next one it stands j + 1 further
            j, here = b.add(after, j), b.load(column)
            add(j, [(H, b.add(here, v.word(r))) for r in range(width)])
            b.store(b.add(b.add(here, j), v.word(1)), column)

        v.loop(b.sub(n, after), below)

    whole = b.sdiv(b.sub(hi, lo), v.word(ROWS))
    v.loop(whole, lambda i: together(b.add(lo, b.mul(i, v.word(ROWS))), ROWS))
    rest = b.add(lo, b.mul(whole, v.word(ROWS)))
    v.loop(b.sub(hi, rest), lambda i: together(b.add(rest, i), 1))


def dot_of(v, X, x, Y, y, lo, hi):
    """sum over lo <= i < hi of X[x + i] Y[y + i]: four sums at a time, as `recursion.dot`."""
    b, sums = v.builder, [v.total(v.zero) for _ in range(4)]
    at_x, at_y = v.address(X, b.add(x, lo)), v.address(Y, b.add(y, lo))
    fours = b.sdiv(b.sub(hi, lo), v.word(4))

    def four(i):
        first = b.mul(i, v.word(4))
        for j, total in enumerate(sums):
            here = b.add(first, v.word(j))
            v.add_product(total, v.get(at_x, here), v.get(at_y, here))

    v.loop(fours, four)
    whole = b.mul(fours, v.word(4))

    def rest(i):
        here = b.add(whole, i)
        v.add_product(sums[0], v.get(at_x, here), v.get(at_y, here))

    v.loop(b.sub(b.sub(hi, lo), whole), rest)
    s = [b.load(total) for total in sums]
    return v.sum(v.sum(s[0], s[1]), v.sum(s[2], s[3]))


@on_rows
def shift(v, delta, d, A, a, T, K, lo, hi, step, s0, n):
    """delta[d + f] += step sum over lo <= i < hi of A[a + i] T[f K + i], f < n."""
    factor, at_d = v.get(step, s0), v.address(delta, d)

    def one(f):
        dot = dot_of(v, A, a, T, v.builder.mul(f, K), lo, hi)
        v.put(v.sum(v.get(at_d, f), v.product(factor, dot)), at_d, f)

    v.loop(n, one)


@on_rows
def clip(v, X, x, eps, e0, n):
    """X[x + i] clipped to the radius, i < n."""
    high, at_x = v.get(eps, e0), v.address(X, x)
    low = v.builder.fneg(high)
    v.loop(n, lambda i: v.put(v.clip(v.get(at_x, i), low, high), at_x, i))


@on_rows
def lengths(v, out, o, X, x, Y, y, n, step, s0):
    """out[o] = step sqrt(max(sum over i < n of X[x + i] Y[y + i], 0))."""
    value = v.most(dot_of(v, X, x, Y, y, v.word(0), n), v.zero)
    v.put(v.product(v.get(step, s0), v.root(value)), out, o)


@on_rows
def beyond(v, seen, X, x, step, s0, eps, e0, n):
    """seen[0] = 1 where |step X[x + i]| > eps for some i < n."""
    b, factor, radius, at_x = v.builder, v.get(step, s0), v.get(eps, e0), v.address(X, x)
    found = v.total(v.get(seen, v.word(0)))

    def body(i):
        value = v.product(factor, v.get(at_x, i))
        size = v.where("<", value, v.zero, b.fneg(value), value)
        b.store(v.where(">", size, radius, v.one, b.load(found)), found)

    v.loop(n, body)
    v.put(b.load(found), seen, v.word(0))


@on_rows
def shrinking(v, out, delta, d, n, reach, r0, eps, e0):
    """out[0] = eps / size where size = sqrt(|delta[d : d + n]|^2 + reach^2) > eps, else 1."""
    b, radius, length = v.builder, v.get(eps, e0), v.get(reach, r0)
    square = v.sum(dot_of(v, delta, d, delta, d, v.word(0), n), v.product(length, length))
    size = v.root(square)
    v.put(v.where(">", size, radius, b.fdiv(radius, size), v.one), out, v.word(0))


@on_rows
def multiply(v, X, x, s, s0, n):
    """X[x + i] *= s, i < n."""
    factor, at_x = v.get(s, s0), v.address(X, x)
    v.loop(n, lambda i: v.put(v.product(v.get(at_x, i), factor), at_x, i))


@on_rows
def move(v, Z, z, T, own, HG, g, delta, d, s, s0, step, t0, K, n):
    """Z[z + i] = s T[own K + i] + step HG[g + i] + sum over f < n of delta[d + f] T[f K + i], i < K."""
    b, strength, factor = v.builder, v.get(s, s0), v.get(step, t0)
    at_z, mine, at_g, at_d = v.address(Z, z), v.address(T, b.mul(own, K)), v.address(HG, g), v.address(delta, d)

    def one(i):
        first = v.fma(factor, v.get(at_g, i), v.product(strength, v.get(mine, i)))
        total, column = v.total(first), v.address(T, i)
        v.loop(n, lambda f: v.add_product(total, v.get(at_d, f), v.get(column, b.mul(f, K))))
        v.put(b.load(total), at_z, i)

    v.loop(K, one)


# ------------------------------------------------------------------ updates
@on_rows
def slopes(v, U, u, S, s, count, c0, weight, w0, n):
    """U[u + i] = -count weight S[s + i], i < n."""
    factor = v.product(v.builder.fneg(v.get(count, c0)), v.get(weight, w0))
    at_u, at_s = v.address(U, u), v.address(S, s)
    v.loop(n, lambda i: v.put(v.product(factor, v.get(at_s, i)), at_u, i))


@on_rows
def learn(v, T, t, rate, r0, s, s0, S, a, count, weight, w0, n):
    """T[t + i] += rate (0 + s U_i), U_i = -count weight S[a + i], i < n; s and count of the patch s0."""
    lr, strength, at_t, at_s = v.get(rate, r0), v.get(s, s0), v.address(T, t), v.address(S, a)
    factor = v.product(v.builder.fneg(v.get(count, s0)), v.get(weight, w0))

    def body(i):  # "0 +" changes a zero's sign alone
        change = v.product(strength, v.product(factor, v.get(at_s, i)))
        v.put(v.fma(lr, change, v.get(at_t, i)), at_t, i)

    v.loop(n, body)


@on_rows
def add(v, X, x, s, s0, Y, y, n):
    """X[x + i] += s Y[y + i], i < n."""
    factor, at_x, at_y = v.get(s, s0), v.address(X, x), v.address(Y, y)
    v.loop(n, lambda i: v.put(v.fma(factor, v.get(at_y, i), v.get(at_x, i)), at_x, i))


@on_rows
def add_where(v, X, x, s, s0, Y, y, n):
    """X[x + i] += s Y[y + i] where s is not 0, i < n."""
    factor, at_x, at_y = v.get(s, s0), v.address(X, x), v.address(Y, y)

    def body(i):
        before = v.get(at_x, i)
        v.put(v.where_not_0(factor, v.fma(factor, v.get(at_y, i), before), before), at_x, i)

    v.loop(n, body)


@on_rows
def add_both(v, H, h, M, square, here, there):
    """H[h] += M[here] + M[there] + (square[here] + square[there]) / 2."""
    both = v.product(v.constant(0.5), v.sum(v.get(square, here), v.get(square, there)))
    v.put(v.sum(v.get(H, h), v.sum(v.sum(v.get(M, here), v.get(M, there)), both)), H, h)


@on_rows
def pair(v, out, o, half, h0, G, g, HG, h, lo, hi):
    """out[o] = half sum over lo <= i < hi of G[g + i] HG[h + i]."""
    v.put(v.product(v.get(half, h0), dot_of(v, G, g, HG, h, lo, hi)), out, o)


@on_rows
def combine(v, V, w, HG, h, rate, r0, factors, U, columns, K):
    """V[w + a] = rate HG[h + a] + sum over j < columns of factors[j] U[j K + a], a < K."""
    b, factor, at_v, at_h = v.builder, v.get(rate, r0), v.address(V, w), v.address(HG, h)

    def one(a):
        total, column = v.total(v.product(factor, v.get(at_h, a))), v.address(U, a)
        v.loop(columns, lambda j: v.add_product(total, v.get(factors, j), v.get(column, b.mul(j, K))))
        v.put(b.load(total), at_v, a)

    v.loop(K, one)


ENTRIES = 32  # of a row of H that `gram` takes at a time


@intrinsic
def gram(typingctx, columns, H, U, u, V, w, K):
    """H_{ab} += sum_i U[u + i K + a] V[w + i K + b] + V[w + i K + a] U[u + i K + b], i < columns (literal), b <= a."""
    if not isinstance(columns, types.IntegerLiteral):
        raise RequireLiteralValue(columns)

    def codegen(context, builder, signature, args):
        v, b = Rows(context, builder, signature, args), builder
        _, vH, vU, vu, vV, vw, vK = args
        behind = [b.mul(v.word(i), vK) for i in range(columns.literal_value)]
        sources = [(v.address(vU, b.add(vu, more)), v.address(vV, b.add(vw, more))) for more in behind]

        def least(x, y):
            return b.select(b.icmp_signed("<", x, y), x, y)

        def rows(numbers, first, count):  # of some rows a, the entries first <= j < first + count
            mine = [[(v.get(at_u, a), v.get(at_v, a)) for at_u, at_v in sources] for a in numbers]
            targets = [v.address(vH, b.sdiv(b.mul(a, b.add(a, v.word(1))), v.word(2))) for a in numbers]

            def entry(j):
                j = b.add(first, j)
                theirs = [(v.get(at_u, j), v.get(at_v, j)) for at_u, at_v in sources]
                for own, target in zip(mine, targets):
                    total = v.get(target, j)
                    for (u_j, v_j), (u_a, v_a) in zip(theirs, own):
                        total = v.fma(u_a, v_j, v.fma(v_a, u_j, total))
                    v.put(total, target, j)

            v.loop(count, entry)

        def block(i):  # of entries j, whose U and V stay in the first cache
            first = b.mul(i, v.word(ENTRIES))
            last = least(b.add(first, v.word(ENTRIES)), vK)
            pairs = b.sdiv(b.sub(vK, first), v.word(2))

            def pair_of_rows(p):
                a = b.add(first, b.mul(p, v.word(2)))
                following = b.add(a, v.word(1))
                rows([a, following], first, b.sub(least(following, last), first))
                with b.if_then(b.icmp_signed("<", following, last)):
                    rows([following], following, v.word(1))

            v.loop(pairs, pair_of_rows)
            a = b.add(first, b.mul(pairs, v.word(2)))
            with b.if_then(b.icmp_signed("<", a, vK)):
                rows([a], first, b.sub(least(b.add(a, v.word(1)), last), first))

        blocks = b.sdiv(b.add(vK, v.word(ENTRIES - 1)), v.word(ENTRIES))
        v.loop(blocks, block)
        return context.get_dummy_value()

    return types.void(columns, H, U, index, V, index, index), codegen


@on_rows
def finite(v, fine, F, k):
    """fine[0] += 0 for every finite F[i], i < k, NaN for others."""
    total = v.total(v.get(fine, v.word(0)))
    v.loop(k, lambda i: v.add_to(total, v.product(v.get(F, i), v.zero)))
    v.put(v.builder.load(total), fine, v.word(0))

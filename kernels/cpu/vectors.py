"""Registers of lanes as LLVM vectors of the target's width: the words in which the tiles are written.

The vectors are explicit, so no auto-vectoriser decides about speed, and the order of every sum is written down, so no
compiler decides about bits.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..target import FUSED, VECTOR_BITS

VECTOR_BYTES = VECTOR_BITS // 8
BLOCK_BYTES = 2 * VECTOR_BYTES  # a block is B = BLOCK_BYTES // itemsize = 2 V lanes, two registers of V numbers


@intrinsic
def fma(typingctx, a, b, c):
    """a b + c of float64 numbers, as `Vectors.fma`; loops over it become vectors."""

    def codegen(context, builder, signature, args):
        a, b, c = args
        return builder.fma(a, b, c) if FUSED else builder.fadd(builder.fmul(a, b), c)

    return types.float64(types.float64, types.float64, types.float64), codegen


class Vectors:
    """Operations on registers of V = `lanes` numbers of an array's dtype; a block of lanes is a list of two."""

    def __init__(self, context, builder, array, lanes=None):
        self.context, self.builder = context, builder
        self.bits = 32 if array.dtype == types.float32 else 64
        self.lanes = lanes or VECTOR_BYTES * 8 // self.bits
        self.number = ir.FloatType() if self.bits == 32 else ir.DoubleType()
        self.type = ir.VectorType(self.number, self.lanes)
        self.word = ir.IntType(64)
        self.zero, self.one = self.constant(0.0), self.constant(1.0)

    def constant(self, value):
        return ir.Constant(self.type, [value] * self.lanes)

    # ------------------------------------------------------------ memory
    def pointer(self, array, value, offset):
        """Address of element `offset` of an array."""
        return self.at(self.context.make_array(array)(self.context, self.builder, value).data, offset)

    def at(self, pointer, offset):
        return self.builder.gep(pointer, [self.word(offset) if isinstance(offset, int) else offset])

    def row(self, pointer, r, stride):
        """Address of row r (a Python int or a value) of a table whose rows are `stride` numbers apart."""
        r = self.word(r) if isinstance(r, int) else r
        return self.at(pointer, self.builder.mul(r, self.word(stride) if isinstance(stride, int) else stride))

    def load(self, pointer, h=0):
        """The h-th register at an address."""
        return self.builder.load(self._register(pointer, h), align=4)

    def store(self, value, pointer, h=0):
        self.builder.store(value, self._register(pointer, h), align=4)

    def _register(self, pointer, h):
        return self.builder.bitcast(self.at(pointer, h * self.lanes), self.type.as_pointer())

    def variables(self, n, value=None):
        """n registers that a loop may change: read with `builder.load`, written with `builder.store`."""
        return [cgutils.alloca_once_value(self.builder, self.zero if value is None else value) for _ in range(n)]

    # ------------------------------------------------------------ arithmetic
    def splat(self, scalar):
        undefined = ir.Constant(self.type, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, mask)

    def _call(self, name, *args):
        kind = ir.FunctionType(self.type, [self.type] * len(args))
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}.v{self.lanes}f{self.bits}")
        return self.builder.call(function, args)

    def fma(self, a, b, c):
        """a b + c, rounded once where the target has an instruction for that."""
        return self._call("fma", a, b, c) if FUSED else self.builder.fadd(self.builder.fmul(a, b), c)

    def root(self, a):
        return self._call("sqrt", a)

    def where(self, condition, a, b, yes, no):
        return self.builder.select(self.builder.fcmp_ordered(condition, a, b), yes, no)

    def clip(self, a, low, high):
        """min(max(a, low), high); NaN passes through."""
        a = self.where("<", a, low, low, a)
        return self.where(">", a, high, high, a)

    def sign(self, a):
        """sign(a), 0 at 0."""
        positive, negative = (self.where(c, a, self.zero, self.one, self.zero) for c in (">", "<"))
        return self.builder.fsub(positive, negative)

    def shuffle(self, a, b, source):
        """The lanes `source` of a followed by b."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), source))

    def power(self, v, q):
        """v^(q-1) for registers v and an integer q >= 2; straight-line code for q <= 3."""
        builder, square = self.builder, [self.builder.fmul(x, x) for x in v]
        two = builder.icmp_signed("==", q, self.word(2))
        result = [cgutils.alloca_once_value(builder, x) for x in v]
        for total, x, xx in zip(result, v, square, strict=True):
            builder.store(builder.select(two, x, xx), total)

        def multiply(_):
            for x, total in zip(v, result, strict=True):
                builder.store(builder.fmul(builder.load(total), x), total)

        with builder.if_then(builder.icmp_signed(">", q, self.word(3)), likely=False):
            self.loop(builder.sub(q, self.word(3)), multiply)
        return [builder.load(total) for total in result]

    def sigma(self, z, q, rho, inverse):
        """sigma(z) = (rho/q) v^q + max(z - rho, 0) and sigma'(z) = v^(q-1), v = clip(z / rho, 0, 1), of a block."""
        builder = self.builder
        part = self.splat(builder.fdiv(rho, builder.sitofp(q, self.number)))
        rho, inverse = self.splat(rho), self.splat(inverse)
        v = [self.clip(builder.fmul(x, inverse), self.zero, self.one) for x in z]
        slopes = self.power(v, q)
        over = [builder.fsub(x, rho) for x in z]
        over = [self.where("<", x, self.zero, self.zero, x) for x in over]
        values = [self.fma(builder.fmul(part, s), x, o) for s, x, o in zip(slopes, v, over, strict=True)]
        return values, slopes

    # ------------------------------------------------------------ control
    def opaque(self, value):
        """The same value, of which the compiler knows nothing: it passes through an empty assembly statement."""
        return self.builder.asm(ir.FunctionType(value.type, [value.type]), "", "=r,0", [value], False)

    def loop(self, count, body):
        """for r in range(count): body(r), as an LLVM loop that is never unrolled: tiles are wide enough as they are.

        The remaining count passes through an empty assembly statement, so no trip count is known; unrolled copies of
        every tile would quadruple the time of compilation.
        """
        builder, word = self.builder, count.type
        before, loop, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("loop.end")
        builder.cbranch(builder.icmp_signed(">", count, word(0)), loop, after)
        builder.position_at_end(loop)
        r, left = builder.phi(word), builder.phi(word)
        r.add_incoming(word(0), before)
        left.add_incoming(count, before)
        body(r)
        fewer = builder.sub(left, word(1))
        fewer = self.opaque(fewer)
        r.add_incoming(builder.add(r, word(1)), builder.block)
        left.add_incoming(fewer, builder.block)
        builder.cbranch(builder.icmp_signed(">", fewer, word(0)), loop, after)
        builder.position_at_end(after)

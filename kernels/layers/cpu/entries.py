"""Kernels behind one signature, so that a list of their calls is one call of native code.

An entry is a C function of a kernel and the types of its arguments: (place of the arguments, of the thread's memory,
tid, nt).  Arguments lie in words of 64 bits: a whole number is one, a float one with its bits, an array two, address
and size, a tuple what its parts are.
"""

import hashlib
from functools import cache
from types import FunctionType

import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.extending import intrinsic

from ...cpu.lanes import meet
from ...jit import c_function, jit

EACH, WAITS = 1, 2  # of a call: made whole by every thread; the threads wait for each other behind it
ENTRY = types.void(types.intp, types.intp, types.intp, types.intp)
_entries: dict = {}  # compiled, by what `key` says of a call


def kind(value):
    """Numba's type of an argument."""
    if isinstance(value, tuple):
        return types.BaseTuple.from_types([kind(one) for one in value], type(value))
    if isinstance(value, np.ndarray):
        return types.Array(from_dtype(value.dtype), 1, "C")
    if isinstance(value, (int, np.integer)):
        return types.intp
    return from_dtype(np.result_type(value))


def words(value) -> list[int]:
    """An argument in words."""
    if isinstance(value, tuple):
        return [word for one in value for word in words(one)]
    if isinstance(value, np.ndarray):
        if value.ndim != 1 or not value.flags.c_contiguous:
            raise TypeError(f"an array {value.shape} of strides {value.strides}: kernels read flat ones")
        return [value.__array_interface__["data"][0], value.size]
    if isinstance(value, (int, np.integer)):
        return [int(value)]
    return [int(np.asarray(value).reshape(1).view(f"i{np.result_type(value).itemsize}")[0])]


def key(kernel, args):
    """What decides the code of a call, quicker than its types: the kernel, its lanes, dtypes and types of numbers."""
    lanes = len(args[0]) if args and isinstance(args[0], tuple) else 0
    each = (a for arg in args for a in (arg if isinstance(arg, tuple) else (arg,)))
    return kernel, lanes, *(a.dtype if hasattr(a, "dtype") else type(a) for a in each)


def entry(kernel, args, dtype) -> int:
    """The address of a kernel's entry for arguments like these and memory of a dtype; compiled where it is not."""
    which = *key(kernel, args), np.dtype(dtype)
    if which not in _entries:
        kinds, memory = tuple(kind(arg) for arg in args), (types.Array(from_dtype(np.dtype(dtype)), 1, "C"),)
        name = f"{kernel.__name__}_{hashlib.sha256(repr((kinds, memory)).encode()).hexdigest()[:16]}"
        scope = {"__name__": __name__, "kernel": kernel, "read": _reader(kinds), "read_memory": _reader(memory)}
        _entries[which] = c_function(FunctionType(_call.__code__.replace(co_name=name), scope, name), ENTRY)
    return _entries[which].address


def _call(place, own, tid, nt):
    (work,) = read_memory(own)  # noqa: F821  (in the scope that `entry` makes)
    kernel(*read(place), work, tid, nt)  # noqa: F821


@cache
def _reader(kinds):
    """The intrinsic that reads arguments of these types from their words."""

    def one(context, builder, kind, at, number):
        """The argument whose first word is the `number`-th, and how many words it had."""
        word = builder.load(builder.gep(at, [ir.Constant(ir.IntType(64), number)]))
        if isinstance(kind, types.BaseTuple):
            parts, first = [], number
            for part in kind:
                value, more = one(context, builder, part, at, number)
                parts.append(value)
                number += more
            return context.make_tuple(builder, kind, parts), number - first
        if isinstance(kind, types.Array):
            size = builder.load(builder.gep(at, [ir.Constant(ir.IntType(64), number + 1)]))
            array, item = context.make_array(kind)(context, builder), context.get_abi_sizeof(
                context.get_data_type(kind.dtype))  # fmt: skip
            step = ir.Constant(ir.IntType(64), item)
            data = builder.inttoptr(word, context.get_data_type(kind.dtype).as_pointer())
            context.populate_array(array, data=data, shape=[size], strides=[step], itemsize=step, meminfo=None)
            return array._getvalue(), 2
        if isinstance(kind, types.Float):
            bits = ir.IntType(kind.bitwidth)
            word = word if kind.bitwidth == 64 else builder.trunc(word, bits)
            return builder.bitcast(word, context.get_value_type(kind)), 1
        return word, 1

    @intrinsic
    def read(typingctx, place):
        answer = types.BaseTuple.from_types(kinds)

        def codegen(context, builder, signature, args):
            at = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
            values, number = [], 0
            for each in kinds:
                value, more = one(context, builder, each, at, number)
                values.append(value)
                number += more
            return context.make_tuple(builder, answer, values)

        return answer(types.intp), codegen

    return read


@intrinsic
def _enter(typingctx, address, place, own, tid, nt):
    def codegen(context, builder, signature, args):
        word = ir.IntType(64)
        function = ir.FunctionType(ir.VoidType(), [word] * 4)
        builder.call(builder.inttoptr(args[0], function.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), codegen


@jit
def work_through(table, own, arrivals, tid, nt):
    """The calls of a table (entry, place of the arguments, bits EACH and WAITS) by thread `tid` of `nt`; an entry of 0
    is none."""
    goal = 0
    for call in range(len(table)):
        address, place, bits = table[call]
        if address != 0:
            if bits & EACH:
                _enter(address, place, own, 0, 1)
            else:
                _enter(address, place, own, tid, nt)
        if bits & WAITS and nt > 1:
            goal += nt
            meet(arrivals, goal)

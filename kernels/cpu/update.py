"""A step of stochastic gradient descent on many arrays, in one pass over memory, by all threads."""

import numpy as np
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from ..jit import jit
from . import engine

SMALLEST = 2**15  # numbers that are worth the threads


@intrinsic
def _pointer(typingctx, address):
    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.intp), codegen


@jit
def _descend(table, decays, lr, momentum, nesterov, tid, nt):
    """v <- momentum v + (g + decay w); w <- w - lr v, or with `nesterov` w - lr (g + decay w + momentum v); rows of
    the table are the addresses of w, g and v, and their size."""
    for row in range(len(table)):
        n, decay = table[row, 3], decays[row]
        w = carray(_pointer(table[row, 0]), n, decays.dtype)
        g = carray(_pointer(table[row, 1]), n, decays.dtype)
        v = carray(_pointer(table[row, 2]), n, decays.dtype)
        first, last = n * tid // nt, n * (tid + 1) // nt
        if decay != 0:
            for i in range(first, last):
                slope = g[i] + decay * w[i]
                move = momentum * v[i] + slope
                v[i] = move
                w[i] = w[i] - lr * (slope + momentum * move if nesterov else move)
        else:
            for i in range(first, last):
                move = momentum * v[i] + g[i]
                v[i] = move
                w[i] = w[i] - lr * (g[i] + momentum * move if nesterov else move)


def descend(arrays, decays, lr, momentum, nesterov) -> bool:
    """The step of every (w, g, v) of `arrays` in place, with a weight decay for each, to the same bits as NumPy's.

    False where nothing was done: arrays are of several dtypes, lie not in one piece, or are few numbers.
    """
    dtype = arrays[0][0].dtype
    each = [a for one in arrays for a in one]
    fits = dtype in (np.float32, np.float64) and all(a.dtype == dtype and a.flags.c_contiguous for a in each)
    if not fits or sum(w.size for w, *_ in arrays) < SMALLEST:
        return False
    table = np.array([[*(a.__array_interface__["data"][0] for a in one), one[0].size] for one in arrays])
    args = table, np.array(decays, dtype), dtype.type(lr), dtype.type(momentum), bool(nesterov)
    threads = engine.get_num_threads()
    jobs = [engine._workers().submit(_descend, *args, t, threads) for t in range(1, threads)]
    _descend(*args, 0, threads)
    for job in jobs:
        job.result()
    return True

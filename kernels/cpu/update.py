"""A step of stochastic gradient descent on one array, in one pass over memory, by all threads."""

import numpy as np

from ..jit import jit
from . import engine

SMALLEST = 2**15  # numbers that are worth the threads


@jit
def _descend(w, g, v, lr, momentum, decay, nesterov, tid, nt):
    """v <- momentum v + (g + decay w); w <- w - lr v, or with `nesterov` w - lr (g + decay w + momentum v)."""
    first, last = len(w) * tid // nt, len(w) * (tid + 1) // nt
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


def descend(w, g, v, lr, momentum, decay, nesterov) -> bool:
    """The step in place, the same bits as NumPy's, where the arrays lie in one piece and are large; else False."""
    fits = w.size >= SMALLEST and w.dtype == g.dtype == v.dtype and w.dtype in (np.float32, np.float64)
    if not fits or not all(a.flags.c_contiguous for a in (w, g, v)):
        return False
    number = w.dtype.type
    args = w.reshape(-1), g.reshape(-1), v.reshape(-1), number(lr), number(momentum), number(decay), bool(nesterov)
    threads = engine.get_num_threads()
    jobs = [engine._workers().submit(_descend, *args, t, threads) for t in range(1, threads)]
    _descend(*args, 0, threads)
    for job in jobs:
        job.result()
    return True

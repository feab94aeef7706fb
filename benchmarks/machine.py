"""The ceilings of this machine, measured: multiply-adds per second, bytes copied per second."""

from __future__ import annotations

import threading
import time

import numpy as np
from advfeat.kernels.cpu.vectors import VECTOR_BYTES, Vectors
from numba import njit, types
from numba.extending import intrinsic

CHAINS = 12  # independent multiply-adds in flight: more than latency (4) times units (2)


@intrinsic
def _multiply_add(typingctx, x, rounds):
    """x (>= (CHAINS + 2) V,): `rounds` times CHAINS independent multiply-adds of whole registers."""

    def codegen(context, builder, signature, args):
        v = Vectors(context, builder, x)
        at = v.pointer(x, args[0], v.word(0))
        a, b, totals = v.load(at, 0), v.load(at, 1), v.variables(CHAINS)

        def body(_):
            for total in totals:
                builder.store(v.fma(a, builder.load(total), b), total)

        v.loop(args[1], body)
        for h, total in enumerate(totals):
            v.store(builder.load(total), at, 2 + h)
        return context.get_dummy_value()

    return types.void(x, types.intp), codegen


@njit(nogil=True)
def _spin(x, rounds):
    _multiply_add(x, rounds)


@njit(nogil=True)
def _copy(source, target):
    for i in range(len(source)):
        target[i] = source[i]


def _together(function, arguments):
    """Seconds that one call per thread takes, all at once."""
    threads = [threading.Thread(target=function, args=args) for args in arguments]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def multiply_add_peak(dtype, threads, rounds=15_000_000):
    """GFLOP/s of `threads` threads that do nothing but multiply-adds in registers, for some 30 ms: far shorter ones
    measure how threads wake up."""
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    registers = [np.full((CHAINS + 2) * lanes, 0.5, dtype) for _ in range(threads)]
    _spin(registers[0], 1)
    seconds = _together(_spin, [(x, rounds) for x in registers])
    return 2e-9 * threads * rounds * CHAINS * lanes / seconds


def copy_bandwidth(threads, mebibytes=256):
    """GB/s of a copy of memory far larger than the caches, bytes read and bytes written."""
    parts = [(np.ones(2**17 * mebibytes // threads), np.ones(2**17 * mebibytes // threads)) for _ in range(threads)]
    _copy(parts[0][0][:1], parts[0][1][:1])
    return 2e-9 * sum(source.nbytes for source, _ in parts) / _together(_copy, parts)

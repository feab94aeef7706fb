"""The benchmark of the GPU engine, imported where it stands, and emulated GPUs with clocks for its tests."""

import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from emulated_gpu import EmulatedGpu

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(BENCHMARKS)
    import gpu as bench
    import gpu_ceilings
    import gpu_checks
    from workloads import Workload

__all__ = ["BENCHMARKS", "LOAD", "QUICK", "Clocked", "Timed", "Workload", "bench", "gpu_ceilings", "gpu_checks"]
QUICK = gpu_ceilings.QUICK._replace(rounds=1, repeats=3)
LOAD = Workload("tiny", 2, 3, 4, 8, 3, 7, 1)  # classes of 3, 2 and 2 samples


class Clocked(EmulatedGpu):
    """The emulated GPU with a clock, on which a kernel or product takes a microsecond, a product in tf32 half of it;
    adds up the products' FLOPs."""

    def __init__(self, order=0):
        super().__init__(order)
        self.flops, self.now, self.takes = 0, 0.0, 1e-3

    def multiply(self, out, A, B, *, turn_a=False, turn_b=False, tf32=False):
        self.takes = 5e-4 if tf32 else 1e-3
        super().multiply(out, A, B, turn_a=turn_a, turn_b=turn_b, tf32=tf32)
        self.takes = 1e-3
        self.flops += 2 * out.size * A.shape[1 if turn_a else 2]

    def copy(self, target, source):
        super().copy(target, source)
        self.now += 5e-3 * (target.size == QUICK.numbers)  # the ceiling's, none of the engine's

    def _do(self, work):
        def counted(takes=self.takes):
            work()
            self.now += takes

        super()._do(counted)

    @contextmanager
    def timed(self):
        took, start = [], self.now
        yield took
        took.append(self.now - start)


class Timed(EmulatedGpu):
    """The emulated GPU with the clock on the wall, which JAX does not stop."""

    @contextmanager
    def timed(self):
        took, start = [], time.perf_counter()
        yield took
        took.append(1e3 * (time.perf_counter() - start))

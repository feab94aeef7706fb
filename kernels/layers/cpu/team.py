"""Threads that work through one list of steps together, and memory that is used again."""

from concurrent.futures import wait

import numpy as np

from ...cpu import engine as patch_engine
from ...cpu.layout import lines
from ...jit import light_optimisation
from .pointwise import wait_for_all

_compiled: set = set()


class Buffer:
    """An array that several later steps read; back in the pool when the last of them has been put down."""

    def __init__(self, pool, array):
        self.pool, self.array, self.users = pool, array, 1

    def held(self) -> "Buffer":
        self.users += 1
        return self

    def release(self) -> None:
        self.users -= 1
        if self.users == 0:
            self.pool.give(self.array)


class Memory:
    """Arrays of one dtype that nobody uses, by size: new memory costs more than what is written there."""

    def __init__(self, dtype):
        self.dtype, self.free = np.dtype(dtype), {}

    def take(self, size: int) -> Buffer:
        kept = self.free.get(size)
        return Buffer(self, kept.pop() if kept else lines(size, self.dtype))

    def give(self, array) -> None:
        self.free.setdefault(len(array), []).append(array)


class Steps:
    """Kernel calls in order; every thread makes all of them, with its number, and they wait for each other in between."""

    def __init__(self):
        self.calls, self.work = [], 1

    def add(self, kernel, *args, work: int = 1) -> None:
        """A call with `work` numbers of memory of each thread's own."""
        self.calls.append((kernel, args))
        self.work = max(self.work, work)

    def run(self, dtype, scratch: dict) -> None:
        threads = patch_engine.get_num_threads()
        with patch_engine._team:
            for t in range(threads):
                if t not in scratch or len(scratch[t]) < self.work:
                    scratch[t] = lines(self.work, dtype)
            new = [call for call in self.calls if self._key(call) not in _compiled]
            if new:  # compiled by one thread, at the level that the tiles need
                with light_optimisation():
                    for kernel, args in self.calls:
                        kernel(*args, scratch[0], 0, 1)
                _compiled.update(map(self._key, self.calls))
                return
            if threads == 1:
                for kernel, args in self.calls:
                    kernel(*args, scratch[0], 0, 1)
                return
            self._together(threads, scratch)

    @staticmethod
    def _key(call):
        kernel, args = call
        return kernel, len(args[0]) if isinstance(args[0], tuple) else 0, *(
            getattr(a, "dtype", None) for arg in args for a in (arg if isinstance(arg, tuple) else (arg,)))  # fmt: skip

    def _together(self, threads, scratch):
        arrivals = np.zeros(1, np.int64)

        def work(t):
            own, goal = scratch[t], 0
            for kernel, args in self.calls:
                kernel(*args, own, t, threads)
                goal += threads
                wait_for_all(arrivals, goal)

        jobs = []
        try:
            for t in range(1, threads):
                jobs.append(patch_engine._workers().submit(work, t))
            work(0)
        except BaseException:
            arrivals[0] = 2**62  # this thread will not come: let the others go
            raise
        finally:
            wait(jobs)
        for job in jobs:
            job.result()

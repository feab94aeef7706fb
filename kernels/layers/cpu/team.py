"""Threads that work through one list of steps together, and memory that is used again."""

from concurrent.futures import wait

import numpy as np
from numba import typeof

from ...cpu import engine as patch_engine
from ...cpu.layout import lines
from ...jit import light_optimisation
from .pointwise import wait_for_all

HAND_OVER = 1e-4  # seconds of a call: threads that come back from a kernel wait for Python's lock, and are woken
_entries: dict = {}  # of compiled kernels, by what `Steps.key` says of a call


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
    """Kernel calls in order; every thread makes all of them, with its number, and they wait for each other after each.

    A call that is `free` is followed by no waiting; one for `each` is made whole by every thread, which reads what it
    wrote itself, and the others write the same.
    """

    def __init__(self):
        self.calls, self.work, self.entries, self.pending = [], 1, None, []

    def add(self, kernel, *args, work: int = 1, free: bool = False, each: bool = False) -> None:
        """A call with `work` numbers of memory of each thread's own."""
        self.calls.append((kernel, args, each, not (free or each)))
        self.work = max(self.work, work)
        if not (free or each):
            for buffer in self.pending:
                buffer.release()
            self.pending = []

    def release(self, buffer: Buffer) -> None:
        """Put a buffer down once the threads have waited for each other again."""
        self.pending.append(buffer)

    def close(self) -> None:
        """No more calls: everything that was put down is free."""
        for buffer in self.pending:
            buffer.release()
        self.pending = []

    def wait(self) -> None:
        """Waiting alone."""
        self.calls.append((None, (), False, True))

    def replace(self, number: int, place: int, value) -> None:
        """Another argument of one dtype and shape for a call."""
        kernel, args, each, waits = self.calls[number]
        args = *args[:place], value, *args[place + 1 :]
        self.calls[number] = kernel, args, each, waits
        if self.entries is not None:
            self.entries[number] = self.entries[number][0], args, each, waits

    def compile(self, scratch) -> None:
        """Find or compile all kernels, which works through the calls once."""
        if self.entries is None and not self._find():
            with light_optimisation():  # compiled by one thread, at the level that the tiles need
                for kernel, args, *_ in self.calls:
                    if kernel is not None:
                        key, args = self.key(kernel, args), (*args, scratch, 0, 1)
                        kernel(*args)
                        _entries[key] = kernel.overloads[tuple(map(typeof, args))].entry_point
            self._find()

    def alone(self, scratch) -> None:
        """All calls by this thread."""
        for kernel, args, *_ in self.entries:
            if kernel is not None:
                kernel(*args, scratch, 0, 1)

    def run(self, dtype, scratch: dict, seconds: float) -> None:
        """All calls, by all threads, or by this one where work of `seconds` is less than what handing it over costs."""
        threads = 1 if seconds < HAND_OVER * len(self.calls) else patch_engine.get_num_threads()
        with patch_engine._team:
            for t in range(threads):
                if t not in scratch or len(scratch[t]) < self.work:
                    scratch[t] = lines(self.work, dtype)
            self.compile(scratch[0])
            if threads == 1:
                self.alone(scratch[0])
            else:
                self._together(threads, scratch)

    def _find(self) -> bool:
        """Whether all kernels are compiled."""
        found = [(_entries.get(self.key(kernel, args)), args, *rest) for kernel, args, *rest in self.calls]
        if all(entry is not None or call[0] is None for (entry, *_), call in zip(found, self.calls)):
            self.entries = found
        return self.entries is not None

    @staticmethod
    def key(kernel, args):
        """What decides the code of a call: the kernel, its lanes, dtypes of arrays, types of numbers.  Numba's own
        answer to the question takes longer than many of the kernels."""
        lanes = len(args[0]) if args and isinstance(args[0], tuple) else 0
        each = (a for arg in args for a in (arg if isinstance(arg, tuple) else (arg,)))
        return kernel, lanes, *(a.dtype if hasattr(a, "dtype") else type(a) for a in each)

    def _together(self, threads, scratch):
        arrivals = np.zeros(1, np.int64)

        def work(t):
            own, goal = scratch[t], 0
            for kernel, args, each, waits in self.entries:
                if kernel is not None:
                    kernel(*args, own, *((0, 1) if each else (t, threads)))
                if waits:
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

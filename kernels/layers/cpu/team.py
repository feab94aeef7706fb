"""Threads that work through one list of steps together, and memory that is used again."""

from concurrent.futures import wait

import numpy as np

from ...cpu import engine as patch_engine
from ...cpu.layout import lines
from ...jit import light_optimisation
from .entries import EACH, WAITS, entry, words, work_through

HAND_OVER = 2e-4  # seconds: a thread that is woken, and waits for Python's lock when it comes back


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
        self.calls, self.work, self.table, self.pending = [], 1, None, []

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
        """Another array of one dtype for a call's argument `place`, which comes behind no tuple that changes."""
        kernel, args, *rest = self.calls[number]
        self.calls[number] = kernel, (*args[:place], value, *args[place + 1 :]), *rest
        first = self.places[number] + sum(len(words(arg)) for arg in args[:place])
        self.words[first : first + 2] = words(value)

    def compile(self, dtype) -> None:
        """Find or compile all kernels, for memory of a dtype, and write the calls down as native code reads them."""
        if self.table is not None:
            return
        flat = [[word for arg in args for word in words(arg)] for _, args, *_ in self.calls]
        self.words = np.array([word for call in flat for word in call], np.int64)
        self.places = np.cumsum([0] + [len(call) for call in flat])[:-1]
        self.table = np.zeros((len(self.calls), 3), np.int64)
        with light_optimisation():  # the level that the tiles need
            for row, place, (kernel, args, each, waits) in zip(self.table, self.places, self.calls):
                address = 0 if kernel is None else entry(kernel, args, dtype)
                row[:] = address, self.words.ctypes.data + 8 * place, EACH * each | WAITS * waits

    def alone(self, scratch) -> None:
        """All calls by this thread."""
        own = np.array(words(scratch))
        work_through(self.table, own.ctypes.data, np.zeros(1, np.int64), 0, 1)

    def run(self, dtype, scratch: dict, seconds: float) -> None:
        """All calls, by all threads, or by this one where work of `seconds` is less than what handing it over costs."""
        threads = 1 if seconds < HAND_OVER else patch_engine.get_num_threads()
        with patch_engine._team:
            for t in range(threads):
                if t not in scratch or len(scratch[t]) < self.work:
                    scratch[t] = lines(self.work, dtype)
            self.compile(dtype)
            if threads == 1:
                self.alone(scratch[0])
            else:
                self._together(threads, scratch)

    def _together(self, threads, scratch):
        arrivals, jobs = np.zeros(1, np.int64), []
        own = np.array([words(scratch[t]) for t in range(threads)])
        calls = [(self.table, own[t].ctypes.data, arrivals, t, threads) for t in range(threads)]
        try:
            for call in calls[1:]:
                jobs.append(patch_engine._workers().submit(work_through, *call))
            work_through(*calls[0])
        except BaseException:
            arrivals[0] = 2**62  # this thread will not come: let the others go
            raise
        finally:
            wait(jobs)
        for job in jobs:
            job.result()

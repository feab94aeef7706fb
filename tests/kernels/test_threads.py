"""Threads that work in step: an exception in one of them, and calls from several threads at once."""

import threading
import time

import numpy as np
import pytest
from advfeat.kernels import L2, get_engine
from advfeat.kernels.cpu import engine as cpu_engine
from test_engines import Case, J, same_bits

CALL = ("train", "rate", 20, J[0], "step", "eps", L2, 1)


def train(r=0):
    """Run r alone: chunks, not runs, are what two or three threads can share."""
    return Case("several chunks").run(r).call(get_engine("numba"), *CALL)


def within(seconds, function):
    """What a function raises in a thread of its own; fails where it does not end."""
    raised = []

    def run():
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"still at work after {seconds} s"
    return raised


@pytest.fixture
def arrivals(set_threads, monkeypatch):
    """The barriers of all calls; whoever still waits at one is let go in the end, before the pool is shut down."""
    seen = []
    whole = cpu_engine.kernels.train_together

    def noted(*args):
        seen.append(args[-1])
        return whole(*args)

    monkeypatch.setattr(cpu_engine.kernels, "train_together", noted)
    yield seen
    for barrier in seen:
        barrier[0] = 2**62


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("others", ["before", "after"])
def test_an_exception_before_the_own_share_lets_the_others_go(others, error, arrivals, set_threads, monkeypatch):
    """Raised before or after the other threads have come to their first barrier."""
    set_threads(2)
    expected, kernel = train(), cpu_engine.kernels.train_together
    held = threading.Event()

    def raising(lo, hi, *args):
        if (lo, hi) == (0, 1):
            while others == "after" and args[-1][0] == 0:
                time.sleep(0.001)
            held.set()
            raise error
        if hi > lo and others == "before":
            held.wait(10)
            time.sleep(0.05)
        return kernel(lo, hi, *args)

    with monkeypatch.context() as patch:
        patch.setattr(cpu_engine.kernels, "train_together", raising)
        assert [type(raised) for raised in within(10, train)] == [error]
    same_bits(train(), expected)


def test_a_pool_that_takes_no_more_work_lets_the_others_go(arrivals, set_threads, monkeypatch):
    set_threads(3)
    expected, pool = train(), cpu_engine._workers()

    class Full:
        def submit(self, kernel, lo, *args):
            if lo == 2:
                raise RuntimeError("can't start new thread")
            return pool.submit(kernel, lo, *args)

    with monkeypatch.context() as patch:
        patch.setattr(cpu_engine, "_workers", Full)
        assert [str(raised) for raised in within(10, train)] == ["can't start new thread"]
    same_bits(train(), expected)


def test_calls_from_several_threads_at_once(arrivals, set_threads, monkeypatch):
    """Slow to hand out their shares: calls that took the pool's workers from each other would wait for ever."""
    set_threads(3)
    expected, pool, results = [train(r) for r in range(3)], cpu_engine._workers(), {}

    class Slow:
        def submit(self, *args):
            job = pool.submit(*args)
            time.sleep(0.1)
            return job

    monkeypatch.setattr(cpu_engine, "_workers", Slow)

    def work(r):
        results[r] = train(r)

    threads = [threading.Thread(target=work, args=(r,), daemon=True) for r in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    for r in range(3):
        same_bits(results[r], expected[r])


def test_many_runs_are_taken_a_few_at_a_time(set_threads, monkeypatch):
    """With one, two and three threads every run is trained once, to the bits of the run alone."""
    rng, R, seen = np.random.default_rng(0), 200, []
    start, X = rng.standard_normal((R, 2, 2, 3)), rng.standard_normal((R, 3, 2, 3))
    y, rate, kernel = np.tile([0, 1, 1], (R, 1)), rng.uniform(1, 2, R), cpu_engine.kernels.train

    def noted(lo, hi, *args):
        seen.append((lo, hi))
        return kernel(lo, hi, *args)

    def weights(runs):
        engine, W = get_engine("numba"), start[runs].copy()
        batch = engine.pack(X[runs], y[runs], len(W))
        engine.train(W, batch, 3, 1.0, rate[runs], 5, 0, rate[runs], rate[runs], L2, 1)
        return W

    set_threads(1)
    alone = np.concatenate([weights(slice(r, r + 1)) for r in range(R)])
    monkeypatch.setattr(cpu_engine.kernels, "train", noted)
    for n in (1, 2, 3):
        set_threads(n)
        seen.clear()
        np.testing.assert_array_equal(weights(slice(None)), alone)
        pieces = sorted(piece for piece in seen if piece != (0, 0))
        assert len(pieces) == cpu_engine.PIECES * n
        assert [lo for lo, _ in pieces] + [R] == [0] + [hi for _, hi in pieces]

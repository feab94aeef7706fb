"""Hand work to workers and yield what they find: in this process, by joblib's backends, by a dask scheduler.

Each takes work(batch, threads), which returns (results, seconds), and (number, batch) one by one, only as many ahead as
keep workers busy; and yields (number, results, seconds) as they finish.  Results are a `Failure` where a batch raised.
"""

import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

CONNECT = 10  # seconds until a scheduler, or its first worker, counts as not there
ALONE = 30  # seconds without any worker until a sweep gives up
FETCH = 10  # seconds until a finished result counts as lost with its worker


class WorkFailed(RuntimeError):
    """Work raised in a worker, or workers or their scheduler died."""


@dataclass(frozen=True)
class Failure:
    """What a batch raised, in words: not every exception travels between processes."""

    text: str


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def scheduler_parts(scheduler: str) -> tuple[str, str]:
    """(name, address) of "loky", another backend of joblib or "dask=tcp://HOST:PORT"; ValueError for anything else."""
    text = str(scheduler)
    if ("=" in text or text in ("dask", "None")) and not re.fullmatch(r"dask=\w+://\S+", text):
        raise ValueError(f"scheduler = {scheduler!r}: must be dask=tcp://HOST:PORT, or a joblib backend's name")
    name, _, address = text.partition("=")
    return name, address


def attempt(work, i, batch, threads):
    try:
        return i, *work(batch, threads)
    except Exception as error:
        return i, Failure(f"{type(error).__name__}: {error}"), 0.0


def here(work, tasks: Iterable, threads: int) -> Iterator:
    """One after the other in this process."""
    for i, batch in tasks:
        yield attempt(work, i, batch, threads)


# ------------------------------------------------------------------ joblib
def check_backend(name: str) -> None:
    """ValueError for what joblib does not know."""
    from joblib import parallel_config

    try:
        with parallel_config(backend=name):
            pass
    except ValueError as error:
        raise ValueError(f"scheduler = {name!r}: must be dask=tcp://HOST:PORT, or joblib's; {error}") from None


def by_joblib(work, tasks: Iterable, threads: int, backend: str, jobs: int) -> Iterator:
    """By any registered backend of joblib; one that returns no generator gets `4 jobs` batches at a time."""
    from joblib import Parallel, delayed, parallel_config
    from joblib.parallel import get_active_backend

    # loky replaces workers that hold more memory than at first, and says so as if it were a fault
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
    own = {"initializer": follow, "initargs": (os.getpid(),)} if backend in ("loky", "multiprocessing") else {}
    calls = (delayed(attempt)(work, i, batch, threads) for i, batch in tasks)
    with parallel_config(backend=backend, n_jobs=jobs, **own):
        streams = get_active_backend()[0].supports_return_generator
        parallel = Parallel(return_as="generator_unordered" if streams else "list", batch_size=1)
        if not streams:
            with _deaf():
                parallel.__enter__()  # one pool for all groups
            try:
                while group := list(islice(calls, 4 * jobs)):
                    yield from parallel(group)
            finally:
                parallel.__exit__(None, None, None)
            return
        with _deaf():
            results = parallel(calls)
        try:
            for result in results:  # noqa: UP028 - `yield from` would close them before warnings are off
                yield result
        except BrokenProcessPool:
            raise WorkFailed(
                "a worker process was killed, perhaps because memory ran out (fewer jobs or smaller batches need less)"
            ) from None
        finally:
            # a second Ctrl-C in the middle would make joblib's tracker of temporary folders print a traceback
            with _deaf(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a sweep that is stopped leaves results unused
                results.close()


@contextmanager
def _deaf():
    """Ctrl-C is ignored in here; by worker processes that start in here from their first instruction on: the driver
    ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def follow(driver: int) -> None:
    """In a worker process: ignore Ctrl-C, and end soon after `driver`, however that ended.

    loky's own workers would wait five minutes for more work, those of multiprocessing for ever.
    """

    def watch():
        while os.getppid() == driver:
            time.sleep(0.5)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


# ------------------------------------------------------------------ dask
@contextmanager
def _in_one_piece():
    """Ctrl-C in here is raised at the end, and only a second one at once.

    One that strikes inside dask is lost in a ``Future.__del__``, or leaves a call half begun, of which dask's event
    loop then prints a traceback.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = []

    def hold(*_):
        if held:
            raise KeyboardInterrupt
        held.append(True)

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)


@_in_one_piece()
def connect(address: str):
    """A client of the scheduler, which has a worker.  Raises ValueError for what is not installed or not there."""
    try:
        from distributed import Client
    except ImportError:
        raise ValueError(
            f"scheduler = 'dask={address}': needs dask; python -m pip install 'advfeat[distributed]'"
        ) from None
    try:
        client = Client(address, timeout=CONNECT, set_as_default=False)
    except Exception as error:
        raise ValueError(f"scheduler = 'dask={address}': cannot be reached ({error})") from None
    try:
        client.wait_for_workers(1, timeout=CONNECT)
    except Exception:
        client.close()
        raise ValueError(
            f"scheduler = 'dask={address}': has no workers after {CONNECT} s; start some with `dask worker {address}`"
        ) from None
    return client


@_in_one_piece()
def disconnect(client) -> None:
    client.close()


def by_dask(work, tasks: Iterable, threads: int, client) -> Iterator:
    """By the client itself: joblib's dask backend never returns once dask has given a task, or all workers, up."""
    waiting, tasks, seen = {}, iter(tasks), time.monotonic()
    while True:
        try:
            with _in_one_piece():
                n = sum(client.nthreads().values())
                for i, batch in islice(tasks, max(2 * n - len(waiting), not waiting)):
                    waiting[client.submit(attempt, work, i, batch, threads, pure=False)] = i
                if not waiting:
                    return
                found = _finished(client, waiting)
        except (OSError, CancelledError):
            raise WorkFailed("the dask scheduler is gone") from None
        yield from found
        seen = time.monotonic() if n else seen
        if time.monotonic() - seen > ALONE:
            raise WorkFailed(f"no dask worker is left for {ALONE} s; start some")


def _finished(client, waiting) -> list:
    """What came back within a second, taken out of `waiting`."""
    from distributed import KilledWorker, wait

    try:
        with client.as_current():
            done = wait(list(waiting), timeout=1, return_when="FIRST_COMPLETED").done
    except TimeoutError:
        return []
    found = []
    for future in done:
        try:
            if future.status in ("pending", "lost"):  # again, since its worker died
                continue
            if future.status == "finished":
                found.append(future.result(timeout=FETCH))
            else:
                found.append((waiting[future], Failure(repr(future.exception())), 0.0))
        except TimeoutError:  # its worker died before it handed the result over: dask does the batch again
            continue
        except KilledWorker as error:
            found.append((waiting[future], Failure(repr(error)), 0.0))
        del waiting[future]
    return found

"""Stages of an experiment, one after the other in this process or spread over workers that share its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import numba

from ..core import checks, distribute
from ..kernels.cpu.engine import get_num_threads, set_num_threads


def alone(jobs: int | None, scheduler: str) -> bool:
    """Whether this process does the work itself, on all cores."""
    return scheduler == "loky" and (distribute.usable_cores() if jobs is None else jobs) == 1


def check_workers(jobs: int | None, scheduler: str) -> None:
    """Errors for workers that there cannot be."""
    name, address = distribute.scheduler_parts(scheduler)
    if jobs is not None:
        checks.integer("jobs", jobs, 1)
    if not address and name != "loky":
        distribute.check_backend(name)


def spread(work: Callable, stages: Sequence, jobs: int | None = None, scheduler: str = "loky") -> Iterator[int]:
    """Call work(stage) for every stage, and yield how many are done.

    `jobs` workers, of which each has its share of the cores (default: a core each); 1 is this process, with all of
    them.  `scheduler`: "loky" (processes), "dask=tcp://host:port" (extra ``distributed``; its workers must see the same
    files), or any other backend of joblib.  Raises WorkFailed where a stage raises in a worker or workers die; what
    other stages have kept until then stays.
    """
    name, address = distribute.scheduler_parts(scheduler)
    cores = distribute.usable_cores()
    check_workers(jobs, scheduler)
    jobs = min(jobs or cores, len(stages))
    if not stages:
        return
    if name == "loky" and jobs <= 1:
        for number, stage in enumerate(stages):
            work(stage)
            yield number + 1
        return
    client, threads = distribute.connect(address) if address else None, max(1, cores // jobs)
    tasks = ((number, (work, stage)) for number, stage in enumerate(stages))
    try:
        if client is not None:
            results = distribute.by_dask(stage_done, tasks, 1, client)
        else:
            results = distribute.by_joblib(stage_done, tasks, threads, name, jobs)
        with closing(results):
            for done, (_, found, _) in enumerate(results):
                if isinstance(found, distribute.Failure):
                    raise distribute.WorkFailed(found.text)
                yield done + 1
    finally:
        if client is not None:
            distribute.disconnect(client)


def stage_done(given, threads: int):
    """One stage in a worker, on so many threads."""
    work, stage = given
    before = get_num_threads()
    set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    try:
        work(stage)
    finally:
        set_num_threads(before)
    return None, 0.0

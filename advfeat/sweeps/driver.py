"""Run a sweep: plan, hand batches to workers, store each as it comes back, make the table."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..core import checks, store
from ..core.distribute import (
    Failure,
    WorkFailed,
    by_dask,
    by_joblib,
    check_backend,
    connect,
    disconnect,
    here,
    scheduler_parts,
    usable_cores,
)
from ..training.loop import TrainingInterrupted
from . import plan as planning
from .archive import Archive, opened
from .catalogue import DIGEST, TABLE
from .spec import SpecLike, SweepSpec, runs_in_words
from .work import work

DRIVER, WORKER = 160e6, 190e6  # bytes of a process before its first batch: `python benchmarks/sweep_memory.py`
UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


class SweepFailed(RuntimeError):
    """A batch raised or workers died; what was done is kept."""


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C stopped the sweep; `done` of `total` runs are kept in `folder`, and the same call continues."""

    def __init__(self, folder: Path, done: int, total: int):
        super().__init__(f"stopped; {done} of {total} runs are kept in {folder}")
        self.folder, self.done, self.total = folder, done, total


@dataclass(frozen=True)
class Progress:
    """How far a sweep is: runs done (found at the start and finished since) of all, batches, seconds since the start.

    `left` estimates the seconds still needed, from the work of the batches that are back.
    """

    done: int
    total: int
    batches_left: int
    seconds: float
    left: float


def sweep(
    spec: SpecLike,
    out: str | Path,
    *,
    memory: str | float = "2GB",
    jobs: int | None = None,
    scheduler: str = "loky",
    largest_batch: int = planning.LARGEST_BATCH,
    yes: bool = False,
    started: Callable[[planning.Plan, list[str]], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Run every point of a sweep that `out` does not hold yet; returns the path of its table, results.parquet.

    Parameters
    ----------
    spec : SweepSpec, a mapping of its TOML tables, or the path of a TOML file (:class:`advfeat.sweeps.spec.SweepSpec`)
    out : folder; what it holds of this or an earlier spec is used where it still applies
    memory : bytes, or text as "500MB" or "2GiB"; the peak of this process and its local workers together.  With a
        scheduler elsewhere it is what one worker may take.
    jobs : workers (default: as many as usable cores, as `memory` allows).  1: in this process, on all cores.
    scheduler : "loky" (processes), "dask=tcp://host:port" (extra ``distributed``), or any other backend of joblib
    largest_batch : runs in one batch at most
    yes : also for more than `spec.MOST_RUNS` runs
    started : called with the plan and its description in lines, before any work
    progress : called after every batch

    Notes
    -----
    Results do not depend on scheduler, `jobs`, `memory` or interruptions.  Raises ValueError for a spec that cannot be,
    before any work; SweepInterrupted on Ctrl-C; SweepFailed where a batch raises (no other is started then, those under
    way are kept) or workers die; CheckpointError where another process writes in `out`, or it is no sweep's folder.
    """
    source, spec, out = spec, SweepSpec.build(spec), checks.path("out", out)
    spec.check_size(yes)
    checks.integer("largest_batch", largest_batch, 1)
    total, own = bytes_of(memory), planning.memory_of_plan(spec)
    if own > total / 2:
        raise ValueError(
            f"memory = {memory!r}: the plan of {spec.size:,} points and {spec.n_results:,} results alone takes about "
            f"{own / 1e6:,.0f} MB, more than half of it; give more, or split the sweep"
        )
    with Workers(scheduler, jobs, total - own) as workers:
        planned = planning.make(spec, workers.budget, workers.jobs, largest_batch)
        with opened(out) as archive:
            return _sweep(planned, workers, archive, source, started, progress)


def _sweep(planned, workers, archive, source, started, progress) -> Path:
    pending = [left for batch in planned.batches if (left := batch.without(archive.places)).runs]
    tick, failed = Clock(planned.n_runs, pending, workers.jobs, progress), []
    try:
        if started is not None:
            started(planned, describe(planned, workers, pending, archive))
        about = _save_spec(archive, planned, source)
        with closing(workers.run(pending)) as finished:
            for batch, arrays, took in finished:
                if isinstance(arrays, Failure):
                    failed.append(f"{_where(planned, batch)}: {arrays.text}")
                else:
                    archive.keep(batch, arrays)
                    tick(batch, took)
        if failed:
            raise SweepFailed(failed[0])
        table = archive.write_table(planned)
        store.save_json(archive.folder / "sweep.json", about | {DIGEST: store.digest_of_file(table)})
        return table
    except (KeyboardInterrupt, TrainingInterrupted):
        raise SweepInterrupted(archive.folder, tick.done, tick.total) from None
    except (SweepFailed, WorkFailed) as error:
        kept = f"{tick.done} of {tick.total} runs are kept in {archive.folder}, and the same call continues"
        raise SweepFailed(f"{error}; {kept}") from None


def _where(planned: planning.Plan, batch: planning.SweepBatch) -> str:
    """Which points and seeds a batch holds."""
    held, training = set(batch.keys), batch.task.training
    points = [i for i, keys in planned.keys[training].items() if held & set(keys)]
    seeds = sorted({run.seed for run in batch.runs})
    first = ", ".join(f"{name} = {value!r}" for name, value in zip(planned.spec.axes, planned.points[points[0]]))
    more = f" and {len(points) - 1} more up to {points[-1]}" if len(points) > 1 else ""
    return f"{training} training of point {points[0]} ({first}){more}, seeds {seeds[0]} to {seeds[-1]}"


class Clock:
    """Counts runs and estimates what is left from the work that is done."""

    def __init__(self, total, pending, jobs, progress):
        self.done = total - sum(batch.n_runs for batch in pending)
        self.total, self.jobs, self.progress = total, jobs, progress
        self.left, self.batches = sum(batch.work for batch in pending), len(pending)
        self.worked, self.took = 0.0, 0.0  # work that is back, and what workers needed for it
        self.begin = time.perf_counter()

    def __call__(self, batch, took):
        self.done += batch.n_runs
        self.batches -= 1
        self.worked += batch.work
        self.took += took
        self.left -= batch.work
        if self.progress is not None:
            left = max(self.left, 0) * self.took / self.worked / self.jobs
            seconds = time.perf_counter() - self.begin
            self.progress(Progress(self.done, self.total, self.batches, seconds, left))


# ------------------------------------------------------------------ workers
class Workers:
    """Who does the work: `jobs` workers of `scheduler`, each with `budget` bytes for a batch and `threads` threads."""

    def __init__(self, scheduler: str, jobs: int | None, memory: float):
        self.scheduler, address = scheduler_parts(scheduler)
        if jobs is not None:
            checks.integer("jobs", jobs, 1)
        self.client, self.failed, cores = None, False, usable_cores()
        self.local = self.scheduler == "loky"
        if not self.local:
            self.jobs, self.threads, self.budget = jobs or cores, 1, memory - WORKER
        else:
            most = max(1, int((memory - DRIVER) // (WORKER + 50e6)))
            self.jobs = jobs or min(cores, most)
            alone = self.jobs == 1
            self.threads = cores if alone else max(1, cores // self.jobs)
            self.budget = (memory - DRIVER - (100e6 if alone else self.jobs * WORKER)) / self.jobs
        if self.budget <= 0:
            raise ValueError(
                f"memory = {memory / 1e6:,.0f} MB: is less than {self.jobs} worker processes need before their first "
                f"batch (this process {DRIVER / 1e6:.0f} MB, a worker {WORKER / 1e6:.0f} MB); give more, or fewer jobs"
            )

        if address:
            self.client = connect(address)
            self.jobs = sum(self.client.nthreads().values())
        elif not self.local:
            check_backend(self.scheduler)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.client is not None:
            disconnect(self.client)

    def run(self, batches):
        """(batch, arrays or Failure, seconds) in the order in which they finish; none starts after a failure."""

        def tasks():
            for i, batch in enumerate(batches):
                if self.failed:
                    return
                yield i, batch

        if self.client is not None:
            results = by_dask(work, tasks(), self.threads, self.client)
        elif self.local and self.jobs == 1:
            results = here(work, tasks(), self.threads)
        else:
            results = by_joblib(work, tasks(), self.threads, self.scheduler, self.jobs)
        with closing(results):
            for i, found, took in results:
                self.failed = self.failed or isinstance(found, Failure)
                yield batches[i], found, took


# ------------------------------------------------------------------ words
def bytes_of(memory: str | float) -> float:
    """Bytes of a number, or of text as "500MB", "2 GiB"."""
    if isinstance(memory, (int, float)) and not isinstance(memory, bool) and 0 < memory < math.inf:
        return float(memory)
    found = re.fullmatch(r"\s*([0-9.]+)\s*([KMG]?I?)B?\s*", str(memory).upper())
    try:
        return checks.number("memory", float(found[1]) * UNITS[found[2]], above=0)
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"memory = {memory!r}: must be bytes, or text as 500MB or 2GB, more than 0") from None


def describe(planned: planning.Plan, workers: Workers, pending, archive: Archive) -> list[str]:
    """The plan in lines."""
    spec, total = planned.spec, planned.n_runs
    seeds, left = spec.base["n_seeds"], sum(batch.n_runs for batch in pending)
    lines = [f"{spec.title}: {spec.design} of {spec.size:,} points x {seeds} seeds, {' and '.join(spec.training)} "
             f"training, engine {spec.engine}: {runs_in_words(total, spec.engine)}"]  # fmt: skip
    for name, axis in spec.axes.items():
        held = axis.values
        text = f"{axis.low:g} to {axis.high:g}, {axis.scale}" if axis.low is not None else ", ".join(map(str, held[:8]))
        count = "" if held is None else f"{len(held)}: "
        lines.append(f"  {name}  {count}{text}{' ...' if held and axis.low is None and len(held) > 8 else ''}")
    largest = max((len(batch.runs) for batch in planned.batches), default=0)
    each = " of each engine" if spec.engine == "both" else ""
    lines.append(f"  {len(planned.batches)} batches of at most {largest} runs{each}, {planned.shapes} different shapes")
    lines.append(f"  {workers.jobs} workers ({workers.scheduler}), {workers.threads} threads and "
                 f"{workers.budget / 1e6:,.0f} MB for a batch each")  # fmt: skip
    if planned.skipped:
        lines.append(f"  {len(planned.skipped)} impossible points are skipped (listed in sweep.json), the first: "
                     f"{planned.skipped[0]['reason']}")  # fmt: skip
    for path, reason in archive.damaged:
        lines.append(f"  damaged and set aside: {path} ({reason})")
    lines.append(f"  {total - left:,} runs are there already, {left:,} in {len(pending)} batches to do")
    return lines


def _save_spec(archive: Archive, planned: planning.Plan, source) -> dict:
    """Write what is swept beside the batches; returns what sweep.json says of a sweep that has no table yet."""
    (archive.folder / TABLE).unlink(missing_ok=True)  # of another spec, perhaps
    if not isinstance(source, (str, Path)):
        (archive.folder / "spec.toml").unlink(missing_ok=True)
    else:
        text = Path(source).read_text(encoding="utf-8")
        store.write(archive.folder / "spec.toml", lambda file: file.write(text), "w")
    about = {"environment": store.environment(), "spec": planned.spec.as_dict(), DIGEST: None}
    about |= {"points": planned.spec.size, "skipped": planned.skipped, "runs": planned.n_runs}
    store.save_json(archive.folder / "sweep.json", about)
    return about

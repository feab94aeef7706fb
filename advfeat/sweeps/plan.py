"""The plan of a sweep: which runs there are, which of them share shapes, and how many of those fit into memory."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Container
from dataclasses import dataclass, replace

import numpy as np

from ..core.types import JsonDict
from ..experiments.configuration import Figure3Config
from ..patches.certify import Method
from .axis import Value
from .catalogue import CLAIMS, METRICS, Engine, Training, count_runs, engines_of
from .spec import Start, SweepSpec

LARGEST_BATCH = 256  # runs; more gain nothing on a CPU and are lost together when a sweep is stopped
CONTEXT = 600_000_000  # bytes of GPU memory that a process takes before its first array
BATCHES_PER_WORKER = 4  # at least, so that workers end together

#: Versions of results above the first, by engine, training and objective.  A version rises only where values move by
#: more than 1e-9 of the largest, and those are computed again; all others keep their keys through every release.
#: Recursions, 2: cross-entropy of saturated samples is ascended along its true direction.
RISEN = {("recursion", "adversarial", "cross_entropy"): 2}
#: Of what is certified by branch and bound with more than one box: caps and parabolas.
SEARCHED = 2


@dataclass(frozen=True, slots=True)
class SweepRun:
    """One training of one seed, evaluated at one or several radii: points that differ in `eps_test` alone share it.
    With engine "both" it is done twice, by a network and by a recursion, and counts as two runs.

    `eps_test` ascends; one key per radius names its result.
    """

    config: Figure3Config
    seed: int
    eps_test: tuple[float, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """What all runs of a batch have in common beside their shapes."""

    engine: Engine
    training: Training
    n_looks: int
    certificate: Method
    max_nodes: int
    start: Start
    costly: tuple[str, ...]


@dataclass(frozen=True)
class SweepBatch:
    """Runs of one shape that are worked on as one array."""

    task: Task
    runs: tuple[SweepRun, ...]

    @property
    def keys(self) -> list[str]:
        return [key for run in self.runs for key in run.keys]

    @property
    def n_runs(self) -> int:
        """Trainings done: two for each of `runs` with engine "both"."""
        return len(self.runs) * engines_of(self.task.engine)

    @property
    def name(self) -> str:
        """Twenty hex digits that name exactly these results."""
        return hashlib.sha256("".join(self.keys).encode()).hexdigest()[:20]

    @property
    def work(self) -> float:
        """Relative cost: multiply-adds of training, and some for every batch."""
        return 1e6 + sum(_work(run.config, self.task.engine) for run in self.runs)

    def without(self, done: Container[str]) -> SweepBatch:
        """The batch without the runs whose keys are all in `done`."""
        return replace(self, runs=tuple(run for run in self.runs if not all(key in done for key in run.keys)))


@dataclass(frozen=True)
class Plan:
    """Every point of a design and the batches that make it.

    `points` maps a point's number to its axis values, `keys` a training and a point to its results' keys, seed by seed;
    `skipped` lists impossible points with the reason.
    """

    spec: SweepSpec
    points: dict[int, tuple[Value, ...]]
    keys: dict[str, dict[int, list[str]]]
    skipped: list[JsonDict]
    batches: list[SweepBatch]
    shapes: int

    @property
    def n_runs(self) -> int:
        spec = self.spec
        return count_runs(self.points.values(), spec.axes, spec.base["n_seeds"], len(spec.training), spec.engine)


def look_every(config: Figure3Config, n_looks: int) -> int:
    """Iterations between two looks at correlations: the smallest divisor of the iterations between two records that
    makes no more than `n_looks` looks, or one look per record."""
    between = config.n_iter // config.n_records
    for step in range(1, between):
        if between % step == 0 and config.n_iter // step <= n_looks:
            return step
    return between


def tasks_of(spec: SweepSpec) -> dict[str, Task]:
    """One per training, with the costly metrics that it has to measure."""
    found = {}
    for training in spec.training:
        wanted = {CLAIMS[name].metric if name in CLAIMS else name for name in spec.metrics
                  if training in METRICS[name].trainings}  # fmt: skip
        costly = tuple(sorted(name for name in wanted if METRICS[name].costly))
        found[training] = Task(
            spec.engine, training, spec.n_looks, spec.certificate, spec.max_nodes, spec.start, costly
        )
    return found


def _shape(config: Figure3Config, task: Task, n_radii: int) -> tuple:
    """What runs of one batch must share."""
    names = ["n_classes", "n_neurons", "patch_dim", "n_patches", "n_train", "q", "n_iter", "n_records", "backend"]
    names += ["dtype", "norm"]
    if task.training == "adversarial":
        names += ["objective", "n_ascent"]
    if task.engine != "recursion":
        names += ["rho", "n_test", "batch_size", "pgd_steps", "pgd_restarts"]
    return n_radii, *(getattr(config, name) for name in names)


def _work(config: Figure3Config, engine: str) -> float:
    K = config.n_classes * config.n_neurons
    if engine == "recursion":
        return config.n_iter * K * 200.0
    return config.n_iter * config.n_train * config.n_patches * K * config.patch_dim * 2.0


def memory_of(config: Figure3Config, task: Task, n_radii: int = 1) -> int:
    """Bytes that one run of a batch adds to a worker's peak, counted on the safe side (the tests measure it).

    A batch of n runs is planned as n + 1, for what a run needs only while it is set up.
    """
    k, K, d, P = config.n_classes, config.n_classes * config.n_neurons, config.patch_dim, config.n_patches
    looks = 2 + config.n_iter // look_every(config, task.n_looks)
    train, test = config.n_train * P * d * 8, config.n_test * P * d * 8
    total = (0 if task.start == "drawn" else 4 * K * d * 8) + 20_000
    if task.engine != "network":
        total += looks * K * (2 * k + 3) * 8 * 2 + 4 * K * K * 8 + config.n_train * P * 24
    if task.engine != "recursion":
        total += 3 * train + 5 * test + looks * K * 8 * 8
        total += 12 * test * bool(set(task.costly) - {"train_robust_accuracy"})
        total += 14 * train * ("train_robust_accuracy" in task.costly)
        total += n_radii * config.n_test * 64
    return total


def _fit_device(config: Figure3Config, task: Task, workers: int) -> int:
    """Runs of a batch that fit in a GPU's free memory, shared by the workers; ValueError where not one does."""
    if not config.backend.startswith("cupy") or task.engine == "recursion":
        return sys.maxsize
    from ..kernels.gpu import device as gpu_device
    from ..kernels.gpu import engine as gpu_engine

    shape = config.n_classes, config.n_neurons, config.patch_dim, config.n_patches
    each = gpu_engine.bytes_per_run(*shape, max(config.n_train, config.n_test), np.dtype(config.dtype).itemsize)
    free = max(gpu_device.connect().free_bytes() - (workers - 1) * CONTEXT, 0) // workers
    if each > free:
        raise ValueError(
            f"one run of {shape[0]} x {shape[1]} neurons in dimension {shape[2]} needs about {each / 1e6:,.0f} MB of "
            f"GPU memory, and a worker has {free / 1e6:,.0f} MB of it: give fewer --jobs, samples or patches"
        )
    return free // each


def memory_of_plan(spec: SweepSpec) -> float:
    """Bytes of the plan itself, in the driver: measured per point and per result."""
    return 2500.0 * spec.size + 280.0 * spec.n_results


def results_version(config: Figure3Config, task: Task) -> str:
    """The version of a task's results, the first of which is named after the release that made it."""
    engines = ("network", "recursion") if task.engine == "both" else (task.engine,)
    version = max(RISEN.get((engine, task.training, config.objective), 1) for engine in engines)
    if set(task.costly) - {"swap_accuracy"} and task.certificate == "branch_and_bound" and task.max_nodes > 1:
        version = max(version, SEARCHED)
    return "0.1.0" if version == 1 else f"results {version}"


def _keys(config: Figure3Config, task: Task, seeds) -> list[str]:
    """What names the result of a point, training and seed: everything that it depends on."""
    fields = {name: value for name, value in config.as_dict().items() if name not in ("n_seeds", "first_seed")}
    # the format that the first release wrote: another would name, and compute again, what is there already
    about = {"format": "advfeat-1", "advfeat": results_version(config, task), "fields": fields, "engine": task.engine}
    about |= {"training": task.training, "n_looks": task.n_looks, "costly": task.costly}
    if task.engine == "recursion":
        about["start"] = task.start
    if set(task.costly) - {"swap_accuracy"}:
        about |= {"certificate": task.certificate, "max_nodes": task.max_nodes}
    common = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return [hashlib.sha256(f"{common} {seed}".encode()).hexdigest()[:20] for seed in seeds]


def _points(spec: SweepSpec):
    """Possible points with their configurations, and the impossible ones (ValueError at the first, unless skipped)."""
    possible, skipped = {}, []
    for i, point in enumerate(spec.points()):
        try:
            possible[i] = point, spec.config(point)
        except (ValueError, TypeError, RuntimeError) as error:
            where = dict(zip(spec.axes, point))
            if spec.on_invalid == "refuse":
                named = ", ".join(f"{name} = {value!r}" for name, value in where.items())
                raise ValueError(f'point {i} ({named}): {error}; on_invalid = "skip" leaves such points out') from None
            skipped.append({"point": i, "fields": where, "reason": str(error)})
    if not possible:
        raise ValueError(f"all {len(skipped)} points are impossible; the first: {skipped[0]['reason']}")
    return possible, skipped


def make(spec: SweepSpec, budget: float, workers: int, largest: int = LARGEST_BATCH) -> Plan:
    """The plan for `workers` workers, each with `budget` bytes for the arrays of its batch.

    Raises ValueError for impossible points (unless they are skipped), and where one run alone is too large.
    """
    possible, skipped = _points(spec)
    shapes: dict[tuple, list[SweepRun]] = {}
    keys = {training: {} for training in spec.training}
    for training, task in tasks_of(spec).items():
        for same in _sharing(possible):  # radius -> points
            configs = [possible[members[0]][1] for members in same.values()]
            first, seeds = configs[0], configs[0].seeds
            by_radius = [_keys(config, task, seeds) for config in configs]
            for members, own in zip(same.values(), by_radius):
                keys[training] |= dict.fromkeys(members, own)
            runs = [SweepRun(first, seed, tuple(same), own) for seed, own in zip(seeds, zip(*by_radius))]
            shapes.setdefault((task, *_shape(first, task, len(same))), []).extend(runs)
    total, batches = sum(map(len, shapes.values())), []
    for (task, n_radii, *_), runs in shapes.items():
        each = memory_of(runs[0].config, task, n_radii)
        if 2 * each > budget:
            raise ValueError(
                f"one run of {runs[0].config.n_classes} x {runs[0].config.n_neurons} neurons in dimension "
                f"{runs[0].config.patch_dim} needs about {2 * each / 1e6:,.0f} MB, and a worker has "
                f"{budget / 1e6:,.0f} MB for its batch: give more --memory or fewer --jobs"
                + (", or start = \"drawn\"" if task.engine == "recursion" and task.start == "weights" else "")
            )
        size = max(1, min(int(budget // each) - 1, largest, -(-total // (BATCHES_PER_WORKER * workers))))
        size = min(size, _fit_device(runs[0].config, task, workers))
        batches += [SweepBatch(task, tuple(runs[lo : lo + size])) for lo in range(0, len(runs), size)]
    points = {i: point for i, (point, _) in possible.items()}
    return Plan(spec, points, keys, skipped, batches, len(shapes))


def _sharing(possible) -> list[dict[float, list[int]]]:
    """Points that differ in eps_test alone, as radius -> points, radii ascending."""
    held = {}
    for i, (_, config) in possible.items():
        fields = tuple(value for name, value in vars(config).items() if name != "eps_test")
        held.setdefault(fields, {}).setdefault(config.eps_test, []).append(i)
    return [dict(sorted(same.items())) for same in held.values()]

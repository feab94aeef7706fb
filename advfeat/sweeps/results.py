"""What a finished sweep holds, without pandas: (points, seeds) arrays of any metric, and the points' fields."""

from __future__ import annotations

import itertools
import math
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..core import checks, store
from ..theory.window import density
from .axis import KEYS, SCALES
from .catalogue import DESIGNS, DIGEST, ENGINES, METRICS, TABLE, TRAININGS, count_runs

#: Derived axes: a quotient of two fields each; `density_ratio` (c of Assumption 2.3, exponent q) beside them.
RATIOS = {
    "strength_ratio": ("alpha", "beta"),
    "robust_share": ("n_robust", "n_patches"),
    "noise_to_signal": ("noise_std", "beta"),
    "eps_over_beta": ("eps", "beta"),
}
COLUMNS = ("point", "training", "engine", "seed", "iteration", "metric", "value")
NUMBER = (int, float)
#: Shapes (`store.conform`) of a plot's request, and of sweep.json.
REQUEST = {"metric": str, "x?": str, "y?": str, "facet?": str, "training?": str, "engine?": str, "iteration?": int,
           "at?": dict}  # fmt: skip
HEAD = {
    "spec": {
        "title": str, "design": set(DESIGNS), "engine": {*ENGINES, "both"}, "training": [set(TRAININGS)],
        "metrics": [str], "plots": [REQUEST], "base": dict, "axes": {str: dict},
    },
    "points": int, "skipped": [{"point": int, "fields": dict, "reason": str}], "environment": {str: str},
}  # fmt: skip
PARTS = RATIOS | {"density_ratio": ("alpha", "beta", "n_patches", "n_robust", "q")}


def axis_fields(name: str, axes) -> list[str]:
    """The swept fields behind an axis of a plot: the field itself, or those of a derived axis.

    Raises ValueError where `name` is neither, or nothing in it is swept.
    """
    known = [*axes, *(d for d, parts in PARTS.items() if set(parts) & set(axes))]
    if name not in known:
        why = "not swept, nor is any field in it" if name in PARTS else "no axis of this sweep"
        raise ValueError(f"{name!r}: {why}; {checks.nearest(name, known)}")
    return [name] if name in axes else [part for part in PARTS[name] if part in axes]


def load(folder) -> Results:
    """Read a folder that `advfeat sweep` finished.

    Raises
    ------
    FileNotFoundError
        No such folder, no sweep in it, or its results are not there yet.
    CheckpointError
        A file is truncated, was not written by advfeat or was changed.
    """
    folder = check_folder(folder)
    head = store.load_json(folder / "sweep.json")
    if not (folder / TABLE).is_file() or head.get(DIGEST, "") is None:
        raise FileNotFoundError(
            f"{folder}: the sweep is not finished (no {TABLE}); the same `advfeat sweep` command continues it"
        )
    _check(folder / "sweep.json", head)
    if DIGEST in head and head[DIGEST] != store.digest_of_file(folder / TABLE):
        raise store.CheckpointError(f"{folder / TABLE}: damaged, or not the table that sweep.json was written for")
    return Results(folder, head)


def check_folder(folder) -> Path:
    """The folder; FileNotFoundError where it is none of a sweep."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder")
    if not (folder / "sweep.json").is_file():
        raise FileNotFoundError(f"{folder}: not the folder of a sweep, it has no sweep.json")
    return folder


def _check(path: Path, head: dict) -> None:
    """Raise CheckpointError where sweep.json cannot be what a sweep wrote."""
    store.conform(path, head, HEAD)
    spec = head["spec"]
    axes, grid = spec["axes"], spec["design"] == "grid"
    kinds = {name: (int, float) if one.kind is float else (one.kind, type(None)) if one.optional else one.kind
             for name, one in KEYS.items()}  # fmt: skip
    swept = {name: kind for name, kind in kinds.items() if name in axes}
    fixed = {f"{name}?": kind for name, kind in kinds.items()} | {"n_seeds": int}
    ranges = {"low": NUMBER, "high": NUMBER, "scale": set(SCALES)}
    store.conform(path, spec["base"], fixed, "spec.base.")
    for name, axis in axes.items():
        shape = {"values": [swept.get(name, object)], "scale?": set(SCALES)} if grid or "values" in axis else ranges
        store.conform(path, axis, shape, f"spec.axes.{name}.")
    n = math.prod(len(axis["values"]) for axis in axes.values()) if grid else spec.get("n_points")
    if not axes or head["points"] < 1 or head["points"] != n:
        raise store.CheckpointError(f"{path}: points = {head['points']} is not what its axes make")
    for i, one in enumerate(head["skipped"]):
        if not 0 <= one["point"] < n:
            raise store.CheckpointError(f"{path}: skipped.{i}.point = {one['point']}: the sweep has {n} points")
        store.conform(path, one["fields"], swept, f"skipped.{i}.fields.")


class Results:
    """A finished sweep.

    Attributes
    ----------
    spec : dict, the spec as sweep.json holds it; `environment` : versions; `skipped` : the points left out
    axes : field -> {"values": [...]} or {"low", "high", "scale"}
    n_points, seeds : the shape (n_points, len(seeds)) of what `values` returns
    """

    def __init__(self, folder: Path, head: dict):
        self.folder, self.file = folder, folder / TABLE
        self.spec, self.n_points, self.skipped = head["spec"], head["points"], head["skipped"]
        self.environment, axes = head["environment"], self.spec["axes"]
        defaults = {name: one.default for name, one in KEYS.items() if name not in axes}
        self._base = defaults | self.spec["base"]
        with self._reading():
            columns = pq.read_schema(self.file).names
        if missing := [name for name in (*COLUMNS, *axes) if name not in columns]:
            raise store.CheckpointError(f"{self.file}: not of this sweep, it has no column {missing[0]!r}")
        self.axes = {name: axes[name] for name in columns if name in axes}  # JSON has them sorted, not in design order

    # -------------------------------------------------------------- what is there
    @cached_property
    def seeds(self) -> list[int]:
        if not {"n_seeds", "first_seed"} & set(self.axes):
            first = self._base["first_seed"]
            return list(range(first, first + self._base["n_seeds"]))
        return sorted({int(s) for batch in self._batches("seed") for s in np.unique(batch["seed"].to_numpy())})

    @property
    def n_runs(self) -> int:
        """Runs as `catalogue.count_runs` has them."""
        points = zip(*(self.field(name)[~self.skipped_points].tolist() for name in self.axes))
        trainings = len(self.spec["training"])
        return count_runs(points, self.axes, self._base["n_seeds"], trainings, self.spec["engine"])

    @cached_property
    def measured(self) -> dict[tuple[str, str, str], list[int]]:
        """(metric, training, engine) -> iterations that have rows."""
        found: dict[tuple, set] = {}
        for batch in self._batches("metric", "training", "engine", "iteration"):
            encoded = [_encode(batch[name]) for name in ("metric", "training", "engine")]
            code = batch["iteration"].to_numpy().astype(np.int64)
            for names, codes in encoded:
                code = code * len(names) + codes
            for one in np.unique(code).tolist():
                key = []
                for names, _ in reversed(encoded):
                    one, index = divmod(one, len(names))
                    key.append(names[index])
                found.setdefault(tuple(reversed(key)), set()).add(one)
        return {key: sorted(iterations) for key, iterations in found.items()}

    @cached_property
    def points(self) -> dict[str, np.ndarray]:
        """field -> the value at every point (n_points,); of a random design's point without any row, NaN or None."""
        if self.spec["design"] == "grid":
            every = list(itertools.product(*(axis["values"] for axis in self.axes.values())))
            return {name: np.array(column, _kind(column, object)) for name, column in zip(self.axes, zip(*every))}
        held: dict[str, list] = {name: [None] * self.n_points for name in self.axes}
        for one in self.skipped:
            for name, value in one["fields"].items():
                held[name][one["point"]] = value
        for batch in self._batches("point", *self.axes):
            numbers, first = np.unique(batch["point"].to_numpy(), return_index=True)
            for name, column in held.items():
                for number, value in zip(numbers, batch[name].take(pa.array(first)).to_pylist()):
                    column[number] = value
        return {name: np.array(column, _kind(column)) for name, column in held.items()}

    def field(self, name: str) -> np.ndarray:
        """Any configuration field or derived axis at every point, (n_points,)."""
        if name in self.axes:
            return self.points[name]
        if name in RATIOS:
            above, below = (self.field(part).astype(float) for part in RATIOS[name])
            return above / below
        if name == "density_ratio":
            return np.vectorize(density, otypes=[float])(*(self.field(part) for part in PARTS[name]))
        if name not in self._base:
            raise ValueError(f"{name!r}: unknown field; {checks.nearest(name, [*self._base, *PARTS])}")
        return np.full(self.n_points, self._base[name])

    @property
    def skipped_points(self) -> np.ndarray:
        """(n_points,) bool."""
        mask = np.zeros(self.n_points, bool)
        mask[[one["point"] for one in self.skipped]] = True
        return mask

    # -------------------------------------------------------------- numbers
    def ways(self, metric: str) -> list[tuple[str, str]]:
        """(training, engine) pairs that have a metric; those of a time that never came, which has no rows, included."""
        found = {key[1:] for key in self.measured if key[0] == metric}
        if metric in self.spec["metrics"] and METRICS[metric].kind == "time":
            engines = ("network", "recursion") if self.spec["engine"] == "both" else (self.spec["engine"],)
            found |= {
                (training, engine)
                for training in set(self.spec["training"]) & set(METRICS[metric].trainings)
                for engine in set(engines) & set(METRICS[metric].engines)
            }
        return sorted(found)

    def which(self, metric: str, training: str | None = None, engine: str | None = None) -> tuple[str, str]:
        """(training, engine) of a metric; either may be left out where only one has it."""
        ways = self.ways(metric)
        if not ways:
            held = sorted({key[0] for key in self.measured} | set(self.spec["metrics"]))
            why = "not in the results of this sweep" if metric in METRICS else "unknown"
            raise ValueError(f"metric = {metric!r}: {why}; {checks.nearest(metric, [*held, 'claims'])}")
        for place, (name, given) in enumerate((("training", training), ("engine", engine))):
            options = sorted({way[place] for way in ways})
            if given is not None and given not in options:
                raise ValueError(f"{name} = {given!r}: {metric} has no such rows; choose from {options}")
            if given is None and len(options) > 1:
                raise ValueError(f"{name}: {metric} was measured for {options}; choose one")
            ways = [way for way in ways if way[place] == (given or options[0])]
        return ways[0]

    def values(
        self, metric: str, training: str | None = None, engine: str | None = None, iteration: int | None = None
    ) -> np.ndarray:
        """A metric of every run, (n_points, n_seeds) float64; NaN where the results have no row.

        `training` and `engine` may be left out where only one has the metric; `iteration` None is each point's last.
        """
        training, engine = self.which(metric, training, engine)
        if iteration is not None:
            options = self.measured[metric, training, engine]
            if not METRICS[metric].recorded:
                raise ValueError(f"iteration = {iteration}: {metric} is one value per run; leave it out")
            if iteration not in options:
                near = min(options, key=lambda one: abs(one - iteration))
                raise ValueError(f"iteration = {iteration}: not recorded; the nearest is {near}")
        last = np.full(self.n_points, iteration) if iteration is not None else self.field("n_iter")
        found, seeds = np.full((self.n_points, len(self.seeds)), np.nan), np.array(self.seeds)
        wanted = {"metric": metric, "training": training, "engine": engine}
        for batch in self._batches("point", "seed", "iteration", "value", *wanted):  # a tenth of a filter's memory
            point = batch["point"].to_numpy()
            keep = batch["iteration"].to_numpy() == last[point]
            for name, value in wanted.items():
                names, codes = _encode(batch[name])
                keep &= codes == (names.index(value) if value in names else -1)
            seed, value = (batch[name].to_numpy()[keep] for name in ("seed", "value"))
            found[point[keep], np.searchsorted(seeds, seed)] = value
        return found

    def times(self, metric: str, training: str | None = None, engine: str | None = None) -> np.ndarray:
        """`values` of a time: the iteration of an event, NaN where it never happened."""
        if metric in METRICS and METRICS[metric].kind != "time":
            options = [name for name, one in METRICS.items() if one.kind == "time"]
            raise ValueError(f"metric = {metric!r}: not a time; choose from {options}")
        return self.values(metric, training, engine)

    def _batches(self, *columns):
        with self._reading(), pq.ParquetFile(self.file) as file:
            yield from file.iter_batches(batch_size=1 << 17, columns=list(columns))

    @contextmanager
    def _reading(self):
        """CheckpointError for what PyArrow says of a table that is none."""
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise store.CheckpointError(f"{self.file}: truncated or not a Parquet file ({error})") from None


def _encode(column) -> tuple[list[str], np.ndarray]:
    column = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
    return column.dictionary.to_pylist(), column.indices.to_numpy()


def _kind(values, none=float):
    """int or float for numbers, `none` where one is missing (None, which float makes NaN); else object."""
    kinds = {type(v) for v in values} - {type(None)}
    if not kinds <= {int, float}:
        return object
    return none if None in values else float if float in kinds else int

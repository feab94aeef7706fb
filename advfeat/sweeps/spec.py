"""What to sweep: a base configuration, axes over any of its fields, a design, and what to measure; checked at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np

from ..core import checks, store
from ..core.types import JsonDict
from ..experiments.configuration import Figure3Config
from ..patches.certify import METHODS, Method
from .axis import KEYS, Axis, AxisLike, Value
from .catalogue import CLAIMS, DESIGNS, ENGINES, METRICS, TRAININGS, Design, Engine, Training, engines_of

OnInvalid = Literal["refuse", "skip"]
Start = Literal["weights", "drawn"]

MOST_RUNS = 1_000_000  # without yes
NOT_AXES = {"n_seeds": "the number of seeds belongs in [base]", "n_records": "the recorded times belong in [base]"}
SWEEP_KEYS = (
    "title", "engine", "training", "design", "n_points", "design_seed", "on_invalid", "metrics", "n_looks",
    "certificate", "max_nodes", "start",
)  # fmt: skip


def runs_in_words(n_runs: int, engine: str) -> str:
    """As "18,432 runs (recursions)"; "1,152 runs (576 networks, 576 recursions)"."""
    each = ", ".join(f"{n_runs // len(ENGINES):,} {name}s" for name in ENGINES)
    return f"{n_runs:,} runs ({each if engine == 'both' else f'{engine}s'})"


@dataclass(frozen=True)
class SweepSpec:
    """A sweep; in TOML the tables ``[sweep]`` (the first twelve fields), ``[base]``, ``[axes]`` and ``[[plot]]``.

    Attributes
    ----------
    engine : "network", "recursion" (exact noiseless training in correlations, from the same weights and labels) or
        "both", which adds their deviation.
    training : "standard", "adversarial", or a list of both.
    design : "grid" (every combination, last axis fastest), "random" or "sobol" (`n_points` points of the box,
        scrambled, from `design_seed`; a power of 2 for Sobol, and the first half of twice as many).
    on_invalid : "refuse" a point that no configuration can have, or "skip" and list it.
    metrics : names of `catalogue.METRICS`; default all that need no attack and no certificate.
    n_looks : about how often correlations are looked at for the times of events.
    certificate, max_nodes : of certified_accuracy, as in :func:`advfeat.patches.certify`.
    start : of the recursion: the network's own "weights", or "drawn" as correlations, at any d, without weights.
    base : fields of :class:`Figure3Config` for all points; `n_seeds`, `first_seed` and `n_records` among them.
    axes : field -> :class:`Axis`, or a list of values, or a table of low, high, n, scale.
    plots : what `advfeat plot` draws: x, y, metric, facet, training, engine, iteration, at.
    """

    title: str = "sweep"
    engine: Engine = "network"
    training: Training | Sequence[Training] = TRAININGS
    design: Design = "grid"
    n_points: int | None = None
    design_seed: int = 0
    on_invalid: OnInvalid = "refuse"
    metrics: Sequence[str] = ()
    n_looks: int = 200
    certificate: Method = "branch_and_bound"
    max_nodes: int = 1
    start: Start = "weights"
    base: Mapping[str, Value] = field(default_factory=dict)
    axes: Mapping[str, AxisLike] = field(default_factory=dict)
    plots: Sequence[Mapping[str, object]] = ()

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        put("training", (self.training,) if isinstance(self.training, str) else tuple(self.training))
        put("metrics", tuple(self.metrics))
        for name in ("title", "metrics", "training"):
            for one in [self.title] if name == "title" else getattr(self, name):
                checks.instance(name, one, str, "a text" if name == "title" else "a list of names")
        for name, options in (
            ("engine", get_args(Engine)), ("design", DESIGNS), ("on_invalid", get_args(OnInvalid)),
            ("certificate", METHODS), ("start", get_args(Start)),
        ):  # fmt: skip
            checks.choice(name, getattr(self, name), options)
        if not self.training or len(set(self.training)) < len(self.training):
            raise ValueError(f"training = {list(self.training)}: must name one or both of {list(TRAININGS)}, once")
        for name in self.training:
            checks.choice("training", name, TRAININGS)
        put("training", tuple(t for t in TRAININGS if t in self.training))
        for name, low in (("n_looks", 1), ("max_nodes", 1), ("design_seed", 0)):
            checks.integer(name, getattr(self, name), low)
        if self.start == "drawn" and self.engine != "recursion":
            raise ValueError(f"start = 'drawn': only engine = 'recursion' starts without weights, not {self.engine!r}")
        self._check_axes(put)
        self._check_base(put)
        self._check_metrics(put)
        put("plots", tuple(self._plot(plot) for plot in self.plots))

    def _check_axes(self, put):
        if not self.axes:
            raise ValueError("axes: must name at least one configuration field with its values")
        for name in self.axes:
            if name in NOT_AXES:
                raise ValueError(f"axes.{name}: is no axis; {NOT_AXES[name]}")
            if name not in KEYS:
                raise ValueError(f"axes.{name}: unknown configuration field; {checks.nearest(name, KEYS)}")
        grid = self.design == "grid"
        put("axes", {name: Axis.build(name, held, grid) for name, held in self.axes.items()})
        if grid and self.n_points is not None:
            raise ValueError(f"n_points = {self.n_points}: a grid has as many points as its axes make")
        if not grid:
            checks.integer("n_points", self.n_points, 1)
            if self.design == "sobol" and self.n_points & (self.n_points - 1):
                raise ValueError(f"n_points = {self.n_points}: must be a power of 2 for a Sobol design")

    def _check_base(self, put):
        both = sorted(set(self.base) & set(self.axes))
        if both:
            raise ValueError(f"{both[0]}: stands in [base] and in [axes]; it can be only in one of them")
        for name, value in self.base.items():
            if name not in KEYS:
                raise ValueError(f"base.{name}: unknown configuration field; {checks.nearest(name, KEYS)}")
            KEYS[name].check(value, f"base.{name}")
        left = [one for name, one in KEYS.items() if name not in self.axes]
        put("base", {one.name: self.base.get(one.name, one.default) for one in left})
        if self.engine != "network" and (self.base.get("batch_size") is not None or "batch_size" in self.axes):
            raise ValueError(f"batch_size: the recursion knows no minibatches; engine = {self.engine!r}")

    def _check_metrics(self, put):
        def fits(metric):
            engine = {"network", "recursion", "both"} if self.engine == "both" else {self.engine}
            return engine & set(metric.engines) and set(self.training) & set(metric.trainings)

        possible = [name for name, metric in METRICS.items() if fits(metric)]
        cheap = [name for name in possible if not METRICS[name].costly and name not in CLAIMS]
        if self.start == "drawn":
            cheap = [name for name in cheap if name not in ("deviation", "same_winners")]
        for name in self.metrics:
            if name not in METRICS:
                raise ValueError(f"metrics: {name!r} is unknown; {checks.nearest(name, METRICS)}")
            if name not in possible:
                raise ValueError(
                    f"metrics: {name!r} does not come from engine = {self.engine!r}, training = {list(self.training)}"
                )
        put("metrics", tuple(dict.fromkeys(self.metrics)) or tuple(cheap))

    def _plot(self, plot):
        from .selection import check  # which loads PyArrow

        try:
            axes = {name: axis.as_dict() for name, axis in self.axes.items()}
            found = check(plot, axes, self.design == "grid")
            metric = found["metric"]
            missing = [name for name in (CLAIMS if metric == "claims" else [metric]) if name not in self.metrics]
            if missing:
                raise ValueError(f"metric = {metric!r}: needs {', '.join(missing)} among the metrics measured")
            self._check_source(found)
        except ValueError as error:
            raise ValueError(f"[[plot]] {error}") from None
        return found

    def _check_source(self, plot):
        """A plot must say which training and engine, where its metric comes from several."""
        if plot["metric"] == "claims":
            return
        engines = {"network", "recursion", "both"} if self.engine == "both" else {self.engine}
        metric = METRICS[plot["metric"]]
        for key, there in (("training", [t for t in self.training if t in metric.trainings]),
                           ("engine", [e for e in metric.engines if e in engines])):  # fmt: skip
            if key not in plot and len(there) > 1:
                raise ValueError(f"{key}: {plot['metric']} comes from {' and '.join(there)}, the plot must say which")
            if key in plot and plot[key] not in there:
                raise ValueError(f"{key} = {plot[key]!r}: does not give {plot['metric']}; choose from {there}")

    # -------------------------------------------------------------- from users
    @classmethod
    def build(cls, source: SpecLike) -> SweepSpec:
        """From a SweepSpec, a mapping of the tables sweep, base, axes, plot, or the path of a TOML file of them."""
        if isinstance(source, cls):
            return source
        checks.instance("spec", source, (Mapping, str, PathLike), "a SweepSpec, its tables, or the path of a TOML file")
        where = "spec"
        if not isinstance(source, Mapping):
            where, source = str(source), store.read_toml(source)
        for name, held in source.items():
            if name not in ("sweep", "base", "axes", "plot"):
                raise ValueError(f"{where}: unknown table [{name}]; choose from [sweep], [base], [axes], [[plot]]")
            tables = held if name == "plot" and isinstance(held, list) else [held]
            if (name == "plot") != isinstance(held, list) or not all(isinstance(t, Mapping) for t in tables):
                raise ValueError(f"{where}: {name} must be {'[[plot]] tables' if name == 'plot' else 'a table'}")
        head = source.get("sweep", {})
        for name in head:
            if name not in SWEEP_KEYS:
                raise ValueError(f"sweep.{name}: unknown; {checks.nearest(name, SWEEP_KEYS)}")
        for name in ("training", "metrics"):
            held = head.get(name, ())
            if not isinstance(held, (list, tuple)) and not (name == "training" and isinstance(held, str)):
                raise ValueError(f"sweep.{name} = {held!r}: must be a list of names")
        tables = {name: source.get(name, {}) for name in ("base", "axes")}
        return cls(**head, **tables, plots=tuple(source.get("plot", ())))

    def as_dict(self) -> JsonDict:
        """JSON-ready."""
        head = {name: getattr(self, name) for name in SWEEP_KEYS}
        head |= {name: list(head[name]) for name in ("training", "metrics")}
        axes = {name: axis.as_dict() for name, axis in self.axes.items()}
        return head | {"base": dict(self.base), "axes": axes, "plots": [dict(plot) for plot in self.plots]}

    # -------------------------------------------------------------- points
    @property
    def size(self) -> int:
        """Points of the design, impossible ones included."""
        return self.n_points or math.prod(len(axis.values) for axis in self.axes.values())

    @property
    def n_results(self) -> int:
        """Points x seeds x trainings: what the plan holds a key of."""
        return self.size * self.base["n_seeds"] * len(self.training)

    @property
    def n_runs(self) -> int:
        """At most so many runs (`count_runs`), known before the points are made: all points possible and different."""
        shared = len(self.axes["eps_test"].values) if self.design == "grid" and "eps_test" in self.axes else 1
        return self.n_results // shared * engines_of(self.engine)

    def check_size(self, yes: bool = False) -> None:
        """Raise ValueError for more than MOST_RUNS runs, unless `yes`."""
        if not checks.truth("yes", yes) and self.n_runs > MOST_RUNS:
            axes = " x ".join(f"{name} {len(axis.values)}" for name, axis in self.axes.items() if axis.values)
            what = f"{self.size:,} points" + (f" ({axes})" if self.design == "grid" else "")
            raise ValueError(
                f"{what}, {self.base['n_seeds']} seeds, {len(self.training)} trainings, engine {self.engine}: "
                f"{runs_in_words(self.n_runs, self.engine)}, more than {MOST_RUNS:,} only with --yes (yes=True)"
            )

    def points(self) -> Iterator[tuple[Value, ...]]:
        """The axes' values, point by point."""
        axes = list(self.axes.values())
        if self.design == "grid":
            shape = [len(axis.values) for axis in axes]
            for i in range(self.size):
                yield tuple(axis.values[j] for axis, j in zip(axes, np.unravel_index(i, shape)))
            return
        if self.design == "random":
            draws = np.random.default_rng(self.design_seed).random((self.size, len(axes)))
        else:
            from scipy.stats import qmc  # half a second to load

            draws = qmc.Sobol(len(axes), seed=np.random.default_rng(self.design_seed)).random(self.size)
        for row in draws.tolist():
            yield tuple(axis.at(u) for axis, u in zip(axes, row))

    def config(self, point: tuple[Value, ...]) -> Figure3Config:
        """The configuration of a point; raises ValueError where none can be."""
        return Figure3Config(**{**self.base, **dict(zip(self.axes, point))})


SpecLike: TypeAlias = SweepSpec | Mapping[str, object] | str | Path  # a spec, a mapping of its tables, a TOML file

"""What one plot shows: the request checked against the sweep, its values selected, and one number per point of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..core import checks
from .catalogue import CLAIMS, METRICS, TRAININGS
from .predictions import Fields
from .results import Results, axis_fields

KEYS = ("x", "y", "metric", "facet", "training", "engine", "iteration", "at")
MOST_FACETS = 9
EVERY = "every"  # x of a plot of claims: a panel for each axis of the sweep
Z = 1.959963984540054  # the normal quantile of 97.5%
FINE, NEVER, SKIPPED, NO_VALUE = range(4)  # why a point has a number, or none

#: configuration field or derived axis -> what figures call it
LABELS = {
    "n_classes": "classes $k$", "n_neurons": "neurons per class $m$", "patch_dim": "patch dimension $d$",
    "n_patches": "patches $P$", "n_robust": "robust patches $P_R$", "alpha": r"robust strength $\alpha$",
    "beta": r"non-robust strength $\beta$", "noise_std": r"noise $\sigma_n$", "n_train": "training samples $N$",
    "n_test": "test samples", "q": "$q$", "rho": r"threshold $\varrho$", "init_std": r"initial scale $\sigma_0$",
    "lr": r"learning rate $\eta$", "ascent_lr": r"ascent rate $\tilde{\eta}$", "eps": r"training radius $\epsilon$",
    "eps_test": r"test radius $\epsilon_{test}$", "n_iter": "iterations $T$", "n_ascent": "ascent steps",
    "batch_size": "batch size", "strength_ratio": r"strength ratio $\alpha/\beta$",
    "robust_share": "share of robust patches $P_R/P$", "noise_to_signal": r"$\sigma_n/\beta$",
    "eps_over_beta": r"$\epsilon/\beta$", "density_ratio": "density ratio $c$",
}  # fmt: skip


def check(request: dict, axes: dict, grid: bool) -> dict:
    """A request with its empty keys left out.  Raises ValueError naming the key, its value and the rule.

    `axes` as in `SweepSpec.as_dict`; in a `grid` every axis must be drawn or fixed.
    """
    for key in request:
        if key not in KEYS:
            raise ValueError(f"{key}: unknown key of a plot; {checks.nearest(key, KEYS)}")
    found = {key: request[key] for key in KEYS if request.get(key) not in (None, {})}
    if "metric" not in found:
        raise ValueError("metric: a plot needs one")
    metric = found["metric"]
    if metric != "claims":
        checks.choice("metric", metric, [*METRICS, "claims"])
        if "x" not in found:
            raise ValueError(f"x: a plot of {metric} needs one; choose from {', '.join(axes)}")
    elif refused := [key for key in ("y", "facet", "training", "engine", "iteration") if key in found]:
        raise ValueError(f"{refused[0]} = {found[refused[0]]!r}: a plot of claims takes x and at only")
    drawn = [found[key] for key in ("x", "y", "facet") if key in found]
    for key in ("x", "y", "facet"):
        if key in found:
            checks.instance(key, found[key], str, "the name of an axis")
            if (metric, found[key]) == ("claims", EVERY):
                continue
            try:
                axis_fields(found[key], axes)
            except ValueError as error:
                raise ValueError(f"{key} = {error}") from None
    if len(set(drawn)) < len(drawn):
        raise ValueError(f"x, y, facet = {', '.join(drawn)}: must differ")
    if "training" in found:
        checks.choice("training", found["training"], TRAININGS)
    if "iteration" in found:
        checks.integer("iteration", found["iteration"], 0)
    for name in checks.instance("at", found.get("at", {}), dict, "a table of axes and values"):
        if name not in axes:
            raise ValueError(f"at = {name!r}: no axis of this sweep; {checks.nearest(name, axes)}")
        if name in drawn:
            raise ValueError(f"at = {name!r}: is drawn, it cannot be fixed too")
    if grid and metric != "claims":
        _check_others(found, axes)
    return found


def name_of(request: dict) -> str:
    """The figure's file name: metric-x-y, and what else the request says."""
    extra = [f"{key}={request[key]}" for key in ("facet", "training", "engine", "iteration") if key in request]
    extra += [f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in
              request.get("at", {}).items()]  # fmt: skip
    parts = [request["metric"], *(request[key] for key in ("x", "y") if key in request), *extra]
    return "-".join(parts).replace("/", "_").replace(" ", "")


@dataclass(frozen=True)
class Selection:
    """The points and values of one plot.

    Attributes
    ----------
    values : (n, n_seeds) of the n `points` (their numbers) that `at` leaves
    x, y, facet : the axes' names; y and facet may be None
    """

    results: Results
    request: dict
    training: str | None
    engine: str | None
    points: np.ndarray
    values: np.ndarray

    @classmethod
    def make(cls, results: Results, request: dict) -> Selection:
        request = check(request, results.axes, results.spec["design"] == "grid")
        metric = request["metric"]
        keep = np.ones(results.n_points, bool)
        for name, value in request.get("at", {}).items():
            keep &= _at(name, value, results.field(name))
        if metric == "claims":
            return cls(results, request, None, None, np.flatnonzero(keep), claims(results)[keep])
        training, engine = results.which(metric, request.get("training"), request.get("engine"))
        found = results.values(metric, training, engine, request.get("iteration"))
        made = cls(results, request, training, engine, np.flatnonzero(keep), found[keep])
        if made.facet and len(made.panels) > MOST_FACETS:
            n = len(made.panels)
            raise ValueError(f"facet = {made.facet!r}: has {n} values, at most {MOST_FACETS} can be drawn side by side")
        return made

    x, y, facet = (property(lambda self, key=key: self.request.get(key)) for key in ("x", "y", "facet"))
    metric = property(lambda self: self.request["metric"])
    info = property(lambda self: METRICS[self.metric])
    is_grid = property(lambda self: self.results.spec["design"] == "grid")

    def field(self, name: str) -> np.ndarray:
        return self.results.field(name)[self.points]

    def is_log(self, name: str) -> bool:
        return is_log(self.field(name), self.results.axes.get(name, {}).get("scale"))

    @cached_property
    def panels(self) -> list[tuple]:
        """(value of the facet or None, indices into `points`)."""
        if self.facet is None:
            return [(None, np.arange(len(self.points)))]
        column = self.field(self.facet)
        order = str if column.dtype == object else None
        return [(value, np.flatnonzero(column == value)) for value in sorted(set(column.tolist()), key=order)]

    @cached_property
    def centre(self) -> np.ndarray:
        """One number per point over seeds: the mean of a share, else the median.

        An event that never happened counts as later than all others, so a time's median is NaN where half the seeds
        have none.
        """
        return centre(self.values, self.info.kind)

    @cached_property
    def state(self) -> np.ndarray:
        """FINE, or why a point has no number: NEVER (a time), SKIPPED, NO_VALUE."""
        missing = NEVER if self.info.kind == "time" else NO_VALUE
        state = np.where(np.isnan(self.centre), missing, FINE)
        state[self.results.skipped_points[self.points]] = SKIPPED
        return state

    def fields(self, drawn: dict, panel=None) -> Fields:
        """For predictions: what is constant in this plot, or in the panel of this facet value."""
        axes = self.results.axes
        constant = {name: value for name, value in self.results.spec["base"].items() if name not in axes}
        constant |= {name: axis["values"][0] for name, axis in axes.items() if len(axis.get("values", ())) == 1}
        constant |= self.request.get("at", {})
        strength = self._strength_near(drawn, panel)
        if self.facet in axes:
            constant[self.facet] = panel
        elif self.facet is not None:
            drawn = drawn | {self.facet: panel}
        return Fields(drawn, constant, strength)

    @cached_property
    def strength(self) -> np.ndarray | None:
        """A_max at the end of adversarial training (mean over classes, median over seeds), (n,); None: not measured."""
        ways = [engine for training, engine in self.results.ways("A_max") if training == "adversarial"]
        if not ways:
            return None
        engine = self.engine if self.engine in ways else ways[0]
        return centre(self.results.values("A_max", "adversarial", engine)[self.points], "number")

    def _strength_near(self, drawn: dict, panel) -> np.ndarray | None:
        """`strength` of the panel's point that is nearest in the axes drawn, on their mesh."""
        index = next((index for value, index in self.panels if value == panel), [])
        if self.strength is None or not len(index):
            return None
        from scipy.spatial import KDTree

        mesh, points = [], []
        for name, values in drawn.items():
            at, values = self.field(name)[index].astype(float), np.asarray(values, float)
            if self.is_log(name):
                at, values = np.log(at), np.log(values)
            unit = np.ptp(at) or 1.0
            mesh.append(values / unit)
            points.append(at / unit)
        nearest = KDTree(np.transpose(points)).query(np.stack(mesh, axis=-1))[1]
        return self.strength[index][nearest]


def _at(name, value, column):
    """Points whose field has this value; raises ValueError where none has."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and column.dtype != object
    found = np.isclose(column, value, rtol=1e-9, atol=0) if number else column == value
    if not np.any(found):
        held = sorted(set(column.tolist()), key=str)
        some = ", ".join(map(str, held[:8])) + (", ..." if len(held) > 8 else "")
        raise ValueError(f"at {name} = {value!r}: no point of the sweep has it; there are {some}")
    return found


def _check_others(request, axes):
    """Every axis must be drawn or fixed: a mean over parameters is no measurement."""
    drawn = {f for key in ("x", "y", "facet") if key in request for f in axis_fields(request[key], axes)}
    left = [
        name for name, axis in axes.items()
        if name not in drawn and name not in request.get("at", {}) and len(axis.get("values", ())) > 1
    ]  # fmt: skip
    if left:
        told = "; ".join(f"{name}: {', '.join(map(str, axes[name]['values'][:8]))}" for name in left)
        raise ValueError(
            f"{', '.join(left)}: swept too, and neither drawn nor fixed; make one the facet, or fix them with "
            f"at = {{field = value}} ({told})"
        )


def claims(results: Results) -> np.ndarray:
    """(n_points, n_seeds, len(CLAIMS)): 0 or 1, NaN without a row.  Raises ValueError where one is not there."""
    if missing := [name for name in CLAIMS if not results.ways(name)]:
        raise ValueError(f"metric = 'claims': the sweep did not measure {', '.join(missing)}")
    return np.stack([results.values(name) for name in CLAIMS], axis=-1)


def centre(values: np.ndarray, kind: str) -> np.ndarray:
    """(n, n_seeds) -> (n,); see `Selection.centre`."""
    none = np.isnan(values).all(axis=1)
    some = np.where(none[:, None], 0.0, values)
    if kind == "time":
        found = np.median(np.where(np.isnan(some), np.inf, some), axis=1)
        return np.where(none | np.isinf(found), np.nan, found)
    return np.where(none, np.nan, (np.nanmean if kind == "share" else np.nanmedian)(some, axis=1))


def predicted_centre(selection: Selection, name: str) -> np.ndarray:
    """The median over seeds of the runs' own predictions, at the points of a selection."""
    return centre(selection.results.values(name, selection.training, selection.engine)[selection.points], "time")


def is_log(values, scale: str | None = None) -> bool:
    """A log axis: said by the spec, or positive values that are spaced more evenly in their logarithms."""
    if scale is not None or np.asarray(values).dtype == object:
        return scale == "log"
    held = np.unique(np.asarray(values, float))
    if len(held) < 3 or held[0] <= 0 or held[-1] < 4 * held[0]:
        return False
    uneven = [np.std(np.diff(v)) / np.mean(np.diff(v)) for v in (held, np.log(held))]
    return bool(uneven[1] < 0.7 * uneven[0])


def wilson(share, n):
    """Wilson's 95% interval (low, high) of a share of n; arrays broadcast, NaN where n is 0.

    A point counts once, with its mean over seeds, so share * n need not be an integer as scipy's `binomtest` asks.
    """
    share, n = np.asarray(share, float), np.asarray(n, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z * np.sqrt(share * (1 - share) / n + (Z / n) ** 2 / 4) / (1 + Z**2 / n)
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)

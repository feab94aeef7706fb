"""One axis of a design: values of a configuration field, listed or between two ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from ..core import checks
from ..core.types import Array, JsonDict
from ..experiments.configuration import Figure3Config

KEYS = Figure3Config.keys()
Scale = Literal["linear", "log"]
SCALES: tuple[Scale, ...] = get_args(Scale)
Value: TypeAlias = bool | int | float | str | None  # of a field of the configuration


@dataclass(frozen=True)
class Axis:
    """`values` in order; or, for random designs, the range `low` to `high` in `scale`."""

    name: str
    values: tuple[Value, ...] | None
    low: float | None = None
    high: float | None = None
    scale: Scale = "linear"

    @classmethod
    def build(cls, name: str, given: AxisLike, grid: bool) -> Axis:
        """From a list of values, or a table: values; or low, high, scale, and n in a grid."""
        if isinstance(given, cls):
            return given
        if isinstance(given, Mapping) and "values" not in given:
            return cls._range(name, given, grid)
        if isinstance(given, Mapping):
            _known(name, given, ("values",))
            given = given["values"]
        if not isinstance(given, (list, tuple, range, np.ndarray)):
            raise ValueError(f"axes.{name} = {given!r}: must be a list of values or a table of low, high, n, scale")
        given = given.tolist() if isinstance(given, np.ndarray) else given
        values = tuple(KEYS[name].typed(value, f"axes.{name}") for value in given)
        if not values:
            raise ValueError(f"axes.{name} = []: must hold at least one value")
        if len(set(values)) < len(values):
            twice = next(v for i, v in enumerate(values) if v in values[:i])
            raise ValueError(f"axes.{name}: holds {twice!r} twice")
        return cls(name, values)

    @classmethod
    def _range(cls, name, given, grid):
        _known(name, given, ("low", "high", "scale", *(("n",) if grid else ())))
        kind = KEYS[name].kind
        if kind not in (int, float):
            raise ValueError(f"axes.{name}: a field of type {kind.__name__} has no range; list its values")
        for key in ("low", "high", *(("n",) if grid else ())):
            if key not in given:
                raise ValueError(f"axes.{name}: a range needs {key}")
        low, high = (checks.number(f"axes.{name}.{key}", given[key]) for key in ("low", "high"))
        scale = checks.choice(f"axes.{name}.scale", given.get("scale", "linear"), SCALES)
        if not low < high:
            raise ValueError(f"axes.{name}: low = {low:g} must be < high = {high:g}")
        if scale == "log" and low <= 0:
            raise ValueError(f"axes.{name}: low = {low:g} must be > 0 on a log scale")
        axis = cls(name, None, low, high, scale)
        if not grid:
            return axis
        n = checks.integer(f"axes.{name}.n", given["n"], 1)
        if kind is int and n > high - low + 1:
            raise ValueError(f"axes.{name}: n = {n} integers do not fit between {low:g} and {high:g}")
        if n > 10**6:
            raise ValueError(f"axes.{name}: n = {n} values are more than one axis can have (10^6)")
        between = np.linspace(0, 1, n) if n > 1 else np.zeros(1)
        space = np.geomspace if scale == "log" else np.linspace
        values = space(low, high, n).tolist() if kind is float else [axis.at(u) for u in between.tolist()]
        return cls(name, tuple(dict.fromkeys(values)), low, high, scale)

    def at(self, u: float) -> Value:
        """The value at share `u` in [0, 1] of the axis; integers are rounded, listed values equally likely."""
        if self.values is not None:
            return self.values[min(int(u * len(self.values)), len(self.values) - 1)]
        if self.scale == "log":
            value = float(np.exp(np.log(self.low) + u * (np.log(self.high) - np.log(self.low))))
        else:
            value = self.low + u * (self.high - self.low)
        value = min(max(value, self.low), self.high)
        return round(value) if KEYS[self.name].kind is int else value

    def as_dict(self) -> JsonDict:
        if self.values is not None:
            return {"values": list(self.values)} | ({} if self.low is None else {"scale": self.scale})
        return {"low": self.low, "high": self.high, "scale": self.scale}


#: An axis, its values, or a table of "values", or of "low", "high", "scale" and "n".
AxisLike: TypeAlias = Axis | Sequence[Value] | Array | Mapping[str, object]


def _known(name, table, keys):
    for key in table:
        if key not in keys:
            raise ValueError(f"axes.{name}.{key}: unknown; {checks.nearest(key, keys)}")

"""What is recorded of a model in training: every measurement by a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..core import checks
from ..core.model import Model
from ..core.records import line
from ..core.types import Array, Arrays, BoolArray, IntArray

if TYPE_CHECKING:  # a default for `Measurement` alone, which Python 3.11 does not know
    from typing_extensions import TypeVar

    Measured = TypeVar("Measured", bound=Model, contravariant=True, default=Model)
else:
    from typing import TypeVar

    Measured = TypeVar("Measured", bound=Model, contravariant=True)

CLOCK = "iteration/"  # in a file, what stands before the name of a series whose iterations are its own


@dataclass(frozen=True)
class Measurement(Generic[Measured]):
    """`measure(model, iteration)` returns arrays by name; it is called at iterations 0, `every`, 2 `every`, ... and
    the last."""

    measure: Callable[[Measured, int], Mapping[str, ArrayLike]]
    every: int

    def __post_init__(self) -> None:
        checks.callback("measure", self.measure)
        checks.integer("every", self.every, 1)

    def next(self, iteration: int, n_iter: int) -> int:
        """The first iteration after `iteration` at which it is due."""
        return min((iteration // self.every + 1) * self.every, n_iter)

    def count(self, iteration: int) -> int:
        """How often it was due before `iteration`."""
        return -(-iteration // self.every)


class Series(NamedTuple):
    """The values (T, ...) of one name, and the iterations (T,) at which they were measured."""

    iteration: IntArray
    values: Array

    __repr__, __eq__, __hash__ = line, object.__eq__, object.__hash__


class History(Mapping[str, Array]):
    """Recorded arrays (T, ...) by name, each with its own iterations; axes of runs come second.

    ``history["iteration"]`` is the clock of loss and correlations; :meth:`at` gives a series with its own, which for
    attacks and certificates is a slower one.
    """

    def __init__(self, iteration: IntArray, series: Mapping[str, Series]):
        self._iteration, self._series = np.asarray(iteration), dict(series)

    def __getitem__(self, name: str) -> Array:
        return self._iteration if name == "iteration" else self._series[name].values

    __eq__, __hash__ = object.__eq__, object.__hash__

    def __repr__(self) -> str:
        return f"<History: {len(self._iteration)} records of {', '.join(self._series)}>"

    def __iter__(self) -> Iterator[str]:
        return iter(("iteration", *self._series))

    def __len__(self) -> int:
        return 1 + len(self._series)

    def at(self, name: str) -> Series:
        """Iterations and values of `name`; KeyError names the nearest where it was not recorded."""
        if name not in self._series:
            raise KeyError(f"{name!r} was not recorded; {checks.nearest(name, self._series)}")
        return self._series[name]

    def arrays(self) -> dict[str, Array]:
        """As a file holds them: by name, and "iteration/NAME" for a series by a clock of its own."""
        out = {"iteration": self._iteration}
        for name, (iteration, values) in self._series.items():
            out[name] = values
            if not np.array_equal(iteration, self._iteration):
                out[CLOCK + name] = iteration
        return out

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> History:
        """From what `arrays` made, or from version 0.1.0's, which has rows of NaN where nothing was measured.

        Raises ValueError for arrays that no history can be.
        """
        if "iteration" not in arrays:
            raise ValueError("its history has no 'iteration'")
        main, series = _clock("iteration", arrays["iteration"]), {}
        for name, values in arrays.items():
            if name == "iteration" or name.startswith(CLOCK):
                continue
            iteration = _clock(name, arrays[CLOCK + name]) if CLOCK + name in arrays else main
            if values.ndim == 0 or len(values) != len(iteration):
                raise ValueError(f"{name!r} has shape {values.shape} for {len(iteration)} records")
            if iteration is main and values.dtype.kind == "f":
                measured = ~np.isnan(values.reshape(len(values), -1)).all(axis=1)
                if measured[0]:  # else all of it is unknown, as of a run that was dropped
                    iteration, values = iteration[measured], values[measured]
            series[name] = Series(iteration, values)
        return cls(main, series)


def _clock(name, iteration):
    whole = iteration.ndim == 1 and len(iteration) and iteration.dtype.kind in "iu"
    if not whole or iteration[0] != 0 or (np.diff(iteration) <= 0).any():
        raise ValueError(f"the iterations of {name!r} do not ascend from 0")
    return iteration


class Recorder:
    """Calls measurements when they are due, and keeps what they return.

    `measurements`: the first one's clock is the history's "iteration".  Two must not return the same name.
    """

    def __init__(self, measurements: Sequence[Measurement[Model]], n_iter: int):
        self.measurements, self.n_iter = tuple(measurements), n_iter
        self.clock: list[int] = []  # of the first measurement
        self.series: dict[str, tuple[list[int], list[Array]]] = {}
        self._kept: dict[str, int] = {}  # how many rows of each series `unsaved` has handed out

    def next(self, iteration: int) -> int:
        """The first iteration after `iteration` at which something is due."""
        return min(one.next(iteration, self.n_iter) for one in self.measurements)

    def record(self, model: Model, iteration: int, gone: BoolArray | None = None) -> None:
        """Measure what is due at `iteration`; `gone` (R,) bool, or bool of a single model, are runs that are NaN."""
        for place, one in enumerate(self.measurements):
            if iteration % one.every and iteration != self.n_iter:
                continue
            found = one.measure(model, iteration)
            for name, values in found.items():
                values = np.asarray(values)
                iterations, rows = self.series.setdefault(name, ([], []))
                if len(rows) != one.count(iteration):
                    times = f"{len(rows)} times before iteration {iteration}, and not {one.count(iteration)}"
                    raise ValueError(f"{name!r}: was measured {times}; a measurement must always return the same names")
                iterations.append(iteration)
                rows.append(values if gone is None else _blank(values, gone))
            if place == 0:
                self.clock.append(iteration)

    def history(self) -> History:
        held = {name: Series(np.array(at), np.stack(rows)) for name, (at, rows) in self.series.items()}
        return History(np.array(self.clock), held)

    # -------------------------------------------------------------- on disk, piece by piece
    def unsaved(self) -> dict[str, Array]:
        """What was recorded since the last call, as arrays; their size does not grow with the history."""
        new, out = {"": (self.clock, self.clock), **self.series}, {}
        for name, (at, rows) in new.items():
            first = self._kept.get(name, 0)
            if first < len(rows):
                out |= {CLOCK + name: np.array(at[first:])} | ({name: np.stack(rows[first:])} if name else {})
                self._kept[name] = len(rows)
        return out

    def extend(self, arrays: Arrays) -> None:
        """Take back what `unsaved` handed out."""
        for key, at in arrays.items():
            if key.startswith(CLOCK):
                name = key.removeprefix(CLOCK)
                held = self.series.setdefault(name, ([], [])) if name else (self.clock, None)
                held[0].extend(at.tolist())
                if name:
                    held[1].extend(arrays[name])
                self._kept[name] = len(held[0])

    def restore(self, history: History) -> None:
        """Take over a history that was kept in one piece, as version 0.1.0 does; nothing of it counts as saved."""
        self.clock = history["iteration"].tolist()
        self.series = {name: (at.tolist(), list(values)) for name in history if name != "iteration"
                       for at, values in [history.at(name)]}  # fmt: skip


def _blank(values, gone):
    return np.where(np.reshape(gone, np.shape(gone) + (1,) * (values.ndim - np.ndim(gone))), np.nan, values)

"""When something happens on the recorded curves of a training, and how far a network is from its recursion there."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..core.types import Arrays, BoolArray, Float64Array, IntArray
from .recursion import Recursion

TAKE_OFF = 5.0  # a class's feature has taken off once its strongest correlation is this many times its initial one


def first_time(iterations: IntArray, reached: BoolArray) -> Float64Array:
    """First recorded iteration at which `reached` (T, ...) holds, NaN where it never does."""
    return np.where(reached.any(axis=0), iterations[reached.argmax(axis=0)].astype(float), np.nan)


def for_good(iterations: IntArray, holds: BoolArray) -> Float64Array:
    """First recorded iteration from which on `holds` (T, ...) stays true, NaN where it does not hold at the end."""
    since = len(holds) - np.logical_and.accumulate(holds[::-1]).sum(axis=0)
    return np.where(holds[-1], iterations[np.minimum(since, len(holds) - 1)].astype(float), np.nan)


def took_off(history: Arrays, feature: str) -> BoolArray:
    """Per record, run and class: max_s of correlation `feature` ("A" or "B") >= TAKE_OFF times its first value.

    Never where that first value is <= 0: such a class is at rest without noise.
    """
    strongest = history[feature].max(axis=-1)
    return (strongest >= TAKE_OFF * strongest[0]) & (strongest[0] > 0)


def deviation(history: Arrays, recursion: Recursion) -> Float64Array:
    """Largest |network - recursion| over all correlations A, B per record and run, relative to the run's largest one.

    (T, R), NaN where the recursion is not exact.  Without noise what is left is rounding.
    """
    theirs = {"A": recursion.A, "B": recursion.B}
    apart = np.max([np.abs(history[f] - theirs[f]).max(axis=(2, 3)) for f in theirs], axis=0)
    largest = np.max([np.abs(history[f]).max(axis=(0, 2, 3)) for f in theirs], axis=0)
    return np.where(recursion.exact, apart / largest, np.nan)


def first_record(reached: BoolArray) -> IntArray:
    """Index of the first record at which `reached` (T, ...) holds, -1 where it never does."""
    return np.where(reached.any(axis=0), reached.argmax(axis=0), -1)


def at(values: Float64Array, index: IntArray) -> Float64Array:
    """values (T, ...) at record index (...), NaN where the index is -1."""
    taken = np.take_along_axis(values, np.maximum(index, 0)[None], 0)[0]
    return np.where(index >= 0, taken, np.nan)


def crossing(iteration: IntArray, values: Float64Array, level: ArrayLike) -> Float64Array:
    """Iteration at which values (T, ...) pass `level` (...), between records along exp; NaN where they never do."""
    after = first_record(values >= level)
    before = np.where(after > 0, after - 1, after)
    x0, x1 = np.log(at(values, before)), np.log(at(values, after))
    t0, t1 = iteration[before].astype(float), iteration[after]
    share = np.where(x1 > x0, (np.log(level) - x0) / np.where(x1 > x0, x1 - x0, 1), 0)
    return np.where(after >= 0, t0 + share * (t1 - t0), np.nan)


def late_slope(t: IntArray, values: Float64Array, start: Float64Array) -> Float64Array:
    """Slope of values (T, R, k) over log(t - start) from 2 start on, where start <= t_end / 3; NaN for the others."""
    slope = np.full(start.shape, np.nan)
    for r, i in np.argwhere(start <= t[-1] / 3):
        late = t >= 2 * start[r, i]
        slope[r, i] = np.polyfit(np.log(t[late] - start[r, i]), values[late, r, i], 1)[0]
    return slope

"""When something happens on the recorded curves of a training, and how far a network is from its recursion there."""

from __future__ import annotations

import numpy as np

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

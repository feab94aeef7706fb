"""Numbers, arrays and seeds that users give once, per run or per sample, spread over all runs and samples."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np

from . import checks
from .types import Rng

P = ParamSpec("P")
T = TypeVar("T")


def per_sample(name, value, shape, batched, low=0) -> np.ndarray:
    """One number, one per run of a batch, or one per sample -> float64 (R, N)."""
    R, N = shape
    values = np.asarray(value, dtype=object)
    numbers = np.array([checks.number(name, v, low=low) for v in values.ravel().tolist()]).reshape(values.shape)
    if values.shape in ((), (1,)):
        return np.full(shape, numbers.reshape(()))
    if batched and values.shape == (R,):
        return np.repeat(numbers[:, None], N, axis=1)
    if values.shape == shape or (not batched and values.shape == (N,)):
        return numbers.reshape(shape)
    wanted = f"one per run ({R},) or one per sample {shape}" if batched else f"one per sample ({N},)"
    raise ValueError(f"{name} has shape {values.shape}: must be one number, {wanted}")


def spread_over_runs(name, value, shape, batched, kind):
    """An array (N,) or (R, N) of dtype `kind` -> (R, N)."""
    value = np.asarray(value)
    if not np.issubdtype(value.dtype, kind):
        raise TypeError(f"{name} has dtype {value.dtype}: must be {'bool' if kind is np.bool_ else 'integers'}")
    if value.shape != shape[1:] and value.shape != shape:
        raise ValueError(f"{name} has shape {value.shape}: must be ({shape[1]},)" + (f" or {shape}" if batched else ""))
    return np.broadcast_to(value, shape)


def run_seeds(rng: Rng, n_runs: int) -> list[int]:
    """One seed per run; a generator draws them."""
    if isinstance(rng, np.random.Generator):
        return rng.integers(2**63, size=n_runs).tolist()
    return checks.seeds(rng, n_runs, "rng")


def renamed(**names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A function that still takes keywords by their old names, `old` = "new", with a FutureWarning."""

    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            for old in names.keys() & kwargs.keys():
                new = names[old]
                if new in kwargs:
                    raise TypeError(f"{function.__name__}: {old} is the old name of {new}; give one of them")
                message = f"{function.__name__}: {old} is now called {new}, and the old name will go"
                warnings.warn(message, FutureWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return wrap

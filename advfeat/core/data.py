"""What attacks, training and evaluator see of data: samples, labels, arrays beside them, directions to measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from .records import record
from .types import Array, Arrays, Dtype, FloatArray, IntArray


@runtime_checkable
class Data(Protocol):
    """Labelled samples of one run, or of R runs stacked along a leading axis.

    Attributes
    ----------
    X : float array, (n, *sample_shape) or (R, n, *sample_shape)
    y : integer array, (n,) or (R, n)
    arrays : what else is known of every sample, by name: arrays whose first axes are those of y.  A law of patches has
        "robust" and "strength"; an attack that needs an array asks for it by its name.
    directions : vectors of inputs by name, (k, d) each, along which a network is measured; empty where none is known.
    """

    @property
    def X(self) -> FloatArray: ...

    @property
    def y(self) -> IntArray: ...

    @property
    def arrays(self) -> Arrays: ...

    @property
    def directions(self) -> Mapping[str, FloatArray]: ...


DataLike: TypeAlias = Data | tuple[FloatArray, IntArray]  # or a pair (X, y)


@record
class Samples:
    """The plainest :class:`~advfeat.core.data.Data`: what a pair (X, y) is taken for, and what a law of one's own may
    return."""

    X: FloatArray
    y: IntArray
    arrays: Mapping[str, Array] = field(default_factory=dict)
    directions: Mapping[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            shape = np.shape(self.y)
            if np.shape(array)[: len(shape)] != shape:
                raise ValueError(f"{name} has shape {np.shape(array)}: its first axes must be those of y, {shape}")


def as_data(data: DataLike, name: str = "data") -> Data:
    """A :class:`Data` as it is, a pair (X, y) as `Samples`; TypeError for anything else."""
    if isinstance(data, Data):
        return data
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        rule = "must have X, y, arrays and directions, or be a pair (X, y)"
        raise TypeError(f"{name} is a {type(data).__name__}: {rule}")
    return Samples(*data)


def in_dtype(data: Data, dtype: Dtype) -> Data:
    """The same data with X of `dtype`."""
    return data if data.X.dtype == dtype else Samples(data.X.astype(dtype), data.y, data.arrays, data.directions)

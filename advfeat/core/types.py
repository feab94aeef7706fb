"""What public parameters and answers are, for readers and type checkers: arrays, and numbers that runs may differ in.

Runs are an axis everywhere: what a network takes as one number, a batch of R networks also takes as R numbers.  Names
that a parameter chooses from are Literals beside the list that they are checked against.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

# ------------------------------------------------------------------ arrays
FloatArray: TypeAlias = NDArray[np.floating[Any]]  # float32 or float64, as the dtype of the model says
Float64Array: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.integer[Any]]
BoolArray: TypeAlias = NDArray[np.bool_]
StrArray: TypeAlias = NDArray[np.str_]
Array: TypeAlias = NDArray[Any]  # its dtype is decided by the name under which it stands, as in a history
Arrays: TypeAlias = Mapping[str, Array]
Features: TypeAlias = tuple[FloatArray, FloatArray]  # (u, v), robust and non-robust, each (k, d)
FeaturesLike: TypeAlias = tuple[ArrayLike, ArrayLike]

# ------------------------------------------------------------------ numbers
Number: TypeAlias = float | np.floating[Any] | np.integer[Any]
_Many: TypeAlias = Sequence[Number] | NDArray[np.floating[Any] | np.integer[Any]]
PerRun: TypeAlias = Number | _Many  # one number, or an array of length R: one for each run of a batch
PerSample: TypeAlias = Number | _Many  # one number, (R,) for a batch, or one per sample: (N,) or (R, N)
PerPoint: TypeAlias = Number | _Many  # a number, or an array that broadcasts against the others of its formula
Share: TypeAlias = float | Float64Array  # an answer: a float of one network, (R,) of a batch

# ------------------------------------------------------------------ random numbers
Seeds: TypeAlias = int | np.integer[Any] | Sequence[int] | IntArray  # one for all runs, or one per run (R,)
Rng: TypeAlias = Seeds | np.random.Generator  # a generator draws the runs' seeds
Rngs: TypeAlias = Rng | Sequence[np.random.Generator]  # a sequence makes a batch, one run from each


class Law(Protocol):
    """A frozen law of scipy.stats on (0, inf), of which strengths are drawn."""

    def support(self) -> tuple[float, float]: ...


# ------------------------------------------------------------------ others
Precision = Literal["float32", "float64"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Dtype: TypeAlias = Precision | type[np.float32] | type[np.float64] | np.dtype[Any]
JsonDict: TypeAlias = dict[str, object]  # what JSON holds under names
#: dJ/dF of logits F (R, n, k), or of other values, of the samples that the slice picks.
Slopes: TypeAlias = Callable[[Float64Array, slice], FloatArray]

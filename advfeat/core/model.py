"""What attacks, evaluator and training ask of a model: logits, pulled-back gradients, and little else.

A model of one's own subclasses :class:`Model` and writes `logits` and `pull_back`; every attack, threat, suite and the
evaluator then work on it.  A model of several runs (one batch of networks), or one whose engine prepares samples or
runs whole loops faster, overrides more (`advfeat.PatchCNN` does).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import NamedTuple, Self, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike

from ..kernels.layers import Mode
from . import checks, store
from .data import Data, DataLike, as_data, in_dtype
from .types import Array, Arrays, BoolArray, Float64Array, FloatArray, IntArray, JsonDict, Share, Slopes

#: Samples that a model has prepared, in whatever form: they go back into the methods of the same kind of model.
Batch: TypeAlias = object


class Prepared(NamedTuple):
    """Checked samples as a plain model keeps them: X (1, N, *S), and which of them are worked on, (1, N)."""

    X: FloatArray
    active: BoolArray


class Checked:
    """Data that a model has checked and prepared once, for as many questions as are asked of them.

    Attributes
    ----------
    data : what was given; X (R, N, *sample_shape), y (R, N) : of the dtype in which verdicts are computed.
        Networks that differ in their weights alone can share them.
    """

    def __init__(self, model: Model, data: DataLike):
        model, data = model.for_verdicts(), as_data(data)
        X, y = model.labelled(data.X, data.y)
        self.data, self._model, self._given = in_dtype(data, model.dtype), model, (X, y)
        shape = model.n_runs, X.shape[1]
        self.X, self.y = np.broadcast_to(X, (*shape, *X.shape[2:])), np.broadcast_to(y, shape)
        self._some = None, None

    @classmethod
    def of(cls, model: Model, data: AnyData) -> Checked:
        """Data as they are where such a model has checked them; ValueError where it was one of another kind or size."""
        if not isinstance(data, cls):
            return cls(model, data)
        if (type(model), model.dtype, model.n_runs) != (type(data._model), data._model.dtype, data._model.n_runs):
            raise ValueError(f"data: were checked by {data._model!r}, which is not like {model!r}")
        return data

    @cached_property
    def batch(self) -> Batch:
        """The handle of all samples, laid out when it is first asked for."""
        return self._model.prepare(*self._given)

    def some(self, model: Model, active: BoolArray) -> Batch:
        """The handle of the samples `active` (R, N), kept until others are asked for."""
        key = active.tobytes()
        if self._some[0] != key:
            X = np.ascontiguousarray(self.X)
            self._some = key, self.batch if active.all() else model.prepare(X, self.y, active)
        return self._some[1]


AnyData: TypeAlias = DataLike | Checked


class Model(ABC):
    """A classifier F with gradients in closed form.

    Attributes
    ----------
    kind : str
        What its files are called by.
    n_classes : int
    sample_shape : tuple
        Of one sample; None for an axis of any length.
    dtype : of inputs, and of the gradients that come back; attacks compute in it.
    n_runs, batched : int, bool
        R networks with an axis of runs in front of all answers, or one without it (the default).
    box : (lo, hi), optional
        Where inputs must lie: attacks stay there, whatever their threat says; None: anywhere.
    patch_axis : int, optional
        The axis of a sample along which its patches lie; None: the sample is one patch.  A budget per patch bounds
        every patch by itself.
    capabilities : set of str
        The loops that the model does itself in one call, with attacks' own arguments behind the prepared batch:
        "ascend" (:class:`advfeat.OneStepAscent`), "pgd" (:class:`advfeat.PGD`), "train" (:func:`advfeat.train`).
        "masks": samples that are not active cost nothing and change no bit of the others.
    """

    kind = ""
    n_classes: int
    sample_shape: tuple[int | None, ...]
    dtype: np.dtype[np.floating]
    n_runs = 1
    batched = False
    box: tuple[float, float] | None = None
    patch_axis: int | None = None
    capabilities: frozenset[str] = frozenset()

    # -------------------------------------------------------------- what a model must say
    @abstractmethod
    def logits(self, X: FloatArray) -> FloatArray:
        """F (N, k) of X (N, *sample_shape)."""

    @abstractmethod
    def pull_back(self, X: FloatArray, C: FloatArray) -> FloatArray:
        """sum_i C[n, i] dF_i/dx at x = X_n, of X's shape; C (N, k)."""

    # -------------------------------------------------------------- what training and files need besides
    @property
    def parameters(self) -> dict[str, FloatArray]:
        """The trained arrays by name, which training changes in place; with an axis of runs in front in a batch."""
        return {}

    def loss_and_grad(self, X: FloatArray, y: IntArray) -> tuple[Share, FloatArray | dict[str, FloatArray]]:
        """The mean cross-entropy and its gradient by the parameters, a dict of their names."""
        raise TypeError(f"{type(self).__name__} has no loss_and_grad: it can be attacked, but not trained")

    def reserve(self, n: int) -> None:  # noqa: B027
        """Errors for a training step on n samples that cannot be, as for want of memory; before any work."""

    def in_mode(self, mode: Mode, update_statistics: bool = False) -> Model:
        """The model as it answers in a mode, where it has several; most have the one called "evaluate" alone."""
        if mode != "evaluate":
            raise ValueError(f"mode = {mode!r}: {type(self).__name__} answers in the mode 'evaluate' alone")
        return self

    def arrays(self) -> Arrays:
        """All that a file must hold to build the model again, by `from_arrays` and `options`; no objects."""
        return self.parameters

    @property
    def options(self) -> JsonDict:
        """What `from_arrays` takes beside the arrays, as JSON holds it."""
        return {}

    @classmethod
    def from_arrays(cls, arrays: Arrays, **options: object) -> Self:
        """The model that `arrays` and `options` came from."""
        return cls(**arrays, **options)

    def copy(self) -> Self:
        """The same model with arrays of its own."""
        return self.from_arrays({name: np.array(a) for name, a in self.arrays().items()}, **self.options)

    def fingerprint(self) -> str:
        """What tells it from other models: a digest of its arrays."""
        arrays = self.arrays()
        return f"{store.digest(*(np.asarray(arrays[name]) for name in sorted(arrays)))} {self.kind}"

    def measured(self, data: Data) -> dict[str, Array]:
        """What training records of the model itself, by name, as along the `directions` of its data; nothing here."""
        return {}

    def finite(self) -> BoolArray:
        """Whether every parameter of a run is finite, (R,) bool."""
        each = [np.isfinite(w).reshape(self.n_runs, -1).all(axis=1) for w in self.parameters.values()]
        return np.all(each, axis=0)

    def put_zero(self, runs: BoolArray) -> None:
        """Set the parameters of `runs` (R,) bool to 0, in place."""
        for w in self.parameters.values():
            w[runs if self.batched else ...] = 0

    # -------------------------------------------------------------- what has a default
    def for_verdicts(self) -> Model:
        """The model in the precision in which samples are called broken or certified; its own by default."""
        return self

    def check(self, X: ArrayLike, y: ArrayLike | None = None) -> tuple[FloatArray, IntArray | None]:
        """X (1 or R, N, *sample_shape) of the model's dtype, y (1 or R, N) int64 or None; errors for anything else."""
        X = checks.samples(X, self.n_runs, self.batched, self.sample_shape, self.dtype)
        return X, None if y is None else checks.labels(y, X, self.n_classes)

    def labelled(self, X: ArrayLike, y: ArrayLike) -> tuple[FloatArray, IntArray]:
        """`check` of samples that must have labels."""
        if y is None:
            raise TypeError("y = None: must be labels, one for each sample of X")
        X, y = self.check(X, y)
        return X, cast(IntArray, y)

    def prepare(self, X: FloatArray, y: IntArray | None = None, active: BoolArray | None = None) -> Batch:
        """Checked samples (R, N, *sample_shape), as often as they are needed: a handle for the two methods below.

        `active` (R, N) bool picks samples; the others cost nothing.
        """
        return Prepared(X, np.ones(X.shape[:2], bool) if active is None else active)

    def logits_of(self, batch: Batch) -> Float64Array:
        """F (R, N, k) float64 of a prepared batch; NaN where a sample is not active."""
        X, on = (a[0] for a in cast(Prepared, batch))
        if on.all():
            return np.asarray(self.logits(X), np.float64)[None]
        F = np.full((1, len(X), self.n_classes), np.nan)
        if on.any():
            F[0, on] = self.logits(X[on])
        return F

    def pull_back_of(self, batch: Batch, C: FloatArray) -> FloatArray:
        """`pull_back` of a prepared batch, C (R, N, k); (R, N, *sample_shape), 0 where a sample is not active."""
        X, on = (a[0] for a in cast(Prepared, batch))
        if on.all():
            return np.asarray(self.pull_back(X, C[0]))[None]
        out = np.zeros_like(X)
        if on.any():
            out[on] = self.pull_back(X[on], C[0, on])
        return out[None]

    def logits_and_pull_back_of(self, batch: Batch, coefficients: Slopes) -> tuple[Float64Array, FloatArray]:
        """F of a prepared batch, and `pull_back_of` what `coefficients` makes of it; in one pass where a model can.

        coefficients(F (R, n, k), samples) returns C for a slice of the samples, whose logits alone it gets.
        """
        F = self.logits_of(batch)
        return F, self.pull_back_of(batch, coefficients(F, slice(None)))

    def drop_runs_axis(self, values: Array) -> Array:
        """Values with a leading axis of runs, without it where the model is not a batch."""
        return values if self.batched else values[0]


def as_model(model: Model, name: str = "model") -> Model:
    """The model itself; TypeError for what is none."""
    return checks.instance(name, model, Model, "a model, as PatchCNN or Network")

"""The two-layer smoothed-ReLU patch network (Li & Li 2025, Sec. 2.3) and its closed-form gradients (Sec. 2.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from ..core import checks, memory, store
from ..core.data import Data
from ..core.model import Batch, Model
from ..core.types import (
    Array,
    Arrays,
    BoolArray,
    Dtype,
    FeaturesLike,
    Float64Array,
    FloatArray,
    IntArray,
    JsonDict,
    Rngs,
    Share,
)
from ..kernels import Backend, formulas, get_engine
from .features import correlations


@dataclass(frozen=True)
class SmoothedReLU:
    """sigma(z) = 0 for z <= 0, z^q / (q rho^(q-1)) on [0, rho], z - (1 - 1/q) rho above; convex and C^1.

    `q` is an integer in 2..100, `rho` > 0; arrays of any shape.
    """

    q: int = 3
    rho: float = 1.0

    def __post_init__(self) -> None:
        checks.degree(self.q)
        checks.number("rho", self.rho, above=0)

    def __call__(self, z: ArrayLike) -> Float64Array:
        return formulas.sigma(np.asarray(z, float), self.q, self.rho)

    def derivative(self, z: ArrayLike) -> Float64Array:
        """sigma'(z) = clip(z / rho, 0, 1)^(q-1)."""
        return formulas.sigma_prime(np.asarray(z, float), self.q, self.rho)


class PatchCNN(Model):
    """F_i(X) = sum_s sum_p sigma(<w_{i,s}, x_p>), i = 1..k: a network, or R of them as one batch.

    Parameters
    ----------
    W : float32 or float64 array, (k, m, d) or (R, k, m, d)
        Copied.  With three axes every answer comes without the runs axis; all work is done in W's dtype.
    q, rho : int in 2..100, float > 0
        The activation's degree and threshold; 1 / rho must be finite in W's dtype.
    backend : {"numba", "numpy", "cupy", "cupy-tf32"}
        The engine (:func:`advfeat.kernels.get_engine`).

    Notes
    -----
    Inputs ``X`` are (N, P, d), shared by all runs, or (R, N, P, d); labels ``y`` (N,) or (R, N).  Every method raises
    ValueError or TypeError for wrong shapes, dtypes, labels out of range, and numbers that are not finite in W's dtype
    (in float32 1e60 is not), before any work.
    """

    def __init__(self, W: ArrayLike, q: int = 3, rho: float = 1.0, backend: Backend = "numba"):
        W = checks.floats("W", W)
        if W.ndim not in (3, 4) or 0 in W.shape or W.shape[-3] < 2:
            raise ValueError(f"W has shape {W.shape}: must be (k, m, d) or (R, k, m, d) with k >= 2 and no empty axis")
        self.W: FloatArray = checks.cast("W", W.copy(), W.dtype)
        self.activation = SmoothedReLU(q, rho)
        checks.threshold(rho, W.dtype)
        self.q, self.rho, self.backend = int(q), float(rho), backend
        self.engine = get_engine(backend)

    # -------------------------------------------------------------- constructors
    @classmethod
    def init(
        cls,
        n_classes: int,
        n_neurons: int,
        patch_dim: int,
        *,
        rng: Rngs,
        init_std: float | None = None,
        dtype: Dtype = "float64",
        q: int = 3,
        rho: float = 1.0,
        backend: Backend = "numba",
    ) -> Self:
        """Random weights w ~ N(0, init_std^2 I_d), init_std = 1/sqrt(d) by default (the paper's sigma_0).

        `rng` is a Generator or a seed; draws are float64, then rounded to `dtype`.  A list of them makes a batch.
        """
        shape = (
            checks.integer("n_classes", n_classes, 2),
            checks.integer("n_neurons", n_neurons, 1),
            checks.integer("patch_dim", patch_dim, 1),
        )
        dtype, rngs = checks.precision(dtype), checks.generators(rng)
        about = f"{len(rngs)} networks of n_classes, n_neurons, patch_dim = {checks.shown(shape)[1:-1]}"
        memory.require_numbers(2 * len(rngs) * math.prod(shape), about, "choose smaller ones")
        init_std = patch_dim**-0.5 if init_std is None else checks.number("init_std", init_std, low=0)
        checks.in_dtype("init_std", init_std, dtype)
        W = init_std * np.stack([one.standard_normal(shape) for one in rngs])
        W = checks.cast("W", W if isinstance(rng, checks.SEQUENCES) else W[0], dtype)
        return cls(W, q, rho, backend)

    @classmethod
    def _minimum(cls, vectors, gamma, n_neurons, *options):
        vectors = checks.number("gamma", gamma) * vectors
        checks.integer("n_neurons", n_neurons, 1, checks.MOST)
        memory.require_numbers(vectors.size * n_neurons, f"n_neurons = {n_neurons:,}", "choose a smaller one")
        return cls(np.repeat(vectors[:, None], n_neurons, axis=1), *options)

    @classmethod
    def nonrobust_minimum(cls, gamma: float, features: FeaturesLike, n_neurons: int = 1, *, q: int = 3,
                          rho: float = 1.0, backend: Backend = "numba") -> Self:  # fmt: skip
        """w_{i,s} = gamma v_i (Prop. 3.1): fits as gamma grows; the feature swap breaks it.  `features` = (u, v)."""
        return cls._minimum(checks.features(features)[1], gamma, n_neurons, q, rho, backend)

    @classmethod
    def robust_minimum(cls, gamma: float, features: FeaturesLike, n_neurons: int = 1, *, q: int = 3,
                       rho: float = 1.0, backend: Backend = "numba") -> Self:  # fmt: skip
        """w_{i,s} = gamma u_i (Prop. 3.2); robust in the linear part iff P_R (alpha - eps) > P eps."""
        return cls._minimum(checks.features(features)[0], gamma, n_neurons, q, rho, backend)

    def __repr__(self) -> str:
        k, m, d = self.shape
        runs = f"{self.n_runs} runs of " if self.batched else ""
        return f"<PatchCNN: {runs}k={k} m={m} d={d}, q={self.q} rho={self.rho:g}, {self.dtype}, {self.backend}>"

    # -------------------------------------------------------------- shapes
    @property
    def batched(self) -> bool:
        """Whether W has an axis of runs, and so have all answers."""
        return self.W.ndim == 4

    @property
    def weights(self) -> FloatArray:
        """W as (R, k, m, d), a view."""
        return self.W if self.batched else self.W[None]

    @property
    def n_runs(self) -> int:
        """Runs, R; 1 where W has no axis of them."""
        return len(self.weights)

    @property
    def shape(self) -> tuple[int, int, int]:
        """k, m, d."""
        k, m, d = self.W.shape[-3:]
        return k, m, d

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """That of the weights, in which all work is done."""
        return self.W.dtype

    def with_weights(self, W: ArrayLike) -> PatchCNN:
        """The same network with other weights."""
        return PatchCNN(W, self.q, self.rho, self.backend)

    def astype(self, dtype: Dtype) -> PatchCNN:
        """The same network in another dtype; ValueError where a weight or rho is infinite there, or rho is 0."""
        return self.with_weights(checks.cast("W", self.W, checks.precision(dtype)))

    def run(self, r: int) -> PatchCNN:
        """Run `r` of a batch as a network of its own."""
        return self.with_weights(self.weights[checks.integer("r", r, -self.n_runs, self.n_runs - 1)])

    # -------------------------------------------------------------- the model protocol (core/model.py)
    kind, patch_axis = "patch-cnn", 0

    @property
    def capabilities(self) -> frozenset[str]:
        """The loops that the engine does itself, as :class:`advfeat.core.model.Model` lists them."""
        return frozenset({"ascend", "pgd", "train"} | ({"masks"} if self.backend != "numpy" else set()))

    @property
    def n_classes(self) -> int:
        """Classes, k."""
        return self.W.shape[-3]

    @property
    def sample_shape(self) -> tuple[int | None, ...]:
        """(P, d), any number of patches."""
        return None, self.W.shape[-1]

    @property
    def parameters(self) -> dict[str, FloatArray]:
        return {"W": self.W}

    def arrays(self) -> dict[str, Array]:
        return {"W": self.W, "q": np.array(self.q), "rho": np.array(self.rho)}

    @property
    def options(self) -> JsonDict:
        return {"backend": self.backend}

    @classmethod
    def from_arrays(cls, arrays: Arrays, **options: object) -> Self:
        return cls(arrays["W"], int(arrays["q"]), float(arrays["rho"]), **options)

    def fingerprint(self) -> str:
        return store.digest(self.W) + f" q={self.q} rho={self.rho!r} {self.backend}"

    def measured(self, data: Data) -> dict[str, Array]:
        """The correlations with the features u and v, where the data know them."""
        known = data.directions
        return correlations(self, (known["u"], known["v"])) if {"u", "v"} <= set(known) else {}

    def for_verdicts(self) -> PatchCNN:
        """In float64, whatever the dtype of training."""
        return self.astype(np.float64)

    def check(self, X: ArrayLike, y: ArrayLike | None = None) -> tuple[FloatArray, IntArray | None]:
        """X (1 or R, N, P, d) of the network's dtype, y (1 or R, N) int64 or None; errors for anything else."""
        X, y = super().check(X)[0], None if y is None else checks.array("y", y)
        if y is not None and y.ndim == 2 and len(X) == 1 and self.batched:
            X = np.broadcast_to(X, (len(y), *X.shape[1:]))
        return X, None if y is None else checks.labels(y, X, self.n_classes)

    def prepare(self, X: FloatArray, y: IntArray | None = None, active: BoolArray | None = None) -> Batch:
        """The engine's batch of already checked X and y; `active` (R, N) bool picks samples."""
        y = np.zeros((1, X.shape[1]), np.int64) if y is None else y
        return self.engine.pack(X, y, self.n_runs, active)

    def logits_of(self, batch: Batch) -> Float64Array:
        return self.engine.logits(self.weights, batch, self.q, self.rho)

    def pull_back_of(self, batch: Batch, C: FloatArray) -> FloatArray:
        return self.engine.pull_back(self.weights, batch, self.q, self.rho, C)

    def ascend(self, batch: Batch, *args: FloatArray | int) -> FloatArray:
        """Ascent steps in one call of the engine: objective, step and eps (R,), norm, n_steps."""
        return self.engine.ascend(self.weights, batch, self.q, self.rho, *args)

    def pgd(self, batch: Batch, *args: FloatArray | int) -> tuple[FloatArray, Float64Array]:
        """Projected steepest ascent in one call of the engine: objective, step and eps (R,), norm, n_steps, start."""
        return self.engine.pgd(self.weights, batch, self.q, self.rho, *args)

    def train(self, batch: Batch, lr: Float64Array, n_iter: int, *ascent: Float64Array | int) -> IntArray:
        """`n_iter` iterations in one call of the engine; the first whose loss was not finite, else -1, (R,)."""
        return self.engine.train(self.weights, batch, self.q, self.rho, lr, n_iter, *ascent)[1]

    def aligned(self, batch: Batch, *args: FloatArray | IntArray) -> IntArray:
        """The aligned attack's codes in one call of the engine: eps (R,), cross, leaders."""
        return self.engine.aligned(self.weights, batch, self.q, self.rho, *args)

    # -------------------------------------------------------------- answers
    def logits(self, X: ArrayLike) -> Float64Array:
        """F (N, k) or (R, N, k), float64."""
        X, _ = self.check(X)
        return self.drop_runs_axis(self.logits_of(self.prepare(X)))

    def loss(self, X: ArrayLike, y: ArrayLike) -> Share:
        """Cross-entropy mean_n -log softmax(F(X_n))_{y_n}, a float or (R,)."""
        X, y = self.labelled(X, y)
        F = self.logits_of(self.prepare(X))
        return self.drop_runs_axis(formulas.cross_entropy(F, np.broadcast_to(y, F.shape[:2])).mean(axis=1))

    def loss_and_grad(self, X: ArrayLike, y: ArrayLike) -> tuple[Share, FloatArray]:
        """Cross-entropy and its closed-form gradient dL/dW, of W's shape and dtype (Sec. 2.4).

        -grad_{w_{i,s}} L = (1/N) sum_n (1{y_n = i} - logit_i(X_n)) sum_p sigma'(<w_{i,s}, x_{n,p}>) x_{n,p}.
        """
        batch = self.prepare(*self.labelled(X, y))
        loss, gradient = self.engine.loss_and_grad(self.weights, batch, self.q, self.rho)
        return self.drop_runs_axis(loss), self.drop_runs_axis(gradient)

    def input_grad(self, X: ArrayLike, y: ArrayLike, objective: checks.AscentObjective = "cross_entropy") -> FloatArray:
        """grad_X of the per-sample objective (no 1/N), X's shape, for "neg_label_logit" (-F_y), "margin"
        (max_{j != y} F_j - F_y) or "cross_entropy"."""
        checks.choice("objective", objective, checks.OBJECTIVES)
        batch = self.prepare(*self.labelled(X, y))
        out = self.engine.input_grad(self.weights, batch, self.q, self.rho, checks.OBJECTIVES[objective])
        return self.drop_runs_axis(out)

    def pull_back(self, X: ArrayLike, C: ArrayLike) -> FloatArray:
        """sum_i C[n, i] dF_i/dx at x = X_n, of X's shape and the network's dtype; C (N, k) or (R, N, k)."""
        X, _ = self.check(X)
        shape = self.n_runs, X.shape[1], self.n_classes
        C = checks.float64("C", C)
        if C.shape not in (shape, shape[1:]):
            raise ValueError(f"C has shape {C.shape}: must be {shape[1:]}" + f" or {shape}" * self.batched)
        C = checks.cast("C", C, np.float64)
        return self.drop_runs_axis(self.pull_back_of(self.prepare(X), np.broadcast_to(C, shape)))

    def margin(self, X: ArrayLike, y: ArrayLike) -> Float64Array:
        """F_y - max_{j != y} F_j, (N,) or (R, N), float64."""
        X, y = self.labelled(X, y)
        F = self.logits_of(self.prepare(X))
        return self.drop_runs_axis(formulas.margin(F, np.broadcast_to(y, F.shape[:2])))

    def predict(self, X: ArrayLike) -> IntArray:
        """The class with the strictly largest logit, or -1 where the largest is attained twice; (N,) or (R, N)."""
        F = self.logits(X)
        top = F.max(axis=-1, keepdims=True) == F
        return np.where(top.sum(axis=-1) == 1, F.argmax(axis=-1), -1)

    def accuracy(self, X: ArrayLike, y: ArrayLike) -> Share:
        """Share of samples with F_y > max_{j != y} F_j, a float or (R,); a tie is wrong."""
        return (self.margin(X, y) > 0).mean(axis=-1)

    # -------------------------------------------------------------- files
    def save(self, path: str | Path) -> None:
        """Write the weights, q and rho to `path` (.npz), through a temporary file."""
        store.save_npz(path, **self.arrays())

    @classmethod
    def load(cls, path: str | Path, q: int | None = None, rho: float | None = None, backend: Backend = "numba") -> Self:
        """A network from an .npz with ``W`` (k, m, d) or (R, k, m, d), and ``q``, ``rho`` unless given here."""
        W, held = read_weights(path)
        held |= {name: value for name, value in (("q", q), ("rho", rho)) if value is not None}
        for name in ("q", "rho"):
            if name not in held:
                raise ValueError(f"{path}: has no {name!r}, so {name} must be given")
        return cls(W, **held, backend=backend)


def read_weights(path: str | Path) -> tuple[FloatArray, dict[str, float]]:
    """The array ``W`` of an .npz, and those of "q" and "rho" that it holds (`PatchCNN.save` writes all three).

    Raises
    ------
    FileNotFoundError, CheckpointError
        See `store.load_npz`.
    ValueError, TypeError
        No ``W``, or one that is neither float32 nor float64; a q or rho that no activation can have.
    """
    held = store.load_npz(path)
    if "W" not in held:
        raise ValueError(f"{path}: holds {sorted(held)}, but no array 'W' with the weights")
    try:
        numbers = {name: held[name].item() for name in ("q", "rho") if name in held and held[name].size == 1}
        for name in ("q", "rho"):
            if name in held and name not in numbers:
                raise ValueError(f"{name} has shape {held[name].shape}: must be one number")
        if isinstance(numbers.get("q"), float) and numbers["q"].is_integer():
            numbers["q"] = int(numbers["q"])
        SmoothedReLU(**numbers)
        return checks.floats("W", held["W"]), numbers
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from None

"""Networks of layers on images: logits, representations and closed-form gradients in both modes of batch norm."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from typing import Self, cast

import numpy as np
from numpy.typing import ArrayLike

from ..core import checks, memory
from ..core.model import Batch, Model, Prepared
from ..core.types import Arrays, BoolArray, Dtype, Float64Array, FloatArray, IntArray, JsonDict, Slopes
from ..kernels import CROSS_ENTROPY, formulas
from ..kernels.layers import EVALUATE, MODES, TRAIN, LayerBackend, Mode, get_engine
from ..kernels.layers import formulas as layer_formulas
from .initialisation import initialised
from .layers import Builder, Layers, from_json, to_json

CHUNK_BYTES = 2**30  # that images of one pass in evaluation mode may take; no image's answer depends on it


class Network(Model):
    """F(x) = A g(x) + b, g the layers before the last one.

    Parameters
    ----------
    layers : list, dict or Layer
        What happens to an image in turn (:mod:`advfeat.images.layers`); the last one is ``Linear(n_classes)``.
    image_shape : (C, H, W)
    rng : int or Generator
        Draws the initial weights (:func:`initialised`); a seed's stream "init".
    dtype : float32 or float64, of weights, images and gradients.
    box : (lo, hi) or None
        Where images must lie, and attacks stay.
    backend : {"numba", "numpy"}
        The engine (:func:`advfeat.kernels.layers.get_engine`).
    arrays : dict of arrays, optional
        Parameters and running statistics by name, instead of drawn ones; copied.

    Notes
    -----
    Images ``X`` are (N, C, H, W), labels ``y`` (N,), coefficients ``C`` (N, n_classes).  ``mode`` is that of batch
    norm, an argument and no state: in "evaluate" every image is answered by itself, in "train" with the statistics of
    its batch, so that an image's answer and gradient hang on the others.

    Raises
    ------
    ValueError, TypeError
        For layers that do not fit, images of another shape, outside `box` or not finite, labels out of range, and
        "train" where a batch norm would see a single number; before any work.
    MemoryError
        Where a pass needs more than is free (:meth:`memory`).
    """

    kind = "layers"

    def __init__(
        self,
        layers: Layers,
        image_shape: tuple[int, int, int],
        *,
        rng: int | np.random.Generator = 0,
        dtype: Dtype = "float32",
        box: tuple[float, float] | None = (0.0, 1.0),
        backend: LayerBackend = "numba",
        arrays: Arrays | None = None,
    ):
        dtype = checks.precision(dtype)
        if not isinstance(image_shape, (*checks.SEQUENCES,)) or len(image_shape) != 3:
            raise ValueError(f"image_shape = {checks.shown(image_shape)}: must be (channels, height, width)")
        self.sample_shape = tuple(checks.integer("image_shape", n, 1) for n in image_shape)
        build = Builder(self.sample_shape)
        build.add(layers, 0)
        self.layers, self.program = layers, build.program()
        self.dtype: np.dtype[np.floating] = dtype
        self.backend, self.engine = backend, get_engine(backend)(self.program)
        self.n_classes = self.program.shapes[-1][0]
        self.box = None if box is None else checks.box(box)
        if arrays is None:
            need = sum(int(np.prod(shape)) for shape in self.shapes.values()) * (self.dtype.itemsize + 8)
            memory.require(need, f"a network of {self.n_parameters:,} parameters", "choose a smaller width or depth")
            arrays = initialised(self.program, rng)
        self._arrays = self.fitting(arrays)

    def fitting(self, arrays: Arrays) -> dict[str, FloatArray]:
        """Copies of arrays in the network's dtype; ValueError, naming what differs, where others are needed."""
        missing, foreign = sorted(self.shapes.keys() - arrays.keys()), sorted(arrays.keys() - self.shapes.keys())
        said = [f"{what} {', '.join(names[:3])}" + f" and {len(names) - 3} more" * (len(names) > 3)
                for what, names in (("it lacks", missing), ("it has no place for", foreign)) if names]  # fmt: skip
        common = [(name, np.shape(arrays[name]), shape) for name, shape in self.shapes.items() if name in arrays]
        said += [f"{name} has shape {given}, and not {shape}" for name, given, shape in common if given != shape][:3]
        if said:
            raise ValueError(f"arrays: do not fit this network, {'; '.join(said)}")
        given = {name: np.array(checks.floats(name, arrays[name])) for name in self.shapes}
        held = {name: checks.cast(name, a, self.dtype) for name, a in given.items()}
        for name, a in held.items():
            if name.endswith("running_var") and (a < 0).any():
                raise ValueError(f"{name} holds {a.min():.3g}: a variance must be >= 0")
        return held

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.sample_shape))
        return f"<Network: {shape} -> {self.n_classes}, {self.n_parameters:,} parameters, {self.dtype}, {self.backend}>"

    # -------------------------------------------------------------- sizes
    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all arrays by name: parameters, then running statistics."""
        return self.program.parameters | self.program.statistics

    @cached_property
    def n_parameters(self) -> int:
        """How many numbers training moves."""
        return sum(int(np.prod(shape)) for shape in self.program.parameters.values())

    def plan(self, n: int) -> list[tuple[str, str]]:
        """Which kernel each layer has in a pass over n images: rows (layer, kernel)."""
        return self.engine.plan(checks.integer("n", n, 1), self.dtype.itemsize)

    def memory(self, n: int, mode: Mode = TRAIN, gradient: bool = True) -> int:
        """About how many bytes a pass over n images takes beside weights and images, with or without its gradient.

        In evaluation mode many images are worked on in parts, of a gigabyte where one image needs no more.
        """
        checks.choice("mode", mode, MODES)
        checks.integer("n", n, 1)
        size = min(n, self._part(n, mode, gradient))
        parameters = self.n_parameters * self.dtype.itemsize * gradient
        return self.engine.memory(size, self.dtype.itemsize, gradient) + parameters

    # -------------------------------------------------------------- the model protocol (core/model.py)
    @property
    def parameters(self) -> dict[str, FloatArray]:
        return {name: self._arrays[name] for name in self.program.parameters}

    @property
    def statistics(self) -> dict[str, FloatArray]:
        """Batch norm's running means and variances by name, which `loss_and_grad` changes in place."""
        return {name: self._arrays[name] for name in self.program.statistics}

    def arrays(self) -> dict[str, FloatArray]:
        return dict(self._arrays)

    @property
    def options(self) -> JsonDict:
        box = None if self.box is None else list(self.box)
        return {"layers": to_json(self.layers), "image_shape": list(self.sample_shape), "box": box,
                "backend": self.backend}  # fmt: skip

    @classmethod
    def from_options(cls, *, layers: object, **rest: object) -> Self:
        """A network of `options`, with initial weights or, in `rest`, others of the constructor's arguments."""
        return cls(from_json(layers), **rest)

    @classmethod
    def from_arrays(cls, arrays: Arrays, **options: object) -> Self:
        return cls.from_options(arrays=arrays, dtype=next((a.dtype for a in arrays.values()), "float32"), **options)

    def astype(self, dtype: Dtype) -> Network:
        """The same network in another dtype."""
        return Network.from_options(arrays=self._arrays, dtype=dtype, **self.options)

    def fingerprint(self) -> str:
        return f"{super().fingerprint()} {json.dumps(self.options)}"

    def check(self, X: ArrayLike, y: ArrayLike | None = None) -> tuple[FloatArray, IntArray | None]:
        """X (1, N, C, H, W) of the network's dtype, y (1, N) int64 or None; errors for anything else."""
        X, y = super().check(X, y)
        if self.box is not None and (X.min() < self.box[0] or X.max() > self.box[1]):
            reach = f"from {X.min():.6g} to {X.max():.6g}"
            raise ValueError(f"X reaches {reach}: images must lie in [{self.box[0]:g}, {self.box[1]:g}]")
        return X, y

    def logits_of(self, batch: Batch) -> Float64Array:
        batch = cast(Prepared, batch)
        F = np.full((1, *batch.active.shape[1:], self.n_classes), np.nan)
        if batch.active.any():
            F[batch.active] = self._value(_picked(batch), EVALUATE, self.program.logits)
        return F

    def pull_back_of(self, batch: Batch, C: FloatArray) -> FloatArray:
        batch = cast(Prepared, batch)
        out = np.zeros(batch.X.shape, self.dtype)
        if batch.active.any():
            out[batch.active] = self._pulled(_picked(batch), C[batch.active], EVALUATE, self.program.logits)[0]
        return out

    def logits_and_pull_back_of(self, batch: Batch, coefficients: Slopes) -> tuple[Float64Array, FloatArray]:
        batch = cast(Prepared, batch)
        if not batch.active.all():
            return super().logits_and_pull_back_of(batch, coefficients)
        F, pulled = self._both(batch.X[0], self.program.logits, coefficients)
        return F.astype(np.float64)[None], pulled[None]

    def in_mode(self, mode: Mode, update_statistics: bool = False) -> Model:
        """The same network, its arrays shared, as it answers in one mode: attacks on it craft in that mode.

        `update_statistics`: in training mode every pass moves the running statistics.
        """
        return self if checks.choice("mode", mode, MODES) == EVALUATE else InTraining(self, update_statistics)

    # -------------------------------------------------------------- answers
    def logits(self, X: ArrayLike, mode: Mode = EVALUATE) -> FloatArray:
        """F (N, n_classes), of the network's dtype."""
        return self._value(self.check(X)[0][0], mode, self.program.logits)

    def right(self, X: ArrayLike, y: ArrayLike) -> BoolArray:
        """Whether F_y is strictly the largest logit, (N,) bool."""
        F = self.logits(X).astype(np.float64)
        return formulas.margin(F[None], np.asarray(y)[None])[0] > 0

    def representation(self, X: ArrayLike, mode: Mode = EVALUATE) -> FloatArray:
        """g(X) (N, E): what enters the last linear layer, taken flat."""
        return self._value(self.check(X)[0][0], mode, self.program.representation).reshape(len(X), -1)

    def pull_back(self, X: ArrayLike, C: ArrayLike, mode: Mode = EVALUATE) -> FloatArray:
        """d/dX of sum_{n, i} C[n, i] F_i(x_n), of X's shape; in evaluation mode sum_i C[n, i] dF_i/dx at x_n."""
        X, C = self.check(X)[0][0], self._coefficients(C, X, self.n_classes)
        return self._pulled(X, C, mode, self.program.logits)[0]

    def pull_back_representation(self, X: ArrayLike, C: ArrayLike, mode: Mode = EVALUATE) -> FloatArray:
        """d/dX of sum_{n, e} C[n, e] g_e(x_n), of X's shape; C (N, E)."""
        X, last = self.check(X)[0][0], self.program.representation
        shape = self.program.shapes[last]
        C = self._coefficients(C, X, int(np.prod(shape)))
        return self._pulled(X, C.reshape(len(X), *shape), mode, last)[0]

    def representation_and_pull_back(
        self, X: ArrayLike, coefficients: Slopes, straight_through: bool = False
    ) -> tuple[Float64Array, FloatArray]:
        """g(X) (N, E) float64, and d/dX of sum_{n, e} C[n, e] g_e(x_n) with C = coefficients(g, slice of the images),
        which gets g of a part of them at a time; in evaluation mode and one pass.

        `straight_through`: the gradient goes through the last ReLU, in front of the pool, as if it were the identity,
        so that features that are 0 have one too.  ValueError where the last layers are not a ReLU and a pool.
        """
        X, last = self.check(X)[0][0], self.program.representation
        shape = self.program.shapes[last]
        if not straight_through:
            g, pulled = self._both(X, last, lambda g, part: coefficients(
                g.reshape(g.shape[1], -1), part).reshape(1, -1, *shape))  # fmt: skip
            return g.reshape(len(X), -1).astype(np.float64), pulled
        relu, pool = self.program.operations[last - 2 : last] if last > 1 else (None, None)
        if last < 2 or (relu.kind, pool.kind) != ("relu", "sum_pool") or pool.inputs[0] != last - 1:
            raise ValueError("straight_through = True: the last layers of this network are not a ReLU and a pool")
        sides, size, scale = self.program.shapes[last - 1][1:], pool.options["size"], pool.options["scale"]
        found = np.empty((len(X), int(np.prod(shape))))

        def through(z, part):
            open_ = layer_formulas.relu(z[0], relu.options["q"], relu.options["rho"])
            found[part] = (layer_formulas.sum_pool(open_, size) * scale).reshape(len(open_), -1)
            C = coefficients(found[part], part).reshape(-1, *shape)
            return layer_formulas.sum_pool_gradient(C, sides, size)[None] * scale

        pulled = self._both(X, relu.inputs[0], through)[1]
        return found, pulled

    def weights_grad(self, X: ArrayLike, C: ArrayLike, mode: Mode = TRAIN) -> dict[str, FloatArray]:
        """The gradient of sum_{n, i} C[n, i] F_i(x_n) by every parameter, by name; running statistics stay.

        Any objective J(F_1 ... F_N) has this gradient for C = dJ/dF (TRADES, distillation).
        """
        X, C = self.check(X)[0][0], self._coefficients(C, X, self.n_classes)
        return self._pulled(X, C, mode, self.program.logits, inputs=False, parameters=True)[1]

    def logits_and_weights_grad(
        self, X: ArrayLike, coefficients: Callable[[Float64Array], ArrayLike]
    ) -> tuple[Float64Array, dict[str, FloatArray]]:
        """F (N, k) float64 in training mode, and the gradient by every parameter of sum C F with C = coefficients(F);
        running statistics move towards the batch's."""
        X = self.check(X)[0][0]
        self.reserve(len(X))
        passed = self.engine.forward(self._arrays, X, TRAIN, keep=True)
        F = passed.values[-1].astype(np.float64)
        C = np.asarray(coefficients(F), self.dtype)
        gradients = self.engine.backward(self._arrays, passed, C, inputs=False)[1]
        self._update(passed.statistics, len(X))
        return F, gradients

    def loss_and_grad(
        self, X: ArrayLike, y: ArrayLike, mode: Mode = TRAIN, update_statistics: bool | None = None
    ) -> tuple[float, dict[str, FloatArray]]:
        """The mean cross-entropy, a float, and its gradient by every parameter, by name.

        `update_statistics` moves the running statistics towards the batch's; by default in training mode, and only
        there it can.
        """
        X, y = (a[0] for a in self.labelled(X, y))
        update = mode == TRAIN if update_statistics is None else checks.choice(
            "update_statistics", update_statistics, (True, False))  # fmt: skip
        if update and mode != TRAIN:
            raise ValueError('update_statistics = True: only in mode = "train", which has the batch\'s statistics')
        losses, total = [], {}
        for part in self._parts(X, mode, True):
            passed = self.engine.forward(self._arrays, X[part], mode, keep=True)
            F = passed.values[-1].astype(np.float64)
            losses.append(formulas.cross_entropy(F, y[part]))
            G = (formulas.objective_gradient(F, y[part], CROSS_ENTROPY) / len(X)).astype(self.dtype)
            found = self.engine.backward(self._arrays, passed, G, inputs=False)[1]
            total = {name: total[name] + g for name, g in found.items()} if total else found
        if update:
            self._update(passed.statistics, len(X))
        return float(np.concatenate(losses).mean()), total

    # -------------------------------------------------------------- passes
    def _coefficients(self, C, X, width: int) -> np.ndarray:
        C = checks.float64("C", C)
        if C.shape != (len(X), width):
            raise ValueError(f"C has shape {C.shape}: must be {(len(X), width)}")
        return checks.cast("C", C, self.dtype)

    def reserve(self, n: int, mode: Mode = TRAIN, gradient: bool = True) -> None:
        """Raise ValueError or MemoryError where a pass over n images cannot be, before any work."""
        need = self.memory(n, mode, gradient)
        for number, operation in enumerate(self.program.operations if mode == TRAIN and n == 1 else ()):
            if operation.kind == "batch_norm" and np.prod(self.program.shapes[number + 1][1:]) == 1:
                name = operation.arrays[0].removesuffix(".weight")
                rule = 'in mode = "train" batch norm needs two numbers per channel; give more images'
                raise ValueError(f"X is one image, of which {name} sees one pixel: {rule}")
        if need > CHUNK_BYTES:
            what = f"a pass over {n if mode == TRAIN else 1} images of {self.sample_shape} in mode {mode!r}"
            memory.require(need, what, "give fewer images at a time, or a narrower network")

    def _part(self, n: int, mode: str, gradient: bool) -> int:
        """How many images are worked on at once: all of them in training mode, else what CHUNK_BYTES hold."""
        if mode == TRAIN:
            return n
        one, two = (self.engine.memory(k, self.dtype.itemsize, gradient) for k in (1, 2))
        return max(1 + (CHUNK_BYTES - one) // (two - one), 1)  # weights are there once

    def _parts(self, X, mode: str, gradient: bool) -> list[slice]:
        self.reserve(len(X), mode, gradient)
        size = self._part(len(X), mode, gradient)
        return [slice(lo, lo + size) for lo in range(0, len(X), size)]

    def _value(self, X, mode, last) -> np.ndarray:
        """The value `last` of checked images (N, C, H, W)."""
        parts = self._parts(X, mode, False)
        if mode == EVALUATE and (found := self.engine.apart(self._arrays, X, last)):
            return found[0]
        return np.concatenate([self.engine.forward(self._arrays, X[p], mode, last).values[-1] for p in parts])

    def _pulled(self, X, C, mode, last, inputs=True, parameters=False):
        """(d/dX, d/d parameters) of sum C times the value `last`."""
        images, total, parts = [], {}, self._parts(X, mode, True)
        if mode == EVALUATE and inputs and not parameters:
            found = self.engine.apart(self._arrays, X, last, lambda F, some: C[None, some])
            if found:
                return found[1], {}
        for part in parts:
            passed = self.engine.forward(self._arrays, X[part], mode, last, keep=True)
            C_part = C[part].astype(self.dtype, copy=False)
            dX, found = self.engine.backward(self._arrays, passed, C_part, inputs, parameters)
            images.append(dX)
            total = {name: total[name] + g for name, g in found.items()} if total else found
        return np.concatenate(images) if inputs else None, total

    def _both(self, X, last, coefficients):
        """The value `last` of images (N, C, H, W), and d/dX of sum C times it with C = coefficients(value (1, n, ...)
        float64, slice of the images); in evaluation mode."""
        parts = self._parts(X, EVALUATE, True)
        if found := self.engine.apart(self._arrays, X, last, coefficients):
            return found
        values, images = [], []
        for part in parts:
            passed = self.engine.forward(self._arrays, X[part], EVALUATE, last, keep=True)
            values.append(np.array(passed.values[-1]))
            C = np.asarray(coefficients(values[-1].astype(np.float64)[None], part)[0], self.dtype)
            images.append(self.engine.backward(self._arrays, passed, C, parameters=False)[0])
        return np.concatenate(values), np.concatenate(images)

    def _at_once(self, X, mode, coefficients=None):
        """F (1, N, k) float64 of images in one pass, what C = coefficients(F) pulls back to them, batch statistics."""
        self.reserve(len(X), mode, coefficients is not None)
        passed = self.engine.forward(self._arrays, X, mode, keep=coefficients is not None)
        F, dX = passed.values[-1].astype(np.float64)[None], None
        if coefficients is not None:
            C = np.asarray(coefficients(F, slice(None))[0], self.dtype)
            dX = self.engine.backward(self._arrays, passed, C, parameters=False)[0][None]
        return F, dX, passed.statistics

    def _update(self, statistics, n: int) -> None:
        """Move the running statistics towards those of a batch of n images, in place."""
        for number, batch in statistics.items():
            operation = self.program.operations[number]
            count = n * int(np.prod(self.program.shapes[number + 1][1:]))
            running = [self._arrays[name] for name in operation.arrays[2:]]
            moved = self.engine.running_statistics(running, batch, count, operation.options["momentum"])
            for held, new in zip(running, moved):
                held[...] = new


class InTraining(Network):
    """A network as it answers in training mode: every image with its batch, whether it is worked on or not.

    It shares all arrays with the network that it is a view of.
    """

    def __init__(self, net: Network, update_statistics: bool = False):
        self.__dict__.update(vars(net))
        self.updates = checks.choice("update_statistics", update_statistics, (True, False))

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, in training mode>"

    def logits(self, X: ArrayLike, mode: Mode = TRAIN) -> FloatArray:
        return super().logits(X, mode)

    def representation(self, X: ArrayLike, mode: Mode = TRAIN) -> FloatArray:
        return super().representation(X, mode)

    def pull_back(self, X: ArrayLike, C: ArrayLike, mode: Mode = TRAIN) -> FloatArray:
        return super().pull_back(X, C, mode)

    def pull_back_representation(self, X: ArrayLike, C: ArrayLike, mode: Mode = TRAIN) -> FloatArray:
        return super().pull_back_representation(X, C, mode)

    def logits_of(self, batch: Batch) -> Float64Array:
        return self._masked(batch, None)[0]

    def pull_back_of(self, batch: Batch, C: FloatArray) -> FloatArray:
        return self._masked(batch, lambda F, some: C[:, some], updates=False)[1]

    def logits_and_pull_back_of(self, batch: Batch, coefficients: Slopes) -> tuple[Float64Array, FloatArray]:
        return self._masked(batch, coefficients)

    def _masked(self, batch, coefficients, updates=True):
        F, pulled, statistics = self._at_once(batch.X[0], TRAIN, coefficients)
        if updates and self.updates:
            self._update(statistics, batch.X.shape[1])
        on = batch.active[..., None]
        return np.where(on, F, np.nan), None if pulled is None else np.where(on[..., None, None], pulled, 0)


def _picked(batch: Prepared) -> FloatArray:
    """The active images (N, C, H, W)."""
    return batch.X[0] if batch.active.all() else batch.X[batch.active]

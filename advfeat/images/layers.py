"""Layers as they are written down, and the program that a list of them makes.

A network is a list of layers and blocks; a block is a list of layers, or a dictionary where they shall have names of
their own.  Whoever composes a block writes no gradient: engines know those of the layers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

from ..core import checks
from ..kernels.layers import Operation, Program
from ..kernels.layers.formulas import side


class Builder:
    """Takes layers one by one and writes the program down; `shapes` are those of the values so far."""

    def __init__(self, image_shape: tuple[int, int, int]):
        self.shapes: list[tuple[int, ...]] = [tuple(image_shape)]
        self.operations: list[Operation] = []
        self.parameters: dict[str, tuple[int, ...]] = {}
        self.statistics: dict[str, tuple[int, ...]] = {}

    def add(self, layers: Layers, value: int, name: str = "") -> int:
        """Layers behind `value`; the number of the last one's value."""
        if isinstance(layers, Layer):
            return layers.add(self, value, name)
        for own, layer in named(layers, name):
            value = self.add(layer, value, f"{name}.{own}" if name and own else name or own)
        return value

    def put(
        self,
        kind: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        name: str = "",
        parameters: Mapping[str, tuple[int, ...]] | None = None,
        statistics: Mapping[str, tuple[int, ...]] | None = None,
        **options: object,
    ) -> int:
        """One operation and the shapes of its arrays, whose names begin with its own; the number of its value."""
        taken = [self.held(name, of) for of in (parameters or {}, statistics or {})]
        for known, new in zip((self.parameters, self.statistics), taken):
            known |= new
        self.operations.append(Operation(kind, tuple(inputs), (*taken[0], *taken[1]), options))
        self.shapes.append(tuple(shape))
        return len(self.operations)

    def held(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        found = {f"{name}.{own}" if name else own: shape for own, shape in shapes.items()}
        if twice := sorted(found.keys() & (self.parameters.keys() | self.statistics.keys())):
            raise ValueError(f"layers: two arrays would be called {twice[0]!r}; name the layers apart")
        return found

    def image(self, value: int, name: str) -> tuple[int, int, int]:
        """C, H, W of a value; ValueError where it is no image any more."""
        if len(self.shapes[value]) != 3:
            raise ValueError(f"{name or 'layers'}: needs channels and pixels, but comes behind {self.shapes[value]}")
        C, H, W = self.shapes[value]
        return C, H, W

    def program(self) -> Program:
        """ValueError where the last layer is not linear, with two answers at least."""
        last = self.operations[-1] if self.operations else None
        if last is None or last.kind != "linear" or self.shapes[-1][0] < 2:
            raise ValueError("layers: the last one must be Linear(n_classes) with n_classes >= 2")
        arrays = dict(self.parameters), dict(self.statistics)
        return Program(tuple(self.operations), tuple(self.shapes), *arrays, last.inputs[0])


def named(layers: Layers, name: str) -> list[tuple[str, Layers]]:
    """Names and layers of a block; TypeError where it is none."""
    if isinstance(layers, Mapping):
        return list(layers.items())
    if isinstance(layers, (list, tuple)):
        return [(str(i), layer) for i, layer in enumerate(layers)]
    raise TypeError(f"{name or 'layers'}: is a {type(layers).__name__}: must be a layer, a list or a dictionary")


# ------------------------------------------------------------------ the layers
class Layer(ABC):
    """One layer; `add` writes it down behind a value and returns its own value's number."""

    @abstractmethod
    def add(self, build: Builder, value: int, name: str) -> int:
        """Put this layer behind `value` of the program being built; the number of its own value."""


#: Layers in turn: one, a list of them, or a dictionary where they shall have names of their own.
Layers: TypeAlias = Layer | Sequence["Layers"] | Mapping[str, "Layers"]


@dataclass(frozen=True)
class Convolution(Layer):
    """z[o, i, j] = sum_{c, a, b} v[o, c, a, b] x[c, s i + a - p, s j + b - p], plus a bias per channel if asked for.

    `channels` of the answer, odd `kernel` side, `stride`, and as much padding with zeros as keeps the sides at
    stride 1, unless `padding` says how much.  Weights "weight" (channels, C, kernel, kernel), "bias" (channels,).
    """

    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int | None = None
    bias: bool = False

    def __post_init__(self) -> None:
        for field, value in (("channels", self.channels), ("kernel", self.kernel), ("stride", self.stride)):
            checks.integer(field, value, 1)
        if self.padding is not None:
            checks.integer("padding", self.padding, 0)
        checks.truth("bias", self.bias)

    def add(self, build: Builder, value: int, name: str) -> int:
        C, H, W = build.image(value, name)
        padding = self.kernel // 2 if self.padding is None else self.padding
        h, w = (side(n, self.kernel, self.stride, padding) for n in (H, W))
        if min(h, w) < 1:
            raise ValueError(f"{name}: a window of {self.kernel} x {self.kernel} is larger than an image of {H} x {W}")
        shapes = {"weight": (self.channels, C, self.kernel, self.kernel)}
        if self.bias:
            shapes["bias"] = (self.channels,)
        options = {"stride": self.stride, "padding": padding}
        return build.put("convolution", [value], (self.channels, h, w), name, shapes, **options)


@dataclass(frozen=True)
class BatchNorm(Layer):
    """z = weight (x - mean) / sqrt(variance + eps) + bias per channel: the batch's mean and biased variance in training
    mode, running ones in evaluation mode, which move by the share `momentum` towards the batch's (variance unbiased).

    Arrays "weight", "bias", "running_mean", "running_var" (C,).  Ioffe & Szegedy 2015; defaults are PyTorch's.
    """

    eps: float = 1e-5
    momentum: float = 0.1
    trained, running = ("weight", "bias"), ("running_mean", "running_var")

    def __post_init__(self) -> None:
        checks.number("eps", self.eps, above=0)
        if checks.number("momentum", self.momentum, low=0) > 1:
            raise ValueError(f"momentum = {self.momentum!r}: must be <= 1")

    def add(self, build: Builder, value: int, name: str) -> int:
        C = build.image(value, name)[0]
        trained, running = (dict.fromkeys(names, (C,)) for names in (self.trained, self.running))
        options = {"eps": float(self.eps), "momentum": float(self.momentum)}
        return build.put("batch_norm", [value], build.shapes[value], name, trained, running, **options)


@dataclass(frozen=True)
class ReLU(Layer):
    """max(z, 0); with q >= 2 the paper's smoothed ReLU of degree q and threshold rho, whose degree 1 is the ReLU."""

    q: int = 1
    rho: float = 1.0

    def __post_init__(self) -> None:
        checks.degree(self.q, 1)
        checks.number("rho", self.rho, above=0)

    def add(self, build: Builder, value: int, name: str) -> int:
        return build.put("relu", [value], build.shapes[value], q=int(self.q), rho=float(self.rho))


@dataclass(frozen=True)
class Normalise(Layer):
    """z = (x - mean) / deviation with fixed numbers, one per channel; images and perturbations stay in [0, 1]."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __post_init__(self) -> None:
        for field, rule in (("mean", {}), ("deviation", {"above": 0})):
            given = checks.instance(field, getattr(self, field), checks.SEQUENCES, "numbers, one per channel")
            held = tuple(checks.number(field, one, **rule) for one in given)
            object.__setattr__(self, field, held)

    def add(self, build: Builder, value: int, name: str) -> int:
        C = build.image(value, name)[0]
        for field in ("mean", "deviation"):
            if len(getattr(self, field)) != C:
                raise ValueError(f"{name}: {field} has {len(getattr(self, field))} numbers for {C} channels")
        return build.put("normalise", [value], build.shapes[value], mean=self.mean, deviation=self.deviation)


class _Pool(Layer):
    """Sums or means over windows of `size` x `size` that do not overlap, or over all pixels."""

    average: bool
    size: int | None

    def __post_init__(self) -> None:
        if self.size is not None:
            checks.integer("size", self.size, 1)

    def add(self, build: Builder, value: int, name: str) -> int:
        C, H, W = build.image(value, name)
        if self.size is not None and (H % self.size or W % self.size):
            raise ValueError(f"{name}: windows of {self.size} x {self.size} do not fill an image of {H} x {W}")
        count = H * W if self.size is None else self.size**2
        shape = (C,) if self.size is None else (C, H // self.size, W // self.size)
        return build.put("sum_pool", [value], shape, size=self.size, scale=1 / count if self.average else 1.0)


@dataclass(frozen=True)
class AveragePool(_Pool):
    """Means over windows of `size` x `size` that do not overlap, or over all pixels, which leaves a vector (C,)."""

    size: int | None = None
    average = True


@dataclass(frozen=True)
class SumPool(_Pool):
    """Sums over windows of `size` x `size` that do not overlap, or over all pixels, which leaves a vector (C,)."""

    size: int | None = None
    average = False


@dataclass(frozen=True)
class Linear(Layer):
    """z_i = sum_e a[i, e] x_e + b_i of everything before, taken flat; "weight" (n, E), "bias" (n,) unless False."""

    n: int
    bias: bool = True

    def __post_init__(self) -> None:
        checks.integer("n", self.n, 1)
        checks.truth("bias", self.bias)

    def add(self, build: Builder, value: int, name: str) -> int:
        E = 1
        for size in build.shapes[value]:
            E *= size
        shapes = {"weight": (self.n, E)} | ({"bias": (self.n,)} if self.bias else {})
        return build.put("linear", [value], (self.n,), name, shapes)


@dataclass(frozen=True)
class Residual(Layer):
    """body(x) + shortcut(x); without a shortcut body(x) + x.  Both must give the same shape.

    A shortcut without names of its own is called "shortcut".
    """

    body: Layers
    shortcut: Layers = ()

    def add(self, build: Builder, value: int, name: str) -> int:
        shortcut = self.shortcut
        if isinstance(shortcut, (Layer, list, tuple)) and shortcut:  # else the names of both sides begin alike
            shortcut = {"shortcut": shortcut}
        ends = [build.add(layers, value, name) for layers in (self.body, shortcut)]
        shapes = [build.shapes[end] for end in ends]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{name or 'layers'}: the body gives {shapes[0]}, but the shortcut {shapes[1]}")
        return build.put("add", ends, shapes[0])


KINDS = {one.__name__: one for one in (AveragePool, BatchNorm, Convolution, Linear, Normalise, ReLU, SumPool)}


# ------------------------------------------------------------------ as JSON
def to_json(layers, name: str = ""):
    """Layers as JSON holds them: [kind, options], a residual [kind, body, shortcut], a block [[name, layer], ...]."""
    if isinstance(layers, Residual):
        return ["Residual", to_json(layers.body, name), to_json(layers.shortcut, name)]
    if type(layers) in KINDS.values():
        return [type(layers).__name__, asdict(layers)]
    if isinstance(layers, Layer):
        raise TypeError(f"{name}: a {type(layers).__name__} is not of advfeat, and cannot be stored")
    return [[own, to_json(layer, own)] for own, layer in named(layers, name)]


def from_json(value):
    """The way back; ValueError for what `to_json` cannot have made."""
    try:
        if value and value[0] == "Residual":
            return Residual(from_json(value[1]), from_json(value[2]))
        if value and isinstance(value[0], str):
            return KINDS[value[0]](**value[1])
        return {pair[0]: from_json(pair[1]) for pair in value}
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"layers = {value!r:.60}: no layers of advfeat ({error})") from None

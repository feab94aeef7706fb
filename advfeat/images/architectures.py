"""Networks by name: residual networks in the two forms of the paper's Sec. 6.2, and a small one without residuals.

The arrays' names are those of the public implementations (:mod:`advfeat.images.exchange`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, TypedDict, Unpack

import numpy as np

from ..core import checks
from ..core.types import Arrays, Dtype
from ..kernels.layers import LayerBackend
from .layers import AveragePool, BatchNorm, Convolution, Layer, Layers, Linear, ReLU, Residual
from .network import Network

PLAIN = ReLU()
Shape: TypeAlias = tuple[int, int, int]  # C, H, W


class Options(TypedDict, total=False):
    """Arguments of :class:`Network` that the architectures hand on."""

    rng: int | np.random.Generator
    dtype: Dtype
    box: tuple[float, float] | None
    backend: LayerBackend
    arrays: Arrays | None


def ResNet18(width: int = 64, image_shape: Shape = (3, 32, 32), n_classes: int = 10, *, activation: ReLU = PLAIN,
             before: Sequence[Layer] = (), **options: Unpack[Options]) -> Network:  # fmt: skip
    """The residual network of He et al. 2016 in its form for small images: a 3x3 stem, no pooling behind it.

    Four stages of two basic blocks with width, 2, 4 and 8 times as many channels; stride 2 at stages 2 to 4 (sides
    ceil(H / 2)); a 1x1 projection where shapes change; global average pool; linear layer.  `activation`: a ReLU,
    smoothed or not; `before`: layers that images go through first, as Normalise; `options` of :class:`Network`.
    """
    w = checks.integer("width", width, 1)
    layers = {"": _first(before, activation), "conv1": Convolution(w), "bn1": BatchNorm(), "relu": activation}
    channels = w
    for stage in (1, 2, 3, 4):
        out, found = w * 2 ** (stage - 1), []
        for i in (0, 1):
            stride = 2 if stage > 1 and i == 0 else 1
            found.append(basic_block(out, stride, stride > 1 or channels != out, activation))
            channels = out
        layers[f"layer{stage}"] = found
    return Network(layers | {"avgpool": AveragePool(), "fc": _last(n_classes)}, image_shape, **options)


def basic_block(channels: int, stride: int = 1, changes: bool = False, activation: ReLU = PLAIN) -> dict[str, Layers]:
    """relu(BN(conv(relu(BN(conv x)))) + x), x through a 1x1 projection with BN where the shape changes."""
    body = {"conv1": Convolution(channels, stride=stride), "bn1": BatchNorm(), "relu1": activation,
            "conv2": Convolution(channels), "bn2": BatchNorm()}  # fmt: skip
    projection = {"downsample": [Convolution(channels, 1, stride), BatchNorm()]} if changes else ()
    return {"": Residual(body, projection), "relu2": activation}


def PreActResNet18(width: int = 64, image_shape: Shape = (3, 32, 32), n_classes: int = 10, *, activation: ReLU = PLAIN,
                   before: Sequence[Layer] = (), **options: Unpack[Options]) -> Network:  # fmt: skip
    """ResNet18 with batch norm and ReLU before each convolution (He et al. 2016b), and once more before the pool.

    The shortcut branches off behind a block's first BN and ReLU where shapes change.  Parameters as of `ResNet18`.
    """
    w = checks.integer("width", width, 1)
    layers, channels = {"": _first(before, activation), "conv1": Convolution(w)}, w
    for stage in (1, 2, 3, 4):
        out, found = w * 2 ** (stage - 1), []
        for i in (0, 1):
            stride = 2 if stage > 1 and i == 0 else 1
            found.append(preactivation_block(out, stride, stride > 1 or channels != out, activation=activation))
            channels = out
        layers[f"layer{stage}"] = found
    layers |= {"bn": BatchNorm(), "relu": activation, "avgpool": AveragePool(), "linear": _last(n_classes)}
    return Network(layers, image_shape, **options)


def preactivation_block(channels: int, stride: int = 1, changes: bool = False, shortcut: str = "shortcut.0",
                        activation: ReLU = PLAIN) -> dict[str, Layers]:  # fmt: skip
    """conv(relu(BN(conv a))) + x with a = relu(BN x); where the shape changes a 1x1 convolution of a stands for x."""
    start = {"bn1": BatchNorm(), "relu1": activation}
    body = {"conv1": Convolution(channels, stride=stride), "bn2": BatchNorm(), "relu2": activation,
            "conv2": Convolution(channels)}  # fmt: skip
    if changes:
        return start | {"": Residual(body, {shortcut: Convolution(channels, 1, stride)})}
    return {"": Residual(start | body)}


def WideResNet(depth: int = 34, widen: int = 10, image_shape: Shape = (3, 32, 32), n_classes: int = 10, *,
               activation: ReLU = PLAIN, before: Sequence[Layer] = (),
               **options: Unpack[Options]) -> Network:  # fmt: skip
    """The wide residual network of Zagoruyko & Komodakis 2016, WRN-depth-widen; depth = 6 n + 4.

    A 3x3 stem of 16 channels, three stages of n pre-activation blocks with 16, 32 and 64 times `widen` channels,
    stride 2 at stages 2 and 3; batch norm and ReLU; global average pool; linear layer.  No dropout.  Other parameters
    as of `ResNet18`.
    """
    if checks.integer("depth", depth, 10) % 6 != 4:
        raise ValueError(f"depth = {depth!r}: must be 6 n + 4 with n >= 1 blocks a stage: 10, 16, 22, 28, 34, ...")
    layers, channels = {"": _first(before, activation), "conv1": Convolution(16)}, 16
    for stage in (1, 2, 3):
        out, found = 16 * 2 ** (stage - 1) * checks.integer("widen", widen, 1), []
        for i in range((depth - 4) // 6):
            stride = 2 if stage > 1 and i == 0 else 1
            found.append(preactivation_block(out, stride, channels != out, "convShortcut", activation))
            channels = out
        layers[f"block{stage}"] = {"layer": found}
    layers |= {"bn1": BatchNorm(), "relu": activation, "avgpool": AveragePool(), "fc": _last(n_classes)}
    return Network(layers, image_shape, **options)


def ConvNet(width: int = 16, image_shape: Shape = (1, 28, 28), n_classes: int = 10, *, stages: int = 3,
            activation: ReLU = PLAIN, before: Sequence[Layer] = (), **options: Unpack[Options]) -> Network:  # fmt: skip
    """Convolutions in a row: `stages` of conv, BN, ReLU with width, 2 width, ... channels, stride 2 from the second
    on; global average pool; linear layer.  Other parameters as of `ResNet18`."""
    layers = {"": _first(before, activation)}
    for stage in range(checks.integer("stages", stages, 1, 10)):
        layer = Convolution(checks.integer("width", width, 1) * 2**stage, stride=2 if stage else 1)
        layers[f"stage{stage + 1}"] = {"conv": layer, "bn": BatchNorm(), "relu": activation}
    return Network(layers | {"avgpool": AveragePool(), "fc": _last(n_classes)}, image_shape, **options)


def _first(before: Sequence[Layer], activation: ReLU) -> list[Layer]:
    checks.instance("activation", activation, ReLU, "a ReLU")
    return list(checks.instance("before", before, (list, tuple), "a sequence of layers"))


def _last(n_classes: int) -> Linear:
    return Linear(checks.integer("n_classes", n_classes, 2))

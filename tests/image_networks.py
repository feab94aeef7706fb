"""Networks of layers that tests go through, each beside its PyTorch twin, with arrays that no initialisation has."""

import numpy as np
import torch_networks as peers

from advfeat.images import PreActResNet18, ReLU, ResNet18, WideResNet
from advfeat.images.exchange import to_state_dict

SMOOTH = {"q": 3, "rho": 0.7}
BACKEND = "numba"
#: Name -> (network, its twin, images of a batch).
CASES = {
    "resnet18-w4-7x7": (lambda o: ResNet18(4, (1, 7, 7), **o), lambda: peers.ResNet(4, (1, 7, 7)), 3),
    "resnet18-w8-28x28": (lambda o: ResNet18(8, (1, 28, 28), **o), lambda: peers.ResNet(8, (1, 28, 28)), 2),
    "resnet18-w4-9x12-batch1": (lambda o: ResNet18(4, (3, 9, 12), 5, **o), lambda: peers.ResNet(4, (3, 9, 12), 5), 1),
    "resnet18-w4-8x8-smooth": (
        lambda o: ResNet18(4, (3, 8, 8), activation=ReLU(**SMOOTH), **o),
        lambda: peers.ResNet(4, (3, 8, 8), **SMOOTH), 4),
    "preact-w4-7x7": (lambda o: PreActResNet18(4, (3, 7, 7), **o), lambda: peers.PreActResNet(4, (3, 7, 7)), 3),
    "wrn-10-1-28x28": (lambda o: WideResNet(10, 1, (1, 28, 28), **o), lambda: peers.WideResNet(10, 1, (1, 28, 28)), 2),
    "wrn-16-2-7x7": (lambda o: WideResNet(16, 2, (3, 7, 7), **o), lambda: peers.WideResNet(16, 2, (3, 7, 7)), 3),
}  # fmt: skip


def style(name: str) -> str:
    return "torchvision" if name.startswith("resnet") else "robust_overfitting"


def network(name: str, dtype: str = "float64", seed: int = 0):
    """A network with scales, shifts and running statistics as after a training."""
    net, rng = CASES[name][0]({"dtype": dtype, "rng": seed, "backend": BACKEND}), np.random.default_rng(seed)
    for key, a in net.arrays().items():
        if key.endswith("running_var") or (a.ndim == 1 and key.endswith("weight")):
            a[...] = rng.uniform(0.5, 2, a.shape)
        elif a.ndim == 1:
            a[...] = rng.normal(0, 0.3, a.shape)
    return net


def twin(name: str, net, train: bool):
    """The network in PyTorch float64, in a mode."""
    return peers.filled(CASES[name][1](), to_state_dict(net, style(name)), train)


def images(name: str, net, times: int = 1):
    """X and labels of the case's batch, or one some times as large."""
    rng, n = np.random.default_rng(1), times * CASES[name][2]
    return rng.random((n, *net.sample_shape)).astype(net.dtype), rng.integers(net.n_classes, size=n)

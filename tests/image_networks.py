"""Networks of layers that tests go through, each beside its PyTorch twin, with arrays that no initialisation has."""

import numpy as np
from advfeat.kernels.layers import get_engine

from advfeat.images import ConvNet, PreActResNet18, ReLU, ResNet18, WideResNet
from advfeat.images.exchange import to_state_dict


def peers():
    """PyTorch's networks, which tests without PyTorch do not import."""
    import torch_networks

    return torch_networks


SMOOTH = {"q": 3, "rho": 0.7}
BACKEND = "numba"
#: Name -> (network, its twin, images of a batch).
CASES = {
    "resnet18-w4-7x7": (lambda o: ResNet18(4, (1, 7, 7), **o), lambda: peers().ResNet(4, (1, 7, 7)), 3),
    "resnet18-w8-28x28": (lambda o: ResNet18(8, (1, 28, 28), **o), lambda: peers().ResNet(8, (1, 28, 28)), 2),
    "resnet18-w4-9x12-batch1": (lambda o: ResNet18(4, (3, 9, 12), 5, **o), lambda: peers().ResNet(4, (3, 9, 12), 5), 1),
    "resnet18-w4-8x8-smooth": (
        lambda o: ResNet18(4, (3, 8, 8), activation=ReLU(**SMOOTH), **o),
        lambda: peers().ResNet(4, (3, 8, 8), **SMOOTH), 4),
    "preact-w4-7x7": (lambda o: PreActResNet18(4, (3, 7, 7), **o), lambda: peers().PreActResNet(4, (3, 7, 7)), 3),
    "wrn-10-1-28x28": (
        lambda o: WideResNet(10, 1, (1, 28, 28), **o), lambda: peers().WideResNet(10, 1, (1, 28, 28)), 2),
    "convnet-w6-9x11": (lambda o: ConvNet(6, (2, 9, 11), **o), lambda: peers().ConvNet(6, (2, 9, 11)), 3),
    "wrn-16-2-7x7": (lambda o: WideResNet(16, 2, (3, 7, 7), **o), lambda: peers().WideResNet(16, 2, (3, 7, 7)), 3),
}  # fmt: skip


def style(name: str) -> str:
    return "torchvision" if name.startswith(("resnet", "convnet")) else "robust_overfitting"


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
    return peers().filled(CASES[name][1](), to_state_dict(net, style(name)), train)


def images(name: str, net, times: int = 1):
    """X and labels of the case's batch, or one some times as large."""
    rng, n = np.random.default_rng(1), times * CASES[name][2]
    return rng.random((n, *net.sample_shape)).astype(net.dtype), rng.integers(net.n_classes, size=n)


def kinked(net, X, mode: str):
    """Operations with a kink at 0, and what they read, in float64."""
    engine, arrays = get_engine("numpy")(net.program), {name: a.astype(float) for name, a in net.arrays().items()}
    passed = engine.forward(arrays, X.astype(float), mode, keep=True)
    return [(o, passed.values[o.inputs[0]]) for o in net.program.operations if o.kind == "relu" and o.options["q"] == 1]


def distance_of_kinks(net, X, mode: str) -> float:
    """The least |z| / max |z| over the inputs z of ReLUs, without those that are 0 by themselves.

    Where rounding takes z to the other side of 0, a gradient in float32 is another one, and no longer compared.
    """
    distances = [np.abs(Z[Z != 0]).min(initial=np.inf) / np.abs(Z).max() for _, Z in kinked(net, X, mode)]
    return min(distances, default=np.inf)


def shift_off_kinks(net, X, mode: str) -> None:
    """Shifts of batch norms and biases moved, each by a twentieth at most, to where no input of a ReLU is near 0."""
    program = net.program
    for k in range(len(kinked(net, X, mode))):
        operation, Z = kinked(net, X, mode)[k]  # those before it have moved
        source = program.operations[operation.inputs[0] - 1]
        while source.kind == "add":
            source = program.operations[source.inputs[0] - 1]
        if source.kind not in ("batch_norm", "convolution") or len(source.arrays) < 2:
            continue
        shift = net.parameters[source.arrays[1]]
        for c, z in enumerate(np.moveaxis(Z, 1, 0)):
            z = np.sort(np.append(z[np.abs(z) <= 0.05], (-0.05, 0.05)))
            widest = np.diff(z).argmax()
            shift[c] -= z[widest : widest + 2].mean()

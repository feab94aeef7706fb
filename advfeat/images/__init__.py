"""Networks of layers on images, with gradients in closed form."""

from .architectures import ConvNet, PreActResNet18, ResNet18, WideResNet
from .layers import AveragePool, BatchNorm, Convolution, Linear, Normalise, ReLU, Residual, SumPool
from .network import Network

__all__ = [
    "AveragePool",
    "BatchNorm",
    "ConvNet",
    "Convolution",
    "Linear",
    "Network",
    "Normalise",
    "PreActResNet18",
    "ReLU",
    "ResNet18",
    "Residual",
    "SumPool",
    "WideResNet",
]

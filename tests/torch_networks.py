"""Networks of layers in PyTorch, written apart from the library: the reference of their logits, gradients and names.

`ResNet` has torchvision's names, `PreActResNet` and `WideResNet` those of locuslab/robust_overfitting; all have the 3x3
stem for small images.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class SmoothedReLU(nn.Module):
    """z^q / (q rho^(q-1)) on [0, rho], z - (1 - 1/q) rho above; ReLU for q = 1."""

    def __init__(self, q=1, rho=1.0):
        super().__init__()
        self.q, self.rho = q, rho

    def forward(self, z):
        if self.q == 1:
            return functional.relu(z)
        inner = z.clamp(0, self.rho) ** self.q / (self.q * self.rho ** (self.q - 1))
        return inner + functional.relu(z - self.rho)


def convolution(inputs, outputs, kernel=3, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride, activation):
        super().__init__()
        self.conv1, self.bn1 = convolution(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = convolution(outputs, outputs), nn.BatchNorm2d(outputs)
        self.activation = activation
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        z = self.bn2(self.conv2(self.activation(self.bn1(self.conv1(x)))))
        return self.activation(z + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, width, image_shape, n_classes=10, q=1, rho=1.0):
        super().__init__()
        self.activation = SmoothedReLU(q, rho)
        self.conv1, self.bn1 = convolution(image_shape[0], width), nn.BatchNorm2d(width)
        inputs = width
        for stage in range(4):
            outputs = width * 2**stage
            blocks = [BasicBlock(inputs if i == 0 else outputs, outputs, 2 if stage and i == 0 else 1, self.activation)
                      for i in range(2)]  # fmt: skip
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            inputs = outputs
        self.fc = nn.Linear(inputs, n_classes)

    def representation(self, x):
        x = self.activation(self.bn1(self.conv1(x)))
        for stage in range(4):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x.mean(dim=(2, 3))

    def forward(self, x):
        return self.fc(self.representation(x))


class PreActBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), convolution(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), convolution(outputs, outputs)
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(convolution(inputs, outputs, 1, stride))

    def forward(self, x):
        a = functional.relu(self.bn1(x))
        short = self.shortcut(a) if hasattr(self, "shortcut") else x
        return self.conv2(functional.relu(self.bn2(self.conv1(a)))) + short


class PreActResNet(nn.Module):
    def __init__(self, width, image_shape, n_classes=10):
        super().__init__()
        self.conv1, inputs = convolution(image_shape[0], width), width
        for stage in range(4):
            outputs = width * 2**stage
            blocks = PreActBlock(inputs, outputs, 2 if stage else 1), PreActBlock(outputs, outputs, 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            inputs = outputs
        self.bn, self.linear = nn.BatchNorm2d(inputs), nn.Linear(inputs, n_classes)

    def representation(self, x):
        x = self.conv1(x)
        for stage in range(4):
            x = getattr(self, f"layer{stage + 1}")(x)
        return functional.relu(self.bn(x)).mean(dim=(2, 3))

    def forward(self, x):
        return self.linear(self.representation(x))


class WideBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), convolution(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), convolution(outputs, outputs)
        self.convShortcut = convolution(inputs, outputs, 1, stride) if inputs != outputs else None

    def forward(self, x):
        a = functional.relu(self.bn1(x))
        z = self.conv2(functional.relu(self.bn2(self.conv1(a))))
        return z + (x if self.convShortcut is None else self.convShortcut(a))


class WideStage(nn.Module):
    def __init__(self, inputs, outputs, n, stride):
        super().__init__()
        self.layer = nn.Sequential(
            *(WideBlock(inputs if i == 0 else outputs, outputs, stride if i == 0 else 1) for i in range(n))
        )

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    def __init__(self, depth, widen, image_shape, n_classes=10):
        super().__init__()
        sizes, n = [16, *(16 * widen * 2**stage for stage in range(3))], (depth - 4) // 6
        self.conv1 = convolution(image_shape[0], 16)
        self.block1, self.block2, self.block3 = (
            WideStage(sizes[stage], sizes[stage + 1], n, 2 if stage else 1) for stage in range(3)
        )
        self.bn1, self.fc = nn.BatchNorm2d(sizes[-1]), nn.Linear(sizes[-1], n_classes)

    def representation(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return functional.relu(self.bn1(x)).mean(dim=(2, 3))

    def forward(self, x):
        return self.fc(self.representation(x))


# ------------------------------------------------------------------ arrays in, arrays out
class ConvStage(nn.Sequential):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.add_module("conv", convolution(inputs, outputs, 3, stride))
        self.add_module("bn", nn.BatchNorm2d(outputs))
        self.add_module("relu", nn.ReLU())


class ConvNet(nn.Module):
    """`advfeat.images.ConvNet` of three stages."""

    def __init__(self, width, shape, classes=10):
        super().__init__()
        for i, inputs in enumerate((shape[0], width, 2 * width)):
            self.add_module(f"stage{i + 1}", ConvStage(inputs, width * 2**i, 2 if i else 1))
        self.fc = nn.Linear(4 * width, classes)

    def representation(self, x):
        return self.stage3(self.stage2(self.stage1(x))).mean(dim=(2, 3))

    def forward(self, x):
        return self.fc(self.representation(x))


def filled(module: nn.Module, state: dict[str, np.ndarray], train: bool) -> nn.Module:
    """The module in float64 with a state dict of arrays, every name of which must be its own."""
    module = module.double()
    module.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in state.items()}, strict=True)
    return module.train(train)


def pulled(module, X, C, of="forward"):
    """The value `of` X, and the gradients of sum C times it by X and by every parameter."""
    x = torch.from_numpy(X).double().requires_grad_()
    value = getattr(module, of)(x)
    parameters = dict(module.named_parameters())
    total = (value * torch.from_numpy(np.asarray(C, np.float64))).sum()
    found = torch.autograd.grad(total, [x, *parameters.values()], allow_unused=True)
    return value.detach().numpy(), found[0].numpy(), {
        name: np.zeros(p.shape) if g is None else g.numpy() for (name, p), g in zip(parameters.items(), found[1:])
    }  # fmt: skip

"""Training and PGD steps of residual networks in PyTorch and JAX, the peers of `layers.py` (extras "test" and "bench").

A contender is made with a network of this library, whose weights it takes, and has methods without arguments: `train`
(gradients in training mode and a step of SGD with momentum and weight decay), `attack` and `attack_in_training` (the
gradient of the cross-entropy by the images, in either mode of batch norm); this library's has `represent` (that of the
sum of the representation).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

RATE, MOMENTUM, DECAY = 1e-3, 0.9, 5e-4


class Ours:
    """This library."""

    name = "advfeat"

    def __init__(self, net, module, X, y):
        from advfeat.kernels import CROSS_ENTROPY, formulas

        from advfeat.training.optim import SGD

        self.net, self.X, self.y = net.copy(), X, y
        self.optimiser = SGD(np.array([RATE]), MOMENTUM, DECAY)
        self.G = np.ones((len(X), net.program.shapes[net.program.representation][0]))
        self.C = lambda F, some: formulas.objective_gradient(F[0], y[some], CROSS_ENTROPY)[None]

    def train(self):
        _, gradients = self.net.loss_and_grad(self.X, self.y)
        self.optimiser.step(self.net.parameters, gradients)

    def _attack(self, net):
        net.logits_and_pull_back_of(net.prepare(self.X[None]), self.C)

    def attack(self):
        self._attack(self.net)

    def attack_in_training(self):
        self._attack(self.net.in_mode("train"))

    def represent(self):
        self.net.pull_back_representation(self.X, self.G)


class Torch:
    """PyTorch, eager or compiled, in one of its memory layouts."""

    def __init__(self, net, module, X, y, last=False, compiled=False):
        import torch

        self.torch, self.module = torch, module.to(torch.from_numpy(X).dtype)
        self.x, self.y = torch.from_numpy(X), torch.from_numpy(y)
        if last:
            self.module = self.module.to(memory_format=torch.channels_last)
            self.x = self.x.contiguous(memory_format=torch.channels_last)
        self.optimiser = torch.optim.SGD(self.module.parameters(), RATE, MOMENTUM, weight_decay=DECAY)
        if compiled:
            torch._dynamo.reset()  # what was compiled for other cases counts against a limit
        self.call = torch.compile(self.module) if compiled else self.module
        self.name = "PyTorch " + ("compiled" if compiled else "eager") + (", channels last" if last else "")

    def loss(self, x):
        return self.torch.nn.functional.cross_entropy(self.call(x), self.y)

    def _with(self, train: bool, parameters: bool):
        self.module.train(train)
        for p in self.module.parameters():
            p.requires_grad_(parameters)

    def train(self):
        self._with(True, True)
        self.optimiser.zero_grad(set_to_none=True)
        self.loss(self.x).backward()
        self.optimiser.step()

    def _attack(self, train):
        self._with(train, False)
        x = self.x.clone().requires_grad_()
        self.torch.autograd.grad(self.loss(x), x)

    def attack(self):
        self._attack(False)

    def attack_in_training(self):
        self._attack(True)


class Jax:
    """JAX, jitted, images with channels last as its convolutions like them on CPUs."""

    name = "JAX jit"

    def __init__(self, net, module, X, y):
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", X.dtype == np.float64)
        self.jax = jax
        arrays = {n: jnp.asarray(a.transpose(2, 3, 1, 0) if a.ndim == 4 else a) for n, a in net.arrays().items()}
        self.statistics = {n: arrays[n] for n in net.program.statistics}
        self.parameters = {n: arrays[n] for n in net.program.parameters}
        self.velocity = {n: jnp.zeros_like(a) for n, a in self.parameters.items()}
        self.x, self.y = jnp.asarray(X.transpose(0, 2, 3, 1)), jnp.asarray(y)
        loss = self.loss_of(net.program)

        def step(parameters, velocity, statistics, x, y):
            gradient = jax.grad(loss)(parameters, statistics, x, y, True)
            velocity = {n: MOMENTUM * velocity[n] + gradient[n] + DECAY * parameters[n] for n in velocity}
            return {n: parameters[n] - RATE * velocity[n] for n in velocity}, velocity

        self.step = jax.jit(step)
        self.slope = jax.jit(jax.grad(loss, argnums=2), static_argnums=4)

    def loss_of(self, program):
        """The mean cross-entropy of a program of this library's, operation by operation."""
        jax, jnp = self.jax, self.jax.numpy

        def loss(parameters, statistics, x, y, train):
            held, values = parameters | statistics, [x]
            for operation in program.operations:
                inputs, arrays = [values[v] for v in operation.inputs], [held[n] for n in operation.arrays]
                x, o = inputs[0], operation.options
                if operation.kind == "convolution":
                    pad = [(o["padding"], o["padding"])] * 2
                    layout = "NHWC", "HWIO", "NHWC"
                    x = jax.lax.conv_general_dilated(x, arrays[0], (o["stride"],) * 2, pad, dimension_numbers=layout)
                elif operation.kind == "batch_norm":
                    mean, variance = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if train else arrays[2:]
                    x = (x - mean) * (arrays[0] * jax.lax.rsqrt(variance + o["eps"])) + arrays[1]
                elif operation.kind == "relu":
                    x = jnp.maximum(x, 0)
                elif operation.kind == "add":
                    x = inputs[0] + inputs[1]
                elif operation.kind == "sum_pool":
                    x = x.mean((1, 2))
                else:
                    x = x @ arrays[0].T + arrays[1]
                values.append(x)
            chosen = jnp.take_along_axis(jax.nn.log_softmax(values[-1]), y[:, None], 1)
            return -chosen.mean()

        return loss

    def train(self):
        held = self.step(self.parameters, self.velocity, self.statistics, self.x, self.y)
        self.parameters, self.velocity = self.jax.block_until_ready(held)

    def _attack(self, train):
        self.jax.block_until_ready(self.slope(self.parameters, self.statistics, self.x, self.y, train))

    def attack(self):
        self._attack(False)

    def attack_in_training(self):
        self._attack(True)


CONTENDERS = {
    "advfeat": Ours,
    "eager": Torch,
    "eager-last": lambda *a: Torch(*a, last=True),
    "compiled": lambda *a: Torch(*a, compiled=True),
    "compiled-last": lambda *a: Torch(*a, last=True, compiled=True),
    "jax": Jax,
}

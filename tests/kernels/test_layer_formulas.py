"""Each formula of layers beside PyTorch's, with its gradients: all kernels, strides, paddings, sides, both dtypes."""

import numpy as np
import pytest
import torch
from advfeat.kernels.layers import formulas
from tolerances import GRADIENT
from torch.nn import functional

ERROR = {"float64": GRADIENT["float64"], "float32": 5e-6}  # of one layer, relative to the norm

SHAPES = [((1, 4), (7, 7)), ((3, 5), (8, 5)), ((4, 2), (28, 28)), ((2, 3), (3, 3))]
WINDOWS = [(3, 1, 1), (3, 2, 1), (1, 1, 0), (1, 2, 0), (3, 1, 0), (5, 3, 2)]


def close(ours, theirs, dtype):
    theirs = theirs.detach().numpy()
    assert ours.dtype == dtype or ours.dtype == np.float64
    assert ours.shape == theirs.shape
    assert np.linalg.norm(ours - theirs) <= ERROR[dtype] * np.linalg.norm(theirs)


def drawn(shape, dtype, seed):
    a = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return a, torch.from_numpy(a).double().requires_grad_()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("channels", "sides"), SHAPES)
@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
def test_convolution(kernel, stride, padding, channels, sides, n, dtype):
    (X, x), (V, v) = drawn((n, channels[0], *sides), dtype, 0), drawn((*channels[::-1], kernel, kernel), dtype, 1)
    z = functional.conv2d(x, v, stride=stride, padding=padding)
    close(formulas.convolution(X, V, stride, padding), z, dtype)
    G, g = drawn(z.shape, dtype, 2)
    dx, dv = torch.autograd.grad((z * g).sum(), [x, v])
    close(formulas.convolution_input_gradient(G, V, stride, padding, sides), dx, dtype)
    close(formulas.convolution_weight_gradient(G, X, kernel, stride, padding), dv, dtype)
    assert formulas.side(sides[0], kernel, stride, padding) == z.shape[2]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shape", [(1, 3, 7, 7), (8, 1, 28, 28), (5, 4, 1, 1)])
def test_batch_norm(shape, train, dtype):
    C = shape[1]
    (X, x), (gamma, w), (beta, b) = drawn(shape, dtype, 0), drawn(C, dtype, 1), drawn(C, dtype, 2)
    rng = np.random.default_rng(3)
    running = rng.standard_normal(C), rng.uniform(0.5, 2, C)
    held = [torch.from_numpy(a.copy()) for a in running]
    z = functional.batch_norm(x, *held, w, b, training=train, eps=1e-5, momentum=0.1)
    mean, variance = formulas.batch_statistics(X) if train else running
    close(formulas.batch_norm(X, mean, variance, gamma, beta, 1e-5), z, dtype)
    G, g = drawn(shape, dtype, 4)
    dx, dw, db = torch.autograd.grad((z * g).sum(), [x, w, b])
    ours = (formulas.batch_norm_gradient(G, X, mean, variance, gamma, 1e-5) if train
            else formulas.frozen_batch_norm_gradient(G, variance, gamma, 1e-5))  # fmt: skip
    close(ours, dx, dtype)
    for found, theirs in zip(formulas.batch_norm_parameter_gradients(G, X, mean, variance, 1e-5), (dw, db)):
        close(found, theirs, dtype)
    if train:
        count = X.size // C
        moved = formulas.running_statistics(running, (mean, variance), count, 0.1)
        for found, theirs in zip(moved, held):
            close(found, theirs, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("size", [None, 2, 4])
def test_pooling(size, dtype):
    X, x = drawn((3, 2, 8, 4), dtype, 0)
    z = x.sum(dim=(2, 3)) if size is None else functional.avg_pool2d(x, size) * size**2
    close(formulas.sum_pool(X, size), z, dtype)
    G, g = drawn(z.shape, dtype, 1)
    close(formulas.sum_pool_gradient(G, (8, 4), size), torch.autograd.grad((z * g).sum(), x)[0], dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n", [1, 6])
def test_linear(n, dtype):
    (X, x), (A, a), (b, c) = drawn((n, 2, 3, 5), dtype, 0), drawn((4, 30), dtype, 1), drawn(4, dtype, 2)
    z = functional.linear(x.flatten(1), a, c)
    close(formulas.linear(X, A, b), z, dtype)
    G, g = drawn(z.shape, dtype, 3)
    dx, da, dc = torch.autograd.grad((z * g).sum(), [x, a, c])
    close(formulas.linear_input_gradient(G, A, X.shape[1:]), dx, dtype)
    close(formulas.linear_weight_gradient(G, X), da, dtype)
    close(formulas.channel_sum(G), dc, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_relu_shift_and_normalise(dtype):
    (X, x), (b, c) = drawn((3, 4, 5, 5), dtype, 0), drawn(4, dtype, 1)
    X[0, 0, 0] = x.data[0, 0, 0] = 0.0  # where the subgradient is 0, as PyTorch's
    G, g = drawn(X.shape, dtype, 2)
    close(formulas.relu(X), functional.relu(x), dtype)
    close(formulas.relu_gradient(G, X), torch.autograd.grad((functional.relu(x) * g).sum(), x)[0], dtype)
    z = x.clamp(0, 0.5) ** 3 / (3 * 0.5**2) + functional.relu(x - 0.5)
    close(formulas.relu(X, 3, 0.5), z, dtype)
    close(formulas.relu_gradient(G, X, 3, 0.5), torch.autograd.grad((z * g).sum(), x)[0], dtype)
    close(formulas.shift(X, b), x + c[:, None, None], dtype)
    mean, deviation = np.arange(4.0), np.arange(1.0, 5.0)
    theirs = (x - torch.from_numpy(mean)[:, None, None]) / torch.from_numpy(deviation)[:, None, None]
    close(formulas.normalise(X, mean, deviation), theirs, dtype)

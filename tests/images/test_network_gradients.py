"""Logits, representations and gradients of whole networks: beside PyTorch's autograd, and against differences."""

import numpy as np
import pytest
import torch
from image_networks import CASES, distance_of_kinks, images, network, shift_off_kinks, style, twin
from tolerances import CENTRAL_DIFFERENCE, GRADIENT, STEP
from torch_networks import pulled

from advfeat.images.exchange import names


def close(ours, theirs, tolerance):
    error = np.linalg.norm(np.asarray(ours, np.float64) - theirs)
    assert error <= tolerance * np.linalg.norm(theirs), error / np.linalg.norm(theirs)


def all_close(net, name, ours, theirs, tolerance):
    """Gradients by parameter, their common norm as the scale: some are 0 by themselves, before a batch norm."""
    assert ours.keys() == net.parameters.keys()
    new = names(net, style(name))
    flat = [np.concatenate([np.ravel(g) for g in side]) for side in
            (ours.values(), (theirs[new[key]] for key in ours))]  # fmt: skip
    close(*flat, tolerance)


#: Of whole networks, relative to the norm; the fast engine sums in another order.
WHOLE = {("numpy", "float64"): GRADIENT["float64"], ("numba", "float64"): 1e-11,
         ("numpy", "float32"): 5e-5, ("numba", "float32"): 5e-5}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mode", ["evaluate", "train"])
@pytest.mark.parametrize("name", CASES)
def test_pulled_back_gradients_are_autograds(name, mode, dtype, engines):
    if (name, mode) == ("resnet18-w4-9x12-batch1", "train"):
        mode = "evaluate"  # one image leaves the last stage's batch norms two pixels, whose x_hat are +-1 whatever x
    net = network(name, dtype)
    # what float32 loses in training mode goes with 1 / sqrt(variance of a channel), which few numbers can make small
    X, _ = images(name, net, 8 if (dtype, mode) == ("float32", "train") else 1)
    if dtype == "float32":
        shift_off_kinks(net, X, mode)
        assert distance_of_kinks(net, X, mode) > 1e-5
    C = np.random.default_rng(2).standard_normal((len(X), net.n_classes))
    module = twin(name, net, mode == "train")
    F, dX, dW = pulled(module, X, C)
    tolerance = WHOLE[engines, dtype]
    close(net.logits(X, mode), F, tolerance)
    close(net.pull_back(X, C, mode), dX, tolerance)
    all_close(net, name, net.weights_grad(X, C, mode), dW, tolerance)
    g = net.representation(X, mode)
    C = np.random.default_rng(3).standard_normal(g.shape)
    theirs, dX, _ = pulled(module, X, C, "representation")
    close(g, theirs, tolerance)
    close(net.pull_back_representation(X, C, mode), dX, tolerance)


@pytest.mark.parametrize("mode", ["evaluate", "train"])
@pytest.mark.parametrize("name", CASES)
def test_cross_entropy_and_its_gradient_are_pytorchs(name, mode, engines):
    net = network(name)
    X, y = images(name, net)
    if len(X) == 1:
        X, y = np.concatenate([X, 1 - X]), np.array([0, 1])
    module = twin(name, net, mode == "train")
    loss, gradient = net.loss_and_grad(X, y, mode, update_statistics=False)
    theirs = torch.nn.functional.cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(y))
    theirs.backward()
    assert abs(loss - theirs.item()) <= 1e-13 * theirs.item()
    all_close(net, name, gradient, {n: p.grad.numpy() for n, p in module.named_parameters()}, WHOLE[engines, "float64"])


@pytest.mark.parametrize("mode", ["evaluate", "train"])
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_central_differences(name, mode, engines):
    """Along random directions of all parameters and of the images; steps that a kink lies in are taken elsewhere."""
    if (name, mode) == ("resnet18-w4-9x12-batch1", "train"):
        mode = "evaluate"
    net, rng = network(name), np.random.default_rng(5)
    X, _ = images(name, net)
    X = 0.1 + 0.8 * X
    C, step = rng.standard_normal((len(X), net.n_classes)), STEP

    def value(t, dX, dW):
        there = {n: a + t * dW[n] for n, a in net.parameters.items()}
        moved = type(net).from_arrays(net.arrays() | there, **net.options | {"backend": "numpy"})
        passed = moved.engine.forward(moved.arrays(), X + t * dX, mode, keep=True)
        signs = [passed.values[o.inputs[0]] > 0 for o in net.program.operations if o.kind == "relu"]
        return (passed.values[-1] * C).sum(), np.concatenate([s.ravel() for s in signs])

    gX, gW = net.pull_back(X, C, mode), net.weights_grad(X, C, mode)
    done = 0
    for _ in range(40):
        dX = rng.standard_normal(X.shape) / np.sqrt(X.size)
        dW = {n: rng.standard_normal(a.shape) / np.sqrt(a.size) for n, a in net.parameters.items()}
        (high, above), (low, below) = value(step, dX, dW), value(-step, dX, dW)
        if (above != below).any():
            continue
        along = (gX * dX).sum() + sum((gW[n] * d).sum() for n, d in dW.items())
        size = np.sqrt((gX**2).sum() + sum((g**2).sum() for g in gW.values()))
        assert abs((high - low) / (2 * step) - along) <= CENTRAL_DIFFERENCE * size
        done += 1
        if done == 3:
            return
    pytest.fail("every step met a kink")


@pytest.mark.parametrize("name", ["resnet18-w4-7x7", "wrn-10-1-28x28"])
def test_running_statistics_are_pytorchs(name, engines):
    net, rng = network(name), np.random.default_rng(7)
    module = twin(name, net, True)
    before = {n: a.copy() for n, a in net.statistics.items()}
    X, y = images(name, net)
    net.loss_and_grad(X, y, update_statistics=False)
    assert all(np.array_equal(a, before[n]) for n, a in net.statistics.items())
    for _ in range(20):
        X = rng.random((4, *net.sample_shape))
        net.loss_and_grad(X, rng.integers(net.n_classes, size=4))
        module(torch.from_numpy(X))
    held, new = module.state_dict(), names(net, style(name))
    for n, a in net.statistics.items():
        assert np.abs(a - before[n]).max() > 0
        np.testing.assert_allclose(a, held[new[n]].numpy(), rtol=1e-12, atol=1e-13)
    close(net.logits(X), module.eval()(torch.from_numpy(X)).detach().numpy(), 1e-12)

"""What must hold of layers whatever the numbers: symmetries, shortcuts, independence of images."""

import numpy as np
import pytest
from advfeat.kernels.layers import formulas
from hypothesis import given, settings
from hypothesis import strategies as st
from image_networks import CASES, images, network

from advfeat.images import (
    AveragePool,
    BatchNorm,
    Convolution,
    Linear,
    Network,
    Normalise,
    ReLU,
    Residual,
    SumPool,
    WideResNet,
)

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(3, 11)


def drawn(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from(sorted(CASES)), st.sampled_from(["evaluate", "train"]))
def test_permuted_images_have_permuted_answers(seed, name, mode):
    net, order = network(name), np.random.default_rng(seed).permutation(4)
    X = np.random.default_rng(seed).random((4, *net.sample_shape))
    F, C = net.logits(X, mode), np.random.default_rng(1).standard_normal((4, net.n_classes))
    scale = np.abs(F).max()
    np.testing.assert_allclose(net.logits(X[order], mode), F[order], rtol=0, atol=1e-10 * scale)
    g = net.pull_back(X, C, mode)
    np.testing.assert_allclose(net.pull_back(X[order], C[order], mode), g[order], rtol=0, atol=1e-9 * np.abs(g).max())


@settings(max_examples=40, deadline=None)
@given(SEEDS, SIDES, SIDES, st.sampled_from([1, 3]), st.sampled_from([1, 2]))
def test_permuted_channels_permute_a_convolution(seed, height, width, kernel, stride):
    X, V = drawn(seed, (2, 3, height, width), (4, 3, kernel, kernel))
    rng = np.random.default_rng(seed)
    ins, outs = rng.permutation(3), rng.permutation(4)
    Z = formulas.convolution(X, V, stride, kernel // 2)
    permuted = formulas.convolution(X[:, ins], V[outs][:, ins], stride, kernel // 2)
    np.testing.assert_allclose(permuted, Z[:, outs], atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(9, 14), st.sampled_from([1, 3]), st.sampled_from([1, 2]), st.integers(1, 2))
def test_a_shift_by_strides_shifts_the_interior(seed, side, kernel, stride, by):
    X, V = drawn(seed, (1, 2, side, side), (3, 2, kernel, kernel))
    moved = np.zeros_like(X)
    moved[:, :, by * stride :] = X[:, :, : -by * stride]
    Z, Y = (formulas.convolution(A, V, stride, kernel // 2) for A in (X, moved))
    inner = slice(by + 1, Z.shape[2] - 1)
    np.testing.assert_allclose(Y[:, :, inner], Z[:, :, slice(inner.start - by, inner.stop - by)], atol=1e-13)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.booleans())
def test_a_residual_of_zero_weights_is_its_shortcut(seed, projects):
    body, shortcut = [Convolution(4), BatchNorm(), ReLU(), Convolution(4)], [Convolution(4, 1)] if projects else ()
    block = Residual({"body": body}, {"shortcut": shortcut})
    layers = {"stem": Convolution(4), "block": block, "fc": [SumPool(), Linear(3)]}
    net = Network(layers, (2, 5, 6), dtype="float64", rng=seed)
    net.parameters["block.body.3.weight"][...] = 0
    left = {n: a for n, a in net.arrays().items() if ".body." not in n}
    alone = Network(layers | {"block": {"shortcut": shortcut}}, (2, 5, 6), dtype="float64", arrays=left)
    X = np.random.default_rng(seed).random((3, 2, 5, 6))
    np.testing.assert_array_equal(net.logits(X), alone.logits(X))


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from(sorted(CASES)), st.sampled_from(["float32", "float64"]), st.integers(1, 7))
def test_evaluation_mode_makes_images_independent_to_the_bit(seed, name, dtype, n):
    net, rng = network(name, dtype), np.random.default_rng(seed)
    X, C = rng.random((8, *net.sample_shape)).astype(dtype), rng.standard_normal((8, net.n_classes))
    some = rng.permutation(8)[:n]
    np.testing.assert_array_equal(net.logits(X)[some], net.logits(X[some]))
    np.testing.assert_array_equal(net.representation(X)[some], net.representation(X[some]))
    np.testing.assert_array_equal(net.pull_back(X, C)[some], net.pull_back(X[some], C[some]))


def test_training_mode_does_not():
    net = network("resnet18-w4-7x7")
    X, _ = images("resnet18-w4-7x7", net)
    assert np.abs(net.logits(X, "train")[:2] - net.logits(X[:2], "train")).max() > 1e-3


@pytest.mark.parametrize("mode", ["evaluate", "train"])
def test_a_network_in_a_mode_answers_as_its_argument_says(mode):
    net = network("wrn-16-2-7x7")
    (X, y), view = images("wrn-16-2-7x7", net), net.in_mode(mode)
    C = np.random.default_rng(0).standard_normal((3, 10))
    np.testing.assert_array_equal(view.logits(X), net.logits(X, mode))
    np.testing.assert_array_equal(view.pull_back(X, C), net.pull_back(X, C, mode))
    batch = view.prepare(*view.check(X, y), np.array([[True, False, True]]))
    F, g = view.logits_and_pull_back_of(batch, lambda F, some: C[None, some])
    assert np.isnan(F[0, 1]).all()
    assert not g[0, 1].any()
    for answer in (F, view.logits_of(batch)):
        np.testing.assert_array_equal(answer[0, ::2], net.logits(X, mode)[::2])
    if mode == "train":  # images that are not worked on stay in the batch: their coefficients count
        np.testing.assert_array_equal(g[0, ::2], net.pull_back(X, C, mode)[::2])
        before = {n: a.copy() for n, a in net.statistics.items()}
        net.in_mode("train", update_statistics=True).logits_of(batch)
        assert all((a != before[n]).any() for n, a in net.statistics.items())


def test_a_normalisation_inside_is_one_outside():
    before = [Normalise((0.2, 0.5, 0.1), (0.3, 0.2, 0.6))]
    net = WideResNet(10, 1, (3, 8, 8), before=before, dtype="float64", rng=4)
    plain = WideResNet(10, 1, (3, 8, 8), dtype="float64", box=None, arrays=net.arrays())
    X = np.random.default_rng(0).random((3, 3, 8, 8))
    mean, deviation = (np.array(a).reshape(3, 1, 1) for a in (before[0].mean, before[0].deviation))
    np.testing.assert_allclose(net.logits(X), plain.logits((X - mean) / deviation), rtol=1e-12)
    C = np.ones((3, 10))
    theirs = plain.pull_back((X - mean) / deviation, C) / deviation
    np.testing.assert_allclose(net.pull_back(X, C), theirs, rtol=1e-10, atol=1e-12)


def test_many_images_are_worked_on_in_parts(monkeypatch):
    """Parts change no bit of an image's answer, and of a sum over images only its order."""
    net = network("resnet18-w4-7x7")
    X, y = images("resnet18-w4-7x7", net, times=5)
    C = np.ones((15, 10))
    whole = net.logits(X), net.pull_back(X, C), net.loss_and_grad(X, y, "evaluate")
    monkeypatch.setattr("advfeat.images.network.CHUNK_BYTES", net.engine.memory(4, 8, True))
    assert len(net._parts(X, "evaluate", True)) == 4
    np.testing.assert_array_equal(net.logits(X), whole[0])
    np.testing.assert_array_equal(net.pull_back(X, C), whole[1])
    loss, gradient = net.loss_and_grad(X, y, "evaluate")
    assert loss == whole[2][0]
    for name, g in gradient.items():
        np.testing.assert_allclose(g, whole[2][1][name], rtol=0, atol=1e-13 * np.abs(g).max())


def test_average_pooling_in_windows_and_a_linear_layer_on_all_of_them():
    net = Network([Convolution(3, bias=True), AveragePool(2), Linear(4)], (1, 6, 4), dtype="float64")
    assert {n: a.shape for n, a in net.arrays().items()} == {
        "0.weight": (3, 1, 3, 3), "0.bias": (3,), "2.weight": (4, 18), "2.bias": (4,)}  # fmt: skip
    X = np.random.default_rng(0).random((2, 1, 6, 4))
    Z = formulas.convolution(X, net.parameters["0.weight"], 1, 1)
    mean = Z.reshape(2, 3, 3, 2, 2, 2).mean(axis=(3, 5)).reshape(2, -1)
    np.testing.assert_allclose(net.logits(X), mean @ net.parameters["2.weight"].T, atol=1e-14)
    assert net.representation(X).shape == (2, 18)

"""What makes no network, no batch, no weights: named before any work."""

import json
import re
import tracemalloc

import numpy as np
import pytest

from advfeat import PGD, ThreatModel, TrainConfig, train
from advfeat.core import memory
from advfeat.images import (
    AveragePool,
    BatchNorm,
    ConvNet,
    Convolution,
    Linear,
    Network,
    Normalise,
    PreActResNet18,
    ReLU,
    Residual,
    ResNet18,
    SumPool,
    WideResNet,
)
from advfeat.images.data import split
from advfeat.images.layers import from_json, to_json

NET = ConvNet(2, (1, 8, 8))
X = np.random.default_rng(0).random((4, 1, 8, 8)).astype(np.float32)
Y = np.array([0, 1, 2, 9])
CONV = [Convolution(4), ReLU()]


@pytest.mark.parametrize(("make", "message"), [
    (lambda: ResNet18(0), "width = 0: must be an integer >= 1"),
    (lambda: ResNet18(4.0), "width = 4.0: must be an integer"),
    (lambda: ResNet18(4, n_classes=1), "n_classes = 1: must be an integer >= 2"),
    (lambda: ResNet18(4, (3, 32)), "image_shape = (3, 32): must be (channels, height, width)"),
    (lambda: ResNet18(4, (3, 0, 32)), "image_shape = 0: must be an integer >= 1"),
    (lambda: ResNet18(4, dtype="float16"), "dtype = 'float16': unknown"),
    (lambda: ResNet18(4, backend="cupy"), "backend = 'cupy': must be one of ('numba', 'numpy')"),
    (lambda: ResNet18(4, rng=-1), "rng = -1: must be an integer >= 0"),
    (lambda: PreActResNet18(-3), "width = -3"),
    (lambda: WideResNet(12, 1), "depth = 12: must be 6 n + 4"),
    (lambda: WideResNet(4, 1), "depth = 4: must be an integer >= 10"),
    (lambda: WideResNet(10, 0), "widen = 0"),
    (lambda: ConvNet(2, stages=0), "stages = 0"),
    (lambda: ResNet18(4, before=[Normalise((0.5,), (0.5,))]), "mean has 1 numbers for 3 channels"),
    (lambda: Normalise((0.5,), (0.0,)), "deviation = 0.0: must be a number, finite and > 0"),
    (lambda: Network([Convolution(4, 7, padding=0), SumPool(), Linear(2)], (1, 5, 5)),
     "0: a window of 7 x 7 is larger than an image of 5 x 5"),
    (lambda: Network([AveragePool(3), Linear(2)], (1, 8, 9)), "0: windows of 3 x 3 do not fill an image of 8 x 9"),
    (lambda: Network([SumPool(), Convolution(4), Linear(2)], (1, 8, 8)),
     "1: needs channels and pixels, but comes behind (1,)"),
    (lambda: Network({"a": Residual(CONV), "b": Linear(2)}, (1, 8, 8)),
     "a: the body gives (4, 8, 8), but the shortcut (1, 8, 8)"),
    (lambda: Network(CONV, (1, 8, 8)), "the last one must be Linear(n_classes)"),
    (lambda: Network([], (1, 8, 8)), "the last one must be Linear(n_classes)"),
    (lambda: Network([Linear(1)], (1, 8, 8)), "the last one must be Linear(n_classes) with n_classes >= 2"),
    (lambda: Network({"": [Convolution(2), Convolution(2)], "b": [{"": {"0": Convolution(2)}}],
                      "c": {"": {"": Linear(2)}}}, (1, 4, 4)), None),
    (lambda: Network({"": Convolution(2), "b": {"": {"": Linear(2)}}, "c": Linear(2), "d": {"": Linear(2)}}, (1, 4, 4)),
     None),
    (lambda: Network({"": {"": Convolution(2)}, "x": {"": {"": BatchNorm()}}, "y": Linear(2)}, (1, 4, 4)), None),
    (lambda: Network({"a": {"": Convolution(1)}, "": {"a": Convolution(1)}, "c": Linear(2)}, (1, 4, 4)),
     "two arrays would be called 'a.weight'"),
    (lambda: Convolution(4, kernel=0), "kernel = 0"),
    (lambda: Convolution(4, padding=-1), "padding = -1"),
    (lambda: ReLU(q=0), "q = 0: must be an integer >= 1 and <= 100"),
    (lambda: ReLU(rho=0), "rho = 0: must be a number, finite and > 0"),
    (lambda: BatchNorm(eps=0), "eps = 0"),
    (lambda: BatchNorm(momentum=1.5), "momentum = 1.5: must be <= 1"),
    (lambda: split(X, Y, 4, 0, "float32"), "n_test = 4: must be an integer >= 1 and <= 3"),
])  # fmt: skip
def test_layers_that_make_no_network(make, message):
    if message is None:
        make()
    else:
        with pytest.raises(ValueError, match=re.escape(message)):
            make()


def test_what_is_no_layer():
    with pytest.raises(TypeError, match=r"2: is a str: must be a layer, a list or a dictionary"):
        Network([Convolution(2), ReLU(), "relu", Linear(2)], (1, 4, 4))


@pytest.mark.parametrize("value", [["Dropout", {}], ["Linear", {"m": 2}], [["a"]], 3, ["Residual", []], [["a", 5]]])
def test_layers_that_no_file_holds(value):
    with pytest.raises(ValueError, match=r"no layers of advfeat|must be"):
        Network(from_json(value), (1, 4, 4))


def test_layers_keep_their_order_as_json():
    for net in (ResNet18(2, (1, 8, 8)), WideResNet(10, 1), PreActResNet18(2, before=[Normalise((0, 0, 0), (1, 1, 1))])):
        again = from_json(json.loads(json.dumps(to_json(net.layers), sort_keys=True)))
        assert Network(again, net.sample_shape).program == net.program


# ------------------------------------------------------------------ images and labels
BAD = [
    ((X[:, :, :7], Y), "X has shape (4, 1, 7, 8): must be (N, 1, 8, 8)"),
    ((X[:, 0], Y), "X has shape (4, 8, 8)"),
    ((X[:0], Y[:0]), "no axis may be empty"),
    ((X + 1, Y), "images must lie in [0, 1]"),
    ((-X, Y), "images must lie in [0, 1]"),
    ((np.full_like(X, np.nan), Y), "X holds NaN"),
    ((X, Y[:3]), "y has shape (3,): must hold one label for each of the 4"),
    ((X, Y + 1), "y holds 10: labels must be in 0..9"),
    ((X, Y - 1), "y holds -1"),
]


@pytest.mark.parametrize(("batch", "message"), BAD)
def test_images_and_labels_that_do_not_fit(batch, message, tmp_path):
    works = [
        lambda: NET.loss_and_grad(*batch),
        lambda: PGD()(NET, batch, ThreatModel("linf", 0.1)),
        lambda: train(NET, batch, TrainConfig(lr=0.1, n_iter=1), run_dir=tmp_path / "run"),
    ]
    if "y" not in message.split()[0]:
        works.append(lambda: NET.logits(batch[0]))
    for work in works:
        with pytest.raises(ValueError, match=re.escape(message)):
            work()
    assert not (tmp_path / "run").exists()


def test_types_that_do_not_fit():
    with pytest.raises(TypeError, match="X has dtype uint8: must be float32 or float64"):
        NET.logits((255 * X).astype(np.uint8))
    with pytest.raises(TypeError, match="y has dtype float64"):
        NET.loss_and_grad(X, Y.astype(float))


@pytest.mark.parametrize("ask", [
    lambda: NET.pull_back(X, np.zeros((4, 9))),
    lambda: NET.weights_grad(X, np.zeros(10)),
    lambda: NET.pull_back_representation(X, np.zeros((4, 7))),
])  # fmt: skip
def test_coefficients_of_another_shape(ask):
    with pytest.raises(ValueError, match=r"C has shape .*: must be \(4, (10|8)\)"):
        ask()


@pytest.mark.parametrize("ask", [
    lambda: NET.logits(X, "training"), lambda: NET.loss_and_grad(X, Y, "eval"), lambda: NET.in_mode("test"),
    lambda: NET.memory(3, "both"),
])  # fmt: skip
def test_modes_that_there_are_not(ask):
    with pytest.raises(ValueError, match=r"mode = '(training|eval|test|both)': unknown; "):
        ask()
    with pytest.raises(ValueError, match="update_statistics = True: only in mode"):
        NET.loss_and_grad(X, Y, "evaluate", update_statistics=True)


def test_a_batch_norm_needs_two_numbers(tmp_path):
    """One image of one pixel has no variance; a last short batch of one image is seen before the training begins."""
    net = ConvNet(2, (1, 2, 2), stages=2)
    one = np.full((1, 1, 2, 2), 0.5, np.float32)
    with pytest.raises(ValueError, match=r"X is one image, of which stage2\.bn sees one pixel"):
        net.loss_and_grad(one, np.array([0]))
    net.loss_and_grad(one, np.array([0]), "evaluate")
    data = np.repeat(one, 5, axis=0), np.zeros(5, int)
    with pytest.raises(ValueError, match=r"stage2\.bn sees one pixel"):
        train(net, data, TrainConfig(lr=0.1, n_iter=3, batch_size=2), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(net, data, TrainConfig(lr=0.1, n_iter=3, batch_size=3))


# ------------------------------------------------------------------ memory
@pytest.mark.parametrize(("net", "n"), [
    (ResNet18(8, (1, 28, 28), backend="numpy"), 20), (WideResNet(10, 2, backend="numpy"), 10),
    (ConvNet(8, (3, 64, 64), backend="numpy"), 10), (ResNet18(4, (1, 8, 8), dtype="float64", backend="numpy"), 60),
], ids=str)  # fmt: skip
def test_the_memory_that_is_said_is_what_is_taken(net, n):
    batch, labels = np.zeros((n, *net.sample_shape), net.dtype), np.zeros(n, int)
    works = {
        ("train", True): lambda: net.loss_and_grad(batch, labels),
        ("train", False): lambda: net.logits(batch, "train"),
        ("evaluate", True): lambda: net.pull_back(batch, np.zeros((n, 10))),
        ("evaluate", False): lambda: net.logits(batch),
    }
    net.logits(batch)
    for (mode, gradient), work in works.items():
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= net.memory(n, mode, gradient) <= 2.5 * peak, (mode, gradient)


def test_what_does_not_fit_into_memory_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "available", lambda: 10**9)
    with pytest.raises(MemoryError, match=r"a network of [\d,]+ parameters needs about"):
        ResNet18(4096)
    net = ConvNet(8, (3, 64, 64))
    big = np.zeros((2000, 3, 64, 64), np.float32)
    assert net.memory(2000) > 10**9
    data = big, np.zeros(2000, int)
    for work in (lambda: net.loss_and_grad(*data),
                 lambda: train(net, data, TrainConfig(lr=1, n_iter=1), run_dir=tmp_path / "run")):  # fmt: skip
        with pytest.raises(MemoryError, match=r"a pass over 2000 images of \(3, 64, 64\) in mode 'train' needs about"):
            work()
    assert not (tmp_path / "run").exists()
    assert net.logits(big[:300]).shape == (300, 10)  # in parts


@pytest.mark.parametrize(("keys", "message"), [
    ({"optimiser": "rmsprop"}, "optimiser = 'rmsprop': unknown"),
    ({"optimiser": "adam", "momentum": 0.9}, "Adam has its own"),
    ({"nesterov": True}, "nesterov = True: needs momentum > 0"),
    ({"schedule": "linear"}, "schedule = 'linear': unknown"),
    ({"drops": (0.5, 1.5)}, "drops = (0.5, 1.5): shares of the training must be <= 1"),
    ({"drops": 0.5}, "drops = 0.5: must be a list, each a number >= 0"),
    ({"drops": (-1,)}, "drops = -1: must be a number, finite and >= 0"),
    ({"warm_up": -1}, "warm_up = -1: must be an integer >= 0"),
    ({"ascent": "steepest"}, "ascent = 'steepest': only with adversarial = True"),
    ({"random_start": True}, "random_start = True: only with adversarial = True"),
    ({"crafting_updates": True}, "crafting_updates = True: only with crafting_mode = 'train'"),
])  # fmt: skip
def test_trainings_that_make_no_sense(keys, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainConfig(lr=0.1, n_iter=10, **keys)

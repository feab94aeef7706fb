"""The CPU engine of layers beside the reference: any network, any number of threads, the same bits again."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from advfeat.kernels.cpu.layout import lines
from advfeat.kernels.layers import get_engine
from advfeat.kernels.layers.cpu import engine, entries, team
from hypothesis import given, settings
from hypothesis import strategies as st
from image_networks import distance_of_kinks, shift_off_kinks

from advfeat.images import (
    AveragePool,
    BatchNorm,
    ConvNet,
    Convolution,
    Linear,
    Network,
    Normalise,
    ReLU,
    Residual,
    ResNet18,
    SumPool,
    WideResNet,
)
from advfeat.images.network import CHUNK_BYTES

TOLERANCE = {"float64": 1e-11, "float32": 5e-5}  # of whole networks, relative to the norm


def pair(layers, shape, dtype, seed=0):
    """The same network on both engines, with arrays as after a training."""
    slow, rng = Network(layers, shape, dtype=dtype, backend="numpy", rng=seed), np.random.default_rng(seed)
    for name, a in slow.arrays().items():
        if a.ndim == 1:
            a[...] = rng.uniform(0.5, 2, a.shape) if name.endswith(("weight", "var")) else rng.normal(0, 0.3, a.shape)
    return slow, Network(layers, shape, dtype=dtype, arrays=slow.arrays())


#: Rounding of the terms of a gradient, relative to their size: a batch norm in training mode can cancel nearly all of
#: them, and what is left has no more digits.  Their size is that of the gradient in evaluation mode.
ROUNDING = {"float64": 1e-13, "float32": 1e-5}


def close(ours, theirs, dtype, what, terms=0.0):
    error, size = np.linalg.norm(np.asarray(ours, np.float64) - theirs), np.linalg.norm(theirs)
    assert error <= max(TOLERANCE[dtype] * size, ROUNDING[dtype] * terms, 1e-30), (what, error, size, terms)
    return size


def agree(slow, fast, n, dtype, modes=("evaluate", "train")):
    terms = {"input": 0.0, "pulled": 0.0, "weights": 0.0}
    for mode in modes:
        for seed in range(100):
            rng = np.random.default_rng(seed)
            X, C = rng.random((n, *slow.sample_shape)).astype(dtype), rng.standard_normal((n, slow.n_classes))
            if dtype == "float64":
                break
            shift_off_kinks(slow, X, mode)
            if distance_of_kinks(slow, X, mode) > 1e-5:
                break
        else:
            pytest.fail("every draw met a kink")
        for name, a in slow.parameters.items():
            fast.parameters[name][...] = a
        close(fast.logits(X, mode), slow.logits(X, mode), dtype, "logits")
        g = slow.representation(X, mode)
        close(fast.representation(X, mode), g, dtype, "representation")
        sizes = {"input": close(fast.pull_back(X, C, mode), slow.pull_back(X, C, mode), dtype, "input", terms["input"])}
        G = rng.standard_normal(g.shape)
        pulled = (net.pull_back_representation(X, G, mode) for net in (fast, slow))
        sizes["pulled"] = close(*pulled, dtype, "pulled", terms["pulled"])
        ours, theirs = (net.weights_grad(X, C, mode) for net in (fast, slow))
        assert ours.keys() == theirs.keys()
        flat = [np.concatenate([side[name].ravel() for name in theirs]) for side in (ours, theirs)]
        sizes["weights"] = close(*flat, dtype, "weights", terms["weights"])
        terms = sizes
        if not terms["input"]:  # every ReLU is shut: nothing says how large terms are
            return


BLOCKS = {
    "in a row": [Convolution(5), ReLU(), Convolution(9, 1), BatchNorm(), ReLU(), Convolution(3, 5, bias=True), ReLU()],
    "norms of all": [BatchNorm(), ReLU(), BatchNorm(), Convolution(6), BatchNorm(), BatchNorm(), ReLU(), ReLU()],
    "no ReLU": [Convolution(7), BatchNorm(), Convolution(4, 1), BatchNorm(), AveragePool(2)],
    "pools": [Convolution(4), BatchNorm(), ReLU(), AveragePool(2), Convolution(5), SumPool(2), BatchNorm(), ReLU()],
    "smooth": [Convolution(6), ReLU(3, 0.5), Convolution(6), BatchNorm(), ReLU(2, 1.5), Convolution(4, 1), ReLU(2)],
    "sums of views": [Convolution(4), BatchNorm(), ReLU(), Residual([Convolution(4), BatchNorm(), ReLU()],
                      [Convolution(4), BatchNorm()]), Residual([ReLU(), Convolution(4)]), BatchNorm()],
    "sums twice read": [Convolution(4), Residual([Convolution(4)]), Residual([ReLU(), Convolution(4), BatchNorm()]),
                        ReLU(), Residual([Residual([Convolution(4), BatchNorm(), ReLU(), Convolution(4)])]), ReLU()],
    "the image itself": [Residual([Convolution(3, 1)]), ReLU(), Residual([BatchNorm()]), Convolution(2)],
    "normalised": [Normalise((0.2, 0.3, 0.4), (0.5, 0.6, 0.7)), Residual([Convolution(3)]), Convolution(4), ReLU()],
    "both norms": [Normalise((0.2, 0.3, 0.4), (0.5, 0.6, 0.7)), BatchNorm(), Normalise((0, 0, 0), (2, 2, 2)), ReLU(),
                   Convolution(5, stride=2), Normalise((0, 0, 0, 1, 1), (1, 2, 2, 1, 1)), Convolution(4)],
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_that_nobody_tuned(name, dtype):
    for last in ([AveragePool(), Linear(4)], [Linear(3, bias=False)], [SumPool(), BatchNorm(), ReLU(), Linear(5)]):
        if len(last) == 4:  # a vector has no pixels for a batch norm
            last = [SumPool(), Linear(5)]
        agree(*pair([*BLOCKS[name], *last], (3, 8, 12), dtype), 5, dtype)


def test_a_linear_layer_alone():
    agree(*pair([Linear(3)], (2, 5, 4), "float64"), 6, "float64")


CHANNELS = st.sampled_from([1, 2, 3, 5, 8, 13, 16, 17, 33, 40])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_convolution(data):
    """Windows, strides, paddings, sides and numbers of images that no kernel was written for."""
    draw = data.draw
    sides = draw(st.tuples(st.integers(1, 17), st.integers(1, 17)))
    layers, now = [], sides
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride = draw(st.sampled_from([1, 2, 3, 5])), draw(st.sampled_from([1, 1, 2, 3]))
        padding = draw(st.integers(0, 3))
        if min(now) + 2 * padding < kernel:
            continue
        layers += [Convolution(draw(CHANNELS), kernel, stride, padding, draw(st.booleans())), BatchNorm(), ReLU()]
        now = tuple((n + 2 * padding - kernel) // stride + 1 for n in now)
    n = draw(st.integers(2, 9))
    dtype = draw(st.sampled_from(["float64", "float32"]))
    slow, fast = pair([*layers, AveragePool(), Linear(3)], (draw(CHANNELS), *sides), dtype)
    # In training mode a batch norm divides by the deviation of what it sees.  Where that is small beside the mean, of
    # a few numbers or at a border of zeros, it divides rounding too, which is judged in evaluation mode alone.
    X = np.random.default_rng(0).random((n, *slow.sample_shape)).astype(dtype)
    seen = slow.engine.forward(slow.arrays(), X, "train").statistics.values()
    fine = dtype == "float64" and all((variance > 0.01 * (mean**2 + 0.01)).all() for mean, variance in seen)
    agree(slow, fast, n, dtype, modes=("evaluate", "train") if fine else ("evaluate",))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_wide_layers(dtype):
    layers = [Convolution(300), BatchNorm(), ReLU(), Residual([Convolution(300), BatchNorm()]), ReLU(), Convolution(90)]
    agree(*pair([*layers, AveragePool(), Linear(3)], (3, 9, 7), dtype), 5, dtype)


NETS = {
    "resnet": lambda dtype: ResNet18(8, (1, 13, 13), dtype=dtype),
    "wide": lambda dtype: WideResNet(10, 2, (3, 9, 9), dtype=dtype),
    "wide layers": lambda dtype: ResNet18(48, (3, 12, 12), dtype=dtype),
}


def answers(net, n=10):
    rng = np.random.default_rng(0)
    X, y = rng.random((n, *net.sample_shape)).astype(net.dtype), rng.integers(10, size=n)
    loss, gradient = net.loss_and_grad(X, y, update_statistics=False)
    C = np.ones((n, 10))
    found = [loss, *gradient.values()]
    return found + [ask for mode in ("evaluate", "train") for ask in (net.logits(X, mode), net.pull_back(X, C, mode))]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", NETS)
def test_threads_do_not_change_a_bit(name, dtype, set_threads):
    net, found = NETS[name](dtype), []
    for threads in (1, 2, 3, 1):
        set_threads(threads)
        found.append(answers(net))
    for other in found[1:]:
        for a, b in zip(found[0], other):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_the_same_input_has_the_same_bits(times, set_threads):
    """A race between threads would show here."""
    set_threads(2)
    net = NETS["resnet"]("float32")
    first = answers(net)
    for _ in range(times):
        for a, b in zip(first, answers(net)):
            np.testing.assert_array_equal(a, b)


def test_what_was_answered_stays_as_it_was():
    """Plans keep their memory; what they handed out is the caller's."""
    net, rng = ConvNet(4, (1, 9, 9)), np.random.default_rng(0)
    X, y = rng.random((2, 6, 1, 9, 9)).astype(np.float32), np.zeros(6, int)
    first = net.loss_and_grad(X[0], y)[1]
    kept = {name: g.copy() for name, g in first.items()}
    F, dX = net.logits(X[0]), net.pull_back(X[0], np.ones((6, 10)))
    held = F.copy(), dX.copy()
    for _ in range(3):
        other = net.loss_and_grad(X[1], y)[1]
        net.logits(X[1])
        net.pull_back(X[1], np.ones((6, 10)))
        assert any((other[name] != kept[name]).any() for name in kept)
    for name, g in first.items():
        np.testing.assert_array_equal(g, kept[name])
    np.testing.assert_array_equal(F, held[0])
    np.testing.assert_array_equal(dX, held[1])


def test_a_pass_that_is_not_yet_pulled_back_is_not_overwritten():
    net = ConvNet(4, (1, 9, 9), dtype="float64")
    rng = np.random.default_rng(1)
    X, G, engine = rng.random((2, 5, 1, 9, 9)), rng.standard_normal((5, 10)), net.engine
    passed = [engine.forward(net.arrays(), x, "train", keep=True) for x in X]
    ours = [engine.backward(net.arrays(), p, G)[0] for p in passed]
    reference = get_engine("numpy")(net.program)
    for x, dX in zip(X, ours):
        theirs = reference.backward(net.arrays(), reference.forward(net.arrays(), x, "train", keep=True), G)[0]
        np.testing.assert_allclose(dX, theirs, rtol=0, atol=1e-11 * np.abs(theirs).max())


def test_several_threads_of_python_ask_at_once():
    net, rng = ConvNet(4, (1, 9, 9)), np.random.default_rng(2)
    batches = rng.random((6, 20, 1, 9, 9)).astype(np.float32)
    C = np.ones((20, 10))

    def ask(X):
        return net.logits(X, "train"), net.pull_back(X, C), net.pull_back(X, C, "train"), net.logits(X)

    alone = [ask(X) for X in batches]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(5):
            for one, other in zip(alone, pool.map(ask, batches)):
                for a, b in zip(one, other):
                    np.testing.assert_array_equal(a, b)


def test_other_weights_are_seen():
    """A plan reads the arrays themselves: what training changes in place, and others when they are given."""
    net = ConvNet(4, (1, 9, 9), dtype="float64")
    X = np.random.default_rng(0).random((5, 1, 9, 9))
    before = net.logits(X)
    net.parameters["fc.bias"][...] += 1
    np.testing.assert_allclose(net.logits(X), before + 1, rtol=1e-12)
    doubled = {name: 2 * a if name.startswith("fc") else a for name, a in net.arrays().items()}
    F = net.engine.forward(doubled, X, "evaluate").values[-1]
    np.testing.assert_allclose(F, 2 * (before + 1), rtol=1e-12)


def test_numbers_of_another_type_are_no_other_numbers():
    """Compiled code is found by dtypes of arrays; what is no array must have one type always."""
    for eps in (1, 1e-5):
        agree(*pair([Convolution(4), BatchNorm(eps=eps, momentum=1), ReLU(2, rho=1), SumPool(), Linear(3)], (1, 6, 6),
                    "float64"), 5, "float64")  # fmt: skip


def test_arguments_in_words():
    """As native code reads them: addresses, sizes, bits of floats."""
    a = np.arange(3.0)
    assert entries.words((a, 7)) == [a.ctypes.data, 3, 7]
    assert entries.words(np.float32(1)) == [0x3F800000]
    assert entries.words(1.0) == entries.words(np.float64(1)) == [0x3FF0000000000000]
    for held in (np.zeros((2, 2)), np.zeros(6)[::2]):
        with pytest.raises(TypeError, match="kernels read flat ones"):
            entries.words(held)


def test_weights_are_counted_once_and_not_for_every_image():
    net = ResNet18(64, (3, 32, 32))
    one, two = (net.engine.memory(n, 4, True) for n in (1, 2))
    n = net._part(10**6, "evaluate", True)
    assert n > 50
    assert one + (n - 1) * (two - one) <= CHUNK_BYTES < one + n * (two - one)


@pytest.mark.parametrize(("net", "n"), [
    (ResNet18(8, (1, 28, 28)), 20), (WideResNet(10, 2), 10), (ConvNet(8, (3, 64, 64)), 10),
    (ResNet18(4, (1, 8, 8), dtype="float64"), 60), (ResNet18(48, (3, 16, 16)), 16),
], ids=str)  # fmt: skip
def test_the_memory_that_is_said_is_enough(net, n, monkeypatch):
    """All that a step of training took from the pools, and the threads' own."""
    monkeypatch.setattr("advfeat.kernels.layers.cpu.engine.PLAN_BYTES", 0)
    net.loss_and_grad(np.zeros((n, *net.sample_shape), net.dtype), np.zeros(n, int))
    gc.collect()
    held = sum(a.nbytes for pool in net.engine.pools.values() for several in pool.free.values() for a in several)
    held += sum(a.nbytes for threads in net.engine.scratch.values() for a in threads.values())
    assert held <= net.memory(n) <= 4 * held


def test_memory_comes_back(monkeypatch):
    """Of plans that are too large to be kept: the same step again takes nothing new."""
    monkeypatch.setattr("advfeat.kernels.layers.cpu.engine.PLAN_BYTES", 0)
    taken = []
    monkeypatch.setattr(team, "lines", lambda *args: taken.append(args) or lines(*args))
    net = ConvNet(8, (3, 33, 33))
    X, y = np.zeros((40, 3, 33, 33), np.float32), np.zeros(40, int)
    for _ in range(3):
        before = len(taken)
        net.loss_and_grad(X, y)
        gc.collect()
    assert before > 0
    assert taken[before:] == []


def test_kept_plans_are_bounded_in_number_and_memory_and_answer_the_same(monkeypatch):
    net = ConvNet(4, (1, 8, 8), stages=2, rng=0)
    X = np.random.default_rng(0).random((30, 1, 8, 8)).astype(np.float32)
    wanted = net.logits(X)

    def ask():
        for n in (*range(1, 31), 3, 29):
            np.testing.assert_array_equal(net.logits(X[:n]), wanted[:n])
        return [plan.size for plan in net.engine.plans.values()]

    everything = ask()
    assert len(everything) == 30  # none is planned twice
    plans = dict(net.engine.plans)
    ask()
    assert all(net.engine.plans[key] is plan for key, plan in plans.items())
    monkeypatch.setattr(engine, "PLANS_BYTES", sum(everything) // 4)
    net.engine.plans.clear()
    some = ask()
    assert 0 < len(some) < 30
    assert sum(some) <= sum(everything) // 4
    monkeypatch.setattr(engine, "PLANS_BYTES", 2**31)
    monkeypatch.setattr(engine, "PLANS", 5)
    net.engine.plans.clear()
    assert len(ask()) == 5

"""Images whose representation is another's: gradients, steps, starts in turn, and that no image hangs on another."""

import numpy as np
import pytest
from advfeat.kernels.layers import formulas
from image_networks import images, network

from advfeat.images import ConvNet, Linear, Network, ReLU
from advfeat.images.inversion import Inversion, invert, moved


def small(dtype="float64", seed=0):
    return ConvNet(6, (1, 8, 8), stages=2, dtype=dtype, rng=seed)


def problem(net, n=5, starts=2, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.random((n, *net.sample_shape)).astype(net.dtype)
    begin = rng.random((starts, n, *net.sample_shape)).astype(net.dtype)
    return net.representation(X).astype(np.float64), begin


@pytest.mark.parametrize("name", ["resnet18-w4-7x7", "preact-w4-7x7", "wrn-10-1-28x28"])
def test_one_pass_answers_as_two(name, engines):
    net = network(name)
    X, _ = images(name, net, 3)
    g = net.representation(X)
    C = np.random.default_rng(0).normal(size=g.shape)
    found, pulled = net.representation_and_pull_back(X, lambda g, part: C[part])
    np.testing.assert_array_equal(found, g)
    np.testing.assert_array_equal(pulled, net.pull_back_representation(X, C))


@pytest.mark.parametrize("name", ["resnet18-w4-7x7", "resnet18-w8-28x28", "resnet18-w4-8x8-smooth"])
def test_straight_through_pulls_back_from_in_front_of_the_last_relu(name, engines):
    """The gradient of sum C g where the last ReLU is replaced by the identity around its own answers: that of
    sum C' z, z what the ReLU reads and C' what the pool gives C back to it."""
    net = network(name)
    X, _ = images(name, net, 3)
    relu, pool = net.program.operations[net.program.representation - 2 : net.program.representation]
    assert (relu.kind, pool.kind) == ("relu", "sum_pool")
    C = np.random.default_rng(0).normal(size=net.representation(X).shape)
    found, pulled = net.representation_and_pull_back(X, lambda g, part: C[part], straight_through=True)
    np.testing.assert_allclose(found, net.representation(X), rtol=1e-12, atol=1e-12)
    sides = net.program.shapes[net.program.representation - 1][1:]
    shaped = C.reshape(len(C), *net.program.shapes[net.program.representation])
    back = formulas.sum_pool_gradient(shaped, sides, pool.options["size"]) * pool.options["scale"]
    wanted = net._pulled(X, back, "evaluate", relu.inputs[0])[0]
    np.testing.assert_allclose(pulled, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
    plain = net.pull_back_representation(X, C)
    assert np.abs(pulled - plain).max() > 0.01 * np.abs(plain).max()


def test_straight_through_needs_a_relu_and_a_pool():
    net = Network([Linear(3), ReLU(), Linear(2)], (1, 2, 2), dtype="float64")
    with pytest.raises(ValueError, match="not a ReLU and a pool"):
        net.representation_and_pull_back(np.zeros((1, 1, 2, 2)), lambda g, part: g, straight_through=True)


@pytest.mark.parametrize("optimiser", ["gradient", "adam"])
def test_steps_are_the_formulas(optimiser):
    net, steps = small(), 4
    targets, begin = problem(net, 3, 1)
    o = Inversion(optimiser=optimiser, step=0.03, decay="linear", n_steps=steps, tolerance=1e-9)
    X, best = begin[0].copy(), np.full(3, np.inf)
    m = v = np.zeros_like(X)
    for t in range(steps + 1):
        difference = net.representation(X) - targets
        length = np.linalg.norm(difference, axis=1)
        best = np.minimum(best, length / np.linalg.norm(targets, axis=1))
        C = difference / length[:, None] / np.linalg.norm(targets, axis=1)[:, None]
        G, rate = net.pull_back_representation(X, C), 0.03 * (1 - t / steps)
        if optimiser == "adam":
            m, v = 0.9 * m + 0.1 * G, 0.999 * v + 0.001 * G**2
            X = X - rate * (m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
        else:
            X = X - rate * G / np.linalg.norm(G.reshape(3, -1), axis=1).reshape(3, 1, 1, 1)
        X = np.clip(X, 0, 1)
    np.testing.assert_allclose(invert(net, targets, begin, o).distance, best, rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimiser", ["gradient", "adam"])
def test_an_image_is_the_same_alone_and_among_others(optimiser, dtype):
    """Also where others converge on the way and leave, and where they begin again."""
    net = small(dtype)
    targets, begin = problem(net, 6, 3)
    step, tolerance = {"gradient": (0.05, 0.15), "adam": (0.002, 0.13)}[optimiser]
    o = Inversion(optimiser=optimiser, step=step, n_steps=25, tolerance=tolerance, enough=tolerance)
    whole = invert(net, targets, begin, o)
    assert len(set(whole.start.tolist())) > 1
    for i in range(6):
        alone = invert(net, targets[[i]], begin[:, [i]], o)
        for name in ("X", "distance", "start", "steps"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(whole, name)[i])


def test_starts_are_tried_in_turn_until_an_image_has_converged():
    net = small()
    targets, begin = problem(net, 4, 3)
    rng = np.random.default_rng(0)
    X = rng.random((4, *net.sample_shape))  # the images of the targets
    begin[1, 0], begin[0, 1] = X[0], X[1]
    said = []
    found = invert(net, targets, begin, Inversion(n_steps=2, step=1e-3), progress=lambda *at: said.append(at))
    assert found.start[:2].tolist() == [1, 0]
    assert found.distance[:2].max() < 1e-12
    assert found.steps[:2].tolist() == [0, 0]
    np.testing.assert_array_equal(found.X[0], X[0])
    assert (found.distance[2:] > 0.02).all()
    # every start begins with what has not converged: all, without the second image, without the first
    begun = {what.split(", ")[0]: what.split(", ")[1] for what, _ in reversed(said)}
    assert begun == {f"start {n} of 3": f"{left} images left" for n, left in ((3, 2), (2, 3), (1, 4))}
    assert [share for _, share in said] == sorted(share for _, share in said)
    assert said[-1][1] == 1


def test_the_closest_point_of_all_starts_is_kept():
    net = small()
    targets, begin = problem(net, 5, 3)
    o = Inversion(n_steps=10, step=0.02, tolerance=1e-6, enough=1e-6)
    each = [invert(net, targets, begin[[s]], o).distance for s in range(3)]
    found = invert(net, targets, begin, o)
    np.testing.assert_array_equal(found.distance, np.min(each, axis=0))
    np.testing.assert_array_equal(found.start, np.argmin(each, axis=0))
    distance = np.linalg.norm(net.representation(found.X) - targets, axis=1) / np.linalg.norm(targets, axis=1)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-10)


def test_an_image_that_is_close_enough_has_no_other_start():
    net = small()
    targets, begin = problem(net, 5, 2)
    o = Inversion(n_steps=10, step=0.02, tolerance=1e-6)
    first = invert(net, targets, begin[:1], o).distance
    enough = float(np.median(first))
    said, o = [], Inversion(n_steps=10, step=0.02, tolerance=1e-6, enough=enough)
    both = invert(net, targets, begin, o, progress=lambda what, _: said.append(what))
    np.testing.assert_array_equal(both.distance[first <= enough], first[first <= enough])
    assert (both.start[first <= enough] == 0).all()
    assert set(said) == {"start 1 of 2, 5 images left", f"start 2 of 2, {(first > enough).sum()} images left"}
    assert (first > enough).sum() == 2


@pytest.mark.parametrize("optimiser", ["gradient", "adam"])
def test_images_stay_in_box_and_ball(optimiser):
    net = small("float32")
    targets, begin = problem(net, 4, 1)
    found = invert(net, targets, begin, Inversion(optimiser=optimiser, step=0.5, n_steps=10, radius=0.7))
    far = np.linalg.norm((found.X.astype(np.float64) - begin[0]).reshape(4, -1), axis=1)
    assert far.max() <= 0.7 * (1 + 1e-5)
    assert far.max() > 0.6
    assert found.X.min() >= 0
    assert found.X.max() <= 1


def test_a_target_of_zero_is_divided_by_nothing():
    net = small()
    targets, begin = problem(net, 3, 1)
    found = invert(net, targets * [[1], [0], [1]], begin, Inversion(n_steps=3))
    assert found.distance[1] == pytest.approx(np.linalg.norm(net.representation(found.X[[1]])))


def test_a_gradient_of_zero_moves_nothing():
    X, o = np.full((2, 1, 2, 2), 0.5), Inversion(optimiser="gradient", step=0.1)
    np.testing.assert_array_equal(moved(X, np.zeros_like(X), X, 0, np.zeros((2, *X.shape)), o, (0, 1)), X)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_steps": 0}, "n_steps = 0: must be an integer >= 1"),
        ({"radius": 0.0}, "radius = 0.0: must be a number, finite and > 0"),
        ({"tolerance": 0.0}, "tolerance = 0.0: must be a number, finite and > 0"),
        ({"step": -1.0}, "step = -1.0: must be a number, finite and > 0"),
        ({"optimiser": "sgd"}, "optimiser = 'sgd'"),
        ({"decay": "exponential"}, "decay = 'exponential'"),
    ],
)
def test_bad_options(changes, said):
    with pytest.raises(ValueError, match=said):
        Inversion(**changes)


def test_bad_targets_and_starts():
    net = small()
    targets, begin = problem(net, 3, 1)
    with pytest.raises(ValueError, match="1 of them are not finite"):
        invert(net, targets * [[1], [np.nan], [1]], begin)
    with pytest.raises(ValueError, match=r"targets have shape \(3, 11\)"):
        invert(net, targets[:, 1:], begin)
    with pytest.raises(ValueError, match="images must lie in"):
        invert(net, targets, begin + 1)
    with pytest.raises(ValueError, match="shape"):
        invert(net, targets, begin[..., 1:])

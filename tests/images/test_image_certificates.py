"""Certificates of networks of layers: no point of the ball below a bound, and the relaxation above intervals."""

from fractions import Fraction

import numpy as np
import pytest
from advfeat.kernels import formulas
from hypothesis import given, settings
from hypothesis import strategies as st

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
    certify,
)
from advfeat.images.certify import Bounds, margin_bound
from advfeat.robustness.evaluate import robust_accuracy

NETS = {
    "convnet": lambda: ConvNet(4, (1, 8, 8), stages=2, dtype="float64", rng=0),
    "three stages": lambda: ConvNet(3, (1, 9, 7), stages=3, dtype="float64", rng=1),
    "resnet": lambda: ResNet18(2, (1, 7, 7), dtype="float64", rng=2),
    "smooth": lambda: ConvNet(3, (2, 6, 6), stages=2, activation=ReLU(3, 0.4), dtype="float64", rng=3),
    "mixed": lambda: Network([Normalise((0.3, 0.5), (0.4, 0.2)), Convolution(4, bias=True), ReLU(), SumPool(2),
                              Residual([Convolution(4), BatchNorm(), ReLU()]), AveragePool(), Linear(5)], (2, 6, 6),
                             dtype="float64", rng=4),
    "linear": lambda: Network([Linear(4)], (1, 3, 3), dtype="float64", rng=5),
}  # fmt: skip


def network(name):
    """With arrays as after a training."""
    net, rng = NETS[name](), np.random.default_rng(0)
    for key, a in net.arrays().items():
        if a.ndim == 1:
            a[...] = rng.uniform(0.5, 2, a.shape) if key.endswith(("weight", "var")) else rng.normal(0, 0.3, a.shape)
    return net


def images(net, n=4, seed=0):
    X = np.random.default_rng(seed).random((n, *net.sample_shape))
    return X, net.logits(X).argmax(axis=1)


def margins(net, X, y):
    return formulas.margin(net.logits(X).astype(np.float64)[None], y[None])[0]


def points(net, X, eps, norm, rng, corners):
    """Random points of the balls, in the box: on the sphere, or at its corners."""
    d = rng.standard_normal(X.shape)
    if norm == "linf":
        d = np.sign(d) if corners else rng.uniform(-1, 1, X.shape)
    else:
        d /= np.linalg.norm(d.reshape(len(X), -1), axis=1).reshape(-1, 1, 1, 1)
    return np.clip(X + eps * d, 0, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("method", ["interval", "linear"])
@pytest.mark.parametrize("name", NETS)
def test_no_point_lies_below_a_bound(name, method, norm):
    net = network(name)
    X, y = images(net)
    rng = np.random.default_rng(1)
    for eps in (0.003, 0.03, 0.3):
        bound = margin_bound(net, X, y, eps, norm=norm, method=method)
        for trial in range(60):
            there = points(net, X, eps, norm, rng, trial % 2)
            assert (margins(net, there, y) >= bound).all()
        Z = X.copy()  # steps down the margin
        for _ in range(20):
            F = net.logits(Z)[None]
            C = formulas.objective_gradient(F, y[None], formulas.MARGIN)[0]
            g = net.pull_back(Z, C)
            d = Z + 0.3 * eps * (np.sign(g) if norm == "linf" else g / np.linalg.norm(g)) - X
            size = np.linalg.norm(d.reshape(len(X), -1), axis=1).reshape(-1, 1, 1, 1)
            d = np.clip(d, -eps, eps) if norm == "linf" else d * np.minimum(1, eps / np.maximum(size, 1e-30))
            Z = np.clip(X + d, 0, 1)
            assert (margins(net, Z, y) >= bound).all()


@pytest.mark.parametrize("method", ["interval", "linear"])
def test_no_bound_exceeds_the_exact_one_where_coefficients_cancel(method):
    """Of a network whose ReLUs are all open the exact bound is a . x - eps |a|_1, here by fractions: its weights of 1e8
    cancel to an a of about 1, so that float64 loses eight of its digits on the way."""

    def exactly(values):
        return [Fraction(float(value)) for value in values]

    for seed in range(40):
        rng, eps = np.random.default_rng(seed), 2.0**-7
        net = Network([Linear(6, bias=False), ReLU(), Linear(2, bias=False)], (1, 2, 2), dtype="float64")
        first, last = net.arrays().values()
        first[:3] = rng.uniform(0.5, 1.5, (3, 4))
        first[3:] = first[:3] * (1 + 1e-8 * rng.normal(0, 1, (3, 1)))
        last[:, :3] = rng.normal(0, 1e8, (2, 3))
        last[:, 3:] = -last[:, :3]
        X = rng.random((1, 1, 2, 2)) * 0.9 + 0.05
        label = int(net.logits(X).argmax())
        rows = [exactly(row) for row in first]
        difference = [p - q for p, q in zip(exactly(last[label]), exactly(last[1 - label]))]
        a = [sum(c * row[j] for c, row in zip(difference, rows)) for j in range(4)]
        least = sum(c * x for c, x in zip(a, exactly(X.ravel()))) - Fraction(eps) * sum(map(abs, a))
        assert Fraction(float(margin_bound(net, X, np.array([label]), eps, method=method)[0])) <= least


@pytest.mark.slow
def test_no_point_of_a_million_lies_below_a_bound():
    net = network("convnet")
    X, y = images(net, 10)
    rng, eps = np.random.default_rng(2), 0.02
    bound = margin_bound(net, X, y, eps)
    for trial in range(1000):
        for _ in range(10):
            many = points(net, np.repeat(X, 10, axis=0), eps, "linf", rng, trial % 2)
            assert (margins(net, many, np.repeat(y, 10)) >= np.repeat(bound, 10)).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", NETS)
def test_the_relaxation_is_never_below_intervals(name, norm):
    net = network(name)
    X, y = images(net)
    for eps in (0.001, 0.01, 0.1):
        weak, strong = (margin_bound(net, X, y, eps, norm=norm, method=m) for m in ("interval", "linear"))
        assert (strong >= weak - 1e-9 * (1 + np.abs(weak))).all()
        if name not in ("linear",):
            assert (strong > weak).all()


@pytest.mark.parametrize("name", NETS)
def test_without_a_ball_bounds_are_margins(name):
    net = network(name)
    X, y = images(net)
    for method in certify.METHODS:
        bound = margin_bound(net, X, y, 0.0, method=method)
        assert (bound <= margins(net, X, y)).all()
        atol = 1e-4 if (name, method) == ("resnet", "interval") else 1e-7  # intervals of 20 layers enlarge roundings
        np.testing.assert_allclose(bound, margins(net, X, y), atol=atol)


def test_a_linear_network_has_its_exact_least_margin():
    net = network("linear")
    X = np.full((1, 1, 3, 3), 0.5)
    y, A = net.logits(X).argmax(axis=1), net.parameters["0.weight"]
    for norm, dual in (("linf", 1), ("l2", 2)):
        rows = A[y[0]] - np.delete(A, y[0], axis=0)
        b = net.parameters["0.bias"]
        exact = (rows @ X.ravel() + b[y[0]] - np.delete(b, y[0]) - 0.1 * np.linalg.norm(rows, dual, axis=1)).min()
        np.testing.assert_allclose(margin_bound(net, X, y, 0.1, norm=norm), exact, rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-4, 0.5), st.sampled_from(sorted(NETS)))
def test_boxes_hold_every_value_of_a_point(seed, eps, name):
    net = network(name)
    X, _ = images(net, 2, seed)
    there = points(net, X, eps, "linf", np.random.default_rng(seed), seed % 2)
    bounds = Bounds(net, X, eps)
    passed = Network.from_options(arrays=net.arrays(), dtype="float64", **net.options | {"backend": "numpy"})
    values = passed.engine.forward(net.arrays(), there, "evaluate", keep=True).values
    for box, value in zip(bounds.boxes, values):
        assert (value >= box.low).all()
        assert (value <= box.high).all()


@pytest.mark.parametrize("what", ["low_slope", "high_move", "radius"])
def test_an_unsound_bound_is_caught(what, monkeypatch):
    """Seen failing: a relaxation with a slope that is too steep, a chord that is too low, balls that are too small."""
    if what == "radius":
        whole = certify.Box.between.__func__
        small = classmethod(lambda cls, *args: (box := whole(cls, *args))._replace(radius=0.9 * box.radius))
        monkeypatch.setattr(certify.Box, "between", small)
    else:
        plain = certify.relaxed
        moved = {"low_slope": lambda r: r._replace(low_slope=r.low_slope + 0.3),
                 "high_move": lambda r: r._replace(high_move=r.high_move - 0.02)}[what]  # fmt: skip
        monkeypatch.setattr(certify, "relaxed", lambda *args: moved(plain(*args)))

    def everything():
        for method in certify.METHODS:
            for name in ("convnet", "linear"):
                test_no_point_lies_below_a_bound(name, method, "linf")
                test_without_a_ball_bounds_are_margins(name)

    with pytest.raises(AssertionError):
        everything()


def test_the_evaluator_counts_what_is_certified():
    net = network("convnet")
    X, y = images(net, 12)
    shares = {}
    for method in ("interval", "linear"):
        found = robust_accuracy(net, (X, y), eps=0.01, certificate=method, n_steps=5)
        assert not (found.certified & ~found.standing).any()
        bound = margin_bound(net, X, y, 0.01, method=method)
        np.testing.assert_array_equal(found.certified, bound > 0)
        shares[method] = found.certified_accuracy
    assert shares["linear"] >= shares["interval"]
    assert robust_accuracy(net, (X, y), eps=0.01, n_steps=2).certified.sum() == (
        margin_bound(net, X, y, 0.01, method="interval") > 0).sum()  # fmt: skip


def test_bad_arguments():
    net = network("linear")
    X, y = images(net)
    with pytest.raises(ValueError, match="method = 'lp': unknown"):
        margin_bound(net, X, y, 0.1, method="lp")
    with pytest.raises(ValueError, match="norm = 'l1': unknown"):
        margin_bound(net, X, y, 0.1, norm="l1")

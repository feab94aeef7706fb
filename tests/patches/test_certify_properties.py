"""What must hold for the certificates of every network: order, monotony, nesting, symmetries, batching."""

import functools
import itertools

import numpy as np
import pytest
from global_search import ORDER, random_ball
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import random_problem
from tolerances import CERTIFICATE

from advfeat import PatchCNN
from advfeat.patches.certify import certify, robust_radius

METHODS = ("interval", "linear", "tangents", "branch_and_bound")
SETS = [(norm, budget) for norm in ("linf", "l2", "l1") for budget in ("patch", "global")]

quick = settings(max_examples=25, deadline=None)
sets, methods = st.sampled_from(SETS), st.sampled_from(METHODS)


@st.composite
def problems(draw, dtype="float64", N=None):
    """Network, samples, their labels (mostly the predicted ones), a radius that certifies some, a generator."""
    k, m, P = draw(st.integers(2, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    N, d, q = N or draw(st.integers(1, 5)), draw(st.integers(1, 6)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    net = PatchCNN(rng.standard_normal((k, m, d)).astype(dtype), q, draw(st.sampled_from([0.1, 1.0, 30.0])))
    X = rng.standard_normal((N, P, d)).astype(dtype)
    y = np.where(rng.random(N) < 0.9, net.logits(X).argmax(axis=-1), rng.integers(k, size=N))
    return net, X, y, draw(st.sampled_from([0.01, 0.03, 0.1, 0.3, 1.0])), rng


def magnitude(net, X, eps):
    size = np.linalg.norm(net.weights.astype(float), axis=-1).sum(axis=(1, 2)).max()
    return size * (np.linalg.norm(X, axis=-1) + eps).sum(axis=-1).max()


def assert_close(value, truth, scale):
    np.testing.assert_allclose(value, truth, rtol=0, atol=CERTIFICATE * scale)


# ------------------------------------------------------------------ thousands of networks
def batch_of_networks(seed, R=700, N=1, P=2, d=3, k=3, m=2, q=3, rho=0.7):
    """R networks as one batch, and samples labelled by them."""
    W, X, _ = random_problem(seed, (R, N, P, d, k, m))
    net = PatchCNN(W, q, rho)
    return net, X, net.logits(X).argmax(axis=-1)


BATCHES = {"cubic": {}, "square": {"q": 2, "rho": 3.0, "m": 3}, "wide": {"d": 8, "P": 3, "q": 4, "rho": 0.1}}
RADII = (0.05, 0.3)


@functools.cache
def certificates(name):
    """The batch, and its Certificate for every set, radius and method."""
    net, X, y = batch_of_networks(list(BATCHES).index(name), **BATCHES[name])
    table = {
        (norm, budget, eps, method): certify(net, X, y, eps, norm=norm, budget=budget, method=method, max_nodes=8)
        for (norm, budget), eps, method in itertools.product(SETS, RADII, METHODS)
    }
    return net, X, y, table


@pytest.mark.parametrize("name", BATCHES)
def test_no_sample_is_both_and_every_sample_is_one(name):
    for (norm, budget, eps, method), one in certificates(name)[-1].items():
        assert not (one.certified & one.broken).any()
        np.testing.assert_array_equal(one.undecided, ~one.certified & ~one.broken)
        np.testing.assert_array_equal(one.certified, one.lower > 0)
        np.testing.assert_array_equal(one.broken, one.upper <= 0)
        assert (one.lower <= one.upper).all()
        assert not np.isnan(one.lower).any()
        assert (one.norm, one.budget, one.method) == (norm, budget, method)
        np.testing.assert_array_equal(one.eps, np.full(one.lower.shape, eps))


@pytest.mark.parametrize("name", BATCHES)
def test_the_points_are_in_the_ball_and_have_their_margin(name):
    net, X, y, table = certificates(name)
    for (norm, budget, eps, _), one in table.items():
        searched = np.isfinite(one.upper)
        margin = net.margin(one.X_adv, y)
        assert (np.abs(margin - one.upper)[searched] <= 1e-12 * magnitude(net, X, eps)).all()
        delta = one.X_adv - X
        delta = delta.reshape(*delta.shape[:2], -1) if budget == "global" else delta
        size = np.linalg.norm(delta, ORDER[norm], axis=-1).reshape(*y.shape, -1).max(axis=-1)
        assert size[searched].max(initial=0) <= eps * (1 + 1e-12) + 1e-14


@pytest.mark.parametrize("name", BATCHES)
def test_methods_are_ordered(name):
    net, X, _, table = certificates(name)
    slack = CERTIFICATE * magnitude(net, X, max(RADII))
    for (norm, budget), eps in itertools.product(SETS, RADII):
        interval, linear, tangents, branched = (table[norm, budget, eps, method].lower for method in METHODS)
        assert (interval <= tangents + slack).all()
        assert (linear <= tangents + slack).all()
        assert (tangents <= branched + slack).all() or (branched[tangents > branched + slack] > 0).all()
        assert (interval < tangents - slack).any()


@pytest.mark.parametrize("name", BATCHES)
def test_certified_never_grows_and_broken_never_shrinks_with_the_radius(name):
    _, _, _, table = certificates(name)
    for (norm, budget), method in itertools.product(SETS, METHODS):
        by_radius = [table[norm, budget, eps, method] for eps in RADII]
        for small, large in itertools.combinations(by_radius, 2):
            assert not (large.certified & small.broken).any()
            if method == "interval":
                assert (large.lower <= small.lower).all()
        certified = [one.certified.sum() for one in by_radius]
        assert sorted(certified, reverse=True) == certified
    best = [table["linf", "patch", eps, "branch_and_bound"].certified.mean() for eps in RADII]
    assert best[0] > 0.5 > best[-1]


NESTED = [  # smaller set, larger set, the factor on the smaller set's radius at which the inclusion holds
    *(((norm, "global"), (norm, "patch")) for norm in ("linf", "l2", "l1")),
    *((("l1", budget), ("l2", budget)) for budget in ("patch", "global")),
    *((("l2", budget), ("linf", budget)) for budget in ("patch", "global")),
]


@pytest.mark.parametrize("name", BATCHES)
def test_a_bound_on_a_larger_set_holds_on_the_sets_inside(name):
    net, X, _, table = certificates(name)
    rounding = 1e-12 * magnitude(net, X, max(RADII))
    for (inner, outer), eps, method, other in itertools.product(NESTED, RADII, METHODS, METHODS):
        large, small = table[(*outer, eps, method)], table[(*inner, eps, other)]
        assert (large.lower <= small.upper + rounding).all()
        assert not (large.certified & small.broken).any()
    for eps in RADII:
        for one, other in zip(*[[table["linf", b, eps, m] for m in METHODS] for b in ("patch", "global")]):
            np.testing.assert_array_equal(one.lower, other.lower)


@pytest.mark.parametrize("name", BATCHES)
def test_random_points_never_break_a_certified_sample(name):
    net, X, y, table = certificates(name)
    rng, (P, d) = np.random.default_rng(3), X.shape[2:]
    for (norm, budget), eps in itertools.product(SETS, RADII):
        D = P * d if budget == "global" else d
        for _ in range(5):
            delta = rng.permutation(random_ball(rng, (X.size // D, D), eps * (1 - 1e-12), norm)).reshape(X.shape)
            margin = net.margin(X + delta, y)
            for method in METHODS:
                assert (table[norm, budget, eps, method].lower <= margin).all(), method


# ------------------------------------------------------------------ symmetries
def same_bounds(problem, threat, method, other, X, y, factor=1.0, to=lambda eps: eps, tight=("interval", "linear")):
    """`other` on (X, y) at radius to(eps) has `factor` times the bounds: closed forms to rounding, all consistently."""
    net, X0, y0, eps, _ = problem
    norm, budget = threat
    one = certify(net, X0, y0, eps, norm=norm, budget=budget, method=method)
    two = certify(other, X, y, to(eps), norm=norm, budget=budget, method=method)
    assert not (one.certified & two.broken).any()
    assert not (one.broken & two.certified).any()
    scale = magnitude(net, X0, eps)
    assert (one.lower * factor <= two.upper + 1e-12 * factor * scale).all()
    if method in tight:
        assert_close(two.lower / factor, one.lower, scale)


@quick
@given(problems(), sets, methods)
def test_permuted_patches(problem, threat, method):
    net, X, y, _, rng = problem
    same_bounds(problem, threat, method, net, X[:, rng.permutation(X.shape[1])], y)


@quick
@given(problems(), sets, methods)
def test_permuted_neurons_and_classes(problem, threat, method):
    net, X, y, _, rng = problem
    order = rng.permutation(net.shape[0])
    other = net.with_weights(net.W[order][:, rng.permutation(net.shape[1])])
    same_bounds(problem, threat, method, other, X, np.argsort(order)[y])


@quick
@given(problems(), sets, methods)
def test_permuted_and_mirrored_coordinates(problem, threat, method):
    net, X, y, _, rng = problem
    order, sign = rng.permutation(net.shape[2]), rng.choice([-1.0, 1.0], net.shape[2])
    same_bounds(problem, threat, method, net.with_weights(net.W[..., order] * sign), X[..., order] * sign, y)


@quick
@given(problems(), st.sampled_from(["patch", "global"]), methods)
def test_rotated_l2_balls(problem, budget, method):
    net, X, y, _, rng = problem
    turn = np.linalg.qr(rng.standard_normal((net.shape[2],) * 2))[0]
    same_bounds(problem, ("l2", budget), method, net.with_weights(net.W @ turn), X @ turn, y)


@quick
@given(problems(), sets, methods, st.integers(-60, 60), st.integers(-60, 60))
def test_scaled_weights_and_inputs(problem, threat, method, a, b):
    """F(2^a W, 2^b X, 2^(a+b) rho) = 2^(a+b) F: to the bit, for radii scaled by 2^b."""
    net, X, y, eps, _ = problem
    other, options = PatchCNN(net.W * 2.0**a, net.q, net.rho * 2.0 ** (a + b)), {"norm": threat[0], "budget": threat[1]}
    one = certify(net, X, y, eps, method=method, **options)
    two = certify(other, X * 2.0**b, y, eps * 2.0**b, method=method, **options)
    np.testing.assert_array_equal(two.lower, one.lower * 2.0 ** (a + b))
    np.testing.assert_array_equal(two.upper, one.upper * 2.0 ** (a + b))
    np.testing.assert_array_equal(two.X_adv, one.X_adv * 2.0**b)
    np.testing.assert_array_equal(two.nodes, one.nodes)


@quick
@given(problems(), sets, methods)
def test_silent_neurons_and_empty_patches_change_nothing(problem, threat, method):
    net, X, y, _, _ = problem
    other = net.with_weights(np.concatenate([net.W, 0 * net.W[:, :1]], axis=1))
    same_bounds(problem, threat, method, other, X, y)


# ------------------------------------------------------------------ batches, subsets, dtypes
@quick
@given(problems(), sets, methods)
def test_float32_networks_are_certified_for_their_exact_weights(problem, threat, method):
    net, X, y, eps, _ = problem
    single = net.astype("float32")
    one, two = (
        certify(n, X, y, eps, norm=threat[0], budget=threat[1], method=method)
        for n in (single, single.astype("float64"))
    )
    np.testing.assert_array_equal(one.lower, two.lower)
    np.testing.assert_array_equal(one.upper, two.upper)
    assert one.lower.dtype == one.upper.dtype == np.float64


FIELDS = ("lower", "upper", "certified", "broken", "undecided", "nodes", "X_adv")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("norm", "budget"), SETS)
def test_runs_samples_and_radii_are_worked_on_apart(norm, budget, method):
    """A run in a batch is the run alone, a sample is the sample alone, a radius per sample is that radius."""
    net, X, y = batch_of_networks(9, R=3, N=4)
    eps = np.random.default_rng(2).uniform(0.02, 0.5, (3, 4))
    options = {"norm": norm, "budget": budget, "method": method}
    whole = certify(net, X, y, eps, **options)
    for r in range(3):
        alone = certify(net.run(r), X[r], y[r], eps[r], **options)
        for n in range(4):
            one = certify(net.run(r), X[r, n : n + 1], y[r, n : n + 1], float(eps[r, n]), **options)
            for name in FIELDS:
                np.testing.assert_array_equal(getattr(whole, name)[r, n], getattr(alone, name)[n], strict=True)
                np.testing.assert_array_equal(getattr(alone, name)[n], getattr(one, name)[0], strict=True)
    per_run = certify(net, X, y, eps[:, 0], **options)
    np.testing.assert_array_equal(per_run.lower, certify(net, X, y, np.tile(eps[:, :1], 4), **options).lower)


@pytest.mark.parametrize("method", METHODS)
def test_active_samples_are_worked_on_as_if_all_were(method):
    net, X, y = batch_of_networks(10, R=3, N=8)
    active = np.random.default_rng(0).random(y.shape) < 0.5
    some, whole = (certify(net, X, y, 0.2, method=method, active=a) for a in (active, None))
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(some, name)[active], getattr(whole, name)[active])
    assert not (some.certified | some.broken)[~active].any()
    np.testing.assert_array_equal(some.X_adv[~active], X[~active])


@pytest.mark.parametrize(("norm", "budget"), SETS)
def test_radius_zero_and_silent_networks_and_ties(norm, budget):
    net, X, y = batch_of_networks(4, R=2, N=20)
    y[:, ::4] = (y[:, ::4] + 1) % 3
    margin = net.margin(X, y)
    for method in METHODS:
        one = certify(net, X, y, 0, norm=norm, budget=budget, method=method)
        np.testing.assert_array_equal(one.X_adv, X)
        np.testing.assert_array_equal(one.certified, margin > 0)
        assert_close(one.lower[margin > 0], margin[margin > 0], magnitude(net, X, 0))
        assert (one.lower <= margin).all()
        silent = certify(net.with_weights(0 * net.W), X, y, 0.3, norm=norm, budget=budget, method=method)
        twins = net.with_weights(np.tile(net.W[:, :1], (1, 2, 1, 1)))
        tied = certify(twins, X, y % 2, 0.3, norm=norm, budget=budget, method=method)
        for never in (silent, tied):
            assert (never.lower <= 0).all()
            assert never.broken.all()
            np.testing.assert_array_equal(never.X_adv, X)
        wrong = certify(net, X, y, 0.3, norm=norm, budget=budget, method=method)
        assert wrong.broken[margin <= 0].all()
        np.testing.assert_array_equal(wrong.X_adv[margin <= 0], X[margin <= 0])


@quick
@given(problems(N=2), sets)
def test_more_nodes_and_smaller_radii_never_decide_against_each_other(problem, threat):
    net, X, y, eps, rng = problem
    norm, budget = threat
    few, many = (certify(net, X, y, eps, norm=norm, budget=budget, max_nodes=n) for n in (1, 200))
    less = certify(net, X, y, eps * rng.random(), norm=norm, budget=budget, max_nodes=200)
    assert (few.certified <= many.certified).all()
    assert (few.broken <= many.broken).all()
    assert not (many.certified & less.broken).any()
    assert (many.certified <= less.certified).all()


@settings(max_examples=10, deadline=None)
@given(problems(N=2), sets)
def test_the_radius_brackets_what_certify_decides(problem, threat):
    net, X, y, _, _ = problem
    norm, budget = threat
    radius = robust_radius(net, X, y, norm=norm, budget=budget)
    assert (radius.certified <= radius.broken).all()
    right = net.margin(X, y) > 0
    assert (radius.broken[~right] == 0).all()
    assert (net.margin(radius.X_adv, y)[np.isfinite(radius.broken)] <= 0).all()
    at = certify(net, X, y, radius.certified, norm=norm, budget=budget)
    assert at.certified[right & (radius.certified > 0)].all()
    inside = certify(net, X, y, radius.certified * 0.9, norm=norm, budget=budget)
    assert not inside.broken[right].any()

"""What must hold for every network and every sample: symmetries, scaling, balls, certificates, the data's law."""

import itertools

import numpy as np
import pytest
from advfeat.kernels import formulas
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from tolerances import CERTIFICATE, REORDERED, SIGMAS, beyond_the_ball

from advfeat import (
    PGD,
    Aligned,
    PatchCNN,
    PatchDistribution,
    ThreatModel,
    feature_swap,
    interval_margin,
    one_step_ascent,
)
from advfeat.core.checks import NORMS, OBJECTIVES, PARTITIONS

settings.register_profile("advfeat", deadline=None, max_examples=50)
settings.load_profile("advfeat")

norms = st.sampled_from(list(NORMS))
radii = st.floats(0, 2)


@st.composite
def problems(draw, dtype="float64"):
    """A network, samples and labels; weights and inputs of either sign, every scale of preactivations."""
    k, m, P, N = draw(st.integers(2, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(1, 6))
    d, q, rho = draw(st.integers(3, 9)), draw(st.integers(2, 5)), draw(st.sampled_from([0.1, 1.0, 30.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    W = rng.standard_normal((k, m, d)).astype(dtype)
    return PatchCNN(W, q, rho), rng.standard_normal((N, P, d)).astype(dtype), rng.integers(k, size=N), rng


def close(value, truth, scale):
    np.testing.assert_allclose(value, truth, rtol=0, atol=REORDERED * np.max(scale))


def logit_scale(net, X):
    """sum |w| |x| over neurons and a sample's patches: no logit exceeds it."""
    return np.linalg.norm(net.W, axis=-1).sum() * np.linalg.norm(X, axis=-1).sum(axis=-1).max()


def answers(net, X, y):
    """Loss, its gradient, and every objective's input gradient."""
    return *net.loss_and_grad(X, y), *(net.input_grad(X, y, objective) for objective in OBJECTIVES)


# ------------------------------------------------------------------ symmetries
@given(problems())
def test_permuted_patches(problem):
    net, X, y, rng = problem
    order = rng.permutation(X.shape[1])
    close(net.logits(X[:, order]), net.logits(X), logit_scale(net, X))
    loss, gradient, *input_gradients = answers(net, X, y)
    moved_loss, moved_gradient, *moved = answers(net, X[:, order], y)
    close(moved_loss, loss, logit_scale(net, X))
    close(moved_gradient, gradient, np.abs(X).sum())
    for value, truth in zip(moved, input_gradients, strict=True):
        close(value, truth[:, order], np.abs(net.W).sum())


@given(problems())
def test_permuted_samples(problem):
    net, X, y, rng = problem
    order = rng.permutation(len(X))
    np.testing.assert_array_equal(net.logits(X[order]), net.logits(X)[order])
    np.testing.assert_array_equal(net.margin(X[order], y[order]), net.margin(X, y)[order])
    loss, gradient, *input_gradients = answers(net, X, y)
    moved_loss, moved_gradient, *moved = answers(net, X[order], y[order])
    close(moved_loss, loss, logit_scale(net, X))
    close(moved_gradient, gradient, np.abs(X).sum())
    for value, truth in zip(moved, input_gradients, strict=True):
        np.testing.assert_array_equal(value, truth[order])


@given(problems())
def test_permuted_classes(problem):
    net, X, y, rng = problem
    order = rng.permutation(len(net.W))
    other, relabelled = net.with_weights(net.W[order]), np.argsort(order)[y]
    np.testing.assert_array_equal(other.logits(X), net.logits(X)[:, order])
    loss, gradient, *input_gradients = answers(net, X, y)
    moved_loss, moved_gradient, *moved = answers(other, X, relabelled)
    close(moved_loss, loss, logit_scale(net, X))
    close(moved_gradient, gradient[order], np.abs(X).sum())
    for value, truth in zip(moved, input_gradients, strict=True):
        close(value, truth, np.abs(net.W).sum())


@given(problems())
def test_permuted_neurons(problem):
    net, X, y, rng = problem
    order = rng.permuted(np.tile(np.arange(net.shape[1]), (net.shape[0], 1)), axis=1)[..., None]
    other = net.with_weights(np.take_along_axis(net.W, order, 1))
    close(other.logits(X), net.logits(X), logit_scale(net, X))
    loss, gradient, *input_gradients = answers(net, X, y)
    moved_loss, moved_gradient, *moved = answers(other, X, y)
    close(moved_loss, loss, logit_scale(net, X))
    close(moved_gradient, np.take_along_axis(gradient, order, 1), np.abs(X).sum())
    for value, truth in zip(moved, input_gradients, strict=True):
        close(value, truth, np.abs(net.W).sum())


@given(problems(), st.integers(-8, 8), st.floats(0.1, 10))
def test_scaled_network(problem, power, s):
    """F(s W, s rho) = s F(W, rho): to the bit for powers of two."""
    net, X, _, _ = problem
    doubled = PatchCNN(net.W * 2.0**power, net.q, net.rho * 2.0**power)
    np.testing.assert_array_equal(doubled.logits(X), net.logits(X) * 2.0**power)
    close(PatchCNN(net.W * s, net.q, net.rho * s).logits(X), s * net.logits(X), s * logit_scale(net, X))


@given(problems())
def test_negative_preactivations_give_exact_zeros_and_ties_are_wrong(problem):
    net, X, y, _ = problem
    dead = net.with_weights(np.abs(net.W))
    assert (dead.logits(-np.abs(X)) == 0).all()
    assert (dead.loss_and_grad(-np.abs(X), y)[1] == 0).all()
    for silent, inputs in ((dead, -np.abs(X)), (net.with_weights(0 * net.W), X)):
        assert (silent.predict(inputs) == -1).all()
        assert silent.accuracy(inputs, y) == 0


@given(problems())
def test_a_class_and_its_twin_tie(problem):
    net, X, y, _ = problem
    twins = net.with_weights(np.concatenate([net.W, net.W[:1]]))
    F, predicted = net.logits(X), twins.predict(X)
    first = F[:, 0] == F.max(axis=1)
    np.testing.assert_array_equal(predicted, np.where(first, -1, net.predict(X)))
    assert net.accuracy(X, y) == (net.predict(X) == y).mean()
    assert twins.accuracy(X, y) == (predicted == y).mean()


# ------------------------------------------------------------------ projections and balls
@given(problems(), norms, radii)
def test_project_is_the_nearest_point_of_the_ball(problem, norm, eps):
    _, X, _, rng = problem
    slack = beyond_the_ball(X, eps)
    P = formulas.project(X[None], eps, NORMS[norm])
    assert sizes(P[0], norm).max() <= eps + slack
    inside = sizes(X, norm) <= eps
    np.testing.assert_array_equal(P[0][inside], X[inside])
    np.testing.assert_allclose(formulas.project(P, eps, NORMS[norm]), P, rtol=0, atol=slack if norm == "l2" else 0)
    other = points_of_the_ball(rng, X.shape, eps, norm)
    assert ((X - P[0]) * (other - P[0])).sum(axis=-1).max() <= slack * (1 + np.abs(X).sum())


def sizes(delta, norm):
    return np.linalg.norm(delta, np.inf if norm == "linf" else 2, axis=-1)


def points_of_the_ball(rng, shape, eps, norm):
    """Random points: uniform in the cube or its corners, or at a random share of the radius."""
    if norm == "linf":
        return eps * (rng.choice([-1, 1], shape) if rng.random() < 0.5 else rng.uniform(-1, 1, shape))
    direction = rng.standard_normal(shape)
    return eps * rng.random((*shape[:-1], 1)) * direction / sizes(direction, "l2")[..., None]


def attacks(net, X, y, eps, norm, seed=0):
    """Every attack that needs a network."""
    for objective in OBJECTIVES:
        options = {"objective": objective, "eps": eps, "norm": norm}
        yield one_step_ascent(net, X, y, lr=3.0, n_steps=2, **options)
        yield PGD(objective, n_steps=4, n_restarts=2)(net, (X, y), ThreatModel(norm, eps), seed).X_adv
    yield aligned(net, X, y, eps, norm)


def aligned(net, X, y, eps, norm, **options):
    return Aligned(**options)(net, (X, y), ThreatModel(norm, eps)).X_adv


@given(problems(), norms)
def test_radius_zero_is_the_identity(problem, norm):
    net, X, y, _ = problem
    for X_adv in attacks(net, X, y, 0, norm):
        np.testing.assert_array_equal(X_adv, X, strict=True)


@given(st.sampled_from(["float64", "float32"]).flatmap(problems), norms, radii)
def test_attacks_stay_in_their_ball(problem, norm, eps):
    net, X, y, _ = problem
    for X_adv in attacks(net, X, y, eps, norm):
        assert X_adv.dtype in (X.dtype, np.float64)
        assert sizes(X_adv.astype(float) - X, norm).max() <= eps + beyond_the_ball(X, eps)


@given(problems(), norms, radii, st.integers(1, 3))
def test_aligned_attack_finds_the_best_of_its_directions(problem, norm, eps, n_leaders):
    net, X, _, _ = problem
    X, k = X[:1, :2], net.shape[0]
    y = net.logits(X).argmax(axis=-1)
    assume(net.margin(X, y)[0] > 0)  # a wrong sample is left alone
    size = np.linalg.norm(net.W, 1 if norm == "linf" else 2, axis=-1, keepdims=True)
    direction = np.sign(net.W) if norm == "linf" else net.W / size
    leaders = [direction[i, np.argsort(-size[i, :, 0])[:n_leaders]] for i in range(k)]
    best = np.inf
    for j in set(range(k)) - {y[0]}:
        steps = [0 * X[0, 0], *(eps * leaders[j]), *(-eps * leaders[y[0]])]
        tried = X + np.array(list(itertools.product(steps, repeat=X.shape[1])))
        F = net.logits(tried)
        best = min(best, (F[:, y[0]] - F[:, j]).min())
    F = net.logits(aligned(net, X, y[:1], eps, norm, n_leaders=n_leaders))[0]
    gaps = np.delete(F[y[0]] - F, y[0])
    scale = REORDERED * logit_scale(net, np.abs(X) + eps)
    assert np.abs(gaps - best).min() <= scale
    assert gaps.min() <= best + scale


# ------------------------------------------------------------------ certificates
@given(problems(), norms, radii)
def test_no_point_of_the_ball_has_a_margin_below_the_certificate(problem, norm, eps):
    net, X, y, rng = problem
    bound = interval_margin(net, X, y, eps=eps, norm=norm)
    points = (X + points_of_the_ball(rng, X.shape, eps, norm) for _ in range(20))
    for X_adv in itertools.chain(attacks(net, X, y, eps, norm), points):
        assert (bound <= net.margin(X_adv, y)).all()


@given(problems(), norms, st.lists(radii, min_size=2, max_size=5))
def test_certificates_fall_with_the_radius_from_the_margin(problem, norm, several):
    net, X, y, _ = problem
    bounds = [interval_margin(net, X, y, eps=eps, norm=norm) for eps in [0, *sorted(several)]]
    assert (np.diff(bounds, axis=0) <= 0).all()
    margin = net.margin(X, y)
    assert (bounds[0] <= margin).all()
    assert (margin - bounds[0] <= CERTIFICATE * logit_scale(net, X)).all()


@given(problems(), norms, radii)
def test_certificates_are_attained_where_one_class_has_one_neuron_and_the_others_none(problem, norm, eps):
    net, X, _, _ = problem
    W = net.W * 0
    W[0, 0] = net.W[0, 0]
    net, y = net.with_weights(W), np.zeros(len(X), int)
    worst = net.margin(aligned(net, X, y, eps, norm), y)
    bound = interval_margin(net, X, y, eps=eps, norm=norm)
    assert (bound <= worst).all()
    assert (worst - bound <= CERTIFICATE * logit_scale(net, np.abs(X) + eps)).all()


# ------------------------------------------------------------------ data
@st.composite
def distributions(draw, noise=None):
    k, P = draw(st.integers(2, 4)), draw(st.integers(1, 5))
    d, P_R, seed = 2 * k + draw(st.integers(0, 3)), draw(st.integers(0, P)), draw(st.integers(0, 2**32))
    both = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0][: 2 * k]
    return PatchDistribution(
        n_classes=k,
        patch_dim=d,
        n_patches=P,
        n_robust=P_R,
        alpha=draw(st.sampled_from([3.0, stats.uniform(2, 2), stats.lognorm(0.5)])),
        beta=draw(st.sampled_from([1.0, stats.expon()])),
        noise_std=draw(st.sampled_from([0.0, 0.3])) if noise is None else noise,
        features=draw(st.sampled_from([None, (both[:k], both[k:])])),
        partition=draw(st.sampled_from(PARTITIONS)),
    )


@given(distributions(), st.integers(1, 30), st.booleans(), st.integers(0, 99))
def test_samples_follow_their_definition(law, n, balanced, seed):
    data = law.sample(n, seed, balanced)
    again = law.sample(n, np.random.default_rng(seed), balanced)
    for name in ("X", "y", "robust", "strength"):
        np.testing.assert_array_equal(getattr(data, name), getattr(again, name), strict=True)
    counts = np.bincount(data.y, minlength=law.n_classes)
    assert len(counts) == law.n_classes
    assert counts.max() - counts.min() <= 1 or not balanced
    if law.partition == "uniform":
        assert (data.robust.sum(axis=1) == law.n_robust).all()
    elif law.partition == "fixed":
        np.testing.assert_array_equal(data.robust, np.tile(np.arange(law.n_patches) < law.n_robust, (n, 1)))
    assert (data.strength > 0).all()
    for value, where in ((law.alpha, data.robust), (law.beta, ~data.robust)):
        assert hasattr(value, "rvs") or (data.strength[where] == value).all()
    u, v = law.features
    for i, p in np.ndindex(data.robust.shape):
        expected = data.strength[i, p] * (u if data.robust[i, p] else v)[data.y[i]]
        np.testing.assert_array_equal(data.signal()[i, p], expected)
        assert law.noise_std or (data.X[i, p] == expected).all()


@given(distributions(), st.integers(1, 20), st.sampled_from(["robust", "non_robust"]))
def test_representatives_keep_the_noise_and_one_feature(law, n, feature):
    data = law.sample(n, 0)
    kept = data.robust if feature == "robust" else ~data.robust
    left = data.representative(feature)
    np.testing.assert_array_equal(left.X[kept], data.X[kept])
    np.testing.assert_array_equal(left.strength, np.where(kept, data.strength, 0))
    close(left.X - left.signal(), data.X - data.signal(), data.strength)
    np.testing.assert_array_equal(left.X[~kept], (data.X - data.signal())[~kept])
    np.testing.assert_array_equal(left.y, data.y)


@given(distributions(), norms, radii, st.integers(0, 99))
def test_the_feature_swap_moves_non_robust_patches_to_another_class(law, norm, eps, seed):
    data, (_, v) = law.sample(8, seed), law.features
    X_adv = feature_swap(data, eps=eps, norm=norm, rng=seed)
    delta = X_adv - data.X
    np.testing.assert_array_equal(X_adv[data.robust], data.X[data.robust])
    assert sizes(delta, norm).max() <= eps + beyond_the_ball(data.X, eps)
    np.testing.assert_array_equal(feature_swap(data, eps=0, norm=norm, rng=seed), data.X)
    for n, label in enumerate(data.y):
        beta = np.where(data.robust[n], 0, data.strength[n])[:, None]
        swaps = [beta * (v[j] - v[label]) for j in range(law.n_classes) if j != label]
        errors = [np.abs(delta[n] - formulas.project(s[None, None], eps, NORMS[norm])).max() for s in swaps]
        assert min(errors) <= beyond_the_ball(data.X, eps)


def test_noise_labels_and_positions_have_their_laws():
    law = {"n_classes": 3, "patch_dim": 8, "n_patches": 4, "n_robust": 1, "alpha": 2.0, "beta": 1.0, "noise_std": 0.3}
    n = 3000
    for partition in ("uniform", "bernoulli"):
        data = PatchDistribution(**law, partition=partition).sample(n, 5)
        noise = (data.X - data.signal()) / 0.3
        assert np.abs(noise.std(axis=(0, 1)) - 1).max() < SIGMAS / np.sqrt(2 * n * 4)
        assert np.abs(noise.mean(axis=(0, 1))).max() < SIGMAS / np.sqrt(n * 4)
        assert np.abs(data.robust.mean(axis=0) - 1 / 4).max() < SIGMAS * np.sqrt(3 / 16 / n)
        assert np.abs(np.bincount(data.y) / n - 1 / 3).max() < SIGMAS * np.sqrt(2 / 9 / n)


def test_balanced_labels_come_in_random_order():
    law = PatchDistribution(n_classes=3, patch_dim=6, n_patches=1, n_robust=1, alpha=2.0, beta=1.0)
    y = law.sample(300, 5, balanced=True).y
    assert abs((y[1:] == y[:-1]).mean() - 1 / 3) < SIGMAS * np.sqrt(2 / 9 / 300)


def test_the_feature_swap_takes_every_other_class_as_often():
    law = PatchDistribution(n_classes=4, patch_dim=8, n_patches=2, n_robust=0, alpha=2.0, beta=1.0)
    data = law.sample(3000, 5)
    shift = (feature_swap(data, eps=2.0)[:, 0, 4:].argmax(axis=-1) - data.y) % 4
    share = np.bincount(shift, minlength=4) / 3000
    assert share[0] == 0
    assert np.abs(share[1:] - 1 / 3).max() < SIGMAS * np.sqrt(2 / 9 / 3000)


def test_the_dials_of_assumption_2_3():
    law = PatchDistribution(n_classes=5, patch_dim=100, n_patches=64, n_robust=1, alpha=3.0, beta=1.0)
    assert law.assumption_2_3() == pytest.approx((27 / 63, 3), rel=REORDERED)
    assert law.assumption_2_3(2) == pytest.approx((9 / 63, 3), rel=REORDERED)

"""Cross-entropy where the label's probability rounds to 1: gradients, losses, attacks and recursions stay right."""

import numpy as np
import pytest
from advfeat.kernels import CROSS_ENTROPY, formulas
from engines import ENGINES, engine_of

import advfeat as af
from advfeat.theory import State, empirical_types, population_types, recursion, simulate

MARGINS = [0.3, 5.0, 20.0, 30.0, 36.0, 37.5, 40.0, 100.0, 600.0]
SATURATED = 1e-9  # of the largest correlation, after tens of iterations that double a difference at most


def identity_net(k):
    """F_i = sum_p (x_{p,i} - rho/2) where every coordinate is above rho: logits, and slopes of 1, as one likes."""
    return np.eye(k).reshape(1, k, 1, k), 2, 2.0**-10


def exact(gaps):
    """p_j of the rivals and the loss, from F_y - F_j (N, k - 1), to the last digits of `exp`."""
    odds = np.exp(-gaps)
    total = odds.sum(axis=1)
    return odds / (1 + total[:, None]), np.log1p(total)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_labels_part_is_the_sum_of_the_rivals(engine):
    k, y = 4, np.arange(len(MARGINS)) % 4
    W, q, rho = identity_net(k)
    F = np.tile([1.0, 1.25, 0.75, 1.0], (len(y), 1))
    F[np.arange(len(y)), y] = MARGINS
    F[np.arange(len(y)), y] += 1.25
    engine = engine_of(engine)
    batch = engine.pack(F[None, :, None], y[None], 1)
    is_rival = np.arange(k) != y[:, None]
    gaps = (F[np.arange(len(y)), y][:, None] - F)[is_rival].reshape(-1, k - 1)
    rivals, loss = exact(gaps)
    truth = np.zeros((len(y), k))
    truth[is_rival] = rivals.ravel()
    truth[~is_rival] = -rivals.sum(axis=1)
    found = engine.input_grad(W, batch, q, rho, CROSS_ENTROPY)
    np.testing.assert_allclose(found[0, :, 0], truth, rtol=2e-13)
    for n in range(len(y)):
        alone = engine.pack(F[None, n : n + 1, None], y[None, n : n + 1], 1)
        value, gradient = engine.loss_and_grad(W, alone, q, rho)
        np.testing.assert_allclose(value, loss[n], rtol=2e-13)
        np.testing.assert_allclose(gradient[0, :, 0], truth[n][:, None] * F[n], rtol=2e-13)
    np.testing.assert_allclose(formulas.cross_entropy(F[None] - rho / 2, y[None])[0], loss, rtol=2e-13)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_logit_that_is_not_finite_is_seen_in_the_loss(wrong):
    for place in range(3):
        F = np.array([[[1.0, 2.0, 3.0]]])
        F[0, 0, place] = wrong
        with np.errstate(invalid="ignore"):
            assert np.isnan(formulas.cross_entropy(F, np.array([[0]]))).all()


def test_cross_entropy_pgd_sees_the_label_beyond_a_margin_of_38():
    """The label's neuron alone can be moved: without its part of the gradient, PGD stays where it starts."""
    W = np.array([[[1.0, 0.0]], [[0.0, 1e-3]]])
    net = af.PatchCNN(W, q=2, rho=2.0**-10)
    X, y = np.full((1, 1, 2), 50.0), np.zeros(1, int)
    attack = af.PGD("cross_entropy", n_steps=60, step=0.05)
    data = af.PatchData(X, y, np.ones((1, 1), bool), np.ones((1, 1)), None)
    found = attack(net, data, af.ThreatModel("linf", 49.99), rng=0)
    assert net.margin(X, y) > 38
    assert found.success.all()


# ------------------------------------------------------------------ recursions beside networks
SHAPES = [(k, K // k) for K in range(2, 17) for k in range(2, K + 1) if K % k == 0 and k <= 8]


def saturated_problem(k, m, far, scale, rho, n_runs=6):
    """Class 0 has a margin of about `far` on its own samples, the others are at their start."""
    d = 2 * k + 3
    law = af.PatchDistribution(n_classes=k, patch_dim=d, n_patches=4, n_robust=1, alpha=3.0, beta=1.0)
    W = scale * np.random.default_rng(10 * k + m).standard_normal((n_runs, k, m, d))
    W[:, 0, 0, 0] = far / 3.0  # <w, u_0>, in the linear part
    return af.PatchCNN(W, q=3, rho=rho), law.sample(3 * k, rng=1, balanced=True)


@pytest.mark.parametrize(
    ("far", "scale", "rho", "rate"), [(2400.0, 0.6, 0.5, 20.0), (30.0, 0.2, 2.0, 1e11), (36.0, 0.2, 2.0, 1e14)]
)
@pytest.mark.parametrize(("k", "m"), SHAPES)
def test_recursions_are_the_network_where_samples_are_saturated(k, m, far, scale, rho, rate):
    """Margins of 2400, where every weight of the objective is 0; and of 30 and 36, with rates at which they count.

    The radius is larger than the features: an ascent that goes astray moves a saturated sample to where it is learned.
    """
    net, data = saturated_problem(k, m, far, scale, rho)
    options = {"ascent_lr": rate, "eps": 6.0, "objective": "cross_entropy", "norm": "l2"}
    config = af.TrainConfig(lr=0.2, n_iter=10, adversarial=True, record_every=10, **options)
    trained = af.train(net, data, config).net.W @ np.concatenate(data.features).T
    types = empirical_types(data.y, data.robust, data.strength, k)
    state = State.from_weights(net.W, data.features)
    for backend in ("numba", "numpy"):
        found = simulate(state, types, q=3, rho=rho, lr=0.2, n_iter=10, backend=backend, **options)
        assert found.exact.all()
        assert np.abs(found.phi[-1] - trained).max() <= SATURATED * np.abs(trained).max()


def test_a_stall_after_a_thousand_records(monkeypatch):
    """Pieces of a call grow while they are quick, within the run's iterations: one slow piece overflows nothing."""
    ticks = iter(np.append(np.arange(2500) * 1e-6, np.arange(1, 10**4) * 1.0))
    monkeypatch.setattr(recursion, "now", lambda: next(ticks))
    state = State.draw(2, 1, 10, rng=[0], init_std=0.1)
    found = simulate(state, population_types(2, 4, 1, 2.0, 1.0), q=3, rho=1.0, lr=0.01, n_iter=1500, record_every=1)
    assert np.isfinite(found.phi).all()

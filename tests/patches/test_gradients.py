"""Closed-form gradients against PyTorch autograd and central differences; the activation's knots; one training step."""

import numpy as np
import pytest
import torch_reference
from advfeat.kernels import formulas
from problems import RHO, random_problem, relative_error
from tolerances import CENTRAL_DIFFERENCE, GRADIENT, KNOT_ULPS, STEP

from advfeat import PatchCNN, SmoothedReLU, one_step_ascent
from advfeat.core.checks import NORMS, OBJECTIVES

SHAPE = (3, 6, 5, 11, 4, 3)  # R, N, P, d, k, m
BATCHES = ("runs", "shared samples", "one run")

backends = pytest.mark.parametrize("backend", ["numba", "numpy"])
dtypes = pytest.mark.parametrize("dtype", GRADIENT)
objectives = pytest.mark.parametrize("objective", OBJECTIVES)
degrees = pytest.mark.parametrize("q", [2, 3, 4, 5])


def batch(kind, dtype, seed=1):
    """Arguments for PatchCNN, and the same numbers in float64 with all axes for PyTorch."""
    R, N, *rest = SHAPE
    shape = (1 if kind == "one run" else R, N, *rest)
    W, X, y = random_problem(seed, shape, dtype, shared_X=kind == "shared samples")
    full = W, np.broadcast_to(X, (len(W), *X.shape[1:])).copy(), y
    return ((W[0], X[0], y[0]) if kind == "one run" else (W, X[0] if kind == "shared samples" else X, y)), full


def test_the_problems_reach_all_three_parts_of_the_activation():
    for kind in BATCHES:
        _, (W, X, _) = batch(kind, "float64")
        Z = formulas.preactivations(W, X)
        assert min((Z < 0).mean(), ((Z > 0) & (Z < RHO)).mean(), (Z > RHO).mean()) > 0.1
        assert min((W < 0).mean(), (W > 0).mean(), (X < 0).mean(), (X > 0).mean()) > 0.4


# ------------------------------------------------------------------ autograd
@backends
@dtypes
@degrees
@pytest.mark.parametrize("kind", BATCHES)
def test_weight_gradient_is_autograds(kind, q, dtype, backend):
    (W, X, y), full = batch(kind, dtype)
    loss, gradient = PatchCNN(W, q, RHO, backend).loss_and_grad(X, y)
    torch_loss, torch_gradient = torch_reference.weight_gradient(*full, q, RHO)
    assert gradient.shape == W.shape
    assert gradient.dtype == dtype
    assert relative_error(gradient.reshape(full[0].shape), torch_gradient) < GRADIENT[dtype]
    assert relative_error(np.atleast_1d(loss), torch_loss) < GRADIENT[dtype]


@backends
@dtypes
@degrees
@objectives
@pytest.mark.parametrize("kind", BATCHES)
def test_input_gradient_is_autograds(kind, objective, q, dtype, backend):
    (W, X, y), full = batch(kind, dtype)
    gradient = PatchCNN(W, q, RHO, backend).input_grad(X, y, objective)
    truth = torch_reference.input_gradient(*full, q, RHO, objective)
    assert gradient.shape == (X.shape if kind != "shared samples" else full[1].shape)
    assert gradient.dtype == dtype
    assert relative_error(gradient.reshape(truth.shape), truth) < GRADIENT[dtype]


@backends
@degrees
def test_logits_and_loss_are_autograds(q, backend):
    W, X, y = random_problem(2, SHAPE)
    net = PatchCNN(W, q, RHO, backend)
    assert relative_error(net.logits(X), torch_reference.logits(W, X, q, RHO)) < GRADIENT["float64"]
    assert relative_error(net.loss(X, y), torch_reference.weight_gradient(W, X, y, q, RHO)[0]) < GRADIENT["float64"]


# ------------------------------------------------------------------ central differences
def away_from_knots(W, X, moved_W, moved_X):
    """No preactivation passes a knot, where sigma' has a kink, on the way from the first pair to the second."""
    before, after = formulas.preactivations(W, X), formulas.preactivations(moved_W, moved_X)
    return ((before > 0) == (after > 0)).all() and ((before > RHO) == (after > RHO)).all()


@backends
@degrees
def test_weight_gradient_is_the_slope_of_the_loss(q, backend):
    W, X, y = random_problem(3, SHAPE)
    D = np.random.default_rng(4).standard_normal(W.shape)
    D /= np.linalg.norm(D.reshape(len(D), -1), axis=1).reshape(-1, 1, 1, 1)
    assert away_from_knots(W - STEP * D, X, W + STEP * D, X)
    above, below = (PatchCNN(W + s * STEP * D, q, RHO, backend).loss(X, y) for s in (1, -1))
    gradient = PatchCNN(W, q, RHO, backend).loss_and_grad(X, y)[1]
    error = (above - below) / (2 * STEP) - (gradient * D).sum(axis=(1, 2, 3))
    assert (np.abs(error) < CENTRAL_DIFFERENCE * np.linalg.norm(gradient.reshape(len(W), -1), axis=1)).all()


@backends
@degrees
@objectives
def test_input_gradient_is_the_slope_of_the_objective(objective, q, backend):
    W, X, y = random_problem(3, SHAPE)
    net = PatchCNN(W, q, RHO, backend)
    D = np.random.default_rng(4).standard_normal(X.shape)
    D /= np.linalg.norm(D, axis=(2, 3), keepdims=True)
    rivals = np.sort(np.where(np.arange(4) == y[..., None], -np.inf, net.logits(X)), axis=-1)
    assert away_from_knots(W, X - STEP * D, W, X + STEP * D)
    assert (rivals[..., -1] - rivals[..., -2]).min() > 100 * STEP  # one rival stays the strongest
    above, below = (torch_reference.objective(net.logits(X + s * STEP * D), y, objective) for s in (1, -1))
    gradient = net.input_grad(X, y, objective)
    error = (above - below) / (2 * STEP) - (gradient * D).sum(axis=(2, 3))
    assert (np.abs(error) < CENTRAL_DIFFERENCE * np.linalg.norm(gradient, axis=(2, 3))).all()


# ------------------------------------------------------------------ knots
RHOS = pytest.mark.parametrize("rho", [1.0, 0.7, 1e-3, 100.0])


def near_knots(rho):
    """z at the knots and beside them; there sigma / (rho/q) and sigma', NaN where they need not be exact."""
    zero, up = np.zeros_like(rho), np.full_like(rho, np.inf)
    z = [-rho, np.nextafter(zero, -up), -zero, zero, np.nextafter(rho, zero), rho, np.nextafter(rho, up)]
    return np.array(z), np.array([0, 0, 0, 0, np.nan, 1, np.nan]), np.array([0, 0, 0, 0, np.nan, 1, 1])


def check_knots(rho, q, value, slope):
    """Exactly 0 up to z = 0, exactly rho/q and 1 at z = rho, continuous on both sides of it."""
    _, values, slopes = near_knots(rho)
    exact, edge = ~np.isnan(values), rho / rho.dtype.type(q)
    np.testing.assert_array_equal(value[exact], (values * edge)[exact])
    np.testing.assert_array_equal(slope[~np.isnan(slopes)], slopes[~np.isnan(slopes)])
    ulp = np.finfo(rho.dtype).eps
    assert (np.abs(value[-3:] - edge) <= KNOT_ULPS * ulp * rho).all()
    assert 1 - 2 * q * ulp <= slope[-3] < 1


@degrees
@RHOS
def test_activation_at_its_knots(rho, q):
    sigma, (z, *_) = SmoothedReLU(q, rho), near_knots(np.float64(rho))
    check_knots(np.float64(rho), q, sigma(z), sigma.derivative(z))
    tiny = np.nextafter(0, 1)  # just above 0: its power underflows
    assert sigma(tiny) == 0
    assert 0 <= sigma.derivative(tiny) <= tiny / rho


@backends
@dtypes
@degrees
@RHOS
def test_network_at_the_knots(rho, q, dtype, backend):
    """One neuron e_i for class i = 0, 1 and one patch z e_0: the preactivations are exactly z and 0."""
    rho = np.dtype(dtype).type(rho)
    z, *_ = near_knots(rho)
    W, X = np.eye(2, 4, dtype=dtype)[:, None], np.zeros((len(z), 1, 4), dtype)
    X[:, 0, 0] = z
    net = PatchCNN(W, q, float(rho), backend)
    F, gradient = net.logits(X), net.input_grad(X, np.zeros(len(z), int), "neg_label_logit")
    check_knots(rho, q, F[:, 0], -gradient[:, 0, 0])
    assert (F[:, 1] == 0).all()
    assert (gradient[:, :, 1:] == 0).all()


@degrees
def test_activation_parts_by_hand(q):
    sigma = SmoothedReLU(q, 2.0)
    z = np.array([-3.0, 1.0, 5.0])
    np.testing.assert_allclose(sigma(z), [0, 1 / (q * 2 ** (q - 1)), 5 - (1 - 1 / q) * 2], rtol=1e-15)
    np.testing.assert_array_equal(sigma.derivative(z), [0, 0.5 ** (q - 1), 1])


# ------------------------------------------------------------------ ascent and training steps
def torch_ascent(W, X, y, q, lr, eps, objective, norm, n_steps):
    """x~ <- x + project_eps(x~ - x + lr grad J(x~)); also whether steps were cut and whether some were not."""
    lr, eps = lr.reshape(-1, 1, 1, 1), eps.reshape(-1, 1, 1, 1)
    delta, cut = np.zeros_like(X), []
    for _ in range(n_steps):
        delta = delta + lr * torch_reference.input_gradient(W, X + delta, y, q, RHO, objective)
        size = np.abs(delta) if norm == "linf" else np.sqrt((delta**2).sum(axis=-1, keepdims=True))
        cut.append((size > eps).mean())
        delta = np.where(size > eps, eps * delta / np.where(size > 0, size, 1), delta)
    return X + delta, cut


LR, EPS = np.array([0.4, 1.0, 2.0]), {"linf": np.array([0.1, 0.3, 0.5]), "l2": np.array([0.4, 1.0, 1.6])}


@backends
@dtypes
@objectives
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n_steps", [1, 3])
def test_ascent_is_the_clipped_autograd_gradient(n_steps, norm, objective, dtype, backend):
    W, X, y = random_problem(5, SHAPE, dtype)
    rates = {"lr": LR.astype(dtype), "eps": EPS[norm].astype(dtype)}
    options = {"objective": objective, "norm": norm, "n_steps": n_steps}
    X_adv = one_step_ascent(PatchCNN(W, 3, RHO, backend), X, y, **rates, **options)
    rates = {name: value.astype(float) for name, value in rates.items()}
    truth, cut = torch_ascent(W.astype(float), X.astype(float), y, 3, **rates, **options)
    assert 0.02 < min(cut) <= max(cut) < 0.98
    assert X_adv.dtype == dtype
    assert relative_error(X_adv - X.astype(float), truth - X) < GRADIENT[dtype]


@backends
@dtypes
@objectives
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n_steps", [0, 1])
def test_a_training_step_is_autograds_step_with_its_examples_held_constant(n_steps, norm, objective, dtype, backend):
    W, X, y = random_problem(6, SHAPE, dtype)
    net = PatchCNN(W, 3, RHO, backend)
    rate, step, eps = np.array([0.5, 1.0, 2.0]), LR.astype(dtype), EPS[norm].astype(dtype)
    options = (OBJECTIVES[objective], step.astype(float), eps.astype(float), NORMS[norm], n_steps)
    loss, bad = net.engine.train(net.weights, net.prepare(X, y), 3, RHO, rate, 1, *options)
    wide = [a.astype(float) for a in (W, X, step, eps)]
    X_adv, _ = torch_ascent(wide[0], wide[1], y, 3, wide[2], wide[3], objective, norm, n_steps)
    torch_loss, gradient = torch_reference.weight_gradient(wide[0], X_adv, y, 3, RHO)
    moved = -rate.reshape(-1, 1, 1, 1) * gradient
    assert relative_error(net.weights - wide[0], moved) < GRADIENT[dtype]
    assert relative_error(loss, torch_loss) < GRADIENT[dtype]
    assert (bad == -1).all()

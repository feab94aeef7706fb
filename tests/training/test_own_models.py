"""A model that is not ours (docs/extending.md) is trained, measured, stored and continued like a patch network."""

import numpy as np
import pytest
from own_models import SoftmaxRegression

from advfeat import CheckpointError, DivergenceError, TrainConfig, load, robust_accuracy, train
from advfeat.training import Measurement

RNG = np.random.default_rng(0)
Y = RNG.integers(3, size=60)
X = np.eye(3)[Y] @ RNG.standard_normal((3, 8)) + 0.3 * RNG.standard_normal((60, 8))
MODEL = SoftmaxRegression(0.1 * RNG.standard_normal((8, 3)), np.zeros(3))
KINDS = {"softmax-regression": SoftmaxRegression}
OPTIONS = {
    "standard": {},
    "adversarial": {"adversarial": True, "ascent_lr": 3.0, "eps": 0.2, "n_ascent": 2},
    "minibatches": {"batch_size": 7, "momentum": 0.9, "weight_decay": 0.01},
}


def config(name, **changes):
    return TrainConfig(**{"lr": 0.5, "n_iter": 40, "record_every": 10} | OPTIONS[name] | changes)


def test_standard_training_is_gradient_descent():
    W, b = MODEL.W.copy(), MODEL.b.copy()
    for _ in range(40):
        _, g = SoftmaxRegression(W, b).loss_and_grad(X, Y)
        W, b = W - 0.5 * g["W"], b - 0.5 * g["b"]
    found = train(MODEL, (X, Y), config("standard"))
    assert np.array_equal(found.net.W, W)
    assert np.array_equal(found.net.b, b)
    assert found.history["loss"][-1] < 0.5 * found.history["loss"][0]
    assert found.history["loss"][-1] == pytest.approx(found.net.loss_and_grad(X, Y)[0], rel=1e-12)


def test_adversarial_training_is_descent_on_the_ascended_inputs():
    """x~ = x + clip(3 grad J), twice, with J = -F_y, whose gradient is -w_y everywhere."""
    W, b, seen = MODEL.W.copy(), MODEL.b.copy(), 0
    for _ in range(40):
        moved = X
        for _ in range(2):
            moved = X + np.clip(moved - X - 3.0 * W.T[Y], -0.2, 0.2)
        seen = max(seen, np.abs(moved - X).max())
        _, g = SoftmaxRegression(W, b).loss_and_grad(moved, Y)
        W, b = W - 0.5 * g["W"], b - 0.5 * g["b"]
    found = train(MODEL, (X, Y), config("adversarial"))
    assert seen == pytest.approx(0.2)
    np.testing.assert_allclose(found.net.W, W, rtol=1e-12)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_stopped_training_continues_to_the_same_bits(name, tmp_path):
    def measure(net, iteration):
        if iteration == stop:
            raise RuntimeError
        return {"robust": robust_accuracy(net, (X, Y), eps=0.1, n_steps=2).robust_accuracy}

    stop = None
    whole = train(MODEL, (X, Y), config(name), metrics=Measurement(measure, 20))
    stop = 40
    with pytest.raises(RuntimeError):
        train(MODEL, (X, Y), config(name), metrics=Measurement(measure, 20), run_dir=tmp_path)
    stop = None
    assert load(tmp_path, KINDS).history["iteration"].tolist() == [0, 10, 20, 30]
    found = train(MODEL, (X, Y), config(name), metrics=Measurement(measure, 20), run_dir=tmp_path)
    assert np.array_equal(found.net.W, whole.net.W)
    for key, values in whole.history.items():
        assert np.array_equal(found.history[key], values), key
    assert found.history.at("robust").iteration.tolist() == [0, 20, 40]
    kept = load(tmp_path, KINDS)
    assert np.array_equal(kept.net.W, whole.net.W)
    assert np.array_equal(kept.history["robust"], whole.history["robust"])


def test_a_model_whose_class_is_not_given_is_named(tmp_path):
    train(MODEL, (X, Y), config("standard"), run_dir=tmp_path)
    with pytest.raises(CheckpointError, match="kind 'softmax-regression'; its class must be given"):
        load(tmp_path)


def test_divergence_is_found_and_dropped_alike():
    wild = SoftmaxRegression(MODEL.W.astype(np.float32), MODEL.b.astype(np.float32))
    data = (1e15 * X).astype(np.float32), Y
    with np.errstate(all="ignore"), pytest.raises(DivergenceError) as error:
        train(wild, data, config("standard", lr=1e30))
    with np.errstate(all="ignore"):
        dropped = train(wild, data, config("standard", lr=1e30), diverged="drop")
    assert dropped.diverged_at.tolist() == error.value.result.diverged_at.tolist() == [error.value.iteration]
    assert np.isnan(dropped.history["loss"][-1])
    assert dropped.history["loss"][0] == error.value.result.history["loss"][0]
    assert not dropped.net.W.any()

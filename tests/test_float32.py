"""Numbers that float32 cannot hold are refused by name, before any work, wherever a float32 network takes them."""

import re

import numpy as np
import pytest

from advfeat import PatchCNN, PatchDistribution, TrainConfig, one_step_ascent, train
from advfeat.experiments.configuration import Figure3Config

LAW = PatchDistribution(n_classes=2, patch_dim=6, n_patches=4, n_robust=1, alpha=2.0, beta=1.0)
DATA = LAW.sample(5, 0)
NET = PatchCNN.init(2, 3, 6, rng=0, dtype="float32")
WIDE = NET.astype("float64")
LARGEST = "at most 3.4e+38 in magnitude in float32"
ADVERSARIAL = {"lr": 0.1, "n_iter": 1, "adversarial": True, "ascent_lr": 1.0, "eps": 1.0}


def trained(net=NET, **changes):
    return train(net, DATA, TrainConfig(**ADVERSARIAL | changes))


def large(X):
    """One entry of 1e60, the others as they are."""
    X = np.array(X, np.float64)
    X.flat[3] = 1e60
    return X


CASES = {
    "X": (lambda net: net.logits(large(DATA.X)), f"X holds 1e+60: every entry must be {LARGEST}"),
    "X, negative": (lambda net: net.predict(-large(DATA.X)), f"X holds -1e+60: every entry must be {LARGEST}"),
    "X of training": (lambda net: train(net, (large(DATA.X), DATA.y), TrainConfig(0.1, 1)), "X holds 1e+60"),
    "lr": (lambda net: trained(net, lr=1e39), f"lr = 1e+39: must be {LARGEST}"),
    "lr, zero": (lambda net: trained(net, lr=1e-50), "lr = 1e-50: must be > 0 in float32, at least 1.4e-45"),
    "lr of a run": (lambda net: trained(net.with_weights(net.W[None]), lr=[1e39]), f"lr = 1e+39: must be {LARGEST}"),
    "ascent_lr": (lambda net: trained(net, ascent_lr=1e300), f"ascent_lr = 1e+300: must be {LARGEST}"),
    "ascent_lr, zero": (lambda net: trained(net, ascent_lr=1e-46), "ascent_lr = 1e-46: must be > 0 in float32"),
    "eps": (lambda net: trained(net, eps=1e39), f"eps = 1e+39: must be {LARGEST}"),
    "step": (lambda net: one_step_ascent(net, DATA.X, DATA.y, lr=1e39, eps=1.0), f"lr = 1e+39: must be {LARGEST}"),
    "radius": (lambda net: one_step_ascent(net, DATA.X, DATA.y, lr=1.0, eps=1e39), f"eps = 1e+39: must be {LARGEST}"),
    "rho": (lambda net: PatchCNN(net.W, 3, 1e39), f"rho = 1e+39: must be {LARGEST}"),
    "rho, zero": (lambda net: PatchCNN(net.W, 3, 1e-50), "rho = 1e-50: must be > 0 in float32"),
}


@pytest.mark.parametrize(("call", "message"), CASES.values(), ids=CASES)
def test_what_float32_cannot_hold_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(NET)
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            call(WIDE)  # float64 holds them all
        except RuntimeError as error:
            assert "diverged" in str(error)  # noqa: PT017 - not what is tested


MADE = {
    "astype": (lambda dtype: PatchCNN(large(WIDE.W)).astype(dtype), f"W holds 1e+60: every entry must be {LARGEST}"),
    "rho of astype": (lambda dtype: PatchCNN(WIDE.W, 3, 1e39).astype(dtype), f"rho = 1e+39: must be {LARGEST}"),
    "init_std": (lambda dtype: PatchCNN.init(2, 3, 6, rng=0, init_std=1e39, dtype=dtype), "init_std = 1e+39: must be"),
    "drawn": (lambda dtype: PatchCNN.init(2, 3, 6, rng=0, init_std=3e38, dtype=dtype), f"must be {LARGEST}"),
    "given weights": (
        lambda dtype: Figure3Config(n_classes=2, n_neurons=3, patch_dim=6, dtype=dtype).network(large(WIDE.W)),
        f"W holds 1e+60: every entry must be {LARGEST}",
    ),
}


@pytest.mark.parametrize(("make", "message"), MADE.values(), ids=MADE)
def test_weights_that_overflow_are_refused(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make("float32")
    assert np.isfinite(make("float64").W).all()


@pytest.mark.parametrize("name", ["alpha", "beta", "noise_std", "rho", "init_std", "lr", "ascent_lr", "eps"])
def test_a_configuration_is_refused_before_any_work(name):
    with pytest.raises(ValueError, match=re.escape(f"{name} = 1e+39: must be {LARGEST}")):
        Figure3Config(**{name: 1e39})
    assert getattr(Figure3Config(**{name: 1e39}, dtype="float64"), name) == 1e39
    if name not in ("noise_std", "init_std", "eps"):
        with pytest.raises(ValueError, match=re.escape(f"{name} = 1e-50: must be > 0 in float32")):
            Figure3Config(**{name: 1e-50})


def test_small_numbers_that_may_be_zero_are_taken():
    assert np.isfinite(trained(eps=1e-50).net.W).all()
    assert PatchCNN.init(2, 3, 6, rng=0, init_std=1e-50, dtype="float32").W.max() == 0

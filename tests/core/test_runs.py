"""Random sources of functions: seeds, one or one per run, or a generator; and the name that they had before."""

import warnings

import numpy as np
import pytest

import advfeat as af
from advfeat.robustness.curves import sandwich

LAW = af.PatchDistribution(n_classes=3, patch_dim=8, n_patches=4, n_robust=1, alpha=2.0, beta=1.0, noise_std=0.1)
DATA = af.PatchData.stack([LAW.sample(6, 0), LAW.sample(6, 1)])
NET = af.PatchCNN.init(3, 2, 8, rng=[1, 2], init_std=0.5)
CALLS = {
    "feature_swap": lambda **rng: af.feature_swap(DATA, eps=0.5, **rng),
    "robust_accuracy": lambda **rng: af.robust_accuracy(NET, DATA, eps=0.1, n_steps=2, **rng).broken["pgd_margin"],
    "sandwich": lambda **rng: sandwich(NET, DATA, [0.1], n_steps=2, max_nodes=2, rtol=0.5, **rng).X_adv,
}


@pytest.mark.parametrize("name", CALLS)
def test_the_old_name_is_taken_with_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = CALLS[name](rng=[5, 6])
    with pytest.warns(FutureWarning, match=f"{name}: seed is now called rng"):
        old = CALLS[name](seed=[5, 6])
    assert np.array_equal(old, new)
    with pytest.raises(TypeError, match="seed is the old name of rng; give one of them"):
        CALLS[name](seed=1, rng=1)


def test_a_generator_gives_every_run_a_seed():
    seeds = np.random.default_rng(3).integers(2**63, size=2).tolist()
    by_generator = CALLS["feature_swap"](rng=np.random.default_rng(3))
    assert np.array_equal(by_generator, CALLS["feature_swap"](rng=seeds))
    assert not np.array_equal(by_generator, CALLS["feature_swap"](rng=[0, 0]))


@pytest.mark.parametrize("rng", [-1, [1, 2, 3], 1.5, "x"])
def test_what_is_no_seed_is_named(rng):
    with pytest.raises(ValueError, match="rng = "):
        CALLS["feature_swap"](rng=rng)

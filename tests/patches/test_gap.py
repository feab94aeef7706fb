"""The smallest distance between samples of different labels, against the formula over all pairs at once."""

import tracemalloc

import numpy as np
import pytest

from advfeat import PatchDistribution
from advfeat.patches.features import smallest_gap


def direct(X, y):
    gaps = np.abs(X[:, None] - X[None]).max(axis=(2, 3))[y[:, None] != y[None]]
    return gaps.min() if gaps.size else np.inf


@pytest.mark.parametrize("noise", [0.0, 0.3, 5.0])
@pytest.mark.parametrize("block", [1, 100, 1 << 22])
def test_the_smallest_gap_is_that_of_all_pairs(noise, block):
    for seed in range(5):
        law = PatchDistribution(
            n_classes=3, patch_dim=6, n_patches=4, n_robust=1, alpha=2.0, beta=1.0, noise_std=noise,
            partition="bernoulli",
        )  # fmt: skip
        data = law.sample(30, seed)
        assert smallest_gap(data.X, data.y, block) == direct(data.X, data.y)


def test_the_bound_alone_is_not_the_gap():
    """Largest coordinates of both samples are alike, and they differ most elsewhere."""
    X = np.zeros((3, 1, 3))
    X[:, 0] = [5.0, 0.0, 0.0], [5.1, 2.0, 0.0], [5.3, 0.0, 1.0]
    assert smallest_gap(X, np.array([0, 1, 2])) == direct(X, np.array([0, 1, 2])) == 1.0
    assert smallest_gap(X, np.array([0, 0, 0])) == np.inf
    assert smallest_gap(X[:1], np.array([0])) == np.inf
    assert smallest_gap(X[[0, 0]], np.array([0, 1])) == 0


def test_memory_does_not_grow_with_pairs_times_coordinates():
    n, P, d = 300, 8, 50  # all pairs at once: 288 MB
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((n, P, d)), rng.integers(3, size=n)
    tracemalloc.start()
    found = smallest_gap(X, y, block=1 << 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    assert found == min(np.abs(X[y != y[i]] - X[i]).max(axis=(1, 2)).min() for i in range(n))

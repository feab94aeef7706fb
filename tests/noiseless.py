"""Noiseless data, networks and what the exact recursion needs of them."""

import numpy as np
from scipy import stats

import advfeat as af
from advfeat.theory import State, empirical_types

K, M, D, P = 3, 4, 20, 7
RHO = 2.0


def problem(*, norm="linf", partition="uniform", random=False, seeds=(0, 1), scale=0.3, d=D):
    """Noiseless data, networks and features; for l_2 in a rotated basis."""
    features = None
    if norm == "l2":
        basis = np.linalg.qr(np.random.default_rng(9).standard_normal((d, 2 * K)))[0].T
        features = basis[:K], basis[K:]
    strengths = (stats.uniform(2, 2), stats.uniform(0.5, 1)) if random else (3.0, 1.0)
    law = af.PatchDistribution(
        n_classes=K, patch_dim=d, n_patches=P, n_robust=2, alpha=strengths[0], beta=strengths[1],
        partition=partition, features=features,
    )  # fmt: skip
    data = af.PatchData.stack([law.sample(6, s, balanced=True) for s in seeds])
    net = af.PatchCNN.init(K, M, d, rng=list(seeds), init_std=scale, q=3, rho=RHO)
    types = empirical_types(data.y, data.robust, data.strength, K)
    return net, data, types, State.from_weights(net.W, law.features)

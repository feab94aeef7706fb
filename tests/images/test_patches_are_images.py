"""The patch network of the paper written down in layers: patches as pixels, one convolution of 1 x 1, sums."""

import numpy as np
import pytest
from tolerances import GRADIENT

from advfeat import PatchCNN, PatchDistribution
from advfeat.images import Convolution, Linear, Network, ReLU, SumPool

LAW = PatchDistribution(n_classes=3, patch_dim=11, n_patches=5, n_robust=1, alpha=2.0, beta=1.0, noise_std=0.1)


def in_layers(patches: PatchCNN, n_patches: int) -> Network:
    """F_i = sum_s sum_p sigma(<w_{i,s}, x_p>): the last layer adds each class's m neurons, with weights that are 1."""
    k, m, d = patches.shape
    layers = {"neurons": Convolution(k * m, 1), "sigma": ReLU(patches.q, patches.rho), "patches": SumPool(),
              "classes": Linear(k, bias=False)}  # fmt: skip
    arrays = {"neurons.weight": patches.W.reshape(k * m, d, 1, 1), "classes.weight": np.repeat(np.eye(k), m, axis=1)}
    return Network(layers, (d, n_patches, 1), dtype="float64", box=None, arrays=arrays)


@pytest.mark.parametrize("mode", ["evaluate", "train"])
@pytest.mark.parametrize(("q", "rho"), [(2, 0.5), (3, 1.0), (7, 3.0)])
def test_logits_and_gradients_are_those_of_the_patch_network(q, rho, mode):
    patches, data = PatchCNN.init(3, 4, 11, rng=0, init_std=0.5, q=q, rho=rho), LAW.sample(8, 1)
    net = in_layers(patches, 5)
    images = np.ascontiguousarray(data.X.swapaxes(1, 2))[..., None]
    F = patches.logits(data.X)
    np.testing.assert_allclose(net.logits(images, mode), F, rtol=0, atol=1e-12 * np.abs(F).max())
    C = np.random.default_rng(2).standard_normal(F.shape)
    pairs = [(net.pull_back(images, C, mode)[..., 0].swapaxes(1, 2), patches.pull_back(data.X, C))]
    loss, gradient = patches.loss_and_grad(data.X, data.y)
    ours, gradients = net.loss_and_grad(images, data.y, mode)
    pairs.append((gradients["neurons.weight"].reshape(gradient.shape), gradient))
    assert abs(ours - loss) <= 1e-12 * loss
    for found, theirs in pairs:
        assert np.linalg.norm(found - theirs) <= GRADIENT["float64"] * np.linalg.norm(theirs)

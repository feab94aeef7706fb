"""The suite for images beside AutoAttack's standard version on the same weights in PyTorch (skipped without it)."""

import numpy as np
import pytest
import torch
import torch_networks
from advfeat.kernels import formulas

from advfeat.experiments import images
from advfeat.experiments.image_configuration import ImageConfig
from advfeat.experiments.image_presets import PRESETS
from advfeat.images.exchange import to_state_dict
from advfeat.robustness.transcript import attack_images

peer = pytest.importorskip("pyautoattack")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("eps", [0.1, 0.2])
def test_at_most_one_image_of_200_above_autoattack(eps, tmp_path):
    config = ImageConfig.build(None, (), None, **PRESETS["digits-pgd"].values)
    net = images.run(config, tmp_path / "run").nets["last"]
    data = config.test_samples()
    X, y = data.X[:200], data.y[:200]
    found = attack_images(net, (X, y), eps=eps)
    module = torch_networks.filled(torch_networks.ResNet(4, (1, 8, 8)), to_state_dict(net), False).float()
    adversary = peer.AutoAttack(module, norm="Linf", eps=eps, version="standard", device="cpu", seed=0)
    theirs, _ = adversary.run_standard_evaluation(torch.from_numpy(X), torch.from_numpy(y), batch_size=200)
    theirs = theirs.numpy()
    assert np.abs(theirs - X).max() <= eps + 1e-6
    F = net.logits(np.clip(theirs, 0, 1)).astype(np.float64)
    stands = formulas.margin(F[None], y[None])[0] > 0
    assert found.robust_accuracy <= stands.mean() + 1 / 200 + 1e-12

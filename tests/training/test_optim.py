"""Steps along gradients, beside PyTorch's, for every run of a batch, and from a checkpoint."""

import numpy as np
import pytest
import torch

from advfeat import PatchCNN, PatchDistribution, TrainConfig, train
from advfeat.training.optim import SGD

OPTIONS = [(0.0, 0.0), (0.9, 0.0), (0.0, 0.01), (0.7, 0.1)]
LAW = PatchDistribution(n_classes=3, patch_dim=11, n_patches=5, n_robust=1, alpha=2.0, beta=1.0, noise_std=0.1)


@pytest.mark.parametrize(("momentum", "weight_decay"), OPTIONS)
def test_steps_are_pytorchs(momentum, weight_decay):
    rng = np.random.default_rng(0)
    w = {"a": rng.standard_normal((4, 3)), "b": rng.standard_normal(3)}
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in w.values()]
    peer = torch.optim.SGD(theirs, lr=0.3, momentum=momentum, weight_decay=weight_decay)
    ours = SGD(np.array([0.3]), momentum, weight_decay)
    assert ours.plain == (momentum == weight_decay == 0)
    for _ in range(5):
        g = {name: rng.standard_normal(a.shape) for name, a in w.items()}
        for p, a in zip(theirs, g.values()):
            p.grad = torch.tensor(a)
        peer.step()
        ours.step(w, g)
    for p, a in zip(theirs, w.values()):
        np.testing.assert_allclose(a, p.detach().numpy(), rtol=1e-14)


def test_runs_have_their_own_rates_and_rest_alone():
    w, g = {"a": np.ones((3, 2))}, {"a": np.ones((3, 2))}
    SGD(np.array([0.1, 0.2, 0.3]), batched=True).step(w, g, np.array([True, False, True]))
    np.testing.assert_allclose(w["a"][:, 0], [0.9, 1, 0.7])


@pytest.mark.parametrize(("options", "message"), [({"momentum": 1.0}, "momentum = 1.0"),
                                                  ({"momentum": -0.1}, "momentum = -0.1"),
                                                  ({"weight_decay": -1.0}, "weight_decay = -1.0")])  # fmt: skip
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(lr=0.1, n_iter=1, **options)


@pytest.mark.parametrize("adversarial", [False, True])
def test_training_by_gradients_is_the_engines(adversarial):
    """A decay of the size of rounding sends a patch network the long way: the same weights as by the fused loop."""
    net = PatchCNN.init(3, 4, 11, rng=[1, 2], init_std=0.3, rho=2.0)
    ascent = {"adversarial": True, "ascent_lr": 0.5, "eps": 0.3, "n_ascent": 2} if adversarial else {}
    options = {"lr": [0.3, 0.2], "n_iter": 20, **ascent}
    data = LAW.sample(9, 0)
    fused, plain = (train(net, data, TrainConfig(**options, weight_decay=decay)) for decay in (0.0, 1e-300))
    np.testing.assert_allclose(plain.net.W, fused.net.W, rtol=0, atol=1e-13)
    assert np.abs(fused.net.W - net.W).max() > 0.1


def test_a_velocity_is_continued_to_the_same_bits(tmp_path):
    net, data = PatchCNN.init(3, 4, 11, rng=[1, 2], init_std=0.3, rho=2.0), LAW.sample(9, 0)
    config = TrainConfig(lr=0.1, n_iter=20, momentum=0.9, weight_decay=0.01, batch_size=4, record_every=5)

    def crash(net, iteration):
        if iteration == 15:
            raise RuntimeError
        return {}

    with pytest.raises(RuntimeError):
        train(net, data, config, metrics=crash, run_dir=tmp_path)
    found = train(net, data, config, metrics=lambda *_: {}, run_dir=tmp_path)
    assert np.array_equal(found.net.W, train(net, data, config).net.W)

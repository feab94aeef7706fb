"""Steps along gradients, beside PyTorch's, for every run of a batch, and from a checkpoint."""

import math

import numpy as np
import pytest
import torch
from advfeat.kernels.cpu import update

from advfeat import PatchCNN, PatchDistribution, TrainConfig, train
from advfeat.training.optim import SGD, Adam, rate

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


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decay_vectors": False}])
@pytest.mark.parametrize("name", ["nesterov", "adam"])
def test_nesterov_and_adam_are_pytorchs(name, options):
    rng = np.random.default_rng(1)
    w = {"a": rng.standard_normal((4, 3)), "b": rng.standard_normal(3)}
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in w.values()]
    decays = [options.get("weight_decay", 0.0)] * 2
    if not options.get("decay_vectors", True):
        decays[1] = 0.0
    groups = [{"params": [p], "weight_decay": decay} for p, decay in zip(theirs, decays)]
    if name == "adam":
        peer, ours = torch.optim.Adam(groups, lr=0.01), Adam(np.array([0.01]), **options)
    else:
        peer = torch.optim.SGD(groups, lr=0.1, momentum=0.8, nesterov=True)
        ours = SGD(np.array([0.1]), 0.8, nesterov=True, **options)
    for _ in range(6):
        g = {key: rng.standard_normal(a.shape) for key, a in w.items()}
        for p, a in zip(theirs, g.values()):
            p.grad = torch.tensor(a)
        peer.step()
        ours.step(w, g)
    for p, a in zip(theirs, w.values()):
        np.testing.assert_allclose(a, p.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"weight_decay": 0.01, "nesterov": True}])
def test_the_kernels_step_has_numpys_bits(options, dtype, monkeypatch):
    rng = np.random.default_rng(2)
    w = {name: rng.standard_normal(shape).astype(dtype) for name, shape in (("w", (300, 200)), ("b", (7,)))}
    found = []
    for smallest in (2**15, 2**40):
        monkeypatch.setattr(update, "SMALLEST", smallest)
        ours, draws = SGD(np.array([0.1]), 0.9, decay_vectors=False, **options), np.random.default_rng(3)
        held = {name: a.copy() for name, a in w.items()}
        for share in (1.0, 0.7, 0.3):
            ours.step(held, {name: draws.standard_normal(a.shape).astype(dtype) for name, a in w.items()}, share=share)
        found.append([*held.values(), *ours.state.values()])
    for a, b in zip(*found):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n", [7, 40])
@pytest.mark.parametrize("schedule", ["step", "cosine", "one_cycle"])
def test_rates_are_pytorchs(schedule, n):
    peer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = {
        "step": lambda: torch.optim.lr_scheduler.MultiStepLR(peer, [math.ceil(0.4 * n), math.ceil(0.9 * n)]),
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(peer, n),
        "one_cycle": lambda: torch.optim.lr_scheduler.OneCycleLR(peer, 1.0, total_steps=n, cycle_momentum=False),
    }[schedule]()
    for iteration in range(n):
        assert rate(schedule, iteration, n, drops=(0.4, 0.9)) == pytest.approx(peer.param_groups[0]["lr"], rel=1e-9)
        peer.step()
        scheduler.step()


def test_a_warm_up_grows_from_zero():
    shares = [rate("constant", i, 10, warm_up=4) for i in range(10)]
    np.testing.assert_allclose(shares, [0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1])


def test_a_schedule_is_what_training_follows():
    """One iteration at a time with the rates of a schedule: the same weights as the schedule's training."""
    net, data = PatchCNN.init(3, 4, 11, rng=1, init_std=0.3, rho=2.0), LAW.sample(9, 0)
    options = {"schedule": "cosine", "warm_up": 2}
    whole = train(net, data, TrainConfig(lr=0.3, n_iter=6, **options)).net
    for i in range(6):
        net = train(net, data, TrainConfig(lr=0.3 * rate("cosine", i, 6, warm_up=2), n_iter=1)).net
    np.testing.assert_allclose(whole.W, net.W, rtol=0, atol=1e-13)


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

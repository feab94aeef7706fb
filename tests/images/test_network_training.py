"""Training of networks of layers on real digits: beside PyTorch, continued, adversarial, in both modes."""

import numpy as np
import pytest
import torch
import torch_networks as peers
from torch.nn.functional import cross_entropy

from advfeat import PGD, AttackSuite, ThreatModel, TrainConfig, load, robust_accuracy, train
from advfeat.attacks.gradient import ascended
from advfeat.core.rng import stream
from advfeat.images import ConvNet, ResNet18
from advfeat.images.exchange import to_state_dict
from advfeat.robustness.catalogue import ATTACKS

pytest.importorskip("sklearn")
from advfeat.images.data import digits

RECIPE = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 100, "schedule": "one_cycle", "seed": 1}
PGD_ASCENT = {"adversarial": True, "ascent": "steepest", "random_start": True, "objective": "cross_entropy",
              "n_ascent": 7, "ascent_lr": 0.05, "eps": 0.2}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(scope="module")
def standard(data):
    return train(ResNet18(4, (1, 8, 8)), data[0], TrainConfig(n_iter=300, **RECIPE), test=data[1])


def accuracy(result):
    return result.history["test_accuracy"][-1]


def test_digits_are_learned(standard, data):
    assert accuracy(standard) >= 0.95
    loss = standard.history["loss"]
    assert loss[-1] < 0.05 < 2 < loss[0]
    said = standard.net.logits(data[1].X).argmax(axis=1) == data[1].y
    assert said.mean() == accuracy(standard)


@pytest.mark.slow
def test_adversarial_training_withstands_pgd(standard, data):
    config = TrainConfig(n_iter=450, **RECIPE, **PGD_ASCENT)
    result = train(ResNet18(4, (1, 8, 8)), data[0], config, test=data[1])
    threat = ThreatModel("linf", 0.2)
    robust, none = (1 - PGD("cross_entropy")(net, data[1], threat).success.mean() for net in (result.net, standard.net))
    assert accuracy(result) >= 0.95
    assert robust > 0.6
    assert none < 0.05


@pytest.mark.parametrize("options", [
    {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-3, "schedule": "one_cycle"},
    {"optimiser": "adam", "lr": 0.003, "weight_decay": 5e-3, "decay_vectors": False, "schedule": "cosine"},
], ids=["sgd", "adam"])  # fmt: skip
def test_a_hundred_steps_are_pytorchs(options, data):
    """The same network on the same batches in float64: loss and logits after 100 steps."""
    net = ResNet18(4, (1, 8, 8), dtype="float64", rng=5)
    module = peers.filled(peers.ResNet(4, (1, 8, 8)), to_state_dict(net), True)
    config = TrainConfig(**{"lr": 0.05, "n_iter": 100, "batch_size": 60, "seed": 3, **options})
    X, y = data[0].X[:300].astype(float), data[0].y[:300]
    ours = train(net, (X, y), config)
    vectors = [p for p in module.parameters() if p.ndim == 1]
    groups = [{"params": [p for p in module.parameters() if p.ndim > 1], "weight_decay": config.weight_decay},
              {"params": vectors, "weight_decay": config.weight_decay * config.decay_vectors}]  # fmt: skip
    if config.optimiser == "adam":
        optimiser = torch.optim.Adam(groups, config.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 100)
    else:
        optimiser = torch.optim.SGD(groups, config.lr, momentum=config.momentum, nesterov=config.nesterov)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, total_steps=100, cycle_momentum=False)
    for step in range(100):
        epoch, b = divmod(step, 5)
        chosen = stream(3, "minibatches", epoch).permutation(300)[60 * b : 60 * (b + 1)]
        optimiser.zero_grad()
        cross_entropy(module(torch.from_numpy(X[chosen])), torch.from_numpy(y[chosen])).backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        loss = cross_entropy(module.eval()(torch.from_numpy(X)), torch.from_numpy(y)).item()
    assert ours.history["loss"][-1] < 0.5 * ours.history["loss"][0]
    assert abs(ours.history["loss"][-1] - loss) <= 1e-9 * loss


@pytest.mark.parametrize("options", [{}, {"optimiser": "adam"}, PGD_ASCENT | {"crafting_mode": "train", "n_ascent": 2}],
                         ids=["sgd", "adam", "pgd"])  # fmt: skip
def test_a_stopped_training_continues_to_the_same_bits(options, data, tmp_path):
    net = ConvNet(4, (1, 8, 8), stages=2)
    recipe = RECIPE | ({"momentum": 0.0, "lr": 0.003} if "optimiser" in options else {})
    config = TrainConfig(n_iter=30, record_every=10, **recipe, **options)
    whole = train(net, data[0], config, test=data[1], run_dir=tmp_path / "whole")

    def stop(net, iteration):
        if iteration == 10 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise KeyboardInterrupt
        return {"seen": np.array(iteration)}

    with pytest.raises(KeyboardInterrupt):
        train(net, data[0], config, test=data[1], run_dir=tmp_path / "parts", metrics=stop)
    parts = train(net, data[0], config, test=data[1], run_dir=tmp_path / "parts", metrics=stop)
    assert parts.history["seen"].tolist() == [0, 10, 20, 30]
    for name, a in whole.net.arrays().items():
        np.testing.assert_array_equal(parts.net.arrays()[name], a, name)
    for name, a in whole.history.items():
        np.testing.assert_array_equal(parts.history[name], a)
    kept = load(tmp_path / "parts")
    assert kept.net.fingerprint() == whole.net.fingerprint()
    assert kept.history["loss"].tolist() == whole.history["loss"].tolist()


def test_initialisation_and_batches_have_seeds_of_their_own(data):
    small = data[0].X[:100], data[0].y[:100]

    def end(rng, seed):
        config = TrainConfig(lr=0.1, n_iter=3, batch_size=40, seed=seed)
        return train(ConvNet(2, (1, 8, 8), rng=rng), small, config).net.fingerprint()

    assert end(0, 0) == end(0, 0)
    assert len({end(0, 0), end(0, 1), end(1, 0), end(1, 1)}) == 4
    nets = [ConvNet(2, (1, 8, 8), rng=rng).fingerprint() for rng in (0, stream(0, "init"), np.random.default_rng(0))]
    assert nets[0] == nets[1] != nets[2]


# ------------------------------------------------------------------ how samples are crafted
@pytest.mark.parametrize("mode", ["evaluate", "train"])
def test_crafting_is_pgd_in_a_mode(mode, data):
    """Against PGD written out in PyTorch, in the mode of batch norm that is asked for, from the same start."""
    net = ResNet18(4, (1, 8, 8), dtype="float64")
    module = peers.filled(peers.ResNet(4, (1, 8, 8)), to_state_dict(net), mode == "train")
    X, y = data[0].X[:20].astype(float), data[0].y[:20]
    start = np.random.default_rng(0).uniform(-0.2, 0.2, X.shape)
    x = clean = torch.from_numpy(X)
    x = (clean + torch.from_numpy(start)).clamp(0, 1)
    for _ in range(4):
        x = x.detach().requires_grad_()
        slope = torch.autograd.grad(cross_entropy(module(x), torch.from_numpy(y), reduction="sum"), x)[0]
        x = (clean + (x + 0.05 * slope.sign() - clean).clamp(-0.2, 0.2)).clamp(0, 1)
    rates = {"lr": np.array([0.05]), "eps": np.array([0.2]), "n_steps": 4}
    ours = ascended(net.in_mode(mode), X[None], y[None], **rates, norm="linf", objective="cross_entropy", steepest=True,
                    start=start.reshape(1, 20, 1, 64))  # fmt: skip
    same = np.abs(ours[0] - x.detach().numpy()) <= 1e-12
    assert same.mean() > 0.99  # a sign may turn where a gradient is 0 but for rounding
    assert ours.min() >= 0
    assert ours.max() <= 1


@pytest.mark.parametrize(("updates", "moves"), [(False, 1), (True, 3)])
def test_crafting_moves_statistics_where_it_is_asked_to(updates, moves, data, monkeypatch):
    config = TrainConfig(lr=0.1, n_iter=1, batch_size=50, **PGD_ASCENT | {"n_ascent": 2}, crafting_mode="train",
                         crafting_updates=updates)  # fmt: skip
    net, seen = ConvNet(2, (1, 8, 8)), []
    monkeypatch.setattr(type(net), "_update", lambda self, statistics, n: seen.append(n))
    train(net, (data[0].X[:50], data[0].y[:50]), config)
    assert seen == [50] * moves


# ------------------------------------------------------------------ attacks
@pytest.mark.parametrize("n", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_the_suite_is_no_weaker_than_pytorchs_pgd(n, standard, data):
    """Every attack for any model together leaves at most one image of 100 more than PGD on the exported weights."""
    net = standard.net.astype("float64")
    X, y = data[1].X[:n].astype(float), data[1].y[:n]
    module, eps = peers.filled(peers.ResNet(4, (1, 8, 8)), to_state_dict(net), False), 0.08
    torch.manual_seed(0)
    clean, label = torch.from_numpy(X), torch.from_numpy(y)
    stands = module(clean).argmax(dim=1) == label
    for _ in range(2):
        x = (clean + eps * (2 * torch.rand_like(clean) - 1)).clamp(0, 1)
        for _ in range(40):
            x = x.detach().requires_grad_()
            slope = torch.autograd.grad(cross_entropy(module(x), label, reduction="sum"), x)[0]
            x = (clean + (x + 0.1 * eps * slope.sign() - clean).clamp(-eps, eps)).clamp(0, 1)
            stands &= module(x).argmax(dim=1) == label
    theirs = stands.double().mean().item()
    assert 0.1 < theirs < 0.9  # else there is nothing to compare
    names = [name for name, entry in ATTACKS.items() if not entry.needs]
    found = AttackSuite(names)(net, (X, y), ThreatModel("linf", eps))
    assert found.robust.mean() <= theirs + 0.01
    assert found.X_adv.min() >= 0
    assert found.X_adv.max() <= 1
    broken = found.success
    assert (net.logits(found.X_adv).argmax(axis=1)[broken] != y[broken]).all()
    measured = robust_accuracy(net, (X, y), eps=eps, n_steps=40)
    assert found.robust.mean() <= measured.robust_accuracy <= theirs + 0.05

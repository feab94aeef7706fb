"""How training samples are moved: TRADES beside PyTorch, a radius that grows, augmentation from its own stream."""

import numpy as np
import pytest
import torch
from image_networks import images, network, style, twin

import advfeat as af
from advfeat.core.rng import stream
from advfeat.images import ConvNet
from advfeat.images.data import augmented, digits
from advfeat.images.exchange import names
from advfeat.training.adversary import Adversary, trades
from advfeat.training.configuration import TrainConfig
from advfeat.training.loop import Trainer

OPTIONS = {"lr": 0.05, "n_iter": 4, "adversarial": True, "ascent": "steepest", "objective": "cross_entropy",
           "ascent_lr": 0.02, "eps": 0.05, "n_ascent": 3}  # fmt: skip


@pytest.mark.parametrize("name", ["resnet18-w4-7x7", "wrn-10-1-28x28"])
def test_trades_is_pytorchs(name):
    net = network(name)
    X, y = images(name, net, 2)
    moved = np.clip(X + np.random.default_rng(3).normal(0, 0.1, X.shape), 0, 1)
    module = twin(name, net, True)
    F, F_moved = module(torch.from_numpy(X)), module(torch.from_numpy(moved))
    loss = torch.nn.functional.cross_entropy(F, torch.from_numpy(y)) + 4.5 * torch.nn.functional.kl_div(
        torch.log_softmax(F_moved, 1), torch.softmax(F, 1), reduction="batchmean")  # fmt: skip
    loss.backward()
    theirs = {key: p.grad.numpy() for key, p in module.named_parameters()}
    before = {key: a.copy() for key, a in net.statistics.items()}
    ours, gradient = trades(net, X, moved, y, 4.5)
    assert abs(ours - loss.item()) <= 1e-12 * abs(loss.item())
    new = names(net, style(name))
    ours, theirs = (np.concatenate([np.ravel(g) for g in side]) for side in
                    ((gradient[key] for key in gradient), (theirs[new[key]] for key in gradient)))  # fmt: skip
    assert np.linalg.norm(ours - theirs) <= 1e-11 * np.linalg.norm(theirs)
    assert all((a != before[key]).any() for key, a in net.statistics.items())


def test_trades_gradient_is_central_differences():
    net = ConvNet(3, (1, 7, 7), dtype="float64", rng=0)
    rng = np.random.default_rng(1)
    X, y = rng.random((6, 1, 7, 7)), rng.integers(10, size=6)
    moved = np.clip(X + rng.normal(0, 0.05, X.shape), 0, 1)
    _, gradient = trades(net, X, moved, y, 2.0)
    direction = {name: rng.standard_normal(a.shape) for name, a in net.parameters.items()}
    step, values = 1e-6, []
    for sign in (1, -1):
        other = net.copy()
        for name, a in other.parameters.items():
            a += sign * step * direction[name]
        values.append(trades(other, X, moved, y, 2.0)[0])
    along = sum((gradient[name] * d).sum() for name, d in direction.items())
    np.testing.assert_allclose((values[0] - values[1]) / (2 * step), along, rtol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["cross_entropy", "trades"])
def test_moved_samples_lie_in_a_ball_that_grows(norm, loss):
    net = ConvNet(3, (1, 8, 8), rng=0)
    data = digits()[0]
    X, y = data.X[None, :20], data.y[None, :20]
    config = TrainConfig(**OPTIONS | {"norm": norm, "loss": loss, "eps_warm_up": 4, "random_start": loss != "trades"})
    adversary = Adversary(config, net, lambda iteration: [0])
    for iteration, share in ((0, 0.2), (1, 0.4), (4, 1.0), (9, 1.0)):
        d = (adversary.moved(net, X, y, iteration) - X).reshape(20, -1).astype(float)
        size = np.abs(d).max(axis=1) if norm == "linf" else np.linalg.norm(d, axis=1)
        assert (size <= 0.05 * share * (1 + 1e-5) + 1e-6).all()
        assert size.max() > 0.04 * share
    again = adversary.moved(net, X, y, 9)
    np.testing.assert_array_equal(again, Adversary(config, net, lambda iteration: [0]).moved(net, X, y, 9))
    if loss == "cross_entropy":  # TRADES's noise is small, and steps of one length forget it
        assert (again != Adversary(config, net, lambda iteration: [1]).moved(net, X, y, 9)).any()


def test_augmentation_moves_and_mirrors():
    X = np.arange(2 * 1 * 6 * 5, dtype=float).reshape(2, 1, 6, 5)
    assert augmented(X, stream(0, "augmentation", 0), "none") is X
    seen = {"crop": set(), "crop_flip": set()}
    for seed in range(200):
        for kind, found in seen.items():
            out = augmented(X, stream(seed, "augmentation", 0), kind, padding=1)
            assert out.shape == X.shape
            found.add(out[0].tobytes())
    assert len(seen["crop"]) == 9
    assert len(seen["crop_flip"]) == 18
    wide = np.pad(X[0, 0], 1, mode="reflect")
    windows = {wide[i : i + 6, j : j + 5].tobytes() for i in range(3) for j in range(3)}
    assert seen["crop"] == windows
    tiny = augmented(np.ones((1, 1, 2, 2)), stream(0, "augmentation", 0), "crop", padding=4)
    np.testing.assert_array_equal(tiny, np.ones((1, 1, 2, 2)))


def test_augmented_training_resumes_and_differs(tmp_path):
    net, data = ConvNet(3, (1, 8, 8), rng=0), digits()[0]
    data = data.X[:60], data.y[:60]
    options = {"lr": 0.05, "n_iter": 4, "batch_size": 20}
    plain, moved = (af.train(net, data, TrainConfig(**options, augmentation=kind)).net for kind in ("none", "crop"))
    assert (plain.parameters["fc.weight"] != moved.parameters["fc.weight"]).any()
    whole = af.train(net, data, TrainConfig(**options | {"batch_size": None}, augmentation="crop_flip")).net
    assert (whole.parameters["fc.weight"] != plain.parameters["fc.weight"]).any()


@pytest.mark.parametrize(("changes", "message"), [
    ({"loss": "trades", "random_start": True}, "random_start = True: TRADES begins next to the samples"),
    ({"adversarial": False, "ascent_lr": None, "eps": None, "ascent": "gradient", "loss": "trades"},
     "loss = 'trades': only with adversarial = True"),
    ({"augmentation": "mixup"}, "augmentation = 'mixup': unknown"),
])  # fmt: skip
def test_bad_configurations(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**OPTIONS | changes)


def test_what_other_models_cannot_do():
    net = af.PatchCNN.init(3, 4, 11, rng=0)
    law = af.PatchDistribution(n_classes=3, patch_dim=11, n_patches=4, n_robust=1, alpha=2, beta=1)
    data = law.sample(9, 0)
    with pytest.raises(TypeError, match="loss = 'trades': PatchCNN has no logits_and_weights_grad"):
        af.train(net, data, TrainConfig(**OPTIONS | {"loss": "trades"}))
    with pytest.raises(ValueError, match=r"augmentation = 'crop': samples are .*, and no images"):
        af.train(net, data, TrainConfig(lr=0.1, n_iter=2, augmentation="crop"))


def test_another_seed_from_an_iteration_on():
    X, y = np.zeros((6, 1, 8, 8), np.float32), np.arange(6) % 3
    net = ConvNet(2, (1, 8, 8), 3, stages=1)
    trainer = Trainer(net, (X, y), TrainConfig(lr=0.1, n_iter=9, batch_size=2, seed=5, later_seed=7, later_from=4))
    assert [trainer.seeds_at(i) for i in (0, 3, 4, 8)] == [[5], [5], [7], [7]]
    assert Trainer(net, (X, y), TrainConfig(lr=0.1, n_iter=9, seed=5)).seeds_at(8) == [5]

"""Attacks on features alone: balls, distances, that victims are never asked, and the optimum where it is known."""

from dataclasses import replace

import numpy as np
import pytest

from advfeat import FeaturePGD, ThreatModel
from advfeat.core import ball
from advfeat.core.model import Model
from advfeat.images import ConvNet, Linear, Network, ReLU

EPS = {"linf": 0.1, "l2": 1.0, "l1": 4.0}


def reference(seed=0, dtype="float64"):
    return ConvNet(6, (1, 8, 8), 3, stages=2, dtype=dtype, rng=seed)


def samples(n=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, 1, 8, 8)), np.arange(n) % 3


@pytest.fixture(scope="module")
def attack():
    X, y = samples(30, 1)
    return FeaturePGD(reference(), X, y, n_steps=12)


@pytest.mark.parametrize("norm", ball.NORMS)
def test_crafted_images_lie_in_ball_and_box_and_closer_than_before(norm, attack):
    X, y = samples()
    targets = (y + 1) % 3
    found = attack.craft(X, targets, EPS[norm], norm, 5)
    delta = (found.X - X).reshape(1, len(X), 1, -1)
    assert ball.length(delta, norm).max() <= EPS[norm] * (1 + 1e-12) + 1e-12
    assert 0 <= found.X.min() <= found.X.max() <= 1
    np.testing.assert_array_equal(attack.y[found.goal], targets)
    net, g = attack.reference, attack.reference.representation(attack.X[found.goal])
    for images, distance in ((X, found.before), (found.X, found.distance)):
        wanted = np.linalg.norm(net.representation(images) - g, axis=1) / np.linalg.norm(g, axis=1)
        np.testing.assert_allclose(distance, wanted, rtol=1e-12)
    assert (found.distance <= found.before).all()
    assert (found.distance < 0.9 * found.before).sum() > 6


def test_of_all_points_on_the_way_the_closest_is_taken(attack):
    """Steps of twice the radius to and fro end anywhere."""
    X, y = samples()
    wild = [replace(attack, step=2.0, schedule="constant", n_steps=n).craft(X, (y + 1) % 3, 0.3).distance
            for n in range(1, 9)]  # fmt: skip
    assert (np.diff(wild, axis=0) <= 0).all()
    assert (np.diff(wild, axis=0) == 0).any()


@pytest.mark.parametrize(("schedule", "within"), [("constant", 0.2 * 0.05), ("cosine", 1e-3)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_reaches_the_nearest_point_where_that_is_known(norm, schedule, within):
    """With g(x) = Q x + c, Q orthogonal and all entries positive, the nearest point is x' - x projected to the ball."""
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((9, 9)))[0]
    net = Network([Linear(9), ReLU(), Linear(2)], (1, 3, 3), dtype="float64", box=(0, 1))
    weight, bias = (name for name in net.parameters if net.parameters[name].shape in ((9, 9), (9,)))
    net.parameters[weight][...], net.parameters[bias][...] = Q, 10.0
    X, y = rng.random((8, 1, 3, 3)), np.zeros(8, int)
    aims = rng.random((20, 1, 3, 3))
    options = {"n_steps": 400, "step": 0.05, "schedule": schedule}
    found = FeaturePGD(net, aims, np.ones(20, int), **options).craft(X, y + 1, 0.2, norm)
    way = (aims[found.goal] - X).reshape(1, 8, 1, -1)
    nearest = ball.project(way, np.full((1, 8), 0.2), norm)
    np.testing.assert_allclose((found.X - X).reshape(way.shape), nearest, rtol=0, atol=within)
    assert np.abs(nearest - way).max() > 0.1


class NeverAsked(Model):
    """A victim whose logits are another network's and whose gradients nobody may take."""

    kind = "never-asked"

    def __init__(self, net):
        self.net = net
        self.dtype, self.n_classes, self.sample_shape = net.dtype, net.n_classes, net.sample_shape

    def logits(self, X):
        return self.net.logits(X)

    def pull_back(self, X, C):
        raise AssertionError("the victim was asked for a gradient")


def test_as_an_attack_it_shows_what_it_crafts_and_asks_the_victim_for_logits_alone(attack):
    X, y = samples()
    targets, victim = (y + 1) % 3, NeverAsked(reference(7))
    found = attack(victim, (X, y), ThreatModel("linf", 0.1, targets=targets), 5)
    crafted = attack.craft(X, targets, 0.1, "linf", 5)
    F, before = victim.logits(crafted.X), victim.logits(X)
    open_ = before.argmax(axis=1) != targets
    moved = np.abs(found.X_adv - X).reshape(len(X), -1).max(axis=1) > 0
    assert moved.sum() > 3
    np.testing.assert_allclose(found.X_adv[moved], crafted.X[moved], rtol=0, atol=1e-15)
    np.testing.assert_array_equal(found.success, np.where(open_, F.argmax(axis=1) == targets, True))
    assert (found.gradient_calls == 0).all()
    np.testing.assert_array_equal(found.forward_calls, 1 + open_)


def test_what_an_image_gets_hangs_on_its_number_and_the_seed_alone(attack):
    X, y = samples()
    targets = (y + 1) % 3
    whole, some, other = attack.craft(X, targets, 0.1), attack.craft(X[:5], targets[:5], 0.1), attack.craft(
        X, targets, 0.1, rng=1)  # fmt: skip
    np.testing.assert_array_equal(whole.X[:5], some.X)
    np.testing.assert_array_equal(whole.goal[:5], some.goal)
    assert (whole.goal != other.goal).any()
    still = replace(attack, random_start=False, n_steps=1).craft(X, targets, 0.0)
    np.testing.assert_array_equal(still.X, X)
    np.testing.assert_array_equal(still.distance, still.before)


def test_of_the_same_class_two_references_aim_at_the_same_images(attack):
    X, y = samples()
    other = replace(attack, reference=reference(3))
    goals = [one.craft(X, (y + 1) % 3, 0.1).goal for one in (attack, other)]
    np.testing.assert_array_equal(*goals)


@pytest.mark.parametrize(("change", "message"), [
    ({"n_steps": 0}, "n_steps = 0: must be an integer >= 1"),
    ({"step": 0}, "step = 0: must be a number, finite and > 0"),
    ({"schedule": "cubic"}, "schedule = 'cubic': unknown"),
    ({"random_start": 1.5}, "random_start = 1.5"),
    ({"X": np.zeros((30, 1, 9, 9))}, "X has shape"),
    ({"y": np.zeros(3, int)}, "y has shape"),
])  # fmt: skip
def test_bad_options(change, message, attack):
    with pytest.raises(ValueError, match=message):
        replace(attack, **change)


def test_what_does_not_fit_is_refused(attack):
    X, y = samples()
    for threat, message in ((ThreatModel("linf", 0.1), "give the threat a class per sample"),
                            (ThreatModel("linf", 0.1, targets=y), "must differ from the labels")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            attack(reference(1), (X, y), threat)
    wide = ConvNet(4, (1, 9, 9), 3, stages=2, dtype="float64")
    with pytest.raises(ValueError, match="the reference reads"):
        attack(wide, (np.zeros((2, 1, 9, 9)), np.array([0, 1])), ThreatModel("linf", 0.1, targets=np.array([1, 0])))
    with pytest.raises(ValueError, match="none of the 10 images to aim at is of this class"):
        replace(attack, X=attack.X[:10], y=np.zeros(10, int)).craft(X, (y + 1) % 3, 0.1)
    with pytest.raises(ValueError, match="eps = -1"):
        attack.craft(X, y, -1)
    with pytest.raises(ValueError, match="norm = 'l3'"):
        attack.craft(X, y, 1, "l3")

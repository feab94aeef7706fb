"""The worst of several attacks; masked networks; the share that stands."""

import numpy as np
import pytest

from advfeat import (
    APGD,
    FGSM,
    PGD,
    Aligned,
    AttackSuite,
    PatchCNN,
    PatchData,
    PatchDistribution,
    Rescue,
    Square,
    ThreatModel,
    certify,
    robust_accuracy,
)
from advfeat.robustness.suite import NAMED

LAW = PatchDistribution(n_classes=4, patch_dim=9, n_patches=6, n_robust=1, alpha=2.0, beta=1.0, noise_std=0.25)
DATA = PatchData.stack([LAW.sample(12, seed) for seed in range(2)])
U, V = LAW.features
W = 0.3 * U[:, None] + 0.3 * V[:, None] + np.random.default_rng(0).standard_normal((2, 4, 3, 9)) / 5
NET = PatchCNN(W, 3, 0.7)
LIMITS = ThreatModel(eps=0.09)
SOME = [FGSM(), PGD(n_steps=4), Aligned(), Square(n_steps=20), APGD(n_steps=10), Rescue(n_steps=6)]


@pytest.mark.parametrize("stop_early", [True, False])
def test_a_suite_keeps_the_worst_and_says_who_broke_what(stop_early):
    alone = {attack.name: attack(NET, DATA, LIMITS, [3, 4]) for attack in SOME}
    found = AttackSuite(SOME, stop_early=stop_early)(NET, DATA, LIMITS, [3, 4])
    by_any = np.any([one.success for one in alone.values()], axis=0)
    assert 0 < by_any.mean() < 1
    np.testing.assert_array_equal(found.success, by_any)
    np.testing.assert_array_equal(found.robust, ~by_any)
    np.testing.assert_array_equal(found.margin, NET.margin(found.X_adv, DATA.y))
    np.testing.assert_array_equal(found.clean, NET.margin(DATA.X, DATA.y) <= 0)
    assert found.clean.any()
    before = found.clean.copy()
    for name, one in alone.items():
        np.testing.assert_array_equal(found.broken_by[name], one.success & ~before)
        worked_on = ~(before if stop_early else found.clean)
        np.testing.assert_array_equal(~np.isnan(found.results[name].margin), worked_on)
        np.testing.assert_array_equal(found.results[name].margin[worked_on], one.margin[worked_on])
        before |= one.success
    still = ~found.success
    np.testing.assert_array_equal(found.margin[still], np.min([one.margin for one in alone.values()], axis=0)[still])


def test_a_suite_stops_when_nothing_is_left():
    found = AttackSuite(["aligned", "pgd_margin", "square"])(NET, DATA, ThreatModel(eps=3.0))
    assert found.success.all()
    assert list(found.results) == ["aligned"]
    assert not found.broken_by["square"].any()
    some = np.arange(12) < 5
    part = AttackSuite(["aligned", "square"])(NET, DATA, ThreatModel(eps=3.0), active=some)
    np.testing.assert_array_equal(part.success, np.broadcast_to(some, (2, 12)))
    assert not part.robust.any()
    assert np.isnan(part.margin[:, ~some]).all()


def test_every_named_attack_runs():
    for name, attack in NAMED.items():
        assert attack.name == name
        found = AttackSuite([name])(NET.run(0), LAW.sample(2, 9), ThreatModel(eps=0.01))
        assert set(found.broken_by) == {name}


# ------------------------------------------------------------------ masking (docs: what one attack alone would report)
def dead_patches(n_patches=6, scale=1.0):
    """Two classes, a neuron each.  On every clean patch the rival's preactivation is < 0, so its slope is 0, and on all
    but the first the label's is too: no gradient says that the rival's neuron could be reached."""
    net = PatchCNN(scale * np.array([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 1.0]]]), 2, 0.1 * scale)
    X = np.tile([-0.2, -0.3, -0.3], (1, n_patches, 1))
    X[0, 0] = [2.0, -0.3, -0.3]
    return net, X, np.array([0])


def test_the_rescue_enters_patches_whose_gradient_is_dead():
    net, X, y = dead_patches()
    limits = ThreatModel("l2", 0.9)
    assert (net.input_grad(X, y, "margin")[0, 1:] == 0).all()
    found, rescued = FGSM("margin")(net, (X, y), limits), Rescue(n_steps=40)(net, (X, y), limits)
    assert found.margin == pytest.approx(2.0 - 0.9 - 0.05)
    np.testing.assert_array_equal(found.X_adv[0, 1:], X[0, 1:])  # masked: no patch but the first has moved
    assert not found.success
    assert rescued.success
    assert (net.logits(rescued.X_adv) - net.logits(X))[0, 1] > 1
    assert rescued.margin < found.margin - 1  # five patches give up to 0.9 sqrt(2) - 0.65 each


def test_cross_entropy_is_masked_by_confidence_and_the_suite_is_not():
    """Logits in the thousands: softmax is exactly 1, every slope of the cross-entropy exactly 0, at each start."""
    net, X, y = dead_patches(scale=5000.0)
    limits = ThreatModel("l2", 0.9)
    assert (net.input_grad(X, y, "cross_entropy") == 0).all()
    cross_entropy = PGD("cross_entropy")(net, (X, y), limits, 0)
    suite = AttackSuite([PGD("cross_entropy"), PGD(), Aligned(), Rescue()])(net, (X, y), limits, 0)
    assert not cross_entropy.success
    assert suite.success
    assert not suite.broken_by["pgd_cross_entropy"]


def test_a_suite_meets_the_certificate_where_pgd_reports_robustness():
    """A non-robust minimum (Prop. 3.1) among untrained neurons, with noise, in the polynomial part of the activation.

    Margin PGD reports 0.97 and aligned moves 1.00, but a third of the samples is all that is certified, and the rescue
    breaks every other one.
    """
    law = PatchDistribution(n_classes=3, patch_dim=60, n_patches=16, n_robust=1, alpha=3.0, beta=1.0, noise_std=0.05)
    data = law.sample(30, 0)
    W = 0.1 * np.random.default_rng(1).standard_normal((3, 4, 60))
    W[:, 0] += 1.5 * law.features[1]
    net, limits = PatchCNN(W, 3, 100.0), ThreatModel(eps=0.14)
    assert net.accuracy(data.X, data.y) == 1
    assert 1 - PGD()(net, data, limits, 0).success.mean() > 0.9
    found = AttackSuite([Aligned(), PGD("cross_entropy"), PGD(), Rescue()])(net, data, limits, 0)
    certified = certify(net, data.X, data.y, 0.14).certified
    assert 0.2 < certified.mean() < 0.5
    np.testing.assert_array_equal(found.robust, certified)
    assert found.broken_by["rescue"].mean() > 0.5


# ------------------------------------------------------------------ robust_accuracy
@pytest.mark.parametrize("certificate", ["interval", "linear"])
@pytest.mark.parametrize(("norm", "budget"), [("linf", "patch"), ("l2", "global"), ("l1", "patch")])
def test_robust_accuracy_lies_between_certificate_and_attacks(norm, budget, certificate):
    limits = {"norm": norm, "budget": budget, "eps": {"linf": 0.05, "l2": 0.3, "l1": 0.2}[norm]}
    found = robust_accuracy(NET, DATA, **limits, certificate=certificate, ascent_lr=0.5, n_steps=4, rng=[3, 4])
    assert not (found.certified & ~found.correct).any()
    assert not (found.certified & ~found.standing).any()
    assert (found.interval_certified <= found.certified).all()
    names = ["feature_swap", "one_step", "aligned", "pgd_cross_entropy", "pgd_margin"]
    assert list(found.broken) == [*names, *["branch_and_bound"][: certificate != "interval"]]
    others = np.any([found.broken[name] for name in names[:-1]], axis=0)
    assert not (found.broken["pgd_margin"] & others).any()
    assert (found.certified_accuracy <= found.robust_accuracy).all()
    assert (found.robust_accuracy < found.correct.mean(axis=-1)).any()

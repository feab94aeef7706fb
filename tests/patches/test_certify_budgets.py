"""Budgets of certificates: why a search stopped, time limits, giving up, many nodes, duality gaps."""

import numpy as np
import pytest
from advfeat.kernels import get_engine

from advfeat import PatchCNN
from advfeat.patches.certify import certify, robust_radius
from advfeat.patches.certify.pairs import REASONS


@pytest.fixture(scope="module")
def fall():
    """Samples on the fall of their curve: a label and a rival with a strong neuron each, the rival with dense ones too,
    at radii between what few boxes certify and what is broken."""
    rng = np.random.default_rng(0)
    W = rng.standard_normal((2, 13, 45)) / 4
    W[0] *= 0.1
    W[:, 0] = 0
    W[0, 0, 0], W[1, 0, 1] = 20, 8
    X = 0.02 * rng.standard_normal((4, 8, 45))
    X[:, 0, 0] += 2
    net, y = PatchCNN(W, 3, 30.0), np.zeros(4, int)
    radius = robust_radius(net, X, y, max_nodes=2, rtol=2e-3)
    share = np.array([0.1, 0.3, 0.5, 0.7])
    return net, X, y, (1 - share) * radius.certified + share * radius.broken


def test_every_sample_says_why_it_stopped(fall):
    few, many = (certify(*fall, max_nodes=n) for n in (64, 512))
    for found in (few, many):
        assert set(found.reason) <= set(REASONS)
        np.testing.assert_array_equal(found.reason == "decided", found.certified | found.broken)
    assert (few.reason == "budget").any()
    assert (many.reason == "decided").sum() > (few.reason == "decided").sum()
    assert (many.lower >= few.lower)[~few.certified].all()
    assert (certify(*fall, method="tangents").reason == "method").any()
    assert (certify(*fall, max_nodes=2, active=np.arange(4) == 0).reason[1:] == "").all()


def test_giving_up_is_for_who_gives_no_budget(fall):
    """A budget that is given is used; without one hopeless samples are left, and `give_up` decides."""
    default, given, both = (certify(*fall, **o) for o in ({}, {"max_nodes": 64}, {"max_nodes": 64, "give_up": True}))
    left = default.reason == "given up"
    assert left.any()
    assert not (given.reason == "given up").any()
    for name in ("lower", "upper", "nodes", "reason"):
        np.testing.assert_array_equal(getattr(default, name), getattr(both, name))
    assert (given.nodes[left] > default.nodes[left]).all()
    assert (given.lower[left] > default.lower[left]).any()


def test_a_time_limit_ends_the_search_with_sound_bounds(fall):
    at_once, later = (certify(*fall, max_nodes=64, time_limit=seconds) for seconds in (0, 1e6))
    whole = certify(*fall, max_nodes=64)
    assert (at_once.reason == "time limit").all()
    for name in ("lower", "upper", "nodes", "reason"):
        np.testing.assert_array_equal(getattr(later, name), getattr(whole, name))
    assert (at_once.lower <= whole.upper).all()
    with pytest.raises(ValueError, match="time_limit = -1"):
        certify(*fall, time_limit=-1)


def test_a_time_limit_cuts_a_stage(fall, monkeypatch):
    """The clock is looked at between parts of one stage, too: some patches are searched, others are not."""
    monkeypatch.setattr("advfeat.patches.certify.pairs.FEW_PROBLEMS", 4)
    monkeypatch.setattr("advfeat.patches.certify.pairs.AT_ONCE", 1)
    whole = certify(*fall, max_nodes=64)
    nodes = []
    for end in range(1, 60, 6):
        ticks = iter(range(10**6))
        monkeypatch.setattr("advfeat.core.progress.now", lambda ticks=ticks: next(ticks))
        found = certify(*fall, max_nodes=64, time_limit=end)
        assert set(found.reason) <= {"time limit", "budget", "decided"}
        assert (found.lower <= whole.upper).all()
        nodes.append(int(found.nodes.sum()))
    assert nodes == sorted(nodes)
    assert len(set(nodes)) > 5


def test_the_numerical_floor_is_named():
    """Where the margin is 0 but for rounding nothing decides: F is linear there, and 7 eps is what it loses."""
    net, X = PatchCNN(np.array([[[10.0, 6, 11]], [[7, 10, 11]]]), 3, 1e-3), np.array([[[2.5, 1.7, 2.3]]])
    eps = (3 * X[0, 0, 0] - 4 * X[0, 0, 1]) / 7 * (1 - np.arange(-20, 200, 4) * 2.0**-52)
    found = certify(net, np.repeat(X, len(eps), axis=0), np.zeros(len(eps), int), eps, max_nodes=1000)
    assert set(found.reason) == {"decided", "numerical floor"}


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_a_duality_gap_is_reported(norm):
    """It is a part of what is left between the bounds, and searches without end leave little else."""
    rng, reasons = np.random.default_rng(7), set()
    for _ in range(6):
        net, X = PatchCNN(rng.standard_normal((2, 2, 1)), 4, 1.0), rng.standard_normal((10, 3, 1))
        y = net.logits(X).argmax(axis=1)
        found = certify(net, X, y, 0.4, norm=norm, budget="global", max_nodes=200)
        reasons |= set(found.reason)
        closed = found.reason == "duality gap"
        assert (found.duality_gap[closed] >= 0).all()
        assert (found.duality_gap[closed] <= found.upper[closed] - found.lower[closed] + 1e-9).all()
    assert "duality gap" in reasons
    assert np.isnan(certify(net, X, y, 0.4, norm=norm, max_nodes=2).duality_gap).all()


def test_more_nodes_never_loosen_a_bound(fall):
    net, X, _, eps = fall
    rows, engine = np.array([[p, 0, 0, 1] for p in range(8)]), get_engine("numba")
    numbers = np.array([[eps[0], 0.0, 0.0]] * 8)
    for parabolas in (False, True):
        lower = [
            engine.search(net.weights, X[0], rows, numbers, 0, 3, 30.0, 6, 4, n, parabolas)[0]
            for n in (9, 99, 999, 9999)
        ]
        assert (np.diff(lower, axis=0) >= 0).all()
        assert (lower[-1] > lower[0]).any()

"""Progress and time limits: one mechanism for all that takes long.  The clock here ticks with every look at it, so that
no test waits and none depends on how fast a machine is."""

import itertools

import numpy as np
import pytest

import advfeat as af
from advfeat.core import progress
from advfeat.core.progress import Stopwatch
from advfeat.experiments.configuration import Figure3Config
from advfeat.images import ConvNet
from advfeat.images.inversion import Inversion, invert
from advfeat.robustness import curves
from advfeat.robustness.catalogue import LABELS
from advfeat.theory import State, empirical_types, recursion, simulate

SMALL = {"n_classes": 3, "n_neurons": 4, "patch_dim": 12, "n_patches": 8, "n_train": 9, "n_test": 20, "rho": 30.0}
CONFIG = Figure3Config(**SMALL, alpha=2.0, lr=5.0, n_iter=900, n_seeds=2, dtype="float64")
EPS = 0.35
ATTACKS = [af.FGSM(), af.OneStepAscent(lr=3.0), af.Aligned(), af.Rescue(n_steps=5), af.Square(n_steps=6, n_restarts=2),
           af.PGD(n_steps=3, n_restarts=2), af.APGD(n_steps=5), af.PGD("dlr", n_steps=4, momentum=0.5)]  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    data, test = CONFIG.data("train"), CONFIG.data("test")
    return af.train(CONFIG.network(), data, CONFIG.training(True)).net, test


@pytest.fixture
def ticks(monkeypatch):
    """A clock that is one second further at every look; its looks are counted."""
    looks = itertools.count()
    monkeypatch.setattr(progress, "now", lambda: float(next(looks)))


def told(call, **options):
    """What a call returns, and what it has said, which must begin at 0 or above, never fall, and end at 1."""
    said = []
    found = call(progress=lambda what, share: said.append((what, share)), **options)
    shares = [share for _, share in said]
    assert all(isinstance(what, str) and what for what, _ in said)
    assert shares == sorted(shares)
    assert shares[0] >= 0
    return found, said


def same(a, b, names):
    for name in names:
        assert np.asarray(getattr(a, name)).tobytes() == np.asarray(getattr(b, name)).tobytes(), name


# ------------------------------------------------------------------ the clock itself
def test_a_clock_tells_shares_that_never_fall_and_when_it_is_up(ticks):
    said = []
    clock = Stopwatch(lambda *one: said.append(one), 4)
    inner = clock.part(0.5, 1.0, "second half")
    for share in (0.0, 0.6, 0.2, 1.4):
        inner("anything", share)
    assert said == [("second half", pytest.approx(share)) for share in (0.5, 0.8, 0.8, 1.0)]
    assert (clock.is_up(), clock.left, clock.timed_out) == (False, 2.0, False)
    assert [clock.is_up(), clock.is_up()] == [False, True]
    assert (clock.timed_out, clock.left) == (True, 0.0)


@pytest.mark.parametrize("bad", [-1, "soon", np.nan, np.inf, True])
def test_a_time_limit_is_a_number(bad, trained):
    with pytest.raises(ValueError, match=r"time_limit = .*: must be a number, finite and >= 0"):
        af.certify(trained[0], trained[1].X, trained[1].y, EPS, time_limit=bad)


def test_without_a_limit_no_clock_is_looked_at(monkeypatch):
    monkeypatch.setattr(progress, "now", lambda: 0.0)
    clock = Stopwatch()
    assert (clock.left, clock.part(0, 1), clock.is_up()) == (None, None, False)


# ------------------------------------------------------------------ attacks and suites
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_keeps_its_best_points_until_the_time_is_over(attack, trained, ticks):
    net, data = trained
    threat = af.ThreatModel("linf", EPS)
    whole, said = told(lambda **o: attack(net, data, threat, **o))
    assert said[-1][1] == 1
    assert not whole.timed_out
    clean = net.margin(data.X, data.y)
    before = None
    for limit in (0, 3, 5, 8, 10**6):
        found = attack(net, data, threat, time_limit=limit)
        assert (found.margin <= clean).all()
        assert (np.abs(found.X_adv - data.X) <= EPS + 1e-12).all()
        np.testing.assert_allclose(net.margin(found.X_adv, data.y), found.margin, rtol=1e-9, atol=1e-9)
        assert before is None or (found.margin <= before.margin).all()  # more time is never worse
        before = found
        if limit == 0:
            assert found.timed_out
            np.testing.assert_array_equal(found.X_adv, data.X)
    assert not found.timed_out
    same(found, whole, ("X_adv", "margin", "success", "iterations"))


def test_a_suite_says_which_attacks_did_not_run(trained, ticks):
    net, data = trained
    suite, threat = af.AttackSuite(tuple(ATTACKS[:4]), stop_early=False), af.ThreatModel("linf", EPS)
    whole, said = told(lambda **o: suite(net, data, threat, **o))
    assert list(whole.results) == [attack.name for attack in ATTACKS[:4]]
    assert not whole.timed_out
    assert said[-1][1] == 1
    assert {what.split(",")[0] for what, _ in said} == set(whole.results)
    cut = suite(net, data, threat, time_limit=12)
    assert cut.timed_out
    assert 1 <= len(cut.results) < 4
    assert set(cut.broken_by) == set(whole.results)
    assert (cut.margin >= whole.margin).all()
    nothing = suite(net, data, threat, time_limit=0)
    assert nothing.timed_out
    assert nothing.results == {}
    np.testing.assert_array_equal(nothing.X_adv, data.X)
    unlimited = suite(net, data, threat, time_limit=10**6)
    assert not unlimited.timed_out
    same(unlimited, whole, ("X_adv", "margin", "success", "robust"))


# ------------------------------------------------------------------ certificates
def test_what_no_certificate_had_time_for_is_undecided_and_says_why(trained, ticks):
    net, data = trained

    def certify(**options):
        return af.certify(net, data.X, data.y, EPS, max_nodes=8, **options)

    whole, said = told(certify)
    assert said[-1] == (f"branch_and_bound, {data.y.size} of {data.y.size} samples", 1.0)
    assert len(said) > 1
    assert whole.certified.any()
    assert not whole.timed_out.any()
    assert set(whole.reason[whole.undecided]) <= {"budget"}
    same(certify(time_limit=10**6), whole, ("lower", "upper", "X_adv", "nodes", "timed_out"))
    same(certify(), whole, ("lower", "upper", "X_adv", "nodes", "timed_out"))
    wrong = net.margin(data.X, data.y) <= 0
    assert wrong.mean() < 1
    nothing = certify(time_limit=0)
    np.testing.assert_array_equal(nothing.undecided, ~wrong)
    np.testing.assert_array_equal(nothing.reason, np.where(wrong, "decided", "time limit"))
    assert (nothing.lower[~wrong] == -np.inf).all()
    cut = certify(time_limit=6)
    assert cut.timed_out.any()
    assert not cut.timed_out.all()
    assert (cut.reason[cut.timed_out] == "time limit").all()
    assert not (cut.certified & ~whole.certified).any()
    assert (cut.lower <= whole.upper).all()


def test_a_radius_is_as_narrow_as_there_was_time_for(trained, ticks):
    net, data = trained

    def radius(**options):
        return af.robust_radius(net, data.X[:, :6], data.y[:, :6], max_nodes=4, rtol=0.05, **options)

    whole, said = told(radius)
    assert said[-1][1] == 1
    assert not whole.timed_out.any()
    same(radius(time_limit=10**6), whole, ("certified", "broken", "X_adv", "timed_out"))
    for limit in (0, 20, 60):
        cut = radius(time_limit=limit)
        assert cut.timed_out.any()
        assert (cut.certified <= whole.broken).all()
        assert (whole.certified <= cut.broken).all()
    assert not radius(time_limit=0).certified.any()


# ------------------------------------------------------------------ what is made of both
def test_robust_accuracy_holds_what_was_asked_in_time(trained, ticks):
    net, data = trained
    options = {"eps": EPS, "n_steps": 4, "max_nodes": 8}
    whole, said = told(lambda **o: af.robust_accuracy(net, data, **options, **o))
    assert {what for what, _ in said} == {"feature_swap", "aligned", "pgd_cross_entropy", "pgd_margin",
                                          "branch_and_bound"}  # fmt: skip
    assert said[-1][1] == 1
    assert not whole.timed_out
    for limit in (0, 4, 12):
        cut = af.robust_accuracy(net, data, **options, time_limit=limit)
        assert cut.timed_out
        assert (cut.certified_accuracy <= whole.certified_accuracy).all()
        assert (cut.robust_accuracy >= whole.robust_accuracy).all()
    long = af.robust_accuracy(net, data, **options, time_limit=10**6)
    same(long, whole, ("certified", "standing"))


class _Held:
    """What `sandwich` keeps, in memory."""

    held = None

    def load(self):
        return self.held

    def save(self, step, arrays):
        self.held = step, arrays


def test_curves_cut_short_keep_whole_steps_alone_and_continue_to_the_same_bits(trained, ticks):
    net, data = trained
    options = {"n_steps": 3, "max_nodes": 8, "rtol": 0.1}
    eps = [0.1, 0.3, 0.5]
    whole, said = told(lambda **o: curves.sandwich(net, data, eps, **options, **o))
    assert [what for what, _ in said] == ["intervals", "eps = 0.1", "eps = 0.3", "eps = 0.5", "broken radii",
                                          "certified radii", "broken radii, by boxes", "last halvings",
                                          "audit"]  # fmt: skip
    assert said[-1][1] == 1
    for limit in (0, 20, 60):
        state = _Held()
        cut = curves.sandwich(net, data, eps, state=state, time_limit=limit, **options)
        assert cut.timed_out
        assert set(cut.alone) == set(whole.alone) <= set(LABELS)
        assert (cut.certified <= whole.broken).all()
        assert (cut.broken >= whole.certified).all()
        again = curves.sandwich(net, data, eps, state=state, **options)
        same(again, whole, ("certified", "broken", "X_adv", "found_by", "timed_out"))


# ------------------------------------------------------------------ recursions and inversions
def test_a_recursion_ends_between_two_iterations_and_says_at_which(ticks, monkeypatch):
    config, size = CONFIG, {}
    data = config.data("train")
    state = State.from_weights(config.network().W, config.distribution().features)
    types = empirical_types(data.y, data.robust, data.strength, config.n_classes)
    options = {name: getattr(config, name) for name in ("q", "rho", "lr", "ascent_lr", "eps")}
    options |= {"n_iter": 100, "record_every": 40, "after_saturation": "continue"}
    whole = simulate(state, types, **options)
    assert whole.iteration.tolist() == [0, 40, 80, 100]
    monkeypatch.setattr(recursion, "now", progress.now)  # a piece takes a second, which is long: one iteration each
    watched, said = told(lambda **o: simulate(state, types, **options, **o))
    assert said[-1] == ("recursion", 1.0)
    assert len(said) == 100
    same(watched, whole, ("iteration", "phi", "norm", "gram", "saturated_at", "timed_out"))
    for limit in (0, 50, 121, 200):
        cut = simulate(state, types, **options, time_limit=limit)
        assert cut.timed_out
        last = int(cut.iteration[-1])
        size[limit] = last
        assert last < 100
        exact = simulate(state, types, **options | {"n_iter": last, "record_every": 40})
        same(cut, exact, ("iteration", "phi", "norm", "gram"))
    assert sorted(set(size.values())) == sorted(size.values())
    assert size[0] == 0
    assert any(last % 40 for last in size.values())  # not at records alone


def test_a_run_that_stops_between_records_is_nan_from_the_next_one_on(ticks, monkeypatch):
    """Also where somebody watches, so that the engine is called in pieces."""
    monkeypatch.setattr(recursion, "now", progress.now)
    data = CONFIG.data("train")
    state = State.from_weights(CONFIG.network().W, CONFIG.distribution().features)
    types = empirical_types(data.y, data.robust, data.strength, CONFIG.n_classes)
    options = {"q": CONFIG.q, "rho": CONFIG.rho, "lr": 5.0, "ascent_lr": 1e4, "eps": 0.3, "n_iter": 200}
    whole = simulate(state, types, **options, record_every=100)
    assert (np.isfinite(whole.saturated_at) & (whole.saturated_at % 100 > 1)).any()
    assert np.isnan(whole.phi).any()
    watched, _ = told(lambda **o: simulate(state, types, **options, record_every=100, **o))
    same(watched, whole, ("iteration", "phi", "norm", "gram", "saturated_at"))


def test_an_inversion_keeps_the_closest_points(ticks):
    net, rng = ConvNet(6, (1, 8, 8), stages=2, dtype="float64", rng=0), np.random.default_rng(0)
    targets, starts = net.representation(rng.random((4, 1, 8, 8))), rng.random((2, 4, 1, 8, 8))
    options = Inversion(n_steps=6, step=0.05, tolerance=1e-6, enough=1e-6)
    whole, said = told(lambda **o: invert(net, targets, starts, options, **o))
    assert said[-1][1] == 1
    assert not whole.timed_out.any()
    same(invert(net, targets, starts, options, time_limit=10**6), whole, ("X", "distance", "start", "steps"))
    before = np.inf
    for limit in (0, 3, 9):
        cut = invert(net, targets, starts, options, time_limit=limit)
        assert cut.timed_out.all()
        assert np.isfinite(cut.distance).all()
        assert (cut.distance <= before).all()
        assert (cut.distance >= whole.distance).all()
        before = cut.distance
    np.testing.assert_array_equal(invert(net, targets, starts, options, time_limit=0).X, starts[0])

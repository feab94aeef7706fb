"""Models that are not ours, through every attack, threat, suite and the evaluator (core/model.py, core/data.py)."""

from dataclasses import replace

import numpy as np
import pytest
from own_models import OneHiddenLayer, RandomCorners, SoftmaxRegression

from advfeat import APGD, PGD, Aligned, AttackSuite, Square, ThreatModel, robust_accuracy
from advfeat.core.data import Samples
from advfeat.core.model import Checked, Model
from advfeat.robustness.catalogue import ATTACKS, lacking
from advfeat.robustness.evaluate import Evaluation

THREATS = [(norm, budget) for norm in ("linf", "l2", "l1") for budget in ("patch", "global")]
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
EPS = {"linf": 0.05, "l2": 0.2, "l1": 0.3}


def regression(dtype="float64", k=4, d=12, n=40):
    rng = np.random.default_rng(1)
    y = rng.integers(k, size=n)
    centres = rng.standard_normal((k, d))
    X = (centres[y] + 0.5 * rng.standard_normal((n, d))).astype(dtype)
    return SoftmaxRegression((centres.T / d).astype(dtype), np.zeros(k, dtype)), X, y


def network(dtype="float64", shape=(2, 5, 6), hidden=16, n=30, k=4):
    rng = np.random.default_rng(2)
    d, y = int(np.prod(shape)), rng.integers(k, size=n)
    A, B = rng.standard_normal((d, hidden)) / np.sqrt(d), rng.standard_normal((hidden, k)) / np.sqrt(hidden)
    model = OneHiddenLayer(*(a.astype(dtype) for a in (A, np.zeros(hidden), B, np.zeros(k))), shape)
    X = rng.random((n, *shape)).astype(dtype)
    return model, X, np.where(rng.random(n) < 0.8, model.logits(X).argmax(axis=1), y)


MODELS = {"vectors": regression, "images": network}


class Rows(OneHiddenLayer):
    """The rows of an image as its patches."""

    patch_axis = 1


@pytest.fixture(params=MODELS)
def problem(request):
    return MODELS[request.param]()


def size(delta, norm):
    return np.linalg.norm(delta.reshape(len(delta), -1), ORDER[norm], axis=1)


# ------------------------------------------------------------------ the page's models
def test_the_gradients_of_the_pages_models_are_those_of_their_logits(problem):
    model, X, _ = problem
    rng = np.random.default_rng(0)
    C, step = rng.standard_normal((len(X), model.n_classes)), 1e-6 * rng.standard_normal(X.shape)
    difference = (C * (model.logits(X + step) - model.logits(X - step))).sum(axis=1) / 2
    np.testing.assert_allclose((model.pull_back(X, C) * step).reshape(len(X), -1).sum(axis=1), difference, rtol=1e-5)


@pytest.mark.parametrize(("norm", "budget"), THREATS)
@pytest.mark.parametrize("name", [name for name, entry in ATTACKS.items() if not entry.needs])
def test_every_attack_and_threat(problem, name, norm, budget):
    """In ball and box, in the model's dtype, with the margin of the point that comes back, at its best."""
    model, X, y = problem
    lo, hi = X.min() - 0.01, X.max() + 0.01
    found = ATTACKS[name].attack(model, (X, y), ThreatModel(norm, EPS[norm], budget, (lo, hi)))
    assert found.X_adv.shape == X.shape
    assert found.X_adv.dtype == model.dtype
    assert (size(found.X_adv - X, norm) <= EPS[norm] * (1 + 1e-12)).all()
    assert ((found.X_adv >= lo) & (found.X_adv <= hi)).all()
    F = model.logits(found.X_adv)
    label = np.take_along_axis(F, y[:, None], 1)[:, 0]
    margin = label - np.where(np.arange(model.n_classes) == y[:, None], -np.inf, F).max(axis=1)
    np.testing.assert_allclose(found.margin, margin, atol=1e-12)
    np.testing.assert_array_equal(found.success, found.margin <= 0)
    assert (found.margin <= robust_margin(model, X, y)).all()
    assert found.success.any()


def robust_margin(model, X, y):
    F = model.logits(X)
    rivals = np.where(np.arange(model.n_classes) == y[:, None], -np.inf, F).max(axis=1)
    return np.take_along_axis(F, y[:, None], 1)[:, 0] - rivals + 1e-12


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2), ("l1", np.inf)])
def test_a_linear_models_least_margin_is_reached_and_never_passed(norm, dual):
    model, X, y = regression()
    eps, F = 0.3 * EPS[norm], model.logits(X)
    away = np.linalg.norm(model.W[:, y][:, :, None] - model.W[:, None], dual, axis=0)  # (n, k)
    least = np.take_along_axis(F, y[:, None], 1) - F - eps * away
    least = np.where(np.arange(model.n_classes) == y[:, None], np.inf, least).min(axis=1)
    found = PGD("margin", n_steps=60, step=1.0, all_targets=True)(model, (X, y), ThreatModel(norm, eps))
    standing = ~found.success
    assert standing.any()
    assert (found.margin >= least - 1e-12).all()
    np.testing.assert_allclose(found.margin[standing], least[standing], atol=1e-6)
    np.testing.assert_array_equal(found.success, least <= 0)


def test_targets_and_a_sample_alone(problem):
    model, X, y = problem
    threat = ThreatModel("linf", 0.4, targets=(y + 1) % model.n_classes)
    found = APGD("margin", n_steps=10)(model, (X, y), threat)
    assert found.success.any()
    assert (model.logits(found.X_adv).argmax(axis=1) == threat.targets)[found.success].all()
    for attack in (PGD(n_steps=5), Square(n_steps=20)):
        threat = ThreatModel("linf", EPS["linf"] / 4)
        together = attack(model, (X, y), threat, 3)
        active = np.arange(len(X)) % 7 == 2
        some = attack(model, (X, y), threat, 3, active=active)
        np.testing.assert_allclose(some.margin[active], together.margin[active], atol=1e-12)
        np.testing.assert_array_equal(some.X_adv[~active], X[~active])
        assert np.isnan(some.margin[~active]).all()


def test_a_models_precision_is_its_own():
    model, X, y = network("float32")
    found = PGD(n_steps=8)(model, (X, y), ThreatModel("l2", 0.2, box=(0, 1)))
    assert found.X_adv.dtype == np.float32
    assert (size(found.X_adv.astype(float) - X, "l2") <= 0.2 * (1 + 1e-5)).all()
    double = OneHiddenLayer(*(getattr(model, name).astype(float) for name in "AaBb"), model.sample_shape)
    other = PGD(n_steps=8)(double, (X.astype(float), y), ThreatModel("l2", 0.2, box=(0, 1)))
    assert (found.success == other.success).mean() > 0.9


def test_patches_along_an_axis_of_the_model():
    """A budget per patch bounds each row of an image by itself, a global one all of them together."""
    plain, X, y = network()
    model = Rows(plain.A, plain.a, plain.B, plain.b, plain.sample_shape)
    for attack in (PGD(n_steps=8), APGD("margin", n_steps=8), Square(n_steps=30)):
        for budget in ("patch", "global"):
            found = attack(model, (X, y), ThreatModel("l2", 0.1, budget))
            rows = np.linalg.norm((found.X_adv - X).transpose(0, 2, 1, 3).reshape(len(X), 5, -1), axis=2)
            assert found.X_adv.shape == X.shape
            assert (rows <= 0.1 * (1 + 1e-12)).all()
            assert (np.sqrt((rows**2).sum(axis=1)) <= 0.1 * (1 + 1e-12)).all() == (budget == "global")


def test_chunks_change_nothing(problem, monkeypatch):
    model, X, y = problem
    attacks = [PGD("dlr", n_steps=6), APGD("margin", n_steps=12), Square(n_steps=20)]
    threat = ThreatModel("linf", EPS["linf"] / 2)
    whole = [attack(model, (X, y), threat) for attack in attacks]
    monkeypatch.setattr("advfeat.attacks.base.CHUNK_BYTES", 3 * X[:1].nbytes)
    for attack, one in zip(attacks, whole):
        np.testing.assert_allclose(attack(model, (X, y), threat).margin, one.margin, atol=1e-12)


# ------------------------------------------------------------------ suites and the evaluator
def test_suites(problem):
    model, X, y = problem
    names = [name for name, entry in ATTACKS.items() if not entry.needs]
    found = AttackSuite(names)(model, (X, y), ThreatModel("linf", 0.05))
    assert found.X_adv.shape == X.shape
    for name, one in AttackSuite(names, stop_early=False)(model, (X, y), ThreatModel("linf", 0.05)).results.items():
        assert (found.success | ~one.success).all(), name


def test_the_evaluator(problem):
    """Attacks alone bound a model's accuracy that has no certificate; more radius never breaks fewer."""
    model, X, y = problem
    found = [robust_accuracy(model, (X, y), eps=eps, n_steps=5) for eps in (0.0, 0.02, 0.4)]
    assert list(found[0].broken) == ["pgd_cross_entropy", "pgd_margin", "branch_and_bound"]
    assert found[0].robust_accuracy == (model.logits(X).argmax(axis=1) == y).mean()
    assert (np.diff([one.robust_accuracy for one in found]) <= 0).all()
    assert found[2].robust_accuracy < found[0].robust_accuracy
    assert not any(one.certified.any() for one in found)
    with pytest.raises(ValueError, match="attack 'aligned' needs a PatchCNN, whose neurons it reads"):
        robust_accuracy(model, (X, y), eps=0.1, attacks=["aligned"])


def test_a_radius_carries_over(problem):
    model, X, y = problem
    known = Evaluation(model, (X, y))
    known.attack(0.4, PGD("margin", n_steps=5))
    broken = known.at(0.4).broken["pgd_margin"]
    assert broken.any()
    np.testing.assert_array_equal(known.at(0.5).broken["pgd_margin"], broken)
    assert not known.at(0.39).broken["pgd_margin"].any()
    assert not known.open(0.41)[broken].any()


def test_checked_data_are_for_models_alike():
    """Laid out once, and only when somebody asks; refused by a model of another precision."""
    model, X, y = network("float32")
    held = Checked(model, (X, y))
    assert "batch" not in vars(held)
    threat = ThreatModel("linf", 0.02)
    found, again = (PGD(n_steps=3)(model, data, threat) for data in (held, (X, y)))
    np.testing.assert_array_equal(found.X_adv, again.X_adv)
    double = OneHiddenLayer(*(getattr(model, name).astype(float) for name in "AaBb"), model.sample_shape)
    with pytest.raises(ValueError, match=r"data: were checked by .*, which is not like "):
        PGD(n_steps=3)(double, held, threat)


# ------------------------------------------------------------------ attacks and data of one's own
@pytest.mark.parametrize("norm", ORDER)
def test_an_attack_of_ones_own(problem, norm):
    model, X, y = problem
    found = RandomCorners(n=20)(model, (X, y), ThreatModel(norm, EPS[norm]))
    assert found.attack == "randomcorners"
    assert (size(found.X_adv - X, norm) <= EPS[norm] * (1 + 1e-12)).all()
    assert found.iterations.max() == 20
    assert (found.margin <= robust_margin(model, X, y)).all()
    assert replace(RandomCorners(), name="corners").name == "corners"
    with pytest.raises(ValueError, match="n = 0: must be at least 1"):
        RandomCorners(n=0)


def test_data_of_ones_own():
    model, X, y = regression()
    data = Samples(X, y, {"hardness": np.arange(len(y)) / len(y)}, {"centre": X[:1]})
    seen = []

    class Watching(RandomCorners):
        def check(self, model, data, threat):
            seen.append(data.directions["centre"])

        def run(self, problem):
            seen.append(problem.arrays["hardness"])

    active = np.arange(len(y)) % 3 == 1
    Watching()(model, data, ThreatModel(), active=active)
    np.testing.assert_array_equal(seen[1][0], (np.arange(len(y)) / len(y))[active])
    assert lacking("feature_swap", model, data, None) == "the data's features"
    with pytest.raises(ValueError, match=r"hardness has shape \(3,\): its first axes must be those of y, \(40,\)"):
        Samples(X, y, {"hardness": np.zeros(3)})


# ------------------------------------------------------------------ what does not fit
def test_what_does_not_fit_is_named(problem):
    model, X, y = problem
    with pytest.raises(ValueError, match=r"X has shape .*: must be \(N, "):
        PGD()(model, (X[..., 1:], y), ThreatModel())
    with pytest.raises(ValueError, match="y holds 4: labels must be in"):
        PGD()(model, (X, y + 1), ThreatModel())
    with pytest.raises(TypeError, match="aligned: reads the neurons of a PatchCNN, but the model is a "):
        Aligned()(model, (X, y), ThreatModel())
    with pytest.raises(TypeError, match="data is a ndarray: must have X, y, arrays and directions, or be a pair"):
        PGD()(model, X, ThreatModel())
    if isinstance(model, OneHiddenLayer):
        with pytest.raises(TypeError, match="has no loss_and_grad: it can be attacked, but not trained"):
            model.loss_and_grad(X, y)
    assert isinstance(model, Model)

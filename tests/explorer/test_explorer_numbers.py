"""The page's curves and numbers are the library's."""

import numpy as np
import pytest
from tolerances import REORDERED

from advfeat.experiments.figure3 import TRAININGS, recursions
from advfeat.explorer import curves, derived
from advfeat.explorer.controls import Controls
from advfeat.explorer.network import curves as trained_curves
from advfeat.patches.features import normalized, q_sum
from advfeat.theory import State, population_types, simulate

STATES = (
    Controls(n_iter=1000, n_seeds=3),
    Controls(n_iter=400, n_seeds=2, norm="l2", n_classes=3, n_neurons=4, q=4, rho=2.0, alpha=2.0, n_robust=5),
    Controls(n_iter=600, n_seeds=1, beta=1.5, eps=0.3, init_std=0.3, n_patches=16, n_robust=0, patch_dim=40),
)


@pytest.mark.parametrize("state", STATES, ids=["defaults", "l2", "no robust patch"])
def test_the_curves_are_those_of_simulate(state):
    c = state.config()
    start = State.from_weights(c.network().W, c.distribution().features)
    start = State(start.phi, start.gram, start.n_orthogonal)
    types = population_types(c.n_classes, c.n_patches, c.n_robust, c.alpha, c.beta)
    ascent = {"ascent_lr": c.ascent_lr, "eps": c.eps, "norm": c.norm, "after_saturation": "continue"}
    found = curves.compute(state)
    for name, extra in (("standard", {}), ("adversarial", ascent)):
        one = simulate(start, types, q=c.q, rho=c.rho, lr=c.lr, n_iter=c.n_iter, record_every=c.record_every, **extra)
        np.testing.assert_array_equal(found[name].phi, one.phi)
        drawn = curves.columns(found[name], c.q)
        for feature, values in (("A", one.A), ("B", one.B)):
            flat = q_sum(values, c.q).reshape(len(values), -1)
            kept = one.exact.all(axis=1)
            np.testing.assert_array_equal(drawn[f"{feature}_strength_middle"][kept], np.median(flat, axis=1)[kept])
            np.testing.assert_array_equal(drawn[f"{feature}_strength_high"], flat.max(axis=1))
            over_seeds = normalized(values, one.norm)
            np.testing.assert_array_equal(drawn[f"{feature}_normalized_low"], over_seeds.min(axis=1))


def test_the_curves_are_those_of_the_report():
    """Which follows the orthogonal parts themselves, and counts classes in the training samples."""
    state = STATES[0]
    theirs, ours = recursions(state.config()), curves.compute(state)
    for name in TRAININGS:
        np.testing.assert_array_equal(ours[name].iteration, theirs[name].iteration)
        scale = np.abs(theirs[name].phi).max()
        np.testing.assert_allclose(ours[name].phi, theirs[name].phi, rtol=0, atol=1e3 * REORDERED * scale)


def test_a_trained_network_lies_on_its_recursion():
    state = Controls(n_iter=300, n_seeds=2, n_neurons=3, patch_dim=20)
    shares = []
    found = trained_curves(state, lambda: True, shares.append)
    assert shares[-1] == 1
    for name, theory in curves.compute(state).items():
        drawn = curves.columns(theory, state.q)
        np.testing.assert_array_equal(found[name]["iteration"], drawn["iteration"])
        for line in curves.LINES:
            scale = np.nanmax(drawn[f"{line}_middle"])
            np.testing.assert_allclose(found[name][line], drawn[f"{line}_middle"], rtol=0, atol=1e-9 * scale)


def test_beyond_a_saturation_the_curve_goes_on_as_an_approximation():
    state = Controls(ascent_lr=300.0, eps=0.2, n_iter=2000, n_seeds=2)
    found = curves.compute(state)["adversarial"]
    at = curves.first_saturation(found)
    assert 0 < at < 2000
    drawn = curves.columns(found, state.q)
    exact = drawn["iteration"] <= at
    assert np.isnan(drawn["B_strength_middle"][~exact]).all()
    assert not np.isnan(drawn["B_strength_middle"][exact]).any()
    assert np.isfinite(drawn["B_strength_after"][~exact]).all()
    assert np.isfinite(drawn["B_strength_after"]).sum() == (~exact).sum() + 1  # from the last exact record on


def numbers(state):
    config = state.config()
    start, theory = curves.start(config), curves.compute(state)
    return config, derived.derive(config, start, theory)


def failing(state):
    return [words for words, holds, _ in derived.premises(*numbers(state)) if not holds]


def test_the_numbers_of_the_default():
    config, found = numbers(Controls())
    assert found.density_ratio == 27 / 63
    assert found.plateau == config.plateau()
    assert found.plateau_ratio == pytest.approx(1, abs=0.05)
    assert found.window.ends == pytest.approx(config.window().ends)
    assert found.predicted["B"] == pytest.approx(found.found["standard"]["B"], rel=0.1)
    assert found.predicted["phase_two"] == pytest.approx(found.found["adversarial"]["phase_two"], rel=0.1)
    assert found.found["standard"]["A"] == np.inf
    assert failing(Controls()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta": 4.0, "eps": 4.0}, "robust is stronger, α > β"),
        ({"n_robust": 8}, "non-robust is denser, c < 1"),
        ({"eps": 0.4}, "an ascent step can cancel β, ε ≥ β"),
        ({"rho": 2.0, "ascent_lr": 0.4}, "B* in the polynomial part, β B* ≤ ϱ"),
        ({"ascent_lr": 1000.0, "rho": 1.0}, "leading order, what is neglected is small"),
        ({"eps_test": 0.2}, "ε_test in the window"),
        ({"norm": "l2"}, "ε_test in the window"),
    ],
)
def test_each_premise_is_seen_failing(change, words):
    assert words not in failing(Controls(n_iter=400, n_seeds=2))
    assert words in failing(Controls(n_iter=400, n_seeds=2, **change))


@pytest.mark.parametrize("change", [{"init_std": 0.0}, {"n_robust": 0}, {"n_robust": 64}, {"lr": 1e4}, {"eps": 0.0}])
def test_extreme_points_have_numbers_without_a_warning(change):
    config, found = numbers(Controls(n_iter=200, n_seeds=2, **change))
    rows = derived.rows(config, found)
    assert [len(row) for row in rows] == [4] * 6
    assert "nan" not in str(rows)


def test_a_band_leaves_out_what_is_not_finite():
    low, middle, high = curves.band(np.array([[1.0, 3.0, np.nan], [np.nan] * 3, [2.0, np.inf, 1e200]]))
    np.testing.assert_array_equal(low, [1, np.nan, 2])
    np.testing.assert_array_equal(middle, [2, np.nan, 2])
    np.testing.assert_array_equal(high, [3, np.nan, 2])

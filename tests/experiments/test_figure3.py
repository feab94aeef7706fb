"""The paper's story, told by networks trained at the default configuration: one seed, and eight in the slow tier."""

import dataclasses

import numpy as np
import pytest
from advfeat.validation.figure3 import check
from figure_layout import well_laid_out

from advfeat.experiments import figure3 as experiment
from advfeat.experiments.configuration import Figure3Config
from advfeat.reporting.figures import figure3
from advfeat.reporting.run_page import outcome, outcome_rows
from advfeat.theory import events, plateau
from advfeat.training import History

CONFIG = Figure3Config(n_seeds=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return experiment.run(CONFIG, tmp_path_factory.mktemp("figure3"))


def test_every_claim_holds_on_every_seed(run):
    claims = check(run, CONFIG)
    assert len(claims) == 7
    assert [c for c in claims if not c.holds] == []


@pytest.mark.slow
def test_every_claim_holds_on_eight_seeds(tmp_path):
    config = dataclasses.replace(CONFIG, n_seeds=8)
    assert [c for c in check(experiment.run(config, tmp_path), config) if not c.holds] == []


def test_the_claims_fail_on_other_evidence(run):
    """The two trainings exchanged, a wrong plateau, a robust accuracy that never rises: each is seen to fail."""

    def verdicts(run, config=CONFIG):
        return [c.holds for c in check(run, config)]

    swapped = dataclasses.replace(run, histories=dict(zip(run.histories, list(run.histories.values())[::-1])))
    assert verdicts(swapped) == [True, False, True, False, True, False, False]
    assert not verdicts(run, dataclasses.replace(CONFIG, ascent_lr=60.0))[-1]
    flat = run.histories["adversarial"].arrays()
    flat["robust_accuracy"] = 0 * flat["robust_accuracy"]
    flat["test_accuracy"] = flat["test_accuracy"] * 0.9
    broken = dataclasses.replace(run, histories={**run.histories, "adversarial": History.from_arrays(flat)})
    assert verdicts(broken) == [True, True, False, False, False, False, True]


def test_the_standard_net_keeps_its_phase_and_the_window_story(run):
    summary = experiment.summary(run, CONFIG)
    standard, adversarial = summary["standard"], summary["adversarial"]
    assert (standard["non_robust_feature"] == 1).all()
    assert (standard["robust_feature"] <= 0.5).all()
    assert (adversarial["robust_feature"] == 1).all()
    assert (adversarial["A"] > adversarial["B"]).all()
    assert (standard["A"] < standard["B"]).all()
    assert (adversarial["certified"] <= adversarial["robust"]).all()
    begins = adversarial["phase_two"]
    assert (begins < adversarial["crossing"]).all()


def test_a_seed_does_not_depend_on_its_batch(tmp_path):
    """The whole experiment, attacks included, at seeds 0..2 and at seed 2 alone: the same bits."""
    small = {"n_classes": 3, "n_neurons": 4, "patch_dim": 12, "n_patches": 8, "n_train": 6, "n_test": 6}
    small |= {"rho": 10.0, "lr": 2.0, "n_iter": 200, "n_records": 4, "batch_size": 4, "pgd_restarts": 2}
    batch = experiment.run(Figure3Config(**small, n_seeds=3), tmp_path / "batch")
    alone = experiment.run(Figure3Config(**small, n_seeds=1, first_seed=2), tmp_path / "alone")
    for name, history in alone.histories.items():
        for key, value in history.items():
            if key != "iteration":
                assert np.array_equal(value[:, 0], batch.histories[name][key][:, 2], equal_nan=True), key


def test_figure_3_shows_the_measured_curves(run):
    figure = well_laid_out(figure3(run.histories, CONFIG))
    middle, bottom = figure.axes[3], figure.axes[5]
    levels = [line.get_ydata()[0] for line in middle.lines if len(set(line.get_ydata())) == 1]
    assert plateau(CONFIG.beta, CONFIG.q, CONFIG.rho, CONFIG.ascent_lr) in levels
    robust = next(line for line in bottom.lines if "worst" in str(line.get_label()))
    assert robust.get_xdata().tolist() == list(range(0, 4001, 200))
    assert robust.get_ydata()[-1] == np.median(run.histories["adversarial"]["robust_accuracy"][-1])


def test_a_plateau_far_above_the_curves_does_not_squash_them(run):
    """B* grows without bound as the ascent gets slower; here it lies far above what any feature has reached."""
    slow = dataclasses.replace(CONFIG, ascent_lr=CONFIG.ascent_lr / 1000)
    middle = figure3(run.histories, slow).axes[3]
    assert slow.plateau() > 1.6 * middle.get_ylim()[1] > 1.6 * run.histories["adversarial"]["A"].max()
    assert any(f"= {slow.plateau():.2f}, above the axis" in line.get_label() for line in middle.lines)


def test_the_table_says_that_noise_parts_the_networks_from_the_recursion(run):
    found = outcome(run, CONFIG, experiment.recursions(CONFIG))
    for noise_std, why in ((0.05, " (noise_std = 0.05 is the reason)"), (0.0, "")):
        rows = [row[0] for row in outcome_rows(found, noise_std)[1]]
        assert f"correlations, largest deviation from the exact recursion{why}" in rows


def test_the_exact_recursion_lies_on_the_networks_curves(tmp_path):
    """Without noise, float64: both trainings of the default configuration, to rounding, as far as it is exact."""
    config = Figure3Config(noise_std=0.0, dtype="float64", n_seeds=2, n_test=5, n_records=2, pgd_steps=1)
    run, theory = experiment.run(config, tmp_path), experiment.recursions(config)
    for name, found in theory.items():
        history = run.histories[name]
        apart = events.deviation(history, found)
        assert np.isfinite(apart).all()
        assert apart.max() < 1e-10
        np.testing.assert_allclose(found.norm, history["norm"], rtol=1e-10)
        spoiled = dict(history, B=history["B"] * (1 + 1e-9))
        assert events.deviation(spoiled, found).max() > 1e-10
    figure = figure3(run.histories, config, theory)
    for axis in figure.axes[:4]:
        dashed = [line for line in axis.lines if line.get_color() == "k"]
        assert len(dashed) == 2
        for drawn, line in zip([x for x in axis.lines if x.get_linestyle() == "-"], dashed):
            np.testing.assert_allclose(line.get_ydata(), drawn.get_ydata(), rtol=1e-8)
    assert experiment.recursions(dataclasses.replace(config, batch_size=5)) == {}

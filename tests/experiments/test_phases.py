"""The phases on images: what counts is what was written down, on curves made up for it and along real trainings."""

import json

import numpy as np
import pytest
from test_image_representatives import PAIRS

from advfeat.cli import main
from advfeat.experiments.feature_learning import Answers, NetworkKey
from advfeat.experiments.phases import begins, row
from advfeat.experiments.representatives import load
from advfeat.reporting import phases_page as page

CLOCK = np.arange(0, 60, 10)
CLEAN = np.array([0.1, 0.6, 0.9, 0.95, 0.96, 0.97])
LATE = np.array([0.0, 0.0, 0.1, 0.5, 0.8, 0.9])  # robustness begins at 30
NON_ROBUST = np.array([0.1, 0.4, 0.5, 0.5, 0.5, 0.5])
FEATURES = np.array([0.1, 0.2, 0.3, 0.6, 0.8, 0.9])


class Curves:
    """Evidence whose curves are given, by the reference's arm."""

    def __init__(self, **curves):
        self.curves = curves

    def curve(self, answers, reference, start, how):
        assert (start, how) == ("image", "stranger")
        return self.curves[reference]


def judged(arm="adversarial", clean=CLEAN, robust=LATE, non_robust=NON_ROBUST, features=FEATURES):
    answers = Answers(NetworkKey(arm, 0), CLOCK, {}, {}, 5, 5)
    return row(answers, Curves(standard=non_robust, adversarial=features), "image", clean, robust)


def test_when_something_begins():
    assert begins(CLOCK, CLEAN) == 10
    assert begins(CLOCK, LATE) == 30
    assert begins(CLOCK, CLEAN[::-1]) == 0


def test_both_phases_as_in_the_theory():
    found = judged()
    assert (found["learning"], found["robustness"]) == (10, 30)
    assert (found["phase_1"], found["phase_2"]) == (True, True)
    assert found["growth_D_R"] == pytest.approx(0.6)
    assert found["growth_D_NR"] == pytest.approx(0.0)


@pytest.mark.parametrize(("change", "phases"), [
    ({"robust": CLEAN}, (False, False)),  # robustness begins with learning
    ({"non_robust": np.array([0.1, 0.1, 0.15, 0.16, 0.17, 0.3])}, (False, False)),  # D_NR is learned late, as D_R is
    ({"non_robust": np.array([0.1, 0.4, 0.5, 0.5, 0.6, 0.7])}, (True, False)),  # D_NR is not restrained
    ({"features": np.array([0.1, 0.8, 0.85, 0.86, 0.87, 0.9])}, (True, False)),  # D_R does not grow any more
    ({"non_robust": np.full(6, 0.1)}, (False, True)),  # nothing of D_NR is ever learned
    ({"non_robust": np.array([0.1, 0.4, 0.6, 0.3, 0.2, 0.1])}, (True, True)),  # D_NR is suppressed
])  # fmt: skip
def test_what_is_no_phase(change, phases):
    found = judged(**change)
    assert (found["phase_1"], found["phase_2"]) == phases


def test_phases_are_those_of_adversarial_training_that_made_something_robust():
    assert judged(arm="standard")["phase_1"] is None
    assert judged(robust=np.zeros(6))["phase_2"] is None
    assert judged(non_robust=None) is None


def test_command(tmp_path, capsys):
    small = ["n_classes=2", "patch_dim=20", "n_patches=4", "n_neurons=4", "n_train=40", "n_test=40", "n_iter=200"]
    assert main(["reproduce", "--set", *small, "--seeds", "2", "--out", str(tmp_path / "patches"), "--quiet"]) == 0
    assert main(["images", "reproduce", "--set", *PAIRS, 'starts=["image"]', "--out", str(tmp_path / "images"),
                 "--quiet"]) == 0  # fmt: skip
    places = ["--run", str(tmp_path / "patches"), "--out", str(tmp_path / "phases")]
    assert main(["images", "phases", str(tmp_path / "images"), *places, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (title,) = found.keys() - {"report"}
    assert title == "digits, eps = 0.2"
    rows = found[title]
    assert [one["network"] for one in rows] == ["standard-0", "adversarial-0", "standard-1", "adversarial-1"]
    experiment = load(tmp_path / "images")
    evidence = experiment.evidence()
    one = next(one for one in evidence.answers if one.network.name == "adversarial-1")
    np.testing.assert_allclose(rows[3]["D_NR"], evidence.curve(one, "standard", "image", "stranger"))
    assert (tmp_path / "phases" / "phases.pdf").stat().st_size > 2000
    assert "Phase II" in (tmp_path / "phases" / "phases.html").read_text()
    one = {"network": "a", "learning": 1.0, "robustness": 2.0, "phase_1": True, "phase_2": False}
    for refused in ([str(tmp_path / "images"), "--start", "noise"], [str(tmp_path / "none")]):
        assert main(["images", "phases", *refused, *places]) == 2
    made_up = [one | {"growth_D_R": 0.1, "growth_D_NR": -0.25}, {"phase_1": None}]
    assert page.phase_rows({"x": made_up})[1] == [["x", "a", "1", "2", "seen", "not seen", "+0.10", "-0.25"]]

"""Robust accuracy over the radii: both bounds of every sample, the attacks' own curves, figures, page and command."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch_reference
from figure_layout import well_laid_out

from advfeat import Aligned, ThreatModel, robust_radius
from advfeat.cli import main
from advfeat.core import store
from advfeat.experiments import figure3 as experiment
from advfeat.experiments.configuration import Figure3Config
from advfeat.reporting import figures, run_page, style
from advfeat.reporting.robustness_figures import robustness_figure, worst_example
from advfeat.reporting.robustness_page import write
from advfeat.robustness import catalogue, curves
from advfeat.robustness.catalogue import SEARCH
from advfeat.robustness.curves import Sandwich, curve_attacks, per_class, sandwich, summary
from advfeat.robustness.evaluate import Evaluation
from advfeat.training import History

SMALL = {"n_classes": 3, "n_neurons": 4, "patch_dim": 12, "n_patches": 16, "n_train": 9, "n_test": 6, "rho": 30.0}
CONFIG = Figure3Config(**SMALL, alpha=2.0, lr=5.0, n_iter=600, n_records=3, n_seeds=2)
GRID = np.linspace(0.1, 1.0, 10)
OPTIONS = {"ascent_lr": CONFIG.ascent_lr, "n_steps": 8, "max_nodes": 64}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return experiment.run(CONFIG, tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="module")
def data():
    return experiment.samples_of(CONFIG, 12)[1]


@pytest.fixture(scope="module")
def found(run, data):
    return {name: sandwich(net, data, GRID, rng=[0, 1], **OPTIONS) for name, net in run.nets.items()}


@pytest.fixture(params=["standard", "adversarial"])
def s(found, request):
    return found[request.param]


def test_the_case_is_worth_testing(found):
    """Both networks are right on clean samples, both curves fall inside the grid, and attacks differ."""
    for s in found.values():
        assert s.correct.mean() > 0.9
        assert np.isfinite(s.broken).all()
        assert (s.broken[s.correct] < GRID[-1]).all()
        assert len({tuple(s.under(name).ravel()) for name in s.alone}) > 2


def test_the_bounds_are_in_order_and_never_rise(s):
    fine = np.linspace(0.01, 1.0, 300)
    for eps in (None, fine):
        lines = [s.interval_accuracy(eps), s.certified_accuracy(eps), s.robust_accuracy(eps)]
        for low, high in zip(lines, [*lines[1:], s.correct.mean(axis=-1)]):
            assert (low <= high).all()
        assert all((np.diff(line, axis=0) <= 0).all() for line in lines)
    for name in s.alone:
        assert (s.robust_accuracy() <= s.under(name)).all()
        assert (np.diff(s.under(name), axis=0) <= 0).all()
    assert (s.interval_accuracy(fine) < s.certified_accuracy(fine)).any()
    assert np.nanmedian(s.ratio()) >= 0.97


def test_every_adversarial_example_is_one(run, data, found):
    """PyTorch, float64, from the saved weights: inside the ball of the broken radius, and wrong."""
    for name, s in found.items():
        net = run.nets[name]
        F = torch_reference.logits(net.weights, s.X_adv, net.q, net.rho)
        assert (torch_reference.objective(F, data.y, "margin")[s.correct] >= -1e-9).all()
        size = np.abs(s.X_adv - data.X).max(axis=(2, 3))
        assert (size <= s.broken * (1 + 1e-12)).all()
        assert (size[s.correct] > 0.9 * s.broken[s.correct]).all()
        assert set(np.unique(s.found_by[s.correct])) <= {SEARCH, "rescue", "apgd", "square", *s.alone}


def test_radii_are_those_of_robust_radius(run, data, found):
    for name, s in found.items():
        truth = robust_radius(run.nets[name], data.X, data.y)
        assert (s.certified <= truth.broken).all()
        assert (truth.certified <= s.broken).all()
        np.testing.assert_allclose(s.certified, truth.certified, rtol=0.03)
        np.testing.assert_allclose(s.broken, truth.broken, rtol=0.03)


def test_each_curve_is_its_attack_run_at_every_radius(run, data, found):
    """Without certificates and carrying; one sample's broken radius then holds at all larger ones."""
    for name, s in found.items():
        net = run.nets[name].astype(np.float64)
        for attack in curve_attacks(CONFIG.ascent_lr, n_steps=8):
            threats = [ThreatModel(eps=float(e)) for e in GRID]
            broken = np.array([attack(net, data, threat, [0, 1]).success for threat in threats])
            standing = s.correct & ~np.logical_or.accumulate(broken)
            np.testing.assert_array_equal(s.under(attack.name), standing.mean(axis=-1))


def test_a_run_in_a_batch_is_the_run_alone(run, data, found):
    net, s = run.nets["adversarial"].run(1), found["adversarial"]
    one = dataclasses.replace(data, **{a: getattr(data, a)[1] for a in ("X", "y", "robust", "strength")})
    alone = sandwich(net, one, GRID, rng=1, **OPTIONS)
    for name in ("correct", "certified", "broken", "interval", "found_by", "X_adv"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(s, name)[1], err_msg=name)
    np.testing.assert_array_equal(alone.robust_accuracy(), s.robust_accuracy()[:, 1])


def test_work_is_done_on_open_samples_only(run, data, monkeypatch):
    """Nothing certified is attacked, nothing broken is certified again, at the radius in question."""
    state, asked = {}, []

    class Spy(Evaluation):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            state["known"] = self

        def prove(self, eps, method, max_nodes=None, active=None, give_up=None):
            if method != "interval":
                asked_for = self.open(eps) if active is None else active
                radius = np.broadcast_to(eps, asked_for.shape)
                assert (self.certified < radius)[asked_for].all()
                assert (radius < self.broken)[asked_for].all()
                asked.append((method, int(asked_for.sum())))
            super().prove(eps, method, max_nodes, active, give_up)

    class Attacked:
        name = "aligned"

        def __call__(self, net, data, threat, rng, *, active, clean, time_limit):
            assert (state["known"].certified[active] < threat.eps).all()
            assert state["known"].correct[active].all()
            return Aligned()(net, data, threat, rng, active=active)

    monkeypatch.setattr(curves, "Evaluation", Spy)
    monkeypatch.setattr(curves, "curve_attacks", lambda *_: [Attacked()])
    labels = []
    sandwich(run.nets["standard"], data, GRID, progress=lambda *said: labels.append(said), **OPTIONS)
    assert {method for method, n in asked if n} == {"tangents", SEARCH}
    assert len(labels) == len(GRID) + 6


@pytest.mark.parametrize("rash", ["interval", "tangents"])
def test_a_certificate_that_proves_too_much_is_an_error(rash, run, data, monkeypatch):
    """Samples that it proves are not attacked on the way, but in the end at their certified radii."""
    true = catalogue.prove

    def prove(model, held, eps, active, *, method, **options):
        won, hit, X_adv = true(model, held, eps, active, method=method, **options)
        return (active & (eps < 0.96), np.zeros_like(hit), X_adv) if method == rash else (won, hit, X_adv)

    monkeypatch.setattr(catalogue, "prove", prove)
    with pytest.raises(ArithmeticError, match=r"certified up to .*, but broken at .*one of the two is in error"):
        sandwich(run.nets["standard"], data, GRID, **OPTIONS)


def test_an_adversarial_example_never_replaces_a_smaller_one(run, data):
    search = Evaluation(run.nets["standard"], data)
    everyone = search.correct.copy()
    for name, e, radius, kept in (("fgsm", 0.4, 0.4, 0.0), ("apgd", 0.5, 0.4, 0.0), ("square", 0.3, 0.3, 1.0)):
        search.take(name, np.full(data.X.shape, float(name == "square")), everyone, e)
        assert (search.broken[everyone] == radius).all()
        assert (search.X_adv[everyone] == kept).all()
    assert (search.found_by[everyone] == "square").all()


def test_summaries_count_what_the_radii_say(s):
    rows = summary(s, [0, 1])
    assert [row["seed"] for row in rows] == [0, 1, "all"]
    for row, pick in zip(rows, (np.s_[0], np.s_[1], np.s_[:])):
        right, low, high = (a[pick].ravel() for a in (s.correct, s.certified, s.broken))
        gaps = [np.mean(right & (e < high)) - np.mean(right & (e <= low)) for e in GRID]
        assert row["gap"]["widest"] == pytest.approx(max(gaps))
        assert row["ratio"]["median"] in (low / np.where(right, high, 1))[right]
        assert row["accuracy"] == right.mean()
        everywhere = [np.mean(right & (low < e) & (e < high)) for e in np.linspace(0, 1, 20_001)]
        assert row["gap_anywhere"] == pytest.approx(max(everywhere), abs=1e-9)
        at = row["gap_anywhere_eps"]  # just below it
        assert np.mean(right & (low < at) & (at <= high)) == row["gap_anywhere"]
        assert sum(row["smallest_radius_found_by"].values()) == right.sum()
    classes = per_class(s, 0.4, 3)
    assert sum(c["samples"] for c in classes) == s.y.size
    robust = sum(c["robust"] * c["samples"] for c in classes) / s.y.size
    assert robust == pytest.approx(s.robust_accuracy([0.4]).mean())
    certified = sum(c["certified"] * c["samples"] for c in classes) / s.y.size
    assert certified == pytest.approx(s.certified_accuracy([0.4]).mean())


def known(certified, broken, correct=None):
    """A sandwich of one run with given radii."""
    certified, broken = np.array(certified, float), np.array(broken, float)
    right = np.ones(certified.shape, bool) if correct is None else np.array(correct)
    blank = np.zeros((*certified.shape, 1, 1))
    names = np.full(certified.shape, SEARCH)
    y = np.zeros(certified.shape, int)
    return Sandwich(np.array([0.1, 0.2, 0.3]), "linf", y, right, certified, broken, certified / 2, blank, names)


def test_the_bounds_by_hand():
    """Certified at its very radius, broken at its very radius; wrong samples stand nowhere; inf is never broken."""
    s = known([[0.1, 0.2, 0.0, 0.25]], [[0.2, 0.2000001, 0.0, np.inf]], [[True, True, False, True]])
    np.testing.assert_array_equal(s.certified_accuracy()[:, 0], [0.75, 0.5, 0])
    np.testing.assert_array_equal(s.robust_accuracy()[:, 0], [0.75, 0.5, 0.25])
    np.testing.assert_array_equal(s.certified_accuracy(0.2), [[0.5]])
    np.testing.assert_allclose(s.ratio(), [[0.5, 0.2 / 0.2000001, np.nan, np.nan]])
    row = summary(s, [7])[0]
    assert row["gap"] == {"widest": 0.25, "eps": pytest.approx(0.3)}
    assert row["fall"] == [0.2, 0.3]
    assert row["gap_outside_fall"] == 0
    assert row["never_broken"] == 1
    assert row["radius"]["broken"]["q3"] is None  # inf has no place in JSON
    assert s.weakest() == (0, 0)
    assert known([[0.1]], [[np.inf]]).weakest() is None


# ------------------------------------------------------------------ what is drawn and written
def test_the_figure_shows_both_bounds_and_the_window(found):
    figure = well_laid_out(robustness_figure(found, CONFIG))
    axes = np.array(figure.axes[:6]).reshape(3, 2)
    low, high = CONFIG.window().ends
    for column, s in zip(axes.T, found.values()):
        lines = {line.get_label(): line for line in column[0].lines}
        for label, curve in (("best attack", s.robust_accuracy), ("certified", s.certified_accuracy)):
            x, value = lines[label].get_data()
            np.testing.assert_array_equal(value, np.median(curve(x), axis=1))
        alone = next(line for line in column[1].lines if line.get_label() == "margin PGD")
        np.testing.assert_array_equal(alone.get_ydata(), np.median(s.under("pgd_margin"), axis=1))
        for axis in column:
            shaded = [p for p in axis.patches if str(p.get_label()).startswith("window")]
            ends = [tuple(p.get_path().get_extents(p.get_patch_transform()).intervalx) for p in shaded]
            assert ends == [pytest.approx((low, high))]
    for axis in axes[:, -1]:
        assert axis.get_legend().get_window_extent().x0 > axis.get_window_extent().x1


def test_the_worst_example_is_the_smallest_radius(run, data, found):
    figure = well_laid_out(worst_example(found, run.nets, data, [0, 1]))
    for part, s in zip(figure.subfigs, found.values()):
        r, n = s.weakest()
        assert s.correct[r, n]
        assert s.broken[r, n] == s.broken[s.correct].min()
        assert f"sample {n} of seed {r}" in part.get_suptitle()
        shown = part.axes[2].images[0].get_array()  # the perturbation along the features
        np.testing.assert_allclose(shown, (s.X_adv - data.X)[r, n] @ np.concatenate(data.features).T)


def test_never_broken_networks_are_drawn_too(run, data, found, tmp_path):
    s = found["standard"]
    never = dataclasses.replace(s, broken=np.full_like(s.broken, np.inf), found_by=np.full(s.y.shape, ""))
    page = write({"standard": never}, run.nets, data, [0, 1], CONFIG, tmp_path, {"advfeat": "x"})
    assert "broken at no radius" in page.read_text()
    json.loads((tmp_path / "robustness.json").read_text(), parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("robustness")
    arguments = ["--eps-grid", "0.1:0.9:5", "--samples", "4", "--seeds", "1", "--max-nodes", "8"]
    assert main(["robustness", str(run.path), *arguments, "--out", str(out)]) == 0
    return out


def test_the_command_writes_everything(folder, run):
    names = {"robustness.png", "robustness.pdf", "worst_example.png", "worst_example.pdf", "robustness.html"}
    assert {p.name for p in folder.iterdir()} == names | {"robustness.json", "robustness.npz"}
    numbers, arrays = store.load_json(folder / "robustness.json"), store.load_npz(folder / "robustness.npz")
    assert numbers["seeds"] == [1]
    assert numbers["networks"].keys() == run.nets.keys()
    for name, held in numbers["networks"].items():
        np.testing.assert_allclose(held["eps"], [0.1, 0.3, 0.5, 0.7, 0.9])
        assert np.array_equal(np.transpose(held["robust_accuracy"]), arrays[f"{name}/robust_accuracy"])
        assert arrays[f"{name}/certified"].shape == (1, 4)
        assert (arrays[f"{name}/certified"] < arrays[f"{name}/broken"]).all()
    page = (folder / "robustness.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    for text in ("Radii", "margin PGD", "class 2", "The worst example", "percentage points", "ascent_lr"):
        assert text in page
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page)


def test_the_command_takes_the_run_s_own_test_samples(folder):
    """Four samples of seed 1: those that a configuration of four test samples draws for it, and its network."""
    y = store.load_npz(folder / "robustness.npz")["standard/y"]
    assert np.array_equal(y[0], dataclasses.replace(CONFIG, n_test=4).data("test").y[1])


BAD = {
    "no run": (["nowhere"], "nowhere: not a run folder"),
    "seed": (["RUN", "--seeds", "5"], "seed = 5: unknown; choose from"),
    "samples": (["RUN", "--samples", "0"], "samples = 0: must be an integer >= 1"),
    "nodes": (["RUN", "--max-nodes", "0"], "max_nodes = 0: must be an integer >= 1"),
    "text": (["RUN", "--eps-grid", "a:b:3"], "--eps-grid a:b:3: must be START:STOP:N or radii"),
    "negative": (["RUN", "--eps-grid=-0.1:1:3"], "eps_grid = -0.1: must be a number, finite and > 0"),
    "not a number": (["RUN", "--eps-grid", "nan"], "eps_grid = nan: must be a number"),
    "falling": (["RUN", "--eps-grid", "0.5", "0.2"], "must be increasing radii"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_a_clear_error(arguments, message, run, capsys):
    arguments = [str(run.path) if a == "RUN" else a for a in arguments]
    assert main(["robustness", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (run.path / "robustness").exists()


# ------------------------------------------------------------------ Figure 3's sandwich
def test_figure_3_stands_on_both_bounds(run):
    for history in run.histories.values():
        keys = ("interval", "certified", "robust")
        records = {key: history[f"{key}_accuracy"] for key in keys}
        assert (records["interval"] <= records["certified"]).all()
        assert (records["certified"] <= records["robust"]).all()
    bottom = figures.figure3(run.histories, CONFIG).axes[5]
    assert {"certified", "certified by intervals alone"} <= {str(line.get_label()) for line in bottom.lines}
    assert "gap: undecided" in {str(c.get_label()) for c in bottom.collections}


def test_bounds_break_what_only_the_search_finds(run, data, monkeypatch):
    """Attacks that find nothing: branch and bound's points still bring robust accuracy down to the truth."""
    net, s = run.nets["standard"], sandwich(run.nets["standard"], data, GRID, **OPTIONS)
    eps = float(np.median(s.broken)) * 1.02
    monkeypatch.setattr(Evaluation, "attack", lambda self, eps, attack, alone=False: None)
    found = experiment.bounds(net, data, CONFIG, eps)
    assert found.broken[SEARCH].any()
    assert not (found.certified & found.broken[SEARCH]).any()
    np.testing.assert_array_equal(found.standing, s.correct & (s.broken > eps))


def test_bounds_certify_what_intervals_leave_open(run, data, found):
    """Between the intervals' radius and branch and bound's: certified, though not by intervals."""
    s = found["adversarial"]
    gain = np.where(s.correct, s.certified / np.maximum(s.interval, 1e-9), 0)
    r, n = np.unravel_index(gain.argmax(), gain.shape)
    eps = float(s.interval[r, n] * 0.2 + s.certified[r, n] * 0.8)
    held = experiment.bounds(run.nets["adversarial"], data, CONFIG, eps)
    assert held.certified[r, n]
    assert not held.interval_certified[r, n]
    assert held.certified[s.certified >= eps].all()


def test_histories_of_before_stay_readable(run, tmp_path):
    """Without "interval_accuracy", when "certified_accuracy" was the intervals'."""
    held = {name: h.arrays().items() for name, h in run.histories.items()}
    old = {name: History.from_arrays({k: a for k, a in h if "interval_accuracy" not in k}) for name, h in held.items()}
    past = dataclasses.replace(run, histories=old)
    style.save(figures.figure3(old, CONFIG), tmp_path / "figure3")
    run_page.write_report(past, CONFIG, tmp_path / "figure3.png", tmp_path / "report.html", {})
    s = experiment.summary(past, CONFIG)["adversarial"]
    np.testing.assert_array_equal(s["interval"], s["certified"])


def test_the_narrowest_tolerance_ends(run, data):
    """Neighbouring numbers have no middle: the bisection must stop there."""
    net = run.nets["adversarial"].run(0)
    few = type(data)(data.X[0, :2], data.y[0, :2], data.robust[0, :2], data.strength[0, :2], data.features)
    s = sandwich(net, few, [2.0], rtol=1e-17, n_steps=2, max_nodes=8)
    assert np.isfinite(s.broken).all()
    assert (s.certified < s.broken).all()

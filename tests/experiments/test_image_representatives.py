"""The experiment on representatives, tiny: every stage once, stopped anywhere, with other recipes, refused, drawn."""

import json
from dataclasses import replace

import numpy as np
import pytest

from advfeat.cli import main
from advfeat.core import store
from advfeat.experiments import representatives
from advfeat.experiments.feature_table import PAPER, document
from advfeat.experiments.representatives import Experiment
from advfeat.experiments.representatives_configuration import EXPERIMENTS, RepresentativesConfig
from advfeat.images import exchange
from advfeat.reporting import representatives_page as page

TINY = {"dataset": "digits", "network": "convnet", "depth": 2, "width": 3, "epochs": 2, "batch_size": 40, "lr": 0.05,
        "n_train": 300, "n_test": 60, "n_ascent": 1, "pgd_steps": 2, "n_seeds": 2, "n_images": 12,
        "inversion_steps": 8, "n_starts": 2, "bootstrap": 100, "other_network": "preact_resnet18",
        "enough": 0.02}  # fmt: skip
PAIRS = [f"{name}={value}" for name, value in TINY.items()]


def tiny(**changes):
    return RepresentativesConfig(**TINY | changes)


def content(folder):
    """All arrays, and the table, of a folder."""
    found = {}
    for path in sorted(folder.rglob("*.npz")):
        arrays = store.load_npz(path)
        found |= {f"{path.relative_to(folder)}/{name}": a.tobytes() for name, a in arrays.items() if name != "digest"
                  and name != "head"}  # fmt: skip
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    experiment = Experiment(tiny(), tmp_path_factory.mktemp("representatives") / "whole")
    return experiment, experiment.run()


def test_what_is_trained_and_represented(done):
    experiment, evidence = done
    names = [one.name for one in experiment.networks]
    assert len(names) == len(set(names)) == 12
    assert {"standard-0", "adversarial-1-kin", "standard-1-other"} <= set(names)
    assert len(evidence.sets) == 2 * 4 + 4
    kin, own = (experiment.training(one) for one in (experiment.networks[4], experiment.networks[0]))
    assert (kin.seed, kin.training, own.training) == (own.seed, own.training, "standard")
    assert kin.order_seed != own.order_seed
    # kin begin with the same weights and end with others
    nets = [{k: exchange.load(experiment.folder(one) / "weights" / f"{k}.npz").fingerprint() for k in (0, 14)}
            for one in (experiment.networks[4], experiment.networks[0])]  # fmt: skip
    assert nets[0][0] == nets[1][0]
    assert nets[0][14] != nets[1][14]


def test_both_sets_of_a_seed_have_the_same_images_and_starts(done):
    _, evidence = done
    for start in ("image", "noise"):
        (_, one), (_, other) = (evidence.sets[f"{arm}-0-{start}"] for arm in ("standard", "adversarial"))
        np.testing.assert_array_equal(one.source, other.source)
        assert one.head["starts"] == other.head["starts"]
    assert len({held.head["images"] for key, held in evidence.sets.values() if key.part == "test"}) == 1


def test_stages_that_are_done_are_not_done_again(done, monkeypatch):
    experiment, evidence = done
    times = {path: path.stat().st_mtime_ns for path in experiment.path.rglob("*.npz")}
    monkeypatch.setattr(representatives, "represent", None)
    left = experiment.path / "representatives" / f"{experiment.sets[0].name}-parts"
    left.mkdir()  # of a process that was killed between the last part and its end
    again = experiment.run()
    assert not left.exists()
    assert {path: path.stat().st_mtime_ns for path in experiment.path.rglob("*.npz")} == times
    assert document(experiment, again) == document(experiment, evidence)


@pytest.mark.parametrize("stage", ["training adversarial-0", "training standard-1-kin", "representatives standard-1",
                                   "representatives untrained", "answers of standard-0-other"])  # fmt: skip
def test_stopped_in_any_stage_it_continues_to_the_same_bits(stage, done, tmp_path):
    experiment, evidence = done
    other, hits = Experiment(tiny(), tmp_path / "stopped"), 0

    def stop(what, share):
        nonlocal hits
        hits += what.startswith(stage)
        if hits == 4 or (hits and "answers" in stage):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        other.run(stop)
    found = other.run()
    assert content(other.path) == content(experiment.path)
    assert document(other, found) == document(experiment, evidence)
    assert not list(other.path.rglob("*-parts"))


def test_by_two_workers_the_same_bits(done, tmp_path):
    experiment, evidence = done
    other, said = Experiment(tiny(), tmp_path / "spread"), []
    found = other.run(lambda *at: said.append(at), jobs=2)
    assert content(other.path) == content(experiment.path)
    assert document(other, found) == document(experiment, evidence)
    assert ("12 trainings", 1.0) in said
    assert ("12 sets of representatives", 1.0) in said


def test_a_stage_that_fails_in_a_worker_says_so_and_the_rest_is_kept(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["images", "table2", "--set", *PAIRS, "n_seeds=2", "lr=1e30", "--jobs", "2", "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "finite" in said  # the loss, or the samples that an ascent moves
    assert f"what was done is kept in {out}" in said


def test_other_recipes_cost_no_training(done, tmp_path):
    out = tmp_path / "out"
    Experiment(tiny(n_seeds=1, starts=("image",)), out).run()
    times = {path: path.stat().st_mtime_ns for path in (out / "networks").rglob("*.npz")}
    old = {path: path.read_bytes() for path in (out / "answers").iterdir()}
    config = tiny(n_seeds=1, starts=("image",), inversion_steps=4)
    with pytest.raises(store.CheckpointError, match="inversion_steps was 8 and is 4"):
        Experiment(config, out).run()
    found = Experiment(config, out).run(force=True)
    assert {path: path.stat().st_mtime_ns for path in (out / "networks").rglob("*.npz")} == times
    assert found.sets["standard-0-image"][1].head["inversion"]["n_steps"] == 4
    for path, content_of_it in old.items():  # answers on other representatives are none on these
        path.write_bytes(content_of_it)
    again = Experiment(config, out).run()
    for one, other in zip(again.answers, found.answers):
        np.testing.assert_array_equal(one.sets["standard-0-image"], other.sets["standard-0-image"])
    Experiment(replace(config, epochs=1), out).run(force=True)
    assert {path.stat().st_mtime_ns for path in (out / "networks").rglob("*.npz")}.isdisjoint(times.values())


def test_a_folder_of_something_else_is_left_alone(done, tmp_path):
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(store.CheckpointError, match="not empty and no experiment's folder"):
        Experiment(tiny(), tmp_path).run()
    experiment, _ = done
    with pytest.raises(store.CheckpointError, match="holds a run of another kind"):
        Experiment(tiny(), experiment.folder(experiment.networks[0])).run()
    with pytest.raises(FileNotFoundError, match="not a folder of `advfeat images reproduce`"):
        representatives.load(tmp_path)


def test_representatives_of_another_reference_are_not_taken(done, tmp_path):
    experiment, _ = done
    one, other = experiment.sets[0], Experiment(tiny(n_seeds=1, starts=("image",)), tmp_path / "copy")

    def stop(what, share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        other.run(stop)
    store.make_folder(other.path / "representatives")
    (other.path / "representatives" / f"{one.name}.npz").write_bytes(
        (experiment.path / "representatives" / f"{experiment.sets[1].name}.npz").read_bytes())  # fmt: skip
    with pytest.raises(store.CheckpointError, match="holds other representatives"):
        other.run()


def test_answers_of_unfinished_trainings_are_not_taken(tmp_path):
    experiment = Experiment(tiny(n_seeds=1, starts=("image",)), tmp_path / "out")

    def stop(what, share):
        if what == "training adversarial-0-other" and share > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment.run(stop)
    with pytest.raises(FileNotFoundError, match="adversarial-0-other: is not trained yet"):
        experiment.evidence()
    assert not (experiment.path / "answers").exists()


# ------------------------------------------------------------------ what comes out
def test_the_document_says_everything(done):
    experiment, evidence = done
    found = json.loads(json.dumps(document(experiment, evidence)))
    cells = {(r["start"], r["relation"], r["learner"], r["set"], r["when"]) for r in found["cells"]}
    pairs = [("standard", "D_NR"), ("standard", "D_R"), ("adversarial", "D_NR"), ("adversarial", "D_R")]
    wanted = {(s, how, *pair, when) for s in ("image", "noise") for how in ("kin", "stranger", "architecture")
              for pair in pairs for when in ("last", "best")}  # fmt: skip
    wanted |= {(s, "itself", *pair, when) for s in ("image", "noise") for pair in (pairs[0], pairs[3])
               for when in ("last",)}  # fmt: skip
    assert cells == wanted
    # of two seeds, strangers are one pair each way, and give no interval
    assert {r["relation"] for r in found["cells"] if r["low"] is None} == {"stranger"}
    assert all(r["low"] <= r["value"] <= r["high"] for r in found["cells"] if r["low"] is not None)
    places = {(r["reference"], r["reference_kind"], r["learner"], r["learner_kind"]) for r in found["transfer"]}
    assert len(places) == 15
    assert {r["control"] for r in found["controls"]} == {
        "label", "label of images that both references classify", "class of the start", "labels shuffled",
        "label, training images represented", "label, of an untrained reference", "label, of the other architecture",
    }  # fmt: skip
    assert len(found["gates"]) == len(evidence.sets)


def test_a_cell_whose_representatives_did_not_converge_says_so(done):
    experiment, evidence = done
    found = document(experiment, evidence)
    said = [cell for _, *cells in page.cell_rows(found)[1] for cell in cells if "(" in cell]
    assert any(cell.startswith("not converged: ") for cell in said)  # 8 steps are few
    for gate, row in zip(found["gates"], page.gate_rows(found)[1]):
        assert row[1] == ("passed" if gate["passed"] else "not converged")
    row = {"value": 0.5, "low": 0.4, "high": 0.6, "converged": True, "median": 0.1, "p90": 0.2}
    assert page.interval(row) == "0.50 (0.40 to 0.60)"


@pytest.mark.parametrize("dataset", ["digits", "mnist"])
def test_the_page_has_every_picture_and_the_papers_numbers(dataset, done):
    experiment, evidence = done
    found = document(experiment, evidence) | {"paper": PAPER.get(dataset, {})}
    report = page.write_report(experiment, evidence, found).read_text()
    for name in ("figure1", "figure4-image", "figure4-noise", "transfer"):
        for kind in ("png", "pdf"):
            assert (experiment.path / f"{name}.{kind}").stat().st_size > 2000
    assert report.count("<img") == 4
    assert ("0.88 / 0.45" in report) == (dataset == "mnist")
    assert "smoke test" in report
    assert store.load_json(experiment.path / "table.json")["cells"]


# ------------------------------------------------------------------ commands
def test_commands(tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["images", "reproduce", "--set", *PAIRS, "n_seeds=1", 'starts=["image"]', "--out", str(out), "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"] == str(out / "report.html")
    assert main(["images", "table", str(out), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == found
    assert main(["list", str(tmp_path)]) == 0
    assert "representatives  finished" in capsys.readouterr().out
    assert main(["show", str(out)]) == 0
    assert "inversion_steps" in capsys.readouterr().out
    training = str(out / "networks" / "standard-0")
    place = str(tmp_path / "inverted")
    assert main(["images", "invert", training, "--set", "n_images=5", "inversion_steps=3", "--out", place]) == 0
    assert "not converged" in capsys.readouterr().out
    assert main(["images", "invert", place, "--again"]) == 0
    assert "every bit" in capsys.readouterr().out
    sheet = store.load_json(f"{place}/representatives.json")
    sheet["digests"]["X"] = sheet["digests"]["y"]
    store.save_json(f"{place}/representatives.json", sheet)
    assert main(["images", "invert", place, "--again"]) == 1
    assert "X came out otherwise" in capsys.readouterr().out
    store.save_json(f"{place}/representatives.json", {"selection": 3})
    assert main(["images", "invert", place, "--again"]) == 2
    assert "its datasheet is of something else" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["start_part=train"], "start_part = 'train': the networks were trained on them"),
        (["starts=[]"], "starts = (): must be one or both of image, noise"),
        (["radius=0"], "radius = 0: must be a number, finite and > 0"),
        (["inversion_steps=0"], "inversion_steps = 0: must be an integer >= 1"),
        (["n_images=60"], "none of 0 images is of another class"),
        (["n_images=1000"], "n = 1000: there are 60 images"),
        (["training=standard"], "training = 'standard'"),
        (["inversion_step=fast"], "inversion_step = 'fast'"),
        (["other_network=convnet"], "other_network = 'convnet': is the network itself"),
        (["other_network=wide_resnet"], "depth = 2: of wide_resnet must be 6 n + 4"),
    ],
)
def test_bad_input_is_refused_before_any_training(pairs, said, tmp_path, capsys):
    assert main(["images", "reproduce", "--set", *PAIRS, *pairs, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "networks").exists()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_preset_builds(name):
    config = RepresentativesConfig(**EXPERIMENTS[name])
    standard, adversarial = (config.of_training(arm, 0) for arm in ("standard", "adversarial"))
    assert standard.training == "standard"
    assert adversarial.training == "pgd"
    assert standard.epochs <= adversarial.epochs


def test_starts_from_training_images_are_taken_where_they_are_asked_for():
    config = tiny(start_part="train", allow_seen_starts=True)
    training = config.samples()[0]
    chosen = config.selection("image")
    np.testing.assert_array_equal(chosen.begin, training.X[chosen.start])

"""`advfeat evaluate`: what it finds, keeps and refuses."""

import json

import numpy as np
import pytest
from cli_runs import TINY, content

import advfeat
from advfeat.cli import main
from advfeat.core import store
from advfeat.experiments import figure3 as experiment
from advfeat.experiments.configuration import Figure3Config


@pytest.fixture
def counted(monkeypatch):
    """The seeds of every evaluation that is done, as they are done."""
    done, bounds = [], experiment.bounds

    def counting(*arguments, seeds=None, **options):
        if seeds is not None:  # not a record point's
            done.append(seeds)
        return bounds(*arguments, seeds=seeds, **options)

    monkeypatch.setattr(experiment, "bounds", counting)
    return done


def test_evaluate_reads_a_run(copy, capsys):
    assert main(["evaluate", str(copy), "--eps", "0"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("standard", "adv"))]
    assert len(lines) == 4
    for line in lines:
        assert line[2] == line[3] == line[4]  # at eps = 0 accuracy, robust and certified accuracy are one


def test_what_was_found_is_kept_and_printed_from_there(copy, capsys, counted):
    said = []
    for options in ([], [], ["--json"], ["--json"]):
        assert main(["evaluate", str(copy), *options]) == 0
        said.append(capsys.readouterr().out)
    assert counted == [[0, 1], [0, 1]]  # once per network
    assert said[0] == said[1]
    found, file = json.loads(said[2]), copy / "evaluate" / "eps=0.5-linf.json"
    assert said[2] == said[3]
    held, run = store.load_json(file), advfeat.load(copy)
    assert found["networks"] == held["networks"]
    assert found["kept"] == str(file)
    assert held["environment"].keys() == run.environment.keys()
    assert (held["identity"]["eps"], held["identity"]["norm"]) == (0.5, "linf")
    for name, history in run.histories.items():
        numbers = found["networks"][name]
        assert [row["robust"] for row in numbers] == history["robust_accuracy"][-1].tolist()
        assert [row["certified"] for row in numbers] == history["certified_accuracy"][-1].tolist()
    assert main(["evaluate", str(copy), "--eps", "0.25"]) == 0
    assert len(list((copy / "evaluate").iterdir())) == 2


def test_force_and_other_weights_are_evaluated_anew(copy, counted):
    assert main(["evaluate", str(copy)]) == 0
    assert main(["evaluate", str(copy), "--force"]) == 0
    assert len(counted) == 4
    kept = store.load_json(copy / "evaluate" / "eps=0.5-linf.json")
    assert main(["reproduce", "--out", str(copy), *TINY, "alpha=2.5", "--force"]) == 0
    assert main(["evaluate", str(copy)]) == 0
    assert store.load_json(copy / "evaluate" / "eps=0.5-linf.json")["identity"] != kept["identity"]


def test_seeds_are_those_of_the_run_and_add_up(copy, capsys, counted):
    def rows(*options):
        assert main(["evaluate", str(copy), "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)["networks"]

    second, first, both = rows("--seeds", "1"), rows("--seeds", "0"), rows()
    assert counted == [[1], [1], [0], [0]]
    for name, held in both.items():
        assert [row["seed"] for row in held] == [0, 1]
        assert held == first[name] + second[name]
    assert rows("--force") == both  # together as one by one
    assert main(["evaluate", str(copy), "--seeds", "7"]) == 2
    assert "seed = 7: unknown; choose from" in capsys.readouterr().err


def test_a_run_takes_no_configuration(copy, capsys):
    before = content(copy)
    for option in (["--set", "alpha=2"], ["--backend", "numpy"], ["--dtype", "float64"], ["--config", "x.toml"]):
        assert main(["evaluate", str(copy), *option]) == 2
        assert "the configuration is the run's own" in capsys.readouterr().err
    assert content(copy) == before


def test_own_weights_are_kept_where_out_says(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Figure3Config.build(None, TINY[3:])
    net = advfeat.PatchCNN.robust_minimum(9.0, config.distribution().features, n_neurons=4, q=3, rho=10.0)
    net.save("mine.npz")
    given = ["evaluate", "--weights", "mine.npz", *TINY]
    assert main(given) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npz"]
    assert main([*given, "--out", "kept"]) == 0
    file = tmp_path / "kept" / "eps=0.5-linf.json"
    assert [row["seed"] for row in store.load_json(file)["networks"]["weights"]] == [0, 1]
    before = content(tmp_path / "kept")
    net.with_weights(2 * np.asarray(net.W)).save("mine.npz")
    assert main([*given, "--out", "kept"]) == 2
    assert "of other weights or another configuration; --force writes over it" in capsys.readouterr().err
    assert content(tmp_path / "kept") == before
    assert main([*given, "--out", "kept", "--force"]) == 0
    assert content(tmp_path / "kept") != before
    assert main(["evaluate", "--weights", "mine.npz", "--seeds", "1", "2"]) == 2
    assert "--seeds 1 2: with --weights must be one number" in capsys.readouterr().err


def test_a_damaged_file_is_named(copy, capsys):
    assert main(["evaluate", str(copy)]) == 0
    file = copy / "evaluate" / "eps=0.5-linf.json"
    file.write_text(file.read_text().replace("0.5", "0.6", 1))
    assert main(["evaluate", str(copy)]) == 2
    assert f"{file}: damaged" in capsys.readouterr().err
    assert main(["evaluate", str(copy), "--force"]) == 0

"""`advfeat list` and `advfeat show`: what stands in folders, damaged ones named."""

import json
import shutil
from pathlib import Path

import pytest
from cli_runs import content

import advfeat
from advfeat.cli import main
from advfeat.experiments.configuration import Figure3Config

HELD = Path(__file__).parent.parent / "data" / "0.1.0"


@pytest.fixture
def place(copy):
    """A folder with a finished and a half-done run, a training, a finished and a half-done sweep, and damaged ones."""
    place = copy.parent
    shutil.copytree(HELD / "half-run", place / "b" / "half")
    config = Figure3Config.build(**advfeat.load(copy).config)
    advfeat.train(config.network(), config.data("train"), config.training(True), run_dir=place / "training")
    shutil.copytree(HELD / "sweep", place / "sweep")
    shutil.copytree(HELD / "sweep", place / "sweep-half")
    (place / "sweep-half" / "results.parquet").unlink()
    for name, damage in {"text": b"{", "list": b"[1]", "zeros": bytes(50)}.items():
        shutil.copytree(copy, place / name)
        (place / name / "config.json").write_bytes(damage)
    shutil.copytree(copy, place / "weights")
    (place / "weights" / "standard" / "checkpoint.npz").write_bytes(b"PK")
    (place / "notes").mkdir()
    return place


def test_list_names_every_folder_once(place, capsys):
    before = content(place)
    assert main(["list", str(place), "--json"]) == 0
    said = capsys.readouterr()
    found = {str(Path(one["path"]).relative_to(place)): one for one in json.loads(said.out)["folders"]}
    assert list(found) == ["b/half", "copy", "list", "sweep", "sweep-half", "text", "training", "weights", "zeros"]
    assert found["copy"]["kind"] == "reproduce"
    assert found["copy"]["finished"]
    assert found["copy"]["differences"]["n_classes"] == 3
    assert "alpha" not in found["copy"]["differences"]
    assert not found["b/half"]["finished"]
    assert 0 < found["b/half"]["done"]["standard"] <= found["b/half"]["total"]
    assert found["b/half"]["done"]["adversarial"] < found["b/half"]["total"]
    assert (found["training"]["kind"], found["training"]["finished"]) == ("training", True)
    assert found["training"]["differences"]["adversarial"] is True
    assert "drops" not in found["training"]["differences"]
    assert (found["sweep"]["kind"], found["sweep"]["finished"]) == ("sweep", True)
    assert found["sweep"]["axes"].keys() == found["sweep-half"]["axes"].keys() != set()
    assert not found["sweep-half"]["finished"]
    for name in ("text", "list", "zeros"):
        assert "config.json: " in found[name]["error"]
    assert "checkpoint.npz: " in found["weights"]["error"]
    assert (said.err, content(place)) == ("", before)


def test_list_prints_states_and_differences(place, capsys):
    assert main(["list", str(place)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "finished" in lines[str(place / "copy")]
    assert "n_classes=3" in lines[str(place / "copy")]
    assert "iterations" in lines[str(place / "b" / "half")]
    assert "results" in lines[str(place / "sweep-half")]
    assert "damaged" in lines[str(place / "text")]
    assert all(str(path) in lines for path in (place / "training", place / "sweep"))


def test_list_of_no_folder_is_an_error(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 2
    assert "advfeat-runs: there is no such folder" in capsys.readouterr().err
    assert main(["list", "."]) == 0


def test_show_says_what_a_run_is(folder, capsys):
    assert main(["show", str(folder)]) == 0
    said = capsys.readouterr().out
    assert said.index("n_classes") < said.index("alpha")  # differences first
    for part in ("finished", "robust_accuracy", "numpy", "history.npz"):
        assert part in said
    assert main(["show", str(folder), "--json"]) == 0
    found, run = json.loads(capsys.readouterr().out), advfeat.load(folder)
    assert found["config"] == run.config
    assert found["environment"] == run.environment
    assert found["done"] == {"standard": 40, "adversarial": 40}
    assert found["files"]["history.npz"] == (folder / "history.npz").stat().st_size
    for name, history in run.histories.items():
        assert found["last"][name]["iteration"] == 40
        assert found["last"][name]["robust_accuracy"] == history["robust_accuracy"][-1].tolist()


@pytest.mark.parametrize("name", ["b/half", "training", "sweep", "sweep-half"])
def test_show_takes_every_kind(place, name, capsys):
    assert main(["show", str(place / name)]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 20


def test_show_names_what_is_damaged_or_missing(place, capsys):
    for name, message in (("text", "config.json: "), ("weights", "checkpoint.npz: "), ("notes", "neither config.json")):
        assert main(["show", str(place / name)]) == 2
        assert message in capsys.readouterr().err

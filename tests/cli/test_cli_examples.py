"""`advfeat examples`: a list of questions, copies that overwrite nothing, and names in place of files."""

import json
from pathlib import Path

import pytest
from cli_runs import ROOT, content

from advfeat.cli import examples, main
from advfeat.experiments.study import StudyPlan
from advfeat.sweeps import SweepSpec

READERS = {"sweep": SweepSpec.build, "images study": StudyPlan.read}
HELD = sorted(ROOT.glob("examples/**/*.toml"))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_file_is_listed_once_with_its_question_and_its_command(capsys):
    assert main(["examples", "--json"]) == 0
    found = {one["example"]: one for one in json.loads(capsys.readouterr().out)["examples"]}
    assert sorted(found) == sorted(path.stem for path in HELD)
    for path in HELD:
        one = found[path.stem]
        assert path.read_text(encoding="utf-8").startswith(f"# {one['question']}\n")
        assert one["question"].endswith("?")
        command = one["command"].removeprefix("advfeat ").removesuffix(f" {path.stem}")
        READERS[command](path)
    assert main(["examples"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["example", *found]


def test_copies_are_the_files(folder, capsys):
    assert main(["examples", "winner", "mnist-5k", "--out", "new/place", "--json"]) == 0
    copies = json.loads(capsys.readouterr().out)["copies"]
    assert copies[1] == {"file": "new/place/mnist-5k.toml", "command": "advfeat images study new/place/mnist-5k.toml"}
    held = {path.name: path.read_bytes() for path in HELD}
    assert content(folder / "new/place") == {Path(name): held[name] for name in ("winner.toml", "mnist-5k.toml")}
    assert main(["examples", "--all", "--quiet"]) == 0
    assert {path.name: path.read_bytes() for path in folder.glob("*.toml")} == held


def test_nothing_is_overwritten_unasked(folder, capsys):
    (folder / "window.toml").write_text("mine")
    assert main(["examples", "take-off", "window"]) == 2
    assert "window.toml: is there already; --force writes over it" in capsys.readouterr().err
    assert content(folder) == {Path("window.toml"): b"mine"}  # nothing else either
    assert main(["examples", "take-off", "window", "--force"]) == 0
    assert content(folder)[Path("window.toml")] == (ROOT / "examples" / "window.toml").read_bytes()


@pytest.mark.parametrize(("arguments", "message"), [
    (["winer"], "example = 'winer': unknown; did you mean 'winner'?"),
    (["winner", "--all"], "--all: copies every example"),
    (["--out", "."], "--out: only with names or --all"),
    (["--force"], "--force: only with names or --all"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(arguments, message, folder, capsys):
    assert main(["examples", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert content(folder) == {}


def test_a_name_stands_for_the_file_where_there_is_none(folder, capsys):
    assert examples.file_of("winner") == ROOT / "examples" / "winner.toml"
    assert main(["images", "study", "mnist-5k", "--draw"]) == 0
    assert "not measured" in capsys.readouterr().out  # results are this folder's, not those beside the example
    (folder / "winner").write_text("[sweep]\nnonsense = 1\n")
    assert main(["sweep", "winner"]) == 2
    assert "sweep.nonsense: unknown" in capsys.readouterr().err
    assert main(["sweep", "nowhere.toml"]) == 2
    assert "nowhere.toml: there is no such file" in capsys.readouterr().err

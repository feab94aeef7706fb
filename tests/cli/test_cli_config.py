"""`advfeat config`: every key with its value, default, unit and meaning; a file that --config reads back."""

import json

from advfeat.cli import main
from advfeat.experiments.configuration import Figure3Config


def test_every_key_is_listed(capsys):
    assert main(["config", "--set", "alpha=2.5", "batch_size=7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["key", "value", "default", "unit", "meaning"]
    rows = {line.split()[0]: line.split() for line in lines[1:]}
    assert list(rows) == list(Figure3Config.keys())
    assert rows["alpha"][1:3] == ["2.5", "3.0"]
    assert rows["batch_size"][1:3] == ["7", "none"]
    assert all(len(row) > 3 for row in rows.values())


def test_json_has_numbers(capsys):
    assert main(["config", "--set", "alpha=2.5", "--json"]) == 0
    keys = json.loads(capsys.readouterr().out)["keys"]
    assert keys["alpha"]["value"] == 2.5
    assert keys["alpha"]["default"] == 3.0
    assert keys["batch_size"]["value"] is None
    assert keys["balanced"]["value"] is True
    assert {"help", "unit", "rule"} <= keys["q"].keys()


def test_a_written_file_is_read_back(tmp_path, capsys):
    file = tmp_path / "new" / "mine.toml"
    changes = ["--seeds", "3", "--dtype", "float64", "--set", "alpha=2.5", "balanced=false", "norm=l2"]
    assert main(["config", *changes, "--out", str(file)]) == 0
    assert f"Configuration: {file}" in capsys.readouterr().out
    assert Figure3Config.build(file) == Figure3Config(
        alpha=2.5, balanced=False, norm="l2", n_seeds=3, dtype="float64"
    )  # fmt: skip
    kept = file.read_text()
    assert "#" in kept
    assert main(["config", "--out", str(file)]) == 2
    assert "mine.toml: is there already; --force writes over it" in capsys.readouterr().err
    assert file.read_text() == kept
    assert main(["config", "--out", str(file), "--force"]) == 0
    assert Figure3Config.build(file) == Figure3Config()

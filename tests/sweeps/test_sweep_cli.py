"""`advfeat sweep` and `advfeat plot`: what a user types and sees."""

import json

import pytest
from sweep_specs import spec, write

from advfeat.cli import main
from advfeat.sweeps import driver

PLOT = '\n[[plot]]\nx = "strength_ratio"\ny = "robust_share"\nmetric = "robust_wins"\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("sweep")
    path = write(place / "tiny.toml", spec({"alpha": [1.0, 2.0, 3.0], "n_robust": [1, 2, 9]}, metrics=["robust_wins"],
                                           on_invalid="skip"))  # fmt: skip
    path.write_text(path.read_text() + PLOT)
    assert main(["sweep", str(path), "--out", str(place / "out"), "--jobs", "1"]) == 0
    return place / "out"


def test_a_sweep_says_its_plan_before_it_starts_and_leaves_everything(tmp_path, capsys, monkeypatch):
    path, said = write(tmp_path / "tiny.toml", spec()), []
    work = driver.work
    monkeypatch.setattr(driver, "work", lambda *args: said.append(capsys.readouterr().out) or work(*args))
    options = ["--out", str(tmp_path / "out"), "--jobs", "1", "--memory", "1GB", "--largest-batch", "2"]
    assert main(["sweep", str(path), *options]) == 0
    plan = said[0]
    for part in ("grid of 5 points x 1 seeds", "5 runs", "alpha  5: 1.0, 1.5", "3 batches of at most 2 runs",
                 "1 workers (loky)", "0 runs are there already, 5 in 3 batches"):  # fmt: skip
        assert part in plan, part
    assert "first batch after" in said[1]
    assert "left" in said[1]
    assert f"Results: {tmp_path / 'out' / 'results.parquet'}" in capsys.readouterr().out
    assert main(["sweep", str(path), *options]) == 0
    assert "5 runs are there already, 0 in 0 batches" in capsys.readouterr().out
    assert len(said) == 3


def test_the_specs_own_plots_are_drawn(folder):
    assert {"results.parquet", "sweep.json", "spec.toml", "index.html", "figures"} <= {p.name for p in folder.iterdir()}
    held = json.loads((folder / "sweep.json").read_text())
    assert [one["point"] for one in held["skipped"]] == [2, 5, 8]
    assert {"numpy", "advfeat", "joblib", "pyarrow"} <= held["environment"].keys()


def test_plot_adds_to_the_gallery(folder, capsys):
    options = ["--x", "alpha", "--y", "n_robust", "--metric", "robust_wins", "--iteration", "0"]
    assert main(["plot", str(folder), *options]) == 0
    assert "robust_wins-alpha-n_robust-iteration=0.png" in capsys.readouterr().out
    assert main(["plot", str(folder), "--x", "alpha", "--metric", "robust_wins", "--at", "n_robust=2"]) == 0
    assert (folder / "index.html").read_text().count("<img") == 3


BAD = {
    "no metric": (["--x", "alpha"], "give --metric"),
    "unknown metric": (["--x", "alpha", "--metric", "robust_win"], "did you mean 'robust_wins'"),
    "unknown axis": (["--x", "alpah", "--metric", "robust_wins"], "did you mean 'alpha'"),
    "an axis left open": (["--x", "alpha", "--metric", "robust_wins"], "n_robust"),
    "a value that is not there": (["--x", "alpha", "--metric", "robust_wins", "--at", "n_robust=7"], "7"),
    "no pair": (["--x", "alpha", "--metric", "robust_wins", "--at", "n_robust"], "must be key=value"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_a_bad_plot_is_an_error_of_one_line(folder, options, message, capsys):
    assert main(["plot", str(folder), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_bad_sweeps_leave_nothing(tmp_path, capsys):
    assert main(["sweep", str(tmp_path / "none.toml")]) == 2
    assert "none.toml: there is no such file" in capsys.readouterr().err
    path = write(tmp_path / "bad.toml", spec({"n_robust": [1, 9]}))
    assert main(["sweep", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "n_robust = 9: must be <= n_patches = 4" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_failed_batch_is_one_line_and_status_1(tmp_path, capsys, monkeypatch):
    def broken(batch, threads):
        raise FloatingPointError("planted")

    monkeypatch.setattr(driver, "work", broken)
    path = write(tmp_path / "tiny.toml", spec())
    assert main(["sweep", str(path), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 1
    error = capsys.readouterr().err
    assert "standard training of point 0 (alpha = 1.0)" in error
    assert "FloatingPointError: planted; 0 of 5 runs are kept" in error
    assert main(["plot", str(tmp_path / "out")]) == 2
    assert "not finished" in capsys.readouterr().err

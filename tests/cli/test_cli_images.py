"""`advfeat images`: four steps from a recipe to numbers that anyone can check, and its errors."""

import json

import numpy as np
import pytest
from image_files import write_mnist

from advfeat.cli import main
from advfeat.experiments import images
from advfeat.experiments.image_presets import PRESETS

SMALL = ["network=convnet", "width=8", "depth=2", "epochs=6", "n_train=500", "n_test=60", "pgd_steps=3", "n_ascent=2",
         "eps=0.05"]  # fmt: skip


@pytest.fixture(autouse=True)
def small_suite(monkeypatch):
    suite = (("pgd_cross_entropy", {"n_steps": 4}), ("square", {"n_steps": 10}))
    monkeypatch.setattr(images, "IMAGE_SUITE", suite)
    monkeypatch.setattr(images.evaluate, "__kwdefaults__", images.evaluate.__kwdefaults__ | {"attacks": suite})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["images", "train", "--preset", "digits-pgd", "--set", *SMALL, "--out", str(out), "--quiet"]) == 0
    return out


def test_train_evaluate_verify(run, capsys):
    assert {path.name for path in run.iterdir()} >= {"config.json", "result.json", "report.html", "training.png"}
    assert main(["images", "train", "--preset", "digits-pgd", "--set", *SMALL, "--out", str(run), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    held = document["runs"][str(run)]["networks"]
    assert held["last"]["accuracy"] > 0.3
    assert main(["images", "evaluate", str(run), "--samples", "30", "--certificate", "interval", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 30
    assert found["robust_accuracy"] <= found["accuracy"]
    assert main(["images", "evaluate", str(run), "--samples", "30", "--certificate", "interval"]) == 0
    assert "robust accuracy, worst of all attacks" in capsys.readouterr().out
    assert main(["images", "verify", str(run / "evaluate")]) == 0
    assert "30 images" in capsys.readouterr().out
    transcript = images.Transcript.load(run / "evaluate" / "transcript.npz")
    transcript.margin[0] += 1
    transcript.save(run / "evaluate" / "transcript.npz")
    assert main(["images", "verify", str(run / "evaluate")]) == 1
    ends = capsys.readouterr()
    assert "Image 0: its margin is" in ends.out
    assert ends.err.startswith("advfeat images: ")


def test_branch_and_seeds(run, tmp_path, capsys):
    more = ["images", "train", "--set", *SMALL, "dataset=digits", "epochs=1", "--quiet"]
    assert main([*more, "--start", f"{run}@10", "--out", str(tmp_path / "branch")]) == 0
    begun, held = (images.at(*place).parameters["fc.weight"] for place in ((tmp_path / "branch", 0), (run, 10)))
    np.testing.assert_array_equal(begun, held)
    assert main([*more, "--seeds", "3", "4", "--out", str(tmp_path / "seeds")]) == 0
    assert {path.name for path in (tmp_path / "seeds").iterdir()} == {"seed-3", "seed-4"}
    assert main([*more, "--start", str(tmp_path / "no"), "--out", str(tmp_path / "x")]) == 2
    assert "not a folder of `advfeat images train`" in capsys.readouterr().err


def test_list_and_show_know_trainings_on_images(run, capsys):
    assert main(["list", str(run.parent), "--json"]) == 0
    (found,) = (one for one in json.loads(capsys.readouterr().out)["folders"] if one["path"] == str(run))
    assert (found["kind"], found["finished"], found["total"]) == ("images", True, 30)
    assert found["differences"]["dataset"] == "digits"
    assert "drops" not in found["differences"]
    assert main(["show", str(run)]) == 0
    out = capsys.readouterr().out
    assert "images, finished" in out
    assert "validation_robust" in out


def test_presets_are_listed(capsys):
    assert main(["images", "train", "--preset", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in PRESETS)


def test_a_file_stands_above_a_preset_and_set_above_both(tmp_path, capsys):
    (tmp_path / "c.toml").write_text("epochs = 1\nwidth = 2\n")
    command = ["images", "train", "--preset", "digits", "--config", str(tmp_path / "c.toml"), "--set", "width=3",
               "n_train=60", "n_test=20", "batch_size=30", "--out", str(tmp_path / "out"), "--quiet"]  # fmt: skip
    assert main(command) == 0
    config = images.load(tmp_path / "out").config
    assert (config.dataset, config.epochs, config.width) == ("digits", 1, 3)


@pytest.mark.parametrize(("arguments", "message"), [
    (["train", "--preset", "cifar"], "preset = 'cifar': unknown; did you mean 'cifar10'"),
    (["train", "--set", "widht=3"], "widht: unknown configuration key; did you mean 'width'"),
    (["train", "--set", "eps=0"], "eps = 0: must be a number, finite and > 0"),
    (["train", "--set", "dataset=mnist", "folder=FOLDER"], "mnist: its files are not in FOLDER; advfeat images fetch"),
    (["evaluate", "FOLDER"], "FOLDER: not a folder of `advfeat images train`"),
    (["verify", "FOLDER"], "transcript.npz: there is no such file"),
    (["fetch", "imagenet"], "name = 'imagenet': unknown"),
])  # fmt: skip
def test_errors_are_one_line_before_any_work(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = str(tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    arguments = [a.replace("FOLDER", folder) for a in arguments]
    assert main(["images", *arguments]) == 2
    error = capsys.readouterr().err
    assert message.replace("FOLDER", folder) in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "empty").iterdir())


def test_damaged_data_are_named(tmp_path, capsys):
    write_mnist(tmp_path / "data", n=30)
    (tmp_path / "data" / "train-labels-idx1-ubyte.gz").write_bytes(b"no")
    command = ["images", "train", "--set", "dataset=mnist", f"folder={tmp_path / 'data'}", "--out", str(tmp_path / "o")]
    assert main(command) == 2
    assert "train-labels-idx1-ubyte.gz: truncated or damaged" in capsys.readouterr().err


def test_a_training_that_diverges_fails_with_advice(tmp_path, capsys):
    command = ["images", "train", "--set", *SMALL, "dataset=digits", "lr=1e30", "schedule=constant", "--out",
               str(tmp_path), "--quiet"]  # fmt: skip
    with np.errstate(all="ignore"):
        assert main(command) == 1
    assert "training diverged at iteration" in capsys.readouterr().err

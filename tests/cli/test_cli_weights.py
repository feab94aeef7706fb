"""Commands with the user's own weights."""

import re

import numpy as np
import pytest
from cli_runs import SMALL, TINY

import advfeat
from advfeat.cli import main
from advfeat.experiments.configuration import Figure3Config


def test_own_weights_go_into_every_command(tmp_path, capsys):
    config = Figure3Config.build(None, SMALL, n_seeds=2)
    net = advfeat.PatchCNN.robust_minimum(9.0, config.distribution().features, n_neurons=4, q=3, rho=10.0)
    file = str(tmp_path / "mine.npz")
    net.save(file)
    assert main(["data", "--out", str(tmp_path), "--weights", file, "--set", *SMALL]) == 0
    assert "accuracy of the given weights on 6 samples: 1.00" in capsys.readouterr().out
    assert main(["evaluate", "--weights", file, *TINY]) == 0
    assert len(re.findall(r"^weights .*1\.00", capsys.readouterr().out, re.M)) == 2
    assert main(["reproduce", "--weights", file, "--out", str(tmp_path / "run"), *TINY]) == 0
    start = advfeat.load(tmp_path / "run").histories["standard"]["A"][0]
    assert np.array_equal(start, np.full((2, 3, 4), 9.0))


def robust_file(path, **arrays):
    """A file of robust minima with q = 2 and rho = 1, at which they are robust; `arrays` replace some."""
    u = Figure3Config.build(None, SMALL).distribution().features[0]
    held = {"W": 9.0 * np.repeat(u[:, None], 4, axis=1), "q": 2, "rho": 1.0} | arrays
    np.savez(path, **{name: value for name, value in held.items() if value is not None})
    return str(path)


def test_the_q_and_rho_of_a_weights_file_hold(tmp_path, capsys):
    """At 0.6 these minima are robust in the polynomial part of the default's q = 3, rho = 100 (edge 1.0), and beyond
    q = 2, rho = 1 they are not (edge 0.33)."""
    file, config = robust_file(tmp_path / "w.npz"), [pair for pair in SMALL if not pair.startswith("rho")]
    changed = ["q=2", "rho=1"]

    def said(*command):
        assert main([*command, "--seeds", "1", "--eps", "0.6", "--set", *config]) == 0
        return capsys.readouterr().out

    plain = robust_file(tmp_path / "plain.npz", q=None, rho=None)
    own, default = said("evaluate", "--weights", file), said("evaluate", "--weights", plain)
    assert main(["evaluate", "--weights", plain, "--seeds", "1", "--eps", "0.6", "--set", *config, *changed]) == 0
    assert own == capsys.readouterr().out
    columns = [re.search(r"^weights +0 +(\S+) +(\S+)", text, re.M).groups() for text in (own, default)]
    assert columns == [("1.00", "0.00"), ("1.00", "1.00")]
    out = tmp_path / "run"
    assert main(["reproduce", "--seeds", "1", "--weights", file, "--out", str(out), "--set", *config]) == 0
    run = advfeat.load(out)
    assert (run.config["q"], run.config["rho"]) == (2, 1.0)
    assert (run.nets["standard"].q, run.nets["standard"].rho) == (2, 1.0)


@pytest.mark.parametrize("command", ["reproduce", "data", "evaluate"])
def test_a_value_against_the_weights_file_is_refused(command, tmp_path, capsys):
    config = [pair for pair in SMALL if not pair.startswith("rho")]
    toml = tmp_path / "c.toml"
    toml.write_text("q = 3\n")  # the default too, but said
    file = robust_file(tmp_path / "w.npz")
    for more, message in (
        (["--set", "rho=10"], "rho = 10: contradicts the given weights, which hold rho = 1.0"),
        (["--config", str(toml)], "q = 3: contradicts the given weights, which hold q = 2"),
    ):
        assert main([command, "--weights", file, "--set", *config, *more]) == 2
        assert message in capsys.readouterr().err
    assert Figure3Config.build(None, ["rho=1"], {"rho": 1.0}).rho == 1.0


def test_a_run_folders_name_knows_the_activation_of_its_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = [*TINY, "n_iter=4", "n_records=1"]
    tiny.remove("rho=10")
    for i, rho in enumerate((1.0, 2.0)):
        assert main(["reproduce", "--weights", robust_file(tmp_path / f"{i}.npz", rho=rho), *tiny]) == 0
    assert len(list((tmp_path / "advfeat-runs").iterdir())) == 2

"""The command line: what a user types, what comes out, and what bad input says."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from advfeat.kernels.cpu import engine as cpu_engine

import advfeat
from advfeat.cli import main
from advfeat.experiments.configuration import Figure3Config

ROOT = Path(advfeat.__file__).resolve().parent.parent
SMALL = [
    *("n_classes=3", "n_neurons=4", "patch_dim=12", "n_patches=8", "n_train=6", "n_test=6"),
    *("n_iter=40", "n_records=4", "rho=10", "lr=2"),
]
TINY = ["--seeds", "2", "--set", *SMALL]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["reproduce", "--out", str(out), *TINY]) == 0
    return out


def test_reproduce_writes_everything(folder):
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "config.json", "history.npz", "figure3.png", "figure3.pdf", "report.html", "standard", "adversarial",
    }  # fmt: skip
    run = advfeat.load(folder)
    assert run.config == Figure3Config.build(None, SMALL, n_seeds=2).as_dict()
    assert {"numpy", "numba", "python", "advfeat"} <= run.environment.keys()
    for name in ("standard", "adversarial"):
        history = run.histories[name]
        assert history["iteration"].tolist() == list(range(0, 41, 2))
        at, robust = history.at("robust_accuracy")
        assert at.tolist() == [0, 10, 20, 30, 40]
        assert (robust <= history["test_accuracy"][np.isin(history["iteration"], at)]).all()
        assert (history["certified_accuracy"] <= robust).all()
    with np.load(folder / "history.npz") as held:
        assert np.array_equal(held["adversarial/B"], run.histories["adversarial"]["B"])
    with pytest.raises(ValueError, match=r"\['adversarial', 'standard'\]"):
        _ = run.net


def test_the_report_is_one_self_contained_file(folder):
    page = (folder / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    for text in ("robust accuracy, worst of all attacks", "What varies", "class 2", "ascent_lr", "numba"):
        assert text in page
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page)


def test_the_same_command_again_changes_nothing(folder, capsys):
    kept = {p: p.read_bytes() for p in folder.rglob("*.npz")}
    assert main(["reproduce", "--out", str(folder), *TINY]) == 0
    assert {p: p.read_bytes() for p in folder.rglob("*.npz")} == kept
    assert "Report:" in capsys.readouterr().out


def test_another_configuration_is_refused_and_nothing_lost(folder, capsys):
    kept = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert main(["reproduce", "--out", str(folder), *TINY, "alpha=2.5"]) == 2
    assert "alpha was 3.0 and is 2.5" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == kept


LONG = ["--seeds", "2", "--set", *SMALL, "n_iter=3000", "n_records=40"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert main(["reproduce", *LONG, "--out", str(out)]) == 0
    return advfeat.load(out)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_stopped_run_continues_to_the_same_bits(sign, undisturbed, tmp_path):
    command = [sys.executable, "-m", "advfeat", "reproduce", *LONG]
    stopped = subprocess.Popen([*command, "--out", str(tmp_path / "a")], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "a").glob("adversarial/checkpoint.npz")):
        assert stopped.poll() is None
        time.sleep(0.01)
    stopped.send_signal(sign)
    _, message = stopped.communicate(timeout=60)
    assert not (tmp_path / "a" / "history.npz").exists(), "the run was over before it was stopped"
    if sign == signal.SIGINT:
        assert stopped.returncode == 130
        assert "the same command continues" in message
    assert main(["reproduce", *LONG, "--out", str(tmp_path / "a")]) == 0
    run = advfeat.load(tmp_path / "a")
    for name in ("standard", "adversarial"):
        assert np.array_equal(run.nets[name].W, undisturbed.nets[name].W)
        for key, value in run.histories[name].items():
            assert np.array_equal(value, undisturbed.histories[name][key], equal_nan=True), key


def test_data_prints_the_window_and_draws_figure_2(tmp_path, capsys):
    assert main(["data", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "(0.4987, 0.6)" in text
    assert "0.4286" in text  # c = 27/63
    assert (tmp_path / "figure2.png").stat().st_size > 10_000
    assert (tmp_path / "figure2.pdf").exists()


WINDOWS = {
    "l2": (["norm=l2"], ("none  ", "it is one of l_inf balls, and norm = 'l2'", "no window")),
    "large A": (["rho=0.1"], ("none  ", "> rho = 0.1, the robust feature leaves", "(P + P_R) = 0.3333", "no window")),
    "any A": (["rho=0.1", "n_robust=3"], ("(0.4609, 0.8182)  A (", "> rho = 0.1: what is left at any A", "inside")),
    "unknown": (["batch_size=3"], ("as long as A (alpha - eps_lo) <= rho; A is not known",)),
    "empty": (["alpha=1"], ("none  ", "it is empty, eps_lo = 0.4889 >= eps_hi = 0.333", "no window")),
}


@pytest.mark.parametrize(("pairs", "parts"), WINDOWS.values(), ids=WINDOWS)
def test_data_says_which_premise_of_the_window_fails(pairs, parts, tmp_path, capsys):
    assert main(["data", "--out", str(tmp_path), "--set", *SMALL, "init_std=0.5", "lr=0.1", *pairs]) == 0
    text = capsys.readouterr().out
    for part in parts:
        assert part in text, text


def test_data_compares_a_stated_part_of_many_samples(tmp_path, capsys):
    few = ["n_classes=2", "n_neurons=2", "patch_dim=4", "n_patches=2", "n_train=4", "n_iter=2", "n_records=1"]
    assert main(["data", "--out", str(tmp_path), "--set", *few, "n_test=2001"]) == 0
    assert "(Sec. 2.5), the first 2,000 of 2,001 samples" in capsys.readouterr().out
    assert main(["data", "--out", str(tmp_path), "--set", *few, "n_test=20"]) == 0
    assert "(Sec. 2.5)  " in capsys.readouterr().out


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


def test_evaluate_reads_a_run(folder, capsys):
    assert main(["evaluate", str(folder), "--eps", "0"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("standard", "adv"))]
    assert len(lines) == 4
    for line in lines:
        assert line[2] == line[3] == line[4]  # at eps = 0 accuracy, robust and certified accuracy are one


def test_info_names_engines_and_versions(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for part in ("numba engine", "cupy engine", "threads", "numpy", advfeat.__version__):
        assert part in text


PLANS = {
    "numba": ([], ("Plan for 2 seeds:", "passes", "1 over d = 12, 1 over K = 12 neurons", "in step")),
    "few runs": (["n_neurons=90"], ("over K = 270 neurons",)),
    "noise": (["noise_std=1"], ("repeated patches  none or few",)),
    "noiseless": (["noise_std=0", "n_patches=50"], ("repeated patches  kept once, 2 per sample at most",)),
    "numpy": (["backend=numpy"], ("choice    numpy", "matmul and einsum")),
}


@pytest.mark.parametrize(("pairs", "parts"), PLANS.values(), ids=PLANS)
def test_info_plans_a_configuration(pairs, parts, capsys, set_threads):
    set_threads(3)
    assert main(["info", "--plan", *TINY, *pairs]) == 0
    text = capsys.readouterr().out
    for part in parts:
        assert part in text


def test_warmup_compiles_every_part(tmp_path, monkeypatch, capsys):
    """In processes of their own, which import what they call: here os.mkdir in place of the compilation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cpu_engine, "warm_up", os.mkdir)
    assert main(["warmup"]) == 0
    assert "ready after" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == set(cpu_engine.WARM_UPS)


def test_toml_and_pairs(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("alpha = 4.0\nq = 4\n")
    config = Figure3Config.build(file, ["q=5", "balanced=false", "objective=margin", "batch_size=none"], n_seeds=3)
    assert (config.alpha, config.q, config.balanced, config.objective, config.n_seeds) == (4.0, 5, False, "margin", 3)
    assert config.batch_size is None


BAD = {
    "unknown key": (["reproduce", "--set", "alhpa=2"], "alhpa: unknown configuration key; did you mean 'alpha'?"),
    "no value": (["reproduce", "--set", "alpha"], "'alpha': must be key=value"),
    "text": (["reproduce", "--set", "alpha=big"], "alpha = 'big': must be a number"),
    "negative": (["reproduce", "--set", "beta=-1"], "beta = -1.0: must be a number, finite and > 0"),
    "dimension": (["data", "--set", "patch_dim=9"], "patch_dim = 9: must be >= 2 n_classes = 10"),
    "records": (["reproduce", "--set", "n_iter=7"], "n_iter = 7: must be a multiple of n_records = 20"),
    "no file": (["reproduce", "--config", "nowhere.toml"], "nowhere.toml: there is no such file"),
    "no weights": (["evaluate", "--weights", "nowhere.npz"], "nowhere.npz: there is no such file"),
    "no run": (["evaluate", "nowhere"], "nowhere: not a run folder"),
    "nothing": (["evaluate"], "give either a run folder or --weights"),
    "seeds": (["reproduce", "--seeds", "0"], "n_seeds = 0: must be an integer >= 1"),
    "folder": (["reproduce", "--out", str(ROOT / "LICENSE" / "x")], "LICENSE/x: cannot be used as an output folder"),
    "foreign": (["reproduce", "--out", str(ROOT / "kernels")], "not empty and no run folder"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_a_clear_error_before_any_work(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_wrong_weights_are_named(tmp_path, capsys):
    for arrays, message in (
        ({"V": np.zeros(3)}, "holds ['V'], but no array 'W'"),
        ({"W": np.zeros((5, 20, 99))}, "weights have shape (5, 20, 99): must be (5, 20, 100) or (4, 5, 20, 100)"),
        ({"W": np.full((5, 20, 100), np.nan)}, "W holds NaN"),
        ({"W": np.ones((5, 20, 100), complex)}, "W has dtype complex128: must be float32 or float64"),
        ({"W": np.ones((5, 20, 100), int)}, "W has dtype int64: must be float32 or float64"),
        ({"W": np.full((5, 20, 100), 1e60)}, "W holds 1e+60: every entry must be at most 3.4e+38 in magnitude in flo"),
        ({"W": np.ones((5, 20, 100)), "q": 2.5}, "w.npz: q = 2.5: must be an integer >= 2"),
        ({"W": np.ones((5, 20, 100)), "rho": [1.0, 2.0]}, "w.npz: rho has shape (2,): must be one number"),
    ):
        np.savez(tmp_path / "w.npz", **arrays)
        assert main(["evaluate", "--weights", str(tmp_path / "w.npz")]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "w.npz").write_bytes(b"PK\x03\x04 truncated")
    assert main(["evaluate", "--weights", str(tmp_path / "w.npz")]) == 2
    assert "truncated or not an .npz file" in capsys.readouterr().err
    assert not os.path.exists("advfeat-runs")

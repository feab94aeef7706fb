"""`advfeat reproduce`: what it leaves, continues and refuses."""

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cli_runs import ROOT, SMALL, TINY, content

import advfeat
from advfeat.cli import common, main
from advfeat.core import store
from advfeat.experiments import figure3 as experiment
from advfeat.experiments.configuration import Figure3Config
from advfeat.reporting import figures


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


# ------------------------------------------------------------------ one folder, one run
def test_force_trains_another_run_in_the_folder_and_removes_only_its_own_files(copy, tmp_path, capsys):
    (copy / "notes.txt").write_text("mine")
    (copy / "standard" / "notes.txt").write_text("mine")
    other = [*TINY, "alpha=2.5"]
    assert main(["reproduce", "--out", str(copy), *other]) == 2
    assert main(["reproduce", "--out", str(copy), *other, "--force"]) == 0
    assert main(["reproduce", "--out", str(tmp_path / "new"), *other]) == 0
    assert (copy / "notes.txt").read_text() == (copy / "standard" / "notes.txt").read_text() == "mine"
    for name in ("history.npz", "figure3.png", "standard/records.bin", "adversarial/checkpoint.npz"):
        assert (copy / name).read_bytes() == (tmp_path / "new" / name).read_bytes()
    assert advfeat.load(copy).config["alpha"] == 2.5


def test_force_trains_a_finished_run_anew(copy, monkeypatch):
    kept, seen = (copy / "history.npz").read_bytes(), []
    run = experiment.train
    monkeypatch.setattr(experiment, "train", lambda *a, **b: seen.append(set(copy.rglob("*.*"))) or run(*a, **b))
    assert main(["reproduce", "--out", str(copy), *TINY, "--force"]) == 0
    assert seen[0] == {copy / "config.json", copy / ".lock"}
    assert (copy / "history.npz").read_bytes() == kept


REFUSED = {
    "weights": (["--weights", "W.npz"], "weights have shape (3, 4, 13)"),
    "value": (["--set", "alpha=-1"], "alpha = -1: must be"),
    "batch": (["--set", "batch_size=10000"], "batch_size = 10000"),
    "memory": (["--seeds", "1000000000"], "GB are free: give fewer seeds, samples, patches or neurons"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("force", [[], ["--force"]], ids=["plain", "force"])
def test_what_is_refused_changes_nothing(options, message, force, copy, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("W.npz", W=np.zeros((3, 4, 13)))
    before = content(copy)
    for out in (copy, tmp_path / "new"):
        assert main(["reproduce", "--out", str(out), *TINY, *options, *force]) == 2
        assert message in capsys.readouterr().err
    assert content(copy) == before
    assert not (tmp_path / "new").exists()


def test_force_does_not_take_a_folder_that_is_no_run_s(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["reproduce", "--out", str(tmp_path), *TINY, "--force"]) == 2
    assert "not empty and no run folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_memory_is_said_before_the_work(tmp_path, capsys, monkeypatch):
    said = []
    monkeypatch.setattr(experiment, "train", lambda *_, **__: said.append(capsys.readouterr().out) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["reproduce", "--out", str(tmp_path / "run"), *TINY])
    assert re.fullmatch(r"Memory: about [0-9,]+ MB of [0-9,]+ MB that are free\n", said[0])


@pytest.mark.parametrize("command", ["reproduce", "robustness", "evaluate"])
def test_one_process_writes_in_a_folder_at_a_time(command, copy, capsys):
    holder = "import sys; from advfeat.core.lock import Lock\nwith Lock(sys.argv[1]):\n  print(flush=True); input()"
    place = copy if command == "reproduce" else copy / command
    place.mkdir(exist_ok=True)
    other = subprocess.Popen([sys.executable, "-c", holder, str(place)], cwd=ROOT, text=True, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)  # fmt: skip
    other.stdout.readline()
    before = content(copy)
    try:
        arguments = ["--out", str(copy), *TINY] if command == "reproduce" else [str(copy)]
        assert main([command, *arguments]) == 2
    finally:
        other.communicate("\n")
    assert f"{place}: another process is writing here" in capsys.readouterr().err
    assert content(copy).items() >= {k: v for k, v in before.items() if k.name != ".lock"}.items()


def test_figures_are_drawn_under_the_lock(copy, monkeypatch):
    seen, write, lock = [], store.write, copy / ".lock"
    monkeypatch.setattr(store, "write", lambda *arguments: seen.append(lock.exists()) or write(*arguments))
    assert main(["reproduce", "--out", str(copy), *TINY, "--quiet"]) == 0
    assert len(seen) >= 3
    assert all(seen)


# ------------------------------------------------------------------ Ctrl-C
def test_ctrl_c_while_drawing_says_how_to_continue(copy, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(figures, "figure3", stop)
    assert main(["reproduce", "--out", str(copy), *TINY]) == 130
    error = capsys.readouterr().err
    assert error == f"advfeat reproduce: stopped; the same command continues from {copy}\n"


def test_ctrl_c_is_said_once_bars_are_closed(tmp_path, capsys, monkeypatch):
    class Bar:
        n = 0

        def set_description_str(self, what, refresh):
            raise KeyboardInterrupt

        def close(self):
            print("closed", file=sys.stderr)

    monkeypatch.setattr(common, "bar", lambda *_, **__: Bar())
    assert main(["reproduce", "--out", str(tmp_path / "run"), *TINY]) == 130
    assert re.fullmatch(r"closed\nadvfeat reproduce: stopped.*\n", capsys.readouterr().err)


def test_divergence_is_one_line_and_status_1(tmp_path, capsys):
    assert main(["reproduce", "--out", str(tmp_path / "run"), *TINY, "lr=3e38", "alpha=1e10"]) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(r"advfeat reproduce: training diverged at .*; .*Try a smaller lr\.\n", error)


def test_json_has_the_numbers_of_every_seed(folder, capsys):
    assert main(["reproduce", "--out", str(folder), *TINY, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["folder"], found["seeds"]) == (str(folder), [0, 1])
    for name, history in advfeat.load(folder).histories.items():
        numbers = found["trainings"][name]
        assert numbers["robust"] == history["robust_accuracy"][-1].tolist()
        assert np.shape(numbers["class_robust"]) == (2, 3)
        assert np.shape(numbers["deviation"]["last"]) == (2,)

"""The loop around commands: errors, streams, Ctrl-C, --json and --quiet."""

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cli_runs import ROOT, SMALL, TINY, shell

from advfeat.cli import common, main
from advfeat.experiments.configuration import Figure3Config


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
    "negative": (["reproduce", "--set", "beta=-1"], "beta = -1: must be a number, finite and > 0"),
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


def test_wrong_weights_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a checkout may hold runs of its own
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


# ------------------------------------------------------------------ streams
def test_help_is_quick():
    """It loads no library of figures, tables or processes, and no sweep; nor does `advfeat info`, which names Numba."""
    heavy = ("matplotlib", "pyarrow", "joblib", "advfeat.sweeps", "advfeat.validation.run")
    code = "import sys; from advfeat.cli import main; main([sys.argv[1]]); assert not set({}) & set(sys.modules)"
    for argument, loaded in (("--help", (*heavy, "numba", "scipy")), ("info", heavy)):
        done = run_python(code.format(loaded), argument)
        assert done.returncode == 0, done.stderr
    assert "reproduce" in run_python(code, "--help").stdout


def run_python(code, *arguments, **options):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, **options)  # fmt: skip


@pytest.mark.one_in(4)
@pytest.mark.parametrize("closed", ["2>&-", "0<&- 2>&-", ">&-", "0<&- >&- 2>&-"])
def test_closed_streams_change_nothing(closed, tmp_path):
    command = f"advfeat reproduce {' '.join(TINY)} --out "
    plain = shell(command + str(tmp_path / "a"))
    assert plain.returncode == 0, plain.stderr
    done = shell(f"{command}{tmp_path / 'b'} {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    assert ("Report:" in done.stdout) == (">&-" not in closed.replace("2>&-", ""))
    for name in ("figure3.png", "history.npz"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()
    done = shell("advfeat evaluate nowhere 2>&-")
    assert (done.returncode, done.stdout) == (2, "")  # the message is for stderr


def test_a_closed_descriptor_is_not_the_next_file_s(tmp_path):
    code = (
        "import os, sys; from advfeat.cli import main; main(['config', '--quiet']); file = open(sys.argv[1], 'w'); "
        "print(file.fileno(), all(os.path.samestat(os.fstat(n), os.stat(os.devnull)) for n in (0, 2)))"
    )
    done = subprocess.run(["bash", "-c", f'"{sys.executable}" -c "{code}" {tmp_path}/file 0<&- 2>&-'], text=True,
                          capture_output=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    number, fine = done.stdout.split()
    assert int(number) > 2
    assert fine == "True"


@pytest.mark.parametrize("arguments", [["config"], ["--help"], ["data", "--help"], ["info", "--json"]], ids=str)
def test_a_reader_that_went_away_is_no_error(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "advfeat", *arguments], stdout=writer, stderr=subprocess.PIPE,
                          text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 141 or "--help" in arguments  # argparse may not notice


def test_head_takes_one_line():
    done = shell("advfeat config | head -1")
    assert done.stdout.split() == ["key", "value", "default", "unit", "meaning"]
    assert done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux")
def test_a_full_disk_behind_stdout_is_one_line():
    done = shell("advfeat config > /dev/full")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["advfeat config: [Errno 28] No space left on device"]


# ------------------------------------------------------------------ how commands end
ENDS = {
    "memory": (MemoryError(), 2, "advfeat data: there is not enough memory"),
    "no words": (ValueError(), 2, "advfeat data: ValueError"),
    "lines": (ValueError("one\ntwo"), 2, "advfeat data: one two"),
    "system": (OSError(28, "No space left on device"), 2, "advfeat data: [Errno 28] No space left on device"),
    "Ctrl-C": (KeyboardInterrupt(), 130, "advfeat data: stopped"),
}


@pytest.mark.parametrize(("error", "status", "line"), ENDS.values(), ids=ENDS)
def test_every_end_is_one_line_and_a_status(error, status, line, capsys, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Figure3Config, "build", fail)
    assert main(["data"]) == status
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", line + "\n")


COMMANDS = {
    "reproduce": ["reproduce", "--out", "RUN", *TINY],
    "data": ["data", "--set", *SMALL],
    "evaluate": ["evaluate", "RUN"],
    "robustness": ["robustness", "RUN", "--eps-grid", "0.2", "--samples", "2", "--max-nodes", "4", "--rtol", "0.2"],
    "validate": ["validate", "--quick", "--only", "D.4"],
    "info": ["info"],
    "plan": ["info", "--plan", *TINY],
    "config": ["config", *TINY],
    "list": ["list", "."],
    "examples": ["examples"],
    "show": ["show", "RUN"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_one_document_and_quiet_is_silent(command, copy, capsys, monkeypatch):
    monkeypatch.chdir(copy.parent)
    arguments = [str(copy) if a == "RUN" else a for a in COMMANDS[command]]
    assert main([arguments[0], "--json", *arguments[1:]]) == 0 or command == "validate"  # others are missing there
    said = capsys.readouterr()
    assert isinstance(json.loads(said.out, parse_constant=pytest.fail), dict)
    assert said.err == ""
    assert main([arguments[0], "--quiet", *arguments[1:]]) == 0 or command == "validate"
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")
    assert main([arguments[0], *arguments[1:]]) == 0 or command == "validate"
    assert len(capsys.readouterr().out.splitlines()) > 1


def test_quiet_and_json_exclude_each_other_and_errors_are_said(capsys):
    assert main(["info", "--json", "--quiet"]) == 2
    assert "not allowed with argument" in capsys.readouterr().err
    assert main(["evaluate", "nowhere", "--quiet"]) == 2
    assert "nowhere: not a run folder" in capsys.readouterr().err


WAITED_FOR = """
import sys, threading, time
from advfeat.cli import entry
threading.Thread(target=time.sleep, args=(30,)).start()
sys.argv[1:] = ["config"]
sys.exit(entry())
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGINT")
def test_ctrl_c_on_the_way_out_is_quiet():
    """A thread that Python waits for at its end, as joblib's, keeps the process for a second Ctrl-C."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", WAITED_FOR], env=environment, **pipes)
    assert process.stdout.readline()  # which comes when the command is done
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1] == ""
    assert process.returncode == -signal.SIGINT


# ------------------------------------------------------------------ the bar
class _Terminal(io.StringIO):
    def isatty(self):
        return True


def terminal(monkeypatch):
    """stderr as a terminal; within a test alone, since pytest's capture takes stderr back in between."""
    monkeypatch.setattr(sys, "stderr", _Terminal())
    return sys.stderr


def test_the_bar_estimates_from_all_that_was_done_since_it_began(monkeypatch):
    """A continued run begins at the share that was there; what falls begins the next stage; one line at a time."""
    now, shown = [0.0], terminal(monkeypatch)
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with common.Bar(argparse.Namespace(quiet=False)) as bar:
        for at, what, share in ((0, "first", 0.5), (10, "first", 0.6), (20, "on", 0.75), (20, "second", 0.0),
                                (60, "second", 0.4)):  # fmt: skip
            now[0] = at
            bar(what, share)
    lines = [line.strip() for line in re.split(r"[\r\n]", shown.getvalue()) if line.strip()]
    assert any(line.startswith("first") and "60%" in line and "00:10, 00:40 left" in line for line in lines)
    assert any(line.startswith("on ") and "75%" in line and "00:20, 00:20 left" in line for line in lines)
    assert any(line.startswith("second") and "40%" in line and "00:40, 01:00 left" in line for line in lines)
    assert "\n" not in shown.getvalue()  # no line stays


def test_a_quiet_command_has_no_bar(monkeypatch):
    shown = terminal(monkeypatch)
    with common.Bar(argparse.Namespace(quiet=True)) as bar:
        bar("anything", 0.5)
    assert shown.getvalue() == ""

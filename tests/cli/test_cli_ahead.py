"""A second process compiles what a command needs later: only where something is missing, and no longer than the
command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from advfeat.kernels.cpu import engine
from cli_runs import ROOT, TINY

from advfeat.cli import ahead, main

PARTS = ("train:float32:2", "search", "recursion")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(ahead, "usable_cores", lambda: 2)
    return tmp_path / "cache"


@pytest.fixture
def started(monkeypatch):
    """The parts of every process that is started; none is."""
    asked = []
    monkeypatch.setattr(ahead, "_start", lambda parts: asked.append(parts))
    return asked


def test_only_what_is_missing_is_compiled(cache, started):
    with ahead.compiled_ahead(*PARTS):
        assert started == [list(PARTS)]
    ahead.mark(["search", "float32"])  # all of float32's kernels, its training among them
    with ahead.compiled_ahead(*PARTS):
        assert started[1:] == [["recursion"]]
    ahead.mark(["recursion"])
    with ahead.compiled_ahead(*PARTS):
        assert len(started) == 2
    with ahead.compiled_ahead("train:float64:2"):
        assert started[2:] == [["train:float64:2"]]


def test_what_kernels_depend_on_makes_them_missing_again(cache, started, monkeypatch):
    ahead.mark(PARTS)
    assert ahead._missing(PARTS) == []
    for name, value in (("ADVFEAT_VECTOR_BITS", "128"), ("NUMBA_CPU_FEATURES", "+avx"), ("NUMBA_NUM_THREADS", "77")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert ahead._missing(PARTS) == list(PARTS)
    monkeypatch.setattr(ahead, "_cpu", lambda: "another")
    assert ahead._missing(PARTS) == list(PARTS)


def test_there_is_no_second_process_without_a_second_core_or_a_folder(cache, started, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ahead, "usable_cores", lambda: 1)
        assert ahead._missing(PARTS) == []
    assert ahead._missing(PARTS) == list(PARTS)
    cache.rmdir()
    cache.write_text("no folder")
    assert ahead._missing(PARTS) == []


def test_reproduce_alone_asks_for_it_and_only_with_its_engine(cache, started, tmp_path):
    assert main(["reproduce", *TINY, "--quiet", "--out", str(tmp_path / "a")]) == 0
    assert len(started) == 1
    assert [part.split(":")[0] for part in started[0]] == ["train", "search", "recursion"]
    assert main(["reproduce", *TINY, "--backend", "numpy", "--quiet", "--out", str(tmp_path / "b")]) == 0
    assert len(started) == 1


def test_a_part_is_marked_when_it_is_compiled_and_not_before(cache, monkeypatch):
    cache.mkdir()
    done = []

    def warm_up(part):
        assert ahead._missing([part]) == [part]
        if part == "recursion":
            raise OSError("full")
        done.append(part)

    monkeypatch.setattr(engine, "warm_up", warm_up)
    monkeypatch.setattr(ahead, "end_with", lambda parent: done.append(parent))
    assert main(["warmup", "--quiet", "--while", "7", "--only", *PARTS]) == 2
    assert done == [7, *PARTS[:2]]
    assert ahead._missing(PARTS) == ["recursion"]
    assert main(["warmup", "--quiet", "--only", "everything"]) == 2


COMMAND = """
import sys, time
from advfeat.cli import ahead
ahead.usable_cores = lambda: 2
started, begin = [], ahead._start
ahead._start = lambda parts: started.append(begin(parts)) or started[0]
with ahead.compiled_ahead("search", "float64", "float32"):
    print(started[0].pid, flush=True)
    sys.stdin.readline()
print(started[0].poll() is not None, flush=True)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes as Linux shows them")
@pytest.mark.parametrize("how", ["ends", signal.SIGKILL, signal.SIGINT])
def test_the_second_process_ends_with_the_command(how, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = subprocess.Popen([sys.executable, "-c", COMMAND], env=environment, cwd=tmp_path, text=True, **pipes)
    about = Path("/proc", command.stdout.readline().strip())
    while not list((tmp_path / "cache").rglob("*.lock")):  # it compiles
        time.sleep(0.05)
    assert "warmup" in (about / "cmdline").read_text()
    if how == "ends":
        assert command.communicate("\n", timeout=60)[0] == "True\n"
    else:
        command.send_signal(how)
        command.communicate(timeout=60)
    while about.is_dir() and " Z " not in (about / "stat").read_text():  # the runner's timeout ends what hangs
        time.sleep(0.05)

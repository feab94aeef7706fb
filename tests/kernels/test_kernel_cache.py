"""Compiled kernels on disk: found again, never stale, mixed up or half written."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import advfeat.kernels
import numba
import pytest
from advfeat.kernels import jit

ROOT = Path(advfeat.__file__).resolve().parent.parent
KERNELS = Path(advfeat.kernels.__file__).resolve().parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))  # read anew when it changed
    return tmp_path / "cache"


def third():
    """One kernel, as a new process has it."""

    def third(x):
        return x / 3

    return jit.jit(third)


def hits(number=1.0):
    """How often a new process finds the kernel that it needs."""
    kernel = third()
    assert kernel(number) == number / 3
    return sum(kernel.stats.cache_hits.values())


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def load(path):
    """A source file as a module of its own, beside the kernels."""
    spec = importlib.util.spec_from_file_location("advfeat.kernels.a_module_of_its_own", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_compiled_kernel_is_found_again(folder):
    assert [hits(), hits(), hits()] == [0, 1, 1]
    assert [path.suffix for path in files(folder)] == [".kernel"]


def test_kernels_for_two_types_are_two_files(folder):
    assert [hits(1.0), hits(1), hits(1.0), hits(1)] == [0, 0, 1, 1]
    assert len(files(folder)) == 2


@pytest.mark.parametrize("damage", ["empty", "truncated", "first byte", "last byte", "foreign"])
def test_a_damaged_file_is_compiled_anew_and_replaced(damage, folder):
    hits()
    (file,) = files(folder)
    whole = bytearray(file.read_bytes())
    if damage in ("first byte", "last byte"):
        whole[0 if damage == "first byte" else -1] ^= 1
    file.write_bytes({"empty": b"", "truncated": whole[:-100], "foreign": b"hello" * 100}.get(damage, whole))
    assert [hits(), hits()] == [0, 1]
    assert files(folder) == [file]


def test_kernels_of_another_stamp_are_not_used(folder, monkeypatch):
    hits()
    with monkeypatch.context() as patch:
        patch.setattr(jit, "_STAMP", "edited")
        assert [hits(), hits()] == [0, 1]
    assert hits() == 1


@pytest.mark.parametrize("name", sorted(str(path.relative_to(KERNELS)) for path in KERNELS.rglob("*.py")))
def test_an_edit_of_any_source_changes_the_stamp(name, tmp_path):
    copy = shutil.copytree(KERNELS, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    stamps = []
    for text in ("", "# edited\n"):
        with open(copy / name, "a") as file:
            file.write(text)
        stamps.append(load(copy / "jit.py")._STAMP)
    assert stamps[0] == jit._STAMP
    assert stamps[0] != stamps[1]


def test_a_folder_that_is_gone_costs_only_the_cache(folder):
    kernel = third()
    shutil.rmtree(folder)
    folder.write_text("no folder")
    assert kernel(1.0) == 1 / 3


def test_a_folder_that_cannot_be_made_costs_only_the_cache(folder, tmp_path, monkeypatch):
    """No other folder is taken in its place, least of all the source's own."""
    folder.write_text("no folder")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(folder / "below"))
    (tmp_path / "own.py").write_text("from advfeat.kernels.jit import jit\n@jit\ndef third(x):\n    return x / 3\n")
    assert load(tmp_path / "own.py").third(1.0) == 1 / 3
    assert not list(tmp_path.rglob("*.kernel"))


def test_a_file_that_cannot_be_renamed_leaves_nothing(folder, monkeypatch):
    def full(*paths):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert hits() == 0
    assert files(folder) == []


MODULE = """
import sys
import numpy as np
from advfeat.kernels.jit import jit

@jit
def cumulate(x, out):
    total = x[0] - x[0]
    for i in range(len(x)):
        total += x[i]
        out[i] = total

if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    for dtype in sys.argv[1:]:
        out = np.empty(99, dtype)
        cumulate(np.arange(99, dtype=dtype), out)
        assert np.array_equal(out, np.cumsum(np.arange(99)))
    print(sum(cumulate.stats.cache_hits.values()))
"""


def test_processes_that_compile_for_two_dtypes_at_once_do_not_mix_them_up(tmp_path):
    (tmp_path / "cumulate.py").write_text(MODULE)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "cumulate.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}

    def together(*calls):
        processes = [subprocess.Popen([*command, *dtypes], **pipes) for dtypes in calls]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        found = [int(process.communicate(timeout=60)[0]) for process in processes]
        assert [process.returncode for process in processes] == [0] * len(calls)
        return found

    assert together(["float32"], ["float64"]) == [0, 0]
    assert together(["float32", "float64"], ["float64", "float32"]) == [2, 2]
    assert len(files(tmp_path / "cache")) == 2
    assert sorted(together(["int64"], ["int64"], ["int64"])) == [0, 1, 1]  # one compiles, the others wait for it
    assert len(files(tmp_path / "cache")) == 3


HOLDER = """
import sys
from pathlib import Path
from advfeat.kernels import jit
jit._turn = jit._wait_for(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(jit.fcntl is None, reason="files are not locked here")
def test_who_is_killed_while_it_compiles_leaves_the_kernel_to_others(tmp_path):
    path = tmp_path / "below" / "a.lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    first = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes)
    assert first.stdout.readline() == "held\n"
    with open(path, "a") as file, pytest.raises(OSError, match="temporarily unavailable"):
        jit.fcntl.lockf(file, jit.fcntl.LOCK_EX | jit.fcntl.LOCK_NB)
    first.kill()
    first.communicate(timeout=60)
    held = jit._wait_for(path)
    assert held.name == str(path)
    assert jit._let_go(held) is None
    assert not path.exists()


def test_a_compilation_that_fails_leaves_no_lock(folder):
    def worse(x):
        return x.no_such_thing

    kernel = jit.jit(worse)
    for _ in range(2):
        with pytest.raises(numba.TypingError):
            kernel(1.0)
    assert hits() == 0  # another kernel, which waits for nobody
    del kernel
    held = [path for path in files(folder) if path.suffix == ".lock"]
    assert len(held) <= 1  # of the failed one, which its next compilation or its process's end lets go


WARM = """
import sys
import numpy as np
from advfeat.kernels.cpu import engine, kernels

def compiled():
    return {name: len(kernel.signatures) for name, kernel in vars(kernels).items() if hasattr(kernel, "signatures")}

engine.warm_up("float32")
warm = compiled()
sys.path[:0] = sys.argv[1:3]
from test_engines import CALLS, Case, get_engine
for sharing in ("all per run", "shared samples", "some of the shared active"):
    for call in CALLS:
        if not (call[0] in ("train", "loss_and_grad") and "active" in sharing):
            Case("several chunks", sharing, "float32").call(get_engine("numba"), *call)
assert min(warm[name] for name in ("train", "train_together", "pgd", "aligned")) == 1, warm
assert compiled() == warm, (warm, compiled())
"""


@pytest.mark.slow
def test_warming_up_leaves_nothing_to_compile():
    """Every method, with shared samples and without; the kernels are those that the other tests use."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_NUM_THREADS": "2"}
    command = [sys.executable, "-c", WARM, *(str(folder) for folder in Path(__file__).parents[:2])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]

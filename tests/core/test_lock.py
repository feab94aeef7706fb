"""A folder's lock: one process and one thread in it, free however its holder ends, nothing left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

from advfeat.core import lock, store
from advfeat.core.lock import Lock

TAKEN = "another process is writing here"


def process(text, *arguments):
    """Python in a process of its own, with pipes."""
    head = "import os, sys, time\nfrom pathlib import Path\nfrom advfeat.core import store\n"
    head += "from advfeat.core.lock import Lock\nfolder = Path(sys.argv[1])\n"
    command = [sys.executable, "-c", head + text, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


HOLD = "with Lock(folder):\n    print('held', flush=True)\n    sys.stdin.read()\n"


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    held = process(HOLD, tmp_path)
    assert held.stdout.readline() == "held\n"
    yield held
    held.kill()
    held.communicate()


def refused(lock):
    lock = lock if isinstance(lock, Lock) else Lock(lock)
    with pytest.raises(store.CheckpointError) as caught, lock:
        pass
    assert str(caught.value) == f"{lock.folder}: {TAKEN}"
    return True


def taken(folder):
    with Lock(folder):
        return True


def test_two_processes(tmp_path, holder):
    assert refused(tmp_path)
    assert (tmp_path / ".lock").exists()
    holder.communicate("")
    assert list(tmp_path.iterdir()) == []
    with Lock(tmp_path):
        other = process("try:\n    Lock(folder).__enter__()\nexcept store.CheckpointError as e: print(e)", tmp_path)
        assert other.communicate()[0] == f"{tmp_path}: {TAKEN}\n"


def test_a_holder_that_is_killed(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".lock").exists()
    with Lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def in_thread(call):
    """What `call` returns in a thread of its own."""
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found


def test_two_threads(tmp_path):
    with Lock(tmp_path) as shared:
        assert in_thread(lambda: refused(tmp_path)) == [True]
        assert in_thread(lambda: refused(shared)) == [True]
        other = process("try:\n    Lock(folder).__enter__()\nexcept store.CheckpointError as e: print(e)", tmp_path)
        assert TAKEN in other.communicate()[0]  # what the thread tried has not freed it
    assert in_thread(lambda: taken(tmp_path)) == [True]


def test_nested(tmp_path):
    """Under whatever name, and by one object or several: free with the last."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    one = Lock(tmp_path / "folder")
    with one, Lock(tmp_path / "link"), one:
        with Lock(tmp_path / "folder" / ".." / "folder"):
            pass
        assert in_thread(lambda: refused(tmp_path / "link")) == [True]
        assert (tmp_path / "folder" / ".lock").exists()
    assert list((tmp_path / "folder").iterdir()) == []
    assert not lock._holders


def test_an_error_frees_it(tmp_path):
    with pytest.raises(RuntimeError), Lock(tmp_path), Lock(tmp_path):
        raise RuntimeError
    assert in_thread(lambda: taken(tmp_path)) == [True]


@pytest.mark.parametrize("error", [KeyboardInterrupt, PermissionError])
def test_an_error_while_it_is_taken_frees_it(error, tmp_path, monkeypatch):
    def fail(folder):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(store, "remove_temporaries", fail)
        with pytest.raises(error), Lock(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []
    with Lock(tmp_path):
        pass


def test_folders_that_cannot_be_locked(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="none: there is no such folder"), Lock(tmp_path / "none"):
        pass

    def full(file):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock, "_exclude", full)
    with pytest.raises(OSError, match=r"cannot be locked \(No locks available\).*\.lock"), Lock(tmp_path):
        pass
    assert not lock._holders


def test_a_folder_that_is_removed_and_made_again_under_a_lock(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with Lock(folder):
        (folder / ".lock").unlink()
        (folder / ".lock").write_text("of somebody else")
    assert (folder / ".lock").read_text() == "of somebody else"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
def test_a_forked_child_holds_nothing_and_frees_nothing(tmp_path):
    """It neither believes that it may write nor, when it leaves the block, removes the file of its parent."""
    with Lock(tmp_path) as held:
        child = os.fork()
        if not child:
            code = 1
            try:
                code = 0 if refused(tmp_path) else 1
                held.__exit__()
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert (tmp_path / ".lock").exists()
        other = process("try:\n    Lock(folder).__enter__()\nexcept store.CheckpointError as e: print(e)", tmp_path)
        assert TAKEN in other.communicate()[0]
    assert list(tmp_path.iterdir()) == []


def test_what_killed_writers_left_is_removed(tmp_path):
    """Names as `store.write` makes them, and made them in version 0.1.0, in this folder alone."""
    left = [".config.json.0123456789ab", ".figure3.png.a1b2c3_z", ".ours.00ff00ff00ff", ".history.npz.abcdefgh"]
    kept = [".gitignore", ".config.json", "config.json", ".notes.settings", ".x.0123456789AB", "a.0123456789ab"]
    for name in left + kept:
        (tmp_path / name).write_text("")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / left[0]).write_text("")
    with Lock(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "inner", ".lock"])
    assert (tmp_path / "inner" / left[0]).exists()


def test_a_writer_that_is_killed_while_it_saves(tmp_path):
    text = "def body(file):\n    file.write(b'half'); file.flush(); print('half', flush=True); time.sleep(600)\n"
    writer = process(text + "with Lock(folder): store.write(folder / 'figure3.png', body)", tmp_path)
    assert writer.stdout.readline() == "half\n"
    writer.kill()
    writer.communicate()
    assert len(list(tmp_path.glob(".figure3.png.*"))) == 1
    with Lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


COUNT = """
for _ in range(int(sys.argv[2])):
    while True:
        try:
            with Lock(folder):
                n = int((folder / "count").read_text())
                if n % 3 == 0:
                    time.sleep(0.0005)
                (folder / "count").write_text(str(n + 1))
            break
        except store.CheckpointError:
            time.sleep(0.0002)
"""


@pytest.mark.parametrize("times", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_update_is_lost(times, tmp_path):
    """Processes, and two threads here, take, add one and free: the file that is removed is never one that is held."""
    (tmp_path / "count").write_text("0")
    others = [process(COUNT, tmp_path, times) for _ in range(4)]
    scope = {"sys": types.SimpleNamespace(argv=["", "", times]), "folder": tmp_path, "Lock": Lock, "store": store}
    threads = [threading.Thread(target=exec, args=(COUNT, scope | {"time": time})) for _ in range(2)]
    for thread in threads:
        thread.start()
    for worker in [*threads, *others]:
        (worker.join if worker in threads else worker.communicate)()
    assert int((tmp_path / "count").read_text()) == 6 * times
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_systems_without_record_locks(tmp_path, monkeypatch, holder):
    """Windows: msvcrt's, and a file that can be removed only when it is closed."""
    fcntl = lock.fcntl

    def locking(handle, mode, n):
        assert (mode, n) == ("LK_NBLCK", 1)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, n)
        except BlockingIOError:
            raise PermissionError(13, "Permission denied") from None

    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK="LK_NBLCK"), raising=False)
    assert refused(tmp_path)
    holder.communicate("")
    with Lock(tmp_path), Lock(tmp_path):
        assert in_thread(lambda: refused(tmp_path)) == [True]
    assert list(tmp_path.iterdir()) == []

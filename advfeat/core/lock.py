"""One process, and one thread in it, writes in a folder at a time."""

import os
import threading
from contextlib import suppress
from pathlib import Path

from . import store

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None

#: (process, device and inode of a folder) -> who holds it.  A record lock does not exclude the own process, and what a
#: forked child finds here of its parent is not its own.
_holders: dict[tuple[int, int, int], "_Holder"] = {}


class Lock:
    """``with Lock(folder):`` nobody else writes in `folder`, which exists; free when the process ends, however it ends.

    The thread that holds it may take it again.  Temporaries that killed writers left there (`store.write`) are removed.

    Raises FileNotFoundError where there is no such folder, CheckpointError where another process or thread holds it.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def __enter__(self):
        try:
            about = os.stat(self.folder)
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.folder}: there is no such folder") from None
        key, mine = (os.getpid(), about.st_dev, about.st_ino), _Holder(self.folder.absolute() / ".lock")
        try:
            holder = _holders.setdefault(key, mine)  # in one step, so that no two threads are the first
            if holder is mine:
                mine.take()
                store.remove_temporaries(self.folder)
            elif holder.thread != mine.thread:
                raise BlockingIOError
            holder.times += 1
        except BaseException as error:
            if _holders.get(key) is mine:
                mine.free()
                del _holders[key]
            if isinstance(error, BlockingIOError):
                raise store.CheckpointError(f"{self.folder}: another process is writing here") from None
            raise
        self._key = key
        return self

    def __exit__(self, *_):
        if self._key[0] != os.getpid():  # a forked child leaves a block that its parent is in
            return
        holder = _holders[self._key]
        holder.times -= 1
        if not holder.times:
            try:
                holder.free()
            finally:
                del _holders[self._key]


class _Holder:
    """The thread that holds a folder, how many times it does, and the file that it has locked."""

    def __init__(self, path: Path):
        self.path, self.thread, self.times, self.file = path, threading.get_ident(), 0, None

    def take(self):
        """Lock the file of this name; one that its last holder removed after it was opened here is nobody's."""
        while self.file is None:
            self.file = open(self.path, "a")  # noqa: SIM115 - it is held until `free`
            try:
                _exclude(self.file)
            except OSError as error:
                self.close()
                if isinstance(error, (BlockingIOError, PermissionError)):
                    raise BlockingIOError from None
                raise OSError(error.errno, f"cannot be locked ({error.strerror})", str(self.path)) from None
            if not self.named():
                self.close()

    def named(self) -> bool:
        """Whether the name still is that of the file held."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self.file.fileno()), os.stat(self.path))
        return False

    def free(self):
        """Remove the file while it is locked, hence nobody else's; Windows removes only what nobody has open."""
        if self.file is None:
            return
        if fcntl and self.named():
            self.path.unlink()
        self.close()
        if not fcntl:
            with suppress(OSError):
                self.path.unlink()

    def close(self):
        self.file.close()
        self.file = None


def _exclude(file) -> None:
    """A record lock: one of flock would live on in processes that a worker pool forked."""
    if fcntl:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

"""Kernels that a command needs later, compiled by a second process while it already works."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from ..core import store
from ..core.distribute import usable_cores
from ..kernels import cache

LOOK_SECONDS = 0.5  # between two looks at whether the command is still there


@contextmanager
def compiled_ahead(*parts: str):
    """Within it, a second process compiles those of `parts` (as of `kernels.cpu.engine.warm_up`, in this order) that
    are not known to be in the cache.

    Who needs a kernel that is being compiled waits for it (`kernels/jit.py`).  The process has the priority of this
    one, since the time that it takes from the work it saves later, and ends with it, however it ends.  There is none
    where there is one core or no folder for the cache.
    """
    missing = _missing(parts)
    process = _start(missing) if missing else None
    try:
        yield
    finally:
        if process is not None:
            process.terminate()
            process.wait()


def _missing(parts) -> list[str]:
    known = {part for part in parts if _mark(part).exists() or (":" in part and _mark(part.split(":")[1]).exists())}
    missing = [part for part in parts if part not in known]
    if not missing or usable_cores() < 2:
        return []
    try:
        store.make_folder(cache.folder())
    except OSError:
        return []
    return missing if os.access(cache.folder(), os.W_OK) else []


def _start(parts: list[str]) -> subprocess.Popen:
    """`advfeat warmup` of these parts, by this very package, out of reach of the terminal's Ctrl-C."""
    command = [sys.executable, "-m", "advfeat", "warmup", "--quiet", "--while", str(os.getpid()), "--only", *parts]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache.folder().absolute())}
    nothing = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], env=environment, start_new_session=True, **nothing)


def end_with(process: int) -> None:
    """End this process, which `process` has started, when that one ends."""

    def look():
        while os.getppid() == process:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def mark(parts) -> None:
    """Note that these parts are in the cache, so that no command starts a process for them."""
    with suppress(OSError):
        store.make_folder(cache.folder())
        for part in parts:
            _mark(part).touch()


def _mark(part: str) -> Path:
    """A file that says so, named by what compiled kernels depend on, as far as it is known without Numba."""
    from importlib.metadata import version  # takes 10 ms, which other commands need not wait for

    digest = hashlib.sha256()
    for path in sorted(Path(cache.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    switches = [f"{name}={value}" for name, value in sorted(os.environ.items())
                if name.startswith(("NUMBA_CPU_", "NUMBA_NUM_THREADS", "ADVFEAT_VECTOR_BITS"))]  # fmt: skip
    about = (version("numba"), version("llvmlite"), sys.version, usable_cores(), _cpu(), *switches)
    digest.update(repr(about).encode())
    return cache.folder() / f"{part.replace(':', '-')}-{digest.hexdigest()[:32]}.ready"


def _cpu() -> str:
    """What Linux says that the CPU can do; "" elsewhere."""
    with suppress(OSError, StopIteration), open("/proc/cpuinfo") as file:
        return next(line for line in file if line.startswith(("flags", "Features")))
    return ""

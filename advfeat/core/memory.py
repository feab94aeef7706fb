"""How much memory is free, refusing what does not fit before any work is done, and keeping what was given back."""

import ctypes
import os
import sys
from pathlib import Path

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
#: Files of a control group: limit, what is in use, and the name of the cache in `memory.stat` that can be given up.
VERSION_2 = "memory.max", "memory.current", "inactive_file"
VERSION_1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
LARGEST_KEPT = 2**25  # bytes: glibc allows no more on all of its versions


def available() -> int:
    """Bytes that this process may still take: what Linux calls available, or less where a control group (a container,
    a job of a cluster) allows less; all memory of the machine where the system does not say what is free."""
    free = [_physical()]
    free += [1024 * int(line.split()[1]) for line in _lines(PROC / "meminfo") if line.startswith("MemAvailable:")]
    for line in _lines(PROC / "self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            free += _left(GROUPS, path, *VERSION_2)
        elif "memory" in controllers.split(","):
            free += _left(GROUPS / "memory", path, *VERSION_1)
    return max(min(free), 0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _physical() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows: nothing is refused
        return sys.maxsize


def _left(root: Path, path: str, limit: str, current: str, cache: str) -> list[int]:
    """What each group from `path` (which a container may not see) up to the root leaves."""
    folder, found = root / path.lstrip("/"), []
    for group in (folder, *folder.parents):
        try:
            most, used = int((group / limit).read_text()), int((group / current).read_text())
            stat = dict(line.split() for line in _lines(group / "memory.stat"))
            found.append(most - used + int(stat.get(cache, 0)))
        except (OSError, ValueError):  # no such group or file, or a limit of "max"
            pass
        if group == root:
            break
    return found


def require(needed: float, what: str, advice: str) -> None:
    """Raise MemoryError where `what` needs more bytes than are `available`, with `advice` on what to do."""
    free = available()
    if needed > free and _give_back():
        free = available()
    if needed > free:
        raise MemoryError(f"{what} needs about {_gigabytes(needed)} and {_gigabytes(free)} are free: {advice}")


def require_numbers(n: int, what: str, advice: str) -> None:
    """`require` for n float64, asked only where it may matter: to ask takes a millisecond."""
    if n > 1 << 22:
        require(8 * n, what, advice)


def _gigabytes(n: float) -> str:
    return f"{n / 1e9:,.0f} GB" if n >= 1e12 else f"{n / 1e9:.3g} GB"


def keep_what_is_freed() -> None:
    """Let this process keep the memory of arrays of up to 32 MB when they go, for those that come next.

    glibc gives such arrays' pages back to the system and asks for them again, which clears them: 30% of the time of
    robust accuracy at a record of Figure 3.  For programs of their own alone: a library leaves its host's memory as it
    is.  Without effect beside glibc.
    """
    if mallopt := _of_glibc("mallopt"):
        mallopt(MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)


def _give_back() -> bool:
    """Whether freed memory that was kept went back to the system."""
    trim = _of_glibc("malloc_trim")
    return trim is not None and bool(trim(0))


def _of_glibc(name: str):
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None

"""Compilation of the CPU kernels: no GIL, IEEE arithmetic, an on-disk cache that no edit leaves stale."""

import os
from contextlib import contextmanager
from pathlib import Path

from numba import config, njit, types
from numba.extending import intrinsic

# Numba stamps a cached function by its own file alone; an edited callee in another file would go unseen.  The stamp of
# every kernel is therefore the state of all files that compiled code stands in.
_SOURCES = sorted(Path(__file__).parent.glob("cpu_*.py"))
_STAMP = tuple((p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in _SOURCES)


@contextmanager
def _cache_folder():
    """``NUMBA_CACHE_DIR`` where it is set, else the user's cache folder.

    Not the package's own folder, Numba's default: files left there after an uninstall make an empty `advfeat` that
    hides an editable install.
    """
    before = config.CACHE_DIR
    if not before:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        config.CACHE_DIR = os.path.join(home, "advfeat")
    try:
        yield
    finally:
        config.CACHE_DIR = before


@contextmanager
def light_optimisation():
    """Compile at LLVM's level 1 inside: the tiles are vector code as they stand, and a third of the time is saved."""
    before = config.OPT
    config.OPT = type(before)(1)
    try:
        yield
    finally:
        config.OPT = before


def part(function):
    """``numba.njit`` for a function that only kernels call: entries from Python would double its compilation."""
    return njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


def jit(function):
    """``numba.njit`` for a kernel; cached on disk where a folder can be written, compiled anew where none can."""
    options = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    try:
        with _cache_folder():
            kernel = njit(cache=True, **options)(function)
    except RuntimeError:  # "no locator available": no folder for the cache can be written
        return njit(**options)(function)
    kernel._cache._cache_file._source_stamp = _STAMP
    return kernel


@intrinsic
def stands_alone(typingctx):
    """Called inside a kernel: keep it a function of its own, since inlined copies of the tiles take long to compile."""

    def codegen(context, builder, signature, args):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen

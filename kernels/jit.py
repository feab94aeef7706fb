"""Compilation of the CPU kernels: no GIL, IEEE arithmetic, and an on-disk cache that is never stale or mixed up."""

import hashlib
import os
import pickle
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import llvmlite
import numba
from numba import config, njit, types
from numba.core import sigutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator
from numba.core.ccallback import CFunc
from numba.core.runtime import rtsys
from numba.core.serialize import dumps
from numba.extending import intrinsic

from . import cache
from .target import VECTOR_BITS  # which makes Numba's target before anything is compiled

try:
    import fcntl
except ImportError:  # Windows: two processes may compile the same kernel, of which one is kept
    fcntl = None

OPTIONS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}

# A compiled kernel holds code from these files; Numba's own stamp would be one file's time of change.
_SOURCES = sorted(Path(__file__).parent.rglob("*.py"))
_STAMP = (
    hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest(),
    *(numba.__version__, llvmlite.__version__, sys.version, VECTOR_BITS),
)


class _OneFolder(CompileResultCacheImpl):
    _locator_classes = (UserProvidedCacheLocator,)  # the others would fall back to the package's own folder


class KernelCache(FunctionCache):
    """Compiled kernels, one file each, named by a hash of sources, versions, machine and argument types.

    Numba's own cache numbers its files in an index that it reads, changes and writes: two processes that compile a
    kernel for two dtypes at one moment can both take the same number, and one of them later runs the other's code.
    Here a file is written whole under a temporary name and renamed, its name says all that it depends on, and a
    damaged one is compiled anew.  Who compiles a kernel holds a lock beside its file: other processes that need it wait
    and load what came out.
    """

    _impl_class = _OneFolder
    _turn = None  # the lock, from a miss until what was compiled is kept

    def _path(self, signature, codegen):
        key = hashlib.sha256(repr((_STAMP, self._index_key(signature, codegen))).encode()).hexdigest()
        return Path(self._cache_path) / f"{self._py_func.__name__}-{key[:32]}.kernel"

    def load_overload(self, signature, target_context):
        # Numba's own cache refreshes all of the target's declarations here, which takes 200 ms.  A compilation does so
        # itself; what was compiled before needs the runtime alone.
        rtsys.initialize(target_context)
        path = self._path(signature, target_context.codegen())
        content = _whole(path)
        if content is None:
            _let_go(self._turn)  # of a compilation that failed
            self._turn = _wait_for(path.with_suffix(".lock"))
            content = _whole(path)
            if content is None:
                return None
            self._turn = _let_go(self._turn)
        return self._impl.rebuild(target_context, pickle.loads(content))

    def save_overload(self, signature, data):
        try:
            self._save(signature, data)
        finally:
            self._turn = _let_go(self._turn)

    def _save(self, signature, data):
        if not self._impl.check_cachable(data):
            return
        path, content = self._path(signature, data.codegen), dumps(self._impl.reduce(data))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(content).digest() + content)
                os.replace(name, path)
            except BaseException:
                os.unlink(name)
                raise
        except OSError:  # read-only or full: the kernel is compiled, only not kept
            pass


def _whole(path) -> bytes | None:
    """What a kernel's file holds, None where there is none or it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content[32:] if hashlib.sha256(content[32:]).digest() == content[:32] else None


def _wait_for(path):
    """The file `path`, locked, once no other process holds it; None where files cannot be locked.

    A record lock, which a forked child does not inherit, and which ends with its process.
    """
    while fcntl is not None:
        file = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "a")  # noqa: SIM115 - it is held until `_let_go`
            fcntl.lockf(file, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
            file.close()
        except OSError as error:
            if file is not None:
                file.close()
            if file is None or not isinstance(error, FileNotFoundError):
                return None  # else who held it before has removed it since it was opened here
        except BaseException:
            if file is not None:
                file.close()
            raise
    return None


def _let_go(file) -> None:
    """Remove a file of `_wait_for`, and its lock with it."""
    if file is not None:
        with suppress(OSError):
            os.unlink(file.name)
        file.close()


@contextmanager
def _cache_folder():
    """Numba's setting, or `cache.folder` where it has none."""
    before = config.CACHE_DIR
    if not before:
        config.CACHE_DIR = str(cache.folder())
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


def part(function=None, **options):
    """``numba.njit`` for a function that only kernels call: entries from Python would double its compilation."""
    compiled = njit(no_cpython_wrapper=True, **OPTIONS, **options)
    return compiled if function is None else compiled(function)


def jit(function):
    """``numba.njit`` for a kernel; kept on disk where a folder can be written, compiled anew where none can."""
    return _kept(njit(**OPTIONS)(function), function)


def c_function(function, signature):
    """A function compiled for C, kept on disk as well; its `address` is what native code calls."""
    compiled = _kept(CFunc(function, sigutils.normalize_signature(signature), {}, {"error_model": "numpy"}), function)
    compiled.compile()
    return compiled


def _kept(compiled, function):
    try:
        with _cache_folder():
            compiled._cache = KernelCache(function)
    except RuntimeError:  # "no locator available": no folder for the cache can be written
        pass
    return compiled


@intrinsic
def stands_alone(typingctx):
    """Called inside a kernel: keep it a function of its own, since inlined copies of the tiles take long to compile."""

    def codegen(context, builder, signature, args):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen

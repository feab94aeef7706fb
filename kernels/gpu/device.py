"""One CUDA device through CuPy, as the GPU engine sees it: memory, kernels, matrix products, recorded work.

CuPy is imported when a :class:`Gpu` is made, never before.  Kernels lie in ``cuda/*.cu``, one family a file, and are
compiled by NVRTC on first use, for float or double by the macro REAL.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np

SOURCES = Path(__file__).parent.parent / "cuda"
OPTIONS = ("-std=c++17", f"-I{SOURCES}", "--fmad=true")
REAL = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
DEFAULT_SHARED_BYTES = 48 << 10  # of a block, without asking for more
USABLE = 0.95  # of the free memory: the rest is for CUDA itself and for what does not fit into gaps
WORKSPACE_BYTES = 32 << 20  # cuBLAS's own: fixed, so that it neither allocates in a recording nor picks by what is free

# of cublas_api.h and library_types.h
_CUDA_R = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}
_COMPUTE = {np.dtype(np.float32): 68, np.dtype(np.float64): 70}
_COMPUTE_TF32 = 77
_ANY_ALGORITHM = -1


class NoGpu(ValueError):
    """What ``backend = "cupy"`` is missing: the package, the driver or the device."""


class GpuMemoryError(MemoryError):
    """More device memory is needed than free: `needed`, `free` in bytes, and `fits`, the runs that would."""

    def __init__(self, needed: int, free: int, n_runs: int, fits: int):
        self.needed, self.free, self.fits = needed, free, fits
        advice = f"batches of at most {fits} runs fit" if fits else "not even one run fits"
        super().__init__(
            f"{n_runs} runs need {needed:,} bytes of GPU memory and {free:,} are free; {advice} (fewer runs or samples)"
        )


def source(file: str) -> str:
    """A kernel family's text, with compiler messages pointing at its file; `file` may be a path without ".cu"."""
    path = SOURCES / f"{file}.cu"
    headers = hashlib.sha256(b"".join(header.read_bytes() for header in sorted(SOURCES.glob("*.cuh")))).hexdigest()
    return f'// {headers}\n#line 1 "{path}"\n{path.read_text(encoding="utf-8")}'


def missing() -> str | None:
    """What stands between this process and a CUDA device, or None."""
    if find_spec("cupy") is None:
        return "the package CuPy is not installed (extra 'cuda12' or 'cuda13')"
    try:
        import cupy
    except Exception as error:
        return f"the package CuPy does not load ({type(error).__name__}: {error})"
    try:
        version, devices = cupy.cuda.runtime.driverGetVersion(), cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        try:
            version = cupy.cuda.runtime.driverGetVersion()
        except Exception:
            version = 0
        if version == 0:
            return "the NVIDIA driver is not installed, or not visible to this process"
        return f"no CUDA device answers ({error})"
    if version == 0:
        return "the NVIDIA driver is not installed, or not visible to this process"
    return None if devices else "there is no CUDA device, or CUDA_VISIBLE_DEVICES hides it"


@cache
def connect() -> Gpu:
    """The process's one Gpu; NoGpu, a ValueError, says what is missing."""
    return Gpu()


class Gpu:
    """The current CUDA device.  ``kernel`` is a family and a function, "steps:climb"; all work goes to one stream."""

    def __init__(self):
        what = missing()
        if what is not None:
            raise NoGpu(f"backend = 'cupy': {what}")
        import cupy

        self._cp, self._device = cupy, cupy.cuda.Device()
        self._stream, self._modules = cupy.cuda.Stream(non_blocking=True), {}
        self._functions, self._lock, self._process = {}, threading.RLock(), os.getpid()
        about = self._device.attributes
        self.multiprocessors = about["MultiProcessorCount"]
        self.shared_bytes = about["MaxSharedMemoryPerBlockOptin"]
        properties = cupy.cuda.runtime.getDeviceProperties(self._device.id)
        self.name = f"{properties['name'].decode()} (sm_{self._device.compute_capability}), CuPy {cupy.__version__}"

        _ = self._cublas  # its memory is taken before any is counted

    @contextmanager
    def _working(self):
        """One thread at a time, on this device's stream: what another one starts would go into a recording."""
        if os.getpid() != self._process:
            raise NoGpu("backend = 'cupy': a forked process cannot use its parent's GPU; start it anew (loky, spawn)")
        with self._lock, self._stream:
            yield

    # -------------------------------------------------------------- memory
    def upload(self, array, dtype=None):
        """A copy of a NumPy array on the device, C-contiguous."""
        with self._working():
            return self._cp.asarray(np.ascontiguousarray(array, dtype))

    def download(self, array) -> np.ndarray:
        """A copy on the host, once the device has done everything asked of it."""
        with self._working():
            return self._cp.asnumpy(array)

    def empty(self, shape, dtype):
        with self._working():
            return self._cp.empty(shape, dtype)

    def zeros(self, shape, dtype):
        with self._working():
            return self._cp.zeros(shape, dtype)

    def copy(self, target, source):
        """target[...] = source, both on the device, or a NumPy array as source."""
        with self._working():
            if isinstance(source, np.ndarray):
                target.set(np.ascontiguousarray(source, target.dtype))
            else:
                target[...] = source

    def free_bytes(self) -> int:
        """What can still be allocated: of the device's free memory and what CuPy's pool holds unused all but a part."""
        with self._working():
            free = self._device.mem_info[0] + self._cp.get_default_memory_pool().free_bytes()
        return int(USABLE * free)

    # -------------------------------------------------------------- kernels
    def _function(self, kernel, dtype, shared, together):
        key = kernel, np.dtype(dtype), together
        if key not in self._functions:
            file, name = kernel.split(":")
            if (file, *key[1:]) not in self._modules:
                options = (*OPTIONS, f"-DREAL={REAL[key[1]]}")
                self._modules[file, *key[1:]] = self._cp.RawModule(
                    code=source(file), options=options, backend="nvrtc", enable_cooperative_groups=together
                )
            self._functions[key] = self._modules[file, *key[1:]].get_function(name)
        function = self._functions[key]
        if shared > DEFAULT_SHARED_BYTES and shared > function.max_dynamic_shared_size_bytes:
            function.max_dynamic_shared_size_bytes = shared
        return function

    def blocks_at_once(self, kernel, dtype, threads, shared) -> int:
        """How many blocks of a kernel the whole device runs at the same time."""
        with self._working():
            function = self._function(kernel, dtype, shared, True).kernel.ptr
            count = self._cp.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(function, threads, shared)
        return count * self.multiprocessors

    def launch(self, kernel, dtype, grid, threads, *args, shared=0, together=False):
        """Start a kernel on `grid` (x,) or (x, y) blocks; ints go as int, NumPy scalars as what they are.

        `together`: a cooperative launch, in which blocks may wait for each other.
        """
        if 0 in grid:
            return  # CuPy would start one block
        args = tuple(np.int32(a) if isinstance(a, int) else a for a in args)
        with self._working():
            self._function(kernel, dtype, shared, together)(tuple(grid), (threads,), args, shared_mem=shared)

    # -------------------------------------------------------------- matrix products
    @cached_property
    def _cublas(self):
        from cupy_backends.cuda.libs import cublas  # noqa: F401 - loads the library that belongs to this CuPy

        library = ctypes.CDLL(f"libcublas.so.{self._cp.cuda.runtime.runtimeGetVersion() // 1000}")
        handle = ctypes.c_void_p()
        self._checked(library.cublasCreate_v2(ctypes.byref(handle)))
        self._checked(library.cublasSetStream_v2(handle, ctypes.c_void_p(self._stream.ptr)))
        self._workspace = self.empty(WORKSPACE_BYTES, np.uint8)
        where = ctypes.c_void_p(self._workspace.data.ptr)
        self._checked(library.cublasSetWorkspace_v2(handle, where, ctypes.c_size_t(WORKSPACE_BYTES)))
        return library, handle

    @staticmethod
    def _checked(status):
        if status:
            raise RuntimeError(f"cuBLAS status {status}")

    def multiply(self, out, A, B, *, turn_a=False, turn_b=False, tf32=False):
        """out[r] = op(A[r]) op(B[r]), op the transpose where asked; (R, ., .) arrays with contiguous rows.

        A first axis of length 1 in A or B serves all r.  `tf32`: tensor cores, factors rounded to 10 bits of mantissa.
        """
        rows, columns = out.shape[1:]
        depth = A.shape[1] if turn_a else A.shape[2]
        # cuBLAS is column-major: out^T = op(B)^T op(A)^T, whose operands are these arrays as they lie
        places = []
        for array, turned in ((B, turn_b), (A, turn_a)):
            stride = array.strides[0] // array.itemsize if len(array) > 1 else 0
            leading = max(array.strides[1] // array.itemsize, 1)
            places.append((array.data.ptr, _CUDA_R[array.dtype], leading, stride, int(turned)))
        (b, b_type, ldb, b_stride, b_turned), (a, a_type, lda, a_stride, a_turned) = places
        number = ctypes.c_float if out.dtype == np.float32 else ctypes.c_double
        one, zero = number(1), number(0)
        library, handle = self._cublas
        with self._working():
            status = library.cublasGemmStridedBatchedEx(
                handle, b_turned, a_turned, columns, rows, depth, ctypes.byref(one),
                ctypes.c_void_p(b), b_type, ldb, ctypes.c_longlong(b_stride),
                ctypes.c_void_p(a), a_type, lda, ctypes.c_longlong(a_stride), ctypes.byref(zero),
                ctypes.c_void_p(out.data.ptr), _CUDA_R[out.dtype], out.strides[1] // out.itemsize,
                ctypes.c_longlong(out.strides[0] // out.itemsize), len(out),
                _COMPUTE_TF32 if tf32 else _COMPUTE[out.dtype], _ANY_ALGORITHM,
            )  # fmt: skip
        self._checked(status)

    # -------------------------------------------------------------- recorded work
    def record(self, work):
        """`work()`, which launches and multiplies but neither allocates nor copies, as a CUDA graph; call to replay."""
        with self._working():
            self._stream.begin_capture()
            try:
                work()
            except BaseException:
                with suppress(Exception):  # a second error of CUDA's would hide the first
                    self._stream.end_capture()
                raise
            graph = self._stream.end_capture()

        def replay():
            with self._working():
                graph.launch(self._stream)

        return replay

    @contextmanager
    def timed(self):
        """Milliseconds of the work inside, by CUDA events: a list that holds them afterwards."""
        begin, end, took = self._cp.cuda.Event(), self._cp.cuda.Event(), []
        begin.record(self._stream)
        yield took
        end.record(self._stream)
        end.synchronize()
        took.append(self._cp.cuda.get_elapsed_time(begin, end))

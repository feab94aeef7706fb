"""A stand-in for :class:`advfeat.kernels.gpu.device.Gpu` that runs the CUDA kernels on the CPU (cuda_on_cpu.h).

What it checks beyond results: kernel arguments have the types that the kernel declares; every array ends at a page that
may not be touched, new memory is NaN, writes before an array or beyond shared memory are errors, results do not depend
on the order in which threads run (`order`), recorded work neither allocates nor copies.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import platform
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from advfeat.kernels.gpu import device as gpu_device

HEADER = Path(__file__).parent / "cuda_on_cpu.h"
FILES = sorted(path.stem for path in gpu_device.SOURCES.glob("*.cu"))
KERNEL = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\(')
PAGE, BEFORE = mmap.PAGESIZE, 64  # bytes before an array that nobody may change
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


def kernels(file: str) -> list[str]:
    """The kernels that a family exports."""
    return KERNEL.findall((gpu_device.SOURCES / f"{file}.cu").read_text())


def compiler() -> str | None:
    """g++ or its like; fibers are switched by x86-64 instructions."""
    return (shutil.which("g++") or shutil.which("c++")) if platform.machine() == "x86_64" else None


def build(file: str, dtype) -> ctypes.CDLL:
    """A kernel family as a library of the CPU, kept in a temporary folder by the hash of all it is made of."""
    text = gpu_device.source(file) + "\n" + "\n".join(f"EMULATE({name})" for name in kernels(file))
    options = ["-O2", "-march=native", "-std=c++17", "-fPIC", "-shared", f"-DREAL={gpu_device.REAL[np.dtype(dtype)]}"]
    options += ["-w", f"-I{gpu_device.SOURCES}", "-include", str(HEADER), "-x", "c++"]
    headers = [HEADER, *sorted(gpu_device.SOURCES.glob("*.cuh"))]
    parts = [text, *options, *(path.read_text() for path in headers)]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]
    folder = Path(tempfile.gettempdir()) / f"advfeat-cuda-on-cpu-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    path = folder / f"{Path(file).name}-{key}.so"
    if not path.exists():
        fresh = path.with_suffix(f".{os.getpid()}")
        made = subprocess.run([compiler(), *options, "-", "-o", fresh], input=text, text=True, capture_output=True)
        assert made.returncode == 0, made.stderr
        fresh.rename(path)
    return ctypes.CDLL(str(path))


def tf32(array):
    """float32 numbers rounded to the 10 bits of mantissa that tensor cores read, ties away from zero."""
    bits = array.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)).view(np.float32)


class Memory:
    """An array of the emulated device: shape and slices as CuPy's, but NumPy cannot read it."""

    __array_ufunc__ = None

    def __init__(self, held, block):
        self._held, self._block = held, block

    shape = property(lambda self: self._held.shape)
    dtype = property(lambda self: self._held.dtype)
    strides = property(lambda self: self._held.strides)
    nbytes = property(lambda self: self._held.nbytes)
    itemsize = property(lambda self: self._held.itemsize)
    size = property(lambda self: self._held.size)

    def __len__(self):
        return len(self._held)

    def __getitem__(self, index):
        return Memory(self._held[index], self._block)

    def reshape(self, *shape):
        view = self._held.reshape(*shape)
        assert np.shares_memory(view, self._held) or not view.size, "this reshape copies"
        return Memory(view, self._block)

    def __array__(self, *_, **__):
        raise TypeError("memory of the device was given to NumPy")


class EmulatedGpu:
    """The methods of `Gpu`; `order` says how the threads of a block take turns.

    From barrier or shuffle to the next all threads, forwards (0), backwards (1) or in an order drawn from a seed (> 3);
    or warp after warp, forwards (2) or backwards (3), each as far as it gets without the others.
    """

    name, multiprocessors = "emulated on the CPU", 4

    def __init__(self, order=0, shared_bytes=227 << 10, memory=1 << 34):
        self.order, self.shared_bytes, self.memory = order, shared_bytes, memory
        self.recording, self.launched, self.allocated, self.downloads = None, [], 0, 0

    # -------------------------------------------------------------- memory
    def _allocate(self, shape, dtype):
        assert self.recording is None, "memory is allocated while work is recorded"
        dtype = np.dtype(dtype)
        self.allocated += int(np.prod(shape)) * dtype.itemsize
        size = -(-int(np.prod(shape)) * dtype.itemsize // 16) * 16
        pages = -(-(size + BEFORE) // PAGE) + 1
        block = mmap.mmap(-1, pages * PAGE)
        whole = np.frombuffer(block, np.uint8)
        whole[: (pages - 1) * PAGE] = 0xFF
        assert _libc.mprotect(whole.ctypes.data + (pages - 1) * PAGE, PAGE, 0) == 0
        start = (pages - 1) * PAGE - size
        held = whole[start : start + int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)
        return Memory(held, whole[start - BEFORE : start])

    def empty(self, shape, dtype):
        return self._allocate(shape, dtype)

    def zeros(self, shape, dtype):
        array = self._allocate(shape, dtype)
        array._held[...] = 0
        return array

    def upload(self, array, dtype=None):
        array = np.ascontiguousarray(array, dtype)
        memory = self._allocate(array.shape, array.dtype)
        memory._held[...] = array
        return memory

    def download(self, array):
        assert self.recording is None, "the host waits while work is recorded"
        self.downloads += 1
        assert (array._block == 0xFF).all(), "a write before the beginning of an array"
        return array._held.copy()

    def copy(self, target, source):
        assert self.recording is None, "a copy while work is recorded"
        target._held[...] = source if isinstance(source, np.ndarray) else source._held

    def free_bytes(self):
        return self.memory

    # -------------------------------------------------------------- kernels
    def blocks_at_once(self, kernel, dtype, threads, shared):
        return self.multiprocessors * max(1, min(self.shared_bytes // max(shared, 1), 2048 // threads))

    def launch(self, kernel, dtype, grid, threads, *args, shared=0, together=False):
        file, name = kernel.split(":")
        assert shared <= self.shared_bytes, f"{kernel}: {shared} bytes of shared memory"
        assert threads <= 1024, threads
        assert 0 < np.prod(grid) < 2**31, grid
        assert not together or np.prod(grid) <= self.blocks_at_once(kernel, dtype, threads, shared), "too many together"
        self.launched.append(kernel)
        library = build(file, dtype)
        types = getattr(library, f"types_{name}")
        types.restype = ctypes.c_char_p
        args = [np.int32(a) if isinstance(a, int) else a for a in args]
        given = ["*" * isinstance(a, Memory) + f"{a.dtype.kind}{a.dtype.itemsize}" for a in args]
        assert given == types().decode().split(), (kernel, given, types().decode())
        assert all(a._held.flags.c_contiguous for a in args if isinstance(a, Memory)), kernel
        boxes = [np.array([a._held.ctypes.data if isinstance(a, Memory) else a]) for a in args]
        places = (ctypes.c_void_p * len(args))(*(box.ctypes.data for box in boxes))
        start = getattr(library, f"launch_{name}")
        start.restype = ctypes.c_char_p
        size = (ctypes.c_uint * 2)(*(int(g) for g in (*grid, 1)[:2]))

        def work(_kept=(args, boxes)):
            error = start(size, threads, ctypes.c_size_t(shared), ctypes.c_bool(together), self.order, places)
            assert not error, f"{kernel}: {error.decode()}"

        self._do(work)

    # -------------------------------------------------------------- matrix products
    def multiply(self, out, A, B, *, turn_a=False, turn_b=False, tf32=False):
        self.launched.append("multiply")
        a, b = (x._held.swapaxes(1, 2) if turn else x._held for x, turn in ((A, turn_a), (B, turn_b)))
        assert all(x._held.strides[2] == x.itemsize or x.shape[2] == 1 for x in (out, A, B)), "rows are not contiguous"

        def work():
            left, right = (globals()["tf32"](x) if tf32 else x for x in (a, b))
            out._held[...] = left @ right

        self._do(work)

    # -------------------------------------------------------------- recorded work
    def record(self, work):
        self.recording, done = [], []
        try:
            work()
            done = self.recording
        finally:
            self.recording = None

        def replay():
            for step in done:
                step()

        return replay

    def _do(self, work):
        if self.recording is None:
            work()
        else:
            self.recording.append(work)

    @contextmanager
    def timed(self):
        took = []
        yield took
        took.append(0.0)

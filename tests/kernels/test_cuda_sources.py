"""Every CUDA file compiles for both precisions and two architectures, without a warning, and holds what it exports."""

import ctypes
import itertools
import re
import shutil
import subprocess
from importlib import metadata

import numpy as np
import pytest
from advfeat.kernels.gpu import device as gpu_device
from emulated_gpu import FILES, kernels

NVCC = shutil.which("nvcc")
COMPILATIONS = list(itertools.product(FILES, ("float32", "float64"), ("sm_80", "sm_90")))


def compiled(file, dtype, arch, folder, text=None):
    """The finished process, and the cubin's bytes: by nvcc's front end for its warnings, hardly optimised; NVRTC below
    goes the whole way."""
    out = folder / f"{file}.cubin"
    options = ["-cubin", "-std=c++17", f"-arch={arch}", f"-DREAL={gpu_device.REAL[np.dtype(dtype)]}"]
    options += ["-Werror", "all-warnings", "-Xcicc", "-O1", "-Xptxas", "-O0"]
    given = folder / f"{file}.cu"
    given.write_text(gpu_device.source(file) if text is None else text)
    done = subprocess.run([NVCC, *options, f"-I{gpu_device.SOURCES}", "-o", out, given], capture_output=True, text=True)
    return done, out.read_bytes() if out.exists() else b""


@pytest.mark.skipif(NVCC is None, reason="no nvcc: CUDA files cannot be compiled")
@pytest.mark.parametrize(("file", "dtype", "arch"), COMPILATIONS)
@pytest.mark.one_in(7)
def test_it_compiles(file, dtype, arch, tmp_path):
    done, binary = compiled(file, dtype, arch, tmp_path)
    assert done.returncode == 0, done.stderr
    assert kernels(file)
    for name in kernels(file):
        assert f".text.{name}\0".encode() in binary, f"{name} is not in the binary"


def nvrtc():
    """The compiler that CuPy uses, which needs no GPU; None where its package is not installed."""
    try:
        files = metadata.files("nvidia-cuda-nvrtc")
    except metadata.PackageNotFoundError:
        return None
    for start in ("libnvrtc-builtins.so", "libnvrtc.so"):  # the second looks for the first, and 13.0 not beside itself
        found = [file for file in files if file.name.startswith(start)]
        library = ctypes.CDLL(str(found[0].locate())) if found else None
    return library


@pytest.mark.skipif(nvrtc() is None, reason="no NVRTC (package nvidia-cuda-nvrtc)")
@pytest.mark.parametrize(("file", "dtype", "arch"), COMPILATIONS)
@pytest.mark.one_in(3)
def test_it_compiles_as_cupy_does(file, dtype, arch):
    """NVRTC knows fewer names than nvcc: no headers of the C library."""
    library, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    options = [*gpu_device.OPTIONS, f"-DREAL={gpu_device.REAL[np.dtype(dtype)]}"]
    options += [f"--gpu-architecture={arch}", "-ftz=true"]
    text = gpu_device.source(file).encode()
    assert library.nvrtcCreateProgram(ctypes.byref(program), text, b"kernel.cu", 0, None, None) == 0
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = library.nvrtcCompileProgram(program, len(options), given)
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    assert (failed, log.value.decode()) == (0, "")
    library.nvrtcGetCUBINSize(program, ctypes.byref(size))
    binary = ctypes.create_string_buffer(size.value)
    library.nvrtcGetCUBIN(program, binary)
    for name in kernels(file):
        assert f".text.{name}\0".encode() in binary.raw


@pytest.mark.skipif(NVCC is None, reason="no nvcc: CUDA files cannot be compiled")
def test_a_warning_is_an_error_and_points_at_its_file(tmp_path):
    text = gpu_device.source("steps").replace("lane = threadIdx.x % WARP;", "lane = threadIdx.x % WARP, spare = 1;", 1)
    done, _ = compiled("steps", "float32", "sm_90", tmp_path, text)
    assert done.returncode != 0
    assert re.search(r"kernels/cuda/steps\.cu\(\d+\).*spare", done.stderr)


def test_a_kernel_is_another_when_a_header_changes(tmp_path, monkeypatch):
    """CuPy keeps compiled kernels by their text."""
    before = gpu_device.source("steps")
    shutil.copytree(gpu_device.SOURCES, tmp_path / "cuda")
    monkeypatch.setattr(gpu_device, "SOURCES", tmp_path / "cuda")
    same = gpu_device.source("steps")
    assert same.splitlines()[0] == before.splitlines()[0]
    with open(tmp_path / "cuda" / "common.cuh", "a") as header:
        header.write("// more\n")
    assert gpu_device.source("steps") != same


def test_every_kernel_that_the_engine_starts_exists_and_no_other():
    started = set()
    for path in sorted((gpu_device.SOURCES.parent / "gpu").glob("*.py")):
        started |= set(re.findall(r'"(\w+:\w+)"', path.read_text()))
    assert started == {f"{file}:{name}" for file in FILES for name in kernels(file)}

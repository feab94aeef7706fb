"""Every CUDA file compiles for both precisions and two architectures, without a warning, and holds what it exports."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from advfeat.kernels import gpu
from emulated_gpu import kernels

FILES = sorted(path.stem for path in gpu.SOURCES.glob("*.cu"))
NVCC = shutil.which("nvcc")


def compiled(file, dtype, arch, folder, text=None):
    """The finished process, and the cubin's bytes."""
    out = folder / f"{file}.cubin"
    options = ["-cubin", "-std=c++17", f"-arch={arch}", f"-DREAL={gpu.REAL[np.dtype(dtype)]}"]
    options += ["-Werror", "all-warnings"]
    given = folder / f"{file}.cu"
    given.write_text(gpu.source(file) if text is None else text)
    done = subprocess.run([NVCC, *options, f"-I{gpu.SOURCES}", "-o", out, given], capture_output=True, text=True)
    return done, out.read_bytes() if out.exists() else b""


@pytest.mark.skipif(NVCC is None, reason="no nvcc: CUDA files cannot be compiled")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("file", FILES)
def test_it_compiles(file, dtype, arch, tmp_path):
    done, binary = compiled(file, dtype, arch, tmp_path)
    assert done.returncode == 0, done.stderr
    assert kernels(file)
    for name in kernels(file):
        assert f".text.{name}\0".encode() in binary, f"{name} is not in the binary"


@pytest.mark.skipif(NVCC is None, reason="no nvcc: CUDA files cannot be compiled")
def test_a_warning_is_an_error_and_points_at_its_file(tmp_path):
    text = gpu.source("steps").replace("lane = threadIdx.x % WARP;", "lane = threadIdx.x % WARP, spare = 1;", 1)
    done, _ = compiled("steps", "float32", "sm_90", tmp_path, text)
    assert done.returncode != 0
    assert re.search(r"kernels/cuda/steps\.cu\(\d+\).*spare", done.stderr)


def test_every_kernel_that_the_engine_starts_exists_and_no_other():
    started = set()
    for path in sorted(gpu.SOURCES.parent.glob("cupy_*.py")):
        started |= set(re.findall(r'"(\w+:\w+)"', path.read_text()))
    assert started == {f"{file}:{name}" for file in FILES for name in kernels(file)}

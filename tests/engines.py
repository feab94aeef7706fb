"""Every engine by a name for tests: the library's, and the GPU engine with its kernels run on the CPU."""

import pytest
from advfeat.kernels import get_engine
from advfeat.kernels.gpu import device as gpu_device
from advfeat.kernels.gpu.engine import CupyEngine
from emulated_gpu import EmulatedGpu, compiler

on_the_cpu = pytest.mark.skipif(compiler() is None, reason="no x86-64 C++ compiler: CUDA kernels cannot run on the CPU")
DEVICES = [pytest.param("emulated", marks=on_the_cpu)]
if gpu_device.missing() is None:
    DEVICES.append(pytest.param("gpu", marks=pytest.mark.gpu))
CUPY = [pytest.param(f"cupy {param.values[0]}", marks=param.marks) for param in DEVICES]
PRODUCTS = [pytest.param(f"cupy {param.values[0]} products", marks=param.marks) for param in DEVICES]
ON_GPU = CUPY[1:]  # for what has an emulated test of its own
ENGINES = ["numba", "numpy", *CUPY]


def device_of(name):
    """The real device, or a new emulated one."""
    return gpu_device.connect() if name == "gpu" else EmulatedGpu()


def engine_of(name):
    """A new engine by one of the names above."""
    backend, *rest = name.split()
    return CupyEngine(device_of(rest[0]), *rest[1:]) if rest else get_engine(backend)

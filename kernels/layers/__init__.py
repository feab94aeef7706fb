"""Layers of deep networks: formulas, programs made of them, and engines that run programs; arrays only."""

from .numpy_engine import NumpyLayers
from .program import EVALUATE, MODES, TRAIN, Operation, Program

__all__ = ["BACKENDS", "EVALUATE", "MODES", "TRAIN", "NumpyLayers", "Operation", "Program", "get_engine"]

BACKENDS = ("numba", "numpy")


def get_engine(backend: str = "numba") -> type:
    """The class of an engine: "numba", the CPU's vector units, or "numpy", the reference.  ValueError for any other."""
    if backend not in BACKENDS:
        raise ValueError(f"backend = {backend!r}: must be one of {BACKENDS}")
    if backend == "numpy":
        return NumpyLayers
    from .cpu.engine import CpuLayers

    return CpuLayers

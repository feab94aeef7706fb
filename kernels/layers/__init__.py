"""Layers of deep networks: formulas, programs made of them, and engines that run programs; arrays only."""

from .numpy_engine import NumpyLayers
from .program import EVALUATE, MODES, TRAIN, Operation, Program

__all__ = ["BACKENDS", "EVALUATE", "MODES", "TRAIN", "NumpyLayers", "Operation", "Program", "get_engine"]

BACKENDS = ("numpy",)


def get_engine(backend: str = "numpy") -> type[NumpyLayers]:
    """The engine of a name: "numpy", the reference.  ValueError for any other."""
    if backend not in BACKENDS:
        raise ValueError(f"backend = {backend!r}: must be one of {BACKENDS}")
    return NumpyLayers

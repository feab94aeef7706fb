"""Layers of deep networks: formulas, programs made of them, and engines that run programs; arrays only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from .numpy_engine import NumpyLayers
from .program import EVALUATE, MODES, TRAIN, Mode, Operation, Program

if TYPE_CHECKING:
    from .cpu.engine import CpuLayers

__all__ = ["BACKENDS", "EVALUATE", "MODES", "TRAIN", "LayerBackend", "Mode", "NumpyLayers", "Operation", "Program",
           "get_engine"]  # fmt: skip

LayerBackend = Literal["numba", "numpy"]
BACKENDS: tuple[LayerBackend, ...] = get_args(LayerBackend)


def get_engine(backend: LayerBackend = "numba") -> type[NumpyLayers] | type[CpuLayers]:
    """The class of an engine: "numba", the CPU's vector units, or "numpy", the reference.  ValueError for any other."""
    if backend not in BACKENDS:
        raise ValueError(f"backend = {backend!r}: must be one of {BACKENDS}")
    if backend == "numpy":
        return NumpyLayers
    from .cpu.engine import CpuLayers

    return CpuLayers

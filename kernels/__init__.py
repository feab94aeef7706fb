"""Floor 1: the hot loops, on plain arrays.  One signature, several engines, every one checked against `reference`."""

from __future__ import annotations

from importlib.util import find_spec

from .reference import CROSS_ENTROPY, L1, L2, LINF, MARGIN, NEG_LABEL_LOGIT, NumpyEngine

__all__ = ["BACKENDS", "CROSS_ENTROPY", "L1", "L2", "LINF", "MARGIN", "NEG_LABEL_LOGIT", "NumpyEngine", "get_engine"]

BACKENDS = ("numba", "numpy")


def get_engine(backend: str = "numba") -> NumpyEngine:
    """A new engine, ``"numba"`` (CPU, register tiles) or ``"numpy"`` (the reference).

    Raises
    ------
    ValueError
        For an unknown name; ``"cupy"`` says what it still misses.
    """
    if backend == "numpy":
        return NumpyEngine()
    if backend == "numba":
        from .numba_engine import NumbaEngine

        return NumbaEngine()
    if backend == "cupy":
        missing = "" if find_spec("cupy") else "; CuPy is not installed either (extra 'cuda12' or 'cuda13')"
        raise ValueError(f"backend = 'cupy': this version has no GPU engine yet{missing}. Choose from {BACKENDS}")
    raise ValueError(f"backend = {backend!r}: must be one of {BACKENDS}")

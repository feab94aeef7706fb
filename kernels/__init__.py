"""Floor 1: the hot loops, on plain arrays.  One signature, several engines, every one checked against `reference`."""

from typing import Literal, get_args

from .formulas import CROSS_ENTROPY, L1, L2, LINF, MARGIN, NEG_LABEL_LOGIT
from .numpy_engine import NumpyEngine

__all__ = ["BACKENDS", "CROSS_ENTROPY", "L1", "L2", "LINF", "MARGIN", "NEG_LABEL_LOGIT", "Backend", "NumpyEngine",
           "get_engine"]  # fmt: skip

Backend = Literal["numba", "numpy", "cupy", "cupy-tf32"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


def get_engine(backend: Backend = "numba") -> NumpyEngine:
    """A new engine: ``"numba"`` (CPU, register tiles), ``"numpy"`` (the reference), ``"cupy"`` (a CUDA device) or
    ``"cupy-tf32"`` (float32 there, with the products' factors rounded to 10 bits of mantissa by the tensor cores).

    Raises
    ------
    ValueError
        For an unknown name; for "cupy" without CuPy, driver or device, saying which is missing
        (:class:`advfeat.kernels.gpu.device.NoGpu`).
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend = {backend!r}: must be one of {BACKENDS}")
    if backend == "numpy":
        return NumpyEngine()
    if backend == "numba":
        from .cpu.engine import NumbaEngine

        return NumbaEngine()
    from .gpu import device as gpu_device
    from .gpu.engine import CupyEngine

    return CupyEngine(gpu_device.connect(), tf32=backend == "cupy-tf32")

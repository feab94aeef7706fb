"""The CPU that kernels are compiled for: Numba's target and the width of the engine's registers, chosen together.

Registers are as wide as that target has them: this machine, or what ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` say.
``ADVFEAT_VECTOR_BITS`` = 128, 256 or 512 makes both narrower; processes that are started from here inherit it.
"""

import os

import llvmlite.binding as llvm
from numba import config
from numba.core.codegen import get_host_cpu_features
from numba.core.registry import cpu_target

SWITCH = "ADVFEAT_VECTOR_BITS"
# What a narrower target lacks: LLVM drops with it all that builds upon it, fused multiply-adds with AVX
WITHOUT = {"128": "-avx", "256": "-avx512f", "512": ""}
X86 = llvm.get_process_triple().startswith(("x86", "i386", "i686"))


def present(features: str) -> set[str]:
    """The features that count here in a list as "+avx2,-avx512f", of which later ones undo earlier ones."""
    has = {entry[1:]: entry[0] == "+" for entry in features.split(",") if entry}
    return {name for name in ("avx512f", "avx2", "fma") if has.get(name) and has.get("avx", True)}


def widest(features: str) -> int:
    """Bits of the widest registers; 128 where nothing is said, as on 64-bit ARM."""
    has = present(features)
    return 512 if "avx512f" in has else 256 if "avx2" in has else 128


def make(asked: str | None) -> str:
    """The features of Numba's target, which is made here, before the first kernel: later settings do not reach it.

    Raises ValueError for a width that is no width or that the target does not have, and where Numba has made another
    target in this process already.
    """
    if asked is None:
        return cpu_target.target_context.codegen().magic_tuple()[2]
    if asked not in WITHOUT:
        raise ValueError(f"{SWITCH} = {asked!r}: must be one of {', '.join(WITHOUT)}")
    features = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    if int(asked) > widest(features):
        raise ValueError(f"{SWITCH} = {asked}: must be at most {widest(features)}, the widest vectors of this target")
    config.CPU_FEATURES = ",".join(filter(None, [features, WITHOUT[asked] if X86 else ""]))
    found = make(None)
    if found != config.CPU_FEATURES:
        raise ValueError(f"{SWITCH} = {asked}: comes too late, Numba has made a target of {widest(found)} bits already")
    return found


FEATURES = make(os.environ.get(SWITCH) or None)
VECTOR_BITS = widest(FEATURES)
# Without the instruction LLVM calls the C library's fma for every lane; a product and a sum are two roundings
FUSED = not X86 or "fma" in present(FEATURES)

"""Numba's target and the engine's width: one choice, one switch, refused where it cannot hold."""

import json
import os
import subprocess
import sys
from pathlib import Path

import advfeat.kernels
import pytest
from advfeat.kernels import target
from numba import config

ROOT = Path(advfeat.__file__).resolve().parent.parent
WIDTHS = [int(bits) for bits in target.WITHOUT]
FEATURES = {  # what a list of features says: bits, and whether multiply-adds are fused
    "nothing": ("", 128, False),
    "old": ("+sse4.2,-avx,-avx2,-avx512f,-fma", 128, False),
    "AVX alone": ("+avx,-avx2,-avx512f,-fma", 128, False),
    "AVX2": ("+avx,+avx2,-avx512f,+fma", 256, True),
    "AVX-512": ("+avx,+avx2,+avx512f,+fma", 512, True),
    "AVX-512 undone": ("+avx,+avx2,+avx512f,+fma,-avx512f", 256, True),
    "AVX undone, and all that needs it": ("+avx,+avx2,+avx512f,+fma,-avx", 128, False),
    "NEON": ("+neon,+fp-armv8", 128, False),
}


@pytest.mark.parametrize(("features", "bits", "fused"), FEATURES.values(), ids=FEATURES)
def test_features_tell_the_width(features, bits, fused):
    assert target.widest(features) == bits
    assert ("fma" in target.present(features)) == fused


@pytest.mark.parametrize(("features", "bits"), [(text, bits) for text, bits, _ in FEATURES.values()], ids=FEATURES)
@pytest.mark.parametrize("asked", WIDTHS)
def test_a_width_that_cannot_be_had_is_refused(features, bits, asked, monkeypatch):
    """What the target lacks by its name; what it has because this process's target is made."""
    monkeypatch.setattr(config, "CPU_FEATURES", features + ",+planted")
    rule = "comes too late" if asked <= bits else f"must be at most {bits}, the widest vectors of this target"
    with pytest.raises(ValueError, match=rf"^ADVFEAT_VECTOR_BITS = {asked}: {rule}"):
        target.make(str(asked))


@pytest.mark.parametrize("asked", ["64", "1024", "wide", "256 "])
def test_what_is_no_width_is_refused(asked):
    with pytest.raises(ValueError, match=rf"^ADVFEAT_VECTOR_BITS = '{asked}': must be one of 128, 256, 512$"):
        target.make(asked)


SMALL = """
import json, sys
import numpy as np
sys.path[:0] = sys.argv[1:3]
from advfeat.kernels import jit, target
from test_engines import Case, get_engine

@jit.jit
def scale(x, out):
    for i in range(len(x)):
        out[i] = 3 * x[i] + 1

x = np.arange(99.0)
scale(x, x)
assembly = "".join(scale.inspect_asm().values())
for dtype in sys.argv[3:]:
    case = Case("several chunks", dtype=dtype)
    for value, truth in zip(case.call(get_engine("numba"), "loss_and_grad"), case.truth("loss_and_grad")):
        case.agree(value, truth)
wide = [bits for bits, register in ((512, "zmm"), (256, "ymm")) if register in assembly]
print(json.dumps({"bits": target.VECTOR_BITS, "wide": wide}))
"""


def at(bits, cache, *dtypes, **variables):
    """The program above in a process of its own: its width, and what it left in the folder of compiled kernels."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_CPU")}
    environment |= {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(cache), target.SWITCH: str(bits or "")} | variables
    before, program = set(cache.rglob("scale*.kernel")), cache / "small.py"
    program.write_text(SMALL)
    command = [sys.executable, str(program), *map(str, Path(__file__).parents[:2]), *dtypes]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout), set(cache.rglob("scale*.kernel")) - before


@pytest.mark.slow
def test_another_width_agrees_and_has_kernels_of_its_own(tmp_path):
    """Engine, LLVM's vectoriser and cache follow the switch; so they do Numba's own variables."""
    whole, first = at(None, tmp_path)
    narrow, second = at(128, tmp_path, "float32")
    assert narrow == {"bits": 128, "wide": []}
    assert len(first) == 1
    assert len(second) == (whole["bits"] > 128 or target.X86)
    generic, _ = at(None, tmp_path, NUMBA_CPU_NAME="generic")
    assert generic == narrow


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_command_line_names_the_width_or_refuses_it(bits):
    environment = os.environ | {"PYTHONPATH": str(ROOT), target.SWITCH: str(bits)}
    done = subprocess.run([sys.executable, "-m", "advfeat", "info"], env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        assert f"{bits}-bit vectors" in done.stdout
    else:
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert f"advfeat info: {target.SWITCH} = {bits}: must be at most" in done.stderr

"""Peak memory of adversarial training on W2 against data + weights + one perturbed copy + 64 MB.

``python benchmarks/memory.py`` (Linux).  Exit status 1 if the bound does not hold.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from advfeat.kernels import get_engine
from advfeat.kernels.cpu.engine import warm_up
from workloads import all_workloads, train


def resident(key: str) -> float:
    """MB of resident memory: VmRSS (now) or VmHWM (highest)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024 / 1e6


def main() -> int:
    warm_up("float32")
    load, engine = all_workloads("float32")["W2"], get_engine("numba")
    shape = load.n_runs, load.N, load.P, load.d
    before = resident("VmRSS")
    X, W = np.random.default_rng(0).standard_normal(shape, dtype=np.float32), load.W
    Path("/proc/self/clear_refs").write_text("5")  # the highest is from here on
    train(engine, load, engine.pack(X, load.y, load.n_runs), W, 3, "adversarial")
    used, data, weights = resident("VmHWM") - before, X.nbytes / 1e6, W.nbytes / 1e6
    bound = 2 * data + weights + 64
    print(f"data {data:.0f} MB, weights {weights:.1f} MB: {used:.0f} MB at the peak, bound {bound:.0f} MB")
    return int(used > bound)


if __name__ == "__main__":
    sys.exit(main())

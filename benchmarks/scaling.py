"""Time per adversarial iteration over N, d, K and R, with the slope of the necessary work drawn through the last point.

``python benchmarks/scaling.py [--out DIR]`` writes ``scaling.csv`` and ``scaling.png``.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from run import iterations, our_job, seconds
from workloads import Workload

BASE = Workload("scaling", n_runs=1, k=10, m=10, d=128, P=16, N=256, n_robust=2)
AXES = {
    "samples N": [replace(BASE, N=n) for n in (10, 32, 100, 320, 1000)],
    "dimension d": [replace(BASE, d=d) for d in (20, 32, 64, 128, 256, 512, 1024)],
    "neurons K": [replace(BASE, m=m) for m in (1, 2, 5, 10, 20, 50, 100)],
    "runs R": [replace(BASE, n_runs=r, k=5, m=5, d=32, N=50, n_robust=1) for r in (1, 2, 3, 8, 32, 128)],
}
VALUE = {"samples N": "N", "dimension d": "d", "neurons K": "K", "runs R": "n_runs"}


def milliseconds(load, rounds=9):
    job = our_job(load, "adversarial", 1)
    job()  # compiles, or loads
    n = iterations(load, "adversarial", job)
    job = our_job(load, "adversarial", n)
    job()
    return 1e3 * np.median([seconds(job) for _ in range(rounds)]) / n


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    for ax, (axis, loads) in zip(axes, AXES.items(), strict=True):
        values = [getattr(load, VALUE[axis]) for load in loads]
        times = [milliseconds(load) for load in loads]
        work = np.array([load.flops("adversarial") for load in loads])
        for load, value, time, flops in zip(loads, values, times, work, strict=True):
            rows.append({"axis": axis, "value": value, "shape": load.shape, "ms": time, "gflops": flops / time / 1e6})
            print(f"{axis:<12}{value:>6}{time:>10.3f} ms{flops / time / 1e6:>8.0f} GFLOP/s", flush=True)
        ax.loglog(values, times, "o-", ms=4, color="#4477aa", label="measured")
        ax.loglog(values, times[-1] * work / work[-1], "--", lw=1, color="black", label="necessary work")
        ax.set_xlabel(axis)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("ms per adversarial iteration")
    axes[0].legend(frameon=False)
    figure.savefig(args.out / "scaling.png", dpi=150)
    with open(args.out / "scaling.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()

"""The benchmark suite: our engine and JAX on the same work, in turn, in one process.

``python benchmarks/run.py [--quick] [--out DIR]`` (extra ``bench``; ``make bench``, ``make bench-quick``).  Every row
is first checked against the float64 reference, ours and JAX's alike.  Then all of JAX's variants are tried, the fastest
is timed in turn with ours and with the machine's multiply-add peak, and the table shows medians, the median of the
ratios of one round each, and the fraction of the peak that the necessary work is.  Written: ``results.csv`` (one row
per measurement), ``table.md``, ``chart.png``.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from datetime import date
from pathlib import Path

import numpy as np
from advfeat.kernels import get_engine
from advfeat.kernels.cpu.engine import get_num_threads
from llvmlite.binding import get_host_cpu_name
from machine import copy_bandwidth, multiply_add_peak
from workloads import ASCENT, RHO, Q, all_workloads, pgd, reference_step, taken_away, train

ROWS = [
    ("default", "float32", ("standard", "adversarial", "PGD-20", "interval")),
    ("W1", "float32", ("standard", "adversarial", "PGD-20", "interval")),
    ("W1", "float64", ("standard", "adversarial", "PGD-20")),
    ("W2", "float32", ("standard", "adversarial", "PGD-20")),
    ("W2", "float64", ("standard", "adversarial")),
    ("W3", "float32", ("standard", "adversarial", "PGD-20")),
    ("W3", "float64", ("standard", "adversarial", "PGD-20")),
    ("W4", "float32", ("standard", "adversarial")),
]
QUICK = [("W1", "float32", ("standard", "adversarial")), ("W3", "float32", ("standard",))]
LAST = 1e-2  # of the margin taken away: PGD's last iterate against its best
SECONDS = 0.15  # of one timed call, where a step is shorter
ERROR = {"float32": 1e-4, "float64": 1e-11}  # largest error relative to the largest number; two engines' roundings


def seconds(job):
    start = time.perf_counter()
    job()
    took = time.perf_counter() - start
    time.sleep(0.05)  # worker threads of a BLAS or of XLA may spin on for a while
    return took


def check(load, step, ours, theirs):
    """One step, ours and every variant of theirs, against the reference on the first runs."""
    expected = reference_step(load, step)
    for name, job in {"advfeat": ours, **theirs}.items():
        found = job()
        if step in ASCENT:
            found = np.asarray(found).reshape(load.W.shape)[: len(expected)] - load.W[: len(expected)]
        elif step == "interval":
            found = np.asarray(found[0])[: len(expected)]
        elif name == "advfeat":
            found = taken_away(load, margins=found[1][: len(expected)])
        else:  # JAX goes on where we rest: compared on the samples that stand, where its last iterate is about the best
            found = taken_away(load, X=np.asarray(found).reshape(load.X.shape)[: len(expected)])
            found = np.where(taken_away(load, margins=np.zeros_like(expected)) > expected, found, expected)
        error = np.abs(found - expected).max() / np.abs(expected).max()
        limit = ERROR[load.dtype] * (1 if step == "interval" else 10)  # small differences of weights or margins
        limit = LAST if step == "PGD-20" and name != "advfeat" else limit
        if not error < limit:
            raise SystemExit(f"{load.name} {load.dtype} {step}: {name} differs from the reference by {error:.1e}")


def our_job(load, step, n_iter):
    engine = get_engine("numba")
    if step == "PGD-20":
        batch = engine.pack(load.X, load.predicted, load.n_runs)
        return lambda: pgd(engine, load, batch, load.W, load.start)
    batch = engine.pack(load.X, load.y, load.n_runs)
    if step == "interval":
        return lambda: engine.interval(load.W, batch, Q, RHO, load.shift)

    def job():
        W = load.W.copy()
        train(engine, load, batch, W, n_iter, step)
        return W

    return job


def peer_jobs(load, step, n_iter):
    from jax_peer import Peer

    return Peer(load).jobs(step, n_iter)


def iterations(load, step, job):
    """How many iterations make one timed call: about SECONDS, judged by one that is already compiled, 3 at least."""
    if step not in ASCENT:
        return 1
    return int(np.clip(SECONDS / max(seconds(job), 1e-6), 3, 1000))


def measure(load, step, budget):
    """Rows of one workload and step."""
    ours, theirs = our_job(load, step, 1), peer_jobs(load, step, 1)
    check(load, step, ours, theirs)
    n_ours = iterations(load, step, ours)
    n_theirs = iterations(load, step, min(theirs.values(), key=seconds))
    ours, theirs = our_job(load, step, n_ours), peer_jobs(load, step, n_theirs)
    ours()
    tried = {}
    for name, job in theirs.items():
        job()
        tried[name] = min(seconds(job) for _ in range(2)) / n_theirs
    best = min(tried, key=tried.get)
    rounds = []
    begin = time.perf_counter()
    while len(rounds) < 3 or (time.perf_counter() - begin < budget and len(rounds) < 25):
        peak = multiply_add_peak(load.dtype, get_num_threads())
        rounds.append((seconds(ours) / n_ours, seconds(theirs[best]) / n_theirs, peak))
    rounds = np.array(rounds)
    work, rate = load.flops(step), load.flops(step) / rounds[:, 0] / 1e9
    row = {
        "workload": load.name,
        "shape": load.shape,
        "dtype": load.dtype,
        "step": step,
        "rounds": len(rounds),
        "gflop": work / 1e9,
        "mbytes": load.bytes(step) / 1e6,
        "peak_gflops": np.median(rounds[:, 2]),
    }
    yield row | {
        "engine": "advfeat",
        "variant": "numba",
        **_spread(rounds[:, 0]),
        "gflops": np.median(rate),
        "peak_fraction": np.median(rate / rounds[:, 2]),
        "ratio": np.median(rounds[:, 1] / rounds[:, 0]),
    }
    rate = work / np.median(rounds[:, 1]) / 1e9
    yield row | {"engine": "jax", "variant": best, **_spread(rounds[:, 1]), "gflops": rate}
    for name, time_taken in tried.items():
        if name != best:
            yield row | {"engine": "jax", "variant": name, "rounds": 2, "median_ms": 1e3 * time_taken}


def _spread(times):
    low, middle, high = np.quantile(times, (0.25, 0.5, 0.75)) * 1e3
    return {"median_ms": middle, "q25_ms": low, "q75_ms": high}


def table(rows):
    """Markdown: ours beside JAX's best."""
    lines = ["| workload | dtype | step | advfeat | JAX, best variant | JAX / ours | of the peak |", "| --- " * 7 + "|"]
    for ours, theirs in zip(*([r for r in rows if "q25_ms" in r and r["engine"] == e] for e in ("advfeat", "jax"))):
        dense = ours["workload"] == "W4"  # repeated patches are kept once: the dense work is not done
        lines.append(
            f"| {ours['workload']} | {ours['dtype']} | {ours['step']} | {ours['median_ms']:.3g} ms | "
            f"{theirs['median_ms']:.3g} ms ({theirs['variant']}) | {ours['ratio']:.2f} | "
            f"{'' if dense else format(ours['peak_fraction'], '.0%')} |"
        )
    return "\n".join(lines) + "\n"


def chart(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [r for r in rows if "ratio" in r and r["workload"] != "W4"]
    names = [f"{r['workload']} {r['dtype'][5:]}-bit {r['step']}" for r in rows]
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.28 * len(rows) + 1.2), sharey=True, layout="constrained")
    for ax, key, label, line in zip(
        axes, ("ratio", "peak_fraction"), ("times as fast as the best JAX variant", "of the multiply-add peak"), (1, 1)
    ):
        bars = ax.barh(names, [r[key] for r in rows], color="#4477aa")
        ax.bar_label(bars, [f"{r[key]:.2f}" for r in rows], padding=3, fontsize=8)
        ax.axvline(line, color="black", lw=0.8, ls="--")
        ax.set_xlabel(label)
        ax.margins(x=0.12)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="W1 and W3 in float32 only, about a minute")
    parser.add_argument("--only", metavar="WORKLOAD", help="one workload")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    threads = get_num_threads()
    machine = {
        "date": date.today().isoformat(),
        "cpu": get_host_cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "copy_gbs": copy_bandwidth(threads),
    }
    peaks = ", ".join(f"{multiply_add_peak(dtype, threads):.0f} GFLOP/s {dtype}" for dtype in ("float32", "float64"))
    print(f"{machine['cpu']}, {threads} threads: multiply-add peak {peaks}; copy {machine['copy_gbs']:.0f} GB/s\n")
    rows = []
    for name, dtype, steps in QUICK if args.quick else ROWS:
        if args.only in (None, name):
            load = all_workloads(dtype)[name]
            for step in steps:
                rows += [machine | row for row in measure(load, step, budget=4 if args.quick else 5)]
                print(table(rows).splitlines()[-1], flush=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(args.out / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    (args.out / "table.md").write_text(table(rows))
    chart(rows, args.out / "chart.png")
    print(f"\n{args.out}/results.csv, table.md, chart.png")


if __name__ == "__main__":
    main()

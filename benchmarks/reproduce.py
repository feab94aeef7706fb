"""Wall time, start, share of kernels and peak memory of ``advfeat reproduce``, with an empty and a filled cache.

``python benchmarks/reproduce.py [--seeds 4] [--pairs 1]``.  Each run is a fresh process; a pair is a run with an empty
cache and one right after it with what that has filled, and the last line is the median over pairs of what the first
takes more.  *Start*: from the process's start to the
first training iteration; all kernels needed before it are compiled or loaded by then, and the networks at iteration 0
have been attacked.  *In kernels*: share of the wall time inside compiled kernels, first calls not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def child(seeds: int, folder: Path, started: float) -> None:
    """One run, with the engine's calls timed."""
    from advfeat.kernels.cpu import kernels as cpu_kernels
    from advfeat.kernels.cpu.engine import NumbaEngine

    from advfeat import cli

    spread, inside, first, seen = NumbaEngine._spread, [], [], set()

    def timed(self, kernel, *args, **options):
        if kernel in (cpu_kernels.train, cpu_kernels.train_together) and not first:
            first.append(time.time() - started)
        begin = time.perf_counter()
        spread(self, kernel, *args, **options)
        if kernel in seen:
            inside.append(time.perf_counter() - begin)
        seen.add(kernel)

    NumbaEngine._spread = timed
    status = cli.main(["reproduce", "--seeds", str(seeds), "--out", str(folder / "run")])
    measured = {"status": status, "wall": time.time() - started, "start": first[0], "kernels": sum(inside)}
    (folder / "measured.json").write_text(json.dumps(measured))


def measure(folder: Path, cache: Path, seeds: int) -> dict:
    """What `child` measured in a fresh process, and its peak resident memory in MiB."""
    folder.mkdir()
    command = [sys.executable, __file__, "--seeds", str(seeds), "--child", str(folder), str(time.time())]
    process = subprocess.Popen(command, env=os.environ | {"NUMBA_CACHE_DIR": str(cache)}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: exit status {status}")
    return json.loads((folder / "measured.json").read_text()) | {"memory": usage.ru_maxrss / 1024}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.seeds, Path(args.child[0]), float(args.child[1]))
    print(f"{'':<30}{'wall':>8}{'start':>9}{'in kernels':>13}{'peak memory':>14}")
    over = []
    for _ in range(args.pairs):
        with tempfile.TemporaryDirectory() as name:
            walls = []
            for label in ("first run, kernels compiled", "second run, kernels cached"):
                found = measure(Path(name) / label.split()[0], Path(name) / "cache", args.seeds)
                share = found["kernels"] / found["wall"]
                times = f"{found['wall']:>6.1f} s{found['start']:>7.1f} s"
                print(f"{label:<30}{times}{share:>13.0%}{found['memory']:>10.0f} MiB", flush=True)
                walls.append(found["wall"])
            over.append(walls[0] - walls[1])
    print(f"first over second, median of {len(over)}: {statistics.median(over):.1f} s")


if __name__ == "__main__":
    main()

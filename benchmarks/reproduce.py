"""Wall time and peak memory of ``advfeat reproduce``, with an empty and then a filled cache of compiled kernels.

``python benchmarks/reproduce.py [--seeds 4]``.  Each run is a fresh process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def measure(folder: Path, name: str, seeds: int) -> tuple[float, float]:
    """Seconds, and MiB of peak resident memory."""
    command = [sys.executable, "-m", "advfeat", "reproduce", "--seeds", str(seeds), "--out", str(folder / name)]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache")}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)}: exit status {status}")
    return seconds, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("first run, kernels compiled", "second run, kernels cached"):
            seconds, memory = measure(Path(folder), name.split(",")[0], args.seeds)
            print(f"{name:<30}{seconds:>7.1f} s{memory:>8.0f} MiB")


if __name__ == "__main__":
    main()

"""Peak memory of the example sweeps, all processes together, against their --memory.

``python benchmarks/sweep_memory.py [--only winner] [--memory 1GB]`` (extra ``bench``).  The command runs as a user runs
it; every 20 ms the memory of the process and of all its descendants is added up: proportional set size (PSS), in which
a page shared by two processes counts once.  *Over*: the peak less --memory; the promise is at most 200 MB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import psutil

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def memory_of(process: psutil.Process) -> list[int]:
    """PSS of a process and its descendants, in bytes; those that end while being looked at count 0."""
    found = []
    for one in [process, *process.children(recursive=True)]:
        try:
            found.append(one.memory_full_info().pss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def peak(spec: Path, memory: str, options) -> tuple[float, float, float]:
    """Peak of all processes together, peak of the largest, in bytes, and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "advfeat", "sweep", str(spec), "--out", folder, "--memory", memory, *options]
        begin, together, largest = time.perf_counter(), 0, 0
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        process = psutil.Process(run.pid)
        while run.poll() is None:
            found = memory_of(process)
            together, largest = max(together, sum(found)), max(largest, max(found, default=0))
            time.sleep(0.02)
        if run.returncode:
            raise SystemExit(f"{' '.join(command)}: exit status {run.returncode}")
        return together, largest, time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME", nargs="+", help="examples by name")
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--jobs", default=None)
    args = parser.parse_args()
    options = [] if args.jobs is None else ["--jobs", args.jobs]
    from advfeat.sweeps.driver import bytes_of

    print(f"{'example':<18}{'--memory':>10}{'peak':>10}{'over':>10}{'largest process':>18}{'time':>9}")
    for spec in sorted(EXAMPLES.glob("*.toml")):
        if args.only and spec.stem not in args.only:
            continue
        if "sweep" not in tomllib.loads(spec.read_text()):
            continue
        together, largest, seconds = peak(spec, args.memory, options)
        over = max(0.0, together - bytes_of(args.memory))
        row = f"{together / 1e6:>7.0f} MB{over / 1e6:>7.0f} MB{largest / 1e6:>15.0f} MB{seconds:>7.0f} s"
        print(f"{spec.stem:<18}{args.memory:>10}{row}", flush=True)


if __name__ == "__main__":
    main()

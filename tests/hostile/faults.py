"""Faults, one after the other, and a table of what came of them: ``make faults``.

Each work is a command as users give it, into a folder of its own.  Undisturbed it gives the files that every disturbed
one must give in the end, however it was stopped; a stop must be a kill, or a named error of one line.  Nothing here is
random but the moments, drawn by a seed.  Needs Linux and root (a small file system is mounted, privileges are dropped).
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]
from cli_runs import ROOT, TINY  # noqa: E402
from finished import content  # noqa: E402
from sweep_specs import spec, write  # noqa: E402

from advfeat.core import store  # noqa: E402

PICTURES = ["dataset=digits", "network=convnet", "width=3", "depth=2", "batch_size=40", "n_train=300", "n_test=60",
            "n_ascent=1", "pgd_steps=2"]  # fmt: skip
EXPERIMENT = [*PICTURES, "epochs=1", "n_seeds=2", "n_images=10", "inversion_steps=20", "n_starts=1", "bootstrap=100",
              "attack_steps=10", "learners=[\"kin\"]"]  # fmt: skip
TABLES = {"axes": {"alpha": [1.5, 2.0, 2.5], "eps": [0.5, 1.0]},
          "base": {"n_classes": 3, "n_neurons": 4, "patch_dim": 12, "n_patches": 8, "n_train": 6, "n_test": 6,
                   "n_iter": 400, "n_records": 10, "rho": 10.0, "lr": 2.0, "n_seeds": 2}}  # fmt: skip
#: `advfeat ...` in a process that first does what some lines of Python say; it waits for a moment, for two to meet.
RUNNER = """
import os, random, sys, time
from advfeat.cli import main
from advfeat.experiments import figure3
{before}
time.sleep(max(float(sys.argv[1]) - time.monotonic(), 0))
code = main(sys.argv[2:])
sys.stdout.flush()
os._exit(code)
"""
JUMPS = """
real, draw = time.time, random.Random(0)
time.time = lambda: real() + draw.uniform(-1e9, 1e9)
"""
#: Before a command: root that obeys the modes of its own files.
OBEDIENT = ["setpriv", "--bounding-set=-dac_override"]


class Works:
    """Commands by name, each into the folder that it is given, and what the undisturbed ones wrote."""

    def __init__(self, top: Path):
        self.top, base = top, top / "base"
        base.mkdir()
        write(
            base / "spec.toml",
            spec(engine="both", training="adversarial", metrics=["A", "B", "robust_accuracy"]) | TABLES,
        )
        reproduce = ["reproduce", *TINY, "n_iter=2000"]
        train = ["images", "train", "--set", *PICTURES, "epochs=6"]
        experiment = ["images", "reproduce", "--jobs", 1, "--set", *EXPERIMENT]
        self.lines = {
            "reproduce": lambda out: [*reproduce, "--out", out],
            "sweep": lambda out: ["sweep", base / "spec.toml", "--jobs", 2, "--largest-batch", 2, "--out", out],
            "robustness": lambda out: ["robustness", base / "reproduce", "--eps-grid", "0.2:1:6", "--samples", 6,
                                       "--rtol", 0.1, "--max-nodes", 8, "--out", out],
            "image training": lambda out: [*train, "--out", out],
            "evaluation": lambda out: ["images", "evaluate", base / "image training", "--samples", 60, "--out", out],
            "inversion": lambda out: ["images", "invert", base / "image training", "--set", "n_images=20",
                                      "n_starts=2", "inversion_steps=150", "--out", out],
            "attack": lambda out: ["images", "attack", base / "image training", "--source", 1, "--target", 7,
                                   "--steps", 200, "--out", out],
            "experiment": lambda out: [*experiment, "--out", out],
        }  # fmt: skip
        self.seconds = {}
        for name in self.lines:
            begin = time.monotonic()
            status, said = finished(self.lines[name](base / name))
            if status:
                raise SystemExit(f"{name}, undisturbed: {said}")
            self.seconds[name] = time.monotonic() - begin
        shutil.copytree(base / "experiment", base / "tables")
        self.lines["tables"] = lambda out: ["images", "table", out]
        self.seconds["tables"] = self.seconds["evaluation"]

    def folder(self, name: str) -> Path:
        """A new folder for a work, which holds what the work needs to be there."""
        out = Path(tempfile.mkdtemp(dir=self.top)) / "out"
        if name == "tables":
            shutil.copytree(self.top / "base" / "experiment", out)
        return out

    def judge(self, name: str, out: Path) -> str:
        """What is wrong with the files of a work that was disturbed and then ended, or ""."""
        mine, wanted = content(out), content(self.top / "base" / name)
        left = [str(path) for path in out.rglob(".*") if store.TEMPORARY.fullmatch(path.name)]
        wrong = sorted(key for key in mine.keys() | wanted.keys() if mine.get(key) != wanted.get(key))
        return f"differs in {wrong[:3]}" * bool(wrong) + f"left {left[:3]}" * bool(left)


# ------------------------------------------------------------------ processes
def start(line, before: str = "", at: float = 0.0, prefix=(), **options) -> subprocess.Popen:
    command = [*prefix, sys.executable, "-c", RUNNER.format(before=before), str(at), *map(str, line)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
                            start_new_session=True, **options)  # fmt: skip


def ended(process) -> tuple[int, str]:
    said = process.communicate(timeout=900)[1]
    lines = [line for line in said.strip().split("\n") if line and "%|" not in line]
    return process.returncode, "\n".join(lines)


def finished(line, **options) -> tuple[int, str]:
    return ended(start(line, **options))


def named(status: int, said: str, *words: str) -> str:
    """What is wrong with how a command stopped: it must be one line of the library's, with one of the words."""
    last = said.split("\n")[-1]
    if status in (1, 2) and last.startswith("advfeat ") and "Traceback" not in said:
        return "" if any(word in last for word in words) else f"says: {last}"
    return f"status {status}: {said[-300:]}"


def continued(works: Works, name: str, out: Path) -> str:
    status, said = finished(works.lines[name](out))
    return works.judge(name, out) if status == 0 else f"does not continue: {said[-300:]}"


# ------------------------------------------------------------------ the faults: a name, and what is wrong or ""
def kills(works: Works, many: int):
    """kill -9 at a random moment, with all processes, and once more from the start."""
    names = list(works.lines)
    for trial in range(many):
        name, rng = names[trial % len(names)], np.random.default_rng(trial)
        out = works.folder(name)
        process = start(works.lines[name](out))
        time.sleep(rng.uniform(0.1, 1.0) * works.seconds[name])
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        time.sleep(0.6)  # workers end soon after the one that they worked for
        yield name, continued(works, name, out)


def full_disk(works: Works, many: int):
    """A disk of so many kilobytes, and then one that is large enough."""
    for trial in range(many):
        name = list(works.lines)[trial % len(works.lines)]
        if name == "tables":
            name = "reproduce"
        out, size = works.folder(name), int(16 * 1.7**trial)
        disk = out.parent / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o"]
        subprocess.run([*mount, f"size={size}k", "tmpfs", disk], check=True)
        try:
            status, said = finished(works.lines[name](disk / "out"))
            wrong = named(status, said, "No space left", "cannot be used") if status else ""
            subprocess.run([*mount, "remount,size=200m", "tmpfs", disk], check=True)
            yield f"{name}, {size} KB", wrong or continued(works, name, disk / "out")
        finally:
            subprocess.run(["umount", "--lazy", disk], check=True)


def read_only(works: Works):
    """A folder without leave to write, half way and from the start; a write by hand must fail there first."""
    for name in works.lines:
        for half in (False, True):
            out = works.folder(name)
            if half:
                process = start(works.lines[name](out))
                time.sleep(0.6 * works.seconds[name])
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                time.sleep(0.6)
            out.mkdir(exist_ok=True)
            for path in (out, *out.rglob("*")):
                path.chmod(0o555 if path.is_dir() else 0o444)
            probe = subprocess.run([*OBEDIENT, "touch", out / "probe"], capture_output=True, check=False)
            if probe.returncode == 0:
                yield name, "the probe could write"
                continue
            before = content(out)
            status, said = finished(works.lines[name](out), prefix=OBEDIENT)
            wrong = (
                named(status, said, "Permission denied", "cannot be used",
                "cannot be locked") if status else "went on"
            )
            wrong = wrong or "changed something" * (content(out) != before)
            for path in (out, *out.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
            yield f"{name}, half way" if half else name, wrong or continued(works, name, out)


def two_writers(works: Works, many: int):
    """The same command twice at once: each ends well, or is refused because the other writes."""
    for name in works.lines:
        for trial in range(many):
            out, at = works.folder(name), time.monotonic() + 4
            late = np.random.default_rng(trial).uniform(0, 0.3)
            both = [start(works.lines[name](out), at=at), start(works.lines[name](out), at=at + late)]
            results = [ended(process) for process in both]
            wrong = [named(*result, "another process is writing") for result in results if result[0]]
            done = any(status == 0 for status, _ in results)
            yield name, "; ".join(filter(None, wrong)) or ("" if done else "nobody ended") or works.judge(name, out)


def dead_workers(works: Works, many: int):
    """A worker killed, under joblib and under dask: a named error and a state that continues, or all is done."""
    from distributed import LocalCluster

    for trial in range(many):
        out, wait = works.folder("sweep"), np.random.default_rng(trial).uniform(0.5, 1.0) * works.seconds["sweep"]
        process = start(works.lines["sweep"](out))
        time.sleep(wait)
        for pid in children(process.pid)[-1:]:
            os.kill(pid, signal.SIGKILL)
        status, said = ended(process)
        wrong = named(status, said, "was killed", "worker") if status else ""
        yield "joblib", wrong or continued(works, "sweep", out)
    for trial in range(many):
        out = works.folder("sweep")
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
            process = start([*works.lines["sweep"](out), "--scheduler", f"dask={cluster.scheduler_address}"])
            time.sleep(np.random.default_rng(trial).uniform(0.5, 1.0) * works.seconds["sweep"])
            os.kill(cluster.workers[0].process.pid, signal.SIGKILL)
            status, said = ended(process)
        wrong = named(status, said, "worker", "dask") if status else ""
        yield "dask", wrong or continued(works, "sweep", out)


def children(pid: int) -> list[int]:
    """Processes below one that use this library, by Linux's own list."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        found += [int(child)] * (b"loky" in command and b"resource_tracker" not in command) + children(int(child))
    return found


def other_clocks(works: Works):
    """A clock that jumps by decades at every look."""
    for name in works.lines:
        out = works.folder(name)
        status, said = finished(works.lines[name](out), before=JUMPS)
        yield name, said[-300:] if status else works.judge(name, out)


def other_temporaries(works: Works):
    """TMPDIR on another file system, and one that is not there."""
    for name in works.lines:
        for where in ("/dev/shm", "/nowhere"):
            out = works.folder(name)
            status, said = finished(works.lines[name](out), env={"TMPDIR": where})
            yield f"{name}, {where}", said[-300:] if status else works.judge(name, out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="moments of kill -9 (default 100)")
    parser.add_argument("--only", nargs="+", help="these faults, by the first word of their line")
    arguments = parser.parse_args()
    threading.Timer(3 * 3600, os._exit, (9,)).start()  # what hangs ends
    with tempfile.TemporaryDirectory() as top:
        Path(top).chmod(0o755)
        works = Works(Path(top))
        faults = {
            "kill -9 at a random moment": lambda: kills(works, arguments.kills),
            "disk full": lambda: full_disk(works, 10),
            "folder read-only": lambda: read_only(works),
            "two writers": lambda: two_writers(works, 2),
            "worker killed": lambda: dead_workers(works, 4),
            "clock that jumps": lambda: other_clocks(works),
            "TMPDIR elsewhere": lambda: other_temporaries(works),
        }
        lines, failed = [], []
        for fault, trials in faults.items():
            if arguments.only and fault.split()[0] not in arguments.only:
                continue
            begin, seen = time.monotonic(), Counter()
            for name, wrong in trials():
                seen["right"] += not wrong
                seen["trials"] += 1
                if wrong:
                    failed.append(f"{fault}: {name}: {wrong}")
                    print(failed[-1], file=sys.stderr, flush=True)
            lines.append(
                f"| {fault} | {seen['trials']} | {seen['trials'] - seen['right']} | {time.monotonic() - begin:.0f} s |"
            )
            print(lines[-1], flush=True)
    print("\n".join(["| fault | trials | failures | time |", "| --- | ---: | ---: | ---: |", *lines]))
    return bool(failed)


if __name__ == "__main__":
    os._exit(main())

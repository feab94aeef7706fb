"""Two versions of the package side by side: the same bits, the same speed?

``python benchmarks/compare.py [REV] [--only NAME ...] [--quick] [--rounds N]``: speed.
``python benchmarks/compare.py [REV] --bits [--only NAME ...] [--widths 128 ...] [--digests]``: bits.

REV, by default the commit that the file ``benchmarks/golden`` names, and the working tree as it stands are installed
side by side, with the dependencies of the Python that runs this script, and each keeps its compiled kernels to itself
(in ``benchmark-results/compare``, so that a later call finds them).  A commit that must change bits says which, and
names a new commit in ``benchmarks/golden``: its first line, a full hash; lines behind it, from # on, say why.

Speed: three processes, REV, the tree and REV once more, take turns at every job of ``compare_times.py``.  A job is
slower where the median of its rounds' ratios tree / REV exceeds 1.05 by more than the spread of REV / REV, the larger
distance from 1 of that ratio's quartiles, and where a second measurement of twice the rounds says so too.  Exit status
1 where a job is slower or fails.  Leave the machine alone meanwhile.

Bits: both versions compute the groups of arrays of ``compare_bits.py``, the Numba engine's at every vector width that
this machine and both versions have (``ADVFEAT_VECTOR_BITS``; a version that does not know it has the machine's own).
A group is equal where its arrays have the same names, dtypes, shapes and bytes; otherwise the table says which differ,
and by how much of the array's largest number.  Exit status 1 where one differs.  ``--digests`` prints SHA-256 hashes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version as version_of
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np

BENCHMARKS = Path(__file__).resolve().parent
ROOT = BENCHMARKS.parent
GOLDEN = BENCHMARKS / "golden"
WIDTHS = (128, 256, 512)
KEPT = 6  # versions with their compiled kernels, some 100 MB each
ALLOWED = 0.05  # slower, beyond the spread of REV beside itself
SECONDS = 0.2  # of one timed call, where a job is shorter
#: Settings of the user's shell that would make the two versions, or two machines, differ.
DROPPED = ("ADVFEAT_VECTOR_BITS", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "OPENBLAS_CORETYPE", "PYTHONPATH")


def golden(text: str | None = None) -> str:
    """The full hash in the first line of ``benchmarks/golden``, or of `text`."""
    first = (GOLDEN.read_text() if text is None else text).partition("\n")[0].strip()
    if not re.fullmatch(r"[0-9a-f]{40}", first):
        raise ValueError(f"benchmarks/golden: its first line is {first!r}, it must be a commit's full hash")
    return first


# ------------------------------------------------------------------ two versions, installed
@dataclass(frozen=True)
class Version:
    """One version of the package, installed in ``folder / "site"``, with its compiled kernels beside it."""

    label: str
    folder: Path

    def environment(self, width: int | None = None) -> dict[str, str]:
        """Environment variables of its processes; `width` in bits, or None for the machine's own."""
        kept = {name: value for name, value in os.environ.items() if name not in DROPPED}
        kept |= {"PYTHONPATH": str(self.folder / "site")}
        kept |= {"NUMBA_CACHE_DIR": str(self.folder / f"kernels-{width or 'own'}")}
        return kept | ({} if width is None else {"ADVFEAT_VECTOR_BITS": str(width)})

    def start(self, *arguments, width=None, **options) -> subprocess.Popen:
        """A process of Python with this version; text comes in and out."""
        command = [sys.executable, *map(str, arguments)]
        options = {"text": True, "cwd": self.folder} | options
        return subprocess.Popen(command, env=self.environment(width), **options)

    def says(self, *arguments, width=None, errors=subprocess.DEVNULL) -> str | None:
        """What such a process prints, or None where it fails; `errors` is where its error messages go."""
        process = self.start(*arguments, width=width, stdout=subprocess.PIPE, stderr=errors)
        text = process.communicate()[0]
        return None if process.returncode else text


@cache
def width_of(version: Version, wanted: int | None = None) -> int | None:
    """Bits of a vector register when `wanted` is asked for, as `advfeat info` states them; None: not at all."""
    found = re.search(r"(\d+)-bit vectors", version.says("-m", "advfeat", "info", width=wanted) or "")
    return int(found[1]) if found else None


def _git(*arguments) -> bytes:
    done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.decode().strip()}")
    return done.stdout


def _commit(rev: str, source: Path) -> str:
    """The files of a commit, put into `source`; what it is."""
    with tarfile.open(fileobj=BytesIO(_git("archive", "--format=tar", rev))) as files:
        files.extractall(source, filter="data")
    return _git("log", "-1", "--format=%h %s", rev).decode().strip()


def _tree(source: Path) -> str:
    """The files of the working tree, changes and new ones included, put into `source`; what it is."""
    for name in _git("ls-files", "-co", "--exclude-standard", "-z").decode().split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    changed = len(_git("status", "--porcelain").splitlines())
    return f"the working tree, {_git('log', '-1', '--format=%h %s').decode().strip()}, {changed} files changed"


def install(label: str, fill, work: Path) -> Version:
    """Install what `fill` puts into a folder; equal sources share an installation and its kernels."""
    with tempfile.TemporaryDirectory(dir=work) as name:
        source, site = Path(name) / "source", Path(name) / "site"
        source.mkdir()
        print(f"{label}: {fill(source)}", flush=True)
        options = ["--quiet", "--no-deps", "--no-compile", "--disable-pip-version-check", "--target", str(site)]
        if find_spec("setuptools"):
            options.append("--no-build-isolation")  # nothing has to be fetched
        subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
        total = hashlib.sha256(repr((sys.version, *map(version_of, ("numpy", "numba", "llvmlite")))).encode())
        for path in sorted((site / "advfeat").rglob("*")):
            if path.is_file():
                total.update(f"{path.relative_to(site)}\0".encode() + path.read_bytes())
        folder = work / total.hexdigest()[:16]
        if not folder.exists():
            folder.mkdir()
            site.rename(folder / "site")
    os.utime(folder)
    version = Version(label, folder)
    imported = (version.says("-c", "import advfeat; print(advfeat.__file__)") or "an import error").strip()
    if not Path(imported).is_relative_to(folder):
        raise SystemExit(f"{label}: Python finds {imported}, not what was installed in {folder}")
    return version


def forget(work: Path, used) -> None:
    """Remove all versions but those in use and the last few."""
    folders = sorted((f for f in work.iterdir() if f.is_dir()), key=lambda f: f.stat().st_mtime)
    for folder in folders[:-KEPT]:
        if folder not in used:
            shutil.rmtree(folder, ignore_errors=True)


# ------------------------------------------------------------------ bits
def digest(array: np.ndarray) -> str:
    """SHA-256 of dtype, shape and bytes."""
    array = np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).hexdigest()


def difference(a: np.ndarray | None, b: np.ndarray | None) -> str | None:
    """What differs between an array of REV and the tree's, None where the bits are the same."""
    if a is None or b is None:
        return f"missing in {'REV' if a is None else 'the tree'}"
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{a.dtype}{list(a.shape)} -> {b.dtype}{list(b.shape)}"
    if digest(a) == digest(b):
        return None
    if a.dtype.kind not in "fiub":
        return f"{np.sum(a != b)} of {a.size}"
    x, y = (np.asarray(array, np.float64) for array in (a, b))
    if (np.isfinite(x) != np.isfinite(y)).any():
        return "finite in one alone"
    x, y = (np.where(np.isfinite(array), array, 0) for array in (x, y))
    largest = max(np.abs(x).max(), np.abs(y).max())
    apart = np.abs(x - y).max() / largest if largest else 0.0
    return f"{apart:.1e}" if apart else "only in signs of zero or in infinities and NaN"


def differences(a: dict, b: dict) -> dict[str, str]:
    """Name of an array -> what differs; a group that failed differs from everything, itself included."""
    found = {name: difference(a.get(name), b.get(name)) for name in sorted({*a, *b})}
    for label, arrays in (("REV", a), ("the tree", b)):
        if "error" in arrays:
            return {"error": f"in {label}: {arrays['error']}"}
    if not found:
        return {"error": "no arrays at all"}
    return {name: what for name, what in found.items() if what is not None}


def computed(version: Version, names, width, folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of the groups `names`, by one version."""
    file = folder / "arrays.npz"
    process = version.start(BENCHMARKS / "compare_bits.py", file, *names, width=width)
    if process.wait():
        raise SystemExit(f"{version.label}: compare_bits.py ended with exit status {process.returncode}")
    out = {name: {} for name in names}
    with np.load(file, allow_pickle=False) as held:
        for key in held.files:
            name, _, array = key.partition("|")
            out[name][array] = held[key]
    file.unlink()
    return out


def passes(names, versions, widths):
    """(bits of a register or None for the machine's own, names) of every pass: groups that know no vectors once."""
    own = {width_of(version) for version in versions}
    own = own.pop() if len(own) == 1 else None
    yield None, [name for name in names if "numba" not in name.split("/") or own is None or own in widths]
    for bits in widths:
        missing = [v.label for v in versions if bits != own and width_of(v, bits) != bits]
        if missing:
            print(f"{bits} bits: not on this machine, or not a choice in {' and '.join(missing)}")
        elif bits != own:
            yield bits, [name for name in names if "numba" in name.split("/")]


def compare_bits(versions, names, widths, digests: bool) -> bool:
    """Print a row per group and width; whether all are equal."""
    different, total = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for width, chosen in passes(names, versions, widths):
            if not chosen:
                continue
            print(f"\n{width or width_of(versions[0]) or '?'}-bit vectors")
            a, b = (computed(version, chosen, width, Path(folder)) for version in versions)
            for name in chosen:
                found, total = differences(a[name], b[name]), total + len(b[name])
                print(f"  {name:<52}{len(b[name]):>5} {'equal' if not found else _told(found)}")
                different += [name] * bool(found)
                for key in sorted({*a[name], *b[name]}) if digests else ():
                    hashes = [digest(side[key])[:16] if key in side else "-" for side in (a[name], b[name])]
                    print(f"    {key:<50} {'  '.join(dict.fromkeys(hashes))}")
    print(f"\n{total} arrays: {f'{len(different)} groups differ' if different else 'all equal'}")
    return not different


def _told(found: dict[str, str], most: int = 4) -> str:
    """Some of the differences of a group in a line, the others counted."""
    told = ", ".join(f"{name} {what}" for name, what in list(found.items())[:most])
    return f"differ: {told}" + (f" and {len(found) - most} more" if len(found) > most else "")


# ------------------------------------------------------------------ speed
class Worker:
    """A process that waits for jobs of ``compare_times.py``."""

    def __init__(self, version: Version):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.version = version
        self.process = version.start(BENCHMARKS / "compare_times.py", **pipes)

    def ask(self, name: str, repeats: int) -> float:
        """Seconds of `repeats` calls of a job, prepared before; RuntimeError where it fails."""
        print(name, repeats, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().strip()
        if not answer or answer.startswith("error"):
            raise RuntimeError(f"{self.version.label}: {answer or 'the process ended'}")
        return float(answer)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def verdict(tree, again) -> tuple[str, float, float]:
    """"slower", "faster" or "same", the median ratio tree / REV, and the spread of the A/A pair, from the ratios of
    every round: tree / REV and REV / REV."""
    ratio = float(np.median(tree))
    spread = float(np.abs(np.quantile(again, (0.25, 0.75)) - 1).max())
    if ratio > 1 + ALLOWED + spread:
        return "slower", ratio, spread
    return "faster" if ratio < 1 - ALLOWED - spread else "same", ratio, spread


def rounds_of(workers, name, n_rounds):
    """Seconds per call, (n_rounds, 3): REV, the tree, REV again, in turn; every other round backwards."""
    once = min([worker.ask(name, 1) for worker in workers])
    repeats = int(np.clip(SECONDS / once, 1, 10_000))
    out = np.empty((n_rounds, len(workers)))
    for i in range(n_rounds):
        for j in range(len(workers))[:: 1 if i % 2 == 0 else -1]:
            out[i, j] = workers[j].ask(name, repeats) / repeats
    return out


def judged(workers, name, n_rounds):
    """Seconds of every round, verdict, ratio and spread of a job.  What looks slower is measured once more, in twice as
    many rounds, and judged by those alone: of many jobs one is out of luck."""
    for n in (n_rounds, 2 * n_rounds):
        seconds = rounds_of(workers, name, n)
        said, *numbers = verdict(*(seconds[:, 1:] / seconds[:, :1]).T)
        if said != "slower":
            break
    return seconds, said, *numbers


def compare_times(versions, names, n_rounds) -> bool:
    """Print a row per job; whether none is slower and none failed."""
    rev, tree = versions
    workers = [Worker(version) for version in (rev, tree, rev)]
    print(f"\n{'job':<36}{'REV':>12}{'tree':>12}{'tree / REV':>12}{'REV / REV':>12}   verdict")
    bad = []
    try:
        for name in names:
            try:
                n = min(n_rounds, 5) if name.startswith("process/") else n_rounds
                seconds, said, ratio, spread = judged(workers, name, n)
            except RuntimeError as error:
                print(f"{name:<36} failed in {error}", flush=True)
                bad.append(name)
                continue
            a, b = 1e3 * np.median(seconds[:, :2], axis=0)
            print(f"{name:<36}{a:>9.4g} ms{b:>9.4g} ms{ratio:>12.3f}{f'1 ± {spread:.3f}':>12}   {said}", flush=True)
            bad += [name] * (said == "slower")
    finally:
        for worker in workers:
            worker.end()
    print(f"\n{len(names)} jobs: {', '.join(bad) + ' slower, or failed' if bad else 'none slower'}")
    return not bad


# ------------------------------------------------------------------ the command
def chosen(names, parts, default) -> list[str]:
    """The names that contain one of `parts`; without parts, `default`."""
    if not parts:
        return list(default)
    first = dict.fromkeys(name.partition("/")[0] for name in names)
    for part in parts:
        if not any(part in name for name in names):
            raise ValueError(f"--only {part}: is part of no name; they begin with {', '.join(first)}")
    return [name for name in names if any(part in name for part in parts)]


def names_of(version: Version, args) -> tuple[list[str], list[str]]:
    """The groups or jobs that are compared by default, and all there are."""
    script = BENCHMARKS / ("compare_bits.py" if args.bits else "compare_times.py")
    told = version.says(script, "--names", errors=None)
    if told is None:
        raise SystemExit(f"{version.label}: {script.name} cannot name its work")
    every = dict(line.split() for line in told.splitlines())  # name -> when
    return [name for name, when in every.items() if when == "always" or (when == "slow" and not args.quick)], [*every]


def arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rev", metavar="REV", nargs="?", help="commit to compare with (default: in benchmarks/golden)")
    parser.add_argument("--bits", action="store_true", help="compare results bit by bit instead of speed")
    parser.add_argument("--only", metavar="NAME", nargs="+", help="jobs or groups whose names contain one of these")
    parser.add_argument("--quick", action="store_true", help="speed: fewer rounds and jobs, no `reproduce`")
    parser.add_argument("--rounds", type=int, help="speed: how many (default 11; with --quick, and of processes, 5)")
    parser.add_argument("--widths", type=int, nargs="+", choices=WIDTHS, default=WIDTHS, help="bits: of vectors")
    parser.add_argument("--digests", action="store_true", help="bits: print a hash of every array")
    parser.add_argument("--work", type=Path, default=ROOT / "benchmark-results" / "compare", help="what is installed")
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = arguments(argv)
    rev = _git("rev-parse", "--verify", f"{args.rev or golden()}^{{commit}}").decode().strip()
    args.work.mkdir(parents=True, exist_ok=True)
    work = args.work.resolve()
    tree = install("tree", _tree, work)
    default, every = names_of(tree, args)
    try:
        names = chosen(every, args.only, default)
    except ValueError as error:
        raise SystemExit(f"compare.py: {error}") from None
    versions = install("REV", lambda source: _commit(rev, source), work), tree
    forget(work, [version.folder for version in versions])
    if versions[0].folder == tree.folder:
        print("Both have the same source.")
    if args.bits:
        return 0 if compare_bits(versions, names, args.widths, args.digests) else 1
    return 0 if compare_times(versions, names, args.rounds or (5 if args.quick else 11)) else 1


if __name__ == "__main__":
    sys.exit(main())

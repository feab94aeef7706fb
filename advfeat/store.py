"""Files: written to a temporary name and renamed, read without pickle, refused when not what they should be."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from . import __version__
from .kernels import gpu

FORMAT = "advfeat-1"


class CheckpointError(ValueError):
    """A file is truncated, foreign, or belongs to another run; nothing was overwritten."""


def write(path, body: Callable, mode: str = "wb") -> None:
    """Call `body(file)` on a temporary file beside `path`, then rename it: `path` is whole or as it was before."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            body(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save_npz(path, **arrays) -> None:
    held = io.BytesIO()  # stays open: a ZipFile that Ctrl-C leaves half done writes its end when it is collected
    np.savez(held, **arrays)
    write(path, lambda file: file.write(held.getbuffer()))


def load_npz(path) -> dict[str, np.ndarray]:
    """All arrays of an .npz, without pickle."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        held = np.load(path, allow_pickle=False)
        if not isinstance(held, np.lib.npyio.NpzFile):
            raise CheckpointError(f"{path}: not an .npz file")
        with held:
            return {name: held[name] for name in held.files}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, KeyError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: truncated or not an .npz file ({error})") from None


def save_json(path, value) -> None:
    write(path, lambda file: file.write(json.dumps(value, indent=2, sort_keys=True) + "\n"), "w")


def load_json(path) -> dict:
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: truncated or not JSON ({error})") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not written by advfeat (format {FORMAT})")
    return value


def digest(*arrays) -> str:
    """SHA-256 of arrays' dtypes, shapes and bytes."""
    total = hashlib.sha256()
    for a in arrays:
        total.update(f"{a.dtype.str}{a.shape}".encode())
        total.update(np.ascontiguousarray(a).tobytes())
    return total.hexdigest()


def make_folder(path) -> Path:
    """The folder `path`, created if need be; an error that names it when it cannot be written."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise PermissionError(f"{path}: cannot be used as an output folder ({error.strerror or error})") from None
    return path


def environment() -> dict[str, str]:
    """Versions, commit and machine, for the record."""
    names = ("numpy", "scipy", "numba", "llvmlite", "matplotlib", "joblib", "pyarrow")
    found = {"advfeat": __version__, "python": platform.python_version()} | {n: metadata.version(n) for n in names}
    here = Path(__file__).resolve().parent.parent
    if (here / ".git").exists():
        command = ["git", "-C", str(here), "describe", "--always", "--dirty"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found["commit"] = done.stdout.strip()
    if gpu.device.cache_info().currsize:  # in use
        found["gpu"] = gpu.device().name
    return found | {"machine": platform.machine(), "system": platform.system(), "cores": str(os.cpu_count())}


@dataclass(frozen=True)
class Run:
    """A run folder in memory: configuration, environment, and per training its network and history.

    A folder of one training (`train(..., run_dir=...)`) has the one name "run"; one of `advfeat reproduce` has
    "standard" and "adversarial".
    """

    path: Path
    config: dict
    environment: dict
    nets: dict
    histories: dict[str, dict[str, np.ndarray]]

    @property
    def net(self):
        return self._only(self.nets)

    @property
    def history(self):
        return self._only(self.histories)

    def _only(self, table):
        if len(table) != 1:
            raise ValueError(f"{self.path}: holds the trainings {sorted(table)}; choose one of them")
        return next(iter(table.values()))


def load(run_folder) -> Run:
    """Read a run folder; its networks may be those of an unfinished run (see history["iteration"]).

    Raises FileNotFoundError or CheckpointError, naming the file.
    """
    from .training import read_checkpoint

    path = Path(run_folder)
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{path}: not a run folder, it has no config.json")
    config = load_json(path / "config.json")
    arms = config.get("trainings", ["run"])
    places = {arm: path if arm == "run" else path / arm for arm in arms}
    backend = config["config"].get("backend", "numba")
    states = {arm: read_checkpoint(place / "checkpoint.npz", backend) for arm, place in places.items()}
    return Run(
        path,
        config["config"],
        config["environment"],
        {arm: state.net for arm, state in states.items()},
        {arm: state.history for arm, state in states.items()},
    )

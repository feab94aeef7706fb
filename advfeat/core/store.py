"""Files: written to a temporary name and renamed, read without pickle, refused when not what they should be."""

import hashlib
import io
import json
import os
import platform
import secrets
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np

from ..kernels.gpu import device as gpu_device
from ._version import __version__

FORMAT = "advfeat-1"


class CheckpointError(ValueError):
    """A file is truncated, foreign, or belongs to another run; nothing was overwritten."""


def write(path, body: Callable, mode: str = "wb") -> None:
    """Call `body(file)` on a new file beside `path`, then rename it: `path` is whole or as it was before, and stays so
    when the power goes.  Permissions are those of any new file."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with open(temporary, mode.replace("w", "x"), encoding=None if "b" in mode else "utf-8") as file:
            body(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder) -> None:
    """Make renames and removals in a folder last; Windows does it by itself."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
    here = Path(__file__).resolve().parents[2]
    if (here / ".git").exists():
        command = ["git", "-C", str(here), "describe", "--always", "--dirty"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found["commit"] = done.stdout.strip()
    if gpu_device.connect.cache_info().currsize:  # in use
        found["gpu"] = gpu_device.connect().name
    return found | {"machine": platform.machine(), "system": platform.system(), "cores": str(os.cpu_count())}

"""Files: written to a temporary name and renamed, read without pickle, refused when not what they should be."""

import hashlib
import io
import json
import math
import os
import platform
import re
import secrets
import stat
import subprocess
import tempfile
import tomllib
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np

from ..kernels.gpu import device as gpu_device
from . import checks, memory
from ._version import __version__

FORMAT, OLDER = "advfeat-2", ("advfeat-1",)
#: What a killed `write` leaves; version 0.1.0 had eight letters at the end.
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}|\..+\.(npz|json|parquet|toml|png|pdf|html|md)\.[0-9a-z_]{8}")
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
BLOCK = 1 << 20  # bytes read at once
MOST_TOML = 1_000_000  # bytes
DEEPEST = 32  # tables in tables
LONG_KEY = re.compile(rb"""(?:(?:(?<![\w-])[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){32}""")


class CheckpointError(ValueError):
    """A file is truncated, foreign, or belongs to another run; nothing was overwritten."""


def write(path, body: Callable, mode: str = "wb") -> None:
    """Call `body(file)` on a new file beside `path`, then rename it: `path` is whole or as it was before, and stays so
    when the power goes.  Permissions are those of any new file."""
    path = checks.path("path", path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with open(temporary, mode.replace("w", "x"), encoding=None if "b" in mode else "utf-8") as file:
            body(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise not_written(path, error) from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def not_written(path, error: OSError) -> OSError:
    """What a disk that is full, or a folder that must not be written, has against a file, naming it."""
    why = f"cannot be written ({error.strerror or error}); what is done is kept"
    return OSError(error.errno, why, str(path))


def sync_folder(folder) -> None:
    """Make renames and removals in a folder last; Windows does it by itself."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_temporaries(folder) -> None:
    """Remove what writers that were killed left in a folder; only for who holds its lock (:class:`core.lock.Lock`)."""
    for path in Path(folder).iterdir():
        if TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


# ------------------------------------------------------------------ arrays
def save_npz(path, **arrays) -> None:
    """Arrays by name, as an .npz: the checksums that a zip keeps of its members guard them."""
    held = io.BytesIO()  # stays open: a ZipFile that Ctrl-C leaves half done writes its end when it is collected
    np.savez(held, **arrays)
    write(path, lambda file: file.write(held.getbuffer()))


def load_npz(path) -> dict[str, np.ndarray]:
    """All arrays of an .npz, without pickle.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    CheckpointError
        The file is no .npz of plain arrays, or damaged: a member does not read back as it was written, is missing,
        named twice, encrypted, compressed in another way than NumPy's, or not as large as its header says.
    MemoryError
        The arrays do not fit into memory (`memory.require`); nothing was read.
    """
    with opened(path) as file:
        try:
            with zipfile.ZipFile(file) as held:
                members = _members(held, file)
                sizes = sum(member.file_size for member in members)
                if sizes > BLOCK:  # to ask takes a millisecond
                    what = f"{path}: reading its {len(members)} arrays"
                    memory.require(sizes, what, "close other programs, or use a larger machine")
                return {member.filename.removesuffix(".npy"): _array(held, member) for member in members}
        except MemoryError:
            raise
        except Exception as error:  # whatever a flipped bit can look like: another compression, a password ...
            raise CheckpointError(f"{path}: truncated or not an .npz file ({error or type(error).__name__})") from None


def opened(path, pipe: bool = False):
    """The file, to be read; the errors of what is none name it.  A pipe, for which one might wait for ever, only where
    `pipe` says so, and no device, which has no end."""
    try:
        path = checks.path("path", path)
        kind = os.stat(path).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind) or (pipe and stat.S_ISFIFO(kind))):
            raise CheckpointError(f"{path}: cannot be read, it is no file")
        return open(path, "rb")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path}: is a folder, not a file") from None
    except CheckpointError:
        raise
    except (OSError, UnicodeError) as error:  # a part of the path is a file, it is too long, may not be read ...
        raise CheckpointError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _members(held: zipfile.ZipFile, file) -> list[zipfile.ZipInfo]:
    """The members of an .npz; ValueError where there are others than NumPy writes, or fewer than its end counts."""
    members = held.infolist()
    file.seek(-22, os.SEEK_END)  # the end record of a zip without comment; ZipFile does not read the count in it
    if int.from_bytes(file.read(22)[10:12], "little") != min(len(members), 0xFFFF):
        raise ValueError("not as many members as it counts")
    if len({member.filename for member in members}) < len(members):
        raise ValueError("two of its members have one name")
    for member in members:
        name, packed, size = member.filename, member.compress_size, member.file_size
        if not name.endswith(".npy"):
            raise ValueError(f"{name} is no array")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is compressed by method {member.compress_type}, NumPy's are 0 and 8")
        # deflate makes nothing smaller than 1 / 1032 of its size
        if size != packed if member.compress_type == zipfile.ZIP_STORED else size > 1032 * (packed + 1):
            raise ValueError(f"{name} cannot hold {size:,} bytes in {packed:,}")
    return members


def _array(held: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array; ValueError before anything is allocated where its header does not fit the member's size."""
    with held.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"{member.filename} has a header of version {version}")
        try:
            shape, fortran, dtype = HEADERS[version](file)
        except MemoryError:  # what Python's parser calls an expression that is nested too deep
            raise ValueError(f"{member.filename} has a malformed header") from None
        size = member.file_size - file.tell()
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds Python objects")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size:
            raise ValueError(f"{member.filename} has {size:,} bytes, which {shape} of {dtype} do not take")
        array = np.empty(shape[::-1] if fortran else shape, dtype)
        if size:
            rest = memoryview(array.reshape(-1).view(np.uint8))
            while rest:
                n = file.readinto(rest[:BLOCK])
                if not n:
                    raise ValueError(f"{member.filename} ends {len(rest):,} bytes too soon")
                rest = rest[n:]
        if file.read(1):  # which is also what checks the sum at a member's end
            raise ValueError(f"{member.filename} goes on after its end")
        return array.T if fortran else array


def save_state(path, head: dict, arrays: dict[str, np.ndarray]) -> None:
    """A state to be continued from: an .npz of `arrays`, of `head` as JSON, and of a digest over all of them."""
    if reserved := sorted({"head", "digest"} & set(arrays)):
        raise ValueError(f"arrays: none can be named {reserved[0]!r}, the state has a member of this name")
    held = {"head": np.array(json.dumps(head | {"format": FORMAT}, sort_keys=True)), **arrays}
    save_npz(path, digest=np.array(digest_of(held)), **held)


def load_state(path) -> tuple[dict, dict[str, np.ndarray]]:
    """(head, arrays) of `save_state`.  Raises as `load_npz`, and CheckpointError for what is none or was changed."""
    return state_of(path, load_npz(path))


def state_of(path, arrays: dict[str, np.ndarray]) -> tuple[dict, dict[str, np.ndarray]]:
    """(head, arrays) of a state that `load_npz` has read."""
    try:
        known, head = str(arrays.pop("digest")), _parse(str(arrays["head"]))
    except (KeyError, ValueError, RecursionError):
        raise CheckpointError(f"{path}: is not a state that advfeat saved") from None
    _check_format(path, head.pop("format", None), (FORMAT,))
    if known != digest_of(arrays):
        raise CheckpointError(f"{path}: damaged, its content is not what was written")
    del arrays["head"]
    return head, arrays


# ------------------------------------------------------------------ text
def save_json(path, value: dict) -> None:
    """A JSON file of `value`, with the format and a digest of what it holds."""
    text = json.dumps({key: held for key, held in value.items() if key not in ("format", "digest")}, sort_keys=True)
    held = json.loads(text)  # as it will be read: tuples as lists, keys as text
    held |= {"format": FORMAT, "digest": digest_of_text(held)}
    write(path, lambda file: file.write(json.dumps(held, indent=2, sort_keys=True) + "\n"), "w")


def load_json(path) -> dict:
    """What `save_json` was given, or a file of version 0.1.0, which has no digest.

    Raises FileNotFoundError where there is no such file, CheckpointError for what is no JSON of advfeat or was changed.
    """
    with opened(path) as file:
        try:
            value = _parse(file.read().decode())
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: truncated or not JSON ({error})") from None
    found = value.pop("format", None)
    _check_format(path, found, (*OLDER, FORMAT))
    known = value.pop("digest", None)
    if found == FORMAT and known != digest_of_text(value):
        raise CheckpointError(f"{path}: damaged, its content is not what was written")
    return value


def read_toml(path) -> dict:
    """A user's TOML file.

    Raises FileNotFoundError, and ValueError for what is larger than a megabyte, nested too deep, or no TOML.
    """
    with opened(path, pipe=True) as file:
        text = file.read(MOST_TOML + 1)
    if len(text) > MOST_TOML:
        raise ValueError(f"{path}: has more than {MOST_TOML:,} bytes, too many for a file of settings")
    try:
        if LONG_KEY.search(text):  # which makes a table in a table in a table ..., in a time that grows as the square
            raise RecursionError("nested too deep")
        value = tomllib.loads(text.decode())
        _check_depth(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a TOML file ({error})") from None
    return value


def _parse(text: str) -> dict:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    _check_depth(value)
    return value


def _check_depth(value) -> None:
    """RecursionError for what is nested so deep that those who read it would raise one."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner for held in level for inner in (held.values() if isinstance(held, dict) else held)
            if isinstance(inner, (dict, list))
        ]  # fmt: skip
    if level:
        raise RecursionError("nested too deep")


def _check_format(path, found, known) -> None:
    number = re.fullmatch("advfeat-([0-9]{1,9})", str(found))
    if number and int(number[1]) > int(FORMAT.partition("-")[2]):
        raise CheckpointError(
            f"{path}: was written by a newer advfeat (format {found}; this version reads up to {FORMAT})"
        )
    if found not in known:
        raise CheckpointError(f"{path}: not written by advfeat (format {FORMAT})")


def conform(path, value, shape, where: str = "") -> None:
    """Raise CheckpointError, naming the file and the place in it, unless a JSON value has a shape.

    A shape is a type or a tuple of types; a set of texts; [shape] for a list, [shape, shape] for one of two; or
    {key: shape} for an object, which may have other keys too: "key?" may be missing, and {str: shape} is any.
    """
    if isinstance(shape, dict):
        conform(path, value, dict, where)
        for key, inner in (dict.fromkeys(value, shape[str]) if str in shape else shape).items():
            name = key.removesuffix("?")
            if name in value:
                conform(path, value[name], inner, f"{where}{name}.")
            elif name == key:
                raise CheckpointError(f"{path}: {where}{name} is missing")
    elif isinstance(shape, list):
        conform(path, value, list, where)
        shapes = shape * len(value) if len(shape) == 1 else shape
        if len(value) != len(shapes):
            raise CheckpointError(f"{path}: {where}{len(shapes)} entries are needed, not {len(value)}")
        for i, (held, inner) in enumerate(zip(value, shapes)):
            conform(path, held, inner, f"{where}{i}.")
    else:
        fits = isinstance(value, str) and value in shape if isinstance(shape, set) else isinstance(value, shape)
        if not fits or (shape is int and isinstance(value, bool)):
            raise CheckpointError(f"{path}: {where.removesuffix('.') or 'content'} = {value!r:.60} cannot be")


# ------------------------------------------------------------------ digests
def digest_of(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of named arrays, whatever their order."""
    return digest(np.array(sorted(arrays)), *(arrays[name] for name in sorted(arrays)))


def digest_of_file(path) -> str:
    """SHA-256 of a file's bytes."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_text(value: dict) -> str:
    """SHA-256 of what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


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

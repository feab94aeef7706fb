"""File formats of image sets: IDX (MNIST, Fashion-MNIST), rows of bytes (CIFAR10), MATLAB (SVHN), .npz (Keras).

Every reader returns images uint8 (N, C, H, W) and labels int64 (N,).  What is not of its format, or damaged, is a
CheckpointError that names the file; nothing in a file is executed.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from pathlib import Path

import numpy as np

from ...core import memory, store
from ...core.store import CheckpointError

IMAGES, LABELS = 0x00000803, 0x00000801  # of IDX: bytes in three axes, or in one
CIFAR_ROW, CIFAR_SHAPE = 1 + 3 * 32 * 32, (3, 32, 32)
ADVICE = "close other programs, or use a larger machine"


def read_idx(path, magic: int, digest: tuple[int, str] | None = None) -> np.ndarray:
    """The bytes of an IDX file, plain or .gz, in the shape that its header says.

    `digest`: (n, MD5 of the decompressed file) of the official one, checked where there are as many entries.
    """
    path = Path(path)
    try:
        with store.opened(path) as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
            found, size, shape = file.read(4), 4, []
            if int.from_bytes(found, "big") != magic:
                raise CheckpointError(f"{path}: not an IDX file of {'images' if magic == IMAGES else 'labels'}")
            for _ in range(magic & 0xFF):
                shape.append(int.from_bytes(file.read(4), "big"))
                size += 4
            n = int(np.prod(shape, dtype=object))
            if not 0 < n <= 2**40:
                raise CheckpointError(f"{path}: its header says {tuple(shape)}, which no file of images has")
            memory.require(n, f"{path}: reading {n:,} bytes", ADVICE)
            held = bytearray()  # grows with what is there, whatever the header says
            while len(held) <= n and (part := file.read(min(store.BLOCK, n + 1 - len(held)))):
                held += part
    except (FileNotFoundError, CheckpointError):
        raise
    except (EOFError, OSError, zlib.error) as error:
        raise CheckpointError(f"{path}: truncated or damaged ({error})") from None
    if len(held) != n:
        what = f"only {len(held):,}" if len(held) < n else "more"
        raise CheckpointError(f"{path}: its header says {tuple(shape)}, {n:,} bytes, but it holds {what}")
    if digest is not None and shape[0] == digest[0]:
        head = magic.to_bytes(4, "big") + b"".join(side.to_bytes(4, "big") for side in shape)
        if hashlib.md5(head + held, usedforsecurity=False).hexdigest() != digest[1]:
            raise CheckpointError(f"{path}: is as long as the official file, but not the same; fetch it again")
    return np.frombuffer(held, np.uint8).reshape(shape)


def read_idx_pair(images, labels, digests=(None, None)) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of two IDX files."""
    X, y = read_idx(images, IMAGES, digests[0]), read_idx(labels, LABELS, digests[1])
    if len(X) != len(y):
        raise CheckpointError(f"{labels}: has {len(y):,} labels, and {Path(images).name} {len(X):,} images")
    return X[:, None], _labels(labels, y)


def read_cifar10(paths) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of files of CIFAR10's binary version, in this order: rows of label, red, green, blue."""
    found = []
    for path in map(Path, paths):
        with store.opened(path) as file:
            memory.require_numbers(path.stat().st_size // 4, f"{path}: reading it", ADVICE)
            held = file.read()
        found.append(_cifar10_rows(path, held))
    return _cifar10(found)


def read_cifar10_archive(path, members) -> tuple[np.ndarray, np.ndarray]:
    """The same from cifar-10-binary.tar.gz as it was downloaded; nothing is unpacked."""
    found = []
    try:
        with store.opened(path) as raw, tarfile.open(fileobj=raw, mode="r:gz") as archive:
            for member in members:
                about = archive.getmember(f"cifar-10-batches-bin/{member}")
                if not about.isfile() or about.size > 10**8:
                    raise CheckpointError(f"{path}: {about.name} is no file of CIFAR10")
                found.append(_cifar10_rows(f"{path}: {member}", archive.extractfile(about).read()))
    except (tarfile.TarError, KeyError, EOFError, OSError, zlib.error) as error:
        raise CheckpointError(f"{path}: truncated, damaged or not CIFAR10's binary version ({error})") from None
    return _cifar10(found)


def _cifar10_rows(path, held: bytes) -> np.ndarray:
    if not held or len(held) % CIFAR_ROW:
        raise CheckpointError(f"{path}: has {len(held):,} bytes, which are no rows of {CIFAR_ROW:,}")
    rows = np.frombuffer(held, np.uint8).reshape(-1, CIFAR_ROW)
    _labels(path, rows[:, 0])
    return rows


def _cifar10(found: list[np.ndarray]):
    rows = np.concatenate(found)
    return rows[:, 1:].reshape(-1, *CIFAR_SHAPE), rows[:, 0].astype(np.int64)


def read_svhn(path, digest: tuple[int, str] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one of SVHN's files of cropped digits, whose label 10 is the digit 0.

    `digest`: (n, MD5 of the file) of the official one, checked where there are as many images.
    """
    from scipy.io import loadmat, whosmat  # takes 60 ms, which who reads another set need not wait for
    from scipy.io.matlab import MatReadError

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        about = {name: (shape, kind) for name, shape, kind in whosmat(path)}
        (shape, kind), (labels, _) = about["X"], about["y"]
        if len(shape) != 4 or shape[:3] != (32, 32, 3) or kind != "uint8" or int(np.prod(labels)) != shape[3]:
            raise CheckpointError(f"{path}: X is {shape} of {kind} and y {labels}; SVHN's are (32, 32, 3, N), (N, 1)")
        memory.require(2 * int(np.prod(shape, dtype=object)), f"{path}: reading {shape} images", ADVICE)
        held = loadmat(path, variable_names=["X", "y"])
        X, y = held["X"], held["y"].ravel()
    except (CheckpointError, MemoryError):
        raise
    except (KeyError, MatReadError) as error:
        raise CheckpointError(f"{path}: not a file of SVHN's cropped digits ({error})") from None
    except Exception as error:  # whatever a damaged file can look like to SciPy's reader
        raise CheckpointError(f"{path}: damaged or no MATLAB file ({error or type(error).__name__})") from None
    if X.shape != shape or y.dtype.kind not in "iu" or y.min() < 1 or y.max() > 10:
        raise CheckpointError(f"{path}: its labels must be integers 1 ... 10, of which 10 is the digit 0")
    if digest is not None and len(y) == digest[0]:
        with open(path, "rb") as file:
            if hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() != digest[1]:
                raise CheckpointError(f"{path}: is as large as the official file, but not the same; fetch it again")
    return np.ascontiguousarray(np.moveaxis(X, (3, 2), (0, 1))), y.astype(np.int64) % 10


def read_keras(path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of Keras's mnist.npz."""
    held = store.load_npz(path)
    try:
        X, y = held[f"x_{part}"], held[f"y_{part}"]
    except KeyError as error:
        raise CheckpointError(
            f"{path}: has no array {error}, Keras's file has x_train, y_train, x_test, y_test"
        ) from None
    if X.ndim != 3 or X.dtype != np.uint8 or y.shape != X.shape[:1] or y.dtype.kind not in "iu" or not len(X):
        raise CheckpointError(f"{path}: x_{part} is {X.shape} of {X.dtype} and y_{part} {y.shape} of {y.dtype}")
    return X[:, None], _labels(path, y)


def _labels(path, y) -> np.ndarray:
    if y.max(initial=0) > 9 or y.min(initial=0) < 0:
        raise CheckpointError(f"{path}: holds the label {int(y.max())}, there are ten classes 0 ... 9")
    return y.astype(np.int64)

"""Every image set by name: where its files may lie, and how they become samples."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from ...core import checks, memory
from ...core.data import Samples
from ...core.types import Dtype, IntArray
from . import files, packaged

Part = Literal["train", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
#: read(folder, part): images uint8 (N, C, H, W), labels and where they were found; None where there are no such files.
Reader: TypeAlias = Callable[[str | Path | None, Part], tuple[NDArray[np.uint8], IntArray, list[Path]] | None]
DIGITS = tuple("0123456789")
FASHION = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IDX_NAMES = {"train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
             "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")}  # fmt: skip
#: (entries, MD5 of the decompressed file) of images and labels.
MNIST_DIGESTS = {
    "train": ((60000, "6bbc9ace898e44ae57da46a324031adb"), (60000, "a25bea736e30d166cdddb491f175f624")),
    "test": ((10000, "2646ac647ad5339dbf082846283269ea"), (10000, "27ae3e4e09519cfbb04c329615203637")),
}
FASHION_DIGESTS = {
    "train": ((60000, "f4a8712d7a061bf5bd6d2ca38dc4d50a"), (60000, "9018921c3c673c538a1fc5bad174d6f9")),
    "test": ((10000, "8181f5470baa50b63fa0f6fddb340f0a"), (10000, "15d484375f8d13e6eb1aabb0c3f46965")),
}
#: (images, MD5 of the file).
SVHN_DIGESTS = {
    "train": (73257, "e26dedcc434d2e4c54c9b2d4a06d8373"),
    "test": (26032, "eb5a983be6a315427106f1b164d9cef3"),
}
CIFAR_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"
DEBIAN = Path("/usr/share/datasets")


@dataclass(frozen=True)
class DataSet:
    """An image set."""

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]  # of the training images' pixels per channel, as public recipes have it, and
    deviation: tuple[float, ...]
    read: Reader | None = None
    help: str = ""  # what to do where its files are missing


def cache_folder() -> Path:
    """Where `advfeat images fetch` puts files: ADVFEAT_DATA, else ~/.cache/advfeat/data."""
    given = os.environ.get("ADVFEAT_DATA")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else home / "advfeat" / "data"


def folders(name: str, given, *inside: str) -> list[Path]:
    """Where files may lie: in `given` alone, where it is, else where `fetch`, Keras and Debian put them; in each as
    they are and in torchvision's layout `inside`."""
    roots = [Path(given)] if given is not None else [
        cache_folder() / name, Path.home() / ".keras" / "datasets", Path.home() / ".keras" / "datasets" / name.replace(
            "_", "-"), DEBIAN / name.replace("_", "-")]  # fmt: skip
    return [folder for root in roots for folder in (root, *(root / one for one in inside))]


def _first(several: list[Path]) -> Path | None:
    return next((path for path in several if path.exists()), None)


def _idx(name: str, torchvision: str, digests):
    """Images and labels in IDX files, or of MNIST in Keras's."""

    def read(given, part):
        for folder in folders(name, given, torchvision):
            both = [_first([folder / one, folder / f"{one}.gz"]) for one in IDX_NAMES[part]]
            if all(both):
                return *files.read_idx_pair(*both, digests[part]), both
            if any(both):
                there, missing = (both[0], IDX_NAMES[part][1]) if both[0] else (both[1], IDX_NAMES[part][0])
                raise FileNotFoundError(f"{there}: the file {missing} is not beside it")
            if name == "mnist" and (folder / "mnist.npz").exists():
                return *files.read_keras(folder / "mnist.npz", part), [folder / "mnist.npz"]
        return None

    return read


def _cifar10(given, part):
    for folder in folders("cifar10", given, "cifar-10-batches-bin"):
        several = [folder / one for one in CIFAR_FILES[part]]
        if several[0].exists():
            several = [path for path in several if path.exists() or part == "test"]
            return *files.read_cifar10(several), several
        if (folder / CIFAR_ARCHIVE).exists():
            return *files.read_cifar10_archive(folder / CIFAR_ARCHIVE, CIFAR_FILES[part]), [folder / CIFAR_ARCHIVE]
        if (folder / "cifar-10-batches-py").exists() or (folder / "cifar-10-python.tar.gz").exists():
            what = "is CIFAR10's python version, whose pickles can run anything; the binary version is needed"
            raise FileNotFoundError(f"{folder}: {what}: advfeat images fetch cifar10")
    return None


def _svhn(given, part):
    path = _first([folder / f"{part}_32x32.mat" for folder in folders("svhn", given)])
    return path and (*files.read_svhn(path, SVHN_DIGESTS[part]), [path])


def _fetch(name: str) -> str:
    return f"advfeat images fetch {name} downloads it"


DataSetName = Literal["digits", "mnist_5k", "mnist", "fashion_mnist", "cifar10", "svhn"]
DATA_SETS: dict[str, DataSet] = {
    one.name: one
    for one in (
        DataSet("digits", (1, 8, 8), DIGITS, (0.3052,), (0.3760,)),
        DataSet("mnist_5k", (1, 28, 28), DIGITS, (0.1307,), (0.3081,)),
        DataSet("mnist", (1, 28, 28), DIGITS, (0.1307,), (0.3081,), _idx("mnist", "MNIST/raw", MNIST_DIGESTS),
                _fetch("mnist")),
        DataSet("fashion_mnist", (1, 28, 28), FASHION, (0.2860,), (0.3530,),
                _idx("fashion_mnist", "FashionMNIST/raw", FASHION_DIGESTS),
                f"{_fetch('fashion_mnist')}, Debian's package dataset-fashion-mnist has it"),
        DataSet("cifar10", (3, 32, 32), CIFAR, (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616), _cifar10,
                _fetch("cifar10")),
        DataSet("svhn", (3, 32, 32), DIGITS, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), _svhn,
                _fetch("svhn")),
    )
}  # fmt: skip
PACKAGED = {"digits": packaged.digits, "mnist_5k": packaged.mnist_5k}


def load(
    name: DataSetName,
    part: Part,
    folder: str | Path | None = None,
    *,
    n: int | None = None,
    rng: int = 0,
    dtype: Dtype = "float32",
) -> Samples:
    """The images of a set's `part` "train" or "test", (N, C, H, W) in [0, 1], and their labels.

    Parameters
    ----------
    name : a name of `DATA_SETS`
    folder : where its files are; by default where `fetch`, Keras and Debian put them.
    n : so many of them, drawn by the seed `rng`; all by default.
    dtype : float32 or float64.

    Raises
    ------
    FileNotFoundError
        There are no such files; the message says what to do.
    CheckpointError
        A file is damaged or of another format; the message names it.
    MemoryError
        The images do not fit; nothing was read.
    """
    return drawn_images(name, part, folder, n, rng, dtype, "n")


def drawn_images(name: DataSetName, part: Part, folder: str | Path | None, n: int | None, rng: int, dtype: Dtype,
                 n_is: str) -> Samples:  # fmt: skip
    """What `load` returns; messages call `n` as the caller's configuration does."""
    checks.choice("name", name, DATA_SETS)
    checks.choice("part", part, PARTS)
    data, dtype = DATA_SETS[name], checks.precision(dtype)
    if name in PACKAGED:
        held = PACKAGED[name](dtype=dtype)[PARTS.index(part)]
        X, y = held.X, held.y
    else:
        found = data.read(folder, part)
        if not found:
            where = "in its usual places" if folder is None else f"in {folder}"
            raise FileNotFoundError(f"{name}: its files are not {where}; {data.help}")
        X, y, sources = found
        if X.shape[1:] != data.shape:
            raise files.CheckpointError(f"{sources[0]}: its images are {X.shape[1:]}, those of {name} are {data.shape}")
    if n is not None:
        some = packaged.draw(len(X), checks.integer(n_is, n, 1, len(X)), rng)
        X, y = X[some], y[some]
    if X.dtype == np.uint8:
        memory.require(2 * X.size * dtype.itemsize, f"{name}: {len(y):,} images in {dtype}", "give a smaller n")
        X = X.astype(dtype) / dtype.type(255)
    return Samples(X, y)

"""Downloads of image sets, checked by their digests (pooch; extra "images")."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ...core import checks
from ...core.store import CheckpointError, make_folder
from . import catalogue

Downloaded = Literal["mnist", "fashion_mnist", "cifar10", "svhn"]
IDX = [one for part in catalogue.PARTS for one in catalogue.IDX_NAMES[part]]
#: Name -> the address in front of its files, and their names with what is known of them; of IDX files the digest is
#: that of what is in them, which the reader checks.
SOURCES = {
    "mnist": ("https://storage.googleapis.com/cvdf-datasets/mnist/", {f"{one}.gz": None for one in IDX}),
    "fashion_mnist": ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                      {f"{one}.gz": None for one in IDX}),
    "cifar10": ("https://www.cs.toronto.edu/~kriz/", {catalogue.CIFAR_ARCHIVE: "md5:c32a1d4ab5d03f1284b67883e8d87530"}),
    "svhn": ("http://ufldl.stanford.edu/housenumbers/",
             {f"{part}_32x32.mat": f"md5:{catalogue.SVHN_DIGESTS[part][1]}" for part in catalogue.PARTS}),
}  # fmt: skip


def fetch(
    name: Downloaded, folder: str | Path | None = None, *, address: str | None = None, progress: bool = False
) -> list[Path]:
    """Download the files of an image set into `folder` (default: where `load` looks); those that are there stay.

    `address` stands for the usual one in front of the files' names.  Raises ModuleNotFoundError without pooch,
    CheckpointError where a file is not the official one (it is removed), OSError where it cannot be had.
    """
    try:
        import pooch
    except ModuleNotFoundError:
        raise ModuleNotFoundError("the package pooch is missing: pip install 'advfeat[images]'") from None
    usual, several = SOURCES[checks.choice("name", name, SOURCES)]
    folder = make_folder(catalogue.cache_folder() / name if folder is None else folder)
    pooch.get_logger().setLevel("WARNING")
    found = []
    for file, known in several.items():
        try:
            path = pooch.retrieve((address or usual).rstrip("/") + "/" + file, known, fname=file, path=folder,
                                  progressbar=progress)  # fmt: skip
        except ValueError as error:
            raise CheckpointError(f"{file}: what was downloaded is not the official file ({error})") from None
        except Exception as error:  # whatever a library of downloads raises: no network, no such address
            raise OSError(f"{file}: cannot be downloaded ({error})") from None
        found.append(Path(path))
    for part in catalogue.PARTS:
        try:
            catalogue.DATA_SETS[name].read(folder, part)  # checks what is in them
        except CheckpointError:
            for path in found:
                path.unlink(missing_ok=True)
            raise
    return found

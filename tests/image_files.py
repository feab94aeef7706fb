"""Small files in the formats of the image sets, as their authors write them."""

import gzip
import io
import struct
import tarfile

import numpy as np
from scipy.io import savemat

MAGIC = {3: 0x00000803, 1: 0x00000801}


def drawn(n, shape, seed=0):
    """Images uint8 (n, *shape) that a network can tell apart, and labels 0 ... 9 in turn: stripes across or along, five
    distances of each."""
    rng = np.random.default_rng(seed)
    X, y = rng.integers(0, 60, (n, *shape), dtype=np.uint8), np.arange(n) % 10
    for x, label in zip(X, y):
        along, distance = divmod(int(label), 5)
        stripes = x.swapaxes(1, 2) if along else x
        stripes[:, :: distance + 2] = 230
    return X, y


def idx(array) -> bytes:
    head = struct.pack(f">I{array.ndim}I", MAGIC[array.ndim], *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_mnist(folder, n=40, zipped=True, seed=0, sides=(28, 28)):
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", n), ("t10k", n // 2)):
        X, y = drawn(count, (1, *sides), seed)
        for name, a in ((f"{part}-images-idx3-ubyte", X[:, 0]), (f"{part}-labels-idx1-ubyte", y)):
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(a)))
            else:
                (folder / name).write_bytes(idx(a))


def cifar10_rows(n, seed=0) -> bytes:
    X, y = drawn(n, (3, 32, 32), seed)
    return np.concatenate([y[:, None].astype(np.uint8), X.reshape(n, -1)], axis=1).tobytes()


def write_cifar10(folder, n=20, batches=5):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(1, batches + 1):
        (folder / f"data_batch_{i}.bin").write_bytes(cifar10_rows(n, i))
    (folder / "test_batch.bin").write_bytes(cifar10_rows(n))


def write_cifar10_archive(path, n=20):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
            held = cifar10_rows(n)
            about = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            about.size = len(held)
            archive.addfile(about, io.BytesIO(held))


def write_svhn(folder, n=40):
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", n), ("test", n // 2)):
        X, y = drawn(count, (3, 32, 32))
        labels = np.where(y == 0, 10, y).astype(np.uint8)[:, None]
        held = {"X": np.moveaxis(X, (0, 1), (3, 2)), "y": labels}
        savemat(folder / f"{part}_32x32.mat", held, do_compression=True)

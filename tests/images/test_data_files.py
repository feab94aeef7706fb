"""Image sets from files: the right pixels from the right places, and a named error for everything else."""

import gzip

import numpy as np
import pytest
from image_files import (
    cifar10_rows,
    drawn,
    idx,
    write_cifar10,
    write_cifar10_archive,
    write_mnist,
    write_svhn,
)
from scipy.io import savemat

from advfeat.core.store import CheckpointError
from advfeat.images.data import DATA_SETS, held_out, load


@pytest.fixture(autouse=True)
def empty_home(tmp_path, monkeypatch):
    """Nothing of this machine's own files is seen."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ADVFEAT_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr("advfeat.images.data.catalogue.DEBIAN", tmp_path / "debian")
    return tmp_path


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("inside", ["", "torchvision"])
def test_mnist_and_its_like(name, zipped, inside, tmp_path):
    layout = {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw"}[name] if inside else ""
    write_mnist(tmp_path / layout, zipped=zipped)
    for part, n in (("train", 40), ("test", 20)):
        data = load(name, part, tmp_path)
        X, y = drawn(n, (1, 28, 28))
        np.testing.assert_array_equal(data.X, (X / 255).astype(np.float32))
        np.testing.assert_array_equal(data.y, y)
        assert data.X.dtype == np.float32


def test_usual_places(tmp_path):
    write_mnist(tmp_path / "cache" / "mnist")
    write_mnist(tmp_path / "debian" / "fashion-mnist", seed=1)
    assert load("mnist", "train").X.shape == (40, 1, 28, 28)
    np.testing.assert_array_equal(load("fashion_mnist", "test").X * 255, drawn(20, (1, 28, 28), 1)[0])
    X, y = drawn(12, (1, 28, 28))
    folder = tmp_path / "home" / ".keras" / "datasets"
    folder.mkdir(parents=True)
    (tmp_path / "cache" / "mnist" / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="the file train-images-idx3-ubyte is not beside it"):
        load("mnist", "train")
    for path in (tmp_path / "cache" / "mnist").iterdir():
        path.unlink()
    np.savez(folder / "mnist.npz", x_train=X[:, 0], y_train=y, x_test=X[:5, 0], y_test=y[:5])
    np.testing.assert_array_equal(load("mnist", "test").y, y[:5])


@pytest.mark.parametrize("packed", [False, True])
def test_cifar10(packed, tmp_path):
    if packed:
        write_cifar10_archive(tmp_path / "cifar-10-binary.tar.gz")
    else:
        write_cifar10(tmp_path / "cifar-10-batches-bin")
    data, test = load("cifar10", "train", tmp_path, dtype="float64"), load("cifar10", "test", tmp_path)
    assert data.X.shape == (100, 3, 32, 32)
    assert data.X.dtype == np.float64
    np.testing.assert_array_equal(test.X, (drawn(20, (3, 32, 32))[0] / 255).astype(np.float32))
    np.testing.assert_array_equal(test.y, np.arange(20) % 10)


def test_svhns_label_10_is_the_digit_0(tmp_path):
    write_svhn(tmp_path)
    data = load("svhn", "train", tmp_path)
    X, y = drawn(40, (3, 32, 32))
    np.testing.assert_array_equal(data.y, y)
    np.testing.assert_array_equal(data.X, (X / 255).astype(np.float32))


def test_some_images_are_a_draw(tmp_path):
    write_mnist(tmp_path)
    some, again, other = (load("mnist", "train", tmp_path, n=30, rng=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(some.X, again.X)
    assert (some.y != other.y).any()
    whole = {x.tobytes(): y for x, y in zip(*(getattr(load("mnist", "train", tmp_path), a) for a in ("X", "y")))}
    assert all(whole[x.tobytes()] == y for x, y in zip(some.X, some.y))
    assert len({x.tobytes() for x in some.X}) == 30
    rest, held = held_out(some, 7, 0)
    assert {x.tobytes() for x in rest.X} | {x.tobytes() for x in held.X} == {x.tobytes() for x in some.X}
    assert len(held.X) == 7


@pytest.mark.parametrize("name", [name for name, one in DATA_SETS.items() if one.help])
def test_missing_files_are_one_line_that_says_what_to_do(name, tmp_path):
    for folder in (None, tmp_path):
        with pytest.raises(FileNotFoundError, match=f"^{name}: .*advfeat images fetch {name}") as error:
            load(name, "train", folder)
        assert "\n" not in str(error.value)


def test_pickles_are_named_and_not_read(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(FileNotFoundError, match="pickles can run anything; the binary version is needed"):
        load("cifar10", "train", tmp_path)


def test_official_sizes_with_other_content(tmp_path):
    """As many labels as the official file has, and another digest."""
    write_mnist(tmp_path, zipped=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(60000, np.uint8)))
    with pytest.raises(CheckpointError, match="train-labels-idx1-ubyte: is as long as the official file, but not the"):
        load("mnist", "train", tmp_path)


def broken(rng, kind, tmp_path):
    """A folder with one broken file of a set; (name, file)."""
    if kind == "mnist":
        write_mnist(tmp_path, n=12, zipped=bool(rng.integers(2)))
        files = sorted(tmp_path.glob("train*"))
    elif kind == "cifar10":
        write_cifar10(tmp_path, n=3)
        files = sorted(tmp_path.glob("data*"))
    elif kind == "archive":
        write_cifar10_archive(tmp_path / "cifar-10-binary.tar.gz", n=3)
        files = sorted(tmp_path.iterdir())
    else:
        write_svhn(tmp_path, n=6)
        files = [tmp_path / "train_32x32.mat"]
    file = files[rng.integers(len(files))]
    held = bytearray(file.read_bytes())
    how = rng.integers(4)
    if how == 0:
        held = held[: rng.integers(1, len(held) - 1)]
        if kind == "cifar10" and len(held) % 3073 == 0:
            held = held[:-1]
    elif how == 1:
        held += bytes(rng.integers(0, 256, rng.integers(1, 50), dtype=np.uint8).tobytes())
        if kind in ("svhn", "archive"):  # what stands behind their end is nobody's
            held = held[:100]
    elif how == 2:
        first, n = {"mnist": (0, 4), "svhn": (124, 20)}.get(kind, (0, 16))  # MATLAB's begin with 124 bytes of anything
        held[first : first + n] = rng.integers(0, 256, n, dtype=np.uint8).tobytes()
        if kind == "cifar10":
            held[0] = 77  # no label
    else:
        held = bytearray(rng.integers(0, 256, 1000, dtype=np.uint8).tobytes())
    file.write_bytes(held)
    return kind if kind != "archive" else "cifar10", file


@pytest.mark.parametrize("seed", range(100))
def test_broken_files_are_named(seed, tmp_path):
    rng = np.random.default_rng(seed)
    name, file = broken(rng, ["mnist", "cifar10", "archive", "svhn"][seed % 4], tmp_path)
    with pytest.raises(CheckpointError, match=file.name.replace(".", r"\.")) as error:
        load(name, "train", tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("change", "message"), [
    ({"y": np.full((6, 1), 11)}, "labels must be integers 1 ... 10"),
    ({"y": np.zeros((6, 1))}, "labels must be integers 1 ... 10"),
    ({"y": np.ones((5, 1))}, "X is .* and y"),
    ({"X": np.zeros((32, 32, 1, 6), np.uint8)}, "X is .* and y"),
    ({"X": np.zeros((32, 32, 3, 6))}, "X is .* of double"),
])  # fmt: skip
def test_matlab_files_of_something_else(change, message, tmp_path):
    held = {"X": np.zeros((32, 32, 3, 6), np.uint8), "y": np.ones((6, 1), np.uint8)} | change
    savemat(tmp_path / "train_32x32.mat", held)
    with pytest.raises(CheckpointError, match=f"train_32x32.mat: .*{message}"):
        load("svhn", "train", tmp_path)


def test_numbers_of_images_and_labels_differ(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(39, np.uint8))))
    with pytest.raises(CheckpointError, match=r"has 39 labels, and train-images-idx3-ubyte\.gz 40 images"):
        load("mnist", "train", tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.full(40, 10, np.uint8))))
    with pytest.raises(CheckpointError, match="holds the label 10, there are ten classes"):
        load("mnist", "train", tmp_path)
    write_mnist(tmp_path, sides=(27, 28))
    with pytest.raises(CheckpointError, match=r"its images are \(1, 27, 28\), those of mnist are \(1, 28, 28\)"):
        load("mnist", "train", tmp_path)


def test_a_header_of_terabytes_is_refused_before_anything_is_read(tmp_path):
    write_mnist(tmp_path, zipped=False)
    for shape, error in (((2**30, 28, 28), MemoryError), ((2**31, 2**31, 2**31), CheckpointError)):
        head = (0x803).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in shape)
        (tmp_path / "train-images-idx3-ubyte").write_bytes(head + bytes(100))
        with pytest.raises(error, match="train-images-idx3-ubyte: "):
            load("mnist", "train", tmp_path)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: load("mnits", "train"), "name = 'mnits': unknown; did you mean 'mnist'"),
    (lambda: load("mnist", "valid"), "part = 'valid': unknown"),
    (lambda: load("digits", "train", n=0), "n = 0: must be an integer >= 1"),
    (lambda: load("digits", "train", n=5000), "n = 5000: must be an integer >= 1 and <= 1,437"),
    (lambda: load("digits", "train", dtype="int8"), "dtype = 'int8'"),
])  # fmt: skip
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_cifar_rows_are_label_then_three_planes():
    row = np.frombuffer(cifar10_rows(3), np.uint8).reshape(3, 3073)[2]
    X, y = drawn(3, (3, 32, 32))
    assert row[0] == y[2] == 2
    np.testing.assert_array_equal(row[1:1025].reshape(32, 32), X[2, 0])

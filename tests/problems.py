"""Random networks and samples whose preactivations reach all three parts of the activation."""

import numpy as np

RHO = 0.7


def random_problem(seed, shape, dtype="float64", shared_X=False, shared_y=False):
    """W (R, k, m, d), X (R or 1, N, P, d), y (R or 1, N) for shape (R, N, P, d, k, m); entries of either sign."""
    R, N, P, d, k, m = shape
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((R, k, m, d)) / np.sqrt(d)
    X = rng.standard_normal((1 if shared_X else R, N, P, d))
    y = rng.integers(k, size=(1 if shared_y else R, N))
    return W.astype(dtype), X.astype(dtype), y


def relative_error(value, truth):
    """|value - truth| / |truth|, the largest over the runs (first axis)."""
    errors, sizes = (np.linalg.norm(np.reshape(a, (len(truth), -1)), axis=1) for a in (value - truth, truth))
    return (errors / sizes).max()

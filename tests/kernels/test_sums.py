"""The CPU engine's exponentials and its memory: numbers on the way from class sums to coefficients."""

import numpy as np
import pytest
from advfeat.kernels.cpu.layout import LINE_BYTES, lines
from advfeat.kernels.cpu.sums import exponentials
from numba import njit


@njit
def raised(table, n):
    exponentials(table, n)


def test_exponentials_are_right_to_the_last_bit_or_the_one_before():
    rng = np.random.default_rng(0)
    x = np.concatenate([-rng.uniform(0, scale, 10_000) for scale in (1e-9, 1, 50, 700)])
    found, truth = x.copy(), np.exp(x)
    raised(found, len(x))
    assert (np.abs(found - truth) <= np.spacing(truth)).all()


def test_exponentials_at_the_ends():
    table = np.array([0.0, -0.0, -np.inf, -701.0, np.nan, -700.0, -1e-320, -1.0] + [-2.0] * 8)
    raised(table, 6)
    np.testing.assert_array_equal(table[:5], [1, 1, 0, 0, np.nan])
    assert table[5] == pytest.approx(np.exp(-700))
    np.testing.assert_array_equal(table[8:], -2.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 100, 100_000])
def test_lines_begin_at_a_cache_line(n, dtype):
    for _ in range(20):
        memory = lines(n, dtype)
        assert (memory.shape, memory.dtype, memory.ctypes.data % LINE_BYTES) == ((n,), dtype, 0)
        assert not memory.any()

"""Fixtures that several files use."""

import numba
import pytest
from advfeat.kernels import numba_engine


@pytest.fixture
def set_threads(monkeypatch):
    """set_num_threads up to 3, more than this machine may have, on a pool of their own."""
    before = numba_engine.get_num_threads()
    with monkeypatch.context() as patch:
        patch.setattr(numba.config, "NUMBA_NUM_THREADS", 3)
        patch.setattr(numba_engine, "_pool", None)
        yield numba_engine.set_num_threads
        if numba_engine._pool is not None:
            numba_engine._pool.shutdown()
    numba_engine.set_num_threads(before)

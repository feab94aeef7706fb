"""Fixtures that several files use, and each xdist worker's share of the cores."""

import itertools
import os
import signal
import subprocess
import sys

# Before anything reads them.  Threads in step spin while they wait for each other, so with more threads than cores,
# counted over all workers, most of the time is spent waiting.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    for name in ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, str(max((os.cpu_count() or 1) // workers, 1)))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background jobs ignore Ctrl-C, which tests press
    signal.signal(signal.SIGINT, signal.default_int_handler)

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numba
import pytest
from advfeat.kernels.cpu import engine as cpu_engine
from advfeat.kernels.gpu import device as gpu_device
from emulated_gpu import FILES, build, compiler
from engines import DEVICES, device_of
from tolerances import PARITY

# Files whose minutes are in few tests: xdist hands out whole files, those of many tests first, and would end with them
LONG = ("test_figure3", "test_sweep_dask", "test_sweep_driver", "test_cuda_sources", "test_cli_reproduce",
        "test_cli_robustness", "test_robustness")  # fmt: skip


def pytest_configure(config):
    if hasattr(config.option, "loadscopereorder"):  # not in the oldest xdist, which keeps the order as it is
        config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)  # before xdist starts its workers, each of which would compile every kernel for itself
def pytest_sessionstart(session):
    if getattr(session.config.option, "numprocesses", None) and not hasattr(session.config, "workerinput"):
        subprocess.run([sys.executable, "-m", "advfeat", "warmup"], stdout=subprocess.DEVNULL, check=True)
        if compiler():
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(build, *zip(*itertools.product(FILES, PARITY))))


@pytest.hookimpl(tryfirst=True)  # before marks choose
def pytest_collection_modifyitems(items):
    seen = Counter()
    for item in items:
        long = getattr(item.module, "LONG_EMULATED", ())
        if "emulated" in item.name and any(shape in item.name for shape in long):
            item.add_marker(pytest.mark.slow)
        if share := item.get_closest_marker("one_in"):
            test = item.module, item.originalname
            if seen[test] % share.args[0]:
                item.add_marker(pytest.mark.slow)
            seen[test] += 1
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(params=DEVICES)
def cupy(request, monkeypatch):
    """backend = "cupy" on the device that is returned: an emulated one, and the real one where there is one."""
    device = device_of(request.param)
    monkeypatch.setattr(gpu_device, "connect", cache(lambda: device))
    return device


@pytest.fixture
def set_threads(monkeypatch):
    """set_num_threads up to 3, more than this machine may have, on a pool of their own."""
    before = cpu_engine.get_num_threads()
    with monkeypatch.context() as patch:
        patch.setattr(numba.config, "NUMBA_NUM_THREADS", 3)
        patch.setattr(cpu_engine, "_pool", None)
        yield cpu_engine.set_num_threads
        if cpu_engine._pool is not None:
            cpu_engine._pool.shutdown()
    cpu_engine.set_num_threads(before)

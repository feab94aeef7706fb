"""Compile every CPU kernel, so that later commands start at once."""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor

from . import common


def add_arguments(parser):
    common.add_output(parser, table=False)


def run(args) -> int:
    from ..kernels.cpu.engine import WARM_UPS, warm_up

    start = time.perf_counter()
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(WARM_UPS)), multiprocessing.get_context("spawn")) as pool:
        list(pool.map(warm_up, WARM_UPS))
    common.show(args, None, f"{', '.join(WARM_UPS)}: ready after {time.perf_counter() - start:.1f} s")
    return 0

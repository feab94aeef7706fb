"""Compile every CPU kernel, so that later commands start at once."""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor

from ..core import checks
from . import ahead, common


def add_arguments(parser):
    only = "search, float64, float32, lanes, recursion, or train:DTYPE:RUNS (default: all)"
    parser.add_argument("--only", metavar="PART", nargs="+", help=only)
    parent = "one after the other, and end when this process, the parent, ends"
    parser.add_argument("--while", type=int, dest="parent", metavar="PID", help=parent)
    common.add_output(parser, table=False)


def run(args) -> int:
    if args.parent is not None:
        ahead.end_with(args.parent)
    from ..kernels.cpu.engine import WARM_UPS, warm_up

    start = time.perf_counter()
    parts = args.only or WARM_UPS
    for part in parts:
        checks.choice("--only", part.split(":")[0], (*WARM_UPS, "train"))
    if args.parent is not None:
        for part in parts:
            warm_up(part)
            ahead.mark([part])
    else:
        with ProcessPoolExecutor(min(os.cpu_count() or 1, len(parts)), multiprocessing.get_context("spawn")) as pool:
            list(pool.map(warm_up, parts))
        ahead.mark(parts)
    common.show(args, None, f"{', '.join(parts)}: ready after {time.perf_counter() - start:.1f} s")
    return 0

"""The search of :mod:`advfeat.kernels.branch_and_bound` on a GPU: one warp per problem, cuda/search.cu."""

from itertools import product
from typing import NamedTuple

import numpy as np

from .device import GpuMemoryError

# of cuda/search.cu
WARP, MOST_WARPS, BLOCKS = 32, 8, 2  # threads; warps of a block; such blocks that a multiprocessor has registers for
HEAD, PATCH = 2, 16  # doubles of shared memory: at its beginning, of a problem
VECTORS = 9  # of neurons and as many of coordinates that a warp works with

FEW_WARPS = 4  # of a block: where fewer would fit, weights and then working vectors move to global memory
RESERVED = 1024  # bytes of shared memory that the system takes for every block
SHARE = 0.8  # of the free memory that a search may take
MOST_PROBLEMS = 2**17  # of a launch: the host listens to Ctrl-C between launches
ROUNDS = 4  # problems of a slice for every warp, where there are many: a block loads its weights once for all of them


class Layout(NamedTuple):
    """A block: its warps, bytes of shared memory, what lies there, and every warp's doubles of global memory."""

    warps: int
    shared: int
    vectors_near: bool
    weights_near: bool
    per_warp: int
    boxes: int


def layout(m, d, n_nodes, shared_bytes) -> Layout:
    boxes, vectors, weights = (n_nodes + 1) // 2, VECTORS * (m + d), 2 * m * d
    near = (True, True), (True, False), (False, False)
    for (vectors_near, weights_near), warps in product(near, (MOST_WARPS, FEW_WARPS)):
        shared = 8 * (HEAD + weights * weights_near + warps * (PATCH + vectors * vectors_near))
        if shared <= shared_bytes:
            break
    per_warp = boxes * (2 * m + d + 1) + vectors * (not vectors_near)
    return Layout(warps, shared, vectors_near, weights_near, per_warp, boxes)


def fit(gpu, block: Layout, n_runs, per_run, per_problem):
    """The layout, with fewer warps where memory is short, the number of blocks, and of problems per launch."""
    free, per_warp = gpu.free_bytes(), 8 * block.per_warp
    budget = int(SHARE * free) - n_runs * per_run
    if per_warp + per_problem > budget:
        least = per_warp + per_problem
        fits = max(int(SHARE * free) - least, 0) // per_run
        raise GpuMemoryError(int((n_runs * per_run + least) / SHARE) + 1, free, n_runs, fits)
    at_once = min(BLOCKS * MOST_WARPS // block.warps, (gpu.shared_bytes + RESERVED) // (block.shared + RESERVED))
    warps = max(min(gpu.multiprocessors * max(at_once, 1) * block.warps, budget // 2 // per_warp), 1)
    block = block._replace(warps=min(block.warps, warps))
    n_blocks = warps // block.warps
    return block, n_blocks, min((budget - n_blocks * block.warps * per_warp) // per_problem, MOST_PROBLEMS)


def slices(pairs, most):
    """Where slices begin, and the end of the last: at most `most` neighbours with the same label and rival each."""
    n = np.arange(len(pairs))
    first = np.maximum.accumulate(np.where(np.r_[True, (pairs[1:] != pairs[:-1]).any(axis=1)], n, 0))
    return np.r_[n[(n - first) % most == 0], len(n)]


def search(gpu, W, X, rows, numbers, norm, q, rho, n_steps, n_rounds, n_nodes):
    """`NumpyEngine.search` in float64 on `gpu`; raises GpuMemoryError before any work if not even one problem fits."""
    (_, k, m, d), B = W.shape, len(rows)
    answer = np.empty(B), np.empty(B), np.empty((B, d)), np.empty(B, np.int64)
    if not B:
        return answer
    with np.errstate(over="ignore", divide="ignore"):
        if not np.isfinite(1 / np.float64(rho)):
            raise ValueError(f"rho = {rho}: 1/rho must be a finite float64 number")
    runs, run = np.unique(rows[:, 1], return_inverse=True)
    R, n_rows = len(runs), len(runs) * k * m
    block, n_blocks, chunk = fit(gpu, layout(m, d, n_nodes, gpu.shared_bytes), R, 8 * k * m * (d + 2), 16 * d + 64)
    weights, sizes = gpu.upload(W[runs], np.float64), gpu.empty((2, n_rows), np.float64)
    gpu.launch(
        "search:lengths", np.float64, (-(-n_rows // MOST_WARPS),), MOST_WARPS * WARP, weights, sizes, norm, d, n_rows
    )
    scratch = gpu.empty((n_blocks * block.warps * block.per_warp,), np.float64)
    pairs = run[:, None] * k + rows[:, 2:]
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))  # problems with the same weights side by side
    for at in (order[begin : begin + chunk] for begin in range(0, B, chunk)):
        n = len(at)
        most = min(ROUNDS * block.warps, -(-n // n_blocks))
        cuts, threads = slices(pairs[at], most), min(block.warps, most) * WARP
        problems = gpu.upload(X[rows[at, 0]], np.float64), gpu.upload(pairs[at], np.int32)
        found = [gpu.empty((n, *part.shape[1:]), np.int32 if part.dtype == np.int64 else np.float64) for part in answer]
        gpu.launch(
            "search:search", np.float64, (min(n_blocks, len(cuts) - 1),), threads, weights, sizes, R * k,
            *problems, gpu.upload(numbers[at], np.float64), gpu.upload(cuts, np.int32), len(cuts) - 1,
            gpu.zeros((1,), np.int32), scratch, np.int64(block.per_warp), block.boxes, int(block.vectors_near),
            int(block.weights_near), m, d, norm, int(q), np.float64(rho), n_steps, n_rounds, n_nodes, *found,
            shared=block.shared,
        )  # fmt: skip
        for part, theirs in zip(answer, found):
            part[at] = gpu.download(theirs)
    return answer

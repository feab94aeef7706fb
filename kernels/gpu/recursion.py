"""The recursion of :mod:`advfeat.kernels.recursion` on a GPU: a block of threads per run, many iterations a launch."""

from bisect import bisect_right

import numpy as np

from ..formulas import CROSS_ENTROPY, LINF
from .device import GpuMemoryError

LAUNCH = 100_000  # iterations that one block does in a launch, over all its runs: a second or so
HEAD = 2  # numbers at the beginning of shared memory
GROUP = 8  # columns that one tile of the product with H takes (ROWS in cuda/recursion_sums.cuh)
SMALL, MEDIUM = 32, 128  # neurons up to which a block has 128, 256 threads; beyond, 512
MOST_NEURONS = 2**16 - 1  # what the kernel's indices into the triangle of H hold


def recursion(gpu, phi, gram, types, watch, q, rho, lr, n_iter, objective, step, eps, norm, n_steps):
    """`kernels.recursion.recursion` in float64 on `gpu`; phi, gram, watch.orthogonal and watch.risk change in place.

    Padding is left out before: a type of weight 0 is not looked at, as in the CPU engine, not even for divergence.
    Raises GpuMemoryError before any work.
    """
    (R, K, two_k), D = phi.shape, watch.orthogonal.shape[2] if n_steps else 0
    flagged = np.full((2, R), -1, np.int32)
    if not R or not n_iter:
        return tuple(flagged.astype(np.int64))
    if K > MOST_NEURONS:
        raise ValueError(f"{K:,} neurons: the GPU engine's recursion takes at most {MOST_NEURONS:,}")
    n, ints, numbers, shape = _columns(types, objective == CROSS_ENTROPY)
    numbers = np.column_stack([rho, lr, step, eps, watch.axes, numbers])
    sizes = _sizes(n, *shape, K, two_k, D, n_steps)
    inside, shared, room = _place(sizes, gpu.shared_bytes)
    threads = 128 if K <= SMALL else 256 if K <= MEDIUM else 512
    at_once = gpu.multiprocessors * max(min(2048 // threads, gpu.shared_bytes // (8 * shared)), 1)
    each = 8 * (phi[0].size + (K * (K + D) if n_steps else 0) + numbers.shape[1] + 1) + 4 * (ints.shape[1] + 2)

    def needed(runs):
        return runs * each + 8 * (min(runs, at_once) * room + len(sizes))

    free = gpu.free_bytes()
    if needed(R) > free:
        raise GpuMemoryError(needed(R), free, R, bisect_right(range(1, R + 1), free, key=needed))
    blocks = min(R, at_once) if room else R  # without scratch the device deals the runs out
    moving = [gpu.upload(phi, np.float64)]
    moving += [gpu.upload(a, np.float64) if n_steps else gpu.empty((0,), np.float64) for a in (gram, watch.orthogonal)]
    risk, stops = gpu.upload(watch.risk, np.float64), [gpu.upload(row) for row in flagged]
    args = (
        *moving, risk, *stops, gpu.upload(ints), gpu.upload(numbers), gpu.empty((blocks * room,), np.float64),
        gpu.upload(sizes), inside, np.int64(room), R, K, two_k // 2, D, *shape, int(q), objective, norm, int(n_steps),
        np.float64(watch.limit), int(watch.go_on),
    )  # fmt: skip
    part = max(LAUNCH * min(R, at_once) // R, 1)
    for begin in range(0, n_iter, part):
        end = min(begin + part, int(n_iter))
        gpu.launch("recursion:recursion", np.float64, (blocks,), threads, *args, begin, end, shared=8 * shared)
    for target, found in zip((phi, gram, watch.orthogonal)[: 3 if n_steps else 1], moving):
        target[...] = gpu.download(found)
    if norm == LINF and n_steps:
        watch.risk[...] = gpu.download(risk)
    return tuple(gpu.download(row).astype(np.int64) for row in stops)


def _columns(types, together):
    """The patches that count, as the kernel reads them, and how many columns and types a run has at most.

    n (R,) columns of every run; ints (R, .): numbers of columns, types and groups, first column of every type, labels,
    features, types, first column of every group; numbers (R, .): weights of types, strengths, counts.  A group has up
    to GROUP columns of one type, or (`together`) of any.
    """
    R = len(types.y)
    used = (types.weight[..., None] != 0) & (types.count != 0)
    kinds = used.any(axis=2)
    n, n_types = used.sum(axis=(1, 2)), kinds.sum(axis=1)
    most, most_types = max(n.max(), 1), max(n_types.max(), 1)
    column = np.argsort(~used.reshape(R, -1), axis=1, kind="stable")[:, :most]
    kind = np.argsort(~kinds, axis=1, kind="stable")[:, :most_types]
    feature, strength, count, type_of = (
        np.take_along_axis(np.broadcast_to(a, used.shape).reshape(R, -1), column, 1)
        for a in (types.feature, types.strength, types.count, kinds.cumsum(axis=1)[..., None] - 1)
    )
    label, weight, per_type = (np.take_along_axis(a, kind, 1) for a in (types.y, types.weight, used.sum(axis=2)))
    first = np.column_stack([np.zeros(R, np.int64), per_type.cumsum(axis=1)])
    i = np.arange(most)
    within = np.broadcast_to(i, type_of.shape) if together else i - np.take_along_axis(first, type_of, 1)
    starts = (within % GROUP == 0) & (i < n[:, None])
    groups = starts.sum(axis=1)
    group = np.argsort(~starts, axis=1, kind="stable")
    group = np.column_stack([np.where(i < groups[:, None], group, n[:, None]), n])
    ints = np.column_stack([n, n_types, groups, first, label, feature, type_of, group]).astype(np.int32)
    return n, ints, np.column_stack([weight, strength, count]), (int(most), int(most_types))


def _sizes(n, most, most_types, K, two_k, D, n_steps):
    """Numbers in each of the kernel's arrays, in its order, even."""
    weights = most_types * two_k // 2
    few, many = n[n <= K // 2].max(initial=0), 2 * K * K * (n > K // 2).any()
    sizes = [most_types, weights, weights, most, most * two_k, two_k * K, most * K]
    sizes += [most * K, most * K, max(few * (2 * K + few), many), K * (K + 1) // 2, most * D, K * D]
    kept = np.ones(len(sizes), bool) if n_steps else np.isin(np.arange(len(sizes)), [0, 1, 2, 5, 6])
    return np.where(kept, np.array(sizes) + 1 & ~1, 0)


def _place(sizes, shared_bytes):
    """Which arrays lie in shared memory (bits), numbers there, and numbers in a block's scratch."""
    inside, shared, room = 0, HEAD, 0
    for i, size in enumerate(sizes.tolist()):
        if 8 * (shared + size) <= shared_bytes:
            inside, shared = inside | 1 << i, shared + size
        elif i + 1 < len(sizes):  # the last, W_orth, stays where it came from
            room += size
    return inside, shared, room

"""Training in one kernel launch (cuda/persistent.cu): which shapes it takes, how it cuts them, and the launch."""

from typing import NamedTuple

import numpy as np

from .device import GpuMemoryError

THREADS = 256
KERNEL = "persistent:train"
LEAST_ROWS, MOST_ROWS = 64, 128  # patches of a chunk, unless one sample has more
CHUNK_WORK = 100_000  # multiply-adds of a product at least: smaller chunks leave threads without a tile
LAUNCH_SECONDS, BLOCK_RATE = 2, 5e10  # of one launch, so that Ctrl-C is heard; FLOP/s of a block, not too many


class Cut(NamedTuple):
    """S samples a chunk; rows of dp and Kp numbers; `parts` threads share a gradient tile; a team of blocks per run;
    `keep`: the gradient stays in shared memory; `shared` bytes of it."""

    S: int
    dp: int
    Kp: int
    parts: int
    team: int
    keep: bool
    shared: int


def _odd(n, vector):
    """The first length >= n of an odd number of vectors."""
    return (-(-n // vector) | 1) * vector


def shared_bytes(k, m, P, S, dp, Kp, parts, keep, itemsize) -> int:
    """As persistent.cu lays it out: outputs, coefficients, total; weights, inputs, slopes, sums; gradient; labels."""
    K, rows = k * m, S * (-(-P // 4) * 4)
    matrices = 1 + (parts > 1) + keep
    return 8 * (2 * S * k + 2) + itemsize * (matrices * (K + 3) * dp + rows * (dp + Kp) + rows // 4 * Kp) + 4 * S


def choose(gpu, k, m, d, P, n, R, dtype, forced=False) -> Cut | None:
    """How to cut R runs of n samples, or None where a sample's patches and the weights do not fit in shared memory.

    Chunks are a function of one run's shapes, so that its bits do not depend on R; the team is not.
    """
    size, K, P4 = np.dtype(dtype).itemsize, k * m, -(-P // 4) * 4
    vector = 16 // size
    dp, Kp = _odd(d, vector), _odd(-(-K // 4) * 4, vector)
    S = min(max(1, MOST_ROWS // P4), max(-(-LEAST_ROWS // P4), -(-CHUNK_WORK // (P4 * K * d))), n)
    parts = max(1, THREADS // (-(-K // 4) * -(-d // vector)))
    most = gpu.shared_bytes
    while S > 1 and shared_bytes(k, m, P, S, dp, Kp, parts, False, size) > most:
        S -= 1
    least = shared_bytes(k, m, P, S, dp, Kp, parts, False, size)
    if n == 0 or Kp > THREADS or least > most:
        if forced:
            raise ValueError(
                f"regime = 'persistent': a sample and the weights (P = {P}, K = {K}, d = {d}, {np.dtype(dtype)}) need "
                f"{least:,} bytes of shared memory and {Kp} columns; there are {most:,} bytes and {THREADS} columns"
            )
        return None
    chunks = -(-n // S)
    team = max(1, min(chunks, gpu.blocks_at_once(KERNEL, dtype, THREADS, least) // R))
    full = shared_bytes(k, m, P, S, dp, Kp, parts, True, size)
    keep = team == 1 and full <= most
    return Cut(S, dp, Kp, parts, team, keep, full if keep else least)


def train(cut: Cut, net, batch, n_iter, lr, objective, step, eps, norm, n_steps):
    """n_iter iterations; net.W changes in place.  Returns the last loss and the first bad iteration or -1, (R,)."""
    gpu, size, chunks = net.gpu, net.K * net.d, -(-batch.n // cut.S)
    left = 0 if cut.keep else net.R * chunks * size * net.dtype.itemsize
    if left > gpu.free_bytes():
        raise GpuMemoryError(left, gpu.free_bytes(), net.R, int(gpu.free_bytes() // (left // net.R)))
    part = gpu.empty(1 if cut.keep else net.R * chunks * size, net.dtype)
    loss, mean = gpu.empty((net.R, batch.n), np.float64), gpu.upload(np.full(net.R, np.nan))
    bad, rates = gpu.upload(np.full(net.R, -1), np.int32), [net.upload(a) for a in (lr, step, eps)]
    done, found, work = 0, np.full(net.R, -1), 4 * batch.n * batch.P * size * (1 + n_steps)
    waves = -(-net.R * cut.team // gpu.blocks_at_once(KERNEL, net.dtype, THREADS, cut.shared))
    segment = max(1, int(LAUNCH_SECONDS * BLOCK_RATE * cut.team / (work * waves)))
    while done < n_iter:
        arrivals, some = gpu.zeros(net.R, np.uint32), min(segment, n_iter - done)
        gpu.launch(
            KERNEL, net.dtype, (net.R * cut.team,), THREADS, net.W, batch.inputs, batch.labels, part, loss, arrivals,
            *rates, batch.counts, mean, bad, *net.sigma, objective, norm, n_steps, some, net.k, net.m, net.d, batch.P,
            batch.n, cut.S, cut.team, int(batch.shared), cut.dp, cut.Kp, cut.parts, int(cut.keep),
            shared=cut.shared, together=cut.team > 1,
        )  # fmt: skip
        now = gpu.download(bad)
        found = np.where((found < 0) & (now >= 0), now + done, found)
        done += some
    return gpu.download(mean), found

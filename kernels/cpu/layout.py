"""Samples in the CPU engine's layout: runs cut into chunks and groups, labels together, repeated patches kept once."""

from functools import cached_property

import numpy as np

from . import kernels
from .blocks import Packed
from .vectors import BLOCK_BYTES, VECTOR_BYTES

CHUNK_LANES = 256  # with K = d = 100 a chunk's inputs, slopes and weights fill half of a 512 KiB L2
LINE_BYTES = 64  # of a cache line
MAX_GROUPS = 16  # partial weight gradients per run: their sum must stay small beside the work on 256 lanes each


def lines(n, dtype):
    """n zeros from the first byte of a cache line on, so that no register of a block is cut by a line's end."""
    item = np.dtype(dtype).itemsize
    memory = np.zeros(n + LINE_BYTES // item, dtype)
    first = -memory.ctypes.data % LINE_BYTES // item
    return memory[first : first + n]


class CpuBatch:
    """Samples in blocks of lanes, see :mod:`advfeat.kernels.cpu.kernels`; slots are sorted by run, then by label.

    data : Packed; groups (G, 3) and first (R + 1,): groups of chunks and the first group of every run
    target : (slots,) int64, r N + n of every slot
    count : (R,) samples per run
    X, y : (R or 1, N, P, d) and (R or 1, N), as given
    n_runs, shared : the number of runs, and whether all of them read the same blocks
    """

    def __init__(self, X, y, n_runs, active, spread):
        self.X, self.y, self.n_runs, self._spread = X, y, n_runs, spread
        _, N, P, d = X.shape
        self.shared = len(X) == len(y) == 1 and active is None and n_runs > 1
        labels = np.broadcast_to(y, (n_runs, N))
        run, sample = np.nonzero(np.ones((n_runs, N), bool) if active is None else active)
        order = np.lexsort((sample, labels[run, sample], run))
        run, sample = run[order], sample[order]
        self.target = run * N + sample
        source = sample if len(X) == 1 else self.target
        rows = np.ascontiguousarray(X).reshape(-1, d)
        counts = np.bincount(run, minlength=n_runs)
        self._lay(rows, source * P, labels[run, sample], counts, [P] * n_runs)

    def _lay(self, rows, start, labels, counts, patches, times=None, copies=None):
        """Chunks, groups and packed inputs; slot s holds the rows start[s] ... of its run's number of patches."""
        lanes, d = BLOCK_BYTES // rows.itemsize, rows.shape[1]
        table, groups, self.first = [], [], [0]
        block = slot = 0
        for r, (count, P) in enumerate(zip(counts.tolist(), patches, strict=True)):
            block = 0 if self.shared else block
            n_chunks = -(-count // max(CHUNK_LANES // P, 1))
            if n_chunks == 1 < count and count * P > lanes:
                n_chunks = 2  # several blocks: two threads can share even a run this small
            n_groups = min(n_chunks, MAX_GROUPS)
            for g in range(n_groups):
                lo, hi = n_chunks * g // n_groups, n_chunks * (g + 1) // n_groups
                groups.append((r, len(table), hi - lo))
                for c in range(lo, hi):
                    begin, stop = count * c // n_chunks, count * (c + 1) // n_chunks
                    blocks = -(-(stop - begin) * P // lanes)
                    table.append((r, block, blocks, slot + begin, stop - begin, P))
                    block += blocks
            self.first.append(len(groups))
            slot += count
        table = np.array(table, np.int64).reshape(-1, 6)
        self.groups, self.first = np.array(groups, np.int64).reshape(-1, 3), np.array(self.first)
        own = table[: np.searchsorted(table[:, 0], 1)] if self.shared else table

        weight = lines(block * lanes + VECTOR_BYTES // rows.itemsize, rows.dtype)
        for _, b0, _, s0, n, P in own.tolist():
            at = start[s0 : s0 + n, None] + np.arange(P)
            weight[b0 * lanes : b0 * lanes + n * P] = 1 if times is None else times[at].ravel()
        packed = lines(block * d * lanes, rows.dtype)
        self._spread(kernels.pack, len(own), None, rows, start, own, d, packed)
        copies = np.ones(len(labels)) if copies is None else copies
        self.data = Packed(packed, labels, table, weight, copies)
        self.count = np.array([copies[a:b].sum() for a, b in _ranges(counts)])
        self.samples, self.blocks, self.patches = table[:, [4, 2, 5]].max(0, initial=0).tolist()

    def own(self):
        """These samples with no two runs sharing blocks."""
        if not self.shared:
            return self
        y = np.broadcast_to(self.y, (self.n_runs, self.y.shape[1]))
        return CpuBatch(self.X, y, self.n_runs, None, self._spread)

    @cached_property
    def distinct(self):
        """For training: these samples with repeated patches and repeated samples kept once, with their numbers.

        Noiseless patches of constant strength have 2 k values, and samples of a class with the same number of robust
        patches are then one sample.  Runs in which that saves less than half of the lanes stay as they are.
        """
        R, N, P, d = len(self.X), *self.X.shape[1:]
        if self.shared or len(self.target) < self.n_runs * N:
            merged = {0: merge(self.X[0], self.y[0])} if self.shared else {}
        else:
            merged = {r: merge(self.X[r % R], self.y[r % len(self.y)]) for r in range(self.n_runs)}
        if not any(merged.values()):
            return self
        rows, start, labels, counts, patches, times, copies = [], [], [], [], [], [], []
        before = 0
        for r in range(self.n_runs):
            found = merged[0 if self.shared else r]
            if found is None:
                order = np.argsort(self.y[r % len(self.y)], kind="stable")
                found = self.X[r % R][order], self.y[r % len(self.y)][order], np.ones((N, P)), np.ones(N)
            X, y, number, multiple = found
            if not (self.shared and r):
                rows.append(X.reshape(-1, d))
                times.append(number.ravel())
            start.append(before + np.arange(len(X)) * X.shape[1])
            before += 0 if self.shared else X.shape[0] * X.shape[1]
            labels.append(y)
            counts.append(len(X))
            patches.append(X.shape[1])
            copies.append(multiple)
        other = object.__new__(CpuBatch)
        vars(other).update(X=self.X, y=self.y, n_runs=self.n_runs, shared=self.shared, _spread=self._spread)
        rows, start, labels, times, copies = map(np.concatenate, (rows, start, labels, times, copies))
        other._lay(rows, start, labels, np.array(counts), patches, times, copies)
        return other

    def unpack(self, packed, rest):
        """(R, N, P, d) from blocks; samples that are not in the batch as in `rest` (R or 1, N, P, d)."""
        R, (_, N, P, d) = self.n_runs, self.X.shape
        out, others = np.empty((R, N, P, d), packed.dtype), np.ones(R * N, bool)
        others[self.target] = False
        others = others.reshape(R, N)
        out[others] = np.broadcast_to(rest, out.shape)[others]
        table = self.data.table
        self._spread(kernels.unpack, len(table), None, packed, table, d, self.target, out.reshape(-1, d))
        return out

    def by_sample(self, values):
        """(R, N, ...) from one row per slot; NaN where a sample is not in the batch."""
        out = np.full((self.n_runs * self.X.shape[1], *values.shape[1:]), np.nan)
        out[self.target] = values
        return out.reshape(self.n_runs, -1, *values.shape[1:])


def _ranges(counts):
    ends = np.cumsum(counts)
    return zip((ends - counts).tolist(), ends.tolist(), strict=True)


def merge(X, y):
    """One run's samples with repeated patches, then repeated samples, kept once, sorted by label; None: not worth it.

    Patches are compared as numbers: -0.0, which noise times 0 is half of the time, is 0.0.

    Returns X (N', P', d), y (N',), how often every patch stands in its sample (N', P'), 0 for filling, and how often
    every sample stands in the data (N',).
    """
    N, P, d = X.shape
    if len({patch.tobytes() for patch in X[0] + 0.0}) > P // 2:
        return None
    X = X + 0.0  # -0.0 + 0.0 is 0.0, so that equal numbers have equal bytes
    number = {}
    patches = [[number.setdefault(patch.tobytes(), len(number)) for patch in sample] for sample in X]
    samples = {}
    for label, ids in zip(y.tolist(), patches, strict=True):
        key = label, tuple((i, ids.count(i)) for i in sorted(set(ids)))
        samples[key] = samples.get(key, 0) + 1
    kept = sorted(samples)
    width = max(len(patches) for _, patches in kept)
    if len(kept) * width > N * P // 2:
        return None
    values = np.frombuffer(b"".join(number), X.dtype).reshape(-1, d)
    out, times = np.zeros((len(kept), width, d), X.dtype), np.zeros((len(kept), width))
    for n, (_, patches) in enumerate(kept):
        for p, (i, count) in enumerate(patches):
            out[n, p], times[n, p] = values[i], count
    return out, np.array([label for label, _ in kept]), times, np.array([samples[key] for key in kept], np.float64)

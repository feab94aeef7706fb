"""The Numba CPU engine: register-tiled kernels on threads, the same bits whatever the threads and the batch."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numba
import numpy as np

from . import cpu_kernels as kernels
from .cpu_blocks import Ascent, Net, Packed, Scratch
from .cpu_tiles import BLOCK_BYTES, GA
from .jit import light_optimisation
from .reference import NumpyEngine

CHUNK_BYTES = 2**17  # inputs of one chunk; with its preactivations about half of a 512 KiB L2

_threads = numba.config.NUMBA_NUM_THREADS
_pool: ThreadPoolExecutor | None = None


def set_num_threads(n: int) -> None:
    """Use `n` threads from now on (default: ``NUMBA_NUM_THREADS``, or every core); results do not depend on it."""
    global _threads
    if not 1 <= n <= numba.config.NUMBA_NUM_THREADS:
        raise ValueError(f"n = {n}: the number of threads must be between 1 and {numba.config.NUMBA_NUM_THREADS}")
    _threads = int(n)


def get_num_threads() -> int:
    return _threads


def _workers() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS, thread_name_prefix="advfeat")
    return _pool


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)  # a forked child has none of its parent's threads


class Batch(NamedTuple):
    """Samples in blocks of lanes, see :mod:`advfeat.kernels.cpu_kernels`; slots are sorted by run, then by label."""

    data: Packed
    first: np.ndarray  # (R + 1,) int64, first chunk of every run
    target: np.ndarray  # (slots,) int64, r N + n of every slot
    X: np.ndarray  # (R or 1, N, P, d) and
    y: np.ndarray  # (R or 1, N), as given
    n_runs: int
    shared: bool  # every run reads the same blocks
    samples: int  # most samples in a chunk
    blocks: int  # most blocks in a chunk


class NumbaEngine(NumpyEngine):
    """The engine on the CPU's vector units: the methods of :class:`~advfeat.kernels.reference.NumpyEngine`."""

    name = "numba"

    def __init__(self):
        self._scratch: dict[int, Scratch] = {}
        self._compiled = set()
        self._lock = threading.RLock()

    # -------------------------------------------------------------- layout
    def pack(self, X, y, n_runs, active=None):
        (_, N, P, d), lanes = X.shape, BLOCK_BYTES // X.itemsize
        once = len(X) == len(y) == 1 and active is None and n_runs > 1
        labels = np.broadcast_to(y, (n_runs, N))
        run, sample = np.nonzero(np.ones((n_runs, N), bool) if active is None else active)
        order = np.lexsort((sample, labels[run, sample], run))
        run, sample = run[order], sample[order]
        counts = np.bincount(run, minlength=n_runs)
        slot = np.concatenate(([0], np.cumsum(counts)))

        per_chunk = max(CHUNK_BYTES // (d * X.itemsize) // P, 1)
        table, first, block = [], [0], 0
        for r, count in enumerate(counts.tolist()):
            block = 0 if once else block
            n_chunks = -(-count // per_chunk)
            for c in range(n_chunks):
                start, stop = count * c // n_chunks, count * (c + 1) // n_chunks
                blocks = -(-(stop - start) * P // lanes)
                table.append((r, block, blocks, slot[r] + start, stop - start))
                block += blocks
            first.append(len(table))
        table = np.array(table, np.int64).reshape(-1, 5)

        source = sample if len(X) == 1 else run * N + sample
        packed = np.empty(block * d * lanes, X.dtype)
        rows = np.ascontiguousarray(X).reshape(-1, d)
        self._spread(kernels.pack, first[1] if once else len(table), None, rows, source, table, P, d, packed)
        data = Packed(packed, labels[run, sample], table, P)
        return Batch(data, np.array(first), run * N + sample, X, y, n_runs, once, *(table[:, [4, 2]].max(0, initial=0)))

    def _own(self, batch):
        """A batch in which no two runs share blocks."""
        if not batch.shared:
            return batch
        return self.pack(batch.X, np.broadcast_to(batch.y, (batch.n_runs, batch.y.shape[1])), batch.n_runs)

    def _unpack(self, batch, packed):
        """(R, N, P, d), samples that are not in the batch as they were given."""
        R, (_, N, P, d) = batch.n_runs, batch.X.shape
        out = np.array(np.broadcast_to(batch.X, (R, N, P, d)), order="C")
        rows, table = out.reshape(-1, d), batch.data.table
        self._spread(kernels.unpack, len(table), None, packed, table, P, d, batch.target, rows)
        return out

    @staticmethod
    def _by_sample(batch, values):
        """(R, N, ...) from one row per slot; NaN where a sample is not in the batch."""
        out = np.full((batch.n_runs * batch.X.shape[1], *values.shape[1:]), np.nan)
        out[batch.target] = values
        return out.reshape(batch.n_runs, -1, *values.shape[1:])

    # -------------------------------------------------------------- threads and memory
    def _spread(self, kernel, n_items, sizes, *args):
        """kernel(lo, hi, scratch, ...) over `n_items` chunks or runs, in one contiguous range per thread."""
        threads = min(_threads, n_items)
        with self._lock:
            scratch = [None if sizes is None else self._memory(t, *sizes) for t in range(max(threads, 1))]
            key = (kernel, args[0].dtype if sizes is None else sizes[-1])
            if key not in self._compiled:
                with light_optimisation():
                    kernel(0, 0, scratch[0], *args)
                self._compiled.add(key)
            edges = [n_items * t // threads for t in range(threads + 1)] if threads else [0, 0]
            jobs = [
                _workers().submit(kernel, edges[t], edges[t + 1], scratch[t], *args) for t in range(1, len(edges) - 1)
            ]
            kernel(edges[0], edges[1], scratch[0], *args)
            for job in jobs:
                job.result()

    def _memory(self, thread, K, k, d, samples, blocks, dtype):
        B = BLOCK_BYTES // dtype.itemsize
        S, Xa, f = blocks * max(K, GA) * B, blocks * d * B, max(blocks * k, 2) * B
        held = self._scratch.get(thread)
        if (
            held is None
            or held.S.dtype != dtype
            or held.C.shape[0] < samples
            or held.C.shape[1] != k
            or any(a.size < n for a, n in ((held.S, S), (held.Xa, Xa), (held.f, f), (held.D, 2 * d * B)))
        ):
            sizes = (S, Xa, 2 * d * B, 2 * B, f)
            tables = (np.zeros((samples, k)) for _ in range(2))
            held = self._scratch[thread] = Scratch(*(np.zeros(n, dtype) for n in sizes), *tables)
        return held

    def _prepare(self, W, batch, q, rho):
        R, k, m, d = W.shape
        net = Net(np.ascontiguousarray(W).reshape(R, k * m * d), k, m, d, q, W.dtype.type(rho))
        return net, (k * m, k, d, batch.samples, batch.blocks, W.dtype)

    # -------------------------------------------------------------- the engine's methods
    def logits(self, W, batch, q, rho):
        net, sizes = self._prepare(W, batch, q, rho)
        F = np.empty((len(batch.target), net.k))
        self._spread(kernels.logits, len(batch.data.table), sizes, net, batch.data, F)
        return self._by_sample(batch, F)

    def loss_and_grad(self, W, batch, q, rho):
        net, sizes = self._prepare(W, batch, q, rho)
        R, none = len(W), np.zeros(len(W), W.dtype)
        part, loss, mean = self._sums(batch, net)
        gradient, still = np.zeros_like(net.W), Ascent(0, none, none, 0, 0)
        self._spread(kernels.gradient, len(loss), sizes, net, batch.data, still, part, loss)
        kernels.update(0, R, gradient, batch.data, batch.first, np.full(R, -1.0), part, loss, mean)
        return mean, gradient.reshape(W.shape)

    def input_grad(self, W, batch, q, rho, objective):
        batch = self._own(batch)
        net, sizes = self._prepare(W, batch, q, rho)
        out = np.empty_like(batch.data.X)
        self._spread(kernels.input_gradient, len(batch.data.table), sizes, net, batch.data, objective, out)
        return self._unpack(batch._replace(X=np.zeros_like(batch.X)), out)

    def ascend(self, W, batch, q, rho, objective, step, eps, norm, n_steps):
        batch = self._own(batch)
        net, sizes = self._prepare(W, batch, q, rho)
        ascent, Xa = Ascent(objective, step.astype(W.dtype), eps.astype(W.dtype), norm, n_steps), batch.data.X.copy()
        self._spread(kernels.ascend, len(batch.data.table), sizes, net, batch.data, ascent, Xa)
        return self._unpack(batch, Xa)

    def pgd(self, W, batch, q, rho, objective, step, eps, norm, n_steps, start):
        batch = self._own(batch)
        net, sizes = self._prepare(W, batch, q, rho)
        ascent = Ascent(objective, step.astype(W.dtype), eps.astype(W.dtype), norm, n_steps)
        data, P, d = batch.data, *batch.X.shape[2:]
        Xa, best = np.empty_like(data.X), np.full(len(batch.target), np.inf)
        rows = np.ascontiguousarray(start, W.dtype).reshape(-1, d)
        self._spread(kernels.pack, len(data.table), None, rows, batch.target, data.table, P, d, Xa)
        self._spread(kernels.pgd, len(data.table), sizes, net, data, ascent, Xa, best)
        return self._unpack(batch, Xa), self._by_sample(batch, best)

    def _sums(self, batch, net):
        n_chunks, K = len(batch.data.table), max(net.k * net.m, GA)
        return np.empty((n_chunks, K * net.d), net.W.dtype), np.empty(n_chunks), np.full(batch.n_runs, np.nan)

    def train(self, W, batch, q, rho, lr, n_iter, objective, step, eps, norm, n_steps):
        net, sizes = self._prepare(W, batch, q, rho)
        assert np.shares_memory(net.W, W), "weights are updated in place and must be contiguous"
        R, first, data = len(W), batch.first, batch.data
        ascent = Ascent(objective, step.astype(W.dtype), eps.astype(W.dtype), norm, n_steps)
        part, loss, mean = self._sums(batch, net)
        bad = np.full(R, -1)
        if R % _threads == 0 or 4 * _threads <= R:  # whole runs fill the threads: no waiting between iterations
            args = (net, data, first, ascent, lr, n_iter, part, loss, mean, bad)
            self._spread(kernels.train, R, sizes, *args)
            return mean, bad
        for it in range(n_iter):
            self._spread(kernels.gradient, len(loss), sizes, net, data, ascent, part, loss)
            kernels.update(0, R, net.W, data, first, lr, part, loss, mean)
            bad[(bad < 0) & ~np.isfinite(mean)] = it
        return mean, bad

    def interval(self, W, batch, q, rho, shift):
        net, sizes = self._prepare(W, batch, q, rho)
        lower, upper = (np.empty((len(batch.target), net.k)) for _ in range(2))
        shift = np.ascontiguousarray(shift, W.dtype).reshape(len(W), -1)
        self._spread(kernels.interval, len(batch.data.table), sizes, net, batch.data, shift, lower, upper)
        return self._by_sample(batch, lower), self._by_sample(batch, upper)

    def aligned(self, W, batch, q, rho, eps, cross, leaders):
        net, sizes = self._prepare(W, batch, q, rho)
        R, (_, N, P, _) = len(W), batch.X.shape
        choice = np.zeros((len(batch.target), 2 * P), np.int64)
        cross, eps = np.ascontiguousarray(cross, W.dtype), eps.astype(W.dtype)
        self._spread(kernels.aligned, len(batch.data.table), sizes, net, batch.data, cross, leaders, eps, choice)
        out = np.zeros((R * N, P), np.int64)
        out[batch.target] = choice[:, :P]
        return out.reshape(R, N, P)

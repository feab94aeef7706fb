"""The Numba CPU engine: register-tiled kernels on threads, the same bits whatever the threads and the batch."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext

import numba
import numpy as np

from ..branch_and_bound import dual
from ..caps import blocks
from ..formulas import L1
from ..jit import light_optimisation
from ..joint import start
from ..numpy_engine import NumpyEngine
from ..recursion import Types, Watch
from . import branch_and_bound as cpu_branch_and_bound
from . import caps as cpu_caps
from . import kernels
from . import recursion as cpu_recursion
from .blocks import PANEL_BYTES, WEIGHT_BYTES, Ascent, CpuNetwork, Scratch, panels
from .layout import LINE_BYTES, CpuBatch, lines
from .recursion_lanes import adversarial_lanes, lanes_of_runs, standard_lanes
from .rows import L
from .vectors import BLOCK_BYTES, VECTOR_BYTES

PIECES = 8  # in which a thread works on its share of many items, four items each at least

_threads = numba.config.NUMBA_NUM_THREADS
_pool: ThreadPoolExecutor | None = None
_team = threading.RLock()  # one call works at a time: threads that wait for each other need the whole pool


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


def _even(n, parts):
    """`parts` contiguous ranges of n items."""
    return [(n * p // parts, n * (p + 1) // parts) for p in range(parts)]


def _forget_pool() -> None:
    global _pool, _team
    _pool, _team = None, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)  # a forked child has none of its parent's threads


class NumbaEngine(NumpyEngine):
    """The engine on the CPU's vector units: the methods of :class:`~advfeat.kernels.formulas.NumpyEngine`."""

    name = "numba"

    def __init__(self):
        self._scratch: dict[int, Scratch] = {}
        self._compiled = set()

    def pack(self, X, y, n_runs, active=None):
        return CpuBatch(X, y, n_runs, active, self._spread)

    # -------------------------------------------------------------- threads and memory
    def _spread(self, kernel, n_items, sizes, *args, arrivals=None, compiling=light_optimisation):
        """kernel(lo, hi, scratch, ...) over `n_items` chunks, groups or runs, in one contiguous range per thread.

        Of many items each thread takes the next few when it is done with its last, since cores are not equally fast.
        """
        threads = max(1, min(_threads, n_items))
        key = (kernel, args[0].dtype if sizes is None else sizes[-1])
        if threads == 1 and sizes is None and key in self._compiled:  # shares nothing with another thread's call
            kernel(0, n_items, None, *args)
            return
        with _team:
            scratch = [None if sizes is None else self._memory(t, *sizes) for t in range(threads)]
            if key not in self._compiled:
                with compiling():
                    kernel(0, 0, scratch[0], *args)
                self._compiled.add(key)
            jobs = []
            if arrivals is None and n_items >= 4 * PIECES * threads:
                shares = iter(_even(n_items, PIECES * threads))

                def share(t):
                    for lo, hi in shares:
                        kernel(lo, hi, scratch[t], *args)

                calls = [(share, t) for t in range(threads)]
            else:
                shares = _even(n_items, threads)
                calls = [(kernel, lo, hi, scratch[t], *args) for t, (lo, hi) in enumerate(shares)]
            try:
                for call in calls[1:]:
                    jobs.append(_workers().submit(*call))
                calls[0][0](*calls[0][1:])
            except BaseException:
                if arrivals is not None:
                    arrivals[0] = 2**62  # this thread will not come: let the others go
                raise
            finally:
                try:
                    wait(jobs)
                except BaseException:  # Ctrl-C: nobody may work on this engine's memory any more when it is free again
                    wait(jobs)
                    raise
            for job in jobs:
                job.result()

    def _memory(self, thread, K, k, d, samples, blocks, dtype):
        """Scratch memory of one thread for the largest chunk of a batch."""
        B, V = BLOCK_BYTES // dtype.itemsize, VECTOR_BYTES // dtype.itemsize
        L = blocks * B
        numbers = L * (K | 1), L * d, L * -(-d // B) * B, L * d, max(L * k, 2 * B) + V, L * k + V, 2 * B
        held = self._scratch.get(thread)
        if (
            held is None
            or held.S.dtype != dtype
            or held.F.shape[0] < samples
            or held.C.shape[1] != k
            or any(array.size < n for array, n in zip(held, numbers, strict=False))
        ):
            tables = np.zeros((samples + 8, k)), np.zeros((samples, k))
            held = self._scratch[thread] = Scratch(*(lines(n, dtype) for n in numbers), *tables)
        return held

    def _prepare(self, W, batch, q, rho):
        """The network with every neuron's weights in whole blocks and lines, an odd number of 64-byte lines long."""
        R, k, m, d = W.shape
        whole, line = max(BLOCK_BYTES, LINE_BYTES) // W.itemsize, LINE_BYTES // W.itemsize
        row = (-(-d // whole) * whole // line | 1) * line
        weights = lines(R * k * m * row, W.dtype).reshape(R, k * m, row)
        weights[..., :d] = W.reshape(R, k * m, d)
        with np.errstate(over="ignore", divide="ignore"):
            inverse = W.dtype.type(1) / W.dtype.type(rho)
        if not np.isfinite(inverse):
            raise ValueError(f"rho = {rho}: 1/rho must be a finite {W.dtype} number")
        net = CpuNetwork(weights.reshape(R, -1), k, m, d, row, q, W.dtype.type(rho), inverse)
        return net, (k * m, k, d, batch.samples, batch.blocks, W.dtype)

    @staticmethod
    def _weights(net):
        """The weights (R, k, m, d) of a prepared network, a view."""
        return net.W.reshape(len(net.W), net.k, net.m, net.row)[..., : net.d]

    @staticmethod
    def _ascent(W, objective, step, eps, norm, n_steps):
        return Ascent(objective, step.astype(W.dtype), eps.astype(W.dtype), norm, n_steps)

    def _whole_runs(self, R):
        """Whether whole runs fill the threads, so that no thread waits for another between iterations."""
        return R % _threads == 0 or 4 * _threads <= R

    def plan(self, W, batch):
        """How `train` would work on a batch: rows (what, how), every choice a function of the shapes."""
        R, k, _, d = W.shape
        kept, size, lanes = batch.distinct, W.itemsize, BLOCK_BYTES // W.itemsize
        net, (K, *_) = self._prepare(W, kept, 2, 1.0)
        threads = min(_threads, R if self._whole_runs(R) else len(kept.groups))
        depth = panels.py_func(d, BLOCK_BYTES, PANEL_BYTES)
        rows = panels.py_func(K, depth * size, WEIGHT_BYTES)
        work = sum(n * P for *_, n, P in kept.data.table.tolist()) * K * d * 4
        memory = {
            "inputs": kept.data.X.nbytes,
            "weights": net.W.nbytes,
            "partial gradients": len(kept.groups) * K * net.row * size,
            "scratch": threads * kept.blocks * lanes * (K + 3 * d) * size,
        }
        repeated = kept is not batch
        return [
            ("tile", f"6 x {lanes} {W.dtype} numbers in {VECTOR_BYTES * 8}-bit registers"),
            ("threads", f"{threads}, {'whole runs each' if self._whole_runs(R) else 'in step, two barriers a step'}"),
            ("chunks", f"{len(kept.data.table)} of at most {kept.blocks * lanes} lanes, in {len(kept.groups)} groups"),
            ("passes", f"{-(-d // depth)} over d = {d}, {-(-K // rows)} over K = {K} neurons"),
            ("repeated patches", f"kept once, {kept.patches} per sample at most" if repeated else "none or few"),
            ("necessary work", f"{work / 1e6:.4g} MFLOP a step, {work * (1 + 1 / k) / 1e6:.4g} with an ascent on -F_y"),
            ("memory", ", ".join(f"{name} {n / 2**20:.3g} MiB" for name, n in memory.items())),
        ]

    def plan_recursion(self, types):
        """Which kernel `recursion` has for which of the runs, and on how many threads."""
        blocks, members, alone = lanes_of_runs(types)
        parts = [f"{members.sum()} runs in {len(blocks)} blocks of {L} side by side"] * bool(len(blocks))
        parts += [f"{len(alone)} runs one by one"] * bool(len(alone))
        return f"{', '.join(parts)}; {max(1, min(_threads, max(len(blocks), len(alone))))} threads"

    # -------------------------------------------------------------- the engine's methods
    def logits(self, W, batch, q, rho):
        net, sizes = self._prepare(W, batch, q, rho)
        F = np.empty((len(batch.target), net.k))
        self._spread(kernels.logits, len(batch.data.table), sizes, net, batch.data, F)
        return batch.by_sample(F)

    def loss_and_grad(self, W, batch, q, rho):
        net, sizes = self._prepare(W, batch, q, rho)
        none, groups = np.zeros(len(W)), batch.groups
        part, loss = lines(len(groups) * net.W.shape[1], W.dtype), np.empty(len(groups))
        still = self._ascent(W, 0, none, none, 0, 0)
        self._spread(kernels.gradient, len(groups), sizes, net, batch.data, groups, still, part, loss)
        mean, gradient = np.full(len(W), np.nan), net._replace(W=np.zeros_like(net.W))
        self._spread(kernels.update_runs, len(W), sizes, gradient, batch.first, none - 1, batch.count, part, loss, mean)
        return mean, self._weights(gradient).copy()

    def input_grad(self, W, batch, q, rho, objective):
        batch = batch.own()
        net, sizes = self._prepare(W, batch, q, rho)
        out, none = np.empty_like(batch.data.X), np.zeros(len(W))
        ascent = self._ascent(W, objective, none, none, 0, 1)
        self._spread(kernels.input_gradient, len(batch.data.table), sizes, net, batch.data, ascent, out)
        return batch.unpack(out, np.zeros_like(batch.X))

    def pull_back(self, W, batch, q, rho, C):
        batch = batch.own()
        net, sizes = self._prepare(W, batch, q, rho)
        out, C = np.empty_like(batch.data.X), np.ascontiguousarray(C, np.float64).reshape(-1, net.k)[batch.target]
        self._spread(kernels.pull_back, len(batch.data.table), sizes, net, batch.data, C, out)
        return batch.unpack(out, np.zeros_like(batch.X))

    def ascend(self, W, batch, q, rho, objective, step, eps, norm, n_steps):
        batch = batch.own()
        net, sizes = self._prepare(W, batch, q, rho)
        ascent, Xa = self._ascent(W, objective, step, eps, norm, n_steps), batch.data.X.copy()
        if n_steps > 0:
            self._spread(kernels.ascend, len(batch.data.table), sizes, net, batch.data, ascent, Xa)
        return batch.unpack(Xa, batch.X)

    def pgd(self, W, batch, q, rho, objective, step, eps, norm, n_steps, start):
        batch = batch.own()
        net, sizes = self._prepare(W, batch, q, rho)
        ascent = self._ascent(W, objective, step, eps, norm, n_steps)
        data, P, d = batch.data, *batch.X.shape[2:]
        Xa, best = np.empty_like(data.X), np.full(len(batch.target), np.inf)
        rows = np.ascontiguousarray(start, W.dtype).reshape(-1, d)
        self._spread(kernels.pack, len(data.table), None, rows, batch.target * P, data.table, d, Xa)
        self._spread(kernels.pgd, len(data.table), sizes, net, data, ascent, Xa, best)
        return batch.unpack(Xa, batch.X), batch.by_sample(best)

    def train(self, W, batch, q, rho, lr, n_iter, objective, step, eps, norm, n_steps):
        batch = batch.distinct
        net, sizes = self._prepare(W, batch, q, rho)
        R, groups = len(W), batch.groups
        ascent = self._ascent(W, objective, step, eps, norm, n_steps)
        part, loss = lines(len(groups) * net.W.shape[1], W.dtype), np.empty(len(groups))
        mean, bad = np.full(R, np.nan), np.full(R, -1)
        args = (net, batch.data, groups, batch.first, ascent, lr, batch.count, n_iter, part, loss, mean, bad)
        if self._whole_runs(R):
            self._spread(kernels.train, R, sizes, *args)
        else:
            arrivals, threads = np.zeros(1, np.int64), min(_threads, len(groups))
            self._spread(kernels.train_together, threads, sizes, *args, threads, arrivals, arrivals=arrivals)
        W[...] = self._weights(net)
        return mean, bad

    def interval(self, W, batch, q, rho, shift):
        net, sizes = self._prepare(W, batch, q, rho)
        lower, upper = (np.empty((len(batch.target), net.k)) for _ in range(2))
        shift = np.ascontiguousarray(shift, W.dtype).reshape(len(W), -1)
        self._spread(kernels.interval, len(batch.data.table), sizes, net, batch.data, shift, lower, upper)
        return batch.by_sample(lower), batch.by_sample(upper)

    def aligned(self, W, batch, q, rho, eps, cross, leaders):
        net, sizes = self._prepare(W, batch, q, rho)
        R, (_, N, P, _) = len(W), batch.X.shape
        choice = np.zeros((len(batch.target), 2 * P), np.int64)
        cross, eps = np.ascontiguousarray(cross, W.dtype), eps.astype(W.dtype)
        self._spread(kernels.aligned, len(batch.data.table), sizes, net, batch.data, cross, leaders, eps, choice)
        out = np.zeros((R * N, P), np.int64)
        out[batch.target] = choice[:, :P]
        return out.reshape(R, N, P)

    def recursion(self, phi, gram, types, watch, q, rho, lr, n_iter, objective, step, eps, norm, n_steps):
        flagged, bad = (np.full(len(phi), -1) for _ in range(2))
        args = (gram, types, watch, q, rho, lr, n_iter, objective, step, eps, norm, n_steps, flagged, bad)
        blocks, members, alone = lanes_of_runs(types)
        if len(blocks):
            kernel = adversarial_lanes if n_steps else standard_lanes
            self._spread(kernel, len(blocks), None, phi, blocks, members, *args, compiling=nullcontext)
            if not n_steps:
                alone = np.concatenate([alone, np.flatnonzero(bad >= 0)])  # to the iteration at which it diverges
        if len(alone):
            self._spread(cpu_recursion.recursion, len(alone), None, phi, alone, *args, compiling=nullcontext)
        return flagged, bad

    def search(self, W, X, rows, numbers, norm, q, rho, n_steps, n_rounds, n_nodes, joint=False):
        (R, k, m, d), B = W.shape, len(rows)
        lower, upper, delta, nodes = np.empty(B), np.empty(B), np.empty((B, d)), np.empty(B, np.int64)
        order = np.argsort(np.arange(B) % 61, kind="stable")  # neighbours cost alike, so threads take from everywhere
        sizes = np.stack([np.linalg.norm(W, axis=-1), dual(W, norm)]).reshape(2, R * k, m)
        places = np.stack([rows[:, 0], rows[:, 1] * k + rows[:, 2], rows[:, 1] * k + rows[:, 3]], axis=1)
        options = norm, q, rho, n_steps, n_rounds, n_nodes, joint and norm != L1, start(d)
        args = (W.reshape(R * k, m, d), sizes, X, order, places, numbers, *options)
        self._spread(cpu_branch_and_bound.search, B, None, *args, lower, upper, delta, nodes)
        return lower, upper, delta, nodes

    def caps(self, W, X, rows, eps, norm, q, rho):
        (R, k, m, d), found = W.shape, np.empty(len(rows))
        if not len(rows):
            return found
        sizes = np.stack([np.linalg.norm(W, axis=-1), dual(W, norm)]).reshape(2, R * k, m)
        plan, places = blocks(sizes[1], d, q), np.stack([rows[:, 0], rows[:, 1] * k + rows[:, 2]], axis=1)
        order = np.argsort(places[:, 1], kind="stable")
        firsts = np.flatnonzero(np.diff(places[order, 1], prepend=-1, append=R * k))
        args = W.reshape(R * k, m, d), sizes, X, firsts, order, places, eps, *plan[:2], np.array(plan.ends)
        self._spread(cpu_caps.caps, len(firsts) - 1, None, *args, norm, q, rho, found, compiling=nullcontext)
        return found


WARM_UPS = ("search", "float64", "float32", "lanes", "recursion")  # of about a minute to ten seconds, longest first


def warm_up(part) -> None:
    """Compile a part of the kernels, or load it from the cache, by calling its methods on a few numbers.

    "float32" and "float64" are a network's; the others know float64 alone.  "recursion" is that of runs one by one,
    "lanes" of runs side by side.  "train:DTYPE:RUNS" is `train` of so many runs, and nothing else of a network.
    """
    engine, one = NumbaEngine(), np.ones(1)
    if part in ("recursion", "lanes"):
        for runs, n_steps in [(1, 1)] if part == "recursion" else [(L, 0), (L, 1)]:  # lanes: without and with ascents
            one, kinds = np.ones(runs), np.ones((runs, 1, 1))
            types = Types(np.zeros((runs, 1), np.int64), kinds[..., 0], np.zeros(kinds.shape, np.int64), kinds, kinds)
            watch, state = Watch(np.ones((runs, 2, 1)), one, one.copy(), 1.0, False), np.ones((runs, 2, 2))
            given = np.ones((runs, 2, 4)), state, types, watch, 2, one, one, 1, 0, one, one, 0, n_steps
            engine.recursion(*given)
    elif part == "search":
        rows, numbers = np.array([[0, 0, 0, 1]]), np.ones((1, 3))
        engine.search(np.ones((1, 2, 1, 2)), np.ones((1, 2)), rows, numbers, 0, 2, 1.0, 1, 1, 1)
        engine.caps(np.ones((1, 2, 1, 2)), np.ones((1, 2)), rows[:, :3], np.ones(1), 0, 2, 1.0)
    elif part.startswith("train:"):
        _, dtype, runs = part.split(":")
        _warm_up_training(engine, dtype, int(runs))
    else:
        _warm_up_network(engine, part)


def _warm_up_training(engine, dtype, R):
    W, X, y, one = np.ones((R, 2, 1, 2), dtype), np.ones((R, 2, 1, 2), dtype), np.zeros((R, 2), np.int64), np.ones(R)
    engine.train(W, engine.pack(X, y, R), 2, 1.0, one, 1, 0, one, one, 0, 1)


def _warm_up_network(engine, dtype):
    R = 1 + _threads
    W, X, y = np.ones((R, 2, 1, 2), dtype), np.ones((R, 2, 1, 2), dtype), np.zeros((R, 2), np.int64)
    one = np.ones(R)
    batch = engine.pack(X, y, R)
    engine.logits(W, batch, 2, 1.0)
    engine.loss_and_grad(W, batch, 2, 1.0)
    engine.input_grad(W, batch, 2, 1.0, 0)
    engine.pull_back(W, batch, 2, 1.0, np.ones((R, 2, 2)))
    engine.ascend(W, batch, 2, 1.0, 0, one, one, 0, 1)
    engine.pgd(W, batch, 2, 1.0, 0, one, one, 0, 1, X)
    engine.interval(W, batch, 2, 1.0, np.ones((R, 2, 1)))
    engine.aligned(W, batch, 2, 1.0, one, np.ones((R, 2, 2)), np.zeros((R, 2, 1), np.int64))
    for runs in (1, _threads):
        _warm_up_training(engine, dtype, runs)

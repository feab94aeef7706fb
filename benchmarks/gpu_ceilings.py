"""What this GPU can do at most, and a workload's matrix products alone: what the rows of gpu.py are held against."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from workloads import STEPS

SOURCE = str(Path(__file__).resolve().with_name("gpu_ceilings"))
THREADS, BLOCKS = 256, 8  # of one multiprocessor: all the threads it takes
PRECISIONS = {"float32": "float32", "tf32": "float32", "float64": "float64"}  # precision: dtype of the numbers
INSIDE = 20  # repetitions in one graph at most: starting a graph costs the host some microseconds
SHORT = 0.1  # of the time of the engine's calls: a graph has no set-up


class Effort(NamedTuple):
    """How much is measured: milliseconds of a timed call at least, calls, rounds of multiply-adds, numbers copied,
    rows of a square product, iterations of training at least and at most."""

    milliseconds: float = 300  # some ten milliseconds of set-up and transfers are then a few hundredths
    repeats: int = 7
    rounds: int = 1 << 14
    numbers: int = 1 << 28
    square: int = 8192
    iterations: tuple[int, int] = (20, 5000)


QUICK = Effort(0.01, 2, 4, 1 << 12, 32, (1, 3))


def milliseconds(gpu, job) -> float:
    with gpu.timed() as took:
        job()
    return took[0]


def in_graphs(gpu, work, effort) -> float:
    """Microseconds of `work()`, kernels and products only, replayed in CUDA graphs: the median of repeats."""
    work()  # compiles, and cuBLAS makes its handle: neither can be recorded
    once = gpu.record(work)
    once()
    many = int(np.clip(SHORT * effort.milliseconds / max(milliseconds(gpu, once), 1e-3), 1, 10_000))
    inside = min(many, INSIDE)
    replay = gpu.record(lambda: [work() for _ in range(inside)])
    replay()
    graphs = -(-many // inside)
    times = [milliseconds(gpu, lambda: [replay() for _ in range(graphs)]) for _ in range(effort.repeats)]
    return 1e3 * float(np.median(times)) / (graphs * inside)


# ------------------------------------------------------------------ ceilings
def multiply_add_peak(gpu, dtype, effort) -> float:
    """FLOP/s of a kernel that does nothing but multiply-adds in registers; what it did it has counted itself."""
    number, blocks = np.dtype(dtype).type(1), BLOCKS * gpu.multiprocessors
    total = gpu.empty((blocks * THREADS,), np.float64)
    args = total, number, number, effort.rounds

    def work():
        gpu.launch(f"{SOURCE}:multiply_add", dtype, (blocks,), THREADS, *args)

    took = in_graphs(gpu, work, effort)
    return 2 * gpu.download(total).sum() / (1e-6 * took)


def copy_bandwidth(gpu, effort) -> float:
    """Bytes/s, read and written, of a copy far larger than the caches: our kernel or CuPy's, whichever is faster."""
    some = np.random.default_rng(0).standard_normal(min(effort.numbers, 1 << 20), np.float32)
    source = gpu.upload(np.tile(some, effort.numbers // len(some)))
    target = gpu.zeros(source.shape, np.float32)

    def work():
        args = source, target, np.int64(effort.numbers)
        gpu.launch(f"{SOURCE}:copy", np.float32, (BLOCKS * gpu.multiprocessors,), THREADS, *args)

    ours = in_graphs(gpu, work, effort)
    for part in (slice(0, len(some)), slice(-len(some), None)):
        if not np.array_equal(gpu.download(target[part]), some):
            raise RuntimeError("the copy is not what was copied")
    gpu.copy(target, source)
    theirs = 1e3 * min(milliseconds(gpu, lambda: gpu.copy(target, source)) for _ in range(effort.repeats))
    return 2 * source.nbytes / (1e-6 * min(ours, theirs))


def product_rate(gpu, precision, effort) -> float:
    """FLOP/s of cuBLAS on large square matrices."""
    n, draw = effort.square, np.random.default_rng(0).standard_normal
    A, B = (gpu.upload(draw((1, n, n), np.float32), PRECISIONS[precision]) for _ in range(2))
    out = gpu.empty((1, n, n), A.dtype)
    took = in_graphs(gpu, lambda: gpu.multiply(out, A, B, turn_b=True, tf32=precision == "tf32"), effort)
    return 2 * n**3 / (1e-6 * took)


def ceilings(gpu, effort) -> dict:
    """FLOP/s by dtype and precision, bytes/s."""
    return {
        "multiply-adds": {dtype: multiply_add_peak(gpu, dtype, effort) for dtype in ("float32", "float64")},
        "copy": copy_bandwidth(gpu, effort),
        "cuBLAS": {precision: product_rate(gpu, precision, effort) for precision in PRECISIONS},
    }


# ------------------------------------------------------------------ a workload's products
class Products:
    """A workload's necessary matrix products on its inputs and weights, nothing between them.

    Forward Z = X W^T, gradient Z^T X, pull Z W; the ascent's Z_y = X_y W_y^T and Z_y W_y on the rows of every label y.
    """

    def __init__(self, gpu, load, tf32):
        self.gpu, self.load, self.tf32, R, S = gpu, load, tf32, load.n_runs, load.N * load.P
        self.X, self.W = gpu.upload(load.X.reshape(R, S, -1)), gpu.upload(load.W.reshape(R, load.K, -1))
        self.Z, self.D = (gpu.empty((R, S, n), load.dtype) for n in (load.K, load.d))
        self.G = gpu.empty((R, load.K, load.d), load.dtype)
        self.forward()  # Z holds numbers like those it holds in earnest
        self.edges = (np.searchsorted(load.y[0], np.arange(load.k + 1)) * load.P).tolist()

    def multiply(self, *args, **turns):
        self.gpu.multiply(*args, tf32=self.tf32, **turns)

    def forward(self):
        self.multiply(self.Z, self.X, self.W, turn_b=True)

    def gradient(self):
        self.multiply(self.G, self.Z, self.X, turn_a=True)

    def pull(self):
        self.multiply(self.D, self.Z, self.W)

    def ascents(self):
        """The ascent's products in several ways."""
        load, R = self.load, self.load.n_runs
        slopes = self.gpu.zeros((R, load.N * load.P, load.m), load.dtype)
        blocks = list(zip(self.edges, self.edges[1:]))
        longest = max(hi - lo for lo, hi in blocks)
        rows = np.zeros((R, load.k, longest, load.d), load.dtype)
        for y, (lo, hi) in enumerate(blocks):
            rows[:, y, : hi - lo] = load.X.reshape(R, -1, load.d)[:, lo:hi]
        rows = self.gpu.upload(rows.reshape(R * load.k, longest, load.d))
        self.moves = self.gpu.empty(rows.shape, load.dtype)
        small = self.gpu.empty((R * load.k, longest, load.m), load.dtype)
        classes = self.W.reshape(R * load.k, load.m, load.d)

        def label_by_label():
            for y, (lo, hi) in enumerate(blocks):
                own = slice(y * load.m, (y + 1) * load.m)
                self.multiply(slopes[:, lo:hi], self.X[:, lo:hi], self.W[:, own], turn_b=True)
                self.multiply(self.D[:, lo:hi], slopes[:, lo:hi], self.W[:, own])

        def labels_at_once():  # padded to the longest
            self.multiply(small, rows, classes, turn_b=True)
            self.multiply(self.moves, small, classes)

        def all_neurons():
            self.forward()
            self.pull()

        return {f.__name__.replace("_", " "): f for f in (label_by_label, labels_at_once, all_neurons)}

    def measure(self, step, effort) -> dict:
        """Microseconds of all products of a step ("us"), how its ascent was multiplied ("how"), and of each apart."""
        R, load = self.load.n_runs, self.load
        flops = 2 * R * load.N * load.P * load.K * load.d
        ways = {"logits": [self.forward], "PGD-20": [self.forward, self.pull]}.get(step, [self.forward, self.gradient])
        rates = {one.__name__: flops / (1e-6 * in_graphs(self.gpu, one, effort)) for one in ways}
        before = self.ascents() if step == "adversarial" else {"": lambda: None}
        took = {
            how: in_graphs(self.gpu, lambda first=first: [one() for one in (first, *ways)], effort)
            for how, first in before.items()
        }
        how = min(took, key=took.get)
        times = STEPS if step == "PGD-20" else 1
        return {"us": times * took[how], "how": how, "tried": took, "flops_per_s": rates}


def formula(load, step) -> str:
    """How FLOPs are counted (`Workload.flops`)."""
    products = {"standard": "2", "adversarial": f"(2 + 2/{load.k})", "PGD-20": f"{2 * STEPS}", "logits": "1"}[step]
    return f"{products} products of 2 S K d, S = {load.n_runs * load.N * load.P:,}, K = {load.K}, d = {load.d}"

"""The GPU engine: the methods of the reference on one CUDA device, cuBLAS between our kernels or one kernel alone.

Two regimes (docs/gpu.md).  *Products*: cuBLAS multiplies, a kernel before and after does the rest; training records one
iteration as a CUDA graph and replays it.  *Persistent* (training only): a block, or a team of blocks, keeps one run's
weights in shared memory and iterates many times per launch.
"""

import numpy as np

from ..formulas import CROSS_ENTROPY, NEG_LABEL_LOGIT
from ..numpy_engine import NumpyEngine
from . import persistent
from .branch_and_bound import search
from .device import Gpu, GpuMemoryError
from .layout import FILL, GpuBatch
from .recursion import recursion

THREADS = 256
OUTPUTS, SLOPES, GIVEN = 1, 2, 3  # of samples.cu
MOST_BLOCKS = 500  # of one label each: beyond, products with all neurons are less trouble than so many calls
REGIMES = ("auto", "persistent", "products")


def over(n):
    """The grid of an elementwise kernel."""
    return (-(-n // THREADS),)


def training_numbers(k, m, d, P, n) -> int:
    """Numbers per run that training by products keeps: preactivations, x~, its gradient, and the weights' gradient."""
    return n * P * (k * m + 2 * d) + k * m * d


def bytes_per_run(k, m, d, P, n, itemsize) -> int:
    """Device memory that a run with n samples needs at most, whatever is done with it (PGD needs most)."""
    numbers = int((1 + FILL) * n * P * (k * m + 5 * d + 1)) + (n + 3) * k * m * d + (k * m) ** 2
    return itemsize * numbers + 8 * n * (3 * k + 6) + 1024


class GpuNetwork:
    """A network on the device: W (R, K, d), the activation's numbers, and memory for preactivations of a batch."""

    def __init__(self, gpu, W, q, rho):
        R, self.k, self.m, self.d = W.shape
        self.gpu, self.R, self.K, self.dtype = gpu, R, self.k * self.m, W.dtype
        with np.errstate(over="ignore", divide="ignore"):
            inverse = W.dtype.type(1) / W.dtype.type(rho)
        if not np.finfo(W.dtype).tiny <= inverse < np.inf:  # CuPy compiles for denormals that are 0
            raise ValueError(f"rho = {rho}: 1/rho must be a finite, normal {W.dtype} number")
        self.W = gpu.upload(W.reshape(R, self.K, self.d))
        self.sigma = int(q), W.dtype.type(rho), inverse

    def upload(self, values):
        """Per-run numbers (R,) in the weights' dtype."""
        return self.gpu.upload(values, self.dtype)


class CupyEngine(NumpyEngine):
    """The methods of :class:`~advfeat.kernels.formulas.NumpyEngine` on a GPU.

    ``regime``: "auto" chooses by shape, "persistent" and "products" force training's.  ``tf32``: float32 products on
    tensor cores, which round their factors to 10 bits of mantissa (backend "cupy-tf32").
    """

    def __init__(self, gpu: Gpu, regime: str = "auto", tf32: bool = False):
        if regime not in REGIMES:
            raise ValueError(f"regime = {regime!r}: must be one of {REGIMES}")
        self._gpu, self._regime, self._tf32 = gpu, regime, tf32
        self.name = "cupy-tf32" if tf32 else "cupy"

    def pack(self, X, y, n_runs, active=None):
        return GpuBatch(self._gpu, X, y, n_runs, active)

    def plan(self, W, batch):
        (R, k, m, d), size, n = W.shape, W.itemsize, batch.n
        cut = self._cut(W, batch)
        work = 4 * R * n * batch.P * k * m * d
        rows = [("device", f"{self._gpu.name}, {self._gpu.free_bytes() / 2**30:.3g} GiB free")]
        if cut is None:
            numbers = training_numbers(k, m, d, batch.P, n) * size
            rows += [
                ("regime", "products: cuBLAS between kernels, one iteration recorded as a CUDA graph"),
                ("products", f"{'tf32' if self._tf32 else W.dtype}, {len(batch.blocks)} blocks of one label each"),
            ]
        else:
            numbers = 0 if cut.keep else -(-n // cut.S) * k * m * d * size
            rows += [
                ("regime", "persistent: one launch, weights in shared memory"),
                ("blocks", f"{R * cut.team}, {cut.team} for each run, of {persistent.THREADS} threads"),
                ("chunks", f"{-(-n // cut.S)} of at most {cut.S} samples a run"),
                ("shared memory", f"{cut.shared / 1024:.1f} of {self._gpu.shared_bytes / 1024:.0f} KiB a block"),
                ("gradient", "added up in shared memory" if cut.keep else "left by chunk in global memory"),
            ]
        inputs = (1 if batch.shared else R) * n * batch.P * d * size
        return [
            *rows,
            ("necessary work", f"{work / 1e6:.4g} MFLOP a step, {work * (1 + 1 / k) / 1e6:.4g} with an ascent on -F_y"),
            ("memory", f"{inputs / 2**20:.3g} MiB inputs, {R * numbers / 2**20:.3g} MiB for training"),
        ]

    def plan_recursion(self, types):
        return f"{len(types.y)} runs, a block of threads each"

    # -------------------------------------------------------------- parts
    def _net(self, W, q, rho):
        if self._tf32 and W.dtype != np.float32:
            raise ValueError(f"backend = 'cupy-tf32': tensor cores multiply float32 networks, this one is {W.dtype}")
        return GpuNetwork(self._gpu, W, q, rho)

    def _reserve(self, net, batch, **floats_per_run):
        """Device memory by name: so many numbers of W's dtype per run, float64 for names ending in _64."""
        kinds = {name: np.dtype(np.float64 if name.endswith("_64") else net.dtype) for name in floats_per_run}
        per_run = sum(kinds[name].itemsize * n for name, n in floats_per_run.items())
        if "inputs" not in vars(batch):
            rows = batch.n * batch.P * batch.d * net.dtype.itemsize
            per_run += 0 if batch.shared else rows
        free = self._gpu.free_bytes()
        if per_run * net.R > free:
            raise GpuMemoryError(per_run * net.R, free, net.R, int(free // per_run))
        return {name: self._gpu.empty((net.R, n), kinds[name]) for name, n in floats_per_run.items()}

    def _multiply(self, out, A, B, **turns):
        self._gpu.multiply(out, A, B, tf32=self._tf32, **turns)

    def _images(self, net, X, Z):
        """Z (R, n P, K) <- X W^T."""
        self._multiply(Z, X, net.W, turn_b=True)

    def _respond(self, net, batch, Z, held, objective, want, given=None, scale=None):
        F, loss, margin = (held[name] for name in ("F_64", "loss_64", "margin_64"))
        args = Z, batch.labels, F, F if given is None else given, loss, margin
        sizes = net.k, net.m, batch.P, batch.n
        scale = held["one_64"] if scale is None else scale
        self._gpu.launch(
            "samples:respond", net.dtype, (net.R * batch.n,), THREADS, *args, scale, *net.sigma, objective, want,
            *sizes, shared=16 * net.k,
        )  # fmt: skip

    def _by_label(self, batch):
        """(runs, label, rows) of every block of rows with one label."""
        for r, label, lo, hi in batch.blocks:
            yield slice(None) if r is None else slice(r, r + 1), label, slice(lo * batch.P, hi * batch.P)

    def _pull(self, net, batch, Z, D, only_label=False):
        """D (R, n P, d) <- Z W; with `only_label` Z is read where a slot's own neurons stand."""
        if not only_label:
            return self._multiply(D, Z, net.W)
        for runs, label, rows in self._by_label(batch):
            own = slice(label * net.m, (label + 1) * net.m)
            self._multiply(D[runs, rows], Z[runs, rows, own], net.W[runs, own])

    def _label_gradient(self, net, batch, at, held, D):
        """D <- -grad of F_y at `at`, from the label's own neurons alone."""
        rows = batch.n * batch.P
        Z = held["Z"].reshape(-1)[: net.R * rows * net.m].reshape(net.R, rows, net.m)
        if batch.each is not None:  # a run's label is a batch of the product
            one = net.R * net.k, batch.each * batch.P
            W, D, z = net.W.reshape(one[0], net.m, net.d), D.reshape(*one, net.d), Z.reshape(*one, net.m)
            self._multiply(z, at.reshape(*one, net.d), W, turn_b=True)
            self._gpu.launch("samples:label_slopes", net.dtype, over(Z.size), THREADS, Z, *net.sigma, np.int64(Z.size))
            return self._multiply(D, z, W)
        for runs, label, rows in self._by_label(batch):
            own = slice(label * net.m, (label + 1) * net.m)
            x = at[:, rows] if len(at) == 1 else at[runs, rows]
            self._multiply(Z[runs, rows], x, net.W[runs, own], turn_b=True)
        self._gpu.launch("samples:label_slopes", net.dtype, over(Z.size), THREADS, Z, *net.sigma, np.int64(Z.size))
        for runs, label, rows in self._by_label(batch):
            own = slice(label * net.m, (label + 1) * net.m)
            self._multiply(D[runs, rows], Z[runs, rows], net.W[runs, own])

    def _gradient(self, net, batch, at, objective, held, D):
        """D (R, n P, d) <- grad_x J at `at` (R or 1, n P, d)."""
        if objective == NEG_LABEL_LOGIT and (batch.each is not None or len(batch.blocks) <= MOST_BLOCKS):
            return self._label_gradient(net, batch, at, held, D)
        self._images(net, at, held["Z"])
        self._respond(net, batch, held["Z"], held, objective, SLOPES)
        self._pull(net, batch, held["Z"], D)

    def _climb(self, net, batch, moved, at, D, rest, step, eps, norm, steepest):
        rows = net.R * batch.n * batch.P
        self._gpu.launch(
            "steps:climb", net.dtype, over(rows * 32), THREADS, moved, at, batch.inputs, D, rest, step, eps, norm,
            int(steepest), int(len(batch.inputs) == 1), int(len(at) == 1), batch.P, batch.n * batch.P, np.int64(rows),
            net.d,
        )  # fmt: skip

    def _memory(self, net, batch, *names, **more):
        """Arrays that most methods need, and those named: "moved", "D", "best" (as inputs), "gradient" (as weights)."""
        rows = batch.n * batch.P
        sizes = {"Z": rows * net.K, "F_64": batch.n * net.k, "loss_64": batch.n, "margin_64": batch.n, "one_64": 1}
        sizes |= {name: net.K * net.d if name == "gradient" else rows * net.d for name in names} | more
        held = self._reserve(net, batch, **sizes)
        self._gpu.copy(held["one_64"], np.ones((net.R, 1)))
        shapes = {"Z": (net.R, rows, net.K), "gradient": (net.R, net.K, net.d)}
        shapes |= {name: (net.R, rows, net.d) for name in names if name != "gradient"}
        return held | {name: held[name].reshape(*shape) for name, shape in shapes.items() if name in held}

    def _inputs(self, batch, array, rest):
        """Inputs (R, N, P, d) from slots' rows on the device."""
        values = self._gpu.download(array).reshape(batch.n_runs, batch.n, batch.P, batch.d)
        return batch.scatter(values, rest)

    # -------------------------------------------------------------- the engine's methods
    def logits(self, W, batch, q, rho):
        if not batch.n:
            return np.full((len(W), batch.N, W.shape[1]), np.nan)
        net = self._net(W, q, rho)
        held = self._memory(net, batch)
        self._images(net, batch.inputs, held["Z"])
        self._respond(net, batch, held["Z"], held, GIVEN, OUTPUTS)
        return batch.scatter(self._gpu.download(held["F_64"]).reshape(net.R, batch.n, net.k), np.nan)

    def loss_and_grad(self, W, batch, q, rho):
        net = self._net(W, q, rho)
        held = self._memory(net, batch, "gradient")
        self._images(net, batch.inputs, held["Z"])
        self._respond(net, batch, held["Z"], held, CROSS_ENTROPY, SLOPES, scale=batch.shares)
        self._multiply(held["gradient"], held["Z"], batch.inputs, turn_a=True)
        loss = np.where(batch.resting, 0, self._gpu.download(held["loss_64"]))
        return loss.sum(axis=1) / batch.count, self._gpu.download(held["gradient"]).reshape(W.shape)

    def input_grad(self, W, batch, q, rho, objective):
        if not batch.n:
            return np.zeros((len(W), *batch.X.shape[1:]), W.dtype)
        net = self._net(W, q, rho)
        held = self._memory(net, batch, "D")
        self._gradient(net, batch, batch.inputs, objective, held, held["D"])
        return self._inputs(batch, held["D"], W.dtype.type(0))

    def pull_back(self, W, batch, q, rho, C):
        if not batch.n:
            return np.zeros((len(W), *batch.X.shape[1:]), W.dtype)
        net = self._net(W, q, rho)
        held = self._memory(net, batch, "D")
        given = self._gpu.upload(batch.gather(C), np.float64)
        self._images(net, batch.inputs, held["Z"])
        self._respond(net, batch, held["Z"], held, GIVEN, SLOPES, given)
        self._pull(net, batch, held["Z"], held["D"])
        return self._inputs(batch, held["D"], W.dtype.type(0))

    def ascend(self, W, batch, q, rho, objective, step, eps, norm, n_steps):
        if not batch.n or not n_steps:
            return np.array(np.broadcast_to(batch.X, (len(W), *batch.X.shape[1:])))
        net = self._net(W, q, rho)
        held = self._memory(net, batch, "D", "moved")
        rest, step, eps = self._gpu.upload(batch.resting), net.upload(step), net.upload(eps)
        at = batch.inputs
        for _ in range(n_steps):
            self._gradient(net, batch, at, objective, held, held["D"])
            self._climb(net, batch, held["moved"], at, held["D"], rest, step, eps, norm, False)
            at = held["moved"]
        return self._inputs(batch, held["moved"], batch.X)

    def pgd(self, W, batch, q, rho, objective, step, eps, norm, n_steps, start):
        if not batch.n:
            return np.array(np.broadcast_to(batch.X, start.shape)), np.full(start.shape[:2], np.nan)
        net, gpu = self._net(W, q, rho), self._gpu
        held = self._memory(net, batch, "D", "moved", "best", least_64=batch.n)
        gpu.copy(held["least_64"], np.full((net.R, batch.n), np.inf))
        gpu.copy(held["moved"], batch.gather(start).reshape(held["moved"].shape).astype(net.dtype, copy=False))
        gpu.copy(held["best"], batch.inputs)
        rest, step, eps = gpu.upload(batch.resting), net.upload(step), net.upload(eps)
        for it in range(n_steps + 1):
            self._images(net, held["moved"], held["Z"])
            self._respond(net, batch, held["Z"], held, objective, SLOPES)
            args = held["margin_64"], held["least_64"], rest, held["moved"], held["best"], batch.P * net.d
            gpu.launch("samples:keep", net.dtype, (net.R * batch.n,), THREADS, *args)
            if it < n_steps:
                self._pull(net, batch, held["Z"], held["D"], objective == NEG_LABEL_LOGIT)
                self._climb(net, batch, held["moved"], held["moved"], held["D"], rest, step, eps, norm, True)
        least = batch.scatter(gpu.download(held["least_64"]), np.nan)
        return self._inputs(batch, held["best"], batch.X), least

    def train(self, W, batch, q, rho, lr, n_iter, objective, step, eps, norm, n_steps):
        net, cut = self._net(W, q, rho), self._cut(W, batch)
        args = net, batch, n_iter, lr, objective, step, eps, norm, n_steps
        mean, bad = self._train_by_products(*args) if cut is None else persistent.train(cut, *args)
        W[...] = self._gpu.download(net.W).reshape(W.shape)
        return mean, bad

    def _cut(self, W, batch):
        """The persistent regime's cut, or None for products."""
        if self._regime == "products" or self._tf32:
            return None
        (R, k, m, d), forced = W.shape, self._regime == "persistent"
        return persistent.choose(self._gpu, k, m, d, batch.P, batch.n, R, W.dtype, forced)

    def _train_by_products(self, net, batch, n_iter, lr, objective, step, eps, norm, n_steps):
        gpu, names = self._gpu, ("gradient", "D", "moved") if n_steps else ("gradient",)
        if n_steps and objective == NEG_LABEL_LOGIT:
            batch = batch.even(net.k)
        held = self._memory(net, batch, *names)
        mean, bad = gpu.upload(np.full(net.R, np.nan)), gpu.upload(np.full(net.R, -1), np.int32)
        iteration, rest = gpu.zeros(net.R, np.int32), gpu.upload(batch.resting)
        lr, step, eps = net.upload(lr), net.upload(step), net.upload(eps)
        if n_steps:
            gpu.copy(held["moved"], batch.inputs)  # slots that fill up are never written, but multiplied by 0

        def iterate():
            at = batch.inputs
            for _ in range(n_steps):
                self._gradient(net, batch, at, objective, held, held["D"])
                self._climb(net, batch, held["moved"], at, held["D"], rest, step, eps, norm, False)
                at = held["moved"]
            self._images(net, at, held["Z"])
            self._respond(net, batch, held["Z"], held, CROSS_ENTROPY, SLOPES, scale=batch.shares)
            self._multiply(held["gradient"], held["Z"], at, turn_a=True)
            size = net.K * net.d
            args = net.W, held["gradient"], lr, bad, size, np.int64(net.R * size)
            gpu.launch("steps:update", net.dtype, over(net.R * size), THREADS, *args)
            args = held["loss_64"], batch.labels, batch.shares, mean, bad, iteration, batch.n
            gpu.launch("steps:close_iteration", net.dtype, (net.R,), 32, *args)

        if n_iter:
            iterate()  # which also compiles what it needs
        replay = gpu.record(iterate) if n_iter > 2 else iterate
        for _ in range(n_iter - 1):
            replay()
        return gpu.download(mean), gpu.download(bad).astype(np.int64)

    def interval(self, W, batch, q, rho, shift):
        if not batch.n:
            return (np.full((len(W), batch.N, W.shape[1]), np.nan),) * 2
        net = self._net(W, q, rho)
        held = self._memory(net, batch, upper_64=batch.n * W.shape[1])
        self._images(net, batch.inputs, held["Z"])
        args = held["Z"], net.upload(shift.reshape(net.R, net.K)), held["F_64"], held["upper_64"]
        sizes = net.k, net.m, batch.P, batch.n
        self._gpu.launch("samples:interval", net.dtype, (net.R * batch.n,), THREADS, *args, *net.sigma, *sizes)
        shape = net.R, batch.n, net.k
        bounds = (self._gpu.download(held[name]).reshape(shape) for name in ("F_64", "upper_64"))
        return tuple(batch.scatter(bound, np.nan) for bound in bounds)

    def aligned(self, W, batch, q, rho, eps, cross, leaders):
        if not batch.n:
            return np.zeros((len(W), batch.N, batch.P), np.int64)
        net = self._net(W, q, rho)
        held, n_leaders = self._memory(net, batch), leaders.shape[2]
        choice = self._gpu.empty((net.R, batch.n, batch.P), np.int32)
        self._images(net, batch.inputs, held["Z"])
        args = net.upload(cross), self._gpu.upload(leaders, np.int32), net.upload(eps), choice
        sizes = net.k, net.m, batch.P, n_leaders, batch.n
        self._gpu.launch(
            "samples:aligned", net.dtype, (net.R * batch.n,), THREADS, held["Z"], batch.labels, *args, *net.sigma,
            *sizes, shared=12 * batch.P + 8,
        )  # fmt: skip
        return batch.scatter(self._gpu.download(choice).astype(np.int64), 0)

    def recursion(self, phi, gram, types, watch, q, rho, lr, n_iter, objective, step, eps, norm, n_steps):
        return recursion(self._gpu, phi, gram, types, watch, q, rho, lr, n_iter, objective, step, eps, norm, n_steps)

    def search(self, W, X, rows, numbers, norm, q, rho, n_steps, n_rounds, n_nodes, joint=False):
        """With chords alone, whatever `joint` says: looser bounds for the same boxes."""
        return search(self._gpu, W, X, rows, numbers, norm, q, rho, n_steps, n_rounds, n_nodes)

    def caps(self, W, X, rows, eps, norm, q, rho):
        """On the CPU, where they take a small share of what the search takes."""
        from ..cpu.engine import NumbaEngine

        return NumbaEngine().caps(W, X, rows, eps, norm, q, rho)

"""The workloads of the benchmarks: shapes, inputs, necessary work, and one step of each by the reference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from advfeat.kernels import CROSS_ENTROPY, LINF, NEG_LABEL_LOGIT, formulas, get_engine

from advfeat import PatchDistribution

Q, RHO = 3, 100.0  # logits of order 1: saturated softmax residuals would be denormal numbers, slow on any engine
EPS = 0.1
PGD_EPS, STEPS = 1e-4, 20  # sign steps of 2.5 eps / 20; so small that samples stay unbroken and no step is saved
ASCENT = {"standard": 0, "adversarial": 1}  # ascent steps on -F_y per iteration


@dataclass(frozen=True)
class Workload:
    name: str
    n_runs: int
    k: int
    m: int
    d: int
    P: int
    N: int
    n_robust: int
    noise: float = 0.5
    dtype: str = "float32"

    @property
    def K(self):
        return self.k * self.m

    @property
    def shape(self):
        return f"{self.n_runs} x k={self.k} m={self.m} d={self.d} P={self.P} N={self.N}"

    @cached_property
    def W(self):
        draws = np.random.default_rng(0).standard_normal((self.n_runs, self.k, self.m, self.d))
        return (draws / np.sqrt(self.d)).astype(self.dtype)

    @cached_property
    def X(self):
        """(R, N, P, d); labels sorted and balanced, the same in every run: the gift of a static split by label."""
        law = PatchDistribution(
            n_classes=self.k,
            patch_dim=self.d,
            n_patches=self.P,
            n_robust=self.n_robust,
            alpha=3.0,
            beta=1.0,
            noise_std=self.noise,
        )
        samples = (law.sample(self.N, r, balanced=True) for r in range(self.n_runs))
        return np.stack([data.X[np.argsort(data.y, kind="stable")] for data in samples]).astype(self.dtype)

    @cached_property
    def y(self):
        return np.broadcast_to(np.sort(np.arange(self.N) % self.k), (self.n_runs, self.N)).copy()

    @cached_property
    def lr(self):
        """Every run its own; large enough for one step to be seen in float32, logits stay of order 1."""
        return np.linspace(100.0, 200.0, self.n_runs)

    @cached_property
    def rate(self):
        """Every run its own ascent rate."""
        return np.linspace(20.0, 40.0, self.n_runs)

    @cached_property
    def eps(self):
        return np.full(self.n_runs, EPS)

    @cached_property
    def start(self):
        noise = np.random.default_rng(1).uniform(-PGD_EPS, PGD_EPS, self.X.shape)
        return (self.X + noise).astype(self.dtype)

    @cached_property
    def predicted(self):
        """PGD's labels: the clean predictions, so that there is something to attack."""
        return formulas.forward(self.W.astype(np.float64), self.X.astype(np.float64), Q, RHO).argmax(axis=-1)

    @cached_property
    def shift(self):
        """(R, k, m), |w|_1 eps."""
        return EPS * np.abs(self.W).sum(axis=-1, dtype=np.float64)

    def flops(self, step):
        """Necessary FLOPs, 2 S K d per product, S = R N P; the ascent on -F_y needs the label's neurons alone."""
        product = 2 * self.n_runs * self.N * self.P * self.K * self.d
        products = {"standard": 2, "adversarial": 2 + 2 / self.k, "PGD-20": 2 * STEPS, "interval": 1, "logits": 1}
        return product * products[step]

    def bytes(self, step):
        """Necessary bytes: inputs read once (PGD: result written), weights read, and written by training."""
        item = np.dtype(self.dtype).itemsize
        inputs, weights = self.X.size * item, self.n_runs * self.K * self.d * item
        if step in ASCENT:
            return inputs + 2 * weights
        return inputs * (2 if step == "PGD-20" else 1) + weights


def train(engine, load, batch, W, n_iter, step):
    return engine.train(W, batch, Q, RHO, load.lr, n_iter, NEG_LABEL_LOGIT, load.rate, load.eps, LINF, ASCENT[step])


def pgd(engine, load, batch, W, start):
    eps = np.full(len(W), PGD_EPS)
    return engine.pgd(W, batch, Q, RHO, CROSS_ENTROPY, 2.5 * eps / STEPS, eps, LINF, STEPS, start)


def reference_step(load, step, runs=slice(0, 2)):
    """One iteration's change of the weights, the margin PGD takes away or the interval's lower bounds, in float64, of
    the first runs."""
    engine, few = get_engine("numpy"), _few(load, runs)
    W = few.W.astype(np.float64)
    X = few.X.astype(np.float64)
    batch = engine.pack(X, few.y, len(W))
    if step in ASCENT:
        train(engine, few, batch, W, 1, step)
        return W - few.W
    if step == "PGD-20":
        margins = pgd(engine, few, engine.pack(X, few.predicted, len(W)), W, few.start.astype(np.float64))[1]
        return taken_away(load, margins=margins)
    return engine.interval(W, batch, Q, RHO, few.shift)[0]


def taken_away(load, margins=None, X=None):
    """How far the margins, given or those of perturbed inputs X, lie below the clean ones, by the float64 reference."""
    R = len(margins if X is None else X)
    W, y = load.W[:R].astype(np.float64), load.predicted[:R]
    clean, *perturbed = (
        formulas.margin(formulas.forward(W, inputs.astype(np.float64), Q, RHO), y)
        for inputs in (load.X[:R], *([] if X is None else [X]))
    )
    return clean - (perturbed[0] if perturbed else margins)


def _few(load, runs):
    """The first runs of a workload, with the same numbers."""
    other = Workload(*(getattr(load, name) for name in Workload.__dataclass_fields__))
    for name in ("W", "X", "y", "lr", "rate", "eps", "start", "predicted", "shift"):
        object.__setattr__(other, name, getattr(load, name)[runs])
    return other


def all_workloads(dtype):
    shapes = {
        "default": (4, 5, 20, 100, 64, 20, 1),
        "W1": (1, 10, 10, 128, 16, 256, 2),
        "W2": (1, 10, 64, 1024, 32, 256, 4),
        "W3": (256, 5, 5, 32, 16, 50, 1),
    }
    loads = {name: Workload(name, *shape, dtype=dtype) for name, shape in shapes.items()}
    loads["W4"] = Workload("W4", *shapes["W2"], noise=0.0, dtype=dtype)
    return loads

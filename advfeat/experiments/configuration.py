"""The configuration of Figure 3: every hyperparameter by name, from defaults, a TOML file and key=value pairs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np

from ..core import checks
from ..core.config import Configuration, key
from ..core.rng import stream
from ..core.types import PRECISIONS, Array, Precision
from ..kernels import BACKENDS, Backend, get_engine
from ..patches.data import PatchData, PatchDistribution
from ..patches.network import PatchCNN
from ..theory import Window, find_window, plateau
from ..training.configuration import TrainConfig

LARGEST_LOG = 708.0  # e^+-708 are normal float64 numbers
SPREAD = 10  # standard deviations: no normal number drawn here is larger


def count(default, help, low=1):
    """A key of something that is counted."""
    return key(default, help, low=low, high=checks.MOST)


@dataclass(frozen=True)
class Figure3Config(Configuration):
    """Both trainings of Figure 3.  Defaults: the measured setting in which the paper's story is seen whole.

    The paper leaves most numbers of its Sec. 6.1 open; these keep its conditions (robust is stronger, non-robust is
    denser, sigma_0 = 1/sqrt(d), eps = beta) and a test radius inside the window of `advfeat.theory.find_window`.
    docs/configuration.md lists the keys with their rules.
    """

    n_classes: int = count(5, "classes, k", low=2)
    n_neurons: int = count(20, "neurons of each class, m")
    patch_dim: int = count(100, "dimension of a patch, d, at least 2 n_classes", low=4)
    n_patches: int = count(64, "patches of a sample, P")
    n_robust: int = count(1, "those that carry the robust feature, P_R, at most n_patches", low=0)
    partition: checks.Partition = key("uniform", "which patches are robust", choices=checks.PARTITIONS)
    alpha: float = key(3.0, "strength of the robust feature", "input", above=0)
    beta: float = key(1.0, "strength of the non-robust feature", "input", above=0)
    noise_std: float = key(0.05, "standard deviation of the noise of a coordinate, sigma_n", "input", low=0)
    n_train: int = count(20, "training samples of a seed, N")
    n_test: int = count(50, "test samples of a seed")
    balanced: bool = key(True, "training samples of every class in equal numbers")
    q: int = key(3, "degree of the activation below its threshold", low=2, high=checks.LARGEST_DEGREE)
    rho: float = key(100.0, "threshold of the activation, from which on it is linear", "weight x input", above=0)
    init_std: float = key(0.1, "standard deviation of an initial weight, sigma_0", "weight", low=0)
    lr: float = key(12.5, "learning rate, eta", "weight / input", above=0)
    ascent_lr: float = key(40.0, "rate of the ascent on training samples", "input / weight", above=0)
    eps: float = key(1.0, "radius of adversarial training", "input", low=0)
    eps_test: float = key(0.5, "radius at which robust accuracy is measured", "input", low=0)
    norm: checks.AscentNorm = key("linf", "norm of both balls, patch by patch", choices=tuple(checks.NORMS))
    objective: checks.AscentObjective = key("neg_label_logit", "what the ascent raises, J",
                                            choices=tuple(checks.OBJECTIVES))  # fmt: skip
    n_ascent: int = key(1, "steps of the ascent", low=1, high=checks.MOST_STEPS)
    batch_size: int | None = key(None, "samples of a step, all n_train without it", low=1)
    n_iter: int = count(4000, "iterations, T, a multiple of n_records")
    n_records: int = count(20, "records of accuracies under attack after the first")
    n_seeds: int = count(4, "seeds, trained as one batch")
    first_seed: int = key(0, "the smallest of the seeds; all lie below 2^63", low=0, high=2**63 - 1)
    pgd_steps: int = key(20, "steps of each attack that measures", low=1, high=checks.MOST_STEPS)
    pgd_restarts: int = key(1, "starts of each attack that measures", low=1, high=checks.MOST_STEPS)
    backend: Backend = key("numba", "engine", choices=BACKENDS)
    dtype: Precision = key("float32", "precision of the training", choices=PRECISIONS)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.distribution()
        if self.batch_size is not None and self.batch_size > self.n_train:
            raise ValueError(f"batch_size = {self.batch_size}: must be <= n_train = {self.n_train}")
        if self.n_iter % self.n_records:
            raise ValueError(f"n_iter = {self.n_iter}: must be a multiple of n_records = {self.n_records}")
        if self.first_seed + self.n_seeds > 2**63:
            raise ValueError(f"first_seed = {self.first_seed}: first_seed + n_seeds must be <= 2^63")
        for name in ("alpha", "beta", "lr", "ascent_lr"):
            checks.in_dtype(name, getattr(self, name), self.dtype, above=0)
        for name in ("noise_std", "init_std", "eps"):
            checks.in_dtype(name, getattr(self, name), self.dtype)
        checks.threshold(self.rho, self.dtype)
        self._check_reach()
        get_engine(self.backend)

    def _check_reach(self):
        """Refuse numbers whose powers or first logits no float can hold: such a training dies on its way."""
        for name in ("alpha", "beta", "rho"):
            if not abs(self.q * np.log(getattr(self, name))) <= LARGEST_LOG:
                rule = f"{name}^q must be a float64 number, q = {self.q}"
                raise ValueError(f"{name} = {getattr(self, name)!r}: {rule}")
        x = max(self.alpha, self.beta) + SPREAD * self.noise_std
        w = SPREAD * self.init_std
        logit = self.n_neurons * self.n_patches * self.patch_dim * w * x
        if not (logit <= float(np.finfo(self.dtype).max) and self.patch_dim * w * w < inf):
            names = ("alpha", "beta", "noise_std", "init_std")
            given = ", ".join(f"{name} = {getattr(self, name)!r}" for name in names)
            rule = f"the first weights and logits, up to {w:.2g} and {logit:.2g}, must be finite in {self.dtype}"
            raise ValueError(f"{given}: {rule}")

    def memory(self) -> int:
        """Bytes that both trainings, their histories, measurements and recursions take at once, on the safe side."""
        K, samples = self.n_classes * self.n_neurons, 8 * self.n_patches * self.patch_dim
        looks = self.n_iter // self.record_every + 2
        each = samples * (8 * self.n_train + 32 * self.n_test) + 120 * K * self.patch_dim + 32 * K * K + 20_000
        each += looks * K * (2 * self.n_classes + 8) * 24 + 24 * self.n_train * self.n_patches
        each += self.n_records * (3 * self.n_classes + 20) * 48
        if self.backend == "numpy":  # all preactivations at once, where other engines hold a block of them
            each += 48 * K * self.n_patches * max(self.n_train, self.n_test)
        return self.n_seeds * each + 20_000 * self.n_records + 20_000_000  # records as objects; tables and figures

    def digest(self, weights: Array | None = None) -> str:
        """Ten hex digits that name this configuration (and given initial weights)."""
        total = hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode())
        total.update(b"" if weights is None else np.ascontiguousarray(weights).tobytes())
        return total.hexdigest()[:10]

    # -------------------------------------------------------------- the library's objects
    @property
    def seeds(self) -> list[int]:
        return list(range(self.first_seed, self.first_seed + self.n_seeds))

    def distribution(self) -> PatchDistribution:
        names = ("n_classes", "patch_dim", "n_patches", "n_robust", "alpha", "beta", "noise_std", "partition")
        return PatchDistribution(**{name: getattr(self, name) for name in names})

    def data(self, part: Literal["train", "test"], seeds: Sequence[int] | None = None) -> PatchData:
        """`part` "train" or "test": samples of every seed (default: the configuration's), each from its own stream."""
        n, law = (self.n_train if part == "train" else self.n_test), self.distribution()
        balanced = self.balanced and part == "train"
        seeds = self.seeds if seeds is None else seeds
        return PatchData.stack([law.sample(n, stream(seed, f"{part}_data"), balanced=balanced) for seed in seeds])

    def network(self, weights: Array | None = None, seeds: Sequence[int] | None = None) -> PatchCNN:
        """One network per seed (default: the configuration's): drawn, or `weights` (k, m, d) or (S, k, m, d)."""
        options = {"q": self.q, "rho": self.rho, "backend": self.backend}
        shape = (self.n_classes, self.n_neurons, self.patch_dim)
        if weights is None:
            rngs = [stream(seed, "init") for seed in (self.seeds if seeds is None else seeds)]
            return PatchCNN.init(*shape, rng=rngs, init_std=self.init_std, dtype=self.dtype, **options)
        weights = checks.floats("W", weights)
        if weights.shape not in (shape, (self.n_seeds, *shape)):
            raise ValueError(f"weights have shape {weights.shape}: must be {shape} or {(self.n_seeds, *shape)}")
        W = checks.cast("W", weights, self.dtype)
        return PatchCNN(np.broadcast_to(W, (self.n_seeds, *shape)), **options)

    def training(self, adversarial: bool) -> TrainConfig:
        extra = {"ascent_lr": self.ascent_lr, "eps": self.eps} if adversarial else {}
        names = ("lr", "n_iter", "objective", "n_ascent", "norm", "batch_size")
        common = {name: getattr(self, name) for name in names}
        common |= {"seed": self.seeds, "record_every": self.record_every, "checkpoint_every": 5}
        return TrainConfig(adversarial=adversarial, **common, **extra)

    @property
    def record_every(self) -> int:
        """Correlations are recorded five times as often as accuracies, where the iterations allow it."""
        step = self.n_iter // self.n_records
        return step // 5 if step % 5 == 0 else step

    # -------------------------------------------------------------- predictions
    def window(self, strength: float | None = None, norm: str | None = None) -> Window:
        """`theory.find_window` of this data, for balls of `norm` (default: the configuration's) and, where it is known,
        the largest <w_{i,s}, u_i> that adversarial training ends with."""
        names = ("alpha", "beta", "n_patches", "n_robust", "q", "rho")
        numbers = (getattr(self, name) for name in names)
        return find_window(*numbers, norm=self.norm if norm is None else norm, strength=strength)

    def plateau(self) -> float:
        return plateau(self.beta, self.q, self.rho, self.ascent_lr)

"""The configuration of Figure 3: every hyperparameter by name, from defaults, a TOML file and key=value pairs."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from ..core import checks
from ..core.rng import stream
from ..kernels import get_engine
from ..patches.data import PatchData, PatchDistribution
from ..patches.network import PatchCNN, SmoothedReLU
from ..theory import Window, find_window, plateau
from ..training.configuration import TrainConfig

DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Figure3Config:
    """Both trainings of Figure 3.  Defaults: the measured setting in which the paper's story is seen whole.

    The paper leaves most numbers of its Sec. 6.1 open; these keep its conditions (robust is stronger, non-robust is
    denser, sigma_0 = 1/sqrt(d), eps = beta) and a test radius inside the window of `advfeat.theory.find_window`.
    """

    n_classes: int = 5
    n_neurons: int = 20
    patch_dim: int = 100
    n_patches: int = 64
    n_robust: int = 1
    partition: str = "uniform"
    alpha: float = 3.0
    beta: float = 1.0
    noise_std: float = 0.05
    n_train: int = 20
    n_test: int = 50
    balanced: bool = True
    q: int = 3
    rho: float = 100.0
    init_std: float = 0.1
    lr: float = 12.5
    ascent_lr: float = 40.0
    eps: float = 1.0
    eps_test: float = 0.5
    norm: str = "linf"
    objective: str = "neg_label_logit"
    n_ascent: int = 1
    batch_size: int | None = None
    n_iter: int = 4000
    n_records: int = 20
    n_seeds: int = 4
    first_seed: int = 0
    pgd_steps: int = 20
    pgd_restarts: int = 1
    backend: str = "numba"
    dtype: str = "float32"

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "float":
                object.__setattr__(self, field.name, checks.number(field.name, value))
            elif field.type == "int":
                checks.integer(field.name, value, 0)
            elif field.type == "bool":
                checks.choice(field.name, value, (True, False))
        for name in ("n_train", "n_test", "n_iter", "n_records", "n_seeds", "pgd_steps", "pgd_restarts"):
            checks.integer(name, getattr(self, name), 1)
        checks.number("eps_test", self.eps_test, low=0)
        checks.choice("dtype", self.dtype, DTYPES)
        if self.n_iter % self.n_records:
            raise ValueError(f"n_iter = {self.n_iter}: must be a multiple of n_records = {self.n_records}")
        self.distribution()
        self.training(adversarial=True)
        SmoothedReLU(self.q, self.rho)
        checks.integer("n_neurons", self.n_neurons, 1)
        checks.number("init_std", self.init_std, low=0)
        for name in ("alpha", "beta", "rho", "lr", "ascent_lr"):
            checks.in_dtype(name, getattr(self, name), self.dtype, above=0)
        for name in ("noise_std", "init_std", "eps"):
            checks.in_dtype(name, getattr(self, name), self.dtype)
        get_engine(self.backend)

    # -------------------------------------------------------------- from users
    @classmethod
    def build(cls, path=None, pairs=(), fixed=None, **given) -> Figure3Config:
        """Defaults, then the TOML file `path`, then `pairs` ("key=value"), then `given` (None: not given).

        `fixed` are values that stand already, as q and rho of given weights: they replace defaults, and a value given
        here that differs from them is refused.
        """
        values, fixed = {}, fixed or {}
        if path is not None:
            try:
                values |= tomllib.loads(Path(path).read_text(encoding="utf-8"))
            except FileNotFoundError:
                raise FileNotFoundError(f"{path}: there is no such file") from None
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise ValueError(f"{path}: not a TOML file ({error})") from None
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals:
                raise ValueError(f"--set {pair!r}: must be key=value")
            values[key.strip()] = parse_value(value.strip())
        values |= {key: value for key, value in given.items() if value is not None}
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise ValueError(f"{key}: unknown configuration key; {checks.nearest(key, known)}")
        for key, value in fixed.items():
            if values.setdefault(key, value) != value:
                given = f"{key} = {values[key]!r}"
                raise ValueError(f"{given}: contradicts the given weights, which hold {key} = {value!r}")
        return cls(**values)

    @classmethod
    def from_dict(cls, values: dict) -> Figure3Config:
        return cls(**values)

    def as_dict(self) -> dict:
        return asdict(self)

    def digest(self, weights: np.ndarray | None = None) -> str:
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

    def data(self, part: str, seeds=None) -> PatchData:
        """`part` "train" or "test": samples of every seed (default: the configuration's), each from its own stream."""
        n, law = (self.n_train if part == "train" else self.n_test), self.distribution()
        balanced = self.balanced and part == "train"
        seeds = self.seeds if seeds is None else seeds
        return PatchData.stack([law.sample(n, stream(seed, f"{part}_data"), balanced=balanced) for seed in seeds])

    def network(self, weights: np.ndarray | None = None, seeds=None) -> PatchCNN:
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


def parse_value(text: str):
    """A TOML value, or the text itself where it is none."""
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text

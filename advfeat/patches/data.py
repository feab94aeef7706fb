"""The patch data distribution (Li & Li 2025, Def. 2.1, 2.2, Assumption 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from ..core import checks
from ..core.records import record
from ..core.types import BoolArray, Dtype, Features, FeaturesLike, Float64Array, FloatArray, IntArray, Law

FeatureKind = Literal["robust", "non_robust"]


@record
class PatchData:
    """Labelled samples made of patches, for one run or stacked over runs (leading axis R, `stack`).

    Attributes
    ----------
    X : float array, (n, P, d) or (R, n, P, d)
    y : int array, (n,) or (R, n), labels in 0..k-1
    robust : bool array, (n, P) or (R, n, P); True where the patch carries the robust feature u_y (J_R)
    strength : float array, same shape; the coefficient alpha_p or beta_p of the patch's feature
    features : (u, v), each (k, d), or None when unknown
    """

    X: FloatArray
    y: IntArray
    robust: BoolArray
    strength: FloatArray
    features: Features | None = None

    def __post_init__(self) -> None:
        for name in ("X", "y", "robust", "strength"):
            checks.instance(name, getattr(self, name), np.ndarray, "an array")
        if self.X.ndim not in (3, 4):
            raise ValueError(f"X has shape {self.X.shape}: must be (n, P, d) or (R, n, P, d)")
        for name, value, shape in (
            ("y", self.y, self.X.shape[:-2]),
            ("robust", self.robust, self.X.shape[:-1]),
            ("strength", self.strength, self.X.shape[:-1]),
        ):
            if np.shape(value) != shape:
                raise ValueError(f"{name} has shape {np.shape(value)}: must be {shape} for X of shape {self.X.shape}")

    @classmethod
    def stack(cls, runs: Sequence[PatchData]) -> PatchData:
        """One batch from the data of several runs, all of one shape and with the same features."""
        checks.sequence("runs", runs, PatchData)
        if len({data.X.shape for data in runs}) != 1:
            raise ValueError(f"shapes {[data.X.shape for data in runs]}: runs of a batch must share one shape")
        arrays = (np.stack([getattr(data, name) for data in runs]) for name in ("X", "y", "robust", "strength"))
        return cls(*arrays, runs[0].features)

    @property
    def arrays(self) -> dict[str, BoolArray | FloatArray]:
        """What is known of every sample, by name (core/data.py)."""
        return {"robust": self.robust, "strength": self.strength}

    @property
    def directions(self) -> dict[str, FloatArray]:
        """The feature vectors u and v, (k, d) each; none where they are unknown."""
        return {} if self.features is None else dict(zip("uv", self.features))

    def __len__(self) -> int:
        """Samples per run."""
        return self.X.shape[-3]

    def astype(self, dtype: Dtype) -> PatchData:
        """The same data with X of `dtype`."""
        return replace(self, X=self.X.astype(checks.precision(dtype), copy=False))

    def signal(self) -> Float64Array:
        """alpha_p u_y on J_R and beta_p v_y on J_NR, the patches without their noise; X's shape, float64."""
        if self.features is None:
            raise ValueError("features = None: this needs the data's feature vectors (u, v)")
        u, v = self.features
        direction = np.where(self.robust[..., None], u[self.y][..., None, :], v[self.y][..., None, :])
        return self.strength[..., None] * direction

    def representative(self, feature: FeatureKind) -> PatchData:
        """The S-extended representatives of Def. 4.1: only the `feature` ("robust" or "non_robust") under study stays.

        Every instance of the other feature is removed from its patch, x_p - strength_p f_y; noise stays.
        """
        checks.choice("feature", feature, get_args(FeatureKind))
        kept = self.robust if feature == "robust" else ~self.robust
        X = self.X - np.where(kept[..., None], 0, self.signal()).astype(self.X.dtype)
        return replace(self, X=X, strength=np.where(kept, self.strength, 0.0))


def _moment(law: float | Law, exponent: float) -> float:
    return float(law.expect(lambda x: x**exponent)) if hasattr(law, "rvs") else law**exponent


class PatchDistribution:
    """The distribution D of Def. 2.2: x_p = alpha_p u_y + xi_p on J_R, beta_p v_y + xi_p on J_NR.

    Parameters
    ----------
    n_classes, patch_dim, n_patches, n_robust : int
        k >= 2, d >= 2k, P >= 1 and P_R in 0..P.
    alpha, beta : float or frozen scipy.stats law on (0, inf)
        Strengths D_alpha, D_beta, drawn independently per patch.
    shared_strengths : bool
        Draw them once per sample instead, one alpha for its robust patches and one beta for the others.
    noise_std : float
        sigma_n >= 0, xi_p ~ N(0, sigma_n^2 I_d).
    features : (u, v), each (k, d), optional
        Any orthonormal set; default axis-parallel, u_i = e_i and v_i = e_{k+i} (Def. 2.1).
    partition : {"uniform", "fixed", "bernoulli"}
        D_J: P_R robust positions uniformly at random; the fixed `positions` (default the first P_R); every patch robust
        independently with probability P_R / P.

    Raises
    ------
    ValueError
        Names the parameter, its value and the rule.
    """

    def __init__(
        self,
        *,
        n_classes: int,
        patch_dim: int,
        n_patches: int,
        n_robust: int,
        alpha: float | Law,
        beta: float | Law,
        noise_std: float = 0.0,
        features: FeaturesLike | None = None,
        partition: checks.Partition = "uniform",
        positions: ArrayLike | None = None,
        shared_strengths: bool = False,
    ):
        self.n_classes = checks.integer("n_classes", n_classes, 2)
        self.patch_dim = checks.integer("patch_dim", patch_dim, 1)
        if self.patch_dim < 2 * self.n_classes:
            raise ValueError(f"patch_dim = {patch_dim}: must be >= 2 n_classes = {2 * self.n_classes}")
        self.n_patches = checks.integer("n_patches", n_patches, 1)
        self.n_robust = checks.integer("n_robust", n_robust, 0)
        if self.n_robust > self.n_patches:
            raise ValueError(f"n_robust = {n_robust}: must be <= n_patches = {self.n_patches}")
        self.alpha: float | Law = checks.strengths("alpha", alpha)
        self.beta: float | Law = checks.strengths("beta", beta)
        self.noise_std = checks.number("noise_std", noise_std, low=0)
        self.partition: checks.Partition = checks.choice("partition", partition, checks.PARTITIONS)
        self.shared_strengths: bool = checks.truth("shared_strengths", shared_strengths)
        if positions is not None and partition != "fixed":
            raise ValueError(f"positions = {positions!r}: only partition = 'fixed' takes positions")
        self.positions: range | IntArray = (
            range(self.n_robust) if positions is None else checks.array("positions", positions)
        )
        if positions is not None and (
            self.positions.shape != (self.n_robust,)
            or len(set(self.positions.tolist())) != self.n_robust
            or not all(p in range(self.n_patches) for p in self.positions.tolist())
        ):
            rule = f"must be n_robust = {self.n_robust} different patches in 0..{n_patches - 1}"
            raise ValueError(f"positions = {checks.shown(positions)}: {rule}")
        self._features = None if features is None else checks.features(features, self.n_classes, self.patch_dim)

    def __repr__(self) -> str:
        numbers = f"k={self.n_classes} d={self.patch_dim} P={self.n_patches} P_R={self.n_robust}"
        laws = f"alpha={checks.shown(self.alpha)} beta={checks.shown(self.beta)} noise_std={self.noise_std:g}"
        return f"<PatchDistribution: {numbers}, {laws}, {self.partition}>"

    @property
    def features(self) -> tuple[Float64Array, Float64Array]:
        """(u, v), each (k, d); the axis-parallel ones are made on demand, so that d may be any number until then."""
        if self._features is None:
            k, d = self.n_classes, self.patch_dim
            self._features = np.eye(k, d), np.eye(k, d, k)
        return self._features

    def sample(self, n: int, rng: np.random.Generator | int, balanced: bool = False) -> PatchData:
        """Draw `n` samples; `rng` is a Generator or a seed.

        Labels are uniform on the classes, or with `balanced` every class appears floor(n/k) or ceil(n/k) times in
        random order.  X is float64.
        """
        rng = checks.generator(rng)
        y, robust, strength = self.sample_types(n, rng, balanced)
        shape = (*robust.shape, self.patch_dim)
        X = self.noise_std * rng.standard_normal(shape) if self.noise_std else 0.0
        data = PatchData(np.zeros(shape), y, robust, strength, self.features)
        return replace(data, X=data.signal() + X)

    def sample_types(
        self, n: int, rng: np.random.Generator | int, balanced: bool = False
    ) -> tuple[IntArray, BoolArray, Float64Array]:
        """Labels, robust patches and strengths, (n,), (n, P), (n, P), as `sample` draws them, without the patches."""
        n, k, P = checks.integer("n", n, 1), self.n_classes, self.n_patches
        rng = checks.generator(rng)
        if checks.truth("balanced", balanced):
            y = np.concatenate([np.tile(np.arange(k), n // k), rng.permutation(k)[: n % k]])
            y = rng.permutation(y)
        else:
            y = rng.integers(k, size=n)
        robust = np.zeros((n, P), bool)
        if self.partition == "fixed":
            robust[:, self.positions] = True
        elif self.partition == "uniform":
            robust[:] = rng.permuted(np.tile(np.arange(P) < self.n_robust, (n, 1)), axis=1)
        else:
            robust[:] = rng.random((n, P)) < self.n_robust / P
        size = (n, 1 if self.shared_strengths else P)
        draws = [
            law.rvs(size=size, random_state=rng) if hasattr(law, "rvs") else np.full(size, law)
            for law in (self.alpha, self.beta)
        ]
        return y, robust, np.where(robust, *draws)

    def assumption_2_3(self, exponent: float = 3.0) -> tuple[float, float]:
        """The two dials of Assumption 2.3: (density ratio c, strength ratio).

        c = P_R E[alpha^a] / (P_NR E[beta^a]), "non-robust is denser" when c < 1, with a = `exponent` (the network's q
        by default choice q = 3); strength ratio E[alpha] / E[beta], "robust is stronger" when > 1.
        """
        a = checks.number("exponent", exponent, above=0)
        weak = (self.n_patches - self.n_robust) * _moment(self.beta, a)
        density = self.n_robust * _moment(self.alpha, a) / weak if weak else np.inf
        return density, _moment(self.alpha, 1) / _moment(self.beta, 1)

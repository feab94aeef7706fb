"""Where the weights come from, patch by patch, and how they meet the noise (Li & Li 2025, App. E).

A patch is x = s + xi: a signal s (strength times a feature) and noise xi.  Every step of full-batch training adds
patches to the weights, so these are a book of N P coefficients a per neuron and, in adversarial training, of the
perturbations that came along (Lemma E.2, E.9):

    w_{i,s} = w_{i,s}(0) + sum_{n,p} a_{i,s,n,p} x_{n,p} + D_{i,s}.

Symbols: k classes, m neurons per class, N samples, P patches, d patch dimension, e_{n,i} = 1{y_n = i} - logit_i(X~_n),
X~ = X + delta the inputs of a step (delta = 0 in standard training).  Everything is float64; weights, patches and
correlations have the data's units (dimensionless in the paper).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..core import checks
from ..core.records import record
from ..core.types import Array, FeaturesLike, Float64Array
from ..kernels import formulas

ORTHONORMAL = 1e-8  # how far features may be from orthonormal, and the signal from their span


@record
class Decomposition:
    """The books of one training run (Lemma E.2, E.9), from :func:`decompose`.

    Attributes
    ----------
    a : (k, m, N, P)
        Coefficient of patch x_{n,p} in w_{i,s}.
    perturbation : (k, m, d)
        D, the sum of all perturbations that steps have added; exactly 0 in standard training.
    weights : (k, m, d)
        W(0) + a X + D.
    history : dict of arrays (records,)
        "iteration"; with the signal known also "own", "other": max |<w_{i,s}, xi_{n,p}>| where i = y_n and i != y_n
        (Lemma E.3, E.10), and "own_orthogonal", "other_orthogonal": the same for xi's part orthogonal to all features.
    feature_coefficients : (k, m, 2k) or None
        sum_{n,p} a_{i,s,n,p} <s_{n,p}, f> for f = u_1..u_k, v_1..v_k.
    noise_coefficients : (k, m, N, P) or None
        The coefficient of xi_{n,p}: a, and 0 where a patch has no noise.

    Notes
    -----
    With F (2k, d) the features and c, b the last two, W = W(0) + c F + b xi + D, and a correlation moves by
    <w(t), f> - <w(0), f> = c_f + sum b <xi, f> + <D, f>: c alone in noiseless standard training.
    """

    a: Float64Array
    perturbation: Float64Array
    weights: Float64Array
    history: dict[str, Array]
    feature_coefficients: Float64Array | None = None
    noise_coefficients: Float64Array | None = None


@record
class NoiseUpdate:
    """One step's change of <w_{i,s}, xi_{n,p}> in the terms of Lemma E.4, each (k, m, N, P); from :func:`noise_update`.

    Attributes
    ----------
    self_term : g_{n,p} |xi_{n,p}|^2, with g = (lr/N) e_{n,i} sigma'(<w_{i,s}, x~_{n,p}>).
    noise_term : sum over (n', p') != (n, p) of g' <xi', xi_{n,p}>.
    feature_term : sum over all (n', p') of g' <s', xi_{n,p}>.
    perturbation_term : sum over all (n', p') of g' <delta', xi_{n,p}>; 0 in standard training.
    predicted : dict of floats
        Typical size of the inner products above: "self" sigma_n^2 d, "noise" sigma_n^2 sqrt(d), "feature" sigma_n (per
        unit of strength), "perturbation" sigma_n times the root mean square of |delta'|; sigma_n is the root mean
        square entry of xi.
    """

    self_term: Float64Array
    noise_term: Float64Array
    feature_term: Float64Array
    perturbation_term: Float64Array
    predicted: dict[str, float]

    @property
    def total(self) -> Float64Array:
        """The sum of the four: the whole change."""
        return self.self_term + self.noise_term + self.feature_term + self.perturbation_term


def decompose(
    W0: ArrayLike,
    X: ArrayLike,
    y: ArrayLike,
    *,
    q: int,
    rho: float,
    lr: float,
    n_iter: int,
    ascent_lr: float | None = None,
    eps: float | None = None,
    objective: checks.AscentObjective = "neg_label_logit",
    norm: checks.AscentNorm = "linf",
    n_ascent: int = 1,
    features: FeaturesLike | None = None,
    record_every: int | None = None,
    signal: ArrayLike | None = None,
) -> Decomposition:
    """Full-batch training of one network, kept as the books a and D (Lemma E.2, E.9).

    Per iteration, for all i, s, n, p at once,

        a_{i,s,n,p} += g_{i,s,n,p},  D_{i,s} += sum_{n,p} g_{i,s,n,p} delta_{n,p},
        g_{i,s,n,p} = (lr/N) e_{n,i} sigma'(<w_{i,s}, x~_{n,p}>).

    The books are all that is kept: weights are made from them, W = W(0) + a X + D, whenever preactivations are needed.
    In standard training D = 0 and Z = W X^T = Z(0) + a (X X^T): a recursion in a alone, which knows d only through Z(0)
    and the patches' Gram matrix.  The product is taken as (a X) X^T, the same numbers for 2 N P d instead of (N P)^2
    multiply-adds per neuron.

    Parameters
    ----------
    W0 : (k, m, d), X : (N, P, d), y : (N,) integers in 0..k-1
        Initial weights and data; k >= 2.
    q, rho, lr, n_iter, objective, norm, n_ascent
        As in `advfeat.PatchCNN` and `advfeat.TrainConfig`.
    ascent_lr, eps
        Rate > 0 and radius >= 0 of the ascent; both for adversarial training, none for standard training.
    signal : (N, P, d), features : (u, v), each (k, d)
        The patches without noise (`PatchData.signal()`) and orthonormal features that span them; both or none.
    record_every
        Iterations between records (default n_iter / 20); iteration 0 and n_iter are always recorded.

    Raises
    ------
    ValueError, TypeError
        Name the parameter, its value and the rule, before any work.
    RuntimeError
        A weight stopped being finite; the message names the iteration.
    """
    W0, step = _Step.build(W0, X, y, q, rho, lr, ascent_lr, eps, objective, norm, n_ascent)
    n_iter = checks.integer("n_iter", n_iter, 0)
    every = max(n_iter // 20, 1) if record_every is None else checks.integer("record_every", record_every, 1)
    if (signal is None) != (features is None):
        name = "signal" if signal is None else "features"
        raise ValueError(f"{name} = None: signal and features must be given together")
    F = None if signal is None else np.concatenate(checks.features(features, step.shape[0], step.shape[-1]))
    noises = {} if signal is None else _noises(signal, F, step)
    a, D, W, records = np.zeros((len(W0), len(step.X))), np.zeros_like(W0), W0, []
    for t in range(n_iter + 1):
        if t % every == 0 or t == n_iter:
            records.append({"iteration": np.asarray(t)} | _largest(W, noises, step))
        if t < n_iter:
            g, delta = step.rates(W)
            a += g
            if step.adversarial:
                D += g @ delta
            with np.errstate(over="ignore", invalid="ignore"):
                W = W0 + a @ step.X + D
            if not np.isfinite(W).all():
                raise RuntimeError(f"training diverged at iteration {t}: a weight is not finite")
    history = {name: np.stack([r[name] for r in records]) for name in records[0]}
    k, m, N, P, d = step.shape
    split = ()
    if signal is not None:
        noise = noises[""]
        split = (a @ (step.X - noise) @ F.T).reshape(k, m, -1), (a * noise.any(axis=1)).reshape(k, m, N, P)
    return Decomposition(a.reshape(k, m, N, P), D.reshape(k, m, d), W.reshape(k, m, d), history, *split)


def noise_update(
    W: ArrayLike,
    X: ArrayLike,
    signal: ArrayLike,
    y: ArrayLike,
    *,
    q: int,
    rho: float,
    lr: float,
    features: FeaturesLike | None = None,
    ascent_lr: float | None = None,
    eps: float | None = None,
    objective: checks.AscentObjective = "neg_label_logit",
    norm: checks.AscentNorm = "linf",
    n_ascent: int = 1,
) -> NoiseUpdate:
    """How one full-batch step changes <w_{i,s}, xi_{n,p}>, term by term (Lemma E.4; with an ascent step, Lemma E.10).

    With g as in :func:`decompose`,

        <Delta w_{i,s}, xi_{n,p}> = g_{n,p} |xi_{n,p}|^2 + sum_{(n',p') != (n,p)} g' <xi', xi_{n,p}>
                                    + sum_{n',p'} g' <s', xi_{n,p}> + sum_{n',p'} g' <delta', xi_{n,p}>.

    Shapes, parameters and errors are those of :func:`decompose`, with `W` the weights before the step.  With `features`
    the four are the terms of <Delta w, xi_perp>, xi_perp the part of xi_{n,p} orthogonal to every feature; the feature
    term is then 0 up to rounding.
    """
    W, step = _Step.build(W, X, y, q, rho, lr, ascent_lr, eps, objective, norm, n_ascent, name="W")
    k, m, N, P, d = step.shape
    noise = step.X - _signal(signal, step)
    toward = noise
    if features is not None:
        F = np.concatenate(checks.features(features, step.shape[0], step.shape[-1]))
        toward = _noises(signal, F, step)["_orthogonal"]
    g, delta = step.rates(W)
    if not np.isfinite(g).all():
        raise ValueError("W: too large, a logit is not finite")
    self_term = g * np.einsum("ni,ni->n", noise, toward)
    signal_term, delta_term = g @ (step.X - noise) @ toward.T, g @ delta @ toward.T
    terms = self_term, g @ noise @ toward.T - self_term, signal_term, delta_term
    dims = d if features is None else d - 2 * k
    std = float(np.sqrt((toward**2).sum() / (N * P * max(dims, 1))))
    length = float(np.sqrt((delta**2).sum() / (N * P)))
    predicted = {"self": std**2 * dims, "noise": std**2 * dims**0.5, "feature": std, "perturbation": std * length}
    return NoiseUpdate(*(t.reshape(k, m, N, P) for t in terms), predicted)


class _Step:
    """One training step on flat arrays: W (K, d), X and delta (N P, d), coefficients (K, N P), K = k m."""

    @classmethod
    def build(cls, W, X, y, q, rho, lr, ascent_lr, eps, objective, norm, n_ascent, name="W0"):
        """Checked weights (K, d) and the step."""
        self, W = cls(), checks.array(name, W)
        if not np.issubdtype(W.dtype, np.floating):
            raise TypeError(f"{name} has dtype {W.dtype}: must be floating point")
        if W.ndim != 3 or 0 in W.shape or W.shape[0] < 2:
            raise ValueError(f"{name} has shape {W.shape}: must be (k, m, d) with k >= 2 and no empty axis")
        if not np.isfinite(W).all():
            raise ValueError(f"{name} holds NaN or infinite values: every weight must be finite")
        k, m, d = W.shape
        X = checks.samples(X, 1, False, (None, d), np.float64)
        self.y = checks.labels(y, X, k)[0]
        self.shape = k, m, X.shape[1], X.shape[2], d
        self.X = X.reshape(-1, d)
        self.q, self.rho = checks.degree(q), checks.number("rho", rho, above=0)
        self.lr = checks.number("lr", lr, above=0)
        self.objective = checks.OBJECTIVES[checks.choice("objective", objective, checks.OBJECTIVES)]
        self.norm = checks.NORMS[checks.choice("norm", norm, checks.NORMS)]
        self.n_ascent = checks.ascent_steps(n_ascent)
        if (ascent_lr is None) != (eps is None):
            raise ValueError(f"ascent_lr = {ascent_lr!r}, eps = {eps!r}: must be given together")
        self.adversarial = eps is not None
        if self.adversarial:
            self.rate, self.eps = checks.number("ascent_lr", ascent_lr, above=0), checks.number("eps", eps, low=0)
        return W.reshape(k * m, d).astype(np.float64), self

    def forward(self, W, X):
        """F (N, k) and sigma'(Z) (k, m, N, P); sigma(z) = z sigma'(z) / q + (1 - 1/q) (z - rho)_+."""
        Z = (W @ X.T).reshape(self.shape[:4])
        slopes = formulas.sigma_prime(Z, self.q, self.rho)
        above = np.maximum(Z - self.rho, 0) * (1 - 1 / self.q)
        return (Z * slopes / self.q + above).sum(axis=(1, 3)).T, slopes

    def weigh(self, C, slopes):
        """C[n, i] sigma'(z_{i,s,n,p}) -> (K, N P)."""
        return (C.T[:, None, :, None] * slopes).reshape(-1, len(self.X))

    def ascend(self, W):
        """delta (N P, d): n_ascent times delta <- project_eps(delta + ascent_lr grad_x J(X + delta)), from 0."""
        delta = np.zeros_like(self.X)
        for _ in range(self.n_ascent * self.adversarial):
            F, slopes = self.forward(W, self.X + delta)
            gradient = self.weigh(formulas.objective_gradient(F, self.y, self.objective), slopes).T @ W
            delta = formulas.project((delta + self.rate * gradient)[None, None], self.eps, self.norm)[0, 0]
        return delta

    def rates(self, W):
        """g (K, N P) = (lr/N) e_{n,i} sigma'(<w_{i,s}, x~_{n,p}>) and delta (N P, d)."""
        with np.errstate(over="ignore", invalid="ignore"):
            delta = self.ascend(W)
            F, slopes = self.forward(W, self.X + delta)
            e = -formulas.objective_gradient(F, self.y, formulas.CROSS_ENTROPY)
        return self.weigh(self.lr / len(F) * e, slopes), delta


def _signal(signal, step) -> np.ndarray:
    """The patches without noise, (N P, d)."""
    signal, wanted = checks.float64("signal", signal), (*step.shape[2:4], step.shape[-1])
    if signal.shape != wanted:
        raise ValueError(f"signal has shape {signal.shape}: must be {wanted}, like X")
    if not np.isfinite(signal).all():
        raise ValueError("signal holds NaN or infinite values: every entry must be finite")
    return signal.reshape(-1, wanted[-1])


def _noises(signal, F, step) -> dict[str, np.ndarray]:
    """xi = X - signal and its part orthogonal to the features, (N P, d) each; keyed by the ending of their records."""
    signal = _signal(signal, step)
    outside = np.abs(signal - signal @ F.T @ F).max()
    if outside > ORTHONORMAL * max(np.abs(signal).max(), 1):
        raise ValueError(f"signal: must lie in the span of the features, but is {outside:.2g} outside")
    noise = step.X - signal
    return {"": noise, "_orthogonal": noise - noise @ F.T @ F}


def _largest(W, noises, step) -> dict[str, np.ndarray]:
    """max |<w_{i,s}, xi_{n,p}>| over neurons of the sample's class and over all others, for every kind of noise."""
    own, out = np.arange(step.shape[0])[:, None] == step.y, {}
    for ending, noise in noises.items():
        size = np.abs(W @ noise.T).reshape(step.shape[:4]).max(axis=(1, 3))  # (k, N)
        out |= {"own" + ending: size[own].max(), "other" + ending: size[~own].max()}
    return out

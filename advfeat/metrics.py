"""What is measured: weight-feature correlations, feature learning accuracy, robust accuracy between its two bounds."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from . import checks
from .attacks import PGD, Aligned, AttackSuite, FeatureSwap, OneStepAscent, ThreatModel
from .certify import METHODS, certify, interval_margin
from .data import PatchData
from .network import PatchCNN

#: Attacks in the order in which they run: cheap first, the last one on what still stands.
ATTACKS = ("feature_swap", "one_step", "aligned", "pgd_cross_entropy", "pgd_margin")


def correlations(net: PatchCNN, features) -> dict[str, np.ndarray]:
    """Weight-feature correlations (Sec. 5, 6.1); `features` = (u, v).  Leading runs axis for a batch.

    Returns
    -------
    dict of float64 arrays
        ``A``, ``B`` (k, m): <w_{i,s}, u_i>, <w_{i,s}, v_i>; ``norm`` (k, m): |w_{i,s}|;
        ``off_u``, ``off_v`` (k, 2): minimum and maximum over s and j != i of <w_{i,s}, u_j>, <w_{i,s}, v_j>.
    """
    W = net.weights.astype(np.float64)
    k = net.shape[0]
    own, out = np.eye(k, dtype=bool), {}
    for name, f in zip(("A", "B"), features):
        f = np.asarray(f, np.float64)
        if f.shape != (k, net.shape[2]):
            raise ValueError(f"features have shape {f.shape}: must be {(k, net.shape[2])} for this network")
        C = np.einsum("risj,lj->risl", W, f)
        out[name] = np.einsum("risi->ris", C).copy()
        others = [np.where(own[:, None], fill, C) for fill in (np.inf, -np.inf)]
        extremes = [others[0].min(axis=(2, 3)), others[1].max(axis=(2, 3))]
        out["off_u" if name == "A" else "off_v"] = np.stack(extremes, axis=-1)
    out["norm"] = np.linalg.norm(W, axis=-1)
    return {name: net.answer(value) for name, value in out.items()}


def smallest_gap(X: np.ndarray, y: np.ndarray, block: int = 1 << 22) -> float:
    """min |X - X'|_inf over pairs of samples (n, P, d) with different labels (Sec. 2.5); inf where there is no pair.

    A pair is at least as far apart as at the largest coordinate of either of its samples.  Pairs are looked at in the
    order of this bound, in blocks of about `block` numbers, until it reaches the smallest gap found: n^2 + `block`
    numbers of memory, where all pairs at once take n^2 P d.
    """
    X = X.reshape(len(X), -1)
    there = X[:, np.abs(X).argmax(axis=1)]  # (n, n): sample i at the largest coordinate of sample j
    bound = np.abs(there - there.diagonal())
    i, j = np.nonzero(np.triu(y[:, None] != y))
    bound = np.maximum(bound[i, j], bound[j, i])
    order, found, step = np.argsort(bound), np.inf, max(block // X.shape[1], 1)
    for first in range(0, len(order), step):
        chosen = order[first : first + step]
        if bound[chosen[0]] >= found:
            break
        found = min(found, np.abs(X[i[chosen]] - X[j[chosen]]).max(axis=1).min())
    return float(found)


def strongest(C: np.ndarray) -> np.ndarray:
    """max_s of correlations (..., k, m) -> (..., k)."""
    return C.max(axis=-1)


def q_sum(C: np.ndarray, q: int) -> np.ndarray:
    """(sum_s (C_s)_+^q)^(1/q) of correlations (..., k, m) -> (..., k); the class's strength in the logit."""
    return (np.maximum(C, 0) ** q).sum(axis=-1) ** (1 / q)


def normalized(C: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """mean_i max_s C_{i,s} / |w_{i,s}| (Sec. 6.1) of (..., k, m) -> (...)."""
    return (C / np.maximum(norm, np.finfo(float).tiny)).max(axis=-1).mean(axis=-1)


def feature_learning_accuracy(net: PatchCNN, data: PatchData, feature: str):
    """Def. 4.1: accuracy on data in which only the `feature` ("robust" or "non_robust") is left, noise included."""
    kept = data.representative(feature)
    return net.accuracy(kept.X, kept.y)


@dataclass(frozen=True)
class RobustAccuracy:
    """Sample by sample, what attacks and certificate say at one radius; arrays (N,) or (R, N) bool.

    Attributes
    ----------
    correct : F_y strictly largest on the clean sample.
    certified : correct for every perturbation of the ball, by the certificate that was asked for.
    broken : per attack, clean-correct samples that it brought to an error.  The attack named last in `ATTACKS` runs on
        samples that no other attack broke; the others run on every correct sample that is not certified.
    interval_certified : certified by the interval certificate; `certified` itself where that was asked for.
    """

    eps: float | np.ndarray
    norm: str
    correct: np.ndarray
    certified: np.ndarray
    broken: dict[str, np.ndarray] = field(default_factory=dict)
    interval_certified: np.ndarray | None = None

    @property
    def standing(self) -> np.ndarray:
        """Correct and broken by no attack: robust accuracy's samples."""
        return self.correct & ~np.any([np.zeros_like(self.correct), *self.broken.values()], axis=0)

    @property
    def robust_accuracy(self):
        """Share of samples that stand against the worst of all attacks, sample by sample."""
        return self.standing.mean(axis=-1)

    @property
    def certified_accuracy(self):
        return self.certified.mean(axis=-1)

    def under(self, attack: str):
        """Accuracy under one attack alone; not for ``"pgd_margin"``, which only runs on what the others left."""
        if attack == ATTACKS[-1]:
            raise ValueError(f"attack = {attack!r}: runs only on what the others left; see robust_accuracy")
        return (self.correct & ~self.broken[checks.choice("attack", attack, tuple(self.broken))]).mean(axis=-1)


def robust_accuracy(
    net: PatchCNN,
    data: PatchData,
    *,
    eps,
    norm: str = "linf",
    budget: str = "patch",
    certificate: str = "interval",
    attacks=None,
    ascent_lr=None,
    n_steps: int = 20,
    n_restarts: int = 1,
    seed=0,
) -> RobustAccuracy:
    """Robust accuracy between the worst of several attacks and a certificate, all in float64.

    Cheap first: the certificate; then, on correct samples it leaves open, the feature swap (Thm. 4.3), one-step ascent
    (at rate `ascent_lr`, if given), the aligned attack and PGD on cross-entropy (the paper's metric); then, on what
    still stands, PGD on the margin.  A certified sample needs no attack: none of radius eps breaks it.

    Parameters
    ----------
    norm, budget : as in ThreatModel
    certificate : {"interval", "linear", "tangents", "branch_and_bound"}
        The method of :func:`advfeat.certify.certify`.
    attacks : sequence of names from ``metrics.ATTACKS``, optional
        Default: all that the data and arguments allow.
    n_steps, n_restarts, seed : PGD's steps and restarts; the seed, or one per run.
    """
    net, data = net.astype(np.float64), data.astype(np.float64)
    lacking = {"feature_swap": data.features is None, "one_step": ascent_lr is None}
    possible = [a for a in ATTACKS if not lacking.get(a)]
    attacks = possible if attacks is None else attacks
    for name in attacks:
        checks.choice("attack", name, ATTACKS)
        if name not in possible:
            needs = "the data's features" if name == "feature_swap" else "ascent_lr"
            raise ValueError(f"attack {name!r} needs {needs}")
    checks.choice("certificate", certificate, METHODS)
    seeds, threat = checks.seeds(seed, net.n_runs), ThreatModel(norm, eps, budget)
    options = {"n_steps": n_steps, "n_restarts": n_restarts}
    known = {
        "feature_swap": FeatureSwap(),
        "one_step": OneStepAscent(0.0 if ascent_lr is None else ascent_lr),
        "aligned": Aligned(),
        "pgd_cross_entropy": PGD("cross_entropy", **options),
        "pgd_margin": PGD("margin", **options),
    }
    correct = net.margin(data.X, data.y) > 0
    certified, interval = _certified(net, data, correct, eps, norm, budget, certificate)
    result = RobustAccuracy(eps, norm, correct, certified, {}, interval)
    chosen = [known[name] for name in ATTACKS if name in attacks]
    last = known[ATTACKS[-1]]
    for group in ([a for a in chosen if a is not last], [a for a in chosen if a is last]):
        if group:
            suite, open_ = AttackSuite(group, stop_early=False), result.standing & ~certified
            found = suite(net, data, threat, seeds, active=open_)
            result.broken.update({name: one.success for name, one in found.results.items()})
    return result


def _certified(net, data, correct, eps, norm, budget, method):
    """Correct samples that a certificate covers, by `method` and by intervals."""
    options = {"norm": norm, "budget": budget}
    if budget == "patch":  # the same bound from one kernel, 30 times faster
        interval = correct & (interval_margin(net, data.X, data.y, eps=eps, norm=norm) > 0)
    else:
        interval = certify(net, data.X, data.y, eps, method="interval", active=correct, **options).certified
    if method == "interval":
        return interval, interval
    more = certify(net, data.X, data.y, eps, method=method, active=correct & ~interval, **options)
    return interval | more.certified, interval

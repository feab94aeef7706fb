"""Robust accuracy between its two bounds at every radius: per sample, the largest certified and smallest broken one.

A sample certified at a radius is certified at every smaller one, and an adversarial example of a radius is one of every
larger radius.  So two radii per sample say everything: the curves over eps, the gap between them, and each attack's
own curve are counts of radii, monotone in eps by construction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from . import checks
from .attacks import APGD, FGSM, PGD, Aligned, AttackSuite, FeatureSwap, OneStepAscent, Rescue, Square, ThreatModel
from .certify import certify, interval_margin
from .config import Figure3Config
from .data import PatchData
from .network import PatchCNN

#: 0.05, 0.1, ..., 1.2
EPS_GRID = np.linspace(0.05, 1.2, 24)
SEARCH = "branch_and_bound"  # who found an adversarial example: an attack's name, or this, the certificates' own search
SHARE = 0.01  # bounds this close are one number; so far from clean accuracy and from 0, the curve is falling


def curve_attacks(ascent_lr=None, n_steps: int = 20, n_restarts: int = 1) -> list:
    """The attacks that get a curve of their own, cheap first; each is run on every sample that is not certified."""
    pgd = {"n_steps": n_steps, "n_restarts": n_restarts}
    one_step = [] if ascent_lr is None else [OneStepAscent(lr=ascent_lr, name="one_step")]
    return [
        FeatureSwap(name="feature_swap"),
        *one_step,
        FGSM(name="fgsm"),
        Aligned(name="aligned"),
        PGD(objective="cross_entropy", name="pgd_cross_entropy", **pgd),
        PGD(objective="margin", name="pgd_margin", **pgd),
    ]


def last_attacks(n_steps: int = 20) -> AttackSuite:
    """The attacks on what neither the certificate nor any other attack has decided."""
    rescue = Rescue(n_steps=2 * n_steps, name="rescue")
    return AttackSuite([rescue, APGD(objective="margin", n_steps=5 * n_steps, name="apgd"), Square(name="square")])


@dataclass(frozen=True)
class Sandwich:
    """Radii of N samples, (N,) for a single network or (R, N) for a batch.

    Attributes
    ----------
    eps : (G,) float64
        The radii at which attacks were run, ascending.
    y, correct : labels, and whether the clean sample is right (F_y strictly largest).
    certified, broken : float64
        Largest radius for which every perturbation is proved harmless (0 where even eps = 0 is not, or the sample is
        wrong), and smallest radius of an adversarial example (0 for a wrong sample, inf where none was found).
    interval : float64
        The largest radius that the interval certificate alone proves.
    X_adv : like X
        The adversarial examples of radius `broken`; clean samples where there is none.
    found_by : str
        What found them: an attack's name, "branch_and_bound", or "" where there is none.
    alone : dict of float64
        Per attack, the smallest radius of `eps` at which it breaks the sample by itself; inf where it never does.
    """

    eps: np.ndarray
    norm: str
    y: np.ndarray
    correct: np.ndarray
    certified: np.ndarray
    broken: np.ndarray
    interval: np.ndarray
    X_adv: np.ndarray
    found_by: np.ndarray
    alone: dict[str, np.ndarray] = field(default_factory=dict)

    def _share(self, radius, eps, stands: Callable):
        """Share of samples that are right and stand at each of `eps` (default: the grid), (G,) or (G, R)."""
        eps = self.eps if eps is None else np.atleast_1d(np.asarray(eps, np.float64))
        return (self.correct & stands(eps.reshape(-1, *[1] * radius.ndim), radius)).mean(axis=-1)

    def robust_accuracy(self, eps=None):
        """Accuracy under the best attack: right, and eps below the smallest broken radius; an upper bound."""
        return self._share(self.broken, eps, np.less)

    def certified_accuracy(self, eps=None):
        """Share of samples that are right and certified at eps; a lower bound."""
        return self._share(self.certified, eps, np.less_equal)

    def interval_accuracy(self, eps=None):
        """The same from the interval certificate alone."""
        return self._share(self.interval, eps, np.less_equal)

    def under(self, attack: str, eps=None):
        """Accuracy under one attack alone, run at each radius of the grid."""
        return self._share(self.alone[checks.choice("attack", attack, tuple(self.alone))], eps, np.less)

    def ratio(self) -> np.ndarray:
        """certified / broken radius of each sample; NaN for samples that are wrong when clean or were never broken."""
        known = self.correct & np.isfinite(self.broken)
        return np.where(known, self.certified / np.where(known, self.broken, 1), np.nan)

    def falling(self) -> np.ndarray:
        """Radii of the grid on the fall of the curve: robust accuracy > 0.01 away from both clean accuracy and 0."""
        robust = self.robust_accuracy()
        return (robust > SHARE) & (robust < self.correct.mean(axis=-1) - SHARE)

    def weakest(self) -> tuple | None:
        """Index of the right sample with the smallest broken radius; None when no right sample was broken."""
        radius = np.where(self.correct, self.broken, np.inf)
        where = np.unravel_index(radius.argmin(), radius.shape)
        return tuple(map(int, where)) if np.isfinite(radius[where]) else None


def grid(eps) -> np.ndarray:
    """The radii as float64 (G,), checked: finite, > 0, increasing."""
    values = np.array([checks.number("eps_grid", e, above=0) for e in np.atleast_1d(eps).tolist()])
    if not len(values) or (np.diff(values) <= 0).any():
        raise ValueError(f"eps_grid = {values.tolist()}: must be increasing radii, at least one")
    return values


class _Search:
    """What is known so far of every sample, narrowed by `prove` and `take`."""

    def __init__(self, net, data, max_nodes, threat):
        self.net, self.data, self.threat, self.max_nodes = net, data, threat, max_nodes
        self.correct = net.margin(data.X, data.y) > 0
        self.certified, self.broken = np.zeros(self.correct.shape), np.where(self.correct, np.inf, 0.0)
        self.X_adv, self.found_by = np.array(data.X), np.full(self.correct.shape, "", "<U32")

    def open(self, e):
        return self.correct & (self.certified < e) & (e < self.broken)

    def take(self, name, X_adv, hit, e):
        """Adversarial examples of radius e, a number or one per sample, kept where no smaller one is known."""
        new = hit & (e < self.broken)
        self.broken[new], self.found_by[new], self.X_adv[new] = np.broadcast_to(e, new.shape)[new], name, X_adv[new]

    def prove(self, e, method, active, max_nodes=None):
        if not active.any():
            return
        options = {"method": method, "max_nodes": max_nodes or self.max_nodes, "active": active, **self.threat}
        found = certify(self.net, self.data.X, self.data.y, e, **options)
        won = active & found.certified
        self.certified[won] = np.broadcast_to(e, won.shape)[won]
        self.take(SEARCH, found.X_adv, active & found.broken, e)

    def bisect(self, method, end, rtol):
        """Narrow `end` ("certified" or "broken") to `rtol` of itself, or to neighbouring numbers."""
        low, high = self.certified.copy(), self.broken.copy()
        known = self.correct & np.isfinite(high)
        while True:
            todo = known & (high - low > rtol * np.where(known, high, 1))
            e = np.where(todo, (low + np.where(todo, high, 0)) / 2, 0)
            todo &= (low < e) & (e < high)
            if not todo.any():
                return
            self.prove(e, method, todo, max(self.max_nodes // 8, 1))
            up = self.certified >= e if end == "certified" else self.broken > e
            low, high = np.where(todo & up, e, low), np.where(todo & ~up, e, high)


def sandwich(
    net: PatchCNN,
    data: PatchData,
    eps=EPS_GRID,
    *,
    norm: str = "linf",
    budget: str = "patch",
    ascent_lr=None,
    n_steps: int = 20,
    n_restarts: int = 1,
    max_nodes: int = 512,
    rtol: float = 0.01,
    seed=0,
    progress: Callable[[str], None] | None = None,
) -> Sandwich:
    """Certified and broken radii of every sample, and the attacks' own curves over the radii `eps`; all in float64.

    At each radius, from the smallest up: the certificates by intervals and tangents on what is open; the attacks of
    `curve_attacks`, each on the samples that are not certified there and that it has not broken yet; branch and bound
    on what is then undecided; the attacks of `last_attacks` on what is left.  At last both radii of every sample that
    was broken are narrowed by bisection: the broken one with the points that the tangents' search finds, the certified
    one with branch and bound.  Every certified radius is then audited by two attacks.

    Parameters
    ----------
    eps : increasing radii > 0.
    ascent_lr : the rate of one-step ascent, which is left out without it.
    n_steps, n_restarts : PGD's.
    max_nodes : branch and bound's budget per patch and rival at the radii `eps`; in the bisection an eighth of it.
    rtol : the share of itself to which the certified radius is narrowed; the broken one, which costs less, to rtol / 4.
    seed : the attacks' seed, or one per run.
    progress : called with a label after the intervals, after each radius and after each bisection (len(eps) + 3 times).

    Raises
    ------
    ValueError
        For bad arguments.
    ArithmeticError
        A certified sample was broken: an error in a certificate or in an attack, never a property of the network.
    """
    eps, rtol = grid(eps), checks.number("rtol", rtol, above=0)
    progress = progress or (lambda label: None)
    net, data = net.astype(np.float64), data.astype(np.float64)
    threat = {"norm": norm, "budget": budget}
    search = _Search(net, data, checks.integer("max_nodes", max_nodes, 1), threat)
    interval = interval_radius(net, data, eps, norm) * search.correct
    search.certified = interval.copy()
    attacks, last = curve_attacks(ascent_lr, n_steps, n_restarts), last_attacks(n_steps)
    alone = {attack.name: np.where(search.correct, np.inf, 0.0) for attack in attacks}
    progress("intervals")
    for e in eps.tolist():
        model = ThreatModel(eps=e, **threat)
        search.prove(e, "tangents", search.open(e))
        for attack in attacks:
            active = search.correct & (search.certified < e) & (e < alone[attack.name])
            if active.any():
                result = attack(net, data, model, seed, active=active)
                alone[attack.name][active & result.success] = e
                search.take(attack.name, result.X_adv, active & result.success, e)
        search.prove(e, SEARCH, search.open(e))
        if search.open(e).any():
            found = last(net, data, model, seed, active=search.open(e))
            for name, hit in found.broken_by.items():
                search.take(name, found.X_adv, hit, e)
        progress(f"eps = {e:.3g}")
    for method, end, share in (("tangents", "broken", 1 / 4), (SEARCH, "certified", 1)):
        search.bisect(method, end, share * rtol)
        progress(f"{end} radii")
    _audit(search, n_steps, seed)
    names = ("certified", "broken", "X_adv", "found_by")
    radii = {name: getattr(search, name) for name in names}
    return Sandwich(eps, norm, data.y, search.correct, interval=interval, alone=alone, **radii)


def interval_radius(net, data, eps, norm) -> np.ndarray:
    """The largest radius that the interval certificate proves, of `eps` and ten steps up to each of them."""
    steps = np.unique(np.concatenate([np.linspace(low, high, 11) for low, high in zip([0.0, *eps[:-1]], eps)]))
    radius = np.zeros(data.y.shape)
    for e in steps:
        proved = interval_margin(net, data.X, data.y, eps=e, norm=norm) > 0
        if not proved.any():
            break
        radius[proved] = e
    return radius


def _audit(search, n_steps, seed):
    """Attack every certified sample at its very certified radius, which no step above did: nothing may break."""
    proved = search.correct & (search.certified > 0)
    model = ThreatModel(eps=search.certified, **search.threat)
    for attack in (Aligned(), PGD(objective="margin", n_steps=n_steps)) if proved.any() else ():
        result = attack(search.net, search.data, model, seed, active=proved)
        search.take(attack.name, result.X_adv, proved & result.success, search.certified)
    wrong = np.argwhere(search.correct & (search.certified >= search.broken))
    if len(wrong):
        i = tuple(wrong[0].tolist())
        raise ArithmeticError(
            f"sample {i}: certified up to {search.certified[i]!r}, but broken at {search.broken[i]!r} "
            f"({search.found_by[i]}); one of the two is in error"
        )


def samples_of(config: Figure3Config, n: int, seeds=None) -> tuple[list[int], PatchData]:
    """`n` test samples of each of the run's `seeds` (default: all), from the seeds' own streams, and those seeds."""
    config = replace(config, n_test=checks.integer("samples", n, 1))
    chosen = config.seeds if seeds is None else list(dict.fromkeys(seeds))
    for seed in chosen:
        checks.choice("seed", seed, config.seeds)
    rows, data = [config.seeds.index(seed) for seed in chosen], config.data("test")
    return chosen, PatchData(*(a[rows] for a in (data.X, data.y, data.robust, data.strength)), data.features)


def summary(found: Sandwich, seeds) -> list[dict]:
    """The numbers of each seed, and under "seed": "all" those of all samples together; plain Python, for JSON."""

    def numbers(part: Sandwich):
        robust, certified, interval = part.robust_accuracy(), part.certified_accuracy(), part.interval_accuracy()
        gap, loose, falling = robust - certified, robust - interval, part.falling()
        ratio, fine = part.ratio()[part.correct], part.correct & np.isfinite(part.broken)
        radii = {name: getattr(part, name)[part.correct] for name in ("certified", "broken", "interval")}
        counts = dict(zip(*np.unique(part.found_by[fine], return_counts=True)))
        return {
            "accuracy": float(part.correct.mean()),
            "radius": {name: quartiles(values) for name, values in radii.items()},
            "ratio": quartiles(ratio),
            "interval_ratio": quartiles((part.interval / np.where(fine, part.broken, np.inf))[fine]),
            "never_broken": int((part.correct & ~np.isfinite(part.broken)).sum()),
            "gap": {"widest": float(gap.max()), "eps": float(part.eps[gap.argmax()])},
            "gap_anywhere": float(np.max([_undecided(part, e) for e in part.broken[fine]], initial=0)),
            "gap_outside_fall": float(np.max(gap, where=~falling, initial=0)),
            "interval_gap": {"widest": float(loose.max()), "eps": float(part.eps[loose.argmax()])},
            "fall": [float(e) for e in part.eps[falling][[0, -1]]] if falling.any() else None,
            "smallest_radius_found_by": {str(name): int(n) for name, n in counts.items()},
        }

    rows = [{"seed": seed, **numbers(of(found, r))} for r, seed in enumerate(seeds)]
    return [*rows, {"seed": "all", **numbers(of(found, None))}]


def _undecided(part, e):
    """Share of samples that are neither certified at `e` nor broken below it."""
    return (part.correct & (part.certified < e) & (e <= part.broken)).mean()


def of(found: Sandwich, run: int | None) -> Sandwich:
    """One run of a batch's answer; with None, the samples of all runs as if they were one run's."""

    def pick(a):
        return a[run] if run is not None else a.reshape(-1, *a.shape[2:])

    names = ("y", "correct", "certified", "broken", "interval", "X_adv", "found_by")
    alone = {name: pick(a) for name, a in found.alone.items()}
    return replace(found, alone=alone, **{name: pick(getattr(found, name)) for name in names})


def quartiles(values) -> dict[str, float | None]:
    """Lower quartile, median and upper quartile, each the value of a sample; None where that is inf or unknown."""
    values = np.sort(np.ravel(values)[~np.isnan(np.ravel(values))])
    if not len(values):
        return {"q1": None, "median": None, "q3": None}
    at = np.quantile(values, (0.25, 0.5, 0.75), method="inverted_cdf")
    return {name: float(v) if np.isfinite(v) else None for name, v in zip(("q1", "median", "q3"), at)}


def per_class(found: Sandwich, eps: float, n_classes: int) -> list[dict]:
    """Per class, over all runs: samples, accuracy, both bounds at radius `eps`, and the medians of the radii."""
    rows = []
    for i in range(n_classes):
        mine = found.y == i
        right = mine & found.correct
        n = max(int(mine.sum()), 1)
        rows.append(
            {
                "class": i,
                "samples": int(mine.sum()),
                "accuracy": float(right.sum() / n),
                "robust": float((right & (eps < found.broken)).sum() / n),
                "certified": float((right & (eps <= found.certified)).sum() / n),
                "interval": float((right & (eps <= found.interval)).sum() / n),
                "certified_radius": quartiles(found.certified[right]),
                "broken_radius": quartiles(found.broken[right]),
            }
        )
    return rows

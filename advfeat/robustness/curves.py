"""Robust accuracy between its two bounds at every radius: per sample, the largest certified and smallest broken one.

A sample certified at a radius is certified at every smaller one, and an adversarial example of a radius is one of every
larger radius.  So two radii per sample say everything: the curves over eps, the gap between them, and each attack's
own curve are counts of radii, monotone in eps by construction.
"""

from collections.abc import Callable
from dataclasses import field, replace
from typing import Protocol

import numpy as np

from ..attacks.threat import ThreatModel
from ..core import checks
from ..core.progress import Progress, Stopwatch
from ..core.records import record
from ..core.runs import renamed
from ..patches.data import PatchData
from ..patches.network import PatchCNN
from . import catalogue
from .catalogue import SEARCH
from .evaluate import Evaluation, measuring_attacks

#: 0.05, 0.1, ..., 1.2
EPS_GRID = np.linspace(0.05, 1.2, 24)
LIVE = 20  # arrays of the samples' size that live at once: 16 to 18 were measured
MOST_RADII = 10_000
MAX_NODES, FEW_NODES, LAST = 512, 8, 2  # where none are given; in the bisection; its halvings with an eighth of all
SHARE = 0.01  # bounds this close are one number; so far from clean accuracy and from 0, the curve is falling


def curve_attacks(ascent_lr=None, n_steps: int = 20, n_restarts: int = 1) -> list:
    """The attacks that get a curve of their own, cheap first; each is run on every sample that is not certified."""
    measured = measuring_attacks(ascent_lr, n_steps, n_restarts)
    return [*measured[:-3], catalogue.attack("fgsm_cross_entropy"), *measured[-3:]]


def last_attacks(n_steps: int = 20) -> list:
    """The attacks on what neither the certificate nor any other attack has decided."""
    options = {"rescue": {"n_steps": 2 * n_steps}, "apgd_margin": {"n_steps": 5 * n_steps}, "square": {}}
    return [catalogue.attack(name, **given) for name, given in options.items()]


@record
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
    timed_out : the time limit was met before all was asked.
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
    timed_out: bool = False

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
    """The radii as float64 (G,), checked: finite, > 0, increasing, at most MOST_RADII."""
    checks.integer("radii in eps_grid", np.size(eps), 1, MOST_RADII)
    values = np.array([checks.number("eps_grid", e, above=0) for e in np.atleast_1d(eps).tolist()])
    if not len(values) or (np.diff(values) <= 0).any():
        raise ValueError(f"eps_grid = {values.tolist()}: must be increasing radii, at least one")
    return values


class SandwichState(Protocol):
    """Where `sandwich` keeps what it knows: the steps that are done, and the arrays of `Evaluation.arrays`."""

    def load(self) -> tuple[int, dict[str, np.ndarray]] | None: ...

    def save(self, step: int, arrays: dict[str, np.ndarray]) -> None: ...


def memory_of(shape, n_radii: int, n_networks: int = 1) -> int:
    """Bytes that `sandwich` needs for samples of `shape` (R, N, P, d) and so many radii, and the answers of so many
    networks; counted on the safe side (the tests measure it)."""
    R, N, P, d = shape
    samples = R * N * P * d * 8
    curves = n_radii * (R * N + 1000)  # a comparison with every sample, and the steps themselves
    return (LIVE + n_networks) * samples + n_networks * curves + 200 * R * N * 8


@renamed(seed="rng")
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
    max_nodes: int | None = None,
    give_up: bool | None = None,
    rtol: float = 1e-3,
    rng=0,
    progress: Progress | None = None,
    time_limit: float | None = None,
    state: SandwichState | None = None,
) -> Sandwich:
    """Certified and broken radii of every sample, and the attacks' own curves over the radii `eps`; all in float64.

    At each radius, from the smallest up: the certificates by intervals and tangents on what is open; the attacks of
    `curve_attacks`, each on the samples that are not certified there and that it has not broken yet; branch and bound
    on what is then undecided; the attacks of `last_attacks` on what is left.  At last both radii of every sample that
    was broken are narrowed by bisection: the broken one with the points that the tangents' search finds, the certified
    one with few nodes of branch and bound, then the broken one with the points that those find.  What is left between
    them is halved twice more with an eighth of all nodes.
    Every certified radius is then audited by two attacks.

    Parameters
    ----------
    eps : increasing radii > 0.
    ascent_lr : the rate of one-step ascent, which is left out without it.
    n_steps, n_restarts : PGD's.
    max_nodes : branch and bound's budget per patch and rival at the radii `eps`, by default 512; in the bisection 8,
        in two last halvings an eighth.
    give_up : whether hopeless samples are left before that, by default where `max_nodes` is not given.
    rtol : what the curves may lose by bisection; each radius is narrowed to a quarter of this share of itself.
    rng : int, sequence of R ints, or Generator, as attacks take it.
    progress, time_limit : as in :mod:`advfeat.core.progress`; told after every step: intervals, radii, four
        bisections, the audit (len(eps) + 6 times).  When the time is over, what is known, of a step cut short as well.
    state : keeps what is known after every whole step, and continues from there to the same bits.

    Raises
    ------
    ValueError
        For bad arguments.
    ArithmeticError
        A certified sample was broken: an error in a certificate or in an attack, never a property of the network.
    """
    eps, rtol = grid(eps), checks.number("rtol", rtol, above=0)
    clock = Stopwatch(progress, time_limit)
    give_up = max_nodes is None if give_up is None else bool(give_up)
    max_nodes = MAX_NODES if max_nodes is None else checks.integer("max_nodes", max_nodes, 1)
    known = Evaluation(net, data, norm=norm, budget=budget, rng=rng, clock=clock)
    attacks, last = curve_attacks(ascent_lr, n_steps, n_restarts), last_attacks(n_steps)
    few = min(max_nodes, FEW_NODES)
    steps = [
        ("intervals", interval_radii, known, eps),
        *((f"eps = {e:.3g}", _radius, known, e, attacks, last, max_nodes, give_up) for e in eps.tolist()),
        ("broken radii", known.bisect, "tangents", "broken", rtol / 4, few, give_up),
        ("certified radii", known.bisect, SEARCH, "certified", rtol / 4, few, give_up),
        ("broken radii, by boxes", known.bisect, SEARCH, "broken", rtol / 4, few, give_up),
        ("last halvings", known.bisect, SEARCH, "certified", rtol / 4, max(max_nodes // 8, few), give_up, LAST),
        ("audit", _audit, known, n_steps),
    ]
    done, arrays = (state and state.load()) or (0, None)
    if done:
        known.restore(arrays)
    for i, (label, step, *arguments) in enumerate(steps, 1):
        if i > done and not clock.is_up():
            step(*arguments)
            if state is not None and not clock.timed_out:
                state.save(i, known.arrays())
        clock.tell(label, i / len(steps))
    never = np.where(known.correct, np.inf, 0.0)
    alone = {attack.name: known.alone.get(attack.name, never) for attack in attacks}
    certified, interval = np.maximum(known.certified, 0), np.maximum(known.interval, 0)
    radii = known.correct, certified, known.broken, interval
    return Sandwich(eps, norm, known.held.data.y, *radii, known.X_adv, known.found_by, alone, clock.timed_out)


def _radius(known: Evaluation, e: float, attacks, last, max_nodes: int, give_up: bool):
    """All that is asked at one radius of the grid."""
    known.prove(e, "tangents")
    for attack in attacks:
        known.attack(e, attack, alone=True)
    known.prove(e, SEARCH, max_nodes, give_up=give_up)
    for attack in last:
        known.attack(e, attack)


def interval_radii(known: Evaluation, eps) -> None:
    """Ask intervals at `eps` and at ten steps up to each of them, as far as they prove anything."""
    for e in np.unique(np.concatenate([np.linspace(low, high, 11) for low, high in zip([0.0, *eps[:-1]], eps)])):
        known.prove(e, "interval", active=known.correct)
        if not (known.interval >= e).any():
            break


def _audit(known: Evaluation, n_steps):
    """Attack every certified sample at its very certified radius, which no step above did: nothing may break."""
    proved = known.correct & (known.certified > 0)
    radius = np.maximum(known.certified, 0)
    model = ThreatModel(eps=radius, **known.threat)
    attacks = catalogue.attack("aligned"), catalogue.attack("pgd_margin", n_steps=n_steps)
    for attack in attacks if proved.any() else ():
        result = attack(known.model, known.held, model, known.seeds, active=proved)
        known.take(attack.name, result.X_adv, proved & result.success, radius)
    wrong = np.argwhere(known.correct & (radius >= known.broken))
    if len(wrong):
        i = tuple(wrong[0].tolist())
        raise ArithmeticError(
            f"sample {i}: certified up to {radius[i]!r}, but broken at {known.broken[i]!r} "
            f"({known.found_by[i]}); one of the two is in error"
        )


def summary(found: Sandwich, seeds) -> list[dict]:
    """The numbers of each seed, and under "seed": "all" those of all samples together; plain Python, for JSON."""

    def numbers(part: Sandwich):
        robust, certified, interval = part.robust_accuracy(), part.certified_accuracy(), part.interval_accuracy()
        gap, loose, falling = robust - certified, robust - interval, part.falling()
        ratio, fine = part.ratio()[part.correct], part.correct & np.isfinite(part.broken)
        radii = {name: getattr(part, name)[part.correct] for name in ("certified", "broken", "interval")}
        counts = dict(zip(*np.unique(part.found_by[fine], return_counts=True)))
        widest, where = max(((float(_undecided(part, e)), float(e)) for e in part.broken[fine]), default=(0.0, None))
        return {
            "accuracy": float(part.correct.mean()),
            "radius": {name: quartiles(values) for name, values in radii.items()},
            "ratio": quartiles(ratio),
            "interval_ratio": quartiles((part.interval / np.where(fine, part.broken, np.inf))[fine]),
            "never_broken": int((part.correct & ~np.isfinite(part.broken)).sum()),
            "gap": {"widest": float(gap.max()), "eps": float(part.eps[gap.argmax()])},
            "gap_anywhere": widest,
            "gap_anywhere_eps": where,
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

"""The one evaluator of robust accuracy: per sample certified, broken or undecided, at one radius or at many.

A sample certified at a radius is certified at every smaller one, and an adversarial example of a radius is one of every
larger radius.  So two radii per sample say all that is known: the largest certified and the smallest broken one.
`Evaluation` holds and narrows them; record points, `robust_accuracy`, curves, sweeps and the ledger are its callers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import field
from typing import Literal, get_args

import numpy as np

from ..attacks.base import Attack
from ..attacks.threat import ThreatModel
from ..core import ball, checks
from ..core.model import AnyData, Checked, Model, as_model
from ..core.progress import Progress, Stopwatch
from ..core.records import record
from ..core.runs import per_sample, renamed, run_seeds
from ..core.types import Array, Arrays, BoolArray, Float64Array, FloatArray, PerRun, PerSample, Rng, Share, StrArray
from ..kernels import formulas
from ..patches.certify import Method
from . import catalogue
from .catalogue import SEARCH

#: Attacks in the order in which they run: cheap first, the last one on what still stands.
MeasuringAttack = Literal["feature_swap", "one_step", "aligned", "pgd_cross_entropy", "pgd_margin"]
MEASURED_BY: tuple[MeasuringAttack, ...] = get_args(MeasuringAttack)
FOUND = ("certified", "broken", "interval", "X_adv", "found_by")  # what `Evaluation` narrows, beside `alone`


class Evaluation:
    """What is known of every sample, narrowed by `prove` and `attack`; arrays (N,) for a single model, (R, N) for runs.

    Attributes
    ----------
    correct : bool
        F_y strictly largest on the clean sample.
    certified, broken : float64
        The largest radius at which a sample is proved right for every perturbation, -inf where none is (a wrong sample
        is none), and the smallest radius of an adversarial example, inf where none is known; 0 for a wrong sample.
    interval : float64
        The largest radius that intervals alone prove.
    X_adv, found_by
        The adversarial examples of radius `broken`, and the attack or search that found them; the clean sample and ""
        where there is none.
    alone : dict of float64
        Per attack or search, the smallest radius at which it broke the sample; inf where it did not, or was not asked.
    clock : core.progress.Stopwatch
        When `prove` and `attack` take up no more work.
    """

    def __init__(self, model: Model, data: AnyData, *, norm: ball.Norm = "linf", budget: ball.Budget = "patch",
                 box: tuple[float, float] | None = None, rng: Rng = 0, clock: Stopwatch | None = None):  # fmt: skip
        checks.choice("norm", norm, ball.NORMS)
        checks.choice("budget", budget, ball.BUDGETS)
        self.model = as_model(model).for_verdicts()
        self.held = Checked.of(self.model, data)
        self.clock = Stopwatch() if clock is None else clock
        self.threat = {"norm": norm, "budget": budget, "box": box}
        self.seeds = run_seeds(rng, self.model.n_runs)
        self.clean = self.model.logits_of(self.held.batch)
        self.correct: BoolArray = self.model.drop_runs_axis(formulas.margin(self.clean, self.held.y) > 0)
        self.certified: Float64Array = np.full(self.correct.shape, -np.inf)
        self.interval: Float64Array = self.certified.copy()
        self.broken: Float64Array = np.where(self.correct, np.inf, 0.0)
        self.X_adv: FloatArray = np.array(self.model.drop_runs_axis(self.held.X))
        self.found_by: StrArray = np.full(self.correct.shape, "", "<U32")
        self.alone: dict[str, Float64Array] = {}

    def spread(self, eps: PerSample) -> Float64Array:
        """A radius, one number, one per run (R,) or one per sample, as an array that fits beside the samples."""
        eps = np.asarray(eps, np.float64)
        return eps[:, None] if self.model.batched and eps.ndim == 1 else eps

    def open(self, eps: PerSample) -> BoolArray:
        """Samples that are right, not certified at `eps` and not broken there."""
        eps = self.spread(eps)
        return self.correct & (self.certified < eps) & (eps < self.broken)

    def take(self, name: str, X_adv: FloatArray, hit: BoolArray, eps: PerSample) -> None:
        """Adversarial examples of radius `eps`, kept where no smaller one is known."""
        eps = np.broadcast_to(self.spread(eps), hit.shape)
        alone = self.alone.setdefault(name, np.where(self.correct, np.inf, 0.0))
        alone[hit] = np.minimum(alone, eps)[hit]
        new = hit & (eps < self.broken)
        self.broken[new], self.found_by[new], self.X_adv[new] = eps[new], name, X_adv[new]

    def prove(self, eps: PerSample, method: Method, max_nodes: int | None = None, active: BoolArray | None = None,
              give_up: bool | None = None) -> None:  # fmt: skip
        """Ask a certificate for the samples that are open at `eps`, or for those of them that are `active`; `max_nodes`
        and `give_up` are those of :func:`advfeat.certify`."""
        active = self.open(eps) if active is None else active
        if method != "interval":
            self.alone.setdefault(SEARCH, np.where(self.correct, np.inf, 0.0))
        if not active.any() or not catalogue.certifiable(self.model) or self.clock.is_up():
            return
        options = {"method": method, "max_nodes": max_nodes, "give_up": give_up, "time_limit": self.clock.left}
        options |= {k: self.threat[k] for k in ("norm", "budget")}
        won, hit, X_adv = catalogue.prove(self.model, self.held, eps, active, **options)
        radius = np.broadcast_to(self.spread(eps), won.shape)
        self.certified[won] = np.maximum(self.certified, radius)[won]
        if method == "interval":
            self.interval[won] = np.maximum(self.interval, radius)[won]
        else:
            self.take(SEARCH, X_adv, hit, eps)

    def attack(self, eps: PerSample, attack: Attack, alone: bool = False) -> None:
        """Attack the samples that are open at `eps`; with `alone`, all that are right, not certified there and that
        this attack has not broken yet, whatever others did."""
        reached = self.alone.setdefault(attack.name, np.where(self.correct, np.inf, 0.0))
        radius = self.spread(eps)
        active = self.correct & (self.certified < radius) & (radius < (reached if alone else self.broken))
        if active.any() and not self.clock.is_up():
            threat = ThreatModel(eps=eps, **self.threat)
            found = attack(self.model, self.held, threat, self.seeds, active=active, clean=self.clean,
                           time_limit=self.clock.left)  # fmt: skip
            self.take(attack.name, found.X_adv, active & found.success, eps)

    def bisect(self, method: Method, end: Literal["certified", "broken"], rtol: float, max_nodes: int,
               give_up: bool | None = None, halvings: int | None = None) -> None:  # fmt: skip
        """Narrow `end` to `rtol` of itself, or to neighbouring numbers, in at most so many `halvings`."""
        low, high = np.maximum(self.certified, 0), self.broken.copy()
        known = self.correct & np.isfinite(high)
        for _ in itertools.count() if halvings is None else range(halvings):
            todo = known & (high - low > rtol * np.where(known, high, 1))
            e = np.where(todo, (low + np.where(todo, high, 0)) / 2, 0)
            todo &= (low < e) & (e < high)
            if not todo.any() or self.clock.is_up():
                return
            self.prove(e, method, max_nodes, todo, give_up)
            up = self.certified >= e if end == "certified" else self.broken > e
            low, high = np.where(todo & up, e, low), np.where(todo & ~up, e, high)

    def arrays(self) -> dict[str, Array]:
        """All that was found so far, by name; with it `restore` continues to the same bits."""
        held = {name: getattr(self, name) for name in FOUND}
        return held | {f"alone/{name}": radius for name, radius in self.alone.items()}

    def restore(self, arrays: Arrays) -> None:
        """Take back what `arrays` returned for the same model and data."""
        for name in FOUND:
            setattr(self, name, arrays[name].copy())
        self.alone = {n.removeprefix("alone/"): a.copy() for n, a in arrays.items() if n.startswith("alone/")}

    def at(self, eps: PerSample) -> RobustAccuracy:
        """What is known at one radius."""
        e = self.spread(eps)
        broken = {name: self.correct & (radius <= e) for name, radius in self.alone.items()}
        return RobustAccuracy(
            eps, self.threat["norm"], self.correct, self.correct & (e <= self.certified), broken,
            self.correct & (e <= self.interval), self.clock.timed_out,
        )  # fmt: skip


@record
class RobustAccuracy:
    """Sample by sample, what attacks and certificates say at one radius; arrays (N,) or (R, N) bool.

    Attributes
    ----------
    correct : F_y strictly largest on the clean sample.
    certified : correct for every perturbation of the ball, by any certificate that was asked.
    broken : per attack, correct samples that it brought to an error; under "branch_and_bound" those that the search of
        the certificates broke.  The attack named last in `MEASURED_BY` runs on samples that no other attack broke, the
        search on those that stand then; the others run on every correct sample that intervals do not certify.
    interval_certified : certified by intervals alone.
    timed_out : the time limit was met before all was asked; what was not asked has certified and broken nothing.
    """

    eps: PerSample
    norm: ball.Norm
    correct: BoolArray
    certified: BoolArray
    broken: dict[str, BoolArray] = field(default_factory=dict)
    interval_certified: BoolArray | None = None
    timed_out: bool = False

    @property
    def standing(self) -> BoolArray:
        """Correct and broken by nothing: robust accuracy's samples."""
        return self.correct & ~np.any([np.zeros_like(self.correct), *self.broken.values()], axis=0)

    @property
    def robust_accuracy(self) -> Share:
        """Share of samples that stand against the worst of all attacks, sample by sample."""
        return self.standing.mean(axis=-1)

    @property
    def certified_accuracy(self) -> Share:
        return self.certified.mean(axis=-1)

    def under(self, attack: str) -> Share:
        """Accuracy under one attack alone; not for one that only ran on what the others left."""
        if attack in (MEASURED_BY[-1], SEARCH):
            raise ValueError(f"attack = {attack!r}: runs only on what the others left; see robust_accuracy")
        return (self.correct & ~self.broken[checks.choice("attack", attack, tuple(self.broken))]).mean(axis=-1)


@renamed(seed="rng")
def robust_accuracy(
    model: Model,
    data: AnyData,
    *,
    eps: PerSample,
    norm: ball.Norm = "linf",
    budget: ball.Budget = "patch",
    box: tuple[float, float] | None = None,
    certificate: Method = "branch_and_bound",
    max_nodes: int | None = None,
    give_up: bool | None = None,
    attacks: Sequence[MeasuringAttack] | None = None,
    ascent_lr: PerRun | None = None,
    n_steps: int = 20,
    n_restarts: int = 1,
    rng: Rng = 0,
    progress: Progress | None = None,
    time_limit: float | None = None,
) -> RobustAccuracy:
    """Robust accuracy between the worst of several attacks and a certificate, in the precision of verdicts.

    Cheap first: intervals; then, on correct samples that they leave open, the feature swap (Thm. 4.3), one-step ascent
    (at rate `ascent_lr`, if given), the aligned attack and PGD on cross-entropy (the paper's metric), each on all of
    them; then, on what still stands, PGD on the margin; at last `certificate`, whose search breaks samples too.  A
    certified sample needs no attack: none of radius eps breaks it.

    Parameters
    ----------
    model : a network or a batch of runs, or any model of the protocol (core/model.py); certificates are for PatchCNN
        and networks of layers.
    data : a PatchData, a pair (X, y), anything with X, y, arrays and directions (core/data.py), or what a model has
        `Checked` before, of the same shape and precision.
    eps, norm, budget, box : as in ThreatModel
    certificate : {"interval", "linear", "tangents", "branch_and_bound"}
        The last method to be tried; "interval" leaves the others out.  Networks of layers know "interval" and "linear".
    max_nodes, give_up : branch and bound's budget per patch and rival, and whether hopeless samples are left before it
        is spent, as in :func:`advfeat.certify`.
    attacks : sequence of names from ``robustness.evaluate.MEASURED_BY``, optional
        Default: all that model, data and arguments allow.
    n_steps, n_restarts : PGD's.
    rng : int, sequence of R ints, or Generator, as attacks take it.
    progress, time_limit : as in :mod:`advfeat.core.progress`.
    """
    checks.choice("certificate", certificate, tuple(catalogue.CERTIFICATES))
    ThreatModel(norm, eps, budget, box)
    if max_nodes is not None:
        checks.integer("max_nodes", max_nodes, 1)
    clock = Stopwatch(progress, time_limit)
    evaluation = Evaluation(model, data, norm=norm, budget=budget, box=box, rng=rng, clock=clock)
    per_sample("eps", eps, evaluation.held.y.shape, evaluation.model.batched)
    missing = {name: catalogue.lacking(name, evaluation.model, evaluation.held.data, ascent_lr) for name in MEASURED_BY}
    if attacks is not None and not isinstance(attacks, (list, tuple)):
        raise ValueError(f"attacks = {checks.shown(attacks)}: must be a sequence of names of {MEASURED_BY}")
    chosen = [name for name in MEASURED_BY if not missing[name]] if attacks is None else attacks
    for name in chosen:
        if missing[checks.choice("attack", name, MEASURED_BY)]:
            raise ValueError(f"attack {name!r} needs {missing[name]}")
    attacks = [attack for attack in measuring_attacks(ascent_lr, n_steps, n_restarts) if attack.name in chosen]
    evaluation.prove(eps, "interval")
    for number, attack in enumerate(attacks):
        clock.tell(attack.name, number / (2 * len(attacks)))
        evaluation.attack(eps, attack, alone=attack.name != MEASURED_BY[-1])
    clock.tell(certificate, 0.5)
    if certificate != "interval":
        evaluation.prove(eps, certificate, max_nodes, give_up=give_up)
    clock.tell(certificate, 1.0)
    return evaluation.at(eps)


def measuring_attacks(ascent_lr: PerRun | None = None, n_steps: int = 20, n_restarts: int = 1) -> list[Attack]:
    """The attacks of `MEASURED_BY`; one-step ascent only where its rate is given."""
    options = {name: {"n_steps": n_steps, "n_restarts": n_restarts} for name in ("pgd_cross_entropy", "pgd_margin")}
    if ascent_lr is not None:
        options["one_step"] = {"lr": ascent_lr}
    names = [name for name in MEASURED_BY if name != "one_step" or ascent_lr is not None]
    return [catalogue.attack(name, **options.get(name, {})) for name in names]

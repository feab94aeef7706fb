"""Several attacks, the worst of them per sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from ..attacks.base import Attack, AttackProblem
from ..attacks.threat import AttackResult, ThreatModel
from ..core import checks
from ..core.model import AnyData, Model, as_model
from ..core.progress import Progress, Stopwatch
from ..core.records import record
from ..core.runs import run_seeds
from ..core.types import BoolArray, Float64Array, FloatArray, Rng
from .catalogue import ATTACKS, AttackName

#: Attacks that a suite knows by name, with their default options.
NAMED = {name: entry.attack for name, entry in ATTACKS.items() if "ascent_lr" not in entry.needs}


@record
class SuiteResult:
    """The worst of several attacks; arrays (N,) for a single network, (R, N) for a batch.

    Attributes
    ----------
    X_adv, margin, success : as in AttackResult
        Of each sample's point of smallest margin.
    results : name -> AttackResult
    broken_by : name -> bool
        Samples that this attack broke first.  Together with `clean`: `success`.
    clean : bool
        Samples that are a success without any perturbation; no attack is credited with them.
    robust : bool
        Attacked samples that stand.
    timed_out : bool
        The time limit ended the suite; attacks that are not in `results` did not run.
    """

    X_adv: FloatArray
    margin: Float64Array
    success: BoolArray
    results: dict[str, AttackResult]
    broken_by: dict[str, BoolArray]
    clean: BoolArray
    robust: BoolArray
    timed_out: bool = False


@dataclass(frozen=True)
class AttackSuite:
    """Runs attacks in turn and keeps the worst per sample, so it breaks all that any of them would break alone.

    Parameters
    ----------
    attacks : sequence of Attack, or of names of ``suite.NAMED``
    stop_early : bool
        Attack only what no earlier attack broke, and stop when nothing is left; False: every attack on every sample.
    """

    attacks: Sequence[Attack | AttackName]
    stop_early: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        checks.truth("stop_early", self.stop_early)
        if not isinstance(self.attacks, (list, tuple)) or not self.attacks:
            raise ValueError(f"attacks = {checks.shown(self.attacks)}: must be a sequence of one attack or more")
        found = tuple(NAMED[checks.choice("attack", a, NAMED)] if isinstance(a, str) else a for a in self.attacks)
        for attack in found:
            if not isinstance(attack, Attack):
                raise TypeError(f"attacks hold {attack!r}: each must be an Attack or a name")
        names = [attack.name for attack in found]
        if len(set(names)) < len(names):
            raise ValueError(f"attacks are named {names}: names must differ; give name=... to an attack")
        object.__setattr__(self, "attacks", found)

    def __call__(
        self,
        model: Model,
        data: AnyData,
        threat: ThreatModel,
        rng: Rng = 0,
        *,
        active: ArrayLike | None = None,
        progress: Progress | None = None,
        time_limit: float | None = None,
    ) -> SuiteResult:
        """Arguments and errors as for every attack; all attacks have the same seeds."""
        clock, model = Stopwatch(progress, time_limit), as_model(model)
        seeds = run_seeds(rng, model.n_runs)
        clean = _Clean()(model, data, threat, seeds, active=active)
        X_adv, margin, success = clean.X_adv, clean.margin, clean.success
        attacked, results, broken_by = ~np.isnan(margin), {}, {}
        for number, attack in enumerate(self.attacks):
            left = attacked & ~success
            if clock.is_up():
                break
            clock.tell(f"{attack.name}, {left.sum()} left", number / len(self.attacks))
            part = clock.part(number / len(self.attacks), (number + 1) / len(self.attacks))
            active = left if self.stop_early else attacked & ~clean.success
            found = attack(model, data, threat, seeds, active=active, progress=part, time_limit=clock.left)
            clock.timed_out |= found.timed_out
            results[attack.name], broken_by[attack.name] = found, left & found.success
            better = found.margin < margin
            X_adv = np.where(better.reshape(better.shape + (1,) * (X_adv.ndim - better.ndim)), found.X_adv, X_adv)
            margin, success = np.where(better, found.margin, margin), success | found.success
            if self.stop_early and not (attacked & ~success).any():
                break
        for attack in self.attacks:
            broken_by.setdefault(attack.name, np.zeros_like(success))
        return SuiteResult(X_adv, margin, success, results, broken_by, clean.success, attacked & ~success,
                           clock.timed_out)  # fmt: skip


@dataclass(frozen=True)
class _Clean(Attack):
    """No perturbation at all."""

    def default_name(self) -> str:
        return "clean"

    def run(self, problem: AttackProblem) -> None:
        pass

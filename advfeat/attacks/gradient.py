"""Attacks along gradients: FGSM, the paper's ascent, PGD."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..core import ball, checks, objectives
from ..core.data import Data
from ..core.model import Model
from ..core.types import BoolArray, Float64Array, FloatArray, IntArray, PerRun, Slopes
from ..kernels import formulas
from .base import Attack, AttackProblem, as_patches, as_samples
from .threat import ThreatModel


def half_cosine(t: float) -> float:
    """(1 + cos(pi t)) / 2: from 1 at t = 0 down to 0 at 1."""
    return (1 + np.cos(np.pi * t)) / 2


StepSchedule = Literal["constant", "linear", "cosine"]
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    "linear": lambda t: 1.0 - t,
    "cosine": half_cosine,
}


@dataclass(frozen=True)
class GradientAttack(Attack):
    """An attack that increases an objective J, from several starts and, with `all_targets`, towards every class.

    A subclass has a field `objective` and writes `ascend`.
    """

    all_targets = False  # a field of the attacks that know it

    @abstractmethod
    def ascend(self, problem: AttackProblem, targets: IntArray | None, restart: int, on: BoolArray) -> None:
        """One ascent of the samples `on` (R, n), towards `targets` (R, n) or None, the so-manyth one of the samples."""

    def default_name(self) -> str:
        return f"{type(self).__name__.lower()}_{self.objective}" + "_all_targets" * self.all_targets

    @property
    def used_objective(self) -> objectives.Objective:
        """The objective, in its targeted form where every class is a target."""
        return objectives.form(self.objective, self.all_targets)

    def check_options(self) -> None:
        checks.choice("objective", self.objective, objectives.OBJECTIVES)
        checks.truth("all_targets", self.all_targets)
        for name in {"n_steps", "n_restarts"} & set(vars(self)):
            checks.integer(name, getattr(self, name), 1, checks.MOST)
        objectives.form(self.objective, self.all_targets)

    def check(self, model: Model, data: Data, threat: ThreatModel) -> None:
        if self.all_targets and threat.targets is not None:
            raise ValueError("all_targets = True: attacks every class, but the threat names targets")
        objectives.check(self.used_objective, model.n_classes, self.all_targets or threat.targets is not None)

    def check_clean(self, problem: AttackProblem) -> None:
        if self.used_objective not in objectives.CLASSES:
            return
        dead = (problem.clean == 0).all(axis=-1)
        for r in np.flatnonzero(problem.on.any(axis=1)):
            if dead[r][problem.on[r]].all():
                where = f" of run {r}" if problem.model.batched else ""
                raise ValueError(f"objective = {self.objective!r}: all logits{where} are 0 on every sample (0/0)")

    def run(self, problem: AttackProblem) -> None:
        for targets in targets_in_turn(problem) if self.all_targets else [problem.targets]:
            for restart in range(getattr(self, "n_restarts", 1)):
                on = problem.open
                if not on.any():
                    return
                problem.restart = restart
                self.ascend(problem, targets, restart, on)


def ascended(model: Model, X: FloatArray, y: IntArray, *, lr: Float64Array, eps: Float64Array, objective: str,
             norm: str, n_steps: int, steepest: bool = False, start: FloatArray | None = None,
             slopes: Slopes | None = None) -> FloatArray:  # fmt: skip
    """x~ <- x + project_eps(x~ - x + lr grad J(x~)), `n_steps` times: the inputs of adversarial training (Sec. 2.5).

    With `steepest` the direction of steepest ascent stands for the gradient (PGD, Madry et al. 2018); `start`
    (R, N, P, d) is added to x before the first step; slopes(F, samples) stands for dJ/dF of the objective.  Checked
    X (R, N, *S) and y (R, N), `lr` and `eps` (R,); a budget per patch, as the model has patches; points stay in the
    model's box.
    """
    if "ascend" in model.capabilities and not steepest and start is None and slopes is None:
        return model.ascend(model.prepare(X, y), checks.OBJECTIVES[objective], lr, eps, checks.NORMS[norm], n_steps)
    clean = as_patches(X, model.patch_axis)
    rate, radius = lr[:, None, None, None], np.repeat(eps[:, None], X.shape[1], axis=1)

    def moved_by(delta):
        moved = clean + ball.project(delta, radius, norm)
        return (moved if model.box is None else np.clip(moved, *model.box)).astype(X.dtype)

    moved = clean if start is None else moved_by(start)
    slopes = slopes or (lambda F, some: objectives.gradient(objective, F, y[:, some]))
    for _ in range(n_steps):
        batch = model.prepare(as_samples(moved, X.shape[2:], model.patch_axis), y)
        _, g = model.logits_and_pull_back_of(batch, slopes)
        g = as_patches(g, model.patch_axis)
        moved = moved_by(moved - clean + rate * (ball.steepest(g, norm) if steepest else g))
    return as_samples(moved, X.shape[2:], model.patch_axis)


def targets_in_turn(problem: AttackProblem) -> IntArray:
    """Every sample's k - 1 rivals, those of larger clean logits first, (R, n) each."""
    F = np.where(formulas.label_onehot(problem.clean, problem.y) > 0, np.inf, problem.clean)
    order = np.argsort(-F, axis=-1, kind="stable")
    return np.moveaxis(order, -1, 0)[1:]


@dataclass(frozen=True)
class FGSM(GradientAttack):
    """x + eps s, s the direction of steepest ascent of J at x: sign(grad J) for l_inf (Goodfellow et al. 2015).

    `objective`: a name of ``objectives.OBJECTIVES``.
    """

    objective: objectives.Objective = "cross_entropy"

    def ascend(self, problem: AttackProblem, targets: IntArray | None, restart: int, on: BoolArray) -> None:
        g = problem.gradient(self.used_objective, problem.X, problem.clean, on, targets)
        problem.iterations += on
        problem.evaluate(problem.move(problem.eps[..., None, None] * problem.steepest(g, problem.X)), on)


@dataclass(frozen=True)
class OneStepAscent(GradientAttack):
    """x~ <- x + project_eps(x~ - x + lr grad J(x~)), `n_steps` times: the paper's training step (Sec. 2.5).

    `lr` is one number or one per run.
    """

    lr: PerRun = 1.0
    objective: objectives.Objective = "neg_label_logit"
    n_steps: int = 1

    def default_name(self) -> str:
        return "one_step"

    def ascend(self, problem: AttackProblem, targets: IntArray | None, restart: int, on: BoolArray) -> None:
        X, F = problem.X, problem.clean
        lr = checks.per_run("lr", self.lr, problem.model.n_runs, low=0)
        if offer := problem.offered("ascend", self.used_objective):
            eps, J, norm = offer
            X = problem.model.ascend(problem.prepare(X, on), J, lr, eps, norm, self.n_steps)
            problem.iterations += self.n_steps * on
            problem.gradient_calls += self.n_steps * on
            problem.evaluate(X, on)
            return
        for _ in range(self.n_steps):
            g = problem.gradient(self.used_objective, X, F, on, targets)
            problem.iterations += on
            X = problem.step(X, lr[:, None, None, None] * g)
            F = problem.evaluate(X, on)
            on = on & problem.open


@dataclass(frozen=True)
class PGD(GradientAttack):
    """Projected steepest ascent on J from random starts (Madry et al. 2018).

    x~ <- x + project_eps(x~ - x + step eps s), s the direction of steepest ascent in the threat's norm.

    Parameters
    ----------
    objective : a name of ``objectives.OBJECTIVES``
    n_steps, n_restarts : int
    step : float, optional
        Relative to eps; 2.5 / n_steps by default.
    momentum : float in [0, 1)
        mu > 0: s is the direction of v <- mu v + grad J / |grad J|_1 (Dong et al. 2018).
    schedule : {"constant", "linear", "cosine"}
        The step shrinks to 0 along it.
    all_targets : bool
        Attack each of the k - 1 other classes in turn, with the objective's targeted form.

    Notes
    -----
    Where threat and options fit a loop that the model has (l_inf or patch-wise l_2, one eps per run, no box, no
    targets, no momentum, constant step, an objective of the kernels) that is used.
    """

    objective: objectives.Objective = "margin"
    n_steps: int = 20
    n_restarts: int = 1
    step: float | None = None
    momentum: float = 0.0
    schedule: StepSchedule = "constant"
    all_targets: bool = False

    def check_options(self) -> None:
        super().check_options()
        if self.step is not None:
            checks.number("step", self.step, above=0)
        if checks.number("momentum", self.momentum, low=0) >= 1:
            raise ValueError(f"momentum = {self.momentum!r}: must be < 1")
        checks.choice("schedule", self.schedule, SCHEDULES)

    def _steps(self, eps):
        return 2.5 * eps / self.n_steps if self.step is None else self.step * eps

    def ascend(self, problem: AttackProblem, targets: IntArray | None, restart: int, on: BoolArray) -> None:
        X = problem.start(restart, on)
        plain = not (self.momentum or self.all_targets) and self.schedule == "constant"
        if plain and (offer := problem.offered("pgd", self.used_objective)):
            eps, J, norm = offer
            batch, n = problem.prepare(problem.X, on), self.n_steps
            X, margin = problem.model.pgd(batch, J, self._steps(eps), eps, norm, n, X)
            problem.keep(X, margin, on)
            problem.iterations += n * on
            problem.gradient_calls += n * on
            problem.forward_calls += (n + 1) * on
        else:
            climb(problem, self.used_objective, targets, X, on, self._steps(problem.eps), self)


def climb(problem, objective, targets, X, on, step, options, slopes=None):
    """PGD's loop from X on any threat; `slopes(t, X, F, on)` may stand in for the gradient at share t of the way."""
    velocity, schedule, n = 0.0, SCHEDULES[getattr(options, "schedule", "constant")], options.n_steps
    for it in range(n + 1):
        F = problem.evaluate(X, on)
        on = on & problem.open
        if it == n or not on.any():
            return
        g = slopes(it / n, X, F, on) if slopes else problem.gradient(objective, X, F, on, targets)
        if getattr(options, "momentum", 0):
            size = np.abs(g).sum(axis=(2, 3), keepdims=True)
            g = velocity = options.momentum * velocity + g / np.where(size > 0, size, 1)
        problem.iterations += on
        rate = (step * schedule(it / n))[..., None, None]
        X = problem.step(X, rate * problem.steepest(g, X))

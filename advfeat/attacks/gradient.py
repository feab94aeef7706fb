"""Attacks along gradients: FGSM, the paper's ascent, PGD, and a rescue of patches whose gradient is dead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import checks
from ..kernels import reference
from . import ball, objectives
from .threat import Attack

SCHEDULES = {
    "constant": lambda t: 1.0,
    "linear": lambda t: 1.0 - t,
    "cosine": lambda t: (1 + np.cos(np.pi * t)) / 2,
}


@dataclass(frozen=True)
class GradientAttack(Attack):
    """An attack that increases an objective J, from several starts and, with `all_targets`, towards every class.

    `_ascend(problem, targets, restart, on)` of a subclass is one ascent of the samples `on`.
    """

    all_targets = False  # a field of the attacks that know it

    def _name(self):
        return f"{type(self).__name__.lower()}_{self.objective}" + "_all_targets" * self.all_targets

    @property
    def _objective(self):
        return objectives.form(self.objective, self.all_targets)

    def _check_options(self):
        checks.choice("objective", self.objective, objectives.OBJECTIVES)
        checks.choice("all_targets", self.all_targets, (True, False))
        for name in {"n_steps", "n_restarts"} & set(vars(self)):
            checks.integer(name, getattr(self, name), 1)
        objectives.form(self.objective, self.all_targets)

    def _check(self, net, data, threat):
        if self.all_targets and threat.targets is not None:
            raise ValueError("all_targets = True: attacks every class, but the threat names targets")
        objectives.check(self._objective, net.shape[0], self.all_targets or threat.targets is not None)

    def _check_clean(self, problem):
        if self._objective not in objectives.CLASSES:
            return
        dead = (problem.clean == 0).all(axis=-1)
        for r in np.flatnonzero(problem.on.any(axis=1)):
            if dead[r][problem.on[r]].all():
                where = f" of run {r}" if problem.net.batched else ""
                raise ValueError(f"objective = {self.objective!r}: all logits{where} are 0 on every sample (0/0)")

    def _attack(self, problem):
        for targets in targets_in_turn(problem) if self.all_targets else [problem.targets]:
            for restart in range(getattr(self, "n_restarts", 1)):
                on = problem.open
                if not on.any():
                    return
                self._ascend(problem, targets, restart, on)


def targets_in_turn(problem):
    """Every sample's k - 1 rivals, those of larger clean logits first, (R, n) each."""
    F = np.where(reference.label_onehot(problem.clean, problem.y) > 0, np.inf, problem.clean)
    order = np.argsort(-F, axis=-1, kind="stable")
    return np.moveaxis(order, -1, 0)[1:]


@dataclass(frozen=True)
class FGSM(GradientAttack):
    """x + eps s, s the direction of steepest ascent of J at x: sign(grad J) for l_inf (Goodfellow et al. 2015).

    `objective`: a name of ``objectives.OBJECTIVES``.
    """

    objective: str = "cross_entropy"

    def _ascend(self, problem, targets, restart, on):
        g = problem.gradient(self._objective, problem.X, problem.clean, on, targets)
        problem.iterations += on
        problem.evaluate(problem.move(problem.eps[..., None, None] * problem.steepest(g, problem.X)), on)


@dataclass(frozen=True)
class OneStepAscent(GradientAttack):
    """x~ <- x + project_eps(x~ - x + lr grad J(x~)), `n_steps` times: the paper's training step (Sec. 2.5).

    `lr` is one number or one per run.
    """

    lr: float | np.ndarray = 1.0
    objective: str = "neg_label_logit"
    n_steps: int = 1

    def _name(self):
        return "one_step"

    def _ascend(self, problem, targets, restart, on):
        net, X, F = problem.net, problem.X, problem.clean
        lr = checks.per_run("lr", self.lr, net.n_runs, low=0)
        fused = problem.fused(self._objective)
        if fused:
            eps, J, norm = fused
            batch = net.pack(X, problem.y, on)
            X = net.engine.ascend(net.weights, batch, net.q, net.rho, J, lr, eps, norm, self.n_steps)
            problem.iterations += self.n_steps * on
            problem.gradient_calls += self.n_steps * on
            problem.evaluate(X, on)
            return
        for _ in range(self.n_steps):
            g = problem.gradient(self._objective, X, F, on, targets)
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

    Where threat and options fit the engine's own loop (l_inf or patch-wise l_2, one eps per run, no box, no targets, no
    momentum, constant step, an objective of the kernels) that is used.
    """

    objective: str = "margin"
    n_steps: int = 20
    n_restarts: int = 1
    step: float | None = None
    momentum: float = 0.0
    schedule: str = "constant"
    all_targets: bool = False

    def _check_options(self):
        super()._check_options()
        if self.step is not None:
            checks.number("step", self.step, above=0)
        if checks.number("momentum", self.momentum, low=0) >= 1:
            raise ValueError(f"momentum = {self.momentum!r}: must be < 1")
        checks.choice("schedule", self.schedule, SCHEDULES)

    def _steps(self, eps):
        return 2.5 * eps / self.n_steps if self.step is None else self.step * eps

    def _ascend(self, problem, targets, restart, on):
        X = problem.start(restart, on)
        plain = not (self.momentum or self.all_targets) and self.schedule == "constant"
        if plain and problem.fused(self._objective):
            self._fused(problem, X, on)
        else:
            climb(problem, self._objective, targets, X, on, self._steps(problem.eps), self)

    def _fused(self, problem, start, on):
        net, (eps, J, norm) = problem.net, problem.fused(self._objective)
        batch, step = net.pack(problem.X, problem.y, on), self._steps(eps)
        X, margin = net.engine.pgd(net.weights, batch, net.q, net.rho, J, step, eps, norm, self.n_steps, start)
        problem.keep(X, margin, on)
        problem.iterations += self.n_steps * on
        problem.gradient_calls += self.n_steps * on
        problem.forward_calls += (self.n_steps + 1) * on


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


@dataclass(frozen=True)
class Rescue(GradientAttack):
    """PGD on the targeted margin with a slope for the rival's neurons that does not die: patches can be entered.

    Where <w_{t,s}, x~_p> <= 0 the true slope is 0 and stays 0, so that plain PGD never makes such a patch speak for the
    rival t.  In the first half of the steps the rival's neurons have the slope of the chord over what they can reach,
    (sigma(b) - sigma(z)) / (b - z) with b = <w, x_p> + eps |w|_*: >= sigma'(z) since sigma is convex, and 0 only where
    b <= 0.  The label's neurons keep the true slope, and so do all neurons in the second half.

    Parameters
    ----------
    n_steps, n_restarts, step : as for PGD
        The first restart begins at the clean input.
    all_targets : bool
        Every rival in turn (default), else the strongest one at the clean input.  With a threat's targets: the target
        against its strongest rival.
    """

    n_steps: int = 40
    n_restarts: int = 1
    step: float | None = None
    all_targets: bool = True
    objective = "targeted_margin"

    def _name(self):
        return "rescue"

    def _check(self, net, data, threat):
        pass

    def _check_options(self):
        super()._check_options()
        if self.step is not None:
            checks.number("step", self.step, above=0)

    def _attack(self, problem):
        turns = [problem.targets] if problem.targets is not None else targets_in_turn(problem)
        for targets in turns if self.all_targets else turns[:1]:
            weights, top = self._reach(problem, targets)
            for restart in range(self.n_restarts):
                on = problem.open
                if not on.any():
                    return
                X = problem.start(restart, on) if restart else problem.X
                step = (2.5 / self.n_steps if self.step is None else self.step) * problem.eps

                def slopes(t, X, F, on, weights=weights, top=top, targets=targets):
                    return self._slopes(problem, t, X, F, on, weights, top, targets)

                climb(problem, None, targets, X, on, step, self, slopes)

    @staticmethod
    def _reach(problem, targets):
        """The rival's neurons (R, n, m, d) and the largest preactivations they can have, (R, n, P, m)."""
        weights = problem.net.weights[np.arange(len(targets))[:, None], targets]
        dual = np.linalg.norm(weights, ball.DUAL[problem.norm], axis=-1)
        return weights, problem.X @ weights.swapaxes(-1, -2) + (problem.eps[..., None] * dual)[:, :, None]

    @staticmethod
    def _slopes(problem, t, X, F, on, weights, top, targets):
        """The surrogate gradient of F_t - F_y, with targets of F_t - max_{j != t} F_j, at share t of the way."""
        q, rho = problem.net.q, problem.net.rho
        rival = problem.y if problem.targets is None else reference.strongest_rival(F, targets)
        C = -reference.label_onehot(F, rival)
        if t >= 0.5:
            return problem.pull_back(X, C + reference.label_onehot(F, targets), on)
        Z = X @ weights.swapaxes(-1, -2)
        run = np.maximum(top - Z, 0)
        chord = (reference.sigma(top, q, rho) - reference.sigma(Z, q, rho)) / np.where(run > 0, run, 1)
        slope = np.maximum(np.where(run > 0, chord, 0), reference.sigma_prime(Z, q, rho))
        return problem.pull_back(X, C, on) + slope @ weights

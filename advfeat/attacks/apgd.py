"""Auto-PGD (Croce & Hein 2020, arXiv:2003.01690, Algorithm 1): PGD with momentum that finds its own step size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..core import checks, objectives
from ..core.types import BoolArray, IntArray
from .base import AttackProblem
from .gradient import GradientAttack


def checkpoints(n_steps: int) -> list[int]:
    """w_j = ceil(p_j n_steps), p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), up to p_j <= 1.

    In hundredths, exactly: 0, 22, 41, 57, 70, 80, 87, 93, 99 percent of the steps.
    """
    p = [0, 22]
    while p[-1] <= 100:
        p.append(p[-1] + max(p[-1] - p[-2] - 3, 6))
    return sorted({math.ceil(share * n_steps / 100) for share in p[:-1]})


@dataclass(frozen=True)
class APGD(GradientAttack):
    """Auto-PGD: z = project(x + eta s), x <- project(x + a (z - x) + (1 - a)(x - x_before)), a = 0.75.

    s is the direction of steepest ascent of J in the threat's norm (for l_1 one coordinate of every patch, or of the
    sample for a global budget), eta starts at 2 eps.  At every checkpoint w_j a sample's eta is halved and its iterate
    goes back to the best one by J, where (1) J grew in fewer than rho (w_j - w_{j-1}) of the last steps, or (2) neither
    eta was halved at the last checkpoint nor the best J has grown since.

    Parameters
    ----------
    objective : a name of ``objectives.OBJECTIVES``; published are "cross_entropy" and "dlr"
    n_steps, n_restarts : int
    rho : float in (0, 1)
    all_targets : bool
        Attack each of the k - 1 other classes in turn, with the objective's targeted form.
    """

    objective: objectives.Objective = "cross_entropy"
    n_steps: int = 100
    n_restarts: int = 1
    rho: float = 0.75
    all_targets: bool = False

    def check_options(self) -> None:
        super().check_options()
        if checks.number("rho", self.rho, above=0) >= 1:
            raise ValueError(f"rho = {self.rho!r}: must be < 1")

    def ascend(self, problem: AttackProblem, targets: IntArray | None, restart: int, on: BoolArray) -> None:
        name, y, marks = self.used_objective, problem.y, checkpoints(self.n_steps)
        X = before = problem.start(restart, on)
        F = problem.evaluate(X, on)
        J = objectives.value(name, F, y, targets)
        top_X, top_F, top = X.copy(), F.copy(), J.copy()
        eta, rose, last = 2 * problem.eps, np.zeros(on.shape, np.int64), 0
        halved, top_before = np.zeros(on.shape, bool), top.copy()
        for it in range(self.n_steps):
            on = on & problem.open
            if not on.any():
                return
            g = problem.gradient(name, X, F, on, targets)
            Z = problem.step(X, eta[..., None, None] * problem.steepest(g, X))
            if it:
                Z = problem.step(X, 0.75 * (Z - X) + 0.25 * (X - before))
            before, X = X, Z
            F = problem.evaluate(X, on)
            problem.iterations += on
            J_before, J = J, objectives.value(name, F, y, targets)
            rose += J_before < J
            higher = on & (top < J)
            top_X[higher], top_F[higher], top[higher] = X[higher], F[higher], J[higher]
            if it + 1 in marks:
                halve = (rose < self.rho * (it + 1 - last)) | (~halved & (top_before == top))
                eta = np.where(halve, eta / 2, eta)
                X, F = np.where(halve[..., None, None], top_X, X), np.where(halve[..., None], top_F, F)
                J = np.where(halve, top, J)
                halved, top_before, rose, last = halve, top.copy(), np.zeros_like(rose), it + 1

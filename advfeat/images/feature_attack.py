"""Attacks on features alone (Sec. 6.2, Table 2): x + delta in the ball around x with g(x + delta) close to g(x'), x' an
image of the target class.

g is a *reference*'s representation; the network that is attacked is never asked, so that what breaks it are the
reference's features.  With a normally trained reference they are the non-robust ones (NRF-PGD), with an adversarially
trained one the robust ones (RF-PGD).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..attacks.base import Attack, AttackProblem, as_samples
from ..attacks.gradient import SCHEDULES, StepSchedule
from ..attacks.threat import ThreatModel
from ..core import ball, checks
from ..core.data import Data
from ..core.model import Model
from ..core.records import record
from ..core.rng import stream
from ..core.runs import spread_over_runs
from ..core.types import Float64Array, FloatArray, IntArray
from .inversion import distance_and_gradient, sizes
from .network import Network


@record
class Crafted:
    """Images X (N, C, H, W) and what the reference says of them.

    Attributes
    ----------
    goal : (N,) numbers of the images whose representations were aimed at
    before, distance : (N,) |g(.) - g(x')|_2 / |g(x')|_2 of the clean image and of X
    """

    X: FloatArray
    goal: IntArray
    before: Float64Array
    distance: Float64Array


@dataclass(frozen=True, eq=False)
class FeaturePGD(Attack):
    """min over |delta| <= eps of |g(x + delta) - g(x')|_2, x' a random image of the target class.

    x~ <- x + project_eps(x~ - x - step eps s), s the direction of steepest ascent of the distance in the threat's norm,
    from a random point of the ball; of all points on the way the closest is taken.  x', and the point that the way
    begins at, hang on the seed and the sample's number alone.  Needs a threat with targets.

    Parameters
    ----------
    reference : Network
        Whose g it is.
    X (M, C, H, W), y (M,)
        Images of which every x' is one, of each class that is a target at least one.
    n_steps : int
    step : float, optional
        The first one, relative to eps; by default all steps sum to 2.5 eps.
    schedule : {"constant", "linear", "cosine"}
        The step shrinks to 0 along it.
    random_start : bool
        Whether the way begins at a random point of the ball, else at x.
    """

    reference: Network
    X: FloatArray
    y: IntArray
    n_steps: int = 50
    step: float | None = None
    schedule: StepSchedule = "cosine"
    random_start: bool = True

    def default_name(self) -> str:
        return "feature_pgd"

    def check_options(self) -> None:
        checks.integer("n_steps", self.n_steps, 1)
        if self.step is not None:
            checks.number("step", self.step, above=0)
        checks.choice("schedule", self.schedule, SCHEDULES)
        checks.choice("random_start", self.random_start, (True, False))
        X, y = self.reference.check(self.X, self.y)
        object.__setattr__(self, "X", X[0])
        object.__setattr__(self, "y", y[0])

    def check(self, model: Model, data: Data, threat: ThreatModel) -> None:
        if threat.targets is None:
            raise ValueError("targets = None: features of a class are aimed at; give the threat a class per sample")
        if model.sample_shape != self.reference.sample_shape:
            raise ValueError(f"samples are {model.sample_shape}: the reference reads {self.reference.sample_shape}")

    def run(self, problem: AttackProblem) -> None:
        on = problem.open
        if not on.any():
            return
        rngs = [problem.generator(0, r, n) for r, n in zip(*np.nonzero(on))]
        X = as_samples(problem.X, problem.sample_shape, problem.model.patch_axis)
        found = self._crafted(X[on], problem.targets[on], problem.eps[on], problem.norm, rngs)
        points = X.copy()
        points[on] = found.X
        problem.iterations += self.n_steps * on
        problem.evaluate(problem.step(problem.X, points.reshape(problem.X.shape) - problem.X), on)

    def craft(self, X: ArrayLike, targets: ArrayLike, eps: float, norm: ball.Norm = "linf", rng: int = 0) -> Crafted:
        """Images X (N, C, H, W) moved towards the classes `targets` (N,): what the attack shows to every network with
        this seed, made without one.  Errors as of the attack."""
        X = self.reference.check(X)[0][0]
        eps = checks.number("eps", eps, low=0)
        checks.choice("norm", norm, ball.NORMS)
        targets = spread_over_runs("targets", targets, (1, len(X)), False, np.integer)[0]
        rngs = [stream(rng, "attacks", 1, number) for number in range(len(X))]
        return self._crafted(X, targets, np.full(len(X), eps), norm, rngs)

    def _crafted(self, X, targets, eps, norm, rngs) -> Crafted:
        """Images X (N, C, H, W) with radii `eps` (N,); one generator an image."""
        net = self.reference
        goal = np.array([self._drawn(rng, label) for rng, label in zip(rngs, targets)], int)
        clean = X.astype(net.dtype).reshape(1, len(X), 1, -1)
        eps = np.asarray(eps, net.dtype)[None]
        g = net.representation(self.X[goal]).astype(np.float64)
        size, shares = sizes(g), np.array([SCHEDULES[self.schedule](it / self.n_steps) for it in range(self.n_steps)])
        rates = shares * (2.5 / shares.sum() if self.step is None else self.step)

        def moved(delta):
            moved = clean + ball.project(delta, eps, norm).astype(net.dtype)
            return moved if net.box is None else np.clip(moved, *net.box)

        before, _ = distance_and_gradient(net, X, g, size, gradient=False)
        best, nearest = clean.copy(), before.copy()
        if self.random_start:
            draws = [ball.random_point(rng, clean.shape[2:], radius, norm) for rng, radius in zip(rngs, eps[0])]
            point = moved(np.stack(draws)[None].astype(net.dtype))
        else:
            point = clean
        for rate in [*rates, None]:
            distance, G = distance_and_gradient(net, point.reshape(X.shape), g, size, rate is not None)
            closer = distance < nearest
            best[0, closer], nearest[closer] = point[0, closer], distance[closer]
            if rate is not None:
                step = net.dtype.type(rate) * eps[..., None, None] * ball.steepest(G.reshape(clean.shape), norm)
                point = moved(point - clean - step)
        return Crafted(best.reshape(X.shape), goal, before, nearest)

    def _drawn(self, rng, label: int) -> int:
        some = np.flatnonzero(self.y == label)
        if len(some) == 0:
            raise ValueError(f"targets hold {label}: none of the {len(self.y)} images to aim at is of this class")
        return int(some[rng.integers(len(some))])

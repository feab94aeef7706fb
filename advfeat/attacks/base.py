"""The frame in which every attack runs, on any model of the protocol (`advfeat.core.model`).

An attack of one's own subclasses :class:`Attack` and writes `run`, which shows an :class:`AttackProblem` points; the
problem keeps each sample's best one, its margin, and what it cost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from ..core import ball, checks, objectives
from ..core.data import Data
from ..core.model import AnyData, Batch, Checked, Model, as_model
from ..core.progress import Progress, Stopwatch
from ..core.rng import stream
from ..core.runs import per_sample, run_seeds, spread_over_runs
from ..core.types import Array, BoolArray, Float64Array, FloatArray, IntArray, Rng
from ..kernels import formulas
from .threat import AttackResult, ThreatModel

CHUNK_BYTES = 2**24  # inputs worked on at a time; what a sample gets does not depend on it


def as_patches(X: FloatArray, patch_axis: int | None) -> FloatArray:
    """Samples (R, N, *S) -> (R, N, P, d): the patches along an axis of S, or with None the whole sample as one."""
    if patch_axis is None:
        return X.reshape(*X.shape[:2], 1, -1)
    return np.moveaxis(X, 2 + patch_axis, 2).reshape(*X.shape[:2], X.shape[2 + patch_axis], -1)


def as_samples(patches: FloatArray, shape: tuple[int, ...], patch_axis: int | None) -> FloatArray:
    """The way back, to samples of shape S."""
    if patch_axis is None:
        return patches.reshape(*patches.shape[:2], *shape)
    rest = [size for axis, size in enumerate(shape) if axis != patch_axis]
    return np.moveaxis(patches.reshape(*patches.shape[:3], *rest), 2, 2 + patch_axis)


class AttackProblem:
    """Some samples of every run under one threat, with their best points; arrays in the model's dtype.

    Attributes
    ----------
    model : Model
    X (R, n, P, d)
        The clean samples, patch by patch; where a sample is one patch, P = 1 and d its size (`sample_shape`).
    y, eps, targets (R, n)
    on (R, n) : bool
        False where a run has fewer samples and a place is only filled.
    sample (R, n)
        The samples' numbers, which key their random draws.
    clean (R, n, k)
        The logits of X.
    arrays, directions : what the data know of these samples, by name
    norm, budget, box : of the threat; a budget per patch for l_inf, where both are the same
    clock : when the attack must end (`core.progress`); `open` looks at it
    """

    def __init__(self, model: Model, held: Checked, X: FloatArray, eps: Float64Array, threat: ThreatModel,
                 targets: IntArray | None, seeds: list[int], columns: IntArray, on: BoolArray,
                 clean: Float64Array | None, clock: Stopwatch):  # fmt: skip
        def take(a: Array) -> Array:
            return a if self._whole else a[np.arange(len(a))[:, None], columns]

        self.model, self.seeds, self.sample, self.on, self.clock = model, seeds, columns, on, clock
        self.sample_shape: tuple[int, ...] = held.X.shape[2:]
        self._held, data, y = held, held.data, held.y
        self._whole = columns.shape == y.shape and (columns == np.arange(y.shape[1])).all()
        self.X: FloatArray = take(X)
        self.y: IntArray = take(y)
        self.eps: FloatArray = take(eps).astype(model.dtype)
        self.targets: IntArray | None = None if targets is None else take(targets)
        self.norm, self.box = threat.norm, box_of(threat, model)
        self.budget: ball.Budget = "patch" if threat.norm == "linf" else threat.budget
        self.arrays = {name: take(np.broadcast_to(a, X.shape[:2] + np.shape(a)[np.ndim(data.y):]))
                       for name, a in data.arrays.items()}  # fmt: skip
        self.directions = data.directions
        self.best_X: FloatArray = self.X.copy()
        self.best: Float64Array = np.where(on, np.inf, np.nan)
        self.iterations, self.gradient_calls, self.forward_calls = (np.zeros(on.shape, np.int64) for _ in range(3))
        self.restart, self.best_restart = 0, np.zeros(on.shape, np.int64)  # the start that is at work, and the best one
        self.clean: Float64Array
        self.clean = self.evaluate(self.X, on) if clean is None else np.where(on[..., None], take(clean), np.nan)
        if clean is not None:
            self.forward_calls += on
            self.keep(self.X, self.margin(self.clean), on)

    # -------------------------------------------------------------- what is known
    @property
    def open(self) -> BoolArray:
        """Samples that no point found so far breaks; none when the time is over, so that an attack that looks here at
        every step ends."""
        left = self.on & ~(self.best <= 0 if self.targets is None else self.best < 0)
        return np.zeros_like(left) if left.any() and self.clock.is_up() else left

    def margin(self, F: FloatArray) -> Float64Array:
        """(R, n) of logits F (R, n, k): what an attack makes small, F_y - max_{j != y} F_j or its targeted form."""
        return formulas.margin(F, self.y) if self.targets is None else -formulas.margin(F, self.targets)

    def keep(self, X: FloatArray, margin: Float64Array, on: BoolArray) -> None:
        """Points X with their margins, kept where they are the best of a sample `on`."""
        better = on & (margin < self.best)
        self.best[better], self.best_restart[better] = margin[better], self.restart
        if X is not self.X:  # where every sample begins
            self.best_X[better] = X[better]

    # -------------------------------------------------------------- what the model answers
    def prepare(self, X: FloatArray, on: BoolArray) -> Batch:
        """The points X (R, n, P, d) of the samples `on` as a batch that the model has prepared."""
        if self._whole and X is self.X:
            return self._held.some(self.model, on)
        shaped = as_samples(X, self.sample_shape, self.model.patch_axis)
        return self.model.prepare(np.ascontiguousarray(shaped), self.y, on)

    def evaluate(self, X: FloatArray, on: BoolArray) -> Float64Array:
        """F (R, n, k) of the samples `on`, whose points are kept where they are the best so far; NaN elsewhere."""
        F = self.model.logits_of(self.prepare(X, on))
        self.forward_calls += on
        self.keep(X, self.margin(F), on)
        return F

    def pull_back(self, X: FloatArray, C: FloatArray, on: BoolArray) -> FloatArray:
        """sum_i C[n, i] dF_i/dx at the points X, (R, n, P, d); 0 where not `on`."""
        self.gradient_calls += on
        pulled = self.model.pull_back_of(self.prepare(X, on), np.where(on[..., None], C, 0.0))
        return as_patches(pulled, self.model.patch_axis)

    def gradient(self, objective: objectives.Objective, X: FloatArray, F: FloatArray, on: BoolArray,
                 targets: IntArray | None = None) -> FloatArray:  # fmt: skip
        """The gradient of an objective of ``core.objectives`` at X, whose logits are F."""
        targets = self.targets if targets is None else targets
        return self.pull_back(X, objectives.gradient(objective, F, self.y, targets), on)

    # -------------------------------------------------------------- where points may lie
    def move(self, delta: FloatArray) -> FloatArray:
        """The clean inputs plus `delta` projected to the ball, clipped to the box."""
        moved = ball.project(delta, self.eps, self.norm, self.budget)
        moved = np.add(self.X, moved, out=moved if moved.dtype == self.X.dtype else None)
        return moved if self.box is None else np.clip(moved, *self.box, out=moved)

    def steepest(self, gradient: FloatArray, X: FloatArray) -> FloatArray:
        """Direction of steepest ascent at X; coordinates that could only leave the box do not count."""
        if self.box is not None:
            lo, hi = self.box
            gradient = np.where((gradient > 0) & (hi <= X) | (gradient < 0) & (lo >= X), 0, gradient)
        return ball.steepest(gradient, self.norm, self.budget)

    def step(self, X: FloatArray, move: FloatArray) -> FloatArray:
        """X + move, brought back into ball and box."""
        return self.move(X - self.X + move)

    def generator(self, restart: int, r: int, n: int) -> np.random.Generator:
        """Random numbers of one sample: keyed by seed, restart and the sample's number."""
        return stream(self.seeds[r], "attacks", restart + 1, int(self.sample[r, n]))

    def start(self, restart: int, on: BoolArray) -> FloatArray:
        """Random points of the balls, (R, n, P, d); the clean ones where not `on`."""
        delta = np.zeros(self.X.shape, self.X.dtype)
        for r, n in zip(*np.nonzero(on)):  # every sample has a generator of its own
            rng = self.generator(restart, r, n)
            delta[r, n] = ball.random_point(rng, self.X.shape[2:], self.eps[r, n], self.norm, self.budget)
        return self.move(delta)

    # -------------------------------------------------------------- whole loops of the model
    def radius_per_run(self) -> FloatArray | None:
        """eps (R,) where it is one number in every run, else None."""
        eps = self.eps[np.arange(len(self.on)), self.on.argmax(axis=1)]
        return eps if (self.on <= (self.eps == eps[:, None])).all() else None

    def offered(self, loop: str, objective: objectives.Objective) -> tuple[FloatArray, int, int] | None:
        """eps (R,), the kernel's objective and norm where the model has this loop and it fits the threat, else None.

        Loops take squares, which must not under- or overflow.
        """
        eps = self.radius_per_run()
        if loop not in self.model.capabilities or eps is None or objective not in checks.OBJECTIVES:
            return None
        if self.norm == "l2" and not ((eps == 0) | ball.squared(eps)).all():
            return None
        fits = self.norm in checks.NORMS and self.budget == "patch" and self.box is None and self.targets is None
        return (eps, checks.OBJECTIVES[objective], checks.NORMS[self.norm]) if fits else None


@dataclass(frozen=True)
class Attack(ABC):
    """An attack with its options as fields; call it with a model, data and a threat.

    Every attack computes in the precision of the model's verdicts, counts the clean input among its points, keeps each
    sample's point of smallest margin and rests where that is a success.  At eps = 0 it returns its input.

    A subclass writes `run`, and where there is something to refuse `check_options`, `check` or `check_clean`; `name`
    is what tables call the attack, `default_name` where none is given.
    """

    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        checks.instance("name", self.name, str, "a text")
        self.check_options()
        if not self.name:
            object.__setattr__(self, "name", self.default_name())

    def default_name(self) -> str:
        """The class's name in lower case."""
        return type(self).__name__.lower()

    # The next three are optional: most attacks check nothing of the kind, so they are empty and not abstract.
    def check_options(self) -> None:  # noqa: B027
        """Errors for options that are bad whatever the model."""

    def check(self, model: Model, data: Data, threat: ThreatModel) -> None:  # noqa: B027
        """Errors for a model, data or threat that this attack cannot work with."""

    def check_clean(self, problem: AttackProblem) -> None:  # noqa: B027
        """Errors that the clean logits decide."""

    @abstractmethod
    def run(self, problem: AttackProblem) -> None:
        """Show `problem` points: it keeps the best."""

    def __call__(
        self,
        model: Model,
        data: AnyData,
        threat: ThreatModel,
        rng: Rng = 0,
        *,
        active: ArrayLike | None = None,
        clean: Float64Array | None = None,
        progress: Progress | None = None,
        time_limit: float | None = None,
    ) -> AttackResult:
        """Attack samples of `data`: anything with X, y, arrays and directions (`core.data`), a pair (X, y), or what
        the model has `Checked` before.

        Parameters
        ----------
        rng : int, sequence of R ints, or Generator
            Draws are keyed by seed, restart and sample: they depend neither on the batch nor on other samples.  A
            generator gives every run a seed.
        active : bool (N,) or (R, N), optional
            The samples to attack; the others come back clean, with margin NaN.
        clean : float64 (R, N, k), optional
            The logits of the data, where they are known.
        progress, time_limit : optional
            As in :mod:`advfeat.core.progress`; what is left when the time is over keeps its best point until then.

        Raises
        ------
        ValueError, TypeError
            For data, shapes, labels, radii, targets or a box that do not fit, naming them.
        """
        if not isinstance(threat, ThreatModel):
            raise TypeError(f"threat = {checks.shown(threat)}: must be a ThreatModel")
        model = as_model(model).for_verdicts()
        held = Checked.of(model, data)
        X, y, shape = held.X, held.y, held.y.shape
        eps = per_sample("eps", threat.eps, shape, model.batched)
        targets = _check_targets(threat.targets, y, model)
        _check_box(box_of(threat, model), X)
        seeds = run_seeds(rng, model.n_runs)
        active = np.ones(shape, bool) if active is None else active
        active = spread_over_runs("active", active, shape, model.batched, np.bool_)
        self.check(model, held.data, threat)
        patches, clock = as_patches(X, model.patch_axis), Stopwatch(progress, time_limit)
        n, per_run = max(CHUNK_BYTES // patches[:, :1].nbytes, 1), active.sum(axis=1)

        def attacked(columns, on):
            problem = AttackProblem(model, held, patches, eps, threat, targets, seeds, columns, on, clean, clock)
            self.check_clean(problem)
            if not clock.is_up():
                self.run(problem)
            counts = problem.iterations, problem.gradient_calls, problem.forward_calls, problem.best_restart
            return problem.best_X, problem.best, *counts

        masked = active.all() or ("masks" in model.capabilities and 2 * active.sum() >= active.size)
        if masked and shape[1] <= n:  # as they stand: nothing is copied or laid out again
            best_X, margin, *counts = attacked(np.broadcast_to(np.arange(shape[1]), shape), active)
        else:  # active samples to the front, so many at a time
            best_X, margin, *counts = np.array(patches), np.full(shape, np.nan), *np.zeros((4, *shape), np.int64)
            order = np.argsort(~active, axis=1, kind="stable")[:, : per_run.max()]
            for lo in range(0, order.shape[1], n):
                columns = order[:, lo : lo + n]
                on = np.arange(lo, lo + columns.shape[1]) < per_run[:, None]
                at, kept = (np.arange(len(columns))[:, None], columns), ...
                if not on.all():
                    at, kept = (np.nonzero(on)[0], columns[on]), on
                for whole, part in zip((best_X, margin, *counts), attacked(columns, on)):
                    whole[at] = part[kept]
                clock.tell(self.name, min(lo + n, order.shape[1]) / order.shape[1])
        success = margin <= 0 if targets is None else margin < 0
        X_adv = as_samples(best_X, X.shape[2:], model.patch_axis)
        clock.tell(self.name, 1.0)
        arrays = map(model.drop_runs_axis, (X_adv, margin, success, *counts))
        return AttackResult(self.name, threat, *arrays, clock.timed_out)


def box_of(threat: ThreatModel, model: Model) -> tuple[float, float] | None:
    """The threat's box, or the model's where the threat names none; ValueError where it is wider than the model's."""
    if threat.box is None or model.box is None:
        return model.box if threat.box is None else threat.box
    if threat.box[0] < model.box[0] or threat.box[1] > model.box[1]:
        raise ValueError(f"box = {threat.box!r}: inputs of {model!r} must lie in {model.box!r}")
    return threat.box


def _check_targets(targets, y, model):
    if targets is None:
        return None
    targets = spread_over_runs("targets", targets, y.shape, model.batched, np.integer).astype(np.int64)
    k = model.n_classes
    if targets.min() < 0 or targets.max() >= k:
        raise ValueError(f"targets hold {targets[(targets < 0) | (targets >= k)][0]}: they must be in 0..{k - 1}")
    if (targets == y).any():
        raise ValueError(f"targets: must differ from the labels, but {int((targets == y).sum())} do not")
    return targets


def _check_box(box, X):
    if box is not None and (X.min() < box[0] or X.max() > box[1]):
        raise ValueError(f"box = {box!r}: the clean inputs must lie in it, but reach from {X.min():g} to {X.max():g}")

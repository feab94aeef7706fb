"""What an attacker may do, what an attack answers, and the frame in which every attack runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

from .. import checks
from ..data import PatchData
from ..kernels import reference
from ..network import PatchCNN
from ..rng import stream
from . import ball, objectives

CHUNK_BYTES = 2**24  # inputs worked on at a time; what a sample gets does not depend on it


@dataclass(frozen=True)
class ThreatModel:
    """The perturbations an attacker may choose from, and what counts as success.

    Parameters
    ----------
    norm : {"linf", "l2", "l1"}
    eps : float or array >= 0
        Radius: one number; (R,) for a batch of runs; or one per sample, (N,) for a single network or (R, N).
    budget : {"patch", "global"}
        Every patch has the radius eps, or the whole sample has; the same set for l_inf.
    box : (lo, hi), optional
        Inputs stay in [lo, hi]; the clean ones must lie in it.  Steps are projected to the ball, then clipped to the
        box.
    targets : int array (N,) or (R, N), optional
        Success then means F_t > max_{j != t} F_j; without targets it means F_y <= max_{j != y} F_j.
    """

    norm: str = "linf"
    eps: float | np.ndarray = 0.5
    budget: str = "patch"
    box: tuple[float, float] | None = None
    targets: np.ndarray | None = None

    def __post_init__(self):
        checks.choice("norm", self.norm, ball.NORMS)
        checks.choice("budget", self.budget, ball.BUDGETS)
        for one in np.asarray(self.eps, dtype=object).ravel().tolist():
            checks.number("eps", one, low=0)
        if self.box is not None:
            if np.shape(self.box) != (2,):
                raise ValueError(f"box = {self.box!r}: must be a pair (lo, hi)")
            lo, hi = (checks.number("box", side) for side in self.box)
            if not lo < hi:
                raise ValueError(f"box = {self.box!r}: must have lo < hi")


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What one attack reached; arrays (N,) for a single network, (R, N) for a batch.

    Attributes
    ----------
    X_adv : float64, like X with a runs axis for a batch
        Every sample's best point, the clean one included; the clean one where a sample was not attacked.
    margin : float64
        Of X_adv: F_y - max_{j != y} F_j, with targets max_{j != t} F_j - F_t; NaN where a sample was not attacked.
    success : bool
        margin <= 0 (a tie is an error); with targets margin < 0.
    iterations, gradient_calls, forward_calls : int
        Steps, input gradients and logits that the sample cost.  Fused kernels do not tell when a sample came to rest;
        their steps are counted in full.
    """

    attack: str
    threat: ThreatModel
    X_adv: np.ndarray
    margin: np.ndarray
    success: np.ndarray
    iterations: np.ndarray
    gradient_calls: np.ndarray
    forward_calls: np.ndarray


def per_sample(name, value, shape, batched, low=0) -> np.ndarray:
    """One number, one per run of a batch, or one per sample -> float64 (R, N)."""
    R, N = shape
    values = np.asarray(value, dtype=object)
    numbers = np.array([checks.number(name, v, low=low) for v in values.ravel().tolist()]).reshape(values.shape)
    if values.shape in ((), (1,)):
        return np.full(shape, numbers.reshape(()))
    if batched and values.shape == (R,):
        return np.repeat(numbers[:, None], N, axis=1)
    if values.shape == shape or (not batched and values.shape == (N,)):
        return numbers.reshape(shape)
    wanted = f"one per run ({R},) or one per sample {shape}" if batched else f"one per sample ({N},)"
    raise ValueError(f"{name} has shape {values.shape}: must be one number, {wanted}")


def spread_over_runs(name, value, shape, batched, kind):
    """An array (N,) or (R, N) of dtype `kind` -> (R, N)."""
    value = np.asarray(value)
    if not np.issubdtype(value.dtype, kind):
        raise TypeError(f"{name} has dtype {value.dtype}: must be {'bool' if kind is np.bool_ else 'integers'}")
    if value.shape != shape[1:] and value.shape != shape:
        raise ValueError(f"{name} has shape {value.shape}: must be ({shape[1]},)" + (f" or {shape}" if batched else ""))
    return np.broadcast_to(value, shape)


class Problem:
    """Some samples of every run under one threat, with their best points; all arrays float64 with a runs axis.

    X (R, n, P, d), y, eps, targets (R, n); on (R, n): False where a run has fewer samples and a place is only filled;
    sample (R, n): the samples' numbers, which key their random draws.
    """

    def __init__(self, net, X, y, eps, threat, targets, seeds, columns, on, data):
        def take(a):
            return np.take_along_axis(a, columns.reshape(columns.shape + (1,) * (a.ndim - 2)), 1)

        self.net, self.threat, self.seeds, self.sample, self.on = net, threat, seeds, columns, on
        self.X, self.y, self.eps = take(X), take(y), take(eps)
        self.targets = None if targets is None else take(targets)
        self.norm, self.box = threat.norm, threat.box
        self.budget = "patch" if threat.norm == "linf" else threat.budget
        self.features = None if data is None else data.features
        if data is not None:
            runs = X.shape[:3]
            self.robust, self.strength = (take(np.broadcast_to(a, runs)) for a in (data.robust, data.strength))
        self.best_X, self.best = self.X.copy(), np.where(on, np.inf, np.nan)
        self.iterations, self.gradient_calls, self.forward_calls = (np.zeros(on.shape, np.int64) for _ in range(3))
        self.clean = self.evaluate(self.X, on)

    @property
    def open(self):
        """Samples that no point found so far breaks."""
        return self.on & ~(self.best <= 0 if self.targets is None else self.best < 0)

    def margin(self, F):
        return reference.margin(F, self.y) if self.targets is None else -reference.margin(F, self.targets)

    def keep(self, X, margin, on):
        better = on & (margin < self.best)
        self.best[better], self.best_X[better] = margin[better], X[better]

    def evaluate(self, X, on):
        """F (R, n, k) of the samples `on`, whose points are kept where they are the best so far; NaN elsewhere."""
        batch = self.net.pack(np.ascontiguousarray(X), self.y, on)
        F = self.net.engine.logits(self.net.weights, batch, self.net.q, self.net.rho)
        self.forward_calls += on
        self.keep(X, self.margin(F), on)
        return F

    def pull_back(self, X, C, on):
        """sum_i C[n, i] dF_i/dx at the points X, (R, n, P, d); 0 where not `on`."""
        self.gradient_calls += on
        C, batch = np.where(on[..., None], C, 0.0), self.net.pack(np.ascontiguousarray(X), self.y, on)
        return self.net.engine.pull_back(self.net.weights, batch, self.net.q, self.net.rho, C)

    def gradient(self, objective, X, F, on, targets=None):
        """The objective's gradient at X, whose logits are F."""
        targets = self.targets if targets is None else targets
        return self.pull_back(X, objectives.gradient(objective, F, self.y, targets), on)

    def move(self, delta):
        """The clean inputs plus `delta` projected to the ball, clipped to the box."""
        moved = self.X + ball.project(delta, self.eps, self.norm, self.budget)
        return moved if self.box is None else np.clip(moved, *self.box)

    def steepest(self, gradient, X):
        """Direction of steepest ascent at X; coordinates that could only leave the box do not count."""
        if self.box is not None:
            lo, hi = self.box
            gradient = np.where((gradient > 0) & (hi <= X) | (gradient < 0) & (lo >= X), 0, gradient)
        return ball.steepest(gradient, self.norm, self.budget)

    def step(self, X, move):
        """X + move, brought back into ball and box."""
        return self.move(X - self.X + move)

    def generator(self, restart, r, n):
        """Random numbers of one sample: keyed by seed, restart and the sample's number."""
        return stream(self.seeds[r], "attacks", restart + 1, int(self.sample[r, n]))

    def start(self, restart, on):
        """Random points of the balls, (R, n, P, d); the clean ones where not `on`."""
        delta = np.zeros(self.X.shape)
        for r, n in zip(*np.nonzero(on)):
            rng = self.generator(restart, r, n)
            delta[r, n] = ball.random_point(rng, self.X.shape[2:], self.eps[r, n], self.norm, self.budget)
        return self.move(delta)

    def radius_per_run(self):
        """eps (R,) where it is one number in every run, else None."""
        eps = self.eps[np.arange(len(self.on)), self.on.argmax(axis=1)]
        return eps if (self.on <= (self.eps == eps[:, None])).all() else None

    def fused(self, objective):
        """eps (R,), the kernel's objective and norm where the engine's own loops fit this threat, else None.

        They take squares, which must not under- or overflow.
        """
        eps = self.radius_per_run()
        if self.norm == "l2" and eps is not None and not ((eps == 0) | ball.squared(eps)).all():
            return None
        fits = self.norm in checks.NORMS and self.budget == "patch" and self.box is None and self.targets is None
        if not fits or eps is None or objective not in checks.OBJECTIVES:
            return None
        return eps, checks.OBJECTIVES[objective], checks.NORMS[self.norm]


@dataclass(frozen=True)
class Attack(ABC):
    """An attack with its options as fields; call it with a network, data and a threat.

    Every attack computes in float64, counts the clean input among its points, keeps each sample's point of smallest
    margin and rests where that is a success.  At eps = 0 it returns its input.
    """

    name: str = field(default="", kw_only=True)

    def __post_init__(self):
        self._check_options()
        if not self.name:
            object.__setattr__(self, "name", self._name())

    @abstractmethod
    def _name(self) -> str:
        """The name where none is given."""

    # The next three are optional: most attacks check nothing of the kind, so they are empty and not abstract.
    def _check_options(self) -> None:  # noqa: B027
        """Errors for options that are bad whatever the network."""

    def _check(self, net, data, threat) -> None:  # noqa: B027
        """Errors for a network, data or threat that this attack cannot work with."""

    def _check_clean(self, problem) -> None:  # noqa: B027
        """Errors that the clean logits decide."""

    @abstractmethod
    def _attack(self, problem: Problem) -> None:
        """Show `problem` points: it keeps the best."""

    def __call__(self, net: PatchCNN, data, threat: ThreatModel, rng=0, *, active=None) -> AttackResult:
        """Attack samples of `data`, a PatchData or a pair (X, y).

        Parameters
        ----------
        rng : int, sequence of R ints, or Generator
            Draws are keyed by seed, restart and sample: they depend neither on the batch nor on other samples.  A
            generator gives every run a seed.
        active : bool (N,) or (R, N), optional
            The samples to attack; the others come back clean, with margin NaN.

        Raises
        ------
        ValueError, TypeError
            For data, shapes, labels, radii, targets or a box that do not fit, naming them.
        """
        if not isinstance(threat, ThreatModel):
            raise TypeError(f"threat = {threat!r}: must be a ThreatModel")
        net = net.astype(np.float64)
        known = data if isinstance(data, PatchData) else None
        X, y = (data.X, data.y) if known is not None else _pair_of(data)
        X, y = net.check(X, y)
        shape = (net.n_runs, X.shape[1])
        X, y = np.broadcast_to(X, (*shape, *X.shape[2:])), np.broadcast_to(y, shape)
        eps = per_sample("eps", threat.eps, shape, net.batched)
        targets = _check_targets(threat.targets, y, net)
        _check_box(threat.box, X)
        seeds = run_seeds(rng, net.n_runs)
        active = np.ones(shape, bool) if active is None else active
        active = spread_over_runs("active", active, shape, net.batched, np.bool_)
        self._check(net, known, threat)
        best_X, margin = np.array(X), np.full(shape, np.nan)
        counts = np.zeros((3, *shape), np.int64)
        n = max(CHUNK_BYTES // X[:, :1].size // 8, 1)
        per_run = active.sum(axis=1)
        order = np.argsort(~active, axis=1, kind="stable")[:, : per_run.max()]  # active samples to the front
        for lo in range(0, order.shape[1], n):
            columns = order[:, lo : lo + n]
            on = np.arange(lo, lo + columns.shape[1]) < per_run[:, None]
            problem = Problem(net, X, y, eps, threat, targets, seeds, columns, on, known)
            self._check_clean(problem)
            self._attack(problem)
            at = (np.arange(len(columns))[:, None].repeat(columns.shape[1], 1)[on], columns[on])
            best_X[at], margin[at] = problem.best_X[on], problem.best[on]
            for count, of in zip(counts, (problem.iterations, problem.gradient_calls, problem.forward_calls)):
                count[at] = of[on]
        success = margin <= 0 if targets is None else margin < 0
        return AttackResult(self.name, threat, *map(net.answer, (best_X, margin, success, *counts)))


def run_seeds(rng, n_runs: int) -> list[int]:
    """One seed per run; a generator draws them."""
    if isinstance(rng, np.random.Generator):
        return rng.integers(2**63, size=n_runs).tolist()
    return checks.seeds(rng, n_runs, "rng")


def _pair_of(data):
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(f"data is a {type(data).__name__}: must be a PatchData or a pair (X, y)")
    return data


def _check_targets(targets, y, net):
    if targets is None:
        return None
    targets = spread_over_runs("targets", targets, y.shape, net.batched, np.integer).astype(np.int64)
    k = net.shape[0]
    if targets.min() < 0 or targets.max() >= k:
        raise ValueError(f"targets hold {targets[(targets < 0) | (targets >= k)][0]}: they must be in 0..{k - 1}")
    if (targets == y).any():
        raise ValueError(f"targets: must differ from the labels, but {int((targets == y).sum())} do not")
    return targets


def _check_box(box, X):
    if box is not None and (X.min() < box[0] or X.max() > box[1]):
        raise ValueError(f"box = {box!r}: the clean inputs must lie in it, but reach from {X.min():g} to {X.max():g}")

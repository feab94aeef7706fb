"""What an attacker may do, and what an attack answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..core import ball, checks
from ..core.records import line, record
from ..core.types import BoolArray, Float64Array, FloatArray, IntArray, PerSample


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

    norm: ball.Norm = "linf"
    eps: PerSample = 0.5
    budget: ball.Budget = "patch"
    box: tuple[float, float] | None = None
    targets: ArrayLike | None = None

    def __post_init__(self) -> None:
        checks.choice("norm", self.norm, ball.NORMS)
        checks.choice("budget", self.budget, ball.BUDGETS)
        radii = np.asarray(self.eps, dtype=object).ravel().tolist()
        for one in radii:
            checks.number("eps", one, low=0)
        if not radii:
            raise ValueError(f"eps = {self.eps!r}: must be one number or more")
        if self.box is not None:
            checks.box(self.box)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ThreatModel):
            return NotImplemented
        return all(np.array_equal(mine, getattr(other, name)) for name, mine in vars(self).items())

    __repr__ = line

    def __hash__(self) -> int:
        return hash((self.norm, self.budget, self.box if self.box is None else tuple(self.box)))


@record
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
    restart : int
        The start, of those that an attack has, from which it reached X_adv; 0 where it has one or none.
    timed_out : bool
        The time limit ended the attack; X_adv and margin are the best until then.
    """

    attack: str
    threat: ThreatModel
    X_adv: FloatArray
    margin: Float64Array
    success: BoolArray
    iterations: IntArray
    gradient_calls: IntArray
    forward_calls: IntArray
    restart: IntArray
    timed_out: bool = False

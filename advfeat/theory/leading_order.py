"""Leading-order feature learning of one class (Lemma D.8, D.22, 5.2): step by step, in closed form, and as a flow.

The correlations A_s = <w_{i,s}, u_i>, B_s = <w_{i,s}, v_i> of one class, all others taken as zero, so that the other
classes' logits are zero too:

    A_s += (lr / k) (1 - logit) P_R  sigma'(a~ A_s) a~,     a~ = max(alpha - min(eps, ascent_lr sum_s sigma'(alpha A_s) A_s), 0),
    B_s += (lr / k) (1 - logit) P_NR sigma'(b~ B_s) b~,     b~ likewise from beta and B; in standard training a~ = alpha, b~ = beta,
    1 - logit = (k-1) / (k-1 + e^F),                        F = sum_s P_R sigma(a~ A_s) + P_NR sigma(b~ B_s).

With the polynomial part alone, sigma'(z) = (z / rho)_+^(q-1), the first line is A_s += (lr / k) (1 - logit) rho^(1-q)
P_R a~^q (A_s)_+^(q-1), as in the lemmas; with the true sigma' (clipped at 1) it is Lemma 5.1 without off-diagonals.
"""  # noqa: E501

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from .. import checks
from .timing import Flow, Point, flow_time, log_flow_time, log_growth_rate, numbers

RULES = {name: {"above": 0} for name in ("alpha", "beta", "rho", "lr")}
RULES |= {name: {"low": 0} for name in ("ascent_lr", "eps")}
RULES |= {name: {"low": 2, "whole": True} for name in ("n_classes", "q")}
RULES |= {name: {"low": 0, "whole": True} for name in ("n_robust", "n_nonrobust")}
FEATURES = {"A": ("alpha", "n_robust"), "B": ("beta", "n_nonrobust")}
NEVER = 1e300  # iterations


class Recursion(NamedTuple):
    """Recorded iterations (n,) and A, B (n, ..., m) there."""

    iteration: np.ndarray
    A: np.ndarray
    B: np.ndarray


@dataclass(frozen=True, eq=False)
class LeadingOrder:
    """The theory's parameters, each a number or an array that broadcasts against the leading axes of A and B.

    n_classes k >= 2; alpha, beta > 0 constant strengths; n_robust P_R, n_nonrobust P_NR >= 0 patches; integer q >= 2;
    rho > 0; lr > 0; ascent_lr, eps >= 0, or both None for standard training.  polynomial: whether sigma'(z) is
    (z / rho)_+^(q-1) everywhere (the lemmas) or the smoothed ReLU's.

    States are A, B (..., m), float64, finite, of any sign: m neurons; leading axes are points (seeds, strengths ...).
    Nonpositive entries never move.  Points do not see each other: a batch has the bits of its points alone.
    Times are in iterations.

    Raises
    ------
    ValueError : a parameter breaks its rule, or shapes do not fit.
    """

    n_classes: Any
    alpha: Any
    beta: Any
    n_robust: Any
    n_nonrobust: Any
    q: Any
    rho: Any
    lr: Any
    ascent_lr: Any = None
    eps: Any = None
    polynomial: bool = True

    def __post_init__(self):
        if (self.ascent_lr is None) != (self.eps is None):
            raise ValueError(
                f"ascent_lr = {self.ascent_lr!r}, eps = {self.eps!r}: must both be given, or both be None (standard)"
            )
        for name in self._given():
            numbers(name, getattr(self, name), **RULES[name])
        checks.choice("polynomial", self.polynomial, (True, False))

    def _given(self):
        return [name for name in RULES if self.ascent_lr is not None or name not in ("ascent_lr", "eps")]

    def _points(self, A, B, *others):
        """Leading shape, parameters (n, 1), A and B (n, m) and others (n,) of n points."""
        A, B = numbers("A", A), numbers("B", B)
        if A.ndim == 0 or B.ndim == 0 or A.shape[-1] != B.shape[-1] or 0 in A.shape + B.shape:
            raise ValueError(f"A, B have shapes {A.shape}, {B.shape}: must be (..., m), same m >= 1, no axis empty")
        p = {name: np.asarray(getattr(self, name), np.float64) for name in self._given()}
        shapes = {"A": A.shape[:-1], "B": B.shape[:-1]} | {name: value.shape for name, value in p.items()}
        shapes |= {name: value.shape for name, value in others}
        try:
            lead = np.broadcast_shapes(*shapes.values())
        except ValueError:
            raise ValueError(f"leading axes {shapes}: must broadcast against each other") from None

        def flat(x, *tail):
            return np.ascontiguousarray(np.broadcast_to(x, (*lead, *tail))).reshape(-1, *(tail or (1,)))

        columns = SimpleNamespace(**{name: flat(value) for name, value in p.items()}, polynomial=self.polynomial)
        m = A.shape[-1]
        return lead, columns, flat(A, m), flat(B, m), *(flat(value)[:, 0] for _, value in others)

    def growth_rate(self, feature: str) -> np.ndarray:
        """kappa of "A" or "B", per iteration, while logit = 1/k and nothing is taken away: timing.growth_rate."""
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(self._log_growth_rate(feature))

    def _log_growth_rate(self, feature, p=None):
        checks.choice("feature", feature, tuple(FEATURES))
        p = self if p is None else p
        names = (*FEATURES[feature], "n_classes", "q", "rho", "lr")
        return log_growth_rate(*(np.asarray(getattr(p, name), np.float64) for name in names))

    def rates(self, A, B) -> tuple[np.ndarray, np.ndarray]:
        """One iteration's (dA, dB), (..., m) each, in the units of a weight: the formulas of the module."""
        lead, p, A, B = self._points(A, B)
        return tuple(d.reshape(*lead, -1) for d in _rates(p, A, B))

    def recursion(self, A0, B0, n_iter: int, record_every: int = 1) -> Recursion:
        """n_iter steps of `rates`, all points at once; recorded at 0, every `record_every` iterations and at n_iter.

        Returns
        -------
        Recursion : iteration (n,), A and B (n, ..., m).
        """
        checks.integer("n_iter", n_iter, 0)
        checks.integer("record_every", record_every, 1)
        lead, p, A, B = self._points(A0, B0)
        at = sorted({*range(0, n_iter + 1, record_every), n_iter})
        kept = [(A, B)]
        for t in range(1, n_iter + 1):
            dA, dB = _rates(p, A, B)
            A, B = A + dA, B + dB
            if t == at[len(kept)]:
                kept.append((A, B))
        A, B = (np.stack(values).reshape(len(at), *lead, -1) for values in zip(*kept))
        return Recursion(np.array(at), A, B)

    def until(self, A0, B0, feature: str, level, max_iter: int) -> np.ndarray:
        """Iterations of `recursion` until max_s of `feature` ("A" or "B") is at `level` (> 0, broadcasts).

        Before it starts it knows a lower bound.  As 1 - logit <= 1 - 1/k, a~ <= alpha and sigma' <= its polynomial
        part, each step is at most the Euler step of the convex x' = kappa x^(q-1); such steps never overtake that flow;
        so flow_time(max_s start, level, kappa, q) iterations are needed at least.

        Returns
        -------
        float64 (...): whole iterations; inf where the level is not reached within max_iter, or never (nothing positive,
        no patches, everything frozen).

        Raises
        ------
        ValueError : the bound is finite and larger than max_iter somewhere; says how many iterations it takes.
        """
        checks.integer("max_iter", max_iter, 0)
        lead, p, A, B, level = self._points(A0, B0, ("level", numbers("level", level, above=0)))
        start = (A if feature == "A" else B).max(axis=-1)
        log_kappa = self._log_growth_rate(feature, p)[:, 0]
        bound = log_flow_time(start, level, log_kappa, p.q[:, 0])
        late = np.isfinite(bound) & (bound > np.log(max(max_iter, 1e-300)) + 1e-9)
        if late.any():
            worst = int(np.where(late, bound, -np.inf).argmax())
            needed = np.exp(min(bound[worst], 709))
            raise ValueError(
                f"max_iter = {max_iter}: {late.sum()} of {late.size} points need more; {feature} from "
                f"{start[worst]:.4g} to level = {level[worst]:.4g} takes at least {needed:.4g} iterations; "
                "use flow instead"
            )
        answer, going, moving = np.full(len(A), np.inf), np.arange(len(A)), bound < np.inf
        for t in range(max_iter + 1):
            reached = (A if feature == "A" else B).max(axis=-1) >= level
            answer[going[reached]] = t
            stay = moving & ~reached
            if not stay.all():
                going, level, A, B = going[stay], level[stay], A[stay], B[stay]
                p = _take(p, stay)
            if not len(going) or t == max_iter:
                break
            dA, dB = _rates(p, A, B)
            moving = ((A + dA != A) | (B + dB != B)).any(axis=-1)  # a state that stays once stays for ever
            A, B = A + dA, B + dB
        return answer.reshape(lead)

    def take_off_time(self, feature: str, x0, level) -> np.ndarray:
        """Predicted iterations of "A" or "B" from x0 to `level` with the logit held at 1/k: flow_time of its kappa.

        x0 is the class's largest correlation at the start (drawn, or from Lemma B.1); x0, level > 0 broadcast against
        the parameters.  For the flow it is exact while F and what the ascent takes stay small, and early otherwise.
        """
        log_kappa = self._log_growth_rate(feature)
        numbers("x0", x0), flow_time(1.0, level, 1.0, self.q)  # checks
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(log_flow_time(x0, level, log_kappa, self.q))

    # ------------------------------------------------------------------ the flow
    def flow(self, A0, B0, t_end, rtol: float = 1e-10) -> Flow:
        """The continuous-time limit dA/dt, dB/dt = `rates` from t = 0 to t_end (a number), in iterations.

        Solved point by point in log-space and rescaled time (timing.Path), so starts of 1e-100 at q = 10 and times of
        1e90 are ordinary.  Keeps the dense solution (about 0.5 MB a point at m = 20); `passage_time` keeps nothing.
        `rtol` is the tolerance of log A, log B and log(1 + t / t0), t0 the time scale at the start.
        """
        lead, p, A, B = self._points(A0, B0)
        t_end, rtol = checks.number("t_end", t_end, above=0), checks.number("rtol", rtol, above=1e-13)
        return Flow(lead, t_end, [Point(p, i, A[i], B[i], t_end, rtol) for i in range(len(A))])

    def passage_time(self, A0, B0, feature: str, level, measure="max", t_end=NEVER, rtol: float = 1e-10) -> np.ndarray:
        """`flow(...).first_passage(feature, level, measure)`, iterations (...), stopping each point at its passage.

        Keeps nothing.  level > 0 broadcasts against the leading axes.
        """
        lead, p, A, B, level = self._points(A0, B0, ("level", numbers("level", level, above=0)))
        return self._passages(lead, p, A, B, lambda point: point.measured(feature, measure), np.log(level), t_end, rtol)

    def phase_two_time(self, A0, B0, t_end=NEVER, rtol: float = 1e-10) -> np.ndarray:
        """First time of the flow with ascent_lr sum_s sigma'(beta B_s) B_s >= beta / 2, iterations (...).

        The rule of plateau.phase_two_started; inf if it does not hold by t_end.

        Raises
        ------
        ValueError : standard training, which has no Phase II.
        """
        self._adversarial()
        lead, p, A, B = self._points(A0, B0)
        with np.errstate(divide="ignore"):
            target = np.log(p.beta / 2)[:, 0]
        return self._passages(lead, p, A, B, lambda point: point.taken, target, t_end, rtol)

    def phase_two_estimate(self, B0) -> np.ndarray:
        """Closed form beside `phase_two_time`: one neuron, from max_s B0 to (1/2)^(1/q) B*, in iterations.

        take_off_time of B to the level at which half of beta is taken away, (B*)^q = rho^(q-1) beta^(2-q) / ascent_lr
        (plateau.plateau).  Logit held at 1/k and b~ = beta until then, so for one neuron it is a lower bound of the
        flow's time; further neurons bring Phase II forward, which it does not see.
        """
        self._adversarial()
        lead, p, _, B = self._points(B0, B0)
        with np.errstate(divide="ignore"):
            log_level = ((p.q - 1) * np.log(p.rho) + (2 - p.q) * np.log(p.beta) - np.log(2 * p.ascent_lr)) / p.q
        with np.errstate(over="ignore", under="ignore"):
            level = np.exp(log_level)[:, 0]
            time = log_flow_time(B.max(axis=-1), level, self._log_growth_rate("B", p)[:, 0], p.q[:, 0])
            return np.where(level < np.inf, np.exp(time), np.inf).reshape(lead)

    def _adversarial(self):
        if self.ascent_lr is None:
            raise ValueError("ascent_lr = None: Phase II is of adversarial training; give ascent_lr and eps")

    @staticmethod
    def _passages(lead, p, A, B, measure, target, t_end, rtol):
        t_end, rtol = checks.number("t_end", t_end, above=0), checks.number("rtol", rtol, above=1e-13)
        times = [Point(p, i, A[i], B[i], t_end, rtol, (measure, target[i])).stop_time for i in range(len(A))]
        return np.reshape(times, lead)


# ------------------------------------------------------------------ the formulas (timing has them in logarithms)
def _take(p, rows):
    return SimpleNamespace(**{k: v if k == "polynomial" else v[rows] for k, v in vars(p).items()})


def _slope(z, p):
    """sigma'(z), by repeated products: the same bits for a point alone and in a batch, for one q and for many."""
    base = np.clip(z / p.rho, 0, None if p.polynomial else 1)
    slope = base
    for j in range(2, int(p.q.max(initial=2))):
        slope = np.where(j < p.q, slope * base, slope)
    return slope


def _left(strength, C, p):
    """What the ascent step leaves of a strength (n, 1)."""
    if not hasattr(p, "ascent_lr"):
        return strength
    total = (_slope(strength * C, p) * np.maximum(C, 0)).sum(axis=-1, keepdims=True)
    return np.maximum(strength - np.minimum(p.eps, p.ascent_lr * total), 0)


def _rates(p, A, B):
    """(dA, dB) of points (n, m)."""
    with np.errstate(all="ignore"):
        F, parts = 0, []
        for C, strength, n_patches in ((A, p.alpha, p.n_robust), (B, p.beta, p.n_nonrobust)):
            left = _left(strength, C, p)
            z = left * C
            slope = _slope(z, p)
            value = np.maximum(z, 0) * slope / p.q
            if not p.polynomial:
                value = np.where(z > p.rho, z - (p.rho - p.rho / p.q), value)
            F = F + np.where(n_patches > 0, n_patches * value.sum(axis=-1, keepdims=True), 0)
            parts.append((n_patches, left, slope))
        wrong = p.lr / p.n_classes / (1 + np.exp(F) / (p.n_classes - 1))  # lr / k (1 - logit), 0 where exp overflows
        return tuple(np.where(wrong * n * left > 0, wrong * n * left * slope, 0) for n, left, slope in parts)

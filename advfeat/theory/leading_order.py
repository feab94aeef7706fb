"""Leading-order feature learning of one class (Lemma D.8, D.22, 5.2): step by step, in closed form, and as a flow.

The correlations A_s = <w_{i,s}, u_i>, B_s = <w_{i,s}, v_i> of one class, all others taken as zero, so that the other
classes' logits are zero too:

    A_s += (lr / k) (1 - logit) P_R  sigma'(a~ A_s) a~,     a~ = max(alpha - min(eps, ascent_lr sum_s sigma'(alpha A_s) A_s), 0),
    B_s += (lr / k) (1 - logit) P_NR sigma'(b~ B_s) b~,     b~ likewise from beta and B; in standard training a~ = alpha, b~ = beta,
    1 - logit = (k-1) / (k-1 + e^F),                        F = sum_s P_R sigma(a~ A_s) + P_NR sigma(b~ B_s).

With the polynomial part alone, sigma'(z) = (z / rho)_+^(q-1), the first line is A_s += (lr / k) (1 - logit) rho^(1-q)
P_R a~^q (A_s)_+^(q-1), as in the lemmas; with the true sigma' (clipped at 1) it is Lemma 5.1 without off-diagonals.

What is left out is not zero in a drawn network: `LeadingOrder.neglected` measures it, every component of the weights
that is not the class's own, and says where the premise is met.
"""  # noqa: E501

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..core import checks
from ..core.records import line, record
from ..core.types import BoolArray, Float64Array, IntArray, PerPoint
from .timing import DEGREE, Flow, Measure, Point, Which, log_flow_time, log_growth_rate

RULES = {name: {"above": 0} for name in ("alpha", "beta", "rho", "lr")}
RULES |= {name: {"low": 0} for name in ("ascent_lr", "eps")}
RULES |= {"n_classes": {"low": 2, "whole": True}, "q": DEGREE}
RULES |= {name: {"low": 0, "whole": True} for name in ("n_robust", "n_nonrobust")}
FEATURES = {"A": ("alpha", "n_robust"), "B": ("beta", "n_nonrobust")}
NEVER = 1e300  # iterations


LATE, RIVALS = 0.1, 0.05  # up to where what is neglected counts as small; see `Neglected.small`


class Neglected(NamedTuple):
    """What the leading order leaves out of a class at a state, class by class (..., k); all 0 where it is exact.

    Attributes
    ----------
    rest : in adversarial training, the length of all that is not B in the weights of the neuron that leads in B, over
        the plateau B*: (sum_{f != v_i} <w, f>^2 + |w_orth|^2)^(1/2) / B*.  The ascent on a non-robust patch moves it
        along all of that, which takes ascent_lr sigma'(beta B) (rest B*)^2 off its preactivation.  With d = 2k there is
        no w_orth, and the other features still count.
    late : the share of Phase I that comes from it: 1 - t(0) / t(rest), t the time of one neuron from its B, y = B / B*,
        to Phase II, y^q = 1/2, integral of dy / (y^(q-1) (1 - y^q) (1 - y^q - rest^2 y^(q-2))^(q-1)); 1 where the
        neuron stops before.  With ten neurons, half of 88 classes (q = 3 and 5, d = 2k and 1000, rest 0.2 to 0.8) came
        within 0.02 of it, and those with late <= 0.1 at most by 0.085 late.
    rivals : log of the mean over j != i of e^{F_j} on the class's clean sample, from the other classes' correlations
        with u_i and v_i, with the true sigma: (k-1) e^rivals stands in the softmax where the leading order has k - 1.
    """

    rest: Float64Array
    late: Float64Array
    rivals: Float64Array

    __repr__, __eq__, __hash__ = line, object.__eq__, object.__hash__

    @property
    def small(self) -> BoolArray:
        """The premise, class by class: late <= 0.1, and rivals <= 0.05, which is the most that 1 - logit is off by."""
        return (self.late <= LATE) & (self.rivals <= RIVALS)


class LeadingOrderPath(NamedTuple):
    """Recorded iterations (n,) and A, B (n, ..., m) there."""

    iteration: IntArray
    A: Float64Array
    B: Float64Array

    __repr__, __eq__, __hash__ = line, object.__eq__, object.__hash__


@record
class LeadingOrder:
    """The theory's parameters, each a number or an array that broadcasts against the leading axes of A and B.

    n_classes k >= 2; alpha, beta > 0 constant strengths; n_robust P_R, n_nonrobust P_NR >= 0 patches; integer q in
    2..100; rho > 0; lr > 0; ascent_lr, eps >= 0, or both None for standard training.  polynomial: whether sigma'(z) is
    (z / rho)_+^(q-1) everywhere (the lemmas) or the smoothed ReLU's.

    States are A, B (..., m), float64, finite, of any sign: m neurons; leading axes are points (seeds, strengths ...).
    Nonpositive entries never move.  Points do not see each other: a batch has the bits of its points alone.
    Times are in iterations.

    Raises
    ------
    ValueError : a parameter breaks its rule, or shapes do not fit.
    """

    n_classes: PerPoint
    alpha: PerPoint
    beta: PerPoint
    n_robust: PerPoint
    n_nonrobust: PerPoint
    q: PerPoint
    rho: PerPoint
    lr: PerPoint
    ascent_lr: PerPoint | None = None
    eps: PerPoint | None = None
    polynomial: bool = True

    def __post_init__(self) -> None:
        if (self.ascent_lr is None) != (self.eps is None):
            raise ValueError(
                f"ascent_lr = {self.ascent_lr!r}, eps = {self.eps!r}: must both be given, or both be None (standard)"
            )
        for name in self._given():
            checks.numbers(name, getattr(self, name), **RULES[name])
        checks.choice("polynomial", self.polynomial, (True, False))

    def _given(self):
        return [name for name in RULES if self.ascent_lr is not None or name not in ("ascent_lr", "eps")]

    def _points(self, A, B, *others, names=("A0", "B0")):
        """Leading shape, parameters (n, 1), A and B (n, m) and others (n,) of n points."""
        A, B = map(checks.numbers, names, (A, B))
        if A.ndim == 0 or B.ndim == 0 or A.shape[-1] != B.shape[-1] or 0 in A.shape + B.shape:
            shapes = f"{', '.join(names)} have shapes {A.shape}, {B.shape}"
            raise ValueError(f"{shapes}: must be (..., m), same m >= 1, no axis empty")
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

    def growth_rate(self, feature: Which) -> Float64Array:
        """kappa of "A" or "B", per iteration, while logit = 1/k and nothing is taken away: timing.growth_rate."""
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(self._log_growth_rate(feature))

    def _log_growth_rate(self, feature, p=None):
        checks.choice("feature", feature, tuple(FEATURES))
        p = self if p is None else p
        names = (*FEATURES[feature], "n_classes", "q", "rho", "lr")
        return log_growth_rate(*(np.asarray(getattr(p, name), np.float64) for name in names))

    def rates(self, A: ArrayLike, B: ArrayLike) -> tuple[Float64Array, Float64Array]:
        """One iteration's (dA, dB), (..., m) each, in the units of a weight: the formulas of the module."""
        lead, p, A, B = self._points(A, B, names=("A", "B"))
        dA, dB = (d.reshape(*lead, -1) for d in _rates(p, A, B))
        return dA, dB

    def neglected(self, phi: ArrayLike, gram: ArrayLike | None = None) -> Neglected:
        """What the leading order leaves out at correlations `phi` (..., k, m, 2k), u_1..u_k first: `Neglected`.

        gram : H (..., k m, k m) of the parts orthogonal to all features, as in `State`; None: there are none, d = 2k.
        All classes of a point share its parameters, which broadcast against the leading axes and a last one of 1.
        """
        phi = checks.numbers("phi", phi)
        k = phi.shape[-3] if phi.ndim > 2 else 0
        if phi.ndim < 3 or phi.shape[-1] != 2 * k or (np.asarray(self.n_classes) != k).any():
            raise ValueError(f"phi has shape {phi.shape}: must be (..., k, m, 2k), k = n_classes = {self.n_classes!r}")
        m, (u, v) = phi.shape[-2], np.split(np.moveaxis(phi, -1, -3), 2, axis=-3)  # (..., feature, class, neuron)
        square = (phi**2).sum(axis=-1)
        if gram is not None:
            gram = checks.numbers("gram", gram)
            if gram.shape != (*phi.shape[:-3], k * m, k * m):
                wanted = (*phi.shape[:-3], k * m, k * m)
                raise ValueError(f"gram has shape {gram.shape}: must be {wanted} for phi of shape {phi.shape}")
            square = square + np.einsum("...aa->...a", gram).reshape(square.shape)
        p = {name: np.asarray(getattr(self, name), np.float64) for name in self._given()}
        F = 0.0
        for C, strength, n in ((u, p["alpha"], p["n_robust"]), (v, p["beta"], p["n_nonrobust"])):
            z = np.maximum(strength[..., None, None] * C, 0)
            q, rho = p["q"][..., None, None], p["rho"][..., None, None]
            sigma = np.where(z > rho, z - (rho - rho / q), rho / q * np.minimum(z / rho, 1) ** q)
            F = F + n[..., None] * sigma.sum(axis=-1)  # (..., i, j): class j on the clean sample of class i
        F = np.where(np.eye(k, dtype=bool), -np.inf, F)
        rivals = np.logaddexp.reduce(F, axis=-1) - np.log(k - 1)
        if self.ascent_lr is None:
            return Neglected(np.zeros_like(rivals), np.zeros_like(rivals), rivals)
        B = np.einsum("...iis->...is", v)
        lead = B.argmax(axis=-1)[..., None]
        left = np.take_along_axis(square - B**2, lead, axis=-1)[..., 0]
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            star = np.exp(_log_plateau(**{name: p[name] for name in ("q", "rho", "beta", "ascent_lr")}))
            rest, start = np.sqrt(np.maximum(left, 0)) / star, B.max(axis=-1) / star
        return Neglected(rest, _late(rest, start, np.broadcast_to(p["q"], rest.shape)), rivals)

    def recursion(self, A0: ArrayLike, B0: ArrayLike, n_iter: int, record_every: int = 1) -> LeadingOrderPath:
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
        return LeadingOrderPath(np.array(at), A, B)

    def until(self, A0: ArrayLike, B0: ArrayLike, feature: Which, level: PerPoint, max_iter: int) -> Float64Array:
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
        lead, p, A, B, level = self._points(A0, B0, ("level", checks.numbers("level", level, above=0)))
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

    def take_off_time(self, feature: Which, x0: PerPoint, level: PerPoint) -> Float64Array:
        """Predicted iterations of "A" or "B" from x0 to `level` with the logit held at 1/k: flow_time of its kappa.

        x0 is the class's largest correlation at the start (drawn, or from Lemma B.1); x0, level > 0 broadcast against
        the parameters.  For the flow it is exact while F and what the ascent takes stay small, and early otherwise.
        """
        log_kappa = self._log_growth_rate(feature)
        checks.numbers("x0", x0), checks.numbers("level", level, above=0)
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(log_flow_time(x0, level, log_kappa, self.q))

    # ------------------------------------------------------------------ the flow
    def flow(self, A0: ArrayLike, B0: ArrayLike, t_end: float, rtol: float = 1e-10) -> Flow:
        """The continuous-time limit dA/dt, dB/dt = `rates` from t = 0 to t_end (a number), in iterations.

        Solved point by point in log-space and rescaled time (timing.Path), so starts of 1e-100 at q = 10 and times of
        1e90 are ordinary.  Keeps the dense solution (about 0.5 MB a point at m = 20); `passage_time` keeps nothing.
        `rtol` is the tolerance of log A, log B and log(1 + t / t0), t0 the time scale at the start.
        """
        lead, p, A, B = self._points(A0, B0)
        t_end, rtol = checks.number("t_end", t_end, above=0), checks.number("rtol", rtol, above=1e-13)
        return Flow(lead, t_end, [Point(p, i, A[i], B[i], t_end, rtol) for i in range(len(A))])

    def passage_time(self, A0: ArrayLike, B0: ArrayLike, feature: Which, level: PerPoint, measure: Measure = "max",
                     t_end: float = NEVER, rtol: float = 1e-10) -> Float64Array:  # fmt: skip
        """`flow(...).first_passage(feature, level, measure)`, iterations (...), stopping each point at its passage.

        Keeps nothing.  level > 0 broadcasts against the leading axes.
        """
        lead, p, A, B, level = self._points(A0, B0, ("level", checks.numbers("level", level, above=0)))
        return self._passages(lead, p, A, B, lambda point: point.measured(feature, measure), np.log(level), t_end, rtol)

    def phase_two_time(self, A0: ArrayLike, B0: ArrayLike, t_end: float = NEVER, rtol: float = 1e-10) -> Float64Array:
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

    def phase_two_estimate(self, B0: ArrayLike) -> Float64Array:
        """Closed form beside `phase_two_time`: one neuron, from max_s B0 to (1/2)^(1/q) B*, in iterations.

        take_off_time of B to the level at which half of beta is taken away, (B*)^q = rho^(q-1) beta^(2-q) / ascent_lr
        (plateau.plateau).  Logit held at 1/k and b~ = beta until then, so for one neuron it is a lower bound of the
        flow's time; further neurons bring Phase II forward, which it does not see.
        """
        self._adversarial()
        lead, p, _, B = self._points(B0, B0)
        with np.errstate(divide="ignore"):
            log_level = _log_plateau(p.q, p.rho, p.beta, 2 * p.ascent_lr)
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
def _log_plateau(q, rho, beta, ascent_lr):
    return ((q - 1) * np.log(rho) + (2 - q) * np.log(beta) - np.log(ascent_lr)) / q


def _late(rest, start, q, n=2000):
    """`Neglected.late` of starts y = B / B*, by the trapezoidal rule in log y; arrays of one shape."""
    moves = (start > 0) & (start**q < 0.5)
    q, rest, first = q[..., None], rest[..., None], np.log(np.where(moves, start, 0.5))[..., None]
    log_y = first + (-np.log(2) / q - first) * np.linspace(0, 1, n)
    with np.errstate(under="ignore", over="ignore", divide="ignore", invalid="ignore"):
        y = np.exp(log_y)
        left = 1 - y**q
        share = np.maximum(1 - rest**2 * y ** (q - 2) / left, 0) ** (q - 1)  # sigma' with the rest over without it
        time = np.exp((2 - q) * (log_y - first)) / left**q
        parts = (t[..., 1:] + t[..., :-1] for t in (time * (1 / share - 1), time))
        lost, whole = ((t * np.diff(log_y)).sum(axis=-1) for t in parts)
        found = np.where(np.isinf(lost), 1.0, lost / (whole + lost))
    return np.where(moves, found, 0.0)


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

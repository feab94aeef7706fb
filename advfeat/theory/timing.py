"""Times of growth: closed forms of x' = kappa x^(q-1), and an integrator for flows whose times span many decades.

The unit of every time is one training iteration, as a real number: kappa holds the learning rate, so one unit of the
flow is one Euler step of training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ..core import checks
from ..core.types import Float64Array, IntArray, PerPoint

Which = Literal["A", "B"]  # the feature: robust or non-robust
Measure = Literal["max", "q_sum"]
#: What is measured of the logarithms of a path's entries, (..., n) -> (...).
Measured: TypeAlias = Callable[[Float64Array], Float64Array]
#: The rule of q, a number or an array.
DEGREE = {"low": 2, "high": checks.LARGEST_DEGREE, "whole": True}


def _log(x):
    with np.errstate(divide="ignore"):
        return np.log(x)


def log_growth_rate(strength: PerPoint, n_patches: PerPoint, n_classes: PerPoint, q: PerPoint, rho: PerPoint,
                    lr: PerPoint) -> Float64Array:  # fmt: skip
    """log kappa of :func:`growth_rate`; -inf without patches.  No checks, no overflow."""
    k = np.asarray(n_classes, np.float64)
    return _log(lr) + np.log1p(-1 / k) - _log(k) + (1 - q) * _log(rho) + _log(n_patches) + q * _log(strength)


def growth_rate(strength: PerPoint, n_patches: PerPoint, n_classes: PerPoint, q: PerPoint, rho: PerPoint,
                lr: PerPoint) -> Float64Array:  # fmt: skip
    """kappa = (lr / k) (1 - 1/k) rho^(1-q) P s^q, the rate of a feature while the logit is 1/k (Lemma D.8).

    strength > 0 and n_patches >= 0 of the feature: alpha and P_R, or beta and P_NR; integers n_classes
    k >= 2, q in 2..100; rho, lr > 0; all broadcast.  Returns a float64 array (0-d for numbers) per iteration and per
    (unit of a weight)^(q-2).  Raises ValueError where a parameter breaks its rule.
    """
    strength = checks.numbers("strength", strength, above=0)
    n_patches = checks.numbers("n_patches", n_patches, low=0, whole=True)
    n_classes = checks.numbers("n_classes", n_classes, low=2, whole=True)
    q = checks.numbers("q", q, **DEGREE)
    rho, lr = checks.numbers("rho", rho, above=0), checks.numbers("lr", lr, above=0)
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(log_growth_rate(strength, n_patches, n_classes, q, rho, lr))


def log_flow_time(start: PerPoint, level: PerPoint, log_kappa: PerPoint, q: PerPoint) -> Float64Array:
    """log of :func:`flow_time`; inf where the level is never reached, -inf where it holds at the start.  No checks."""
    start, level, log_kappa, q = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (start, level, log_kappa, q)))
    with np.errstate(all="ignore"):
        near = level < 2 * start
        ratio = np.where(near, np.log1p((level - start) / start), np.log(level) - np.log(start))
        p = np.where(q > 2, q - 2, 1)
        gain = np.where(q > 2, -np.expm1(-p * ratio) / p, ratio)
        time = (2 - q) * np.log(start) - log_kappa + np.log(gain)
    return np.where(level <= start, -np.inf, np.where(start > 0, time, np.inf))


def flow_time(start: PerPoint, level: PerPoint, kappa: PerPoint, q: PerPoint) -> Float64Array:
    """Time in which x' = kappa x^(q-1) takes x from `start` to `level`, in iterations (sec. 6 of the notes; Lemma B.2).

        (start^(2-q) - level^(2-q)) / ((q-2) kappa),  for q = 2: log(level / start) / kappa.

    Computed from log(level / start), so it neither cancels for level close to start nor overflows on the way.

    Parameters
    ----------
    start : finite, any sign.
    level : > 0, in the units of `start`; np.inf gives the time of the blow-up (q > 2).
    kappa : >= 0, as :func:`growth_rate` gives it.
    q : integer in 2..100.  All broadcast.

    Returns
    -------
    float64 array (0-d for numbers)
        0 where level <= start; inf where start <= 0 or kappa = 0 (never), and where the time is larger than a float64.

    Raises
    ------
    ValueError : a parameter breaks its rule.
    """
    start, kappa = checks.numbers("start", start), checks.numbers("kappa", kappa, low=0)
    level = checks.float64("level", level)
    checks.numbers("level", np.where(level == np.inf, 1, level), above=0)
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(log_flow_time(start, level, _log(kappa), checks.numbers("q", q, **DEGREE)))


class Path:
    """One solution of x_s' = r_s x_s, x_s > 0, in log-space and rescaled time.

    With y_s = log x_s, t0 = 1 / sum_s r_s at the start and tau = log(1 + t / t0) the solver sees

        dy_s/ds = r_s h,  dtau/ds = h / (t + t0),  h = dt/ds = 1 / (sum_s r_s + 1 / (t + t0)),

    so that s is the sum of all logarithmic growth, of the x_s and of t + t0.  Every right-hand side lies in [0, 1],
    whatever the units, and is formed from log r_s: values of 1e-300 and times of 1e300 are ordinary.  The sum of the
    rates stands for the fastest because it is smooth; the share of t lets s go on where all rates fade (a plateau) and
    keeps the problem mild there.  Where no rate is left, x stays as it is.

    Times come with an absolute error of about `rtol` (t + t0): after a long wait, differences of times much shorter
    than the wait are lost (already to rounding).

    Parameters
    ----------
    log_rates : y (n,) -> log r_s (n,), -inf for no motion.  Rates must not be negative.
    y : (n,) logarithms of the start; n may be 0.
    t_end : end of the path, in the time unit of the rates.
    rtol : relative and absolute tolerance of y and tau.
    stop : optional (measure, target): ends the path when measure(y) has grown to the target, at `stop_time` (or inf).
    """

    def __init__(self, log_rates: Measured, y: ArrayLike, t_end: float, rtol: float,
                 stop: tuple[Measured, float] | None = None):  # fmt: skip
        from scipy.integrate import solve_ivp  # slow to load: not at every start of the library

        self.y: Float64Array = np.asarray(y, np.float64)
        self.steps: Sequence[Callable[[float], Float64Array]] | None = None
        self.stop_time = np.inf
        n = len(self.y)
        if stop is not None and n and stop[0](self.y) >= stop[1]:
            self.stop_time = 0.0
            return
        log_r = log_rates(self.y) if n else np.full(1, -np.inf)
        if log_r.max() == -np.inf:
            return
        self.log_t0: float = -np.logaddexp.reduce(log_r)
        tau_end = self._tau(t_end)

        def slope(s, state):
            log_r = log_rates(state[:n])
            total = np.logaddexp.reduce(log_r)
            if total == -np.inf:
                return np.append(np.zeros(n), 1.0)
            w = total + self.log_t0 + state[n]  # log of (t + t0) sum r
            share, rest = np.exp(-np.logaddexp(0, -w)), np.exp(-np.logaddexp(0, w))
            return np.append(np.exp(log_r - total) * share, rest)

        events = [lambda s, state: state[n] - tau_end]
        if stop is not None:
            events.append(lambda s, state: stop[0](state[:n]) - stop[1])
        for event in events:
            event.terminal, event.direction = True, 1
        state = np.append(self.y, 0.0)
        tolerance = {"rtol": rtol, "atol": rtol}
        with np.errstate(all="ignore"):
            found = solve_ivp(slope, (0, np.inf), state, "DOP853", dense_output=True, events=events, **tolerance)
        if found.status != 1:
            raise RuntimeError(f"the flow stopped at time {self._time(found.y[n, -1]):.6g}: {found.message}")
        self.s: Float64Array = found.sol.ts
        self.states: Float64Array = found.y.T
        self.steps = found.sol.interpolants
        if stop is not None and len(found.t_events[1]):
            self.stop_time = self._time(self.states[-1, -1])

    def _tau(self, t):
        with np.errstate(over="ignore", under="ignore"):
            z = _log(t) - self.log_t0
            return np.where(z < 30, np.log1p(np.exp(np.minimum(z, 30))), z + np.exp(-np.maximum(z, 30)))

    def _time(self, tau):
        with np.errstate(over="ignore", under="ignore"):
            return float(np.exp(self.log_t0 + tau + _log(-np.expm1(-tau))))

    def _first(self, values, target, measure):
        """The first state with measure(state) >= target; None if the path ends before."""
        from scipy.optimize import brentq

        reached = values >= target
        if not reached.any():
            return None
        i = int(reached.argmax())
        if i == 0:
            return self.states[0]
        step, low, high = self.steps[i - 1], self.s[i - 1], self.s[i]

        gap = lambda s: measure(step(s)) - target  # noqa: E731
        if gap(high) <= 0:
            return self.states[i]
        return step(low if gap(low) >= 0 else brentq(gap, low, high, xtol=1e-14, rtol=1e-14))

    def at(self, t: float) -> Float64Array:
        """y (n,) at time t in [0, t_end] (the end of the path if it stopped before)."""
        if self.steps is None:
            return self.y
        state = self._first(self.states[:, -1], self._tau(t), lambda state: state[-1])
        return (self.states[-1] if state is None else state)[:-1]

    def passage(self, measure: Measured, target: float) -> float:
        """First time with measure(y) >= target, inf if the path ends before; measure (..., n) -> (...) never falls."""
        if len(self.y) and measure(self.y) >= target:
            return 0.0
        if self.steps is None:
            return np.inf
        state = self._first(measure(self.states[:, :-1]), target, lambda state: measure(state[:-1]))
        return np.inf if state is None else self._time(state[-1])


class Point(Path):
    """The leading-order flow of one point: the logarithms of its positive entries and what is measured on them.

    p holds columns (n, 1) of the parameters of leading_order.LeadingOrder, of which row i counts; A, B (m,).
    """

    def __init__(self, p: SimpleNamespace, i: int, A: Float64Array, B: Float64Array, t_end: float, rtol: float,
                 stop: tuple[Callable[[Point], Measured], float] | None = None):  # fmt: skip
        self.p = SimpleNamespace(**{k: v if k == "polynomial" else float(v[i, 0]) for k, v in vars(p).items()})
        self.start: Float64Array = np.concatenate([A, B])
        self.entries: IntArray = np.flatnonzero(self.start > 0)
        self.n = int(np.searchsorted(self.entries, len(A)))
        stop = None if stop is None else (stop[0](self), stop[1])
        with np.errstate(all="ignore"):
            super().__init__(_log_rates(self.p, self.n), np.log(self.start[self.entries]), t_end, rtol, stop)

    def of(self, feature: Which, y: Float64Array) -> Float64Array:
        return y[..., : self.n] if feature == "A" else y[..., self.n :]

    def measured(self, feature: Which, measure: Measure) -> Measured:
        """log of max_s ("max") or of (sum_s (.)_+^q)^(1/q) ("q_sum") of "A" or "B", as a function of y."""
        checks.choice("feature", feature, ("A", "B"))
        if checks.choice("measure", measure, ("max", "q_sum")) == "max":
            return lambda y: np.max(self.of(feature, y), axis=-1, initial=-np.inf)
        return lambda y: np.logaddexp.reduce(self.p.q * self.of(feature, y), axis=-1) / self.p.q

    def taken(self, y: Float64Array) -> Float64Array:
        """log of ascent_lr sum_s sigma'(beta B_s) B_s."""
        y = self.of("B", y)
        return _log(self.p.ascent_lr) + np.logaddexp.reduce(_log_slope(np.log(self.p.beta) + y, self.p) + y, axis=-1)

    def state(self, t: float) -> list[Float64Array]:
        """A, B (m,) at time t."""
        value = self.start.copy()
        if t > 0:
            value[self.entries] *= np.exp(self.at(t) - self.y)  # an entry that never moved keeps its bits
        return np.split(value, 2)


class Flow:
    """Solutions of leading_order.LeadingOrder.flow for points of leading shape (...), from 0 to t_end iterations."""

    def __init__(self, lead: tuple[int, ...], t_end: float, points: list[Point]):
        self.lead, self.t_end, self.points = lead, t_end, points

    def _each(self, name, value, **rule):
        value = checks.numbers(name, value, **rule)
        try:
            shape = np.broadcast_shapes(value.shape, self.lead)
        except ValueError:
            raise ValueError(f"{name} has shape {value.shape}: must broadcast against {self.lead}") from None
        index = np.broadcast_to(np.arange(len(self.points)).reshape(self.lead), shape)
        return shape, [(self.points[i], x) for i, x in zip(index.ravel(), np.broadcast_to(value, shape).ravel())]

    def at(self, t: PerPoint) -> tuple[Float64Array, Float64Array]:
        """A, B (..., m) at times t in [0, t_end], iterations; t broadcasts against the leading axes (or adds some)."""
        shape, pairs = self._each("t", t, low=0)
        for _, x in pairs:
            if x > self.t_end:
                raise ValueError(f"t = {x:g}: must not lie behind t_end = {self.t_end!r}")
        A, B = zip(*(point.state(x) for point, x in pairs))
        return np.reshape(A, (*shape, -1)), np.reshape(B, (*shape, -1))

    def first_passage(self, feature: Which, level: PerPoint, measure: Measure = "max") -> Float64Array:
        """First time, in iterations, at which `feature` ("A" or "B") has grown to `level`; inf if not by t_end.

        measure: "max", max_s; or "q_sum", (sum_s (.)_+^q)^(1/q).  level > 0, in the units of a weight, broadcasts
        against the leading axes (or adds some in front).
        """
        shape, pairs = self._each("level", level, above=0)
        return np.reshape([point.passage(point.measured(feature, measure), np.log(x)) for point, x in pairs], shape)


def _log_slope(log_z, p):
    x = log_z - np.log(p.rho)
    return (p.q - 1) * (x if p.polynomial else np.minimum(x, 0))


def _log_rates(p, n):
    """y -> log of dy/dt, y the logarithms of one point's n entries of A and those of B: leading_order's rates."""
    log_rho, base = np.log(p.rho), np.log(p.lr) - np.log(p.n_classes)
    ascends = getattr(p, "ascent_lr", 0) > 0

    def rates(y):
        F, parts = 0.0, []
        for x, strength, n_patches in ((y[:n], p.alpha, p.n_robust), (y[n:], p.beta, p.n_nonrobust)):
            log_left = np.log(strength)
            if ascends:
                taken = p.ascent_lr * np.exp(_log_slope(log_left + x, p) + x).sum()
                log_left = np.log(max(strength - min(p.eps, taken), 0.0))
            log_z = log_left + x
            log_slope = _log_slope(log_z, p)
            value = np.exp(log_z + log_slope) / p.q
            if not p.polynomial:
                value = np.where(log_z > log_rho, np.exp(log_z) - (p.rho - p.rho / p.q), value)
            if n_patches and len(x):
                F += n_patches * value.sum()
            parts.append(np.log(n_patches) + log_left + log_slope - x)
        return base - np.logaddexp(0, F - np.log(p.n_classes - 1)) + np.concatenate(parts)

    return rates

"""Laboratory of the tensor power method (Li & Li 2025, Lemma B.2): of two sequences that grow like powers of
themselves, the one ahead leaves the other where it started.

    x_{t+1} = x_t + lr C_t x_t^(q-1),      y_{t+1} = y_t + lr S C_t y_t^(q-1),      q >= 3,

T is the first t with x_T >= level =: L.  The lemma: when x_0 >= y_0 S^(1/(q-2)) (1 + delta), y_T stays of y_0's order.
All numbers are dimensionless and float64; arrays of points broadcast.

What is proven
--------------
Write p = q - 2, tau_t = lr (C_0 + .. + C_{t-1}), and let 0 < C_t <= C for all t.

1. *Euler never overtakes the flow.*  u -> u^(-p) / p is convex and decreasing, so a step lowers it by at most
   lr C_t: x_t^(-p) >= x_0^(-p) - p tau_t.  Hence tau_T >= (x_0^(-p) - L^(-p)) / p, which bounds T from below, and
   y_T^(-p) >= y_0^(-p) - p S tau_T as long as the right side is positive.
2. *It does not lag by much.*  With r_t = lr C_t x_t^p = x_{t+1} / x_t - 1, a step lowers x^(-p) / p by at least
   lr C_t (1 + r_t)^-(q-1) >= lr C_t (1 - (q - 1) r_t).  Before T all r_t <= h := lr C L^p, so x_T <= (1 + h) L, and
   r_t <= (1 + h) log(x_{t+1} / x_t).  Summed over t < T,

       tau_T <= (x_0^(-p) - M^(-p)) / p + (q - 1) lr C (1 + h) log(M / x_0),      M := (1 + h) L.

3. Both together: y_T / y_0 <= (1 - E)^(-1/p) whenever E := p S y_0^p tau_T's upper bound < 1, that is

       E = S (y_0 / x_0)^p (1 - (x_0 / M)^p) + p (q - 1) S y_0^p lr C (1 + h) log(M / x_0).

   As lr -> 0 the second term vanishes; with x_0 = y_0 S^(1/p) (1 + delta) this is the bound of the flow,
   y_T / y_0 <= (1 - (1 + delta)^(-p))^(-1/p) = O(delta^(-1/p)), for every level.

Steps 1 to 3 ask for no small h and hold also for x_{t+1} >= .., y_{t+1} <= .. as in the lemma: both maps increase, so
such an x arrives no later and such a y is no larger.  They speak of exact arithmetic; the simulation rounds each step
to float64, a relative error of about 1e-16 per step.
"""

from collections.abc import Callable

import numpy as np

from ..core import checks
from ..core.records import record

TABLE = ("delta", "x0", "y0", "time", "flow_time", "x", "y", "ratio", "bound", "flow_bound")


@record
class TensorPower:
    """What `simulate` found; every field has the broadcast shape of the points.

    Attributes
    ----------
    time : int64
        T, the first t with x_t >= level; -1 where max_iter steps did not suffice.
    x, y, ratio : float64
        x_T, y_T and y_T / y_0; the values after max_iter steps where `time` is -1.  y is inf where it overflowed.
    delta : float64
        x_0 / (y_0 S^(1/(q-2))) - 1, the head start.
    premise : bool
        Whether x_0 >= y_0 S^(1/(q-2)) (1 + gap).
    """

    time: np.ndarray
    x: np.ndarray
    y: np.ndarray
    ratio: np.ndarray
    delta: np.ndarray
    premise: np.ndarray

    @property
    def reached(self) -> np.ndarray:
        """Whether x reached the level within max_iter steps, bool."""
        return self.time >= 0


def _points(above: float = 0, **named) -> list[np.ndarray]:
    """The arguments as float64 arrays of one shape; ValueError unless each number is finite and > `above`."""
    arrays = []
    for name, value in named.items():
        shape = np.shape(value)
        flat = np.ravel(np.asarray(value, object))
        arrays.append(checks.per_run(name, flat, flat.size, above=above).reshape(shape))
    try:
        return [np.array(a) for a in np.broadcast_arrays(*arrays)]
    except ValueError:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in zip(named, arrays))
        raise ValueError(f"shapes {shapes}: must broadcast to one") from None


def _growth(growth, growth_max) -> tuple[Callable[[int], float], float]:
    """C as a checked function of t, and its largest value."""
    if not callable(growth):
        growth = checks.number("growth", growth, above=0)
        if growth_max is not None and checks.number("growth_max", growth_max, above=0) < growth:
            raise ValueError(f"growth_max = {growth_max!r}: must be >= growth = {growth!r}")
        return lambda t: growth, growth
    if growth_max is None:
        raise ValueError("growth_max = None: must be a number >= every growth(t) where growth is a function")
    largest = checks.number("growth_max", growth_max, above=0)

    def at(t):
        value = checks.number(f"growth({t})", growth(t), above=0)
        if value > largest:
            raise ValueError(f"growth({t}) = {value!r}: must be <= growth_max = {largest!r}")
        return value

    return at, largest


def steps(x0, level, *, q: int, lr, growth_min: float = 1.0, growth_max: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(lower, upper) with lower <= T <= upper for growth_min <= C_t <= growth_max (points 1 and 2 above).

    lower = (x_0^(2-q) - L^(2-q)) / ((q-2) lr growth_max), the flow's time; upper is the bound on tau_T over
    lr growth_min.  Float64 of the broadcast shape, in steps, not rounded; both 0 where x0 >= level.

    Raises
    ------
    ValueError
        For q outside 3..100, numbers that are not finite and positive, growth_min > growth_max, shapes that do not
        broadcast.
    """
    p = checks.degree(q, 3) - 2
    x0, L, lr = _points(x0=x0, level=level, lr=lr)
    low, high = checks.number("growth_min", growth_min, above=0), checks.number("growth_max", growth_max, above=0)
    if low > high:
        raise ValueError(f"growth_min = {growth_min!r}: must be <= growth_max = {growth_max!r}")
    with np.errstate(over="ignore"):
        h = lr * high * L**p
        M = (1 + h) * L
        lower = x0**-p * (1 - (x0 / L) ** p) / (p * lr * high)
        upper = x0**-p * (1 - (x0 / M) ** p) / p + (q - 1) * lr * high * (1 + h) * np.log(M / x0)
    return np.where(x0 < L, lower, 0.0)[()], np.where(x0 < L, upper / (lr * low), 0.0)[()]


def flow_bound(delta, q: int):
    """(1 - (1+delta)^(2-q))^(-1/(q-2)): the most that y_T / y_0 is in the flow, whatever the level; inf at delta <= 0.

    `delta` > -1 of any shape, the head start in x_0 = y_0 S^(1/(q-2)) (1 + delta); q in 3..100.
    """
    p = checks.degree(q, 3) - 2
    (delta,) = _points(-1, delta=delta)
    rest = -np.expm1(-p * np.log1p(delta))
    with np.errstate(divide="ignore"):
        return (np.maximum(rest, 0.0) ** (-1 / p))[()]


def bound(x0, y0, *, q: int, S=1.0, lr, level, growth_max: float = 1.0):
    """An upper bound of y_T / y_0 that holds for these finite numbers: (1 - E)^(-1/(q-2)), E as in point 3 above.

    inf where E >= 1, where the proof says nothing; 1 where x0 >= level (T = 0).  Holds for every 0 < C_t <= growth_max.
    Arguments and errors as in `simulate`; float64 of the broadcast shape, dimensionless.
    """
    p = checks.degree(q, 3) - 2
    x0, y0, S, lr, L = _points(x0=x0, y0=y0, S=S, lr=lr, level=level)
    C = checks.number("growth_max", growth_max, above=0)
    with np.errstate(over="ignore", divide="ignore"):
        h = lr * C * L**p
        M = (1 + h) * L
        E = S * (y0 / x0) ** p * (1 - (x0 / M) ** p)
        E += p * (q - 1) * S * y0**p * lr * C * (1 + h) * np.log(M / x0)
        return np.where(x0 < L, np.maximum(1 - E, 0.0) ** (-1 / p), 1.0)[()]


def simulate(
    x0, y0, *, q: int, S=1.0, lr, level, growth=1.0, growth_max=None, gap: float = 0.0, max_iter: int = 1_000_000
) -> TensorPower:
    """Run both sequences until x >= level, all points side by side.

    Parameters
    ----------
    x0, y0, S, lr, level : float or arrays that broadcast, > 0
        One point each; a point that has arrived takes no more work.
    q : int in 3..100
        The activation's degree; the sequences grow with their (q-1)-th power.
    growth : float > 0, or a function of t that returns one
        C_t, the same for all points.  A function needs `growth_max`, a number that no C_t exceeds.
    gap : float >= 0
        The head start that `premise` asks for.
    max_iter : int >= 1
        The most steps to take.

    Raises
    ------
    ValueError
        For arguments against these rules, and, before any step, where even the flow needs more than `max_iter` steps.
    """
    p = checks.degree(q, 3) - 2
    x0, y0, S, lr, level = _points(x0=x0, y0=y0, S=S, lr=lr, level=level)
    C, largest = _growth(growth, growth_max)
    gap = checks.number("gap", gap, low=0)
    least = np.asarray(steps(x0, level, q=q, lr=lr, growth_min=largest, growth_max=largest)[0])
    late = least > checks.integer("max_iter", max_iter, 1)
    if late.any():
        raise ValueError(
            f"max_iter = {max_iter}: must be >= the flow's time, which no sequence beats; it is larger for "
            f"{late.sum()} of {late.size} points, up to {least.max():.4g}"
        )
    time = np.full(x0.size, -1, np.int64)
    x, y = x0.ravel().copy(), y0.ravel().copy()
    where = np.arange(x.size)  # the points still on their way: their x, y, lr, lr S, level
    a, b, rate, rate_y, L = x.copy(), y.copy(), lr.ravel(), (lr * S).ravel(), level.ravel()
    with np.errstate(over="ignore"):
        for t in range(max_iter + 1):
            done = a >= L
            if done.any() or t == max_iter:
                x[where], y[where] = a, b
                time[where[done]] = t
                where, a, b, rate, rate_y, L = (v[~done] for v in (where, a, b, rate, rate_y, L))
            if not where.size or t == max_iter:
                break
            c = C(t)
            a = a + c * rate * a ** (p + 1)
            b = b + c * rate_y * b ** (p + 1)
        head = x0 / (y0 * S ** (1 / p))
        x, y = x.reshape(x0.shape), y.reshape(x0.shape)
        return TensorPower(time.reshape(x0.shape), x, y, y / y0, head - 1, head >= 1 + gap)


def sweep(
    delta, *, q: int, S=1.0, y0=1e-2, lr=1e-2, level=1.0, growth=1.0, growth_max=None, max_iter: int = 1_000_000
) -> np.ndarray:
    """The race over the head start: x_0 = y_0 S^(1/(q-2)) (1 + delta) for `delta` > -1 and all else as in `simulate`.

    Returns a structured array of the broadcast shape with the fields of `TABLE`, float64: delta, x0, y0, time (T, or
    -1), flow_time (T's lower bound), x, y, ratio = y / y0, bound (`bound`) and flow_bound.
    """
    p = checks.degree(q, 3) - 2
    (delta,) = _points(-1, delta=delta)
    y0, S, lr, level = _points(y0=y0, S=S, lr=lr, level=level)
    try:
        delta, y0, S, lr, level = np.broadcast_arrays(delta, y0, S, lr, level)
    except ValueError:
        raise ValueError(f"delta has shape {delta.shape}: must broadcast with {y0.shape}, the other points") from None
    x0 = y0 * S ** (1 / p) * (1 + delta)
    found = simulate(
        x0, y0, q=q, S=S, lr=lr, level=level, growth=growth, growth_max=growth_max, max_iter=max_iter
    )  # fmt: skip
    largest = _growth(growth, growth_max)[1]
    table = np.empty(x0.shape, [(name, np.float64) for name in TABLE])
    flow_time = steps(x0, level, q=q, lr=lr, growth_min=largest, growth_max=largest)[0]
    limits = bound(x0, y0, q=q, S=S, lr=lr, level=level, growth_max=largest), flow_bound(delta, q)
    columns = delta, x0, y0, found.time, flow_time, found.x, found.y, found.ratio, *limits
    for name, column in zip(TABLE, columns):
        table[name] = column
    return table


# ------------------------------------------------------------------ after the power: B in the linear part
def late_bound(A: np.ndarray, gained: np.ndarray, c) -> np.ndarray:
    """The most that max_s A, once `A`, can be in standard training when max_s B, in the linear part, has gained
    `gained` since (Lemma D.10); `c` has the setting's numbers as attributes.

    There B gains (eta/k)(1 - logit) P_NR beta a step, while A gains at most (eta/k)(1 - logit) rho^(1-q) P_R alpha^q
    A^(q-1).  As A^(2-q) is convex, A(t)^(2-q) >= A^(2-q) - (q-2) rho^(1-q) P_R alpha^q gained / (P_NR beta).
    """
    rate = c.rho ** (1 - c.q) * c.n_robust * c.alpha**c.q / ((c.n_patches - c.n_robust) * c.beta)
    return np.maximum(A ** (2.0 - c.q) - (c.q - 2) * rate * gained, 0) ** (-1 / (c.q - 2))


def duration_bound(F1: np.ndarray, c) -> np.ndarray:
    """T2 - T1 - 1 of Lemma D.10 is less than this where F_y = F1 < 2 log k at T1; T2 = T1 elsewhere.

    One neuron in the linear part adds (eta/k)(1 - logit)(P_NR beta)^2 to F_y a step, and 1 - logit is at least
    (k-1)/(k-1+k^2) while F_y < 2 log k.
    """
    k, slope = c.n_classes, (c.n_patches - c.n_robust) * c.beta
    return np.maximum(2 * np.log(k) - F1, 0) / (c.lr / k * (k - 1) / (k - 1 + k**2) * slope**2)

"""The tools of the proofs: Lemma B.1, the largest of m Gaussian numbers; Lemma B.2, the tensor power method."""

import numpy as np
from scipy import stats

from ..reporting.pictures import NON_ROBUST, PAPER, ROBUST, Picture, band, interval, line, mark, points
from ..theory import gaussian_maximum, tensor_power
from .ledger import Check, Entry, Judgement
from .statistics import fit_exponent, spread, wilson

SURE = 1 - 1e-4  # confidence where many intervals are looked at together


# ------------------------------------------------------------------ Lemma B.1
DELTAS = np.array([0.1, 0.01])


def brute_maxima(m: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """The largest of m drawn Gaussian numbers, n times, without any formula for it."""
    chunk = max(1, 2_000_000 // m)
    parts = [rng.standard_normal((min(chunk, n - start), m)).max(axis=1) for start in range(0, n, chunk)]
    return np.concatenate(parts)


def seldom(events) -> float:
    """The lower end of the interval of how often something happens."""
    return wilson(events.sum(), len(events), SURE)[0]


def gaussian_maxima(lab):
    numbers = np.array([2, 3, 10, 30, 100, 1000, 10**4, 10**5, 10**6])
    budget, rng, t = 2e6 if lab.quick else 2e7, np.random.default_rng(lab.seed(1)), np.linspace(0.25, 3, 12)
    draws = [brute_maxima(m, int(np.clip(budget // m, 16, 2000)), rng) for m in numbers]
    upper, lower = (bound(DELTAS[:, None], numbers).value for bound in (
        gaussian_maximum.upper_bound, gaussian_maximum.lower_bound))  # fmt: skip
    mean = gaussian_maximum.mean(numbers)
    laws = [lambda x, m=m: gaussian_maximum.cdf(x, m) for m in numbers]
    return {
        "m": numbers, "n": np.array([len(d) for d in draws]),
        "quantiles": np.array([np.quantile(d, (0.05, 0.5, 0.95)) for d in draws]),
        "average": np.array([d.mean() for d in draws]),
        "p": np.array([stats.kstest(d, law).pvalue for d, law in zip(draws, laws)]),
        "mean": mean, "band": np.array([gaussian_maximum.quantile(p, numbers) for p in (0.05, 0.5, 0.95)]).T,
        "asymptote": gaussian_maximum.asymptote(numbers),
        "upper": upper[0], "lower": lower[0],
        "above": np.array([[seldom(d > u) for d, u in zip(draws, values)] for values in upper]),
        "below": np.array([[seldom(d <= v) for d, v in zip(draws, values)] for values in lower]),
        "t": t,
        "around_measured": np.array([[seldom(np.abs(d - e) > x) for x in t] for d, e in zip(draws, mean)]),
    }  # fmt: skip


def judge_gaussian_maxima(m):
    bound, decades = np.broadcast_to(2 * np.exp(-(m["t"] ** 2) / 2), m["around_measured"].shape), "decades"
    delta, rule = np.broadcast_to(DELTAS[:, None], m["above"].shape), "as often as seen (lower end), delta 0.1 and 0.01"
    over = m["asymptote"] / m["mean"] - 1
    return Judgement(
        [Check("drawn maxima follow the exact law: smallest p over m, times their number", m["p"].min() * len(m["p"]),
               ">=", 0.01, decades),
         Check("P[|M - E M| > t], as often as seen (lower end)", m["around_measured"], "<=", bound, decades),
         Check(f"P[M > s sqrt(2 log(m / delta))], {rule}", m["above"], "<=", delta, decades),
         Check(f"P[1 - Phi(M / s) >= log(1/delta) / m], {rule}", m["below"], "<=", delta, decades)],
        f"E M = {m['mean'][0]:.3f} at m = {m['m'][0]}, {m['mean'][-1]:.3f} at m = {m['m'][-1]:.0e}, averages "
        f"{m['average'][0]:.3f} and {m['average'][-1]:.3f}; the asymptote sqrt(2 log m) is {over[0]:.0%} too high "
        f"at m = {m['m'][0]}, {over[2]:.0%} at {m['m'][2]}, {over[-1]:.0%} at {m['m'][-1]:.0e}",
    )  # fmt: skip


# ------------------------------------------------------------------ Lemma B.2
RACES = {3: (0.1, 0.03, 0.01, 0.005), 4: (0.2, 0.1, 0.05), 5: (0.3, 0.15)}  # y_0 by q: times grow like y_0^(2-q)
HEAD_STARTS = np.array([-0.3, -0.2, -0.1, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0])
RATE = 0.1
STEADY, ENDS = (0.02, 0.1, 0.3, 1.0), (1.0, 10.0)  # head starts of the fits in y_0, and the A of T: x_T >= A


def wobble(t: int) -> float:
    """A C_t of order one that never settles."""
    return 0.75 + 0.25 * np.cos(t)


def races() -> np.ndarray:
    """Rows q, S, wobbling, delta, y0, y_T / y_0 (at most level / y_0), bound, flow_bound of every race."""
    rows, S = [], np.array([0.5, 1.0, 2.0])
    for q, y0 in RACES.items():
        for moving in (False, True):
            growth = {"growth": wobble, "growth_max": 1.0} if moving else {}
            points = HEAD_STARTS[:, None, None], S[:, None], np.array(y0)
            table = tensor_power.sweep(points[0], q=q, S=points[1], y0=points[2], lr=RATE, **growth)
            ratio = np.minimum(table["ratio"], 1 / table["y0"])  # beyond it y has won, and soon overflows
            S_all = np.broadcast_to(points[1], table.shape)
            columns = S_all, table["delta"], table["y0"], ratio, table["bound"], table["flow_bound"]
            flat = np.stack([c.ravel() for c in columns], axis=1)[table["time"].ravel() > 0]  # others: x starts there
            rows.append(np.column_stack([np.full(len(flat), q), np.full(len(flat), moving), flat]))
    return np.concatenate(rows)


def power_races(lab):
    columns = dict(zip(("q", "moving", "S", "delta", "y0", "ratio", "bound", "flow_bound"), races().T))
    small = np.geomspace(1e-4, 1e-3, 5)  # y_0 (1 + 1/delta), where y gets to, is still small beside A
    start, level = np.array(STEADY)[:, None, None], np.array(ENDS)[:, None]
    steady = tensor_power.sweep(start, q=3, y0=small, lr=RATE, level=level)
    return columns | {"rate": RATE, "small": small, "reached": steady["y"].reshape(-1, len(small))}


def judge_power_races(m):
    ahead, behind = m["delta"] > 0, (m["delta"] < 0) & (m["ratio"] * m["y0"] > 0.5)
    known = ahead & np.isfinite(m["bound"])
    least = min((fit_exponent(m["small"], y) for y in m["reached"]), key=lambda fit: fit.low)
    share = (m["ratio"][known] - 1) / (m["bound"][known] - 1)
    return Judgement(
        [Check("y_T / y_0 - 1 at every point with a head start, against the bound's", m["ratio"][known] - 1, "<=",
               m["bound"][known] - 1, "decades", f"of the bound {spread(share)}"),
         Check("share of points with a head start at which a bound exists", known.sum() / ahead.sum(), ">=", 1,
               "flag"),
         Check("s of y_T ~ y_0^s at fixed delta (0.02 to 1) and A (1, 10), lower end of its interval, smallest",
               least.low, ">=", 0.9, shown=str(least))],
        f"{known.sum()} points; without a head start y arrives "
        f"too at {behind.sum()} of {(m['delta'] < 0).sum()} points",
        [Check("head start delta", m["delta"][known], ">", 0), Check("step lr C L^(q-2)", m["rate"], "<=", 0.1)],
    )  # fmt: skip


B1 = Entry(
    "B.1", "tools", "The largest of m Gaussian numbers",
    "The largest of m Gaussian numbers is of order sigma sqrt(log m) and stays near it with high probability (our "
    "reading: both the tail bounds and the concentration around the mean).",
    "P[M <= t] = Phi(t / s)^m; P[M > s sqrt(2 log(m / delta))] <= delta; P[1 - Phi(M / s) >= log(1/delta) / m] <= "
    "delta; P[|M - E M| > t] <= 2 exp(-t^2 / 2 s^2)",
    gaussian_maxima, judge_gaussian_maxima, lambda m: Picture("m", r"$\max_s g_s\,/\,\sigma$", [
        band(m["m"], m["band"][:, 0], m["band"][:, 2], "exact 5% to 95%", ROBUST, 0.2),
        line(m["m"], m["mean"], "exact mean", ROBUST),
        interval(m["m"], *m["quantiles"].T[[1, 0, 2]], "draws: median, 5% to 95%", "k"),
        line(m["m"], m["asymptote"], r"asymptote $\sqrt{2\log m}$", NON_ROBUST, "--"),
        line(m["m"], np.column_stack([m["upper"], m["lower"]]), rf"bounds, $\delta$ = {DELTAS[0]:g}", PAPER, ":"),
    ], "x"),
)  # fmt: skip
B2 = Entry(
    "B.2", "tools", "Tensor power method",
    "Of two sequences that grow like powers of themselves, one that starts a little ahead reaches a constant while "
    "the other is still of its first order.",
    "x_0 >= y_0 S^(1/(q-2)) (1 + delta)  =>  y_T / y_0 <= (1 - E)^(-1/(q-2)), which is (1 - (1 + "
    "delta)^(2-q))^(-1/(q-2)) for small steps",
    power_races, judge_power_races,
    lambda m: Picture(r"head start $\delta = x_0 / (y_0 S^{1/(q-2)}) - 1$", r"$y_T / y_0$ (at most $1 / y_0$)", [
        *(points(m["delta"][m["q"] == q], m["ratio"][m["q"] == q], f"q = {q:g}", color)
          for q, color in zip(RACES, (ROBUST, NON_ROBUST, PAPER))),
        *(line(HEAD_STARTS[3:], tensor_power.flow_bound(HEAD_STARTS[3:], q), "bound, small steps", color, lw=1)
          for q, color in zip(RACES, (ROBUST, NON_ROBUST, PAPER))),
        mark(x=(HEAD_STARTS[0] * 1.2, 0), label="no head start"),
    ], "y", symlog={"x": 0.02}, xlim=(HEAD_STARTS[0] * 1.2, HEAD_STARTS[-1] * 1.2)),
)  # fmt: skip

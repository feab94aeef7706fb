"""The tools of the proofs: Lemma B.1, the largest of m Gaussian numbers; Lemma B.2, the tensor power method."""

from __future__ import annotations

import numpy as np
from scipy import stats

from ..reporting.style import NON_ROBUST, PAPER, ROBUST
from ..theory import gaussian_maximum, tensor_power
from .ledger import Assumption, Judgement, entry
from .statistics import fit_exponent, spread, wilson

SURE = 1 - 1e-4  # confidence where many intervals are looked at together


# ------------------------------------------------------------------ Lemma B.1
DELTA = 0.1


def brute_maxima(m: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """The largest of m drawn Gaussian numbers, n times, without any formula for it."""
    chunk = max(1, 2_000_000 // m)
    parts = [rng.standard_normal((min(chunk, n - start), m)).max(axis=1) for start in range(0, n, chunk)]
    return np.concatenate(parts)


@entry(
    "B.1",
    "tools",
    "The largest of m Gaussian numbers",
    statement="The largest of m Gaussian numbers is of order sigma sqrt(log m) and stays near it with high probability "
    "(our reading: both the tail bounds and the concentration around the mean).",
    formula="P[M <= t] = Phi(t / s)^m; P[M > s sqrt(2 log(m / delta))] <= delta; P[1 - Phi(M / s) >= log(1/delta) / m] "
    "<= delta; P[|M - E M| > t] <= 2 exp(-t^2 / 2 s^2)",
    rule="drawn maxima follow the exact law (p >= 1e-4 for every m) and lie outside the bounds no more often than "
    "said; margin: decades, the smallest of all",
)
class GaussianMaximum:
    def measure(lab):
        numbers = np.array([2, 3, 10, 30, 100, 1000, 10**4, 10**5, 10**6])
        budget, rng, t = 2e6 if lab.quick else 2e7, np.random.default_rng(1), np.linspace(0.25, 3, 12)
        draws = [brute_maxima(m, int(np.clip(budget // m, 16, 2000)), rng) for m in numbers]
        upper, lower = gaussian_maximum.upper_bound(DELTA, numbers), gaussian_maximum.lower_bound(DELTA, numbers)
        mean = gaussian_maximum.mean(numbers)
        around = gaussian_maximum.sf(mean[:, None] + t, numbers[:, None])
        around += gaussian_maximum.cdf(mean[:, None] - t, numbers[:, None])
        far = [[wilson((np.abs(d - e) > x).sum(), len(d), SURE)[0] for x in t] for d, e in zip(draws, mean)]
        return {
            "m": numbers,
            "n": np.array([len(d) for d in draws]),
            "quantiles": np.array([np.quantile(d, (0.05, 0.5, 0.95)) for d in draws]),
            "average": np.array([d.mean() for d in draws]),
            "p": np.array([stats.kstest(d, lambda x, m=m: gaussian_maximum.cdf(x, m)).pvalue
                           for d, m in zip(draws, numbers)]),
            "mean": mean,
            "band": np.array([gaussian_maximum.quantile(p, numbers) for p in (0.05, 0.5, 0.95)]).T,
            "asymptote": gaussian_maximum.asymptote(numbers),
            "upper": upper.value,
            "upper_probability": upper.probability,
            "lower": lower.value,
            "above": np.array([wilson((d > u).sum(), len(d), SURE)[0] for d, u in zip(draws, upper.value)]),
            "below": np.array([wilson((d <= v).sum(), len(d), SURE)[0] for d, v in zip(draws, lower.value)]),
            "t": t,
            "around": around,
            "around_measured": np.array(far),
        }  # fmt: skip

    def judge(m):
        bound = 2 * np.exp(-(m["t"] ** 2) / 2)
        with np.errstate(divide="ignore"):  # the measured are the lower ends of intervals, 0 where nothing was seen
            kept = [m["p"] / 1e-4, bound / m["around"], DELTA / m["upper_probability"]]
            kept += [bound / m["around_measured"], DELTA / m["above"], DELTA / m["below"]]
            margin = min(float(np.log10(values).min()) for values in kept)
        over = m["asymptote"] / m["mean"] - 1
        return Judgement(
            f"E M = {m['mean'][0]:.3f} at m = {m['m'][0]}, {m['mean'][-1]:.3f} at m = {m['m'][-1]:.0e}; beyond a bound "
            f"with probability <= {DELTA:g}",
            f"averages {m['average'][0]:.3f} and {m['average'][-1]:.3f}; p >= {m['p'].min():.2g} over {len(m['m'])} m; "
            f"the asymptote sqrt(2 log m) is {over[0]:.0%} too high at m = {m['m'][0]}, {over[2]:.0%} at {m['m'][2]}, "
            f"{over[-1]:.0%} at {m['m'][-1]:.0e}",
            margin,
        )

    def draw(axis, m):
        low, _, high = m["band"].T
        axis.fill_between(m["m"], low, high, color=ROBUST, alpha=0.2, lw=0, label="exact 5% to 95%")
        axis.plot(m["m"], m["mean"], color=ROBUST, lw=1.2, label="exact mean")
        a, b, c = m["quantiles"].T
        axis.errorbar(m["m"], b, [b - a, c - b], fmt="o", color="k", ms=3, lw=0.8, label="draws: median, 5% to 95%")
        axis.plot(m["m"], m["asymptote"], "--", color=NON_ROBUST, lw=1, label=r"asymptote $\sqrt{2\log m}$")
        axis.plot(m["m"], m["upper"], ":", color=PAPER, lw=1.3, label=rf"bounds, $\delta$ = {DELTA:g}")
        there = np.isfinite(m["lower"])
        axis.plot(m["m"][there], m["lower"][there], ":", color=PAPER, lw=1.3)
        for i in (2, 5, len(m["m"]) - 1):
            over = f"{m['asymptote'][i] / m['mean'][i] - 1:+.0%}"
            where = {"xytext": (-3, 5), "ha": "right"} if i > 5 else {"xytext": (3, 4)}
            at = m["m"][i], m["asymptote"][i]
            axis.annotate(over, at, **where, textcoords="offset points", fontsize=7, color=NON_ROBUST)
        axis.set_xscale("log")
        axis.set_xlabel("m")
        axis.set_ylabel(r"$\max_s g_s\,/\,\sigma$")


# ------------------------------------------------------------------ Lemma B.2
RACES = {3: (0.1, 0.03, 0.01, 0.005), 4: (0.2, 0.1, 0.05), 5: (0.3, 0.15)}  # y_0 by q: times grow like y_0^(2-q)
HEAD_STARTS = np.array([-0.3, -0.2, -0.1, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0])
RATE = 0.1
STEADY = 0.1, 0.3, 1.0  # head starts of the fits in y_0


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


@entry(
    "B.2",
    "tools",
    "Tensor power method",
    statement="Of two sequences that grow like powers of themselves, one that starts a little ahead reaches a constant "
    "while the other is still of its first order.",
    formula="x_0 >= y_0 S^(1/(q-2)) (1 + delta)  =>  y_T / y_0 <= (1 - E)^(-1/(q-2)), which is "
    "(1 - (1 + delta)^(2-q))^(-1/(q-2)) for small steps",
    rule="y_T / y_0 below the proven bound at every point with a head start, and y_T ~ y_0^s with s >= 0.9 at fixed "
    "delta; margin: the smaller of decades of growth y_T / y_0 - 1 below the bound's and s - 0.9 (lower end of its "
    "interval)",
)
class TensorPowerMethod:
    def measure(lab):
        columns = dict(zip(("q", "moving", "S", "delta", "y0", "ratio", "bound", "flow_bound"), races().T))
        small = np.geomspace(1e-3, 1e-2, 5)
        steady = tensor_power.sweep(np.array(STEADY)[:, None], q=3, y0=small, lr=RATE)
        return columns | {"rate": RATE, "small": small, "reached": steady["y"]}

    def judge(m):
        ahead = m["delta"] > 0
        known = ahead & np.isfinite(m["bound"])
        below = np.log10((m["bound"][known] - 1) / (m["ratio"][known] - 1))
        fits = [fit_exponent(m["small"], y) for y in m["reached"]]
        least = min(fits, key=lambda fit: fit.low)
        behind = (m["delta"] < 0) & (m["ratio"] * m["y0"] > 0.5)
        return Judgement(
            "y_T / y_0 <= bound; y_T ~ y_0",
            f"y_T / y_0 - 1 is {spread(10**-below)} of its bound at {known.sum()} points (a bound exists at "
            f"{known.sum() / ahead.sum():.0%}); s >= {least}; without a head start y arrives too at "
            f"{behind.sum()} of {(m['delta'] < 0).sum()} points",
            float(min(below.min(), least.low - 0.9)),
            [
                Assumption("head start delta", f">= {m['delta'][ahead].min():g}", "> 0", bool(known.any())),
                Assumption("step lr C L^(q-2)", f"{m['rate']:g}", "<= 0.1", m["rate"] <= 0.1),
            ],
        )

    def draw(axis, m):
        for q, color in zip(np.unique(m["q"]), (ROBUST, NON_ROBUST, PAPER)):
            mine = m["q"] == q
            axis.plot(m["delta"][mine], m["ratio"][mine], "o", color=color, ms=3, alpha=0.5, mew=0, label=f"q = {q:g}")
            ahead = mine & (m["delta"] > 0)
            order = np.argsort(m["delta"][ahead])
            axis.plot(m["delta"][ahead][order], m["flow_bound"][ahead][order], color=color, lw=1)
        axis.plot([], [], color="k", lw=1, label="bound, small steps")
        axis.axvspan(HEAD_STARTS[0] * 1.2, 0, color="0.93", zorder=0)
        axis.text(-0.08, 0.03, "no head start", transform=axis.get_xaxis_transform(), ha="center", fontsize=7)
        axis.set_xscale("symlog", linthresh=0.02)
        axis.set_yscale("log")
        axis.set_xlim(HEAD_STARTS[0] * 1.2, HEAD_STARTS[-1] * 1.2)
        axis.set_xlabel(r"head start $\delta = x_0 / (y_0 S^{1/(q-2)}) - 1$")
        axis.set_ylabel(r"$y_T / y_0$ (at most $1 / y_0$)")

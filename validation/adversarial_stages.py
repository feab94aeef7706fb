"""Adversarial training without noise, stage by stage: B stops, A reaches the linear part and goes on (D.23-D.26)."""

from __future__ import annotations

import numpy as np

from ..reporting.style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST
from ..theory import phase_two_started
from ..theory.tensor_power import flow_bound
from ..theory.timing import growth_rate
from .adversarial import GROUP, adversarial_logits, density, levels, one_leader, premises, settings
from .lab import SMALL_RHO, at, first_record
from .ledger import Assumption, Judgement, entry
from .standard import fit_paired, smallest, within
from .statistics import spread, wilson

HEAD_START = 0.1  # our reading of the tensor power lemma's 1/polylog(k)
KEPT = 1.1  # B at most this often B*
SURE = 0.9  # lower limit of a share's interval where the paper says "with high probability"
COLORS = {"init_std": ROBUST, "n_neurons": NON_ROBUST, "n_classes": CERTIFIED, "n_patches": PAPER}


# ------------------------------------------------------------------ the stages of every class
def timeline(scaling) -> dict:
    """When each class (R, k) passes D.23's, D.24's and D.25's mark (NaN: not yet), and what A, B and F_y are there.

    F_y is taken with H as it is at the end; H enters it as eta~ |w_orth|^2, 0.02 in SMALL_RHO.
    """
    c, found = scaling.setting, scaling.recursion
    t, A, B = found.iteration, found.A, found.B
    top, level = A.max(axis=-1), levels(B, c)
    F = np.array([np.einsum("rii->ri", adversarial_logits(phi, found.gram, c)) for phi in found.phi])
    marks = {
        "half": phase_two_started(B, c["beta"], c["q"], c["rho"], c["ascent_lr"]),
        "linear": top >= c["rho"] / c["alpha"],
        "log_k": np.log(c["n_classes"]) <= F,
    }
    first = {name: first_record(t, reached) for name, reached in marks.items()}
    kappa = growth_rate(c["alpha"], c["n_robust"], c["n_classes"], c["q"], c["rho"], c["lr"])
    p, a0, b0 = c["q"] - 2, top[0], B[0].max(axis=-1)
    start = np.maximum(a0, 1e-300)
    m = {"name": scaling.name, "value": scaling.value, "setting": c, "horizon": int(t[-1])}
    m |= {f"t_{name}": np.where(i >= 0, t[i], np.nan) for name, i in first.items()}
    m |= {f"B_{name}": at(level, i) for name, i in first.items()}
    m |= {
        "a0": a0, "A_half": at(top, first["half"]), "delta": b0 / (start * density(c) ** (1 / p)) - 1,
        "predicted": np.where(a0 > 0, start**-p / (p * kappa), np.inf),
        "both": one_leader(A[0], B[0]), "B_max": level.max(axis=0), "A_max": top.max(axis=0),
        "slope": late_slope(t, top, m["t_log_k"]) * c["n_robust"] * (c["alpha"] - c["eps"]),
        "slope_F": late_slope(t, F, m["t_log_k"]),
    }  # fmt: skip
    every = slice(None, None, max(len(t) // 100, 1))
    return m | {"iteration": t[every], "F": F[every], "A": top[every]}


def late_slope(t, values, start):
    """Slope of values (T, R, k) over log(t - start) from 2 start on, where start <= t_end / 3; NaN for the others."""
    slope = np.full(start.shape, np.nan)
    for r, i in np.argwhere(start <= t[-1] / 3):
        late = t >= 2 * start[r, i]
        slope[r, i] = np.polyfit(np.log(t[late] - start[r, i]), values[late, r, i], 1)[0]
    return slope


def timelines(*names):
    """What an entry measures: `names` of the `timeline` of every setting, which is kept."""
    names = ("name", "setting", "horizon", "a0", *names)

    def measure(lab):
        rows = {name: lab.once(("timeline", name), lambda s=s: timeline(s)) for name, s in settings(lab).items()}
        return {name: {key: row[key] for key in names} for name, row in rows.items()}

    return measure


def pooled(m, *names):
    """Arrays of all settings, end to end."""
    return [np.concatenate([row[name].ravel() for row in m.values()]) for name in names]


def per_class(m, number):
    """`number(row)` of every setting, once for each of its classes: in the order of `pooled`."""
    return np.concatenate([np.full(row["a0"].size, number(row)) for row in m.values()])


def horizon(row):
    return row["horizon"]


def over_init_std(m, name, kept) -> tuple[np.ndarray, np.ndarray]:
    """sigma_0 (n,) and `name` (n, classes), NaN unless `kept(row)` in every row; the same draws in every row."""
    rows = [row for row in m.values() if row["name"] in ("", "init_std")]
    ok = np.all([kept(row) for row in rows], axis=0)
    return np.array([r["setting"]["init_std"] for r in rows]), np.array([np.where(ok, r[name], np.nan) for r in rows])


def settings_of(m):
    return premises([row["setting"] for row in m.values()])


def kind_color(row):
    return COLORS.get(row["name"], ACCURACY)


# ------------------------------------------------------------------ D.23
RATIO, NEAR_ONE = 1.5, 0.1


def ahead(row):
    """The premise of Lemma B.2, and Phase II has begun."""
    return (row["delta"] >= HEAD_START) & (row["a0"] > 0) & np.isfinite(row["t_half"])


@entry(
    "D.23",
    GROUP,
    "B arrives while A is still of its first order",
    statement="When the total non-robust learning of a class reaches order 1/ascent_lr (our reading: half of (B*)^q), "
    "the largest A is still of order sigma_0, if B has the head start that the tensor power lemma asks for (10%).",
    formula="max_s A <= max_s A^(0) (1 - (1 + delta)^(2-q))^(-1/(q-2)), delta = max B^(0) / (max A^(0) c^(1/(q-2))) "
    "- 1, c = P_R alpha^q / (P_NR beta^q); exponent of max_s A in sigma_0: 1",
    rule=f"every class with delta >= {HEAD_START:g} stays below {RATIO:g} times the bound, and the exponent in "
    f"sigma_0, interval and all, is within 1 +- {NEAR_ONE:g}; margin: what is left of the tighter one, as a share",
)
class NonRobustFirst:
    measure = timelines("t_half", "A_half", "delta")

    def judge(m):
        kept = np.concatenate([ahead(row).ravel() for row in m.values()])
        a0, A, delta = pooled(m, "a0", "A_half", "delta")
        ratio = A[kept] / (a0[kept] * flow_bound(delta[kept], SMALL_RHO["q"]))
        fit = fit_paired(*over_init_std(m, "A_half", ahead))
        order = [np.median(r["A_half"][ahead(r)]) / r["setting"]["init_std"] for r in m.values() if ahead(r).any()]
        return Judgement(
            "max A / bound <= 1 for small steps; exponent 1",
            f"max A / bound {spread(ratio)} over {kept.sum()} classes of {len(m)} settings ({kept.mean():.0%} of all "
            f"have the head start); exponent {fit}; median of max A / sigma_0 {spread(order)} over settings",
            smallest(1 - (ratio - 1) / (RATIO - 1), within(fit, 1, NEAR_ONE)),
            settings_of(m),
        )

    def draw(axis, m):
        seen = set()
        for row in m.values():
            kept, label = np.isfinite(row["t_half"]) & (row["a0"] > 0), row["name"] or "small rho"
            grown, label = (row["A_half"] / row["a0"])[kept], None if label in seen else label
            axis.plot(row["delta"][kept], grown, "o", color=kind_color(row), ms=3, alpha=0.4, mew=0, label=label)
            seen.add(label)
        delta = np.geomspace(0.02, 100, 200)
        axis.plot(delta, flow_bound(delta, SMALL_RHO["q"]), "k", lw=1, label="bound (Lemma B.2)")
        axis.axvspan(-1, HEAD_START, color="0.93", zorder=0)
        axis.set_xscale("symlog", linthresh=0.1)
        axis.set_yscale("log")
        axis.set_xlim(-1, 100)
        axis.set_xlabel(r"head start $\delta$ of B (grey: none, outside the premise)")
        axis.set_ylabel(r"$\max A$ / its start, when B is there")


# ------------------------------------------------------------------ D.24
@entry(
    "D.24",
    GROUP,
    "A reaches the linear part",
    statement="In every class the largest A reaches the linear part, alpha A = rho, in polynomial time, and B is then "
    "still at most of order ascent_lr^(-1/q) (our reading: a constant times B*).",
    formula="T = min{t: max_s A >= rho / alpha}, predicted by the flow A' = kappa A^(q-1): A_0^(2-q) / ((q-2) kappa); "
    f"(sum_s (B_s)_+^q)^(1/q) <= {KEPT:g} B* at T",
    rule=f"lower end of the Wilson interval of the classes that arrive, among those whose predicted time is at most "
    f"half the horizon, >= {SURE:g}, and B <= {KEPT:g} B* at T in all; margin: the smaller of share - {SURE:g} and "
    f"{KEPT:g} - B / B*",
)
class LinearPart:
    measure = timelines("t_linear", "predicted", "both", "B_linear")

    def judge(m):
        t, predicted, both, B = pooled(m, "t_linear", "predicted", "both", "B_linear")
        asked = predicted <= per_class(m, horizon) / 2
        arrived = np.isfinite(t)
        low, high = wilson((asked & arrived).sum(), asked.sum()) if asked.any() else (np.nan, np.nan)
        ratio = t / predicted
        fit = fit_paired(*over_init_std(m, "t_linear", lambda row: np.isfinite(row["t_linear"])))
        return Judgement(
            f"every class; T / predicted near 1; B <= {KEPT:g} B*",
            f"{(asked & arrived).sum()} of {asked.sum()} classes (interval {low:.3f} to {high:.3f}); of all {len(t)}, "
            f"some with a start too small for the horizon or not above 0, {arrived.mean():.1%}; T / predicted "
            f"{spread(ratio[asked & ~both])}, where one neuron leads in A and B {spread(ratio[asked & both])}; "
            f"exponent of T in sigma_0 {fit}; B / B* {spread(B[arrived])}",
            smallest(low - SURE, KEPT - B[arrived]),
            settings_of(m),
        )

    def draw(axis, m):
        for row in m.values():
            for mask, marker in ((~row["both"], "o"), (row["both"], "^")):
                kept = mask & np.isfinite(row["t_linear"])
                x, y = row["predicted"][kept], row["t_linear"][kept]
                axis.loglog(x, y, marker, color=kind_color(row), ms=4, alpha=0.5, mew=0)
        for marker, label in (("o", "two neurons lead in A and B"), ("^", "one neuron leads in both")):
            axis.plot([], [], marker, color=ACCURACY, ms=4, label=label)
        ends = np.array([300, 3e4])
        axis.plot(ends, ends, color="0.4", lw=0.8, label="predicted")
        axis.set_xlabel("predicted iteration, flow of A alone")
        axis.set_ylabel(r"iteration of $\max_s A = \varrho/\alpha$")


# ------------------------------------------------------------------ D.25
SLOWER = 1.5


def linear_time(c):
    """Iterations that F_y = P_R (alpha - eps) A takes from 0 to log k at the rate of the linear part."""
    speed = c["lr"] / c["n_classes"] * (c["n_robust"] * (c["alpha"] - c["eps"])) ** 2
    return (np.log(c["n_classes"]) + 1) / speed


@entry(
    "D.25",
    GROUP,
    "The class's output reaches order log k",
    statement="From there the output F_y grows to order log k in polynomial time, and B stays of order "
    "ascent_lr^(-1/q); our reading: F_y >= log k at the adversarial example, where the loss begins to saturate.",
    formula="T' = min{t: F_y(x~) >= log k}; T' - T ~ k (log k + 1) / (eta P_R^2 (alpha - eps)^2), from "
    f"F' = (eta/k) (1 - logit) P_R^2 (alpha - eps)^2; (sum_s (B_s)_+^q)^(1/q) <= {KEPT:g} B* at T'",
    rule=f"T' - T <= {SLOWER:g} times predicted in every class that reached T this long before the end, and B <= "
    f"{KEPT:g} B* at T'; margin: the smaller of 1 - time / ({SLOWER:g} predicted) and {KEPT:g} - B / B*",
)
class OutputGrows:
    measure = timelines("t_linear", "t_log_k", "B_log_k")

    def judge(m):
        t, later, B = pooled(m, "t_linear", "t_log_k", "B_log_k")
        expected = per_class(m, lambda row: linear_time(row["setting"]))
        asked = t + SLOWER * expected <= per_class(m, horizon)
        took = np.where(np.isfinite(later), later - t, np.inf)[asked] / expected[asked]
        return Judgement(
            f"T' - T <= {SLOWER:g} times predicted; B <= {KEPT:g} B*",
            f"(T' - T) / predicted {spread(took)} in {len(took)} classes of {len(m)} settings; T' / T "
            f"{spread((later / t)[asked])}; B / B* {spread(B[asked])}",
            smallest(1 - took / SLOWER, KEPT - B[asked]),
            settings_of(m),
        )

    def draw(axis, m):
        for j, row in enumerate(m.values()):
            took = ((row["t_log_k"] - row["t_linear"]) / linear_time(row["setting"])).ravel()
            height = j + 0.3 * np.sin(np.arange(len(took)))  # spread out to be seen
            axis.plot(took, height, "o", color=kind_color(row), ms=3, alpha=0.4, mew=0)
        axis.axvline(1, color="0.4", lw=0.8, label="predicted, one active neuron")
        axis.axvline(SLOWER, color=PAPER, ls="--", lw=1, label="bound")
        axis.set_yticks(range(len(m)), list(m), fontsize=7)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.6)
        axis.set_xlabel("time from alpha A = rho to F_y = log k, of the predicted time; a dot per class")


# ------------------------------------------------------------------ D.26
STEEPEST = 1.2


@entry(
    "D.26",
    GROUP,
    "From then on everything stays bounded",
    statement="For all later times A stays O~(1) and B of order ascent_lr^(-1/q); our reading: A grows no faster than "
    "logarithmically, since F_y = P_R (alpha - eps) times the sum of the active A does.",
    formula="max_s A <= O(log t), of slope at most 1 / (P_R (alpha - eps)) in log(t - T'), from "
    f"F' ~ (eta/k) (k-1) e^(-F) P_R^2 (alpha - eps)^2; (sum_s (B_s)_+^q)^(1/q) <= {KEPT:g} B* for all t",
    rule=f"P_R (alpha - eps) times the slope of max_s A over log(t - T') <= {STEEPEST:g} in every class with T' <= a "
    f"third of the horizon, and B <= {KEPT:g} B* at every record; margin: the smaller of {STEEPEST:g} - slope and "
    f"{KEPT:g} - B / B*",
)
class Bounded:
    measure = timelines("t_log_k", "slope", "slope_F", "A_max", "B_max", "iteration", "F", "A")

    def judge(m):
        slope, of_F, A, B = pooled(m, "slope", "slope_F", "A_max", "B_max")
        kept = np.isfinite(slope)
        n = int(kept.sum())
        return Judgement(
            f"slope <= 1, equal for one active neuron; B <= {KEPT:g} B*",
            f"slope of A {spread(slope)}, of F_y {spread(of_F)} in {n} classes of {len(m)} settings; largest max A / "
            f"log t at the end {np.max(A / np.log(per_class(m, horizon))):.3f}; largest B / B* ever {np.max(B):.3f}",
            smallest(STEEPEST - slope[kept], KEPT - B),
            [*settings_of(m), Assumption("classes followed to 3 T'", f"{n}", ">= 16", n >= 16)],
        )

    def draw(axis, m):
        row = m["small rho"]
        for r, i in np.argwhere(np.isfinite(row["slope"])):
            later = row["iteration"] > row["t_log_k"][r, i]
            t = (row["iteration"] - row["t_log_k"][r, i])[later]
            axis.plot(t, row["F"][later, r, i], color=NON_ROBUST, lw=0.8, alpha=0.35)
            axis.plot(t, row["A"][later, r, i], color=ROBUST, lw=0.8, alpha=0.35)
        c, t = row["setting"], np.geomspace(30, row["horizon"], 100)
        F = np.log(c["n_classes"])
        grid = np.linspace(F, 9, 2000)
        passed = grid - F + (np.exp(grid) - np.exp(F)) / (c["n_classes"] - 1)
        speed = c["lr"] / c["n_classes"] * (c["n_robust"] * (c["alpha"] - c["eps"])) ** 2
        axis.plot(t, np.interp(t * speed, passed, grid), "k--", lw=1, label="predicted, one active neuron")
        for color, label in ((NON_ROBUST, r"$F_y$ at the adversarial example"), (ROBUST, r"$\max_s A$")):
            axis.plot([], [], color=color, label=label)
        axis.set_xscale("log")
        axis.set_xlim(50, row["horizon"])
        axis.set_xlabel("iterations after F_y = log k")
        axis.set_ylabel("F_y, A; a line per class")

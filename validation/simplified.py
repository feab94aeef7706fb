"""Theorems 4.3 and 4.4 without noise and with population risk: D.1, D.12-D.15, D.27, D.28."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..reporting.style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST
from .bullets import AT_BETA, WINDOW, draw_attacks, draw_radius, judge_at_beta, judge_in_window
from .ledger import Judgement, entry
from .population import (
    PAIRS,
    draw_growth,
    draw_shares,
    growth,
    judge_pairs,
    last,
    log_k,
    networks,
    pairs,
    population,
    scaled,
    settled,
)
from .statistics import fit_exponent, spread

GROUP = "simplified setting"


# ------------------------------------------------------------------ standard training
@entry(
    "D.1",
    GROUP,
    "Theorem 4.3 in the simplified setting",
    statement="Standard training on the noiseless population risk learns the non-robust features and is accurate, and "
    "the swap of Theorem 4.3 to any other class breaks it.",
    formula="F_y - max_j F_j from correlations: > 0 for X and for X with only v left, <= 0 for X + delta, all y'",
    rule=f"each of the three {PAIRS}, the smallest",
)
class Simplified43:
    def measure(lab):
        m = population(lab, False)
        names = "clean", "non_robust", "swapped"
        lines = [
            ("clean", ACCURACY, "-", "clean sample"),
            ("non_robust", NON_ROBUST, "--", "only $v$ left"),
            ("robust", ROBUST, ":", "only $u$ left"),
            ("swapped", PAPER, "-", "after the swap\n(right for some $y'$)"),
        ]
        kept = {k: m[k] for k in ("setting", "saturated_at", "watched", "iteration", "robust", *names)}
        return kept | {"lines": lines}

    def judge(m):
        clean, v, broken = m["clean"][-1] > 0, m["non_robust"][-1] > 0, m["swapped"][-1] <= 0
        return judge_pairs(m, {"v learned": v, "clean right": clean, "broken for every y'": broken})

    draw = draw_shares


@entry(
    "D.12",
    GROUP,
    "Standard accuracy is good",
    statement="After standard training to a T polynomial in k every sample's margin is of order log k at least (our "
    "reading of the constant: 1, so that the label's probability exceeds 1/2).",
    formula="F_y(X) - max_{j != y} F_j(X) >= Omega(log k)",
    rule="margin / log k at T, smallest over seeds and classes, >= 1 for k = 3, 5, 10 of the small-rho configuration "
    "with T like k (linear part of sigma, as Lemma D.11 has it) and the default at k = 5; margin: that less 1",
)
class MarginLogK:
    def measure(lab):
        m = population(lab, False)
        return last(m, "clean") | {"off_diagonal": float(m["off_diagonal"].max()), "scaled": scaled(lab)}

    def judge(m):
        rows = [*m["scaled"], {"k": m["setting"]["n_classes"], "margin": m["clean"]}]
        ratio = [float(row["margin"].min() / np.log(row["k"])) for row in rows]
        k = np.concatenate([np.full(len(row["reached"]), row["k"]) for row in m["scaled"]])
        reached = np.concatenate([row["reached"] for row in m["scaled"]])
        slope = str(fit_exponent(k, reached)) if np.isfinite(reached).all() else "none, never by some"
        off = max([m["off_diagonal"], *(row["off_diagonal"] for row in m["scaled"])])
        return Judgement(
            "margin / log k >= 1 for every seed and class",
            "smallest margin / log k " + ", ".join(f"{r:.2f} at k = {row['k']}" for r, row in zip(ratio[:-1], rows))
            + f", {ratio[-1]:.2f} at the default; iterations to log k like k^{slope}; largest rival output {off:.1e}",
            min(ratio) - 1 if np.isfinite(ratio).all() else float("nan"),
            settled(m),
        )  # fmt: skip

    def draw(axis, m):
        x = np.linspace(2, 12, 100)
        axis.plot(x, np.log(x), color=ACCURACY, lw=1.2, ls="--", label=r"$\log k$ (the rule)")
        rng = np.random.default_rng(0)
        for i, row in enumerate(m["scaled"]):
            carried = (row["non_robust"] >= np.log(row["k"])).ravel()
            spot = row["k"] * np.exp(rng.uniform(-0.05, 0.05, carried.size))
            for part, color, text in ((carried, NON_ROBUST, "$v$"), (~carried, ROBUST, "$u$")):
                label = rf"small $\varrho$, class learned by {text}" if i == 0 else None
                axis.plot(spot[part], row["margin"].ravel()[part], ".", color=color, ms=4, alpha=0.6, label=label)
        k, margin = m["setting"]["n_classes"], m["clean"].ravel()
        axis.plot(np.full(margin.size, k * 1.15), margin, "x", color=PAPER, ms=4, label="default configuration")
        axis.set_xscale("log")
        axis.set_xticks([2, 3, 5, 10], ["2", "3", "5", "10"])
        axis.minorticks_off()
        axis.set_ylim(0, None)
        axis.set_xlabel("classes $k$; a point per seed and class")
        axis.set_ylabel(r"margin $F_y - \max_j F_j$ at $T$")


@entry(
    "D.13",
    GROUP,
    "Non-robust features are learned well",
    statement="After standard training a sample of which only the non-robust features are left is classified correctly "
    "with a margin of order log k (our reading: log k at least).",
    formula="F_y(X_V) - max_{j != y} F_j(X_V) >= Omega(log k)",
    rule=f"margin with only v left >= log k {PAIRS}",
)
class NonRobustLearnedWell:
    def measure(lab):
        m = population(lab, False)
        return last(m, "non_robust", "robust") | growth(m) | {"scaled": scaled(lab)}

    def judge(m):
        more = f"; margins {spread(m['non_robust'])}, with only u left {spread(m['robust'])}; log k = {log_k(m):.3g}"
        small = [(row["k"], row["non_robust"] >= np.log(row["k"])) for row in m["scaled"]]
        more += "; small-rho configuration, m = 10: " + ", ".join(f"{pairs(v)} at k = {k}" for k, v in small)
        return judge_pairs(m, {"margin >= log k:": m["non_robust"] >= log_k(m)}, more=more)

    draw = draw_growth


@entry(
    "D.14",
    GROUP,
    "Standard training converges to a non-robust solution",
    statement="After standard training the perturbation that replaces all non-robust features by those of another "
    "class brings that class's output above the label's, for every other class.",
    formula="F_y(X + delta) <= F_{y'}(X + delta), delta_p = beta (v_{y'} - v_y) on J_NR, 0 on J_R",
    rule=f"largest output after the swap not the label's for any y' {PAIRS}",
)
class NonRobustSolution:
    def measure(lab):
        m = population(lab, False)
        return last(m, "swapped") | {k: m[k] for k in ("own_after_swap", "other_after_swap")}

    def judge(m):
        gap = m["other_after_swap"] - m["own_after_swap"]
        return judge_pairs(
            m, {"broken for every y'": m["swapped"] <= 0}, more=f"; rival above the label by {spread(gap)} logits"
        )

    def draw(axis, m):
        own, other = m["own_after_swap"].ravel(), m["other_after_swap"].ravel()
        ends = [0.5 * min(own.min(), other.min()), 2 * max(own.max(), other.max())]
        axis.fill_between(ends, ends, ends[1], color=NON_ROBUST, alpha=0.1, lw=0, label="broken")
        axis.plot(ends, ends, color="0.5", lw=1, ls="--")
        axis.plot(own, other, ".", color=NON_ROBUST, ms=5, alpha=0.5, label="(seed, class, $y'$)")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlim(ends)
        axis.set_ylim(ends)
        axis.set_xlabel(r"label's output $F_y(X + \delta)$")
        axis.set_ylabel(r"largest rival $F_{y'}(X + \delta)$")


# ------------------------------------------------------------------ adversarial training
@entry(
    "D.15",
    GROUP,
    "Theorem 4.4 in the simplified setting",
    statement="Adversarial training on the noiseless population risk learns the robust features and is robust, at a "
    "radius inside the window (at the training radius: see D.28 there).",
    formula="margin of X with only u left > 0; F_y(X + delta) > max_{j != y} F_j(X + delta), |delta|_inf <= eps_test",
    rule=f"u learned, standing against five attacks, and certified, each {PAIRS}, the smallest",
)
class Simplified44:
    def measure(lab):
        m = population(lab, True)
        lines = [
            ("clean", ACCURACY, "-", "clean sample"),
            ("robust", ROBUST, "--", "only $u$ left"),
            ("swapped", PAPER, "-", "after the swap\n(right for some $y'$)"),
        ]
        network_lines = [
            ("standing", ROBUST, "o-", "swap and aligned\nattack, " r"$\epsilon_{test}$"),
            ("certified", CERTIFIED, "x:", r"certified, $\epsilon_{test}$"),
        ]
        kept = {k: m[k] for k in ("setting", "saturated_at", "watched", "iteration", "robust", "clean", "swapped")}
        return kept | networks(lab) | {"lines": lines, "network_lines": network_lines}

    def judge(m):
        found = m["attacked"][0]
        bullets = {"u learned": m["robust"][-1] > 0, "standing": found["standing"], "certified": found["certified"]}
        return judge_pairs(m, bullets, "eps", "window", more=f" at eps = {found['eps']:g}")

    draw = draw_shares


@entry(
    "D.27",
    GROUP,
    "Robust features are learned well",
    statement="After adversarial training a sample of which only the robust features are left is classified correctly "
    "with a margin of order log k (our reading: log k at least).",
    formula="F_y(X_U) - max_{j != y} F_j(X_U) >= Omega(log k)",
    rule=f"margin with only u left >= log k {PAIRS}",
)
class RobustLearnedWell:
    def measure(lab):
        m = population(lab, True)
        return last(m, "non_robust", "robust") | growth(m)

    def judge(m):
        more = f"; margins {spread(m['robust'])}, with only v left {spread(m['non_robust'])}; log k = {log_k(m):.3g}"
        return judge_pairs(m, {"margin >= log k:": m["robust"] >= log_k(m)}, "eps", more=more)

    draw = draw_growth


def measure_networks(lab):
    m = population(lab, True)
    return {k: m[k] for k in ("setting", "saturated_at", "watched")} | networks(lab)


@entry(
    "D.28",
    GROUP,
    "Adversarial training converges to a robust solution, inside the window",
    statement="After adversarial training on the noiseless population risk no perturbation of a radius inside the "
    "window of test radii (docs/robust-window.md) breaks a sample.",
    formula="F_y(X + delta) > max_{j != y} F_j(X + delta) for all |delta|_inf <= eps_test",
    rule=f"one sample per class and seed (all there are, up to positions), {WINDOW}",
)
class RobustSolution:
    measure = measure_networks

    def judge(m):
        return replace(judge_in_window(m), assumptions=settled(m, "eps", "window"))

    draw = draw_radius


@entry(
    "D.28 (eps = beta)",
    GROUP,
    "Adversarial training converges to a robust solution, at the training radius",
    statement="After adversarial training on the noiseless population risk no perturbation of the training radius, "
    "eps = beta (our reading of the lost choice of eps), breaks a sample.",
    formula="F_y(X + delta) > max_{j != y} F_j(X + delta) for all |delta|_inf <= beta",
    rule=f"one sample per class and seed (all there are, up to positions), {AT_BETA}",
)
class RobustSolutionAtBeta:
    measure = measure_networks

    def judge(m):
        return replace(judge_at_beta(m), assumptions=settled(m, "eps"))

    draw = draw_attacks

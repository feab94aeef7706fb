"""Training with noise, Lemma E.2-E.7 and E.9-E.11, in the paper's order; E.1 and E.8 are among the theorems."""

from __future__ import annotations

import numpy as np

from ..reporting.style import CERTIFIED, NON_ROBUST, PAPER, ROBUST
from ..theory import LeadingOrder
from . import noise_runs
from .lab import at, first_record
from .ledger import Assumption, Judgement, entry
from .noise_runs import TERMS
from .noise_shared import GROUP, NOTES, SHARE, book_entry, late_entry, size_entry
from .standard import EXACT
from .statistics import shortfall, spread, wilson

book_entry(
    "E.2", False, "Every weight is its start plus a combination of the training patches; our reading: with the "
    "coefficients that the gradient steps book, split into features and every patch's noise, exactly.",
    "w_{i,r}^(t) = w_{i,r}^(0) + sum_j (c_{u_j} u_j + c_{v_j} v_j) + sum_{n,p} a_{i,r,n,p} xi_{n,p}, a_{i,r,n,p} += "
    "(eta/N) e_{n,i} sigma'(<w_{i,r}, x_{n,p}>)",
)  # fmt: skip
size_entry("E.3", False, "orthogonal", NOTES["orthogonal"])
size_entry("E.3 (whole)", False, "whole", NOTES["whole"])

# ------------------------------------------------------------------ E.4
SIZES = {"noise_std": (0.0125, 0.025, 0.05), "patch_dim": (32, 64, 96)}
EXPONENTS = {  # in sigma_n and d
    "self": (2, 1), "noise": (2, 0.5), "feature": (1, 0), "perturbation": (1, 0),
}  # fmt: skip
FACTOR, NEAR = 2.0, 0.3


def typical(runs, term) -> np.ndarray:
    """Size of a term per unit of what g makes of the other factor, (values, 1): median over the looks that have one."""
    return np.array([[np.median(r["gain"][term][r["gain"][term] > 0])] for r in runs])


def slope(x, y) -> float:
    return float(np.polyfit(np.log(x), np.log(np.ravel(y)), 1)[0])


@entry(
    "E.4",
    GROUP,
    "Noise correlation update",
    statement="A step changes <w_{i,r}, xi_{n,p}> by a self term with the sign of the label's error, up for the "
    "sample's own class and down for others, and by terms from all patches; our reading: from noise, features and, in "
    "adversarial training, perturbations, of the sizes below (not smaller than the self term).",
    formula="<Delta w_{i,r}, xi_{n,p}> = g |xi_{n,p}|^2 + sum' g' <xi', xi_{n,p}> + sum g' <s', xi_{n,p}> + sum g' "
    "<delta', "
    "xi_{n,p}>, g = (eta/N) e_{n,i} sigma'(.); inner products ~ sigma_n^2 d, sigma_n^2 sqrt(d), sigma_n, sigma_n "
    "|delta'|",
    rule=f"the terms add up to the network's step within {EXACT:g}; no self term has the wrong sign; every term "
    "within a "
    f"factor {FACTOR:g} of its scale at every look, exponents in sigma_n and d within +- {NEAR:g}; margin: the "
    f"smallest of decades below {EXACT:g}, 1 - |log factor| / log {FACTOR:g}, 1 - |exponent - predicted| / {NEAR:g}",
)
class NoiseUpdates:
    def measure(lab):
        def make():
            base = noise_runs.terms(True)
            found = {"standard": noise_runs.terms(False), "adversarial": base}
            for name, values in SIZES.items():
                changed = (v == noise_runs.NOISY[name] or noise_runs.terms(True, 6, **{name: v}) for v in values)
                found[name] = [base if run is True else run for run in changed]
            return found

        return lab.once(("terms",), make)

    def judge(m):
        runs = [m["standard"], m["adversarial"], *(r for name in SIZES for r in m[name])]
        error = float(np.max([r["error"].max() for r in runs]))
        ratio = {t: np.concatenate([r["ratio"][t][r["size"][t] > 0] for r in runs]) for t in TERMS}
        slopes = {t: [slope(values, typical(m[name], t)) for name, values in SIZES.items()] for t in TERMS}
        off = np.max([np.abs(np.subtract(slopes[t], EXPONENTS[t])) for t in TERMS])
        sign = float(np.min([r["sign"].min() for r in runs]))
        worst = np.max([np.abs(np.log(values)).max() for values in ratio.values()])
        told = "; ".join(f"{t} {spread(ratio[t])}, exponents {slopes[t][0]:.2f}, {slopes[t][1]:.2f}" for t in TERMS)
        sizes = [np.median(m["adversarial"]["size"][t] / m["adversarial"]["size"]["self"]) for t in TERMS[1:]]
        return Judgement(
            "terms add up; sizes sigma_n^2 d, sigma_n^2 sqrt(d), sigma_n, sigma_n |delta|",
            f"sum off by {error:.1e} of the largest change; {sign:.0%} of self terms have the sign of e; size / "
            f"predicted and exponents in sigma_n, d: {told}; adversarial, of the self term in the median: "
            + ", ".join(f"{t} {size:.3g}" for t, size in zip(TERMS[1:], sizes)),
            -1.0 if sign < 1 else float(np.min([shortfall(error, EXACT), 1 - worst / np.log(FACTOR), 1 - off / NEAR])),
        )

    def draw(axis, m):
        for (training, ls), shown in zip((("standard", "--"), ("adversarial", "-")), (TERMS[:3], TERMS)):
            r = m[training]
            for term, color in zip(TERMS, (NON_ROBUST, PAPER, ROBUST, CERTIFIED)):
                if term in shown:
                    seen = r["size"][term] > 0
                    t, size, ratio = (x[seen] for x in (r["iteration"], r["size"][term], r["ratio"][term]))
                    label = term if training == "adversarial" else None
                    axis.semilogy(t, size, ls, color=color, lw=1.3, label=label)
                    axis.semilogy(t, size / ratio, ".", color=color, ms=4)
        axis.plot([], [], "k-", lw=1.2, label="adversarial")
        axis.plot([], [], "k--", lw=1.2, label="standard")
        axis.plot([], [], "k.", ms=4, label="predicted scale")
        axis.set_xlabel("iteration")
        axis.set_ylabel("rms of a step's term of <w, xi>")


# ------------------------------------------------------------------ E.5, E.6
SMALL_LOGIT, GROWTH, KEPT = 1.0, 0.85, 0.5


@entry(
    "E.5",
    GROUP,
    "Early growth with noise",
    statement="While all correlations of a class are small its loss derivative stays of order one and its non-robust "
    "feature grows as without noise; our reading: small means F_i <= 1, of order one at least half its initial value, "
    "and growth at least the leading order's up to o(1).",
    formula="F_i <= 1 => 1 - logit_i = Theta(1), max_r B_{i,r} += (1 - o(1)) (eta/N) sum_n (1 - logit_i) rho^(1-q) "
    "P_NR beta^q B_{i,r}^(q-1) or more",
    rule=f"default configuration, 21 looks at every seed's class while F_i <= {SMALL_LOGIT:g}: 1 - logit_i >= {KEPT:g} "
    f"(1 - 1/k) and step >= {GROWTH:g} of the leading order; margin: the smaller of value / bound - 1",
)
class EarlyGrowth:
    def measure(lab):
        return lab.once(("early",), lambda: noise_runs.early(lab))

    def judge(m):
        early = m["logit"] <= SMALL_LOGIT
        ratio, derivative, k = (m["step"] / m["leading"])[early], m["derivative"][early], m["n_classes"]
        least = KEPT * (1 - 1 / k)
        looks = np.flatnonzero(early.any(axis=(1, 2)))[[0, -1]]
        start, late = (np.median((m["step"] / m["leading"])[t][early[t]]) for t in looks)
        grown = (m["top"] / m["top"][0])[early].max()
        return Judgement(
            f"1 - logit_i >= {least:.3f} where F_i <= {SMALL_LOGIT:g}; growth >= {GROWTH:g} of the leading order",
            f"1 - logit_i {spread(derivative)}; step of max_r B / leading order {spread(ratio)} ({early.sum()} looks "
            f"at a seed's class), median {start:.3f} at the start (noise adds to sigma'), {late:.3f} at the last looks",
            float(np.min([derivative.min() / least - 1, ratio.min() / GROWTH - 1])),
            [
                Assumption("noise", f"sigma_n = {m['noise_std']:g}", "> 0", m["noise_std"] > 0),
                Assumption("looks reach take-off", f"max_r B {grown:.3g} times its start", ">= 3", bool(grown >= 3)),
            ],
        )

    def draw(axis, m):
        early = m["logit"] <= SMALL_LOGIT
        ratio, style = m["step"] / m["leading"], {"ms": 3, "mew": 0, "alpha": 0.6}
        for color, inside, where in (("0.75", ~early, ">"), (NON_ROBUST, early, "<=")):
            label = f"step / leading order, F_i {where} {SMALL_LOGIT:g}"
            axis.semilogx(m["top"][inside], ratio[inside], "o", color=color, label=label, **style)
        axis.semilogx(m["top"][early], m["derivative"][early], ".", color=ROBUST, ms=3, label="1 - logit_i, smallest")
        k = m["n_classes"]
        axis.axhline(GROWTH, color=NON_ROBUST, ls="--", lw=1)
        axis.axhline(KEPT * (1 - 1 / k), color=ROBUST, ls="--", lw=1)
        axis.axhline(1, color="0.5", lw=0.8)
        axis.set_ylim(0.3, 1.4)
        axis.set_xlabel("max_r B of the class; dashed: least allowed")
        axis.set_ylabel("ratio; 1 - logit")


TAKEN_OFF, TIME_ERROR = 10.0, 0.3


def crossing(iteration, values, level) -> np.ndarray:
    """Iteration at which values (T, ...) pass `level` (...), between records along exp; NaN where they never do."""
    after = first_record(iteration, values >= level)
    before = np.where(after > 0, after - 1, after)
    x0, x1 = np.log(at(values, before)), np.log(at(values, after))
    t0, t1 = iteration[before].astype(float), iteration[after]
    share = np.where(x1 > x0, (np.log(level) - x0) / np.where(x1 > x0, x1 - x0, 1), 0)
    return np.where(after >= 0, t0 + share * (t1 - t0), np.nan)


@entry(
    "E.6",
    GROUP,
    "Non-robust features take off in spite of noise",
    statement="After a polynomial time the non-robust feature of every class has grown beyond its initial order; our "
    f"reading: max_r B_{{i,r}} reaches {TAKEN_OFF:g} times its start, at the time predicted without noise.",
    formula="exists T_0 = poly: max_r B_{i,r}^(T_0) = Theta(1); predicted T_0 = (x_0^(2-q) - L^(2-q)) / ((q-2) "
    "kappa_B)",
    rule=f"share of seeds' classes that take off within the default configuration: lower Wilson end >= {SHARE:g}, and "
    "median "
    f"relative error of the time <= {TIME_ERROR:g}; margin: the smaller of the distance to {SHARE:g} and 1 - error / "
    "allowed",
)
class TakeOff:
    def measure(lab):
        story = lab.story(False)
        c, B = story.config, story.history["B"].max(axis=-1)
        n = {"n_robust": c.n_robust, "n_nonrobust": c.n_patches - c.n_robust}
        names = ("n_classes", "alpha", "beta", "q", "rho", "lr")
        theory = LeadingOrder(**{name: getattr(c, name) for name in names}, **n)
        iteration = story.history["iteration"]
        return {
            "iteration": iteration,
            "B": B,
            "measured": crossing(iteration, B, TAKEN_OFF * B[0]),
            "predicted": theory.take_off_time("B", B[0], TAKEN_OFF * B[0]),
        }

    def judge(m):
        seen = np.isfinite(m["measured"])
        low, high = wilson(seen.sum(), seen.size)
        error = np.abs(m["measured"] / m["predicted"] - 1)[seen]
        typical_error = float(np.median(error)) if seen.any() else np.inf
        return Judgement(
            f"every class reaches {TAKEN_OFF:g} times its start, at {spread(m['predicted'])} iterations",
            f"{seen.sum()} of {seen.size} seeds' classes do [{low:.2f}, {high:.2f}], at {spread(m['measured'])} "
            f"iterations; relative error of the noiseless prediction {spread(error)}",
            min(low - SHARE, 1 - typical_error / TIME_ERROR),
        )

    def draw(axis, m):
        x, y = m["predicted"].ravel(), m["measured"].ravel()
        axis.plot(x, y, "o", color=NON_ROBUST, ms=4, mew=0, alpha=0.7, label=f"max_r B = {TAKEN_OFF:g} times its start")
        ends = np.array([0.9 * np.nanmin(np.minimum(x, y)), 1.1 * np.nanmax(np.maximum(x, y))])
        axis.plot(ends, ends, color="k", lw=0.8, label="as predicted without noise")
        axis.fill_between(ends, ends * (1 - TIME_ERROR), ends * (1 + TIME_ERROR), color="0.5", alpha=0.12, lw=0)
        axis.set_xlabel("predicted iteration, (x_0^(2-q) - L^(2-q)) / ((q-2) kappa_B)")
        axis.set_ylabel("measured iteration")


late_entry(
    "E.7", False, "For late times standard training has learned the non-robust feature of every class while the robust "
    "features, other classes' features and noise stay at their initial order; our reading: of noise, its orthogonal "
    "part.",
    "max_r B_{i,r} = O~(1), large; max_r A_{i,r}, max_{r, j != i} <w_{i,r}, u_j>, <w_{i,r}, v_j> = O~(sigma_0); "
    "|<w_{i,r}, xi_perp>| = O~(sigma_0 sigma_n sqrt(d))",
)  # fmt: skip
book_entry(
    "E.9", True, "In adversarial training too every weight is its start plus a combination of training patches; our "
    "reading: plus the sum of all perturbations that steps have added, booked on its own.",
    "w_{i,r}^(t) = w_{i,r}^(0) + sum_j (c_{u_j} u_j + c_{v_j} v_j) + sum_{n,p} a_{i,r,n,p} xi_{n,p} + D_{i,r}, "
    "D_{i,r} += sum (eta/N) e_{n,i} sigma'(<w_{i,r}, x~_{n,p}>) delta_{n,p}",
)  # fmt: skip
size_entry("E.10", True, "orthogonal", NOTES["orthogonal"])
size_entry("E.10 (whole)", True, "whole", NOTES["whole"])
late_entry(
    "E.11", True, "For late times adversarial training has learned the robust feature of every class while the "
    "non-robust one "
    "stays at its plateau, other classes' features and noise at their initial order; our reading: of noise, its "
    "orthogonal part.",
    "max_r A_{i,r} = O~(1), large; (sum_r (B_{i,r})_+^q)^(1/q) <= 1.1 B*, (B*)^q = rho^(q-1) beta^(2-q) / eta~; "
    "off-diagonals O~(sigma_0); |<w_{i,r}, xi_perp>| = O~(sigma_0 sigma_n sqrt(d))",
)  # fmt: skip

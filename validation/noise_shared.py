"""Entries with noise that come twice, for standard and adversarial training: Lemma E.2/E.9, E.3/E.10, E.7/E.11."""

from __future__ import annotations

import numpy as np

from ..patches.features import q_sum
from ..reporting.style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST
from . import noise_runs
from .ledger import Assumption, Judgement, entry
from .noise_runs import SWEEPS
from .standard import EXACT, fit_paired, within
from .statistics import shortfall, spread, wilson

GROUP = "with noise"
NAMES = {False: "standard", True: "adversarial"}
SMALL = 2.0  # times the scale: the largest of k m N P Gaussians is up to 1.3 of it
SLACK = 0.25  # of an exponent that is predicted to be 0
SYMBOLS = dict(zip(SWEEPS, ("sigma_n", "sigma_0", "d", "N", "P")))
XI, DIMS = {"orthogonal": "xi_perp", "whole": "xi"}, {"orthogonal": "d - 2k", "whole": "d"}
SHARE = 0.75  # of seeds and classes; 20 of 20 have the interval [0.84, 1]


# ------------------------------------------------------------------ E.2, E.9
def judge_books(m) -> Judgement:
    end = {name: float(part[-1]) for name, part in m["parts"].items()}
    lengths = ", ".join(f"{name} {value:.3g}" for name, value in end.items())
    error, T = m["deviation"], len(m["deviation"])
    moved = max(end.values()) / float(m["start"])
    return Judgement(
        "W = W(0) + features + noise + perturbations",
        "relative deviation " + ", ".join(f"{error[i]:.1e} at t = {m['iteration'][i]}" for i in (0, T // 2, T - 1))
        + f"; largest of {T} records {error.max():.1e}; lengths at the end: {lengths}, start {float(m['start']):.3g}",
        shortfall(error, EXACT),
        [Assumption("training moves w", f"by {moved:.2g} times its start's length", ">= 1", moved >= 1)],
    )  # fmt: skip


def draw_books(axis, m):
    """Lengths of the parts, and the network's distance from their sum."""
    colors = {"features": NON_ROBUST, "noise": PAPER, "perturbations": ROBUST}
    for name, part in m["parts"].items():
        if part.any():
            axis.semilogy(m["iteration"][1:], part[1:], color=colors[name], label=f"{name}, |sum| over all neurons")
    axis.axhline(m["start"], color="0.6", lw=1, label="W(0)")
    axis.semilogy(m["iteration"], np.maximum(m["deviation"], 1e-18), ".-", color=ACCURACY, lw=0.8, label="deviation")
    axis.axhline(EXACT, color=ACCURACY, ls="--", lw=1)
    axis.annotate("allowed", (0, EXACT), textcoords="offset points", xytext=(0, 3), fontsize=7)
    axis.set_ylim(1e-18, 1e5)
    axis.set_xlabel("iteration")
    axis.set_ylabel("length; relative deviation (0 at 1e-18)")


def book_entry(label, adversarial, statement, formula):
    parts = {
        "measure": lambda lab: lab.once(("books", adversarial), lambda: noise_runs.books(adversarial)),
        "judge": judge_books,
        "draw": draw_books,
    }
    entry(
        label, GROUP, f"Weight decomposition, {NAMES[adversarial]} training", statement=statement, formula=formula,
        rule=f"largest difference from the network's weights over 21 records <= {EXACT:g} of the largest weight "
        "(float64, k = 3, m = 4, d = 32, P = 16, N = 24, sigma_n = 0.05); margin: decades below that",
    )(type("Books", (), parts))  # fmt: skip


# ------------------------------------------------------------------ E.3, E.10
def over_scale(m, kind) -> dict[str, np.ndarray]:
    """Largest noise correlation over the scale, (values, seeds) per sweep."""
    return {name: np.stack([r["largest"][kind] / r["scale"][kind] for r in rows]) for name, rows in m["sweeps"].items()}


def told_whole(m) -> str:
    """What the whole correlation is of the feature-noise scale, and where features stay O(1)."""
    rows, one = [r for rows in m["sweeps"].values() for r in rows], m["order one"]
    late = np.concatenate([(r["history"]["whole"][-1] / r["feature_noise"])[r["features"] > 3] for r in rows])
    return (
        f"; {spread(late)} of sigma_n sqrt(2 log kmNP) max(A, B) at the end where max(A, B) > 3; with rho = 1, where "
        f"max(A, B) ends at {spread(one['features'])}, {spread(one['largest']['whole'] / one['initial']['whole'])} "
        "times the start's maximum"
    )


def told_cancellation(m) -> str:
    """The terms of the correlation that memorises most, in one adversarial run."""
    toward, scale = m["books"]["orthogonal"], m["sweeps"]["n_train"][1]["scale"]["orthogonal"]
    names, most = ("start", "self", "other noise", "perturbations"), np.abs(toward[1]).argmax()
    parts = ", ".join(f"{name} {value:+.3f}" for name, value in zip(names, toward[:, most]))
    return (
        f"; terms are not small one by one: in one run the <w, xi_perp> with the largest self term ends as {parts}, "
        f"and terms of up to {np.abs(toward[1:]).max() / scale:.2g} scales leave "
        f"{np.abs(toward.sum(axis=0)).max() / scale:.2g}"
    )


def judge_sizes(kind):
    def judge(m):
        ratio = over_scale(m, kind)
        fits = {name: fit_paired(SWEEPS[name], values) for name, values in ratio.items()}
        rows = [r for rows in m["sweeps"].values() for r in rows]
        grown = [r["largest"][kind] / r["initial"][kind] for r in rows]
        end, start, scale = (m["default"][name][kind] for name in ("end", "initial", "scale"))
        worst = np.max([np.max(end / scale), *(values.max() for values in ratio.values())])
        off = np.median([np.median(r["grown"]) for r in rows])
        exponents = ", ".join(f"{SYMBOLS[name]} {fit}" for name, fit in fits.items())
        told = told_whole(m) if kind == "whole" else told_cancellation(m) if "books" in m else ""
        return Judgement(
            f"<= {SMALL:g} scales; exponents 0",
            f"largest / scale {spread(list(ratio.values()))}, default's end {spread(end / scale)}; growth over the "
            f"start's maximum {spread(grown)}, default's end {spread(end / start)}; exponents of largest / scale in "
            f"{exponents}{told}",
            float(np.min([1 - worst / SMALL, *(within(fit, 0, SLACK) for fit in fits.values())])),
            [Assumption("features take off", f"median max(A, B) / start {off:.3g}", ">= 10", bool(off >= 10))],
        )

    return judge


def draw_sizes(kind):
    def draw(axis, m):
        """Every run's largest noise correlation over the scale, with the bound."""

        def points(rows, marker, **style):
            y = [r["largest"][kind] for r in rows]
            x = np.concatenate([np.full(len(v), r["scale"][kind]) for v, r in zip(y, rows)])
            axis.loglog(x, np.concatenate(y), marker, **style)

        for (name, rows), color in zip(m["sweeps"].items(), (NON_ROBUST, ROBUST, PAPER, CERTIFIED, "0.5")):
            points(rows, "o", ms=3.5, mew=0, alpha=0.6, color=color, label=f"{SYMBOLS[name]} changed")
        points([m["order one"]], "x", ms=4, color="k", label="rho = 1, features O(1)")
        default = m["default"] | {"largest": m["default"]["end"]}
        points([default], "D", ms=4, color=ACCURACY, mfc="none", label="default, at its end")
        x = np.array(axis.get_xlim())
        axis.plot(x, x, color="0.6", lw=0.8, label="the scale")
        axis.plot(x, SMALL * x, "k--", lw=1, label=f"bound, {SMALL:g} scales")
        axis.set_xlim(*x)
        axis.set_xticks([0.05, 0.1, 0.2, 0.4], ["0.05", "0.1", "0.2", "0.4"])
        axis.set_xticks([], minor=True)
        axis.set_xlabel(f"scale sigma_0 sigma_n sqrt({DIMS[kind]}) sqrt(2 log kmNP)")
        axis.set_ylabel(f"max |<w, {XI[kind]}>| over the run")

    return draw


def size_entry(label, adversarial, kind, note):
    def measure(lab):
        found = noise_runs.swept(lab, adversarial)
        if adversarial and kind == "orthogonal":
            found = found | {"books": lab.once(("books", True), lambda: noise_runs.books(True))}
        return found

    entry(
        label, GROUP, f"Noise correlations are always small, {NAMES[adversarial]} training, {kind}",
        statement=f"In {NAMES[adversarial]} training no neuron's correlation with the noise of any training patch "
        f"ever exceeds its initial order; our reading: {note}.",
        formula=f"max_t max_(i,r,n,p) |<w_{{i,r}}^(t), {XI[kind]}_{{n,p}}>| = O~(sigma_0 sigma_n sqrt({DIMS[kind]}))",
        rule=f"largest over the run <= {SMALL:g} scales in every run (16 seeds; sigma_n, sigma_0, d, N, P changed one "
        f"at a time; the default configuration at its end), and (largest / scale) ~ x^0 within +- {SLACK:g} in each, "
        "interval and all; margin: the smaller of 1 - largest / allowed and 1 - |exponent| / allowed",
    )(type("Sizes", (), {"measure": measure, "judge": judge_sizes(kind), "draw": draw_sizes(kind)}))  # fmt: skip


NOTES = {
    "orthogonal": "this is about xi's part orthogonal to all features, since <w, f><f, xi> is no memorised noise",
    "whole": "literally, all of xi, features' directions included; it can hold only while |w| keeps its initial size",
}


# ------------------------------------------------------------------ E.7, E.11
LARGE, STAYS, OFF_GROWTH, PLATEAU = 10.0, 5.0, 2.0, 1.1
SCALE = "A's scale"


def measure_late(lab, adversarial: bool) -> dict:
    """End of the default configuration per seed and class (R, k), noise per seed (R,); scales of the start."""
    story = lab.story(adversarial)
    c, h, noise = story.config, story.history, noise_runs.default_sizes(lab, adversarial)
    off = np.stack([h["off_u"], h["off_v"]])[..., 1]  # the largest, (2, T, R, k)
    return {
        "iteration": h["iteration"],
        "A": h["A"].max(axis=-1),
        "B": h["B"].max(axis=-1),
        "strength of B": q_sum(h["B"][-1], c.q),
        SCALE: c.init_std * np.sqrt(2 * np.log(c.n_neurons)),
        "plateau": c.plateau(),
        "off-diagonal growth": (off.max(axis=1) / off[:, 0]).max(axis=0),
        "noise": noise["end"]["orthogonal"] / noise["scale"]["orthogonal"],
        "noise_std": c.noise_std,
    }


def late_parts(m, adversarial: bool) -> dict[str, np.ndarray]:
    """(R, k) bool for every part of the statement."""
    A, B, shape = m["A"], m["B"], m["A"].shape[1:]
    small = {
        f"off-diagonals <= {OFF_GROWTH:g} starts": m["off-diagonal growth"] <= OFF_GROWTH,
        f"noise <= {SMALL:g} scales": np.broadcast_to((m["noise"] <= SMALL)[:, None], shape),
    }
    if adversarial:
        large = {f"A >= {LARGE:g} starts": A[-1] >= LARGE * A[0]}
        return large | {f"B <= {PLATEAU:g} B*": m["strength of B"] <= PLATEAU * m["plateau"]} | small
    large = {f"B >= {LARGE:g} starts": B[-1] >= LARGE * B[0]}
    return large | {f"A <= {STAYS:g} sigma_0 sqrt(2 log m)": A[-1] <= STAYS * m[SCALE]} | small


def judge_late(adversarial):
    def judge(m):
        parts = late_parts(m, adversarial)
        shares = {name: (int(part.sum()), part.size) for name, part in parts.items()}
        low = {name: wilson(*share)[0] for name, share in shares.items()}
        B = f"strength of B / B* {spread(m['strength of B'] / m['plateau'])}" if adversarial else (
            f"B / start {spread(m['B'][-1] / m['B'][0])}"
        )  # fmt: skip
        A = f"A / start {spread(m['A'][-1] / m['A'][0])}, A / (sigma_0 sqrt(2 log m)) {spread(m['A'][-1] / m[SCALE])}"
        return Judgement(
            f"every part for a share >= {SHARE:g} of seeds and classes",
            "; ".join(f"{name}: {n} of {total} (>= {low[name]:.2f})" for name, (n, total) in shares.items())
            + f"; {B}; {A}; off-diagonals / start {spread(m['off-diagonal growth'])}; orthogonal noise / scale "
            f"{spread(m['noise'])}",
            min(low.values()) - SHARE,
            [Assumption("noise", f"sigma_n = {m['noise_std']:g}", "> 0", m["noise_std"] > 0)],
        )

    return judge


def draw_late(adversarial):
    def draw(axis, m):
        for name, color in (("A", ROBUST), ("B", NON_ROBUST)):
            lines = axis.plot(m["iteration"], m[name].reshape(len(m["iteration"]), -1), color=color, lw=0.7, alpha=0.5)
            lines[0].set_label(f"max_r {name}, a seed's class each")
        bound, color = (PLATEAU * m["plateau"], NON_ROBUST) if adversarial else (STAYS * m[SCALE], ROBUST)
        label = f"B allowed, {PLATEAU:g} B*" if adversarial else f"A allowed, {STAYS:g} sigma_0 sqrt(2 log m)"
        axis.axhline(bound, color=color, ls="--", lw=1.2, label=label)
        axis.set_yscale("log")
        axis.set_xlabel("iteration")
        axis.set_ylabel("correlation")

    return draw


def late_entry(label, adversarial, statement, formula):
    first = f"A >= {LARGE:g} times its start, (sum_r B_+^q)^(1/q) <= {PLATEAU:g} B*" if adversarial else (
        f"B >= {LARGE:g} times its start, A <= {STAYS:g} sigma_0 sqrt(2 log m)"
    )  # fmt: skip
    parts = {
        "measure": lambda lab: measure_late(lab, adversarial),
        "judge": judge_late(adversarial),
        "draw": draw_late(adversarial),
    }
    entry(
        label, GROUP, f"What {NAMES[adversarial]} training has learned",
        statement=statement, formula=formula,
        rule=f"at the end of the default configuration: {first}, largest off-diagonal over the run <= {OFF_GROWTH:g} "
        "times "
        f"its start, orthogonal noise <= {SMALL:g} scales; margin: the smallest of the shares' lower Wilson ends - "
        f"{SHARE:g}",
    )(type("Late", (), parts))  # fmt: skip

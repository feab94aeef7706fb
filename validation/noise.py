"""Training with noise, Lemma E.2-E.7 and E.9-E.11; E.1 and E.8 are among the theorems."""

from dataclasses import replace
from functools import partial

import numpy as np

from ..patches.features import q_sum
from ..reporting.pictures import Picture, diagonal, line, mark, points
from ..reporting.style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST
from ..theory.events import crossing
from . import noise_runs
from .ledger import EXACT, Check, Entry, Judgement, exact, exponent, near, share, sure
from .noise_runs import SWEEPS, TERMS
from .statistics import OF_ORDER, fit_paired, order_of, spread

GROUP = "with noise"
NAMES = {False: "standard", True: "adversarial"}


# ------------------------------------------------------------------ E.2, E.9
def judge_books(m) -> Judgement:
    end = {name: float(part[-1]) for name, part in m["parts"].items()}
    start = float(m["start"])
    lengths = ", ".join(f"{name} {value:.3g}" for name, value in end.items())
    return Judgement(
        [exact("largest difference from the network's weights at any record, of the largest weight", m["deviation"])],
        f"lengths at the end: {lengths}, start {start:.3g}",
        [Check("training moves w: times its start's length", max(end.values()) / start, ">=", 1)],
    )


def draw_books(m):
    """Lengths of the parts, and the network's distance from their sum."""
    colors = {"features": NON_ROBUST, "noise": PAPER, "perturbations": ROBUST}
    layers = [line(m["iteration"][1:], part[1:], f"{name}, |sum| over all neurons", colors[name])
              for name, part in m["parts"].items() if part.any()]  # fmt: skip
    layers += [mark(y=m["start"], label="W(0)", style="-"), mark(y=EXACT, label="allowed", color=ACCURACY),
               line(m["iteration"], np.maximum(m["deviation"], 1e-18), "deviation", ACCURACY, ".-")]  # fmt: skip
    return Picture("iteration", "length; relative deviation (0 at 1e-18)", layers, "y", ylim=(1e-18, 1e5))  # fmt: skip


# ------------------------------------------------------------------ E.3, E.10
SMALL = 1.4  # times the scale: with probability 1e-3 the largest of k m N P Gaussians passes 1.28 to 1.38 of it
SLACK = 0.25  # of an exponent that is predicted to be 0
SYMBOLS = dict(zip(SWEEPS, ("sigma_n", "sigma_0", "d", "N", "P")))
XI, DIMS = {"orthogonal": "xi_perp", "whole": "xi"}, {"orthogonal": "d - 2k", "whole": "d"}
NOTES = {
    "orthogonal": "this is about xi's part orthogonal to all features, since <w, f><f, xi> is no memorised noise",
    "whole": "literally, all of xi, features' directions included; it can hold only while |w| keeps its initial size",
}


def told(m, kind) -> str:
    """Of the whole correlation: its feature-noise scale, and where features stay O(1); of the orthogonal part: the
    terms of the correlation that memorises most, in one adversarial run."""
    if kind == "whole":
        rows, one = [r for rows in m["sweeps"].values() for r in rows], m["order one"]
        late = np.concatenate([(r["history"]["whole"][-1] / r["feature_noise"])[r["features"] > 3] for r in rows])
        return (f"; {spread(late)} of sigma_n sqrt(2 log kmNP) max(A, B) at the end where max(A, B) > 3; with rho = 1, "
                f"where max(A, B) ends at {spread(one['features'])}, "
                f"{spread(one['largest']['whole'] / one['initial']['whole'])} times the start's maximum")  # fmt: skip
    if "books" not in m:
        return ""
    toward, scale = m["books"]["orthogonal"], m["sweeps"]["n_train"][1]["scale"]["orthogonal"]
    names, most = ("start", "self", "other noise", "perturbations"), np.abs(toward[1]).argmax()
    parts = ", ".join(f"{name} {value:+.3f}" for name, value in zip(names, toward[:, most]))
    terms, left = np.abs(toward[1:]).max() / scale, np.abs(toward.sum(axis=0)).max() / scale
    memorised = "; the <w, xi_perp> with the largest self term of a run ends as"
    return f"{memorised} {parts}; terms of up to {terms:.2g} scales leave {left:.2g}"


def judge_sizes(kind, m, nearly: bool = False) -> Judgement:
    """The size of every run, or of `nearly` all, and that it goes with the scale."""
    sweeps = m["sweeps"].items()
    ratio = {name: np.stack([r["largest"][kind] / r["scale"][kind] for r in rows]) for name, rows in sweeps}
    rows = [r for _, rows in sweeps for r in rows]
    grown = [r["largest"][kind] / r["initial"][kind] for r in rows]
    end, start, scale = (m["default"][name][kind] for name in ("end", "initial", "scale"))
    every = np.concatenate([end / scale, *(values.ravel() for values in ratio.values())])
    runs = "run (16 seeds, sigma_n, sigma_0, d, N, P changed one at a time; the default at its end)"
    return Judgement(
        [sure(f"largest correlation <= {SMALL:g} scales, {runs}", every <= SMALL, SHARE) if nearly else
         Check(f"largest correlation of every {runs}, in scales", every, "<=", SMALL, "share"),
         *(exponent(f"largest / scale, exponent in {SYMBOLS[name]}", fit_paired(SWEEPS[name], values), 0, SLACK)
           for name, values in ratio.items())],
        f"growth over the start's maximum {spread(grown)}, default's end {spread(end / start)}{told(m, kind)}",
        [Check("median max(A, B) / start", np.median([np.median(r["grown"]) for r in rows]), ">=", 10)],
    )  # fmt: skip


def draw_sizes(kind, m) -> Picture:
    """Every run's largest noise correlation over the scale, with the bound."""

    def of(rows, name="largest"):
        return (np.concatenate([np.full(len(r[name][kind]), r["scale"][kind]) for r in rows]),
                np.concatenate([r[name][kind] for r in rows]))  # fmt: skip

    x = np.array([0.02, 0.5])
    layers = [points(*of(rows), f"{SYMBOLS[name]} changed", color, size=3.5, alpha=0.6) for (name, rows), color in
              zip(m["sweeps"].items(), (NON_ROBUST, ROBUST, PAPER, CERTIFIED, "0.5"))]  # fmt: skip
    layers += [points(*of([m["order one"]]), "rho = 1, features O(1)", "k", "x", 4),
               points(*of([m["default"]], "end"), "default, at its end", ACCURACY, "D", 4, 1, mfc="none"),
               line(x, x, "the scale", "0.6"), line(x, SMALL * x, f"bound, {SMALL:g} scales", "k", "--")]  # fmt: skip
    return Picture(f"scale sigma_0 sigma_n sqrt({DIMS[kind]}) sqrt(2 log kmNP)",
                   f"max |<w, {XI[kind]}>| over the run", layers, "xy",
                   ticks={"x": ([0.02, 0.05, 0.1, 0.2, 0.4],) * 2})  # fmt: skip


def size_entry(label, adversarial, kind):
    def measure(lab):
        books = adversarial and kind == "orthogonal"
        return noise_runs.swept(lab, adversarial) | ({"books": noise_runs.books(lab, True)} if books else {})

    return Entry(
        label, GROUP, f"Noise correlations are always small, {NAMES[adversarial]} training, {kind}",
        f"In {NAMES[adversarial]} training no neuron's correlation with the noise of any training patch ever "
        f"exceeds its initial order; our reading: {NOTES[kind]}.",
        f"max_t max_(i,r,n,p) |<w_{{i,r}}^(t), {XI[kind]}_{{n,p}}>| = O~(sigma_0 sigma_n sqrt({DIMS[kind]}))",
        measure, partial(judge_sizes, kind), partial(draw_sizes, kind),
    )  # fmt: skip


# ------------------------------------------------------------------ E.4
EXPONENTS = {"self": (2, 1), "noise": (2, 0.5), "feature": (1, 0), "perturbation": (1, 0)}  # in sigma_n and d
SIZES = {"noise_std": (0.0125, 0.025, 0.05), "patch_dim": (32, 64, 96)}
FACTOR, NEAR = 2.0, 0.3


def noise_updates(lab):
    found = {"standard": noise_runs.terms(False, lab.first), "adversarial": noise_runs.terms(True, lab.first)}
    for name, values in SIZES.items():
        found[name] = [found["adversarial"] if v == getattr(noise_runs.NOISY, name)
                       else noise_runs.terms(True, lab.first, 6, **{name: v}) for v in values]  # fmt: skip
    return found


def slope(x, runs, term) -> float:
    """Exponent in x of a term's size per unit of what g makes of the other factor, in the median over looks."""
    typical = [np.median(r["gain"][term][r["gain"][term] > 0]) for r in runs]
    return float(np.polyfit(np.log(x), np.log(np.ravel(typical)), 1)[0])


def judge_dominance(m):
    """The claim: <w, xi> goes where the error of xi's own sample sends it."""
    what = {"follows": "share of <w, xi> that a step moves with the sign of the label's error",
            "dominates": "share of <w, xi> whose self term is no smaller than all others together"}  # fmt: skip
    return Judgement([
        Check(f"{text}, {name} training, every look", m[name][part], ">=", SHARE, shown=spread(m[name][part]))
        for name in NAMES.values() for part, text in what.items()])  # fmt: skip


def judge_noise_updates(m):
    runs = [m["standard"], m["adversarial"], *(r for name in SIZES for r in m[name])]
    ratio = {t: np.concatenate([r["ratio"][t][r["size"][t] > 0] for r in runs]) for t in TERMS}
    slopes = {t: [slope(values, m[name], t) for name, values in SIZES.items()] for t in TERMS}
    size = m["adversarial"]["size"]
    sizes = ", ".join(f"{t} {np.median(size[t] / size['self']):.3g}" for t in TERMS[1:])
    return Judgement(
        [exact("the terms' sum less the network's step, of the largest change", [r["error"].max() for r in runs]),
         Check("share of self terms with the sign of e", [r["sign"].min() for r in runs], ">=", 1, "flag"),
         *(Check(f"{t}: |log| of size over its scale at every look", np.abs(np.log(ratio[t])), "<=", np.log(FACTOR),
                 "share", f"ratio {spread(ratio[t])}") for t in TERMS),
         *(near(f"{t}: exponent in {name}", got, expected, NEAR) for t in TERMS
           for name, got, expected in zip(("sigma_n", "d"), slopes[t], EXPONENTS[t]))],
        f"adversarial, of the self term in the median: {sizes}",
    )  # fmt: skip


# ------------------------------------------------------------------ E.5
SMALL_LOGIT, GROWTH, KEPT, AS_WITHOUT = 1.0, 0.85, 0.5, 0.1


def judge_as_without_noise(m):
    """While all of a class's own correlations are small, both sides of "as without noise"."""
    early, ratio = m["top"] <= m["order"], m["step"] / m["leading"]
    when = f"at every look at a seed's class with max_r B <= {OF_ORDER:g} sigma_0 sqrt(2 log m)"
    return Judgement(
        [Check(f"1 - logit_i of 1 - 1/k, less 1, {when}", 1 - m["derivative"][early] / (1 - 1 / m["n_classes"]), "<=",
               AS_WITHOUT, "share"),
         Check(f"step of max_r B over the leading order, less 1, {when}", np.abs(ratio[early] - 1), "<=", AS_WITHOUT,
               "share")],
        f"{early.sum()} looks; step / leading order {spread(ratio[early])}", [Check("noise", m["noise_std"], ">", 0)],
    )  # fmt: skip


def judge_early(m):
    early, least = m["logit"] <= SMALL_LOGIT, KEPT * (1 - 1 / m["n_classes"])
    ratio = m["step"] / m["leading"]
    looks = np.flatnonzero(early.any(axis=(1, 2)))[[0, -1]]
    start, late = (np.median(ratio[t][early[t]]) for t in looks)
    when = f"at every look at a seed's class with F_i <= {SMALL_LOGIT:g}"
    return Judgement(
        [Check(f"1 - logit_i {when}", m["derivative"][early], ">=", least, "share"),
         Check(f"step of max_r B over the leading order {when}", ratio[early], ">=", GROWTH, "share")],
        f"{early.sum()} looks; median step {start:.3f} at the start (noise adds to sigma'), {late:.3f} at the last "
        "looks",
        [Check("noise", m["noise_std"], ">", 0),
         Check("looks reach take-off: max_r B, times its start", (m["top"] / m["top"][0])[early].max(), ">=", 3)],
    )  # fmt: skip


# ------------------------------------------------------------------ E.6
TAKEN_OFF, TIME_ERROR = 1.0, 0.3  # a correlation of order one; of the time predicted without noise
SHARE = 0.9  # "for each class with high probability", of all seeds' classes


def nine_in_ten(what: str, right) -> Check:
    """The share itself: a quick run has too few classes for an interval's end."""
    return Check(f"{what}: share of all seeds' classes", np.mean(right), ">=", SHARE, shown=share(right))


def take_off(lab):
    story = lab.story(False)
    B, iteration = story.history["B"].max(axis=-1), story.history["iteration"]
    predicted = noise_runs.leading_order(story.config).take_off_time("B", B[0], TAKEN_OFF)
    measured = crossing(iteration, B, TAKEN_OFF)
    return {"iteration": iteration, "B": B, "measured": measured, "predicted": predicted}


def judge_take_off(m):
    seen = np.isfinite(m["measured"])
    error = np.abs(m["measured"] / m["predicted"] - 1)
    return Judgement(
        [nine_in_ten(f"max_r B reaches {TAKEN_OFF:g}", seen),
         nine_in_ten(f"within {TIME_ERROR:.0%} of the time that is predicted without noise", error <= TIME_ERROR)],
        f"predicted at {spread(m['predicted'])} iterations, measured at {spread(m['measured'])}, error {spread(error)}",
    )  # fmt: skip


# ------------------------------------------------------------------ E.7, E.11
PLATEAU = 1.1  # of B*: our 1 + o(1)


def measure_late(lab, adversarial: bool) -> dict:
    """End of the default configuration per seed and class (R, k), noise per seed (R,); scales of the start."""
    story = lab.story(adversarial)
    c, h, noise = story.config, story.history, noise_runs.default_sizes(lab, adversarial)
    off = np.stack([h["off_u"], h["off_v"]])[..., 1]  # the largest, (2, T, R, k)
    return {
        "iteration": h["iteration"], "A": h["A"].max(axis=-1), "B": h["B"].max(axis=-1),
        "strength of B": q_sum(h["B"][-1], c.q), "order": order_of(c), "plateau": c.plateau(),
        "off-diagonal": off.max(axis=(0, 1)), "off-diagonal growth": (off.max(axis=1) / off[:, 0]).max(axis=0),
        "noise": noise["end"]["orthogonal"] / noise["scale"]["orthogonal"], "noise_std": c.noise_std,
    }  # fmt: skip


def judge_late(adversarial, m) -> Judgement:
    A, B, strength, size = m["A"], m["B"], m["strength of B"], f"<= {OF_ORDER:g} sigma_0 sqrt(2 log m)"
    parts = {
        f"A > {OF_ORDER:g} sigma_0 sqrt(2 log m)": A[-1] > m["order"],
        f"(sum_r B_+^q)^(1/q) <= {PLATEAU:g} B*": strength <= PLATEAU * m["plateau"],
    } if adversarial else {
        f"B > {OF_ORDER:g} sigma_0 sqrt(2 log m)": B[-1] > m["order"],
        f"A {size}": A[-1] <= m["order"],
    }  # fmt: skip
    parts[f"off-diagonals always {size}"] = m["off-diagonal"] <= m["order"]
    parts[f"orthogonal noise <= {SMALL:g} scales"] = np.broadcast_to((m["noise"] <= SMALL)[:, None], A.shape[1:])
    told = f"B / B* {spread(strength / m['plateau'])}" if adversarial else f"B / start {spread(B[-1] / B[0])}"
    return Judgement(
        [nine_in_ten(name, part) for name, part in parts.items()],
        f"{told}; A / start {spread(A[-1] / A[0])}, in sigma_0 sqrt(2 log m) {spread(OF_ORDER * A[-1] / m['order'])}; "
        f"off-diagonals / start {spread(m['off-diagonal growth'])}; orthogonal noise / scale {spread(m['noise'])}",
        [Check("noise", m["noise_std"], ">", 0)],
    )  # fmt: skip


def draw_late(adversarial, m) -> Picture:
    layers = [line(m["iteration"], m[name], f"max_r {name}, a seed's class each", color, lw=0.7, alpha=0.5)
              for name, color in (("A", ROBUST), ("B", NON_ROBUST))]  # fmt: skip
    name, most, color = ("B", PLATEAU * m["plateau"], NON_ROBUST) if adversarial else ("A", m["order"], ROBUST)
    bound = mark(y=most, label=f"{name} allowed", color=color)
    return Picture("iteration", "correlation", [*layers, bound], "y")  # fmt: skip


def draw_noise_updates(m):
    return Picture("iteration", "rms of a step's term of <w, xi>; dots: predicted", [
        layer for (training, style), shown in zip((("standard", "--"), ("adversarial", "-")), (TERMS[:3], TERMS))
        for term, color in zip(shown, (NON_ROBUST, PAPER, ROBUST, CERTIFIED)) for layer in (
            line(m[training]["iteration"], m[training]["size"][term], f"{term}, {training}", color, style),
            points(m[training]["iteration"], m[training]["size"][term] / m[training]["ratio"][term], None, color, "."))
    ], "y")  # fmt: skip


def draw_early(m):
    return Picture("max_r B of the class; dashed: least allowed", "ratio; 1 - logit", [
        points(m["top"], m["step"] / m["leading"], "step / leading order", "0.75"),
        *(points(m["top"], np.where(m["logit"] <= SMALL_LOGIT, values, np.nan), label, color, marker)
          for values, label, color, marker in ((m["step"] / m["leading"], "the same, F_i <= 1", NON_ROBUST, "o"),
                                               (m["derivative"], "1 - logit_i, F_i <= 1", ROBUST, "."))),
        mark(y=GROWTH, color=NON_ROBUST), mark(y=KEPT * (1 - 1 / m["n_classes"]), color=ROBUST), mark(y=1, style="-"),
    ], "x", ylim=(0.3, 1.4))  # fmt: skip


E2 = Entry(
    "E.2", GROUP, "Weight decomposition, standard training",
    "Every weight is its start plus a combination of the training patches; our reading: with the coefficients that "
    "the gradient steps book, split into features and every patch's noise, exactly.",
    "w_{i,r}^(t) = w_{i,r}^(0) + sum_j (c_{u_j} u_j + c_{v_j} v_j) + sum_{n,p} a_{i,r,n,p} xi_{n,p}, a_{i,r,n,p} += "
    "(eta/N) e_{n,i} sigma'(<w_{i,r}, x_{n,p}>)",
    partial(noise_runs.books, adversarial=False), judge_books, draw_books,
)  # fmt: skip
E3, E3_WHOLE = size_entry("E.3", False, "orthogonal"), size_entry("E.3 (whole)", False, "whole")
E3_NEARLY = replace(
    E3, label="E.3 (nearly all)", title="Noise correlations are small in nearly all runs, standard training",
    statement="In standard training the correlations with the orthogonal part of the noise stay of their initial order "
    "in nine runs of ten; a class that learns the robust feature memorises its noise.",
    judge=partial(judge_sizes, "orthogonal", nearly=True), source="ours", weaker_than="E.3",
)  # fmt: skip
E4 = Entry(
    "E.4", GROUP, "Noise correlation update",
    "A step raises <w_{i,r}, xi_{n,p}> where i is the sample's own class and lowers it elsewhere, since the term of "
    "the sample's own noise dominates all others.",
    "sign <Delta w_{i,r}, xi_{n,p}> = sign e_{n,i}; |<Delta w_{i,r}, xi_{n,p}> - g |xi_{n,p}|^2| <= |g| |xi_{n,p}|^2, "
    "g = (eta/N) e_{n,i} sigma'(.)",
    noise_updates, judge_dominance, draw_noise_updates,
)  # fmt: skip
E4_TERMS = Entry(
    "E.4 (terms)", GROUP, "Noise correlation update, term by term",
    "A step changes <w_{i,r}, xi_{n,p}> by a self term with the sign of the label's error, up for the sample's own "
    "class and down for others, and by terms from all patches: from noise, features and, in adversarial training, "
    "perturbations, of the sizes below, most of them larger than the self term.",
    "<Delta w_{i,r}, xi_{n,p}> = g |xi_{n,p}|^2 + sum' g' <xi', xi_{n,p}> + sum g' <s', xi_{n,p}> + sum g' <delta', "
    "xi_{n,p}>, g = (eta/N) e_{n,i} sigma'(.); inner products ~ sigma_n^2 d, sigma_n^2 sqrt(d), sigma_n, sigma_n "
    "|delta'|",
    noise_updates, judge_noise_updates, draw_noise_updates, "ours", weaker_than="E.4",
)  # fmt: skip
E5 = Entry(
    "E.5", GROUP, "Early growth with noise",
    "While all correlations of a class are of the order sigma_0 its loss derivative stays what it was and its "
    "non-robust feature grows as without noise; our reading: both within 10%.",
    "max_r B_{i,r} = O~(sigma_0) => 1 - logit_i = (1 - o(1)) (1 - 1/k), max_r B_{i,r} += (1 +- o(1)) (eta/N) sum_n "
    "(1 - logit_i) rho^(1-q) P_NR beta^q B_{i,r}^(q-1)",
    noise_runs.early, judge_as_without_noise, draw_early,
)  # fmt: skip
E5_LEAST = Entry(
    "E.5 (at least)", GROUP, "Early growth with noise, at least that without",
    "While F_i <= 1 a class's loss derivative is at least half its initial value and its non-robust feature grows by "
    "85% of the leading order at least: noise adds to the activation's slope.",
    "F_i <= 1 => 1 - logit_i = Theta(1), max_r B_{i,r} += (1 - o(1)) (eta/N) sum_n (1 - logit_i) rho^(1-q) P_NR "
    "beta^q B_{i,r}^(q-1) or more",
    noise_runs.early, judge_early, draw_early, "ours", weaker_than="E.5",
)  # fmt: skip
E6 = Entry(
    "E.6", GROUP, "Non-robust features take off in spite of noise",
    "After a polynomial time the non-robust feature of every class is of order one; our reading: max_r B_{i,r} reaches "
    "1, within 30% of the time predicted without noise.",
    "exists T_0 = poly: max_r B_{i,r}^(T_0) = Theta(1); predicted T_0 = (x_0^(2-q) - L^(2-q)) / ((q-2) kappa_B)",
    take_off, judge_take_off,
    lambda m: Picture("predicted iteration, without noise", "measured iteration", [
        *diagonal(0.9 * np.nanmin(m["predicted"]), 1.1 * np.nanmax(m["measured"]), "as predicted", TIME_ERROR),
        points(m["predicted"], m["measured"], "a seed's class each", NON_ROBUST)]),
)  # fmt: skip
E7 = Entry(
    "E.7", GROUP, "What standard training has learned",
    "For late times standard training has learned the non-robust feature of every class while the robust features, "
    "other classes' features and noise stay at their initial order; our reading: of noise, its orthogonal part.",
    "max_r B_{i,r} = O~(1), large; max_r A_{i,r}, max_{r, j != i} <w_{i,r}, u_j>, <w_{i,r}, v_j> = O~(sigma_0); "
    "|<w_{i,r}, xi_perp>| = O~(sigma_0 sigma_n sqrt(d))",
    partial(measure_late, adversarial=False), partial(judge_late, False), partial(draw_late, False),
)  # fmt: skip
E9 = Entry(
    "E.9", GROUP, "Weight decomposition, adversarial training",
    "In adversarial training too every weight is its start plus a combination of training patches; our reading: "
    "plus the sum of all perturbations that steps have added, booked on its own.",
    "w_{i,r}^(t) = w_{i,r}^(0) + sum_j (c_{u_j} u_j + c_{v_j} v_j) + sum_{n,p} a_{i,r,n,p} xi_{n,p} + D_{i,r}, "
    "D_{i,r} += sum (eta/N) e_{n,i} sigma'(<w_{i,r}, x~_{n,p}>) delta_{n,p}",
    partial(noise_runs.books, adversarial=True), judge_books, draw_books,
)  # fmt: skip
E10, E10_WHOLE = size_entry("E.10", True, "orthogonal"), size_entry("E.10 (whole)", True, "whole")
E11 = Entry(
    "E.11", GROUP, "What adversarial training has learned",
    "For late times adversarial training has learned the robust feature of every class while the non-robust one "
    "stays at its plateau, other classes' features and noise at their initial order; our reading: of noise, its "
    "orthogonal part.",
    "max_r A_{i,r} = O~(1), large; (sum_r (B_{i,r})_+^q)^(1/q) <= 1.1 B*, (B*)^q = rho^(q-1) beta^(2-q) / eta~; "
    "off-diagonals O~(sigma_0); |<w_{i,r}, xi_perp>| = O~(sigma_0 sigma_n sqrt(d))",
    partial(measure_late, adversarial=True), partial(judge_late, True), partial(draw_late, True),
)  # fmt: skip

"""Theorems 4.3 and 4.4 on the noiseless population risk, from the exact recursion and its networks: D.1, D.12-D.15,
D.27, D.28."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from ..experiments.configuration import Figure3Config
from ..reporting.pictures import Picture, diagonal, level, line, mark, middle, points
from ..reporting.style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST
from ..robustness.evaluate import robust_accuracy
from ..theory import Recursion, State, population_types
from ..theory.events import first_time
from ..theory.outputs import class_margin, outputs, rivals, swapped
from ..training.loop import train
from . import theorems
from .across import LEVEL, SHARES, across, draw_window, over_window
from .lab import features_of, shared, simulated
from .ledger import EXACT, Check, Entry, Judgement, exact, share, sure
from .statistics import fit_exponent, spread
from .theorems import Premises

GROUP = "simplified setting"


# ------------------------------------------------------------------ measured
def ideal(lab) -> Figure3Config:
    """The default configuration without noise on `n_draws` seeds, one training sample per class: population risk.

    Positions of patches do not matter to network and gradient, so balanced samples without noise are the population.
    """
    k = lab.config().n_classes
    return lab.config(noise_std=0.0, dtype="float64", n_seeds=lab.n_draws, n_train=k, balanced=True)


@shared
def recursion(lab, adversarial: bool) -> Recursion:
    """The population's recursion from the drawn weights of `ideal`."""
    c = ideal(lab)
    types = population_types(c.n_classes, c.n_patches, c.n_robust, c.alpha, c.beta)
    start = State.from_weights(c.network().W, c.distribution().features)
    return simulated(c, start, types, adversarial, c.record_every)


@shared
def population(lab, adversarial: bool) -> dict:
    """Margins (T, R, k) along the recursion: ``clean``, with one feature left, and after the swap (the best y')."""
    c, found = ideal(lab), recursion(lab, adversarial)
    robust, non_robust = outputs(found.phi, c)
    own, other = swapped(robust, non_robust)
    return {
        "setting": Premises.of(c), "iteration": found.iteration,
        "saturated_at": found.saturated_at, "watched": found.watched,
        **{name: class_margin(F) for name, F in zip(SERIES, (robust + non_robust, robust, non_robust))},
        "swapped": (own - other).max(axis=-1), "own_after_swap": own[-1], "other_after_swap": other[-1],
        "off_diagonal": rivals(robust + non_robust)[-1],
    }  # fmt: skip


def of_population(lab, adversarial: bool, *names: str, end: bool = False) -> dict:
    """What an entry measures: premises and `names` of `population`, of series only the `end`."""
    m = population(lab, adversarial)
    kept = {name: m[name][-1] if end and name in SERIES else m[name] for name in names}
    return {name: m[name] for name in ("setting", "saturated_at", "watched")} | kept


SERIES = ("clean", "robust", "non_robust", "swapped")


@shared
def networks(lab) -> dict:
    """`ideal` trained adversarially as networks: under attack at both radii, along training and over radii."""
    c, data = ideal(lab), ideal(lab).data("train")

    def look(net, _):
        options = {"certificate": "interval", "attacks": ("feature_swap", "aligned"), "rng": c.seeds}
        found = robust_accuracy(net, data, eps=c.eps_test, **options)
        return {"standing": found.robust_accuracy, "certified": found.certified_accuracy}

    training = replace(c.training(True), record_every=c.n_iter // 10)
    result = train(c.network(), data, training, metrics=look)
    net, history = result.net, result.history
    phi = recursion(lab, True).phi[-1]
    return {
        "attacked": [theorems.assault(net, data, eps, c.ascent_lr, c.seeds) for eps in (c.eps_test, c.beta)],
        "curves": {"adversarial": theorems.curve(net, data, c.beta, c.seeds)},
        "across": across(net, data, c),
        "deviation": float(np.abs(net.weights @ features_of(c).T - phi).max() / np.abs(phi).max()),
        "trained": {name: history[name] for name in ("iteration", "standing", "certified")},
        **theorems.polynomial(c, net),
    }


@shared
def scaled(lab) -> list[dict]:
    """The small-rho configuration at three k, standard training: final margins (R, k), clean, with only v left and
    swapped, the largest rival output, and the first recorded iteration (R,) from which every class had log k."""
    rows = []
    for s in lab.scaling("n_classes", False):
        k, t = s.value, s.recursion.iteration[::-4][::-1]  # a quarter of the records tells as much
        robust, non_robust = outputs(s.recursion.phi[::-4][::-1], s.setting)
        F = robust + non_robust
        margin, (own, other) = class_margin(F), swapped(robust[-1], non_robust[-1])
        rows.append({
            "k": k, "margin": margin[-1], "non_robust": class_margin(non_robust[-1]),
            "swapped": (own - other).max(axis=-1),
            "off_diagonal": float(rivals(F[-1]).max()), "reached": first_time(t, (margin >= np.log(k)).all(axis=2)),
        })  # fmt: skip
    return rows


def attacked_networks(lab) -> dict:
    return of_population(lab, True) | networks(lab)


# ------------------------------------------------------------------ judged
def settled(m: dict, *names: str) -> list[Check]:
    """Assumptions of the simplified setting: those named, no noise, exact until T, the networks' equality."""
    flagged = int(np.isfinite(m["saturated_at"]).sum())
    what = f"recursion exact until T: seeds that saturate an orthogonal axis (watched: {m['watched']})"
    saturated = Check(what, flagged, "<=", 0, shown=f"{flagged} of {len(m['saturated_at'])}")
    equal = [exact("trained network against the recursion", m["deviation"], EXACT)] if "deviation" in m else []
    return [*m["setting"].assumed(*names, "noiseless"), saturated, *equal]


def judge_pairs(claims, m, *names: str, more: str = "", beside: Sequence[Check] = ()) -> Judgement:
    """Every claim, (R, k) bool, holds for almost all (seed, class) pairs, classes counted as independent."""
    checks = [sure(f"{name}, (seed, class) pairs", right, LEVEL) for name, right in claims.items()]
    return Judgement([*checks, *beside], more, settled(m, *names))


def linear(m, what: str, right) -> Check:
    """`right(row)` (R, k) bool of the small-rho configuration, whose features do reach the linear part: almost all."""
    found = {row["k"]: right(row).ravel() for row in m["scaled"]}
    check = sure(f"{what}, small rho, (seed, class) pairs", np.concatenate([*found.values()]), LEVEL)
    return replace(check, shown=check.shown + "".join(f"; k = {k}: {share(r)}" for k, r in found.items()))


def log_k(m: dict) -> float:
    return float(np.log(m["setting"].n_classes))


# ------------------------------------------------------------------ D.1
def judge_standard(m, beside=()) -> Judgement:
    """At the end of the default, and `beside` it, (what, right(row)), of the small-rho configuration."""
    claims = {"v learned": m["non_robust"][-1] > 0, "clean right": m["clean"][-1] > 0,
              "broken for every y'": m["swapped"][-1] <= 0}  # fmt: skip
    return judge_pairs(claims, m, beside=[linear(m, *one) for one in beside])


# ------------------------------------------------------------------ D.12
def margins(lab):
    found = of_population(lab, False, "clean", end=True)
    return found | {"off_diagonal": float(population(lab, False)["off_diagonal"].max()), "scaled": scaled(lab)}


def judge_margins(m):
    rows = [*m["scaled"], {"k": m["setting"].n_classes, "margin": m["clean"]}]
    ratio = [float(row["margin"].min() / np.log(row["k"])) for row in rows]
    k = np.concatenate([np.full(len(row["reached"]), row["k"]) for row in m["scaled"]])
    reached = np.concatenate([row["reached"] for row in m["scaled"]])
    slope = str(fit_exponent(k, reached)) if np.isfinite(reached).all() else "none, never by some"
    off = max([m["off_diagonal"], *(row["off_diagonal"] for row in m["scaled"])])
    told = ", ".join(f"{r:.2f} at k = {row['k']}" for r, row in zip(ratio, rows)) + " (default)"
    rule = "smallest margin / log k at T over seeds and classes, small rho with T like k and the default"
    return Judgement([Check(rule, ratio, ">=", 1, shown=told)],
                     f"iterations to log k like k^{slope}; largest rival output {off:.1e}", settled(m))  # fmt: skip


def draw_margins(m):
    x, rng = np.linspace(2, 12, 100), np.random.default_rng(0)
    layers = [line(x, np.log(x), r"$\log k$ (the rule)", ACCURACY, "--")]
    for row in m["scaled"]:
        carried = (row["non_robust"] >= np.log(row["k"])).ravel()
        spot = row["k"] * np.exp(rng.uniform(-0.05, 0.05, carried.size))
        layers += [points(spot[part], row["margin"].ravel()[part], f"small rho, class learned by {text}", color)
                   for part, color, text in ((carried, NON_ROBUST, "$v$"), (~carried, ROBUST, "$u$"))]  # fmt: skip
    k, margin = m["setting"].n_classes, m["clean"].ravel()
    layers.append(points(np.full(margin.size, k * 1.15), margin, "default configuration", PAPER, "x", 4))
    return Picture("classes $k$; a point per seed and class", r"margin $F_y - \max_j F_j$ at $T$", layers, "x",
                   ticks={"x": ([2, 3, 5, 10], ["2", "3", "5", "10"])}, ylim=(0, None))  # fmt: skip


# ------------------------------------------------------------------ D.13, D.14, D.27
def left(lab, adversarial: bool) -> dict:
    """Final margins with one feature left, and their series."""
    m = of_population(lab, adversarial, "iteration", "robust", "non_robust")
    series = {name: m[name] for name in ("robust", "non_robust")}
    return m | {name: values[-1] for name, values in series.items()} | {"over_time": series}


def margins_left(m) -> str:
    only = "; ".join(f"margins with only {x} left {spread(m[n])}" for x, n in (("v", "non_robust"), ("u", "robust")))
    return f"{only}; log k = {log_k(m):.3g}"


def draw_left(m):
    """Margins of samples with one feature left, median and range over seeds and classes, against log k."""
    layers = [mark(y=log_k(m), label=r"$\log k$", color=ACCURACY)]
    for name, color, label in (("non_robust", NON_ROBUST, "only $v$ left"), ("robust", ROBUST, "only $u$ left")):
        layers += middle(m["iteration"], m["over_time"][name], label, color)
    return Picture("iteration (median and range over seeds and classes)", r"margin $F_y - \max_j F_j$", layers,
                   symlog={"y": 1e-4}, ylim=(-1e-3, 100))  # fmt: skip


def after_swap(lab) -> dict:
    return of_population(lab, False, "swapped", "own_after_swap", "other_after_swap", end=True)


def judge_swapped(m, *beside: Check) -> Judgement:
    above = f"rival above the label by {spread(m['other_after_swap'] - m['own_after_swap'])} logits"
    return judge_pairs({"broken for every y'": m["swapped"] <= 0}, m, more=above, beside=beside)


def draw_swapped(m):
    return Picture(r"label's output $F_y(X + \delta)$", r"largest rival $F_{y'}(X + \delta)$", [
        *diagonal(m["own_after_swap"].min(), m["other_after_swap"].max(), "broken above"),
        points(m["own_after_swap"], m["other_after_swap"], "(seed, class, $y'$)", NON_ROBUST)], "xy")  # fmt: skip


def draw_shares(m):
    """Shares of (seed, class) pairs over iterations."""
    lines = (("clean", ACCURACY, "-", "clean sample"), ("non_robust", NON_ROBUST, "--", "only $v$ left"),
             ("robust", ROBUST, ":", "only $u$ left"), ("swapped", PAPER, "-", "swapped, for some $y'$"))  # fmt: skip
    layers = [level(LEVEL, None)] + [line(m["iteration"], (m[name] > 0).mean(axis=(1, 2)), label, color, style)
                                     for name, color, style, label in lines if name in m]  # fmt: skip
    if "trained" in m:
        t, found = m["trained"]["iteration"], m["trained"]
        layers += [line(t, found["standing"].mean(axis=1), "swap and aligned\nattack, eps_test", ROBUST, "o-", ms=4),
                   line(t, found["certified"].mean(axis=1), "certified, eps_test", CERTIFIED, "x:")]  # fmt: skip
    return Picture("iteration", "share of (seed, class) pairs right", layers, ylim=SHARES)


V_LEFT = "margin with only v left >= log k"

D1 = Entry(
    "D.1", GROUP, "Theorem 4.3 in the simplified setting",
    "Standard training on the noiseless population risk learns the non-robust features and is accurate, and the "
    "swap of Theorem 4.3 to any other class breaks it.",
    "F_y - max_j F_j from correlations: > 0 for X and for X with only v left, <= 0 for X + delta, all y'",
    lambda lab: of_population(lab, False, "iteration", *SERIES) | {"scaled": scaled(lab)},
    partial(judge_standard, beside=[
        ("v learned", lambda row: row["non_robust"] > 0), ("clean right", lambda row: row["margin"] > 0),
        ("broken for every y'", lambda row: row["swapped"] <= 0)]),
    draw_shares,
)  # fmt: skip
D1_DEFAULT = Entry(
    "D.1 (default)", GROUP, "Theorem 4.3 in the simplified setting, in the polynomial part",
    "At the default configuration, which never leaves the polynomial part, standard training on the noiseless "
    "population risk learns the non-robust features and is accurate, and the swap to any other class breaks it.",
    "F_y - max_j F_j from correlations: > 0 for X and for X with only v left, <= 0 for X + delta, all y'",
    lambda lab: of_population(lab, False, "iteration", *SERIES), judge_standard,
    draw_shares, "ours", weaker_than="D.1",
)  # fmt: skip
D12 = Entry(
    "D.12", GROUP, "Standard accuracy is good",
    "After standard training to a T polynomial in k every sample's margin is of order log k at least (our reading "
    "of the constant: 1, so that the label's probability exceeds 1/2).",
    "F_y(X) - max_{j != y} F_j(X) >= Omega(log k)",
    margins, judge_margins, draw_margins,
)  # fmt: skip
D13 = Entry(
    "D.13", GROUP, "Non-robust features are learned well",
    "After standard training a sample of which only the non-robust features are left is classified correctly with a "
    "margin of order log k (our reading: log k at least); judged at the default and, as the lemma asks, where features "
    "reach the linear part.",
    "F_y(X_V) - max_{j != y} F_j(X_V) >= Omega(log k)",
    lambda lab: left(lab, False) | {"scaled": scaled(lab)},
    lambda m: judge_pairs({V_LEFT: m["non_robust"] >= log_k(m)}, m, more=margins_left(m), beside=[
        linear(m, V_LEFT, lambda row: row["non_robust"] >= np.log(row["k"]))]),
    draw_left,
)  # fmt: skip
D13_DEFAULT = Entry(
    "D.13 (default)", GROUP, "Non-robust features are learned well, in the polynomial part",
    "At the default configuration, which never leaves the polynomial part, a sample of which only the non-robust "
    "features are left is classified with a margin of log k at least after standard training.",
    "F_y(X_V) - max_{j != y} F_j(X_V) >= log k",
    lambda lab: left(lab, False),
    lambda m: judge_pairs({V_LEFT: m["non_robust"] >= log_k(m)}, m, more=margins_left(m)),
    draw_left, "ours", weaker_than="D.13",
)  # fmt: skip
D14 = Entry(
    "D.14", GROUP, "Standard training converges to a non-robust solution",
    "After standard training the perturbation that replaces all non-robust features by those of another class "
    "brings that class's output above the label's, for every other class; judged at the default and, as the lemma "
    "asks, where features reach the linear part.",
    "F_y(X + delta) <= F_{y'}(X + delta), delta_p = beta (v_{y'} - v_y) on J_NR, 0 on J_R",
    lambda lab: after_swap(lab) | {"scaled": scaled(lab)},
    lambda m: judge_swapped(m, linear(m, "broken for every y'", lambda row: row["swapped"] <= 0)), draw_swapped,
)  # fmt: skip
D14_DEFAULT = Entry(
    "D.14 (default)", GROUP, "Standard training converges to a non-robust solution, in the polynomial part",
    "At the default configuration, which never leaves the polynomial part, the perturbation that replaces all "
    "non-robust features by those of another class brings that class's output above the label's, for every other one.",
    "F_y(X + delta) <= F_{y'}(X + delta), delta_p = beta (v_{y'} - v_y) on J_NR, 0 on J_R",
    after_swap, judge_swapped, draw_swapped, "ours", weaker_than="D.14",
)  # fmt: skip
D15 = Entry(
    "D.15", GROUP, "Theorem 4.4 in the simplified setting",
    "Adversarial training on the noiseless population risk learns the robust features and is robust, in all of the "
    "window (at the training radius: see D.28 there).",
    "margin of X with only u left > 0; F_y(X + delta) > max_{j != y} F_j(X + delta), |delta|_inf <= eps, eps_lo < eps "
    "< eps_hi",
    lambda lab: of_population(lab, True, "robust", end=True) | networks(lab),
    lambda m: judge_pairs({"u learned": m["robust"] > 0}, m, "eps", beside=over_window(m)),
    draw_window,
)  # fmt: skip
D15_TEST = Entry(
    "D.15 (eps_test)", GROUP, "Theorem 4.4 in the simplified setting, at one radius",
    "Adversarial training on the noiseless population risk learns the robust features and is robust, at the default's "
    "test radius.",
    "margin of X with only u left > 0; F_y(X + delta) > max_{j != y} F_j(X + delta), |delta|_inf <= eps_test",
    lambda lab: of_population(lab, True, "iteration", "robust", "clean", "swapped") | networks(lab),
    lambda m: judge_pairs({
        "u learned": m["robust"][-1] > 0, "standing at eps_test against five attacks": m["attacked"][0]["standing"],
        "certified at eps_test": m["attacked"][0]["certified"]}, m, "eps", "window"),
    draw_shares, "ours", weaker_than="D.15",
)  # fmt: skip
D27 = Entry(
    "D.27", GROUP, "Robust features are learned well",
    "After adversarial training a sample of which only the robust features are left is classified correctly with a "
    "margin of order log k (our reading: log k at least).",
    "F_y(X_U) - max_{j != y} F_j(X_U) >= Omega(log k)",
    lambda lab: left(lab, True),
    lambda m: judge_pairs({"margin with only u left >= log k": m["robust"] >= log_k(m)}, m, "eps",
                          more=margins_left(m)),
    draw_left,
)  # fmt: skip
D28 = Entry(
    "D.28", GROUP, "Adversarial training converges to a robust solution, in all of the window",
    "After adversarial training on the noiseless population risk no perturbation of any radius inside the window of "
    "test radii (docs/robust-window.md) breaks a sample; one per class and seed is all there are, up to positions.",
    "F_y(X + delta) > max_{j != y} F_j(X + delta) for all |delta|_inf <= eps, eps_lo < eps < eps_hi",
    attacked_networks,
    lambda m: Judgement(over_window(m), "", settled(m, "eps")), draw_window,
)  # fmt: skip
D28_TEST = Entry(
    "D.28 (eps_test)", GROUP, "Adversarial training converges to a robust solution, at one radius",
    "After adversarial training on the noiseless population risk no perturbation of the default's test radius breaks a "
    "sample.",
    "F_y(X + delta) > max_{j != y} F_j(X + delta) for all |delta|_inf <= eps_test",
    attacked_networks,
    lambda m: replace(theorems.judge_in_window(m), assumptions=settled(m, "eps", "window")), theorems.draw_radius,
    "ours", weaker_than="D.28",
)  # fmt: skip
D28_BETA = Entry(
    "D.28 (eps = beta)", GROUP, "Adversarial training converges to a robust solution, at the training radius",
    "After adversarial training on the noiseless population risk no perturbation of the training radius, eps = beta "
    "(our reading of the lost choice of eps), breaks a sample.",
    "F_y(X + delta) > max_{j != y} F_j(X + delta) for all |delta|_inf <= beta",
    attacked_networks,
    lambda m: replace(theorems.judge_at_beta(m), assumptions=settled(m, "eps")), theorems.draw_attacks,
)  # fmt: skip

"""Adversarial training without noise in its leading order: two phases (Lemma 5.2), what stops them, D.22."""

from dataclasses import replace

import numpy as np

from ..patches.features import q_sum
from ..reporting.pictures import NON_ROBUST, PAPER, ROBUST, Picture, line, mark, points
from ..theory import State, phase_two_started, plateau
from ..theory.events import first_record
from ..theory.leading_order import LATE, RIVALS
from ..theory.outputs import patch_kinds
from ..theory.plateau import stopping
from .lab import SMALL_RHO, Setting
from .ledger import Check, Entry, Judgement, exponent, sure
from .statistics import fit_paired, spread

GROUP = "adversarial training"


def levels(B: np.ndarray, c: Setting) -> np.ndarray:
    """(sum_s (B_s)_+^q)^(1/q) / B* of B (..., m)."""
    return q_sum(B, c.q) / c.plateau


def one_leader(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Whether one neuron has both the largest A and the largest B of its class; (..., m) -> (...)."""
    return A.argmax(axis=-1) == B.argmax(axis=-1)


def premises(settings: list[Setting]) -> list[Check]:
    """What Lemma 5.2 and D.22-D.26 ask of a setting, said or not: the worst value over all settings."""
    starts = ((c, c.start(range(16))) for c in settings)
    parts = [c.leading_order.neglected(start.phi, start.gram) for c, start in starts]
    late, rivals = (max(getattr(part, name).max() for part in parts) for name in ("late", "rivals"))
    small = all(part.small.all() for part in parts)
    neglected = "neglected by the leading order: Phase II late by (all of w but B, see 5.2 (orthogonal)) <= "
    return [
        Check("non-robust is denser: c", max(c.density for c in settings), "<", 1),
        Check("eps / beta", min(c.eps / c.beta for c in settings), ">=", 1),
        Check("beta B* / rho (polynomial part)", max(c.beta * c.plateau / c.rho for c in settings), "<=", 1),
        Check(f"{neglected}{LATE:g}, rivals' logits <= {RIVALS:g}", small, "==", 1, shown=f"{late:.3g}; {rivals:.3g}"),
    ]


# ------------------------------------------------------------------ Lemma 5.2
FOLLOWED = 150  # records of `lab.small` in which leading order and exact recursion run side by side
RATES = np.array([10.0, 20, 40, 80, 160])  # ascent_lr of the plateaus
FEW = {"n_classes": 3, "n_neurons": 5, "lr": 0.04}
CLOSE, SLOPE, NEAR = 0.25, 0.02, 0.1
ALMOST_ALL = 0.9  # "with high probability": the lower end of the share's interval


def over_rates(c: Setting, rates, seeds, n_iter: int):
    """Simulations of `c` from the same drawn states with every ascent rate: (recursion, H at the start, shape).

    The runs axis is rates x seeds, `shape` splits it.
    """
    one, n = c.start(seeds), len(rates)
    state = State(np.tile(one.phi, (n, 1, 1, 1)), np.tile(one.gram, (n, 1, 1)), one.n_orthogonal)
    return c.simulate(state, n_iter, ascent_lr=np.repeat(rates, len(seeds)), eps=c.eps), state.gram, (n, len(seeds))


def plateaus(seeds) -> np.ndarray:
    """(sum_s (B_s)_+^q)^(1/q) at the end, (rates, seeds, classes); NaN where Phase II has not begun at every rate."""
    c = SMALL_RHO.but(**FEW)
    found, _, shape = over_rates(c, RATES, seeds, 2500)
    B = found.B[-1].reshape(*shape, *found.B.shape[-2:])
    begun = [phase_two_started(b, c.beta, c.q, c.rho, rate) for b, rate in zip(B, RATES)]
    return np.where(np.all(begun, axis=0), q_sum(B, c.q), np.nan)


def two_phases(lab):
    c, found = SMALL_RHO, lab.small(True)
    A, B = found.A[: FOLLOWED + 1], found.B[: FOLLOWED + 1]
    every = int(found.iteration[1])
    other = c.leading_order.recursion(A[0], B[0], FOLLOWED * every, every)
    return {
        "setting": c, "iteration": other.iteration,
        "A": A.max(axis=-1), "leading_A": other.A.max(axis=-1), "begun": first_record(levels(B, c) ** c.q >= 0.5),
        "B": B.max(axis=-1), "leading_B": other.B.max(axis=-1),
        "leading_begun": first_record(levels(other.B, c) ** c.q >= 0.5),
        "shared": one_leader(A[0], B[0]), "rates": RATES, "plateau": plateaus(lab.seeds),
        "predicted": np.array([plateau(c.beta, c.q, c.rho, rate) for rate in RATES]),
    }  # fmt: skip


def phase_one(m):
    """Classes that reach Phase II with A > 0 in the polynomial part; deviation of max_s A and max_s B until then."""
    before = np.arange(len(m["iteration"]))[:, None, None] <= m["begun"]
    poly = (m["setting"].alpha * m["A"] <= m["setting"].rho) | ~before
    apart = {name: np.abs(m[name] / m["leading_" + name] - 1) for name in "AB"}
    deviation = {name: np.where(before, apart[name], 0).max(axis=0) for name in "AB"}
    return (m["begun"] >= 0) & poly.all(axis=0) & (m["A"][0] > 0), deviation


def judge_two_phases(m):
    ahead, deviation = phase_one(m)
    inside, both = ahead & ~m["shared"], deviation["A"][ahead & m["shared"]]
    times = (m["iteration"][m["begun"]] / np.maximum(m["iteration"][m["leading_begun"]], 1))[inside]
    ratio = (m["plateau"] / m["predicted"][:, None, None])[np.isfinite(m["plateau"])]
    off = abs(np.median(ratio) - 1) if ratio.size else np.nan
    return Judgement(
        [*(Check(f"max_s {name} of both recursions, deviation in Phase I", part[inside], "<=", CLOSE, "share")
           for name, part in deviation.items()),
         exponent("plateau, exponent in eta~", fit_paired(m["rates"], m["plateau"]), -1 / m["setting"].q, SLOPE),
         Check("median plateau / B*, less 1", off, "<=", 0.05, "share", f"ratio {spread(ratio)}")],
        f"{inside.sum()} classes; Phase II begins at {spread(times)} of the leading order's time; in {len(both)} "
        f"classes one neuron leads in both, A off by {spread(both)}; in {((m['begun'] >= 0) & ~ahead).sum()} A "
        "leaves the polynomial part first",
        premises([m["setting"]]),
    )  # fmt: skip


def judge_all_classes(m):
    """Lemma 5.2 of every class, whoever leads: NaN, a class that does not get there, is wrong."""
    deviation = phase_one(m)[1]
    follow = (m["begun"] >= 0) & (m["A"][0] > 0) & (deviation["A"] <= CLOSE) & (deviation["B"] <= CLOSE)
    ratio = m["plateau"] / m["predicted"][:, None, None]
    there = (np.abs(ratio - 1) <= NEAR).all(axis=0)
    return Judgement(
        [sure(f"classes whose max_s A and max_s B stay within {CLOSE:.0%} of the leading order until Phase II", follow,
              ALMOST_ALL),
         sure(f"classes whose plateau is within {NEAR:.0%} of B* at every ascent rate", there, ALMOST_ALL),
         exponent("plateau, exponent in eta~", fit_paired(m["rates"], m["plateau"]), -1 / m["setting"].q, SLOPE)],
        f"plateau / B* {spread(ratio)}; in {m['shared'].sum()} of {m['shared'].size} classes one neuron leads in both",
        premises([m["setting"]]),
    )  # fmt: skip


def draw_two_phases(m):
    inside, layers = np.argwhere(phase_one(m)[0] & ~m["shared"]), []
    for r, i in inside[np.linspace(0, len(inside) - 1, 4).astype(int)]:
        for name, color in (("B", NON_ROBUST), ("A", ROBUST)):
            exact, leading = m[name][:, r, i], m["leading_" + name][:, r, i]
            layers += [line(m["iteration"], exact, f"max {name}, exact", color, lw=2, alpha=0.6),
                       line(m["iteration"], leading, "leading order", "k", "--", lw=0.7)]  # fmt: skip
    layers.append(mark(y=m["setting"].plateau, label="B*", color=PAPER, style="-"))
    over = [points(m["rates"], m["plateau"], None, NON_ROBUST, size=2), line(m["rates"], m["predicted"], None, PAPER)]
    small = Picture(r"$\tilde\eta$", "plateau of B", over, "xy",
                    ticks={"x": ([10, 100], ["10", "100"]), "y": ([0.1, 0.2], ["0.1", "0.2"])})  # fmt: skip
    return Picture("iteration", r"$\max_s A$, $\max_s B$ of four classes", layers, "y",
                   inset=((0.14, 0.74, 0.3, 0.22), small), ylim=(1e-4, 1e4))  # fmt: skip


# ------------------------------------------------------------------ Lemma 5.2, what it silently needs
WIDE = SMALL_RHO.but(**FEW | {"n_patches": 64, "alpha": 3.0, "rho": 1.0, "lr": 0.1})
LENGTHS = ((40000, 0.005), (10000, 0.01), (3000, 0.01), (1000, 0.01), (300, 0.01))  # d, sigma_0
WIDE_RATES = np.array([5.0, 20.0])
CHI = np.geomspace(0.05, 60, 200)


def stops(C, gram, strength, rate, c: Setting):
    """Per class: chi of the neuron that leads C (R, k, m) at the end, and its C over the plateau; (R, k) each."""
    star = plateau(strength, c.q, c.rho, rate)
    lead = C.argmax(axis=-1)[..., None]
    square = np.einsum("raa->ra", gram).reshape(C.shape)
    return np.take_along_axis(square, lead, -1)[..., 0] / star**2, C.max(axis=-1) / star


def last_exact(C) -> np.ndarray:
    """C (T, ...) of every run (second axis) at its last record before an orthogonal axis saturates, if one does."""
    known = np.isfinite(C.reshape(*C.shape[:2], -1)).all(axis=2)
    return C[len(C) - 1 - known[::-1].argmax(axis=0), np.arange(C.shape[1])]


def orthogonal_stops(lab):
    rows = []
    for d, std in LENGTHS[:4] if lab.quick else LENGTHS:
        c = WIDE.but(patch_dim=d, init_std=std)
        found, first, shape = over_rates(c, WIDE_RATES, lab.seeds, 4000)
        ends = [last_exact(getattr(found, name)).reshape(*shape, *found.A.shape[-2:]) for name in "AB"]
        starts = [getattr(found, name)[0].reshape(ends[0].shape).max(axis=-1) > 0.3 * std for name in "AB"]
        gram = first.reshape(*shape, *first.shape[1:])
        for j, rate in enumerate(WIDE_RATES):
            row = {"patch_dim": d, "init_std": std, "ascent_lr": rate}
            for name, C, there, strength in zip("AB", ends, starts, (c.alpha, c.beta)):
                chi, x = stops(C[j], gram[j], strength, rate, c)
                row |= {f"chi_{name}": chi[there[j]], f"x_{name}": x[there[j]]}
            rows.append(row)
    return {"q": WIDE.q, "cap": WIDE.eps / WIDE.alpha, "rows": rows}


def judge_orthogonal_stops(m):
    off = {"A": {}, "B": {}}
    for row in m["rows"]:
        for name in "AB":
            chi = float(np.median(row[f"chi_{name}"]))
            off[name][chi] = float(np.median(row[f"x_{name}"] / stopping(row[f"chi_{name}"], m["q"])) - 1)
    stuck = {chi: value for chi, value in off["A"].items() if chi >= 4}
    free = [np.mean(r["x_A"] > 2) for r in m["rows"] if np.median(r["chi_A"]) < 1]
    told = (", ".join(f"chi {chi:.3g}: {v:+.1%}" for chi, v in sorted(part.items())) for part in (off["B"], stuck))
    what = "median over seeds and classes of the last max_s {} over its prediction, less 1"
    return Judgement(
        [Check(what.format(name), np.abs(list(part.values())), "<=", 0.1, shown=text)
         for name, part, text in zip(("B", "A where chi_A >= 4,"), (off["B"], stuck), told)],
        f"share of classes where A escapes, chi_A < 1: {spread(free, 2)}",
    )  # fmt: skip


# ------------------------------------------------------------------ D.22
EARLY = 1e-3
TAKEN = 0.1, 0.5  # of a strength: where the ascent matters, and the leading order has to know it


def taken(C, strength, c: Setting):
    """Share of a strength that one ascent step takes away, eta~ sum_s sigma'(strength C_s) C_s / strength."""
    slope = np.clip(strength * C / c.rho, 0, 1) ** (c.q - 1)
    return c.ascent_lr * (slope * np.maximum(C, 0)).sum(axis=-1) / strength


def early_time(lab):
    c, found = SMALL_RHO, lab.small(True)
    held, every = (found.A[:301], found.B[:301]), int(found.iteration[1])
    lead, start = c.leading_order, [C[:-1] for C in held]
    after, without = (law.recursion(*start, every, every) for law in (lead, replace(lead, ascent_lr=None, eps=None)))
    share = np.maximum(*(taken(C, strength, c) for C, (strength, *_) in zip(held, patch_kinds(c))))
    share = np.maximum.accumulate(share, axis=0)[1:]  # at the end of each step, and ever before
    m = {"setting": c}
    for name, C, other in zip("AB", held, held[::-1]):
        new, plain = getattr(after, name)[-1], getattr(without, name)[-1]
        large = (C[:-1] >= c.init_std / 2) & (share <= 0.5)[..., None]
        m[f"ratio_{name}"] = (C[1:] - C[:-1])[large] / (new - C[:-1])[large]
        m[f"plain_{name}"] = (C[1:] - C[:-1])[large] / (plain - C[:-1])[large]
        m[f"taken_{name}"] = np.broadcast_to(share[..., None], large.shape)[large]
        m[f"leads_{name}"] = (other[1:] == other[1:].max(axis=-1, keepdims=True))[large]
    return m


def judge_early_time(m):
    checks, said = [], []
    for name in "AB":
        ratio, early, leads = m[f"ratio_{name}"], m[f"taken_{name}"] <= EARLY, m[f"leads_{name}"]
        what = f"increment of every {name} above sigma_0 / 2 over its leading order, 20 iterations, less 1, while"
        checks.append(Check(f"{what} both shares taken are <= {EARLY:g}", np.abs(ratio[early] - 1), "<=", NEAR))
        said.append(f"later {name}: {spread(ratio[~early & ~leads])}, in the neuron that leads in the other feature "
                    f"{spread(ratio[~early & leads])}")  # fmt: skip
    return Judgement(checks, "; ".join(said), premises([m["setting"]]))


def judge_where_taken(m):
    """The leading order where the ascent takes much, beside the same without the ascent."""
    checks = []
    for name in "AB":
        there = (m[f"taken_{name}"] >= TAKEN[0]) & (m[f"taken_{name}"] <= TAKEN[1])
        off, plain = (np.abs(m[f"{which}_{name}"][there] - 1) for which in ("ratio", "plain"))
        what = f"increment of {name} above sigma_0 / 2 over its leading order, 20 iterations, less 1, while the larger "
        what += f"share taken is {TAKEN[0]:g} to {TAKEN[1]:g}"
        better = np.median(off) / np.median(plain) if off.size else np.nan
        checks += [
            Check(
                f"{what}: nine in ten",
                np.quantile(off, 0.9) if off.size else np.nan,
                "<=",
                NEAR,
                shown=(f"{np.quantile(off, 0.9):.3g}, of {off.size} {spread(off)}" if off.size else "none"),
            ),
            Check(f"that in the median, of what is left without the ascent, {name}", better, "<=", 0.5),
        ]
    return Judgement(checks, "", premises([m["setting"]]))  # fmt: skip


def draw_early_time(m):
    return Picture(
        "share of a strength that the ascent takes (worst of both so far)", "increment / leading order", [
        *(points(m[f"taken_{name}"][kept], np.maximum(m[f"ratio_{name}"][kept], -3), label, color, marker, size, 0.3,
                 rasterized=True)
          for name, color, other in (("B", NON_ROBUST, "A"), ("A", ROBUST, "B")) for kept, marker, size, label in (
              (~m[f"leads_{name}"], "o", 2, name), (m[f"leads_{name}"], "v", 3.5, f"{name} of {other}'s leader"))),
        mark(x=EARLY, label="early", color=PAPER), mark(x=TAKEN), mark(y=1, color="0.4", style="-", lw=0.7),
    ], "x", xlim=(1e-8, 0.6), ylim=(-3, 2))  # fmt: skip


TWO_PHASES = (
    "A += (eta/k)(1 - logit) rho^(1-q) P_R a~^q A^(q-1), a~ = alpha - min(eps, eta~ sum_s sigma'(alpha A_s) A_s), B "
    "likewise with P_NR, b~; end: (sum_s (B_s)_+^q)^(1/q) = B* = (rho^(q-1) beta^(2-q) / eta~)^(1/q)"
)
L52 = Entry(
    "5.2", GROUP, "Feature learning in two phases",
    "In the polynomial part each class's A and B follow the leading-order recursion with the strengths that the ascent "
    "leaves, and B stops once its total is of order ascent_lr^(-1/q), while A goes on; our reading: until Phase II "
    "begins, for the class's strongest correlations.",
    TWO_PHASES, two_phases, judge_all_classes, draw_two_phases,
)  # fmt: skip
L52_LEADERS = Entry(
    "5.2 (two leaders)", GROUP, "Feature learning in two phases, where two neurons lead",
    "In the polynomial part the class's A and B follow the leading-order recursion with the strengths that the "
    "ascent leaves, and B stops once its total is of order ascent_lr^(-1/q), while A goes on, until Phase II begins, "
    "for the class's strongest correlations, where B is ahead and no neuron leads in both.",
    TWO_PHASES, two_phases, judge_two_phases, draw_two_phases, "ours", weaker_than="5.2",
)  # fmt: skip
L52_ORTHOGONAL = Entry(
    "5.2 (orthogonal)", GROUP, "What stops both features: the orthogonal part",
    "The ascent also cancels a neuron's own orthogonal part, eta~ sigma'(z) |w_orth|^2 of its preactivation; unless "
    "|w_orth| << B* this stops B early, and A too, both at the level z* of alpha A and beta B. In the polynomial "
    "part B* <= rho/beta, so |w_orth| = 1 (sigma_0 = 1/sqrt(d)) needs rho >> beta.",
    "B = B* (1 + chi^(q/(q-2)))^(-1/q), chi = (|w_orth| / B*)^2 = eta~ |w_orth|^2 (beta B*)^(q-2) / rho^(q-1); chi "
    ">> 1: z* = eta~ (z*/rho)^(q-1) |w_orth|^2; A likewise with alpha while its ascent stays below eps",
    orthogonal_stops, judge_orthogonal_stops,
    lambda m: Picture(r"$\chi = |w_{orth}|^2 / (B^*)^2$", "where it stops, of $B^*$ ($A^*$)", [
        *(points(row[f"chi_{name}"], row[f"x_{name}"], rf"max {name}, in $\chi_{name}$", color, alpha=0.25)
          for name, color in (("B", NON_ROBUST), ("A", ROBUST)) for row in m["rows"]),
        line(CHI, stopping(CHI, m["q"]), r"$(1+\chi^{q/(q-2)})^{-1/q}$", "k", lw=1),
        line(CHI, 1 / CHI, "$z^*$, orthogonal part alone", "k", ":", lw=1),
        mark(y=m["cap"] ** (1 / m["q"]), label="A: eps is used up", color=ROBUST),
    ], "xy", ylim=(0.02, 30)), "ours",
)  # fmt: skip
D22 = Entry(
    "D.22", GROUP, "Early time: the leading order",
    "At early times every A and B moves by its leading-order increment with the strengths that the ascent leaves; our "
    "reading: nine in ten are within 10% where the ascent takes a tenth to half of a strength, and the ascent's term "
    "explains half of the deviation without it.",
    "A_{i,r} += (eta/k)(1 - logit_i) rho^(1-q) P_R alpha~^q A_{i,r}^(q-1), B_{i,r} likewise with P_NR, beta~",
    early_time, judge_where_taken, draw_early_time,
)  # fmt: skip
D22_EARLY = Entry(
    "D.22 (early)", GROUP, "Earlier still: the leading order of standard training",
    "While the ascent takes at most a thousandth of either strength, every A and B moves by its leading-order "
    "increment, as in standard training. Later the neuron that learns v_i loses its A: the ascent on v_i's patches "
    "moves them along u_i too, by -eta~ sigma'(beta B) A, which the leading order leaves out.",
    "A_{i,r} += (eta/k)(1 - logit_i) rho^(1-q) P_R alpha~^q A_{i,r}^(q-1), B_{i,r} likewise with P_NR, beta~",
    early_time, judge_early_time, draw_early_time, "ours", weaker_than="D.22",
)  # fmt: skip

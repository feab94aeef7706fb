"""Adversarial training without noise: logits at adversarial examples, off-diagonals, increments (D.19-D.22)."""

from __future__ import annotations

import numpy as np

from ..patches.attacks import one_step_ascent
from ..patches.network import PatchCNN
from ..reporting.style import NON_ROBUST, PAPER, ROBUST
from .adversarial import GROUP, adversarial_logits, dense, leading_order, premises, settings
from .lab import SMALL_RHO
from .ledger import Assumption, Judgement, entry
from .standard import smallest
from .statistics import shortfall, spread

# ------------------------------------------------------------------ D.19, D.20
ROUNDING = 1e-12


def logits_at_attacks(lab) -> dict:
    """F at adversarial examples (n, k), label first, and tau (n, 1), the largest F_j at that record: the default
    network at 41 records, SMALL_RHO's classes at 21 (H as at the end)."""
    pair, rows = dense(lab), {}
    own = np.eye(pair.config.n_classes, dtype=bool)[pair.data.y]
    F = []
    for W in pair.weights:
        net = PatchCNN(W, pair.config.q, pair.config.rho)
        X = one_step_ascent(net, pair.data.X, pair.data.y, lr=pair.config.ascent_lr, eps=pair.config.eps)
        F.append(net.logits(X))
    rows["default"] = label_first(np.array(F), own)
    found = lab.small(True)
    every = found.phi[:: len(found.phi) // 20]
    F = np.stack([adversarial_logits(phi, found.gram, SMALL_RHO) for phi in every])
    rows["small rho"] = label_first(F, np.eye(SMALL_RHO["n_classes"], dtype=bool))
    return rows


def label_first(F, own) -> dict:
    own, k = np.broadcast_to(own, F.shape), F.shape[-1]
    tau = np.where(own, 0, F).reshape(len(F), -1).max(axis=1)
    others = F[~own].reshape(-1, k - 1)
    return {"F": np.column_stack([F[own], others]), "tau": np.repeat(tau, len(others) // len(F))[:, None]}


def judge_sandwich(m, bounds):
    """low <= value <= high, of `bounds(F, tau)`, to rounding; the measured premise, and how far the two ends differ."""
    beyond, width, tau, least = [], {}, {}, np.inf
    for name, run in m.items():
        low, value, high = bounds(run["F"], run["tau"])
        beyond.append(np.max(np.maximum(np.maximum(low - value, value - high) / value, 0)))
        width[name], tau[name] = np.max(high / low - 1), float(run["tau"].max())
        least = min(least, float(run["F"].min()))
    reach = ", ".join(f"{r['F'][:, 0].min():.2g} to {r['F'][:, 0].max():.3g} ({name})" for name, r in m.items())
    listed = ", ".join(f"{t:.2g} ({name})" for name, t in tau.items())
    return Judgement(
        "low <= value <= high",
        f"largest violation {np.max(beyond):.1e}; the two ends differ by at most "
        + ", ".join(f"{w:.2g} ({name})" for name, w in width.items()) + f"; F_y {reach}",
        shortfall(np.maximum(beyond, 1e-16), ROUNDING),
        [
            Assumption("tau, largest F_j of a record", listed, "<= 1", max(tau.values()) <= 1),
            Assumption("min F_j", f"{least:.2g}", ">= 0", least >= 0),
        ],
    )  # fmt: skip


def draw_sandwich(axis, m, bounds, what):
    for (name, run), color in zip(m.items(), (NON_ROBUST, ROBUST)):
        F = run["F"]
        low, value, high = bounds(F, run["tau"])
        axis.loglog(F[:, 0], value[:, 0] / low[:, 0] - 1, "o", color=color, ms=2.5, alpha=0.4, mew=0, label=name)
        axis.loglog(F[:, 0], high / low - 1, "_", color=color, ms=5, alpha=0.5, label=f"bound, {name}")
    axis.set_xlabel("F_y at the adversarial example")
    axis.set_ylabel(what)


def diagonal_bounds(F, tau):
    k, label = F.shape[1], np.exp(F[:, :1])
    rest = np.exp(F[:, 1:]).sum(axis=1, keepdims=True)
    return (k - 1) / (k - 1 + label), rest / (rest + label), (k - 1) * np.exp(tau) / ((k - 1) * np.exp(tau) + label)


def other_bounds(F, tau):
    k, all_ = F.shape[1], np.exp(F)
    low = 1 / ((k - 1) * np.exp(tau) + all_[:, :1])
    return low, all_[:, 1:] / all_.sum(axis=1, keepdims=True), np.exp(tau) / (k - 2 + np.exp(tau) + all_[:, :1])


@entry(
    "D.19",
    GROUP,
    "Diagonal logit at adversarial examples",
    statement="At an adversarial example of class i whose other outputs lie in [0, tau], 1 - logit_i is "
    "(k-1)/(k-1+e^F_i) up to a factor e^tau; our reading: the sandwich that theory gives, with tau as measured.",
    formula="(k-1)/(k-1+e^F_i) <= 1 - logit_i <= (k-1) e^tau / ((k-1) e^tau + e^F_i), F at the adversarial example",
    rule=f"at every record, violation <= {ROUNDING:g} of the value; margin: decades below that",
)
class AdversarialDiagonalLogit:
    measure = logits_at_attacks

    def judge(m):
        return judge_sandwich(m, diagonal_bounds)

    def draw(axis, m):
        draw_sandwich(axis, m, diagonal_bounds, "(1 - logit) / lower bound - 1")


@entry(
    "D.20",
    GROUP,
    "Other logits at adversarial examples",
    statement="At an adversarial example of class i whose other outputs lie in [0, tau], logit_j of another class is "
    "1/(k-1+e^F_i) up to a factor e^tau; our reading: the sandwich that theory gives, with tau as measured.",
    formula="1/((k-1) e^tau + e^F_i) <= logit_j <= e^tau / (k-2 + e^tau + e^F_i), F at the adversarial example",
    rule=f"at every record, violation <= {ROUNDING:g} of the value; margin: decades below that",
)
class AdversarialOtherLogits:
    measure = logits_at_attacks

    def judge(m):
        return judge_sandwich(m, other_bounds)

    def draw(axis, m):
        draw_sandwich(axis, m, other_bounds, "logit_j / lower bound - 1")


# ------------------------------------------------------------------ D.21
def off_diagonal(iteration, phi) -> dict:
    """Extremes of <w_{i,r}, u_j>, <w_{i,r}, v_j>, j != i, over the largest at the start, (T, R); how many grew."""
    k = phi.shape[2]
    own = np.concatenate([np.eye(k, dtype=bool)] * 2, axis=1)[:, None]
    top, bottom = (np.where(own, fill, phi) for fill in (-np.inf, np.inf))
    top, bottom = top.max(axis=(2, 3, 4)), bottom.min(axis=(2, 3, 4))
    grew = ((phi.max(axis=0) > np.maximum(phi[0], 0) * (1 + 1e-9)) & ~own).sum()
    numbers = {"grew": int(grew), "entries": int(phi[0].size - own.sum() * phi.shape[1] * phi.shape[3])}
    return {"iteration": iteration, "top": top / top[0], "bottom": bottom / top[0]} | numbers


@entry(
    "D.21",
    GROUP,
    "Off-diagonal correlations stay small",
    statement="Correlations with other classes' features stay of the order of their initial values; our reading: their "
    "maximum over all entries never passes the initial one, though single entries may grow (unlike standard training).",
    formula="max_{t, i != j, r} <w_{i,r}^(t), u_j>, <w_{i,r}^(t), v_j> <= max at t = 0 = O~(sigma_0); "
    "min >= -O~(sigma_0)",
    rule="in every run, largest entry at any record <= 1.01 times the largest at the start (finite steps), and "
    "smallest >= -3 times it; margin: what is left of the tighter one, as a share",
)
class AdversarialOffDiagonal:
    def measure(lab):
        pair = dense(lab)
        runs = {"default": off_diagonal(pair.iteration, pair.phi)}
        for name, s in settings(lab).items():
            runs[name] = off_diagonal(s.recursion.iteration[::5], s.recursion.phi[::5])
        return runs

    def judge(m):
        top = max(run["top"].max() for run in m.values())
        later = max(run["top"][-1].max() for run in m.values())
        bottom = min(run["bottom"].min() for run in m.values())
        grew = ", ".join(f"{run['grew']} of {run['entries']} ({name})" for name, run in list(m.items())[:2])
        return Judgement(
            "max over entries <= its initial value",
            f"largest ever / initial {top:.6f}, at the end {later:.3f}, smallest {bottom:.2f}, over {len(m)} settings; "
            f"single positive entries that grew: {grew}",
            smallest(*(1 - run["top"] / 1.01 for run in m.values()), *(1 + run["bottom"] / 3 for run in m.values())),
        )

    def draw(axis, m):
        for j, (name, run) in enumerate(reversed(m.items())):
            share, last = run["iteration"] / run["iteration"][-1], name == "default"
            style = {"color": NON_ROBUST, "lw": 1.8} if last else {"color": ROBUST, "lw": 0.7, "alpha": 0.5}
            axis.plot(share, run["top"], **style)
            lines = axis.plot(share, run["bottom"], **style)
            lines[0].set_label("default, networks" if last else None if j else "small rho, simulated")
        axis.axhline(1, color=PAPER, ls="--", lw=1, label="bound: initial maximum")
        axis.set_xlabel("iteration / last iteration")
        axis.set_ylabel("extreme off-diagonal entries,\nof the initial maximum")


# ------------------------------------------------------------------ D.22
EARLY, NEAR = 1e-3, 0.1


def taken(C, strength, c):
    """Share of a strength that one ascent step takes away, eta~ sum_s sigma'(strength C_s) C_s / strength."""
    slope = np.clip(strength * C / c["rho"], 0, 1) ** (c["q"] - 1)
    return c["ascent_lr"] * (slope * np.maximum(C, 0)).sum(axis=-1) / strength


@entry(
    "D.22",
    GROUP,
    "Early time: the leading order",
    statement="At early times every A and B moves by its leading-order increment; our reading of early: the ascent "
    "takes at most a thousandth of either strength. Later the neuron that learns v_i loses its A (ours): the ascent on "
    "v_i's patches moves them along u_i too, by -eta~ sigma'(beta B) A, which the leading order leaves out.",
    formula="A_{i,r} += (eta/k)(1 - logit_i) rho^(1-q) P_R alpha~^q A_{i,r}^(q-1), B_{i,r} likewise with P_NR, beta~",
    rule=f"actual / leading-order increment within 1 +- {NEAR:g} over 20 iterations, for every neuron above sigma_0 / "
    f"2, while both shares taken are <= {EARLY:g}; margin: {NEAR:g} - largest deviation",
)
class EarlyTime:
    def measure(lab):
        c, found = SMALL_RHO, lab.small(True)
        A, B = found.A[:301], found.B[:301]
        every = int(found.iteration[1])
        after = leading_order(c).recursion(A[:-1], B[:-1], every, every)
        share = np.maximum(taken(A, c["alpha"], c), taken(B, c["beta"], c))
        share = np.maximum.accumulate(share, axis=0)[1:]  # at the end of each step, and ever before
        m = {"setting": c}
        for name, C, new, other in (("A", A, after.A[-1], B[1:]), ("B", B, after.B[-1], A[1:])):
            large = (C[:-1] >= c["init_std"] / 2) & (share <= 0.5)[..., None]
            m[f"ratio_{name}"] = (C[1:] - C[:-1])[large] / (new - C[:-1])[large]
            m[f"taken_{name}"] = np.broadcast_to(share[..., None], large.shape)[large]
            m[f"leads_{name}"] = (other == other.max(axis=-1, keepdims=True))[large]
        return m

    def judge(m):
        rooms, said = [], []
        for name in "AB":
            ratio, early, leads = m[f"ratio_{name}"], m[f"taken_{name}"] <= EARLY, m[f"leads_{name}"]
            rooms.append(NEAR - np.abs(ratio[early] - 1))
            said.append(
                f"{name}: {spread(ratio[early])} early; later {spread(ratio[~early & ~leads])}, in the neuron that "
                f"leads in the other feature {spread(ratio[~early & leads])}"
            )
        return Judgement("ratio 1", "; ".join(said), smallest(*rooms), premises([m["setting"]]))

    def draw(axis, m):
        for name, color, other in (("B", NON_ROBUST, "A"), ("A", ROBUST, "B")):
            for leads, marker, size, label in ((False, "o", 2, name), (True, "v", 3.5, f"{name} of {other}'s leader")):
                kept = m[f"leads_{name}"] == leads
                ratio = np.maximum(m[f"ratio_{name}"][kept], -3)
                axis.plot(m[f"taken_{name}"][kept], ratio, marker, color=color, ms=size, alpha=0.3, mew=0, label=label,
                          rasterized=True)  # fmt: skip
        axis.axvline(EARLY, color=PAPER, ls="--", lw=1, label="early")
        axis.axhline(1, color="0.4", lw=0.7)
        axis.set_xscale("log")
        axis.set_xlim(1e-8, 0.6)
        axis.set_ylim(-3, 2)
        axis.set_xlabel("share of a strength that the ascent takes (worst of both so far)")
        axis.set_ylabel("increment / leading order")

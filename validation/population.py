"""Training on the noiseless population risk: margins from the exact recursion's correlations, and its networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..experiments.configuration import Figure3Config
from ..patches.network import SmoothedReLU
from ..reporting.style import ACCURACY, NON_ROBUST, ROBUST
from ..robustness.evaluate import robust_accuracy
from ..theory import Recursion, State, population_types, simulate
from ..training.loop import train
from .bullets import LEVEL, assault, assumed, band, curve, polynomial, setting, share_axis, surplus
from .lab import features_of, first_record
from .ledger import Assumption, Judgement
from .statistics import wilson

PAIRS = (
    f"over all (seed, class) pairs, Wilson's lower end >= {LEVEL:g} (our 1 - o(1), classes counted as independent); "
    f"margin: lower end less {LEVEL:g}"
)
EXACT = 1e-10  # network against recursion, of the largest correlation


# ------------------------------------------------------------------ outputs from correlations
def outputs(phi: np.ndarray, c: dict) -> tuple[np.ndarray, np.ndarray]:
    """What robust and non-robust patches of a clean sample of class y add to F_i, each (..., i, y).

    ``phi`` (..., k, m, 2k); ``c`` has q, rho, n_patches, n_robust, alpha, beta.  Their sum is F(X); each alone is F of
    the sample with only that feature left (Def. 4.1).
    """
    sigma, k = SmoothedReLU(c["q"], c["rho"]), phi.shape[-3]
    robust = c["n_robust"] * sigma(c["alpha"] * phi[..., :k]).sum(axis=-2)
    return robust, (c["n_patches"] - c["n_robust"]) * sigma(c["beta"] * phi[..., k:]).sum(axis=-2)


def rivals(F: np.ndarray) -> np.ndarray:
    """max_{i != y} F_i of F (..., i, y) -> (..., y)."""
    return np.where(np.eye(F.shape[-1], dtype=bool), -np.inf, F).max(axis=-2)


def class_margin(F: np.ndarray) -> np.ndarray:
    """F_y - max_{i != y} F_i of F (..., i, y) -> (..., y)."""
    return np.einsum("...ii->...i", F) - rivals(F)


def swapped(robust: np.ndarray, non_robust: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F_y and max_{i != y} F_i after the swap to y' (eps >= beta: J_NR shows v_{y'}), each (..., y, y' != y)."""
    F, own = robust[..., None] + non_robust[..., None, :], np.eye(robust.shape[-1], dtype=bool)
    parts = np.einsum("...iij->...ij", F), np.where(own[:, :, None], -np.inf, F).max(axis=-3)
    return tuple(part[..., ~own].reshape(*part.shape[:-1], -1) for part in parts)


# ------------------------------------------------------------------ measured
def ideal(lab) -> Figure3Config:
    """The default configuration without noise on `n_draws` seeds, one training sample per class: population risk.

    Positions of patches do not matter to network and gradient, so balanced samples without noise are the population.
    """
    k = lab.config().n_classes
    return lab.config(noise_std=0.0, dtype="float64", n_seeds=lab.n_draws, n_train=k, balanced=True)


def recursion(lab, adversarial: bool) -> Recursion:
    """The population's recursion from the drawn weights of `ideal`."""

    def make():
        c = ideal(lab)
        types = population_types(c.n_classes, c.n_patches, c.n_robust, c.alpha, c.beta)
        ascent = {"ascent_lr": c.ascent_lr, "eps": c.eps} if adversarial else {}
        options = {"q": c.q, "rho": c.rho, "lr": c.lr, "n_iter": c.n_iter, "record_every": c.record_every}
        return simulate(State.from_weights(c.network().W, c.distribution().features), types, **options, **ascent)

    return lab.once(("population", adversarial), make)


def population(lab, adversarial: bool) -> dict:
    """Margins (T, R, k) along the recursion: ``clean``, with one feature left, and after the swap (the best y')."""

    def make():
        c, found = ideal(lab), recursion(lab, adversarial)
        robust, non_robust = outputs(found.phi, c.as_dict())
        own, other = swapped(robust, non_robust)
        return {
            "setting": setting(c),
            "iteration": found.iteration,
            "saturated_at": found.saturated_at,
            "watched": found.watched,
            "clean": class_margin(robust + non_robust),
            "robust": class_margin(robust),
            "non_robust": class_margin(non_robust),
            "swapped": (own - other).max(axis=-1),
            "own_after_swap": own[-1],
            "other_after_swap": other[-1],
            "off_diagonal": rivals(robust + non_robust)[-1],
        }

    return lab.once(("population margins", adversarial), make)


def networks(lab) -> dict:
    """`ideal` trained adversarially as networks: under attack at both radii, along training and over radii."""

    def make():
        c, data = ideal(lab), ideal(lab).data("train")

        def look(net, _):
            options = {"certificate": "interval", "attacks": ("feature_swap", "aligned"), "rng": c.seeds}
            found = robust_accuracy(net, data, eps=c.eps_test, **options)
            return {"standing": found.robust_accuracy, "certified": found.certified_accuracy}

        training = replace(c.training(True), record_every=c.n_iter // 10)
        result = train(c.network(), data, training, metrics=look)
        net, history = result.net, result.history
        exact = recursion(lab, True).phi[-1]
        return {
            "attacked": [assault(net, data, eps, c.ascent_lr, c.seeds) for eps in (c.eps_test, c.beta)],
            "curves": {"adversarial": curve(net, data, c.beta, c.seeds)},
            "deviation": float(np.abs(net.weights @ features_of(c).T - exact).max() / np.abs(exact).max()),
            "trained": {name: history[name] for name in ("iteration", "standing", "certified")},
            **polynomial(c, net),
        }

    return lab.once("population networks", make)


def scaled(lab) -> list[dict]:
    """The small-rho configuration at three k, standard training: final margins (R, k), clean and with only v left, the
    largest rival output, and the first recorded iteration (R,) from which every class had log k."""

    def make():
        rows = []
        for s in lab.scaling("n_classes", False):
            k, t = s.value, s.recursion.iteration[::-4][::-1]  # a quarter of the records tells as much
            robust, non_robust = outputs(s.recursion.phi[::-4][::-1], s.setting)
            F = robust + non_robust
            margin = class_margin(F)
            index = first_record(t, (margin >= np.log(k)).all(axis=2))
            rows.append({
                "k": k, "margin": margin[-1], "non_robust": class_margin(non_robust[-1]),
                "off_diagonal": float(rivals(F[-1]).max()), "reached": np.where(index >= 0, t[index], np.nan),
            })  # fmt: skip
        return rows

    return lab.once("population scaled", make)


def last(m: dict, *names: str) -> dict:
    """`setting`, saturation and the final values of margins over time."""
    return {k: m[k] for k in ("setting", "saturated_at", "watched")} | {name: m[name][-1] for name in names}


# ------------------------------------------------------------------ judged
def settled(m: dict, *names: str) -> list[Assumption]:
    """Assumptions of the simplified setting: those named, no noise, exact until T, the networks' equality."""
    flagged = int(np.isfinite(m["saturated_at"]).sum())
    exact = Assumption(
        "recursion exact until T: seeds whose ascent saturates an orthogonal axis",
        f"{flagged} of {len(m['saturated_at'])} (watched: {m['watched']})",
        "0",
        flagged == 0,
    )
    out = [*assumed(m["setting"], *names, "noiseless"), exact]
    if "deviation" in m:
        text = f"{m['deviation']:.1e}"
        out.append(Assumption("trained network against the recursion", text, f"<= {EXACT:g}", m["deviation"] <= EXACT))
    return out


def judge_pairs(m: dict, bullets: dict[str, np.ndarray], *names: str, more: str = "", predicted: str = "") -> Judgement:
    """Every bullet, (R, k) bool, holds for almost all (seed, class) pairs."""
    return Judgement(
        predicted or "1 - o(1)",
        "; ".join(f"{name} {pairs(right)}" for name, right in bullets.items()) + more,
        min(surplus(right, by_seed=False) for right in bullets.values()),
        settled(m, *names),
    )


def pairs(right: np.ndarray) -> str:
    low, high = wilson(right.sum(), right.size)
    return f"{right.sum()} of {right.size} [{low:.3f}, {high:.3f}]"


def log_k(m: dict) -> float:
    return float(np.log(m["setting"]["n_classes"]))


# ------------------------------------------------------------------ drawn
def draw_shares(axis, m):
    """Shares of (seed, class) pairs over iterations."""
    for name, color, style, label in m["lines"]:
        axis.plot(m["iteration"], (m[name] > 0).mean(axis=(1, 2)), style, color=color, lw=1.6, label=label)
    for name, color, style, label in m.get("network_lines", ()):
        values = m["trained"][name].mean(axis=1)
        axis.plot(m["trained"]["iteration"], values, style, color=color, ms=4, lw=1.4, label=label)
    axis.axhline(LEVEL, color="0.5", lw=0.9, ls=(0, (2, 2)))
    axis.set_xlabel("iteration")
    share_axis(axis, "share of (seed, class) pairs right")


def draw_growth(axis, m):
    """Margins of samples with one feature left, median and range over seeds and classes, against log k."""
    for name, color, label in (("non_robust", NON_ROBUST, "only $v$ left"), ("robust", ROBUST, "only $u$ left")):
        band(axis, m["iteration"], m["over_time"][name], color, label)
    axis.axhline(log_k(m), color=ACCURACY, lw=1, ls="--", label=r"$\log k$")
    axis.set_yscale("symlog", linthresh=1e-4)
    axis.set_ylim(-1e-3, 100)
    axis.set_xlabel("iteration (median and range over seeds and classes)")
    axis.set_ylabel(r"margin $F_y - \max_j F_j$")


def growth(m: dict) -> dict:
    return {"iteration": m["iteration"], "over_time": {name: m[name] for name in ("robust", "non_robust")}}

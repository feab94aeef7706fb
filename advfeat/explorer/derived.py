"""The numbers beside the controls: what the theory says of a point, and what the recursion finds there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..experiments.configuration import Figure3Config
from ..experiments.figure3 import final_strength, phase_two
from ..patches.features import q_sum
from ..theory import LeadingOrder, Recursion, State, Window, density_ratio
from ..theory.events import TAKE_OFF, first_time, took_off
from .curves import as_history

TIMES = ("A", "B", "phase_two")


@dataclass(frozen=True)
class Derived:
    """Numbers of a point.  Times are medians over seeds and classes, in iterations, inf for "never"; of `predicted`
    ones by closed forms from the initial weights, of those `found` of a training by its recursion's records."""

    density_ratio: float
    strength_ratio: float
    window: Window
    plateau: float
    plateau_ratio: float
    predicted: dict[str, float]
    found: dict[str, dict[str, float]]
    late: float
    rivals: float
    small: float


def derive(config: Figure3Config, state: State, theory: dict[str, Recursion]) -> Derived:
    """The numbers of a configuration, from the state that its trainings start in and their recursions."""
    c, adversarial = config, theory["adversarial"]
    numbers = (c.alpha, c.beta, c.n_patches, c.n_robust, c.q)
    with np.errstate(all="ignore"):
        histories = {name: as_history(found) for name, found in theory.items()}
        neglected = leading_order(c).neglected(state.phi, state.gram)
        ratio = q_sum(histories["adversarial"]["B"][-1], c.q) / c.plateau()
        found = {name: {f: _median(first_time(h["iteration"], took_off(h, f))) for f in "AB"}
                 for name, h in histories.items()}  # fmt: skip
        found["adversarial"]["phase_two"] = _median(phase_two(histories["adversarial"], c)) if _stops(c) else np.inf
        return Derived(
            density_ratio(*numbers),
            c.alpha / c.beta,
            c.window(final_strength({"A": adversarial.A})),
            c.plateau(),
            float(np.median(ratio)),
            {name: _median(times) for name, times in predicted_times(c, state).items()},
            found,
            float(np.median(neglected.late)),
            float(np.median(neglected.rivals)),
            float(neglected.small.mean()),
        )


def leading_order(c: Figure3Config) -> LeadingOrder:
    """Of adversarial training."""
    names = ("n_classes", "alpha", "beta", "n_robust", "q", "rho", "lr", "ascent_lr", "eps")
    return LeadingOrder(n_nonrobust=c.n_patches - c.n_robust, **{name: getattr(c, name) for name in names})


def predicted_times(c: Figure3Config, state: State) -> dict[str, np.ndarray]:
    """Iterations, seed by seed and class by class (R, k): of a feature's take-off, and of the beginning of Phase II;
    inf where a class has no neuron that grows."""
    theory, k = leading_order(c), c.n_classes
    own = np.arange(k)
    out = {}
    for feature, first in (("A", 0), ("B", k)):
        x0 = state.phi[:, own, :, first + own].max(axis=-1).T
        grows = x0 > 0
        size = np.where(grows, x0, 1.0)
        out[feature] = np.where(grows, theory.take_off_time(feature, size, TAKE_OFF * size), np.inf)
    B0 = np.moveaxis(state.phi[:, own, :, k + own], 0, 1)
    out["phase_two"] = theory.phase_two_estimate(B0) if _stops(c) else np.full(B0.shape[:2], np.inf)
    return out


def _stops(c: Figure3Config) -> bool:
    """Whether an ascent step may take half of a non-robust patch away, which is where Phase II begins."""
    return c.eps >= c.beta / 2


def _median(times) -> float:
    """NaN is "never", as inf is."""
    return float(np.median(np.where(np.isnan(times), np.inf, times)))


def premises(config: Figure3Config, d: Derived) -> list[tuple[str, bool, str]]:
    """What the theory assumes: in words, whether it holds here, and the numbers that say so."""
    c, reach = config, config.beta * d.plateau
    classes = f"{d.small:.0%} of classes; late {d.late:.2g}, rivals {d.rivals:.2g}"
    return [
        ("robust is stronger, α > β", d.strength_ratio > 1, f"α / β = {d.strength_ratio:.3g}"),
        ("non-robust is denser, c < 1", d.density_ratio < 1, f"c = {d.density_ratio:.3g}"),
        ("an ascent step can cancel β, ε ≥ β", c.eps >= c.beta, f"ε / β = {c.eps / c.beta:.3g}"),
        ("B* in the polynomial part, β B* ≤ ϱ", reach <= c.rho, f"β B* = {reach:.3g}, ϱ = {c.rho:.3g}"),
        ("leading order, what is neglected is small", d.small >= 0.5, classes),
        ("ε_test in the window", d.window.place(c.eps_test) == "inside", _place(d.window, c.eps_test)),
    ]


def _place(window: Window, eps: float) -> str:
    if not window.stands:
        return window.failed
    return f"{window.place(eps)} ({window.low:.3g}, {window.high:.3g}); {window.premise}"


def time_word(value: float) -> str:
    """As "1,240", "3e+12" and "never"."""
    return "never" if not np.isfinite(value) else f"{value:,.0f}" if value < 1e6 else f"{value:.1e}"


def rows(config: Figure3Config, d: Derived) -> list[tuple[str, str, str, str]]:
    """The table: a label, the prediction, and what the recursion of standard and of adversarial training finds."""
    standard, adversarial = (
        {name: time_word(d.found[t][name]) if name in d.found[t] else "" for name in TIMES}
        for t in ("standard", "adversarial")
    )
    said = {name: time_word(value) for name, value in d.predicted.items()}
    ends = f"{d.window.low:.3g} to {d.window.high:.3g}" if d.window.stands else "none"
    reached = "diverged" if np.isnan(d.plateau_ratio) else f"{d.plateau_ratio * d.plateau:.3g}"
    labels = {"A": "robust takes off", "B": "non-robust takes off", "phase_two": "Phase II begins"}
    return [
        ("density ratio c", f"{d.density_ratio:.3g}", "", ""),
        ("window of ε_test", ends, "", ""),
        ("plateau B*", f"{d.plateau:.3g}", "", reached),
        *((labels[name], said[name], standard[name], adversarial[name]) for name in TIMES),
    ]

"""Standard training without noise, step by step: Lemma 5.1, D.2-D.8."""

from __future__ import annotations

import numpy as np

from ..figures import NON_ROBUST, ROBUST
from .ledger import Assumption, Judgement, entry
from .statistics import shortfall

EXACT = 1e-10  # of the largest correlation, float64, after 4000 iterations


def relative(network: np.ndarray, recursion: np.ndarray) -> np.ndarray:
    """Largest deviation at each record (T,), relative to the largest of the network's numbers; NaN counts as one."""
    apart = np.abs(network - recursion).reshape(len(network), -1).max(axis=1)
    return np.where(np.isfinite(apart), apart, np.inf) / np.abs(network).max()


def compared(pair) -> dict:
    """Both sides' correlations of one (seed, class, neuron) each, and the deviation at every record."""
    found = pair.recursion
    return {
        "iteration": pair.iteration,
        "network": pair.phi,
        "recursion": found.phi,
        "saturated_at": found.saturated_at,
        "noise_std": pair.config.noise_std,
    }


def exactness(m: dict, what: str) -> Judgement:
    """`what` is equal to the recursion at every record that is not flagged as behind a saturation."""
    late = np.nanmin(np.append(m["saturated_at"], np.inf))
    kept = m["iteration"] <= late
    error = relative(m["network"][kept], m["recursion"][kept])
    assumptions = [Assumption("noise", f"{m['noise_std']:g}", "0", m["noise_std"] == 0)]
    if np.isfinite(late):
        assumptions.append(Assumption("orthogonal axes", f"saturate at iteration {late:g}", "none before", late > 0))
    return Judgement(
        f"{what} equal to the recursion",
        "relative deviation " + ", ".join(f"{e:.1e} at t = {t}" for e, t in zip(error, m["iteration"][kept])),
        shortfall(error, EXACT),
        assumptions,
    )


def draw_exactness(axis, m):
    """Network against recursion: every correlation at every record, on the diagonal."""
    k = m["network"].shape[-1] // 2
    for t, marker in zip(range(len(m["iteration"])), "osD"):
        for part, color, label in ((slice(0, k), ROBUST, "robust"), (slice(k, None), NON_ROBUST, "non-robust")):
            x, y = m["recursion"][t][..., part].ravel(), m["network"][t][..., part].ravel()
            axis.plot(x, y, marker, color=color, ms=3, alpha=0.4, mew=0, label=f"{label}, t = {m['iteration'][t]}")
    ends = np.nanmin(m["network"]), np.nanmax(m["network"])
    axis.plot(ends, ends, color="0.6", lw=0.8, zorder=0)
    axis.set_xlabel("recursion")
    axis.set_ylabel("network")
    axis.legend(fontsize=7, ncols=3, loc="upper left")


@entry(
    "D.4",
    "standard training",
    "Feature learning iteration",
    statement="Without noise all 2k correlations of every neuron follow a recursion of their own, free of d and N.",
    formula="A_{i,r} += eta E[1{y=i} (1 - logit_i) sum_{J_R} sigma'(alpha_p A_{i,r}) alpha_p], B with beta_p on J_NR; "
    "<w_{i,r}, u_j> -= eta E[1{y=j} logit_i sum_{J_R} sigma'(alpha_p <w_{i,r}, u_j>) alpha_p], v_j likewise",
    rule=f"largest deviation at t = 0, mid-run and end <= {EXACT:g} of the largest correlation; "
    "margin: decades below that",
)
class FeatureLearning:
    def measure(lab):
        return compared(lab.exact(False))

    def judge(m):
        return exactness(m, "network's correlations")

    draw = draw_exactness

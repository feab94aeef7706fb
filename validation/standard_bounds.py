"""Standard training without noise: logits between their bounds, other classes' features stay small (D.5-D.7)."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from ..experiments.configuration import Figure3Config
from ..kernels import formulas
from ..patches.network import PatchCNN
from ..reporting.style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST
from .lab import SMALL_RHO, beside_recursion, small_rho
from .ledger import Assumption, Judgement, entry
from .standard import GROUP, dense, smallest
from .statistics import spread

ROUNDING = 1e-12  # of logarithms of logits, and of correlations relative to the largest
LARGE_INIT = 0.07  # init_std of a network whose other outputs are no small numbers: tau of order 1


def small_network(lab, **changes):
    """SMALL_RHO as a trained network beside its recursion, in few dimensions: noiseless training is free of d."""
    held = {"patch_dim": 50, "n_train": 5, "n_seeds": 2, "noise_std": 0.0, "dtype": "float64"}
    config = Figure3Config(**(SMALL_RHO | held | changes))
    key = ("small network", *sorted(changes.items()))
    return lab.once(key, lambda: beside_recursion(config, False, config.n_iter // config.n_records))


def outputs(phi: np.ndarray, setting: dict) -> np.ndarray:
    """F_j of a clean sample of class y from correlations (..., k, m, 2k) -> (..., y, j)."""
    k, parts = setting["n_classes"], 0.0
    for C, strength, count in (
        (phi[..., :k], setting["alpha"], setting["n_robust"]),
        (phi[..., k:], setting["beta"], setting["n_patches"] - setting["n_robust"]),
    ):
        parts = parts + count * formulas.sigma(strength * C, setting["q"], setting["rho"]).sum(axis=-2)
    return parts.swapaxes(-1, -2)


def network_outputs(pair) -> tuple[np.ndarray, np.ndarray]:
    """A network's logits on its training data at every record (T, R, N, k), and the labels (R, N)."""
    F = [PatchCNN(W, pair.config.q, pair.config.rho).logits(pair.data.X) for W in pair.weights]
    return np.stack(F), pair.data.y


def clean_logits(lab) -> dict:
    """Outputs on clean samples along three trainings, (n, k) each with the label's output first, and tau (n,).

    tau is what D.7 makes of the start: the largest output of another class on that sample at t = 0.
    """

    def make():
        found = lab.small(False)
        F = outputs(found.phi[::10], SMALL_RHO)
        small = F, np.broadcast_to(np.arange(F.shape[-1]), F.shape[1:3])
        large = small_network(lab, init_std=LARGE_INIT, n_iter=400, n_records=100, n_seeds=4)
        runs = {
            "default, network": network_outputs(dense(lab)),
            "small rho, recursion": small,
            "small rho, large init, network": network_outputs(large),
        }
        return {name: _label_first(*run) for name, run in runs.items()}

    return lab.once(("clean logits",), make)


def _label_first(F, y):
    k = F.shape[-1]
    order = (y[..., None] + np.arange(k)) % k
    F = np.take_along_axis(F, np.broadcast_to(order, F.shape), -1)
    tau = np.broadcast_to(F[0, ..., 1:].max(axis=-1), F.shape[:-1])
    return {"F": F.reshape(-1, k), "tau": tau.ravel()}


def log_logits(F):
    """log(1 - logit_y) (n,) and log logit_j (n, k-1) of outputs with the label's first."""
    total = logsumexp(F, axis=-1)
    return logsumexp(F[:, 1:], axis=-1) - total, F[:, 1:] - total[:, None]


def wrong_bounds(F_y, tau, k):
    """Logarithms of (k-1)/(k-1+e^F) and (k-1)e^tau/((k-1)e^tau+e^F): D.5's band of 1 - logit_y."""
    return tuple(-np.logaddexp(0, F_y - t - np.log(k - 1)) for t in (0.0, tau))


def other_bounds(F_y, tau, k):
    """Logarithms of 1/((k-1)e^tau+e^F) and e^tau/(k-2+e^tau+e^F): D.6's band of logit_j, j != y."""
    low = -np.logaddexp(np.log(k - 1) + tau, F_y)
    return low, tau - np.logaddexp(np.logaddexp(np.log(max(k - 2, 1e-300)), tau), F_y)


def judge_band(m, which, bounds, name):
    slack, largest, spans = [], 0.0, []
    for run in m.values():
        F, tau = run["F"], run["tau"]
        value = log_logits(F)[which].reshape(len(F), -1)
        low, high = (bound[:, None] for bound in bounds(F[:, 0], tau, F.shape[-1]))
        slack += [(value - low).min(), (high - value).min()]
        largest, spans = max(largest, tau.max()), [*spans, F[:, 0]]
    n, worst = sum(len(run["F"]) for run in m.values()), float(np.min(slack))
    return Judgement(
        f"{name} inside its band, tau from t = 0",
        f"smallest slack of log {name} {worst:.2g} over {n} clean samples at all records; "
        f"F_y {spread(np.concatenate(spans))}, tau up to {largest:.2g}",
        worst / ROUNDING + 1,
        [Assumption("outputs of other classes", f"tau {largest:.2g} at t = 0", "0 < tau <= 1", bool(0 < largest <= 1))],
    )


def draw_band(axis, m, which, bounds, name):
    """The quantity against F_y with the band of the network whose tau is no small number."""
    k = next(iter(m.values()))["F"].shape[-1]
    top = max(run["F"][:, 0].max() for run in m.values())
    x, tau = np.linspace(0, top, 200), max(run["tau"].max() for run in m.values())
    low, high = (np.exp(b) for b in bounds(x, np.full_like(x, tau), k))
    axis.fill_between(x, low, high, color="0.85", lw=0, label=f"band, tau = {tau:.2f}")
    for (source, run), color, marker in zip(m.items(), (ROBUST, CERTIFIED, NON_ROBUST), "so."):
        y = np.exp(log_logits(run["F"])[which].reshape(len(run["F"]), -1))
        axis.plot(run["F"][:, 0], y, marker, color=color, ms=2.5, mew=0, alpha=0.5)[0].set_label(source)
    axis.plot(x, np.exp(bounds(x, np.zeros_like(x), k)[0]), "k", lw=0.8, label="tau = 0")
    axis.set_yscale("log")
    axis.set_xlabel("F_y on a clean sample")
    axis.set_ylabel(name)


@entry(
    "D.5",
    GROUP,
    "Diagonal logit approximation",
    statement="On clean data 1 - logit_y is constant while F_y is small and falls like e^{-F_y} afterwards; our "
    "reading: exactly between two curves, with tau the other classes' largest output at t = 0 (D.7: it never grows).",
    formula="0 <= F_j <= tau for j != y:  (k-1)/(k-1+e^{F_y}) <= 1 - logit_y <= (k-1) e^tau / ((k-1) e^tau + e^{F_y})",
    rule=f"slack of log(1 - logit_y) against both bounds >= -{ROUNDING:g} at every record of two networks and 16 "
    f"simulations; margin: smallest slack / {ROUNDING:g} + 1",
)
class StandardDiagonalLogit:
    measure = clean_logits

    def judge(m):
        return judge_band(m, 0, wrong_bounds, "(1 - logit_y)")

    def draw(axis, m):
        draw_band(axis, m, 0, wrong_bounds, "1 - logit_y")


@entry(
    "D.6",
    GROUP,
    "Non-diagonal logit approximation",
    statement="On clean data every other class's logit is constant while F_y is small and falls like e^{-F_y} "
    "afterwards; our reading: exactly between two curves, with tau the other classes' largest output at t = 0 (D.7).",
    formula="0 <= F_j <= tau for j != y:  1/((k-1) e^tau + e^{F_y}) <= logit_j <= e^tau / (k-2 + e^tau + e^{F_y})",
    rule=f"slack of log logit_j against both bounds >= -{ROUNDING:g} for every j != y at every record of two networks "
    f"and 16 simulations; margin: smallest slack / {ROUNDING:g} + 1",
)
class StandardOtherLogits:
    measure = clean_logits

    def judge(m):
        return judge_band(m, 1, other_bounds, "logit_j")

    def draw(axis, m):
        draw_band(axis, m, 1, other_bounds, "logit_j, j != y")


# ------------------------------------------------------------------ D.7
BIG_STEPS = {"init_std": 0.1, "lr": 0.8}  # steps so large that entries are thrown below zero


def off_diagonal(phi, setting) -> dict:
    """Correlations with other classes' features along (T, R, k, m, 2k), and how far one step can take them down."""
    k, q, rho = setting["n_classes"], setting["q"], setting["rho"]
    other = np.arange(2 * k)[None, None] % k != np.arange(k)[:, None, None]
    other = np.broadcast_to(other, phi.shape[2:])
    x, start = phi[:, :, other], phi[0][:, other]
    largest = np.abs(start).max()
    steps = []
    for strength, count in (
        (setting["alpha"], setting["n_robust"]),
        (setting["beta"], setting["n_patches"] - setting["n_robust"]),
    ):
        slope = min(strength * start.max() / rho, 1) ** (q - 1)
        steps.append(setting["lr"] / k * count * strength * slope)
    positive = np.maximum(x, 0)
    return {
        "grown": np.diff(positive, axis=0).max() / largest,
        "moved": np.abs(x - start)[:, start <= 0].max() / largest,
        "overshoot": -x[:, start > 0].min(),
        "step": max(steps),
        "largest": largest,
        "span": [x.min(), x.max()],
        "entries": x[:, start.max(axis=1).argmax()],
        "init_std": setting["init_std"],
    }


@entry(
    "D.7",
    GROUP,
    "Non-diagonal terms are small",
    statement="Correlations with other classes' features stay of the order sigma_0: none above zero ever grows, none "
    "below zero ever moves, and (our reading of the lower bound) one that a step throws below zero lands within the "
    "size of that step.",
    formula="max_t <w_{i,s}, f_j>_+ = <w_{i,s}^(0), f_j>_+, j != i;  <w_{i,s}, f_j> >= min(<w_{i,s}^(0), f_j>, -step), "
    "step = (eta/k) max over f of P_f s_f min(s_f x_0/rho, 1)^(q-1), x_0 = max of <w^(0), f_j>",
    rule=f"growth of positive and motion of nonpositive entries <= {ROUNDING:g} of the largest, overshoot <= step, at "
    f"every record of every run; margin: the smallest of 1 - growth/{ROUNDING:g}, 1 - motion/{ROUNDING:g}, "
    "1 - overshoot/step",
)
class StandardOffDiagonal:
    def measure(lab):
        runs = {"default, network": off_diagonal(dense(lab).phi, dense(lab).config.as_dict())}
        runs |= {
            f"small rho, init_std = {s.value:g}": off_diagonal(s.recursion.phi, s.setting | {"lr": SMALL_RHO["lr"]})
            for s in lab.scaling("init_std", False)
        }
        big = lab.once(("big steps",), lambda: small_rho(False, lab.n_draws, 1 / 60, 1, **BIG_STEPS))
        runs["big steps"] = off_diagonal(big.phi, SMALL_RHO | BIG_STEPS) | {"iteration": big.iteration}
        return runs

    def judge(m):
        worst = {name: max(float(run[name]) for run in m.values()) for name in ("grown", "moved")}
        overshoot = {name: max(float(run["overshoot"]), 0) / run["step"] for name, run in m.items()}
        usual = [run for name, run in m.items() if name != "big steps"]
        sizes = [np.abs(run["span"]).max() / run["init_std"] for run in usual]
        shown = ", ".join(f"{share:.2g} in {name!r}" for name, share in overshoot.items() if share)
        return Judgement(
            "no growth, no motion below zero, overshoot <= one step",
            f"growth {worst['grown']:.1e}, motion below zero {worst['moved']:.1e} of the largest; overshoot / step "
            f"{shown or 'none'}; max |<w, f_j>| / sigma_0 {spread(sizes)} over runs without big steps",
            smallest(1 - worst["grown"] / ROUNDING, 1 - worst["moved"] / ROUNDING, 1 - max(overshoot.values())),
        )

    def draw(axis, m):
        """One run with big steps, in which the lower bound is put to use: every entry over time."""
        run = m["big steps"]
        t, x = run["iteration"], run["entries"]
        kinds = (
            (x[0] <= 0, "0.7", "began below 0"),
            ((x[0] > 0) & (x[-1] >= 0), ROBUST, "began above 0"),
            (x[-1] * x[0] < 0, PAPER, "thrown below 0 by a step"),
        )
        for chosen, color, name in kinds:
            for line in axis.plot(t, x[:, chosen], color=color, lw=0.7, alpha=0.8)[:1]:
                line.set_label(name)
        axis.axhline(max(run["span"]), color=ACCURACY, ls="--", lw=1, label="initial maximum")
        axis.axhline(-run["step"], color=NON_ROBUST, ls=":", lw=1.2, label="one step below 0")
        axis.set_yscale("symlog", linthresh=0.1)
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xlim(0, t[-1])
        axis.set_ylim(bottom=-40)
        axis.set_xlabel(f"iteration (learning rate {BIG_STEPS['lr'] / SMALL_RHO['lr']:g} times the usual)")
        axis.set_ylabel("<w, f_j> of other classes")

"""Noiseless training's logits between their bounds, on clean data (D.5, D.6) and at adversarial examples (D.19, D.20);
how small correlations with other classes' features stay (D.7, D.21)."""

from functools import partial

import numpy as np
from scipy.special import logsumexp

from ..patches.attacks import one_step_ascent
from ..patches.network import PatchCNN
from ..reporting.pictures import CERTIFIED, NON_ROBUST, PAPER, ROBUST, Picture, band, line, mark, points
from ..theory.outputs import outputs, patch_kinds
from . import adversarial, standard
from .lab import SMALL_RHO, beside_recursion, shared, small_rho
from .ledger import Check, Entry, Judgement, exact
from .statistics import spread

ROUNDING = 1e-12  # of logits and their logarithms, and of correlations relative to the largest
LARGE_INIT = 0.07  # init_std of a network whose other outputs are no small numbers: tau of order 1


@shared
def small_network(lab, **changes):
    """SMALL_RHO as a trained network beside its recursion, in few dimensions: noiseless training is free of d."""
    held = {"patch_dim": 50, "n_train": 5, "n_seeds": 2, "noise_std": 0.0, "dtype": "float64"}
    config = SMALL_RHO.config(**(held | changes))
    return beside_recursion(config, False, config.n_iter // config.n_records)


def network_outputs(pair) -> tuple[np.ndarray, np.ndarray]:
    """A network's logits on its training data at every record (T, R, N, k), and the labels (R, N)."""
    F = [PatchCNN(W, pair.config.q, pair.config.rho).logits(pair.data.X) for W in pair.weights]
    return np.stack(F), pair.data.y


# ------------------------------------------------------------------ clean data
@shared
def clean_logits(lab) -> dict:
    """Outputs on clean samples along three trainings, (n, k) each with the label's output first, and tau (n,).

    tau is what D.7 makes of the start: the largest output of another class on that sample at t = 0.
    """
    F = sum(outputs(lab.small(False).phi[::10], SMALL_RHO)).swapaxes(-1, -2)
    runs = {
        "default, network": network_outputs(lab.exact(False)),
        "small rho, recursion": (F, np.broadcast_to(np.arange(F.shape[-1]), F.shape[1:3])),
        "small rho, large init, network": network_outputs(
            small_network(lab, init_std=LARGE_INIT, n_iter=400, n_records=100, n_seeds=4)),
    }  # fmt: skip
    return {name: _label_first(*run) for name, run in runs.items()}


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


def judge_band(which, bounds, name, m) -> Judgement:
    slack, tau = [], np.max([run["tau"].max() for run in m.values()])
    for run in m.values():
        F, value = run["F"], log_logits(run["F"])[which].reshape(len(run["F"]), -1)
        low, high = (bound[:, None] for bound in bounds(F[:, 0], run["tau"], F.shape[-1]))
        slack += [(value - low).min(), (high - value).min()]
    n, F_y = sum(len(run["F"]) for run in m.values()), np.concatenate([run["F"][:, 0] for run in m.values()])
    rule = f"largest excess of log {name} over either bound at any record of two networks and 16 simulations"
    return Judgement(
        [Check(rule, -np.min(slack), "<=", ROUNDING, "share")], f"{n} clean samples; F_y {spread(F_y)}",
        [Check("tau, largest output of another class at t = 0", tau, ">", 0), Check("tau", tau, "<=", 1)],
    )  # fmt: skip


def draw_band(which, bounds, name, m) -> Picture:
    """The quantity against F_y with the band of the network whose tau is no small number."""
    k = next(iter(m.values()))["F"].shape[-1]
    top, tau = (max(values) for values in zip(*((r["F"][:, 0].max(), r["tau"].max()) for r in m.values())))
    x = np.linspace(0, top, 200)
    ends = (np.exp(b) for b in bounds(x, np.full_like(x, tau), k))
    layers = [band(x, *ends, f"band, tau = {tau:.2f}", alpha=0.25)]
    for (source, run), color, marker in zip(m.items(), (ROBUST, CERTIFIED, NON_ROBUST), "soD"):
        y = np.exp(log_logits(run["F"])[which].reshape(len(run["F"]), -1))
        layers.append(points(run["F"][:, 0], y, source, color, marker, 2.5))
    layers.append(line(x, np.exp(bounds(x, np.zeros_like(x), k)[0]), "tau = 0", "k", lw=0.8))
    return Picture("F_y on a clean sample", name, layers, "y")


# ------------------------------------------------------------------ at adversarial examples
@shared
def logits_at_attacks(lab) -> dict:
    """F at adversarial examples (n, k), label first, and tau (n, 1), the largest F_j at that record: the default
    network at 41 records, SMALL_RHO's classes at 21 (H as at the end)."""
    pair, F = lab.exact(True), []
    own = np.eye(pair.config.n_classes, dtype=bool)[pair.data.y]
    for W in pair.weights:
        net = PatchCNN(W, pair.config.q, pair.config.rho)
        X = one_step_ascent(net, pair.data.X, pair.data.y, lr=pair.config.ascent_lr, eps=pair.config.eps)
        F.append(net.logits(X))
    found = lab.small(True)
    every = found.phi[:: len(found.phi) // 20]
    small = np.stack([sum(outputs(phi, SMALL_RHO, found.gram)).swapaxes(-1, -2) for phi in every])
    return {"default": label_first(np.array(F), own),
            "small rho": label_first(small, np.eye(SMALL_RHO.n_classes, dtype=bool))}  # fmt: skip


def label_first(F, own) -> dict:
    own, k = np.broadcast_to(own, F.shape), F.shape[-1]
    tau = np.where(own, 0, F).reshape(len(F), -1).max(axis=1)
    others = F[~own].reshape(-1, k - 1)
    return {"F": np.column_stack([F[own], others]), "tau": np.repeat(tau, len(others) // len(F))[:, None]}


def diagonal_sandwich(F, tau):
    """D.19's lower bound, 1 - logit_y and upper bound."""
    k, label = F.shape[1], np.exp(F[:, :1])
    rest = np.exp(F[:, 1:]).sum(axis=1, keepdims=True)
    return (k - 1) / (k - 1 + label), rest / (rest + label), (k - 1) * np.exp(tau) / ((k - 1) * np.exp(tau) + label)


def other_sandwich(F, tau):
    """D.20's lower bound, logit_j and upper bound."""
    k, all_ = F.shape[1], np.exp(F)
    low = 1 / ((k - 1) * np.exp(tau) + all_[:, :1])
    return low, all_[:, 1:] / all_.sum(axis=1, keepdims=True), np.exp(tau) / (k - 2 + np.exp(tau) + all_[:, :1])


def judge_sandwich(bounds, m) -> Judgement:
    """low <= value <= high, of `bounds(F, tau)`, to rounding; the premise, and how far the two ends differ."""
    beyond, told = [], []
    for name, run in m.items():
        F, (low, value, high) = run["F"], bounds(run["F"], run["tau"])
        beyond.append(np.max(np.maximum(np.maximum(low - value, value - high) / value, 0)))
        told.append(f"{name}: ends differ by {np.max(high / low - 1):.2g}, F_y to {F[:, 0].max():.3g}")
    tau, least = [run["tau"].max() for run in m.values()], [run["F"].min() for run in m.values()]
    rule = "largest violation of either bound at any record, of the value"
    return Judgement(
        [exact(rule, np.maximum(beyond, 1e-16), ROUNDING)], "; ".join(told),
        [Check("tau, largest F_j of a record", tau, "<=", 1), Check("least F_j", least, ">=", 0)],
    )  # fmt: skip


def draw_sandwich(bounds, what, m) -> Picture:
    layers = []
    for (name, run), color in zip(m.items(), (NON_ROBUST, ROBUST)):
        F, (low, value, high) = run["F"][:, 0], bounds(run["F"], run["tau"])
        layers += [points(F, value[:, 0] / low[:, 0] - 1, name, color, size=2.5, alpha=0.4),
                   points(F[:, None] + 0 * high, high / low - 1, f"bound, {name}", color, "_", 5)]  # fmt: skip
    return Picture("F_y at the adversarial example", what, layers, "xy")


D5 = Entry(
    "D.5", standard.GROUP, "Diagonal logit approximation",
    "On clean data 1 - logit_y is constant while F_y is small and falls like e^{-F_y} afterwards; our reading: "
    "exactly between two curves, with tau the other classes' largest output at t = 0 (D.7: it never grows).",
    "0 <= F_j <= tau for j != y:  (k-1)/(k-1+e^{F_y}) <= 1 - logit_y <= (k-1) e^tau / ((k-1) e^tau + e^{F_y})",
    clean_logits, partial(judge_band, 0, wrong_bounds, "(1 - logit_y)"),
    partial(draw_band, 0, wrong_bounds, "1 - logit_y"),
)  # fmt: skip
D6 = Entry(
    "D.6", standard.GROUP, "Non-diagonal logit approximation",
    "On clean data every other class's logit is constant while F_y is small and falls like e^{-F_y} afterwards; our "
    "reading: exactly between two curves, with tau the other classes' largest output at t = 0 (D.7).",
    "0 <= F_j <= tau for j != y:  1/((k-1) e^tau + e^{F_y}) <= logit_j <= e^tau / (k-2 + e^tau + e^{F_y})",
    clean_logits, partial(judge_band, 1, other_bounds, "logit_j"),
    partial(draw_band, 1, other_bounds, "logit_j, j != y"),
)  # fmt: skip
D19 = Entry(
    "D.19", adversarial.GROUP, "Diagonal logit at adversarial examples",
    "At an adversarial example of class i whose other outputs lie in [0, tau], 1 - logit_i is (k-1)/(k-1+e^F_i) up "
    "to a factor e^tau; our reading: the sandwich that theory gives, with tau as measured.",
    "(k-1)/(k-1+e^F_i) <= 1 - logit_i <= (k-1) e^tau / ((k-1) e^tau + e^F_i), F at the adversarial example",
    logits_at_attacks, partial(judge_sandwich, diagonal_sandwich),
    partial(draw_sandwich, diagonal_sandwich, "(1 - logit) / lower bound - 1"),
)  # fmt: skip
D20 = Entry(
    "D.20", adversarial.GROUP, "Other logits at adversarial examples",
    "At an adversarial example of class i whose other outputs lie in [0, tau], logit_j of another class is "
    "1/(k-1+e^F_i) up to a factor e^tau; our reading: the sandwich that theory gives, with tau as measured.",
    "1/((k-1) e^tau + e^F_i) <= logit_j <= e^tau / (k-2 + e^tau + e^F_i), F at the adversarial example",
    logits_at_attacks, partial(judge_sandwich, other_sandwich),
    partial(draw_sandwich, other_sandwich, "logit_j / lower bound - 1"),
)  # fmt: skip


# ------------------------------------------------------------------ D.7
BIG_STEPS = {"init_std": 0.1, "lr": 0.8}  # steps so large that entries are thrown below zero


def entries_and_steps(phi, c) -> dict:
    """Correlations with other classes' features along (T, R, k, m, 2k), and how far one step can take them down."""
    k = c.n_classes
    other = np.arange(2 * k)[None, None] % k != np.arange(k)[:, None, None]
    other = np.broadcast_to(other, phi.shape[2:])
    x, start = phi[:, :, other], phi[0][:, other]
    largest, positive = np.abs(start).max(), np.maximum(x, 0)
    slopes = [min(strength * start.max() / c.rho, 1) ** (c.q - 1) for strength, *_ in patch_kinds(c)]
    steps = [c.lr / k * n * strength * slope for (strength, n, _), slope in zip(patch_kinds(c), slopes)]
    return {
        "grown": np.diff(positive, axis=0).max() / largest,
        "moved": np.abs(x - start)[:, start <= 0].max() / largest,
        "overshoot": -x[:, start > 0].min(),
        "step": max(steps),
        "largest": largest,
        "span": [x.min(), x.max()],
        "entries": x[:, start.max(axis=1).argmax()],
        "init_std": c.init_std,
    }


@shared
def big_steps(lab):
    return small_rho(False, lab.n_draws, 1 / 60, 1, **BIG_STEPS)


def standard_entries(lab):
    pair, big = lab.exact(False), big_steps(lab)
    runs = {"default, network": entries_and_steps(pair.phi, pair.config)}
    for s in lab.scaling("init_std", False):
        runs[f"small rho, init_std = {s.value:g}"] = entries_and_steps(s.recursion.phi, s.setting)
    steps = entries_and_steps(big.phi, SMALL_RHO.but(**BIG_STEPS))
    return runs | {"big steps": steps | {"iteration": big.iteration}}


def judge_standard_entries(m):
    grown, moved, overshoot = ([float(f(run)) for run in m.values()] for f in (
        lambda r: r["grown"], lambda r: r["moved"], lambda r: max(float(r["overshoot"]), 0) / r["step"]))  # fmt: skip
    sizes = [np.abs(run["span"]).max() / run["init_std"] for name, run in m.items() if name != "big steps"]
    return Judgement(
        [Check("growth of an entry above zero at any record, of the largest", grown, "<=", ROUNDING, "share"),
         Check("motion of an entry below zero, of the largest", moved, "<=", ROUNDING, "share"),
         Check("how far a step throws one below zero, of the step", overshoot, "<=", 1, "share")],
        f"max |<w, f_j>| / sigma_0 {spread(sizes)} over runs without big steps",
    )  # fmt: skip


def began(x):
    """The entries x (T, n) by how they began and whether a step threw them below zero: (which, name, colour) each."""
    return ((x[0] <= 0, "began below 0", "0.7"), ((x[0] > 0) & (x[-1] >= 0), "began above 0", ROBUST),
            (x[-1] * x[0] < 0, "thrown below 0 by a step", PAPER))  # fmt: skip


# ------------------------------------------------------------------ D.21
def extremes(iteration, phi) -> dict:
    """Extremes of <w_{i,r}, u_j>, <w_{i,r}, v_j>, j != i, over the largest at the start, (T, R); how many grew."""
    k = phi.shape[2]
    own = np.concatenate([np.eye(k, dtype=bool)] * 2, axis=1)[:, None]
    top, bottom = (np.where(own, fill, phi) for fill in (-np.inf, np.inf))
    top, bottom = top.max(axis=(2, 3, 4)), bottom.min(axis=(2, 3, 4))
    grew = ((phi.max(axis=0) > np.maximum(phi[0], 0) * (1 + 1e-9)) & ~own).sum()
    numbers = {"grew": int(grew), "entries": int(phi[0].size - own.sum() * phi.shape[1] * phi.shape[3])}
    return {"iteration": iteration, "top": top / top[0], "bottom": bottom / top[0]} | numbers


def adversarial_entries(lab):
    pair = lab.exact(True)
    found = {name: s.recursion for name, s in lab.settings(True).items()}
    runs = {name: extremes(r.iteration[::5], r.phi[::5]) for name, r in found.items()}
    return {"default": extremes(pair.iteration, pair.phi)} | runs


def judge_adversarial_entries(m):
    later = max(run["top"][-1].max() for run in m.values())
    grew = ", ".join(f"{run['grew']} of {run['entries']} ({name})" for name, run in list(m.items())[:2])
    top, bottom = ([np.max(sign * run[name]) for run in m.values()] for name, sign in (("top", 1), ("bottom", -1)))
    return Judgement(
        [Check("largest entry ever, of the largest at the start (1% for finite steps)", top, "<=", 1.01, "share",
               f"{np.max(top):.6f}"),
         Check("smallest entry, of the largest at the start, with its sign turned", bottom, "<=", 3, "share")],
        f"largest / initial at the end {later:.3f}, over {len(m)} settings; single positive entries that grew: "
        f"{grew}",
    )  # fmt: skip


D7 = Entry(
    "D.7", standard.GROUP, "Non-diagonal terms are small",
    "Correlations with other classes' features stay of the order sigma_0: none above zero ever grows, none below "
    "zero ever moves, and (our reading of the lower bound) one that a step throws below zero lands within the size "
    "of that step.",
    "max_t <w_{i,s}, f_j>_+ = <w_{i,s}^(0), f_j>_+, j != i;  <w_{i,s}, f_j> >= min(<w_{i,s}^(0), f_j>, -step), step "
    "= (eta/k) max over f of P_f s_f min(s_f x_0/rho, 1)^(q-1), x_0 = max of <w^(0), f_j>",
    standard_entries, judge_standard_entries,
    lambda m: Picture(f"iteration (learning rate {BIG_STEPS['lr'] / SMALL_RHO.lr:g} times the usual)",
                      "<w, f_j> of other classes", [
        *(line(m["big steps"]["iteration"], m["big steps"]["entries"][:, chosen], name, color, lw=0.7, alpha=0.8)
          for chosen, name, color in began(m["big steps"]["entries"])),
        mark(y=max(m["big steps"]["span"]), label="initial maximum"),
        mark(y=-m["big steps"]["step"], label="one step below 0", color=NON_ROBUST, style=":"),
    ], symlog={"x": 1, "y": 0.1}, xlim=(0, None), ylim=(-40, None)),
)  # fmt: skip
D21 = Entry(
    "D.21", adversarial.GROUP, "Off-diagonal correlations stay small",
    "Correlations with other classes' features stay of the order of their initial values; our reading: their maximum "
    "over all entries never passes the initial one, though single entries may grow (unlike standard training).",
    "max_{t, i != j, r} <w_{i,r}^(t), u_j>, <w_{i,r}^(t), v_j> <= max at t = 0 = O~(sigma_0); min >= -O~(sigma_0)",
    adversarial_entries, judge_adversarial_entries,
    lambda m: Picture("iteration / last iteration", "extreme off-diagonal entries,\nof the initial maximum", [
        *(line(run["iteration"] / run["iteration"][-1], run[part], "default, networks" if name == "default" else
               "small rho, simulated", NON_ROBUST if name == "default" else ROBUST, lw=0.8, alpha=0.6)
          for name, run in reversed(m.items()) for part in ("top", "bottom")),
        mark(y=1, label="bound: initial maximum", color=PAPER),
    ]),
)  # fmt: skip

"""Noiseless training's logits between their bounds, on clean data (D.5, D.6) and at adversarial examples (D.19, D.20);
how small correlations with other classes' features stay (D.7, D.21)."""

from functools import partial

import numpy as np
from scipy.special import logsumexp

from ..patches.attacks import one_step_ascent
from ..patches.network import PatchCNN, SmoothedReLU
from ..reporting.pictures import CERTIFIED, NON_ROBUST, PAPER, ROBUST, Picture, line, mark, points
from ..theory import gaussian_maximum
from ..theory.outputs import outputs, patch_kinds
from . import adversarial, standard
from .lab import SMALL_RHO, beside_recursion, shared, small_rho
from .ledger import Check, Entry, Judgement
from .statistics import OF_ORDER, order_of, spread

ROUNDING = 1e-12  # of logits and their logarithms, and of correlations relative to the largest
WIDTH = 1.1  # our 1 + o(1): how far apart the two ends of a sandwich may be


@shared
def small_network(lab, **changes):
    """SMALL_RHO as a trained network beside its recursion, in few dimensions: noiseless training is free of d."""
    held = {"patch_dim": 50, "n_train": 5, "n_seeds": 2, "first_seed": lab.first, "noise_std": 0.0, "dtype": "float64"}
    config = SMALL_RHO.config(**(held | changes))
    return beside_recursion(config, False, config.n_iter // config.n_records)


def network_outputs(pair) -> tuple[np.ndarray, np.ndarray]:
    """A network's logits on its training data at every record (T, R, N, k), and the labels (R, N)."""
    F = [PatchCNN(W, pair.config.q, pair.config.rho).logits(pair.data.X) for W in pair.weights]
    return np.stack(F), pair.data.y


# ------------------------------------------------------------------ clean data
@shared
def clean_logits(lab) -> dict:
    """Outputs on clean samples along trainings of several k, (n, k) each with the label's output first, and tau."""
    pair = lab.exact(False)
    found = {"default, network": label_first(*network_outputs(pair)) | {"tau": predicted_tau(pair.config)}}
    for s in lab.scaling("n_classes", False):
        F = sum(outputs(s.recursion.phi, s.setting)).swapaxes(-1, -2)
        run = label_first(F, np.broadcast_to(np.arange(F.shape[-1]), F.shape[1:3]))
        found[f"small rho, k = {s.value:g}"] = run | {"tau": predicted_tau(s.setting)}
    return found


def predicted_tau(c) -> float:
    """What no other class's output passes, from the setting alone: all m neurons at what the largest of the 2 k^2 m
    correlations passes at the start with probability 1e-4 (Lemma B.1), where D.7 and D.21 keep them."""
    largest = gaussian_maximum.upper_bound(1e-4, 2 * c.n_classes**2 * c.n_neurons).value * c.init_std
    sigma = SmoothedReLU(c.q, c.rho)
    return float(sum(n * c.n_neurons * sigma(strength * largest) for strength, n, _ in patch_kinds(c)))


def label_first(F, y):
    k = F.shape[-1]
    order = (y[..., None] + np.arange(k)) % k
    return {"F": np.take_along_axis(F, np.broadcast_to(order, F.shape), -1).reshape(-1, k)}


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


def judge_band(which, bounds, name, tau, m) -> Judgement:
    """Between bounds whose constants are known before the run, and close to each other: with `tau` or, if that is None,
    each run's own, from its setting."""
    over, seen, taus = [], [], [tau or run["tau"] for run in m.values()]
    for run, most in zip(m.values(), taus):
        F, value = run["F"], log_logits(run["F"])[which].reshape(len(run["F"]), -1)
        low, high = (bound[:, None] for bound in bounds(F[:, 0], most, F.shape[-1]))
        over.append(-min((value - low).min(), (high - value).min()))
        seen.append(F[:, 1:].max() / run["tau"])
    F_y = np.concatenate([run["F"][:, 0] for run in m.values()])
    rule = f"largest excess of log {name} over either bound at any record, networks and simulations"
    checks, what = (
        [Check(rule, over, "<=", ROUNDING)],
        "e^tau, by which the two ends differ, tau from the setting alone",
    )
    told = "largest other output, of what the start's largest correlation makes of all neurons"
    return Judgement(checks + [Check(what, np.exp(taus), "<=", WIDTH)] * (tau is None),
                     f"{len(F_y)} samples; F_y {spread(F_y)}; {told}, {spread(seen)}")  # fmt: skip


def draw_band(which, bounds, name, m) -> Picture:
    """The quantity against F_y, a few hundred samples of every run, with its two ends at each k."""
    layers = []
    for (source, run), color, marker in zip(m.items(), (PAPER, NON_ROBUST, CERTIFIED, ROBUST), "soDv"):
        F = run["F"][:: max(len(run["F"]) // 300, 1)]
        x = np.linspace(0, F[:, 0].max(), 200)
        ends = [np.exp(b) for b in bounds(x, run["tau"], F.shape[-1])]
        y = np.exp(log_logits(F)[which].reshape(len(F), -1))
        layers += [
            points(F[:, 0], y, source, color, marker, 2.5),
            line(x, np.transpose(ends), "both ends", "k", lw=0.6),
        ]
    return Picture("F_y on the sample", name, layers, "y")


# ------------------------------------------------------------------ at adversarial examples
@shared
def logits_at_attacks(lab) -> dict:
    """F at adversarial examples (n, k), label first, and tau: the default network at 41 records, SMALL_RHO's classes at
    all (H as at the end)."""
    pair, F = lab.exact(True), []
    for W in pair.weights:
        net = PatchCNN(W, pair.config.q, pair.config.rho)
        X = one_step_ascent(net, pair.data.X, pair.data.y, lr=pair.config.ascent_lr, eps=pair.config.eps)
        F.append(net.logits(X))
    found = lab.small(True)
    small = np.stack([sum(outputs(phi, SMALL_RHO, found.gram)).swapaxes(-1, -2) for phi in found.phi])
    runs = {"default": (np.array(F), pair.data.y, pair.config),
            "small rho": (small, np.arange(SMALL_RHO.n_classes)[None], SMALL_RHO)}  # fmt: skip
    return {name: label_first(F, np.broadcast_to(y, F.shape[1:-1])) | {"tau": predicted_tau(c)}
            for name, (F, y, c) in runs.items()}  # fmt: skip


D5 = Entry(
    "D.5", standard.GROUP, "Diagonal logit approximation",
    "On clean data 1 - logit_y is constant while F_y is small and falls like e^{-F_y} afterwards; our reading: between "
    "two curves that differ by at most 10%, with a tau from the setting alone, at every k.",
    "0 <= F_j <= tau for j != y:  (k-1)/(k-1+e^{F_y}) <= 1 - logit_y <= (k-1) e^tau / ((k-1) e^tau + e^{F_y})",
    clean_logits, partial(judge_band, 0, wrong_bounds, "(1 - logit_y)", None),
    partial(draw_band, 0, wrong_bounds, "1 - logit_y"),
)  # fmt: skip
D6 = Entry(
    "D.6", standard.GROUP, "Non-diagonal logit approximation",
    "On clean data every other class's logit is constant while F_y is small and falls like e^{-F_y} afterwards; our "
    "reading: between two curves that differ by at most 10%, with a tau from the setting alone, at every k.",
    "0 <= F_j <= tau for j != y:  1/((k-1) e^tau + e^{F_y}) <= logit_j <= e^tau / (k-2 + e^tau + e^{F_y})",
    clean_logits, partial(judge_band, 1, other_bounds, "logit_j", None),
    partial(draw_band, 1, other_bounds, "logit_j, j != y"),
)  # fmt: skip
D19 = Entry(
    "D.19", adversarial.GROUP, "Diagonal logit at adversarial examples",
    "At every adversarial example of a training, 1 - logit_i of its class is (k-1)/(k-1+e^F_i) up to a factor 1 + "
    "o(1); our reading: up to a tenth.",
    "(k-1)/(k-1+e^F_i) <= 1 - logit_i <= (k-1) e^tau / ((k-1) e^tau + e^F_i), F at the adversarial example",
    logits_at_attacks, partial(judge_band, 0, wrong_bounds, "(1 - logit_i)", np.log(WIDTH)),
    partial(draw_band, 0, wrong_bounds, "1 - logit_i"),
)  # fmt: skip
D20 = Entry(
    "D.20", adversarial.GROUP, "Other logits at adversarial examples",
    "At every adversarial example of a training, logit_j of another class is 1/(k-1+e^F_i) up to a factor 1 + o(1); "
    "our reading: up to a tenth.",
    "1/((k-1) e^tau + e^F_i) <= logit_j <= e^tau / (k-2 + e^tau + e^F_i), F at the adversarial example",
    logits_at_attacks, partial(judge_band, 1, other_bounds, "logit_j", np.log(WIDTH)),
    partial(draw_band, 1, other_bounds, "logit_j"),
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
        "size": np.abs(x).max() / order_of(c),
        "entries": x[:, start.max(axis=1).argmax()],
    }


@shared
def big_steps(lab):
    return small_rho(False, lab.seeds, 1 / 60, 1, **BIG_STEPS)


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
    sizes = [OF_ORDER * run["size"] for name, run in m.items() if name != "big steps"]
    return Judgement(
        [Check("max |<w, f_j>| of another class at any record, in sigma_0 sqrt(2 log m), usual steps", sizes, "<=",
               OF_ORDER),
         Check("growth of an entry above zero at any record, of the largest", grown, "<=", ROUNDING, "share"),
         Check("motion of an entry below zero, of the largest", moved, "<=", ROUNDING, "share"),
         Check("how far a step throws one below zero, of the step", overshoot, "<=", 1, "share")],
    )  # fmt: skip


def began(x):
    """The entries x (T, n) by how they began and whether a step threw them below zero: (which, name, colour) each."""
    return ((x[0] <= 0, "began below 0", "0.7"), ((x[0] > 0) & (x[-1] >= 0), "began above 0", ROBUST),
            (x[-1] * x[0] < 0, "thrown below 0 by a step", PAPER))  # fmt: skip


# ------------------------------------------------------------------ D.21
def extremes(iteration, phi, c) -> dict:
    """Extremes of <w_{i,r}, u_j>, <w_{i,r}, v_j>, j != i, at every record, (T, R), and the setting's O~(sigma_0); how
    many (class, feature) pairs' largest ever passes its own start by more than 1%, for finite steps."""
    k = phi.shape[2]
    other = ~np.concatenate([np.eye(k, dtype=bool)] * 2, axis=1)  # (class, feature)
    top, bottom = (np.array([f(x, axis=2)[:, other] for x in phi]) for f in (np.max, np.min))  # (T, R, pairs)
    grew = top.max(axis=0) > 1.01 * np.maximum(top[0], 0)
    return {"iteration": iteration, "top": top.max(axis=2), "bottom": bottom.min(axis=2), "order": order_of(c),
            "grew": int(grew.sum()), "pairs": grew.size}  # fmt: skip


@shared
def adversarial_entries(lab):
    pair = lab.exact(True)
    found = {name: extremes(s.recursion.iteration, s.recursion.phi, s.setting)
             for name, s in lab.settings(True).items()}  # fmt: skip
    return {"default": extremes(pair.iteration, pair.phi, pair.config)} | found


def judge_adversarial_entries(m):
    sizes = [OF_ORDER * np.max([np.abs(run[name]).max() for name in ("top", "bottom")]) / run["order"]
             for run in m.values()]  # fmt: skip
    what = "largest |<w, f_j>| of another class at any record, in sigma_0 sqrt(2 log m), every setting"
    return Judgement([Check(what, sizes, "<=", OF_ORDER)])


def judge_never_above_start(m):
    """What standard training does keep (D.7)."""
    top, bottom = ([np.max(sign * run[name] / run["top"][0]) for run in m.values()]
                   for name, sign in (("top", 1), ("bottom", -1)))  # fmt: skip
    grew, pairs = (np.array([run[name] for run in m.values()]) for name in ("grew", "pairs"))
    told = ", ".join(f"{n} of {of} ({name})" for name, n, of in zip(m, grew, pairs))
    return Judgement(
        [Check("largest entry ever, of the largest at the start (1% for finite steps)", top, "<=", 1.01, "share",
               f"{np.max(top):.6f}"),
         Check("share of (class, feature) pairs whose largest passes its own start", grew / pairs, "<=", 0,
               shown=told)],
        f"smallest entry, of the largest at the start, {spread(-np.array(bottom))} over {len(m)} settings",
    )  # fmt: skip


def draw_adversarial_entries(m):
    return Picture("iteration / last iteration", "extreme off-diagonal entries,\nin sigma_0 sqrt(2 log m)", [
        *(line(run["iteration"] / run["iteration"][-1], OF_ORDER * run[part] / run["order"],
               "default, networks" if name == "default" else "small rho, simulated",
               NON_ROBUST if name == "default" else ROBUST, lw=0.8, alpha=0.6)
          for name, run in reversed(m.items()) for part in ("top", "bottom")),
        mark(y=OF_ORDER, label="of the order", color=PAPER), mark(y=-OF_ORDER, color=PAPER),
    ])  # fmt: skip


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
    "Correlations with other classes' features stay of the order sigma_0 for every class, feature and neuron at every "
    "record (our reading of the order: ten times).",
    "-O~(sigma_0) <= <w_{i,r}^(t), u_j>, <w_{i,r}^(t), v_j> <= O~(sigma_0), j != i",
    adversarial_entries, judge_adversarial_entries, draw_adversarial_entries,
)  # fmt: skip
D21_START = Entry(
    "D.21 (own start)", adversarial.GROUP, "Off-diagonal correlations never pass their start",
    "No class's largest correlation with another class's feature ever passes its start, nor does the largest of all: "
    "what standard training keeps (D.7), and a proof like D.7's would need.",
    "max_r <w_{i,r}^(t), f_j> <= max_r <w_{i,r}^(0), f_j>_+, j != i",
    adversarial_entries, judge_never_above_start, draw_adversarial_entries, "ours",
)  # fmt: skip

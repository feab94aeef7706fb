"""What Theorems 4.3 and 4.4 claim, measured on networks, judged as shares of samples and seeds, and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..experiments.configuration import Figure3Config
from ..patches.attacks import feature_swap
from ..patches.data import PatchData
from ..patches.network import PatchCNN
from ..reporting.style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST
from ..robustness.evaluate import MEASURED_BY, robust_accuracy
from ..theory.window import contradiction
from ..training.loop import train
from .ledger import Assumption, Judgement
from .statistics import wilson

LEVEL = 0.9  # "1 - o(1)" at a finite size: the lower end of a share's interval, and every seed's share
RADII = np.r_[0, 0.1, 0.2, np.arange(6, 15) / 20, 0.85, 1, 1.2]  # in units of beta, for curves
SHOWN = 4  # seeds in curves
NAMES = {"feature_swap": "swap", "one_step": "one step", "aligned": "aligned", "pgd_cross_entropy": "PGD, cross-ent."}

SHARES = (
    f"Wilson's lower end over all samples and every seed's own share >= {LEVEL:g} (our 1 - o(1)); margin: the smaller "
    f"of the two less {LEVEL:g}"
)
WINDOW = (
    f"share standing against the worst of five attacks at eps_test: {SHARES}; or the same with the share that the "
    "interval certificate proves, seeds pooled, if that is smaller"
)
AT_BETA = f"share standing against the worst of five attacks at eps = beta: {SHARES}"

#: A cheap sibling of the default configuration, for noise levels: same patches, strengths, width, radii and T lr / k.
SWEEP = {"n_classes": 3, "patch_dim": 50, "n_train": 6, "lr": 12.0, "n_iter": 2500}
NOISE = (0.0, 0.05, 0.1, 0.2, 0.3)
SMALL_NOISE = 0.1  # up to here the rules ask for every bullet; twice the default


# ------------------------------------------------------------------ measured
def setting(config: Figure3Config) -> dict:
    """The numbers of a configuration that the theorems' assumptions speak of."""
    density, strength = config.distribution().assumption_2_3(config.q)
    names = ("n_classes", "beta", "eps", "eps_test", "noise_std", "n_iter")
    return {
        "density": density, "strength": strength, "window": config.window().ends,
        **{name: getattr(config, name) for name in names},
    }  # fmt: skip


def looked_at(net: PatchCNN, data: PatchData, test: PatchData, beta: float, seeds: Sequence[int]) -> dict:
    """The bullets that need no search for perturbations, in float64; arrays (R, N) of training or test samples.

    ``train_margin`` F_y - max_j F_j on training samples; the rest says whether a test sample is right: ``test`` as it
    is, ``robust`` and ``non_robust`` with only that feature left (Def. 4.1), ``..._patches`` with the other feature's
    whole patches set to zero (the other reading), ``swapped`` after the swap of Thm. 4.3 with eps = beta.
    """
    net, data, test = net.astype(np.float64), data.astype(np.float64), test.astype(np.float64)

    def right(X):
        return net.margin(X, test.y) > 0

    found = {"train_margin": net.margin(data.X, data.y), "test": right(test.X)}
    for feature, patches in (("robust", test.robust), ("non_robust", ~test.robust)):
        found[feature] = right(test.representative(feature).X)
        found[f"{feature}_patches"] = right(test.X * patches[..., None])
    return found | {"swapped": right(feature_swap(test, eps=beta, rng=list(seeds)))}


def assault(net: PatchCNN, data: PatchData, eps: float, ascent_lr: float, seeds: Sequence[int]) -> dict:
    """Samples (R, N) that stand against all attacks of radius `eps`, those certified, shares under each attack."""
    options = {"certificate": "interval", "ascent_lr": ascent_lr, "rng": list(seeds)}
    found = robust_accuracy(net, data, eps=eps, **options)
    under = {name: float(np.mean(found.under(name))) for name in MEASURED_BY[:-1]}
    return {"eps": eps, "standing": found.standing, "certified": found.certified, "under": under}


def curve(net: PatchCNN, data: PatchData, beta: float, seeds: Sequence[int]) -> dict:
    """Shares over radii, first seeds: standing against swap and aligned attack, certified, right after the swap."""
    fields = (getattr(data, name)[:SHOWN] for name in ("X", "y", "robust", "strength"))
    net, data, seeds = net.with_weights(net.weights[:SHOWN]), PatchData(*fields, data.features), list(seeds)[:SHOWN]
    rows, options = [], {"certificate": "interval", "attacks": ("feature_swap", "aligned"), "rng": seeds}
    for eps in RADII * beta:
        found = robust_accuracy(net, data, eps=eps, **options)
        rows.append([np.mean(found.standing), np.mean(found.certified), np.mean(found.under("feature_swap"))])
    return {"eps": RADII * beta, **dict(zip(("standing", "certified", "swap"), np.transpose(rows)))}


def polynomial(config: Figure3Config, net: PatchCNN) -> dict:
    """Whether Proposition 1 of docs/robust-window.md speaks of eps = beta, and of this network's preactivations."""
    c, u = config, config.distribution().features[0]
    return {
        "contradiction": contradiction(c.alpha, c.beta, c.beta, c.n_patches, c.n_robust, c.q),
        "preactivation": c.alpha * (net.weights @ u.T).max(axis=(1, 2, 3)) / c.rho,
    }


def joined(parts: Sequence[PatchData]) -> PatchData:
    """Batches of data as one, runs after runs."""
    arrays = (np.concatenate([getattr(d, name) for d in parts]) for name in ("X", "y", "robust", "strength"))
    return PatchData(*arrays, parts[0].features)


def trained(lab, adversarial: bool) -> dict:
    """`looked_at` on the default story, the same numbers at the start as ``first_...``, and the setting."""

    def make():
        s = lab.story(adversarial)
        c = s.config
        found = looked_at(s.net, s.data, s.test, c.beta, c.seeds)
        first = looked_at(c.network(), s.data, s.test, c.beta, c.seeds)
        return found | {f"first_{k}": v for k, v in first.items()} | {"setting": setting(c)}

    return lab.once(("trained", adversarial), make)


def attacked(lab, adversarial: bool, part: str, at_beta: bool) -> dict:
    """`assault` on the story's "data" (training samples) or "test" samples, at eps_test or beta."""

    def make():
        s = lab.story(adversarial)
        c = s.config
        return assault(s.net, getattr(s, part), c.beta if at_beta else c.eps_test, c.ascent_lr, c.seeds)

    return lab.once(("attacked", adversarial, part, at_beta), make)


def radii(lab, adversarial: bool, part: str) -> dict:
    """`curve` on the story's samples."""

    def make():
        s = lab.story(adversarial)
        return curve(s.net, getattr(s, part), s.config.beta, s.config.seeds)

    return lab.once(("radii", adversarial, part), make)


def swept(lab, adversarial: bool) -> dict:
    """Shares (levels,) of every bullet over NOISE, pooled over seeds: SWEEP trained once for all levels and seeds."""

    def make():
        configs = [Figure3Config(noise_std=s, n_seeds=1 if lab.quick else 4, **SWEEP) for s in NOISE]
        c, L = configs[0], len(NOISE)
        data, test = (joined([config.data(part) for config in configs]) for part in ("train", "test"))
        seeds, net = c.seeds * L, c.network()
        net = net.with_weights(np.tile(net.W, (L, 1, 1, 1)))
        net = train(net, data, replace(c.training(adversarial), seed=seeds)).net
        found = looked_at(net, data, test, c.beta, seeds)
        found["train"] = found.pop("train_margin") > 0
        for part, samples in (("train", data), ("test", test)):
            struck = assault(net, samples, c.eps_test, c.ascent_lr, seeds)
            found |= {f"{part}_{name}": struck[name] for name in ("standing", "certified")}
        pooled = {name: v.reshape(L, -1).mean(axis=-1) for name, v in found.items()}
        pooled["swap_breaks"] = 1 - pooled["swapped"]
        return pooled | {"noise": np.array(NOISE), "n_seeds": c.n_seeds}

    return lab.once(("swept", adversarial), make)


# ------------------------------------------------------------------ judged
def assumed(s: dict, *names: str) -> list[Assumption]:
    """Those assumptions of a `setting` that are named, after the two of Assumption 2.3."""
    low, high = s["window"]
    table = {
        "denser": ("density ratio c, exponent q", f"{s['density']:.3g}", "< 1", s["density"] < 1),
        "stronger": ("strength ratio alpha / beta", f"{s['strength']:.3g}", "> 1", s["strength"] > 1),
        "eps": ("training radius", f"{s['eps']:g}", f">= beta = {s['beta']:g}", s["eps"] >= s["beta"]),
        "window": ("test radius", f"{s['eps_test']:g}", f"in ({low:.3f}, {high:.3f})", low < s["eps_test"] < high),
        "noise": ("noise", f"{s['noise_std']:g}", "> 0", s["noise_std"] > 0),
        "noiseless": ("noise", f"{s['noise_std']:g}", "0", s["noise_std"] == 0),
    }
    return [Assumption(*table[name]) for name in ("denser", "stronger", *names)]


def surplus(right: np.ndarray, by_seed: bool = True) -> float:
    """How far a share lies above LEVEL: the lower end of Wilson's interval over all samples and, `by_seed`, the share
    of the worst seed, whichever is smaller, less LEVEL; `right` (R, N) bool."""
    low = wilson(right.sum(), right.size)[0]
    return float(min([low, right.mean(axis=-1).min()] if by_seed else [low])) - LEVEL


def share(right: np.ndarray) -> str:
    """The share with its interval, and how it is spread over seeds."""
    low, high = wilson(right.sum(), right.size)
    by_seed = right.mean(axis=-1)
    return (
        f"{right.mean():.3f} [{low:.3f}, {high:.3f}] of {right.size}, worst seed {by_seed.min():.2f}, "
        f"{(by_seed == 1).sum()} of {len(by_seed)} seeds perfect"
    )


def assaulted(found: dict) -> str:
    """What attacks and certificate say at one radius."""
    return (
        f"at eps = {found['eps']:g} worst of {len(MEASURED_BY)} attacks {share(found['standing'])}; "
        f"certified {found['certified'].mean():.3f}"
    )


def judge_at_beta(m: dict) -> Judgement:
    """Standing against the worst attack at eps = beta, beside what Proposition 1 of docs/robust-window.md allows."""
    s, found = m["setting"], m["attacked"][-1]
    allowed = f"{LEVEL:g} or more"
    if m["contradiction"]:
        z = m["preactivation"]
        allowed += (
            f"; docs/robust-window.md, Prop. 1: at most one class of {s['n_classes']} while alpha <w, u> <= rho, as on "
            f"{(z <= 1).sum()} of {len(z)} seeds (at most {z.max():.3f} rho)"
        )
    return Judgement(allowed, assaulted(found), surplus(found["standing"]), assumed(s, "eps"))


def judge_in_window(m: dict) -> Judgement:
    found = m["attacked"][0]
    proved = surplus(found["certified"], by_seed=False)
    return Judgement(
        f"{LEVEL:g} or more by the attacks and by the certificate",
        f"{assaulted(found)} (worst seed {found['certified'].mean(axis=-1).min():.2f})",
        min(surplus(found["standing"]), proved),
        assumed(m["setting"], "eps", "window"),
    )


# ------------------------------------------------------------------ drawn
def band(axis, x, values, color, label, style="-"):
    """Median and range of values (T, ...) over all but the first axis."""
    flat = values.reshape(len(values), -1)
    axis.fill_between(x, flat.min(axis=1), flat.max(axis=1), color=color, alpha=0.16, lw=0)
    axis.plot(x, np.median(flat, axis=1), style, color=color, label=label, lw=1.6)


def share_axis(axis, label="share of samples"):
    axis.set_ylabel(label)
    axis.set_ylim(-0.04, 1.06)


def draw_radius(axis, m):
    """Shares over the radius, for one or both trainings; window, beta and the fully attacked radii marked."""
    s = m["setting"]
    axis.axvspan(*s["window"], color="0.5", alpha=0.18, lw=0, label="window")
    axis.axvline(s["beta"], color="0.5", lw=0.9, ls=(0, (2, 2)), label=r"$\beta$")
    for name, c in m["curves"].items():
        color = NON_ROBUST if name == "standard" else ROBUST
        axis.plot(c["eps"], c["standing"], "-", color=color, lw=1.7, label=f"{name}: swap and aligned attack")
        axis.plot(c["eps"], c["swap"], "--", color=color, lw=1.1, label=f"{name}: swap alone")
        axis.plot(c["eps"], c["certified"], ":", color=CERTIFIED, lw=1.7, label=f"{name}: certified")
    for found in m["attacked"]:
        label = f"worst of {len(MEASURED_BY)} attacks" if found is m["attacked"][0] else None
        axis.plot(found["eps"], np.mean(found["standing"]), "D", color=ACCURACY, ms=4.5, label=label, zorder=5)
    axis.set_xlabel(r"radius $\epsilon$ of the perturbation ($\ell_\infty$)")
    share_axis(axis)


def draw_attacks(axis, m):
    """Shares under each attack, under all, and certified: one bar per radius."""
    colors = (CERTIFIED, NON_ROBUST)
    width = 0.8 / len(m["attacked"])
    for i, (found, color) in enumerate(zip(m["attacked"], colors)):
        values = [*(found["under"][a] for a in NAMES), np.mean(found["standing"]), np.mean(found["certified"])]
        x = np.arange(len(values)) + (i - (len(m["attacked"]) - 1) / 2) * width
        axis.bar(x, values, width, color=color, label=rf"$\epsilon$ = {found['eps']:g}")
        for xx, v in zip(x, values):
            axis.text(xx, v + 0.015, f"{v:.2f}", ha="center", va="bottom", fontsize=6.5, color=color)
    names = [*NAMES.values(), f"worst of {len(MEASURED_BY)}", "certified"]
    axis.set_xticks(range(len(names)), names, fontsize=8)
    axis.set_axisbelow(True)
    axis.grid(visible=False, axis="x")
    axis.axhline(LEVEL, color="0.5", lw=0.9, ls=(0, (2, 2)))
    share_axis(axis)
    axis.set_ylim(0, 1.18)


def draw_learned(axis, m):
    """Feature learning accuracy of both features, seed by seed, after and before training."""
    for feature, color, text in (("non_robust", NON_ROBUST, "non-robust $v$"), ("robust", ROBUST, "robust $u$")):
        seeds = np.arange(len(m[feature]))
        x = seeds + (0.1 if feature == "robust" else -0.1)
        axis.plot(x, m[feature].mean(axis=-1), "o", color=color, ms=5, label=f"{text}, trained")
        axis.plot(x, m[f"first_{feature}"].mean(axis=-1), "_", color=color, ms=7, label=f"{text}, start")
    axis.axhline(LEVEL, color="0.5", lw=0.9, ls=(0, (2, 2)), label="level of the rule")
    axis.axhline(1 / m["setting"]["n_classes"], color=PAPER, lw=0.9, ls=":", label="one class in $k$")
    axis.set_xticks(seeds)
    axis.set_xlabel("seed")
    share_axis(axis, "feature learning accuracy")


def draw_noise(axis, sweep, lines):
    """Shares over noise levels, pooled over seeds; the levels of the rule shaded."""
    axis.axvspan(-0.01, SMALL_NOISE + 0.01, color="0.5", alpha=0.14, lw=0, label="levels of the rule")
    axis.axhline(LEVEL, color="0.5", lw=0.9, ls=(0, (2, 2)))
    for name, (label, color, style) in lines.items():
        axis.plot(sweep["noise"], sweep[name], style, color=color, ms=6, mfc="none", lw=1.4, label=label)
    axis.set_xlabel(r"noise per coordinate, $\sigma_n$ (features have length 1)")
    share_axis(axis)

"""Theorems 4.3 and 4.4 on networks trained with noise, and their restatements E.1 and E.8 over noise levels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..experiments.configuration import Figure3Config
from ..patches.attacks import feature_swap
from ..patches.data import PatchData
from ..patches.network import PatchCNN
from ..reporting.pictures import Picture, level, line, mark, middle, points
from ..reporting.style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST
from ..robustness.evaluate import MEASURED_BY, robust_accuracy
from ..theory.window import contradiction
from ..training.loop import train
from .across import LEVEL, SAMPLES, SHARES, across, draw_window, over_window
from .lab import shared
from .ledger import Check, Entry, Judgement, sure

RADII = np.r_[0, 0.1, 0.2, np.arange(6, 15) / 20, 0.85, 1, 1.2]  # in units of beta, for curves
SHOWN = 4  # seeds in curves
NAMES = {"feature_swap": "swap", "one_step": "one step", "aligned": "aligned", "pgd_cross_entropy": "PGD, cross-ent."}

#: A cheap sibling of the default configuration, for noise levels: same patches, strengths, width, radii and T lr / k.
SWEEP = {"n_classes": 3, "patch_dim": 50, "n_train": 6, "lr": 12.0, "n_iter": 2500}
NOISE = (0.0, 0.05, 0.1, 0.2, 0.3)
SMALL_NOISE = 0.1  # up to here the rules ask for every bullet; twice the default


@dataclass(frozen=True)
class Premises:
    """The numbers of a configuration that the theorems' assumptions speak of."""

    density: float
    strength: float
    window: list
    n_classes: int
    beta: float
    eps: float
    eps_test: float
    noise_std: float
    n_iter: int

    @classmethod
    def of(cls, config: Figure3Config) -> "Premises":
        names = ("n_classes", "beta", "eps", "eps_test", "noise_std", "n_iter")
        held = (getattr(config, name) for name in names)
        return cls(*config.distribution().assumption_2_3(config.q), config.window().ends, *held)

    def assumed(self, *names: str) -> list[Check]:
        """Those assumptions that are named, after the two of Assumption 2.3."""
        table = {
            "denser": Check("density ratio c, exponent q", self.density, "<", 1),
            "stronger": Check("strength ratio alpha / beta", self.strength, ">", 1),
            "eps": Check("training radius, against beta", self.eps, ">=", self.beta),
            "window": Check("test radius, inside the window", self.eps_test, "in", self.window),
            "noise": Check("noise", self.noise_std, ">", 0),
            "noiseless": Check("noise", self.noise_std, "==", 0),
        }
        return [table[name] for name in ("denser", "stronger", *names)]


# ------------------------------------------------------------------ measured
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


@shared
def trained(lab, adversarial: bool) -> dict:
    """`looked_at` on the default story, the same numbers at the start as ``first_...``, and the premises."""
    s = lab.story(adversarial)
    c = s.config
    first = looked_at(c.network(), s.data, s.test, c.beta, c.seeds)
    found = looked_at(s.net, s.data, s.test, c.beta, c.seeds) | {f"first_{k}": v for k, v in first.items()}
    return found | {"setting": Premises.of(c)}


@shared
def attacked(lab, adversarial: bool, part: str, at_beta: bool) -> dict:
    """`assault` on the story's "data" (training samples) or "test" samples, at eps_test or beta."""
    s = lab.story(adversarial)
    c = s.config
    return assault(s.net, getattr(s, part), c.beta if at_beta else c.eps_test, c.ascent_lr, c.seeds)


@shared
def radii(lab, adversarial: bool, part: str) -> dict:
    """`curve` on the story's samples."""
    s = lab.story(adversarial)
    return curve(s.net, getattr(s, part), s.config.beta, s.config.seeds)


@shared
def window(lab, part: str) -> dict:
    """`across` of the adversarial story's samples."""
    s = lab.story(True)
    return across(s.net, getattr(s, part), s.config)


@shared
def swept(lab, adversarial: bool) -> dict:
    """Share (levels,) of every bullet on its worst seed, over NOISE: SWEEP trained once for all levels and seeds."""
    configs = [Figure3Config(noise_std=s, n_seeds=1 if lab.quick else 4, first_seed=lab.first, **SWEEP) for s in NOISE]
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
    found["swap_breaks"] = ~found["swapped"]
    worst = {name: v.reshape(L, c.n_seeds, -1).mean(axis=-1).min(axis=1) for name, v in found.items()}
    return worst | {"noise": np.array(NOISE), "n_seeds": c.n_seeds}


# ------------------------------------------------------------------ judged
def almost_all(what: str, right: np.ndarray, by_seed: bool = True) -> list[Check]:
    """Our 1 - o(1): the lower end of Wilson's interval over all samples and, `by_seed`, the share of the worst seed
    are at least LEVEL; `right` (R, N) bool."""
    checks, seeds = [sure(what, right, LEVEL)], right.mean(axis=-1)
    if by_seed:
        perfect = f"{seeds.min():.3g}, {(seeds == 1).sum()} of {len(seeds)} seeds perfect"
        checks.append(Check(f"{what}: share of the worst seed", seeds.min(), ">=", LEVEL, shown=perfect))
    return checks


def standing(found: dict) -> list[Check]:
    attacks = f"the worst of {len(MEASURED_BY)} attacks at eps = {found['eps']:g}"
    return almost_all(f"standing against {attacks}", found["standing"])


def judge_over_window(m: dict, every: bool = False) -> Judgement:
    return Judgement(over_window(m, every), "", m["setting"].assumed("eps"))


def judge_at_beta(m: dict) -> Judgement:
    """Standing against the worst attack at eps = beta, beside what Proposition 1 of docs/robust-window.md allows."""
    s, found, z = m["setting"], m["attacked"][-1], m["preactivation"]
    allowed = (
        f"docs/robust-window.md, Prop. 1: at most one class of {s.n_classes} while alpha <w, u> <= rho, as on "
        f"{(z <= 1).sum()} of {len(z)} seeds (at most {z.max():.3f} rho); " if m["contradiction"] else ""
    )  # fmt: skip
    return Judgement(standing(found), f"{allowed}certified {found['certified'].mean():.3f}", s.assumed("eps"))


def judge_in_window(m: dict) -> Judgement:
    found = m["attacked"][0]
    proved = almost_all("proved by the interval certificate", found["certified"], by_seed=False)
    worst = f"certified, worst seed {found['certified'].mean(axis=-1).min():.2f}"
    return Judgement([*standing(found), *proved], worst, m["setting"].assumed("eps", "window"))


# ------------------------------------------------------------------ drawn
def draw_radius(m):
    """Shares over the radius, for one or both trainings; window, beta and the fully attacked radii marked."""
    s = m["setting"]
    layers = [mark(x=s.window, label="window"), mark(x=s.beta, label=r"$\beta$")]
    for name, c in m["curves"].items():
        color = NON_ROBUST if name == "standard" else ROBUST
        layers += [line(c["eps"], c["standing"], f"{name}: swap and aligned attack", color, lw=1.7),
                   line(c["eps"], c["swap"], f"{name}: swap alone", color, "--", lw=1.1),
                   line(c["eps"], c["certified"], f"{name}: certified", CERTIFIED, ":", lw=1.7)]  # fmt: skip
    where, shares = zip(*((found["eps"], np.mean(found["standing"])) for found in m["attacked"]))
    layers.append(points(where, shares, f"worst of {len(MEASURED_BY)} attacks", ACCURACY, "D", 4.5, 1, zorder=5))
    return Picture(r"radius $\epsilon$ of the $\ell_\infty$ ball", SAMPLES, layers, ylim=SHARES)


def draw_attacks(m):
    """Shares under each attack, under all, and certified, at every radius."""
    names, layers = [*NAMES.values(), "worst of them", "certified"], [level(LEVEL)]
    for found, color, marker in zip(m["attacked"], (CERTIFIED, NON_ROBUST), "os"):
        values = [*(found["under"][a] for a in NAMES), np.mean(found["standing"]), np.mean(found["certified"])]
        layers.append(points(range(len(values)), values, rf"$\epsilon$ = {found['eps']:g}", color, marker, 7, 0.8))
    ticks = {"x": (range(len(names)), names)}
    return Picture("under which attack", SAMPLES, layers, ticks=ticks, ylim=SHARES)


def draw_learned(m):
    """Feature learning accuracy of both features, seed by seed, after and before training."""
    layers = [level(LEVEL), mark(y=1 / m["setting"].n_classes, label="one class in $k$", style=":")]
    for feature, color, text, shift in (("non_robust", NON_ROBUST, "non-robust $v$", -0.1),
                                        ("robust", ROBUST, "robust $u$", 0.1)):  # fmt: skip
        x = np.arange(len(m[feature])) + shift
        layers += [points(x, m[feature].mean(axis=-1), f"{text}, trained", color, size=5, alpha=1),
                   points(x, m[f"first_{feature}"].mean(axis=-1), f"{text}, start", color, "_", 7, 1)]  # fmt: skip
    return Picture("seed", "feature learning accuracy", layers, ylim=SHARES)


def draw_noise(m):
    """Shares over noise levels, of the worst seed; the levels of the rule shaded; standard training's in grey."""
    sweep, layers = m["sweep"], [mark(x=(-0.01, SMALL_NOISE + 0.01), label="levels of the rule"), level(LEVEL, None)]
    layers += [line(sweep["noise"], sweep[name], label, color, style, mfc="none") for name, label, color, style in (
        ("test", "test accuracy", ACCURACY, "s-"), ("non_robust", "only $v$ left", NON_ROBUST, "^-"),
        ("robust", "only $u$ left", ROBUST, "v-"), ("swapped", r"after the swap, $\epsilon = \beta$", "0.5", "o-"),
        ("test_standing", r"worst of 5 attacks, $\epsilon_{test}$", CERTIFIED, "D-"),
        ("test_certified", r"certified, $\epsilon_{test}$", CERTIFIED, "x:"))]  # fmt: skip
    if "standard" in m:
        layers.append(line(sweep["noise"], m["standard"]["test_standing"], "standard: worst attack", "0.6", "--"))
    return Picture(r"noise per coordinate, $\sigma_n$", SAMPLES, layers, ylim=SHARES)


GROUP = "theorems"
PARTS = {"train": "data", "test": "test"}  # of a story


def taken(adversarial: bool, *names: str):
    """What an entry measures: premises and `names` of the trained default."""
    return lambda lab: {name: trained(lab, adversarial)[name] for name in ("setting", *names)}


# ------------------------------------------------------------------ Theorem 4.3
def learned(adversarial, feature):
    features = ("non_robust", "robust")
    return taken(adversarial, f"{feature}_patches", *features, *(f"first_{f}" for f in features))


def judge_learned(m, feature: str, other: str, *names: str) -> Judgement:
    notes = (
        f"with whole patches zeroed {m[f'{feature}_patches'].mean():.3f}; at the start "
        f"{m[f'first_{feature}'].mean():.3f}; of the other feature {m[other].mean():.3f}"
    )
    what = f"test samples with only the {feature.replace('_', '-')} feature left right"
    return Judgement(almost_all(what, m[feature]), notes, m["setting"].assumed(*names))


# ------------------------------------------------------------------ Theorem 4.4
def under_attack(lab, part: str = "test") -> dict:
    """Of "data" or "test" samples: under attack at both radii, curves over the radius, Proposition 1's premise."""
    curves = {"standard": radii(lab, False, part)} if part == "test" else {}
    curves["adversarial"] = radii(lab, True, part)
    found = [attacked(lab, True, part, at_beta) for at_beta in (False, True)]
    story = lab.story(True)
    return taken(True)(lab) | {"attacked": found, "curves": curves} | polynomial(story.config, story.net)


def in_window(lab, part: str = "test") -> dict:
    return taken(True)(lab) | {"across": window(lab, part)}


# ------------------------------------------------------------------ Appendix E
def judge_with_noise(m, claims, *names: str) -> Judgement:
    """All claims at the default noise, and in the sweep at every level up to SMALL_NOISE, on every seed."""
    sweep, low = m["sweep"], m["sweep"]["noise"] <= SMALL_NOISE
    worst = np.min([sweep[name] for name in m["bullets"]], axis=0)
    told = ", ".join(f"{w:.2f} at {s:g}" for s, w in zip(sweep["noise"], worst))
    rule = (
        f"worst bullet's and seed's share at every noise_std <= {SMALL_NOISE:g}, cheaper configuration (k = 3, d = 50)"
    )
    checks = [check for name, right in claims.items() for check in almost_all(name, right)]
    checks.append(Check(rule, worst[low], ">=", LEVEL, shown=told))
    return Judgement(checks, "", m["setting"].assumed("noise", *names))


T431 = Entry(
    "4.3.1", GROUP, "Standard training is perfect",
    "After standard training every training sample is classified correctly (strictly, on every seed).",
    "F_{y_n}(X_n) > max_{j != y_n} F_j(X_n) for all n <= N",
    taken(False, "train_margin", "first_train_margin"),
    lambda m: Judgement(
        [Check("smallest F_y - max_j F_j of a training sample of any seed, in logits", m["train_margin"], ">", 0)],
        assumptions=m["setting"].assumed()),
    lambda m: Picture("training samples of all seeds, sorted by margin", r"margin $F_y - \max_j F_j$", [
        line(np.linspace(0, 1, m[name].size), np.sort(m[name].ravel()), label, color) for name, color, label in (
            ("first_train_margin", NON_ROBUST, "start"), ("train_margin", ROBUST, "trained"))
    ], symlog={"y": 1e-4}, ylim=(-1e-2, 100)),
)  # fmt: skip
T432 = Entry(
    "4.3.2", GROUP, "Standard training learns the non-robust features",
    "After standard training the feature learning accuracy of the non-robust features is 1 - o(1) (Def. 4.1; our "
    "reading: the robust components are set to zero, noise stays).",
    "P[F_y(X_V) > max_{j != y} F_j(X_V)] >= 1 - o(1), X_V = X without its robust components",
    learned(False, "non_robust"), lambda m: judge_learned(m, "non_robust", "robust"), draw_learned,
)  # fmt: skip
T433 = Entry(
    "4.3.3", GROUP, "Standard training: test accuracy is good",
    "After standard training fresh samples are classified correctly with probability 1 - o(1).",
    "P[F_y(X) > max_{j != y} F_j(X)] >= 1 - o(1)",
    lambda lab: taken(False, "test", "first_test")(lab) | {
        name: lab.story(False).history[name] for name in ("iteration", "test_accuracy", "train_accuracy")},
    lambda m: Judgement(almost_all("test samples right", m["test"]),
                        f"at the start {m['first_test'].mean():.3f}", m["setting"].assumed()),
    lambda m: Picture("iteration (median and range over seeds)", "accuracy", [
        *middle(m["iteration"], m["test_accuracy"], "test samples", ROBUST),
        *middle(m["iteration"], m["train_accuracy"], "training samples", PAPER, "--"), level(LEVEL)], ylim=SHARES),
)  # fmt: skip
T434 = Entry(
    "4.3.4", GROUP, "Standard training: robust test accuracy is bad",
    "The perturbation that replaces every non-robust feature by that of a random other class, chosen without "
    "looking at the network, breaks almost every test sample.",
    "P[F_y(X + delta) <= max_{j != y} F_j(X + delta)] >= 1 - o(1), delta_p = clip_eps(beta_p (v_{y'} - v_y)) on "
    "J_NR, 0 on J_R, eps = beta",
    lambda lab: taken(False, "test", "swapped")(lab) | {
        "attacked": [attacked(lab, False, "test", False)], "curves": {"standard": radii(lab, False, "test")}},
    lambda m: Judgement(
        almost_all("test samples broken by the swap at eps = beta", ~m["swapped"]),
        f"right without it {m['test'].mean():.3f}, against all attacks at eps = {m['attacked'][0]['eps']:g} "
        f"{np.mean(m['attacked'][0]['standing']):.3f}", m["setting"].assumed()), draw_radius,
)  # fmt: skip
T441 = Entry(
    "4.4.1", GROUP, "Adversarial training is perfect, in all of the window",
    "After adversarial training every training sample, without exception, is right under every perturbation of any "
    "radius inside the window of test radii (docs/robust-window.md); the training radius is another entry's.",
    "F_{y_n}(X_n + delta) > max_{j != y_n} F_j(X_n + delta) for all n, |delta|_inf <= eps, eps_lo < eps < eps_hi",
    partial(in_window, part="data"), partial(judge_over_window, every=True), draw_window,
)  # fmt: skip
T441_TEST = Entry(
    "4.4.1 (eps_test)", GROUP, "Adversarial training is right on nearly all training samples at one radius",
    "After adversarial training nine in ten training samples are right under every perturbation of the default's test "
    "radius, a hundredth of the window's width above its lower edge.",
    "P[F_{y_n}(X_n + delta) > max_{j != y_n} F_j(X_n + delta) for all |delta|_inf <= eps_test] >= 0.9",
    lambda lab: under_attack(lab, "data"), judge_in_window, draw_radius, "ours", weaker_than="4.4.1",
)  # fmt: skip
T441_BETA = Entry(
    "4.4.1 (eps = beta)", GROUP, "Adversarial training is perfect, at the training radius",
    "After adversarial training every training sample is right under every perturbation of the training radius, eps "
    "= beta (our reading of the lost choice of eps).",
    "F_{y_n}(X_n + delta) > max_{j != y_n} F_j(X_n + delta) for all n and |delta|_inf <= beta",
    lambda lab: under_attack(lab, "data"), judge_at_beta, draw_attacks,
)  # fmt: skip
T442 = Entry(
    "4.4.2", GROUP, "Adversarial training learns the robust features",
    "After adversarial training the feature learning accuracy of the robust features is 1 - o(1) (Def. 4.1; our "
    "reading: the non-robust components are set to zero, noise stays).",
    "P[F_y(X_U) > max_{j != y} F_j(X_U)] >= 1 - o(1), X_U = X without its non-robust components",
    learned(True, "robust"), lambda m: judge_learned(m, "robust", "non_robust", "eps"), draw_learned,
)  # fmt: skip
T443 = Entry(
    "4.4.3", GROUP, "Adversarial training: robust test accuracy is good, in all of the window",
    "After adversarial training fresh samples are right with probability 1 - o(1) under every perturbation of any "
    "radius inside the window of test radii (docs/robust-window.md).",
    "P[for all |delta|_inf <= eps: F_y(X + delta) > max_{j != y} F_j(X + delta)] >= 1 - o(1), eps_lo < eps < eps_hi",
    in_window, judge_over_window, draw_window,
)  # fmt: skip
T443_TEST = Entry(
    "4.4.3 (eps_test)", GROUP, "Adversarial training: robust test accuracy is good at one radius",
    "After adversarial training fresh samples are right with probability 1 - o(1) under every perturbation of the "
    "default's test radius, a hundredth of the window's width above its lower edge.",
    "P[for all |delta|_inf <= eps_test: F_y(X + delta) > max_{j != y} F_j(X + delta)] >= 1 - o(1)",
    under_attack, judge_in_window, draw_radius, "ours", weaker_than="4.4.3",
)  # fmt: skip
T443_BETA = Entry(
    "4.4.3 (eps = beta)", GROUP, "Adversarial training: robust test accuracy is good, at the training radius",
    "After adversarial training fresh samples are right with probability 1 - o(1) under every perturbation of the "
    "training radius, eps = beta (our reading of the lost choice of eps).",
    "P[for all |delta|_inf <= beta: F_y(X + delta) > max_{j != y} F_j(X + delta)] >= 1 - o(1)",
    under_attack, judge_at_beta, draw_attacks,
)  # fmt: skip
E1 = Entry(
    "E.1", GROUP, "Theorem 4.3 with noise",
    "All four bullets of Theorem 4.3 hold together on data with noise, while the noise is small.",
    "4.3.1, 4.3.2, 4.3.3 and 4.3.4 at noise_std = 0.05, and over noise_std in {0, ..., 0.3}",
    lambda lab: taken(False, "train_margin", "non_robust", "test", "swapped")(lab) | {
        "sweep": swept(lab, False), "bullets": ["train", "non_robust", "test", "swap_breaks"]},
    lambda m: judge_with_noise(m, {
        "training samples right": m["train_margin"] > 0, "v learned": m["non_robust"],
        "test samples right": m["test"], "broken by the swap": ~m["swapped"],
    }), draw_noise,
)  # fmt: skip
E8 = Entry(
    "E.8", GROUP, "Theorem 4.4 with noise",
    "All three bullets of Theorem 4.4 hold together on data with noise, in all of the window (at the training radius: "
    "see 4.4.1 and 4.4.3 there).",
    "4.4.1, 4.4.2 and 4.4.3 at noise_std = 0.05, eps_lo < eps < eps_hi",
    lambda lab: taken(True, "robust")(lab) | {"across": window(lab, "test"), "training": window(lab, "data")},
    lambda m: Judgement([*over_window({"across": m["training"]}, every=True), *almost_all("u learned", m["robust"]),
                         *over_window(m)], "", m["setting"].assumed("noise", "eps")), draw_window,
)  # fmt: skip
E8_TEST = Entry(
    "E.8 (eps_test)", GROUP, "Theorem 4.4 with noise at one radius",
    "Nine in ten samples meet each bullet of Theorem 4.4 on data with noise, while the noise is small, at the "
    "default's test radius.",
    "4.4.1, 4.4.2 and 4.4.3 at eps_test for nine in ten, noise_std = 0.05, and over noise_std in {0, ..., 0.3}",
    lambda lab: taken(True, "robust")(lab) | {
        **{f"{name}_standing": attacked(lab, True, part, False)["standing"] for name, part in PARTS.items()},
        "sweep": swept(lab, True), "standard": swept(lab, False),
        "bullets": ["train_standing", "robust", "test_standing"]},
    lambda m: judge_with_noise(m, {
        "training samples under attack": m["train_standing"], "u learned": m["robust"],
        "test samples under attack": m["test_standing"],
    }, "eps", "window"), draw_noise, "ours", weaker_than="E.8",
)  # fmt: skip

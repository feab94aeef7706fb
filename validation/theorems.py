"""Theorems 4.3 and 4.4 on networks trained with noise, and their restatements E.1 and E.8 over noise levels."""

from __future__ import annotations

import numpy as np

from ..reporting.style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST
from .bullets import (
    AT_BETA,
    LEVEL,
    SHARES,
    SMALL_NOISE,
    WINDOW,
    assaulted,
    assumed,
    attacked,
    band,
    draw_attacks,
    draw_learned,
    draw_noise,
    draw_radius,
    judge_at_beta,
    judge_in_window,
    polynomial,
    radii,
    share,
    share_axis,
    surplus,
    swept,
    trained,
)
from .ledger import Judgement, entry

GROUP = "theorems"


def taken(m: dict, *names: str) -> dict:
    return {name: m[name] for name in ("setting", *names)}


# ------------------------------------------------------------------ judged
def judge_share(m: dict, right: np.ndarray, predicted: str, more: str = "", *names: str) -> Judgement:
    return Judgement(predicted, share(right) + more, surplus(right), assumed(m["setting"], *names))


def other_feature(m: dict, feature: str, other: str) -> str:
    """What else there is to say about feature learning accuracy."""
    return (
        f"; with whole patches zeroed {m[f'{feature}_patches'].mean():.3f}; at the start "
        f"{m[f'first_{feature}'].mean():.3f}; of the other feature {m[other].mean():.3f}"
    )


def judge_with_noise(m: dict, bullets: dict[str, np.ndarray], *names: str) -> Judgement:
    """All bullets at the default noise, and in the sweep at every level up to SMALL_NOISE."""
    sweep, low = m["sweep"], m["sweep"]["noise"] <= SMALL_NOISE
    worst = np.min([sweep[name] for name in m["bullets"]], axis=0)
    return Judgement(
        f"every bullet {LEVEL:g} or more at noise_std <= {SMALL_NOISE:g}",
        f"noise {m['setting']['noise_std']:g}: " + ", ".join(f"{k} {v.mean():.3f}" for k, v in bullets.items())
        + "; worst bullet in the sweep " + ", ".join(f"{w:.2f} at {s:g}" for s, w in zip(sweep["noise"], worst)),
        min([*(surplus(v) for v in bullets.values()), float(worst[low].min()) - LEVEL]),
        assumed(m["setting"], "noise", *names),
    )  # fmt: skip


# ------------------------------------------------------------------ Theorem 4.3
@entry(
    "4.3.1",
    GROUP,
    "Standard training is perfect",
    statement="After standard training every training sample is classified correctly (strictly, on every seed).",
    formula="F_{y_n}(X_n) > max_{j != y_n} F_j(X_n) for all n <= N",
    rule="all training samples of all seeds right; margin: the smallest F_y - max_j F_j among them, in logits",
)
class StandardPerfect:
    def measure(lab):
        return taken(trained(lab, False), "train_margin", "first_train_margin")

    def judge(m):
        margin = m["train_margin"]
        return Judgement(
            "every margin above 0",
            f"smallest margin {margin.min():.3g}, median {np.median(margin):.3g}; right {share(margin > 0)}",
            float(margin.min()),
            assumed(m["setting"]),
        )

    def draw(axis, m):
        for name, color, label in (
            ("first_train_margin", NON_ROBUST, "start"),
            ("train_margin", ROBUST, f"after {m['setting']['n_iter']} iterations"),
        ):
            values = np.sort(m[name].ravel())
            axis.plot(np.arange(1, values.size + 1) / values.size, values, color=color, lw=1.7, label=label)
        axis.axhline(0, color="0.5", lw=0.9, ls=(0, (2, 2)), label="right above, wrong below")
        axis.set_yscale("symlog", linthresh=1e-4)
        axis.set_ylim(-1e-2, 100)
        axis.set_xlabel("share of training samples, all seeds, sorted by margin")
        axis.set_ylabel(r"margin $F_y - \max_j F_j$")


@entry(
    "4.3.2",
    GROUP,
    "Standard training learns the non-robust features",
    statement="After standard training the feature learning accuracy of the non-robust features is 1 - o(1) (Def. 4.1; "
    "our reading: the robust components are set to zero, noise stays).",
    formula="P[F_y(X_V) > max_{j != y} F_j(X_V)] >= 1 - o(1), X_V = X without its robust components",
    rule="share of test samples with only v left that are right: " + SHARES,
)
class LearnsNonRobust:
    def measure(lab):
        features = ("non_robust", "robust")
        return taken(trained(lab, False), "non_robust_patches", *features, *(f"first_{f}" for f in features))

    def judge(m):
        return judge_share(m, m["non_robust"], "1 - o(1)", other_feature(m, "non_robust", "robust"))

    draw = draw_learned


@entry(
    "4.3.3",
    GROUP,
    "Standard training: test accuracy is good",
    statement="After standard training fresh samples are classified correctly with probability 1 - o(1).",
    formula="P[F_y(X) > max_{j != y} F_j(X)] >= 1 - o(1)",
    rule="share of test samples that are right: " + SHARES,
)
class StandardAccuracy:
    def measure(lab):
        history = lab.story(False).history
        curves = {name: history[name] for name in ("iteration", "test_accuracy", "train_accuracy")}
        return taken(trained(lab, False), "test", "first_test") | curves

    def judge(m):
        return judge_share(m, m["test"], "1 - o(1)", f"; at the start {m['first_test'].mean():.3f}")

    def draw(axis, m):
        band(axis, m["iteration"], m["test_accuracy"], ROBUST, "test samples")
        band(axis, m["iteration"], m["train_accuracy"], PAPER, "training samples", "--")
        axis.axhline(LEVEL, color="0.5", lw=0.9, ls=(0, (2, 2)), label="level of the rule")
        axis.set_xlabel("iteration (median and range over seeds)")
        share_axis(axis, "accuracy")


@entry(
    "4.3.4",
    GROUP,
    "Standard training: robust test accuracy is bad",
    statement="The perturbation that replaces every non-robust feature by that of a random other class, chosen without "
    "looking at the network, breaks almost every test sample.",
    formula="P[F_y(X + delta) <= max_{j != y} F_j(X + delta)] >= 1 - o(1), delta_p = clip_eps(beta_p (v_{y'} - v_y)) "
    "on J_NR, 0 on J_R, eps = beta",
    rule="share of test samples that the swap breaks at eps = beta: " + SHARES,
)
class StandardBroken:
    def measure(lab):
        return taken(trained(lab, False), "test", "swapped") | {
            "attacked": [attacked(lab, False, "test", False)],
            "curves": {"standard": radii(lab, False, "test")},
        }

    def judge(m):
        more = f"; right without it {m['test'].mean():.3f}; {assaulted(m['attacked'][0])}"
        return judge_share(m, ~m["swapped"], "1 - o(1) broken", more)

    draw = draw_radius


# ------------------------------------------------------------------ Theorem 4.4
def in_window(part):
    def measure(lab):
        curves = {"adversarial": radii(lab, True, part)}
        if part == "test":
            curves = {"standard": radii(lab, False, part)} | curves
        found = [attacked(lab, True, part, at_beta) for at_beta in (False, True)]
        return taken(trained(lab, True)) | {"attacked": found, "curves": curves}

    return measure


def at_beta(part):
    def measure(lab):
        s = lab.story(True)
        found = {"attacked": [attacked(lab, True, part, at) for at in (False, True)]}
        return taken(trained(lab, True)) | found | polynomial(s.config, s.net)

    return measure


@entry(
    "4.4.1",
    GROUP,
    "Adversarial training is perfect, inside the window",
    statement="After adversarial training every training sample is right under every perturbation of a radius inside "
    "the window of test radii (docs/robust-window.md); the paper's radius is the next entry's.",
    formula="F_{y_n}(X_n + delta) > max_{j != y_n} F_j(X_n + delta) for all n and |delta|_inf <= eps_test",
    rule=WINDOW,
)
class AdversarialPerfect:
    measure = in_window("data")
    judge = judge_in_window
    draw = draw_radius


@entry(
    "4.4.1 (eps = beta)",
    GROUP,
    "Adversarial training is perfect, at the training radius",
    statement="After adversarial training every training sample is right under every perturbation of the training "
    "radius, eps = beta (our reading of the lost choice of eps).",
    formula="F_{y_n}(X_n + delta) > max_{j != y_n} F_j(X_n + delta) for all n and |delta|_inf <= beta",
    rule=AT_BETA,
)
class AdversarialPerfectAtBeta:
    measure = at_beta("data")
    judge = judge_at_beta
    draw = draw_attacks


@entry(
    "4.4.2",
    GROUP,
    "Adversarial training learns the robust features",
    statement="After adversarial training the feature learning accuracy of the robust features is 1 - o(1) (Def. 4.1; "
    "our reading: the non-robust components are set to zero, noise stays).",
    formula="P[F_y(X_U) > max_{j != y} F_j(X_U)] >= 1 - o(1), X_U = X without its non-robust components",
    rule="share of test samples with only u left that are right: " + SHARES,
)
class LearnsRobust:
    def measure(lab):
        features = ("non_robust", "robust")
        return taken(trained(lab, True), "robust_patches", *features, *(f"first_{f}" for f in features))

    def judge(m):
        return judge_share(m, m["robust"], "1 - o(1)", other_feature(m, "robust", "non_robust"), "eps")

    draw = draw_learned


@entry(
    "4.4.3",
    GROUP,
    "Adversarial training: robust test accuracy is good, inside the window",
    statement="After adversarial training fresh samples are right with probability 1 - o(1) under every perturbation "
    "of a radius inside the window of test radii (docs/robust-window.md).",
    formula="P[for all |delta|_inf <= eps_test: F_y(X + delta) > max_{j != y} F_j(X + delta)] >= 1 - o(1)",
    rule=WINDOW,
)
class AdversarialRobust:
    measure = in_window("test")
    judge = judge_in_window
    draw = draw_radius


@entry(
    "4.4.3 (eps = beta)",
    GROUP,
    "Adversarial training: robust test accuracy is good, at the training radius",
    statement="After adversarial training fresh samples are right with probability 1 - o(1) under every perturbation "
    "of the training radius, eps = beta (our reading of the lost choice of eps).",
    formula="P[for all |delta|_inf <= beta: F_y(X + delta) > max_{j != y} F_j(X + delta)] >= 1 - o(1)",
    rule=AT_BETA,
)
class AdversarialRobustAtBeta:
    measure = at_beta("test")
    judge = judge_at_beta
    draw = draw_attacks


# ------------------------------------------------------------------ Appendix E
CHEAPER = (
    f"cheaper configuration (k = 3, d = 50) >= {LEVEL:g} at every noise_std <= {SMALL_NOISE:g}; margin: the smallest "
    f"of all less {LEVEL:g}"
)


@entry(
    "E.1",
    GROUP,
    "Theorem 4.3 with noise",
    statement="All four bullets of Theorem 4.3 hold together on data with noise, while the noise is small.",
    formula="4.3.1, 4.3.2, 4.3.3 and 4.3.4 at noise_std = 0.05, and over noise_std in {0, ..., 0.3}",
    rule=f"shares of 4.3.1-4.3.4 at the default noise, each judged as 4.3.2, and every bullet's share on a {CHEAPER}",
)
class StandardWithNoise:
    def measure(lab):
        found = taken(trained(lab, False), "train_margin", "non_robust", "test", "swapped")
        return found | {"sweep": swept(lab, False), "bullets": ["train", "non_robust", "test", "swap_breaks"]}

    def judge(m):
        bullets = {"training": m["train_margin"] > 0, "v learned": m["non_robust"], "test": m["test"]}
        return judge_with_noise(m, bullets | {"broken by the swap": ~m["swapped"]})

    def draw(axis, m):
        draw_noise(axis, m["sweep"], {
            "test": ("test accuracy", ACCURACY, "s-"), "non_robust": ("only $v$ left", NON_ROBUST, "^-"),
            "robust": ("only $u$ left", ROBUST, "v-"), "swapped": (r"after the swap, $\epsilon = \beta$", PAPER, "o-"),
            "test_standing": (r"worst of 5 attacks, $\epsilon_{test}$", CERTIFIED, "x--"),
        })  # fmt: skip


@entry(
    "E.8",
    GROUP,
    "Theorem 4.4 with noise",
    statement="All three bullets of Theorem 4.4 hold together on data with noise, while the noise is small, at a "
    "radius inside the window (at the training radius: see 4.4.1 and 4.4.3 there).",
    formula="4.4.1, 4.4.2 and 4.4.3 at noise_std = 0.05, and over noise_std in {0, ..., 0.3}",
    rule="shares of 4.4.1-4.4.3 (against the worst attack) at the default noise, each judged as 4.4.2, and every "
    f"bullet's share on a {CHEAPER}",
)
class AdversarialWithNoise:
    def measure(lab):
        return taken(trained(lab, True), "robust") | {
            "train_standing": attacked(lab, True, "data", False)["standing"],
            "test_standing": attacked(lab, True, "test", False)["standing"],
            "sweep": swept(lab, True),
            "standard": swept(lab, False),
            "bullets": ["train_standing", "robust", "test_standing"],
        }

    def judge(m):
        bullets = {"training under attack": m["train_standing"], "u learned": m["robust"]}
        return judge_with_noise(m, bullets | {"test under attack": m["test_standing"]}, "eps", "window")

    def draw(axis, m):
        draw_noise(axis, m["sweep"], {
            "test": ("test accuracy", ACCURACY, "s-"), "robust": ("only $u$ left", ROBUST, "v-"),
            "test_standing": (r"worst of 5 attacks, $\epsilon_{test}$", PAPER, "o-"),
            "test_certified": (r"certified, $\epsilon_{test}$", CERTIFIED, "x:"),
        })  # fmt: skip
        noise = m["standard"]["noise"]
        axis.plot(noise, m["standard"]["test"], "--", color="0.6", lw=1, label="standard: test accuracy")
        axis.plot(noise, m["standard"]["test_standing"], ":", color="0.6", lw=1, label="standard: worst attack")

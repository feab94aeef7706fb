"""One model-free perturbation against many networks that know nothing of each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..patches.attacks import feature_swap
from ..patches.data import PatchData
from ..patches.network import PatchCNN
from ..reporting.style import NON_ROBUST, PAPER, ROBUST
from .ledger import Assumption, Judgement, entry
from .statistics import spread, wilson

MANY, FEW = 0.9, 0.1  # of a network's correct samples
N_TEST = 150


def broken(net: PatchCNN, X: np.ndarray, data: PatchData) -> np.ndarray:
    """Share of each network's correct samples that X brings to an error, and its Wilson interval, (R, 3)."""
    correct = net.margin(data.X, data.y) > 0
    lost = correct & (net.margin(X, data.y) <= 0)
    counts = zip(lost.sum(axis=-1), correct.sum(axis=-1))
    return np.array([(a / n, *wilson(a, n)) if n else (np.nan, 0.0, 1.0) for a, n in counts])


@entry(
    "transfer",
    "data",
    "One perturbation breaks them all",
    statement="The swap of non-robust features, drawn once and without any network, breaks every network that standard "
    "training made from its own seed and data, and no adversarially trained one (ours: such features belong to the "
    "data, not to a network).",
    formula="delta_p = clip_eps(beta_p (v_y' - v_y)) on J_NR, 0 on J_R, one y' per sample for all networks",
    rule=f"in every network, of its correct samples (Wilson): the swap of radius eps breaks >= {MANY} after standard "
    f"and <= {FEW} after adversarial training, and random signs of radius eps break <= {FEW} after standard training; "
    "margin: the smallest slack",
)
class Transfer:
    def measure(lab):
        stories = {"standard": lab.story(False), "adversarial": lab.story(True)}
        c = stories["standard"].config
        test = replace(c, n_seeds=1, n_test=N_TEST).data("test")
        test = PatchData(test.X[0], test.y[0], test.robust[0], test.strength[0], test.features)
        signs, radius = np.random.default_rng(11).choice([-1.0, 1.0], test.X.shape), (c.eps, c.eps_test)
        signed = [test.X + eps * signs for eps in radius]
        swapped = [feature_swap(test, eps=eps, rng=0) for eps in radius]
        nets = {name: story.net.astype(np.float64) for name, story in stories.items()}
        return {
            "radius": radius,
            "beta": c.beta,
            "accuracy": {name: net.accuracy(test.X, test.y) for name, net in nets.items()},
            "swap": {name: np.array([broken(net, X, test) for X in swapped]) for name, net in nets.items()},
            "signs": {name: np.array([broken(net, X, test) for X in signed]) for name, net in nets.items()},
        }

    def judge(m):
        low = min(np.min(a) for a in m["accuracy"].values())
        standard, adversarial = m["swap"]["standard"][0], m["swap"]["adversarial"][0]
        control = m["signs"]["standard"][0]
        told = [
            f"{attack} after {name} training {spread(shares[0, :, 0])}, at eps = {m['radius'][1]:g} "
            f"{spread(shares[1, :, 0])}"
            for attack in ("swap", "signs") for name, shares in m[attack].items()
        ]  # fmt: skip
        return Judgement(
            "the swap breaks all after standard and none after adversarial training",
            f"share broken per network at eps = {m['radius'][0]:g}, {len(standard)} networks: {'; '.join(told)}",
            float(min(standard[:, 1].min() - MANY, FEW - adversarial[:, 2].max(), FEW - control[:, 2].max())),
            [
                Assumption("eps / beta", f"{m['radius'][0] / m['beta']:g}", ">= 1", m["radius"][0] >= m["beta"]),
                Assumption("clean accuracy", f">= {low:.3f}", f">= {MANY}", bool(low >= MANY)),
            ],
        )

    def draw(axis, m):
        network = np.arange(len(m["swap"]["standard"][0]))
        lines = (("swap", "standard", NON_ROBUST, "s"), ("signs", "standard", "0.5", "v"),
                 ("swap", "adversarial", ROBUST, "o"), ("signs", "adversarial", PAPER, "^"))  # fmt: skip
        for i, (attack, name, color, marker) in enumerate(lines):
            for j, eps in enumerate(m["radius"]):
                share, low, high = m[attack][name][j].T
                label = rf"{'swap' if attack == 'swap' else 'random signs'}, {name} training, $\epsilon$ = {eps:g}"
                fill = {"mfc": color if j == 0 else "white", "alpha": 1 if j == 0 else 0.6}
                axis.errorbar(network + 0.1 * (2 * i + j - 3.5), share, [share - low, high - share], fmt=marker,
                              color=color, ms=4, lw=1, label=label, **fill)  # fmt: skip
        for value in (MANY, FEW):
            axis.axhline(value, color="0.4", ls="--", lw=0.8)
        axis.set_xticks(network)
        axis.set_ylim(-0.05, 1.05)
        axis.set_xlabel("network: its own seed, its own training data")
        axis.set_ylabel("share of test samples broken")

"""Robustness over the whole window of test radii (docs/robust-window.md), and the part of it that holds."""

import numpy as np

from ..experiments.configuration import Figure3Config
from ..patches.data import PatchData
from ..patches.network import PatchCNN
from ..reporting.pictures import Picture, level, line
from ..reporting.style import CERTIFIED, ROBUST
from ..robustness.evaluate import robust_accuracy
from .ledger import Check, share
from .statistics import wilson

LEVEL = 0.9  # "1 - o(1)" at a finite size: the lower end of a share's interval, and every seed's share
STEPS = 10  # equal parts of the window of test radii, each judged at its middle
SHARES, SAMPLES = (-0.04, 1.06), "share of samples"  # limits of an axis of shares, and its label


def across(net: PatchCNN, data: PatchData, config: Figure3Config) -> dict:
    """Over the window: radii ``eps`` (STEPS,), samples ``standing`` against swap and aligned attack, and ``certified``,
    (STEPS, R, N) each: an upper and a lower bound of the robust ones."""
    low, high = config.window().ends
    radii = low + (np.arange(STEPS) + 0.5) / STEPS * (high - low)
    options = {"certificate": "interval", "attacks": ("feature_swap", "aligned"), "rng": config.seeds}
    found = [robust_accuracy(net, data, eps=eps, **options) for eps in radii]
    return {"eps": radii} | {name: np.array([getattr(f, name) for f in found]) for name in ("standing", "certified")}


def over_window(m: dict, every: bool = False) -> list[Check]:
    """Almost all samples stand at every radius of the window, or without exception `every` one."""
    w, what = m["across"], f"standing against swap and aligned attack at {STEPS} radii across the window"
    shares = [share(right) for right in w["standing"]]
    told = f"eps = {w['eps'][0]:.3f}: {shares[0]}, {w['eps'][-1]:.3f}: {shares[-1]}; {reach(w)}"
    if every:
        return [
            Check(f"samples not {what}, most at a radius", (~w["standing"]).sum(axis=(1, 2)).max(), "<=", 0, shown=told)
        ]
    low = [wilson(right.sum(), right.size)[0] for right in w["standing"]]
    return [Check(f"{what}: share, Wilson's lower end", low, ">=", LEVEL, shown=told)]


def reach(w: dict) -> str:
    """Up to which radius of the window nine in ten are certified, and up to which they stand."""
    ends = []
    for name in ("certified", "standing"):
        n = int(np.logical_and.accumulate(w[name].mean(axis=(1, 2)) >= LEVEL).sum())
        ends.append(
            f"{LEVEL:.0%} {name} " + (f"up to {w['eps'][n - 1]:.3f}, {n / STEPS:.0%} of it" if n else "nowhere")
        )
    return "; ".join(ends)


def draw_window(m):
    """Shares over the window, every seed its own line."""
    w = m["across"]
    lines = (("standing", ROBUST, "stands against swap and aligned attack"), ("certified", CERTIFIED, "certified"))
    layers = [line(w["eps"], w[name].mean(axis=2), f"{label}, a seed each", color, lw=0.9, alpha=0.7)
              for name, color, label in lines]  # fmt: skip
    return Picture(r"radius $\epsilon$, over the window", SAMPLES, [*layers, level(LEVEL)], ylim=SHARES)

"""The share of points at which the claims of Theorems 4.3 and 4.4 hold."""

import numpy as np
from matplotlib.figure import Figure

from ..reporting.style import ACCURACY, NON_ROBUST, ROBUST, legend_below, subplots
from .binned import binned, share_of_points
from .catalogue import CLAIMS
from .curves import PALETTE
from .drawing import Drawn, pretty
from .selection import EVERY, Selection, centre

ALL = {"all of 4.3": "4.3", "all of 4.4": "4.4", "all of both": ""}


def claim_shares(held: np.ndarray) -> dict[str, np.ndarray]:
    """claims (n, n_seeds, len(CLAIMS)) -> name: (n,) shares of seeds, of each claim and of all together."""
    names = list(CLAIMS)
    groups = {name: [name] for name in names}
    groups |= {label: [name for name in names if name.startswith(f"claim_{part}")] for label, part in ALL.items()}
    found = {}
    for label, members in groups.items():
        chosen = held[..., [names.index(name) for name in members]]
        together = np.where(np.isnan(chosen).any(axis=-1), np.nan, (chosen == 1).all(axis=-1))
        found[label] = centre(together, "share")
    return found


def claims_figure(selection: Selection) -> Figure:
    """The share of points at which each claim of Theorems 4.3 and 4.4 holds; with an x, along it (or every axis)."""
    shares = claim_shares(selection.values)
    if selection.x == EVERY:
        return _claims_along_every(selection, shares)
    return _claims_along(selection, shares) if selection.x else _claims_table(selection, shares)


TITLE = "Where the claims of Theorems 4.3 and 4.4 hold"


def _note(selection):
    n = selection.values.shape[1]
    counted = f"a point counted by its mean over {n} seeds" if n > 1 else "one seed"
    return f"share of points, {counted}; bars: Wilson 95%"


def _claims_title(figure, selection):
    figure.suptitle(TITLE, fontweight="bold", fontsize=10.5)
    figure.supxlabel(_note(selection), fontsize=8, color="0.35")


def _claims_table(selection, shares):
    figure, axis = subplots(figsize=(8.6, 4.6))
    for row, (name, own) in enumerate(shares.items()):
        share, low, high, n = share_of_points(own)
        color = ACCURACY if name in ALL else NON_ROBUST if name.startswith("claim_4.3") else ROBUST
        at = row + 0.5 * (name in ALL)
        axis.errorbar([share], [at], xerr=[[max(share - low, 0)], [max(high - share, 0)]], marker="o", color=color,
                      capsize=3, ms=6, lw=1.6)  # fmt: skip
        axis.text(1.04, at, f"{share:.3f}  [{low:.3f}, {high:.3f}]  of {n}", va="center", fontsize=8,
                  transform=axis.get_yaxis_transform())  # fmt: skip
    labels = [f"{_number(name)} {pretty(CLAIMS[name].statement)}" if name in CLAIMS else name for name in shares]
    axis.set_yticks([row + 0.5 * (name in ALL) for row, name in enumerate(shares)], labels)
    axis.axhline(len(CLAIMS) - 0.25, color="0.6", lw=0.8)
    axis.invert_yaxis()
    axis.set_xlim(-0.02, 1.02)
    axis.grid(False, axis="y")
    _claims_title(figure, selection)
    return figure


def _claims_along(selection, shares):
    figure, axes = subplots(1, 2, figsize=(9.6, 4.9), sharey=True)
    x = Drawn(selection, selection.x)
    for axis, part, kind in zip(axes, ("4.3", "4.4"), ("standard", "adversarial")):
        names = [name for name in shares if name.startswith(f"claim_{part}")]
        for n, (name, color) in enumerate(zip([*names, f"all of {part}"], [*PALETTE[:len(names)], "k"])):
            binned(axis, x, shares[name], color, "osD^v"[n], _number(name) if name in CLAIMS else name,
                    0.012 * (n - 2))  # fmt: skip
        axis.set_title(f"Theorem {part}, {kind} training", fontsize=9)
        x.prepare(axis, "x", 10)
        axis.set_ylim(-0.04, 1.04)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=5, fontsize=8, columnspacing=1.0)
    axes[0].set_ylabel("share of points")
    _claims_title(figure, selection)
    return figure


def _claims_along_every(selection, shares):
    """A panel per axis of the sweep: the share of points at which all claims hold."""
    fixed = selection.request.get("at", {})
    many = [name for name, axis in selection.results.axes.items() if len(axis.get("values", "ab")) > 1]
    names = [name for name in many if name not in fixed]
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, grid = subplots(rows, columns, figsize=(2.6 * columns + 0.6, 2.3 * rows + 0.9), sharey=True,
                                squeeze=False)  # fmt: skip
    for n, axis in enumerate(grid.flat):
        axis.set_visible(n < len(names))
        if n < len(names):
            x = Drawn(selection, names[n])
            for shift, (label, color, marker) in enumerate(zip(ALL, (NON_ROBUST, ROBUST, "k"), "osD")):
                binned(axis, x, shares[label], color, marker, label, 0.012 * (shift - 1))
            x.prepare(axis, "x", 5)
    grid[0, 0].set_ylim(-0.04, 1.04)
    figure.supylabel("share of points", fontsize=9)
    held = legend_below(figure, title=_note(selection), title_fontsize=8)
    held.get_title().set_color("0.35")
    figure.suptitle(TITLE, fontweight="bold", fontsize=10.5)
    return figure


def _number(name):
    return name.removeprefix("claim_")

"""Random and Sobol designs along one axis: shares or medians in bins of equal counts."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..reporting.style import ACCURACY, subplots
from .curves import DASHED, PALETTE, scale, vertical_boundaries, vertical_lines
from .drawing import Drawn, heading, legend, note, pretty, short, wrapped
from .predictions import PLATEAU
from .selection import LABELS, Selection, wilson


def bins(x: np.ndarray) -> list[np.ndarray]:
    """Indices of points, in bins of equal counts along x; one bin per value where there are few."""
    values = np.unique(x)
    if len(values) <= 4 or (len(values) <= 12 and len(x) >= 8 * len(values)):
        return [np.flatnonzero(x == value) for value in values]
    n = int(np.clip(np.sqrt(len(x)) / 1.5, 4, 12))
    return [part for part in np.array_split(np.argsort(x, kind="stable"), n) if len(part)]


def share_of_points(shares: np.ndarray) -> tuple[float, float, float, int]:
    """(share, low, high, points) over points that have a value."""
    held = shares[~np.isnan(shares)]
    share = float(held.mean()) if len(held) else np.nan
    low, high = wilson(share, len(held))
    return share, float(low), float(high), len(held)


def binned(axis, x, shares, color, marker="o", label=None, shift=0.0):
    """Share of points per bin with its Wilson interval."""
    rows = []
    fine = np.flatnonzero(~np.isnan(shares) & np.isfinite(x.at))
    for part in bins(x.at[fine]):
        share, low, high, _ = share_of_points(shares[fine[part]])
        rows.append((np.median(x.at[fine[part]]), share, share - low, high - share))
    if rows:
        at, share, below, above = np.maximum(np.array(rows).T, [[-np.inf], [0], [0], [0]])
        at = at * (1 + shift) if x.log else at + shift * np.ptp(x.values)
        axis.errorbar(at, share, [below, above], color=color, marker=marker, ms=4.5, lw=1.4, elinewidth=1, capsize=2,
                      mfc="white", label=label)  # fmt: skip


# ------------------------------------------------------------------ one metric over one axis
def binned_figure(selection: Selection) -> Figure:
    """Dots per point; per bin of equal counts the share (Wilson) or the median with quartiles."""
    figure, axis = subplots(figsize=(6.4, 5.0))
    x, share = Drawn(selection, selection.x), selection.info.kind == "share"
    panels, lines = selection.panels, []
    jitter = np.random.default_rng(0).uniform(-0.018, 0.018, len(selection.points)) if share else 0
    shown = selection.centre + jitter
    for (value, index), color in zip(panels, [ACCURACY] if len(panels) == 1 else PALETTE):
        own = np.full(len(shown), np.nan)
        own[index] = selection.centre[index]
        axis.plot(x.at[index], shown[index], ".", color=color, alpha=0.4, ms=7 if len(shown) < 300 else 4, mew=0)
        label = None if value is None else f"{LABELS.get(selection.facet, selection.facet)} = {short(value)}"
        if share:
            binned(axis, x, own, color, label=label or "mean of the bin's points, Wilson 95%")
        else:
            _quartiles(axis, x, own, color, label or "median and quartiles of the bin's points")
        lines += vertical_boundaries(x, selection, value, color)
    handles = [*axis.get_legend_handles_labels()[0], Line2D([], [], ls="", marker=".", color="0.5", label="a point")]
    handles += vertical_lines(axis, x.name, lines, len(panels)).values()
    if selection.metric == "B_over_plateau":
        handles.append(axis.axhline(1, color="k", ls=DASHED, lw=1.2, label=PLATEAU))
    without = int(np.isnan(selection.centre).sum())
    if without:
        handles.append(Line2D([], [], ls="", label=f"without a number: {without} of {len(selection.points)} points"))
    x.prepare(axis, "x", 10)
    scale(axis, selection)
    axis.set_ylabel(pretty(wrapped(selection.info.label, 52)))
    legend(figure, handles, note(selection, "points: mean over" if share else "points: median over"))
    heading(figure, selection)
    return figure


def _quartiles(axis, x, values, color, label):
    fine = np.flatnonzero(~np.isnan(values) & np.isfinite(x.at))
    if len(fine):
        parts = [fine[part] for part in bins(x.at[fine])]
        low, middle, high = np.array([np.percentile(values[part], (25, 50, 75)) for part in parts]).T
        at = [np.median(x.at[part]) for part in parts]
        axis.errorbar(at, middle, [middle - low, high - middle], color=color, marker="o", ms=4.5, lw=1.4,
                      elinewidth=1, capsize=2, mfc="white", label=label)  # fmt: skip

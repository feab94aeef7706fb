"""Phase diagrams over two axes: cells of a grid or dots of another design, with what the theory predicts."""

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from ..reporting.style import NON_ROBUST, ROBUST, subplots
from .drawing import Drawn, heading, legend, note, pretty, short, wrapped
from .predictions import boundaries, curve, predicted_metric
from .selection import LABELS, NEVER, NO_VALUE, SKIPPED, Selection, predicted_centre

WINNER = LinearSegmentedColormap.from_list("winner", [NON_ROBUST, "#f7f7f5", ROBUST])
# without its darkest part, on which black lines cannot be read
PLAIN = LinearSegmentedColormap.from_list("plain", matplotlib.colormaps["cividis"](np.linspace(0.2, 1, 256)))
HALO = [withStroke(linewidth=3, foreground="white", alpha=0.85)]
EDGE = [withStroke(linewidth=2.6, foreground="0.3")]  # white lines on bright cells cannot be seen without
MISSING = {NEVER: ("never in at least half of the seeds", "///"), SKIPPED: ("point skipped, impossible", "xxx"),
           NO_VALUE: ("no value in any seed", "...")}  # fmt: skip


def colours(selection: Selection):
    """(colour map, norm) of the values of all panels together."""
    values = selection.centre[np.isfinite(selection.centre)]
    if selection.info.kind == "share":
        return (WINNER if selection.metric == "robust_wins" else PLAIN), Normalize(0, 1)
    if not len(values):
        return PLAIN, Normalize(0, 1)
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - max(abs(low), 1e-12) / 10, high + max(abs(high), 1e-12) / 10
    if low > 0 and (selection.info.kind == "time" or high > 100 * low):
        return PLAIN, LogNorm(low, high)
    return PLAIN, Normalize(low, high)


# ------------------------------------------------------------------ maps
def map_figure(selection: Selection) -> Figure:
    """x and y: cells of a grid, or dots of another design; one panel per value of the facet."""
    panels, x, y = selection.panels, Drawn(selection, selection.x), Drawn(selection, selection.y)
    columns = min(len(panels), 3 if len(panels) != 4 else 2)
    rows = -(-len(panels) // columns)
    size = (6.4, 5.4) if len(panels) == 1 else (3.1 * columns + 1.4, 2.8 * rows + 1.6)
    figure, grid = subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    cmap, norm = colours(selection)
    handles, cells = {}, selection.is_grid and _full(selection, x, y)
    for axis, (value, index) in zip(grid.flat, panels):
        axis.grid(False)
        image = (_cells if cells else _dots)(axis, selection, x, y, index, cmap, norm)
        x.prepare(axis, "x", 8 if len(panels) == 1 else 5)
        y.prepare(axis, "y")
        axis.set_xlim(x.range if cells else x.padded)
        axis.set_ylim(y.range if cells else y.padded)
        handles |= _predicted(axis, selection, x, y, index, value, norm if cells else None)
        if value is not None:
            axis.set_title(f"{LABELS.get(selection.facet, selection.facet)} = {short(value)}", fontsize=9)
    for n, axis in enumerate(grid.flat):
        axis.set_visible(n < len(panels))
        axis.label_outer()
        if n < len(panels) <= n + columns:  # the last of a column, also above an empty place
            axis.xaxis.set_tick_params(labelbottom=True)
            axis.set_xlabel(x.label)
    _bar(figure, image, grid, selection, norm if "predicted" in handles else None)
    over = "mean over" if selection.info.kind == "share" else "median over"
    legend(figure, [*handles.values(), *_missing_handles(selection)], note(selection, over))
    heading(figure, selection)
    return figure


def _full(selection, x, y) -> bool:
    """Whether every panel is a whole grid of the two axes."""
    size = len(x.values) * len(y.values)
    return all(
        len(index) == size == len(set(zip(x.at[index].tolist(), y.at[index].tolist())))
        for _, index in selection.panels
    )


def _table(values, x, y, index):
    """Values of a panel's points as (len(y), len(x))."""
    table = np.full((len(y.values), len(x.values)), np.nan)
    table[np.searchsorted(y.values, y.at[index]), np.searchsorted(x.values, x.at[index])] = values[index]
    return table


def _cells(axis, selection, x, y, index, cmap, norm):
    table = _table(selection.centre, x, y, index)
    image = axis.pcolormesh(x.edges, y.edges, np.ma.masked_invalid(table), cmap=cmap, norm=norm, rasterized=True)
    state = _table(selection.state, x, y, index)
    for kind, (_, hatch) in MISSING.items():
        if (state == kind).any():
            shown = np.ma.masked_where(state != kind, state)
            axis.pcolor(x.edges, y.edges, shown, cmap=ListedColormap(["0.87"]), hatch=hatch, ec="0.55", lw=0)
    return image


def _dots(axis, selection, x, y, index, cmap, norm):
    fine = index[selection.state[index] == 0]
    rest = np.setdiff1d(index, fine)
    size = np.clip(9000 / max(len(index), 1), 8, 60)
    axis.scatter(x.at[rest], y.at[rest], s=size, marker="x", color="0.6", lw=0.9)
    return axis.scatter(x.at[fine], y.at[fine], c=selection.centre[fine], s=size, cmap=cmap, norm=norm, ec="0.25",
                        lw=0.3)  # fmt: skip


def _bar(figure, image, grid, selection, levels):
    label = pretty(wrapped(selection.info.label, 52))
    bar = figure.colorbar(image, ax=list(grid.flat), label=label, pad=0.02)
    bar.ax.grid(False)
    if levels:
        for level in _level_list(levels):
            bar.ax.axhline(level, color="white", lw=1.3, path_effects=EDGE)
    if selection.metric == "robust_wins":
        bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0: non-robust", "0.25", "0.5", "0.75", "1: robust"])
    elif isinstance(bar.norm, LogNorm):
        bar.ax.yaxis.set_major_locator(_log_locator(bar.norm))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        bar.ax.minorticks_off()
    if selection.metric == "B_over_plateau" and bar.norm.vmin <= 1 <= bar.norm.vmax:
        bar.ax.axhline(1, color="k", lw=1.6)


def _missing_handles(selection) -> list:
    found = []
    for kind, (label, hatch) in MISSING.items():
        n = int((selection.state == kind).sum())
        if n:
            text = f"{label}: {n} of {len(selection.state)} points"
            found.append(Patch(fc="0.87", ec="0.55", hatch=hatch, lw=0, label=text) if selection.is_grid else
                         Line2D([], [], ls="", marker="x", color="0.6", label=text))  # fmt: skip
    return found


def _predicted(axis, selection, x, y, index, facet, norm) -> dict:
    """Draw boundaries and, on the cells of a grid, levels of a predicted map; returns legend entries by name."""
    handles = {}
    if x.categories is None and y.categories is None and min(len(x.values), len(y.values)) > 1:
        X, Y = np.meshgrid(x.mesh(edges=True), y.mesh(edges=True))
        fields = selection.fields({x.name: X, y.name: Y}, facet)
        for one, value in boundaries(selection.metric, selection.training, fields):
            style = {"colors": "k", "linewidths": 1.5, "linestyles": [one.style]}
            lines = axis.contour(X, Y, np.ma.masked_invalid(value), levels=[0], **style)
            lines.set_path_effects(HALO)
            handles[one.name] = Line2D([], [], color="k", lw=1.5, ls=one.style, label=f"predicted: {one.label}")
        level = curve(selection.metric, selection.training, fields)
        if norm and level is not None and selection.metric != "B_over_plateau" and np.ndim(level):
            handles |= _levels(axis, selection, x, y, index, norm, X, Y, level)
    name = predicted_metric(selection.metric)
    if norm and name and selection.results.ways(name) and min(len(x.values), len(y.values)) > 1:
        predicted = predicted_centre(selection, name)
        handles |= _levels(axis, selection, x, y, index, norm, x.values, y.values, _table(predicted, x, y, index))
    return handles


def _log_locator(norm):
    wide = norm.vmax / norm.vmin
    return LogLocator(subs=(1, 2, 5) if wide < 300 else (1, 3) if wide < 1e5 else (1,))


def _level_list(norm) -> list[float]:
    """Round levels between the ends of the colours: about six."""
    locator = _log_locator(norm) if isinstance(norm, LogNorm) else MaxNLocator(7)
    return [float(v) for v in locator.tick_values(norm.vmin, norm.vmax) if norm.vmin < v < norm.vmax]


def _levels(axis, selection, x, y, index, norm, X, Y, predicted) -> dict:
    """Equal levels of the measured map, white, and of the predicted one, black and dashed; marked on the colour bar."""
    levels = _level_list(norm)
    measured = np.ma.masked_invalid(_table(selection.centre, x, y, index))
    predicted = np.ma.masked_invalid(predicted)
    if not levels or measured.count() < 4 or not predicted.count():
        return {}
    if isinstance(norm, LogNorm):  # between cells times change by factors
        levels, measured, predicted = np.log(levels), np.ma.log(measured), np.ma.log(predicted)
    lines = axis.contour(x.values, y.values, measured, colors="white", levels=levels, linewidths=1.3)
    lines.set_path_effects(EDGE)
    axis.contour(X, Y, predicted, colors="k", linestyles=[(0, (4, 2))], levels=levels, linewidths=1.3)
    return {
        "measured": Line2D([], [], color="white", lw=1.3, label="measured, levels of the bar", path_effects=EDGE),
        "predicted": Line2D([], [], color="k", lw=1.3, ls=(0, (4, 2)), label="predicted, the same levels"),
    }

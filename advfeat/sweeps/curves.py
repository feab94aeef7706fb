"""One-dimensional sweeps: medians over seeds with their range, and what the theory predicts."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..reporting.style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST, subplots
from .drawing import Drawn, heading, legend, note, pretty, short, wrapped
from .predictions import PLATEAU, boundaries, crossings, curve, predicted_metric
from .selection import LABELS, NEVER, NO_VALUE, SKIPPED, Selection, predicted_centre, wilson

PALETTE = (ROBUST, NON_ROBUST, CERTIFIED, PAPER, "#56b4e9", "#e69f00", ACCURACY, "#7a5195", "#8c6d31")
DASHED = (0, (4, 2.5))


def curves_figure(selection: Selection) -> Figure:
    """Metric against x, a colour per value of the facet."""
    figure, axis = subplots(figsize=(6.4, 5.0))
    x, handles, lines = Drawn(selection, selection.x), {}, []
    binary = selection.info.kind == "share" and bool(np.isin(selection.values, (0, 1)).mean() > 0.999)
    panels = selection.panels
    for (value, index), color in zip(panels, [ACCURACY] if len(panels) == 1 else PALETTE):
        index = index[np.argsort(x.at[index])]
        _band(axis, x.at[index], selection, index, color, binary)
        handles[f"facet {value}"] = Line2D(
            [], [], color=color, marker="o", ms=4, mfc="white",
            label="measured" if value is None else f"{LABELS.get(selection.facet, selection.facet)} = {short(value)}",
        )  # fmt: skip
        handles |= _predicted_curve(axis, x, selection, index, value, color, len(panels) > 1)
        lines += vertical_boundaries(x, selection, value, color)
    handles = dict(sorted(handles.items(), key=lambda item: not item[0].startswith("facet")))
    handles |= vertical_lines(axis, x.name, lines, len(panels))
    x.prepare(axis, "x", 10)
    scale(axis, selection)
    axis.set_ylabel(pretty(wrapped(selection.info.label, 52)))
    spread = "range over seeds" + (", to the end if one never" if selection.info.kind == "time" else "")
    handles["band"] = Patch(fc="0.6", alpha=0.35, lw=0, label="Wilson 95% interval" if binary else spread)
    if selection.values.shape[1] == 1 and not binary:
        del handles["band"]
    handles |= _missing(axis, x, selection)
    legend(figure, list(handles.values()), note(selection, "mean over" if binary else "median over"))
    heading(figure, selection)
    return figure


def _band(axis, x, selection, index, color, binary):
    """Median and range over seeds; of shares that are 0 or 1 the mean and its Wilson interval.

    Where some seeds never saw an event the range reaches up to the last iteration.
    """
    values = selection.values[index]
    if binary:
        middle = selection.centre[index]
        low, high = wilson(middle, (~np.isnan(values)).sum(axis=1))
    else:
        time = selection.info.kind == "time"
        some = ~np.isnan(values).all(axis=1)
        low, middle, high = np.full((3, len(index)), np.nan)
        low[some], high[some] = np.nanmin(values[some], axis=1), np.nanmax(values[some], axis=1)
        middle[some] = selection.centre[index][some] if time else np.nanmedian(values[some], axis=1)
        never = some & np.isnan(values).any(axis=1) & time
        high[never] = selection.field("n_iter")[index][never]
    axis.fill_between(x, low, high, color=color, alpha=0.17, lw=0)
    if len(x) <= 3 and len(index):
        axis.vlines(x, low, high, color=color, alpha=0.4, lw=3)
    axis.plot(x, middle, "o-", color=color, lw=1.5, ms=4, mfc="white", mew=1.2)


def _predicted_curve(axis, x, selection, index, facet, color, many) -> dict:
    """The plateau along x, or the median over seeds of the runs' own predicted times; dashed."""
    shade = color if many else "k"
    name = predicted_metric(selection.metric)
    if name and selection.results.ways(name):
        predicted = predicted_centre(selection, name)[index]
        axis.plot(x.at[index], predicted, ls=DASHED, color=shade, lw=1.3)
        return {"predicted": Line2D([], [], color="k", ls=DASHED, lw=1.3, label="predicted, median over seeds")}
    if x.categories is not None:
        return {}
    mesh = x.mesh()
    level = curve(selection.metric, selection.training, selection.fields({x.name: mesh}, facet))
    if level is None or np.isnan(level).all():
        return {}
    axis.plot(mesh, np.broadcast_to(level, mesh.shape), ls=DASHED, color=shade, lw=1.3)
    return {"plateau": Line2D([], [], color="k", ls=DASHED, lw=1.3, label=PLATEAU)}


def vertical_boundaries(x, selection, facet, color) -> list[tuple]:
    if x.categories is not None or len(x.values) < 2:
        return []
    mesh = x.mesh(2001)
    fields = selection.fields({x.name: mesh}, facet)
    found = boundaries(selection.metric, selection.training, fields)
    return [(one, at, color) for one, value in found for at in crossings(mesh, value)]


def vertical_lines(axis, x_name, lines, n_panels) -> dict:
    """Vertical lines: black where all facets agree, else each in its facet's colour."""
    handles, places = {}, {}
    for one, at, color in lines:
        places.setdefault(one.name, []).append((one, at, color))
    for name, found in places.items():
        same = len(found) == n_panels and np.ptp([at for _, at, _ in found]) <= 1e-9 * abs(found[0][1])
        for one, at, color in found[:1] if same else found:
            shade = "k" if same or n_panels == 1 else color
            axis.axvline(at, color=shade, ls=one.style if one.style != "-" else (0, (7, 2)), lw=1.2)
        where = f" at {short(found[0][1])}" if same and name != x_name else ""
        style = one.style if one.style != "-" else (0, (7, 2))
        handles[name] = Line2D([], [], color="k", ls=style, lw=1.2, label=f"predicted: {one.label}{where}")
    return handles


def scale(axis, selection):
    values = selection.values[np.isfinite(selection.values)]
    if selection.info.kind == "share":
        axis.set_ylim(-0.04, 1.04)
    elif len(values) and values.min() > 0 and values.max() > 50 * values.min():
        axis.set_yscale("log")
        if selection.info.kind == "time":  # a prediction far beyond the last iteration would squeeze the rest
            low, high = axis.get_ylim()
            axis.set_ylim(low, min(high, 4 * float(selection.field("n_iter").max())))


def _missing(axis, x, selection) -> dict:
    """Marks at the top edge, in their facet's colour, for points without a number."""
    found, panels = {}, selection.panels
    kinds = ((NEVER, "x", "never in at least half of the seeds"), (SKIPPED, "s", "point skipped"),
             (NO_VALUE, "+", "no value in any seed"))  # fmt: skip
    for kind, marker, label in kinds:
        n = int((selection.state == kind).sum())
        for row, ((_, index), color) in enumerate(zip(panels, PALETTE if len(panels) > 1 else ["0.45"])):
            at = x.at[index[selection.state[index] == kind]]
            if len(at):  # an empty line that is not clipped would upset the layout
                axis.plot(at, np.full(len(at), 0.985 - 0.025 * row), ls="", marker=marker, color=color, ms=4,
                          transform=axis.get_xaxis_transform(), clip_on=False)  # fmt: skip
        if n:
            text = f"{label}: {n} of {len(selection.state)} points"
            found[label] = Line2D([], [], ls="", marker=marker, color="0.45", ms=5, label=text)
    return found

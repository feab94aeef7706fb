"""Where things stand in a drawn figure: what legends, texts and insets cover, and where colour bars stand."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection


def _points(axis):
    """Points of the axis's curves and of their bands' edges in display coordinates, one every two pixels or so."""
    for line in axis.lines:
        if line.get_transform() == axis.transData and line.get_linestyle() != "None":
            yield line.get_label(), _dense(axis, line.get_xydata())
    for band in axis.collections:
        if isinstance(band, PolyCollection):
            for path in band.get_paths():
                yield "band", _dense(axis, path.vertices)


def _dense(axis, xy):
    xy = axis.transData.transform(np.asarray(xy, dtype=float))
    xy = xy[np.isfinite(xy).all(axis=1)]
    between = np.linspace(0, 1, 64)[:, None, None]
    held = np.concatenate([(xy[:-1] + between * (xy[1:] - xy[:-1])).reshape(-1, 2), xy])
    box = axis.get_window_extent()
    return held[(held >= box.min - 1).all(axis=1) & (held <= box.max + 1).all(axis=1)]


def covered(figure) -> list[str]:
    """Which legend or inset covers which curve."""
    figure.draw_without_rendering()
    found, axes = [], [axis for axis in figure.findobj(Axes) if axis.get_visible()]
    for axis in axes:
        boxes = [("inset", child.get_tightbbox()) for child in axis.child_axes]
        boxes += [("legend", held.get_window_extent()) for held in (axis.get_legend(), *figure.legends) if held]
        for what, box in boxes:
            for name, xy in _points(axis):
                if ((xy > box.min) & (xy < box.max)).all(axis=1).any():
                    found.append(f"{what} on {name}")
    return found


def well_laid_out(figure):
    """The figure, after a look at where its legends, insets and colour bars stand."""
    assert covered(figure) == []
    for bar in bars(figure):
        assert bar["label"]
        assert 0 < bar["gap"] < 0.05
        assert bar["reach"] > 0.95
    return figure


def bars(figure) -> list[dict]:
    """Of every colour bar: its label, the gap to its axes as a share of the figure's width, and whether it reaches as
    high and as low as they do."""
    figure.draw_without_rendering()
    found = []
    for axis in figure.findobj(Axes):
        if hasattr(axis, "_colorbar"):
            mine = axis.get_window_extent()
            parents = [parent.get_window_extent() for parent in axis._colorbar_info["parents"] if parent.get_visible()]
            low, high = min(box.y0 for box in parents), max(box.y1 for box in parents)
            gap = (mine.x0 - max(box.x1 for box in parents)) / figure.bbox.width
            reach = mine.height / (high - low)
            found.append({"label": axis.get_ylabel(), "gap": gap, "reach": reach})
    return found

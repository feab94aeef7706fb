"""How figures look: colours, sizes, files.  Each is an object of its own; the global state of pyplot is not used."""

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..core import store

STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.92",
    "legend.frameon": False,
    "figure.dpi": 110,
    "savefig.dpi": 160,
}
ROBUST, NON_ROBUST, ACCURACY, PAPER, CERTIFIED = "#0072b2", "#d55e00", "#333333", "#cc79a7", "#009e73"
GAP = "#f0c000"  # between the best attack and the certificate


def save(figure: Figure, path, kinds=("png", "pdf")) -> None:
    """Write `path`.png and .pdf, each through a temporary file."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, for all kinds
    for kind in kinds:
        metadata = {"CreationDate": None} if kind == "pdf" else None
        store.write(f"{path}.{kind}", lambda file, k=kind, m=metadata: figure.savefig(file, format=k, metadata=m))


def styled(**changes):
    """A context in which figures are drawn in this style."""
    return matplotlib.rc_context(STYLE | changes)


def legend_below(figure: Figure, handles=None, fontsize: float = 8, **options):
    """A legend under all axes, where it covers no curve: of `handles`, or of what has a label in any of the axes.

    It has as many columns as fit, and the figure grows by its height, so that no axis gets smaller.  None where there
    is nothing to say.
    """
    labelled = (axis.get_legend_handles_labels() for axis in figure.findobj(Axes))
    found = {label: handle for held in labelled for handle, label in zip(*held)}
    found = found if handles is None else {handle.get_label(): handle for handle in handles}
    if not found and "title" not in options:
        return None
    for columns in range(max(len(found), 1), 0, -1):
        held = figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=columns,
                             fontsize=fontsize, **options)  # fmt: skip
        size = held.get_window_extent().size
        if size[0] <= 0.98 * figure.bbox.width or columns == 1:
            room = size[1] / figure.dpi + 2 * figure.get_layout_engine().get()["h_pad"]
            figure.set_figheight(figure.get_figheight() + room)
            for line in held.get_lines():  # small and pale dots would not be seen
                line.set(markersize=max(line.get_markersize(), 4), alpha=1)
            return held
        held.remove()


def subplots(rows: int = 1, columns: int = 1, *, figsize, **options):
    """A figure and its axes, as from `pyplot.subplots`."""
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)

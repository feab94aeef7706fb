"""How figures look: colours, sizes, files.  Each is an object of its own; the global state of pyplot is not used."""

import matplotlib
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


def subplots(rows: int = 1, columns: int = 1, *, figsize, **options):
    """A figure and its axes, as from `pyplot.subplots`."""
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)

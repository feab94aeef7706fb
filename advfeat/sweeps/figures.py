"""The picture of one selection: a map, curves, a scatter, bins, or the claims."""

from matplotlib.figure import Figure

from ..reporting.style import styled
from .binned import binned_figure
from .claims import claims_figure
from .curves import curves_figure
from .maps import map_figure
from .results import axis_fields
from .selection import Selection


def draw(selection: Selection) -> Figure:
    """A map where there is a y (cells of a grid, dots of other designs); else curves of a grid, bins of others.

    ``metric = "claims"``: the share of points at which each claim of Theorems 4.3 and 4.4 holds.
    """
    with styled():
        if selection.metric == "claims":
            return claims_figure(selection)
        if selection.y is not None:
            return map_figure(selection)
        behind = set(axis_fields(selection.x, selection.results.axes)) - set(selection.request.get("at", {}))
        return curves_figure(selection) if selection.is_grid and len(behind) <= 1 else binned_figure(selection)

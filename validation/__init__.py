"""Floor 5: what holds the trained network against the theory: the ledger, and Figure 3's story."""

from ..reporting.pictures import Picture, band, diagonal, interval, line, mark, matrix, points
from .ledger import Check, Entry, Judgement

__all__ = [
    "Check", "Entry", "Judgement", "Picture", "band", "diagonal", "interval", "line", "mark", "matrix", "points",
]  # fmt: skip

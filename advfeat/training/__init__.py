"""Training: the loop, what it records, how parameters move, run folders."""

from .recorder import History, Measurement, Series

__all__ = ["History", "Measurement", "Series"]

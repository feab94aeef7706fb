"""Sweeps: thousands of runs over any configuration field, stored as they finish, and the pictures drawn of them."""

from .driver import Progress, SweepFailed, SweepInterrupted, sweep
from .spec import SweepSpec

__all__ = ["Progress", "SweepFailed", "SweepInterrupted", "SweepSpec", "sweep"]

"""Floor 3: what can be said without a network.  Knows the kernels' formulas, no trained weights."""

from .plateau import phase_two_started, plateau
from .window import density_ratio, robust_window

__all__ = ["density_ratio", "phase_two_started", "plateau", "robust_window"]

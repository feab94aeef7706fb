"""Floor 3: what can be said without a network.  Knows the kernels' formulas, no trained weights."""

from .patch_types import empirical_types, population_types, standard_error
from .plateau import phase_two_started, plateau
from .recursion import Recursion, State, simulate
from .window import density_ratio, robust_window

__all__ = [
    "Recursion",
    "State",
    "density_ratio",
    "empirical_types",
    "phase_two_started",
    "plateau",
    "population_types",
    "robust_window",
    "simulate",
    "standard_error",
]

"""Floor 3: what can be said without a network.  Knows the kernels' formulas, no trained weights."""

from .leading_order import LeadingOrder
from .noise import Decomposition, NoiseUpdate, decompose, noise_update
from .patch_types import empirical_types, population_types, standard_error
from .plateau import phase_two_started, plateau
from .recursion import Recursion, State, simulate
from .timing import flow_time, growth_rate
from .window import Window, contradiction, density_ratio, find_window, robust_window

__all__ = [
    "Decomposition",
    "LeadingOrder",
    "NoiseUpdate",
    "Recursion",
    "State",
    "Window",
    "contradiction",
    "decompose",
    "density_ratio",
    "empirical_types",
    "find_window",
    "flow_time",
    "growth_rate",
    "noise_update",
    "phase_two_started",
    "plateau",
    "population_types",
    "robust_window",
    "simulate",
    "standard_error",
]

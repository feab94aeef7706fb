"""Certificates: lower bounds on the margin over a whole ball, sound in floating point, and the radii they reach."""

from .certificate import METHODS, Certificate, Method, certify
from .interval import interval_margin
from .radius import RobustRadius, robust_radius

__all__ = ["METHODS", "Certificate", "Method", "RobustRadius", "certify", "interval_margin", "robust_radius"]

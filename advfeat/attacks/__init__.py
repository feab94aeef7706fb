"""Attacks: perturbations within a threat model that try to make a network err."""

from .apgd import APGD
from .gradient import FGSM, PGD, OneStepAscent, Rescue
from .search import Square
from .structured import Aligned, FeatureSwap, feature_swap, one_step_ascent
from .suite import AttackSuite, SuiteResult
from .threat import Attack, AttackResult, ThreatModel

__all__ = [
    "APGD",
    "FGSM",
    "PGD",
    "Aligned",
    "Attack",
    "AttackResult",
    "AttackSuite",
    "FeatureSwap",
    "OneStepAscent",
    "Rescue",
    "Square",
    "SuiteResult",
    "ThreatModel",
    "feature_swap",
    "one_step_ascent",
]

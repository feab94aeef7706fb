"""Attacks: perturbations within a threat model that try to make a model err.

Those that stand in higher rooms, since they know the patch network or all other attacks, are put here by
:mod:`advfeat` itself: ``Aligned, FeatureSwap, Rescue, feature_swap, one_step_ascent, AttackSuite, SuiteResult``.
"""

from .apgd import APGD
from .base import Attack, AttackProblem
from .gradient import FGSM, PGD, GradientAttack, OneStepAscent
from .square import Square
from .threat import AttackResult, ThreatModel

__all__ = [
    "APGD",
    "FGSM",
    "PGD",
    "Attack",
    "AttackProblem",
    "AttackResult",
    "GradientAttack",
    "OneStepAscent",
    "Square",
    "ThreatModel",
]

"""What attacks increase: J and dJ/dF as functions of the logits F (R, N, k), labels and targets (R, N).

Without targets, label y, r the strongest rival, pi the classes by decreasing logit:

==================  ==============================================================  ========
neg_label_logit     -F_y (Li & Li 2025, Sec. 2.5)
margin              F_r - F_y
cross_entropy       -log softmax(F)_y
dlr                 -(F_y - F_r) / (F_pi1 - F_pi3)                                   k >= 3
targeted_margin     F_t - F_y
targeted_cross_entropy  log softmax(F)_t
targeted_dlr        -(F_y - F_t) / (F_pi1 - (F_pi3 + F_pi4) / 2)                     k >= 4
==================  ==============================================================  ========

With targets t, one of the first four is that of the label t with the opposite sign: margin is F_t - max_{j != t} F_j.
DLR: Croce & Hein 2020, arXiv:2003.01690.  It is 0/0 where the three (four) largest logits are equal, and there an
untargeted sample's margin is <= 0 already; its value is then defined as 0 and its gradient as the margin's.
"""

from typing import Literal, get_args

import numpy as np

from ..kernels import CROSS_ENTROPY, formulas
from . import checks

Untargeted = Literal["neg_label_logit", "margin", "cross_entropy", "dlr"]
Targeted = Literal["targeted_margin", "targeted_cross_entropy", "targeted_dlr"]
Objective = Literal[Untargeted, Targeted]
UNTARGETED: tuple[str, ...] = get_args(Untargeted)
TARGETED: tuple[str, ...] = get_args(Targeted)
OBJECTIVES = UNTARGETED + TARGETED
CLASSES = {"dlr": 3, "targeted_dlr": 4}  # the fewest


def form(name: str, all_targets: bool) -> str:
    """The objective that is used when every class is a target in turn: the targeted form."""
    if all_targets and name in UNTARGETED:
        if name == "neg_label_logit":
            raise ValueError(f"objective = {name!r}: has no targeted form for all_targets; choose 'margin'")
        return f"targeted_{name}"
    return name


def check(name: str, n_classes: int, has_targets: bool) -> str:
    checks.choice("objective", name, OBJECTIVES)
    if n_classes < CLASSES.get(name, 2):
        raise ValueError(f"objective = {name!r}: needs at least {CLASSES[name]} classes, but there are {n_classes}")
    if name in TARGETED and not has_targets:
        raise ValueError(f"objective = {name!r}: needs targets; give the threat's targets, or all_targets=True")
    return name


def _at(F, classes):
    return np.take_along_axis(F, classes[..., None], -1)[..., 0]


def _pair(name, F, y, targets):
    """Sign, and the classes (a, b) of F_b - F_a."""
    if name in TARGETED:
        return 1, y, targets
    sign, label = (1, y) if targets is None else (-1, targets)
    return sign, label, formulas.strongest_rival(F, label)


def _spread(name, F):
    """The positive denominator of DLR (R, N), and its gradient (R, N, k)."""
    order = np.argsort(-F, axis=-1, kind="stable")
    weights = (1, 0, -1) if name == "dlr" else (1, 0, -0.5, -0.5)
    D, dD = 0.0, 0.0
    for place, weight in enumerate(weights):
        D = D + weight * _at(F, order[..., place])
        dD = dD + weight * formulas.label_onehot(F, order[..., place])
    return D, dD


def value(name: str, F, y, targets=None) -> np.ndarray:
    """J (R, N)."""
    sign, a, b = _pair(name, F, y, targets)
    if name == "targeted_cross_entropy":
        return -formulas.cross_entropy(F, b)
    if name == "cross_entropy":
        return sign * formulas.cross_entropy(F, a)
    if name == "neg_label_logit":
        return -sign * _at(F, a)
    J = sign * (_at(F, b) - _at(F, a))
    if name in CLASSES:
        with np.errstate(all="ignore"):
            J = J / _spread(name, F)[0]
        J = np.where(np.isfinite(J), J, 0)
    return J


def gradient(name: str, F, y, targets=None) -> np.ndarray:
    """dJ/dF (R, N, k); at ties that of the first class."""
    sign, a, b = _pair(name, F, y, targets)
    if name == "targeted_cross_entropy":
        return -formulas.objective_gradient(F, b, CROSS_ENTROPY)
    if name == "cross_entropy":
        return sign * formulas.objective_gradient(F, a, CROSS_ENTROPY)
    if name == "neg_label_logit":
        return -sign * formulas.label_onehot(F, a)
    C = sign * (formulas.label_onehot(F, b) - formulas.label_onehot(F, a))
    if name in CLASSES:
        D, dD = _spread(name, F)
        with np.errstate(all="ignore"):
            exact = C / D[..., None] - (sign * (_at(F, b) - _at(F, a)) / D**2)[..., None] * dD
        C = np.where(np.isfinite(exact).all(axis=-1, keepdims=True), exact, C)
    return C

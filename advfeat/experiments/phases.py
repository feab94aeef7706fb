"""The two phases of adversarial training (Sec. 5, 6.1), looked for along trainings on real images.

On patches the phases are those of the non-robust correlations.  On images there are no directions, so what counts was
fixed before it was looked for: learning *begins* at the first record at which validation accuracy is halfway between
its first and its last value, robustness at the first one at which the accuracy under PGD is.

- *Phase I* is seen where robustness begins later than learning, the learner comes to see at least 0.1 more of D_NR than
  untrained, and half of the most that it ever does at the record before robustness begins.
- *Phase II* is seen where from then on feature learning accuracy on D_R grows by 0.1 at least, and that on D_NR by less
  than a fifth of as much.
"""

from __future__ import annotations

import numpy as np

from ..theory.events import first_time
from . import images
from .feature_learning import Answers, Evidence

GROWTH = 0.1  # of D_NR that Phase I asks for, and of D_R that Phase II does
RESTRAINED = 0.2  # the share of D_R's growth by which D_NR grows at the most in Phase II


def begins(iteration, values) -> float:
    """The first recorded iteration at which values are halfway between their first and their last."""
    return float(first_time(iteration, (values >= (values[0] + values[-1]) / 2)[:, None])[0])


def rows(experiment, evidence: Evidence, start: str) -> list[dict]:
    """Of every own network: its curves at its record points, seen by strangers' representatives, when learning and
    robustness begin, and of adversarial ones which phases are seen."""
    found = []
    for one in evidence.answers:
        if one.network.kind == "own" and one.network.arm in ("standard", "adversarial"):
            held = images.load(experiment.folder(one.network)).history
            clean, robust = (held.at(f"validation_{name}").values for name in ("accuracy", "robust"))
            found.append(row(one, evidence, start, clean, robust))
    return [one for one in found if one is not None]


def row(one: Answers, evidence: Evidence, start: str, clean, robust) -> dict | None:
    """One network's; None where there is no stranger to it."""
    curves = [evidence.curve(one, arm, start, "stranger") for arm in ("standard", "adversarial")]
    if curves[0] is None or curves[1] is None:
        return None
    non_robust, features = curves
    learning, robustness = begins(one.iteration, clean), begins(one.iteration, robust)
    about = {"network": one.network.name, "arm": one.network.arm, "seed": one.network.seed,
             "iteration": one.iteration.tolist(), "D_NR": non_robust.tolist(), "D_R": features.tolist(),
             "accuracy": clean.tolist(), "robust": robust.tolist(), "learning": learning,
             "robustness": robustness}  # fmt: skip
    if one.network.arm == "standard" or robust[-1] <= robust[0]:
        return about | {"phase_1": None, "phase_2": None}
    at = int(np.searchsorted(one.iteration, robustness))
    before, most = max(at - 1, 0), non_robust.max() - non_robust[0]
    first = robustness > learning and most >= GROWTH and non_robust[before] - non_robust[0] >= most / 2
    growth = features[-1] - features[before], non_robust[-1] - non_robust[before]
    second = growth[0] >= GROWTH and growth[1] < RESTRAINED * growth[0]
    return about | {"phase_1": bool(first), "phase_2": bool(second), "growth_D_R": float(growth[0]),
                    "growth_D_NR": float(growth[1])}  # fmt: skip

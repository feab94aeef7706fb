"""advfeat: a numerical laboratory for feature learning under adversarial training.

The two-layer smoothed-ReLU patch network of Li & Li (ICLR 2025), its data, both of its trainings with closed-form
gradients, attacks, certificates and measurements.  One run or ten thousand: runs are an array axis everywhere.
"""

import typing as _typing
from pathlib import Path as _Path

# `kernels/` and `validation/` stand beside this folder and install inside it.  In a checkout (its root on sys.path)
# they are found where they stand; an installed package has them inside and is left alone.
_root = _Path(__file__).resolve().parent.parent
if not (_root / "advfeat" / "kernels").exists() and all(
    (_root / name / "__init__.py").is_file() for name in ("kernels", "validation")
):
    __path__.append(str(_root))

from . import attacks as attacks  # noqa: E402
from .attacks import APGD, FGSM, PGD, AttackResult, OneStepAscent, Square, ThreatModel  # noqa: E402
from .core._version import __version__ as __version__  # noqa: E402
from .core.store import CheckpointError  # noqa: E402
from .images.feature_attack import FeaturePGD  # noqa: E402
from .patches.attacks import Aligned, FeatureSwap, Rescue, feature_swap, one_step_ascent  # noqa: E402
from .patches.certify import certify, interval_margin, robust_radius  # noqa: E402
from .patches.data import PatchData, PatchDistribution  # noqa: E402
from .patches.features import correlations, feature_learning_accuracy  # noqa: E402
from .patches.network import PatchCNN, SmoothedReLU  # noqa: E402
from .robustness.evaluate import robust_accuracy  # noqa: E402
from .robustness.suite import AttackSuite, SuiteResult  # noqa: E402
from .training.configuration import TrainConfig  # noqa: E402
from .training.loop import DivergenceError, TrainingInterrupted, TrainResult, train  # noqa: E402
from .training.run_folder import load  # noqa: E402

for _attack in (Aligned, FeaturePGD, FeatureSwap, Rescue, feature_swap, one_step_ascent, AttackSuite, SuiteResult):
    setattr(attacks, _attack.__name__, _attack)  # `advfeat.attacks` has all of them, whatever room they need
    attacks.__all__.append(_attack.__name__)

__all__ = [
    "APGD",
    "FGSM",
    "PGD",
    "Aligned",
    "AttackResult",
    "AttackSuite",
    "CheckpointError",
    "DivergenceError",
    "FeaturePGD",
    "FeatureSwap",
    "OneStepAscent",
    "PatchCNN",
    "PatchData",
    "PatchDistribution",
    "Rescue",
    "SmoothedReLU",
    "Square",
    "ThreatModel",
    "TrainConfig",
    "TrainResult",
    "TrainingInterrupted",
    "certify",
    "correlations",
    "feature_learning_accuracy",
    "feature_swap",
    "interval_margin",
    "load",
    "one_step_ascent",
    "robust_accuracy",
    "robust_radius",
    "sweep",
    "train",
]


if _typing.TYPE_CHECKING:
    from .sweeps import sweep
else:  # unseen by type checkers, which would take any name for one that is there

    def __getattr__(name):
        if name == "sweep":  # theory and configuration: not loaded by those who only train
            from .sweeps import sweep

            return sweep
        raise AttributeError(f"module 'advfeat' has no attribute {name!r}")

"""Bad arguments: the type of the error, and a message that names the parameter with its value or the rule."""

import re

import numpy as np
import pytest
from advfeat.kernels import get_engine
from scipy import stats

from advfeat import (
    APGD,
    FGSM,
    PGD,
    Aligned,
    AttackSuite,
    FeatureSwap,
    OneStepAscent,
    PatchCNN,
    PatchData,
    PatchDistribution,
    Rescue,
    SmoothedReLU,
    Square,
    ThreatModel,
    correlations,
    feature_learning_accuracy,
    feature_swap,
    interval_margin,
    one_step_ascent,
    robust_accuracy,
)

RNG = np.random.default_rng(0)
LAW = {"n_classes": 2, "patch_dim": 6, "n_patches": 4, "n_robust": 1, "alpha": 2.0, "beta": 1.0}
DIST = PatchDistribution(**LAW)
DATA = PatchDistribution(**LAW, noise_std=0.3).sample(5, 0)
FIELDS = {"X": DATA.X, "y": np.array([0, 1, 1, 0, 1]), "robust": DATA.robust, "strength": DATA.strength}
FEWER = PatchData(**{name: value[1:] for name, value in FIELDS.items()})
BARE, STACKED = PatchData(**FIELDS), PatchData.stack([DATA, DATA])
BARE_SWAP = {"attacks": ["feature_swap"], "data": BARE}
X, Y, EYE = FIELDS["X"], FIELDS["y"], np.eye(6)
W = RNG.standard_normal((2, 3, 6))
NET, RUNS = PatchCNN(W), PatchCNN(np.stack([W, -W, 2 * W]))
RESULT = robust_accuracy(NET, DATA, eps=0.1)
THREE = RNG.standard_normal((3, 2, 6))
SILENT, SILENT_RUN = {"net": PatchCNN(0 * THREE)}, {"net": PatchCNN(np.stack([THREE, 0 * THREE]))}

SAMPLES = {"net": NET, "X": X, "y": Y}


def attack(by=FGSM("margin"), net=NET, X=X, y=Y, data=None, rng=0, active=None, threat=None, **limits):  # noqa: B008
    """An attack's call as one function."""
    threat = ThreatModel(**{"eps": 0.1, **limits}) if threat is None else threat
    return by(net, (X, y) if data is None else data, threat, rng, active=active)


FINE = {  # arguments that each of these takes without complaint
    PatchDistribution: LAW,
    DIST.sample: {"n": 3, "rng": 0},
    DIST.assumption_2_3: {"exponent": 2},
    PatchData: FIELDS,
    PatchData.stack: {"runs": [DATA, DATA]},
    PatchData.signal: {"self": DATA},
    DATA.representative: {"feature": "robust"},
    SmoothedReLU: {"q": 2, "rho": 0.5},
    PatchCNN: {"W": W},
    PatchCNN.init: {"n_classes": 2, "n_neurons": 3, "patch_dim": 6, "rng": 0},
    PatchCNN.robust_minimum: {"gamma": 1.0, "features": DATA.features},
    get_engine: {"backend": "numpy"},
    correlations: {"net": NET, "features": DATA.features},
    feature_learning_accuracy: {"net": NET, "data": DATA, "feature": "robust"},
    NET.logits: {"X": X},
    NET.predict: {"X": X},
    RUNS.logits: {"X": X},
    NET.loss: {"X": X, "y": Y},
    NET.loss_and_grad: {"X": X, "y": Y},
    NET.margin: {"X": X, "y": Y},
    NET.accuracy: {"X": X, "y": Y},
    NET.input_grad: {"X": X, "y": Y, "objective": "margin"},
    one_step_ascent: {**SAMPLES, "eps": 0.1, "lr": 1.0},
    attack: {},
    ThreatModel: {"eps": 0.1},
    AttackSuite: {"attacks": ["aligned", PGD()]},
    PGD: {"step": 0.1},
    APGD: {},
    FGSM: {},
    Rescue: {"step": 0.1},
    Aligned: {},
    OneStepAscent: {},
    Square: {},
    FeatureSwap: {},
    interval_margin: {**SAMPLES, "eps": 0.1},
    feature_swap: {"data": DATA, "eps": 0.1},
    robust_accuracy: {"model": NET, "data": DATA, "eps": 0.1},
    RESULT.under: {"attack": "aligned"},
}

TABLE = [  # what is called, the argument that is bad, the error and a part of its message
    # ---------------------------------------------------------------- data
    (PatchDistribution, {"patch_dim": 3}, ValueError, "patch_dim = 3: must be >= 2 n_classes = 4"),
    (PatchDistribution, {"n_classes": 1}, ValueError, "n_classes = 1: must be an integer >= 2"),
    (PatchDistribution, {"n_robust": 5}, ValueError, "n_robust = 5: must be <= n_patches = 4"),
    (PatchDistribution, {"n_patches": 0}, ValueError, "n_patches = 0: must be an integer >= 1"),
    (PatchDistribution, {"alpha": stats.norm()}, ValueError, "alpha has support from -inf: must be a law on (0, inf)"),
    (PatchDistribution, {"beta": stats.poisson(1)}, ValueError, "beta has support from 0: must be a law on (0, inf)"),
    (PatchDistribution, {"beta": stats.pareto(0.5)}, ValueError, "must be a law on (0, inf) with finite mean"),
    (PatchDistribution, {"partition": "unifrom"}, ValueError, "'unifrom': unknown; did you mean 'uniform'?"),
    (PatchDistribution, {"positions": [0]}, ValueError, "positions = [0]: only partition = 'fixed' takes positions"),
    (PatchDistribution, {"features": EYE}, ValueError, "must be a pair (u, v) of arrays"),
    (PatchDistribution, {"features": (EYE[:2], EYE[2:5])}, ValueError, "features have shapes (2, 6) and (3, 6): must"),
    (PatchDistribution, {"features": (EYE[:2], EYE[1:3])}, ValueError, "features: must be orthonormal to 1e-8, but"),
    (PatchDistribution, {"features": (EYE[:2], 2 * EYE[2:4])}, ValueError, "<f_i, f_j> is off by 3"),
    (PatchDistribution, {"features": (EYE[:2], np.nan * EYE[2:4])}, ValueError, "<f_i, f_j> is off by nan"),
    (DIST.assumption_2_3, {"exponent": 0}, ValueError, "exponent = 0: must be a number, finite and > 0"),
    (PatchData, {"X": X[0]}, ValueError, "X has shape (4, 6): must be (n, P, d) or (R, n, P, d)"),
    (PatchData, {"y": Y[1:]}, ValueError, "y has shape (4,): must be (5,) for X of shape (5, 4, 6)"),
    (PatchData, {"robust": DATA.robust[:, 1:]}, ValueError, "robust has shape (5, 3): must be (5, 4)"),
    (PatchData, {"strength": DATA.strength[0]}, ValueError, "strength has shape (4,): must be (5, 4)"),
    (PatchData.stack, {"runs": [DATA, FEWER]}, ValueError, "runs of a batch must share one shape"),
    (PatchData.signal, {"self": BARE}, ValueError, "features = None: this needs the data's feature vectors (u, v)"),
    (DATA.representative, {"feature": "rubust"}, ValueError, "feature = 'rubust': unknown; did you mean 'robust'?"),
    # ---------------------------------------------------------------- network
    (SmoothedReLU, {"q": 1}, ValueError, "q = 1: must be an integer >= 2"),
    (SmoothedReLU, {"rho": 0}, ValueError, "rho = 0: must be a number, finite and > 0"),
    (PatchCNN, {"q": 1}, ValueError, "q = 1: must be an integer >= 2"),
    (PatchCNN, {"rho": 0.0}, ValueError, "rho = 0.0: must be a number, finite and > 0"),
    (PatchCNN, {"W": W * np.nan}, ValueError, "W holds NaN or infinite values: every weight must be finite"),
    (PatchCNN, {"W": W + np.inf}, ValueError, "W holds NaN or infinite values: every weight must be finite"),
    (PatchCNN, {"W": W.astype(int)}, TypeError, "W has dtype int64: must be float32 or float64"),
    (PatchCNN, {"W": W.astype("float16")}, TypeError, "W has dtype float16: must be float32 or float64"),
    (PatchCNN, {"W": W[0]}, ValueError, "W has shape (3, 6): must be (k, m, d) or (R, k, m, d) with k >= 2"),
    (PatchCNN, {"W": W[:1]}, ValueError, "W has shape (1, 3, 6): must be (k, m, d) or (R, k, m, d) with k >= 2"),
    (PatchCNN, {"W": W[:, :0]}, ValueError, "W has shape (2, 0, 6): must be (k, m, d) or (R, k, m, d) with k >= 2"),
    (PatchCNN, {"backend": "nunba"}, ValueError, "backend = 'nunba': must be one of ('numba', 'numpy', 'cupy',"),
    (get_engine, {"backend": "cuda"}, ValueError, "backend = 'cuda': must be one of"),
    (PatchCNN.init, {"init_std": -1}, ValueError, "init_std = -1: must be a number, finite and >= 0"),
    (PatchCNN.robust_minimum, {"gamma": np.nan}, ValueError, "gamma = nan: must be a number, finite"),
    (correlations, {"features": (EYE[:3], EYE[3:])}, ValueError, "shapes (3, 6) and (3, 6): must both be"),
    (feature_learning_accuracy, {"feature": "nonrobust"}, ValueError, "did you mean 'non_robust'?"),
    # ---------------------------------------------------------------- inputs, labels, objectives
    (NET.logits, {"X": X.astype(int)}, TypeError, "X has dtype int64: must be float32 or float64"),
    (NET.logits, {"X": X[0]}, ValueError, "X has shape (4, 6): must be (N, P, 6)"),
    (NET.logits, {"X": X[:0]}, ValueError, "X has shape (0, 4, 6): no axis may be empty"),
    (NET.logits, {"X": X[:, :0]}, ValueError, "X has shape (5, 0, 6): no axis may be empty"),
    (NET.logits, {"X": X[..., 1:]}, ValueError, "must be (N, P, 6)"),
    (NET.predict, {"X": np.where(X > 1, np.inf, X)}, ValueError, "X holds NaN or infinite values: every entry must be"),
    (RUNS.logits, {"X": np.stack([X, X])}, ValueError, "X has shape (2, 5, 4, 6): must be (N, P, 6) or (3, N, P, 6)"),
    (NET.loss, {"y": Y + 1}, ValueError, "y holds 2: labels must be in 0..1"),
    (NET.loss_and_grad, {"y": Y - 1}, ValueError, "y holds -1: labels must be in 0..1"),
    (NET.margin, {"y": Y * 1.0}, TypeError, "y has dtype float64: must be integers"),
    (NET.accuracy, {"y": Y > 0}, TypeError, "y has dtype bool: must be integers"),
    (NET.loss, {"y": Y[0]}, ValueError, "y has shape (): must hold one label for each of the 5 samples of X"),
    (NET.loss, {"y": np.stack([Y, Y])}, ValueError, "y has shape (2, 5): must hold one label for each of"),
    (NET.input_grad, {"objective": "margins"}, ValueError, "objective = 'margins': unknown; did you mean 'margin'?"),
    (NET.input_grad, {"objective": "dlr"}, ValueError, "choose from 'neg_label_logit', 'margin', 'cross_entropy'"),
    (one_step_ascent, {"objective": "margn"}, ValueError, "objective = 'margn': unknown; did you mean 'margin'?"),
    (PGD, {"objective": "neg_logit"}, ValueError, "objective = 'neg_logit': unknown; did you mean 'neg_label_logit'?"),
    (FGSM, {"objective": "dir"}, ValueError, "objective = 'dir': unknown; did you mean 'dlr'?"),
    (APGD, {"objective": "target_dlr"}, ValueError, "'target_dlr': unknown; did you mean 'targeted_dlr'?"),
    # ---------------------------------------------------------------- attacks and measures
    (attack, {"by": FGSM("dlr")}, ValueError, "objective = 'dlr': needs at least 3 classes, but there are 2"),
    (attack, {"by": APGD("dlr", all_targets=True)}, ValueError, "'targeted_dlr': needs at least 4 classes"),
    (attack, {"by": PGD("dlr"), **SILENT}, ValueError, "objective = 'dlr': all logits are 0 on every sample (0/0)"),
    (attack, {"by": PGD("dlr"), **SILENT_RUN}, ValueError, "'dlr': all logits of run 1 are 0 on every sample (0/0)"),
    (attack, {"by": PGD("targeted_margin")}, ValueError, "objective = 'targeted_margin': needs targets; give the"),
    (PGD, {"objective": "neg_label_logit", "all_targets": True}, ValueError, "has no targeted form for all_targets"),
    (attack, {"by": PGD(all_targets=True), "targets": 1 - Y}, ValueError, "all_targets = True: attacks every class"),
    (attack, {"targets": Y}, ValueError, "targets: must differ from the labels, but 5 do not"),
    (attack, {"targets": Y - 1}, ValueError, "targets hold -1: they must be in 0..1"),
    (attack, {"targets": 2 - Y}, ValueError, "targets hold 2: they must be in 0..1"),
    (attack, {"targets": 1.0 - Y}, TypeError, "targets has dtype float64: must be integers"),
    (attack, {"targets": Y[1:]}, ValueError, "targets has shape (4,): must be (5,)"),
    (attack, {"active": Y}, TypeError, "active has dtype int64: must be bool"),
    (attack, {"active": Y[1:] > 0}, ValueError, "active has shape (4,): must be (5,)"),
    (attack, {"box": (0, 1)}, ValueError, "box = (0, 1): the clean inputs must lie in it, but reach from -"),
    (ThreatModel, {"box": (1, 0)}, ValueError, "box = (1, 0): must have lo < hi"),
    (ThreatModel, {"box": 1}, ValueError, "box = 1: must be a pair (lo, hi)"),
    (ThreatModel, {"box": (0, np.nan)}, ValueError, "box = nan: must be a number, finite"),
    (ThreatModel, {"norm": "linff"}, ValueError, "norm = 'linff': unknown; did you mean 'linf'?"),
    (ThreatModel, {"budget": "patches"}, ValueError, "budget = 'patches': unknown; did you mean 'patch'?"),
    (ThreatModel, {"eps": [0.1, -0.1]}, ValueError, "eps = -0.1: must be a number, finite and >= 0"),
    (attack, {"eps": [0.1, 0.2]}, ValueError, "eps has shape (2,): must be one number, one per sample (5,)"),
    (attack, {"net": RUNS, "eps": [1, 2]}, ValueError, "must be one number, one per run (3,) or one per sample (3, 5)"),
    (attack, {"net": RUNS, "eps": np.ones(5)}, ValueError, "eps has shape (5,): must be one number, one per run (3,)"),
    (attack, {"net": RUNS, "rng": [1, 2]}, ValueError, "rng = [1, 2]: must be an integer >= 0, or one per run (3,)"),
    (attack, {"threat": "linf"}, TypeError, "threat = 'linf': must be a ThreatModel"),
    (attack, {"data": X}, TypeError, "data is a ndarray: must have X, y, arrays and directions, or be a pair (X, y)"),
    (attack, {"X": X[:0], "y": Y[:0]}, ValueError, "X has shape (0, 4, 6): no axis may be empty"),
    (attack, {"by": FeatureSwap()}, ValueError, "data have no 'robust': the feature swap needs a PatchData"),
    (attack, {"by": FeatureSwap(), "data": BARE}, ValueError, "features = None: the feature swap needs data that know"),
    (attack, {"by": OneStepAscent(-1.0)}, ValueError, "lr = -1.0: must be a number, finite and >= 0"),
    (attack, {"by": OneStepAscent([1.0, 2.0])}, ValueError, "lr has shape (2,): must be one number or one per run"),
    (AttackSuite, {"attacks": ["aligne"]}, ValueError, "attack = 'aligne': unknown; did you mean 'aligned'?"),
    (AttackSuite, {"attacks": "aligned"}, ValueError, "attacks = 'aligned': must be a sequence of one attack or more"),
    (AttackSuite, {"attacks": []}, ValueError, "attacks = []: must be a sequence of one attack or more"),
    (AttackSuite, {"attacks": [PGD(), PGD()]}, ValueError, "['pgd_margin', 'pgd_margin']: names must differ"),
    (AttackSuite, {"attacks": [PGD]}, TypeError, "each must be an Attack or a name"),
    (PGD, {"step": 0.0}, ValueError, "step = 0.0: must be a number, finite and > 0"),
    (Rescue, {"step": 0.0}, ValueError, "step = 0.0: must be a number, finite and > 0"),
    (PGD, {"momentum": 1.0}, ValueError, "momentum = 1.0: must be < 1"),
    (PGD, {"momentum": -0.1}, ValueError, "momentum = -0.1: must be a number, finite and >= 0"),
    (PGD, {"schedule": "cosin"}, ValueError, "schedule = 'cosin': unknown; did you mean 'cosine'?"),
    (PGD, {"all_targets": "yes"}, ValueError, "all_targets = 'yes': must be True or False"),
    (APGD, {"rho": 1.0}, ValueError, "rho = 1.0: must be < 1"),
    (Square, {"p_init": 1.5}, ValueError, "p_init = 1.5: must be <= 1"),
    (one_step_ascent, {"net": RUNS, "lr": [1, 2]}, ValueError, "lr has shape (2,): must be one number or one per run"),
    (feature_swap, {"data": BARE}, ValueError, "features = None: the feature swap needs data that know their features"),
    (feature_swap, {"norm": "l3"}, ValueError, "norm = 'l3': unknown; did you mean 'l2'?"),
    (robust_accuracy, {"budget": "globl"}, ValueError, "budget = 'globl': unknown; did you mean 'global'?"),
    (robust_accuracy, {"certificate": "linaer"}, ValueError, "'linaer': unknown; did you mean 'linear'?"),
    (robust_accuracy, {"norm": "l_2"}, ValueError, "norm = 'l_2': unknown; did you mean 'l2'?"),
    (robust_accuracy, {"attacks": ["aligne"]}, ValueError, "attack = 'aligne': unknown; did you mean 'aligned'?"),
    (robust_accuracy, {"attacks": ["fgsm"]}, ValueError, "attack = 'fgsm': unknown; choose from 'feature_swap'"),
    (robust_accuracy, {"attacks": ["one_step"]}, ValueError, "attack 'one_step' needs ascent_lr"),
    (robust_accuracy, BARE_SWAP, ValueError, "attack 'feature_swap' needs the data's features"),
    (robust_accuracy, {"data": STACKED}, ValueError, "X has shape (2, 5, 4, 6): must be (N, P, 6)"),
    (RESULT.under, {"attack": "pgd_margin"}, ValueError, "attack = 'pgd_margin': runs only on what the others left"),
    (RESULT.under, {"attack": "alined"}, ValueError, "attack = 'alined': unknown; did you mean 'aligned'?"),
]

POSITIVE, NOT_NEGATIVE = "must be a number, finite and > 0", "must be a number, finite and >= 0"
NUMBERS = [(PatchDistribution, "alpha", POSITIVE), (PatchDistribution, "beta", POSITIVE), (PatchCNN, "rho", POSITIVE)]
NUMBERS += [(PatchDistribution, "noise_std", NOT_NEGATIVE), (one_step_ascent, "lr", NOT_NEGATIVE)]
ATTACKS = (one_step_ascent, attack, interval_margin)
NUMBERS += [(function, "eps", NOT_NEGATIVE) for function in (*ATTACKS, ThreatModel, feature_swap, robust_accuracy)]
TABLE += [
    (function, {name: value}, ValueError, f"{name} = {value!r}: {rule}")
    for function, name, rule in NUMBERS
    for value in (float("nan"), float("inf"), -1.0, True, "1", 1j)
]

INTEGERS = [(PatchDistribution, name) for name in ("n_classes", "patch_dim", "n_patches", "n_robust")]
INTEGERS += [(DIST.sample, "n"), (PatchCNN.init, "n_neurons"), (PatchCNN.robust_minimum, "n_neurons")]
INTEGERS += [(PatchCNN, "q"), (one_step_ascent, "n_steps"), (OneStepAscent, "n_steps"), (Aligned, "n_leaders")]
INTEGERS += [(one, name) for one in (PGD, APGD, Rescue, Square) for name in ("n_steps", "n_restarts")]
TABLE += [
    (function, {name: value}, ValueError, f"{name} = {value!r}: must be an integer >= ")
    for function, name in INTEGERS
    for value in (True, 1.0, -1, "2", None)
]
TABLE += [
    (function, {"rng": value}, ValueError, f"rng = {value!r}: must be an integer >= 0")
    for function in (robust_accuracy, feature_swap)
    for value in (True, 1.0, -1, "2", None)
]
TABLE += [(one_step_ascent, {"norm": "l1"}, ValueError, "norm = 'l1': unknown; did you mean 'l2'?")]
for function in ATTACKS:
    TABLE += [
        (function, {"X": X * np.nan}, ValueError, "X holds NaN or infinite values: every entry must be finite"),
        (function, {"X": X.astype(int)}, TypeError, "X has dtype int64: must be float32 or float64"),
        (function, {"X": X[None]}, ValueError, "X has shape (1, 5, 4, 6): must be (N, P, 6)"),
        (function, {"y": Y + 2}, ValueError, "y holds 2: labels must be in 0..1"),
        (function, {"y": Y * 1.0}, TypeError, "y has dtype float64: must be integers"),
        (function, {"y": Y[1:]}, ValueError, "y has shape (4,): must hold one label for each of the 5 samples of X"),
    ]


def name_of(value):
    return value.__qualname__ if callable(value) else "-".join(value) if isinstance(value, dict) else ""


@pytest.mark.parametrize(("function", "bad", "error", "message"), TABLE, ids=name_of)
def test_bad_arguments_are_named(function, bad, error, message):
    with pytest.raises(error, match=re.escape(message)):
        function(**{**FINE[function], **bad})


@pytest.mark.parametrize(
    ("bad", "n_robust"), [([4], 1), ([-1], 1), ([0, 1], 1), ([0, 0], 2), ([], 1), ([0.5], 1), ([[0]], 1)], ids=str
)
def test_fixed_positions_are_different_patches(bad, n_robust):
    message = f"positions = {bad}: must be n_robust = {n_robust} different patches in 0..3"
    with pytest.raises(ValueError, match=re.escape(message)):
        PatchDistribution(**{**LAW, "n_robust": n_robust}, partition="fixed", positions=bad)


@pytest.mark.parametrize("function", FINE, ids=name_of)
def test_nothing_is_wrong_with_the_other_arguments(function):
    function(**FINE[function])

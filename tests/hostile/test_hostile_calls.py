"""Public calls given what they cannot take: one table of fine calls, one of what is wrong for a kind of parameter.

Each case replaces one argument of a fine call; for one parameter no rule stands twice.
"""

import inspect
from functools import partial

import numpy as np
import pytest
from refusals import faults
from scipy import stats

import advfeat as af
from advfeat import images, theory
from advfeat.images import data as image_data
from advfeat.sweeps import SweepSpec, sweep
from advfeat.training import Measurement

LAW = {"n_classes": 2, "patch_dim": 6, "n_patches": 4, "n_robust": 1, "alpha": 2.0, "beta": 1.0}
DIST = af.PatchDistribution(**LAW, noise_std=0.3)
DATA = DIST.sample(5, 0)
X, Y = DATA.X, np.array([0, 1, 1, 0, 1])
NET = af.PatchCNN(np.random.default_rng(0).standard_normal((2, 3, 6)))
SUITE, CONFIG = af.AttackSuite(["aligned"]), af.TrainConfig(lr=0.1, n_iter=2)
STATE = theory.State.from_weights(NET.W, DATA.features)
TYPES = theory.population_types(2, 4, 1, 2.0, 1.0)
ORDER = theory.LeadingOrder(n_classes=2, n_robust=1, n_nonrobust=3, alpha=2.0, beta=1.0, q=3, rho=1.0, lr=0.1)
A0, NOISE = np.full(3, 0.1), np.random.default_rng(1).standard_normal(X.shape)
LAYERS = images.ConvNet(2, (1, 8, 8))
IMAGES = np.random.default_rng(0).random((4, 1, 8, 8)).astype(np.float32), np.array([0, 1, 2, 9])
SPEC = {"base": {"n_iter": 20}, "axes": {"alpha": [1.5, 2.0]}}
NAN, INF = float("nan"), float("inf")


class Thing:
    """Of no use to anybody."""

    def __repr__(self):
        return "<thing>"


# ------------------------------------------------------------------ what is wrong for a kind of parameter
def whole(low=1, high=None, **more):
    wrong = {"nothing": None, "text": "2", "fraction": 1.5, "range": low - 1, "several": [low + 1], "truth": True}
    return wrong | ({} if high is None else {"huge": high + 1}) | more


def number(low=None, above=None, **more):
    wrong = {"nothing": None, "text": "1", "nan": NAN, "infinite": INF, "complex": 1j, "thing": Thing(),
     "truth": True}
    wrong |= {} if low is None else {"range": low - 1}
    return wrong | ({} if above is None else {"range": above}) | more


def per_run(**rule):
    return number(**rule) | {"empty": [], "shape": [[0.5, 0.5]], "entry": [NAN], "texts": ["a"]}


def choice(**more):
    return {"nothing": None, "unknown": "zzz", "number": 3, "list": ["linf"], "table": {}} | more


def thing(**more):
    return {"nothing": None, "number": 3, "text": "zzz", "thing": Thing(), "table": {}} | more


TRUTH = {"nothing": None, "text": "yes", "number": 2, "list": []}
RNG = {"nothing": None, "text": "2", "fraction": 1.5, "negative": -1, "truth": True, "empty": []}
CALLBACK = {"number": 3, "text": "zzz"}
SECONDS = number(low=0) | {"nothing": [None], "list": [1.0]}
PATH = {"nothing": None, "number": 3, "list": ["a"], "thing": Thing()}


def floats(good, **more):
    """An array of float32 or float64."""
    good = np.asarray(good)
    spoiled, infinite = good.copy(), good.copy()
    spoiled.flat[0], infinite.flat[-1] = np.nan, np.inf
    return {
        "nothing": None, "number": 1.0, "text": "zzz", "whole": good.astype(int), "complex": good.astype(complex),
        "object": good.astype(object), "texts": good.astype(str), "fewer axes": good[0], "more axes": good[None,
        None, None],
        "empty": good[:0], "nan": spoiled, "infinite": infinite, "ragged": [[1.0], [1.0, 2.0]], "table": {"a": 1},
    } | more  # fmt: skip


def labels(good, **more):
    return {
        "nothing": None, "number": 1, "text": "zzz", "float": good.astype(float), "complex": good.astype(complex),
        "object": good.astype(object), "truth": good > 0, "fewer": good[1:], "more axes": good[None, None],
        "empty": good[:0], "negative": good - 1, "large": good + 20, "ragged": [[1], [1, 0]],
    } | more  # fmt: skip


def features():
    u, v = DATA.features
    return {"nothing": None, "number": 3, "one": (u,), "shapes": (u, v[:, 1:]), "not orthonormal": (u, 2 * v),
            "nan": (u, v * NAN), "text": "uv", "three": (u, v, u)}  # fmt: skip


ARRAY = {"nothing": None, "text": "zzz", "complex": A0.astype(complex), "object": np.array([None, 1]),
     "nan": A0 * NAN,
         "ragged": [[1.0], [1.0, 2.0]]}  # fmt: skip
EPS, RATE, NORM = per_run(low=0), per_run(above=0), choice()
PATCHES = {"X": floats(X), "y": labels(Y)}
ASCENT = {"objective": choice(), "norm": NORM, "n_ascent": whole(high=10_000)}
LONG = {"progress": CALLBACK, "time_limit": SECONDS}
POINT = {"A0": ARRAY, "B0": ARRAY}
STRENGTHS = number(above=0) | {"law": stats.norm(), "list": [1.0]}
SHAPES = {"width": whole(), "image_shape": {"nothing": None, "number": 3, "two": (3, 32), "zero": (3, 0, 3)},
          "n_classes": whole(2), "dtype": choice(), "backend": choice(), "rng": RNG}  # fmt: skip
WINDOW = {"alpha": number(above=0), "beta": number(above=0), "n_patches": whole(), "n_robust": whole(0, 4)}

#: What is called: fine arguments, and for each of its parameters what is wrong for it.
CALLS = [
    ("PatchDistribution", af.PatchDistribution, LAW,
     {"n_classes": whole(2), "patch_dim": whole(), "n_patches": whole(), "n_robust": whole(0, 4), "alpha": STRENGTHS,
      "beta": STRENGTHS, "noise_std": number(low=0), "partition": choice(), "shared_strengths": TRUTH,
      "features": features() | {"nothing": ()}}),
    ("fixed positions", partial(af.PatchDistribution, **LAW, partition="fixed"), {},
     {"positions": {"text": "a", "outside": [4], "two": [0, 1], "fraction": [0.5], "number": 0}}),
    ("sample", DIST.sample, {"n": 3, "rng": 0}, {"n": whole(), "rng": RNG, "balanced": TRUTH}),
    ("sample_types", DIST.sample_types, {"n": 3, "rng": 0}, {"n": whole(), "rng": RNG, "balanced": TRUTH}),
    ("assumption_2_3", DIST.assumption_2_3, {}, {"exponent": number(above=0)}),
    ("PatchData", af.PatchData, {"X": X, "y": Y, "robust": DATA.robust, "strength": DATA.strength},
     {"X": {"nothing": None, "axes": X[0], "text": "zzz"}, "y": {"nothing": None, "fewer": Y[1:], "text": "zzz"},
      "robust": {"nothing": None, "fewer": DATA.robust[1:]}, "strength": {"nothing": None,
      "axes": DATA.strength[0]}}),
    ("stack", af.PatchData.stack, {"runs": [DATA]}, {"runs": thing(empty=[])}),
    ("representative", DATA.representative, {"feature": "robust"}, {"feature": choice()}),
    ("PatchData.astype", DATA.astype, {"dtype": "float32"}, {"dtype": choice(whole="int64")}),
    # ---------------------------------------------------------------- networks
    ("SmoothedReLU", af.SmoothedReLU, {"q": 2, "rho": 1.0}, {"q": whole(2, 100), "rho": number(above=0)}),
    ("PatchCNN", af.PatchCNN, {"W": NET.W},
     {"W": floats(NET.W), "q": whole(2, 100), "rho": number(above=0), "backend": choice()}),
    ("init", af.PatchCNN.init, {"n_classes": 2, "n_neurons": 3, "patch_dim": 6, "rng": 0},
     {"n_classes": whole(2), "n_neurons": whole(huge=10**30), "patch_dim": whole(huge=10**30), "rng": RNG,
      "init_std": number(low=0) | {"nothing": "0.1"}, "dtype": choice(whole="int64"), "q": whole(2, 100),
      "backend": choice()}),
    ("robust_minimum", af.PatchCNN.robust_minimum, {"gamma": 1.0, "features": DATA.features},
     {"gamma": number(), "features": features(), "n_neurons": whole(huge=10**30)}),
    ("nonrobust_minimum", af.PatchCNN.nonrobust_minimum, {"gamma": 1.0, "features": DATA.features},
     {"gamma": number(), "features": features(), "n_neurons": whole()}),
    ("with_weights", NET.with_weights, {"W": NET.W}, {"W": floats(NET.W)}),
    ("astype", NET.astype, {"dtype": "float32"}, {"dtype": choice(whole="int64")}),
    ("run", NET.run, {"r": 0}, {"r": {"nothing": None, "text": "0", "range": 1, "fraction": 0.5}}),
    ("logits", NET.logits, {"X": X}, {"X": floats(X)}),
    ("predict", NET.predict, {"X": X}, {"X": floats(X)}),
    *((name, getattr(NET, name), {"X": X, "y": Y}, PATCHES) for name in ("loss", "loss_and_grad", "margin",
     "accuracy")),
    ("input_grad", NET.input_grad, {"X": X, "y": Y}, PATCHES | {"objective": choice()}),
    ("pull_back", NET.pull_back, {"X": X, "C": np.ones((5, 2))}, {"X": floats(X), "C": floats(np.ones((5, 2)),
     whole="a")}),
    ("correlations", af.correlations, {"net": NET, "features": DATA.features}, {"net": thing(),
     "features": {name: value for name, value in features().items() if name != "not orthonormal"}}),
    ("feature_learning_accuracy", af.feature_learning_accuracy, {"net": NET, "data": DATA, "feature": "robust"},
     {"net": thing(), "data": thing(pair=(X, Y)), "feature": choice()}),
    ("PatchCNN.load", af.PatchCNN.load, {"path": "nowhere.npz"}, {"path": PATH}),
    ("PatchCNN.save", NET.save, {"path": "/dev/null/x"}, {"path": PATH}),
    # ---------------------------------------------------------------- training
    ("TrainConfig", af.TrainConfig, {"lr": 0.1, "n_iter": 3},
     {"lr": RATE, "n_iter": whole(0, 10**12), "seed": whole(0, empty=[], huge=2**64) | {"several": [[1]]},
     "momentum": number(low=0) | {"one": 1.0},
      "drops": {"number": 0.5, "text": "a", "nan": [NAN]}, "batch_size": whole() | {"nothing": "x"}}),
    ("adversarial TrainConfig", partial(af.TrainConfig, adversarial=True), {"lr": 0.1, "n_iter": 3, "ascent_lr": 1.0,
     "eps": 0.1},
     {"ascent_lr": RATE, "eps": EPS, **ASCENT}),
    ("train", af.train, {"net": NET, "data": DATA, "config": CONFIG},
     {"net": thing(), "data": thing(one=X, three=(X, Y, Y)), "config": thing(), "test": thing(nothing=0),
     "metrics": CALLBACK,
      "run_dir": PATH | {"nothing": 1.5}, "progress": CALLBACK, "diverged": choice()}),
    ("train: rates of two runs", lambda lr: af.train(NET, DATA, af.TrainConfig(lr=lr, n_iter=1)), {"lr": 1.0},
     {"lr": {"two": [0.1, 0.2], "float32": [0.0]}}),
    ("Measurement", Measurement, {"measure": len, "every": 2}, {"measure": {"nothing": None, "number": 3},
     "every": whole()}),
    ("load", af.load, {"run_folder": "nowhere"}, {"run_folder": PATH, "kinds": {"number": 3, "list": [1]}}),
    # ---------------------------------------------------------------- attacks
    ("ThreatModel", af.ThreatModel, {}, {"norm": choice(), "eps": per_run(low=0) | {"shape": [["a"]], "empty": []},
     "budget": choice(),
     "box": {"number": 1, "reversed": (1, 0), "nan": (0, NAN), "text": "ab", "three": (0, 1, 2)}}),
    *((one.__name__, one, {}, {name: rule for name, rule in {
        "objective": choice(), "n_steps": whole(high=10**12), "n_restarts": whole(high=10**12),
        "step": number(above=0) | {"nothing": "a"},
        "momentum": number(low=0), "all_targets": TRUTH, "name": {"number": 3, "list": []}, "n_leaders": whole(),
        "p_init": number(above=0),
        "rho": number(above=0), "schedule": choice()}.items() if name in inspect.signature(one).parameters})
      for one in (af.PGD, af.APGD, af.FGSM, af.Rescue, af.Aligned, af.OneStepAscent, af.Square, af.FeatureSwap)),
    ("attack", af.FGSM(), {"model": NET, "data": DATA, "threat": af.ThreatModel()},
     {"model": thing(), "data": thing(one=X), "threat": thing(), "rng": RNG,
      "active": {"whole": Y, "fewer": Y[1:] > 0, "text": "a"}, **LONG}),
    ("AttackSuite", af.AttackSuite, {"attacks": ["aligned"]}, {"attacks": thing(unknown=["zzz"], empty=[],
     inner=[3]), "stop_early": TRUTH}),
    ("suite", SUITE, {"model": NET, "data": DATA, "threat": af.ThreatModel()},
     {"model": thing(), "data": thing(one=X), "threat": thing(), "rng": RNG, "active": {"whole": Y,
     "fewer": Y[1:] > 0}, **LONG}),
    ("one_step_ascent", af.one_step_ascent, {"net": NET, "X": X, "y": Y, "lr": 1.0, "eps": 0.1},
     PATCHES | {"net": thing(), "lr": per_run(low=0), "eps": EPS, "objective": choice(), "norm": NORM,
     "n_steps": whole()}),
    ("feature_swap", af.feature_swap, {"data": DATA, "eps": 0.1}, {"data": thing(pair=(X, Y)), "eps": EPS,
     "norm": NORM, "rng": RNG}),
    ("interval_margin", af.interval_margin, {"net": NET, "X": X, "y": Y, "eps": 0.1}, PATCHES | {"net": thing(),
     "eps": EPS, "norm": NORM}),
    ("certify", af.certify, {"net": NET, "X": X, "y": Y, "eps": 0.1},
     PATCHES | {"net": thing(), "eps": EPS, "norm": NORM, "budget": choice(), "method": choice(),
     "max_nodes": whole() | {"nothing": "a"},
                "active": {"whole": Y, "fewer": Y[1:] > 0}, **LONG}),
    ("robust_radius", af.robust_radius, {"net": NET, "X": X, "y": Y},
     PATCHES | {"net": thing(), "norm": NORM, "budget": choice(), "method": choice(),
     "max_nodes": whole() | {"nothing": "a"},
     "rtol": number(above=0),
                "high": per_run(low=0) | {"nothing": "a"}, **LONG}),
    ("robust_accuracy", af.robust_accuracy, {"model": NET, "data": DATA, "eps": 0.1},
     {"model": thing(), "data": thing(one=X), "eps": EPS, "norm": choice(), "budget": choice(),
     "certificate": choice(), "max_nodes": whole() | {"nothing": "a"},
      "attacks": thing(unknown=["zzz"], nothing="zz"), "n_steps": whole(), "n_restarts": whole(), "rng": RNG,
      "box": {"number": 1, "reversed": (1, 0)}, **LONG}),
    # ---------------------------------------------------------------- theory
    ("growth_rate", theory.growth_rate, {"strength": 2.0, "n_patches": 3, "n_classes": 2, "q": 3, "rho": 1.0,
     "lr": 0.1},
     {"strength": number(above=0), "n_patches": whole(0) | {"several": ["a"]},
     "n_classes": whole(2) | {"several": ["a"]}, "q": whole(2, 100) | {"several": ["a"]}, "rho": number(above=0),
     "lr": number(above=0)}),
    ("flow_time", theory.flow_time, {"start": 0.1, "level": 1.0, "kappa": 1.0, "q": 3},
     {"start": number(), "level": number(above=0) | {"infinite": [INF, NAN], "truth": [True, "a"]},
     "kappa": number(low=0), "q": whole(2, 100) | {"several": ["a"]}}),
    ("plateau", theory.plateau, {"beta": 1.0, "q": 3, "rho": 1.0, "ascent_lr": 1.0},
     {"beta": number(above=0), "q": whole(2, 100), "rho": number(above=0), "ascent_lr": number(above=0)}),
    ("phase_two_started", theory.phase_two_started, {"B": A0, "beta": 1.0, "q": 3, "rho": 1.0, "ascent_lr": 1.0},
     {"B": ARRAY | {"nan": {}}, "beta": number(above=0), "q": whole(2, 100), "rho": number(above=0),
     "ascent_lr": number(above=0)}),
    ("density_ratio", theory.density_ratio, {"alpha": 2.0, "beta": 1.0, "n_patches": 4, "n_robust": 1},
     WINDOW | {"exponent": number(above=0)}),
    ("robust_window", theory.robust_window, {"alpha": 2.0, "beta": 1.0, "n_patches": 4, "n_robust": 1},
     WINDOW | {"q": whole(2, 100, zero=0)}),
    ("find_window", theory.find_window, {"alpha": 2.0, "beta": 1.0, "n_patches": 4, "n_robust": 1, "q": 3,
     "rho": 1.0},
     WINDOW | {"q": whole(2, 100), "rho": number(above=0), "norm": choice(), "strength": {"text": "a",
     "complex": 1j}}),
    ("contradiction", theory.contradiction, {"alpha": 2.0, "beta": 1.0, "eps": 0.5, "n_patches": 4, "n_robust": 1},
     WINDOW | {"eps": number(above=0), "q": whole(2, 100)}),
    ("State.draw", theory.State.draw, {"n_classes": 2, "n_neurons": 3, "patch_dim": 6, "rng": 0},
     {"n_classes": whole(2), "n_neurons": whole(huge=10**30), "patch_dim": whole(huge=10**30), "rng": RNG,
     "init_std": number(low=0) | {"nothing": "a"}}),
    ("State.from_weights", theory.State.from_weights, {"W": NET.W, "features": DATA.features}, {"W": floats(NET.W,
     whole="a"), "features": features()}),
    ("simulate", theory.simulate, {"state": STATE, "types": TYPES, "q": 3, "rho": 1.0, "lr": 0.1, "n_iter": 3,
     "ascent_lr": 1.0, "eps": 0.1},
     {"state": thing(), "types": thing(), "q": whole(2, 100), "rho": RATE, "lr": RATE, "n_iter": whole(0,
     huge=10**30), "ascent_lr": RATE, "eps": EPS,
      **ASCENT, "record_every": whole() | {"nothing": "a"}, "after_saturation": choice(), "risk": number(low=0),
      "backend": choice(), **LONG}),
    ("empirical_types", theory.empirical_types, {"y": Y, "robust": DATA.robust, "strength": DATA.strength,
     "n_classes": 2},
     {"y": {"nothing": None, "float": Y * 1.0, "negative": Y - 1, "fewer": Y[1:]}, "robust": {"nothing": None,
     "whole": DATA.strength, "fewer": DATA.robust[1:], "text": "a"},
      "strength": {"nothing": None, "nan": DATA.strength * NAN, "text": "a", "complex": DATA.strength + 1j},
      "n_classes": whole(2)}),
    ("population_types", theory.population_types, {"n_classes": 2, "n_patches": 4, "n_robust": 1, "alpha": 2.0,
     "beta": stats.uniform(1, 2)},
     {"n_classes": whole(2), "n_patches": whole(), "n_robust": whole(0, 4), "alpha": STRENGTHS, "beta": STRENGTHS,
     "partition": choice(), "shared": TRUTH,
      "n_points": whole(odd=3), "seeds": {"nothing": None, "text": "a", "negative": [-1], "empty": []}}),
    ("LeadingOrder", theory.LeadingOrder, {"n_classes": 2, "n_robust": 1, "n_nonrobust": 3, "alpha": 2.0,
     "beta": 1.0, "q": 3, "rho": 1.0, "lr": 0.1},
     {"n_classes": whole(2) | {"several": ["a"]}, "n_robust": whole(0) | {"several": ["a"]},
     "alpha": number(above=0), "rho": number(above=0), "lr": number(above=0), "q": whole(2,
     100) | {"several": ["a"]}}),
    ("rates", ORDER.rates, {"A": A0, "B": A0}, {"A": ARRAY, "B": ARRAY}),
    ("LeadingOrder.recursion", ORDER.recursion, {"A0": A0, "B0": A0, "n_iter": 3}, POINT | {"n_iter": whole(0),
     "record_every": whole()}),
    ("flow", ORDER.flow, {"A0": A0, "B0": A0, "t_end": 3.0}, POINT | {"t_end": number(above=0),
     "rtol": number(above=0)}),
    ("passage_time", ORDER.passage_time, {"A0": A0, "B0": A0, "feature": "A", "level": 0.5},
     POINT | {"feature": choice(), "level": number(above=0), "measure": choice()}),
    ("take_off_time", ORDER.take_off_time, {"feature": "A", "x0": 0.1, "level": 0.5}, {"feature": choice(),
     "x0": number(), "level": number(above=0)}),
    ("decompose", theory.decompose, {"W0": NET.W, "X": X, "y": Y, "q": 3, "rho": 1.0, "lr": 0.1, "n_iter": 2},
     PATCHES | {"W0": floats(NET.W), "q": whole(2, 100), "rho": number(above=0), "lr": number(above=0),
     "n_iter": whole(0), "record_every": whole() | {"nothing": "a"}, "ascent_lr": {"alone": 1.0}}),
    ("adversarial decompose", partial(theory.decompose, NET.W, X, Y, q=3, rho=1.0, lr=0.1, n_iter=2),
     {"ascent_lr": 1.0, "eps": 0.1}, {"ascent_lr": number(above=0), "eps": number(low=0), **ASCENT}),
    ("noise_update", theory.noise_update, {"W": NET.W, "X": X, "signal": X - NOISE, "y": Y, "q": 3, "rho": 1.0,
     "lr": 0.1},
     PATCHES | {"W": floats(NET.W), "signal": floats(X, whole="a"), "q": whole(2, 100), "rho": number(above=0),
     "lr": number(above=0)}),
    ("standard_error", theory.standard_error, {"values": np.arange(4.0)}, {"values": {"nothing": None, "text": "a",
     "one": [1.0], "number": 1.0}, "axis": {"text": "a", "range": 1, "nothing": None}}),
    # ---------------------------------------------------------------- images
    ("ConvNet", images.ConvNet, {"image_shape": (1, 8, 8)}, SHAPES | {"stages": whole(), "activation": thing(),
     "before": {"number": 3, "text": "a"}}),
    ("ResNet18", images.ResNet18, {"width": 2}, SHAPES),
    ("WideResNet", images.WideResNet, {"depth": 10, "widen": 1}, {"depth": whole(10, off=12), "widen": whole()}),
    ("Convolution", images.Convolution, {"channels": 4}, {"channels": whole(), "kernel": whole(), "stride": whole(),
     "padding": whole(0) | {"nothing": "a"}, "bias": TRUTH}),
    ("Linear", images.Linear, {"n": 4}, {"n": whole(), "bias": TRUTH}),
    ("BatchNorm", images.BatchNorm, {}, {"eps": number(above=0), "momentum": number(low=0)}),
    ("ReLU", images.ReLU, {}, {"q": whole(1, 100), "rho": number(above=0)}),
    ("Normalise", images.Normalise, {"mean": (0.5,), "deviation": (0.5,)},
     {"mean": {"nothing": None, "number": 0.5, "text": ("a",), "nan": (NAN,)}, "deviation": {"nothing": None,
     "zero": (0.0,), "text": ("a",)}}),
    ("Network", images.Network, {"layers": LAYERS.layers, "image_shape": (1, 8, 8)}, {"layers": {"nothing": None,
     "text": "a", "number": 3}, "box": {"number": 1, "reversed": (1, 0), "text": "ab"}}),
    ("Network.logits", LAYERS.logits, {"X": IMAGES[0]}, {"X": floats(IMAGES[0]), "mode": choice()}),
    ("Network.loss_and_grad", LAYERS.loss_and_grad, dict(zip("Xy", IMAGES)), {"X": floats(IMAGES[0]),
     "y": labels(IMAGES[1]), "mode": choice()}),
    ("Network.pull_back", LAYERS.pull_back, {"X": IMAGES[0], "C": np.ones((4, 10))}, {"C": {"nothing": None,
     "fewer": np.ones((4, 9)), "complex": np.ones((4, 10), complex), "nan": np.full((4, 10), NAN), "text": "a"}}),
    ("augmented", image_data.augmented, {"X": IMAGES[0], "rng": np.random.default_rng(0), "kind": "crop"},
     {"X": {"nothing": None, "text": "a", "whole": IMAGES[0].astype(int), "axes": IMAGES[0][0],
     "complex": IMAGES[0] + 1j}, "rng": {"nothing": None, "text": "a"}, "kind": choice(), "padding": whole(0)}),
    ("split", image_data.split, {"X": IMAGES[0], "y": IMAGES[1], "n_test": 1, "rng": 0, "dtype": "float32"},
     {"n_test": whole(1, 3), "rng": RNG, "dtype": choice(whole="int64"), "y": {"fewer": IMAGES[1][1:],
     "nothing": None}}),
    ("held_out", image_data.held_out, {"data": image_data.split(*IMAGES, 1, 0, "float32")[0], "n": 1, "rng": 0},
     {"data": thing(), "n": whole(1, 2), "rng": RNG}),
    ("images.data.load", image_data.load, {"name": "digits", "part": "test"}, {"name": choice(), "part": choice(),
     "n": whole(1, 360) | {"nothing": "a"}, "dtype": choice(whole="int64")}),
    ("fetch", partial(image_data.fetch, folder="/dev/null/x"), {"name": "mnist"}, {"name": choice()}),
    ("SweepSpec.build", SweepSpec.build, {"source": SPEC},
     {"source": {"nothing": None, "number": 3, "list": []}}),
    ("sweep", partial(sweep, SPEC), {"out": "/dev/null/x"}, {"memory": {"nothing": None, "zero": 0, "text": "much",
     "negative": -1.0, "nan": NAN}, "jobs": whole() | {"nothing": 1.5},
      "scheduler": choice(), "largest_batch": whole(), "yes": TRUTH, "out": PATH}),
]  # fmt: skip

FILES = ("PatchCNN.load", "PatchCNN.save", "load", "fetch",
     "sweep")  # whose other arguments name no file that is there
#: Parameters that a message may call by another name: by one of several, or by what the parameter is.
OTHER_NAMES = {"attacks-unknown": "attack", "source": "spec"}


def told(parameter, why):
    """The name that a message gives a parameter."""
    return OTHER_NAMES.get(f"{parameter}-{why}", OTHER_NAMES.get(parameter, parameter))


CASES = [
    pytest.param(function, fine | {parameter: value}, told(parameter, why), value, id=f"{name}-{parameter}-{why}")
    for name, function, fine, rules in CALLS
    for parameter, wrong in rules.items()
    for why, value in wrong.items()
]


@pytest.mark.parametrize(("function", "arguments", "name", "value"), CASES)
def test_what_a_call_cannot_take_is_refused_by_name(function, arguments, name, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert faults(lambda: function(**arguments), name, value) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("function", "fine"), [pytest.param(*call[1:3], id=call[0]) for call in CALLS if call[0] not in FILES]
)
def test_nothing_is_wrong_with_what_the_cases_start_from(function, fine):
    function(**fine)


def test_no_rule_stands_twice():
    assert len({case.id for case in CASES}) == len(CASES) >= 150

"""Public signatures are annotated, none with Any; Literals name what is checked; a stub names what attacks has."""

import ast
import importlib
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from advfeat.kernels import BACKENDS, Backend
from advfeat.kernels import layers as layer_kernels
from public_types import attributes, faults, functions_of, hints, public, signature_faults

import advfeat
from advfeat.attacks import gradient
from advfeat.core import ball, checks, objectives, types
from advfeat.experiments import image_configuration
from advfeat.images.data import catalogue as image_sets
from advfeat.images.data import download
from advfeat.patches.certify import METHODS, Method
from advfeat.robustness import catalogue, evaluate, suite
from advfeat.sweeps import axis
from advfeat.sweeps import catalogue as sweeps
from advfeat.training import configuration, optim

FUNCTIONS, CLASSES = public()
CHOICES = {
    "norm": (ball.Norm, ball.NORMS),
    "budget": (ball.Budget, ball.BUDGETS),
    "norm of ascents": (checks.AscentNorm, checks.NORMS),
    "objective": (objectives.Objective, objectives.OBJECTIVES),
    "objective of ascents": (checks.AscentObjective, checks.OBJECTIVES),
    "partition": (checks.Partition, checks.PARTITIONS),
    "augmentation": (checks.Augmentation, checks.AUGMENTATIONS),
    "dtype": (types.Precision, types.PRECISIONS),
    "backend": (Backend, BACKENDS),
    "backend of layers": (layer_kernels.LayerBackend, layer_kernels.BACKENDS),
    "mode": (layer_kernels.Mode, layer_kernels.MODES),
    "schedule of steps": (gradient.StepSchedule, gradient.SCHEDULES),
    "schedule of rates": (optim.RateSchedule, optim.SCHEDULES),
    "optimiser": (optim.OptimiserName, optim.OPTIMISERS),
    "method": (Method, METHODS),
    "certificate": (Method, catalogue.CERTIFICATES),
    "attacks that measure": (evaluate.MeasuringAttack, evaluate.MEASURED_BY),
    "attacks of a suite": (catalogue.AttackName, suite.NAMED),
    "image set": (image_sets.DataSetName, image_sets.DATA_SETS),
    "image set to fetch": (download.Downloaded, download.SOURCES),
    "part": (image_sets.Part, image_sets.PARTS),
    "engine of sweeps": (sweeps.OneEngine, sweeps.ENGINES),
    "training of sweeps": (sweeps.Training, sweeps.TRAININGS),
    "design": (sweeps.Design, sweeps.DESIGNS),
    "scale": (axis.Scale, axis.SCALES),
    "architecture": (image_configuration.Architecture, image_configuration.NETWORKS),
    "training of images": (image_configuration.ImageTraining, image_configuration.TRAININGS),
} | {
    f"TrainConfig.{name}": (hint, advfeat.TrainConfig.keys()[name].choices)
    for name, hint in hints(advfeat.TrainConfig).items() if advfeat.TrainConfig.keys()[name].choices
}  # fmt: skip


@pytest.mark.parametrize("choice", CHOICES)
def test_a_literal_names_what_is_checked(choice):
    literal, options = CHOICES[choice]
    assert sorted(get_args(literal)) == sorted(options)


def test_configurations_annotate_choices_by_literals():
    for configuration_ in (advfeat.TrainConfig, image_configuration.ImageConfig):
        annotated = hints(configuration_)
        for key in configuration_.keys().values():
            assert key.choices is None or sorted(get_args(annotated[key.name])) == sorted(key.choices), key.name
    assert configuration.Ascent


def test_the_walk_reaches_what_functions_return():
    """Else the next test would look at nothing."""
    reached = {one.__name__ for one in CLASSES}
    assert {"History", "Series", "Run", "RobustAccuracy", "Certificate", "RobustRadius", "Flow"} <= reached
    assert len(FUNCTIONS) > 30
    assert len(CLASSES) > 60


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_annotated(name):
    assert signature_faults(name.rpartition(".")[2], FUNCTIONS[name]) == []


@pytest.mark.parametrize("one", CLASSES, ids=lambda one: one.__name__)
def test_classes_are_annotated(one):
    found = [fault for name, function in functions_of(one)
             for fault in signature_faults(f"{one.__name__}.{name}", function)]  # fmt: skip
    found += [f"{one.__name__}.{name} is {fault}" for name, hint in hints(one).items() for fault in faults(hint)]
    assert found == []


def test_the_stub_of_attacks_names_what_advfeat_puts_there():
    """An import may not go up, so that type checkers learn of these from a stub."""
    stub = Path(importlib.import_module("advfeat.attacks").__file__).with_suffix(".pyi")
    named = [alias.asname for node in ast.parse(stub.read_text()).body for alias in node.names]
    assert sorted(named) == sorted(advfeat.attacks.__all__)


# ------------------------------------------------------------------ each of these is seen failing
class Careless:
    """A class whose members are annotated as none should be."""

    table: dict
    anything: list[Any]
    fine: types.FloatArray

    def __init__(self, value):
        self.value = value

    def bare(self, x: np.ndarray) -> "types.Float64Array":
        return x

    @property
    def free(self):
        return self.value

    @classmethod
    def made(cls, *parts: int, **rest) -> "Careless":
        return cls(parts)


def test_careless_annotations_are_seen():
    found = [fault for name, function in functions_of(Careless)
             for fault in signature_faults(f"Careless.{name}", function)]  # fmt: skip
    assert found == [
        "Careless.__init__: value has no annotation",
        "Careless.bare: x is bare <class 'numpy.ndarray'>",
        "Careless.free: what it returns has no annotation",
        "Careless.made: rest has no annotation",
    ]
    assert {name: faults(hint) for name, hint in hints(Careless).items()} == {
        "table": ["bare <class 'dict'>"], "anything": ["Any"], "fine": []}  # fmt: skip
    assert attributes(Careless) == ["free", "value"]

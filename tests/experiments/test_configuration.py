"""The configuration of Figure 3: what cannot be is refused before anything is written, by name and rule."""

import tempfile
import tracemalloc

import numpy as np
import pytest

import advfeat as af
from advfeat.cli import main
from advfeat.experiments import figure3 as experiment
from advfeat.experiments.configuration import Figure3Config
from advfeat.patches.features import q_sum
from advfeat.theory import (
    LeadingOrder,
    State,
    contradiction,
    decompose,
    find_window,
    flow_time,
    growth_rate,
    noise_update,
    phase_two_started,
    plateau,
    population_types,
    robust_window,
    simulate,
    tensor_power,
)
from advfeat.theory.window import diagonal_edge

BAD = {
    "batch": ({"batch_size": 10000}, "batch_size = 10000: must be <= n_train = 20"),
    "seed": ({"first_seed": 10**21}, r"first_seed = 10{21}: must be an integer >= 0 and <= "),
    "last seed": ({"first_seed": 2**63 - 1}, r"first_seed = 9223372036854775807: first_seed \+ n_seeds must be"),
    "rho float32": ({"rho": 1e-300}, "rho = 1e-300: must be > 0 in float32"),
    "rho": ({"rho": 1e-300, "dtype": "float64"}, r"rho = 1e-300: rho\^q must be a float64 number"),
    "rho inverse": ({"rho": 5e-324, "dtype": "float64"}, "rho = 5e-324: 1 / rho must be finite"),
    "q": ({"q": 10**9}, "q = 1000000000: must be an integer >= 2 and <= 100"),
    "q 1000": ({"q": 1000}, "q = 1000: must be an integer"),
    "q 101": ({"q": 101}, "q = 101: must be an integer"),
    "ascent": ({"n_ascent": 10001}, "n_ascent = 10001: must be an integer >= 1 and <= 10,000"),
    "alpha": ({"alpha": 1e300, "dtype": "float64"}, r"alpha = 1e\+300: alpha\^q must be a float64 number"),
    "init": ({"init_std": 1e300, "dtype": "float64"}, r"init_std = 1e\+300.* must be finite in float64"),
    "records": ({"n_iter": 7}, "n_iter = 7: must be a multiple of n_records = 20"),
    "robust": ({"n_robust": 65}, "n_robust = 65: must be <= n_patches = 64"),
}


@pytest.mark.parametrize(("values", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_is_refused_before_a_folder_is_made(values, message, tmp_path, capsys):
    with pytest.raises(ValueError, match=message):
        Figure3Config(**values)
    out = tmp_path / "run"
    assert main(["reproduce", "--out", str(out), "--set", *(f"{k}={v}" for k, v in values.items())]) == 2
    assert "must be" in capsys.readouterr().err
    assert not out.exists()


STATE = State.draw(3, 2, 10, rng=[0])
TYPES = population_types(3, 4, 1, 2.0, 1.0)
COMMON = {"rho": 1.0, "lr": 0.1, "n_iter": 2}
NOISY = np.ones((2, 3, 4)), np.ones((3, 2, 4)), np.array([0, 1, 0])
DEGREES = {
    "SmoothedReLU": lambda q: af.SmoothedReLU(q),
    "PatchCNN": lambda q: af.PatchCNN(np.ones((3, 2, 4)), q=q),
    "simulate": lambda q: simulate(STATE, TYPES, q=q, **COMMON),
    "plateau": lambda q: plateau(1.0, q, 1.0, 1.0),
    "phase_two_started": lambda q: phase_two_started(np.ones((2, 3)), 1.0, q, 1.0, 1.0),
    "LeadingOrder": lambda q: LeadingOrder(3, 2.0, 1.0, 1, 3, q, 1.0, 0.1),
    "find_window": lambda q: find_window(3.0, 1.0, 64, 1, q, 1.0, norm="linf", strength=None),
    "find_window of l2": lambda q: find_window(3.0, 1.0, 64, 1, q, 1.0, norm="l2"),
    "robust_window": lambda q: robust_window(3.0, 1.0, 64, 1, q),
    "diagonal_edge": lambda q: diagonal_edge(3.0, 64, 1, q, 1.0, 1.0),
    "contradiction": lambda q: contradiction(3.0, 1.0, 1.0, 4, 1, q),
    "growth_rate": lambda q: growth_rate(1.0, 1, 2, q, 1.0, 0.1),
    "flow_time": lambda q: flow_time(1.0, 2.0, 1.0, q),
    "decompose": lambda q: decompose(*NOISY, q=q, **COMMON),
    "noise_update": lambda q: noise_update(*NOISY[:2], NOISY[1], NOISY[2], q=q, rho=1.0, lr=0.1),
    "steps": lambda q: tensor_power.steps(0.9, 0.95, q=q, lr=0.1),
    "flow_bound": lambda q: tensor_power.flow_bound(0.1, q),
    "bound": lambda q: tensor_power.bound(0.9, 0.1, q=q, lr=0.1, level=0.95),
    "tensor power": lambda q: tensor_power.simulate(0.9, 0.1, q=q, lr=0.1, level=0.95),
    "sweep": lambda q: tensor_power.sweep(0.1, q=q, y0=0.9, level=0.95),
    "q_sum": lambda q: q_sum(np.ones((2, 3)), q),
}


@pytest.mark.parametrize("name", DEGREES)
@pytest.mark.parametrize("q", [101, 1000, 10**9])
def test_one_bound_of_q_everywhere(name, q):
    with pytest.raises(ValueError, match=f"q = {q}: must be"):
        DEGREES[name](q)
    DEGREES[name](100)


def test_one_bound_of_ascent_steps_everywhere():
    ascent = {"ascent_lr": 1.0, "eps": 0.1, "n_ascent": 10001}
    for call in (lambda: af.TrainConfig(lr=0.1, n_iter=1, adversarial=True, **ascent),
                 lambda: simulate(STATE, TYPES, q=3, **COMMON, **ascent),
                 lambda: decompose(*NOISY, q=3, **COMMON, **ascent),
                 lambda: noise_update(*NOISY[:2], NOISY[1], NOISY[2], q=3, rho=1.0, lr=0.1, **ascent)):  # fmt: skip
        with pytest.raises(ValueError, match="n_ascent = 10001: must be an integer >= 1 and <= 10,000"):
            call()


SHORT = {"n_classes": 3, "n_neurons": 4, "n_iter": 20, "n_records": 2, "n_seeds": 2}
SHAPES = {
    "test samples": {**SHORT, "patch_dim": 40, "n_patches": 30, "n_test": 60, "n_train": 10},
    "l2": {**SHORT, "patch_dim": 40, "n_patches": 30, "n_test": 60, "n_train": 10, "norm": "l2"},
    "training samples": {**SHORT, "patch_dim": 40, "n_patches": 30, "n_test": 6, "n_train": 400},
    "neurons": {**SHORT, "n_neurons": 100, "patch_dim": 300, "n_patches": 3, "n_test": 6, "n_train": 4},
    "records": {**SHORT, "patch_dim": 10, "n_patches": 3, "n_test": 3, "n_train": 4, "n_neurons": 20, "n_iter": 3000,
                "n_records": 10},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_memory_that_is_asked_for_is_enough(shape):
    """Between what a run takes at its peak, beside the process itself, and six times that and 40 MB."""
    config, peaks = Figure3Config(**shape, pgd_steps=3), []
    for _ in range(2):  # the first time modules are loaded
        with tempfile.TemporaryDirectory() as folder:
            tracemalloc.start()
            experiment.run(config, folder)
            experiment.recursions(config)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[-1] <= config.memory() <= 6 * peaks[-1] + 40e6

"""Specs of sweeps: what they accept, the points they make, and what a bad one says before any work."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import advfeat
from advfeat.sweeps import SweepSpec
from advfeat.sweeps.axis import Axis
from advfeat.sweeps.catalogue import CLAIMS, METRICS
from advfeat.sweeps.spec import SWEEP_KEYS

EXAMPLES = Path(advfeat.__file__).resolve().parent.parent / "examples"
GOOD = {"sweep": {"training": "standard"}, "base": {"n_seeds": 2}, "axes": {"alpha": [2.0, 3.0], "n_robust": [1, 2, 4]}}


def spec(**tables):
    return SweepSpec.build({**GOOD, **tables})


def test_a_grid_is_every_combination_with_the_last_axis_fastest():
    found = spec()
    assert found.size == 6
    assert found.n_runs == 12
    assert list(found.points()) == [(2.0, 1), (2.0, 2), (2.0, 4), (3.0, 1), (3.0, 2), (3.0, 4)]
    config = found.config((3.0, 4))
    assert (config.alpha, config.n_robust, config.n_seeds) == (3.0, 4, 2)


def test_ranges():
    axes = {
        "alpha": {"low": 1, "high": 8, "n": 4, "scale": "log"},
        "beta": {"low": 0.5, "high": 1.5, "n": 3},
        "n_neurons": {"low": 2, "high": 32, "n": 5, "scale": "log"},
        "q": {"low": 3, "high": 3.5, "n": 1},
    }
    found = spec(axes=axes).axes
    assert np.allclose(found["alpha"].values, [1, 2, 4, 8], rtol=1e-15)
    assert found["beta"].values == (0.5, 1.0, 1.5)
    assert found["n_neurons"].values == (2, 4, 8, 16, 32)
    assert all(isinstance(v, int) for v in found["n_neurons"].values)
    assert found["q"].values == (3,)


@given(st.floats(0, 1), st.floats(0.01, 100), st.floats(1.01, 1000), st.sampled_from(["linear", "log"]))
def test_an_axis_stays_between_its_ends(u, low, factor, scale):
    axis = Axis.build("alpha", {"low": low, "high": low * factor, "scale": scale}, grid=False)
    assert low <= axis.at(u) <= low * factor
    assert math.isclose(axis.at(0.0), low)
    assert math.isclose(axis.at(1.0), low * factor)
    middle = low * factor**0.5 if scale == "log" else low * (1 + factor) / 2
    assert math.isclose(axis.at(0.5), middle, rel_tol=1e-12)


@pytest.mark.parametrize("design", ["random", "sobol"])
def test_random_designs_fill_the_box_and_grow_at_their_end(design):
    axes = {"alpha": {"low": 1, "high": 8, "scale": "log"}, "q": [2, 3, 4, 5]}

    def points(n, seed=0):
        head = {"training": "standard", "design": design, "n_points": n, "design_seed": seed}
        return list(spec(sweep=head, axes=axes).points())

    few, many = points(64), points(128)
    assert many[:64] == few
    assert points(64, seed=1) != few
    alpha = np.log2([a for a, _ in many])
    assert alpha.min() >= 0
    assert alpha.max() <= 3
    assert abs(np.median(alpha) - 1.5) < 0.3
    assert {q for _, q in many} == {2, 3, 4, 5}
    if design == "sobol":  # every eighth of an axis holds its eighth of the points
        assert np.histogram(alpha, 8, (0, 3))[0].tolist() == [16] * 8


def test_equal_values_of_another_type_are_one_configuration():
    assert spec(axes={"alpha": [2, 3]}).axes == spec(axes={"alpha": [2.0, 3.0]}).axes


def test_a_spec_is_json_and_comes_back():
    found = spec(plot=[{"x": "alpha", "y": "n_robust", "metric": "A"}])
    held = json.loads(json.dumps(found.as_dict()))
    again = SweepSpec(**{k: v for k, v in held.items() if k not in ("base",)}, base=held["base"])
    assert again == found


def test_default_metrics_cost_nothing_extra():
    found = spec(sweep={"engine": "both", "training": ["adversarial"]}).metrics
    assert {"A", "phase_two", "saturated_at", "deviation", "test_accuracy"} <= set(found)
    assert not {"robust_accuracy", "certified_accuracy", "claim_4.4.1"} & set(found)
    assert "phase_two" not in spec().metrics
    assert "loss" not in spec(sweep={"engine": "recursion"}).metrics


HUGE = {name: {"low": 1, "high": 2, "n": 1000} for name in ("alpha", "beta", "lr")}
BAD = {
    "unknown axis": ({"axes": {"alpah": [1]}}, r"axes\.alpah: unknown configuration field; did you mean 'alpha'"),
    "unknown base": ({"base": {"n_seed": 1}}, r"base\.n_seed: unknown configuration field; did you mean 'n_seeds'"),
    "unknown key": ({"sweep": {"trainings": "standard"}}, r"sweep\.trainings: unknown; did you mean 'training'"),
    "unknown table": ({"axis": {}}, r"unknown table \[axis\]"),
    "unknown metric": ({"sweep": {"metrics": ["robust_win"]}}, r"'robust_win' is unknown; did you mean 'robust_wins'"),
    "empty axis": ({"axes": {"alpha": []}}, r"axes\.alpha = \[\]: must hold at least one value"),
    "no axis": ({"axes": {}}, r"axes: must name at least one"),
    "no values": ({"axes": {"alpha": {}}}, r"axes\.alpha: a range needs low"),
    "twice": ({"axes": {"alpha": [1, 2, 1.0]}}, r"axes\.alpha: holds 1\.0 twice"),
    "not a number": ({"axes": {"alpha": ["big"]}}, r"axes\.alpha = 'big': must be a number"),
    "not an integer": ({"axes": {"q": [2.5]}}, r"axes\.q = 2\.5: must be an integer"),
    "one value": ({"axes": {"alpha": 3}}, r"axes\.alpha = 3: must be a list of values or a table"),
    "backwards": ({"axes": {"alpha": {"low": 3, "high": 2, "n": 2}}}, r"low = 3 must be < high = 2"),
    "log of 0": ({"axes": {"alpha": {"low": 0, "high": 2, "n": 2, "scale": "log"}}}, r"low = 0 must be > 0"),
    "too many integers": ({"axes": {"q": {"low": 2, "high": 4, "n": 9}}}, r"n = 9 integers do not fit between 2 and 4"),
    "a range of words": ({"axes": {"norm": {"low": 0, "high": 1, "n": 2}}}, r"a field of type str has no range"),
    "endless axis": ({"axes": {"alpha": {"low": 1, "high": 2, "n": 10**9}}}, r"n = 1000000000 values are more than"),
    "a billion": ({"axes": HUGE}, r"1,000,000,000 points \(alpha 1000 x beta 1000 x lr 1000\).* only with --yes"),
    "seeds as axis": ({"axes": {"n_seeds": [1, 2]}}, r"axes\.n_seeds: is no axis; the number of seeds belongs"),
    "base and axis": ({"base": {"alpha": 1.0}}, r"alpha: stands in \[base\] and in \[axes\]"),
    "points of a grid": ({"sweep": {"n_points": 4}}, r"n_points = 4: a grid has as many points as its axes make"),
    "no points": ({"sweep": {"design": "random"}}, r"n_points = None: must be an integer >= 1"),
    "Sobol": ({"sweep": {"design": "sobol", "n_points": 100}}, r"n_points = 100: must be a power of 2"),
    "Sobol with n": ({"sweep": {"design": "sobol", "n_points": 8}, "axes": {"alpha": {"low": 1, "high": 2, "n": 3}}},
                     r"axes\.alpha\.n: unknown"),
    "training": ({"sweep": {"training": ["standrad"]}}, r"training = 'standrad': unknown; did you mean 'standard'"),
    "training twice": ({"sweep": {"training": ["standard", "standard"]}}, r"must name one or both"),
    "engine": ({"sweep": {"engine": "net"}}, r"engine = 'net': unknown"),
    "metric of the other engine": ({"sweep": {"engine": "recursion", "metrics": ["loss"]}}, r"'loss' does not come"),
    "metric of the other training": ({"sweep": {"training": "standard", "metrics": ["phase_two"]}}, r"phase_two"),
    "minibatches": ({"sweep": {"engine": "both"}, "base": {"batch_size": 2}}, r"the recursion knows no minibatches"),
    "drawn": ({"sweep": {"start": "drawn"}}, r"start = 'drawn': only engine = 'recursion'"),
    "plot": ({"plot": [{"x": "alpha", "metric": "loss", "colour": 3}]}, r"\[\[plot\]\] colour: unknown"),
    "plot of nothing": ({"sweep": {"metrics": ["A"]}, "plot": [{"x": "q", "metric": "B"}]}, r"\[\[plot\]\] x = "),
    "plot of what is not measured": ({"sweep": {"metrics": ["A"]},
                                      "plot": [{"x": "alpha", "y": "n_robust", "metric": "B"}]},
                                     r"\[\[plot\]\] metric = 'B': needs B among the metrics measured"),
    "plot of claims": ({"plot": [{"metric": "claims"}]}, r"\[\[plot\]\] metric = 'claims': needs claim_4\.3\.1"),
    "plot of an open axis": ({"plot": [{"x": "alpha", "metric": "A"}]}, r"n_robust: swept too, and neither drawn nor"),
    "plot of two trainings": ({"sweep": {}, "plot": [{"x": "alpha", "facet": "n_robust", "metric": "A"}]},
                              r"training: A comes from standard and adversarial, the plot must say"),
    "plot of the other engine": ({"plot": [{"x": "alpha", "y": "n_robust", "metric": "A", "engine": "recursion"}]},
                                 r"engine = 'recursion': does not give A"),
    "metrics as a word": ({"sweep": {"metrics": "A"}}, r"sweep\.metrics = 'A': must be a list"),
    "axes as a list": ({"axes": [1]}, r"axes must be a table"),
}  # fmt: skip


@pytest.mark.parametrize(("tables", "message"), BAD.values(), ids=BAD)
def test_a_bad_spec_is_refused_at_once(tables, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        advfeat.sweep({**GOOD, **tables}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_billion_points_do_not_fit_even_when_asked_for(tmp_path):
    rule = r"memory = '8GB': the plan of 1,000,000,000 points and 2,000,000,000 results alone takes"
    with pytest.raises(ValueError, match=rule):
        advfeat.sweep({**GOOD, "axes": HUGE}, tmp_path / "out", yes=True, memory="8GB")


def test_a_bad_file_is_named(tmp_path):
    path = tmp_path / "spec.toml"
    with pytest.raises(FileNotFoundError, match=r"spec\.toml: there is no such file"):
        SweepSpec.build(path)
    path.write_text("[sweep\n")
    with pytest.raises(ValueError, match=r"spec\.toml: not a TOML file"):
        SweepSpec.build(path)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda p: p.stem)
def test_every_example_is_a_spec_whose_points_exist(path):
    found = SweepSpec.build(path)
    assert found.plots
    configs = [found.config(point) for point in found.points()]
    assert len(configs) == found.size


def test_the_documentation_names_every_metric_and_every_key():
    text = (EXAMPLES.parent / "docs" / "sweeps.md").read_text()
    for name in {*METRICS, *SWEEP_KEYS} - set(CLAIMS):
        assert f"`{name}`" in text or f"\n{name} = " in text, name

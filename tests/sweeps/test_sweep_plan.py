"""Plans of sweeps: which runs share a batch, what names a result, and what a batch may take of memory."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advfeat.experiments.configuration import Figure3Config
from advfeat.sweeps import SweepSpec, plan
from advfeat.sweeps.spec import runs_in_words
from advfeat.sweeps.work import Work

SMALL = {"n_classes": 2, "n_neurons": 3, "patch_dim": 8, "n_patches": 4, "n_train": 4, "n_test": 4, "n_iter": 20,
         "n_records": 2, "n_seeds": 2}  # fmt: skip


def make(axes, budget=1e9, workers=2, base=None, **head):
    base = {name: value for name, value in (SMALL | (base or {})).items() if name not in axes}
    spec = SweepSpec.build({"sweep": {"training": "standard", **head}, "base": base, "axes": axes})
    return plan.make(spec, budget, workers)


def shapes(found):
    """What the batches' runs differ in, by field."""
    return [{name: {getattr(run.config, name) for run in batch.runs} for name in ("q", "n_iter", "alpha", "rho")}
            for batch in found.batches]  # fmt: skip


@pytest.mark.parametrize("engine", ["network", "recursion"])
def test_q_and_iterations_part_batches_and_strengths_do_not(engine):
    axes = {"q": [2, 3], "n_iter": [20, 40], "alpha": [2.0, 3.0, 4.0]}
    found = make(axes, workers=1, engine=engine)
    assert found.shapes == 4
    assert found.n_runs == 24
    for batch in shapes(found):
        assert len(batch["q"]) == len(batch["n_iter"]) == 1
        assert len(batch["alpha"]) > 1


def test_rho_is_a_vector_of_recursions_and_a_shape_of_networks():
    assert make({"rho": [1.0, 2.0]}, engine="recursion").shapes == 1
    assert make({"rho": [1.0, 2.0]}).shapes == 2


def test_points_that_differ_in_the_test_radius_share_a_training():
    found = make({"eps_test": [0.5, 0.2, 0.3], "alpha": [2.0, 3.0]}, metrics=["certified_accuracy"])
    runs = [run for batch in found.batches for run in batch.runs]
    assert len(runs) == 4
    assert all(run.eps_test == (0.2, 0.3, 0.5) for run in runs)
    keys = found.keys["standard"]
    first = next(run for run in runs if run.config.alpha == 2.0 and run.seed == 0)
    assert [keys[i][0] for i in (2, 4, 0)] == list(first.keys)  # points 0, 2, 4 have alpha = 2


@pytest.mark.parametrize(("engine", "each"), [("network", 1), ("recursion", 1), ("both", 2)])
@pytest.mark.parametrize("training", ["standard", ["standard", "adversarial"]])
def test_a_run_is_a_training_that_is_done(engine, each, training):
    """Counted before the plan, by the plan, and as its batches do them."""
    trainings = 1 if training == "standard" else 2
    alpha = {"alpha": [2.0, 3.0, 4.0]}
    for axes, different in ((alpha, 3), ({"eps_test": [0.5, 0.2]} | alpha, 3), ({"eps_test": [1, 2]}, 1)):
        found = make(axes, engine=engine, training=training)
        wanted = different * SMALL["n_seeds"] * trainings * each
        assert wanted == found.n_runs == found.spec.n_runs == sum(batch.n_runs for batch in found.batches)
        assert wanted == len([run for batch in found.batches for run in batch.runs]) * each
    found = make({"n_robust": [1, 2, 9]}, engine=engine, training=training, on_invalid="skip")
    assert (found.n_runs, found.spec.n_runs) == (4 * trainings * each, 6 * trainings * each)


EXAMPLES = {
    "sensitivity": "512 runs (networks)", "take-off": "768 runs (recursions)", "window": "52 runs (networks)",
    "winner": "18,432 runs (recursions)", "winner-network": "1,152 runs (576 networks, 576 recursions)",
}  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_runs_are_those_of_the_readme(name):
    spec = SweepSpec.build(Path(__file__).parents[2] / "examples" / f"{name}.toml")
    assert runs_in_words(plan.make(spec, 1e9, 2).n_runs, spec.engine) == EXAMPLES[name]
    assert runs_in_words(spec.n_runs, spec.engine) == EXAMPLES[name]


def test_every_result_is_made_once():
    axes = {"alpha": [2.0, 3.0], "eps_test": [0.1, 0.2], "q": [2, 3]}
    found = make(axes, training=["standard", "adversarial"], metrics=["robust_accuracy"])
    made = [key for batch in found.batches for key in batch.keys]
    wanted = [key for by_point in found.keys.values() for keys in by_point.values() for key in keys]
    assert len(wanted) == 2 * 8 * 2
    assert sorted(made) == sorted(wanted)
    assert len(set(made)) == len(made)


def test_equal_points_share_their_results():
    head = {"design": "sobol", "n_points": 16, "engine": "recursion"}
    found = make({"n_robust": {"low": 1, "high": 2}}, **head)
    assert len(found.points) == 16
    assert found.n_runs == 4
    assert all(len(keys) == 2 for keys in found.keys["standard"].values())


BASE = {"alpha": 2.0}
OTHER = {
    "field": {"base": {"beta": 1.5}},
    "evaluation": {"base": {"n_test": 5}},
    "looks": {"n_looks": 3},
    "engine": {"engine": "recursion"},
    "attacks": {"metrics": ["robust_accuracy"]},
    "certificate": {"metrics": ["robust_accuracy"], "certificate": "interval"},
    "training": {"training": "adversarial"},
    "seed": {"base": {"first_seed": 2}},
}


def test_a_key_names_everything_a_result_depends_on_and_nothing_else():
    def keys(**options):
        found = make({"alpha": [2.0]}, **options)
        return next(iter(found.keys.values()))[0]

    plain = keys()
    assert plain == keys(title="another", metrics=["A"]) == keys(workers=7, budget=1e8)
    assert plain == keys(base={"n_seeds": 5})[:2]
    assert plain == make({"alpha": [3.0, 2.0]}).keys["standard"][1]
    assert keys(base={"first_seed": 1})[0] == plain[1]
    others = [tuple(keys(**options)) for options in OTHER.values()]
    assert len({tuple(plain), *others}) == len(others) + 1


def test_impossible_points():
    axes = {"n_robust": [1, 4, 5], "alpha": [2.0, 3.0]}
    rule = r'point 4 \(n_robust = 5, alpha = 2.0\): n_robust = 5: must be <= n_patches = 4; on_invalid = "skip"'
    with pytest.raises(ValueError, match=rule):
        make(axes)
    found = make(axes, on_invalid="skip")
    assert sorted(found.points) == [0, 1, 2, 3]
    assert [one["point"] for one in found.skipped] == [4, 5]
    assert found.skipped[1]["fields"] == {"n_robust": 5, "alpha": 3.0}
    assert "must be <= n_patches" in found.skipped[0]["reason"]
    with pytest.raises(ValueError, match="all 2 points are impossible"):
        make({"n_robust": [7, 8]}, on_invalid="skip")


def test_less_memory_makes_smaller_batches_and_none_is_an_error():
    axes = {"alpha": {"low": 1.0, "high": 5.0, "n": 300}}
    largest = [max(len(batch.runs) for batch in make(axes, budget, 1).batches) for budget in (1e9, 1e6, 3e5)]
    assert largest[0] > largest[1] > largest[2] >= 1
    for budget in (1e6, 3e5):
        for batch in make(axes, budget, 1).batches:
            each = plan.memory_of(batch.runs[0].config, batch.task)
            assert (len(batch.runs) + 1) * each <= budget
    with pytest.raises(ValueError, match="give more --memory or fewer --jobs"):
        make(axes, 1e4)
    with pytest.raises(ValueError, match='or start = "drawn"'):
        make({"alpha": [2.0]}, engine="recursion", base={"patch_dim": 10**9})
    assert make({"alpha": [2.0]}, engine="recursion", start="drawn", base={"patch_dim": 10**9}).n_runs == 2


HEAVY = {
    "samples under attack": {"metrics": ["robust_accuracy"], "base": {"n_test": 100}},
    "training samples under attack": {"metrics": ["train_robust_accuracy"], "base": {"n_train": 60, "n_test": 5}},
    "test samples": {"base": {"n_test": 200}},
    "float64": {"metrics": ["certified_accuracy"], "base": {"n_test": 80, "n_train": 80, "dtype": "float64"}},
    "looks": {"n_looks": 300, "base": {"n_iter": 300, "n_test": 2, "n_train": 4, "patch_dim": 20}},
    "looks of recursions": {"engine": "recursion", "n_looks": 300, "base": {"n_iter": 300}},
    "neurons of recursions": {"engine": "recursion", "n_looks": 1, "base": {"n_iter": 2, "n_neurons": 60}},
    "drawn recursions": {"engine": "recursion", "start": "drawn", "n_looks": 30, "base": {"patch_dim": 10**9}},
    "both": {"engine": "both", "n_looks": 100, "base": {"n_iter": 100}},
}


@pytest.mark.parametrize("options", HEAVY.values(), ids=HEAVY)
@pytest.mark.one_in(4)
def test_a_batch_takes_no_more_memory_than_planned(options):
    base = {"n_iter": 10, "n_records": 1, "lr": 1.0, "n_seeds": 4, "n_train": 10, "n_test": 10, "rho": 10.0}
    head = {name: value for name, value in options.items() if name != "base"}
    spec = SweepSpec.build({"sweep": {"training": "adversarial", **head}, "base": base | options.get("base", {}),
                            "axes": {"alpha": [3.0]}})  # fmt: skip
    batches = plan.make(spec, 1e12, 1).batches
    batch = replace(batches[0], runs=tuple(run for one in batches for run in one.runs))
    Work(replace(batch, runs=batch.runs[:1])).results()  # compiled, loaded
    tracemalloc.start()
    Work(batch).results()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    planned = (len(batch.runs) + 1) * plan.memory_of(batch.runs[0].config, batch.task)
    assert len(batch.runs) == 4
    assert planned / 4 < peak < planned


@pytest.mark.parametrize(("n", "seeds"), [pytest.param(3000, 1, marks=pytest.mark.slow), (300, 20)])
def test_a_plan_takes_no_more_memory_than_said(n, seeds):
    spec = SweepSpec.build({"sweep": {"training": "standard"}, "base": SMALL | {"n_seeds": seeds},
                            "axes": {"alpha": {"low": 1.0, "high": 5.0, "n": n}}})  # fmt: skip
    tracemalloc.start()
    found = plan.make(spec, 1e9, 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.n_runs == n * seeds
    assert plan.memory_of_plan(spec) / 3 < peak < 1.25 * plan.memory_of_plan(spec)


@given(st.integers(1, 50), st.integers(1, 200), st.integers(1, 3000))
def test_looks_are_at_every_record_and_not_too_many(n_records, between, n_looks):
    config = Figure3Config(n_iter=n_records * between, n_records=n_records)
    step = plan.look_every(config, n_looks)
    assert between % step == 0
    assert config.n_iter // step <= n_looks or step == between
    finer = [s for s in range(1, step) if between % s == 0]
    assert all(config.n_iter // s > n_looks for s in finer)


def test_a_batch_without_what_is_there():
    found = make({"alpha": [2.0, 3.0], "eps_test": [0.1, 0.2]}, budget=1e9, workers=1)
    batch = found.batches[0]
    partly = batch.without({batch.runs[0].keys[0]})  # one of two radii: the training is needed again
    assert partly.runs == batch.runs
    assert batch.without(set(batch.runs[0].keys)).runs == batch.runs[1:]
    assert batch.without(set(batch.keys)).runs == ()
    assert batch.without(set(batch.runs[0].keys)).name != batch.name

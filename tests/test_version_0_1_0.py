"""Files that version 0.1.0 wrote (tests/data/make_0_1_0.py) load, continue and plot: to a tolerance, on any machine."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import advfeat as af
from advfeat.cli import main
from advfeat.core import store
from advfeat.experiments import figure3 as experiment
from advfeat.experiments.configuration import Figure3Config
from advfeat.sweeps import SweepSpec, plan, work
from advfeat.sweeps.results import load as load_results
from advfeat.training import History

HELD = Path(__file__).parent / "data" / "0.1.0"
CONTINUED = 1e-8  # of the largest of a history: float64, hundreds of iterations, sums in another machine's order


@pytest.fixture
def copy(tmp_path):
    """A folder of version 0.1.0 in a place where it may be written."""

    def make(name):
        return Path(shutil.copytree(HELD / name, tmp_path / name))

    return make


def close(found, held):
    """Histories with the same numbers, NaN where nothing was measured; shares may differ by no sample."""
    assert found.keys() == held.keys()
    for name, values in held.items():
        scale = np.nanmax(np.abs(values), initial=0)
        np.testing.assert_allclose(found[name], values, rtol=0, atol=CONTINUED * scale, err_msg=name)


def same_weights(found, held):
    np.testing.assert_allclose(found.W, held.W, rtol=0, atol=CONTINUED * np.abs(held.W).max())


# ------------------------------------------------------------------ run folders
def test_a_finished_run_loads():
    run = af.load(HELD / "run")
    assert set(run.nets) == set(experiment.TRAININGS)
    config = Figure3Config.build(**run.config)
    together = store.load_npz(HELD / "run" / "history.npz")
    for name, net in run.nets.items():
        assert net.dtype == np.float64
        mine = {key.removeprefix(f"{name}/"): a for key, a in together.items() if key.startswith(f"{name}/")}
        close(run.histories[name], History.from_arrays(mine))
        correct = net.accuracy(config.data("test").X, config.data("test").y)
        np.testing.assert_array_equal(correct, run.histories[name]["test_accuracy"][-1])


def test_a_finished_run_is_finished(copy, capsys):
    """The same command trains nothing more, and draws figure and report anew."""
    folder = copy("run")
    before = {p: p.read_bytes() for p in folder.rglob("checkpoint.npz")}
    config = store.load_json(folder / "config.json")["config"]
    pairs = [f"{key}={json.dumps(value)}" for key, value in config.items() if value is not None]
    assert main(["reproduce", "--set", *pairs, "--out", str(folder)]) == 0
    assert {p: p.read_bytes() for p in folder.rglob("checkpoint.npz")} == before
    assert {"figure3.png", "figure3.pdf", "report.html"} <= {p.name for p in folder.iterdir()}
    assert "robust accuracy, worst of all attacks" in capsys.readouterr().out


def test_a_half_done_run_continues_to_the_finished_one(copy):
    folder = copy("half-run")
    config = Figure3Config.build(**af.load(HELD / "run").config)
    found, held = experiment.run(config, folder), af.load(HELD / "run")
    for name in experiment.TRAININGS:
        close(found.histories[name], held.histories[name])
        same_weights(found.nets[name], held.nets[name])


def test_a_half_done_training_continues_to_the_finished_one(copy):
    config = Figure3Config.build(**af.load(HELD / "run").config)
    data, test = config.data("train"), config.data("test")
    folder, net = copy("half-training"), config.network()
    assert 0 < af.load(folder).history["iteration"][-1] < config.n_iter
    found = af.train(net, data, config.training(adversarial=True), test, run_dir=folder)
    held = af.load(HELD / "training")
    close(found.history, held.history)
    same_weights(found.net, held.net)


def test_a_runs_networks_are_evaluated(copy, capsys):
    assert main(["evaluate", str(copy("run"))]) == 0
    said = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in said if line.startswith(experiment.TRAININGS)]
    assert len(rows) == 4
    held = af.load(HELD / "run").histories  # of what is printed there are two digits
    for name, seed, accuracy, robust, *_ in rows:
        assert float(accuracy) == pytest.approx(held[name]["test_accuracy"][-1][int(seed)], abs=0.0051)
        assert float(robust) == pytest.approx(held[name]["robust_accuracy"][-1][int(seed)], abs=0.0051)


@pytest.mark.slow
def test_robustness_finds_the_radii_again(copy, capsys):
    folder = copy("run")
    held = store.load_npz(folder / "robustness" / "robustness.npz")
    options = ["--eps-grid", "0.2:1:3", "--samples", "8", "--max-nodes", "8", "--rtol", "0.1"]
    kept = (folder / "robustness" / "robustness.npz").read_bytes()
    assert main(["robustness", str(folder), *options]) == 2  # it does not say of which networks and options it is
    assert "--force begins anew" in capsys.readouterr().err
    assert (folder / "robustness" / "robustness.npz").read_bytes() == kept
    assert main(["robustness", str(folder), *options, "--force"]) == 0
    found = store.load_npz(folder / "robustness" / "robustness.npz")
    assert found.keys() == held.keys()
    for name in ("eps", "correct", "certified", "broken", "interval"):
        for training in experiment.TRAININGS:
            np.testing.assert_allclose(found[f"{training}/{name}"], held[f"{training}/{name}"], rtol=0.1)
    known = store.load_json(HELD / "run" / "robustness" / "robustness.json")
    assert known["config"] == store.load_json(folder / "robustness" / "robustness.json")["config"]


# ------------------------------------------------------------------ networks, the ledger
def test_a_saved_network_loads():
    held = np.load(HELD / "margins.npz")
    net = af.PatchCNN.load(HELD / "network.npz")
    np.testing.assert_allclose(net.margin(held["X"], held["y"]), held["margin"], rtol=1e-9)


def test_the_ledgers_numbers_load():
    held = store.load_json(HELD / "ledger" / "ledger.json")
    assert {label: one["verdict"] for label, one in held["entries"].items()} == {"B.1": "holds", "D.5": "holds"}


# ------------------------------------------------------------------ sweeps
def rows(folder):
    table = pq.read_table(folder / "results.parquet").to_pydict()
    names = [name for name in table if name != "value"]
    return {key: value for *key, value in zip(*(table[n] for n in names), table["value"]) for key in [tuple(key)]}


def same_values(found, held):
    assert found.keys() == held.keys()
    for key, value in held.items():
        loose = "deviation" in key  # a difference of numbers that agree to 1e-2
        assert found[key] == pytest.approx(value, rel=1e-6 if loose else CONTINUED, abs=1e-12), key


def sweep(folder):
    return main(["sweep", str(HELD / "spec.toml"), "--out", str(folder), "--jobs", "1"])


def test_a_finished_sweep_has_nothing_left_to_do(copy, capsys):
    folder, held = copy("sweep"), rows(HELD / "sweep")
    assert sweep(folder) == 0
    assert "0 in 0 batches to do" in capsys.readouterr().out
    assert rows(folder) == held
    assert (folder / "index.html").exists()
    assert list((folder / "figures").glob("*.png"))


def test_a_half_done_sweep_continues_to_the_finished_one(copy, capsys):
    folder, held = copy("sweep"), rows(HELD / "sweep")
    for batch in sorted((folder / "batches").iterdir())[::2]:
        batch.unlink()
    (folder / "results.parquet").unlink()
    assert sweep(folder) == 0
    assert "in 2 batches to do" in capsys.readouterr().out
    same_values(rows(folder), held)


def test_a_finished_sweeps_results_load_and_plot(copy):
    folder = copy("sweep")
    results = load_results(folder)
    assert results.seeds == [0, 1]
    assert set(results.points) >= {"alpha", "eps_test"}
    options = ["--x", "alpha", "--metric", "A", "--training", "adversarial", "--engine", "network"]
    assert main(["plot", str(folder), *options, "--at", "eps_test=0.3"]) == 0


# ------------------------------------------------------------------ versions of results
def keys(engine, objective, trainings=("standard", "adversarial")):
    base = {"objective": objective, "n_iter": 20, "n_records": 2}
    spec = SweepSpec.build({
        "sweep": {"engine": engine, "training": list(trainings)}, "base": base, "axes": {"alpha": [2.0, 3.0]},
    })  # fmt: skip
    return {training: set().union(*by_point.values()) for training, by_point in plan.make(spec, 1e9, 1).keys.items()}


@pytest.mark.parametrize("engine", ["network", "recursion", "both"])
@pytest.mark.parametrize("objective", ["neg_label_logit", "margin", "cross_entropy"])
def test_only_results_that_moved_are_computed_again(engine, objective, monkeypatch):
    now = keys(engine, objective)
    monkeypatch.setattr(plan, "RISEN", {})
    first = keys(engine, objective)
    assert now["standard"] == first["standard"]
    moved = objective == "cross_entropy" and engine != "network"
    assert now["adversarial"].isdisjoint(first["adversarial"]) if moved else now["adversarial"] == first["adversarial"]


def test_a_version_that_rises_is_computed_again_and_the_others_stay(copy, capsys, monkeypatch):
    folder, held = copy("sweep"), rows(HELD / "sweep")
    monkeypatch.setitem(plan.RISEN, ("recursion", "adversarial", "neg_label_logit"), 2)
    assert sweep(folder) == 0
    assert "8 runs are there already, 8 in 2 batches to do" in capsys.readouterr().out
    same_values(rows(folder), held)


def test_keys_do_not_know_the_packages_version(monkeypatch):
    now = keys("both", "neg_label_logit")
    for module in (af, plan, work, store):
        monkeypatch.setattr(module, "__version__", "9.9.9", raising=False)
    assert keys("both", "neg_label_logit") == now

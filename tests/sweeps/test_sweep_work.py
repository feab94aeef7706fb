"""A batch's results against the public library run by run, and against each other."""

from dataclasses import replace

import numpy as np
import pytest

import advfeat
from advfeat.experiments.configuration import Figure3Config
from advfeat.patches.certify import certify
from advfeat.patches.features import q_sum
from advfeat.robustness import catalogue
from advfeat.robustness.evaluate import Evaluation
from advfeat.sweeps import SweepSpec, plan
from advfeat.sweeps.catalogue import METRICS
from advfeat.sweeps.work import Work, middle, work

SMALL = {"n_classes": 3, "n_neurons": 4, "patch_dim": 12, "n_patches": 8, "n_train": 6, "n_test": 8, "n_iter": 60,
         "n_records": 2, "rho": 5.0, "lr": 2.0, "ascent_lr": 3.0, "eps": 0.8, "n_seeds": 2}  # fmt: skip


def batch_of(axes, base=None, training="adversarial", engine="network", **head):
    spec = SweepSpec.build({"sweep": {"training": training, "engine": engine, **head},
                            "base": {k: v for k, v in (SMALL | (base or {})).items() if k not in axes},
                            "axes": axes})  # fmt: skip
    batches = plan.make(spec, 1e12, 1).batches
    assert len({batch.task for batch in batches}) == 1
    return replace(batches[0], runs=tuple(run for batch in batches for run in batch.runs))


ROBUST = ["robust_accuracy", "certified_accuracy", "swap_accuracy", "train_robust_accuracy", "test_accuracy"]
VARIED = {"alpha": [2.0, 3.0], "noise_std": [0.0, 0.1], "eps_test": [0.2, 0.45]}


@pytest.fixture(scope="module")
def measured():
    batch = batch_of(VARIED, metrics=ROBUST, n_looks=20, max_nodes=4)
    return batch, work(batch, 1)[0]


@pytest.fixture(scope="module")
def alone(measured):
    """Every run by the public `train`, alone: (configuration of its seed, result), in the batch's order."""
    batch, _ = measured
    found = []
    for run in batch.runs:
        c = Figure3Config(**run.config.as_dict() | {"n_seeds": 1, "first_seed": run.seed})
        config = replace(c.training(adversarial=True), record_every=3)
        found.append((c, advfeat.train(c.network(), c.data("train"), config, c.data("test"))))
    return found


def test_a_batch_holds_what_train_gives_run_by_run(measured, alone):
    _, found = measured
    assert found["iteration"].tolist() == [0, 30, 60]
    for r, (c, result) in enumerate(alone):
        history, at = result.history, [0, 10, 20]
        for e in range(2):
            row = 2 * r + e
            for name in ("loss", "train_accuracy", "test_accuracy"):
                assert np.array_equal(found[f"network/{name}"][row], history[name][at, 0])
            for name in ("A", "B"):
                strength = q_sum(history[name][at, 0], c.q)
                assert np.array_equal(found[f"network/{name}"][row], strength.mean(axis=-1))
                assert np.array_equal(found[f"network/{name}_max"][row], history[name][at, 0].max(-1).mean(-1))
            wins = [q_sum(history[name][at, 0], c.q) for name in ("A", "B")]
            assert np.array_equal(found["network/robust_wins"][row], (wins[0] > wins[1]).mean(axis=-1))
            assert np.allclose(found["network/B_over_plateau"][row], wins[1].mean(-1) / c.plateau(), rtol=1e-14)


def test_accuracies_of_features_and_of_the_swap(measured, alone):
    _, found = measured
    for r, (c, result) in enumerate(alone):
        test = c.data("test")
        for name in ("robust", "non_robust"):
            expected = advfeat.feature_learning_accuracy(result.net, test.astype("float32"), name)
            assert found[f"network/{name}_feature_accuracy"][2 * r, -1] == expected[0]
        swapped = advfeat.feature_swap(test, eps=c.eps, rng=c.seeds)
        expected = result.net.astype("float64").accuracy(swapped, test.y)
        assert found["network/swap_accuracy"][2 * r, -1] == expected[0]


def test_robust_accuracy_lies_between_its_bounds_and_falls_with_the_radius(measured, alone):
    """Certified <= true <= best attack at each radius; and never worse than what one radius alone gives."""
    _, found = measured
    sure, best = (found[f"network/{name}_accuracy"].reshape(-1, 2, 3) for name in ("certified", "robust"))
    clean = found["network/test_accuracy"].reshape(-1, 2, 3)
    assert (sure <= best).all()
    assert (best <= clean).all()
    assert (best[:, 1] <= best[:, 0]).all()
    assert (sure[:, 1] <= sure[:, 0]).all()
    assert (best[:, 1] < best[:, 0]).any()
    for r, (c, result) in enumerate(alone):
        test, net = c.data("test"), result.net.astype("float64")
        for e, eps in enumerate((0.2, 0.45)):
            one = certify(net, test.X, test.y, eps, max_nodes=4)
            assert sure[r, e, -1] >= one.certified.mean()
            by_attacks = advfeat.robust_accuracy(net, test, eps=eps, ascent_lr=c.ascent_lr, rng=c.seeds)
            assert best[r, e, -1] <= by_attacks.robust_accuracy[0]
            train = c.data("train")
            value = found["network/train_robust_accuracy"][2 * r + e, -1]
            assert value >= certify(net, train.X, train.y, eps, max_nodes=4).certified.mean()
            by_attacks = advfeat.robust_accuracy(net, train, eps=eps, ascent_lr=c.ascent_lr, rng=c.seeds)
            assert value <= by_attacks.robust_accuracy[0]


def test_results_do_not_depend_on_neighbours_or_threads(measured):
    batch, found = measured
    halves = [work(replace(batch, runs=part), 2)[0] for part in (batch.runs[:3], batch.runs[3:])]
    assert found.keys() == halves[0].keys()
    for name, values in found.items():
        if name != "iteration":
            together = np.concatenate([half[name] for half in halves])
            assert np.array_equal(values, together, equal_nan=True), name


@pytest.mark.parametrize("training", ["standard", "adversarial"])
def test_networks_and_recursions_agree_without_noise(training):
    axes = {"alpha": [2.0, 3.0], "lr": [1.0, 2.0], "init_std": [0.2, 0.4]}
    base = {"noise_std": 0.0, "dtype": "float64", "eps": 2.0, "ascent_lr": 0.5}  # no orthogonal axis saturates
    batch = batch_of(axes, base, training, "both", n_looks=20)
    found = work(batch, 2)[0]
    assert np.isnan(found.get("recursion/saturated_at", np.nan)).all()
    exact = found["both/deviation"] < 1e-11
    assert exact.all()
    assert (found["both/same_winners"] == 1).all()
    for name in METRICS:
        if f"network/{name}" in found and f"recursion/{name}" in found:
            pair = [found[f"{engine}/{name}"] for engine in ("network", "recursion")]
            assert np.allclose(*pair, rtol=1e-9, equal_nan=True), name
    assert np.isfinite(found["recursion/take_off_A"]).any()


def test_a_recursion_without_weights_has_the_same_law_and_any_dimension():
    drawn = batch_of({"patch_dim": [10**9]}, {"n_seeds": 40, "init_std": 0.3}, "standard", "recursion", start="drawn")
    weights = batch_of({"patch_dim": [12]}, {"n_seeds": 40, "init_std": 0.3}, "standard", "recursion")
    first = [work(batch, 2)[0]["recursion/A_max"][:, 0] for batch in (drawn, weights)]
    assert abs(first[0].mean() - first[1].mean()) < 4 * np.hypot(*(a.std() for a in first)) / np.sqrt(40)
    assert not np.array_equal(*first)


def test_take_off_follows_the_flow_where_one_feature_is_alone():
    """q = 3, one neuron per class, small steps: the time at which the correlation is five times its first value."""
    base = {"n_patches": 8, "n_robust": 0, "n_neurons": 3, "noise_std": 0.0, "rho": 1.0, "init_std": 0.01, "lr": 0.05,
            "n_iter": 6000, "n_seeds": 6, "n_records": 1}  # fmt: skip
    batch = batch_of({"beta": [1.0, 1.5]}, base, "standard", "recursion", n_looks=6000)
    found = work(batch, 2)[0]
    measured, predicted = found["recursion/take_off_B"], found["recursion/take_off_B_predicted"]
    known = np.isfinite(measured)
    assert known.sum() >= 6
    assert np.abs(measured[known] / predicted[known] - 1).max() < 0.05
    assert np.isnan(found["recursion/take_off_A"]).all()
    assert np.isnan(found["recursion/take_off_A_predicted"]).all()


def test_a_diverging_run_leaves_its_neighbours_alone():
    batch = batch_of({"lr": [2.0, 1e38]}, {"n_iter": 400, "n_seeds": 1, "noise_std": 0.1}, metrics=ROBUST)
    found = work(batch, 2)[0]
    gone = np.isfinite(found["network/diverged_at"])
    assert gone.tolist() == [False, True]
    assert np.isnan(found["network/loss"][1, -1])
    assert np.isnan(found["network/robust_accuracy"][1, -1])
    assert np.isnan(found["network/robust_wins"][1, -1])
    calm = work(replace(batch, runs=batch.runs[:1]), 2)[0]
    for name, values in calm.items():
        if name != "iteration":
            assert np.array_equal(values, found[name][:1], equal_nan=True), name


def test_times_are_medians_over_classes_and_never_counts_as_late():
    nan, inf = np.nan, np.inf
    found = middle(np.array([[1.0, 5.0, 3.0], [1.0, nan, 3.0], [1.0, nan, inf], [nan, nan, nan]]))
    assert np.array_equal(found, [3.0, 3.0, nan, nan], equal_nan=True)


def test_minibatches_and_the_reference_engine_are_swept_too():
    for base in ({"batch_size": 2}, {"backend": "numpy", "n_iter": 4}):
        batch = batch_of({"alpha": [2.0, 3.0]}, base)
        whole = Work(batch).results()
        last = Work(replace(batch, runs=batch.runs[-1:])).results()
        assert np.allclose(whole["network/loss"][-1], last["network/loss"][0], rtol=1e-6)
        assert whole["network/loss"][-1, -1] != whole["network/loss"][-1, 0]


def test_what_is_certified_holds_below_and_what_is_broken_stays_broken_above(monkeypatch):
    """A certificate covers sample 0 at the largest radius only, a search breaks sample 1 at the least only."""
    config = Figure3Config(**SMALL | {"n_seeds": 1})
    data, eps = config.data("test"), np.array([[0.1], [0.2], [0.3]])
    net = advfeat.PatchCNN.nonrobust_minimum(5.0, data.features, q=3, rho=5.0)
    net = net.with_weights(net.W[None])
    assert net.accuracy(data.X, data.y) == 1

    def prove(model, held, radius, active, **_):
        first, second = (np.arange(active.shape[1])[None] == n for n in (0, 1))
        return active & first & (radius == 0.3), active & second & (radius == 0.1), held.X

    monkeypatch.setattr(catalogue, "prove", prove)
    known = Evaluation(net, data)
    for radius in eps[::-1]:
        known.prove(radius, "linear")
    found = [known.at(radius) for radius in eps]
    assert [one.certified[0, :3].tolist() for one in found] == [[True, False, False]] * 3
    assert [one.standing[0, :3].tolist() for one in found] == [[True, False, True]] * 3

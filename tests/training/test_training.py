"""Training: exact resume, clean stops, divergence, independence of batch and threads, and the exact recursions."""

import os
import signal

import numpy as np
import pytest
from advfeat.kernels.cpu import engine as cpu_engine

from advfeat import (
    CheckpointError,
    DivergenceError,
    PatchCNN,
    PatchData,
    PatchDistribution,
    TrainConfig,
    TrainingInterrupted,
    correlations,
    load,
    train,
)
from advfeat.core.rng import STREAMS, stream

LAW = PatchDistribution(n_classes=3, patch_dim=11, n_patches=5, n_robust=1, alpha=2.0, beta=1.0, noise_std=0.1)
RUNS = [LAW.sample(9, 10 + s, balanced=True) for s in range(3)]
DATA = PatchData.stack(RUNS)
NET = PatchCNN.init(3, 4, 11, rng=[20, 21, 22], init_std=0.3, q=3, rho=2.0, dtype="float32")
STANDARD = TrainConfig(lr=0.3, n_iter=24, record_every=6)
ADVERSARIAL = TrainConfig(
    lr=[0.3, 0.2, 0.1], n_iter=24, adversarial=True, ascent_lr=0.5, eps=[0.3, 0.5, 0.4], record_every=6
)
MINIBATCH = TrainConfig(lr=0.3, n_iter=24, batch_size=4, seed=[7, 8, 9], record_every=6)
CONFIGS = {"standard": STANDARD, "adversarial": ADVERSARIAL, "minibatch": MINIBATCH}


def single(config: TrainConfig, r: int) -> TrainConfig:
    """The configuration of run r alone."""
    keys = TrainConfig.keys()
    values = {k: v[r] if isinstance(v, list) and keys[k].per_run else v for k, v in config.as_dict().items()}
    return TrainConfig(**values)


def assert_equal(a, b):
    assert np.array_equal(a.net.W, b.net.W)
    assert a.history.keys() == b.history.keys()
    for name in a.history:
        assert np.array_equal(a.history[name], b.history[name], equal_nan=True), name


class Stop(Exception):
    pass


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_resumed_run_equals_uninterrupted_run_bit_for_bit(config, tmp_path):
    def crash(net, iteration):
        if iteration == 18:
            raise Stop
        return {"extra": np.arange(3.0) + iteration}

    whole = train(NET, DATA, config, DATA, metrics=lambda net, it: {"extra": np.arange(3.0) + it})
    with pytest.raises(Stop):
        train(NET, DATA, config, DATA, metrics=crash, run_dir=tmp_path)
    assert load(tmp_path).history["iteration"][-1] == 12
    resumed = train(
        NET, DATA, config, DATA, metrics=lambda net, it: {"extra": np.arange(3.0) + it}, run_dir=tmp_path
    )  # fmt: skip
    assert_equal(resumed, whole)
    assert np.array_equal(load(tmp_path).net.W, whole.net.W)
    with np.load(tmp_path / "history.npz") as held:
        assert set(held.files) == set(whole.history)


def test_ctrl_c_stops_between_iterations_and_the_same_call_continues(tmp_path):
    config = TrainConfig(lr=0.3, n_iter=4000, record_every=500)

    def press(what, share):
        if share >= 700 / 4000:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingInterrupted) as stop:
        train(NET, DATA, config, run_dir=tmp_path, progress=press)
    assert signal.getsignal(signal.SIGINT) is before
    assert 700 <= stop.value.iteration < 4000
    assert stop.value.result.history["iteration"][-1] == stop.value.iteration // 500 * 500
    assert_equal(train(NET, DATA, config, run_dir=tmp_path), train(NET, DATA, config))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_run_in_a_batch_equals_the_run_alone_bit_for_bit(config):
    batch = train(NET, DATA, config)
    for r in range(3):
        alone = train(NET.run(r), RUNS[r], single(config, r))
        assert np.array_equal(alone.net.W, batch.net.W[r])
        for name, value in alone.history.items():
            together = batch.history[name]
            assert np.array_equal(value, together if name == "iteration" else together[:, r]), name


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_threads_do_not_change_a_bit(config, set_threads):
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        results.append(train(NET, DATA, config))
    assert_equal(results[0], results[1])
    assert_equal(results[0], results[2])


def test_minibatches_visit_every_sample_once_per_epoch():
    """With q-independent data of one sample per feature, an epoch of size-1 batches moves every class once."""
    from advfeat.training.loop import Trainer

    trainer = Trainer(NET.run(0), RUNS[0], TrainConfig(lr=1.0, n_iter=9, batch_size=4))
    seen = [trainer.minibatch(i)[0][0] for i in range(3)]
    assert [len(x) for x in seen] == [4, 4, 1]
    rows = {row.tobytes() for x in seen for row in x}
    assert rows == {row.tobytes() for row in RUNS[0].X.astype(np.float32)}
    assert not np.array_equal(trainer.minibatch(0)[0], trainer.minibatch(3)[0])


@pytest.mark.parametrize("threads", [1, 2])  # whole runs per thread, chunks per thread
@pytest.mark.parametrize("batch_size", [None, 9])
def test_divergence_names_the_iteration_and_keeps_what_was_recorded(batch_size, threads, tmp_path, monkeypatch):
    monkeypatch.setattr(cpu_engine, "_threads", threads)
    config = TrainConfig(lr=[0.1, 3e38, 0.1], n_iter=30, record_every=10, batch_size=batch_size)
    with pytest.raises(DivergenceError, match=r"iteration \d+ in run 1: the loss or a weight is not finite") as error:
        train(NET, DATA, config, run_dir=tmp_path)
    assert error.value.runs == [1]
    assert error.value.iteration < 10  # seen at once, not at the next record
    assert error.value.result.history["iteration"].tolist() == [0]
    assert np.isfinite(load(tmp_path).net.W).all()
    with np.load(tmp_path / "history.npz") as held:
        assert np.isfinite(held["loss"]).all()


def test_weights_that_diverge_in_the_last_iteration_are_not_returned():
    X = (1e10 * DATA.X).astype(np.float32)  # the gradient's size: the largest lr that float32 holds is not enough
    with pytest.raises(DivergenceError, match="iteration 1 in run 0"):
        train(NET, (X, DATA.y), TrainConfig(lr=[3e38, 1e-30, 1e-30], n_iter=1))


def test_history_says_what_the_network_says():
    result = train(NET, DATA, ADVERSARIAL, DATA)
    net, last = result.net, {name: a[-1] for name, a in result.history.items()}
    assert result.history["iteration"].tolist() == [0, 6, 12, 18, 24]
    assert np.allclose(last["loss"], net.loss(DATA.X, DATA.y), rtol=1e-12)
    assert np.array_equal(last["test_accuracy"], net.accuracy(DATA.X, DATA.y))
    for name, value in correlations(net, LAW.features).items():
        assert np.array_equal(last[name], value)


def test_the_given_network_is_left_alone():
    before = NET.W.copy()
    train(NET, DATA, STANDARD)
    assert np.array_equal(NET.W, before)


def test_noiseless_standard_training_follows_the_exact_recursion():
    """Lemma 5.1, D.2, D.4: correlations move by a scalar recursion, free of d, and the orthogonal part never moves."""
    k, alpha, beta, lr, q, rho = 3, 2.0, 1.0, 0.4, 3, 1.5
    law = PatchDistribution(n_classes=k, patch_dim=13, n_patches=5, n_robust=2, alpha=alpha, beta=beta)
    data = law.sample(6, 1, balanced=True)
    net = PatchCNN.init(k, 4, 13, rng=3, init_std=0.5, q=q, rho=rho)
    features = np.concatenate(law.features)
    C = net.W @ features.T  # (k, m, 2k)
    for _ in range(400):
        new = C.copy()
        for j in range(k):  # classes of the data: every sample of class j looks the same
            parts = ((2, alpha, C[..., j], j), (3, beta, C[..., k + j], k + j))
            F = sum(n * net.activation(s * c).sum(axis=1) for n, s, c, _ in parts)
            e = (np.arange(k) == j) - np.exp(F - F.max()) / np.exp(F - F.max()).sum()
            for n, s, c, column in parts:
                new[..., column] += lr / k * e[:, None] * n * s * net.activation.derivative(s * c)
        C = new
    trained = train(net, data, TrainConfig(lr=lr, n_iter=400)).net
    assert np.abs(C).max() > 1
    assert np.abs(trained.W @ features.T - C).max() <= 1e-13 * np.abs(C).max()
    outside = np.eye(13) - features.T @ features
    assert np.abs((trained.W - net.W) @ outside).max() == 0


BAD = {
    "lr": ({"lr": -1.0, "n_iter": 1}, "lr = -1.0"),
    "n_iter": ({"lr": 1.0, "n_iter": 1.5}, "n_iter = 1.5"),
    "eps missing": ({"lr": 1.0, "n_iter": 1, "adversarial": True, "ascent_lr": 1.0}, "eps = None: must be given"),
    "eps unused": ({"lr": 1.0, "n_iter": 1, "eps": 0.1}, "eps = 0.1: must be None"),
    "eps negative": ({"lr": 1.0, "n_iter": 1, "adversarial": True, "ascent_lr": 1.0, "eps": -0.1}, "eps = -0.1"),
    "objective": ({"lr": 1.0, "n_iter": 1, "objective": "margn"}, "did you mean 'margin'"),
    "record": ({"lr": 1.0, "n_iter": 1, "record_every": 0}, "record_every = 0"),
}


@pytest.mark.parametrize(("values", "message"), BAD.values(), ids=BAD)
def test_bad_configurations_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)


def test_streams_are_apart_by_seed_name_and_key():
    keys = [(s, name, *key) for s in (0, 1) for name in STREAMS for key in ((), (0,), (1,), (0, 1), (1, 0))]
    draws = {stream(*key).integers(2**63) for key in keys}
    assert len(draws) == len(keys)
    assert stream(3, "init", 2).integers(2**63) == stream(3, "init", 2).integers(2**63)


def test_bad_shapes_are_named_before_any_work(tmp_path):
    with pytest.raises(ValueError, match=r"lr has shape \(2,\): must be one number or one per run \(3,\)"):
        train(NET, DATA, TrainConfig(lr=[0.1, 0.1], n_iter=1), run_dir=tmp_path / "none")
    with pytest.raises(ValueError, match=r"seed = \(1, 2\): must be an integer >= 0, or one per run \(3,\)"):
        train(NET, DATA, TrainConfig(lr=0.1, n_iter=1, seed=[1, 2]), run_dir=tmp_path / "none")
    with pytest.raises(ValueError, match="batch_size = 10: must be <= the number of samples 9"):
        train(NET, DATA, TrainConfig(lr=0.1, n_iter=1, batch_size=10), run_dir=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_folder_of_another_run_is_refused_and_kept(tmp_path):
    train(NET, DATA, STANDARD, run_dir=tmp_path)
    kept = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    other = TrainConfig(lr=0.2, n_iter=24, record_every=6)
    with pytest.raises(CheckpointError, match=r"lr was 0.3 and is 0.2"):
        train(NET, DATA, other, run_dir=tmp_path)
    with pytest.raises(CheckpointError, match="its data differ"):
        train(NET, PatchData.stack(RUNS[::-1]), STANDARD, run_dir=tmp_path)
    with pytest.raises(CheckpointError, match="its initial network differs"):
        train(NET.with_weights(2 * NET.W), DATA, STANDARD, run_dir=tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == kept


@pytest.mark.parametrize("damage", ["truncated", "foreign", "text", "npy"])
def test_a_damaged_checkpoint_is_refused_and_kept(damage, tmp_path):
    train(NET, DATA, STANDARD, run_dir=tmp_path)
    file = tmp_path / "checkpoint.npz"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "foreign":
        np.savez(file, weights=np.zeros(3))
    elif damage == "npy":
        with open(file, "wb") as target:
            np.save(target, np.zeros(3))
    else:
        file.write_text("hello")
    kept = file.read_bytes()
    for action in (lambda: train(NET, DATA, STANDARD, run_dir=tmp_path), lambda: load(tmp_path)):
        with pytest.raises(CheckpointError, match=r"checkpoint.npz: (truncated|damaged|is not|not)"):
            action()
    assert file.read_bytes() == kept

"""Run folders: what one piece costs, damage that is named, one writer at a time, kills that lose nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from single_bits import errors

import advfeat as af
from advfeat.core import store
from advfeat.core.lock import Lock
from advfeat.training.run_folder import START, append_records, read_checkpoint, read_records

HELD = Path(__file__).parents[1] / "data" / "0.1.0"
LAW = af.PatchDistribution(n_classes=3, patch_dim=8, n_patches=4, n_robust=1, alpha=2.0, beta=1.0, noise_std=0.1)
DATA = LAW.sample(6, 0)
NET = af.PatchCNN.init(3, 2, 8, rng=[1, 2], init_std=0.3, q=3, rho=2.0)
CONFIG = af.TrainConfig(lr=0.3, n_iter=40, record_every=5)


def same(a, b):
    assert np.array_equal(a.net.W, b.net.W)
    assert list(a.history) == list(b.history)
    for name in a.history:
        assert np.array_equal(a.history[name], b.history[name], equal_nan=True), name


def stop_at(iteration):
    def measure(net, now):
        if now == iteration:
            raise KeyboardInterrupt
        return {"kept": np.array(float(now))}

    return measure


@pytest.fixture
def half(tmp_path):
    """A run folder that stands at iteration 20 of 40."""
    with pytest.raises(KeyboardInterrupt):
        af.train(NET, DATA, CONFIG, metrics=stop_at(25), run_dir=tmp_path / "run")
    return tmp_path / "run"


def go_on(folder):
    return af.train(NET, DATA, CONFIG, metrics=stop_at(None), run_dir=folder)


WHOLE = af.train(NET, DATA, CONFIG, metrics=stop_at(None))


# ------------------------------------------------------------------ what it costs
def test_a_checkpoint_costs_the_same_however_long_the_history(tmp_path, monkeypatch):
    written, sizes, save = [], [], store.save_state

    def count(path, *rest):
        save(path, *rest)
        sizes.append(os.path.getsize(path))
        written.append(os.path.getsize(Path(path).parent / "records.bin"))

    monkeypatch.setattr(store, "save_state", count)
    af.train(NET, DATA, af.TrainConfig(lr=0.01, n_iter=400, record_every=1), run_dir=tmp_path)
    assert len(sizes) == 401
    assert max(sizes) - min(sizes) <= 64  # digits of the iteration and of the position
    assert len(set(np.diff(written)[1:])) == 1


def test_the_parts_of_a_folder(half):
    assert {path.name for path in half.iterdir()} == {"config.json", "checkpoint.npz", "records.bin"}
    same(go_on(half), WHOLE)
    assert {path.name for path in half.iterdir()} == {"config.json", "checkpoint.npz", "records.bin", "history.npz"}
    with np.load(half / "history.npz") as held:
        assert set(held.files) == set(WHOLE.history)


def test_dropped_runs_are_kept_in_the_folder(tmp_path):
    config = af.TrainConfig(lr=[0.1, 3e38], n_iter=20, record_every=5)
    net, data = NET.astype("float32"), (np.float32(1e3) * DATA.X.astype("float32"), DATA.y)
    whole = af.train(net, data, config, diverged="drop")
    found = af.train(net, data, config, diverged="drop", run_dir=tmp_path)
    again = af.train(net, data, config, diverged="drop", run_dir=tmp_path)
    for one in (found, again):
        same(one, whole)
        assert np.array_equal(one.diverged_at, whole.diverged_at, equal_nan=True)
    assert np.isnan(whole.diverged_at).tolist() == [True, False]


# ------------------------------------------------------------------ damage
@pytest.mark.parametrize("name", ["config.json", "checkpoint.npz", "records.bin"])
def test_no_flipped_bit_is_silent(name, half):
    """Either an error that names the folder, or the very same networks and histories."""

    def read():
        run = af.load(half)
        return run.config, run.net.W.tobytes(), {name: a.tobytes() for name, a in run.history.items()}

    said = errors(half / name, read, 300)
    assert len(said) > 250
    assert all(str(half) in text for text in said)
    same(go_on(half), WHOLE)


def test_a_state_whose_weights_were_changed_is_refused(half):
    with np.load(half / "checkpoint.npz") as held:
        arrays = {name: held[name] for name in held.files}
    np.savez(half / "checkpoint.npz", **arrays | {"model/W": arrays["model/W"] + 1e-9})
    for action in (lambda: af.load(half), lambda: go_on(half)):
        with pytest.raises(af.CheckpointError, match=r"checkpoint.npz: damaged, its content is not what was written"):
            action()


def rewritten(folder, change_head=None, change_arrays=None):
    """A checkpoint with a right digest and something else in it."""
    head, arrays = store.load_state(folder / "checkpoint.npz")
    store.save_state(folder / "checkpoint.npz", head | (change_head or {}), arrays | (change_arrays or {}))


ABSURD = {
    "negative": ({"iteration": -5}, {}, "iteration = -5: must be in 0..40"),
    "absurd": ({"iteration": 10**30}, {}, "must be in 0..40"),
    "text": ({"iteration": "20"}, {}, "not a checkpoint of advfeat"),
    "records": ({"records": {"bytes": 5, "digest": ""}}, {}, "damaged, it is not what the checkpoint belongs to"),
    "identity": ({"identity": {}}, {}, "not a checkpoint of advfeat"),
    "classes": ({}, {"model/W": np.zeros((2, 4, 2, 8))}, r"does not fit this training, its W has shape \(2, 4, 2, 8\)"),
    "dtype": ({}, {"model/W": np.zeros((2, 3, 2, 8), "float32")}, "does not fit this training, its W"),
    "kind": ({"kind": "other"}, {}, "does not fit this training, it holds a model of kind 'other'"),
    "start": ({"identity": {"config": CONFIG.as_dict(), "start": "x"}}, {}, "its initial network differs"),
}


@pytest.mark.parametrize(("head", "arrays", "message"), ABSURD.values(), ids=ABSURD)
def test_a_foreign_or_absurd_state_is_refused(head, arrays, message, half):
    rewritten(half, head, arrays)
    kept = (half / "checkpoint.npz").read_bytes()
    with pytest.raises(af.CheckpointError, match=message):
        go_on(half)
    assert (half / "checkpoint.npz").read_bytes() == kept


def test_records_that_are_missing_are_named(half):
    (half / "records.bin").unlink()
    for action in (lambda: af.load(half), lambda: go_on(half)):
        with pytest.raises(af.CheckpointError, match=r"run/records.bin: there is no such file"):
            action()


FIRST = {
    "no history": (lambda a: {k: v for k, v in a.items() if not k.startswith("history/")}, "has no 'iteration'"),
    "short history": (lambda a: {k: v[:-1] if k.startswith("history/") else v for k, v in a.items()}, "is not that of"),
    "one short": (lambda a: a | {"history/loss": a["history/loss"][:-1]}, "'loss' has shape"),
    "negative": (lambda a: a | {"iteration": np.array(-1)}, "iteration = -1"),
    "absurd": (lambda a: a | {"iteration": np.array(10**12)}, "iteration = 1000000000000"),
    "not whole": (lambda a: a | {"iteration": np.array(1.5)}, "must be one integer"),
    "no identity": (lambda a: {k: v for k, v in a.items() if k != "identity"}, "is not a state that advfeat saved"),
    "identity": (lambda a: a | {"identity": np.array("[[[")}, "not a checkpoint of advfeat"),
    "runs": (lambda a: a | {"W": a["W"][:1]}, "its history is not that of weights of shape"),
    "flat": (lambda a: a | {"W": a["W"][0, 0]}, "its history is not that of weights of shape"),
}


@pytest.mark.parametrize(("change", "message"), FIRST.values(), ids=FIRST)
def test_a_damaged_checkpoint_of_version_0_1_0_is_named(change, message, tmp_path):
    """It has no digest: what contradicts itself is still seen."""
    folder = shutil.copytree(HELD / "half-training", tmp_path / "run")
    with np.load(folder / "checkpoint.npz") as held:
        arrays = {name: held[name] for name in held.files}
    np.savez(folder / "checkpoint.npz", **change(arrays))
    with pytest.raises(af.CheckpointError, match=message) as error:
        af.load(folder)
    assert "checkpoint.npz" in str(error.value)


CONFIGS = {
    "a list": "[1, 2]",
    "no config": json.dumps({"format": "advfeat-1", "environment": {}}),
    "config a list": json.dumps({"format": "advfeat-1", "environment": {}, "config": []}),
    "a newer format": json.dumps({"format": "advfeat-9", "environment": {}, "config": {}}),
    "trainings": json.dumps({"format": "advfeat-1", "environment": {}, "config": {}, "trainings": ["../../x"]}),
    "deep": "[" * 100000,
    "empty": "",
}


@pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS)
def test_a_damaged_config_is_named(text, half):
    (half / "config.json").write_text(text)
    with pytest.raises(af.CheckpointError, match=r"config.json: "):
        af.load(half)


def test_a_field_that_came_later_does_not_make_a_folder_foreign(half):
    head, arrays = store.load_state(half / "checkpoint.npz")
    for name in ("momentum", "weight_decay"):
        del head["identity"]["config"][name]
    store.save_state(half / "checkpoint.npz", head, arrays)
    same(go_on(half), WHOLE)


# ------------------------------------------------------------------ records in pieces
def test_what_a_killed_process_left_behind_the_last_checkpoint_goes(tmp_path):
    path, first = tmp_path / "records.bin", {"a": np.arange(3)}
    end = append_records(path, 0, START, first)
    with open(path, "ab") as file:
        file.write(b"half a block" * 1000)
    later = append_records(path, *end, {"b": np.arange(2)})
    assert path.stat().st_size == later[0]
    assert [set(block) for block in read_records(path, *later)] == [{"a"}, {"b"}]
    assert [set(block) for block in read_records(path, *end)] == [{"a"}]


# ------------------------------------------------------------------ one writer
def test_another_writer_is_refused(half):
    code = f"from advfeat.core.lock import Lock\nwith Lock({str(half)!r}):\n  print(1, flush=True)\n  input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"1\n"
        kept = {path.name: path.read_bytes() for path in half.iterdir()}
        with pytest.raises(af.CheckpointError, match="another process is writing here"):
            go_on(half)
        assert {path.name: path.read_bytes() for path in half.iterdir()} == kept
        other.stdin.close()
    same(go_on(half), WHOLE)
    with Lock(half):
        pass


KILLED = textwrap.dedent("""
    import os, signal, sys
    sys.path[:0] = {tests!r}
    import advfeat as af
    from advfeat.core import store
    from test_run_folder import CONFIG, DATA, NET, stop_at
    left, replace = {at}, os.replace
    def count(*paths):
        global left
        left -= 1
        if left == 0: os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)
        if left == -1: os.kill(os.getpid(), signal.SIGKILL)
    os.replace = count
    af.train(NET, DATA, CONFIG, metrics=stop_at(None), run_dir={folder!r})
""")


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.one_in(4)
@pytest.mark.parametrize("at", range(1, 13))
def test_a_killed_training_continues_to_the_same_bits(at, tmp_path):
    """Killed before, and at the end of, each file that is put in its place."""
    place = {"tests": [str(folder) for folder in Path(__file__).parents[:2]], "folder": str(tmp_path / "run")}
    code = KILLED.format(at=at, **place)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode in (-signal.SIGKILL, 0), done.stderr.decode()
    same(go_on(tmp_path / "run"), WHOLE)
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


def test_read_checkpoint_says_what_a_state_is(half):
    held = read_checkpoint(half / "checkpoint.npz")
    assert (held.iteration, held.kind, held.options) == (20, "patch-cnn", {"backend": "numba"})
    for block in read_records(half / "records.bin", *held.records):
        assert "loss" in block

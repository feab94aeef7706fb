"""What was known to fall short: radii from far away, equality and `repr`, long values, paths that are numbers."""

import dataclasses
import os
import time

import numpy as np
import pytest

import advfeat as af
from advfeat import theory
from advfeat.core import checks, store
from advfeat.images.inversion import Inversion

DIST = af.PatchDistribution(n_classes=2, patch_dim=6, n_patches=4, n_robust=1, alpha=2.0, beta=1.0, noise_std=0.3)
DATA = DIST.sample(5, 0)
NET = af.PatchCNN(np.random.default_rng(0).standard_normal((2, 3, 6)))


@pytest.mark.parametrize("high", [1e300, 1e30, np.array([1e300, 1e-300, 1.0, 0.0, 1e10])], ids=str)
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_radii_from_far_away_end_within_their_tolerance(norm, high):
    """No perturbation longer than the sample is looked at, so that `high` beyond it changes no bit."""
    near = af.robust_radius(NET, DATA.X, DATA.y, norm=norm, method="linear", rtol=0.01)
    far = af.robust_radius(NET, DATA.X, DATA.y, norm=norm, method="linear", rtol=0.01, high=high)
    beyond = np.broadcast_to(high, 5) >= 1e10
    np.testing.assert_array_equal(far.broken[beyond], near.broken[beyond])
    np.testing.assert_array_equal(far.certified[beyond], near.certified[beyond])
    assert (far.certified <= np.broadcast_to(high, 5)).all()


CONFIGURATIONS = {
    "training": lambda: af.TrainConfig(lr=0.1, n_iter=3),
    "rates of runs": lambda: af.TrainConfig(lr=np.array([0.1, 0.2]), n_iter=3, seed=[1, 2]),
    "inversion": lambda: Inversion(),
    "threat": lambda: af.ThreatModel("l2", 0.3, box=(0, 1)),
    "threat of radii": lambda: af.ThreatModel("linf", np.array([0.1, 0.2]), targets=np.array([1, 0])),
    "attack": lambda: af.PGD(n_steps=3),
    "suite": lambda: af.AttackSuite(["aligned"]),
}
RESULTS = {
    "data": lambda: DIST.sample(5, 0), "law": lambda: dataclasses.replace(DATA).features and DIST,
     "network": lambda: NET.copy(),
    "training": lambda: af.train(NET, DATA, af.TrainConfig(lr=0.1, n_iter=2)),
    "history": lambda: af.train(NET, DATA, af.TrainConfig(lr=0.1, n_iter=2)).history,
    "attack": lambda: af.FGSM()(NET, DATA, af.ThreatModel("linf", np.full(5, 0.1))),
    "suite": lambda: af.AttackSuite(["aligned"])(NET, DATA, af.ThreatModel()),
    "robust accuracy": lambda: af.robust_accuracy(NET, DATA, eps=np.full(5, 0.1), certificate="interval"),
    "certificate": lambda: af.certify(NET, DATA.X, DATA.y, 0.1, method="interval"),
    "radius": lambda: af.robust_radius(NET, DATA.X, DATA.y, method="interval", rtol=0.5),
    "state": lambda: theory.State.from_weights(NET.W, DATA.features),
    "decomposition": lambda: theory.decompose(NET.W, DATA.X, DATA.y, q=3, rho=1.0, lr=0.1, n_iter=1),
    "noise": lambda: theory.noise_update(NET.W, DATA.X, DATA.signal(), DATA.y, q=3, rho=1.0, lr=0.1),
    "leading order": lambda: theory.LeadingOrder(2, 2.0, 1.0, 1, 3, 3, 1.0, np.array([0.1, 0.2])),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configurations_and_threats_are_equal_by_value(name):
    one, other = CONFIGURATIONS[name](), CONFIGURATIONS[name]()
    assert one == other
    assert hash(one) == hash(other)
    assert one != CONFIGURATIONS["suite" if name != "suite" else "attack"]()
    assert one != 3


def test_other_values_are_not_equal():
    assert af.ThreatModel("linf", np.array([0.1, 0.2])) != af.ThreatModel("linf", np.array([0.1, 0.3]))
    assert af.ThreatModel("linf", 0.1) != af.ThreatModel("l2", 0.1)
    assert af.TrainConfig(lr=[0.1, 0.2], n_iter=3) != af.TrainConfig(lr=[0.1, 0.3], n_iter=3)


@pytest.mark.parametrize("name", RESULTS)
def test_data_and_results_are_equal_to_themselves_alone(name):
    one, other = RESULTS[name](), RESULTS[name]()
    assert one == one
    assert (one != other) == (one is not other)
    assert len({one, other}) == 2 - (one is other)


@pytest.mark.parametrize("name", CONFIGURATIONS | RESULTS)
def test_every_repr_is_one_line(name):
    for held in (CONFIGURATIONS, RESULTS):
        if name in held:
            said = repr(held[name]())
            assert "\n" not in said
            assert len(said) < 1500
            assert "object at 0x" not in said


def test_long_values_are_shown_in_short():
    for value in ("x" * 10**6, 10**5000, list(range(10**5)), np.zeros(10**6), {"a": "b" * 10**5}, b"\0" * 10**5):
        assert len(checks.shown(value)) <= checks.LONGEST
        with pytest.raises(ValueError, match=r"^n = ") as error:
            checks.integer("n", value, 1, 2)
        assert len(str(error.value)) < 200


def test_a_number_is_no_path(tmp_path):
    """`open(3)` would read, and close, whatever the process has opened as its third file."""
    handle = os.open(tmp_path, os.O_RDONLY)
    for read in (store.load_npz, store.load_json, store.read_toml, af.PatchCNN.load, af.load, store.digest_of_file):
        with pytest.raises(TypeError, match=rf" = {handle}: must be a path"):
            read(handle)
    os.close(handle)  # it is still open


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_settings_may_come_through_a_pipe_and_nothing_else_does(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (store.load_npz, store.load_json, store.digest_of_file):
        with pytest.raises(store.CheckpointError, match=r"pipe: cannot be read, it is no file"):
            read(tmp_path / "pipe")
    if os.fork() == 0:
        time.sleep(0.1)
        (tmp_path / "pipe").write_text("alpha = 3.0")
        os._exit(0)
    assert store.read_toml(tmp_path / "pipe") == {"alpha": 3.0}
    os.wait()


@pytest.mark.parametrize("room", [0, 100, 4000])
def test_what_cannot_be_written_is_named_once_and_leaves_nothing(room, tmp_path, monkeypatch):
    """A disk on which so many bytes have room."""

    class Disk:
        def __init__(self, file):
            self.file, self.left = file, room

        def write(self, data):
            self.left -= len(data)
            if self.left < 0:
                raise OSError(28, "No space left on device")
            return self.file.write(data)

    path = tmp_path / "a.npz"
    store.save_npz(path, a=np.zeros(3))
    before = path.read_bytes()
    real = store.write
    monkeypatch.setattr(store, "write", lambda path, body, mode="wb": real(path, lambda file: body(Disk(file)), mode))
    with pytest.raises(OSError, match="cannot be written") as error:
        store.save_npz(path, a=np.zeros(10_000))
    assert str(error.value).count("a.npz") == 1
    assert "No space left on device" in str(error.value)
    assert error.value.errno == 28
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.npz"]

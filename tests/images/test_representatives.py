"""Which images are represented, from what; gates; and sets that anyone can build again to the bit."""

import json
from dataclasses import replace

import numpy as np
import pytest

from advfeat.core import store
from advfeat.core.data import Samples
from advfeat.images import ConvNet
from advfeat.images.inversion import Inversion
from advfeat.images.representatives import Gate, Representatives, gate, heading, rebuilt, represent, select

OPTIONS = Inversion(n_steps=15, step=0.05, tolerance=0.1)


def data(n=40, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return Samples(rng.random((n, 1, 8, 8)).astype(np.float32), rng.integers(classes, size=n))


def reference(seed=0):
    return ConvNet(6, (1, 8, 8), stages=2, rng=seed)


@pytest.mark.parametrize("start", ["image", "noise"])
def test_selections_hang_on_the_seed_and_the_image_alone(start):
    whole = data()
    one, again, other = (select(whole, 12, start, 3, rng=seed) for seed in (1, 1, 2))
    for name in ("source", "start", "begin", "X", "y"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert (one.source != other.source).any()
    assert len(set(one.source.tolist())) == 12
    np.testing.assert_array_equal(one.X, whole.X[one.source])
    fewer = select(whole, 12, start, 2, rng=1)  # more starts leave those that were
    np.testing.assert_array_equal(fewer.begin, one.begin[:2])
    assert one.begin.shape == (3, 12, 1, 8, 8)


def test_starts_are_images_of_another_class_that_are_not_represented():
    whole = data()
    chosen = select(whole, 12, "image", 4, rng=0)
    assert (whole.y[chosen.start] != chosen.y).all()
    assert not set(chosen.start.ravel().tolist()) & set(chosen.source.tolist())
    np.testing.assert_array_equal(chosen.start_y, whole.y[chosen.start])
    np.testing.assert_array_equal(chosen.begin, whole.X[chosen.start])
    elsewhere = data(25, seed=1)
    chosen = select(whole, 12, "image", 2, begin_with=elsewhere, rng=0)
    np.testing.assert_array_equal(chosen.begin, elsewhere.X[chosen.start])
    assert (elsewhere.y[chosen.start] != chosen.y).all()


def test_noise_is_grey():
    chosen = select(data(), 12, "noise", 2)
    assert chosen.begin.min() >= 0.5
    assert 0.54 < chosen.begin.max() <= 0.55
    assert (chosen.start == -1).all()
    assert len(np.unique(chosen.begin[:, :, 0, 0, 0])) == 24


@pytest.mark.parametrize(
    ("samples", "n", "said"),
    [
        (Samples(np.zeros((9, 1, 2, 2)), np.zeros(9, int)), 4, "none of 5 images is of another class than 0"),
        (data(), 0, "n = 0"),
        (data(), 41, "n = 41: there are 40 images"),
        (data(), 40, "none of 0 images is of another class"),
    ],
)
def test_bad_selections(samples, n, said):
    with pytest.raises(ValueError, match=said):
        select(samples, n, "image")


# ------------------------------------------------------------------ gates
GOOD = {"accuracy": 0.98, "own_accuracy": 0.97, "own_nearest": 0.99, "median": 0.01, "p90": 0.05, "spacing": 0.14}


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, []),
        ({"own_accuracy": 0.94}, ["own accuracy"]),
        ({"own_nearest": 0.94}, ["own target nearest"]),
        ({"p90": 0.08}, ["p90 distance"]),
        ({"spacing": 0.0}, ["p90 distance"]),
        ({"accuracy": 0.1, "own_accuracy": 0.05}, []),  # an untrained reference has no accuracy to keep
        ({"own_accuracy": 0.1, "own_nearest": 0.1, "p90": 1.0}, ["own accuracy", "own target nearest", "p90 distance"]),
    ],
)
def test_each_of_a_gates_rules(changes, failed):
    found = Gate(**GOOD | changes)
    assert [said.startswith(start) for said, start in zip(found.failed, failed, strict=True)] == [True] * len(failed)
    assert found.passed == (not failed)


def test_a_gate_is_what_it_says():
    net, samples = reference(), data(12)
    g = net.representation(samples.X).astype(np.float64)
    y = net.logits(samples.X).argmax(axis=1)
    found = np.roll(samples.X, 1, axis=0).copy()  # represented as another image: its own target is not nearest
    found[:3] = samples.X[:3]
    size = np.linalg.norm(g, axis=1)
    distance = np.linalg.norm(net.representation(found) - g, axis=1) / size
    held = gate(net, samples.X, y, found, distance)
    between = [[np.linalg.norm(a - b) for b in g] for a in net.representation(found).astype(np.float64)]
    assert held.own_nearest == np.mean([np.argmin(row) == i for i, row in enumerate(between)])
    assert held.accuracy == 1
    assert held.own_accuracy == np.mean(net.logits(found).argmax(axis=1) == y)
    apart = [min(np.linalg.norm(g[i] - g[j]) for j in range(12) if j != i and y[j] == y[i]) / size[i] for i in range(12)
             if (y == y[i]).sum() > 1]  # fmt: skip
    assert held.spacing == pytest.approx(np.median(apart))
    assert (held.median, held.p90) == (np.median(distance), np.quantile(distance, 0.9))
    assert not held.passed


# ------------------------------------------------------------------ files
@pytest.fixture
def made(tmp_path):
    net, chosen = reference(), select(data(), 9, "image", 2)
    found = represent(net, chosen, OPTIONS, {"data": "random"}, parts=tmp_path)
    return net, chosen, found, tmp_path


def test_representatives_lie_closer_than_their_starts(made):
    net, chosen, found, _ = made
    g, size = net.representation(chosen.X), np.linalg.norm(net.representation(chosen.X), axis=1)
    rows = np.arange(9)
    begin = chosen.begin[found.restart, rows]
    before, after = (np.linalg.norm(net.representation(X) - g, axis=1) / size for X in (begin, found.X))
    np.testing.assert_allclose(after, found.distance, rtol=1e-4)
    assert (after <= before).all()
    assert (found.distance <= OPTIONS.tolerance).all()
    assert (before > OPTIONS.tolerance).sum() > 5
    np.testing.assert_array_equal(found.start, chosen.start[found.restart, rows])
    np.testing.assert_array_equal(found.y, chosen.y)


def test_a_stopped_inversion_continues_to_the_same_bits(made, tmp_path):
    net, chosen, _, _ = made
    about, options = {"data": "random"}, replace(OPTIONS, tolerance=1e-6, enough=1e-6)
    found = represent(net, chosen, options, about)
    assert set(found.restart) == {0, 1}

    def stop(what, share):
        if share >= (1 + 3 / options.n_steps) / len(chosen.begin):
            raise KeyboardInterrupt

    place, seen = tmp_path / "again", []
    place.mkdir()
    with pytest.raises(KeyboardInterrupt):
        represent(net, chosen, options, about, parts=place, progress=stop)
    before = {path.name: path.stat().st_mtime_ns for path in place.iterdir()}
    assert list(before) == ["0.npz"]
    again = represent(net, chosen, options, about, parts=place, progress=lambda what, _: seen.append(what))
    assert {what.split(",")[0] for what in seen} == {"start 2 of 2"}
    assert (place / "0.npz").stat().st_mtime_ns == before["0.npz"]
    assert again.datasheet() == found.datasheet()
    with pytest.raises(store.CheckpointError, match="is a part of other representatives"):
        represent(reference(1), chosen, options, about, parts=place)


def test_a_set_comes_back_from_its_file(made):
    _, _, found, place = made
    found.save(place / "set")
    again = Representatives.load(place / "set")
    assert again.head == found.head
    assert store.load_json(place / "set.json")["digests"] == found.datasheet()["digests"]
    for name, a in found.arrays.items():
        np.testing.assert_array_equal(getattr(again, name), a)
    store.save_state(place / "foreign.npz", {}, {"X": found.X})
    with pytest.raises(store.CheckpointError, match="no set of representatives"):
        Representatives.load(place / "foreign")


def test_anyone_builds_a_set_again_from_its_datasheet(made):
    net, chosen, found, _ = made
    sheet = json.loads(json.dumps(found.datasheet()))
    again, said = rebuilt(sheet, net, chosen)
    assert said == []
    np.testing.assert_array_equal(again.X, found.X)
    assert again.is_of(heading(net, chosen, OPTIONS, {"data": "random"}))
    assert not again.is_of(heading(net, chosen, Inversion(), {"data": "random"}))


@pytest.mark.parametrize("what", ["reference", "images", "starts", "bits", "inversion"])
def test_what_differs_from_a_datasheet_is_said(made, what):
    net, chosen, found, _ = made
    sheet, other = found.datasheet(), select(data(seed=3), 9, "image", 2)
    if what == "reference":
        net = reference(1)
    elif what == "images":
        chosen = other
    elif what == "starts":
        chosen = type(chosen)(chosen.X, chosen.y, chosen.source, other.start, other.start_y, other.begin)
    elif what == "bits":
        sheet["digests"] = sheet["digests"] | {"X": store.digest(found.X + 1)}
    else:
        sheet["inversion"] = Inversion(n_steps=3).as_dict()
    said = " ".join(rebuilt(sheet, net, chosen)[1])
    wanted = {"reference": "The reference that", "images": "The images that", "starts": "The starts that",
              "bits": "X came out otherwise", "inversion": "X came out otherwise"}  # fmt: skip
    assert wanted[what] in said


def test_a_reference_of_another_input_shape_is_refused():
    with pytest.raises(ValueError, match="the reference reads"):
        represent(ConvNet(4, (1, 9, 9), stages=2), select(data(), 5, "noise"), OPTIONS, {})

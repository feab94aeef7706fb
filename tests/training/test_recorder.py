"""What is recorded: clocks of their own, names that stay, files in pieces and in one."""

import numpy as np
import pytest

from advfeat.training import History, Measurement
from advfeat.training.recorder import Recorder


def recorder(n_iter=10):
    fast = Measurement(lambda model, it: {"a": np.full(2, it), "b": np.array(it / 2)}, 2)
    slow = Measurement(lambda model, it: {"c": np.full((2, 3), float(it))}, 4)
    return Recorder([fast, slow], n_iter)


def run(one, iterations):
    for iteration in iterations:
        one.record(None, iteration)
    return one


def same(a, b):
    assert list(a) == list(b)
    for name in a:
        assert np.array_equal(a[name], b[name], equal_nan=True), name
        if name != "iteration":
            assert np.array_equal(a.at(name).iteration, b.at(name).iteration), name


def test_every_measurement_has_its_clock_and_the_last_iteration():
    one, at = recorder(), [0]
    while at[-1] < 10:
        at.append(one.next(at[-1]))
    assert at == [0, 2, 4, 6, 8, 10]
    history = run(one, at).history()
    assert history["iteration"].tolist() == at
    assert history.at("a").iteration.tolist() == at
    assert history.at("c").iteration.tolist() == [0, 4, 8, 10]
    assert history["c"].shape == (4, 2, 3)
    assert not np.isnan(history["c"]).any()
    assert set(history) == {"iteration", "a", "b", "c"}
    assert len(history) == 4


def test_a_name_that_was_not_recorded_is_named_with_the_nearest():
    history = run(recorder(), [0]).history()
    with pytest.raises(KeyError, match="'aa' was not recorded; did you mean 'a'"):
        history.at("aa")


def test_a_file_holds_the_clocks_of_all_series():
    history = run(recorder(), [0, 2, 4]).history()
    arrays = history.arrays()
    assert set(arrays) == {"iteration", "a", "b", "c", "iteration/c"}
    same(History.from_arrays(arrays), history)


def test_rows_of_nan_of_version_0_1_0_are_no_measurements():
    held = {"iteration": np.array([0, 2, 4]), "a": np.array([[1.0, np.nan], [2, 2], [3, 3]]),
            "c": np.array([[1.0, 1], [np.nan, np.nan], [2, np.nan]])}  # fmt: skip
    history = History.from_arrays(held)
    assert history.at("a").iteration.tolist() == [0, 2, 4]
    assert history.at("c").iteration.tolist() == [0, 4]
    assert history["c"].tolist()[0] == [1, 1]


BAD = {
    "missing": ({"a": np.zeros(2)}, "no 'iteration'"),
    "descending": ({"iteration": np.array([0, 2, 1])}, "do not ascend"),
    "negative": ({"iteration": np.array([-1, 2])}, "do not ascend from 0"),
    "floats": ({"iteration": np.array([0.0, 2.0])}, "do not ascend"),
    "empty": ({"iteration": np.zeros(0, int)}, "do not ascend"),
    "short": ({"iteration": np.array([0, 2]), "a": np.zeros(3)}, r"'a' has shape \(3,\) for 2 records"),
    "scalar": ({"iteration": np.array([0, 2]), "a": np.array(3.0)}, "'a' has shape"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD.values(), ids=BAD)
def test_arrays_that_are_no_history_are_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        History.from_arrays(arrays)


def test_pieces_make_the_whole_again():
    one, pieces = recorder(), []
    for iteration in (0, 2, 4, 6, 8, 10):
        one.record(None, iteration)
        if iteration in (2, 8, 10):
            pieces.append(one.unsaved())
    assert one.unsaved() == {}
    assert [len(piece["iteration/"]) for piece in pieces] == [2, 3, 1]
    other = recorder()
    for piece in pieces[:2]:
        other.extend(piece)
    other.record(None, 10)
    same(other.history(), one.history())
    assert {name: len(a) for name, a in other.unsaved().items()} == {name: len(a) for name, a in pieces[2].items()}


def test_a_history_in_one_piece_counts_as_not_saved():
    held, one = run(recorder(), [0, 2, 4]).history(), recorder()
    one.restore(held)
    same(one.history(), held)
    assert len(one.unsaved()["a"]) == 3


@pytest.mark.parametrize("when", ["new", "gone", "twice"])
def test_measurements_keep_their_names(when):
    """A name that comes later, that stays away once, or that two measurements return."""
    names = {"new": lambda it: ["x", "y"][: 1 + (it > 0)], "gone": lambda it: ["x", "y"][: 2 - (it == 2)],
             "twice": lambda it: ["x"]}[when]  # fmt: skip
    one = Measurement(lambda model, it: {name: np.array(it) for name in names(it)}, 2)
    with pytest.raises(ValueError, match=r"was measured \d times before iteration"):
        run(Recorder([one] * (1 + (when == "twice")), 10), [0, 2, 4])


def test_runs_that_are_gone_are_nan_in_what_follows():
    one = Recorder([Measurement(lambda model, it: {"a": np.full(2, it), "c": np.full((2, 3), it)}, 2)], 10)
    one.record(None, 0)
    one.record(None, 2, np.array([True, False]))
    history = one.history()
    assert np.isnan(history["c"][1]).all(axis=1).tolist() == [True, False]
    assert np.isnan(history["a"][1]).tolist() == [True, False]
    assert not np.isnan(history["a"][0]).any()


def test_a_clock_is_a_positive_number():
    with pytest.raises(ValueError, match="every = 0: must be an integer >= 1"):
        Measurement(lambda model, it: {}, 0)

"""benchmarks/compare.py: what counts as equal, what as slower, and that what must be compared is compared."""

import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from advfeat import PatchCNN

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import compare  # noqa: E402
import compare_bits  # noqa: E402
import compare_times  # noqa: E402

sys.path.remove(str(BENCHMARKS))


# ------------------------------------------------------------------ bits
def arrays():
    draw = np.random.default_rng(0)
    return {"W": draw.standard_normal((3, 4)), "found": np.array([True, False]), "name": np.array(["a", "b"]),
            "history/loss": np.array([1.0, np.nan, np.inf], np.float32), "nodes": np.arange(4)}  # fmt: skip


def test_the_same_bits_are_equal():
    assert compare.differences(arrays(), arrays()) == {}
    strided = arrays()
    strided["W"] = np.asfortranarray(strided["W"])  # how the numbers lie in memory is no difference
    assert compare.differences(arrays(), strided) == {}


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("W", lambda a: a + 1e-13 * np.abs(a).max() * (np.arange(12).reshape(3, 4) == 5), "1.0e-13"),
        ("W", lambda a: a.astype(np.float32), r"float64\[3, 4\] -> float32\[3, 4\]"),
        ("W", lambda a: a[:2], r"float64\[3, 4\] -> float64\[2, 4\]"),
        ("history/loss", lambda a: np.where(np.isnan(a), np.float32(0), a), "finite in one alone"),
        ("history/loss", lambda a: np.where(np.isinf(a), -a, a), "only in signs of zero or in infinities and NaN"),
        ("found", lambda a: ~a, "1.0e\\+00"),
        ("nodes", lambda a: a + (a == 3), "2.5e-01"),
        ("name", lambda a: a[::-1].copy(), "2 of 2"),
    ],
)
def test_what_differs_is_named_and_measured(name, change, said):
    other = arrays()
    other[name] = change(other[name])
    found = compare.differences(arrays(), other)
    assert list(found) == [name]
    assert re.fullmatch(said, found[name])


def test_the_last_bit_and_the_sign_of_zero_count():
    one, zero = {"W": np.ones(3)}, {"W": np.zeros(3)}
    assert compare.differences(one, {"W": np.array([1.0, np.nextafter(1.0, 2.0), 1.0])}) == {"W": "2.2e-16"}
    assert compare.differences(zero, {"W": -zero["W"]}) == {"W": "only in signs of zero or in infinities and NaN"}


def test_what_one_version_lacks_or_fails_at_differs():
    less = arrays()
    del less["W"]
    assert compare.differences(arrays(), less) == {"W": "missing in the tree"}
    assert compare.differences(less, arrays()) == {"W": "missing in REV"}
    failed = {"error": np.array("ValueError: no")}
    assert compare.differences(failed, failed) == {"error": "in REV: ValueError: no"}  # though both say the same
    assert compare.differences(arrays(), failed) == {"error": "in the tree: ValueError: no"}
    assert compare.differences({}, {}) == {"error": "no arrays at all"}


def test_digests_tell_dtype_shape_and_bytes():
    a = np.arange(6.0)
    changed = [a.reshape(2, 3), a.astype(np.float32), a[::-1], a.view(np.int64), np.append(a, 6.0)]
    assert len({compare.digest(one) for one in (a, *changed)}) == 6
    assert compare.digest(np.arange(12.0)[::2] / 2) == compare.digest(a)


def test_every_engine_training_and_dtype_has_a_group():
    for engine, dtype in product(("numba", "numpy"), ("float32", "float64")):
        trainings = ["standard", "adversarial", "minibatches", "noiseless", "noiseless-adversarial", "rates-per-run"]
        trainings += [f"{J}-{norm}" for J in ("neg_label_logit", "margin", "cross_entropy") for norm in ("linf", "l2")]
        wanted = [f"training/{name}/{engine}/{dtype}" for name in trainings]
        wanted += [f"network/small/{engine}/{dtype}", f"reproduce/{engine}/{dtype}"]
        wanted += [f"recursion/{name}/{start}/{engine}" for start in ("weights", "drawn") for name in
                   ("standard", *trainings[-6:])]  # fmt: skip
        balls = ("linf/patch", "l2/patch", "l2/global", "l1/patch", "l1/global")
        wanted += [f"{what}/{ball}/{engine}" for what in ("attacks", "certificate") for ball in balls]
        wanted += [f"{what}/{engine}" for what in ("suite", "sweep", "attacks/threats", "radius/linf/patch")]
        assert set(wanted) <= set(compare_bits.GROUPS)


def test_a_group_is_the_same_twice_and_not_with_another_sum(monkeypatch):
    names = ["training/standard/numpy/float64", "network/small/numpy/float32", "draws"]
    first, again = ({name: compare_bits.arrays_of(name) for name in names} for _ in range(2))
    for name in names:
        assert len(first[name]) >= 10
        assert compare.differences(first[name], again[name]) == {}

    engine = type(PatchCNN(np.ones((2, 1, 1)), backend="numpy").engine)
    old = engine.logits

    def backwards(self, W, batch, q, rho):
        """The same logits from the patches in reverse order: the last bits of a sum."""
        return old(self, W, self.pack(np.ascontiguousarray(batch.X[:, :, ::-1]), batch.y, len(W)), q, rho)

    monkeypatch.setattr(engine, "logits", backwards)
    changed = {name: compare_bits.arrays_of(name) for name in names}
    found = {name: compare.differences(first[name], changed[name]) for name in names}
    assert "history/loss" in found[names[0]]
    assert "W" not in found[names[0]]  # gradients do not go through it
    assert {"fresh/logits", "learned/logits"} <= set(found[names[1]])
    assert found["draws"] == {}


def test_the_worker_writes_what_the_groups_compute(tmp_path):
    compare_bits.main(str(tmp_path / "found.npz"), "draws", "predictions")
    with np.load(tmp_path / "found.npz") as held:
        keys = set(held.files)
        assert (held["draws|X"] == compare_bits.GROUPS["draws"]()["X"]).all()
    assert {key.partition("|")[0] for key in keys} == {"draws", "predictions"}


def test_a_group_that_fails_leaves_its_error(monkeypatch):
    monkeypatch.setitem(compare_bits.GROUPS, "draws", lambda: 1 / 0)
    assert str(compare_bits.arrays_of("draws")["error"]) == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("own", [256, None])
def test_numpy_groups_are_compared_once_and_numba_groups_at_every_width(monkeypatch, own, capsys):
    """A tree that knows widths beside one that does not: the machine's own alone."""
    names = ["training/standard/numba/float32", "training/standard/numpy/float32", "draws"]
    monkeypatch.setattr(compare, "width_of", lambda version, wanted=None: version.get(wanted, own))
    knows, ignores = {128: 128, 512: None}, {}
    told = list(compare.passes(names, [_Known(knows), _Known(knows)], (128, 256, 512)))
    if own is None:
        assert told[0] == (None, names)
    else:
        assert told == [(None, names), (128, names[:1])]
        assert list(compare.passes(names, [_Known(knows), _Known(ignores)], (128, 256))) == [(None, names)]
        assert "128 bits: not on this machine, or not a choice in a version" in capsys.readouterr().out
        assert list(compare.passes(names, [_Known(knows)] * 2, (128,))) == [(None, names[1:]), (128, names[:1])]


class _Known(dict):
    label = "a version"


# ------------------------------------------------------------------ speed
@pytest.mark.parametrize(
    ("tree", "again", "said"),
    [
        ([1.0, 1.01, 0.99], [1.0, 1.0, 1.0], "same"),
        ([1.06, 1.07, 1.08], [1.0, 1.0, 1.0], "slower"),
        ([1.06, 1.07, 1.08], [0.96, 1.0, 1.04], "same"),  # the floor: quartiles at 0.98 and 1.02
        ([1.08, 1.09, 1.10], [0.96, 1.0, 1.04], "slower"),
        ([1.06, 1.07, 1.08], [1.04, 1.04, 1.04], "same"),  # REV beside itself is off by as much
        ([1.0, 1.0, 9.0], [1.0, 1.0, 1.0], "same"),  # one bad round
        ([0.90, 0.90, 0.91], [1.0, 1.0, 1.0], "faster"),
        ([0.90, 0.90, 0.91], [0.80, 1.0, 1.2], "same"),
    ],
)
def test_slower_means_beyond_five_percent_and_the_spread_of_rev_beside_itself(tree, again, said):
    found, ratio, spread = compare.verdict(np.array(tree), np.array(again))
    assert found == said
    assert ratio == np.median(tree)
    assert spread >= abs(np.median(again) - 1)


def test_versions_take_turns_and_every_other_round_backwards():
    asked = []

    class Clock:
        def __init__(self, label, seconds):
            self.label, self.seconds = label, seconds

        def ask(self, name, repeats):
            asked.append((self.label, repeats))
            return self.seconds * repeats

    workers = [Clock("A", 0.002), Clock("B", 0.004), Clock("A'", 0.002)]
    seconds = compare.rounds_of(workers, "job", 2)
    assert np.allclose(seconds, [[0.002, 0.004, 0.002]] * 2)
    assert [label for label, _ in asked] == ["A", "B", "A'", "A", "B", "A'", "A'", "B", "A"]
    assert [repeats for _, repeats in asked] == [1] * 3 + [100] * 6


@pytest.mark.parametrize(("seconds", "said", "n"), [((2, 1), "same", 6), ((2, 2), "slower", 6), ((1, 2), "same", 3)])
def test_what_looks_slower_is_measured_once_more_and_longer(monkeypatch, seconds, said, n):
    tree = iter(seconds)
    monkeypatch.setattr(compare, "rounds_of", lambda _, __, rounds: np.tile([1.0, next(tree), 1.0], (rounds, 1)))
    found = compare.judged([], "job", 3)
    assert (found[1], len(found[0])) == (said, n)


def test_a_worker_answers_with_seconds_or_with_what_went_wrong():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import compare_times as c\n"
        "c.JOBS.update(good=lambda: lambda: print('noise'), bad=lambda: 1 / 0); c.main()"
    )
    job = [sys.executable, "-c", code, BENCHMARKS]
    done = subprocess.run(job, input="good 3\nbad 1\n", capture_output=True, text=True, cwd=BENCHMARKS.parent)
    seconds, error = done.stdout.splitlines()
    assert float(seconds) > 0
    assert error == "error ZeroDivisionError: division by zero"
    assert done.stderr.count("noise") == 4


def test_the_jobs_cover_training_recursion_certificate_attacks_and_reproduce():
    kinds = {name.partition("/")[0] for name in compare_times.JOBS}
    assert kinds >= {"training", "recursion", "certificate", "attacks", "process"}
    assert "process/reproduce" in compare_times.JOBS
    assert {*compare_times.RARE, *compare_times.SLOW} <= set(compare_times.JOBS)


# ------------------------------------------------------------------ the command
def test_golden_names_a_commit():
    assert re.fullmatch("[0-9a-f]{40}", compare.golden())
    for text in ("", "main\n", "93f6fb5\n", "# why\n" + "a" * 40):
        with pytest.raises(ValueError, match="it must be a commit's full hash"):
            compare.golden(text)


def test_names_are_chosen_by_their_parts():
    names = ["training/a/numba", "training/b/numpy", "draws"]
    assert compare.chosen(names, None, names[:1]) == names[:1]
    assert compare.chosen(names, ["numpy", "draws"], names[:1]) == names[1:]
    with pytest.raises(ValueError, match="--only b/x: is part of no name; they begin with training, draws"):
        compare.chosen(names, ["draws", "b/x"], names)


def test_settings_that_would_make_versions_differ_are_dropped(monkeypatch, tmp_path):
    for name in compare.DROPPED:
        monkeypatch.setenv(name, "x")
    version = compare.Version("REV", tmp_path)
    own, narrow = version.environment(), version.environment(128)
    assert own["PYTHONPATH"] == str(tmp_path / "site")
    assert not (set(compare.DROPPED) - {"PYTHONPATH"}) & set(own)
    assert narrow["ADVFEAT_VECTOR_BITS"] == "128"
    assert narrow["NUMBA_CACHE_DIR"] != own["NUMBA_CACHE_DIR"]

"""What a sweep stores: whole, used again where it applies, told from what is damaged or another's."""

import contextlib
import errno
import gc
import itertools
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sweep_specs import ALPHA, rows, spec
from sweep_specs import write as write_toml

from advfeat.cli import main
from advfeat.core import store
from advfeat.sweeps import archive, driver, sweep

ONE = {"jobs": 1, "largest_batch": 1}


@pytest.fixture
def worked(monkeypatch):
    """The runs that were worked on, in a list."""
    held = []

    def counted(batch, threads):
        held.extend((run.config.alpha, run.seed) for run in batch.runs)
        return work(batch, threads)

    work = driver.work
    monkeypatch.setattr(driver, "work", counted)
    return held


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished sweep of five batches; copied, never changed."""
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    sweep(spec(), folder, **ONE)
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def told(folder, tables=None):
    """Run again; what is said at the start."""
    held = []
    sweep(tables or spec(), folder, **ONE, started=lambda plan, lines: held.extend(lines))
    return "\n".join(held)


# ------------------------------------------------------------------ damage
def _cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def _empty(path):
    path.write_bytes(b"")


def _foreign(path):
    np.savez(path, W=np.ones(3))


def _text(path):
    path.write_text("not a batch")


def _folder(path):
    path.unlink()
    path.mkdir()


def _another(path):
    """Another batch's content under this name: whole, but not what the name says."""
    other = next(p for p in sorted(path.parent.glob("*.npz")) if p != path)
    shutil.copy(other, path)


def _value(path):
    """A whole .npz with one number changed."""
    held = store.load_npz(path)
    held["recursion/A"] = held["recursion/A"] + 1e-12
    np.savez(path, **held)


def _name_of_array(path):
    held = store.load_npz(path)
    held["recursion/A"], held["recursion/B"] = held["recursion/B"], held["recursion/A"]
    np.savez(path, **held)


@pytest.mark.parametrize("damage", [_cut, _empty, _foreign, _text, _folder, _another, _value, _name_of_array])
def test_damage_is_named_and_repaired(damage, whole, copy, worked, capsys):
    path = sorted((copy / "batches").glob("*.npz"))[2]
    damage(path)
    assert main(["sweep", str(write_toml(copy / "given.toml", spec())), "--out", str(copy), "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert f"damaged and set aside: {copy / 'damaged' / path.name} (" in said
    assert "5 runs are there already" not in said
    assert len(worked) == 1
    assert (copy / "damaged" / path.name).exists()
    assert (copy / "results.parquet").read_bytes() == (whole / "results.parquet").read_bytes()


def test_flipped_bits(whole, copy):
    """Whichever bit: the file reads as it was, or counts as damaged."""
    path = min((copy / "batches").glob("*.npz"))
    intact, rng, harmless = path.read_bytes(), np.random.default_rng(0), 0
    held = archive._read(path)
    # the zip's own records, where a flip can look like another format, lie at the end and before each array
    places = np.concatenate([rng.integers(0, len(intact), 300), rng.integers(len(intact) - 1200, len(intact), 300)])
    for place in places.tolist():
        broken = bytearray(intact)
        broken[place] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        found = None
        with contextlib.suppress(store.CheckpointError):  # and no other
            found = archive._read(path)
        if found is not None:
            harmless += 1
            assert found.keys() == held.keys()
            assert all(found[n].tobytes() == held[n].tobytes() for n in held)
    assert harmless < 300  # time stamps and the like


def test_flipped_bits_in_a_sweep(whole, copy):
    rng = np.random.default_rng(1)
    for path in sorted((copy / "batches").glob("*.npz")):
        broken = bytearray(path.read_bytes())
        broken[rng.integers(len(broken))] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
    told(copy)
    assert rows(copy).equals(rows(whole))


def test_left_over_temporaries(whole, copy):
    name = min((copy / "batches").glob("*.npz")).name
    left = [copy / "batches" / f".{name}.{ending}" for ending in ("a1b2c3d4e5f6", "of_0_1_0")]
    left += [copy / f".{name}.0123456789ab" for name in ("results.parquet", "sweep.json", "spec.toml", "index.html")]
    for path in left:
        path.write_bytes(b"half")
    assert "5 runs are there already" in told(copy)
    assert not any(path.exists() for path in left)
    assert rows(copy).equals(rows(whole))


# ------------------------------------------------------------------ written once
def test_batches_are_written_once(whole, copy, worked):
    before = {path: path.stat().st_mtime_ns for path in (copy / "batches").iterdir()}
    told(copy)
    assert {path: path.stat().st_mtime_ns for path in (copy / "batches").iterdir()} == before
    assert not worked


def test_disk_full(tmp_path, whole, monkeypatch, capsys):
    """The third batch finds no room: an error that names the file, two batches kept, the same command continues."""
    write, count = store.write, itertools.count(1)

    def no_room(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    def full(path, body, mode="wb"):
        third = path.parent.name == "batches" and next(count) == 3
        write(path, no_room if third else body, mode)

    command = ["sweep", str(write_toml(tmp_path / "spec.toml", spec())), "--out", str(tmp_path / "out")]
    command += ["--jobs", "1", "--largest-batch", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(store, "write", full)
        assert main(command) == 2
    assert "No space left on device" in (said := capsys.readouterr().err)
    assert ".npz" in said
    assert "kept" in said
    assert len(list((tmp_path / "out" / "batches").iterdir())) == 2
    assert not (tmp_path / "out" / "results.parquet").exists()
    assert main(command) == 0
    assert "2 runs are there already" in capsys.readouterr().out
    assert rows(tmp_path / "out").equals(rows(whole))


# ------------------------------------------------------------------ another spec
def test_one_more_value(whole, copy, worked):
    told(copy, spec({"alpha": [*ALPHA[:2], 1.75, *ALPHA[2:]]}))
    assert worked == [(1.75, 0)]
    found = rows(copy).to_pylist()
    shared = [{**row, "point": ALPHA.index(row["alpha"])} for row in found if row["alpha"] != 1.75]
    assert shared == rows(whole).to_pylist()
    assert len(found) > len(shared)


def test_fewer_values_leave_no_rows(whole, copy, worked):
    told(copy, spec({"alpha": ALPHA[1:3]}))
    assert not worked
    assert {row["alpha"] for row in rows(copy).to_pylist()} == set(ALPHA[1:3])
    told(copy)  # and back: nothing was forgotten
    assert not worked
    assert rows(copy).equals(rows(whole))


def test_more_seeds(whole, copy, worked):
    told(copy, spec(base={"n_seeds": 3}))
    assert sorted(worked) == [(alpha, seed) for alpha in ALPHA for seed in (1, 2)]
    assert [row for row in rows(copy).to_pylist() if row["seed"] == 0] == rows(whole).to_pylist()


def test_more_metrics(whole, copy, worked):
    told(copy, spec(metrics=["A", "B", "take_off_A_predicted", "robust_wins"]))
    found = rows(copy).to_pylist()
    assert not worked
    assert [row for row in found if row["metric"] in "AB"] == rows(whole).to_pylist()
    assert "robust_wins" in {row["metric"] for row in found}


def test_a_larger_sobol_design(tmp_path, worked):
    axes = {"alpha": {"low": 1.0, "high": 3.0}, "beta": {"low": 0.5, "high": 1.0}}
    told(tmp_path / "a", spec(axes, design="sobol", n_points=8))
    before, found = rows(tmp_path / "a").to_pylist(), len(worked)
    told(tmp_path / "a", spec(axes, design="sobol", n_points=16))
    after = rows(tmp_path / "a").to_pylist()
    assert (found, len(worked)) == (8, 16)
    assert [row for row in after if row["point"] < 8] == before
    assert {row["point"] for row in after} == set(range(16))


def test_equal_points_share_runs(tmp_path, worked):
    """Sobol points over few integers coincide: each has its rows, and is worked on once."""
    told(tmp_path / "a", spec({"n_robust": {"low": 1, "high": 2}}, design="sobol", n_points=8))
    found = rows(tmp_path / "a").to_pylist()
    assert len(worked) == 2
    assert {row["point"] for row in found} == set(range(8))


# ------------------------------------------------------------------ folders
def test_another_sweep_is_writing(copy, whole):
    half = copy / "batches" / ".being-written.npz.0123456789ab"
    half.write_bytes(b"half")
    with archive.opened(copy):
        half.write_bytes(b"half")
        (copy / "batches" / "broken.npz").write_bytes(b"half")
        before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(sweep, spec({"alpha": [9.0]}), copy, **ONE)
        with pytest.raises(store.CheckpointError, match=f"{copy}: another process is writing here"):
            other.result()
        assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
    told(copy)
    assert rows(copy).equals(rows(whole))
    assert not half.exists()


def test_a_folder_of_something_else(tmp_path, worked):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "standard").mkdir()
    with pytest.raises(store.CheckpointError, match=r"not the folder of a sweep, it holds config.json, standard"):
        sweep(spec(), tmp_path, **ONE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "standard"]
    assert not worked


@pytest.mark.parametrize("left", [[".lock"], ["batches"], ["batches", ".lock", ".sweep.json.0123456789ab"],
                                  ["batches", "results.parquet", "figures", "index.html", "damaged"]])  # fmt: skip
def test_a_sweep_that_was_killed_before_sweep_json(left, tmp_path, whole):
    """Or lost it: known without a lock, which nobody leaves any more."""
    for name in left:
        (tmp_path / name).touch() if "." in name else (tmp_path / name).mkdir()
    sweep(spec(), tmp_path, **ONE)
    assert rows(tmp_path).equals(rows(whole))


@pytest.mark.parametrize(
    ("names", "said"),
    [([".lock", "config.json"], "config.json"), (["figures/a.png"], "figures"), ([".git/HEAD"], ".git"),
     (["batches/other.npz"], "batches"), (["batches/0123456789abcdef0123.npz", "train.py"], "train.py")],
)  # fmt: skip
def test_a_folder_that_only_looks_like_a_sweeps(names, said, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(store.CheckpointError, match=f"not the folder of a sweep, it holds {said};"):
        sweep(spec(), tmp_path, **ONE)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_with_specs(tmp_path):
    sweep(write_toml(tmp_path / "spec.toml", spec()), tmp_path, **ONE)
    assert (tmp_path / "results.parquet").exists()
    assert (tmp_path / "spec.toml").exists()


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, worked):
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match="cannot be used as an output folder"):
        sweep(spec(), tmp_path / "file" / "out", **ONE)

    def read_only(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    with pytest.raises(PermissionError, match="Read-only file system"):
        sweep(spec(), tmp_path / "out", **ONE)
    assert not worked


def test_ctrl_c_between_two_arrays_leaves_neither_a_file_nor_a_traceback(tmp_path, monkeypatch):
    """A ZipFile that is left half done is closed when it is collected, after its file."""

    class Pressed:
        def __array__(self, *_, **__):
            raise KeyboardInterrupt

    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    with pytest.raises(KeyboardInterrupt):
        store.save_npz(tmp_path / "arrays.npz", first=np.ones(3), second=Pressed())
    gc.collect()
    assert not said
    assert not list(tmp_path.iterdir())

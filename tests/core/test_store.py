"""Files: whole or as they were, with the permissions of any new file, in folders that are synced; damage is named."""

import hashlib
import json
import os
import stat
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from single_bits import errors

from advfeat.core import memory, store


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the operating system, in order: "file" and "folder" synced, "renamed"."""
    done, fsync, replace = [], os.fsync, os.replace

    def synced(handle):
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *paths: done.append("renamed") or replace(*paths))
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask is the whole process's"))
    return done


@pytest.mark.skipif(os.name != "posix", reason="Windows syncs folders by itself")
def test_a_file_and_its_folder_are_synced(tmp_path, calls):
    store.save_json(tmp_path / "a.json", {})
    assert calls == ["file", "renamed", "folder"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.skipif(os.name != "posix", reason="no permissions to speak of")
def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    store.write(tmp_path / "ours", lambda file: file.write(b"x"))
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_that_fails_is_as_it_was(tmp_path):
    store.write(tmp_path / "a", lambda file: file.write("before"), "w")

    def fail(file):
        file.write("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.write(tmp_path / "a", fail, "w")
    assert (tmp_path / "a").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# ------------------------------------------------------------------ damage
VALUE = {
    "config": {"alpha": 0.1, "batch_size": None, "norm": "linf", "seeds": [0, 1], "title": "ϱ é \x00 \ud800"},
    "nan": float("nan"), "large": 10**30, "deep": [[[{}]]], "truth": True,
}  # fmt: skip


def arrays():
    rng = np.random.default_rng(0)
    return {
        "W": rng.standard_normal((2, 3, 4)).astype(np.float32), "columns": np.asfortranarray(rng.random((3, 5))),
        "words": np.array(["one", "twelve"]), "mask": rng.random(7) < 0.5, "none": np.empty((0, 3)),
        "one": np.array(3), "big_endian": np.arange(4, dtype=">i8"), "a/b": np.arange(3),
        "eighteen_long_name": np.zeros(2),
    }  # fmt: skip


def same(found, held):
    assert found.keys() == held.keys()
    for name, array in held.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def make_json(path):
    store.save_json(path, VALUE)


def make_state(path):
    store.save_state(path, VALUE, arrays())


def make_npz(path):
    store.save_npz(path, **arrays())


def make_packed(path):
    np.savez_compressed(path, **arrays(), zeros=np.zeros(10_000))


def make_one(path):
    """The zip's directory is 64 bytes long: one flipped bit makes it empty."""
    np.savez(path, eighteen_bytes=np.arange(5.0))


def make_many(path):
    """The record of one array is 64 bytes long: one flipped bit makes it the comment of another's."""
    np.savez(path, fourteen_bytes=np.arange(5.0), fourteen_other=np.arange(6.0), fourteen_third=np.arange(7.0))


MAKERS = [make_json, make_state, make_npz, make_packed, make_one, make_many]


def read(path, maker):
    """What a file holds, as text that tells everything."""
    if maker is make_json:
        return repr(sorted(store.load_json(path).items()))
    head, held = store.load_state(path) if maker is make_state else ({}, store.load_npz(path))
    return repr([sorted(head.items()), [(n, a.dtype, a.shape, a.tobytes()) for n, a in sorted(held.items())]])


@pytest.mark.parametrize("maker", MAKERS)
def test_no_flipped_bit_is_silent(maker, tmp_path):
    """Whichever bit: all reads as it was, or an error names the file."""
    path = tmp_path / "file.npz"
    maker(path)
    said = errors(path, lambda: read(path, maker), 300, last=1500)
    assert len(said) > 300
    assert all(str(path) in one for one in said)


@pytest.mark.slow
@pytest.mark.parametrize("maker", [make_json, make_one, make_many])
def test_no_bit_at_all_is_silent(maker, tmp_path):
    path = tmp_path / "file.npz"
    maker(path)
    errors(path, lambda: read(path, maker), 8 * path.stat().st_size)


@pytest.mark.parametrize("maker", MAKERS)
def test_what_is_cut_off_is_named(maker, tmp_path):
    path = tmp_path / "file.npz"
    maker(path)
    whole = path.read_bytes()
    for n in [0, 1, 10, 30, len(whole) // 2, len(whole) - 3]:
        path.write_bytes(whole[:n])
        with pytest.raises(store.CheckpointError, match=r"file\.npz"):
            read(path, maker)


# ------------------------------------------------------------------ JSON
def test_json_comes_back_and_holds_format_and_digest(tmp_path):
    store.save_json(tmp_path / "a.json", {"b": (1, 2), "a": 1.5, "inner": {3: None, 12: 1}})
    assert store.load_json(tmp_path / "a.json") == {"a": 1.5, "b": [1, 2], "inner": {"3": None, "12": 1}}
    raw = json.loads((tmp_path / "a.json").read_text())
    assert raw.pop("format") == "advfeat-2" == store.FORMAT
    assert raw.pop("digest") == hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()


def test_a_changed_value_is_seen_and_one_of_0_1_0_is_taken(tmp_path):
    path = tmp_path / "a.json"
    store.save_json(path, {"lr": 12.5})
    path.write_text(path.read_text().replace("12.5", "12.4"))
    with pytest.raises(store.CheckpointError, match=r"a.json: damaged, its content is not what was written"):
        store.load_json(path)
    path.write_text('{"format": "advfeat-2", "lr": 1}')
    with pytest.raises(store.CheckpointError, match=r"a.json: damaged, its content is not what was written"):
        store.load_json(path)
    path.write_text('{"format": "advfeat-1", "lr": 1}')
    assert store.load_json(path) == {"lr": 1}


NEWER = r"was written by a newer advfeat \(format advfeat-3; this version reads up to advfeat-2\)"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "truncated or not JSON"), (b"{", "truncated or not JSON"), (b'\xff{"a": 1}', "truncated or not JSON"),
        (b"[" * 100_000, "truncated or not JSON"), (b'{"a": ' * 500 + b"1" + b"}" * 500, "truncated or not JSON"),
        (b"[1]", "truncated or not JSON"), (b"3", "truncated or not JSON"), (b"9" * 5000, "truncated or not JSON"),
        (b"{}", "not written by advfeat"), (b'{"format": ["advfeat-1"]}', "not written by advfeat"),
        (b'{"format": "other-1"}', "not written by advfeat"), (b'{"format": "advfeat-0"}', "not written by advfeat"),
        (b'{"format": "advfeat-3"}', NEWER), (b'{"format": "advfeat-3", "digest": "0"}', NEWER),
    ],
)  # fmt: skip
def test_foreign_json(text, says, tmp_path):
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(store.CheckpointError, match=f"a.json: {says}"):
        store.load_json(tmp_path / "a.json")


def test_files_that_are_not_there(tmp_path):
    for load in (store.load_json, store.load_npz, store.load_state, store.read_toml):
        with pytest.raises(FileNotFoundError, match="none: there is no such file"):
            load(tmp_path / "none")
        with pytest.raises(store.CheckpointError, match="is a folder"):
            load(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: v.pop("name"), "a.json: name is missing"), (lambda v: v.update(name=3), "name = 3 cannot be"),
        (lambda v: v["inner"].pop("n"), "inner.n is missing"), (lambda v: v.update(inner=[]), r"inner = \[\] cannot"),
        (lambda v: v["inner"].update(n=True), "inner.n = True cannot be"),
        (lambda v: v["rows"].append(1), "rows.1 = 1 cannot be"), (lambda v: v.update(rows={}), "rows = {} cannot be"),
        (lambda v: v.update(way="up"), "way = 'up' cannot be"), (lambda v: v.update(way=[]), r"way = \[\] cannot be"),
        (lambda v: v.update(pair=[1]), "pair.2 entries are needed, not 1"),
        (lambda v: v["any"].update(b="2"), "any.b = '2' cannot be"), (lambda v: v.update(may=1), "may = 1 cannot be"),
    ],
)  # fmt: skip
def test_shapes(change, says):
    shape = {"name": str, "inner": {"n": int}, "rows": [[object]], "way": {"left", "right"}, "pair": [int, (int, str)],
             "any": {str: int}, "may?": str}  # fmt: skip
    value = {"name": "x", "inner": {"n": 1}, "rows": [[1]], "way": "left", "pair": [1, "a"], "any": {"a": 1}, "more": 0}
    store.conform("a.json", value, shape)
    change(value)
    with pytest.raises(store.CheckpointError, match=says):
        store.conform("a.json", value, shape)


# ------------------------------------------------------------------ TOML
def test_toml(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('lr = 1.5\n[sweep]\ntitle = "a.b.c"\nx = [0.1, 0.2]\n')
    assert store.read_toml(path) == {"lr": 1.5, "sweep": {"title": "a.b.c", "x": [0.1, 0.2]}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"a = ", "not a TOML file"), (b'a = "\xff"', "not a TOML file"), (b"a = " + b"9" * 5000, "not a TOML file"),
        (b"a = " + b"[" * 20_000, "not a TOML file"), (b"a = " + b"{b = " * 20_000, "not a TOML file"),
        (b"a = " + b"[" * 40 + b"]" * 40, r"not a TOML file \(nested too deep\)"),
        (b"a." * 400_000 + b"b = 1", r"not a TOML file \(nested too deep\)"),  # else minutes, and megabytes of tables
        (b"a . 'b'." * 30_000 + b"b = 1", r"not a TOML file \(nested too deep\)"),
        (b"[" + b"a." * 900 + b"b]", r"not a TOML file \(nested too deep\)"),
        (b"#" * 1_000_001, "has more than 1,000,000 bytes"),
    ],
)  # fmt: skip
def test_toml_that_cannot_be(text, says, tmp_path):
    (tmp_path / "a.toml").write_bytes(text)
    with pytest.raises(ValueError, match=f"a.toml: {says}"):
        store.read_toml(tmp_path / "a.toml")


# ------------------------------------------------------------------ arrays
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(save, tmp_path):
    save(tmp_path / "a.npz", **arrays())
    found = store.load_npz(tmp_path / "a.npz")
    same(found, arrays())
    assert found["columns"].flags.f_contiguous
    assert all(array.flags.writeable for array in found.values())


def npy(header=None, data=b"", version=1):
    """The bytes of an .npy with any header."""
    header = repr(header) if not isinstance(header, str) else header
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text + data


def of(shape, descr="<f8", fortran=False):
    return {"descr": descr, "fortran_order": fortran, "shape": shape}


@pytest.mark.parametrize(
    "content",
    [
        npy(of((10**12,)), bytes(24)), npy(of((2,)), bytes(24)), npy(of((4,)), bytes(24)), npy(of((-1, -3)), bytes(24)),
        npy(of((10**30, 0)), b""), npy(of((1,) * 80), bytes(8)), npy(of((3,), "|O"), bytes(24)),
        npy(of((3,), "<f9"), bytes(24)), npy(of((3,), "nonsense"), bytes(24)), npy("{", bytes(24)), npy("3", bytes(24)),
        npy("-" * 9000 + "1", bytes(24)), npy("(" * 9000, bytes(24)), npy("[" * 150 + "]" * 150, bytes(24)),
        npy("x" * 20_000), npy(of((3,)), bytes(24), version=3), npy(of((3,)), bytes(24))[1:], b"", b"\x93NUMPY",
        npy(of((10**30,), "<U0")), npy({"descr": "<f8", "shape": (3,)}, bytes(24)),
        npy(of((3,)), bytes(24))[:-1], npy(of((3,)), bytes(25)),
    ],
)  # fmt: skip
def test_headers_that_cannot_be(content, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("W.npy", content)
    with pytest.raises(store.CheckpointError, match=r"a\.npz: damaged or not an \.npz file"):
        store.load_npz(tmp_path / "a.npz")


def test_headers_of_the_second_version_are_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("W.npy", npy(of((3,)), np.arange(3.0).tobytes(), version=2))
    np.testing.assert_array_equal(store.load_npz(tmp_path / "a.npz")["W"], np.arange(3))


def test_archives_that_cannot_be(tmp_path):
    """Objects, other files, two of one name, other compressions, a password, what is left out."""
    path = tmp_path / "a.npz"
    cases = [lambda: np.savez(path, W=np.array([{}], object)), lambda: np.save(path.open("wb"), np.ones(3))]

    def members(*names, **options):
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w", **options) as file:
            warnings.simplefilter("ignore")  # of the name that is there twice
            for name in names:
                file.writestr(name, npy(of((3,)), bytes(24)))

    def patched(offset, value, member=b"PK\1\2"):
        np.savez(path, W=np.ones(3))
        raw = bytearray(path.read_bytes())
        raw[raw.index(member) + offset] = value
        path.write_bytes(raw)

    cases += [lambda: members("W.txt"), lambda: members("W.npy", "W.npy"), lambda: members("W.npy", "../W")]
    cases += [lambda kind=kind: members("W.npy", compression=kind) for kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)]
    cases += [lambda: patched(10, 99), lambda: patched(10, 8), lambda: patched(8, 1), lambda: patched(8, 0x41)]
    cases += [lambda: patched(24, 0), lambda: patched(27, 0x7F), lambda: path.write_bytes(b"PK\3\4" * 20)]
    for case in cases:
        path.unlink(missing_ok=True)
        case()
        with pytest.raises(store.CheckpointError, match=r"a.npz: damaged or not an .npz file \(.+\)"):
            store.load_npz(path)


def bomb(path, n):
    """`n` bytes of zeros, which deflate makes a thousandth of."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("W.npy", "w", force_zip64=True) as member:
        member.write(npy(of((n // 8,))))
        for _ in range(n >> 20):
            member.write(bytes(1 << 20))


def test_a_zip_bomb_is_refused_before_it_is_read(tmp_path, monkeypatch):
    bomb(tmp_path / "a.npz", 64 << 20)
    assert (tmp_path / "a.npz").stat().st_size < 100_000
    monkeypatch.setattr(memory, "available", lambda: 50_000_000)
    monkeypatch.setattr(store, "_array", lambda *_: pytest.fail("was read"))
    with pytest.raises(MemoryError, match=r"a.npz: reading its 1 arrays needs about 0.0671 GB and 0.05 GB are free"):
        store.load_npz(tmp_path / "a.npz")


def test_four_gigabytes_that_are_only_declared(tmp_path):
    """In the zip's directory, and in the array's header: seen before anything is allocated."""
    path = tmp_path / "a.npz"
    np.savez(path, W=np.ones(3))
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\1\2") + 24
    raw[at : at + 4] = (4_000_000_000).to_bytes(4, "little")
    path.write_bytes(raw)
    tracemalloc.start()
    try:
        with pytest.raises(store.CheckpointError, match=r"W.npy cannot hold 4,000,000,000 bytes in 152"):
            store.load_npz(path)
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("W.npy", npy(of((500_000_000,)), bytes(24)))
        with pytest.raises(store.CheckpointError, match=r"has 24 bytes, which \(500000000,\) of float64 do not take"):
            store.load_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------ states
def test_states_come_back(tmp_path):
    head = {"kind": "patches", "iteration": 3, "lr": [1.5, None]}
    store.save_state(tmp_path / "a.npz", head, arrays())
    found, held = store.load_state(tmp_path / "a.npz")
    assert found == head
    same(held, arrays())
    store.save_state(tmp_path / "a.npz", {}, {})
    assert store.load_state(tmp_path / "a.npz") == ({}, {})
    with pytest.raises(ValueError, match="none can be named 'digest'"):
        store.save_state(tmp_path / "a.npz", {}, {"digest": np.ones(3)})


def test_states_that_were_changed(tmp_path):
    path = tmp_path / "a.npz"
    store.save_state(path, {"iteration": 3}, {"W": np.ones(3), "V": np.zeros(3)})
    held = store.load_npz(path)
    changes = [
        {"W": np.full(3, 2.0)}, {"W": held["V"], "V": held["W"]}, {"W": np.ones(3, np.float32)},
        {"W": np.ones((3, 1))}, {"more": np.ones(1)}, {"head": np.array(str(held["head"]).replace("3", "4"))},
    ]  # fmt: skip
    for change in changes:
        store.save_npz(path, **(held | change))
        with pytest.raises(store.CheckpointError, match="damaged, its content is not what was written"):
            store.load_state(path)
    for text in ("{", "[" * 10_000, "[]", "9" * 5000):
        store.save_npz(path, **(held | {"head": np.array(text)}))
        with pytest.raises(store.CheckpointError, match="is not a state that advfeat saved"):
            store.load_state(path)
    for name in ("head", "digest"):
        store.save_npz(path, **{key: array for key, array in held.items() if key != name})
        with pytest.raises(store.CheckpointError, match="is not a state that advfeat saved"):
            store.load_state(path)
    store.save_npz(path, **(held | {"head": np.array('{"format": "advfeat-3"}')}))
    with pytest.raises(store.CheckpointError, match=NEWER):
        store.load_state(path)

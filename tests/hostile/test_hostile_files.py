"""Files from others: every reader's file mutated at random, a named error or what was written, and nothing executed."""

import contextlib
import json
import os
import pickle
import resource
import shutil
import signal
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from image_files import cifar10_rows, drawn, idx, write_cifar10_archive, write_mnist, write_svhn
from sweep_specs import spec, write

import advfeat as af
from advfeat.core import store
from advfeat.experiments import images as image_runs
from advfeat.experiments.configuration import Figure3Config
from advfeat.experiments.study import StudyPlan
from advfeat.images import ConvNet, exchange
from advfeat.images.data import files, load
from advfeat.robustness.transcript import Transcript
from advfeat.sweeps import SweepSpec
from advfeat.sweeps import results as sweep_results

KINDS = (ValueError, TypeError, FileNotFoundError, MemoryError)
ROOM = 1 << 30  # bytes of address space beside what the process has: no mutation may make a reader ask for more
USED = Path("/proc/self/statm")  # pages of address space that this process has, on Linux
SECONDS = 20
MEMBERS = ("test_batch.bin",)
RNG = np.random.default_rng(0)


# ------------------------------------------------------------------ readers, and a file of each
def checkpoint(made, folder):
    shutil.copytree(made / "run", folder / "run", dirs_exist_ok=True)
    return folder / "run" / "standard" / "checkpoint.npz"


def records(made, folder):
    return checkpoint(made, folder).parent / "records.bin"


def about(made, folder):
    return checkpoint(made, folder).parents[1] / "config.json"


def sweep_file(name):
    def write_it(made, folder):
        shutil.copytree(made / "sweep", folder / "sweep", dirs_exist_ok=True)
        return folder / "sweep" / name

    return write_it


def picture_file(name):
    def write_it(made, folder):
        shutil.copytree(made / "pictures", folder / "pictures", dirs_exist_ok=True)
        return folder / "pictures" / name

    return write_it


def weights(made, folder):
    af.PatchCNN(RNG.standard_normal((2, 3, 6))).save(folder / "net.npz")
    return folder / "net.npz"


def network(name):
    def write_it(made, folder):
        exchange.save(ConvNet(2, (1, 8, 8)), folder / name)
        return folder / name

    return write_it


def transcript(made, folder):
    rows = np.zeros((2, 1, 8, 8), np.float32), np.zeros(2, np.int64), np.zeros((2, 1, 8, 8), np.float32)
    Transcript({"norm": "linf", "eps": 0.1}, *rows, np.zeros(2), np.array(["a", "b"]), np.zeros(2, np.int64)).save(
        folder / "transcript.npz")  # fmt: skip
    return folder / "transcript.npz"


def plain_json(made, folder):
    store.save_json(folder / "a.json", {"a": [1, 2.5, None, "x"], "b": {"c": True}})
    return folder / "a.json"


def idx_file(name):
    def write_it(made, folder):
        write_mnist(folder, n=12, zipped=name.endswith(".gz"))
        return folder / name

    return write_it


def cifar(made, folder):
    (folder / "test_batch.bin").write_bytes(cifar10_rows(3))
    return folder / "test_batch.bin"


def archive(made, folder):
    write_cifar10_archive(folder / "cifar-10-binary.tar.gz", n=2)
    return folder / "cifar-10-binary.tar.gz"


def mat(made, folder):
    write_svhn(folder, n=10)
    return folder / "test_32x32.mat"


def keras(made, folder):
    X, y = drawn(10, (1, 28, 28))
    np.savez(folder / "mnist.npz", x_train=X[:, 0], y_train=y, x_test=X[:5, 0], y_test=y[:5])
    return folder / "mnist.npz"


def toml(text):
    def write_it(made, folder):
        (folder / "a.toml").write_text(text)
        return folder / "a.toml"

    return write_it


def sweep_toml(made, folder):
    return write(folder / "spec.toml", spec())


def of_run(path):
    run = af.load(path.parents[1] if path.name != "config.json" else path.parent)
    return [run.config, *(net.W for net in run.nets.values()), *(h[n] for h in run.histories.values() for n in h)]


def of_sweep(path):
    found = sweep_results.load(path.parent)
    return [found.spec, found.values("A", "standard", "recursion"), found.field("alpha")]


def of_layers(path):
    return list(exchange.load(path).arrays().values())


def of_pictures(path):
    found = image_runs.load(path.parents[len(path.parts) - 1 - path.parts.index("pictures") - 1])
    return [found.config.as_dict(), *(a for net in found.nets.values() for a in net.arrays().values())]


STUDY = '[base]\ndataset = "digits"\n[cross]\nstarts = ["noise"]\n[factors]\neps = [0.1, 0.2]\n'
CONFIG = 'alpha = 2.0\nn_classes = 3\npartition = "fixed"\nbatch_size = "none"\n'
#: How a file is written and read, and whether its content is guarded: then nothing but what was written is right.
READERS = {
    "weights": (weights, lambda path: [af.PatchCNN.load(path).W], True),
    "checkpoint": (checkpoint, of_run, True),
    "records": (records, of_run, True),
    "run's config": (about, of_run, True),
    "json": (plain_json, lambda path: [store.load_json(path)], True),
    "sweep.json": (sweep_file("sweep.json"), of_sweep, True),
    "parquet": (sweep_file("results.parquet"), of_sweep, True),
    "network npz": (network("net.npz"), of_layers, True),
    "network safetensors": (network("net.safetensors"), of_layers, True),
    "safetensors": (
        network("net.safetensors"),
        lambda path: [a for _, a in sorted(exchange.read_safetensors(path)[0].items())],
        False,
    ),
    "transcript": (transcript, lambda path: [Transcript.load(path).X], True),
    "images' config": (picture_file("config.json"), of_pictures, True),
    "images' network": (picture_file("standard/checkpoint.npz"), of_pictures, True),
    "idx": (idx_file("t10k-images-idx3-ubyte"), lambda path: [load("mnist", "test", path.parent).X], False),
    "idx labels": (idx_file("t10k-labels-idx1-ubyte"), lambda path: [load("mnist", "test", path.parent).y], False),
    "idx.gz": (idx_file("t10k-images-idx3-ubyte.gz"), lambda path: [load("mnist", "test", path.parent).X], True),
    "cifar": (cifar, lambda path: [files.read_cifar10([path])[1]], False),
    "cifar.tar.gz": (archive, lambda path: [*files.read_cifar10_archive(path, MEMBERS)], False),
    "mat": (mat, lambda path: [*files.read_svhn(path)], False),
    "keras": (keras, lambda path: [*files.read_keras(path, "test")], True),
    "toml": (toml(CONFIG), lambda path: [Figure3Config.build(path).as_dict()], False),
    "sweep toml": (sweep_toml, lambda path: [SweepSpec.build(path).as_dict()], False),
    "study toml": (toml(STUDY), lambda path: [StudyPlan.read(path)], False),
}


# ------------------------------------------------------------------ mutations
NUMBERS = [b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0" * 4, b"\0\0\0\x80", b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\1\0\0\0"]
WORDS = [b"1e999", b"nan", b"[" * 50, b"]", b"{", b'"', b"\\", b"\n", b"=", b"-1", b"9" * 400, b"\xff\xfe", b"\0",
     b".", b"#",
         b"null", b"true", b"../../x", b"\xe2\x80\xae", b"'''", b"__import__('os')"]  # fmt: skip


def mutated(data: bytes, rng) -> bytes:
    """One to three random changes of bytes."""
    for _ in range(rng.integers(1, 4)):
        n = len(data)
        at, end = sorted(rng.integers(0, n + 1, 2).tolist())
        short = slice(at, min(at + int(rng.integers(1, 9)), n))
        kind = int(rng.integers(9))
        if kind == 0 and at < n:  # a bit
            data = data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :]
        elif kind == 1:
            data = data[: short.start] + rng.bytes(short.stop - short.start) + data[short.stop :]
        elif kind == 2:
            data = data[:at]
        elif kind == 3:
            data = data[:at] + rng.bytes(int(rng.integers(1, 100))) + data[at:]
        elif kind == 4:  # a part twice
            data = data[:end] + data[at : at + 1000] + data[end:]
        elif kind == 5:
            data = data[: short.start] + b"\0" * (short.stop - short.start) + data[short.stop :]
        elif kind == 6:
            word = NUMBERS[int(rng.integers(len(NUMBERS)))]
            data = data[:at] + word + data[at + len(word) :]
        elif kind == 7:
            data = data[:at] + WORDS[int(rng.integers(len(WORDS)))] + data[at:]
        else:
            data = data[:at] + data[at + int(rng.integers(1, 50)) :]
    return data


FORBIDDEN = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.fork", "socket.connect")
heard, listening = [], []


def listen(event, arguments):
    if listening and event in FORBIDDEN:
        heard.append((event, arguments))


sys.addaudithook(listen)


@contextlib.contextmanager
def bounded():
    """Little time, and little memory where the system says how much is used."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    if USED.exists():
        used = int(USED.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    old = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"reads for more than {SECONDS} s"))
    signal.alarm(SECONDS)
    heard.clear()
    listening.append(True)
    try:
        yield
    finally:
        listening.clear()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
        resource.setrlimit(resource.RLIMIT_AS, before)


def same(one, other) -> bool:
    return len(one) == len(other) and all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes() if isinstance(a, np.ndarray) else a == b
        for a, b in zip(one, other)
    )


def answer(read, path):
    """What is wrong with how a reader takes a file, or "", and what it read."""
    try:
        with bounded():
            found = read(path)
        return f"did {heard}" * bool(heard), found
    except KINDS as error:
        says = str(error)
        if heard:
            return f"did {heard}", None
        if isinstance(error, MemoryError) and "needs about" not in says:
            return f"out of memory, unchecked: {says!r}", None
        names = (path.name, path.parent.name, path.stem, "did you mean", " = ")
        named = path.suffix == ".toml" or any(one in says for one in names)
        return "" if named and "\n" not in says else f"names no file: {type(error).__name__}: {says}", None
    except Exception as error:
        return f"{type(error).__name__}: {error}", None


@pytest.mark.parametrize(
    "part", [pytest.param(range(30), id="30"), pytest.param(range(30, 2000), id="1970", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", READERS)
def test_mutations(name, part, made, tmp_path):
    write_it, read, guarded = READERS[name]
    path = write_it(made, tmp_path)
    whole = path.read_bytes()
    good, wrong = read(path), []
    for i in part:
        data = mutated(whole, np.random.default_rng([i, *name.encode()]))
        path.write_bytes(data)
        said, found = answer(read, path)
        if said:
            wrong.append((i, said[:300]))
        elif found is not None and guarded and not same(found, good):
            wrong.append((i, "other content, and no error"))
    assert wrong == []
    path.write_bytes(whole)
    assert same(read(path), good)


# ------------------------------------------------------------------ files that were made to harm
class Harm:
    def __reduce__(self):
        return os.system, ("touch harm",)


def special(kind, path):
    """Put something else than a file of its format at `path`."""
    whole = path.read_bytes()
    path.unlink()
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Harm()))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "zeros":
        path.write_bytes(bytes(100_000))
    elif kind == "text":
        path.write_text("hello\n" * 1000)
    elif kind == "twice":
        path.write_bytes(whole + whole)
    elif kind == "objects":
        np.savez(path.with_suffix(".npz"), W=np.array([Harm()], dtype=object), x_test=np.array([Harm()], dtype=object))
        if path.suffix != ".npz":
            os.replace(path.with_suffix(".npz"), path)


# settings may come through a pipe, as `--config <(...)`; nothing else may
SPECIAL = ("pickle", "empty", "folder", "pipe", "device", "loop", "dangling", "zeros", "text", "twice", "objects")


@pytest.mark.parametrize(("name", "kind"), [
    (name, kind) for name in READERS for kind in SPECIAL if kind != "pipe" or "toml" not in name
])  # fmt: skip
def test_what_is_no_file_of_the_format(name, kind, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_it, read, _ = READERS[name]
    path = write_it(made, tmp_path)
    special(kind, path)
    said, found = answer(read, path)
    assert said == ""
    assert found is None or kind in ("twice", "text") or (kind == "empty" and name == "toml")
    assert not (tmp_path / "harm").exists()


# ------------------------------------------------------------------ tables of what a file may say
SPECS = [
    ({"bases": {}}, "bases"), ({"base": 3}, "base"), ({"base": []}, "base"), ({"axes": {}}, "axes"),
     ({"axes": {"zzz": [1.0]}}, "zzz"), ({"axes": {"alpha": []}}, "alpha"),
    ({"axes": {"alpha": [float("nan")]}}, "alpha"), ({"axes": {"alpha": ["a"]}}, "alpha"), ({"axes": {"alpha": [1.0,
     1.0]}}, "alpha"), ({"axes": {"alpha": 3.0}}, "alpha"), ({"axes": {"alpha": {"low": 2.0}}}, "alpha"),
    ({"axes": {"alpha": {"low": 2.0, "high": 1.0, "n": 3}}}, "alpha"), ({"axes": {"alpha": {"low": 1.0, "high": 2.0,
     "n": 0}}}, "alpha"), ({"axes": {"alpha": {"low": 1.0, "high": 2.0, "n": 3, "scale": "zzz"}}}, "scale"),
     ({"axes": {"alpha": {"low": 0.0, "high": 2.0, "n": 3, "scale": "log"}}}, "alpha"),
    ({"axes": {"n_seeds": [1]}}, "n_seeds"), ({"sweep": {"zzz": 1}}, "zzz"), ({"sweep": {"engine": "zzz"}},
     "engine"), ({"sweep": {"engine": 3}}, "engine"), ({"sweep": {"engine": []}}, "engine"),
     ({"sweep": {"training": "zzz"}}, "training"), ({"sweep": {"training": []}}, "training"),
    ({"sweep": {"training": ["standard", "standard"]}}, "training"), ({"sweep": {"training": [3]}}, "training"),
     ({"sweep": {"training": [[]]}}, "training"), ({"sweep": {"metrics": ["zzz"]}}, "metrics"),
     ({"sweep": {"metrics": 3}}, "metrics"), ({"sweep": {"metrics": [3]}}, "metrics"), ({"sweep": {"metrics": [[]]}},
     "metrics"),
    ({"sweep": {"n_looks": 0}}, "n_looks"), ({"sweep": {"n_looks": "a"}}, "n_looks"), ({"sweep": {"max_nodes": 0}},
     "max_nodes"), ({"sweep": {"design": "zzz"}}, "design"), ({"sweep": {"design": "sobol"}}, "n_points"),
     ({"sweep": {"design": "sobol", "n_points": 3}}, "n_points"), ({"sweep": {"n_points": 3}}, "n_points"),
    ({"sweep": {"design_seed": -1}}, "design_seed"), ({"sweep": {"on_invalid": "zzz"}}, "on_invalid"),
     ({"sweep": {"certificate": "zzz"}}, "certificate"), ({"sweep": {"start": "zzz"}}, "start"),
     ({"sweep": {"start": "drawn", "engine": "network"}}, "start"), ({"sweep": {"title": 3}}, "title"),
     ({"sweep": {"title": []}}, "title"),
    ({"base": {"zzz": 1}}, "zzz"), ({"base": {"alpha": 1.0}}, "alpha"), ({"base": {"beta": "a"}}, "beta"),
     ({"base": {"beta": float("inf")}}, "beta"), ({"base": {"n_classes": 2.5}}, "n_classes"),
     ({"base": {"batch_size": 2}}, "batch_size"), ({"base": {"n_iter": 10**20}}, "n_iter"), ({"base": {"norm": {}}},
     "norm"), ({"base": {"norm": []}}, "norm"),
    ({"plot": {}}, "plot"), ({"plot": [3]}, "plot"), ({"plot": [{}]}, "plot"), ({"plot": [{"metric": "zzz",
     "x": "alpha"}]}, "metric"), ({"plot": [{"metric": 3, "x": "alpha"}]}, "metric"), ({"plot": [{"metric": [],
     "x": "alpha"}]}, "metric"), ({"plot": [{"metric": "A"}]}, "x"), ({"plot": [{"metric": "A", "x": "zzz"}]}, "x"),
     ({"plot": [{"metric": "A", "x": ["alpha"]}]}, "x"),
    ({"plot": [{"metric": "A", "x": 3}]}, "x"), ({"plot": [{"metric": "A", "x": {}}]}, "x"),
     ({"plot": [{"metric": "A", "x": "alpha", "y": ["a"]}]}, "y"), ({"plot": [{"metric": "A", "x": "alpha",
     "facet": ["a"]}]}, "facet"), ({"plot": [{"metric": "A", "x": "alpha", "zzz": 1}]}, "zzz"),
     ({"plot": [{"metric": "A", "x": "alpha", "at": 3}]}, "at"),
    ({"plot": [{"metric": "A", "x": "alpha", "at": {"zzz": 1}}]}, "zzz"), ({"plot": [{"metric": "A", "x": "alpha",
     "at": {"alpha": [5]}}]}, "alpha"), ({"plot": [{"metric": "A", "x": "alpha", "iteration": "a"}]}, "iteration"),
     ({"plot": [{"metric": "A", "x": "alpha", "training": ["a"]}]}, "training"), ({"plot": [{"metric": "A",
     "x": "alpha", "engine": 3}]}, "engine"),
    ({"plot": [{"metric": "A", "x": "alpha", "title": 3}]}, "title"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "name"), SPECS, ids=str)
def test_specs_that_cannot_be(change, name):
    tables = spec()
    tables = tables | {key: tables[key] | value if isinstance(value, dict) and key in ("sweep", "base") else value
                       for key, value in change.items()}  # fmt: skip
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}") as error:
        SweepSpec.build(tables)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700


STUDIES = [
    ("", "base"), ("[zzz]\n", "zzz"), ("base = 3\n", "base"), ("[base]\nzzz = 1\n", "zzz"),
     ('[base]\ndataset = "zzz"\n', "dataset"), ("[base]\neps = 0\n", "eps"), ("[base]\nn_seeds = 1\n", "n_seeds"),
     ("[base]\n[cross]\nzzz = [1]\n", "zzz"),
    ("[base]\n[cross]\nstarts = 3\n", "starts"), ('[base]\n[cross]\nstarts = ["zzz"]\n', "zzz"),
     ('[base]\n[cross]\nkinship = ["zzz"]\n', "zzz"), ("[base]\n[cross]\nkinship = 3\n", "kinship"),
     ("[base]\n[cross]\nsteps = [0]\n", "steps"), ('[base]\n[cross]\nsteps = ["a"]\n', "steps"),
     ("[base]\n[cross]\nsteps = 3\n", "steps"),
    ("[base]\n[factors]\nzzz = [1]\n", "zzz"), ("[base]\n[factors]\neps = 3\n", "eps"),
     ("[base]\n[factors]\neps = []\n", "eps"), ("[base]\n[factors]\neps = [-1]\n", "eps"),
     ('[base]\n[factors]\neps = ["a"]\n', "eps"), ("[base]\nfactors = 3\n", "factors"),
     ("[base]\n[factors]\nn_seeds = [2, 3]\n", "n_seeds"), ("cross = 3\n[base]\n", "cross"), ("base = []\n", "base"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "name"), STUDIES)
def test_studies_that_cannot_be(text, name, tmp_path):
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}") as error:
        StudyPlan.read(tmp_path / "study.toml")
    assert "\n" not in str(error.value)


def test_the_tables_are_those_of_toml_and_hold_no_case_twice():
    assert tomllib.loads(STUDY)["factors"] == {"eps": [0.1, 0.2]}
    assert len({json.dumps(change) for change, _ in SPECS}) == len(SPECS)
    assert len(READERS) * len(SPECIAL) + len(SPECS) + len(STUDIES) >= 150
    assert idx(np.zeros((1, 2, 2)))[:4] == b"\0\0\x08\x03"

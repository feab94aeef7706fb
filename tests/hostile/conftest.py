"""What hostile commands and files are pointed at: small folders of every kind, made once by the commands themselves."""

import contextlib
import io
import os

import numpy as np
import pytest
from cli_runs import TINY
from sweep_specs import spec, write

from advfeat.cli import main

PICTURES = ["dataset=digits", "network=convnet", "width=2", "depth=1", "epochs=1", "n_train=60", "n_test=20",
            "batch_size=20", "pgd_steps=1", "n_ascent=1"]  # fmt: skip


def done(*arguments):
    """A command that must succeed, in silence."""
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([*map(str, arguments)]) == 0


def stamps(folder):
    """Every file and folder below a folder; of files when they were written, and how long they are."""
    found = {path: path.stat() for path in folder.rglob("*")}
    return {path: (held.st_mtime_ns, held.st_size) if path.is_file() else () for path, held in found.items()}


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with run, sweep, pictures, curves and files; nothing may ever change in it."""
    place = tmp_path_factory.mktemp("made")
    done("reproduce", *TINY, "--out", place / "run")
    write(place / "spec.toml", spec())
    done("sweep", place / "spec.toml", "--jobs", 1, "--out", place / "sweep")
    done("images", "train", "--set", *PICTURES, "--out", place / "pictures")
    np.savez(place / "weights.npz", W=np.ones((5, 20, 100), np.float32))
    (place / "config.toml").write_text("alpha = 2.0\n")
    (place / "empty").mkdir()
    (place / "full").mkdir()
    (place / "full" / "mine.txt").write_text("mine")
    return place


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """The same, with the working folder elsewhere: what a refused command changes in either is a failure."""
    monkeypatch.chdir(tmp_path)
    before = stamps(made)
    yield made
    assert stamps(made) == before
    assert os.listdir(tmp_path) == []

"""Downloads from a server on this machine: checked, kept, refused where they are not what they should be."""

import functools
import hashlib
import http.server
import threading

import pytest
from image_files import write_cifar10_archive, write_mnist

from advfeat.core.store import CheckpointError
from advfeat.images.data import fetch, load

pytest.importorskip("pooch")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """(a folder, the address under which its files are)."""
    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as held:
        thread = threading.Thread(target=held.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{held.server_port}"
        held.shutdown()


def test_what_is_fetched_is_loaded(server, tmp_path, monkeypatch):
    folder, address = server
    write_mnist(folder)
    monkeypatch.setenv("ADVFEAT_DATA", str(tmp_path / "cache"))
    paths = fetch("mnist", address=address)
    assert {path.parent for path in paths} == {tmp_path / "cache" / "mnist"}
    assert load("mnist", "train").X.shape == (40, 1, 28, 28)
    (folder / "train-images-idx3-ubyte.gz").unlink()
    assert fetch("mnist", address=address) == paths  # those that are there stay


def test_another_file_than_the_official_one_is_refused(server, tmp_path):
    folder, address = server
    write_cifar10_archive(folder / "cifar-10-binary.tar.gz")
    with pytest.raises(CheckpointError, match=r"cifar-10-binary.tar.gz: what was downloaded is not the official file"):
        fetch("cifar10", tmp_path / "out", address=address)
    assert not list((tmp_path / "out").glob("*.gz"))


def test_the_official_digest_is_taken(server, tmp_path, monkeypatch):
    folder, address = server
    write_cifar10_archive(folder / "cifar-10-binary.tar.gz")
    digest = hashlib.md5((folder / "cifar-10-binary.tar.gz").read_bytes()).hexdigest()
    sources = {"cifar10": (address, {"cifar-10-binary.tar.gz": f"md5:{digest}"})}
    monkeypatch.setattr("advfeat.images.data.download.SOURCES", sources)
    fetch("cifar10", tmp_path / "out")
    assert load("cifar10", "test", tmp_path / "out").y.tolist() == [i % 10 for i in range(20)]


def test_a_damaged_download_goes(server, tmp_path):
    folder, address = server
    write_mnist(folder)
    held = (folder / "train-images-idx3-ubyte.gz").read_bytes()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(held[:-20])
    with pytest.raises(CheckpointError, match=r"train-images-idx3-ubyte\.gz: truncated or damaged"):
        fetch("mnist", tmp_path / "out", address=address)
    assert not list((tmp_path / "out").glob("*.gz"))


def test_no_server_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(OSError, match=r"train-images-idx3-ubyte\.gz: cannot be downloaded"):
        fetch("mnist", tmp_path, address="http://127.0.0.1:9")
    with pytest.raises(ValueError, match="name = 'digits': unknown"):
        fetch("digits")

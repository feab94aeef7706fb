"""Sweeps on a real dask scheduler and two worker processes on loopback, which share no folder with the driver."""

import signal
import socket
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import psutil
import pytest
from sweep_specs import finished, rows, slow, spec, start, until
from sweep_specs import write as write_toml

from advfeat.core import distribute
from advfeat.sweeps import SweepFailed, sweep

OPTIONS = {"largest_batch": 1}


class Cluster:
    """`dask scheduler` and two `dask worker` processes, each in a folder of its own."""

    def __init__(self, folder, workers=2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self.folder, self.log, self.processes = folder, open(folder / "log", "w"), []  # noqa: SIM115
        self.scheduler = self.start("scheduler", "--host", self.address, "--no-dashboard", "--no-show")
        self.workers = [self.start("worker", self.address, "--no-nanny", "--nthreads", "1", "--no-dashboard",
                                   "--death-timeout", "60") for _ in range(workers)]  # fmt: skip

    def start(self, *arguments):
        place = self.folder / f"{arguments[0]}-{len(self.processes)}"
        place.mkdir()
        command = [sys.executable, "-m", "dask", *arguments]
        self.processes.append(subprocess.Popen(command, cwd=place, stdout=self.log, stderr=subprocess.STDOUT))
        return self.processes[-1]

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.log.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    held = Cluster(tmp_path_factory.mktemp("cluster"))
    yield held
    held.stop()


def connected(cluster, n):
    """Wait for `n` workers."""
    client = distribute.connect(cluster.address)
    client.wait_for_workers(n, timeout=60)
    client.close()


def test_one_of_two_workers_is_killed(cluster, tmp_path):
    """Nothing lost, nothing doubled, the rows of a sweep on this machine; and no connection left behind."""
    connected(cluster, 2)
    tables, done = slow(12, n_iter=1_500), []

    def kill(state):
        done.append(state.done)
        if len(done) == 3:
            cluster.workers[0].kill()

    before = {path: path.stat().st_mtime_ns for path in cluster.folder.rglob("*/*") if path.is_file()}
    sweep(tables, tmp_path / "out", scheduler=f"dask={cluster.address}", **OPTIONS, progress=kill)
    assert done == list(range(1, 13))
    assert cluster.workers[0].wait() != 0
    assert cluster.workers[1].poll() is None
    sweep(tables, tmp_path / "local", jobs=1)
    assert rows(tmp_path / "out").equals(rows(tmp_path / "local"))
    assert len(list((tmp_path / "out" / "batches").iterdir())) == 12
    written = {path for path in cluster.folder.rglob("*") if path.suffix in (".npz", ".parquet", ".json")}
    assert not written, before
    own = [c for c in psutil.Process().net_connections() if c.raddr and f":{c.raddr.port}" in cluster.address]
    assert not own


def test_a_batch_fails_there(cluster, tmp_path):
    """What dask itself says of a task is passed on, and the point is named."""
    connected(cluster, 1)

    class Unreadable(Exception):
        pass

    def refuse(work, i, batch, threads):
        raise Unreadable("planted")

    attempt, distribute.attempt = distribute.attempt, refuse
    try:
        with pytest.raises(SweepFailed, match=r"point \d \(alpha = .*\), seeds 0 to 0: Unreadable\('planted'\); 0 "):
            sweep(spec(), tmp_path / "out", scheduler=f"dask={cluster.address}", **OPTIONS)
    finally:
        distribute.attempt = attempt
    sweep(spec(), tmp_path / "out", scheduler=f"dask={cluster.address}", **OPTIONS)
    sweep(spec(), tmp_path / "local", jobs=1)
    assert rows(tmp_path / "out").equals(rows(tmp_path / "local"))


def test_interrupted(cluster, tmp_path):
    """Ctrl-C reaches the driver alone: 130, no traceback, and the workers go on to the next sweep."""
    connected(cluster, 1)
    out, given = tmp_path / "out", write_toml(tmp_path / "given.toml", slow(20, n_iter=2_000))
    driver = start("sweep", given, "--out", out, "--scheduler", f"dask={cluster.address}", "--largest-batch", 1)
    until(lambda: finished(out) >= 2)
    driver.send_signal(signal.SIGINT)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130, errors
    assert "the same command continues" in errors
    assert "Traceback" not in errors, errors
    assert 2 <= finished(out) < 20
    sweep(given, out, scheduler=f"dask={cluster.address}")
    sweep(given, tmp_path / "local", jobs=1)
    assert rows(out).equals(rows(tmp_path / "local"))


class Pressed:
    """A client during each of whose calls somebody presses Ctrl-C; `whole` names the calls that came to their end."""

    def __init__(self, during, *_, **__):
        self.during, self.whole = during, []

    def _call(self, name, answer=None):
        for _ in range(self.during.count(name)):
            signal.raise_signal(signal.SIGINT)
        self.whole.append(name)
        return answer

    def wait_for_workers(self, *_, **__):
        self._call("wait_for_workers")

    def nthreads(self):
        return self._call("nthreads", {"one": 1})

    def submit(self, *_, **__):
        return self._call("submit", object())

    def close(self):
        self._call("close")


@pytest.mark.parametrize("during", ["wait_for_workers", "nthreads", "submit", "close"])
def test_ctrl_c_never_strikes_inside_dask(during, monkeypatch):
    """It is raised when the call has ended: inside, dask's `__del__` swallows it or its loop prints a traceback."""
    client = Pressed([during])
    monkeypatch.setattr("distributed.Client", lambda *_, **__: client)
    monkeypatch.setattr(distribute, "_finished", lambda _, waiting: waiting.clear() or [])
    before = signal.getsignal(signal.SIGINT)

    def work():
        distribute.connect("tcp://127.0.0.1:9")
        list(distribute.by_dask(None, iter([(0, None)]), 1, client))
        distribute.disconnect(client)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert during in client.whole
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_does_not_wait_for_dask():
    client = Pressed(["close", "close"])
    with pytest.raises(KeyboardInterrupt):
        distribute.disconnect(client)
    assert client.whole == []


@pytest.mark.parametrize(
    ("victims", "message"), [("workers", "no dask worker is left"), ("scheduler", "scheduler is gone")]
)
def test_all_are_lost(victims, message, tmp_path, monkeypatch):
    """An error that says so, not a wait without end; what is done is kept."""
    monkeypatch.setattr(distribute, "ALONE", 1)
    own = Cluster(tmp_path, workers=1)
    try:
        connected(own, 1)
        doomed = own.workers if victims == "workers" else [own.scheduler]

        def kill(state):
            for process in doomed:
                process.kill()

        with pytest.raises(SweepFailed, match=message + r".*; \d+ of 60 runs are kept"):
            sweep(slow(60), tmp_path / "out", scheduler=f"dask={own.address}", **OPTIONS, progress=kill)
        assert len(list((tmp_path / "out" / "batches").iterdir())) >= 1
    finally:
        own.stop()


def test_a_result_that_dies_with_its_worker_is_waited_for_again(monkeypatch):
    """dask calls it finished and has nowhere to fetch it from; without a limit that wait never ends."""

    class Future(SimpleNamespace):
        __hash__ = object.__hash__

        def result(self, timeout=None):
            if self.answer is None:
                raise TimeoutError if timeout else AssertionError("waits for ever")
            return self.answer

    lost, fine = Future(status="finished", answer=None), Future(status="finished", answer=(1, "found", 0.5))
    monkeypatch.setattr("distributed.wait", lambda futures, **_: SimpleNamespace(done=futures))
    again = Future(status="pending", exception=lambda: None)
    waiting = {lost: 0, fine: 1, again: 2}
    assert distribute._finished(SimpleNamespace(as_current=nullcontext), waiting) == [(1, "found", 0.5)]
    assert list(waiting) == [lost, again]


def test_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setattr(distribute, "CONNECT", 1)
    with pytest.raises(ValueError, match=r"'dask=tcp://127.0.0.1:9': cannot be reached"):
        sweep(spec(), tmp_path / "out", scheduler="dask=tcp://127.0.0.1:9")
    own = Cluster(tmp_path, workers=0)
    try:
        until(lambda: _answers(own.address))
        with pytest.raises(ValueError, match=r"has no workers after 1 s; start some with `dask worker tcp://"):
            sweep(spec(), tmp_path / "out", scheduler=f"dask={own.address}")
    finally:
        own.stop()
    assert not (tmp_path / "out").exists()


def _answers(address):
    host, port = address.removeprefix("tcp://").split(":")
    with socket.socket() as one:
        return one.connect_ex((host, int(port))) == 0

"""A sweep's driver and its workers under attack: killed, interrupted, failing; arguments refused before any work."""

import os
import signal
import sys
import threading
import time

import joblib
import numpy as np
import psutil
import pytest
from joblib.parallel import BACKENDS, ThreadingBackend
from sweep_specs import ALPHA, finished, rows, slow, spec, start, until
from sweep_specs import write as write_toml

from advfeat.core import distribute, store
from advfeat.sweeps import SweepFailed, SweepInterrupted, driver, sweep
from advfeat.sweeps import plan as planning
from advfeat.sweeps.work import work

pytestmark = pytest.mark.timeout(240)  # under the five minutes after which loky's idle workers end by themselves

MANY = spec({"alpha": {"low": 1.0, "high": 3.0, "n": 25}, "beta": {"low": 0.5, "high": 2.0, "n": 8}})
N_MANY = 25 * 8  # batches, one a run
ONE = {"jobs": 1, "largest_batch": 1}


def family(process):
    return psutil.Process(process.pid).children(recursive=True)


def gone(processes):
    """Whether all of them end."""
    until(lambda: all(not p.is_running() or p.status() == psutil.STATUS_ZOMBIE for p in processes))
    return True


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The tiny sweep, undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    sweep(spec(), folder, **ONE)
    return rows(folder)


# ------------------------------------------------------------------ kill -9
@pytest.mark.parametrize("times", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_again_and_again(times, tmp_path):
    """At random moments of 200 batches, from the first import to the table: the same rows and bytes, no orphans."""
    given, out, rng = write_toml(tmp_path / "many.toml", MANY), tmp_path / "out", np.random.default_rng(0)
    command = ["sweep", given, "--out", out, "--jobs", 2, "--largest-batch", 1]
    # a number of stored batches each, and up to half a second more; the last: between the last batch and the end
    moments = sorted([0, N_MANY, *rng.integers(1, N_MANY, times - 2).tolist()])
    workers, codes = [], []
    for moment in moments:
        driver = start(*command)
        until(lambda at=moment: finished(out) >= at or driver.poll() is not None)  # noqa: B023
        time.sleep(rng.uniform(0, 0.5 if moment < N_MANY else 0.1))
        if driver.poll() is None:
            workers += family(driver)
        driver.kill()
        codes.append(driver.wait())
        driver.communicate(timeout=20)  # the pipes close when its workers end
    assert codes.count(-signal.SIGKILL) >= times - 1
    last = start(*command)
    said, errors = last.communicate(timeout=120)
    assert last.returncode == 0, errors
    assert "damaged" not in said
    sweep(MANY, tmp_path / "undisturbed", **ONE)
    assert rows(out).equals(rows(tmp_path / "undisturbed"))
    assert (out / "results.parquet").read_bytes() == (tmp_path / "undisturbed" / "results.parquet").read_bytes()
    assert finished(out) == N_MANY
    assert not list(out.rglob(".*"))  # neither temporaries nor a lock
    assert len(workers) >= times // 2
    assert gone(workers)


# ------------------------------------------------------------------ Ctrl-C
@pytest.mark.parametrize(
    ("jobs", "group", "scheduler"),
    [
        (2, True, "loky"),
        (1, False, "loky"),
        pytest.param(2, False, "loky", marks=pytest.mark.slow),
        pytest.param(2, True, "multiprocessing", marks=pytest.mark.slow),
    ],
)
def test_interrupted(tmp_path, jobs, group, scheduler):
    """130, how to go on, nobody's traceback, no worker left; the same command ends with the same rows."""
    tables = slow() if group and scheduler == "loky" else MANY  # waiting for workers; mostly storing
    given, out = write_toml(tmp_path / "given.toml", tables), tmp_path / "out"
    command = ["sweep", given, "--out", out, "--jobs", jobs, "--largest-batch", 1, "--scheduler", scheduler]
    driver = start(*command)
    until(lambda: finished(out) >= 2)
    workers = family(driver)
    (os.killpg if group else os.kill)(driver.pid, signal.SIGINT)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130, errors
    assert "the same command continues" in errors
    assert not [word for word in ("Traceback", "Warning") if word in errors], errors
    assert gone(workers)
    kept = finished(out)
    assert 2 <= kept < (N_MANY if tables is MANY else 8)
    if tables is MANY and jobs == 1:
        sweep(given, out, jobs=1)
        sweep(given, tmp_path / "undisturbed", **ONE)
        assert rows(out).equals(rows(tmp_path / "undisturbed"))


def test_results_that_nobody_takes_are_no_warning(recwarn):
    """joblib warns of them when it is stopped; batches without a plan fail at once, which is enough here."""
    results = distribute.by_joblib(work, ((i, None) for i in range(500)), 1, "threading", 2)
    assert isinstance(next(results)[1], distribute.Failure)
    results.close()
    assert not recwarn.list


def test_interrupted_twice(tmp_path):
    """In the middle of a long batch the first stops between two iterations, and a second right after it is no harm."""
    given, out = write_toml(tmp_path / "given.toml", slow(2, 40_000_000)), tmp_path / "out"
    driver = start("sweep", given, "--out", out, "--jobs", 2)
    until(lambda: (out / "sweep.json").exists())
    time.sleep(3)
    workers = family(driver)
    for _ in range(2):
        os.killpg(driver.pid, signal.SIGINT)
        time.sleep(0.05)
    _, errors = driver.communicate(timeout=10)
    assert driver.returncode in (130, -signal.SIGINT), errors  # the second may find it on its way out
    assert "the same command continues" in errors
    assert "Traceback" not in errors, errors
    assert gone(workers)


def test_interrupted_in_python(tmp_path):
    """The call raises, says how much is kept, and the same call continues; a table being written counts too."""
    count = iter(range(9))

    def stop(_):
        if next(count) == 1:
            raise KeyboardInterrupt

    with pytest.raises(SweepInterrupted) as caught:
        sweep(spec(), tmp_path, **ONE, progress=stop)
    assert (caught.value.done, caught.value.total, finished(tmp_path)) == (2, 5, 2)
    sweep(spec(), tmp_path, **ONE, progress=lambda state: count.__next__())
    assert next(count) == 5  # three more


# ------------------------------------------------------------------ failures
def boom(batch, threads):
    """Fails for one point, as a worker sees it."""
    if ALPHA[2] in [run.config.alpha for run in batch.runs]:
        raise ZeroDivisionError("planted")
    return work(batch, threads)


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setattr(driver, "work", boom)


@pytest.mark.parametrize("options", [ONE, {"jobs": 2, "scheduler": "threading", "largest_batch": 1}])
def test_a_batch_that_fails(tmp_path, planted, whole, options, monkeypatch):
    """Its point is named, none starts after it, what was under way is kept, and the same call continues."""
    with pytest.raises(SweepFailed, match=r"point 2 \(alpha = 2.0\), seeds 0 to 0: ZeroDivisionError: planted; \d "):
        sweep(spec(), tmp_path, **options)
    kept = finished(tmp_path)
    assert kept == 2 if options is ONE else 2 <= kept <= 4
    assert not (tmp_path / "results.parquet").exists()
    monkeypatch.setattr(driver, "work", work)
    sweep(spec(), tmp_path, **ONE)
    assert rows(tmp_path).equals(whole)


def test_a_failure_among_several(tmp_path, planted, monkeypatch):
    message = r"standard training of point 2 \(alpha = 2.0, eps = 1.0\) and 1 more up to 3, seeds 3 to 4"
    tables = spec({"alpha": [9.0, *ALPHA[1:3], 8.0], "eps": [1.0]}, base={"n_seeds": 2, "first_seed": 3})
    monkeypatch.setattr(planning, "BATCHES_PER_WORKER", 1)
    with pytest.raises(SweepFailed, match=message):
        sweep(tables, tmp_path, jobs=1, largest_batch=4, scheduler="threading")


def test_a_worker_that_is_killed(tmp_path, tmp_path_factory):
    """As the kernel does when memory runs out: no traceback of loky but a cause; what is done is kept."""
    tables, killed = slow(6), []

    def kill(state):
        if killed or state.done < 2:
            return
        children = [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]  # of other tests
        workers = [p for p in children if "LokyProcess" in " ".join(p.cmdline())]
        killed.append(workers[0].pid)
        workers[0].kill()

    with pytest.raises(SweepFailed, match=r"worker process was killed.*memory.*; [2-6] of 6 runs are kept in .* con"):
        sweep(tables, tmp_path, jobs=2, largest_batch=1, progress=kill)
    assert killed
    before = finished(tmp_path)
    assert 2 <= before < 6
    sweep(tables, tmp_path, jobs=2, largest_batch=1)
    sweep(tables, other := tmp_path_factory.mktemp("undisturbed"), jobs=1)
    assert rows(tmp_path).equals(rows(other))


# ------------------------------------------------------------------ backends
@pytest.mark.parametrize("scheduler", ["threading", "multiprocessing", "loky"])
def test_backends(scheduler, tmp_path, whole):
    sweep(spec(), tmp_path, jobs=2, largest_batch=1, scheduler=scheduler)
    assert rows(tmp_path).equals(whole)
    assert finished(tmp_path) == 5


def test_a_backend_of_the_user(tmp_path, whole, monkeypatch):
    seen = []

    class Own(ThreadingBackend):
        def submit(self, func, callback=None):
            seen.append(threading.get_ident())
            return super().submit(func, callback)

        apply_async = submit

    monkeypatch.setitem(BACKENDS, "own", None)
    joblib.register_parallel_backend("own", Own)
    sweep(spec(), tmp_path, jobs=2, largest_batch=1, scheduler="own")
    assert rows(tmp_path).equals(whole)
    assert len(seen) == 5


# ------------------------------------------------------------------ arguments
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, "jobs = 0: must be an integer >= 1"),
        ({"jobs": True}, "jobs = True"),
        ({"jobs": 1.5}, "jobs = 1.5"),
        ({"largest_batch": 0}, "largest_batch = 0: must be an integer >= 1"),
        ({"memory": "much"}, "memory = 'much': must be bytes, or text as 500MB"),
        ({"memory": "1.2.3GB"}, "memory = '1.2.3GB'"),
        ({"memory": -1}, "memory = -1"),
        ({"memory": True}, "memory = True"),
        ({"memory": float("nan")}, "memory = nan"),
        ({"memory": float("inf")}, "memory = inf"),
        ({"memory": "10MB"}, "memory = 10 MB: is less than"),
        ({"memory": "700MB", "jobs": 64}, "memory = 700 MB: is less than 64 worker processes need"),
        ({"scheduler": "slurm"}, "scheduler = 'slurm': must be dask=tcp://HOST:PORT, or joblib's"),
        ({"scheduler": "dask"}, "scheduler = 'dask': must be dask=tcp://HOST:PORT"),
        ({"scheduler": "dask="}, "scheduler = 'dask=': must be"),
        ({"scheduler": "loky=2"}, "scheduler = 'loky=2': must be"),
        ({"scheduler": None}, "scheduler = None: must be"),
    ],
)
def test_bad_arguments(options, message, tmp_path):
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(")):
        sweep(spec(), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_without_distributed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"'dask=tcp://127.0.0.1:9': needs dask; .* install .advfeat\[distributed\]"):
        sweep(spec(), tmp_path / "out", scheduler="dask=tcp://127.0.0.1:9")
    assert not (tmp_path / "out").exists()


def test_a_damaged_sweep_json_is_written_anew(tmp_path, whole):
    sweep(spec(), tmp_path, **ONE)
    (tmp_path / "sweep.json").write_text("{")
    sweep(spec(), tmp_path, **ONE)
    assert store.load_json(tmp_path / "sweep.json")["runs"] == 5
    assert rows(tmp_path).equals(whole)

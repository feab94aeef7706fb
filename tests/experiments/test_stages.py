"""Stages by this process and by workers: all are done, each with its share of the cores, and failures have names."""

import numba
import pytest
from advfeat.kernels.cpu.engine import get_num_threads

from advfeat.core.distribute import WorkFailed
from advfeat.experiments import stages
from advfeat.experiments.stages import alone, spread


@pytest.mark.parametrize(("jobs", "scheduler"), [(1, "loky"), (2, "threading"), (None, "threading")])
def test_every_stage_is_done_once(jobs, scheduler):
    seen = []
    assert list(spread(seen.append, range(7), jobs, scheduler)) == list(range(1, 8))
    assert sorted(seen) == list(range(7))
    assert list(spread(seen.append, [], jobs, scheduler)) == []


def test_one_job_of_this_machine_is_this_process(monkeypatch):
    monkeypatch.setattr("advfeat.core.distribute.usable_cores", lambda: 3)
    given = ((1, "loky"), (2, "loky"), (None, "loky"), (1, "threading"))
    assert [alone(*one) for one in given] == [True, False, False, False]


@pytest.mark.parametrize("threads", [1, 10_000])
def test_a_stage_in_a_worker_has_no_more_threads_than_numba_allows_and_gives_them_back(threads):
    seen, before = [], get_num_threads()
    stages.stage_done((lambda _: seen.append(get_num_threads()), None), threads)
    assert seen == [min(threads, numba.config.NUMBA_NUM_THREADS)]
    assert get_num_threads() == before


def test_a_stage_that_raises():
    def work(stage):
        if stage == 1:
            raise ZeroDivisionError("planted")

    with pytest.raises(WorkFailed, match="ZeroDivisionError: planted"):
        list(spread(work, range(3), 2, "threading"))
    with pytest.raises(ZeroDivisionError, match="planted"):
        list(spread(work, range(3), 1))


@pytest.mark.parametrize(("options", "message"), [
    ({"jobs": 0}, "jobs = 0: must be an integer >= 1"), ({"scheduler": "dask"}, "must be dask=tcp://HOST:PORT"),
    ({"scheduler": "foo=tcp://x"}, "must be dask=tcp://HOST:PORT"), ({"scheduler": "nobody"}, "or joblib's"),
])  # fmt: skip
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        list(spread(print, range(3), **{"jobs": 2} | options))

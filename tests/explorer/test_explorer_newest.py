"""The worker thread of a tab: the newest request alone, what can wait given up, nothing after its end."""

import threading
import time

import pytest

from advfeat.explorer import newest
from advfeat.explorer.newest import Newest


@pytest.fixture
def worker(monkeypatch):
    """make(answer, rest, show) -> a worker that ends with the test; its pause is short."""
    monkeypatch.setattr(newest, "PAUSE", 0.01)
    made = []

    def make(answer, rest=lambda request: None, show=lambda frame: None):
        made.append(Newest(answer, rest, show))
        return made[-1]

    yield make
    for one in made:
        one.close()
        assert one.join(20)


def wait(condition):
    while not condition():
        time.sleep(0.005)


def test_of_a_thousand_requests_the_newest_is_answered_and_no_queue_is_left(worker):
    begun, held, shown = threading.Event(), threading.Event(), []

    def answer(request):
        begun.set()
        held.wait()
        return request

    one = worker(answer, show=shown.append)
    one.ask(0)
    begun.wait()
    for n in range(1, 1001):
        one.ask(n)
    held.set()
    wait(lambda: 1000 in shown)
    assert shown == [0, 1000]
    assert one.begun == 2


def test_what_can_wait_begins_after_a_pause_and_is_given_up_for_a_request(worker):
    shown, one = [], None

    def rest(request):
        while one.going():
            time.sleep(0.001)
            yield "rest", request

    one = worker(lambda request: request, rest, shown.append)
    one.ask(1)
    wait(lambda: shown.count(("rest", 1)) > 3)
    assert shown[0] == 1
    one.ask(2)
    wait(lambda: ("rest", 2) in shown)
    assert ("rest", 1) not in shown[shown.index(2) :]


def test_what_can_wait_does_not_begin_while_requests_come(worker, monkeypatch):
    monkeypatch.setattr(newest, "PAUSE", 30.0)
    shown = []
    one = worker(lambda request: request, lambda request: iter(["rest"]), shown.append)
    for n in range(5):
        one.ask(n)
        wait(lambda n=n: n in shown)
    assert shown == [0, 1, 2, 3, 4]


def test_nothing_begins_after_the_end(worker):
    shown = []
    one = worker(lambda request: request, lambda request: iter(["rest"]), shown.append)
    one.close()
    assert one.join(20)
    one.ask(1)
    assert shown == []
    assert not one.going()

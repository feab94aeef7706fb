"""One worker thread of a tab: it computes what was asked for last, and nothing that was asked for before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

PAUSE = 0.25  # seconds without a request, after which what can wait begins


class Newest:
    """A thread that answers the newest request at once and spends its rest on what can wait.

    Parameters
    ----------
    answer : request -> frame, quick
    rest : request -> iterator of frames, or None; begins after `PAUSE` without another request, and is given up when
        one comes: `going()` then says no
    show : frame -> None, called in this thread, one after another

    `ask` never waits: a request that was not begun is replaced.  After `close` nothing is begun any more.
    """

    def __init__(self, answer: Callable, rest: Callable[[object], Iterator | None], show: Callable):
        self._answer, self._rest, self._show = answer, rest, show
        self._changed = threading.Condition()
        self._request, self._waiting, self._closed = None, False, False
        self.begun = 0  # requests that were answered, or are
        self._thread = threading.Thread(target=self._run, name="advfeat explore", daemon=True)
        self._thread.start()

    def ask(self, request) -> None:
        with self._changed:
            self._request, self._waiting = request, True
            self._changed.notify()

    def going(self) -> bool:
        """Whether nothing newer waits."""
        return not (self._waiting or self._closed)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread's end; whether it came."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _next(self, timeout: float | None = None):
        """The newest request, or None after the timeout or where all is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout)
            if self._closed or not self._waiting:
                return None
            self._waiting = False
            self.begun += 1
            return self._request

    def _run(self):
        while not self._closed:
            request = self._next()
            while request is not None:
                self._show(self._answer(request))
                request, last = self._next(PAUSE), request
            if not self._closed:
                self._show_rest(last)

    def _show_rest(self, request):
        frames = self._rest(request)
        for frame in frames or ():
            if not self.going():
                return
            self._show(frame)

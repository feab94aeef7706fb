"""How far a long call is, and when it must end: one mechanism for trainings, attacks, certificates, inversions and all
that is made of them.

What takes long takes two arguments.  ``progress(what, share)`` is called now and then with what is being done, in a few
words, and the share of the call that is done, 0 to 1, never less than before.  ``time_limit`` is a number of seconds:
when they are over, no further work is begun, what is known by then is returned, and `timed_out` of the result says
where the limit cut it short.  The limit is looked at between steps that cannot be divided, as one call of an engine, so
that a call may last longer by one of them; 0 leaves what costs nothing.  What ends in time has the bits that it has
without a limit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from . import checks

SEGMENT_SECONDS = 0.25  # how long an engine works between two looks at Ctrl-C, progress and time limit

Progress = Callable[[str, float], None]


class Stopwatch:
    """The progress and the time limit of one call.

    Attributes
    ----------
    timed_out : the limit was met while there was work left
    """

    def __init__(self, progress: Progress | None = None, time_limit: float | None = None):
        seconds = math.inf if time_limit is None else checks.number("time_limit", time_limit, low=0)
        progress = None if progress is None else checks.callback("progress", progress)
        self.limited, self.watched = time_limit is not None, progress is not None
        self._progress, self._end, self._share = progress, now() + seconds, 0.0
        self.timed_out = False

    def tell(self, what: str, share: float) -> None:
        """Say that so much is done."""
        if self._progress is not None:
            self._share = min(max(share, self._share), 1.0)
            self._progress(what, self._share)

    def is_up(self) -> bool:
        """Whether the time is over, asked where there is work left; `timed_out` remembers it."""
        if self.limited and now() >= self._end:
            self.timed_out = True
        return self.timed_out

    @property
    def left(self) -> float | None:
        """The `time_limit` of a call that is a part of this one."""
        return max(self._end - now(), 0.0) if self.limited else None

    def part(self, begin: float, end: float, what: str = "") -> Progress | None:
        """The `progress` of a part of this call, which goes from share `begin` to `end`."""
        if self._progress is None:
            return None
        return lambda inner, share: self.tell(what or inner, begin + (end - begin) * share)


def now() -> float:
    return time.monotonic()

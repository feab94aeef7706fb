"""Images whose representation is another image's (Sec. 6.2): x_r with g(x_r) close to g(x), by descent from a start.

The loss of an image is its *distance* |g(x_r) - g(x)|_2 / |g(x)|_2, or |g(x_r)|_2 where g(x) is 0.  Every image is
worked on by itself, in evaluation mode: what becomes of it hangs on no other image, nor on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from ..attacks.gradient import SCHEDULES
from ..core import ball, checks
from ..core.config import Configuration, key
from ..core.progress import Progress, Stopwatch
from ..core.records import record
from .network import Network

OPTIMISERS = ("gradient", "adam")
BETAS, TINY = (0.9, 0.999), 1e-8  # of Adam: Kingma & Ba 2015
NOISE = 0.05  # a start of noise is 0.5 + NOISE U(0, 1)


@dataclass(frozen=True)
class Inversion(Configuration):
    """How an image is found: `n_steps` steps of `step`, which shrinks along `decay`, each followed by clipping.

    "gradient": x_r <- x_r - step G / |G|_2, G the gradient of the distance, a step of fixed length; "adam": Adam's.
    Of all points on the way the closest is kept, and an image that is closer than `tolerance` has converged and rests.
    One that is not closer than `enough` after all steps begins again, from its next start.
    """

    optimiser: str = key("adam", "how images move", choices=OPTIMISERS)
    step: float = key(0.1, "length of a step of gradient, or Adam's rate", "pixel", above=0)
    decay: str = key("cosine", "how steps shrink along the way", choices=tuple(SCHEDULES))
    n_steps: int = key(300, "steps from a start, at most", low=1, high=checks.MOST_STEPS)
    tolerance: float = key(0.02, "distance at which an image has converged", above=0)
    enough: float = key(0.05, "distance at which an image needs no other start", above=0)
    radius: float | None = key(None, "of an l2 ball around the start, which images do not leave", "pixel", above=0)
    straight_through: bool = key(False, "whether gradients go through the last ReLU as through the identity")


@record
class Inverted:
    """Images X (N, C, H, W), their distances (N,) float64, the starts (N,) that they were reached from, the steps (N,)
    that it took from there, and which of them (N,) the time limit left unfinished."""

    X: np.ndarray
    distance: np.ndarray
    start: np.ndarray
    steps: np.ndarray
    timed_out: np.ndarray


def invert(net: Network, targets, starts, options: Inversion | None = None, *, progress: Progress | None = None,
           time_limit: float | None = None) -> Inverted:  # fmt: skip
    """The images closest to `targets` (N, E) in the representation of `net` on the ways from `starts`
    (S, N, C, H, W), which are tried in turn until an image is close enough.

    `progress` and `time_limit` as in :mod:`advfeat.core.progress`: when the time is over, the closest points until
    then.  Raises ValueError for targets that are not finite or of another width, and for starts of other images than
    the network reads.
    """
    *_, found = after_each_start(net, targets, starts, options, Stopwatch(progress, time_limit))
    return found


def after_each_start(net: Network, targets, starts, options: Inversion | None = None, clock: Stopwatch | None = None,
                     kept: Iterable[Inverted] = (),
                     read: Callable[[int, Inverted], None] | None = None) -> Iterator[Inverted]:  # fmt: skip
    """What :func:`invert` has found when it is done with a start, for every start, the same object in the end; `kept`
    are those of the first starts, which are not worked on again.  read(step, what is found so far) is called after
    every step."""
    clock = clock or Stopwatch()
    o = Inversion() if options is None else options
    starts = np.stack([net.check(start)[0][0] for start in starts])
    _, n = starts.shape[:2]
    width = int(np.prod(net.program.shapes[net.program.representation]))
    targets = np.asarray(targets, np.float64)
    if targets.shape != (n, width):
        raise ValueError(f"targets have shape {targets.shape}: must be {(n, width)}, a representation for every start")
    if not np.isfinite(targets).all():
        raise ValueError(f"targets: {int((~np.isfinite(targets)).any(axis=1).sum())} of them are not finite")
    size = sizes(targets)
    found = Inverted(starts[0].copy(), np.full(n, np.inf), *np.zeros((2, n), np.int64), np.zeros(n, bool))
    for number, (start, known) in enumerate(zip_longest(starts, kept)):
        left = np.flatnonzero(found.distance > max(o.enough, o.tolerance))
        if known is not None:
            found = known
        elif number and len(left) and clock.is_up():
            found.timed_out[left] = True
        elif len(left):
            _descend(net, targets, size, start, left, (number, len(starts)), o, found, clock, read)
        yield found


def readings(net: Network, targets, start, options: Inversion, steps: Iterable[int], progress: Progress | None = None):
    """{step: Inverted}: what one descent from `start` (N, C, H, W) has found after so many of its steps."""
    held, steps = {}, sorted(steps)

    def read(step, found):
        if step in steps:
            held[step] = Inverted(*(a.copy() for a in vars(found).values()))

    (found,) = after_each_start(net, targets, [start], options, Stopwatch(progress), read=read)
    return {step: held.get(step, found) for step in steps}  # all images may have converged before


def sizes(targets) -> np.ndarray:
    """|g(x)|_2 (N,), by which distances are divided; 1 where it is 0."""
    size = np.linalg.norm(targets, axis=1)
    return np.where(size > 0, size, 1.0)


def distance_and_gradient(net, X, targets, size, gradient: bool = True, straight_through: bool = False):
    """Distances (N,) of images X to `targets` (N, E), in units of `size` (N,); and their gradients by X, or None."""
    distance = np.empty(len(X))

    def slopes(g, part):
        """The distances, and their gradients by g."""
        difference = g - targets[part]
        length = np.linalg.norm(difference, axis=1)
        distance[part] = length / size[part]
        return difference / np.maximum(length * size[part], np.finfo(np.float64).tiny)[:, None]

    if gradient:
        return distance, net.representation_and_pull_back(X, slopes, straight_through)[1]
    slopes(net.representation(X).astype(np.float64), slice(None))
    return distance, None


def _descend(net, targets, size, start, left, turn, o: Inversion, found: Inverted, clock: Stopwatch, read) -> None:
    """The images `left` from their start, the turn[0]-th of turn[1]; what is closer than before is kept in `found`."""
    number, starts = turn
    X, moments = start[left], np.zeros((2, len(left), *start.shape[1:]), start.dtype)
    for step in range(o.n_steps + 1):
        distance, G = distance_and_gradient(net, X, targets[left], size[left], step < o.n_steps, o.straight_through)
        closer = distance < found.distance[left]
        rows = left[closer]
        found.X[rows], found.distance[rows] = X[closer], distance[closer]
        found.start[rows], found.steps[rows] = number, step
        if read is not None:
            read(step, found)
        clock.tell(f"start {number + 1} of {starts}, {len(left)} images left", (number + step / o.n_steps) / starts)
        going = distance > o.tolerance
        if step == o.n_steps or not going.any():
            return
        if clock.is_up():
            found.timed_out[left[going]] = True
            return
        if not going.all():
            left, X, G, moments = left[going], X[going], G[going], moments[:, going]
        X = moved(X, G, start[left], step, moments, o, net.box)


def moved(X, G, start, step: int, moments, o: Inversion, box):
    """A step from X along the gradient G, brought back into the ball and the box; Adam's `moments` change."""
    rate = X.dtype.type(o.step * SCHEDULES[o.decay](step / o.n_steps))
    if o.optimiser == "adam":
        for held, beta, new in zip(moments, BETAS, (G.copy(), G * G)):
            held *= X.dtype.type(beta)
            held += np.multiply(new, X.dtype.type(1 - beta), out=new)
        first, second = (held / X.dtype.type(1 - beta ** (step + 1)) for held, beta in zip(moments, BETAS))
        np.add(np.sqrt(second, out=second), X.dtype.type(TINY), out=second)
        X = X - np.divide(np.multiply(first, rate, out=first), second, out=first)
    else:
        X = X - rate * ball.steepest(G.reshape(1, len(G), 1, -1), "l2").reshape(G.shape)
    if o.radius is not None:
        delta = (X - start).reshape(1, len(X), 1, -1)
        X = start + ball.project(delta, np.full((1, len(X)), o.radius, X.dtype), "l2").reshape(X.shape)
    return X if box is None else np.clip(X, *box, out=X)


"""The network of a point, trained: its curves, to be laid over the recursion's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..core import memory
from ..experiments.figure3 import TRAININGS
from ..training.loop import train
from .controls import POINT, Controls
from .curves import network_columns


class GivenUp(Exception):
    """Nobody waits for the training any more."""


def point(controls: Controls) -> tuple:
    """What a network's training depends on: with it, the curves laid over the recursion's go."""
    return tuple(getattr(controls, name) for name in POINT if name != "eps_test")


def curves(controls: Controls, going: Callable[[], bool], progress: Callable[[float], None]) -> dict[str, dict]:
    """Training -> columns as `curves.network_columns` has them.

    `progress` is called now and then with the share that is done.  Raises GivenUp once `going` says no, MemoryError
    where there is not enough memory, and what `train` raises.
    """
    config = controls.config()
    memory.require(config.memory(), "this training", "give fewer seeds, patches or neurons")
    net, data, found = config.network(), config.data("train"), {}

    def step(what, share):
        if not going():
            raise GivenUp
        progress((len(found) + share) / len(TRAININGS))

    for name in TRAININGS:
        history = train(net, data, config.training(name == "adversarial"), progress=step).history
        held = {key: np.asarray(history[key]) for key in ("iteration", "A", "B", "norm")}
        found[name] = network_columns(held, config.q)
    return found

"""How parameters move along their gradients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class SGD:
    """Stochastic gradient descent: v <- momentum v + g + weight_decay w, then w <- w - lr v, in place.

    The velocity v starts at 0 and, with momentum 0, is not kept.  The convention is PyTorch's (Sutskever et al. 2013
    have lr inside v).

    Parameters
    ----------
    lr : float64 (R,), > 0
        One rate per run; a model that is no batch has one.
    momentum : float in [0, 1)
    weight_decay : float >= 0
    batched : whether parameters have a leading axis of runs
    """

    def __init__(self, lr: np.ndarray, momentum: float = 0.0, weight_decay: float = 0.0, batched: bool = False):
        self.lr, self.batched = lr, batched
        self.momentum, self.weight_decay = momentum, weight_decay
        self.velocity: dict[str, np.ndarray] = {}

    @property
    def plain(self) -> bool:
        """Whether a step is w - lr g, which engines do themselves."""
        return not self.momentum and not self.weight_decay

    def step(self, parameters: Mapping[str, np.ndarray], gradients: Mapping[str, np.ndarray], runs=None) -> None:
        """Move every array of `parameters`; `runs` (R,) bool leaves other runs of a batch where they are."""
        for name, w in parameters.items():
            g = gradients[name]
            if self.weight_decay:
                g = g + self.weight_decay * w
            if self.momentum:
                v = self.velocity.get(name)
                g = self.velocity[name] = g.copy() if v is None else self.momentum * v + g
            lr = self.lr.astype(w.dtype)
            move = (lr.reshape(-1, *[1] * (w.ndim - 1)) if self.batched else lr[0]) * g
            w -= move if runs is None else np.where(runs.reshape(-1, *[1] * (w.ndim - 1)), move, 0)

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint must hold to continue to the same bits."""
        return dict(self.velocity)

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.velocity = dict(arrays)

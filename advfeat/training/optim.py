"""How parameters move along their gradients, and how fast."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from ..attacks.gradient import half_cosine


class Optimiser(ABC):
    """Moves parameters in place; what it remembers of earlier steps are arrays by name.

    Parameters
    ----------
    lr : float64 (R,), > 0
        One rate per run; a model that is no batch has one.
    weight_decay : float >= 0
        The share of w that is added to its gradient.
    batched : whether parameters have a leading axis of runs
    decay_vectors : whether weight decay also takes arrays of one axis, which are biases and batch norms
    """

    def __init__(self, lr: np.ndarray, weight_decay: float = 0.0, batched: bool = False, decay_vectors: bool = True):
        self.lr, self.weight_decay, self.batched, self.decay_vectors = lr, weight_decay, batched, decay_vectors
        self.state: dict[str, np.ndarray] = {}

    @property
    def plain(self) -> bool:
        """Whether a step is w - lr g, which engines do themselves."""
        return False

    @abstractmethod
    def direction(self, name: str, g: np.ndarray) -> np.ndarray:
        """What lr times is taken from the parameter `name`, whose gradient with weight decay is g."""

    def step(self, parameters: Mapping, gradients: Mapping, runs=None, share: float = 1.0) -> None:
        """Move every array of `parameters` by the rate lr `share`; `runs` (R,) bool lets other runs rest."""
        if runs is None and not self.batched and self.at_once(parameters, gradients, share):
            return
        for name, w in parameters.items():
            g = gradients[name]
            if self.weight_decay and (self.decay_vectors or w.ndim - self.batched > 1):
                g = g + self.weight_decay * w
            lr = (self.lr * share).astype(w.dtype)
            move = (lr.reshape(-1, *[1] * (w.ndim - 1)) if self.batched else lr[0]) * self.direction(name, g)
            w -= move if runs is None else np.where(runs.reshape(-1, *[1] * (w.ndim - 1)), move, 0)

    def at_once(self, parameters: Mapping, gradients: Mapping, share: float) -> bool:
        """The step by a kernel, to the same bits, where there is one for it."""
        return False

    def remembered(self, name: str, like: np.ndarray) -> np.ndarray:
        """An array of the state, 0 before the first step."""
        return self.state.get(name, np.zeros_like(like))

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint must hold to continue to the same bits."""
        return dict(self.state)

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.state = dict(arrays)


class SGD(Optimiser):
    """Stochastic gradient descent: v <- momentum v + g, then w <- w - lr v, or by `nesterov` w - lr (g + momentum v).

    g is the gradient plus weight_decay w.  The velocity v starts at 0 and, with momentum 0, is not kept.  The
    convention is PyTorch's (Sutskever et al. 2013 have lr inside v).
    """

    def __init__(self, lr: np.ndarray, momentum: float = 0.0, weight_decay: float = 0.0, batched: bool = False,
                 nesterov: bool = False, decay_vectors: bool = True):  # fmt: skip
        super().__init__(lr, weight_decay, batched, decay_vectors)
        self.momentum, self.nesterov = momentum, nesterov

    def at_once(self, parameters, gradients, share):
        if not self.momentum:
            return False
        from ..kernels.cpu.update import descend  # with the engine, which who trains nothing need not wait for

        for name, w in parameters.items():
            if name not in self.state:
                self.state[name] = np.zeros_like(w)
        arrays = [(w, gradients[name], self.state[name]) for name, w in parameters.items()]
        decays = [self.weight_decay if self.decay_vectors or w.ndim > 1 else 0.0 for w in parameters.values()]
        return descend(arrays, decays, self.lr[0] * share, self.momentum, self.nesterov)

    @property
    def plain(self) -> bool:
        return not self.momentum and not self.weight_decay

    def direction(self, name, g):
        if not self.momentum:
            return g
        v = self.state[name] = self.momentum * self.remembered(name, g) + g
        return g + self.momentum * v if self.nesterov else v


class Adam(Optimiser):
    """m <- b1 m + (1 - b1) g, s <- b2 s + (1 - b2) g^2, then w <- w - lr m_hat / (sqrt(s_hat) + eps).

    m_hat = m / (1 - b1^t), s_hat = s / (1 - b2^t) after t steps; g is the gradient plus weight_decay w (Kingma & Ba
    2015; b1 = 0.9, b2 = 0.999, eps = 1e-8, PyTorch's convention).
    """

    beta1, beta2, eps = 0.9, 0.999, 1e-8

    def direction(self, name, g):
        t = self.state[f"steps/{name}"] = self.remembered(f"steps/{name}", np.array(0)) + 1
        m = self.state[f"mean/{name}"] = self.beta1 * self.remembered(f"mean/{name}", g) + (1 - self.beta1) * g
        s = self.state[f"square/{name}"] = self.beta2 * self.remembered(f"square/{name}", g) + (1 - self.beta2) * g * g
        scale = np.sqrt(1 - self.beta2 ** float(t))
        return m / (1 - self.beta1 ** float(t)) / (np.sqrt(s) / scale.astype(g.dtype) + self.eps)


OptimiserName = Literal["sgd", "adam"]
OPTIMISERS: tuple[OptimiserName, ...] = get_args(OptimiserName)


def of(config, lr: np.ndarray, batched: bool) -> Optimiser:
    """The optimiser of a training's configuration."""
    both = {"weight_decay": config.weight_decay, "batched": batched, "decay_vectors": config.decay_vectors}
    if config.optimiser == "adam":
        return Adam(lr, **both)
    return SGD(lr, config.momentum, nesterov=config.nesterov, **both)


# ------------------------------------------------------------------ rates
def one_cycle(iteration: int, n_iter: int, peak: float = 0.3) -> float:
    """Up from 1/25 to 1 until the share `peak` of the training, down to 1/250,000 at its end, each along half a cosine:
    Smith & Topin 2019 in the form of PyTorch's OneCycleLR, momentum constant."""
    top, last = peak * n_iter - 1, n_iter - 1
    if iteration <= top:
        return 1 - (1 - 1 / 25) * half_cosine(iteration / top)
    return 1 / 250_000 + (1 - 1 / 250_000) * half_cosine((iteration - top) / (last - top))


#: The share of lr that an iteration takes; `drops` are shares of the training at which the step schedule divides by 10.
RateSchedule = Literal["constant", "step", "cosine", "one_cycle"]
SCHEDULES: dict[str, Callable[[int, int, Sequence[float]], float]] = {
    "constant": lambda iteration, n_iter, drops: 1.0,
    "step": lambda iteration, n_iter, drops: 0.1 ** sum(iteration >= drop * n_iter for drop in drops),
    "cosine": lambda iteration, n_iter, drops: half_cosine(iteration / n_iter),
    "one_cycle": lambda iteration, n_iter, drops: one_cycle(iteration, n_iter),
}


def rate(schedule: RateSchedule, iteration: int, n_iter: int, drops: Sequence[float] = (), warm_up: int = 0) -> float:
    """The share of lr that iteration 0 ... n_iter - 1 takes: the schedule's (cosine: Loshchilov & Hutter 2017, without
    restarts), times (i + 1) / (warm_up + 1) for the first `warm_up` iterations."""
    return SCHEDULES[schedule](iteration, n_iter, drops) * min((iteration + 1) / (warm_up + 1), 1.0)

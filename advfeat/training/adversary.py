"""Who moves training samples: ascents of the training's objective (Li & Li 2025, Sec. 2.5; PGD, FGSM, TRADES)."""

from __future__ import annotations

import numpy as np

from ..attacks.base import as_patches
from ..attacks.gradient import ascended
from ..core import ball, checks
from ..core.rng import stream
from ..kernels import formulas
from .configuration import TrainConfig

TRADES_START = 0.001  # standard deviation of the noise from which TRADES ascends (Zhang et al. 2019)


class Adversary:
    """The ascents of one training; `step` and `eps` (R,) are each run's rate and radius, seeds(iteration) its seeds."""

    def __init__(self, config: TrainConfig, net, seeds):
        R = net.n_runs
        self.config, self.seeds = config, seeds
        self.step, self.eps = np.zeros(R), np.zeros(R)
        if config.adversarial:
            self.step = checks.per_run("ascent_lr", config.ascent_lr, R, above=0, dtype=net.dtype)
            self.eps = checks.per_run("eps", config.eps, R, low=0, dtype=net.dtype)

    def arguments(self) -> tuple:
        """The engine's arguments of the ascent; no steps of it in standard training."""
        c = self.config
        return checks.OBJECTIVES[c.objective], self.step, self.eps, checks.NORMS[c.norm], c.n_ascent * c.adversarial

    def network(self, net):
        """The network as samples are ascended on it."""
        c = self.config
        return net.in_mode("train", c.crafting_updates) if c.crafting_mode == "train" else net

    def moved(self, net, X, y, iteration: int):
        """Checked samples X (R, N, *S) where an ascent takes them."""
        c, share = self.config, min((iteration + 1) / (self.config.eps_warm_up + 1), 1.0)
        net = self.network(net)
        options = {"lr": self.step * share, "eps": self.eps * share, "n_steps": c.n_ascent, "norm": c.norm}
        options |= {"objective": c.objective, "steepest": c.ascent == "steepest"}
        if c.loss == "trades":
            p = softmax(net.logits_of(net.prepare(X, y)))
            options["slopes"] = lambda F, some: softmax(F) - p[:, some]
        return ascended(net, X, y, **options, start=self.start(net, X, options["eps"], iteration))

    def start(self, net, X, eps, iteration: int):
        """What is added to X before the first step, (R, N, P, d): random points of the balls, or TRADES's noise; None
        where ascents start at the samples."""
        c = self.config
        if not (c.random_start or c.loss == "trades"):
            return None
        shape = as_patches(X[:1], net.patch_axis).shape[1:]
        rngs = [stream(seed, "attacks", iteration) for seed in self.seeds(iteration)]
        if c.loss == "trades":
            draw = [TRADES_START * rng.standard_normal(shape) for rng in rngs]
        else:
            flat = shape[0] * shape[1], shape[2]
            draw = [ball.random_point(rng, flat, radius, c.norm) for rng, radius in zip(rngs, eps)]
        return np.reshape(draw, (-1, *shape))


def softmax(F) -> np.ndarray:
    """exp F_i / sum_j exp F_j along the last axis."""
    return np.exp(F - formulas.log_sum_exp(F)[..., None])


def trades(net, X, moved, y, beta: float):
    """TRADES (Zhang et al. 2019): the mean of -log p_y + beta sum_i p_i log(p_i / q_i), and its gradient by name.

    p = softmax F(x), q = softmax F(x~), each a batch of its own in training mode; with r_i = log(p_i / q_i),
    dJ/dF_i(x) = p_i - 1{i = y} + beta p_i (r_i - sum_j p_j r_j) and dJ/dF_i(x~) = beta (q_i - p_i).
    """
    F, n = net.logits(X, "train").astype(np.float64), len(X)
    p, held = softmax(F), {}

    def by_moved(F_moved):
        held["F"] = F_moved
        return beta * (softmax(F_moved) - p) / n

    def by_clean(F):
        r = (F - formulas.log_sum_exp(F)[..., None]) - (held["F"] - formulas.log_sum_exp(held["F"])[..., None])
        held["divergence"] = (p * r).sum(axis=-1)
        own = formulas.objective_gradient(F[None], y[None], formulas.CROSS_ENTROPY)[0]
        return (own + beta * p * (r - held["divergence"][:, None])) / n

    by_image = net.logits_and_weights_grad(moved, by_moved)[1]
    F, total = net.logits_and_weights_grad(X, by_clean)
    loss = (formulas.cross_entropy(F[None], y[None])[0] + beta * held["divergence"]).mean()
    return float(loss), {name: total[name] + by_image[name] for name in total}

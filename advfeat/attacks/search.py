"""Random search on the margin: no gradients, so nothing masks it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import checks
from . import ball
from .threat import Attack

DECAY = (0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # shares of the steps at which the window is halved


@dataclass(frozen=True)
class Square(Attack):
    """Score-based random search in the spirit of Andriushchenko et al. 2020, with windows over patches and coordinates.

    A proposal redraws the perturbation on a random window, a run of neighbouring coordinates of some random patches:
    for l_inf to +-eps, one sign per coordinate for all of them; else by adding a random vector of the window, one for
    all of its patches, of length eps, and projecting.  It is accepted where the margin falls.  The window's share of
    the sample is `p_init`, halved at the published shares of the steps.

    Parameters
    ----------
    n_steps, n_restarts : int
        Proposals per restart.
    p_init : float in (0, 1]
    """

    n_steps: int = 200
    n_restarts: int = 1
    p_init: float = 0.8

    def _name(self):
        return "square"

    def _check_options(self):
        checks.integer("n_steps", self.n_steps, 1)
        checks.integer("n_restarts", self.n_restarts, 1)
        if checks.number("p_init", self.p_init, above=0) > 1:
            raise ValueError(f"p_init = {self.p_init!r}: must be <= 1")

    def _attack(self, problem):
        for restart in range(self.n_restarts):
            on = problem.open
            if on.any():
                self._search(problem, restart, on)

    def _search(self, problem, restart, on):
        rngs = {(r, n): problem.generator(restart, r, n) for r, n in zip(*np.nonzero(on))}
        X, F = problem.X, problem.clean
        margin = np.where(on, problem.margin(F), np.nan)
        for it in range(self.n_steps):
            share = self.p_init / 2 ** sum(it > part * self.n_steps for part in DECAY)
            delta = X - problem.X
            for r, n in zip(*np.nonzero(on)):
                delta[r, n] = _propose(rngs[r, n], delta[r, n], problem.eps[r, n], problem.norm, problem.budget, share)
            tried = problem.move(delta)
            value = problem.margin(problem.evaluate(tried, on))
            problem.iterations += on
            falls = on & (value < margin)
            X = np.where(falls[..., None, None], tried, X)
            margin = np.where(falls, value, margin)
            on = on & problem.open
            if not on.any():
                return


def _propose(rng, delta, eps, norm, budget, share):
    """One sample's perturbation (P, d) redrawn on a window of about `share` of its numbers; before projection."""
    P, d = delta.shape
    side = np.sqrt(share)
    n_patches, width = max(round(side * P), 1), max(round(side * d), 1)
    patches, first = rng.permutation(P)[:n_patches], rng.integers(d - width + 1)
    delta = delta.copy()
    window = np.ix_(patches, range(first, first + width))
    if norm == "linf":
        delta[window] = eps * rng.choice([-1.0, 1.0], width)
    else:
        push = np.zeros((1, P, d))
        push[0][window] = rng.standard_normal(width) if norm == "l2" else rng.choice([-1.0, 1.0]) * _one(rng, width)
        size = ball.length(push, norm, budget)[0]
        delta += eps * push[0] / size
    return delta


def _one(rng, width):
    """A random unit coordinate: the corners of the l_1 ball are where convex functions are largest."""
    return (np.arange(width) == rng.integers(width)).astype(float)

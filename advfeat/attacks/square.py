"""Random search on the margin: no gradients, so nothing masks it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core import ball, checks
from .base import Attack, AttackProblem

DECAY = (0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # shares of the steps at which the window is halved


@dataclass(frozen=True)
class Square(Attack):
    """Score-based random search in the spirit of Andriushchenko et al. 2020, with random windows.

    A proposal redraws the perturbation on a window: for l_inf to +-eps, else by adding a random vector of the window of
    length eps and projecting.  It is accepted where the margin falls.  In samples made of patches a window is a run of
    neighbouring coordinates of some random patches, with the same numbers in all of them; in images, a rectangle in
    all channels with a sign for each; in vectors, a run with one sign.  Its share of the sample is `p_init`, halved at
    the published shares of the steps.

    Parameters
    ----------
    n_steps, n_restarts : int
        Proposals per restart.
    p_init : float in (0, 1]
    """

    n_steps: int = 200
    n_restarts: int = 1
    p_init: float = 0.8

    def check_options(self) -> None:
        checks.integer("n_steps", self.n_steps, 1, checks.MOST)
        checks.integer("n_restarts", self.n_restarts, 1, checks.MOST)
        if checks.number("p_init", self.p_init, above=0) > 1:
            raise ValueError(f"p_init = {self.p_init!r}: must be <= 1")

    def run(self, problem: AttackProblem) -> None:
        for restart in range(self.n_restarts):
            on = problem.open
            problem.restart = restart
            if on.any():
                self._search(problem, restart, on)

    def _search(self, problem, restart, on):
        windows = (PatchWindows if problem.model.patch_axis is not None else Rectangles)(problem, restart, on, self)
        X, margin = problem.X.copy(), np.where(on, problem.margin(problem.clean), np.nan)
        for it in range(self.n_steps):
            share = self.p_init / 2 ** sum(it > part * self.n_steps for part in DECAY)
            undo = windows.propose(it, share, X, on)
            value = problem.margin(problem.evaluate(X, on))
            problem.iterations += on
            falls = on & (value < margin)
            undo(on & ~falls)
            margin = np.where(falls, value, margin)
            on = on & problem.open
            if not on.any():
                return


class PatchWindows:
    """Windows of samples made of patches; every sample draws from a generator of its own, step by step."""

    def __init__(self, problem, restart, on, options):
        self.problem = problem
        self.rngs = {(r, n): problem.generator(restart, r, n) for r, n in zip(*np.nonzero(on))}

    def propose(self, it, share, X, on):
        """Move X to the proposals of the samples `on`; returns a function that takes some of them back."""
        problem, before = self.problem, X.copy()
        r, n = np.nonzero(on)
        P, d = X.shape[2:]
        n_patches, width = max(round(np.sqrt(share) * P), 1), max(round(np.sqrt(share) * d), 1)
        patches, columns, values = (np.array(part) for part in zip(*(
            self._draw(self.rngs[at], P, d, n_patches, width) for at in zip(r.tolist(), n.tolist())
        )))  # fmt: skip
        rows = np.arange(len(r))[:, None, None]
        window = rows, patches[:, :, None], columns[:, None, :]
        delta, eps = (X - problem.X)[r, n], problem.eps[r, n][:, None, None]
        if problem.norm == "linf":
            delta[window] = eps * values[:, None]
        else:
            push = np.zeros_like(delta)
            push[window] = values[:, None]
            delta += eps * push / ball.length(push, problem.norm, problem.budget)[:, None, None]
        moved = X - problem.X
        moved[r, n] = delta
        X[...] = problem.move(moved)

        def undo(back):
            X[back] = before[back]

        return undo

    def _draw(self, rng, P, d, n_patches, width):
        """A window's patches, its columns, and the numbers in each of its patches."""
        patches, first = rng.permutation(P)[:n_patches], rng.integers(d - width + 1)
        if self.problem.norm == "linf":
            values = rng.choice([-1.0, 1.0], width)
        elif self.problem.norm == "l2":
            values = rng.standard_normal(width)
        else:  # a random unit coordinate: the corners of the l_1 ball are where convex functions are largest
            values = rng.choice([-1.0, 1.0]) * (np.arange(width) == rng.integers(width))
        return patches, np.arange(first, first + width), values


class Rectangles:
    """Windows of images (..., C, H, W) and vectors, C = H = 1; a sample's draws for all steps are made at once."""

    def __init__(self, problem, restart, on, options):
        shape = (1, 1, *problem.sample_shape)[-3:] if len(problem.sample_shape) < 3 else problem.sample_shape
        self.problem, self.shape = problem, (int(np.prod(shape[:-2])), *shape[-2:])
        self.draws = np.zeros((*on.shape, options.n_steps, 4 + self.shape[0]))
        for r, n in zip(*np.nonzero(on)):  # every sample has a generator of its own
            self.draws[r, n] = problem.generator(restart, r, n).random(self.draws.shape[2:])

    def propose(self, it, share, X, on):
        """As :meth:`PatchWindows.propose`."""
        problem, (C, H, W) = self.problem, self.shape
        r, n = np.nonzero(on)
        draws, side = self.draws[r, n, it], share if 1 in (H, W) else np.sqrt(share)
        h, w = max(round(side * H), 1), max(round(side * W), 1)
        top, left = (draws[:, :2] * (H - h + 1, W - w + 1)).astype(int).T
        sign = np.where(draws[:, 4:] < 0.5, -1.0, 1.0).astype(X.dtype)[:, :, None, None]
        if problem.norm == "l1":  # one pixel of the window in one channel
            y, x = top + (draws[:, 2] * h).astype(int), left + (draws[:, 3] * w).astype(int)
            channel = np.arange(C) == (draws[:, 4] * C).astype(int)[:, None]
            top, left, h, w, sign = y, x, 1, 1, sign * channel[:, :, None, None]
        window = (
            *(a[:, None, None, None] for a in (r, n)), np.arange(C)[None, :, None, None],
            (top[:, None] + np.arange(h))[:, None, :, None], (left[:, None] + np.arange(w))[:, None, None, :],
        )  # fmt: skip
        images, clean = (a.reshape(*on.shape, C, H, W) for a in (X, problem.X))
        before, eps = images[window], problem.eps[r, n][:, None, None, None]
        if problem.norm == "linf":
            moved = clean[window] + eps * sign
            images[window] = moved if problem.box is None else np.clip(moved, *problem.box)
        else:
            whole = X.copy()
            images[window] += eps * sign / np.sqrt(h * w * np.abs(sign).sum(axis=1, keepdims=True))
            X[...] = problem.move(X - problem.X)

        def undo(back):
            if problem.norm != "linf":
                X[back] = whole[back]
            elif (back := back[r, n]).any():
                images[tuple(a[back] if len(a) == len(back) else a for a in window)] = before[back]

        return undo

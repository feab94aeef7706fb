"""The reference engine: the formulas, called in turn; every other engine is checked against it.

Shapes and dtypes are those of :mod:`advfeat.kernels.formulas`.  The public methods of :class:`NumpyEngine` are the
signature of all engines.
"""

from typing import NamedTuple

import numpy as np

from . import branch_and_bound, caps, recursion
from .formulas import (
    CROSS_ENTROPY,
    cross_entropy,
    forward,
    input_gradient,
    margin,
    objective_gradient,
    per_run,
    preactivations,
    project,
    sigma,
    steepest,
    weight_gradient,
)


class NumpyBatch(NamedTuple):
    """Samples as this engine keeps them: every run with its own copy; `active` marks those that are worked on."""

    X: np.ndarray
    y: np.ndarray
    active: np.ndarray


class NumpyEngine:
    """The reference engine.  Engines share these methods, one signature each.

    ``batch`` is what ``pack`` returned, an engine's own layout.  ``pack`` takes X (R or 1, N, P, d), y (R or 1, N), the
    number of runs and, optionally, ``active (R, N)`` bool: other samples are skipped (logits and margins NaN, inputs
    returned as they came).
    """

    name = "numpy"

    def pack(self, X, y, n_runs, active=None):
        X = np.broadcast_to(X, (n_runs, *X.shape[1:]))
        y = np.broadcast_to(y, (n_runs, y.shape[1]))
        return NumpyBatch(X, y, np.ones(y.shape, bool) if active is None else active)

    def plan(self, W, batch):
        """How `train` would work on a batch: rows (what, how)."""
        return [("products", "NumPy's matmul and einsum on all samples at once")]

    def plan_recursion(self, types):
        """Which kernel `recursion` has for which of the runs."""
        return f"{len(types.y)} runs one by one, by NumPy"

    def logits(self, W, batch, q, rho):
        """F (R, N, k)."""
        return np.where(batch.active[..., None], forward(W, batch.X, q, rho), np.nan)

    def loss_and_grad(self, W, batch, q, rho):
        """L = mean_n -log logit_{y_n}(X_n) -> (R,), and grad_W L (R, k, m, d)."""
        F = forward(W, batch.X, q, rho)
        C = objective_gradient(F, batch.y, CROSS_ENTROPY) / F.shape[1]
        return cross_entropy(F, batch.y).mean(axis=1), weight_gradient(W, batch.X, C, q, rho)

    def input_grad(self, W, batch, q, rho, objective):
        """grad_x J per sample (no 1/N) -> (R, N, P, d)."""
        C = objective_gradient(forward(W, batch.X, q, rho), batch.y, objective)
        return np.where(batch.active[..., None, None], input_gradient(W, batch.X, C, q, rho), 0).astype(W.dtype)

    def pull_back(self, W, batch, q, rho, C):
        """sum_i C[n, i] dF_i/dx per sample, C (R, N, k) float64 -> (R, N, P, d); 0 for samples that are not active."""
        return np.where(batch.active[..., None, None], input_gradient(W, batch.X, C, q, rho), 0).astype(W.dtype)

    def ascend(self, W, batch, q, rho, objective, step, eps, norm, n_steps):
        """x~ <- x + project_eps(x~ - x + step grad_x J(x~)), n_steps times from x~ = x -> (R, N, P, d)."""
        X = Xa = batch.X
        for _ in range(n_steps):
            g = self.input_grad(W, NumpyBatch(Xa, batch.y, batch.active), q, rho, objective)
            Xa = X + project(Xa - X + per_run(step, X) * g, eps, norm)
        return Xa

    def pgd(self, W, batch, q, rho, objective, step, eps, norm, n_steps, start):
        """x~ <- x + project_eps(x~ - x + step * steepest direction), from `start` (R, N, P, d).

        Returns each sample's best iterate and its margin (R, N); a sample rests once its margin is <= 0.
        """
        X, Xa, best = batch.X, start, np.full(batch.y.shape, np.inf)
        X_best = X.copy()
        for it in range(n_steps + 1):
            value = margin(forward(W, Xa, q, rho), batch.y)
            better = batch.active & (best > 0) & (value < best)
            best[better], X_best[better] = value[better], Xa[better]
            if it < n_steps:
                g = self.input_grad(W, NumpyBatch(Xa, batch.y, batch.active), q, rho, objective)
                Xa = X + project(Xa - X + per_run(step, X) * steepest(g, norm), eps, norm)
        return X_best, np.where(batch.active, best, np.nan)

    def train(self, W, batch, q, rho, lr, n_iter, objective, step, eps, norm, n_steps):
        """n_iter times W <- W - lr grad L(W; X~), X~ from n_steps ascent steps and held constant; W in place.

        Returns the last loss (R,) and the first iteration, if any, whose loss was not finite, else -1 (R,).
        """
        bad = np.full(len(W), -1)
        loss = np.full(len(W), np.nan)
        for it in range(n_iter):
            on = np.flatnonzero(bad < 0)  # a run stops where its loss is not finite
            part = NumpyBatch(*(a[on] for a in batch))
            Xa = self.ascend(W[on], part, q, rho, objective, step[on], eps[on], norm, n_steps)
            loss[on], gradient = self.loss_and_grad(W[on], part._replace(X=Xa), q, rho)
            W[on] -= per_run(lr[on], W) * gradient
            bad[on[~np.isfinite(loss[on])]] = it
        return loss, bad

    def interval(self, W, batch, q, rho, shift):
        """sum_p sum_s sigma(z -+ shift[r, i, s]) -> lower, upper (R, N, k); shift (R, k, m) >= 0."""
        Z = preactivations(W, batch.X)
        shift = shift[:, None, None]
        bounds = (sigma(Z + s * shift, q, rho).sum(axis=(2, 4), dtype=np.float64) for s in (-1, 1))
        return tuple(np.where(batch.active[..., None], b, np.nan) for b in bounds)

    def aligned(self, W, batch, q, rho, eps, cross, leaders):
        """Aligned attack: per target class and patch the best of a few directions, then the best target per sample.

        ``cross[r, c, a] = <w_a, dir_c>`` (R, K, K), ``dir_c`` the steepest unit direction of neuron c (flat index);
        ``leaders (R, k, n)`` the neurons tried per class.  A patch moves by +eps dir_c (c of the target), by
        -eps dir_c (c of the label) or not at all.  Returns the patches' codes c + 1, -(c + 1) or 0, int64 (R, N, P).
        """
        _, k, m, _ = W.shape
        choice = np.zeros(batch.X.shape[:3], np.int64)
        Z = preactivations(W, batch.X)
        for r, n in zip(*np.nonzero(batch.active)):
            y, best = batch.y[r, n], np.inf
            for j in (j for j in range(k) if j != y):
                codes = [*(leaders[r, j] + 1), *(-leaders[r, y] - 1), 0]
                shifts = [np.sign(c) * eps[r] * cross[r, abs(c) - 1] if c else np.zeros(k * m) for c in codes]
                z = Z[r, n][None] + np.reshape(shifts, (-1, 1, k, m)).astype(W.dtype)  # (codes, P, k, m)
                gain = sigma(z[:, :, y], q, rho).sum(-1) - sigma(z[:, :, j], q, rho).sum(-1)
                if gain.min(axis=0).sum() < best:
                    best = gain.min(axis=0).sum()
                    choice[r, n] = np.asarray(codes)[gain.argmin(axis=0)]
        return choice

    def recursion(self, phi, gram, types, watch, q, rho, lr, n_iter, objective, step, eps, norm, n_steps):
        """Training without noise in correlations: :func:`advfeat.kernels.recursion.recursion`."""
        return recursion.recursion(phi, gram, types, watch, q, rho, lr, n_iter, objective, step, eps, norm, n_steps)

    def search(self, W, X, rows, numbers, norm, q, rho, n_steps, n_rounds, n_nodes, joint=False):
        """Bounds of min_delta h + lambda psi for B patches, each with a label and a rival
        (kernels/branch_and_bound.py); float64.

        ``X (., d)`` patches; ``rows (B, 4)`` int64: patch, run, label, rival; ``numbers (B, 3)``: eps, lambda,
        tolerance.
        `n_steps` conditional gradient steps per node; `n_rounds` of tightening, 0 for the relaxation alone; at most
        `n_nodes` nodes, fewer once the bounds are tolerance apart.  Norms: LINF, L2, L1.  Returns lower (sound), upper
        (B,), delta (B, d) that attains upper, and nodes used (B,).  `joint`: with
        parabolas above the rival's dense neurons (kernels/joint.py).
        """
        return branch_and_bound.search(W, X, rows, numbers, norm, q, rho, n_steps, n_rounds, n_nodes, joint)

    def caps(self, W, X, rows, eps, norm, q, rho):
        """Upper bounds (B,) of sum_r sigma(<w_r, x + delta>) over |delta| <= eps for B patches, each with a class
        (kernels/caps.py); float64.  ``X (., d)`` patches; ``rows (B, 3)`` int64: patch, run, class; ``eps (B,)``.
        """
        return caps.caps(W, X, rows, eps, norm, q, rho)

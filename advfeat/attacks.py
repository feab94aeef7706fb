"""Attacks: perturbations of radius eps that try to make a network err.  Inputs have no box; eps = 0 is the identity.

Every attack takes a single network or a batch of runs and works in the network's dtype.  Random numbers are keyed by
run seed, restart and sample, so a sample's attack depends neither on the batch nor on which other samples are attacked.
"""

from __future__ import annotations

import numpy as np

from . import checks
from .data import PatchData
from .kernels import reference
from .network import PatchCNN
from .rng import stream

SWAP_DRAW = 0  # key of the feature swap's draw; restart r of PGD has key r + 1


def _threat(net, eps, norm):
    return checks.per_run("eps", eps, net.n_runs, low=0), checks.NORMS[checks.choice("norm", norm, checks.NORMS)]


def one_step_ascent(
    net: PatchCNN, X, y, *, lr, eps, objective: str = "neg_label_logit", norm: str = "linf", n_steps: int = 1
) -> np.ndarray:
    """X + clip_eps(lr grad_X J(X)), the adversarial examples of the paper's training (Sec. 2.5).

    Parameters
    ----------
    lr, eps : float or (R,)
        Ascent rate (the paper's eta-tilde, >= 0) and radius (>= 0).
    objective : {"neg_label_logit", "margin", "cross_entropy"}
        J; the paper's is -F_y, for which only the label class's neurons are touched.
    norm : {"linf", "l2"}
        Patch by patch: clip every coordinate, or project every patch.
    n_steps : int
        Ascent steps x~ <- x + project(x~ - x + lr grad J(x~)); the paper takes one.

    Returns
    -------
    X's shape, with a leading runs axis for a batch; the network's dtype.
    """
    checks.choice("objective", objective, checks.OBJECTIVES)
    eps, norm = _threat(net, eps, norm)
    lr = checks.per_run("lr", lr, net.n_runs, low=0)
    batch = net.pack(*net.check(X, y))
    n_steps = checks.integer("n_steps", n_steps, 1)
    J = checks.OBJECTIVES[objective]
    return net.answer(net.engine.ascend(net.weights, batch, net.q, net.rho, J, lr, eps, norm, n_steps))


def random_start(shape, eps, norm: int, seeds, restart: int, active) -> np.ndarray:
    """Uniform points of the patch-wise ball, (R, N, P, d) float64; 0 where a sample is not active."""
    P, d = shape[2:]
    delta = np.zeros(shape)
    for r, n in zip(*np.nonzero(active)):
        rng = stream(seeds[r], "attacks", restart + 1, int(n))
        if norm == checks.NORMS["linf"]:
            delta[r, n] = rng.uniform(-eps[r], eps[r], (P, d))
        else:
            direction = rng.standard_normal((P, d))
            radius = eps[r] * rng.random((P, 1)) ** (1 / d)
            delta[r, n] = radius * direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    return delta


def pgd(
    net: PatchCNN,
    X,
    y,
    *,
    eps,
    objective: str = "margin",
    norm: str = "linf",
    n_steps: int = 20,
    step=None,
    n_restarts: int = 1,
    seed=0,
    active=None,
) -> tuple[np.ndarray, np.ndarray]:
    """Projected steepest ascent on J from random starts, keeping each sample's iterate of smallest margin.

    x~ <- x + project_eps(x~ - x + step s), s = sign(grad J) or, for l_2, grad J / |grad J| patch by patch;
    `step` is 2.5 eps / n_steps by default.  A sample rests at its first iterate whose margin F_y - max_{j != y} F_j
    is <= 0.

    Returns
    -------
    X_adv : like X (with a runs axis for a batch)
        The best iterate of all restarts.
    margin : (N,) or (R, N) float64
        Its margin; NaN for samples that are not `active` ((N,) or (R, N) bool, default all).
    """
    J = checks.OBJECTIVES[checks.choice("objective", objective, checks.OBJECTIVES)]
    eps, norm = _threat(net, eps, norm)
    n_steps, n_restarts = checks.integer("n_steps", n_steps, 1), checks.integer("n_restarts", n_restarts, 1)
    step = 2.5 * eps / n_steps if step is None else checks.per_run("step", step, net.n_runs, above=0)
    X, y = net.check(X, y)
    shape = (net.n_runs, *X.shape[1:])
    wanted = np.ones(shape[:2], bool) if active is None else np.broadcast_to(active, shape[:2])
    seeds, X = checks.seeds(seed, net.n_runs), np.broadcast_to(X, shape)
    best_X, best = np.array(X), np.where(wanted, np.inf, np.nan)
    todo = wanted
    for restart in range(n_restarts):
        todo = wanted & ~(best <= 0)
        if not todo.any():
            break
        start = (X + random_start(shape, eps, norm, seeds, restart, todo)).astype(net.dtype)
        batch = net.pack(X, y, todo)
        X_adv, margin = net.engine.pgd(net.weights, batch, net.q, net.rho, J, step, eps, norm, n_steps, start)
        better = todo & (margin < best)
        best_X[better], best[better] = X_adv[better], margin[better]
    return net.answer(best_X), net.answer(best)


def aligned_attack(net: PatchCNN, X, y, *, eps, norm: str = "linf", n_leaders: int = 4, active=None) -> np.ndarray:
    """Moves every patch along one neuron: +eps dir_c with c of a rival class, -eps dir_c with c of the label, or not.

    dir_c = sign(w_c) for l_inf, w_c / |w_c| for l_2.  Margins are sums over patches, so for each target class the best
    of these directions is found patch by patch, exactly, and then the best target.  The `n_leaders` neurons of largest
    dual norm are tried per class.  No gradient is used, so nothing masks this attack.  Returns X_adv.
    """
    eps, norm = _threat(net, eps, norm)
    X, y = net.check(X, y)
    W, (k, m, d) = net.weights, net.shape
    flat = W.reshape(len(W), k * m, d)
    order = 1 if norm == checks.NORMS["linf"] else 2
    size = np.linalg.norm(W, order, axis=-1)
    if order == 1:
        direction = np.sign(flat)
    else:
        direction = flat / np.maximum(size.reshape(len(W), -1, 1), np.finfo(W.dtype).tiny)
    leaders = np.argsort(-size, axis=-1, kind="stable")[..., : checks.integer("n_leaders", n_leaders, 1)]
    leaders = np.ascontiguousarray(leaders + np.arange(k)[:, None] * m)
    shape = (len(W), *X.shape[1:])
    if active is not None:
        X, y = np.broadcast_to(X, shape), np.broadcast_to(y, shape[:2])
    batch = net.pack(X, y, None if active is None else np.broadcast_to(active, shape[:2]))
    code = net.engine.aligned(W, batch, net.q, net.rho, eps, direction @ flat.swapaxes(1, 2), leaders)
    scale = (eps[:, None, None] * np.sign(code)).astype(W.dtype)
    chosen = direction[np.arange(len(W))[:, None, None], np.maximum(np.abs(code) - 1, 0)]
    return net.answer(X + scale[..., None] * chosen)


def feature_swap(data: PatchData, *, eps, norm: str = "linf", seed=0) -> np.ndarray:
    """The model-free attack of Thm. 4.3: delta_p = clip_eps(beta_p (v_{y'} - v_y)) on J_NR, 0 on J_R, y' != y random.

    Needs the data's features.  `eps` and `seed` are one number or one per run of a stacked `data`.  Returns X_adv.
    """
    if data.features is None:
        raise ValueError("features = None: the feature swap needs data that know their features (u, v)")
    batched = data.X.ndim == 4
    X, y = (data.X, data.y) if batched else (data.X[None], data.y[None])
    eps = checks.per_run("eps", eps, len(X), low=0)
    norm = checks.NORMS[checks.choice("norm", norm, checks.NORMS)]
    v = data.features[1]
    seeds, n = checks.seeds(seed, len(X)), range(len(data))
    draws = [[stream(s, "attacks", SWAP_DRAW, i).integers(len(v) - 1) for i in n] for s in seeds]
    other = (y + 1 + np.array(draws)) % len(v)
    beta = np.where(data.robust, 0, data.strength).reshape(X.shape[:3])
    delta = reference.project(beta[..., None] * (v[other] - v[y])[:, :, None], eps, norm)
    return (X + delta).astype(data.X.dtype).reshape(data.X.shape)

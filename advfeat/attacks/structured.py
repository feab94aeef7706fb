"""Attacks that know the model or the data: the paper's ascent, the feature swap, and moves along single neurons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import checks
from ..data import PatchData
from ..kernels import reference
from ..network import PatchCNN
from ..rng import stream
from . import ball
from .threat import Attack

SWAP_DRAW = 0  # key of the feature swap's draw; restart r of other attacks has key r + 1
NO_FEATURES = "features = None: the feature swap needs data that know their features (u, v)"


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
    eps = checks.per_run("eps", eps, net.n_runs, low=0, dtype=net.dtype)
    norm = checks.NORMS[checks.choice("norm", norm, checks.NORMS)]
    lr = checks.per_run("lr", lr, net.n_runs, low=0, dtype=net.dtype)
    batch = net.pack(*net.check(X, y))
    n_steps = checks.integer("n_steps", n_steps, 1)
    J = checks.OBJECTIVES[objective]
    return net.answer(net.engine.ascend(net.weights, batch, net.q, net.rho, J, lr, eps, norm, n_steps))


def feature_swap(data: PatchData, *, eps, norm: str = "linf", seed=0) -> np.ndarray:
    """The model-free attack of Thm. 4.3: delta_p = clip_eps(beta_p (v_{y'} - v_y)) on J_NR, 0 on J_R, y' != y random.

    Needs the data's features.  `eps` and `seed` are one number or one per run of a stacked `data`; `norm` is "linf",
    "l2" or "l1", patch by patch.  Returns X_adv, of X's shape and dtype.
    """
    if data.features is None:
        raise ValueError(NO_FEATURES)
    batched = data.X.ndim == 4
    X, y = (data.X, data.y) if batched else (data.X[None], data.y[None])
    eps = checks.per_run("eps", eps, len(X), low=0)
    checks.choice("norm", norm, ball.NORMS)
    seeds = checks.seeds(seed, len(X))
    other = drawn_classes(y, seeds, np.broadcast_to(np.arange(y.shape[1]), y.shape), len(data.features[1]))
    robust, strength = (a.reshape(X.shape[:3]) for a in (data.robust, data.strength))
    delta = ball.project(swap(y, other, robust, strength, data.features), np.repeat(eps[:, None], y.shape[1], 1), norm)
    return (X + delta).astype(data.X.dtype).reshape(data.X.shape)


def drawn_classes(y, seeds, sample, k):
    """A random class other than the label, (R, N), keyed by seed and the sample's number."""
    keys = zip(seeds, sample.tolist())
    draws = [[stream(seed, "attacks", SWAP_DRAW, n).integers(k - 1) for n in row] for seed, row in keys]
    return (y + 1 + np.array(draws)) % k


def swap(y, other, robust, strength, features):
    """beta_p (v_{y'} - v_y) on the non-robust patches, 0 on the others, (R, N, P, d)."""
    v = features[1]
    return np.where(robust, 0, strength)[..., None] * (v[other] - v[y])[:, :, None]


@dataclass(frozen=True)
class FeatureSwap(Attack):
    """:func:`feature_swap` under any threat: y' is the threat's target, or random, or with `all_classes` each in turn.

    Needs a PatchData with features.
    """

    all_classes: bool = False

    def _name(self):
        return "feature_swap" + "_all_classes" * self.all_classes

    def _check_options(self):
        checks.choice("all_classes", self.all_classes, (True, False))

    def _check(self, net, data, threat):
        if data is None:
            raise ValueError("data is a pair (X, y): the feature swap needs a PatchData with features (u, v)")
        if data.features is None:
            raise ValueError(NO_FEATURES)

    def _attack(self, problem):
        k = len(problem.features[1])
        if problem.targets is not None:
            others = [problem.targets]
        elif self.all_classes:
            others = [(problem.y + c) % k for c in range(1, k)]
        else:
            others = [drawn_classes(problem.y, problem.seeds, problem.sample, k)]
        for other in others:
            on = problem.open
            delta = swap(problem.y, other, problem.robust, problem.strength, problem.features)
            problem.iterations += on
            problem.evaluate(problem.move(delta), on)


@dataclass(frozen=True)
class Aligned(Attack):
    """Moves every patch along one neuron: +eps dir_c with c of a rival class, -eps dir_c with c of the label, or not.

    dir_c = sign(w_c) for l_inf, w_c / |w_c| for l_2, the signed coordinate of largest |w_c| for l_1.  Margins are sums
    over patches, so for each rival class the best of these directions is found patch by patch, exactly, and then the
    best rival.  The `n_leaders` neurons of largest dual norm are tried per class.  No gradient is used, so nothing
    masks this attack.

    A global budget is a heuristic: it is shared equally by the n patches that gain most, for n = 1, 2, 4, ..., P, and
    the best n is taken.  A box cuts the moves afterwards.  With a threat's targets the pairs are target against every
    other class.  Whatever was predicted, it is the margin of the moved inputs that counts.
    """

    n_leaders: int = 4

    def _name(self):
        return "aligned"

    def _check_options(self):
        checks.integer("n_leaders", self.n_leaders, 1)

    def _attack(self, problem):
        net = problem.net
        W, (k, m, d) = net.weights, net.shape
        flat = W.reshape(len(W), k * m, d)
        direction = _directions(flat, problem.norm)
        size = np.linalg.norm(W, ball.DUAL[problem.norm], axis=-1)
        leaders = np.argsort(-size, axis=-1, kind="stable")[..., : self.n_leaders]
        leaders = np.ascontiguousarray(leaders + np.arange(k)[:, None] * m)
        cross, eps, on = direction @ flat.swapaxes(1, 2), problem.radius_per_run(), problem.open
        if eps is None or problem.budget != "patch" or problem.box is not None or problem.targets is not None:
            self._pair_by_pair(problem, direction, cross, leaders)
        elif on.any():
            batch = net.pack(problem.X, problem.y, on)
            code = net.engine.aligned(W, batch, net.q, net.rho, eps, cross, leaders)
            scale = problem.eps[..., None] * np.sign(code)
            problem.iterations += on
            problem.evaluate(moved(problem, scale, code, direction), on)

    @staticmethod
    def _pair_by_pair(problem, direction, cross, leaders):
        """Every rival's best moves in NumPy: any budget, radius, box and targets."""
        k = problem.net.shape[0]
        for c in range(1, k):
            on = problem.open
            if not on.any():
                return
            label, rival = (
                (problem.y, (problem.y + c) % k)
                if problem.targets is None
                else ((problem.targets + c) % k, problem.targets)
            )
            code, share = np.zeros(problem.X.shape[:3], np.int64), np.zeros(problem.X.shape[:3])
            for r, n in zip(*np.nonzero(on)):
                code[r, n], share[r, n] = _best_moves(problem, r, n, label[r, n], rival[r, n], cross[r], leaders[r])
            problem.iterations += on
            problem.evaluate(moved(problem, problem.eps[..., None] * share * np.sign(code), code, direction), on)


def _directions(w, norm):
    """Every neuron's direction of steepest ascent, (R, K, d)."""
    if norm == "l2":
        size = np.linalg.norm(w, axis=-1, keepdims=True)
        return w / np.maximum(size, np.finfo(np.float64).tiny)
    return ball.steepest(w[:, None], norm)[:, 0]


def moved(problem, scale, code, direction):
    """The points x_p + scale_p dir_{|code_p| - 1}, in ball and box."""
    chosen = direction[np.arange(len(direction))[:, None, None], np.maximum(np.abs(code) - 1, 0)]
    return problem.move(scale[..., None] * chosen)


def _best_moves(problem, r, n, y, j, cross, leaders):
    """One sample's codes c + 1, -(c + 1) or 0 per patch against rival j, and the shares of eps, (P,) each."""
    net = problem.net
    k, m, _ = net.shape
    both = np.r_[y * m : (y + 1) * m, j * m : (j + 1) * m]
    Z = problem.X[r, n] @ net.weights[r].reshape(k * m, -1)[both].T
    codes = np.array([*(leaders[j] + 1), *(-leaders[y] - 1), 0])
    shifts = np.sign(codes)[:, None] * cross[np.abs(codes) - 1][:, both]
    P = len(Z)
    sizes = [P] if problem.budget == "patch" else sorted({min(2**i, P) for i in range(P.bit_length() + 1)})
    best = np.inf
    for size in sizes:
        share = 1.0 if problem.budget == "patch" else size ** (-0.5 if problem.norm == "l2" else -1.0)
        s = reference.sigma(Z[:, None] + problem.eps[r, n] * share * shifts, net.q, net.rho)
        h = s[..., :m].sum(-1) - s[..., m:].sum(-1)  # (P, codes); the last code leaves the patch alone
        at = h.argmin(axis=1)
        gain = h[:, -1] - h.min(axis=1)
        chosen = np.argsort(-gain, kind="stable")[:size]
        if h[:, -1].sum() - gain[chosen].sum() < best:
            best = h[:, -1].sum() - gain[chosen].sum()
            code, kept = np.zeros(P, np.int64), share
            code[chosen] = codes[at[chosen]]
    return code, np.full(P, kept)

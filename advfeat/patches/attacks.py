"""Attacks that know the patch network or its data: the paper's ascent, feature swap, moves along neurons, rescue."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from ..attacks.base import Attack, AttackProblem
from ..attacks.gradient import ascended, climb, targets_in_turn
from ..attacks.threat import ThreatModel
from ..core import ball, checks
from ..core.data import Data
from ..core.model import Model
from ..core.rng import stream
from ..core.runs import renamed, run_seeds
from ..core.types import FloatArray, PerRun, Rng
from ..kernels import formulas
from .data import PatchData
from .network import PatchCNN

SWAP_DRAW = 0  # key of the feature swap's draw; restart r of other attacks has key r + 1
NO_FEATURES = "features = None: the feature swap needs data that know their features (u, v)"


def one_step_ascent(
    net: PatchCNN,
    X: ArrayLike,
    y: ArrayLike,
    *,
    lr: PerRun,
    eps: PerRun,
    objective: checks.AscentObjective = "neg_label_logit",
    norm: checks.AscentNorm = "linf",
    n_steps: int = 1,
) -> FloatArray:
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
    checks.choice("norm", norm, checks.NORMS)
    checks.instance("net", net, PatchCNN, "a PatchCNN")
    rates = {"lr": lr, "eps": eps}
    rates = {name: checks.per_run(name, a, net.n_runs, low=0, dtype=net.dtype) for name, a in rates.items()}
    options = {"objective": objective, "norm": norm, "n_steps": checks.integer("n_steps", n_steps, 1)}
    return net.drop_runs_axis(ascended(net, *net.labelled(X, y), **rates, **options))


@renamed(seed="rng")
def feature_swap(data: PatchData, *, eps: PerRun, norm: ball.Norm = "linf", rng: Rng = 0) -> FloatArray:
    """The model-free attack of Thm. 4.3: delta_p = clip_eps(beta_p (v_{y'} - v_y)) on J_NR, 0 on J_R, y' != y random.

    Needs the data's features.  `eps` is one number or one per run of a stacked `data`, `rng` a seed, one per run, or a
    Generator; `norm` is "linf", "l2" or "l1", patch by patch.  Returns X_adv, of X's shape and dtype.
    """
    if checks.instance("data", data, PatchData, "a PatchData").features is None:
        raise ValueError(NO_FEATURES)
    batched = data.X.ndim == 4
    X, y = (data.X, data.y) if batched else (data.X[None], data.y[None])
    eps = checks.per_run("eps", eps, len(X), low=0)
    checks.choice("norm", norm, ball.NORMS)
    seeds = run_seeds(rng, len(X))
    other = drawn_classes(y, seeds, np.broadcast_to(np.arange(y.shape[1]), y.shape), len(data.features[1]))
    robust, strength = (a.reshape(X.shape[:3]) for a in (data.robust, data.strength))
    eps = np.repeat(eps[:, None], y.shape[1], 1)
    delta = ball.project(swap(y, other, robust, strength, data.features[1]), eps, norm)
    return (X + delta).astype(data.X.dtype).reshape(data.X.shape)


def drawn_classes(y, seeds, sample, k):
    """A random class other than the label, (R, N), keyed by seed and the sample's number."""
    draws = [[_draw(seed, n, k - 1) for n in row] for seed, row in zip(seeds, sample.tolist())]
    return (y + 1 + np.array(draws)) % k


@lru_cache(1 << 16)  # the same at every record point: a generator takes 50 us to make
def _draw(seed, n, k):
    return stream(seed, "attacks", SWAP_DRAW, n).integers(k)


def swap(y, other, robust, strength, v):
    """beta_p (v_{y'} - v_y) on the non-robust patches, 0 on the others, (R, N, P, d)."""
    return np.where(robust, 0, strength)[..., None] * (v[other] - v[y])[:, :, None]


def need_patch_network(attack: Attack, model: Model) -> None:
    """TypeError where the model is none whose neurons the attack could read."""
    if not isinstance(model, PatchCNN):
        raise TypeError(f"{attack.name}: reads the neurons of a PatchCNN, but the model is a {type(model).__name__}")


@dataclass(frozen=True)
class FeatureSwap(Attack):
    """:func:`feature_swap` under any threat: y' is the threat's target, or random, or with `all_classes` each in turn.

    Needs a PatchData with features.
    """

    all_classes: bool = False

    def default_name(self) -> str:
        return "feature_swap" + "_all_classes" * self.all_classes

    def check_options(self) -> None:
        checks.choice("all_classes", self.all_classes, (True, False))

    def check(self, model: Model, data: Data, threat: ThreatModel) -> None:
        missing = [name for name in ("robust", "strength") if name not in data.arrays]
        if missing:
            raise ValueError(f"data have no {missing[0]!r}: the feature swap needs a PatchData with features (u, v)")
        if "v" not in data.directions:
            raise ValueError(NO_FEATURES)

    def run(self, problem: AttackProblem) -> None:
        robust, strength, v = problem.arrays["robust"], problem.arrays["strength"], problem.directions["v"]
        k = len(v)
        if problem.targets is not None:
            others = [problem.targets]
        elif self.all_classes:
            others = [(problem.y + c) % k for c in range(1, k)]
        else:
            others = [drawn_classes(problem.y, problem.seeds, problem.sample, k)]
        for other in others:
            on = problem.open
            delta = swap(problem.y, other, robust, strength, v)
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

    def check_options(self) -> None:
        checks.integer("n_leaders", self.n_leaders, 1)

    def check(self, model: Model, data: Data, threat: ThreatModel) -> None:
        need_patch_network(self, model)

    def run(self, problem: AttackProblem) -> None:
        net = problem.model
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
            code = net.aligned(problem.prepare(problem.X, on), eps, cross, leaders)
            scale = problem.eps[..., None] * np.sign(code)
            problem.iterations += on
            problem.evaluate(moved(problem, scale, code, direction), on)

    @staticmethod
    def _pair_by_pair(problem, direction, cross, leaders):
        """Every rival's best moves in NumPy: any budget, radius, box and targets."""
        k = problem.model.shape[0]
        for c in range(1, k):
            on = problem.open
            if not on.any():
                return
            label, rival = (
                (problem.y, (problem.y + c) % k)
                if problem.targets is None
                else ((problem.targets + c) % k, problem.targets)
            )
            code, share = np.zeros(problem.X.shape[:3], np.int64), np.zeros(problem.X.shape[:2])
            code[on], share[on] = _best_moves(problem, on, label[on], rival[on], cross, leaders)
            problem.iterations += on
            scale = (problem.eps * share)[..., None] * np.sign(code)
            problem.evaluate(moved(problem, scale, code, direction), on)


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


def _best_moves(problem, on, y, j, cross, leaders):
    """Codes c + 1, -(c + 1) or 0 per patch (M, P) of the M samples `on` against the rivals j (M,), and the shares of
    eps that their patches get (M,)."""
    net, r, rows = problem.model, np.nonzero(on)[0], np.arange(len(y))[:, None]
    _, m, _ = net.shape
    both = np.stack([y, j], axis=1)
    neurons = (both[:, :, None] * m + np.arange(m)).reshape(len(y), -1)
    Z = problem.X[on] @ net.weights[r[:, None], both].reshape(len(y), 2 * m, -1).swapaxes(1, 2)
    codes = np.concatenate([leaders[r, j] + 1, -leaders[r, y] - 1, np.zeros_like(rows)], axis=1)
    moves = cross[r[:, None, None], np.abs(codes)[:, :, None] - 1, neurons[:, None]]
    shifts, P = np.sign(codes)[:, :, None] * moves, Z.shape[1]
    sizes = [P] if problem.budget == "patch" else sorted({min(2**i, P) for i in range(P.bit_length() + 1)})
    best, code, kept = np.full(len(y), np.inf), np.zeros(Z.shape[:2], np.int64), np.ones(len(y))
    for size in sizes:
        share = 1.0 if problem.budget == "patch" else size ** (-0.5 if problem.norm == "l2" else -1.0)
        reach = (problem.eps[on] * share)[:, None, None]
        s = formulas.sigma(Z[:, :, None] + (reach * shifts)[:, None], net.q, net.rho)
        h = s[..., :m].sum(-1) - s[..., m:].sum(-1)  # (M, P, codes); the last code leaves the patch alone
        gain = h[..., -1] - h.min(axis=2)
        chosen = np.argsort(-gain, axis=1, kind="stable")[:, :size]
        total = h[..., -1].sum(axis=1) - np.take_along_axis(gain, chosen, 1).sum(axis=1)
        better = total < best
        moved_by = np.zeros_like(code)
        np.put_along_axis(moved_by, chosen, codes[rows, np.take_along_axis(h.argmin(axis=2), chosen, 1)], 1)
        best, kept = np.where(better, total, best), np.where(better, share, kept)
        code = np.where(better[:, None], moved_by, code)
    return code, kept


@dataclass(frozen=True)
class Rescue(Attack):
    """PGD on the targeted margin with a slope for the rival's neurons that does not die: patches can be entered.

    Where <w_{t,s}, x~_p> <= 0 the true slope is 0 and stays 0, so that plain PGD never makes such a patch speak for the
    rival t.  In the first half of the steps the rival's neurons have the slope of the chord over what they can reach,
    (sigma(b) - sigma(z)) / (b - z) with b = <w, x_p> + eps |w|_*: >= sigma'(z) since sigma is convex, and 0 only where
    b <= 0.  The label's neurons keep the true slope, and so do all neurons in the second half.

    Parameters
    ----------
    n_steps, n_restarts, step : as for PGD
        The first restart begins at the clean input.
    all_targets : bool
        Every rival in turn (default), else the strongest one at the clean input.  With a threat's targets: the target
        against its strongest rival.
    """

    n_steps: int = 40
    n_restarts: int = 1
    step: float | None = None
    all_targets: bool = True

    def check_options(self) -> None:
        checks.choice("all_targets", self.all_targets, (True, False))
        for name in ("n_steps", "n_restarts"):
            checks.integer(name, getattr(self, name), 1, checks.MOST)
        if self.step is not None:
            checks.number("step", self.step, above=0)

    def check(self, model: Model, data: Data, threat: ThreatModel) -> None:
        need_patch_network(self, model)

    def run(self, problem: AttackProblem) -> None:
        turns = [problem.targets] if problem.targets is not None else targets_in_turn(problem)
        for targets in turns if self.all_targets else turns[:1]:
            weights, top = self._reach(problem, targets)
            for restart in range(self.n_restarts):
                on = problem.open
                if not on.any():
                    return
                X = problem.start(restart, on) if restart else problem.X
                step = (2.5 / self.n_steps if self.step is None else self.step) * problem.eps

                def slopes(t, X, F, on, weights=weights, top=top, targets=targets):
                    return self._slopes(problem, t, X, F, on, weights, top, targets)

                climb(problem, None, targets, X, on, step, self, slopes)

    @staticmethod
    def _reach(problem, targets):
        """The rival's neurons (R, n, m, d) and the largest preactivations they can have, (R, n, P, m)."""
        weights = problem.model.weights[np.arange(len(targets))[:, None], targets]
        dual = np.linalg.norm(weights, ball.DUAL[problem.norm], axis=-1)
        return weights, problem.X @ weights.swapaxes(-1, -2) + (problem.eps[..., None] * dual)[:, :, None]

    @staticmethod
    def _slopes(problem, t, X, F, on, weights, top, targets):
        """The surrogate gradient of F_t - F_y, with targets of F_t - max_{j != t} F_j, at share t of the way."""
        q, rho = problem.model.q, problem.model.rho
        rival = problem.y if problem.targets is None else formulas.strongest_rival(F, targets)
        C = -formulas.label_onehot(F, rival)
        if t >= 0.5:
            return problem.pull_back(X, C + formulas.label_onehot(F, targets), on)
        Z = X @ weights.swapaxes(-1, -2)
        run = np.maximum(top - Z, 0)
        chord = (formulas.sigma(top, q, rho) - formulas.sigma(Z, q, rho)) / np.where(run > 0, run, 1)
        slope = np.maximum(np.where(run > 0, chord, 0), formulas.sigma_prime(Z, q, rho))
        return problem.pull_back(X, C, on) + slope @ weights

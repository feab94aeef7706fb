"""Training without noise, simulated in weight-feature correlations: no network, no samples, any d (Lemma 5.1, 5.2)."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from ..core import checks, memory
from ..core.progress import SEGMENT_SECONDS, Progress, Stopwatch, now
from ..core.records import record
from ..core.types import BoolArray, FeaturesLike, Float64Array, IntArray, PerRun, Rngs
from ..kernels import Backend, get_engine
from ..kernels.recursion import Types, Watch

AfterSaturation = Literal["stop", "continue"]
LARGEST_DIM = 10**18  # an int64


@record
class State:
    """Where a recursion starts: R runs, K = k m neurons, 2k features (u_1..u_k, v_1..v_k), all float64.

    Attributes
    ----------
    phi : (R, k, m, 2k), correlations <w_{i,s}, f>
    gram : (R, K, K), H = W_orth W_orth^T of the weights' parts orthogonal to all features
    n_orthogonal : d - 2k
    orthogonal : (R, K, d - 2k) or None; W_orth itself, where known and features are parallel to the axes
    axis_parallel : whether the features are parallel to the axes, which l_inf training needs
    """

    phi: Float64Array
    gram: Float64Array
    n_orthogonal: int
    orthogonal: Float64Array | None = None
    axis_parallel: bool = True

    @classmethod
    def from_weights(cls, W: ArrayLike, features: FeaturesLike) -> State:
        """The state of given weights, (k, m, d) or (R, k, m, d), and features (u, v), each (k, d) and orthonormal."""
        W = given = checks.float64("W", W)
        W = W[None] if W.ndim == 3 else W
        if W.ndim != 4 or 0 in W.shape or W.shape[1] < 2:
            rule = "must be (k, m, d) or (R, k, m, d) with k >= 2 and no empty axis"
            raise ValueError(f"W has shape {given.shape}: {rule}")
        if not np.isfinite(W).all():
            raise ValueError("W holds NaN or infinite values: every weight must be finite")
        R, k, m, d = W.shape
        f = np.concatenate(checks.features(features, k, d))
        phi = W @ f.T
        flat = W.reshape(R, k * m, d)
        if ((f != 0).sum(axis=1) == 1).all():
            orthogonal = np.ascontiguousarray(flat[..., ~(f != 0).any(axis=0)])
            return cls(phi, orthogonal @ orthogonal.swapaxes(1, 2), d - 2 * k, orthogonal)
        rest = flat - (phi @ f).reshape(flat.shape)
        return cls(phi, rest @ rest.swapaxes(1, 2), d - 2 * k, axis_parallel=False)

    @classmethod
    def draw(cls, n_classes: int, n_neurons: int, patch_dim: int, *, rng: Rngs, init_std: float | None = None) -> State:
        """The state of w ~ N(0, init_std^2 I_d), drawn without the weights: as cheap for d = 10^9 as for d = 100.

        init_std = 1/sqrt(d) by default.  Correlations are N(0, init_std^2); H is Wishart: L L^T by Bartlett's
        triangular factor for d - 2k >= K, else G G^T with G (K, d - 2k) Gaussian (a singular H).  `rng` is a Generator
        or a seed, or a list of them, one per run.
        """
        k, m = (checks.integer(*one, checks.MOST) for one in (("n_classes", n_classes, 2), ("n_neurons", n_neurons, 1)))
        d, K = checks.integer("patch_dim", patch_dim, 1, LARGEST_DIM), k * m
        if d < 2 * k:
            raise ValueError(f"patch_dim = {d}: must be >= 2 n_classes = {2 * k}")
        about = f"a state of n_classes = {k:,} times n_neurons = {m:,} neurons"
        memory.require_numbers(K * (2 * K + 2 * k), about, "choose smaller ones")
        std = d**-0.5 if init_std is None else checks.number("init_std", init_std, low=0)
        free, phi, gram = d - 2 * k, [], []
        for one in checks.generators(rng):
            phi.append(std * one.standard_normal((k, m, 2 * k)))
            if free >= K:
                factor = np.tril(one.standard_normal((K, K)), -1)
                factor[np.diag_indices(K)] = np.sqrt(one.chisquare(free - np.arange(K)))
            else:
                factor = one.standard_normal((K, free))
            gram.append(std**2 * (factor @ factor.T))
        return cls(np.stack(phi), np.stack(gram), free)

    @property
    def n_runs(self) -> int:
        """Runs, R."""
        return len(self.phi)


@record
class Recursion:
    """What :func:`simulate` returns: T records of R runs.

    Attributes
    ----------
    iteration : (T,) int
    phi : (T, R, k, m, 2k), NaN where a run has stopped
    norm : (T, R, k, m), |w_{i,s}| = (sum_f <w, f>^2 + H_aa)^(1/2), NaN where a run has stopped
    gram : (R, K, K), H at the end of each run
    saturated_at : (R,) float; the first iteration whose ascent saturates an orthogonal axis, NaN if none does.
        Weights up to and including this iteration are exact, later ones are not.
    watched : how that was seen.  "exact": W_orth was followed.  "probability": no axis saturates for certain while
        step |gamma W_orth| <= eps, and `risk` bounds the probability that one did before `saturated_at` (W_orth of
        uniform direction).  "never": nothing can saturate (standard training, l_2).
    risk : (R,) the probability bound, 0 if certain
    diverged_at : (R,) float; first iteration whose logits were not finite, NaN if none
    timed_out : the time limit ended it at the last `iteration`, which is recorded whole
    """

    iteration: IntArray
    phi: Float64Array
    norm: Float64Array
    gram: Float64Array
    saturated_at: Float64Array
    watched: Literal["exact", "probability", "never"]
    risk: Float64Array
    diverged_at: Float64Array
    timed_out: bool = False

    @property
    def A(self) -> Float64Array:
        """<w_{i,s}, u_i>, (T, R, k, m)."""
        return np.einsum("trisi->tris", self.phi[..., : self.phi.shape[2]]).copy()

    @property
    def B(self) -> Float64Array:
        """<w_{i,s}, v_i>, (T, R, k, m)."""
        return np.einsum("trisi->tris", self.phi[..., self.phi.shape[2] :]).copy()

    @property
    def exact(self) -> BoolArray:
        """(T, R) bool: the record is exact, not after a saturation and not after a divergence."""
        t = self.iteration[:, None]
        return ~(t > self.saturated_at) & ~(t > self.diverged_at)


def simulate(
    state: State,
    types: Types,
    *,
    q: int,
    rho: PerRun,
    lr: PerRun,
    n_iter: int,
    ascent_lr: PerRun | None = None,
    eps: PerRun | None = None,
    objective: checks.AscentObjective = "neg_label_logit",
    n_ascent: int = 1,
    norm: checks.AscentNorm = "linf",
    record_every: int | None = None,
    after_saturation: AfterSaturation = "stop",
    risk: float = 1e-9,
    backend: Backend = "numba",
    progress: Progress | None = None,
    time_limit: float | None = None,
) -> Recursion:
    """Noiseless training by its exact recursion; adversarial where `ascent_lr` and `eps` are given.

    Equal to the network to rounding: Lemma 5.1, D.2, D.4 (standard), Lemma 5.2, D.16-D.18 (adversarial, for features
    parallel to the axes with l_inf, for any basis with patch-wise l_2), until an orthogonal axis saturates.  The time
    unit is one iteration.

    Parameters
    ----------
    state : R runs, or one for all runs of `types`
    types : from `empirical_types` or `population_types`, R runs or one for all
    q : int in 2..100, one for all runs
    rho, lr, ascent_lr, eps : one number, or one per run
    objective, n_ascent, norm : as in :class:`advfeat.TrainConfig`
    record_every : iterations between records (default n_iter / 20); 0 and n_iter are always recorded
    after_saturation : "stop" (NaN from there on) or "continue" as an approximation that clips no orthogonal axis
    risk : a run whose W_orth is not known is flagged once the probability that an axis has saturated may exceed this
    progress, time_limit : as in :mod:`advfeat.core.progress`; when the time is over it ends between two iterations, and
        that is the last record
    """
    clock = Stopwatch(progress, time_limit)
    checks.instance("state", state, State, "a State")
    checks.instance("types", types, Types, "Types, as empirical_types or population_types make them")
    checks.degree(q)
    checks.integer("n_iter", n_iter, 0, checks.MOST)
    checks.ascent_steps(n_ascent)
    J = checks.OBJECTIVES[checks.choice("objective", objective, checks.OBJECTIVES)]
    kind = checks.NORMS[checks.choice("norm", norm, checks.NORMS)]
    checks.choice("after_saturation", after_saturation, get_args(AfterSaturation))
    checks.number("risk", risk, low=0)
    if (ascent_lr is None) != (eps is None):
        raise ValueError(f"ascent_lr = {ascent_lr!r}, eps = {eps!r}: both must be given (adversarial training) or none")
    adversarial, k = ascent_lr is not None, state.phi.shape[1]
    sizes = {state.n_runs, len(types.y)} - {1}
    if len(sizes) > 1:
        raise ValueError(f"state has {state.n_runs} runs and types {len(types.y)}: must be equal, or one of them 1")
    R = max(sizes, default=max([1, *(np.size(v) for v in (rho, lr, ascent_lr, eps) if v is not None)]))
    y, used = types.y[..., None], types.count * types.weight[..., None] > 0
    if (types.y >= k).any() or (used & (types.feature != y) & (types.feature != k + y)).any():
        raise ValueError(f"types: made for another number of classes than the {k} of state")
    rho, lr = checks.per_run("rho", rho, R, above=0), checks.per_run("lr", lr, R, above=0)
    step = checks.per_run("ascent_lr", ascent_lr, R, above=0) if adversarial else np.zeros(R)
    radius = checks.per_run("eps", eps, R, low=0) if adversarial else np.zeros(R)
    step[radius == 0] = 0  # no axis moves at all, and none saturates

    def own(array):
        return np.array(np.broadcast_to(array, (R, *array.shape[1:])), np.float64)

    phi, gram = own(state.phi).reshape(R, -1, 2 * k), own(state.gram)
    linf = adversarial and kind == checks.NORMS["linf"]
    if linf and not state.axis_parallel:
        raise ValueError("norm = 'linf': the recursion is exact only for features parallel to the axes; l_2 takes any")
    seen = linf and state.orthogonal is not None
    orthogonal = own(state.orthogonal) if seen else np.zeros((R, gram.shape[1], 0))
    watch = Watch(orthogonal, np.full(R, float(state.n_orthogonal)), np.zeros(R), risk, after_saturation == "continue")
    types = Types(*(np.broadcast_to(a, (R, *a.shape[1:])).copy() for a in types))  # one type of array to compile
    every = max(n_iter // 20, 1) if record_every is None else checks.integer("record_every", record_every, 1)
    engine, n_ascent = get_engine(backend), n_ascent if adversarial else 0
    times = [*range(0, n_iter, every), n_iter]
    history = np.full((len(times), *phi.shape), np.nan)
    history[0] = phi
    square = np.full(history.shape[:3], np.nan)
    square[0] = np.einsum("raa->ra", gram)
    saturated, diverged, on = np.full(R, np.nan), np.full(R, np.nan), np.arange(R)
    begin, size, t = 0, 1, 1  # iteration, iterations of a call of the engine, record
    while begin < n_iter and not clock.is_up():
        whole = not (clock.limited or clock.watched)
        end, started = times[t] if whole else min(begin + size, times[t]), now()
        those = slice(None) if len(on) == R else on  # all of them without copies
        part = (
            phi[those], gram[those], Types(*(a[those] for a in types)),
            Watch(*(a[those] for a in watch[:3]), *watch[3:]), q, rho[those], lr[those], end - begin,
        )  # fmt: skip
        flagged, bad = engine.recursion(*part, J, step[those], radius[those], kind, n_ascent)
        if len(on) < R:
            phi[on], gram[on] = part[:2]
            watch.orthogonal[on], watch.risk[on] = part[3].orthogonal, part[3].risk
        fresh = (flagged >= 0) & np.isnan(saturated[on])
        saturated[on[fresh]] = begin + flagged[fresh]
        diverged[on[bad >= 0]] = begin + bad[bad >= 0]
        on = on[(bad < 0) & ((flagged < 0) | watch.go_on)]
        history[t], square[t] = np.nan, np.nan  # of runs that have stopped since the last piece
        history[t, on], square[t, on] = phi[on], np.einsum("raa->ra", gram[on])
        size = max(1, int(min(size, n_iter) * min(SEGMENT_SECONDS / max(now() - started, 1e-9), 2)))
        begin, t = end, t + (end == times[t])
        clock.tell("recursion", begin / n_iter)
    if clock.timed_out:  # the place of the next record holds what was reached since the last one
        times = [*times[:t], *[begin] * (begin > times[t - 1])]
        history, square = history[: len(times)], square[: len(times)]
    watched = "never" if not linf else "exact" if seen else "probability"
    shape = (len(times), R, k, phi.shape[1] // k)
    with np.errstate(over="ignore", invalid="ignore"):  # where a run diverged
        norm = np.sqrt((history**2).sum(axis=-1) + square).reshape(shape)
    times, history = np.array(times), history.reshape(*shape, 2 * k)
    return Recursion(times, history, norm, gram, saturated, watched, watch.risk, diverged, clock.timed_out)


def orthogonal_map(
    state: State, types: Types, *, q: int, rho: float, lr: float, ascent_lr: float, eps: float, n_iter: int
) -> Float64Array:
    """M of W_orth(n_iter) = M W_orth(0), (R, K, K), of l_inf training on -logit_y with one ascent step (Lemma D.16).

    It follows from `state`'s correlations and Gram matrix alone: M starts as the identity, W_orth is not asked for.
    """
    R, k, m, f = state.phi.shape
    phi, gram = state.phi.reshape(R, k * m, f).copy(), state.gram.copy()
    watch = Watch(np.tile(np.eye(k * m), (R, 1, 1)), np.full(R, float(k * m)), np.zeros(R), np.inf, True)
    rates = [np.full(R, value) for value in (rho, lr, ascent_lr, eps)]
    linf, neg_label_logit = checks.NORMS["linf"], checks.OBJECTIVES["neg_label_logit"]
    engine = get_engine("numba")
    engine.recursion(phi, gram, types, watch, q, *rates[:2], n_iter, neg_label_logit, *rates[2:], linf, 1)
    return watch.orthogonal

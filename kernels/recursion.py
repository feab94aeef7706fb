"""Training without noise as a recursion in correlations, free of d (Lemma 5.1, 5.2, D.2-D.4, D.16-D.18): the formulas.

Symbols: K = k m neurons a; 2k features f (u_1..u_k, v_1..v_k).  ``phi (R, K, 2k)`` holds Phi_{a,f} = <w_a, f>,
``gram (R, K, K)`` holds H = W_orth W_orth^T of the parts of the weights that are orthogonal to all features.  Data are
sample types: a type of class y and weight pi has kinds of patches, each `count` times its feature with one strength.
With sigma_n = 0 a clean patch has z_a = strength Phi_{a,f}, exactly.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .formulas import CROSS_ENTROPY, LINF, objective_gradient, sigma, sigma_prime


class Types(NamedTuple):
    """Sample types of every run: ``y``, ``weight`` (R, S), ``feature``, ``strength``, ``count`` (R, S, C).

    ``feature`` is the column of phi: y for u_y, k + y for v_y.  Weights of a run add up to 1; padding has weight or
    count 0.
    """

    y: NDArray[np.int64]
    weight: NDArray[np.float64]
    feature: NDArray[np.int64]
    strength: NDArray[np.float64]
    count: NDArray[np.float64]


class Watch(NamedTuple):
    """How saturation of an orthogonal axis is watched (l_inf only), see `watched`.

    ``orthogonal (R, K, D)``: W_orth in the coordinates off the features, moved along; or D = 0: unknown.
    ``axes (R,)``: number of orthogonal axes d - 2k.  ``risk (R,)``: probability bound spent so far, changed in place.
    ``limit``: the run is flagged when its risk passes it.  ``go_on``: flagged runs continue, as an approximation.
    """

    orthogonal: np.ndarray
    axes: np.ndarray
    risk: np.ndarray
    limit: float
    go_on: bool


def outputs(z, types, q, rho, k):
    """F_i = sum over the class's neurons and the type's patches of sigma(z) -> (R, S, k); z (R, S, C, K)."""
    patches = (types.count[..., None] * sigma(z, q, rho)).sum(axis=2)
    return patches.reshape(*patches.shape[:2], k, -1).sum(axis=-1)


def tail(reach, eps, axes):
    """Bound on P[some axis of a vector of length `reach` and uniform direction in R^axes exceeds eps].

    P[|theta_1| > t] <= (1 - t^2)^((D-1)/2) for theta uniform on the sphere of R^D: the left side is I_{1-t^2}((D-1)/2,
    1/2), and I_x(a, b) / x^a grows to 1 at x = 1 for b <= 1.
    """
    beyond = reach > eps
    t = eps / np.where(beyond, reach, np.inf)
    return np.where(beyond, np.minimum(1, axes * (1 - t**2) ** (np.maximum(axes - 1, 0) / 2)), 0)


def recursion(phi, gram, types, watch, q, rho, lr, n_iter, objective, step, eps, norm, n_steps):
    """n_iter iterations of every run; phi, gram, watch.orthogonal and watch.risk change in place.

    With gamma in R^K the ascent's neuron weights, gamma_a = (dJ/dF_{i(a)}) sigma'(z_a) added up over ascent steps,
    delta_F = clip_eps(step gamma Phi), delta_orth = step gamma W_orth, z~_a = s Phi_{a,f} + Phi_a delta_F +
    step (H gamma)_a:

      Phi_a += lr sum_types pi count e_i sigma'(z~_a) (s e_f + delta_F),
      W_orth <- (I + Q) W_orth,  H <- (I + Q) H (I + Q)^T,  Q = lr step sum_types pi count (e sigma'(z~)) gamma^T.

    n_steps = 0 is standard training (Lemma 5.1, D.4), in which W_orth rests.  For l_2 the whole of delta is scaled by
    min(1, eps/|delta|), |delta|^2 = |delta_F|^2 + step^2 gamma H gamma^T.

    Returns ``flagged (R,)``, the first iteration whose ascent saturates an orthogonal axis (or may, see Watch), and
    ``bad (R,)``, the first whose logits are not finite; else -1.  A run stops before the iteration it is flagged at,
    unless watch.go_on, and at a bad one.
    """
    flagged, bad = (np.full(len(phi), -1) for _ in range(2))
    for it in range(n_iter):
        on = np.flatnonzero((bad < 0) & ((flagged < 0) | watch.go_on))
        if not len(on):
            break
        part = Types(*(a[on] for a in types)), Watch(*(a[on] for a in watch[:3]), *watch[3:])
        state = phi[on], gram[on]
        rates = rho[on], lr[on], objective, step[on], eps[on], norm, n_steps
        moved, finite, certain = _one_step(*state, *part, q, *rates)
        watch.risk[on] = part[1].risk
        flagged[on[~certain & (flagged[on] < 0)]] = it
        bad[on[~finite]] = it
        go = finite & (certain | watch.go_on)
        phi[on[go]], gram[on[go]] = moved[0][go], moved[1][go]
        if watch.orthogonal.shape[2]:
            watch.orthogonal[on[go]] = moved[2][go]
    return flagged, bad


def _one_step(phi, gram, types, watch, q, rho, lr, objective, step, eps, norm, n_steps):
    R, K, k = len(phi), phi.shape[1], phi.shape[2] // 2
    cls = np.repeat(np.arange(k), K // k)
    rho, lr, step, eps = (np.reshape(a, (-1, 1, 1, 1)) for a in (rho, lr, step, eps))
    s = types.strength[..., None]
    clean = z = s * phi.swapaxes(1, 2)[np.arange(R)[:, None, None], types.feature]  # (R, S, C, K)
    gamma, delta = np.zeros_like(z), np.zeros((*types.feature.shape, 2 * k))
    certain = np.ones(R, bool)
    for _ in range(n_steps):
        C = objective_gradient(outputs(z, types, q, rho, k), types.y, objective)
        ascent = C[..., None, cls] * sigma_prime(z, q, rho)
        gamma, delta = gamma + ascent, delta + step * (ascent @ phi[:, None])
        reach = step[..., 0] * np.sqrt(np.maximum(((gamma @ gram[:, None]) * gamma).sum(axis=-1), 0))
        if norm == LINF:
            delta = np.clip(delta, -eps, eps)
            certain &= _watched(gamma, reach, step, eps, types, watch)
        else:
            size = np.sqrt((delta**2).sum(axis=-1) + reach**2)[..., None]
            scale = np.where(size > eps, eps / np.where(size > 0, size, 1), 1)
            delta, gamma = scale * delta, scale * gamma
        z = clean + delta @ phi[:, None].swapaxes(-1, -2) + step * (gamma @ gram[:, None])
    F = outputs(z, types, q, rho, k)
    e = -objective_gradient(F, types.y, CROSS_ENTROPY) * types.weight[..., None]
    slopes = types.count[..., None] * e[..., None, cls] * sigma_prime(z, q, rho)
    own = (np.arange(2 * k) == types.feature[..., None]) * s
    change = np.einsum("rsca,rscf->raf", slopes, own + delta, optimize=True)
    Q = (lr * step)[:, 0] * np.einsum("rsca,rscb->rab", slopes, gamma, optimize=True)
    grown = np.eye(K) + Q
    moved = phi + lr[:, 0] * change, grown @ gram @ grown.swapaxes(1, 2), grown @ watch.orthogonal
    return moved, np.isfinite(F).all(axis=(1, 2)), certain


def _watched(gamma, reach, step, eps, types, watch):
    """Whether a run's orthogonal axes stay within eps: seen where W_orth is known; else none can pass it while
    |delta_orth| <= eps, and beyond that with a probability that is added to the run's risk (W_orth's direction is
    uniform; a union over axes, patches, steps and iterations)."""
    used = (types.weight[..., None] * types.count) > 0
    if watch.orthogonal.shape[2]:
        longest = np.abs(step * (gamma @ watch.orthogonal[:, None])).max(axis=-1)
        return ~(used & (longest > eps[..., 0])).any(axis=(1, 2))
    watch.risk[:] += (used * tail(reach, eps[..., 0], watch.axes[:, None, None])).sum(axis=(1, 2))
    return watch.risk <= watch.limit

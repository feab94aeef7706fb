"""From correlations to outputs: F_i on noiseless samples, clean, swapped or one ascent step away, without a network.

``phi`` (..., k, m, 2k) holds <w_{i,s}, u_1..u_k, v_1..v_k>; `c` is anything with the setting's numbers as attributes:
n_classes, n_patches, n_robust, alpha, beta, q, rho, and with an adversary ascent_lr and eps.
"""

import numpy as np

from ..core.types import Float64Array
from ..kernels import formulas


def patch_kinds(c):
    """(strength, how many, columns of phi for y = 0..k-1) of robust and of non-robust patches."""
    own = np.arange(c.n_classes)
    return (c.alpha, c.n_robust, own), (c.beta, c.n_patches - c.n_robust, c.n_classes + own)


def ascended(phi: Float64Array, c, strength: float, column) -> tuple[Float64Array, Float64Array, Float64Array]:
    """One ascent step on -F_y at a clean patch of each class y, from correlations phi (..., k, m, 2k).

    Returns z (..., k, K) of all K neurons, their ascent weights gamma (..., k, K) and delta's features (..., k, 2k).
    """
    k, m = phi.shape[-3:-1]
    flat = phi.reshape(*phi.shape[:-3], k * m, 2 * k)
    z = strength * flat[..., column].swapaxes(-1, -2)
    own = np.repeat(np.arange(k), m) == np.arange(k)[:, None]
    gamma = np.where(own, -formulas.sigma_prime(z, c.q, c.rho), 0)
    return z, gamma, np.clip(c.ascent_lr * gamma @ flat, -c.eps, c.eps)


def outputs(phi: Float64Array, c, gram: Float64Array | None = None) -> tuple[Float64Array, Float64Array]:
    """What robust and non-robust patches of a noiseless sample of class y add to F_i, each (..., i, y).

    ``phi`` (..., k, m, 2k).  Their sum is F(X); each alone is F of the sample with only that feature left (Def. 4.1).
    With `gram` (..., K, K), H of the neurons' orthogonal parts, at the adversarial example, one ascent step away.
    """
    (k, m), parts = phi.shape[-3:-1], []
    for (strength, n, column), C in zip(patch_kinds(c), (phi[..., :k], phi[..., k:])):
        z = strength * C
        if gram is not None:
            flat = phi.reshape(*phi.shape[:-3], k * m, 2 * k)
            z, gamma, delta = ascended(phi, c, strength, column)
            z = z + delta @ flat.swapaxes(-1, -2) + c.ascent_lr * gamma @ gram
            z = np.moveaxis(z.reshape(*z.shape[:-1], k, m), -3, -1)
        parts.append(n * formulas.sigma(z, c.q, c.rho).sum(axis=-2))
    return tuple(parts)


def own_output(phi: Float64Array, c, gram: Float64Array | None = None) -> Float64Array:
    """F_y at a sample of every class y, (..., k)."""
    return np.einsum("...yy->...y", sum(outputs(phi, c, gram)))


def rivals(F: Float64Array) -> Float64Array:
    """max_{i != y} F_i of F (..., i, y) -> (..., y)."""
    return np.where(np.eye(F.shape[-1], dtype=bool), -np.inf, F).max(axis=-2)


def class_margin(F: Float64Array) -> Float64Array:
    """F_y - max_{i != y} F_i of F (..., i, y) -> (..., y)."""
    return np.einsum("...ii->...i", F) - rivals(F)


def swapped(robust: Float64Array, non_robust: Float64Array) -> tuple[Float64Array, Float64Array]:
    """F_y and max_{i != y} F_i after the swap to y' (eps >= beta: J_NR shows v_{y'}), each (..., y, y' != y)."""
    F, own = robust[..., None] + non_robust[..., None, :], np.eye(robust.shape[-1], dtype=bool)
    parts = np.einsum("...iij->...ij", F), np.where(own[:, :, None], -np.inf, F).max(axis=-3)
    return tuple(part[..., ~own].reshape(*part.shape[:-1], -1) for part in parts)

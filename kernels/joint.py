"""A bound of a rival's dense neurons together, in plain NumPy: parabolas above sigma, bent back by a diagonal.

Chords let every neuron of the rival reach its own end of the ball.  On a range l < 0 < u, however, q >= 2,

    sigma(t) <= gamma t^2,   gamma = sigma(u*) / u*^2,  u* = min(u, 2 (1 - 1/q) rho),

since sigma(t) / t^2 rises up to 2 (1 - 1/q) rho and sigma(t) = 0 for t < 0.  With Gamma = diag(gamma), any s such that
diag(s) >= V^T Gamma V, and M >= sum_i s_i delta_i^2 on the ball,

    H(delta) = sum_r sigma(z_r + <w_r, delta>) - chords of the others - sum_r gamma_r t_r^2 + sum_i s_i delta_i^2 - M

is convex and at most h: its tangents are minorants like those of kernels/branch_and_bound.py, and what follows there
holds for them.  l_inf: M = eps^2 sum_i s_i.  l_2: s_i = s, the largest eigenvalue, M = s eps^2.  For l_1 no s is known
that is worth it.  Neurons that lie along one axis (half of |w|_1 in one weight) keep their chords.

gamma falls with u, so an s stays valid for a part of a box; it is searched anew for every box all the same, since what
is left of the gap is mostly its own.  On small boxes chords, whose gap falls with the square of the width, are better:
every box tries both, and where chords bound more its parts have them alone.
"""

import numpy as np

from .formulas import L1, L2, LINF, sigma

COLUMNS = 8  # of Y
FIRST_SWEEPS, SWEEPS = 30, 2  # of the search for s, at the root and in every other box, from the last one's Y
SQUARINGS = 6  # of the matrix whose largest eigenvalue is bounded
ALONG_AN_AXIS = 0.5  # share of |w|_1 in the largest weight
MORE = 1 + 1e-9  # rounding of gamma is far below, and that of s at ordinary shapes
LEAST, MOST = 2.0**-450, 2.0**450  # of sqrt(gamma) V: beyond, chords are taken, since products would leave range


def start(d):
    """The first Y (d, COLUMNS)."""
    return np.random.default_rng(0).standard_normal((d, COLUMNS))


def dense(V, norm):
    """The neurons that may have parabolas."""
    size = np.abs(V)
    return (size.max(axis=1) < ALONG_AN_AXIS * size.sum(axis=1)) & (norm != L1)


def curvature(dense, low, high, q, rho):
    """gamma on ranges [low, high]; 0 where a chord is taken."""
    top = np.minimum(high, 2 * (1 - 1 / q) * rho)
    with np.errstate(all="ignore"):
        gamma = sigma(top, q, rho) / (top * top) * MORE
    return np.where(dense & (low < 0) & (high > 0) & (gamma > LEAST * LEAST) & (gamma < np.inf), gamma, 0.0)


def more(n, d):
    """For what sums of d products lose in a matrix of n rows, and its squares after them."""
    return max(MORE, 1 + 16 * n * (n + d) * 2.0**-53)


def largest_eigenvalue(M, d):
    """An upper bound, 2.4% above at most for 20 rows: lambda(M)^2 = tr(M^2) lambda(M^2 / tr M^2), lambda <= trace.

    Entries of M are sums of d products: what rounds off an entry is at most d u tr M <= n d u lambda.
    """
    trace = np.trace(M)
    bound, M = trace, M / trace
    for k in range(SQUARINGS):
        M = M @ M
        trace = np.trace(M)
        bound, M = bound * trace ** (0.5 ** (k + 1)), M / trace
    return bound * more(len(M), d)


def diagonal(V, gamma, Y, sweeps, norm):
    """s (d,) with diag(s) >= V^T diag(gamma) V, M / eps^2, and the last Y; NaN where numbers leave their range.

    l_inf: the sum of s is least where s_i Y_i = (V^T Gamma V Y)_i for unit rows Y_i.  What a few sweeps of that come to
    is scaled until the inequality holds for certain.  Rows of Y where all of V is 0 are kept for other neurons.
    """
    A, d = (V * np.sqrt(gamma)[:, None])[gamma > 0], V.shape[1]
    size = np.abs(A).max()
    if not LEAST < size < MOST:
        return np.full(d, np.nan), np.nan, Y
    A = A / size
    if norm == LINF:
        for _ in range(sweeps):
            G = A.T @ (A @ Y)
            s = np.linalg.norm(G, axis=1)
            Y = np.where(s[:, None] > 0, G / np.where(s > 0, s, 1)[:, None], Y)
        s = np.maximum(s, 1e-9 * s.max())
        s = s * max(largest_eigenvalue((A / s) @ A.T, d), 1.0)
    elif norm == L2:
        s = np.full(d, largest_eigenvalue(A @ A.T, d))
    s = s * size * size * MORE
    return s, s.sum() if norm == LINF else s[0], Y

"""The patch network's formulas in plain NumPy, to be read beside the paper.

Symbols: R runs, N samples, P patches, d patch dimension, k classes, m neurons per class, K = k m.
Arrays: ``W (R, k, m, d)``, ``X (R, N, P, d)``, ``y (R, N)`` int64, per-run numbers ``(R,)``.

Everything has the dtype of ``W`` (float64 where a formula is to be trusted), except logits, losses, margins and bounds:
those are float64 in every engine.
"""

import numpy as np

NEG_LABEL_LOGIT, MARGIN, CROSS_ENTROPY = 0, 1, 2  # ascent objectives J
LINF, L2, L1 = 0, 1, 2  # norms of a perturbation, patch by patch


# ------------------------------------------------------------------ the network (Sec. 2.3)
def sigma(z, q, rho):
    """Smoothed ReLU: 0 for z <= 0, z^q / (q rho^(q-1)) on [0, rho], z - (1 - 1/q) rho above."""
    return np.where(z > rho, z - (rho - rho / q), rho / q * np.clip(z / rho, 0, 1) ** q)


def sigma_prime(z, q, rho):
    """sigma'(z) = clip(z / rho, 0, 1)^(q-1)."""
    return np.clip(z / rho, 0, 1) ** (q - 1)


def preactivations(W, X):
    """Z[r, n, p, i, s] = <w_{i,s}, x_{n,p}>."""
    R, k, m, d = W.shape
    return (X @ W.reshape(R, 1, k * m, d).swapaxes(-1, -2)).reshape(*X.shape[:3], k, m)


def forward(W, X, q, rho):
    """F_i(X_n) = sum_s sum_p sigma(<w_{i,s}, x_{n,p}>) -> (R, N, k)."""
    return sigma(preactivations(W, X), q, rho).sum(axis=(2, 4), dtype=np.float64)


# ------------------------------------------------------------------ losses and objectives (Sec. 2.4)
def label_onehot(F, y):
    """1{y_n = i} -> (R, N, k)."""
    return (np.arange(F.shape[-1]) == y[..., None]).astype(np.float64)


def log_sum_exp(F):
    top = F.max(axis=-1, keepdims=True)
    return (top + np.log(np.exp(F - top).sum(axis=-1, keepdims=True)))[..., 0]


def cross_entropy(F, y):
    """-log logit_y(X_n) = log(1 + sum_{j != y} exp(F_j - F_y)) -> (R, N), logit = softmax(F); NaN unless F is finite.

    The sum is over the rivals alone, so that the loss keeps its relative accuracy where logit_y rounds to 1.
    """
    label = np.take_along_axis(F, y[..., None], -1)
    rivals = log_sum_exp(np.where(label_onehot(F, y) > 0, -np.inf, F) - label)
    with np.errstate(invalid="ignore"):  # NaN, of samples that are not active
        return np.where(np.isfinite(F).all(axis=-1), np.logaddexp(0, rivals), np.nan)


def strongest_rival(F, y):
    """The first j != y with the largest F_j -> (R, N)."""
    return np.where(label_onehot(F, y) > 0, -np.inf, F).argmax(axis=-1)


def margin(F, y):
    """F_y - max_{j != y} F_j -> (R, N)."""
    rival = strongest_rival(F, y)
    return (np.take_along_axis(F, y[..., None], -1) - np.take_along_axis(F, rival[..., None], -1))[..., 0]


def objective_gradient(F, y, objective):
    """dJ/dF_i -> (R, N, k) for J = -F_y, max_{j != y} F_j - F_y, or cross-entropy.

    The last has p_i = logit_i for i != y and p_y - 1 for the label, which is taken as -sum_{j != y} p_j: the difference
    loses all of its digits where p_y rounds to 1, from a margin of 38 on.
    """
    if objective == CROSS_ENTROPY:
        own = label_onehot(F, y)
        rivals = np.exp(F - log_sum_exp(F)[..., None]) * (1 - own)
        return rivals - own * rivals.sum(axis=-1, keepdims=True)
    if objective == MARGIN:
        return label_onehot(F, strongest_rival(F, y)) - label_onehot(F, y)
    return -label_onehot(F, y)


# ------------------------------------------------------------------ closed-form gradients (Sec. 2.4, 2.5)
def weight_gradient(W, X, C, q, rho):
    """sum_n C[n, i] sum_p sigma'(<w_{i,s}, x_{n,p}>) x_{n,p} -> (R, k, m, d); C = dL/dF gives grad_W L."""
    slopes = sigma_prime(preactivations(W, X), q, rho)
    return np.einsum("rni,rnpis,rnpj->risj", C, slopes, X, optimize=True).astype(W.dtype)


def input_gradient(W, X, C, q, rho):
    """sum_i C[n, i] sum_s sigma'(<w_{i,s}, x_{n,p}>) w_{i,s} -> (R, N, P, d); C = dJ/dF gives grad_x J."""
    slopes = sigma_prime(preactivations(W, X), q, rho)
    return np.einsum("rni,rnpis,risj->rnpj", C, slopes, W, optimize=True).astype(W.dtype)


# ------------------------------------------------------------------ perturbations
def project(delta, eps, norm):
    """Patch-wise projection to the ball of radius eps: clip_eps (l_inf) or delta min(1, eps/|delta|) (l_2)."""
    eps = per_run(eps, delta)
    if norm == LINF:
        return np.clip(delta, -eps, eps)
    size = np.linalg.norm(delta, axis=-1, keepdims=True)
    return delta * np.where(size > eps, eps / np.where(size > 0, size, 1), 1)


def steepest(gradient, norm):
    """The unit direction of steepest ascent: sign (l_inf), or gradient/|gradient| patch by patch (l_2); 0 at 0."""
    if norm == LINF:
        return np.sign(gradient)
    size = np.linalg.norm(gradient, axis=-1, keepdims=True)
    return gradient / np.where(size > 0, size, 1)


def per_run(value, like):
    """One number per run, in the dtype of `like` and with its four axes."""
    return np.asarray(value, like.dtype).reshape(-1, 1, 1, 1)

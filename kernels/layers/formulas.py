"""The layers' formulas in plain NumPy, forward and backward, to be read beside docs/layers.md, where each is derived.

Symbols: N images; C channels in, O out; H x W pixels in, h x w out; K x K windows, stride s, padding p of zeros.
Arrays: images ``X (N, C, H, W)``, answers ``Z``, weights ``V (O, C, K, K)``.  ``G`` is the gradient dJ/dZ of a number J
by a layer's answer; a function ``*_gradient`` pulls it back.

All arrays have one dtype, float64 or float32; sums over images or pixels that decide statistics are float64 in both.
Where the answer for an image depends on that image alone, so do its bits: products are taken image by image.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..formulas import sigma, sigma_prime


# ------------------------------------------------------------------ convolution
def side(n: int, kernel: int, stride: int, padding: int) -> int:
    """How many windows fit along an axis of n pixels: floor((n + 2p - K) / s) + 1."""
    return (n + 2 * padding - kernel) // stride + 1


def columns(X, kernel, stride, padding):
    """U[n, (c, a, b), (i, j)] = x[n, c, s i + a - p, s j + b - p], 0 outside the image -> (N, C K K, h w)."""
    if padding:
        X = np.pad(X, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(X, (kernel, kernel), axis=(2, 3))[:, :, ::stride, ::stride]  # (N, C, h, w, K, K)
    N, C, h, w = windows.shape[:4]
    return windows.transpose(0, 1, 4, 5, 2, 3).reshape(N, C * kernel * kernel, h * w)


def convolution(X, V, stride=1, padding=0):
    """z[n, o, i, j] = sum_{c, a, b} v[o, c, a, b] x[n, c, s i + a - p, s j + b - p]: Z_n = V U_n."""
    kernel = V.shape[-1]
    h, w = (side(n, kernel, stride, padding) for n in X.shape[2:])
    return (V.reshape(len(V), -1) @ columns(X, kernel, stride, padding)).reshape(len(X), len(V), h, w)


def convolution_input_gradient(G, V, stride, padding, sides):
    """dJ/dx: every window's share V^T G_n is added where its window lies; `sides` = (H, W) -> (N, C, H, W)."""
    N, O, h, w = G.shape
    C, kernel = V.shape[1], V.shape[-1]
    shares = (V.reshape(O, -1).T @ G.reshape(N, O, h * w)).reshape(N, C, kernel, kernel, h, w)
    padded = np.zeros((N, C, *(n + 2 * padding for n in sides)), G.dtype)
    for a in range(kernel):
        for b in range(kernel):
            padded[:, :, a : a + stride * h : stride, b : b + stride * w : stride] += shares[:, :, a, b]
    return padded[:, :, padding : padding + sides[0], padding : padding + sides[1]]


def convolution_weight_gradient(G, X, kernel, stride, padding):
    """dJ/dv[o, c, a, b] = sum_{n, i, j} g[n, o, i, j] x[n, c, s i + a - p, s j + b - p] -> (O, C, K, K)."""
    U, (N, O) = columns(X, kernel, stride, padding), G.shape[:2]
    return np.tensordot(G.reshape(N, O, -1), U, ((0, 2), (0, 2))).reshape(O, X.shape[1], kernel, kernel)


# ------------------------------------------------------------------ per channel
def of_channels(values, X):
    """One number per channel (C,), as it is added to X or multiplied with it."""
    return values.astype(X.dtype).reshape(-1, *[1] * (X.ndim - 2))


def channel_sum(X):
    """sum over images and pixels -> (C,) float64."""
    return X.sum(axis=(0, *range(2, X.ndim)), dtype=np.float64)


def shift(X, b):
    """z = x + b_c, b (C,); dJ/db = `channel_sum(G)`."""
    return X + of_channels(b, X)


def normalise(X, mean, deviation):
    """z = (x - mean_c) / deviation_c with fixed numbers, (C,) each; dJ/dx = g / deviation_c."""
    return (X - of_channels(mean, X)) / of_channels(deviation, X)


# ------------------------------------------------------------------ batch norm (Ioffe & Szegedy 2015)
def batch_statistics(X):
    """Mean and biased variance over images and pixels, (C,) float64 each."""
    count = X.size // X.shape[1]
    mean = channel_sum(X) / count
    return mean, channel_sum((X - of_channels(mean, X)) ** 2) / count


def running_statistics(running, batch, count, momentum):
    """(1 - momentum) running + momentum batch for mean and variance; the batch's variance of `count` numbers unbiased,
    count / (count - 1) times the biased one."""
    (mean, variance), (batch_mean, batch_variance) = running, batch
    return (
        (1 - momentum) * mean + momentum * batch_mean,
        (1 - momentum) * variance + momentum * batch_variance * (count / (count - 1)),
    )


def standardised(X, mean, variance, eps):
    """x_hat = (x - mean_c) / sqrt(variance_c + eps)."""
    return (X - of_channels(mean, X)) * of_channels(1 / np.sqrt(variance + eps), X)


def batch_norm(X, mean, variance, gamma, beta, eps):
    """z = gamma_c x_hat + beta_c; mean and variance are the batch's (training) or the running ones (evaluation)."""
    return of_channels(gamma, X) * standardised(X, mean, variance, eps) + of_channels(beta, X)


def batch_norm_parameter_gradients(G, X, mean, variance, eps):
    """dJ/dgamma = sum g x_hat and dJ/dbeta = sum g, (C,) float64 each, in both modes."""
    return channel_sum(G * standardised(X, mean, variance, eps)), channel_sum(G)


def batch_norm_gradient(G, X, mean, variance, gamma, eps):
    """dJ/dx in training mode, where mean and variance are those of X:

    gamma / sqrt(variance + eps) (g - mean(g) - x_hat mean(g x_hat)), means over images and pixels of a channel.
    """
    count = X.size // X.shape[1]
    along, total = batch_norm_parameter_gradients(G, X, mean, variance, eps)
    x_hat = standardised(X, mean, variance, eps)
    inner = G - of_channels(total / count, X) - x_hat * of_channels(along / count, X)
    return inner * of_channels(gamma / np.sqrt(variance + eps), X)


def frozen_batch_norm_gradient(G, variance, gamma, eps):
    """dJ/dx in evaluation mode, where mean and variance are constants: gamma / sqrt(variance + eps) g."""
    return G * of_channels(gamma / np.sqrt(variance + eps), G)


# ------------------------------------------------------------------ activation
def relu(Z, q=1, rho=1.0):
    """max(z, 0), which is the smoothed ReLU (Li & Li 2025, Sec. 2.3) of degree q = 1; for q >= 2 that of threshold rho,
    z^q / (q rho^(q-1)) on [0, rho] and z - (1 - 1/q) rho above."""
    return np.maximum(Z, 0) if q == 1 else sigma(Z, q, rho)


def relu_gradient(G, Z, q=1, rho=1.0):
    """g 1{z > 0}, the subgradient at 0 being 0; for q >= 2 g clip(z / rho, 0, 1)^(q-1)."""
    return G * (Z > 0) if q == 1 else G * sigma_prime(Z, q, rho)


# ------------------------------------------------------------------ pooling
def sum_pool(X, size=None):
    """Sums over windows of size x size that do not overlap -> (N, C, H/size, W/size); over all pixels -> (N, C)."""
    if size is None:
        return X.sum(axis=(2, 3))
    N, C, H, W = X.shape
    return X.reshape(N, C, H // size, size, W // size, size).sum(axis=(3, 5))


def sum_pool_gradient(G, sides, size=None):
    """g for every pixel of its window -> (N, C, *sides)."""
    if size is None:
        return np.broadcast_to(G[:, :, None, None], (*G.shape, *sides))
    return G.repeat(size, axis=2).repeat(size, axis=3)


# ------------------------------------------------------------------ the linear layer
def linear(X, A, b=None):
    """z[n, i] = sum_e a[i, e] x[n, e] + b_i, x taken flat -> (N, k); A (k, E)."""
    Z = (X.reshape(len(X), 1, -1) @ A.T)[:, 0]
    return Z if b is None else Z + b


def linear_input_gradient(G, A, shape):
    """dJ/dx[n, e] = sum_i g[n, i] a[i, e] -> (N, *shape)."""
    return (G[:, None] @ A)[:, 0].reshape(len(G), *shape)


def linear_weight_gradient(G, X):
    """dJ/da[i, e] = sum_n g[n, i] x[n, e] -> (k, E); dJ/db = sum_n g_n."""
    return G.T @ X.reshape(len(X), -1)

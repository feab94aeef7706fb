"""Powers of two that bring a sample's problem to scale one, so that no square of it under- or overflows.

F is homogeneous of degree one in (W, rho), and its change of scale in x passes to rho: for every i and j

    F(W, rho; x) = 2^(i+j) F(2^-i W, 2^-(i+j) rho; 2^-j x),

for a ball of radius 2^-j eps.  Where rho is above every preactivation that the ball allows, sigma(z) = z^q / (q
rho^(q-1)) throughout, and rho may be replaced by 2^-l rho, still above them, for a factor 2^(l(q-1)) on F.  All of it
is exact unless a number under- or overflows, so that bounds keep their bits.  What underflows on the way is far below
the allowances for rounding (docs/certificates.md).
"""

from typing import NamedTuple

import numpy as np

LARGEST, SMALLEST_RHO = np.finfo(float).max, np.finfo(float).tiny
ORDINARY = 64  # weights and inputs below 2^64 and above 2^-64 are left as they are
STEEP = 256  # sigma' at the largest preactivation is at least 2^-STEEP, or rho is lowered
RADIUS = -300  # a radius below 2^RADIUS times the input is raised to it, far below the input's own rounding


def _exponent(size):
    """The e with 2^(e-1) <= size < 2^e; 0 for 0."""
    return np.frexp(size)[1].astype(np.int64)


class Scale(NamedTuple):
    """The exponents i, j and l: of weights, of inputs, of how far rho is lowered; and q - 1."""

    weights: int
    inputs: int
    lowered: int
    power: int

    def problem(self, W, rho, X, eps):
        """Weights, rho, inputs (S, P, d) and radii (S,) at scale one, and the radii to search: not too small ones.

        A rho below the smallest normal number becomes that: sigma falls, by less than that.
        """
        size = _sizes(X[None])[0]
        if self.weights:
            W = np.ldexp(W, -self.weights)
        if self.inputs:
            X, eps, size = (np.ldexp(values, -self.inputs) for values in (X, eps, size))
        rho = max(float(np.ldexp(rho, -self.weights - self.inputs - self.lowered)), SMALLEST_RHO)
        least = np.ldexp(1.0, _exponent(size) + RADIUS)
        return W, rho, X, eps, np.where((eps > 0) & (size > 0), np.maximum(eps, least), eps)

    def bound(self, bound):
        """A lower bound of F at the problem's own scale, rounded down."""
        exponent = self.weights + self.inputs - self.lowered * self.power
        if not exponent:
            return bound
        exponent = int(np.clip(exponent, -4000, 4000))  # beyond it all is 0 or infinite
        back = np.ldexp(bound, exponent)
        return np.where(np.ldexp(back, -exponent) > bound, np.nextafter(back, -np.inf), back)

    def delta(self, delta):
        """Perturbations at the inputs' own scale, rounded towards 0."""
        if not self.inputs:
            return delta
        back = np.ldexp(delta, self.inputs)
        longer = np.abs(np.ldexp(back, -self.inputs)) > np.abs(delta)
        return np.where(longer, np.nextafter(back, 0), back)


def _sizes(X):
    """The largest absolute value of every sample, (R, N), without a copy of X."""
    return np.maximum(X.max(axis=(2, 3)), -X.min(axis=(2, 3)))


def exponents(W, q, rho, X, eps):
    """What `Scale` holds, for every sample: int (R, N, 4); X (1 or R, N, P, d), eps (R, N).  0 at ordinary scales.

    |z| < 2^top on the whole ball, since every coordinate of x + delta is at most |x|_inf + eps.
    """
    weights = _exponent(np.maximum(W.max(axis=(1, 2, 3)), -W.min(axis=(1, 2, 3))))[:, None]
    inputs = _exponent(np.maximum(_sizes(X), eps))
    top = weights + inputs + 1 + int(W.shape[-1]).bit_length()
    lowered = _exponent(rho) - 1 - top
    lowered = np.where((q - 1) * lowered > STEEP, lowered, 0)
    weights, inputs = (np.where(np.abs(e) > ORDINARY, e, 0) for e in (weights, inputs))
    return np.stack(np.broadcast_arrays(weights, inputs, lowered, q - 1), axis=-1)

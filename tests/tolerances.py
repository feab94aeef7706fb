"""The one table of tolerances.  An error beyond its entry is a bug, never a reason to change the entry."""

import numpy as np

# Closed-form gradients against autograd, relative to the gradient's norm.  Both sides sum a few hundred products; the
# float32 engine gets float32-rounded numbers, so what is left is the rounding of its own arithmetic.
GRADIENT = {"float64": 1e-12, "float32": 1e-5}

# Logits, losses, margins, bounds and weights of an engine against the float64 reference, relative to the largest of
# them: the same numbers summed in another order, or in float32.
PARITY = {"float64": 1e-12, "float32": 1e-5}

# Central differences with this step, relative to the gradient's norm: truncation ~ STEP^2 and rounding
# ~ 1e-16 |J| / STEP stay two orders below.  Only for arguments whose preactivations keep away from the knots.
STEP = 1e-6
CENTRAL_DIFFERENCE = 1e-7

# Next to a knot sigma is rho/q up to the rounding of q + 3 operations.
KNOT_ULPS = 8

# Sums in another order (permuted patches, neurons, samples, classes; a scaled network), relative to the largest term's
# scale, in float64.
REORDERED = 1e-12

# interval_margin at eps = 0 against the margin: its outward rounding, 4 (d + 2) u |w| |x| per preactivation and
# 4 (P m + q + 8) u per sum, relative to sum |w| |x|; shapes in the tests keep both factors below 300.
CERTIFICATE = 1e-12

# A sample standard deviation from n numbers has a relative error of 1 / sqrt(2 n); this many of those (p ~ 1e-9).
SIGMAS = 6


def beyond_the_ball(X, eps):
    """How far an attack may pass the boundary of its ball, in either norm: the rounding of X's dtype.

    Its unit roundoff u times |eps| for eps, the clip or the length (a sum of d squares) and the scaling, and times
    |x| + eps for adding the perturbation to x.
    """
    d = X.shape[-1]
    return (d + 8) * np.finfo(X.dtype).eps / 2 * (np.max(eps) + np.abs(X).max())

"""The smallest margin on a ball, by two global searches that share nothing with the certificates, and in fractions.

One sample of one network, min F_y - F_j = min sum_i s_i sigma(z_i + <a_i, delta>) over a ball of few coordinates:
`grid_minimum` (a grid, then SLSQP from its best points) finds a point, `subdivision_minimum` bounds the minimum from
below by second-order Taylor bounds on boxes.  Plain NumPy and SciPy; nothing is imported from the library.
"""

import functools
import itertools
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}
POINTS = {1: 4001, 2: 161, 3: 31, 4: 15}  # of the grid, per coordinate


class Problem(NamedTuple):
    """sum_i sign_i sigma(z_i + <A_i, delta>) + price |delta|_2^2; `A (M, D)`, `z (M,)`, `sign (M,)`."""

    A: np.ndarray
    z: np.ndarray
    sign: np.ndarray
    q: int
    rho: float
    price: float = 0.0

    def value(self, delta):
        """At points (..., D)."""
        return sigma(delta @ self.A.T + self.z, self.q, self.rho) @ self.sign + self.price * (delta**2).sum(axis=-1)

    def gradient(self, delta):
        slopes = np.clip((delta @ self.A.T + self.z) / self.rho, 0, 1) ** (self.q - 1)
        return (self.sign * slopes) @ self.A + 2 * self.price * delta


def sigma(z, q, rho):
    inner = np.clip(z / rho, 0, 1)
    return rho / q * functools.reduce(np.multiply, [inner] * q) + np.maximum(z - rho, 0)


def problems_of(W, X, y, j, q, rho, budget):
    """F_y - F_j as problems with a ball each: one per patch, or one with P d coordinates for a global budget."""
    forms = np.concatenate([W[y], W[j]])
    sign = np.repeat([1.0, -1.0], len(W[y]))
    if budget == "patch":
        return [Problem(forms, forms @ x, sign, q, rho) for x in X]
    return [Problem(np.kron(np.eye(len(X)), forms), (X @ forms.T).ravel(), np.tile(sign, len(X)), q, rho)]


# ------------------------------------------------------------------ balls
def to_ball(delta, norm):
    """The cube [-1, 1]^D onto the unit ball, along rays."""
    size = np.linalg.norm(delta, ORDER[norm], axis=-1, keepdims=True)
    return delta * np.abs(delta).max(axis=-1, keepdims=True) / np.where(size > 0, size, 1)


def into_ball(delta, eps, norm):
    """Shrunk along its ray where it is outside."""
    size = np.linalg.norm(delta, ORDER[norm], axis=-1, keepdims=True)
    return np.where(size > eps, delta * (eps / np.where(size > 0, size, 1)), delta)


def random_ball(rng, shape, eps, norm):
    """Points of the ball of the last axis: half of them on its boundary, a quarter at corners or vertices."""
    n, D = shape
    delta = rng.uniform(-1, 1, shape)
    delta[: n // 4] = np.sign(delta[: n // 4]) if norm != "l1" else np.eye(D)[rng.integers(D, size=n // 4)]
    delta = delta / np.linalg.norm(delta, ORDER[norm], axis=-1, keepdims=True)
    radius = np.where(np.arange(n) < n // 2, 1, rng.random(n) ** (1 / D))
    return eps * delta * (radius * rng.choice([-1, 1], n))[:, None]


# ------------------------------------------------------------------ searches
def grid_minimum(problem, eps, norm, n_starts=12):
    """The best point of a grid, polished: (value, delta)."""
    D = problem.A.shape[1]
    axis = np.linspace(-1, 1, POINTS[D])
    cube = np.stack(np.meshgrid(*[axis] * D, indexing="ij"), -1)
    value = problem.value(eps * to_ball(cube.reshape(-1, D), norm)).reshape(cube.shape[:-1])
    lowest = np.ones(value.shape, bool)  # no neighbour along an axis is lower
    for a in range(D):
        step = np.diff(value, axis=a)
        first, last = [(slice(None),) * a + (s,) for s in (slice(None, -1), slice(1, None))]
        lowest[first] &= step >= 0
        lowest[last] &= step <= 0
    starts = cube[lowest][np.argsort(value[lowest], kind="stable")[:n_starts]]
    return min((polish(problem, eps * to_ball(s, norm), eps, norm) for s in starts), key=lambda found: found[0])


def polish(problem, start, eps, norm):
    """SLSQP from `start` on the ball, l_1 split into positive and negative parts; never above the start."""
    scale, D = np.abs(problem.gradient(start)).max() * eps or 1.0, len(start)
    options = {"method": "SLSQP", "options": {"ftol": 1e-16, "maxiter": 200}}

    def objective(v):
        return problem.value(eps * v) / scale, problem.gradient(eps * v) * eps / scale

    if eps == 0:
        return problem.value(start), start
    if norm == "l1":
        split = np.concatenate([np.maximum(start, 0), np.maximum(-start, 0)]) / eps
        both = np.concatenate([np.eye(D), -np.eye(D)])

        def halves(v):
            value, gradient = objective(v @ both)
            return value, both @ gradient

        room = {"type": "ineq", "fun": lambda v: 1 - v.sum(), "jac": lambda v: -np.ones(2 * D)}
        v = minimize(halves, split, jac=True, bounds=[(0, 1)] * (2 * D), constraints=room, **options).x @ both
    elif norm == "l2":
        room = {"type": "ineq", "fun": lambda v: 1 - v @ v, "jac": lambda v: -2 * v}
        v = minimize(objective, start / eps, jac=True, constraints=room, **options).x
    else:
        v = minimize(objective, start / eps, jac=True, bounds=[(-1, 1)] * D, **options).x
    best = min((start, into_ball(eps * v, eps, norm)), key=problem.value)
    return float(problem.value(best)), best


def subdivision_minimum(problem, eps, norm, tol=1e-6, max_boxes=10**6):
    """(lower, upper) with upper - lower <= tol, of a problem without a price: boxes are halved until the bounds meet.

    On a box of half width h around c, f(c + v) >= f(c) + <g, v> - sum_{s_i < 0} max sigma'' (|A_i|_1 h)^2 / 2 (the
    other terms are convex); the linear term is at least -|g|_1 h, and at least its minimum over the whole ball.
    """
    D = problem.A.shape[1]
    q, rho, concave = problem.q, problem.rho, problem.A[problem.sign < 0]
    spread = np.abs(concave).sum(axis=1)
    centre, h, upper, lower = np.zeros((1, D)), float(eps), np.inf, np.inf
    while len(centre):
        if len(centre) > max_boxes:
            raise RuntimeError(f"{len(centre)} boxes of half width {h:g}")
        upper = min(upper, problem.value(into_ball(centre, eps, norm)).min())
        g, z = problem.gradient(centre), centre @ concave.T + problem.z[problem.sign < 0]
        high = np.clip((z + spread * h) / rho, 0, 1)
        curved = (z - spread * h < rho) & (high > 0)
        curvature = np.where(curved, (q - 1) / rho * high ** (q - 2), 0) @ (spread * h) ** 2 / 2
        linear = np.maximum(
            -np.abs(g).sum(axis=1) * h, -(g * centre).sum(axis=1) - eps * np.linalg.norm(g, DUAL[norm], axis=1)
        )
        bound = problem.value(centre) + linear - curvature
        nearest = np.sign(centre) * np.maximum(np.abs(centre) - h, 0)
        inside = np.linalg.norm(nearest, ORDER[norm], axis=1) <= eps
        done = inside & (bound >= upper - tol)
        lower = min(lower, bound[done].min(initial=np.inf))
        h /= 2
        corners = h * np.array(list(itertools.product([-1, 1], repeat=D)))
        centre = (centre[inside & ~done][:, None] + corners).reshape(-1, D)
    return min(lower, upper), upper


def worst_margin(net, X, y, eps, norm, budget):
    """min over the ball of F_y - max_{j != y} F_j of one sample X (P, d): (value, the point's delta (P, d))."""
    found = []
    for j in set(range(len(net.W))) - {int(y)}:
        parts = [grid_minimum(p, eps, norm) for p in problems_of(net.W, X, y, j, net.q, net.rho, budget)]
        found.append((sum(value for value, _ in parts), np.concatenate([d.ravel() for _, d in parts]).reshape(X.shape)))
    return min(found, key=lambda one: one[0])


# ------------------------------------------------------------------ exact arithmetic
fractions = np.vectorize(Fraction, otypes=[object])


def exact_sigma(z, q, rho):
    return 0 if z <= 0 else z**q / (q * rho ** (q - 1)) if z <= rho else z - (1 - Fraction(1, q)) * rho


def exact_margin(W, X, y, q, rho):
    """F_y - max_{j != y} F_j as a Fraction, of exact weights (k, m, d) and one exact sample (P, d)."""
    rho, z = Fraction(rho), np.einsum("pd,ksd->kps", fractions(X), fractions(W))
    F = [sum(exact_sigma(one, q, rho) for one in of_class.ravel()) for of_class in z]
    return F[y] - max(F[:y] + F[y + 1 :])

"""Certificates at extreme scales against exact arithmetic: random problems, an attack of its own, what must hold.

The floats of a problem are exact rationals, and sigma is piecewise polynomial with rational coefficients, so the margin
at a rational point of the ball is an exact Fraction, and so is whether the point lies in the ball (l_inf and l_1 as
they stand, l_2 by squares).  Where to look is found in floating point on an equivalent problem of scale one, by a
search that shares nothing with the library.

    python tests/extreme_certificates.py --certified 10281

runs problems until so many samples are certified, prints what was counted, and fails if anything that must not happen
did.  `--ordinary` leaves the extreme scales out; `--dense` has more neurons, in all directions, some in float32,
and more boxes, for caps and parabolas.
"""

import argparse
import itertools
import sys
from collections import Counter
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from global_search import exact_margin, exact_sigma, fractions

from advfeat import PatchCNN
from advfeat.patches.certify import certify

NORMS, BUDGETS = ("linf", "l2", "l1"), ("patch", "global")
METHODS = ("branch_and_bound", "branch_and_bound", "tangents", "linear", "interval")
SHARES = (0.6, 0.3, 0.1, 0.03, 0.01)  # of the unit ball: step lengths of the attack, each `STEPS` times
STEPS, STARTS, TRIED = 6, 6, 3
ROUNDOFF = Fraction(1, 2**53)
OUTSIDE = Fraction(1, 2**46)  # of the radius: the search's lengths are sums of squares, its steps are rounded
TINY = Fraction(float(np.finfo(float).tiny))


class Case(NamedTuple):
    """A problem, its factors to scale one, and how it is to be certified; X (N, P, d), eps and x_scale (N,)."""

    W: np.ndarray
    q: int
    rho: float
    X: np.ndarray
    y: np.ndarray
    eps: np.ndarray
    w_scale: float
    x_scale: np.ndarray
    norm: str
    budget: str
    method: str
    max_nodes: int
    dtype: str = "float64"

    def certificate(self, backend="numba"):
        W = self.W.astype(self.dtype)
        net = PatchCNN(W, self.q, self.rho, backend) if isinstance(backend, str) else backend
        options = {"norm": self.norm, "budget": self.budget, "method": self.method, "max_nodes": self.max_nodes}
        return certify(net, self.X, self.y, self.eps, **options)

    def at_scale_one(self, n):
        """W, rho, X (P, d) and eps of sample n, divided by their scales; rho at most the largest preactivation.

        Above that it only multiplies F.  A radius above the input is the scale instead.
        """
        W, X, eps = self.W / self.w_scale, self.X[n] / self.x_scale[n], self.eps[n] / self.x_scale[n]
        scale = max(eps, 1.0)
        rho = np.log10(self.rho) - np.log10(self.w_scale) - np.log10(self.x_scale[n]) - np.log10(scale)
        X, eps = X / scale, eps / scale
        top = np.abs(W).sum(axis=-1).max() * (np.abs(X).max() + eps)
        return W, float(max(min(10.0 ** np.clip(rho, -300, 300), top), 1e-300)), X, eps


SIZES = {False: ((2, 3), (1, 3), (1, 3), (1, 2), (2, 5)), True: ((2, 3), (3, 9), (3, 6), (1, 1), (2, 5))}


def random_case(seed, ordinary=False, n_samples=4, dense=False) -> Case:
    rng = np.random.default_rng([16, seed])
    k, m, d, P, q = (int(rng.integers(low, high + 1)) for low, high in SIZES[dense])
    W, X = rng.standard_normal((k, m, d)), rng.standard_normal((n_samples, P, d))
    ends = rng.choice([-160, 160]) + rng.uniform(-5, 5)  # where squares of weights under- or overflow
    w_scale = 10.0 ** (ends if rng.random() < 0.5 else rng.uniform(-160, 160))
    x_scale = np.full(n_samples, 10.0 ** (rng.uniform(-100, 100) if rng.random() < 0.7 else 0))
    if rng.random() < 0.2:  # every sample at a scale of its own
        x_scale = 10.0 ** rng.uniform(-100, 100, n_samples)
    if rng.random() < 0.1:  # neurons far below the others
        W *= 10.0 ** rng.choice([0.0, rng.uniform(-200, 0)], (k, m, 1))
    if rng.random() < 0.1:
        X[:, 0] = 0
    if ordinary:
        w_scale, x_scale = 10.0 ** rng.uniform(-3, 3), np.full(n_samples, 10.0 ** rng.uniform(-3, 3))
    kind = 1 if ordinary else rng.random()
    if kind < 0.1:
        rho = 10.0 ** rng.choice([-300, 300])
    elif kind < 0.3:
        rho = 10.0 ** rng.uniform(-8, 8)
    else:
        rho = w_scale * x_scale[0] * 10.0 ** (rng.uniform(-8, 8) if rng.random() < 0.5 else rng.uniform(-1, 1))
    kind = rng.random()
    span = (-2, 0.3) if kind < 0.6 else (-12, -2) if kind < 0.75 else (0.3, 8) if kind < 0.9 else (-300, -12)
    eps = x_scale * 10.0 ** rng.uniform(*((-12, 1) if ordinary else span))
    choice = (str(rng.choice(of)) for of in (NORMS, BUDGETS, METHODS))
    case = Case(w_scale * W, q, rho, x_scale[:, None, None] * X, np.zeros(n_samples, int), eps, w_scale, x_scale,
                *choice, int(rng.choice([1, 8, 20])))  # fmt: skip
    if dense:
        W = w_scale * (W + rng.choice([-1, 1], W.shape))
        W *= np.where(np.arange(m) == 0, 3, 1)[:, None]  # a leader
        single = rng.random() < 0.5 and 1e-30 < w_scale < 1e30 and 1e-30 < rho < 1e30
        W = W.astype(np.float32).astype(float) if single else W
        case = case._replace(W=W, method="branch_and_bound", max_nodes=int(rng.choice([9, 65, 200])),
                             dtype="float32" if single else "float64")  # fmt: skip
    return case._replace(y=np.array([_logits(case, n).argmax() for n in range(n_samples)]))


# ------------------------------------------------------------------ the attack, at scale one
def _logits(case, n):
    W, rho, X, _ = case.at_scale_one(n)
    return _sigma(np.einsum("ksd,pd->kps", W, X), case.q, rho).sum(axis=(1, 2))


def _sigma(z, q, rho):
    return rho / q * np.clip(z / rho, 0, 1) ** q + np.maximum(z - rho, 0)


def _into_unit_ball(v, norm, budget):
    """v (M, P, d), vectors longer than 1 shrunk along their rays (l_inf: clipped)."""
    if norm == "linf":
        return np.clip(v, -1, 1)
    rows = v.reshape(len(v), 1, -1) if budget == "global" else v
    size = np.linalg.norm(rows, {"l2": 2, "l1": 1}[norm], axis=-1, keepdims=True)
    return (rows / np.maximum(size, 1)).reshape(v.shape)


def _starts(rng, P, d, norm, budget):
    """0, corners or vertices, random points of the unit ball."""
    D = P * d
    corners = np.array(list(itertools.product([-1.0, 1.0], repeat=D)))
    axes = np.concatenate([np.eye(D), -np.eye(D)])
    points = np.concatenate([np.zeros((1, D)), corners, axes, rng.standard_normal((40, D))])
    return _into_unit_ball(points.reshape(-1, P, d), norm, budget)


def worst_points(case, n, rng):
    """Points v (M, P, d) of the unit ball where some rival is closest to the label, or beyond it, at x + eps v."""
    W, rho, X, eps = case.at_scale_one(n)
    found, v = [], _starts(rng, *X.shape, case.norm, case.budget)
    for rival in sorted(set(range(len(W))) - {int(case.y[n])}):
        forms, signs = np.concatenate([W[case.y[n]], W[rival]]), np.repeat([1.0, -1.0], W.shape[1])

        def value(v, forms=forms, signs=signs):
            z = (X + eps * v) @ forms.T
            return (_sigma(z, case.q, rho) @ signs).sum(axis=1), z

        at, _ = value(v)
        here = v[np.argsort(at, kind="stable")[:STARTS]]
        tried, values = [here], [value(here)[0]]
        for share in np.repeat(SHARES, STEPS):
            g = (signs * np.clip(value(here)[1] / rho, 0, 1) ** (case.q - 1)) @ forms
            size = np.abs(g).max(axis=(1, 2) if case.budget == "global" else 2, keepdims=True)
            g = g / np.where(size > 0, size, 1)
            here = _into_unit_ball(here - share * (np.sign(g) if case.norm == "linf" else g), case.norm, case.budget)
            tried.append(here)
            values.append(value(here)[0])
        tried, values = np.concatenate(tried), np.concatenate(values)
        found.append(tried[np.argsort(values, kind="stable")[:TRIED]])
    return np.concatenate(found)


# ------------------------------------------------------------------ exact arithmetic
def rows_of(delta, norm, budget):
    return delta.reshape(1, -1) if budget == "global" and norm != "linf" else delta


def is_inside(delta, radius, norm, budget):
    """Whether Fractions (P, d) lie in the ball, exactly."""
    for row in rows_of(np.abs(delta), norm, budget):
        size, most = {"linf": (max(row), radius), "l2": (row @ row, radius**2), "l1": (sum(row), radius)}[norm]
        if size > most:
            return False
    return True


def exactly_inside(v, radius, norm, budget):
    """radius v as Fractions, v of floats from the unit ball, shrunk until it is in the ball."""
    delta, shrunk = fractions(v) * radius, Fraction(1)
    while not is_inside(shrunk * delta, radius, norm, budget):
        shrunk *= 1 - Fraction(1, 2**45)
    return shrunk * delta


def least_margin(case, n, rng):
    """The smallest exact margin of sample n at the points found, all of them exactly inside its ball."""
    W, X, radius = fractions(case.W), fractions(case.X[n]), Fraction(case.eps[n])
    points = (exactly_inside(v, radius, case.norm, case.budget) for v in worst_points(case, n, rng))
    margins = [exact_margin(W, X + delta, int(case.y[n]), case.q, case.rho) for delta in points]
    return min([exact_margin(W, X, int(case.y[n]), case.q, case.rho), *margins])


def rounding_of_a_margin(case, X):
    """How far a margin computed at X may be off: by 1e-12 of what its sums add up without signs, and underflows."""
    z = np.einsum("pd,ksd->kps", np.abs(fractions(X)), np.abs(fractions(case.W)))
    rho = Fraction(case.rho)
    return sum(exact_sigma(one, case.q, rho) for one in z.ravel()) / 10**12 + z.size * (1 + rho) * TINY


def judge(case, found, rng) -> Counter:
    """How many samples of a certificate are certified, broken, undecided, and how many fail what must hold."""
    count = Counter()
    for n in range(len(case.X)):
        lower, upper = float(found.lower[n]), float(found.upper[n])
        count["samples"] += 1
        count["certified" if lower > 0 else "broken" if upper <= 0 else "undecided"] += 1
        count["FAULT not a number"] += np.isnan(lower) or np.isnan(upper) or not np.isfinite(found.X_adv[n]).all()
        count["FAULT lower > upper"] += lower > upper
        least = least_margin(case, n, rng)
        count["FAULT certified but broken"] += lower > 0 and least <= 0
        count["FAULT lower > exact margin"] += lower == np.inf or (np.isfinite(lower) and Fraction(lower) > least)
        if np.isfinite(found.X_adv[n]).all():
            at = fractions(found.X_adv[n])
            moved = np.abs(at - fractions(case.X[n]))
            before = np.maximum(moved - ROUNDOFF * np.abs(at), 0)  # x + delta was rounded once
            radius = Fraction(case.eps[n]) * (1 + OUTSIDE)
            count["FAULT X_adv outside its ball"] += not is_inside(before, radius, case.norm, case.budget)
            if np.isfinite(upper):
                truth = exact_margin(fractions(case.W), at, int(case.y[n]), case.q, case.rho)
                off = abs(Fraction(upper) - truth) > rounding_of_a_margin(case, found.X_adv[n])
                count["FAULT upper is not the margin at X_adv"] += off
    return count


def faults(count):
    return {name: number for name, number in count.items() if name.startswith("FAULT") and number}


def trial(seeds, ordinary=False, backend="numba", until=None, dense=False) -> Counter:
    """The problems of these seeds, or as many of them as it takes to certify `until` samples."""
    count = Counter()
    for seed in seeds:
        case = random_case(seed, ordinary, dense=dense)
        count.update(judge(case, case.certificate(backend), np.random.default_rng(seed)))
        if until is not None and count["certified"] >= until:
            break
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--certified", type=int, default=10_281, help="samples to certify")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--backend", default="numba", help="the engine")
    parser.add_argument("--ordinary", action="store_true", help="no extreme scales")
    parser.add_argument("--dense", action="store_true", help="more neurons, in all directions")
    given = parser.parse_args()
    with np.errstate(all="ignore"):
        total = trial(itertools.count(given.first), given.ordinary, given.backend, given.certified, given.dense)
    print("\n".join(f"{name:40} {number}" for name, number in sorted(total.items())))
    sys.exit(bool(faults(total)))

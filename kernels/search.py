"""Lower and upper bounds of one patch's least margin, in plain NumPy: relaxation, range tightening, branch and bound.

The problem.  F_y - F_j is a sum over patches, so on a patch x with a budget of its own what counts is

    h(delta) = sum_r sigma(z_r + <w_{y,r}, delta>) - sum_r sigma(z'_r + <w_{j,r}, delta>),   z_r = <w_{y,r}, x>,

a difference of convex functions, to be minimised over |delta| <= eps.  A budget shared by patches adds
lambda psi(delta), psi = |delta|_2^2 (l_2) or |delta|_1 (l_1), with a multiplier lambda >= 0.  All that follows needs of
the ball is S_lambda(v) = max_{|delta| <= eps} <v, delta> - lambda psi(delta) and its maximiser, so no norm is special.

Interval.  Preactivations stay in z_r +- eps |w_r|_*, so h is at least the label's lowest minus the rival's highest.

Relaxation.  On a range [l_r, u_r] of z'_r the chord lies above sigma, so H = sum_r sigma(z_r + ...) - sum_r chord_r is
convex and <= h.  A tangent of every sigma of the label, at z_r + <w_{y,r}, delta_0>, leaves c + <a, delta> <= H, hence
min h >= c - S(-a): a bound for every delta_0, which at the minimiser of H equals min H.  Conditional gradient steps
find the minimiser; their duality gap is the bound's distance from it.

Tightening.  Minimisers of h lie in {c + <a, delta> + lambda psi(delta) <= best value found}, where for every mu >= 0

    max <w, delta> <= S_{mu lambda}(w - mu a) + mu (best - c):

ranges shrink, chords sink.  Branch and bound splits the range with the largest gap between chord and sigma.

Rounding.  `slack` bounds the error of every computed value, for the derivation see docs/certificates.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .reference import L1, L2, LINF, sigma, sigma_prime

MULTIPLIERS = 2.0 ** np.arange(-3, 10)  # of |w| / |a|: the values of mu that tightening tries
SETTLED = 1e-2  # tightening goes on while it shrinks the ranges' sum by this share
NEGLIGIBLE = 1e-3  # ranges whose chord is less than this share of all heights above sigma are left as they are
BISECTIONS = 10  # of a step length


class Problem(NamedTuple):
    """One patch: weights of label and rival (m, d), their preactivations (m,), and what delta may be."""

    W: np.ndarray
    V: np.ndarray
    z: np.ndarray
    v: np.ndarray
    eps: float
    penalty: float
    norm: int
    q: int
    rho: float


class Node(NamedTuple):
    """Ranges of the rival's preactivations, a lower bound of h where they hold, and a good delta."""

    bound: float
    low: np.ndarray
    high: np.ndarray
    delta: np.ndarray


# ------------------------------------------------------------------ the ball
def dual(V, norm):
    """The dual norm of the rows: l_1 for l_inf, l_2 for l_2, l_inf for l_1."""
    return np.linalg.norm(V, {LINF: 1, L2: 2, L1: np.inf}[norm], axis=-1)


def support(v, norm, eps, penalty):
    """S(v) = max_{|delta| <= eps} <v, delta> - penalty psi(delta); v (..., d), penalty (...)."""
    size = dual(v, norm)
    if norm == LINF:
        return eps * size
    if norm == L1:
        return eps * np.maximum(size - penalty, 0)
    inner = size < 2 * penalty * eps
    return np.where(inner, size**2 / np.where(inner, 4 * penalty, 1), eps * size - penalty * eps**2)


def furthest(v, norm, eps, penalty):
    """A delta that attains S(v), v (d,)."""
    if norm == LINF:
        return eps * np.sign(v)
    size = dual(v, norm)
    if norm == L1:
        i = np.abs(v).argmax()
        return np.where((np.arange(len(v)) == i) & (size > penalty), eps * np.sign(v[i]), 0.0)
    return v * (1 / (2 * penalty) if size < 2 * penalty * eps else eps / size if size > 0 else 0.0)


def psi(delta, norm):
    return np.abs(delta).sum() if norm == L1 else delta @ delta


# ------------------------------------------------------------------ the relaxation
def slack(p: Problem, x):
    """16 (d + 2m + q + 16) u sum_r (|w_r|_2 |x|_2 + eps |w_r|_*) over both classes, u = 2^-53: rounding, outward."""
    m, d = p.W.shape
    both = np.concatenate([p.W, p.V])
    size = (np.linalg.norm(both, axis=1) * np.linalg.norm(x) + p.eps * dual(both, p.norm)).sum()
    return 16 * (d + 2 * m + p.q + 16) * 2.0**-53 * size + np.finfo(float).tiny


def chord(low, high, q, rho):
    """Slope s and offset c with sigma(z) <= s z + c on [low, high]; tight at both ends, sound for any rounding of s."""
    at_low, at_high = sigma(low, q, rho), sigma(high, q, rho)
    wide = high - low > 1e-9 * (np.abs(low) + np.abs(high))
    slope = np.where(wide, (at_high - at_low) / np.where(wide, high - low, 1), sigma_prime(low, q, rho))
    slope = np.clip(slope, 0, 1)
    return slope, np.maximum(at_low - slope * low, at_high - slope * high)


def height(low, high, q, rho):
    """How far the chord lies above sigma in the middle of the range's positive part, and that middle."""
    middle = (np.maximum(low, 0) + high) / 2
    s, offset = chord(low, high, q, rho)
    return s * middle + offset - sigma(middle, q, rho), middle


def value(p: Problem, delta):
    """h(delta) + lambda psi(delta)."""
    up, down = p.z + p.W @ delta, p.v + p.V @ delta
    return sigma(up, p.q, p.rho).sum() - sigma(down, p.q, p.rho).sum() + p.penalty * psi(delta, p.norm)


def step_length(p: Problem, t, dt, slope, delta, move, vertex):
    """The step in [0, 1] along `move` that minimises sum_r sigma(t + step dt) - step slope + lambda psi, by bisection.

    psi of l_1 is replaced by the line between its values at both ends, which lies above it.
    """

    def rising(step):
        rate = sigma_prime(t + step * dt, p.q, p.rho) @ dt - slope
        if p.norm == L1:
            return rate + p.penalty * (psi(vertex, L1) - psi(delta, L1)) > 0
        return rate + 2 * p.penalty * ((delta + step * move) @ move) > 0

    low, high = 0.0, 1.0
    if not rising(1.0):
        return 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) else (middle, high)
    return low


def relax(p: Problem, low, high, delta, n_steps):
    """Conditional gradient on H from delta: best bound, its minorant (a, c), and the last delta."""
    s, offset = chord(low, high, p.q, p.rho)
    b, constant = s @ p.V, -(s * p.v + offset).sum()
    best, minorant = -np.inf, (np.zeros_like(delta), -np.inf)
    for step in range(n_steps):
        move = p.W @ delta
        t = p.z + move
        slopes = sigma_prime(t, p.q, p.rho)
        a = slopes @ p.W - b
        c = sigma(t, p.q, p.rho).sum() - slopes @ move + constant
        bound = c - support(-a, p.norm, p.eps, p.penalty)
        if bound > best:
            best, minorant = bound, (a, c)
        gap = c + a @ delta + p.penalty * psi(delta, p.norm) - bound
        if step + 1 == n_steps or gap <= 1e-12 * abs(c):
            break
        vertex = furthest(-a, p.norm, p.eps, p.penalty)
        along = vertex - delta
        delta = delta + step_length(p, t, p.W @ along, b @ along, delta, along, vertex) * along
    return best, *minorant, delta


def descend(p: Problem, delta, n_steps):
    """Conditional gradient on h itself, the rival's sigma replaced by its tangent (never above): h never grows."""
    for _ in range(n_steps):
        t = p.z + p.W @ delta
        b = sigma_prime(p.v + p.V @ delta, p.q, p.rho) @ p.V
        vertex = furthest(b - sigma_prime(t, p.q, p.rho) @ p.W, p.norm, p.eps, p.penalty)
        along = vertex - delta
        step = step_length(p, t, p.W @ along, b @ along, delta, along, vertex)
        if step == 0:
            break
        delta = delta + step * along
    return delta, value(p, delta)


def tighten(p: Problem, low, high, a, room, penalty, pad):
    """Ranges of the rival's preactivations over {<a, delta> + penalty psi <= room}; low > high: the set is empty."""
    size = dual(a, p.norm)
    if size == 0:
        return low, high
    above, _ = height(low, high, p.q, p.rho)
    worth = above >= NEGLIGIBLE * above.sum()
    mu = dual(p.V, p.norm)[:, None] / size * MULTIPLIERS  # (m, .)
    reach = [
        (support(sign * p.V[:, None] - mu[..., None] * a, p.norm, p.eps, mu * penalty) + mu * room).min(axis=1)
        for sign in (1, -1)
    ]
    return (
        np.where(worth, np.maximum(low, p.v - reach[1] - pad), low),
        np.where(worth, np.minimum(high, p.v + reach[0] + pad), high),
    )


# ------------------------------------------------------------------ branch and bound
class Search:
    """Best-first search of one problem; `best`, `delta`: the least value found, of h + lambda psi."""

    def __init__(self, p: Problem, x, n_steps, n_rounds):
        self.p, self.pad, self.n_steps, self.n_rounds = p, slack(p, x), n_steps, n_rounds
        self.delta = np.zeros(len(x))
        self.best = value(p, self.delta)

    def node(self, bound, low, high, delta):
        """Bound a box of ranges: relax, descend, tighten, again; None if no minimiser lies in it."""
        for _ in range(max(self.n_rounds, 1) if self.n_steps else 0):
            found, a, c, delta = relax(self.p, low, high, delta, self.n_steps)
            bound = max(bound, found - self.pad)
            end, least = descend(self.p, delta, 1 + self.n_rounds)
            if least < self.best:
                self.best, self.delta = least, end
            if not self.n_rounds:
                break
            before = (high - low).sum()
            room = self.best - c + 2 * self.pad
            low, high = tighten(self.p, low, high, a, room, self.p.penalty, self.pad)
            if (low > high).any():
                return None
            if (high - low).sum() > (1 - SETTLED) * before:
                break
        return Node(bound, low, high, delta)

    def halves(self, parent: Node):
        """Both halves of the range whose chord lies furthest above sigma in the middle of its positive part.

        A list of nodes, those without a minimiser left out; None where no range can be halved.
        """
        p, (_, low, high, delta) = self.p, parent
        above, middle = height(low, high, p.q, p.rho)
        r = above.argmax()
        if not low[r] < middle[r] < high[r]:
            return None
        nodes, cut, this = [], middle[r], np.arange(len(low)) == r
        for sign, l, u in ((1, low, np.where(this, cut, high)), (-1, np.where(this, cut, low), high)):
            l, u = tighten(p, l, u, sign * p.V[r], sign * (cut - p.v[r]) + self.pad, 0.0, self.pad)
            nodes.append(None if (l > u).any() else self.node(parent.bound, l, u, delta))
        return [node for node in nodes if node]

    def run(self, n_nodes, tolerance):
        """Least bound, least value, its delta, nodes used; ends when the bounds are `tolerance` apart."""
        p = self.p
        reach = p.eps * dual(p.V, p.norm) + self.pad
        bound = sigma(p.z - p.eps * dual(p.W, p.norm), p.q, p.rho).sum() - sigma(p.v + reach, p.q, p.rho).sum()
        root, used, closed = self.node(bound - self.pad, p.v - reach, p.v + reach, self.delta), 1, np.inf
        pool = [root] if root else []
        while pool:
            lowest = min(range(len(pool)), key=lambda i: pool[i].bound)
            if pool[lowest].bound >= self.best - tolerance or used + 2 > n_nodes:
                closed = min(closed, pool[lowest].bound)
                break
            parent = pool.pop(lowest)
            nodes = self.halves(parent)
            if nodes is None:
                closed = min(closed, parent.bound)
            else:
                used += 2
                pool += nodes
        return min(closed, self.best - self.pad), self.best, self.delta, used


def search(W, X, rows, numbers, norm, q, rho, n_steps, n_rounds, n_nodes):
    """`NumpyEngine.search`."""
    B, d = len(rows), X.shape[1]
    lower, upper, delta, nodes = np.empty(B), np.empty(B), np.empty((B, d)), np.empty(B, np.int64)
    for i, (sample, run, label, target) in enumerate(rows):
        x, up, down = X[sample], W[run, label], W[run, target]
        eps, penalty, tolerance = numbers[i]
        p = Problem(up, down, up @ x, down @ x, eps, penalty, norm, q, rho)
        lower[i], upper[i], delta[i], nodes[i] = Search(p, x, n_steps, n_rounds).run(n_nodes, tolerance)
    return lower, upper, delta, nodes

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

from typing import NamedTuple

import numpy as np

from .formulas import L1, L2, LINF, sigma, sigma_prime
from .joint import FIRST_SWEEPS, SWEEPS, curvature, dense, diagonal, start

UNIT_ROUNDOFF = 2.0**-53
TINY = float(np.finfo(float).tiny)  # more than 2^51 underflows lose together
ROOT = 2.0**-537  # > sqrt of half the smallest number: what an l_2 norm may lose where squares underflow, per sqrt(d)
POOL_BYTES = 2**26  # of the boxes of one search at most
MULTIPLIERS = 2.0 ** np.arange(-3, 10)  # of |w| / |a|: the values of mu that tightening tries
SETTLED = 1e-2  # tightening goes on while it shrinks the ranges' sum by this share
NEGLIGIBLE = 1e-3  # ranges whose chord is less than this share of all heights above sigma are left as they are
TRIES, EXACT = 40, 1e-14  # of the search for a step length, and the share of the rate of change at which it ends
MIXTURES = 12  # tried by golden section
HALVINGS = 30  # of the threshold that projects to an l_1 ball
GOLDEN = (5**0.5 - 1) / 2


class PatchProblem(NamedTuple):
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
    """Ranges of the rival's preactivations, a lower bound of h where they hold, a good delta, and whether parabolas are
    tried there (kernels/joint.py)."""

    bound: float
    low: np.ndarray
    high: np.ndarray
    delta: np.ndarray
    bent: bool


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
    price = penalty * eps * eps  # in this order: eps^2 alone may underflow, and so may size^2
    return np.where(inner, size / 4 * (size / np.where(inner, penalty, 1)), eps * size - price)


def furthest(v, norm, eps, penalty):
    """A delta that attains S(v), v (d,)."""
    if norm == LINF:
        return eps * np.sign(v)
    size = dual(v, norm)
    if norm == L1:
        i = np.abs(v).argmax()
        return np.where((np.arange(len(v)) == i) & (size > penalty), eps * np.sign(v[i]), 0.0)
    return v * (1 / (2 * penalty) if size < 2 * penalty * eps else eps / size if size > 0 else 0.0)


def nearest(u, norm, eps, threshold):
    """The point of the ball next to u; for l_1 after soft thresholding by `threshold`, the step on lambda |delta|_1."""
    if norm == LINF:
        return np.clip(u, -eps, eps)
    if norm == L2:
        size = np.linalg.norm(u)
        return u * (eps / size if size > eps else 1.0)
    low, high = threshold, max(threshold, np.abs(u).max())
    if np.maximum(np.abs(u) - low, 0).sum() > eps:
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if np.maximum(np.abs(u) - middle, 0).sum() > eps else (low, middle)
        low = high
    return np.sign(u) * np.maximum(np.abs(u) - low, 0)


def psi(delta, norm):
    return np.abs(delta).sum() if norm == L1 else delta @ delta


# ------------------------------------------------------------------ the relaxation
def slack(p: PatchProblem, x):
    """Rounding, outward, of values of h and of preactivations: (pad_h, pad_z).

    With u = 2^-53, s_r = |w_r|_2 |x|_2 + eps |w_r|_* and sums over the neurons of both classes,
    pad_z = 16 (d + 2m + q + 16) u sum s_r, and pad_h has sigma'(|z_r| + eps |w_r|_*) s_r in place of s_r: sigma
    changes by its slope times what z changes.  lambda psi adds its own part to pad_h; what underflows is covered by
    multiples of the smallest normal number, and where it does so under a root by `lost`.
    """
    m, d = p.W.shape
    both, z = np.concatenate([p.W, p.V]), np.abs(np.concatenate([p.z, p.v]))
    reach, lengths, length = p.eps * dual(both, p.norm), np.linalg.norm(both, axis=1), np.linalg.norm(x)
    size, unit = lengths * length + reach, 16 * (d + 2 * m + p.q + 16) * UNIT_ROUNDOFF
    lost = ROOT * d * (2 * m * (length + p.eps) + (lengths + size).sum())
    pad_z = unit * size.sum() + lost + TINY
    price = p.penalty * p.eps * (1 if p.norm == L1 else p.eps)
    pad_h = unit * ((sigma_prime(z + reach + pad_z, p.q, p.rho) * size).sum() + price) + lost
    return pad_h + TINY * 2 * m * (1 + p.rho + size.sum()), pad_z


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


def value(p: PatchProblem, delta):
    """h(delta) + lambda psi(delta)."""
    up, down = p.z + p.W @ delta, p.v + p.V @ delta
    return sigma(up, p.q, p.rho).sum() - sigma(down, p.q, p.rho).sum() + p.penalty * psi(delta, p.norm)


def step_length(p: PatchProblem, t, dt, slope, delta, move, vertex, bend=0.0):
    """The step in [0, 1] along `move` that minimises sum_r sigma(t + step dt) - step slope + step^2 bend / 2 + lambda
    psi: where the rate of change passes 0, by the Illinois form of regula falsi with a halving every third time.

    psi of l_1 is replaced by the line between its values at both ends, which lies above it.
    """

    def rate(step):
        total = sigma_prime(t + step * dt, p.q, p.rho) @ dt - slope + bend * step
        if p.norm == L1:
            return total + p.penalty * (psi(vertex, L1) - psi(delta, L1))
        return total + 2 * p.penalty * ((delta + step * move) @ move)

    low, high, at_low, at_high = 0.0, 1.0, rate(0.0), rate(1.0)
    if at_high <= 0:
        return 1.0
    if at_low >= 0:
        return 0.0
    close = EXACT * (at_high - at_low)
    for turn in range(TRIES):
        step = (low + high) / 2 if turn % 3 == 2 else high - at_high * (high - low) / (at_high - at_low)
        here = rate(step)
        if here > 0:
            high, at_high, at_low = step, here, at_low / 2
        else:
            low, at_low, at_high = step, here, at_high / 2
        if abs(here) <= close:
            return step
    return low


def mix(p: PatchProblem, old, new):
    """The mixture of two minorants (a, c) with the largest bound c - S(-a), by golden section; with that bound."""

    def at(share):
        a, c = ((1 - share) * x + share * y for x, y in zip(old, new))
        return c - support(-a, p.norm, p.eps, p.penalty), a, c

    low, high = 0.0, 1.0
    left, right = at(1 - GOLDEN), at(GOLDEN)
    for _ in range(MIXTURES):
        if left[0] > right[0]:
            high, right = low + GOLDEN * (high - low), left
            left = at(high - GOLDEN * (high - low))
        else:
            low, left = high - GOLDEN * (high - low), right
            right = at(low + GOLDEN * (high - low))
    return max((at(0.0), at(1.0), left, right), key=lambda found: found[0])


def aim(p: PatchProblem, delta, g, before):
    """Where to go from delta, g the gradient without lambda psi: target, and what the next call gets as `before`.

    First the conditional gradient's vertex; then the projection of a gradient step of Barzilai and Borwein's length,
    where that is positive, which also settles inside faces of the ball.
    """
    smooth = g + 2 * p.penalty * delta * (p.norm == L2)
    if before is not None:
        moved, bent = delta - before[0], smooth - before[1]
        if moved @ bent > 0:
            length = moved @ moved / (moved @ bent)
            return nearest(delta - length * smooth, p.norm, p.eps, length * p.penalty), (delta, smooth)
    return furthest(-g, p.norm, p.eps, p.penalty), (delta, smooth)


def relax(p: PatchProblem, low, high, delta, n_steps, bent=None):
    """Minimise H from delta: best bound, its minorant (a, c), and the last delta; `bent`: gamma, s
    and M of a box that holds this one (kernels/joint.py).

    The minorant is a mixture of the tangents' at all points so far: where steps swing between two faces of the ball,
    the gradients at both points bound H together what neither does alone.
    """
    s, offset = chord(low, high, p.q, p.rho)
    gamma = np.zeros(len(low))
    if bent is not None:  # s was found for that box's gamma
        gamma = np.minimum(curvature(bent[0] > 0, low, high, p.q, p.rho), bent[0])
    curved = (gamma > 0).any()
    s, offset = (np.where(gamma > 0, 0, part) for part in (s, offset))
    b, constant = s @ p.V, -(s * p.v + offset).sum()
    best, minorant, before = -np.inf, None, None
    for step in range(n_steps):
        move = p.W @ delta
        t = p.z + move
        slopes = sigma_prime(t, p.q, p.rho)
        a = slopes @ p.W - b
        c = sigma(t, p.q, p.rho).sum() - slopes @ move + constant
        if curved:
            r = p.v + p.V @ delta
            a = a - 2 * (gamma * r) @ p.V + 2 * bent[1] * delta
            c += (gamma * r) @ (r - 2 * p.v) - bent[1] @ (delta * delta) - bent[2]
        best, *minorant = mix(p, minorant or (a, c), (a, c))
        gap = c + a @ delta + p.penalty * psi(delta, p.norm) - best
        if step + 1 == n_steps or gap <= 1e-12 * abs(c):
            break
        target, before = aim(p, delta, a, before)
        along = target - delta
        slope, bend = b @ along, 0.0
        if curved:
            turned = p.V @ along
            slope += 2 * (gamma * r) @ turned - 2 * (bent[1] * delta) @ along
            bend = 2 * max(bent[1] @ (along * along) - gamma @ (turned * turned), 0.0)
        delta = delta + step_length(p, t, p.W @ along, slope, delta, along, target, bend) * along
    return best, *minorant, delta


def descend(p: PatchProblem, delta, n_steps):
    """Local descent of h + lambda psi from delta, which never grows: the rival's sigma is taken as its tangent."""
    before = None
    for _ in range(n_steps):
        t = p.z + p.W @ delta
        b = sigma_prime(p.v + p.V @ delta, p.q, p.rho) @ p.V
        target, before = aim(p, delta, sigma_prime(t, p.q, p.rho) @ p.W - b, before)
        along = target - delta
        step = step_length(p, t, p.W @ along, b @ along, delta, along, target)
        if step == 0:
            break
        delta = delta + step * along
    return delta, value(p, delta)


def tighten(p: PatchProblem, low, high, a, room, penalty, pad_z):
    """Ranges of the rival's preactivations over {<a, delta> + penalty psi <= room}; low > high: the set is empty."""
    size = dual(a, p.norm)
    if not 0 < size < np.inf:
        return low, high
    above, _ = height(low, high, p.q, p.rho)
    worth = above >= NEGLIGIBLE * above.sum()
    room += 4 * (len(a) + 16) * UNIT_ROUNDOFF * (p.eps * size + abs(room)) + TINY  # what mu multiplies
    mu = dual(p.V, p.norm)[:, None] / size * MULTIPLIERS  # (m, .)
    known = (mu < np.inf) & (mu * penalty < np.inf)  # of infinite numbers nothing follows
    mu = np.where(known, mu, 0)
    reach = [
        support(sign * p.V[:, None] - mu[..., None] * a, p.norm, p.eps, mu * penalty) + mu * room for sign in (1, -1)
    ]
    reach = [np.where(known & ~np.isnan(one), one, np.inf).min(axis=1) for one in reach]
    return (
        np.where(worth, np.maximum(low, p.v - reach[1] - pad_z), low),
        np.where(worth, np.minimum(high, p.v + reach[0] + pad_z), high),
    )


# ------------------------------------------------------------------ branch and bound
def most_nodes(m, d):
    """Nodes of a search whose waiting boxes, half as many, fit into `POOL_BYTES`."""
    return max(2 * (POOL_BYTES // (8 * (2 * m + d + 3))) - 4, 64)


class Search:
    """Best-first search of one problem; `best`, `delta`: the least value found, of h + lambda psi.

    `dense`: the neurons that have parabolas, if any.
    """

    def __init__(self, p: PatchProblem, x, n_steps, n_rounds, joint=False):
        self.p, self.n_steps, self.n_rounds, self.x = p, n_steps, n_rounds, x
        self.pad_h, self.pad_z = slack(p, x)
        self.delta = np.zeros(len(x))
        self.best = value(p, self.delta)
        self.dense = dense(p.V, p.norm) & joint
        self.Y, self.sweeps = start(len(x)), FIRST_SWEEPS

    def bend(self, low, high):
        """Parabolas and their diagonal for a box, and what rounding of them adds to pad_h; None and 0: chords."""
        p = self.p
        gamma = curvature(self.dense, low, high, p.q, p.rho)
        if not gamma.any():
            return None, 0.0
        s, most, self.Y = diagonal(p.V, gamma, self.Y, self.sweeps, p.norm)
        self.sweeps, most = SWEEPS, most * p.eps * p.eps
        size = np.linalg.norm(p.V, axis=1) * np.linalg.norm(self.x) + p.eps * dual(p.V, p.norm)
        unit = 16 * (len(self.x) + 2 * len(low) + p.q + 16) * UNIT_ROUNDOFF
        pad = unit * (2 * gamma @ (size * size) + 8 * most)
        return ((gamma, s, most), pad) if pad < np.inf else (None, 0.0)

    def node(self, bound, low, high, delta, curved):
        """Bound a box of ranges: relax, descend, tighten, again; None if no minimiser lies in it.

        `curved`: with parabolas, unless chords bound more; then in no part of the box.
        """
        bent, more, chords = None, 0.0, -np.inf
        if curved and self.n_steps:
            bent, more = self.bend(low, high)
        if bent is not None:
            chords = relax(self.p, low, high, delta, self.n_steps)[0]
            bound = max(bound, chords - self.pad_h)
        for _ in range(max(self.n_rounds, 1) if self.n_steps else 0):
            found, a, c, delta = relax(self.p, low, high, delta, self.n_steps, bent)
            bound, pad = max(bound, found - self.pad_h - more), self.pad_h + more
            lost = bent is not None and not found - more > chords
            if lost:
                bent, more = None, 0.0
            curved = bent is not None
            end, least = descend(self.p, delta, 1 + self.n_rounds)
            if least < self.best:
                self.best, self.delta = least, end
            if not self.n_rounds:
                break
            before = (high - low).sum()
            room = self.best - c + 2 * pad
            low, high = tighten(self.p, low, high, a, room, self.p.penalty, self.pad_z)
            if (low > high).any():
                return None
            if not lost and (high - low).sum() > (1 - SETTLED) * before:
                break
        return Node(bound, low, high, delta, curved)

    def halves(self, parent: Node):
        """Both halves of the range whose chord lies furthest above sigma in the middle of its positive part.

        A list of nodes, those without a minimiser left out; None where no range can be halved.
        """
        p, (_, low, high, delta, curved) = self.p, parent
        above, middle = height(low, high, p.q, p.rho)
        r = above.argmax()
        if not low[r] < middle[r] < high[r]:
            return None
        nodes, cut, this = [], middle[r], np.arange(len(low)) == r
        for sign, l, u in ((1, low, np.where(this, cut, high)), (-1, np.where(this, cut, low), high)):
            l, u = tighten(p, l, u, sign * p.V[r], sign * (cut - p.v[r]) + self.pad_z, 0.0, self.pad_z)
            nodes.append(None if (l > u).any() else self.node(parent.bound, l, u, delta, curved))
        return [node for node in nodes if node]

    def run(self, n_nodes, tolerance):
        """Least bound, least value, its delta, nodes used; ends when the bounds are `tolerance` apart."""
        p = self.p
        if not self.pad_h < np.inf:  # of what overflows nothing is known
            return -np.inf, np.inf, self.delta, 1
        reach = p.eps * dual(p.V, p.norm) + self.pad_z
        bound = sigma(p.z - p.eps * dual(p.W, p.norm), p.q, p.rho).sum() - sigma(p.v + reach, p.q, p.rho).sum()
        bound -= self.pad_h
        root = self.node(bound, p.v - reach, p.v + reach, self.delta, self.dense.any())
        used, closed = 1, np.inf
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
        return min(closed, self.best - self.pad_h), self.best, self.delta, used


def search(W, X, rows, numbers, norm, q, rho, n_steps, n_rounds, n_nodes, joint=False):
    """`NumpyEngine.search`."""
    B, d = len(rows), X.shape[1]
    lower, upper, delta, nodes = np.empty(B), np.empty(B), np.empty((B, d)), np.empty(B, np.int64)
    for i, (sample, run, label, target) in enumerate(rows):
        x, up, down = X[sample], W[run, label], W[run, target]
        eps, penalty, tolerance = numbers[i]
        p = PatchProblem(up, down, up @ x, down @ x, eps, penalty, norm, q, rho)
        lower[i], upper[i], delta[i], nodes[i] = Search(p, x, n_steps, n_rounds, joint).run(n_nodes, tolerance)
    return lower, upper, delta, nodes

"""Upper bounds of a class's activations on a ball from the sums of its preactivations, in plain NumPy.

The problem.  On a patch x, how large can D(delta) = sum_r sigma(t_r), t_r = <w_r, x + delta>, be for |delta| <= eps?
Intervals let every neuron reach its own end of the ball, t_r <= <w_r, x> + eps |w_r|_*.  But one delta serves all.

Sums.  A set S of n neurons has sum_{r in S} t_r <= f(S) = <w_S, x> + eps |w_S|_*, w_S = sum_{r in S} w_r.  So the n
largest t_r add up to F_n = max_{|S| = n} f(S) at most, whatever delta is.

Majorisation (Tomic, Weyl).  Let G be the least concave sequence above 0, F_1, F_2, ...; its steps g_n = G_n - G_(n-1)
fall.  The n largest t_r add up to at most what the n largest g_n do, sigma is convex and never falls, hence

    D(delta) <= sum_n sigma(g_n).

The leader.  If one neuron l is far ahead, it loses much where others gain little, which sums without weights do not
see.  Weighted by kappa > 1 they do: for t_l >= a the n largest others add up to at most

    min(F_n, F'_n - kappa a),   F'_n = max_{|S| = n} kappa <w_l, x> + <w_S, x> + eps |kappa w_l + w_S|_*,

sets without l in both.  So D <= sigma(b) + sum_n sigma(g_n) for t_l in [a, b], with the steps g of that sequence.  The
range of t_l is halved where this is largest, `HALVINGS` times; the largest of the intervals' bounds is the cap.  l has
the largest |w_l|_*; kappa is the ratio of the two largest to the power q - 1, about that of the slopes of sigma where
both are at their ends.

Sets.  The 2^(m - 1) sets without the leader are listed once for a class: |w_S|_* depends on neither x nor eps.  Where
there are too many of them, neurons are dealt to blocks in falling order of |w_r|_*; the leader belongs to the first,
and the blocks' bounds add up.

A margin.  min_delta h >= min_delta sum_r sigma(label) - cap (docs/certificates.md, also on rounding).
"""

from typing import NamedTuple

import numpy as np

from .branch_and_bound import ROOT, TINY, UNIT_ROUNDOFF, dual
from .formulas import sigma

MOST_NEURONS, MOST_NUMBERS = 19, 2**26  # of a block beside its leader; that its sets are sums of
HALVINGS = 32  # of the leader's range
LARGEST_WEIGHT = 2.0**10  # of the leader


class Blocks(NamedTuple):
    """Of every class (..., m): its neurons by falling dual norm, the leader first, and the leader's weight (...)."""

    neurons: np.ndarray
    weight: np.ndarray
    ends: list[int]  # where blocks of the neurons behind the leader end


def blocks(sizes, d, q) -> Blocks:
    """The order of neurons and what belongs together, from their dual norms (..., m) and the shapes alone.

    The weight is a power of two, so that products with it are exact.
    """
    m = sizes.shape[-1]
    neurons = np.argsort(-sizes, axis=-1, kind="stable")
    first, second = (np.take_along_axis(sizes, neurons[..., i : i + 1], -1)[..., 0] for i in (0, min(1, m - 1)))
    with np.errstate(all="ignore"):
        weight = (q - 1) * np.round(np.log2(first / second))
    weight = 2.0 ** np.clip(np.where(np.isfinite(weight), weight, 0), 0, np.log2(LARGEST_WEIGHT))
    most = MOST_NEURONS
    while most > 1 and 2**most * d > MOST_NUMBERS:
        most -= 1
    count = max(-(-(m - 1) // most), 1)
    return Blocks(neurons, weight, [(m - 1) * (i + 1) // count for i in range(count)])


def subsets(V):
    """The sum of every subset of rows, (2^n, d): row s has the rows of V whose bit is set in s."""
    sums = np.zeros((1, V.shape[1]))
    for row in V:
        sums = np.concatenate([sums, sums + row])
    return sums


def largest_sums(V, v, start, at, eps, norm):
    """max over subsets S of n rows of at + v(S) + eps |start + V(S)|_*, n = 0..m; start (d,), at a number."""
    half = len(V) // 2
    few, many = subsets(V[:half]), subsets(V[half:])
    few_v, many_v = subsets(v[:half, None])[:, 0], subsets(v[half:, None])[:, 0]
    sizes = [np.bitwise_count(np.arange(len(part), dtype=np.uint64)).astype(int) for part in (few, many)]
    F = np.full(len(V) + 1, -np.inf)
    for row, offset, n in zip(few, few_v, sizes[0]):
        f = at + offset + many_v + eps * dual(start + row + many, norm)
        np.maximum.at(F, n + sizes[1], f)
    return F


def steps(F):
    """The falling steps of the least concave sequence above 0 = F_0, F_1, ..., F_n."""
    F, corners = np.concatenate([[0.0], F[1:]]), [0]
    for n in range(1, len(F)):
        while len(corners) > 1:
            before, last = corners[-2:]
            if (F[last] - F[before]) * (n - last) > (F[n] - F[last]) * (last - before):
                break
            corners.pop()
        corners.append(n)
    return np.diff(np.interp(np.arange(len(F)), corners, F[corners]))


def cap(V, x, eps, norm, q, rho, plan: Blocks):
    """The bound of sum_r sigma(<V_r, x + delta>) for one class V (m, d) and one patch."""
    m, d = V.shape
    order, weight = V[plan.neurons], plan.weight
    v, reach = order @ x, eps * dual(order, norm)
    factor = np.where(np.arange(m) == 0, weight, 1)
    lengths, length = np.linalg.norm(order, axis=1), np.linalg.norm(x)
    size = factor * (lengths * length + reach)
    lost = ROOT * d * (2 * m * (length + eps) * weight + (factor * lengths).sum() + size.sum())
    pad = 16 * (d + 2 * m + q + 16) * UNIT_ROUNDOFF * size.sum() + lost + TINY
    if not pad < np.inf:
        return np.inf
    F, led, total = np.zeros(1), np.array([weight * v[0] + weight * reach[0]]), 0.0
    for i, (begin, end) in enumerate(zip([0, *plan.ends], plan.ends)):
        here = slice(1 + begin, 1 + end)
        alone = largest_sums(order[here], v[here], np.zeros(d), 0.0, eps, norm)
        if i == 0:
            F, led = alone, largest_sums(order[here], v[here], weight * order[0], weight * v[0], eps, norm)
        else:
            total += sigma(steps(alone) + 2 * pad, q, rho).sum()

    def above(a, b):
        others = np.minimum(F, led - weight * a)
        return sigma(b, q, rho) + sigma(steps(others) + 2 * pad, q, rho).sum()

    low, high = v[0] - reach[0] - pad, v[0] + reach[0] + pad
    ranges, bounds = [(low, high)], [above(low, high)]
    for _ in range(HALVINGS):
        i = int(np.argmax(bounds))
        a, b = ranges[i]
        middle = (a + b) / 2
        if not a < middle < b:
            break
        ranges[i], bounds[i] = (a, middle), above(a, middle)
        ranges.append((middle, b))
        bounds.append(above(middle, b))
    total += max(bounds)
    total += 16 * (m + q + 8) * UNIT_ROUNDOFF * total + TINY * 2 * m * (1 + rho + size.sum())
    return total if total == total else np.inf


def caps(W, X, rows, eps, norm, q, rho):
    """`NumpyEngine.caps`."""
    found, sizes = np.empty(len(rows)), dual(W, norm)
    plan = blocks(sizes, W.shape[-1], q)
    for i, (patch, run, label) in enumerate(rows):
        mine = Blocks(plan.neurons[run, label], plan.weight[run, label], plan.ends)
        found[i] = cap(W[run, label], X[patch], eps[i], norm, q, rho, mine)
    return found

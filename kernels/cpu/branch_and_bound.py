"""The search of :mod:`advfeat.kernels.branch_and_bound` problem by problem, float64, for LLVM's own vectoriser."""

import math

import numpy as np

from ..branch_and_bound import ROOT, SETTLED, TINY, UNIT_ROUNDOFF
from ..formulas import L1, L2
from ..jit import jit, part
from .joint import joint_memory, majorise, offer
from .patch import (
    BENT,
    DOWN,
    DR,
    MINORANT,
    NONE,
    POINT,
    UP,
    CompiledPatchProblem,
    Pool,
    height,
    images,
    psi,
    sigma,
    sigma_prime,
)
from .relaxation import descend, relax, tighten
from .tiles import I0, NO


@part
def width(w, n):
    total = 0.0
    for r in range(w.low.shape[1]):
        total += w.high[n, r] - w.low[n, r]
    return total


@part
def bound_node(W, sizes, p, w, n, least, delta, row, length):
    """Relax, descend, tighten, again; whether node n can hold a minimiser, and the least value found so far."""
    bent, chords = w.bent[n] and p.n_steps > 0 and majorise(W, sizes, p, w, n, length), -math.inf
    if bent:
        for i in range(w.D.shape[1]):
            w.D[POINT, i] = w.delta[n, i]
        chords, _ = relax(W, p, w, n, NO)
        for i in range(w.D.shape[1]):  # which is nearer to the parabolas' minimum
            w.delta[n, i] = w.D[POINT, i]
        w.bound[n] = max(w.bound[n], chords - p.pad_h)
    for _ in range(max(p.n_rounds, 1) if p.n_steps > 0 else 0):
        pad = p.pad_h + w.joint.state[1] if bent else p.pad_h
        found, c = relax(W, p, w, n, bent)
        w.bound[n] = max(w.bound[n], found - pad)
        lost = bent and not found - w.joint.state[1] > chords
        bent = bent and not lost  # from here on, and in every part of the box
        w.bent[n] = bent
        least = descend(W, p, w, n, least, delta, row)
        if p.n_rounds == 0:
            break
        before = width(w, n)
        if not tighten(W, sizes, p, w, n, w.D, MINORANT, least - c + 2 * pad, p.penalty):
            return False, least
        if not lost and width(w, n) > (1 - SETTLED) * before:
            break
    return True, least


@part
def branch(W, sizes, p, w, n, free, least, delta, row, length):
    """Halve node n, which keeps the lower half; the upper half goes to slot `free`.

    Returns which halves live (bit 0: n, bit 1: free), or -1 where no range can be halved, and the least value.
    """
    m, d = w.Z.shape[1], w.D.shape[1]
    widest, top = -1, -math.inf
    for r in range(m):
        here = height(w.low[n, r], w.high[n, r], p.q, p.rho)
        if here > top:
            widest, top = r, here
    low, high = w.low[n, widest], w.high[n, widest]
    cut = (max(low, 0.0) + high) / 2
    if not low < cut < high:
        return -1, least
    w.bound[free], w.bent[free] = w.bound[n], w.bent[n]
    for r in range(m):
        w.low[free, r], w.high[free, r] = w.low[n, r], w.high[n, r]
    for i in range(d):
        w.delta[free, i] = w.delta[n, i]
    w.high[n, widest], w.low[free, widest] = cut, cut
    live = 0
    for half in range(2):
        slot, sign = free if half else n, 1.0 - 2.0 * half
        for i in range(d):
            w.D[MINORANT, i] = sign * W[p.down, widest, i]
        if tighten(W, sizes, p, w, slot, w.D, MINORANT, sign * (cut - w.Z[DOWN, widest]) + p.pad_z, 0.0):
            alive, least = bound_node(W, sizes, p, w, slot, least, delta, row, length)
            live += (1 + half) * alive
    return live, least


@part
def slack(Z, sizes, up, down, length, d, eps, price, q, rho):
    """`search.slack` from the norms of weights (sizes) and input (length); `price` bounds lambda psi."""
    pad_h, pad_z, m = price, 0.0, Z.shape[1]
    unit, lost = 16 * (d + 2 * m + q + 16) * UNIT_ROUNDOFF, 2 * m * (length + eps)
    for r in range(m):
        lost += sizes[0, up, r] + sizes[0, down, r]
        pad_z += (sizes[0, up, r] + sizes[0, down, r]) * length + eps * (sizes[1, up, r] + sizes[1, down, r])
    tiny, lost = TINY * 2 * m * (1 + rho + pad_z), ROOT * d * (lost + pad_z)
    pad_z = unit * pad_z + lost + TINY
    for i, row in ((UP, up), (DOWN, down)):
        for r in range(m):
            reach = eps * sizes[1, row, r]
            slope = sigma_prime(abs(Z[i, r]) + reach + pad_z, q, rho)
            pad_h += slope * (sizes[0, row, r] * length + reach)
    return unit * pad_h + lost + tiny, pad_z


@part
def play(tree, bound, n):
    """Slot n's bound has changed: who wins from there up.  tree[1] is the first slot of the lowest bound."""
    i = (n + len(tree) // 2) // 2
    while i > 0:
        left, right = tree[2 * i], tree[2 * i + 1]
        tree[i] = right if bound[right] < bound[left] else left
        i //= 2


@part
def explore(W, sizes, p, w, tree, alive, least, delta, row, length, tolerance, n_nodes):
    """Best-first search from the box in slot 0, if it is `alive`: the bound, nodes, the least value, slots used."""
    m, d = w.low.shape[1], w.delta.shape[1]
    play(tree, w.bound, I0)
    count, used, closed, slots = int(alive), 1, math.inf, 1
    while count > 0:
        n = tree[1]
        if w.bound[n] >= least - tolerance or used + 2 > n_nodes:
            closed = min(closed, w.bound[n])
            break
        parent = w.bound[n]
        live, least = branch(W, sizes, p, w, n, count, least, delta, row, length)
        if live < 0:
            closed, used, live = min(closed, parent), used - 2, 0
        used += 2
        slots = max(slots, count + 1)
        if live == 3:
            play(tree, w.bound, n)
            play(tree, w.bound, count)
            count += 1
            continue
        source = count if live == 2 else count - 1  # a dead node's slot is filled again
        if live != 1:
            w.bound[n], w.bent[n] = w.bound[source], w.bent[source]
            for r in range(m):
                w.low[n, r], w.high[n, r] = w.low[source, r], w.high[source, r]
            for i in range(d):
                w.delta[n, i] = w.delta[source, i]
        w.bound[count] = math.inf
        if live == 0:
            count -= 1
            w.bound[count] = math.inf
        play(tree, w.bound, n)
        play(tree, w.bound, source)
    return closed, used, least, slots


@part
def memory(m, d, n_nodes, joint):
    """A thread's boxes and the tournament among them."""
    n, leaves = n_nodes // 2 + 2, 1
    while leaves < n:
        leaves *= 2
    boxes, tree = np.empty((2, n, m)), np.zeros(2 * leaves, np.int64)
    rooms = np.empty((n, d)), np.empty((DR + 1, m)), np.empty((BENT + 1, d))
    for i in range(leaves):
        tree[leaves + i] = i
    for i in range(leaves - 1, 0, -1):  # of equals the first wins
        tree[i] = tree[2 * i]
    bound, bent = np.full(leaves, math.inf), np.zeros(leaves, np.bool_)
    return Pool(bound, bent, boxes[0], boxes[1], *rooms, joint_memory(m, d, joint)), tree


@jit
def search(
    lo, hi, _, W, sizes, X, order, rows, numbers, norm, q, rho, n_steps, n_rounds, n_nodes, joint, Y, lower,
    upper, delta, nodes,
):  # fmt: skip
    """Problems order[lo:hi]; W (R k, m, d), sizes (2, R k, m) its l_2 and dual norms; rows (B, 3): patch, row of W of
    the label, of the rival; numbers (B, 3): eps, penalty, tolerance; Y (d, columns) is where `joint` begins."""
    m, d = W.shape[1], W.shape[2]
    w, tree = memory(m, d, n_nodes, joint)
    slots = 1
    for at in range(lo, hi):
        row = order[at]
        sample, eps = rows[row, 0], numbers[row, 0]
        up, down = rows[row, 1], rows[row, 2]
        images(w.Z, UP, NONE, W, up, X, sample)
        images(w.Z, DOWN, NONE, W, down, X, sample)
        length, price = math.sqrt(psi(X, sample, L2)), numbers[row, 1] * eps * (1.0 if norm == L1 else eps)
        pad_h, pad_z = slack(w.Z, sizes, up, down, length, d, eps, price, q, rho)
        for i in range(d):
            w.delta[0, i], delta[row, i] = 0.0, 0.0
        if not pad_h < math.inf:  # of what overflows nothing is known
            lower[row], upper[row], nodes[row] = -math.inf, math.inf, 1
            continue
        for i in range(slots):
            w.bound[i] = math.inf
        p = CompiledPatchProblem(up, down, eps, numbers[row, 1], norm, q, rho, pad_h, pad_z, n_steps, n_rounds)
        w.bound[0], least = -pad_h, 0.0
        for r in range(m):
            reach = eps * sizes[1, down, r] + pad_z
            w.low[0, r], w.high[0, r] = w.Z[DOWN, r] - reach, w.Z[DOWN, r] + reach
            w.bound[0] += sigma(w.Z[UP, r] - eps * sizes[1, up, r], q, rho) - sigma(w.high[0, r], q, rho)
            least += sigma(w.Z[UP, r], q, rho) - sigma(w.Z[DOWN, r], q, rho)
        w.bent[0] = joint and offer(W, down, w.joint, Y)
        alive, least = bound_node(W, sizes, p, w, I0, least, delta, row, length)
        options = length, numbers[row, 2], n_nodes
        closed, used, least, slots = explore(W, sizes, p, w, tree, alive, least, delta, row, *options)
        lower[row], upper[row], nodes[row] = min(closed, least - p.pad_h), least, used

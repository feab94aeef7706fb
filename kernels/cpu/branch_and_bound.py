"""The search of :mod:`advfeat.kernels.branch_and_bound` problem by problem, float64, for LLVM's own vectoriser."""

import math

import numpy as np

from ..branch_and_bound import (
    EXACT,
    GOLDEN,
    MIXTURES,
    MULTIPLIERS,
    NEGLIGIBLE,
    ROOT,
    SETTLED,
    TINY,
    TRIES,
    UNIT_ROUNDOFF,
)
from ..formulas import L1, L2, LINF
from ..jit import jit, part
from .patch import (
    BEFORE,
    CHORD,
    DOWN,
    DT,
    GRADIENT,
    MINORANT,
    MOVE,
    POINT,
    REORDER,
    REST,
    RIVAL,
    SLOPE,
    UP,
    VERTEX,
    CompiledPatchProblem,
    Pool,
    T,
    aim,
    chord,
    dot,
    dual,
    dual_shifted,
    height,
    images,
    psi,
    pull,
    sigma,
    sigma_prime,
    supported,
)
from .tiles import I0

N_MULTIPLIERS, FIRST_MULTIPLIER = len(MULTIPLIERS), float(MULTIPLIERS[0])


# ------------------------------------------------------------------ relaxation
@part
def rate(w, p, step, slope, bend):
    total = bend * step - slope
    for r in range(w.Z.shape[1]):
        total += sigma_prime(w.Z[T, r] + step * w.Z[DT, r], p.q, p.rho) * w.Z[DT, r]
    return total


@part
def step_length(w, p, slope, bend):
    low, high, at_low, at_high = 0.0, 1.0, rate(w, p, 0.0, slope, bend), rate(w, p, 1.0, slope, bend)
    if at_high <= 0.0:
        return 1.0
    if at_low >= 0.0:
        return 0.0
    close = EXACT * (at_high - at_low)
    for turn in range(TRIES):
        step = (low + high) / 2 if turn % 3 == 2 else high - at_high * (high - low) / (at_high - at_low)
        here = rate(w, p, step, slope, bend)
        if here > 0.0:
            high, at_high, at_low = step, here, at_low / 2
        else:
            low, at_low, at_high = step, here, at_high / 2
        if abs(here) <= close:
            return step
    return low


@part(fastmath=REORDER)
def dual_mixed(D, share, norm):
    """The dual norm of (1 - share) D[MINORANT] + share D[GRADIENT]."""
    total, rest = 0.0, 1 - share
    if norm == LINF:
        for c in range(D.shape[1]):
            total += abs(rest * D[MINORANT, c] + share * D[GRADIENT, c])
    elif norm == L2:
        for c in range(D.shape[1]):
            x = rest * D[MINORANT, c] + share * D[GRADIENT, c]
            total += x * x
        total = math.sqrt(total)
    else:
        for c in range(D.shape[1]):
            total = max(total, abs(rest * D[MINORANT, c] + share * D[GRADIENT, c]))
    return total


@part
def mix(D, p, old, new, bound):
    """D[MINORANT] <- its best mixture with D[GRADIENT]; their offsets are `old`, `new`, the old bound `bound`."""
    best, chosen, low, high = bound, 0.0, 0.0, 1.0
    left = right = -math.inf
    for step in range(MIXTURES + 3):
        from_left = step == 1 or (step > 2 and left > right)
        if step > 2:  # the bound is concave in the share
            if left > right:
                high, right = low + GOLDEN * (high - low), left
            else:
                low, left = high - GOLDEN * (high - low), right
        share = high - GOLDEN * (high - low) if from_left else low + GOLDEN * (high - low)
        share = 1.0 if step == 0 else share
        c = (1 - share) * old + share * new
        here = c - supported(dual_mixed(D, share, p.norm), p.norm, p.eps, p.penalty)
        if step > 0 and from_left:
            left = here
        elif step > 0:
            right = here
        if here > best:
            best, chosen = here, share
    for c in range(D.shape[1]):
        D[MINORANT, c] = (1 - chosen) * D[MINORANT, c] + chosen * D[GRADIENT, c]
    return best, (1 - chosen) * old + chosen * new


@part
def advance(W, p, w, D, i):
    """D[i] moves towards D[VERTEX] by the step that minimises label - tangent of the rival + lambda psi; the step."""
    d = D.shape[1]
    if p.norm == L1:
        slope, bend = p.penalty * (psi(D, i, L1) - psi(w.D, VERTEX, L1)), 0.0
    for c in range(d):
        w.D[MOVE, c] = w.D[VERTEX, c] - D[i, c]
    if p.norm != L1:
        slope, bend = -2 * p.penalty * dot(D, i, w.D, MOVE), 2 * p.penalty * psi(w.D, MOVE, L2)
    slope += dot(w.D, RIVAL, w.D, MOVE)
    images(w.Z, DT, -1, W, p.up, w.D, MOVE)
    step = step_length(w, p, slope, bend)
    if step > 0.0:
        for c in range(d):
            D[i, c] += step * w.D[MOVE, c]
    return step


@part
def relax(W, p, w, n):
    """Conditional gradient on node n's relaxation: its best bound and the offset of that minorant, a in D[MINORANT]."""
    m, d = w.Z.shape[1], w.D.shape[1]
    constant = 0.0
    for r in range(m):
        slope, offset = chord(w.low[n, r], w.high[n, r], p.q, p.rho)
        w.Z[CHORD, r] = slope
        constant -= slope * w.Z[DOWN, r] + offset
    pull(w.D, RIVAL, W, p.down, w.Z, CHORD)
    best, best_c = -math.inf, -math.inf
    for step in range(p.n_steps):
        images(w.Z, T, UP, W, p.up, w.delta, n)
        c = constant
        for r in range(m):
            t = w.Z[T, r]
            g = sigma_prime(t, p.q, p.rho)
            w.Z[SLOPE, r] = g
            c += sigma(t, p.q, p.rho) - g * (t - w.Z[UP, r])
        pull(w.D, GRADIENT, W, p.up, w.Z, SLOPE)
        for i in range(d):
            w.D[GRADIENT, i] -= w.D[RIVAL, i]
        size = dual(w.D, GRADIENT, p.norm)
        if step == 0:
            best, best_c = c - supported(size, p.norm, p.eps, p.penalty), c
            for i in range(d):
                w.D[MINORANT, i] = w.D[GRADIENT, i]
        else:
            best, best_c = mix(w.D, p, best_c, c, best)
        gap = c + dot(w.D, GRADIENT, w.delta, n) + p.penalty * psi(w.delta, n, p.norm) - best
        if step + 1 == p.n_steps or gap <= 1e-12 * abs(c):
            break
        aim(w.D, p, w.delta, n, step == 0)
        advance(W, p, w, w.delta, n)
    return best, best_c


@part
def descend(W, p, w, n, least, delta, row):
    """`search.descend` from node n's delta; a better end goes to delta[row]; returns the least value."""
    m, d = w.Z.shape[1], w.D.shape[1]
    for i in range(d):
        w.D[POINT, i] = w.delta[n, i]
    for step in range(1 + p.n_rounds):
        images(w.Z, T, UP, W, p.up, w.D, POINT)
        images(w.Z, REST, DOWN, W, p.down, w.D, POINT)
        for r in range(m):
            w.Z[SLOPE, r] = sigma_prime(w.Z[T, r], p.q, p.rho)
            w.Z[REST, r] = sigma_prime(w.Z[REST, r], p.q, p.rho)
        pull(w.D, GRADIENT, W, p.up, w.Z, SLOPE)
        pull(w.D, RIVAL, W, p.down, w.Z, REST)
        for i in range(d):
            w.D[GRADIENT, i] -= w.D[RIVAL, i]
        aim(w.D, p, w.D, POINT, step == 0)
        if advance(W, p, w, w.D, POINT) == 0.0:
            break
    images(w.Z, T, UP, W, p.up, w.D, POINT)
    images(w.Z, REST, DOWN, W, p.down, w.D, POINT)
    end = p.penalty * psi(w.D, POINT, p.norm)
    for r in range(m):
        end += sigma(w.Z[T, r], p.q, p.rho) - sigma(w.Z[REST, r], p.q, p.rho)
    if end < least:
        for i in range(d):
            delta[row, i] = w.D[POINT, i]
        return end
    return least


@part
def tighten(W, sizes, p, w, n, D, i, room, penalty):
    """Shrink node n's ranges over {<D[i], delta> + penalty psi <= room}; False: the set is empty."""
    size = dual(D, i, p.norm)
    if not 0.0 < size < math.inf:
        return True
    m, total = w.Z.shape[1], 0.0
    blur = 4 * (D.shape[1] + 16) * UNIT_ROUNDOFF * (p.eps * size + abs(room)) + TINY
    for r in range(m):
        w.Z[REST, r] = height(w.low[n, r], w.high[n, r], p.q, p.rho)
        total += w.Z[REST, r]
    for r in range(m):
        if w.Z[REST, r] < NEGLIGIBLE * total:
            continue
        unit = sizes[1, p.down, r] / size
        for side in range(2):
            sign, reach, mu = 1.0 - 2.0 * side, math.inf, unit * FIRST_MULTIPLIER
            for _ in range(N_MULTIPLIERS):
                if not (mu < math.inf and mu * penalty < math.inf):  # of infinite numbers nothing follows
                    break
                length = dual_shifted(W, p.down, r, sign, mu, D, i, p.norm)
                here = supported(length, p.norm, p.eps, mu * penalty) + mu * (room + blur)
                if not here <= reach:  # convex in mu
                    break
                reach, mu = here, 2.0 * mu
            if side == 0:
                w.high[n, r] = min(w.high[n, r], w.Z[DOWN, r] + reach + p.pad_z)
            else:
                w.low[n, r] = max(w.low[n, r], w.Z[DOWN, r] - reach - p.pad_z)
        if w.low[n, r] > w.high[n, r]:
            return False
    return True


# ------------------------------------------------------------------ branch and bound
@part
def width(w, n):
    total = 0.0
    for r in range(w.low.shape[1]):
        total += w.high[n, r] - w.low[n, r]
    return total


@part
def bound_node(W, sizes, p, w, n, least, delta, row):
    """Relax, descend, tighten, again; whether node n can hold a minimiser, and the least value found so far."""
    for _ in range(max(p.n_rounds, 1) if p.n_steps > 0 else 0):
        found, c = relax(W, p, w, n)
        w.bound[n] = max(w.bound[n], found - p.pad_h)
        least = descend(W, p, w, n, least, delta, row)
        if p.n_rounds == 0:
            break
        before = width(w, n)
        if not tighten(W, sizes, p, w, n, w.D, MINORANT, least - c + 2 * p.pad_h, p.penalty):
            return False, least
        if width(w, n) > (1 - SETTLED) * before:
            break
    return True, least


@part
def branch(W, sizes, p, w, n, free, least, delta, row):
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
    w.bound[free] = w.bound[n]
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
            alive, least = bound_node(W, sizes, p, w, slot, least, delta, row)
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


@jit
def search(
    lo, hi, _, W, sizes, X, order, rows, numbers, norm, q, rho, n_steps, n_rounds, n_nodes, lower, upper, delta, nodes
):
    """Problems order[lo:hi]; W (R k, m, d), sizes (2, R k, m) its l_2 and dual norms; rows (B, 3): patch, row of W of
    the label, of the rival; numbers (B, 3): eps, penalty, tolerance."""
    m, d, n = W.shape[1], W.shape[2], n_nodes // 2 + 2
    boxes = np.empty((2, n, m))
    w = Pool(np.empty(n), boxes[0], boxes[1], np.empty((n, d)), np.empty((REST + 1, m)), np.empty((BEFORE + 1, d)))
    for at in range(lo, hi):
        row = order[at]
        sample, eps = rows[row, 0], numbers[row, 0]
        up, down = rows[row, 1], rows[row, 2]
        images(w.Z, UP, -1, W, up, X, sample)
        images(w.Z, DOWN, -1, W, down, X, sample)
        length, price = math.sqrt(psi(X, sample, L2)), numbers[row, 1] * eps * (1.0 if norm == L1 else eps)
        pad_h, pad_z = slack(w.Z, sizes, up, down, length, d, eps, price, q, rho)
        for i in range(d):
            w.delta[0, i], delta[row, i] = 0.0, 0.0
        if not pad_h < math.inf:  # of what overflows nothing is known
            lower[row], upper[row], nodes[row] = -math.inf, math.inf, 1
            continue
        p = CompiledPatchProblem(up, down, eps, numbers[row, 1], norm, q, rho, pad_h, pad_z, n_steps, n_rounds)
        w.bound[0], least = -pad_h, 0.0
        for r in range(m):
            reach = eps * sizes[1, down, r] + pad_z
            w.low[0, r], w.high[0, r] = w.Z[DOWN, r] - reach, w.Z[DOWN, r] + reach
            w.bound[0] += sigma(w.Z[UP, r] - eps * sizes[1, up, r], q, rho) - sigma(w.high[0, r], q, rho)
            least += sigma(w.Z[UP, r], q, rho) - sigma(w.Z[DOWN, r], q, rho)
        alive, least = bound_node(W, sizes, p, w, I0, least, delta, row)
        count, used, closed = int(alive), 1, math.inf
        while count > 0:
            n = I0
            for i in range(1, count):
                if w.bound[i] < w.bound[n]:
                    n = i
            if w.bound[n] >= least - numbers[row, 2] or used + 2 > n_nodes:
                closed = min(closed, w.bound[n])
                break
            parent = w.bound[n]
            live, least = branch(W, sizes, p, w, n, count, least, delta, row)
            if live < 0:
                closed, used, live = min(closed, parent), used - 2, 0
            used += 2
            if live == 3:
                count += 1
                continue
            source = count if live == 2 else count - 1  # a dead node's slot is filled again
            if live != 1:
                w.bound[n] = w.bound[source]
                for r in range(m):
                    w.low[n, r], w.high[n, r] = w.low[source, r], w.high[source, r]
                for i in range(d):
                    w.delta[n, i] = w.delta[source, i]
            count -= live == 0
        lower[row], upper[row], nodes[row] = min(closed, least - p.pad_h), least, used

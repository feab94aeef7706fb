"""A box of :mod:`advfeat.kernels.branch_and_bound`: its relaxation, descent from there, tightening of its ranges."""

import math

from ..branch_and_bound import EXACT, GOLDEN, MIXTURES, MULTIPLIERS, NEGLIGIBLE, TINY, TRIES, UNIT_ROUNDOFF
from ..formulas import L1, L2, LINF
from ..jit import part
from .joint import bent_gradient, curvature
from .patch import (
    CHORD,
    DOWN,
    DR,
    DT,
    GRADIENT,
    MINORANT,
    MOVE,
    NONE,
    PARABOLA,
    POINT,
    REORDER,
    REST,
    RIVAL,
    SLOPE,
    UP,
    VERTEX,
    R,
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
from .tiles import NO

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
def advance(W, p, w, D, i, curved):
    """D[i] moves towards D[VERTEX] by the step that minimises label - tangent of the rival + lambda psi; the step.

    `curved`: parabolas and their diagonal as well, Z[R] the rival's preactivations at D[i].
    """
    d = D.shape[1]
    if p.norm == L1:
        slope, bend = p.penalty * (psi(D, i, L1) - psi(w.D, VERTEX, L1)), 0.0
    for c in range(d):
        w.D[MOVE, c] = w.D[VERTEX, c] - D[i, c]
    if p.norm != L1:
        slope, bend = -2 * p.penalty * dot(D, i, w.D, MOVE), 2 * p.penalty * psi(w.D, MOVE, L2)
    slope += dot(w.D, RIVAL, w.D, MOVE)
    if curved:
        images(w.Z, DR, NONE, W, p.down, w.D, MOVE)
        more = 0.0
        for r in range(w.Z.shape[1]):
            slope += 2 * w.Z[PARABOLA, r] * w.Z[R, r] * w.Z[DR, r]
            more -= w.Z[PARABOLA, r] * w.Z[DR, r] * w.Z[DR, r]
        for c in range(d):
            slope -= 2 * w.joint.s[c] * D[i, c] * w.D[MOVE, c]
            more += w.joint.s[c] * w.D[MOVE, c] * w.D[MOVE, c]
        bend += 2 * max(more, 0.0)
    images(w.Z, DT, NONE, W, p.up, w.D, MOVE)
    step = step_length(w, p, slope, bend)
    if step > 0.0:
        for c in range(d):
            D[i, c] += step * w.D[MOVE, c]
    return step


@part
def relax(W, p, w, n, bent):
    """Conditional gradient on node n's relaxation: its best bound and the offset of that minorant, a in D[MINORANT]."""
    m, d = w.Z.shape[1], w.D.shape[1]
    constant, curved = 0.0, False
    for r in range(m):
        slope, offset = chord(w.low[n, r], w.high[n, r], p.q, p.rho)
        if bent:
            here = curvature(w.Z[PARABOLA, r], w.low[n, r], w.high[n, r], p.q, p.rho)
            w.Z[PARABOLA, r] = min(here, w.Z[PARABOLA, r])  # s was found for that one
            if w.Z[PARABOLA, r] > 0.0:
                slope, offset, curved = 0.0, 0.0, True
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
        if curved:
            c += bent_gradient(W, p, w, n)
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
        advance(W, p, w, w.delta, n, curved)
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
        if advance(W, p, w, w.D, POINT, NO) == 0.0:
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

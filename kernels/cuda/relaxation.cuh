// A box of search.cu: relaxation, descent, tightening (kernels/branch_and_bound.py), by one warp.
#pragma once
#include "search.cuh"

// ------------------------------------------------------------------ relaxation
// sum_r sigma'(t_r + step dt_r) dt_r + bend step - slope
__device__ APART double rate(const Patch &p, double step, double slope, double bend) {
    const double *t = p.z(AT), *dt = p.z(ALONG);
    double total = 0;
    each(p.m, [&](int r) { total += p.sigma_prime(t[r] + step * dt[r]) * dt[r]; });
    return sum_over_lanes(total) + (bend * step - slope);
}

__device__ inline double step_length(const Patch &p, double slope, double bend) {
    double low = 0, high = 1, at_low = rate(p, 0.0, slope, bend), at_high = rate(p, 1.0, slope, bend);
    if (at_high <= 0) return 1.0;
    if (at_low >= 0) return 0.0;
    const double close = EXACT * (at_high - at_low);
    for (int turn = 0; turn < TRIES; ++turn) {
        const double step = turn % 3 == 2 ? (low + high) / 2 : high - at_high * (high - low) / (at_high - at_low);
        const double here = rate(p, step, slope, bend);
        if (here > 0) {
            high = step;
            at_high = here;
            at_low /= 2;
        } else {
            low = step;
            at_low = here;
            at_high /= 2;
        }
        if (fabs(here) <= close) return step;
    }
    return low;
}

// MINORANT <- its best mixture with GRADIENT, whose dual norm is `size` and whose offset is `fresh`; `best`, `offset`
// are MINORANT's bound and offset.
__device__ inline void mix(const Patch &p, double fresh, double size, double &best, double &offset) {
    double *a = p.v(MINORANT);
    const double *g = p.v(GRADIENT), alone = fresh - p.supported(size, p.penalty), old = offset;
    const int norm = p.norm, d = p.d;
    double chosen = 0, low = 0, high = 1, left = -infinity(), right = -infinity();
    if (alone > best) {
        best = alone;
        chosen = 1;
    }
    for (int turn = 0; turn < MIXTURES + 2; ++turn) {
        const bool from_left = turn == 0 || (turn > 1 && left > right);
        if (turn > 1 && from_left) {  // the bound is concave in the share
            high = low + GOLDEN * (high - low);
            right = left;
        } else if (turn > 1) {
            low = high - GOLDEN * (high - low);
            left = right;
        }
        const double share = from_left ? high - GOLDEN * (high - low) : low + GOLDEN * (high - low), rest = 1 - share;
        const double length = dual_of(norm, d, [=](int c) { return rest * a[c] + share * g[c]; });
        const double here = rest * old + share * fresh - p.supported(length, p.penalty);
        (from_left ? left : right) = here;
        if (here > best) {
            best = here;
            chosen = share;
        }
    }
    each(p.d, [&](int c) { a[c] = (1 - chosen) * a[c] + chosen * g[c]; });
    offset = (1 - chosen) * old + chosen * fresh;
}

// `point` moves towards VERTEX, and AT with it, by the step that minimises label - tangent of the rival + lambda psi;
// the step.  AT is not computed anew: a tangent may touch sigma anywhere, so no bound rests on AT's own rounding.
__device__ APART double advance(const Patch &p, double *point) {
    double *move = p.v(MOVE);
    const double *vertex = p.v(VERTEX), *rival = p.v(RIVAL);
    double sums[3] = {0, 0, 0};
    each(p.d, [&](int c) {
        move[c] = vertex[c] - point[c];
        sums[0] += rival[c] * move[c];
        sums[1] += p.norm == L1 ? fabs(point[c]) - fabs(vertex[c]) : -2 * point[c] * move[c];
        sums[2] += p.norm == L1 ? 0.0 : 2 * move[c] * move[c];
    });
    sum_over_lanes(sums);
    images(p, p.z(ALONG), nullptr, p.up, move);
    const double step = step_length(p, sums[0] + p.penalty * sums[1], p.penalty * sums[2]);
    if (step > 0) {
        each(p.d, [&](int c) { point[c] += step * move[c]; });
        each(p.m, [&](int r) { p.z(AT)[r] += step * p.z(ALONG)[r]; });
    }
    return step;
}

// Conditional gradient on the relaxation, from DELTA: the best bound, and the offset of that minorant, a in MINORANT.
__device__ inline void relax(const Patch &p, double &best, double &offset) {
    double *delta = p.v(DELTA), *g = p.v(GRADIENT);
    double constant = 0;
    each(p.m, [&](int r) {
        const Line line = chord(p, p.z(LOW)[r], p.z(HIGH)[r]);
        p.z(CHORD)[r] = line.slope;
        constant -= line.slope * p.z(DOWN)[r] + line.offset;
    });
    constant = sum_over_lanes(constant);
    pull(p, p.v(RIVAL), nullptr, p.down, p.z(CHORD));
    best = offset = -infinity();
    images(p, p.z(AT), p.z(UP), p.up, delta);
    for (int step = 0; step < p.n_steps; ++step) {
        double c = 0;
        each(p.m, [&](int r) {
            const double t = p.z(AT)[r], slope = p.sigma_prime(t);
            p.z(SLOPE)[r] = slope;
            c += p.sigma(t) - slope * (t - p.z(UP)[r]);
        });
        c = constant + sum_over_lanes(c);
        pull(p, g, p.v(RIVAL), p.up, p.z(SLOPE));
        const double size = dual(g, p.norm, p.d);
        if (step == 0) {
            best = c - p.supported(size, p.penalty);
            offset = c;
            each(p.d, [&](int i) { p.v(MINORANT)[i] = g[i]; });
        } else {
            mix(p, c, size, best, offset);
        }
        double sums[2] = {0, 0};
        each(p.d, [&](int i) {
            sums[0] += g[i] * delta[i];
            sums[1] += psi_of(p, delta[i]);
        });
        sum_over_lanes(sums);
        const double gap = c + sums[0] + p.penalty * sums[1] - best;
        if (step + 1 == p.n_steps || gap <= 1e-12 * fabs(c)) return;
        aim(p, delta, size, step == 0);
        advance(p, delta);
    }
}

// Local descent of h + lambda psi from DELTA; a better end goes to `found`, its value to `least`.
__device__ inline void descend(const Patch &p, double &least, double *found) {
    double *point = p.v(POINT);
    each(p.d, [&](int c) { point[c] = p.v(DELTA)[c]; });
    images(p, p.z(AT), p.z(UP), p.up, point);
    images(p, p.z(REST), p.z(DOWN), p.down, point);
    for (int step = 0; step < 1 + p.n_rounds; ++step) {
        each(p.m, [&](int r) {
            p.z(SLOPE)[r] = p.sigma_prime(p.z(AT)[r]);
            p.z(CHORD)[r] = p.sigma_prime(p.z(REST)[r]);
        });
        pull(p, p.v(RIVAL), nullptr, p.down, p.z(CHORD));
        pull(p, p.v(GRADIENT), p.v(RIVAL), p.up, p.z(SLOPE));
        aim(p, point, dual(p.v(GRADIENT), p.norm, p.d), step == 0);
        if (advance(p, point) == 0) break;
        images(p, p.z(REST), p.z(DOWN), p.down, point);
    }
    images(p, p.z(AT), p.z(UP), p.up, point);  // a value, unlike a tangent, must be that of its point
    double sums[2] = {0, 0};
    each(p.m, [&](int r) { sums[0] += p.sigma(p.z(AT)[r]) - p.sigma(p.z(REST)[r]); });
    each(p.d, [&](int c) { sums[1] += psi_of(p, point[c]); });
    sum_over_lanes(sums);
    const double end = p.penalty * sums[1] + sums[0];
    if (!(end < least)) return;
    least = end;
    each(p.d, [&](int c) { found[c] = point[c]; });
}

// ------------------------------------------------------------------ tightening
// The sum (for l_1 the maximum) behind the dual norm of w - mu a in lane i, of w + mu a in lane 16 + i, where
// mu = unit 2^(i - 3), i < MULTIPLIERS.
template <int NORM> __device__ double shifted(const double *w, const double *a, double unit, int d) {
    const auto join = [](double x, double y) { return NORM == L1 ? larger(x, y) : x + y; };
    const auto add = [=](double &total, double x) { total = join(total, NORM == L2 ? x * x : fabs(x)); };
    double part[WARP];
#pragma unroll
    for (int i = 0; i < WARP; ++i) part[i] = 0;
    each(d, [&](int c) {
        const double x = w[c], step = unit * a[c];
#pragma unroll
        for (int i = 0; i < MULTIPLIERS; ++i) {
            add(part[i], x - FIRST_MULTIPLIER * (1 << i) * step);
            add(part[WARP / 2 + i], x + FIRST_MULTIPLIER * (1 << i) * step);
        }
    });
    fold<WARP>(part, WARP / 2, join);
    return part[0];
}

// Shrink the ranges over {<MINORANT, delta> + penalty psi <= room}; false: the set is empty.
__device__ APART bool tighten(const Patch &p, double room, double penalty) {
    const double *a = p.v(MINORANT), size = dual(a, p.norm, p.d);
    if (!(size > 0 && size < infinity())) return true;
    const int lane = lane_of_warp();
    double *rest = p.z(REST), total = 0;
    each(p.m, [&](int r) { total += rest[r] = height(p, p.z(LOW)[r], p.z(HIGH)[r]); });
    total = sum_over_lanes(total);
    room += 4 * (p.d + 16) * UNIT_ROUNDOFF * (p.eps * size + fabs(room)) + TINY;
    __syncwarp();
    for (int r = 0; r < p.m; ++r) {
        if (rest[r] < NEGLIGIBLE * total) continue;
        const double *w = p.down + r * p.d, unit = p.down_size[r] / size;
        const double mu = unit * FIRST_MULTIPLIER * (1 << lane % 16);
        const double sum = p.norm == LINF ? shifted<LINF>(w, a, unit, p.d)
                           : p.norm == L2 ? shifted<L2>(w, a, unit, p.d)
                                          : shifted<L1>(w, a, unit, p.d);
        const double length = p.norm == L2 ? sqrt(sum) : sum;
        double reach = p.supported(length, mu * penalty) + mu * room;
        // of infinite numbers nothing follows
        const bool known = mu < infinity() && mu * penalty < infinity() && length < infinity() && reach == reach;
        if (lane % 16 >= MULTIPLIERS || !known) reach = infinity();
        for (int lanes = 8; lanes; lanes /= 2) reach = min(reach, __shfl_xor_sync(ALL, reach, lanes));
        const double above = __shfl_sync(ALL, reach, 0), below = __shfl_sync(ALL, reach, 16);
        if (r % WARP == lane) {
            p.z(HIGH)[r] = min(p.z(HIGH)[r], p.z(DOWN)[r] + above + p.pad_z);
            p.z(LOW)[r] = max(p.z(LOW)[r], p.z(DOWN)[r] - below - p.pad_z);
        }
    }
    int empty = 0;
    each(p.m, [&](int r) { empty |= p.z(LOW)[r] > p.z(HIGH)[r]; });
    __syncwarp();
    return !__any_sync(ALL, empty);
}

__device__ inline double width(const Patch &p) {
    double total = 0;
    each(p.m, [&](int r) { total += p.z(HIGH)[r] - p.z(LOW)[r]; });
    return sum_over_lanes(total);
}

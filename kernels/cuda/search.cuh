// One patch and its ball for search.cu, worked on by one warp: products, activation, chords, norms, where to go.
//
// Element i of every vector is written by lane i % 32 alone.  Where other lanes read it (`pull`, `tighten`, `widest`) a
// barrier of the warp stands before and after, since a shuffle orders no memory.  What decides where to go next has the
// same bits in every lane.
//
// Rounding.  The slack of docs/certificates.md holds for the code below as it does for kernels/cpu/branch_and_bound.py:
//  - It bounds sums by (number of terms) u times the sum of absolute values, which no order of the terms exceeds; sums
//    over lanes are another order, a shorter one for each term.
//  - A fused multiply-add drops one of two roundings, so every result keeps the error bound that it had.  Nothing here
//    rests on two expressions being rounded alike: a chord's offset is the larger of those at its two ends, fused or
//    not, for whatever slope was computed; a minorant's bound is taken from the very vector and offset that are kept.
//  - z / rho is z (1 / rho), off by 2 u instead of u: q u more for sigma, where the slack has room for 16 (q + 16) u.
//  - Divisions and roots are IEEE's: no fast-math, and no part of it, may be asked for.
//  - A NaN or an overflow in a norm stays (`larger`), and makes a bound NaN or -inf, never better.
#pragma once
#include "common.cuh"

// as in kernels/branch_and_bound.py
constexpr int MULTIPLIERS = 13, TRIES = 40, MIXTURES = 12, HALVINGS = 30;
constexpr double FIRST_MULTIPLIER = 0.125, GOLDEN = 0.6180339887498949, SETTLED = 1e-2, NEGLIGIBLE = 1e-3;
constexpr double EXACT = 1e-14;
constexpr double UNIT_ROUNDOFF = 0x1p-53, TINY = 0x1p-1022, ROOT = 0x1p-537;

enum { UP, DOWN, AT, ALONG, SLOPE, CHORD, REST, LOW, HIGH, NEURON_ROWS };  // vectors (m,)
enum { GRADIENT, RIVAL, VERTEX, MOVE, POINT, MINORANT, LAST, BEFORE, DELTA, COORDINATE_ROWS };  // vectors (d,)

__device__ inline double infinity() { return __longlong_as_double(0x7ff0000000000000LL); }

// Functions with many callers, or long ones, stand apart: all inlined they are 0.9 MB, more than the instruction cache.
#define APART __attribute__((noinline))

__device__ inline int lane_of_warp() { return threadIdx.x % WARP; }

// f(i) for this lane's elements of a vector of n; not unrolled, which would double the kernel for a few cycles.
template <typename F> __device__ void each(int n, F f) {
#pragma unroll 1
    for (int i = lane_of_warp(); i < n; i += WARP) f(i);
}

// One problem; each warp's lies in shared memory, so that it costs no registers.
struct Patch {
    const double *up, *down;            // weights of label and rival (m, d)
    const double *up_size, *down_size;  // the dual norms of their rows (m,)
    double *Z, *D;                      // working memory: vectors of neurons and of coordinates
    double eps, penalty, rho, inverse, share, pad_h, pad_z;  // inverse: 1 / rho, share: rho / q
    int norm, q, m, d, n_steps, n_rounds;

    __device__ double *z(int row) const { return Z + row * m; }
    __device__ double *v(int row) const { return D + row * d; }

    // ---------------------------------------------------------------- the activation
    __device__ double clipped(double t) const {
        const double x = t * inverse;
        return x > 1 ? 1.0 : x < 0 ? 0.0 : x;
    }

    __device__ double sigma_prime(double t) const {
        const double x = clipped(t);
        double power = x;
#pragma unroll 1
        for (int i = 2; i < q; ++i) power *= x;
        return power;
    }

    __device__ double sigma(double t) const {
        return share * (clipped(t) * sigma_prime(t)) + (t > rho ? t - rho : 0.0);
    }

    // S(v) from the dual norm of v
    __device__ double supported(double size, double price) const {
        if (norm == L1) return size <= price ? 0.0 : eps * (size - price);
        if (norm == L2 && size < 2 * price * eps) return size / 4 * (size / price);
        return norm == L2 ? eps * size - price * eps * eps : eps * size;
    }
};

// ------------------------------------------------------------------ sums over lanes
// Not `warp_sum`: were x a product, x + other could be fused on either side, and lanes would differ in the last bit.
template <int N> __device__ void sum_over_lanes(double (&x)[N]) {
    for (int lanes = WARP / 2; lanes; lanes /= 2)
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] = __dadd_rn(x[i], __shfl_xor_sync(ALL, x[i], lanes));
}

__device__ inline double sum_over_lanes(double x) {
    double sum[1] = {x};
    sum_over_lanes(sum);
    return sum[0];
}

// The larger of two numbers >= 0, by their bits, where NaN is beyond infinity and no comparison forgets it.
__device__ inline double larger(double x, double y) {
    const big a = __double_as_longlong(x), b = __double_as_longlong(y);
    return a < b ? y : x;
}

// The lowest of the lanes' numbers and its place, the first of equal ones; the same in every lane.
__device__ inline void lowest(double &x, int &place) {
    for (int lanes = WARP / 2; lanes; lanes /= 2) {
        const double other = __shfl_xor_sync(ALL, x, lanes);
        const int there = __shfl_xor_sync(ALL, place, lanes);
        if (other < x || (other == x && there < place)) x = other, place = there;
    }
    x = __shfl_sync(ALL, x, 0);  // lanes that met a NaN may disagree
    place = __shfl_sync(ALL, place, 0);
}

// ------------------------------------------------------------------ norms
template <int NORM, typename F> __device__ double length_of(int first, int stride, int d, F at) {
    double total[4] = {0, 0, 0, 0};  // four chains of additions hide each other's latency
#pragma unroll 1
    for (int c = first; c < d; c += 4 * stride) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int place = c + i * stride;
            if (place >= d) continue;
            const double x = at(place);
            total[i] = NORM == LINF ? total[i] + fabs(x) : NORM == L2 ? total[i] + x * x : larger(total[i], fabs(x));
        }
    }
    if (NORM == L1) return larger(larger(total[0], total[1]), larger(total[2], total[3]));
    return (total[0] + total[1]) + (total[2] + total[3]);
}

// The sum (for l_1 the maximum) behind the dual norm, of at(first), at(first + stride), ... below d.
template <typename F> __device__ double length_of(int norm, int first, int stride, int d, F at) {
    return norm == LINF ? length_of<LINF>(first, stride, d, at)
           : norm == L2 ? length_of<L2>(first, stride, d, at)
                        : length_of<L1>(first, stride, d, at);
}

// The dual norm of the vector at(0), ..., at(d - 1), in every lane.
template <typename F> __device__ double dual_of(int norm, int d, F at) {
    double total = length_of(norm, lane_of_warp(), WARP, d, at);
    if (norm == L1)
        for (int lanes = WARP / 2; lanes; lanes /= 2) total = larger(total, __shfl_xor_sync(ALL, total, lanes));
    else
        total = sum_over_lanes(total);
    return norm == L2 ? sqrt(total) : total;
}

__device__ APART double dual(const double *v, int norm, int d) {
    return dual_of(norm, d, [=](int c) { return v[c]; });
}

// ------------------------------------------------------------------ products with the weights
// Joins `part` over the N lanes whose numbers differ in the bits from `lanes` down to 2 lanes / N; of these, the one
// whose bits are i is left with part[i], in part[0].
template <int N, typename F> __device__ void fold(double *part, int lanes, F join) {
    const bool second = lane_of_warp() & lanes;
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
        const double mine = second ? part[i + N / 2] : part[i], given = second ? part[i] : part[i + N / 2];
        part[i] = join(mine, __shfl_xor_sync(ALL, given, lanes));
    }
    if constexpr (N > 2) fold<N / 2>(part, lanes / 2, join);
}

// out[r] = start[r] (or 0) + <rows[r], v>; eight rows at a time, which takes 10 shuffles instead of 40.
__device__ APART void images(const Patch &p, double *out, const double *start, const double *rows, const double *v) {
    const int m = p.m, d = p.d, lane = lane_of_warp();
    for (int block = 0; block < m; block += 8) {
        double part[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        each(d, [&](int c) {
            const double x = v[c];
#pragma unroll
            for (int i = 0; i < 8; ++i) part[i] += rows[min(block + i, m - 1) * d + c] * x;
        });
        fold<8>(part, 16, [](double x, double y) { return x + y; });
        double total = part[0];
        total += __shfl_xor_sync(ALL, total, 2);
        total += __shfl_xor_sync(ALL, total, 1);
        total = __shfl_sync(ALL, total, 4 * (lane % 8));  // lanes 4 i to 4 i + 3 held row i; it belongs to another lane
        const int r = block + lane % 8;
        if (r % WARP == lane && r < m) out[r] = total + (start ? start[r] : 0.0);
    }
}

// out = z @ rows - minus (or 0)
__device__ APART void pull(const Patch &p, double *out, const double *minus, const double *rows, const double *z) {
    const int m = p.m, d = p.d;
    __syncwarp();
    for (int first = lane_of_warp(); first < d; first += 4 * WARP) {
        double total[4] = {0, 0, 0, 0};
        for (int r = 0; r < m; ++r) {
            const double g = z[r];
#pragma unroll
            for (int i = 0; i < 4; ++i) total[i] += g * rows[r * d + min(first + i * WARP, d - 1)];
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int c = first + i * WARP;
            if (c < d) out[c] = minus ? total[i] - minus[c] : total[i];
        }
    }
    __syncwarp();
}

// ------------------------------------------------------------------ chords
struct Line {
    double slope, offset;
};

// sigma(t) <= slope t + offset on [low, high]
__device__ APART Line chord(const Patch &p, double low, double high) {
    const double at_low = p.sigma(low), at_high = p.sigma(high);
    double slope = p.sigma_prime(low);
    if (high - low > 1e-9 * (fabs(low) + fabs(high))) {
        slope = (at_high - at_low) / (high - low);
        slope = slope > 1 ? 1.0 : slope < 0 ? 0.0 : slope;
    }
    const double left = at_low - slope * low, right = at_high - slope * high;
    return {slope, left > right ? left : right};
}

// How far the chord lies above sigma in the middle of the range's positive part.
__device__ inline double height(const Patch &p, double low, double high) {
    const double middle = ((low > 0 ? low : 0.0) + high) / 2;
    const Line line = chord(p, low, high);
    return line.slope * middle + line.offset - p.sigma(middle);
}

// ------------------------------------------------------------------ the ball
__device__ inline double psi_of(const Patch &p, double x) { return p.norm == L1 ? fabs(x) : x * x; }

// VERTEX <- a delta that attains S(-GRADIENT); `size` is the gradient's dual norm.
__device__ inline void away(const Patch &p, double size) {
    const double *g = p.v(GRADIENT), eps = p.eps;
    double *vertex = p.v(VERTEX);
    const int d = p.d;
    if (p.norm == LINF) {
        each(d, [&](int c) { vertex[c] = g[c] > 0 ? -eps : g[c] < 0 ? eps : 0.0; });
    } else if (p.norm == L2) {
        double scale = 0;
        if (size < 2 * p.penalty * eps) scale = -1 / (2 * p.penalty);
        else if (size > 0) scale = -eps / size;
        each(d, [&](int c) { vertex[c] = scale * g[c]; });
    } else {
        double none = 0;
        int first = d;
        each(d, [&](int c) { first = first == d && fabs(g[c]) == size ? c : first; });
        lowest(none, first);
        if (size <= p.penalty) first = d;
        each(d, [&](int c) { vertex[c] = c != first ? 0.0 : g[c] > 0 ? -eps : eps; });
    }
}

// sum_c max(|VERTEX_c| - threshold, 0)
__device__ APART double beyond(const Patch &p, double threshold) {
    const double *vertex = p.v(VERTEX);
    double total = 0;
    each(p.d, [&](int c) {
        const double over = fabs(vertex[c]) - threshold;
        total += over > 0 ? over : 0.0;
    });
    return sum_over_lanes(total);
}

// VERTEX <- the point of the ball next to it, after soft thresholding by `threshold` (l_1).
__device__ inline void project(const Patch &p, double threshold) {
    double *vertex = p.v(VERTEX);
    const double eps = p.eps;
    const int d = p.d;
    if (p.norm == LINF) {
        each(d, [&](int c) { vertex[c] = min(max(vertex[c], -eps), eps); });
        return;
    }
    const double size = dual(vertex, p.norm, d);  // for l_1 the largest entry
    if (p.norm == L2) {
        const double scale = size > eps ? eps / size : 1.0;
        each(d, [&](int c) { vertex[c] *= scale; });
        return;
    }
    double low = threshold, high = size > low ? size : low;
    if (beyond(p, low) > eps) {
        for (int i = 0; i < HALVINGS; ++i) {
            const double middle = (low + high) / 2;
            if (beyond(p, middle) > eps) low = middle;
            else high = middle;
        }
        low = high;
    }
    each(d, [&](int c) {
        const double left = max(fabs(vertex[c]) - low, 0.0);
        vertex[c] = vertex[c] > 0 ? left : -left;
    });
}

// Where to go from `point`, whose gradient is GRADIENT, of dual norm `size`: VERTEX, as kernels/branch_and_bound.py's `aim`.
__device__ APART void aim(const Patch &p, const double *point, double size, bool first) {
    double *g = p.v(GRADIENT), *last = p.v(LAST), *before = p.v(BEFORE), *vertex = p.v(VERTEX);
    const int d = p.d;
    const double bend = p.norm == L2 ? 2 * p.penalty : 0.0;
    away(p, size);
    double sums[2] = {0, 0};
    each(d, [&](int c) {
        const double here = point[c], smooth = g[c] + bend * here;
        if (!first) {
            const double moved = here - before[c];
            sums[0] += moved * moved;
            sums[1] += moved * (smooth - last[c]);
        }
        last[c] = g[c] = smooth;
        before[c] = here;
    });
    if (first) return;
    sum_over_lanes(sums);
    if (!(sums[1] > 0)) return;
    const double length = sums[0] / sums[1];
    each(d, [&](int c) { vertex[c] = point[c] - length * g[c]; });
    project(p, length * p.penalty);
}

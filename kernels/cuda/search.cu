// Bounds of patches' least margins: relaxation, range tightening, branch and bound (kernels/branch_and_bound.py), float64.
//
// One warp per problem (patch, run, label, rival).  The warps of a block take the problems of one slice in turn; these
// have the same label and rival of the same run, whose weights the block keeps in shared memory where they fit.  Which
// warp works on a problem, beside which others, and where its memory lies changes none of its bits.
#include "relaxation.cuh"

constexpr int HEAD = 2;           // doubles of shared memory before the problems: the slice, and its next problem
constexpr int PATCH_NUMBERS = 16;  // doubles that a Patch takes
static_assert(sizeof(Patch) <= PATCH_NUMBERS * sizeof(double), "a problem does not fit its place");

// ------------------------------------------------------------------ branch and bound
// Relax, descend, tighten, again, on the box LOW, HIGH from DELTA; false: no minimiser lies in it.
__device__ APART bool bound_box(const Patch &p, double &bound, double &least, double *found) {
    for (int turn = 0; turn < (p.n_steps ? max(p.n_rounds, 1) : 0); ++turn) {
        double best, offset;
        relax(p, best, offset);
        if (best - p.pad_h > bound) bound = best - p.pad_h;
        descend(p, least, found);
        if (!p.n_rounds) break;
        const double before = width(p);
        if (!tighten(p, least - offset + 2 * p.pad_h, p.penalty)) return false;
        if (width(p) > (1 - SETTLED) * before) break;
    }
    return true;
}

// The boxes that wait, in a warp's slice of global memory: their bounds, then LOW, HIGH and DELTA of each.
struct Pool {
    double *bounds, *boxes;
    const Patch &p;

    // The box in hand <- box n; `store`: the other way round.
    __device__ void load(int n) const {
        const int m = p.m, d = p.d;
        const double *box = boxes + big(n) * (2 * m + d);
        each(m, [&](int r) {
            p.z(LOW)[r] = box[r];
            p.z(HIGH)[r] = box[m + r];
        });
        each(d, [&](int c) { p.v(DELTA)[c] = box[2 * m + c]; });
    }

    __device__ void store(int n, double bound) const {
        const int m = p.m, d = p.d;
        double *box = boxes + big(n) * (2 * m + d);
        each(m, [&](int r) {
            box[r] = p.z(LOW)[r];
            box[m + r] = p.z(HIGH)[r];
        });
        each(d, [&](int c) { box[2 * m + c] = p.v(DELTA)[c]; });
        if (n % WARP == lane_of_warp()) bounds[n] = bound;
    }

    __device__ void move(int from, int to) const {
        const double bound = from % WARP == lane_of_warp() ? bounds[from] : 0.0;
        load(from);
        store(to, __shfl_sync(ALL, bound, from % WARP));
    }

    // The box of the lowest bound among `count`, and that bound.
    __device__ int first(int count, double &bound) const {
        int n = 0x7fffffff;
        bound = infinity();
        each(count, [&](int i) {
            if (bounds[i] < bound || n > i) {
                bound = bounds[i];
                n = i;
            }
        });
        lowest(bound, n);
        return n;
    }
};

// The neuron whose range is to be halved, and where; false where it cannot be.
__device__ inline bool widest(const Patch &p, int &neuron, double &cut) {
    double top = infinity();
    neuron = p.m;
    each(p.m, [&](int r) {
        const double here = -height(p, p.z(LOW)[r], p.z(HIGH)[r]);
        if (here < top || neuron == p.m) {
            top = here;
            neuron = r;
        }
    });
    lowest(top, neuron);
    __syncwarp();
    const double low = p.z(LOW)[neuron], high = p.z(HIGH)[neuron];
    __syncwarp();
    cut = ((low > 0 ? low : 0.0) + high) / 2;
    return low < cut && cut < high;
}

// pad_h and pad_z (`search.slack`), then ranges, bound and value to begin with.
__device__ inline void begin(Patch &p, const double *x, const double *up_length, const double *down_length,
                             double &bound, double &least) {
    const int m = p.m, d = p.d, lane = lane_of_warp();
    const double eps = p.eps, unit = 16 * (d + 2.0 * m + p.q + 16) * UNIT_ROUNDOFF;
    const double *z_up = p.z(UP), *z_down = p.z(DOWN), *up_size = p.up_size, *down_size = p.down_size;
    images(p, p.z(UP), nullptr, p.up, x);
    images(p, p.z(DOWN), nullptr, p.down, x);
    double square = 0, total = 0, lengths = 0, weighted = 0, sums[2] = {0, 0};
    each(d, [&](int c) { square += x[c] * x[c]; });
    const double length = sqrt(sum_over_lanes(square)), price = p.penalty * eps * (p.norm == L1 ? 1.0 : eps);
    each(m, [&](int r) {
        total += (up_length[r] + down_length[r]) * length + eps * (up_size[r] + down_size[r]);
        lengths += up_length[r] + down_length[r];
    });
    total = sum_over_lanes(total);
    const double lost = ROOT * d * (2 * m * (length + eps) + sum_over_lanes(lengths) + total);
    const double pad_z = unit * total + lost + TINY;
    each(m, [&](int r) {
        const double up = eps * up_size[r], down = eps * down_size[r];
        weighted += p.sigma_prime(fabs(z_up[r]) + up + pad_z) * (up_length[r] * length + up);
        weighted += p.sigma_prime(fabs(z_down[r]) + down + pad_z) * (down_length[r] * length + down);
        p.z(LOW)[r] = z_down[r] - (down + pad_z);
        p.z(HIGH)[r] = z_down[r] + (down + pad_z);
        sums[0] += p.sigma(z_up[r] - up) - p.sigma(p.z(HIGH)[r]);
        sums[1] += p.sigma(z_up[r]) - p.sigma(z_down[r]);
    });
    const double pad_h = unit * (sum_over_lanes(weighted) + price) + lost + TINY * 2 * m * (1 + p.rho + total);
    sum_over_lanes(sums);
    bound = sums[0] - pad_h;
    least = sums[1];
    each(d, [&](int c) { p.v(DELTA)[c] = 0; });
    if (lane == 0) {
        p.pad_h = pad_h;
        p.pad_z = pad_z;
    }
    __syncwarp();
}

// Best-first search: the lower bound, with the least value and its delta (`found`) and how many boxes were `used`.
__device__ inline double branch_and_bound(const Patch &p, const Pool &pool, double tolerance, int n_nodes, double bound,
                                          double &least, double *found, int &used) {
    double closed = infinity();
    int count = 0;
    used = 1;
    if (bound_box(p, bound, least, found)) pool.store(count++, bound);
    while (count) {
        const int n = pool.first(count, bound);
        const bool enough = !(bound < least - tolerance) || used + 2 > n_nodes;
        bool alive[2] = {false, false};
        int neuron = 0;
        double cut = 0;
        if (!enough) pool.load(n);
        if (enough || !widest(p, neuron, cut)) {
            if (!(bound >= closed)) closed = bound;  // also where it is NaN
            if (enough) break;
        } else {
            used += 2;
            for (int half = 0; half < 2; ++half) {
                if (half) pool.load(n);
                const double sign = half ? -1 : 1, room = sign * (cut - p.z(DOWN)[neuron]) + p.pad_z;
                double mine = bound;
                if (neuron % WARP == lane_of_warp()) p.z(half ? LOW : HIGH)[neuron] = cut;
                each(p.d, [&](int c) { p.v(MINORANT)[c] = sign * p.down[neuron * p.d + c]; });
                alive[half] = tighten(p, room, 0.0) && bound_box(p, mine, least, found);
                if (alive[half]) pool.store(half ? n : count, mine);  // the second half takes its parent's place
            }
        }
        if (!alive[1]) pool.move(alive[0] ? count : count - 1, n);
        count += alive[0] + alive[1] - 1;
    }
    const double met = least - p.pad_h;
    return closed < met || closed != closed ? closed : met;
}

// ------------------------------------------------------------------ kernels
// sizes (2, n_rows): l_2 and dual norms of the rows of W (n_rows, d), one warp per row.
extern "C" __global__ void lengths(const double *W, double *sizes, int norm, int d, int n_rows) {
    const int row = int((big(blockIdx.x) * blockDim.x + threadIdx.x) / WARP);
    if (row >= n_rows) return;
    const double *w = W + big(row) * d;
    const double length = dual(w, L2, d), size = dual(w, norm, d);
    if (lane_of_warp()) return;
    sizes[row] = length;
    sizes[n_rows + row] = size;
}

// Problems slices[s] to slices[s + 1] - 1 for every s < n_slices: X (., d); pairs (., 2): where label and rival are in
// W (classes, m, d); numbers (., 3): eps, penalty, tolerance.  `next` begins at 0.  Every warp has `per_warp` doubles
// of scratch: a pool of `boxes` boxes, and its vectors if they are not `vectors_near`, in shared memory, where the
// weights of a slice's label and rival are if `weights_near`.
extern "C" __global__ void __launch_bounds__(256, 2)
search(const double *W, const double *sizes, int classes, const double *X, const int *pairs, const double *numbers,
       const int *slices, int n_slices, int *next, double *scratch, big per_warp, int boxes, int vectors_near,
       int weights_near, int m, int d, int norm, int q, double rho, int n_steps, int n_rounds, int n_nodes,
       double *lower, double *upper, double *delta, int *nodes) {
    SHARED(double, memory);
    int *control = reinterpret_cast<int *>(memory);
    const int lane = lane_of_warp(), warp = threadIdx.x / WARP, warps = blockDim.x / WARP, size = m * d;
    const int vectors = NEURON_ROWS * m + COORDINATE_ROWS * d;
    Patch &p = *reinterpret_cast<Patch *>(memory + HEAD + warp * PATCH_NUMBERS);
    double *near = memory + HEAD + warps * PATCH_NUMBERS, *own = scratch + (big(blockIdx.x) * warps + warp) * per_warp;
    const Pool pool{own, own + boxes, p};
    if (lane == 0) {
        p.Z = vectors_near ? near + 2 * size * weights_near + warp * vectors : pool.boxes + big(boxes) * (2 * m + d);
        p.D = p.Z + NEURON_ROWS * m;
        p.rho = rho;
        p.inverse = 1 / rho;
        p.share = rho / q;
        p.norm = norm;
        p.q = q;
        p.m = m;
        p.d = d;
        p.n_steps = n_steps;
        p.n_rounds = n_rounds;
    }
    for (;;) {
        __syncthreads();  // every warp is done with the last slice
        if (threadIdx.x == 0) {
            control[0] = atomicAdd(next, 1);
            if (control[0] < n_slices) control[1] = slices[control[0]];
        }
        __syncthreads();
        if (control[0] >= n_slices) return;
        const int start = slices[control[0]], end = slices[control[0] + 1];
        const big up = pairs[2 * big(start)], down = pairs[2 * big(start) + 1];
        const double *up_length = sizes + up * m, *down_length = sizes + down * m;
        if (weights_near)
            for (int i = threadIdx.x; i < size; i += blockDim.x) {
                near[i] = W[up * size + i];
                near[size + i] = W[down * size + i];
            }
        if (lane == 0) {
            p.up = weights_near ? near : W + up * size;
            p.down = weights_near ? near + size : W + down * size;
            p.up_size = up_length + big(classes) * m;
            p.down_size = down_length + big(classes) * m;
        }
        __syncthreads();
        for (;;) {
            __syncwarp();  // every lane is done with the last problem
            int i = lane ? 0 : atomicAdd(&control[1], 1);
            i = __shfl_sync(ALL, i, 0);
            if (i >= end) break;
            const double *given = numbers + 3 * big(i);
            double *found = delta + big(i) * d, bound, least;
            int used;
            if (lane == 0) {
                p.eps = given[0];
                p.penalty = given[1];
            }
            __syncwarp();
            each(d, [&](int c) { found[c] = 0; });
            begin(p, X + big(i) * d, up_length, down_length, bound, least);
            const double low = branch_and_bound(p, pool, given[2], n_nodes, bound, least, found, used);
            if (lane) continue;
            lower[i] = low;
            upper[i] = least;
            nodes[i] = used;
        }
    }
}

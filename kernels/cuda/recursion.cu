// Training without noise as a recursion in correlations (kernels/recursion.py): a block takes a run through many
// iterations of one launch.  double throughout, whatever REAL is.
//
// Columns: the run's patches that count, n of them, sorted by type (cupy_recursion.py leaves out the padding); for each
// its slopes U, the ascent's neuron weights G and their images HG = H G and GW = G W_orth.  H is symmetric: its lower
// triangle is kept row by row, so that two blocks of K = 100 share a multiprocessor; 16 numbers down a column of a
// triangle lie in as many banks, two at most in each.
#include "recursion_sums.cuh"

struct Span { int lo, hi; };  // neurons

struct Run {
    int n, types, groups, K, k, m, D, q, objective, norm, n_steps, most, most_types;
    const int *list;  // rows of `ints` and `numbers`, see the kernel
    const double *number;
    // table (2k, K), U, G, HG (n, K), delta (n, 2k), F, C (types, k), GW (n, D), W (K, D)
    double *F, *C, *delta, *spent, *table, *U, *G, *HG, *work, *H, *GW, *W;
    int *rival;

    // Looked up where they are needed: their addresses would cost registers.
    __device__ int first(int j) const { return list[3 + j]; }
    __device__ int label(int j) const { return list[4 + most_types + j]; }
    __device__ int feature(int c) const { return list[4 + 2 * most_types + c]; }
    __device__ int type_of(int c) const { return list[4 + 2 * most_types + most + c]; }
    __device__ int group(int g) const { return list[4 + 2 * most_types + 2 * most + g]; }
    __device__ double rho() const { return number[0]; }
    __device__ double lr() const { return number[1]; }
    __device__ double step() const { return number[2]; }
    __device__ double eps() const { return number[3]; }
    __device__ double axes() const { return number[4]; }
    __device__ double weight(int j) const { return number[5 + j]; }
    __device__ double strength(int c) const { return number[5 + most_types + c]; }
    __device__ double count(int c) const { return number[5 + most_types + most + c]; }

    // Neurons with dJ/dF_i != 0, for a type's last ascent step
    __device__ Span span(int j) const {
        if (objective == CROSS_ENTROPY) return {0, K};
        const int y = label(j), other = objective == MARGIN ? rival[j] : y;
        return {min(y, other) * m, (max(y, other) + 1) * m};
    }

    // Neurons with gamma_a != 0 at the end
    __device__ Span reached(int column) const { return n_steps == 1 ? span(type_of(column)) : Span{0, K}; }
};

// ------------------------------------------------------------------ one iteration
// U = sigma'(z) and F_i = sum of count sigma(z), z = strength Phi_f + step H gamma + Phi delta; NEG_LABEL_LOGIT climbs
// by the label's neurons alone, and the others' z is not needed before the end.
__device__ __forceinline__ void respond(const Run &run, bool moved, bool label_only) {
    const int K = run.K, k = run.k, m = run.m, each = label_only ? 1 : k;
    const double rho = run.rho(), inverse = 1 / rho, part_of = rho / run.q, step = run.step();
    team_sums(
        run.types * each,
        [&](int task, int lane) {
            const int j = task / each, i = label_only ? run.label(j) : task % each;
            double total = 0;
            for (int c = run.first(j); c < run.first(j + 1); ++c) {
                const double s = run.strength(c), *own = run.table + run.feature(c) * K, *delta = run.delta + c * 2 * k;
                const double *image = run.HG + big(c) * K;
                double *slopes = run.U + big(c) * K, sum = 0;
                for (int a = i * m + lane; a < (i + 1) * m; a += TEAM) {
                    double z = s * own[a];
                    if (moved) {
                        z += step * image[a];
                        for (int f = 0; f < 2 * k; ++f) z += delta[f] * run.table[f * K + a];
                    }
                    const double t = z * inverse, x = t > 1 ? 1.0 : t <= 0 ? 0.0 : t;  // NaN stays NaN
                    double power = x;
                    for (int p = 2; p < run.q; ++p) power *= x;
                    slopes[a] = power;
                    sum += part_of * x * power + (z > rho ? z - rho : 0.0);
                }
                total += run.count(c) * sum;
            }
            return total;
        },
        [&](int task, int lane, double total) {
            if (lane == 0 && !label_only) run.F[task] = total;
        });
}

// C_i = dJ/dF_i of every type; whether this thread has met an F_i that is not finite
__device__ __forceinline__ bool weigh(const Run &run, int objective) {
    const int k = run.k, teams = blockDim.x / TEAM, lane = threadIdx.x % TEAM;
    bool odd = false;
    for (int begin = 0; begin < run.types; begin += teams) {
        const int j = begin + threadIdx.x / TEAM, end = j < run.types ? k : 0;
        const double *F = run.F + j * k;
        double *C = run.C + j * k;
        if (objective == CROSS_ENTROPY) {
            const int y = end ? run.label(j) : 0;
            double top = end ? F[0] : 0.0, rivals = 0;
            for (int i = 1; i < end; ++i) top = F[i] > top ? F[i] : top;
            for (int i = lane; i < end; i += TEAM) {
                odd |= !isfinite(F[i]);
                C[i] = exp(F[i] - top);
                if (i != y) rivals += C[i];
            }
            rivals = team_sum(rivals);
            const double total = rivals + (end ? exp(F[y] - top) : 0.0);
            for (int i = lane; i < end; i += TEAM) C[i] = (i == y ? -rivals : C[i]) / total;
        } else if (end) {
            const int y = run.label(j);
            int rival = -1;
            for (int i = 0; objective == MARGIN && i < k; ++i)
                if (i != y && (rival < 0 || F[i] > F[rival])) rival = i;
            if (rival < 0) rival = y;
            for (int i = lane; i < k; i += TEAM) C[i] = (objective == MARGIN && i == rival) - double(i == y);
            if (lane == 0) run.rival[j] = rival;
        }
    }
    return odd;
}

// gamma += ascent; U becomes the ascent where it is not 0
__device__ __forceinline__ void climb(const Run &run, bool begun) {
    const int K = run.K;
    for (int c = threadIdx.x / WARP; c < run.n; c += blockDim.x / WARP) {
        const Span span = run.span(run.type_of(c));
        const double *C = run.C + run.type_of(c) * run.k;
        double *U = run.U + big(c) * K, *G = run.G + big(c) * K;
        for (int a = threadIdx.x % WARP; a < K; a += WARP) {
            double ascent = 0;
            if (span.lo <= a && a < span.hi) U[a] = ascent = C[a / run.m] * U[a];
            G[a] = begun ? G[a] + ascent : ascent;
        }
    }
}

// out (n, width) += ascent right; the columns of a group share their neurons
template <typename Right>
__device__ __forceinline__ void image(const Run &run, bool begun, int width, double *out, Right right) {
    const int across = (width + WARP - 1) / WARP;
    for (int i = threadIdx.x / WARP; i < run.groups * across; i += blockDim.x / WARP) {
        const int from = run.group(i / across), to = run.group(i / across + 1), column = i % across * WARP;
        const Span span = run.span(run.type_of(from));
        auto ascent = [&](int x, int c) { return run.U[big(c) * run.K + x]; };
        auto store = [&](int c, int b, double sum) {
            double *place = out + big(c) * width + b;
            *place = begun ? *place + sum : sum;
        };
        if (to - from <= 2)
            tile<2>(span.lo, span.hi, from, to, column, width, ascent, right, store);
        else
            tile<ROWS>(span.lo, span.hi, from, to, column, width, ascent, right, store);
    }
}

__device__ __forceinline__ void displace(const Run &run, bool begun) {
    const int K = run.K, two_k = 2 * run.k;
    image(run, begun, K, run.HG, [&](int x, int b) { return run.H[in_triangle(x, b)]; });
    if (run.D) image(run, begun, run.D, run.GW, [&](int x, int l) { return run.W[big(x) * run.D + l]; });
    team_sums(
        run.n * two_k,
        [&](int task, int lane) {
            const int c = task / two_k;
            const Span span = run.span(run.type_of(c));
            const double *ascent = run.U + big(c) * K, *phi = run.table + task % two_k * K;
            double sum = 0;
            for (int a = span.lo + lane; a < span.hi; a += TEAM) sum += ascent[a] * phi[a];
            return sum;
        },
        [&](int task, int lane, double sum) {
            if (lane == 0) run.delta[task] = (begun ? run.delta[task] : 0.0) + run.step() * sum;
        });
}

// `tail` of kernels/recursion.py
__device__ __forceinline__ double tail(double reach, double eps, double axes) {
    if (!(reach > eps)) return 0;
    const double t = eps / reach, most = axes * pow(1 - t * t, (axes > 1 ? axes - 1 : 0.0) / 2);
    return most < 1 ? most : 1.0;
}

// Into the ball; whether this thread has seen an orthogonal axis beyond eps (l_inf, W_orth known).  Else the bounds of
// an iteration add up in `spent`, column by column.
__device__ __forceinline__ bool project(const Run &run, bool begun) {
    const int K = run.K, two_k = 2 * run.k, D = run.D, teams = blockDim.x / TEAM, lane = threadIdx.x % TEAM;
    const double eps = run.eps(), step = run.step();
    bool beyond = false;
    for (int begin = 0; begin < run.n; begin += teams) {
        const int c = begin + threadIdx.x / TEAM;
        const bool here = c < run.n;
        const Span span = here ? run.reached(c) : Span{0, 0};
        double *G = run.G + big(c) * K, *HG = run.HG + big(c) * K, *GW = run.GW + big(c) * D;
        double *delta = run.delta + c * two_k, square = 0, size = 0;
        for (int a = span.lo + lane; a < span.hi; a += TEAM) square += G[a] * HG[a];
        square = team_sum(square);
        const double reach = step * sqrt(square < 0 ? 0.0 : square);
        if (run.norm == LINF) {
            for (int f = lane; here && f < two_k; f += TEAM)
                delta[f] = delta[f] > eps ? eps : delta[f] < -eps ? -eps : delta[f];
            for (int l = lane; here && l < D; l += TEAM) beyond |= fabs(step * GW[l]) > eps;
            if (here && !D && lane == 0) run.spent[c] = (begun ? run.spent[c] : 0.0) + tail(reach, eps, run.axes());
            continue;
        }
        for (int f = lane; here && f < two_k; f += TEAM) size += delta[f] * delta[f];
        size = sqrt(team_sum(size) + reach * reach);
        __syncwarp();  // the lanes have read what other lanes scale
        if (!here || !(size > eps)) continue;
        const double scale = eps / size;
        for (int f = lane; f < two_k; f += TEAM) delta[f] *= scale;
        for (int l = lane; l < D; l += TEAM) GW[l] *= scale;
        for (int a = lane; a < K; a += TEAM) G[a] *= scale, HG[a] *= scale;
    }
    return beyond;
}

// U = weight count e sigma'(z), and delta becomes what multiplies it in Phi's change
__device__ __forceinline__ void slopes(const Run &run) {
    for (int c = threadIdx.x / WARP; c < run.n; c += blockDim.x / WARP) {
        const int j = run.type_of(c), lane = threadIdx.x % WARP;
        const double factor = -run.count(c) * run.weight(j), *C = run.C + j * run.k;
        double *U = run.U + big(c) * run.K;
        for (int a = lane; a < run.K; a += WARP) U[a] *= factor * C[a / run.m];
        if (run.n_steps && lane == 0) run.delta[c * 2 * run.k + run.feature(c)] += run.strength(c);
    }
}

__device__ __forceinline__ void move_phi(const Run &run) {
    const int K = run.K, k = run.k;
    for (int i = threadIdx.x; i < k * K; i += blockDim.x) {
        const int f = i / K * 2, a = i % K;  // two features at a time: one look at U serves both
        double even = 0, odd = 0;
        for (int c = 0; c < run.n; ++c) {
            const int own = run.feature(c);
            const double u = run.U[big(c) * K + a], *delta = run.delta + c * 2 * k + f;
            even += u * (run.n_steps ? delta[0] : own == f ? run.strength(c) : 0.0);
            odd += u * (run.n_steps ? delta[1] : own == f + 1 ? run.strength(c) : 0.0);
        }
        run.table[f * K + a] += run.lr() * even;
        run.table[(f + 1) * K + a] += run.lr() * odd;
    }
}

// H + U V^T + V U^T from few columns, V = c HG + c^2/2 U (G H G^T), after move_phi; work: (U, V) in pairs, G H G^T
__device__ __forceinline__ void gram_few(const Run &run, double c) {
    const int K = run.K, n = run.n, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    double2 *pair = reinterpret_cast<double2 *>(run.work);
    double *inner = run.work + 2 * big(n) * K;
    team_sums(
        int(triangle(n)),
        [&](int task, int lane) {
            const int i = row_of(task), j = task - int(triangle(i));
            const Span span = run.reached(j);
            double sum = 0;
            for (int a = span.lo + lane; a < span.hi; a += TEAM) sum += run.G[big(j) * K + a] * run.HG[big(i) * K + a];
            return sum;
        },
        [&](int task, int lane, double sum) {
            const int i = row_of(task), j = task - int(triangle(i));
            if (lane == 0) inner[i * n + j] = inner[j * n + i] = 0.5 * c * c * sum;
        });
    __syncthreads();
    for (int i = warp; i < n; i += warps)
        for (int a = lane; a < K; a += WARP) {
            double v = c * run.HG[big(i) * K + a];
            for (int j = 0; j < n; ++j) v += inner[i * n + j] * run.U[big(j) * K + a];
            pair[big(i) * K + a] = {run.U[big(i) * K + a], v};
        }
    __syncthreads();
    const int high = (K + ROWS - 1) / ROWS, across = (K + WARP - 1) / WARP;
    for (int t = warp; t < high * across; t += warps) {
        const int from = t / across * ROWS, b = t % across * WARP + lane, inside = min(b, K - 1);
        if (t % across * WARP > from) continue;  // above the diagonal
        int row[ROWS];
        double sum[ROWS];
#pragma unroll
        for (int u = 0; u < ROWS; ++u) row[u] = min(from + u, K - 1), sum[u] = 0;
        for (int i = 0; i < n; ++i) {
            const double2 *here = pair + big(i) * K, right = here[inside];
#pragma unroll
            for (int u = 0; u < ROWS; ++u) {
                const double2 left = here[row[u]];
                sum[u] += left.x * right.y + left.y * right.x;
            }
        }
#pragma unroll
        for (int u = 0; u < ROWS; ++u)
            if (from + u < K && b <= from + u) run.H[triangle(from + u) + b] += sum[u];
    }
}

// The same by H + M + M^T + M Q^T, M = Q H, Q = c U^T G; work: Q^T, M
__device__ __forceinline__ void gram_many(const Run &run, double c) {
    const int K = run.K;
    double *turned = run.work, *M = turned + big(K) * K;
    product(
        run.n, K, K, [&](int i, int b) { return run.G[big(i) * K + b]; },
        [&](int i, int a) { return run.U[big(i) * K + a]; },
        [&](int b, int a, double sum) { turned[big(b) * K + a] = c * sum; });
    __syncthreads();
    product(
        K, K, K, [&](int x, int a) { return turned[big(x) * K + a]; },
        [&](int x, int b) { return run.H[in_triangle(x, b)]; },
        [&](int a, int b, double sum) { M[big(a) * K + b] = sum; });
    __syncthreads();
    product(
        K, K, K, [&](int x, int a) { return M[big(a) * K + x]; }, [&](int x, int b) { return turned[big(x) * K + b]; },
        [&](int a, int b, double sum) {
            if (b <= a) run.H[triangle(a) + b] += M[big(a) * K + b] + M[big(b) * K + a] + sum;
        });
}

// ------------------------------------------------------------------ the kernel
// One block per run at a time, from iteration `begin` to `end`.  Row r of `ints`: n, types, groups,
// first[most_types + 1], label[most_types], feature[most], type_of[most], group[most + 1]; of `numbers`: rho, lr, step,
// eps, axes, weight[most_types], strength[most], count[most].  Bit i of `shared` says where the i-th array of `sizes`
// lies: in shared memory, or in this block's `room` numbers of scratch (W: where it is).
extern "C" __global__ void __launch_bounds__(512)
    recursion(double *phi, double *gram, double *orthogonal, double *risk, int *flagged, int *bad, const int *ints,
              const double *numbers, double *scratch, const big *sizes, int shared, big room, int R, int K, int k,
              int D, int most, int most_types, int q, int objective, int norm, int n_steps, double limit, int go_on,
              int begin, int end) {
    SHARED(double, memory);
    const int two_k = 2 * k;
    double *here = memory + 2, *there = scratch + blockIdx.x * room;  // memory[0]: the risk so far
    auto take = [&](int i) {
        double *&from = shared >> i & 1 ? here : there, *place = from;
        from += sizes[i];
        return place;
    };
    Run run;
    run.K = K, run.k = k, run.m = K / k, run.D = D, run.q = q;
    run.objective = objective, run.norm = norm, run.n_steps = n_steps, run.most = most, run.most_types = most_types;
    run.rival = reinterpret_cast<int *>(take(0));
    run.F = take(1), run.C = take(2), run.spent = take(3), run.delta = take(4), run.table = take(5), run.U = take(6);
    run.G = take(7), run.HG = take(8), run.work = take(9), run.H = take(10), run.GW = take(11), run.W = here;
    for (int r = blockIdx.x; r < R; r += gridDim.x) {
        int first_flagged = flagged[r];
        if (bad[r] >= 0 || (first_flagged >= 0 && !go_on)) continue;
        run.list = ints + big(r) * (4 + 2 * most_types + 3 * most + 1);
        run.number = numbers + big(r) * (5 + most_types + 2 * most);
        run.n = run.list[0], run.types = run.list[1], run.groups = run.list[2];
        double *const phi_r = phi + big(r) * K * two_k, *const gram_r = gram + big(r) * K * K;
        double *const W_r = orthogonal + big(r) * K * D;
        const bool copied = shared >> 12 & 1;
        if (!copied) run.W = W_r;
        for (int i = threadIdx.x; i < K * two_k; i += blockDim.x) run.table[i % two_k * K + i / two_k] = phi_r[i];
        for (int a = threadIdx.x / WARP; n_steps && a < K; a += blockDim.x / WARP)
            for (int b = threadIdx.x % WARP; b <= a; b += WARP) run.H[triangle(a) + b] = gram_r[big(a) * K + b];
        for (big i = threadIdx.x; copied && i < big(K) * D; i += blockDim.x) run.W[i] = W_r[i];
        if (threadIdx.x == 0) memory[0] = risk[r];
        __syncthreads();

        int it = begin, stopped_at = -1;
        for (; it < end; ++it) {
            bool beyond = false;
            for (int t = 0;; ++t) {
                const bool last = t == n_steps;
                respond(run, t > 0, !last && objective == NEG_LABEL_LOGIT);
                __syncthreads();
                if (last) break;
                weigh(run, objective);
                __syncthreads();
                climb(run, t > 0);
                __syncthreads();
                displace(run, t > 0);
                __syncthreads();
                beyond |= project(run, t > 0);
                __syncthreads();
            }
            const bool odd = weigh(run, CROSS_ENTROPY), watched = norm == LINF && n_steps;
            if (watched && !D && threadIdx.x < WARP) {
                double spent = 0;
                for (int c = threadIdx.x; c < run.n; c += WARP) spent += run.spent[c];
                spent = warp_sum(spent);
                if (threadIdx.x == 0) memory[0] += spent;
            }
            const bool broken = __syncthreads_or(odd);
            const bool seen = watched && (D ? bool(__syncthreads_or(beyond)) : !(memory[0] <= limit));
            if (seen && first_flagged < 0) first_flagged = it;
            if (broken) stopped_at = it;
            if (broken || (seen && !go_on)) break;
            slopes(run);
            __syncthreads();
            move_phi(run);
            if (n_steps) {
                const double c = run.lr() * run.step();
                if (D)
                    product(
                        run.n, K, D, [&](int i, int a) { return run.U[big(i) * K + a]; },
                        [&](int i, int l) { return run.GW[big(i) * D + l]; },
                        [&](int a, int l, double sum) { run.W[big(a) * D + l] += c * sum; });
                if (run.n <= K / 2)
                    gram_few(run, c);
                else
                    gram_many(run, c);
            }
            __syncthreads();
        }

        if (it > begin) {
            for (int i = threadIdx.x; i < K * two_k; i += blockDim.x) phi_r[i] = run.table[i % two_k * K + i / two_k];
            for (int a = threadIdx.x / WARP; n_steps && a < K; a += blockDim.x / WARP)
                for (int b = threadIdx.x % WARP; b < K; b += WARP)
                    gram_r[big(a) * K + b] = run.H[in_triangle(a, b)];
            for (big i = threadIdx.x; copied && i < big(K) * D; i += blockDim.x) W_r[i] = run.W[i];
        }
        if (threadIdx.x == 0) risk[r] = memory[0], flagged[r] = first_flagged, bad[r] = stopped_at;
        __syncthreads();
    }
}

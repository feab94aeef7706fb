// Training in one launch: a team of blocks per run keeps the run's weights in shared memory, iteration after iteration.
//
// A run's samples are cut into chunks of S; member b of the team works on chunks b, b + team, ...  The sum over samples is
// the sum of the chunks' partial gradients in their order, whoever works on them: the same bits for every team, and for a
// run in a batch as for the run alone.  A team of one adds them up in shared memory; a larger one leaves them in `part`,
// waits for its members, adds up a slice each, and waits again.
#include "tiles.cuh"

struct Run {  // one run's arrays in global memory
    const real *X;
    const int *label;
    real *W, *part;
    double *loss;
    unsigned *arrivals;
    int team, member, n, chunks;
};

// All members of the team have come here, and see what the others wrote.
__device__ void meet(const Run &run, unsigned &goal) {
    __syncthreads();
    if (run.team == 1) return;
    if (threadIdx.x == 0) {
        goal += run.team;
        __threadfence();
        atomicAdd(run.arrivals, 1u);
        while (int(*reinterpret_cast<volatile unsigned *>(run.arrivals) - goal) < 0) PAUSE();
        __threadfence();
    }
    __syncthreads();
}

__device__ void load_weights(const Chunk &c, const Run &run) {
    for (int e = threadIdx.x; e < c.K * c.d; e += blockDim.x) c.W[e / c.d * c.dp + e % c.d] = __ldcg(run.W + e);
    __syncthreads();
}

// The chunk's inputs and labels; rows of samples and patches that do not exist are 0.
__device__ void load_chunk(const Chunk &c, const Run &run, int chunk, int *label) {
    const int first = chunk * c.S;
    for (int s = threadIdx.x; s < c.S; s += blockDim.x) label[s] = first + s < run.n ? run.label[first + s] : -1;
    const int lane = threadIdx.x % WARP;
    for (int row = threadIdx.x / WARP; row < c.S * c.P4; row += blockDim.x / WARP) {
        const int s = first + row / c.P4, p = row % c.P4;
        const bool here = s < run.n && p < c.P;
        const real *x = run.X + (big(s) * c.P + p) * c.d;
        for (int l = lane; l < c.dp; l += WARP) c.x[row * c.dp + l] = here && l < c.d ? x[l] : real(0);
    }
    __syncthreads();
}

// F, then C = dJ/dF of every sample (S, k), and the losses of `first` on where J is the cross-entropy of training.
__device__ void outputs(const Chunk &c, int objective, double *F, double *C, double *loss) {
    __syncthreads();
    add_up(c, F);
    __syncthreads();
    for (int s = threadIdx.x; s < c.S; s += blockDim.x) {
        if (c.label[s] < 0) {
            for (int i = 0; i < c.k; ++i) C[s * c.k + i] = 0;
            continue;
        }
        const double value = objective_weights(F + s * c.k, c.k, c.label[s], objective, C + s * c.k);
        if (loss) loss[s] = value;
    }
    __syncthreads();
}

// x~ <- x + project_eps(x~ - x + step grad_x J(x~)), n_steps times from x.
__device__ void ascend(const Chunk &c, const Run &run, int chunk, const Activation &sigma, int objective, real step, real eps,
                       int norm, int n_steps, double *F, double *C) {
    const bool own = objective == NEG_LABEL_LOGIT;
    const int n_neurons = own ? c.m : c.K, lane = threadIdx.x % WARP;
    const real *X = run.X + big(chunk) * c.S * c.P * c.d;
    for (int t = 0; t < n_steps; ++t) {
        if (own) {
            respond_to<false>(c, sigma, true, n_neurons, real(-1));
        } else {
            respond_to<true>(c, sigma, false, n_neurons, real(1));
            outputs(c, objective, F, C, nullptr);
            weigh(c, C);
        }
        __syncthreads();
        pull(c, own, n_neurons, [&](int row, int p, int l, const Vec &g) {
            const int s = row / c.P4;
            if (c.label[s] < 0) return;
            for (int v = 0; v < V && l + v < c.d; ++v) {
                real &at = c.x[row * c.dp + l + v];
                const real x = t == 0 ? at : X[(big(s) * c.P + p) * c.d + l + v];
                const real by = at - x + step * g.at[v];
                at = norm == LINF ? x + (by > eps ? eps : by < -eps ? -eps : by) : by;  // l_2: scaled below
            }
        });
        __syncthreads();
        if (norm == LINF) continue;
        for (int row = threadIdx.x / WARP; row < c.S * c.P4; row += blockDim.x / WARP) {
            const int s = row / c.P4, p = row % c.P4;
            if (p >= c.P || c.label[s] < 0) continue;
            real length = 0;
            for (int l = lane; l < c.d; l += WARP) length += c.x[row * c.dp + l] * c.x[row * c.dp + l];
            length = sqrt(warp_sum(length));
            const real scale = length > eps ? eps / length : real(1);
            for (int l = lane; l < c.d; l += WARP) {
                real &at = c.x[row * c.dp + l];
                at = X[(big(s) * c.P + p) * c.d + l] + scale * at;
            }
        }
        __syncthreads();
    }
}

// The chunk's part of the gradient, over 4 V numbers a thread.  Where threads outnumber those tiles, several share a tile's
// rows, in `parts`, and their sums are added in a fixed order through `passed`.  kept: added up there (or written, if `fresh`); else left
// in `part`.
__device__ void collect(const Chunk &c, real *part, real *kept, bool fresh, real *passed, int parts) {
    const int columns = (c.d + V - 1) / V, tiles = (c.K + 3) / 4 * columns;
    for (int g0 = 0; g0 < tiles * parts; g0 += blockDim.x) {
        const int g = g0 + threadIdx.x, mine = g / tiles, a = g % tiles / columns * 4, l = g % columns * V;
        real sum[4][V] = {};
        if (g < tiles * parts) gather_tile(c, a, l, mine, parts, sum);
        for (int turn = parts - 1; turn >= 0; --turn) {
            if (turn == mine && g < tiles * parts)
                #pragma unroll
                for (int i = 0; i < 4; ++i)
                    #pragma unroll
                    for (int h = 0; h < V; ++h) {
                        const int at = (a + i) * c.dp + l + h;
                        if (turn < parts - 1) sum[i][h] += passed[at];
                        if (turn > 0) {
                            passed[at] = sum[i][h];
                        } else if (a + i < c.K && l + h < c.d) {
                            if (kept)
                                kept[at] = fresh ? sum[i][h] : kept[at] + sum[i][h];
                            else
                                part[(a + i) * c.d + l + h] = sum[i][h];
                        }
                    }
            if (parts > 1) __syncthreads();
        }
    }
    __syncthreads();
}

// n_iter iterations W <- W - lr grad L(W; X~) of every run; block = run * team + member.
extern "C" __global__ void __launch_bounds__(256, 2)
train(real *W, const real *X, const int *label, real *part, double *loss, unsigned *arrivals, const real *lr,
      const real *step, const real *eps, const int *count, double *mean, int *bad, int q, real rho, real inverse,
      int objective, int norm, int n_steps, int n_iter, int k, int m, int d, int P, int n, int S, int team, int x_shared,
      int dp, int Kp, int parts, int keep) {
    SHARED(unsigned char, memory);
    if (bad[blockIdx.x / team] >= 0) return;  // in an earlier launch
    const int r = blockIdx.x / team, K = k * m, P4 = (P + 3) / 4 * 4, rows = S * P4;
    const Activation sigma = {q, rho, inverse};
    double *F = reinterpret_cast<double *>(memory), *C = F + S * k, *total = C + S * k;
    Chunk c = {k, m, K, d, P, P4, P4 / 4, S, dp, Kp};
    c.W = reinterpret_cast<real *>(total + 2);
    c.x = c.W + (K + 3) * dp;
    c.z = c.x + rows * dp;
    c.sums = c.z + rows * Kp;
    real *passed = c.sums + rows / 4 * Kp, *after = passed + (parts > 1 ? (K + 3) * dp : 0), *kept = keep ? after : nullptr;
    int *labels = reinterpret_cast<int *>(after + (keep ? (K + 3) * dp : 0));
    c.label = labels;
    const int chunks = (count[r] + S - 1) / S, size = K * d;
    Run run = {X + (x_shared ? 0 : big(r) * n * P * d), label + big(r) * n, W + big(r) * size,
               part + (keep ? 0 : big(r) * ((n + S - 1) / S) * size), loss + big(r) * n, arrivals + r,
               team, int(blockIdx.x) % team, count[r], chunks};
    const real rate = lr[r] / real(count[r]);
    unsigned goal = 0;

    for (int e = threadIdx.x; e < (K + 3) * dp; e += blockDim.x) c.W[e] = 0;
    __syncthreads();
    load_weights(c, run);
    for (int it = 0; it < n_iter; ++it) {
        for (int chunk = run.member; chunk < chunks; chunk += team) {
            load_chunk(c, run, chunk, labels);
            ascend(c, run, chunk, sigma, objective, step[r], eps[r], norm, n_steps, F, C);
            respond_to<true>(c, sigma, false, K, real(1));
            outputs(c, CROSS_ENTROPY, F, C, run.loss + chunk * S);
            weigh(c, C);
            __syncthreads();
            collect(c, run.part + big(chunk) * size, kept, chunk == 0, passed, parts);
        }
        meet(run, goal);
        if (keep) {
            for (int e = threadIdx.x; e < size; e += blockDim.x) {
                const int at = e / d * dp + e % d;
                c.W[at] = fma(-rate, kept[at], c.W[at]);  // one rounding on both paths
            }
        } else {
            for (int e = run.member * int(blockDim.x) + threadIdx.x; e < size; e += team * int(blockDim.x)) {
                real sum = 0;
                for (int chunk = 0; chunk < chunks; ++chunk) sum += __ldcg(run.part + big(chunk) * size + e);
                run.W[e] = fma(-rate, sum, __ldcg(run.W + e));
            }
        }
        if (threadIdx.x < WARP) {
            double sum = 0;
            for (int s = threadIdx.x; s < run.n; s += WARP) sum += __ldcg(run.loss + s);
            sum = warp_sum(sum) / run.n;
            if (threadIdx.x == 0) *total = sum;
        }
        meet(run, goal);
        if (!keep) load_weights(c, run);
        const bool fine = isfinite(*total);
        if (threadIdx.x == 0 && run.member == 0) {
            mean[r] = *total;
            if (!fine) bad[r] = it;
        }
        if (!fine) break;
    }
    __syncthreads();
    if (keep)
        for (int e = threadIdx.x; e < size; e += blockDim.x) run.W[e] = c.W[e / d * dp + e % d];
}

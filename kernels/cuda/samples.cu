// What happens to a sample between two matrix products: one block per sample, Z (P, K) its preactivations.
//
// Slots are (run, sample) pairs; a slot with label -1 only fills up its run: its slopes are 0.
#include "common.cuh"

enum { OUTPUTS = 1, SLOPES = 2 };  // what `respond` is asked for
constexpr int GIVEN = 3;           // an objective: C = dJ/dF comes from the caller

// F_i = sum_p sum_s sigma(z); loss -log softmax(F)_y; margin F_y - max F_j; then, in place, Z <- scale C_i sigma'(z) for
// C = dJ/dF.  C (slots, k) is read where GIVEN; F (slots, k) is written where OUTPUTS are asked for.
extern "C" __global__ void respond(real *Z, const int *label, double *F, const double *given, double *loss,
                                   double *margin, const double *scale, int q, real rho, real inverse, int objective,
                                   int want, int k, int m, int P, int per_run) {
    const Activation sigma = {q, rho, inverse};
    SHARED(double, out);
    double *C = out + k;
    const int t = threadIdx.x, lane = t % WARP, K = k * m;
    const big slot = blockIdx.x;
    const int y = label[slot];
    real *z = Z + slot * P * K;
    if (objective != GIVEN || (want & OUTPUTS)) {
        for (int i = t / WARP; i < k; i += blockDim.x / WARP) {
            double total = 0;
            for (int e = lane; e < P * m; e += WARP) total += sigma.value(z[e / m * K + i * m + e % m]);
            total = warp_sum(total);
            if (lane == 0) out[i] = total;
        }
        __syncthreads();
    }
    if (want & OUTPUTS)
        for (int i = t; i < k; i += blockDim.x) F[slot * k + i] = out[i];
    if (!(want & SLOPES)) return;
    if (t == 0) {
        int rival;
        if (y >= 0 && objective != GIVEN) {
            loss[slot] = objective_weights(out, k, y, objective, C);
            margin[slot] = margin_of(out, k, y, rival);
        }
        const double factor = scale[slot / per_run];
        for (int i = 0; i < k; ++i) C[i] = y < 0 ? 0 : factor * (objective == GIVEN ? given[slot * k + i] : C[i]);
    }
    __syncthreads();
    for (int e = t; e < P * K; e += blockDim.x) {
        const double c = C[e % K / m];
        z[e] = c == 0 ? real(0) : real(c) * sigma.slope(z[e]);
    }
}

// Z <- -sigma'(z), the slopes of J = -F_y with respect to the label's own neurons.
extern "C" __global__ void label_slopes(real *Z, int q, real rho, real inverse, big n) {
    const Activation sigma = {q, rho, inverse};
    for (big e = big(blockIdx.x) * blockDim.x + threadIdx.x; e < n; e += big(gridDim.x) * blockDim.x)
        Z[e] = -sigma.slope(Z[e]);
}

// A sample's best iterate so far, its margin, and whether it rests (margin <= 0).
extern "C" __global__ void keep(const double *margin, double *best, int *rest, const real *moved, real *kept, int size) {
    const big slot = blockIdx.x;
    const bool better = !rest[slot] && margin[slot] < best[slot];
    __syncthreads();
    if (!better) return;
    for (int e = threadIdx.x; e < size; e += blockDim.x) kept[slot * size + e] = moved[slot * size + e];
    if (threadIdx.x == 0) {
        best[slot] = margin[slot];
        rest[slot] = margin[slot] <= 0;
    }
}

// sum_p sum_s sigma(z -+ shift), shift (R, K) >= 0.
extern "C" __global__ void interval(const real *Z, const real *shift, double *lower, double *upper, int q, real rho,
                                    real inverse, int k, int m, int P, int per_run) {
    const Activation sigma = {q, rho, inverse};
    const int lane = threadIdx.x % WARP, K = k * m;
    const big slot = blockIdx.x;
    const real *z = Z + slot * P * K, *by = shift + slot / per_run * K;
    for (int i = threadIdx.x / WARP; i < k; i += blockDim.x / WARP) {
        double low = 0, high = 0;
        for (int e = lane; e < P * m; e += WARP) {
            const int a = i * m + e % m;
            const real at = z[e / m * K + a];
            low += sigma.value(at - by[a]);
            high += sigma.value(at + by[a]);
        }
        low = warp_sum(low);
        high = warp_sum(high);
        if (lane == 0) {
            lower[slot * k + i] = low;
            upper[slot * k + i] = high;
        }
    }
}

// The aligned attack: per target class and patch the best code, then the best target (NumpyEngine.aligned).  A warp
// takes a patch; code c + 1 moves it by +eps dir_c, -(c + 1) by -eps dir_c, 0 not at all; cross (R, K, K) holds
// <w_a, dir_c>, leaders (R, k, n_leaders).
extern "C" __global__ void aligned(const real *Z, const int *label, const real *cross, const int *leaders,
                                   const real *eps, int *choice, int q, real rho, real inverse, int k, int m, int P,
                                   int n_leaders, int per_run) {
    const Activation sigma = {q, rho, inverse};
    SHARED(double, least);
    int *code = reinterpret_cast<int *>(least + P), *better = code + P;
    const int t = threadIdx.x, lane = t % WARP, K = k * m;
    const big slot = blockIdx.x, r = slot / per_run;
    const int y = label[slot];
    for (int p = t; p < P; p += blockDim.x) choice[slot * P + p] = 0;
    if (y < 0) return;
    const real *z = Z + slot * P * K, *turned = cross + r * K * K;
    double best = LARGEST;
    for (int j = 0; j < k; ++j) {
        if (j == y) continue;
        for (int p = t / WARP; p < P; p += blockDim.x / WARP) {
            double low = LARGEST;
            int chosen = 0;
            for (int c = 0; c <= 2 * n_leaders; ++c) {
                const int leader = c == 2 * n_leaders ? 0 : leaders[(r * k + (c < n_leaders ? j : y)) * n_leaders + c % n_leaders];
                const int mine = c == 2 * n_leaders ? 0 : c < n_leaders ? leader + 1 : -leader - 1;
                const real move = mine > 0 ? eps[r] : mine < 0 ? -eps[r] : real(0);
                double gain = 0;
                for (int s = lane; s < m; s += WARP) {
                    const int a = y * m + s, b = j * m + s;
                    gain += sigma.value(z[p * K + a] + move * turned[leader * K + a]);
                    gain -= sigma.value(z[p * K + b] + move * turned[leader * K + b]);
                }
                gain = warp_sum(gain);
                if (gain < low) {
                    low = gain;
                    chosen = mine;
                }
            }
            if (lane == 0) {
                least[p] = low;
                code[p] = chosen;
            }
        }
        __syncthreads();
        if (t == 0) {
            double total = 0;
            for (int p = 0; p < P; ++p) total += least[p];
            *better = total < best;
            best = *better ? total : best;
        }
        __syncthreads();
        for (int p = t; *better && p < P; p += blockDim.x) choice[slot * P + p] = code[p];
        __syncthreads();
    }
}

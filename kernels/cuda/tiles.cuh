// Products in shared memory for one chunk of samples, 4 x 4 (float) or 4 x 2 (double) numbers in a thread's registers.
//
// Rows are patches: sample s has rows s P4 ... s P4 + P4 - 1, P4 = P rounded up to 4; rows beyond P are 0 and add nothing,
// since sigma(0) = sigma'(0) = 0.  A thread's four rows u, u + Q, u + 2Q, u + 3Q (Q = P4 / 4) belong to one sample, and
// neighbouring lanes have neighbouring rows.  Rows are an odd number of 16-byte vectors long: no two lanes of a
// quarter-warp meet in a bank.
#pragma once
#include "common.cuh"

constexpr int V = 16 / int(sizeof(real));  // numbers in a vector

struct __align__(16) Vec {
    real at[V];
};

__device__ inline const Vec &vec(const real *p) { return *reinterpret_cast<const Vec *>(p); }

struct Chunk {
    int k, m, K, d, P, P4, Q, S;  // S samples
    int dp, Kp;                   // lengths of rows of weights and inputs, and of preactivations
    real *W, *x, *z;              // (K + 3, dp), (S P4, dp), (S P4, Kp)
    real *sums;                   // (S Q, Kp): sigma(z) added over a thread's four rows
    const int *label;             // (S,), -1: no sample

    // First neuron that a sample's products see: its label's with `own`, else 0.
    __device__ int first(int s, bool own) const { return own && label[s] > 0 ? label[s] * m : 0; }
};

// z[row][j] <- sign sigma'(<w_{first + j}, x_row>) for j < n_neurons, 0 up to the next multiple of 4; with VALUES also sums.
template <bool VALUES>
__device__ void respond_to(const Chunk &c, const Activation &sigma, bool own, int n_neurons, real sign) {
    const int quads = c.S * c.Q, columns = (n_neurons + 3) / 4;
    for (int g = threadIdx.x; g < quads * columns; g += blockDim.x) {
        const int quad = g % quads, j0 = g / quads * 4, s = quad / c.Q, row = s * c.P4 + quad % c.Q;
        const real *x = c.x + row * c.dp, *w = c.W + (c.first(s, own) + j0) * c.dp;
        real z[4][4] = {};
        #pragma unroll 1
        for (int l = 0; l < c.d; l += V) {
            Vec a[4], b[4];
            #pragma unroll
            for (int i = 0; i < 4; ++i) a[i] = vec(x + i * c.Q * c.dp + l);
            #pragma unroll
            for (int j = 0; j < 4; ++j) b[j] = vec(w + j * c.dp + l);
            #pragma unroll
            for (int v = 0; v < V; ++v)
                #pragma unroll
                for (int i = 0; i < 4; ++i)
                    #pragma unroll
                    for (int j = 0; j < 4; ++j) z[i][j] += a[i].at[v] * b[j].at[v];
        }
        #pragma unroll
        for (int j = 0; j < 4; ++j) {
            const bool real_neuron = j0 + j < n_neurons;
            real total = 0;
            #pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (VALUES) total += sigma.value(z[i][j]);
                c.z[(row + i * c.Q) * c.Kp + j0 + j] = real_neuron ? sign * sigma.slope(z[i][j]) : real(0);
            }
            if (VALUES) c.sums[quad * c.Kp + j0 + j] = total;
        }
    }
}

// F (S, k) <- sums over a class's neurons and a sample's rows: a warp takes a (sample, class).
__device__ inline void add_up(const Chunk &c, double *F) {
    const int lane = threadIdx.x % WARP, n = c.Q * c.m;
    for (int pair = threadIdx.x / WARP; pair < c.S * c.k; pair += blockDim.x / WARP) {
        const real *own = c.sums + pair / c.k * c.Q * c.Kp + pair % c.k * c.m;
        double total = 0;
        for (int e = lane; e < n; e += WARP) total += own[e / c.m * c.Kp + e % c.m];
        total = warp_sum(total);
        if (lane == 0) F[pair] = total;
    }
}

// z[row][a] <- C_{sample, class(a)} z[row][a]; a thread keeps its column, of which there are no more than threads.
__device__ inline void weigh(const Chunk &c, const double *C) {
    const int a = threadIdx.x % c.Kp, first = threadIdx.x / c.Kp, step = blockDim.x / c.Kp;
    if (a >= c.K || first >= step) return;
    for (int s = 0; s < c.S; ++s) {
        const real weight = real(C[s * c.k + a / c.m]);
        for (int p = first; p < c.P4; p += step) c.z[(s * c.P4 + p) * c.Kp + a] *= weight;
    }
}

// g = sum_j z[row][j] w_{first + j}, four rows by V numbers at a time; then(row, p, l, V numbers of g) with p < P.
template <typename Then>
__device__ void pull(const Chunk &c, bool own, int n_neurons, Then then) {
    const int quads = c.S * c.Q, columns = (c.d + V - 1) / V;
    for (int g = threadIdx.x; g < quads * columns; g += blockDim.x) {
        const int quad = g % quads, l = g / quads * V, s = quad / c.Q, u = quad % c.Q, row = s * c.P4 + u;
        const real *z = c.z + row * c.Kp, *w = c.W + c.first(s, own) * c.dp + l;
        Vec sum[4] = {};
        #pragma unroll 1
        for (int j = 0; j < n_neurons; j += V) {
            Vec a[4], b[V];
            #pragma unroll
            for (int i = 0; i < 4; ++i) a[i] = vec(z + i * c.Q * c.Kp + j);
            #pragma unroll
            for (int v = 0; v < V; ++v) b[v] = vec(w + (j + v) * c.dp);
            #pragma unroll
            for (int v = 0; v < V; ++v)
                #pragma unroll
                for (int i = 0; i < 4; ++i)
                    #pragma unroll
                    for (int h = 0; h < V; ++h) sum[i].at[h] += a[i].at[v] * b[v].at[h];
        }
        #pragma unroll
        for (int i = 0; i < 4; ++i)
            if (u + i * c.Q < c.P) then(row + i * c.Q, u + i * c.Q, l, sum[i]);
    }
}

// sum_row z[row][a] x_row, 4 neurons by V numbers in a thread, over the rows part, part + parts, ...
__device__ inline void gather_tile(const Chunk &c, int a, int l, int part, int parts, real (&sum)[4][V]) {
    #pragma unroll 2
    for (int row = part; row < c.S * c.P4; row += parts) {
        const Vec x = vec(c.x + row * c.dp + l);
        const real *z = c.z + row * c.Kp + a;
        #pragma unroll
        for (int i = 0; i < 4; i += V) {
            const Vec weight = vec(z + i);
            #pragma unroll
            for (int v = 0; v < V; ++v)
                #pragma unroll
                for (int h = 0; h < V; ++h) sum[i + v][h] += weight.at[v] * x.at[h];
        }
    }
}

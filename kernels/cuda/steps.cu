// Elementwise steps between matrix products: ascent slopes of the label's neurons, the move inside the ball, the update.
#include "common.cuh"

// One warp per patch: x~ <- x + project_eps(at - x + step * direction) from x~ = `at`; direction is the gradient g, or, if
// `steepest`, its sign (l_inf) or g / |g| (l_2).  Samples that rest stay.  X and `at` may be one run's for all (shared).
extern "C" __global__ void climb(real *moved, const real *at, const real *X, const real *G, const int *rest,
                                 const real *step, const real *eps, int norm, int steepest, int x_shared, int at_shared,
                                 int P, int per_run, big rows, int d) {
    const int lane = threadIdx.x % WARP;
    const big row = (big(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    if (row >= rows || rest[row / P]) return;
    const big r = row / per_run, own = row % per_run;
    const real *x = X + (x_shared ? own : row) * d, *from = at + (at_shared ? own : row) * d, *g = G + row * d;
    real *to = moved + row * d;
    const real up = step[r], most = eps[r];
    if (norm == LINF) {
        for (int l = lane; l < d; l += WARP) {
            const real way = steepest ? real(g[l] > 0) - real(g[l] < 0) : g[l];
            const real by = from[l] - x[l] + up * way;
            to[l] = x[l] + (by > most ? most : by < -most ? -most : by);
        }
        return;
    }
    real size = 0, length = 0;
    for (int l = lane; steepest && l < d; l += WARP) size += g[l] * g[l];
    size = sqrt(warp_sum(size));
    const real unit = steepest ? (size > 0 ? up / size : real(0)) : up;
    for (int l = lane; l < d; l += WARP) {
        const real by = from[l] - x[l] + unit * g[l];
        length += by * by;
    }
    length = sqrt(warp_sum(length));
    const real scale = length > most ? most / length : real(1);
    for (int l = lane; l < d; l += WARP) to[l] = x[l] + scale * (from[l] - x[l] + unit * g[l]);
}

// W <- W - lr grad for the runs that still go; `size` numbers per run.
extern "C" __global__ void update(real *W, const real *gradient, const real *lr, const int *bad, int size, big n) {
    for (big e = big(blockIdx.x) * blockDim.x + threadIdx.x; e < n; e += big(gridDim.x) * blockDim.x) {
        const big r = e / size;
        if (bad[r] < 0) W[e] -= lr[r] * gradient[e];
    }
}

// One warp per run: the mean of its samples' losses, share = 1 / their number, and the iteration at which that is not finite.
extern "C" __global__ void close_iteration(const double *loss, const int *label, const double *share, double *mean,
                                           int *bad, int *iteration, int per_run) {
    const int r = blockIdx.x, lane = threadIdx.x;
    if (bad[r] >= 0) return;
    double total = 0;
    for (big n = big(r) * per_run + lane; n < big(r + 1) * per_run; n += WARP)
        if (label[n] >= 0) total += loss[n];
    total = warp_sum(total) * share[r];
    __syncwarp();
    if (lane == 0) {
        mean[r] = total;
        if (!isfinite(total)) bad[r] = iteration[r];
        iteration[r] += 1;
    }
}

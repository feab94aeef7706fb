// Sums and products inside a block, for recursion.cu.  Every sum has one order, whatever the number of threads: dot
// products by teams of 8 lanes, products of matrices by tiles of a warp.
#pragma once
#include "common.cuh"

constexpr int TEAM = 8, ROWS = 8;  // lanes of a dot product; most rows of a warp's tile

// Where row a of a triangle begins, for a < 2^16
__device__ __forceinline__ unsigned triangle(unsigned a) { return a * (a + 1) / 2; }

__device__ __forceinline__ unsigned in_triangle(unsigned a, unsigned b) {
    return a > b ? triangle(a) + b : triangle(b) + a;
}

// The row that holds element t of a triangle
__device__ __forceinline__ int row_of(unsigned t) {
    int a = int((sqrtf(8.0f * t + 1) - 1) / 2);  // but for rounding
    while (triangle(a) > t) --a;
    while (triangle(a + 1) <= t) ++a;
    return a;
}

__device__ __forceinline__ double team_sum(double x) {
    for (int lanes = TEAM / 2; lanes; lanes /= 2) x += __shfl_xor_sync(ALL, x, lanes);
    return x;
}

// done(task, lane, sum of term(task, lane) over a team's lanes) for every task; all threads of the block come here
template <typename Term, typename Done> __device__ __forceinline__ void team_sums(int tasks, Term term, Done done) {
    const int teams = blockDim.x / TEAM, lane = threadIdx.x % TEAM;
    for (int begin = 0; begin < tasks; begin += teams) {
        const int task = begin + threadIdx.x / TEAM;
        const double total = team_sum(task < tasks ? term(task, lane) : 0.0);
        if (task < tasks) done(task, lane, total);
    }
}

// store(row, column, sum over x in [lo, hi) of left(x, row) right(x, column)): the rows from..from + N - 1 below `rows`
// and the warp's 32 columns from `column` on, of which those below `columns` are stored
template <int N, typename Left, typename Right, typename Store>
__device__ __forceinline__ void tile(int lo, int hi, int from, int rows, int column, int columns, Left left,
                                     Right right, Store store) {
    column += threadIdx.x % WARP;
    const int inside = min(column, columns - 1);
    int row[N];
    double sum[N];
#pragma unroll
    for (int u = 0; u < N; ++u) row[u] = min(from + u, rows - 1), sum[u] = 0;
    for (int x = lo; x < hi; ++x) {
        const double r = right(x, inside);
#pragma unroll
        for (int u = 0; u < N; ++u) sum[u] += left(x, row[u]) * r;
    }
#pragma unroll
    for (int u = 0; u < N; ++u)
        if (from + u < rows && column < columns) store(from + u, column, sum[u]);
}

// The whole of a product, one tile after the other
template <typename Left, typename Right, typename Store>
__device__ __forceinline__ void product(int depth, int rows, int columns, Left left, Right right, Store store) {
    const int across = (columns + WARP - 1) / WARP, tiles = (rows + ROWS - 1) / ROWS * across;
    for (int i = threadIdx.x / WARP; i < tiles; i += blockDim.x / WARP)
        tile<ROWS>(0, depth, i / across * ROWS, rows, i % across * WARP, columns, left, right, store);
}

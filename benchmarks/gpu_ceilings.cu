// What a GPU can do at most, measured by gpu_ceilings.py: multiply-adds in registers, bytes copied.
#include "common.cuh"

constexpr int CHAINS = 8;  // multiply-adds of a thread that do not wait for each other
constexpr int DEPTH = 32;  // steps of every chain in a round: what counts the rounds is a hundredth of the work

// total[thread] = sum over chains of (x - its start) after rounds * DEPTH steps x <- a x + b.  For a = b = 1, which no
// compiler can know, that is the number of multiply-adds done, exactly (while rounds * DEPTH < 2^24 in float).  Chains
// start apart, or they would be one.
extern "C" __global__ void multiply_add(double *total, real a, real b, int rounds) {
    real x[CHAINS];
#pragma unroll
    for (int c = 0; c < CHAINS; ++c) x[c] = c;
#pragma unroll 1
    for (int round = 0; round < rounds; ++round)
#pragma unroll
        for (int step = 0; step < DEPTH; ++step)
#pragma unroll
            for (int c = 0; c < CHAINS; ++c) x[c] = a * x[c] + b;
    double sum = 0;
#pragma unroll
    for (int c = 0; c < CHAINS; ++c) sum += double(x[c]) - c;
    total[big(blockIdx.x) * blockDim.x + threadIdx.x] = sum;
}

// to[0 .. n) = from[0 .. n) in accesses of 16 bytes, four of a thread in flight; n * sizeof(real) is a multiple of 16.
extern "C" __global__ void copy(const real *__restrict__ from, real *__restrict__ to, big n) {
    const float4 *source = reinterpret_cast<const float4 *>(from);
    float4 *target = reinterpret_cast<float4 *>(to);
    const big vectors = n * big(sizeof(real)) / 16, stride = big(gridDim.x) * blockDim.x;
    big e = big(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; e + 3 * stride < vectors; e += 4 * stride) {
        const float4 one = source[e], two = source[e + stride];
        const float4 three = source[e + 2 * stride], four = source[e + 3 * stride];
        target[e] = one;
        target[e + stride] = two;
        target[e + 2 * stride] = three;
        target[e + 3 * stride] = four;
    }
    for (; e < vectors; e += stride) target[e] = source[e];
}

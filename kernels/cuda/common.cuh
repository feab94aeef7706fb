// What every kernel family shares.  REAL is float or double (-DREAL=...); logits, losses and margins are double in both.
#pragma once

#ifndef REAL
#error "compile with -DREAL=float or -DREAL=double"
#endif

#ifndef SHARED  // tests/cuda_on_cpu.h has its own, where kernels run on the CPU
#define SHARED(type, name) extern __shared__ __align__(16) unsigned char shared_memory[]; \
                           type *name = reinterpret_cast<type *>(shared_memory)
#define PAUSE()
#endif

enum { NEG_LABEL_LOGIT = 0, MARGIN = 1, CROSS_ENTROPY = 2 };  // objectives and norms as in kernels/formulas.py
enum { LINF = 0, L2 = 1, L1 = 2 };

typedef REAL real;
typedef long long big;

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;
constexpr double LARGEST = 1.7976931348623157e308;  // NVRTC has no INFINITY

// ------------------------------------------------------------------ the activation (Sec. 2.3)
struct Activation {
    int q;
    real rho, inverse;  // 1 / rho

    // NaN stays NaN, so that a run that diverges is seen in its loss
    __device__ real clipped(real z) const {
        real t = z * inverse;
        return t > 1 ? real(1) : t <= 0 ? real(0) : t;
    }

    // sigma'(z) = clip(z / rho, 0, 1)^(q-1)
    __device__ real slope(real z) const {
        real t = clipped(z), power = t;
        for (int i = 2; i < q; ++i) power *= t;
        return power;
    }

    // sigma(z) = rho/q clip(z / rho, 0, 1)^q + max(z - rho, 0); the two branches meet at rho
    __device__ real value(real z) const {
        return rho / q * clipped(z) * slope(z) + (z > rho ? z - rho : real(0));
    }
};

// ------------------------------------------------------------------ sums in a fixed order
template <typename T> __device__ T warp_sum(T x) {
    for (int lanes = WARP / 2; lanes; lanes /= 2) x += __shfl_xor_sync(ALL, x, lanes);
    return x;
}

template <typename T> __device__ T warp_max(T x) {
    for (int lanes = WARP / 2; lanes; lanes /= 2) {
        T other = __shfl_xor_sync(ALL, x, lanes);
        x = other > x ? other : x;
    }
    return x;
}

// ------------------------------------------------------------------ losses and objectives (Sec. 2.4)
// F_y - max_{j != y} F_j, and the first j that attains the maximum.
__device__ inline double margin_of(const double *F, int k, int y, int &rival) {
    rival = y == 0 ? 1 : 0;
    for (int i = 0; i < k; ++i)
        if (i != y && F[i] > F[rival]) rival = i;
    return F[y] - F[rival];
}

// C_i = dJ/dF_i for i < k, and -log softmax(F)_y where J is the cross-entropy (else 0).
__device__ inline double objective_weights(const double *F, int k, int y, int objective, double *C) {
    double loss = 0;
    if (objective == CROSS_ENTROPY) {
        double top = F[0], rivals = 0;
        for (int i = 1; i < k; ++i) top = F[i] > top ? F[i] : top;
        for (int i = 0; i < k; ++i) {
            C[i] = exp(F[i] - top);
            if (i != y) rivals += C[i];
        }
        const double own = C[y], total = rivals + own;
        for (int i = 0; i < k; ++i) C[i] /= total;
        C[y] = -rivals / total;  // not p_y - 1, which is 0 from a margin of 38 on
        loss = top - F[y] + log1p(rivals + (own - 1));
    } else {
        for (int i = 0; i < k; ++i) C[i] = 0;
        if (objective == MARGIN) {
            int rival;
            margin_of(F, k, y, rival);
            C[rival] = 1;
        }
        C[y] -= 1;
    }
    return loss;
}

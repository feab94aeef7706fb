"""Time of one training iteration on the Numba engine, beside the same matrix products alone by NumPy's BLAS.

``python benchmarks/engine.py [--repeats 9]``.  Every row is first checked against the float64 reference.  Then, in
turn, in one process: our iteration, and the necessary matrix products of the same shapes by NumPy's BLAS (two per
standard step, and two on one class's neurons for the ascent on -F_y); the last column is a ratio of medians of one run.
FLOPs are the necessary ones: 2 S K d per product, S = N P, K = k m.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from advfeat.kernels import LINF, NEG_LABEL_LOGIT, get_engine

#            R, k, m, d, P, N
WORKLOADS = {
    "default, 4 seeds": (4, 5, 20, 100, 64, 20),
    "W1": (1, 10, 10, 128, 16, 256),
    "W3": (256, 5, 5, 32, 16, 50),
}
Q, RHO = 3, 100.0  # logits of order 1: saturated softmax residuals would be denormal numbers, slow on any engine


def median_ms(jobs, repeats):
    """Medians of several jobs timed in turn, in milliseconds."""
    times = np.zeros((repeats + 1, len(jobs)))
    for t in times:
        for j, job in enumerate(jobs):
            start = time.perf_counter()
            job()
            t[j] = time.perf_counter() - start
            time.sleep(0.1)  # OpenBLAS' threads spin on for a while after their work
    return 1e3 * np.median(times[1:], axis=0)  # the first round warms up


def check(engine, W, X, y, one, eps):
    """One adversarial step against the reference on the first runs."""
    few = slice(0, min(len(W), 2))
    ours, theirs = W[few].copy(), W[few].astype(np.float64)
    arguments = (Q, RHO, one[few], 1, NEG_LABEL_LOGIT, one[few], eps[few], LINF, 1)
    engine.train(ours, engine.pack(X[few], y[few], len(ours)), *arguments)
    reference = get_engine("numpy")
    reference.train(theirs, reference.pack(X[few].astype(np.float64), y[few], len(ours)), *arguments)
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert error < (1e-13 if W.dtype == np.float64 else 1e-5), error


def run(name, dtype, repeats):
    R, k, m, d, P, N = WORKLOADS[name]
    rng, K = np.random.default_rng(0), k * m
    W = (rng.standard_normal((R, k, m, d)) / np.sqrt(d)).astype(dtype)
    X = rng.standard_normal((R, N, P, d)).astype(dtype)
    y = rng.integers(k, size=(R, N))
    one, eps = np.ones(R), np.full(R, 0.1)
    engine = get_engine("numba")
    check(engine, W, X, y, one, eps)
    batch = engine.pack(X, y, R)
    steps = max(1, round(1e10 / (4 * R * N * P * K * d)))  # about a tenth of a second
    flat_x, flat_w = X.reshape(R, N * P, d), W.reshape(R, K, d)

    def train(n_ascent):
        engine.train(W.copy(), batch, Q, RHO, 1e-3 * one, steps, NEG_LABEL_LOGIT, one, eps, LINF, n_ascent)

    def products(ascent):
        for _ in range(steps):
            Z = flat_x @ flat_w.swapaxes(1, 2)
            Z.swapaxes(1, 2) @ flat_x
            if ascent:
                Z = flat_x @ flat_w[:, :m].swapaxes(1, 2)
                Z @ flat_w[:, :m]

    jobs = [lambda: train(0), lambda: products(False), lambda: train(1), lambda: products(True)]
    standard, p_standard, adversarial, p_adversarial = median_ms(jobs, repeats) / steps
    flops = 4 * R * N * P * K * d
    for label, ours, theirs, work in (
        ("standard", standard, p_standard, flops),
        ("adversarial", adversarial, p_adversarial, flops * (1 + 1 / k)),
    ):
        rate = work / ours / 1e6
        row = f"{ours:>10.3f}{rate:>10.0f}{theirs:>12.3f}{theirs / ours:>9.2f}"
        print(f"{name:<18}{np.dtype(dtype).name:<9}{label:<13}{row}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    print(f"{'workload':<18}{'dtype':<9}{'step':<13}{'ms':>10}{'GFLOP/s':>10}{'BLAS ms':>12}{'BLAS/us':>9}")
    for name in WORKLOADS:
        for dtype in (np.float32, np.float64):
            run(name, dtype, args.repeats)


if __name__ == "__main__":
    main()

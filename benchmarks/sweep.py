"""Batched network runs: W3's 256 small trainings as one batch, beside the same trainings one by one.

``python benchmarks/sweep.py [--quick] [--runs 24]`` (extra ``bench``; at the end of ``make bench``), adversarial,
float32, everything in turn in one process, medians over rounds:

- the batch through the public `advfeat.train`, set-up and records included;
- `--runs` of the same runs through the public `advfeat.train` one by one, their time scaled to all 256; final weights
  must be those of the batch bit for bit;
- all matrix products of one iteration as NumPy matrix products of the same shapes, float32, the better of one call for
  all runs (BLAS shares out what it likes) and one half of the runs per thread;
- the machine's multiply-add peak;
- 50 iterations of the fastest JAX variant (`jit`, `scan`, `vmap` or `map` over runs), beside the batch at T = 200.

First, one step of the engine and of every JAX variant is checked against the float64 reference.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from advfeat.kernels.cpu.engine import get_num_threads
from machine import multiply_add_peak
from run import check, our_job, peer_jobs, seconds
from workloads import RHO, Q, all_workloads

import advfeat as af

STEP = "adversarial"
ROUNDS = {200: 5, 1000: 3, 4000: 2}
QUICK = {200: 3}
JAX_ITER = 50


def trained(load, n_iter, r=None):
    """Weights after public training of the whole batch, or of run r alone."""
    at = slice(None) if r is None else r
    rates = (load.lr[at], load.rate[at], load.eps[at])
    lr, rate, eps = rates if r is None else map(float, rates)
    config = af.TrainConfig(lr=lr, n_iter=n_iter, adversarial=True, ascent_lr=rate, eps=eps)
    return af.train(af.PatchCNN(load.W[at], q=Q, rho=RHO), (load.X[at], load.y[at]), config).net.W


def timed(job):
    start = time.perf_counter()
    answer = job()
    return time.perf_counter() - start, answer


def one_by_one(load, n_iter, chosen, expected):
    """Seconds that all runs would take one by one, from the `chosen` ones."""
    took, weights = timed(lambda: [trained(load, n_iter, r) for r in chosen])
    if not np.array_equal(np.stack(weights), expected[chosen]):
        raise SystemExit(f"{n_iter} iterations: a run alone differs from the run in the batch")
    return took * load.n_runs / len(chosen)


class MatrixProducts:
    """The products of one adversarial iteration, NumPy's: forward, gradient, and two with the label's neurons alone."""

    def __init__(self, load):
        R, k, m, d, lanes = load.n_runs, load.k, load.m, load.d, load.N * load.P
        shapes = [((lanes, d), (d, k * m)), ((k * m, lanes), (lanes, d))]
        shapes += [((k, lanes // k, d), (k, d, m)), ((k, lanes // k, m), (k, m, d))]
        draw = np.random.default_rng(0).standard_normal
        self.pairs = [[draw((R, *shape)).astype(load.dtype) for shape in pair] for pair in shapes]
        self.outs = [a @ b for a, b in self.pairs]
        self.work, self.pool = load.flops(STEP), ThreadPoolExecutor(get_num_threads())

    def part(self, runs):
        for (a, b), out in zip(self.pairs, self.outs, strict=True):
            np.matmul(a[runs], b[runs], out=out[runs])

    def shared(self):
        n, R = get_num_threads(), len(self.outs[0])
        list(self.pool.map(self.part, [slice(R * t // n, R * (t + 1) // n) for t in range(n)]))

    def rate(self):
        """GFLOP/s, the better of both ways."""
        return self.work / min(seconds(job) for job in (self.shared, lambda: self.part(slice(None)))) / 1e9


def fastest_peer(load):
    """Name and job of JAX's fastest variant, `JAX_ITER` iterations; all are checked with the engine first."""
    jobs = peer_jobs(load, STEP, 1)
    check(load, STEP, our_job(load, STEP, 1), jobs)
    jobs = peer_jobs(load, STEP, 3)
    took = {name: min(seconds(job) for _ in range(3)) for name, job in jobs.items()}
    name = min(took, key=took.get)
    job = peer_jobs(load, STEP, JAX_ITER)[name]
    job()
    return name, job


def measure(load, n_iter, rounds, chosen, products, peer):
    """One row of the table."""
    found = []
    for _ in range(rounds):
        batch, weights = timed(lambda: trained(load, n_iter))
        alone = one_by_one(load, n_iter, chosen, weights)
        rate, top = load.flops(STEP) * n_iter / batch / 1e9, multiply_add_peak(load.dtype, get_num_threads())
        theirs = np.nan if peer is None else seconds(peer) / JAX_ITER * n_iter / batch
        numpy_rate = products.rate()
        found.append((batch, alone, batch / alone, rate, numpy_rate, rate / numpy_rate, rate / top, theirs))
    batch, alone, ratio, rate, numpy_rate, of_numpy, of_peak, theirs = np.median(found, axis=0)
    return (
        f"| {n_iter} | {batch:.2f} s | {alone:.2f} s | {ratio:.2f} | {rate:.0f} GFLOP/s | {numpy_rate:.0f} GFLOP/s | "
        f"{of_numpy:.0%} | {of_peak:.0%} | {'' if peer is None else format(theirs, '.2f')} |"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="200 iterations only")
    parser.add_argument("--runs", type=int, default=24, help="how many runs are trained one by one")
    args = parser.parse_args()
    load = all_workloads("float32")["W3"]
    chosen = np.unique(np.linspace(0, load.n_runs - 1, args.runs).astype(int))
    name, peer = fastest_peer(load)
    products = MatrixProducts(load)
    trained(load, 2), trained(load, 2, 0)
    print(f"W3, {load.shape}, float32, adversarial, {get_num_threads()} threads; JAX: {name}\n")
    columns = "T", "batch", "one by one", "ratio", "batch", "NumPy's products", "of those", "of the peak", "JAX / ours"
    print("| " + " | ".join(columns) + " |")
    print("| --- " * 9 + "|")
    for n_iter, rounds in (QUICK if args.quick else ROUNDS).items():
        print(measure(load, n_iter, rounds, chosen, products, peer if n_iter == 200 else None), flush=True)


if __name__ == "__main__":
    main()

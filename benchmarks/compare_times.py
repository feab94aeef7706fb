"""What `compare.py` times: jobs that one version of the package does when it is told to.

A worker reads lines "NAME REPEATS" and answers each with the seconds that so many repetitions took, or with "error"
and what went wrong.  The first call of a job prepares its inputs and runs it once before the clock starts, so
compilation is not measured.  ``--names`` prints the jobs, and which are not done by default.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial

from compare_inputs import Q, Shape, command, scratch, settings

import advfeat as af
from advfeat import theory

DEFAULT = Shape(R=4, k=5, m=20, d=100, P=64, n=20)  # of `advfeat reproduce`
W1 = Shape(R=1, k=10, m=10, d=128, P=16, n=256, n_robust=2, noise=0.5)  # these two as in workloads.py
W3 = Shape(R=256, k=5, m=5, d=32, P=16, n=50, noise=0.5)
ONE_RUN = Shape(R=1, k=5, m=20, d=100, P=64, n=20)
ASCENT = {"adversarial": True, "ascent_lr": 40.0, "eps": 1.0}
SUITE = (af.FeatureSwap(), af.FGSM(), af.Aligned(), af.PGD("margin"), af.APGD("margin"), af.Rescue())
SMALL_RUN = {"n_iter": 400, "n_records": 2, "n_test": 10}


def training(shape, dtype, n_iter, **options):
    """`n_iter` iterations with one record before and one behind them."""
    net, data = shape.fresh("numba", dtype), shape.data(dtype=dtype)
    config = af.TrainConfig(lr=12.5, n_iter=n_iter, record_every=n_iter, **options)
    return lambda: af.train(net, data, config)


def gradient(dtype):
    net, data = DEFAULT.fresh("numba", dtype), DEFAULT.data(dtype=dtype)
    return lambda: net.loss_and_grad(data.X, data.y)


def logits(dtype):
    net, data = DEFAULT.fresh("numba", dtype), DEFAULT.data(dtype=dtype)
    return lambda: net.logits(data.X)


def attack(*attacks, eps=0.4, shape=DEFAULT):
    """At a radius where most samples stand, so that no attack rests early."""
    net, data, threat = shape.learned("numba"), shape.data(), af.ThreatModel(eps=eps)
    suite = af.AttackSuite(attacks, stop_early=False)
    return lambda: suite(net, data, threat)


def interval():
    net, data = DEFAULT.learned("numba"), DEFAULT.data()
    return lambda: af.interval_margin(net, data.X, data.y, eps=0.4)


def certificate(method, norm="linf", eps=0.5, budget="patch"):
    """At a radius where about half of the samples are certified."""
    net, data = ONE_RUN.learned("numba"), ONE_RUN.data()
    options = {"norm": norm, "budget": budget, "method": method, "max_nodes": 8}
    return lambda: af.certify(net, data.X, data.y, eps, **options)


def recursion(m, adversarial):
    state = theory.State.draw(5, m, 100, rng=list(range(8)), init_std=0.1)
    types = theory.population_types(5, 64, 1, 3.0, 1.0)
    ascent = {"ascent_lr": 40.0, "eps": 1.0} if adversarial else {}
    options = {"q": Q, "rho": 100.0, "lr": 12.5, "n_iter": 300, "record_every": 300}
    return lambda: theory.simulate(state, types, **options, **ascent)


def process(*arguments):
    """The command line in a process of its own, from its start to its end."""

    def job():
        with scratch() as folder:
            command(*arguments, folder=folder)

    return job


JOBS = {
    **{
        f"training/{name}/{dtype}": partial(training, DEFAULT, dtype, 50, **options)
        for dtype in ("float32", "float64")
        for name, options in {"standard": {}, "adversarial": ASCENT}.items()
    },
    "training/W1/standard/float32": partial(training, W1, "float32", 20),
    "training/W1/adversarial/float32": partial(training, W1, "float32", 20, **ASCENT),
    "training/W3/standard/float32": partial(training, W3, "float32", 10),
    "training/W3/adversarial/float32": partial(training, W3, "float32", 10, **ASCENT),
    "training/minibatches/float32": partial(training, DEFAULT, "float32", 50, batch_size=10),
    "gradient/float32": partial(gradient, "float32"),
    "logits/float64": partial(logits, "float64"),
    "attacks/pgd": partial(attack, af.PGD("cross_entropy")),
    "attacks/aligned": partial(attack, af.Aligned()),
    "attacks/suite": partial(attack, *SUITE, shape=ONE_RUN),
    "certificate/interval": interval,
    "certificate/linear": partial(certificate, "linear"),
    "certificate/branch-and-bound": partial(certificate, "branch_and_bound"),
    "certificate/branch-and-bound/l2": partial(certificate, "branch_and_bound", "l2", 0.58),
    "recursion/standard/K25": partial(recursion, 5, False),
    "recursion/standard/K100": partial(recursion, 20, False),
    "recursion/adversarial/K25": partial(recursion, 5, True),
    "recursion/adversarial/K100": partial(recursion, 20, True),
    "process/info": partial(process, "info"),
    "process/reproduce": partial(process, "reproduce", "--seeds", 2, "--out", "run", *settings(**SMALL_RUN)),
    "process/figure3": partial(process, "reproduce", "--out", "run"),
}
RARE = ("process/figure3",)  # minutes a round: only where it is asked for
#: Not with --quick: jobs that differ little from another one, and `reproduce`.
SLOW = (
    *(f"training/{name}/float32" for name in ("W1/standard", "W3/standard", "minibatches")),
    "training/standard/float64",
    "attacks/suite",
    "certificate/branch-and-bound/l2",
    "recursion/standard/K25",
    "recursion/adversarial/K25",
    "process/reproduce",
)


def timed(job, repeats: int) -> float:
    """Seconds that `repeats` calls of a job take."""
    start = time.perf_counter()
    for _ in range(repeats):
        job()
    return time.perf_counter() - start


def main(*arguments):
    if arguments == ("--names",):
        when = {name: "rare" if name in RARE else "slow" if name in SLOW else "always" for name in JOBS}
        print(*(f"{name} {when[name]}" for name in JOBS), sep="\n")
        return
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the package prints is no answer
    ready = {}
    for line in sys.stdin:
        name, repeats = line.split()
        try:
            if name not in ready:
                ready[name] = JOBS[name]()
                ready[name]()
            answer = repr(timed(ready[name], int(repeats)))
        except Exception as error:
            answer = f"error {type(error).__name__}: {error}".replace("\n", " ")
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

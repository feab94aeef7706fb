"""The exact recursion of many seeds beside the same formulas in JAX (jit, vmap, scan): time per run and iteration.

    python benchmarks/recursion.py [--runs R] [--repeats N] [--alone] [--before FOLDER] [--json FILE]

Standard and adversarial training of R runs (default 1,024) at k = 5 classes of 5 and of 20 neurons, float64, in turn,
medians over repeats; JAX gets the form with low-rank updates of H, as ours has, and keeps one core busy.  Below stand
eight runs of both trainings, 4,000 iterations, K = 25.  --alone leaves JAX out; --before measures a checkout
of an earlier version too, in a process of its own before each row of ours.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

try:
    import jax
    import jax.numpy as jnp
    from jax import lax

    jax.config.update("jax_enable_x64", True)
except ImportError:  # without the extra bench
    jax = None

from advfeat.experiments.configuration import Figure3Config
from advfeat.theory import State, population_types, simulate

ITERATIONS = {(5, False): 1000, (5, True): 400, (20, False): 400, (20, True): 100}  # of a measurement


def problem(config, n_seeds):
    shape = (config.n_classes, config.n_neurons, config.patch_dim)
    state = State.draw(*shape, rng=list(range(n_seeds)), init_std=config.init_std)
    return state, population_types(config.n_classes, config.n_patches, config.n_robust, config.alpha, config.beta)


def ours(config, state, types, n_iter, adversarial):
    ascent = {"ascent_lr": config.ascent_lr, "eps": config.eps} if adversarial else {}
    start = time.perf_counter()
    rates = {"q": config.q, "rho": config.rho, "lr": config.lr}
    found = simulate(state, types, n_iter=n_iter, record_every=max(n_iter, 1), **rates, **ascent)
    return time.perf_counter() - start, found.phi[-1]


class Peer:
    """One run: phi (K, 2k), gram (K, K); two kinds of patches per class, constant strengths."""

    def __init__(self, config, adversarial):
        c, k = config, config.n_classes
        self.c, self.k, self.m, self.adversarial = c, k, c.n_neurons, adversarial
        self.s = np.array([c.alpha, c.beta])
        self.count = np.array([c.n_robust, c.n_patches - c.n_robust], float)
        self.feature = np.arange(k)[:, None] + np.array([0, k])
        self.own = np.eye(2 * k)[self.feature] * self.s[:, None]
        self.cls = np.repeat(np.arange(k), c.n_neurons)
        self.label = (np.arange(k)[:, None] == self.cls).astype(float)[:, None]
        self.run = jax.jit(jax.vmap(self.many, (0, 0, None)), static_argnums=2)

    def slope(self, z):
        return jnp.clip(z / self.c.rho, 0, 1) ** (self.c.q - 1)

    def step(self, carry, _):
        (phi, gram), c = carry, self.c
        z = self.s[:, None] * phi.T[self.feature]
        delta = jnp.zeros(self.own.shape)
        if self.adversarial:
            gamma = -self.slope(z) * self.label
            delta = jnp.clip(c.ascent_lr * gamma @ phi, -c.eps, c.eps)
            image = gamma @ gram
            z = z + delta @ phi.T + c.ascent_lr * image
        value = jnp.where(z > c.rho, z - (c.rho - c.rho / c.q), c.rho / c.q * jnp.clip(z / c.rho, 0, 1) ** c.q)
        F = (self.count[:, None] * value).sum(1).reshape(self.k, self.k, self.m).sum(-1)
        e = (jnp.eye(self.k) - jax.nn.softmax(F)) / self.k
        U = self.count[:, None] * e[:, self.cls][:, None] * self.slope(z)
        moved = phi + c.lr * jnp.einsum("sca,scf->af", U, self.own + delta)
        if self.adversarial:
            U, G, HG = (a.reshape(-1, len(phi)) for a in (U, gamma, image))
            rate = c.lr * c.ascent_lr
            V = rate * HG + 0.5 * rate**2 * (G @ HG.T) @ U
            half = U.T @ V
            gram = gram + half + half.T
        return (moved, gram), None

    def many(self, phi, gram, n_iter):
        return lax.scan(self.step, (phi, gram), None, length=n_iter)[0][0]

    def __call__(self, state, n_iter):
        phi = jnp.asarray(state.phi.reshape(state.n_runs, -1, 2 * self.k))
        gram = jnp.asarray(state.gram)
        start = time.perf_counter()
        out = self.run(phi, gram, n_iter).block_until_ready()
        return time.perf_counter() - start, np.asarray(out).reshape(state.phi.shape)


def before(folder, row: int, args) -> float:
    """The row of the table as the checkout in `folder` has it, nanoseconds."""
    with tempfile.TemporaryDirectory() as where:
        file = Path(where) / "rows.json"
        given = ["--runs", args.runs, "--repeats", args.repeats, "--alone", "--row", row, "--json", file]
        environment = os.environ | {"PYTHONPATH": str(Path(folder).resolve())}
        subprocess.run([sys.executable, __file__, *map(str, given)], env=environment, check=True, capture_output=True)
        return json.loads(file.read_text())["rows"][0]["ours"]


def measured(config, adversarial, args) -> dict:
    """One row: medians of ours and of JAX, in turn, of the same iterations."""
    state, types = problem(config, args.runs)
    n_iter = ITERATIONS[config.n_neurons, adversarial]
    each = 1e9 / (n_iter * args.runs)
    row = {"K": config.n_classes * config.n_neurons, "training": "adversarial" if adversarial else "standard"}
    ours(config, state, types, 2, adversarial)  # compiles, or loads
    peer = None if args.alone or jax is None else Peer(config, adversarial)
    if peer is not None:
        theirs, mine = peer(state, n_iter)[1], ours(config, state, types, n_iter, adversarial)[1]  # compiles JAX
        apart = np.abs(theirs - mine).max() / np.abs(mine).max()
        assert apart < 1e-10, f"{row}: JAX and ours differ by {apart:.1e}"
    times = [(ours(config, state, types, n_iter, adversarial)[0], peer(state, n_iter)[0] if peer else np.nan)
             for _ in range(args.repeats)]  # fmt: skip
    a, b = (each * float(np.median(column)) for column in zip(*times))
    return row | {"ours": a, "jax": b, "ratio": float(np.median([y / x for x, y in times]))}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help="without JAX")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--before", metavar="FOLDER", help="a checkout of an earlier version")
    parser.add_argument("--row", type=int, metavar="N", help="only this one, from 0, without the eight runs")
    args = parser.parse_args()
    rows, cases = [], [(n_neurons, adversarial) for n_neurons in (5, 20) for adversarial in (False, True)]
    for i, (n_neurons, adversarial) in enumerate(cases):
        if args.row in (None, i):
            past = {"before": before(args.before, i, args)} if args.before else {}
            rows.append(measured(replace(Figure3Config(), n_neurons=n_neurons), adversarial, args) | past)
            print("K = {K:<4} {training:<12} {ours:8.0f} ns a run and iteration, JAX {jax:8.0f} ns, ratio {ratio:.2f}"
                  .format(**rows[-1]), *(f"before: {ns:8.0f} ns" for ns in past.values()), flush=True)  # fmt: skip
    document = {"rows": rows}
    if args.row is None:
        state, types = problem(replace(Figure3Config(), n_neurons=5), 8)
        both = [sum(ours(replace(Figure3Config(), n_neurons=5), state, types, 4000, adversarial)[0]
                    for adversarial in (False, True)) for _ in range(5)]  # fmt: skip
        document["move"] = float(np.median(both))
        print(f"eight runs of both trainings, K = 25, 4,000 iterations: {1e3 * document['move']:.0f} ms")
    if args.json:
        Path(args.json).write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()

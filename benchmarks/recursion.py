"""The exact recursion of the default configuration over many seeds, beside the same formulas in JAX (jit, vmap, scan).

``python benchmarks/recursion.py [--quick]``: 1,000 seeds of standard training (K = 100, 2k = 10, T = 4000) and 100 of
adversarial training, the time of each against 60 s; the same at d = 10^9; and microseconds per run and iteration beside
JAX, in turn, medians.  JAX gets the form with low-rank updates of H, as ours has.
"""

from __future__ import annotations

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from advfeat.experiments.configuration import Figure3Config
from advfeat.theory import State, population_types, simulate

jax.config.update("jax_enable_x64", True)
LIMIT = 60.0  # seconds


def problem(config, n_seeds, patch_dim):
    start = time.perf_counter()
    shape = (config.n_classes, config.n_neurons, patch_dim)
    std = config.init_std * (config.patch_dim / patch_dim) ** 0.5
    state = State.draw(*shape, rng=list(range(n_seeds)), init_std=std)
    types = population_types(config.n_classes, config.n_patches, config.n_robust, config.alpha, config.beta)
    return state, types, time.perf_counter() - start


def ours(config, state, types, n_iter, adversarial):
    ascent = {"ascent_lr": config.ascent_lr, "eps": config.eps} if adversarial else {}
    start = time.perf_counter()
    found = simulate(state, types, q=config.q, rho=config.rho, lr=config.lr, n_iter=n_iter, **ascent)
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the seeds and a tenth of the iterations")
    args = parser.parse_args()
    part, config = 10 if args.quick else 1, Figure3Config()
    n_iter = config.n_iter // part
    ours(config, *problem(config, 2, 100)[:2], 2, True)  # compiles, or loads
    for name, n_seeds in (("standard", 1000 // part), ("adversarial", 100 // part)):
        adversarial = name == "adversarial"
        times = {}
        for d in (100, 10**9):
            state, types, drawing = problem(config, n_seeds, d)
            times[d], _ = ours(config, state, types, n_iter, adversarial)
            times[d] += drawing
        state, types, _ = problem(config, 16, 100)
        peer, steps = Peer(config, adversarial), n_iter // 2
        theirs, mine = peer(state, steps)[1], ours(config, state, types, steps, adversarial)[1]  # compiles JAX
        apart = np.abs(theirs - mine).max() / np.abs(mine).max()
        assert apart < 1e-10, f"{name}: JAX and ours differ by {apart:.1e}"
        rounds = [(peer(state, steps)[0], ours(config, state, types, steps, adversarial)[0]) for _ in range(5)]
        a, b = (1e6 * np.median(column) / (steps * state.n_runs) for column in zip(*rounds))
        ratio = np.median([x / y for x, y in rounds])
        print(
            f"{name}: {n_seeds} seeds, {n_iter} iterations: {times[100]:.1f} s (goal {LIMIT:g} s), at d = 10^9 "
            f"{times[10**9]:.1f} s; {b:.2f} us per run and iteration, JAX {a:.2f} us, ratio {ratio:.2f}; "
            f"they differ by {apart:.0e}"
        )


if __name__ == "__main__":
    main()

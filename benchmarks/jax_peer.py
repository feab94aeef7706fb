"""The same steps in JAX, as well as one would write them in an afternoon: jit and scan, several variants of each.

Training, one run: closed-form gradient or `jax.grad`; the ascent on -F_y on all neurons, on the label's neurons by a
gather, or on a static split of the samples by label (they come sorted).  Several runs: each of these under `vmap`, and
under `lax.map`, of one run or of a `vmap` of a chunk at a time.  The benchmarks time all of them and compare with the
fastest.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from workloads import PGD_EPS, RHO, STEPS, Q

jax.config.update("jax_enable_x64", True)  # both precisions in one process; arrays carry their own


def sigma(z):
    return jnp.where(z > RHO, z - (RHO - RHO / Q), RHO / Q * jnp.clip(z / RHO, 0, 1) ** Q)


def sigma_prime(z):
    return jnp.clip(z / RHO, 0, 1) ** (Q - 1)


class Peer:
    """The steps of one workload; W (K, d), X (N P, d), one-hot labels (N, k) of one run.

    `precision` of the products as `jax.default_matmul_precision` takes it: on a GPU JAX rounds float32 factors to tf32
    unless told not to.  `chunk` runs are mapped at a time.  `from_host`: weights and PGD's start come from host memory
    and results go there, as our engine's do; inputs stay on the device.
    """

    def __init__(self, load, precision=None, chunk=1, from_host=False):
        self.load, self.precision, self.chunk, self.from_host = load, precision, chunk, from_host
        self.k, self.m, self.d, self.P, self.N, self.K = load.k, load.m, load.d, load.P, load.N, load.K
        self.y = load.y[0]
        R = load.n_runs
        self.arrays = {
            "W": load.W.reshape(R, self.K, self.d),
            "X": load.X.reshape(R, -1, self.d),
            "labels": np.eye(self.k, dtype=load.dtype)[load.y],
            "lr": load.lr.astype(load.dtype),
            "rate": load.rate.astype(load.dtype),
            "eps": load.eps.astype(load.dtype),
        }
        self.arrays = {name: jnp.asarray(value) for name, value in self.arrays.items()}

    # ------------------------------------------------------------ one run
    def logits(self, W, X):
        z = X @ W.T
        return sigma(z).reshape(self.N, self.P, self.k, self.m).sum((1, 3)), z

    def slopes(self, z, C):
        """sigma'(z) C[sample, class] -> (N P, K)."""
        return (sigma_prime(z).reshape(self.N, self.P, self.k, self.m) * C[:, None, :, None]).reshape(z.shape)

    def closed(self, W, X, labels):
        F, z = self.logits(W, X)
        return self.slopes(z, (jax.nn.softmax(F) - labels) / self.N).T @ X

    def autodiff(self, W, X, labels):
        return jax.grad(lambda W: -(jax.nn.log_softmax(self.logits(W, X)[0]) * labels).sum() / self.N)(W)

    def dense(self, W, X, labels):
        return -self.slopes(X @ W.T, labels) @ W

    def gather(self, W, X, labels):
        of_label = W.reshape(self.k, self.m, self.d)[jnp.asarray(self.y)]
        z = jnp.einsum("npd,nmd->npm", X.reshape(self.N, self.P, self.d), of_label)
        return -jnp.einsum("npm,nmd->npd", sigma_prime(z), of_label).reshape(X.shape)

    def split(self, W, X, labels):
        edges = np.searchsorted(self.y, np.arange(self.k + 1)) * self.P
        parts = []
        for i in range(self.k):
            own = W[i * self.m : (i + 1) * self.m]
            parts.append(-sigma_prime(X[edges[i] : edges[i + 1]] @ own.T) @ own)
        return jnp.concatenate(parts)

    def training(self, gradient, ascent, n_iter, unroll):
        """n_iter iterations of one run, `unroll` of them in one step of the loop."""

        def run(W, X, labels, lr, rate, eps):
            def iteration(W, _):
                Xa = X if ascent is None else X + jnp.clip(rate * ascent(W, X, labels), -eps, eps)
                return W - lr * gradient(W, Xa, labels), None

            return lax.scan(iteration, W, None, length=n_iter, unroll=unroll)[0]

        return run

    def attack(self, W, X, labels, start):
        """PGD-20 on the cross-entropy: the last iterate."""

        def step(Xa, _):
            F, z = self.logits(W, Xa)
            g = self.slopes(z, jax.nn.softmax(F) - labels) @ W
            delta = Xa - X + 2.5 * PGD_EPS / STEPS * jnp.sign(g)
            return X + jnp.clip(delta, -PGD_EPS, PGD_EPS), None

        return lax.scan(step, start, None, length=STEPS)[0]

    def bounds(self, W, X, shift):
        z = X @ W.T
        shape = self.N, self.P, self.k, self.m
        return tuple(sigma(z + s * shift).reshape(shape).sum((1, 3)) for s in (-1, 1))

    # ------------------------------------------------------------ all runs
    def _batched(self, name, run):
        """{variant: function of the runs' stacked arguments}."""
        if self.load.n_runs == 1:
            return {name: lambda *args: jax.tree.map(lambda a: a[None], run(*(a[0] for a in args)))}
        variants = {f"{name}, vmap": jax.vmap(run)}
        if self.chunk == 1:
            variants[f"{name}, map"] = lambda *args: lax.map(lambda a: run(*a), args)
        elif self.load.n_runs > self.chunk:
            variants[f"{name}, map of {self.chunk}"] = lambda *args: lax.map(
                lambda a: run(*a), args, batch_size=self.chunk
            )
        return variants

    def _job(self, function, args, moving):
        """A call of the compiled function; argument number `moving` and the result are the host's if `from_host`."""
        compiled = jax.jit(function)
        if self.from_host:
            args = (*args[:moving], np.asarray(args[moving]), *args[moving + 1 :])

        def job():
            with jax.default_matmul_precision(self.precision):
                out = compiled(*args)
            return jax.device_get(out) if self.from_host else jax.block_until_ready(out)

        return job

    def jobs(self, step, n_iter, unroll=1):
        """{variant: call that returns a result as in `workloads.reference_step`}, compiled at the first call."""
        given, moving = self.arrays, 0
        if step == "PGD-20":
            labels = jnp.asarray(np.eye(self.k, dtype=self.load.dtype)[self.load.predicted])
            start = jnp.asarray(self.load.start.reshape(given["X"].shape))
            runs, args, moving = {"closed form": self.attack}, (given["W"], given["X"], labels, start), 3
        elif step == "logits":
            runs, args = {"closed form": lambda W, X: self.logits(W, X)[0]}, (given["W"], given["X"])
        elif step == "interval":
            shift = jnp.asarray(self.load.shift.reshape(-1, self.K).astype(self.load.dtype))
            runs, args = {"closed form": self.bounds}, (given["W"], given["X"], shift)
        else:
            gradients = {"closed form": self.closed, "jax.grad": self.autodiff}
            ascents = {"all neurons": self.dense, "gather": self.gather, "split by label": self.split}
            if step == "standard":
                pairs = {name: (gradient, None) for name, gradient in gradients.items()}
            else:
                pairs = {f"closed form, {name}": (self.closed, ascent) for name, ascent in ascents.items()}
                pairs["jax.grad, split by label"] = self.autodiff, self.split
            runs = {name: self.training(*pair, n_iter, unroll) for name, pair in pairs.items()}
            args = tuple(given[name] for name in ("W", "X", "labels", "lr", "rate", "eps"))
        jobs = {}
        for name, run in runs.items():
            for variant, function in self._batched(name, run).items():
                jobs[variant] = self._job(function, args, moving)
        return jobs

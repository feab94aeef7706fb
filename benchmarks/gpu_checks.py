"""What gpu.py asks of results before it times them: the reference's numbers, and the same bits where promised."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
from advfeat.kernels import formulas, get_engine
from advfeat.kernels.gpu.engine import CupyEngine
from workloads import ASCENT, RHO, Q, pgd, train

FEW = 3  # iterations that are checked: the third is the first that a recorded graph works alone
SOME = 16  # samples of PGD that are checked, as the reference takes its time
# Largest error relative to the largest number.  On the large shape float32 is some 1e-6 off and tf32 some 2e-4, so that
# these limits tell them apart: JAX's float32 must be float32.  Factors cut to tf32, not rounded, would add 3e-3 to
# logits, which are sums of cubes.  PGD's ball is smaller than tf32's rounding of the inputs: that row is left out.
LIMIT = {
    "weights": {"float32": 5e-5, "tf32": 1e-2, "float64": 1e-11},
    "logits": {"float32": 1e-5, "tf32": 1e-2, "float64": 1e-12},
    "PGD-20": {"float32": 2e-3, "float64": 1e-9},
}
LAST = 1e-2  # of the margin taken away: JAX's last iterate of PGD against the best one


class CheckFailed(Exception):
    """A result that is not the reference's, or bits that differ."""


def runs_of(load, runs):
    """Some runs of a workload, as far as training looks."""
    return SimpleNamespace(**{name: getattr(load, name)[runs] for name in ("W", "X", "y", "lr", "rate", "eps")})


def trained(engine, load, batch, step, n_iter):
    """Weights after training; a run whose loss stops being finite rests, and resting is fast, so it is an error."""
    W = load.W.copy()
    bad = train(engine, load, batch, W, n_iter, step)[1]
    if (bad >= 0).any():
        raise CheckFailed(f"the loss of a run is not finite at iteration {bad.max()}")
    return W


def packed(engine, load, step):
    """The workload's samples as the engine keeps them; PGD attacks predictions."""
    return engine.pack(load.X, load.predicted if step == "PGD-20" else load.y, load.n_runs)


def our_job(engine, load, batch, step, n_iter=FEW):
    """A call of the engine as a user makes it: weights, logits, or PGD's margins."""
    if step in ASCENT:
        return lambda: trained(engine, load, batch, step, n_iter)
    if step == "logits":
        return lambda: engine.logits(load.W, batch, Q, RHO)
    return lambda: pgd(engine, load, batch, load.W, load.start)[1]


@cache
def truth(load, step):
    """Change of the weights, or logits, of the first, middle and last run; what PGD takes away from some margins of one
    run: by the float64 reference."""
    few = runs_of(load, probes(load))
    W, X = few.W.astype(np.float64), few.X.astype(np.float64)
    engine = get_engine("numpy")
    if step == "logits":
        return formulas.forward(W, X, Q, RHO)
    if step in ASCENT:
        few.W = W
        return trained(engine, few, engine.pack(X, few.y, len(W)), step, FEW) - W
    some = samples(load)
    batch = engine.pack(X[:, some], load.predicted[:, some], 1)
    return margins(load, load.X) - pgd(engine, load, batch, W, load.start[:, some].astype(np.float64))[1]


def probes(load):
    return np.unique([0, load.n_runs // 2, load.n_runs - 1])


def samples(load):
    return np.unique(np.linspace(0, load.N - 1, SOME).astype(int))


def margins(load, X):
    """Of some samples, by the float64 reference."""
    some = samples(load)
    F = formulas.forward(load.W.astype(np.float64), X[:, some].astype(np.float64), Q, RHO)
    return formulas.margin(F, load.predicted[:, some])


class Check:
    """What a row's results must be."""

    def __init__(self, load, precision, step):
        self.load, self.precision, self.step = load, precision, step
        self.runs, self.expected = probes(load), truth(load, step)

    def judge(self, who, found) -> float:
        """The error of `found` relative to the largest number; NaN fails."""
        error = float(np.abs(found - self.expected).max() / np.abs(self.expected).max())
        limit = LIMIT["weights" if self.step in ASCENT else self.step][self.precision]
        limit = max(limit, LAST) if self.step == "PGD-20" and who.startswith("JAX") else limit
        if not error <= limit:
            raise CheckFailed(f"{who} differs from the reference by {error:.1e}, more than {limit:.0e}")
        return error

    def ours(self, gpu, regime, engine, batch):
        """The first result, and in words what was checked."""
        job = our_job(engine, self.load, batch, self.step)
        found, again = job(), job()
        if not np.array_equal(found, again):
            raise CheckFailed(f"{regime}: two runs on this GPU differ")
        if self.step in ASCENT:
            near = found[self.runs] - self.load.W[self.runs]
        elif self.step == "logits":
            near = found[self.runs]
        else:
            near = margins(self.load, self.load.X) - found[:, samples(self.load)]
        said = f"error {self.judge(regime, near):.1e}, two runs have the same bits"
        if regime == "persistent":
            self.alone(engine, found)
            said += ", a run of a batch those of the run alone"
        return found, said

    def alone(self, engine, found):
        """Runs alone against the same runs in a batch, of this workload or, where it is one run, of three."""
        many = self.load if self.load.n_runs > 1 else replace(self.load, n_runs=3)
        if many is not self.load:
            found = our_job(engine, many, packed(engine, many, self.step), self.step)()
        for r in np.unique([0, many.n_runs // 2, many.n_runs - 1]):
            one = runs_of(many, slice(r, r + 1))
            alone = trained(engine, one, engine.pack(one.X, one.y, 1), self.step, FEW)
            if not np.array_equal(alone[0], found[r]):
                raise CheckFailed(f"persistent: run {r} of {many.n_runs} differs from the run alone")

    def theirs(self, variant, found):
        """A result of JAX."""
        load, found = self.load, np.asarray(found)
        if self.step in ASCENT:
            found = found.reshape(load.W.shape)[self.runs] - load.W[self.runs]
        elif self.step == "logits":
            found = found[self.runs]
        else:  # JAX goes on where we rest: compared on the samples that stand
            clean = margins(load, load.X)
            found = clean - margins(load, found.reshape(load.X.shape))
            found = np.where(clean > self.expected, found, self.expected)
        return self.judge(f"JAX, {variant}", found)


def tf32_errors(gpu, load, n_iter):
    """tf32's and float32's errors against float64, all on this GPU: of logits, and of the change of the weights."""

    def results(dtype, tf32):
        few = runs_of(load, slice(None))
        few.W, few.X, engine = few.W.astype(dtype), few.X.astype(dtype), CupyEngine(gpu, tf32=tf32)
        batch = engine.pack(few.X, few.y, load.n_runs)
        return engine.logits(few.W, batch, Q, RHO), trained(engine, few, batch, "adversarial", n_iter) - few.W

    exact = results(np.float64, False)
    for precision in ("tf32", "float32"):
        found = {"row": "large/tf32/error", "regime": precision, "shape": load.shape, "iterations": n_iter}
        mine = results(np.float32, precision == "tf32")
        for what, one, two in zip(("logits", "weights"), mine, exact, strict=True):
            difference = one.astype(np.float64) - two
            found[f"{what}_largest"] = float(np.abs(difference).max() / np.abs(two).max())
            found[f"{what}_norm"] = float(np.linalg.norm(difference) / np.linalg.norm(two))
        yield found

"""Standard and adversarial training (Li & Li 2025, Sec. 2.4, 2.5), with history, checkpoints and exact resume."""

import json
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..core import checks, store
from ..core.rng import stream
from ..kernels import formulas
from ..patches.data import PatchData
from ..patches.features import correlations
from ..patches.network import PatchCNN
from .run_folder import FORMAT, read_checkpoint

SEGMENT_SECONDS = 0.25  # how long the engine works between two looks at Ctrl-C and the progress bar


@dataclass(frozen=True)
class TrainConfig:
    """How to train.  ``lr``, ``ascent_lr``, ``eps`` and ``seed`` are one value, or one per run of a batch.

    ``lr``, ``ascent_lr`` and ``eps`` must be finite, and the rates > 0, in the network's dtype too: `train` checks it.

    Attributes
    ----------
    lr : learning rate eta > 0.
    n_iter : iterations T >= 0 (for minibatches, of one batch each).
    adversarial : train on X~ = X + clip_eps(ascent_lr grad_X J(X)), held constant, instead of X.
    ascent_lr, eps : the ascent's rate eta-tilde > 0 and radius >= 0; needed iff adversarial.
    objective : J, "neg_label_logit" (the paper's -F_y), "margin" or "cross_entropy".
    n_ascent, norm : ascent steps (the paper: 1); "linf" or "l2", patch by patch.
    batch_size : None for full batch, else samples per step, in a new random order each epoch.
    seed : of the minibatches' order.
    record_every : iterations between records (default n_iter / 20); iteration 0 and n_iter are always recorded.
    checkpoint_every : records between checkpoints in a run folder.
    """

    lr: float
    n_iter: int
    adversarial: bool = False
    ascent_lr: float | None = None
    eps: float | None = None
    objective: str = "neg_label_logit"
    n_ascent: int = 1
    norm: str = "linf"
    batch_size: int | None = None
    seed: int = 0
    record_every: int | None = None
    checkpoint_every: int = 1

    def __post_init__(self):
        checks.integer("n_iter", self.n_iter, 0)
        checks.choice("adversarial", self.adversarial, (True, False))
        checks.choice("objective", self.objective, checks.OBJECTIVES)
        checks.choice("norm", self.norm, checks.NORMS)
        checks.integer("n_ascent", self.n_ascent, 1)
        checks.integer("checkpoint_every", self.checkpoint_every, 1)
        for name in ("batch_size", "record_every"):
            if getattr(self, name) is not None:
                checks.integer(name, getattr(self, name), 1)
        rules = {"lr": {"above": 0}, "ascent_lr": {"above": 0}, "eps": {"low": 0}}
        for name, rule in rules.items():
            if getattr(self, name) is not None:
                checks.per_run(name, getattr(self, name), np.size(getattr(self, name)), **rule)
        for name in ("ascent_lr", "eps"):
            if (getattr(self, name) is None) == self.adversarial:
                rule = "must be given" if self.adversarial else "must be None"
                raise ValueError(f"{name} = {getattr(self, name)!r}: {rule} when adversarial = {self.adversarial}")

    def as_dict(self) -> dict:
        """JSON-ready, as it stands in config.json and in checkpoints."""
        return {name: np.asarray(value).tolist() for name, value in asdict(self).items()}


@dataclass(frozen=True)
class TrainResult:
    """The trained network and its history: arrays whose first axis is the record; key "iteration" says which.

    ``diverged_at`` (R,): with `diverged` = "drop", the iteration at which a run ceased to be finite, NaN if it did not.
    """

    net: PatchCNN
    history: dict[str, np.ndarray]
    diverged_at: np.ndarray | None = None

    @property
    def iteration(self) -> int:
        return int(self.history["iteration"][-1])


class DivergenceError(RuntimeError):
    """Loss or weights stopped being finite; ``iteration``, ``runs`` say where, ``result`` keeps what was recorded."""

    def __init__(self, iteration: int, runs: list[int], result: TrainResult):
        where = "" if not result.net.batched else f" in run{'s' * (len(runs) > 1)} {', '.join(map(str, runs))}"
        super().__init__(f"training diverged at iteration {iteration}{where}: the loss or a weight is not finite")
        self.iteration, self.runs, self.result = iteration, runs, result


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C stopped the training between two iterations; ``result`` holds the network and history so far."""

    def __init__(self, iteration: int, result: TrainResult):
        super().__init__(f"training was interrupted at iteration {iteration}")
        self.iteration, self.result = iteration, result


class _Interrupt:
    """Ctrl-C as a flag, so that a training stops between iterations; a second Ctrl-C stops at once."""

    def __enter__(self):
        self.hit = False
        main = threading.current_thread() is threading.main_thread()
        self.mine = main and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        self.before = signal.signal(signal.SIGINT, self._note) if self.mine else None
        return self

    def _note(self, *_):
        self.hit = True
        signal.signal(signal.SIGINT, self.before)

    def __exit__(self, *_):
        if self.mine:
            signal.signal(signal.SIGINT, self.before)


class _Trainer:
    def __init__(self, net, data, config, test, metrics, run_dir, diverged="raise"):
        checks.choice("diverged", diverged, ("raise", "drop"))
        if diverged == "drop" and run_dir is not None:
            raise ValueError("diverged = 'drop': a run folder does not keep which runs were dropped; give no run_dir")
        self.dropped = np.full(net.n_runs, np.nan) if diverged == "drop" else None
        self.config, self.metrics, self.features = config, metrics, getattr(data, "features", None)
        self.net = net.with_weights(net.W)
        self.X, self.y = self.net.check(*_samples(data))
        self.test = None if test is None else self.net.check(*_samples(test))
        R, N = net.n_runs, self.X.shape[1]
        if config.batch_size is not None and config.batch_size > N:
            raise ValueError(f"batch_size = {config.batch_size}: must be <= the number of samples {N}")
        self.lr = checks.per_run("lr", config.lr, R, above=0, dtype=net.dtype)
        self.step, self.eps = np.zeros(R), np.zeros(R)
        if config.adversarial:
            self.step = checks.per_run("ascent_lr", config.ascent_lr, R, above=0, dtype=net.dtype)
            self.eps = checks.per_run("eps", config.eps, R, low=0, dtype=net.dtype)
        self.seeds = checks.seeds(config.seed, R)
        self.every = config.record_every or max(config.n_iter // 20, 1)
        self.iteration, self.records = 0, []
        self.batch = self.net.prepare(self.X, self.y)
        self.test_batch = None if test is None else self.net.prepare(*self.test)
        self.folder = None if run_dir is None else self._open(run_dir, net)

    # -------------------------------------------------------------- run folder
    def _open(self, run_dir, net):
        folder = store.make_folder(run_dir)
        self.identity = {
            "format": FORMAT,
            "config": self.config.as_dict(),
            "start": store.digest(net.W) + f" q={net.q} rho={net.rho!r} {net.backend}",
            "data": store.digest(self.X, self.y, *(self.test or ())),
        }
        self.file = folder / "checkpoint.npz"
        if self.file.exists():
            held = read_checkpoint(self.file, net.backend)
            for part, mine in self.identity.items():
                theirs = held.identity.get(part)
                if theirs != mine:
                    what = _difference(part, theirs, mine)
                    raise store.CheckpointError(f"{folder}: holds another run, nothing was changed; {what}")
            self.net = held.net
            self.iteration = held.iteration
            self.records = [{k: a[t] for k, a in held.history.items()} for t in range(len(held.history["iteration"]))]
        else:
            if (folder / "config.json").exists():
                known = store.load_json(folder / "config.json")
                if known.get("config") != self.identity["config"]:
                    raise store.CheckpointError(f"{folder}: holds another run's config.json, nothing was changed")
            store.save_json(
                folder / "config.json",
                {"config": self.config.as_dict(), "environment": store.environment()},
            )
        return folder

    def _save(self):
        if self.folder is not None:
            state = {"W": self.net.W, "q": self.net.q, "rho": self.net.rho, "iteration": self.iteration}
            history = {f"history/{name}": a for name, a in self.history().items()}
            store.save_npz(self.file, identity=json.dumps(self.identity), **state, **history)

    def _save_history(self):
        if self.folder is not None:
            store.save_npz(self.folder / "history.npz", **self.history())

    # -------------------------------------------------------------- records
    def history(self):
        return {name: np.stack([r[name] for r in self.records]) for name in self.records[0]}

    def result(self):
        return TrainResult(self.net, self.history(), self.dropped)

    def drop(self, runs, iteration):
        """Diverged runs rest from here on, with weights 0, and their records are NaN."""
        self.dropped[runs] = iteration
        self.net.weights[runs] = 0

    def record(self):
        net = self.net

        def outcome(batch, y):
            F = net.engine.logits(net.weights, batch, net.q, net.rho)
            y = np.broadcast_to(y, F.shape[:2])
            loss, right = formulas.cross_entropy(F, y), formulas.margin(F, y) > 0
            return net.drop_runs_axis(loss.mean(axis=1)), net.drop_runs_axis(right.mean(axis=1))

        loss, accuracy = outcome(self.batch, self.y)
        entry = {"iteration": self.iteration, "loss": loss, "train_accuracy": accuracy}
        if self.test is not None:
            entry["test_accuracy"] = outcome(self.test_batch, self.test[1])[1]
        if self.features is not None:
            entry |= correlations(net, self.features)
        if self.metrics is not None:
            entry |= self.metrics(net, self.iteration)
        entry = {name: np.asarray(value) for name, value in entry.items()}
        if self.dropped is not None and not np.isnan(self.dropped).all():
            gone = ~np.isnan(self.dropped if net.batched else self.dropped[0])
            entry |= {name: _blank(value, gone) for name, value in entry.items() if name != "iteration"}
        self.records.append(entry)

    # -------------------------------------------------------------- the loop
    def advance(self, n):
        """`n` iterations; returns them done and the runs that went wrong at the last of them."""
        c, net = self.config, self.net
        ascent = (checks.OBJECTIVES[c.objective], self.step, self.eps, checks.NORMS[c.norm], c.n_ascent * c.adversarial)
        if c.batch_size is None:
            _, bad = net.engine.train(net.weights, self.batch, net.q, net.rho, self.lr, n, *ascent)
            if self.dropped is not None:
                self.drop(np.flatnonzero(bad >= 0), self.iteration + bad[bad >= 0])
            elif (bad >= 0).any():
                first = int(bad[bad >= 0].min())
                return first, np.flatnonzero(bad == first).tolist()
            return n, []
        for done in range(n):
            batch = net.prepare(*self.minibatch(self.iteration + done))
            _, bad = net.engine.train(net.weights, batch, net.q, net.rho, self.lr, 1, *ascent)
            if self.dropped is not None:
                self.drop(np.flatnonzero(bad >= 0), self.iteration + done)
            elif (bad >= 0).any():
                return done, np.flatnonzero(bad >= 0).tolist()
        return n, []

    def minibatch(self, iteration):
        N, size = self.X.shape[1], self.config.batch_size
        per_epoch = -(-N // size)
        epoch, b = divmod(iteration, per_epoch)
        X, y = [], []
        smallest = N - (per_epoch - 1) * size if b == per_epoch - 1 else size
        for r, seed in enumerate(self.seeds):
            chosen = stream(seed, "minibatches", epoch).permutation(N)[b * size : b * size + smallest]
            X.append(self.X[r % len(self.X)][chosen])
            y.append(self.y[r % len(self.y)][chosen])
        return np.stack(X), np.stack(y)

    def run(self, progress):
        if not self.records:
            self.record()
            self._save()
        n_iter, segment, saved = self.config.n_iter, 1, len(self.records)
        with _Interrupt() as interrupt:
            while self.iteration < n_iter:
                target = min((self.iteration // self.every + 1) * self.every, n_iter)
                started, wanted = time.perf_counter(), min(segment, target - self.iteration)
                done, bad = self.advance(wanted)
                share = SEGMENT_SECONDS / max(time.perf_counter() - started, 1e-9)
                segment = max(1, int(wanted * min(share, 2)))
                self.iteration += done
                at_record = self.iteration == target and not bad
                if at_record:
                    bad = [r for r, W in enumerate(self.net.weights) if not np.isfinite(W).all()]
                    if self.dropped is not None:
                        self.drop(bad, self.iteration)
                        bad = []
                if bad:
                    self._save_history()
                    raise DivergenceError(self.iteration, bad, self.result())
                if at_record:
                    self.record()
                    if len(self.records) - saved >= self.config.checkpoint_every or self.iteration == n_iter:
                        self._save()
                        saved = len(self.records)
                if progress is not None:
                    progress(self.iteration)
                if interrupt.hit and self.iteration < n_iter:
                    self._save()
                    self._save_history()
                    raise TrainingInterrupted(self.iteration, self.result())
        self._save_history()
        return self.result()


def _blank(values, gone):
    return np.where(gone.reshape(gone.shape + (1,) * (values.ndim - gone.ndim)), np.nan, values)


def _samples(data):
    return (data.X, data.y) if isinstance(data, PatchData) else data


def _difference(part, theirs, mine):
    if part != "config" or not isinstance(theirs, dict):
        return {"start": "its initial network differs", "data": "its data differ"}.get(part, f"its {part} differs")
    pairs = [f"{k} was {theirs.get(k)!r} and is {mine[k]!r}" for k in mine if theirs.get(k) != mine[k]]
    return ", ".join(pairs)


def train(
    net: PatchCNN,
    data: PatchData | tuple,
    config: TrainConfig,
    test: PatchData | tuple | None = None,
    *,
    metrics: Callable[[PatchCNN, int], dict] | None = None,
    run_dir: str | Path | None = None,
    progress: Callable[[int], None] | None = None,
    diverged: str = "raise",
) -> TrainResult:
    """Train `net` (a network or a batch of runs; it is not changed) on `data`, a PatchData or a pair (X, y).

    W <- W - lr grad L(W; X), or in adversarial training W <- W - lr grad L(W; X~).  Recorded at every record point:
    "iteration", "loss" and "train_accuracy" on the clean training data, "test_accuracy" if `test` is given, the
    correlations of :func:`advfeat.correlations` if the data know their features, and whatever `metrics(net, iteration)`
    returns.  Run axes come second; a single network has none.

    With `run_dir`, configuration, history and a checkpoint are kept there, and the same call continues an unfinished
    run to the same bits.  `progress(iteration)` is called now and then.  `diverged` = "drop" lets the other runs of a
    batch go on when one diverges: its records are NaN from then on, its weights 0; `TrainResult.diverged_at` says when.

    Raises
    ------
    DivergenceError, TrainingInterrupted
        Both carry ``result``, what was recorded so far; a run folder keeps its last checkpoint.
    CheckpointError
        `run_dir` holds another run, or a damaged one.  Nothing is overwritten.
    """
    return _Trainer(net, data, config, test, metrics, run_dir, diverged).run(progress)

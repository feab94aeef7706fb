"""Standard and adversarial training (Li & Li 2025, Sec. 2.4, 2.5): the loop, stopped and continued to the same bits."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike

from ..core import checks, store
from ..core.data import DataLike, as_data
from ..core.model import Model, as_model
from ..core.progress import SEGMENT_SECONDS, Progress, Stopwatch
from ..core.records import record
from ..core.rng import stream
from ..core.types import Float64Array
from ..kernels import formulas
from . import optim
from .adversary import Adversary, trades
from .configuration import TrainConfig
from .recorder import History, Measurement, Recorder
from .run_folder import Checkpoint, RunFolder

if TYPE_CHECKING:  # a default for `TrainResult` alone, which Python 3.11 does not know
    from typing_extensions import TypeVar

    Net = TypeVar("Net", bound=Model, covariant=True, default=Model)
else:
    from typing import TypeVar

    Net = TypeVar("Net", bound=Model, covariant=True)

Diverged = Literal["raise", "drop"]


@record
class TrainResult(Generic[Net]):
    """The trained network and its history: arrays whose first axis is the record; key "iteration" says which.

    ``diverged_at`` (R,): the iteration at which a run ceased to be finite, NaN if it did not.
    """

    net: Net
    history: History
    diverged_at: Float64Array

    @property
    def iteration(self) -> int:
        """That of the last record."""
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


class Trainer:
    """One training: everything is checked when it is made, before anything is written."""

    def __init__(self, net, data, config, test=None, metrics=None, diverged="raise"):
        self.drops = checks.choice("diverged", diverged, get_args(Diverged)) == "drop"
        data, self.config = as_data(data), checks.instance("config", config, TrainConfig, "a TrainConfig")
        test = None if test is None else as_data(test, "test")
        self.net = net = as_model(net, "net").copy()
        self.X, self.y = net.labelled(data.X, data.y)
        self.test = None if test is None else net.labelled(test.X, test.y)
        R, N, c = net.n_runs, self.X.shape[1], config
        if c.batch_size is not None and c.batch_size > N:
            raise ValueError(f"batch_size = {c.batch_size}: must be <= the number of samples {N}")
        lr = checks.per_run("lr", c.lr, R, above=0, dtype=net.dtype)
        self.optimiser = optim.of(c, lr, net.batched)
        self.seeds = checks.seeds(c.seed, R)
        self.adversary = Adversary(c, net, self.seeds_at)
        for size in {N} if c.batch_size is None else {c.batch_size, N % c.batch_size or c.batch_size}:
            net.reserve(size)
        self.adversary.network(net)
        if c.loss == "trades" and not hasattr(net, "logits_and_weights_grad"):
            raise TypeError(f"loss = 'trades': {type(net).__name__} has no logits_and_weights_grad, which TRADES needs")
        if c.augmentation != "none" and len(net.sample_shape) != 3:
            raise ValueError(f"augmentation = {c.augmentation!r}: samples are {net.sample_shape}, and no images")
        # what engines' loops do not know
        own = {"schedule", "warm_up", "ascent", "random_start", "crafting_mode", "eps_warm_up", "loss", "augmentation",
               "later_seed"}  # fmt: skip
        same = all(getattr(c, name) == c.keys()[name].default for name in own)
        self.fused = "train" in net.capabilities and self.optimiser.plain and same
        self.iteration, self.diverged_at = 0, np.full(R, np.nan)
        self.batch = net.prepare(self.X, self.y)
        self.test_batch = None if test is None else net.prepare(*self.test)
        self.recorder = Recorder([Measurement(lambda net, _: self.progress_of(net, data), c.record_points),
                                  *self.injected(metrics)], c.n_iter)  # fmt: skip

    def injected(self, metrics) -> list[Measurement]:
        """What the caller wants recorded; a function alone goes by the clock of the loss."""
        if metrics is None:
            return []
        many = metrics if isinstance(metrics, (list, tuple)) else [metrics]
        every = self.config.record_points
        return [one if isinstance(one, Measurement) else Measurement(checks.callback("metrics", one), every)
                for one in many]  # fmt: skip

    def identity(self) -> dict:
        """What tells this training from every other, JSON-ready."""
        return {
            "config": self.config.as_dict(),
            "start": self.net.fingerprint(),
            "data": store.digest(self.X, self.y, *(self.test or ())),
            "clocks": [one.every for one in self.recorder.measurements],
        }

    def restore(self, held: Checkpoint, blocks: list[dict]) -> None:
        """Continue from a checkpoint; ValueError where it does not fit."""
        if held.kind != self.net.kind:
            raise ValueError(f"it holds a model of kind {held.kind!r}, and not {self.net.kind!r}")
        net = type(self.net).from_arrays(held.arrays, **held.options)
        for name, a in self.net.arrays().items():
            if net.arrays()[name].shape != a.shape or net.arrays()[name].dtype != a.dtype:
                raise ValueError(f"its {name} has shape {net.arrays()[name].shape}, and not {a.shape}")
        self.net, self.iteration = net, held.iteration
        self.optimiser.restore(held.optimiser)
        self.diverged_at = self.diverged_at if held.diverged_at is None else held.diverged_at
        if held.history is not None:
            self.recorder.restore(held.history)
        for block in blocks:
            self.recorder.extend(block)

    # -------------------------------------------------------------- records
    def progress_of(self, net, data) -> dict:
        """Loss, accuracies, and what the model has to say of the data's directions."""

        def outcome(batch, y):
            F = net.logits_of(batch)
            y = np.broadcast_to(y, F.shape[:2])
            loss, right = formulas.cross_entropy(F, y), formulas.margin(F, y) > 0
            return net.drop_runs_axis(loss.mean(axis=1)), net.drop_runs_axis(right.mean(axis=1))

        loss, accuracy = outcome(self.batch, self.y)
        found = {"loss": loss, "train_accuracy": accuracy}
        if self.test is not None:
            found["test_accuracy"] = outcome(self.test_batch, self.test[1])[1]
        return found | net.measured(data)

    def record(self) -> None:
        gone = ~np.isnan(self.diverged_at)
        self.recorder.record(self.net, self.iteration, self.net.drop_runs_axis(gone) if gone.any() else None)

    def result(self) -> TrainResult:
        return TrainResult(self.net, self.recorder.history(), self.diverged_at)

    # -------------------------------------------------------------- the loop
    def advance(self, n: int) -> None:
        """`n` iterations; runs whose loss ceases to be finite are noted, and rest from there on."""
        c, net = self.config, self.net
        if self.fused and c.batch_size is None:
            self.note(net.train(self.batch, self.optimiser.lr, n, *self.adversary.arguments()))
            self.iteration += n
            return
        for _ in range(n):
            X, y = self.whole(self.iteration) if c.batch_size is None else self.minibatch(self.iteration)
            if self.fused:
                bad = net.train(net.prepare(X, y), self.optimiser.lr, 1, *self.adversary.arguments())
            else:
                bad = np.where(np.isfinite(self.step_by_gradient(X, y)), -1, 0)
            self.note(bad)
            self.iteration += 1

    def step_by_gradient(self, X, y) -> np.ndarray:
        """One iteration by the model's own `loss_and_grad`; the loss (R,)."""
        c, net = self.config, self.net
        moved = self.adversary.moved(net, X, y, self.iteration) if c.adversarial else X
        X, moved, y = (a if net.batched and len(a) > 1 else a[0] for a in (X, moved, y))
        loss, gradient = trades(net, X, moved, y, c.beta) if c.loss == "trades" else net.loss_and_grad(moved, y)
        gradients = gradient if isinstance(gradient, dict) else dict.fromkeys(net.parameters, gradient)
        rest = np.isnan(self.diverged_at)
        share = optim.rate(c.schedule, self.iteration, c.n_iter, c.drops, c.warm_up)
        self.optimiser.step(net.parameters, gradients, None if rest.all() else rest, share)
        return np.atleast_1d(loss)

    def note(self, bad: np.ndarray) -> None:
        """Runs that went wrong `bad` (R,) iterations from here, -1 where they did not, get weights 0."""
        runs = (bad >= 0) & np.isnan(self.diverged_at)
        self.diverged_at[runs] = self.iteration + bad[runs]
        if runs.any():
            self.net.put_zero(runs)

    def seeds_at(self, iteration: int) -> list[int]:
        """Of every run, the seed of all that is drawn for an iteration."""
        c = self.config
        later = c.later_seed is not None and iteration >= c.later_from
        return [c.later_seed] * len(self.seeds) if later else self.seeds

    def whole(self, iteration):
        X = [self.augmented(X, seed, iteration) for X, seed in zip(self.X, self.seeds_at(iteration))]
        return (self.X if self.config.augmentation == "none" else np.stack(X)), self.y

    def minibatch(self, iteration):
        N, size = self.X.shape[1], self.config.batch_size
        per_epoch = -(-N // size)
        epoch, b = divmod(iteration, per_epoch)
        X, y = [], []
        smallest = N - (per_epoch - 1) * size if b == per_epoch - 1 else size
        for r, seed in enumerate(self.seeds_at(iteration)):
            chosen = stream(seed, "minibatches", epoch).permutation(N)[b * size : b * size + smallest]
            X.append(self.augmented(self.X[r % len(self.X)][chosen], seed, iteration))
            y.append(self.y[r % len(self.y)][chosen])
        return np.stack(X), np.stack(y)

    def augmented(self, X, seed: int, iteration: int):
        if self.config.augmentation == "none":
            return X
        from ..images.data.augment import augmented  # takes 10 ms, which who trains no images need not wait for

        return augmented(X, stream(seed, "augmentation", iteration), self.config.augmentation, self.config.padding)

    def run(self, progress=None, folder: RunFolder | None = None) -> TrainResult:
        """Train from where it is to the end; see `train`."""

        def save():
            if folder is not None:
                folder.save(self.iteration, self.net, self.optimiser, self.recorder, self.diverged_at)

        c, segment, clock = self.config, 1, Stopwatch(progress)
        if not self.recorder.clock:
            self.record()
            save()
        saved = len(self.recorder.clock)
        with _Interrupt() as interrupt:
            while self.iteration < c.n_iter:
                target = self.recorder.next(self.iteration)
                started, wanted = time.perf_counter(), min(segment, target - self.iteration)
                self.advance(wanted)
                share = SEGMENT_SECONDS / max(time.perf_counter() - started, 1e-9)
                segment = max(1, int(wanted * min(share, 2)))
                if self.iteration == target:
                    self.note(np.where(self.net.finite(), -1, 0))
                if not self.drops and not np.isnan(self.diverged_at).all():
                    self.stop(folder)
                if self.iteration == target:
                    self.record()
                    if len(self.recorder.clock) - saved >= c.checkpoint_every or self.iteration == c.n_iter:
                        save()
                        saved = len(self.recorder.clock)
                clock.tell("training", self.iteration / c.n_iter)
                if interrupt.hit and self.iteration < c.n_iter:
                    save()
                    if folder is not None:
                        folder.save_history(self.recorder.history())
                    raise TrainingInterrupted(self.iteration, self.result())
        if folder is not None:
            folder.save_history(self.recorder.history())
        return self.result()

    def stop(self, folder):
        """Raise for the runs that diverged first; what others did since is not known."""
        first = np.nanmin(self.diverged_at)
        self.diverged_at[self.diverged_at > first] = np.nan
        if folder is not None:
            folder.save_history(self.recorder.history())
        raise DivergenceError(int(first), np.flatnonzero(self.diverged_at == first).tolist(), self.result())


Trained = TypeVar("Trained", bound=Model)
Recordable: TypeAlias = Callable[[Trained, int], Mapping[str, ArrayLike]] | Measurement[Trained]


def train(
    net: Trained,
    data: DataLike,
    config: TrainConfig,
    test: DataLike | None = None,
    *,
    metrics: Recordable[Trained] | Sequence[Recordable[Trained]] | None = None,
    run_dir: str | Path | None = None,
    progress: Progress | None = None,
    diverged: Diverged = "raise",
) -> TrainResult[Trained]:
    """Train `net` (a network or a batch of runs; it is not changed) on `data`, a Data or a pair (X, y).

    W <- W - lr grad L(W; X), or in adversarial training W <- W - lr grad L(W; X~).  Recorded at every record point:
    "iteration", "loss" and "train_accuracy" on the clean training data, "test_accuracy" if `test` is given, and what
    the model measures of the data's directions (a patch network: :func:`advfeat.correlations`).  Run axes come second;
    a single network has none.

    Parameters
    ----------
    metrics : a function of the network and the iteration that returns arrays by name, called at every record point; a
        :class:`advfeat.training.Measurement`, which has a clock of its own; or a list of them.
    run_dir : a folder in which configuration, history and a checkpoint are kept; the same call continues an unfinished
        run to the same bits.
    progress : called with what is done and the share of it now and then (`core.progress`).
    diverged : "raise", or "drop": the other runs of a batch go on when one diverges; its records are NaN from then on,
        its weights 0.  `TrainResult.diverged_at` says when, in both.

    Raises
    ------
    DivergenceError, TrainingInterrupted
        Both carry ``result``, what was recorded so far; a run folder keeps its last checkpoint.
    CheckpointError
        `run_dir` holds another run or a damaged one, or another process trains there.  Nothing is overwritten.
    """
    trainer = Trainer(net, data, config, test, metrics, diverged)
    if run_dir is None:
        return trainer.run(progress)
    with RunFolder(checks.path("run_dir", run_dir), trainer.identity()) as folder:
        held = folder.open()
        if held is not None:
            try:
                trainer.restore(held, folder.records())
            except (KeyError, TypeError, ValueError) as error:
                if isinstance(error, store.CheckpointError):
                    raise
                raise store.CheckpointError(f"{folder.checkpoint}: does not fit this training, {error}") from None
        return trainer.run(progress, folder)

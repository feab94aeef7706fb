"""Figure 3 as an experiment: both trainings over several seeds, measured on the way, and what came out of them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..core import checks, store
from ..core.lock import Lock
from ..core.model import Checked
from ..core.progress import Progress, Stopwatch
from ..kernels import formulas, get_engine
from ..kernels.recursion import Types
from ..patches.data import PatchData
from ..patches.features import q_sum
from ..robustness.evaluate import MEASURED_BY, RobustAccuracy, robust_accuracy
from ..theory import Recursion, State, empirical_types, phase_two_started, simulate
from ..theory.events import first_time, for_good, took_off
from ..training import History, Measurement, run_folder
from ..training.loop import train
from .configuration import Figure3Config

TRAININGS = ("standard", "adversarial")
SHARES = {"standard": (0, 0.5), "adversarial": (0.5, 1)}  # of the time that both take
#: What goes from a run's folder when it is begun anew; its config.json is replaced at the end, so that the folder is a
#: run's at any moment.
FILES = ("report.html", "figure3.png", "figure3.pdf", "history.npz", *(f"{training}/{name}" for training in TRAININGS
         for name in ("history.npz", "checkpoint.npz", "records.bin", "config.json")))  # fmt: skip


def bounds(net, data, config: Figure3Config, eps: float, max_nodes: int | None = None, seeds=None,
           progress: Progress | None = None) -> RobustAccuracy:  # fmt: skip
    """Robust accuracy at radius `eps` between the attacks of the configuration and branch and bound; `seeds` are those
    of the networks (default: the configuration's)."""
    return robust_accuracy(
        net, data, eps=eps, norm=config.norm, max_nodes=max_nodes, ascent_lr=config.ascent_lr,
        n_steps=config.pgd_steps, n_restarts=config.pgd_restarts, rng=config.seeds if seeds is None else seeds,
        progress=progress,
    )  # fmt: skip


def samples_of(config: Figure3Config, n: int, seeds=None) -> tuple[list[int], PatchData]:
    """`n` test samples of each of the run's `seeds` (default: all), from the seeds' own streams, and those seeds."""
    config = replace(config, n_test=checks.integer("samples", n, 1))
    chosen = config.seeds if seeds is None else list(dict.fromkeys(seeds))
    for seed in chosen:
        checks.choice("seed", seed, config.seeds)
    rows, data = [config.seeds.index(seed) for seed in chosen], config.data("test")
    return chosen, PatchData(*(a[rows] for a in (data.X, data.y, data.robust, data.strength)), data.features)


class Accuracies:
    """What is recorded beside correlations, seldom, since it takes its time: accuracies under attack, certificates."""

    def __init__(self, config: Figure3Config):
        self.config, self.test, self.held = config, config.data("test"), None
        self.kept = {feature: self.test.representative(feature) for feature in ("robust", "non_robust")}  # Def. 4.1
        y, k = self.test.y, config.n_classes
        self.of_class = (y[:, None] == np.arange(k)[:, None]).astype(float)  # (R, k, n)

    def per_class(self, mask):
        """Share of each class's samples in `mask` (R, n) -> (R, k), NaN for a class without samples."""
        count = self.of_class.sum(axis=-1)
        return np.where(count > 0, (self.of_class * mask[:, None]).sum(axis=-1) / np.maximum(count, 1), np.nan)

    def __call__(self, net, iteration):
        c = self.config
        if self.held is None:  # laid out once for all records
            self.held = Checked(net, self.test)
            self.batches = {feature: net.prepare(*net.check(d.X, d.y)) for feature, d in self.kept.items()}
        found = bounds(net, self.held, c, c.eps_test, max_nodes=None if iteration == c.n_iter else 1)
        values = {
            "robust_accuracy": found.robust_accuracy,
            "certified_accuracy": found.certified_accuracy,
            "interval_accuracy": found.interval_certified.mean(axis=-1),
            "class_accuracy": self.per_class(found.correct),
            "class_robust": self.per_class(found.standing),
            "class_certified": self.per_class(found.certified),
        }
        for feature, batch in self.batches.items():
            right = formulas.margin(net.logits_of(batch), self.test.y) > 0
            values[f"{feature}_feature_accuracy"] = right.mean(axis=-1)
        return values | {f"under_{attack}": found.under(attack) for attack in MEASURED_BY[:-1]}


def run(
    config: Figure3Config,
    out: str | Path,
    *,
    weights: np.ndarray | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> run_folder.Run:
    """Both trainings into the run folder `out`, continuing what is there; returns the folder's content.

    `progress` as in :mod:`advfeat.core.progress`.  Raises CheckpointError when `out` holds a run of another
    configuration, unless `force`: a run that is there, of whatever configuration, is removed then and begun anew.
    """
    net, data = config.network(weights), config.data("train")
    out = store.make_folder(out)
    with Lock(out):
        about, done, clock = _claim(out, config, net, force), {}, Stopwatch(progress)
        for name in TRAININGS:
            accuracies = Accuracies(config)
            report = clock.part(*SHARES[name], f"{name} training, {config.n_seeds} seeds")
            options = {"metrics": Measurement(accuracies, config.n_iter // config.n_records), "progress": report}
            training = config.training(name == "adversarial")
            done[name] = train(net, data, training, accuracies.test, run_dir=out / name, **options)
        nets, histories = ({name: getattr(d, part) for name, d in done.items()} for part in ("net", "history"))
        arrays = {f"{name}/{key}": a for name, history in histories.items() for key, a in history.arrays().items()}
        store.save_npz(out / "history.npz", **arrays)
    return run_folder.Run(out, about["config"], about["environment"], nets, histories)


def _claim(out: Path, config: Figure3Config, net, force: bool) -> dict:
    """Make a new folder this run's and return its config.json; CheckpointError for one that holds anything else, unless
    `force` removes a run."""
    known = {"config": config.as_dict(), "start": store.digest(net.W), "trainings": list(TRAININGS)}
    about = out / "config.json"
    if about.exists() and not force:
        held = store.load_json(about)
        store.conform(about, held, {"config": dict, "environment": dict, "start": str, "trainings": [str]})
        changed = config.changes(held["config"])
        if changed or any(held[part] != known[part] for part in ("start", "trainings")):
            what = ", ".join(changed) or "initial weights differ"
            raise store.CheckpointError(f"{out}: holds another run, nothing was changed; {what}")
        return held
    if not about.exists() and {path.name for path in out.iterdir()} - {".lock"}:
        raise store.CheckpointError(f"{out}: not empty and no run folder (no config.json), nothing was changed")
    for name in FILES if force else ():
        (out / name).unlink(missing_ok=True)
    store.save_json(about, {"environment": store.environment(), **known})
    return store.load_json(about)


def recursions(
    config: Figure3Config, weights: np.ndarray | None = None, trainings: Sequence[str] = TRAININGS
) -> dict[str, Recursion]:
    """The trainings by the exact noiseless recursion, from the networks' own initial weights, classes and strengths.

    Beyond a saturation it goes on as an approximation (`Recursion.exact` says where).  Empty for minibatches, which the
    recursion does not know.
    """
    if config.batch_size is not None:
        return {}
    state, types, options = _recursion(config, weights)
    return {name: simulate(state, types, **options[name]) for name in trainings}


def _recursion(config: Figure3Config, weights: np.ndarray | None) -> tuple[State, Types, dict[str, dict]]:
    """What `simulate` takes: state, types, and of every training its options."""
    data, law = config.data("train"), config.distribution()
    state = State.from_weights(config.network(weights).W, law.features)
    types = empirical_types(data.y, data.robust, data.strength, config.n_classes)
    common = {name: getattr(config, name) for name in ("q", "rho", "lr", "n_iter", "record_every")}
    ascent = {name: getattr(config, name) for name in ("ascent_lr", "eps", "objective", "norm", "n_ascent")}
    return state, types, {"standard": common, "adversarial": common | ascent | {"after_saturation": "continue"}}


def plan_recursions(config: Figure3Config, weights: np.ndarray | None = None) -> list[tuple[str, str]]:
    """Rows (training, kernel and seconds) of `recursions`; the seconds follow from a hundredth of the iterations, at
    least 20, done here and now."""
    if config.batch_size is not None:
        return [("recursion", "none: it does not know minibatches")]
    state, types, options = _recursion(config, weights)
    few = min(max(config.n_iter // 100, 20), config.n_iter)
    kernel, rows = get_engine("numba").plan_recursion(types), []
    for name, held in options.items():
        for _ in range(2):  # the first time, it may have to be compiled
            started = time.perf_counter()
            simulate(state, types, **held | {"n_iter": few, "record_every": None})
        seconds = (time.perf_counter() - started) * config.n_iter / max(few, 1)
        rows.append((f"{name} recursion", f"{kernel}; about {seconds:.2g} s"))
    return rows


def final_strength(history: Mapping) -> float:
    """The largest <w_{i,s}, u_i> that a history ends with, over runs, classes and neurons; NaN where a run diverged."""
    return float(np.max(history["A"][-1]))


def predicted_strength(config: Figure3Config, weights: np.ndarray | None = None) -> float | None:
    """`final_strength` of adversarial training as the exact recursion predicts it for the first seed, without training.

    None for minibatches, which the recursion does not know.
    """
    first = replace(config, n_seeds=1)
    held = weights[:1] if np.ndim(weights) == 4 else weights
    found = recursions(first, held, ("adversarial",))
    return final_strength({"A": found["adversarial"].A}) if found else None


# ------------------------------------------------------------------ what came out
def interval_key(history: History) -> str:
    """Where a history holds the share certified by intervals; in those of version 0.1.0 it is all that is certified."""
    return "interval_accuracy" if "interval_accuracy" in history else "certified_accuracy"


def phase_two(history: History, config: Figure3Config) -> np.ndarray:
    """First recorded iteration with `phase_two_started`, per run and class, (R, k); NaN where it never starts."""
    started = phase_two_started(history["B"], config.beta, config.q, config.rho, config.ascent_lr)
    return first_time(history["iteration"], started)


def summary(run: run_folder.Run, config: Figure3Config) -> dict:
    """Numbers of a finished run, per training and seed (lists) or per seed and class (nested lists)."""
    out = {}
    for name in TRAININGS:
        h, q = run.histories[name], config.q
        A, B = q_sum(h["A"], q), q_sum(h["B"], q)
        times, robust = h.at("robust_accuracy")
        accuracy = h["test_accuracy"]
        out[name] = {
            "accuracy": accuracy[-1],
            "robust": robust[-1],
            "certified": h["certified_accuracy"][-1],
            "interval": h[interval_key(h)][-1],
            **{f"under_{a}": h[f"under_{a}"][-1] for a in MEASURED_BY[:-1]},
            "robust_feature": h["robust_feature_accuracy"][-1],
            "non_robust_feature": h["non_robust_feature_accuracy"][-1],
            "accuracy_time": first_time(h["iteration"], accuracy >= 0.95),
            "robust_time": first_time(times, robust >= 0.95),
            "class_robust": h["class_robust"][-1],
            "class_certified": h["class_certified"][-1],
            "A": A[-1],
            "B": B[-1],
            "A_time": first_time(h["iteration"], took_off(h, "A")),
            "B_time": first_time(h["iteration"], took_off(h, "B")),
            "crossing": for_good(h["iteration"], A > B),
        }
    out["adversarial"]["phase_two"] = phase_two(run.histories["adversarial"], config)
    return out

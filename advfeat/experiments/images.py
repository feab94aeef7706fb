"""Trainings on real images: watched on held-out images, kept with their weights, tested when everything is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..attacks.threat import ThreatModel
from ..core import checks, store
from ..core.lock import Lock
from ..core.progress import Progress
from ..images import Network, exchange
from ..images.data import DATA_SETS
from ..kernels import formulas
from ..robustness import catalogue
from ..robustness.evaluate import Evaluation
from ..robustness.transcript import IMAGE_SUITE, STANDS, Transcript, attack_images, verify, zero_gradients
from ..training import History, Measurement, run_folder
from ..training.loop import train
from .image_configuration import ImageConfig
from .stages import spread

COLLAPSE = 0.8  # share of validation images of one predicted class from which labels have collapsed
FORGOTTEN = 0.5  # share of the best robust validation accuracy below which robustness is lost
CHECKPOINTS = ("best", "last")


class ValidationWatch:
    """What is recorded on the validation images: accuracy, accuracy under PGD and FGSM, the most frequent class."""

    def __init__(self, config: ImageConfig, data, weights: Path):
        self.config, self.data, self.weights = config, data, weights
        self.attacks = {"robust": catalogue.attack("pgd_cross_entropy", n_steps=config.pgd_steps),
                        "fgsm": catalogue.attack("fgsm_cross_entropy")}  # fmt: skip

    def __call__(self, net, iteration: int) -> dict:
        c, (X, y) = self.config, (self.data.X, self.data.y)
        exchange.save(net, self.weights / f"{iteration}.npz")
        F = net.logits(X).astype(np.float64)
        right, guesses = formulas.margin(F[None], y[None])[0] > 0, F.argmax(axis=1)
        found = {"validation_accuracy": right.mean()}
        for name, attack in self.attacks.items():
            found[f"validation_{name}"] = standing(net, self.data, right, attack, c).mean()
        shares = np.bincount(guesses, minlength=net.n_classes) / len(y)
        expected = np.bincount(y, minlength=net.n_classes).max() / len(y)
        # the share of one class in what the network says, 0 where it is the largest class's own and 1 where all are
        found["validation_collapse"] = max((shares.max() - expected) / (1 - expected), 0.0) if expected < 1 else 0.0
        return {name: np.float64(value) for name, value in found.items()}


def standing(net, data, right, attack, config: ImageConfig) -> np.ndarray:
    """Which of the images that are `right` an attack at the configuration's radius leaves so."""
    if not right.any():
        return right
    threat = ThreatModel(config.norm, config.eps)
    return right & ~attack(net, (data.X, data.y), threat, config.seed, active=right).success


@dataclass(frozen=True)
class ImageRun:
    """A finished or unfinished training on images: where it lies, its configuration, history and networks by name."""

    path: Path
    config: ImageConfig
    history: History
    nets: dict[str, Network]
    iterations: dict[str, int]  # of the networks

    @property
    def warnings(self) -> list[str]:
        return noticed(self.history, self.config)


def noticed(history: History, config: ImageConfig) -> list[str]:
    """What went wrong in a training, in sentences: collapsed labels, robustness that was there and is lost."""
    said, clock = [], history.at("validation_collapse").iteration
    collapse = history["validation_collapse"][1:]
    if len(collapse) and collapse[-1] >= COLLAPSE:
        first = clock[1:][np.flatnonzero(collapse < COLLAPSE)[-1] + 1 if (collapse < COLLAPSE).any() else 0]
        said.append(f"Labels have collapsed: from iteration {first} on nearly all validation images get one class.")
    if config.training != "standard" and not said:
        robust, fgsm = history["validation_robust"], history["validation_fgsm"]
        best = np.maximum.accumulate(robust)
        lost = (robust < FORGOTTEN * best) & (best >= 0.2) & (fgsm >= robust + 0.2)
        if lost.any():
            at = np.flatnonzero(lost)[0]
            said.append(
                f"Catastrophic overfitting: at iteration {clock[at]} {robust[at]:.0%} of validation images stand "
                f"against PGD, {best[at]:.0%} did before, and {fgsm[at]:.0%} still stand against FGSM."
            )
    return said


def run(
    config: ImageConfig,
    out: str | Path,
    *,
    start: Network | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> ImageRun:
    """One training into the folder `out`, continuing what is there to the same bits; returns its content.

    `start`: a network whose weights the training begins with, as one of another run's (`load`), instead of the
    configuration's.  `progress` as in :mod:`advfeat.core.progress`.  At the end the test images are read once:
    accuracy, and accuracy under PGD-20, of the best and the last network stand in result.json.

    Raises CheckpointError where `out` holds another training, unless `force` begins anew; DivergenceError.
    """
    net = config.untrained() if start is None else start.copy()
    if net.sample_shape != DATA_SETS[config.dataset].shape:
        wanted = f"images of {config.dataset} are {DATA_SETS[config.dataset].shape}"
        raise ValueError(f"start: is a network for images {net.sample_shape}, and {wanted}")
    data, validation = config.samples()
    options = config.training_config(len(data.X))
    out = store.make_folder(out)
    with Lock(out):
        _claim(out, config, net, force)
        weights = store.make_folder(out / "weights")
        watch = Measurement(ValidationWatch(config, validation, weights), options.record_points)
        train(net, data, options, metrics=watch, run_dir=out / arm(config), progress=progress)
        found = load(out)
        if not (out / "result.json").exists():
            store.save_json(out / "result.json", {"networks": tested(found), "warnings": found.warnings})
    return found


def run_seeds(config: ImageConfig, out: str | Path, seeds: Sequence[int], jobs: int = 1, **options) -> list[ImageRun]:
    """The training of every seed, in OUT/seed-SEED, by so many processes that share the cores; `options` of `run`, a
    progress only with one process."""
    each = [(replace(config, seed=seed), Path(out) / f"seed-{seed}") for seed in dict.fromkeys(seeds)]
    for _ in spread(partial(_run, options), each, jobs):
        pass
    return [load(folder) for _, folder in each]


def _run(options: dict, given: tuple) -> None:
    run(*given, **options)


def arm(config: ImageConfig) -> str:
    """The name of a training in its run folder."""
    return "standard" if config.training == "standard" else "adversarial"


def _claim(out: Path, config: ImageConfig, net, force: bool) -> None:
    about = out / "config.json"
    known = {"config": config.as_dict(), "start": net.fingerprint(), "trainings": [arm(config)], "kind": "images"}
    if about.exists() and not force:
        held = store.load_json(about)
        if held.get("kind") != "images":
            raise store.CheckpointError(f"{out}: holds a run of another kind, nothing was changed")
        changed = config.changes(held["config"])
        if changed or held["start"] != known["start"]:
            what = ", ".join(changed) or "initial weights differ"
            raise store.CheckpointError(f"{out}: holds another training, nothing was changed; {what}")
        return
    others = {path.name for path in out.iterdir()} - {".lock"}
    if others and not about.exists():
        raise store.CheckpointError(f"{out}: not empty and no run folder (no config.json), nothing was changed")
    several = ("result.json", "weights/*.npz", "*/checkpoint.npz", "*/records.bin", "*/history.npz", "*/config.json")
    for path in [path for pattern in several for path in out.glob(pattern)]:
        path.unlink(missing_ok=True)
    store.save_json(about, {"environment": store.environment(), **known})


def tested(found: ImageRun) -> dict:
    """Accuracy and accuracy under PGD-20 of a run's networks on the test images."""
    c, data, out = found.config, found.config.test_samples(), {}
    attack = catalogue.attack("pgd_cross_entropy", n_steps=20)
    for name, net in found.nets.items():
        right = net.right(data.X, data.y)
        stands = standing(net, data, right, attack, c)
        out[name] = {"iteration": found.iterations[name], "accuracy": float(right.mean()), "pgd": float(stands.mean()),
                     "n_test": len(data.y), "eps": c.eps, "norm": c.norm}  # fmt: skip
    return out


def load(out: str | Path) -> ImageRun:
    """A training's folder in memory, with its best network (`best`) and its last one."""
    out = Path(out)
    about = store.load_json(out / "config.json") if (out / "config.json").is_file() else {}
    if about.get("kind") != "images":
        raise FileNotFoundError(f"{out}: not a folder of `advfeat images train`")
    config = ImageConfig.from_dict(about["config"])
    held = run_folder.load(out)
    history = held.history
    last = int(history.at("validation_accuracy").iteration[-1])
    iterations = {"best": best(history, config), "last": last}
    nets = {one: exchange.load(out / "weights" / f"{iteration}.npz") for one, iteration in iterations.items()}
    return ImageRun(out, config, history, nets, iterations)


def best(history: History, config: ImageConfig) -> int:
    """The record whose validation images stand best, against PGD or for standard training as they are: the earliest of
    several, and the untrained network where there is no other."""
    clock, values = history.at("validation_accuracy" if config.training == "standard" else "validation_robust")
    return int(clock[1:][values[1:].argmax()]) if len(clock) > 1 else 0


def at(out: str | Path, iteration: int) -> Network:
    """The network of a run at a record point."""
    path = Path(out) / "weights" / f"{iteration}.npz"
    if not path.is_file():
        there = sorted(int(one.stem) for one in Path(out).glob("weights/*.npz"))
        raise FileNotFoundError(f"{path}: there is no such file; iteration = {iteration} must be one of {there}")
    return exchange.load(path)


# ------------------------------------------------------------------ evaluation
TRANSCRIPT, NETWORK, RESULT = "transcript.npz", "network.npz", "result.json"


def evaluate(
    found: ImageRun,
    name: str,
    eps: float,
    samples: int,
    out: str | Path,
    *,
    certificate: str | None = None,
    attacks=IMAGE_SUITE,
    force: bool = False,
    progress: Progress | None = None,
) -> dict:
    """The suite on the first `samples` test images of a run's network `name`, kept in the folder `out`: the transcript,
    the network, and what came out as result.json, which is returned.

    `certificate`: "interval", or "linear" for what intervals leave; the rest is undecided.  Raises CheckpointError
    where `out` holds another evaluation, unless `force`.
    """
    out, net = Path(out), found.nets[checks.choice("network", name, CHECKPOINTS)]
    data = found.config.test_samples()
    data = type(data)(data.X[: checks.integer("samples", samples, 1)], data.y[:samples])
    identity = {"network": net.fingerprint(), "eps": eps, "norm": found.config.norm, "certificate": certificate,
                "data": store.digest(data.X, data.y), "attacks": [[one, dict(o)] for one, o in attacks]}  # fmt: skip
    if (out / RESULT).exists() and not force:
        held = store.load_json(out / RESULT)
        if held.get("identity") != identity:
            raise store.CheckpointError(f"{out}: holds another evaluation, nothing was changed; --force begins anew")
        return held["found"]
    about = {"dataset": found.config.dataset, "classes": list(DATA_SETS[found.config.dataset].classes),
             "run": str(found.path), "checkpoint": name, "iteration": found.iterations[name]}  # fmt: skip
    transcript = attack_images(net, data, eps=eps, norm=found.config.norm, attacks=attacks, rng=found.config.seed,
                               about=about, progress=progress)  # fmt: skip
    answer = {"n": len(data.y), "eps": eps, "norm": found.config.norm, **about, "accuracy": transcript.accuracy,
              "robust_accuracy": transcript.robust_accuracy, "zero_gradients": zero_gradients(net, data)}  # fmt: skip
    answer["attacks"] = [one for one, _ in attacks]
    answer["broken_by"] = {one: int((transcript.broken_by == one).sum()) for one, _ in attacks}
    if certificate is not None:
        answer |= certified(net, data, eps, found.config.norm, certificate, transcript.broken_by == STANDS)
    transcript.save(out / TRANSCRIPT)
    exchange.save(net, out / NETWORK)
    store.save_json(out / RESULT, {"identity": identity, "found": answer})
    return answer


def certified(net, data, eps: float, norm: str, method: str, stands) -> dict:
    """Shares of images: certified by intervals, by `method` too, and undecided: neither broken nor certified."""
    held = Evaluation(net, data, norm=norm)
    active = held.correct & stands
    held.prove(eps, "interval", active=active)
    by_intervals = active & (held.certified >= eps)
    if method == "linear":
        held.prove(eps, "linear", active=active & ~by_intervals)
    proved = active & (held.certified >= eps)
    return {"interval_accuracy": float(by_intervals.mean()), "certified_accuracy": float(proved.mean()),
            "undecided": float((active & ~proved).mean())}  # fmt: skip


def verified(folder: str | Path) -> tuple[list[str], Transcript]:
    """What does not hold of an evaluation's transcript (`robustness.transcript.verify`), by NumPy's engine, and it."""
    transcript = Transcript.load(Path(folder) / TRANSCRIPT)
    net = exchange.load(Path(folder) / NETWORK)
    numpy_net = Network.from_options(arrays=net.arrays(), dtype=net.dtype, **net.options | {"backend": "numpy"})
    said = verify(transcript, numpy_net, net.fingerprint())
    held = store.load_json(Path(folder) / RESULT)["found"]
    for name in ("accuracy", "robust_accuracy"):
        if abs(held[name] - getattr(transcript, name)) > 1e-12:
            said.append(
                f"{name} is {held[name]:.6g} in {RESULT}, and {getattr(transcript, name):.6g} in the transcript."
            )
    return said, transcript

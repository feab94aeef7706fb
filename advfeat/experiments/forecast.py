"""What trainings and experiments on images will take on this machine, time and memory, measured on a few steps.

A step's time is that of a training with one ascent step, and of the other ascent steps, on as many images as a few
seconds allow, at most a batch.  The first few say how many these are: of two images each takes longer than of many.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ..core.data import Samples
from ..core.distribute import usable_cores
from ..core.memory import available, require
from ..images import exchange
from ..images.data import DATA_SETS
from ..training.loop import Trainer
from .image_configuration import ImageConfig
from .representatives_configuration import class_pairs

SECONDS = 1.0  # that one measurement shall take
REPEATS = 3
PROCESS_BYTES = 250_000_000  # of a worker before its first stage
STANDARD = 0.4  # of an attack's steps that images of a normally trained network stand, about
SIZES = {"digits": (1_437, 360), "mnist_5k": (4_000, 1_000), "mnist": (60_000, 10_000), "svhn": (73_257, 26_032),
         "fashion_mnist": (60_000, 10_000), "cifar10": (50_000, 10_000)}  # fmt: skip


@dataclass(frozen=True)
class Rates:
    """Seconds of a training step, per image of a pass forward and of one forward and back, and of keeping weights and a
    checkpoint; bytes at the most."""

    step: float
    forward: float
    back: float
    keep: float
    memory: int


@dataclass(frozen=True)
class Forecast:
    """Seconds of a training's parts, and bytes at the most."""

    steps: int
    step: float
    training: float
    records: float
    test: float
    memory: int

    @property
    def seconds(self) -> float:
        return self.training + self.records + self.test

    def as_dict(self) -> dict:
        return asdict(self) | {"seconds": self.seconds, "memory_free": available()}


def counts(config: ImageConfig) -> tuple[int, int, int]:
    """How many training, validation and test images a configuration has; no file is read."""
    train, test = (most if given is None else min(given, most) for most, given in zip(
        SIZES[config.dataset], (config.n_train, config.n_test)))  # fmt: skip
    validation = max(round(config.validation * train), 1)
    return train - validation, validation, test


def timed(work: Callable[[], object]) -> float:
    """The median time of a call, after a first one that compiles; of one call where it is long."""
    work()
    started = time.perf_counter()
    work()
    times = [time.perf_counter() - started]
    while sum(times) < SECONDS and len(times) < 50:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def rates(config: ImageConfig) -> Rates:
    """Measured on random images."""
    net, batch = config.untrained(), config.batch_size
    rng = np.random.default_rng(0)
    X = rng.random((batch, *net.sample_shape)).astype(net.dtype)
    y = np.arange(batch) % net.n_classes

    def some(work, least=1):
        """Seconds of work(images) per image: on two, then on as many as a measurement allows, at most a batch."""
        def measured():
            return timed(lambda: work(n)) / n

        n = max(least, min(batch, 2))
        seconds = measured()
        while (more := min(batch, int(SECONDS * REPEATS / seconds))) > n and (more >= 2 * n or more == batch):
            n = more
            seconds = measured()
        return seconds

    def trained(n):
        options = replace(config.training_config(n), batch_size=n)
        options = replace(options, n_ascent=1) if options.adversarial else options
        return Trainer(net, Samples(X[:n], y[:n]), options)

    trainers = {}

    def step(n):
        if n not in trainers:
            trainers.clear()
            trainers[n] = trained(n)
        trainers[n].advance(1)

    options = config.training_config(batch)
    C = rng.standard_normal((batch, net.n_classes)).astype(net.dtype)
    whole, forward = some(step, 2) * batch, some(lambda n: net.logits(X[:n]))
    back = some(lambda n: net.pull_back(X[:n], C[:n]))
    if options.adversarial and options.n_ascent > 1:
        crafted = net if options.crafting_mode == "evaluate" else net.in_mode("train")
        ascent = back if crafted is net else some(lambda n: crafted.pull_back(X[:n], C[:n]), 2)
        whole += (options.n_ascent - 1) * ascent * batch
    with tempfile.TemporaryDirectory() as folder:
        keep = 3 * timed(lambda: exchange.save(net, Path(folder) / "net.npz"))  # with momentum in a checkpoint
    return Rates(whole, forward, back, keep, memory_of(config, net))


def memory_of(config: ImageConfig, net=None) -> int:
    """Bytes that a training takes at the most: weights, gradients and momentum, a pass, images."""
    net = config.untrained() if net is None else net
    images = sum(counts(config)) * int(np.prod(net.sample_shape)) * (net.dtype.itemsize + 1)
    return net.memory(config.batch_size) + 3 * net.n_parameters * net.dtype.itemsize + images


def affordable(config: ImageConfig, jobs: int | None, scheduler: str = "loky") -> int | None:
    """So many trainings at once as this machine's memory allows; MemoryError where fewer were asked for."""
    if scheduler != "loky" or jobs == 1:
        return jobs
    need = PROCESS_BYTES + memory_of(config)
    if jobs is None:
        return max(1, min(usable_cores(), int(available() // need)))
    require(jobs * need, f"{jobs} trainings at once", "give fewer --jobs")
    return jobs


def of_training(config: ImageConfig, held: Rates | None = None) -> Forecast:
    """One training, with its records on validation images and its test."""
    r = rates(config) if held is None else held
    n, validation, test = counts(config)
    options = config.training_config(n)
    records = 1 + -(-options.n_iter // options.record_points)
    stands = STANDARD if config.training == "standard" else 1.0
    record = r.forward * (n + 2 * validation) + r.back * validation * (stands * config.pgd_steps + 1) + r.keep
    return Forecast(options.n_iter, r.step, options.n_iter * r.step, records * record,
                    2 * test * (2 * r.forward + stands * 20 * r.back), r.memory)  # fmt: skip


def row(stage: str, least: float, most: float, memory: int) -> dict:
    return {"stage": stage, "least": least, "most": most, "memory": memory}


def inversions(config, n_sets: int, n: int, held: Rates, n_starts: int) -> tuple[float, float]:
    """Seconds, the least and the most: that all images converge in a tenth of the steps from their first start, and
    that none ever does."""
    steps = n_sets * n * held.back * config.inversion_steps
    return steps / 10, steps * n_starts


def represented(config) -> int:
    """Images that a set of representatives stands for."""
    return min(500, counts(config)[2] // 2) if config.n_images is None else config.n_images


def of_experiment(experiment, representatives: bool = True) -> list[dict]:
    """Rows of stages with their seconds, the least and the most."""
    c, alike = experiment.config, {}
    trained = experiment.networks if representatives else [one for one in experiment.networks if one.kind == "own"]
    for one in dict.fromkeys([*trained, *experiment.attackers]):
        kind = "" if one.kind in ("own", "kin") else f" {one.kind}"
        alike.setdefault(f"{one.arm}{kind}", []).append(experiment.training(one))
    held = {name: rates(configs[0]) for name, configs in alike.items()}
    rows = []
    for name, configs in alike.items():
        one = of_training(configs[0], held[name])
        seconds = len(configs) * one.seconds
        rows.append(row(f"{len(configs)} {name} trainings", seconds, seconds, one.memory))
    r, test = held["standard"], counts(c)[2]
    if representatives:
        n, sets = represented(c), len(experiment.sets)
        made = inversions(c, sets, n, r, c.n_starts)
        rows.append(row(f"{sets} sets of representatives", *made, r.memory))
        asked = len(trained) * (1 + -(-c.epochs // c.record_every)) * (sets + 2) * n * r.forward
        rows.append(row("answers at all record points", asked, asked, r.memory))
    each = test / len(DATA_SETS[c.dataset].classes)
    each = min(each, c.n_attacked or each) * len(class_pairs(c.dataset, c.pairs)) * len({1.0, *c.attack_scales})
    attacks = len(experiment.attackers) * each * (c.attack_steps * r.back + len(trained) * r.forward)
    return [*rows, row("attacks on features", attacks, attacks, r.memory)]


def of_study(study) -> list[dict]:
    """Rows of the recipes that have cells without a result, with their seconds, the least and the most; a training that
    several recipes need stands with the first of them."""
    held: dict[ImageConfig, Rates] = {}
    rows, promised = [], set()

    def rates_of(config: ImageConfig) -> Rates:
        alike = replace(config, seed=0, order_seed=None, order_from=0.0, eps=1.0)
        return held.setdefault(alike, held.get(alike) or rates(alike))

    for work in study.left():
        c, trainings = work.config, 0.0
        left = [one for one in work.networks if not work.is_trained(one) and work.folder(one) not in promised]
        for one in left:
            promised.add(work.folder(one))
            trainings += of_training(work.training(one), rates_of(work.training(one))).seconds
        r = max((rates_of(work.training(one)) for one in work.references), key=lambda one: one.memory)
        sets = [one for one in work.references if not all(file.exists() for file in work.files(one).values())]
        made = inversions(c, len(sets), represented(c), r, 1 if work.recipe.steps else c.n_starts)
        what = f"{work.recipe.name}: {len(left)} trainings, {len(sets)} sets of representatives"
        rows.append(row(what, *(trainings + one for one in made), r.memory))
    return rows


def duration(seconds: float) -> str:
    """In the largest fitting unit."""
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.1f} s"

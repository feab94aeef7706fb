"""What trainings and experiments on images will take on this machine, time and memory, measured on a few steps.

A step's time is that of a training with one ascent step, and of the other ascent steps, on as many images as a few
seconds allow; networks so large that this is less than a batch take as long for every image.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ..core.data import Samples
from ..core.memory import available
from ..images import exchange
from ..images.data import DATA_SETS
from ..training.loop import Trainer
from .image_configuration import ImageConfig
from .representatives_configuration import class_pairs

SECONDS = 1.0  # that one measurement shall take
REPEATS = 3
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
        """Seconds of work(images) per image: on a few, and where that is quick on a batch."""
        n = max(least, min(batch, 2))
        first = timed(lambda: work(n)) / n
        return timed(lambda: work(batch)) / batch if first * batch < SECONDS * REPEATS else first

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


def of_experiment(experiment, representatives: bool = True) -> list[dict]:
    """Rows of stages with their seconds, the least and the most: of inversions the least is that all images converge in
    a tenth of the steps from their first start, the most that none ever does."""
    c, alike = experiment.config, {}
    trained = experiment.networks if representatives else [one for one in experiment.networks if one.kind == "own"]
    for one in dict.fromkeys([*trained, *experiment.attackers]):
        kind = "" if one.kind in ("own", "kin") else f" {one.kind}"
        alike.setdefault(f"{one.arm}{kind}", []).append(experiment.training(one))
    held = {name: rates(configs[0]) for name, configs in alike.items()}
    rows = []

    def add(stage, least, most, memory):
        rows.append({"stage": stage, "least": least, "most": most, "memory": memory})

    for name, configs in alike.items():
        one = of_training(configs[0], held[name])
        add(f"{len(configs)} {name} trainings", len(configs) * one.seconds, len(configs) * one.seconds, one.memory)
    r, test = held["standard"], counts(c)[2]
    if representatives:
        n, sets = min(500, test // 2) if c.n_images is None else c.n_images, len(experiment.sets)
        steps = sets * n * r.back * c.inversion_steps
        add(f"{sets} sets of representatives", steps / 10, steps * c.n_starts, r.memory)
        asked = len(trained) * (1 + -(-c.epochs // c.record_every)) * (sets + 2) * n * r.forward
        add("answers at all record points", asked, asked, r.memory)
    each = test / len(DATA_SETS[c.dataset].classes)
    each = min(each, c.n_attacked or each) * len(class_pairs(c.dataset, c.pairs)) * len({1.0, *c.attack_scales})
    attacks = len(experiment.attackers) * each * (c.attack_steps * r.back + len(trained) * r.forward)
    add("attacks on features", attacks, attacks, r.memory)
    return rows


def duration(seconds: float) -> str:
    """In the largest fitting unit."""
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.1f} s"

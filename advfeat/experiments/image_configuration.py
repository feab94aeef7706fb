"""The configuration of a training on real images, and recipes of public practice as presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..core import checks
from ..core.config import Configuration, key
from ..core.data import Samples
from ..core.types import PRECISIONS, Precision
from ..images import ConvNet, Network, Normalise, PreActResNet18, ResNet18, WideResNet
from ..images.data import DATA_SETS, held_out
from ..images.data.catalogue import DataSetName, drawn_images
from ..kernels.layers import BACKENDS, LayerBackend, Mode
from ..training.configuration import TrainConfig
from ..training.optim import OPTIMISERS, SCHEDULES, OptimiserName, RateSchedule

Architecture = Literal["resnet18", "preact_resnet18", "wide_resnet", "convnet"]
ImageTraining = Literal["standard", "pgd", "fgsm", "trades"]
NETWORKS: tuple[Architecture, ...] = get_args(Architecture)
TRAININGS: tuple[ImageTraining, ...] = get_args(ImageTraining)


@dataclass(frozen=True)
class ImageConfig(Configuration):
    """A training on an image set: data, network, recipe, seeds.  Defaults: MNIST 5k with a ResNet18 of width 8.

    Images lie in [0, 1], radii are in the same unit.  The validation images are held out of the training images by the
    seed 0, whatever `seed` is; the test images are read when everything is chosen.
    """

    dataset: DataSetName = key("mnist_5k", "image set", choices=tuple(DATA_SETS))
    folder: str | None = key(None, "folder of its files, else where they usually are")
    n_train: int | None = key(None, "training images with those of validation, all without it", low=10)
    n_test: int | None = key(None, "test images, all without it", low=1)
    validation: float = key(0.1, "share of the training images that chooses the best checkpoint, at most 0.5", above=0)
    network: Architecture = key("resnet18", "architecture", choices=NETWORKS)
    width: int = key(8, "channels of the first stage; of wide_resnet the factor", low=1, high=1024)
    depth: int = key(10, "layers of wide_resnet, 6 n + 4; stages of convnet", low=1, high=100)
    normalise: bool = key(False, "whether the network begins by (x - mean) / deviation, the set's usual numbers")
    training: ImageTraining = key("standard", "how samples are moved", choices=TRAININGS)
    norm: checks.AscentNorm = key("linf", "norm of the balls", choices=tuple(checks.NORMS))
    eps: float = key(0.2, "radius of training and of the attacks that measure, at most 1 for linf", "pixel", above=0)
    n_ascent: int = key(7, "steps of the ascent; fgsm has one", low=1, high=checks.MOST_STEPS)
    step: float | None = key(None, "of the ascent, over eps: 2.5 / n_ascent without it, of fgsm 1.25", above=0)
    eps_warm_up: float = key(0.0, "epochs over which the radius grows from 0", low=0)
    beta: float = key(6.0, "weight of the divergence in trades", low=0)
    crafting_mode: Mode = key("evaluate", "mode of batch norm in the ascent", choices=("evaluate", "train"))
    crafting_updates: bool = key(False, "whether the ascent moves batch norm's running statistics")
    epochs: int = key(12, "passes over the training images", low=1, high=100_000)
    batch_size: int = key(100, "images of a step", low=2)
    optimiser: OptimiserName = key("sgd", "how parameters move along gradients", choices=OPTIMISERS)
    lr: float = key(0.1, "learning rate, of one_cycle its top", above=0)
    momentum: float = key(0.9, "share of the last step that is kept, of sgd", low=0)
    nesterov: bool = key(False, "whether momentum looks a step ahead")
    weight_decay: float = key(5e-4, "share of the weights that is added to their gradient", low=0)
    decay_vectors: bool = key(True, "whether biases and batch norms decay too")
    schedule: RateSchedule = key("one_cycle", "how the learning rate moves along the training",
                                 choices=tuple(SCHEDULES))  # fmt: skip
    drops: tuple[float, ...] = key((0.5, 0.75), "shares of the training where the step schedule divides by 10",
                                   low=0, many=True)  # fmt: skip
    augmentation: checks.Augmentation = key("none", "how images are moved and mirrored at random",
                                            choices=checks.AUGMENTATIONS)  # fmt: skip
    seed: int = key(0, "of the initial weights", low=0)
    order_seed: int | None = key(None, "of batches, augmentation and ascents; seed without it", low=0)
    order_from: float = key(0.0, "epochs in the order of seed before that of order_seed", low=0)
    record_every: float = key(1.0, "epochs between two records, each with the weights and a checkpoint", above=0)
    pgd_steps: int = key(10, "steps of the attack on validation images", low=1, high=checks.MOST_STEPS)
    backend: LayerBackend = key("numba", "engine", choices=BACKENDS)
    dtype: Precision = key("float32", "precision", choices=PRECISIONS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm == "linf" and self.eps > 1:
            raise ValueError(f"eps = {self.eps!r}: must be <= 1, the width of the box in which images lie")
        if self.validation > 0.5:
            raise ValueError(f"validation = {self.validation!r}: must be <= 0.5")
        if self.order_from and self.order_seed is None:
            raise ValueError(f"order_from = {self.order_from!r}: only with order_seed, whose order begins there")
        if self.optimiser == "adam" and self.momentum:
            object.__setattr__(self, "momentum", 0.0)
        if self.network == "wide_resnet" and self.depth % 6 != 4:
            raise ValueError(f"depth = {self.depth!r}: of wide_resnet must be 6 n + 4: 10, 16, 22, 28, 34, ...")
        self.training_config(self.batch_size)

    # -------------------------------------------------------------- the library's objects
    def samples(self) -> tuple[Samples, Samples]:
        """(training, validation) images."""
        data = drawn_images(self.dataset, "train", self.folder, self.n_train, 0, self.dtype, "n_train")
        data, validation = held_out(data, max(round(self.validation * len(data.X)), 1), 0)
        classes = DATA_SETS[self.dataset].classes
        empty = [name for label, name in enumerate(classes) if not (data.y == label).any()]
        if empty:
            where = f"among {len(data.X):,} training images of {self.dataset}"
            raise ValueError(f"n_train = {self.n_train}: {where} none is of class {', '.join(empty)}; give more")
        return data, validation

    def test_samples(self) -> Samples:
        return drawn_images(self.dataset, "test", self.folder, self.n_test, 0, self.dtype, "n_test")

    def untrained(self) -> Network:
        """The network with initial weights drawn by `seed`."""
        images = DATA_SETS[self.dataset]
        shape, n_classes = images.shape, len(images.classes)
        options = {"before": [Normalise(images.mean, images.deviation)] if self.normalise else []}
        options |= {"dtype": self.dtype, "backend": self.backend, "rng": self.seed}
        if self.network == "wide_resnet":
            return WideResNet(self.depth, self.width, shape, n_classes, **options)
        if self.network == "convnet":
            return ConvNet(self.width, shape, n_classes, stages=min(self.depth, 3), **options)
        made = ResNet18 if self.network == "resnet18" else PreActResNet18
        return made(self.width, shape, n_classes, **options)

    def training_config(self, n: int) -> TrainConfig:
        """How to train on n images."""
        per_epoch = -(-n // self.batch_size)
        given = {name: getattr(self, name) for name in (
            "lr", "momentum", "nesterov", "weight_decay", "decay_vectors", "optimiser", "schedule", "drops",
            "augmentation", "batch_size")}  # fmt: skip
        given |= {"n_iter": self.epochs * per_epoch, "record_every": max(round(self.record_every * per_epoch), 1)}
        given["seed"] = self.seed if self.order_seed is None or self.order_from else self.order_seed
        if self.order_from:
            given |= {"later_seed": self.order_seed, "later_from": round(self.order_from * per_epoch)}
        if self.training == "standard":
            return TrainConfig(**given)
        n_ascent = 1 if self.training == "fgsm" else self.n_ascent
        step = (1.25 if self.training == "fgsm" else 2.5 / n_ascent) if self.step is None else self.step
        given |= {"adversarial": True, "ascent": "steepest", "objective": "cross_entropy", "norm": self.norm}
        given |= {"n_ascent": n_ascent, "ascent_lr": step * self.eps, "eps": self.eps}
        given |= {"eps_warm_up": round(self.eps_warm_up * per_epoch), "random_start": self.training != "trades"}
        given |= {"crafting_mode": self.crafting_mode, "crafting_updates": self.crafting_updates}
        if self.training == "trades":
            given |= {"loss": "trades", "beta": self.beta}
        return TrainConfig(**given)

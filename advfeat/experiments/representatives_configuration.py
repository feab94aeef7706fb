"""The configuration of the paper's experiment on real images: trainings, representatives, who learns from whom."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

from ..core import checks
from ..core.config import key
from ..images.data import DATA_SETS
from ..images.inversion import OPTIMISERS, SCHEDULES, Inversion
from ..images.representatives import STARTS, Sources, select
from .image_configuration import NETWORKS, ImageConfig

ARMS = ("standard", "adversarial")
KIND = "representatives"  # of a run folder
LEARNERS = ("kin", "other")
KIN = 1000  # added to the seed: the order of a kin's batches
#: Keys that no training hangs on: with others of these, an experiment keeps its networks.
OF_REPRESENTATIVES = (
    "reference", "n_images", "starts", "start_part", "allow_seen_starts", "optimiser_of_inversion", "inversion_step",
    "inversion_decay", "inversion_steps", "n_starts", "tolerance", "enough",
    "radius", "straight_through",
)  # fmt: skip


#: Keys on which nothing hangs that is kept without saying of what it is: they may change at any time.
FREE = ("learners", "pairs", "n_attacked", "attack_steps", "attack_scales", "reference_eps", "bootstrap")


PAIRS = {
    **dict.fromkeys(("digits", "mnist_5k", "mnist", "svhn"), ("4:9", "3:5")),
    "fashion_mnist": ("6:0", "2:4"),  # shirt and T-shirt, pullover and coat
    "cifar10": ("cat:dog", "airplane:automobile"),
}


@dataclass(frozen=True)
class RepresentativesConfig(ImageConfig):
    """Standard and adversarial networks of several seeds, each a reference and a learner; and their representatives.

    The keys of a training hold for all of them; `seed` is the first network's, the others' follow it.
    """

    training: str = key("pgd", "how the adversarial networks are trained", choices=("pgd", "fgsm", "trades"))
    adversarial_epochs: int | None = key(None, "epochs of adversarial trainings, as of the others without it", low=1,
                                         high=100_000)  # fmt: skip
    n_seeds: int = key(3, "networks of each kind", low=1, high=100)
    learners: tuple[str, ...] = key(LEARNERS, "who learns besides the references: their kin, another architecture",
                                    choices=LEARNERS, many=True)  # fmt: skip
    reference: str = key("last", "which network of a training is a reference", choices=("best", "last"))
    other_network: str | None = key(None, "another architecture, as learner and as reference: convnet, or resnet18",
                                    choices=NETWORKS)  # fmt: skip
    other_width: int | None = key(None, "its width: four times the networks' for convnet, else theirs", low=1, high=512)
    n_images: int | None = key(None, "images represented: 500, or half of the test images, without it", low=2)
    starts: tuple[str, ...] = key(STARTS, "what inversions begin with", choices=STARTS, many=True)
    start_part: str = key("test", "where starts are drawn from", choices=("test", "train"))
    allow_seen_starts: bool = key(False, "whether starts may be images that the networks were trained on")
    optimiser_of_inversion: str = key("adam", "how images move", choices=OPTIMISERS)
    inversion_step: float = key(0.1, "length of a step of gradient, or Adam's rate", "pixel", above=0)
    inversion_decay: str = key("cosine", "how steps shrink along the way", choices=tuple(SCHEDULES))
    inversion_steps: int = key(300, "steps from a start, at most", low=1, high=checks.MOST_STEPS)
    n_starts: int = key(12, "starts that an image which is not close enough begins from in turn", low=1, high=1000)
    tolerance: float = key(0.02, "relative distance at which an image has converged and rests", above=0)
    enough: float = key(0.05, "relative distance at which an image needs no other start", above=0)
    radius: float | None = key(None, "of an l2 ball around the start, which images do not leave", "pixel", above=0)
    straight_through: bool = key(False, "whether gradients go through the last ReLU as through the identity")
    pairs: tuple[str, ...] = key((), "classes that attacks turn into each other, as 4:9; the set's usual ones without",
                                 many=True)  # fmt: skip
    n_attacked: int | None = key(None, "images of a class that are attacked, all test images without it", low=1)
    attack_steps: int = key(50, "steps of attacks on features", low=1, high=checks.MOST_STEPS)
    attack_scales: tuple[float, ...] = key((0.5, 1.0, 1.5, 2.0), "radii of these attacks, over eps", above=0, many=True)
    reference_eps: tuple[float, ...] = key((), "radii of further adversarial references of these attacks", above=0,
                                           many=True)  # fmt: skip
    bootstrap: int = key(2000, "draws of an interval", low=100, high=10**6)

    def __post_init__(self):
        super().__post_init__()
        if self.start_part == "train" and not self.allow_seen_starts:
            why = "the networks were trained on them; allow_seen_starts = true takes them all the same"
            raise ValueError(f"start_part = 'train': {why}")
        if self.other_network == self.network:
            raise ValueError(f"other_network = {self.other_network!r}: is the network itself; choose another")
        self.of_training("adversarial", self.seed, "other")
        class_pairs(self.dataset, self.pairs)
        for radius in self.reference_eps:
            self.of_training("adversarial", self.seed, f"eps-{radius!r}")
        if not self.starts or len(set(self.starts)) < len(self.starts):
            raise ValueError(f"starts = {self.starts!r}: must be one or both of {', '.join(STARTS)}, each once")

    @property
    def seeds(self) -> list[int]:
        return list(range(self.seed, self.seed + self.n_seeds))

    def of_training(self, arm: str, seed: int, kind: str = "own") -> ImageConfig:
        """One of the trainings: of an arm, with the initial weights of `seed`; "kin" with another order of batches,
        "kin-epoch" and "kin-half" from the second epoch or the second half on, "other" of the other architecture,
        "eps-RADIUS" at another radius."""
        values = {name: getattr(self, name) for name in list(ImageConfig.keys())}
        values |= {"seed": seed, "order_seed": seed + KIN * kind.startswith("kin")}
        if kind == "other":
            usual = "resnet18" if self.network == "convnet" else "convnet"
            values["network"] = self.other_network or usual
            wider = 4 if values["network"] == "convnet" else 1
            values["width"] = self.other_width or wider * self.width
        if kind.startswith("eps-"):
            values["eps"] = float(kind.removeprefix("eps-"))
        if arm == "standard":
            values |= {"training": "standard"}
        elif self.adversarial_epochs is not None:
            values |= {"epochs": self.adversarial_epochs}
        values["order_from"] = {"kin-epoch": 1.0, "kin-half": float(values["epochs"] // 2)}.get(kind, 0.0)
        return ImageConfig(**values)

    @property
    def inversion(self) -> Inversion:
        return Inversion(self.optimiser_of_inversion, self.inversion_step, self.inversion_decay, self.inversion_steps,
                         self.tolerance, self.enough, self.radius, self.straight_through)  # fmt: skip

    def selection(self, start: str, part: str = "test") -> Sources:
        """The images of a part that are represented, and what their inversions begin with.

        Training images are drawn among those that validation leaves; their starts are test images all the same.
        """
        test = self.test_samples()
        data = test if part == "test" else self.samples()[0]
        n = min(500, len(test.y) // 2) if self.n_images is None else self.n_images
        begin = None if part == self.start_part else test if self.start_part == "test" else self.samples()[0]
        return select(data, n, start, self.n_starts, begin_with=begin, rng=self.seed)

    def about(self, start: str, part: str = "test") -> dict:
        """Of a datasheet: the keys that say which images are represented, and from what."""
        keys = ("dataset", "n_train", "n_test", "validation", "n_images", "start_part", "allow_seen_starts", "n_starts",
                "seed", "dtype")  # fmt: skip
        return {"start": start, "part": part, "selection": {name: getattr(self, name) for name in keys}}


def class_pairs(dataset: str, given=(), name: str = "pairs") -> list[tuple[int, int]]:
    """Ordered pairs of classes, both ways, from texts as "4:9" or "cat:dog"; the data set's usual ones without any.
    ValueError for a class that the set lacks, or for a pair of one class."""
    classes, found = DATA_SETS[dataset].classes, []
    for text in given or PAIRS[dataset]:
        names = [name.strip() for name in text.split(":")]
        numbers = [classes.index(name) if name in classes else int(name) if name.isdigit() else -1 for name in names]
        if len(numbers) != 2 or not all(0 <= number < len(classes) for number in numbers):
            rule = f"must be two classes of {dataset}, as 0:1 or {classes[0]}:{classes[1]}"
            raise ValueError(f"{name}: {text!r} {rule}; they are {', '.join(classes)}")
        if numbers[0] == numbers[1]:
            raise ValueError(f"{name}: {text!r} is one class twice; source and target must differ")
        found += [pair for pair in permutations(numbers) if pair not in found]
    return found


#: By name: values of a `RepresentativesConfig`; `--set` changes any of them.
EXPERIMENTS = {
    "digits": {"dataset": "digits", "width": 4, "epochs": 15, "adversarial_epochs": 30, "record_every": 3},
    "mnist-5k": {"dataset": "mnist_5k", "width": 8, "epochs": 12, "adversarial_epochs": 15},
    "fashion": {"dataset": "fashion_mnist", "n_train": 20_000, "n_test": 2_000, "eps": 0.1, "epochs": 10,
                "validation": 0.05, "n_images": 250},
    "mnist": {"dataset": "mnist", "width": 64, "epochs": 20, "eps": 0.3, "eps_warm_up": 5.0, "batch_size": 128},
    "cifar10": {"dataset": "cifar10", "network": "wide_resnet", "width": 10, "depth": 34, "epochs": 110, "lr": 0.1,
                "batch_size": 128, "schedule": "step", "drops": (0.91, 0.955), "augmentation": "crop_flip",
                "eps": 8 / 255, "n_ascent": 10, "step": 0.25, "normalise": True},
    "svhn": {"dataset": "svhn", "network": "wide_resnet", "width": 10, "depth": 34, "epochs": 110, "lr": 0.01,
             "batch_size": 128, "schedule": "step", "drops": (0.91, 0.955), "eps": 8 / 255, "n_ascent": 10,
             "step": 0.25, "eps_warm_up": 5.0, "normalise": True},
}  # fmt: skip

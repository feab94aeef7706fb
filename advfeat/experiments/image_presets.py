"""Recipes of public practice for trainings on real images, with their sources and what differs from them here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Values of an `ImageConfig`, where they come from, and what differs there."""

    values: dict
    source: str
    differs: str = ""


OURS = "ours"
HELD_OUT = "the best network is chosen on held-out images and not on test images"
DIGITS = {"dataset": "digits", "epochs": 30, "width": 4}
FASHION = {"dataset": "fashion_mnist", "n_train": 20_000, "eps": 0.1, "epochs": 10}
RICE = {"dataset": "cifar10", "network": "preact_resnet18", "width": 64, "epochs": 200, "batch_size": 128, "lr": 0.1,
        "schedule": "step", "drops": (0.5, 0.75), "augmentation": "crop_flip", "eps": 8 / 255,
        "normalise": True}  # fmt: skip
WIDE = {"network": "wide_resnet", "width": 10, "depth": 34}
PGD_10 = {"training": "pgd", "n_ascent": 10, "step": 0.25}
MADRY = {"dataset": "mnist", "network": "convnet", "width": 32, "depth": 3, "epochs": 93, "batch_size": 50,
         "optimiser": "adam", "lr": 1e-4, "schedule": "constant", "weight_decay": 0.0, "eps": 0.3,
         "training": "pgd", "n_ascent": 40, "step": 0.01 / 0.3}  # fmt: skip

#: By name; `--set` changes any of their values.
PRESETS = {
    "digits": Preset(DIGITS, OURS + ": real 8 x 8 digits, a smoke test"),
    "digits-pgd": Preset(DIGITS | {"training": "pgd"}, OURS + ", as digits"),
    "mnist-5k": Preset({}, OURS + ": one-cycle SGD on 4,000 MNIST digits, 12 epochs"),
    "mnist-5k-pgd": Preset({"training": "pgd", "epochs": 15}, OURS + ": PGD-7 at eps 0.2"),
    "mnist-5k-pgd-0.3": Preset(
        {"training": "pgd", "epochs": 15, "eps": 0.3, "eps_warm_up": 5.0}, OURS + ": eps 0.3 with a warm-up of eps"
    ),
    "fashion": Preset(FASHION, OURS + ": 20,000 images of Fashion-MNIST"),
    "fashion-pgd": Preset(FASHION | {"training": "pgd"}, OURS + ", as fashion"),
    "mnist-madry": Preset(
        MADRY,
        "Madry et al. 2018, MadryLab/mnist_challenge: PGD-40, step 0.01, Adam 1e-4, batch 50, 100,000 steps",
        "the network is ConvNet with batch norm, and there two convolutions with pooling; " + HELD_OUT,
    ),
    "cifar10": Preset(RICE, "Rice et al. 2020, locuslab/robust_overfitting, standard training", HELD_OUT),
    "cifar10-pgd": Preset(
        RICE | WIDE | PGD_10,
        "Rice et al. 2020, locuslab/robust_overfitting: PGD-10, step 2/255, random start",
        "crafts in evaluation mode, and there in training mode with a clean pass that updates statistics; " + HELD_OUT,
    ),
    "svhn-pgd": Preset(
        RICE | PGD_10 | {"dataset": "svhn", "lr": 0.01, "augmentation": "none", "eps_warm_up": 5.0},
        "as cifar10-pgd, with the smaller rate and the warm-up of tml-epfl/understanding-fast-adv-training",
        "PGD-10 instead of FGSM; " + HELD_OUT,
    ),
    "cifar10-fgsm": Preset(
        RICE | {"training": "fgsm", "epochs": 15, "schedule": "one_cycle", "lr": 0.2},
        "Wong et al. 2020, locuslab/fast_adversarial: FGSM from a random start, step 1.25 eps",
        "the cyclic rate is one_cycle; catastrophic overfitting is looked for on validation images; " + HELD_OUT,
    ),
    "cifar10-trades": Preset(
        RICE | WIDE | {"training": "trades", "n_ascent": 10, "step": 0.007 * 255 / 8, "epochs": 100,
                       "drops": (0.75, 0.9), "weight_decay": 2e-4, "normalise": False},
        "Zhang et al. 2019, yaodongyu/TRADES: beta 6, eps 0.031, step 0.007, drops at 75 and 90",
        "eps is 8/255 = 0.0314; " + HELD_OUT,
    ),
}  # fmt: skip

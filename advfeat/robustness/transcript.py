"""Attack transcripts: image by image what broke it, from which start, by what margin, and the adversarial image itself,
so that anyone can check every one of them without an attack."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..attacks.threat import ThreatModel
from ..core import ball, store
from ..core.data import as_data
from ..core.objectives import gradient
from ..core.records import record
from ..kernels import formulas
from . import catalogue
from .suite import AttackSuite

#: The suite for images: AutoAttack's parts with the library's own search, after PGD with restarts.
IMAGE_SUITE = (
    ("pgd_cross_entropy", {"n_steps": 20, "n_restarts": 5}),
    ("apgd_cross_entropy", {"n_steps": 100}),
    ("apgd_dlr_all_targets", {"n_steps": 100}),
    ("square", {"n_steps": 1000}),
)
#: Of the largest logit: a margin that NumPy's engine finds anew may differ by so much, in the network's dtype.
ROUNDING = {"float32": 1e-4, "float64": 1e-10}
CLEAN, STANDS = "clean", ""


@record
class Transcript:
    """Arrays (N,) of one network's images under one threat.

    Attributes
    ----------
    head : what it is of: norm, eps, box, seed, attacks with their options, the network's digest, `about` the data
    X, y : the clean images and their labels
    X_adv, margin : every image's worst point, and F_y - max_{j != y} F_j there
    broken_by : "clean" where the network is wrong without a perturbation, the attack that broke it, "" where it stands
    restart : the start of that attack
    """

    head: dict
    X: np.ndarray
    y: np.ndarray
    X_adv: np.ndarray
    margin: np.ndarray
    broken_by: np.ndarray
    restart: np.ndarray

    @property
    def accuracy(self) -> float:
        return float((self.broken_by != CLEAN).mean())

    @property
    def robust_accuracy(self) -> float:
        """The share of images that stand against the worst of all attacks, image by image."""
        return float((self.broken_by == STANDS).mean())

    def save(self, path) -> None:
        names = ("X", "y", "X_adv", "margin", "restart")
        arrays = {name: getattr(self, name) for name in names} | {"broken_by": self.broken_by.astype("S")}
        store.save_state(path, self.head, arrays)

    @classmethod
    def load(cls, path) -> Transcript:
        """Raises FileNotFoundError, and CheckpointError for what is damaged or no transcript."""
        head, arrays = store.load_state(path)
        try:
            arrays["broken_by"] = arrays["broken_by"].astype(str)
            return cls(head, **{name: arrays[name] for name in cls.__annotations__ if name != "head"})
        except (KeyError, UnicodeDecodeError):
            raise store.CheckpointError(f"{path}: is no attack transcript") from None


def attack_images(net, data, *, eps: float, norm: str = "linf", attacks=IMAGE_SUITE, rng: int = 0,
                  about: Mapping | None = None, progress=None) -> Transcript:  # fmt: skip
    """Every attack in turn on what the earlier ones left, written down image by image.

    `attacks` are pairs of a name of the catalogue and its options; `progress` as in :mod:`advfeat.core.progress`.
    """
    data, threat = as_data(data), ThreatModel(norm, eps)
    suite = AttackSuite(tuple(catalogue.attack(name, **options) for name, options in attacks))
    found = suite(net, data, threat, rng, progress=progress)
    broken_by, restart = np.full(len(data.y), STANDS, "<U32"), np.zeros(len(data.y), np.int64)
    broken_by[found.clean] = CLEAN
    for name, broken in found.broken_by.items():
        broken_by[broken] = name
        if name in found.results:
            restart[broken] = found.results[name].restart[broken]
    head = {"norm": norm, "eps": float(eps), "box": None if net.box is None else list(net.box), "seed": int(rng)}
    head |= {"attacks": [[name, dict(options)] for name, options in attacks], "about": dict(about or {})}
    head |= {"network": net.fingerprint().split()[0]}
    return Transcript(head, data.X, data.y, found.X_adv.astype(data.X.dtype), found.margin, broken_by, restart)


def verify(transcript: Transcript, net, fingerprint: str) -> list[str]:
    """What does not hold of a transcript, in sentences; `net`, whose `fingerprint` on the engine that was attacked is
    given, answers by NumPy's engine, and no attack is run.

    Every adversarial image lies in the ball and the box, to the rounding of the images' dtype, and is as wrong as it
    says; every image that stands is right where it lies and at its worst point; the network is the attacked one.
    """
    t, said = transcript, []
    if fingerprint.split()[0] != t.head["network"]:
        said.append("The network is not the one that was attacked: their weights differ.")
    u = np.finfo(t.X.dtype).eps
    distance = ball.norms((t.X_adv.astype(np.float64) - t.X).reshape(len(t.X), -1), t.head["norm"])
    far = distance > t.head["eps"] * (1 + t.X[0].size * u) + 2 * u
    said += [f"Image {i}: the adversarial image is {distance[i]:.6g} away, beyond eps = {t.head['eps']:g}."
             for i in np.flatnonzero(far)]  # fmt: skip
    if t.head["box"] is not None:
        low, high = t.head["box"]
        outside = ((t.X_adv < low) | (t.X_adv > high)).reshape(len(t.X), -1).any(axis=1)
        said += [
            f"Image {i}: the adversarial image leaves the box [{low:g}, {high:g}]." for i in np.flatnonzero(outside)
        ]
    inside = t.X_adv if t.head["box"] is None else np.clip(t.X_adv, *t.head["box"])
    for name, X, wrong in (("clean", t.X, t.broken_by == CLEAN), ("adversarial", inside, t.broken_by != STANDS)):
        F = net.logits(X).astype(np.float64)
        margin, slack = formulas.margin(F[None], t.y[None])[0], ROUNDING[str(net.dtype)] * np.abs(F).max(axis=1)
        said += [f"Image {i}: the {name} image has margin {margin[i]:.3g}, and is said to be wrong."
                 for i in np.flatnonzero(wrong & (margin > slack))]  # fmt: skip
        said += [f"Image {i}: the {name} image has margin {margin[i]:.3g}, and is said to stand."
                 for i in np.flatnonzero(~wrong & (margin < -slack))]  # fmt: skip
        if name == "adversarial":
            apart = np.abs(margin - t.margin) > slack
            said += [f"Image {i}: its margin is {margin[i]:.6g}, and {t.margin[i]:.6g} in the transcript."
                     for i in np.flatnonzero(apart)]  # fmt: skip
    return said


def zero_gradients(net, data) -> dict[str, float]:
    """By objective, the share of images whose gradient is exactly 0 in every pixel: no attack along it moves them."""
    data, found = as_data(data), {}
    F = net.logits(data.X).astype(np.float64)[None]
    for objective in ("cross_entropy", "dlr", "margin"):
        g = net.pull_back(data.X, gradient(objective, F, data.y[None])[0])
        found[objective] = float((g == 0).reshape(len(g), -1).all(axis=1).mean())
    return found

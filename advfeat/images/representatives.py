"""Representative data sets: images x_r that a reference represents as it does x, each with the label of x (Sec. 6.2).

Of a normally trained reference they are D_NR, of an adversarially trained one D_R.  A set is kept with a datasheet from
which anyone builds it again to the bit, and with what tells whether it is one: its :class:`Gate`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from itertools import takewhile, zip_longest
from pathlib import Path

import numpy as np

from ..core import checks, store
from ..core.progress import Stopwatch
from ..core.records import record
from ..core.rng import stream
from .inversion import NOISE, Inversion, Inverted, after_each_start, sizes
from .network import Network

STARTS = ("image", "noise")  # an image of another class, or grey with a little noise
SELECT, DRAW, GREY, SHUFFLE, BOOTSTRAP = range(5)  # keys of the stream "representatives"
OWN_ACCURACY, OWN_NEAREST, SPACING = 0.97, 0.95, 0.5  # what a gate asks for
CHANCE = 0.2  # an accuracy up to which a reference, as an untrained one, has none that could be kept


@dataclass(frozen=True)
class Gate:
    """Whether representatives are any: what the reference itself says of them.

    Attributes
    ----------
    accuracy, own_accuracy : its accuracy on the images x, and on x_r
    own_nearest : the share of x_r to whose representation, of all targets, their own is nearest
    median, p90 : of the distances |g(x_r) - g(x)| / |g(x)|
    spacing : the median, over images, of the distance to the nearest other image of the class, over |g(x)| too; 0
        where no class has two images
    """

    accuracy: float
    own_accuracy: float
    own_nearest: float
    median: float
    p90: float
    spacing: float

    @property
    def failed(self) -> list[str]:
        """What is not as it must be, in words."""
        said = []
        if self.accuracy > CHANCE and self.own_accuracy < OWN_ACCURACY * self.accuracy:
            said.append(f"own accuracy {self.own_accuracy:.3f} below {OWN_ACCURACY} of {self.accuracy:.3f}")
        if self.own_nearest < OWN_NEAREST:
            said.append(f"own target nearest for {self.own_nearest:.3f}, below {OWN_NEAREST}")
        if not self.p90 <= SPACING * self.spacing:
            said.append(f"p90 distance {self.p90:.3f} above {SPACING} of the spacing {self.spacing:.3f}")
        return said

    @property
    def passed(self) -> bool:
        return not self.failed


@record
class Representatives:
    """Images X (N, C, H, W) with labels y (N,), the numbers of the images that they stand for and were reached from.

    `start` is -1 where noise was the start; `start_y` the label of the start's image, -1 as well; `restart` says which
    of the starts it was; `distance` and `steps` (N,) are the inversion's.  `head` is the datasheet's: data, selection,
    inversion, reference, versions, gate.
    """

    head: dict
    X: np.ndarray
    y: np.ndarray
    source: np.ndarray
    start: np.ndarray
    start_y: np.ndarray
    restart: np.ndarray
    distance: np.ndarray
    steps: np.ndarray

    @property
    def gate(self) -> Gate:
        return Gate(**self.head["gate"])

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "head"}

    def datasheet(self) -> dict:
        """All that is needed to build the set again, with digests of what must come out."""
        return self.head | {"digests": {name: store.digest(a) for name, a in self.arrays.items()}}

    def is_of(self, head: dict) -> bool:
        """Whether the set was made by what a head says (`heading`)."""
        return all(self.head.get(name) == value for name, value in head.items())

    def save(self, path) -> None:
        """`path`.npz with the arrays, and `path`.json with the datasheet."""
        store.save_json(f"{path}.json", self.datasheet())
        store.save_state(f"{path}.npz", self.head, self.arrays)

    @classmethod
    def load(cls, path) -> Representatives:
        """Of `path`.npz; FileNotFoundError, CheckpointError for what is damaged or no set of representatives."""
        head, arrays = store.load_state(f"{path}.npz")
        if arrays.keys() != {one.name for one in fields(cls)} - {"head"} or "gate" not in head:
            raise store.CheckpointError(f"{path}.npz: is no set of representatives")
        return cls(head, **arrays)


@record
class Sources:
    """Which images are represented, `source` (N,), and what inversions of each begin with, S starts in turn.

    `start`, `start_y` (S, N) are numbers and labels of images, or -1; `begin` (S, N, C, H, W) the images themselves.
    """

    X: np.ndarray
    y: np.ndarray
    source: np.ndarray
    start: np.ndarray
    start_y: np.ndarray
    begin: np.ndarray


def select(data, n: int, start: str, starts: int = 1, *, begin_with=None, rng: int = 0) -> Sources:
    """`n` images of `data` drawn by the seed `rng`, each with so many starts, which hang on the image and `rng` alone.

    With start = "image" these are images of another class, of `begin_with`, or without it of the images of `data` that
    are not among the `n`; with "noise" 0.5 + U(0, 1) / 20.  The same call gives D_NR and D_R the same starts.
    ValueError where there are too few images, or none of another class.
    """
    checks.choice("start", start, STARTS)
    X, y = data.X, data.y
    if not 1 <= n <= len(y):
        raise ValueError(f"n = {n}: there are {len(y)} images")
    order = stream(rng, "representatives", SELECT).permutation(len(y))
    source, rest = np.sort(order[:n]), np.sort(order[n:])
    if start == "noise":
        noise = [stream(rng, "representatives", GREY, int(i)).random((starts, *X.shape[1:])) for i in source]
        begin, nothing = 0.5 + NOISE * np.stack(noise, axis=1), np.full((starts, n), -1)
        return Sources(X[source], y[source], source, nothing, nothing, begin.astype(X.dtype))
    pool, labels = (X, y) if begin_with is None else (begin_with.X, begin_with.y)
    rest = rest if begin_with is None else np.arange(len(labels))
    others = {label: rest[labels[rest] != label] for label in np.unique(y[source])}
    for label, numbers in others.items():
        if len(numbers) == 0:
            raise ValueError(f"starts: none of {len(rest)} images is of another class than {label}; give more images")
    generators = [stream(rng, "representatives", DRAW, int(i)) for i in source]
    chosen = np.stack([others[y[i]][g.integers(len(others[y[i]]), size=starts)] for i, g in zip(source, generators)],
                      axis=1)  # fmt: skip
    return Sources(X[source], y[source], source, chosen, labels[chosen], pool[chosen])


def heading(net: Network, selection: Sources, options: Inversion, about: dict) -> dict:
    """What tells a set from every other: `about` its data, how it is made, and digests of all that goes into it."""
    s = selection
    return about | {"inversion": options.as_dict(), "reference": store.digest_of_text({"network": net.fingerprint()}),
                    "images": store.digest(s.X, s.y, s.source), "starts": store.digest(s.begin, s.start)}  # fmt: skip


def represent(net: Network, selection: Sources, options: Inversion, about: dict, *, parts=None,
              progress=None) -> Representatives:  # fmt: skip
    """The selection's representatives by `net`.

    `parts`, a folder: what every start has led to is kept there, and what it holds is not done again.  `about` is what
    the datasheet says of the data.
    """
    s, head = selection, heading(net, selection, options, about)
    if s.X.shape[1:] != net.sample_shape:
        raise ValueError(f"images are {s.X.shape[1:]}: the reference reads {net.sample_shape}")
    targets, kept = net.representation(s.X).astype(np.float64), []
    files = [] if parts is None else [Path(parts) / f"{number}.npz" for number in range(len(s.begin))]
    for file in takewhile(Path.exists, files):
        known, arrays = store.load_state(file)
        if known != head:
            raise store.CheckpointError(f"{file}: is a part of other representatives, nothing was changed")
        kept.append(Inverted(**{"timed_out": np.zeros(len(s.y), bool)} | arrays))  # parts of before there was a limit
    for file, found in zip_longest(files, after_each_start(net, targets, s.begin, options, Stopwatch(progress), kept)):
        if file is not None and not file.exists():
            store.save_state(file, head, vars(found))
    return with_gate(net, s, found, head)


def with_gate(net: Network, s: Sources, found: Inverted, head: dict) -> Representatives:
    """What was found of a selection, with what the reference says of it."""
    start, start_y = (a[found.start, np.arange(len(s.y))] for a in (s.start, s.start_y))
    head = head | {"gate": asdict(gate(net, s.X, s.y, found.X, found.distance)), "versions": store.environment()}
    return Representatives(head, found.X, s.y, s.source, start, start_y, found.start, found.distance, found.steps)


def gate(net: Network, X, y, found, distance) -> Gate:
    """The :class:`Gate` of images `found` at these distances of the images X with labels y."""

    g, own = (net.representation(images).astype(np.float64) for images in (X, found))
    size = sizes(g)
    between = _distances(own, g)
    same = (y[:, None] == y) & ~np.eye(len(y), dtype=bool)
    apart = np.where(same, _distances(g, g), np.inf).min(axis=1) / size
    spacing = float(np.median(apart[np.isfinite(apart)])) if np.isfinite(apart).any() else 0.0
    right, own_right = (float(net.right(images, y).mean()) for images in (X, found))
    return Gate(right, own_right, float((between.argmin(axis=1) == np.arange(len(y))).mean()),
                float(np.median(distance)), float(np.quantile(distance, 0.9)), spacing)  # fmt: skip


def _distances(a, b) -> np.ndarray:
    """|a_i - b_j|, (len(a), len(b))."""
    return np.stack([np.linalg.norm(row - b, axis=1) for row in a])


def rebuilt(sheet: dict, net: Network, selection: Sources, progress=None) -> tuple[Representatives, list[str]]:
    """The representatives of a datasheet made anew, and what is not as it says, in sentences: the reference, the
    images, the starts, or the bits that came out."""
    made = {name: sheet[name] for name in ("inversion", "reference", "images", "starts", "digests")}
    about = {name: value for name, value in sheet.items() if name not in {*made, "gate", "versions"}}
    options, said = Inversion(**made["inversion"]), []
    found = represent(net, selection, options, about, progress=progress)
    for name in ("reference", "images", "starts"):
        if found.head[name] != made[name]:
            said.append(f"The {name} that the datasheet is of {'is another' if name == 'reference' else 'are others'}.")
    said += [f"{name} came out otherwise than the datasheet says." for name, a in found.arrays.items()
             if store.digest(a) != made["digests"].get(name)]  # fmt: skip
    return found, said

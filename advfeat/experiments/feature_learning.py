"""Feature learning accuracy (Def. 4.1, A.1) of learners on representatives of references, with intervals.

A learner's accuracy on D_NR is the share of representatives of a standard reference that it classifies as the images
that they stand for, that on D_R the same with an adversarial reference.  Who the learner is to the reference is told
apart: *itself*; *kin*, which has its initial weights and another order of batches; a *stranger*; one of another
*architecture*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.rng import stream
from ..images.representatives import Representatives

RELATIONS = ("itself", "kin", "stranger", "architecture")
MEASURES = ("label", "start", "shuffled")  # the image's class, that of the start, that of another image drawn at random
COVERAGE = 0.95


@dataclass(frozen=True)
class NetworkKey:
    """Who a network is: how it was trained, the seed of its weights, and its kind: one of the two arms' own networks,
    a kin of one, of the other architecture, or untrained."""

    arm: str
    seed: int
    kind: str = "own"

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.seed}" + f"-{self.kind}" * (self.kind in ("kin", "other"))


@dataclass(frozen=True)
class SetKey:
    """Which representatives: of which reference, from which start, of test or of training images."""

    reference: NetworkKey
    start: str
    part: str = "test"

    @property
    def name(self) -> str:
        return f"{self.reference.name}-{self.start}" + "-train" * (self.part == "train")


@dataclass(frozen=True, eq=False)
class Answers:
    """Classes that a learner gives at its record points: of each set by name (T, N), and of the images that the sets
    stand for, by part; `best` and `last` are record numbers."""

    network: NetworkKey
    iteration: np.ndarray
    sets: dict[str, np.ndarray]
    images: dict[str, np.ndarray]
    best: int
    last: int


@dataclass(frozen=True)
class Share:
    """A share of images with its bootstrap interval, and how many pairs of networks and images it is of; `draws` are
    the bootstrap's, the same seeds and images in all shares of the same numbers of them."""

    value: float
    low: float
    high: float
    pairs: int
    images: int
    each: tuple[float, ...]
    draws: np.ndarray

    @classmethod
    def of(cls, value, draws, pairs, images, each=()) -> Share:
        low, high = np.quantile(draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
        return cls(float(value), float(low), float(high), pairs, images, tuple(map(float, each)), draws)

    def minus(self, other: Share) -> Share:
        """The difference of two, draw by draw."""
        return Share.of(self.value - other.value, self.draws - other.draws, self.pairs, self.images)

    def as_dict(self) -> dict:
        return {"value": self.value, "low": self.low, "high": self.high, "pairs": self.pairs, "images": self.images,
                "each": list(self.each)}  # fmt: skip


def relation(learner: NetworkKey, reference: NetworkKey) -> str | None:
    """Who the learner is to the reference; None where a comparison would mix kinds, as with the network of the other
    arm that began with the reference's weights."""
    if learner == reference:
        return "itself"
    if "kin" in (learner.kind, reference.kind):
        return "kin" if reference.kind == "own" and learner.seed == reference.seed else None
    if (learner.kind == "other") != (reference.kind == "other"):
        return "architecture"
    return "stranger" if learner.seed != reference.seed else None


class Evidence:
    """All answers of all learners on all sets of one experiment."""

    def __init__(self, answers: list[Answers], sets: dict[str, tuple[SetKey, Representatives]], draws: int, seed: int):
        self.answers, self.sets, self.draws, self.seed = answers, sets, draws, seed

    def hits(self, answers: Answers, name: str, measure: str = "label", when="last") -> np.ndarray:
        """Whether the learner's class is the measure's, of every image of a set; at "best", "last" or all records."""
        _, found = self.sets[name]
        wanted = {"label": found.y, "start": found.start_y, "shuffled": self.shuffled(found)}[measure]
        guesses = answers.sets[name]
        return (guesses if when is None else guesses[getattr(answers, when)]) == wanted

    def shuffled(self, found: Representatives) -> np.ndarray:
        """The labels in another order."""
        return found.y[stream(self.seed, "representatives", 3).permutation(len(found.y))]

    def both_right(self, found: SetKey) -> np.ndarray:
        """The images of a set that the networks of both arms with the reference's seed classify correctly."""
        y = self.sets[found.name][1].y
        right = np.ones(len(y), bool)
        for one in self.answers:
            if one.network.kind == "own" and one.network.seed == found.reference.seed:
                right = right & (one.images[found.part][one.last] == y)
        return right

    def share(self, arm: str, reference: str, start: str, how: str, *, kind: str = "own", part: str = "test",
              measure: str = "label", when: str = "last", only_right: bool = False) -> Share | None:  # fmt: skip
        """Over all pairs of a learner of an arm and a reference, of the stated arms, that are `how` related; None where
        there is none.  Intervals draw seeds and images."""
        rows = {}
        for one in self.answers:
            for name, (found, _) in self.sets.items():
                fits = found.start == start and found.part == part and found.reference.arm == reference
                fits &= one.network.arm == arm and found.reference.kind == kind
                if fits and relation(one.network, found.reference) == how:
                    hit = self.hits(one, name, measure, when).astype(float)
                    on = self.both_right(found) if only_right else np.ones(len(hit), bool)
                    rows[one.network.seed, found.reference.seed] = hit, on
        if not rows:
            return None
        seeds = sorted({seed for pair in rows for seed in pair})
        at = {pair: tuple(map(seeds.index, pair)) for pair in rows}
        hit, on = (np.stack([row[i] for row in rows.values()]) for i in (0, 1))
        counts, images = self.drawn(len(seeds), hit.shape[1], [at[pair] for pair in rows])
        share = ((hit * on) @ images) / np.maximum(on.astype(float) @ images, 1)  # (pairs, draws)
        total = (counts * share).sum(axis=0) / counts.sum(axis=0)
        each = (hit * on).sum(axis=1) / np.maximum(on.sum(axis=1), 1)
        return Share.of(each.mean(), total, len(rows), int(on.sum(axis=1).max()), each)

    def drawn(self, n_seeds: int, n_images: int, pairs) -> tuple[np.ndarray, np.ndarray]:
        """How often every pair (pairs, draws) and every image (images, draws) is in a draw of seeds and images with
        replacement; draws without any of the pairs are drawn again."""
        rng = stream(self.seed, "representatives", 4)
        images = rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=self.draws).T.astype(float)
        alone = all(i == j for i, j in pairs)
        counts = np.zeros((len(pairs), self.draws))
        missing = np.arange(self.draws)
        while len(missing):
            times = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=len(missing)).T
            counts[:, missing] = [times[i] if alone else times[i] * times[j] for i, j in pairs]
            missing = np.flatnonzero(counts.sum(axis=0) == 0)
        return counts, images

    def references(self, arm: str, start: str, kind: str = "own", part: str = "test") -> list[Representatives]:
        """All sets of references of an arm, or of the other architecture, from a start."""
        wanted = (arm, start, kind, part)
        return [held for one, held in self.sets.values()
                if (one.reference.arm, one.start, one.reference.kind, one.part) == wanted]  # fmt: skip

    def curve(self, answers: Answers, reference: str, start: str, how: str) -> np.ndarray | None:
        """A learner's accuracy at its record points, the mean over the references that it is so related to."""
        found = [self.hits(answers, name, when=None).mean(axis=1) for name, (one, _) in self.sets.items()
                 if (one.start, one.part, one.reference.arm, one.reference.kind) == (start, "test", reference, "own")
                 and relation(answers.network, one.reference) == how]  # fmt: skip
        return np.mean(found, axis=0) if found else None


def verdict(difference: Share | None, more: str, less: str) -> str:
    """A difference in words."""
    if difference is None:
        return "not measured"
    word = more if difference.low > 0 else less if difference.high < 0 else "not told apart"
    return f"{word} ({difference.value:+.2f}, {difference.low:+.2f} to {difference.high:+.2f})"

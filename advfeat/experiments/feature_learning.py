"""Feature learning accuracy (Def. 4.1, A.1) of learners on representatives of references, with intervals.

A learner's accuracy on D_NR is the share of representatives of a standard reference that it classifies as the images
that they stand for, that on D_R the same with an adversarial reference.  Who the learner is to the reference is told
apart: *itself*; *kin*, which has its initial weights and another order of batches; a *stranger*; one of another
*architecture*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from ..core.records import record
from ..core.rng import stream
from ..images.representatives import BOOTSTRAP, SHUFFLE, Representatives

RELATIONS = ("itself", "kin", "stranger", "architecture")
MEASURES = ("label", "start", "shuffled")  # the image's class, that of the start, that of another image drawn at random
COVERAGE = 0.95  # of intervals


@dataclass(frozen=True)
class NetworkKey:
    """Who a network is: how it was trained, the seed of its weights, and its kind: one of the two arms' own networks,
    a kin of one, of the other architecture, untrained, or "eps-RADIUS" of an adversarial training at another radius."""

    arm: str
    seed: int
    kind: str = "own"

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.seed}" + f"-{self.kind}" * (self.kind != "own")


@dataclass(frozen=True)
class SetKey:
    """Which representatives: of which reference, from which start, of test or of training images."""

    reference: NetworkKey
    start: str
    part: str = "test"

    @property
    def name(self) -> str:
        return f"{self.reference.name}-{self.start}" + "-train" * (self.part == "train")


@record
class Answers:
    """Classes that a learner gives at its record points: of each set by name (T, N), and of the images that the sets
    stand for, by part; `best` and `last` are record numbers."""

    network: NetworkKey
    iteration: np.ndarray
    sets: dict[str, np.ndarray]
    images: dict[str, np.ndarray]
    best: int
    last: int


@record
class Share:
    """The mean over pairs of networks of a share of images, or of a difference of two.

    Its variance is that over seeds, by the jackknife (a seed left out takes its learner and its reference with it), and
    that over images, by a bootstrap whose draws are the same in all shares of as many images; quantiles of Student's t
    with S - 1 degrees for S seeds.  A bootstrap over three seeds would cover 51% of what it should, for strangers.

    Attributes
    ----------
    pairs : list of (learner's seed, reference's seed), and each : (pairs,) their shares
    images : how many, at most
    draws : the mean over pairs on images drawn with replacement
    """

    pairs: list[tuple[int, int]]
    each: np.ndarray
    images: int
    draws: np.ndarray
    lowest: float = 0.0  # that the quantity can be; 1 is the largest

    @property
    def value(self) -> float:
        return float(self.each.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """NaN where there are too few seeds: two strangers are one pair of them, each way."""
        left_out = list(self.left_out().values())
        n = len(left_out)
        if n < 2:
            return np.nan, np.nan
        over_seeds = (n - 1) * np.var(left_out)
        over_images = np.var(self.draws)
        seeds, images = special.stdtrit(n - 1, (1 + COVERAGE) / 2), special.ndtri((1 + COVERAGE) / 2)
        half = np.sqrt(seeds**2 * over_seeds + images**2 * over_images)
        return float(max(self.value - half, self.lowest)), float(min(self.value + half, 1.0))

    def left_out(self) -> dict[int, float]:
        """The mean over the pairs without one seed, by seed; of a role that one seed alone has, none goes."""
        learners, references = ({pair[role] for pair in self.pairs} for role in (0, 1))
        roles = [role for role, seeds in ((0, learners), (1, references)) if len(seeds) > 1]
        found = {}
        for seed in sorted({pair[role] for pair in self.pairs for role in roles}):
            kept = [share for pair, share in zip(self.pairs, self.each) if all(pair[role] != seed for role in roles)]
            if not kept:
                return {}
            found[seed] = float(np.mean(kept))
        return found

    def minus(self, other: Share) -> Share:
        """The difference, pair by pair and draw by draw; ValueError where the pairs are not the same."""
        if self.pairs != other.pairs:
            raise ValueError(f"shares are of the pairs {self.pairs} and {other.pairs}: no differences can be taken")
        return Share(self.pairs, self.each - other.each, self.images, self.draws - other.draws, -1.0)

    def as_dict(self) -> dict:
        low, high = (None if np.isnan(end) else end for end in self.interval)
        return {"value": self.value, "low": low, "high": high, "pairs": [list(pair) for pair in self.pairs],
                "each": self.each.tolist(), "images": self.images}  # fmt: skip


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


def mean_over_pairs(rows: dict, draws: int, seed: int) -> Share:
    """The share of (learner's seed, reference's seed) -> whether each image is a hit, and whether it counts, (N,)."""
    hit, on = (np.stack([rows[pair][i] for pair in sorted(rows)]).astype(float) for i in (0, 1))
    times = drawn(hit.shape[1], draws, seed)
    seen = on @ times  # (pairs, draws)
    shares = np.divide((hit * on) @ times, seen, out=np.zeros_like(seen), where=seen > 0)
    drawn_mean, some = shares.sum(axis=0), (seen > 0).sum(axis=0)
    each = (hit * on).sum(axis=1) / on.sum(axis=1)
    return Share(sorted(rows), each, int(on.sum(axis=1).max()), drawn_mean[some > 0] / some[some > 0])


def drawn(n: int, draws: int, seed: int) -> np.ndarray:
    """How often each of n images is in a draw of n with replacement, (n, draws)."""
    rng = stream(seed, "representatives", BOOTSTRAP)
    return rng.multinomial(n, np.full(n, 1 / n), size=draws).T.astype(float)


class Evidence:
    """All answers of all learners on all sets of one experiment, whose references are the `checkpoint` networks."""

    def __init__(self, answers: list[Answers], sets: dict[str, tuple[SetKey, Representatives]], draws: int, seed: int,
                 checkpoint: str = "last"):  # fmt: skip
        self.answers, self.sets, self.draws, self.seed, self.checkpoint = answers, sets, draws, seed, checkpoint

    def hits(self, answers: Answers, name: str, measure: str = "label", when="last") -> np.ndarray:
        """Whether the learner's class is the measure's, of every image of a set; at "best", "last" or all records."""
        _, found = self.sets[name]
        wanted = {"label": found.y, "start": found.start_y, "shuffled": self.shuffled(found)}[measure]
        guesses = answers.sets[name]
        return (guesses if when is None else guesses[getattr(answers, when)]) == wanted

    def shuffled(self, found: Representatives) -> np.ndarray:
        """The labels in another order."""
        return found.y[stream(self.seed, "representatives", SHUFFLE).permutation(len(found.y))]

    def both_right(self, found: SetKey) -> np.ndarray:
        """The images of a set that the networks of both arms with the reference's seed classify correctly."""
        y = self.sets[found.name][1].y
        right = np.ones(len(y), bool)
        for one in self.answers:
            if one.network.kind == "own" and one.network.seed == found.reference.seed:
                right = right & (one.images[found.part][getattr(one, self.checkpoint)] == y)
        return right

    def share(self, arm: str, reference: str, start: str, how: str, *, kind: str = "own", part: str = "test",
              measure: str = "label", when: str = "last", only_right: bool = False) -> Share | None:  # fmt: skip
        """Over all pairs of a learner of an arm and a reference, of the stated arms, that are `how` related; None where
        there is none."""
        if how == "itself" and when != self.checkpoint:
            return None
        rows = {}
        for one in self.answers:
            for name, (found, _) in self.sets.items():
                fits = found.start == start and found.part == part and found.reference.arm == reference
                fits &= one.network.arm == arm and found.reference.kind == kind
                if fits and relation(one.network, found.reference) == how:
                    hit = self.hits(one, name, measure, when).astype(float)
                    on = self.both_right(found) if only_right else np.ones(len(hit), bool)
                    if on.any():
                        rows[one.network.seed, found.reference.seed] = hit, on
        return mean_over_pairs(rows, self.draws, self.seed) if rows else None

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
    low, high = difference.interval
    if np.isnan(low):
        return f"{difference.value:+.2f}, too few seeds for an interval"
    word = more if low > 0 else less if high < 0 else "not told apart"
    return f"{word} ({difference.value:+.2f}, {low:+.2f} to {high:+.2f})"

"""Feature learning accuracy from planted answers: who is what to whom, shares, intervals, differences."""

import numpy as np
import pytest

from advfeat.experiments.feature_learning import Answers, Evidence, NetworkKey, SetKey, relation, verdict
from advfeat.images.representatives import Representatives

OWN = NetworkKey("standard", 0)
N = 40


@pytest.mark.parametrize(
    ("learner", "reference", "found"),
    [
        (OWN, OWN, "itself"),
        (NetworkKey("standard", 1), OWN, "stranger"),
        (NetworkKey("adversarial", 1), OWN, "stranger"),
        (NetworkKey("adversarial", 0), OWN, None),  # began with the reference's weights and order
        (NetworkKey("standard", 0, "kin"), OWN, "kin"),
        (NetworkKey("adversarial", 0, "kin"), OWN, "kin"),
        (NetworkKey("standard", 1, "kin"), OWN, None),
        (NetworkKey("standard", 0, "other"), OWN, "architecture"),
        (OWN, NetworkKey("standard", 0, "other"), "architecture"),
        (NetworkKey("standard", 0, "kin"), NetworkKey("standard", 0, "other"), None),
        (NetworkKey("standard", 1, "other"), NetworkKey("standard", 0, "other"), "stranger"),
        (OWN, NetworkKey("untrained", 500), "stranger"),
        (NetworkKey("untrained", 500), OWN, "stranger"),
    ],
)
def test_relations(learner, reference, found):
    assert relation(learner, reference) == found


def planted(rights, seeds=3, passed=True, start="image"):
    """Evidence in which the learner l answers rights[arm of l, arm of r](l, r) of the images of reference r as it
    should, the first ones."""
    rng = np.random.default_rng(0)
    y = rng.integers(10, size=N)
    gate = {"accuracy": 1.0, "own_accuracy": 1.0, "own_nearest": 1.0, "median": 0.01, "p90": 0.02,
            "spacing": 0.5 if passed else 0.0}  # fmt: skip
    keys = [NetworkKey(arm, s, kind) for kind in ("own", "kin") for s in range(seeds) for arm in
            ("standard", "adversarial")]  # fmt: skip
    images = rng.random((N, 1, 2, 2))
    held = Representatives({"gate": gate}, images, y, np.arange(N), np.arange(N), (y + 1) % 10, np.zeros(N, int),
                           np.full(N, 0.01), np.zeros(N, int))  # fmt: skip
    sets = {}
    for key in keys:
        if key.kind == "own":
            one = SetKey(key, start)
            sets[one.name] = one, held
    answers = []
    for key in keys:
        guesses = {}
        for name, (one, _) in sets.items():
            share = rights[key.arm, one.reference.arm](key.seed, one.reference.seed)
            right = np.where(np.arange(N) < round(share * N), y, (y + 1) % 10)
            guesses[name] = np.stack([(y + 2) % 10, right]).astype(np.uint8)
        answers.append(Answers(key, np.array([0, 10]), guesses, {"test": np.stack([y, y])}, 1, 1))
    return Evidence(answers, sets, 500, 0)


SAME = {(a, r): lambda l, r: 0.5 for a in ("standard", "adversarial") for r in ("standard", "adversarial")}


def test_a_share_is_the_mean_over_pairs():
    shares = {(0, 1): 0.1, (0, 2): 0.2, (1, 0): 0.3, (1, 2): 0.4, (2, 0): 0.5, (2, 1): 0.6}
    evidence = planted(SAME | {("standard", "adversarial"): lambda l, r: shares.get((l, r), 0.9)})
    found = evidence.share("standard", "adversarial", "image", "stranger")
    assert found.value == pytest.approx(0.35)
    assert sorted(found.each) == pytest.approx(sorted(shares.values()))
    assert (found.pairs, found.images) == (6, N)
    assert found.low < 0.35 < found.high
    assert evidence.share("standard", "adversarial", "image", "kin").value == pytest.approx(0.9)
    assert evidence.share("standard", "adversarial", "image", "itself") is None
    assert evidence.share("standard", "adversarial", "noise", "stranger") is None


def test_measures():
    evidence = planted(SAME)
    assert evidence.share("standard", "standard", "image", "stranger").value == 0.5
    assert evidence.share("standard", "standard", "image", "stranger", measure="start").value == 0.5
    assert evidence.share("standard", "standard", "image", "stranger", measure="shuffled").value < 0.35
    one = evidence.answers[0]
    name = next(iter(one.sets))
    assert not evidence.hits(one, name, when=None)[0].any()  # before the training
    assert evidence.curve(one, "standard", "image", "stranger").tolist() == [0, 0.5]


def test_only_images_that_both_references_classify():
    evidence = planted(SAME)
    for one in evidence.answers:
        if one.network == NetworkKey("adversarial", 1):
            wrong = np.where(np.arange(N) < N // 4, (one.images["test"][1] + 3) % 10, one.images["test"][1])
            one.images["test"][1] = wrong  # of the first quarter, on which learners are right
    found = evidence.share("standard", "standard", "image", "stranger", only_right=True)
    per_reference = {0: 0.5, 1: (0.5 - 0.25) / 0.75, 2: 0.5}
    assert found.value == pytest.approx(np.mean([per_reference[r] for _ in range(2) for r in range(3)]))


@pytest.mark.parametrize("spread", ["images", "seeds"])
def test_intervals_cover_what_varies(spread):
    """Over images alone the interval is the binomial's; networks that differ make it as wide as they do."""
    if spread == "images":
        found = planted(SAME).share("standard", "standard", "image", "stranger")
        expected = 1.96 * np.sqrt(0.25 / N)
        assert found.high - found.low == pytest.approx(2 * expected, rel=0.2)
    else:
        rights = SAME | {("standard", "standard"): lambda l, r: 1.0 if l == 0 else 0.0}
        found = planted(rights).share("standard", "standard", "image", "stranger")
        assert found.high - found.low > 0.4


def test_differences_are_paired():
    """The same draws in both: what two shares have in common does not widen their difference."""
    evidence = planted(SAME)
    one, other = (evidence.share("standard", r, "image", "stranger") for r in ("standard", "adversarial"))
    found = one.minus(other)
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert verdict(found, "more", "less").startswith("not told apart")
    rights = SAME | {("standard", "standard"): lambda l, r: 0.8}
    evidence = planted(rights)
    one, other = (evidence.share("standard", r, "image", "stranger") for r in ("standard", "adversarial"))
    assert verdict(one.minus(other), "more", "less").startswith("more (+0.30, +0.1")
    assert verdict(other.minus(one), "more", "less").startswith("less (-0.30, ")
    assert verdict(None, "more", "less") == "not measured"


def test_two_seeds_make_strangers_and_one_makes_none():
    assert planted(SAME, seeds=1).share("standard", "standard", "image", "stranger") is None
    found = planted(SAME, seeds=2).share("standard", "standard", "image", "stranger")
    assert found.pairs == 2
    assert np.isfinite(found.draws).all()


def test_the_same_evidence_gives_the_same_intervals():
    one, other = (planted(SAME).share("standard", "standard", "image", "kin") for _ in range(2))
    np.testing.assert_array_equal(one.draws, other.draws)

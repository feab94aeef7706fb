"""Feature learning accuracy from planted answers: who is what to whom, shares, intervals, differences."""

import numpy as np
import pytest
from scipy import special

from advfeat.experiments.feature_learning import Answers, Evidence, NetworkKey, SetKey, Share, relation, verdict
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
    assert found.pairs == sorted(shares)
    assert found.images == N
    assert found.interval[0] < 0.35 < found.interval[1]
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


def coverage(seeds, pairs, draws=400):
    """The share of intervals that hold the mean, where learner and reference have normal effects of their own."""
    rng, held = np.random.default_rng(0), []
    for _ in range(draws):
        learner, reference = rng.normal(0, 0.05, (2, seeds))
        each = np.array([0.5 + learner[i] + reference[j] for i, j in pairs])
        low, high = Share(pairs, each, 100, np.full(10, each.mean())).interval
        held.append(low <= 0.5 <= high)
    return np.mean(held)


@pytest.mark.parametrize("seeds", [3, 4, 6])
def test_intervals_over_seeds_hold_what_they_say(seeds):
    """0.95 +- 3 standard errors of 400 draws; a bootstrap of three seeds of strangers held 0.51."""
    strangers = [(i, j) for i in range(seeds) for j in range(seeds) if i != j]
    assert 0.917 < coverage(seeds, strangers) < 0.983
    assert 0.917 < coverage(seeds, [(i, i) for i in range(seeds)]) < 0.983
    everyone = [(i, j) for i in range(seeds) for j in range(seeds)]  # of two architectures
    assert coverage(seeds, everyone) > 0.9


def test_intervals_over_images_are_the_binomials():
    found = planted(SAME).share("standard", "standard", "image", "stranger")
    low, high = found.interval
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / N), rel=0.2)


def test_of_the_one_reference_of_a_control_none_is_left_out():
    """Learners alone are what it varies over."""
    pairs, each = [(1, 0), (2, 0), (3, 0)], np.array([0.2, 0.4, 0.6])
    low, high = Share(pairs, each, 100, np.full(10, 0.4)).interval
    assert high - 0.4 == pytest.approx(special.stdtrit(2, 0.975) * 0.2 / np.sqrt(3))
    assert low == 0


def test_networks_that_differ_widen_an_interval():
    rights = SAME | {("standard", "standard"): lambda l, r: 1.0 if l == 0 else 0.0}
    low, high = planted(rights).share("standard", "standard", "image", "stranger").interval
    assert (low, high) == (0, 1)


def test_too_few_seeds_have_no_interval():
    assert planted(SAME, seeds=1).share("standard", "standard", "image", "stranger") is None
    found = planted(SAME, seeds=2).share("standard", "standard", "image", "stranger")
    assert found.pairs == [(0, 1), (1, 0)]
    assert np.isnan(found.interval).all()
    assert found.as_dict()["low"] is None
    assert verdict(found, "more", "less") == "+0.50, too few seeds for an interval"
    assert not np.isnan(planted(SAME, seeds=2).share("standard", "standard", "image", "kin").interval).any()


def test_differences_are_paired():
    """The same draws in both: what two shares have in common does not widen their difference."""
    evidence = planted(SAME)
    one, other = (evidence.share("standard", r, "image", "stranger") for r in ("standard", "adversarial"))
    found = one.minus(other)
    assert (found.value, *found.interval) == (0, 0, 0)
    assert verdict(found, "more", "less").startswith("not told apart")
    both = {("standard", r): (lambda l, r, more=more: 0.2 * l + more) for r, more in
            (("standard", 0.5), ("adversarial", 0.1))}  # fmt: skip
    evidence = planted(SAME | both)
    one, other = (evidence.share("standard", r, "image", "stranger") for r in ("standard", "adversarial"))
    assert one.interval[1] - one.interval[0] > 0.8  # learners differ, and both shares with them
    assert verdict(one.minus(other), "more", "less").startswith("more (+0.40, +0.3")
    assert verdict(other.minus(one), "more", "less").startswith("less (-0.40, -0.4")
    assert verdict(None, "more", "less") == "not measured"
    with pytest.raises(ValueError, match="no differences can be taken"):
        one.minus(evidence.share("standard", "standard", "image", "kin"))


def test_the_same_evidence_gives_the_same_intervals():
    one, other = (planted(SAME).share("standard", "standard", "image", "kin") for _ in range(2))
    np.testing.assert_array_equal(one.draws, other.draws)

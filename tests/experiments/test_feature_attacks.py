"""Table 2: pairs of classes, shares counted by hand, equal distances, stages that continue, commands, refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest
from test_image_representatives import PAIRS, content, tiny

from advfeat.cli import main
from advfeat.core import store
from advfeat.core.data import Samples
from advfeat.experiments import feature_attacks, images
from advfeat.experiments.feature_attacks import Attacked, attacked_images, document, equal_distance, share
from advfeat.experiments.feature_learning import NetworkKey
from advfeat.experiments.representatives import Experiment
from advfeat.experiments.representatives_configuration import class_pairs
from advfeat.reporting import feature_attack_page as page

SMALL = {"n_seeds": 3, "attack_steps": 4, "attack_scales": (0.5, 2.0), "n_test": 120}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    config = tiny(**SMALL, reference_eps=(0.1,))
    experiment = Experiment(config, tmp_path_factory.mktemp("attacks") / "whole")
    return experiment, experiment.attack()


# ------------------------------------------------------------------ who is attacked
def test_pairs_by_number_and_by_name():
    assert class_pairs("mnist_5k") == [(4, 9), (9, 4), (3, 5), (5, 3)]
    assert class_pairs("cifar10") == class_pairs("cifar10", ["3:5", "0:1"])
    assert class_pairs("digits", ["1 : 2", "2:1"]) == [(1, 2), (2, 1)]


@pytest.mark.parametrize(("text", "message"), [
    ("4:4", "one class twice"), ("4", "must be two classes"), ("4:5:6", "must be two classes"),
    ("4:10", "must be two classes"), ("cat:dog", "must be two classes of digits"), ("4:-1", "must be two classes"),
])  # fmt: skip
def test_bad_pairs(text, message):
    with pytest.raises(ValueError, match=message):
        class_pairs("digits", [text])


def test_images_of_the_first_class_of_each_pair():
    data = Samples(np.zeros((7, 1, 2, 2)), np.array([0, 1, 0, 2, 1, 0, 0]))
    numbers, targets, pair = attacked_images(data, [(0, 1), (1, 0)], 3)
    assert (numbers.tolist(), targets.tolist(), pair.tolist()) == ([0, 2, 5, 1, 4], [1, 1, 1, 0, 0], [0, 0, 0, 1, 1])
    with pytest.raises(ValueError, match="none of the 7 images is of class 3"):
        attacked_images(data, [(0, 3)])


# ------------------------------------------------------------------ shares
def test_references_and_victims(done):
    experiment, found = done
    assert [one.reference.name for one in found] == [
        "standard-0", "adversarial-0", "standard-1", "adversarial-1", "standard-2", "adversarial-2",
        "adversarial-0-eps-0.1", "adversarial-1-eps-0.1", "adversarial-2-eps-0.1",
    ]  # fmt: skip
    assert images.load(experiment.folder(found[-1].reference)).config.eps == 0.1
    assert {who.name for who in found[0].guesses} == {f"{arm}-{seed}" for arm in ("standard", "adversarial")
                                                      for seed in range(3)}  # fmt: skip
    for one in found:
        assert one.scales.tolist() == [0.5, 1.0, 2.0]
        assert (one.distance <= one.before).all()
        assert one.left().max() < 1


def test_shares_are_those_counted_by_hand(done):
    experiment, found = done
    rows = document(experiment, found)["table"]
    row = next(r for r in rows if r["pair"] == ["4", "9"] and r["kind"] == "own"
               and (r["reference"], r["relation"], r["learner"]) == ("standard", "stranger", "standard"))  # fmt: skip
    of_all, confusion = [], []
    for one in found:
        for who, guesses in one.guesses.items():
            if one.reference.arm == who.arm == "standard" and who.seed != one.reference.seed:
                mine = one.pair == 0
                assert set(one.y[mine]) == {4}
                assert set(one.target[mine]) == {9}
                hit, clean = guesses[1, mine] == 9, one.clean[who][mine]
                of_all.append(hit.mean())
                confusion.append((clean == 9).mean())
    assert len(of_all) == 6
    assert row["all"]["value"] == pytest.approx(np.mean(of_all))
    assert row["clean"]["value"] == pytest.approx(np.mean(confusion))
    means = [np.mean([share for (victim, _), share in zip(row["all"]["pairs"], row["all"]["each"]) if victim == seed])
             for seed in range(3)]  # fmt: skip
    assert row["all"]["std"] == pytest.approx(np.std(means, ddof=1))


def test_what_a_network_says_of_crafted_images_is_what_the_attack_shows_it(done):
    experiment, found = done
    one, who = found[1], NetworkKey("standard", 2)
    data = experiment.config.test_samples()
    attack = feature_attacks.FeaturePGD(experiment.net(one.reference), data.X, data.y, n_steps=4)
    numbers, targets, _ = attacked_images(data, class_pairs("digits"))
    crafted = attack.craft(data.X[numbers], targets, experiment.config.eps, "linf", experiment.config.seed)
    victim = images.load(experiment.folder(who)).nets["last"]
    np.testing.assert_array_equal(victim.logits(crafted.X).argmax(axis=1), one.guesses[who][1])
    np.testing.assert_array_equal(crafted.distance, one.distance[1])


def test_the_reference_itself_is_the_checkpoint_whose_features_were_taken(tmp_path):
    config = tiny(n_seeds=1, attack_steps=2, attack_scales=(1.0,), epochs=3, reference="best", lr=0.4)
    experiment = Experiment(config, tmp_path / "best")
    for one in experiment.attack():
        run = images.load(experiment.folder(one.reference))
        data = experiment.config.test_samples()
        numbers, _, _ = attacked_images(data, class_pairs("digits"))
        np.testing.assert_array_equal(one.clean[one.reference], run.nets["best"].logits(data.X[numbers]).argmax(axis=1))


def test_relations_are_not_mixed(done):
    experiment, found = done
    rows = document(experiment, found)["table"]
    assert {r["relation"] for r in rows} == {"itself", "stranger"}  # no kin was trained
    assert {(r["reference"], r["learner"]) for r in rows if r["relation"] == "itself"} == {
        ("standard", "standard"), ("adversarial", "adversarial")}  # fmt: skip
    assert all(r["relation"] == "stranger" for r in rows if r["kind"] != "own")


def made_up(arm, seed, left, success, n=100):
    """A reference's attacks after which so large a share of the distance is left, and so many strangers are fooled."""
    y, target = np.zeros(n, int), np.ones(n, int)
    guesses = np.stack([np.arange(n) < share * n for share in success]).astype(np.uint8)
    who = [NetworkKey("standard", other) for other in range(3) if other != seed]
    return Attacked(
        NetworkKey(arm, seed),
        np.array([0.5, 1.0]),
        np.array([0.1, 0.2]),
        y,
        target,
        y,
        np.ones(n),
        np.repeat(np.array(left)[:, None], n, axis=1),
        dict.fromkeys(who, y),
        dict.fromkeys(who, guesses),
    )


def test_of_correct_images_only_those_count_that_the_victim_knows():
    one = made_up("standard", 0, [0.6, 0.2], [0.4, 0.8])  # of 100 images of class 0 the first 40 and 80 are fooled
    clean = np.where(np.arange(100) < 60, 0, 2)  # of which it knows the first 60
    clean[:5] = 1  # and takes the first five for the target as they are
    one.clean.update(dict.fromkeys(one.clean, clean))
    values = {of: share([one], "standard", "own", "stranger", "standard", 1.0, 100, 0, of=of).value
              for of in ("all", "correct", "clean")}  # fmt: skip
    assert values == pytest.approx({"all": 0.8, "correct": 1.0, "clean": 0.05})
    half = share([one], "standard", "own", "stranger", "standard", 0.5, 100, 0, of="correct")
    assert half.value == pytest.approx(35 / 55)


def test_success_at_equal_distance_is_read_off_the_other_attacks_curve():
    found = [made_up("standard", seed, [0.6, 0.2], [0.4, 0.8]) for seed in range(3)]
    found += [made_up("adversarial", seed, [0.8, 0.1], [0.1, 0.3]) for seed in range(3)]
    (row,) = equal_distance(found)  # at the second radius NRF-PGD comes nowhere as close
    assert (row["scale"], row["left"]) == (0.5, pytest.approx(0.8))
    assert row["RF-PGD"]["value"] == pytest.approx(0.1)
    assert row["NRF-PGD"]["value"] == pytest.approx(0.2)  # half the way from nothing to 0.4
    assert row["difference"]["value"] == pytest.approx(0.1)
    assert row["difference"]["low"] == pytest.approx(0.1)
    assert row["references"] == 3


# ------------------------------------------------------------------ stages
def test_stopped_it_continues_to_the_same_bits_and_nothing_is_done_twice(done, tmp_path, monkeypatch):
    experiment, found = done
    other, hits = Experiment(experiment.config, tmp_path / "stopped"), 0

    def stop(what, share):
        nonlocal hits
        hits += what.startswith("attacks by adversarial")
        if hits == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        other.attack(stop)
    again = other.attack()
    assert content(other.path / "attacks") == content(experiment.path / "attacks")
    assert document(other, again) == document(experiment, found)
    monkeypatch.setattr(feature_attacks, "FeaturePGD", None)
    assert document(other, other.attack()) == document(experiment, found)
    assert document(other, other.attacks()) == document(experiment, found)


def test_other_attacks_need_no_force_and_no_training(tmp_path):
    out = Experiment(tiny(n_seeds=1, attack_steps=2), tmp_path / "out")
    out.attack()
    times = {path: path.stat().st_mtime_ns for path in (out.path / "networks").rglob("*.npz")}
    found = Experiment(replace(out.config, pairs=("1:7",), attack_scales=(1.0,), n_attacked=2), out.path).attack()
    assert {path: path.stat().st_mtime_ns for path in (out.path / "networks").rglob("*.npz")} == times
    assert (set(found[0].y), len(found[0].y), found[0].scales.tolist()) == ({1, 7}, 4, [1.0])
    assert found[0].distance.shape == found[0].guesses[NetworkKey("adversarial", 0)].shape == (1, 4)
    assert store.load_json(out.path / "config.json")["config"]["pairs"] == ["1:7"]
    for changes, message in (({"pairs": ("1:1",)}, "one class twice"), ({"reference_eps": (1.5,)}, "must be <= 1")):
        with pytest.raises(ValueError, match=message):
            replace(out.config, **changes)


def test_without_networks_there_are_no_attacks(tmp_path):
    experiment = Experiment(tiny(n_seeds=1), tmp_path / "out")
    store.make_folder(experiment.path)
    assert experiment.attacks() == []


# ------------------------------------------------------------------ page and commands
def test_the_page_has_the_papers_numbers_where_they_belong(done, tmp_path):
    experiment, found = done
    made = document(experiment, found) | {"paper": [["4", "9", 71.41, 9.6]]}
    head, rows = page.table_rows(made)
    theirs = {(row[1], row[3]): row[-1] for row in rows if row[0] == "4 to 9" and row[2] == "strangers"}
    assert head[-1] == "the paper's"
    assert theirs["NRF-PGD", "standard"] == "71.4"
    assert theirs["RF-PGD", "standard"] == "9.6"
    assert theirs["RF-PGD", "adversarial"] == theirs["RF-PGD, reference at 0.1", "standard"] == ""
    report = page.write_report("digits", made, tmp_path).read_text()
    assert report.count("<img") == 1
    assert (tmp_path / "table2.pdf").stat().st_size > 2000
    assert store.load_json(tmp_path / "table2.json")["table"]


def test_commands(tmp_path, capsys):
    out = tmp_path / "run"
    given = ["--set", *PAIRS, "n_seeds=1", "attack_steps=2", "n_test=120", "--out", str(out)]
    assert main(["images", "table2", *given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"] == str(out / "table2.html")
    assert {tuple(r["pair"]) for r in found["table"]} == {("4", "9"), ("9", "4"), ("3", "5"), ("5", "3")}
    runs = [str(out / "networks" / f"{arm}-0") for arm in ("standard", "adversarial")]
    place = str(tmp_path / "attack")
    arguments = ["images", "attack", runs[0], "--victims", *runs, "--source", "3", "--steps", "3", "--out", place]
    assert main([*arguments, "--target", "5", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert [one["training"] for one in made["victims"]] == ["standard", "pgd"]
    crafted = store.load_npz(tmp_path / "attack" / "crafted.npz")
    assert set(crafted["y"]) == {3}
    assert made["images"] == len(crafted["X"])
    assert np.median(crafted["distance"]) == made["distance"]
    assert main([*arguments, "--target", "5"]) == 0
    assert "distance to the representation" in capsys.readouterr().out
    refused = ((["--target", "3"], "one class twice"), (["--target", "ten"], "must be two classes"),
               (["--target", "5", "--eps", "0"], "eps = 0"), (["--target", "5", "--eps", "2"], "must be <= 1"),
               (["--target", "5", "--samples", "-5"], "samples = -5"),
               (["--target", "4"], "holds another attack"))  # fmt: skip
    for rest, message in refused:
        assert main([*arguments, *rest]) == 2
        assert message in capsys.readouterr().err


def test_a_reference_of_another_image_set_is_refused(done):
    experiment, _ = done
    one, two = (images.load(experiment.folder(NetworkKey("standard", seed))) for seed in (0, 1))
    foreign = replace(two, config=replace(two.config, dataset="mnist_5k"))
    with pytest.raises(ValueError, match="was trained on mnist_5k, the reference on digits"):
        feature_attacks.attack_runs(one, [foreign], "3", "5", 0.1, "nowhere")

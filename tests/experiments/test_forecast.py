"""What trainings will take: counts without a file, parts that add up, and what makes predictions longer."""

import json
from dataclasses import replace

import pytest
from test_image_representatives import PAIRS, tiny

from advfeat.cli import main
from advfeat.experiments import forecast
from advfeat.experiments.image_configuration import ImageConfig
from advfeat.experiments.representatives import Experiment
from advfeat.images.data import DATA_SETS, load


def config(**changes):
    return ImageConfig(**{"dataset": "digits", "network": "convnet", "depth": 2, "width": 3, "epochs": 2} | changes)


def test_image_counts_are_those_of_the_files():
    assert forecast.SIZES.keys() == DATA_SETS.keys()
    for name in ("digits", "mnist_5k"):
        assert forecast.SIZES[name] == tuple(len(load(name, part).y) for part in ("train", "test"))
    one = config(n_train=300, n_test=50)
    data, validation = one.samples()
    assert forecast.counts(one) == (len(data.y), len(validation.y), len(one.test_samples().y))
    assert forecast.counts(ImageConfig(dataset="cifar10", n_train=10**6))[2] == 10_000


def test_a_trainings_parts_follow_from_the_rates():
    rates = forecast.Rates(step=2.0, forward=0.01, back=0.1, keep=0.5, memory=7)
    one = config(n_train=300, n_test=50, batch_size=90, epochs=4, record_every=2, pgd_steps=4)
    f = forecast.of_training(one, rates)
    assert (f.steps, f.training, f.memory) == (12, 24.0, 7)
    assert f.records == pytest.approx(3 * (0.01 * (270 + 60) + 0.1 * 30 * (0.4 * 4 + 1) + 0.5))
    assert f.test == pytest.approx(2 * 50 * (0.02 + 0.4 * 2.0))
    assert f.seconds == f.training + f.records + f.test
    robust = forecast.of_training(replace(one, training="pgd"), rates)  # whose images stand to the last step
    assert robust.records == pytest.approx(3 * (0.01 * (270 + 60) + 0.1 * 30 * 5 + 0.5))


def test_a_step_is_a_training_with_one_ascent_step_and_the_other_ascent_steps(monkeypatch):
    """Of made-up times: a call takes ten times as many seconds as its number in the order of calls says."""
    calls = []

    def timed(work):
        work()
        calls.append(work)
        return 10.0 * len(calls)

    monkeypatch.setattr(forecast, "timed", timed)
    plain = forecast.rates(config(batch_size=20))
    # two images take 10, 20 and 30 seconds: more of them take too long
    assert (plain.step, plain.forward, plain.back, plain.keep) == (100.0, 10.0, 15.0, 120.0)
    calls.clear()
    assert forecast.rates(config(batch_size=20, training="pgd", n_ascent=30)).step == 100.0 + 29 * 15.0 * 20
    calls.clear()
    crafted = forecast.rates(config(batch_size=20, training="pgd", n_ascent=3, crafting_mode="train"))
    assert crafted.step == 100.0 + 2 * 20.0 * 20  # the fourth call, of passes in training mode
    assert plain.memory > config().untrained().memory(20)


@pytest.mark.parametrize(("seconds", "calls"), [(0.02, 2), (1.0, 4)])
def test_as_many_images_as_time_allows_are_timed_at_most_a_batch(seconds, calls, monkeypatch):
    """Of a call of 0.02 s whatever its size: two images and the batch of 20; of 1 s: 2, 6, 18 and 20."""
    seen = []

    def timed(work):
        seen.append(work)
        return seconds

    monkeypatch.setattr(forecast, "timed", timed)
    found = forecast.rates(config(batch_size=20))
    assert len(seen) == 3 * calls + 1
    assert found.step == pytest.approx(seconds)
    assert found.back == pytest.approx(seconds / 20)


def test_an_experiments_stages():
    experiment = Experiment(tiny(reference_eps=(0.1,)), None)
    rows = {row["stage"]: row for row in forecast.of_experiment(experiment)}
    assert list(rows) == [
        "4 standard trainings", "4 adversarial trainings", "2 standard other trainings",
        "2 adversarial other trainings", "2 adversarial eps-0.1 trainings", "12 sets of representatives",
        "answers at all record points", "attacks on features",
    ]  # fmt: skip
    sets = rows["12 sets of representatives"]
    assert sets["most"] == pytest.approx(10 * experiment.config.n_starts * sets["least"])
    assert all(row["least"] <= row["most"] for row in rows.values())
    alone = {row["stage"] for row in forecast.of_experiment(Experiment(tiny(), None), representatives=False)}
    assert alone == {"2 standard trainings", "2 adversarial trainings", "attacks on features"}


@pytest.mark.parametrize(("seconds", "said"), [(3, "3.0 s"), (119, "119.0 s"), (150, "2.5 min"), (9000, "2.5 hours"),
                                               (400_000, "4.6 days")])  # fmt: skip
def test_durations_in_words(seconds, said):
    assert forecast.duration(seconds) == said


def test_commands_say_it_and_begin_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = [f"{name}={value}" for name, value in {"dataset": "digits", "network": "convnet", "width": 3}.items()]
    assert main(["images", "train", "--set", *values, "--seeds", "0", "1", "--plan", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seeds"] == 2
    assert found["seconds"] == pytest.approx(found["training"] + found["records"] + found["test"])
    for command in ("reproduce", "table2"):
        assert main(["images", command, "--set", *PAIRS, "--plan"]) == 0
        said = capsys.readouterr().out
        assert ("sets of representatives" in said) == (command == "reproduce")
        assert "in all" in said
    assert main(["images", "train", "--preset", "digits", "--plan"]) == 0
    assert "memory, at the most" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("arguments", "epochs"), [(["--data", "mnist-5k"], 12), (["--data", "fashion-mnist"], 10),
                                                   (["--data", "digits", "--preset", "small"], 15)])  # fmt: skip
def test_an_image_set_has_its_small_experiment(arguments, epochs, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(forecast, "of_experiment", lambda experiment, _: seen.append(experiment.config) or [
        {"stage": "x", "least": 1.0, "most": 2.0, "memory": 1}])  # fmt: skip
    assert main(["images", "reproduce", *arguments, "--plan"]) == 0
    assert (seen[0].dataset, seen[0].epochs) == (arguments[1].replace("-", "_"), epochs)
    assert "1.0 s to 2.0 s" in capsys.readouterr().out
    assert main(["images", "reproduce", "--preset", "small", "--plan"]) == 2
    assert "name one with --data" in capsys.readouterr().err


def test_records_within_an_epoch():
    assert config(record_every=0.25, batch_size=90, n_train=300).training_config(270).record_every == 1
    assert config(record_every=0.25, batch_size=10, n_train=300).training_config(270).record_every == 7
    assert config(record_every=2, batch_size=90, n_train=300).training_config(270).record_every == 6


def test_files_of_no_set_are_needed(tmp_path):
    one = replace(ImageConfig(dataset="svhn", folder=str(tmp_path)), network="convnet", width=4, depth=1)
    assert forecast.of_training(one).steps == 12 * -(-(73_257 - 7_326) // 100)

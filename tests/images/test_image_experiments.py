"""Trainings on images from files to report: what is kept, chosen, noticed, branched, and verified."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from image_files import write_cifar10, write_mnist, write_svhn

from advfeat.core import store
from advfeat.experiments import images
from advfeat.experiments.image_configuration import ImageConfig
from advfeat.experiments.image_presets import PRESETS
from advfeat.reporting.image_page import write_evaluation, write_report
from advfeat.training import History
from advfeat.training.loop import DivergenceError
from advfeat.training.recorder import Series

TINY = {"network": "convnet", "width": 4, "depth": 2, "epochs": 3, "batch_size": 20, "lr": 0.05, "pgd_steps": 3,
        "n_ascent": 2}  # fmt: skip
SUITE = (("pgd_cross_entropy", {"n_steps": 5, "n_restarts": 2}), ("square", {"n_steps": 20}))


def digits(**changes):
    return ImageConfig(**TINY | {"dataset": "digits", "n_train": 200, "n_test": 60} | changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished PGD training on digits and its folder."""
    out = tmp_path_factory.mktemp("images") / "run"
    return images.run(digits(training="pgd", n_train=600, epochs=8, eps=0.05, width=8, lr=0.1), out)


def arrays(folder):
    """All weights, histories and results of a folder."""
    held = {str(path.relative_to(folder)): store.load_npz(path) for path in sorted(folder.rglob("*.npz"))}
    flat = {f"{name}/{key}": a.tobytes() for name, one in held.items() for key, a in one.items() if key != "head"
            and key != "digest"}  # fmt: skip
    return flat | {"result": store.load_json(folder / "result.json")["networks"]}


@pytest.mark.parametrize("training", ["standard", "pgd", "fgsm", "trades"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_training_stops_and_continues_to_the_same_bits(training, norm, tmp_path):
    config = digits(training=training, norm=norm, eps=0.1, augmentation="crop", eps_warm_up=1.0)
    whole = images.run(config, tmp_path / "whole")

    def stop(what, share):
        if share >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images.run(config, tmp_path / "stopped", progress=stop)
    assert not (tmp_path / "stopped" / "result.json").exists()
    again = images.run(config, tmp_path / "stopped")
    assert arrays(tmp_path / "stopped") == arrays(tmp_path / "whole")
    assert again.iterations == whole.iterations
    assert whole.history["validation_accuracy"].shape == (4,)
    assert len(list((tmp_path / "whole" / "weights").glob("*.npz"))) == 4


@pytest.mark.parametrize(("name", "write", "shape"), [
    ("cifar10", lambda folder: write_cifar10(folder, 30), (3, 32, 32)),
    ("svhn", lambda folder: write_svhn(folder, 120), (3, 32, 32)),
    ("mnist", lambda folder: write_mnist(folder, 120), (1, 28, 28)),
    ("fashion_mnist", lambda folder: write_mnist(folder, 120), (1, 28, 28)),
])  # fmt: skip
def test_official_formats_train(name, write, shape, tmp_path):
    write(tmp_path / "data")
    changes = {"dataset": name, "folder": str(tmp_path / "data"), "epochs": 10, "lr": 0.1, "width": 8}
    config = ImageConfig(**TINY | changes)
    run = images.run(config, tmp_path / "out")
    assert run.nets["last"].sample_shape == shape
    assert run.history["train_accuracy"][-1] > 0.9  # stripes of ten kinds
    held = store.load_json(tmp_path / "out" / "result.json")["networks"]
    assert held["last"]["accuracy"] > 0.5
    assert held["best"]["n_test"] in (30, 60)


def test_best_is_the_earliest_of_the_best_on_validation_images(trained):
    clock, values = trained.history.at("validation_robust")
    best = trained.iterations["best"]
    assert values[1:].max() == values[list(clock).index(best)]
    assert not (values[1 : list(clock).index(best)] == values[1:].max()).any()
    np.testing.assert_array_equal(images.at(trained.path, best).parameters["fc.weight"],
                                  trained.nets["best"].parameters["fc.weight"])  # fmt: skip
    with pytest.raises(FileNotFoundError, match=r"7\.npz: .* must be one of \[0, 27, 54"):
        images.at(trained.path, 7)


def test_validation_images_are_no_training_images():
    data, validation = digits().samples()
    assert len(data.X) == 180
    assert len(validation.X) == 20
    assert not {x.tobytes() for x in data.X} & {x.tobytes() for x in validation.X}
    other = digits(seed=5).samples()[1]
    np.testing.assert_array_equal(validation.X, other.X)


def test_seeds_of_weights_and_of_order_are_apart(tmp_path):
    config = digits(epochs=1)
    nets = [one.untrained() for one in (config, replace(config, order_seed=3), replace(config, seed=3))]
    first = [net.parameters["fc.weight"] for net in nets]
    np.testing.assert_array_equal(first[0], first[1])
    assert (first[0] != first[2]).any()
    several = config, replace(config, order_seed=3), replace(config, order_seed=0)
    ends = [images.run(one, tmp_path / str(i)).nets["last"].parameters["fc.weight"] for i, one in enumerate(several)]
    assert (ends[0] != ends[1]).any()
    np.testing.assert_array_equal(ends[0], ends[2])


def test_a_run_branches_from_anothers_weights(trained, tmp_path):
    start = trained.nets["last"]
    config = digits(epochs=1, width=8)
    branch = images.run(config, tmp_path / "branch", start=start)
    np.testing.assert_array_equal(images.at(tmp_path / "branch", 0).parameters["fc.weight"],
                                  start.parameters["fc.weight"])  # fmt: skip
    assert branch.history["train_accuracy"][0] > 0.3
    with pytest.raises(store.CheckpointError, match="holds another training, nothing was changed; initial weights"):
        images.run(config, tmp_path / "branch")


def test_several_seeds_by_several_processes_are_the_same(tmp_path):
    config = digits(epochs=1)
    one = images.run_seeds(config, tmp_path / "one", [0, 1])
    two = images.run_seeds(config, tmp_path / "two", [0, 1], jobs=2)
    for a, b in zip(one, two):
        assert arrays(a.path) == arrays(b.path)
    assert (one[0].nets["last"].parameters["fc.weight"] != one[1].nets["last"].parameters["fc.weight"]).any()


def test_another_configuration_is_refused_and_force_begins_anew(tmp_path):
    images.run(digits(epochs=1), tmp_path)
    before = arrays(tmp_path)
    with pytest.raises(store.CheckpointError, match="holds another training, nothing was changed; epochs was 1 and"):
        images.run(digits(epochs=2), tmp_path)
    assert arrays(tmp_path) == before
    images.run(digits(epochs=2), tmp_path, force=True)
    assert images.load(tmp_path).iterations["last"] == 18
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(store.CheckpointError, match="not empty and no run folder"):
        images.run(digits(), tmp_path / "other", force=True)


# ------------------------------------------------------------------ what is noticed
def history(**series):
    n = len(next(iter(series.values())))
    held = {f"validation_{name}": Series(10 * np.arange(n), np.array(values, float)) for name, values in series.items()}
    return History(10 * np.arange(n), held)


def test_the_best_record():
    held = history(accuracy=[0.1, 0.2, 0.9, 0.9], robust=[0.5, 0.1, 0.4, 0.2])
    assert images.best(held, digits()) == 20
    assert images.best(held, digits(training="pgd")) == 20  # and not the untrained network
    assert images.best(history(accuracy=[0.1], robust=[0.5]), digits()) == 0


def test_label_collapse_is_noticed():
    healthy = history(collapse=[1.0, 0.1, 0.0, 0.05], robust=[0, 0.3, 0.5, 0.6], fgsm=[0, 0.4, 0.6, 0.7])
    assert images.noticed(healthy, digits(training="pgd")) == []
    collapsed = history(collapse=[0.5, 0.1, 0.95, 1.0], robust=[0.1] * 4, fgsm=[0.1] * 4)
    (said,) = images.noticed(collapsed, digits(training="pgd"))
    assert said.startswith("Labels have collapsed: from iteration 20 on")
    recovered = history(collapse=[0.5, 1.0, 0.95, 0.0], robust=[0.1] * 4, fgsm=[0.1] * 4)
    assert images.noticed(recovered, digits(training="pgd")) == []


def test_catastrophic_overfitting_is_noticed():
    lost = history(collapse=[0.0] * 4, robust=[0, 0.4, 0.5, 0.02], fgsm=[0, 0.5, 0.6, 0.9])
    (said,) = images.noticed(lost, digits(training="fgsm"))
    assert said == ("Catastrophic overfitting: at iteration 30 2% of validation images stand against PGD, "
                    "50% did before, and 90% still stand against FGSM.")  # fmt: skip
    assert images.noticed(lost, digits()) == []  # a standard training has nothing to lose


def test_a_training_whose_labels_collapse_says_so(tmp_path):
    """A weight decay that leaves nothing: all images get one class."""
    config = digits(training="pgd", weight_decay=5.0, lr=0.1, epochs=4, schedule="constant", eps=0.3)
    run = images.run(config, tmp_path)
    assert any(line.startswith("Labels have collapsed") for line in run.warnings)
    assert store.load_json(tmp_path / "result.json")["warnings"] == run.warnings
    assert "Labels have collapsed" in write_report(run).read_text()


def test_divergence_is_an_error_that_says_when(tmp_path):
    with np.errstate(all="ignore"), pytest.raises(DivergenceError, match="training diverged at iteration"):
        images.run(digits(lr=1e30, schedule="constant", epochs=4), tmp_path)


# ------------------------------------------------------------------ evaluation
@pytest.fixture(scope="module")
def evaluated(trained):
    out = trained.path.parent / "evaluate"
    out.mkdir()
    found = images.evaluate(trained, "best", 0.1, 40, out, certificate="linear", attacks=SUITE)
    return out, found


def test_an_evaluation_is_what_its_transcript_says(trained, evaluated):
    out, found = evaluated
    said, transcript = images.verified(out)
    assert said == []
    assert len(transcript.y) == found["n"] == 40
    assert transcript.robust_accuracy == found["robust_accuracy"]
    assert found["accuracy"] >= found["robust_accuracy"] + sum(found["broken_by"].values()) / 40 - 1e-12
    assert found["certified_accuracy"] <= found["robust_accuracy"]
    assert found["interval_accuracy"] <= found["certified_accuracy"]
    np.testing.assert_allclose(found["undecided"], found["robust_accuracy"] - found["certified_accuracy"], atol=1e-12)
    assert sum(found["broken_by"].values()) > 0
    assert set(transcript.restart[transcript.broken_by == "pgd_cross_entropy"].tolist()) <= {0, 1}
    assert images.evaluate(trained, "best", 0.1, 40, out, certificate="linear", attacks=SUITE) == found
    with pytest.raises(store.CheckpointError, match="holds another evaluation"):
        images.evaluate(trained, "best", 0.2, 40, out, certificate="linear", attacks=SUITE)
    page = write_evaluation(out).read_text()
    assert "robust accuracy, worst of all attacks" in page
    assert page.count("data:image/png;base64") == 1


@pytest.mark.parametrize(("what", "message"), [
    ("X_adv", "away, beyond eps"), ("box", "leaves the box"), ("broken_by", "is said to stand"),
    ("clean", "the clean image has margin .*, and is said to be wrong"), ("margin", "its margin is"),
    ("network", "is not the one that was attacked"), ("result", "robust_accuracy is"),
])  # fmt: skip
def test_a_false_statement_is_found(what, message, evaluated, tmp_path):
    out = tmp_path / "changed"
    shutil.copytree(evaluated[0], out)
    transcript = images.Transcript.load(out / "transcript.npz")
    broken = int(np.flatnonzero(transcript.broken_by == "pgd_cross_entropy")[0])
    if what == "X_adv":
        transcript.X_adv[broken, 0, 0, 0] = transcript.X[broken, 0, 0, 0] + np.float32(0.2)
    elif what == "box":
        transcript.X_adv[broken, 0, 0, 0] = -0.05
    elif what == "broken_by":
        worst = int(np.where(transcript.broken_by == "pgd_cross_entropy", transcript.margin, np.inf).argmin())
        transcript.broken_by[worst] = ""
    elif what == "clean":
        transcript.broken_by[int(np.flatnonzero(transcript.broken_by == "")[0])] = "clean"
    elif what == "margin":
        transcript.margin[broken] -= 0.5
    elif what == "network":
        net = images.exchange.load(out / "network.npz")
        net.parameters["fc.bias"][0] += 1e-3
        images.exchange.save(net, out / "network.npz")
    elif what == "result":
        held = store.load_json(out / "result.json")
        held["found"]["robust_accuracy"] += 0.025
        store.save_json(out / "result.json", held)
    transcript.save(out / "transcript.npz")
    said, _ = images.verified(out)
    assert any(message.split(" .*")[0] in line for line in said), said


# ------------------------------------------------------------------ configuration
@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_configurations(name):
    config = ImageConfig.build(None, (), None, **PRESETS[name].values)
    net = replace(config, width=1).untrained()
    assert net.n_classes == 10
    assert config.training_config(1000).n_iter == config.epochs * -(-1000 // config.batch_size)
    assert PRESETS[name].source
    json.dumps(config.as_dict())


@pytest.mark.parametrize(("changes", "message"), [
    ({"eps": 0.0}, "eps = 0.0: must be a number, finite and > 0"),
    ({"eps": 1.5}, "eps = 1.5: must be <= 1"),
    ({"validation": 0.7}, "validation = 0.7: must be <= 0.5"),
    ({"network": "wide_resnet", "depth": 11}, "depth = 11: of wide_resnet must be 6 n"),
    ({"dataset": "imagenet"}, "dataset = 'imagenet': unknown"),
    ({"momentum": 1.0}, "momentum = 1.0: must be < 1"),
    ({"folder": 3}, "folder = 3: must be a text"),
    ({"batch_size": 1}, "batch_size = 1: must be an integer >= 2"),
    ({"training": "pgd", "crafting_updates": True}, "crafting_updates = True: only with crafting_mode = 'train'"),
])  # fmt: skip
def test_bad_configurations(changes, message):
    with pytest.raises(ValueError, match=message):
        digits(**changes)


def test_a_class_without_images_and_a_network_for_others(trained, tmp_path):
    with pytest.raises(ValueError, match=r"among 9 training images of digits none is of class .*; give more"):
        digits(n_train=10).samples()
    with pytest.raises(ValueError, match=r"start: is a network for images \(1, 8, 8\), and images of cifar10 are"):
        images.run(ImageConfig(dataset="cifar10"), tmp_path / "x", start=trained.nets["last"])
    assert not (tmp_path / "x").exists()


def test_more_images_than_there_are():
    with pytest.raises(ValueError, match="n = 2000: must be an integer >= 1 and <= 1,437"):
        digits(n_train=2000).samples()


@pytest.mark.parametrize("dataset", ["digits", "mnist_5k"])
def test_a_normalised_network_begins_with_the_mean_and_deviation_of_the_set(dataset):
    config = ImageConfig(dataset=dataset, normalise=True, width=2, dtype="float64")
    net, X = config.untrained(), config.samples()[0].X
    first = net.program.operations[0]
    assert first.kind == "normalise"
    found = (X - np.array(first.options["mean"])) / np.array(first.options["deviation"])
    assert abs(found.mean()) < 0.02
    assert abs(found.std() - 1) < 0.02
    assert ImageConfig(dataset=dataset, width=2).untrained().program.operations[0].kind != "normalise"

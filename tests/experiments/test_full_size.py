"""Full-size presets on small files of the official formats, and experiments whose references are the only learners."""

import json

import pytest
from image_files import write_cifar10, write_mnist, write_svhn
from test_image_representatives import PAIRS

from advfeat.cli import main
from advfeat.core import store
from advfeat.experiments.image_presets import PRESETS
from advfeat.experiments.representatives import load
from advfeat.experiments.representatives_configuration import EXPERIMENTS

WRITE = {
    "mnist": lambda folder: write_mnist(folder, 120),
    "cifar10": lambda folder: write_cifar10(folder, 30),
    "svhn": lambda folder: write_svhn(folder, 120),
}
SMALL = ["epochs=1", "batch_size=30", "width=1", "n_ascent=1", "pgd_steps=1"]
FEW = ["n_images=10", "n_starts=1", "inversion_steps=2", "bootstrap=100", "attack_steps=2", 'starts=["image"]',
       'other_network="convnet"', "other_width=2"]  # fmt: skip


@pytest.mark.parametrize("name", sorted(WRITE))
def test_full_size_experiments_run_on_small_files(name, tmp_path, capsys):
    WRITE[name](tmp_path / "data")
    small = [*SMALL, *["depth=10"] * (EXPERIMENTS[name].get("network") == "wide_resnet")]
    command = ["images", "reproduce", "--preset", name, "--seeds", "2", "--out", str(tmp_path / "out"), "--jobs", "1"]
    data = [f"folder={json.dumps(str(tmp_path / 'data'))}"]
    assert main([*command, "--quiet", "--set", *data, *small, *FEW]) == 0
    experiment = load(tmp_path / "out")
    assert experiment.config.dataset == name
    assert experiment.config.normalise == EXPERIMENTS[name].get("normalise", False)
    found = store.load_json(tmp_path / "out" / "table.json")
    assert {row["relation"] for row in found["cells"]} == {"itself", "kin", "stranger", "architecture"}
    assert set(found["paper"]) == {"standard", "adversarial"}
    held = [tuple(row["pair"]) for row in found["table2"]["table"]]
    papers = [tuple(row[:2]) for row in found["table2"]["paper"]]
    assert set(papers) <= set(held)
    assert bool(papers) == (name == "cifar10")
    assert "Table 2" in (tmp_path / "out" / "report.html").read_text()
    capsys.readouterr()
    assert main([*command, "--plan", "--json", "--set", *data, *small, *FEW]) == 0
    assert json.loads(capsys.readouterr().out)["stages"][-1]["least"] > 0


TRAININGS = ["mnist-madry", "cifar10", "cifar10-pgd", "cifar10-fgsm", "cifar10-trades", "svhn-pgd"]


@pytest.mark.parametrize("name", TRAININGS)
def test_full_size_trainings_run_on_small_files(name, tmp_path):
    data = PRESETS[name].values["dataset"]
    WRITE[data](tmp_path / "data")
    small = [*SMALL, *["depth=10"] * (PRESETS[name].values.get("network") == "wide_resnet")]
    command = ["images", "train", "--preset", name, "--out", str(tmp_path / "out"), "--quiet"]
    assert main([*command, "--set", f"folder={json.dumps(str(tmp_path / 'data'))}", *small]) == 0
    kept = store.load_json(tmp_path / "out" / "config.json")["config"]
    changed = {"epochs", "batch_size", "width", "depth", "n_ascent", "pgd_steps"}
    wanted = {key: value for key, value in PRESETS[name].values.items() if key not in changed}
    assert {key: tuple(kept[key]) if isinstance(kept[key], list) else kept[key] for key in wanted} == wanted


def test_references_may_be_the_only_learners(tmp_path):
    command = ["images", "reproduce", "--out", str(tmp_path / "out"), "--quiet", "--jobs", "1", "--set", *PAIRS]
    assert main([*command, "learners=[]", 'starts=["image"]']) == 0
    trained = sorted(path.name for path in (tmp_path / "out" / "networks").iterdir())
    assert trained == ["adversarial-0", "adversarial-1", "standard-0", "standard-1"]
    found = store.load_json(tmp_path / "out" / "table.json")
    assert {row["relation"] for row in found["cells"]} == {"itself", "stranger"}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("weights/*.npz")}
    assert main([*command, 'learners=["kin"]', 'starts=["image"]']) == 0  # more learners cost their trainings alone
    found = store.load_json(tmp_path / "out" / "table.json")
    assert {row["relation"] for row in found["cells"]} == {"itself", "kin", "stranger"}
    assert {path: path.stat().st_mtime_ns for path in before} == before

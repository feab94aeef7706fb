"""Processes that are killed at any moment, and two that want one folder: nothing is lost and nothing is mixed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from finished import content

import advfeat

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="SIGKILL")]

ROOT = Path(advfeat.__file__).resolve().parents[1]
FIELDS = {"n_classes": 3, "n_neurons": 4, "patch_dim": 12, "n_patches": 8, "n_train": 6, "n_test": 6, "n_iter": 2000,
          "n_records": 10, "rho": 10, "lr": 2}  # fmt: skip
PAIRS = [f"{key}={value}" for key, value in FIELDS.items()]
SPEC = """
[sweep]
engine = "both"
training = ["standard", "adversarial"]
metrics = ["A", "B", "certified_accuracy", "robust_accuracy"]
[base]
{base}
[axes]
alpha = [1.5, 2.0, 3.0]
eps = [0.5, 1.0]
[[plot]]
metric = "B"
x = "alpha"
training = "standard"
engine = "network"
at = {{ eps = 0.5 }}
"""
TRAIN = textwrap.dedent("""
    import sys
    import advfeat as af
    from advfeat.experiments.configuration import Figure3Config
    config = Figure3Config.build(None, {pairs!r}, n_seeds=2)
    af.train(config.network(), config.data("train"), config.training(True), run_dir=sys.argv[1])
""")
LAYERS = textwrap.dedent("""
    import sys
    import numpy as np
    import advfeat as af
    from advfeat.images import ConvNet
    rng = np.random.default_rng(0)
    data = rng.random((200, 1, 8, 8)), rng.integers(10, size=200)
    config = af.TrainConfig(lr=0.05, n_iter=300, record_every=5, batch_size=30, momentum=0.9, weight_decay=1e-3,
                            schedule="one_cycle", adversarial=True, ascent="steepest", random_start=True,
                            ascent_lr=0.05, eps=0.1, n_ascent=2, objective="cross_entropy")
    af.train(ConvNet(4, (1, 8, 8)), data, config, run_dir=sys.argv[1])
""")
IMAGES = ["dataset=digits", "network=convnet", "width=4", "depth=2", "epochs=8", "n_train=400", "n_ascent=2", "eps=0.1",
          "augmentation=crop", "eps_warm_up=2", "pgd_steps=3"]  # fmt: skip
#: The experiment on representatives; kills itself so many seconds after a stage begins, and says how long each took.
STAGES = """
import os, signal, sys, threading, time
from pathlib import Path
from advfeat.experiments.representatives import Experiment
from advfeat.experiments.representatives_configuration import RepresentativesConfig
config = RepresentativesConfig(dataset="digits", network="convnet", depth=2, width=3, epochs=3, batch_size=40, lr=0.05,
                               n_train=300, n_test=60, n_ascent=1, pgd_steps=2, n_seeds=2, n_images=20,
                               inversion_steps=60, n_starts=2, bootstrap=100, attack_steps=60)
jobs = int(sys.argv[4])
begun = {}
def progress(what, share):
    stage = what.split()[0] if jobs == 1 else "any"
    if stage not in begun:
        begun[stage] = time.perf_counter()
        if stage == sys.argv[2]:
            threading.Timer(float(sys.argv[3]), os.kill, (os.getpid(), signal.SIGKILL)).start()
if jobs > 1:
    progress("any", 0.0)
Experiment(config, Path(sys.argv[1])).run(progress, jobs=jobs)
Experiment(config, Path(sys.argv[1])).attack(progress, jobs=jobs)
ends = [*list(begun.values())[1:], time.perf_counter()]
print(*(end - begin for begin, end in zip(begun.values(), ends)))
os._exit(0)
"""
#: A command that has loaded everything and begins at a given moment, so that two meet in the folder.
AT_ONCE = """
import sys, time
from advfeat.cli import main
from advfeat.experiments import figure3
time.sleep(max(float(sys.argv[1]) - time.time(), 0))
sys.exit(main(sys.argv[2:]))
"""


def command(*arguments):
    return [sys.executable, "-m", "advfeat", *map(str, arguments)]


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT)}


def finish(arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Per kind of work: the command into a folder, and the folder of an undisturbed run."""
    place = tmp_path_factory.mktemp("undisturbed")
    spec = place / "spec.toml"
    spec.write_text(SPEC.format(base="\n".join(f"{key} = {value}" for key, value in FIELDS.items() if key != "n_iter")
                                + "\nn_iter = 200\nn_seeds = 2"))  # fmt: skip
    run = ["reproduce", "--seeds", 2, "--set", *PAIRS, "--out"]
    works = {
        "reproduce": lambda out: command(*run, out),
        "sweep": lambda out: command("sweep", spec, "--jobs", 2, "--largest-batch", 3, "--out", out),
        "robustness": lambda out: command("robustness", place / "reproduce", "--eps-grid", "0.2:1:6", "--samples", 8,
                                          "--max-nodes", 8, "--rtol", 0.1, "--out", out),
        "train": lambda out: [sys.executable, "-c", TRAIN.format(pairs=PAIRS), str(out)],
        "layers": lambda out: [sys.executable, "-c", LAYERS, str(out)],
    }  # fmt: skip
    for training in ("standard", "pgd", "fgsm", "trades"):
        works[f"images-{training}"] = lambda out, training=training: command(
            "images", "train", "--set", *IMAGES, f"training={training}", "--out", out)  # fmt: skip
    seconds = {}
    for name, work in works.items():
        begin = time.perf_counter()
        finish(work(place / name))
        seconds[name] = time.perf_counter() - begin
    return place, works, seconds


KINDS = [(name, trial) for name in ("reproduce", "sweep", "robustness", "train", "layers") for trial in range(8)]
KINDS += [(f"images-{name}", trial) for name in ("standard", "pgd", "fgsm", "trades") for trial in range(4)]


@pytest.mark.parametrize(("name", "trial"), KINDS)
def test_a_killed_command_continues_to_the_same_files(name, trial, undisturbed, tmp_path):
    """Killed three times, at any moments, with all of its processes; then once more to the end."""
    place, works, seconds = undisturbed
    rng = np.random.default_rng([trial, *name.encode()])
    for wait in rng.uniform(0.2, 1.0, 3) * seconds[name]:
        process = subprocess.Popen(works[name](tmp_path / "out"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env=environment(), start_new_session=True)  # fmt: skip
        time.sleep(wait)
        with_all = os.getpgid(process.pid) if process.poll() is None else None
        if with_all is not None:
            os.killpg(with_all, signal.SIGKILL)
        process.wait()
    finish(works[name](tmp_path / "out"))
    assert content(tmp_path / "out") == content(place / name)
    left = [path for path in (tmp_path / "out").rglob(".*") if path.name != ".lock"]
    assert left == []


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """An undisturbed experiment's content, and how long its stages took."""
    out = tmp_path_factory.mktemp("experiment") / "out"
    done = subprocess.run([sys.executable, "-c", STAGES, out, "none", "0", "1"], capture_output=True, text=True,
                          env=environment(), check=True)  # fmt: skip
    stages = ("training", "representatives", "answers", "attacks")
    return content(out), dict(zip(stages, map(float, done.stdout.split())))


@pytest.mark.parametrize("trial", range(10))
def test_an_experiment_killed_in_each_stage_continues_to_the_same_files(trial, experiment, tmp_path):
    wanted, seconds = experiment
    rng = np.random.default_rng(trial)
    for stage in seconds:
        wait, ended = rng.uniform(0, 0.9) * seconds[stage], 0
        while ended == 0:  # earlier and earlier, where all was done before
            done = subprocess.run([sys.executable, "-c", STAGES, tmp_path / "out", stage, str(wait), "1"],
                                  capture_output=True, env=environment(), check=False)  # fmt: skip
            wait, ended = wait / 2, done.returncode
            if ended == 0:
                shutil.rmtree(tmp_path / "out")
        assert ended == -signal.SIGKILL
    finish([sys.executable, "-c", STAGES, str(tmp_path / "out"), "none", "0", "1"])
    assert content(tmp_path / "out") == wanted


@pytest.mark.parametrize("trial", range(10))
def test_an_experiment_by_two_workers_killed_at_any_moment_continues_to_the_same_files(trial, experiment, tmp_path):
    wanted, seconds = experiment
    rng = np.random.default_rng(trial)
    for _ in range(3):
        wait = str(rng.uniform(0, 0.6) * sum(seconds.values()))
        subprocess.run([sys.executable, "-c", STAGES, tmp_path / "out", "any", wait, "2"], capture_output=True,
                       env=environment(), check=False)  # fmt: skip
        time.sleep(2)  # workers end soon after the one that they worked for, and hold their folders until then
    finish([sys.executable, "-c", STAGES, str(tmp_path / "out"), "none", "0", "2"])
    assert content(tmp_path / "out") == wanted


@pytest.mark.parametrize("trial", range(20))
def test_two_writers_never_mix(trial, tmp_path):
    """Two configurations into one folder at once: one of them has it, whole, and the other is refused by name."""
    out, both, at = tmp_path / "out", [], time.time() + 6
    late = np.random.default_rng(trial).uniform(0, 0.02)
    for alpha, begin in ((2.5, at), (3.5, at + late)):
        arguments = command("reproduce", "--seeds", 1, "--set", *PAIRS, f"alpha={alpha}", "--out", out)[3:]
        both.append(subprocess.Popen([sys.executable, "-c", AT_ONCE, str(begin), *arguments], text=True,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment()))  # fmt: skip
    said = [process.communicate()[1] for process in both]
    ended = [process.returncode for process in both]
    assert sorted(ended) == [0, 2], said
    assert any(text in said[ended.index(2)] for text in ("another process is writing here", "holds another run"))
    mine = (2.5, 3.5)[ended.index(0)]
    assert json.loads((out / "config.json").read_text())["config"]["alpha"] == mine
    alone = tmp_path / "alone"
    finish(command("reproduce", "--seeds", 1, "--set", *PAIRS, f"alpha={mine}", "--out", alone))
    assert content(out) == content(alone)
    shutil.rmtree(out)

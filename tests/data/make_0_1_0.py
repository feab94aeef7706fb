"""Makes tests/data/0.1.0, the files that version 0.1.0 writes: run once with that version (commit 93f6fb5) installed.

    python tests/data/make_0_1_0.py FOLDER

Later versions load, continue and plot them (tests/test_version_0_1_0.py); nothing in the folder is ever made again.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

import advfeat as af
from advfeat.experiments import figure3 as experiment
from advfeat.experiments.configuration import Figure3Config

SMALL = {
    "n_classes": 3, "n_neurons": 3, "patch_dim": 8, "n_patches": 6, "n_train": 9, "n_test": 8, "n_iter": 400,
    "n_records": 4, "n_seeds": 2, "rho": 10.0, "init_std": 0.3, "lr": 2.0, "ascent_lr": 4.0, "eps_test": 0.85,
    "pgd_steps": 5, "dtype": "float64",
}  # fmt: skip
SPEC = """[sweep]
engine = "both"
training = ["standard", "adversarial"]
metrics = ["A", "B", "robust_wins", "loss", "test_accuracy", "robust_accuracy", "certified_accuracy", "take_off_B",
           "phase_two", "deviation", "same_winners"]

[base]
n_classes = 3
n_neurons = 3
patch_dim = 8
n_patches = 6
n_train = 9
n_test = 8
n_iter = 200
n_records = 4
n_seeds = 2
rho = 10.0
init_std = 0.3
lr = 2.0
ascent_lr = 4.0
pgd_steps = 5
dtype = "float64"

[axes]
alpha = [2.0, 3.0]
eps_test = [0.3, 0.85]

[[plot]]
x = "alpha"
y = "eps_test"
metric = "certified_accuracy"
training = "standard"
"""


def advfeat(*args):
    subprocess.run([sys.executable, "-m", "advfeat", *map(str, args)], check=True)


def stop_at(iteration):
    """A progress callback that stops the training as Ctrl-C does."""

    def progress(*args):
        if args[-1] >= iteration:
            os.kill(os.getpid(), signal.SIGINT)

    return progress


def half(function):
    try:
        function()
    except af.TrainingInterrupted as stop:
        print(f"stopped at iteration {stop.iteration}")
    else:
        raise SystemExit("not stopped in time")


def main(out):
    assert af.__version__ == "0.1.0"
    out.mkdir(parents=True)
    pairs = [f"{name}={value}" for name, value in SMALL.items()]
    advfeat("reproduce", "--set", *pairs, "--out", out / "run")
    advfeat("robustness", out / "run", "--eps-grid", "0.2:1:3", "--samples", 8, "--max-nodes", 8, "--rtol", 0.1)
    config = Figure3Config(**SMALL)
    half(lambda: experiment.run(config, out / "half-run", progress=stop_at(150)))
    data, test = config.data("train"), config.data("test")
    training, net = config.training(adversarial=True), config.network()
    done = af.train(net, data, training, test, run_dir=out / "training")
    half(lambda: af.train(net, data, training, test, run_dir=out / "half-training", progress=stop_at(150)))
    done.net.save(out / "network.npz")
    test_margin = done.net.margin(test.X, test.y)
    np.savez(out / "margins.npz", X=test.X, y=test.y, margin=test_margin)
    (out / "spec.toml").write_text(SPEC)
    advfeat("sweep", out / "spec.toml", "--out", out / "sweep", "--jobs", 1)
    advfeat("validate", "--quick", "--only", "D.5", "B.1", "--out", out / "ledger")
    for large in (*out.rglob("*.png"), *out.rglob("*.pdf"), *out.rglob("*.html"), *out.rglob("*.svg")):
        large.unlink()  # pictures and pages are drawn anew from what is kept


if __name__ == "__main__":
    main(Path(sys.argv[1]))

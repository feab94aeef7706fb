"""`advfeat robustness`: killed at any step it continues to the same bits; what it keeps, refuses and removes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from cli_runs import ROOT, TINY, content

from advfeat.cli import main, robustness
from advfeat.core import memory, store
from advfeat.experiments import figure3 as experiment
from advfeat.experiments.configuration import Figure3Config
from advfeat.reporting.robustness_page import FILES
from advfeat.robustness import curves
from advfeat.robustness.evaluate import Evaluation

OPTIONS = ["--eps-grid", "0.1:0.9:5", "--samples", "4", "--max-nodes", "8", "--rtol", "0.1"]
STEPS = 2 * (5 + 6)
# ends itself before or after the file of a step is written, or between its two names
KILLED = textwrap.dedent("""
    import os, signal, sys
    from advfeat.cli import main, robustness
    from advfeat.core import store
    left, where = int(sys.argv[1]), sys.argv[2]
    save, replace = robustness.CurvesFile.save, os.replace
    def end():
        os.kill(os.getpid(), signal.SIGKILL)
    def hooked(self, step, arrays):
        global left
        left -= 1
        if left == 0 and where == "before": end()
        if left == 0 and where == "between": os.replace = lambda *_: end()
        save(self, step, arrays)
        if left == 0 and where == "after": end()
    robustness.CurvesFile.save = hooked
    sys.exit(main(sys.argv[3:]))
""")


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("robustness") / "out"
    assert main(["robustness", str(folder), *OPTIONS, "--out", str(out)]) == 0
    return out


@pytest.fixture
def finished(undisturbed, tmp_path):
    return shutil.copytree(undisturbed, tmp_path / "out")


@pytest.fixture
def steps(monkeypatch):
    """The networks' files whose steps are saved, as they are done."""
    done, save = [], robustness.CurvesFile.save
    monkeypatch.setattr(
        robustness.CurvesFile, "save", lambda self, *rest: done.append(self.path.name) or save(self, *rest)
    )
    return done


def same(out, other):
    """Nothing but the answer is there, and it is the other's, bit for bit."""
    mine, theirs = content(out), content(other)
    assert {str(name) for name in mine} == {str(name) for name in theirs} == set(FILES)
    found, known = store.load_npz(out / "robustness.npz"), store.load_npz(other / "robustness.npz")
    assert found.keys() == known.keys()
    for name, values in known.items():
        assert (found[name].dtype, found[name].tobytes()) == (values.dtype, values.tobytes()), name
    assert {name for name in mine if mine[name] != theirs[name]} <= {Path("robustness.npz")}  # a zip holds times


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.slow  # the steps themselves are continued below
def test_five_kills_change_no_bit(folder, undisturbed, tmp_path):
    rng, out = np.random.default_rng(18), tmp_path / "out"
    for where in rng.permutation(["before", "after", "between", "before", "between"]):
        arguments = [str(rng.integers(1, 5)), where, "robustness", str(folder), *OPTIONS, "--out", str(out)]
        done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, capture_output=True,
                              env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
        assert done.returncode == -signal.SIGKILL
        assert not (out / "robustness.npz").exists()
    assert main(["robustness", str(folder), *OPTIONS, "--out", str(out)]) == 0
    same(out, undisturbed)


def test_ctrl_c_keeps_what_is_done(folder, undisturbed, tmp_path, capsys, monkeypatch, steps):
    """Stopped at the second network: the first is not done again, and the second goes on where it was."""
    out, radius = tmp_path / "out", curves._radius

    def stop(*arguments):
        if len(steps) == STEPS // 2 + 3:
            raise KeyboardInterrupt
        radius(*arguments)

    monkeypatch.setattr(curves, "_radius", stop)
    assert main(["robustness", str(folder), *OPTIONS, "--out", str(out)]) == 130
    said = capsys.readouterr().err
    assert said == f"advfeat robustness: stopped; the same command continues from {out}\n"
    assert {path.name for path in out.iterdir()} == {"standard.state.npz", "adversarial.state.npz"}
    monkeypatch.setattr(curves, "_radius", radius)
    assert main(["robustness", str(folder), *OPTIONS, "--out", str(out)]) == 0
    assert len(steps) == STEPS
    assert steps == ["standard.state.npz"] * (STEPS // 2) + ["adversarial.state.npz"] * (STEPS // 2)
    same(out, undisturbed)


def test_a_finished_answer_is_shown_not_done_again(folder, finished, capsys, steps):
    before, said = content(finished), []
    for options in ([], ["--json"], ["--force"]):
        assert main(["robustness", str(folder), *OPTIONS, "--out", str(finished), *options]) == 0
        said.append(re.sub("^Memory: .*\n", "", capsys.readouterr().out))
        if not options:
            assert steps == []
            assert content(finished) == before
    assert len(steps) == STEPS
    assert said[0] == said[2]
    found = json.loads(said[1])
    assert found["networks"] == {
        name: held["seeds"] for name, held in store.load_json(finished / "robustness.json")["networks"].items()
    }
    assert found["eps"] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])


OTHER = {"nodes": ["--max-nodes", "9"], "grid": ["--eps-grid", "0.2"], "samples": ["--samples", "3"],
         "seeds": ["--seeds", "1"]}  # fmt: skip


@pytest.mark.one_in(3)
@pytest.mark.parametrize("other", OTHER)
@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_another_answer_is_refused_unless_forced(other, state, folder, undisturbed, tmp_path, capsys, monkeypatch):
    out, audit, sandwich = tmp_path / "out", curves._audit, None
    if state == "finished":
        shutil.copytree(undisturbed, out)
    else:
        monkeypatch.setattr(curves, "_audit", lambda *_: 1 / 0 if list(out.glob("adv*")) else None)
        with pytest.raises(ZeroDivisionError):
            main(["robustness", str(folder), *OPTIONS, "--out", str(out)])
        (out / "standard.state.npz").unlink()
        monkeypatch.setattr(curves, "_audit", audit)
        monkeypatch.setattr(curves, "sandwich", sandwich := Mock(wraps=curves.sandwich))
    (out / "notes.txt").write_text("mine")
    before = content(out)
    assert main(["robustness", str(folder), *OPTIONS, *OTHER[other], "--out", str(out)]) == 2
    assert "of other networks, samples or options, nothing was changed; --force begins anew" in capsys.readouterr().err
    assert content(out) == before
    assert sandwich is None or not sandwich.called
    if other == "grid":  # the shortest work
        assert main(["robustness", str(folder), *OPTIONS, *OTHER[other], "--out", str(out), "--force"]) == 0
        assert {path.name for path in out.iterdir()} == {*FILES, "notes.txt"}


LARGE = {"samples": ["--samples", "1000000000"]}


@pytest.mark.parametrize("options", LARGE.values(), ids=LARGE)
def test_what_does_not_fit_is_refused_before_any_work(options, folder, finished, capsys):
    before = content(finished)
    assert main(["robustness", str(folder), *options, "--out", str(finished), "--force"]) == 2
    said = capsys.readouterr()
    assert said.out.startswith("Memory: about ")
    assert "GB are free: give fewer --samples or radii" in said.err
    assert content(finished) == before


@pytest.mark.parametrize("n", ["10001", "1000000000", "1000000000000"])
def test_more_radii_than_10000_are_refused_before_they_are_made(n, folder, finished, capsys):
    before = content(finished)
    assert main(["robustness", str(folder), "--eps-grid", f"0.1:1:{n}", "--out", str(finished), "--force"]) == 2
    rule = f"--eps-grid 0.1:1:{n}: must be START:STOP:N or radii, at most 10,000"
    assert rule in capsys.readouterr().err
    assert content(finished) == before


SHAPES = {
    "many patches": ({"n_classes": 3, "n_neurons": 4, "patch_dim": 40, "n_patches": 30}, 50, 2),
    "many samples": ({"n_classes": 3, "n_neurons": 30, "patch_dim": 12, "n_patches": 8}, 400, 2),
    "many radii": ({"n_classes": 3, "n_neurons": 4, "patch_dim": 12, "n_patches": 8}, 2, 300),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("fields", "n", "radii"), SHAPES.values(), ids=SHAPES)
def test_the_memory_is_enough(fields, n, radii):
    """What Python and NumPy ask for; compiled functions ask for little of their own."""
    config = Figure3Config(**fields, n_train=6, n_test=4, n_seeds=2)
    net, eps = config.network(), np.linspace(0.001, 0.002, radii) if radii > 2 else np.array([0.1, 1.0])

    def work():
        seeds, data = experiment.samples_of(config, n)
        options = {"ascent_lr": 40.0, "n_steps": 3, "max_nodes": 4, "rtol": 0.2, "rng": seeds}
        return curves.sandwich(net, data, eps, **options).robust_accuracy(), data.X.shape

    work()  # compiles
    tracemalloc.start()
    _, shape = work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= curves.memory_of(shape, radii) <= 5 * peak


def test_it_works_where_memory_is_just_enough(folder, tmp_path, monkeypatch):
    needed = curves.memory_of((2, 4, 8, 12), 5, 2)
    monkeypatch.setattr(memory, "available", lambda: needed)
    assert main(["robustness", str(folder), *OPTIONS, "--out", str(tmp_path / "a")]) == 0
    monkeypatch.setattr(memory, "available", lambda: needed - 1)
    assert main(["robustness", str(folder), *OPTIONS, "--out", str(tmp_path / "b")]) == 2
    assert not (tmp_path / "b").exists()


class Kept:
    """A state in memory, which ends the work after some steps."""

    def __init__(self, most):
        self.most, self.held = most, None

    def load(self):
        return self.held

    def save(self, step, arrays):
        self.held = step, {name: a.copy() for name, a in arrays.items()}
        if step == self.most:
            raise KeyboardInterrupt


def test_every_step_continues_to_the_same_bits():
    config = Figure3Config.build(None, TINY[3:], n_seeds=2)
    net, data = config.network(), experiment.samples_of(config, 5)[1]
    options = {"ascent_lr": config.ascent_lr, "n_steps": 4, "max_nodes": 8, "rtol": 0.1, "rng": [0, 1]}
    eps = [0.02, 0.05, 0.3]
    known, labels = curves.sandwich(net, data, eps, **options), []
    for most in range(1, len(eps) + 7):
        state = Kept(most)
        with pytest.raises(KeyboardInterrupt):
            curves.sandwich(net, data, eps, state=state, **options)
        assert state.held[0] == most
        state.most = None
        found = curves.sandwich(net, data, eps, state=state, progress=lambda *said: labels.append(said), **options)
        for name in ("correct", "certified", "broken", "interval", "X_adv", "found_by"):
            assert getattr(found, name).tobytes() == getattr(known, name).tobytes(), (most, name)
        assert list(found.alone) == list(known.alone)
        assert all(found.alone[name].tobytes() == a.tobytes() for name, a in known.alone.items())
    assert len(labels) == (len(eps) + 6) ** 2


def test_an_evaluation_s_arrays_are_its_own_after_restoring():
    config = Figure3Config.build(None, TINY[3:], n_seeds=2)
    net, data = config.network(), experiment.samples_of(config, 5)[1]
    first, second = (Evaluation(net, data, rng=[0, 1]) for _ in range(2))
    first.attack(0.3, curves.curve_attacks()[0])
    arrays = first.arrays()
    second.restore(arrays)
    second.broken[:] = -1
    assert (first.broken >= 0).all()

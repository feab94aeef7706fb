"""sweep.json, results.parquet and figures/index.json: bound to each other, and named where they are damaged."""

import copy as copying
import json
import signal
import subprocess
import sys

import pytest
from single_bits import errors
from sweep_examples import plateaus, sobol
from sweep_folders import folder
from sweep_specs import spec

from advfeat.core import store
from advfeat.core.lock import Lock
from advfeat.sweeps import archive, plan, sweep
from advfeat.sweeps import driver as drivers
from advfeat.sweeps.gallery import plot
from advfeat.sweeps.results import load
from advfeat.sweeps.spec import SweepSpec

ONE = {"jobs": 1, "largest_batch": 1}


def text_of(path):
    """All that a finished sweep says, as text."""
    found = load(path)
    values = [found.values(*key).tobytes() for key in sorted(found.measured)]
    points = {name: column.tolist() for name, column in found.points.items()}
    return repr([found.spec, found.n_points, found.skipped, found.environment, found.seeds, points, values])


# ------------------------------------------------------------------ single bits
@pytest.mark.parametrize("name", ["results.parquet", "sweep.json"])
def test_no_flipped_bit_of_a_finished_sweep_is_silent(name, tmp_path):
    sobol(tmp_path, 8)
    said = errors(tmp_path / name, lambda: text_of(tmp_path), 300)
    assert len(said) > 290
    assert all(str(tmp_path / name) in one for one in said)


def test_no_flipped_bit_of_a_batch_is_silent(tmp_path):
    sweep(spec({"alpha": [1.0, 2.0]}), tmp_path, jobs=1, largest_batch=2)
    path = min((tmp_path / "batches").iterdir())
    said = errors(path, lambda: {name: a.tobytes() for name, a in archive._read(path).items()}, 300)
    assert len(said) > 200  # the others: time stamps and the like
    assert all(str(path) in one for one in said)


def test_no_flipped_bit_of_the_gallery_is_silent(tmp_path):
    plateaus(tmp_path)
    plot(tmp_path, [{"x": "ascent_lr", "metric": "B", "facet": "eps"}])

    def page():
        plot(tmp_path, [])
        return (tmp_path / "index.html").read_text()

    said = errors(tmp_path / "figures" / "index.json", page, 300)
    assert len(said) > 290
    assert all("index.json" in one for one in said)


# ------------------------------------------------------------------ a table and its sweep.json
def test_a_table_of_another_spec_is_refused(tmp_path):
    """As a copy that mixes two folders makes it."""
    sweep(spec(), tmp_path / "a", **ONE)
    sweep(spec(base={"lr": 3.0}), tmp_path / "b", **ONE)
    load(tmp_path / "b")
    (tmp_path / "b" / "results.parquet").write_bytes((tmp_path / "a" / "results.parquet").read_bytes())
    with pytest.raises(store.CheckpointError, match=r"results\.parquet: damaged, or not the table that sweep.json"):
        load(tmp_path / "b")


def test_a_sweep_is_finished_when_sweep_json_says_so(tmp_path, monkeypatch):
    """Stopped between the table and sweep.json, or before: not finished, and the same call ends it."""
    saved, written = store.save_json, []

    def stop(path, value):
        written.append((tmp_path / "results.parquet").exists())
        if len(written) == 2:
            raise KeyboardInterrupt
        saved(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(store, "save_json", stop)
        with pytest.raises(KeyboardInterrupt):
            sweep(spec(), tmp_path, **ONE)
    assert written == [False, True]
    with pytest.raises(FileNotFoundError, match="the sweep is not finished"):
        load(tmp_path)
    sweep(spec(), tmp_path, **ONE)
    assert load(tmp_path).n_points == 5


def test_a_table_left_by_an_earlier_spec_is_never_read(tmp_path, monkeypatch):
    sweep(spec(), tmp_path, **ONE)

    def stop(self, planned):
        raise KeyboardInterrupt

    monkeypatch.setattr(drivers.Archive, "write_table", stop)
    with pytest.raises(KeyboardInterrupt):
        sweep(spec(base={"lr": 3.0}), tmp_path, **ONE)
    with pytest.raises(FileNotFoundError, match="the sweep is not finished"):
        load(tmp_path)


# ------------------------------------------------------------------ damaged or foreign
DAMAGES = [
    (lambda h: h.pop("spec"), "spec is missing"), (lambda h: h.update(spec=[]), "spec = "),
    (lambda h: h["spec"].pop("axes"), "spec.axes is missing"), (lambda h: h.pop("points"), "points is missing"),
    (lambda h: h.pop("skipped"), "skipped is missing"), (lambda h: h.pop("environment"), "environment is missing"),
    (lambda h: h.update(environment={"numpy": [1]}), "environment.numpy = "),
    (lambda h: h.update(points="6"), "points = '6'"),
    (lambda h: h.update(points=7), "points = 7"), (lambda h: h.update(points=10**12), "points = 1000000000000"),
    (lambda h: h.update(points=True), "points = True"), (lambda h: h.update(skipped=[1]), "skipped.0 = 1"),
    (lambda h: h.update(skipped=[{"point": 99, "fields": {}, "reason": ""}]), "skipped.0.point = 99"),
    (lambda h: h.update(skipped=[{"point": 0, "fields": {}, "reason": ""}]), "skipped.0.fields.ascent_lr is missing"),
    (lambda h: h["spec"].update(axes={}), "points = 18"), (lambda h: h["spec"].update(axes=[]), "spec.axes = "),
    (lambda h: h["spec"]["axes"].update(eps=[0.5]), "spec.axes.eps = "),
    (lambda h: h["spec"]["axes"].update(eps={}), "spec.axes.eps.values is missing"),
    (lambda h: h["spec"]["axes"].update(eps={"values": 3}), "spec.axes.eps.values = 3"),
    (lambda h: h["spec"]["axes"].update(eps={"values": ["a"]}), "spec.axes.eps.values.0 = 'a'"),
    (lambda h: h["spec"]["axes"].update(eps={"values": []}), "points = 18"),
    (lambda h: h["spec"].update(design="random", n_points=None), "points = 18"),
    (lambda h: h["spec"]["axes"].update(eps={"low": 0.5, "high": 1.0, "scale": "linear"}), "eps.values is missing"),
    (lambda h: h["spec"].update(design=[]), "spec.design = "), (lambda h: h["spec"].update(title=3), "spec.title = 3"),
    (lambda h: h["spec"].update(engine="gpu"), "spec.engine = 'gpu'"),
    (lambda h: h["spec"].update(training="standard"), "spec.training = 'standard'"),
    (lambda h: h["spec"].update(training=[["standard"]]), "spec.training.0"),
    (lambda h: h["spec"].update(metrics=[3]), "spec.metrics.0"), (lambda h: h["spec"].update(plots={}), "spec.plots"),
    (lambda h: h["spec"].update(plots=[{"x": "eps"}]), "spec.plots.0.metric is missing"),
    (lambda h: h["spec"].update(plots=[{"metric": "B", "x": ["eps"]}]), "spec.plots.0.x"),
    (lambda h: h["spec"].update(plots=[{"metric": "B", "x": "eps", "at": 3}]), "spec.plots.0.at"),
    (lambda h: h["spec"].update(base=[]), "spec.base = "),
    (lambda h: h["spec"]["base"].pop("n_seeds"), "spec.base.n_seeds is missing"),
    (lambda h: h["spec"]["base"].update(n_iter="many"), "spec.base.n_iter = 'many'"),
    (lambda h: h["spec"]["base"].update(alpha=[3]), "spec.base.alpha"), (lambda h: h.clear(), "spec is missing"),
    (lambda h: h["spec"]["base"].update(first_seed=None), "spec.base.first_seed = None"),
]  # fmt: skip


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A finished sweep with two figures, and the contents of its sweep.json and index.json."""
    path = tmp_path_factory.mktemp("drawn")
    plateaus(path)
    plot(path, [{"x": "ascent_lr", "metric": "B", "facet": "eps"}])
    return path, store.load_json(path / "sweep.json"), store.load_json(path / "figures" / "index.json")


@pytest.mark.parametrize("format", ["advfeat-1", "advfeat-2"])
@pytest.mark.parametrize(("damage", "says"), DAMAGES)
def test_sweep_json_that_cannot_be(damage, says, format, drawn):
    path, head, _ = drawn
    damaged = copying.deepcopy(head)
    damage(damaged)
    _save(path / "sweep.json", damaged, format)
    try:
        with pytest.raises(store.CheckpointError, match=rf"sweep\.json: .*({says})"):
            plot(path)
    finally:
        store.save_json(path / "sweep.json", head)


def _save(path, value, format):
    store.save_json(path, value)
    if format != store.FORMAT:
        path.write_text(json.dumps({"format": format, **value}))


@pytest.mark.parametrize("format", ["advfeat-1", "advfeat-2"])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda h: h.pop("figures"), "figures is missing"), (lambda h: h.update(figures={}), "figures = "),
        (lambda h: h.update(figures=["B"]), "figures.0 = 'B'"),
        (lambda h: h["figures"][0].pop("name"), "figures.0.name is missing"),
        (lambda h: h["figures"][0].update(name=3), "figures.0.name = 3"),
        (lambda h: h["figures"][0].pop("request"), "request is missing"),
        (lambda h: h["figures"][0].update(request="B"), "request = 'B'"),
        (lambda h: h["figures"][0]["request"].pop("metric"), "request.metric is missing"),
        (lambda h: h["figures"][0]["request"].update(x=[1]), "request.x = "),
        (lambda h: h["figures"][0].update(caption=None), "caption = None"),
        (lambda h: h["figures"][0].update(numbers="one"), "numbers = 'one'"),
        (lambda h: h["figures"][0].update(numbers=[1]), "numbers.0 = 1"),
        (lambda h: h["figures"][0].update(table=[["a"]]), "table.2 entries are needed, not 1"),
        (lambda h: h["figures"][0].update(table=[["a"], [1]]), "table.1.0 = 1"),
    ],
)  # fmt: skip
def test_a_list_of_figures_that_cannot_be(damage, says, format, drawn):
    path, _, index = drawn
    damaged, page = copying.deepcopy(index), (path / "index.html").read_bytes()
    damage(damaged)
    _save(path / "figures" / "index.json", damaged, format)
    try:
        with pytest.raises(store.CheckpointError, match=rf"figures/index\.json: .*{says}"):
            plot(path, [])
    finally:
        store.save_json(path / "figures" / "index.json", index)
    assert (path / "index.html").read_bytes() == page


def test_a_sweep_of_a_newer_version(tmp_path):
    plateaus(tmp_path)
    text = (tmp_path / "sweep.json").read_text()
    (tmp_path / "sweep.json").write_text(text.replace("advfeat-2", "advfeat-12"))
    with pytest.raises(store.CheckpointError, match=r"sweep.json: was written by a newer advfeat \(format advfeat-12"):
        load(tmp_path)


def test_a_table_of_0_1_0_that_is_damaged(tmp_path):
    """It has no digest: what PyArrow cannot read is named, whenever it is found."""
    folder(tmp_path, {"alpha": [1.0, 2.0]}, lambda f, seed: {("A", "adversarial", "network", None): f["alpha"]})
    head = store.load_json(tmp_path / "sweep.json")
    del head["results_sha256"]
    _save(tmp_path / "sweep.json", head, "advfeat-1")
    held = text_of(tmp_path)
    raw = bytearray((tmp_path / "results.parquet").read_bytes())
    raw[4 : len(raw) // 3] = bytes(len(raw) // 3 - 4)
    (tmp_path / "results.parquet").write_bytes(raw)
    with pytest.raises(store.CheckpointError, match=r"results\.parquet: truncated or not a Parquet file"):
        text_of(tmp_path)
    assert "2.0" in held


def test_a_key_that_a_base_lacks_has_its_default(tmp_path):
    plateaus(tmp_path)
    head = store.load_json(tmp_path / "sweep.json")
    del head["spec"]["base"]["n_test"]
    store.save_json(tmp_path / "sweep.json", head)
    assert load(tmp_path).field("n_test").tolist() == [50] * head["points"]


def test_a_deep_spec_is_refused(tmp_path):
    (tmp_path / "deep.toml").write_text("[sweep]\ntitle = " + "[" * 5000 + "]" * 5000)
    with pytest.raises(ValueError, match=r"deep\.toml: not a TOML file"):
        SweepSpec.build(tmp_path / "deep.toml")


def test_keys_are_those_of_the_first_format(monkeypatch):
    """What names a result on disk does not know which format today's files have."""
    planned = plan.make(SweepSpec.build(spec()), 1e9, 1)
    first = planned.keys["standard"][0]
    monkeypatch.setattr(store, "FORMAT", "advfeat-9")
    assert plan.make(SweepSpec.build(spec()), 1e9, 1).keys["standard"][0] == first


# ------------------------------------------------------------------ who writes
def test_plot_waits_for_nobody(tmp_path):
    """Where another process writes it is refused, and nothing is drawn."""
    plateaus(tmp_path)
    command = [sys.executable, "-c", "import sys\nfrom advfeat.core.lock import Lock\nwith Lock(sys.argv[1]):\n"
               "    print('held', flush=True); sys.stdin.read()", str(tmp_path)]  # fmt: skip
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(store.CheckpointError, match="another process is writing here"):
        plot(tmp_path)
    assert not (tmp_path / "figures").exists()
    other.communicate("")
    plot(tmp_path)
    assert not list(tmp_path.rglob(".*"))


KILLED = """
import sys, time
from advfeat.core import store
from advfeat.sweeps.gallery import plot
written = store.write
def half(path, body, mode="wb"):
    def stop(file):
        file.write(b"half" if "b" in mode else "half")
        file.flush()
        print("half", flush=True)
        time.sleep(600)
    written(path, stop, mode)
store.write = half
plot(sys.argv[1], [{"x": "ascent_lr", "metric": "B", "facet": "eps"}])
"""


def test_a_plot_that_is_killed_while_it_saves(tmp_path):
    plateaus(tmp_path)
    other = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "half\n"
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert {path.name.split(".")[-2] for path in tmp_path.rglob(".*.png.*")} == {"png"}
    plot(tmp_path)
    assert not list(tmp_path.rglob(".*"))


def test_readers_need_no_lock(tmp_path):
    plateaus(tmp_path)
    with Lock(tmp_path):
        assert load(tmp_path).n_points

"""The study of the order: kin that share a beginning, readings of one descent, cells kept one by one, claims."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_image_representatives import TINY, tiny

from advfeat.cli import main
from advfeat.core import store
from advfeat.experiments import forecast, images, study
from advfeat.experiments.feature_learning import Share
from advfeat.experiments.image_configuration import ImageConfig
from advfeat.experiments.study import Study, StudyPlan, contrast, contrasts
from advfeat.images import ConvNet
from advfeat.images.inversion import Inversion, invert, readings
from advfeat.reporting import study_page as page

PLAN = """
[base]
{base}

[cross]
kinship = ["itself", "kin-epoch", "kin", "stranger"]
starts = ["image", "noise"]
steps = [3, 8]

[factors]
radius = [0.5]
part = ["train"]
"""


def plan_file(folder, text=PLAN, **changes):
    base = TINY | {"n_seeds": 3} | changes
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in base.items())
    path = folder / "tiny.toml"
    path.write_text(text.format(base=lines))
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    one = Study(StudyPlan.read(plan_file(folder)), folder / "work", folder / "tiny")
    one.run()
    return one


# ------------------------------------------------------------------ kin that share a beginning
def test_order_from_needs_another_order():
    with pytest.raises(ValueError, match=r"order_from = 2.0: only with order_seed"):
        ImageConfig(order_from=2.0)


def test_kin_share_the_epochs_that_they_should(tmp_path):
    config = tiny(epochs=4)
    weights = {}
    for kind in ("own", "kin-epoch", "kin-half", "kin"):
        for arm in ("standard", "adversarial"):
            folder = tmp_path / f"{arm}-{kind}"
            images.run(config.of_training(arm, 1, kind), folder)
            per_epoch = int(sorted(int(path.stem) for path in (folder / "weights").iterdir())[1])
            weights[arm, kind] = [images.at(folder, epoch * per_epoch).fingerprint() for epoch in range(5)]
    for arm in ("standard", "adversarial"):
        for kind, shared in (("kin", 0), ("kin-epoch", 1), ("kin-half", 2)):
            same = [a == b for a, b in zip(weights[arm, "own"], weights[arm, kind])]
            assert same == [epoch <= shared for epoch in range(5)]


# ------------------------------------------------------------------ readings
def test_a_reading_is_what_was_closest_until_then():
    net, rng = ConvNet(6, (1, 8, 8), stages=2, dtype="float64", rng=0), np.random.default_rng(0)
    targets, start = net.representation(rng.random((5, 1, 8, 8))), rng.random((5, 1, 8, 8))
    options = Inversion(n_steps=20, step=0.05, tolerance=1e-9, enough=1e-9)
    held = readings(net, targets, start, options, (4, 20))
    whole = invert(net, targets, [start], options)
    np.testing.assert_array_equal(held[20].X, whole.X)
    assert (held[4].distance > held[20].distance).all()
    assert (held[4].steps <= 4).all()
    size = np.linalg.norm(targets, axis=1)
    for found in held.values():
        np.testing.assert_allclose(np.linalg.norm(net.representation(found.X) - targets, axis=1) / size, found.distance,
                                   rtol=1e-9)  # fmt: skip


def test_readings_after_all_have_converged_are_the_last_ones():
    net, rng = ConvNet(6, (1, 8, 8), stages=2, dtype="float64", rng=0), np.random.default_rng(0)
    start = rng.random((3, 1, 8, 8))
    held = readings(net, net.representation(start), start, Inversion(n_steps=9), (5, 9))
    np.testing.assert_array_equal(held[5].X, start)
    np.testing.assert_array_equal(held[9].distance, 0)


# ------------------------------------------------------------------ cells
def test_every_cell_has_a_result_and_the_right_pairs(done):
    cells = list(done.plan.cells)
    assert len(cells) == len({cell.name for cell in cells}) == 2 * 4 * 2 + 3 * 3
    for cell in cells:
        found = done.result(cell)
        pairs = [tuple(pair) for pair in found["difference"]["pairs"]]
        strangers = [(a, b) for a in range(3) for b in range(3) if a != b]
        assert pairs == (strangers if cell.kinship == "stranger" else [(0, 0), (1, 1), (2, 2)])
        each = np.subtract(found["D_NR"]["each"], found["D_R"]["each"])
        np.testing.assert_allclose(found["difference"]["each"], each, atol=1e-12)
        assert found["difference"]["low"] <= found["difference"]["value"] <= found["difference"]["high"]
        assert len(found["D_R"]["passed"]) == 3
    early, late = (done.result(next(c for c in cells if c.name == f"cross-noise-kin-{n}")) for n in (3, 8))
    assert late["D_NR"]["median"] <= early["D_NR"]["median"]


def test_results_are_enough_and_nothing_is_done_twice(done, tmp_path, monkeypatch):
    again = Study(done.plan, tmp_path / "elsewhere", done.results)
    monkeypatch.setattr(study.RecipeWork, "of", None)
    again.run()
    assert contrasts(again) == contrasts(done)
    assert not (tmp_path / "elsewhere" / "networks").exists()
    assert forecast.of_study(again) == []


def test_results_that_come_with_the_examples_are_of_their_studies():
    folder, seen = Path(__file__).parents[2] / "examples" / "images", 0
    for file in sorted(folder.glob("*.toml")):
        one = Study(StudyPlan.read(file), folder / "nowhere", file.with_suffix(""))
        results = {one.file(cell).name: one.result(cell) for cell in one.plan.cells}
        held = {path.name for path in one.results.glob("*.json")}
        assert held == {name for name, found in results.items() if found is not None}
        seen += len(held)
    assert seen >= 36


def test_networks_and_representatives_that_are_there_are_taken(done, tmp_path, monkeypatch):
    for where, name in ((study.images, "run"), (study, "represent"), (study, "readings")):
        monkeypatch.setattr(where, name, None)
    again = Study(done.plan, done.path, tmp_path / "results")
    again.run()
    assert contrasts(again) == contrasts(done)


def test_workers_come_to_the_same_results(done, tmp_path, monkeypatch):
    other = Study(done.plan, tmp_path / "work", tmp_path / "results")
    told = []
    other.run(lambda what, share: told.append((what, share)), jobs=2)
    assert ("6 trainings, default", 1.0) not in told  # trained for the cross already
    assert ("6 sets, default", 1.0) in told
    assert contrasts(other) == contrasts(done)


def test_a_plan_counts_what_is_left(done, tmp_path):
    fresh = Study(done.plan, tmp_path / "work", tmp_path / "results")
    rows = forecast.of_study(fresh)
    kinds = 2 * 3 + 2 * 3  # own of both kinds, standard kin and kin-epoch
    assert [row["stage"] for row in rows] == [
        f"cross-image: {kinds} trainings, 6 sets of representatives",
        "cross-noise: 0 trainings, 6 sets of representatives", "default: 0 trainings, 6 sets of representatives",
        "radius-0.5: 0 trainings, 6 sets of representatives", "part-train: 0 trainings, 6 sets of representatives",
    ]  # fmt: skip
    assert all(0 < row["least"] < row["most"] and row["memory"] > 0 for row in rows)
    there = Study(done.plan, done.path, tmp_path / "results")
    assert [row["stage"].partition(": ")[2] for row in forecast.of_study(there)] == [
        "0 trainings, 0 sets of representatives"] * 5  # fmt: skip


def test_results_of_another_study_are_left_alone(done, tmp_path):
    other = Study(StudyPlan.read(plan_file(tmp_path, bootstrap=150)), tmp_path / "work", done.results)
    assert other.result(next(other.plan.cells)) is None
    before = {path: path.read_bytes() for path in done.results.glob("*.json")}
    with pytest.raises(store.CheckpointError, match="is of another study, nothing was changed"):
        other.run()
    assert {path: path.read_bytes() for path in done.results.glob("*.json")} == before
    assert not (tmp_path / "work" / "networks").exists()


def test_the_reference_itself_is_the_checkpoint_that_is_the_reference(tmp_path):
    plan = StudyPlan.read(plan_file(tmp_path, "[base]\n{base}\n", reference="best", epochs=6, lr=0.6, n_seeds=2))
    one = Study(plan, tmp_path / "work", tmp_path / "results")
    one.run()
    work = study.RecipeWork(one, next(plan.recipes), [])
    found = one.result(next(cell for cell in plan.cells if cell.kinship == "itself"))
    last = [work.net(study.NetworkKey("standard", seed)).fingerprint() for seed in (0, 1)]
    assert last != [work.net(study.NetworkKey("standard", seed), "best").fingerprint() for seed in (0, 1)]
    for seed in (0, 1):
        held = work.sets["standard", seed][None]
        best = work.net(study.NetworkKey("standard", seed), "best")
        assert found["D_NR"]["each"][seed] == pytest.approx((best.logits(held.X).argmax(axis=1) == held.y).mean())


def test_stopped_it_continues_to_the_same_results(done, tmp_path):
    other, hits = Study(done.plan, tmp_path / "work", tmp_path / "results"), 0

    def stop(what, share):
        nonlocal hits
        hits += what.startswith("representatives cross-noise-adversarial-1")
        if hits == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        other.run(stop)
    finished = [cell.name for cell in other.plan.cells if other.result(cell) is not None]
    assert finished
    assert all(name.startswith("cross-image") for name in finished)
    other.run()
    for cell in done.plan.cells:
        assert other.result(cell) == done.result(cell)


# ------------------------------------------------------------------ claims
def cell(each, over_images=0.0):
    share = Share([(s, s) for s in range(len(each))], np.array(each), 10, np.zeros(2), -1.0)
    return {"difference": study._told(share) | {"over_images": over_images}}


def test_a_contrast_has_the_interval_of_paired_seeds():
    one, other = cell([0.5, 0.7, 0.3, 0.9]), cell([0.1, 0.4, -0.1, 0.2])
    found = contrast(one, other)
    paired = np.array([0.4, 0.3, 0.4, 0.7])
    half = 3.182446 * paired.std(ddof=1) / 2  # Student's t of 3 degrees
    assert found["value"] == pytest.approx(paired.mean())
    assert (found["low"], found["high"]) == (pytest.approx(paired.mean() - half), pytest.approx(paired.mean() + half))
    assert contrast(one, cell([0.5, 0.7, 0.3]))["low"] is None  # of other seeds
    wider = contrast(cell([0.5, 0.7, 0.3, 0.9], 0.3), cell([0.1, 0.4, -0.1, 0.2], 0.4))
    assert wider["high"] - wider["value"] == pytest.approx(np.hypot(half, 1.959964 * 0.5))


def test_claims_name_what_they_compare(done):
    rows = contrasts(done)
    assert len(rows) == 2 * (3 + 4) + 4 + 3 + 2 * 3
    by_name = {(row["claim"], row["where"]): row for row in rows}
    cells = {cell.name: done.result(cell)["difference"]["value"] for cell in done.plan.cells}
    for claim, where, one, other in (
        ("kin over stranger", "image, 8 steps", "cross-image-kin-8", "cross-image-stranger-8"),
        ("3 over 8 steps", "noise, itself", "cross-noise-itself-3", "cross-noise-itself-8"),
        ("noise over image", "kin, 8 steps", "cross-noise-kin-8", "cross-image-kin-8"),
        ("default over one descent", "image, kin", "default-kin", "cross-image-kin-8"),
        ("radius 0.5 over default", "stranger", "radius-0.5-stranger", "default-stranger"),
    ):
        assert by_name[claim, where]["value"] == pytest.approx(cells[one] - cells[other])


# ------------------------------------------------------------------ page, command, refusals
def test_the_page_draws_what_is_missing_as_missing(done, tmp_path):
    some = Study(done.plan, tmp_path / "out", tmp_path / "results")
    store.make_folder(some.results)
    for path in done.results.glob("*image*"):
        (some.results / path.name).write_bytes(path.read_bytes())
    rows = page.cell_rows(some)[1]
    assert sum(row[4] == "not measured" for row in rows) == len(rows) - 8
    report, found = page.write_report(some, "tiny")
    assert "8 of 25 cells are measured" in report.read_text()
    assert (some.path / "study.pdf").stat().st_size > 2000
    assert found["cells"]["cross-noise-kin-3"] is None


def test_command(done, tmp_path, capsys):
    places = ["--results", str(done.results), "--out", str(tmp_path / "out")]
    arguments = ["images", "study", str(plan_file(tmp_path)), *places]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(found["cells"].values())
    assert main([*arguments, "--draw", "--set", "epochs=3"]) == 0
    assert "not measured" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "message"), [
    ("[cross]\n", "'base' is missing"),
    ("[base]\n{base}\n[more]\n", "'more' is unknown"),
    ("[base]\n{base}\n[cross]\nkinship = ['cousin']\n", "kinship = 'cousin': unknown"),
    ("[base]\n{base}\n[cross]\nsteps = [0]\n", "steps = 0: must be an integer >= 1"),
    ("[base]\n{base}\n[cross]\nstart = ['image']\n", "cross = 'start': unknown"),
    ("[base]\n{base}\n[factors]\nwidht = [4]\n", "widht: unknown configuration key"),
    ("[base]\n{base}\n[factors]\nstarts = [['noise']]\n", "starts is none"),
    ("[base]\n{base}\n[factors]\nseed = [7]\n", "seed is none"),
    ("[base]\n{base}\n[factors]\nwidth = 4\n", "must be a list of values"),
    ("[base]\n{base}\n[factors]\nwidth = [0]\n", "width = 0: must be an integer >= 1"),
    ("[base]\n{base}\n[factors]\npart = ['all']\n", "part = 'all': unknown"),
])  # fmt: skip
def test_bad_plans(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        StudyPlan.read(plan_file(tmp_path, text))


def test_one_seed_has_no_strangers(tmp_path):
    with pytest.raises(ValueError, match="n_seeds = 1: a study asks strangers"):
        StudyPlan.read(plan_file(tmp_path, n_seeds=1))

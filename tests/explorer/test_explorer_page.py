"""A tab's page, driven by its document's models: what it answers and draws, whatever is typed and however fast."""

import threading
import tomllib

import numpy as np
import pytest

from advfeat.experiments.configuration import Figure3Config
from advfeat.explorer import curves, derived, network, page
from advfeat.explorer.controls import POINT, Controls

pytest.importorskip("bokeh")
from bokeh.events import Tap
from explorer_page import SMALL, Tab, quick


@pytest.fixture
def tab():
    """open(query) -> a tab; all are closed with the test, and their threads end."""
    opened = []

    def open(query=""):
        opened.append(Tab(query))
        return opened[-1]

    yield open
    for one in opened:
        one.close()


def shown(one):
    """What the figures hold, training by training."""
    return {name: source.data for name, source in one.page.figures.sources.items()}


@pytest.mark.parametrize(
    "changes",
    [{}, {"norm": "l2", "n_robust": "4", "alpha": "2"}, {"q": "4", "rho": "2", "eps": "0.4", "n_seeds": "3"}],
    ids=["first", "l2", "quartic"],
)
def test_the_page_shows_what_simulate_gives(tab, changes):
    one = tab()
    answer = one.answer(**changes)
    controls = Controls.from_texts(one.values)
    config, theory = controls.config(), curves.compute(controls)
    for training, found in theory.items():
        for name, values in curves.columns(found, controls.q).items():
            np.testing.assert_array_equal(shown(one)[training][name], values)
    numbers = derived.derive(config, curves.start(config), theory)
    assert answer["rows"] == [list(row) for row in derived.rows(config, numbers)]
    assert answer["premises"] == [list(row) for row in derived.premises(config, numbers)]
    assert answer["query"] == controls.query()
    assert one.page.figures.plateau.location == config.plateau()
    assert one.page.figures.x.end == controls.n_iter


def test_a_link_restores_the_state_and_a_bad_one_says_why(tab):
    query = Controls(alpha=2.5, n_iter=200, up="q").query()
    one = tab(query)
    one.turn()
    assert one.told()["query"] == query
    assert one.told()["values"]["alpha"] == "2.5"
    assert one.page.document.template_variables["note"] == ""
    bad = tab("alpha=-1")
    bad.turn()
    assert bad.told()["query"] == ""
    assert "alpha = -1: must be a number" in bad.page.document.template_variables["note"]


def test_a_refused_value_is_named_beside_its_control_and_nothing_moves(tab):
    one = tab()
    one.answer()
    before = shown(one)
    answer = one.answer(n_robust="65")
    assert answer["error"] == {"control": "n_robust", "message": "n_robust = 65: must be <= n_patches = 64"}
    assert shown(one) == before
    assert one.page.controls.n_robust == 1
    assert one.answer(n_robust="2")["error"] is None


def random_texts(rng):
    """A control and something that somebody might type there."""
    name = rng.choice([*POINT, "across", "up", "training", "shown"])
    number = rng.choice([0, 1, -1, 0.5, 3, 7, 20, 64, 1e3, 1e-3]) * rng.choice([1, 1, 1, -1, 1e6, 1e-30, 1e300])
    strange = ["", " ", "nan", "inf", "-inf", "1e400", "None", "true", "α", "1,5", "[1]", "{", '"', "0x10", "9" * 5000,
               "1_000", "linf", "l2", "beta", "q", "standard", "plateau_ratio", "<b>", "%00", "'; --"]  # fmt: skip
    return str(name), str(rng.choice(strange)) if rng.random() < 0.3 else f"{number:g}"


def test_200_random_values_break_nothing(tab):
    rng, one = np.random.default_rng(1), tab()
    one.answer()
    refused = accepted = 0
    for _ in range(200):
        name, text = random_texts(rng)
        answer = one.answer(**{name: text})
        if answer["error"] is None:
            accepted += 1
            assert len(answer["rows"]) == 6
        else:
            refused += 1
            assert answer["error"]["message"]
            one.values = dict(SMALL)
        one.page.document.to_json()  # what a browser would be sent
        figures = one.page.figures
        assert np.isfinite([figures.x.end, figures.y["strength"].end, figures.plateau.location]).all()
    assert min(refused, accepted) >= 20
    answer = one.answer(**SMALL)
    assert answer["error"] is None


def test_a_thousand_fast_events_leave_no_queue(tab):
    one = tab()
    one.answer()
    begun = one.page.worker.begun
    for n in range(1000):
        one.set(alpha=f"{1 + n / 500}")
    one.until(lambda: one.told()["number"] == one.number)
    assert one.told()["values"]["alpha"] == f"{1 + 999 / 500}"
    assert one.page.worker.begun - begun <= 3
    assert one.longest <= 1


def test_two_tabs_do_not_see_each_other(tab):
    one, other = tab(), tab()
    one.answer(alpha="2")
    other.answer(alpha="5")
    assert (one.page.controls.alpha, other.page.controls.alpha) == (2, 5)
    mine, theirs = (shown(each)["standard"]["A_strength_middle"] for each in (one, other))
    assert not np.array_equal(mine, theirs)
    one.answer(beta="0.5")
    assert other.page.controls.beta == 1
    assert one.told()["query"] != other.told()["query"]


def test_a_closed_tab_stops_its_work(tab, monkeypatch):
    quick(monkeypatch)
    monkeypatch.setattr(page.diagram, "BATCH_WORK", 1.0)
    one = tab()
    one.answer()
    cells = []
    monkeypatch.setattr(page.diagram, "ends", lambda batch, *rest: cells.append(1) or [0.5] * len(batch))
    one.page.close()
    assert one.page.worker.join(30)
    assert len(cells) <= 1
    assert one.turns.qsize() <= 1  # what was on its way
    while not one.turns.empty():
        one.turn()
    assert one.told("diagram").get("done", 0) < 1


def test_the_diagram_is_drawn_and_moving_on_it_draws_no_other(tab, monkeypatch):
    quick(monkeypatch)
    one = tab()
    one.answer()
    one.until(lambda: one.told("diagram")["done"] == 1)
    picture = one.page.diagram.cells.data["image"][0]
    controls = Controls.from_texts(one.values)
    np.testing.assert_array_equal(picture, list(page.diagram.compute(controls, lambda: True))[-1].values)
    one.answer(alpha="2", n_robust="3")
    assert one.page.diagram.cells.data["image"][0] is picture
    assert one.told("diagram")["done"] == 1
    here = one.page.diagram.here.data
    assert here["x"][0] == page.diagram.DiagramAxis("alpha").position(2)
    assert here["y"][0] == page.diagram.DiagramAxis("n_robust").position(3)
    one.answer(training="standard")
    assert np.isnan(one.page.diagram.cells.data["image"][0]).all()
    one.until(lambda: one.told("diagram")["done"] == 1)


def test_a_click_on_the_diagram_moves_the_sliders(tab):
    one = tab()
    one.answer()
    for number in (1, 2):
        event = Tap(one.page.diagram.plot, x=0.5, y=1.0)
        one.page.document.callbacks.trigger_event(event)
        moved = one.told("moved")
        assert moved["number"] == number  # the same place twice is two clicks
    assert moved["values"] == {"alpha": f"{page.diagram.DiagramAxis('alpha').value(0.5):g}", "n_robust": "32"}
    assert one.answer(**moved["values"])["error"] is None


def test_the_file_is_written_with_its_command(tab):
    one = tab()
    one.answer(alpha="2.5")
    one.press("file")
    told = one.told("file")
    assert told["command"] == "advfeat reproduce --config point.toml"
    assert Figure3Config(**tomllib.loads(told["text"]) | {"batch_size": None}) == one.page.controls.config()


def test_the_network_is_trained_and_laid_over_until_its_point_changes(tab):
    one = tab()
    one.answer()
    one.press("train")
    one.until(lambda: one.told("network")["state"] == "done")
    for name, source in one.page.figures.networks.items():
        scale = np.nanmax(shown(one)[name]["B_strength_middle"])
        theirs, ours = source.data["B_strength"], shown(one)[name]["B_strength_middle"]
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-9 * scale)
    one.answer(eps_test="0.3")  # of which no training knows
    assert one.told("network")["state"] == "done"
    one.answer(alpha="2")
    assert one.told("network")["state"] == "none"
    assert len(one.page.figures.networks["standard"].data["iteration"]) == 0


def test_a_training_stops_with_its_button_and_says_why_it_failed(tab, monkeypatch):
    going, ended = threading.Event(), threading.Event()

    def endless(controls, goes_on, progress):
        going.set()
        while goes_on():
            pass
        ended.set()
        raise network.GivenUp

    one = tab()
    one.answer()
    with monkeypatch.context() as patch:
        patch.setattr(page.network, "curves", endless)
        one.press("train")
        assert going.wait(20)
        one.press("stop")
        assert ended.wait(20)
    assert one.told("network")["state"] == "none"
    one.answer(lr="1e307")
    one.press("train")
    one.until(lambda: one.told("network")["state"] == "failed")
    assert "diverged" in one.told("network")["message"]


def test_what_cannot_be_computed_is_said(tab, monkeypatch):
    one = tab()
    one.answer()

    def fail(*args):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(page.curves, "compute", fail)
        assert one.answer(alpha="2")["error"]["message"] == "there is not enough memory"
    assert one.answer(alpha="2.1")["error"] is None

"""Legends, insets and colour bars: none on a curve, none far from its axis, none that takes room from an axis."""

import numpy as np
import pytest
from figure_layout import bars, covered, well_laid_out

from advfeat.experiments.configuration import Figure3Config
from advfeat.experiments.feature_table import PLACES
from advfeat.reporting import style
from advfeat.reporting.figures import figure2
from advfeat.reporting.representatives_page import transfer_picture
from advfeat.reporting.robustness_figures import robustness_figure
from advfeat.reporting.study_page import COLOURS
from advfeat.robustness.curves import Sandwich


def _figure(labels):
    figure, axis = style.subplots(figsize=(5, 3))
    for n, label in enumerate(labels):
        axis.plot([0, 1], [n, n + 1], label=label)
    return figure, axis


@pytest.mark.parametrize("labels", [["one"], [f"the curve number {n} of many" for n in range(11)], ["long " * 30] * 1])
def test_a_legend_below_covers_nothing_and_takes_no_room(labels):
    plain, axis = _figure(labels)
    plain.draw_without_rendering()
    before = axis.get_window_extent().size / plain.dpi
    figure, axis = _figure(labels)
    held = style.legend_below(figure)
    assert [text.get_text() for text in held.get_texts()] == labels
    assert covered(figure) == []
    assert (axis.get_window_extent().size / figure.dpi)[1] >= 0.98 * before[1]
    if len(labels) > 1:  # as many columns as fit
        assert 1 < held._ncols < len(labels)
        assert held.get_window_extent().width <= figure.bbox.width
    assert style.legend_below(_figure([])[0]) is None


def test_what_covers_a_curve_is_found():
    figure, axis = _figure(["rising"])
    axis.legend(loc="center")
    axis.inset_axes((0.6, 0.6, 0.3, 0.3))
    assert {what.split(" on ")[0] for what in covered(figure)} == {"legend", "inset"}


def _sandwich(falls, intervals, eps=(0.05, 1.2)):
    n, grid = len(falls), np.linspace(*eps, 24)
    falls, intervals = np.array([falls]), np.array([intervals])
    full = {"eps": grid, "norm": "linf", "y": np.zeros((1, n), int), "correct": np.ones((1, n), bool),
            "certified": 0.97 * falls, "broken": falls, "interval": intervals, "found_by": np.full((1, n), "aligned"),
            "X_adv": np.zeros((1, n, 1, 1)), "alone": {"aligned": falls}}  # fmt: skip
    return Sandwich(**full)


@pytest.mark.parametrize(("falls", "intervals", "shown"), [
    (np.linspace(0.34, 0.38, 9), np.linspace(0.25, 0.3, 9), True), (np.linspace(0.9, 1, 9), np.full(9, 0.85), True),
    (np.linspace(0.9, 1, 9), np.full(9, 0.2), False), (np.linspace(0.1, 1.1, 9), np.full(9, 0.05), False),
    (np.linspace(0.6, 0.7, 9), np.full(9, 0.5), False),
])  # fmt: skip
def test_the_enlarged_fall_stands_where_no_curve_is(falls, intervals, shown):
    figure = well_laid_out(robustness_figure({"standard": _sandwich(falls, intervals)}, Figure3Config()))
    assert bool(figure.axes[0].child_axes) == shown


def test_colour_bars_stand_at_their_axes_and_say_what_of():
    data = Figure3Config().data("test", [0])
    one = type(data)(data.X[0], data.y[0], data.robust[0], data.strength[0], data.features)
    well_laid_out(figure2(one, 1.0))
    cells = [{"reference": a[0], "reference_kind": a[1], "learner": b[0], "learner_kind": b[1], "value": 0.5,
              "low": None, "high": None, "converged": True} for a in PLACES for b in PLACES]  # fmt: skip
    figure = well_laid_out(transfer_picture({"transfer": cells}))
    assert [bar["label"] for bar in bars(figure)] == ["feature learning accuracy"]


def test_colours_are_those_that_colour_blind_readers_tell_apart():
    """All colours that mean something are Okabe and Ito's, or grey."""
    okabe_ito = {"#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"}
    used = {style.ROBUST, style.NON_ROBUST, style.ACCURACY, style.PAPER, style.CERTIFIED, *COLOURS.values()}
    assert used - okabe_ito == {style.ACCURACY}
    assert len(set(COLOURS.values())) == len(COLOURS)

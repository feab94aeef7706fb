"""Pictures: layers of six kinds on one pair of axes, labels for a legend, scales, ticks, an inset."""

import numpy as np
import pytest

from advfeat.reporting import pictures
from advfeat.reporting.pictures import Picture
from advfeat.reporting.style import legend_below, subplots

T = np.arange(3.0)


def drawn(*layers, **options):
    figure, axis = subplots(figsize=(4, 3))
    Picture("x", "y", list(layers), **options).draw(axis)
    figure.draw_without_rendering()
    return axis


def texts(axis):
    figure = axis.figure
    return [text.get_text() for text in legend_below(figure).get_texts()]


def test_a_line_for_every_column_and_one_label():
    axis = drawn(pictures.line(T, np.ones((3, 2, 2)), "all"), pictures.line(T, T, "one"), pictures.line(T, -T, "all"))
    assert len(axis.get_lines()) == 6
    assert texts(axis) == ["all", "one"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("x", "y")


@pytest.mark.parametrize(("x", "y"), [(T, T), (T, np.ones((3, 4))), (np.ones((3, 4)), np.ones((3, 4)))])
def test_points_broadcast(x, y):
    held = drawn(pictures.points(x, y)).get_lines()[0]
    assert len(held.get_xdata()) == len(held.get_ydata()) == y.size
    assert (np.reshape(held.get_xdata(), y.shape) == (x if x.ndim == y.ndim else x[:, None])).all()


def test_intervals_bands_marks_and_matrices_are_drawn():
    axis = drawn(pictures.interval(T, T, T - 1, T + 1, "bars"), pictures.band(T, T, T + 1, "strip"))
    assert sorted(texts(axis)) == ["bars", "strip"]
    axis = drawn(pictures.mark(x=1, label="at"), pictures.mark(y=(1, 2), label="within"), pictures.level(0.9))
    assert sorted(texts(axis)) == ["at", "level of the rule", "within"]
    assert axis.get_lines()[0].get_xdata() == [1, 1]
    axis = drawn(pictures.matrix(np.eye(2) + 1e-3, "size", 1e-6, 1))
    assert len(axis.images) == 1
    assert legend_below(axis.figure) is None


def test_scales_limits_ticks_and_an_inset():
    small = Picture("a", "b", [pictures.line(T, T, "inner")])
    axis = drawn(
        pictures.line(T + 1, T + 1), log="x", symlog={"y": 0.5}, ylim=(-1, None),
        ticks={"x": ([1, 2], ["one", "two"])}, inset=((0.5, 0.5, 0.4, 0.4), small),
    )  # fmt: skip
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "symlog")
    assert axis.get_ylim()[0] == -1
    assert [text.get_text() for text in axis.get_xticklabels()] == ["one", "two"]
    assert axis.child_axes[0].get_xlabel() == "a"


def test_groups_of_layers():
    values = np.array([[1.0, 3.0, 2.0], [2.0, 8.0, 4.0]])
    axis = drawn(*pictures.middle([0, 1], values, "median", "k"), *pictures.diagonal(1, 2, "agree", within=0.1))
    assert list(axis.get_lines()[0].get_ydata()) == [2, 4]
    assert sorted(texts(axis)) == ["agree", "median", "±10%"]

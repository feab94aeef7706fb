"""The diagram: its cells are the library's recursion, drawn coarse first, given up at once, with the theory's lines."""

from dataclasses import replace

import numpy as np
import pytest

from advfeat.explorer import curves, diagram
from advfeat.explorer.controls import AXES, SLIDERS, Controls
from advfeat.patches.features import q_sum
from advfeat.theory import density_ratio

SMALL = Controls(n_iter=300, n_classes=3, n_neurons=2, patch_dim=20, n_patches=32, init_std=0.2)


def pictures(controls):
    return list(diagram.compute(controls, lambda: True))


@pytest.mark.parametrize("training", ["standard", "adversarial"])
@pytest.mark.parametrize(("across", "up"), [("alpha", "n_robust"), ("init_std", "n_classes"), ("eps", "beta")])
def test_a_cell_is_the_end_of_its_points_curves(training, across, up):
    controls = replace(SMALL, training=training, across=across, up=up)
    picture = pictures(controls)[-1]
    columns, rows = diagram.DiagramAxis(across).values(), diagram.DiagramAxis(up).values()
    for i, j in ((2, 3), (11, 20), (20, 8)):
        one = replace(controls, n_seeds=2, **{across: columns[j], up: rows[i]})
        found = curves.compute(one)[training]
        A, B = (q_sum(C[-1], one.q) for C in (found.A, found.B))
        assert picture.values[i, j] == pytest.approx(np.median(diagram.robust_share(A, B)), rel=1e-6)


def test_the_share_of_a_class_that_learned_neither_is_a_half():
    A, B = np.array([0.0, 1.0, 0.0, np.nan]), np.array([0.0, 3.0, 2.0, 1.0])
    np.testing.assert_array_equal(diagram.robust_share(A, B), [0.5, 0.25, 0, np.nan])


def test_it_is_drawn_coarse_first_and_every_pass_keeps_what_is_there():
    found = pictures(SMALL)
    assert [p.done for p in found] == pytest.approx([16 / 576, 144 / 576, 1])
    last = found[-1].values
    assert not np.isnan(last).all()
    np.testing.assert_array_equal(found[0].values[3::6, 3::6], last[3::6, 3::6])
    np.testing.assert_array_equal(found[1].values[1::2, 1::2], last[1::2, 1::2])
    assert (found[0].values[:6, :6] == last[3, 3]).all()


def test_it_is_given_up_between_batches(monkeypatch):
    monkeypatch.setattr(diagram, "BATCH_WORK", 1.0)  # a cell a batch
    asked = []

    def going():
        asked.append(1)
        return len(asked) < 20

    assert len(list(diagram.compute(SMALL, going))) == 1  # of 16 cells; the next pass has 128
    assert len(asked) == 20


def test_impossible_cells_are_empty():
    controls = replace(SMALL, across="n_patches", up="n_robust", patch_dim=20, training="standard")
    picture = pictures(controls)[-1].values
    patches, robust = (np.array(diagram.DiagramAxis(name).values()) for name in ("n_patches", "n_robust"))
    impossible = robust[:, None] > patches[None]
    assert impossible.any()
    np.testing.assert_array_equal(np.isnan(picture), impossible)


def test_what_moves_only_the_mark_asks_for_no_new_diagram():
    base = diagram.concerns(SMALL)
    assert diagram.concerns(replace(SMALL, alpha=1.0, n_robust=2, eps_test=0.1, n_seeds=20)) == base
    for change in ({"beta": 0.5}, {"n_seeds": 1}, {"training": "standard"}, {"up": "q"}, {"norm": "l2"}):
        assert diagram.concerns(replace(SMALL, **change)) != base


@pytest.mark.parametrize("name", AXES)
def test_axes_go_over_their_sliders_and_a_click_means_an_allowed_value(name):
    axis, slider = diagram.DiagramAxis(name), SLIDERS[name]
    values = axis.values()
    assert len(values) == diagram.SIDE
    assert values == sorted(values)
    assert slider.low <= values[0]
    assert values[-1] <= slider.high
    assert axis.value(-5.0) == slider.low
    assert axis.value(7.0) == slider.high
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 12
    for position, label in ticks.items():
        assert float(slider.value(position)) == pytest.approx(float(label))
    assert type(values[0]) is Controls.known(name).kind


def test_the_line_of_equal_density_is_where_it_is_one():
    controls = replace(SMALL, across="alpha", up="beta")
    lines = {edge.label: edge.lines for edge in diagram.boundaries(controls)}
    at = np.concatenate(lines["c = 1"])
    alpha, beta = (SLIDERS[name].value(at[:, i]) for i, name in enumerate(("alpha", "beta")))
    c = [density_ratio(a, b, controls.n_patches, controls.n_robust, controls.q) for a, b in zip(alpha, beta)]
    np.testing.assert_allclose(np.log(c), 0, atol=1e-6)  # straight in these coordinates
    eps = np.concatenate(lines["ε = β"])
    np.testing.assert_allclose(SLIDERS["beta"].value(eps[:, 1]), controls.eps, rtol=1e-2)


def test_the_line_of_the_take_off_parts_points_that_learn_from_points_that_do_not():
    changes = {"across": "lr", "up": "init_std", "training": "standard", "shown": "plateau_ratio"}
    controls = replace(SMALL, n_neurons=6, n_iter=1000, **changes)
    (line,) = [edge for edge in diagram.boundaries(controls) if "takes off" in edge.label]
    picture = pictures(controls)[-1].values
    at = np.concatenate(line.lines)
    size = SLIDERS["init_std"].value((np.arange(diagram.SIDE) + 0.5) / diagram.SIDE)
    grown = picture * controls.config().plateau() / size[:, None]  # the strength over its start, up to a factor
    seen = []
    for x, y in at[:: max(len(at) // 10, 1)]:
        i, j = int(y * diagram.SIDE), int(x * diagram.SIDE)
        if 3 <= i < 21 and 3 <= j < 21:
            seen.append((i, j))
            assert grown[i - 3, j - 3] < 5 < grown[i + 3, j + 3]
    assert seen


def test_zeros_keep_away_from_what_is_not_known():
    at = np.linspace(0, 1, 5)
    X, Y = np.meshgrid(at, at)
    value = np.where(Y > 0.6, np.nan, X - 0.3)
    (line,) = diagram.zeros(at, value)
    np.testing.assert_allclose(line[:, 0], 0.3)
    assert line[:, 1].max() == 0.5
    assert diagram.zeros(at, np.full((5, 5), np.nan)) == []

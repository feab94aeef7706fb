"""Pictures of sweeps: what is drawn where, for every kind of design, and the gallery."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from figure_layout import well_laid_out
from matplotlib.collections import PathCollection, PolyCollection, QuadMesh
from matplotlib.contour import ContourSet
from sweep_examples import certified, plateaus, sobol, take_off, winner
from sweep_folders import folder

from advfeat.core import store
from advfeat.sweeps import figures, predictions
from advfeat.sweeps.captions import caption, numbers
from advfeat.sweeps.claims import claim_shares, share_of_points
from advfeat.sweeps.drawing import Drawn
from advfeat.sweeps.gallery import plot
from advfeat.sweeps.results import load
from advfeat.sweeps.selection import Selection, claims
from advfeat.theory import plateau, robust_window


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def select(path, **request):
    return Selection.make(load(path), request)


def draw(selection):
    return well_laid_out(figures.draw(selection))


def said(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def held(axis, kind):
    return [artist for artist in axis.get_children() if isinstance(artist, kind)]


def zero_lines(axis):
    return [np.concatenate([p.vertices for p in c.get_paths()]) for c in held(axis, ContourSet)]


# ------------------------------------------------------------------ maps of a grid
def test_every_cell_shows_its_own_point(tmp_path):
    """Values, edges and orientation, on axes that are not uniform."""
    folder(tmp_path, {"alpha": [1.0, 2.0, 5.0], "n_robust": [1, 2, 4, 8]},
           lambda f, s: {("A", "standard", "recursion", None): f["alpha"] + 100 * f["n_robust"] + s})  # fmt: skip
    axis = draw(select(tmp_path, x="alpha", y="n_robust", metric="A")).axes[0]
    (mesh,) = held(axis, QuadMesh)
    expected = np.array([1.0, 2, 5]) + 100 * np.array([1, 2, 4, 8])[:, None] + 1  # the median of three seeds
    np.testing.assert_array_equal(mesh.get_array(), expected)
    corners = mesh.get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], [0.5**0.5, 2**0.5, 10**0.5, 5 * 2.5**0.5])
    np.testing.assert_allclose(corners[:, 0, 1], 2.0 ** np.arange(-0.5, 4))
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")


def test_edges_are_midpoints_on_linear_axes(tmp_path):
    folder(tmp_path, {"eps": [0.3, 0.4, 0.7], "q": [3]}, lambda f, s: {("A", "standard", "recursion", None): 1.0})
    chosen = select(tmp_path, x="eps", y="q", metric="A")
    np.testing.assert_allclose(Drawn(chosen, "eps").edges, [0.25, 0.35, 0.55, 0.85])
    np.testing.assert_allclose(Drawn(chosen, "q").edges, [1.5, 4.5])
    folder(tmp_path, {"eps": [0.1, 0.4, 0.7]}, lambda f, s: {("A", "standard", "recursion", None): 1.0})
    assert Drawn(select(tmp_path, x="eps", metric="A"), "eps").edges[0] == 0  # not -0.05: a radius
    assert len(held(draw(chosen).axes[0], QuadMesh)) == 1  # one value on an axis, all values equal


def test_the_winners_map_has_the_density_ratio_on_it(tmp_path):
    winner(tmp_path, 8)
    for x, y, unit in (("alpha", "n_robust", 64), ("strength_ratio", "robust_share", 1)):
        chosen = select(tmp_path, x=x, y=y, metric="robust_wins")
        axis = draw(chosen).axes[0]
        (line,) = zero_lines(axis)
        share = line[:, 1] / unit
        inside = share > 0.03
        np.testing.assert_allclose((share / (1 - share) * line[:, 0] ** 3)[inside], 1, rtol=0.02)
        assert held(axis, QuadMesh)[0].get_clim() == (0, 1)
    (wins,) = (line for line in numbers(chosen) if "more than 20%" in line)
    assert "(100.0%)" in wins
    assert "P_R" not in caption(chosen)


def test_a_mirrored_map_is_counted_as_one(tmp_path):
    """The sentence about the density ratio must see a sweep that contradicts it."""
    folder(tmp_path, {"alpha": [1.0, 2.0, 6.0, 8.0], "n_robust": [1, 2]},
           lambda f, s: {("robust_wins", "standard", "recursion", None): float(f["alpha"] < 4)},
           training=["standard"])  # fmt: skip
    said = numbers(select(tmp_path, x="alpha", y="n_robust", metric="robust_wins"))
    assert any("8 points, 0 (0.0%)" in line for line in said)


def test_certified_accuracy_against_the_window(tmp_path):
    certified(tmp_path, 7)
    chosen = select(tmp_path, x="eps", y="eps_test", metric="certified_accuracy", training="adversarial")
    figure = draw(chosen)
    low, high = robust_window(3.0, 1.0, 64, 1, 3)
    lines = zero_lines(figure.axes[0])
    np.testing.assert_allclose(lines[0][:, 1], low, atol=1e-6)
    np.testing.assert_allclose(lines[1][:, 1], high, atol=1e-6)
    np.testing.assert_allclose(lines[2][:, 0], 1, atol=1e-6)
    assert sum("predicted" in text for text in said(figure)) == 3
    told = numbers(chosen)
    assert any(line.startswith("Inside the window, eps >= beta: median over 4 points 0.98") for line in told)
    assert any(line.startswith("Inside the window, eps < beta: median over 3 points 0 ") for line in told)


def radii(path, base=None, sizes=None, **axes):
    """Certified accuracy over (eps_test, rho), and A_max where `sizes` give one for every rho."""
    axes = {"eps_test": [0.45, 0.52, 0.58, 0.65], "rho": [50.0, 100.0, 200.0]} | axes

    def rule(f, seed):
        known = {} if sizes is None else {("A_max", "adversarial", "network", None): sizes[f["rho"]]}
        return {("certified_accuracy", "adversarial", "network", None): 0.5} | known

    return folder(path, axes, rule, engine="network", base=base)


def test_captions_claim_no_window_where_a_premise_fails(tmp_path):
    request = {"x": "eps_test", "y": "rho", "metric": "certified_accuracy"}
    chosen = select(radii(tmp_path, {"norm": "l2"}), **request)
    told = numbers(chosen)
    assert told[1:] == ["Where there is no window, eps >= beta: median over 12 points 0.5 (0.5 to 0.5).",
                        "No window at 12 of 12 points: it is one of l_inf balls at 12."]  # fmt: skip
    assert "eps_lo" not in caption(chosen, said(draw(chosen)))
    chosen = select(radii(tmp_path), **request)
    assert "A (A_max of adversarial training) was not measured." in numbers(chosen)[-1]
    assert "if A (alpha - eps_lo) <= rho" in caption(chosen, said(draw(chosen)))
    # A (alpha - eps_lo) = 75 > 50, 75 <= 100 and 150 <= 200
    chosen = select(radii(tmp_path, sizes={50.0: 30.0, 100.0: 30.0, 200.0: 60.0}), **request)
    told = numbers(chosen)
    assert told[1].startswith("Inside the window, eps >= beta: median over 4 points")
    assert told[4].startswith("Where there is no window, eps >= beta: median over 4 points")
    assert told[5] == "No window at 4 of 12 points: A (alpha - eps_lo) > rho at 4."
    assert len(told) == 6
    axis = draw(chosen).axes[0]
    for line, edge in zip(zero_lines(axis)[:2], robust_window(3.0, 1.0, 64, 1, 3)):
        np.testing.assert_allclose(line[:, 0], edge, atol=1e-6)
        gap = (line[:, 1] > 142) & (line[:, 1] < 149)  # A = 60 from the middle between rho = 100 and 200 on: rho >= 150
        assert not gap.any()
        assert line[:, 1].min() == pytest.approx(75.0, abs=2)
        assert (line[:, 1] > 155).any()


def test_a_facet_has_its_own_sizes(tmp_path):
    """Vertical lines along eps_test: drawn for the rho whose A is in the polynomial part, not for the other."""
    sizes = {50.0: 30.0, 100.0: 35.0}
    radii(tmp_path, sizes=sizes, rho=list(sizes))
    chosen = select(tmp_path, x="eps_test", metric="certified_accuracy", facet="rho")
    for value, there in ((50.0, False), (100.0, True)):
        fields = chosen.fields({"eps_test": np.linspace(0.4, 0.7, 7)}, value)
        assert set(fields.strength) == {sizes[value]}
        assert np.isfinite(predictions.window_ends(fields, fields.strength)[0]).all() == there


def test_missing_cells_say_why(tmp_path):
    take_off(tmp_path, 5, skipped={3: "no such point"})
    chosen = select(tmp_path, x="init_std", y="q", metric="take_off_B")
    figure = draw(chosen)
    never = int(np.isnan(chosen.centre).sum()) - 1
    assert never > 0
    assert f"never in at least half of the seeds: {never} of 15 points" in said(figure)
    assert "point skipped, impossible: 1 of 15 points" in said(figure)
    grey = [p for p in held(figure.axes[0], PolyCollection) if p.get_hatch()]
    assert [len(p.get_paths()) for p in grey] == [never, 1]
    assert "At 1 of 15 points no configuration is possible" in caption(chosen)
    (ratio,) = (line for line in numbers(chosen) if line.startswith("Measured / predicted time"))
    assert "median 0.909" in ratio  # the made-up prediction is 1.1 times the time


def test_the_predicted_take_off_is_drawn_at_the_levels_of_the_measured(tmp_path):
    take_off(tmp_path, 9)
    axis = draw(select(tmp_path, x="init_std", y="q", metric="take_off_B")).axes[0]
    measured, predicted = held(axis, ContourSet)
    np.testing.assert_array_equal(measured.levels, predicted.levels)
    assert len(measured.levels) >= 3
    line = predicted.get_paths()[np.argmin(np.abs(predicted.levels - np.log(50)))].vertices
    sigma = line[np.abs(line[:, 1] - 3) < 1e-9, 0]
    assert len(sigma) == 1
    time = 1.1 * 40 / (sigma * 1.1 * np.sqrt(2 * np.log(20)))  # the middle seed's, q = 3, rho = 10
    np.testing.assert_allclose(time, 50, rtol=0.02)  # straight between neighbouring cells


def test_small_multiples_share_axes_and_colours(tmp_path):
    take_off(tmp_path, 4, facets=[1.0, 3.0, 10.0, 30.0, 100.0])
    figure = draw(select(tmp_path, x="init_std", y="q", facet="rho", metric="take_off_B"))
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title().split("= ")[1] for axis in panels] == ["1", "3", "10", "30", "100"]
    assert len({held(axis, QuadMesh)[0].get_clim() for axis in panels}) == 1
    first, last = (held(axis, QuadMesh)[0].get_array() for axis in (panels[0], panels[-1]))
    assert not np.ma.allequal(first, last)


def test_too_many_facets_are_refused(tmp_path):
    folder(tmp_path, {"alpha": [1.0, 2.0], "n_neurons": range(2, 12)},
           lambda f, s: {("A", "standard", "recursion", None): 1.0})  # fmt: skip
    with pytest.raises(ValueError, match="facet = 'n_neurons': has 10 values, at most 9"):
        select(tmp_path, x="alpha", facet="n_neurons", metric="A")


def test_a_text_axis_is_drawn_by_its_names(tmp_path):
    folder(tmp_path, {"norm": ["linf", "l2"], "eps_test": [0.4, 0.5, 0.6]}, engine="network",
           rule=lambda f, s: {("certified_accuracy", "standard", "network", None): len(f["norm"]) / 4})  # fmt: skip
    axis = draw(select(tmp_path, x="norm", y="eps_test", metric="certified_accuracy")).axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["l2", "linf"]
    (mesh,) = held(axis, QuadMesh)
    np.testing.assert_array_equal(mesh.get_array(), [[0.5, 1.0]] * 3)
    assert mesh.get_clim() == (0, 1)  # a share's colours mean the same in every figure


# ------------------------------------------------------------------ curves
def test_curves_have_the_range_over_seeds_and_the_plateau(tmp_path):
    plateaus(tmp_path)
    chosen = select(tmp_path, x="ascent_lr", facet="eps", metric="B")
    figure = draw(chosen)
    axis = figure.axes[0]
    dashed = [line for line in axis.lines if not line.get_marker().strip("None") and line.get_ls() == "--"]
    assert len(dashed) == 1  # eps = 0.5 < beta has no plateau
    rate, level = dashed[0].get_data()
    np.testing.assert_allclose(level, [plateau(1.0, 3, 100.0, r) for r in rate])
    solid = [line for line in axis.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(solid[1].get_ydata(), 0.96 * np.interp(solid[1].get_xdata(), rate, level), rtol=1e-3)
    band = held(axis, PolyCollection)[1].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((0.95 * level[-1], 0.97 * level[0]))
    assert any("B^*" in text for text in said(figure))
    assert any("predicted plateau at 9 points: median 0.960" in line for line in numbers(chosen))


def test_where_a_seed_never_saw_the_event_the_range_reaches_the_end(tmp_path):
    folder(
        tmp_path,
        {"alpha": [1.0, 2.0]},
        training=["standard"],
        rule=lambda f, s: {("take_off_A", "standard", "recursion", None): np.nan if s == f["alpha"] else 50 + s},
    )
    (band,) = held(draw(select(tmp_path, x="alpha", metric="take_off_A")).axes[0], PolyCollection)[:1]
    x, y = band.get_paths()[0].vertices.T
    assert [y[x == alpha].max() for alpha in (1, 2)] == [4000, 4000]
    assert [y[x == alpha].min() for alpha in (1, 2)] == [50, 50]


def test_an_earlier_iteration_can_be_drawn(tmp_path):
    plateaus(tmp_path)
    now, before = (
        draw(select(tmp_path, x="ascent_lr", metric="B", at={"eps": 1.0}, **when)).axes[0].lines[0].get_ydata()
        for when in ({}, {"iteration": 2000})
    )
    np.testing.assert_allclose(before, now / 2)


def test_shares_that_are_zero_or_one_have_a_wilson_band_and_the_boundary(tmp_path):
    winner(tmp_path, 8)
    figure = draw(select(tmp_path, x="alpha", metric="robust_wins", at={"n_robust": 5}))
    assert "Wilson 95% interval" in said(figure)
    at = [line.get_xdata()[0] for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert at == pytest.approx([(59 / 5) ** (1 / 3)], rel=1e-4)


def test_one_seed_and_one_point(tmp_path):
    folder(tmp_path, {"alpha": [2.0]}, lambda f, s: {("A", "standard", "recursion", None): 3.0}, n_seeds=1)
    figure = draw(select(tmp_path, x="alpha", metric="A"))
    assert figure.axes[0].lines[0].get_ydata().tolist() == [3.0]
    assert "range over seeds" not in said(figure)


def test_an_event_that_never_came_anywhere_is_a_picture(tmp_path):
    folder(tmp_path, {"alpha": [1.0, 2.0], "q": [2, 3]}, lambda f, s: {("A", "standard", "recursion", None): 3.0},
           training=["standard"], metrics=["A", "crossing"])  # fmt: skip
    chosen = select(tmp_path, x="alpha", y="q", metric="crossing")
    assert "never in at least half of the seeds: 4 of 4 points" in said(draw(chosen))
    assert numbers(chosen) == ["No point has a number."]
    assert "never in at least half of the seeds: 2 of 2 points" in said(
        draw(select(tmp_path, x="alpha", metric="crossing", at={"q": 2}))
    )


# ------------------------------------------------------------------ random designs and claims
def test_a_random_design_is_a_scatter(tmp_path):
    sobol(tmp_path, 32, skipped={5: "no"})
    figure = draw(select(tmp_path, x="alpha", y="noise_std", facet="q", metric="B"))
    dots = [held(axis, PathCollection)[-1] for axis in figure.axes if axis.get_title()]
    values = {tuple(xy): value for d in dots for xy, value in zip(d.get_offsets().tolist(), d.get_array().tolist())}
    found = load(tmp_path)
    alpha, noise = found.field("alpha"), found.field("noise_std")
    assert values == pytest.approx({(a, n): 1.1 + a**2 for i, (a, n) in enumerate(zip(alpha, noise)) if i != 5})
    assert "point skipped, impossible: 1 of 32 points" in said(figure)


def test_a_grid_over_a_derived_axis_of_two_fields_is_binned(tmp_path):
    winner(tmp_path, 8)
    figure = draw(select(tmp_path, x="density_ratio", metric="robust_wins"))
    assert any("bin's points" in text for text in said(figure))
    at = [line.get_xdata()[0] for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert at == pytest.approx([1], rel=1e-4)


def test_bins_hold_the_mean_of_their_points(tmp_path):
    sobol(tmp_path, 32)
    chosen = select(tmp_path, x="q", metric="certified_accuracy")
    (container,) = draw(chosen).axes[0].containers
    q = chosen.field("q")
    np.testing.assert_allclose(container[0].get_ydata(), [chosen.centre[q == v].mean() for v in (2, 3, 4)])
    assert draw(select(tmp_path, x="alpha", metric="B")).axes[0].containers  # medians and quartiles


def test_bins_of_b_over_plateau_show_its_level(tmp_path):
    folder(
        tmp_path,
        {"eps": {"low": 0.5, "high": 1.5, "scale": "linear"}},
        points={"eps": [0.6, 0.9, 1.2, 1.4]},
        rule=lambda f, s: {("B_over_plateau", "adversarial", "network", None): 0.9 + s / 9},
        design="random",
    )
    figure = draw(select(tmp_path, x="eps", metric="B_over_plateau"))
    assert [1, 1] in [list(line.get_ydata()) for line in figure.axes[0].lines]
    assert "predicted plateau $B^*$" in said(figure)


def test_claims_count_points_and_all_is_no_more_than_each(tmp_path):
    sobol(tmp_path, 64)
    found = load(tmp_path)
    shares = claim_shares(claims(found))
    each = found.values("claim_4.3.3").mean(axis=1)
    np.testing.assert_allclose(shares["claim_4.3.3"], each)
    np.testing.assert_allclose(shares["all of both"], each)  # the made-up claims fail together
    share, low, high, n = share_of_points(shares["all of 4.4"])
    assert (share, n) == (pytest.approx(each.mean()), 64)
    assert low < share < high
    assert shares["claim_4.3.1"].min() == 1


def test_claims_that_fail_apart_do_not_hold_together():
    held = np.ones((2, 2, 7))
    held[0, 0, 0], held[0, 1, 4] = 0, np.nan
    found = claim_shares(held)
    assert found["all of 4.3"].tolist() == [0.5, 1]
    assert found["all of 4.4"].tolist() == [1, 1]  # a run without a value is left out
    assert found["all of both"].tolist() == [0, 1]


def test_claims_pictures(tmp_path):
    sobol(tmp_path, 32)
    overall = draw(select(tmp_path, metric="claims"))
    assert sum(text.get_text().endswith("of 32") for text in overall.axes[0].texts) == 10
    along = draw(select(tmp_path, metric="claims", x="q"))
    assert [len(axis.containers) for axis in along.axes] == [5, 4]
    every = draw(select(tmp_path, metric="claims", x="every"))
    assert [axis.get_xlabel().split()[-1] for axis in every.axes] == [r"$\alpha$", r"$\sigma_n$", "$m$", "$q$"]
    plateaus(tmp_path)
    with pytest.raises(ValueError, match="metric = 'claims': the sweep did not measure claim_4"):
        select(tmp_path, metric="claims")


# ------------------------------------------------------------------ the gallery
def test_the_gallery_keeps_what_was_drawn_and_replaces_the_same_request(tmp_path):
    certified(tmp_path, 3)
    spec = store.load_json(tmp_path / "sweep.json")
    spec["spec"]["title"] = "a <b> sweep"
    spec["spec"]["plots"] = [{"x": "eps", "y": "eps_test", "metric": "certified_accuracy", "training": "adversarial"}]
    store.save_json(tmp_path / "sweep.json", spec)
    first = plot(tmp_path)
    name = "certified_accuracy-eps-eps_test-training=adversarial"
    assert [f.name for f in first] == [f"{name}.png", f"{name}.pdf", "index.html"]
    other = {"x": "eps", "metric": "certified_accuracy", "training": "standard", "at": {"eps_test": 0.3}}
    plot(tmp_path, [other])
    plot(tmp_path, spec["spec"]["plots"])
    names = [entry["name"] for entry in json.loads((tmp_path / "figures/index.json").read_text())["figures"]]
    assert names == [name, "certified_accuracy-eps-training=standard-eps_test=0.3"]
    page = (tmp_path / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "a &lt;b&gt; sweep" in page
    assert "<b>" not in page
    assert 'src="http' not in page


def test_nothing_is_drawn_where_one_request_is_wrong(tmp_path):
    plateaus(tmp_path)
    good = {"x": "ascent_lr", "metric": "B", "facet": "eps"}
    for wrong, says in ((good | {"x": "ascent"}, "x = 'ascent': no axis"), (good | {"facet": None}, "eps: swept too")):
        with pytest.raises(ValueError, match=says):
            plot(tmp_path, [good, wrong])
    assert not (tmp_path / "figures").exists()


def test_the_page_lists_skipped_points_and_says_when_there_is_no_figure(tmp_path):
    take_off(tmp_path, 3, skipped={2: "sigma is <too> small"})
    assert [f.name for f in plot(tmp_path)] == ["index.html"]
    page = (tmp_path / "index.html").read_text()
    assert "No figure yet" in page
    assert "sigma is &lt;too&gt; small" in page
    assert "9 points, 1 of them impossible and skipped; 3 seeds" in page
    assert "24 runs (recursions)" in page


@pytest.mark.parametrize(("engine", "said"), [("network", "6 runs (networks)"), ("recursion", "6 runs (recursions)"),
                                              ("both", "12 runs (6 networks, 6 recursions)")])  # fmt: skip
def test_the_page_counts_trainings_as_the_plan_does(engine, said, tmp_path):
    """Two of three alphas are possible, three radii share a training: 2 x 3 seeds."""
    axes = {"alpha": [1.0, 2.0, 3.0], "eps_test": [0.3, 0.4, 0.5]}
    folder(tmp_path, axes, lambda f, s: {("A", "adversarial", "network", None): 1.0}, engine=engine,
           skipped=dict.fromkeys((0, 1, 2), "too small"))  # fmt: skip
    plot(tmp_path)
    assert f"; {said}." in (tmp_path / "index.html").read_text()
    assert load(tmp_path).n_runs == int(said.split()[0])

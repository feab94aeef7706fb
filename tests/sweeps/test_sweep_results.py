"""Reading a finished sweep without pandas, and what the theory predicts over its axes."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest
from sweep_examples import plateaus, sobol, take_off, winner
from sweep_folders import folder

from advfeat.core import store
from advfeat.sweeps.catalogue import DIGEST
from advfeat.sweeps.drawing import Drawn
from advfeat.sweeps.predictions import Fields, Unknown, boundaries, crossings, curve
from advfeat.sweeps.results import axis_fields, load
from advfeat.sweeps.selection import Selection, centre, check, is_log, name_of, wilson
from advfeat.theory import density_ratio, plateau, robust_window
from advfeat.theory.window import density

FIELDS = {"alpha": 3.0, "beta": 1.0, "n_robust": 1, "n_patches": 64, "q": 3, "eps": 1.0, "eps_test": 0.5,
          "rho": 100.0, "ascent_lr": 40.0, "norm": "linf"}  # fmt: skip


# ------------------------------------------------------------------ values
def coded(f, seed):
    """Every value says whose it is."""
    base = 1000 * f["alpha"] + 10 * f["q"] + seed
    return {
        ("A", training, engine, when): sign * scale * (base + (0.5 if when is None else 0))
        for training, sign in (("standard", 1), ("adversarial", -1))
        for engine, scale in (("network", 1), ("recursion", 2))
        for when in (2000, None)
    } | {("deviation", "standard", "both", None): base / 7}


@pytest.fixture
def coded_results(tmp_path):
    folder(tmp_path, {"alpha": [1.0, 2.0, 3.0], "q": [2, 3]}, coded, n_seeds=4, base={"first_seed": 5}, engine="both",
           training=["standard", "adversarial"])  # fmt: skip
    return load(tmp_path)


def test_values_are_those_of_point_and_seed(coded_results):
    alpha, q = np.repeat([1.0, 2.0, 3.0], 2), np.tile([2, 3], 3)
    base = (1000 * alpha + 10 * q)[:, None] + np.arange(5, 9)
    np.testing.assert_array_equal(coded_results.points["alpha"], alpha)
    np.testing.assert_array_equal(coded_results.points["q"], q)
    assert coded_results.points["q"].dtype == int
    np.testing.assert_array_equal(coded_results.values("A", "standard", "network"), base + 0.5)
    np.testing.assert_array_equal(coded_results.values("A", "adversarial", "recursion", 2000), -2 * base)
    np.testing.assert_array_equal(coded_results.values("deviation"), base / 7)  # one training, one engine: inferred


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("A",), r"training: A was measured for \['adversarial', 'standard'\]; choose one"),
        (("A", "standard"), "engine: A was measured for"),
        (("A", "standard", "both"), "engine = 'both': A has no such rows"),
        (("A", "standard", "network", 2100), "iteration = 2100: not recorded; the nearest is 2000"),
        (("deviation", None, None, 4000), "iteration = 4000: deviation is one value per run"),
        (("robust_win",), "metric = 'robust_win': unknown"),
        (("loss",), "metric = 'loss': not in the results of this sweep"),
    ],
)
def test_a_wrong_choice_names_what_there_is(coded_results, arguments, says):
    with pytest.raises(ValueError, match=says):
        coded_results.values(*arguments)


def test_times_are_times(coded_results):
    with pytest.raises(ValueError, match="metric = 'A': not a time; choose from"):
        coded_results.times("A", "standard", "network")


def test_the_last_iteration_is_each_points_own(tmp_path):
    """A point that ends early lends no other point its last number, nor does a diverged run show an older one."""

    def rule(f, seed):
        last = np.nan if (f["n_iter"], seed) == (4000, 1) else f["n_iter"]
        return {("A", "standard", "recursion", 1000): 1.0, ("A", "standard", "recursion", None): last}

    folder(tmp_path, {"n_iter": [2000, 4000]}, rule, n_seeds=2)
    np.testing.assert_array_equal(load(tmp_path).values("A"), [[2000, 2000], [4000, np.nan]])


def test_a_time_that_never_came_anywhere_is_no_error(tmp_path):
    def rule(f, seed):
        return {("A", "standard", "recursion", None): 1.0}

    folder(tmp_path, {"alpha": [1.0, 2.0]}, rule, training=["standard"], metrics=["A", "crossing"])
    assert np.isnan(load(tmp_path).times("crossing")).all()


def test_points_of_a_random_design_come_from_rows_and_skipped_points(tmp_path):
    sobol(tmp_path, 16, skipped={3: "no", 9: "no"})
    found, raw = load(tmp_path), json.loads((tmp_path / "sweep.json").read_text())
    table = pq.read_table(tmp_path / "results.parquet").to_pydict()
    for name in ("alpha", "q"):
        expected = dict(zip(table["point"], table[name])) | {s["point"]: s["fields"][name] for s in raw["skipped"]}
        assert found.points[name].tolist() == [expected[i] for i in range(16)]
    assert np.flatnonzero(found.skipped_points).tolist() == [3, 9]
    assert np.isnan(found.values("claim_4.3.1")[[3, 9]]).all()


def test_text_and_truth_axes(tmp_path):
    def rule(f, seed):
        return {("A", "standard", "network", None): len(f["norm"]) + f["balanced"]}

    folder(tmp_path, {"norm": ["linf", "l2"], "balanced": [True, False]}, rule, n_seeds=1, engine="network")
    assert load(tmp_path).points["norm"].tolist() == ["linf", "linf", "l2", "l2"]
    assert load(tmp_path).values("A").ravel().tolist() == [5, 4, 3, 2]


def test_none_is_a_value_of_a_grid(tmp_path):
    def rule(f, seed):
        return {("A", "standard", "network", None): f["batch_size"] or 100}

    folder(tmp_path, {"batch_size": [None, 4, 10]}, rule, n_seeds=1, engine="network")
    found = load(tmp_path)
    assert found.points["batch_size"].tolist() == [None, 4, 10]
    chosen = Selection.make(found, {"x": "batch_size", "metric": "A", "at": {}})
    assert dict(zip(Drawn(chosen, "batch_size").at.tolist(), chosen.centre.tolist())) == {2: 100, 1: 4, 0: 10}


def test_derived_fields(tmp_path):
    winner(tmp_path, 4)
    found = load(tmp_path)
    alpha, n = found.field("alpha"), found.field("n_robust")
    expected = [density_ratio(a, 1.0, 64, int(p)) for a, p in zip(alpha, n)]
    np.testing.assert_allclose(found.field("density_ratio"), expected)
    np.testing.assert_allclose(found.field("robust_share"), n / 64)
    assert axis_fields("density_ratio", found.axes) == ["alpha", "n_robust"]
    for name, says in (("strength_ration", "did you mean 'strength_ratio'"), ("eps_over_beta", "not swept")):
        with pytest.raises(ValueError, match=says):
            axis_fields(name, found.axes)


def test_folders_that_are_no_finished_sweep(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        load(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="not the folder of a sweep"):
        load(tmp_path)
    plateaus(tmp_path)
    (tmp_path / "results.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(store.CheckpointError, match=r"results\.parquet: damaged"):
        load(tmp_path)
    head = store.load_json(tmp_path / "sweep.json")
    of_0_1_0 = {name: value for name, value in head.items() if name != DIGEST}
    store.save_json(tmp_path / "sweep.json", of_0_1_0)
    with pytest.raises(store.CheckpointError, match=r"results\.parquet: truncated or not a Parquet file"):
        load(tmp_path)
    store.save_json(tmp_path / "sweep.json", head | {DIGEST: None})
    with pytest.raises(FileNotFoundError, match=r"not finished.*the same `advfeat sweep` command continues it"):
        load(tmp_path)
    store.save_json(tmp_path / "sweep.json", head)
    (tmp_path / "results.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"not finished.*the same `advfeat sweep` command continues it"):
        load(tmp_path)
    store.save_json(tmp_path / "sweep.json", {})
    (tmp_path / "results.parquet").touch()
    with pytest.raises(store.CheckpointError, match=r"sweep\.json: spec is missing"):
        load(tmp_path)


# ------------------------------------------------------------------ one number per point
def test_an_event_that_never_came_is_later_than_all_others():
    nan = np.nan
    values = np.array([[1, 2, nan], [1, nan, nan], [nan, nan, nan], [3, 1, 2]])
    np.testing.assert_array_equal(centre(values, "time"), [2, nan, nan, 2])
    np.testing.assert_array_equal(centre(values, "number"), [1.5, 1, nan, 2])
    np.testing.assert_array_equal(centre(np.array([[0, 0, 1.0], [1, nan, 0]]), "share"), [1 / 3, 0.5])


def test_wilson_is_scipys():
    for k, n in ((0, 7), (3, 8), (128, 128), (50, 211)):
        expected = binomtest(k, n).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose(wilson(k / n, n), (expected.low, expected.high), atol=1e-12)


@pytest.mark.parametrize(
    ("values", "log"),
    [([1, 2, 4, 8], True), (np.linspace(1, 9, 9), False), ([0, 1, 10], False), ([1, 2, 3, 5, 8, 13, 22], True),
     (np.geomspace(1, 1.5, 5), False), ([2, 3, 4], False), (np.array(["a", "b"], object), False)],
)  # fmt: skip
def test_log_axes_are_seen_from_their_values(values, log):
    assert is_log(values) is log
    assert is_log(np.linspace(1, 9, 9), "log")


def test_requests_are_checked():
    axes = {"alpha": {"values": [1.0, 2.0]}, "q": {"values": [2, 3]}}
    for request, says in (
        ({"metric": "A", "z": 1}, "z: unknown key"),
        ({"x": "alpha"}, "metric: a plot needs one"),
        ({"metric": "A"}, "x: a plot of A needs one"),
        ({"metric": "robust_win", "x": "alpha"}, "did you mean 'robust_wins'"),
        ({"metric": "A", "x": "alpa"}, "x = 'alpa': no axis of this sweep; did you mean 'alpha'"),
        ({"metric": "A", "x": "alpha", "y": "alpha"}, "must differ"),
        ({"metric": "A", "x": "alpha", "at": {"alpha": 1}}, "at = 'alpha': is drawn"),
        ({"metric": "A", "x": "alpha", "at": {"rho": 1}}, "at = 'rho': no axis"),
        ({"metric": "A", "x": "alpha", "training": "both"}, "training = 'both': unknown"),
        ({"metric": "A", "x": "alpha", "iteration": "last"}, "iteration = 'last': must be an integer"),
        ({"metric": "claims", "y": "q"}, "takes x and at only"),
    ):
        with pytest.raises(ValueError, match=says):
            check(request, axes, grid=False)
    request = check({"metric": "A", "x": "alpha", "y": None, "at": {"q": 2.0}, "iteration": 400}, axes, grid=False)
    assert name_of(request) == "A-alpha-iteration=400-q=2"


def test_an_axis_neither_drawn_nor_fixed_is_refused(tmp_path):
    take_off(tmp_path, 3, facets=[1.0, 2.0])
    found, request = load(tmp_path), {"metric": "take_off_B", "x": "init_std"}
    with pytest.raises(ValueError, match=r"q, rho: swept too, and neither drawn nor fixed.*q: 2, 3, 4; rho: 1.0, 2.0"):
        Selection.make(found, request)
    with pytest.raises(ValueError, match=r"at rho = 3: no point of the sweep has it; there are 1.0, 2.0"):
        Selection.make(found, request | {"y": "q", "at": {"rho": 3}})
    chosen = Selection.make(found, request | {"at": {"rho": 2, "q": 3}})
    assert found.field("rho")[chosen.points].tolist() == [2.0] * 3
    np.testing.assert_array_equal(chosen.values, found.values("take_off_B")[chosen.points])


# ------------------------------------------------------------------ predictions
def without(*names):
    return {name: value for name, value in FIELDS.items() if name not in names}


@pytest.mark.parametrize("drawn", ["alpha", "n_robust", "strength_ratio", "robust_share", "density_ratio", "q", "beta"])
def test_the_density_ratio_is_one_where_it_is_drawn(drawn):
    x = {"alpha": (1, 8), "n_robust": (1, 30), "strength_ratio": (1, 8), "robust_share": (0.01, 0.5), "beta": (0.2, 2),
         "density_ratio": (0.1, 10), "q": (2, 5)}[drawn]  # fmt: skip
    mesh = np.linspace(*x, 2001)
    swept = {"strength_ratio": "alpha", "robust_share": "n_robust", "density_ratio": "alpha"}.get(drawn, drawn)
    ((boundary, value),) = boundaries("robust_wins", "standard", Fields({drawn: mesh}, without(swept)))
    assert boundary.name == "density_ratio"
    (at,) = crossings(mesh, value)
    f = dict(FIELDS)
    f[swept] = {"strength_ratio": at, "robust_share": at * 64}.get(drawn, at)
    if drawn == "density_ratio":
        assert at == pytest.approx(1, rel=1e-3)
    else:
        assert density(f["alpha"], f["beta"], 64, f["n_robust"], f["q"]) == pytest.approx(1, rel=2e-3)


def test_the_density_ratio_needs_only_the_ratios_of_what_varies():
    """alpha and beta both swept: their ratio is enough for c, and not for the window, whose radii have units."""
    X, Y = np.meshgrid(np.linspace(1, 8, 50), np.linspace(0.01, 0.5, 40))
    fields = Fields({"strength_ratio": X, "robust_share": Y}, without("alpha", "beta", "n_robust"))
    assert [one.name for one, _ in boundaries("certified_accuracy", "standard", fields)] == ["density_ratio"]
    with pytest.raises(Unknown):
        fields["alpha"]


def test_a_field_behind_a_derived_axis():
    x = np.linspace(1, 8, 5)
    np.testing.assert_array_equal(Fields({"eps_over_beta": x}, without("beta"))["beta"], 1 / x)
    np.testing.assert_array_equal(Fields({"eps_over_beta": x}, without("eps"))["eps"], x)


def test_window_and_eps_is_beta_over_the_radii():
    x, y = np.linspace(0.4, 1.6, 301), np.linspace(0.3, 0.8, 501)
    X, Y = np.meshgrid(x, y)
    fields = Fields({"eps": X, "eps_test": Y}, without("eps", "eps_test"))
    found = {one.name: value for one, value in boundaries("certified_accuracy", "adversarial", fields)}
    assert list(found) == ["eps_lo", "eps_hi", "eps_is_beta"]  # c does not vary
    low, high = robust_window(3.0, 1.0, 64, 1, 3)
    assert crossings(y, found["eps_lo"][:, 7]) == pytest.approx([low], abs=1e-9)
    assert crossings(y, found["eps_hi"][:, 7]) == pytest.approx([high], abs=1e-9)
    assert crossings(x, found["eps_is_beta"][3]) == pytest.approx([1.0], abs=1e-5)
    only = boundaries("certified_accuracy", "standard", Fields({"eps": X, "eps_test": Y}, without() | {"norm": "l2"}))
    assert only == []  # the window speaks of l_inf, eps = beta of adversarial training
    assert boundaries("loss", "adversarial", fields) == []


def test_the_window_is_drawn_where_its_premises_hold():
    """By the size A on the mesh: beyond the polynomial part on the right half, diverged in a corner."""
    x, y = np.linspace(0.4, 1.6, 31), np.linspace(0.3, 0.8, 51)
    X, Y = np.meshgrid(x, y)
    strength = np.where(X < 1.01, 30.0, 50.0)
    strength[:5, :5] = np.nan
    fields = Fields({"eps": X, "eps_test": Y}, without("eps", "eps_test"), strength)
    found = {one.name: value for one, value in boundaries("certified_accuracy", "adversarial", fields)}
    for name, edge in zip(("eps_lo", "eps_hi"), robust_window(3.0, 1.0, 64, 1, 3)):
        assert np.array_equal(np.isnan(found[name]), (X >= 1.01) | np.isnan(strength))
        assert crossings(y, found[name][:, 7]) == pytest.approx([edge])
    beyond = Fields({"eps": X, "eps_test": Y}, without("eps", "eps_test"), np.full(X.shape, 50.0))
    assert [one.name for one, _ in boundaries("certified_accuracy", "adversarial", beyond)] == ["eps_is_beta"]
    P = Fields({"n_robust": np.arange(1.0, 33)}, without("n_robust") | {"eps_test": 0.9}, np.full(32, 50.0))
    ((_, value),) = (one for one in boundaries("certified_accuracy", "adversarial", P) if one[0].name == "eps_hi")
    (at,) = crossings(P["n_robust"], value)  # what any A holds: alpha P_R / (P + P_R)
    assert 3 * at / (64 + at) == pytest.approx(0.9, rel=1e-3)


def test_no_crossing_beside_a_gap():
    value = np.array([-1.0, -1.0, np.nan, 1.0, -1.0, np.inf])
    assert crossings(np.arange(6.0), value) == [3.5, 4.0]


@pytest.mark.filterwarnings("error")
def test_predictions_beyond_the_patches_there_are_have_no_value():
    x = np.linspace(0, 70, 141)
    for metric in ("robust_wins", "certified_accuracy"):
        for _, value in boundaries(metric, "adversarial", Fields({"n_robust": x}, without("n_robust"))):
            assert np.isnan(value[x > 64]).all()


def test_the_plateau_is_drawn_where_it_is_predicted():
    x = np.array([10.0, 40.0, 90.0])
    level = curve("B", "adversarial", Fields({"ascent_lr": x}, without("ascent_lr")))
    np.testing.assert_allclose(level, [plateau(1.0, 3, 100.0, rate) for rate in x])
    fields = Fields({"eps": np.array([0.9, 1.0])}, without("eps"))
    np.testing.assert_array_equal(curve("B_over_plateau", "adversarial", fields), [np.nan, 1.0])
    assert np.isnan(curve("B", "adversarial", Fields({}, without() | {"rho": 0.01})))  # beyond the polynomial part
    assert curve("A", "adversarial", fields) is None
    assert curve("B", "standard", fields) is None
    assert curve("B", "adversarial", Fields({}, without("beta"))) is None

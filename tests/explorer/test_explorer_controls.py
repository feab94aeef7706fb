"""The page's state: its rules and messages are the library's, its address and its file restore it."""

import subprocess
import sys
from dataclasses import replace

import pytest

from advfeat.experiments.configuration import Figure3Config
from advfeat.explorer.controls import AXES, GROUPS, POINT, SLIDERS, Controls, control_of

CHANGED = Controls(alpha=2.5, beta=0.7, norm="l2", n_robust=3, n_iter=2000, up="beta", shown="plateau_ratio")


@pytest.mark.parametrize("state", [Controls(), CHANGED, Controls(init_std=0.0, eps=0.123456789, lr=1e-7)])
def test_an_address_restores_the_state(state):
    assert Controls.from_query(state.query()) == state
    assert Controls.from_query("?" + state.query()) == state
    assert Controls.from_texts(state.texts()) == state


def test_an_address_names_what_differs_from_the_defaults():
    assert Controls().query() == ""
    assert replace(Controls(), alpha=2.5, up="beta").query() == "alpha=2.5&up=beta"


@pytest.mark.parametrize(
    ("query", "control", "words"),
    [
        ("alpha=-1", "alpha", "alpha = -1: must be a number, finite and > 0"),
        ("alpha=abc", "alpha", "alpha = 'abc': must be a number"),
        ("alpha=", "alpha", "alpha = ''"),
        ("n_robust=65", "n_robust", "must be <= n_patches = 64"),
        ("patch_dim=9", "patch_dim", "must be >= 2 n_classes = 10"),
        ("n_iter=4001", "n_iter", "must be a multiple of n_records = 20"),
        ("q=2.5", "q", "must be an integer >= 2 and <= 100"),
        ("norm=l3", "norm", "did you mean 'l2'"),
        ("alpha=1e200", "alpha", "alpha^q must be a float64 number"),
        ("up=alpha", "up", "must differ from across"),
        ("n_iter=1000000000", "n_iter", "must be <= 2e+09"),
        ("n_classes=20&n_neurons=100&patch_dim=10000&n_iter=20&n_seeds=1&q=2", "patch_dim", "must be <= 2e+07"),
        ("alhpa=3", "", "did you mean 'alpha'"),
    ],
)
def test_what_is_refused_has_the_librarys_message_and_its_control(query, control, words):
    if "n_classes=20" in query:  # the bound on the work lets no such network through; the bound on weights is its own
        query = "n_classes=2&n_neurons=50&patch_dim=10000&n_iter=20&n_seeds=64"
    with pytest.raises(ValueError, match=r"must|unknown") as refusal:
        Controls.from_query(query)
    assert words in str(refusal.value)
    assert control_of(str(refusal.value)) == control


def test_the_file_is_the_configuration_that_the_command_trains(tmp_path):
    path = tmp_path / "point.toml"
    path.write_text(CHANGED.toml(str(path)), encoding="utf-8")
    assert Figure3Config.build(path) == CHANGED.config()
    assert CHANGED.toml().startswith("# advfeat reproduce --config point.toml\n")
    config = CHANGED.config()
    assert all(getattr(config, name) == getattr(CHANGED, name) for name in POINT)
    assert config.noise_std == 0


def test_every_field_of_the_point_is_a_key_of_figure_3_and_has_a_control():
    keys = Figure3Config.keys()
    assert set(POINT) <= set(keys)
    assert set(POINT) - {"norm"} == set(SLIDERS)
    assert set(AXES) <= set(SLIDERS)
    assert sorted(POINT) == sorted(name for names in GROUPS.values() for name in names)
    for name in POINT:
        assert Controls.known(name).help == keys[name].help


@pytest.mark.parametrize("name", SLIDERS)
def test_a_sliders_ends_are_allowed_and_its_positions_go_both_ways(name):
    slider = SLIDERS[name]
    for position in (0.0, 0.3, 1.0):
        assert slider.position(float(slider.value(position))) == pytest.approx(position)
    others = {"n_patches": 256, "n_iter": 200, "n_seeds": 1, "patch_dim": 1000}
    kind = Controls.known(name).kind
    for value in (slider.low, slider.high):
        base = others | {"n_robust": 1} | ({"n_patches": 2} if (name, value) == ("n_patches", 2) else {})
        assert getattr(Controls(**base | {name: kind(value)}), name) == value


def test_the_commands_import_nothing_of_the_page():
    code = "import sys, advfeat.cli.main; print([m for m in ('bokeh', 'numba', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

"""`advfeat data`: the window and Figure 2."""

import json

import pytest
from cli_runs import SMALL

from advfeat.cli import main


def test_data_prints_the_window_and_draws_figure_2(tmp_path, capsys):
    assert main(["data", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "(0.4987, 0.6)" in text
    assert "0.4286" in text  # c = 27/63
    assert (tmp_path / "figure2.png").stat().st_size > 10_000
    assert (tmp_path / "figure2.pdf").exists()


WINDOWS = {
    "l2": (["norm=l2"], ("none  ", "it is one of l_inf balls, and norm = 'l2'", "no window")),
    "large A": (["rho=0.1"], ("none  ", "> rho = 0.1, the robust feature leaves", "(P + P_R) = 0.3333", "no window")),
    "any A": (["rho=0.1", "n_robust=3"], ("(0.4609, 0.8182)  A (", "> rho = 0.1: what is left at any A", "inside")),
    "unknown": (["batch_size=3"], ("as long as A (alpha - eps_lo) <= rho; A is not known",)),
    "empty": (["alpha=1"], ("none  ", "it is empty, eps_lo = 0.4889 >= eps_hi = 0.333", "no window")),
}


@pytest.mark.parametrize(("pairs", "parts"), WINDOWS.values(), ids=WINDOWS)
def test_data_says_which_premise_of_the_window_fails(pairs, parts, tmp_path, capsys):
    assert main(["data", "--out", str(tmp_path), "--set", *SMALL, "init_std=0.5", "lr=0.1", *pairs]) == 0
    text = capsys.readouterr().out
    for part in parts:
        assert part in text, text


def test_data_compares_a_stated_part_of_many_samples(tmp_path, capsys):
    few = ["n_classes=2", "n_neurons=2", "patch_dim=4", "n_patches=2", "n_train=4", "n_iter=2", "n_records=1"]
    assert main(["data", "--out", str(tmp_path), "--set", *few, "n_test=2001"]) == 0
    assert "(Sec. 2.5), the first 2,000 of 2,001 samples" in capsys.readouterr().out
    assert main(["data", "--out", str(tmp_path), "--set", *few, "n_test=20"]) == 0
    assert "(Sec. 2.5)  " in capsys.readouterr().out


def test_data_as_json_is_what_the_table_says(tmp_path, capsys):
    assert main(["data", "--out", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["density_ratio"] == pytest.approx(27 / 63)
    assert found["window"] == pytest.approx([0.49868764, 0.6])
    assert (found["eps_test"], found["eps_test_is"]) == (0.5, "inside")
    assert found["smallest_gap"].keys() == {"value", "samples", "of"}
    assert found["figure"] == str(tmp_path / "figure2.png")
    assert main(["data", "--out", str(tmp_path), "--json", "--set", "alpha=1"]) == 0
    assert json.loads(capsys.readouterr().out)["window"] is None

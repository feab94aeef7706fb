"""docs/layers.md: every formula has its place there and its test, and the code on the page runs."""

import inspect
import re
from pathlib import Path

import pytest
from advfeat.kernels.layers import formulas

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
TESTS = (ROOT / "tests" / "kernels" / "test_layer_formulas.py").read_text(encoding="utf-8")


def own_functions():
    return [name for name, f in inspect.getmembers(formulas, inspect.isfunction) if f.__module__ == formulas.__name__]


def test_formula_function_and_test_have_one_name():
    helpers = {"of_channels"}  # says how a number per channel is laid out, and nothing to derive
    for name in set(own_functions()) - helpers:
        assert f"`{name}`" in PAGE, name
    tests = set(re.findall(r"\[(test_\w+)\]", PAGE))
    assert tests == set(re.findall(r"def (test_\w+)", TESTS))


def test_every_formula_stands_beside_pytorchs():
    """But for three that are parts of others."""
    used = set(re.findall(r"formulas\.(\w+)", TESTS))
    assert set(own_functions()) - used == {"of_channels", "columns", "standardised"}


def test_the_code_runs(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    names = {}
    exec(compile(code.replace("n_iter=300", "n_iter=3"), "docs/layers.md", "exec"), names)
    assert names["gradient"].keys() == names["net"].parameters.keys()
    assert names["own"].n_classes == 10
    assert (tmp_path / "digits.safetensors").exists()

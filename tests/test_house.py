"""The house: imports go down, none goes round, one room composes attacks with certificates, no class name twice."""

import ast
import graphlib
from collections import Counter

import pytest
from house import FLOOR, graph, imports, modules, room

MODULES, GRAPH = modules(), graph()
CERTIFICATES = {"certify", "interval_margin", "robust_radius"}
ATTACKS = {"APGD", "FGSM", "PGD", "Aligned", "AttackSuite", "FeatureSwap", "OneStepAscent", "Rescue", "Square",
           "feature_swap", "one_step_ascent"}  # fmt: skip


def wrong_ways(graph):
    """Imports that go up, or from a room to its neighbour."""
    return [(name, other) for name, others in graph.items() for other in others
            if room(name) != room(other) and FLOOR[room(other)] >= FLOOR[room(name)]]  # fmt: skip


def circle(graph):
    """A circle of imports, or None."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]


def composers(tree):
    """Functions that use an attack and a certificate both."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            if names & CERTIFICATES and names & ATTACKS:
                found.append(node.name)
    return found


def class_names(trees):
    return Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def test_every_file_stands_in_a_room():
    assert {room(name) for name in MODULES} <= set(FLOOR)


def test_imports_go_down():
    assert wrong_ways(GRAPH) == []


def test_no_import_goes_round():
    assert circle(GRAPH) is None


def test_one_room_composes_attacks_with_certificates():
    trees = {name: ast.parse(path.read_text()) for name, path in MODULES.items() if room(name) != "robustness"}
    assert {name: found for name, tree in trees.items() if (found := composers(tree))} == {}


def test_no_class_name_stands_twice():
    names = class_names(ast.parse(path.read_text()) for path in MODULES.values())
    assert [name for name, times in names.items() if times > 1] == []


def test_no_library_file_imports_torch():
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert "torch" not in {name.split(".")[0] for name in names}, path


# ------------------------------------------------------------------ each of these is seen failing
@pytest.fixture
def library(tmp_path):
    """Files of a library of its own, and its graph."""

    def make(**files):
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        folders = {"advfeat": tmp_path}
        known = modules(folders)
        return {name: imports(name, path, known) for name, path in known.items()}

    return make


def test_imports_that_go_up_or_across_are_seen(library):
    files = {"core__a": "def f():\n    from ..patches.b import g", "patches__b": ""}
    found = wrong_ways(library(**files, theory__d="from ..core import a", attacks__c="from ..theory import d"))
    assert sorted(found) == [("advfeat.attacks.c", "advfeat.theory.d"), ("advfeat.core.a", "advfeat.patches.b")]


def test_circles_are_seen_hidden_ones_too(library):
    files = {"core__a": "from . import b", "core__b": "def f():\n    from .a import g\n", "core__c": "from . import a"}
    assert set(circle(library(**files))) == {"advfeat.core.a", "advfeat.core.b"}


def test_composers_and_double_names_are_seen():
    text = "def f(net, X, y):\n    return PGD()(net, (X, y), 1), certify(net, X, y, 1)\n\ndef g():\n    certify\n"
    assert composers(ast.parse(text)) == ["f"]
    assert class_names([ast.parse("class A: pass"), ast.parse("class A: pass\nclass B: pass")]) == {"A": 2, "B": 1}

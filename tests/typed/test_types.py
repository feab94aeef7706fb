"""What `mypy --strict` says of users' code beside the installed package: README's snippets, a sample, what is wrong."""

import ast
import builtins
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from public_types import attributes, public

import advfeat

ROOT = Path(__file__).parents[2]
pytest.importorskip("mypy", reason="mypy is not installed; the extra `test` has it")

#: Wrong code, and what must be said of it.
WRONG = {
    "public name": ("af.trian", 'Module has no attribute "trian"'),
    "name of attacks": ("af.attacks.Alinged", 'Module has no attribute "Alinged"'),
    "result": ("af.train(net, data, config).histroy", '"TrainResult[PatchCNN]" has no attribute "histroy"'),
    "network": ("af.train(net, data, config).net.wieghts", '"PatchCNN" has no attribute "wieghts"'),
    "history": ('af.train(net, data, config).history.loss', '"History" has no attribute "loss"'),
    "series": ('af.train(net, data, config).history.at("loss").value', '"Series" has no attribute "value"'),
    "configuration": ("config.learning_rate", '"TrainConfig" has no attribute "learning_rate"'),
    "evaluation": ("af.robust_accuracy(net, data, eps=0.1).robust", '"RobustAccuracy" has no attribute "robust"'),
    "certificate": ("af.certify(net, data.X, data.y, 0.1).low", '"Certificate" has no attribute "low"'),
    "run": ('af.load("folder").nett', '"Run" has no attribute "nett"'),
    "suite": ('af.AttackSuite(["square"])(net, data, af.ThreatModel()).worst', 'has no attribute "worst"'),
    "recursion": ("theory.simulate(state, types, q=3, rho=1.0, lr=1.0, n_iter=3).C", 'has no attribute "C"'),
    "keyword": ("af.TrainConfig(lr=1.0, n_iter=3, learning_rate=1.0)", 'Unexpected keyword argument "learning_rate"'),
    "keyword by its old name": ("af.robust_accuracy(net, data, eps=0.1, seed=0)", 'Unexpected keyword argument "seed"'),
    "option of a network": ("images.ResNet18(4, bockend='numba')", 'Unexpected keyword argument "bockend"'),
    "missing rate": ("af.TrainConfig(n_iter=3)", 'Missing positional argument "lr"'),
    "norm": ('af.ThreatModel(norm="linfty")', "Literal['linf', 'l2', 'l1']"),
    "norm of training": ('af.TrainConfig(lr=1.0, n_iter=3, norm="l1")', "Literal['linf', 'l2']"),
    "budget": ('af.ThreatModel(budget="sample")', "Literal['patch', 'global']"),
    "objective": ('af.PGD("margn")', "Literal['neg_label_logit', 'margin'"),
    "backend": ('af.PatchCNN(net.W, backend="numbs")', "Literal['numba', 'numpy', 'cupy', 'cupy-tf32']"),
    "dtype": ('af.PatchCNN.init(2, 3, 8, rng=0, dtype="float16")', "Literal['float32', 'float64']"),
    "ascent": ('af.TrainConfig(lr=1.0, n_iter=3, ascent="steep")', "Literal['gradient', 'steepest']"),
    "certificate's name": ('af.certify(net, data.X, data.y, 0.1, method="crown")', "Literal['interval', 'linear'"),
    "attack's name": ('af.AttackSuite(["pgd"])', "List item 0 has incompatible type"),
    "image set": ('images.data.load("minst", "test")', "Literal['digits', 'mnist_5k'"),
    "text for a number": ('af.TrainConfig(lr="1", n_iter=3)', 'Argument "lr" to "TrainConfig" has incompatible type'),
}  # fmt: skip
GIVEN = """import advfeat as af
from advfeat import images, theory
import advfeat.images.data
from advfeat.kernels.recursion import Types


def f(net: af.PatchCNN, data: af.PatchData, config: af.TrainConfig, state: theory.State, types: Types) -> None:
    """


def snippets(text: str) -> list[str]:
    """Every Python block of a page, each able to stand alone: with the imports of the blocks before it, and whole
    earlier blocks where it uses names that they bind."""
    blocks = re.findall(r"^```(?:python|py)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    found = []
    for place, block in enumerate(blocks):
        open_names = used(block) - bound(block)
        for before in reversed(blocks[:place]):
            imports = "".join(f"{ast.unparse(one)}\n" for one in ast.parse(before).body if is_import(one))
            needed = (bound(before) - bound(imports)) & open_names
            block = (before if needed else imports) + block
            open_names = open_names | used(before) - bound(before) if needed else open_names
        found.append(block)
    return found


def is_import(node) -> bool:
    return isinstance(node, (ast.Import, ast.ImportFrom))


def bound(text: str) -> set[str]:
    """Names that a text assigns, imports or defines."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif is_import(node):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return found


def used(text: str) -> set[str]:
    names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    return names - set(vars(builtins))


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """A function: texts by name -> mypy's errors by name, beside the package that is imported here: an installed one
    where it stands, a checkout laid out as it is installed."""
    folder, package = tmp_path_factory.mktemp("users"), Path(advfeat.__file__).parent
    beside = []
    if not (package / "kernels").exists():
        for source, target in (("advfeat", "."), ("kernels", "kernels"), ("validation", "validation")):
            shutil.copytree(ROOT / source, folder / "installed" / "advfeat" / target, dirs_exist_ok=True)
        beside = ["--follow-imports", "silent"]
    environment = {"MYPYPATH": str(folder / "installed")} if beside else {}

    def run(texts, *options):
        code = folder / "code"
        shutil.rmtree(code, ignore_errors=True)
        code.mkdir()
        for number, text in enumerate(texts.values()):
            (code / f"case{number}.py").write_text(text)
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(folder / "cache"),
                   "--python-executable", sys.executable, "--no-pretty", "--hide-error-context", *beside, *options,
                   *(f"case{number}.py" for number in range(len(texts)))]  # fmt: skip
        done = subprocess.run(command, cwd=code, env=environment | outside(), capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        lines = re.findall(r"^case(\d+)\.py:\d+(?::\d+)?: error: (.*)$", done.stdout, re.MULTILINE)
        assert len(lines) == done.stdout.count(": error: "), done.stdout  # all of them in users' code
        return {name: [line for at, line in lines if int(at) == number] for number, name in enumerate(texts)}

    return run


def outside() -> dict[str, str]:
    """The environment without what makes a checkout visible: type checkers know of installed packages alone."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}


def test_readme_and_sample_pass(check):
    texts = {f"README {i}": text for i, text in enumerate(snippets((ROOT / "README.md").read_text()))}
    assert texts
    texts["sample"] = Path(__file__).with_name("sample.py").read_text()
    assert check(texts) == {name: [] for name in texts}


def test_the_sample_runs(capsys):
    runpy.run_path(str(Path(__file__).with_name("sample.py")), run_name="__main__")
    assert capsys.readouterr().out


def test_what_is_wrong_is_an_error(check):
    found = check({name: f"{GIVEN}{code}\n" for name, (code, _) in WRONG.items()} | {"right": f"{GIVEN}print(net.W)\n"})
    assert found.pop("right") == []
    missed = {name: found[name] for name, (_, said) in WRONG.items() if not any(said in line for line in found[name])}
    assert missed == {}


def test_no_attribute_is_any(check):
    """Every public attribute of every object that users meet, as mypy sees it: also those that have no annotation."""
    texts = {
        one.__name__: f"from {one.__module__} import {one.__name__} as X\n\ndef f(x: X) -> None:\n    pass\n"
        + "".join(f"    print(x.{name})\n" for name in attributes(one))
        for one in public()[1]
    }
    texts["careless"] = "def f(x: dict[str, list]) -> None:\n    print(x)\n"
    found = check(texts, "--disallow-any-expr")
    # of any shape, as NumPy 1 and 2 write it, and of a dtype that is not known
    arrays = r"(?<=ndarray\[)Any, |tuple\[Any, \.\.\.\]|(dtype|floating|integer)\[Any\]"
    bad = {name: [said for said in several if "Any" in re.sub(arrays, "", said.partition("(")[2] or said)]
           for name, several in found.items()}  # fmt: skip
    assert len(bad.pop("careless")) == 1
    assert {name: said for name, said in bad.items() if said} == {}


def test_snippets_stand_alone():
    first, second, third = "import a\nx = a.f()\n", "from b import g\ny = g(a)\n", "z = x + y\n"
    page = f"```python\n{first}```\ntext\n```\nno code\n```\n```py\n{second}```\n\n```python\n{third}```\n"
    assert snippets(page) == [first, f"import a\n{second}", f"{first}{second}{third}"]

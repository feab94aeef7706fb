"""Packaging: the checkout finds its sub-packages, and the frame of the repository holds."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import advfeat

ROOT = Path(__file__).resolve().parent.parent
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
IMPORT = (
    "import sys, advfeat, advfeat.kernels, advfeat.validation, advfeat.theory, kernels;"
    "print(advfeat.kernels.__file__, kernels.__file__)"
)


def test_a_checkout_finds_its_sub_packages_beside_another_package_named_kernels(tmp_path):
    """From the root, the checkout's own `kernels` shadows any other at top level; from elsewhere the other one wins.
    Either way advfeat.kernels is advfeat's."""
    other = tmp_path / "other" / "kernels"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    for path, top in (([ROOT, other.parent], ROOT), ([other.parent, ROOT], other.parent)):
        code = f"import sys; sys.path[:0] = {[str(p) for p in path]!r}; {IMPORT}"
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
        mine, theirs = done.stdout.split()
        assert Path(mine) == ROOT / "kernels" / "__init__.py"
        assert Path(theirs) == top / "kernels" / "__init__.py"


def test_an_installed_package_is_not_extended(tmp_path):
    """With advfeat/kernels present the guard stays away, even where folders of such names stand beside it."""
    inside = tmp_path / "advfeat"
    for source, target in (("advfeat", "."), ("kernels", "kernels"), ("validation", "validation")):
        shutil.copytree(ROOT / source, inside / target, dirs_exist_ok=True)
    for name in ("kernels", "validation"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the wrong one')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import advfeat.validation; print(*advfeat.__path__)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(inside)]


def test_setup_cfg_names_every_package():
    named = set(SETUP["options"]["packages"].split())
    folders = {"advfeat": ROOT / "advfeat"} | {f"advfeat.{n}": ROOT / n for n in ("kernels", "validation")}
    found = set()
    for name, folder in folders.items():
        for init in folder.rglob("__init__.py"):
            found.add(".".join([name, *init.parent.relative_to(folder).parts]))
    assert named == found | {"advfeat.examples"}  # which holds files alone


def test_classifiers_name_the_pythons_that_cells_test():
    cells = set(re.findall(r"\bpython-?(3\.\d+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8")))
    named = set(re.findall(r":: Python :: (3\.\d+)\n", SETUP["metadata"]["classifiers"] + "\n"))
    assert named == cells
    assert SETUP["options"]["python_requires"] == ">=" + min(cells, key=lambda version: int(version[2:]))


def test_the_table_of_extras_is_setup_cfgs():
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    table = {}
    for names, packages in re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", page, re.MULTILINE):
        extras, lists = re.findall(r"`(\w+)`", names), packages.split("; ")
        assert len(extras) == len(lists)
        table |= {extra: one.split(", ") for extra, one in zip(extras, lists)}
    lines = {extra: text.split("\n")[1:] for extra, text in SETUP["options.extras_require"].items()}
    assert table == {extra: [re.match(r"[\w-]+", line)[0] for line in held] for extra, held in lines.items()}


def test_the_extras_that_files_name_exist():
    files = [path for folder in ("advfeat", "docs", "kernels") for path in (ROOT / folder).rglob("*.[mp][dy]")]
    for path in [*files, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for names in re.findall(r"'(?:advfeat|\.)\[([\w,]+)\]'", path.read_text(encoding="utf-8")):
            assert set(names.split(",")) <= SETUP["options.extras_require"].keys(), path


def test_the_public_api():
    for name in advfeat.__all__:
        assert getattr(advfeat, name).__doc__, name


def test_figures_need_no_pyplot(tmp_path):
    """Its global state is unsafe in a server: a figure is an object of its own."""
    code = (
        "import sys; from advfeat.cli import main; assert main(['data', '--out', sys.argv[1]]) == 0; "
        "import advfeat.sweeps.gallery, advfeat.validation.run; print('matplotlib.pyplot' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "False"
    assert (tmp_path / "figure2.png").stat().st_size > 10_000

"""README and tutorials: what they show to be run runs, as it stands there, in a folder with the checkout's examples."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import advfeat

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ("README.md", "docs/tutorial-theory.md", "docs/tutorial-images.md")
COMMANDS = ["python -m pip install . && advfeat reproduce\n",
            "python -m pip install '.[test]' && python -m pytest -n auto --dist loadfile\n"]  # fmt: skip
SHORT = {"n_iter=4000": "n_iter=20", "n_iter=450": "n_iter=4", '"n_iter": 450': '"n_iter": 4', "eps=0.5": "eps=0.01"}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def snippets(page: str) -> list[str]:
    """Programs: README's stand alone, a tutorial's blocks belong together."""
    found = blocks((ROOT / page).read_text(encoding="utf-8"), "python")
    return found if page == "README.md" else ["".join(found)]


def lines_to_try() -> list[str]:
    return blocks(README[README.index("## More to try") :], "")[0].splitlines()


@pytest.fixture
def folder(tmp_path):
    """Where a reader stands: the examples, and the command on the path."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    command = tmp_path / "bin" / "advfeat"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m advfeat "$@"\n')
    command.chmod(0o755)
    return tmp_path


def run(folder, *arguments) -> str:
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": paths, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(arguments, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments[-1]}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_readme_is_short_and_begins_with_its_two_commands():
    assert len(README.splitlines()) <= 120
    assert blocks(README, "")[:2] == COMMANDS
    assert len(lines_to_try()) == 6
    assert len(snippets("README.md")) == 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_lines_to_try_run(folder):
    """One after the other: some take up what an earlier one left."""
    pytest.importorskip("sklearn")
    for line in lines_to_try():
        run(folder, "bash", "-c", line)
    assert (folder / "alpha-4" / "figure3.png").exists()
    assert list(folder.glob("advfeat-runs/*/index.html"))


@pytest.mark.parametrize(("page", "i"), [(page, i) for page in PAGES for i in range(len(snippets(page)))])
@pytest.mark.parametrize("size", ["shortened", pytest.param("as they stand", marks=pytest.mark.slow)])
def test_snippets_run(folder, page, i, size):
    code = snippets(page)[i]
    if "images" in code:
        pytest.importorskip("sklearn")
    if size == "shortened":
        assert any(long in code for long in SHORT)
        for long, short in SHORT.items():
            code = code.replace(long, short)
    run(folder, sys.executable, "-c", code)
    for name in re.findall(r'savefig\("(.*)"\)', code):
        assert (folder / name).stat().st_size > 5_000


def test_citation():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {advfeat.__version__}\n" in text
    for needed in ("cff-version: 1.2.0", "family-names: Li", "year: 2025", "license: MIT"):
        assert needed in text

"""The documentation without Sphinx: links, the names of the reference, and the checks of `make docs`, seen failing."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md"), ROOT / "kernels" / "OPTIMISATION.md"])


def extension(name) -> dict:
    return runpy.run_path(str(DOCS / "extensions" / f"{name}.py"))


def reference() -> set[str]:
    """The names that the pages of the reference list."""
    found, module = set(), ""
    for path in (DOCS / "reference").glob("*.rst"):
        for line in path.read_text(encoding="utf-8").splitlines():
            module = line.removeprefix(".. currentmodule:: ") if line.startswith(".. currentmodule") else module
            if re.fullmatch(r"   [\w.]+", line):
                found.add(f"{module}.{line.strip()}")
    return found


def commands() -> list[str]:
    """The commands whose options the pages show."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    return re.findall(r"^```\{command\}\nadvfeat (.*) --help\n```", text, re.MULTILINE)


def dead_links(path, text) -> list[str]:
    """Targets within the repository that are not there; what is made in the build has no file."""
    targets = re.findall(r"\]\((?!\w+:|#)([^)\s]+)\)", text)
    return [target for target in targets if not (path.parent / target.partition("#")[0]).exists()]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files(path):
    assert dead_links(path, path.read_text(encoding="utf-8")) == []


def test_a_dead_link_is_seen():
    text = "[a](findings.md#x) [b](https://x.org) [c](#y) [d](nothing.md) ![e](nothing.png)"
    assert dead_links(DOCS / "page.md", text) == ["nothing.md", "nothing.png"]


def test_every_public_name_is_documented_and_stands_in_the_reference():
    names = extension("public_names")
    assert names["undocumented"]() == []
    assert names["absent"](reference()) == []


def test_names_that_are_missing_are_seen():
    names = extension("public_names")
    assert names["absent"](reference() - {"advfeat.PGD"}) == ["advfeat.PGD", "advfeat.attacks.PGD"]

    class Bare:
        size = 3

        @property
        def n_runs(self):
            return 1

        def run(self):
            """With a docstring."""

    class Heir(Bare):
        def run(self):
            return 2

    Bare.__module__ = Heir.__module__ = "advfeat.somewhere"
    names["public_names"].__globals__["public_names"] = lambda: {"advfeat.Bare": Bare, "advfeat.Heir": Heir}
    missing = ["advfeat.Bare", "advfeat.Bare.n_runs", "advfeat.Heir", "advfeat.Heir.n_runs"]
    assert names["undocumented"]() == missing


def test_references_to_what_exists_need_no_page():
    exists = extension("public_names")["exists"]
    for target in ("np.ndarray", "dict[str", "~pathlib.Path", "advfeat.core.config.Key"):
        assert exists(target)
    assert exists("initialised", "advfeat.images.network")
    assert not exists("advfeat.core.config.Kay")
    assert not exists("initialised", "advfeat.images")


def test_every_commands_options_stand_on_one_page():
    assert sorted(commands()) == sorted(extension("command_options")["command_parsers"]())


def test_the_ledgers_page_is_what_the_verdicts_on_record_say():
    page = runpy.run_path(str(DOCS / "ledger.py"))["page"]()
    assert (DOCS / "ledger.md").read_text(encoding="utf-8") == page


def test_formulas_of_docstrings_are_no_markup():
    escaped = extension("plain_formulas")["escaped"]
    assert escaped("a |w|_1 of (N, *S), ``x | y`` and `a * b`") == r"a \|w\|_1 of (N, \*S), ``x | y`` and `a * b`"
    assert escaped("*args and **options") == "*args and **options"


def test_links_to_files_outside_lead_to_pages():
    shown = extension("outside_pages")["shown"]
    text = "[a](docs/images.md#data) [b](CONTRIBUTING.md) [c](LICENSE) [d](https://x.org)"
    assert shown(text) == "[a](images.md#data) [b](contributing.md) [c](../LICENSE) [d](https://x.org)"
    assert shown("[a](../README.md) [b](findings.md)", "docs") == "[a](index.md) [b](findings.md)"
    assert shown("[a](../examples/gallery) [b](gpu.md)", "docs") == "[a](gallery/index.rst) [b](gpu.md)"
    assert shown("[a](../docs/benchmarks.md)", "kernels") == "[a](benchmarks.md)"


# ------------------------------------------------------------------ what `make docs` asks of the built site
FINE = """<link rel="stylesheet" href="style.css"><link rel="canonical" href="https://x.org">
<a href="https://x.org">away</a> <a href="other.html#place">there</a> <a href="#here" id="here">here</a>"""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", []),
        ('<script src="https://cdn.x.org/a.js"></script>', ["page.html: loads https://cdn.x.org/a.js"]),
        ('<img src="//x.org/a.png">', ["page.html: loads //x.org/a.png"]),
        ('<a href="gone.html">', ["page.html: gone.html is not there"]),
        ('<img src="gone.png">', ["page.html: gone.png is not there"]),
        ('<a href="other.html#gone">', ["page.html: other.html#gone has no such place"]),
    ],
)
def test_the_built_site_is_checked(tmp_path, more, said):
    (tmp_path / "page.html").write_text(FINE + more)
    (tmp_path / "other.html").write_text('<h1 id="place">')
    (tmp_path / "style.css").write_text("a { background: url(a.png) }")
    assert extension("check_site")["complaints"](tmp_path) == said


def test_styles_that_load_from_elsewhere_are_seen(tmp_path):
    (tmp_path / "style.css").write_text('@import "https://x.org/a.css"; a { background: url("//x.org/a.png") }')
    loads = ["style.css: loads https://x.org/a.css", "style.css: loads //x.org/a.png"]
    assert extension("check_site")["complaints"](tmp_path) == loads

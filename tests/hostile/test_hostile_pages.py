"""Names that users choose are text on every page: no tag, no attribute and no script of theirs."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from sweep_specs import spec, write

from advfeat.cli import main

EVIL = "<img src=x onerror=alert(1)>&'\"<script>alert(2)<b>"


class Tags(HTMLParser):
    """Tags and attributes of a page that a name may have brought, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.foreign, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        held = dict(attributes)
        wrong = tag in ("script", "b2", "iframe", "object") or any(name.startswith("on") for name in held)
        wrong |= tag == "img" and not held.get("src", "").startswith("data:image/png;base64,")
        self.foreign += [(tag, held)] * wrong

    def handle_data(self, data):
        self.text += data


def run(*arguments):
    assert main([*map(str, arguments)]) == 0


@pytest.fixture(scope="module")
def pages(made, tmp_path_factory):
    """Every page that a command writes where folder, title or file are called EVIL."""
    top = tmp_path_factory.mktemp("pages")
    place = top / EVIL
    place.mkdir()
    for part in ("run", "pictures"):
        (place / part).symlink_to(made / part)
    curves = ["--samples", 2, "--eps-grid", 0.1, 0.2, "--max-nodes", 1]
    run("robustness", place / "run", *curves, "--out", place / "curves")
    run("images", "evaluate", place / "pictures", "--samples", 3, "--out", place / "evaluated")
    tables = spec(title="T") | {"plot": [{"metric": "A", "x": "alpha"}]}
    write(place / "spec.toml", {name: tables[name] for name in ("sweep", "base", "axes")})
    text = (place / "spec.toml").read_text().replace('title = "T"', f"title = '''{EVIL}'''")
    (place / "spec.toml").write_text(text + '[[plot]]\nmetric = "A"\nx = "alpha"\n')
    run("sweep", place / "spec.toml", "--jobs", 1, "--out", place / "swept")
    (place / f"{EVIL}.toml").write_text('[base]\ndataset = "digits"\n[cross]\nstarts = ["noise"]\n')
    run("images", "study", place / f"{EVIL}.toml", "--draw", "--out", place / "study")
    entry = place / "mine.py"
    entry.write_text(STATEMENT.format(evil=EVIL))
    run("validate", "--entries", entry, "--only", "mine.1", "--out", place / "ledger")
    return {page.relative_to(place): page.read_text() for page in sorted(place.rglob("*.html"))}


STATEMENT = """
from advfeat.validation import Check, Entry, Judgement, Picture, line

EVIL = {evil!r}


def judge(m):
    return Judgement([Check(EVIL, m["n"], "<=", 1)], notes=EVIL)


def draw(m):
    return Picture("x", "y", [line([0, 1], [0, 1], "n")])


MINE = Entry("mine.1", "mine", EVIL, EVIL, EVIL, lambda lab: {{"n": 0}}, judge, draw)
"""


def test_every_page_shows_names_as_text(pages):
    assert {page.parts[0] for page in pages} >= {"curves", "evaluated", "swept", "study", "ledger"}
    for page, text in pages.items():
        assert Tags(text).foreign == [], page


@pytest.mark.parametrize("part", ["swept", "study", "ledger"])
def test_the_names_are_there(pages, part):
    held = next(text for page, text in pages.items() if page.parts[0] == part)
    assert EVIL in Tags(held).text


def test_a_tag_of_a_name_is_seen():
    assert [tag for tag, _ in Tags(f"<p>{EVIL}</p>").foreign] == ["img", "script"]
    assert Path(EVIL).name == EVIL

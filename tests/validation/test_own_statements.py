"""Statements of one's own: the documentation's example, its results on the page, and what is said of bad files."""

import json
import re
import textwrap
from pathlib import Path

import pytest
from advfeat.validation import run as ledger
from advfeat.validation.run import ENTRIES

from advfeat.cli import main

ROOT = Path(__file__).parents[2]
EXAMPLE = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "statements.md").read_text(), re.DOTALL)[1]


@pytest.fixture
def write(tmp_path):
    def file(text, name="mine.py"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return file


def validate(path, out, *options):
    return main(["validate", "--quick", "--entries", str(path), "--out", str(out), *options])


def test_the_documentations_example(write, tmp_path, capsys):
    assert len(EXAMPLE.splitlines()) <= 32  # a statement takes thirty lines
    path, out = write(EXAMPLE), tmp_path / "out"
    assert validate(path, out, "--only", "mine.1", "B.3") == 0
    told = capsys.readouterr().out
    assert "mine.1  holds" in told
    held = json.loads((out / "ledger.json").read_text())["entries"]
    assert list(held) == ["B.3", "mine.1"]  # it joins the others
    assert held["mine.1"]["source"] == path
    assert held["mine.1"]["checks"][0]["met"] is True
    assert "mine.1" in (out / "ledger.md").read_text()
    html = (out / "ledger.html").read_text()
    assert html.count("data:image/png") == 2
    assert "Twice the learning rate" in html


def test_a_wrong_law_fails_and_changes_the_exit_status(write, tmp_path, capsys):
    wrong = EXAMPLE.replace('m["time"], axis=(1, 2)) * m["lr"]', 'm["time"], axis=(1, 2)) * m["lr"] ** 1.2')
    assert wrong != EXAMPLE
    assert validate(write(wrong), tmp_path / "out", "--only", "mine.1") == 1
    assert "mine.1: holds -> fails" in capsys.readouterr().out
    unrecorded = wrong.replace(', recorded="holds"', "")
    assert validate(write(unrecorded), tmp_path / "again", "--only", "mine.1") == 0


ENTRY = """
    from advfeat.validation import Check, Entry, Judgement, Picture, line

    def judge(m):
        return Judgement([Check("n", m["n"], "<=", 1)])

    def draw(m):
        return Picture("x", "y", [line([0, 1], [0, 1], "n")])

    MINE = Entry("mine.1", "mine", "A title", "A statement.", "n <= 1", lambda lab: {"n": 0}, judge, draw)
"""
BAD = {
    "no Python": ("x = (", r"mine.py, line 1: SyntaxError"),
    "an import that fails": ("import no_such_module", r"mine.py, line 1: ModuleNotFoundError: No module named"),
    "an error in the file": ("\n1 / 0", r"mine.py, line 2: ZeroDivisionError: division by zero"),
    "no entry": ("x = 1", r"mine.py: has no Entry at its top level \(docs/statements.md\)"),
    "a label of the ledger's": (ENTRY.replace("mine.1", "D.4"), r"mine.py: label 'D.4': is in the ledger already"),
    "a label twice": (ENTRY + "    TWO = Entry(*list(vars(MINE).values()))", r"label 'mine.1': is in the ledger"),
    "an empty statement": (ENTRY.replace("A statement.", " "), r"entry 'mine.1': statement = ' ': must be a text"),
    "a part that is no function": (ENTRY.replace(", judge, draw)", ", 3, draw)"), r"judge = 3: must be a function"),
    "a part that lacks": (ENTRY.replace(", judge, draw)", ", judge)"), r"line 10: TypeError: .*'draw'"),
    "an unknown verdict": (ENTRY.replace("draw)\n", 'draw, recorded="yes")\n'), r"recorded = 'yes': must be one of"),
    "a measurement that fails": (ENTRY.replace('{"n": 0}', "{}[1]"), r"line 10: entry 'mine.1': measure: KeyError: 1"),
    "a rule that fails": (ENTRY.replace('m["n"]', 'm["N"]'), r"line 5: entry 'mine.1': judge: KeyError: 'N'"),
    "a rule that says nothing": (ENTRY.replace("return Judgement(", "str("), r"judge: TypeError: returned NoneType"),
    "a rule without checks": (ENTRY.replace('[Check("n", m["n"], "<=", 1)]', "[]"), r"judge: ValueError: .* without"),
    "a check of no number": (ENTRY.replace('m["n"]', '"many"'), r"entry 'mine.1': judge: .*Error: "),
    "an operator that is none": (ENTRY.replace('"<="', '"=<"'), r"line 5: .* judge: ValueError: check 'n': op = "),
    "a figure that fails": (ENTRY.replace("[0, 1], [0", "[0, 1, 2], [0"), r"entry 'mine.1': draw: ValueError: x"),
    "a figure that is none": (ENTRY.replace("return Picture(", "str("), r"entry 'mine.1': draw: "),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_file_is_said_in_one_line(case, write, tmp_path, capsys):
    text, message = BAD[case]
    assert validate(write(textwrap.dedent(text)), tmp_path / "out", "--only", "mine.1") == 2
    told = capsys.readouterr().err
    assert re.search(message, told), told
    assert told.startswith("advfeat validate: ")
    assert told.count("\n") == 1
    assert "Traceback" not in told


def test_a_file_that_is_not_there_or_not_python(write, tmp_path, capsys):
    assert validate(tmp_path / "none.py", tmp_path / "out") == 2
    assert "none.py: there is no such file" in capsys.readouterr().err
    assert validate(write("x = 1", "mine.txt"), tmp_path / "out") == 2
    assert "mine.txt: must be a Python file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_errors_of_the_ledgers_own_entries_are_not_hidden(monkeypatch):
    def broken(lab):
        raise ZeroDivisionError

    entry = ledger.replace(ENTRIES["D.4"], measure=broken)
    with pytest.raises(ZeroDivisionError):
        ledger.run(["D.4"], entries={"D.4": entry})

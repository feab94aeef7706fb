"""The ledger's machinery: verdicts, coverage of the paper's labels, comparison with the record, pages, exit status."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from advfeat.validation import run as ledger
from advfeat.validation.ledger import ENTRIES, VERDICTS, Assumption, Entry, Judgement, Result, count, entry
from advfeat.validation.pages import as_html, as_json, as_markdown
from advfeat.validation.statistics import fit_exponent, shortfall, spread, wilson

from advfeat.cli import main

PAPER = ["2.3", "2.5", "B.3", "3.1", "3.2", "C.1", "C.2", "B.1", "B.2", "5.1", "5.2", "D.1", "D.15", "E.1", "E.8"]
PAPER += [f"D.{n}" for n in range(2, 29)] + [f"E.{n}" for n in range(2, 12)]
PAPER += [f"4.3.{n}" for n in range(1, 5)] + [f"4.4.{n}" for n in range(1, 4)]
PAPER += ["4.4.1 (eps = beta)", "4.4.3 (eps = beta)", "transfer"]
PAPER += [f"times ({what})" for what in ("take-off", "phase two", "linear part")]


def test_every_label_is_covered():
    assert sorted(set(PAPER) - set(ENTRIES)) == []


def test_the_record_speaks_of_exactly_these_entries():
    recorded = json.loads(ledger.EXPECTED.read_text())
    assert sorted(recorded) == sorted(ENTRIES)
    assert set(recorded.values()) <= set(VERDICTS)


def test_entries_stand_in_the_order_of_the_paper():
    code = "from advfeat.validation.run import choose; print(*dict.fromkeys(e.group for e in choose(None)), sep=';')"
    groups = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert groups.split(";")[:5] == ["data", "global minima", "tools", "standard training", "adversarial training"]


def test_every_entry_says_what_it_does():
    for e in ENTRIES.values():
        for text in (e.title, e.statement, e.formula, e.rule, e.group):
            assert text.strip(), e.label
        assert e.statement.endswith("."), e.label
        assert "margin" in e.rule or "not testable" in e.rule, e.label


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ({"margin": 0.0}, "holds"),
        ({"margin": -1e-9}, "fails"),
        ({"margin": np.nan}, "fails"),
        ({"margin": 1.0, "assumptions": [Assumption("c", "2", "< 1", False)]}, "outside its assumptions"),
        ({"margin": -1.0, "assumptions": [Assumption("c", "0.5", "< 1", True)]}, "fails"),
        ({"margin": 1.0, "untestable": "an asymptotic statement"}, "not testable at finite size"),
    ],
)
def test_verdicts(given, verdict):
    assert Judgement("", "", **given).verdict == verdict


def test_a_label_is_given_once():
    with pytest.raises(ValueError, match="in the ledger already"):
        entry("D.4", "g", "t", statement="s", formula="f", rule="r")(type("Again", (), {}))


# ------------------------------------------------------------------ running and writing
def draw(axis, m):
    axis.plot(m["x"])


def made(label, margin):
    e = Entry(label, "group", "A title", "A < statement.", "a < b", "a rule", lambda lab: {}, lambda m: None, draw)
    numbers = {"x": np.arange(3.0), "big": np.zeros((50, 50)), "nested": {"n": np.float32(1.5), "list": [np.int64(1)]}}
    return Result(e, numbers, Judgement("p", "m | n", margin, [Assumption("a", "1", "< 2", True)]), 0.1)


def test_differences_from_the_record(tmp_path, monkeypatch):
    record = tmp_path / "expected.json"
    record.write_text('{"X.1": "holds", "X.2": "holds"}')
    monkeypatch.setattr(ledger, "EXPECTED", record)
    assert ledger.differences([made("X.1", 1.0), made("X.2", 2.0)]) == []
    changed = ledger.differences([made("X.1", 1.0), made("X.2", -1.0), made("X.3", 1.0)])
    assert changed == ["X.2: holds -> fails", "X.3: not recorded -> holds"]


def test_the_pages(tmp_path):
    results = [made("X.1", 1.0), made("X.2", -1.0)]
    assert count(results) == dict(zip(VERDICTS, (1, 1, 0, 0)))
    page = ledger.write(results, tmp_path / "out", True)
    held = json.loads((tmp_path / "out" / "ledger.json").read_text())
    assert held["entries"]["X.2"]["verdict"] == "fails"
    assert held["entries"]["X.1"]["numbers"] == {
        "x": [0, 1, 2], "big": {"shape": [50, 50]}, "nested": {"n": 1.5, "list": [1]},
    }  # fmt: skip
    html = page.read_text()
    assert html.count("data:image/png;base64,") == 2
    assert "A &lt; statement." in html
    assert "A < statement" not in html
    assert re.findall(r'(?:src|href)="(?!data:|#)', html) == []  # self-contained
    assert "m \\| n" in as_markdown(results, True)
    assert as_json(results, False)["quick"] is False
    assert "Quick run" not in as_html(results, False)


def test_the_command(tmp_path, monkeypatch, capsys):
    out = str(tmp_path / "ledger")
    assert main(["validate", "--quick", "--only", "D.4", "--out", out]) == 0
    assert "D.4    holds" in capsys.readouterr().out
    record = tmp_path / "expected.json"
    record.write_text('{"D.4": "fails"}')
    monkeypatch.setattr(ledger, "EXPECTED", record)
    assert main(["validate", "--quick", "--only", "D.4", "--out", out]) == 1
    assert "D.4: fails -> holds" in capsys.readouterr().out
    assert main(["validate", "--only", "D.41", "--out", str(tmp_path / "other")]) == 2
    assert "did you mean 'D.4'" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert main(["validate", "--only", "d.4", "--only", "D.5", "--out", str(tmp_path / "other")]) == 2
    assert "did you mean 'D.4'" in capsys.readouterr().err
    assert main(["validate", "--quick", "--only", "B.3", "--only", "2.3", "--out", out]) == 1
    assert {"2.3", "B.3"} == set(json.loads((tmp_path / "ledger" / "ledger.json").read_text())["entries"])


# ------------------------------------------------------------------ statistics
def test_statistics():
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson 1927, by hand
    x = np.array([1.0, 2.0, 4.0, 8.0])
    fit = fit_exponent(x, 3 * x**-0.5)
    assert fit[:3] == pytest.approx((-0.5, -0.5, -0.5), abs=1e-6)
    assert fit.constant == pytest.approx(3)
    rng = np.random.default_rng(0)
    x = np.geomspace(1, 100, 12)
    inside = 0
    for _ in range(400):
        low, high = fit_exponent(x, x**0.7 * np.exp(0.3 * rng.standard_normal(12)))[1:3]
        inside += low <= 0.7 <= high
    assert wilson(inside, 400, 1 - 1e-6)[0] < 0.95 < wilson(inside, 400, 1 - 1e-6)[1]
    assert spread([1, np.nan, 3, 2]) == "2 [1, 3]"
    assert spread([np.nan]) == "none"
    assert shortfall(np.array([1e-14, 1e-12]), 1e-10) == pytest.approx(2)
    assert shortfall(np.inf, 1e-10) != shortfall(np.inf, 1e-10)  # NaN, which no rule accepts

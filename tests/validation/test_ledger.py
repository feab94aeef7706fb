"""The ledger's machinery: checks, verdicts, coverage of the paper's labels, the record, pages, exit status."""

import json
import re

import numpy as np
import pytest
from advfeat.validation import Picture, line
from advfeat.validation import run as ledger
from advfeat.validation.lab import HELD_OUT, Lab, shared
from advfeat.validation.ledger import VERDICTS, Check, Entry, Judgement, Result, count, exact, exponent, near, sure
from advfeat.validation.pages import as_html, as_json, as_markdown, rows
from advfeat.validation.run import ENTRIES
from advfeat.validation.statistics import fit_exponent, spread, wilson

from advfeat.cli import main

PAPER = ["2.3", "2.5", "B.3", "3.1", "3.2", "C.1", "C.2", "B.1", "B.2", "5.1", "5.2", "D.1", "D.15", "E.1", "E.8"]
PAPER += [f"D.{n}" for n in range(2, 29)] + [f"E.{n}" for n in range(2, 12)]
PAPER += [f"4.3.{n}" for n in range(1, 5)] + [f"4.4.{n}" for n in range(1, 4)]
PAPER += ["4.4.1 (eps = beta)", "4.4.3 (eps = beta)", "transfer"]
PAPER += [f"times ({what})" for what in ("take-off", "phase two", "linear part")]


def test_every_label_is_covered():
    assert sorted(set(PAPER) - set(ENTRIES)) == []


def test_the_record_speaks_of_exactly_these_entries():
    for quick in (False, True):
        recorded = ledger.recorded(quick)
        assert sorted(recorded) == sorted(ENTRIES)
        assert set(recorded.values()) <= set(VERDICTS)


def test_entries_stand_in_the_order_of_the_paper():
    groups = list(dict.fromkeys(entry.group for entry in ENTRIES.values()))
    assert groups[:5] == ["data", "global minima", "tools", "standard training", "adversarial training"]
    assert list(ENTRIES) == list(json.loads(ledger.EXPECTED.read_text()))


def test_every_entry_says_what_it_does():
    for e in ENTRIES.values():
        assert e.statement.endswith("."), e.label
        ours = e.label[0] not in "2345BCDE" or e.label in OURS or e.weaker_than != ""
        assert (e.source == "ours") == ours, e.label


OURS = ("5.2 (orthogonal)", "D.4 (noise)", "D.18 (saturation)", "D.21 (own start)")


def test_a_weaker_form_holds_and_what_it_is_weaker_than_fails():
    recorded = ledger.recorded()
    for e in ENTRIES.values():
        if e.weaker_than:
            assert (recorded[e.label], recorded[e.weaker_than]) == ("holds", "fails"), e.label
            assert e.source == "ours"


# ------------------------------------------------------------------ checks
@pytest.mark.parametrize(
    ("check", "margin"),
    [
        (Check("a", 0.25, "<=", 1), 0.75),
        (Check("a", [0.25, 1.5], "<=", 1), -0.5),  # the worst counts
        (Check("a", [0.25, 0.5], ">=", [0.2, 0.4]), 0.05),
        (Check("a", 0.2, "<=", 0.8, "share"), 0.75),
        (Check("a", 1.2, ">=", 0.8, "share"), 0.5),
        (Check("a", 1e-12, "<=", 1e-10, "decades"), 2),
        (Check("a", 0.0, "<=", 1e-10, "decades"), 290),
        (Check("a", 1e-3, ">=", 1e-4, "decades"), 1),
        (Check("a", 0, "<=", 0, "flag"), np.inf),
        (Check("a", 1, "<=", 0, "flag"), -1),
        (Check("a", 0.5, "in", (0.4, 0.6)), np.inf),
        (Check("a", 0.6, "in", (0.4, 0.6)), -1),
        (Check("a", np.nan, "<=", 1), np.nan),
        (Check("a", [], "<=", 1), np.nan),
        (Check("a", np.inf, "<=", 1, "decades"), -np.inf),
        (near("a", [0.95, 1.02], 1, 0.1), 0.5),
        (exact("a", [1e-14, 1e-12]), 2),
        (sure("a", np.arange(10) < 8, 0.5), 0.4902 - 0.5),  # Wilson 1927, by hand
        (sure("a", np.zeros(0, bool), 0.5), np.nan),
    ],
)
def test_margins(check, margin):
    assert check.margin == pytest.approx(margin, abs=1e-4, nan_ok=True)
    assert check.met == (margin >= 0)
    assert Judgement([check]).verdict == ("holds" if margin >= 0 else "fails")


def test_strict_checks_exclude_their_bound():
    assert [Check("a", 1.0, op, 1.0).met for op in ("<=", "<", ">=", ">", "==")] == [True, False, True, False, True]


def test_a_check_is_text():
    assert Check("error", 0.25, "<=", 1.0).row == ["error", "0.25", "<= 1", "0.75", "met"]
    row = ["error", "2 [1, 4]", "<= 3", "-0.333 of the bound", "NOT met"]
    assert Check("error", [1, 2, 4], "<=", 3, "share").row == row
    assert Check("radius", 0.5, "in", (0.4, 0.6)).row == ["radius", "0.5", "0.400 to 0.600", "", "met"]
    judgement = Judgement([Check("error", 0.25, "<=", 1.0), Check("runs", 3, ">=", 2, shown="3 of 4")], "and more")
    assert judgement.rule == "error <= 1; runs >= 2"
    assert judgement.measured == "error: 0.25; runs: 3 of 4; and more"
    assert judgement.margin == 0.75


@pytest.mark.parametrize(("name", "bad"), [("op", {"op": "=<"}), ("unit", {"unit": "percent"})])
def test_a_check_of_an_unknown_kind_is_refused(name, bad):
    with pytest.raises(ValueError, match=f"check 'error': {name} = "):
        Check(**({"what": "error", "value": 1, "op": "<=", "bound": 2} | bad))


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ({}, "holds"),
        ({"checks": [Check("a", 1.0 + 1e-9, "<=", 1.0)]}, "fails"),
        ({"checks": [Check("a", 0, "<=", 1), Check("b", np.nan, "<=", 1)]}, "fails"),
        ({"checks": []}, "fails"),
        ({"assumptions": [Check("c", 2, "<", 1)]}, "outside its assumptions"),
        ({"assumptions": [Check("c", np.nan, "<", 1)]}, "outside its assumptions"),
        ({"checks": [Check("a", 2, "<=", 1)], "assumptions": [Check("c", 0.5, "<", 1)]}, "fails"),
        ({"untestable": "an asymptotic statement"}, "not testable at finite size"),
    ],
)
def test_verdicts(given, verdict):
    assert Judgement(**({"checks": [Check("a", 0, "<=", 1)]} | given)).verdict == verdict


def test_a_label_is_given_once():
    with pytest.raises(ValueError, match=r"label 'D.4': is in the ledger already, 'Feature learning iteration'"):
        ledger.by_label([ENTRIES["D.4"]], ENTRIES)


def test_a_shared_function_is_computed_once_in_a_lab():
    calls = []

    @shared
    def story(lab, seed, n=1):
        calls.append(seed)
        return seed * n

    lab = Lab()
    assert [story(lab, 2), story(lab, 2), story(lab, 3), story(lab, 2, n=2), story(lab, 2, n=2)] == [2, 2, 3, 4, 4]
    assert calls == [2, 3, 2]
    lab.give(7, story, 5)
    assert story(lab, 5) == 7
    assert story(Lab(), 5) == 5


# ------------------------------------------------------------------ running and writing
def draw(m):
    return Picture("x", "y", [line(m["x"], m["x"], "a line")])


def made(label, value, assumed=0):
    e = Entry(label, "group", "A title", "A < statement.", "a < b", lambda lab: {}, lambda m: None, draw)
    numbers = {"x": np.arange(3.0), "big": np.zeros((50, 50)), "nested": {"n": np.float32(1.5), "list": [np.int64(1)]}}
    return Result(e, numbers, Judgement([Check("m | n", value, ">=", 0)], "", [Check("a", assumed, "<", 2)]), 0.1)


def test_differences_from_the_record(tmp_path, monkeypatch):
    record = tmp_path / "expected.json"
    record.write_text('{"X.1": {"full": "holds", "quick": "fails"}, "X.2": "holds"}')
    monkeypatch.setattr(ledger, "EXPECTED", record)
    assert ledger.differences([made("X.1", 1.0), made("X.2", 2.0)]) == []
    changed = ledger.differences([made("X.1", 1.0), made("X.2", -1.0), made("X.3", 1.0)])
    assert changed == ["X.2: holds -> fails", "X.3: not recorded -> holds"]
    assert ledger.differences([made("X.1", -1.0), made("X.2", 2.0)], quick=True) == []


def test_the_pages(tmp_path):
    results = [made("X.1", 1.0), made("X.2", -1.0), made("X.3", 1.0, assumed=3), made("X.4", -1.0, assumed=3)]
    assert count(results) == dict(zip(VERDICTS, (1, 1, 2, 0)))
    page = ledger.write(results, tmp_path / "out", True)
    held = json.loads((tmp_path / "out" / "ledger.json").read_text())["entries"]
    assert held["X.2"]["verdict"] == "fails"
    assert held["X.2"]["checks"] == [
        {"what": "m | n", "value": "-1", "held_out": "", "required": ">= 0", "margin": "-1", "met": False}
    ]  # fmt: skip
    assert held["X.1"]["numbers"] == {
        "x": [0, 1, 2], "big": {"shape": [50, 50]}, "nested": {"n": 1.5, "list": [1]},
    }  # fmt: skip
    html = page.read_text()
    assert html.count("data:image/png;base64,") == 4
    assert "A &lt; statement." in html
    assert "A < statement" not in html
    assert re.findall(r'(?:src|href)="(?!data:|#)', html) == []  # self-contained
    glance = html[html.index("glance") : html.index('class="all"')]
    assert re.findall(r">(X\.\d)</a>", glance) == ["X.1", "X.2", "X.2", "X.3", "X.4", "X.3", "X.4"]
    assert "m | n: -1 (required &gt;= 0)" in glance
    assert "A title. a: 3 (required &lt; 2); the rule is met there all the same" in glance
    assert "Li &amp; Li 2025: <a" in glance
    assert "nor is the rule met there" in glance
    markdown = as_markdown(results, True)
    assert "m \\| n" in markdown
    assert "- **fails**, X.2: m | n: -1 (required >= 0)" in markdown
    assert as_json(results, False)["quick"] is False
    assert "Quick run" not in as_html(results, [""] * 4, False)


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


# ------------------------------------------------------------------ held-out seeds
def of_seeds(measure):
    """An entry that holds where what it measures is >= 0."""
    return Entry("X.1", "group", "A title", "A statement.", "x >= 0", measure,
                 lambda m: Judgement([Check("x", m["x"], ">=", 0)]), draw)  # fmt: skip


@pytest.mark.parametrize(
    ("measure", "verdicts", "shown"),
    [
        (lambda lab: {"x": 1.0}, ("holds", "holds", "holds"), ["x", "1", "the same", ">= 0", "1", "met"]),
        (lambda lab: {"x": lab.seeds[0] + 1.0}, ("holds", "holds", "holds"), ["x", "1", "1e+03", ">= 0", "1", "met"]),
        (lambda lab: {"x": 1.0 - lab.seed(0)}, ("holds", "fails", "fails"),
         ["x", "1", "-999", ">= 0", "-999", "NOT met"]),
        (lambda lab: {"x": lab.config().first_seed - 1.0}, ("fails", "holds", "fails"),
         ["x", "-1", "999", ">= 0", "-1", "NOT met"]),
    ],
)  # fmt: skip
def test_both_kinds_of_seeds_judge(measure, verdicts, shown):
    """Also where held-out seeds do better: the worse of the two counts, and the page says which it was."""
    entry = of_seeds(measure)
    (result,) = ledger.run(["X.1"], True, entries={"X.1": entry})
    assert (result.judgement.verdict, result.held_out.verdict, result.verdict) == verdicts
    assert rows(result) == [shown]
    page = as_html([result], [""], True)
    apart = f"{verdicts[0]} on the development seeds, {verdicts[1]} on the held-out ones"
    assert (apart in page) == (verdicts[1] != verdicts[0])
    assert as_json([result], True)["entries"]["X.1"]["seeds"] == {"development": verdicts[0], "held_out": verdicts[1]}


def test_every_entry_draws_from_the_labs_seeds():
    """No run, sample or direction is the same on both kinds of seeds, in any entry that is cheap enough to try."""
    for label in ("2.3", "2.5", "3.1", "3.2", "3.2 (premise met)", "C.1", "B.1", "D.2", "D.3", "E.2"):
        one, other = (ENTRIES[label].judge(ENTRIES[label].measure(Lab(True, first))) for first in (0, HELD_OUT))
        assert one.measured != other.measured, label


def test_a_failing_statement_shows_what_holds_instead():
    weaker = Entry("X.2", "group", "A weaker title", "A statement.", "x", lambda lab: {}, lambda m: None, draw, "ours",
                   weaker_than="X.1")  # fmt: skip
    results = [made("X.1", -1.0), Result(weaker, {}, Judgement([Check("a", 1, ">=", 0)]), 0.1)]
    page = as_html(results, [""] * 2, False)
    glance = page[page.index("glance") : page.index('class="all"')]
    assert re.search(
        r" 1, only outside the paper's assumptions or with less than it claims \(ours\)</td><td><a", glance
    )
    assert re.search(r"holds instead: <a [^>]*>X.2</a> A weaker title", glance)
    assert "a weaker form of X.1" in page


# ------------------------------------------------------------------ statistics
def test_statistics():
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson 1927, by hand
    x = np.array([1.0, 2.0, 4.0, 8.0])
    fit = fit_exponent(x, 3 * x**-0.5)
    assert fit[:3] == pytest.approx((-0.5, -0.5, -0.5), abs=1e-6)
    assert fit.constant == pytest.approx(3)
    assert exponent("a", fit, -0.4, 0.2).margin == pytest.approx(0.5, abs=1e-5)
    rng = np.random.default_rng(0)
    x = np.geomspace(1, 100, 12)
    inside = 0
    for _ in range(400):
        low, high = fit_exponent(x, x**0.7 * np.exp(0.3 * rng.standard_normal(12)))[1:3]
        inside += low <= 0.7 <= high
    assert wilson(inside, 400, 1 - 1e-6)[0] < 0.95 < wilson(inside, 400, 1 - 1e-6)[1]
    assert spread([1, np.nan, 3, 2]) == "2 [1, 3]"
    assert spread([np.nan]) == "none"

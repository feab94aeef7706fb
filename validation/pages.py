"""The ledger as JSON, Markdown and one self-contained HTML page with a figure per entry."""

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from html import escape
from itertools import zip_longest

import numpy as np
from matplotlib.figure import Figure

from ..core import store
from ..reporting.page import PAGE, table
from ..reporting.pictures import Picture
from ..reporting.style import legend_below, styled, subplots
from .ledger import SOURCES, VERDICTS, Check, Entry, Judgement, Result, count

COLORS = dict(zip(VERDICTS, ("#009e73", "#d55e00", "#b57600", "#777777")))
LARGEST = 64  # numbers of an array that go into the JSON; of larger ones the shape does
HEAD = ["check", "value, development seeds", "value, held-out seeds", "required", "margin", ""]
TWICE = "Every value that is drawn stands twice, from development and from held-out seeds; the worse verdict counts."
WEAKER = "only outside the paper's assumptions or with less than it claims (ours)"
MET = {"met": "the rule is met there all the same", "not": "nor is the rule met there"}

MORE_STYLE = """<style>
.verdict, .chip { color: #fff; border-radius: .6em; padding: .05em .6em; font-size: .85em; white-space: nowrap; }
.chip { display: inline-block; margin: .12em .1em; text-decoration: none; font-size: .8em; }
table.glance td { text-align: left; vertical-align: top; white-space: normal; }
section { border-top: 1px solid #ccc; margin-top: 1.8rem; padding-top: .4rem; }
section :is(td, th, td:first-child) { white-space: normal; }
section h2 { margin-top: .4rem; } code { background: #f4f4f4; padding: .1em .3em; white-space: pre-wrap; }
table.all :is(td, th), section :is(td, th) { text-align: left; } a { color: #0072b2; }
</style>"""


def _plain(value):
    """Numbers and arrays as JSON has them."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, np.ndarray):
        return value.tolist() if value.size <= LARGEST else {"shape": list(value.shape)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value] if len(value) <= LARGEST else {"length": len(value)}
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def pairs(result: Result, part: str) -> list[tuple[Check, Check | None]]:
    """The "checks" or "assumptions" on the development seeds, each beside that on the held-out ones, None without."""
    return [*zip_longest(*(getattr(j, part) for j in (result.judgement, result.held_out or Judgement([]))))]


def row(one: Check | None, other: Check | None, start: str = "") -> list[str]:
    """A table's row below HEAD, with the worse of both margins."""
    held = [c for c in (one, other) if c is not None]
    worst = min(held, key=lambda c: (c.met, c.margin)).row
    first, second = (c.row[1] if c else "" for c in (one, other))
    return [start + worst[0], first, second if second != first else "the same", *worst[2:]]


def rows(result: Result) -> list[list[str]]:
    """The checks and then the assumptions, as a table's rows below HEAD."""
    return [row(*c) for c in pairs(result, "checks")] + [row(*c, "assumed: ") for c in pairs(result, "assumptions")]


def as_json(results: Sequence[Result], quick: bool) -> dict:
    names, entries = ("what", "value", "held_out", "required", "margin"), {}

    def listed(r, part):
        return [dict(zip(names, row(*both))) | {"met": all(c.met for c in both if c)} for both in pairs(r, part)]

    for r in results:
        e, j = r.entry, r.judgement
        entries[e.label] = {
            "title": e.title, "group": e.group, "source": e.source, "statement": e.statement, "formula": e.formula,
            "rule": j.rule, "verdict": r.verdict, "margin": r.margin, "measured": j.measured, "reason": j.untestable,
            "seeds": {"development": j.verdict, "held_out": r.held_out and r.held_out.verdict},
            "measured_held_out": r.held_out and r.held_out.measured, "weaker_than": e.weaker_than,
            "checks": listed(r, "checks"), "assumptions": listed(r, "assumptions"),
            "seconds": round(r.seconds, 2), "numbers": _plain(r.measured),
        }  # fmt: skip
    return {"quick": quick, "counts": count(results), "environment": store.environment(), "entries": entries}


def _summary(results, quick):
    counts = ", ".join(f"{n} {verdict}" for verdict, n in count(results).items())
    return f"{len(results)} entries: {counts}." + (" Quick run: fewer seeds for trained networks." if quick else "")


def _why(result: Result) -> str:
    """Why an entry does not hold, in a few words."""
    judgement, seeds = result.worse, f"{result.seeds}: " * bool(result.seeds)
    if judgement.untestable:
        return judgement.untestable
    wrong = [c.row for c in [*judgement.assumptions, *judgement.checks] if not c.met]
    what, value, required, *_ = wrong[0]
    told = f"{seeds}{what}: {value.split('; ')[0]} (required {required})" + (
        f"; {len(wrong) - 1} more" if wrong[1:] else ""
    )
    outside = not all(a.met for a in judgement.assumptions)
    return f"{told}; {MET['met' if all(c.met for c in judgement.checks) else 'not']}" if outside else told


def whose(entry: Entry) -> str:
    """Whose statement it is, and of which it is a weaker form."""
    return entry.source + (f", a weaker form of {entry.weaker_than}" if entry.weaker_than else "")


def beside(result: Result) -> list[str]:
    """What was seen beside the checks, on either kind of seeds."""
    notes, held = result.judgement.notes, result.held_out.notes if result.held_out else ""
    return [notes] * bool(notes) + [f"on held-out seeds: {held}"] * (bool(held) and held != notes)


def as_markdown(results: Sequence[Result], quick: bool) -> str:
    def cells(*texts):
        return "| " + " | ".join(str(text).replace("|", "\\|").replace("\n", " ") for text in texts) + " |"

    lines = ["# Ledger", "", _summary(results, quick)]
    for verdict in VERDICTS[1:]:
        lines += [f"- **{verdict}**, {r.entry.label}: {_why(r)}" for r in results
                  if r.verdict == verdict]  # fmt: skip
    lines += ["", cells("label", "statement", "verdict", "margin", "measured"), cells(*5 * ["---"])]
    for r in results:
        j = r.judgement
        lines.append(cells(r.entry.label, r.entry.statement, r.verdict, f"{r.margin:.3g}", j.measured))
    for r in results:
        e, j = r.entry, r.judgement
        lines += ["", f"## {e.label}: {e.title}", "", e.statement, "", f"    {e.formula}", ""]
        lines += [f"- verdict: **{r.verdict}**, margin {r.margin:.4g} ({whose(e)})"] + [f"- {r.seeds}"] * bool(r.seeds)
        lines += [f"- reason: {j.untestable}"] * bool(j.untestable) + [f"- beside: {text}" for text in beside(r)]
        lines += ["", cells(*HEAD), cells(*6 * ["---"]), *(cells(*told) for told in rows(r))]
    return "\n".join(lines) + "\n"


def drawn(picture: Picture) -> Figure:
    """The picture as a figure, its legend below the axis."""
    figure, axis = subplots(figsize=(6.4, 3.4))
    picture.draw(axis)
    legend_below(figure, fontsize=7)
    return figure


def data_url(picture: Picture) -> str:
    """A picture as a PNG in a URL."""
    with styled(**{"savefig.dpi": 110}):
        held = io.BytesIO()
        drawn(picture).savefig(held, format="png")
        return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()


def _anchor(label):
    return "e" + "".join(c if c.isalnum() else "-" for c in label)


def _badge(verdict):
    return f'<span class="verdict" style="background:{COLORS[verdict]}">{verdict}</span>'


def _chip(entry: Entry, verdict: str) -> str:
    style = f'class="chip" style="background:{COLORS[verdict]}"'
    return f'<a {style} href="#{_anchor(entry.label)}">{escape(entry.label)}</a>'


def _glance(results) -> str:
    """Labels by verdict; of those that hold whose they are, of those that do not why, and what does hold instead."""
    lines, instead = [], {}
    for r in results:
        if r.entry.weaker_than and r.verdict == VERDICTS[0]:
            instead.setdefault(r.entry.weaker_than, []).append(r.entry)
    weaker = [e for entries in instead.values() for e in entries]
    for verdict in VERDICTS:
        chosen = [r for r in results if r.verdict == verdict and r.entry not in weaker]
        by_source = {}
        for r in chosen:
            by_source.setdefault(r.entry.source, []).append(_chip(r.entry, verdict))
        told = [f"{escape(source)}: {' '.join(held)}" for source, held in by_source.items()] or ["none"]
        if verdict != VERDICTS[0]:
            told += [
                f"{_chip(r.entry, verdict)} {escape(r.entry.title)}. {escape(_why(r))}" + "".join(
                    f"<br>&nbsp; holds instead: {_chip(e, VERDICTS[0])} {escape(e.title)}"
                    for e in instead.get(r.entry.label, ())) for r in chosen]  # fmt: skip
        lines.append(f"<tr><td>{_badge(verdict)} {len(chosen)}</td><td>{'<br>'.join(told)}</td></tr>")
        if verdict == VERDICTS[0] and weaker:
            chips = " ".join(_chip(e, verdict) for e in weaker)
            lines.append(f"<tr><td>{_badge(verdict)} {len(weaker)}, {WEAKER}</td><td>{chips}</td></tr>")
    return f'<table class="glance">{"".join(lines)}</table>'


def as_html(results: Sequence[Result], pictures: Sequence[str], quick: bool) -> str:
    lines, sections = [], []
    for r, picture in zip(results, pictures):
        e, j = r.entry, r.judgement
        ours = "" if e.source == SOURCES[0] else f" ({whose(e)})"
        lines.append(
            f'<tr><td><a href="#{_anchor(e.label)}">{escape(e.label)}</a></td><td>{escape(e.title + ours)}</td>'
            f"<td>{escape(e.group)}</td><td>{_badge(r.verdict)}</td><td>{r.margin:.3g}</td></tr>"
        )
        told = "".join(f"<p>{escape(text)}</p>" for text in (j.untestable, r.seeds, *beside(r)) if text)
        sections.append(
            f'<section id="{_anchor(e.label)}"><h2>{escape(f"{e.label}: {e.title}{ours}")} {_badge(r.verdict)}</h2>'
            f"<p>{escape(e.statement)}</p><p><code>{escape(e.formula)}</code></p>{table(HEAD, rows(r))}{told}"
            f'<img alt="{escape(e.label)}" src="{picture}"></section>'
        )
    head = "".join(f"<th>{name}</th>" for name in ("label", "statement", "group", "verdict", "margin"))
    versions = table(["part", "version"], [[k, v] for k, v in store.environment().items()])
    body = (
        f"{MORE_STYLE}<h1>Ledger: the paper's statements, held against networks and recursions</h1>"
        f'<p class="note">Li &amp; Li (ICLR 2025). {_summary(results, quick)} {TWICE} A margin says '
        f"how far inside its bound an entry's tightest check is.</p>{_glance(results)}"
        f'<table class="all"><tr>{head}</tr>{"".join(lines)}</table>{"".join(sections)}'
        f"<section><h2>Versions</h2>{versions}</section>"
    )
    return PAGE.format(title="advfeat: ledger", body=body)

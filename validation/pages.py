"""The ledger as JSON, Markdown and one self-contained HTML page with a figure per entry."""

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from html import escape

import numpy as np
from matplotlib.figure import Figure

from ..core import store
from ..reporting.page import PAGE, table
from ..reporting.pictures import Picture
from ..reporting.style import legend_below, styled, subplots
from .ledger import SOURCES, VERDICTS, Judgement, Result, count

COLORS = dict(zip(VERDICTS, ("#009e73", "#d55e00", "#b57600", "#777777")))
LARGEST = 64  # numbers of an array that go into the JSON; of larger ones the shape does
HEAD = ["check", "value", "required", "margin", ""]
MET = {"met": "the rule is met there all the same", "not": "nor is the rule met there"}

MORE_STYLE = """<style>
.verdict, .chip { color: #fff; border-radius: .6em; padding: .05em .6em; font-size: .85em; white-space: nowrap; }
.chip { display: inline-block; margin: .12em .1em; text-decoration: none; font-size: .8em; }
table.glance td { text-align: left; vertical-align: top; white-space: normal; }
section { border-top: 1px solid #ccc; margin-top: 1.8rem; padding-top: .4rem; } section td { white-space: normal; }
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


def rows(judgement: Judgement) -> list[list[str]]:
    """The checks and then the assumptions, as a table's rows below HEAD."""
    return [c.row for c in judgement.checks] + [[f"assumed: {c.row[0]}", *c.row[1:]] for c in judgement.assumptions]


def as_json(results: Sequence[Result], quick: bool) -> dict:
    names = ("what", "value", "required", "margin", "met")
    entries = {}
    for r in results:
        e, j = r.entry, r.judgement
        entries[e.label] = {
            "title": e.title, "group": e.group, "source": e.source, "statement": e.statement, "formula": e.formula,
            "rule": j.rule, "verdict": j.verdict, "margin": j.margin, "measured": j.measured, "reason": j.untestable,
            "checks": [dict(zip(names, c.row)) | {"met": c.met} for c in j.checks],
            "assumptions": [dict(zip(names, c.row)) | {"met": c.met} for c in j.assumptions],
            "seconds": round(r.seconds, 2), "numbers": _plain(r.measured),
        }  # fmt: skip
    return {"quick": quick, "counts": count(results), "environment": store.environment(), "entries": entries}


def _summary(results, quick):
    counts = ", ".join(f"{n} {verdict}" for verdict, n in count(results).items())
    return f"{len(results)} entries: {counts}." + (" Quick run: fewer seeds for trained networks." if quick else "")


def _why(judgement: Judgement) -> str:
    """Why an entry does not hold, in a few words."""
    if judgement.untestable:
        return judgement.untestable
    wrong = [c.row for c in [*judgement.assumptions, *judgement.checks] if not c.met]
    told = "{}: {} (required {})".format(*wrong[0]) + (f"; {len(wrong) - 1} more" if wrong[1:] else "")
    outside = not all(a.met for a in judgement.assumptions)
    return f"{told}; {MET['met' if all(c.met for c in judgement.checks) else 'not']}" if outside else told


def as_markdown(results: Sequence[Result], quick: bool) -> str:
    def cells(*texts):
        return "| " + " | ".join(str(text).replace("|", "\\|").replace("\n", " ") for text in texts) + " |"

    lines = ["# Ledger", "", _summary(results, quick)]
    for verdict in VERDICTS[1:]:
        lines += [f"- **{verdict}**, {r.entry.label}: {_why(r.judgement)}" for r in results
                  if r.judgement.verdict == verdict]  # fmt: skip
    lines += ["", cells("label", "statement", "verdict", "margin", "measured"), cells(*5 * ["---"])]
    for r in results:
        j = r.judgement
        lines.append(cells(r.entry.label, r.entry.statement, j.verdict, f"{j.margin:.3g}", j.measured))
    for r in results:
        e, j = r.entry, r.judgement
        lines += ["", f"## {e.label}: {e.title}", "", e.statement, "", f"    {e.formula}", ""]
        lines += [f"- verdict: **{j.verdict}**, margin {j.margin:.4g} ({e.source})"]
        lines += [f"- reason: {j.untestable}"] * bool(j.untestable) + [f"- beside: {j.notes}"] * bool(j.notes)
        lines += ["", cells(*HEAD), cells(*5 * ["---"]), *(cells(*row) for row in rows(j))]
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


def _glance(results) -> str:
    """Labels by verdict, those that do not hold with why."""
    lines = []
    for verdict in VERDICTS:
        chosen = [r for r in results if r.judgement.verdict == verdict]
        chips = {
            r.entry.label: f'<a class="chip" style="background:{COLORS[verdict]}" href="#{_anchor(r.entry.label)}">'
            f"{escape(r.entry.label)}</a>" for r in chosen
        }  # fmt: skip
        if verdict == VERDICTS[0] or not chosen:
            by_source = {r.entry.source: [] for r in chosen}
            for r in chosen:
                by_source[r.entry.source].append(chips[r.entry.label])
            told = "<br>".join(f"{escape(source)}: {' '.join(held)}" for source, held in by_source.items()) or "none"
        else:
            told = "<br>".join(f"{chips[r.entry.label]} {escape(r.entry.title)}. {escape(_why(r.judgement))}"
                               for r in chosen)  # fmt: skip
        lines.append(f"<tr><td>{_badge(verdict)} {len(chosen)}</td><td>{told}</td></tr>")
    return f'<table class="glance">{"".join(lines)}</table>'


def as_html(results: Sequence[Result], pictures: Sequence[str], quick: bool) -> str:
    lines, sections = [], []
    for r, picture in zip(results, pictures):
        e, j = r.entry, r.judgement
        ours = "" if e.source == SOURCES[0] else f" ({e.source})"
        lines.append(
            f'<tr><td><a href="#{_anchor(e.label)}">{escape(e.label)}</a></td><td>{escape(e.title + ours)}</td>'
            f"<td>{escape(e.group)}</td><td>{_badge(j.verdict)}</td><td>{j.margin:.3g}</td></tr>"
        )
        told = "".join(f"<p>{escape(text)}</p>" for text in (j.untestable, j.notes) if text)
        sections.append(
            f'<section id="{_anchor(e.label)}"><h2>{escape(f"{e.label}: {e.title}{ours}")} {_badge(j.verdict)}</h2>'
            f"<p>{escape(e.statement)}</p><p><code>{escape(e.formula)}</code></p>{table(HEAD, rows(j))}{told}"
            f'<img alt="{escape(e.label)}" src="{picture}"></section>'
        )
    head = "".join(f"<th>{name}</th>" for name in ("label", "statement", "group", "verdict", "margin"))
    versions = table(["part", "version"], [[k, v] for k, v in store.environment().items()])
    body = (
        f"{MORE_STYLE}<h1>Ledger: the paper's statements, held against networks and recursions</h1>"
        f'<p class="note">Li &amp; Li (ICLR 2025). {_summary(results, quick)} A margin says how far inside its bound '
        f"an entry's tightest check is.</p>{_glance(results)}"
        f'<table class="all"><tr>{head}</tr>{"".join(lines)}</table>{"".join(sections)}'
        f"<section><h2>Versions</h2>{versions}</section>"
    )
    return PAGE.format(title="advfeat: ledger", body=body)

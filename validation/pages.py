"""The ledger as JSON, Markdown and one self-contained HTML page with a figure per entry."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from matplotlib.figure import Figure

from ..core import store
from ..reporting.page import PAGE, table
from ..reporting.style import legend_below, styled, subplots
from .ledger import VERDICTS, Result, count

COLORS = dict(zip(VERDICTS, ("#009e73", "#d55e00", "#e69f00", "#777777")))
LARGEST = 64  # numbers of an array that go into the JSON; of larger ones the shape does

MORE_STYLE = """<style>
.verdict { color: #fff; border-radius: .6em; padding: .05em .6em; font-size: .85em; white-space: nowrap; }
section { border-top: 1px solid #ccc; margin-top: 1.8rem; padding-top: .4rem; }
section h2 { margin-top: .4rem; } code { background: #f4f4f4; padding: .1em .3em; white-space: pre-wrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .6rem 0; }
dt { color: #555; } dd { margin: 0; } table.all :is(td, th) { text-align: left; } a { color: #0072b2; }
</style>"""


def _plain(value):
    """Numbers and arrays as JSON has them."""
    if isinstance(value, np.ndarray):
        return value.tolist() if value.size <= LARGEST else {"shape": list(value.shape)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value] if len(value) <= LARGEST else {"length": len(value)}
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def as_json(results: Sequence[Result], quick: bool) -> dict:
    entries = {}
    for r in results:
        e, j = r.entry, r.judgement
        entries[e.label] = {
            "title": e.title, "group": e.group, "statement": e.statement, "formula": e.formula, "rule": e.rule,
            "verdict": j.verdict, "margin": j.margin, "predicted": j.predicted, "measured": j.measured,
            "assumptions": [vars(a) for a in j.assumptions], "reason": j.untestable, "seconds": round(r.seconds, 2),
            "numbers": _plain(r.measured),
        }  # fmt: skip
    return {"quick": quick, "counts": count(results), "environment": store.environment(), "entries": entries}


def _assumptions(judgement) -> list[list[str]]:
    return [[a.what, a.value, a.required, "met" if a.met else "NOT met"] for a in judgement.assumptions]


def _summary(results, quick):
    counts = ", ".join(f"{n} {verdict}" for verdict, n in count(results).items())
    return f"{len(results)} entries: {counts}." + (" Quick run: fewer seeds for trained networks." if quick else "")


def as_markdown(results: Sequence[Result], quick: bool) -> str:
    def cell(text):
        return str(text).replace("|", "\\|").replace("\n", " ")

    lines = ["# Ledger", "", _summary(results, quick), "", "| label | statement | verdict | margin | measured |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for r in results:
        j = r.judgement
        cells = (r.entry.label, r.entry.statement, j.verdict, f"{j.margin:.3g}", j.measured)
        lines.append("| " + " | ".join(map(cell, cells)) + " |")
    for r in results:
        e, j = r.entry, r.judgement
        lines += ["", f"## {e.label}: {e.title}", "", e.statement, "", f"    {e.formula}", ""]
        lines += [f"- verdict: **{j.verdict}**", f"- rule: {e.rule}", f"- margin: {j.margin:.4g}"]
        lines += [f"- predicted: {j.predicted}"]
        lines += [f"- measured: {j.measured}", *([f"- reason: {j.untestable}"] if j.untestable else [])]
        lines += [f"- assumption: {a}: {value} (required: {rule}), {met}" for a, value, rule, met in _assumptions(j)]
    return "\n".join(lines) + "\n"


def drawn(entry, measured) -> Figure:
    """The entry's figure, its legend below the axis."""
    figure, axis = subplots(figsize=(6.4, 3.4))
    entry.draw(axis, measured)
    legend_below(figure, fontsize=7)
    return figure


def picture(result: Result) -> str:
    """The entry's figure as a data URL."""
    with styled(**{"savefig.dpi": 110}):
        held = io.BytesIO()
        drawn(result.entry, result.measured).savefig(held, format="png")
        return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()


def _badge(verdict):
    return f'<span class="verdict" style="background:{COLORS[verdict]}">{verdict}</span>'


def as_html(results: Sequence[Result], quick: bool) -> str:
    rows, sections = [], []
    for r in results:
        e, j = r.entry, r.judgement
        anchor = "e" + "".join(c if c.isalnum() else "-" for c in e.label)
        rows.append(
            f'<tr><td><a href="#{anchor}">{escape(e.label)}</a></td><td>{escape(e.title)}</td>'
            f"<td>{escape(e.group)}</td><td>{_badge(j.verdict)}</td><td>{j.margin:.3g}</td></tr>"
        )
        facts = [("rule", e.rule), ("predicted", j.predicted), ("measured", j.measured), ("margin", f"{j.margin:.4g}")]
        facts += [("reason", j.untestable)] if j.untestable else []
        listed = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts)
        assumed = table(["assumption", "value", "required", ""], _assumptions(j)) if j.assumptions else ""
        sections.append(
            f'<section id="{anchor}"><h2>{escape(e.label)}: {escape(e.title)} {_badge(j.verdict)}</h2>'
            f"<p>{escape(e.statement)}</p><p><code>{escape(e.formula)}</code></p><dl>{listed}</dl>{assumed}"
            f'<img alt="{escape(e.label)}" src="{picture(r)}"></section>'
        )
    head = "".join(f"<th>{name}</th>" for name in ("label", "statement", "group", "verdict", "margin"))
    versions = table(["part", "version"], [[k, v] for k, v in store.environment().items()])
    body = (
        f"{MORE_STYLE}<h1>Ledger: the paper's statements, held against networks and recursions</h1>"
        f'<p class="note">Li &amp; Li (ICLR 2025). {_summary(results, quick)} A margin is at least 0 where the '
        f"entry's rule is met.</p>"
        f'<table class="all"><tr>{head}</tr>{"".join(rows)}</table>{"".join(sections)}'
        f"<section><h2>Versions</h2>{versions}</section>"
    )
    return PAGE.format(title="advfeat: ledger", body=body)

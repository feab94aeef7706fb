"""``python docs/ledger.py`` writes docs/ledger.md from the ledger's entries and the verdicts on record."""

from pathlib import Path

from advfeat.validation.ledger import SOURCES, VERDICTS
from advfeat.validation.run import ENTRIES, recorded

PAGE = Path(__file__).with_name("ledger.md")
HEAD = """# The ledger as it stands

Made by `python docs/ledger.py` from `validation/expected.json`. [`advfeat validate`](validate.md) measures every entry
again, on development seeds and on held-out ones, with numbers and figures; [findings](findings.md) says why some fail,
[the rules that changed](ledger-rules.md) what each verdict was before. Labels are the paper's, statements our reading.

| verdict | whose | entries | which |
| --- | --- | --- | --- |
"""
WHOSE = {
    "the paper's": "the paper's",
    "a weaker form": "ours, outside the paper's assumptions or with less than it claims",
    "ours": "ours",
}


def cell(text: str) -> str:
    """Text that is no markup in a cell of a table."""
    for sign in "\\|*_<[$":
        text = text.replace(sign, f"\\{sign}")
    return text


def page() -> str:
    verdicts = recorded()
    lines, held = [], {}
    for label, entry in ENTRIES.items():
        weaker, paper = bool(entry.weaker_than), entry.source == SOURCES[0]
        whose = "a weaker form" if weaker else "the paper's" if paper else "ours"
        held.setdefault((verdicts[label], whose), []).append(label)
    for verdict in VERDICTS:
        for whose, told in WHOSE.items():
            if labels := held.get((verdict, whose)):
                lines.append(f"| {verdict} | {told} | {len(labels)} | {'; '.join(labels)} |")
    lines.append(f"| all | | {len(verdicts)} | |")
    for group in dict.fromkeys(entry.group for entry in ENTRIES.values()):
        lines += ["", f"## {group[0].upper()}{group[1:]}", "", "| label | statement | verdict |", "| --- | --- | --- |"]
        for entry in ENTRIES.values():
            if entry.group == group:
                weaker = f", a weaker form of {entry.weaker_than}" if entry.weaker_than else ""
                ours = "" if entry.source == SOURCES[0] else f" ({entry.source}{weaker})"
                says = f"**{cell(entry.title)}{ours}.** {cell(entry.statement)}"
                lines.append(f"| {cell(entry.label)} | {says} | {verdicts[entry.label]} |")
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""``python docs/ledger.py`` writes docs/ledger.md from the ledger's entries and the verdicts on record."""

import json
from collections import Counter
from pathlib import Path

from advfeat.validation.ledger import SOURCES, VERDICTS
from advfeat.validation.run import ENTRIES, EXPECTED

PAGE = Path(__file__).with_name("ledger.md")
HEAD = """# The ledger as it stands

Made by `python docs/ledger.py` from `validation/expected.json`. [`advfeat validate`](validate.md) measures every entry
again, with numbers and figures; [findings](findings.md) says why some fail. Labels are the paper's, statements our
reading of them.

| verdict | entries | which |
| --- | --- | --- |
"""


def cell(text: str) -> str:
    """Text that is no markup in a cell of a table."""
    for sign in "\\|*_<[$":
        text = text.replace(sign, f"\\{sign}")
    return text


def page() -> str:
    verdicts = json.loads(EXPECTED.read_text(encoding="utf-8"))
    counts, lines = Counter(verdicts.values()), []
    for verdict in VERDICTS:
        labels = [label for label in ENTRIES if verdicts[label] == verdict]
        lines.append(f"| {verdict} | {counts[verdict]} | {'all others' if verdict == 'holds' else '; '.join(labels)} |")
    lines.append(f"| all | {len(verdicts)} | |")
    for group in dict.fromkeys(entry.group for entry in ENTRIES.values()):
        lines += ["", f"## {group[0].upper()}{group[1:]}", "", "| label | statement | verdict |", "| --- | --- | --- |"]
        for entry in ENTRIES.values():
            if entry.group == group:
                ours = "" if entry.source == SOURCES[0] else f" ({entry.source})"
                says = f"**{cell(entry.title)}{ours}.** {cell(entry.statement)}"
                lines.append(f"| {cell(entry.label)} | {says} | {verdicts[entry.label]} |")
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""The frame of every HTML page, and its tables."""

from html import escape

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1020px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; margin-bottom: .2rem; }} h2 {{ font-size: 1.15rem; margin-top: 2rem; }}
img {{ max-width: 100%; }} .note {{ color: #555; }}
table {{ border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; font-size: .92em; }}
th, td {{ padding: .22rem .7rem; text-align: right; border-bottom: 1px solid #e4e4e4; }}
th {{ font-weight: 600; border-bottom: 1px solid #999; }}
td:first-child, th:first-child {{ text-align: left; white-space: nowrap; }}
details {{ margin: .5rem 0; }} summary {{ cursor: pointer; }}
</style></head><body>
{body}
</body></html>
"""


def table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in rows) + "</table>"

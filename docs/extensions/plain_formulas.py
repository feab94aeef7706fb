"""Docstrings hold formulas in plain text: in them a bar or an asterisk is itself, and no markup."""

import re

LITERAL = re.compile(r"(``.+?``|`[^`]+`)")
BEFORE_NUMPYDOC = 100


def escaped(line: str) -> str:
    """The line with bars and asterisks escaped, but not inside of literals; those of ``*args`` are numpydoc's."""
    parts = LITERAL.split(line)
    parts[::2] = [re.sub(r"\||(?<!^)(?<!\*)\*(?!\*)", r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts)


def _escape(app, what, name, obj, options, lines):
    lines[:] = [escaped(line) for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", _escape, priority=BEFORE_NUMPYDOC)
    return {"parallel_read_safe": True}

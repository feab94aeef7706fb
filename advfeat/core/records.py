"""Data and results: frozen records of arrays, each equal to itself alone, whose `repr` is one line."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TypeVar, dataclass_transform

import numpy as np

from . import checks

Kind = TypeVar("Kind")


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(field,))
def record(kind: type[Kind]) -> type[Kind]:
    """A frozen dataclass that may hold arrays: compared by identity, since arrays have no one truth, and shown by
    `line`."""
    made = dataclass(frozen=True, eq=False, repr=False)(kind)
    made.__repr__ = line
    return made


def line(self: object) -> str:
    """The fields of a dataclass or a named tuple in one line: arrays by dtype and shape, tables by their names."""
    names = getattr(self, "_fields", None) or [one.name for one in fields(self)]
    return f"<{type(self).__name__}: {', '.join(f'{name} {_brief(getattr(self, name))}' for name in names)}>"


def _brief(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}" if value.ndim else repr(value.item())
    if isinstance(value, tuple) and any(isinstance(one, np.ndarray) for one in value):
        return f"({', '.join(map(_brief, value))})"
    if isinstance(value, dict):
        return f"{{{', '.join(map(str, value))}}}"
    return checks.shown(value)

"""The ledger: every numbered statement of the paper as an entry with a measurement, a rule and a verdict.

An entry measures (numbers from networks, recursions or draws), judges (a rule that turns numbers into a margin, >= 0
where the statement's rule is met) and draws (one figure).  The verdict follows from the judgement alone:

    not testable at finite size   a reason why no finite experiment decides it,
    outside its assumptions       an assumption's measured value does not meet what is required,
    holds                         margin >= 0,
    fails                         otherwise, NaN included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

VERDICTS = ("holds", "fails", "outside its assumptions", "not testable at finite size")


@dataclass(frozen=True)
class Assumption:
    """`what` the statement assumes, the `value` measured, what is `required`, and whether it is `met`."""

    what: str
    value: str
    required: str
    met: bool


@dataclass(frozen=True)
class Judgement:
    """What a rule makes of an entry's numbers; `margin` is in the unit that the entry's rule states."""

    predicted: str
    measured: str
    margin: float
    assumptions: list[Assumption] = field(default_factory=list)
    untestable: str = ""

    @property
    def verdict(self) -> str:
        if self.untestable:
            return VERDICTS[3]
        if not all(a.met for a in self.assumptions):
            return VERDICTS[2]
        return VERDICTS[0] if self.margin >= 0 else VERDICTS[1]


@dataclass(frozen=True)
class Entry:
    """A statement: label of the paper, what it says in one sentence, formula, rule, and its three functions.

    ``measure(lab) -> dict`` of numbers and arrays, ``judge(measured) -> Judgement``, ``draw(axis, measured)``.
    """

    label: str
    group: str
    title: str
    statement: str
    formula: str
    rule: str
    measure: Callable
    judge: Callable
    draw: Callable


ENTRIES: dict[str, Entry] = {}


def entry(label: str, group: str, title: str, *, statement: str, formula: str, rule: str):
    """Register a class whose functions `measure`, `judge` and `draw` make the entry `label`."""

    def register(cls):
        if label in ENTRIES:
            raise ValueError(f"label {label!r}: is in the ledger already")
        functions = (getattr(cls, name) for name in ("measure", "judge", "draw"))
        ENTRIES[label] = Entry(label, group, title, statement, formula, rule, *functions)
        return cls

    return register


@dataclass(frozen=True)
class Result:
    """An entry with its numbers, its judgement and the seconds it took (what it shares counts for the first user)."""

    entry: Entry
    measured: dict
    judgement: Judgement
    seconds: float


def count(results: Sequence[Result]) -> dict[str, int]:
    """Entries by verdict."""
    verdicts = [result.judgement.verdict for result in results]
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}

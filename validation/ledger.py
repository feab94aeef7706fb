"""The ledger: every numbered statement of the paper as an entry with a measurement, a rule and a verdict.

An entry measures (numbers from networks, recursions or draws), judges (checks of those numbers against bounds) and
draws (one picture).  The verdict follows from the judgement alone:

    not testable at finite size   a reason why no finite experiment decides it,
    outside its assumptions       the measured value of an assumption is not what is required,
    holds                         every check is met,
    fails                         otherwise, NaN and empty arrays included.

Whatever draws is measured twice, on the development seeds and on seeds that nobody had looked at when the rule was
made; the verdict is the worse of the two.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .statistics import Exponent, spread, wilson

SOURCES = ("Li & Li 2025", "ours")  # of the ledger's own entries; others come from files
VERDICTS = ("holds", "fails", "outside its assumptions", "not testable at finite size")
WORSE = dict(zip(VERDICTS, (0, 3, 2, 1)))
COMPARED = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt, "==": operator.eq}
EXACT = 1e-10  # two float64 computations of one number after thousands of iterations, relative to the largest
UNITS = {"difference": "", "share": " of the bound", "decades": " decades", "flag": ""}


@dataclass(frozen=True, eq=False)  # values are arrays
class Check:
    """`value op bound`, the worst of several where either is an array: a rule, its margin and a table's row at once.

    `op` is <=, <, >=, >, == or "in" an open interval (low, high).  `unit` says how the margin is measured: as the
    "difference" to the bound, a "share" of the bound, "decades" (log10 of the quotient), or as a "flag", which is met
    or not and never the smallest margin.  `shown` stands for the value where a number alone says too little.
    """

    what: str
    value: object
    op: str
    bound: object
    unit: str = "difference"
    shown: str = ""

    def __post_init__(self):
        if self.op not in (*COMPARED, "in"):
            raise ValueError(f"check {self.what!r}: op = {self.op!r}: must be one of {', '.join(COMPARED)}, in")
        if self.unit not in UNITS:
            raise ValueError(f"check {self.what!r}: unit = {self.unit!r}: must be one of {', '.join(UNITS)}")

    @property
    def met(self) -> bool:
        value = np.asarray(self.value)
        if self.op == "in":
            return bool(self.bound[0] < self.value < self.bound[1])
        return bool(value.size and np.all(COMPARED[self.op](value, np.asarray(self.bound))))

    @property
    def margin(self) -> float:
        """How far inside its bound the value is, >= 0 where the check is met; NaN for NaN and for empty arrays."""
        if self.unit == "flag" or self.op in ("==", "in"):
            return np.inf if self.met else -1.0
        value, bound, below = np.asarray(self.value, float), np.asarray(self.bound, float), self.op[0] == "<"
        if not value.size:
            return np.nan
        with np.errstate(all="ignore"):
            if self.unit == "difference":
                room = bound - value if below else value - bound
            elif self.unit == "share":
                room = 1 - value / bound if below else value / bound - 1
            else:
                room = np.log10(bound / np.maximum(value, 1e-300) if below else value / bound)
        return float(np.min(room))

    @property
    def row(self) -> list[str]:
        """What, value, what is required, margin, whether it is met."""
        value, bound = np.asarray(self.value), np.asarray(self.bound)
        shown = self.shown or (spread(value) if value.size != 1 else f"{value.item():.3g}")
        required = f"{self.bound[0]:.3f} to {self.bound[1]:.3f}" if self.op == "in" else (
            f"{self.op} {spread(bound) if bound.size != 1 else f'{bound.item():g}'}"
        )  # fmt: skip
        margin = f"{self.margin:.3g}{UNITS[self.unit]}" if np.isfinite(self.margin) else ""
        return [self.what, shown, required, margin, "met" if self.met else "NOT met"]


def exact(what: str, error, tolerance: float = EXACT, shown: str = "") -> Check:
    """`error`, a number or an array, is at most `tolerance`; the margin is in decades."""
    return Check(what, error, "<=", tolerance, "decades", shown or f"{np.max(error):.1e}")


def near(what: str, value, expected: float, tolerance: float) -> Check:
    """Every value is within `tolerance` of what is expected; margin: what is left of the tolerance, as a share."""
    text = f"{what}: distance from {expected:g}"
    return Check(text, np.abs(np.asarray(value, float) - expected), "<=", tolerance, "share")


def exponent(what: str, fit: Exponent, expected: float, tolerance: float) -> Check:
    """The whole interval of a fitted exponent is within `tolerance` of the expected one; margin as a share of it."""
    text = f"{what}: distance of its interval from {expected:.3g}"
    return Check(text, fit.off(expected), "<=", tolerance, "share", str(fit))


def share(right) -> str:
    """'n of N [low, high]' of booleans, with Wilson's interval."""
    right = np.asarray(right)
    low, high = wilson(right.sum(), right.size) if right.size else (np.nan, np.nan)
    return f"{right.sum()} of {right.size} [{low:.3f}, {high:.3f}]"


def sure(what: str, right, level: float) -> Check:
    """The lower end of Wilson's interval of the share of `right` (booleans) is at least `level`."""
    right = np.asarray(right)
    low = wilson(right.sum(), right.size)[0] if right.size else np.nan
    return Check(f"{what}: share, Wilson's lower end", low, ">=", level, shown=share(right))


@dataclass(frozen=True)
class Judgement:
    """What a rule makes of an entry's numbers: all `checks` together are the rule, `assumptions` are checks of what
    the statement presupposes, and `notes` say what was seen beside them.
    """

    checks: Sequence[Check]
    notes: str = ""
    assumptions: Sequence[Check] = field(default_factory=list)
    untestable: str = ""

    @property
    def margin(self) -> float:
        """The smallest margin of the checks, NaN if one of them is."""
        return float(np.min([check.margin for check in self.checks]))

    @property
    def verdict(self) -> str:
        if self.untestable:
            return VERDICTS[3]
        if not all(a.met for a in self.assumptions):
            return VERDICTS[2]
        return VERDICTS[0] if self.checks and all(c.met for c in self.checks) else VERDICTS[1]

    @property
    def rule(self) -> str:
        """The checks as one sentence without numbers that were measured."""
        return "; ".join(f"{what} {required}" for what, _, required, *_ in (c.row for c in self.checks))

    @property
    def measured(self) -> str:
        told = "; ".join(f"{what}: {shown}" for what, shown, *_ in (c.row for c in self.checks))
        return f"{told}; {self.notes}" if self.notes else told


@dataclass(frozen=True)
class Entry:
    """A statement: its label, what it says in one sentence, its formula, and three functions.

    ``measure(lab) -> dict`` of numbers and arrays, ``judge(measured) -> Judgement``, ``draw(measured) -> Picture``.
    `source` is whose statement it is; `weaker_than` the label of a statement of the paper of which it is a weaker form,
    made by us since that one fails; `recorded` the verdict that a statement of one's own is known to have.
    """

    label: str
    group: str
    title: str
    statement: str
    formula: str
    measure: Callable
    judge: Callable
    draw: Callable
    source: str = SOURCES[0]
    recorded: str = ""
    weaker_than: str = ""

    def __post_init__(self):
        for name in ("label", "group", "title", "statement", "formula"):
            text = getattr(self, name)
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"entry {self.label!r}: {name} = {text!r}: must be a text that is not empty")
        for name in ("measure", "judge", "draw"):
            if not callable(getattr(self, name)):
                raise ValueError(f"entry {self.label!r}: {name} = {getattr(self, name)!r}: must be a function")
        if self.recorded and self.recorded not in VERDICTS:
            raise ValueError(f"entry {self.label!r}: recorded = {self.recorded!r}: must be one of {VERDICTS}")

    @property
    def from_file(self) -> bool:
        return self.source not in SOURCES


@dataclass(frozen=True)
class Result:
    """An entry with its numbers, its judgement and the seconds it took (what it shares counts for the first user).

    `held_out` is its judgement on the held-out seeds.
    """

    entry: Entry
    measured: dict
    judgement: Judgement
    seconds: float
    held_out: Judgement | None = None

    @property
    def judgements(self) -> list[Judgement]:
        return [self.judgement] + [self.held_out] * (self.held_out is not None)

    @property
    def worse(self) -> Judgement:
        """The one that decides: of two with the same verdict that of the smaller margin."""
        return min(self.judgements, key=lambda j: (-WORSE[j.verdict], j.margin))

    @property
    def verdict(self) -> str:
        return self.worse.verdict

    @property
    def margin(self) -> float:
        return self.worse.margin

    @property
    def seeds(self) -> str:
        """On which seeds the verdict was found, where the two differ."""
        verdicts = [j.verdict for j in self.judgements]
        if len(set(verdicts)) == 1:
            return ""
        return f"{verdicts[0]} on the development seeds, {verdicts[1]} on the held-out ones"


def count(results: Sequence[Result]) -> dict[str, int]:
    """Entries by verdict."""
    verdicts = [result.verdict for result in results]
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}

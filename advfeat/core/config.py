"""Declared configurations: a field says once its type, default, rule, unit and help, and all that users see follows.

A configuration is a frozen dataclass on `Configuration` whose fields are made by `key`.  Their checks, TOML files and
``--set KEY=VALUE``, messages with the nearest key, tables of keys and the axes of sweeps come from these declarations.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Self, get_args, get_type_hints

import numpy as np

from . import checks, store
from .types import JsonDict


def key(default, help, unit="", **rule) -> Any:
    """A dataclass field of a `Configuration` with a default; `about` has the parameters."""
    return field(default=default, metadata=about(help, unit, **rule))


def about(help, unit="", low=None, above=None, high=None, choices=None, per_run=False, many=False) -> dict[str, Any]:
    """What is declared of a key, the metadata of its field: ``name: type = field(metadata=about(...))`` must be given.

    Its type is the annotation, or the first part of a union: int, float, bool, str or a Literal of its `choices`, with
    ``| None`` where the value may be left open.  Numbers are finite, >= `low`, > `above` and <= `high`; `choices` are
    all that there are; `per_run`: one value, or one per run; `many`: any number of values, a tuple.
    """
    rule = {"low": low, "above": above, "high": high, "choices": choices, "per_run": per_run, "many": many}
    return {"help": help, "unit": unit, **rule}


@dataclass(frozen=True)
class Key:
    """A declared field, as `Configuration.keys` lists it."""

    name: str
    kind: type[bool] | type[int] | type[float] | type[str]
    optional: bool
    default: object
    help: str
    unit: str
    low: float | None
    above: float | None
    high: float | None
    choices: tuple[str, ...] | None
    per_run: bool
    many: bool

    @property
    def rule(self) -> str:
        """In words, as "an integer >= 2 and <= 100"."""
        if self.choices:
            words = "one of " + ", ".join(self.choices)
        elif self.kind is bool:
            words = "true or false"
        elif self.kind is str:
            words = "a text"
        else:
            words = "an integer" if self.kind is int else "a number"
            words += checks.bounds(self.low, self.above, self.high)
        words = f"a list, each {words}" if self.many else words
        return words + ", or one per run" * self.per_run + ", or none" * self.optional

    @property
    def default_word(self) -> str:
        """The default as `--set` takes it; "" where a value must be given."""
        return word(np.asarray(self.default).tolist()) if self.default is not MISSING else ""

    def check(self, value: object, name: str | None = None) -> object:
        """The value in the key's type.  ValueError, naming the key (or `name`), value and rule, where it breaks it."""
        name = name or self.name
        if value is None and self.optional:
            return None
        if self.many:
            if not isinstance(value, (list, tuple, np.ndarray)) or getattr(value, "ndim", 1) == 0:
                raise ValueError(f"{name} = {checks.shown(value)}: must be {self.rule}")
            one = replace(self, many=False)
            return tuple(one.check(each, name) for each in value)
        if self.per_run:
            if self.kind is int:
                checks.seeds(value, np.size(value), name)
            else:
                checks.per_run(name, value, np.size(value), low=self.low, above=self.above)
            held = np.asarray(value).tolist()
            return tuple(held) if isinstance(held, list) else held
        if self.kind is int:
            return checks.integer(name, value, self.low, self.high)
        if self.kind is float:
            return checks.number(name, value, low=self.low, above=self.above)
        if self.kind is str and not self.choices:
            if not isinstance(value, str):
                raise ValueError(f"{name} = {value!r}: must be a text")
            return value
        return self.kind(checks.choice(name, value, self.choices or (True, False)))

    def typed(self, value: object, name: str | None = None) -> object:
        """The value in the key's type, so that 3 and 3.0 are one, whatever the rest of its rule."""
        if self.choices:
            return value
        return replace(self, low=None, above=None, high=None).check(value, name)


class Configuration:
    """Base of frozen dataclasses whose fields `key` declares."""

    def __post_init__(self) -> None:
        for name, one in self.keys().items():
            object.__setattr__(self, name, one.check(getattr(self, name)))

    @classmethod
    @cache
    def keys(cls) -> dict[str, Key]:
        """Name -> declaration, in order."""
        hints, found = get_type_hints(cls), {}
        for one in fields(cls):
            kinds = get_args(hints[one.name]) or (hints[one.name],)
            kind = kinds[0] if isinstance(kinds[0], type) else str  # a Literal of names, or the first of them
            found[one.name] = Key(one.name, kind, NoneType in kinds, one.default, **one.metadata)
        return found

    # -------------------------------------------------------------- from users and files
    @classmethod
    def known(cls, name: str) -> Key:
        """The declaration of a key; ValueError with the nearest one where there is none."""
        keys = cls.keys()
        if name not in keys:
            raise ValueError(f"{name}: unknown configuration key; {checks.nearest(name, keys)}")
        return keys[name]

    @classmethod
    def from_dict(cls, values: JsonDict) -> Self:
        """From what `as_dict` gave, of this version or an older one: a key that is missing takes its default."""
        if not isinstance(values, dict):
            raise ValueError(f"configuration = {values!r}: must be a table of keys and values")
        for name in values:
            cls.known(name)
        for name, one in cls.keys().items():
            if one.default is MISSING and name not in values:
                raise ValueError(f"{name}: must be given, {one.rule}")
        return cls(**values)

    @classmethod
    def build(
        cls,
        path: str | Path | None = None,
        pairs: Iterable[str] = (),
        fixed: JsonDict | None = None,
        /,
        **given: object,
    ) -> Self:
        """Defaults, then the TOML file `path`, then `pairs` ("key=value"), then `given` (None: not given).

        `fixed` are values that stand already, as q and rho of given weights: they replace defaults, and a value given
        here that differs from them is refused.
        """
        values = {} if path is None else store.read_toml(path)
        values |= dict(parse_pair("--set", pair) for pair in pairs)
        values |= {name: value for name, value in given.items() if value is not None}
        for name, value in values.items():
            if cls.known(name).optional and str(value).lower() == "none":
                values[name] = None
            elif value is None:  # `none` is a word where a key has no empty value
                values[name] = "none"
        for name, value in (fixed or {}).items():
            if values.setdefault(name, value) != value:
                raise ValueError(
                    f"{name} = {values[name]!r}: contradicts the given weights, which hold {name} = {value!r}"
                )
        return cls.from_dict(values)

    # -------------------------------------------------------------- to users and files
    def as_dict(self) -> JsonDict:
        """JSON-ready, as it stands in config.json and in checkpoints."""
        return {name: np.asarray(getattr(self, name)).tolist() for name in self.keys()}

    def changes(self, held: JsonDict) -> list[str]:
        """What differs from the configuration `held`, that `as_dict` gave, in words; a key that it lacks has its
        default."""
        try:
            theirs = type(self).from_dict(held).as_dict()
        except ValueError as error:
            return [f"its configuration is of another kind ({error})"]
        return [f"{k} was {theirs[k]!r} and is {v!r}" for k, v in self.as_dict().items() if theirs[k] != v]

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Key, value, default, unit and meaning of every key, in words."""
        return [
            (name, word(value), one.default_word, one.unit, one.help)
            for (name, value), one in zip(self.as_dict().items(), self.keys().values())
        ]

    def toml(self) -> str:
        """A commented TOML file of all keys, which `build` reads back to this configuration."""
        lines = []
        for name, _, default, unit, meaning in self.rows():
            about = [meaning + (unit and f" [{unit}]"), self.keys()[name].rule, default and f"default {default}"]
            lines.append(f"# {'; '.join(filter(None, about))}\n{name} = {_text(self.as_dict()[name])}\n")
        return "\n".join(lines)


def parse_value(text: str) -> object:
    """A TOML value, or the text itself where it is none."""
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except (ValueError, RecursionError):  # a number of 5000 digits, brackets in brackets
        return text


def parse_pair(option: str, text: str) -> tuple[str, object]:
    """KEY=VALUE of an option of the command line."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{option} {text!r}: must be key=value")
    return name.strip(), parse_value(value.strip())


def _text(value) -> str:
    """As it stands in a TOML file."""
    return json.dumps("none" if value is None else value)


def word(value) -> str:
    """As it stands on the command line and in tables."""
    return _text(value).strip('"')

"""The page's HTML: native controls, each with a name, around the roots of Bokeh's document."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path

from jinja2 import Template

from ..core.config import Key
from ..experiments.figure3 import TRAININGS
from ..reporting.style import NON_ROBUST, ROBUST
from .controls import AXES, GROUPS, SHOWN, SLIDERS, Controls, Slider

HERE = Path(__file__).resolve().parent
CHOICES = {"linf": "l∞", "l2": "l2, patch by patch"}


@cache
def template() -> Template:
    return Template((HERE / "page.html").read_text(encoding="utf-8"))


@cache
def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def variables(controls: Controls, note: str | None) -> dict:
    """What the template is filled with."""
    style = _file("page.css").replace("ROBUST_COLOR", ROBUST).replace("NON_COLOR", NON_ROBUST)
    texts = controls.texts()
    groups = "".join(_group(heading, names, texts) for heading, names in GROUPS.items())
    across, up, training, shown = (
        _select(name, words, texts) for name, words in (
            ("across", {a: SLIDERS[a].symbol for a in AXES}), ("up", {a: SLIDERS[a].symbol for a in AXES}),
            ("training", {t: t for t in TRAININGS}), ("shown", SHOWN),
        )
    )  # fmt: skip
    return {"style": style, "script": _file("page.js"), "groups": groups, "note": escape(note or ""),
            "across": across, "up": up, "training": training, "shown_as": shown}  # fmt: skip


def _group(heading, names, texts) -> str:
    rows = "".join(control(Controls.known(name), texts[name]) for name in names)
    return f'<fieldset><legend>{heading}</legend>{rows}</fieldset>'


def symbol(slider: Slider) -> str:
    base, _, index = slider.symbol.partition("_")
    return f"{base}<sub>{index}</sub>" if index else base


def control(field: Key, text: str) -> str:
    """A slider and a box to type into, or a choice; with a place for what is wrong with them."""
    name = field.name
    wrong = f'<p class="wrong" id="wrong-{name}" role="alert"></p>'
    if name not in SLIDERS:
        words = {choice: CHOICES.get(choice, choice) for choice in field.choices}
        label = f'<span class="symbol">{name}</span>'
        return f'<div class="control">{label}{_options(name, words, text, field.help)}{wrong}</div>'
    slider = SLIDERS[name]
    whole, about = field.kind is int, escape(field.help + (f" [{field.unit}]" if field.unit else ""), quote=True)
    spoken = escape(f"{slider.symbol.replace('_', ' ')}, {slider.words}", quote=True)
    ends = (0, 1000, 1) if slider.logarithmic else (slider.low, slider.high, slider.step)
    low, high, step = (f"{x:g}" for x in ends)
    data = f'data-low="{slider.low:g}" data-high="{slider.high:g}" data-log="{int(slider.logarithmic)}"'
    return (
        f'<div class="control" title="{about}"><span class="symbol">{symbol(slider)}</span>'
        f'<input type="range" id="slide-{name}" data-name="{name}" data-whole="{int(whole)}" {data} min="{low}" '
        f'max="{high}" step="{step}" aria-label="{spoken}: slider" aria-describedby="wrong-{name}">'
        f'<input type="text" id="box-{name}" data-name="{name}" value="{escape(text, quote=True)}" autocomplete="off" '
        f'spellcheck="false" inputmode="decimal" aria-label="{spoken}" aria-describedby="wrong-{name}">{wrong}'
        "</div>"
    )


def _select(name, words, texts) -> str:
    return _options(name, words, texts[name], Controls.known(name).help)


def _options(name, words, text, about) -> str:
    options = "".join(
        f'<option value="{choice}"{" selected" if choice == text else ""}>{escape(word)}</option>'
        for choice, word in words.items()
    )
    about = escape(about, quote=True)
    return (
        f'<select id="box-{name}" data-name="{name}" aria-label="{about}" title="{about}" '
        f'aria-describedby="wrong-{name}">{options}</select>'
    )

"""A figure as data: a picture of layers of six kinds, lines, points, intervals, bands, marks and matrices."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from matplotlib.colors import LogNorm

from .style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST

#: Colours of what is changed one at a time.
SWEPT = {"": ACCURACY, "init_std": ROBUST, "n_neurons": NON_ROBUST, "n_classes": CERTIFIED, "n_patches": PAPER}


@dataclass(frozen=True)
class Picture:
    """Layers on one pair of axes; a label that comes twice stands once in the legend (`style.legend_below`).

    `log` holds "x", "y" or both; `symlog` {"x": width of the linear part}; `ticks` {"x": (places, labels)}; `inset`
    (place, Picture).
    """

    xlabel: str
    ylabel: str
    layers: list[Callable]
    log: str = ""
    symlog: dict = field(default_factory=dict)
    xlim: tuple | None = None
    ylim: tuple | None = None
    ticks: dict = field(default_factory=dict)
    inset: tuple | None = None

    def draw(self, axis, fontsize: float = 7) -> None:
        for layer in self.layers:
            layer(axis)
        axis.set(xlabel=self.xlabel, ylabel=self.ylabel)
        for name in "xy":
            scale = getattr(axis, f"set_{name}scale")
            if name in self.log:
                scale("log")
            elif name in self.symlog:
                scale("symlog", linthresh=self.symlog[name])
            if name in self.ticks:
                places, labels = self.ticks[name]
                getattr(axis, f"set_{name}ticks")(places, labels, fontsize=fontsize)
                getattr(axis, f"set_{name}ticks")([], minor=True)
        axis.set_xlim(self.xlim)
        axis.set_ylim(self.ylim)
        if self.inset:
            place, picture = self.inset
            inner = axis.inset_axes(place)
            inner.tick_params(labelsize=6, which="both")
            picture.draw(inner, 6)
            inner.xaxis.label.set_size(6)
            inner.yaxis.label.set_size(6)


def line(x, y, label=None, color=ACCURACY, style="-", **options) -> Callable:
    """y (T, ...) over x (T,), a line for every column."""
    y = np.asarray(y)
    values = y.reshape(len(y), -1)

    def draw(axis):
        drawn = axis.plot(x, values, style, color=color, **({"lw": 1.3} | options))
        if drawn:
            drawn[0].set_label(label)

    return draw


def points(x, y, label=None, color=ACCURACY, marker="o", size=3, alpha=0.5, **options) -> Callable:
    """A point for every pair of x and y, which broadcast: (T,) or (T, ...) against (T, ...)."""
    x, y = np.asarray(x), np.asarray(y)
    x = x.reshape(x.shape + (1,) * (y.ndim - x.ndim)) if x.ndim < y.ndim else x
    x, y = (part.ravel() for part in np.broadcast_arrays(x, y))
    style = {"ms": size, "alpha": alpha, "mew": 0 if marker in "os^vD" and "mfc" not in options else 1} | options
    return lambda axis: axis.plot(x, y, marker, color=color, label=label, **style)


def interval(x, share, low, high, label=None, color=ACCURACY, marker="o", **options) -> Callable:
    """Points with bars from `low` to `high`."""
    bars = [np.subtract(share, low), np.subtract(high, share)]
    return lambda axis: axis.errorbar(
        x, share, bars, fmt=marker, color=color, label=label, **({"ms": 3, "lw": 1} | options)
    )  # fmt: skip


def band(x, low, high, label=None, color="0.5", alpha=0.16) -> Callable:
    """The strip between two curves."""
    return lambda axis: axis.fill_between(x, low, high, color=color, alpha=alpha, lw=0, label=label)


def mark(x=None, y=None, label=None, color="0.5", style="--", **options) -> Callable:
    """A line across the axes at `x` or at `y`, or a grey strip where it is a pair."""

    def draw(axis):
        name, value = ("v", x) if y is None else ("h", y)
        if np.ndim(value):
            getattr(axis, f"ax{name}span")(*value, color=color, alpha=0.14, lw=0, label=label, zorder=0)
        else:
            getattr(axis, f"ax{name}line")(value, color=color, ls=style, label=label, **({"lw": 1} | options))

    return draw


def matrix(values, label: str, low: float, high: float) -> Callable:
    """|values| as colours, on a logarithmic scale from `low` to `high`."""

    def draw(axis):
        shown = axis.imshow(np.abs(values), cmap="Blues", norm=LogNorm(low, high), interpolation="nearest")
        axis.figure.colorbar(shown, ax=axis, label=label)
        axis.grid(False)

    return draw


# ------------------------------------------------------------------ groups of layers that come again
def middle(x, values, label, color, style="-") -> list[Callable]:
    """Median and range of values (T, ...) over all but the first axis."""
    flat = np.asarray(values).reshape(len(values), -1)
    return [band(x, flat.min(axis=1), flat.max(axis=1), color=color), line(x, np.median(flat, axis=1), label, color,
            style, lw=1.6)]  # fmt: skip


def diagonal(low, high, label=None, within: float = 0.0) -> list[Callable]:
    """The line on which both axes agree, and the strip `within` a relative error of it."""
    ends = np.array([low, high], float)
    strip = [band(ends, ends * (1 - within), ends * (1 + within), f"±{within:.0%}", alpha=0.12)] if within else []
    return [line(ends, ends, label, "0.5", lw=0.8), *strip]


def level(value, label="level of the rule") -> Callable:
    return mark(y=value, label=label, style=(0, (2, 2)))

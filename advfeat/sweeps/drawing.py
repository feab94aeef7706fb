"""What all pictures of a sweep share: axes with their cells and ticks, headings, legends."""

import textwrap

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ..reporting.style import legend_below
from .selection import LABELS, Selection


class Drawn:
    """One axis of a plot.

    Attributes
    ----------
    name, label : the field or derived axis, and what the figure calls it
    at : (n,) positions of the points; categories stand at 0, 1, ...
    values : the different positions, ascending
    """

    def __init__(self, selection: Selection, name: str):
        column = selection.field(name)
        self.name, self.label, self.log = name, LABELS.get(name, name.replace("_", " ")), selection.is_log(name)
        self.categories = sorted(set(column.tolist()), key=str) if column.dtype == object else None
        if self.categories is not None:
            column = np.array([self.categories.index(value) for value in column.tolist()])
        self.at = column.astype(float)
        self.values = np.unique(self.at[np.isfinite(self.at)])

    @property
    def edges(self) -> np.ndarray:
        """(len(values) + 1,) ends of cells: midpoints, geometric ones on a log axis."""
        held = np.log(self.values) if self.log else self.values
        if len(held) == 1:
            half = 0.5 if self.log or held[0] == 0 or self.categories else abs(held[0]) / 2
            ends = np.array([held[0] - half, held[0] + half])
        else:
            middle = (held[1:] + held[:-1]) / 2
            ends = np.concatenate([[2 * held[0] - middle[0]], middle, [2 * held[-1] - middle[-1]]])
            if not self.log and held[0] > 0:
                ends[0] = max(ends[0], 0.0)  # what is positive has no cells below 0
        return np.exp(ends) if self.log else ends

    @property
    def range(self) -> tuple[float, float]:
        return float(self.edges[0]), float(self.edges[-1])

    @property
    def padded(self) -> tuple[float, float]:
        """The range with room for dots at its ends."""
        low, high = np.log(self.values[[0, -1]]) if self.log else self.values[[0, -1]]
        room = 0.04 * (high - low) or 0.5
        ends = np.array([low - room, high + room])
        return tuple((np.exp(ends) if self.log else ends).tolist())

    def mesh(self, n: int = 201, edges: bool = False) -> np.ndarray:
        """Fine positions from the first to the last value, or to the edges of their cells (0 at least)."""
        low, high = self.range if edges else self.values[[0, -1]]
        low = max(low, 0.0) if self.values[0] >= 0 else low
        return (np.geomspace if self.log else np.linspace)(low, high, n)

    def prepare(self, axis, which: str, few: int = 8) -> None:
        """Scale, limits, ticks and label of the matplotlib axis `which` ("x" or "y")."""
        if self.log:
            getattr(axis, f"set_{which}scale")("log")
        own = getattr(axis, f"{which}axis")
        if self.categories is not None:
            own.set_ticks(range(len(self.categories)), [str(one) for one in self.categories])
        elif len(self.values) <= few and self._apart():
            own.set_major_locator(FixedLocator(self.values))
            own.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        elif self.log:
            wide = self.values[-1] / self.values[0]
            subs = (1, 2, 5) if wide < 1000 else (1,)
            own.set_major_locator(LogLocator(subs=subs) if wide > 5 else MaxNLocator(5, steps=[1, 2, 5, 10]))
            own.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        else:
            whole = bool((self.values % 1 == 0).all())
            own.set_major_locator(MaxNLocator(6, integer=whole, steps=[1, 2, 2.5, 5, 10]))
        if self.log:
            own.set_minor_formatter(NullFormatter())
        own.set_label_text(self.label)

    def _apart(self) -> bool:
        """Whether ticks at the values themselves are short numbers with room between them."""
        held = np.log(self.values) if self.log else self.values
        room = len(held) < 2 or bool(np.diff(held).min() > 0.06 * np.ptp(held))
        return room and all(float(f"{value:.3g}") == value for value in self.values)


def short(value) -> str:
    """A number in few characters; anything else as it is."""
    if isinstance(value, (bool, str)) or value is None:
        return str(value)
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.2g}"


def wrapped(text: str, width: int = 44) -> str:
    return "\n".join(textwrap.wrap(text, width))


def heading(figure: Figure, selection: Selection) -> None:
    figure.suptitle(wrapped(title_of(selection), 58 if figure.get_figwidth() < 7.5 else 100), fontweight="bold",
                    fontsize=10.5)  # fmt: skip


def title_of(selection: Selection) -> str:
    return selection.info.label[0].upper() + pretty(selection.info.label)[1:]


def pretty(label: str) -> str:
    """Plain names in a label as the paper's symbols."""
    for name, symbol in (("eps_test", r"$\epsilon_{test}$"), ("radius eps", r"radius $\epsilon$"), ("B*", "$B^*$")):
        label = label.replace(name, symbol)
    return label


def note(selection: Selection, over: str) -> list[str]:
    """Training, engine, seeds, time, and what is fixed."""
    n, request = selection.values.shape[1], selection.request
    engine = "network against recursion" if selection.engine == "both" else f"{selection.engine} engine"
    parts = [f"{selection.training} training", engine, f"{over} {n} seeds" if n > 1 else "one seed"]
    if selection.info.recorded:
        last = np.unique(selection.field("n_iter"))
        when = f"iteration {last[0]}" if len(last) == 1 else "last iteration of each point"
        parts.append(f"iteration {request['iteration']}" if "iteration" in request else when)
    return parts + [f"{LABELS.get(name, name)} = {short(value)}" for name, value in request.get("at", {}).items()]


def legend(figure: Figure, handles: list, parts: list[str]) -> None:
    """Below the axes, under a line that says what is shown."""
    narrow = figure.get_figwidth() < 7.5
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) > (88 if narrow else 130):
            lines.append(part)
        else:
            lines[-1] += f", {part}"
    held = legend_below(figure, handles, handlelength=2.6, title="\n".join(lines), title_fontsize=8)
    held.get_title().set_color("0.35")
    held.get_title().set_multialignment("center")

"""The page's figures: Figure 3's curves of both trainings, and the diagram."""

from __future__ import annotations

import numpy as np
from bokeh.models import (
    BoxAnnotation,
    ColumnDataSource,
    CustomJSTickFormatter,
    FixedTicker,
    Label,
    LinearColorMapper,
    Range1d,
    Span,
)
from bokeh.palettes import interp_palette
from bokeh.plotting import figure

from ..experiments.figure3 import TRAININGS
from ..reporting.style import NON_ROBUST, ROBUST
from .controls import SHOWN, Controls
from .curves import LINES, PARTS, first_saturation
from .derived import Derived
from .diagram import SIDE, DiagramAxis, Edge, Raster

COLORS = {"A": ROBUST, "B": NON_ROBUST}
ROWS = {"normalized": "normalised correlation", "strength": "feature strength in the logit"}
FONT = "system-ui, sans-serif"
GREY, PALE, NONE = "#666666", "#ebebeb", "#d9d9d9"
EDGES = ("solid", "dashed", "dotted")
LABEL_ROOM = 0.22  # of the width, what "Phase I" needs
EMPTY = {"iteration": [], **{f"{line}_{part}": [] for line in LINES for part in PARTS}}
NO_NETWORK = {"iteration": [], **{line: [] for line in LINES}}


def styled(plot):
    """In the look of the report's figures."""
    plot.toolbar_location, plot.outline_line_color, plot.min_border = None, None, 4
    plot.background_fill_color = plot.border_fill_color = None
    plot.grid.grid_line_color = PALE
    plot.axis.axis_line_color = plot.axis.major_tick_line_color = "#333333"
    plot.title.visible = bool(plot.title.text)
    plot.axis.minor_tick_line_color, plot.axis.major_tick_in = None, 0
    plot.axis.major_label_text_font = plot.axis.axis_label_text_font = plot.title.text_font = FONT
    plot.axis.axis_label_text_font_style, plot.axis.axis_label_text_font_size = "normal", "12px"
    plot.axis.major_label_text_font_size, plot.title.text_font_size = "11px", "13px"
    plot.axis.axis_label_text_color = plot.axis.major_label_text_color = plot.title.text_color = "#222222"
    return plot


class CurveFigures:
    """Two rows of figures, a column a training."""

    def __init__(self):
        self.sources = {t: ColumnDataSource(EMPTY) for t in TRAININGS}
        self.networks = {t: ColumnDataSource(NO_NETWORK) for t in TRAININGS}
        self.x, self.y = Range1d(0, 1), {"normalized": Range1d(-0.02, 1.04), "strength": Range1d(0, 1)}
        self.times = {t: {name: [] for name in ("A", "B", "phase_two", "saturated")} for t in TRAININGS}
        self.plots = {(row, t): self._plot(row, t) for row in ROWS for t in TRAININGS}

    def _plot(self, row, training):
        first, top = training == TRAININGS[0], row == "normalized"
        plot = figure(
            name=f"{row}_{training}", tools="", x_range=self.x, y_range=self.y[row], sizing_mode="stretch_both",
            title=f"{training.capitalize()} training" if top else "", min_border_left=54 if first else 34,
        )  # fmt: skip
        styled(plot)
        plot.min_border_left, plot.min_border_right = (54 if first else 34), 10
        plot.xaxis.formatter = CustomJSTickFormatter(code="return tick.toLocaleString('en')")
        plot.xaxis.ticker.desired_num_ticks = 5
        if first:
            plot.yaxis.axis_label = ROWS[row]
        if top:
            plot.xaxis.major_label_text_font_size = "0px"
        else:
            plot.xaxis.axis_label = "iteration"
        self._phases(plot, row, training)
        held, laid = self.sources[training], self.networks[training]
        for feature, color in COLORS.items():
            line = f"{feature}_{row}"
            plot.varea("iteration", f"{line}_low", f"{line}_high", source=held, fill_color=color, fill_alpha=0.16)
            plot.line("iteration", f"{line}_middle", source=held, line_color=color, line_width=2)
            plot.line("iteration", f"{line}_after", source=held, line_color=color, line_width=2, line_dash=[2, 3])
            plot.scatter("iteration", line, source=laid, marker="circle", size=4.5, line_color="#111111",
                         line_width=0.8, fill_color="white")  # fmt: skip
        return plot

    def _phases(self, plot, row, training):
        """Predicted times as lines; Phase I shaded; the plateau; the first saturation."""
        spans = self.times[training]
        for feature, color in COLORS.items():
            spans[feature].append(self._span(plot, color, [5, 4], 1.2))
        spans["saturated"].append(self._span(plot, "#111111", [1, 2], 1.4))
        saturation = Label(x=0, y=4, y_units="screen", text="an axis saturates", text_font_size="11px", text_font=FONT,
                           text_color="#111111", angle=np.pi / 2, visible=False, x_offset=-2)  # fmt: skip
        plot.add_layout(saturation)
        spans["saturated"].append(saturation)
        if training != "adversarial":
            return
        shade = BoxAnnotation(left=0, right=0, fill_color="#808080", fill_alpha=0.12, line_color=None, visible=False)
        plot.add_layout(shade)
        spans["phase_two"] += [shade, self._span(plot, GREY, [2, 2], 1.2)]
        if row == "strength":
            self.plateau = Span(dimension="width", line_color=NON_ROBUST, line_dash=[8, 4], line_width=1.3)
            self.plateau_label = Label(x=0, y=0, text="", text_color=NON_ROBUST, text_font_size="11px", text_font=FONT,
                                       text_align="right", x_offset=-4, y_offset=2)  # fmt: skip
            plot.add_layout(self.plateau)
            plot.add_layout(self.plateau_label)
        else:
            for text, align, offset in (("Phase I", "right", -5), ("Phase II", "left", 5)):
                label = Label(x=0, y=1.03, text=text, text_align=align, text_baseline="top", x_offset=offset,
                              text_font_size="11px", text_font=FONT, text_color=GREY, visible=False,
                              background_fill_color="white", background_fill_alpha=0.7)  # fmt: skip
                plot.add_layout(label)
                spans["phase_two"].append(label)

    @staticmethod
    def _span(plot, color, dash, width):
        span = Span(dimension="height", line_color=color, line_dash=dash, line_width=width, visible=False)
        plot.add_layout(span)
        return span

    def draw(self, controls: Controls, columns: dict, theory: dict, derived: Derived) -> None:
        n_iter = float(controls.n_iter)
        if self.x.end != n_iter:
            self.x.end = n_iter
        tops = [c[f"{f}_strength_high"] for c in columns.values() for f in "AB"]
        top = float(np.nanmax([np.nanmax(t, initial=0.0) for t in tops]))
        beside = derived.plateau <= max(4 * top, 1e-9)
        self.y["strength"].end = 1.1 * max(top, derived.plateau if beside else 0.0) or 1.0
        for training, held in columns.items():
            self.sources[training].data = held
            said = derived.predicted | {"saturated": first_saturation(theory[training])}
            for name, marks in self.times[training].items():
                at = said[name]
                for mark in marks:
                    room = LABEL_ROOM * n_iter if isinstance(mark, Label) and mark.text_align == "right" else 0.0
                    _place(mark, at, np.isfinite(at) and room <= at <= n_iter)
        self.plateau.location, self.plateau.visible = derived.plateau, beside
        self.plateau_label.update(x=n_iter, y=derived.plateau, text=f"B* = {derived.plateau:.3g}", visible=beside)

    def lay_over(self, columns: dict | None) -> None:
        """The curves of a trained network, or none."""
        for training, source in self.networks.items():
            if columns is not None or len(source.data["iteration"]):
                source.data = NO_NETWORK if columns is None else columns[training]


def _put(source: ColumnDataSource, data: dict) -> None:
    """New data, unless they are what is there: the figure would be painted again."""
    there = source.data
    pairs = [(there[name], held) for name, held in data.items()]
    if not all(len(old) == len(new) and all(map(np.array_equal, old, new)) for old, new in pairs):
        source.data = data


def _place(mark, at: float, visible: bool) -> None:
    """Move a line, a shade or a label to an iteration."""
    mark.visible = bool(visible)
    if visible:
        setattr(mark, {Span: "location", BoxAnnotation: "right", Label: "x"}[type(mark)], float(at))


class DiagramFigure:
    """The diagram; its coordinates are positions of the two sliders within 0..1."""

    def __init__(self):
        self.plot = styled(figure(name="diagram", tools="tap", x_range=Range1d(0, 1), y_range=Range1d(0, 1),
                                  sizing_mode="stretch_both"))  # fmt: skip
        self.plot.grid.grid_line_color = None
        self.plot.min_border_left, self.plot.min_border_right = 54, 10
        self.mapper = LinearColorMapper(palette=interp_palette([NON_ROBUST, "#ffffff", ROBUST], 101), low=0, high=1,
                                        nan_color=NONE)  # fmt: skip
        self.cells = ColumnDataSource({"image": [np.full((SIDE, SIDE), np.nan)]})
        self.plot.image("image", x=0, y=0, dw=1, dh=1, color_mapper=self.mapper, source=self.cells)
        self.edges = [ColumnDataSource({"xs": [], "ys": []}) for _ in EDGES]
        for source, dash in zip(self.edges, EDGES):
            self.plot.multi_line("xs", "ys", source=source, line_color="white", line_width=4, line_alpha=0.7)
            self.plot.multi_line("xs", "ys", source=source, line_color="#222222", line_width=1.6, line_dash=dash)
        self.here = ColumnDataSource({"x": [0.0], "y": [0.0]})
        self.plot.scatter("x", "y", source=self.here, size=13, fill_color="white", line_color="#111111", line_width=2)
        for axis in (self.plot.xaxis[0], self.plot.yaxis[0]):
            axis.ticker = FixedTicker(ticks=[])

    def frame(self, controls: Controls, edges: list[Edge]) -> None:
        """Axes, colours and boundaries."""
        for axis, name in ((self.plot.xaxis[0], controls.across), (self.plot.yaxis[0], controls.up)):
            ticks, slider = DiagramAxis(name).ticks(), DiagramAxis(name).slider
            axis.ticker.ticks, axis.major_label_overrides = list(ticks), ticks
            axis.axis_label = f"{slider.symbol}, {slider.words}"
        share = controls.shown == "robust_share"
        colors = [NON_ROBUST, "#ffffff", ROBUST] if share else ["#ffffff", NON_ROBUST, "#4a1d00"]
        self.mapper.update(palette=interp_palette(colors, 101), high=1 if share else 2)
        for source, edge in zip(self.edges, [*edges, Edge("", []), Edge("", [])]):
            _put(source, {part: [line[:, i] for line in edge.lines] for i, part in enumerate(("xs", "ys"))})

    def mark(self, controls: Controls) -> None:
        place = [[DiagramAxis(name).position(getattr(controls, name))] for name in (controls.across, controls.up)]
        _put(self.here, dict(zip("xy", place)))

    def draw(self, picture: Raster) -> None:
        self.cells.data = {"image": [picture.values]}

    def clear(self) -> None:
        self.cells.data = {"image": [np.full((SIDE, SIDE), np.nan)]}

    @staticmethod
    def legend(controls: Controls, edges: list[Edge]) -> dict:
        """For the page: what the colours are, and the boundaries that cross the diagram with their dashes."""
        ends = ("non-robust", "robust") if controls.shown == "robust_share" else ("0", "2")
        lines = [{"dash": dash, "label": edge.label} for edge, dash in zip(edges, EDGES) if edge.lines]
        return {"shown": SHOWN[controls.shown], "kind": controls.shown, "ends": ends, "lines": lines}

"""One tab's page: what its controls ask for, what is computed for it, and what is drawn of that."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import NamedTuple

from bokeh.core.properties import String
from bokeh.document import Document
from bokeh.events import Tap
from bokeh.model import DataModel
from bokeh.models import CustomJS

from ..training.loop import DivergenceError
from . import curves, derived, diagram, markup, network
from .controls import Controls, control_of
from .figures import CurveFigures, DiagramFigure
from .newest import Newest


class Link(DataModel):
    """What the browser's script and the server tell each other, as JSON.

    asked: {"number", "values": {control: text}}
    answer: {"number", "error": {"control", "message"} or null, "values", "query", "rows", "premises"}
    pressed: {"number", "button"}
    moved: {"number", "values"}, of a click on the diagram
    diagram: its legend and state; network: its state; file: {"number", "text", "command"}
    """

    asked = String("")
    pressed = String("")
    answer = String("")
    moved = String("")
    diagram = String("")
    network = String("")
    file = String("")


class Frame(NamedTuple):
    """What a state's answer is made of; `message` where it could not be computed."""

    number: int
    controls: Controls
    theory: dict
    columns: dict
    numbers: derived.Derived | None
    message: str = ""


class Page:
    """A document of Bokeh's with its threads.  `post` runs a function in the document's turn, later: it is called
    from the threads.  Of states that are asked for fast, each tab computes the newest alone."""

    def __init__(self, document: Document, query: str = "", post: Callable | None = None):
        self.document, self.post = document, post or document.add_next_tick_callback
        self.figures, self.diagram, self.link = CurveFigures(), DiagramFigure(), Link(name="link")
        self.closed, self.moves = threading.Event(), 0
        self.drawn, self.framed, self.legend = None, None, {}  # of the diagram: what it shows, what its axes are
        self.trained, self.training = None, None  # of the network: its point, its thread
        self.controls, note = Controls(), None
        try:
            self.controls = Controls.from_query(query)
        except ValueError as error:
            note = f"The link was refused: {error}"
        self._build(note)
        self.worker = Newest(self._compute, self._diagram, self._show)
        self.worker.ask((0, self.controls))

    def _build(self, note):
        doc, ready = self.document, CustomJS(args={"link": self.link}, code="window.advfeat.begin(link)")
        # before it is the document's, which looks once
        self.diagram.plot.on_event(Tap, lambda event: self.click(event.x, event.y))
        for plot in (*self.figures.plots.values(), self.diagram.plot, self.link):
            doc.add_root(plot)
        doc.title, doc.template = "advfeat explore", markup.template()
        doc.template_variables.update(markup.variables(self.controls, note))
        doc.js_on_event("document_ready", ready)
        self.link.on_change("asked", lambda attr, old, new: self.ask(json.loads(new)))
        self.link.on_change("pressed", lambda attr, old, new: self.press(json.loads(new)))

    def close(self) -> None:
        """End the work; threads end at their next look."""
        self.closed.set()
        self.worker.close()

    # -------------------------------------------------------------- what the browser says
    def ask(self, request: dict) -> None:
        """A new state of the controls: refused at once, or computed unless a newer one comes."""
        number = request["number"]
        try:
            controls = Controls.from_texts(request["values"])
        except ValueError as error:
            self._refuse(number, error)
            return
        self.controls = controls
        if self.trained is not None and self.trained != network.point(controls):
            self._forget_network()
        self.worker.ask((number, controls))

    def _refuse(self, number, error):
        message = str(error)
        about = {"control": control_of(message), "message": message}
        self.link.answer = json.dumps({"number": number, "error": about})

    def click(self, x: float, y: float) -> None:
        """On the diagram, at positions within 0..1: the browser moves its sliders there."""
        c, self.moves = self.controls, self.moves + 1
        values = {name: f"{diagram.DiagramAxis(name).value(at):g}" for name, at in ((c.across, x), (c.up, y))}
        self.link.moved = json.dumps({"number": self.moves, "values": values})

    def press(self, request: dict) -> None:
        """A button: "file", "train" or "stop"."""
        button, c = request["button"], self.controls
        if button == "file":
            about = {"number": request["number"], "text": c.toml(), "command": c.command()}
            self.link.file = json.dumps(about)
        elif button == "train":
            self._train(c)
        elif button == "stop":
            self._forget_network()

    # -------------------------------------------------------------- in the worker's thread
    def _compute(self, request) -> Frame:
        number, controls = request
        try:
            config = controls.config()
            state = curves.start(config)
            theory = curves.compute(controls, state)
            columns = {name: curves.columns(found, controls.q) for name, found in theory.items()}
            return Frame(number, controls, theory, columns, derived.derive(config, state, theory))
        except (ValueError, MemoryError, FloatingPointError) as error:
            return Frame(number, controls, {}, {}, None, str(error) or "there is not enough memory")

    def _diagram(self, request):
        """Frames of the diagram, where what it shows has changed."""
        _, controls = request
        wanted = diagram.concerns(controls)
        if wanted == self.drawn:
            return
        self.drawn = None
        for picture in diagram.compute(controls, self.worker.going):
            yield controls, picture
            if picture.done == 1:
                self.drawn = wanted

    def _show(self, frame) -> None:
        """Draw a frame in the document's turn, and wait for that: there is never more than one on its way."""
        if self.closed.is_set():
            return
        done = threading.Event()

        def draw():
            try:
                if not self.closed.is_set():
                    self._draw(frame)
            finally:
                done.set()

        self.post(draw)
        while not done.wait(0.2) and not self.closed.is_set():
            pass

    # -------------------------------------------------------------- in the document's turn
    def _draw(self, frame) -> None:
        self.document.hold("combine")
        try:
            if isinstance(frame, Frame):
                self._draw_curves(frame)
            else:
                self._draw_picture(*frame)
        finally:
            self.document.unhold()

    def _draw_curves(self, frame: Frame) -> None:
        controls, d = frame.controls, frame.numbers
        if d is None:
            self._refuse(frame.number, frame.message)
            return
        self.figures.draw(controls, frame.columns, frame.theory, d)
        self._draw_frame(controls)
        config = controls.config()
        self.link.answer = json.dumps({
            "number": frame.number,
            "error": None,
            "values": controls.texts(),
            "query": controls.query(),
            "rows": derived.rows(config, d),
            "premises": derived.premises(config, d),
        })  # fmt: skip

    def _draw_frame(self, controls: Controls) -> None:
        """The diagram's axes, boundaries and mark, at once; its old picture goes where it is no longer true."""
        edges = diagram.boundaries(controls)
        self.diagram.frame(controls, edges)
        self.diagram.mark(controls)
        wanted = diagram.concerns(controls)
        axes = controls.across, controls.up, controls.training, controls.shown
        if self.framed is not None and self.framed != axes:
            self.diagram.clear()
            self.drawn = None
        self.framed = axes
        self.legend = self.diagram.legend(controls, edges)
        self._tell_diagram(controls, 1.0 if wanted == self.drawn else 0.0)

    def _draw_picture(self, controls: Controls, picture: diagram.Raster) -> None:
        self.diagram.draw(picture)
        self._tell_diagram(controls, float(picture.done))

    def _tell_diagram(self, controls, done):
        seeds = min(controls.n_seeds, diagram.SEEDS)
        about = {"done": done, "seeds": seeds, "iteration": diagram.iterations(controls)}
        self.link.diagram = json.dumps(self.legend | about)

    # -------------------------------------------------------------- the network
    def _forget_network(self):
        self.trained = self.training = None
        self.figures.lay_over(None)
        self.link.network = json.dumps({"state": "none"})

    def _train(self, controls: Controls) -> None:
        self._forget_network()
        self.trained = network.point(controls)
        thread = threading.Thread(target=self._run_training, args=(controls,), name="advfeat network", daemon=True)
        self.training = thread
        self.link.network = json.dumps({"state": "running", "done": 0.0})
        thread.start()

    def _run_training(self, controls):
        me = threading.current_thread()

        def going():
            return self.training is me and not self.closed.is_set()

        def tell(about, columns=None):
            def draw():
                if going():
                    self.link.network = json.dumps(about)
                    if columns is not None:
                        self.figures.lay_over(columns)

            if going():
                self.post(draw)

        told = [0.0]

        def progress(share):
            if share - told[0] >= 0.05:
                told[0] = share
                tell({"state": "running", "done": share})

        try:
            found = network.curves(controls, going, progress)
        except network.GivenUp:
            return
        except DivergenceError as error:
            tell({"state": "failed", "message": str(error)})
        except (ValueError, MemoryError) as error:
            tell({"state": "failed", "message": str(error) or "there is not enough memory"})
        else:
            tell({"state": "done", "done": 1.0}, found)

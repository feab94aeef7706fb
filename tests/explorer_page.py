"""A page of advfeat explore without a browser or a server: its document, and its turns taken by the test."""

import json
import queue
import time

from bokeh.document import Document

from advfeat.explorer import newest
from advfeat.explorer.page import Page

SMALL = {"n_iter": "200", "n_seeds": "2", "n_neurons": "2", "n_classes": "2", "patch_dim": "10"}


class Tab:
    """What a browser sees of a page: it changes what its controls hold, and reads what it is told."""

    def __init__(self, query="", values=SMALL):
        self.turns, self.longest = queue.Queue(), 0
        self.page = Page(Document(), query, post=self.turns.put)
        self.number, self.values = 0, dict(values)
        self.link = self.page.link

    def turn(self, timeout: float = 20.0):
        """The next thing that a thread wants done."""
        self.longest = max(self.longest, self.turns.qsize())
        self.turns.get(timeout=timeout)()

    def set(self, **texts):
        """Controls as they are typed; returns the number of the request."""
        self.values |= texts
        self.number += 1
        self.link.asked = json.dumps({"number": self.number, "values": self.values})
        return self.number

    def press(self, button):
        self.number += 1
        self.link.pressed = json.dumps({"number": self.number, "button": button})

    def told(self, name="answer"):
        return json.loads(getattr(self.link, name) or "{}")

    def until(self, condition, seconds: float = 120.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "the page did not get there"
            self.turn()

    def answer(self, **texts):
        """Set controls, and what is answered."""
        number = self.set(**texts)
        self.until(lambda: self.told().get("number") == number)
        return self.told()

    def close(self):
        self.page.close()
        while not self.page.worker.join(0.05):
            while not self.turns.empty():
                self.turns.get()()


def quick(monkeypatch):
    """Diagrams begin at once."""
    monkeypatch.setattr(newest, "PAUSE", 0.0)

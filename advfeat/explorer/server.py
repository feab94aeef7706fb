"""The page's server: this process, loopback alone, and no origin but its own."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlencode

from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.document import Document
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.server.util import bind_sockets
from bokeh.settings import settings
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop

from ..core import checks
from ..kernels.cpu.engine import warm_up
from . import curves
from .controls import Controls
from .page import Page

ADDRESS = "127.0.0.1"
NAMES = ("localhost", ADDRESS)
LARGEST_PORT = 65535
PATIENCE = 10.0  # seconds that the end waits for a page's thread
FORGOTTEN = 5_000  # milliseconds after which a tab that was closed, or never connected, is over


class Served(NamedTuple):
    """A server, the port that it listens on, and the pages of the tabs that are open."""

    server: BaseServer
    port: int
    pages: set[Page]

    def stop(self) -> None:
        """End it, and wait a while for what its pages do."""
        self.server.stop()
        open_ones = list(self.pages)
        for page in open_ones:
            page.close()
        for page in open_ones:
            page.worker.join(PATIENCE)


def make(port: int = 0) -> Served:
    """A server that listens on `port`, 0 for any that is free; its `start` lets it answer, in this thread's loop.

    Its websocket accepts the origins localhost and 127.0.0.1 with the port it got.  ValueError where that port is
    another program's, or not for users.
    """
    checks.integer("port", port, 0, LARGEST_PORT)
    try:
        sockets, port = bind_sockets(ADDRESS, port)
    except OSError as error:
        why = {errno.EADDRINUSE: "another program listens there", errno.EACCES: "it is kept for the system"}
        rule = why.get(error.errno, error.strerror)
        raise ValueError(f"port = {port}: {rule}; give another, or 0 for any that is free") from None
    # BOKEH_ALLOW_WS_ORIGIN would stand in place of the origins below; what is set by a program goes before it, and an
    # empty list leaves them as they are.
    settings.allowed_ws_origin.set_value([])
    pages: set[Page] = set()
    tornado = BokehTornado(
        {"/": Application(FunctionHandler(lambda document: _open(document, pages)))},
        extra_websocket_origins=[f"{name}:{port}" for name in NAMES],
        check_unused_sessions_milliseconds=1_000, unused_session_lifetime_milliseconds=FORGOTTEN,
    )  # fmt: skip
    http = HTTPServer(tornado)
    http.add_sockets(sockets)
    return Served(BaseServer(IOLoop.current(), tornado, http), port, pages)


def _open(document: Document, pages: set[Page]) -> None:
    """A tab: its page, from the address that it was opened with."""
    context = document.session_context
    arguments = context.request.arguments if context and context.request else {}
    pairs = [(name, one.decode("utf-8", "replace")) for name, held in arguments.items() for one in held]
    page = Page(document, urlencode([pair for pair in pairs if not pair[0].startswith("bokeh-")]))
    pages.add(page)

    def closed(context):
        pages.discard(page)
        page.close()

    document.on_session_destroyed(closed)


def prepare() -> None:
    """Compile or load what pages need, so that the first one does not wait."""
    for part in ("lanes", "recursion"):
        warm_up(part)
    curves.compute(Controls(n_iter=20))


def serve(port: int, started: Callable[[str], None]) -> None:
    """Answer until Ctrl-C; `started` is called with the address once it listens."""
    asyncio.set_event_loop(asyncio.new_event_loop())
    served = make(port)
    try:
        served.server.start()
        served.server.io_loop.add_callback(started, f"http://{NAMES[0]}:{served.port}/")
        served.server.io_loop.start()
    except KeyboardInterrupt:
        pass
    finally:
        served.stop()

"""The page's server: on loopback, for its own origin alone, ended by Ctrl-C; and the command that starts it."""

import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from advfeat.cli.main import main

pytest.importorskip("bokeh")
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.ioloop import IOLoop
from tornado.websocket import websocket_connect

from advfeat.explorer import server


@contextmanager
def running(port=0):
    """A server in this thread, not yet asked anything, and its port."""
    one = server.make(port)
    one.server.start()
    try:
        yield one, one.port
    finally:
        one.server.unlisten()
        one.stop()


async def opened(port, origin, token):
    """Whether a websocket of this origin is opened."""
    headers = {"Origin": origin, "Sec-WebSocket-Protocol": f"bokeh, {token}"}
    try:
        client = await websocket_connect(HTTPRequest(f"ws://127.0.0.1:{port}/ws", headers=headers))
    except Exception as refusal:
        return str(refusal)
    client.close()
    return True


async def token_of(port):
    body = (await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/?n_iter=200")).body.decode()
    return re.search(r'"token":"([^"]+)"', body)[1]


@pytest.fixture(params=[None, "*", "evil.example"])
def variable(request, monkeypatch):
    monkeypatch.delenv("BOKEH_ALLOW_WS_ORIGIN", raising=False)
    if request.param:
        monkeypatch.setenv("BOKEH_ALLOW_WS_ORIGIN", request.param)


def test_its_own_origin_alone_is_let_in_whatever_the_variable_says(variable):
    async def all_origins(port):
        token = await token_of(port)
        names = {name: f"http://{name}" for name in (f"localhost:{port}", f"127.0.0.1:{port}")}
        foreign = ("evil.example", f"evil.example:{port}", "localhost", f"localhost:{port + 1}", f"192.168.0.1:{port}")
        let_in = {name: await opened(port, origin, token) for name, origin in names.items()}
        return let_in, {name: await opened(port, f"http://{name}", token) for name in foreign}

    with running() as (_, port):
        let_in, foreign = IOLoop.current().run_sync(lambda: all_origins(port), timeout=120)
    assert set(let_in.values()) == {True}
    assert all("403" in str(answer) for answer in foreign.values()), foreign


def test_it_listens_on_loopback_alone():
    with running() as (one, port):
        (held,) = one.server._http._sockets.values()
        assert held.getsockname() == ("127.0.0.1", port)


@pytest.mark.parametrize(
    ("port", "words"), [(-1, "port = -1: must be an integer >= 0"), (70000, "must be an integer >= 0 and <= 65,535")]
)
def test_a_port_that_is_none_is_refused(port, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        server.make(port)


def test_a_port_that_is_taken_is_named(capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"port = {port}: another program listens there; give another, or 0"):
            server.make(port)
        assert main(["explore", "--port", str(port), "--no-browser"]) == 2
    assert f"advfeat explore: port = {port}: another program" in capsys.readouterr().err


class Nothing:
    """A page that does nothing."""

    def __init__(self):
        self.worker = self

    def close(self):
        pass

    def join(self, timeout):
        pass


def test_each_tab_has_its_own_page_from_its_address(monkeypatch):
    made = []
    monkeypatch.setattr(server, "Page", lambda document, query: made.append(query) or Nothing())

    async def fetch(port):
        client = AsyncHTTPClient()
        for query in ("alpha=2&up=q", "", "alpha=2%263"):
            await client.fetch(f"http://127.0.0.1:{port}/?{query}", raise_error=False)

    with running() as (_, port):
        IOLoop.current().run_sync(lambda: fetch(port), timeout=60)
    assert made == ["alpha=2&up=q", "", "alpha=2%263"]


def test_a_session_that_nobody_is_connected_to_ends_its_page(monkeypatch):
    monkeypatch.setattr(server, "FORGOTTEN", 1)
    closed = threading.Event()
    monkeypatch.setattr(server.Page, "close", lambda self, close=server.Page.close: closed.set() or close(self))

    async def fetch_and_wait(port):
        await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/?n_iter=200")
        while not closed.is_set():
            await server.asyncio.sleep(0.1)

    with running() as (_, port):
        IOLoop.current().run_sync(lambda: fetch_and_wait(port), timeout=120)


def test_the_end_ends_the_pages():
    async def fetch(port):
        await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/?n_iter=200")

    with running() as (one, port):
        IOLoop.current().run_sync(lambda: fetch(port), timeout=60)
        (page,) = one.pages
        assert not page.closed.is_set()
    assert page.closed.is_set()
    assert page.worker.join(0)


def test_the_command_says_its_address_and_ctrl_c_ends_it():
    command = [sys.executable, "-m", "advfeat", "explore", "--port", "0", "--no-browser"]
    one = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = one.stdout.readline()
        assert re.fullmatch(r"advfeat explore: http://localhost:\d+/ \(Ctrl-C ends it\)\n", line)
        one.send_signal(signal.SIGINT)
        out, err = one.communicate(timeout=120)
    finally:
        one.kill()
    assert (one.returncode, out, err) == (0, "Stopped.\n", "")


def test_without_bokeh_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "bokeh", None)
    assert main(["explore", "--no-browser"]) == 2
    assert "advfeat explore: the package bokeh is missing: pip install 'advfeat[explore]'" in capsys.readouterr().err

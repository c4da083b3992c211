"""A connection that sends no request is closed, and one with a request stays."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from threading import Thread

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from api_shim import process
from tests.conftest import wait_until
from tests.support.servers import a_door

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def answers(scope: Scope, _receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


@contextmanager
def serving() -> Iterator[uvicorn.Server]:
    config = uvicorn.Config(
        answers, http="api_shim.process:Connection", lifespan="off", log_config=None, timeout_keep_alive=60
    )
    server, door = uvicorn.Server(config), a_door()
    thread = Thread(target=server.run, args=([door],), daemon=True)
    thread.start()
    wait_until(lambda: server.started, says="the server runs")
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join(20)
        door.close()


def connected(server: uvicorn.Server) -> "closing[socket.socket]":
    [listener] = server.servers
    return closing(socket.create_connection(listener.sockets[0].getsockname(), timeout=20))


@pytest.mark.parametrize("sent", [b"", REQUEST[:20]], ids=["nothing", "a part of a head"])
def test_connection_without_a_request_is_closed(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(process, "FIRST_REQUEST_S", 1.0)
    # An error if it is closed before the bytes arrive.
    with serving() as server, connected(server) as client, suppress(ConnectionError):
        client.sendall(sent)
        assert client.recv(1000) == b""


def test_connection_with_a_request_is_kept() -> None:
    with serving() as server, connected(server) as client:
        client.sendall(REQUEST)
        assert client.recv(1000).startswith(b"HTTP/1.1 204")
        [connection] = server.server_state.connections
        assert isinstance(connection, process.Connection)
        connection.loop.call_soon_threadsafe(connection._close_without_a_request)  # as at the end of its time
        client.sendall(REQUEST)
        assert client.recv(1000).startswith(b"HTTP/1.1 204")

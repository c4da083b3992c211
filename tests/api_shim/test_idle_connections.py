"""A connection that sends no request is closed, and one with a request stays."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Thread

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from api_shim import connections
from tests.conftest import wait_until
from tests.support.servers import a_door

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def answers(scope: Scope, _receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


@contextmanager
def serving() -> Iterator[tuple[str, int]]:
    config = uvicorn.Config(
        answers, http="api_shim.connections:Connection", lifespan="off", log_config=None, timeout_keep_alive=60
    )
    server, door = uvicorn.Server(config), a_door()
    thread = Thread(target=server.run, args=([door],), daemon=True)
    thread.start()
    wait_until(lambda: server.started, says="the server runs")
    try:
        yield door.getsockname()
    finally:
        server.should_exit = True
        thread.join(20)
        door.close()


@pytest.mark.parametrize("sent", [b"", REQUEST[:20]], ids=["nothing", "a part of a head"])
def test_connection_without_a_request_is_closed(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(connections, "FIRST_REQUEST_S", 0.2)
    with serving() as address, closing(socket.create_connection(address, timeout=20)) as client:
        client.sendall(sent)
        assert client.recv(1000) == b""


def test_connection_with_a_request_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "FIRST_REQUEST_S", 0.2)
    with serving() as address, closing(socket.create_connection(address, timeout=20)) as client:
        with closing(socket.create_connection(address, timeout=20)) as idle:
            client.sendall(REQUEST)
            assert client.recv(1000).startswith(b"HTTP/1.1 204")
            assert idle.recv(1000) == b"", "it was opened later, and is closed"
        client.sendall(REQUEST)
        assert client.recv(1000).startswith(b"HTTP/1.1 204")

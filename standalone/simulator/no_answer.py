"""Requests without an answer, and refused connections."""

import asyncio
import contextlib
import errno
import socket
from typing import Any
from weakref import WeakSet

from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_TRANSPORT = "duecall.transport"
_TRANSPORTS = "duecall.transports"


class HungUp(Exception):
    """The connection is to be closed without an answer, when the client gives up or after `hold_s`."""

    def __init__(self, *, hold_s: float) -> None:
        super().__init__()
        self.hold_s = hold_s


class CanHangUp(FastAPI):
    """An application whose answers may close the connection.

    ASGI has no message for that, so this takes the transport from uvicorn's `send`, which is only accessible here,
    outside every middleware.
    """

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - FastAPI's own
        super().__init__(**settings)
        self._transports: WeakSet[Any] = WeakSet()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = getattr(getattr(send, "__self__", None), "transport", None)
        if transport is not None:
            self._transports.add(transport)
        scope[_TRANSPORT] = transport
        scope[_TRANSPORTS] = self._transports
        await super().__call__(scope, receive, send)


class NoAnswer(Response):
    """Holds the connection until the client gives up or `hold_s` have passed, and closes it without a byte."""

    def __init__(self, *, hold_s: float) -> None:
        super().__init__()
        self._hold_s = hold_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - nothing is sent
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._hold_s):
                await _disconnected(receive)
                return
        scope[_TRANSPORT].close()
        await _disconnected(receive)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def refuse_connections(scope: Scope, *, for_s: float) -> None:
    """Close every connection except that of `scope`, and have the system refuse new connections for `for_s`.

    On Linux a listening socket that was shut down can listen again. asyncio has no public API for it.
    """
    own = scope[_TRANSPORT]
    server = own._server  # noqa: SLF001 - see above
    loop = asyncio.get_running_loop()
    for transport in list(scope[_TRANSPORTS]):
        if transport.is_closing():
            continue
        _share_port(transport.get_extra_info("socket"))
        if transport is not own:
            transport.abort()
    for listening in server.sockets:
        loop.remove_reader(listening.fileno())
        with socket.fromfd(listening.fileno(), listening.family, listening.type) as same:
            _stop_listening(same)
    server._serving = False  # noqa: SLF001 - see above
    loop.call_later(for_s, server._start_serving)  # noqa: SLF001 - see above
    await asyncio.sleep(0)  # in the next turn of the loop they are closed, and the operator can be answered


def _stop_listening(listening: socket.socket) -> None:
    address = listening.getsockname()
    _share_port(listening)
    listening.shutdown(socket.SHUT_RDWR)
    try:
        listening.bind(address)
    except OSError as error:
        # It keeps its port, unless the system had chosen that.
        if error.errno != errno.EINVAL:
            raise


def _share_port(of: Any) -> None:  # noqa: ANN401 - a socket, or asyncio's view of one
    """Let a socket listen at a port that a connection still uses."""
    of.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

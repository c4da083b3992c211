"""How a server gives no answer at all."""

import asyncio
import contextlib

from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_TRANSPORT = "duecall.transport"


class CanHangUp(FastAPI):
    """An application whose answers may close the connection.

    ASGI has no message for that, so this takes the transport from behind uvicorn's `send`, which can be seen
    only here, outside every middleware.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_TRANSPORT] = getattr(getattr(send, "__self__", None), "transport", None)
        await super().__call__(scope, receive, send)


class NoAnswer(Response):
    """Holds the connection until the client gives up or `hold_s` are over, and closes it without a byte."""

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

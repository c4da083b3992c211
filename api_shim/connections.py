"""Connections of clients over HTTP: one that sends no request is closed, because each takes a descriptor.

Uvicorn closes idle connections only after their first response. `--http` in the Procfile names this class.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

FIRST_REQUEST_S = 10.0
"""The time from a connection to the end of the head of its first request."""


class Connection(H11Protocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - those of the base
        super().__init__(*args, **kwargs)
        self._closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._closing = self.loop.call_later(FIRST_REQUEST_S, self._close_without_a_request)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closing is not None:
            self._closing.cancel()
        super().connection_lost(exc)

    def _close_without_a_request(self) -> None:
        if not self.cycle:  # its type hides that it is None until the first head has been read
            self.transport.close()

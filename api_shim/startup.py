"""The start of an HTTP process: errors of settings and of the database in one line, and logs in our form."""

import logging
import sys

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scheduler.persistence.errors import WrongDatabase
from scheduler.settings import WrongSettings

_EXPECTED = (WrongSettings, WrongDatabase)


class PlainStart:
    """Middleware that reports invalid settings and databases in one line instead of the framework's traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_plainly(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and isinstance(sys.exception(), _EXPECTED):
                message["message"] = str(sys.exception())
            await send(message)

        await self._app(scope, receive, send_plainly if scope["type"] == "lifespan" else send)


def uvicorn_logs_as_we_do() -> None:
    """Route uvicorn's records through our logging. Its own handlers write error texts, which may quote input."""
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True

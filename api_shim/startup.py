"""The start of an HTTP process: its checks, its errors in one line, and logs in our form."""

import logging
import sys
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scheduler import redis_health
from scheduler.persistence.database import Database
from scheduler.persistence.errors import DatabaseAway
from scheduler.start_failures import failure_line
from scheduler.use_cases.operations.installation_marks import InstallationMarks


def check_start(database: Database, redis_url: str, marks: InstallationMarks) -> None:
    """Raise an error if this process could not answer requests. Servers that are away may come back, and raise none.

    Raises RedisRefuses, WrongRole, SchemaNotReady, and WrongDatabase for the database of another installation.
    """
    redis_health.check_login(redis_url)
    with suppress(DatabaseAway):
        database.check_start()
        marks.check()


class PlainStart:
    """Middleware that reports a failed start in one line instead of the framework's traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_plainly(message: Message) -> None:
            error = sys.exception()
            if message["type"] == "lifespan.startup.failed" and error is not None:
                message["message"] = failure_line(error)
            await send(message)

        await self._app(scope, receive, send_plainly if scope["type"] == "lifespan" else send)


def uvicorn_logs_as_we_do() -> None:
    """Route uvicorn's records through our logging. Its own handlers write error texts, which may quote input."""
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True

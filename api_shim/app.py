"""The thin HTTP intake: `uvicorn api_shim.app:app`. JSON becomes a command, what became of it becomes JSON."""

import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_shim import errors
from api_shim.answer_waiter import AnswerWaiter
from api_shim.context import AppContext, ThreadPools, asked
from api_shim.middleware import RequestMiddleware
from api_shim.out_of_memory import ending_the_process
from api_shim.rate_limits import RateLimits
from api_shim.routes import (
    agents,
    billing,
    call_attempts,
    call_times,
    candidates,
    carrier,
    commands,
    companies,
    health,
    interviews,
    invitations,
    jobs,
    phone_numbers,
)
from api_shim.shutdown import told_to_stop
from scheduler import assembly
from scheduler.logs import configure
from scheduler.persistence import schema
from scheduler.settings import Settings, WrongSettings
from scheduler.settings import settings as of_this_process
from workers.presence import Presence

_DESCRIPTION = """
Places each scheduled phone call when it is due, within the hours in which that person may be called, and never twice.

Every path also works under `/v1`. All JSON responses have the same envelope. The header `X-Trace-Id` repeats `traceId`.

Responses to requests with a valid key show its rate limits: `X-RateLimit-Limit-Minute`,
`X-RateLimit-Remaining-Minute`, `X-RateLimit-Reset-Minute` (Unix seconds), and the same headers with `-Hour`.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Without settings, those of the process are read when it starts to serve, not before."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        configure()
        _uvicorn_logs_as_we_do()
        async with _open(settings or of_this_process()) as app.state.app_context:
            yield

    app = FastAPI(
        title="Duecall",
        version="1",
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
        # Its records would quote what failed validation, and that is somebody's name or number.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.add_middleware(RequestMiddleware)
    app.add_middleware(_PlainStart)
    errors.handle_in(app)
    for resource in (
        companies,
        jobs,
        candidates,
        agents,
        phone_numbers,
        interviews,
        call_attempts,
        call_times,
        commands,
        invitations,
        billing,
        carrier,
        health,
    ):
        app.include_router(resource.router)
    return app


@contextlib.asynccontextmanager
async def _open(settings: Settings) -> AsyncIterator[AppContext]:
    redis_url = settings.redis
    # Read when it is needed: this module names its broker as soon as it is imported.
    from workers import hint_publisher as doorbell  # noqa: PLC0415 - the line above
    from workers.app import ANSWERED_CHANNEL  # noqa: PLC0415 - the same
    from workers.app import app as celery  # noqa: PLC0415 - the same

    hints = doorbell.RedisHintPublisher(celery, redis_url)
    doors = assembly.doors(settings, hints)
    rooms = ThreadPools.open()

    async def which_answered(command_ids: Sequence[UUID]) -> frozenset[UUID]:
        return await asked(rooms.lookout, doors.lookout.which_answered, command_ids)

    waiter = AnswerWaiter(redis_url, ANSWERED_CHANNEL, lambda: hints.is_away, which_answered)
    presence = Presence(redis_url)
    rate_limits = RateLimits(redis_url, doors.now, lambda: waiter.is_away)
    await asked(rooms.requests, doors.database.check_role)
    hints.start()
    try:
        async with waiter.listening(), rate_limits.counting():
            with told_to_stop(waiter.let_go), ending_the_process():
                yield AppContext(
                    doors=doors,
                    waiter=waiter,
                    schema_head=schema.head(),
                    rooms=rooms,
                    instance=settings.duecall_instance or None,
                    rate_limits=rate_limits,
                    presence=presence,
                )
    finally:
        hints.stop()
        rooms.close()
        presence.close()
        for database in doors.databases:
            database.close()


class _PlainStart:
    """Settings that cannot be used are told in one line, not as the traceback that the framework sends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and isinstance(sys.exception(), WrongSettings):
                message["message"] = str(sys.exception())
            await send(message)

        await self._app(scope, receive, told if scope["type"] == "lifespan" else send)


def _uvicorn_logs_as_we_do() -> None:
    """Its own handlers would write an error with its text, and that may quote what somebody sent."""
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True


app = create_app()

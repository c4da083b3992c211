"""The HTTP API: `uvicorn api_shim.app:app`. Routes turn JSON into commands and results into JSON."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from fastapi import FastAPI

from api_shim import errors, openapi
from api_shim.answer_waiter import AnswerWaiter, CommandReads
from api_shim.assembly import ApiUseCases, AppContext
from api_shim.http_metrics import HttpTallies
from api_shim.middleware import RequestMiddleware
from api_shim.process import PlainStart, check_start, ending_the_process, on_stop_signal, uvicorn_logs_as_we_do
from api_shim.rate_limits import RateLimits
from api_shim.routes import (
    agents,
    batches,
    call_attempts,
    candidates,
    carrier,
    companies,
    conversations,
    events,
    evidence,
    health,
    interviews,
    webhooks,
)
from api_shim.thread_pools import ThreadPools, run_in_thread
from scheduler import assembly
from scheduler.clock import deadline_in
from scheduler.logs import configure
from scheduler.persistence import sessions
from scheduler.process import collect_rarely, raise_limit
from scheduler.rules.tallies import Amount, Key
from scheduler.settings import Settings
from scheduler.settings import settings as of_this_process
from workers.alarm_writer import AlarmWriter
from workers.app import ANSWERED_CHANNEL
from workers.app import app as celery
from workers.hints import RedisHintPublisher
from workers.liveness import Presence

_ADD_TALLIES_S = 2.0
"""A process that stops waits this long for the database. Later its last counts are lost."""
_DESCRIPTION = """
Places each scheduled phone call when it is due, within the hours in which that person may be called, and never twice.

Every path also works under `/v1`. All JSON responses have the same envelope. The header `X-Trace-Id` repeats `traceId`.

Responses to requests with a valid key show its rate limits: `X-RateLimit-Limit-Minute`,
`X-RateLimit-Remaining-Minute`, `X-RateLimit-Reset-Minute` (Unix seconds), and the same headers with `-Hour`.
"""


class _Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Build the document, with the parts that the framework cannot describe."""
        return openapi.complete(super().openapi())


def create_app(settings: Settings | None = None) -> FastAPI:
    """Create the application. Without `settings`, it reads those of the process when it starts to serve."""
    tallies = HttpTallies()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        configure()
        if settings is None:
            raise_limit()
        uvicorn_logs_as_we_do()
        async with _open(settings or of_this_process(), tallies) as app.state.app_context:
            if settings is None:  # this process serves nothing else
                await health.count_ahead(app.state.app_context)
                collect_rarely()
            yield

    app = _Api(
        title="Duecall",
        version="1",
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # the framework's page loads its scripts from another host
        redoc_url=None,
        # Its records would quote invalid input, which may be a person's name or phone number.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.add_middleware(carrier.CallbackMiddleware)
    app.add_middleware(RequestMiddleware, tallies=tallies)
    app.add_middleware(PlainStart)
    errors.handle_in(app)
    app.router.routes.extend(carrier.routes)
    for router in (
        companies.router,
        candidates.jobs,
        candidates.router,
        agents.router,
        agents.phone_numbers,
        interviews.router,
        batches.router,
        call_attempts.router,
        evidence.router,
        conversations.router,
        call_attempts.call_times,
        interviews.commands,
        companies.invitations,
        companies.billing,
        events.router,
        webhooks.router,
        events.deliveries,
        health.router,
        openapi.docs_page,
    ):
        # Not by `include_router`: it compares the versions of all routers at each request.
        app.router.routes.extend(router.routes)
    return app


@contextlib.asynccontextmanager
async def _open(settings: Settings, tallies: HttpTallies) -> AsyncIterator[AppContext]:
    redis_url = settings.redis

    hints = RedisHintPublisher(celery, redis_url)
    use_cases = ApiUseCases(settings, hints)
    threads = ThreadPools.open()

    async def which_answered(command_ids: Sequence[UUID]) -> frozenset[UUID]:
        return await run_in_thread(threads.lookups, use_cases.command_lookup.which_answered, command_ids)

    async def add_tallies(amounts: Mapping[Key, Amount]) -> None:
        with deadline_in(_ADD_TALLIES_S):
            await run_in_thread(threads.without_key, use_cases.tallies.add, amounts)

    alarms = AlarmWriter(assembly.alarm_store(settings, "api"))
    waiter = AnswerWaiter(redis_url, ANSWERED_CHANNEL, lambda: hints.is_away, which_answered)
    callbacks = carrier.CallbackBatches(threads.callbacks, use_cases.hear.store)
    presence = Presence(redis_url)
    rate_limits = RateLimits(redis_url, use_cases.now, lambda: waiter.is_away)
    await run_in_thread(threads.requests, check_start, use_cases.database, redis_url, use_cases.marks)
    hints.start()
    alarms.start()
    try:
        async with waiter.listening(), rate_limits.counting(), tallies.adding(add_tallies):
            with on_stop_signal(waiter.let_go), ending_the_process():
                yield AppContext(
                    use_cases=use_cases,
                    waiter=waiter,
                    schema_head=sessions.head(),
                    threads=threads,
                    store_callback=callbacks.store,
                    find_command=CommandReads(threads.requests, use_cases.submit.find_all).find,
                    instance=settings.duecall_instance or None,
                    rate_limits=rate_limits,
                    presence=presence,
                )
    finally:
        await callbacks.finish()
        hints.stop()
        threads.close()
        presence.close()
        for database in use_cases.databases:
            database.close()
        alarms.stop()


app = create_app()

"""The operators' console: `uvicorn console.app:app`."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from api_shim import process
from api_shim.thread_pools import ThreadPool
from console import assembly, rendering, sign_in
from console.assembly import ConsoleContext, console_context
from console.live import Live, LiveResponse, Polled
from console.operators import NotSignedIn, RoleMissing, find_session, viewer
from console.pages import attempt, attempts, calendar, companies, find, incidents, keys, now, records, unknown, webhooks
from console.rendering import page
from console.security import Address, SecurityMiddleware
from console.sign_in import remember
from console.stores.sessions import ConsoleSession
from scheduler.clock import set_deadline
from scheduler.logs import configure, log
from scheduler.persistence.errors import ClockWrong, DatabaseAway
from scheduler.persistence.sessions import head
from scheduler.process import raise_limit
from scheduler.settings import Settings
from scheduler.settings import settings as of_this_process
from workers.app import app as celery
from workers.hints import RedisHintPublisher
from workers.liveness import Presence

_log = log(__name__)
_SEE_OTHER, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _AWAY = 303, 401, 403, 404, 503
_METHOD_NOT_ALLOWED, _FAILED = 405, 500
_POLL_S = 6.0
"""Time for one poll."""
_THREADS = 4
router = APIRouter()


def create_app(settings: Settings | None = None) -> FastAPI:
    """Create the application. Without `settings`, it reads those of the process."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        configure()
        if settings is None:
            raise_limit()
        process.uvicorn_logs_as_we_do()
        chosen = settings or of_this_process()
        async with _open(chosen) as app.state.console_context:
            with process.ending_the_process():
                yield

    app = FastAPI(
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.add_middleware(SecurityMiddleware, failed=_failed)
    app.add_middleware(process.PlainStart)
    _handle_errors(app)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
    pages = (now, companies, attempts, attempt, find, unknown, incidents, calendar, keys, webhooks, records)
    for part in (router, sign_in.router, *(each.router for each in pages)):
        app.router.routes.extend(part.routes)
    return app


@contextlib.asynccontextmanager
async def _open(settings: Settings) -> AsyncIterator[ConsoleContext]:
    hints = RedisHintPublisher(celery, settings.redis)
    use_cases = assembly.ConsoleUseCases(settings, hints)
    threads, presence = ThreadPool("console", _THREADS), Presence(settings.redis)

    async def poll() -> Polled:
        set_deadline(_POLL_S)
        sessions = await context.run(use_cases.sessions.all)
        return Polled(fragments=await now.fragments(context), session_ids=frozenset(each.id for each in sessions))

    context = ConsoleContext(
        use_cases=use_cases,
        threads=threads,
        templates=rendering.environment(use_cases.now),
        presence=presence,
        live=Live(poll=poll),
        schema_head=head(),
        address=Address.of(settings.console_url),
        oidc=assembly.oidc_sign_in(settings),
        docs_url=settings.console_docs_url,
        instance=settings.duecall_instance or None,
    )
    try:
        await context.run(process.check_start, use_cases.database, settings.redis, use_cases.marks)
        hints.start()
        try:
            with process.on_stop_signal(context.live.stop):
                yield context
        finally:
            hints.stop()
    finally:
        context.live.stop()
        threads.close()
        presence.close()
        use_cases.database.close()


@router.get("/healthz")
async def is_alive(request: Request) -> Response:
    """Answer without a database, in the form of the API's `/healthz`."""
    return JSONResponse({"data": {"status": "ok", "instance": console_context(request).instance}})


@router.get("/readyz")
async def is_ready(request: Request) -> Response:
    """Answer 200 while pages can be read: the database is reachable and has the schema."""
    context = console_context(request)
    await context.run(context.use_cases.database.check_start)
    return JSONResponse({"data": {"status": "ok", "instance": context.instance}})


@router.get("/live")
async def live(request: Request, session: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    return LiveResponse(console_context(request).live, session)


def _handle_errors(app: FastAPI) -> None:
    async def not_signed_in(request: Request, _: Exception) -> Response:
        if request.method != "GET" or request.url.path == "/live":
            return _error(request, _UNAUTHORIZED, "You are not signed in.", "Sign in, and repeat what you did.")
        response = RedirectResponse("/sign-in", _SEE_OTHER)
        remember(request, response)
        return response

    async def role_missing(request: Request, error: Exception) -> Response:
        assert isinstance(error, RoleMissing)
        text = f"This needs the role {error.needed.value}. Yours is {request.state.session.role.value}."
        return _error(request, _FORBIDDEN, "You may not do this.", text)

    async def not_found(request: Request, _: Exception) -> Response:
        await find_session(request)
        return _error(request, _NOT_FOUND, "There is no such page.", "Check the address, or begin with the page Now.")

    async def wrong_method(request: Request, _: Exception) -> Response:
        await find_session(request)
        return _error(request, _METHOD_NOT_ALLOWED, "This address only accepts forms.", "Open the page first.")

    async def away(request: Request, _: Exception) -> Response:
        text = "Calls do not depend on the console. Reload this page in a moment."
        if request.method != "GET":
            text = "What you did may be done, or done in part. Open the page again and look before you repeat it."
        return _error(request, _AWAY, "The database cannot be reached.", text)

    async def clock_wrong(request: Request, _: Exception) -> Response:
        text = "The clocks of this machine and of the database differ, so nothing was changed. Set them right."
        return _error(request, _AWAY, "A clock is wrong.", text)

    app.add_exception_handler(NotSignedIn, not_signed_in)
    app.add_exception_handler(RoleMissing, role_missing)
    app.add_exception_handler(_NOT_FOUND, not_found)
    app.add_exception_handler(_METHOD_NOT_ALLOWED, wrong_method)
    app.add_exception_handler(DatabaseAway, away)
    app.add_exception_handler(ClockWrong, clock_wrong)


def _failed(request: Request, error: Exception) -> Response:
    process.end_if(error)
    _log.exception("console_failed: A request to the console failed with an unexpected error.", exc_info=error)
    text = f"The log of the console describes it under the trace id {request.state.trace_id}."
    return _error(request, _FAILED, "This page failed.", text)


def _error(request: Request, status: int, title: str, text: str) -> Response:
    return page(request, "error.html", status, title=title, text=text)


app = create_app()

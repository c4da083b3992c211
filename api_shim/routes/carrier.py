"""HTTP routes for carrier callbacks and fallbacks. Those that arrive together are stored in one transaction."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api_shim import errors
from api_shim.assembly import app_context
from api_shim.thread_pools import MAX_S, ThreadPool, run_in_thread
from scheduler.carriers.interface import NotACallback
from scheduler.clock import deadline_in, monotonic, remaining_s
from scheduler.persistence.carrier_events import NewCarrierEvent
from scheduler.persistence.errors import CommitInDoubt, DatabaseAway, LockTaken

# --- Batches of carrier callbacks: those that arrive at the same time are stored in one transaction


GATHER_S, GATHER_UNDER_LOAD_S = 0.005, 0.025
LARGEST_BATCH = 200


def gather_s(last_batch: int) -> float:
    """Decide for how long a batch waits for further callbacks, by the size of the last one.

    A transaction costs ten times as much as one more callback in it. The carrier does not wait for the response: it
    sends a call's next callback when the call progresses.
    """
    return GATHER_S if last_batch <= 1 else GATHER_UNDER_LOAD_S


@dataclass(frozen=True, kw_only=True, eq=False)
class _Request:
    callback: NewCarrierEvent
    ends_at: float
    """Its deadline on the monotonic clock."""


@dataclass(kw_only=True, eq=False)
class _Batch:
    gathers_s: float
    requests: list[_Request] = field(default_factory=list)
    is_ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is full, or when its time for gathering is over."""
    is_closed: bool = False
    """No request joins or leaves it: it is being stored."""


class CallbackBatches:
    """Gathers the callbacks of concurrent requests. Belongs to one event loop.

    A batch waits for its time for gathering, and longer while every thread is busy. At most as many batches are stored
    at a time as there are threads. `store` stores callbacks in one transaction.
    """

    def __init__(self, threads: ThreadPool, store: Callable[[Sequence[NewCarrierEvent]], None]) -> None:
        self._threads = threads
        self._store = store
        self._turns = asyncio.Semaphore(threads.count)
        self._open: tuple[_Batch, asyncio.Task[None]] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._last_batch = 0
        """Number of callbacks in the last batch that was closed."""

    async def store(self, callback: NewCarrierEvent) -> None:
        """Store a callback, and return after the commit.

        Raises DatabaseAway if it is certain that the callback was not stored, CommitInDoubt, and unexpected errors.
        """
        left = remaining_s()
        request = _Request(callback=callback, ends_at=monotonic() + (MAX_S if left is None else left))
        batch, task = self._join(request)
        try:
            await _in_time(batch, task, request)
        except Exception as error:
            is_away = isinstance(error, DatabaseAway) and not isinstance(error, LockTaken)
            if is_away or len(batch.requests) == 1:
                raise
            # The error may be due to one callback of the batch. Each request stores its own, so that only that one
            # fails. A callback that is refused may be lost: the carrier need not repeat it.
            await self._write([callback])

    async def finish(self) -> None:
        """Wait until the last batch is stored or has failed. No request may begin after this."""
        while self._running:
            await asyncio.wait(self._running)

    def _join(self, request: _Request) -> tuple[_Batch, asyncio.Task[None]]:
        joined = self._open = self._open or self._begin()
        batch, _ = joined
        batch.requests.append(request)
        if len(batch.requests) == LARGEST_BATCH:
            batch.is_ready.set()
            self._open = None
        return joined

    def _begin(self) -> tuple[_Batch, asyncio.Task[None]]:
        loop, batch = asyncio.get_running_loop(), _Batch(gathers_s=gather_s(self._last_batch))
        # In a context of its own: deadline and trace id of the first request are not those of the others.
        task = loop.create_task(self._run(batch), name="callbacks", context=Context())
        self._running.add(task)
        task.add_done_callback(self._ended)
        loop.call_later(batch.gathers_s, batch.is_ready.set)
        return batch, task

    async def _run(self, batch: _Batch) -> None:
        await batch.is_ready.wait()
        async with self._turns:
            batch.is_closed = True
            if self._open is not None and self._open[0] is batch:
                self._open = None
            self._last_batch = len(batch.requests)
            if not batch.requests:
                return
            # The latest deadline: the first request to give up must not fail those that arrived after it.
            with deadline_in(max(each.ends_at for each in batch.requests) - monotonic()):
                await self._write([each.callback for each in batch.requests])

    async def _write(self, callbacks: Sequence[NewCarrierEvent]) -> None:
        try:
            await run_in_thread(self._threads, self._store, callbacks)
        except DatabaseAway as away:
            if isinstance(away.__cause__, TimeoutError):
                raise CommitInDoubt("silence") from away  # the thread may still be storing them
            raise

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # requests raise it, unless all of them have given up


async def _in_time(batch: _Batch, task: asyncio.Task[None], request: _Request) -> None:
    """Wait until the batch is stored. Raises its error.

    At the request's deadline raises DatabaseAway if the request could leave the batch, and otherwise CommitInDoubt.
    """
    # Not `wait_for`: it would cancel the task, and the other requests still wait for it.
    stored, _ = await asyncio.wait([task], timeout=request.ends_at - monotonic())
    if stored:
        task.result()
    elif batch.is_closed:
        raise CommitInDoubt("silence")
    else:
        batch.requests.remove(request)
        raise DatabaseAway("silence")


# --- HTTP route for carrier callbacks. Not part of the public document
# A plain route of Starlette, served before the framework's router: finding the route, reading parameters and handling
# errors there would cost more than everything that a callback needs.


_PREFIX = "/carrier/twilio/"
_MOST_FIELDS = 200
_GOODBYE = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    "<Response><Say>We are sorry. We cannot speak with you now. Goodbye.</Say><Hangup/></Response>"
)
Answer = Callable[[Request], Awaitable[Response]]


class CallbackMiddleware:
    """Serves carrier callbacks and passes every other request on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(_PREFIX):
            for route in routes:
                match, child_scope = route.matches(scope)
                if match is Match.FULL:
                    scope.update(child_scope)
                    await _respond(Request(scope, receive), route.answer, send)
                    return
        await self._app(scope, receive, send)


async def _respond(request: Request, answer: Answer, send: Send) -> None:
    try:
        response = await answer(request)
    except errors.EXPECTED as error:
        response = await errors.handle(request, error)
    await response(request.scope, request.receive, send)


async def hear_twilio(request: Request) -> Response:
    """Store a callback and return 204. The carrier authenticates only by its signature."""
    await _store(request, is_fallback=False)
    return Response(status_code=204)


async def give_other_instructions(request: Request) -> Response:
    """Store that the voice server gave a call no instructions, and return instructions that end it politely.

    A repeated request, or one for an unknown or finished call, gets the same instructions and changes nothing.
    """
    await _store(request, is_fallback=True)
    return Response(_GOODBYE, media_type="text/xml")


async def _store(request: Request, *, is_fallback: bool) -> None:
    token = request.path_params["token"]
    form = _pairs(await request.body())
    signature = request.headers.get("x-twilio-signature", "")
    context = app_context(request)
    # Here and not in a thread: checking takes less time than passing it to a thread would.
    callback = context.use_cases.hear.genuine(token, _signed_path(request), form, signature, is_fallback=is_fallback)
    await context.store_callback(callback)


def _pairs(body: bytes) -> list[tuple[str, str]]:
    """List all form pairs, including empty and repeated ones: the signature covers them all."""
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise NotACallback from error


def _signed_path(request: Request) -> str:
    """Read the raw path and query. The carrier signed exactly these bytes, so they are never re-encoded."""
    raw: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    return (raw + b"?" + query if query else raw).decode("ascii", errors="replace")


class _LoggedRoute(Route):
    """Notes itself for the log of requests, like FastAPI's routes."""

    def __init__(self, path: str, answer: Answer) -> None:
        super().__init__(path, answer, methods=["POST"], include_in_schema=False)
        self.answer = answer

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        return match, {**child_scope, "route": self}


routes = (
    _LoggedRoute(_PREFIX + "{token}", hear_twilio),
    _LoggedRoute(_PREFIX + "{token}/fallback", give_other_instructions),
)

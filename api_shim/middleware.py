"""Middleware around every request and response."""

from typing import Any
from uuid import uuid4

import anyio
import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_shim import errors, process
from api_shim.errors import BodyTooLarge
from api_shim.http_metrics import HttpTallies
from api_shim.rate_limits import RateLimitState
from api_shim.thread_pools import MAX_S
from scheduler.clock import monotonic, set_deadline
from scheduler.logs import log
from scheduler.wire.batches import LARGEST_BATCH
from scheduler.wire.json_values import LARGEST_BODY

_log = log(__name__)
_DRAINED = 16 * LARGEST_BODY
_DRAINED_FOR_S = 2.0
_ALIAS = "/v1"
_BATCH_S = 30.0
_LARGER = {("POST", "/batches"): (LARGEST_BATCH, _BATCH_S)}
"""Routes whose body may have more than `LARGEST_BODY`, with the deadline that a busy machine needs for it."""


class RequestMiddleware:
    """Sets the trace id, strips `/v1` from the path, limits the body and logs each request once.

    Unexpected errors get a response without their text, which may quote input.
    """

    def __init__(self, app: ASGIApp, tallies: HttpTallies) -> None:
        self._app = app
        self._tallies = tallies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        set_deadline(MAX_S)
        visit = _RequestScope(_without_alias(scope), receive, send)
        # Never unbound: each request has a task of its own, and so a context of its own.
        structlog.contextvars.bind_contextvars(trace_id=visit.trace_id)
        try:
            await self._admit(visit)
        finally:
            visit.log(self._tallies)

    async def _admit(self, visit: "_RequestScope") -> None:
        try:
            if visit.announced > visit.largest:
                await visit.refuse(BodyTooLarge(visit.largest))
                return
            await self._app(visit.scope, visit.receive, visit.send)
        except Exception as error:
            process.end_if(error)
            _log.exception("request_failed: A request failed with an unexpected error.", trace_id=visit.trace_id)
            if visit.status:
                raise
            await visit.refuse(error)


class _RequestScope:
    """One request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.trace_id = uuid4().hex
        self.largest, self._max_s = _LARGER.get((scope["method"], scope["path"]), (LARGEST_BODY, MAX_S))
        scope["state"] = {**scope.get("state", {}), "trace_id": self.trace_id}
        self.status = 0
        self._receive = receive
        self._send = send
        self._received = 0
        self._began = monotonic()

    @property
    def announced(self) -> int:
        length = next((value for name, value in self.scope["headers"] if name == b"content-length"), b"")
        return int(length) if length.isdigit() else 0

    async def receive(self) -> Message:
        """Receive and count bytes: a client may send no Content-Length, or a wrong one. Raises BodyTooLarge."""
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received > self.largest:
            await self._drain(message)
            raise BodyTooLarge(self.largest)
        if message["type"] == "http.request" and not message.get("more_body"):
            # The time that the client took to send the body does not count.
            set_deadline(self._max_s)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            headers = MutableHeaders(scope=message)
            headers["X-Trace-Id"] = self.trace_id
            rate_limit: RateLimitState | None = self.scope["state"].get("rate_limit")
            for name, value in rate_limit.headers() if rate_limit is not None else ():
                headers[name] = value
        await self._send(message)

    async def refuse(self, error: Exception) -> None:
        if isinstance(error, BodyTooLarge):
            await self._drain({"type": "http.request", "more_body": True})
        await errors.answer_to(Request(self.scope), error)(self.scope, self._receive, self.send)

    async def _drain(self, message: Message) -> None:
        """Read the rest of the body for a moment: a client that is still sending does not read the response."""
        with anyio.move_on_after(_DRAINED_FOR_S):
            while message["type"] == "http.request" and message.get("more_body"):
                message = await self._receive()
                self._received += len(message.get("body", b""))
                if self._received > _DRAINED:
                    return

    def log(self, tallies: HttpTallies) -> None:
        """Log and count the request."""
        route: Any = self.scope.get("route")
        template: str = getattr(route, "path_format", None) or getattr(route, "path", None) or "-"
        seconds = monotonic() - self._began
        tallies.count(self.scope["method"], template, self.status, seconds)
        _log.info(
            "request_answered: A request was answered.",
            method=self.scope["method"],
            route=template,
            status=self.status,
            seconds=round(seconds, 4),
            trace_id=self.trace_id,
        )


def _without_alias(scope: Scope) -> Scope:
    path: str = scope["path"]
    if path != _ALIAS and not path.startswith(_ALIAS + "/"):
        return dict(scope)
    raw: bytes = scope.get("raw_path") or path.encode()
    return {**scope, "path": path[len(_ALIAS) :] or "/", "raw_path": raw[len(_ALIAS) :] or b"/"}

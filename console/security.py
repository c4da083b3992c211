"""Requests that are refused before any route sees them, headers of every response, and forms and ids from pages."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_shim.thread_pools import MAX_S
from scheduler.clock import monotonic, set_deadline
from scheduler.domain.refusals import NotFound
from scheduler.ids import id_or_none
from scheduler.logs import log

_log = log(__name__)
_CHANGES_NOTHING = frozenset({"GET", "HEAD"})
_FOR_ANY_HOST = ("/healthz", "/readyz")
"""Health checks address the process itself, not the name that operators use."""
_FORBIDDEN = 403
LARGEST_FORM = 16_384
_STATIC = "/static/"

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # An address may contain the secret of a sign-in link.
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True, kw_only=True)
class Address:
    """The address at which operators open the console."""

    host: str
    """With its port, as in the header Host."""
    origin: str
    is_secure: bool
    """Over https: the cookie is sent over nothing else."""

    @classmethod
    def of(cls, url: str) -> "Address":
        parts = urlsplit(url.lower())
        return cls(host=parts.netloc, origin=f"{parts.scheme}://{parts.netloc}", is_secure=parts.scheme == "https")


class SecurityMiddleware:
    """Refuses requests for another host and writes from another site, adds headers, and logs each request once.

    A foreign name may resolve to a loopback address, so a page of another site could read this one under its own name.
    """

    def __init__(self, app: ASGIApp, *, failed: Callable[[Request, Exception], Response]) -> None:
        """`failed` logs an unexpected error and returns the page that reports it."""
        self._app = app
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        set_deadline(MAX_S)
        address: Address = scope["app"].state.console_context.address
        began, status, trace_id = monotonic(), 0, token_hex(16)
        scope["state"] = {**scope.get("state", {}), "trace_id": trace_id}
        structlog.contextvars.bind_contextvars(trace_id=trace_id)

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                _add_headers(MutableHeaders(scope=message), scope["path"], trace_id, address)
            await send(message)

        reason = _refusal(scope, address)
        try:
            if reason is None:
                await self._app(scope, receive, send_safely)
            else:
                await PlainTextResponse(reason, _FORBIDDEN)(scope, receive, send_safely)
        except Exception as error:
            response = self._failed(Request(scope), error)
            if status:
                raise
            await response(scope, receive, send_safely)
        finally:
            route: Any = scope.get("route")
            _log.info(
                "console_answered: A request to the console was answered.",
                method=scope["method"],
                # Never the path itself: it may contain the secret of a sign-in link.
                route=getattr(route, "path", "-"),
                status=status,
                seconds=round(monotonic() - began, 4),
                trace_id=trace_id,
            )


def _refusal(scope: Scope, address: Address) -> str | None:
    """Explain why the request is refused. None: it is not."""
    headers = Headers(scope=scope)
    if scope["path"] in _FOR_ANY_HOST:
        return None
    if headers.get("host", "").lower() != address.host:
        return f"Open the console at {address.origin}. CONSOLE_URL sets its address."
    if scope["method"] in _CHANGES_NOTHING:
        return None
    site = headers.get("sec-fetch-site")
    is_own = site == "same-origin" if site is not None else headers.get("origin", "").lower() == address.origin
    if not is_own:
        return f"This request does not come from a page of the console. Open {address.origin} and repeat it there."
    length = headers.get("content-length", "")
    if not length.isdigit():
        return "The request needs a header Content-Length with the length of its form."
    if int(length) > LARGEST_FORM:
        return "This form is too large."
    return None


def _add_headers(headers: MutableHeaders, path: str, trace_id: str, address: Address) -> None:
    for name, value in _HEADERS.items():
        headers[name] = value
    if address.is_secure:
        headers["Strict-Transport-Security"] = "max-age=31536000"
    headers["Cache-Control"] = "no-cache" if path.startswith(_STATIC) else "no-store"
    headers["X-Trace-Id"] = trace_id


# --- Forms that a page of the console sends, and ids in addresses


_MOST_FIELDS = 50


async def form_of(request: Request) -> Mapping[str, str]:
    """Read the fields of a form, each once. A body that is no form has no fields."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            return {}
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError:
        return {}


def id_in_path(text: str) -> UUID:
    """Read the id in the path of a resource's page. Raises NotFound if it is not an id."""
    found = id_or_none(text)
    if found is None:
        raise NotFound("The address of this page has no id. Copy the whole address.")
    return found

"""HTTP route for carrier callbacks. Not part of the public document.

A plain route of Starlette, served before the framework's router: finding the route, reading parameters and handling
errors there would cost more than everything that a callback needs.
"""

from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api_shim import errors
from api_shim.context import app_context
from scheduler.carriers.interface import NotACallback

_PREFIX = "/carrier/twilio/"
_MOST_FIELDS = 200


class CallbackMiddleware:
    """Serves carrier callbacks and passes every other request on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(_PREFIX):
            match, child_scope = route.matches(scope)
            if match is Match.FULL:
                scope.update(child_scope)
                await _respond(Request(scope, receive), send)
                return
        await self._app(scope, receive, send)


async def _respond(request: Request, send: Send) -> None:
    try:
        response = await hear_twilio(request)
    except errors.EXPECTED as error:
        response = await errors.handle(request, error)
    await response(request.scope, request.receive, send)


async def hear_twilio(request: Request) -> Response:
    """Store a callback and return 204. The carrier authenticates only by its signature."""
    token = request.path_params["token"]
    form = _pairs(await request.body())
    signature = request.headers.get("x-twilio-signature", "")
    context = app_context(request)
    # Here and not in a thread: checking takes less time than passing it to a thread would.
    callback = context.use_cases.hear.genuine(token, _signed_path(request), form, signature)
    await context.store_callback(callback)
    return Response(status_code=204)


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

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        return match, {**child_scope, "route": self}


route = _LoggedRoute(_PREFIX + "{token}", hear_twilio, methods=["POST"], include_in_schema=False)

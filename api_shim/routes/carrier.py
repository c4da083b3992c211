"""HTTP route for carrier callbacks. Not part of the public document.

A plain route of Starlette: FastAPI's reading of parameters would cost more than everything that a callback needs.
"""

from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from api_shim.context import app_context
from scheduler.carriers.interface import NotACallback

_MOST_FIELDS = 200


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
    """Return all form pairs, including empty and repeated ones: the signature covers them all."""
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise NotACallback from error


def _signed_path(request: Request) -> str:
    """Return the raw path and query. The carrier signed exactly these bytes, so they are never re-encoded."""
    raw: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    return (raw + b"?" + query if query else raw).decode("ascii", errors="replace")


class _LoggedRoute(Route):
    """Notes itself for the log of requests, like FastAPI's routes."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        return match, {**child_scope, "route": self}


route = _LoggedRoute("/carrier/twilio/{token}", hear_twilio, methods=["POST"], include_in_schema=False)

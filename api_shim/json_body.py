"""JSON bodies of requests: parsed strictly, and only with values that PostgreSQL can store."""

import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from api_shim.errors import WrongContentType
from scheduler.wire.field_errors import invalid_fields, unknown_field
from scheduler.wire.json_text import MalformedJson, empty_body, parse
from scheduler.wire.json_values import an_object

_JSON = re.compile(r"application/(json|[\w.+-]+\+json)\s*(;.*)?", re.IGNORECASE)


class JsonRequest(Request):
    """A request whose JSON is parsed strictly. `read` reports malformed JSON later, after authentication."""

    async def json(self) -> Any:  # noqa: ANN401 - JSON
        body = await self.body()
        try:
            return parse(body)
        except MalformedJson:
            return None


class JsonRoute(APIRoute):
    """A route with a JSON body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict_handler(request: Request) -> Response:
            return await handler(JsonRequest(request.scope, request.receive))

        return strict_handler


async def read(request: Request) -> dict[str, Any]:
    """Return the body, an object. As a dependency it must come after authentication.

    Raises WrongContentType, MalformedJson, InvalidFields.
    """
    body = await request.body()
    if not body:
        raise empty_body()
    return _read(request, body)


async def read_if_any(request: Request) -> dict[str, Any]:
    """Return the body like `read`, or {} if it is empty."""
    body = await request.body()
    return _read(request, body) if body else {}


async def read_nothing(request: Request) -> dict[str, Any]:
    """Check that there is no body or only `{}`. Raises the errors of `read`, and InvalidFields for any field."""
    value = await read_if_any(request)
    if value:
        raise invalid_fields([unknown_field(name) for name in value])
    return value


RawBody = Annotated[dict[str, Any], Depends(read)]
OptionalRawBody = Annotated[dict[str, Any], Depends(read_if_any)]
EmptyBody = Annotated[dict[str, Any], Depends(read_nothing)]


def _read(request: Request, body: bytes) -> dict[str, Any]:
    if not _JSON.fullmatch(request.headers.get("content-type", "")):
        raise WrongContentType
    return an_object(parse(body))

"""Strict JSON body parsing: UTF-8, no duplicate names, only values that PostgreSQL can store."""

import json
import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, NoReturn

from fastapi import Depends
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from api_shim.errors import MalformedJson, WrongContentType
from scheduler.wire.field_errors import FieldError, invalid_fields, unknown_field
from scheduler.wire.json_values import MAX_LEVELS, is_too_deep, refuse_unstorable

_TOO_DEEP = f"it is nested more than {MAX_LEVELS} levels deep"
_REASONS = {
    "Unexpected UTF-8 BOM (decode using utf-8-sig)": "the text begins with a byte order mark",
    "Expecting value": "a JSON value is expected",
    "Expecting property name enclosed in double quotes": "a name in double quotes is expected",
    "Illegal trailing comma before end of object": "a name in double quotes is expected",
    "Illegal trailing comma before end of array": "a JSON value is expected",
    "Expecting ':' delimiter": "a colon is expected",
    "Expecting ',' delimiter": "a comma or a closing bracket is expected",
    "Extra data": "there is text after the end of the value",
    "Unterminated string starting at": "a string has no closing quote",
    "Invalid control character at": "a string contains a control character that is not escaped",
    "Invalid \\escape": "a string contains an unknown escape sequence",
    "Invalid \\uXXXX escape": "a string contains an invalid \\u escape sequence",
}
"""Our text for each message of Python's parser."""
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
        raise MalformedJson("The body is empty. Send a JSON object.", position=0, reason="the body is empty")
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


def parse(body: bytes) -> Any:  # noqa: ANN401 - JSON
    """Parse JSON (RFC 8259) in UTF-8, without duplicate names and with at most MOST_LEVELS levels.

    Raises MalformedJson with the position.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _malformed("the text is not UTF-8", error.start) from None
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise _malformed(_REASONS.get(error.msg, error.msg), error.pos, line=error.lineno, column=error.colno) from None
    except RecursionError:
        raise _malformed(_TOO_DEEP, 0) from None
    except _OnlyOurs as error:
        raise _malformed(str(error), 0) from None
    except ValueError:  # more digits than Python reads
        raise _malformed("a number has too many digits", 0) from None
    if is_too_deep(value):
        raise _malformed(_TOO_DEEP, 0)
    return value


def _read(request: Request, body: bytes) -> dict[str, Any]:
    if not _JSON.fullmatch(request.headers.get("content-type", "")):
        raise WrongContentType
    value = parse(body)
    if not isinstance(value, dict):
        raise invalid_fields([FieldError(field="", code="WRONG_TYPE", message="The body must be a JSON object.")])
    refuse_unstorable(value)
    return value


class _OnlyOurs(Exception):
    """Input that JSON or Python's parser allows and this API does not."""


def _malformed(reason: str, position: int, **more: int) -> MalformedJson:
    return MalformedJson(
        f"The body is not valid JSON: {reason} (position {position}).", reason=reason, position=position, **more
    )


def _no_constant(name: str) -> NoReturn:
    raise _OnlyOurs(f"{name} is not a JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _OnlyOurs("an object contains the same name twice")
    return members

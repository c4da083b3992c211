"""What the public document says of the answers of a route."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from api_shim.errors import STATUS_OF
from api_shim.schemas.command import WaitingAnswer
from api_shim.schemas.envelope import Answer, ErrorAnswer
from scheduler.domain.command import refusal_of
from scheduler.domain.refusals import Refused

T = TypeVar("T")


class _NeverNull:
    """A union with pydantic's `SkipJsonSchema[None]` would say it too, and tell every error once for each branch."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        told = handler(schema)
        [value] = [each for each in told.pop("anyOf") if each != {"type": "null"}]
        return {**value, **told}


IfSent: TypeAlias = Annotated[T | None, _NeverNull()]
"""A value of a query or a header, which unlike a field cannot be null: it is there, or it is not."""

Told = dict[int | str, dict[str, Any]]
"""The `responses` of a route, by status."""

_WHEN = {
    400: ("The request is wrong; `details` says what to change.", "VALIDATION_ERROR"),
    401: ("No valid API key.", "INVALID_API_KEY"),
    403: ("The key lacks a scope, or does not reach that company.", "RESOURCE_ACCESS_DENIED"),
    404: ("It is not there, or not within the key's reach.", "RESOURCE_NOT_FOUND"),
    409: ("It does not fit the present state.", "IDEMPOTENCY_IN_PROGRESS"),
    410: ("It is not there any more.", "GONE"),
    412: ("It is not as the If-Match header says.", "PRECONDITION_FAILED"),
    413: ("The body is larger than 64 KiB.", "BODY_TOO_LARGE"),
    422: ("The Idempotency-Key was sent before with another request.", "IDEMPOTENCY_KEY_REUSED"),
    429: ("The key has asked too often; wait as `Retry-After` says.", "RATE_LIMIT_EXCEEDED"),
    500: ("Something failed that should not have; name the traceId.", "INTERNAL_ERROR"),
    503: ("The database is away; nothing was changed.", "DATABASE_AWAY"),
}
_COMMIT_UNKNOWN = {
    "COMMIT_UNKNOWN": "The database went away while it stored this, so it may have been done. Ask the address in"
    " `details.check` what is there; `details.commandId` is the id for `GET /commands/{id}`."
}
_MAYBE_CHANGED = (
    "The database is away. `DATABASE_AWAY`: nothing was changed. `COMMIT_UNKNOWN`: it may have been done; without"
    " `Retry-After`, sending the request again could do it twice."
)
"""What 503 means for a request that writes."""
_OF_A_COMMAND = (400, 401, 403, 404, 409, 413, 422, 500, 503)
"""What every request may be answered that changes something; an address without an id has no 404 of its own."""
_WITH_A_KEY, _LIMITED = 401, 429
"""Whoever needs a key is limited by it."""
_REPLAYED = {
    "Idempotent-Replayed": {
        "description": "`true` when this Idempotency-Key was answered before; this is that answer.",
        "schema": {"type": "string"},
    }
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
_LOCATION = {"Location": {"description": "Where to ask for what becomes of it.", "schema": {"type": "string"}}}


def links(*operations: str, **parameters: str) -> Mapping[str, Any]:
    """Operations that can be asked next, and where their parameters are found: in the body's `data`, or `$request…`."""
    found = {
        name: place if place.startswith("$") else f"$response.body#/data/{place}" for name, place in parameters.items()
    }
    return {each: {"operationId": each, "parameters": found} for each in operations}


ETAG = {
    "ETag": {
        "description": "Names the state of the attempt; sent back as If-Match, nothing is done to another state.",
        "schema": {"type": "string", "examples": ['"12"']},
    }
}
"""A header of the answers that tell how an attempt stands."""


def command_answers(
    done: HTTPStatus,
    model: type[Answer[Any]] | None,
    says: str,
    *refusals: type[Refused],
    headers: Mapping[str, Any] | None = None,
    leads_to: Mapping[str, Any] | None = None,
) -> Told:
    """The answers of a command route: done (with `headers`, and what it leads to), accepted, and every error.

    `refusals` are those that only it knows.
    """
    told: dict[str, Any] = {"description": says, "headers": {**(headers or {}), **_REPLAYED}, **_leading_to(leads_to)}
    accepted = {
        "model": WaitingAnswer,
        "description": "Accepted and durable, not applied yet.",
        "headers": {**_LOCATION, **_REPLAYED},
        "links": links("getCommand", reference="id"),
    }
    return {
        int(done): told if model is None else {**told, "model": model},
        202: accepted,
        **error_answers(*_OF_A_COMMAND, refusals=refusals, writes=True),
    }


def written_answers(
    done: HTTPStatus,
    model: type[Answer[Any]],
    says: str,
    *refusals: type[Refused],
    leads_to: Mapping[str, Any] | None = None,
) -> Told:
    """The answers of a route whose write the API does itself: done (and what it leads to), every error, never 202."""
    told = {"description": says, "headers": _REPLAYED, "model": model}
    return {int(done): told | _leading_to(leads_to), **error_answers(*_OF_A_COMMAND, refusals=refusals, writes=True)}


def error_answers(*statuses: int, refusals: tuple[type[Refused], ...] = (), writes: bool = False) -> Told:
    """The errors of a route; who may be told 401 may be told 429 too.

    `default` stands for all others, so that nothing is told of that never comes.
    """
    if _WITH_A_KEY in statuses:
        statuses = (*statuses, _LIMITED)
    examples: dict[int, dict[str, str]] = {status: {_WHEN[status][1]: _WHEN[status][0]} for status in statuses}
    for refusal in map(refusal_of, (kind() for kind in refusals)):
        examples.setdefault(int(STATUS_OF[refusal.family]), {})[refusal.code] = refusal.message
    told: Told = {status: _told(status, examples[status]) for status in sorted(examples)}
    if writes:
        told[503] = {**_told(503, examples[503] | _COMMIT_UNKNOWN), "description": _MAYBE_CHANGED}
    return {**told, "default": {"model": ErrorAnswer, "description": "Any other error."}}


def _leading_to(leads_to: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"links": dict(leads_to)} if leads_to else {}


def _told(status: int, messages: dict[str, str]) -> dict[str, Any]:
    examples = {code: {"value": _example(code, message)} for code, message in messages.items()}
    told = {
        "model": ErrorAnswer,
        "description": _WHEN[status][0],
        "content": {"application/json": {"examples": examples}},
    }
    return {**told, "headers": _RETRY_AFTER} if status == _LIMITED else told


def _example(code: str, message: str) -> dict[str, Any]:
    return {
        "success": False,
        "data": None,
        "error": {"code": code, "message": message, "details": None},
        "timestamp": "2026-04-02T07:00:00Z",
        "traceId": "8d1f0c7e5b7a4e0c9a52d3c1f6b0a4e7",
    }

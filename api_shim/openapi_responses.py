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
    400: ("The request is invalid; `details` says what to change.", "VALIDATION_ERROR"),
    401: ("The API key is missing or invalid.", "INVALID_API_KEY"),
    403: ("The key lacks a scope or has no access to the company.", "RESOURCE_ACCESS_DENIED"),
    404: ("The resource does not exist, or the key has no access to it.", "RESOURCE_NOT_FOUND"),
    409: ("The request conflicts with the current state.", "IDEMPOTENCY_IN_PROGRESS"),
    410: ("The resource no longer exists.", "GONE"),
    412: ("The call attempt does not match the If-Match header.", "PRECONDITION_FAILED"),
    413: ("The body is larger than 64 KiB.", "BODY_TOO_LARGE"),
    422: ("The Idempotency-Key was already used for a different request.", "IDEMPOTENCY_KEY_REUSED"),
    429: ("Rate limit exceeded; retry after the number of seconds in `Retry-After`.", "RATE_LIMIT_EXCEEDED"),
    500: ("Unexpected error; quote the traceId when you report it.", "INTERNAL_ERROR"),
    503: ("The database is unavailable; nothing was changed.", "DATABASE_AWAY"),
}
_COMMIT_UNKNOWN = {
    "COMMIT_UNKNOWN": "The database connection was lost during the write, so it may have been applied. Check the URL in"
    " `details.check`; `details.commandId` is the id for `GET /commands/{id}`."
}
_MAYBE_CHANGED = (
    "The database is unavailable. `DATABASE_AWAY`: nothing was changed. `COMMIT_UNKNOWN`: the write may have been"
    " applied; without `Retry-After`, sending the request again could apply it twice."
)
"""Description of a 503 for a request that writes."""
_WRITE_ERRORS = (400, 401, 403, 404, 409, 413, 422, 500, 503)
"""Errors of every request that writes, including 404 for URLs without an id."""
_NEEDS_KEY, _LIMITED = 401, 429
"""Every request that needs a key is rate limited."""
_REPLAYED = {
    "Idempotent-Replayed": {
        "description": "`true` if this response was stored for an earlier request with the same Idempotency-Key.",
        "schema": {"type": "string"},
    }
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
_LOCATION = {"Location": {"description": "URL of the command and its result.", "schema": {"type": "string"}}}


def links(*operations: str, **parameters: str) -> Mapping[str, Any]:
    """Operations that can be asked next, and where their parameters are found: in the body's `data`, or `$request…`."""
    found = {
        name: place if place.startswith("$") else f"$response.body#/data/{place}" for name, place in parameters.items()
    }
    return {each: {"operationId": each, "parameters": found} for each in operations}


ETAG = {
    "ETag": {
        "description": "Version of the attempt. Send it as `If-Match` to change the attempt only in this version.",
        "schema": {"type": "string", "examples": ['"12"']},
    }
}
"""Header of responses that contain or change one attempt."""


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
        "description": "The command was accepted and stored, and is not applied yet.",
        "headers": {**_LOCATION, **_REPLAYED},
        "links": links("getCommand", reference="id"),
    }
    return {
        int(done): told if model is None else {**told, "model": model},
        202: accepted,
        **error_answers(*_WRITE_ERRORS, refusals=refusals, writes=True),
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
    return {int(done): told | _leading_to(leads_to), **error_answers(*_WRITE_ERRORS, refusals=refusals, writes=True)}


def error_answers(*statuses: int, refusals: tuple[type[Refused], ...] = (), writes: bool = False) -> Told:
    """The errors of a route; who may be told 401 may be told 429 too.

    `default` stands for all others, so that nothing is told of that never comes.
    """
    if _NEEDS_KEY in statuses:
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

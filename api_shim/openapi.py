"""The OpenAPI document: responses of all routes, what the framework cannot describe, and the page that shows it."""

import importlib.util
import os
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, TypeAlias, TypeVar

from fastapi import APIRouter, Request
from fastapi.openapi.models import Example
from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from api_shim.errors import STATUS_OF
from api_shim.schemas import batch
from api_shim.schemas.envelope import Answer, ErrorAnswer, WaitingAnswer
from api_shim.schemas.event import EVENTS
from api_shim.schemas.webhook import DELIVERIES
from scheduler.domain.command import refusal_of
from scheduler.domain.refusals import InsufficientPermissions, Refused

# --- OpenAPI descriptions of responses, shared by all routes


T = TypeVar("T")


class _NeverNull:
    """Removes null from the schema. Pydantic's `SkipJsonSchema[None]` would repeat each error for each branch."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        nullable = handler(schema)
        [value] = [each for each in nullable.pop("anyOf") if each != {"type": "null"}]
        return {**value, **nullable}


IfSent: TypeAlias = Annotated[T | None, _NeverNull()]
"""An optional query parameter or header. Unlike a body field it can be absent but not null."""

Responses = dict[int | str, dict[str, Any]]
"""The `responses` of a route, by status."""

_WHEN = {
    400: ("The request is invalid. `details` names what to change.", "VALIDATION_ERROR"),
    401: ("The API key is missing or invalid.", "INVALID_API_KEY"),
    403: ("The key lacks a scope or has no access to the company.", "RESOURCE_ACCESS_DENIED"),
    404: ("The resource does not exist, or the key has no access to it.", "RESOURCE_NOT_FOUND"),
    409: ("The request conflicts with the current state.", "IDEMPOTENCY_IN_PROGRESS"),
    410: ("The resource no longer exists.", "GONE"),
    412: ("The call attempt does not match the If-Match header.", "PRECONDITION_FAILED"),
    413: ("The body is larger than 64 KiB.", "BODY_TOO_LARGE"),
    422: ("The Idempotency-Key was already used for a different request.", "IDEMPOTENCY_KEY_REUSED"),
    429: ("Rate limit exceeded. Retry after the number of seconds in `Retry-After`.", "RATE_LIMIT_EXCEEDED"),
    500: ("Unexpected error. Quote the traceId when you report it.", "INTERNAL_ERROR"),
    503: ("The database is unavailable. Nothing was changed.", "DATABASE_AWAY"),
}
_COMMIT_UNKNOWN = {
    "COMMIT_UNKNOWN": "The database connection was lost during the write, so it may have been applied. Check the URL in"
    " `details.check`. `details.commandId` is the id for `GET /commands/{id}`."
}
_MAYBE_CHANGED = (
    "The database is unavailable. `DATABASE_AWAY`: nothing was changed. `COMMIT_UNKNOWN`: the write may have been"
    " applied. Without `Retry-After`, sending the request again could apply it twice."
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
    """Build OpenAPI links to operations. Parameter values are paths in the body's `data`, or `$request…`."""
    expressions = {
        name: path if path.startswith("$") else f"$response.body#/data/{path}" for name, path in parameters.items()
    }
    return {each: {"operationId": each, "parameters": expressions} for each in operations}


_ACCEPTED: Responses = {
    202: {
        "model": WaitingAnswer,
        "description": "The command was accepted and stored, and is not applied yet.",
        "headers": {**_LOCATION, **_REPLAYED},
        "links": links("getCommand", reference="id"),
    }
}
ETAG = {
    "ETag": {
        "description": "Version of the attempt. Send it as `If-Match` to change the attempt only in this version.",
        "schema": {"type": "string", "examples": ['"12"']},
    }
}
"""Header of responses that contain or change one attempt."""


def too_large(limit: str) -> Responses:
    """Declare the response to a body above this limit, for a route with a limit of its own."""
    text = f"The body is larger than {limit}."
    return {413: {**_error_response(413, {_WHEN[413][1]: text}), "description": text}}


def lacks_scope(scope: str) -> Responses:
    """Declare the 403 of a route that names no company, so that only a missing scope is refused."""
    text = f"The key lacks the scope `{scope}`."
    refusal = refusal_of(InsufficientPermissions())
    return {403: {**_error_response(403, {refusal.code: refusal.message}), "description": text}}


def written_answers(
    done: HTTPStatus,
    model: type[Answer[Any]] | None,
    description: str,
    *refusals: type[Refused],
    headers: Mapping[str, Any] | None = None,
    response_links: Mapping[str, Any] | None = None,
    existing: bool = False,
    may_wait: bool = False,
) -> Responses:
    """Declare the responses of a route that writes: success and every error.

    `headers` and `response_links` belong to success. `refusals` are the errors of this route only. `existing`: the
    resource may exist already. `may_wait`: a worker applies the command, and the response is 202 until then.
    """
    success = {"description": description, "headers": {**(headers or {}), **_REPLAYED}, **_links(response_links)}
    return {
        int(done): success if model is None else {**success, "model": model},
        **(_existing(model, response_links) if existing else {}),
        **(_ACCEPTED if may_wait else {}),
        **error_answers(*_WRITE_ERRORS, refusals=refusals, writes=True),
    }


command_answers = partial(written_answers, may_wait=True)


def error_answers(*statuses: int, refusals: tuple[type[Refused], ...] = (), writes: bool = False) -> Responses:
    """Declare the error responses of a route. A route with 401 also has 429.

    `default` covers all other errors, so that no status is documented that never occurs.
    """
    if _NEEDS_KEY in statuses:
        statuses = (*statuses, _LIMITED)
    examples: dict[int, dict[str, str]] = {status: {_WHEN[status][1]: _WHEN[status][0]} for status in statuses}
    for refusal in map(refusal_of, (kind() for kind in refusals)):
        examples.setdefault(int(STATUS_OF[refusal.family]), {})[refusal.code] = refusal.message
    responses: Responses = {status: _error_response(status, examples[status]) for status in sorted(examples)}
    if writes:
        responses[503] = {**_error_response(503, examples[503] | _COMMIT_UNKNOWN), "description": _MAYBE_CHANGED}
    return {**responses, "default": {"model": ErrorAnswer, "description": "Any other error."}}


def _existing(model: type[Answer[Any]] | None, response_links: Mapping[str, Any] | None) -> Responses:
    description = "An earlier request with the same `externalId` and the same content created this resource."
    return {200: {"description": description, "headers": _REPLAYED, "model": model, **_links(response_links)}}


def _links(response_links: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"links": dict(response_links)} if response_links else {}


def _error_response(status: int, messages: dict[str, str]) -> dict[str, Any]:
    examples = {code: {"value": _example(code, message)} for code, message in messages.items()}
    response = {
        "model": ErrorAnswer,
        "description": _WHEN[status][0],
        "content": {"application/json": {"examples": examples}},
    }
    return {**response, "headers": _RETRY_AFTER} if status == _LIMITED else response


def _example(code: str, message: str) -> dict[str, Any]:
    return {
        "success": False,
        "data": None,
        "error": {"code": code, "message": message, "details": None},
        "timestamp": "2026-04-02T07:00:00Z",
        "traceId": "8d1f0c7e5b7a4e0c9a52d3c1f6b0a4e7",
    }


# --- Parts of the OpenAPI document that the framework cannot describe


_RESPONSES: Mapping[str, dict[str, Example]] = {"/events": EVENTS, "/webhooks/{webhookId}/deliveries": DELIVERIES}
"""Examples of the successful responses of GET, by path. The framework would remove each null from them."""


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Add the schemas of bodies that the framework does not read, and examples that contain null."""
    schemas = document["components"]["schemas"]
    document["components"]["schemas"] = dict(sorted({**schemas, **batch.SCHEMAS}.items()))
    for path, examples in _RESPONSES.items():
        document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["examples"] = examples
    return document


# --- HTTP routes for `/docs`, which shows the document. All of its files are served here: it needs no network


_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
"""A cached file is asked for again, so that no browser combines the files of two releases."""

docs_page = APIRouter(include_in_schema=False)


class _FilesOfThePage(StaticFiles):
    """The page and the files that it names. Their folders contain others."""

    _NAMES = frozenset({"index.html", "start.js", "icon.svg", "swagger-ui-bundle.js", "swagger-ui.css"})

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        return super().lookup_path(path) if path in self._NAMES else ("", None)


_FOLDERS = [("api_shim", "swagger_ui"), ("fastapi_offline", "static")]
"""Swagger UI comes from a package. Its folder is found without importing it. Without it, only this page fails."""
_files = _FilesOfThePage(packages=[each for each in _FOLDERS if importlib.util.find_spec(each[0]) is not None])


@docs_page.api_route("/docs", methods=["GET", "HEAD"])
async def get_docs_page(request: Request) -> Response:
    return await _served("index.html", request)


@docs_page.api_route("/docs/{name}", methods=["GET", "HEAD"])
async def get_file_of_docs_page(name: str, request: Request) -> Response:
    return await _served(name, request)


async def _served(name: str, request: Request) -> Response:
    response = await _files.get_response(name, request.scope)
    response.headers.update(_HEADERS)
    return response

"""Parts of a request: query, headers, path and JSON body, each read strictly, with errors that name the field."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, get_args, get_origin
from uuid import UUID

from fastapi import Depends, Header, Path, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.responses import Response

from api_shim.errors import WrongContentType
from api_shim.openapi import IfSent
from scheduler.domain.resource import Slice
from scheduler.rules.resources import IF_MATCH
from scheduler.wire.field_types import ExternalIdText, is_idempotency_key
from scheduler.wire.json_values import MalformedJson, an_object, empty_body, parse
from scheduler.wire.named_fields import FieldError, invalid_fields, refuse_any, unknown_field, unknown_parameter

# --- Strict query parsing: unknown, repeated and malformed parameters are rejected by name


_DIGITS = re.compile("[0-9]+")
_MOST_NAMED = 20
"""A URL can contain thousands of wrong parameters, and each error adds 150 bytes to the response."""


async def refuse_wrong_query(request: Request) -> None:
    """Check the query of a route that needs no key. Raises InvalidFields.

    On all other routes `auth.principal` does this after authentication.
    """
    check_query(request)


def check_query(request: Request, *, ignored: Collection[str] = ()) -> None:
    """Compare the query with the parameters that the route declares. Raises InvalidFields for every wrong one.

    `ignored` are parameters that this client may send although the route does not read them.
    """
    if request.scope["query_string"]:
        route: APIRoute = request.scope["route"]
        declared = dict(_declared(route.dependant))
        refuse_any(islice(_wrong(request.query_params.multi_items(), declared, ignored), _MOST_NAMED))


def _declared(dependant: Dependant) -> Iterator[tuple[str, Any]]:
    """Yield each declared parameter with its type, including those of dependencies, such as `page`."""
    for field in dependant.query_params:
        yield field.alias, field.field_info.annotation
    for each in dependant.dependencies:
        yield from _declared(each)


def _wrong(
    parameters: Collection[tuple[str, str]], declared: Mapping[str, Any], ignored: Collection[str]
) -> Iterator[FieldError]:
    for name, times in Counter(name for name, _ in parameters if name not in ignored).items():
        if name not in declared:
            yield unknown_parameter(name, sorted(declared))
        elif times > 1 and not _is_list(declared[name]):
            separated = " Separate types by commas." if name == "types" else ""
            yield FieldError(field=name, code="REPEATED_PARAMETER", message=f"Send this parameter once.{separated}")
        # `int` also reads 1_0, +1 and the digits of other scripts.
        elif declared[name] is int and not _DIGITS.fullmatch(dict(parameters)[name]):
            message = "This must be a whole number, written only with the digits 0 to 9."
            yield FieldError(field=name, code="WRONG_TYPE", message=message)


def _is_list(declared: object) -> bool:
    """Return whether a parameter of this type may be repeated, like `list[str] | None`."""
    return get_origin(declared) is list or any(_is_list(each) for each in get_args(declared))


# --- Path parameters for resource ids, and the query parameters of lists


CompanyId = Annotated[UUID, Path(alias="companyId")]
JobId = Annotated[UUID, Path(alias="jobId")]
CandidateId = Annotated[UUID, Path(alias="candidateId")]
AgentId = Annotated[UUID, Path(alias="agentId")]
InterviewId = Annotated[UUID, Path(alias="interviewId")]
WebhookId = Annotated[UUID, Path(alias="webhookId")]
AttemptId = Annotated[UUID, Path(alias="attemptId")]
DeliveryId = Annotated[UUID, Path(alias="deliveryId")]
CallToken = Annotated[
    str,
    Path(
        alias="token",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="The token of the call, which `attempt` in the query of your voice server's URL contains.",
    ),
]
EventId = Annotated[UUID, Path(alias="eventId")]


async def page_query(
    page: Annotated[int, Query(ge=1, le=10_000)] = 1, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> Slice:
    return Slice(page=page, limit=limit)


PageQuery = Annotated[Slice, Depends(page_query)]
ExternalIdQuery = Annotated[
    IfSent[ExternalIdText], Query(alias="externalId", description="Only the resource with this external id.")
]


# --- JSON bodies of requests: parsed strictly, and only with values that PostgreSQL can store


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
    """Read the body, an object. As a dependency it must come after authentication.

    Raises WrongContentType, MalformedJson, InvalidFields.
    """
    body = await request.body()
    if not body:
        raise empty_body()
    return _read(request, body)


async def read_if_any(request: Request) -> dict[str, Any]:
    """Read the body like `read`, or {} if it is empty."""
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


# --- Reads the `Idempotency-Key`, `If-Match` and `Prefer` headers


DEFAULT_WAIT_S = 5.0
MAX_WAIT_S = 30.0
_WAIT = re.compile(r'wait\s*=\s*"?(\d{1,9})"?', re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    idempotency_key: str | None
    if_match: bytes


@dataclass(frozen=True, kw_only=True)
class Preferences:
    wait_s: float
    respond_async: bool
    names_wait: bool = True
    """False: `wait_s` is the default."""


async def asked(
    request: Request,
    _idempotency_key: Annotated[
        IfSent[str],
        Header(
            alias="Idempotency-Key",
            description="1 to 255 printable ASCII characters. For 30 days, repeating the request with the same key"
            " returns the stored response. Using the key for a different request is rejected.",
            json_schema_extra={"pattern": r"^[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?$"},
        ),
    ] = None,
) -> RequestOptions:
    """Read the headers of every write. Raises InvalidFields for an invalid Idempotency-Key."""
    return RequestOptions(
        idempotency_key=_parse_idempotency_key(request.headers.getlist("idempotency-key")),
        if_match=", ".join(request.headers.getlist("if-match")).encode("latin-1"),
    )


async def preferences(
    request: Request,
    _prefer: Annotated[
        IfSent[str],
        Header(
            alias="Prefer",
            description="`wait=N` waits up to N seconds (at most 30) for the result. `respond-async` does not wait."
            " It has no effect on requests that never return 202, except for tests of webhooks.",
            examples=["wait=10"],
        ),
    ] = None,
) -> Preferences:
    """Read the preferences of a command. Unknown ones are ignored (RFC 7240 section 2)."""
    sent = [each.strip() for header in request.headers.getlist("prefer") for each in re.split("[,;]", header)]
    respond_async = any(each.lower() == "respond-async" for each in sent)
    waits = [float(match[1]) for each in sent if (match := _WAIT.fullmatch(each))]
    wait_s = min(waits[0], MAX_WAIT_S) if waits else DEFAULT_WAIT_S
    return Preferences(
        wait_s=0.0 if respond_async else wait_s,
        respond_async=respond_async,
        names_wait=respond_async or bool(waits),
    )


HowAsked = Annotated[RequestOptions, Depends(asked)]
Preferred = Annotated[Preferences, Depends(preferences)]


async def if_match(
    request: Request,
    _if_match: Annotated[
        IfSent[str],
        Header(
            alias="If-Match",
            description="Apply the change only if the attempt still has this ETag. `*` matches any. Checked when the"
            " change is applied. Otherwise 412.",
            examples=['"12"'],
            json_schema_extra={"pattern": f"^({IF_MATCH.pattern})$"},
        ),
    ] = None,
) -> str | None:
    """Read the condition as it was sent. Raises InvalidFields if it is malformed (RFC 9110)."""
    headers = request.headers.getlist("if-match")
    condition = ", ".join(headers)
    if not headers or IF_MATCH.fullmatch(condition):
        return condition or None
    error = FieldError(
        field="If-Match",
        code="INVALID_IF_MATCH",
        message='Send * or quoted ETags separated by commas, for example "12".',
    )
    raise invalid_fields([error])


IfMatch = Annotated[str | None, Depends(if_match)]


def _parse_idempotency_key(headers: list[str]) -> str | None:
    if not headers:
        return None
    if len(headers) == 1 and is_idempotency_key(headers[0]):
        return headers[0]
    error = FieldError(
        field="Idempotency-Key",
        code="INVALID_IDEMPOTENCY_KEY",
        message="Send at most one Idempotency-Key, of 1 to 255 printable ASCII characters.",
    )
    raise invalid_fields([error])

"""Reads the `Idempotency-Key`, `If-Match` and `Prefer` headers."""

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request

from api_shim.openapi_responses import IfSent
from scheduler.rules.etags import IF_MATCH
from scheduler.wire.field_errors import FieldError, invalid_fields
from scheduler.wire.field_types import is_idempotency_key

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
    """Return the condition as it was sent. Raises InvalidFields if it is malformed (RFC 9110)."""
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

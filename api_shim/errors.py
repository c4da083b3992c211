"""HTTP responses for errors: the only place that maps an error to a status and a message."""

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Match

from api_shim import process
from api_shim.assembly import app_context
from api_shim.rate_limits import ExceededBatchLimit, Window
from api_shim.schemas.envelope import ErrorAnswer, ErrorView
from scheduler.carriers.interface import NotACallback
from scheduler.domain import refusals
from scheduler.domain.command import Refusal, refusal_of
from scheduler.domain.refusals import Refused
from scheduler.persistence.errors import ClockWrong, CommitInDoubt, DatabaseAway, LockTaken
from scheduler.wire.json_values import LARGEST_BODY
from scheduler.wire.named_fields import field_errors, invalid_fields

STATUS_OF: Mapping[str, HTTPStatus] = {
    refusals.InvalidRequest.__name__: HTTPStatus.BAD_REQUEST,
    refusals.NotAuthenticated.__name__: HTTPStatus.UNAUTHORIZED,
    refusals.AccessDenied.__name__: HTTPStatus.FORBIDDEN,
    refusals.Forbidden.__name__: HTTPStatus.FORBIDDEN,
    refusals.RateLimitExceeded.__name__: HTTPStatus.TOO_MANY_REQUESTS,
    refusals.NotFound.__name__: HTTPStatus.NOT_FOUND,
    refusals.Conflict.__name__: HTTPStatus.CONFLICT,
    refusals.Gone.__name__: HTTPStatus.GONE,
    refusals.PreconditionFailed.__name__: HTTPStatus.PRECONDITION_FAILED,
    refusals.Unprocessable.__name__: HTTPStatus.UNPROCESSABLE_ENTITY,
}
"""HTTP status by family of refusals. A stored refusal names its family, so its response is the same as a new one's."""

_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
_SAFE = ("GET", "HEAD")
"""Methods that change nothing, even if their transaction is lost."""
_NOT_READY = HTTPStatus.SERVICE_UNAVAILABLE
FRAMEWORK = {
    HTTPStatus.NOT_FOUND: ("ROUTE_NOT_FOUND", "No such URL. /docs lists all routes."),
    HTTPStatus.METHOD_NOT_ALLOWED: (
        "METHOD_NOT_ALLOWED",
        "This URL does not support that method. The Allow header lists the supported ones.",
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
        "BODY_TOO_LARGE",
        "The body is larger than 64 KiB. Send less in one request.",
    ),
}


class BodyTooLarge(HTTPException):
    """The body is larger than its route allows. Raised by all code that reads the body."""

    def __init__(self, limit: int = LARGEST_BODY) -> None:
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        self.limit = limit


class WrongContentType(refusals.InvalidRequest):
    """The body must be JSON. Send it with the header Content-Type: application/json."""

    code = "CONTENT_TYPE_NOT_JSON"


class IdempotencyInProgress(refusals.Conflict):
    """The first request with this Idempotency-Key is still running. Try again in a moment."""

    code = "IDEMPOTENCY_IN_PROGRESS"


class CommitUnknown(Exception):
    """The database connection was lost during a write, and its outcome could not be determined."""

    def __init__(self, message: str, *, may_send_again: bool, **details: str) -> None:
        super().__init__(message)
        self.message = message
        self.may_send_again = may_send_again
        """Sending the request again cannot apply it twice."""
        self.details = details


class SchemaNotReady(Exception):
    """The database does not have the schema of this version, or belongs to another installation."""


EXPECTED = (
    Refused,
    HTTPException,
    RequestValidationError,
    DatabaseAway,
    CommitUnknown,
    NotACallback,
    SchemaNotReady,
)
"""Errors of routes and of the framework that have a response of their own."""


def handle_in(app: FastAPI) -> None:
    """Register a handler that turns expected errors into our envelope."""
    for kind in EXPECTED:
        app.add_exception_handler(kind, handle)


async def handle(request: Request, error: Exception) -> JSONResponse:
    """Respond to an expected error."""
    process.end_if(error)  # the framework turns any error while it reads a body into a 400
    return answer_to(request, error)


def answer_to(request: Request, error: Exception) -> JSONResponse:
    """Build the HTTP response for `error`. Unexpected errors do not reveal their message."""
    match error:
        case Refused():
            return refused(request, refusal_of(error), _headers_of(error))
        case RequestValidationError():
            return refused(request, refusal_of(invalid_fields(field_errors(error.errors()))))
        case ClockWrong():
            message = "The clock of this server is wrong. Nothing was changed. Send the request again later."
            return _answer(request, _NOT_READY, "CLOCK_WRONG", message, headers={"Retry-After": "5"})
        case CommitUnknown():
            again = {"Retry-After": "1"} if error.may_send_again else None
            return _answer(request, _NOT_READY, "COMMIT_UNKNOWN", error.message, error.details, again)
        case CommitInDoubt() if request.method not in _SAFE:
            message = "The database connection was lost, so the request may have been stored. Send it again."
            return _answer(request, _NOT_READY, "COMMIT_UNKNOWN", message, headers={"Retry-After": "1"})
        case DatabaseAway():
            # True for every error that gets here: a commit in doubt is another case.
            cause = "Another change holds the data" if isinstance(error, LockTaken) else "The database is unavailable"
            message = f"{cause}. Nothing was changed. Send the request again."
            return _answer(request, _NOT_READY, "DATABASE_AWAY", message, headers={"Retry-After": "1"})
        case SchemaNotReady():
            message = str(error) or "The database does not have the schema of this version: run `duecall db upgrade`."
            return _answer(request, _NOT_READY, "SCHEMA_NOT_READY", message, headers={"Retry-After": "1"})
        case NotACallback():
            message = "The carrier did not sign this callback for this URL."
            return _answer(request, HTTPStatus.FORBIDDEN, "NOT_A_CALLBACK", message)
        case HTTPException():
            status = HTTPStatus(error.status_code)
            code, message = _words_of(error, status)
            headers = {"Allow": _allowed(request)} if status is HTTPStatus.METHOD_NOT_ALLOWED else error.headers
            return _answer(request, status, code, message, headers=headers)
    message = "An unexpected error occurred. It is logged under this traceId."
    return _answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", message)


def _words_of(error: HTTPException, status: HTTPStatus) -> tuple[str, str]:
    """Choose code and message of an error of the framework."""
    code, message = FRAMEWORK.get(status, (status.name, f"{status.phrase}."))
    if isinstance(error, BodyTooLarge) and error.limit > LARGEST_BODY:
        return code, f"The body is larger than {error.limit // 2**20} MiB. Send several batches."
    return code, message


def refused(request: Request, refusal: Refusal, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Build the HTTP response for a new or stored refusal."""
    return _answer(request, STATUS_OF[refusal.family], refusal.code, refusal.message, refusal.details, headers)


def _allowed(request: Request) -> str:
    """List every method of this URL. The framework lists only those of the first matching route."""
    scopes = ((method, {**request.scope, "method": method}) for method in _METHODS)
    routes = request.app.routes
    return ", ".join(
        method for method, scope in scopes if any(route.matches(scope)[0] is Match.FULL for route in routes)
    )


def too_often(exceeded: Window, now: datetime) -> refusals.RateLimitExceeded:
    """Build the error for a request above this rate limit of its key."""
    wait = max(1, exceeded.resets_at - int(now.timestamp()))
    return refusals.RateLimitExceeded(
        limit=exceeded.limit, per=exceeded.name.upper(), reset=exceeded.resets_at, retryAfter=wait
    )


def too_many_items(exceeded: ExceededBatchLimit, now: datetime) -> refusals.RateLimitExceeded:
    """Build the error for a batch that would exceed this limit of its key."""
    window, unit = exceeded.window, exceeded.unit
    error = too_often(window, now)
    message = f"This key may send {window.limit:,} {unit} of batches an hour, and {window.remaining:,} are left."
    return refusals.RateLimitExceeded(message, **error.details, unit=unit, remaining=window.remaining)


def _headers_of(error: Refused) -> Mapping[str, str] | None:
    match error:
        case refusals.NotAuthenticated():
            return {"WWW-Authenticate": "Bearer"}
        case refusals.RateLimitExceeded():
            return {"Retry-After": str(error.details["retryAfter"])}
    return None


def _answer(
    request: Request,
    status: HTTPStatus,
    code: str,
    message: str,
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    content = ErrorAnswer(
        error=ErrorView(code=code, message=message, details=dict(details) if details else None),
        timestamp=app_context(request).use_cases.now(),
        trace_id=request.state.trace_id,
    )
    return JSONResponse(
        content.model_dump(mode="json", by_alias=True), status, headers=None if headers is None else dict(headers)
    )

"""Errors of this client. All are a `DuecallError`."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Self
from uuid import UUID

import httpx


class DuecallError(Exception):
    """Base of all errors of this client."""


class ApiError(DuecallError):
    """The API refused a request. `code` and `details` are those of the response.

    `code` is in the list of error codes of the API. For a response that is not from the API, such as a page of a proxy,
    it is `HTTP_` and the status.
    """

    def __init__(
        self,
        *,
        status: int,
        code: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        trace_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.details: Mapping[str, Any] = details or {}
        self.trace_id = trace_id
        self.idempotency_key = idempotency_key
        """Send the request again with this key. It is then carried out once."""

    @classmethod
    def of(cls, response: httpx.Response) -> Self:
        """Return the error of a response that was read."""
        key = response.request.headers.get("Idempotency-Key")
        error, trace_id = _error_in(response)
        if error is None:
            message = "The response is not from Duecall. Check the URL, and proxies on the way."
            return cls(
                status=response.status_code, code=f"HTTP_{response.status_code}", message=message, idempotency_key=key
            )
        return cls(
            status=response.status_code,
            code=str(error["code"]),
            message=str(error.get("message")),
            details=error.get("details"),
            trace_id=trace_id,
            idempotency_key=key,
        )


class Unreachable(DuecallError):
    """No response arrived, at any try. A request that changes something may have been carried out."""

    def __init__(self, request: httpx.Request, cause: Exception) -> None:
        super().__init__(f"{request.method} {request.url.path} has no response: {cause or type(cause).__name__}")
        self.idempotency_key: str | None = request.headers.get("Idempotency-Key")
        """Send the request again with this key. It is then carried out once."""


class CommandNotApplied(DuecallError):
    """A command was not applied within the time that the caller waits. It is stored, and will be."""

    def __init__(self, command_id: UUID, status: str) -> None:
        super().__init__(f"Command {command_id} is still {status}. Wait for it again.")
        self.command_id = command_id


class InvalidWebhook(DuecallError):
    """A webhook is not signed by Duecall, is too old, or is malformed. Answer it with 400."""


def code_in(response: httpx.Response) -> str | None:
    """Return the error code of a response, or None if it is not from the API."""
    error, _ = _error_in(response)
    return None if error is None else str(error["code"])


def _error_in(response: httpx.Response) -> tuple[dict[str, Any] | None, str | None]:
    """Return the error of a response, and the id of its trace."""
    if response.status_code < HTTPStatus.BAD_REQUEST:
        return None, None
    try:
        body = response.json()
    except ValueError:
        return None, None
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or "code" not in error:
        return None, None
    return error, body.get("traceId")

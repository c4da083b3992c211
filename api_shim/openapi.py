"""What the public document says of errors."""

from typing import Any

from api_shim.schemas.envelope import ErrorAnswer

_WHEN = {
    400: ("The request is wrong; `details` says what to change.", "VALIDATION_ERROR"),
    401: ("No valid API key.", "INVALID_API_KEY"),
    403: ("The key lacks a scope, or does not reach that company.", "RESOURCE_ACCESS_DENIED"),
    404: ("It is not there, or not within the key's reach.", "RESOURCE_NOT_FOUND"),
    409: ("It does not fit the present state.", "IDEMPOTENCY_IN_PROGRESS"),
    413: ("The body is larger than 64 KiB.", "BODY_TOO_LARGE"),
    422: ("The Idempotency-Key was sent before with another request.", "IDEMPOTENCY_KEY_REUSED"),
    500: ("Something failed that should not have; name the traceId.", "INTERNAL_ERROR"),
    503: ("The database is away; nothing was changed.", "DATABASE_AWAY"),
}


def error_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route. `default` stands for all others, so that nothing is told of that never comes."""
    told: dict[int | str, dict[str, Any]] = {status: _told(*_WHEN[status]) for status in statuses}
    return {**told, "default": {"model": ErrorAnswer, "description": "Any other error."}}


def _told(description: str, code: str) -> dict[str, Any]:
    example = {
        "success": False,
        "data": None,
        "error": {"code": code, "message": description, "details": None},
        "timestamp": "2026-04-02T07:00:00Z",
        "traceId": "8d1f0c7e5b7a4e0c9a52d3c1f6b0a4e7",
    }
    content = {"application/json": {"example": example}}
    return {"model": ErrorAnswer, "description": description, "content": content}

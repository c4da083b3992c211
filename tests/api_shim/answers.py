"""Responses of the API: their data, their refusals, and their fields that do not depend on the time."""

from collections.abc import Mapping
from typing import Any

import httpx


def data(answer: httpx.Response, status: int = 200) -> Any:
    """Read the `data` of a response with this status."""
    assert answer.status_code == status, answer.text
    return answer.json()["data"]


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Read the status and the error code of a refused request."""
    assert answer.is_error, answer.text
    return answer.status_code, answer.json()["error"]["code"]


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Read the error of a request that was refused with this status and code."""
    assert refusal(answer) == (status, code), answer.text
    return dict(answer.json()["error"])


def wrong_fields(answer: httpx.Response) -> list[tuple[str, str]]:
    """Read the name and the code of each field or parameter that a refusal lists, each with a message."""
    fields = refused(answer, 400, "VALIDATION_ERROR")["details"]["fields"]
    assert all(each["message"] for each in fields)
    return [(each["field"], each["code"]) for each in fields]


def pagination(total: int, *, page: int = 1, limit: int = 20) -> dict[str, Any]:
    """Return the expected `pagination` of a list."""
    pages = -(-total // limit)
    content = {"page": page, "limit": limit, "total": total, "totalPages": pages, "totalIsEstimate": False}
    return {**content, "hasNextPage": page < pages, "hasPreviousPage": page > 1}


def pagination_with_cursor(total: int, cursor: str | None = None, *, page: int = 1, limit: int = 20) -> dict[str, Any]:
    """Return the expected `pagination` of a list that can also be read by cursors."""
    return {**pagination(total, page=page, limit=limit), "nextCursor": cursor}


def without_now(interview: Mapping[str, Any]) -> dict[str, Any]:
    """An interview without the `waitingFor` of its attempts, which depends on the current time."""
    return {**interview, "callAttempts": [{**each, "waitingFor": None} for each in interview["callAttempts"]]}

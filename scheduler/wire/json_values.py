"""JSON as it was sent: what PostgreSQL cannot keep of it, and its one spelling."""

import json
import math
import re
from typing import Any

from scheduler.timing import requested_time
from scheduler.wire.fields import FieldError, refuse_any

LARGEST_BODY = 64 * 1024
"""Bytes; nobody needs more in one request."""
MOST_LEVELS = 64
"""Nested objects and lists, the outermost counted as 1. The deepest valid request has 8. A limit of our own, because
Python's depends on how deep the call stack is already: readers of the same body would disagree."""
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""PostgreSQL keeps neither, in any text."""
_TIMES = frozenset({"scheduledAt", "scheduleTime", "expiresAt"})
"""A worker reads these when it applies the command, and refuses what is no date; this it could not even be sent."""


def canonical(value: Any) -> bytes:  # noqa: ANN401 - JSON
    """The same bytes for the same JSON, however it was spaced and ordered."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()


def is_too_deep(value: Any) -> bool:  # noqa: ANN401 - JSON
    """Return whether JSON has more than MOST_LEVELS levels. Works level by level: recursion would fail itself."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_LEVELS):
        inside = (each for outer in level for each in (outer.values() if isinstance(outer, dict) else outer))
        level = [each for each in inside if isinstance(each, dict | list)]
    return bool(level)


def too_deep() -> FieldError:
    """Describe JSON with more than MOST_LEVELS levels."""
    message = f"This is nested more than {MOST_LEVELS} levels deep; send a flatter body."
    return FieldError(field="body", code="TOO_DEEP", message=message)


def refuse_unstorable(body: Any) -> None:  # noqa: ANN401 - JSON
    """Raises InvalidFields for every text that PostgreSQL cannot keep; InvalidDateFormat where that is a time."""
    wrong = unstorable(body)
    for name in (each.field for each in wrong if each.field in _TIMES):
        if isinstance(body[name], str):
            requested_time.read(body[name], field=name)
    refuse_any(wrong)


def unstorable(value: Any, place: str = "") -> list[FieldError]:  # noqa: ANN401 - JSON
    """Everything in `value` that cannot be kept, each by its place: `candidate.firstName`, `skills.2`."""
    match value:
        case str() if _UNSTORABLE.search(value):
            return [_error(place, "INVALID_CHARACTER", "Remove the NUL character or the half of a surrogate pair.")]
        case float() if not math.isfinite(value):
            return [_error(place, "INVALID_VALUE", "This number is too large.")]
        case list():
            return [error for index, each in enumerate(value) for error in unstorable(each, f"{place}.{index}")]
        case dict():
            names = [error for name in value for error in unstorable(name, place)]
            return names + [error for name, each in value.items() for error in unstorable(each, f"{place}.{name}")]
        case str() | int() | float() | None:
            return []
        case _:  # what a message's own coding makes of a date or a UUID
            return [_error(place, "WRONG_TYPE", "This must be a JSON value; send a UUID or a time as a string.")]


def _error(place: str, code: str, message: str) -> FieldError:
    field = place.removeprefix(".").encode("ascii", "backslashreplace").decode()
    return FieldError(field=field, code=code, message=message)

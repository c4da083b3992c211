"""JSON as it was sent: what PostgreSQL cannot keep of it, and its one spelling."""

import json
import math
import re
from typing import Any

from scheduler.wire.fields import FieldError

LARGEST_BODY = 64 * 1024
"""Bytes; nobody needs more in one request."""
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""PostgreSQL keeps neither, in any text."""


def canonical(value: Any) -> bytes:  # noqa: ANN401 - JSON
    """The same bytes for the same JSON, however it was spaced and ordered."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()


def too_deep() -> FieldError:
    """What is said of JSON that nobody can walk through."""
    return FieldError(field="body", code="TOO_DEEP", message="This is nested too deeply.")


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

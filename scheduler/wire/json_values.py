"""JSON values from clients: limits, values that PostgreSQL cannot store, and a canonical form."""

import json
import math
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from scheduler.timing import requested_time
from scheduler.wire.field_errors import FieldError, invalid_fields, refuse_any

LARGEST_BODY = 64 * 1024
"""Bytes."""
MAX_LEVELS = 64
"""Levels of nested objects and lists, counting the outermost as 1. The deepest valid request has 8.

Python's own limit depends on the current depth of the call stack, so two readers of one body could disagree.
"""
_MOST_ERRORS = 20
"""Unstorable values that are named. A body can contain thousands, and each name can be half as long as the body."""
_LONGEST_PLACE = 128
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""PostgreSQL can store neither in a text."""
_TIMES = frozenset({"scheduledAt", "scheduleTime", "expiresAt"})
"""A worker parses these when it applies the command. An unstorable text would not reach it, so it is rejected here
with the same error as any other invalid date-time."""


def canonical(value: Any) -> bytes:  # noqa: ANN401 - JSON
    """Return the same bytes for equal JSON, regardless of white space and key order."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode()


def is_too_deep(value: Any) -> bool:  # noqa: ANN401 - JSON
    """Return whether JSON has more than MOST_LEVELS levels. Level by level, because recursion could fail itself."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_LEVELS):
        inside = (each for outer in level for each in (outer.values() if isinstance(outer, dict) else outer))
        level = [each for each in inside if isinstance(each, dict | list)]
    return bool(level)


def too_deep() -> FieldError:
    """Describe JSON with more than MOST_LEVELS levels."""
    message = f"This is nested more than {MAX_LEVELS} levels deep; send a flatter body."
    return FieldError(field="body", code="TOO_DEEP", message=message)


def an_object(value: Any, name: str = "The body") -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return the value if it is an object with values that PostgreSQL can store. Raises like `refuse_unstorable`.

    `name` names the value in the message.
    """
    if not isinstance(value, dict):
        raise invalid_fields([FieldError(field="", code="WRONG_TYPE", message=f"{name} must be a JSON object.")])
    refuse_unstorable(value)
    return value


def refuse_unstorable(body: Any) -> None:  # noqa: ANN401 - JSON
    """Raise InvalidFields for values that PostgreSQL cannot store, or InvalidDateFormat if one of them is a time."""
    errors = unstorable(body)
    for name in (each.field for each in errors if each.field in _TIMES):
        if isinstance(body[name], str):
            requested_time.read(body[name], field=name)
    refuse_any(errors)


def unstorable(value: Any, place: str = "") -> list[FieldError]:  # noqa: ANN401 - JSON
    """Return an error for each unstorable part of `value`, with its path: `candidate.firstName`, `skills.2`.

    Only the first ones, and of a long path its beginning.
    """
    return list(islice(_unstorable(value, place), _MOST_ERRORS))


def _unstorable(value: Any, place: str) -> Iterator[FieldError]:  # noqa: ANN401 - JSON
    match value:
        case str() if _UNSTORABLE.search(value):
            yield _error(place, "INVALID_CHARACTER", "Remove the NUL character or the half of a surrogate pair.")
        case float() if not math.isfinite(value):
            yield _error(place, "INVALID_VALUE", "This number is too large.")
        case list():
            for index, each in enumerate(value):
                yield from _unstorable(each, _inside(place, index))
        case dict():
            for name in value:
                yield from _unstorable(name, place)
            for name, each in value.items():
                yield from _unstorable(each, _inside(place, name))
        case str() | int() | float() | None:
            pass
        case _:  # the serializer of a broker message may decode a date or a UUID
            yield _error(place, "WRONG_TYPE", "This must be a JSON value; send a UUID or a time as a string.")


def _inside(place: str, name: object) -> str:
    return f"{place}.{name}"[: _LONGEST_PLACE + 1]


def _error(place: str, code: str, message: str) -> FieldError:
    field = place.removeprefix(".").encode("ascii", "backslashreplace").decode()[:_LONGEST_PLACE]
    return FieldError(field=field, code=code, message=message)

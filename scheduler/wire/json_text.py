"""JSON texts from clients, parsed strictly: UTF-8, no duplicate names, no number that JSON does not have."""

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from scheduler.domain.refusals import InvalidRequest
from scheduler.wire.json_values import MAX_LEVELS, is_too_deep

TOO_DEEP = f"it is nested more than {MAX_LEVELS} levels deep"
_TWICE = "an object contains the same name twice"
_DIGITS = "a number has too many digits"
_MOST_DIGITS = 4300
"""Python's own limit for integers."""
_REASONS = {
    "Unexpected UTF-8 BOM (decode using utf-8-sig)": "the text begins with a byte order mark",
    "Expecting value": "a JSON value is expected",
    "Expecting property name enclosed in double quotes": "a name in double quotes is expected",
    "Illegal trailing comma before end of object": "a name in double quotes is expected",
    "Illegal trailing comma before end of array": "a JSON value is expected",
    "Expecting ':' delimiter": "a colon is expected",
    "Expecting ',' delimiter": "a comma or a closing bracket is expected",
    "Extra data": "there is text after the end of the value",
    "Unterminated string starting at": "a string has no closing quote",
    "Invalid control character at": "a string contains a control character that is not escaped",
    "Invalid \\escape": "a string contains an unknown escape sequence",
    "Invalid \\uXXXX escape": "a string contains an invalid \\u escape sequence",
}
"""Our text for each message of Python's parser."""


class MalformedJson(InvalidRequest):
    """The body is not JSON."""

    code = "MALFORMED_JSON"


class Fault:
    """Stands for a part of a text that JSON or Python's parser allows and this API does not."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def parse(body: bytes) -> Any:  # noqa: ANN401 - JSON
    """Parse JSON (RFC 8259) in UTF-8, without duplicate names and with at most MAX_LEVELS levels.

    Raises MalformedJson with the position.
    """
    value = _parse(body, parse_constant=_no_constant, object_pairs_hook=_object)
    if is_too_deep(value):
        raise malformed(TOO_DEEP, 0)
    return value


def parse_list(body: bytes) -> tuple[Any, bool]:
    """Parse the JSON of several requests, each as deep as it likes. Return True if a `Fault` is somewhere in it.

    So one faulty request does not refuse the others. Raises MalformedJson.
    """
    faults: list[Fault] = []

    def fault(reason: str) -> Fault:
        faults.append(Fault(reason))
        return faults[-1]

    def members(pairs: list[tuple[str, Any]]) -> Any:  # noqa: ANN401 - JSON
        found = dict(pairs)
        return found if len(found) == len(pairs) else fault(_TWICE)

    value = _parse(
        body,
        parse_constant=lambda name: fault(_not_a_number(name)),
        parse_int=lambda digits: int(digits) if len(digits) <= _MOST_DIGITS else fault(_DIGITS),
        object_pairs_hook=members,
    )
    return value, bool(faults)


def fault_in(value: Any) -> Fault | None:  # noqa: ANN401 - JSON
    """Return a fault within a value of `parse_list`."""
    level = [value]
    while level:
        for each in level:
            if isinstance(each, Fault):
                return each
        level = [inner for each in level for inner in _inside(each)]
    return None


def malformed(reason: str, position: int, **more: int) -> MalformedJson:
    """Build the refusal of a text that is not JSON."""
    return MalformedJson(
        f"The body is not valid JSON: {reason} (position {position}).", reason=reason, position=position, **more
    )


def empty_body() -> MalformedJson:
    """Build the refusal of a missing body."""
    return MalformedJson("The body is empty. Send a JSON object.", position=0, reason="the body is empty")


def _parse(body: bytes, **hooks: Any) -> Any:  # noqa: ANN401 - JSON
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise malformed("the text is not UTF-8", error.start) from None
    try:
        return json.loads(text, **hooks)
    except json.JSONDecodeError as error:
        raise malformed(_REASONS.get(error.msg, error.msg), error.pos, line=error.lineno, column=error.colno) from None
    except RecursionError:
        raise malformed(TOO_DEEP, 0) from None
    except _OnlyOurs as error:
        raise malformed(str(error), 0) from None
    except ValueError:  # more digits than Python reads
        raise malformed(_DIGITS, 0) from None


class _OnlyOurs(Exception):
    """Input that JSON or Python's parser allows and this API does not."""


def _not_a_number(name: str) -> str:
    return f"{name} is not a JSON number"


def _no_constant(name: str) -> NoReturn:
    raise _OnlyOurs(_not_a_number(name))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _OnlyOurs(_TWICE)
    return members


def _inside(value: Any) -> Iterator[Any]:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value

"""JSON texts from clients, parsed strictly: UTF-8, no duplicate names, no number that JSON does not have."""

import json
from typing import Any, NoReturn

from scheduler.domain.refusals import InvalidRequest
from scheduler.wire.json_values import MAX_LEVELS, is_too_deep

TOO_DEEP = f"it is nested more than {MAX_LEVELS} levels deep"
TWICE = "an object contains the same name twice"
TEXT_AFTER_END = "there is text after the end of the value"
NOT_CLOSED = "a closing bracket or quote is expected"
_DIGITS = "a number has too many digits"
_REASONS = {
    "Unexpected UTF-8 BOM (decode using utf-8-sig)": "the text begins with a byte order mark",
    "Expecting value": "a JSON value is expected",
    "Expecting property name enclosed in double quotes": "a name in double quotes is expected",
    "Illegal trailing comma before end of object": "a name in double quotes is expected",
    "Illegal trailing comma before end of array": "a JSON value is expected",
    "Expecting ':' delimiter": "a colon is expected",
    "Expecting ',' delimiter": "a comma or a closing bracket is expected",
    "Extra data": TEXT_AFTER_END,
    "Unterminated string starting at": "a string has no closing quote",
    "Invalid control character at": "a string contains a control character that is not escaped",
    "Invalid \\escape": "a string contains an unknown escape sequence",
    "Invalid \\uXXXX escape": "a string contains an invalid \\u escape sequence",
}
"""Our text for each message of Python's parser."""


class MalformedJson(InvalidRequest):
    """The body is not JSON."""

    code = "MALFORMED_JSON"


class BrokenText(Exception):
    """A part of a text shows that the whole text is not JSON."""

    def __init__(self, refusal: MalformedJson) -> None:
        self.refusal = refusal


def parse(body: bytes) -> Any:  # noqa: ANN401 - JSON
    """Parse JSON (RFC 8259) in UTF-8, without duplicate names and with at most MAX_LEVELS levels.

    Raises MalformedJson with the position.
    """
    try:
        return _parse(body)
    except _NotJson as fault:
        raise fault.refusal_in(body, 0) from None


def parse_part(text: bytes, start: int, end: int) -> Any:  # noqa: ANN401 - JSON
    """Parse one value of a larger JSON text as `parse` does.

    Raises BrokenText if the whole text is not JSON, MalformedJson if only this value is not allowed.
    """
    try:
        return _parse(text[start:end])
    except _NotJson as fault:
        raise BrokenText(fault.refusal_in(text, start)) from None


def malformed(reason: str, position: int, **more: int) -> MalformedJson:
    """Build the refusal of a text that is not JSON."""
    return MalformedJson(
        f"The body is not valid JSON: {reason} (position {position}).", reason=reason, position=position, **more
    )


def empty_body() -> MalformedJson:
    """Build the refusal of a missing body."""
    return MalformedJson("The body is empty. Send a JSON object.", position=0, reason="the body is empty")


def _parse(body: bytes) -> Any:  # noqa: ANN401 - JSON
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _NotJson("the text is not UTF-8", error.start) from None
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise _NotJson(_REASONS.get(error.msg, error.msg), error.pos, text) from None
    except RecursionError:
        raise malformed(TOO_DEEP, 0) from None
    except _OnlyOurs as error:
        raise malformed(str(error), 0) from None
    except ValueError:  # more digits than Python reads
        raise malformed(_DIGITS, 0) from None
    if is_too_deep(value):
        raise malformed(TOO_DEEP, 0)
    return value


class _NotJson(Exception):
    """Input that no JSON parser reads."""

    def __init__(self, reason: str, position: int, text: str | None = None) -> None:
        """`position` counts characters of the text, or bytes without a text."""
        self._reason = reason
        self._position = position
        self._text = text

    def refusal_in(self, body: bytes, start: int) -> MalformedJson:
        """Build the refusal of a body in which this input begins at `start`."""
        if self._text is None:
            return malformed(self._reason, start + self._position)
        before = body[:start].decode("utf-8", "replace") + self._text[: self._position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return malformed(self._reason, len(before), line=line, column=column)


class _OnlyOurs(Exception):
    """Input that JSON or Python's parser allows and this API does not."""


def _not_a_number(name: str) -> str:
    return f"{name} is not a JSON number"


def _no_constant(name: str) -> NoReturn:
    raise _OnlyOurs(_not_a_number(name))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _OnlyOurs(TWICE)
    return members

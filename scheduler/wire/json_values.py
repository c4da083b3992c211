"""JSON from clients: parsed strictly, limited, canonical, and items of lists found without parsing."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, NoReturn

from scheduler.domain.refusals import InvalidRequest
from scheduler.timing import requested_time
from scheduler.wire.named_fields import FieldError, invalid_fields, refuse_any

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
    """Encode equal JSON as the same bytes, regardless of white space and key order."""
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
    """Require an object with values that PostgreSQL can store. Raises like `refuse_unstorable`.

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
    """List an error for each unstorable part of `value`, with its path: `candidate.firstName`, `skills.2`.

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
    # The refusal of an item of a batch is stored with this path, so the path must not contain NUL either.
    escaped = place.removeprefix(".").replace("\0", r"\x00").encode("ascii", "backslashreplace").decode()
    field = escaped[:_LONGEST_PLACE]
    return FieldError(field=field, code=code, message=message)


# --- JSON texts from clients, parsed strictly
# UTF-8, no duplicate names, no number that JSON does not have.


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


# --- Items of a list in a JSON object, found before anything is parsed: a text of brackets takes no memory
# Parsed at once, 16 MiB of empty lists are 5 million objects. Here an item costs a match of a regular expression for
# each of its brackets, and the search ends at the first item or bracket too many.


MOST_BRACKETS = 500_000
"""Brackets outside strings, in all items. Finding so many takes a quarter of a second."""
_BLANK = b" \t\n\r"
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_BLANKS = re.compile(rb"[ \t\n\r]*+")
_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?+[ \t\n\r]*+\{")
"""A byte order mark stays in the rest, whose parser names it."""
_MEMBER = re.compile(rb"[ \t\n\r]*+(" + _STRING + rb")[ \t\n\r]*+:[ \t\n\r]*+", re.DOTALL)
_TO_END = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+([\[\]{},])", re.DOTALL)
"""Up to the end of a value, or to the bracket that opens it."""
_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+([\[{]++|[\]}]++)", re.DOTALL)
"""Up to the next brackets of one direction."""


class TooManyItems(Exception):
    """The list has more items than allowed."""


class TooManyBrackets(Exception):
    """The text has more than `MOST_BRACKETS`."""


class RestTooLarge(Exception):
    """The object has more than `LARGEST_BODY` bytes without the list."""


class TextAfterObject(Exception):
    """The object has no such list, and more text follows after its end."""

    def __init__(self, position: int) -> None:
        """`position` is that of this text, in bytes."""
        super().__init__()
        self.position = position


@dataclass(frozen=True, kw_only=True)
class CutList:
    """A JSON object without one of its lists, and the places of the items of this list."""

    rest: bytes
    """The object with an empty list instead."""
    items: Sequence[tuple[int, int]] | None
    """Start and end of each item, which may be no JSON. None: the object has no such list."""


def cut(body: bytes, name: str, most: int) -> CutList | None:
    """Find at most so many items of the list `name`. Return None for a text that is no object.

    Raises TooManyItems, TooManyBrackets, RestTooLarge, TextAfterObject, MalformedJson.
    """
    opened = _OBJECT.match(body)
    return None if opened is None else _Cutting(body, most).object(opened.end(), name)


class _Cutting:
    def __init__(self, body: bytes, most: int) -> None:
        self._body = body
        self._most = most
        self._brackets = 0

    def object(self, at: int, name: str) -> CutList:
        items, begin, after = None, at, at
        # Nothing is looked for in a rest that is too large.
        while at - (after - begin) <= LARGEST_BODY and (member := _MEMBER.match(self._body, at)) is not None:
            at = member.end()
            if _is_named(member[1], name):
                if items is not None:
                    raise malformed(TWICE, member.start(1))
                if self._body[at : at + 1] == b"[":
                    begin = at + 1
                    items, after = self._items(begin)
                    at = after + 1
            at = self._end(at)
            if self._body[at : at + 1] != b",":
                break
            at += 1
        if items is None and self._body[at : at + 1] == b"}":
            position = self._after_blanks(at + 1)
            if position < len(self._body):
                raise TextAfterObject(position)
        if len(self._body) - (after - begin) > LARGEST_BODY:
            raise RestTooLarge
        return CutList(rest=self._body[:begin] + self._body[after:], items=items)

    def _after_blanks(self, at: int) -> int:
        found = _BLANKS.match(self._body, at)
        return at if found is None else found.end()

    def _items(self, at: int) -> tuple[Sequence[tuple[int, int]], int]:
        """Find the places of the items, and that of the bracket that closes their list."""
        items: list[tuple[int, int]] = []
        for number in count():
            end = self._end(at)
            mark = self._body[end : end + 1]
            if mark == b"}":
                raise malformed(NOT_CLOSED, end)
            text = self._body[at:end]
            if text.strip(_BLANK) or mark == b"," or number:  # an empty list has no item
                if number == self._most:
                    raise TooManyItems
                items.append((end - len(text.lstrip(_BLANK)), at + len(text.rstrip(_BLANK))))
            if mark == b"]":
                break
            at = end + 1
        return items, end

    def _end(self, at: int) -> int:
        """Find the place of the comma or closing bracket after a value."""
        while True:
            found = self._found(_TO_END, at)
            if found[1] in b"]},":
                return found.start(1)
            at = self._after_brackets(found.end())

    def _after_brackets(self, at: int) -> int:
        """Find the place after the bracket that closes the one before `at`."""
        depth = 1
        while True:
            found = self._found(_TO_BRACKET, at)
            run = len(found[1])
            at = found.end()
            if found[1][0] in b"[{":
                depth += run
            elif run < depth:
                depth -= run
            else:
                return at - (run - depth)

    def _found(self, pattern: re.Pattern[bytes], at: int) -> re.Match[bytes]:
        found = pattern.match(self._body, at)
        if found is None:
            raise malformed(NOT_CLOSED, len(self._body))
        self._brackets += 0 if found[1] == b"," else len(found[1])
        if self._brackets > MOST_BRACKETS:
            raise TooManyBrackets
        return found


def _is_named(text: bytes, name: str) -> bool:
    try:
        return bool(json.loads(text) == name)
    except ValueError:
        return False  # the rest is refused when it is parsed

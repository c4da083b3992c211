"""Finds the items of a list in a JSON object before anything is parsed: a text of brackets takes no memory.

Parsed at once, 16 MiB of empty lists are 5 million objects. Here an item costs a match of a regular expression for each
of its brackets, and the search ends at the first item or bracket too many.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from scheduler.wire.json_text import NOT_CLOSED, TWICE, malformed
from scheduler.wire.json_values import LARGEST_BODY

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
        """Return the places of the items, and that of the bracket that closes their list."""
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
        """Return the place of the comma or closing bracket after a value."""
        while True:
            found = self._found(_TO_END, at)
            if found[1] in b"]},":
                return found.start(1)
            at = self._after_brackets(found.end())

    def _after_brackets(self, at: int) -> int:
        """Return the place after the bracket that closes the one before `at`."""
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

"""Lists of the console: the filters of an address, and the part of a list that it asks for."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from console.forms import id_or_none

T = TypeVar("T")
ROWS = 50
"""Rows of one part."""
_LONGEST = 200
_LARGEST_ID = 2**63 - 1


class WrongFilter(Exception):
    """A filter of the address has no meaning. The argument says which one and what to do."""


@dataclass(frozen=True, kw_only=True)
class Part(Generic[T]):
    """Rows of a list, and the addresses of its other parts. None: there is no such part."""

    rows: Sequence[T]
    first: str | None
    following: str | None


def id_filter(query: Mapping[str, str], name: str) -> UUID | None:
    """Return the id in a filter, if it is set. Raises WrongFilter."""
    text = query.get(name, "").strip()
    found = id_or_none(text)
    if text and found is None:
        raise WrongFilter(f"The filter {name} is not an id. Copy the whole id, or leave the field empty.")
    return found


def choice_filter(query: Mapping[str, str], name: str, options: Mapping[str, str], default: str = "") -> str:
    """Return the chosen option. Raises WrongFilter."""
    text = query.get(name, "").strip() or default
    if text and text not in options:
        known = ", ".join(value for value in options if value)
        raise WrongFilter(f"The filter {name} must be one of: {known}.")
    return text


def text_filter(query: Mapping[str, str], name: str) -> str | None:
    """Return the text of a filter, if it is set. Raises WrongFilter."""
    text = query.get(name, "").strip()
    if len(text) > _LONGEST or not text.isprintable():
        raise WrongFilter(f"The filter {name} must be one line of at most {_LONGEST} visible characters.")
    return text or None


def place_in(query: Mapping[str, str], *types: type) -> tuple[Any, ...] | None:
    """Return the place after which the part begins, as values of these types. None: the first part.

    Raises WrongFilter.
    """
    text = query.get("after")
    if not text:
        return None
    try:
        values = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii").split(" ")
        return tuple(_value(type_, value) for type_, value in zip(types, values, strict=True))
    except (ValueError, OverflowError):
        raise WrongFilter("The address of this part of the list is incomplete. Open the list again.") from None


def place_text(*values: object) -> str:
    """Return a place in the form that `place_in` reads."""
    text = " ".join(each.isoformat() if isinstance(each, datetime) else str(each) for each in values)
    return urlsafe_b64encode(text.encode("ascii")).decode("ascii").rstrip("=")


def part_of(path: str, query: Mapping[str, str], found: Sequence[T], key: Callable[[T], tuple[Any, ...]]) -> Part[T]:
    """Return a part of a list of which one row more than `ROWS` was read, if there are so many.

    `key` returns the place of a row, which `place_in` reads.
    """
    rows = found[:ROWS]
    return part_before(path, query, rows, key(rows[-1]) if len(found) > ROWS else None)


def part_before(path: str, query: Mapping[str, str], rows: Sequence[T], following: tuple[Any, ...] | None) -> Part[T]:
    """Return a part of a list. `following`: the place after which the next part begins, if there is one."""
    filters = {name: value for name, value in query.items() if value and name != "after"}
    next_part = None
    if following is not None:
        next_part = f"{path}?{urlencode({**filters, 'after': place_text(*following)})}"
    first = None
    if query.get("after"):
        first = f"{path}?{urlencode(filters)}" if filters else path
    return Part(rows=rows, first=first, following=next_part)


def _value(type_: type, text: str) -> object:
    """Read a value of a place. Raises ValueError, OverflowError."""
    if type_ is datetime:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError(text)
        return at.astimezone(UTC)
    if type_ is int:
        number = int(text)
        if not 0 <= number <= _LARGEST_ID:
            raise ValueError(text)
        return number
    return UUID(text)

"""Lists of the console, declared by their filters, and the part of a list that an address asks for."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from scheduler.ids import id_or_none

T = TypeVar("T")
ROWS = 50
"""Rows of one part."""
_LONGEST = 200
_ID_LENGTH = 36
_OK, _UNPROCESSABLE = 200, 422
_LARGEST_ID = 2**63 - 1


class WrongFilter(Exception):
    """A filter of the address has no meaning. The argument names it and the correction."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A field of the form above a list, and a parameter of its address. Without `options` it is a text."""

    name: str
    label: str
    options: Mapping[str, str] = field(default_factory=dict)
    """Texts by their values. An empty value means all."""
    default: str = ""
    is_id: bool = False
    longest: int = _LONGEST
    size: int = 20
    placeholder: str = ""

    def read(self, text: str) -> UUID | str | None:
        """Read the value, or None if the filter is not set. Raises WrongFilter."""
        if self.options:
            return _choice(self.name, text, self.options) or None
        return _id(self.name, text) if self.is_id else _line(self.name, text, self.longest)


def id_field(name: str, label: str) -> Filter:
    return Filter(name=name, label=label, is_id=True, longest=_ID_LENGTH, size=_ID_LENGTH)


COMPANY = id_field("company", "Company id")


@dataclass(frozen=True, kw_only=True)
class ListPage:
    """A page with a list: its filters, and the types of the values that are a place in it."""

    path: str
    filters: tuple[Filter, ...]
    place: tuple[type, ...] = ()
    show_all: str = "Show all"
    """The label of the link that removes the filters."""
    pager: tuple[str, str] = ("Newest", "Older")
    """The labels of the links to the first and to the following part."""

    def asked(self, query: Mapping[str, str]) -> "Asked":
        texts = {each.name: query.get(each.name, "").strip() or each.default for each in self.filters}
        try:
            values = {each.name: each.read(texts[each.name]) for each in self.filters}
            place = place_in(query, *self.place) if self.place else None
        except WrongFilter as wrong:
            return Asked(of=self, texts=texts, problem=str(wrong))
        return Asked(of=self, texts=texts, values=values, place=place)


@dataclass(frozen=True, kw_only=True)
class Part(Generic[T]):
    """Rows of a list, and the addresses of its other parts. None: there is no such part."""

    rows: Sequence[T]
    first: str | None
    following: str | None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The part of a list that an address asks for."""

    of: ListPage
    texts: Mapping[str, str]
    """The texts of the form, by the names of the fields."""
    values: Mapping[str, UUID | str | None] = field(default_factory=dict)
    place: tuple[Any, ...] | None = None
    """The place after which the part begins. None: the first part."""
    problem: str | None = None
    """Then the address has no meaning, and there are no values."""

    @property
    def status(self) -> int:
        return _OK if self.problem is None else _UNPROCESSABLE

    @property
    def is_filtered(self) -> bool:
        return any(self.texts[each.name] != each.default for each in self.of.filters)

    def id(self, name: str) -> UUID | None:
        value = self.values[name]
        return value if isinstance(value, UUID) else None

    def text(self, name: str) -> str | None:
        value = self.values[name]
        return value if isinstance(value, str) else None

    def part(self, found: Sequence[T], key: Callable[[T], tuple[Any, ...]]) -> Part[T]:
        """Cut the part of a list of which one row more than `ROWS` was read, if there are so many.

        `key` returns the place of a row.
        """
        rows = found[:ROWS]
        return self.part_before(rows, key(rows[-1]) if len(found) > ROWS else None)

    def part_before(self, rows: Sequence[T], following: tuple[Any, ...] | None) -> Part[T]:
        """Cut the part. `following`: the place after which the next one begins, if there is one."""
        filters = {each.name: self.texts[each.name] for each in self.of.filters if self.texts[each.name]}
        return Part(
            rows=rows,
            first=None if self.place is None else _address(self.of.path, filters),
            following=None
            if following is None
            else _address(self.of.path, filters | {"after": place_text(*following)}),
        )


def place_in(query: Mapping[str, str], *types: type) -> tuple[Any, ...] | None:
    """Read the place after which the part begins, as values of these types. None: the first part.

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
    """Write a place in the form that `place_in` reads."""
    text = " ".join(each.isoformat() if isinstance(each, datetime) else str(each) for each in values)
    return urlsafe_b64encode(text.encode("ascii")).decode("ascii").rstrip("=")


def _address(path: str, fields: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(fields)}" if fields else path


def _id(name: str, text: str) -> UUID | None:
    found = id_or_none(text)
    if text and found is None:
        raise WrongFilter(f"The filter {name} is not an id. Copy the whole id, or leave the field empty.")
    return found


def _choice(name: str, text: str, options: Mapping[str, str]) -> str:
    if text and text not in options:
        known = ", ".join(value for value in options if value)
        raise WrongFilter(f"The filter {name} must be one of: {known}.")
    return text


def _line(name: str, text: str, longest: int) -> str | None:
    if len(text) > longest or not text.isprintable():
        raise WrongFilter(f"The filter {name} must be one line of at most {longest} visible characters.")
    return text or None


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

"""Cursors of lists as opaque texts. A cursor holds an instant and an id, and grants no access to rows."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

from scheduler.domain.pagination import Cursor, Sort, SortField
from scheduler.hashing import fingerprint

_NO_FILTERS = frozenset({"cursor", "limit", "page", "sort"})
"""Parameters that may change from page to page. The cursor itself contains the order."""
_DIRECTIONS = {"asc": False, "desc": True}
LONGEST = 300
_PLACES = 2**63


class WrongCursor(Exception):
    """The text is no cursor of this list."""


def list_name(name: str, parameters: Iterable[tuple[str, str]]) -> str:
    """Build the name of a list with these query parameters, which its cursors contain.

    A cursor that is sent with other filters would return a mixture of two lists.
    """
    filters = sorted(each for each in parameters if each[0] not in _NO_FILTERS)
    if not filters:
        return name
    texts = [text.encode() for each in filters for text in each]
    return f"{name}.{fingerprint(*texts).hex()[:16]}"


def sort_text(sort: Sort) -> str:
    """Write the order in the form of the parameter `sort`."""
    return f"{sort.by.value}:{'desc' if sort.descending else 'asc'}"


def sort_in(text: str) -> Sort:
    """Read the parameter `sort`. Raises ValueError."""
    by, _, direction = text.partition(":")
    if direction not in _DIRECTIONS:
        raise ValueError(text)
    return Sort(by=SortField(by), descending=_DIRECTIONS[direction])


def cursor_text(name: str, cursor: Cursor) -> str:
    """Build the cursor of the list with this name, in the form that `cursor_in` reads."""
    text = f"{name} {sort_text(cursor.sort)} {cursor.at.astimezone(UTC).isoformat()} {cursor.id}"
    return urlsafe_b64encode(text.encode("ascii")).decode("ascii").rstrip("=")


def cursor_in(name: str, text: str) -> Cursor:
    """Read a cursor of the list with this name. Raises WrongCursor."""
    try:
        content = urlsafe_b64decode((text + "=" * (-len(text) % 4)).encode("ascii")).decode("ascii")
        found, sort, at, row_id = content.split(" ")
        cursor = Cursor(sort=sort_in(sort), at=datetime.fromisoformat(at), id=UUID(row_id))
        # Only texts of `cursor_text`: an instant without an offset, for example, has no meaning to PostgreSQL.
        is_ours = found == name and cursor_text(name, cursor) == text
    except (ValueError, OverflowError):
        is_ours = False
    if not is_ours:
        raise WrongCursor
    return cursor


def place_text(name: str, place: int) -> str:
    """Build the cursor of the list with this name, whose rows have places, in the form that `place_in` reads."""
    return urlsafe_b64encode(f"{name} {place}".encode("ascii")).decode("ascii").rstrip("=")


def place_in(name: str, text: str) -> int:
    """Read a cursor of the list with this name. Raises WrongCursor."""
    try:
        content = urlsafe_b64decode((text + "=" * (-len(text) % 4)).encode("ascii")).decode("ascii")
        found, digits = content.split(" ")
        place = int(digits)
        # Only texts of `place_text` with a place that PostgreSQL can store.
        is_ours = found == name and place_text(name, place) == text and 0 <= place < _PLACES
    except ValueError:
        is_ours = False
    if not is_ours:
        raise WrongCursor
    return place

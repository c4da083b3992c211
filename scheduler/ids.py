"""Ids of new rows, in the order of time: UUIDs of version 7 (RFC 9562, section 5.7)."""

from datetime import UTC, datetime, timedelta
from secrets import randbits
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
VERSION = 7


def new_id(now: datetime) -> UUID:
    """Make the id of a row that is created now: 48 bits of milliseconds, version, variant and 74 random bits.

    Rows that are created together are next to each other in every index of ids, so that their pages are full and few
    pages are written. Ids of a wrong clock are out of order, and unique. An id contains the time at which its row was
    created, so it is never a secret.
    """
    milliseconds = (now - _EPOCH) // timedelta(milliseconds=1)
    return UUID(int=milliseconds << 80 | VERSION << 76 | randbits(12) << 64 | 0b10 << 62 | randbits(62))


def first_id(at: datetime) -> UUID:
    """Compute a bound of ids: those of rows that were created in this millisecond or later are not below it."""
    return UUID(int=max(0, (at - _EPOCH) // timedelta(milliseconds=1)) << 80)


def id_or_none(text: str) -> UUID | None:
    """Read the id that a text is, or None."""
    try:
        return UUID(text)
    except ValueError:
        return None

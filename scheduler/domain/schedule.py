"""A schedule: the requested time, and the clock on which it was evaluated."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class TimezoneSource(StrEnum):
    OFFSET = "OFFSET"
    """A numeric offset in the request."""
    ZONE = "ZONE"
    """A named zone in the request."""
    CANDIDATE = "CANDIDATE"
    PHONE_NUMBER = "PHONE_NUMBER"
    COMPANY = "COMPANY"


class ScheduleWarning(StrEnum):
    OFFSET_DIFFERS_FROM_PHONE_NUMBER = "OFFSET_DIFFERS_FROM_PHONE_NUMBER"
    CANDIDATE_HAS_OPEN_INTERVIEW = "CANDIDATE_HAS_OPEN_INTERVIEW"
    MOVED_BY_SETTINGS = "MOVED_BY_SETTINGS"


@dataclass(frozen=True, kw_only=True)
class CalleeClock:
    """The wall clock that decides: either one offset, or zones that must all be open.

    Exactly one of the two is set. `zones` are canonical IANA names, sorted, without duplicates.
    """

    source: TimezoneSource
    offset: timedelta | None = None
    zones: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The requested time and its interpretation, stored with the attempt as evidence."""

    requested: str | None
    """The client's text, or None."""
    clock: CalleeClock
    due_at: datetime
    """Aware UTC: the first instant at which this attempt may be dialled."""
    earliest_at: datetime
    """Aware UTC: the start of the search for an opening. Equal to `due_at` if the client named that instant."""
    tzdata_version: str

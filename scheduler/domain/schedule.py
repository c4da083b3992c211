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
class NumberFacts:
    """Facts about the callee's number that decide about its calls, for readers who may not read its digits."""

    country: str | None
    """ISO 3166 alpha-2. None for numbers without a country (+800)."""
    never_called: str | None = None
    """The kind of a number that is never called, or None."""
    zones: tuple[str, ...] | None = None
    """The zones of the number. None if they are those of the schedule's clock, or if no rule needs them."""


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
    number: NumberFacts | None = None
    """None in rows of the previous version."""

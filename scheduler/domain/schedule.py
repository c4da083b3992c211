"""A schedule: the time that was asked for, and on whose clock it was judged."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class TimezoneSource(StrEnum):
    OFFSET = "OFFSET"
    """A numeric offset in the request; used as it is."""
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
    """Whose wall clock decides: either one offset, or zones that must all be open.

    Exactly one of the two is set. `zones` are canonical IANA names, sorted, without repeats.
    """

    source: TimezoneSource
    offset: timedelta | None = None
    zones: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What was asked for and what was made of it; kept with the attempt as its proof."""

    requested: str | None
    """The text as it was sent; None when none was."""
    clock: CalleeClock
    due_at: datetime
    """Aware UTC: the first instant at which this attempt may be dialled."""
    earliest_at: datetime
    """Aware UTC: from when on an opening was looked for; `due_at` where that instant itself was asked for."""
    tzdata_version: str

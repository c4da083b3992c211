"""A company: whose settings say when its candidates may be called, and how much may be called at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

ALARM = "ALARM: "
"""How the reason of a pause begins when no person paused the company."""


class Weekday(IntEnum):
    """Numbered as `date.weekday()` numbers them."""

    MON = 0
    TUE = 1
    WED = 2
    THU = 3
    FRI = 4
    SAT = 5
    SUN = 6


@dataclass(frozen=True, kw_only=True)
class CallTimeInterval:
    """Wall-clock hours, half-open, on each of `days`; the day is the one on which the interval starts.

    `start` and `end` are spans from that day's midnight: `end` lies after `start`, and beyond 24 hours when the
    interval crosses midnight (22:00 to 02:00 is 22 h to 26 h). `24:00` is 24 h.
    """

    days: frozenset[Weekday]
    start: timedelta
    end: timedelta


EVERY_DAY = frozenset(Weekday)
DEFAULT_INTERVALS = (CallTimeInterval(days=EVERY_DAY, start=timedelta(hours=8), end=timedelta(hours=20)),)


class NextDay(Enum):
    """Instead of a span: tomorrow on the callee's clock, in the part of the day that was tried least."""

    NEXT_DAY = "NEXT_DAY"


Delay = timedelta | NextDay

DEFAULT_DELAYS: Mapping[str, tuple[Delay, ...]] = MappingProxyType(
    {
        "BUSY": (timedelta(seconds=900),),
        "NO_ANSWER": (timedelta(seconds=7200), NextDay.NEXT_DAY),
        "VOICEMAIL": (timedelta(seconds=14_400),),
        "CARRIER_ERROR": (timedelta(seconds=300),),
    }
)
"""By the reason why an attempt failed; the last one repeats. A reason that is not here is never retried."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """What follows by itself when a call was not answered by a person."""

    max_retries: int = 3
    """In one chain, 0 to 10."""
    delays: Mapping[str, tuple[Delay, ...]] = field(default_factory=lambda: DEFAULT_DELAYS)


@dataclass(frozen=True, kw_only=True)
class CallLimits:
    """How much of the carrier one company may use."""

    concurrent_calls: int = 10
    calls_per_second: float = 1.0


@dataclass(frozen=True, kw_only=True)
class CompanySettings:
    """What a company has decided; what it left open is the default here."""

    timezone: str | None = None
    locale: str | None = None
    intervals: tuple[CallTimeInterval, ...] = DEFAULT_INTERVALS
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    limits: CallLimits = field(default_factory=CallLimits)
    machine_detection: bool = True
    offset_must_match_number: bool = False
    allowed_countries: frozenset[str] | None = None


@dataclass(frozen=True, kw_only=True)
class NewCompany:
    """A company as a request describes one."""

    name: str
    profile: Mapping[str, Any] = field(default_factory=dict)
    settings: CompanySettings = field(default_factory=CompanySettings)
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    owner_email: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Company:
    id: UUID
    name: str | None
    """None in an answer that is told again after the company was deleted."""
    settings: CompanySettings
    profile: Mapping[str, Any] = field(default_factory=dict)
    """What the public API documents of a company and no rule here asks, in its wire form."""
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    created_at: datetime
    updated_at: datetime
    ats_principal_id: UUID | None = None
    """The ATS key's principal that made this company; None for one made by an operator."""
    owner_email: str | None = field(default=None, repr=False)
    """The owner's address, or that of whoever is invited to be it; which of the two is not told."""
    paused_at: datetime | None = None
    deleted_at: datetime | None = None

"""A company (tenant). Its settings determine when its candidates may be called, and how many at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

ALARM = "ALARM: "
"""Prefix of the reason of a pause that an alarm caused, not a person."""


class Weekday(IntEnum):
    """Numbered like `date.weekday()`."""

    MON = 0
    TUE = 1
    WED = 2
    THU = 3
    FRI = 4
    SAT = 5
    SUN = 6


@dataclass(frozen=True, kw_only=True)
class CallTimeInterval:
    """Wall-clock hours, half-open, that start on each of `days`.

    `start` and `end` are spans from that day's midnight. `end` is after `start`, and beyond 24 hours if the interval
    crosses midnight (22:00 to 02:00 is 22 h to 26 h). `24:00` is 24 h.
    """

    days: frozenset[Weekday]
    start: timedelta
    end: timedelta


EVERY_DAY = frozenset(Weekday)
DEFAULT_INTERVALS = (CallTimeInterval(days=EVERY_DAY, start=timedelta(hours=8), end=timedelta(hours=20)),)


class NextDay(Enum):
    """Instead of a span: the next day on the callee's clock, in the part of the day with the fewest tries."""

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
"""Delays by the reason of the failure; the last one repeats. Other reasons are never retried."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Automatic retries after a call that no person answered."""

    max_retries: int = 3
    """Per chain, 0 to 10."""
    delays: Mapping[str, tuple[Delay, ...]] = field(default_factory=lambda: DEFAULT_DELAYS)


@dataclass(frozen=True, kw_only=True)
class CallLimits:
    """A company's limits at the carrier."""

    concurrent_calls: int = 10
    calls_per_second: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LimitCeiling:
    """The highest limits that a company may set, as operators decided. None: those of the carrier account."""

    concurrent_calls: int | None = None
    calls_per_second: float | None = None

    def or_of(self, account: CallLimits | None) -> "LimitCeiling":
        """Return the ceiling with the limits of the account where operators have set none."""
        if account is None:
            return self
        return LimitCeiling(
            concurrent_calls=account.concurrent_calls if self.concurrent_calls is None else self.concurrent_calls,
            calls_per_second=account.calls_per_second if self.calls_per_second is None else self.calls_per_second,
        )

    def applied_to(self, limits: CallLimits) -> CallLimits:
        """Return the limits, each at most the ceiling."""
        places, pace = self.concurrent_calls, self.calls_per_second
        return CallLimits(
            concurrent_calls=limits.concurrent_calls if places is None else min(limits.concurrent_calls, places),
            calls_per_second=limits.calls_per_second if pace is None else min(limits.calls_per_second, pace),
        )


@dataclass(frozen=True, kw_only=True)
class CompanySettings:
    """The settings of a company, with the defaults for unset fields."""

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
    """A company as described by a request."""

    name: str
    profile: Mapping[str, Any] = field(default_factory=dict)
    settings: CompanySettings = field(default_factory=CompanySettings)
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    owner_email: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Company:
    id: UUID
    name: str | None
    """None in an answer that is replayed after the company was deleted."""
    settings: CompanySettings
    profile: Mapping[str, Any] = field(default_factory=dict)
    """Documented fields of the public API that no rule here uses, in wire form."""
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    created_at: datetime
    updated_at: datetime
    ats_principal_id: UUID | None = None
    """The principal of the ATS key that created this company. None if an operator created it."""
    owner_email: str | None = field(default=None, repr=False)
    """The address of the owner or of the invited owner, without distinction."""
    paused_at: datetime | None = None
    deleted_at: datetime | None = None

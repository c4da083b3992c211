"""A company (tenant) with its settings, its owners, and the usage that it is billed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

from scheduler.domain.call import DetectionTuning, MachineDetection
from scheduler.domain.interview import AgentFocus

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
        """Complete the ceiling by the limits of the account where operators have set none."""
        if account is None:
            return self
        return LimitCeiling(
            concurrent_calls=account.concurrent_calls if self.concurrent_calls is None else self.concurrent_calls,
            calls_per_second=account.calls_per_second if self.calls_per_second is None else self.calls_per_second,
        )

    def applied_to(self, limits: CallLimits) -> CallLimits:
        """Cap the limits: each is at most the ceiling."""
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
    machine_detection: MachineDetection = MachineDetection.ASYNC
    """Companies of versions before 0.3.0 have SYNC or OFF."""
    detection_tuning: DetectionTuning = field(default_factory=DetectionTuning)
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


# --- Owners of companies, and the invitations of owners who are not known yet


class Role(StrEnum):
    OWNER = "OWNER"
    """One per company."""
    ADMIN = "ADMIN"
    """A former owner, after another person became the owner."""


@dataclass(frozen=True, kw_only=True)
class User:
    """A person who has accepted an invitation."""

    id: UUID
    email: str = field(repr=False)
    """In canonical form; see `rules.owners`."""
    name: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A user as the owner of a company."""

    user: User
    company_id: UUID
    company_name: str | None


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """A request by mail to become the owner of a company. A company has at most one open invitation."""

    id: UUID
    company_id: UUID
    email: str = field(repr=False)
    expires_at: datetime
    accepted_at: datetime | None = None
    revoked_at: datetime | None = None
    tries: int = 0
    """Number of mails started. It identifies the latest try when the result of one is recorded."""

    def is_open(self, now: datetime) -> bool:
        """Return whether it can be accepted."""
        return self.accepted_at is None and self.revoked_at is None and now < self.expires_at


@dataclass(frozen=True, kw_only=True)
class Mails:
    """The unsent mails of a company's open invitation."""

    company_id: UUID
    tries: int
    """Number of mails started but not sent. 0: not tried yet."""
    try_at: datetime | None
    """The time of the next try. None: the mail server refused the mail permanently, so there is no further try."""


# --- Usage: the cost of calls, by company and unit
# Booked once, at the end of the call, and kept after the company.


class BillingSystem(StrEnum):
    MINUTES = "minutes"
    CREDITS = "credits"


@dataclass(frozen=True, kw_only=True)
class Price:
    """The price of a call in credits: `base_cost`, plus `cost_per_minute` beyond `included_minutes`."""

    base_cost: Decimal
    cost_per_minute: Decimal
    included_minutes: Decimal


PriceList = Mapping[AgentFocus, Price]


@dataclass(frozen=True, kw_only=True)
class Billing:
    """The billing of a company's future calls. Existing bookings keep their unit and price."""

    system: BillingSystem
    prices: PriceList
    """The company's own prices by focus. The default price list applies to all others."""
    ats_principal_id: UUID | None


@dataclass(frozen=True, kw_only=True)
class Booking:
    """The booking of one call that a person answered."""

    attempt_id: UUID
    interview_id: UUID
    company_id: UUID
    ats_principal_id: UUID | None
    booked_at: datetime
    system: BillingSystem
    cost_key: str
    talked: timedelta
    """Counted from the answer, in whole seconds of the carrier."""
    credits: Decimal | None
    """The price, if the unit is credits."""


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """The total booked under one cost key in one unit."""

    system: BillingSystem
    cost_key: str
    events: int
    interviews: int
    talked: timedelta
    credits: Decimal


@dataclass(frozen=True, kw_only=True)
class CompanyUsage:
    """The usage of one company in one unit."""

    company_id: UUID
    company_name: str | None
    """None for a deleted company."""
    system: BillingSystem
    buckets: tuple[Bucket, ...]

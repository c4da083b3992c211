"""Usage: the cost of calls, by company and unit. Booked once, at the end of the call, and kept after the company."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from scheduler.domain.agent import AgentFocus


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

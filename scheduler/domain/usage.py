"""Usage: what calls have cost, by company and unit. Booked once, with the call's end; it outlives its company."""

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
    """What a call costs in credits: `base_cost`, and `cost_per_minute` for each beyond `included_minutes`."""

    base_cost: Decimal
    cost_per_minute: Decimal
    included_minutes: Decimal


PriceList = Mapping[AgentFocus, Price]


@dataclass(frozen=True, kw_only=True)
class Billing:
    """How a company is billed from now on; what is booked keeps its unit and price."""

    system: BillingSystem
    prices: PriceList
    """Its own, by focus; for the others the default price list stands."""
    ats_principal_id: UUID | None


@dataclass(frozen=True, kw_only=True)
class Booking:
    """One call that a person answered."""

    attempt_id: UUID
    interview_id: UUID
    company_id: UUID
    ats_principal_id: UUID | None
    booked_at: datetime
    system: BillingSystem
    cost_key: str
    talked: timedelta
    """From the answer on, in the carrier's whole seconds."""
    credits: Decimal | None
    """Where the unit is credits: its price."""


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """What was booked under one cost key, in one unit."""

    system: BillingSystem
    cost_key: str
    events: int
    interviews: int
    talked: timedelta
    credits: Decimal


@dataclass(frozen=True, kw_only=True)
class CompanyUsage:
    """What one company has used in one unit."""

    company_id: UUID
    company_name: str | None
    """None for a company that was deleted."""
    system: BillingSystem
    buckets: tuple[Bucket, ...]

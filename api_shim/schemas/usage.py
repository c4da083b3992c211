"""Response schemas for usage. Each unit has fields of its own, and the fields of the other unit are omitted."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, WithJsonSchema

from api_shim.schemas.envelope import answer
from scheduler.domain.company import BillingSystem, Bucket, CompanyUsage
from scheduler.rules.pricing import merged, minutes_shown
from scheduler.wire.field_types import Wire

Minutes = Annotated[float, Field(description="Minutes to one decimal, calculated from exact seconds.", examples=[12.5])]
Credits = Annotated[float, Field(description="Credits to six decimals.", examples=[4.25])]
IfAny = Annotated[float | None, WithJsonSchema({"type": "number"}), Field(exclude_if=lambda value: value is None)]
"""Omitted when absent, not null or 0."""


class _Bucket(Wire):
    cost_key: str
    events: int = Field(description="Calls that a person answered.")


class MinutesBucket(_Bucket):
    cost_key: str = Field(examples=["interview_minutes"])
    minutes_used: Minutes


class CreditsBucket(_Bucket):
    cost_key: str = Field(examples=["screening_interview"])
    credits_used: Credits


class _CompanyUsage(Wire):
    company_id: UUID
    company_name: str | None = Field(description="Null for a deleted company.")
    total_interviews: int


class MinutesUsage(_CompanyUsage):
    billing_system: Literal[BillingSystem.MINUTES]
    breakdown_by_cost_key: list[MinutesBucket]
    total_minutes_used: Minutes


class CreditsUsage(_CompanyUsage):
    billing_system: Literal[BillingSystem.CREDITS]
    breakdown_by_cost_key: list[CreditsBucket]
    total_credits_used: Credits


class UsageView(Wire):
    """Usage by company. Minutes and credits are totalled separately. A unit that bills no company is omitted."""

    companies: list[Annotated[MinutesUsage | CreditsUsage, Field(discriminator="billing_system")]]
    total_interviews: int
    breakdown_by_cost_key: list[MinutesBucket | CreditsBucket]
    total_minutes_used: IfAny = None
    total_credits_used: IfAny = None

    @classmethod
    def of(cls, companies: Sequence[CompanyUsage]) -> Self:
        """Build the view from one row per company and unit."""
        buckets = merged(bucket for each in companies for bucket in each.buckets)
        return cls(
            companies=[_company(each) for each in companies],
            total_interviews=_interviews(buckets),
            breakdown_by_cost_key=[_bucket(each) for each in buckets],
            **{
                _total_name(system): _total(system, buckets)
                for system in BillingSystem
                if any(each.system is system for each in companies)
            },
        )


def _company(used: CompanyUsage) -> MinutesUsage | CreditsUsage:
    fields: dict[str, Any] = {
        "billing_system": used.system,
        "total_interviews": _interviews(used.buckets),
        "breakdown_by_cost_key": [_bucket(each) for each in used.buckets],
        _total_name(used.system): _total(used.system, used.buckets),
    }
    return (MinutesUsage if used.system is BillingSystem.MINUTES else CreditsUsage).view_of(used, **fields)


def _bucket(bucket: Bucket) -> MinutesBucket | CreditsBucket:
    used = _total(bucket.system, [bucket])
    if bucket.system is BillingSystem.MINUTES:
        return MinutesBucket.view_of(bucket, minutes_used=used)
    return CreditsBucket.view_of(bucket, credits_used=used)


def _total_name(system: BillingSystem) -> str:
    return f"total_{system.value}_used"


def _total(system: BillingSystem, buckets: Sequence[Bucket]) -> float:
    """Convert to a JSON number. A double keeps every digit of decimals this long."""
    of_system = [each for each in buckets if each.system is system]
    if system is BillingSystem.CREDITS:
        return float(sum((each.credits for each in of_system), Decimal(0)))
    return float(minutes_shown(sum((each.talked for each in of_system), timedelta(0))))


def _interviews(buckets: Sequence[Bucket]) -> int:
    """Count the interviews. An interview has one focus, so it has one cost key per unit."""
    return sum(each.interviews for each in buckets)


UsageAnswer = answer("UsageAnswer", UsageView, "Usage by company and in total.")

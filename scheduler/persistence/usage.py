"""Usage: booked with a call's end, told by company and unit, and kept when its company is erased."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, func, select, true, update
from sqlalchemy.dialects.postgresql import insert

from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.refusals import Refused
from scheduler.domain.usage import Billing, BillingSystem, Booking, Bucket, CompanyUsage, PriceList
from scheduler.lifecycle.pricing import prices_as_json, read_prices
from scheduler.logs import log
from scheduler.persistence.companies import reached_by
from scheduler.persistence.tables import companies, usage

_log = log(__name__)


class Usage:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def billing_of(self, company_id: UUID) -> Billing:
        """How the company is billed; also while it is being erased. Raises NoResultFound when it is not there.

        Prices that cannot be read, because another release wrote them, are the default ones: no call is kept from its
        end by what it costs.
        """
        row = self._connection.execute(
            select(companies.c.billing_system, companies.c.prices, companies.c.ats_principal_id).where(
                companies.c.id == company_id
            )
        ).one()
        prices: PriceList = {}
        try:
            prices = read_prices(row.prices)
        except (Refused, LookupError, TypeError, ValueError, AttributeError):
            _log.exception(
                "prices_unreadable: the company's prices could not be read; the default prices were used",
                alarm="PRICES",
                company_id=str(company_id),
            )
        return Billing(system=BillingSystem(row.billing_system), prices=prices, ats_principal_id=row.ats_principal_id)

    def bill(self, company_id: UUID, billing: Billing, now: datetime) -> None:
        """Its calls are booked so from now on. Only for a company that the caller has locked."""
        self._connection.execute(
            update(companies)
            .where(companies.c.id == company_id)
            .values(billing_system=billing.system.value, prices=prices_as_json(billing.prices), updated_at=now)
        )

    def book(self, booking: Booking) -> None:
        """Once for an attempt, however often it is told."""
        values = {field.name: getattr(booking, field.name) for field in fields(booking) if field.name != "system"}
        self._connection.execute(
            insert(usage)
            .values(billing_system=booking.system.value, **values)
            .on_conflict_do_nothing(index_elements=["attempt_id"])
        )

    def of(
        self, principal: Principal, start: datetime, end: datetime, *, company_id: UUID | None = None
    ) -> tuple[CompanyUsage, ...]:
        """What was booked in the half-open span, a row a company and unit; newest companies first, deleted ones last.

        A company without any is there in the unit in which it is billed now. With `company_id` there is no other.
        """
        there = self._connection.execute(
            select(companies.c.id, companies.c.name, companies.c.billing_system)
            .where(companies.c.deleted_at.is_(None), reached_by(principal), _is(companies.c.id, company_id))
            .order_by(companies.c.created_at.desc(), companies.c.id.desc())
        ).all()
        booked = self._booked(principal, start, end, company_id)
        told = []
        for company in there:
            by_unit = booked.pop(company.id, None) or {BillingSystem(company.billing_system): ()}
            told += [_company_usage(company.id, company.name, *each) for each in by_unit.items()]
        for erased_id, by_unit in booked.items():
            told += [_company_usage(erased_id, None, *each) for each in by_unit.items()]
        return tuple(told)

    def _booked(
        self, principal: Principal, start: datetime, end: datetime, company_id: UUID | None
    ) -> dict[UUID, dict[BillingSystem, tuple[Bucket, ...]]]:
        keys = (usage.c.company_id, usage.c.billing_system, usage.c.cost_key)
        rows = self._connection.execute(
            select(
                *keys,
                func.count().label("events"),
                func.count(usage.c.interview_id.distinct()).label("interviews"),
                func.sum(usage.c.talked).label("talked"),
                func.sum(usage.c.credits).label("credits"),
            )
            .where(
                _of(principal),
                _is(usage.c.company_id, company_id),
                usage.c.booked_at >= start,
                usage.c.booked_at < end,
            )
            .group_by(*keys)
            .order_by(usage.c.company_id, usage.c.billing_system.desc(), usage.c.cost_key)
        )
        booked: dict[UUID, dict[BillingSystem, tuple[Bucket, ...]]] = {}
        for row in rows:
            system = BillingSystem(row.billing_system)
            bucket = Bucket(
                system=system,
                cost_key=row.cost_key,
                events=row.events,
                interviews=row.interviews,
                talked=row.talked or timedelta(0),
                credits=row.credits or Decimal(0),
            )
            by_unit = booked.setdefault(row.company_id, {})
            by_unit[system] = (*by_unit.get(system, ()), bucket)
        return booked


def _of(principal: Principal) -> ColumnElement[bool]:
    """What a regular key's company has used, or all companies that an ATS key has ever made."""
    if principal.kind is KeyKind.REGULAR:
        return usage.c.company_id == principal.company_id
    return usage.c.ats_principal_id == principal.id


def _is(column: ColumnElement[UUID], company_id: UUID | None) -> ColumnElement[bool]:
    """Narrow to one company; None leaves all."""
    return true() if company_id is None else column == company_id


def _company_usage(
    company_id: UUID, name: str | None, system: BillingSystem, buckets: Sequence[Bucket]
) -> CompanyUsage:
    return CompanyUsage(company_id=company_id, company_name=name, system=system, buckets=tuple(buckets))

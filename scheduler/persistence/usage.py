"""Usage: booked when a call ends, summed by company and unit, and kept after the company was erased."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, text, true, update

from scheduler.domain.company import Billing, BillingSystem, Booking, Bucket, CompanyUsage, PriceList
from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.refusals import Refused
from scheduler.lifecycle.policy import REPORT_FIRST, latest_written
from scheduler.logs import log
from scheduler.persistence.companies import reached_by
from scheduler.persistence.rows import AnyRow, as_columns, from_row
from scheduler.persistence.store import Store, insertion
from scheduler.persistence.tables import companies, usage
from scheduler.rules.pricing import prices_as_json, read_prices

_log = log(__name__)


_BOOK = insertion(usage, turn=6, suffix="ON CONFLICT (attempt_id) DO NOTHING")


_BILLINGS = text("""
    SELECT c.id, c.billing_system, c.prices, c.ats_principal_id,
           c.deleted_at IS NULL AND EXISTS (
               SELECT FROM api_keys k
               WHERE (k.company_id = c.id OR (k.kind = 'ATS' AND k.principal_id = c.ats_principal_id))
                 AND 'voice' = ANY (k.scopes)
                 AND k.revoked_at IS NULL AND k.suspended_at IS NULL
                 AND (k.expires_at IS NULL OR k.expires_at > :now)
           ) AS may_report,
           ARRAY (
               SELECT x.interview_id
               FROM inbox x
               WHERE x.interview_id = ANY (CAST(:interviews AS uuid[])) AND x.applied_at IS NULL
               GROUP BY x.interview_id
               HAVING bool_or(
                   x.kind = 'report_outcome'
                   -- The latter was written by a wrong clock.
                   AND x.received_at > :since AND x.received_at <= :latest  -- guard: old_report
               )
               -- Until an operator decides about the oldest command, none of the others is applied.
               AND bool_and(x.quarantined_at IS NULL)  -- guard: quarantined_report
           ) AS reports
    FROM companies c
    WHERE c.id = ANY (:ids)
""")


class Usage(Store):
    def billings_of(
        self, company_ids: Collection[UUID], now: datetime, interview_ids: Collection[UUID] = ()
    ) -> dict[UUID, AnyRow]:
        """Read the rows of `billing_from` for companies, also while they are being erased.

        `may_report` is true if a key that is active at `now` may report the outcome of their calls. `reports` are those
        of the interviews for which a report was accepted and will soon be applied.
        """
        values = {
            "ids": list(company_ids),
            "interviews": list(interview_ids),
            "now": now,
            "since": now - REPORT_FIRST,
            "latest": latest_written(now),
        }
        rows = self._connection.execute(_BILLINGS, values)
        return {row.id: row for row in rows}

    def billing_of(self, company_id: UUID, now: datetime) -> Billing:
        return billing_from(self.billings_of([company_id], now)[company_id])

    def bill(self, company_id: UUID, billing: Billing, now: datetime) -> None:
        """Set the billing of future calls, for a company that the caller has locked."""
        self._connection.execute(
            update(companies)
            .where(companies.c.id == company_id)
            .values(billing_system=billing.system.value, prices=prices_as_json(billing.prices), updated_at=now)
        )

    def book(self, booking: Booking) -> None:
        """Book the call of an attempt once. Repetitions change nothing."""
        row = as_columns(booking, without={"system"}, billing_system=booking.system.value)
        self._connection.write(_BOOK, booking.attempt_id, row)

    def of(
        self, principal: Principal, start: datetime, end: datetime, *, company_id: UUID | None = None
    ) -> tuple[CompanyUsage, ...]:
        """Sum the usage in the half-open span by company and unit. Newest companies first, deleted ones last.

        A company without usage is listed with its current unit. `company_id` narrows the result to one company.
        """
        present = self._connection.execute(
            select(companies.c.id, companies.c.name, companies.c.billing_system)
            .where(companies.c.deleted_at.is_(None), reached_by(principal), _is(companies.c.id, company_id))
            .order_by(companies.c.created_at.desc(), companies.c.id.desc())
        ).all()
        booked = self._booked(principal, start, end, company_id)
        usages = []
        for company in present:
            by_unit = booked.pop(company.id, None) or {BillingSystem(company.billing_system): ()}
            usages += [_company_usage(company.id, company.name, *each) for each in by_unit.items()]
        for erased_id, by_unit in booked.items():
            usages += [_company_usage(erased_id, None, *each) for each in by_unit.items()]
        return tuple(usages)

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
            bucket = from_row(
                Bucket, row, system=system, talked=row.talked or timedelta(0), credits=row.credits or Decimal(0)
            )
            by_unit = booked.setdefault(row.company_id, {})
            by_unit[system] = (*by_unit.get(system, ()), bucket)
        return booked


def billing_from(row: AnyRow) -> Billing:
    """Read the billing settings in a row of `companies`.

    Prices that another version wrote and that cannot be read are replaced by the defaults, so that the call can end.
    """
    prices: PriceList = {}
    try:
        prices = read_prices(row.prices)
    except (Refused, LookupError, TypeError, ValueError, AttributeError):
        _log.exception(
            "prices_unreadable: the company's prices could not be read; the default prices were used",
            alarm="PRICES",
            company_id=str(row.id),
        )
    return Billing(system=BillingSystem(row.billing_system), prices=prices, ats_principal_id=row.ats_principal_id)


def _of(principal: Principal) -> ColumnElement[bool]:
    """Match the usage of a regular key's company, or of all companies that an ATS key has ever created."""
    if principal.kind is KeyKind.REGULAR:
        return usage.c.company_id == principal.company_id
    return usage.c.ats_principal_id == principal.id


def _is(column: ColumnElement[UUID], company_id: UUID | None) -> ColumnElement[bool]:
    """Match one company. None matches all."""
    return true() if company_id is None else column == company_id


def _company_usage(
    company_id: UUID, name: str | None, system: BillingSystem, buckets: Sequence[Bucket]
) -> CompanyUsage:
    return CompanyUsage(company_id=company_id, company_name=name, system=system, buckets=tuple(buckets))

"""Usage: billed minutes or credits per company, and the operator's billing settings."""

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.actor import SYSTEM
from scheduler.domain.audit import Act, TargetKind, Verb
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import AccessDenied, InvalidPeriod
from scheduler.domain.schedule import CalleeClock, TimezoneSource
from scheduler.domain.usage import Billing, BillingSystem, CompanyUsage, PriceList
from scheduler.persistence.database import Database
from scheduler.rules import pause_reasons
from scheduler.rules.pricing import prices_as_json
from scheduler.timing import call_windows, requested_time
from scheduler.use_cases.shared.access import require

_BY_DEFAULT = timedelta(days=30)
_LONGEST = timedelta(days=366)
_UTC = CalleeClock(source=TimezoneSource.OFFSET, offset=timedelta(0))
"""Time zone of a period that names none. Billing has no callee whose zone could be used."""


class Usage:
    def __init__(self, database: Database, now: Now, actor: str = SYSTEM) -> None:
        self._database = database
        self._now = now
        self._actor = actor

    def of(
        self, principal: Principal, company_id: UUID | None, start: str | None, end: str | None
    ) -> tuple[CompanyUsage, ...]:
        """Return the usage from `start` until before `end`, of one company or of all that the principal reaches.

        Both are texts of the request. A date means midnight UTC. Default: the 30 days until now.
        Raises InvalidDateFormat, InvalidPeriod, AccessDenied, DatabaseAway.
        """
        until = self._now() if end is None else instant_of(end, "end")
        since = until - _BY_DEFAULT if start is None else instant_of(start, "start")
        if until < since:
            raise InvalidPeriod("The end lies before the start.", field="end")
        if until - since > _LONGEST:
            raise InvalidPeriod(f"The period is longer than {_LONGEST.days} days; ask for a part of it.", field="start")
        with self._database.reading(principal) as stores:
            if company_id is not None and not stores.keys.reach(principal, company_id):
                raise AccessDenied
            return stores.usage.of(principal, since, until, company_id=company_id)

    def bill(
        self,
        company_id: UUID,
        *,
        system: BillingSystem | None = None,
        prices: PriceList | None = None,
        drops_its_prices: bool = False,
        reason: str | None = None,
    ) -> Billing:
        """Change the billing of a company from now on. Omitted arguments keep their value.

        Each focus in `prices` gets that price. With `drops_its_prices` all others get the default price again.
        `reason` is for the audit. Raises InvalidPauseReason, NotFound, DatabaseAway.
        """
        reason = pause_reasons.optional(reason)
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            require(stores.companies.lock(company_id), "company", company_id)
            before = stores.usage.billing_of(company_id)
            own = {} if drops_its_prices else before.prices
            after = replace(before, system=system or before.system, prices={**own, **(prices or {})})
            stores.usage.bill(company_id, after, now)
            if after != before:
                act = Act(
                    verb=Verb.CHANGE_BILLING,
                    target_kind=TargetKind.COMPANY,
                    target_id=company_id,
                    company_id=company_id,
                    reason=reason,
                    before=_fields(before),
                    after=_fields(after),
                )
                stores.audit.add(self._actor, [act], now)
            return after


def _fields(billing: Billing) -> dict[str, object]:
    return {"billingSystem": billing.system, "prices": prices_as_json(billing.prices)}


def instant_of(text: str, field: str) -> datetime:
    """Parse one end of a period. Without an offset or zone it is UTC. Raises InvalidDateFormat."""
    requested = requested_time.read_bound(text, field=field)
    if requested.zone is None:
        return call_windows.resolve(requested, _UTC)
    return call_windows.resolve(requested, CalleeClock(source=TimezoneSource.ZONE, zones=(requested.zone,)))

"""Companies: create, list, change, delete, and their usage."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from operator import attrgetter
from uuid import UUID

from scheduler.domain.call import CalleeClock, TimezoneSource
from scheduler.domain.company import (
    Billing,
    BillingSystem,
    CallLimits,
    Company,
    CompanySettings,
    CompanyUsage,
    LimitCeiling,
    NewCompany,
    PriceList,
)
from scheduler.domain.principal import Act, KeyKind, Principal, TargetKind, Verb, of_key
from scheduler.domain.refusals import AccessDenied, InsufficientPermissions, InvalidPeriod
from scheduler.domain.resource import Changes, Listed, Slice
from scheduler.ids import new_id
from scheduler.lifecycle import partner_events
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.rules import operators
from scheduler.rules.operators import check_limits
from scheduler.rules.pricing import prices_as_json
from scheduler.rules.resources import changed
from scheduler.timing import call_windows, requested_time, zone_names
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites, WriteRequest, WriteResult, the_company
from scheduler.use_cases.resources.owners import name_owner
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.access import OperatorUseCase, require
from scheduler.use_cases.shared.hints import Hints

_CALL_RULES = attrgetter("intervals", "timezone", "allowed_countries")
"""The settings that determine when, or whether, candidates are called."""


class Companies:
    """Every method raises AccessDenied, DatabaseAway. Writes also raise the errors of `IdempotentWrites.once`.

    `caller_id` is the E.164 caller number of each new company. None leaves it without a number.
    """

    def __init__(self, database: Database, writes: IdempotentWrites, hints: Hints, caller_id: str | None) -> None:
        self._database = database
        self._writes = writes
        self._hints = hints
        self._caller_id = caller_id

    def get(self, principal: Principal, company_id: UUID) -> Company:
        with self._database.reading(principal) as stores:
            company = stores.companies.get(the_company(principal, company_id)(stores))
        if company is None:
            raise AccessDenied
        return company

    def page(self, principal: Principal, requested: Slice) -> Listed[Company]:
        """List a regular key's own company, or the companies that an ATS key has created."""
        with self._database.reading(principal) as stores:
            return stores.companies.page(principal, requested)

    def create(self, sent: WriteRequest, new: NewCompany) -> WriteResult:
        """Create a company for an ATS key, with a caller number. Raises InsufficientPermissions for a regular key."""
        invites = False

        def write(stores: Stores, _: None, now: datetime) -> Company:
            nonlocal invites
            _check_limits(stores, new.settings.limits, CallLimits(), LimitCeiling())
            company = add_company(stores, new, sent.principal.id, now)
            if self._caller_id is not None:
                stores.phone_numbers.add(new_id(now), company.id, self._caller_id, now)
            invites = new.owner_email is not None
            return name_owner(stores, company, new.owner_email, now)

        def within(_: Stores) -> None:
            if sent.principal.kind is not KeyKind.ATS:
                raise InsufficientPermissions("Only an ATS key can create companies.")

        written = self._writes.once(sent, within, write)
        if invites:
            self._hints.send(tasks.INVITE)
        return written

    def change(self, sent: WriteRequest, company_id: UUID, changes: Changes) -> WriteResult:
        """Change a company. Its pending attempts are rescheduled if the changes may affect their times.

        Each named part of `settings` is replaced as a whole. `owner_email` names an owner, and None removes the owner.
        Refused: InvalidTimezone, MetadataTooLarge, InvalidFields (a limit above the ceiling).
        """
        rings = invites = False

        def write(stores: Stores, company_id: UUID, now: datetime) -> Company:
            nonlocal rings, invites
            before = stores.companies.lock(company_id)
            assert before is not None  # `IdempotentWrites.once` has locked it
            others = {name: value for name, value in changes.items() if name not in {"settings", "owner_email"}}
            settings = _normalised(replace(before.settings, **changes.get("settings", {})))
            after = replace(changed(before, others), settings=settings, updated_at=now)
            limits = before.settings.limits, settings.limits
            if limits[0] != limits[1]:
                _check_limits(stores, settings.limits, *stores.companies.limits_of(company_id))
                _audit(stores, sent, Verb.CHANGE_LIMITS, company_id, now, limits)
            stores.companies.save(after)
            rings = _CALL_RULES(before.settings) != _CALL_RULES(settings)
            if rings:
                stores.schedule_recomputations.ask(company_id, None, now)
            invites = "owner_email" in changes
            return name_owner(stores, after, changes["owner_email"], now) if invites else after

        written = self._writes.once(sent, the_company(sent.principal, company_id), write)
        if rings:
            self._hints.send(tasks.RECOMPUTE)
        if invites:
            self._hints.send(tasks.INVITE)
        return written

    def delete(self, sent: WriteRequest, company_id: UUID) -> WriteResult:
        """Delete a company. Once committed, it is neither called for nor readable. A worker erases it (`Erase`)."""

        def write(stores: Stores, company_id: UUID, now: datetime) -> None:
            if not stores.companies.lock_to_delete(company_id):
                raise AccessDenied
            _audit(stores, sent, Verb.DELETE_COMPANY, company_id, now)
            # Before the deletion: a deleted company has no readers.
            stores.events.note([partner_events.of_deletion(company_id, now)])
            stores.companies.delete(company_id, now)
            stores.erasures.ask(company_id, now)

        written = self._writes.once(sent, _company_even_if_deleted(sent.principal, company_id), write)
        self._hints.send(tasks.ERASE, [company_id])
        return written


def _check_limits(stores: Stores, wanted: CallLimits, before: CallLimits, ceiling: LimitCeiling) -> None:
    """Raise InvalidFields for limits above the ceiling. Without one the limits of the carrier account apply."""
    check_limits(wanted, before, ceiling.or_of(stores.carrier_accounts.highest_limits()))


def _audit(
    stores: Stores,
    sent: WriteRequest,
    verb: Verb,
    company_id: UUID,
    now: datetime,
    limits: tuple[CallLimits, CallLimits] | None = None,
) -> None:
    """Add an act of the request's key upon a company. `limits`: before and after."""
    before, after = ({}, {}) if limits is None else map(_limits, limits)
    act = Act(
        verb=verb,
        target_kind=TargetKind.COMPANY,
        target_id=company_id,
        company_id=company_id,
        before=before,
        after=after,
    )
    stores.audit.add(of_key(sent.principal.key_id), [act], now, trace_id=sent.trace_id)


def _limits(limits: CallLimits) -> dict[str, object]:
    return {"concurrentCalls": limits.concurrent_calls, "callsPerSecond": limits.calls_per_second}


def _company_even_if_deleted(principal: Principal, company_id: UUID) -> Callable[[Stores], UUID]:
    """Like `the_company`, but repeats the success for a principal whose company is already deleted."""

    def reached(stores: Stores) -> UUID:
        if stores.erasures.was_reached(principal, company_id):
            return company_id
        return the_company(principal, company_id)(stores)

    return reached


def add_company(stores: Stores, new: NewCompany, ats_principal_id: UUID | None, now: datetime) -> Company:
    """Create a company. An operator creates it without `ats_principal_id`. Raises InvalidTimezone."""
    company = Company(
        id=new_id(now),
        name=new.name,
        settings=_normalised(new.settings),
        profile=new.profile,
        metadata=new.metadata,
        ats_principal_id=ats_principal_id,
        created_at=now,
        updated_at=now,
    )
    stores.companies.add(company)
    return company


def _normalised(settings: CompanySettings) -> CompanySettings:
    """Normalise the time zone of the settings. Raises InvalidTimezone."""
    zone = settings.timezone
    return settings if zone is None else replace(settings, timezone=zone_names.check_zone(zone))


# --- Usage: billed minutes or credits per company, and the operator's billing settings


_BY_DEFAULT = timedelta(days=30)
_LONGEST = timedelta(days=366)
_UTC = CalleeClock(source=TimezoneSource.OFFSET, offset=timedelta(0))
"""Time zone of a period that names none. Billing has no callee whose zone could be used."""


class Usage(OperatorUseCase):
    def of(
        self, principal: Principal, company_id: UUID | None, start: str | None, end: str | None
    ) -> tuple[CompanyUsage, ...]:
        """Add up the usage from `start` until before `end`, of one company or of all that the principal reaches.

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
        reason = operators.optional(reason)
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            require(stores.companies.lock(company_id), "company", company_id)
            before = stores.usage.billing_of(company_id, now)
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

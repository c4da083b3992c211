"""Companies: made by ATS keys, listed, changed; other hours or zones move their pending calls."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from uuid import UUID, uuid4

from scheduler.domain.company import Company, CompanySettings, NewCompany
from scheduler.domain.pagination import Listed, Slice
from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.refusals import AccessDenied, InsufficientPermissions
from scheduler.domain.resource import Changes
from scheduler.persistence.database import Database, Stores
from scheduler.rules.resource_changes import changed
from scheduler.timing import callee_zones
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites, WriteRequest, WriteResult, the_company
from scheduler.use_cases.resources.owners import name_owner
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.hints import Hints


class Companies:
    """Every verb raises AccessDenied, DatabaseAway; a write also what `IdempotentWrites.once` raises.

    `caller_id` is the number that each new company gets to call from, in E.164; None: none.
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

    def page(self, principal: Principal, asked: Slice) -> Listed[Company]:
        """A regular key's own company, or all that an ATS key has made."""
        with self._database.reading(principal) as stores:
            return stores.companies.page(principal, asked)

    def create(self, sent: WriteRequest, new: NewCompany) -> WriteResult:
        """A company of an ATS key, with a number to call from. Raises InsufficientPermissions for a regular key."""
        invites = False

        def write(stores: Stores, _: None, now: datetime) -> Company:
            nonlocal invites
            company = add_company(stores, new, sent.principal.id, now)
            if self._caller_id is not None:
                stores.phone_numbers.add(uuid4(), company.id, self._caller_id, now)
            invites = new.owner_email is not None
            return name_owner(stores, company, new.owner_email, now)

        def within(_: Stores) -> None:
            if sent.principal.kind is not KeyKind.ATS:
                raise InsufficientPermissions("Only an ATS key makes companies; a regular key has its own.")

        written = self._writes.once(sent, within, write)
        if invites:
            self._hints.send(tasks.INVITE)
        return written

    def change(self, sent: WriteRequest, company_id: UUID, changes: Changes) -> WriteResult:
        """The company with these changes; its pending attempts are looked at anew when they may be due otherwise.

        Of `settings` each that is named is replaced whole; `owner_email` names an owner, or with None nobody. Refused:
        InvalidTimezone, MetadataTooLarge.
        """
        rings = invites = False

        def write(stores: Stores, company_id: UUID, now: datetime) -> Company:
            nonlocal rings, invites
            before = stores.companies.lock(company_id)
            assert before is not None  # it is held
            others = {name: value for name, value in changes.items() if name not in {"settings", "owner_email"}}
            settings = _as_kept(replace(before.settings, **changes.get("settings", {})))
            after = replace(changed(before, others), settings=settings, updated_at=now)
            stores.companies.save(after)
            rings = _decides_otherwise(before.settings, settings)
            if rings:
                stores.reresolutions.ask(company_id, None, now)
            invites = "owner_email" in changes
            return name_owner(stores, after, changes["owner_email"], now) if invites else after

        written = self._writes.once(sent, the_company(sent.principal, company_id), write)
        if rings:
            self._hints.send(tasks.RERESOLVE)
        if invites:
            self._hints.send(tasks.INVITE)
        return written

    def delete(self, sent: WriteRequest, company_id: UUID) -> WriteResult:
        """From the commit on nobody is called for it and nothing of it can be read; a worker erases it (`Erase`)."""

        def write(stores: Stores, company_id: UUID, now: datetime) -> None:
            if not stores.companies.lock_to_delete(company_id):
                raise AccessDenied
            stores.companies.delete(company_id, now)
            stores.erasures.ask(company_id, now)

        written = self._writes.once(sent, _also_once_it_is_deleted(sent.principal, company_id), write)
        self._hints.send(tasks.ERASE, [company_id])
        return written


def _also_once_it_is_deleted(principal: Principal, company_id: UUID) -> Callable[[Stores], UUID]:
    """Like `the_company`; and whose company it was may be told again that it is deleted."""

    def reached(stores: Stores) -> UUID:
        if stores.erasures.was_reached(principal, company_id):
            return company_id
        return the_company(principal, company_id)(stores)

    return reached


def add_company(stores: Stores, new: NewCompany, ats_principal_id: UUID | None, now: datetime) -> Company:
    """A company made of what a request says; `ats_principal_id` None: an operator's. Raises InvalidTimezone."""
    company = Company(
        id=uuid4(),
        name=new.name,
        settings=_as_kept(new.settings),
        profile=new.profile,
        metadata=new.metadata,
        ats_principal_id=ats_principal_id,
        created_at=now,
        updated_at=now,
    )
    stores.companies.add(company)
    return company


def _as_kept(settings: CompanySettings) -> CompanySettings:
    """With the zone in its one spelling. Raises InvalidTimezone."""
    zone = settings.timezone
    return settings if zone is None else replace(settings, timezone=callee_zones.check_zone(zone))


def _decides_otherwise(before: CompanySettings, after: CompanySettings) -> bool:
    """Whether somebody may now be called at other times, or not at all."""
    return (before.intervals, before.timezone, before.allowed_countries) != (
        after.intervals,
        after.timezone,
        after.allowed_countries,
    )

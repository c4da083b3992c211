"""Companies: the rows that every claim locks and checks, and the settings that decide when candidates are called."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, any_, bindparam, func, select, text, update

from scheduler.domain.company import CallLimits, Company, LimitCeiling
from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.refusals import Refused
from scheduler.domain.resource import Listed, Slice
from scheduler.logs import log
from scheduler.persistence import events
from scheduler.persistence.connection import Fixed, among, among_given
from scheduler.persistence.json_columns import settings_as_json, settings_of
from scheduler.persistence.owners import email_of_owner_or_invited
from scheduler.persistence.rows import AnyRow, as_columns, from_row
from scheduler.persistence.store import Store
from scheduler.persistence.tables import attempts, companies

_log = log(__name__)


_WITH_OWNER = select(companies, email_of_owner_or_invited(companies.c.id).label("owner_email"))
_GET = Fixed(
    _WITH_OWNER.add_columns(events.has_reader(companies.c.id)).where(
        companies.c.id == bindparam("id"), companies.c.deleted_at.is_(None)
    )
)
_OF_ATTEMPTS = select(attempts.c.company_id).where(among_given(attempts.c.id, "attempt_ids")).distinct()
_LOCK_FOR_CLAIM = Fixed(
    select(companies)
    .where(
        companies.c.id == any_(func.array(_OF_ATTEMPTS.scalar_subquery())),
        companies.c.deleted_at.is_(None),  # guard: company_deleted
        companies.c.paused_at.is_(None),  # guard: company_paused
    )
    .order_by(companies.c.id)
    # Do not wait: the claim holds the account's row, which every claim needs.
    .with_for_update(key_share=True, skip_locked=True)
)


# A transaction that locks a row writes its id into the row, and holds the lock on that id until it ends.
_LOCK_HOLDER = text("""
    SELECT l.pid FROM companies c JOIN pg_locks l ON l.locktype = 'transactionid' AND l.transactionid = c.xmax
    WHERE c.id = :id AND l.granted
""")


class Companies(Store):
    def add(self, company: Company) -> None:
        self._insert(
            companies,
            id=company.id,
            ats_principal_id=company.ats_principal_id,
            created_at=company.created_at,
            next_slot_at=company.created_at,
            **_changeable(company),
        )

    def get(self, company_id: UUID) -> Company | None:
        """Find the company, unless it was deleted."""
        return self._one(self._read, _GET, {"id": company_id})

    def _read(self, row: AnyRow) -> Company:
        events.keep_reader(self._connection, row.id, row)
        return _with_owner(row)

    def first(self) -> Company | None:
        """Find the oldest company, with which a development installation was seeded."""
        query = select(companies).where(companies.c.deleted_at.is_(None)).order_by(companies.c.created_at).limit(1)
        return self._one(_company, query)

    def lock_for_claim(self, attempt_ids: Sequence[UUID]) -> Mapping[UUID, tuple[Company, datetime]]:
        """Lock the companies of these attempts that may place calls, in the order of their ids, with their next slots.

        No other transaction may pause, delete or claim for them until we commit. A company that another transaction has
        locked, or whose settings another version wrote and cannot be read, is left out and does not stop the calls of
        the others.
        """
        locked = {}
        for row in self._connection.execute(_LOCK_FOR_CLAIM, {"attempt_ids": list(attempt_ids)}):
            try:
                locked[row.id] = (_company(row), row.next_slot_at)
            except (Refused, LookupError, TypeError, ValueError):
                _log.exception(
                    "settings_unreadable: the company's settings could not be read; nothing was claimed for it",
                    alarm="SETTINGS",
                    company_id=str(row.id),
                )
        return locked

    def lock_holder(self, company_id: UUID) -> int | None:
        """Find the process id of the database session that has locked the row. None if several have, or none."""
        pid: int | None = self._connection.execute(_LOCK_HOLDER, {"id": company_id}).scalar_one_or_none()
        return pid

    def pause(self, company_id: UUID, reason: str, now: datetime) -> bool:
        """Stop claims for the company once committed. False: an existing pause keeps its original reason."""
        is_open = (companies.c.id == company_id, companies.c.paused_at.is_(None))
        return self._update(companies, *is_open, paused_at=now, pause_reason=reason, updated_at=now) > 0

    def pause_of(self, company_id: UUID) -> tuple[str, datetime] | None:
        """Read the reason and the time of the company's pause. None: it is not paused, or deleted."""
        return self._one(
            lambda row: (row.pause_reason, row.paused_at),
            select(companies.c.pause_reason, companies.c.paused_at).where(
                companies.c.id == company_id, companies.c.paused_at.is_not(None), companies.c.deleted_at.is_(None)
            ),
        )

    def ids(self) -> Sequence[UUID]:
        """List the ids of all companies that are not deleted."""
        query = select(companies.c.id).where(companies.c.deleted_at.is_(None)).order_by(companies.c.id)
        return list(self._connection.execute(query).scalars())

    def paused(self) -> Mapping[UUID, str]:
        """List the paused companies with the reason of each pause."""
        rows = self._connection.execute(
            select(companies.c.id, companies.c.pause_reason)
            .where(companies.c.paused_at.is_not(None), companies.c.deleted_at.is_(None))
            .order_by(companies.c.id)
        )
        return {row.id: row.pause_reason for row in rows}

    def resume(self, company_id: UUID, now: datetime) -> None:
        self._connection.execute(
            update(companies)
            .where(companies.c.id == company_id, companies.c.paused_at.is_not(None))
            .values(paused_at=None, pause_reason=None, resumed_at=now, updated_at=now)
        )

    def lock(self, company_id: UUID) -> Company | None:
        """Lock the company, unless it was deleted: no claim for it happens until we commit."""
        self._connection.execute(
            select(companies.c.id).where(companies.c.id == company_id).with_for_update(key_share=True)
        )
        # Read in a second statement: the first one would see the owner as of before its wait.
        return self.get(company_id)

    def limits_of(self, company_id: UUID) -> tuple[CallLimits, LimitCeiling]:
        """Read the limits of a company that exists, and its own ceiling."""
        columns = (companies.c[name] for name in (*_LIMITS, *_CEILING))
        row = self._connection.execute(select(*columns).where(companies.c.id == company_id)).one()
        places, pace = row.concurrent_calls_ceiling, row.calls_per_second_ceiling
        return (
            CallLimits(concurrent_calls=row.concurrent_calls, calls_per_second=float(row.calls_per_second)),
            LimitCeiling(concurrent_calls=places, calls_per_second=None if pace is None else float(pace)),
        )

    def limit(self, company_id: UUID, ceiling: LimitCeiling, limits: CallLimits, now: datetime) -> None:
        """Write the ceiling and the limits of a company that the caller has locked."""
        ceilings = {f"{name}_ceiling": value for name, value in as_columns(ceiling).items()}
        self._update(companies, companies.c.id == company_id, **ceilings, **as_columns(limits), updated_at=now)

    def lock_row(self, company_id: UUID) -> bool:
        """Lock the company like `lock`, without reading it: operators may not read all of it. False: it is deleted."""
        return self._is_any(_present(company_id).with_for_update(key_share=True))

    def hold(self, company_id: UUID) -> bool:
        """Block the company's deletion until we commit, but not claims or changes. False: it is deleted."""
        return self._is_any(_present(company_id).with_for_update(read=True, key_share=True))

    def hold_all(self, company_ids: Collection[UUID]) -> Sequence[UUID]:
        """Hold companies like `hold`, in the order of their ids. Return the companies that are not deleted."""
        query = select(companies.c.id).where(among(companies.c.id, list(company_ids)), companies.c.deleted_at.is_(None))
        held = query.order_by(companies.c.id).with_for_update(read=True, key_share=True)
        return self._connection.execute(held).scalars()

    def lock_to_delete(self, company_id: UUID) -> bool:
        """Wait for all transactions of the company and block new ones until we commit. False: it is deleted."""
        return self._is_any(_present(company_id).with_for_update())

    def count_up_to(self, maximum: int) -> int:
        """Count the companies that were not deleted; `maximum` means that many or more."""
        return self._count_up_to(maximum, select(companies.c.id).where(companies.c.deleted_at.is_(None)))

    def is_there(self, company_id: UUID) -> bool:
        """Return True if the company exists and was not deleted."""
        return self._is_any(_present(company_id))

    def delete(self, company_id: UUID, now: datetime) -> None:
        """End its claims and disable its keys once committed. Only after `lock_to_delete`."""
        self._update(companies, companies.c.id == company_id, deleted_at=now, updated_at=now)

    def page(self, principal: Principal, requested: Slice) -> Listed[Company]:
        """Read a page of the companies that the principal can access."""
        query = _WITH_OWNER.where(companies.c.deleted_at.is_(None), reached_by(principal))
        return self._page(_with_owner, query, companies, requested)

    def save(self, company: Company) -> None:
        """Write the mutable fields of a company that the caller has locked; `use_cases.owners` saves its owner."""
        self._update(companies, companies.c.id == company.id, **_changeable(company))


def _present(company_id: UUID) -> Select[tuple[UUID]]:
    return select(companies.c.id).where(companies.c.id == company_id, companies.c.deleted_at.is_(None))


def reached_by(principal: Principal) -> ColumnElement[bool]:
    """Match the companies of a principal: a regular key's own, or all that an ATS key has created."""
    return _reached(principal.kind, principal.company_id, principal.id)


def reached_by_given(kind: KeyKind) -> ColumnElement[bool]:
    """Match like `reached_by`. Each execution passes the values of `reaching`."""
    return _reached(kind, bindparam("own_company_id"), bindparam("ats_principal_id"))


def reaching(principal: Principal) -> Mapping[str, object]:
    """Build the values for a statement with `reached_by_given`."""
    return {"own_company_id": principal.company_id, "ats_principal_id": principal.id}


def _reached(kind: KeyKind, own_company_id: object, ats_principal_id: object) -> ColumnElement[bool]:
    if kind is KeyKind.REGULAR:
        return companies.c.id == own_company_id
    return companies.c.ats_principal_id == ats_principal_id


_LIMITS = ("concurrent_calls", "calls_per_second")
_CEILING = tuple(f"{name}_ceiling" for name in _LIMITS)


def _changeable(company: Company) -> dict[str, object]:
    return {
        "name": company.name,
        "profile": company.profile,
        "metadata": company.metadata,
        "settings": settings_as_json(company.settings),
        "updated_at": company.updated_at,
        **as_columns(company.settings.limits),
    }


def _with_owner(row: Row[tuple[object, ...]]) -> Company:
    return replace(_company(row), owner_email=row.owner_email)


def _company(row: Row[tuple[object, ...]]) -> Company:
    """Without the owner, which the dialler does not need."""
    return from_row(Company, row, settings=settings_of(row), owner_email=None)

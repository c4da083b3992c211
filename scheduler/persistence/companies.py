"""Companies: what the claim locks and asks, and what decides when their candidates may be called."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, bindparam, func, insert, select, text, update

from scheduler.domain.company import CallLimits, Company
from scheduler.domain.listing import Listed, Slice
from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.refusals import Refused
from scheduler.logs import log
from scheduler.persistence.json_forms import settings_as_json, settings_from_json
from scheduler.persistence.listing import listed
from scheduler.persistence.owners import email_of_owner_or_invited
from scheduler.persistence.tables import companies

_log = log(__name__)


_WITH_OWNER = select(companies, email_of_owner_or_invited(companies.c.id).label("owner_email"))


# Who locks a row writes its transaction id into it, and holds that id's own lock until it ends.
_LOCK_HOLDER = text("""
    SELECT l.pid FROM companies c JOIN pg_locks l ON l.locktype = 'transactionid' AND l.transactionid = c.xmax
    WHERE c.id = :id AND l.granted
""")


class Companies:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, company: Company) -> None:
        self._connection.execute(
            insert(companies).values(
                id=company.id,
                name=company.name,
                settings=settings_as_json(company.settings),
                profile=company.profile,
                metadata=company.metadata,
                ats_principal_id=company.ats_principal_id,
                calls_per_second=company.settings.limits.calls_per_second,
                concurrent_calls=company.settings.limits.concurrent_calls,
                next_slot_at=company.created_at,
                created_at=company.created_at,
                updated_at=company.updated_at,
            )
        )

    def get(self, company_id: UUID) -> Company | None:
        """The company, unless it was deleted."""
        row = self._connection.execute(
            _WITH_OWNER.where(companies.c.id == company_id, companies.c.deleted_at.is_(None))
        ).one_or_none()
        return _with_owner(row) if row else None

    def first(self) -> Company | None:
        """The oldest company there is; the one that a development installation was seeded with."""
        row = self._connection.execute(
            select(companies).where(companies.c.deleted_at.is_(None)).order_by(companies.c.created_at).limit(1)
        ).one_or_none()
        return _company(row) if row else None

    def lock_for_claim(self, company_ids: Sequence[UUID]) -> Mapping[UUID, tuple[Company, datetime]]:
        """Those that may be called for, with their next slot, in the order of their ids.

        No other transaction may pause, delete or claim for them until we commit. A company that another transaction has
        locked is left out (see `locked_away`), and so is one whose settings cannot be read, because another release
        wrote them: neither stops the calls of the others.
        """
        rows = self._connection.execute(
            select(companies)
            .where(
                companies.c.id.in_(company_ids),
                companies.c.deleted_at.is_(None),  # guard: company_deleted
                companies.c.paused_at.is_(None),  # guard: company_paused
            )
            .order_by(companies.c.id)
            # Waiting would hold the account's row meanwhile, and every claim waits for that.
            .with_for_update(key_share=True, skip_locked=True)
        ).all()
        found = {}
        for row in rows:
            try:
                found[row.id] = (_company(row), row.next_slot_at)
            except (Refused, LookupError, TypeError, ValueError):
                _log.exception(
                    "settings_unreadable: the company's settings could not be read; nothing was claimed for it",
                    alarm="SETTINGS",
                    company_id=str(row.id),
                )
        return found

    def locked_away(self, company_ids: Collection[UUID]) -> frozenset[UUID]:
        """Of the companies that `lock_for_claim` left out, those that another transaction has locked."""
        if not company_ids:
            return frozenset()
        rows = self._connection.execute(
            select(companies.c.id).where(
                companies.c.id.in_(company_ids),
                companies.c.deleted_at.is_(None),
                companies.c.paused_at.is_(None),
            )
        )
        return frozenset(row.id for row in rows)

    def lock_holder(self, company_id: UUID) -> int | None:
        """The process id of the database session that has locked the row; None when several have, or none."""
        pid: int | None = self._connection.execute(_LOCK_HOLDER, {"id": company_id}).scalar()
        return pid

    def take_slots(self, next_slots: Mapping[UUID, datetime]) -> None:
        self._connection.execute(
            update(companies).where(companies.c.id == bindparam("company_id")),
            [{"company_id": each, "next_slot_at": next_slot_at} for each, next_slot_at in next_slots.items()],
        )

    def pause(self, company_id: UUID, reason: str, now: datetime) -> None:
        """From the commit on no call of it is claimed. A pause that stands keeps its first reason."""
        self._connection.execute(
            update(companies)
            .where(companies.c.id == company_id, companies.c.paused_at.is_(None))
            .values(paused_at=now, pause_reason=reason, updated_at=now)
        )

    def paused(self) -> Mapping[UUID, str]:
        """Why each company that is paused is so."""
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
        """The company, unless it was deleted; nobody claims for it until we commit."""
        self._connection.execute(
            select(companies.c.id).where(companies.c.id == company_id).with_for_update(key_share=True)
        )
        # A statement of its own: that of the lock would see the owner as of before it waited.
        return self.get(company_id)

    def hold(self, company_id: UUID) -> bool:
        """Whether it is there; if so, nobody deletes it until we commit. Others may claim for it and change it."""
        query = select(companies.c.id).where(companies.c.id == company_id, companies.c.deleted_at.is_(None))
        return self._connection.execute(query.with_for_update(read=True, key_share=True)).first() is not None

    def lock_to_delete(self, company_id: UUID) -> bool:
        """Whether it is there; nobody claims or writes for it until we commit, and whoever had begun to has ended."""
        query = select(companies.c.id).where(companies.c.id == company_id, companies.c.deleted_at.is_(None))
        return self._connection.execute(query.with_for_update()).first() is not None

    def count_up_to(self, most: int) -> int:
        """How many there are that were not deleted; `most` stands for more."""
        some = select(companies.c.id).where(companies.c.deleted_at.is_(None)).limit(most).subquery()
        count: int = self._connection.execute(select(func.count()).select_from(some)).scalar_one()
        return count

    def is_there(self, company_id: UUID) -> bool:
        """Whether it is, and was not deleted."""
        query = select(companies.c.id).where(companies.c.id == company_id, companies.c.deleted_at.is_(None))
        return self._connection.execute(query).first() is not None

    def delete(self, company_id: UUID, now: datetime) -> None:
        """From the commit on no call of it is claimed, and none of its keys is good. Only after `lock_to_delete`."""
        self._connection.execute(
            update(companies).where(companies.c.id == company_id).values(deleted_at=now, updated_at=now)
        )

    def page(self, principal: Principal, asked: Slice) -> Listed[Company]:
        """Those that the principal reaches."""
        query = _WITH_OWNER.where(companies.c.deleted_at.is_(None), reached_by(principal))
        return listed(self._connection, query, companies, asked, _with_owner)

    def save(self, company: Company) -> None:
        """What may change of a company, as it is in `company`; its owner is saved by `use_cases.owners`.

        Only for one that the caller has locked.
        """
        self._connection.execute(
            update(companies)
            .where(companies.c.id == company.id)
            .values(
                name=company.name,
                profile=company.profile,
                metadata=company.metadata,
                settings=settings_as_json(company.settings),
                calls_per_second=company.settings.limits.calls_per_second,
                concurrent_calls=company.settings.limits.concurrent_calls,
                updated_at=company.updated_at,
            )
        )


def reached_by(principal: Principal) -> ColumnElement[bool]:
    """The companies of a principal: a regular key's own, or all that an ATS key has made."""
    if principal.kind is KeyKind.REGULAR:
        return companies.c.id == principal.company_id
    return companies.c.ats_principal_id == principal.id


def _with_owner(row: Row[tuple[object, ...]]) -> Company:
    return replace(_company(row), owner_email=row.owner_email)


def _company(row: Row[tuple[object, ...]]) -> Company:
    """Without its owner, whom nobody asks for who calls."""
    limits = CallLimits(concurrent_calls=row.concurrent_calls, calls_per_second=float(row.calls_per_second))
    return Company(
        id=row.id,
        name=row.name,
        settings=settings_from_json(row.settings, limits),
        profile=row.profile,
        metadata=row.metadata,
        ats_principal_id=row.ats_principal_id,
        paused_at=row.paused_at,
        deleted_at=row.deleted_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )

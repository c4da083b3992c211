"""API keys: found by the keyed hash of their secret; the secret itself is kept nowhere."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, insert, select, update

from scheduler.domain.principal import KeyKind, Principal
from scheduler.persistence.companies import reached_by
from scheduler.persistence.tables import api_keys, companies


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key as it stands; whether it may be used is for the caller to decide."""

    principal: Principal
    expires_at: datetime | None
    suspended_at: datetime | None
    revoked_at: datetime | None
    company_deleted: bool


@dataclass(frozen=True, kw_only=True)
class NamedKey:
    id: UUID
    principal_id: UUID
    company_id: UUID | None
    """The one company of a regular key."""
    name: str


class Keys:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(
        self, principal: Principal, key_hash: bytes, name: str, per_minute: int, per_hour: int, now: datetime
    ) -> None:
        self._connection.execute(
            insert(api_keys).values(
                id=principal.key_id,
                principal_id=principal.id,
                kind=principal.kind.value,
                company_id=principal.company_id,
                name=name,
                key_hash=key_hash,
                scopes=sorted(principal.scopes),
                per_minute=per_minute,
                per_hour=per_hour,
                created_at=now,
                updated_at=now,
            )
        )

    def revoke_named(self, name: str, now: datetime) -> None:
        """No key of that name is good any more."""
        self._connection.execute(
            update(api_keys)
            .where(api_keys.c.name == name, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=now, updated_at=now)
        )

    def by_hash(self, key_hash: bytes) -> Key | None:
        row = self._connection.execute(
            select(api_keys, companies.c.deleted_at.label("company_deleted_at"))
            .outerjoin(companies, companies.c.id == api_keys.c.company_id)
            .where(api_keys.c.key_hash == key_hash)
        ).one_or_none()
        if row is None:
            return None
        return Key(
            principal=Principal(
                id=row.principal_id,
                kind=KeyKind(row.kind),
                key_id=row.id,
                scopes=frozenset(row.scopes),
                company_id=row.company_id,
            ),
            expires_at=row.expires_at,
            suspended_at=row.suspended_at,
            revoked_at=row.revoked_at,
            company_deleted=row.company_deleted_at is not None,
        )

    def named(self, ids: Iterable[UUID]) -> list[NamedKey]:
        """The keys of these ids, and those whose principal has one of them; the oldest first."""
        wanted = list(ids)
        rows = self._connection.execute(
            select(api_keys.c.id, api_keys.c.principal_id, api_keys.c.company_id, api_keys.c.name)
            .where(api_keys.c.id.in_(wanted) | api_keys.c.principal_id.in_(wanted))
            .order_by(api_keys.c.created_at, api_keys.c.id)
        )
        return [
            NamedKey(id=row.id, principal_id=row.principal_id, company_id=row.company_id, name=row.name) for row in rows
        ]

    def reach(self, principal: Principal, company_ids: Iterable[UUID]) -> frozenset[UUID]:
        """Those of the companies that this principal reaches and that are not deleted; asked in SQL, from the key."""
        rows = self._connection.execute(
            select(companies.c.id).where(
                companies.c.id.in_(list(company_ids)), companies.c.deleted_at.is_(None), reached_by(principal)
            )
        )
        return frozenset(row.id for row in rows)

"""API keys, found by the keyed hash of their secret. The secret itself is not stored."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Row, bindparam, or_, select, text

from scheduler.domain.principal import Key, KeyKind, Principal
from scheduler.persistence.companies import reached_by_given, reaching
from scheduler.persistence.connection import Fixed, among
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import Store
from scheduler.persistence.tables import api_keys, companies

USED_EVERY = timedelta(minutes=1)
"""The shortest interval between two writes of `last_used_at`."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A key that was found by its secret or id. The caller decides if it may be used."""

    key: Key
    company_deleted: bool


@dataclass(frozen=True, kw_only=True)
class NamedKey:
    id: UUID
    principal_id: UUID
    name: str


@dataclass(frozen=True, kw_only=True)
class ListedKey:
    """A key in a list for operators."""

    key: Key
    company_name: str | None
    """None for the key of an ATS."""
    company_deleted: bool
    """The company of the key was deleted, so the key grants nothing."""


class Keys(Store):
    def add(self, key: Key, key_hash: bytes) -> None:
        principal = key.principal
        of_principal = as_columns(principal, without={"id", "key_id"}, id=principal.key_id, principal_id=principal.id)
        columns = as_columns(key, without={"principal"}, key_hash=key_hash, updated_at=key.created_at)
        self._insert(api_keys, **of_principal | columns | {"scopes": sorted(principal.scopes)})

    def lock(self, key_id: UUID) -> Key | None:
        """Lock the key. A revoked key may be returned without a lock: it never changes again."""
        query = _SELECT.where(api_keys.c.id == key_id)
        locked = self._one(_key, query.with_for_update(key_share=True))
        # The operators' role may change only keys that are not revoked, so PostgreSQL does not lock others for it.
        return locked or self._one(_key, query.where(api_keys.c.revoked_at.is_not(None)))

    def lock_of_principal(self, principal_id: UUID) -> Sequence[Key]:
        """Lock a principal's key and its rotations, oldest first."""
        query = _OLDEST_FIRST.where(api_keys.c.principal_id == principal_id).with_for_update(key_share=True)
        return self._all(_key, query)

    def all(self, company_id: UUID | None) -> Sequence[Key]:
        """List every key, or the keys of one company, oldest first."""
        query = _OLDEST_FIRST if company_id is None else _OLDEST_FIRST.where(api_keys.c.company_id == company_id)
        return self._all(_key, query)

    def newest(self, company_id: UUID | None, before: UUID | None, limit: int) -> Sequence[ListedKey]:
        """List keys of one company, or of all, newest first. `before`: only those older than this key.

        The ids of keys are in the order of their creation.
        """
        query = _LISTED.order_by(api_keys.c.id.desc()).limit(limit)
        if company_id is not None:
            query = query.where(api_keys.c.company_id == company_id)
        if before is not None:
            query = query.where(api_keys.c.id < before)
        return self._all(_listed, query)

    def listed(self, key_id: UUID) -> ListedKey | None:
        return self._one(_listed, _LISTED.where(api_keys.c.id == key_id))

    def of_principal(self, principal_id: UUID) -> Sequence[Key]:
        """List a principal's key and its rotations, oldest first."""
        return self._all(_key, _OLDEST_FIRST.where(api_keys.c.principal_id == principal_id))

    def suspend(self, key_id: UUID, reason: str | None, now: datetime) -> None:
        self._change(key_id, now, suspended_at=now, suspend_reason=reason)

    def resume(self, key_id: UUID, now: datetime) -> None:
        self._change(key_id, now, suspended_at=None, suspend_reason=None)

    def revoke(self, key_id: UUID, now: datetime) -> None:
        self._change(key_id, now, revoked_at=now)

    def _change(self, key_id: UUID, now: datetime, **values: object) -> None:
        self._update(api_keys, api_keys.c.id == key_id, updated_at=now, **values)

    def revoke_named(self, name: str, now: datetime) -> Sequence[Key]:
        """Revoke all keys of that name. Return the keys that were not revoked, as they were."""
        query = _SELECT.where(api_keys.c.name == name, api_keys.c.revoked_at.is_(None))
        found = self._all(_key, query.with_for_update(key_share=True))
        self._update(
            api_keys, among(api_keys.c.id, [each.principal.key_id for each in found]), revoked_at=now, updated_at=now
        )
        return found

    def used(self, key_id: UUID, now: datetime) -> None:
        """Update `last_used_at`, at most once a minute, and not while another transaction has locked the key."""
        last = api_keys.c.last_used_at
        outdated = (
            select(api_keys.c.id)
            .where(api_keys.c.id == key_id, or_(last.is_(None), last <= now - USED_EVERY, last > now))
            .with_for_update(key_share=True, skip_locked=True)
        )
        self._update(api_keys, api_keys.c.id == outdated.scalar_subquery(), last_used_at=now)

    def by_hash(self, key_hash: bytes) -> Found | None:
        """Find the key of a hash. PostgreSQL lets a request without a principal read nothing else of keys."""
        return self._one(_found, _BY_HASH, {"hash": key_hash})

    def by_id(self, key_id: UUID) -> Found | None:
        query = (
            _SELECT.add_columns(companies.c.deleted_at.is_not(None).label("company_deleted"))
            .outerjoin_from(api_keys, companies, companies.c.id == api_keys.c.company_id)
            .where(api_keys.c.id == key_id)
        )
        return self._one(_found, query)

    def named(self, ids: Iterable[UUID], company_id: UUID, reader: Principal | None) -> list[NamedKey]:
        """Find the keys whose own id or whose principal's id is one of these, oldest first.

        A reader sees the keys of this company and of their own principal, but no other key, such as that of the ATS
        that created the company. `reader` is None for operators, who see every key.
        """
        either = list(ids)
        query = (
            select(api_keys.c.id, api_keys.c.principal_id, api_keys.c.name)
            .where(api_keys.c.id.in_(either) | api_keys.c.principal_id.in_(either))
            .order_by(api_keys.c.created_at, api_keys.c.id)
        )
        if reader is not None:
            query = query.where((api_keys.c.principal_id == reader.id) | (api_keys.c.company_id == company_id))
        return self._all(partial(from_row, NamedKey), query)

    def reach(self, principal: Principal, company_id: UUID, *, is_held: bool = False) -> bool:
        """Return True if this principal can access the company and it is not deleted.

        `is_held`: like `Companies.hold`, block its deletion until we commit.
        """
        values = {"company_id": company_id, **reaching(principal)}
        return self._is_any(_REACH[principal.kind, is_held], values)


_SELECT = select(*(column for column in api_keys.c if column.name != "key_hash"))
_OLDEST_FIRST = _SELECT.order_by(api_keys.c.created_at, api_keys.c.id)
_LISTED = _SELECT.add_columns(
    companies.c.name.label("company_name"), companies.c.deleted_at.is_not(None).label("company_deleted")
).outerjoin_from(api_keys, companies, companies.c.id == api_keys.c.company_id)
_BY_HASH = text("SELECT (found.key).*, found.company_deleted FROM key_of_hash(:hash) AS found")


def _reach(kind: KeyKind, *, is_held: bool) -> Fixed:
    query = select(companies.c.id).where(
        companies.c.id == bindparam("company_id"), companies.c.deleted_at.is_(None), reached_by_given(kind)
    )
    return Fixed(query.with_for_update(read=True, key_share=True) if is_held else query)


# Built once: each command that is accepted executes one of them.
_REACH = {(kind, is_held): _reach(kind, is_held=is_held) for kind in KeyKind for is_held in (False, True)}


def _key(row: Row[Any]) -> Key:
    principal = from_row(Principal, row, id=row.principal_id, key_id=row.id, scopes=frozenset(row.scopes))
    return from_row(Key, row, principal=principal)


def _found(row: Row[Any]) -> Found:
    return from_row(Found, row, key=_key(row))


def _listed(row: Row[Any]) -> ListedKey:
    return from_row(ListedKey, row, key=_key(row))

"""The audit: entries are added in the transaction of their act, and never changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select

from scheduler.domain.audit import Act, AuditEntry, as_stored
from scheduler.persistence.connection import Connection
from scheduler.persistence.many import among, insert_all
from scheduler.persistence.rows import from_row
from scheduler.persistence.store import Store, Write
from scheduler.persistence.tables import audit, sign_in_links


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    """Conditions that entries must meet. None matches all."""

    since: datetime | None = None
    actor: str | None = None
    company_id: UUID | None = None
    target_kind: str | None = None
    target_id: str | None = None
    verb: str | None = None
    concerns: UUID | None = None
    """Id of the target or of the company."""


def _add(connection: Connection, batches: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    # Not by SQLAlchemy's insert: it asks for the new ids, and the API may not read any column.
    insert_all(connection, audit, [row for rows in batches for row in rows])


_ADD = Write(execute=_add, turn=8)


class Audit(Store):
    def add(self, actor: str, acts: Sequence[Act], now: datetime, *, trace_id: str | None = None) -> None:
        """Add entries for acts of this transaction."""
        rows = [
            {
                "at": now,
                "actor": actor,
                "verb": act.verb.value,
                "target_kind": act.target_kind.value,
                "target_id": None if act.target_id is None else str(act.target_id),
                "company_id": act.company_id,
                "reason": act.reason,
                "before": as_stored(act.before),
                "after": as_stored(act.after),
                "trace_id": trace_id,
            }
            for act in acts
        ]
        if rows:
            self._connection.write(_ADD, object(), rows)

    def newest(self, wanted: AuditFilter, before: int | None, limit: int) -> Sequence[AuditEntry]:
        """Return entries, newest first. `before`: only those older than this entry."""
        query = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.id < before)
        if wanted.since is not None:
            query = query.where(audit.c.at >= wanted.since)
        for column, value in (
            (audit.c.actor, wanted.actor),
            (audit.c.company_id, wanted.company_id),
            (audit.c.target_kind, wanted.target_kind),
            (audit.c.target_id, wanted.target_id),
            (audit.c.verb, wanted.verb),
        ):
            if value is not None:
                query = query.where(column == value)
        if wanted.concerns is not None:
            is_target = audit.c.target_id == str(wanted.concerns)
            query = query.where(or_(is_target, audit.c.company_id == wanted.concerns))
        return self._readable(audit, partial(from_row, AuditEntry), query)

    def link_creators(self, link_ids: Sequence[UUID]) -> Mapping[UUID, str]:
        """Return the actors who created these links."""
        query = select(sign_in_links.c.id, sign_in_links.c.created_by).where(among(sign_in_links.c.id, link_ids))
        return {row.id: row.created_by for row in self._connection.execute(query)}

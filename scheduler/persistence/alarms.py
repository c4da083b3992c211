"""Alarms that are kept until an operator acknowledges them, and the audit of acts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import Select, func, or_, select, text, tuple_, update

from scheduler.domain.alarm import KeptAlarm, RaisedAlarm
from scheduler.domain.principal import Act, AuditEntry, as_stored
from scheduler.ids import new_id
from scheduler.persistence.connection import Connection, Fixed, among, as_json, given_instant, insert_all
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import Store, Write
from scheduler.persistence.tables import alarms, audit, console_acts, console_sessions, sign_in_links
from scheduler.persistence.tallies import entry_of
from scheduler.rules.operators import latest_try
from scheduler.rules.tallies import of_alarms

_RAISE = text("""
    WITH counted AS (INSERT INTO tally_entries (entries) VALUES (CAST(:counts AS jsonb)))
    SELECT raise_alarms(CAST(:raised AS jsonb))
""")
"""For every role: only workers and operators may read alarms. One statement, which also counts them."""
_IS_OPEN = alarms.c.acknowledged_at.is_(None)
# A later instant than the latest possible one was written by a wrong clock.
_IS_TO_BE_POSTED = or_(
    alarms.c.post_at <= given_instant("now"),
    alarms.c.post_at > given_instant("latest_try"),  # guard: impossible_post
)
_IS_ONE_TO_POST = Fixed(select(alarms.c.id).where(_IS_TO_BE_POSTED).limit(1))
_TAKE_TO_POST = Fixed(
    update(alarms)
    .where(
        alarms.c.id
        == select(alarms.c.id)
        .where(_IS_TO_BE_POSTED)
        .order_by(alarms.c.post_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    .values(post_at=given_instant("hold_until"), tries=alarms.c.tries + 1)
    .returning(*alarms.c)
)
_COUNT_OPEN = Fixed(
    select(alarms.c.kind, func.count().label("count")).where(_IS_OPEN).group_by(alarms.c.kind).order_by(alarms.c.kind)
)
_kept = partial(from_row, KeptAlarm)
AlarmPlace: TypeAlias = tuple[datetime, UUID]
"""The place of an open alarm in the list: when it was last seen, and its id."""


def _matching(kind: str | None, company_id: UUID | None) -> Select[tuple[Any, ...]]:
    query = select(alarms) if kind is None else select(alarms).where(alarms.c.kind == kind)
    if company_id is None:
        return query
    return query.where(alarms.c.subjects["company_id"].astext == str(company_id))


def _open_of(alarm_id: UUID | None, kind: str | None, until: AlarmPlace | None = None) -> Select[tuple[Any, ...]]:
    is_wanted = alarms.c.kind == kind if alarm_id is None else alarms.c.id == alarm_id
    query = select(alarms).where(_IS_OPEN, is_wanted).order_by(alarms.c.id)
    if until is None:
        return query
    # Both: an alarm that waited for the database is stored later than it occurred.
    return query.where(alarms.c.last_seen_at <= until[0], alarms.c.id <= until[1])


class Alarms(Store):
    def raise_all(self, raised: Sequence[RaisedAlarm], now: datetime) -> None:
        """Store and count alarms, each key once. An open alarm of the same key only gets a higher count."""
        rows = [
            as_columns(each, without={"key"}, id=new_id(now), kind=each.key.kind, subjects=dict(each.key.subjects))
            for each in raised
        ]
        self._connection.execute(_RAISE, {"raised": as_json(rows), "counts": entry_of(of_alarms(raised).items())})

    def open(
        self, limit: int, kind: str | None = None, after: AlarmPlace | None = None, company_id: UUID | None = None
    ) -> Sequence[KeptAlarm]:
        """List open alarms, the last seen first. `after`: only alarms after this place."""
        query = _matching(kind, company_id).where(_IS_OPEN)
        query = query.order_by(alarms.c.last_seen_at.desc(), alarms.c.id.desc()).limit(limit)
        if after is not None:
            query = query.where(tuple_(alarms.c.last_seen_at, alarms.c.id) < tuple_(*after))
        return self._all(_kept, query)

    def newest(
        self,
        limit: int,
        kind: str | None = None,
        before: UUID | None = None,
        company_id: UUID | None = None,
        *,
        acknowledged: bool = False,
    ) -> Sequence[KeptAlarm]:
        """List alarms, newest first. `acknowledged`: only those. `before`: only those older than this alarm."""
        query = _matching(kind, company_id).order_by(alarms.c.id.desc()).limit(limit)
        if acknowledged:
            query = query.where(~_IS_OPEN)
        if before is not None:
            query = query.where(alarms.c.id < before)
        return self._all(_kept, query)

    def find_open(self, alarm_id: UUID | None, kind: str | None) -> Sequence[KeptAlarm]:
        """Find the open alarm of this id, or all of this kind."""
        return self._all(_kept, _open_of(alarm_id, kind))

    def lock_open(
        self, alarm_id: UUID | None, kind: str | None, until: AlarmPlace | None = None
    ) -> Sequence[KeptAlarm]:
        """Lock the open alarm of this id, or all of this kind.

        `until`: only alarms that were not seen after this time, and are not newer than the alarm of this id.
        """
        return self._all(_kept, _open_of(alarm_id, kind, until).with_for_update())

    def acknowledge(self, ids: Sequence[UUID], actor: str, note: str | None, now: datetime) -> None:
        """Close alarms that the caller has locked. They are no longer posted."""
        self._update(
            alarms, among(alarms.c.id, ids), acknowledged_at=now, acknowledged_by=actor, note=note, post_at=None
        )

    def count_open(self) -> Mapping[str, int]:
        """Count the open alarms by kind, from the index alone."""
        return {row.kind: row.count for row in self._connection.execute(_COUNT_OPEN)}

    def is_one_to_post(self, now: datetime) -> bool:
        return self._is_any(_IS_ONE_TO_POST, {"now": now, "latest_try": latest_try(now)})

    def take_to_post(self, now: datetime, hold_until: datetime) -> KeptAlarm | None:
        """Take an alarm that is due to be posted. No other process posts it until `hold_until`."""
        values = {"now": now, "latest_try": latest_try(now), "hold_until": hold_until}
        return self._one(_kept, _TAKE_TO_POST, values)

    def posted(self, alarm_id: UUID, now: datetime) -> None:
        self._update(alarms, alarms.c.id == alarm_id, posted_at=now, post_at=None)

    def not_posted(self, alarm_id: UUID, again_at: datetime | None) -> None:
        """Post it again at this time, unless it was acknowledged meanwhile. None: give up."""
        self._update(alarms, alarms.c.id == alarm_id, alarms.c.post_at.is_not(None), post_at=again_at)

    def forget(self, before: datetime, limit: int) -> int:
        """Delete alarms that were acknowledged before then. Return their number. Open alarms stay, however old."""
        old = select(alarms.c.id).where(alarms.c.acknowledged_at < before).limit(limit)
        return self._delete_free(alarms.c.id, old)


# --- The audit: entries are added in the transaction of their act, and never changed


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
            as_columns(
                act, at=now, actor=actor, before=as_stored(act.before), after=as_stored(act.after), trace_id=trace_id
            )
            for act in acts
        ]
        if rows:
            self._connection.write(_ADD, object(), rows)

    def newest(self, wanted: AuditFilter, before: int | None, limit: int) -> Sequence[AuditEntry]:
        """List entries, newest first. `before`: only those older than this entry."""
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
        """Find the actors who created these links."""
        query = select(sign_in_links.c.id, sign_in_links.c.created_by).where(among(sign_in_links.c.id, link_ids))
        return {row.id: row.created_by for row in self._connection.execute(query)}

    def forget_sessions(self, before: datetime, limit: int) -> int:
        """Delete sessions, unused links and tokens of forms of before then. Returns the number of the largest kind.

        An entry names the actor of a used link by its id, so only the link tells who created it.
        """
        deleted = []
        for key, ended_at in (
            (console_sessions.c.id, console_sessions.c.expires_at),
            (sign_in_links.c.id, sign_in_links.c.expires_at),
            (console_acts.c.token, console_acts.c.sent_at),
        ):
            old = select(key).where(ended_at < before).order_by(ended_at).limit(limit)
            if key.table is sign_in_links:
                old = old.where(sign_in_links.c.used_at.is_(None))
            deleted.append(self._delete(key.table, key.in_(old)))
        return max(deleted)

"""Quarantine, and the redelivery of hints for what is not applied yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, ClassVar, TypeAlias
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Integer,
    Table,
    and_,
    any_,
    bindparam,
    case,
    func,
    or_,
    select,
    text,
    update,
)

from scheduler.lifecycle.policy import QUARANTINED_AFTER, latest_written
from scheduler.persistence.connection import Fixed, given_instant
from scheduler.persistence.rows import from_row
from scheduler.persistence.store import Store

# --- Redelivery: the time at which the hint for a command, a callback or an erasure is sent again


_MAX_INTERVAL = timedelta(seconds=8)


def has_waited(table: Table) -> ColumnElement[bool]:
    """Match rows whose last hint is older than `:rung_before`, and whose wait since then equals the wait before it.

    So hints are sent after 2, 4, 8 s, then every 8 s. Hints every 2 s would give workers with a backlog ever more
    messages, and they would never catch up.
    """
    rung_at, received_at = table.c.rung_at, table.c.received_at
    waited = and_(
        rung_at <= given_instant("rung_before"),
        or_(
            rung_at + (rung_at - received_at) <= given_instant("now"),
            rung_at <= given_instant("rung_long_before"),
        ),
    )
    return or_(
        waited,
        is_from_the_future(table),  # guard: rung_in_future
    )


def is_from_the_future(table: Table) -> ColumnElement[bool]:
    """Match rows whose last hint has an instant from a wrong clock. It counts as not sent."""
    return table.c.rung_at > given_instant("latest")


def taking(ids: Column[Any], is_due: ColumnElement[bool], *, in_order_of: Column[Any] | None = None) -> Fixed:
    """Build the statement of `HintedStore.due_hints` for the rows that match `is_due`."""
    rows = ids.table
    due = (
        select(ids)
        .where(is_due)
        .order_by(rows.c.rung_at)
        .limit(bindparam("limit", type_=Integer))
        .with_for_update(skip_locked=True)
    )
    order = rows.c.rung_at if in_order_of is None else in_order_of
    return Fixed(
        update(rows)
        .where(ids == any_(func.array(due.scalar_subquery())))
        .values(rung_at=given_instant("now"))
        .returning(ids.label("id"), order.label("position"))
    )


def instants(rung_before: datetime, now: datetime) -> dict[str, datetime]:
    """Build the values of `has_waited` and `is_from_the_future`."""
    return {
        "rung_before": rung_before,
        "now": now,
        "rung_long_before": now - _MAX_INTERVAL,
        "latest": latest_written(now),
    }


class HintedStore(Store):
    """The base of the stores whose rows are announced by hints."""

    _due: ClassVar[Fixed]
    """The statement that takes rows whose hints are due, by `taking`."""

    def due_hints(self, rung_before: datetime, now: datetime, limit: int) -> list[UUID]:
        """Take the ids of up to `limit` rows whose hints are due, and record these hints as sent now.

        The hints that were sent first come first. Rows that another clock is taking are skipped.
        """
        taken = self._connection.execute(self._due, {**instants(rung_before, now), "limit": limit})
        return [row.id for row in sorted(taken, key=lambda row: row.position)]


# --- Quarantine: commands and callbacks that failed five times, with the place of the error and without their bodies


class WorkStore(HintedStore):
    """The base of the stores of commands and callbacks."""

    _done_at: ClassVar[Column[Any]]
    """Set once a row was processed."""

    def count_failure(self, row_id: UUID, failed_with: str, now: datetime) -> bool:
        """Count an unexpected failure of an open row, with its place. True if the row is now in quarantine."""
        rows = self._done_at.table
        failures = rows.c.failures + 1
        row = self._connection.execute(
            update(rows)
            .where(rows.c.id == row_id, self._done_at.is_(None))
            .values(
                failures=failures,
                first_failed_at=func.coalesce(rows.c.first_failed_at, now),
                failed_with=failed_with,
                quarantined_at=case((failures >= QUARANTINED_AFTER, now)),
            )
            .returning(rows.c.quarantined_at)
        ).one_or_none()
        return row is not None and row.quarantined_at is not None

    def requeue(self, row_id: UUID) -> None:
        """Take a row out of quarantine, as if its hint was only sent when it was received."""
        rows = self._done_at.table
        new = {"quarantined_at": None, "failures": 0, "first_failed_at": None, "failed_with": None}
        self._update(rows, rows.c.id == row_id, **new, rung_at=rows.c.received_at)


class QuarantineKind(StrEnum):
    COMMAND = "command"
    CALLBACK = "callback"


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A command or a callback in quarantine."""

    id: UUID
    kind: QuarantineKind
    command: str | None
    """The kind of a command."""
    company_id: UUID | None
    interview_id: UUID | None
    attempt_id: UUID | None
    """None if a command names none, and after the attempt of a callback was erased."""
    received_at: datetime
    first_failed_at: datetime | None
    """None for a failure that a process of the previous version has counted."""
    quarantined_at: datetime
    """The time of the last failure."""
    failed_with: str | None
    """The type of the last error, and the line that raised it."""
    failures: int
    blocked: int
    """Later commands of the interview, which wait for a decision about this one. A callback blocks none."""


QuarantinePlace: TypeAlias = tuple[datetime, UUID]
"""The place of an item in the list: when it was received, and its id."""


class Quarantine(Store):
    def page(
        self,
        kind: QuarantineKind | None,
        after: QuarantinePlace | None,
        limit: int | None,
        company_id: UUID | None = None,
    ) -> Sequence[Quarantined]:
        """List up to `limit` items in quarantine, oldest first, after this place. None: no limit, all companies."""
        received_at, after_id = after or (None, None)
        values = {
            "kind": kind and kind.value,
            "received_at": received_at,
            "after": after_id,
            "limit": limit,
            "company": company_id,
        }
        return self._all(_quarantined, _PAGE, values)

    def find(self, quarantined_id: UUID) -> Quarantined | None:
        return self._one(_quarantined, _FIND, {"id": quarantined_id})

    def lock(self, quarantined_id: UUID) -> Quarantined | None:
        """Lock a command or a callback if it is in quarantine, and return it."""
        # In a second statement: the lists are unions, which cannot be locked.
        for each in (_LOCK_COMMAND, _LOCK_CALLBACK):
            if self._is_any(each, {"id": quarantined_id}):
                return self.find(quarantined_id)
        return None


_quarantined = partial(from_row, Quarantined)
_COMMANDS = """
    SELECT i.id, 'command' AS kind, i.kind AS command, i.company_id, i.interview_id,
           quarantined_attempt(i.id) AS attempt_id,
           i.received_at, i.first_failed_at, i.quarantined_at, i.failed_with, i.failures,
           (SELECT count(*) FROM inbox later
            WHERE later.interview_id = i.interview_id AND later.seq > i.seq AND later.applied_at IS NULL) AS blocked
    FROM inbox i
    WHERE i.applied_at IS NULL AND i.quarantined_at IS NOT NULL
"""
_CALLBACKS = """
    SELECT e.id, 'callback' AS kind, CAST(NULL AS text) AS command, a.company_id, a.interview_id, a.id AS attempt_id,
           e.received_at, e.first_failed_at, e.quarantined_at, e.failed_with, e.failures, CAST(0 AS bigint) AS blocked
    FROM carrier_events e
    LEFT JOIN attempts a ON a.id = quarantined_call(e.id)
    WHERE e.heard_at IS NULL AND e.quarantined_at IS NOT NULL
"""
_FIND = text(f"{_COMMANDS} AND i.id = :id UNION ALL {_CALLBACKS} AND e.id = :id")
_PAGE = text(f"""
    {_COMMANDS}
      AND CAST(:kind AS text) IS DISTINCT FROM 'callback'
      AND (CAST(:company AS uuid) IS NULL OR i.company_id = :company)
      AND (CAST(:received_at AS timestamptz) IS NULL OR (i.received_at, i.id) > (:received_at, CAST(:after AS uuid)))
    UNION ALL {_CALLBACKS}
      AND CAST(:kind AS text) IS DISTINCT FROM 'command'
      AND (CAST(:company AS uuid) IS NULL OR a.company_id = :company)
      AND (CAST(:received_at AS timestamptz) IS NULL OR (e.received_at, e.id) > (:received_at, CAST(:after AS uuid)))
    ORDER BY received_at, id
    LIMIT CAST(:limit AS bigint)
""")
_LOCK_COMMAND = text("""
    SELECT id FROM inbox WHERE id = :id AND applied_at IS NULL AND quarantined_at IS NOT NULL FOR UPDATE
""")
_LOCK_CALLBACK = text("""
    SELECT id FROM carrier_events WHERE id = :id AND heard_at IS NULL AND quarantined_at IS NOT NULL FOR UPDATE
""")

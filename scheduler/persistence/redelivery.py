"""Redelivery: the time at which the hint for a command, a callback or an erasure is sent again."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Table, and_, any_, func, or_, select, update

from scheduler.lifecycle import bounds
from scheduler.persistence.store import Statements

_MAX_INTERVAL = timedelta(seconds=8)


def has_waited(table: Table, rung_before: datetime, now: datetime) -> ColumnElement[bool]:
    """Match rows whose last hint is older than `rung_before`, and whose wait since then equals the wait before it.

    So hints are sent after 2, 4, 8 s, then every 8 s. Hints every 2 s would give workers with a backlog ever more
    messages, and they would never catch up.
    """
    rung_at, received_at = table.c.rung_at, table.c.received_at
    waited = and_(
        rung_at <= rung_before,
        or_(rung_at + (rung_at - received_at) <= now, rung_at <= now - _MAX_INTERVAL),
    )
    return or_(
        waited,
        is_from_the_future(table, now),  # guard: rung_in_future
    )


def is_from_the_future(table: Table, now: datetime) -> ColumnElement[bool]:
    """Match rows whose last hint has an instant from a wrong clock. It counts as not sent."""
    return table.c.rung_at > bounds.latest_written(now)


def due_hints(
    statements: Statements,
    ids: Column[Any],
    is_due: ColumnElement[bool],
    now: datetime,
    limit: int,
    *,
    in_order_of: Column[Any] | None = None,
) -> list[UUID]:
    """Return the ids of up to `limit` rows that match `is_due`, and record their hints as sent now.

    The hints that were sent first come first. Rows that another clock is taking are skipped.
    """
    rows = ids.table
    due = select(ids).where(is_due).order_by(rows.c.rung_at).limit(limit).with_for_update(skip_locked=True)
    order = rows.c.rung_at if in_order_of is None else in_order_of
    taken = statements.execute(
        update(rows)
        .where(ids == any_(func.array(due.scalar_subquery())))
        .values(rung_at=now)
        .returning(ids.label("id"), order.label("position"))
    )
    return [row.id for row in sorted(taken, key=lambda row: row.position)]

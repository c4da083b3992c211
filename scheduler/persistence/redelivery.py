"""Redelivery: the time at which the hint for a command, a callback or an erasure is sent again."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Integer, Table, and_, any_, bindparam, func, or_, select, update

from scheduler.lifecycle import bounds
from scheduler.persistence.connection import Fixed
from scheduler.persistence.many import given_instant
from scheduler.persistence.store import Statements

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
    """Build the statement of `due_hints` for the rows that match `is_due`."""
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


def due_hints(statements: Statements, taking: Fixed, rung_before: datetime, now: datetime, limit: int) -> list[UUID]:
    """Return the ids of up to `limit` rows whose hints are due, and record these hints as sent now.

    The hints that were sent first come first. Rows that another clock is taking are skipped.
    """
    taken = statements.execute(taking, {**instants(rung_before, now), "limit": limit})
    return [row.id for row in sorted(taken, key=lambda row: row.position)]


def instants(rung_before: datetime, now: datetime) -> dict[str, datetime]:
    """Return the values of `has_waited` and `is_from_the_future`."""
    return {
        "rung_before": rung_before,
        "now": now,
        "rung_long_before": now - _MAX_INTERVAL,
        "latest": bounds.latest_written(now),
    }

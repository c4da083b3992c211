"""Redelivery: the time at which the hint for a command or a callback is sent again."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Table, and_, or_

from scheduler.lifecycle import bounds

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

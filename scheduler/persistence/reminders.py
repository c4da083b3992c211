"""When somebody is to be rung for again: what the rows of commands and of callbacks have in common."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Table, and_, or_

from scheduler.lifecycle import bounds

_AT_THE_LATEST = timedelta(seconds=8)


def has_waited(table: Table, rung_before: datetime, now: datetime) -> ColumnElement[bool]:
    """Whether a row was last rung for before `rung_before`, and has waited since for as long as it had until then.

    So it is rung for after 2, 4, 8 s, then every 8 s. Each 2 s, workers that are behind would be given more to look at
    the further behind they are, and never catch up.
    """
    rung_at, received_at = table.c.rung_at, table.c.received_at
    waited = and_(
        rung_at <= rung_before,
        or_(rung_at + (rung_at - received_at) <= now, rung_at <= now - _AT_THE_LATEST),
    )
    return or_(
        waited,
        is_from_the_future(table, now),  # guard: rung_in_future
    )


def is_from_the_future(table: Table, now: datetime) -> ColumnElement[bool]:
    """Whether a row was last rung for by a wrong clock; that counts as not rung for."""
    return table.c.rung_at > bounds.latest_written(now)

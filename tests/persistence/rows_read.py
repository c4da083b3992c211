"""Rows that statements read, as PostgreSQL counts them, and their plans."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import event, text

from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores

BIG = frozenset({"candidates", "interviews", "attempts", "attempt_history", "lines", "inbox"})
"""The big tables of calls."""


def rows_read(
    database: Database,
    opened: AbstractContextManager[Stores],
    act: Callable[[Stores], object],
    big: frozenset[str] = BIG,
) -> int:
    """Count the rows of big tables that the statements of `act` read. Fails if one scans a big table sequentially."""
    return rows_read_by_table(database, opened, act, big).total()


def rows_read_by_table(
    database: Database,
    opened: AbstractContextManager[Stores],
    act: Callable[[Stores], object],
    big: frozenset[str] = BIG,
) -> Counter[str]:
    sent: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, parameters: Any, _x: object, _many: object) -> None:
        sent.append((statement, parameters))

    with opened as stores:
        before = reads(stores)
        event.listen(database._engine, "before_cursor_execute", note)
        act(stores)
        event.remove(database._engine, "before_cursor_execute", note)
        # Also those of statements within functions, which EXPLAIN does not show.
        read = reads(stores) - before
        cursor = stores.connection._connection._connection.connection.cursor()
        for statement, parameters in sent:
            cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
            [([explained],)] = cursor.fetchall()
            assert not big & set(_scanned(explained["Plan"])), json.dumps(explained, indent=1)
    assert sent
    assert not [table for table in big if read[table, "seq_scan"]]
    return Counter({table: read[table, "idx_tup_fetch"] for table in big})


def reads(stores: Stores) -> Counter[tuple[str, str]]:
    """Read the session's scans and rows read by an index, since it last reported them."""
    rows = stores.connection.execute(
        text("SELECT relname, seq_scan, coalesce(idx_tup_fetch, 0) AS idx_tup_fetch FROM pg_stat_xact_user_tables")
    )
    return Counter({(row.relname, name): getattr(row, name) for row in rows for name in ("seq_scan", "idx_tup_fetch")})


def reads_of(stores: Stores, index: str) -> int:
    """Count the entries that the transaction has read of an index."""
    rows = stores.connection.execute(
        text("SELECT pg_stat_get_xact_tuples_returned(CAST(:index AS regclass))"), {"index": index}
    )
    return int(rows.scalar_one())


def _scanned(plan: dict[str, Any]) -> Iterator[str]:
    if plan["Node Type"] == "Seq Scan":
        yield str(plan["Relation Name"])
    for below in plan.get("Plans", ()):
        yield from _scanned(below)

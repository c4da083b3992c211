"""Tallies: amounts are appended, and folded into totals. So no process waits for another one's row."""

import json
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import text

from scheduler.persistence.connection import Connection
from scheduler.persistence.rows import AnyValue
from scheduler.persistence.store import Store, Write
from scheduler.rules.tallies import Amount, Key, folded

_Row = tuple[Key, Amount]
_FIELDS = {"name", "label", "n", "sum", "buckets"}


class Tallies(Store):
    def add(self, amounts: Mapping[Key, Amount]) -> None:
        """Append amounts. Within `gathering`, all of a transaction are one row of a statement that is sent anyway."""
        for key, amount in amounts.items():
            self._connection.write(ADD, key, (key, amount))

    def totals(self) -> dict[Key, Amount]:
        """Read all totals, with the amounts that are not folded yet. One statement, so that none counts twice."""
        parts: list[_Row] = []
        for row in self._connection.execute(_TOTALS):
            parts += _read(row.entries)
        return folded(parts)

    def fold(self, limit: int) -> int:
        """Add up to `limit` appended rows to the totals. Return how many. Any number of clocks may do so at once."""
        rows = self._connection.execute(_TAKE, {"limit": limit}).all()
        sums = folded(part for row in rows for part in _read(row.entries))
        if sums:
            self._connection.execute(_ADD_TO_TOTALS, {"entries": entry_of(sums.items())})
        return len(rows)


def _append(connection: Connection, rows: Sequence[_Row]) -> None:
    connection.write(
        "tally_entries",
        "INSERT INTO tally_entries (entries) VALUES (CAST(%(entries)s AS jsonb))",
        {"entries": entry_of(rows)},
    )


# With the history of attempts, so that both are sent by one statement.
ADD = Write(execute=_append, turn=3, merge=lambda first, second: (first[0], first[1] + second[1]))


def entry_of(rows: Iterable[_Row]) -> str:
    """Build the text of one row of `tally_entries`."""
    return json.dumps(
        [
            {"name": name, "label": label, "n": each.n, "sum": each.seconds, "buckets": each.buckets}
            for (name, label), each in rows
        ]
    )


def _read(entries: Sequence[Mapping[str, AnyValue]]) -> list[_Row]:
    return [
        ((each["name"], each["label"]), Amount(n=each["n"], seconds=each["sum"], buckets=tuple(each["buckets"])))
        for each in entries
        # Skip rows of another version: one unreadable row must not take all metrics away.
        if each.keys() >= _FIELDS
    ]


_TOTALS = text("""
    SELECT entries FROM tally_entries
    UNION ALL
    SELECT jsonb_agg(to_jsonb(t)) FROM tallies t HAVING count(*) > 0
""")


_TAKE = text("""
    DELETE FROM tally_entries
    WHERE id = ANY (ARRAY (SELECT id FROM tally_entries ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED))
    RETURNING entries
""")


# Sorted, so that two transactions do not wait for each other.
_ADD_TO_TOTALS = text("""
    INSERT INTO tallies AS t (name, label, n, sum, buckets)
    SELECT name, label, n, sum, buckets
    FROM jsonb_to_recordset(CAST(:entries AS jsonb))
        AS given (name text, label text, n bigint, sum double precision, buckets bigint[])
    ORDER BY name, label
    ON CONFLICT (name, label) DO UPDATE
    SET n = t.n + excluded.n,
        sum = t.sum + excluded.sum,
        buckets = ARRAY (
            SELECT coalesce(mine, 0) + coalesce(new, 0)
            FROM unnest(t.buckets, excluded.buckets) WITH ORDINALITY AS pairs (mine, new, place)
            ORDER BY place
        )
""")

"""Caller days: how the calls of each caller id ended on each day. Results are appended, and folded by the clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import text

from scheduler.persistence.connection import Connection, as_json
from scheduler.persistence.rows import from_row
from scheduler.persistence.store import Store, Write
from scheduler.rules.reputation import BlockedNumber, CallerDay, CallerResult

_Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class CallerNumber:
    """A company's number with the counts of one day."""

    id: UUID
    number: str
    created_at: datetime
    calls: int
    answered: int
    declined: int
    blocked: int


class CallerDays(Store):
    def add(self, result: CallerResult) -> None:
        """Append the result of a call. Within `gathering`, it travels in a statement that is sent anyway."""
        key = (result.company_id, result.number, result.day)
        self._connection.write(_ADD, key, _row_of(result))

    def fold(self, limit: int) -> tuple[int, Sequence[CallerDay]]:
        """Add up to `limit` appended rows to their days. Return how many, and the days that changed.

        Any number of clocks may do so at once. The changed days stay locked.
        """
        taken = 0
        changed: list[CallerDay] = []
        for row in self._connection.execute(_FOLD, {"limit": limit}):
            taken = row.taken
            if row.day is not None:
                changed.append(_day(row))
        return taken, changed

    def of_day(self, day: date) -> Sequence[CallerDay]:
        """List the caller ids that have calls on this day, of all companies."""
        return self._all(_day, _OF_DAY, {"day": day})

    def blocked_numbers(self, days: Sequence[CallerDay]) -> Sequence[BlockedNumber]:
        """Sum the blocked calls of all companies that call from the numbers of these days, by number and day."""
        if not days:
            return ()
        of_days = [each.day for each in days]
        values = {"ids": [each.phone_number_id for each in days], "days": of_days, "read": list(set(of_days))}
        return self._all(partial(from_row, BlockedNumber), _BLOCKED_NUMBERS, values)

    def note_blocked(self, numbers: Sequence[BlockedNumber]) -> None:
        """Store that an operator was alarmed about the blocked calls of these numbers, for each of their companies."""
        values = {
            "company_ids": [company_id for number in numbers for company_id in number.company_ids],
            "ids": [phone_number_id for number in numbers for phone_number_id in number.phone_number_ids],
            "days": [number.day for number in numbers for _ in number.phone_number_ids],
        }
        self._connection.execute(_NOTE_BLOCKED, values)

    def note_rates(self, days: Sequence[CallerDay]) -> None:
        """Store that an operator was alarmed about the answer rates of these days, which this transaction locks."""
        values = {
            "company_ids": [each.company_id for each in days],
            "ids": [each.phone_number_id for each in days],
            "days": [each.day for each in days],
        }
        self._connection.execute(_NOTE_RATES, values)

    def numbers_of(self, company_id: UUID, day: date) -> Sequence[CallerNumber]:
        """List the numbers of a company with their counts of a day, oldest first."""
        values = {"company_id": company_id, "day": day}
        return self._all(partial(from_row, CallerNumber), _NUMBERS_OF, values)

    def forget(self, before: date, limit: int) -> int:
        """Delete days before then, and count them."""
        return self._connection.execute(_FORGET, {"before": before, "limit": limit}).rowcount


_COUNTED = ("calls", "answered", "declined", "blocked")
_day = partial(from_row, CallerDay)


def _row_of(result: CallerResult) -> _Row:
    return {
        "company_id": result.company_id,
        "number": result.number,
        "day": result.day,
        "calls": 1,
        "answered": int(result.is_answered),
        "declined": int(result.is_declined),
        "blocked": int(result.is_blocked),
    }


def _append(connection: Connection, rows: Sequence[_Row]) -> None:
    connection.write("caller_results", _APPEND, {"rows": as_json(rows)})


def _merged(first: _Row, second: _Row) -> _Row:
    return {**first, **{name: first[name] + second[name] for name in _COUNTED}}


# LATERAL with a limit: PostgreSQL then looks each number up by its index, whatever it expects of the given rows.
_APPEND = """
INSERT INTO caller_results (phone_number_id, day, calls, answered, declined, blocked)
SELECT caller.id, given.day, given.calls, given.answered, given.declined, given.blocked
FROM json_to_recordset(CAST(%(rows)s AS json)) AS given (
    company_id uuid, number text, day date, calls integer, answered integer, declined integer, blocked integer
)
CROSS JOIN LATERAL (
    SELECT n.id FROM phone_numbers n WHERE n.company_id = given.company_id AND n.number = given.number LIMIT 1
) caller
"""
# With the history of attempts, so that both are sent by one statement.
_ADD = Write(execute=_append, turn=3, merge=_merged)


# Sorted, so that two transactions do not wait for each other. Numbers that were erased meanwhile are left out.
_FOLD = text("""
    WITH taken AS (
        DELETE FROM caller_results
        WHERE id = ANY (ARRAY (SELECT id FROM caller_results ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED))
        RETURNING phone_number_id, day, calls, answered, declined, blocked
    ), sums AS (
        SELECT phone_number_id, day, sum(calls) AS calls, sum(answered) AS answered, sum(declined) AS declined,
               sum(blocked) AS blocked
        FROM taken
        GROUP BY phone_number_id, day
    ), added AS (
        INSERT INTO caller_days AS d (company_id, phone_number_id, day, calls, answered, declined, blocked)
        SELECT n.company_id, s.phone_number_id, s.day, s.calls, s.answered, s.declined, s.blocked
        FROM sums s
        CROSS JOIN LATERAL (SELECT company_id FROM phone_numbers WHERE id = s.phone_number_id LIMIT 1) n
        ORDER BY n.company_id, s.phone_number_id, s.day
        ON CONFLICT (company_id, phone_number_id, day) DO UPDATE
        SET calls = d.calls + excluded.calls,
            answered = d.answered + excluded.answered,
            declined = d.declined + excluded.declined,
            blocked = d.blocked + excluded.blocked
        RETURNING *
    )
    SELECT (SELECT count(*) FROM taken) AS taken, added.* FROM (SELECT) always LEFT JOIN added ON true
""")
_OF_DAY = text("SELECT * FROM caller_days WHERE day = :day")
# LATERAL with a limit, as above. Many companies may share a number, so one statement reads the days of all.
_BLOCKED_NUMBERS = text("""
    WITH given AS (
        SELECT DISTINCT caller.number, changed.day
        FROM unnest(CAST(:ids AS uuid[]), CAST(:days AS date[])) AS changed (id, day)
        CROSS JOIN LATERAL (SELECT number FROM phone_numbers WHERE id = changed.id LIMIT 1) caller
    )
    SELECT d.day, array_agg(d.company_id) AS company_ids, array_agg(d.phone_number_id) AS phone_number_ids,
           sum(d.blocked) AS blocked, bool_or(d.is_blocked_reported) AS is_reported
    FROM caller_days d
    CROSS JOIN LATERAL (SELECT number FROM phone_numbers WHERE id = d.phone_number_id LIMIT 1) caller
    WHERE d.day = ANY (CAST(:read AS date[])) AND d.blocked > 0
      AND (caller.number, d.day) IN (SELECT number, day FROM given)
    GROUP BY caller.number, d.day
""")
# Days that another clock has locked are left out: that clock may wait for ours. They are noted when they change again.
_NOTE_BLOCKED = text("""
    WITH free AS (
        SELECT d.company_id, d.phone_number_id, d.day
        FROM unnest(CAST(:company_ids AS uuid[]), CAST(:ids AS uuid[]), CAST(:days AS date[]))
             AS given (company_id, id, day)
        JOIN caller_days d ON d.company_id = given.company_id AND d.phone_number_id = given.id AND d.day = given.day
        WHERE NOT d.is_blocked_reported
        FOR UPDATE OF d SKIP LOCKED
    )
    UPDATE caller_days d SET is_blocked_reported = true
    FROM free
    WHERE d.company_id = free.company_id AND d.phone_number_id = free.phone_number_id AND d.day = free.day
""")
_NOTE_RATES = text("""
    UPDATE caller_days d SET is_rate_reported = true
    FROM unnest(CAST(:company_ids AS uuid[]), CAST(:ids AS uuid[]), CAST(:days AS date[]))
         AS given (company_id, id, day)
    WHERE d.company_id = given.company_id AND d.phone_number_id = given.id AND d.day = given.day
""")
_NUMBERS_OF = text("""
    SELECT n.id, n.number, n.created_at, coalesce(d.calls, 0) AS calls, coalesce(d.answered, 0) AS answered,
           coalesce(d.declined, 0) AS declined, coalesce(d.blocked, 0) AS blocked
    FROM phone_numbers n
    LEFT JOIN caller_days d ON d.company_id = n.company_id AND d.phone_number_id = n.id AND d.day = :day
    WHERE n.company_id = :company_id
    ORDER BY n.created_at, n.id
""")
_FORGET = text("""
    DELETE FROM caller_days
    WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM caller_days WHERE day < :before ORDER BY day LIMIT :limit FOR UPDATE SKIP LOCKED
    ))
""")

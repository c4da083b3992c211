"""Holds: due attempts that cannot be released leave the range that the clock reads, until they may be.

A hold never decides: the claim tests every rule. It only keeps a row out of `ix_attempts_releasable`. It ends when the
line is free, when a command is applied or the attempt is moved, and in any case at `held_until`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text

from scheduler.lifecycle.policy import RELEASE_SPAN, SLACK, UNREADABLE_FOR
from scheduler.persistence.call_conditions import (
    COMPANY_MAY_CALL,
    IS_NOT_RELEASED,
    LINE_IS_BUSY,
    OF_BACKOFF,
    command_waits,
)
from scheduler.persistence.rows import AnyRow
from scheduler.persistence.store import Store

WINDOW = 50
"""Attempts of each company and kind that a round looks at."""
LARGE_WINDOW = 2000
"""Attempts of a company whose whole window had to be held."""
_LARGE_WINDOWS = 2
"""Companies with a large window in one round, so that it stays short."""
LONGEST_HOLD = timedelta(hours=1)
"""The hold of an attempt whose line is busy. The end of the line's rest ends it, and this time is only a safeguard."""
SHORT_HOLD = timedelta(seconds=5)
"""The hold of an attempt that waits for a command or a trial call. Both usually end it earlier."""
_MOST_HELD = 4000
_MOST_LINES = 500
_WOKEN_OF_LINE = 3
"""Attempts of each company and line: one is called, and the others are held again. One may be cancelled meanwhile."""
_WOKEN_OF_COMPANY = 20
"""Besides the calls that it can start during one release, at most `_MOST_WOKEN`."""
_MOST_WOKEN = 500
"""Attempts that are still blocked are held again, which costs a write each."""


def first_of_company(most: int) -> str:
    """Build the query for the first attempts of company `c` and `kind` that are not held.

    Range and order are those of `ix_attempts_releasable` alone, and the limit is a constant. Otherwise the planner
    reads the held ones by another index, because statistics do not show what was held since. A query that takes some
    of these sorts by `place`: the planner then knows that they are sorted, and reads no more than it takes.
    """
    return f"""
        SELECT a.id, a.manual, a.due_at, a.released_until, a.number_hash, a.interview_id, a.company_id,
               greatest(a.due_at, a.held_until) AS place
        FROM attempts a
        WHERE a.company_id = c.id
          AND a.state = 'PENDING'
          AND a.held_until IS NULL
          AND a.manual = kind.by_hand
          AND greatest(a.due_at, a.held_until) <= :due_by
          AND a.expires_at > :now
          AND {IS_NOT_RELEASED}
          -- No worker of this release can read it. A later instant was written by a wrong clock.
          AND (a.unreadable_until IS NULL OR a.unreadable_until NOT BETWEEN :now AND :latest_unreadable)
        ORDER BY greatest(a.due_at, a.held_until)
        LIMIT {most}
    """  # noqa: S608 - the inserted texts are constants


LINE = """
    CROSS JOIN LATERAL (
        SELECT l.attempt_id, l.interview_id, l.free_at, l.country FROM lines l
        WHERE l.number_hash = a.number_hash LIMIT 1
    ) l
"""
"""The line of attempt `a`, by its key: the planner must not read all lines for a few attempts."""


@dataclass(frozen=True, kw_only=True)
class LinePlace:
    """The place of a line in the order in which lines became free."""

    free_at: datetime = datetime(1, 1, 1, tzinfo=UTC)
    number_hash: bytes = b""


FIRST_LINE = LinePlace()


class AttemptHolds(Store):
    def end(self, now: datetime, after: LinePlace = FIRST_LINE) -> LinePlace:
        """End holds whose line is free, a few of each company and line, and holds whose time is over.

        A line whose attempts are not all awake stays awaited. A later round wakes more, unless the line is busy.
        Only lines after this place are looked at. Return the last one, or `FIRST_LINE` if none follows.
        """
        free: list[AnyRow] = []
        values = {"now": now, "short": SHORT_HOLD + SLACK}
        places = {"after_at": after.free_at, "after_hash": after.number_hash}
        free += self._connection.execute(_WAKE, {**values, **places})  # guard: hold_ends_with_the_line
        if free:
            self._connection.execute(_AWAIT_NO_LONGER, {"hashes": [each.number_hash for each in free], **values})
        if len(free) < _MOST_LINES:
            return FIRST_LINE
        free_at, number_hash = max((each.free_at, bytes(each.number_hash)) for each in free)
        return LinePlace(free_at=free_at, number_hash=number_hash)

    def hold(self, now: datetime, due_by: datetime, latest: datetime, account_id: int) -> bool:
        """Hold the blocked ones of the first attempts of each company and kind. True: there may be more.

        More attempts are looked at of a few companies whose whole windows were held.
        """
        values = {
            "now": now,
            "due_by": due_by,
            "latest": latest,
            "latest_unreadable": now + 2 * UNREADABLE_FOR,
            "account_id": account_id,
        }
        held = self._hold(_BLOCKED, values)
        full = [company_id for company_id, count in held.items() if count >= WINDOW]
        if full:
            self._hold(_MANY_BLOCKED, {**values, "company_ids": full[:_LARGE_WINDOWS]})
        return bool(full)

    def _hold(self, found_by: TextClause, values: Mapping[str, Any]) -> Counter[UUID]:
        """Hold the blocked attempts that this query finds. Return their number by company.

        An attempt waits for a line only while the line is locked here, so that its end cannot be missed.
        """
        now = values["now"]
        blocked = self._connection.execute(found_by, values).all()
        if not blocked:
            return Counter()
        lines = {bytes(row.number_hash) for row in blocked if row.by_line}
        awaited: set[bytes] = set()
        if lines:
            rows = self._connection.execute(_AWAIT_LINES, {"hashes": sorted(lines), "now": now}).scalars()
            awaited = {bytes(each) for each in rows}
        held = [
            row
            for row in blocked
            if not row.by_line or bytes(row.number_hash) in awaited  # guard: hold_awaits_its_line
        ]
        until = [now + (LONGEST_HOLD if row.by_line else SHORT_HOLD) for row in held]
        self._connection.execute(_HOLD, {"ids": [row.id for row in held], "until": until})
        return Counter(row.company_id for row in held)


def _blocked(most: int, of: str = "true") -> TextClause:
    """Build the query for the blocked ones of the first attempts. Companies take turns."""
    return text(f"""
        SELECT blocked.*
        FROM companies c
        CROSS JOIN LATERAL (
            SELECT a.id, a.company_id, a.number_hash, {LINE_IS_BUSY} AS by_line, row_number() OVER () AS turn
            FROM (VALUES (true), (false)) AS kind (by_hand)
            CROSS JOIN LATERAL ({first_of_company(most)}) a
            {LINE}
            WHERE {LINE_IS_BUSY} OR {command_waits()} OR EXISTS (SELECT {OF_BACKOFF})
        ) blocked
        WHERE {COMPANY_MAY_CALL} AND {of}
        ORDER BY blocked.turn
        LIMIT {_MOST_HELD}
    """)  # noqa: S608 - the inserted texts are constants


_BLOCKED = _blocked(WINDOW)
_MANY_BLOCKED = _blocked(LARGE_WINDOW, of="c.id = ANY (CAST(:company_ids AS uuid[]))")

_AWAIT_LINES = text("""
    WITH busy AS MATERIALIZED (
        SELECT l.number_hash FROM lines l
        WHERE l.number_hash = ANY (CAST(:hashes AS bytea[])) AND (l.attempt_id IS NOT NULL OR l.free_at > :now)
        FOR NO KEY UPDATE SKIP LOCKED
    ), awaited AS (
        UPDATE lines SET is_awaited = true FROM busy WHERE lines.number_hash = busy.number_hash AND NOT lines.is_awaited
    )
    SELECT number_hash FROM busy
""")

_HOLD = text("""
    UPDATE attempts SET held_until = given.until
    FROM unnest(CAST(:ids AS uuid[]), CAST(:until AS timestamptz[])) AS given (id, until)
    WHERE attempts.id = given.id
      AND attempts.id = ANY (ARRAY (
          SELECT a.id FROM attempts a
          WHERE a.id = ANY (CAST(:ids AS uuid[])) AND a.state = 'PENDING' AND a.held_until IS NULL
          FOR NO KEY UPDATE SKIP LOCKED
      ))
""")

_NO_COMPANY = UUID(int=0)
_IS_LONG = "a.held_until - CAST(:now AS timestamptz) > CAST(:short AS interval)"
"""It waits for its line. Not a range of `held_until`, which `ix_attempts_held` would serve."""
# Row comparisons, and in their order: with old statistics the planner expects one held attempt of a company, and would
# read all of them by `ix_attempts_held` for each line. That index serves only conditions with `> '-infinity'`.
_WAKE = text(f"""
    WITH RECURSIVE free AS MATERIALIZED (
        SELECT l.number_hash, l.free_at FROM lines l
        WHERE l.is_awaited AND l.attempt_id IS NULL AND l.free_at <= :now
          AND (l.free_at, l.number_hash) > (CAST(:after_at AS timestamptz), CAST(:after_hash AS bytea))
        ORDER BY l.free_at, l.number_hash
        LIMIT {_MOST_LINES}
        FOR NO KEY UPDATE SKIP LOCKED
    ), waiting (number_hash, company_id) AS (
        -- One company after the other, so that one with thousands of attempts to a number delays no other.
        SELECT free.number_hash, CAST('{_NO_COMPANY}' AS uuid) FROM free
        UNION ALL
        SELECT w.number_hash, next.company_id
        FROM waiting w
        CROSS JOIN LATERAL (
            SELECT a.number_hash, a.company_id FROM attempts a
            WHERE (a.number_hash, a.company_id) > (w.number_hash, w.company_id)
              AND a.state = 'PENDING' AND a.held_until IS NOT NULL
            ORDER BY a.number_hash, a.company_id LIMIT 1
        ) next
        WHERE next.number_hash = w.number_hash
    ), woken AS (
        UPDATE attempts SET held_until = NULL
        WHERE id = ANY (ARRAY (
            SELECT a.id FROM attempts a
            -- No join: the planner expects many rows, and might read all attempts for it.
            WHERE a.id = ANY (ARRAY (
                SELECT first.id
                FROM waiting w
                CROSS JOIN LATERAL (
                    SELECT a.id FROM attempts a
                    WHERE (a.number_hash, a.company_id) >= (w.number_hash, w.company_id)
                      AND (a.number_hash, a.company_id) <= (w.number_hash, w.company_id)
                      AND a.state = 'PENDING' AND a.held_until IS NOT NULL
                      -- The others were held again for another reason, and wake by their own time.
                      AND {_IS_LONG}
                    ORDER BY a.number_hash, a.company_id, a.due_at
                    LIMIT {_WOKEN_OF_LINE}
                ) first
                UNION
                SELECT over.id
                FROM companies c
                CROSS JOIN LATERAL (
                    SELECT a.id FROM attempts a
                    WHERE a.company_id = c.id AND a.state = 'PENDING'
                      AND a.held_until > '-infinity' AND a.held_until <= :now
                    ORDER BY a.held_until
                    LIMIT {_WOKEN_OF_COMPANY}
                        + least(ceil(c.calls_per_second * {RELEASE_SPAN.total_seconds()}), {_MOST_WOKEN})
                ) over
                WHERE {COMPANY_MAY_CALL}
            ))
            FOR NO KEY UPDATE SKIP LOCKED
        ))
    )
    SELECT number_hash, free_at FROM free
""")  # noqa: S608 - the inserted numbers are constants

_AWAIT_NO_LONGER = text(f"""
    UPDATE lines SET is_awaited = false
    WHERE number_hash = ANY (ARRAY (
        SELECT h.number_hash FROM unnest(CAST(:hashes AS bytea[])) AS h (number_hash)
        -- Not by EXISTS, and in order: otherwise the planner may read all held attempts.
        WHERE (
            SELECT a.number_hash FROM attempts a
            WHERE (a.number_hash, a.company_id) > (h.number_hash, CAST('{_NO_COMPANY}' AS uuid))
              AND a.number_hash <= h.number_hash
              AND a.state = 'PENDING' AND a.held_until IS NOT NULL AND {_IS_LONG}
            ORDER BY a.number_hash, a.company_id LIMIT 1
        ) IS NULL
    ))
""")  # noqa: S608 - the inserted texts are constants

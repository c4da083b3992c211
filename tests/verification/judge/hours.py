"""Judge of the calling hours: PostgreSQL's own clocks check every second of every ring in the carrier's ledger.

No code of the product is used. Hours are plain texts, wall clocks come from PostgreSQL, and each second is checked
separately.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import psycopg

WEEK = (0, 1, 2, 3, 4, 5, 6)
RINGS_FOR_S = 34
"""Seconds for which a phone may ring: 30, plus the 5 by which a carrier may exceed them, minus the second that may lie
between the last look and the POST."""


@dataclass(frozen=True)
class Hours:
    """Wall-clock interval that begins on each of these days (Monday is 0). Its end is not included."""

    days: tuple[int, ...]
    start: str
    end: str
    """If not later than `start`, it is on the next day."""

    @property
    def start_s(self) -> int:
        return _seconds(self.start)

    @property
    def end_s(self) -> int:
        """Seconds from midnight of the day on which the interval begins."""
        end_s = _seconds(self.end)
        return end_s if end_s > self.start_s else end_s + 86_400


def _seconds(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60


def lies_within(hours: Sequence[Hours], weekday: int, second: int) -> bool:
    """Check whether this second of this weekday is within the hours."""
    return any(
        (weekday in each.days and each.start_s <= second < each.end_s)
        or ((weekday - 1) % 7 in each.days and second + 86_400 < each.end_s)
        for each in hours
    )


@dataclass(frozen=True, kw_only=True)
class RingHours:
    """A call at one instant, and the rules that must hold at that instant."""

    sid: str
    at: datetime
    zones: tuple[str, ...]
    offset: timedelta | None = None
    """UTC offset of a clock that must be open too. If `zones` is empty, it decides alone."""
    hours: tuple[Hours, ...]
    consent_until: date
    says: str
    """Description of the call, for the verdict."""


@dataclass(frozen=True, kw_only=True)
class Outside:
    """A second in which this phone may have rung although it must not."""

    says: str
    clock: str
    wall: str
    why: str


def outside(url: str, rings: Sequence[RingHours]) -> list[Outside]:
    """List the first forbidden second of every forbidden ring."""
    if not rings:
        return []
    with psycopg.connect(url) as connection:
        connection.execute("SET TIME ZONE 'UTC'")
        for statement in _TABLES:
            connection.execute(statement.encode())
        kinds = sorted({each.hours for each in rings}, key=repr)
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO judged_hours VALUES (%s, %s, %s, %s)",
                [
                    (number, day, each.start_s, each.end_s)
                    for number, hours in enumerate(kinds)
                    for each in hours
                    for day in each.days
                ],
            )
            cursor.executemany("INSERT INTO judged VALUES (%s, %s, %s, %s, %s)", list(_rows(rings, kinds)))
        connection.execute("ANALYZE judged, judged_hours")
        verdicts = connection.execute(_VERDICT.encode(), {"rings_for_s": RINGS_FOR_S}).fetchall()
        connection.rollback()
    says = {each.sid: each.says for each in rings}
    return [Outside(says=says[sid], clock=clock, wall=str(wall), why=why) for sid, clock, wall, why in verdicts]


def _rows(rings: Sequence[RingHours], kinds: Sequence[tuple[Hours, ...]]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for each in rings:
        clocks: list[tuple[str | None, timedelta | None]] = [(zone, None) for zone in each.zones]
        if each.offset is not None:
            clocks.append((None, each.offset))
        assert clocks, f"{each.says}: it rang although no clock is known"
        kind = kinds.index(each.hours)
        rows.extend(
            (each.sid, each.at, json.dumps([zone, _span(shift)]), each.consent_until, kind) for zone, shift in clocks
        )
    return rows


def _span(shift: timedelta | None) -> float | None:
    return None if shift is None else shift.total_seconds()


_TABLES = (
    "CREATE TEMPORARY TABLE judged_hours (kind int, day int, start_s int, end_s int)",
    "CREATE TEMPORARY TABLE judged (sid text, at timestamptz, clock jsonb, consent_until date, kind int)",
)

_VERDICT = """
    WITH shown AS (
        SELECT sid, clock, consent_until, kind,
               CASE WHEN clock ->> 0 IS NULL
                    THEN at AT TIME ZONE 'UTC' + make_interval(secs => (clock ->> 1)::float)
                    ELSE at AT TIME ZONE (clock ->> 0) END AS wall,
               later
        FROM (
            SELECT sid, clock, consent_until, kind, later, at + make_interval(secs => later) AS at
            FROM judged CROSS JOIN generate_series(0, %(rings_for_s)s) AS later
        ) AS seconds
    ), counted AS (
        SELECT *, extract(isodow FROM wall)::int - 1 AS day,
               extract(epoch FROM wall - date_trunc('day', wall)) AS second
        FROM shown
    ), faults AS (
        SELECT sid, clock, wall, 'outside the hours' AS why FROM counted
        WHERE NOT EXISTS (
            SELECT FROM judged_hours h
            WHERE h.kind = counted.kind
              AND ((h.day = counted.day AND second >= h.start_s AND second < h.end_s)
                   OR (h.day = (counted.day + 6) %% 7 AND second + 86400 < h.end_s))
        )
        UNION ALL
        SELECT sid, clock, wall, 'after the consent' FROM counted WHERE later = 0 AND wall::date > consent_until
    )
    SELECT DISTINCT ON (sid) sid, coalesce(clock ->> 0, clock ->> 1), wall, why FROM faults ORDER BY sid, wall
"""

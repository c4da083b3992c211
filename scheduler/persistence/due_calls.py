"""Pending attempts by company, quarter of the hour and clock, for the calendar of operators and for dry runs."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text

from scheduler.domain.call import CalleeClock, TimezoneSource
from scheduler.domain.company import CompanySettings
from scheduler.persistence.json_columns import settings_of
from scheduler.persistence.rows import from_row
from scheduler.persistence.store import Store

COUNTED = 50_000
"""The number of attempts that are counted, the first due ones. PostgreSQL reads this many index entries in 30 ms."""
READ_CLOCKS = 2_000
"""The attempts whose clocks are read. Each is a row of the table, which may have to be read from the disk."""
_ENDED = 2_000
FEWEST_ENDED = 20
"""The mean duration of fewer calls says little."""


@dataclass(frozen=True, kw_only=True)
class DueCell:
    """The pending attempts of one company that are due within one quarter of the hour, or before or after all."""

    company_id: UUID
    calls: int
    begins: datetime
    """The start of the quarter. That before the first one for attempts due earlier, the end for those due later."""
    first_at: datetime
    mean_at: datetime
    last_at: datetime
    clocks: Mapping[CalleeClock, int]
    """Attempts by clock: all of them, or those whose clocks were read. Empty if none was read."""


@dataclass(frozen=True, kw_only=True)
class DueCells:
    cells: tuple[DueCell, ...]
    counted_until: datetime | None
    """The due time of the last attempt that is counted. None: all are counted."""


@dataclass(frozen=True, kw_only=True)
class OtherCompany:
    """A company of which only the columns may be read that a forecast of all calls needs."""

    id: UUID
    settings: CompanySettings
    in_progress: int


@dataclass(frozen=True, kw_only=True)
class CallingCompany:
    id: UUID
    name: str
    settings: CompanySettings
    pause_reason: str | None
    in_progress: int


@dataclass(frozen=True, kw_only=True)
class CallingAccount:
    calls_per_second: float
    max_calls: int
    pause_reason: str | None
    is_down: bool
    waits_for_voice_server: bool
    """True if the voice server is the reason."""
    in_progress: int
    call_lasts: timedelta | None
    """The mean duration of the calls that ended last. None if too few ended."""
    durations: Sequence[timedelta] = ()
    """Ten durations of these calls that are equally frequent, sorted. Empty if too few ended."""


class DueCalls(Store):
    def cells(self, begins: datetime, ends: datetime) -> DueCells:
        """Count the pending attempts by company and quarter hour, of more than COUNTED the first due ones.

        Those due before `begins` are one cell of a company, and those due from `ends` on are another one.
        """
        return self._cells(_CELLS, begins, ends, {})

    def _cells(self, query: TextClause, begins: datetime, ends: datetime, of: Mapping[str, object]) -> DueCells:
        values = {"begins": begins, "ends": ends, "counted": COUNTED, "read": READ_CLOCKS, **of}
        cells: dict[tuple[UUID, datetime], DueCell] = {}
        clocks: dict[tuple[UUID, datetime], dict[CalleeClock, int]] = defaultdict(dict)
        until: datetime | None = None
        for row in self._connection.execute(query, values):
            until, key = row.counted_until, (row.company_id, row.begins)
            if key not in cells:
                cells[key] = from_row(DueCell, row, clocks=clocks[key])
            if row.zones is not None:
                clocks[key][_clock_of(row)] = row.with_clock
        return DueCells(cells=tuple(cells.values()), counted_until=until)

    def cells_of(self, company_id: UUID, begins: datetime, ends: datetime, width: timedelta) -> DueCells:
        """Count the pending attempts of one company like `cells`, but in cells of this width."""
        return self._cells(_CELLS_OF_COMPANY, begins, ends, {"company_id": company_id, "width": width})

    def cells_of_others(self, company_id: UUID, begins: datetime, ends: datetime) -> DueCells:
        """Count the pending attempts of all other companies that call like `cells`. For a transaction that counts."""
        return self._cells(_CELLS_OF_OTHERS, begins, ends, {"company_id": company_id})

    def others(self, company_ids: Collection[UUID]) -> Sequence[OtherCompany]:
        """List the companies with these ids, without deleted ones. For a transaction that counts."""
        rows = self._connection.execute(_OTHERS, {"ids": list(company_ids)})
        return [from_row(OtherCompany, row, settings=settings_of(row)) for row in rows]

    def companies(self, company_ids: Collection[UUID]) -> Mapping[UUID, CallingCompany]:
        """List the companies with these ids, without deleted ones."""
        rows = self._connection.execute(_COMPANIES, {"ids": list(company_ids)})
        return {row.id: from_row(CallingCompany, row, settings=settings_of(row)) for row in rows}

    def account(self) -> CallingAccount | None:
        """Find the account in use. None before the first worker has started."""
        values = {"ended": _ENDED, "fewest": FEWEST_ENDED}
        return self._one(partial(from_row, CallingAccount), _CALLING_ACCOUNT, values)


def _clock_of(row: Row[Any]) -> CalleeClock:
    """Read the clock with any source: it does not matter here, and fewer clocks are read faster."""
    offset = None if row.offset_s is None else timedelta(seconds=row.offset_s)
    return CalleeClock(source=TimezoneSource.ZONE, offset=offset, zones=tuple(row.zones))


def _counting(
    companies: str, *, pending: str = "state = 'PENDING'", width: str = "CAST('15 minutes' AS interval)"
) -> TextClause:
    """Build the statement that counts the attempts of some companies in cells of this width.

    A condition that also holds without a company would need another plan, so each statement has its own. `pending`: the
    attempts of which only the first ones are counted.
    """
    return text(f"""
        WITH horizon AS MATERIALIZED (
            -- Reads only the index of due times.
            SELECT due_at FROM attempts WHERE {pending} ORDER BY due_at OFFSET :counted - 1 LIMIT 2
        ), due AS (
            -- Reads only the index of companies and due times. A company's rows are counted by themselves, because
            -- PostgreSQL would sort them all to count them together.
            SELECT c.id AS company_id, a.*
            FROM companies c
            CROSS JOIN LATERAL (
                SELECT begins, count(*) AS calls, min(due_at) AS first_at, max(due_at) AS last_at,
                       to_timestamp(avg(date_part('epoch', due_at))) AS mean_at
                FROM (
                    SELECT due_at,
                           date_bin({width}, least(greatest(due_at, :begins - {width}), :ends), :begins) AS begins
                    FROM attempts
                    WHERE company_id = c.id AND state = 'PENDING'
                          AND due_at <= coalesce((SELECT min(due_at) FROM horizon HAVING count(*) = 2), 'infinity')
                    -- If very many are due at the instant of the horizon, no more of one company.
                    ORDER BY due_at
                    LIMIT :counted
                ) first
                GROUP BY begins
                OFFSET 0
            ) a
            WHERE c.deleted_at IS NULL AND {companies}
        ), cells AS MATERIALIZED (
            SELECT *,
                   row_number() OVER (ORDER BY company_id, begins) AS place,
                   count(*) OVER () AS number_of_cells,
                   sum(calls) OVER () AS all_calls
            FROM due
        ), clocks AS MATERIALIZED (
            SELECT d.place, (s.schedule ->> 'offset_s')::float AS offset_s,
                   s.schedule -> 'zones' AS zones, count(*) AS with_clock
            FROM cells d
            CROSS JOIN LATERAL (
                SELECT a.schedule
                FROM attempts a
                WHERE a.company_id = d.company_id AND a.state = 'PENDING'
                      AND a.due_at >= d.first_at AND a.due_at <= d.last_at
                ORDER BY a.due_at
                LIMIT ceil(d.calls * least(1, :read / d.all_calls))
            ) s
            -- With more cells than rows that may be read, some cells in equal distances.
            WHERE d.place % greatest(1, ceil(d.number_of_cells::float / :read)::bigint) = 0
            GROUP BY 1, 2, 3
        )
        SELECT d.company_id, d.begins, d.calls, d.first_at, d.mean_at, d.last_at, k.offset_s, k.zones, k.with_clock,
               (SELECT min(due_at) FROM horizon HAVING count(*) = 2) AS counted_until
        FROM cells d
        LEFT JOIN clocks k ON k.place = d.place
        ORDER BY d.company_id, d.begins
    """)  # noqa: S608 - the parts are constants of this module


_CELLS = _counting("true")
_CELLS_OF_COMPANY = _counting(
    "c.id = :company_id",
    pending="state = 'PENDING' AND company_id = :company_id",
    width="CAST(:width AS interval)",
)
_CELLS_OF_OTHERS = _counting("c.id <> :company_id AND c.pause_reason IS NULL")
_LIMITS_AND_CALLS = """
    c.id, c.settings::text AS settings, c.concurrent_calls, c.calls_per_second,
    coalesce(calling.calls, 0) AS in_progress
    FROM companies c
    LEFT JOIN (
        SELECT company_id, count(*) AS calls FROM attempts WHERE state = 'IN_PROGRESS' GROUP BY company_id
    ) calling ON calling.company_id = c.id
    WHERE c.id = ANY (:ids) AND c.deleted_at IS NULL
"""
_COMPANIES = text(f"SELECT c.name, c.pause_reason, {_LIMITS_AND_CALLS}")
_OTHERS = text(f"SELECT {_LIMITS_AND_CALLS} ORDER BY c.id")
_CALLING_ACCOUNT = text("""
    WITH ended AS MATERIALIZED (
        -- The newest entries of the history, by its key: no index has the ends of calls.
        SELECT attempt_id, from_state, to_state FROM attempt_history ORDER BY id DESC LIMIT :ended
    ), durations AS (
        SELECT avg(a.ended_at - a.claimed_at) AS mean, count(*) AS calls,
               percentile_cont(ARRAY[0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95])
               WITHIN GROUP (ORDER BY a.ended_at - a.claimed_at) AS deciles
        FROM ended e
        -- With LIMIT, one by one by their key: with some statistics, the planner would read all attempts instead.
        CROSS JOIN LATERAL (SELECT ended_at, claimed_at FROM attempts WHERE id = e.attempt_id LIMIT 1) a
        WHERE e.from_state = 'IN_PROGRESS' AND e.to_state NOT IN ('PENDING', 'IN_PROGRESS')
              AND a.ended_at > a.claimed_at
    )
    SELECT k.calls_per_second::float AS calls_per_second, k.max_calls, k.pause_reason,
           k.down_until IS NOT NULL AS is_down,
           k.down_until IS NOT NULL AND coalesce(k.down_cause = 'VOICE_SERVER', FALSE) AS waits_for_voice_server,
           (SELECT count(*) FROM attempts a WHERE a.state = 'IN_PROGRESS' AND a.account_id = k.id) AS in_progress,
           (SELECT mean FROM durations WHERE calls >= :fewest) AS call_lasts,
           coalesce((SELECT deciles FROM durations WHERE calls >= :fewest), '{}') AS durations
    FROM carrier_accounts k
    -- After a change of the account, the others keep their last state.
    ORDER BY k.updated_at DESC
    LIMIT 1
""")

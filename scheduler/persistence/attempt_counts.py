"""Attempts: counted for status pages and metrics."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select, text

from scheduler.domain.attempt import AttemptState
from scheduler.domain.pagination import COUNTED_UP_TO
from scheduler.lifecycle.policy import SEND_SPAN
from scheduler.persistence.store import Store
from scheduler.persistence.tables import attempts


class AttemptCounts(Store):
    def calls_of_company(self, company_id: UUID) -> int:
        """Count the company's calls in progress."""
        return self._count(
            select(func.count())
            .select_from(attempts)
            .where(attempts.c.company_id == company_id, attempts.c.state == AttemptState.IN_PROGRESS.value)
        )

    def counts(self, now: datetime, undecided_before: datetime) -> list[Row[Any]]:
        """Count the attempts of each company: due, late, waiting, in progress, unknown, failed without a known cause.

        Attempts that became unknown at `undecided_before` or earlier also count as undecided. Of more than
        COUNTED_UP_TO attempts that wait for their time, one more than that is counted.
        """
        times = {
            "now": now,
            "soon": now + SEND_SPAN,
            "impossible": now + _NO_SLOT_IS_FURTHER,
            "undecided_before": undecided_before,
            "most": COUNTED_UP_TO + 1,
        }
        return list(self._connection.execute(_COUNTS, times))


_NO_SLOT_IS_FURTHER = timedelta(hours=1)
"""No pace leads to a later slot: such a slot was taken on a wrong clock and counts as free."""


_COUNTS = text("""
    WITH account AS (
        -- The account in use. After a change of the account, the others keep their last state.
        SELECT k.id, k.next_slot_at, k.calls_per_second,
               CASE WHEN k.updated_at > k.created_at THEN k.updated_at END AS changed_at,
               k.paused_at IS NULL AND k.down_until IS NULL
               AND (k.next_slot_at < :soon OR k.next_slot_at > :impossible)
               AND k.max_calls > (
                   SELECT count(*) FROM attempts a WHERE a.state = 'IN_PROGRESS' AND a.account_id = k.id
               ) AS takes_calls
        FROM carrier_accounts k
        ORDER BY greatest(k.updated_at, CASE WHEN k.next_slot_at < :impossible THEN k.next_slot_at END) DESC
        LIMIT 1
    ), calling AS (
        SELECT company_id,
               count(*) AS in_progress,
               count(*) FILTER (WHERE phase = 'UNKNOWN') AS asked_for,
               count(*) FILTER (WHERE phase = 'UNKNOWN' AND unknown_at <= :undecided_before) AS undecided
        FROM attempts WHERE state = 'IN_PROGRESS' GROUP BY company_id
    ), due AS (
        SELECT a.company_id, waits.busy, waits.held, c.next_slot_at, c.calls_per_second,
               a.expires_at > :now AND NOT waits.busy AND NOT waits.held AND c.paused_at IS NULL
               AND (c.next_slot_at < :soon OR c.next_slot_at > :impossible)
               AND c.concurrent_calls > coalesce(calling.in_progress, 0)
               AND coalesce((SELECT takes_calls FROM account), true)
               -- This role cannot read caller ids, so one refused number excuses the company's other numbers too.
               AND NOT EXISTS (
                   SELECT FROM carrier_backoffs b
                   WHERE b.account_id = (SELECT id FROM account)
                     AND b.down_until IS NOT NULL AND (b.country = l.country OR b.company_id = a.company_id)
               ) AS could_ring,
               -- Time before these instants is not our delay: something else kept the phone from ringing.
               greatest(
                   a.due_at,
                   CASE WHEN l.interview_id IS DISTINCT FROM a.interview_id AND l.free_at > a.created_at
                        THEN l.free_at END,
                   c.resumed_at,
                   (SELECT changed_at FROM account)
               ) AS since
        FROM attempts a
        -- OFFSET keeps this a search for each attempt. For many attempts, a join would read all lines.
        CROSS JOIN LATERAL (
            SELECT attempt_id, interview_id, free_at, country FROM lines WHERE number_hash = a.number_hash OFFSET 0
        ) l
        JOIN companies c ON c.id = a.company_id
        LEFT JOIN calling ON calling.company_id = a.company_id
        CROSS JOIN LATERAL (SELECT
            l.attempt_id IS NOT NULL
                OR (l.free_at > :now AND l.interview_id IS DISTINCT FROM a.interview_id) AS busy,
            EXISTS (SELECT FROM inbox x WHERE x.interview_id = a.interview_id AND x.applied_at IS NULL) AS held
        ) waits
        WHERE a.state = 'PENDING' AND a.due_at <= :now
    ), late AS (
        SELECT company_id,
               count(*) AS due,
               -- If more attempts wait than the pace starts in a second, they wait for slots, but not longer than that.
               max(:now - greatest(
                   since,
                   CASE WHEN ringable_of_company > calls_per_second THEN least(next_slot_at, :now) END,
                   CASE WHEN ringable > (SELECT calls_per_second FROM account)
                        THEN least((SELECT next_slot_at FROM account), :now) END
               )) FILTER (WHERE could_ring AND since <= :now) AS late,
               count(*) FILTER (WHERE held) AS for_commands,
               count(*) FILTER (WHERE busy AND NOT held) AS for_numbers,
               count(*) FILTER (WHERE NOT busy AND NOT held) AS for_places
        FROM (
            SELECT *,
                   count(*) FILTER (WHERE could_ring) OVER (PARTITION BY company_id) AS ringable_of_company,
                   count(*) FILTER (WHERE could_ring) OVER () AS ringable
            FROM due
        ) counted
        GROUP BY company_id
    ), unknown AS (
        SELECT company_id, count(*) AS unknown
        FROM attempts WHERE reason = 'OUTCOME_UNKNOWN' AND decided_at IS NULL GROUP BY company_id
    ), causeless AS (
        SELECT company_id, count(*) AS cause_lost FROM attempts WHERE cause_is_lost GROUP BY company_id
    )
    SELECT c.id AS company_id,
           c.pause_reason,
           c.concurrent_calls,
           waiting.waiting,
           waiting.waiting >= :most AS waiting_is_estimate,
           coalesce(late.due, 0) AS due,
           late.late,
           coalesce(late.for_commands, 0) AS for_commands,
           coalesce(late.for_numbers, 0) AS for_numbers,
           coalesce(late.for_places, 0) AS for_places,
           waiting.next_due_at,
           coalesce(calling.in_progress, 0) AS in_progress,
           coalesce(calling.asked_for, 0) AS asked_for,
           coalesce(calling.undecided, 0) AS undecided,
           coalesce(unknown.unknown, 0) AS unknown,
           coalesce(causeless.cause_lost, 0) AS cause_lost
    FROM companies c
    LEFT JOIN late ON late.company_id = c.id
    -- Most attempts are here. For each company this reads the first entries of an index, and no row.
    CROSS JOIN LATERAL (
        SELECT count(*) AS waiting, min(first.due_at) AS next_due_at
        FROM (
            SELECT a.due_at
            FROM attempts a
            WHERE a.company_id = c.id AND a.state = 'PENDING' AND a.due_at > :now
            ORDER BY a.due_at
            LIMIT :most
        ) first
    ) waiting
    LEFT JOIN calling ON calling.company_id = c.id
    LEFT JOIN unknown ON unknown.company_id = c.id
    LEFT JOIN causeless ON causeless.company_id = c.id
    WHERE c.deleted_at IS NULL
    ORDER BY c.id
""")

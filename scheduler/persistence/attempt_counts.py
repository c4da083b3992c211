"""Attempts: counted for status pages and metrics."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select, text

from scheduler.domain.attempt import AttemptState
from scheduler.domain.explanation import PACE, Rule
from scheduler.domain.resource import COUNTED_UP_TO
from scheduler.lifecycle import voice_server
from scheduler.lifecycle.breaker import PERMISSIONS, PROBED_WITHIN
from scheduler.lifecycle.capacity import KEPT_SHARE
from scheduler.lifecycle.policy import SEND_SPAN
from scheduler.persistence.call_conditions import LINE_IS_BUSY
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

    def numbers_with_calls(self, company_id: UUID, number_hashes: Collection[bytes]) -> set[bytes]:
        """Find the numbers among these with a call of the company that is pending or in progress."""
        values = {"company": company_id, "hashes": list(number_hashes)}
        return {bytes(each) for each in self._connection.execute(_WITH_CALLS, values).scalars()}

    def counts(self, now: datetime, undecided_before: datetime) -> list[Row[Any]]:
        """Count the attempts of each company: due, late, waiting, in progress, unknown, failed without a known cause.

        Attempts that became unknown at `undecided_before` or earlier also count as undecided. Attempts of a company
        that wait for their time, or are due, are counted up to COUNTED_UP_TO and one more, the first ones. `held`: for
        each rule, the number of due attempts that it holds, and the seconds since the first of them was due.
        """
        return list(self._connection.execute(_COUNTS, values_of_due(now, undecided_before)))


def values_of_due(now: datetime, undecided_before: datetime | None = None) -> dict[str, object]:
    """Build the values of a statement with `DUE_BY_RULE`."""
    return {
        "now": now,
        "soon": now + SEND_SPAN,
        "probed_before": now - PROBED_WITHIN,
        "impossible": now + _NO_SLOT_IS_FURTHER,
        "undecided_before": undecided_before,
        "permissions": sorted(PERMISSIONS),
    }


# By two indexes of numbers: one has the pending attempts, the other those in progress.
_WITH_CALLS = text("""
    SELECT given.number_hash FROM unnest(CAST(:hashes AS bytea[])) AS given (number_hash)
    WHERE EXISTS (
        SELECT FROM attempts a
        WHERE a.number_hash = given.number_hash AND a.state = 'PENDING' AND a.company_id = :company
    ) OR EXISTS (
        SELECT FROM attempts a
        WHERE a.number_hash = given.number_hash AND a.state = 'IN_PROGRESS' AND a.company_id = :company
    )
""")
_NO_SLOT_IS_FURTHER = timedelta(hours=1)
"""No pace leads to a later slot: such a slot was taken on a wrong clock and counts as free."""


# More than this are not counted: see `AttemptCounts.counts`. A constant, because PostgreSQL plans by it. Without it,
# PostgreSQL expects as many due attempts as there are finished ones, and reads all pending ones by another index.
_MOST = COUNTED_UP_TO + 1


DUE_BY_RULE, _TOTALS = f"""
    account AS (
        -- The account in use. After a change of the account, the others keep their last state.
        SELECT k.id, k.next_slot_at, k.calls_per_second,
               greatest(
                   CASE WHEN k.updated_at > k.created_at THEN k.updated_at END,
                   CASE WHEN o.is_overdue THEN k.down_until END
               ) AS changed_at,
               CASE
                   WHEN k.paused_at IS NOT NULL THEN '{Rule.ACCOUNT_PAUSED}'
                   WHEN k.down_until IS NOT NULL AND NOT o.is_overdue AND k.down_cause = '{voice_server.CAUSE}'
                       THEN '{Rule.VOICE_SERVER_DOWN}'
                   WHEN k.down_until IS NOT NULL AND NOT o.is_overdue THEN '{Rule.CARRIER_DOWN}'
               END AS stops,
               CASE
                   WHEN k.max_calls <= n.calls THEN '{Rule.ACCOUNT_LIMIT}'
                   WHEN k.next_slot_at >= :soon AND k.next_slot_at <= :impossible THEN '{PACE}'
               END AS limits,
               k.max_calls - n.calls <= greatest(1, k.max_calls / {KEPT_SHARE}) AS keeps_places
        FROM carrier_accounts k
        CROSS JOIN LATERAL (
            SELECT count(*) AS calls FROM attempts a WHERE a.state = 'IN_PROGRESS' AND a.account_id = k.id
        ) n
        CROSS JOIN LATERAL (
            -- Carriers that are down hold calls, but not if Duecall has not probed them in time.
            SELECT coalesce(
                k.down_until <= :probed_before AND (k.answered_at IS NULL OR k.answered_at < k.down_until), FALSE
            ) AS is_overdue
        ) o
        ORDER BY greatest(k.updated_at, CASE WHEN k.next_slot_at < :impossible THEN k.next_slot_at END) DESC
        LIMIT 1
    ), calling AS (
        SELECT company_id,
               count(*) AS in_progress,
               count(*) FILTER (WHERE phase = 'UNKNOWN') AS asked_for,
               count(*) FILTER (WHERE phase = 'UNKNOWN' AND unknown_at <= :undecided_before) AS undecided
        FROM attempts WHERE state = 'IN_PROGRESS' GROUP BY company_id
    ), backoffs AS (
        -- This role cannot read caller ids, so one refused number excuses the company's other numbers too.
        SELECT array_agg(b.country) FILTER (WHERE b.country IS NOT NULL) AS countries,
               array_agg(b.company_id) FILTER (WHERE b.cause = ANY (:permissions)) AS refused,
               array_agg(b.company_id) FILTER (WHERE b.cause <> ALL (:permissions)) AS failing
        FROM carrier_backoffs b
        WHERE b.account_id = (SELECT id FROM account) AND b.down_until IS NOT NULL
          AND NOT (b.down_until <= :probed_before AND coalesce(b.answered_at < b.down_until, TRUE))
    ), overdue AS MATERIALIZED (
        -- As with the account: these hold calls only because Duecall has not probed the carrier in time.
        SELECT b.country, b.company_id, b.down_until
        FROM carrier_backoffs b
        WHERE b.account_id = (SELECT id FROM account)
          AND b.down_until <= :probed_before AND coalesce(b.answered_at < b.down_until, TRUE)
    ), recent AS MATERIALIZED (
        -- Lines with a call, or that were not free yet when the first attempt became due. Only these hold an attempt or
        -- excuse its delay, and they are few. Each ORDER BY makes PostgreSQL read the index.
        (SELECT number_hash FROM lines WHERE attempt_id IS NOT NULL ORDER BY attempt_id LIMIT {_MOST})
        UNION ALL
        (
            SELECT number_hash FROM lines
            WHERE free_at > (SELECT min(due_at) FROM attempts WHERE state = 'PENDING')
            ORDER BY free_at DESC
            LIMIT {_MOST}
        )
    ), searched AS (
        -- True if the line of every attempt is searched: there are too many recent ones, or their countries matter.
        SELECT count(*) >= {_MOST}
                   OR (SELECT countries FROM backoffs) IS NOT NULL
                   OR EXISTS (SELECT FROM overdue WHERE country IS NOT NULL) AS are_all
        FROM recent
    ), due AS (
        SELECT a.id, c.id AS company_id, a.due_at, waits.busy, waits.held,
               -- The first rule that holds the attempt, in the order of `lifecycle/blocks.py`.
               CASE
                   WHEN (SELECT stops FROM account) IS NOT NULL THEN (SELECT stops FROM account)
                   WHEN waits.backoff IS NOT NULL THEN waits.backoff
                   WHEN c.paused_at IS NOT NULL THEN '{Rule.COMPANY_PAUSED}'
                   WHEN waits.held THEN '{Rule.COMMAND_WAITING}'
                   WHEN a.expires_at <= :now THEN '{Rule.EXPIRED}'
                   WHEN waits.busy THEN '{Rule.NUMBER_BUSY}'
                   WHEN c.concurrent_calls <= coalesce(calling.in_progress, 0) THEN '{Rule.COMPANY_LIMIT}'
                   -- The last places are kept for companies without a call.
                   WHEN (SELECT keeps_places FROM account) AND calling.in_progress > 0 THEN '{Rule.ACCOUNT_LIMIT}'
                   WHEN (SELECT limits FROM account) IS NOT NULL THEN (SELECT limits FROM account)
                   WHEN c.next_slot_at >= :soon AND c.next_slot_at <= :impossible THEN '{PACE}'
               END AS rule,
               -- Time before these instants is not our delay: something else kept the phone from ringing.
               greatest(
                   a.due_at,
                   CASE WHEN waits.rested_until > a.created_at THEN waits.rested_until END,
                   c.resumed_at,
                   waits.overdue_at,
                   (SELECT changed_at FROM account)
               ) AS since
        FROM companies c
        LEFT JOIN calling ON calling.company_id = c.id
        CROSS JOIN LATERAL (
            SELECT a.id, a.interview_id, a.due_at, a.expires_at, a.created_at,
                   CASE
                       WHEN (SELECT are_all FROM searched) OR a.number_hash IN (SELECT number_hash FROM recent)
                           THEN a.number_hash
                   END AS searched_hash
            FROM attempts a
            WHERE a.company_id = c.id AND a.state = 'PENDING' AND a.due_at <= :now
            ORDER BY a.due_at
            LIMIT {_MOST}
        ) a
        -- OFFSET keeps this a search for each attempt. For many attempts, a join would read all lines. PostgreSQL reads
        -- no index to compare with NULL.
        LEFT JOIN LATERAL (
            SELECT l.attempt_id, l.interview_id, l.free_at, l.country
            FROM lines l
            WHERE l.number_hash = a.searched_hash
            OFFSET 0
        ) l ON TRUE
        CROSS JOIN LATERAL (
            SELECT coalesce({LINE_IS_BUSY}, FALSE) AS busy,
                   CASE WHEN l.interview_id IS DISTINCT FROM a.interview_id THEN l.free_at END AS rested_until,
                   -- Hashed once. A search for each attempt would read all waiting commands each time, because until
                   -- the next ANALYZE PostgreSQL expects none. With the limit it never expects too many to hash.
                   a.interview_id IN (
                       SELECT x.interview_id FROM inbox x
                       WHERE x.applied_at IS NULL AND x.interview_id IS NOT NULL
                       LIMIT 100000
                   ) AS held,
                   CASE
                       WHEN l.country = ANY ((SELECT countries FROM backoffs)::text[])
                           THEN '{Rule.CARRIER_REFUSES_COUNTRY}'
                       WHEN c.id = ANY ((SELECT refused FROM backoffs)::uuid[]) THEN '{Rule.CARRIER_REFUSES_CALLER}'
                       WHEN c.id = ANY ((SELECT failing FROM backoffs)::uuid[]) THEN '{Rule.CARRIER_FAILS_CALLER}'
                   END AS backoff,
                   (
                       SELECT max(o.down_until) FROM overdue o
                       WHERE o.company_id = c.id OR o.country = l.country
                   ) AS overdue_at
            -- OFFSET keeps PostgreSQL from computing these again for each use.
            OFFSET 0
        ) waits
        WHERE c.deleted_at IS NULL
    ), counted AS (
        SELECT company_id, rule,
               count(*) AS due,
               min(due_at) AS oldest_due_at,
               min(since) FILTER (WHERE since <= :now) AS since,
               count(*) FILTER (WHERE held) AS for_commands,
               count(*) FILTER (WHERE busy AND NOT held) AS for_numbers,
               count(*) FILTER (WHERE NOT busy AND NOT held) AS for_places
        FROM due
        GROUP BY company_id, rule
    ), paced AS (
        -- If more attempts wait than the pace starts in a second, they wait for slots, but not longer than that.
        SELECT counted.*, c.next_slot_at,
               rule IS NULL AND due > c.calls_per_second AS of_company,
               rule IS NULL AND sum(due) FILTER (WHERE rule IS NULL) OVER ()
                   > (SELECT calls_per_second FROM account) AS of_account
        FROM counted
        JOIN companies c ON c.id = company_id
    ), ruled AS (
        SELECT *, CASE WHEN of_company OR of_account THEN '{PACE}' ELSE rule END AS held_by FROM paced
    )
;
    held AS (
        SELECT company_id,
               jsonb_object_agg(
                   rule, jsonb_build_array(due, extract(epoch FROM :now - oldest_due_at))
               ) FILTER (WHERE rule IS NOT NULL) AS held
        FROM (
            SELECT company_id, held_by AS rule, sum(due) AS due, min(oldest_due_at) AS oldest_due_at
            FROM ruled
            GROUP BY company_id, held_by
        ) by_rule
        GROUP BY company_id
    ), late AS (
        SELECT company_id,
               sum(due) AS due,
               max(:now - greatest(
                   since,
                   CASE WHEN of_company THEN least(next_slot_at, :now) END,
                   CASE WHEN of_account THEN least((SELECT next_slot_at FROM account), :now) END
               )) FILTER (WHERE rule IS NULL) AS late,
               sum(for_commands) AS for_commands,
               sum(for_numbers) AS for_numbers,
               sum(for_places) AS for_places
        FROM paced
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
           waiting.waiting >= {_MOST} AS waiting_is_estimate,
           coalesce(late.due, 0)::integer AS due,
           late.late,
           coalesce(late.for_commands, 0)::integer AS for_commands,
           coalesce(late.for_numbers, 0)::integer AS for_numbers,
           coalesce(late.for_places, 0)::integer AS for_places,
           coalesce(held.held, '{{}}') AS held,
           waiting.next_due_at,
           coalesce(calling.in_progress, 0) AS in_progress,
           coalesce(calling.asked_for, 0) AS asked_for,
           coalesce(calling.undecided, 0) AS undecided,
           coalesce(unknown.unknown, 0) AS unknown,
           coalesce(causeless.cause_lost, 0) AS cause_lost
    FROM companies c
    LEFT JOIN late ON late.company_id = c.id
    LEFT JOIN held ON held.company_id = c.id
    -- Most attempts are here. For each company this reads the first entries of an index, and no row.
    CROSS JOIN LATERAL (
        SELECT count(*) AS waiting, min(first.due_at) AS next_due_at
        FROM (
            SELECT a.due_at
            FROM attempts a
            WHERE a.company_id = c.id AND a.state = 'PENDING' AND a.due_at > :now
            ORDER BY a.due_at
            LIMIT {_MOST}
        ) first
    ) waiting
    LEFT JOIN calling ON calling.company_id = c.id
    LEFT JOIN unknown ON unknown.company_id = c.id
    LEFT JOIN causeless ON causeless.company_id = c.id
    WHERE c.deleted_at IS NULL
    ORDER BY c.id
""".split(";")  # noqa: S608 - the inserted text is a constant of this package
"""Tables of a WITH clause, and the rest of the statement that counts.

`due` has the due attempts, each with the rule that holds it. `ruled` counts them: there `held_by` is the rule that is
shown. Attempts that no rule holds have NULL, or PACE if they are more than the pace starts.
"""

_COUNTS = text(f"WITH {DUE_BY_RULE}, {_TOTALS}")

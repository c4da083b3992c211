"""Attempts: release of due ones, so that workers claim them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import or_, text, update

from scheduler.domain.attempt import AttemptState
from scheduler.lifecycle.capacity import in_turns
from scheduler.lifecycle.policy import (
    EARLY_RELEASE_LASTS,
    RELEASE_SPAN,
    SEND_SPAN,
    UNREADABLE_FOR,
    latest_release,
    latest_slot,
)
from scheduler.persistence.attempt_holds import LINE, WINDOW, first_of_company
from scheduler.persistence.call_conditions import (
    COMPANY_MAY_CALL,
    IS_NOT_RELEASED,
    LINE_IS_BUSY,
    OF_BACKOFF,
    command_waits,
)
from scheduler.persistence.rows import from_row
from scheduler.persistence.store import Store, is_set
from scheduler.persistence.tables import attempts

MOST_RELEASED = 500
"""The most attempts that a round releases."""


@dataclass(frozen=True, kw_only=True)
class Outstanding:
    """Numbers of attempts that are released and not yet claimed."""

    all: int
    early: int
    """Released attempts that are not due yet."""
    calls: int = 0
    """The calls in progress of the account."""


class AttemptRelease(Store):
    def release(
        self,
        now: datetime,
        until: datetime,
        limit: int,
        account_id: int | None = None,
        *,
        first: int = 0,
        places: int | None = None,
        on_trial: bool = False,
        tried_since: datetime | None = None,
        unanswered: int = 0,
        early: int = 0,
        due_by: datetime | None = None,
    ) -> dict[UUID, datetime]:
        """Release up to `limit` due attempts that seem claimable without locks. They count as released until `until`.

        Returns their due times in the order of dialling. Among them are up to `early` attempts that become due by
        `due_by`. These take no place from due attempts, and no room that their company needs for them. They count as
        released until `EARLY_RELEASE_LASTS` after they are due.

        Companies take turns. Each gets only as many as its room and pace allow, and none before its next call may
        start, so that a company with thousands of attempts or a slow pace does not delay another one. A company's
        manual calls (invokes) go first within its own turn only, so that they do not delay other companies' retries.
        `first`: among them is the first attempt of each company without a released one, for up to so many companies.
        `places`: up to so many for companies with a call in progress or a released attempt. None: up to `limit`.
        `on_trial`: companies whose calls got no instructions come last, the latest failure at the end. If the last
        trial could not be claimed, the next one is another company's, because nothing else is tried while a trial is
        released.
        `tried_since`: the answer to the probe. A company whose trial since then was not placed, for example because its
        number was refused at the last look, comes after all others: their calls must not wait for each of its own.
        `unanswered`: the last trials in a row that were not answered. Of the companies whose calls started last, so
        many come after the others, in turns: the calls of all must not wait for a company whose people do not answer.
        """
        rows = self._connection.execute(
            _RELEASE,
            {
                "on_trial": on_trial,
                "tried_since": tried_since,
                "released_since": None if tried_since is None else tried_since + RELEASE_SPAN,
                "unanswered": unanswered,
                "account_id": account_id,
                "now": now,
                "due_by": now if due_by is None else due_by,
                "early": early,
                "soon": now + SEND_SPAN,
                "until": until,
                "early_lasts": EARLY_RELEASE_LASTS,
                "latest": latest_release(now),
                "latest_unreadable": now + 2 * UNREADABLE_FOR,
                "latest_slot": latest_slot(now, 1.0) - timedelta(seconds=1),
                "limit": limit,
                "first": first,
                "places": limit if places is None else places,
                "span_s": (until - now).total_seconds(),
            },
        ).all()
        return {row.id: row.due_at for row in in_turns(rows)}

    def release_again(self, interview_id: UUID) -> bool:
        """End the release and the hold of the interview's pending attempt, if any. True: its hint may be lost."""
        rows = self._connection.execute(
            update(attempts)
            .where(
                attempts.c.interview_id == interview_id,
                attempts.c.state == AttemptState.PENDING.value,
                or_(is_set(attempts.c.released_until), is_set(attempts.c.held_until)),
            )
            .values(released_until=None, held_until=None)
            .returning(attempts.c.id)
        )
        return rows.first() is not None

    def released(self, now: datetime, account_id: int) -> Outstanding:
        """Count the attempts that are released and not yet claimed. A release from the future is not counted."""
        values = {"now": now, "latest": latest_release(now), "account_id": account_id}
        return from_row(Outstanding, self._connection.execute(_COUNT_RELEASED, values).one())

    def next_due(self, after: datetime) -> datetime | None:
        """Find the instant at which the next pending attempt that is not released becomes due."""
        values = {"after": after, "latest": latest_release(after)}
        due_at: datetime | None = self._connection.execute(_NEXT_DUE, values).scalar_one_or_none()
        return due_at


_RELEASE = text(f"""
    WITH calling AS (
        SELECT company_id, count(*) AS calls FROM attempts WHERE state = 'IN_PROGRESS' GROUP BY company_id
    ), released AS (
        SELECT company_id, count(*) AS calls, count(*) FILTER (WHERE due_at <= :now) AS due FROM attempts
        WHERE state = 'PENDING' AND released_until IS NOT NULL AND released_until > :now
          AND released_until <= :latest  -- guard: release_of_company
        GROUP BY company_id
    ), turns AS (
        SELECT due.id, due.due_at, due.due_at > :now AS early, room.early AS room_for_early, due.released_until,
            -- The trial is not always a call of the company whose conversations fail.
            CASE WHEN CAST(:on_trial AS boolean) THEN (
                SELECT max(f.claimed_at) FROM attempts f WHERE f.company_id = c.id AND f.instructions_failed
            ) END AS failed_at,
            -- Its trial was claimed or released, and is not placed.
            greatest(
                CASE WHEN slot.at > CAST(:tried_since AS timestamptz) THEN slot.at END,
                CASE WHEN due.released_until > CAST(:released_since AS timestamptz) THEN due.released_until END
            ) AS tried_at,
            CASE WHEN CAST(:on_trial AS boolean) THEN
                slot.at - interval '1 second' / c.calls_per_second
            END AS started_at,
            coalesce(released.due, 0) = 0 AS none_released,
            coalesce(released.due, 0) = 0 AND coalesce(calling.calls, 0) = 0 AS has_no_call,
            row_number() OVER (PARTITION BY c.id ORDER BY due.due_at > :now, due.manual DESC, due.due_at) AS turn
        FROM companies c
        LEFT JOIN calling ON calling.company_id = c.id
        LEFT JOIN released ON released.company_id = c.id
        CROSS JOIN LATERAL (SELECT least(
            c.concurrent_calls - coalesce(calling.calls, 0), ceil(c.calls_per_second * :span_s)
        ) AS calls) startable
        -- A later one, taken on a wrong clock, says nothing of the company's last call.
        CROSS JOIN LATERAL (SELECT CASE WHEN c.next_slot_at < :soon THEN c.next_slot_at END AS at) slot
        -- Early ones count only among themselves. Otherwise they would delay a call that is due at once.
        CROSS JOIN LATERAL (SELECT
            greatest(0, least(greatest(:limit, 1), startable.calls - coalesce(released.due, 0))) AS calls,
            startable.calls - coalesce(released.calls, 0) AS early
        ) room
        CROSS JOIN LATERAL (
            SELECT earliest.*
            FROM (VALUES (true), (false)) AS kind (by_hand)
            -- Manual and other attempts separately, so that only the rows that are taken are read.
            CROSS JOIN LATERAL (
                SELECT a.id, a.manual, a.due_at, a.released_until
                FROM ({first_of_company(MOST_RELEASED + WINDOW)}) a
                {LINE}
                WHERE NOT {LINE_IS_BUSY}
                  AND NOT {command_waits()}
                  -- Attempts that wait for the carrier block no others; a trial is released separately.
                  AND NOT EXISTS (SELECT {OF_BACKOFF})
                ORDER BY a.place
                LIMIT room.calls
            ) earliest
            ORDER BY earliest.due_at > :now, earliest.manual DESC, earliest.due_at
            LIMIT room.calls
        ) due
        WHERE {COMPANY_MAY_CALL}
          -- A later slot was taken on a wrong clock, see `capacity.Pace.of_this_clock`.
          AND (c.next_slot_at < :soon
               OR c.next_slot_at > CAST(:latest_slot AS timestamptz) + interval '1 second' / c.calls_per_second)
    ), unanswered AS (
        -- Trials start after all other calls.
        SELECT min(started_at) AS since
        FROM (SELECT started_at FROM turns WHERE turn = 1 ORDER BY started_at DESC NULLS LAST LIMIT :unanswered) latest
    ), ranked AS (
        SELECT *, row_number() OVER (
            PARTITION BY turn = 1 AND has_no_call
            ORDER BY turn, tried_at NULLS FIRST, unanswered_at NULLS FIRST, failed_at NULLS FIRST,
                CASE WHEN CAST(:on_trial AS boolean) THEN released_until END NULLS FIRST, due_at
        ) AS rank
        FROM (
            SELECT *, CASE WHEN started_at >= (SELECT since FROM unanswered) THEN started_at END AS unanswered_at
            FROM turns
            WHERE NOT early
        ) due_turns
    ), due_now AS (
        SELECT id FROM ranked
        WHERE (turn = 1 AND has_no_call) OR rank <= :places  -- guard: release_kept_places
        ORDER BY turn,
            tried_at NULLS FIRST,  -- guard: trial_in_turns
            unanswered_at NULLS FIRST,  -- guard: trial_after_no_answer
            failed_at NULLS FIRST,  -- guard: trial_of_another
            CASE WHEN CAST(:on_trial AS boolean) THEN released_until END NULLS FIRST, due_at
        LIMIT :limit
    ), first_of_companies AS (
        SELECT id FROM turns
        WHERE NOT early AND turn = 1 AND none_released AND (has_no_call OR :places > 0)
        ORDER BY due_at
        LIMIT :first
    ), due_soon AS (
        SELECT id FROM turns
        WHERE early AND turn <= room_for_early AND (has_no_call OR :places > 0)
        ORDER BY turn, due_at
        LIMIT least(:early, :limit - (SELECT count(*) FROM due_now))
    )
    UPDATE attempts
    SET released_until = CASE WHEN due_at > :now THEN due_at + CAST(:early_lasts AS interval) ELSE :until END
    WHERE id = ANY (ARRAY (
        SELECT a.id
        FROM attempts a
        JOIN (
            SELECT id FROM due_now UNION SELECT id FROM first_of_companies UNION ALL SELECT id FROM due_soon
        ) chosen ON chosen.id = a.id
        WHERE a.state = 'PENDING'
          -- It may have been moved since it was chosen.
          AND a.due_at <= :due_by  -- guard: release_moved
          AND {IS_NOT_RELEASED}
        FOR NO KEY UPDATE OF a SKIP LOCKED
    ))
    RETURNING id, company_id, manual, due_at
""")  # noqa: S608 - the inserted text is a constant of this package


_COUNT_RELEASED = text("""
    SELECT count(*) AS "all", count(*) FILTER (WHERE due_at > :now) AS early,
           (SELECT count(*) FROM attempts WHERE state = 'IN_PROGRESS' AND account_id = :account_id) AS calls
    FROM attempts
    WHERE state = 'PENDING' AND released_until IS NOT NULL AND released_until > :now
      AND released_until <= :latest  -- guard: release_of_account
""")


_NEXT_DUE = text("""
    SELECT min(due_at) FROM attempts
    WHERE state = 'PENDING' AND due_at > :after
      AND (released_until IS NULL OR released_until <= :after OR released_until > :latest)
""")

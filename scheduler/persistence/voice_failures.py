"""Calls for which the voice server gave no instructions, in a row, and the trial calls that follow them."""

from datetime import datetime, timedelta

from sqlalchemy import text

from scheduler.domain.call import CallProgress
from scheduler.lifecycle.breaker import BACK_OFF
from scheduler.lifecycle.policy import POLL_AFTER_RING, RING_MARGIN
from scheduler.lifecycle.voice_server import TRIAL_LASTS, Failures, Trial
from scheduler.persistence.rows import from_row
from scheduler.persistence.store import Store

_OF_COMPANY = """
            SELECT talk.claimed_at, u.booked_at
            FROM usage u
            CROSS JOIN LATERAL (
                SELECT a.claimed_at FROM attempts a
                WHERE a.id = u.attempt_id
                  -- Instructions may also fail after a conversation was reported.
                  AND a.instructions_failed IS NOT TRUE  -- guard: failed_conversation
                OFFSET 0  -- by their keys, however many bookings are expected
            ) talk
            WHERE u.company_id = c.id AND u.booked_at >= :since
"""
_CONVERSATIONS = f"""
    newest AS (
        -- The earlier time, because a trial may be claimed after its end on a clock that was set back.
        SELECT max(least(talk.claimed_at, talk.booked_at)) AS at
        FROM companies c
        CROSS JOIN LATERAL ({_OF_COMPANY}
            ORDER BY u.booked_at DESC
            LIMIT 1
        ) talk
    ), conversations AS (
        -- An older call may have ended after a newer one. A call that was claimed later was booked later than that.
        SELECT max(talk.claimed_at) AS last_at
        FROM companies c
        CROSS JOIN LATERAL ({_OF_COMPANY}
              AND u.booked_at >= (SELECT at FROM newest)
        ) talk
    )
"""  # noqa: S608 - the inserted text is a constant of this module
_IN_A_ROW = text(f"""
    WITH {_CONVERSATIONS}
    SELECT count(*) AS calls, count(DISTINCT a.company_id) AS companies
    FROM attempts a
    WHERE a.instructions_failed AND a.account_id = :account_id
      AND a.claimed_at > greatest(:since, (SELECT last_at FROM conversations))
""")  # noqa: S608 - the inserted text is a constant of this module
_TRIAL = text(f"""
    WITH trials AS (
        SELECT heard_rank, claimed_at, updated_at,
               -- A poll is planned for the time at which it has rung.
               heard_rank < :ringing AND looks = 0 AND look_at > :rung_by AS is_queued,
               heard_rank < 0 AND phase = 'PLACED' AND hang_up IS NULL AS has_no_news
        FROM attempts
        WHERE state = 'IN_PROGRESS' AND account_id = :account_id AND claimed_at >= :since
          AND phase <> 'UNKNOWN'
          AND instructions_failed IS NOT TRUE
    ), machines AS (
        -- They got their instructions, and are not booked.
        SELECT FROM attempts
        WHERE reason = 'VOICEMAIL' AND account_id = :account_id AND claimed_at >= :since
          AND instructions_failed IS NOT TRUE
    ), {_CONVERSATIONS}
    SELECT EXISTS (
               SELECT FROM trials
               WHERE heard_rank < :answered AND claimed_at > :rings_since
                  OR heard_rank = :ringing AND updated_at > :rings_since
                  OR is_queued AND claimed_at > :queued_since
                  OR heard_rank >= :answered AND updated_at > :answered_since
           ) AS is_open,
           EXISTS (
               SELECT FROM trials
               WHERE heard_rank >= :answered OR has_no_news AND NOT is_queued  -- guard: trial_without_answer
           )
               OR EXISTS (SELECT FROM machines)  -- guard: trial_of_a_machine
               OR EXISTS (SELECT FROM conversations WHERE last_at >= :since) AS has_succeeded
""")  # noqa: S608 - the inserted text is a constant of this module
_IS_PLACED = text("""
    SELECT EXISTS (
        SELECT FROM attempts
        WHERE state = 'IN_PROGRESS' AND account_id = :account_id AND phase = 'PLACED' AND claimed_at >= :since
    )
""")


class VoiceFailures(Store):
    def in_a_row(self, account_id: int, since: datetime) -> Failures:
        """Count the account's calls without instructions that were claimed after `since` and the last conversation."""
        row = self._connection.execute(_IN_A_ROW, {"account_id": account_id, "since": since}).one()
        return from_row(Failures, row)

    def is_tried(self, account_id: int, since: datetime) -> bool:
        """Return True if a call is placed that was claimed from `since` on."""
        return bool(self._connection.execute(_IS_PLACED, {"account_id": account_id, "since": since}).scalar_one())

    def trial(self, account_id: int, since: datetime, now: datetime, rings_for: timedelta) -> Trial:
        """Read how far the calls are that were claimed from `since` on. A phone rings for `rings_for` at most.

        A call in the carrier's queue is awaited for five minutes longer, because all others would be queued behind it.
        """
        values = {
            "account_id": account_id,
            "since": since,
            "ringing": CallProgress.RINGING,
            "answered": CallProgress.ANSWERED,
            "rings_since": now - rings_for,
            "queued_since": now - rings_for - BACK_OFF[-1],
            "rung_by": now + POLL_AFTER_RING - RING_MARGIN,
            "answered_since": now - TRIAL_LASTS,
        }
        return from_row(Trial, self._connection.execute(_TRIAL, values).one())

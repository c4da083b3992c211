"""Corrections: rows with an instant that no rule can produce, found by an index and written once."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import TextClause, text

from scheduler.domain.attempt import Attempt
from scheduler.lifecycle.policy import BATCH_RETRIED_AFTER, SLACK, CallBounds, latest_written
from scheduler.persistence.attempt_holds import LONGEST_HOLD, SHORT_HOLD
from scheduler.persistence.attempt_rows import attempt_of
from scheduler.persistence.rows import as_columns
from scheduler.persistence.store import Store
from scheduler.persistence.tables import attempts
from scheduler.persistence.webhook_holds import END_BEHIND
from scheduler.persistence.webhook_holds import LONGEST_HOLD as HOLD_OF_A_DELIVERY
from scheduler.rules.webhooks import LONGEST_WAIT, NOT_SENT_AGAIN_AFTER


def _locking(condition: str) -> TextClause:
    return text(f"SELECT * FROM attempts WHERE {condition} LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED")  # noqa: S608 - of this module


_LOCK_LEASED = _locking("lease_until IS NOT NULL AND (lease_until > :lease_until OR claimed_at > :written)")
_LOCK_LOOKED_AT = _locking("""
    look_at IS NOT NULL AND (
        claimed_at > :written
        OR unknown_at > :written
        OR listed_at > :written
        -- The rule of `policy.latest_look`.
        OR look_at > CASE
            WHEN phase = 'UNKNOWN' OR hang_up IS NOT NULL THEN CAST(:look_at_asked AS timestamptz)
            WHEN looks = 0 AND updated_at <= :written THEN :look_at_queued
            ELSE :look_at
        END
    )
""")
_LOCK_SEARCHED = _locking(
    "search_at IS NOT NULL AND (search_at > :look_at OR claimed_at > :written OR listed_at > :written)"
)
_LOCK_PENDING = _locking("state = 'PENDING' AND updated_at > :written")

_SAVE_CALLS = text("""
    UPDATE attempts a
    SET claimed_at = c.claimed_at, unknown_at = c.unknown_at, lease_until = c.lease_until, look_at = c.look_at,
        search_at = c.search_at, listed_at = c.listed_at, updated_at = c.updated_at
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:claimed_at AS timestamptz[]), CAST(:unknown_at AS timestamptz[]),
        CAST(:lease_until AS timestamptz[]), CAST(:look_at AS timestamptz[]), CAST(:search_at AS timestamptz[]),
        CAST(:listed_at AS timestamptz[]), CAST(:updated_at AS timestamptz[])
    ) AS c (id, claimed_at, unknown_at, lease_until, look_at, search_at, listed_at, updated_at)
    WHERE a.id = c.id
""")

_UPDATED_NOW = text("UPDATE attempts SET updated_at = :now, released_until = NULL WHERE id = ANY (:ids)")

_SHORTEN_RESTS = text("""
    UPDATE lines
    SET free_at = CASE WHEN interview_id IS NULL THEN CAST(:kept AS timestamptz) ELSE :rests END
    WHERE number_hash = ANY (ARRAY (
        SELECT number_hash FROM lines
        WHERE free_at > :rests AND (interview_id IS NOT NULL OR free_at > :kept)
        ORDER BY free_at DESC
        LIMIT :limit
        FOR NO KEY UPDATE SKIP LOCKED
    ))
""")

# A hold for a line is longer than the others, and its line is marked. A round looks at this many holds of each company.
_END_HOLDS = text("""
    UPDATE attempts SET held_until = NULL
    WHERE id = ANY (ARRAY (
        SELECT a.id
        FROM companies c
        CROSS JOIN LATERAL (
            SELECT h.id, h.held_until, h.number_hash FROM attempts h
            WHERE h.company_id = c.id AND h.state = 'PENDING' AND h.held_until > '-infinity' AND h.held_until > :short
            ORDER BY h.held_until DESC
            LIMIT :limit
        ) held
        JOIN attempts a ON a.id = held.id
        WHERE a.state = 'PENDING' AND (
            held.held_until > :long
            OR NOT EXISTS (SELECT FROM lines l WHERE l.number_hash = held.number_hash AND l.is_awaited)
        )
        LIMIT :limit
        FOR NO KEY UPDATE OF a SKIP LOCKED
    ))
""")

_HASTEN_BATCHES = text("""
    UPDATE batches SET work_at = :now
    WHERE id = ANY (ARRAY (
        SELECT id FROM batches
        WHERE finished_at IS NULL AND work_at > :latest
        ORDER BY work_at DESC
        LIMIT :limit
        FOR NO KEY UPDATE SKIP LOCKED
    ))
""")

# No index holds when a delivery was written. A round looks at the next and the last messages of each endpoint.
_LOOKED_AT = 500
_OF_ENDPOINT = """
    SELECT w.* FROM webhook_deliveries w
    WHERE w.endpoint_id = e.id AND w.state = 'WAITING' AND w.is_replay = kind.is_replay AND w.send_at > :written
    ORDER BY w.send_at
"""
_HASTEN_DELIVERIES = text(f"""
    WITH found AS MATERIALIZED (
        SELECT ahead.event_id, ahead.endpoint_id
        FROM webhook_endpoints e
        CROSS JOIN (VALUES (false), (true)) AS kind (is_replay)
        CROSS JOIN LATERAL (
            ({_OF_ENDPOINT} LIMIT {_LOOKED_AT}) UNION ALL ({_OF_ENDPOINT} DESC LIMIT {_LOOKED_AT})
        ) ahead
        WHERE e.is_active AND e.disabled_at IS NULL AND (
            ahead.tries = 0 AND (ahead.created_at > :written OR ahead.send_at > :latest_first)
            OR ahead.last_tried_at > :written OR ahead.first_failed_at > :written OR ahead.send_at > :latest
        )
        LIMIT :limit
    ), wrong AS MATERIALIZED (
        SELECT DISTINCT d.event_id, d.endpoint_id
        FROM found
        CROSS JOIN LATERAL (
            SELECT w.event_id, w.endpoint_id FROM webhook_deliveries w
            WHERE w.event_id = found.event_id AND w.endpoint_id = found.endpoint_id AND w.state = 'WAITING'
            LIMIT 1
            FOR NO KEY UPDATE SKIP LOCKED
        ) d
    )
    UPDATE webhook_deliveries d
    SET send_at = CASE
            WHEN d.tries = 0 THEN least(d.send_at, :now)
            -- One clock wrote both. The wait between them is right, and counted from now.
            WHEN d.last_tried_at > :written THEN
                least(d.send_at, :now + least(d.send_at - d.last_tried_at, CAST(:longest AS interval)))
            WHEN d.send_at > :latest THEN :now
            ELSE d.send_at
        END,
        created_at = least(d.created_at, :now),
        last_tried_at = CASE WHEN d.last_tried_at > :written THEN :now ELSE d.last_tried_at END,
        -- Later events of the interview wait for a minute from it.
        first_failed_at = CASE WHEN d.first_failed_at > :written THEN :now ELSE d.first_failed_at END
    FROM wrong
    -- The first condition makes the planner read them by the key.
    WHERE d.event_id = ANY (ARRAY (SELECT event_id FROM wrong))
      AND d.event_id = wrong.event_id AND d.endpoint_id = wrong.endpoint_id
    RETURNING d.event_id, d.endpoint_id
""")  # noqa: S608 - the inserted texts are constants

_END_HOLDS_OF_DELIVERIES = text("""
    UPDATE webhook_deliveries d SET held_until = NULL
    FROM (
        SELECT held.event_id, held.endpoint_id
        FROM webhook_endpoints e
        CROSS JOIN LATERAL (
            SELECT h.event_id, h.endpoint_id FROM webhook_deliveries h
            WHERE h.endpoint_id = e.id AND h.state = 'WAITING' AND h.held_until > '-infinity' AND h.held_until > :latest
            ORDER BY h.held_until DESC
            LIMIT :limit
            FOR NO KEY UPDATE SKIP LOCKED
        ) held
        LIMIT :limit
    ) held
    WHERE d.event_id = held.event_id AND d.endpoint_id = held.endpoint_id
""")


class Corrections(Store):
    def lock_impossible_calls(self, bounds: CallBounds, limit: int) -> list[Attempt]:
        """Lock up to `limit` attempts of each kind with an instant beyond its bound, except rows in use."""
        values = as_columns(bounds, limit=limit)
        found = [
            *self._readable(attempts, attempt_of, _LOCK_LEASED, values),
            *self._readable(attempts, attempt_of, _LOCK_LOOKED_AT, values),
            *self._readable(attempts, attempt_of, _LOCK_SEARCHED, values),
        ]
        return list({each.id: each for each in found}.values())

    def save_calls(self, corrected: Sequence[Attempt]) -> None:
        """Write the fields that `policy.call_corrected` changes. The caller has locked the rows."""
        names = ("claimed_at", "unknown_at", "lease_until", "look_at", "search_at", "listed_at", "updated_at")
        instants = {name: [getattr(each, name) for each in corrected] for name in names}
        self._connection.execute(_SAVE_CALLS, {"ids": [each.id for each in corrected], **instants})

    def lock_impossible_pending(self, written: datetime, limit: int) -> list[Attempt]:
        """Lock up to `limit` pending attempts that were last written after `written`, except rows in use."""
        return self._readable(attempts, attempt_of, _LOCK_PENDING, {"written": written, "limit": limit})

    def written_now(self, attempt_ids: Sequence[UUID], now: datetime) -> None:
        """Replace the future instant at which these rows were written. The caller has locked them."""
        self._connection.execute(_UPDATED_NOW, {"ids": list(attempt_ids), "now": now})

    def shorten_rests(self, rests: datetime, kept: datetime, limit: int) -> int:
        """Shorten the gap of up to `limit` lines: to `rests` after one interview's call, else to `kept`."""
        return self._connection.execute(_SHORTEN_RESTS, {"rests": rests, "kept": kept, "limit": limit}).rowcount

    def end_impossible_holds(self, now: datetime, limit: int) -> int:
        """End up to `limit` holds that are longer than a hold can be. They decide nothing, so ending one is safe."""
        short, long = now + SHORT_HOLD + SLACK, now + LONGEST_HOLD + SLACK
        return self._connection.execute(_END_HOLDS, {"short": short, "long": long, "limit": limit}).rowcount

    def hasten_batches(self, now: datetime, limit: int) -> int:
        """Let up to `limit` batches go on that were put off beyond what their rule can produce."""
        values = {"now": now, "latest": now + BATCH_RETRIED_AFTER + SLACK, "limit": limit}
        return self._connection.execute(_HASTEN_BATCHES, values).rowcount

    def hasten_deliveries(self, now: datetime, limit: int) -> int:
        """Correct up to `limit` waiting deliveries that a wrong clock has written. Their waits are counted from now."""
        written = latest_written(now)
        values = {
            "now": now,
            "written": written,
            "latest_first": written + NOT_SENT_AGAIN_AFTER,
            "latest": written + LONGEST_WAIT,
            "longest": LONGEST_WAIT,
            "limit": limit,
        }
        hastened = self._connection.execute(_HASTEN_DELIVERIES, values).all()
        for each in hastened:
            # Others are held until a minute after its failure.
            self._connection.write(END_BEHIND, tuple(each), each._asdict())
        return len(hastened)

    def end_hook_holds(self, now: datetime, limit: int) -> int:
        """End up to `limit` holds of deliveries that are longer than a hold can be."""
        values = {"latest": now + HOLD_OF_A_DELIVERY + SLACK, "limit": limit}
        return self._connection.execute(_END_HOLDS_OF_DELIVERIES, values).rowcount

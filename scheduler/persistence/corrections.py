"""Corrections: rows with an instant that no rule can produce, found by an index and written once."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from scheduler.domain.attempt import Attempt
from scheduler.lifecycle.bounds import CallBounds
from scheduler.persistence.attempts import attempt_of
from scheduler.persistence.rows import as_columns
from scheduler.persistence.store import Store
from scheduler.persistence.tables import attempts

_LOCK_LEASED = text("""
    SELECT * FROM attempts
    WHERE lease_until IS NOT NULL AND (lease_until > :lease_until OR claimed_at > :written)
    LIMIT :limit
    FOR NO KEY UPDATE SKIP LOCKED
""")

_LOCK_LOOKED_AT = text("""
    SELECT * FROM attempts
    WHERE look_at IS NOT NULL AND (
        claimed_at > :written
        OR unknown_at > :written
        OR listed_at > :written
        -- The rule of `bounds.latest_look`.
        OR look_at > CASE
            WHEN phase = 'UNKNOWN' OR hang_up IS NOT NULL THEN CAST(:look_at_asked AS timestamptz)
            WHEN looks = 0 AND updated_at <= :written THEN :look_at_queued
            ELSE :look_at
        END
    )
    LIMIT :limit
    FOR NO KEY UPDATE SKIP LOCKED
""")

_LOCK_SEARCHED = text("""
    SELECT * FROM attempts
    WHERE search_at IS NOT NULL AND (search_at > :look_at OR claimed_at > :written OR listed_at > :written)
    LIMIT :limit
    FOR NO KEY UPDATE SKIP LOCKED
""")

_LOCK_PENDING = text("""
    SELECT * FROM attempts
    WHERE state = 'PENDING' AND updated_at > :written
    LIMIT :limit
    FOR NO KEY UPDATE SKIP LOCKED
""")

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
        """Write the fields that `bounds.call_corrected` changes. The caller has locked the rows."""
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

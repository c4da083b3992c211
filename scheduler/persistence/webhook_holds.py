"""Holds: deliveries behind an earlier one of their interview leave the range that looks read, until they may be sent.

A hold never decides: the claim tests the order. A look sets holds while it has locked the endpoint, and so does a
record that ends them, so neither misses the other. In any case a hold ends at `held_until`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from scheduler.persistence.store import Store, statement
from scheduler.rules.webhooks import MOST_IN_FLIGHT

WINDOW = 16
"""Deliveries of each endpoint that a look reads: more than can be in flight or sent at once."""
LARGE_WINDOW = 100
"""Deliveries of an endpoint whose whole window had to be held."""
_LARGE_WINDOWS = 2
"""Endpoints with a large window in one look, so that it stays short."""
LONGEST_HOLD = timedelta(hours=1)
"""Behind a delivery that has not failed. Its result ends the hold, and this end is only a safeguard."""
_ENDED_OF_INTERVIEW = 20
"""Holds that one result ends. The results of these deliveries end the next ones."""

_IS_EARLIER = """
    b.endpoint_id = d.endpoint_id AND b.interview_id = d.interview_id AND b.sequence < d.sequence
    AND b.state = 'WAITING' AND NOT b.is_replay
"""
# Not by EXISTS, and in order: otherwise the planner may read all deliveries. Each reads one row of
# `ix_webhook_deliveries_blocking`, however many events the interview has.
_NEVER_FAILED = f"""
    (SELECT true FROM webhook_deliveries b
     WHERE {_IS_EARLIER} AND b.first_failed_at IS NULL ORDER BY b.first_failed_at, b.sequence LIMIT 1)
"""  # noqa: S608 - the inserted text is a constant
# A failure in the future was written by a wrong clock.
_FAILED_JUST_NOW = f"""
    (SELECT least(b.first_failed_at, :now) + CAST(:waits AS interval) FROM webhook_deliveries b
     WHERE {_IS_EARLIER} AND b.first_failed_at > :failed_since ORDER BY b.first_failed_at DESC LIMIT 1)
"""  # noqa: S608 - as above
IS_IN_TURN = f"(d.is_replay OR {_NEVER_FAILED} IS NULL AND {_FAILED_JUST_NOW} IS NULL)"
"""The rule is `rules.webhooks`."""
IS_UNLEASED = """
    true
    AND (d.lease_until IS NULL OR d.lease_until <= :now OR d.lease_until > :latest_lease)  -- guard: hook_lease
"""
"""A lease that ends later than any new one was written by a wrong clock."""
IN_RANGE = "d.finished_at IS NULL AND d.held_until IS NULL AND greatest(d.send_at, d.held_until) <= :now"
"""Condition, range and order are those of `ix_webhook_deliveries_sendable` alone: a delivery without an end is WAITING.
Otherwise the planner reads the held ones by another index, because statistics do not show what was held since."""
IN_ORDER_OF_RANGE = "greatest(d.send_at, d.held_until), d.place"
HOLD_IS_OVER = "d.finished_at IS NULL AND d.held_until > '-infinity' AND d.held_until <= :now"
"""Range of `ix_webhook_deliveries_held_until` alone, by both conditions. With old statistics, and with a plan that a
connection keeps, the planner would read all held deliveries of an endpoint by another index, or by this one."""
IS_ONE_IN_RANGE = f"""
    SELECT true FROM webhook_deliveries d
    WHERE d.endpoint_id = w.id AND {{kind}} AND {IN_RANGE} AND {IS_UNLEASED}
    ORDER BY {IN_ORDER_OF_RANGE} LIMIT 1
"""  # noqa: S608 - the inserted texts are constants
"""A blocked delivery also counts. It is held in the next look."""
IS_ONE_HOLD_OVER = f"""
    SELECT true FROM webhook_deliveries d
    WHERE d.endpoint_id = w.id AND {HOLD_IS_OVER} AND {IS_UNLEASED}
    ORDER BY d.held_until LIMIT 1
"""  # noqa: S608 - as above
HAS_BLOCKED = f"""
    coalesce(
        (SELECT true
         FROM (SELECT d.* FROM webhook_deliveries d
               WHERE d.endpoint_id = w.id AND NOT d.is_replay AND {IN_RANGE}
               ORDER BY {IN_ORDER_OF_RANGE} LIMIT {WINDOW}) d
         WHERE {IS_UNLEASED} AND NOT {IS_IN_TURN}
         LIMIT 1),
        ({IS_ONE_HOLD_OVER}),  -- guard: hook_hold_looked_at
        false)
"""  # noqa: S608 - as above
"""Holds have to be set or ended."""


def _hold(window: int) -> str:
    return f"""
        WITH chosen AS MATERIALIZED (
            SELECT w.event_id, w.endpoint_id, w.blocked_until
            FROM unnest(CAST(:ids AS uuid[])) AS e (id)
            CROSS JOIN LATERAL (
                SELECT d.event_id, d.endpoint_id, d.held_until,
                       CASE WHEN {_NEVER_FAILED} THEN CAST(:longest AS timestamptz)
                            ELSE {_FAILED_JUST_NOW} END AS blocked_until
                FROM (
                    (SELECT d.* FROM webhook_deliveries d
                     WHERE d.endpoint_id = e.id AND NOT d.is_replay AND {IN_RANGE}
                     ORDER BY {IN_ORDER_OF_RANGE} LIMIT {window})
                    UNION ALL
                    (SELECT d.* FROM webhook_deliveries d
                     WHERE d.endpoint_id = e.id AND {HOLD_IS_OVER}
                     ORDER BY d.held_until LIMIT {window})
                ) d
                WHERE {IS_UNLEASED}
                -- It tells the planner how many rows there are, and has the order tested once for each.
                LIMIT {2 * window}
            ) w
            -- A hold that is over becomes the next one, or ends.
            WHERE w.blocked_until IS DISTINCT FROM w.held_until
        ), changed AS (
            UPDATE webhook_deliveries d SET held_until = g.blocked_until
            FROM chosen g
            -- The first condition makes the planner read them by the key.
            WHERE d.event_id = ANY (ARRAY (SELECT c.event_id FROM chosen c))
              AND d.event_id = g.event_id AND d.endpoint_id = g.endpoint_id AND d.state = 'WAITING'
            RETURNING d.endpoint_id
        ), served AS (
            -- It has had its turn. Otherwise endpoints with many deliveries to hold would come first each time.
            UPDATE webhook_endpoints w SET claimed_at = :now
            WHERE w.id = ANY (ARRAY (SELECT c.endpoint_id FROM changed c))
        )
        SELECT c.endpoint_id FROM changed c
    """  # noqa: S608 - the inserted texts are constants


_HOLD = text(_hold(WINDOW))
_HOLD_MANY = text(_hold(LARGE_WINDOW))

# The first held one that has not failed blocks all that follow, so only it and those before it are looked at again.
_END_BEHIND = f"""
    UPDATE webhook_deliveries d SET held_until = NULL
    FROM (
        SELECT DISTINCT first.event_id, first.endpoint_id
        FROM (SELECT * FROM json_to_recordset(CAST(%(rows)s AS json)) AS x (event_id uuid, endpoint_id uuid)
              LIMIT %(count)s) g
        CROSS JOIN LATERAL (
            SELECT r.interview_id FROM webhook_deliveries r
            WHERE r.event_id = g.event_id AND r.endpoint_id = g.endpoint_id LIMIT 1
        ) r
        CROSS JOIN LATERAL (
            SELECT h.event_id, h.endpoint_id,
                   count(*) FILTER (WHERE h.first_failed_at IS NULL) OVER (ORDER BY h.sequence) AS nth,
                   h.first_failed_at IS NULL AS is_unfailed
            FROM (
                SELECT h.* FROM webhook_deliveries h
                WHERE h.endpoint_id = g.endpoint_id AND h.interview_id = r.interview_id
                  AND h.state = 'WAITING' AND h.held_until IS NOT NULL
                  -- The same statement saves those, and must not change them twice.
                  AND (h.event_id, h.endpoint_id) NOT IN (
                      SELECT s.event_id, s.endpoint_id
                      FROM json_to_recordset(CAST(%(rows)s AS json)) AS s (event_id uuid, endpoint_id uuid))
                ORDER BY h.sequence LIMIT {_ENDED_OF_INTERVIEW}
            ) h
        ) first
        WHERE first.nth = 0 OR first.nth = 1 AND first.is_unfailed
        LIMIT {_ENDED_OF_INTERVIEW} * %(count)s
    ) first
    WHERE d.event_id = first.event_id AND d.endpoint_id = first.endpoint_id AND d.state = 'WAITING'
"""  # noqa: S608 - the inserted number is a constant


END_BEHIND = statement("held webhook_deliveries", _END_BEHIND, turn=2)
"""Ends the holds behind deliveries with a result, after it is saved. Their endpoints are locked."""


class WebhookHolds(Store):
    def hold(self, endpoint_ids: Sequence[UUID], now: datetime, values: Mapping[str, object]) -> bool:
        """Hold the first deliveries of these locked endpoints that are blocked, and end the holds that are over.

        Return True if there may be further ones: whole windows were held, but for messages in flight.
        """
        given = {**values, "ids": list(endpoint_ids), "longest": now + LONGEST_HOLD}
        held = Counter(self._connection.execute(_HOLD, given).scalars())
        full = [each for each in endpoint_ids if held[each] >= WINDOW - MOST_IN_FLIGHT]
        if full:
            self._connection.execute(_HOLD_MANY, {**given, "ids": full[:_LARGE_WINDOWS]})
        return bool(full)

"""The history of deliveries to webhooks, and replays. Other statements claim deliveries and record their outcomes."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import text

from scheduler.domain.delivery_history import (
    SENT_AT_ONCE,
    DeliveryFilter,
    DeliveryHistory,
    DeliveryPage,
    DeliveryTry,
    EventReceiver,
    ListedDelivery,
    ReplayedBatch,
    ReplayFilter,
)
from scheduler.domain.webhook import OF_AN_OWNER, DeliveryState, EventType
from scheduler.persistence.events import place_range
from scheduler.persistence.rows import AnyRow, from_row
from scheduler.persistence.store import IN_ORDER, Store

_LOOKED_AT = 1_000
"""The most deliveries that a page with a filter looks at."""
_LOOKED_AT_TO_REPLAY = 5_000
"""The most events or deliveries that a batch of a replay looks at."""
_LAST_PLACE = 2**63 - 1

_RECEIVER = text(
    """
    SELECT w.id, w.principal_id, w.company_id, w.events, {in_order} FROM webhook_endpoints w
    WHERE w.id = :id AND w.disabled_cause IS DISTINCT FROM 'DELETED'
      AND (CAST(:principal AS uuid) IS NULL OR w.principal_id = CAST(:principal AS uuid))  -- guard: delivery_owner
""".replace("{in_order}", IN_ORDER)
)


_PAGE_OF = """
    WITH scanned AS MATERIALIZED (
        SELECT d.* FROM webhook_deliveries d
        WHERE d.endpoint_id = :endpoint AND d.place < :before {condition}
          AND d.place > (SELECT p.after FROM event_places(CAST(:first AS uuid), CAST(:last AS uuid)) p)
          AND d.place < (SELECT p.before FROM event_places(CAST(:first AS uuid), CAST(:last AS uuid)) p)
        ORDER BY d.place DESC
        LIMIT :scanned
    ), found AS (
        SELECT s.*, e.type, e.occurred_at FROM scanned s
        JOIN events e ON e.id = s.event_id
        WHERE (CAST(:state AS text) IS NULL OR s.state = CAST(:state AS text))
          AND (CAST(:types AS text[]) IS NULL OR e.type = ANY (CAST(:types AS text[])))
          AND (CAST(:since AS timestamptz) IS NULL OR e.occurred_at >= CAST(:since AS timestamptz))
          AND (CAST(:until AS timestamptz) IS NULL OR e.occurred_at < CAST(:until AS timestamptz))
        ORDER BY s.place DESC
        LIMIT :limit
    )
    SELECT b.last_scanned, b.count_scanned, f.*
    FROM (SELECT min(s.place) AS last_scanned, count(*) AS count_scanned FROM scanned s) b
    LEFT JOIN found f ON true
    ORDER BY f.place DESC
"""
_PAGE = text(_PAGE_OF.replace("{condition}", ""))
_PAGE_OF_UNDELIVERED = text(_PAGE_OF.replace("{condition}", "AND d.state <> 'DELIVERED'"))

_REPLAY_ONE = text("""
    UPDATE webhook_deliveries d
    SET state = 'WAITING', send_at = :now, is_replay = d.is_replay OR d.state <> 'WAITING',
        tries = CASE WHEN d.state = 'WAITING' THEN d.tries ELSE 0 END,
        first_failed_at = CASE WHEN d.state = 'WAITING' THEN d.first_failed_at END,
        claim = NULL, lease_until = NULL, finished_at = NULL, held_until = NULL
    WHERE d.endpoint_id = :endpoint AND d.event_id = :event
      AND (d.claim IS NULL OR d.state <> 'WAITING')  -- guard: replay_claimed
""")
# Locked rows are skipped: a replay sends them. `first_failed_at` is forgotten, so that a later event of the same
# interview waits for this one again, see `rules.webhooks`. Earlier events of it may be due already.
_WAITING_LATER = """
        SELECT d.event_id, d.interview_id FROM webhook_deliveries d
        WHERE d.endpoint_id = :endpoint AND d.state = 'WAITING' AND {is_replay} AND d.send_at > :now
          AND d.claim IS NULL
        ORDER BY d.send_at, d.place LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
"""
_SEND_WAITING = text(f"""
    WITH first_sent AS MATERIALIZED ({_WAITING_LATER.replace("{is_replay}", "NOT d.is_replay")}),
    replayed AS MATERIALIZED ({_WAITING_LATER.replace("{is_replay}", "d.is_replay")}),
    overdue AS MATERIALIZED (
        SELECT d.event_id FROM webhook_deliveries d
        WHERE d.endpoint_id = :endpoint AND d.state = 'WAITING' AND NOT d.is_replay
          AND d.interview_id = ANY (ARRAY(SELECT DISTINCT f.interview_id FROM first_sent f))
          AND d.send_at <= :now AND d.first_failed_at IS NOT NULL AND d.claim IS NULL
        FOR NO KEY UPDATE SKIP LOCKED
    ), later AS MATERIALIZED (
        (SELECT f.event_id FROM first_sent f UNION ALL SELECT r.event_id FROM replayed r LIMIT :limit)
        UNION ALL SELECT o.event_id FROM overdue o
    )
    UPDATE webhook_deliveries d SET send_at = least(d.send_at, :now), first_failed_at = NULL
    -- Not by a join, for which the planner may read the whole table.
    WHERE d.endpoint_id = :endpoint AND d.event_id = ANY (ARRAY(SELECT l.event_id FROM later l))
""")  # noqa: S608 - the inserted texts are those above
_ONE = text("""
    SELECT d.*, e.type, e.occurred_at FROM webhook_deliveries d JOIN events e ON e.id = d.event_id
    WHERE d.endpoint_id = :endpoint AND d.event_id = :event
""")
_IS_DELIVERY = text("SELECT 1 FROM webhook_deliveries d WHERE d.endpoint_id = :endpoint AND d.event_id = :event")


# `scanned` has the columns of an event, and the place of the row that was read for it.
_REPLAY_OF = """
    WITH bounds AS MATERIALIZED (
        SELECT p.after, p.before FROM event_places(CAST(:first AS uuid), CAST(:last AS uuid)) p
    ), scanned AS MATERIALIZED (
        {scanned}
    ), found AS MATERIALIZED (
        SELECT s.* FROM scanned s
        WHERE s.occurred_at >= :since AND s.type <> 'ping'
          AND (CAST(:until AS timestamptz) IS NULL OR s.occurred_at < CAST(:until AS timestamptz))
          AND (CAST(:types AS text[]) IS NULL OR s.type = ANY (CAST(:types AS text[])))
        ORDER BY s.place
        LIMIT :limit
    ), finished AS MATERIALIZED (
        SELECT d.event_id FROM webhook_deliveries d
        JOIN found f ON f.id = d.event_id
        WHERE d.endpoint_id = :endpoint AND d.state <> 'WAITING'
        ORDER BY d.place
        FOR UPDATE OF d
    ), again AS (
        UPDATE webhook_deliveries d
        SET state = 'WAITING', is_replay = true, tries = 0, send_at = :now, claim = NULL, lease_until = NULL,
            first_failed_at = NULL, finished_at = NULL, held_until = NULL
        FROM finished f
        WHERE d.endpoint_id = :endpoint AND d.event_id = f.event_id
        RETURNING d.event_id
    ){missing}
    SELECT (SELECT count(*) FROM again) + {count_missing} AS replayed,
           (SELECT max(s.scanned_place) FROM scanned s) AS last_scanned, (SELECT count(*) FROM scanned) AS scanned,
           (SELECT max(f.place) FROM found f) AS last_found, (SELECT count(*) FROM found) AS found
"""
_MISSING = """, missing AS (
        INSERT INTO webhook_deliveries
            (event_id, endpoint_id, place, interview_id, sequence, state, is_replay, send_at, created_at)
        SELECT f.id, :endpoint, f.place, f.interview_id, f.sequence, 'WAITING', true, :now, :now FROM found f
        WHERE f.type = ANY (CAST(:wanted AS text[]))
        ORDER BY f.place
        ON CONFLICT DO NOTHING
        RETURNING event_id
    )
"""
_EVENTS = """
            SELECT e.*, e.place AS scanned_place FROM events e
            WHERE e.{readable} = :reader AND e.place > greatest(:after, (SELECT b.after FROM bounds b))
              AND e.place < (SELECT b.before FROM bounds b)
            ORDER BY e.place
            LIMIT :scanned
"""
# Those that wait are limited too: before the first that failed there may be a million.
_EVENTS_OF_FAILED = """
            SELECT e.*, d.place AS scanned_place FROM (
                SELECT d.event_id, d.place, d.state FROM webhook_deliveries d
                WHERE d.endpoint_id = :endpoint AND d.state <> 'DELIVERED'
                  AND d.place > greatest(:after, (SELECT b.after FROM bounds b))
                  AND d.place < (SELECT b.before FROM bounds b)
                ORDER BY d.place
                LIMIT :scanned
            ) d
            LEFT JOIN LATERAL (
                SELECT e.* FROM events e WHERE e.id = d.event_id AND d.state = 'FAILED' LIMIT 1
            ) e ON true
"""
_REPLAY_ALL_OF = _REPLAY_OF.replace("{missing}", _MISSING).replace("{count_missing}", "(SELECT count(*) FROM missing)")
_REPLAY_OF_COMPANY, _REPLAY_OF_ATS = (
    text(_REPLAY_ALL_OF.replace("{scanned}", _EVENTS.replace("{readable}", readable)))
    for readable in ("company_id", "ats_principal_id")
)
# Makes no delivery: the console replays what has failed, and its role may add none.
_REPLAY_OF_FAILED = text(
    _REPLAY_OF.replace("{missing}", "").replace("{count_missing}", "0").replace("{scanned}", _EVENTS_OF_FAILED)
)


class WebhookHistory(Store):
    def receiver(self, endpoint_id: UUID, principal_id: UUID | None) -> EventReceiver | None:
        """Find an endpoint. `principal_id`: only one of this principal.

        The rest of the transaction reads rows in the order of an index.
        """
        return self._one(_receiver, _RECEIVER, {"id": endpoint_id, "principal": principal_id})

    def page(self, endpoint_id: UUID, wanted: DeliveryFilter, before: int | None, limit: int) -> DeliveryPage:
        """List up to `limit` deliveries of an endpoint, newest first. `before`: only those before this place."""
        # One more than asked for shows whether another one follows.
        scanned = limit + 1 if wanted == DeliveryFilter() else _LOOKED_AT
        is_delivered = wanted.state in (None, DeliveryState.DELIVERED)
        values = {
            **_range(wanted.since, wanted.until),
            "endpoint": endpoint_id,
            "before": _LAST_PLACE if before is None else before,
            "scanned": scanned,
            "state": wanted.state,
            "types": _names(wanted.types),
            "limit": limit + 1,
        }
        rows = self._connection.execute(_PAGE if is_delivered else _PAGE_OF_UNDELIVERED, values).all()
        found = tuple(_delivery(row) for row in rows if row.event_id is not None)
        if len(found) > limit:
            return DeliveryPage(deliveries=found[:limit], before=found[limit - 1].place)
        last = rows[0]
        return DeliveryPage(deliveries=found, before=last.last_scanned if last.count_scanned == scanned else None)

    def delivery(self, endpoint_id: UUID, event_id: UUID) -> DeliveryHistory | None:
        """Find the delivery of an event to an endpoint, with its tries. None: it was never made."""
        return self._one(_history, _ONE, {"endpoint": endpoint_id, "event": event_id})

    def is_delivery(self, endpoint_id: UUID, event_id: UUID) -> bool:
        return self._is_any(_IS_DELIVERY, {"endpoint": endpoint_id, "event": event_id})

    def replay_one(self, endpoint_id: UUID, event_id: UUID, now: datetime) -> None:
        """Send a delivery again: now, if it waits. A delivery that is being sent is left alone."""
        self._connection.execute(_REPLAY_ONE, {"endpoint": endpoint_id, "event": event_id, "now": now})

    def send_waiting(self, endpoint_id: UUID, now: datetime) -> int:
        """Let the deliveries that wait for a later try be sent now, at most `SENT_AT_ONCE`.

        Return how many were changed, with earlier ones of the same interviews that are due. The caller has locked the
        endpoint, so no other transaction claims them. Deliveries whose try comes first are chosen.
        """
        values = {"endpoint": endpoint_id, "now": now, "limit": SENT_AT_ONCE}
        return self._connection.execute(_SEND_WAITING, values).rowcount

    def replay(self, to: EventReceiver, wanted: ReplayFilter, after: int, limit: int, now: datetime) -> ReplayedBatch:
        """Send up to `limit` deliveries of a range again, in the order of places, after a place.

        Waiting deliveries and tests are left alone. Unless `only_failed`, events without a delivery that the endpoint
        wants get one.
        """
        if wanted.only_failed:
            statement, reader = _REPLAY_OF_FAILED, {}
        else:
            reads_company = to.company_id is not None
            statement = _REPLAY_OF_COMPANY if reads_company else _REPLAY_OF_ATS
            # A ping is only for the endpoint that was tested, and the other type says nothing that is of use later.
            wanted_types = sorted(set(to.events) - OF_AN_OWNER)
            reader = {"reader": to.company_id if reads_company else to.principal_id, "wanted": wanted_types}
        values = {
            **_range(wanted.since, wanted.until),
            **reader,
            "endpoint": to.id,
            "after": after,
            "scanned": _LOOKED_AT_TO_REPLAY,
            "types": _names(wanted.types),
            "limit": limit,
            "now": now,
        }
        done = self._connection.execute(statement, values).one()
        is_full = done.found == limit
        return ReplayedBatch(
            replayed=done.replayed,
            after=done.last_found if is_full else done.last_scanned or after,
            has_more=is_full or done.scanned == _LOOKED_AT_TO_REPLAY,
        )


_delivery, _receiver = partial(from_row, ListedDelivery), partial(from_row, EventReceiver)


def _history(row: AnyRow) -> DeliveryHistory:
    tries = (each | {"tried_at": datetime.fromisoformat(each["tried_at"])} for each in row.history)
    return from_row(DeliveryHistory, row, history=tuple(DeliveryTry(**each) for each in tries))


def _names(types: frozenset[EventType] | None) -> list[str] | None:
    return None if types is None else sorted(types)


def _range(since: datetime | None, until: datetime | None) -> Mapping[str, Any]:
    return {"since": since, "until": until, **place_range(since, until)}

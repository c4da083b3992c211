"""Deliveries as the process that sends them sees them: claims, results, and the circuits of endpoints.

A claim and a record lock the endpoint first, so that all processes together keep its limits. Messages are claimed by
endpoint, from an index: a long backlog of one endpoint hides no message of another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import text

from scheduler.domain.resource import COUNTED_UP_TO
from scheduler.domain.webhook import ClaimedDelivery, Delivery, DeliveryState, Message, WaitingDeliveries, WebhookAnswer
from scheduler.ids import new_id
from scheduler.lifecycle import partner_events
from scheduler.lifecycle.policy import UNREADABLE_FOR, latest_written
from scheduler.persistence.connection import as_json
from scheduler.persistence.rows import AnyRow, as_columns, from_row, readable
from scheduler.persistence.store import Free, Store, statement
from scheduler.persistence.tables import webhook_deliveries, webhook_endpoints
from scheduler.persistence.webhook_holds import (
    END_BEHIND,
    HAS_BLOCKED,
    IN_ORDER_OF_RANGE,
    IN_RANGE,
    IS_IN_TURN,
    IS_ONE_HOLD_OVER,
    IS_ONE_IN_RANGE,
    IS_UNLEASED,
    WINDOW,
    WebhookHolds,
)
from scheduler.rules.webhooks import MOST_IN_FLIGHT, MOST_KEPT, PROBE_EVERY, WAITS_AT_MOST, Circuit, Room

LEASE = timedelta(seconds=60)
"""Longer than a try and its record take. After it, another process sends the message again."""

_IS_SENDABLE = f"""
    {IN_RANGE}
    AND {IS_UNLEASED}
    AND {IS_IN_TURN}  -- guard: hook_order
"""
_IN_FLIGHT = """
    SELECT count(*) FROM webhook_deliveries f
    WHERE f.endpoint_id = w.id AND f.claim IS NOT NULL AND f.lease_until > :now AND f.lease_until <= :latest_lease
"""
# The rules are `Circuit.may_send` and `webhook_turns`, which decide after the lock. A delivery that is blocked counts:
# after the lock it is held. Not EXISTS: for that, the planner may read all replays that are due, of all endpoints.
_MAY_TAKE = f"""
    w.is_active AND w.disabled_at IS NULL
    AND ({_IN_FLIGHT}) < CASE WHEN w.consecutive_failures > 0 THEN 1 ELSE {MOST_IN_FLIGHT} END
    AND (
        ({IS_ONE_IN_RANGE.replace("{kind}", "d.is_replay")})
        OR (w.probe_at IS NULL OR w.probe_at <= :now OR w.probe_at > :latest_probe)
        AND coalesce(
            ({IS_ONE_IN_RANGE.replace("{kind}", "NOT d.is_replay")}),
            ({IS_ONE_HOLD_OVER}),  -- guard: hook_hold_is_over
            false)
    )
"""
_IN_ORDER = text("""
    SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true),
           set_config('enable_seqscan', 'off', true)
""")
"""For the rest of the transaction. With old statistics the planner expects few deliveries of an endpoint, and would
read and sort all of them instead of the first ones of an index."""
_CIRCUIT = ", ".join(f"w.{name}" for name in Circuit.__dataclass_fields__)
_LOCK_TO_CLAIM = text(f"""
    SELECT w.id, w.principal_id AS owner, w.is_slow, {HAS_BLOCKED} AS has_blocked, {_CIRCUIT}
    FROM webhook_endpoints w
    WHERE (CAST(:takes_slow AS boolean) OR NOT w.is_slow) AND w.principal_id <> ALL (CAST(:full_owners AS uuid[]))
      AND {_MAY_TAKE}
    -- A turn in the future was written by a wrong clock, and counts as none.
    ORDER BY CASE WHEN w.claimed_at <= :latest_written THEN w.claimed_at END NULLS FIRST, w.id
    LIMIT :limit
    FOR NO KEY UPDATE SKIP LOCKED
""")  # noqa: S608 - as above


def _first_of(kind: str) -> str:
    """Build the query for the first messages of endpoint `w`. Blocked ones at the front are held in the next look."""
    return f"""
        (SELECT d.*, row_number() OVER (ORDER BY d.send_at, d.place) AS nth
         FROM (SELECT d.* FROM webhook_deliveries d
               WHERE d.endpoint_id = w.id AND {kind} AND {IN_RANGE} ORDER BY {IN_ORDER_OF_RANGE} LIMIT {WINDOW}) d
         WHERE {_IS_SENDABLE}
         ORDER BY d.send_at, d.place LIMIT :most)
    """  # noqa: S608 - the inserted texts are constants


_SENDABLE_OF = text(f"""
    SELECT flying.in_flight, d.event_id, d.endpoint_id, d.state, d.is_replay, d.tries, d.send_at, d.first_failed_at,
           d.sequence, d.nth, e.type, e.occurred_at, e.company_id, e.interview_id, e.attempt_id, e.data,
           w.url, w.headers, w.secret, w.old_secret, w.old_secret_until
    FROM webhook_endpoints w
    CROSS JOIN LATERAL ({_IN_FLIGHT}) AS flying (in_flight)
    CROSS JOIN LATERAL (
        {_first_of("NOT d.is_replay")}
        UNION ALL
        {_first_of("d.is_replay")}
    ) d
    JOIN events e ON e.id = d.event_id
    WHERE w.id = ANY (:ids)
    ORDER BY d.nth, d.send_at, d.place
""")  # noqa: S608 - as above
# The limit tells the planner how many rows there are. Otherwise it may read the whole table for them.
_CLAIMS = """
    (SELECT * FROM json_to_recordset(CAST(:claims AS json)) AS x (event_id uuid, endpoint_id uuid, claim uuid)
     LIMIT :count)
"""
_CLAIM = text(f"""
    WITH served AS (
        UPDATE webhook_endpoints w SET claimed_at = :now, probe_at = g.probe_at
        FROM (SELECT * FROM json_to_recordset(CAST(:endpoints AS json)) AS x (id uuid, probe_at timestamptz)
              LIMIT :count) g
        WHERE w.id = g.id
    )
    UPDATE webhook_deliveries d SET claim = g.claim, lease_until = :lease_until
    FROM {_CLAIMS} g
    WHERE d.event_id = g.event_id AND d.endpoint_id = g.endpoint_id AND d.state = 'WAITING'
    RETURNING d.claim
""")  # noqa: S608 - as above
_ENDPOINTS_IN_ORDER = f"""
    SELECT w.id, w.principal_id, w.company_id, w.is_slow, {_CIRCUIT},
           EXISTS (SELECT FROM api_keys k WHERE k.principal_id = w.principal_id AND k.kind = 'ATS') AS is_of_ats
    FROM webhook_endpoints w
    WHERE w.id = ANY (:ids)
    ORDER BY w.id
    FOR NO KEY UPDATE OF w
"""  # noqa: S608 - as above
_LOCK_ENDPOINTS = text(_ENDPOINTS_IN_ORDER)
_LOCK_FREE_ENDPOINTS = text(f"""
    WITH free AS ({_ENDPOINTS_IN_ORDER} SKIP LOCKED)
    SELECT named.id AS named_id, free.*
    FROM webhook_endpoints named
    LEFT JOIN free ON free.id = named.id
    WHERE named.id = ANY (:ids)
""")  # noqa: S608 - as above
_LOCK_CLAIMED = text(f"""
    SELECT g.claim, d.event_id, d.endpoint_id, d.state, d.is_replay, d.tries, d.send_at, d.first_failed_at, e.type
    FROM {_CLAIMS} g
    JOIN webhook_deliveries d ON d.event_id = g.event_id AND d.endpoint_id = g.endpoint_id
        AND d.claim = g.claim  -- guard: hook_stale
    JOIN events e ON e.id = d.event_id
    WHERE d.state = 'WAITING'
    ORDER BY d.endpoint_id, d.event_id
    FOR NO KEY UPDATE OF d
""")  # noqa: S608 - as above
_PUT_OFF = text("""
    UPDATE webhook_deliveries d SET send_at = :send_at
    FROM json_to_recordset(CAST(:keys AS json)) AS k (event_id uuid, endpoint_id uuid)
    WHERE d.event_id = k.event_id AND d.endpoint_id = k.endpoint_id AND d.state = 'WAITING'
""")
_WORK = text(f"""
    SELECT EXISTS (SELECT FROM events e WHERE e.place IS NULL) AS is_one_unnumbered,
           EXISTS (SELECT FROM webhook_endpoints w WHERE {_MAY_TAKE}) AS is_one_due,
           EXISTS (SELECT FROM webhook_endpoints w WHERE w.is_active AND w.disabled_at IS NULL) AS is_one_active
""")  # noqa: S608 - as above

_WAITING = text("""
    SELECT (SELECT count(*) FROM (
                SELECT FROM webhook_endpoints w
                CROSS JOIN LATERAL (
                    SELECT d.send_at FROM webhook_deliveries d
                    WHERE d.endpoint_id = w.id AND d.state = 'WAITING'
                    -- In the order of the index, so that it is read, and not the table with the delivered ones.
                    ORDER BY d.is_replay, d.send_at LIMIT :most) AS own
                WHERE w.is_active AND w.disabled_at IS NULL
                LIMIT :most) AS counted) AS count,
           (SELECT min(first.send_at)
            FROM webhook_endpoints w
            CROSS JOIN LATERAL (
                SELECT d.send_at FROM webhook_deliveries d
                WHERE d.endpoint_id = w.id AND d.state = 'WAITING' AND NOT d.is_replay AND d.send_at <= :now
                ORDER BY d.send_at LIMIT 1) AS first
            WHERE w.is_active AND w.disabled_at IS NULL AND w.circuit_opened_at IS NULL) AS oldest_at
""")

_SAVE_DELIVERIES = """
    UPDATE webhook_deliveries d
    SET state = g.state, tries = g.tries, send_at = g.send_at, first_failed_at = g.first_failed_at,
        last_tried_at = g.last_tried_at, last_status = g.last_status, last_error_kind = g.last_error_kind,
        last_ms = g.last_ms, finished_at = g.finished_at, claim = NULL, lease_until = NULL, held_until = NULL,
        history = CASE WHEN jsonb_array_length(d.history) < {most} THEN d.history ELSE d.history - 0 END
            || jsonb_build_object('tried_at', g.last_tried_at, 'status', g.last_status,
                                  'error_kind', g.last_error_kind, 'milliseconds', g.last_ms)
    FROM (SELECT * FROM json_to_recordset(CAST(%(rows)s AS json)) AS x (
        event_id uuid, endpoint_id uuid, state text, tries smallint, send_at timestamptz,
        first_failed_at timestamptz, last_tried_at timestamptz, last_status smallint, last_error_kind text,
        last_ms integer, finished_at timestamptz) LIMIT %(count)s) g
    WHERE d.event_id = g.event_id AND d.endpoint_id = g.endpoint_id
""".replace("{most}", str(MOST_KEPT))
_RETURN_DELIVERIES = """
    UPDATE webhook_deliveries d SET send_at = g.send_at, claim = NULL, lease_until = NULL
    FROM (SELECT * FROM json_to_recordset(CAST(%(rows)s AS json)) AS x (
        event_id uuid, endpoint_id uuid, send_at timestamptz) LIMIT %(count)s) g
    WHERE d.event_id = g.event_id AND d.endpoint_id = g.endpoint_id
"""
_SAVE_ENDPOINTS = """
    UPDATE webhook_endpoints w
    SET consecutive_failures = g.consecutive_failures, failing_since = g.failing_since,
        circuit_opened_at = g.circuit_opened_at, probe_at = g.probe_at, disabled_at = g.disabled_at,
        disabled_cause = g.disabled_cause, is_slow = g.is_slow,
        notice_at = coalesce(g.notice_at, w.notice_at),
        notice_tries = CASE WHEN g.notice_at IS NULL THEN w.notice_tries ELSE 0 END
    FROM (SELECT * FROM json_to_recordset(CAST(%(rows)s AS json)) AS x (
        id uuid, consecutive_failures integer, failing_since timestamptz, circuit_opened_at timestamptz,
        probe_at timestamptz, disabled_at timestamptz, disabled_cause text, is_slow boolean,
        notice_at timestamptz) LIMIT %(count)s) g
    WHERE w.id = g.id
"""
_NOTE_DISABLED = """
    INSERT INTO events (id, company_id, ats_principal_id, type, occurred_at, data)
    SELECT * FROM json_to_recordset(CAST(%(rows)s AS json)) AS g (
        id uuid, company_id uuid, ats_principal_id uuid, type text, occurred_at timestamptz, data jsonb)
"""


_SAVE_DELIVERY = statement("webhook_deliveries", _SAVE_DELIVERIES, turn=1)
_RETURN_DELIVERY = statement("returned webhook_deliveries", _RETURN_DELIVERIES, turn=1)
_SAVE_ENDPOINT = statement("webhook_endpoints", _SAVE_ENDPOINTS, turn=2)
_NOTE = statement("events", _NOTE_DISABLED, turn=3)


@dataclass(frozen=True, kw_only=True)
class Work:
    """The open work for partners' events."""

    is_one_unnumbered: bool
    is_one_due: bool
    is_one_active: bool
    """False: no webhook of the installation may receive an event."""


@dataclass(frozen=True, kw_only=True)
class ClaimingEndpoint:
    """A locked endpoint with messages that may be sent now."""

    id: UUID
    owner: UUID
    circuit: Circuit
    is_slow: bool
    has_blocked: bool
    """Messages must be held, or looked at because their hold is over."""


@dataclass(frozen=True, kw_only=True)
class Sendable:
    """A delivery that may be claimed, and how many messages its endpoint has in flight."""

    delivery: Delivery
    message: Message
    in_flight: int


@dataclass(frozen=True, kw_only=True)
class ServedEndpoint:
    """A locked endpoint that has answered, or has not."""

    id: UUID
    principal_id: UUID
    company_id: UUID | None
    is_of_ats: bool
    circuit: Circuit
    is_slow: bool


class WebhookDeliveries(Store):
    def work(self, now: datetime) -> Work:
        return from_row(Work, self._connection.execute(_WORK, _instants(now)).one())

    def waiting(self, now: datetime) -> WaitingDeliveries:
        """Count waiting deliveries, in columns that the counting role may read."""
        self._connection.execute(_IN_ORDER)
        row = self._connection.execute(_WAITING, {"now": now, "most": COUNTED_UP_TO + 1}).one()
        return from_row(WaitingDeliveries, row)

    # ---- claims

    def lock_to_claim(self, now: datetime, room: Room) -> list[ClaimingEndpoint]:
        """Lock endpoints with messages that may be sent now, in the order in which they were served last.

        Slow endpoints and those of owners without room are left out: they would take the places of others.
        An endpoint that another process has locked is skipped: that process takes its messages.
        """
        limits = {"limit": room.free, "takes_slow": room.free_for_slow > 0, "full_owners": room.full_owners}
        values = {**_instants(now), **limits}
        self._connection.execute(_IN_ORDER)
        return self._readable(webhook_endpoints, _claiming, _LOCK_TO_CLAIM, values)

    def hold_blocked(self, endpoint_ids: Sequence[UUID], now: datetime) -> bool:
        """Hold the first messages of these locked endpoints that wait for earlier ones, see `webhook_holds`.

        Return True if there may be further ones.
        """
        return WebhookHolds(self._connection).hold(endpoint_ids, now, _instants(now))

    def sendable_of(self, endpoint_ids: Sequence[UUID], now: datetime) -> list[Sendable]:
        """List the first messages of these locked endpoints. Events and replays take turns."""
        values = {**_instants(now), "ids": list(endpoint_ids), "most": MOST_IN_FLIGHT}
        rows = self._connection.execute(_SENDABLE_OF, values).all()
        found = list(readable(rows, _sendable, webhook_deliveries.name, key="event_id"))
        keys = {(each.delivery.event_id, each.delivery.endpoint_id) for each in found}
        unreadable = [each for each in rows if (each.event_id, each.endpoint_id) not in keys]
        if unreadable:
            # Otherwise they would be the first of their endpoints each time.
            rows = [{"event_id": each.event_id, "endpoint_id": each.endpoint_id} for each in unreadable]
            later = {"keys": as_json(rows), "send_at": now + UNREADABLE_FOR}
            self._connection.execute(_PUT_OFF, later)
        return found

    def claim(
        self, claims: Sequence[ClaimedDelivery], probes: Mapping[UUID, datetime | None], now: datetime
    ) -> set[UUID]:
        """Store the claims, and the next probe of each of their endpoints. Return the ids of the stored claims."""
        rows = [{**_key(each.delivery), "claim": each.claim} for each in claims]
        endpoints = [{"id": each, "probe_at": at} for each, at in probes.items()]
        values = {"claims": as_json(rows), "endpoints": as_json(endpoints), "count": len(rows)}
        return set(self._connection.execute(_CLAIM, {**values, "now": now, "lease_until": now + LEASE}).scalars())

    # ---- results

    def lock_endpoints(self, endpoint_ids: Sequence[UUID]) -> dict[UUID, ServedEndpoint]:
        found = self._all(_served, _LOCK_ENDPOINTS, {"ids": sorted(set(endpoint_ids))})
        return {each.id: each for each in found}

    def lock_free_endpoints(self, endpoint_ids: Sequence[UUID]) -> Free[ServedEndpoint]:
        """Lock these endpoints, and skip any that another transaction has locked."""
        return self._free(webhook_endpoints, _served, _LOCK_FREE_ENDPOINTS, {"ids": sorted(set(endpoint_ids))})

    def lock_claimed(self, claims: Sequence[ClaimedDelivery]) -> dict[UUID, Delivery]:
        """Lock the deliveries that still belong to their claims. Return them by claim."""
        rows = [{**_key(each.delivery), "claim": each.claim} for each in claims]
        locked = self._connection.execute(_LOCK_CLAIMED, {"claims": as_json(rows), "count": len(rows)})
        return {row.claim: _delivery(row) for row in locked}

    def save(self, delivery: Delivery, answer: WebhookAnswer, now: datetime) -> None:
        """Save a delivery after a try, and end its claim."""
        row = {
            **as_columns(delivery, without={"type", "is_replay"}),
            "last_tried_at": now,
            "last_status": answer.status,
            "last_error_kind": None if answer.error_kind is None else answer.error_kind.value,
            "last_ms": answer.milliseconds,
            "finished_at": None if delivery.state is DeliveryState.WAITING else now,
        }
        key = (delivery.event_id, delivery.endpoint_id)
        self._connection.write(_SAVE_DELIVERY, key, row)
        self._connection.write(END_BEHIND, key, _key(delivery))  # guard: hook_hold_ends

    def put_back(self, delivery: Delivery) -> None:
        """End the claim of a delivery that was not sent."""
        row = {**_key(delivery), "send_at": delivery.send_at}
        self._connection.write(_RETURN_DELIVERY, (delivery.event_id, delivery.endpoint_id), row)

    def save_endpoint(self, endpoint: ServedEndpoint, *, notice_at: datetime | None) -> None:
        """Save circuit and slowness. `notice_at`: mail its owner then that it was disabled."""
        row = {
            **as_columns(endpoint.circuit),
            "id": endpoint.id,
            "is_slow": endpoint.is_slow,
            "notice_at": notice_at,
        }
        self._connection.write(_SAVE_ENDPOINT, endpoint.id, row)

    def note_disabled(self, endpoint: ServedEndpoint, now: datetime) -> None:
        """Write the event of a disabled endpoint, for the other endpoints and keys of its principal.

        Without a look for readers, because it is rare. An ATS and its company do not see each other's.
        """
        event = partner_events.of_disabled(endpoint.id, endpoint.company_id, endpoint.circuit.disabled_cause)
        event_id = new_id(now)
        row = {
            "id": event_id,
            "company_id": None if endpoint.is_of_ats else endpoint.company_id,
            "ats_principal_id": endpoint.principal_id,
            "type": event.type.value,
            "occurred_at": now,
            "data": event.data,
        }
        self._connection.write(_NOTE, event_id, row)


def _instants(now: datetime) -> dict[str, object]:
    return {
        "now": now,
        "latest_lease": now + 2 * LEASE,
        "failed_since": now - WAITS_AT_MOST,
        "waits": WAITS_AT_MOST,
        "latest_probe": now + PROBE_EVERY,
        "latest_written": latest_written(now),
    }


def _key(delivery: Delivery) -> dict[str, UUID]:
    return {"event_id": delivery.event_id, "endpoint_id": delivery.endpoint_id}


_delivery = partial(from_row, Delivery)


def _sendable(row: AnyRow) -> Sendable:
    return Sendable(delivery=_delivery(row), message=from_row(Message, row), in_flight=row.in_flight)


def _claiming(row: AnyRow) -> ClaimingEndpoint:
    return from_row(ClaimingEndpoint, row, circuit=from_row(Circuit, row))


def _served(row: AnyRow) -> ServedEndpoint:
    return from_row(ServedEndpoint, row, circuit=from_row(Circuit, row))

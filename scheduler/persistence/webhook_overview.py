"""Endpoints of all principals as operators see them, and their acts upon an endpoint."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

from sqlalchemy import text, update

from scheduler.domain.delivery_history import EndpointState
from scheduler.domain.pagination import COUNTED_UP_TO
from scheduler.domain.webhook import DisabledCause
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import Store
from scheduler.persistence.tables import webhook_endpoints
from scheduler.rules.webhook_circuit import Circuit

_LOOKED_AT = 1_000
"""The newest deliveries among which the last failure is searched."""

_STATES = text("""
    SELECT w.id, w.principal_id, w.company_id, w.url, w.is_active, w.disabled_at, w.disabled_cause,
           w.consecutive_failures, w.failing_since, w.circuit_opened_at, waiting.waiting, waiting.oldest_waiting_at,
           failed.last_failed_at, failed.last_status, failed.last_error_kind
    FROM webhook_endpoints w
    CROSS JOIN LATERAL (
        SELECT count(*) AS waiting, min(d.created_at) AS oldest_waiting_at
        FROM (SELECT d.created_at FROM webhook_deliveries d WHERE d.endpoint_id = w.id AND d.state = 'WAITING'
              LIMIT :counted) d
    ) waiting
    LEFT JOIN LATERAL (
        SELECT d.last_tried_at AS last_failed_at, d.last_status, d.last_error_kind
        FROM (SELECT d.* FROM webhook_deliveries d WHERE d.endpoint_id = w.id AND d.state <> 'DELIVERED'
              ORDER BY d.place DESC LIMIT :looked_at) d
        WHERE d.last_error_kind IS NOT NULL
        ORDER BY d.last_tried_at DESC
        LIMIT 1
    ) failed ON true
    WHERE w.disabled_cause IS DISTINCT FROM :deleted AND (CAST(:id AS uuid) IS NULL OR w.id = CAST(:id AS uuid))
    ORDER BY w.created_at, w.id
    LIMIT :limit
""")
_LOCK = text("""
    SELECT w.is_active, w.company_id, w.consecutive_failures, w.failing_since, w.circuit_opened_at, w.probe_at,
           w.disabled_at, w.disabled_cause
    FROM webhook_endpoints w
    WHERE w.id = :id AND w.disabled_cause IS DISTINCT FROM :deleted
    FOR NO KEY UPDATE
""")
_DELETED: Mapping[str, object] = {"deleted": DisabledCause.DELETED.value}
_state = partial(from_row, EndpointState)


class WebhookOverview(Store):
    def states(self, limit: int, endpoint_id: UUID | None = None) -> Sequence[EndpointState]:
        """Return the endpoints, oldest first. `endpoint_id`: only this one."""
        values = {
            **_DELETED,
            "counted": COUNTED_UP_TO + 1,
            "looked_at": _LOOKED_AT,
            "id": endpoint_id,
            "limit": limit,
        }
        return self._all(_state, _STATES, values)

    def lock(self, endpoint_id: UUID) -> tuple[UUID | None, Circuit] | None:
        """Lock an endpoint. Return its company and its circuit."""
        row = self._connection.execute(_LOCK, {**_DELETED, "id": endpoint_id}).one_or_none()
        return None if row is None else (row.company_id, from_row(Circuit, row))

    def save(self, endpoint_id: UUID, circuit: Circuit, now: datetime) -> None:
        """Write the circuit of an endpoint that the caller has locked."""
        change = update(webhook_endpoints).where(webhook_endpoints.c.id == endpoint_id)
        self._connection.execute(change.values(**as_columns(circuit), updated_at=now))

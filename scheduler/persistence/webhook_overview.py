"""Endpoints of all principals, as operators see them."""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

from sqlalchemy import text

from scheduler.domain.delivery_history import EndpointState
from scheduler.domain.pagination import COUNTED_UP_TO
from scheduler.domain.webhook import DisabledCause
from scheduler.persistence.rows import from_row
from scheduler.persistence.store import Store

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
_state = partial(from_row, EndpointState)


class WebhookOverview(Store):
    def states(self, limit: int, endpoint_id: UUID | None = None) -> Sequence[EndpointState]:
        """Return the endpoints, oldest first. `endpoint_id`: only this one."""
        values = {
            "deleted": DisabledCause.DELETED.value,
            "counted": COUNTED_UP_TO + 1,
            "looked_at": _LOOKED_AT,
            "id": endpoint_id,
            "limit": limit,
        }
        return self._all(_state, _STATES, values)

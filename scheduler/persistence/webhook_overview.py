"""Endpoints of all principals, as operators see them."""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from uuid import UUID

from sqlalchemy import TextClause, text

from scheduler.domain.delivery_history import EndpointFilter, EndpointState, EndpointStatus, ReplayFilter
from scheduler.domain.pagination import COUNTED_UP_TO
from scheduler.domain.webhook import DisabledCause
from scheduler.persistence.events import place_range
from scheduler.persistence.rows import from_row
from scheduler.persistence.store import IN_ORDER, Store
from scheduler.persistence.tables import webhook_endpoints

_LOOKED_AT = 1_000
"""The newest deliveries among which the last failure is searched."""

_OF_COMPANY = """
    SELECT o.id FROM webhook_endpoints o WHERE o.company_id = :company
    UNION ALL
    SELECT o.id FROM companies c
    JOIN webhook_endpoints o ON o.principal_id = c.ats_principal_id AND o.company_id IS NULL
    WHERE c.id = :company
"""
_IS_LISTED = "w.disabled_cause IS DISTINCT FROM :deleted"
_STATUS: Mapping[EndpointStatus, str] = {
    EndpointStatus.ACTIVE: "w.is_active AND w.disabled_at IS NULL AND w.circuit_opened_at IS NULL",
    EndpointStatus.CIRCUIT_OPEN: "w.is_active AND w.disabled_at IS NULL AND w.circuit_opened_at IS NOT NULL",
    EndpointStatus.PAUSED: "NOT w.is_active AND w.disabled_at IS NULL",
    EndpointStatus.DISABLED: "w.disabled_at IS NOT NULL",
}
# Ids begin with the time of creation. The limit applies before deliveries are counted.
_STATES = """
    SELECT w.id, w.principal_id, w.company_id, c.name AS company_name, webhook_origin(w.id) AS origin, w.is_active,
           w.disabled_at, w.disabled_cause, w.consecutive_failures, w.failing_since, w.circuit_opened_at, w.created_at,
           waiting.waiting, waiting.oldest_waiting_at, failed.last_failed_at, failed.last_status, failed.last_error_kind
    FROM (SELECT w.id, w.principal_id, w.company_id, w.is_active, w.disabled_at, w.disabled_cause,
                 w.consecutive_failures, w.failing_since, w.circuit_opened_at, w.created_at
          FROM webhook_endpoints w
          WHERE {conditions}
          ORDER BY w.id
          LIMIT :limit) w
    LEFT JOIN companies c ON c.id = w.company_id
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
    ORDER BY w.id
"""
_COUNT_OF_COMPANY = text(f"SELECT count(*) FROM webhook_endpoints w WHERE w.id IN ({_OF_COMPANY}) AND {_IS_LISTED}")  # noqa: S608 - the inserted texts are those above
_COUNT_FAILED = text("""
    SELECT count(*) FROM (
        SELECT FROM webhook_deliveries d
        JOIN events e ON e.id = d.event_id
        WHERE d.endpoint_id = :endpoint AND d.state <> 'DELIVERED' AND d.state = 'FAILED'
          AND d.place > (SELECT p.after FROM event_places(CAST(:first AS uuid), CAST(:last AS uuid)) p)
          AND d.place < (SELECT p.before FROM event_places(CAST(:first AS uuid), CAST(:last AS uuid)) p)
          AND e.occurred_at >= :since AND e.type <> 'ping'
          AND (CAST(:until AS timestamptz) IS NULL OR e.occurred_at < CAST(:until AS timestamptz))
        LIMIT :counted
    ) counted
""")
_IN_ORDER = text(f"SELECT {IN_ORDER}")
_state = partial(from_row, EndpointState)
_ALL = EndpointFilter()


class WebhookOverview(Store):
    def states(self, limit: int, wanted: EndpointFilter = _ALL, after: UUID | None = None) -> Sequence[EndpointState]:
        """Return the endpoints that are not deleted, oldest first. `after`: only those younger than this one."""
        statement, values = _query(wanted, after)
        limits = {"counted": COUNTED_UP_TO + 1, "looked_at": _LOOKED_AT, "limit": limit}
        self._connection.execute(_IN_ORDER)
        return self._readable(webhook_endpoints, _state, statement, {**values, **limits})

    def count_of_company(self, company_id: UUID) -> int:
        """Return the number of endpoints that receive events of a company."""
        values = {"company": company_id, "deleted": DisabledCause.DELETED.value}
        return self._count(_COUNT_OF_COMPANY, values)

    def count_failed(self, endpoint_id: UUID, wanted: ReplayFilter) -> int:
        """Count the failed deliveries of a range that a replay sends again, up to one more than `COUNTED_UP_TO`."""
        values = {
            "endpoint": endpoint_id,
            "since": wanted.since,
            "until": wanted.until,
            "counted": COUNTED_UP_TO + 1,
            **place_range(wanted.since, wanted.until),
        }
        return self._count(_COUNT_FAILED, values)


def _query(wanted: EndpointFilter, after: UUID | None) -> tuple[TextClause, Mapping[str, object]]:
    """Return the statement for a filter, and its values. Only conditions that apply, so that an index is used."""
    conditions, values = [_IS_LISTED], dict[str, object](deleted=DisabledCause.DELETED.value)
    if wanted.status is not None:
        conditions.append(_STATUS[wanted.status])
    for name, condition, value in (
        ("id", "w.id = :id", wanted.id),
        ("company", f"w.id IN ({_OF_COMPANY})", wanted.company_id),
        ("after", "w.id > :after", after),
    ):
        if value is not None:
            conditions.append(condition)
            values[name] = value
    return _text(" AND ".join(conditions)), values


@cache
def _text(conditions: str) -> TextClause:
    return text(_STATES.replace("{conditions}", conditions))

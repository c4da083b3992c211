"""Webhooks, deliveries and batches for the console, with texts of clients that no page shows."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from scheduler.ids import new_id
from tests.support.builders import Tenant

URL = "https://hooks.example:8443/Canariette?token=Canaruccio"


def a_webhook(tenant: Tenant, **fields: Any) -> UUID:
    at = fields.pop("at", tenant.now())
    endpoint_id = new_id(at)
    own = {"id": endpoint_id, "principal_id": uuid4(), "api_key_id": uuid4(), "company_id": tenant.company_id}
    usual = {"url": URL, "events": ["ping"], "max_retries": 9, "timeout_ms": 15_000, "secret": b"Canarotti"}
    texts = {"name": "Canarino", "description": "Canaretto", "headers": b"Canarone", "header_names": ["Canarizzi"]}
    tenant.insert("webhook_endpoints", **(own | usual | texts | {"created_at": at, "updated_at": at} | fields))
    return endpoint_id


def a_delivery(tenant: Tenant, endpoint_id: UUID, state: str = "FAILED", **fields: Any) -> UUID:
    """Insert an event and its delivery, the next in the order."""
    at: datetime = fields.pop("at", tenant.now() - timedelta(hours=1))
    type_ = fields.pop("type", "company.paused")
    event_id = new_id(at)
    [[place]] = tenant.ask("SELECT coalesce(max(place), 0) + 1 FROM events")
    event = {"id": event_id, "company_id": tenant.company_id, "type": type_, "occurred_at": at, "data": "{}"}
    tenant.insert("events", **event, place=place)
    finished = None if state == "WAITING" else at
    failed = {"last_status": 500, "last_error_kind": "HTTP_ERROR"} if state != "DELIVERED" else {"last_status": 204}
    tried = {"last_tried_at": at, "last_ms": 12, "tries": 3, **failed}
    times = {"send_at": at, "created_at": at, "finished_at": finished}
    ids = {"event_id": event_id, "endpoint_id": endpoint_id, "place": place}
    tenant.insert("webhook_deliveries", **(ids | times | tried | {"state": state} | fields))
    return event_id


def a_batch(tenant: Tenant, state: str = "RUNNING", **fields: Any) -> UUID:
    at = fields.pop("at", tenant.now())
    batch_id = new_id(at)
    keys = tenant.ask("SELECT id FROM api_keys LIMIT 1")
    key_id = keys[0].id if keys else uuid4()
    own = {"id": batch_id, "company_id": tenant.company_id, "principal_id": uuid4(), "key_id": key_id}
    usual = {"name": "Canarillo", "state": state, "total": 9, "applied": 4, "refused": 2, "cancelled": 0}
    if state in ("COMPLETED", "CANCELLED"):
        usual |= {"applied": 7, "finished_at": at}
    times = {"work_at": at, "created_at": at, "updated_at": at}
    tenant.insert("batches", **(own | usual | times | fields))
    return batch_id


def partner_pages(tenant: Tenant) -> tuple[str, ...]:
    """Insert rows with texts of clients. Return the pages that show them, and the forms of acts on them."""
    active, disabled = a_webhook(tenant, consecutive_failures=3), a_webhook(tenant)
    tenant.change(
        "UPDATE webhook_endpoints SET disabled_at = created_at, disabled_cause = 'GONE' WHERE id = :id", id=disabled
    )
    a_delivery(tenant, active)
    a_batch(tenant)
    acts = (("disable-webhook", active), ("close-circuit", active), ("enable-webhook", disabled))
    day = "since=2020-01-01T00:00Z&until=2100-01-01T00:00Z"
    return (
        *("/webhooks", f"/webhooks/{active}", f"/webhooks/{disabled}", "/batches"),
        *(f"/acts/{act}?webhook={each}" for act, each in acts),
        f"/acts/replay-failed?webhook={active}&{day}",
    )


CANARIES = frozenset(
    {
        *("Canariette", "Canaruccio", "Canarotti", "Canarino", "Canaretto", "Canarone", "Canarizzi", "Canarillo"),
    }
)
"""Texts of these rows that no page shows."""

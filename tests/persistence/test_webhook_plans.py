"""Statements that claim deliveries read few rows by an index, however many of other endpoints and interviews wait."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from scheduler.domain.delivery_history import SENT_AT_ONCE
from scheduler.domain.pagination import COUNTED_UP_TO
from scheduler.domain.webhook import ClaimedDelivery
from scheduler.persistence.stores import Stores
from scheduler.rules.webhooks import room
from tests.persistence.test_plans import rows_read
from tests.support.builders import Tenant
from tests.use_cases.webhooks.endpoints import Webhooks

BIG = frozenset({"webhook_deliveries", "events"})
WAITING, DELIVERED = 20_000, 30_000
"""Deliveries that wait for each of two endpoints, half of them of interviews whose first event waits, too. And those of
a third endpoint: with few, a scan of the table costs as much as an index, and chance decides between them.
"""
ROOM = room(32, [(uuid4(), False)] * 16, unrecorded=0)
"""One owner has no room left."""

_FILL = """
    WITH made AS (
        INSERT INTO events (id, company_id, interview_id, type, occurred_at, data, place, sequence)
        SELECT gen_random_uuid(), :company_id, md5(CAST(n / 2 AS text))::uuid, 'interview.scheduled', :now, '{}', n,
               1 + n % 2
        FROM generate_series(1, :delivered) n
        RETURNING id, interview_id, place, sequence
    )
    INSERT INTO webhook_deliveries
        (event_id, endpoint_id, place, interview_id, sequence, state, send_at, created_at, finished_at)
    SELECT m.id, e, m.place, m.interview_id, m.sequence,
           CASE WHEN e = :done THEN 'DELIVERED' ELSE 'WAITING' END, :now, :now,
           CASE WHEN e = :done THEN CAST(:now AS timestamptz) END
    FROM made m CROSS JOIN unnest(CAST(:endpoints AS uuid[])) e
    WHERE e = :done OR m.place <= :waiting
"""


@pytest.fixture
def endpoints(tenant: Tenant) -> list[UUID]:
    """An endpoint with a backlog, one whose circuit is open, and one that has received all."""
    webhooks, now = Webhooks(tenant=tenant), tenant.now()
    failing: dict[str, Any] = {"consecutive_failures": 10, "failing_since": now, "circuit_opened_at": now}
    ids = [
        webhooks.endpoint(),
        webhooks.endpoint(**failing, probe_at=now + timedelta(seconds=30)),
        webhooks.endpoint(),
    ]
    with tenant.database.transaction() as stores:
        stores.connection.execute(text("SET LOCAL statement_timeout = 0"))
        values: dict[str, Any] = {
            "company_id": tenant.company_id,
            "now": now,
            "waiting": WAITING,
            "delivered": DELIVERED,
        }
        stores.connection.execute(text(_FILL), {**values, "endpoints": ids, "done": ids[2]})
        stores.connection.execute(text("ANALYZE webhook_deliveries, events, webhook_endpoints"))
    return ids


Step = Callable[[Stores, Tenant, list[UUID]], object]
STEPS: dict[str, tuple[Step, int]] = {
    "work of the clock": (lambda stores, tenant, _: stores.webhook_deliveries.work(tenant.now()), 10),
    "endpoints to claim": (
        lambda stores, tenant, _: stores.webhook_deliveries.lock_to_claim(tenant.now(), ROOM),
        10,
    ),
    "sendable": (lambda stores, tenant, ids: stores.webhook_deliveries.sendable_of(ids, tenant.now()), 60),
    "backlog without later tries": (
        lambda stores, tenant, ids: stores.webhook_history.send_waiting(ids[0], tenant.now()),
        10,
    ),
    "later tries": (
        lambda stores, tenant, ids: stores.webhook_history.send_waiting(ids[0], tenant.now() - timedelta(days=1)),
        3 * SENT_AT_ONCE,
    ),
    "due deliveries and a wrong clock": (
        lambda stores, tenant, _: stores.corrections.hasten_deliveries(tenant.now(), 100),
        10,
    ),
    "later tries and a wrong clock": (
        lambda stores, tenant, _: stores.corrections.hasten_deliveries(tenant.now() - timedelta(hours=1), 100),
        2 * WAITING,
    ),
    "count for metrics": (
        lambda stores, tenant, _: stores.webhook_deliveries.waiting(tenant.now()),
        COUNTED_UP_TO + 10,
    ),
}


def test_steps_of_deliveries_read_an_index(tenant: Tenant, endpoints: list[UUID]) -> None:
    for name, (step, most) in STEPS.items():
        opened = tenant.database.transaction()
        read = rows_read(tenant.database, opened, partial(_acted, step, tenant, endpoints), BIG)
        assert read <= most, name
    assert (
        rows_read(tenant.database, tenant.database.transaction(), partial(_claimed, tenant, endpoints[0]), BIG) <= 100
    )


def _acted(step: Step, tenant: Tenant, endpoints: list[UUID], stores: Stores) -> None:
    step(stores, tenant, endpoints)


def _claimed(tenant: Tenant, endpoint_id: UUID, stores: Stores) -> None:
    """Claim deliveries, and lock them to record their results."""
    found = stores.webhook_deliveries.sendable_of([endpoint_id], tenant.now())
    claims = [
        ClaimedDelivery(claim=uuid4(), delivery=each.delivery, message=each.message, owner=uuid4(), is_slow=False)
        for each in found
    ]
    assert len(stores.webhook_deliveries.claim(claims, {endpoint_id: None}, tenant.now())) == len(claims) == 4
    assert len(stores.webhook_deliveries.lock_claimed(claims)) == 4

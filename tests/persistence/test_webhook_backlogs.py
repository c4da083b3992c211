"""Looks of the process `webhooks` read few rows, however many events wait behind undelivered ones.

DUECALL_WAITING=250000 python -m pytest tests/persistence/test_webhook_backlogs.py
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from scheduler.domain.webhook import ClaimedDelivery, Outcome, WebhookAnswer
from scheduler.persistence.stores import Stores
from scheduler.rules.webhooks import MOST_IN_FLIGHT
from tests.conftest import TestClock
from tests.persistence.rows_read import rows_read
from tests.support.builders import Tenant
from tests.use_cases.webhooks.endpoints import EVERYTHING, ScriptedSender, Webhooks

pytestmark = pytest.mark.timeout(1800)
BIG = frozenset({"webhook_deliveries", "events"})
WAITING = int(os.environ.get("DUECALL_WAITING", "6000"))
FILLED = 5_000
"""Rows that are added by one statement."""
ACCEPTED = WebhookAnswer(outcome=Outcome.DELIVERED, status=200)
READ_BY_A_LOOK = 500
"""Rows that a look reads once what waits is held: a few of each of fifty webhooks."""
READ_WHILE_HOLDING = 4_000
"""Rows that a look reads or writes while it holds whole windows."""

_FILL = """
    WITH made AS (
        INSERT INTO events (id, company_id, interview_id, type, occurred_at, data, place, sequence)
        SELECT gen_random_uuid(), :company_id, md5(CAST((n - 1) / :events AS text))::uuid, 'interview.scheduled', :now,
               '{}', n, 1 + (n - 1) % :events
        FROM generate_series(CAST(:first AS bigint), :last) n
        RETURNING id, interview_id, place, sequence
    )
    INSERT INTO webhook_deliveries
        (event_id, endpoint_id, place, interview_id, sequence, state, send_at, tries, first_failed_at, created_at)
    SELECT m.id, (CAST(:endpoints AS uuid[]))[1 + ((m.place - 1) / :events) % :webhooks], m.place, m.interview_id,
           m.sequence, 'WAITING',
           CASE WHEN m.sequence <= :put_off THEN CAST(:later AS timestamptz) ELSE :now END,
           CASE WHEN m.sequence <= :put_off THEN 2 ELSE 0 END,
           CASE WHEN m.sequence < :put_off THEN CAST(:long_ago AS timestamptz)
                WHEN m.sequence = :put_off THEN CAST(:now AS timestamptz) END,
           :now
    FROM made m
"""


@dataclass(frozen=True, kw_only=True)
class Backlog:
    webhooks: int
    events: int
    """Of each interview."""
    put_off: int = 1
    """The first events of each interview, which have failed and wait for their next try. The last has failed just
    now, the others long ago."""


BACKLOGS = {
    "one webhook": Backlog(webhooks=1, events=600),
    "fifty webhooks": Backlog(webhooks=50, events=60),
    "one interview": Backlog(webhooks=1, events=WAITING),
    "one interview with many retries": Backlog(webhooks=1, events=WAITING, put_off=WAITING // 2),
}


@pytest.fixture(params=BACKLOGS)
def backlog(request: pytest.FixtureRequest, tenant: Tenant) -> Backlog:
    """Events that wait for webhooks, behind undelivered first ones that wait for their next tries."""
    made = BACKLOGS[request.param]
    webhooks, now = Webhooks(tenant=tenant), tenant.now()
    values: dict[str, Any] = {
        "company_id": tenant.company_id,
        "events": made.events,
        "webhooks": made.webhooks,
        "endpoints": [webhooks.endpoint() for _ in range(made.webhooks)],
        "put_off": made.put_off,
        "now": now,
        "later": now + timedelta(minutes=5),
        "long_ago": now - timedelta(hours=1),
    }
    for first in range(1, WAITING + 1, FILLED):
        with tenant.database.transaction() as stores:
            stores.connection.execute(text("SET LOCAL statement_timeout = 0"))
            stores.connection.execute(text(_FILL), {**values, "first": first, "last": min(WAITING, first + FILLED - 1)})
    with tenant.database.transaction() as stores:
        stores.connection.execute(text("ANALYZE webhook_deliveries, events, webhook_endpoints"))
    return made


def read_by_a_look(tenant: Tenant) -> int:
    """Count the rows that a look reads with the worse kind of plan: a connection may keep either for long."""
    return max(
        rows_read(tenant.database, tenant.database.transaction(), partial(_look, tenant, plans), BIG)
        for plans in ("force_custom_plan", "force_generic_plan")
    )


def _look(tenant: Tenant, plans: str, stores: Stores) -> None:
    """Look for work, and for what can be claimed."""
    stores.connection.execute(text(f"SELECT set_config('plan_cache_mode', '{plans}', true)"))
    now, deliveries = tenant.now(), stores.webhook_deliveries
    deliveries.work(now)
    endpoints = [each.id for each in deliveries.lock_to_claim(now, EVERYTHING)]
    deliveries.hold_blocked(endpoints, now)
    deliveries.sendable_of(endpoints, now)


def settled(tenant: Tenant, webhooks: Webhooks) -> int:
    """Look until nothing has to be held any longer. Return the number of looks."""
    deliver, looks = webhooks.deliver(ScriptedSender(ACCEPTED)), 0
    is_due = True
    while is_due:
        assert deliver.claim(EVERYTHING) == (), "all wait for their first events"
        looks += 1
        with tenant.database.transaction() as stores:
            is_due = stores.webhook_deliveries.work(tenant.now()).is_one_due
    return looks


def test_look_reads_few_rows_however_many_events_wait(tenant: Tenant, backlog: Backlog) -> None:
    webhooks = Webhooks(tenant=tenant)
    assert read_by_a_look(tenant) <= READ_WHILE_HOLDING
    assert settled(tenant, webhooks) < 2 * WAITING / 100 + 10
    assert read_by_a_look(tenant) <= READ_BY_A_LOOK


two_backlogs = pytest.mark.parametrize("backlog", ["fifty webhooks", "one interview"], indirect=True)


@two_backlogs
def test_event_of_another_webhook_is_claimed_in_the_first_looks(
    tenant: Tenant, backlog: Backlog, now: TestClock
) -> None:
    webhooks = Webhooks(tenant=tenant)
    other = webhooks.endpoint(claimed_at=now())
    _add(tenant, other)
    deliver = webhooks.deliver(ScriptedSender(ACCEPTED))
    claims: list[ClaimedDelivery] = []
    for _ in range(2 + backlog.webhooks // 16):
        now.move(timedelta(milliseconds=20))
        claims += deliver.claim(EVERYTHING)
    assert [each.delivery.endpoint_id for each in claims] == [other]


@two_backlogs
def test_end_of_a_first_event_frees_its_interview_alone(tenant: Tenant, backlog: Backlog) -> None:
    """The result also reads few rows."""
    webhooks = Webhooks(tenant=tenant)
    settled(tenant, webhooks)
    tenant.change(
        "UPDATE webhook_deliveries SET send_at = :now WHERE place = :place", now=tenant.now(), place=backlog.put_off
    )
    deliver = webhooks.deliver(ScriptedSender(ACCEPTED))
    [claim] = deliver.claim(EVERYTHING)
    deliver.record([deliver.send(claim)])
    [following] = deliver.claim(EVERYTHING)
    assert following.message.sequence == backlog.put_off + 1
    assert len(tenant.ask("SELECT FROM webhook_deliveries WHERE state = 'WAITING' AND held_until IS NULL")) <= (
        backlog.put_off * WAITING / backlog.events + MOST_IN_FLIGHT
    )


def _add(tenant: Tenant, endpoint_id: UUID) -> None:
    webhooks = Webhooks(tenant=tenant)
    event_id = webhooks.event(uuid4(), place=2**40)
    tenant.insert(
        "webhook_deliveries",
        event_id=event_id,
        endpoint_id=endpoint_id,
        place=2**40,
        state="WAITING",
        send_at=tenant.now(),
        created_at=tenant.now(),
    )

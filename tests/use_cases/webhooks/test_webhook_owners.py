"""Owners of webhooks: no other key changes or replays them, and none is for a company out of its key's reach."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from scheduler.domain.command import CommandKind
from scheduler.domain.delivery_history import DeliveryFilter
from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.refusals import AccessDenied, Forbidden, NotFound
from scheduler.domain.webhook import EventType, NewEndpoint
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites
from scheduler.use_cases.resources.webhooks import WebhookDeliveries
from scheduler.use_cases.resources.webhooks import Webhooks as Endpoints
from tests.architecture.guards import guards
from tests.support.builders import RecordingHints, Tenant, a_write
from tests.use_cases.webhooks.endpoints import ACCEPTED, ENCRYPTION, EVERYTHING, ScriptedSender, Webhooks


@pytest.fixture
def endpoints(tenant: Tenant, hints: RecordingHints) -> Endpoints:
    writes = IdempotentWrites(tenant.database, tenant.now)
    return Endpoints(tenant.database, writes, hints, ENCRYPTION, tenant.hasher, https_only=True)


@pytest.fixture
def deliveries(tenant: Tenant, hints: RecordingHints) -> WebhookDeliveries:
    return WebhookDeliveries(tenant.database, IdempotentWrites(tenant.database, tenant.now), hints)


@pytest.fixture
def second(tenant: Tenant) -> Principal:
    """Another key of the same company."""
    return Principal(id=uuid4(), kind=KeyKind.REGULAR, key_id=uuid4(), scopes=frozenset(), company_id=tenant.company_id)


@guards("hook_owner")
def test_endpoint_is_changed_by_no_other_key_of_its_company(
    webhooks: Webhooks, endpoints: Endpoints, second: Principal
) -> None:
    endpoint_id = webhooks.endpoint()
    writes: list[tuple[CommandKind, Callable[..., Any], list[Any]]] = [
        (CommandKind.UPDATE_WEBHOOK, endpoints.change, [{"url": "https://example.org/"}]),
        (CommandKind.RESET_WEBHOOK_CIRCUIT, endpoints.reset_circuit, []),
        (CommandKind.ROTATE_WEBHOOK, endpoints.rotate_secret, []),
    ]
    before = webhooks.row(endpoint_id)
    for kind, write, more in writes:
        with pytest.raises(Forbidden):
            write(a_write(kind, second), endpoint_id, *more)
    assert webhooks.row(endpoint_id) == before
    assert endpoints.get(second, endpoint_id).signing_secret is None
    assert endpoints.delete(a_write(CommandKind.DELETE_WEBHOOK, second), endpoint_id).refusal is None


@guards("hook_shared")
def test_endpoint_is_hidden_outside_its_company(webhooks: Webhooks, endpoints: Endpoints, other: Tenant) -> None:
    endpoint_id = webhooks.endpoint()
    ats = Principal(id=uuid4(), kind=KeyKind.ATS, key_id=uuid4(), scopes=frozenset())
    before = webhooks.row(endpoint_id)
    for principal in (other.principal, ats):
        with pytest.raises(NotFound):
            endpoints.get(principal, endpoint_id)
        refusal = endpoints.delete(a_write(CommandKind.DELETE_WEBHOOK, principal), endpoint_id).refusal
        assert refusal is not None
        assert refusal.family == NotFound.__name__
    assert webhooks.row(endpoint_id) == before


@guards("delivery_owner")
def test_deliveries_are_hidden_from_other_keys_of_the_company(
    webhooks: Webhooks, deliveries: WebhookDeliveries, second: Principal
) -> None:
    endpoint_id = webhooks.endpoint()
    event_id = webhooks.numbered_event()
    assert pages(deliveries, webhooks.tenant.principal, endpoint_id) == [event_id]
    with pytest.raises(NotFound):
        pages(deliveries, second, endpoint_id)
    refusal = deliveries.replay_one(a_write(CommandKind.REPLAY_DELIVERY, second), endpoint_id, event_id).refusal
    assert refusal is not None
    assert refusal.family == NotFound.__name__


def pages(deliveries: WebhookDeliveries, principal: Principal, endpoint_id: UUID) -> list[UUID]:
    page = deliveries.page(principal, endpoint_id, DeliveryFilter(), before=None, limit=10)
    return [each.event_id for each in page.deliveries]


@guards("hook_reach")
def test_endpoint_is_for_no_company_out_of_reach(endpoints: Endpoints, tenant: Tenant, other: Tenant) -> None:
    new = NewEndpoint(url="https://example.com/", events=(EventType.INTERVIEW_SCHEDULED,), company_id=other.company_id)
    ats = Principal(id=uuid4(), kind=KeyKind.ATS, key_id=uuid4(), scopes=frozenset())
    for principal in (tenant.principal, ats):
        with pytest.raises(AccessDenied):
            endpoints.create(a_write(CommandKind.CREATE_WEBHOOK, principal), new)
    assert tenant.ask("SELECT count(*) FROM webhook_endpoints") == [(0,)]


# ---- replays


@guards("replay_claimed")
def test_replay_leaves_the_claim_of_another_process(webhooks: Webhooks, deliveries: WebhookDeliveries) -> None:
    endpoint_id = webhooks.endpoint()
    event_id = webhooks.numbered_event()
    deliver = webhooks.deliver(ScriptedSender(ACCEPTED))
    [claimed] = deliver.claim(EVERYTHING)
    principal = webhooks.tenant.principal
    assert deliveries.replay_one(a_write(CommandKind.REPLAY_DELIVERY, principal), endpoint_id, event_id).refusal is None
    [row] = webhooks.deliveries()
    assert (row.claim, row.is_replay) == (claimed.claim, False), "it is being sent"
    deliver.record([deliver.send(claimed)])
    assert webhooks.states() == ["DELIVERED"]

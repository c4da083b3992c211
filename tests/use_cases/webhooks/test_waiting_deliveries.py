"""Deliveries that wait for a later try are sent at once when their webhook is reset, activated or enabled."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from scheduler.domain.command import CommandKind
from scheduler.domain.webhook import ErrorKind, Outcome, WebhookAnswer
from scheduler.persistence import webhook_history
from scheduler.use_cases.operations.webhooks import WebhookOperations
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites
from scheduler.use_cases.resources.webhooks import Webhooks as Endpoints
from scheduler.use_cases.webhooks.deliver import Deliver
from tests.conftest import TestClock
from tests.support.builders import RecordingHints, Tenant, a_write
from tests.support.statements import statements_of
from tests.use_cases.webhooks.endpoints import ACCEPTED, ENCRYPTION, ScriptedSender, Webhooks

HOUR = timedelta(hours=1)
FAILED = WebhookAnswer(outcome=Outcome.FAILED, status=500, error_kind=ErrorKind.HTTP_ERROR, retry_after=HOUR)
Act = Callable[[UUID], object]


@pytest.fixture
def endpoints(tenant: Tenant, hints: RecordingHints) -> Endpoints:
    writes = IdempotentWrites(tenant.database, tenant.now)
    return Endpoints(tenant.database, writes, hints, ENCRYPTION, tenant.hasher, https_only=True)


@pytest.fixture
def act(request: pytest.FixtureRequest, tenant: Tenant, endpoints: Endpoints) -> Act:
    """One of the acts that let waiting deliveries be sent. They share what follows."""
    operations = WebhookOperations(tenant.database, tenant.now)

    def activate(endpoint_id: UUID) -> None:
        for is_active in (False, True):
            sent = a_write(CommandKind.UPDATE_WEBHOOK, tenant.principal)
            endpoints.change(sent, endpoint_id, {"is_active": is_active})

    def reset(endpoint_id: UUID) -> None:
        endpoints.reset_circuit(a_write(CommandKind.RESET_WEBHOOK_CIRCUIT, tenant.principal), endpoint_id)

    acts: dict[str, Act] = {
        "reset": reset,
        "activate": activate,
        "enable": lambda each: operations.enable(each, "it is back"),
        "close": lambda each: operations.close_circuit(each, "it is back"),
    }
    return acts[getattr(request, "param", "reset")]


def failed_once(webhooks: Webhooks, now: TestClock, count: int, interview_id: UUID | None = None) -> None:
    """Add events whose first try has failed, and whose next one is an hour away."""
    for _ in range(count):
        webhooks.event(interview_id)
    webhooks.number()
    failing = webhooks.deliver(ScriptedSender(FAILED))
    while webhooks.send_all(failing):
        now.move(timedelta(seconds=61))  # the next event of an interview is no longer blocked


@pytest.mark.parametrize("act", ["reset", "activate", "enable", "close"], indirect=True)
@pytest.mark.parametrize("is_replay", [False, True])
def test_waiting_deliveries_are_sent_at_once(
    webhooks: Webhooks, now: TestClock, act: Act, accepting: Deliver, *, is_replay: bool
) -> None:
    endpoint_id = webhooks.endpoint()
    failed_once(webhooks, now, 3)
    webhooks.tenant.change("UPDATE webhook_deliveries SET is_replay = :is_replay", is_replay=is_replay)
    assert webhooks.send_all(accepting) == 0
    act(endpoint_id)
    while webhooks.send_all(accepting):
        pass
    assert webhooks.states() == ["DELIVERED"] * 3
    assert {row.tries for row in webhooks.deliveries()} == {2}


@pytest.mark.parametrize("most_are_due", [False, True])
def test_waiting_events_of_an_interview_keep_their_order(
    webhooks: Webhooks, now: TestClock, act: Act, *, most_are_due: bool
) -> None:
    """While the circuit is open, most tries come due. The last event of the interview waits for a later one."""
    endpoint_id, interview_id = webhooks.endpoint(), uuid4()
    failed_once(webhooks, now, 3, interview_id)
    if most_are_due:
        not_the_last = "sequence < (SELECT max(sequence) FROM webhook_deliveries)"
        webhooks.tenant.change(f"UPDATE webhook_deliveries SET send_at = :now WHERE {not_the_last}", now=now())
    act(endpoint_id)
    sender = ScriptedSender(ACCEPTED)
    deliver = webhooks.deliver(sender)
    for _ in range(3):
        assert webhooks.send_all(deliver) == 1, "the next event waits for this one"
    assert [each.message_id for each in sender.sent] == [str(row.event_id) for row in webhooks.deliveries()]


def test_deliveries_of_other_webhooks_keep_their_times(webhooks: Webhooks, now: TestClock, act: Act) -> None:
    endpoint_id, other = webhooks.endpoint(), webhooks.endpoint()
    failed_once(webhooks, now, 1)
    before = webhooks.deliveries(other)
    act(endpoint_id)
    assert webhooks.deliveries(other) == before


def test_only_the_first_waiting_deliveries_are_sent(
    webhooks: Webhooks, now: TestClock, act: Act, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_history, "SENT_AT_ONCE", 2)
    endpoint_id = webhooks.endpoint()
    failed_once(webhooks, now, 3)
    for due in (2, 3):
        act(endpoint_id)
        assert len([row for row in webhooks.deliveries() if row.send_at <= now()]) == due


def test_number_of_statements_does_not_depend_on_deliveries(webhooks: Webhooks, now: TestClock, act: Act) -> None:
    counts = set()
    for count in (1, 20):
        endpoint_id = webhooks.endpoint(consecutive_failures=1)
        failed_once(webhooks, now, count)
        with statements_of(webhooks.tenant.database) as statements:
            act(endpoint_id)
        counts.add(len(statements))
    assert len(counts) == 1


def test_active_webhook_that_is_written_back_uses_up_no_try(
    webhooks: Webhooks, tenant: Tenant, endpoints: Endpoints, now: TestClock
) -> None:
    endpoint_id = webhooks.endpoint()
    failed_once(webhooks, now, 1)
    [before] = webhooks.deliveries()
    sent = a_write(CommandKind.UPDATE_WEBHOOK, tenant.principal)
    assert endpoints.change(sent, endpoint_id, {"is_active": True}).refusal is None
    assert webhooks.deliveries() == [before]

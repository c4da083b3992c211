"""Deliveries that wait for a later try are sent at once when their webhook is reset, activated or enabled."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from scheduler.domain.command import CommandKind
from scheduler.domain.webhook import ErrorKind, Outcome, WebhookAnswer
from scheduler.persistence import webhook_history
from scheduler.use_cases.operations.webhooks import WebhookOperations
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites, WriteRequest
from scheduler.use_cases.resources.webhooks import Webhooks as Endpoints
from tests.conftest import TestClock
from tests.support.builders import RecordingHints, Tenant
from tests.support.statements import statements_of
from tests.use_cases.webhooks.endpoints import ENCRYPTION, ScriptedSender, Webhooks

HOUR = timedelta(hours=1)
ACCEPTED = WebhookAnswer(outcome=Outcome.DELIVERED, status=200)
FAILED = WebhookAnswer(outcome=Outcome.FAILED, status=500, error_kind=ErrorKind.HTTP_ERROR, retry_after=HOUR)
Act = Callable[[UUID], object]


@pytest.fixture
def webhooks(tenant: Tenant, hints: RecordingHints) -> Webhooks:
    return Webhooks(tenant=tenant, hints=hints)


@pytest.fixture(params=["reset", "activate", "enable", "close"])
def act(request: pytest.FixtureRequest, tenant: Tenant, hints: RecordingHints) -> Act:
    """Return each of the acts that let waiting deliveries be sent."""
    writes = IdempotentWrites(tenant.database, tenant.now)
    endpoints = Endpoints(tenant.database, writes, hints, ENCRYPTION, tenant.hasher, https_only=True)
    operations = WebhookOperations(tenant.database, tenant.now)

    def sent(kind: CommandKind) -> WriteRequest:
        principal = tenant.principal
        return WriteRequest(kind=kind, principal=principal, idempotency_key=None, request_hash=b"", command_id=uuid4())

    def activate(endpoint_id: UUID) -> None:
        for is_active in (False, True):
            endpoints.change(sent(CommandKind.UPDATE_WEBHOOK), endpoint_id, {"is_active": is_active})

    acts: dict[str, Act] = {
        "reset": lambda each: endpoints.reset_circuit(sent(CommandKind.RESET_WEBHOOK_CIRCUIT), each),
        "activate": activate,
        "enable": lambda each: operations.enable(each, "it is back"),
        "close": lambda each: operations.close_circuit(each, "it is back"),
    }
    return acts[request.param]


def failed_once(webhooks: Webhooks, now: TestClock, count: int, interview_id: UUID | None = None) -> None:
    """Add events whose first try has failed, and whose next one is an hour away."""
    for _ in range(count):
        webhooks.event(interview_id)
    webhooks.number()
    failing = webhooks.deliver(ScriptedSender(FAILED))
    while webhooks.send_all(failing):
        now.move(timedelta(seconds=61))  # the next event of an interview is no longer blocked


def test_waiting_deliveries_are_sent_at_once(webhooks: Webhooks, now: TestClock, act: Act) -> None:
    endpoint_id = webhooks.endpoint()
    failed_once(webhooks, now, 3)
    accepting = webhooks.deliver(ScriptedSender(ACCEPTED))
    assert webhooks.send_all(accepting) == 0
    act(endpoint_id)
    while webhooks.send_all(accepting):
        pass
    assert webhooks.states() == ["DELIVERED"] * 3
    assert {row.tries for row in webhooks.deliveries()} == {2}


def test_waiting_events_of_an_interview_keep_their_order(webhooks: Webhooks, now: TestClock, act: Act) -> None:
    endpoint_id, interview_id = webhooks.endpoint(), uuid4()
    failed_once(webhooks, now, 3, interview_id)
    act(endpoint_id)
    sender = ScriptedSender(ACCEPTED)
    deliver = webhooks.deliver(sender)
    for _ in range(3):
        assert webhooks.send_all(deliver) == 1, "the next event waits for this one"
    assert [each.message_id for each in sender.sent] == [str(row.event_id) for row in webhooks.deliveries()]


def test_waiting_replays_are_sent_too(webhooks: Webhooks, now: TestClock, act: Act) -> None:
    endpoint_id = webhooks.endpoint()
    failed_once(webhooks, now, 2)
    webhooks.tenant.change("UPDATE webhook_deliveries SET is_replay = true")
    act(endpoint_id)
    accepting = webhooks.deliver(ScriptedSender(ACCEPTED))
    while webhooks.send_all(accepting):
        pass
    assert webhooks.states() == ["DELIVERED"] * 2


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


def test_overdue_events_of_an_interview_keep_their_order(webhooks: Webhooks, now: TestClock, act: Act) -> None:
    """While the circuit is open, most tries come due. The last event of the interview waits for a later one."""
    endpoint_id, interview_id = webhooks.endpoint(), uuid4()
    failed_once(webhooks, now, 3, interview_id)
    webhooks.tenant.change(
        "UPDATE webhook_deliveries SET send_at = :now WHERE sequence < (SELECT max(sequence) FROM webhook_deliveries)",
        now=now(),
    )
    act(endpoint_id)
    sender = ScriptedSender(ACCEPTED)
    deliver = webhooks.deliver(sender)
    for _ in range(3):
        assert webhooks.send_all(deliver) == 1, "the next event waits for this one"
    assert [each.message_id for each in sender.sent] == [str(row.event_id) for row in webhooks.deliveries()]


def test_active_webhook_that_is_written_back_uses_up_no_try(
    webhooks: Webhooks, tenant: Tenant, hints: RecordingHints, now: TestClock
) -> None:
    endpoint_id = webhooks.endpoint()
    failed_once(webhooks, now, 1)
    [before] = webhooks.deliveries()
    writes = IdempotentWrites(tenant.database, tenant.now)
    endpoints = Endpoints(tenant.database, writes, hints, ENCRYPTION, tenant.hasher, https_only=True)
    kind, command_id = CommandKind.UPDATE_WEBHOOK, uuid4()
    sent = WriteRequest(
        kind=kind, principal=tenant.principal, idempotency_key=None, request_hash=b"", command_id=command_id
    )
    assert endpoints.change(sent, endpoint_id, {"is_active": True}).refusal is None
    assert webhooks.deliveries() == [before]

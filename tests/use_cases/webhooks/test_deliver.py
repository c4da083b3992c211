"""Deliveries: made when events are numbered, claimed by one process, sent with the same id until they are accepted."""

import json
import random
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from scheduler.domain.alarm import SUBJECTS
from scheduler.domain.webhook import ErrorKind, Outcome, WebhookAnswer
from scheduler.persistence.webhook_deliveries import _IS_SENDABLE, LEASE, _instants
from scheduler.rules.webhooks import MOST_TRIES, NOT_SENT_AGAIN_AFTER, QueuedDelivery, Room, sendable
from scheduler.use_cases.operations.number_events import NumberEvents
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.webhooks.deliver import Deliver, Result
from scheduler.webhooks.sending import Encryption, new_secret
from tests.architecture.guards import guards
from tests.conftest import TestClock, wait_until
from tests.support.builders import Tenant
from tests.support.statements import statements_of
from tests.support.webhook_receivers import Behaviour, a_webhook_receiver, answers, hangs
from tests.use_cases.webhooks.endpoints import (
    ACCEPTED,
    EVERYTHING,
    FAILED,
    SHORT_S,
    TYPE,
    ScriptedSender,
    Webhooks,
    everything,
)

SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
GONE = WebhookAnswer(outcome=Outcome.GONE, status=410, error_kind=ErrorKind.GONE)


# ---- made by numbering


def test_numbering_makes_deliveries_for_endpoints_that_want_them(webhooks: Webhooks, other: Tenant) -> None:
    ats_id, now = uuid4(), webhooks.tenant.now()
    own = webhooks.endpoint()
    of_ats = webhooks.endpoint(principal_id=ats_id, company_id=None)
    of_ats_for_one = webhooks.endpoint(principal_id=ats_id)
    webhooks.endpoint(is_active=False)
    webhooks.endpoint(disabled_at=now, disabled_cause="GONE")
    webhooks.endpoint(events=["ping"])
    webhooks.endpoint(company_id=other.company_id)
    webhooks.endpoint(principal_id=uuid4(), company_id=None)
    event_id = webhooks.numbered_event(uuid4(), ats_principal_id=ats_id)
    rows = webhooks.deliveries()
    assert {row.endpoint_id for row in rows} == {own, of_ats, of_ats_for_one}
    assert {(row.event_id, row.sequence, row.state, row.send_at) for row in rows} == {(event_id, 1, "WAITING", now)}
    assert (tasks.DELIVER, ()) in webhooks.hints.rings


@guards("own_ping")
def test_ping_is_delivered_to_no_other_endpoint(webhooks: Webhooks) -> None:
    webhooks.endpoint(events=["ping"])
    webhooks.numbered_event(type="ping")
    assert webhooks.deliveries() == []
    assert (tasks.DELIVER, ()) not in webhooks.hints.rings


def test_numbering_takes_the_same_statements_with_deliveries(webhooks: Webhooks) -> None:
    counts = set()
    for endpoints, events in ((0, 1), (1, 1), (2, 10), (0, 190)):
        for _ in range(endpoints):
            webhooks.endpoint()
        for _ in range(events):
            webhooks.event(uuid4())
        with statements_of(webhooks.tenant.database) as statements:
            webhooks.number()
        counts.add(len(statements))
    assert len(counts) == 1
    assert len(webhooks.deliveries()) == 1 + 3 * 10 + 3 * 190


# ---- sent and recorded


def test_delivery_is_signed_and_holds_the_event(webhooks: Webhooks) -> None:
    secret, interview_id = new_secret(), uuid4()
    with a_webhook_receiver(answers(204)) as receiver:
        endpoint_id = webhooks.endpoint(receiver.url, secret=secret, headers={"Authorization": "Bearer x"})
        event_id = webhooks.numbered_event(interview_id)
        assert webhooks.send_all(webhooks.deliver()) == 1
    [visit] = receiver.visits
    body = Webhook(secret).verify(visit.body, visit.headers)
    assert visit.headers["webhook-id"] == body["deliveryId"] == str(event_id)
    assert visit.headers["authorization"] == "Bearer x"
    assert (body["type"], body["sequence"]) == (TYPE, 1)
    ids = {"companyId": str(webhooks.tenant.company_id), "interviewId": str(interview_id)}
    assert body["data"] == {"status": "SCHEDULED", **ids}
    [row] = webhooks.deliveries(endpoint_id)
    assert (row.state, row.tries, row.last_status, row.last_error_kind, row.claim) == ("DELIVERED", 1, 204, None, None)


def test_rotated_secret_signs_beside_the_new_one(webhooks: Webhooks, now: TestClock) -> None:
    new, old = new_secret(), new_secret()
    with a_webhook_receiver(answers(200)) as receiver:
        webhooks.endpoint(receiver.url, secret=new, old_secret=old, old_secret_until=now() + DAY)
        webhooks.numbered_event()
        webhooks.send_all(webhooks.deliver())
        now.move(DAY)
        webhooks.numbered_event()
        webhooks.send_all(webhooks.deliver())
    both, one = receiver.visits
    for secret in (new, old):
        Webhook(secret).verify(both.body, both.headers)
    assert [len(visit.headers["webhook-signature"].split()) for visit in (both, one)] == [2, 1]
    Webhook(new).verify(one.body, one.headers)


@pytest.mark.parametrize(
    ("behaviour", "state", "status", "kind"),
    [
        pytest.param(hangs, "WAITING", None, "TIMEOUT", id="hang"),
        pytest.param(answers(500), "WAITING", 500, "HTTP_ERROR", id="500"),
        pytest.param(answers(410), "WAITING", 410, "GONE", id="410", marks=guards("hook_gone")),
        pytest.param(answers(200), "DELIVERED", 200, None, id="200"),
    ],
)
def test_result_is_recorded(
    webhooks: Webhooks, behaviour: Behaviour, state: str, status: int | None, kind: str | None
) -> None:
    with a_webhook_receiver(behaviour) as receiver:
        webhooks.endpoint(receiver.url)
        webhooks.numbered_event()
        webhooks.send_all(webhooks.deliver(deadline_s=SHORT_S if kind == "TIMEOUT" else 20.0))
        wait_until(lambda: receiver.connections, says="the receiver has accepted it")  # perhaps after the deadline
        assert receiver.connections == 1
    [row] = webhooks.deliveries()
    assert (row.state, row.last_status, row.last_error_kind, row.tries) == (state, status, kind, 1)
    assert (row.claim, row.lease_until) == (None, None)


def test_failed_delivery_is_tried_again_with_its_id(webhooks: Webhooks, now: TestClock) -> None:
    sender = ScriptedSender(FAILED)
    deliver = webhooks.deliver(sender)
    webhooks.endpoint()
    event_id = webhooks.numbered_event()
    for tries in range(1, MOST_TRIES + 1):
        assert webhooks.send_all(deliver) == 1
        [row] = webhooks.deliveries()
        assert (row.tries, row.first_failed_at is not None) == (tries, True)
        assert webhooks.send_all(deliver) == 0, "it is not due"
        now.move(row.send_at - now() + MINUTE)
    assert (row.state, row.finished_at is not None) == ("FAILED", True)
    assert webhooks.send_all(deliver) == 0
    assert {each.message_id for each in sender.sent} == {str(event_id)}
    assert len({each.body for each in sender.sent}) == 1


def test_receiver_can_delay_the_next_try(webhooks: Webhooks, now: TestClock) -> None:
    with a_webhook_receiver(answers(503, "Retry-After: 7200")) as receiver:
        webhooks.endpoint(receiver.url)
        webhooks.numbered_event()
        webhooks.send_all(webhooks.deliver())
    [row] = webhooks.deliveries()
    assert row.send_at == now() + timedelta(hours=2)


@pytest.mark.parametrize("given", [{}, {"headers": {"X-Tenant": "north"}}], ids=["secret", "headers"])
def test_delivery_waits_for_the_key_of_its_webhook(webhooks: Webhooks, now: TestClock, given: dict[str, Any]) -> None:
    webhooks.endpoint(**given)
    webhooks.numbered_event()
    sender = ScriptedSender(ACCEPTED)
    deliver = Deliver(webhooks.tenant.database, sender, Encryption([bytes(32)]), now)
    with capture_logs() as lines:
        webhooks.send_all(deliver)
    [row] = webhooks.deliveries()
    assert (row.state, row.tries, row.claim, row.send_at) == ("WAITING", 0, None, now() + NOT_SENT_AGAIN_AFTER)
    assert [line["alarm"] for line in lines] == ["WEBHOOK_KEY"]
    assert not {*SUBJECTS} & {*lines[0]}, "one alarm for all webhooks"
    assert sender.sent == []
    now.move(NOT_SENT_AGAIN_AFTER)
    with_the_key = webhooks.deliver(sender)
    with capture_logs() as lines:
        assert webhooks.send_all(with_the_key) == 1
    assert (webhooks.states(), lines) == (["DELIVERED"], [])


def test_missing_key_delays_no_other_webhook(webhooks: Webhooks, accepting: Deliver) -> None:
    [unreadable, readable] = [webhooks.endpoint(), webhooks.endpoint()]
    webhooks.change(unreadable, "secret = decode('00', 'hex')")
    webhooks.numbered_event()
    with capture_logs() as lines:
        assert webhooks.send_all(accepting) == 2
    assert (webhooks.states(unreadable), webhooks.states(readable)) == (["WAITING"], ["DELIVERED"])
    assert webhooks.row(unreadable).consecutive_failures == 0
    assert [line["alarm"] for line in lines] == ["WEBHOOK_KEY"]


@pytest.mark.parametrize("size", [1, 10, 200])
def test_claim_and_record_take_constant_statements(webhooks: Webhooks, size: int) -> None:
    deliver = webhooks.deliver(ScriptedSender(FAILED))
    for _ in range(50):
        webhooks.endpoint()
    if size == 1:
        kept = "(SELECT min(id::text) FROM webhook_endpoints)"
        webhooks.tenant.change(f"UPDATE webhook_endpoints SET is_active = (id::text = {kept})")
    for _ in range(4):
        webhooks.event(uuid4())
    webhooks.number()
    with statements_of(webhooks.tenant.database) as claiming:
        claims = deliver.claim(everything(size))
    results = [deliver.send(each) for each in claims]
    with statements_of(webhooks.tenant.database) as recording:
        assert not deliver.record(results)
    assert (len(claims), len(claiming), len(recording)) == (size, 5, 4)


def test_log_has_no_url_header_or_body(webhooks: Webhooks) -> None:
    with a_webhook_receiver(answers(500, body=b"canary")) as receiver, capture_logs() as lines:
        webhooks.endpoint(f"{receiver.url}&canary", name="canary", headers={"X-Canary": "canary"})
        webhooks.numbered_event()
        webhooks.send_all(webhooks.deliver())
    assert receiver.visits
    assert "canary" not in json.dumps(lines, default=str).lower()


# ---- order


def test_sql_and_rule_agree_on_the_order(webhooks: Webhooks) -> None:
    """Random deliveries of many interviews: the statement finds exactly the deliveries that the rule finds."""
    choose, now, endpoint_id = random.Random(7), webhooks.tenant.now(), webhooks.endpoint()
    queues: dict[UUID, list[QueuedDelivery]] = {}
    rows = []
    for _ in range(150):
        interview_id = uuid4()
        queues[interview_id] = [
            QueuedDelivery(
                sequence=sequence,
                is_waiting=choose.random() < 0.8,
                first_failed_at=choose.choice([None, now - choose.choice([30, 59, 60, 61]) * SECOND]),
                send_at=now + choose.choice([-60, 0, 1]) * SECOND,
                lease_until=choose.choice([None, None, now + choose.choice([-1, 0, 1]) * SECOND]),
                is_replay=choose.random() < 0.2,
            )
            for sequence in choose.sample(range(1, 9), choose.randint(1, 6))
        ]
        rows += [_row(endpoint_id, interview_id, each) for each in queues[interview_id]]
    with webhooks.tenant.database.transaction() as stores:
        stores.connection.execute(text(_INSERT), rows)
        query = text(f"SELECT d.interview_id, d.sequence FROM webhook_deliveries d WHERE {_IS_SENDABLE}")
        instants = {name: at for name, at in _instants(now).items() if name != "latest_probe"}
        found = {(row.interview_id, row.sequence) for row in stores.connection.execute(query, instants)}
    expected = {(each, one.sequence) for each, queue in queues.items() for one in sendable(queue, now)}
    assert found == expected
    assert 100 < len(expected) < len(rows) / 2


_INSERT = """
    WITH new AS (
        INSERT INTO events (id, company_id, interview_id, type, occurred_at, data)
        VALUES (:event_id, :event_id, :interview_id, 'ping', :send_at, '{}') RETURNING id
    )
    INSERT INTO webhook_deliveries (event_id, endpoint_id, place, interview_id, sequence, state, is_replay, send_at,
        claim, lease_until, first_failed_at, finished_at, created_at)
    SELECT id, :endpoint_id, 1, :interview_id, :sequence, :state, :is_replay, :send_at, :claim, :lease_until,
        :first_failed_at, :finished_at, :send_at FROM new
"""


def _row(endpoint_id: UUID, interview_id: UUID, queued: QueuedDelivery) -> dict[str, Any]:
    return {
        "event_id": uuid4(),
        "endpoint_id": endpoint_id,
        "interview_id": interview_id,
        "sequence": queued.sequence,
        "state": "WAITING" if queued.is_waiting else "DELIVERED",
        "is_replay": queued.is_replay,
        "send_at": queued.send_at,
        "claim": None if queued.lease_until is None else uuid4(),
        "lease_until": queued.lease_until,
        "first_failed_at": queued.first_failed_at,
        "finished_at": None if queued.is_waiting else queued.send_at,
    }


# ---- claims


@guards("hook_lease", "hook_stale")
def test_lost_claim_is_sent_again_with_its_id(webhooks: Webhooks, now: TestClock, accepting: Deliver) -> None:
    """A process dies after its claim, or after it has sent the message."""
    webhooks.endpoint()
    webhooks.numbered_event()
    [lost] = accepting.claim(EVERYTHING)
    result = accepting.send(lost)
    assert accepting.claim(EVERYTHING) == ()
    now.move(LEASE)
    [again] = accepting.claim(EVERYTHING)
    assert (again.delivery.event_id, again.claim != lost.claim) == (lost.delivery.event_id, True)
    accepting.record([result])
    [row] = webhooks.deliveries()
    assert (row.state, row.tries, row.claim) == ("WAITING", 0, again.claim), "the first claim is over"
    accepting.record([Result(claimed=again, answer=FAILED)])
    [row] = webhooks.deliveries()
    assert (row.state, row.tries, row.claim) == ("WAITING", 1, None)


@guards("hook_stale")
def test_stale_result_does_not_touch_the_circuit(webhooks: Webhooks, now: TestClock, failing: Deliver) -> None:
    endpoint_id = webhooks.endpoint()
    webhooks.numbered_event()
    [lost] = failing.claim(EVERYTHING)
    now.move(LEASE)
    failing.claim(EVERYTHING)
    failing.record([failing.send(lost)])
    assert webhooks.row(endpoint_id).consecutive_failures == 0


def test_result_for_a_deleted_endpoint_writes_nothing(webhooks: Webhooks, accepting: Deliver) -> None:
    endpoint_id = webhooks.endpoint()
    webhooks.numbered_event()
    [claimed] = accepting.claim(EVERYTHING)
    webhooks.tenant.change("DELETE FROM webhook_endpoints WHERE id = :id", id=endpoint_id)
    accepting.record([accepting.send(claimed)])
    assert webhooks.deliveries() == []


def test_endpoint_has_four_messages_in_flight(webhooks: Webhooks, accepting: Deliver) -> None:
    webhooks.endpoint()
    for _ in range(9):
        webhooks.event(uuid4())
    webhooks.number()
    assert len(accepting.claim(EVERYTHING)) == 4
    assert webhooks.deliver(ScriptedSender(ACCEPTED)).claim(EVERYTHING) == ()


def test_places_are_spread_over_endpoints(webhooks: Webhooks, accepting: Deliver) -> None:
    busy, quiet = webhooks.endpoint(), webhooks.endpoint(events=["interview.failed"])
    for _ in range(9):
        webhooks.event(uuid4())
    webhooks.event(uuid4(), type="interview.failed")
    webhooks.number()
    claimed = [each.delivery.endpoint_id for each in accepting.claim(everything(2))]
    assert sorted(claimed) == sorted([busy, quiet])


def test_owner_without_room_hides_no_other_owner(webhooks: Webhooks, accepting: Deliver) -> None:
    """Its webhooks come first, and there are more of them than endpoints that a claim locks."""
    for _ in range(5):
        webhooks.endpoint(claimed_at=None)
    other = webhooks.endpoint(principal_id=uuid4(), claimed_at=webhooks.tenant.now())
    webhooks.event(uuid4())
    webhooks.number()
    owner = webhooks.tenant.company_id
    room = Room(free=4, free_for_slow=4, most_of_an_owner=4, held={owner: 4})
    assert [each.delivery.endpoint_id for each in accepting.claim(room)] == [other]
    one_left = replace(room, held={owner: 3})
    assert [each.owner for each in accepting.claim(one_left)] == [owner]


@pytest.mark.parametrize("changes", ["is_active = false", "disabled_at = :at, disabled_cause = 'GONE'"])
def test_deliveries_wait_for_their_endpoint(webhooks: Webhooks, accepting: Deliver, changes: str) -> None:
    endpoint_id = webhooks.endpoint()
    webhooks.numbered_event()
    webhooks.change(endpoint_id, changes, **({"at": webhooks.tenant.now()} if ":at" in changes else {}))
    assert webhooks.send_all(accepting) == 0
    webhooks.change(endpoint_id, "is_active = true, disabled_at = NULL, disabled_cause = NULL")
    assert webhooks.send_all(accepting) == 1
    assert webhooks.states() == ["DELIVERED"]


# ---- circuit


def fails_in_a_row(webhooks: Webhooks, deliver: Deliver, count: int) -> None:
    for _ in range(count):
        webhooks.numbered_event(uuid4())
        assert webhooks.send_all(deliver) == 1


def test_open_circuit_leaves_one_probe_a_minute(webhooks: Webhooks, now: TestClock, failing: Deliver) -> None:
    endpoint_id = webhooks.endpoint()
    fails_in_a_row(webhooks, failing, 10)
    assert webhooks.row(endpoint_id).circuit_opened_at == now()
    for _ in range(3):
        webhooks.event(uuid4())
    webhooks.number()
    assert webhooks.send_all(failing) == 0
    now.move(MINUTE)
    [probe] = failing.claim(EVERYTHING)
    assert failing.claim(EVERYTHING) == ()
    webhooks.deliver(ScriptedSender(ACCEPTED)).record([Result(claimed=probe, answer=ACCEPTED)])
    row = webhooks.row(endpoint_id)
    assert (row.consecutive_failures, row.circuit_opened_at, row.probe_at) == (0, None, None)
    assert len(failing.claim(EVERYTHING)) == 4


def test_failing_endpoint_has_one_message_in_flight(webhooks: Webhooks, failing: Deliver) -> None:
    webhooks.endpoint()
    fails_in_a_row(webhooks, failing, 1)
    for _ in range(3):
        webhooks.event(uuid4())
    webhooks.number()
    assert len(failing.claim(EVERYTHING)) == 1


def test_gone_endpoint_is_disabled_and_its_key_is_told(webhooks: Webhooks, now: TestClock) -> None:
    gone, other, foreign = webhooks.endpoint(), webhooks.endpoint(), webhooks.endpoint(principal_id=uuid4())
    webhooks.numbered_event(uuid4())
    deliver = webhooks.deliver(ScriptedSender(GONE))
    claims = [each for each in deliver.claim(EVERYTHING) if each.delivery.endpoint_id == gone]
    deliver.record([deliver.send(each) for each in claims])
    row = webhooks.row(gone)
    assert (row.disabled_at, row.disabled_cause, row.notice_at) == (now(), "GONE", now())
    webhooks.number()
    [event] = webhooks.tenant.ask("SELECT * FROM events WHERE type = 'endpoint.disabled'")
    assert event.data == {
        "webhookId": str(gone),
        "reasonCode": "GONE",
        "companyId": str(webhooks.tenant.company_id),
    }
    told = [each.endpoint_id for each in webhooks.deliveries() if each.event_id == event.id]
    assert told == [other]
    assert foreign not in told
    [waiting] = webhooks.deliveries(gone)
    assert waiting.state == "WAITING", "it is sent if the endpoint is enabled again"


@pytest.mark.parametrize("answer", [FAILED, GONE, ACCEPTED], ids=["failed", "gone", "accepted"])
@guards("replay_circuit")
def test_replay_does_not_touch_the_circuit(webhooks: Webhooks, failing: Deliver, answer: WebhookAnswer) -> None:
    endpoint_id = webhooks.endpoint()
    fails_in_a_row(webhooks, failing, 10)
    before = webhooks.row(endpoint_id)
    webhooks.tenant.change(
        "UPDATE webhook_deliveries SET is_replay = true, tries = 0, send_at = :now, first_failed_at = NULL"
        " WHERE place = (SELECT min(place) FROM webhook_deliveries)",
        now=webhooks.tenant.now(),
    )
    assert webhooks.send_all(webhooks.deliver(ScriptedSender(answer))) == 1
    after = webhooks.row(endpoint_id)
    names = ("consecutive_failures", "failing_since", "circuit_opened_at", "probe_at", "disabled_at")
    assert [getattr(after, name) for name in names] == [getattr(before, name) for name in names]


def test_replays_and_events_take_turns(webhooks: Webhooks, accepting: Deliver) -> None:
    webhooks.endpoint()
    for _ in range(6):
        webhooks.event(uuid4())
    webhooks.number()
    webhooks.tenant.change("UPDATE webhook_deliveries SET is_replay = true")
    fresh = [webhooks.event(uuid4()) for _ in range(6)]
    webhooks.number()
    claimed = [each.delivery.event_id for each in accepting.claim(everything(4))]
    assert len([each for each in claimed if each in fresh]) == 2


@pytest.mark.parametrize(("answer", "state"), [(FAILED, "FAILED"), (ACCEPTED, "DELIVERED")])
def test_ping_is_tried_once_and_says_nothing_about_health(
    webhooks: Webhooks, answer: WebhookAnswer, state: str
) -> None:
    endpoint_id = webhooks.endpoint()
    event_id = webhooks.numbered_event(type="ping")
    now = webhooks.tenant.now()
    row = {"event_id": event_id, "endpoint_id": endpoint_id, "place": 1, "state": "WAITING", "send_at": now}
    webhooks.tenant.insert("webhook_deliveries", **row, created_at=now)
    webhooks.send_all(webhooks.deliver(ScriptedSender(answer)))
    assert webhooks.states() == [state]
    assert webhooks.row(endpoint_id).consecutive_failures == 0


def test_results_are_counted(webhooks: Webhooks, failing: Deliver, accepting: Deliver) -> None:
    webhooks.endpoint()
    for deliver in (failing, accepting):
        webhooks.numbered_event(uuid4())
        webhooks.send_all(deliver)
    with webhooks.tenant.database.reading() as stores:
        totals = {key[1]: amount.n for key, amount in stores.tallies.totals().items() if "webhook" in key[0]}
    assert totals == {"RETRIED": 1, "DELIVERED": 1}


def test_waiting_deliveries_are_counted(webhooks: Webhooks, now: TestClock) -> None:
    healthy = webhooks.endpoint()
    broken = webhooks.endpoint(circuit_opened_at=now(), consecutive_failures=10)
    webhooks.numbered_event(uuid4())
    due_at = now()
    now.move(MINUTE)
    with webhooks.tenant.database.counting() as stores:
        waiting = stores.webhook_deliveries.waiting(now())
    assert (waiting.count, waiting.oldest_at) == (2, due_at)
    webhooks.change(healthy, "is_active = false")
    with webhooks.tenant.database.counting() as stores:
        waiting = stores.webhook_deliveries.waiting(now())
    assert (waiting.count, waiting.oldest_at) == (1, None), "the circuit of the other is open"
    assert webhooks.states(broken) == ["WAITING"]


def test_clock_hints_only_what_can_be_sent(webhooks: Webhooks, now: TestClock, failing: Deliver) -> None:
    assert not is_hinted(webhooks)
    webhooks.endpoint()
    webhooks.numbered_event(uuid4())
    assert is_hinted(webhooks)
    webhooks.send_all(failing)
    assert not is_hinted(webhooks)
    now.move(6 * SECOND)
    assert is_hinted(webhooks)


def is_hinted(webhooks: Webhooks) -> bool:
    """Check that a tick of the clock sends the hint."""
    webhooks.hints.rings.clear()
    NumberEvents(webhooks.tenant.database, webhooks.hints, webhooks.tenant.now).batch()
    return (tasks.DELIVER, ()) in webhooks.hints.rings


def test_tries_longer_than_their_lease_count_as_failures(webhooks: Webhooks, now: TestClock) -> None:
    endpoint_id = webhooks.endpoint()
    webhooks.numbered_event(uuid4())
    late = WebhookAnswer(outcome=Outcome.FAILED, error_kind=ErrorKind.TIMEOUT, milliseconds=90_000)
    deliver = webhooks.deliver(ScriptedSender(late))
    for _ in range(10):
        claims = deliver.claim(EVERYTHING)
        now.instant += LEASE
        assert deliver.claim(EVERYTHING)  # another thread has taken the message meanwhile
        assert not deliver.record([deliver.send(each) for each in claims])
        now.instant += LEASE
    row = webhooks.row(endpoint_id)
    assert (row.consecutive_failures, row.is_slow, row.circuit_opened_at is not None) == (10, True, True)

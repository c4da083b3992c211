"""Waits that a wrong clock wrote, in every table with a due time: each ends within a sweep.

The test's clock stands for the clock of all processes: it is moved ahead, and back again.
"""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from scheduler.domain.attempt import Cancelled, Reason
from scheduler.domain.interview import InterviewStatus
from scheduler.lifecycle.policy import BATCH_RETRIED_AFTER, MAX_AWAITED, SLACK
from scheduler.persistence.attempt_holds import LONGEST_HOLD, SHORT_HOLD
from scheduler.persistence.webhook_holds import LONGEST_HOLD as LONGEST_HOOK_HOLD
from scheduler.rules.webhooks import LONGEST_RETRY_AFTER, NOT_SENT_AGAIN_AFTER, Room
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.apply_batches import ApplyBatches
from scheduler.use_cases.operations.number_events import NumberEvents
from scheduler.use_cases.operations.stale_times import Correct
from scheduler.use_cases.release import Release
from scheduler.use_cases.resources.batches import Batches
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import RecordingHints, Tenant, a_claimed_attempt, a_number, a_pending_attempt
from tests.use_cases.conftest import Released, answered, end
from tests.use_cases.test_apply import a_wish
from tests.use_cases.test_apply_batches import shown, stored
from tests.use_cases.test_impossible_times import stepped
from tests.use_cases.test_owed_refusals import refused_while_awaited
from tests.use_cases.test_partner_events import noted
from tests.use_cases.test_release_holds import held
from tests.use_cases.webhooks.endpoints import ACCEPTED, FAILED, ScriptedSender, Webhooks

AN_HOUR = timedelta(hours=1)
TWO_HOURS = timedelta(hours=2)
A_SECOND = timedelta(seconds=1)


def set_to(tenant: Tenant, table: str, column: str, after: timedelta) -> None:
    tenant.change(f"UPDATE {table} SET {column} = :at", at=tenant.now() + after)


def count(tenant: Tenant, condition: str, table: str) -> Any:
    return tenant.ask(f"SELECT count(*) FROM {table} WHERE {condition}", now=tenant.now())[0][0]


# ---- attempts


def test_outcome_awaited_until_the_future_is_assumed_now(voice: Tenant, settle: Settle, now: TestClock) -> None:
    with stepped(now, TWO_HOURS):
        ended = end(voice, answered(voice))
    settle.round()
    assert voice.interview_status(ended) is InterviewStatus.COMPLETED


@guards("long_hold")
@pytest.mark.parametrize("ahead", [timedelta(minutes=30), TWO_HOURS])
def test_hold_from_the_future_ends(
    tenant: Tenant, correct: Correct, released: Released, now: TestClock, ahead: timedelta
) -> None:
    """The clock of a moment ago had it wait for its line. The line is free, and no longer marked."""
    mine = a_pending_attempt(tenant)
    set_to(tenant, "attempts", "held_until", ahead)
    assert released() == []
    correct.round()
    assert released() == [mine.id]


@guards("long_hold")
def test_hold_for_a_busy_line_ends_after_its_longest_time(
    tenant: Tenant, correct: Correct, released: Released, now: TestClock
) -> None:
    number = a_number()
    a_claimed_attempt(tenant, number)
    with stepped(now, TWO_HOURS):
        waiting = a_pending_attempt(tenant, number, due_at=now() - TWO_HOURS)
        assert released() == []
    assert held(tenant, waiting.id)
    correct.round()
    assert not held(tenant, waiting.id)


@pytest.mark.parametrize("is_awaited", [True, False])
def test_longest_possible_hold_is_kept(tenant: Tenant, correct: Correct, is_awaited: bool) -> None:
    mine = a_pending_attempt(tenant)
    tenant.change(f"UPDATE lines SET is_awaited = {is_awaited}")
    set_to(tenant, "attempts", "held_until", (LONGEST_HOLD if is_awaited else SHORT_HOLD) + SLACK)
    correct.round()
    assert held(tenant, mine.id)


def test_line_that_ends_after_a_correction_wakes_its_attempts(
    tenant: Tenant, correct: Correct, released: Released, now: TestClock
) -> None:
    number = a_number()
    first = a_claimed_attempt(tenant, number)
    waiting = a_pending_attempt(tenant, number)
    assert released() == []
    set_to(tenant, "attempts", "held_until", TWO_HOURS)
    correct.round()
    assert released() == [], "it is held again"
    tenant.dial.give_back(first, "A_TEST")
    tenant.take(first, Cancelled(reason=Reason.REPLACED))
    assert released() == [waiting.id]


def test_attempt_unreadable_in_the_future_is_released(tenant: Tenant, released: Released) -> None:
    mine = a_pending_attempt(tenant)
    set_to(tenant, "attempts", "unreadable_until", AN_HOUR)
    assert released() == [mine.id]


# ---- batches


@guards("impossible_batch")
def test_batch_from_the_future_is_applied(
    tenant: Tenant, batches: Batches, correct: Correct, hints: RecordingHints, now: TestClock
) -> None:
    with stepped(now, TWO_HOURS):
        batch = stored(batches, tenant, [a_wish(tenant)])
    correct.round()
    ApplyBatches(tenant.context, hints).turn()
    assert shown(batches, tenant, batch).applied == 1


def test_batch_put_off_by_its_rule_is_unchanged(tenant: Tenant, batches: Batches, correct: Correct) -> None:
    stored(batches, tenant, [a_wish(tenant)])
    set_to(tenant, "batches", "work_at", BATCH_RETRIED_AFTER + SLACK)
    correct.round()
    assert count(tenant, "work_at > :now", "batches") == 1


# ---- refusals that no request has returned


@guards("owed_in_future", "owed_refusal")
def test_refusal_owed_in_the_future_is_reported(read: Tenant, apply: Apply, now: TestClock) -> None:
    hints = RecordingHints()
    with stepped(now, TWO_HOURS):
        refused_while_awaited(read, apply)
    assert noted(read) == []
    Release(read.context, hints, read.account_id).hint_sweep()
    assert (tasks.NUMBER_EVENTS, ()) in hints.rings
    NumberEvents(read.database, hints, now).all()
    assert noted(read) == ["command.applied"]


def test_refusal_awaited_for_the_longest_time_is_not_owed(read: Tenant, apply: Apply, now: TestClock) -> None:
    refused_while_awaited(read, apply)
    set_to(read, "inbox", "awaited_until", MAX_AWAITED + SLACK)
    NumberEvents(read.database, RecordingHints(), now).all()
    assert noted(read) == []


# ---- webhooks


def due_in(tenant: Tenant) -> timedelta:
    [(send_at,)] = tenant.ask("SELECT send_at FROM webhook_deliveries")
    waits: timedelta = send_at - tenant.now()
    return waits


@guards("impossible_send")
@pytest.mark.parametrize("ahead", [timedelta(minutes=2), timedelta(days=400)])
def test_event_numbered_in_the_future_is_sent(
    webhooks: Webhooks, correct: Correct, now: TestClock, ahead: timedelta
) -> None:
    webhooks.endpoint()
    with stepped(now, ahead):
        webhooks.numbered_event()
    sending = webhooks.deliver(ScriptedSender(ACCEPTED))
    assert webhooks.send_all(sending) == 0
    correct.round()
    assert webhooks.send_all(sending) == 1


@guards("impossible_send")
def test_delivery_tried_in_the_future_waits_as_long_as_usual(
    tenant: Tenant, webhooks: Webhooks, correct: Correct, now: TestClock
) -> None:
    """Its next event waits for a minute from the failure, which is counted from now as well."""
    webhooks.endpoint()
    webhooks.numbered_event()
    with stepped(now, TWO_HOURS):
        webhooks.send_all(webhooks.deliver(ScriptedSender(FAILED)))
    assert due_in(tenant) > AN_HOUR
    correct.round()
    assert timedelta(seconds=4) < due_in(tenant) < timedelta(seconds=6)
    [row] = webhooks.deliveries()
    assert (row.tries, row.last_tried_at, row.first_failed_at) == (1, now(), now())
    correct.round()
    assert webhooks.deliveries() == [row]


@guards("long_hook_hold")
def test_hold_of_a_delivery_from_the_future_ends(tenant: Tenant, webhooks: Webhooks, correct: Correct) -> None:
    webhooks.endpoint()
    webhooks.numbered_event(uuid4())
    sending = webhooks.deliver(ScriptedSender(ACCEPTED))
    set_to(tenant, "webhook_deliveries", "held_until", LONGEST_HOOK_HOLD + SLACK)
    correct.round()
    assert webhooks.send_all(sending) == 0, "it may be this long"
    set_to(tenant, "webhook_deliveries", "held_until", TWO_HOURS)
    correct.round()
    assert webhooks.send_all(sending) == 1


def test_hold_behind_a_failure_in_the_future_lasts_a_minute(
    tenant: Tenant, webhooks: Webhooks, correct: Correct, now: TestClock
) -> None:
    webhooks.endpoint()
    interview_id = uuid4()
    for _ in range(2):
        webhooks.event(interview_id)
    webhooks.number()
    failing = webhooks.deliver(ScriptedSender(FAILED))
    with stepped(now, timedelta(minutes=30)):
        webhooks.send_all(failing)
        assert webhooks.send_all(failing) == 0, "it is held until a minute after the failure"
    correct.round()
    set_to(tenant, "webhook_deliveries", "send_at", -A_SECOND)
    webhooks.send_all(failing)
    now.move(timedelta(minutes=1))
    webhooks.send_all(failing)
    assert [each.tries for each in webhooks.deliveries()] == [2, 1]


def test_replay_of_the_future_is_sent(webhooks: Webhooks, correct: Correct, tenant: Tenant) -> None:
    webhooks.endpoint()
    webhooks.numbered_event()
    tenant.change("UPDATE webhook_deliveries SET is_replay = true")
    set_to(tenant, "webhook_deliveries", "send_at", AN_HOUR)
    correct.round()
    assert webhooks.send_all(webhooks.deliver(ScriptedSender(ACCEPTED))) == 1


@pytest.mark.parametrize(("tries", "waits"), [(0, NOT_SENT_AGAIN_AFTER), (1, LONGEST_RETRY_AFTER), (9, AN_HOUR)])
def test_possible_wait_of_a_delivery_is_unchanged(
    tenant: Tenant, webhooks: Webhooks, correct: Correct, tries: int, waits: timedelta
) -> None:
    webhooks.endpoint()
    webhooks.numbered_event()
    tenant.change("UPDATE webhook_deliveries SET tries = :tries", tries=tries)
    set_to(tenant, "webhook_deliveries", "send_at", waits)
    correct.round()
    assert due_in(tenant) == waits


def test_delivery_of_the_future_is_found_among_many_later_tries(
    tenant: Tenant, webhooks: Webhooks, correct: Correct, now: TestClock
) -> None:
    endpoint_id = webhooks.endpoint()
    for _ in range(3):
        webhooks.event()
    webhooks.number()
    tenant.change("UPDATE webhook_deliveries SET tries = 5")
    set_to(tenant, "webhook_deliveries", "send_at", timedelta(hours=5))
    with stepped(now, TWO_HOURS):
        webhooks.numbered_event()
    correct.round()
    assert [each.send_at - now() for each in webhooks.deliveries(endpoint_id)] == [
        *[timedelta(hours=5)] * 3,
        timedelta(),
    ]


def one_claimed(webhooks: Webhooks) -> list[UUID]:
    room = Room(free=1, free_for_slow=1, most_of_an_owner=1)
    claims = webhooks.deliver(ScriptedSender(ACCEPTED)).claim(room)
    return [each.delivery.endpoint_id for each in claims]


def test_endpoint_served_in_the_future_gets_its_turn(tenant: Tenant, webhooks: Webhooks, now: TestClock) -> None:
    webhooks.endpoint(claimed_at=now() - A_SECOND)
    unfair = webhooks.endpoint(claimed_at=now() + AN_HOUR)
    webhooks.numbered_event()
    assert one_claimed(webhooks) == [unfair]


def test_probe_of_the_future_is_sent(webhooks: Webhooks, now: TestClock) -> None:
    times: dict[str, Any] = dict.fromkeys(("failing_since", "circuit_opened_at"), now())
    opened = webhooks.endpoint(consecutive_failures=10, probe_at=now() + AN_HOUR, **times)
    webhooks.numbered_event()
    assert one_claimed(webhooks) == [opened]


def test_lease_of_a_delivery_in_the_future_has_ended(tenant: Tenant, webhooks: Webhooks) -> None:
    endpoint_id = webhooks.endpoint()
    webhooks.numbered_event()
    tenant.change(
        "UPDATE webhook_deliveries SET claim = :claim, lease_until = :at", claim=uuid4(), at=tenant.now() + AN_HOUR
    )
    assert one_claimed(webhooks) == [endpoint_id]


@guards("impossible_notice")
def test_notice_of_the_future_is_due(tenant: Tenant, webhooks: Webhooks, now: TestClock) -> None:
    webhooks.endpoint(disabled_at=now(), disabled_cause="FAILING", notice_at=now() + AN_HOUR + SLACK)
    with tenant.database.transaction() as stores:
        assert not stores.webhook_notices.is_one_due(now())
    set_to(tenant, "webhook_endpoints", "notice_at", TWO_HOURS)
    with tenant.database.transaction() as stores:
        assert stores.webhook_notices.is_one_due(now())
        assert stores.webhook_notices.take_due(now(), now() + AN_HOUR) is not None
        assert stores.webhook_notices.take_due(now(), now() + AN_HOUR) is None


# ---- mails, alarms and persons who leave


@guards("impossible_post")
def test_alarm_posted_in_the_future_is_posted(tenant: Tenant, now: TestClock) -> None:
    times = dict.fromkeys(("first_seen_at", "last_seen_at"), now())
    tenant.insert(
        "alarms", id=uuid4(), kind="A_TEST", subjects="{}", count=1, tries=0, post_at=now() + AN_HOUR + SLACK, **times
    )
    with tenant.database.transaction() as stores:
        assert not stores.alarms.is_one_to_post(now())
    set_to(tenant, "alarms", "post_at", TWO_HOURS)
    with tenant.database.transaction() as stores:
        assert stores.alarms.is_one_to_post(now())
        assert stores.alarms.take_to_post(now(), now() + AN_HOUR) is not None
        assert stores.alarms.take_to_post(now(), now() + AN_HOUR) is None


def test_invitation_of_the_future_is_sent(tenant: Tenant, now: TestClock) -> None:
    times = dict.fromkeys(("created_at", "updated_at"), now())
    tenant.insert(
        "invitations",
        id=uuid4(),
        company_id=tenant.company_id,
        email="ada@example.com",
        expires_at=now() + timedelta(days=7),
        send_at=now() + TWO_HOURS,
        tries=0,
        **times,
    )
    with tenant.database.transaction() as stores:
        assert stores.invitations.is_one_due(now())


def test_person_leaving_in_the_future_leaves_now(tenant: Tenant, now: TestClock) -> None:
    a_pending_attempt(tenant)
    set_to(tenant, "candidates", "leaving_at", AN_HOUR)
    with tenant.database.transaction() as stores:
        assert stores.candidates.is_one_leaving(now())


# ---- the sweep


def test_corrected_waits_raise_the_alarm_once(
    tenant: Tenant, webhooks: Webhooks, batches: Batches, correct: Correct, now: TestClock
) -> None:
    a_pending_attempt(tenant)
    webhooks.endpoint()
    set_to(tenant, "attempts", "held_until", TWO_HOURS)
    with stepped(now, TWO_HOURS):
        webhooks.numbered_event()
        stored(batches, tenant, [a_wish(tenant)])
    with capture_logs() as lines:
        correct.round()
        correct.round()
    assert {(line["alarm"], line["kind"], line["count"]) for line in lines} == {
        ("CLOCK_WAS_WRONG", kind, 1) for kind in ("holds of attempts", "batches", "deliveries")
    }

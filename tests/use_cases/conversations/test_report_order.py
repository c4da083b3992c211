"""Accepted reports and news: an end waits for the report, a report for news of the answer, an hour at most."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from scheduler.domain.attempt import Attempt, AttemptState, ConversationOutcome, Reason
from scheduler.domain.call import CallStatus
from scheduler.domain.command import Command, DeleteInterview
from scheduler.domain.interview import InterviewStatus
from scheduler.lifecycle.policy import ASK_EVERY, MAX_QUEUE, REPORT_FIRST, latest_written
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.submit import Submit
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    an_attempt_of_unknown_outcome,
)
from tests.support.servers import ACCOUNT_SID
from tests.support.statements import statements_of
from tests.use_cases.conftest import answered, answering, end, performing, see_leg, settle_at
from tests.use_cases.conversations.conftest import (
    CALL_BACK,
    FINISHED,
    OPTED_OUT,
    SCREENED,
    WRONG_PERSON,
    Reports,
    booked,
    follower,
    found_late,
    may_ring,
)
from tests.use_cases.test_hear import a_form, deliver, hear_stored, request_fallback, unheard


@dataclass(frozen=True, kw_only=True)
class Order(Reports):
    """Accepts and applies reports, and stores and applies callbacks, each at its own time."""

    hear: Hear
    hints: RecordingHints

    def store_answer(self, attempt: Attempt) -> None:
        deliver(self.hear, attempt, a_form(attempt, "in-progress"))

    def store_end(self, attempt: Attempt, **fields: str) -> None:
        deliver(self.hear, attempt, a_form(attempt, "completed", CallDuration="30", **fields))

    def hear_all(self) -> Attempt:
        """Apply the stored callbacks, of one attempt. Return it."""
        hear_stored(self.hear, self.hints)
        [[attempt_id]] = self.tenant.ask(
            "SELECT DISTINCT t.attempt_id FROM attempt_tokens t JOIN carrier_events e ON e.token = t.token"
        )
        return self.tenant.attempt(attempt_id)


@pytest.fixture
def order(voice: Tenant, submit: Submit, apply: Apply, hear: Hear, hints: RecordingHints) -> Order:
    hints.rung.clear()
    return Order(tenant=voice, submit=submit, apply=apply, hear=hear, hints=hints)


def revoke(tenant: Tenant) -> None:
    tenant.change("UPDATE api_keys SET revoked_at = :now WHERE name = 'voice'", now=tenant.now())


def end_by_machine(order: Order, attempt: Attempt) -> None:
    order.store_end(attempt, AnsweredBy="machine_start")


def end_without_instructions(order: Order, attempt: Attempt) -> None:
    request_fallback(order.hear, attempt)
    order.store_end(attempt)


def end_without_key(order: Order, attempt: Attempt) -> None:
    revoke(order.tenant)
    order.store_end(attempt)


@guards("report_first")
@pytest.mark.parametrize("outcome", [FINISHED, CALL_BACK, OPTED_OUT])
@pytest.mark.parametrize(
    "store",
    [
        pytest.param(end_by_machine),
        pytest.param(end_without_instructions, marks=guards("reported_outcome", "instructions_failed")),
        pytest.param(end_without_key, marks=guards("awaited_with_a_key")),
    ],
)
def test_end_waits_for_an_accepted_report(
    order: Order, store: Callable[[Order, Attempt], None], outcome: ConversationOutcome
) -> None:
    attempt = answered(order.tenant)
    command = order.accept(attempt, outcome)
    store(order, attempt)
    assert order.hear_all().state is AttemptState.IN_PROGRESS
    [(task, waiting, after_s)] = order.hints.put_off
    assert (task, len(waiting)) == (tasks.HEAR, unheard(order.tenant))
    assert after_s > 0, "no worker is busy with it meanwhile"
    assert order.refusal_code(command) is None
    ended = order.hear_all()
    assert (ended.reason, ended.outcome, unheard(order.tenant)) == (Reason.ANSWERED, outcome, 0)
    back = follower(order.tenant, attempt)
    assert (back is not None) == (outcome is CALL_BACK)
    assert booked(order.tenant, attempt) == 1


def test_end_of_a_call_found_late_waits_for_an_accepted_report(order: Order) -> None:
    attempt = found_late(order.tenant)
    command = order.accept(attempt, SCREENED)
    order.store_end(attempt)
    assert order.hear_all().reason is Reason.OUTCOME_UNKNOWN
    assert order.refusal_code(command) is None
    ended = order.hear_all()
    assert (ended.reason, ended.outcome) == (Reason.ANSWERED, SCREENED)
    assert order.tenant.interview_status(attempt) is InterviewStatus.FAILED


def test_end_that_loses_no_report_does_not_wait(order: Order) -> None:
    """Its outcome is awaited, so the report is accepted after it."""
    attempt = answered(order.tenant)
    command = order.accept(attempt, CALL_BACK)
    order.store_end(attempt)
    assert order.hear_all().outcome_until is not None
    assert order.hints.put_off == []
    assert order.refusal_code(command) is None
    assert follower(order.tenant, attempt) is not None


def test_end_waits_for_no_other_command(order: Order) -> None:
    attempt = answered(order.tenant)
    order.tenant.change(
        "UPDATE inbox SET kind = 'invoke_attempt' WHERE id = :id", id=order.accept(attempt, FINISHED).id
    )
    end_by_machine(order, attempt)
    assert order.hear_all().reason is Reason.VOICEMAIL


def test_report_of_a_ringing_call_delays_no_end(order: Order) -> None:
    attempt = a_placed_attempt(order.tenant)
    command = order.accept(attempt, FINISHED)
    end_by_machine(order, attempt)
    assert order.hear_all().reason is Reason.VOICEMAIL
    assert order.refusal_code(command) == "CALL_NOT_ANSWERED"


@guards("quarantined_report")
@pytest.mark.parametrize("is_behind", [False, True])
def test_end_does_not_wait_for_a_report_in_quarantine(order: Order, *, is_behind: bool) -> None:
    """Nor for one behind it: until an operator decides about the earlier command, none is applied."""
    attempt = answered(order.tenant)
    first = order.accept(attempt, FINISHED)
    if is_behind:
        order.accept(attempt, FINISHED)
    order.tenant.change("UPDATE inbox SET quarantined_at = :now WHERE id = :id", now=order.tenant.now(), id=first.id)
    end_by_machine(order, attempt)
    assert order.hear_all().reason is Reason.VOICEMAIL


def pass_the_hour(order: Order, now: TestClock, command: Command, *, is_early: bool) -> None:
    """Let the last second pass, or let a wrong clock have accepted the command too early."""
    if is_early:
        at = latest_written(now()) + timedelta(seconds=1)
        order.tenant.change("UPDATE inbox SET received_at = :at WHERE id = :id", at=at, id=command.id)
    else:
        now.move(timedelta(seconds=1))


@guards("old_report", "report_first")
@pytest.mark.parametrize("is_early", [False, True])
def test_end_waits_an_hour_at_most(order: Order, now: TestClock, *, is_early: bool) -> None:
    attempt = answered(order.tenant)
    command = order.accept(attempt, FINISHED)
    now.move(REPORT_FIRST - timedelta(seconds=1))
    end_by_machine(order, attempt)
    assert order.hear_all().state is AttemptState.IN_PROGRESS
    pass_the_hour(order, now, command, is_early=is_early)
    assert order.hear_all().reason is Reason.VOICEMAIL


def call_of(attempt: Attempt, **fields: str) -> bytes:
    call = {"sid": attempt.call_sid, "account_sid": ACCOUNT_SID, "status": "completed", "duration": "30"}
    return json.dumps(call | {"date_created": "Thu, 02 Apr 2026 12:00:00 +0000"} | fields).encode()


def test_poll_waits_for_an_accepted_report(order: Order, now: TestClock) -> None:
    """The callback of the end is lost."""
    attempt = answered(order.tenant)
    command = order.accept(attempt, FINISHED)
    assert attempt.look_at is not None
    now.instant = max(now(), attempt.look_at)
    with answering(200, call_of(attempt, answered_by="machine_start")) as url:
        settle = settle_at(order.tenant, url)
        settle.round()
        waiting = order.tenant.attempt(attempt.id)
        assert (waiting.state, waiting.look_at) == (AttemptState.IN_PROGRESS, now() + ASK_EVERY)
        assert order.refusal_code(command) is None
        now.move(ASK_EVERY)
        settle.round()
    assert order.tenant.attempt(attempt.id).reason is Reason.ANSWERED
    assert order.tenant.interview_status(attempt) is InterviewStatus.COMPLETED


def test_lost_end_is_given_up_after_an_accepted_report(order: Order, now: TestClock) -> None:
    attempt = answered(order.tenant)
    now.move(MAX_QUEUE + order.tenant.policy.room + order.tenant.policy.max_call)
    command = order.accept(attempt, CALL_BACK)
    with answering(500, b"{}") as url:
        settle = settle_at(order.tenant, url)
        settle.round()
        assert order.tenant.attempt(attempt.id).state is AttemptState.IN_PROGRESS
        assert order.refusal_code(command) is None
        now.move(timedelta(minutes=10))
        settle.round()
    lost = order.tenant.attempt(attempt.id)
    assert (lost.reason, lost.outcome) == (Reason.OUTCOME_UNKNOWN, CALL_BACK)


def test_waiting_reports_are_read_with_the_prices(order: Order) -> None:
    """The end of an answered call takes no statement more."""
    attempt = answered(order.tenant)
    order.store_end(attempt)
    with statements_of(order.tenant.database) as sent:
        assert order.hear_all().reason is Reason.ANSWERED
    [only] = [each for each in sent if "inbox" in each]
    assert "c.prices" in only


# ---- the stored callback of the answer


def found_ringing(tenant: Tenant) -> Attempt:
    return see_leg(tenant, an_attempt_of_unknown_outcome(tenant))


@guards("report_before_answer", "report_waits_an_hour")
@pytest.mark.parametrize(
    ("ringing", "outcome"),
    [
        pytest.param(a_placed_attempt, FINISHED, marks=guards("callback_first")),
        pytest.param(a_placed_attempt, CALL_BACK, marks=guards("callback_first")),
        (a_placed_attempt, OPTED_OUT),
        # An opt-out is accepted, as its end is unknown.
        pytest.param(found_ringing, CALL_BACK, marks=guards("callback_first")),
    ],
)
def test_report_waits_for_the_stored_answer(
    order: Order, ringing: Callable[[Tenant], Attempt], outcome: ConversationOutcome
) -> None:
    """The worker of the commands is quicker than that of the callbacks."""
    attempt = ringing(order.tenant)
    order.store_answer(attempt)
    command = order.accept(attempt, outcome)
    assert order.waits(command)
    [(task, waiting, after_s)] = order.hints.put_off
    assert (task, waiting) == (tasks.APPLY, (command.id,))
    assert after_s > 0, "no worker is busy with it meanwhile"
    order.hear_all()
    assert order.refusal_code(command) is None
    assert order.tenant.attempt(attempt.id).outcome is outcome


def test_report_and_end_do_not_wait_for_each_other(order: Order) -> None:
    attempt = a_placed_attempt(order.tenant)
    order.store_answer(attempt)
    command = order.accept(attempt, CALL_BACK)
    end_by_machine(order, attempt)
    assert order.waits(command)
    assert order.hear_all().state is AttemptState.IN_PROGRESS
    assert order.refusal_code(command) is None
    ended = order.hear_all()
    assert (ended.reason, ended.outcome, unheard(order.tenant)) == (Reason.ANSWERED, CALL_BACK, 0)
    assert follower(order.tenant, attempt) is not None


def test_report_that_waits_is_refused_if_no_person_answered(order: Order) -> None:
    attempt = a_placed_attempt(order.tenant)
    deliver(order.hear, attempt, a_form(attempt, "ringing"))
    command = order.accept(attempt, FINISHED)
    assert order.waits(command)
    order.hear_all()
    assert order.refusal_code(command) == "CALL_NOT_ANSWERED"


def test_report_does_not_wait_for_a_callback_in_quarantine(order: Order) -> None:
    attempt = a_placed_attempt(order.tenant)
    order.store_answer(attempt)
    order.tenant.change("UPDATE carrier_events SET quarantined_at = :now", now=order.tenant.now())
    assert order.refusal_code(order.accept(attempt, FINISHED)) == "CALL_NOT_ANSWERED"


def test_report_waits_for_no_callback_of_another_call(order: Order) -> None:
    order.store_answer(a_placed_attempt(order.tenant))
    command = order.accept(a_placed_attempt(order.tenant), FINISHED)
    assert order.refusal_code(command) == "CALL_NOT_ANSWERED"


@guards("report_waits_an_hour", "callback_first", "report_before_answer")
@pytest.mark.parametrize("is_early", [False, True])
def test_report_waits_an_hour_at_most(order: Order, now: TestClock, *, is_early: bool) -> None:
    attempt = a_placed_attempt(order.tenant)
    order.store_answer(attempt)
    command = order.accept(attempt, FINISHED)
    now.move(REPORT_FIRST - timedelta(seconds=1))
    assert order.waits(command)
    pass_the_hour(order, now, command, is_early=is_early)
    assert order.refusal_code(command) == "CALL_NOT_ANSWERED"


# ---- a refusal of the number in a call of which no answer is heard


@guards("unheard_answer", "report_before_answer", "hastened_poll", "report_waits_an_hour")
@pytest.mark.parametrize("outcome", [pytest.param(OPTED_OUT, marks=guards("look_refused")), WRONG_PERSON])
def test_refusal_waits_for_an_answer_that_was_lost(order: Order, now: TestClock, outcome: ConversationOutcome) -> None:
    """The callback of the answer never comes. The poll that says so is not due for minutes."""
    number = a_number()
    attempt = a_placed_attempt(order.tenant, number)
    assert attempt.look_at is not None
    assert attempt.look_at > now()
    command = order.accept(attempt, outcome)
    assert order.waits(command)
    [(task, waiting, after_s)] = order.hints.put_off
    assert (task, waiting) == (tasks.APPLY, (command.id,))
    assert after_s > 0, "no worker is busy with it meanwhile"
    with answering(200, call_of(attempt)) as url:
        settle_at(order.tenant, url).round()
    assert order.tenant.attempt(attempt.id).reason is Reason.ANSWERED
    assert order.refusal_code(command) is None
    assert order.tenant.attempt(attempt.id).outcome is outcome
    now.move(timedelta(minutes=11))
    rings = may_ring(order.tenant, a_pending_attempt(order.tenant, number))
    assert rings == (outcome is WRONG_PERSON), "another candidate has the number"


@guards("unheard_answer", "report_before_answer", "report_waits_an_hour")
@pytest.mark.parametrize("outcome", [OPTED_OUT, WRONG_PERSON])
def test_refusal_is_refused_if_no_person_answered(order: Order, outcome: ConversationOutcome) -> None:
    attempt = a_placed_attempt(order.tenant)
    command = order.accept(attempt, outcome)
    assert order.waits(command)
    end(order.tenant, attempt, CallStatus.BUSY)
    assert order.refusal_code(command) == "CALL_NOT_ANSWERED"


@guards("unheard_answer", "report_waits_an_hour", "report_before_answer")
@pytest.mark.parametrize("is_early", [False, True])
def test_refusal_is_accepted_after_an_hour_of_doubt(order: Order, now: TestClock, *, is_early: bool) -> None:
    attempt = a_placed_attempt(order.tenant)
    command = order.accept(attempt, OPTED_OUT)
    now.move(REPORT_FIRST - timedelta(seconds=1))
    assert order.waits(command)
    pass_the_hour(order, now, command, is_early=is_early)
    assert order.refusal_code(command) is None
    ended = end(order.tenant, order.tenant.attempt(attempt.id), CallStatus.NO_ANSWER)
    assert (ended.reason, ended.outcome) == (Reason.NO_ANSWER, OPTED_OUT)
    assert follower(order.tenant, attempt) is None


@guards("unheard_answer", "report_before_answer", "refusal_of_deleted", "lasting_refusal", "report_waits_an_hour")
def test_refusal_of_an_unheard_call_is_kept_after_a_deletion(order: Order) -> None:
    attempt = a_placed_attempt(order.tenant)
    performing(order.tenant, order.submit, order.apply)(DeleteInterview(interview_id=attempt.interview_id))
    command = order.accept(attempt, OPTED_OUT)
    assert order.waits(command)
    end(order.tenant, attempt)
    assert order.refusal_code(command) is None
    assert order.tenant.attempt(attempt.id).outcome is OPTED_OUT


def test_other_reports_of_an_unheard_call_do_not_wait(order: Order) -> None:
    attempt = a_placed_attempt(order.tenant)
    assert order.refusal_code(order.accept(attempt, FINISHED)) == "CALL_NOT_ANSWERED"
    assert order.tenant.attempt(attempt.id).look_at == attempt.look_at


def test_callbacks_are_read_only_for_a_report_that_is_refused(order: Order) -> None:
    accepted, refused = answered(order.tenant), a_placed_attempt(order.tenant)
    counts = []
    for attempt in (accepted, refused):
        command = order.accept(attempt, FINISHED)
        with statements_of(order.tenant.database) as sent:
            order.refusal_code(command)
        counts.append(sum("FROM carrier_events" in each for each in sent))
    assert counts == [0, 1]


def test_person_is_not_called_again_after_an_accepted_report(order: Order, now: TestClock) -> None:
    """The end of the call is heard before the report is applied, and a retry would be due."""
    attempt = answered(order.tenant)
    command = order.accept(attempt, FINISHED)
    end_by_machine(order, attempt)
    order.hear_all()
    assert order.refusal_code(command) is None
    order.hear_all()
    now.move(timedelta(hours=4, seconds=1))
    assert {each.state for each in order.tenant.attempts(attempt.interview_id)} == {AttemptState.COMPLETED}

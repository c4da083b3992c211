"""Refusals that were accepted (202) and are not applied yet: no other interview of the company calls their number."""

from datetime import timedelta
from uuid import UUID

import pytest

from scheduler.domain.attempt import Attempt, AttemptState, ConversationOutcome
from scheduler.domain.call import CallStatus
from scheduler.domain.command import Command, DeleteInterview
from scheduler.domain.explanation import Rule
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.operations.quarantine import Quarantine
from scheduler.use_cases.submit import Submit
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import RecordingHints, Tenant, a_number, a_pending_attempt, a_placed_attempt
from tests.support.statements import statements_of
from tests.use_cases.conftest import Perform, answered, end
from tests.use_cases.conversations.conftest import FINISHED, OPTED_OUT, WRONG_PERSON, Reports, may_ring
from tests.use_cases.test_hear import a_form, deliver, hear_stored


@pytest.fixture
def backlog(voice: Tenant, submit: Submit, apply: Apply) -> Reports:
    return Reports(tenant=voice, submit=submit, apply=apply)


@pytest.fixture
def number() -> str:
    return a_number()


@pytest.fixture
def attempt(voice: Tenant, number: str, now: TestClock) -> Attempt:
    """A call whose conversation has not reported. Other interviews may call the number again."""
    attempt = end(voice, answered(voice, a_placed_attempt(voice, number)))
    now.move(timedelta(minutes=11))
    return attempt


def hash_in_inbox(tenant: Tenant, command: Command) -> bytes | None:
    [[found]] = tenant.ask("SELECT number_hash FROM inbox WHERE id = :id", id=command.id)
    return None if found is None else bytes(found)


@guards("accepted_refusal", "refusal_recheck", "refusal_of_deleted")
@pytest.mark.parametrize("outcome", [pytest.param(OPTED_OUT, marks=guards("look_refused")), WRONG_PERSON])
def test_accepted_refusal_stops_other_interviews_of_the_number(
    voice: Tenant, backlog: Reports, explain: Explain, attempt: Attempt, number: str, outcome: ConversationOutcome
) -> None:
    other = a_pending_attempt(voice, number)
    command = backlog.accept(attempt, outcome)
    [block] = explain.explanation_of(other.id).blocks
    assert (block.rule, block.until) == (Rule.COMMAND_WAITING, None)
    assert "no further calls" in block.detail
    assert not may_ring(voice, other)
    assert voice.attempt(other.id).state is AttemptState.PENDING
    assert backlog.refusal_code(command) is None
    rules = [each.rule for each in explain.explanation_of(other.id).blocks if each.rule is not Rule.NOT_DUE]
    assert rules == ([Rule.OPTED_OUT] if outcome is OPTED_OUT else []), "another candidate has the number"
    assert hash_in_inbox(voice, command) is None


@pytest.mark.parametrize("outcome", [OPTED_OUT, WRONG_PERSON])
def test_accepted_refusal_in_a_deleted_interview_stops_others(
    voice: Tenant, backlog: Reports, perform: Perform, attempt: Attempt, number: str, outcome: ConversationOutcome
) -> None:
    assert perform(DeleteInterview(interview_id=attempt.interview_id)).answer
    backlog.accept(attempt, outcome)
    assert not may_ring(voice, a_pending_attempt(voice, number))


@guards("own_refusals")
def test_accepted_refusal_stops_no_other_number_or_company(
    voice: Tenant, backlog: Reports, attempt: Attempt, number: str, other: Tenant
) -> None:
    backlog.accept(attempt, OPTED_OUT)
    assert may_ring(voice, a_pending_attempt(voice))
    assert may_ring(other, a_pending_attempt(other, number))


def test_accepted_report_that_refuses_no_number_stops_nothing(
    voice: Tenant, backlog: Reports, attempt: Attempt, number: str
) -> None:
    assert hash_in_inbox(voice, backlog.accept(attempt, FINISHED)) is None
    assert may_ring(voice, a_pending_attempt(voice, number))


@guards("report_before_answer", "look_refused", "report_waits_an_hour")
def test_opt_out_of_a_call_whose_answer_is_stored_is_applied(
    voice: Tenant, backlog: Reports, hear: Hear, hints: RecordingHints, number: str, now: TestClock
) -> None:
    """The worker of the commands is quicker than that of the callbacks."""
    attempt = a_placed_attempt(voice, number)
    hints.rung.clear()
    deliver(hear, attempt, a_form(attempt, "in-progress"))
    command = backlog.accept(attempt, OPTED_OUT)
    assert backlog.waits(command)
    deliver(hear, attempt, a_form(attempt, "completed", CallDuration="30"))
    hear_stored(hear, hints)
    assert backlog.refusal_code(command) is None
    now.move(timedelta(minutes=11))
    assert not may_ring(voice, a_pending_attempt(voice, number))


def test_refusal_that_is_not_applied_stops_nothing_longer(
    voice: Tenant, backlog: Reports, number: str, now: TestClock
) -> None:
    """Its call was not answered, so the report is refused once a worker applies it."""
    command = backlog.accept(end(voice, a_placed_attempt(voice, number), CallStatus.BUSY), OPTED_OUT)
    now.move(timedelta(minutes=11))
    other = a_pending_attempt(voice, number)
    assert not may_ring(voice, other)
    assert backlog.refusal_code(command) == "CALL_NOT_ANSWERED"
    now.move(timedelta(minutes=11))
    assert may_ring(voice, other)


@guards("refusal_recheck", "accepted_refusal", "refusal_of_deleted")
def test_refusal_in_quarantine_holds_its_number_until_dropped(
    voice: Tenant, backlog: Reports, attempt: Attempt, number: str, now: TestClock
) -> None:
    """It is looked at again ever less often, at least every ten minutes: each look writes a history."""
    other = a_pending_attempt(voice, number)
    command = backlog.accept(attempt, OPTED_OUT)
    in_quarantine(voice, command.id)
    waits = []
    for wait in (1, 60, 3600):
        now.move(timedelta(seconds=wait))
        assert not may_ring(voice, other)
        due_at = voice.attempt(other.id).due_at
        waits.append((due_at - now()).total_seconds())
        now.move(due_at - now())
    assert waits == [5, 66, 600]
    Quarantine(voice.database, now, "operator").drop(command.id, "sent again")
    assert hash_in_inbox(voice, command) is None
    assert may_ring(voice, other)


def test_refusal_retried_from_quarantine_stops_the_number(
    voice: Tenant, backlog: Reports, attempt: Attempt, number: str, now: TestClock
) -> None:
    command = backlog.accept(attempt, OPTED_OUT)
    in_quarantine(voice, command.id)
    Quarantine(voice.database, now, "operator").requeue(command.id, "fixed")
    other = a_pending_attempt(voice, number)
    assert not may_ring(voice, other)
    assert backlog.refusal_code(command) is None
    now.move(timedelta(minutes=1))
    assert not may_ring(voice, other)
    assert voice.attempt(other.id).due_at == now() + timedelta(days=1)


def in_quarantine(tenant: Tenant, command_id: UUID) -> None:
    tenant.change(
        "UPDATE inbox SET quarantined_at = :now, failures = 5 WHERE id = :id", now=tenant.now(), id=command_id
    )


def test_refusal_is_accepted_in_the_statements_of_any_report(voice: Tenant, backlog: Reports, attempt: Attempt) -> None:
    counts = []
    for outcome in (FINISHED, OPTED_OUT):
        with statements_of(voice.database) as sent:
            backlog.accept(attempt, outcome)
        counts.append(len(sent))
    assert counts[0] == counts[1]

"""Reports of calls whose interview or attempt was deleted, and of calls of which nothing is heard."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from scheduler.domain.attempt import Attempt, ConversationOutcome
from scheduler.domain.command import DeleteAttempt, DeleteInterview
from scheduler.domain.interview import InterviewStatus
from scheduler.domain.refusals import NotFound
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.submit import Submit
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import (
    ApiWriter,
    RecordingHints,
    Tenant,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_voice_key,
    an_attempt_of_unknown_outcome,
)
from tests.use_cases.conftest import Perform, accepting, an_ended_attempt, answered, candidate_of, end
from tests.use_cases.conversations.conftest import (
    CALL_BACK,
    FINISHED,
    OPTED_OUT,
    SCREENED,
    WRONG_PERSON,
    code,
    found_late,
    may_ring,
    refusal_of,
    report,
    reporting,
)

OTHERS = [each for each in ConversationOutcome if each not in {WRONG_PERSON, OPTED_OUT, CALL_BACK}]


def live_of_deleted_interview(tenant: Tenant, perform: Perform, number: str) -> Attempt:
    attempt = answered(tenant, a_placed_attempt(tenant, number))
    assert perform(DeleteInterview(interview_id=attempt.interview_id)).answer
    return tenant.attempt(attempt.id)


def over_of_deleted_interview(tenant: Tenant, perform: Perform, number: str) -> Attempt:
    return end(tenant, live_of_deleted_interview(tenant, perform, number))


def deleted_while_live(tenant: Tenant, perform: Perform, number: str) -> Attempt:
    """A call that was found late may be deleted."""
    return deleted(tenant, perform, found_late(tenant, number))


def deleted_after_its_end(tenant: Tenant, perform: Perform, number: str) -> Attempt:
    return deleted(tenant, perform, end(tenant, answered(tenant, a_placed_attempt(tenant, number))))


def deleted(tenant: Tenant, perform: Perform, attempt: Attempt) -> Attempt:
    assert refusal_of(perform(DeleteAttempt(interview_id=attempt.interview_id, attempt_id=attempt.id))) is None
    return tenant.attempt(attempt.id)


DELETIONS = [live_of_deleted_interview, over_of_deleted_interview, deleted_while_live, deleted_after_its_end]
REFUSED = [
    pytest.param(each, marks=guards("lasting_refusal")) if each is over_of_deleted_interview else each
    for each in DELETIONS
]
Deletion = Callable[[Tenant, Perform, str], Attempt]


@guards("refusal_of_deleted", "look_refused")
@pytest.mark.parametrize("deletion", REFUSED)
def test_opt_out_is_noted_after_a_deletion(
    voice: Tenant, perform: Perform, explain: Explain, now: TestClock, deletion: Deletion
) -> None:
    number = a_number()
    attempt = deletion(voice, perform, number)
    status = voice.interview_status(attempt)
    assert explain.reported_call(voice.principal, attempt.token or "", refuses_number=True).id == attempt.id
    assert report(perform, attempt, OPTED_OUT) is None
    assert report(perform, attempt, OPTED_OUT) is None, "the same again"
    assert voice.history(attempt.id).count("reported") == 1
    if attempt.ended_at is None or attempt.look_at is not None:
        end(voice, attempt)
    reported = voice.attempt(attempt.id)
    assert (reported.outcome, reported.deleted_at) == (OPTED_OUT, attempt.deleted_at)
    assert voice.interview_status(attempt) in {status, InterviewStatus.CANCELLED}
    now.move(timedelta(hours=2))
    assert not may_ring(voice, a_pending_attempt(voice, number))


@pytest.mark.parametrize("deletion", DELETIONS)
def test_wrong_person_is_noted_after_a_deletion(voice: Tenant, perform: Perform, deletion: Deletion) -> None:
    attempt = deletion(voice, perform, a_number())
    assert report(perform, attempt, WRONG_PERSON) is None
    assert voice.attempt(attempt.id).outcome is WRONG_PERSON
    assert report(perform, attempt, OPTED_OUT) is None


@guards("deleted_call")
@pytest.mark.parametrize("outcome", OTHERS)
@pytest.mark.parametrize("deletion", DELETIONS)
def test_no_other_outcome_is_reported_after_a_deletion(
    voice: Tenant, perform: Perform, explain: Explain, deletion: Deletion, outcome: ConversationOutcome
) -> None:
    number = a_number()
    attempt = deletion(voice, perform, number)
    with pytest.raises(NotFound):
        explain.reported_call(voice.principal, attempt.token or "", refuses_number=False)
    with pytest.raises(NotFound):
        explain.conversation(voice.principal, attempt.token or "")
    assert code(report(perform, attempt, outcome)) == "RESOURCE_NOT_FOUND"
    assert voice.attempt(attempt.id) == attempt


@pytest.mark.parametrize("deletion", DELETIONS)
def test_refusal_of_a_deleted_call_is_not_reported_by_others(
    voice: Tenant, other: Tenant, perform: Perform, explain: Explain, submit: Submit, deletion: Deletion
) -> None:
    a_voice_key(other)
    attempt = deletion(voice, perform, a_number())
    with pytest.raises(NotFound):
        explain.reported_call(other.principal, attempt.token or "", refuses_number=True)
    assert code(refusal_of(accepting(other, submit)(reporting(attempt, OPTED_OUT)))) == "RESOURCE_NOT_FOUND"
    assert voice.attempt(attempt.id) == attempt


@guards("deleted_interview", "refusal_of_deleted", "lasting_refusal")
def test_refusal_of_a_deleted_interview_changes_no_status(voice: Tenant, perform: Perform) -> None:
    attempt = answered(voice)
    assert report(perform, attempt, SCREENED) is None
    attempt = end(voice, attempt)
    voice.change("UPDATE interviews SET status = 'FAILED', finished_at = :now", now=voice.now())
    perform(DeleteInterview(interview_id=attempt.interview_id))
    assert report(perform, attempt, OPTED_OUT) is None
    assert voice.interview_status(attempt) is InterviewStatus.FAILED


@guards("note_of_the_deleted", "refusal_of_deleted")
@pytest.mark.parametrize("deletion", REFUSED)
def test_note_is_not_stored_after_a_deletion(voice: Tenant, perform: Perform, deletion: Deletion) -> None:
    attempt = deletion(voice, perform, a_number())
    for _ in range(2):
        assert report(perform, attempt, OPTED_OUT, note="Leave me alone") is None
    assert voice.attempt(attempt.id).outcome_note is None


def test_person_stays_erased_after_a_late_refusal(
    voice: Tenant, perform: Perform, now: TestClock, hints: RecordingHints
) -> None:
    number = a_number()
    attempt = over_of_deleted_interview(voice, perform, number)
    ApiWriter(tenant=voice, hints=hints).delete_candidate(voice.principal, candidate_of(voice, attempt))
    person = voice.ask("SELECT * FROM candidates WHERE id = :id", id=candidate_of(voice, attempt))
    assert report(perform, attempt, OPTED_OUT, note="Leave me alone") is None
    assert voice.ask("SELECT * FROM candidates WHERE id = :id", id=candidate_of(voice, attempt)) == person
    assert voice.attempt(attempt.id).outcome_note is None
    now.move(timedelta(hours=2))
    assert not may_ring(voice, a_pending_attempt(voice, number))


def test_deleted_call_that_reached_no_person_refuses_no_number(voice: Tenant, perform: Perform) -> None:
    busy = an_ended_attempt(voice)
    perform(DeleteInterview(interview_id=busy.interview_id))
    assert code(report(perform, busy, OPTED_OUT)) == "CALL_NOT_ANSWERED"


# ---- tokens of calls of which nothing is heard


@guards("unknown_end", "lasting_refusal")
def test_token_is_valid_while_an_unheard_call_may_be_live(
    voice: Tenant, perform: Perform, explain: Explain, now: TestClock
) -> None:
    """All callbacks are lost, and the outcome is given up after minutes."""
    lost = an_attempt_of_unknown_outcome(voice)
    now.move(voice.policy.longest_call + timedelta(minutes=59))
    assert explain.conversation(voice.principal, lost.token or "").attempt.id == lost.id
    assert report(perform, lost, OPTED_OUT) is None
    now.move(timedelta(minutes=1))
    with pytest.raises(NotFound):
        explain.conversation(voice.principal, lost.token or "")


def test_known_end_starts_the_hour_of_the_token(voice: Tenant, explain: Explain, now: TestClock) -> None:
    attempt = end(voice, answered(voice))
    now.move(timedelta(minutes=61))
    with pytest.raises(NotFound):
        explain.conversation(voice.principal, attempt.token or "")


def test_report_of_a_call_that_is_not_deleted_is_accepted(voice: Tenant, perform: Perform, explain: Explain) -> None:
    attempt = answered(voice)
    assert explain.reported_call(voice.principal, attempt.token or "", refuses_number=False) == voice.attempt(
        attempt.id
    )
    assert report(perform, attempt, FINISHED) is None

"""Numbers that are not called again, because a conversation said so."""

import re
from collections.abc import Callable
from datetime import timedelta

import pytest

from scheduler.domain.attempt import (
    Attempt,
    AttemptState,
    ConversationOutcome,
    Ended,
    NotReported,
    ProofMissing,
    Reason,
)
from scheduler.domain.call import CallStatus
from scheduler.domain.explanation import Rule
from scheduler.domain.interview import InterviewStatus
from scheduler.use_cases.explain import Explain
from tests.architecture.guards import guards
from tests.architecture.sources import ROOT
from tests.conftest import TestClock
from tests.support.builders import (
    Tenant,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
)
from tests.use_cases.conftest import Perform, answered, claimed, end
from tests.use_cases.conversations.conftest import (
    CALL_BACK,
    FINISHED,
    OPTED_OUT,
    SCREENED,
    TECHNICAL,
    TOMORROW_AT_SIX,
    WRONG_PERSON,
    after_a_verdict,
    after_failed_instructions,
    booked,
    code,
    follower,
    found_late,
    invoked,
    may_ring,
    pending_of,
    placed,
    report,
)


def another_interview(tenant: Tenant, attempt: Attempt) -> Attempt:
    """A call to the same candidate in another interview, due after the gap of the line."""
    other = a_pending_attempt(tenant, a_number(), due_at=tenant.now() + timedelta(hours=1))
    tenant.change(
        "UPDATE interviews SET candidate_id = (SELECT candidate_id FROM interviews WHERE id = :like) WHERE id = :id",
        like=attempt.interview_id,
        id=other.interview_id,
    )
    tenant.change("UPDATE attempts SET number_hash = :hash WHERE id = :id", hash=attempt.number_hash, id=other.id)
    return tenant.attempt(other.id)


def another_candidate(tenant: Tenant, attempt: Attempt) -> Attempt:
    """A call to another candidate with the same number."""
    [[number]] = tenant.ask(
        "SELECT phone_number FROM candidates p JOIN interviews i ON i.candidate_id = p.id WHERE i.id = :id",
        id=attempt.interview_id,
    )
    return a_pending_attempt(tenant, number, due_at=tenant.now() + timedelta(hours=1))


def blocked_by(explain: Explain, attempt: Attempt) -> list[Rule]:
    return [each.rule for each in explain.explanation_of(attempt.id).blocks]


@guards("look_refused")
@pytest.mark.parametrize("is_live", [True, False])
@pytest.mark.parametrize(
    ("outcome", "rule", "status"),
    [
        (WRONG_PERSON, Rule.WRONG_NUMBER, InterviewStatus.FAILED),
        (OPTED_OUT, Rule.OPTED_OUT, InterviewStatus.CANCELLED),
    ],
)
def test_number_is_not_called_again(
    voice: Tenant,
    perform: Perform,
    explain: Explain,
    now: TestClock,
    outcome: ConversationOutcome,
    rule: Rule,
    status: InterviewStatus,
    *,
    is_live: bool,
) -> None:
    attempt = answered(voice)
    attempt = attempt if is_live else end(voice, attempt)
    other, stranger = another_interview(voice, attempt), another_candidate(voice, attempt)
    assert rule not in blocked_by(explain, other)
    assert report(perform, attempt, outcome) is None
    attempt = end(voice, attempt) if is_live else attempt
    assert (voice.interview_status(attempt), follower(voice, attempt)) == (status, None)
    assert booked(voice, attempt) == 1
    assert rule in blocked_by(explain, other)
    assert (rule in blocked_by(explain, stranger)) is (outcome is OPTED_OUT)
    now.move(timedelta(hours=2))
    for each in (other, stranger):
        is_refused = each is other or outcome is OPTED_OUT
        assert may_ring(voice, each) is not is_refused
        if is_refused:
            held = voice.attempt(each.id)
            assert (held.state, held.due_at) == (AttemptState.PENDING, now() + timedelta(days=1))


def test_refusal_of_a_number_does_not_concern_others(
    voice: Tenant, perform: Perform, explain: Explain, other: Tenant
) -> None:
    """Another company may call the number, and the candidate may be called at another number."""
    attempt = answered(voice)
    moved = another_interview(voice, attempt)
    voice.change("UPDATE attempts SET number_hash = :hash WHERE id = :id", hash=b"another", id=moved.id)
    assert report(perform, attempt, OPTED_OUT) is None
    foreign = another_candidate(other, attempt)
    for each in (moved, foreign):
        assert Rule.OPTED_OUT not in blocked_by(explain, each)


@pytest.mark.parametrize(
    ("outcome", "status", "state"),
    [
        # It rings once the candidate has another number.
        pytest.param(WRONG_PERSON, InterviewStatus.SCHEDULED, AttemptState.PENDING, id="wrong person"),
        pytest.param(OPTED_OUT, InterviewStatus.CANCELLED, AttemptState.CANCELLED, id="opted out"),
    ],
)
def test_late_callback_of_a_refused_number_rings_no_phone(
    voice: Tenant,
    perform: Perform,
    now: TestClock,
    outcome: ConversationOutcome,
    status: InterviewStatus,
    state: AttemptState,
) -> None:
    """The end of the call is lost, and a client invokes another one before the end is proven."""
    attempt = answered(voice)
    assert report(perform, attempt, outcome) is None
    voice.take(voice.attempt(attempt.id), ProofMissing())
    assert follower(voice, attempt) is None
    pending = invoked(voice, perform, attempt)
    now.move(timedelta(hours=2))
    assert not may_ring(voice, pending)
    end(voice, voice.attempt(attempt.id))
    assert (voice.interview_status(attempt), voice.attempt(pending.id).state) == (status, state)
    assert booked(voice, attempt) == 1
    now.move(timedelta(days=1))
    for held in claimed(voice, pending):
        assert voice.dial.last_look(held) is None


@pytest.mark.parametrize(
    ("outcome", "is_of_candidate", "is_listed"),
    [
        (OPTED_OUT, True, True),
        (OPTED_OUT, False, True),
        (WRONG_PERSON, True, True),
        (WRONG_PERSON, False, False),
        (FINISHED, True, False),
    ],
)
def test_upgrade_page_lists_calls_that_0_2_0_would_place(
    voice: Tenant, perform: Perform, outcome: ConversationOutcome, *, is_of_candidate: bool, is_listed: bool
) -> None:
    attempt = end(voice, answered(voice))
    assert report(perform, attempt, outcome) is None
    pending = (another_interview if is_of_candidate else another_candidate)(voice, attempt)
    a_pending_attempt(voice, a_number())
    page = (ROOT / "docs/how-to/upgrade.md").read_text(encoding="utf-8")
    query, _ = re.findall(r"```sql\n(.*?);\n", page, re.DOTALL)
    assert [row.id for row in voice.ask(query)] == ([pending.id] if is_listed else [])


# ---- reports that come late, second or against the carrier's verdict


def of_unknown_end(tenant: Tenant) -> Attempt:
    return tenant.take(answered(tenant), ProofMissing())


def after_the_wait(tenant: Tenant) -> Attempt:
    return tenant.take(end(tenant, answered(tenant)), NotReported())


def after_a_cancellation(tenant: Tenant) -> Attempt:
    attempt = answered(tenant)
    tenant.change("UPDATE interviews SET status = 'CANCELLED', finished_at = :now", now=tenant.now())
    return end(tenant, attempt)


LATE = [
    *(
        pytest.param(each, marks=guards("lasting_refusal", "refused_number"))
        for each in (after_a_verdict, after_failed_instructions)
    ),
    *(
        pytest.param(each, marks=guards("lasting_refusal"))
        for each in (of_unknown_end, after_the_wait, after_a_cancellation)
    ),
    # Its call is live, so each report of it is new.
    pytest.param(found_late),
]


@guards("look_refused")
@pytest.mark.parametrize("outcome", [OPTED_OUT, WRONG_PERSON])
@pytest.mark.parametrize("situation", LATE)
def test_refusal_is_noted_whatever_the_call_became(
    voice: Tenant,
    perform: Perform,
    explain: Explain,
    situation: Callable[[Tenant], Attempt],
    outcome: ConversationOutcome,
) -> None:
    attempt = situation(voice)
    before = booked(voice, attempt)
    assert report(perform, attempt, outcome) is None
    reported = voice.attempt(attempt.id)
    assert (reported.state, reported.reason, reported.outcome) == (attempt.state, attempt.reason, outcome)
    assert report(perform, attempt, outcome) is None, "the same again"
    assert voice.history(attempt.id).count("reported") == 1
    assert booked(voice, attempt) == before
    other = another_interview(voice, attempt)
    assert (Rule.OPTED_OUT if outcome is OPTED_OUT else Rule.WRONG_NUMBER) in blocked_by(explain, other)
    assert pending_of(voice, attempt) == []


@guards("refused_number", "lasting_refusal")
@pytest.mark.parametrize("outcome", [OPTED_OUT, WRONG_PERSON])
@pytest.mark.parametrize(
    "situation",
    [pytest.param(after_a_verdict), pytest.param(after_failed_instructions, marks=guards("instructions_failed"))],
)
def test_refusal_cancels_the_planned_retry(
    voice: Tenant, perform: Perform, situation: Callable[[Tenant], Attempt], outcome: ConversationOutcome
) -> None:
    attempt = situation(voice)
    retry = follower(voice, attempt)
    assert retry is not None
    assert report(perform, attempt, outcome) is None
    cancelled = follower(voice, attempt)
    assert cancelled is not None
    assert (cancelled.id, cancelled.state, cancelled.reason) == (retry.id, AttemptState.CANCELLED, Reason.REPLACED)
    assert voice.interview_status(attempt) is InterviewStatus.FAILED


@pytest.mark.parametrize("outcome", [FINISHED, SCREENED, TECHNICAL])
@pytest.mark.parametrize("situation", [after_a_verdict, of_unknown_end])
def test_no_other_outcome_overrules_what_is_known(
    voice: Tenant, perform: Perform, situation: Callable[[Tenant], Attempt], outcome: ConversationOutcome
) -> None:
    attempt = situation(voice)
    retry = follower(voice, attempt)
    assert code(report(perform, attempt, outcome)) == "CALL_NOT_ANSWERED"
    assert (voice.attempt(attempt.id), follower(voice, attempt)) == (attempt, retry)


@pytest.mark.parametrize("is_live", [True, False])
@pytest.mark.parametrize(("first", "at"), [(CALL_BACK, TOMORROW_AT_SIX), (FINISHED, None), (WRONG_PERSON, None)])
def test_person_may_opt_out_after_another_report(
    voice: Tenant, perform: Perform, first: ConversationOutcome, at: str | None, *, is_live: bool
) -> None:
    attempt = answered(voice)
    assert report(perform, attempt, first, at) is None
    attempt = attempt if is_live else end(voice, attempt)
    assert report(perform, attempt, OPTED_OUT) is None
    attempt = end(voice, attempt) if is_live else voice.attempt(attempt.id)
    assert (attempt.outcome, attempt.call_back, booked(voice, attempt)) == (OPTED_OUT, None, 1)
    assert pending_of(voice, attempt) == []
    kept = {FINISHED: InterviewStatus.COMPLETED, WRONG_PERSON: InterviewStatus.CANCELLED}
    status = InterviewStatus.CANCELLED if is_live else kept.get(first, InterviewStatus.CANCELLED)
    assert voice.interview_status(attempt) is status
    assert code(report(perform, attempt, first, at)) == "OUTCOME_REPORTED"


@guards("stronger_refusal")
def test_wrong_person_does_not_replace_an_opt_out(voice: Tenant, perform: Perform) -> None:
    attempt = answered(voice)
    assert report(perform, attempt, OPTED_OUT) is None
    assert code(report(perform, attempt, WRONG_PERSON)) == "OUTCOME_REPORTED"
    assert voice.attempt(attempt.id).outcome is OPTED_OUT


@pytest.mark.parametrize("status", [CallStatus.BUSY, CallStatus.NO_ANSWER])
def test_call_that_reached_no_person_refuses_no_number(voice: Tenant, perform: Perform, status: CallStatus) -> None:
    attempt = end(voice, a_placed_attempt(voice), status)
    assert code(report(perform, attempt, OPTED_OUT)) == "CALL_NOT_ANSWERED"
    retry = follower(voice, attempt)
    assert retry is not None
    assert retry.state is AttemptState.PENDING


def test_wrong_person_keeps_a_call_to_another_number(voice: Tenant, perform: Perform) -> None:
    attempt = after_a_verdict(voice)
    retry = follower(voice, attempt)
    assert retry is not None
    voice.change("UPDATE attempts SET number_hash = :hash WHERE id = :id", hash=b"another", id=retry.id)
    assert report(perform, attempt, WRONG_PERSON) is None
    kept = voice.attempt(retry.id)
    assert (kept.state, voice.interview_status(attempt)) == (AttemptState.PENDING, InterviewStatus.SCHEDULED)


@guards("refused_retry")
def test_refusing_call_that_fails_has_no_retry_to_a_new_number(voice: Tenant, perform: Perform) -> None:
    """A client corrects the number during the call. Only a new attempt of theirs calls it."""
    attempt = answered(voice)
    assert report(perform, attempt, WRONG_PERSON) is None
    moves_to_another_number(voice, attempt)
    ended = end(voice, attempt, CallStatus.BUSY)
    assert (ended.reason, follower(voice, attempt)) == (Reason.BUSY, None)
    assert voice.interview_status(attempt) is InterviewStatus.FAILED


@pytest.mark.parametrize("outcome", [OPTED_OUT, WRONG_PERSON])
def test_late_end_of_a_refusing_call_is_followed_by_nothing(
    voice: Tenant, perform: Perform, outcome: ConversationOutcome
) -> None:
    attempt = found_late(voice)
    assert report(perform, attempt, outcome) is None
    proven = end(voice, attempt)
    assert (proven.reason, proven.outcome, booked(voice, attempt)) == (Reason.ANSWERED, outcome, 1)
    assert follower(voice, attempt) is None


@guards("refused_in_chain", "lasting_refusal")
@pytest.mark.parametrize("outcome", [OPTED_OUT, WRONG_PERSON])
def test_refusal_during_the_retry_is_followed_by_no_other_retry(
    voice: Tenant, perform: Perform, now: TestClock, outcome: ConversationOutcome
) -> None:
    """No client has invoked a call, so only its own chain is read."""
    attempt = after_a_verdict(voice)
    voice.change("UPDATE attempts SET manual = false WHERE id = :id", id=attempt.id)
    retry = follower(voice, attempt)
    assert retry is not None
    now.move(retry.due_at - now() + timedelta(seconds=1))
    rings = placed(voice, retry)
    assert report(perform, attempt, outcome) is None
    voice.take(rings, Ended(reason=Reason.NO_ANSWER, ended_at=now()))
    assert pending_of(voice, attempt) == []
    assert voice.interview_status(attempt) is InterviewStatus.FAILED


def ringing_after_an_invoke(tenant: Tenant, perform: Perform, now: TestClock, attempt: Attempt) -> Attempt:
    """The call of another chain, which a client has invoked after this attempt."""
    now.move(timedelta(minutes=11))
    return placed(tenant, invoked(tenant, perform, attempt))


def moves_to_another_number(tenant: Tenant, attempt: Attempt) -> None:
    tenant.change(
        "UPDATE candidates SET phone_number = :number"
        " WHERE id = (SELECT candidate_id FROM interviews WHERE id = :interview)",
        number=a_number(),
        interview=attempt.interview_id,
    )


@pytest.mark.parametrize(
    ("outcome", "moves", "is_followed"),
    [
        pytest.param(OPTED_OUT, False, False, marks=guards("refused_in_interview", "lasting_refusal")),
        pytest.param(
            OPTED_OUT, True, False, marks=guards("refused_in_interview", "lasting_refusal", "refused_meanwhile")
        ),
        pytest.param(WRONG_PERSON, False, False, marks=guards("refused_in_interview", "lasting_refusal")),
        # The candidate may be called at another number.
        (WRONG_PERSON, True, True),
    ],
)
def test_refusal_reaches_the_retry_of_an_invoked_chain(
    voice: Tenant, perform: Perform, now: TestClock, outcome: ConversationOutcome, *, moves: bool, is_followed: bool
) -> None:
    """The refusal of an earlier call is reported while an invoked one rings."""
    attempt = after_a_verdict(voice)
    rings = ringing_after_an_invoke(voice, perform, now, attempt)
    assert report(perform, attempt, outcome) is None
    if moves:
        moves_to_another_number(voice, attempt)
    voice.take(rings, Ended(reason=Reason.NO_ANSWER, ended_at=now()))
    assert bool(pending_of(voice, attempt)) is is_followed
    status = InterviewStatus.SCHEDULED if is_followed else InterviewStatus.FAILED
    assert voice.interview_status(attempt) is status


@pytest.mark.parametrize("moves", [False, True])
def test_chain_invoked_after_an_opt_out_calls_another_number(
    voice: Tenant, perform: Perform, now: TestClock, *, moves: bool
) -> None:
    """The client knows of the opt-out, and invokes a call all the same. It never rings at the refused number."""
    attempt = after_a_verdict(voice)
    assert report(perform, attempt, OPTED_OUT) is None
    if moves:
        moves_to_another_number(voice, attempt)
    rings = ringing_after_an_invoke(voice, perform, now, attempt)
    voice.take(rings, Ended(reason=Reason.NO_ANSWER, ended_at=now()))
    pending = pending_of(voice, attempt)
    assert bool(pending) is moves
    for each in pending:
        now.move(each.due_at - now() + timedelta(seconds=1))
        assert may_ring(voice, each)

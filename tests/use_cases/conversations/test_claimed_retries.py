"""Opt-outs while the next call is claimed already: it returns to PENDING, and rings at no number."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from scheduler.domain.attempt import Attempt, AttemptState, Ended, Reason
from scheduler.domain.interview import InterviewStatus
from scheduler.lifecycle.policy import MAX_CLOCK_SKEW
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.submit import Submit
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import ApiWriter, Reach, RecordingHints, Tenant, a_claimed_attempt, a_number
from tests.support.statements import statements_of
from tests.use_cases.conftest import PAUSED, Perform, candidate_of, claimed, performing
from tests.use_cases.conversations.conftest import (
    OPTED_OUT,
    WRONG_PERSON,
    after_a_verdict,
    after_failed_instructions,
    follower,
    invoked,
    pending_of,
    report,
)


def claimed_when_due(tenant: Tenant, now: TestClock, attempt: Attempt) -> Attempt:
    now.move(max(attempt.due_at - now(), timedelta()) + timedelta(seconds=1))
    [claim] = claimed(tenant, attempt)
    return claim


def claimed_retry(tenant: Tenant, now: TestClock, attempt: Attempt) -> Attempt:
    retry = follower(tenant, attempt)
    assert retry is not None
    return claimed_when_due(tenant, now, retry)


def corrects_number(tenant: Tenant, hints: RecordingHints, attempt: Attempt) -> None:
    writer = ApiWriter(tenant=tenant, hints=hints)
    reach = Reach(phone_number=a_number(), timezone=None)
    writer.change_reach(tenant.principal, candidate_of(tenant, attempt), reach)
    writer.recompute()


def may_ring_when_due(tenant: Tenant, now: TestClock, attempt: Attempt) -> bool:
    """Claim the attempt once it is due, and look a last time. It is not placed."""
    pending = tenant.attempt(attempt.id)
    if pending.state is not AttemptState.PENDING:
        return False
    return tenant.dial.last_look(claimed_when_due(tenant, now, pending)) is not None


SITUATIONS = [
    after_a_verdict,
    pytest.param(after_failed_instructions, marks=guards("instructions_failed")),
]


# ---- ways back to PENDING


def by_the_last_look(tenant: Tenant, attempt: Attempt) -> None:
    assert tenant.dial.last_look(attempt) is None


def by_a_pause(tenant: Tenant, attempt: Attempt) -> None:
    """The last look names the pause before the refusal."""
    tenant.change(f"UPDATE companies SET {PAUSED} WHERE id = :id", at=tenant.now(), id=tenant.company_id)
    assert tenant.dial.last_look(attempt) is None
    tenant.change("UPDATE companies SET paused_at = NULL, pause_reason = NULL WHERE id = :id", id=tenant.company_id)


def unsent(tenant: Tenant, attempt: Attempt) -> None:
    """The report is applied after the last look."""
    tenant.dial.give_back(attempt, "NOT_SENT")


@guards("returned_refused", "lasting_refusal")
@pytest.mark.parametrize(
    ("put_back", "moves_first"),
    [
        pytest.param(by_the_last_look, False, marks=guards("look_refused")),
        (by_the_last_look, True),
        (by_a_pause, False),
        (by_a_pause, True),
        (unsent, False),
        (unsent, True),
    ],
)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_claimed_retry_of_an_opt_out_rings_at_no_number(
    voice: Tenant,
    perform: Perform,
    now: TestClock,
    hints: RecordingHints,
    situation: Callable[[Tenant], Attempt],
    put_back: Callable[[Tenant, Attempt], None],
    *,
    moves_first: bool,
) -> None:
    """The client corrects the number, during the claim or after it."""
    attempt = situation(voice)
    retry = claimed_retry(voice, now, attempt)
    assert report(perform, attempt, OPTED_OUT) is None
    if moves_first:
        corrects_number(voice, hints, attempt)
    put_back(voice, retry)
    if not moves_first:
        corrects_number(voice, hints, attempt)
    assert not may_ring_when_due(voice, now, retry)
    ended = voice.attempt(retry.id)
    assert (ended.state, ended.reason) == (AttemptState.CANCELLED, Reason.REPLACED)
    assert voice.interview_status(attempt) is InterviewStatus.FAILED


@guards("look_opted_out", "lasting_refusal", "look_refused", "returned_refused")
@pytest.mark.parametrize("situation", SITUATIONS)
def test_last_look_stops_an_opted_out_retry_at_another_number(
    voice: Tenant, perform: Perform, now: TestClock, hints: RecordingHints, situation: Callable[[Tenant], Attempt]
) -> None:
    """The client has corrected the number before the claim."""
    attempt = situation(voice)
    corrects_number(voice, hints, attempt)
    retry = claimed_retry(voice, now, attempt)
    assert retry.number_hash != attempt.number_hash
    assert report(perform, attempt, OPTED_OUT) is None
    by_the_last_look(voice, retry)
    ended = voice.attempt(retry.id)
    assert (ended.state, ended.reason) == (AttemptState.CANCELLED, Reason.REPLACED)
    assert voice.interview_status(attempt) is InterviewStatus.FAILED


def test_call_invoked_after_an_opt_out_may_ring_another_number(
    voice: Tenant, perform: Perform, now: TestClock, hints: RecordingHints
) -> None:
    attempt = after_a_verdict(voice)
    assert report(perform, attempt, OPTED_OUT) is None
    corrects_number(voice, hints, attempt)
    now.move(timedelta(minutes=11))
    assert may_ring_when_due(voice, now, invoked(voice, perform, attempt))


@pytest.mark.parametrize("put_back", [by_the_last_look, by_a_pause, unsent])
def test_claimed_retry_after_wrong_person_calls_another_number(
    voice: Tenant,
    perform: Perform,
    now: TestClock,
    hints: RecordingHints,
    put_back: Callable[[Tenant, Attempt], None],
) -> None:
    attempt = after_a_verdict(voice)
    retry = claimed_retry(voice, now, attempt)
    assert report(perform, attempt, WRONG_PERSON) is None
    put_back(voice, retry)
    corrects_number(voice, hints, attempt)
    assert may_ring_when_due(voice, now, retry)


def test_call_invoked_after_an_opt_out_returns_and_rings(
    voice: Tenant, perform: Perform, now: TestClock, hints: RecordingHints
) -> None:
    """The client knows of the opt-out, and has decided to call another number."""
    attempt = after_a_verdict(voice)
    assert report(perform, attempt, OPTED_OUT) is None
    now.move(timedelta(minutes=11))
    pending = invoked(voice, perform, attempt)
    by_the_last_look(voice, claimed_when_due(voice, now, pending))
    assert voice.attempt(pending.id).state is AttemptState.PENDING
    corrects_number(voice, hints, attempt)
    assert may_ring_when_due(voice, now, pending)


@guards("returned_refused", "lasting_refusal", "look_refused")
def test_call_invoked_before_an_opt_out_returns_and_ends(
    voice: Tenant, perform: Perform, now: TestClock, hints: RecordingHints
) -> None:
    attempt = after_a_verdict(voice)
    now.move(timedelta(minutes=11))
    pending = invoked(voice, perform, attempt)
    claim = claimed_when_due(voice, now, pending)
    assert report(perform, attempt, OPTED_OUT) is None
    by_the_last_look(voice, claim)
    corrects_number(voice, hints, attempt)
    assert not may_ring_when_due(voice, now, pending)
    assert voice.interview_status(attempt) is InterviewStatus.FAILED


# ---- clocks that differ


@pytest.fixture
def perform_behind(voice: Tenant, submit: Submit, hints: RecordingHints, now: TestClock) -> Perform:
    """Like `perform`, by a worker whose clock is as far behind as it may be."""
    apply = Apply(replace(voice.context, now=lambda: now() - MAX_CLOCK_SKEW), hints)
    return performing(voice, submit, apply)


@guards("refusal_clock", "lasting_refusal")
@pytest.mark.parametrize(
    "returns",
    [
        pytest.param(False, marks=guards("refused_in_interview", "refused_meanwhile")),
        pytest.param(True, marks=guards("returned_refused")),
    ],
)
def test_opt_out_dated_by_a_clock_behind_ends_an_invoked_chain(
    voice: Tenant, perform: Perform, perform_behind: Perform, now: TestClock, hints: RecordingHints, *, returns: bool
) -> None:
    """It is reported while the invoked call rings, or is claimed. Its time is before that of the invoke."""
    attempt = after_a_verdict(voice)
    now.move(timedelta(minutes=11))
    pending = invoked(voice, perform, attempt)
    [claim] = claimed(voice, pending)
    now.move(timedelta(seconds=1))
    assert report(perform_behind, attempt, OPTED_OUT) is None
    [[reported_at]] = voice.ask("SELECT outcome_at FROM attempts WHERE id = :id", id=attempt.id)
    assert reported_at < pending.created_at
    if returns:
        unsent(voice, claim)
    corrects_number(voice, hints, attempt)
    if not returns:
        voice.take(claim, Ended(reason=Reason.NO_ANSWER, ended_at=now()))
    assert pending_of(voice, attempt) == []
    assert voice.interview_status(attempt) is InterviewStatus.FAILED


def test_first_attempt_returns_without_reading_refusals(voice: Tenant, now: TestClock) -> None:
    """An earlier call of the interview may refuse a retry only."""
    retry = claimed_retry(voice, now, after_a_verdict(voice))
    counts = []
    for attempt in (a_claimed_attempt(voice, manual=False), retry):
        with statements_of(voice.database) as sent:
            unsent(voice, attempt)
        counts.append(sum("a.outcome IN" in each for each in sent))
    assert counts == [0, 1]

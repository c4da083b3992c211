"""Numbers that are not called again, because a conversation said so."""

import re
from datetime import timedelta

import pytest

from scheduler.domain.attempt import Attempt, AttemptState, ConversationOutcome, ProofMissing
from scheduler.domain.command import (
    InvokeAttempt,
)
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
)
from tests.use_cases.conftest import Perform, answered, end
from tests.use_cases.conversations.conftest import (
    booked,
    follower,
    report,
)

WRONG_PERSON, OPTED_OUT = ConversationOutcome.WRONG_PERSON, ConversationOutcome.OPTED_OUT


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
        [claim] = voice.dial.claim([each.id]).claimed
        assert (voice.dial.last_look(claim.attempt) is None) is is_refused
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
    perform(InvokeAttempt(interview_id=attempt.interview_id))
    invoked = follower(voice, attempt)
    assert invoked is not None
    now.move(timedelta(hours=2))
    [claim] = voice.dial.claim([invoked.id]).claimed
    assert voice.dial.last_look(claim.attempt) is None
    end(voice, voice.attempt(attempt.id))
    assert (voice.interview_status(attempt), voice.attempt(invoked.id).state) == (status, state)
    assert booked(voice, attempt) == 1
    now.move(timedelta(days=1))
    for held in voice.dial.claim([invoked.id]).claimed:
        assert voice.dial.last_look(held.attempt) is None


@pytest.mark.parametrize(
    ("outcome", "is_of_candidate", "is_listed"),
    [
        (OPTED_OUT, True, True),
        (OPTED_OUT, False, True),
        (WRONG_PERSON, True, True),
        (WRONG_PERSON, False, False),
        (ConversationOutcome.FINISHED, True, False),
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
    [query] = re.findall(r"```sql\n(.*?);\n", page, re.DOTALL)
    assert [row.id for row in voice.ask(query)] == ([pending.id] if is_listed else [])

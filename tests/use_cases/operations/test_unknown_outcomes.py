"""Decisions about unknown outcomes are recorded once, lead to one call at most, and are replaced by late proof."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from scheduler.domain.attempt import Attempt, AttemptState, Decision, ProofMissing, Proven, Reason
from scheduler.domain.call import CallNews, CallProgress, CallStatus
from scheduler.domain.command import CommandState, DeleteInterview, InvokeAttempt
from scheduler.domain.interview import InterviewStatus
from scheduler.domain.refusals import (
    CallAttemptInProgress,
    NewerCallAttempt,
    NotFound,
    OutcomeDecided,
    OutcomeNotUnknown,
)
from scheduler.lifecycle.policy import ASK_EVERY
from scheduler.lifecycle.state_machine import is_over
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.counts import Counts
from scheduler.use_cases.operations.unknown_outcomes import UnknownOutcomes
from scheduler.use_cases.shared.batch import Batch
from tests.conftest import TestClock
from tests.support.builders import (
    Tenant,
    a_claimed_attempt,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
    an_attempt_of_unknown_outcome,
    an_unknown_attempt,
)
from tests.use_cases.conftest import (
    Perform,
    an_ended_attempt,
    apply_news,
    finish,
    is_claimed,
    see_leg,
    settle_with_an_empty_list,
)
from tests.use_cases.test_settle import settle_during

JANA = "cli:jana@ops-1"
WHY = "the carrier's console shows no call"
A_SECOND = timedelta(seconds=1)


@pytest.fixture
def unknown_outcomes(tenant: Tenant) -> UnknownOutcomes:
    return UnknownOutcomes(tenant.database, tenant.now, JANA)


Decide = Callable[[Attempt, Decision], UUID | None]


@pytest.fixture
def accept_decision(unknown_outcomes: UnknownOutcomes) -> Decide:
    """Accept a decision, which is not applied yet."""
    return lambda attempt, decision: unknown_outcomes.decide(attempt.id, decision, WHY)


@pytest.fixture
def decide(accept_decision: Decide, apply: Apply, unknown_outcomes: UnknownOutcomes) -> Decide:
    """Accept a decision and apply it, successfully."""

    def decided(attempt: Attempt, decision: Decision) -> UUID | None:
        command_id = accept_decision(attempt, decision)
        if command_id is not None:
            apply.command(command_id)
            answer = unknown_outcomes.command(command_id).answer
            assert answer is not None
            assert answer.refusal is None, answer.refusal
        return command_id

    return decided


def refusal_of(unknown_outcomes: UnknownOutcomes, command_id: UUID | None) -> str:
    assert command_id is not None
    answer = unknown_outcomes.command(command_id).answer
    assert answer is not None
    assert answer.refusal is not None
    return answer.refusal.code


def listed(unknown_outcomes: UnknownOutcomes, company_id: UUID | None = None) -> list[UUID]:
    return [each.id for each in unknown_outcomes.page(company_id)]


def unknown_of(tenant: Tenant) -> int:
    return next(each.unknown for each in Counts(tenant.context).attempts() if each.company_id == tenant.company_id)


def open_attempts(tenant: Tenant, attempt: Attempt) -> list[Attempt]:
    return [each for each in tenant.attempts(attempt.interview_id) if not is_over(each)]


def successor_of(tenant: Tenant, attempt: Attempt) -> Attempt:
    # Both are of one instant, so their order says nothing.
    [successor] = [each for each in tenant.attempts(attempt.interview_id) if each.id != attempt.id]
    return successor


# ---- the list


def test_list_has_unknown_outcomes_oldest_first(
    tenant: Tenant, other: Tenant, unknown_outcomes: UnknownOutcomes, now: TestClock
) -> None:
    first = an_attempt_of_unknown_outcome(tenant)
    now.move(A_SECOND)
    second = an_attempt_of_unknown_outcome(other)
    an_ended_attempt(tenant)
    an_unknown_attempt(tenant)
    assert listed(unknown_outcomes) == [first.id, second.id]
    assert listed(unknown_outcomes, other.company_id) == [second.id]
    assert listed(unknown_outcomes, uuid4()) == []


def test_list_says_when_the_carrier_was_and_will_be_asked(tenant: Tenant, now: TestClock) -> None:
    unknown = an_unknown_attempt(tenant)
    now.move(tenant.policy.lease + tenant.policy.settle + timedelta(minutes=1))
    settle_with_an_empty_list(tenant)
    now.move(timedelta(minutes=1))
    settle_with_an_empty_list(tenant)
    [item] = UnknownOutcomes(tenant.database, tenant.now).page(None)
    assert (item.id, item.interview_id, item.company_id) == (unknown.id, unknown.interview_id, tenant.company_id)
    assert (item.claimed_at, item.ended_at) == (unknown.claimed_at, now() - timedelta(minutes=1))
    assert item.listed_at == now()
    assert item.search_at is not None
    assert item.search_at > now()
    assert item.look_at is None


def test_list_leaves_out_deleted_companies(tenant: Tenant, unknown_outcomes: UnknownOutcomes) -> None:
    an_attempt_of_unknown_outcome(tenant)
    tenant.change("UPDATE companies SET deleted_at = :at", at=tenant.now())
    assert listed(unknown_outcomes) == []


# ---- what follows from a decision


@pytest.mark.parametrize("decision", [Decision.RANG, Decision.LEFT])
def test_decision_without_a_call_only_leaves_the_list(
    tenant: Tenant, decide: Decide, unknown_outcomes: UnknownOutcomes, decision: Decision
) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    before = tenant.line(unknown)
    assert unknown_of(tenant) == 1
    decide(unknown, decision)
    [decided] = tenant.attempts(unknown.interview_id)
    assert (decided.state, decided.reason) == (AttemptState.FAILED, Reason.OUTCOME_UNKNOWN)
    assert (decided.decision, decided.decided_at) == (decision, tenant.now())
    assert (decided.search_at, decided.called_number) == (unknown.search_at, unknown.called_number)
    assert tenant.line(unknown) == before
    assert tenant.interview_status(unknown) is InterviewStatus.FAILED
    assert listed(unknown_outcomes) == []
    assert unknown_of(tenant) == 0


def test_history_has_author_and_reason_of_a_decision(tenant: Tenant, decide: Decide) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    decide(unknown, Decision.DID_NOT_RING)
    [[actor, detail]] = tenant.ask("SELECT actor, detail FROM attempt_history WHERE event = 'decided'")
    assert (actor, detail) == (JANA, {"decision": "DID_NOT_RING", "reason": WHY})
    [[created_by]] = tenant.ask(
        "SELECT actor FROM attempt_history WHERE event = 'created' AND attempt_id = :id",
        id=successor_of(tenant, unknown).id,
    )
    assert created_by == JANA
    [[body]] = tenant.ask("SELECT body FROM inbox")
    assert body is None


def test_company_does_not_see_the_login_of_an_operator(tenant: Tenant, decide: Decide, explain: Explain) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    decide(unknown, Decision.LEFT)
    of_company = explain.explanation(tenant.principal, None, unknown.interview_id, unknown.id)
    assert [each.actor for each in of_company.happenings if each.event == "decided"] == ["operator"]
    of_operator = explain.explanation_of(unknown.id)
    assert [each.actor for each in of_operator.happenings if each.event == "decided"] == [JANA]


def test_call_again_is_an_invoke(tenant: Tenant, decide: Decide, now: TestClock) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    decide(unknown, Decision.DID_NOT_RING)
    again = successor_of(tenant, unknown)
    assert (again.state, again.manual, again.retry_number, again.chain_id) == (AttemptState.PENDING, True, 0, again.id)
    assert again.number_hash == unknown.number_hash
    assert tenant.interview_status(unknown) is InterviewStatus.SCHEDULED
    assert unknown_of(tenant) == 0
    assert not is_claimed(tenant, again), "its line rests"
    now.move(tenant.policy.line_gap)
    assert is_claimed(tenant, again)


# ---- the same and other decisions


@pytest.mark.parametrize("decision", Decision)
def test_repeated_decision_changes_nothing(tenant: Tenant, decide: Decide, decision: Decision) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    decide(unknown, decision)
    before = tenant.attempts(unknown.interview_id)
    assert decide(unknown, decision) is None
    assert tenant.attempts(unknown.interview_id) == before


def test_decisions_accepted_at_once_call_once(tenant: Tenant, accept_decision: Decide, apply: Apply) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    both = [accept_decision(unknown, Decision.DID_NOT_RING) for _ in range(2)]
    for _ in range(2):
        for command_id in both:
            assert command_id is not None
            apply.command(command_id)
    assert len(tenant.attempts(unknown.interview_id)) == 2
    assert tenant.history(unknown.id).count("decided") == 1


def test_other_decision_is_a_conflict(
    tenant: Tenant, decide: Decide, accept_decision: Decide, apply: Apply, unknown_outcomes: UnknownOutcomes
) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    first, second = accept_decision(unknown, Decision.LEFT), accept_decision(unknown, Decision.DID_NOT_RING)
    assert first is not None
    assert second is not None
    apply.command(first)
    apply.command(second)
    assert refusal_of(unknown_outcomes, second) == "OUTCOME_DECIDED"
    with pytest.raises(OutcomeDecided):
        decide(unknown, Decision.RANG)
    assert len(tenant.attempts(unknown.interview_id)) == 1


# ---- refusals


@pytest.mark.parametrize(
    "make",
    [a_pending_attempt, a_claimed_attempt, a_placed_attempt, an_unknown_attempt, an_ended_attempt],
    ids=lambda make: make.__name__,
)
def test_known_outcome_is_not_decided(tenant: Tenant, decide: Decide, make: Callable[[Tenant], Attempt]) -> None:
    with pytest.raises(OutcomeNotUnknown):
        decide(make(tenant), Decision.DID_NOT_RING)


def test_unknown_attempt_is_not_found(tenant: Tenant, unknown_outcomes: UnknownOutcomes) -> None:
    with pytest.raises(NotFound):
        unknown_outcomes.decide(uuid4(), Decision.LEFT, WHY)
    unknown = an_attempt_of_unknown_outcome(tenant)
    tenant.change("UPDATE companies SET deleted_at = :at", at=tenant.now())
    with pytest.raises(NotFound):
        unknown_outcomes.decide(unknown.id, Decision.LEFT, WHY)


def test_live_call_is_not_decided(tenant: Tenant, decide: Decide) -> None:
    unknown = see_leg(tenant, an_attempt_of_unknown_outcome(tenant))
    with pytest.raises(CallAttemptInProgress):
        decide(unknown, Decision.LEFT)


@pytest.mark.parametrize("newer", ["pending", "ended"])
def test_call_again_after_a_newer_attempt_is_refused(
    tenant: Tenant, decide: Decide, accept: Perform, apply: Apply, now: TestClock, newer: str
) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    now.move(tenant.policy.line_gap)
    apply.command(accept(InvokeAttempt(interview_id=unknown.interview_id)).id)
    attempt = successor_of(tenant, unknown)
    if newer == "ended":
        assert is_claimed(tenant, attempt)
        finish(tenant, tenant.attempt(attempt.id))
    with pytest.raises(NewerCallAttempt):
        decide(unknown, Decision.DID_NOT_RING)
    decide(unknown, Decision.LEFT)
    assert len(tenant.attempts(unknown.interview_id)) == 2


def test_refused_call_again_leaves_no_decision(
    tenant: Tenant, accept: Perform, accept_decision: Decide, apply: Apply, unknown_outcomes: UnknownOutcomes
) -> None:
    """The work stays on the list: otherwise it would look done, and no call would follow."""
    without_consent, deleted = an_attempt_of_unknown_outcome(tenant), an_attempt_of_unknown_outcome(tenant)
    tenant.change("UPDATE candidates SET gdpr_expiry_date = '2026-04-01'")
    apply.command(accept(DeleteInterview(interview_id=deleted.interview_id)).id)
    for unknown, code in ((without_consent, "CONSENT_EXPIRED"), (deleted, "RESOURCE_NOT_FOUND")):
        command_id = accept_decision(unknown, Decision.DID_NOT_RING)
        assert command_id is not None
        apply.command(command_id)
        assert refusal_of(unknown_outcomes, command_id) == code
        assert tenant.attempts(unknown.interview_id) == [tenant.attempt(unknown.id)]
        assert "decided" not in tenant.history(unknown.id)
    assert set(listed(unknown_outcomes)) == {without_consent.id, deleted.id}


def test_outcome_of_a_deleted_interview_may_be_left(
    tenant: Tenant, accept: Perform, apply: Apply, decide: Decide, unknown_outcomes: UnknownOutcomes
) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    apply.command(accept(DeleteInterview(interview_id=unknown.interview_id)).id)
    decide(unknown, Decision.LEFT)
    assert listed(unknown_outcomes) == []


# ---- late proof


def test_late_answer_wins_over_a_call_again(tenant: Tenant, decide: Decide) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    decide(unknown, Decision.DID_NOT_RING)
    proof = Proven(reason=Reason.ANSWERED, call_sid=a_sid(), ended_at=tenant.now(), duration=A_SECOND)
    proven = tenant.take(unknown, proof)
    assert (proven.state, proven.reason) == (AttemptState.COMPLETED, Reason.ANSWERED)
    assert proven.decision is Decision.DID_NOT_RING
    assert tenant.interview_status(unknown) is InterviewStatus.COMPLETED
    assert tenant.ask("SELECT 1 FROM usage WHERE attempt_id = :id", id=unknown.id) != []
    assert successor_of(tenant, unknown).reason is Reason.REPLACED


def test_late_failure_leaves_the_call_again(tenant: Tenant, decide: Decide) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    decide(unknown, Decision.DID_NOT_RING)
    proven = tenant.take(unknown, Proven(reason=Reason.BUSY, call_sid=a_sid(), ended_at=tenant.now()))
    assert (proven.state, proven.reason) == (AttemptState.FAILED, Reason.BUSY)
    assert len(open_attempts(tenant, unknown)) == 1


@pytest.mark.parametrize("decision", Decision)
def test_late_call_wins_over_each_decision(
    tenant: Tenant, decide: Decide, unknown_outcomes: UnknownOutcomes, decision: Decision
) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    decide(unknown, decision)
    seen = see_leg(tenant, unknown)
    assert (seen.decision, seen.decided_at) == (None, None)
    assert tenant.line(unknown)[0] == unknown.id
    assert open_attempts(tenant, unknown) == []
    assert listed(unknown_outcomes) == [unknown.id]
    tenant.take(seen, ProofMissing())
    assert unknown_of(tenant) == 1, "an operator decides again"


def test_call_again_is_possible_after_the_found_call_was_lost(tenant: Tenant, decide: Decide) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    decide(unknown, Decision.DID_NOT_RING)
    tenant.take(see_leg(tenant, unknown), ProofMissing())
    decide(unknown, Decision.DID_NOT_RING)
    states = sorted(each.state for each in tenant.attempts(unknown.interview_id))
    assert states == [AttemptState.CANCELLED, AttemptState.FAILED, AttemptState.PENDING]


@pytest.mark.parametrize("status", [CallStatus.RINGING, CallStatus.COMPLETED, CallStatus.BUSY])
def test_proof_before_the_decision_is_applied_refuses_it(
    tenant: Tenant, accept_decision: Decide, apply: Apply, unknown_outcomes: UnknownOutcomes, status: CallStatus
) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    command_id = accept_decision(unknown, Decision.DID_NOT_RING)
    assert command_id is not None
    apply_news(tenant, unknown, status)
    apply.command(command_id)
    code = "CALL_ATTEMPT_IN_PROGRESS" if status is CallStatus.RINGING else "OUTCOME_NOT_UNKNOWN"
    assert refusal_of(unknown_outcomes, command_id) == code
    assert tenant.attempts(unknown.interview_id) == [tenant.attempt(unknown.id)], "no second call"


def test_decision_waits_for_proof_that_is_being_saved(
    tenant: Tenant, accept_decision: Decide, apply: Apply, unknown_outcomes: UnknownOutcomes
) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    command_id = accept_decision(unknown, Decision.DID_NOT_RING)
    assert command_id is not None
    with tenant.database.transaction() as stores:
        interview = stores.interviews.lock(unknown.interview_id)
        apply.command(command_id)
        news = CallNews(call_sid=a_sid(), status=CallStatus.RINGING, token=unknown.token)
        locked = stores.attempts.lock(unknown.id)
        tenant.effects.hear(Batch(stores, [interview]), locked, news, "a test", tenant.now())
    apply.command(command_id)
    assert refusal_of(unknown_outcomes, command_id) == "CALL_ATTEMPT_IN_PROGRESS"
    assert open_attempts(tenant, unknown) == []


def test_decision_during_a_search_only_delays_its_result(tenant: Tenant, decide: Decide, now: TestClock) -> None:
    """The search began before the decision. Its result is dropped, and the next one cancels the call."""
    unknown = an_unknown_attempt(tenant)
    now.move(tenant.policy.lease + tenant.policy.settle + timedelta(minutes=1))
    settle_with_an_empty_list(tenant)
    unknown = tenant.attempt(unknown.id)
    assert unknown.search_at is not None
    now.instant = unknown.search_at
    rings = CallNews(call_sid=a_sid(), status=CallStatus.RINGING)

    def decided() -> None:
        if tenant.attempt(unknown.id).decision is None:
            decide(unknown, Decision.DID_NOT_RING)

    settle_during(tenant, decided, rings).round()
    assert tenant.attempt(unknown.id).call_sid is None
    assert tenant.attempt(unknown.id).search_at == now() + ASK_EVERY
    [again] = open_attempts(tenant, unknown)
    assert not is_claimed(tenant, again), "its line rests"
    now.move(ASK_EVERY)
    settle_during(tenant, lambda: None, rings).round()
    found = tenant.attempt(unknown.id)
    assert (found.call_sid, found.heard_rank) == (rings.call_sid, CallProgress.RINGING)
    assert tenant.attempt(again.id).reason is Reason.REPLACED


def test_command_of_a_decision_is_the_operators(
    tenant: Tenant, accept_decision: Decide, unknown_outcomes: UnknownOutcomes
) -> None:
    command_id = accept_decision(an_attempt_of_unknown_outcome(tenant), Decision.LEFT)
    assert command_id is not None
    command = unknown_outcomes.command(command_id)
    assert (command.state, command.principal_id, command.key_id) == (CommandState.WAITING, UUID(int=0), None)

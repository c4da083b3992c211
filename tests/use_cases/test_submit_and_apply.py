"""Moving, cancelling, invoking and deleting attempts: effect and refusals in each state."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from scheduler.domain.attempt import Attempt, AttemptState, Reason
from scheduler.domain.call import ScheduleWarning
from scheduler.domain.command import (
    Answer,
    Command,
    CommandState,
    CreateInterview,
    DeleteAttempt,
    DeleteInterview,
    InvokeAttempt,
    RescheduleAttempt,
    UpdateInterview,
)
from scheduler.domain.interview import Agent, AgentFocus, AgentType, InterviewStatus
from scheduler.domain.refusals import IdempotencyKeyReused
from scheduler.lifecycle.policy import DEFAULT_LIFE
from scheduler.persistence.json_columns import STORY
from scheduler.rules.resources import etag_of
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.release import Release
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.access import lock_busy
from scheduler.use_cases.submit import Submit
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_candidate,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    an_attempt_of_unknown_outcome,
)
from tests.use_cases.conftest import IN_PROGRESS, Perform, an_ended_attempt, finish, is_claimed, performing, see_leg

TOMORROW = "2026-04-03T09:00:00+02:00"
"""Nine in the morning in Bratislava, the day after the tests' noon."""
A_DAY = timedelta(days=1)


@pytest.fixture
def do(tenant: Tenant, apply: Apply, submit: Submit) -> Perform:
    return performing(tenant, submit, apply)


def answer_of(command: Command) -> Answer:
    assert command.answer is not None
    return command.answer


def refused(command: Command) -> str:
    refusal = answer_of(command).refusal
    assert refusal is not None, command.answer
    return refusal.code


def is_done(command: Command) -> bool:
    assert answer_of(command).refusal is None, command.answer
    return command.state is CommandState.APPLIED


def made(command: Command) -> Any:
    """The interview in the command's answer."""
    assert is_done(command)
    return STORY.validate_python(answer_of(command).snapshot)


def move(attempt: Attempt, to: str = TOMORROW, **fields: Any) -> RescheduleAttempt:
    return RescheduleAttempt(interview_id=attempt.interview_id, attempt_id=attempt.id, scheduled_at=to, **fields)


def delete(attempt: Attempt, **fields: Any) -> DeleteAttempt:
    return DeleteAttempt(interview_id=attempt.interview_id, attempt_id=attempt.id, **fields)


def invoke(attempt: Attempt, at: str | None = None) -> InvokeAttempt:
    return InvokeAttempt(interview_id=attempt.interview_id, scheduled_at=at)


# ---- acceptance


@pytest.mark.parametrize("in_progress", IN_PROGRESS)
@guards("busy")
def test_command_forbidden_by_a_live_call_is_refused_at_once(
    tenant: Tenant, accept: Perform, hints: RecordingHints, in_progress: Callable[[Tenant], Attempt]
) -> None:
    attempt = in_progress(tenant)
    for request in (
        delete(attempt),
        move(attempt),
        invoke(attempt),
        UpdateInterview(interview_id=attempt.interview_id, scheduled_at=TOMORROW),
        UpdateInterview(interview_id=attempt.interview_id, expires_at=TOMORROW),
    ):
        command = accept(request)
        assert command.state is CommandState.APPLIED
        assert refused(command) == "CALL_ATTEMPT_IN_PROGRESS"
        assert command.interview_id is None
    assert hints.ids(tasks.APPLY) == []
    assert tenant.attempt(attempt.id) == attempt


def test_command_for_a_missing_resource_is_refused_at_once(tenant: Tenant, accept: Perform) -> None:
    attempt = a_pending_attempt(tenant)
    for request in (
        InvokeAttempt(interview_id=uuid4()),
        RescheduleAttempt(interview_id=attempt.interview_id, attempt_id=uuid4(), scheduled_at=TOMORROW),
        DeleteAttempt(interview_id=a_pending_attempt(tenant).interview_id, attempt_id=attempt.id),
        UpdateInterview(interview_id=uuid4(), scheduled_at=TOMORROW),
        DeleteInterview(interview_id=uuid4()),
    ):
        assert refused(accept(request)) == "RESOURCE_NOT_FOUND"


@guards("busy")
def test_immediate_refusal_is_stored_under_its_idempotency_key(tenant: Tenant, submit: Submit) -> None:
    attempt = a_claimed_attempt(tenant)
    first, again = (
        submit.command(tenant.principal, None, delete(attempt), idempotency_key="key", request_hash=b"hash")
        for _ in range(2)
    )
    assert (first.replayed, again.replayed) == (False, True)
    assert again.command.id == first.command.id
    assert refused(again.command) == "CALL_ATTEMPT_IN_PROGRESS"


@guards("acceptance")
def test_attempt_is_not_claimed_while_a_command_is_accepted(tenant: Tenant) -> None:
    due = a_pending_attempt(tenant)
    with tenant.database.transaction() as accepting:
        assert lock_busy(accepting, due.interview_id) is None
        claims = tenant.dial.claim([due.id])
    assert claims.claimed == ()
    assert claims.waiting == {due.id}, "it is looked at again soon"


@guards("same_request")
def test_reused_idempotency_key_with_another_request_is_refused(tenant: Tenant, submit: Submit) -> None:
    first, other = a_pending_attempt(tenant), a_pending_attempt(tenant)
    submit.command(tenant.principal, None, delete(first), idempotency_key="key", request_hash=b"hash")
    with pytest.raises(IdempotencyKeyReused):
        submit.command(tenant.principal, None, delete(other), idempotency_key="key", request_hash=b"another")
    assert tenant.ask("SELECT interview_id FROM inbox") == [(first.interview_id,)]


def test_command_without_a_key_stores_no_request_hash(tenant: Tenant, submit: Submit) -> None:
    for key in (None, "key"):
        attempt = a_pending_attempt(tenant)
        submit.command(tenant.principal, None, delete(attempt), idempotency_key=key, request_hash=b"hash")
    stored = tenant.ask("SELECT idempotency_key, request_hash FROM inbox ORDER BY seq")
    assert [(key, bytes(request_hash)) for key, request_hash in stored] == [(None, b""), ("key", b"hash")]


# ---- PATCH …/call-attempts


def test_moved_attempt_keeps_its_id_and_waits_for_its_time(tenant: Tenant, do: Perform, now: TestClock) -> None:
    before = a_pending_attempt(tenant)
    assert is_done(do(move(before)))
    after = tenant.attempt(before.id)
    assert (after.state, after.schedule.requested) == (AttemptState.PENDING, TOMORROW)
    assert after.due_at.isoformat() == "2026-04-03T07:00:00+00:00"
    assert (after.epoch, after.released_until) == (before.epoch + 1, None)
    assert after.expires_at == after.due_at + DEFAULT_LIFE, "the default expiry moves with it"
    assert tenant.interview(before.interview_id).expires_at == after.expires_at
    assert tenant.history(before.id) == ["created", "rescheduled"]
    assert not is_claimed(tenant, before)
    now.instant = after.due_at
    assert is_claimed(tenant, before)


def test_moved_retry_may_ring_at_night_by_the_requested_offset(tenant: Tenant, do: Perform, now: TestClock) -> None:
    retry = a_pending_attempt(tenant)
    tenant.change("UPDATE attempts SET retry_number = 1")
    asked_for = "2026-04-03T09:00:00+09:00"  # two in the night in Bratislava, and so it was asked for
    assert is_done(do(move(retry, asked_for)))
    now.instant = tenant.attempt(retry.id).due_at
    [claim] = tenant.dial.claim([retry.id]).claimed
    assert tenant.dial.last_look(claim.attempt) is not None


def test_explicit_expiry_stays_and_refuses_a_later_time(tenant: Tenant, do: Perform, now: TestClock) -> None:
    attempt = a_pending_attempt(tenant)
    tenant.change("UPDATE interviews SET expires_by_default = false, expires_at = :at", at=now() + timedelta(hours=2))
    assert refused(do(move(attempt))) == "NO_OPENING_BEFORE_EXPIRY"
    assert tenant.attempt(attempt.id) == attempt


def test_invalid_time_is_refused_and_moves_nothing(tenant: Tenant, do: Perform) -> None:
    attempt = a_pending_attempt(tenant)
    assert refused(do(move(attempt, "2026-04-02T22:30:00+02:00"))) == "OUTSIDE_CALL_TIME_INTERVAL"
    assert tenant.attempt(attempt.id) == attempt


def test_finished_attempt_is_not_moved(tenant: Tenant, do: Perform) -> None:
    attempt = an_ended_attempt(tenant)
    for request in (move(attempt), update(attempt, scheduled_at=TOMORROW)):
        assert refused(do(request)) == "CALL_ATTEMPT_NOT_PENDING"
    assert tenant.attempt(attempt.id) == attempt


def test_current_etag_permits_one_move(tenant: Tenant, do: Perform) -> None:
    attempt = a_pending_attempt(tenant)
    etag = etag_of(attempt)
    assert is_done(do(move(attempt, if_match=f'"x", {etag}')))
    moved = tenant.attempt(attempt.id)
    assert refused(do(move(attempt, if_match=etag))) == "PRECONDITION_FAILED"
    assert refused(do(delete(attempt, if_match=etag))) == "PRECONDITION_FAILED"
    assert refused(do(delete(attempt, if_match=f"W/{etag_of(moved)}"))) == "PRECONDITION_FAILED"
    assert tenant.attempt(attempt.id) == moved
    assert is_done(do(delete(attempt, if_match="*")))


def test_commands_of_an_interview_are_applied_in_order(
    tenant: Tenant, accept: Perform, apply: Apply, submit: Submit
) -> None:
    attempt = a_pending_attempt(tenant)
    first, second = accept(move(attempt)), accept(delete(attempt))
    apply.command(second.id)
    assert submit.find(tenant.principal, str(second.id)).state is CommandState.WAITING, "its turn has not come"
    apply.command(first.id)
    apply.command(second.id)
    assert tenant.history(attempt.id) == ["created", "rescheduled", "cancelled", "deleted"]


def test_applied_command_sends_a_hint_for_the_next_one(
    tenant: Tenant, accept: Perform, apply: Apply, hints: RecordingHints
) -> None:
    """Its own hint may have come before its turn."""
    mine, another = a_pending_attempt(tenant), a_pending_attempt(tenant)
    first, second = accept(move(mine)), accept(delete(mine))
    accept(delete(another))
    hints.rung.clear()
    apply.command(second.id)
    assert hints.ids(tasks.APPLY) == [], "it is not its turn"
    apply.command(first.id)
    assert hints.ids(tasks.APPLY) == [second.id]
    apply.command(second.id)
    assert hints.ids(tasks.APPLY) == [second.id]


# ---- DELETE …/call-attempts


def test_deleted_pending_attempt_is_cancelled_and_never_called(tenant: Tenant, do: Perform, now: TestClock) -> None:
    attempt = a_pending_attempt(tenant)
    assert is_done(do(delete(attempt)))
    gone = tenant.attempt(attempt.id)
    assert (gone.state, gone.reason) == (AttemptState.CANCELLED, Reason.CANCELLED_BY_USER)
    assert gone.deleted_at == now()
    assert not is_claimed(tenant, attempt)
    assert tenant.interview_status(attempt) is InterviewStatus.SCHEDULED
    assert is_done(do(invoke(attempt))), "its interview can be invoked"


def test_deleted_finished_attempt_keeps_its_state(tenant: Tenant, do: Perform) -> None:
    attempt = an_ended_attempt(tenant)
    assert is_done(do(delete(attempt)))
    gone = tenant.attempt(attempt.id)
    assert (gone.state, gone.reason) == (AttemptState.FAILED, Reason.BUSY)
    assert tenant.history(attempt.id)[-1] == "deleted"


def test_deleted_attempt_is_not_found(tenant: Tenant, do: Perform) -> None:
    attempt = a_pending_attempt(tenant)
    do(delete(attempt))
    assert refused(do(delete(attempt))) == "RESOURCE_NOT_FOUND"
    assert refused(do(move(attempt))) == "RESOURCE_NOT_FOUND"
    with tenant.database.transaction() as stores:
        assert stores.attempts.story(stores.interviews.lock(attempt.interview_id)).attempts == ()


# ---- POST …/call-attempts


def invoked(tenant: Tenant, command: Command) -> Attempt:
    attempt_id = answer_of(command).attempt_id
    assert attempt_id is not None
    return tenant.attempt(attempt_id)


def test_invoke_replaces_the_pending_attempt_with_a_new_chain(tenant: Tenant, do: Perform, now: TestClock) -> None:
    first = a_pending_attempt(tenant, due_at=now() + A_DAY)
    second = invoked(tenant, do(invoke(first)))
    replaced = tenant.attempt(first.id)
    assert (replaced.state, replaced.reason) == (AttemptState.CANCELLED, Reason.REPLACED)
    assert replaced.deleted_at is None, "it is listed still"
    assert (second.state, second.due_at, second.retry_number) == (AttemptState.PENDING, now(), 0)
    assert second.chain_id == second.id
    assert second.manual


def test_invoke_of_a_failed_interview_schedules_it_again(tenant: Tenant, do: Perform) -> None:
    failed = an_ended_attempt(tenant)
    assert tenant.interview_status(failed) is InterviewStatus.FAILED
    again = invoked(tenant, do(invoke(failed, TOMORROW)))
    assert again.schedule.requested == TOMORROW
    interview = tenant.interview(failed.interview_id)
    assert (interview.status, interview.finished_at) == (InterviewStatus.SCHEDULED, None)
    assert interview.expires_at == again.due_at + DEFAULT_LIFE == again.expires_at


@pytest.mark.parametrize("status", ["COMPLETED", "CANCELLED"])
def test_finished_interview_cannot_be_invoked(tenant: Tenant, do: Perform, now: TestClock, status: str) -> None:
    attempt = an_ended_attempt(tenant)
    tenant.change("UPDATE interviews SET status = :status, finished_at = :at", status=status, at=now())
    assert refused(do(invoke(attempt))) == "INTERVIEW_FINISHED"


def test_unknown_outcome_with_a_live_call_cannot_be_invoked(tenant: Tenant, do: Perform) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    see_leg(tenant, unknown)
    assert refused(do(invoke(unknown))) == "CALL_ATTEMPT_IN_PROGRESS"
    assert is_done(do(delete(unknown))), "an end may be deleted whatever is heard of it later"


# ---- PATCH /interviews


def update(attempt: Attempt, **changes: Any) -> UpdateInterview:
    return UpdateInterview(interview_id=attempt.interview_id, **changes)


def test_changed_interview_time_moves_its_pending_attempt(tenant: Tenant, do: Perform) -> None:
    attempt = a_pending_attempt(tenant)
    story = made(do(update(attempt, scheduled_at=TOMORROW)))
    assert tenant.attempt(attempt.id).schedule.requested == TOMORROW
    assert story.attempts[0].schedule.requested == TOMORROW


def test_changed_interview_expiry_moves_its_attempts_expiry(tenant: Tenant, do: Perform) -> None:
    attempt = a_pending_attempt(tenant)
    assert is_done(do(update(attempt, expires_at=TOMORROW)))
    interview, moved = tenant.interview(attempt.interview_id), tenant.attempt(attempt.id)
    assert interview.expires_at == moved.expires_at
    assert moved.expires_at.isoformat() == "2026-04-03T07:00:00+00:00"
    assert not interview.expires_by_default
    assert tenant.history(attempt.id) == ["created", "expiry_moved"]
    assert refused(do(update(attempt, expires_at="2026-04-02T14:00:30+02:00"))) == "NO_OPENING_BEFORE_EXPIRY"


def test_interview_metadata_is_merged_and_null_removes_a_key(tenant: Tenant, do: Perform) -> None:
    attempt = a_pending_attempt(tenant)
    do(update(attempt, metadata={"a": 1, "b": {"c": 2, "d": 3}}))
    do(update(attempt, metadata={"a": None, "b": {"c": None, "e": 4}}))
    assert tenant.interview(attempt.interview_id).metadata == {"b": {"d": 3, "e": 4}}


def test_metadata_too_large_after_a_change_is_refused(tenant: Tenant, do: Perform) -> None:
    attempt = a_pending_attempt(tenant)
    do(update(attempt, metadata={str(key): 0 for key in range(50)}))
    assert refused(do(update(attempt, metadata={"one more": 0}))) == "METADATA_TOO_LARGE"
    assert len(tenant.interview(attempt.interview_id).metadata) == 50


def test_status_of_a_phone_interview_cannot_be_set(tenant: Tenant, do: Perform) -> None:
    attempt = a_pending_attempt(tenant)
    assert refused(do(update(attempt, status=InterviewStatus.COMPLETED))) == "STATUS_NOT_SETTABLE"


# ---- DELETE /interviews


def test_deleted_interview_is_not_called_and_not_found(tenant: Tenant, do: Perform) -> None:
    attempt = a_pending_attempt(tenant)
    assert is_done(do(DeleteInterview(interview_id=attempt.interview_id)))
    assert tenant.attempt(attempt.id).reason is Reason.INTERVIEW_DELETED
    assert tenant.interview_status(attempt) is InterviewStatus.CANCELLED
    assert refused(do(DeleteInterview(interview_id=attempt.interview_id))) == "RESOURCE_NOT_FOUND"
    assert refused(do(invoke(attempt))) == "RESOURCE_NOT_FOUND"


def test_live_call_of_a_deleted_interview_ends_without_a_retry(tenant: Tenant, do: Perform, now: TestClock) -> None:
    tenant.change("UPDATE companies SET settings = settings - 'retryPolicy'")
    attempt = a_placed_attempt(tenant)
    assert is_done(do(DeleteInterview(interview_id=attempt.interview_id)))
    finish(tenant, tenant.attempt(attempt.id))
    assert [each.state for each in tenant.attempts(attempt.interview_id)] == [AttemptState.FAILED]
    assert tenant.interview_status(attempt) is InterviewStatus.CANCELLED


def test_unsent_claim_of_a_deleted_interview_is_cancelled(tenant: Tenant, do: Perform) -> None:
    mine = a_claimed_attempt(tenant)
    do(DeleteInterview(interview_id=mine.interview_id))
    assert tenant.dial.last_look(mine) is None
    assert tenant.attempt(mine.id).reason is Reason.INTERVIEW_DELETED


# ---- ONLINE and tests


def an_online_agent(tenant: Tenant) -> UUID:
    agent = Agent(
        id=uuid4(),
        company_id=tenant.company_id,
        name="Online",
        type=AgentType.ONLINE,
        focus=AgentFocus.GENERIC,
        language="EN",
        duration=timedelta(minutes=10),
        created_at=tenant.now(),
        updated_at=tenant.now(),
    )
    with tenant.database.transaction() as stores:
        stores.agents.add(agent)
    return agent.id


def test_online_interview_has_no_attempts_and_a_settable_status(tenant: Tenant, do: Perform) -> None:
    candidate = a_candidate(tenant)
    wish = CreateInterview(
        agent_id=an_online_agent(tenant), candidate_id=candidate.id, scheduled_at="2026-04-03T03:00:00+02:00"
    )
    story = made(do(wish))
    assert story.attempts == ()
    interview = tenant.interview(story.interview.id)
    assert (interview.type, interview.status) == (AgentType.ONLINE, InterviewStatus.SCHEDULED)
    assert interview.scheduled_at is not None
    assert refused(do(InvokeAttempt(interview_id=interview.id))) == "CALL_ATTEMPTS_NOT_SUPPORTED"
    assert is_done(do(UpdateInterview(interview_id=interview.id, scheduled_at=TOMORROW)))
    assert is_done(do(UpdateInterview(interview_id=interview.id, status=InterviewStatus.COMPLETED)))
    finished = tenant.interview(interview.id)
    assert (finished.status, finished.finished_at) == (InterviewStatus.COMPLETED, tenant.now())
    again = UpdateInterview(interview_id=interview.id, status=InterviewStatus.CANCELLED)
    assert refused(do(again)) == "INTERVIEW_FINISHED"


def test_second_interview_warns_about_the_open_one(tenant: Tenant, do: Perform) -> None:
    candidate = a_candidate(tenant, a_number())
    wish = CreateInterview(agent_id=tenant.agent_id, candidate_id=candidate.id)
    assert made(do(wish)).attempts[0].warnings == ()
    second = made(do(wish)).attempts[0]
    assert second.warnings == (ScheduleWarning.CANDIDATE_HAS_OPEN_INTERVIEW,)
    do(RescheduleAttempt(interview_id=second.interview_id, attempt_id=second.id, scheduled_at=TOMORROW))
    assert tenant.attempt(second.id).warnings == (ScheduleWarning.CANDIDATE_HAS_OPEN_INTERVIEW,)


def test_history_names_the_actor_of_each_change(tenant: Tenant, submit: Submit, apply: Apply) -> None:
    attempt = a_pending_attempt(tenant)
    key_id = uuid4()
    sender = replace(tenant.principal, key_id=key_id)
    accepted = submit.command(sender, None, move(attempt), idempotency_key=None, request_hash=b"hash")
    apply.command(accepted.command.id)
    rows = tenant.ask("SELECT actor, detail FROM attempt_history WHERE attempt_id = :id ORDER BY id", id=attempt.id)
    assert rows[-1][0] == f"key:{key_id}", "the very key, not only its principal"
    assert rows[-1][1]["due_at"] == "2026-04-03T07:00:00+00:00", "and where it was moved to"


def test_attempt_is_released_at_once_after_its_command(
    tenant: Tenant, accept: Perform, apply: Apply, release: Release
) -> None:
    attempt = a_pending_attempt(tenant)
    assert release.round(resends=False).released == 1
    command = accept(update(attempt, metadata={"a": 1}))
    assert not is_claimed(tenant, attempt)
    assert release.round(resends=False).released == 0, "a release lasts fifteen seconds, and a command waits"
    apply.command(command.id)
    assert release.round(resends=False).released == 1

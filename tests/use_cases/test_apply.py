"""Applying a command: an interview with its first attempt, or a refusal without any rows."""

from datetime import date, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from scheduler.domain.attempt import AttemptState, Reason
from scheduler.domain.call import TimezoneSource
from scheduler.domain.command import Answer, Command, CommandKind, CommandState, CreateInterview
from scheduler.domain.interview import InterviewStatus, NewCandidate
from scheduler.persistence.json_columns import STORY, request_as_json
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.operations.quarantine import Quarantine
from scheduler.use_cases.release import Release
from scheduler.use_cases.shared import hints as tasks
from tests.conftest import TestClock, seed
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_candidate,
    a_number,
    a_pending_attempt,
    a_waiting_command,
    of_company,
)

WHY = "a test"


def a_new_candidate(number: str | None = None, **fields: Any) -> NewCandidate:
    usual: dict[str, Any] = {
        "first_name": "Ada",
        "last_name": "Byron",
        "email": "ada@example.com",
        "gdpr_expiry_date": date(2027, 1, 1),
        "phone_number": number or a_number(),
    }
    return NewCandidate(**(usual | fields))


def a_wish(tenant: Tenant, **fields: Any) -> CreateInterview:
    """A request for an interview with a new candidate, as soon as allowed."""
    if "candidate_id" not in fields:
        fields.setdefault("candidate", a_new_candidate())
    return CreateInterview(**({"agent_id": tenant.agent_id} | fields))


def sent(tenant: Tenant, wish: CreateInterview) -> Command:
    return a_waiting_command(tenant, None, request_as_json(CommandKind.CREATE_INTERVIEW, wish))


def command(tenant: Tenant, given: Command) -> Command:
    with tenant.database.transaction() as stores:
        found = stores.inbox.find(given.principal_id, given.id)
    assert found is not None
    return found.command


def answer_of(tenant: Tenant, given: Command) -> Answer:
    """Read the answer of an applied command."""
    done = command(tenant, given)
    assert done.state is CommandState.APPLIED
    assert done.answer is not None
    return done.answer


def applied(tenant: Tenant, apply: Apply, wish: CreateInterview) -> Any:
    """The interview in the command's answer."""
    given = sent(tenant, wish)
    apply.command(given.id)
    answer = answer_of(tenant, given)
    assert answer.refusal is None, answer.refusal
    return STORY.validate_python(answer.snapshot)


def refused(tenant: Tenant, apply: Apply, wish: CreateInterview) -> str:
    given = sent(tenant, wish)
    apply.command(given.id)
    return refusal_of(tenant, given)


def refusal_of(tenant: Tenant, given: Command) -> str:
    refusal = answer_of(tenant, given).refusal
    assert refusal is not None
    return refusal.code


def rows(tenant: Tenant) -> dict[str, int]:
    tables = ("candidates", "interviews", "attempts", "attempt_history", "lines")
    return {table: tenant.ask(f"SELECT count(*) FROM {table}")[0][0] for table in tables}


# ---- created rows


def test_new_interview_has_a_first_attempt_due_at_once(tenant: Tenant, apply: Apply, hints: RecordingHints) -> None:
    number = a_number()
    story = applied(tenant, apply, a_wish(tenant, candidate=a_new_candidate(number), metadata={"a": 1}))
    [created] = story.attempts
    attempt = tenant.attempt(created.id)
    assert (story.interview.status, attempt.state) == (InterviewStatus.SCHEDULED, AttemptState.PENDING)
    assert (attempt.due_at, attempt.expires_at) == (tenant.now(), tenant.now() + timedelta(days=7))
    assert (attempt.retry_number, attempt.manual, attempt.chain_id) == (0, False, attempt.id), (
        "only an invoke is manual"
    )
    assert attempt.schedule.clock.source is TimezoneSource.PHONE_NUMBER
    assert attempt.number_hash == tenant.hasher.number(number)
    assert tenant.line(attempt)[0] is None
    assert tenant.history(attempt.id) == ["created"]
    assert len(hints.answers) == 1


def test_requested_time_is_judged_as_of_the_receipt(tenant: Tenant, apply: Apply, now: TestClock) -> None:
    given = sent(tenant, a_wish(tenant, scheduled_at=f"{now():%Y-%m-%dT%H:%M:%S}Z"))
    now.move(timedelta(minutes=10))
    apply.command(given.id)
    assert answer_of(tenant, given).refusal is None, "it lay ten minutes in the past only when it was applied"


def test_answer_contains_no_name_number_or_token(tenant: Tenant, apply: Apply) -> None:
    number = a_number()
    given = sent(tenant, a_wish(tenant, candidate=a_new_candidate(number), metadata={"note": "a secret"}))
    apply.command(given.id)
    kept = f"{answer_of(tenant, given)} {tenant.ask('SELECT answer, body FROM inbox WHERE id = :id', id=given.id)}"
    assert "attempts" in kept
    for secret in (number, "Ada", "Byron", "ada@example.com", "a secret", tenant.caller):
        assert secret not in kept


def test_test_interview_is_completed_at_once_and_takes_no_line(tenant: Tenant, apply: Apply, release: Release) -> None:
    story = applied(tenant, apply, a_wish(tenant, is_test=True))
    [attempt] = story.attempts
    assert (attempt.state, attempt.reason) == (AttemptState.COMPLETED, Reason.TEST)
    assert story.interview.status is InterviewStatus.COMPLETED
    assert rows(tenant)["lines"] == 0
    assert release.round(resends=False).released == 0


def test_candidates_with_the_same_number_share_its_line(tenant: Tenant, apply: Apply) -> None:
    number = a_number()
    stories = [applied(tenant, apply, a_wish(tenant, candidate=a_new_candidate(number))) for _ in range(2)]
    both = dict.fromkeys(("candidates", "interviews", "attempts", "attempt_history"), 2)
    assert rows(tenant) | {"attempt_history": 2} == both | {"lines": 1}
    ids = [story.attempts[0].id for story in stories]
    assert len(tenant.dial.claim(ids).claimed) == 1


def test_offset_that_the_number_does_not_have_gives_a_warning(tenant: Tenant, apply: Apply) -> None:
    [attempt] = applied(tenant, apply, a_wish(tenant, scheduled_at="2026-04-03T09:30:00+10:30")).attempts
    assert attempt.warnings == ("OFFSET_DIFFERS_FROM_PHONE_NUMBER",)


# ---- refusals


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        pytest.param(
            {"is_test": True, "scheduled_at": "2020-01-01T09:00:00"}, "SCHEDULE_IN_PAST", id="the past of a test"
        ),
        pytest.param({"scheduled_at": "2026-04-03T03:00:00"}, "OUTSIDE_CALL_TIME_INTERVAL", id="at night"),
        pytest.param({"expires_at": "2026-04-02T12:00:10Z"}, "NO_OPENING_BEFORE_EXPIRY", id="expires before it rings"),
        pytest.param({"agent_id": uuid4()}, "RESOURCE_NOT_FOUND", id="no such agent"),
        pytest.param({"candidate_id": uuid4()}, "RESOURCE_NOT_FOUND", id="no such candidate"),
        pytest.param({"candidate": a_new_candidate("+421")}, "PHONE_NUMBER_INVALID", id="no number"),
        pytest.param({"candidate": a_new_candidate(phone_number=None)}, "PHONE_NUMBER_REQUIRED", id="only an address"),
        pytest.param({"candidate": a_new_candidate(timezone="Mars/Olympus")}, "TIMEZONE_INVALID", id="no such zone"),
    ],
)
def test_refused_command_leaves_no_row_outside_the_inbox(
    tenant: Tenant, apply: Apply, hints: RecordingHints, fields: dict[str, Any], code: str
) -> None:
    before = rows(tenant)
    assert refused(tenant, apply, a_wish(tenant, **fields)) == code
    assert rows(tenant) == before
    assert len(hints.answers) == 1


def test_number_in_a_forbidden_country_is_refused(tenant: Tenant, apply: Apply) -> None:
    strict = of_company(tenant, seed(tenant.database, tenant.now(), allowed_countries=frozenset({"GB"})))
    assert refused(strict, apply, a_wish(strict)) == "NUMBER_NOT_ALLOWED"


def test_agent_or_candidate_of_another_company_is_not_found(tenant: Tenant, other: Tenant, apply: Apply) -> None:
    assert refused(tenant, apply, a_wish(tenant, agent_id=other.agent_id)) == "RESOURCE_NOT_FOUND"
    assert refused(tenant, apply, a_wish(tenant, candidate_id=a_candidate(other).id)) == "RESOURCE_NOT_FOUND"


# ---- once


def test_command_is_applied_once_however_many_hints_arrive(tenant: Tenant, apply: Apply) -> None:
    given = sent(tenant, a_wish(tenant))
    for each in (uuid4(), *[given.id] * 3):
        apply.command(each)
    assert rows(tenant)["interviews"] == 1
    done = command(tenant, given)
    assert (done.state, done.body) == (CommandState.APPLIED, None)


def fail(apply: Apply, command_id: UUID, times: int) -> None:
    for _ in range(times):
        with pytest.raises(ValueError, match="validation error"):
            apply.command(command_id)


def test_command_is_quarantined_after_five_unexpected_errors(
    tenant: Tenant, apply: Apply, release: Release, hints: RecordingHints, now: TestClock
) -> None:
    poison = a_waiting_command(tenant, None, {"no": "sense"})
    fail(apply, poison.id, 4)
    assert command(tenant, poison).state is CommandState.WAITING
    fail(apply, poison.id, 1)
    assert command(tenant, poison).state is CommandState.QUARANTINED
    apply.command(poison.id)
    now.move(timedelta(seconds=2))
    release.round(resends=True)
    assert hints.rung == []
    assert rows(tenant)["interviews"] == 0


def test_quarantined_command_can_be_retried_after_a_fix(
    tenant: Tenant, apply: Apply, release: Release, hints: RecordingHints, now: TestClock
) -> None:
    fixed = sent(tenant, a_wish(tenant))
    tenant.change("UPDATE inbox SET quarantined_at = received_at, failures = 5")
    quarantine = Quarantine(tenant.database, tenant.now)
    assert [each.id for each in quarantine.page()] == [fixed.id]
    quarantine.requeue(fixed.id, WHY)
    now.move(timedelta(seconds=2))
    release.round(resends=True)
    assert hints.rung == [(tasks.APPLY, fixed.id)]
    apply.command(fixed.id)
    assert command(tenant, fixed).state is CommandState.APPLIED
    assert (quarantine.page(), rows(tenant)["interviews"]) == ([], 1)


def test_dropped_command_is_answered_and_unblocks_its_interview(tenant: Tenant, apply: Apply) -> None:
    attempt = a_pending_attempt(tenant)
    poison = a_waiting_command(tenant, attempt.interview_id, {"no": "sense"})
    behind = a_waiting_command(tenant, attempt.interview_id, {"no": "sense"})
    fail(apply, poison.id, 5)
    apply.command(behind.id)
    assert command(tenant, behind).failures == 0, "it is not tried before the other one"
    quarantine = Quarantine(tenant.database, tenant.now)
    quarantine.drop(poison.id, WHY)
    assert refusal_of(tenant, poison) == "COMMAND_DROPPED"
    assert command(tenant, poison).body is None
    fail(apply, behind.id, 1)

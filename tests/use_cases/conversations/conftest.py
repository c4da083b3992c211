"""Reports of conversations, and what followed from them."""

import pytest

from scheduler.domain.attempt import Attempt, ConversationOutcome
from scheduler.domain.command import (
    Command,
    Refusal,
    ReportOutcome,
    Request,
)
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.submit import Submit
from tests.support.builders import (
    Tenant,
)
from tests.use_cases.conftest import Perform

FINISHED, CALL_BACK, SCREENED = (
    ConversationOutcome.FINISHED,
    ConversationOutcome.CALL_BACK,
    ConversationOutcome.SCREENED,
)
TOMORROW_AT_SIX = "2026-04-03T18:00:00"


@pytest.fixture
def perform(voice: Tenant, submit: Submit, apply: Apply) -> Perform:
    return performing(voice, submit, apply)


def performing(tenant: Tenant, submit: Submit, apply: Apply) -> Perform:
    """Submit a request of the company, apply it, and return the command with its answer."""

    def performed(request: Request) -> Command:
        command = submit.command(tenant.principal, None, request, idempotency_key=None, request_hash=b"hash").command
        apply.command(command.id)
        return submit.find(tenant.principal, str(command.id))

    return performed


def report(
    perform: Perform,
    attempt: Attempt,
    outcome: ConversationOutcome,
    call_back_at: str | None = None,
    note: str | None = None,
) -> Refusal | None:
    request = ReportOutcome(
        interview_id=attempt.interview_id,
        attempt_id=attempt.id,
        outcome=outcome,
        call_back_at=call_back_at,
        note=note,
    )
    answer = perform(request).answer
    assert answer is not None
    return answer.refusal


def code(refusal: Refusal | None) -> str | None:
    return None if refusal is None else refusal.code


def follower(tenant: Tenant, attempt: Attempt) -> Attempt | None:
    """The attempt after this one, of which there is at most one."""
    later = [each for each in tenant.attempts(attempt.interview_id) if each.id != attempt.id]
    assert len(later) <= 1
    return later[0] if later else None


def booked(tenant: Tenant, attempt: Attempt) -> int:
    return int(tenant.ask("SELECT count(*) FROM usage WHERE attempt_id = :id", id=attempt.id)[0][0])

"""Reports of conversations, and what followed from them."""

from dataclasses import dataclass
from datetime import timedelta

import pytest

from scheduler.domain.attempt import Attempt, AttemptState, ConversationOutcome, Placed, ProofMissing
from scheduler.domain.call import AnsweredBy, CallProgress
from scheduler.domain.command import Command, InvokeAttempt, Refusal, ReportOutcome
from scheduler.domain.interview import InterviewStatus
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.submit import Submit
from tests.conftest import TestClock
from tests.support.builders import Tenant, a_sid, an_attempt_of_unknown_outcome
from tests.use_cases.conftest import Perform, accepting, answered, claimed, end, performing, see_leg

FINISHED, CALL_BACK, SCREENED, TECHNICAL, WRONG_PERSON, OPTED_OUT = (
    ConversationOutcome.FINISHED,
    ConversationOutcome.CALL_BACK,
    ConversationOutcome.SCREENED,
    ConversationOutcome.TECHNICAL,
    ConversationOutcome.WRONG_PERSON,
    ConversationOutcome.OPTED_OUT,
)
TOMORROW_AT_SIX = "2026-04-03T18:00:00"
IN_UTC = "2026-04-03T16:00:00+00:00"
"""The same time, in Bratislava."""


@pytest.fixture
def perform(voice: Tenant, submit: Submit, apply: Apply) -> Perform:
    return performing(voice, submit, apply)


def reporting(
    attempt: Attempt, outcome: ConversationOutcome, call_back_at: str | None = None, note: str | None = None
) -> ReportOutcome:
    return ReportOutcome(
        interview_id=attempt.interview_id,
        attempt_id=attempt.id,
        outcome=outcome,
        call_back_at=call_back_at,
        note=note,
    )


def report(
    perform: Perform,
    attempt: Attempt,
    outcome: ConversationOutcome,
    call_back_at: str | None = None,
    note: str | None = None,
) -> Refusal | None:
    return refusal_of(perform(reporting(attempt, outcome, call_back_at, note)))


@dataclass(frozen=True, kw_only=True)
class Reports:
    """Accepts reports, and applies each later."""

    tenant: Tenant
    submit: Submit
    apply: Apply

    def accept(self, attempt: Attempt, outcome: ConversationOutcome) -> Command:
        at = TOMORROW_AT_SIX if outcome is CALL_BACK else None
        return accepting(self.tenant, self.submit)(reporting(attempt, outcome, at))

    def waits(self, command: Command) -> bool:
        """Try to apply the command. Return True if it is put off."""
        self.apply.command(command.id)
        return self._found(command).applied_at is None

    def refusal_code(self, command: Command) -> str | None:
        """Apply the command, and return the code of its refusal."""
        self.apply.command(command.id)
        return code(refusal_of(self._found(command)))

    def _found(self, command: Command) -> Command:
        return self.submit.find(self.tenant.principal, str(command.id))


def refusal_of(command: Command) -> Refusal | None:
    """Return why an applied command was refused."""
    assert command.answer is not None
    return command.answer.refusal


def code(refusal: Refusal | None) -> str | None:
    return None if refusal is None else refusal.code


def follower(tenant: Tenant, attempt: Attempt) -> Attempt | None:
    """The attempt after this one, of which there is at most one."""
    later = [each for each in tenant.attempts(attempt.interview_id) if each.id != attempt.id]
    assert len(later) <= 1
    return later[0] if later else None


def pending_of(tenant: Tenant, attempt: Attempt) -> list[Attempt]:
    """The pending attempts of the interview."""
    return [each for each in tenant.attempts(attempt.interview_id) if each.state is AttemptState.PENDING]


def pending_times(tenant: Tenant, attempt: Attempt) -> list[str]:
    return [each.due_at.isoformat() for each in pending_of(tenant, attempt)]


def booked(tenant: Tenant, attempt: Attempt) -> int:
    return int(tenant.ask("SELECT count(*) FROM usage WHERE attempt_id = :id", id=attempt.id)[0][0])


def invoked(tenant: Tenant, perform: Perform, attempt: Attempt) -> Attempt:
    """Invoke the attempt's interview. Return the new attempt."""
    assert refusal_of(perform(InvokeAttempt(interview_id=attempt.interview_id))) is None
    [pending] = pending_of(tenant, attempt)
    return pending


def placed(tenant: Tenant, pending: Attempt) -> Attempt:
    [claim] = claimed(tenant, pending)
    return tenant.take(claim, Placed(call_sid=a_sid(), look_at=tenant.now()))


def a_newer_call(tenant: Tenant, perform: Perform, now: TestClock, earlier: Attempt) -> Attempt:
    """A call of the same interview that a client has invoked, after the gap of the line. It is answered."""
    now.move(timedelta(minutes=1))
    pending = invoked(tenant, perform, earlier)
    now.move(timedelta(hours=2))
    return answered(tenant, placed(tenant, pending))


def may_ring(tenant: Tenant, pending: Attempt) -> bool:
    """Claim the attempt, and look a last time. It is not placed."""
    [claim] = claimed(tenant, pending)
    return tenant.dial.last_look(claim) is not None


def answered_late(tenant: Tenant, attempt: Attempt) -> Attempt:
    """The carrier's first report of the attempt's call: it is answered."""
    return see_leg(tenant, attempt, CallProgress.ANSWERED)


def found_late(tenant: Tenant, number: str | None = None) -> Attempt:
    """A call that was given up, and then found answered."""
    return answered_late(tenant, an_attempt_of_unknown_outcome(tenant, number))


def after_a_verdict(tenant: Tenant) -> Attempt:
    """The carrier took the person for a machine, so a retry is planned."""
    return end(tenant, answered(tenant, answered_by=AnsweredBy.MACHINE))


def after_failed_instructions(tenant: Tenant) -> Attempt:
    return end(tenant, answered(tenant, instructions_failed=True))


def lose_the_end(tenant: Tenant, perform: Perform) -> Attempt:
    """The person names a time during the call, whose end no news reports."""
    attempt = answered(tenant)
    assert report(perform, attempt, CALL_BACK, TOMORROW_AT_SIX) is None
    attempt = tenant.take(tenant.attempt(attempt.id), ProofMissing())
    assert (follower(tenant, attempt), tenant.interview_status(attempt)) == (None, InterviewStatus.FAILED)
    return attempt

"""What an interview is after something happened to its attempt."""

from dataclasses import replace
from datetime import datetime

from scheduler.domain.attempt import Attempt, AttemptState
from scheduler.domain.interview import Interview, InterviewStatus

_AFTER = {
    AttemptState.COMPLETED: InterviewStatus.COMPLETED,
    AttemptState.FAILED: InterviewStatus.FAILED,
}


def status_after(status: InterviewStatus, attempt: Attempt, *, goes_on: bool) -> InterviewStatus:
    """The stored status after `attempt` moved; `goes_on`: another attempt waits, a retry or one that was asked for.

    A call that comes to its end after the interview was cancelled leaves it cancelled, and late proof that an earlier
    attempt failed takes nothing back from a completed one.
    """
    if status is InterviewStatus.CANCELLED:
        return status
    after = _AFTER.get(attempt.state, status)
    if after is InterviewStatus.FAILED and (goes_on or status is InterviewStatus.COMPLETED):
        return status
    return after


def may_go_on(interview: Interview) -> bool:
    """Whether another attempt may follow by itself."""
    return interview.status is InterviewStatus.SCHEDULED and interview.deleted_at is None


def with_status(interview: Interview, status: InterviewStatus, now: datetime) -> Interview:
    """The interview with this status; finished, unless it may still be called."""
    over = status is not InterviewStatus.SCHEDULED
    return replace(interview, status=status, finished_at=(interview.finished_at or now) if over else None)

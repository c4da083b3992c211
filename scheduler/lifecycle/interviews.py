"""The status of an interview after an event of its attempt, and the limit of its attempts."""

from dataclasses import replace
from datetime import datetime

from scheduler.domain.attempt import Attempt, AttemptState
from scheduler.domain.interview import Interview, InterviewStatus

_AFTER = {
    AttemptState.COMPLETED: InterviewStatus.COMPLETED,
    AttemptState.FAILED: InterviewStatus.FAILED,
}
MOST_ATTEMPTS = 200
"""The attempts that an interview may have, with automatic retries and deleted attempts."""


def takes_another_attempt(attempts: int) -> bool:
    """Return whether an interview with this many attempts may get another one, from a client or as a retry."""
    return attempts < MOST_ATTEMPTS


def status_after(status: InterviewStatus, attempt: Attempt, *, goes_on: bool) -> InterviewStatus:
    """Decide the stored status after `attempt` has changed. `goes_on`: another attempt is pending (a retry or invoke).

    A cancelled interview stays cancelled when its last call ends. Late proof of an earlier attempt's failure does not
    change a completed interview.
    """
    if status is InterviewStatus.CANCELLED:
        return status
    after = _AFTER.get(attempt.state, status)
    if after is InterviewStatus.FAILED and (goes_on or status is InterviewStatus.COMPLETED):
        return status
    return after


def may_go_on(interview: Interview) -> bool:
    """Return whether an automatic retry is allowed."""
    return interview.status is InterviewStatus.SCHEDULED and interview.deleted_at is None


def with_status(interview: Interview, status: InterviewStatus, now: datetime) -> Interview:
    """Give the interview this status, and an end unless the status is SCHEDULED."""
    over = status is not InterviewStatus.SCHEDULED
    return replace(interview, status=status, finished_at=(interview.finished_at or now) if over else None)

"""What an interview is after something happened to its attempt."""

from scheduler.domain.attempt import Attempt, AttemptState
from scheduler.domain.interview import InterviewStatus

_AFTER = {
    AttemptState.COMPLETED: InterviewStatus.COMPLETED,
    AttemptState.FAILED: InterviewStatus.FAILED,
}


def status_after(status: InterviewStatus, attempt: Attempt) -> InterviewStatus:
    """The stored status after `attempt` moved; no retry follows it.

    A call that comes to its end after the interview was cancelled leaves it cancelled.
    """
    if status is InterviewStatus.CANCELLED:
        return status
    return _AFTER.get(attempt.state, status)

"""Locks of an interview, under which its attempts are created, claimed and ended."""

from uuid import UUID

from scheduler.domain.attempt import Attempt, AttemptState
from scheduler.domain.interview import Interview
from scheduler.persistence.stores import Stores
from scheduler.use_cases.shared.access import not_found


def lock_interview(stores: Stores, company_id: UUID, interview_id: UUID) -> Interview:
    """Lock the company's interview, so that no other transaction creates or ends its attempts. Raises NotFound."""
    if stores.interviews.get(company_id, interview_id) is not None:
        interview = stores.interviews.lock(interview_id)
        if interview.deleted_at is None:
            return interview
    raise not_found("interview", interview_id)


def lock_busy(stores: Stores, interview_id: UUID) -> Attempt | None:
    """Return the interview's attempt whose phone may be ringing. A pending attempt is locked against a claim."""
    attempt = stores.attempts.lock_open(interview_id)
    if attempt is not None and attempt.state is AttemptState.IN_PROGRESS:
        return attempt
    return stores.attempts.lock_live_leg(interview_id)

"""Interviews of an erased person, cancelled in batches. The person is blocked already: no call of theirs is claimed."""

from datetime import datetime
from uuid import UUID

from scheduler.domain.attempt import AttemptState, Cancelled, Reason
from scheduler.domain.interview import InterviewStatus
from scheduler.failpoints import failpoint
from scheduler.persistence.stores import Stores

BATCH = 100
"""Interviews that are cancelled in one transaction."""


def cancel_interviews(stores: Stores, candidate_id: UUID, limit: int, actor: str, now: datetime) -> bool:
    """Cancel up to `limit` interviews of an erased person that is locked. False: none could be locked.

    The interviews that are left are the progress. Locked ones are also left. A call in progress runs to its end. The
    number of statements does not depend on the number of interviews.
    """
    interviews = stores.interviews.lock_left_of(candidate_id, limit)
    open_ids = stores.attempts.open_of([each.id for each in interviews])
    attempts = {each.interview_id: each for each in stores.attempts.lock_free(list(open_ids.values()))}
    done = [each for each in interviews if each.id not in open_ids or each.id in attempts]
    with stores.connection.together():
        for interview in done:
            attempt = attempts.get(interview.id)
            if attempt is not None and attempt.state is AttemptState.PENDING:
                stores.attempts.save(attempt, Cancelled(reason=Reason.CANDIDATE_DELETED), actor, now)
            if interview.status is InterviewStatus.SCHEDULED:
                stores.interviews.set_status(interview, InterviewStatus.CANCELLED, now)
    stores.interviews.forget_contents([each.id for each in done])
    failpoint("leave.cancelling")
    return bool(done)


def note_rest(stores: Stores, candidate_id: UUID, next_at: datetime) -> bool:
    """Note when the remaining interviews may be cancelled, or that all are. True: some remain."""
    if stores.interviews.has_left_of(candidate_id):
        stores.candidates.note_leaving(candidate_id, next_at)
        return True
    stores.attempts.forget_candidate(candidate_id)
    stores.carrier_events.forget_candidate(candidate_id)
    stores.candidates.note_leaving(candidate_id, None)
    return False

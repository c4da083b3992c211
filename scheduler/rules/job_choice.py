"""Which job an interview is about."""

from collections.abc import Sequence
from uuid import UUID

from scheduler.domain.agent import AgentFocus
from scheduler.domain.job import Job, JobStatus
from scheduler.domain.refusals import JobAmbiguous, JobNotAssigned, JobRequired


def job_of(focus: AgentFocus, named: UUID | None, considered_for: Sequence[Job]) -> UUID | None:
    """The job of an interview by an agent of this focus; None where it is about none.

    `named` is the job that was asked for, whether it is OPEN or not; `considered_for` those that the candidate is
    assigned to. Raises JobNotAssigned; JobAmbiguous and JobRequired where none was named and exactly one is needed.
    """
    if named is not None:
        if named not in {job.id for job in considered_for}:
            raise JobNotAssigned(jobId=str(named))
        return named
    if focus is AgentFocus.GENERIC:
        return None
    active = [job.id for job in considered_for if job.status is JobStatus.OPEN]
    if not active:
        raise JobRequired
    if len(active) > 1:
        # No titles: a refusal is kept, and whoever tells of it adds them as they are then.
        raise JobAmbiguous(jobs=[{"id": str(job_id)} for job_id in active])
    return active[0]

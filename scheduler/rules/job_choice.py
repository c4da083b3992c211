"""The choice of an interview's job."""

from collections.abc import Sequence
from uuid import UUID

from scheduler.domain.agent import AgentFocus
from scheduler.domain.job import Job, JobStatus
from scheduler.domain.refusals import JobAmbiguous, JobNotAssigned, JobRequired


def job_of(focus: AgentFocus, named: UUID | None, considered_for: Sequence[Job]) -> UUID | None:
    """Return the job of an interview with an agent of this focus, or None if it is not about a job.

    `named` is the requested job, OPEN or not. `considered_for` are the jobs that the candidate is assigned to. Raises
    JobNotAssigned, or JobAmbiguous or JobRequired if no job is named and exactly one is needed.
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
        # Ids only: a refusal is stored, and the current titles are added when it is returned.
        raise JobAmbiguous(jobs=[{"id": str(job_id)} for job_id in active])
    return active[0]

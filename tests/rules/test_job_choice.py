"""The job of an interview: the named job, the only open one, or none. Ambiguous cases are refused."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from scheduler.domain.interview import AgentFocus, Job, JobStatus
from scheduler.domain.refusals import JobAmbiguous, JobNotAssigned, JobRequired
from scheduler.rules.resources import job_of

GENERIC = AgentFocus.GENERIC
ABOUT_A_JOB = [focus for focus in AgentFocus if focus is not GENERIC]
MADE_AT = datetime(2026, 4, 2, 12, 0, tzinfo=UTC)
each_focus = pytest.mark.parametrize("focus", list(AgentFocus))
each_about_a_job = pytest.mark.parametrize("focus", ABOUT_A_JOB)


def a_job(status: JobStatus = JobStatus.OPEN) -> Job:
    return Job(
        id=uuid4(),
        company_id=UUID(int=1),
        title="Beekeeper",
        description="Knows where each of them lives.",
        status=status,
        created_at=MADE_AT,
        updated_at=MADE_AT,
    )


OPEN, ANOTHER, CLOSED = a_job(), a_job(), a_job(JobStatus.CLOSED)


@each_focus
@pytest.mark.parametrize("named", [OPEN, CLOSED])
def test_named_job_is_used_even_if_it_is_closed(focus: AgentFocus, named: Job) -> None:
    assert job_of(focus, named.id, [ANOTHER, CLOSED, OPEN]) == named.id


@each_focus
@pytest.mark.parametrize("considered_for", [[], [ANOTHER, CLOSED]])
def test_named_job_without_an_assignment_is_refused(focus: AgentFocus, considered_for: Sequence[Job]) -> None:
    with pytest.raises(JobNotAssigned) as refused:
        job_of(focus, OPEN.id, considered_for)
    assert refused.value.details == {"jobId": str(OPEN.id)}


@pytest.mark.parametrize("considered_for", [[], [OPEN], [OPEN, ANOTHER], [CLOSED]])
def test_none_is_guessed_where_none_is_needed(considered_for: Sequence[Job]) -> None:
    assert job_of(GENERIC, None, considered_for) is None


@each_about_a_job
def test_the_only_open_one_is_taken(focus: AgentFocus) -> None:
    assert job_of(focus, None, [CLOSED, OPEN]) == OPEN.id


@each_about_a_job
def test_several_open_ones_are_told_by_their_ids_alone(focus: AgentFocus) -> None:
    with pytest.raises(JobAmbiguous) as refused:
        job_of(focus, None, [OPEN, CLOSED, ANOTHER])
    assert refused.value.details == {"jobs": [{"id": str(OPEN.id)}, {"id": str(ANOTHER.id)}]}
    assert "jobId" in refused.value.message


@each_about_a_job
@pytest.mark.parametrize("considered_for", [[], [CLOSED]])
def test_no_open_one_is_none(focus: AgentFocus, considered_for: Sequence[Job]) -> None:
    with pytest.raises(JobRequired):
        job_of(focus, None, considered_for)

"""Jobs, for which candidates are considered."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Select, delete, null, select, update

from scheduler.domain.job import Job, JobStatus
from scheduler.domain.pagination import Listed, Slice
from scheduler.persistence.connection import Connection
from scheduler.persistence.many import insert_all
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import Store, Write
from scheduler.persistence.tables import assignments, jobs

_job = partial(from_row, Job)


def _add_all(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    insert_all(connection, jobs, rows)


_ADD = Write(execute=_add_all, turn=0)


class Jobs(Store):
    def add(self, job: Job, content_hash: bytes | None = None) -> None:
        self._connection.write(_ADD, job.id, as_columns(job, content_hash=content_hash))

    def get(self, company_id: UUID, job_id: UUID) -> Job | None:
        """Return the job, if it is this company's and not deleted."""
        return self._one(_job, _of_company(company_id).where(jobs.c.id == job_id))

    def lock(self, company_id: UUID, job_id: UUID) -> Job | None:
        """Lock the job, if it is this company's and not deleted."""
        query = _of_company(company_id).where(jobs.c.id == job_id).with_for_update(key_share=True)
        return self._one(_job, query)

    def lock_shared(self, company_id: UUID, job_ids: Sequence[UUID]) -> tuple[Job, ...]:
        """Lock the company's jobs among these, so that they are not deleted until we commit."""
        query = _of_company(company_id).where(jobs.c.id.in_(job_ids)).order_by(jobs.c.id).with_for_update(read=True)
        return tuple(self._all(_job, query))

    def of_candidate(self, company_id: UUID, candidate_id: UUID) -> tuple[Job, ...]:
        """Return the jobs of a candidate, oldest assignment first."""
        query = (
            _of_company(company_id)
            .join(assignments, assignments.c.job_id == jobs.c.id)
            .where(assignments.c.candidate_id == candidate_id)
            .order_by(assignments.c.created_at, jobs.c.id)
        )
        return tuple(self._all(_job, query))

    def titles(self, company_id: UUID, job_ids: Sequence[UUID]) -> dict[UUID, str | None]:
        """Return the titles of the company's jobs among these that were not deleted."""
        rows = self._connection.execute(
            _of_company(company_id).with_only_columns(jobs.c.id, jobs.c.title).where(jobs.c.id.in_(job_ids))
        )
        return {row.id: row.title for row in rows}

    def page(
        self, company_id: UUID, requested: Slice, *, status: JobStatus | None, external_id: str | None = None
    ) -> Listed[Job]:
        query = _of_company(company_id)
        if status is not None:
            query = query.where(jobs.c.status == status.value)
        if external_id is not None:
            query = query.where(jobs.c.external_id == external_id)
        return self._page(_job, query, jobs, requested)

    def save(self, job: Job) -> None:
        """Write the mutable fields of a job that the caller has locked."""
        changeable = as_columns(job, without={"id", "company_id", "created_at"})
        self._connection.execute(update(jobs).where(jobs.c.id == job.id).values(**changeable))

    def delete(self, job_id: UUID, now: datetime) -> None:
        """Delete the job's assignments, external id and texts and hide it. The row stays for its interviews."""
        self._connection.execute(delete(assignments).where(assignments.c.job_id == job_id))
        self._connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id)
            .values(
                title=null(),
                description=null(),
                external_id=null(),
                content_hash=null(),
                details={},
                metadata={},
                deleted_at=now,
                updated_at=now,
            )
        )


def _of_company(company_id: UUID) -> Select[tuple[object, ...]]:
    return select(jobs).where(jobs.c.company_id == company_id, jobs.c.deleted_at.is_(None))

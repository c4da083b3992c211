"""Jobs, for which candidates are considered."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, null, select, update

from scheduler.domain.job import Job, JobFilter
from scheduler.domain.pagination import KeysetPage, KeysetSlice, Listed, Slice, SortField
from scheduler.persistence.connection import Connection
from scheduler.persistence.keyset import Branch, KeysetStore, of_other_spans
from scheduler.persistence.many import among, insert_all
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import Write
from scheduler.persistence.tables import assignments, jobs

_job = partial(from_row, Job)


def _add_all(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    insert_all(connection, jobs, rows)


_ADD = Write(execute=_add_all, turn=0)


class Jobs(KeysetStore):
    def add(self, job: Job, content_hash: bytes | None = None) -> None:
        self._connection.write(_ADD, job.id, as_columns(job, content_hash=content_hash))

    def get(self, company_id: UUID, job_id: UUID) -> Job | None:
        """Return the job, if it is this company's and not deleted."""
        return self._one(_job, _of_company(company_id).where(jobs.c.id == job_id))

    def get_all(self, company_id: UUID, job_ids: Collection[UUID]) -> dict[UUID, Job]:
        """Return those of these jobs that `get` returns."""
        query = _of_company(company_id).where(among(jobs.c.id, list(job_ids)))
        return {job.id: job for job in self._all(_job, query)}

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

    def page(self, company_id: UUID, requested: Slice, only: JobFilter) -> Listed[Job]:
        """Return a numbered page of at most one status."""
        query = _of_company(company_id)
        for status in only.statuses:
            query = query.where(jobs.c.status == status.value)
        if only.external_id is not None:
            query = query.where(jobs.c.external_id == only.external_id)
        return self._page(_job, query, jobs, requested)

    def keyset_page(self, company_id: UUID, asked: KeysetSlice, only: JobFilter) -> KeysetPage[Job]:
        """Return a page of the same list, in any order."""
        j = jobs.c
        instants = ((SortField.CREATED_AT, j.created_at), (SortField.UPDATED_AT, j.updated_at))
        matches = [j.deleted_at.is_(None), *of_other_spans(asked.spans, asked.sort, instants)]
        if only.statuses:
            matches.append(among(j.status, [each.value for each in only.statuses]))
        at = dict(instants)[asked.sort.by]
        conditions: list[ColumnElement[bool]] = [j.company_id == company_id]
        if only.external_id is not None:
            # Both for the index, which leaves deleted jobs out.
            conditions += [j.external_id == only.external_id, j.deleted_at.is_(None)]

        def rows(ids: Sequence[UUID]) -> list[tuple[UUID, Job]]:
            query = _of_company(company_id).where(among(j.id, ids))
            return self._readable(jobs, lambda row: (row.id, _job(row)), query)

        return self._keyset_page(
            [Branch(id=j.id, at=at, conditions=conditions, matches=matches, is_narrow=only.external_id is not None)],
            asked,
            rows,
        )

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

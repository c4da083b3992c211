"""Candidates: the people who are called, and the jobs that they are considered for."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Row, Select, Uuid, cast, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import aggregate_order_by, array

from scheduler.domain.candidate import Candidate, CandidateStatus
from scheduler.domain.pagination import COUNTED_UP_TO, Listed, Slice
from scheduler.persistence.connection import Connection
from scheduler.persistence.many import insert_all
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import Store, Write
from scheduler.persistence.tables import assignments, candidates, interviews

_JOB_IDS = (
    select(
        func.coalesce(
            func.array_agg(aggregate_order_by(assignments.c.job_id, assignments.c.created_at, assignments.c.job_id)),
            cast(array([]), ARRAY(Uuid)),
        )
    )
    .where(assignments.c.candidate_id == candidates.c.id)
    .scalar_subquery()
    .label("job_ids")
)
_INTERVIEW_COUNT = (
    select(func.count())
    .where(interviews.c.candidate_id == candidates.c.id, interviews.c.deleted_at.is_(None))
    .scalar_subquery()
    .label("interview_count")
)
_NAME = candidates.c.first_name + " " + candidates.c.last_name
_FROM_OTHER_TABLES = frozenset({"job_ids", "interview_count"})


def _add_all(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    insert_all(connection, candidates, rows)


def _assign_all(connection: Connection, rows: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    of_all = [row for of_candidate in rows for row in of_candidate]
    insert_all(connection, assignments, of_all, "ON CONFLICT DO NOTHING")


_ADD = Write(execute=_add_all, turn=0)
# After `_ADD` and the jobs.
_ASSIGN = Write(execute=_assign_all, turn=1, merge=lambda first, second: (*first, *second))


_LOCK_ALL = text("""
    SELECT c.id FROM candidates c
    JOIN unnest(CAST(:companies AS uuid[]), CAST(:ids AS uuid[])) AS named (company_id, id)
      ON c.company_id = named.company_id AND c.id = named.id
    ORDER BY c.id
    FOR NO KEY UPDATE OF c
""")


class Candidates(Store):
    def add(self, candidate: Candidate, content_hash: bytes | None = None) -> None:
        row = as_columns(candidate, without=_FROM_OTHER_TABLES, content_hash=content_hash)
        self._connection.write(_ADD, candidate.id, row)
        self.assign(candidate, candidate.job_ids, candidate.created_at)

    def save(self, candidate: Candidate) -> None:
        """Write the mutable fields, except the jobs, of a candidate that the caller has locked."""
        changeable = as_columns(candidate, without={*_FROM_OTHER_TABLES, "id", "company_id", "created_at"})
        self._connection.execute(update(candidates).where(candidates.c.id == candidate.id).values(**changeable))

    def save_jobs(self, candidate: Candidate) -> None:
        """Replace the candidate's jobs by those in `candidate`. The caller has locked candidate and jobs."""
        self._connection.execute(
            delete(assignments).where(
                assignments.c.candidate_id == candidate.id, assignments.c.job_id.not_in(candidate.job_ids)
            )
        )
        self.assign(candidate, candidate.job_ids, candidate.updated_at)

    def assign(self, candidate: Candidate, job_ids: Sequence[UUID], now: datetime) -> None:
        """Assign the candidate to these jobs too. Existing assignments stay as they are."""
        if job_ids:
            of_candidate = {"candidate_id": candidate.id, "company_id": candidate.company_id, "created_at": now}
            new = tuple({**of_candidate, "job_id": job_id} for job_id in job_ids)
            self._connection.write(_ASSIGN, candidate.id, new)

    def get(self, company_id: UUID, candidate_id: UUID) -> Candidate | None:
        """Return the candidate, if it is this company's and not erased."""
        return self._one(_candidate, _of_company(company_id).where(candidates.c.id == candidate_id))

    def lock(self, company_id: UUID, candidate_id: UUID, *, shared: bool = False) -> Candidate | None:
        """Lock the candidate, if it is this company's and not erased.

        `shared`: other transactions may take a shared lock too, for example to create interviews with this person.
        """
        # Read in a second statement: the statement that waits for the lock would return the jobs as of before the wait.
        self._connection.execute(
            select(candidates.c.id)
            .where(candidates.c.company_id == company_id, candidates.c.id == candidate_id)
            .with_for_update(read=shared, key_share=not shared)
        )
        return self.get(company_id, candidate_id)

    def lock_all(self, named: Collection[tuple[UUID, UUID]]) -> None:
        """Lock candidates, named by company and id, in the order of their ids, as every transaction must."""
        if named:
            companies, ids = zip(*named, strict=True)
            self._connection.execute(_LOCK_ALL, {"companies": list(companies), "ids": list(ids)})

    def page(
        self,
        company_id: UUID,
        requested: Slice,
        *,
        job_id: UUID | None,
        status: CandidateStatus | None,
        search: str | None,
        external_id: str | None = None,
    ) -> Listed[Candidate]:
        """Return a page of the candidates. `search`: literal part of a name or e-mail address, in any case."""
        query = _of_company(company_id)
        if job_id is not None:
            assigned = select(assignments.c.candidate_id).where(assignments.c.job_id == job_id)
            query = query.where(candidates.c.id.in_(assigned))
        if status is not None:
            query = query.where(candidates.c.status == status.value)
        if external_id is not None:
            query = query.where(candidates.c.external_id == external_id)
        if search is None:
            return self._page(_candidate, query, candidates, requested)
        found = func.candidates_found(company_id, search, COUNTED_UP_TO + 1).column_valued("found")
        count = self._count(select(func.count(found)))
        if count > COUNTED_UP_TO:
            # So frequent that the newest candidates contain a page of them. For ILIKE, PostgreSQL would expect few, and
            # read and sort all candidates of the company.
            contains = (func.strpos(func.lower(each), func.lower(search)) > 0 for each in (_NAME, candidates.c.email))
            query = query.where(or_(*contains))
        else:
            query = query.where(candidates.c.id.in_(select(found)))
        is_narrowed = (job_id, status, external_id) != (None, None, None)
        return self._page(_candidate, query, candidates, requested, counted=None if is_narrowed else count)

    def erase(self, candidate_id: UUID, now: datetime) -> None:
        """Delete name, number, address, external id, metadata and assignments. The row stays for its interviews."""
        self._connection.execute(
            update(candidates)
            .where(candidates.c.id == candidate_id, candidates.c.erased_at.is_(None))
            .values(
                first_name=None,
                last_name=None,
                email=None,
                phone_number=None,
                timezone=None,
                external_id=None,
                content_hash=None,
                metadata={},
                erased_at=now,
                updated_at=now,
            )
        )
        self._connection.execute(delete(assignments).where(assignments.c.candidate_id == candidate_id))


def _of_company(company_id: UUID) -> Select[tuple[object, ...]]:
    return select(candidates, _JOB_IDS, _INTERVIEW_COUNT).where(
        candidates.c.company_id == company_id, candidates.c.erased_at.is_(None)
    )


def _candidate(row: Row[tuple[object, ...]]) -> Candidate:
    return from_row(Candidate, row, job_ids=tuple(row.job_ids))

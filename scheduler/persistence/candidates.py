"""Candidates: the people who are called, and the jobs that they are considered for."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Row,
    Select,
    Text,
    Uuid,
    any_,
    bindparam,
    cast,
    func,
    literal,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by, array

from scheduler.domain.interview import Candidate, CandidateFilter
from scheduler.domain.resource import COUNTED_UP_TO, KeysetPage, KeysetSlice, Listed, Slice, SortField
from scheduler.persistence.connection import Connection, Fixed, among, insert_all
from scheduler.persistence.json_columns import omitted_fields
from scheduler.persistence.keyset import NARROW, Branch, KeysetStore, has_row, of_other_spans
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import Write, insertion
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
_SHORTEST_INDEXED = 3
"""Letters of a text that the index of the search finds. A shorter one is compared with the rows of the list."""
LONGEST_PUT_OFF = timedelta(minutes=1)
"""Longer than any process puts off the interviews of an erased person."""
_FROM_OTHER_TABLES = frozenset({"job_ids", "interview_count"})

_LEAVING = select(candidates.c.id).where(
    candidates.c.leaving_at.is_not(None),
    or_(candidates.c.leaving_at <= bindparam("now"), candidates.c.leaving_at > bindparam("latest")),
)
"""Erased people whose interviews are to be cancelled now. An instant that a wrong clock wrote counts as due."""
_IS_ONE_LEAVING = Fixed(_LEAVING.limit(1))
_LOCK_LEAVING = Fixed(
    _LEAVING.order_by(candidates.c.leaving_at).limit(1).with_for_update(key_share=True, skip_locked=True)
)


def _assign_all(connection: Connection, rows: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    of_all = [row for of_candidate in rows for row in of_candidate]
    insert_all(connection, assignments, of_all, "ON CONFLICT DO NOTHING")


_ADD = insertion(candidates, turn=0)
# After `_ADD` and the jobs.
_ASSIGN = Write(execute=_assign_all, turn=1, merge=lambda first, second: (*first, *second))


_LOCK_FREE = text("""
    WITH free AS (
        SELECT c.id FROM candidates c
        JOIN unnest(CAST(:companies AS uuid[]), CAST(:ids AS uuid[])) AS named (company_id, id)
          ON c.company_id = named.company_id AND c.id = named.id
        ORDER BY c.id
        FOR NO KEY UPDATE OF c SKIP LOCKED
    )
    SELECT c.company_id, c.id FROM candidates c
    JOIN unnest(CAST(:companies AS uuid[]), CAST(:ids AS uuid[])) AS named (company_id, id)
      ON c.company_id = named.company_id AND c.id = named.id
    WHERE NOT EXISTS (SELECT FROM free WHERE free.id = c.id)
""")


class Candidates(KeysetStore):
    def add(self, candidate: Candidate, content_hash: bytes | None = None) -> None:
        row = as_columns(candidate, without=_FROM_OTHER_TABLES, content_hash=content_hash)
        self._connection.write(_ADD, candidate.id, row)
        self.assign(candidate, candidate.job_ids, candidate.created_at)

    def save(self, candidate: Candidate) -> None:
        """Write the mutable fields, except the jobs, of a candidate that the caller has locked."""
        changeable = as_columns(candidate, without={*_FROM_OTHER_TABLES, "id", "company_id", "created_at"})
        self._update(candidates, candidates.c.id == candidate.id, **changeable)

    def save_jobs(self, candidate: Candidate) -> None:
        """Replace the candidate's jobs by those in `candidate`. The caller has locked candidate and jobs."""
        self._delete(
            assignments, assignments.c.candidate_id == candidate.id, assignments.c.job_id.not_in(candidate.job_ids)
        )
        self.assign(candidate, candidate.job_ids, candidate.updated_at)

    def assign(self, candidate: Candidate, job_ids: Sequence[UUID], now: datetime) -> None:
        """Assign the candidate to these jobs too. Existing assignments stay as they are."""
        if job_ids:
            of_candidate = {"candidate_id": candidate.id, "company_id": candidate.company_id, "created_at": now}
            new = tuple({**of_candidate, "job_id": job_id} for job_id in job_ids)
            self._connection.write(_ASSIGN, candidate.id, new)

    def get(self, company_id: UUID, candidate_id: UUID) -> Candidate | None:
        """Find the candidate, if it is this company's and not erased."""
        return self._one(_candidate, _of_company(company_id).where(candidates.c.id == candidate_id))

    def get_all(self, company_id: UUID, candidate_ids: Collection[UUID]) -> dict[UUID, Candidate]:
        """Find several candidates as `get` does."""
        query = _of_company(company_id).where(among(candidates.c.id, list(candidate_ids)))
        return {candidate.id: candidate for candidate in self._all(_candidate, query)}

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

    def lock_kept(self, candidate_id: UUID) -> bool:
        """Return False if the person was erased. No other transaction erases the person before we commit."""
        kept = select(candidates.c.id).where(
            candidates.c.id == candidate_id,
            candidates.c.erased_at.is_(None),  # guard: note_of_the_erased
        )
        return self._is_any(kept.with_for_update(read=True))

    def lock_free(self, named: Collection[tuple[UUID, UUID]]) -> set[tuple[UUID, UUID]]:
        """Lock candidates, named by company and id, in the order of their ids, as every transaction must.

        Return the candidates that another transaction has locked, without waiting for them.
        """
        if not named:
            return set()
        companies, ids = zip(*named, strict=True)
        held = self._connection.execute(_LOCK_FREE, {"companies": list(companies), "ids": list(ids)})
        return {(row.company_id, row.id) for row in held}  # guard: held_candidate

    def page(
        self,
        company_id: UUID,
        requested: Slice,
        only: CandidateFilter,
    ) -> Listed[Candidate]:
        """Read a numbered page of at most one status."""
        query = _of_company(company_id)
        if only.job_id is not None:
            assigned = select(assignments.c.candidate_id).where(assignments.c.job_id == only.job_id)
            query = query.where(candidates.c.id.in_(assigned))
        for status in only.statuses:
            query = query.where(candidates.c.status == status.value)
        if only.external_id is not None:
            query = query.where(candidates.c.external_id == only.external_id)
        search = only.search
        if search is None:
            return self._page(_candidate, query, candidates, requested)
        found = func.candidates_found(company_id, search, COUNTED_UP_TO + 1).column_valued("found")
        counted = select(func.count(found).label("n"), cast(func.array_agg(found), Text).label("ids"))
        count, ids = self._connection.execute(counted).one()
        if count > COUNTED_UP_TO:
            # So frequent that the newest candidates contain a page of them. For ILIKE, PostgreSQL would expect few, and
            # read and sort all candidates of the company.
            query = query.where(_contains(search))
        else:
            # As an array of unknown length. If PostgreSQL knew that it is long, it might read the newest candidates up
            # to a page of these, which may be the oldest. For IN, it may compare each candidate with each id.
            query = query.where(candidates.c.id == any_(func.array(select(_unnested(ids)).scalar_subquery())))
        is_narrowed = only != CandidateFilter(search=search)
        return self._page(_candidate, query, candidates, requested, counted=None if is_narrowed else count)

    def keyset_page(self, company_id: UUID, asked: KeysetSlice, filters: CandidateFilter) -> KeysetPage[Candidate]:
        """Read a page of the same list, in any order."""
        c = candidates.c
        matches = [c.erased_at.is_(None), *of_other_spans(asked.spans, asked.sort, _INSTANTS)]
        if filters.job_id is not None:
            of_job = select(assignments.c.job_id).where(assignments.c.candidate_id == c.id)
            matches.append(has_row(of_job.where(assignments.c.job_id == filters.job_id).correlate(candidates)))
        if filters.search is not None:
            matches.append(_contains(filters.search))
        if filters.external_id is not None:
            matches.append(c.external_id == filters.external_id)
        of_company = c.company_id == company_id
        at = dict(_INSTANTS)[asked.sort.by]
        statuses = [each.value for each in sorted(filters.statuses)]
        named = self._named(company_id, filters)

        if statuses and (named is not None or asked.sort.by is SortField.UPDATED_AT):
            matches.append(among(c.status, statuses))
        if named is not None:
            conditions = [of_company, among(c.id, named)]
            branches = [Branch(id=c.id, at=at, conditions=conditions, matches=matches, is_narrow=True)]
        elif statuses and asked.sort.by is SortField.CREATED_AT:
            branches = [
                Branch(id=c.id, at=at, conditions=[of_company, c.status == each], matches=matches) for each in statuses
            ]
        else:
            branches = [Branch(id=c.id, at=at, conditions=[of_company], matches=matches)]
        return self._keyset_page(branches, asked, candidates, _candidate, _of_company(company_id))

    def _named(self, company_id: UUID, filters: CandidateFilter) -> list[UUID] | None:
        """Find the candidates of the external id, job or search. None: without one, or they are many."""
        if filters.external_id is not None:
            query = _of_company(company_id).where(candidates.c.external_id == filters.external_id)
            return list(self._connection.execute(query.with_only_columns(candidates.c.id)).scalars())
        if filters.job_id is not None:
            of_job = select(assignments.c.candidate_id).where(
                assignments.c.job_id == filters.job_id, assignments.c.company_id == company_id
            )
            ids = self._few(of_job)
            if ids is not None:
                return ids
        if filters.search is None or len(filters.search) < _SHORTEST_INDEXED:
            return None
        found = func.candidates_found(company_id, filters.search, NARROW + 1).column_valued("found")
        return self._few(select(found))

    def erase(self, candidate_id: UUID, now: datetime) -> None:
        """Delete the fields that stored answers omit, and the assignments. The row stays for its interviews."""
        self._update(
            candidates,
            candidates.c.id == candidate_id,
            candidates.c.erased_at.is_(None),
            **{
                **dict.fromkeys(omitted_fields(Candidate)),
                "metadata": {},
                "content_hash": None,
                "erased_at": now,
                "updated_at": now,
            },
        )
        self._delete(assignments, assignments.c.candidate_id == candidate_id)

    def lock_leaving(self, now: datetime) -> UUID | None:
        """Lock the erased person whose interviews have waited longest to be cancelled, of any company."""
        found = self._connection.execute(_LOCK_LEAVING, _leaving_at(now))
        candidate_id: UUID | None = found.scalar_one_or_none()
        return candidate_id

    def is_one_leaving(self, now: datetime) -> bool:
        """Return True if interviews of an erased person are to be cancelled now."""
        return self._is_any(_IS_ONE_LEAVING, _leaving_at(now))

    def note_leaving(self, candidate_id: UUID, leaving_at: datetime | None) -> None:
        """Set when the next interviews of an erased person may be cancelled. None: they are all cancelled."""
        self._update(candidates, candidates.c.id == candidate_id, leaving_at=leaving_at)


def _leaving_at(now: datetime) -> dict[str, datetime]:
    return {"now": now, "latest": now + LONGEST_PUT_OFF}


_INSTANTS = ((SortField.CREATED_AT, candidates.c.created_at), (SortField.UPDATED_AT, candidates.c.updated_at))


def _unnested(ids: str | None) -> ColumnElement[UUID]:
    """Unnest an array of ids that PostgreSQL has sent as text. Reading each of ten thousand would take long."""
    return func.unnest(cast(literal(ids or "{}", Text), ARRAY(Uuid)))


def _contains(search: str) -> ColumnElement[bool]:
    return or_(*(func.strpos(func.lower(each), func.lower(search)) > 0 for each in (_NAME, candidates.c.email)))


def _of_company(company_id: UUID) -> Select[tuple[object, ...]]:
    return select(candidates, _JOB_IDS, _INTERVIEW_COUNT).where(
        candidates.c.company_id == company_id, candidates.c.erased_at.is_(None)
    )


def _candidate(row: Row[tuple[object, ...]]) -> Candidate:
    return from_row(Candidate, row, job_ids=tuple(row.job_ids))

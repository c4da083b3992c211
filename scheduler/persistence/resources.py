"""Agents, the numbers that companies call from, jobs, and the external ids of all resources."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, Select, bindparam, null, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from scheduler.domain.interview import Agent, Job, JobFilter, PhoneNumber
from scheduler.domain.resource import (
    ExternalId,
    ExternalKind,
    Identified,
    KeysetPage,
    KeysetSlice,
    Listed,
    Slice,
    SortField,
)
from scheduler.persistence.connection import Fixed, among
from scheduler.persistence.keyset import Branch, KeysetStore, of_other_spans
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import Store, insertion
from scheduler.persistence.tables import agents, assignments, jobs, phone_numbers

_agent = partial(from_row, Agent)


_ADD_AGENT = insertion(agents, turn=0)


class Agents(Store):
    def add(self, agent: Agent) -> None:
        self._connection.write(_ADD_AGENT, agent.id, as_columns(agent, without={"caller_number"}))

    def get(self, company_id: UUID, agent_id: UUID) -> Agent | None:
        """Find the agent with its caller id, if it is this company's and not deleted."""
        return self._one(_agent, _GET, {"company_id": company_id, "id": agent_id})

    def get_all(self, company_id: UUID, agent_ids: Collection[UUID]) -> dict[UUID, Agent]:
        """Find several agents as `get` does."""
        query = _agents_of_company(company_id).where(among(agents.c.id, list(agent_ids)))
        return {agent.id: agent for agent in self._all(_agent, query)}

    def lock(self, company_id: UUID, agent_id: UUID) -> Agent | None:
        """Lock the agent, if it is this company's and not deleted."""
        query = _agents_of_company(company_id).where(agents.c.id == agent_id).with_for_update(key_share=True, of=agents)
        return self._one(_agent, query)

    def page(self, company_id: UUID, requested: Slice) -> Listed[Agent]:
        return self._page(_agent, _agents_of_company(company_id), agents, requested)

    def first(self, company_id: UUID) -> Agent | None:
        query = _agents_of_company(company_id).order_by(agents.c.created_at, agents.c.id).limit(1)
        return self._one(_agent, query)

    def save(self, agent: Agent) -> None:
        """Write the mutable fields of an agent that the caller has locked."""
        changeable = as_columns(agent, without={"id", "company_id", "caller_number", "created_at"})
        self._update(agents, agents.c.id == agent.id, **changeable)

    def delete(self, agent_id: UUID, now: datetime) -> None:
        """Delete the agent's texts and hide it. The row stays for its interviews."""
        self._update(agents, agents.c.id == agent_id, name="", details={}, metadata={}, deleted_at=now, updated_at=now)


def _agents_of_company(company_id: UUID | BindParameter[UUID]) -> Select[tuple[object, ...]]:
    return (
        select(agents, phone_numbers.c.number.label("caller_number"))
        .outerjoin(phone_numbers, phone_numbers.c.id == agents.c.phone_number_id)
        .where(agents.c.company_id == company_id, agents.c.deleted_at.is_(None))
    )


_GET = Fixed(_agents_of_company(bindparam("company_id")).where(agents.c.id == bindparam("id")))


# --- The numbers that companies call from


_phone_number = partial(from_row, PhoneNumber)


class PhoneNumbers(Store):
    def add(self, number_id: UUID, company_id: UUID, number: str, now: datetime) -> UUID:
        """Add the number to the company, unless it has it, and return its id."""
        self._connection.execute(
            upsert(phone_numbers)
            .values(id=number_id, company_id=company_id, number=number, created_at=now, updated_at=now)
            .on_conflict_do_nothing(index_elements=["company_id", "number"])
        )
        stored_id: UUID = self._connection.execute(
            select(phone_numbers.c.id).where(phone_numbers.c.company_id == company_id, phone_numbers.c.number == number)
        ).scalar_one()
        return stored_id

    def get(self, company_id: UUID, number_id: UUID) -> PhoneNumber | None:
        """Find the number, if it is this company's."""
        return self._one(_phone_number, _numbers_of_company(company_id).where(phone_numbers.c.id == number_id))

    def get_all(self, company_id: UUID, number_ids: Collection[UUID]) -> dict[UUID, PhoneNumber]:
        """Find several numbers as `get` does."""
        query = _numbers_of_company(company_id).where(among(phone_numbers.c.id, list(number_ids)))
        return {number.id: number for number in self._all(_phone_number, query)}

    def page(self, company_id: UUID, requested: Slice) -> Listed[PhoneNumber]:
        return self._page(_phone_number, _numbers_of_company(company_id), phone_numbers, requested)


def _numbers_of_company(company_id: UUID) -> Select[tuple[object, ...]]:
    return select(phone_numbers).where(phone_numbers.c.company_id == company_id)


# --- Jobs, for which candidates are considered


_job = partial(from_row, Job)


_ADD_JOB = insertion(jobs, turn=0)


class Jobs(KeysetStore):
    def add(self, job: Job, content_hash: bytes | None = None) -> None:
        self._connection.write(_ADD_JOB, job.id, as_columns(job, content_hash=content_hash))

    def get(self, company_id: UUID, job_id: UUID) -> Job | None:
        """Find the job, if it is this company's and not deleted."""
        return self._one(_job, _jobs_of_company(company_id).where(jobs.c.id == job_id))

    def get_all(self, company_id: UUID, job_ids: Collection[UUID]) -> dict[UUID, Job]:
        """Find several jobs as `get` does."""
        query = _jobs_of_company(company_id).where(among(jobs.c.id, list(job_ids)))
        return {job.id: job for job in self._all(_job, query)}

    def lock(self, company_id: UUID, job_id: UUID) -> Job | None:
        """Lock the job, if it is this company's and not deleted."""
        query = _jobs_of_company(company_id).where(jobs.c.id == job_id).with_for_update(key_share=True)
        return self._one(_job, query)

    def lock_shared(self, company_id: UUID, job_ids: Sequence[UUID]) -> tuple[Job, ...]:
        """Lock the company's jobs among these, so that they are not deleted until we commit."""
        query = (
            _jobs_of_company(company_id).where(jobs.c.id.in_(job_ids)).order_by(jobs.c.id).with_for_update(read=True)
        )
        return tuple(self._all(_job, query))

    def of_candidate(self, company_id: UUID, candidate_id: UUID) -> tuple[Job, ...]:
        """List the jobs of a candidate, oldest assignment first."""
        query = (
            _jobs_of_company(company_id)
            .join(assignments, assignments.c.job_id == jobs.c.id)
            .where(assignments.c.candidate_id == candidate_id)
            .order_by(assignments.c.created_at, jobs.c.id)
        )
        return tuple(self._all(_job, query))

    def titles(self, company_id: UUID, job_ids: Sequence[UUID]) -> dict[UUID, str | None]:
        """Read the titles of the company's jobs among these, without deleted ones."""
        rows = self._connection.execute(
            _jobs_of_company(company_id).with_only_columns(jobs.c.id, jobs.c.title).where(jobs.c.id.in_(job_ids))
        )
        return {row.id: row.title for row in rows}

    def page(self, company_id: UUID, requested: Slice, only: JobFilter) -> Listed[Job]:
        """Read a numbered page of at most one status."""
        query = _jobs_of_company(company_id)
        for status in only.statuses:
            query = query.where(jobs.c.status == status.value)
        if only.external_id is not None:
            query = query.where(jobs.c.external_id == only.external_id)
        return self._page(_job, query, jobs, requested)

    def keyset_page(self, company_id: UUID, asked: KeysetSlice, only: JobFilter) -> KeysetPage[Job]:
        """Read a page of the same list, in any order."""
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
        is_narrow = only.external_id is not None
        branch = Branch(id=j.id, at=at, conditions=conditions, matches=matches, is_narrow=is_narrow)
        return self._keyset_page([branch], asked, jobs, _job, _jobs_of_company(company_id))

    def save(self, job: Job) -> None:
        """Write the mutable fields of a job that the caller has locked."""
        changeable = as_columns(job, without={"id", "company_id", "created_at"})
        self._update(jobs, jobs.c.id == job.id, **changeable)

    def delete(self, job_id: UUID, now: datetime) -> None:
        """Delete the job's assignments, external id and texts and hide it. The row stays for its interviews."""
        self._delete(assignments, assignments.c.job_id == job_id)
        self._update(
            jobs,
            jobs.c.id == job_id,
            title=null(),
            description=null(),
            external_id=null(),
            content_hash=null(),
            details={},
            metadata={},
            deleted_at=now,
            updated_at=now,
        )


def _jobs_of_company(company_id: UUID) -> Select[tuple[object, ...]]:
    return select(jobs).where(jobs.c.company_id == company_id, jobs.c.deleted_at.is_(None))


# --- External ids: locks on them, and the resources that have them


# In the order of the keys, as every transaction must. Two ids with the same key only wait for each other.
_LOCK_ALL = text("""
    SELECT pg_advisory_xact_lock(key) FROM (
        SELECT DISTINCT hashtextextended(given.kind || ' ' || given.company_id || ' ' || given.external_id, 0) AS key
        FROM unnest(CAST(:kinds AS text[]), CAST(:companies AS uuid[]), CAST(:texts AS text[]))
            AS given (kind, company_id, external_id)
        ORDER BY key
    ) AS keys
""")
# Without the order of the keys, because it waits for none.
_LOCK_FREE = text("""
    SELECT keys.kind, keys.company_id, keys.external_id FROM (
        SELECT given.*, hashtextextended(given.kind || ' ' || given.company_id || ' ' || given.external_id, 0) AS key
        FROM unnest(CAST(:kinds AS text[]), CAST(:companies AS uuid[]), CAST(:texts AS text[]))
            AS given (kind, company_id, external_id)
    ) AS keys
    WHERE NOT pg_try_advisory_xact_lock(keys.key)
""")
_FIND_ALL = text("""
    WITH given AS (
        SELECT * FROM unnest(CAST(:kinds AS text[]), CAST(:companies AS uuid[]), CAST(:texts AS text[]))
            AS given (kind, company_id, external_id)
    )
    SELECT g.kind, g.company_id, g.external_id, i.id, i.content_hash FROM given g
    JOIN interviews i ON i.company_id = g.company_id AND i.external_id = g.external_id AND i.deleted_at IS NULL
    WHERE g.kind = 'interview'
    UNION ALL
    SELECT g.kind, g.company_id, g.external_id, c.id, c.content_hash FROM given g
    JOIN candidates c ON c.company_id = g.company_id AND c.external_id = g.external_id AND c.erased_at IS NULL
    WHERE g.kind = 'candidate'
    UNION ALL
    SELECT g.kind, g.company_id, g.external_id, j.id, j.content_hash FROM given g
    JOIN jobs j ON j.company_id = g.company_id AND j.external_id = g.external_id AND j.deleted_at IS NULL
    WHERE g.kind = 'job'
""")


class ExternalIds(Store):
    def lock_all(self, named: Collection[ExternalId]) -> None:
        """Lock external ids until we commit: no other transaction gives one of them to a resource.

        Called before any resource is locked, and before the resources with these ids are looked up. A statement that
        waits for a lock would return the rows as of before the wait.
        """
        self._connection.execute(_LOCK_ALL, _values(named))  # guard: external_lock

    def lock_free(self, named: Collection[ExternalId]) -> set[ExternalId]:
        """Lock external ids like `lock_all`, without waiting. Return the ids that another transaction has locked."""
        rows = self._connection.execute(_LOCK_FREE, _values(named))
        return {
            ExternalId(kind=ExternalKind(row.kind), company_id=row.company_id, text=row.external_id) for row in rows
        }

    def find_all(self, named: Collection[ExternalId]) -> Mapping[ExternalId, Identified]:
        """Find the present resources with these external ids."""
        rows = self._connection.execute(_FIND_ALL, _values(named))
        return {
            ExternalId(kind=ExternalKind(row.kind), company_id=row.company_id, text=row.external_id): Identified(
                id=row.id, content_hash=None if row.content_hash is None else bytes(row.content_hash)
            )
            for row in rows
        }


def _values(named: Collection[ExternalId]) -> Mapping[str, object]:
    return {
        "kinds": [each.kind.value for each in named],
        "companies": [each.company_id for each in named],
        "texts": [each.text for each in named],
    }

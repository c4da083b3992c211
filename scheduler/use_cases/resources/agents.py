"""Agents with their caller numbers, and jobs: create, list, change, delete."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from scheduler.domain.interview import Agent, AgentType, Job, JobFilter, NewAgent, NewJob, PhoneNumber
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import AgentNumberRequired
from scheduler.domain.resource import Changes, ExternalKind, KeysetPage, KeysetSlice, Listed, Slice
from scheduler.ids import new_id
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.rules.resources import changed
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites, WriteRequest, WriteResult
from scheduler.use_cases.shared import access
from scheduler.use_cases.shared.access import authorized_company, require


class Agents:
    """Methods raise AccessDenied, CompanyIdRequired, DatabaseAway. Writes add the errors of `IdempotentWrites.once`."""

    def __init__(self, database: Database, writes: IdempotentWrites) -> None:
        self._database = database
        self._writes = writes

    def get(self, principal: Principal, company_id: UUID | None, agent_id: UUID) -> Agent:
        """Raises NotFound."""
        with self._database.reading(principal) as stores:
            company = authorized_company(stores, principal, company_id)
            return require(stores.agents.get(company, agent_id), "agent", agent_id)

    def page(self, principal: Principal, company_id: UUID | None, requested: Slice) -> Listed[Agent]:
        with self._database.reading(principal) as stores:
            return stores.agents.page(authorized_company(stores, principal, company_id), requested)

    def numbers(self, principal: Principal, company_id: UUID | None, requested: Slice) -> Listed[PhoneNumber]:
        """List the numbers that the company calls from."""
        with self._database.reading(principal) as stores:
            return stores.phone_numbers.page(authorized_company(stores, principal, company_id), requested)

    def create(self, sent: WriteRequest, company_id: UUID | None, new: NewAgent) -> WriteResult:
        """Refused: AgentNumberRequired, NotFound for a phone number of another company."""
        return self._writes.of_company(
            sent, company_id, lambda stores, company, now: add_agent(stores, company, new, now)
        )

    def change(self, sent: WriteRequest, company_id: UUID | None, agent_id: UUID, changes: Changes) -> WriteResult:
        """Change an agent. Existing interviews keep its former values.

        Refused: NotFound for the agent or its phone number, AgentNumberRequired, MetadataTooLarge.
        """

        def write(stores: Stores, company: UUID, now: datetime) -> Agent:
            agent = replace(changed(_locked(stores, company, agent_id), changes), updated_at=now)
            agent = replace(agent, caller_number=_caller_number(stores, company, agent.type, agent.phone_number_id))
            stores.agents.save(agent)
            return agent

        return self._writes.of_company(sent, company_id, write)

    def delete(self, sent: WriteRequest, company_id: UUID | None, agent_id: UUID) -> WriteResult:
        """Delete an agent. Existing interviews go on. Refused: NotFound."""

        def write(stores: Stores, company: UUID, now: datetime) -> None:
            stores.agents.delete(_locked(stores, company, agent_id).id, now)

        return self._writes.of_company(sent, company_id, write)


def add_agent(stores: Stores, company_id: UUID, new: NewAgent, now: datetime) -> Agent:
    """Create an agent of the company. Raises AgentNumberRequired, NotFound."""
    caller = _caller_number(stores, company_id, new.type, new.phone_number_id)
    agent = Agent(
        id=new_id(now), company_id=company_id, caller_number=caller, created_at=now, updated_at=now, **vars(new)
    )
    stores.agents.add(agent)
    return agent


def _caller_number(stores: Stores, company_id: UUID, kind: AgentType, number_id: UUID | None) -> str | None:
    """Find the caller number of a phone agent, which must belong to its company."""
    if number_id is None:
        if kind is AgentType.PHONE:
            raise AgentNumberRequired
        return None
    return require(stores.phone_numbers.get(company_id, number_id), "phoneNumber", number_id).number


def _locked(stores: Stores, company_id: UUID, agent_id: UUID) -> Agent:
    return require(stores.agents.lock(company_id, agent_id), "agent", agent_id)


# --- Jobs: create, list, change, delete


class Jobs:
    """Methods raise AccessDenied, CompanyIdRequired, DatabaseAway. Writes add the errors of `IdempotentWrites.once`."""

    def __init__(self, database: Database, writes: IdempotentWrites) -> None:
        self._database = database
        self._writes = writes

    def get(self, principal: Principal, company_id: UUID | None, job_id: UUID) -> Job:
        """Raises NotFound."""
        with self._database.reading(principal) as stores:
            company = authorized_company(stores, principal, company_id)
            return require(stores.jobs.get(company, job_id), "job", job_id)

    def page(
        self,
        principal: Principal,
        company_id: UUID | None,
        asked: Slice | KeysetSlice,
        only: JobFilter,
    ) -> Listed[Job] | KeysetPage[Job]:
        """List jobs: a numbered page of at most one status, or a page by cursor."""
        with self._database.reading(principal) as stores:
            company = authorized_company(stores, principal, company_id)
            if isinstance(asked, KeysetSlice):
                return stores.jobs.keyset_page(company, asked, only)
            return stores.jobs.page(company, asked, only)

    def titles(self, principal: Principal, company_id: UUID | None, job_ids: Sequence[UUID]) -> dict[UUID, str | None]:
        """Read the titles of the existing jobs among `job_ids`."""
        with self._database.reading(principal) as stores:
            return stores.jobs.titles(authorized_company(stores, principal, company_id), job_ids)

    def create(self, sent: WriteRequest, company_id: UUID | None, new: NewJob) -> WriteResult:
        """Create a job, or return the one that was created with the same external id. Refused: ExternalIdReused."""

        def write(stores: Stores, company: UUID, now: datetime) -> Job | WriteResult:
            external_id = access.lock(stores, ExternalKind.JOB, company, new.external_id)
            known = access.find_same(stores, external_id, new)
            job = None if known is None else stores.jobs.get(company, known)
            return add_job(stores, company, new, now) if job is None else WriteResult(record=job, existed=True)

        return self._writes.of_company(sent, company_id, write)

    def change(self, sent: WriteRequest, company_id: UUID | None, job_id: UUID, changes: Changes) -> WriteResult:
        """Change a job. Refused: NotFound, MetadataTooLarge, ExternalIdReused."""

        def write(stores: Stores, company: UUID, now: datetime) -> Job:
            external_id = access.lock(stores, ExternalKind.JOB, company, changes.get("external_id"))
            job = replace(changed(_locked_job(stores, company, job_id), changes), updated_at=now)
            access.must_be_free(stores, external_id, job_id)
            stores.jobs.save(job)
            return job

        return self._writes.of_company(sent, company_id, write)

    def delete(self, sent: WriteRequest, company_id: UUID | None, job_id: UUID) -> WriteResult:
        """Delete a job and its assignments. Interviews about it stay unchanged. Refused: NotFound."""

        def write(stores: Stores, company: UUID, now: datetime) -> None:
            stores.jobs.delete(_locked_job(stores, company, job_id).id, now)

        return self._writes.of_company(sent, company_id, write)


def add_job(stores: Stores, company_id: UUID, new: NewJob, now: datetime) -> Job:
    """Create a job of the company."""
    job = Job(id=new_id(now), company_id=company_id, created_at=now, updated_at=now, **vars(new))
    stores.jobs.add(job, access.content_hash(new))
    return job


def _locked_job(stores: Stores, company_id: UUID, job_id: UUID) -> Job:
    return require(stores.jobs.lock(company_id, job_id), "job", job_id)

"""Agents and their caller numbers: create, list, change, delete."""

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from scheduler.domain.agent import Agent, AgentType, NewAgent, PhoneNumber
from scheduler.domain.pagination import Listed, Slice
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import AgentNumberRequired
from scheduler.domain.resource import Changes
from scheduler.ids import new_id
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.rules.resource_changes import changed
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites, WriteRequest, WriteResult, of_company
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
        return self._writes.once(
            sent,
            of_company(sent.principal, company_id),
            lambda stores, company, now: add_agent(stores, company, new, now),
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

        return self._writes.once(sent, of_company(sent.principal, company_id), write)

    def delete(self, sent: WriteRequest, company_id: UUID | None, agent_id: UUID) -> WriteResult:
        """Delete an agent. Existing interviews go on. Refused: NotFound."""

        def write(stores: Stores, company: UUID, now: datetime) -> None:
            stores.agents.delete(_locked(stores, company, agent_id).id, now)

        return self._writes.once(sent, of_company(sent.principal, company_id), write)


def add_agent(stores: Stores, company_id: UUID, new: NewAgent, now: datetime) -> Agent:
    """Create an agent of the company. Raises AgentNumberRequired, NotFound."""
    caller = _caller_number(stores, company_id, new.type, new.phone_number_id)
    agent = Agent(
        id=new_id(now), company_id=company_id, caller_number=caller, created_at=now, updated_at=now, **vars(new)
    )
    stores.agents.add(agent)
    return agent


def _caller_number(stores: Stores, company_id: UUID, kind: AgentType, number_id: UUID | None) -> str | None:
    """Return the caller number of a phone agent, which must belong to its company."""
    if number_id is None:
        if kind is AgentType.PHONE:
            raise AgentNumberRequired
        return None
    return require(stores.phone_numbers.get(company_id, number_id), "phoneNumber", number_id).number


def _locked(stores: Stores, company_id: UUID, agent_id: UUID) -> Agent:
    return require(stores.agents.lock(company_id, agent_id), "agent", agent_id)

"""One command while it is being applied, and the rows that commands of one transaction share."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from scheduler.domain.agent import Agent
from scheduler.domain.command import Command
from scheduler.domain.company import Company
from scheduler.persistence.stores import Stores


class SharedReads:
    """Companies and agents, each read once in a transaction, and the candidates that its commands have named.

    No command changes a company or agent that another one may name. So they are read without sending gathered writes.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._companies: dict[UUID, Company | None] = {}
        self._agents: dict[tuple[UUID, UUID], Agent | None] = {}
        self._candidates: set[UUID] = set()

    def company(self, company_id: UUID) -> Company | None:
        if company_id not in self._companies:
            with self._stores.connection.beside():
                self._companies[company_id] = self._stores.companies.get(company_id)
        return self._companies[company_id]

    def agent(self, company_id: UUID, agent_id: UUID) -> Agent | None:
        key = company_id, agent_id
        if key not in self._agents:
            with self._stores.connection.beside():
                self._agents[key] = self._stores.agents.get(company_id, agent_id)
        return self._agents[key]

    def is_first_of(self, candidate_id: UUID) -> bool:
        """Return True the first time that a command of this transaction names the candidate."""
        is_first = candidate_id not in self._candidates
        self._candidates.add(candidate_id)
        return is_first


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One command while it is being applied."""

    stores: Stores
    reads: SharedReads
    command: Command
    now: datetime
    operator: str | None = None
    """The actor of a command that an operator has given."""

    @property
    def company_id(self) -> UUID:
        """The company, which every command that a worker applies has."""
        assert self.command.company_id is not None
        return self.command.company_id

    @property
    def actor(self) -> str:
        return self.operator or f"key:{self.command.key_id or self.command.principal_id}"

    @property
    def requested_at(self) -> datetime:
        """The time of receipt. Requested times are judged as of this instant."""
        return self.command.received_at

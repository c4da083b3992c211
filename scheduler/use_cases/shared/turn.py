"""One command while it is being applied, and the rows that commands of one transaction share."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from scheduler.domain.command import Command
from scheduler.domain.company import Company
from scheduler.domain.interview import Agent
from scheduler.domain.refusals import AccessDenied
from scheduler.domain.resource import ExternalId, ExternalKind, Identified
from scheduler.persistence.stores import Stores

CandidatesOf: TypeAlias = Callable[[Sequence[Command]], set[tuple[UUID, UUID]]]
"""Returns company and id of each candidate that new interviews name by id."""


class SharedReads:
    """Companies and agents, each read once in a transaction, and the candidates that its commands have named.

    No command changes a company or agent that another one may name. So they are read without sending gathered writes.
    The external ids of all commands are locked and looked up together, before any other row is locked.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._companies: dict[UUID, Company | None] = {}
        self._agents: dict[tuple[UUID, UUID], Agent | None] = {}
        self._candidates: set[UUID] = set()
        self._identified: Mapping[ExternalId, Identified] = {}
        self._external_ids: set[ExternalId] = set()
        """External ids that a command of this transaction has asked for."""

    def lock_external_ids(self, commands: Sequence[Command]) -> None:
        """Lock and look up the external ids in the bodies of these commands. Without such ids it sends nothing."""
        self.lock_named({each for command in commands for each in _external_ids_in(command)})

    def held(self, commands: Sequence[Command], candidates_of: CandidatesOf) -> frozenset[int]:
        """Lock the external ids and the candidates that new interviews name, except what others have locked.

        Return the places of the commands that cannot be applied before another transaction ends. Nothing waits.
        """
        named = {each for command in commands for each in _external_ids_in(command)}
        held_ids: set[ExternalId] = set()
        if named:
            held_ids = self._stores.external_ids.lock_free(named)  # guard: held_external_id
            self._identified = self._stores.external_ids.find_all(named)
        held_candidates = self._stores.candidates.lock_free(candidates_of(commands) | self.candidates_found)
        return frozenset(
            place
            for place, command in enumerate(commands)
            if held_ids.intersection(_external_ids_in(command))
            or held_candidates & (candidates_of([command]) | self._candidates_of(command))
        )

    def _candidates_of(self, command: Command) -> set[tuple[UUID, UUID]]:
        """List company and id of the candidate that the command names by an external id."""
        found = {each: self._identified.get(each) for each in _external_ids_in(command)}
        return {
            (key.company_id, each.id)
            for key, each in found.items()
            if each is not None and key.kind is ExternalKind.CANDIDATE
        }

    def lock_named(self, named: Collection[ExternalId]) -> None:
        """Lock and look up these external ids."""
        if named:
            self._stores.external_ids.lock_all(named)
            self._identified = self._stores.external_ids.find_all(named)

    @property
    def candidates_found(self) -> set[tuple[UUID, UUID]]:
        """Company and id of each candidate that a command names by an external id."""
        found = self._identified.items()
        return {(key.company_id, each.id) for key, each in found if key.kind is ExternalKind.CANDIDATE}

    def identified(self, external_id: ExternalId) -> Identified | None:
        """Find the resource that has this external id, which `lock_external_ids` has locked."""
        if external_id in self._external_ids:
            # An earlier command of this transaction may have created it. This sends its gathered writes first.
            return self._stores.external_ids.find_all([external_id]).get(external_id)
        self._external_ids.add(external_id)
        return self._identified.get(external_id)

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


def _external_ids_in(command: Command) -> Iterator[ExternalId]:
    if command.body is None or command.company_id is None:
        return
    parts = {
        ExternalKind.INTERVIEW: command.body,
        ExternalKind.CANDIDATE: command.body.get("candidate"),
        ExternalKind.JOB: command.body.get("job"),
    }
    for kind, part in parts.items():
        if part and part.get("external_id") is not None:
            yield ExternalId(kind=kind, company_id=command.company_id, text=part["external_id"])


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

    def company(self) -> Company:
        """Read the company, which is read once. Raises AccessDenied if it was deleted after the acceptance."""
        company = self.reads.company(self.company_id)
        if company is None:
            raise AccessDenied
        return company

    @property
    def actor(self) -> str:
        return self.operator or f"key:{self.command.key_id or self.command.principal_id}"

    @property
    def requested_at(self) -> datetime:
        """The time of receipt. Requested times are judged as of this instant."""
        return self.command.received_at


def named_candidates(commands: Sequence[Command]) -> set[tuple[UUID, UUID]]:
    """List company and id of each candidate that a command names."""
    named = {(each.company_id, each.body.get("candidate_id")) for each in commands if each.body}
    return {(company_id, UUID(candidate_id)) for company_id, candidate_id in named if company_id and candidate_id}

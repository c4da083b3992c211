"""The stores of a dry run: they read the rows that many requests name together, and keep what is added in memory."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from scheduler.domain.command import CreateInterview
from scheduler.domain.interview import Agent, Candidate, Interview, Job, PhoneNumber
from scheduler.domain.resource import ExternalId, ExternalKind, Identified
from scheduler.persistence.candidates import Candidates
from scheduler.persistence.interviews import Interviews
from scheduler.persistence.resources import Agents, ExternalIds, Jobs, PhoneNumbers
from scheduler.persistence.store import Store
from scheduler.persistence.stores import Stores

K = TypeVar("K")
V = TypeVar("V")


@dataclass(kw_only=True)
class KnownRows:
    """The rows of one company that requests have named, and the resources that earlier requests would have created."""

    company_id: UUID
    agents: dict[UUID, Agent] = field(default_factory=dict)
    numbers: dict[UUID, PhoneNumber] = field(default_factory=dict)
    candidates: dict[UUID, Candidate] = field(default_factory=dict)
    jobs: dict[UUID, Job] = field(default_factory=dict)
    identified: dict[ExternalId, Identified] = field(default_factory=dict)
    open_of: dict[UUID, bool] = field(default_factory=dict)
    """By candidate: True if an interview is open."""
    _looked_up: set[object] = field(default_factory=set)
    """Ids and external ids, also of missing rows."""
    _undo: list[Callable[[], object]] = field(default_factory=list)

    def set(self, rows: dict[K, V], key: K, row: V) -> None:
        """Keep a row that the present request adds or changes."""
        if key in rows:
            before = rows[key]
            self._undo.append(lambda: rows.update({key: before}))
        else:
            self._undo.append(lambda: rows.pop(key, None))
        rows[key] = row

    def accept(self) -> None:
        """Keep what the present request has added."""
        self._undo.clear()

    def refuse(self) -> None:
        """Forget what the present request has added."""
        while self._undo:
            self._undo.pop()()

    def load(self, stores: Stores, requests: Sequence[CreateInterview]) -> None:
        """Read the rows that these requests name, in a constant number of statements. Each row is read once."""
        external_ids = self._new({each for request in requests for each in self.external_ids_of(request)})
        if external_ids:
            self.identified.update(stores.external_ids.find_all(external_ids))
        found = {
            kind: [self.identified[each].id for each in external_ids if each.kind is kind and each in self.identified]
            for kind in ExternalKind
        }
        candidates = self._new({*found[ExternalKind.CANDIDATE], *(each.candidate_id for each in requests)})
        if candidates:
            self.candidates.update(stores.candidates.get_all(self.company_id, candidates))
            self.open_of.update(dict.fromkeys(stores.interviews.open_of_candidates(candidates), True))
        named = {job_id for each in requests if each.candidate is not None for job_id in each.candidate.job_ids}
        assigned = {
            job_id for each in candidates if each in self.candidates for job_id in self.candidates[each].job_ids
        }
        jobs = self._new({*found[ExternalKind.JOB], *(each.job_id for each in requests), *named, *assigned})
        if jobs:
            self.jobs.update(stores.jobs.get_all(self.company_id, jobs))
        if agents := self._new({each.agent_id for each in requests}):
            self.agents.update(stores.agents.get_all(self.company_id, agents))
        if numbers := self._new({None if each.agent is None else each.agent.phone_number_id for each in requests}):
            self.numbers.update(stores.phone_numbers.get_all(self.company_id, numbers))

    def external_ids_of(self, request: CreateInterview) -> Collection[ExternalId]:
        parts: Mapping[ExternalKind, Any] = {
            ExternalKind.INTERVIEW: request,
            ExternalKind.CANDIDATE: request.candidate,
            ExternalKind.JOB: request.job,
        }
        return [
            ExternalId(kind=kind, company_id=self.company_id, text=part.external_id)
            for kind, part in parts.items()
            if part is not None and part.external_id is not None
        ]

    def identify(self, kind: ExternalKind, text: str | None, resource_id: UUID, content_hash: bytes | None) -> None:
        """Keep the external id of a resource that the present request adds."""
        if text is not None:
            key = ExternalId(kind=kind, company_id=self.company_id, text=text)
            self.set(self.identified, key, Identified(id=resource_id, content_hash=content_hash))

    def _new(self, keys: Collection[K | None]) -> list[K]:
        """Find the keys that were not looked up before."""
        new = [each for each in keys if each is not None and each not in self._looked_up]
        self._looked_up.update(new)
        return new


def without_writes(stores: Stores, known: KnownRows) -> Stores:
    """Let the stores of a reading transaction answer from the known rows, and add to them.

    Only methods that a new interview needs. Every other write is refused by PostgreSQL.
    """
    stores.agents = _Agents(stores, known)
    stores.candidates = _Candidates(stores, known)
    stores.external_ids = _ExternalIds(stores, known)
    stores.interviews = _Interviews(stores, known)
    stores.jobs = _Jobs(stores, known)
    stores.phone_numbers = _PhoneNumbers(stores, known)
    return stores


class _KnownStore(Store):
    """The base of these stores."""

    def __init__(self, stores: Stores, known: KnownRows) -> None:
        super().__init__(stores.connection)
        self._known = known


class _Agents(_KnownStore, Agents):
    def add(self, agent: Agent) -> None:
        self._known.set(self._known.agents, agent.id, agent)

    def get(self, company_id: UUID, agent_id: UUID) -> Agent | None:
        agent = self._known.agents.get(agent_id)
        return agent if agent is not None and agent.company_id == company_id else None


class _Candidates(_KnownStore, Candidates):
    def add(self, candidate: Candidate, content_hash: bytes | None = None) -> None:
        self._known.set(self._known.candidates, candidate.id, candidate)
        self._known.identify(ExternalKind.CANDIDATE, candidate.external_id, candidate.id, content_hash)

    def assign(self, candidate: Candidate, job_ids: Sequence[UUID], now: datetime) -> None:
        del now  # ids order the new assignments
        present = self._known.candidates[candidate.id]
        new = sorted(set(job_ids).difference(present.job_ids))
        if new:
            self._known.set(self._known.candidates, candidate.id, replace(present, job_ids=(*present.job_ids, *new)))

    def lock(self, company_id: UUID, candidate_id: UUID, *, shared: bool = False) -> Candidate | None:
        del shared  # nothing is locked
        candidate = self._known.candidates.get(candidate_id)
        return candidate if candidate is not None and candidate.company_id == company_id else None


class _ExternalIds(_KnownStore, ExternalIds):
    def lock_all(self, named: Collection[ExternalId]) -> None:
        """Lock nothing: a dry run promises nothing about later requests."""

    def find_all(self, named: Collection[ExternalId]) -> Mapping[ExternalId, Identified]:
        return {each: self._known.identified[each] for each in named if each in self._known.identified}


class _Interviews(_KnownStore, Interviews):
    def add(self, interview: Interview, content_hash: bytes | None = None) -> None:
        self._known.identify(ExternalKind.INTERVIEW, interview.external_id, interview.id, content_hash)
        if not interview.is_test:
            self._known.set(self._known.open_of, interview.candidate_id, True)

    def open_of_candidate(self, candidate_id: UUID) -> bool:
        return self._known.open_of.get(candidate_id, False)


class _Jobs(_KnownStore, Jobs):
    def add(self, job: Job, content_hash: bytes | None = None) -> None:
        self._known.set(self._known.jobs, job.id, job)
        self._known.identify(ExternalKind.JOB, job.external_id, job.id, content_hash)

    def lock_shared(self, company_id: UUID, job_ids: Sequence[UUID]) -> tuple[Job, ...]:
        return self._those(company_id, sorted(set(job_ids)))

    def of_candidate(self, company_id: UUID, candidate_id: UUID) -> tuple[Job, ...]:
        return self._those(company_id, self._known.candidates[candidate_id].job_ids)

    def _those(self, company_id: UUID, job_ids: Sequence[UUID]) -> tuple[Job, ...]:
        found = [self._known.jobs[each] for each in job_ids if each in self._known.jobs]
        return tuple(each for each in found if each.company_id == company_id)


class _PhoneNumbers(_KnownStore, PhoneNumbers):
    def get(self, company_id: UUID, number_id: UUID) -> PhoneNumber | None:
        number = self._known.numbers.get(number_id)
        return number if number is not None and number.company_id == company_id else None

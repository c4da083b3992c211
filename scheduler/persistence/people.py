"""Candidates, the agents that talk to them, and the numbers that they are called from."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from scheduler.domain.agent import Agent, AgentFocus, AgentType
from scheduler.domain.candidate import Candidate
from scheduler.persistence.tables import agents, candidates, phone_numbers


class Candidates:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, candidate: Candidate) -> None:
        self._connection.execute(
            insert(candidates).values(
                id=candidate.id,
                company_id=candidate.company_id,
                first_name=candidate.first_name,
                last_name=candidate.last_name,
                email=candidate.email,
                phone_number=candidate.phone_number,
                timezone=candidate.timezone,
                gdpr_expiry_date=candidate.gdpr_expiry_date,
                created_at=candidate.created_at,
                updated_at=candidate.updated_at,
            )
        )

    def get(self, company_id: UUID, candidate_id: UUID) -> Candidate | None:
        """The candidate, if it is this company's and not erased."""
        row = self._connection.execute(
            select(candidates).where(
                candidates.c.id == candidate_id,
                candidates.c.company_id == company_id,
                candidates.c.erased_at.is_(None),
            )
        ).one_or_none()
        return _candidate(row) if row else None

    def lock(self, company_id: UUID, candidate_id: UUID, *, shared: bool = False) -> Candidate | None:
        """The candidate, if it is this company's and not erased; nobody else may change it until we commit.

        `shared`: others may lock it so too, as those do who make an interview with this person.
        """
        row = self._connection.execute(
            select(candidates)
            .where(
                candidates.c.id == candidate_id,
                candidates.c.company_id == company_id,
                candidates.c.erased_at.is_(None),
            )
            .with_for_update(read=shared, key_share=not shared)
        ).one_or_none()
        return _candidate(row) if row else None

    def set_reach(self, candidate_id: UUID, phone_number: str | None, timezone: str | None, now: datetime) -> None:
        """Where and on whose clock this person is reached from now on."""
        self._connection.execute(
            update(candidates)
            .where(candidates.c.id == candidate_id)
            .values(phone_number=phone_number, timezone=timezone, updated_at=now)
        )

    def erase(self, candidate_id: UUID, now: datetime) -> None:
        """Name, number, address and metadata are gone; the row stays for what points at it."""
        self._connection.execute(
            update(candidates)
            .where(candidates.c.id == candidate_id, candidates.c.erased_at.is_(None))
            .values(
                first_name=None,
                last_name=None,
                email=None,
                phone_number=None,
                timezone=None,
                metadata={},
                erased_at=now,
                updated_at=now,
            )
        )


class Agents:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, agent: Agent, phone_number_id: UUID | None) -> None:
        self._connection.execute(
            insert(agents).values(
                id=agent.id,
                company_id=agent.company_id,
                name=agent.name,
                type=agent.type.value,
                focus=agent.focus.value,
                language=agent.language,
                duration=agent.duration,
                phone_number_id=phone_number_id,
                created_at=agent.created_at,
                updated_at=agent.updated_at,
            )
        )

    def get(self, company_id: UUID, agent_id: UUID) -> Agent | None:
        """The agent with its caller id, if it is this company's."""
        row = self._one(agents.c.id == agent_id, agents.c.company_id == company_id)
        return _agent(row) if row else None

    def first(self, company_id: UUID) -> Agent | None:
        row = self._one(agents.c.company_id == company_id)
        return _agent(row) if row else None

    def _one(self, *conditions: object) -> Row[tuple[object, ...]] | None:
        return self._connection.execute(
            select(agents, phone_numbers.c.number.label("caller_number"))
            .outerjoin(phone_numbers, phone_numbers.c.id == agents.c.phone_number_id)
            .where(agents.c.deleted_at.is_(None), *conditions)  # type: ignore[arg-type]
            .order_by(agents.c.created_at)
            .limit(1)
        ).one_or_none()


class PhoneNumbers:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, number_id: UUID, company_id: UUID, number: str, now: datetime) -> UUID:
        """The id of the company's number; the one that it has, when it has that number."""
        self._connection.execute(
            upsert(phone_numbers)
            .values(id=number_id, company_id=company_id, number=number, created_at=now, updated_at=now)
            .on_conflict_do_nothing(index_elements=["company_id", "number"])
        )
        found: UUID = self._connection.execute(
            select(phone_numbers.c.id).where(phone_numbers.c.company_id == company_id, phone_numbers.c.number == number)
        ).scalar_one()
        return found

    def first(self, company_id: UUID) -> UUID | None:
        found: UUID | None = self._connection.execute(
            select(phone_numbers.c.id)
            .where(phone_numbers.c.company_id == company_id)
            .order_by(phone_numbers.c.created_at)
            .limit(1)
        ).scalar_one_or_none()
        return found


def _candidate(row: Row[tuple[object, ...]]) -> Candidate:
    return Candidate(
        id=row.id,
        company_id=row.company_id,
        first_name=row.first_name,
        last_name=row.last_name,
        email=row.email,
        phone_number=row.phone_number,
        timezone=row.timezone,
        gdpr_expiry_date=row.gdpr_expiry_date,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _agent(row: Row[tuple[object, ...]]) -> Agent:
    return Agent(
        id=row.id,
        company_id=row.company_id,
        name=row.name,
        type=AgentType(row.type),
        focus=AgentFocus(row.focus),
        language=row.language,
        duration=row.duration,
        caller_number=row.caller_number,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )

"""Agents, and the numbers that companies call from."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Select, bindparam, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from scheduler.domain.interview import Agent, PhoneNumber
from scheduler.domain.resource import Listed, Slice
from scheduler.persistence.connection import Connection, Fixed
from scheduler.persistence.many import among, insert_all
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import Store, Write
from scheduler.persistence.tables import agents, phone_numbers

_agent = partial(from_row, Agent)


def _add_all(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    insert_all(connection, agents, rows)


_ADD = Write(execute=_add_all, turn=0)


class Agents(Store):
    def add(self, agent: Agent) -> None:
        self._connection.write(_ADD, agent.id, as_columns(agent, without={"caller_number"}))

    def get(self, company_id: UUID, agent_id: UUID) -> Agent | None:
        """Find the agent with its caller id, if it is this company's and not deleted."""
        return self._one(_agent, _GET, {"company_id": company_id, "id": agent_id})

    def get_all(self, company_id: UUID, agent_ids: Collection[UUID]) -> dict[UUID, Agent]:
        """Find several agents as `get` does."""
        query = _of_company(company_id).where(among(agents.c.id, list(agent_ids)))
        return {agent.id: agent for agent in self._all(_agent, query)}

    def lock(self, company_id: UUID, agent_id: UUID) -> Agent | None:
        """Lock the agent, if it is this company's and not deleted."""
        query = _of_company(company_id).where(agents.c.id == agent_id).with_for_update(key_share=True, of=agents)
        return self._one(_agent, query)

    def page(self, company_id: UUID, requested: Slice) -> Listed[Agent]:
        return self._page(_agent, _of_company(company_id), agents, requested)

    def first(self, company_id: UUID) -> Agent | None:
        query = _of_company(company_id).order_by(agents.c.created_at, agents.c.id).limit(1)
        return self._one(_agent, query)

    def save(self, agent: Agent) -> None:
        """Write the mutable fields of an agent that the caller has locked."""
        changeable = as_columns(agent, without={"id", "company_id", "caller_number", "created_at"})
        self._connection.execute(update(agents).where(agents.c.id == agent.id).values(**changeable))

    def delete(self, agent_id: UUID, now: datetime) -> None:
        """Delete the agent's texts and hide it. The row stays for its interviews."""
        self._connection.execute(
            update(agents)
            .where(agents.c.id == agent_id)
            .values(name="", details={}, metadata={}, deleted_at=now, updated_at=now)
        )


def _of_company(company_id: UUID | BindParameter[UUID]) -> Select[tuple[object, ...]]:
    return (
        select(agents, phone_numbers.c.number.label("caller_number"))
        .outerjoin(phone_numbers, phone_numbers.c.id == agents.c.phone_number_id)
        .where(agents.c.company_id == company_id, agents.c.deleted_at.is_(None))
    )


_GET = Fixed(_of_company(bindparam("company_id")).where(agents.c.id == bindparam("id")))


# --- The numbers that companies call from


_phone_number = partial(from_row, PhoneNumber)


@dataclass(frozen=True, kw_only=True)
class NumberHeading:
    """A company's number without its digits."""

    id: UUID
    number_type: str
    provider: str
    status: str
    capabilities: str
    custom: bool
    created_at: datetime


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

    def headings(self, company_id: UUID, limit: int) -> Sequence[NumberHeading]:
        """List a company's numbers without their digits, oldest first."""
        columns = (phone_numbers.c[name] for name in NumberHeading.__dataclass_fields__)
        query = select(*columns).where(phone_numbers.c.company_id == company_id).order_by(phone_numbers.c.created_at)
        return self._all(partial(from_row, NumberHeading), query.limit(limit))

    def first(self, company_id: UUID) -> UUID | None:
        number_id: UUID | None = self._connection.execute(
            select(phone_numbers.c.id)
            .where(phone_numbers.c.company_id == company_id)
            .order_by(phone_numbers.c.created_at)
            .limit(1)
        ).scalar_one_or_none()
        return number_id


def _numbers_of_company(company_id: UUID) -> Select[tuple[object, ...]]:
    return select(phone_numbers).where(phone_numbers.c.company_id == company_id)

"""The numbers that companies call from."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.dialects.postgresql import insert as upsert

from scheduler.domain.agent import PhoneNumber
from scheduler.domain.pagination import Listed, Slice
from scheduler.persistence.many import among
from scheduler.persistence.rows import from_row
from scheduler.persistence.store import Store
from scheduler.persistence.tables import phone_numbers

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
        """Return the number, if it is this company's."""
        return self._one(_phone_number, _of_company(company_id).where(phone_numbers.c.id == number_id))

    def get_all(self, company_id: UUID, number_ids: Collection[UUID]) -> dict[UUID, PhoneNumber]:
        """Return those of these numbers that are this company's."""
        query = _of_company(company_id).where(among(phone_numbers.c.id, list(number_ids)))
        return {number.id: number for number in self._all(_phone_number, query)}

    def page(self, company_id: UUID, requested: Slice) -> Listed[PhoneNumber]:
        return self._page(_phone_number, _of_company(company_id), phone_numbers, requested)

    def headings(self, company_id: UUID, limit: int) -> Sequence[NumberHeading]:
        """Return a company's numbers without their digits, oldest first."""
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


def _of_company(company_id: UUID) -> Select[tuple[object, ...]]:
    return select(phone_numbers).where(phone_numbers.c.company_id == company_id)

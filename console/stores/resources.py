"""Resources of any company, in the columns that operators may read: without persons, and without texts of clients."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Table, and_, func, select

from scheduler.domain.batch import Batch, BatchFilter
from scheduler.domain.company import BillingSystem, CompanySettings
from scheduler.domain.interview import InterviewStatus
from scheduler.domain.refusals import Refused
from scheduler.domain.resource import COUNTED_UP_TO, KeysetPage, KeysetSlice
from scheduler.persistence.batches import COLUMNS as COLUMNS_OF_A_BATCH
from scheduler.persistence.json_columns import settings_of
from scheduler.persistence.keyset import Branch, KeysetStore
from scheduler.persistence.rows import AnyRow, from_row
from scheduler.persistence.tables import batches, caller_days, companies, inbox, interviews, phone_numbers


@dataclass(frozen=True, kw_only=True)
class CompanyHeading:
    """The name and the pace of a company in a list."""

    id: UUID
    name: str
    calls_per_second: Decimal
    paused_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class OperatedCompany:
    """A company without its owner."""

    id: UUID
    name: str
    settings: CompanySettings | None
    """None: another version wrote them, and they cannot be read. No call of the company is placed."""
    calls_per_second: Decimal
    concurrent_calls: int
    billing_system: BillingSystem
    ats_principal_id: UUID | None
    """The principal of the ATS key that created the company. None if an operator created it."""
    paused_at: datetime | None
    pause_reason: str | None
    resumed_at: datetime | None
    """The end of the last pause."""
    deleted_at: datetime | None
    created_at: datetime


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
    calls: int
    """Calls that ended on the day, and of these, those with each outcome."""
    answered: int
    declined: int
    blocked: int


@dataclass(frozen=True, kw_only=True)
class InterviewFacts:
    id: UUID
    company_id: UUID
    company_name: str | None
    candidate_id: UUID
    agent_id: UUID
    job_id: UUID | None
    status: InterviewStatus
    is_test: bool
    deleted_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class UnappliedCommand:
    """A waiting or quarantined command without its body."""

    id: UUID
    kind: str
    interview_id: UUID | None
    received_at: datetime
    failures: int
    quarantined_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class OperatedBatch:
    """A batch without its name."""

    batch: Batch
    company_name: str | None = field(repr=False)
    company_deleted: bool


def _columns(kind: type[Any], table: Table) -> Select[Any]:
    """Select the columns that are named like the fields of a dataclass."""
    return select(*(table.c[name] for name in kind.__dataclass_fields__ if name in table.c))


class OperatedResources(KeysetStore):
    def companies(self) -> Sequence[CompanyHeading]:
        """List all companies that were not deleted."""
        query = _columns(CompanyHeading, companies).where(companies.c.deleted_at.is_(None))
        return self._all(partial(from_row, CompanyHeading), query)

    def company(self, company_id: UUID) -> OperatedCompany | None:
        """Find the company, also after its deletion, until it is erased."""
        return self._one(_company, _columns(OperatedCompany, companies).where(companies.c.id == company_id))

    def count_of_ats(self, principal_id: UUID) -> int:
        """Count the companies that the ATS key with this principal has created and that were not deleted."""
        of_ats = (companies.c.ats_principal_id == principal_id, companies.c.deleted_at.is_(None))
        return self._count(select(func.count()).select_from(companies).where(*of_ats))

    def numbers(self, company_id: UUID, day: date, limit: int) -> Sequence[NumberHeading]:
        """List a company's numbers with their counts of a day of UTC, oldest first."""
        n, d = phone_numbers.c, caller_days.c
        is_of_day = and_(d.company_id == n.company_id, d.phone_number_id == n.id, d.day == day)
        counts = (func.coalesce(d[name], 0).label(name) for name in ("calls", "answered", "declined", "blocked"))
        query = _columns(NumberHeading, phone_numbers).add_columns(*counts).outerjoin(caller_days, is_of_day)
        of_company = query.where(n.company_id == company_id).order_by(n.created_at).limit(limit)
        return self._all(partial(from_row, NumberHeading), of_company)

    def interview(self, interview_id: UUID) -> InterviewFacts | None:
        query = _columns(InterviewFacts, interviews).add_columns(companies.c.name.label("company_name"))
        named = query.join(companies, companies.c.id == interviews.c.company_id).where(interviews.c.id == interview_id)
        return self._one(partial(from_row, InterviewFacts), named)

    def commands_of_company(self, company_id: UUID, limit: int) -> Sequence[UnappliedCommand]:
        """List the waiting and quarantined commands of a company, oldest first."""
        query = _UNAPPLIED.where(inbox.c.company_id == company_id).order_by(inbox.c.received_at, inbox.c.seq)
        return self._all(_unapplied, query.limit(limit))

    def commands_of_interview(self, interview_id: UUID, limit: int) -> Sequence[UnappliedCommand]:
        """List the waiting and quarantined commands of an interview in the order in which they are applied."""
        query = _UNAPPLIED.where(inbox.c.interview_id == interview_id).order_by(inbox.c.seq)
        return self._all(_unapplied, query.limit(limit))

    def batches(self, wanted: BatchFilter, asked: KeysetSlice) -> KeysetPage[OperatedBatch]:
        """List batches of all companies, newest first."""
        b = batches.c
        conditions: list[ColumnElement[bool]] = [
            column == value for column, value in ((b.id, wanted.id), (b.company_id, wanted.company_id)) if value
        ]
        matches = [] if wanted.state is None else [b.state == wanted.state.value]
        branch = Branch(id=b.id, at=b.created_at, conditions=conditions, matches=matches)
        found = select(*_OF_A_BATCH, companies.c.name.label("company_name"), companies.c.deleted_at)
        query = found.join(companies, companies.c.id == b.company_id)
        return self._keyset_page([branch], asked, batches, _batch, query)

    def count_batches(self, company_id: UUID) -> int:
        """Count the batches of a company, up to one more than `COUNTED_UP_TO`."""
        return self._count_up_to(COUNTED_UP_TO + 1, select(batches).where(batches.c.company_id == company_id))


_UNAPPLIED = _columns(UnappliedCommand, inbox).where(inbox.c.applied_at.is_(None))
_OF_A_BATCH = [column for column in COLUMNS_OF_A_BATCH if column is not batches.c.name]
_unapplied = partial(from_row, UnappliedCommand)


def _company(row: AnyRow) -> OperatedCompany:
    settings: CompanySettings | None
    try:
        settings = settings_of(row)
    except (Refused, LookupError, TypeError, ValueError):
        settings = None
    return from_row(OperatedCompany, row, settings=settings)


def _batch(row: AnyRow) -> OperatedBatch:
    return OperatedBatch(
        batch=from_row(Batch, row, name=None, in_progress=None),
        company_name=row.company_name,
        company_deleted=row.deleted_at is not None,
    )

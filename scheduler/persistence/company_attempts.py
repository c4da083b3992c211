"""Attempts of one company in lists for clients, by the time of the call."""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, literal_column, select

from scheduler.domain.attempt import Attempt, AttemptState, CompanyAttemptFilter
from scheduler.domain.pagination import KeysetPage, KeysetSlice, SortField
from scheduler.persistence.attempts import attempt_of
from scheduler.persistence.keyset import Branch, KeysetStore, has_row, of_other_spans
from scheduler.persistence.many import among
from scheduler.persistence.tables import attempts, interviews

_INSTANTS = (
    (SortField.CREATED_AT, attempts.c.created_at),
    (SortField.UPDATED_AT, attempts.c.updated_at),
    (SortField.SCHEDULED_AT, attempts.c.due_at),
)
_OPEN = frozenset({AttemptState.PENDING, AttemptState.IN_PROGRESS})


class CompanyAttempts(KeysetStore):
    def keyset_page(self, company_id: UUID, asked: KeysetSlice, filters: CompanyAttemptFilter) -> KeysetPage[Attempt]:
        """Return a page of the company's attempts by due time, without deleted attempts and interviews."""
        a, i = attempts.c, interviews.c
        of_interview = select(i.id).where(i.id == a.interview_id, i.company_id == company_id, i.deleted_at.is_(None))
        if filters.candidate_id is not None:
            of_interview = of_interview.where(i.candidate_id == filters.candidate_id)
        if filters.external_id is not None:
            of_interview = of_interview.where(i.external_id == filters.external_id)
        matches = [
            a.deleted_at.is_(None),
            *of_other_spans(asked.spans, asked.sort, _INSTANTS),
            has_row(of_interview.correlate(attempts)),
        ]
        named = self._named(company_id, filters)
        if named is None:
            branches = by_due_time(company_id, filters.states, matches)
        else:
            conditions = [a.company_id == company_id, among(a.interview_id, named)]
            if filters.states:
                matches.append(among(a.state, [each.value for each in filters.states]))
            branches = [Branch(id=a.id, at=a.due_at, conditions=conditions, matches=matches, is_narrow=True)]

        def rows(ids: Sequence[UUID]) -> list[tuple[UUID, Attempt]]:
            query = select(attempts).where(a.company_id == company_id, among(a.id, ids))
            return self._readable(attempts, lambda row: (row.id, attempt_of(row)), query)

        return self._keyset_page(branches, asked, rows)

    def _named(self, company_id: UUID, filters: CompanyAttemptFilter) -> list[UUID] | None:
        """Return the interviews of the filter. None: it names none, or those of its candidate are many."""
        i = interviews.c
        if filters.interview_id is not None:
            return [filters.interview_id]
        if filters.external_id is not None:
            of_company = select(i.id).where(i.company_id == company_id, i.deleted_at.is_(None))
            return self._few(of_company.where(i.external_id == filters.external_id))
        if filters.candidate_id is None:
            return None
        return self._few(select(i.id).where(i.company_id == company_id, i.candidate_id == filters.candidate_id))


def by_due_time(
    company_id: UUID, states: Collection[AttemptState], matches: Sequence[ColumnElement[bool]]
) -> list[Branch]:
    """Return the attempts of a company in these states, or in all of them if none is given."""
    a = attempts.c
    of_company = a.company_id == company_id
    wanted = frozenset(states) or frozenset(AttemptState)
    branches = []
    if AttemptState.PENDING in wanted:
        is_pending = a.state == literal_column("'PENDING'")
        branches.append(Branch(id=a.id, at=a.due_at, conditions=[of_company, is_pending], matches=matches))
    if AttemptState.IN_PROGRESS in wanted:
        calls = of_calls(company_id)
        branches.append(Branch(id=a.id, at=a.due_at, conditions=calls, matches=matches, is_narrow=True))
    ends = wanted - _OPEN
    if ends:
        is_end = [among(a.state, [each.value for each in sorted(ends)])] if ends != _ENDS else []
        conditions = [of_company, a.ended_at.is_not(None)]
        branches.append(Branch(id=a.id, at=a.due_at, conditions=conditions, matches=[*matches, *is_end]))
    return branches


def of_calls(company_id: UUID) -> list[ColumnElement[bool]]:
    """Match the company's calls in progress. They are few."""
    return [attempts.c.company_id == company_id, attempts.c.state == literal_column("'IN_PROGRESS'")]


_ENDS = frozenset(AttemptState) - _OPEN

"""Pages of long lists by cursor, and lists of a company's attempts."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Select,
    Table,
    Uuid,
    and_,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    tuple_,
    union_all,
)

from scheduler.domain.attempt import Attempt, AttemptState, CompanyAttemptFilter
from scheduler.domain.resource import Cursor, KeysetPage, KeysetSlice, Sort, SortField, Span, Spans
from scheduler.persistence.attempt_rows import attempt_of
from scheduler.persistence.connection import among
from scheduler.persistence.rows import AnyRow
from scheduler.persistence.store import Store
from scheduler.persistence.tables import attempts, interviews

T = TypeVar("T")
LOOKED_AT = 1_000
"""The most rows that a page looks at. Filters without an index of their own match fewer of them than it returns."""
_LOOKED_AT: ColumnElement[int] = literal_column(str(LOOKED_AT))
"""As a literal: for a parameter, a plan for any parameters expects a tenth of the table."""
NARROW = 1_000
"""The most rows that are all read and sorted, instead of rows in the order of an index."""


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A part of a list. All rows of the list are in one of its branches."""

    id: ColumnElement[Any]
    at: ColumnElement[Any]
    """The instant by which the list is sorted."""
    conditions: Sequence[ColumnElement[bool]]
    """The conditions of an index that has the rows in the order of `at`."""
    matches: Sequence[ColumnElement[bool]] = field(default=())
    """All other conditions. Each row that is looked at is checked."""
    is_narrow: bool = False
    """At most about `NARROW` rows meet the conditions. They are found by these, then sorted."""


def is_within(at: ColumnElement[Any], span: Span) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if span.since is not None:
        conditions.append(at >= literal(span.since, DateTime(timezone=True)))
    if span.until is not None:
        conditions.append(at < literal(span.until, DateTime(timezone=True)))
    return conditions


def of_other_spans(
    spans: Spans, sort: Sort, instants: Sequence[tuple[SortField, ColumnElement[Any]]]
) -> list[ColumnElement[bool]]:
    """Build the conditions of those spans by which the list is not sorted."""
    return [each for by, at in instants if by is not sort.by for each in is_within(at, spans.of(by))]


def has_row(query: Select[Any]) -> ColumnElement[bool]:
    """Return whether a query that names a row of the list finds a row.

    For EXISTS, PostgreSQL may read the table once, with all rows that any row of the list could name.
    """
    return query.limit(1).scalar_subquery().is_not(None)


class KeysetStore(Store):
    """The base of stores with such lists."""

    def _keyset_page(
        self,
        branches: Sequence[Branch],
        asked: KeysetSlice,
        table: Table,
        read: Callable[[AnyRow], T],
        query: Select[Any],
    ) -> KeysetPage[T]:
        """Read the rows of a page, by a query to which their ids are added."""
        found = self._connection.execute(_query(branches, asked).limit(asked.limit + 2)).all() if branches else []
        matching = [row for row in found if row.matches]
        last = next((row for row in found if row.place == LOOKED_AT), None)
        if len(matching) > asked.limit:
            matching = matching[: asked.limit]
            last = matching[-1]
        rows: dict[UUID, T] = {}
        if matching:
            of_page = query.where(among(table.c.id, [row.id for row in matching]))
            rows = dict(self._readable(table, lambda row: (row.id, read(row)), of_page))
        return KeysetPage(
            # A row may have been deleted in the meantime.
            items=tuple(rows[row.id] for row in matching if row.id in rows),
            next=None if last is None else Cursor(sort=asked.sort, at=last.at, id=last.id),
            asked=asked,
        )

    def _few(self, query: Select[Any]) -> list[UUID] | None:
        """Find the ids that the query finds. None: they are more than are read and sorted."""
        ids = list(self._connection.execute(query.limit(NARROW + 1)).scalars())
        return None if len(ids) > NARROW else ids


def _query(branches: Sequence[Branch], asked: KeysetSlice) -> Select[Any]:
    parts = [_part(branch, asked) for branch in branches]
    rows = (parts[0] if len(parts) == 1 else union_all(*(select(each.subquery()) for each in parts))).subquery("merged")
    order = _order(rows.c.at, rows.c.id, asked.sort)
    place = func.row_number().over(order_by=order).label("place")
    scanned = select(rows, place).order_by(*order).limit(_LOOKED_AT).subquery("scanned")
    is_shown = or_(scanned.c.matches, scanned.c.place == _LOOKED_AT)
    # Not by the place: PostgreSQL does not know that it is in this order, and would read all rows to sort them.
    return select(scanned).where(is_shown).order_by(*_order(scanned.c.at, scanned.c.id, asked.sort))


def _part(branch: Branch, asked: KeysetSlice) -> Select[Any]:
    matches = and_(true(), *branch.matches)
    found = select(branch.id.label("id"), branch.at.label("at"), matches.label("matches")).where(
        *branch.conditions, *is_within(branch.at, asked.spans.of(asked.sort.by)), *_after(branch, asked)
    )
    if branch.is_narrow:
        # Found before they are sorted: PostgreSQL expects such rows everywhere in the order of an index.
        few = found.offset(literal_column("0")).subquery()
        found = select(few.c.id, few.c.at, few.c.matches)
        return found.order_by(*_order(few.c.at, few.c.id, asked.sort)).limit(_LOOKED_AT)
    return found.order_by(*_order(branch.at, branch.id, asked.sort)).limit(_LOOKED_AT)


def _after(branch: Branch, asked: KeysetSlice) -> list[ColumnElement[bool]]:
    if asked.after is None:
        return []
    at = literal(asked.after.at, DateTime(timezone=True))
    given, row = tuple_(at, literal(asked.after.id, Uuid)), tuple_(branch.at, branch.id)
    # The first condition is for the index.
    if asked.sort.descending:
        return [branch.at <= at, row < given]
    return [branch.at >= at, row > given]


def _order(at: ColumnElement[Any], row_id: ColumnElement[Any], sort: Sort) -> list[ColumnElement[Any]]:
    return [at.desc(), row_id.desc()] if sort.descending else [at.asc(), row_id.asc()]


# --- Attempts of one company in lists for clients, by the time of the call


_INSTANTS = (
    (SortField.CREATED_AT, attempts.c.created_at),
    (SortField.UPDATED_AT, attempts.c.updated_at),
    (SortField.SCHEDULED_AT, attempts.c.due_at),
)
_OPEN = frozenset({AttemptState.PENDING, AttemptState.IN_PROGRESS})


class CompanyAttempts(KeysetStore):
    def keyset_page(self, company_id: UUID, asked: KeysetSlice, filters: CompanyAttemptFilter) -> KeysetPage[Attempt]:
        """Read a page of the company's attempts by due time, without deleted attempts and interviews."""
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

        query = select(attempts).where(a.company_id == company_id)
        return self._keyset_page(branches, asked, attempts, attempt_of, query)

    def _named(self, company_id: UUID, filters: CompanyAttemptFilter) -> list[UUID] | None:
        """Find the interviews of the filter. None: it names none, or those of its candidate are many."""
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
    """Build the parts of a list: attempts of a company in these states, or in all of them if none is given."""
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

"""Pages of long lists by cursor, found by reading a limited number of rows in the order of an index."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Select,
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

from scheduler.domain.pagination import Cursor, KeysetPage, KeysetSlice, Sort, SortField, Span, Spans
from scheduler.persistence.store import Store

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
    """Those of an index that has the rows in the order of `at`."""
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
    """Return the conditions of those spans by which the list is not sorted."""
    return [each for by, at in instants if by is not sort.by for each in is_within(at, spans.of(by))]


def has_row(query: Select[Any]) -> ColumnElement[bool]:
    """Return whether a query that names a row of the list finds a row.

    For EXISTS, PostgreSQL may read the table once, with all rows that any row of the list could name.
    """
    return query.limit(1).scalar_subquery().is_not(None)


class KeysetStore(Store):
    """The base of stores with such lists."""

    def _keyset_page(
        self, branches: Sequence[Branch], asked: KeysetSlice, rows: Callable[[Sequence[UUID]], Sequence[tuple[UUID, T]]]
    ) -> KeysetPage[T]:
        """Return the rows of a page. `rows` reads those with the given ids, in any order."""
        found = self._connection.execute(_query(branches, asked).limit(asked.limit + 2)).all() if branches else []
        matching = [row for row in found if row.matches]
        last = next((row for row in found if row.place == LOOKED_AT), None)
        if len(matching) > asked.limit:
            matching = matching[: asked.limit]
            last = matching[-1]
        read = dict(rows([row.id for row in matching])) if matching else {}
        return KeysetPage(
            # A row may have been deleted in the meantime.
            items=tuple(read[row.id] for row in matching if row.id in read),
            next=None if last is None else Cursor(sort=asked.sort, at=last.at, id=last.id),
            asked=asked,
        )

    def _few(self, query: Select[Any]) -> list[UUID] | None:
        """Return the ids that the query finds. None: they are more than are read and sorted."""
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

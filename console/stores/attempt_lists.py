"""Attempts in lists for operators. Each list reads a bounded number of rows by an index, however many there are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Double,
    FromClause,
    Select,
    Text,
    Uuid,
    and_,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB

from console.attempt_list import (
    END_STATES,
    AttemptFilter,
    FoundAttempt,
    FoundPart,
    ListedAttempt,
    ListOrder,
    ListState,
    Place,
)
from scheduler.domain.attempt import Reason
from scheduler.domain.explanation import PACE
from scheduler.persistence.attempt_counts import DUE_BY_RULE, values_of_due
from scheduler.persistence.connection import among
from scheduler.persistence.json_columns import schedule_from_json
from scheduler.persistence.rows import AnyRow, from_row
from scheduler.persistence.store import Store
from scheduler.persistence.tables import attempt_history, attempts, companies, inbox, interviews

_FIRST_ID = UUID(int=0)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The size of a part of a list, and the most rows that it may look at."""

    limit: int
    scanned: int


@dataclass(frozen=True, kw_only=True)
class PartCounts:
    """The numbers of a part, of which no row is read."""

    attempts: int
    """Those of the part, or more if others follow."""
    companies: int
    soon: int
    """Attempts that are due until the given instant."""
    is_cut: bool
    """As in `FoundPart`."""


class AttemptListStore(Store):
    def part(self, only: AttemptFilter, after: Place | None, bounds: Bounds, now: datetime) -> FoundPart:
        """Find the attempts of a list that follow a place.

        The place is one of a list in the same order.
        """
        if only.state is ListState.DUE:
            return self._due(only, after, bounds, now)
        if only.is_short:
            return self._few(only, after, bounds)
        if only.order is ListOrder.DUE_TIME:
            query = _pending(only, after, bounds, now) if only.is_pending else _ended_in_range(only, after, bounds)
            return self._scanned(query, bounds)
        if only.order is ListOrder.INTERVIEW:
            return self._scanned(_of_company(only, after, bounds), bounds)
        if only.order is ListOrder.END:
            return self._scanned(_ended(only, after, bounds), bounds)
        return self._scanned(_newest(after, bounds), bounds)

    def counts(self, only: AttemptFilter, bounds: Bounds, now: datetime, soon: datetime) -> PartCounts:
        """Count the first part of a list of pending attempts, by the statement that finds its attempts."""
        if only.state is ListState.DUE:
            found = _due_part(only, None).add_columns(true().label("matches"), _NO_PLACE).limit(bounds.limit + 1)
        else:
            found = _pending(only, None, bounds, now).limit(bounds.limit + 2)
        each = found.subquery("found").c
        query = select(
            func.count().filter(each.matches).label("attempts"),
            func.count(each.company_id.distinct()).filter(each.matches).label("companies"),
            func.count().filter(each.matches, each.due_at <= soon).label("soon"),
            func.coalesce(func.bool_or(each.place == bounds.scanned), literal_column("false")).label("is_cut"),
        )
        row = self._connection.execute(query, values_of_due(now)).one()
        is_full = row.attempts > bounds.limit
        return from_row(PartCounts, row, is_cut=row.is_cut and not is_full)

    def rows(self, found: Sequence[FoundAttempt]) -> list[ListedAttempt]:
        """Read the rows of attempts, in this order. An attempt that was erased in the meantime is left out."""
        rules = {each.id: each.rule for each in found}
        query = (
            select(*_COLUMNS, companies.c.name.label("company_name"), _COMMAND_WAITS.label("command_waits"))
            .join(companies, companies.c.id == attempts.c.company_id)
            .where(among(attempts.c.id, list(rules)))
        )
        rows = {each.id: each for each in self._readable(attempts, lambda row: _listed(row, rules[row.id]), query)}
        return [rows[each.id] for each in found if each.id in rows]

    def _due(self, only: AttemptFilter, after: Place | None, bounds: Bounds, now: datetime) -> FoundPart:
        query = _due_part(only, after).order_by(_due.c.due_at, _due.c.id)
        rows = self._connection.execute(query.limit(bounds.limit + 1), values_of_due(now)).all()
        found = [from_row(FoundAttempt, row) for row in rows]
        return _part(found, bounds, [Place(attempt_id=each.id, at=each.due_at) for each in found])

    def _few(self, only: AttemptFilter, after: Place | None, bounds: Bounds) -> FoundPart:
        of_company = true() if only.company_id is None else attempts.c.company_id == only.company_id
        # Found by the condition's index before they are sorted. Otherwise PostgreSQL may read all attempts from the
        # newest one on, because it expects those of the condition everywhere.
        few = (
            select(attempts.c.id, attempts.c.company_id, attempts.c.due_at)
            .where(_short(only), of_company, *_of_history(only))
            .cte("few")
            .prefix_with("MATERIALIZED")
        )
        query = select(few).where(few.c.company_id.not_in(_DELETED)).order_by(few.c.id.desc())
        if after is not None:
            query = query.where(few.c.id < after.attempt_id)
        rows = self._connection.execute(query.limit(bounds.limit + 1)).all()
        return _part([_found(row) for row in rows], bounds, [Place(attempt_id=row.id) for row in rows])

    def _scanned(self, query: Select[Any], bounds: Bounds) -> FoundPart:
        """Read the rows that match. The last row that was looked at is returned with them, and shows if more follow."""
        rows = self._connection.execute(query.limit(bounds.limit + 2)).all()
        matching = [row for row in rows if row.matches]
        if len(matching) > bounds.limit:
            shown = matching[: bounds.limit]
            return FoundPart(attempts=[_found(row) for row in shown], next=_place(shown[-1]))
        last = next((row for row in rows if row.place == bounds.scanned), None)
        end = None if last is None else _place(last, is_end=True)
        return FoundPart(attempts=[_found(row) for row in matching], next=end, is_cut=end is not None)


def _part(found: Sequence[FoundAttempt], bounds: Bounds, places: Sequence[Place]) -> FoundPart:
    follows = len(found) > bounds.limit
    return FoundPart(attempts=found[: bounds.limit], next=places[bounds.limit - 1] if follows else None)


def _found(row: AnyRow) -> FoundAttempt:
    return from_row(FoundAttempt, row, rule=None)


def _place(row: AnyRow, *, is_end: bool = False) -> Place:
    interview_id = row.interview_id
    # All attempts of the last interview that was looked at were found.
    attempt_id = _FIRST_ID if is_end and interview_id is not None else row.id
    return Place(attempt_id=attempt_id or _FIRST_ID, at=row.at, interview_id=interview_id, event_id=row.event_id)


# As literals: they must match the indexes.
_IS_PENDING = attempts.c.state == literal_column("'PENDING'")
_IN_PROGRESS = attempts.c.state == literal_column("'IN_PROGRESS'")
_IS_UNKNOWN = and_(
    attempts.c.reason == literal_column(f"'{Reason.OUTCOME_UNKNOWN.value}'"), attempts.c.decided_at.is_(None)
)
_END_STATES = [each.value for each in END_STATES[ListState.FINISHED]]
_DELETED = select(companies.c.id).where(companies.c.deleted_at.is_not(None))
_NO_INSTANT = cast(literal(None), DateTime(timezone=True))
_NO_ID = cast(literal(None), Uuid)
_NO_EVENT = cast(literal(None), BigInteger).label("event_id")
_NO_PLACE = cast(literal(None), BigInteger).label("place")

# Companies are hashed once. A join would count all due attempts for each one of a company, because PostgreSQL expects
# few of it.
_RULES_OF_DUE = f"""
    SELECT due.id, due.company_id, due.due_at,
           CASE
               WHEN due.rule IS NOT NULL THEN due.rule
               WHEN due.company_id IN (
                   SELECT company_id FROM ruled WHERE rule IS NULL AND held_by IS NOT NULL
               ) THEN '{PACE}'
           END AS rule
    FROM due
"""  # noqa: S608 - the inserted text is a constant of this package
_due = (
    text(f"WITH {DUE_BY_RULE} {_RULES_OF_DUE}")
    .columns(id=Uuid, company_id=Uuid, due_at=DateTime(timezone=True), rule=Text)
    .cte("due_attempts")
)


def _due_part(only: AttemptFilter, after: Place | None) -> Select[Any]:
    query = select(_due.c.id, _due.c.company_id, _due.c.due_at, _due.c.rule)
    return query.where(*_conditions_of_due(only, after))


def _conditions_of_due(only: AttemptFilter, after: Place | None) -> list[ColumnElement[bool]]:
    conditions = _of_range(only, _due.c.due_at)
    if only.rule is not None:
        conditions.append(_due.c.rule == only.rule)
    if only.company_id is not None:
        conditions.append(_due.c.company_id == only.company_id)
    searched = _of_history(only) if only.zone is None else [*_of_history(only), _has_zone(only.zone)]
    if searched:
        # A value for each row: a join would read the schedules of all attempts.
        conditions.append(select(and_(*searched)).where(attempts.c.id == _due.c.id).correlate(_due).scalar_subquery())
    if after is not None:
        conditions.append(tuple_(_due.c.due_at, _due.c.id) > _given(after.at, after.attempt_id))
    return conditions


def _given(at: datetime | None, row_id: UUID | None) -> ColumnElement[Any]:
    return tuple_(literal(at, DateTime(timezone=True)), literal(row_id, Uuid))


def _short(only: AttemptFilter) -> ColumnElement[bool]:
    """Build the condition of a short list, which has an index."""
    if only.cause_lost:
        return attempts.c.cause_is_lost
    return _IN_PROGRESS if only.state is ListState.IN_PROGRESS else _IS_UNKNOWN


def _of_range(only: AttemptFilter, due_at: ColumnElement[datetime]) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if only.due_from is not None:
        conditions.append(due_at >= only.due_from)
    if only.due_to is not None:
        conditions.append(due_at < only.due_to)
    return conditions


def _of_history(only: AttemptFilter) -> list[ColumnElement[bool]]:
    a = attempts.c
    conditions: list[ColumnElement[bool]] = []
    if only.created_from is not None:
        conditions.append(a.created_at >= only.created_from)
    if only.created_to is not None:
        conditions.append(a.created_at < only.created_to)
    if only.changed_from is not None:
        conditions.append(a.updated_at >= only.changed_from)
    return conditions


_SIGNS = {"+": 1, "-": -1}


def _has_zone(zone: str) -> ColumnElement[bool]:
    if zone[0] not in _SIGNS:
        return attempts.c.schedule["zones"].contains(cast([zone], JSONB))
    hours, minutes = zone[1:].split(":")
    seconds = (int(hours) * 3600 + int(minutes) * 60) * _SIGNS[zone[0]]
    return func.coalesce(cast(attempts.c.schedule["offset_s"].astext, Double) == seconds, literal_column("false"))


def _pending(only: AttemptFilter, after: Place | None, bounds: Bounds, now: datetime) -> Select[Any]:
    a = attempts.c
    matches = [a.company_id.not_in(_DELETED), *_of_history(only)]
    if only.zone is not None:
        matches.append(_has_zone(only.zone))
    scan = select(
        *(a.id, a.company_id, a.due_at, a.due_at.label("at"), _NO_ID.label("interview_id"), _NO_EVENT),
        and_(*matches).label("matches"),
    ).where(_IS_PENDING, *_of_range(only, a.due_at))
    if only.state is ListState.WAITING:
        scan = scan.where(a.due_at > now)
    if only.company_id is not None:
        scan = scan.where(a.company_id == only.company_id)
    return _by_due_time(scan, after, bounds)


def _ended_in_range(only: AttemptFilter, after: Place | None, bounds: Bounds) -> Select[Any]:
    a = attempts.c
    scan = select(
        *(a.id, a.company_id, a.due_at, a.due_at.label("at"), _NO_ID.label("interview_id"), _NO_EVENT),
        and_(*_end_conditions(only)).label("matches"),
    ).where(a.company_id == only.company_id, a.ended_at.is_not(None), *_of_range(only, a.due_at))
    return _by_due_time(scan, after, bounds)


def _by_due_time(scan: Select[Any], after: Place | None, bounds: Bounds) -> Select[Any]:
    a = attempts.c
    if after is not None:
        # The first condition is for the index.
        scan = scan.where(a.due_at >= after.at, tuple_(a.due_at, a.id) > _given(after.at, after.attempt_id))
    return _numbered(scan, _earliest_first, bounds)


def _newest(after: Place | None, bounds: Bounds) -> Select[Any]:
    a = attempts.c
    scan = select(
        *(a.id, a.company_id, a.due_at, _NO_INSTANT.label("at"), _NO_ID.label("interview_id"), _NO_EVENT),
        a.company_id.not_in(_DELETED).label("matches"),
    )
    if after is not None:
        scan = scan.where(a.id < after.attempt_id)
    return _numbered(scan, _newest_first, bounds)


_Order = Callable[[FromClause], Sequence[ColumnElement[Any]]]
"""Returns the order of a list, by columns of the table or of a subquery that has them."""


def _earliest_first(of: FromClause) -> Sequence[ColumnElement[Any]]:
    return (of.c.due_at.asc(), of.c.id.asc())


def _newest_first(of: FromClause) -> Sequence[ColumnElement[Any]]:
    return (of.c.id.desc(),)


def _numbered(scan: Select[Any], order: _Order, bounds: Bounds) -> Select[Any]:
    """Select the matching rows of the scan and its last row, in this order."""
    place = func.row_number().over(order_by=order(attempts)).label("place")
    rows = scan.add_columns(place).order_by(*order(attempts)).limit(bounds.scanned).subquery("scanned")
    # Not by the place: PostgreSQL does not know that it is in this order, and would read all rows to sort them.
    return select(rows).where(or_(rows.c.matches, rows.c.place == bounds.scanned)).order_by(*order(rows))


def _of_company(only: AttemptFilter, after: Place | None, bounds: Bounds) -> Select[Any]:
    i, a = interviews.c, attempts.c
    order = (i.created_at.desc(), i.id.desc())
    place = func.row_number().over(order_by=list(order)).label("place")
    scan = select(i.id, i.created_at, place).where(i.company_id == only.company_id).order_by(*order)
    if only.created_to is not None:  # an attempt is not older than its interview
        scan = scan.where(i.created_at < only.created_to)
    conditions = _end_conditions(only)
    if after is not None:
        scan = scan.where(i.created_at <= after.at, tuple_(i.created_at, i.id) <= _given(after.at, after.interview_id))
        conditions.append(or_(a.interview_id != after.interview_id, a.id < after.attempt_id))
    rows = scan.limit(bounds.scanned).subquery("scanned")
    found = _searched(a.interview_id == rows.c.id, *conditions)
    return (
        select(
            *(found.c.id, found.c.company_id, found.c.due_at, rows.c.created_at.label("at")),
            *(rows.c.id.label("interview_id"), _NO_EVENT, found.c.id.is_not(None).label("matches"), rows.c.place),
        )
        .select_from(rows.outerjoin(found, true()))
        .where(or_(found.c.id.is_not(None), rows.c.place == bounds.scanned))
        # Not by the place, as in `_numbered`.
        .order_by(rows.c.created_at.desc(), rows.c.id.desc(), found.c.id.desc())
    )


def _ended(only: AttemptFilter, after: Place | None, bounds: Bounds) -> Select[Any]:
    """Search the last events: those of calls are among them, however many attempts were created since then."""
    h, a = attempt_history.c, attempts.c
    place = func.row_number().over(order_by=[h.id.desc()]).label("place")
    # Exactly one event of an attempt leads to an end state from another state.
    is_end = and_(h.from_state.not_in(_END_STATES), h.to_state.in_(_END_STATES)).label("is_end")
    scan = select(h.id, h.attempt_id, is_end, place).order_by(h.id.desc())
    if after is not None:
        scan = scan.where(h.id < after.event_id)
    rows = scan.limit(bounds.scanned).subquery("scanned")
    found = _searched(rows.c.is_end, a.id == rows.c.attempt_id, a.company_id.not_in(_DELETED), *_end_conditions(only))
    return (
        select(
            *(found.c.id, found.c.company_id, found.c.due_at, _NO_INSTANT.label("at"), _NO_ID.label("interview_id")),
            *(rows.c.id.label("event_id"), found.c.id.is_not(None).label("matches"), rows.c.place),
        )
        .select_from(rows.outerjoin(found, true()))
        .where(or_(found.c.id.is_not(None), rows.c.place == bounds.scanned))
        .order_by(rows.c.id.desc())
    )


def _searched(*conditions: ColumnElement[bool]) -> FromClause:
    """Select attempts that are searched for each row. A join might read all attempts instead."""
    columns = (attempts.c.id, attempts.c.company_id, attempts.c.due_at)
    return select(*columns).where(*conditions).offset(literal_column("0")).lateral("found")


def _end_conditions(only: AttemptFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if only.state is ListState.FINISHED:
        conditions.append(attempts.c.ended_at.is_not(None))
    elif only.state is not None and only.state in END_STATES:
        conditions.append(among(attempts.c.state, [each.value for each in END_STATES[only.state]]))
    if only.reason is not None:
        conditions.append(attempts.c.reason == only.reason.value)
    if only.outcome is not None:
        conditions.append(attempts.c.outcome == only.outcome.value)
    return [*conditions, *_of_range(only, attempts.c.due_at), *_of_history(only)]


# Hashed once, with this limit, as in `attempt_counts`. A search for each attempt would read all waiting commands each
# time, because until the next ANALYZE PostgreSQL expects none.
_WAITING = select(inbox.c.interview_id).where(inbox.c.applied_at.is_(None), inbox.c.interview_id.is_not(None))
_COMMAND_WAITS = attempts.c.interview_id.in_(_WAITING.limit(100_000))
_NOT_COLUMNS = {"company_name", "command_waits", "rule"}
_COLUMNS = tuple(attempts.c[each.name] for each in fields(ListedAttempt) if each.name not in _NOT_COLUMNS)


def _listed(row: AnyRow, rule: str | None) -> ListedAttempt:
    return from_row(
        ListedAttempt,
        row,
        schedule=schedule_from_json(row.schedule),
        cause_is_lost=bool(row.cause_is_lost),
        rule=rule,
    )

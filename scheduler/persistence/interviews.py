"""Interviews. A transaction that changes the state of an attempt locks its interview first."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Select, and_, bindparam, func, or_, select

from scheduler.domain.attempt import Attempt, AttemptState
from scheduler.domain.interview import Interview, InterviewFilter, InterviewStatus
from scheduler.domain.resource import KeysetPage, KeysetSlice, Listed, Slice, SortField
from scheduler.lifecycle import partner_events
from scheduler.persistence import events
from scheduler.persistence.connection import Fixed, among, among_given
from scheduler.persistence.keyset import Branch, KeysetStore, by_due_time, has_row, of_calls, of_other_spans
from scheduler.persistence.rows import AnyRow, as_columns, from_row
from scheduler.persistence.store import Free, change, freely_locked, insertion
from scheduler.persistence.tables import attempts, interviews

_interview = partial(from_row, Interview)


_LOCKED = select(interviews, events.has_reader(interviews.c.company_id)).with_for_update(key_share=True)
_LOCK = Fixed(_LOCKED.where(interviews.c.id == bindparam("id")))
_LOCK_ALL = Fixed(_LOCKED.where(among_given(interviews.c.id, "ids")).order_by(interviews.c.id))
_LOCK_FREE = Fixed(
    freely_locked(interviews, lambda c: [among_given(c.id, "ids")], events.has_reader(interviews.c.company_id))
)

_LOCK_ROWS = Fixed(
    select(interviews.c.id)
    .where(among_given(interviews.c.id, "ids"))
    .order_by(interviews.c.id)
    .with_for_update(key_share=True)
)

# After `candidates`, `agents` and `jobs`, before `attempts`.
_ADD = insertion(interviews, turn=1)
_SET_STATUS = change(interviews, turn=7)


_FIXED = frozenset(
    {
        *("id", "company_id", "candidate_id", "agent_id", "job_id", "type", "focus", "duration", "caller_number"),
        *("is_test", "created_at"),
    }
)
"""Fields that never change. All others are saved."""


class Interviews(KeysetStore):
    def add(self, interview: Interview, content_hash: bytes | None = None) -> None:
        row = as_columns(interview, without={"deleted_at"}, content_hash=content_hash)
        with self._connection.together():
            self._connection.write(_ADD, interview.id, row)
            events.note(self._connection, interview.company_id, lambda: partner_events.of_new_interview(interview))

    def get(self, company_id: UUID, interview_id: UUID, *, with_deleted: bool = False) -> Interview | None:
        """Find the interview, if it is this company's and, unless `with_deleted`, not deleted."""
        query = _of_company(company_id, with_deleted=with_deleted)
        return self._one(_interview, query.where(interviews.c.id == interview_id))

    def page(self, company_id: UUID, requested: Slice, filters: InterviewFilter) -> Listed[Interview]:
        """Read a page of the company's interviews, also if their candidate, agent or job was deleted."""
        query = _of_company(company_id)
        for column, value in _columns(filters):
            if value is not None:
                query = query.where(column == value)
        if filters.statuses:
            query = query.where(_is_shown_as(filters.statuses, _EXISTS_CALL))
        return self._page(_interview, query, interviews, requested)

    def keyset_page(self, company_id: UUID, asked: KeysetSlice, filters: InterviewFilter) -> KeysetPage[Interview]:
        """Read a page of the same list, in any order."""
        named = self._named(company_id, filters)
        branches = _branches(company_id, asked, filters, named)
        return self._keyset_page(branches, asked, interviews, _interview, _of_company(company_id))

    def _named(self, company_id: UUID, filters: InterviewFilter) -> list[UUID] | None:
        """Find the interviews of the narrowest filter. None: without one, or they are many."""
        for column, value in _columns(filters):
            if value is not None:
                ids = self._few(_of_company(company_id).with_only_columns(interviews.c.id).where(column == value))
                if ids is not None:
                    return ids
        return None

    def lock(self, interview_id: UUID) -> Interview:
        """Lock the interview, deleted or not: no other transaction may change it or end its attempts."""
        return self._locked(self._connection.execute(_LOCK, {"id": interview_id}).one())

    def lock_all(self, interview_ids: Sequence[UUID]) -> list[Interview]:
        """Lock interviews like `lock`, in the order of their ids."""
        return self._all(self._locked, _LOCK_ALL, {"ids": list(interview_ids)})

    def lock_free(self, interview_ids: Sequence[UUID]) -> Free[Interview]:
        """Lock interviews like `lock_all`, and skip locked ones."""
        return self._free(interviews, self._locked, _LOCK_FREE, {"ids": list(interview_ids)})

    def _locked(self, row: AnyRow) -> Interview:
        events.keep_reader(self._connection, row.company_id, row)
        return _interview(row)

    def lock_rows(self, interview_ids: Sequence[UUID]) -> None:
        """Lock interviews like `lock_all`, without reading them: operators may not read all of them."""
        self._connection.execute(_LOCK_ROWS, {"ids": list(interview_ids)})

    def set_status(
        self, interview: Interview, status: InterviewStatus, now: datetime, cause: Attempt | None = None
    ) -> Interview:
        """Set the status of an interview that the caller has locked. `cause` is the attempt whose end changes it."""
        over = status is not InterviewStatus.SCHEDULED
        after = replace(interview, status=status, finished_at=now if over else None)
        row = {"id": after.id, "status": status.value, "finished_at": after.finished_at, "updated_at": now}
        with self._connection.together():
            self._connection.write(_SET_STATUS, after.id, row)
            events.note(
                self._connection,
                interview.company_id,
                lambda: partner_events.of_interview(interview, after, now, cause),
            )
        return after

    def save(self, interview: Interview, now: datetime, *, before: Interview) -> Interview:
        """Write the mutable fields of an interview that the caller has locked. `before` is what was stored."""
        events.note(self._connection, interview.company_id, lambda: partner_events.of_interview(before, interview, now))
        after = replace(interview, updated_at=now)
        changeable = as_columns(after, without=_FIXED)
        self._update(interviews, interviews.c.id == interview.id, **changeable)
        return after

    def lock_left_of(self, candidate_id: UUID, limit: int) -> list[Interview]:
        """Lock up to `limit` interviews of an erased person that are not cancelled, without those locked elsewhere.

        Interviews that this release cannot read are left out: they must not keep other people's from a worker.
        """
        left = select(interviews.c.id).where(*_left_of(candidate_id)).limit(limit)
        some = left.with_for_update(key_share=True, skip_locked=True)
        ids = self._connection.execute(some).scalars()
        return self._readable(interviews, self._locked, _LOCK_ALL, {"ids": list(ids)})

    def has_left_of(self, candidate_id: UUID) -> bool:
        """Return True if `lock_left_of` would return an interview, now or once it is not locked elsewhere."""
        return self._is_any(select(interviews.c.id).where(*_left_of(candidate_id)).limit(1))

    def forget_contents(self, interview_ids: Sequence[UUID]) -> None:
        """Delete the hashes of the requests for interviews. A request can contain the person's data."""
        self._update(
            interviews, among(interviews.c.id, interview_ids), interviews.c.content_hash.is_not(None), content_hash=None
        )

    def open_of_candidates(self, candidate_ids: Collection[UUID]) -> set[UUID]:
        """Find the candidates among these for which `open_of_candidate` is True."""
        query = select(interviews.c.candidate_id).where(
            among(interviews.c.candidate_id, list(candidate_ids)),
            interviews.c.status == InterviewStatus.SCHEDULED.value,
            interviews.c.deleted_at.is_(None),
        )
        return set(self._connection.execute(query.distinct()).scalars())

    def open_of_candidate(self, candidate_id: UUID) -> bool:
        """Return True if the candidate has an interview for which calls may still follow."""
        return self._is_any(
            select(interviews.c.id)
            .where(
                interviews.c.candidate_id == candidate_id,
                interviews.c.status == InterviewStatus.SCHEDULED.value,
                interviews.c.deleted_at.is_(None),
            )
            .limit(1)
        )


def _left_of(candidate_id: UUID) -> Sequence[ColumnElement[bool]]:
    """Match interviews with calls to come, or with the hash of their request."""
    is_left = or_(interviews.c.status == InterviewStatus.SCHEDULED.value, interviews.c.content_hash.is_not(None))
    return interviews.c.candidate_id == candidate_id, is_left


def _of_company(company_id: UUID, *, with_deleted: bool = False) -> Select[tuple[object, ...]]:
    return select(interviews).where(
        interviews.c.company_id == company_id,  # guard: tenant
        *(() if with_deleted else (interviews.c.deleted_at.is_(None),)),
    )


def _columns(filters: InterviewFilter) -> Sequence[tuple[Column[Any], UUID | str | None]]:
    return (
        (interviews.c.external_id, filters.external_id),
        (interviews.c.candidate_id, filters.candidate_id),
        (interviews.c.job_id, filters.job_id),
        (interviews.c.agent_id, filters.agent_id),
    )


def _is_shown_as(statuses: Collection[InterviewStatus], is_called: ColumnElement[bool]) -> ColumnElement[bool]:
    """Match the status of `InterviewStory.status`: an attempt in progress overrides the stored status."""
    stored = [each.value for each in statuses if each is not InterviewStatus.IN_PROGRESS]
    is_stored = interviews.c.status == stored[0] if len(stored) == 1 else among(interviews.c.status, stored)
    if InterviewStatus.IN_PROGRESS not in statuses:
        return and_(is_stored, ~is_called)
    return or_(is_called, is_stored) if stored else is_called


# With other names: the lists by time read attempts around this.
_CALLS = attempts.alias("calls")
_NEWEST = attempts.alias("newest")
_CALL = (
    select(_CALLS.c.id)
    .where(_CALLS.c.interview_id == interviews.c.id, _CALLS.c.state == AttemptState.IN_PROGRESS.value)
    .correlate(interviews)
)
_IS_CALLED, _EXISTS_CALL = has_row(_CALL), _CALL.exists()
_NEWEST_ATTEMPT = (
    select(_NEWEST.c.due_at)
    .where(_NEWEST.c.deleted_at.is_(None))
    .order_by(_NEWEST.c.created_at.desc(), _NEWEST.c.id.desc())
    .limit(1)
)
_SCHEDULED_AT = func.coalesce(
    interviews.c.scheduled_at,
    _NEWEST_ATTEMPT.where(_NEWEST.c.interview_id == interviews.c.id).correlate(interviews).scalar_subquery(),
)
"""The shown time: of an ONLINE interview its own, of a PHONE interview that of its newest attempt."""
_INSTANTS = (
    (SortField.CREATED_AT, interviews.c.created_at),
    (SortField.UPDATED_AT, interviews.c.updated_at),
    (SortField.SCHEDULED_AT, _SCHEDULED_AT),
)


def _branches(
    company_id: UUID, asked: KeysetSlice, filters: InterviewFilter, named: Sequence[UUID] | None
) -> Sequence[Branch]:
    i = interviews.c
    of_company = i.company_id == company_id
    matches = [i.deleted_at.is_(None), *of_other_spans(asked.spans, asked.sort, _INSTANTS)]
    matches += [column == value for column, value in _columns(filters) if value is not None]
    is_shown = [_is_shown_as(filters.statuses, _IS_CALLED)] if filters.statuses else []
    at = dict(_INSTANTS)[asked.sort.by]
    if named is not None:
        conditions = [of_company, among(i.id, named), at.is_not(None)]
        return [Branch(id=i.id, at=at, conditions=conditions, matches=[*matches, *is_shown], is_narrow=True)]
    if asked.sort.by is SortField.SCHEDULED_AT:
        return _by_time(company_id, and_(*matches, *is_shown))
    if asked.sort.by is SortField.UPDATED_AT or not filters.statuses:
        return [Branch(id=i.id, at=at, conditions=[of_company], matches=[*matches, *is_shown])]
    return _by_status(company_id, filters.statuses, matches)


def _by_status(
    company_id: UUID, statuses: Collection[InterviewStatus], matches: Sequence[ColumnElement[bool]]
) -> Sequence[Branch]:
    i = interviews.c
    of_company = i.company_id == company_id
    branches = [
        Branch(
            id=i.id,
            at=i.created_at,
            conditions=[of_company, i.status == each.value],
            matches=[*matches, ~_IS_CALLED],
        )
        for each in sorted(statuses)
        if each is not InterviewStatus.IN_PROGRESS
    ]
    if InterviewStatus.IN_PROGRESS in statuses:
        called = select(attempts.c.interview_id).where(*of_calls(company_id))
        conditions = [of_company, i.id.in_(called)]
        branches.append(Branch(id=i.id, at=i.created_at, conditions=conditions, matches=matches, is_narrow=True))
    return branches


def _by_time(company_id: UUID, matches: ColumnElement[bool]) -> Sequence[Branch]:
    """Build the parts of the list: PHONE interviews by their newest attempts, and ONLINE interviews."""
    i, a = interviews.c, attempts.c
    newest = _NEWEST_ATTEMPT.with_only_columns(_NEWEST.c.id).where(_NEWEST.c.interview_id == a.interview_id)
    of_attempt = select(i.id).where(
        i.id == a.interview_id,
        i.company_id == company_id,
        i.scheduled_at.is_(None),
        matches,
    )
    is_shown = [a.id == newest.correlate(attempts).scalar_subquery(), has_row(of_attempt.correlate(attempts))]
    return [
        *(replace(each, id=a.interview_id) for each in by_due_time(company_id, (), is_shown)),
        Branch(
            id=i.id,
            at=i.scheduled_at,
            conditions=[i.company_id == company_id, i.scheduled_at.is_not(None)],
            matches=[matches],
        ),
    ]

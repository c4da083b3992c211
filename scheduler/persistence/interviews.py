"""Interviews. A transaction that changes the state of an attempt locks its interview first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, select, update

from scheduler.domain.attempt import AttemptState
from scheduler.domain.interview import Interview, InterviewFilter, InterviewStatus
from scheduler.domain.pagination import Listed, Slice
from scheduler.persistence.connection import Connection, Fixed
from scheduler.persistence.many import among_given, insert_all, update_all
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import Store, Write
from scheduler.persistence.tables import attempts, companies, interviews

_interview = partial(from_row, Interview)


@dataclass(frozen=True, kw_only=True)
class InterviewFacts:
    """An interview as operators see it: ids and states, no personal data."""

    id: UUID
    company_id: UUID
    company_name: str | None
    candidate_id: UUID
    agent_id: UUID
    job_id: UUID | None
    status: InterviewStatus
    is_test: bool
    deleted_at: datetime | None


def _add_all(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    insert_all(connection, interviews, rows)


def _set_statuses(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    update_all(connection, interviews, "id", rows)


_LOCK_ALL = Fixed(
    select(interviews)
    .where(among_given(interviews.c.id, "ids"))
    .order_by(interviews.c.id)
    .with_for_update(key_share=True)
)

_LOCK_ROWS = Fixed(
    select(interviews.c.id)
    .where(among_given(interviews.c.id, "ids"))
    .order_by(interviews.c.id)
    .with_for_update(key_share=True)
)

# After `candidates`, `agents` and `jobs`, before `attempts`.
_ADD = Write(execute=_add_all, turn=1)
_SET_STATUS = Write(execute=_set_statuses, turn=7)


class Interviews(Store):
    def add(self, interview: Interview, content_hash: bytes | None = None) -> None:
        row = as_columns(interview, without={"deleted_at"}, content_hash=content_hash)
        self._connection.write(_ADD, interview.id, row)

    def get(self, company_id: UUID, interview_id: UUID) -> Interview | None:
        """Return the interview, if it is this company's and not deleted."""
        return self._one(_interview, _of_company(company_id).where(interviews.c.id == interview_id))

    def page(self, company_id: UUID, requested: Slice, filters: InterviewFilter) -> Listed[Interview]:
        """Return a page of the company's interviews, also those whose candidate, agent or job was deleted."""
        query = _of_company(company_id)
        for column, value in (
            (interviews.c.candidate_id, filters.candidate_id),
            (interviews.c.agent_id, filters.agent_id),
            (interviews.c.job_id, filters.job_id),
            (interviews.c.external_id, filters.external_id),
        ):
            if value is not None:
                query = query.where(column == value)
        if filters.status is not None:
            query = query.where(_is_shown_as(filters.status))
        return self._page(_interview, query, interviews, requested)

    def facts(self, interview_id: UUID) -> InterviewFacts | None:
        """Return the interview of any company, for operators."""
        names = ("id", "company_id", "candidate_id", "agent_id", "job_id", "status", "is_test", "deleted_at")
        query = (
            select(*(interviews.c[name] for name in names), companies.c.name.label("company_name"))
            .join(companies, companies.c.id == interviews.c.company_id)
            .where(interviews.c.id == interview_id)
        )
        return self._one(partial(from_row, InterviewFacts), query)

    def lock(self, interview_id: UUID) -> Interview:
        """Lock the interview, deleted or not: no other transaction may change it or end its attempts."""
        row = self._connection.execute(
            select(interviews).where(interviews.c.id == interview_id).with_for_update(key_share=True)
        ).one()
        return _interview(row)

    def lock_all(self, interview_ids: Sequence[UUID]) -> list[Interview]:
        """Lock interviews like `lock`, in the order of their ids."""
        return self._all(_interview, _LOCK_ALL, {"ids": list(interview_ids)})

    def lock_rows(self, interview_ids: Sequence[UUID]) -> None:
        """Lock interviews like `lock_all`, without reading them: operators may not read all of them."""
        self._connection.execute(_LOCK_ROWS, {"ids": list(interview_ids)})

    def set_status(self, interview_id: UUID, status: InterviewStatus, now: datetime) -> None:
        over = status is not InterviewStatus.SCHEDULED
        row = {"id": interview_id, "status": status.value, "finished_at": now if over else None, "updated_at": now}
        self._connection.write(_SET_STATUS, interview_id, row)

    def save(self, interview: Interview, now: datetime) -> Interview:
        """Write the mutable fields of an interview that the caller has locked."""
        self._connection.execute(
            update(interviews)
            .where(interviews.c.id == interview.id)
            .values(
                status=interview.status.value,
                finished_at=interview.finished_at,
                expires_at=interview.expires_at,
                expires_by_default=interview.expires_by_default,
                scheduled_at=interview.scheduled_at,
                metadata=interview.metadata,
                external_id=interview.external_id,
                deleted_at=interview.deleted_at,
                updated_at=now,
            )
        )
        return replace(interview, updated_at=now)

    def of_candidate(self, candidate_id: UUID) -> list[UUID]:
        """Return all interviews of a candidate, also deleted interviews, in the order of their ids."""
        rows = self._connection.execute(
            select(interviews.c.id).where(interviews.c.candidate_id == candidate_id).order_by(interviews.c.id)
        )
        return [row.id for row in rows]

    def forget_contents(self, candidate_id: UUID) -> None:
        """Delete the hashes of the requests for a candidate's interviews. A request can contain the person's data."""
        self._connection.execute(
            update(interviews)
            .where(interviews.c.candidate_id == candidate_id, interviews.c.content_hash.is_not(None))
            .values(content_hash=None)
        )

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


def _of_company(company_id: UUID) -> Select[tuple[object, ...]]:
    return select(interviews).where(
        interviews.c.company_id == company_id,  # guard: tenant
        interviews.c.deleted_at.is_(None),
    )


def _is_shown_as(status: InterviewStatus) -> ColumnElement[bool]:
    """Match the status of `InterviewStory.status`: an attempt in progress overrides the stored status."""
    in_progress = (
        select(attempts.c.id)
        .where(attempts.c.interview_id == interviews.c.id, attempts.c.state == AttemptState.IN_PROGRESS.value)
        .exists()
    )
    if status is InterviewStatus.IN_PROGRESS:
        return in_progress
    return and_(interviews.c.status == status.value, ~in_progress)

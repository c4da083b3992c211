"""Attempts: created, read, changed and saved together with their history."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import and_, any_, bindparam, func, literal_column, null, or_, select, text

from scheduler.domain.attempt import Attempt, AttemptState, Event, NeverDialled
from scheduler.domain.company import CompanySettings
from scheduler.domain.interview import SHOWN_ATTEMPTS, Interview, InterviewStory
from scheduler.domain.resource import Listed, Slice
from scheduler.lifecycle import partner_events
from scheduler.lifecycle.retries import MOST_ATTEMPTS
from scheduler.lifecycle.state_machine import evolve
from scheduler.persistence import events
from scheduler.persistence.attempt_rows import ADD, ADD_TO_HISTORY, SAVE, attempt_of, columns_of, sealed
from scheduler.persistence.connection import Fixed, among_given
from scheduler.persistence.json_columns import settings_of
from scheduler.persistence.rows import AnyRow, from_row, readable
from scheduler.persistence.store import Free, Store, freely_locked
from scheduler.persistence.tables import attempt_history, attempts, interviews, stray_calls
from scheduler.persistence.tallies import ADD as ADD_TALLY
from scheduler.rules import tallies

_WHILE_RINGING = (
    attempts.c.state == AttemptState.IN_PROGRESS.value,
    attempts.c.look_at.is_not(None),
    and_(attempts.c.search_at.is_not(None), attempts.c.listed_at.is_(None)),
    attempts.c.id.in_(select(stray_calls.c.attempt_id).where(stray_calls.c.look_at.is_not(None))),
)
MAY_BE_RINGING = or_(*_WHILE_RINGING)
"""True if a phone may be ringing for the attempt.

That is while it is in progress, while a stray call of it is open, and after its outcome was given up until the
carrier's list has been read, or while its call was seen alive.
"""

# The first attempt of a chain has its id. Only retries are in the index of chains.
_OF_CHAINS = Fixed(
    select(attempts)
    .where(
        or_(
            among_given(attempts.c.id, "ids"),
            and_(attempts.c.retry_number > 0, among_given(attempts.c.chain_id, "ids")),
        )
    )
    .order_by(attempts.c.retry_number)
)
_LOCK_ALL = Fixed(
    select(attempts)
    .where(among_given(attempts.c.interview_id, "interview_ids"), among_given(attempts.c.id, "ids"))
    .order_by(attempts.c.id)
    .with_for_update(key_share=True)
)
_LOCK_FREE = Fixed(
    select(attempts)
    .where(among_given(attempts.c.id, "ids"))
    .order_by(attempts.c.id)
    .with_for_update(key_share=True, skip_locked=True)
)
_LOCK_FREE_OF = Fixed(
    freely_locked(attempts, lambda c: [among_given(c.interview_id, "interview_ids"), among_given(c.id, "ids")])
)
_INTERVIEW_OF = Fixed(select(attempts.c.interview_id).where(attempts.c.id == bindparam("id")))
_LOCK = Fixed(select(attempts).where(attempts.c.id == bindparam("id")).with_for_update(key_share=True))
_LISTED = select(attempts).where(
    attempts.c.id == bindparam("id"),
    attempts.c.interview_id == bindparam("interview_id"),
    attempts.c.deleted_at.is_(None),
)
_IS_LISTED = Fixed(_LISTED.with_only_columns(attempts.c.id))
_GET_LISTED = Fixed(_LISTED)
_LOCK_LISTED = Fixed(_LISTED.with_for_update(key_share=True))
_LOCK_OF_INTERVIEW = text("SELECT * FROM attempts WHERE id = :id AND interview_id = :interview_id FOR NO KEY UPDATE")
_LOCK_AS_OF = Fixed(
    select(attempts)
    .where(
        attempts.c.id == bindparam("id"),
        attempts.c.epoch == bindparam("epoch"),  # guard: epoch
    )
    .with_for_update(key_share=True)
)
_CLOSE_TOKEN = text("UPDATE attempt_tokens SET closed_sid = :call_sid WHERE token = :token")
_IS_OPEN = attempts.c.state.in_([literal_column("'PENDING'"), literal_column("'IN_PROGRESS'")])
_OPEN_OF = Fixed(
    select(attempts.c.id, attempts.c.interview_id).where(among_given(attempts.c.interview_id, "ids"), _IS_OPEN)
)
_OPEN_OR_AWAITED_OF = Fixed(
    select(attempts.c.id, attempts.c.interview_id).where(
        among_given(attempts.c.interview_id, "ids"),
        or_(
            _IS_OPEN,
            attempts.c.outcome_until.is_not(None),  # guard: late_failure
        ),
    )
)
_LOCK_OPEN = Fixed(
    select(attempts)
    .where(attempts.c.interview_id == bindparam("id"), _IS_OPEN)
    .with_for_update(key_share=True)  # guard: acceptance
)
_LOCK_UNFINISHED = Fixed(
    select(attempts)
    .where(
        attempts.c.interview_id == bindparam("id"),
        or_(
            and_(attempts.c.state == AttemptState.FAILED.value, attempts.c.look_at.is_not(None)),
            attempts.c.outcome_until.is_not(None),  # guard: awaited_outcome
        ),
    )
    .order_by(attempts.c.created_at.desc())
    .limit(1)
    .with_for_update(key_share=True)
)

# For each interview the index ends after the rows that are wanted.
_NEWEST = Fixed(
    text("""
    SELECT a.*
    FROM unnest(CAST(:ids AS uuid[])) AS given (id)
    CROSS JOIN LATERAL (
        SELECT * FROM attempts
        WHERE interview_id = given.id AND deleted_at IS NULL
        ORDER BY created_at DESC, id DESC
        LIMIT :limit
    ) a
    ORDER BY a.created_at DESC, a.id DESC
""").columns()
)
_COUNT = """
    SELECT given.id, (
        SELECT count(*) FROM (SELECT FROM attempts WHERE interview_id = given.id {condition} LIMIT :limit) counted
    ) AS attempts
    FROM unnest(CAST(:ids AS uuid[])) AS given (id)
"""
_COUNT_LISTED = Fixed(text(_COUNT.format(condition="AND deleted_at IS NULL")).columns())
_COUNT_ALL = Fixed(text(_COUNT.format(condition="")).columns())
COUNTED_ATTEMPTS = 1000
"""The attempts of an interview are counted up to this many. Only an earlier version could create more than 200."""

HIDDEN_FROM_OPERATORS = frozenset({"called_number", "token", "outcome_note"})
_WITHOUT_NUMBER = select(
    *(null().label(column.name) if column.name in HIDDEN_FROM_OPERATORS else column for column in attempts.c)
)


@dataclass(frozen=True, kw_only=True)
class CalleeRow:
    """The person whom an interview calls, and the settings of the company. `phone_number` is personal data."""

    phone_number: str | None
    timezone: str | None
    gdpr_expiry_date: date
    settings: CompanySettings
    company_deleted: bool


@dataclass(frozen=True, kw_only=True)
class OpenAttempts:
    """A part of the open attempts of a company, without unreadable ones."""

    attempts: Sequence[Attempt]
    until: UUID | None
    """The last interview of this part. None if no further one follows."""


class Attempts(Store):
    def add(self, attempt: Attempt, event: Event, actor: str, *, retry_of: UUID | None = None) -> Attempt:
        """Insert a new attempt with the first row of its history, and return it with its closing seal.

        `retry_of` is the attempt that it repeats.
        """
        attempt, row = sealed(self._connection.history_key, None, attempt, event, actor)
        with self._connection.together():
            self._connection.write(ADD, attempt.id, columns_of(attempt))
            self._connection.write(ADD_TO_HISTORY, (attempt.id, attempt.epoch), row)
            events.note(
                self._connection,
                attempt.company_id,
                lambda: partner_events.of_attempt(None, attempt, event, retry_of=retry_of),
            )
        return attempt

    def story(self, interview: Interview) -> InterviewStory:
        """Load the interview with its newest attempts."""
        return self.stories([interview])[interview.id]

    def stories(self, interviews: Sequence[Interview]) -> dict[UUID, InterviewStory]:
        """Load interviews with their newest attempts, in one query, and one more if an interview may have more.

        Attempts that this release cannot read are left out.
        """
        newest: dict[UUID, list[Attempt]] = {each.id: [] for each in interviews}
        for attempt in self._readable(attempts, attempt_of, _NEWEST, {"ids": list(newest), "limit": SHOWN_ATTEMPTS}):
            newest[attempt.interview_id].append(attempt)
        totals = self._count_listed([each for each, found in newest.items() if len(found) == SHOWN_ATTEMPTS])
        return {
            each.id: InterviewStory(
                interview=each, attempts=tuple(newest[each.id][::-1]), attempts_total=totals.get(each.id)
            )
            for each in interviews
        }

    def _count_listed(self, interview_ids: Sequence[UUID]) -> dict[UUID, int]:
        """Count the attempts of these interviews that are not deleted, up to `COUNTED_ATTEMPTS`."""
        if not interview_ids:
            return {}
        rows = self._connection.execute(_COUNT_LISTED, {"ids": list(interview_ids), "limit": COUNTED_ATTEMPTS})
        return {row.id: row.attempts for row in rows}

    def counts_of(self, interview_ids: Sequence[UUID], most: int) -> dict[UUID, int]:
        """Count the attempts of each interview, also deleted ones. `most` means that many or more."""
        rows = self._connection.execute(_COUNT_ALL, {"ids": list(interview_ids), "limit": most})
        return {row.id: row.attempts for row in rows}

    def page_of(self, interview_id: UUID, part: Slice) -> Listed[Attempt]:
        """List the attempts of an interview that are not deleted, newest first."""
        query = select(attempts).where(attempts.c.interview_id == interview_id, attempts.c.deleted_at.is_(None))
        return self._page(attempt_of, query, attempts, part)

    def get(self, interview_id: UUID, attempt_id: UUID) -> Attempt | None:
        """Find an attempt of the interview, unless it was deleted."""
        return self._one(attempt_of, _GET_LISTED, {"interview_id": interview_id, "id": attempt_id})

    def of_chains(self, chain_ids: Sequence[UUID]) -> list[AnyRow]:
        """Read rows of `attempt_of`: all attempts of chains of retries. Deleted attempts still count as tries.

        A row that cannot be read must fail its own chain: without it, the chain would have another retry.
        """
        return list(self._connection.execute(_OF_CHAINS, {"ids": list(chain_ids)}))

    def find(self, attempt_id: UUID) -> Attempt | None:
        """Find the attempt of any company, for operators, without the called number and the token."""
        return self._one(attempt_of, _WITHOUT_NUMBER.where(attempts.c.id == attempt_id))

    def find_of_interview(self, interview_id: UUID) -> tuple[Attempt, ...]:
        """List the attempts of an interview of any company, also deleted ones, oldest first, like `find`.

        At most the newest `MOST_ATTEMPTS`: only an earlier version could create more.
        """
        query = _WITHOUT_NUMBER.where(attempts.c.interview_id == interview_id)
        newest = query.order_by(attempts.c.created_at.desc(), attempts.c.id.desc()).limit(MOST_ATTEMPTS)
        return tuple(self._all(attempt_of, newest))[::-1]

    def callee_of(self, interview_id: UUID) -> CalleeRow:
        """Read the person whom the interview calls, with their current data."""
        return callee_row(self.callees_of([interview_id])[interview_id])

    def callees_of(self, interview_ids: Sequence[UUID]) -> dict[UUID, AnyRow]:
        """Read the rows of `callee_row` for interviews, in one query. A row that cannot be read fails alone."""
        return {row.interview_id: row for row in self._connection.execute(_CALLEES, {"ids": list(interview_ids)})}

    def interview_of(self, attempt_id: UUID) -> UUID | None:
        """Find the id of the interview, which must be locked before the attempt."""
        interview_id: UUID | None = self._connection.execute(_INTERVIEW_OF, {"id": attempt_id}).scalar_one_or_none()
        return interview_id

    def lock(self, attempt_id: UUID) -> Attempt:
        """Lock the attempt: no other transaction may change it until we commit."""
        return attempt_of(self._connection.execute(_LOCK, {"id": attempt_id}).one())

    def lock_all(self, interview_ids: Sequence[UUID], attempt_ids: Sequence[UUID]) -> list[Attempt]:
        """Lock these attempts of these interviews, which the caller has locked.

        The interviews are also named, because an attempt of another one must not be locked before its interview.
        """
        values = {"interview_ids": list(interview_ids), "ids": list(attempt_ids)}
        return self._all(attempt_of, _LOCK_ALL, values)

    def lock_free_of(self, interview_ids: Sequence[UUID], attempt_ids: Sequence[UUID]) -> Free[Attempt]:
        """Lock attempts like `lock_all`, and skip locked ones."""
        values = {"interview_ids": list(interview_ids), "ids": list(attempt_ids)}
        return self._free(attempts, attempt_of, _LOCK_FREE_OF, values)

    def lock_without_number(self, interview_id: UUID, attempt_id: UUID) -> Attempt | None:
        """Lock an attempt, deleted or not, of an interview that the caller has locked. Its called number is left out.

        For events that do not change the number: only changed columns are saved.
        """
        query = _WITHOUT_NUMBER.where(attempts.c.interview_id == interview_id, attempts.c.id == attempt_id)
        return self._one(attempt_of, query.with_for_update(key_share=True))

    def open_of(self, interview_ids: Sequence[UUID]) -> dict[UUID, UUID]:
        """Find the attempt of each interview that is pending or in progress, if there is one."""
        rows = self._connection.execute(_OPEN_OF, {"ids": list(interview_ids)})
        return {row.interview_id: row.id for row in rows}

    def open_or_awaited_of(self, interview_ids: Sequence[UUID]) -> list[tuple[UUID, UUID]]:
        """As `open_of`, also attempts that have ended and whose conversation may still report an outcome."""
        rows = self._connection.execute(_OPEN_OR_AWAITED_OF, {"ids": list(interview_ids)})
        return [(row.interview_id, row.id) for row in rows]

    def lock_of_interview(self, interview_id: UUID, attempt_id: UUID, *, with_deleted: bool = False) -> Attempt | None:
        """Lock an attempt of the interview. Without `with_deleted`, a deleted one is not found."""
        lock = _LOCK_OF_INTERVIEW if with_deleted else _LOCK_LISTED
        return self._one(attempt_of, lock, {"interview_id": interview_id, "id": attempt_id})

    def lock_open(self, interview_id: UUID) -> Attempt | None:
        """Lock the interview's attempt that is pending or in progress, so that it cannot be claimed until we commit."""
        return self._one(attempt_of, _LOCK_OPEN, {"id": interview_id})

    def lock_free(self, attempt_ids: Sequence[UUID]) -> list[Attempt]:
        """Lock these attempts, whose interviews the caller has locked, and skip attempts that are locked elsewhere."""
        return self._readable(attempts, attempt_of, _LOCK_FREE, {"ids": list(attempt_ids)})

    def is_listed(self, interview_id: UUID, attempt_id: UUID) -> bool:
        """Return True if the interview has that attempt and it was not deleted."""
        return self._is_any(_IS_LISTED, {"interview_id": interview_id, "id": attempt_id})

    def forget_candidate(self, candidate_id: UUID) -> None:
        """Delete the called number of the candidate's finished attempts: the previous version kept it there."""
        of_candidate = select(interviews.c.id).where(interviews.c.candidate_id == candidate_id)
        self._update(
            attempts,
            attempts.c.interview_id.in_(of_candidate),
            attempts.c.state != AttemptState.IN_PROGRESS.value,
            attempts.c.called_number.is_not(None),
            called_number=None,
        )

    def forget_history(self, before: datetime, limit: int) -> int:
        """Delete history before then. Rows are numbered as they are written, so the oldest have the lowest ids."""
        entries = select(attempt_history.c.id, attempt_history.c.at)
        oldest = entries.order_by(attempt_history.c.id).limit(limit).subquery()
        return self._delete(attempt_history, attempt_history.c.id.in_(select(oldest.c.id).where(oldest.c.at < before)))

    def lock_unfinished(self, interview_id: UUID) -> Attempt | None:
        """Lock the interview's attempt that has ended, but whose call or conversation may not be over.

        Its call was seen alive after its outcome was given up, or its conversation may still report an outcome.
        """
        return self._one(attempt_of, _LOCK_UNFINISHED, {"id": interview_id})

    def open_of_company(
        self, company_id: UUID, candidate_id: UUID | None, after: UUID | None, limit: int
    ) -> OpenAttempts:
        """List up to `limit` open attempts of a company, or of one of its candidates, in the order of interviews.

        An interview has at most one. `after`: only of interviews with ids above it.
        """
        # The index of open attempts contains the company, so the entries of other companies cost little. By the ids of
        # attempts, which are in the order of time, all finished attempts would come first.
        found = select(attempts.c.interview_id).where(attempts.c.company_id == company_id, _IS_OPEN)
        if candidate_id is not None:
            found = found.join(interviews, interviews.c.id == attempts.c.interview_id).where(
                interviews.c.candidate_id == candidate_id
            )
        if after is not None:
            found = found.where(attempts.c.interview_id > after)
        some = func.array(found.order_by(attempts.c.interview_id).limit(limit).scalar_subquery())
        query = select(attempts).where(attempts.c.interview_id == any_(some), _IS_OPEN)
        rows = self._connection.execute(query.order_by(attempts.c.interview_id)).all()
        return OpenAttempts(
            attempts=list(readable(rows, attempt_of, attempts.name)),
            until=rows[-1].interview_id if len(rows) == limit else None,
        )

    def has_pending(self, candidate_id: UUID) -> bool:
        """Return True if a pending attempt calls this candidate."""
        query = (
            select(attempts.c.id)
            .join(interviews, interviews.c.id == attempts.c.interview_id)
            .where(interviews.c.candidate_id == candidate_id, attempts.c.state == AttemptState.PENDING.value)
        )
        return self._is_any(query.limit(1))

    def lock_as_of(self, attempt_id: UUID, epoch: int) -> Attempt | None:
        """Lock the attempt if nothing has happened to it since the caller read it. None: the caller writes nothing."""
        return self._one(attempt_of, _LOCK_AS_OF, {"id": attempt_id, "epoch": epoch})

    def save(self, attempt: Attempt, event: Event, actor: str, now: datetime) -> Attempt:
        """Apply `event` to an attempt that the caller has locked, and save it with its history row.

        Raises NoSuchArrow if the event cannot happen to it.
        """
        moved, row = sealed(self._connection.history_key, attempt, evolve(attempt, event, now), event, actor)
        if self._connection.awaits(ADD, attempt.id):
            self._connection.send()
        with self._connection.together():
            self._connection.write(SAVE, attempt.id, (attempt, moved))
            self._connection.write(ADD_TO_HISTORY, (moved.id, moved.epoch), row)
            events.note(self._connection, attempt.company_id, lambda: partner_events.of_attempt(attempt, moved, event))
            for key in tallies.of_event(attempt, moved, event):
                self._connection.write(ADD_TALLY, key, (key, tallies.ONE))
        if isinstance(event, NeverDialled):
            self._connection.execute(_CLOSE_TOKEN, {"token": attempt.token, "call_sid": event.call_sid})
        return moved

    def to_stop(self, company_id: UUID, limit: int) -> list[Attempt]:
        """List open attempts of a deleted company: pending, or with a call whose end was not yet ordered.

        Attempts that this release cannot read are left out. They are pending, and never claimed, or end by themselves.
        """
        query = select(attempts).join(_TO_STOP, _TO_STOP.c.id == attempts.c.id).order_by(attempts.c.interview_id)
        return self._readable_some(attempts, attempt_of, query, limit, company_id=company_id)

    def is_calling(self, company_id: UUID) -> bool:
        """Return True if a phone may be ringing for the company."""
        # Each condition has an index. Together they would read all attempts.
        of_company = (
            select(attempts.c.id).where(attempts.c.company_id == company_id, each).exists() for each in _WHILE_RINGING
        )
        return bool(self._connection.execute(select(or_(*of_company))).scalar_one())


_CALLEES = text("""
    SELECT i.id AS interview_id, p.phone_number, p.timezone, p.gdpr_expiry_date,
           CAST(c.settings AS text) AS settings, c.calls_per_second, c.concurrent_calls,
           c.deleted_at IS NOT NULL AS company_deleted
    FROM interviews i
    JOIN candidates p ON p.id = i.candidate_id
    JOIN companies c ON c.id = i.company_id
    WHERE i.id = ANY (:ids)
""")


# In the order in which every transaction locks several interviews.
_TO_STOP = (
    text("""
        SELECT id FROM attempts WHERE company_id = :company_id AND state = 'PENDING'
        UNION ALL
        SELECT id FROM attempts
        WHERE company_id = :company_id AND state = 'IN_PROGRESS' AND phase = 'PLACED'
          AND hang_up IS DISTINCT FROM 'COMPANY_DELETED'
        UNION ALL
        -- Given up as unknown, then seen alive.
        SELECT id FROM attempts
        WHERE company_id = :company_id AND state = 'FAILED' AND look_at IS NOT NULL
          AND hang_up IS DISTINCT FROM 'COMPANY_DELETED'
    """)
    .columns(attempts.c.id)
    .subquery("open")
)


def callee_row(row: AnyRow) -> CalleeRow:
    """Read the person in a row of `callees_of`. Raises KeyError for settings that cannot be read."""
    return from_row(CalleeRow, row, settings=settings_of(row))

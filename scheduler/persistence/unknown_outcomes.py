"""Work lists of operators: unknown outcomes, stray calls, pending attempts to be cancelled, and open transactions."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import partial
from typing import TypeAlias
from uuid import UUID

from psycopg.errors import InsufficientPrivilege
from sqlalchemy import any_, func, literal_column, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import ProgrammingError

from scheduler.domain.attempt import AttemptState, Reason
from scheduler.domain.command import CommandKind
from scheduler.lifecycle.policy import POLLS, SLACK
from scheduler.persistence.connection import Fixed, among_given
from scheduler.persistence.errors import WrongRole
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import Store
from scheduler.persistence.tables import attempts, companies, inbox, stray_calls


@dataclass(frozen=True, kw_only=True)
class UnknownOutcome:
    """An attempt of unknown outcome, without the person's name or number."""

    id: UUID
    interview_id: UUID
    company_id: UUID
    claimed_at: datetime | None
    """The call can have been placed from then on."""
    ended_at: datetime
    """The outcome was given up then."""
    listed_at: datetime | None
    """The carrier's list of calls was last read in full then. None: never."""
    search_at: datetime | None
    """The next search of the carrier's list. None: the call must have ended, or was found."""
    look_at: datetime | None
    """The next poll about a call that was found live. None: no call was found."""
    call_sid: str | None
    """The carrier's id of the call that was found live, or of one that the carrier had accepted."""
    company_name: str
    is_decided: bool
    """An operator's decision about the interview waits for a worker."""


@dataclass(frozen=True, kw_only=True)
class DecisionAnswer:
    """The answer of an operator's decision about an unknown outcome."""

    is_applied: bool
    refusal: str | None
    """The reason for which nothing was decided."""
    attempt_id: UUID | None
    """The attempt that calls again, or the decided one."""


UnknownPlace: TypeAlias = tuple[datetime, UUID]
"""The place of an attempt in the list: when its outcome was given up, and its id."""

_ANSWER = text("SELECT * FROM decision_answer(:command)")
_DECISION = (
    select(inbox.c.id)
    .where(
        inbox.c.interview_id == attempts.c.interview_id,
        inbox.c.kind == CommandKind.DECIDE_OUTCOME.value,
        inbox.c.applied_at.is_(None),
    )
    .exists()
)
_OTHER = {"company_name", "is_decided"}
# As literals: they must match the index.
_TO_DECIDE = (
    select(
        *(attempts.c[name] for name in UnknownOutcome.__dataclass_fields__ if name not in _OTHER),
        companies.c.name.label("company_name"),
        _DECISION.label("is_decided"),
    )
    .join(companies, companies.c.id == attempts.c.company_id)
    .where(
        attempts.c.reason == literal_column(f"'{Reason.OUTCOME_UNKNOWN.value}'"),
        attempts.c.decided_at.is_(None),
        companies.c.deleted_at.is_(None),
    )
)
_unknown = partial(from_row, UnknownOutcome)


class UnknownOutcomes(Store):
    def page(self, company_id: UUID | None, limit: int, after: UnknownPlace | None = None) -> Sequence[UnknownOutcome]:
        """List up to `limit` attempts that are to be decided, of one company or of all, oldest first.

        `after`: only attempts that follow this place.
        """
        query = _TO_DECIDE.order_by(attempts.c.ended_at, attempts.c.id).limit(limit)
        if company_id is not None:
            query = query.where(attempts.c.company_id == company_id)
        if after is not None:
            query = query.where(tuple_(attempts.c.ended_at, attempts.c.id) > tuple_(*after))
        return self._readable(attempts, _unknown, query)

    def find(self, attempt_id: UUID) -> UnknownOutcome | None:
        """Find the attempt if it is to be decided."""
        return self._one(_unknown, _TO_DECIDE.where(attempts.c.id == attempt_id))

    def answer(self, command_id: UUID) -> DecisionAnswer | None:
        """Read the answer of an operator's decision, in the form that the console may read."""
        return self._one(partial(from_row, DecisionAnswer), _ANSWER, {"command": command_id})


# --- Stray calls: calls at the carrier that must not exist and are ended


@dataclass(frozen=True, kw_only=True)
class StrayCall:
    call_sid: str
    attempt_id: UUID
    seen_at: datetime


@dataclass(frozen=True, kw_only=True)
class LiveStrayCall(StrayCall):
    look_at: datetime
    """The time of the next poll."""


class StrayCalls(Store):
    def add(self, stray: StrayCall) -> None:
        """Add a call that is to be ended. A known one becomes due again."""
        self._connection.execute(
            insert(stray_calls)
            .values(**as_columns(stray, look_at=stray.seen_at))
            .on_conflict_do_update(index_elements=["call_sid"], set_={"look_at": stray.seen_at})
        )

    def live(self) -> Sequence[LiveStrayCall]:
        """List the stray calls that have not provably ended, oldest first."""
        query = select(stray_calls).where(stray_calls.c.look_at.is_not(None)).order_by(stray_calls.c.seen_at)
        return self._all(partial(from_row, LiveStrayCall), query)

    def due_polls(self, now: datetime, hold_until: datetime, limit: int) -> list[StrayCall]:
        """Take the stray calls that are due. No other process polls for them until `hold_until`."""
        due = (
            select(stray_calls.c.call_sid)
            # A later instant was set by a wrong clock.
            .where(or_(stray_calls.c.look_at <= now, stray_calls.c.look_at > now + POLLS[-1] + SLACK))
            .order_by(stray_calls.c.look_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = self._connection.execute(
            update(stray_calls)
            .where(stray_calls.c.call_sid == any_(func.array(due.scalar_subquery())))
            .values(look_at=hold_until)
            .returning(stray_calls.c.call_sid, stray_calls.c.attempt_id, stray_calls.c.seen_at)
        )
        return [from_row(StrayCall, row) for row in rows]

    def reschedule_poll(self, call_sid: str, poll_at: datetime) -> None:
        """Poll the carrier again at `poll_at`: the call has not provably ended."""
        self._update(stray_calls, stray_calls.c.call_sid == call_sid, look_at=poll_at)

    def ended(self, call_sid: str) -> None:
        """Record that the call has ended. It is no longer polled."""
        self._update(stray_calls, stray_calls.c.call_sid == call_sid, look_at=None)


# --- Pending attempts that an operator cancels: their rows, and the locks of the command


@dataclass(frozen=True, kw_only=True)
class AttemptKey:
    """The rows that a transaction locks for an attempt."""

    id: UUID
    interview_id: UUID
    company_id: UUID


class AttemptCancellations(Store):
    def keys(self, attempt_ids: Sequence[UUID]) -> list[AttemptKey]:
        return self._all(partial(from_row, AttemptKey), _KEYS, {"ids": list(attempt_ids)})

    def lock_to_cancel(self, interview_ids: Sequence[UUID], attempt_ids: Sequence[UUID]) -> list[AttemptKey]:
        """Lock the attempts of locked interviews that are pending and that no operator is cancelling."""
        values = {"interview_ids": list(interview_ids), "ids": list(attempt_ids)}
        return self._all(partial(from_row, AttemptKey), _LOCK_TO_CANCEL, values)


# Hashed once, with this limit, as in `attempt_counts`.
_CANCELLATIONS = (
    select(inbox.c.interview_id)
    .where(
        inbox.c.applied_at.is_(None),
        inbox.c.interview_id.is_not(None),
        inbox.c.kind == CommandKind.CANCEL_ATTEMPT.value,
    )
    .limit(100_000)
)
_KEY = tuple(attempts.c[each.name] for each in fields(AttemptKey))
_KEYS = Fixed(select(*_KEY).where(among_given(attempts.c.id, "ids")))
_LOCK_TO_CANCEL = Fixed(
    select(*_KEY)
    .where(
        among_given(attempts.c.interview_id, "interview_ids"),
        among_given(attempts.c.id, "ids"),
        attempts.c.state == AttemptState.PENDING.value,
        attempts.c.interview_id.not_in(_CANCELLATIONS),
    )
    .order_by(attempts.c.id)
    .with_for_update(key_share=True)  # guard: cancellation
)


# --- Open transactions of the database, also of other programs, for an operator who looks for a lock


@dataclass(frozen=True, kw_only=True)
class OpenTransaction:
    """A session with an open transaction. Its statement is left out, because it may contain personal data."""

    pid: int
    login: str | None
    program: str
    """The name that the program gave when it connected: Duecall's processes give theirs."""
    state: str | None
    waits_for: str | None
    """PostgreSQL's kind of wait, for example Lock or Client."""
    since: datetime
    """By the database's clock."""
    blocks: int
    """Number of sessions that wait for a lock of this one."""


class OpenTransactions(Store):
    def all(self) -> Sequence[OpenTransaction]:
        """List the open transactions except this one, oldest first."""
        return self._all(partial(from_row, OpenTransaction), _ALL)

    def end(self, pid: int) -> bool:
        """End a session of this database, and with it its transaction. False: there is no such session.

        Raises WrongRole.
        """
        try:
            return bool(self._connection.execute(_END, {"pid": pid}).scalar_one_or_none())
        except ProgrammingError as error:
            if isinstance(error.orig, InsufficientPrivilege):
                raise WrongRole(
                    f"Session {pid} belongs to a login that this one may not end. Run the command with"
                    " DATABASE_WORKER_URL set to the owner's login, or end the program itself."
                ) from error
            raise


_ALL = text("SELECT * FROM open_transactions()")
_END = text("SELECT pg_terminate_backend(pid) FROM open_transactions() WHERE pid = :pid")

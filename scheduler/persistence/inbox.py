"""The inbox: accepted commands in the order of their acceptance, and their answers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias
from uuid import UUID

from psycopg.errors import LockNotAvailable
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Row,
    Select,
    Uuid,
    and_,
    any_,
    bindparam,
    cast,
    func,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.exc import OperationalError

from scheduler.domain.command import Answer, Command, CommandKind, refusal_of
from scheduler.domain.refusals import CommandDropped
from scheduler.lifecycle.policy import MAX_AWAITED, OWED_AFTER, SLACK
from scheduler.persistence.connection import Fixed, among, among_given
from scheduler.persistence.json_columns import ANSWER
from scheduler.persistence.quarantine import WorkStore, has_waited, taking
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import change, insertion
from scheduler.persistence.tables import attempts, companies, inbox, interviews


class StillRunning(Exception):
    """A request with the same idempotency key has not been answered yet."""


@dataclass(frozen=True, kw_only=True)
class OwedRefusal:
    """A refusal that neither a response nor an event has reported."""

    id: UUID
    company_id: UUID
    interview_id: UUID | None
    code: str


_ANSWER = change(inbox, turn=8)
_DROP = text("SELECT drop_quarantined(CAST(:ids AS uuid[]), :now, CAST(:answer AS jsonb))")
_ADD_ALL = insertion(inbox, turn=8)
_ADDED = ("id", "principal_id", "company_id", "request_hash", "body", "interview_id", "received_at", "failures")


@dataclass(frozen=True, kw_only=True)
class FoundCommand:
    command: Command
    company_deleted: bool
    """True if the command's company no longer exists. False for a command without a company."""


@dataclass(frozen=True, kw_only=True)
class NextCommand:
    """The oldest waiting command of its interview."""

    command: Command
    is_held: bool
    """True while another transaction has locked a row that the command needs."""


FoundOrError: TypeAlias = FoundCommand | ValueError
"""A command, or the error that its row cannot be read. It concerns none of the other commands of a query."""


class Inbox(WorkStore):
    _done_at = inbox.c.applied_at
    _due = taking(
        inbox.c.id,
        and_(inbox.c.applied_at.is_(None), inbox.c.quarantined_at.is_(None), has_waited(inbox)),
        in_order_of=inbox.c.seq,
    )

    def add(self, command: Command, *, refusing: UUID | None = None) -> bool:
        """Store the command, accepted or already refused.

        `refusing`: the command reports that the number of this attempt is not to be called again. Until it is applied,
        the last look blocks that number. False if its principal has sent a command with that idempotency key before.
        """
        values = as_columns(
            command,
            without={"quarantined_at", "former_hash"},
            body=None if command.body is None else json.dumps(command.body),
            answer=None if command.answer is None else json.dumps(_answer_as_json(command.answer)),
        )
        if refusing is None:
            return self._connection.execute(_ADD, values).first() is not None
        return self._connection.execute(_ADD_REFUSAL, {**values, "refusing": refusing}).first() is not None

    def add_all(self, commands: Sequence[Command]) -> None:
        """Store waiting commands without idempotency keys. Reads nothing, because operators may not read bodies."""
        for command in commands:
            row = {name: getattr(command, name) for name in _ADDED}
            row |= {"kind": command.kind.value, "rung_at": command.received_at}
            self._connection.write(_ADD_ALL, command.id, row)

    def by_key(self, principal_id: UUID, idempotency_key: str) -> Command | None:
        return self._one(_command, select(inbox).where(_of_key(principal_id, idempotency_key)))

    def find(self, principal_id: UUID, command_id: UUID) -> FoundCommand | None:
        """Find the principal's command of this id, with the state of its company."""
        found = self.find_all(principal_id, [command_id]).get(command_id)
        if isinstance(found, ValueError):
            raise found
        return found

    def find_all(self, principal_id: UUID, command_ids: Sequence[UUID]) -> dict[UUID, FoundOrError]:
        values = {"principal_id": principal_id, "ids": list(command_ids)}
        return dict(self._all(_found_or_error, _FIND_ALL, values))

    def find_by_key(self, principal_id: UUID, idempotency_key: str) -> FoundCommand | None:
        """Find the command like `by_key`, with the state of its company."""
        return self._one(_found, _WITH_COMPANY.where(_of_key(principal_id, idempotency_key)))

    def which_answered(self, command_ids: Sequence[UUID]) -> Sequence[UUID]:
        """Find which of the commands, of any principals, are no longer waiting.

        For a process that checks for all its requests at once. It reads nothing else of the commands.
        """
        rows = self._connection.execute(select(func.answered_commands(cast(list(command_ids), ARRAY(Uuid)))))
        return list(rows.scalars())

    def lock_next(self, command_id: UUID) -> NextCommand | None:
        """Lock the command if it waits, no other worker has locked it, and no older one of its interview waits.

        Its interview and that interview's open attempt are also locked, unless another transaction has locked them.
        """
        return self._one(_next, _LOCK_NEXT, {"id": command_id})

    def companies_of(self, command_ids: Sequence[UUID]) -> Mapping[UUID, UUID]:
        """Find the companies of commands."""
        rows = self._connection.execute(_COMPANIES_OF, {"ids": list(command_ids)})
        return {row.id: row.company_id for row in rows}

    def lock_new(self, command_ids: Sequence[UUID]) -> list[Command]:
        """Lock the commands among these that create an interview, wait and are not locked by another worker.

        Oldest first. A command that has failed before is left out, because it might fail the others of its batch again.
        """
        return self._readable(inbox, _command, _LOCK_NEW, {"ids": list(command_ids)})

    def next_of(self, interview_id: UUID) -> UUID | None:
        """Find an interview's oldest waiting command. None while it is in quarantine, which blocks the others."""
        row = self._connection.execute(
            select(inbox.c.id, inbox.c.quarantined_at)
            .where(inbox.c.interview_id == interview_id, inbox.c.applied_at.is_(None))
            .order_by(inbox.c.seq)
            .limit(1)
        ).one_or_none()
        return None if row is None or row.quarantined_at is not None else row.id

    def take_key(self, command: Command) -> bool:
        """Store a command that is applied in this same transaction, like `add`.

        A request with the same key waits for our commit. Raises StillRunning if that takes too long.
        """
        try:
            return self.add(command)
        except OperationalError as error:
            if isinstance(error.orig, LockNotAvailable):
                raise StillRunning from error
            raise

    def answer(self, command: Command, answer: Answer, interview_id: UUID | None, now: datetime) -> None:
        """Mark the command as applied: store its answer and delete its body."""
        row = {"id": command.id, "interview_id": interview_id, "applied_at": now, "body": None, "number_hash": None}
        self._connection.write(_ANSWER, command.id, {**row, "answer": _answer_as_json(answer)})

    def end_wait(self, command_id: UUID) -> bool:
        """Note that no request waits for the command. False if it was applied before."""
        return self._connection.execute(_END_WAIT, {"id": command_id}).first() is not None

    def returned(self, command_id: UUID) -> None:
        """Note that a request has returned the command's refusal as its response."""
        self._connection.execute(_RETURNED, {"id": command_id})

    def is_one_owed(self, now: datetime) -> bool:
        """Return True if a refusal was not returned by the request that waited for it."""
        return self._is_any(_IS_ONE_OWED, _instants_owed(now))

    def take_owed(self, now: datetime, limit: int) -> Sequence[OwedRefusal]:
        """Take refusals that no request has returned. The caller reports them by events."""
        return self._all(partial(from_row, OwedRefusal), _TAKE_OWED, {**_instants_owed(now), "limit": limit})

    def drop(self, command_ids: Sequence[UUID], now: datetime) -> None:
        """Answer commands in quarantine with COMMAND_DROPPED and delete their bodies: these may be personal data."""
        answer = _answer_as_json(Answer(refusal=refusal_of(CommandDropped())))
        values = {"ids": list(command_ids), "now": now, "answer": json.dumps(answer)}
        self._connection.execute(_DROP, values)

    def lock_forgotten(self, before: datetime, limit: int) -> Mapping[UUID, UUID | None]:
        """Lock commands in quarantine since before then that block no interview. Return their companies."""
        query = (
            select(inbox.c.id, inbox.c.company_id)
            .where(*_QUARANTINED, inbox.c.quarantined_at < before, inbox.c.interview_id.is_(None))
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return {row.id: row.company_id for row in self._connection.execute(query)}

    def forget(self, before: datetime, limit: int) -> int:
        """Delete commands that were answered before then. Unanswered commands stay, however old they are."""
        old = select(inbox.c.id).where(inbox.c.applied_at < before).order_by(inbox.c.applied_at).limit(limit)
        return self._delete_free(inbox.c.id, old)

    def count_unapplied(self) -> Sequence[Row[Any]]:
        """Count the waiting and quarantined commands of each company that has any, with the oldest waiting instant."""
        return self._connection.execute(_COUNT_UNAPPLIED).all()


_WAITS = inbox.c.quarantined_at.is_(None)
_COUNT_UNAPPLIED = Fixed(
    select(
        inbox.c.company_id,
        func.count().filter(_WAITS).label("waiting"),
        func.min(inbox.c.received_at).filter(_WAITS).label("oldest_at"),
        func.count().filter(~_WAITS).label("quarantined"),
    )
    .where(inbox.c.applied_at.is_(None))
    .group_by(inbox.c.company_id)
)
_COMPANY_DELETED = and_(
    inbox.c.company_id.is_not(None),
    ~select(companies.c.id).where(companies.c.id == inbox.c.company_id, companies.c.deleted_at.is_(None)).exists(),
)
# One query: it answers each request that has waited for its command.
_WITH_COMPANY = select(inbox, _COMPANY_DELETED.label("company_deleted"))

_FIND_ALL = Fixed(
    _WITH_COMPANY.where(among_given(inbox.c.id, "ids"), inbox.c.principal_id == bindparam("principal_id"))
)


def _of_key(principal_id: UUID, idempotency_key: str) -> ColumnElement[bool]:
    return and_(
        inbox.c.principal_id == principal_id,  # guard: own_key
        inbox.c.idempotency_key == idempotency_key,
    )


# These are built once: building them for each command took longer than executing them.
_INSERT = """
    INSERT INTO inbox (
        id, principal_id, key_id, company_id, idempotency_key, request_hash, kind, body, interview_id, number_hash,
        received_at, rung_at, applied_at, answer, awaited_until, failures
    )
    VALUES (
        :id, :principal_id, :key_id, :company_id, :idempotency_key, :request_hash, :kind, CAST(:body AS jsonb),
        :interview_id, {number_hash}, :received_at, :received_at, :applied_at, CAST(:answer AS jsonb), :awaited_until, 0
    )
    ON CONFLICT (principal_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
    RETURNING id
"""
_ADD = text(_INSERT.format(number_hash="NULL"))
_CALLED = "(SELECT a.number_hash FROM attempts a WHERE a.id = :refusing AND a.interview_id = :interview_id)"
_ADD_REFUSAL = text(_INSERT.format(number_hash=_CALLED))
_END_WAIT = text("UPDATE inbox SET awaited_until = NULL WHERE id = :id AND applied_at IS NULL RETURNING id")
_RETURNED = text("UPDATE inbox SET awaited_until = NULL WHERE id = :id")
_OWED = """
    applied_at < awaited_until AND answer ? 'refusal' AND quarantined_at IS NULL
    AND (
        awaited_until <= :before
        OR awaited_until > :latest  -- guard: owed_in_future
    )
"""
_IS_ONE_OWED = text(f"SELECT 1 FROM inbox WHERE {_OWED} LIMIT 1")  # noqa: S608 - constant
_TAKE_OWED = text(f"""
    UPDATE inbox SET awaited_until = NULL
    WHERE id = ANY (ARRAY (SELECT id FROM inbox WHERE {_OWED} LIMIT :limit FOR UPDATE SKIP LOCKED))
    RETURNING id, company_id, interview_id, answer #>> '{{refusal,code}}' AS code
""")  # noqa: S608 - constant
_OLDER = inbox.alias("older")
_NEXT = (
    select(inbox)
    .where(
        inbox.c.id == bindparam("id"),
        inbox.c.applied_at.is_(None),
        inbox.c.quarantined_at.is_(None),
        # A command of a newer version is left to that version's workers.
        among(inbox.c.kind, [kind.value for kind in CommandKind]),
        ~select(_OLDER.c.id)
        .where(_OLDER.c.interview_id == inbox.c.interview_id, _OLDER.c.seq < inbox.c.seq, _OLDER.c.applied_at.is_(None))
        .exists(),
    )
    .with_for_update(skip_locked=True)
    .cte("next")
)


def _is_held(rows: Select[tuple[UUID]], name: str, *, shared: bool = False) -> ColumnElement[bool]:
    """Lock the only row that the query finds. True if another transaction has locked it, which is not waited for."""
    free = rows.with_for_update(skip_locked=True, key_share=True, read=shared).cte(name)
    return and_(rows.exists(), ~select(free).exists())


def _of_next(name: str) -> ColumnElement[Any]:
    return select(inbox.c[name]).where(inbox.c.id == bindparam("id")).scalar_subquery()


# In the order of all locks. A command of a locked interview would otherwise delay those of all others.
_LOCK_NEXT = Fixed(
    select(
        _NEXT,
        or_(
            _is_held(
                select(companies.c.id).where(companies.c.id == _of_next("company_id")),
                "free_company",
                shared=True,
            ),
            _is_held(
                select(interviews.c.id).where(interviews.c.id == _of_next("interview_id")),
                "free_interview",
            ),
            _is_held(
                select(attempts.c.id).where(
                    attempts.c.interview_id == _of_next("interview_id"),
                    attempts.c.state.in_([literal_column("'PENDING'"), literal_column("'IN_PROGRESS'")]),
                ),
                "free_attempt",
            ),
        ).label("is_held"),
    )
)
_COMPANIES_OF = Fixed(select(inbox.c.id, inbox.c.company_id).where(among_given(inbox.c.id, "ids")))

# Its commands would wait for a company that another transaction has locked against references to it.
_FREE_COMPANIES = (
    select(companies.c.id)
    .where(
        companies.c.id
        == any_(func.array(select(inbox.c.company_id).where(among_given(inbox.c.id, "ids")).scalar_subquery()))
    )
    .with_for_update(read=True, key_share=True, skip_locked=True)
    .cte("free_companies")
)
_LOCK_NEW = Fixed(
    select(inbox)
    .where(
        among_given(inbox.c.id, "ids"),
        inbox.c.applied_at.is_(None),
        inbox.c.quarantined_at.is_(None),
        inbox.c.kind == CommandKind.CREATE_INTERVIEW.value,
        inbox.c.interview_id.is_(None),
        inbox.c.failures == 0,
        inbox.c.company_id.in_(select(_FREE_COMPANIES.c.id)),
    )
    .order_by(inbox.c.seq)
    .with_for_update(skip_locked=True)
)

_QUARANTINED = (inbox.c.applied_at.is_(None), inbox.c.quarantined_at.is_not(None))


def _instants_owed(now: datetime) -> dict[str, datetime]:
    return {"before": now - OWED_AFTER, "latest": now + MAX_AWAITED + SLACK}


def _command(row: Row[tuple[Any, ...]]) -> Command:
    return from_row(Command, row, answer=_answer_of(row), former_hash=b"")


def _next(row: Row[tuple[Any, ...]]) -> NextCommand:
    return NextCommand(command=_command(row), is_held=row.is_held)


def _answer_as_json(answer: Answer) -> dict[str, Any]:
    form = ANSWER.dump_python(answer, mode="json")
    return {name: value for name, value in form.items() if value is not None}


def _answer_of(row: Row[tuple[Any, ...]]) -> Answer | None:
    return None if row.answer is None else ANSWER.validate_python(row.answer)


def _found(row: Row[tuple[Any, ...]]) -> FoundCommand:
    return FoundCommand(command=_command(row), company_deleted=row.company_deleted)


def _found_or_error(row: Row[tuple[Any, ...]]) -> tuple[UUID, FoundOrError]:
    try:
        return row.id, _found(row)
    except ValueError as error:
        return row.id, error

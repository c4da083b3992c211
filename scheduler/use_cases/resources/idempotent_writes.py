"""Writes: what the API applies itself, in one transaction with its answer, and once for an idempotency key."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar
from uuid import UUID, uuid4

from scheduler.clock import Now
from scheduler.domain.agent import Agent
from scheduler.domain.candidate import Candidate
from scheduler.domain.command import Answer, Command, CommandKind, Refusal, refusal_of
from scheduler.domain.company import Company
from scheduler.domain.job import Job
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import AccessDenied, CompanyDeleted, CompanyIdRequired, Forbidden, Refused
from scheduler.domain.resource import Resource
from scheduler.failpoints import failpoint
from scheduler.persistence.commits import Commit
from scheduler.persistence.database import Database, Stores
from scheduler.persistence.json_columns import record_as_json, record_from_json
from scheduler.use_cases.submit import authorized_company, first_with_its_key
from scheduler.wire.named_fields import Fields, named

Within = TypeVar("Within", bound=UUID | None)

_NEVER_KEPT = (AccessDenied, CompanyIdRequired, Forbidden)
"""Who may not ask gets no answer to keep."""
_RECORD_OF: dict[CommandKind, type[Resource]] = {
    CommandKind.CREATE_COMPANY: Company,
    CommandKind.UPDATE_COMPANY: Company,
    CommandKind.CREATE_JOB: Job,
    CommandKind.UPDATE_JOB: Job,
    CommandKind.CREATE_CANDIDATE: Candidate,
    CommandKind.UPDATE_CANDIDATE: Candidate,
    CommandKind.CREATE_AGENT: Agent,
    CommandKind.UPDATE_AGENT: Agent,
}
_OUTLIVES_ITS_COMPANY = frozenset({CommandKind.CREATE_COMPANY, CommandKind.DELETE_COMPANY})
"""Were these answers erased with it, a repetition would make a company anew, or be told that there never was one."""


@dataclass(frozen=True, kw_only=True)
class WriteRequest:
    """How a write was sent: what tells it from any other, and by which key it is known."""

    kind: CommandKind
    principal: Principal
    idempotency_key: str | None
    request_hash: bytes
    fields: Fields = field(default_factory=dict)
    """What a refusal calls the field that it is about."""
    command_id: UUID = field(default_factory=uuid4)
    """Its id in the inbox, where a write with an idempotency key is kept."""
    commit: Commit | None = None
    """For a caller that must know whether the write was committed. `IdempotentWrites.once` stores its result there."""


@dataclass(frozen=True, kw_only=True)
class WriteResult:
    """What became of a write: the record as it is now, or a refusal; neither when the record is gone."""

    record: Resource | None = None
    refusal: Refusal | None = None
    replayed: bool = False
    """It was answered before, and this is that answer."""


class IdempotentWrites:
    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

    def once(
        self,
        sent: WriteRequest,
        within: Callable[[Stores], Within],
        write: Callable[[Stores, Within, datetime], Resource | None],
    ) -> WriteResult:
        """Do it and keep the answer, or give the answer that was kept when this key came first.

        `within` says which company it is about, and refuses whoever may not ask; that is not kept. What `write` refuses
        is kept, and nothing else of what it did. The company is not deleted meanwhile: it was before, or will be after.
        Raises AccessDenied, CompanyIdRequired, InsufficientPermissions, IdempotencyKeyReused, StillRunning,
        DatabaseAway: then nothing was done. Raises CommitInDoubt: then it may have been.
        """
        with self._database.transaction(sent.principal, commit=sent.commit) as stores:
            company_id = within(stores)
            now = stores.instant(self._now)
            command = _command(sent, company_id, now)
            if command.idempotency_key is not None and not stores.inbox.take_key(command):
                return _kept(sent, _told_again(stores, first_with_its_key(stores, command)))
            try:
                with stores.connection.begin_nested():
                    # Not before: whoever waits for another request with its key must keep no company from its end.
                    if command.company_id is not None and not stores.companies.hold(command.company_id):
                        raise AccessDenied
                    with named(sent.fields):
                        record = write(stores, company_id, now)
                    failpoint("write.writing")
            except _NEVER_KEPT:
                raise
            except Refused as refused:
                written = WriteResult(refusal=refusal_of(refused))
                answer = Answer(refusal=written.refusal)
            else:
                written = WriteResult(record=record)
                answer = Answer(snapshot=None if record is None else record_as_json(record))
            if command.idempotency_key is not None:
                stores.inbox.answer(command.id, answer, None, now)
            _kept(sent, written)
            failpoint("write.answering")
        failpoint("write.written")
        return written


def of_company(principal: Principal, company_id: UUID | None) -> Callable[[Stores], UUID]:
    """For `once`: the company that a request is about; see `authorized_company`."""
    return lambda stores: authorized_company(stores, principal, company_id)


def the_company(principal: Principal, company_id: UUID) -> Callable[[Stores], UUID]:
    """For `once`: that very company. Raises AccessDenied alike for one that is not there and for somebody else's."""

    def reached(stores: Stores) -> UUID:
        if not stores.keys.reach(principal, [company_id]):
            raise AccessDenied
        return company_id

    return reached


def _kept(sent: WriteRequest, written: WriteResult) -> WriteResult:
    """Keep what is returned once it is committed, for a caller that does not hear of the commit."""
    if sent.commit is not None:
        sent.commit.result = written
    return written


def _told_again(stores: Stores, command: Command) -> WriteResult:
    """The answer that was kept, with what it does not keep as it is now."""
    assert command.answer is not None
    if command.answer.refusal is not None:
        return WriteResult(refusal=command.answer.refusal, replayed=True)
    if command.answer.snapshot is None:
        return WriteResult(replayed=True)
    kind = _RECORD_OF[command.kind]
    present = _present(stores, kind, command)
    if kind is Company and present is None:  # without it the answer would show settings that it never had
        return WriteResult(refusal=refusal_of(CompanyDeleted()), replayed=True)
    return WriteResult(record=record_from_json(kind, command.answer.snapshot, present), replayed=True)


def _command(sent: WriteRequest, company_id: UUID | None, now: datetime) -> Command:
    return Command(
        id=sent.command_id,
        kind=sent.kind,
        principal_id=sent.principal.id,
        key_id=sent.principal.key_id,
        company_id=None if sent.kind in _OUTLIVES_ITS_COMPANY else company_id,
        idempotency_key=sent.idempotency_key,
        request_hash=sent.request_hash,
        received_at=now,
        applied_at=now,
        answer=Answer(),
    )


def _present(stores: Stores, kind: type[Resource], command: Command) -> Resource | None:
    """The record as it is now; None when it is gone."""
    assert command.answer is not None
    assert command.answer.snapshot is not None
    record_id = UUID(command.answer.snapshot["id"])
    if kind is Company:
        return stores.companies.get(record_id)
    company_id = command.company_id
    assert company_id is not None
    if kind is Job:
        return stores.jobs.get(company_id, record_id)
    if kind is Candidate:
        return stores.candidates.get(company_id, record_id)
    return stores.agents.get(company_id, record_id)

"""Writes that the API applies itself, once per idempotency key, and outcomes of commands and commits in doubt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.batch import Batch
from scheduler.domain.command import Answer, Command, CommandKind, Refusal, refusal_of
from scheduler.domain.company import Company
from scheduler.domain.delivery_history import Replay
from scheduler.domain.interview import Agent, Candidate, Job
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import AccessDenied, CompanyDeleted, CompanyIdRequired, Forbidden, NotFound, Refused
from scheduler.domain.resource import Resource
from scheduler.domain.webhook import EndpointTest, WebhookEndpoint
from scheduler.failpoints import failpoint
from scheduler.persistence.database import Database
from scheduler.persistence.errors import Commit, Outcome
from scheduler.persistence.json_columns import record_as_json, record_from_json
from scheduler.persistence.stores import Stores
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.access import authorized_company, first_with_its_key
from scheduler.use_cases.shared.hints import Hints
from scheduler.use_cases.submit import Submit
from scheduler.wire.named_fields import Fields, named

# --- Lookout: outcomes of commands and commits for requests that got no answer from the database, or not yet


class CommandLookup:
    """Uses its own connections, so that it never waits for the ones that hang. Raises DatabaseAway."""

    def __init__(self, database: Database, submit: Submit, hints: Hints) -> None:
        self._database = database
        self._submit = submit
        self._hints = hints

    def which_answered(self, command_ids: Sequence[UUID]) -> frozenset[UUID]:
        """Find the ids of the commands that have been answered."""
        with self._database.reading() as stores:
            return frozenset(stores.inbox.which_answered(command_ids))

    def outcome_of(self, transaction_id: str) -> Outcome:
        """Look up the outcome of a transaction whose commit was not confirmed."""
        return self._database.outcome_of(transaction_id)

    def accepted(self, principal: Principal, command_id: UUID, idempotency_key: str | None) -> Command:
        """Find the command that a commit in doubt has stored, and send the hint that the request could not send.

        With an idempotency key it may be an earlier command. Raises NotFound, AccessDenied.
        """
        try:
            command = self._submit.find(principal, str(command_id))
        except NotFound:
            if idempotency_key is None:
                raise
            command = self._submit.find(principal, idempotency_key)
        if command.applied_at is None:
            self._hints.send(tasks.APPLY, [command.id])
        return command


# --- Writes: changes that the API applies itself, in one transaction with the stored answer, once per idempotency key


Within = TypeVar("Within", bound=UUID | None)

_NOT_STORED = (AccessDenied, CompanyIdRequired, Forbidden)
"""Authorization errors are not stored as idempotent answers."""
_RECORD_OF: dict[CommandKind, type[Resource]] = {
    CommandKind.CREATE_COMPANY: Company,
    CommandKind.UPDATE_COMPANY: Company,
    CommandKind.CREATE_JOB: Job,
    CommandKind.UPDATE_JOB: Job,
    CommandKind.CREATE_CANDIDATE: Candidate,
    CommandKind.UPDATE_CANDIDATE: Candidate,
    CommandKind.CREATE_AGENT: Agent,
    CommandKind.UPDATE_AGENT: Agent,
    CommandKind.CREATE_WEBHOOK: WebhookEndpoint,
    CommandKind.UPDATE_WEBHOOK: WebhookEndpoint,
    CommandKind.RESET_WEBHOOK_CIRCUIT: WebhookEndpoint,
    CommandKind.ROTATE_WEBHOOK: WebhookEndpoint,
    CommandKind.TEST_WEBHOOK: EndpointTest,
    CommandKind.REPLAY_DELIVERIES: Replay,
    CommandKind.CREATE_BATCH: Batch,
    CommandKind.PAUSE_BATCH: Batch,
    CommandKind.RESUME_BATCH: Batch,
    CommandKind.CANCEL_BATCH: Batch,
}
_OUTLIVES_ITS_COMPANY = frozenset({CommandKind.CREATE_COMPANY, CommandKind.DELETE_COMPANY})
"""Answers not erased with their company: a repeated request would create it again, or find that it never existed."""


@dataclass(frozen=True, kw_only=True)
class WriteRequest:
    """A write as it was sent: its identity and its idempotency key."""

    kind: CommandKind
    principal: Principal
    idempotency_key: str | None
    request_hash: bytes
    former_hash: bytes = b""
    """See `Command.former_hash`."""
    fields: Fields = field(default_factory=dict)
    """Names of the request's fields for refusals."""
    command_id: UUID
    """Its id in the inbox, which stores writes with an idempotency key."""
    trace_id: str | None = None
    """Id of the request, for the audit."""
    commit: Commit | None = None
    """For callers that must know whether it was committed. Its result is what `IdempotentWrites.once` returns."""


@dataclass(frozen=True, kw_only=True)
class WriteResult:
    """The result of a write: the current record or a refusal, or neither for a deleted record."""

    record: Resource | None = None
    refusal: Refusal | None = None
    replayed: bool = False
    """True if this is the stored answer to an earlier request."""
    existed: bool = False
    """True if an earlier request had created the record with the same external id."""


class IdempotentWrites:
    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

    def once(
        self,
        sent: WriteRequest,
        within: Callable[[Stores], Within],
        write: Callable[[Stores, Within, datetime], Resource | WriteResult | None],
    ) -> WriteResult:
        """Run a write and store its answer, or return the stored answer of this idempotency key.

        `write` returns the record, or a result with a record that existed.
        `within` returns the company and raises authorization errors, which are not stored. A refusal by `write` is
        stored, and its other changes are rolled back. The company cannot be deleted while this runs.
        Raises AccessDenied, CompanyIdRequired, InsufficientPermissions, IdempotencyKeyReused, StillRunning,
        DatabaseAway: nothing was written. Raises CommitInDoubt: the write may have been committed.
        """
        with self._database.transaction(sent.principal, commit=sent.commit) as stores:
            company_id = within(stores)
            now = stores.instant(self._now)
            command = _command(sent, company_id, now)
            if command.idempotency_key is not None and not stores.inbox.take_key(command):
                return _set_commit_result(sent, _replay(stores, first_with_its_key(stores, command)))
            try:
                with stores.connection.begin_nested():
                    # Lock it late: a request that waits for another one with its key must not block a deletion.
                    if command.company_id is not None and not stores.companies.hold(command.company_id):
                        raise AccessDenied
                    with named(sent.fields):
                        done = write(stores, company_id, now)
                    failpoint("write.writing")
            except _NOT_STORED:
                raise
            except Refused as refused:
                written = WriteResult(refusal=refusal_of(refused))
                answer = Answer(refusal=written.refusal)
            else:
                written = done if isinstance(done, WriteResult) else WriteResult(record=done)
                answer = _answer_of(written)
            if command.idempotency_key is not None:
                stores.inbox.answer(command, answer, None, now)
            _set_commit_result(sent, written)
            failpoint("write.answering")
        failpoint("write.written")
        return written

    def of_company(
        self,
        sent: WriteRequest,
        company_id: UUID | None,
        write: Callable[[Stores, UUID, datetime], Resource | WriteResult | None],
    ) -> WriteResult:
        """Do as `once`, for the company of a request (see `authorized_company`)."""
        return self.once(sent, lambda stores: authorized_company(stores, sent.principal, company_id), write)


def the_company(principal: Principal, company_id: UUID) -> Callable[[Stores], UUID]:
    """For `once`: this company. Raises AccessDenied if it is missing or the key may not reach it."""

    def reached(stores: Stores) -> UUID:
        if not stores.keys.reach(principal, company_id):
            raise AccessDenied
        return company_id

    return reached


def _answer_of(written: WriteResult) -> Answer:
    if written.record is None:
        return Answer()
    return Answer(snapshot=record_as_json(written.record), existed=True if written.existed else None)


def _set_commit_result(sent: WriteRequest, written: WriteResult) -> WriteResult:
    """Store the result in `commit`, for a caller whose commit is not confirmed."""
    if sent.commit is not None:
        sent.commit.result = written
    return written


def _replay(stores: Stores, command: Command) -> WriteResult:
    """Replay the stored answer. Fields that it does not store have their current values."""
    assert command.answer is not None
    if command.answer.refusal is not None:
        return WriteResult(refusal=command.answer.refusal, replayed=True)
    if command.answer.snapshot is None:
        return WriteResult(replayed=True)
    kind = _RECORD_OF[command.kind]
    current = _current_record(stores, kind, command)
    if kind is Company and current is None:  # otherwise the answer would show settings that it never had
        return WriteResult(refusal=refusal_of(CompanyDeleted()), replayed=True)
    return WriteResult(
        record=record_from_json(kind, command.answer.snapshot, current),
        replayed=True,
        existed=command.answer.existed is True,
    )


def _command(sent: WriteRequest, company_id: UUID | None, now: datetime) -> Command:
    return Command(
        id=sent.command_id,
        kind=sent.kind,
        principal_id=sent.principal.id,
        key_id=sent.principal.key_id,
        company_id=None if sent.kind in _OUTLIVES_ITS_COMPANY else company_id,
        idempotency_key=sent.idempotency_key,
        request_hash=sent.request_hash,
        former_hash=sent.former_hash,
        received_at=now,
        applied_at=now,
        answer=Answer(),
    )


def _current_record(stores: Stores, kind: type[Resource], command: Command) -> Resource | None:
    """Read the current record, or None if it has been deleted."""
    assert command.answer is not None
    assert command.answer.snapshot is not None
    if kind is Replay:
        return None  # it never changes
    record_id = UUID(command.answer.snapshot["id"])
    if kind is Company:
        return stores.companies.get(record_id)
    if kind is WebhookEndpoint:
        return stores.webhook_endpoints.get(command.principal_id, record_id)
    if kind is EndpointTest:
        return None  # it never changes
    company_id = command.company_id
    assert company_id is not None
    if kind is Job:
        return stores.jobs.get(company_id, record_id)
    if kind is Batch:
        return stores.batches.get(company_id, record_id)
    if kind is Candidate:
        return stores.candidates.get(company_id, record_id)
    return stores.agents.get(company_id, record_id)

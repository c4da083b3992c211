"""Submit: a command becomes durable, and only then is it accepted."""

from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID, uuid4

from scheduler.clock import Now
from scheduler.domain.attempt import Attempt, AttemptState
from scheduler.domain.command import (
    KIND_OF,
    Answer,
    Command,
    CommandKind,
    CreateInterview,
    DeleteAttempt,
    Request,
    RescheduleAttempt,
    refusal_of,
)
from scheduler.domain.interview import Interview
from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.refusals import (
    AccessDenied,
    CompanyIdRequired,
    IdempotencyKeyReused,
    NotFound,
    Refused,
)
from scheduler.failpoints import failpoint
from scheduler.lifecycle import decisions
from scheduler.persistence.commits import Commit
from scheduler.persistence.database import Database, Stores
from scheduler.persistence.json_columns import request_as_json
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.hints import Hints
from scheduler.wire.field_types import is_idempotency_key

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The command is in the inbox; from now on it is never lost."""

    command: Command
    replayed: bool
    """It was there already: the same key and request had been sent before."""


class Submit:
    def __init__(self, database: Database, hints: Hints, now: Now) -> None:
        self._database = database
        self._hints = hints
        self._now = now

    def command(
        self,
        principal: Principal,
        company_id: UUID | None,
        request: Request,
        *,
        idempotency_key: str | None,
        request_hash: bytes,
        command_id: UUID | None = None,
        commit: Commit | None = None,
    ) -> Accepted:
        """Accept what is asked for; or keep it as refused, when that can be said at once.

        From the commit on no attempt of its interview is claimed until it has been applied. A caller that gives the
        command its id can look for it when the commit was in doubt.

        Raises CompanyIdRequired, AccessDenied, IdempotencyKeyReused, DatabaseAway: then nothing was accepted. Raises
        CommitInDoubt: then it may have been.
        """
        with self._database.transaction(principal, commit=commit) as stores:
            company = authorized_company(stores, principal, company_id)
            if not stores.companies.hold(company):
                raise AccessDenied  # it was deleted at this moment
            refused = _refused_at_once(stores, company, request)
            now = stores.instant(self._now)
            kind = KIND_OF[type(request)]
            command = Command(
                id=command_id or uuid4(),
                kind=kind,
                principal_id=principal.id,
                key_id=principal.key_id,
                company_id=company,
                idempotency_key=idempotency_key,
                request_hash=request_hash,
                received_at=now,
                body=request_as_json(kind, request) if refused is None else None,
                # A refused one holds nothing up, whatever it named.
                interview_id=getattr(request, "interview_id", None) if refused is None else None,
                applied_at=None if refused is None else now,
                answer=None if refused is None else Answer(refusal=refusal_of(refused)),
            )
            accepted = _accept(stores, command)
            failpoint("submit.accepting")
        failpoint("submit.accepted")
        if accepted.command.applied_at is None:
            self._hints.send(tasks.APPLY, [accepted.command.id])
        failpoint("submit.rung")
        return accepted

    def refuse(
        self, principal: Principal, kind: CommandKind, refused: Refused, *, idempotency_key: str, request_hash: bytes
    ) -> None:
        """Keep that it was refused, where nobody waits for an answer. Raises IdempotencyKeyReused, DatabaseAway."""
        with self._database.transaction(principal) as stores:
            now = stores.instant(self._now)
            command = Command(
                id=uuid4(),
                kind=kind,
                principal_id=principal.id,
                key_id=principal.key_id,
                company_id=principal.company_id,
                idempotency_key=idempotency_key,
                request_hash=request_hash,
                received_at=now,
                applied_at=now,
                answer=Answer(refusal=refusal_of(refused)),
            )
            _accept(stores, command)

    def find(self, principal: Principal, reference: str) -> Command:
        """A command of this principal, by its id or its idempotency key.

        Raises NotFound, DatabaseAway; AccessDenied once its company was deleted.
        """
        with self._database.reading(principal) as stores:
            command_id = _as_uuid(reference)
            found = stores.inbox.get(principal.id, command_id) if command_id else None
            if found is None and is_idempotency_key(reference):
                found = stores.inbox.by_key(principal.id, reference)
            if found is not None and found.company_id is not None and not stores.companies.is_there(found.company_id):
                raise AccessDenied
        if found is None:
            raise NotFound("There is no such command.", resourceType="command", resourceId=reference[:64])
        return found


def authorized_company(stores: Stores, principal: Principal, asked: UUID | None) -> UUID:
    """The company that a request is about. A regular key's own, whatever it asks; an ATS key must name one.

    Raises AccessDenied alike for a company that is not there and for one that is somebody else's.
    """
    if principal.kind is KeyKind.REGULAR:
        company_id = principal.company_id
        assert company_id is not None
    elif asked is None:
        raise CompanyIdRequired(field="companyId")
    else:
        company_id = asked
    if not stores.keys.reach(principal, [company_id]):  # guard: reach
        raise AccessDenied
    return company_id


def _refused_at_once(stores: Stores, company_id: UUID, request: Request) -> Refused | None:
    """What is not there, and what a call in progress forbids.

    Takes the locks under which attempts of this interview are made and claimed: either a claim was first, and is seen
    here, or it sees the command that is about to be accepted.
    """
    if isinstance(request, CreateInterview):
        return None
    try:
        lock_interview(stores, company_id, request.interview_id)
        busy = lock_busy(stores, request.interview_id)
        if isinstance(request, RescheduleAttempt | DeleteAttempt) and not stores.attempts.is_listed(
            request.interview_id, request.attempt_id
        ):
            raise not_found("callAttempt", request.attempt_id)
        decisions.on_acceptance(request, busy)  # guard: busy
    except Refused as refused:
        return refused
    return None


def lock_interview(stores: Stores, company_id: UUID, interview_id: UUID) -> Interview:
    """The interview, if it is this company's and not deleted; nobody else makes or ends an attempt of it meanwhile.

    Raises NotFound.
    """
    if stores.interviews.get(company_id, interview_id) is not None:
        interview = stores.interviews.lock(interview_id)
        if interview.deleted_at is None:
            return interview
    raise not_found("interview", interview_id)


def lock_busy(stores: Stores, interview_id: UUID) -> Attempt | None:
    """The interview's attempt whose phone may be ringing; one that is pending is locked too, and cannot be claimed."""
    attempt = stores.attempts.lock_open(interview_id)
    if attempt is not None and attempt.state is AttemptState.IN_PROGRESS:
        return attempt
    return stores.attempts.lock_live_leg(interview_id)


def require(found: T | None, kind: str, resource_id: UUID) -> T:
    """What was looked for. Raises NotFound."""
    if found is None:
        raise not_found(kind, resource_id)
    return found


def not_found(kind: str, resource_id: UUID) -> NotFound:
    """The refusal for what is not there, and alike for what is somebody else's."""
    words = {"callAttempt": "call attempt", "phoneNumber": "phone number"}
    return NotFound(f"There is no such {words.get(kind, kind)}.", resourceType=kind, resourceId=str(resource_id))


def first_with_its_key(stores: Stores, command: Command) -> Command:
    """The command that came first with this one's idempotency key. Raises IdempotencyKeyReused for another request."""
    assert command.idempotency_key is not None
    first = stores.inbox.by_key(command.principal_id, command.idempotency_key)
    assert first is not None
    if first.request_hash != command.request_hash:  # guard: same_request
        raise IdempotencyKeyReused
    return first


def _accept(stores: Stores, command: Command) -> Accepted:
    if stores.inbox.add(command):
        return Accepted(command=command, replayed=False)
    return Accepted(command=first_with_its_key(stores, command), replayed=True)


def _as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None

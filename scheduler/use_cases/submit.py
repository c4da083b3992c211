"""Submit: store a command durably, from HTTP or as a queue message. Only then is the client answered."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.command import (
    KIND_OF,
    Answer,
    Command,
    CommandKind,
    CreateInterview,
    DeleteAttempt,
    Request,
    RequestHashes,
    RescheduleAttempt,
    refusal_of,
)
from scheduler.domain.principal import Key, Principal
from scheduler.domain.refusals import InvalidFields, InvalidRequest, Refused
from scheduler.failpoints import failpoint
from scheduler.hashing import Hasher, fingerprint
from scheduler.ids import id_or_none, new_id
from scheduler.lifecycle import conversations, decisions, partner_events
from scheduler.lifecycle.policy import MAX_AWAITED
from scheduler.logs import log
from scheduler.persistence.database import Database
from scheduler.persistence.errors import Commit
from scheduler.persistence.inbox import FoundOrError
from scheduler.persistence.json_columns import request_as_json
from scheduler.persistence.stores import Stores
from scheduler.use_cases.resources.keys import Keys, must_have
from scheduler.use_cases.shared import access
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.hints import Hints
from scheduler.wire import requests
from scheduler.wire.field_types import is_idempotency_key
from scheduler.wire.json_values import LARGEST_BODY, canonical, too_deep
from scheduler.wire.named_fields import FieldError, invalid_fields, refuse_any


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The command is in the inbox and can no longer be lost."""

    command: Command
    replayed: bool
    """True if the same idempotency key and request had been accepted before."""


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
        former_hash: bytes = b"",
        command_id: UUID | None = None,
        commit: Commit | None = None,
        has_response: bool = True,
        awaited_for: timedelta = timedelta(),
    ) -> Accepted:
        """Accept the command, or store it as refused if the refusal is already certain.

        Once committed, it blocks every claim of its interview until it has been applied. A caller that passes
        `command_id` can look the command up after a commit in doubt. `has_response` False: the sender gets no
        response, so a refusal is also reported as a partner event. `awaited_for`: the sender may return the answer of a
        worker until then, see `end_wait` and `returned`.

        Raises CompanyIdRequired, AccessDenied, IdempotencyKeyReused, DatabaseAway: nothing was accepted. Raises
        CommitInDoubt: the command may have been accepted.
        """
        with self._database.transaction(principal, commit=commit) as stores:
            company = access.authorized_company(stores, principal, company_id, is_held=True)
            refused = _refused_at_once(stores, company, request)
            now = stores.instant(self._now)
            kind = KIND_OF[type(request)]
            command = Command(
                id=command_id or new_id(now),
                kind=kind,
                principal_id=principal.id,
                key_id=principal.key_id,
                company_id=company,
                idempotency_key=idempotency_key,
                # Only requests with the same key are compared.
                request_hash=b"" if idempotency_key is None else request_hash,
                former_hash=former_hash,
                received_at=now,
                body=request_as_json(kind, request) if refused is None else None,
                # A refused command must not block its interview.
                interview_id=getattr(request, "interview_id", None) if refused is None else None,
                applied_at=None if refused is None else now,
                answer=None if refused is None else Answer(refusal=refusal_of(refused)),
                awaited_until=now + min(awaited_for, MAX_AWAITED) if awaited_for and refused is None else None,
            )
            refusing = request.attempt_id if refused is None and conversations.refuses_number(request) else None
            accepted = _accept(stores, command, refusing)
            if not has_response and not accepted.replayed:
                _report_refusal(stores, command)
            failpoint("submit.accepting")
        failpoint("submit.accepted")
        if accepted.command.applied_at is None:
            self._hints.send(tasks.APPLY, [accepted.command.id])
        failpoint("submit.rung")
        return accepted

    def refuse(
        self,
        principal: Principal,
        kind: CommandKind,
        refused: Refused,
        *,
        idempotency_key: str,
        request_hash: bytes,
        former_hash: bytes = b"",
    ) -> None:
        """Store a refusal that the sender of a message can look up, and report it as a partner event.

        Raises IdempotencyKeyReused, DatabaseAway.
        """
        with self._database.transaction(principal) as stores:
            now = stores.instant(self._now)
            command = Command(
                id=new_id(now),
                kind=kind,
                principal_id=principal.id,
                key_id=principal.key_id,
                company_id=principal.company_id,
                idempotency_key=idempotency_key,
                request_hash=request_hash,
                former_hash=former_hash,
                received_at=now,
                applied_at=now,
                answer=Answer(refusal=refusal_of(refused)),
            )
            if not _accept(stores, command).replayed:
                _report_refusal(stores, command)

    def end_wait(self, principal: Principal, command_id: UUID) -> bool:
        """Leave the command's refusal to a partner event, because a request returns 202. False: it was applied before.

        Raises DatabaseAway.
        """
        with self._database.transaction(principal) as stores:
            return stores.inbox.end_wait(command_id)

    def returned(self, principal: Principal, command_id: UUID) -> None:
        """Note that the request which sent the command has returned its refusal, so no partner event follows.

        Raises DatabaseAway.
        """
        with self._database.transaction(principal) as stores:
            stores.inbox.returned(command_id)

    def find(self, principal: Principal, reference: str) -> Command:
        """Find a command of this principal, by its id or its idempotency key.

        Raises NotFound, DatabaseAway; AccessDenied if its company has been deleted.
        """
        with self._database.reading(principal) as stores:
            command_id = id_or_none(reference)
            found = stores.inbox.find(principal.id, command_id) if command_id else None
            if found is None and is_idempotency_key(reference):
                found = stores.inbox.find_by_key(principal.id, reference)
        return access.found_command(found, reference)

    def find_all(self, principal: Principal, command_ids: Sequence[UUID]) -> Mapping[UUID, FoundOrError]:
        """Find the commands among these that exist and are this principal's. Raises DatabaseAway.

        A command that cannot be read has its error.
        """
        with self._database.reading(principal) as stores:
            return stores.inbox.find_all(principal.id, command_ids)


def _refused_at_once(stores: Stores, company_id: UUID, request: Request) -> Refused | None:
    """Find the refusal for a missing resource, or for a request that a call in progress forbids.

    Takes the locks under which attempts of this interview are created and claimed. An earlier claim is seen here, and a
    later one sees the command that is about to be accepted.
    """
    if isinstance(request, CreateInterview):
        return None
    try:
        access.lock_interview(
            stores, company_id, request.interview_id, with_deleted=conversations.refuses_number(request)
        )
        busy = access.lock_busy(stores, request.interview_id)
        if isinstance(request, RescheduleAttempt | DeleteAttempt) and not stores.attempts.is_listed(
            request.interview_id, request.attempt_id
        ):
            raise access.not_found("callAttempt", request.attempt_id)
        decisions.on_acceptance(request, busy)  # guard: busy
    except Refused as refused:
        return refused
    return None


def _accept(stores: Stores, command: Command, refusing: UUID | None = None) -> Accepted:
    if stores.inbox.add(command, refusing=refusing):
        return Accepted(command=command, replayed=False)
    return Accepted(command=access.first_with_its_key(stores, command), replayed=True)


def _report_refusal(stores: Stores, command: Command) -> None:
    """Report a command that was refused at its receipt. An ATS key may have named no company that can be reported."""
    if command.answer is None or command.company_id is None:
        return
    # Without the interview that the message names: it may be another company's.
    stores.events.note([partner_events.of_command(command, None, command.answer.refusal, command.received_at)])


# --- Commands sent as queue messages
# They have the permissions of the key they name. Answers are stored in the inbox.


_log = log(__name__)

_SCOPES = {CommandKind.DELETE_INTERVIEW: "delete:interviews"}
_USUAL_SCOPE = "write:interviews"
_PLAIN = re.compile(r"[A-Za-z]{1,40}|[0-9]{1,3}")


class Messages:
    """Accepts commands that arrive as queue messages."""

    def __init__(self, keys: Keys, submit: Submit, hasher: Hasher) -> None:
        self._keys = keys
        self._hasher = hasher
        self._submit = submit

    def take(self, message: Mapping[str, Any]) -> None:
        """Accept the command of a message, once for its idempotency key. Raises DatabaseAway.

        An invalid body is stored as a refusal. A command that is refused is reported as a partner event, because the
        sender gets no response. These messages get only a log line: an invalid envelope, a key without
        the permission or the company, and an idempotency key that an earlier, different message used.
        """
        key: Key | None = None
        try:
            refuse_any(_envelope_errors(message))
            key = self._keys.of_id(UUID(message["apiKeyId"]))
            failpoint("message.authorised")
            self._take(key, CommandKind(message["kind"]), message["idempotencyKey"], message["body"])
        except Refused as refused:
            key_id = None if key is None else str(key.principal.key_id)
            _log.warning(
                "message_refused: a command message was rejected",
                error=refused.code,
                reason=refused.message,
                key_id=key_id,
            )
        failpoint("message.taken")

    def _take(self, key: Key, kind: CommandKind, idempotency_key: str, body: Any) -> None:  # noqa: ANN401 - JSON
        must_have(key.principal, [_SCOPES.get(kind, _USUAL_SCOPE)])
        if self._keys.must_record_use(key):
            self._keys.used(key.principal)
        try:
            canonical_body = canonical(body)
        except RecursionError:
            raise invalid_fields([too_deep()]) from None
        former_hash = fingerprint(b"message", kind.encode(), canonical_body)
        hashes: RequestHashes = {"request_hash": self._hasher.request_content(former_hash), "former_hash": former_hash}
        try:
            if len(canonical_body) > LARGEST_BODY:
                raise invalid_fields([FieldError(field="", code="TOO_LONG", message="Send at most 64 KiB.")])
            read = requests.read(kind, body)
            self._submit.command(
                key.principal,
                read.company_id,
                read.to_request(),
                idempotency_key=idempotency_key,
                **hashes,
                has_response=False,
            )
        except InvalidRequest as refused:
            stored = _without_unknown_names(refused)
            self._submit.refuse(key.principal, kind, stored, idempotency_key=idempotency_key, **hashes)


def _envelope_errors(message: Mapping[str, Any]) -> Iterator[FieldError]:
    """Validate the envelope. Without these fields no answer can be stored."""
    try:
        UUID(message.get("apiKeyId"))
    except (TypeError, ValueError, AttributeError):
        yield FieldError(field="apiKeyId", code="INVALID_UUID", message="Send the id of an API key.")
    idempotency_key = message.get("idempotencyKey")
    if not isinstance(idempotency_key, str) or not is_idempotency_key(idempotency_key):
        yield FieldError(
            field="idempotencyKey",
            code="INVALID_IDEMPOTENCY_KEY",
            message="Send an idempotency key of 1 to 255 printable ASCII characters.",
        )
    kind = message.get("kind")
    if not isinstance(kind, str) or kind not in requests.KINDS:
        known = ", ".join(sorted(requests.KINDS))
        yield FieldError(field="kind", code="INVALID_VALUE", message=f"This must be one of {known}.")
    if "body" not in message:
        yield FieldError(field="body", code="MISSING_FIELD", message="This field is required; add it.")


def _without_unknown_names(refused: InvalidRequest) -> InvalidRequest:
    """Mask unknown field names in a refusal, which is stored for 30 days: a name may contain personal data."""
    if not isinstance(refused, InvalidFields):
        return refused
    return invalid_fields(
        [FieldError(**{**each, "field": _plain(each["field"])}) for each in refused.details["fields"]]
    )


def _plain(field: str) -> str:
    return ".".join(part if _PLAIN.fullmatch(part) else "?" for part in field.split(".")) if field else ""

"""A command that comes as a message instead of over HTTP: as good as its key, and answered in the inbox."""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from scheduler.domain.command import CommandKind
from scheduler.domain.key import Key
from scheduler.domain.refusals import InvalidFields, InvalidRequest, Refused
from scheduler.failpoints import failpoint
from scheduler.hashing import fingerprint
from scheduler.logs import log
from scheduler.use_cases.resources.keys import Keys, must_have
from scheduler.use_cases.submit import Submit
from scheduler.wire import command_messages
from scheduler.wire.field_errors import FieldError, invalid_fields, refuse_any
from scheduler.wire.field_types import is_idempotency_key
from scheduler.wire.json_values import LARGEST_BODY, canonical, too_deep

_log = log(__name__)

_SCOPES = {CommandKind.DELETE_INTERVIEW: "delete:interviews"}
_USUAL_SCOPE = "write:interviews"
_PLAIN = re.compile(r"[A-Za-z]{1,40}|[0-9]{1,3}")


class Messages:
    def __init__(self, keys: Keys, submit: Submit) -> None:
        self._keys = keys
        self._submit = submit

    def take(self, message: Mapping[str, Any]) -> None:
        """Accept what a message asks for, once for its idempotency key, however often it comes.

        What is wrong with its body is kept as its answer. Nothing is kept, and its sender finds no answer, where it
        names no key, or one that may not do this or does not reach the company, or where another message came first
        with its idempotency key: that is told in the log. Raises DatabaseAway.
        """
        key: Key | None = None
        try:
            refuse_any(_unaddressed(message))
            key = self._keys.of_id(UUID(message["apiKeyId"]))
            failpoint("message.authorised")
            self._take(key, CommandKind(message["kind"]), message["idempotencyKey"], message["body"])
        except Refused as refused:
            key_id = None if key is None else str(key.principal.key_id)
            _log.warning("a message was refused", error=refused.code, reason=refused.message, key_id=key_id)
        failpoint("message.taken")

    def _take(self, key: Key, kind: CommandKind, idempotency_key: str, body: Any) -> None:  # noqa: ANN401 - JSON
        must_have(key.principal, [_SCOPES.get(kind, _USUAL_SCOPE)])
        if self._keys.is_news(key):
            self._keys.used(key.principal)
        try:
            sent = canonical(body)
        except RecursionError:
            raise invalid_fields([too_deep()]) from None
        request_hash = fingerprint(b"message", kind.encode(), sent)
        try:
            if len(sent) > LARGEST_BODY:
                raise invalid_fields([FieldError(field="", code="TOO_LONG", message="Send at most 64 KiB.")])
            read = command_messages.read(kind, body)
            self._submit.command(
                key.principal,
                read.company_id,
                read.wish(),
                idempotency_key=idempotency_key,
                request_hash=request_hash,
            )
        except InvalidRequest as refused:
            kept = _kept(refused)
            self._submit.refuse(key.principal, kind, kept, idempotency_key=idempotency_key, request_hash=request_hash)


def _unaddressed(message: Mapping[str, Any]) -> Iterator[FieldError]:
    """What is missing for anybody to learn of an answer."""
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
    if not isinstance(kind, str) or kind not in command_messages.KINDS:
        known = ", ".join(sorted(command_messages.KINDS))
        yield FieldError(field="kind", code="INVALID_VALUE", message=f"This must be one of {known}.")
    if "body" not in message:
        yield FieldError(field="body", code="MISSING_FIELD", message="This field is required; add it.")


def _kept(refused: InvalidRequest) -> InvalidRequest:
    """The refusal as it is kept for 30 days. A field that we have not may be called like a person."""
    if not isinstance(refused, InvalidFields):
        return refused
    return invalid_fields(
        [FieldError(**{**each, "field": _plain(each["field"])}) for each in refused.details["fields"]]
    )


def _plain(field: str) -> str:
    return ".".join(part if _PLAIN.fullmatch(part) else "?" for part in field.split(".")) if field else ""

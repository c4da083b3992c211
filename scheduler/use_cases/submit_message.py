"""Commands sent as queue messages. They have the permissions of the key they name. Answers are stored in the inbox."""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from scheduler.domain.command import CommandKind, RequestHashes
from scheduler.domain.key import Key
from scheduler.domain.refusals import InvalidFields, InvalidRequest, Refused
from scheduler.failpoints import failpoint
from scheduler.hashing import Hasher, fingerprint
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
            read = command_messages.read(kind, body)
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
    if not isinstance(kind, str) or kind not in command_messages.KINDS:
        known = ", ".join(sorted(command_messages.KINDS))
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

"""Messages to receivers: the body of an event, its signature, and secrets that are encrypted at rest."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from secrets import token_bytes
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from standardwebhooks import Webhook

# --- The body of a delivered event. It holds ids, states, codes and times, and no personal data


DATA_FIELDS = frozenset(
    {
        *("batchId", "callAttemptId", "candidateId", "commandId", "companyId", "externalId", "interviewId", "jobId"),
        *("nextAttemptId", "webhookId"),
        *("status", "reasonCode", "outcome", "decision", "by", "dueAt", "timezone", "retryNumber"),
        *("applied", "refused", "cancelled"),
    }
)
"""Other fields are never sent, so that no name or number slips in."""


def body_of(
    event_type: str, delivery_id: str, occurred_at: datetime, sequence: int | None, data: Mapping[str, object]
) -> str:
    """Build the JSON of an event. It is the same at each try and each replay, because receivers may compare it.

    `event` repeats `type` for clients of the public API. `sequence` is None for an event without an interview.
    """
    content = {
        "type": event_type,
        "event": event_type,
        "timestamp": occurred_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "deliveryId": delivery_id,
        "sequence": sequence,
        "data": {
            name: value
            for name, value in data.items()
            if name in DATA_FIELDS  # guard: data_fields
        },
    }
    return json.dumps(content, separators=(",", ":"))


# --- Encryption of webhooks' secrets at rest (AES-256-GCM). The only module that encrypts
# Secrets of webhooks cannot be hashed, as those of API keys are: each delivery is signed with them.


_NAME_BYTES = 4
_NONCE_BYTES = 12
"""The length that GCM is made for. Random: one key encrypts far fewer than the 2**32 texts that this is safe for."""


class NotDecrypted(Exception):
    """The text was encrypted with a key that is not in WEBHOOK_KEY, for another place, or it was changed."""


def secret_place(endpoint_id: UUID) -> str:
    """Name the place of a webhook's secret. The old secret has the same, because a rotation copies it."""
    return f"{endpoint_id} secret"


def headers_place(endpoint_id: UUID) -> str:
    """Name the place of a webhook's headers. The text is a JSON object of names and values."""
    return f"{endpoint_id} headers"


class Encryption:
    """Encrypts with the first key and decrypts with any, so that a key can be replaced while both are set.

    `place` names the row and column of a text, for example the webhook's id with the field's name. It is
    authenticated, so a secret that is copied to another row cannot be decrypted there.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {_name_of(key): AESGCM(key) for key in keys}
        self._current = _name_of(keys[0])

    def encrypt(self, text: str, place: str) -> bytes:
        """Encrypt a text: the key's name, a nonce, and the encrypted and authenticated text."""
        nonce = token_bytes(_NONCE_BYTES)
        return self._current + nonce + self._keys[self._current].encrypt(nonce, text.encode(), place.encode())

    def decrypt(self, encrypted: bytes, place: str) -> str:
        """Decrypt a text. Raises NotDecrypted."""
        key = self._keys.get(encrypted[:_NAME_BYTES])
        if key is None:
            raise NotDecrypted
        nonce, rest = encrypted[_NAME_BYTES : _NAME_BYTES + _NONCE_BYTES], encrypted[_NAME_BYTES + _NONCE_BYTES :]
        try:
            return key.decrypt(nonce, rest, place.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise NotDecrypted from error

    def is_current(self, encrypted: bytes) -> bool:
        """Return whether the first key encrypted it. Other texts are lost when the second key is removed."""
        return encrypted[:_NAME_BYTES] == self._current


def _name_of(key: bytes) -> bytes:
    """Name a key by four bytes that reveal nothing about it."""
    return hashlib.sha256(b"webhook key\0" + key).digest()[:_NAME_BYTES]


# --- Signatures of posted messages, as Standard Webhooks (https://www.standardwebhooks.com) defines them


PREFIX = "whsec_"
_SECRET_BYTES = 32


def new_secret() -> str:
    """Create a secret for an endpoint: `whsec_` and the base64 of 32 random bytes."""
    return PREFIX + base64.b64encode(token_bytes(_SECRET_BYTES)).decode()


def signed_headers(message_id: str, body: str, secrets: Sequence[str], at: datetime) -> dict[str, str]:
    """Build the headers that identify and sign a message. Each secret adds a signature.

    `at` is the time of this try by the machine's clock: a receiver compares it with its own.
    """
    # The library reads the clock time of an aware datetime as UTC, whatever its offset is.
    at = at.astimezone(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, at, body) for secret in secrets),
    }

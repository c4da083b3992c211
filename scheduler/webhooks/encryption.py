"""Encryption of webhooks' secrets at rest (AES-256-GCM). The only module that encrypts.

Secrets of webhooks cannot be hashed, as those of API keys are: each delivery is signed with them.
"""

import hashlib
from collections.abc import Sequence
from secrets import token_bytes
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NAME_BYTES = 4
_NONCE_BYTES = 12
"""The length that GCM is made for. Random: one key encrypts far fewer than the 2**32 texts that this is safe for."""


class NotDecrypted(Exception):
    """The text was encrypted with a key that is not in WEBHOOK_KEY, for another place, or it was changed."""


def secret_place(endpoint_id: UUID) -> str:
    """Return the place of a webhook's secret. The old secret has the same, because a rotation copies it."""
    return f"{endpoint_id} secret"


def headers_place(endpoint_id: UUID) -> str:
    """Return the place of a webhook's headers. The text is a JSON object of names and values."""
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
        """Return the key's name, a nonce, and the encrypted and authenticated text."""
        nonce = token_bytes(_NONCE_BYTES)
        return self._current + nonce + self._keys[self._current].encrypt(nonce, text.encode(), place.encode())

    def decrypt(self, encrypted: bytes, place: str) -> str:
        """Return the text. Raises NotDecrypted."""
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
    """Return four bytes that name a key and reveal nothing about it."""
    return hashlib.sha256(b"webhook key\0" + key).digest()[:_NAME_BYTES]

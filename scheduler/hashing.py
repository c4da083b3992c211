"""Keyed hashes: how a number or a secret is recognised without being kept."""

import hashlib
import hmac


class Hasher:
    """HMAC-SHA256 under one pepper. Changing the pepper makes every key unknown and every line a new one."""

    def __init__(self, pepper: str) -> None:
        self._pepper = pepper.encode()

    def number(self, e164: str) -> bytes:
        """32 bytes that stand for a phone number."""
        return self._hash(b"number", e164)

    def key(self, secret: str) -> bytes:
        """32 bytes that stand for an API key."""
        return self._hash(b"key", secret)

    def invitation(self, token: str) -> bytes:
        """32 bytes that stand for the token of an invitation's mail."""
        return self._hash(b"invitation", token)

    def _hash(self, kind: bytes, text: str) -> bytes:
        return hmac.new(self._pepper, kind + b"\0" + text.encode(), hashlib.sha256).digest()


def fingerprint(*parts: bytes) -> bytes:
    """32 bytes that tell two requests apart; no secret, no order among equal parts lost."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()

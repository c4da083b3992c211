"""Keyed hashes, which recognise a phone number or a secret without storing it."""

import hashlib
import hmac


class Hasher:
    """HMAC-SHA256 with one pepper. A new pepper invalidates every API key and makes every line a new one."""

    def __init__(self, pepper: str) -> None:
        self._pepper = pepper.encode()

    def number(self, e164: str) -> bytes:
        """Hash a phone number to 32 bytes."""
        return self._hash(b"number", e164)

    def key(self, secret: str) -> bytes:
        """Hash an API key to 32 bytes."""
        return self._hash(b"key", secret)

    def invitation(self, token: str) -> bytes:
        """Hash the token in an invitation's mail to 32 bytes."""
        return self._hash(b"invitation", token)

    def webhook_text(self, text: str) -> bytes:
        """Hash a webhook's URL or a header's value to 32 bytes. Both may contain a password."""
        return self._hash(b"webhook", text)

    def sign_in_link(self, secret: str) -> bytes:
        """Hash the secret in a sign-in link of the console to 32 bytes."""
        return self._hash(b"sign-in link", secret)

    def console_session(self, secret: str) -> bytes:
        """Hash the secret in the cookie of a console session to 32 bytes."""
        return self._hash(b"console session", secret)

    def sign_in(self, purpose: str, cookie: str) -> bytes:
        """Derive 32 bytes for one purpose of a sign-in with an identity provider, by the secret of its cookie."""
        return self._hash(b"sign-in " + purpose.encode(), cookie)

    def subject(self, issuer: str, subject: str) -> bytes:
        """Hash an operator at an identity provider to 32 bytes."""
        return self._hash(b"subject", f"{issuer} {subject}")

    def history_key(self) -> bytes:
        """Derive the key of 32 bytes that seals the history of attempts."""
        return self._hash(b"history", "")

    def mark(self, setting: str, value: str = "") -> bytes:
        """Derive 32 bytes by which another value of the setting, or another pepper, is noticed."""
        return self._hash(b"mark " + setting.encode(), value)

    def request_content(self, content: bytes) -> bytes:
        """Hash a request's fingerprint to 32 bytes. The request can contain a person's number.

        A plain hash would allow anyone who reads the table to find the number of an erased person by trying.
        """
        return hmac.new(self._pepper, b"request\0" + content, hashlib.sha256).digest()

    def callback(self, content: bytes) -> bytes:
        """Hash a callback's fingerprint to 32 bytes. The callback contains the number that was called."""
        return hmac.new(self._pepper, b"callback\0" + content, hashlib.sha256).digest()

    def _hash(self, kind: bytes, text: str) -> bytes:
        return hmac.new(self._pepper, kind + b"\0" + text.encode(), hashlib.sha256).digest()


def fingerprint(*parts: bytes) -> bytes:
    """Identify these parts in this order by 32 bytes.

    Not keyed, so not for secrets, and not stored while they contain a person's number that may be erased before.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()

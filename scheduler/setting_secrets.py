"""Checks of secrets in settings. No message quotes a secret."""

import base64

DEVELOPMENT_PEPPER = "development-pepper"
DEVELOPMENT_FLOWER_AUTH = "operator:operator"
DEVELOPMENT_WEBHOOK_KEY = "YSBrZXkgb2Ygd2ViaG9va3MgaW4gZGV2ZWxvcG1lbnQ="

_SHORTEST_PEPPER = 16
_SHORTEST_PASSWORD = 8
_WEBHOOK_SECRET_BYTES = range(24, 65)
_WEBHOOK_KEY_BYTES = 32
_MOST_KEYS = 2


def is_weak_pepper(pepper: str) -> bool:
    return pepper == DEVELOPMENT_PEPPER or len(pepper) < _SHORTEST_PEPPER


def is_weak_login(login: str) -> bool:
    """Return whether a login, `user:password`, must not be used in production."""
    user, _, password = login.partition(":")
    return not user or len(password) < _SHORTEST_PASSWORD or login == DEVELOPMENT_FLOWER_AUTH


def check_webhook_secret(secret: str) -> None:
    """Raise ValueError unless this is a secret of Standard Webhooks."""
    prefix, _, encoded = secret.partition("_")
    if prefix != "whsec" or len(_decoded(encoded)) not in _WEBHOOK_SECRET_BYTES:
        raise ValueError("must be whsec_ and the base64 of 24 to 64 random bytes")


def webhook_keys(text: str) -> tuple[bytes, ...]:
    """Return the keys of WEBHOOK_KEY, the current one first. Raises ValueError."""
    keys = tuple(_decoded(each.strip()) for each in text.split(","))
    if len(keys) > _MOST_KEYS or any(len(key) != _WEBHOOK_KEY_BYTES for key in keys):
        raise ValueError(
            "must be the base64 of 32 random bytes (openssl rand -base64 32), or during a rotation two of them,"
            " separated by a comma, the new one first"
        )
    if len(set(keys)) < len(keys):
        raise ValueError("must not contain the same key twice")
    return keys


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        return b""

"""Values of settings: secrets and addresses, read strictly."""

import base64
import re
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

# --- Checks of secrets in settings. No message quotes a secret


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
    """Read the keys of WEBHOOK_KEY, the current one first. Raises ValueError."""
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


# --- Checks of URLs in settings. No message quotes a URL, because it may contain a password


_SCHEMES = {"database": ("postgresql", "postgres"), "redis": ("redis", "rediss"), "web": ("http", "https")}
EXAMPLES = {
    "database": "postgresql://user:password@host:5432/name",
    "redis": "redis://:password@host:6379/0",
    "web": "https://host",
}
ENCODED = "; percent-encode characters such as / @ : # % in a password"


def is_overheard(url: str) -> bool:
    """Return whether the URL would send tokens, credentials or phone numbers over a network unencrypted."""
    parts = urlsplit(url)
    return parts.scheme != "https" and parts.hostname not in {"127.0.0.1", "localhost", "::1"}


def is_plain_http(url: SecretStr | str | None) -> bool:
    text = url.get_secret_value() if isinstance(url, SecretStr) else url
    return text is not None and urlsplit(text).scheme.lower() != "https"


def check_private_url(url: str) -> None:
    """Raise ValueError for a malformed URL, or one that is overheard."""
    check_url(url, "web")
    if is_overheard(url):
        raise ValueError("must begin with https://; http:// is only allowed to this machine, in development")


def check_database_url(url: str) -> None:
    """Raise ValueError for a URL that PostgreSQL cannot read."""
    check_url(url, "database")
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # The message of the error may quote the password.
        raise ValueError(f"is not a valid URL; use the form {EXAMPLES['database']}{ENCODED}") from None


def check_redis_url(url: str) -> None:
    """Raise ValueError for a malformed URL, or a misspelt check of certificates."""
    number = check_url(url, "redis").strip("/")
    if number and not number.isdecimal():
        raise ValueError(f"must end with a database number; use the form {EXAMPLES['redis']}{ENCODED}")
    checks = parse_qs(urlsplit(url).query).get(_CHECKS, ())
    if any(each not in {_VERIFIED, "none"} for each in checks):
        raise ValueError(f"must have {_CHECKS}={_VERIFIED}, which is the default, or {_CHECKS}=none")


def verifying(redis_url: str) -> str:
    """Spell out the default of `rediss://` in the URL: kombu would verify no certificate."""
    parts = urlsplit(redis_url)
    if parts.scheme.lower() != "rediss" or _CHECKS in parse_qs(parts.query):
        return redis_url
    return parts._replace(query="&".join(filter(None, (parts.query, f"{_CHECKS}={_VERIFIED}")))).geturl()


def is_unverified(redis_url: SecretStr | None) -> bool:
    """Return whether the URL asks for TLS without a check of the certificate or of its name."""
    if redis_url is None:
        return False
    query = parse_qs(urlsplit(redis_url.get_secret_value()).query)
    names_unchecked = any(each.lower() not in {"true", "1", "yes"} for each in query.get("ssl_check_hostname", ()))
    return names_unchecked or "none" in query.get(_CHECKS, ())


_CHECKS, _VERIFIED = "ssl_cert_reqs", "required"


def check_url(url: str, kind: Literal["database", "redis", "web"]) -> str:
    """Check a URL of that kind, and return its path. The text of a ValueError quotes at most the scheme of the URL."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme.lower() not in _SCHEMES[kind]:
        begins = f", but begins with {scheme}://" if separator and re.fullmatch(r"[\w.+-]{1,30}", scheme) else ""
        allowed = " or ".join(f"{each}://" for each in _SCHEMES[kind])
        raise ValueError(f"must be a URL that begins with {allowed}{begins}; use the form {EXAMPLES[kind]}")
    try:
        parts = urlsplit(url)
        if parts.port == 0:
            raise ValueError  # noqa: TRY301 - same message as an unreadable port
    except ValueError:
        raise ValueError(f"has an invalid host or port; use the form {EXAMPLES[kind]}{ENCODED}") from None
    if kind != "database" and not parts.hostname:
        raise ValueError(f"must name a host; use the form {EXAMPLES[kind]}")
    return parts.path

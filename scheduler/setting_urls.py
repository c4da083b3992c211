"""Checks of URLs in settings. No message quotes a URL, because it may contain a password."""

import re
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

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


def check_redis_url(url: str) -> None:
    """Raise ValueError for a malformed URL, or a misspelt check of certificates."""
    number = check_url(url, "redis").strip("/")
    if number and not number.isdecimal():
        raise ValueError(f"must end with a database number; use the form {EXAMPLES['redis']}{ENCODED}")
    checks = parse_qs(urlsplit(url).query).get(_CHECKS, ())
    if any(each not in {_VERIFIED, "none"} for each in checks):
        raise ValueError(f"must have {_CHECKS}={_VERIFIED}, which is the default, or {_CHECKS}=none")


def verifying(redis_url: str) -> str:
    """Return the URL with the default of `rediss://` spelled out: kombu would verify no certificate."""
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
    """Return the path of a URL of that kind. The text of a ValueError quotes at most the scheme of the URL."""
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

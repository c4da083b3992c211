"""Checks of URLs in settings. No message quotes a URL, because it may contain a password."""

import re
from typing import Literal
from urllib.parse import urlsplit

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

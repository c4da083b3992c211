"""URLs of webhooks: which ones a partner may set. The address behind the name is checked when connecting."""

import re
from urllib.parse import urlsplit

LONGEST = 2048
LOWEST_PORT = 1024
HTTPS_PORT = 443

_NAME = re.compile(
    r"(?=.{1,253}\.?$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?"
)
_NETLOC = re.compile(r"(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?")
"""Strict on purpose: a host that two parsers read differently could lead past the checks of one of them."""
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_HIGHEST_PORT = 65_535
_INVALID_HOST = "The host is invalid. Write a name in ASCII (xn-- for other letters), or an address."


def fault(url: str, *, https_only: bool) -> tuple[str, str] | None:
    """Return the code and message of the first error, or None. `https_only`: in production."""
    if len(url) > LONGEST:
        return "TOO_LONG", f"A URL must have at most {LONGEST} characters."
    if not _VISIBLE.fullmatch(url) or "\\" in url:
        return "INVALID_URL", "Write the URL in ASCII, without spaces and backslashes: https://example.com/webhooks."
    try:
        parts = urlsplit(url)
    except ValueError:
        return "INVALID_HOST", _INVALID_HOST
    if parts.scheme.lower() not in ({"https"} if https_only else {"https", "http"}):  # guard: hook_https
        return "HTTPS_REQUIRED", "The URL must begin with https://."
    if "@" in parts.netloc:
        return "USERINFO_NOT_ALLOWED", "Remove user and password from the URL; send a header instead."
    if "#" in url:
        return "FRAGMENT_NOT_ALLOWED", "Remove the part from # on, because it is never sent."
    netloc = _NETLOC.fullmatch(parts.netloc.lower())
    if netloc is None or not (netloc["host"].startswith("[") or _NAME.fullmatch(netloc["host"])):
        return "INVALID_HOST", _INVALID_HOST
    if netloc["port"] is not None and not _is_allowed(  # guard: hook_port
        int(netloc["port"]), parts.scheme.lower()
    ):
        return "PORT_NOT_ALLOWED", f"The port must be {HTTPS_PORT}, or {LOWEST_PORT} or higher."
    return None


def _is_allowed(port: int, scheme: str) -> bool:
    # The lower ports belong to other protocols, such as mail, which a request must not reach.
    return LOWEST_PORT <= port <= _HIGHEST_PORT or (port == HTTPS_PORT and scheme == "https")

"""Settings of a webhook: the URL of its receiver, and the headers that are sent there."""

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

# --- Headers that a partner adds to the deliveries to its webhook


MOST = 50
LONGEST_NAME = 255
LONGEST_VALUE = 4096

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")
_OURS = ("content-", "webhook-", "proxy-")
_OURS_EXACTLY = frozenset(
    {"host", "connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect", "accept-encoding"}
)
"""Host and the headers that delimit a message: with them a partner could send a second request behind ours."""


def name_fault(name: str) -> tuple[str, str] | None:
    """Find the code and message of the error of a header's name, or None."""
    if not 1 <= len(name) <= LONGEST_NAME or not _HEADER_NAME.fullmatch(name):
        return "INVALID_HEADER_NAME", f"A header's name has 1 to {LONGEST_NAME} letters, digits and hyphens."
    if name.lower().startswith(_OURS) or name.lower() in _OURS_EXACTLY:  # guard: hook_header
        return "HEADER_NOT_SETTABLE", "This header is set by Duecall or by HTTP itself; use another name."
    return None


def value_fault(value: str) -> tuple[str, str] | None:
    """Find the code and message of the error of a header's value, or None."""
    if not 1 <= len(value) <= LONGEST_VALUE or not _VALUE.fullmatch(value):
        message = f"A header's value has 1 to {LONGEST_VALUE} visible ASCII characters, without spaces at its ends."
        return "INVALID_HEADER_VALUE", message
    return None


def repeated(names: Iterable[str]) -> Iterator[int]:
    """Yield the positions of names that occurred before. The case of letters makes no difference in HTTP."""
    seen: set[str] = set()
    for place, name in enumerate(names):
        if name.lower() in seen:
            yield place
        seen.add(name.lower())


# --- URLs of webhooks: which ones a partner may set, and to which addresses they may lead
# An address in the URL is checked when it is set. The address behind a name is checked when connecting, by the same
# rule.


LONGEST = 2048
LOWEST_PORT = 1024
HTTPS_PORT = 443

_NAME = re.compile(
    r"(?=.{1,253}\.?$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?"
)
_NETLOC = re.compile(r"(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?")
"""Strict on purpose: a host that two parsers read differently could lead past the checks of one of them."""
_NUMBER = re.compile(r"0x[0-9a-f]{1,16}|0[0-7]{0,20}|[1-9][0-9]{0,20}")
_BYTES, _HIGHEST_BYTE = 4, 255
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_HIGHEST_PORT = 65_535
_GLOBAL_UNICAST = ip_network("2000::/3")
"""All public addresses of IPv6. `ipaddress` does not call other ones private that may lead inside, such as fec0::1 (an
old private range) or ::10.0.0.1 and ::ffff:0:10.0.0.1 (IPv4 in IPv6)."""
_NOT_PUBLIC = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001:20::/28", "2002::/16", "3fff::/20")))
"""Ranges for relays, overlays and documentation. `ipaddress` of some versions calls them public."""
_FORBIDDEN_ADDRESS = (
    "The host must be a public address. In development, it can also be this machine (127.0.0.1, localhost). An address"
    " of your network or of Docker does not work."
)
_INNER_NAMES = ("internal", "lan", "local", "localdomain", "svc", "home.arpa")
"""Ends of names that no public name server knows. `metadata.google.internal` is one of them."""
_LOOPBACK_NAME = "localhost"
_INVALID_HOST = "The host is invalid. Write a name in ASCII (xn-- for other letters), or an address."


def fault(url: str, *, https_only: bool) -> tuple[str, str] | None:
    """Find the code and message of the first error, or None. `https_only`: in production."""
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


def address_fault(url: str, *, allow_loopback: bool) -> tuple[str, str] | None:
    """Find the code and message if the host of a URL without a `fault` is a forbidden address, or an inner name.

    Other names are resolved only when connecting.
    """
    host = (urlsplit(url).hostname or "").removesuffix(".")
    address = _address(host)
    if address is None and _is_inner(host, allow_loopback=allow_loopback):  # guard: hook_inner_name
        return "ADDRESS_FORBIDDEN", _FORBIDDEN_ADDRESS
    if address is not None and is_forbidden(address, allow_loopback=allow_loopback):  # guard: hook_literal
        return "ADDRESS_FORBIDDEN", _FORBIDDEN_ADDRESS
    return None


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """Read the address that a host spells. None: a name."""
    try:
        return ip_address(host)
    except ValueError:
        return _short_address(host)


def _short_address(host: str) -> IPv4Address | None:
    """Read the address that resolvers read in 2130706433, 0x7f000001, 0177.0.0.1 and 127.1. None: a name.

    The last part fills the bytes that are left, as in `inet_aton`.
    """
    parts = host.split(".")
    if len(parts) > _BYTES or not all(map(_NUMBER.fullmatch, parts)):
        return None
    *first, last = (int(part, _base(part)) for part in parts)
    left = _BYTES - len(first)
    if any(each > _HIGHEST_BYTE for each in first) or last >= 256**left:
        return None
    return IPv4Address(bytes(first) + last.to_bytes(left))


def _base(number: str) -> int:
    if number.startswith("0x"):
        return 16
    return 8 if number.startswith("0") else 10


def _is_inner(host: str, *, allow_loopback: bool) -> bool:
    """Return whether a name never leads to a public address."""
    if _ends_with(host, _LOOPBACK_NAME):
        return not allow_loopback
    return any(_ends_with(host, name) for name in _INNER_NAMES)


def _ends_with(host: str, name: str) -> bool:
    return host == name or host.endswith("." + name)


def is_forbidden(address: IPv4Address | IPv6Address, *, allow_loopback: bool) -> bool:
    """Return whether no webhook may lead to this address. `allow_loopback`: in development."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_forbidden(address.ipv4_mapped, allow_loopback=allow_loopback)
        if not address.is_loopback and address not in _GLOBAL_UNICAST:  # guard: hook_address_v6
            return True
    if address.is_loopback:
        return not allow_loopback
    is_special = address.is_multicast or any(address in each for each in _NOT_PUBLIC)
    return is_special or not address.is_global


def _is_allowed(port: int, scheme: str) -> bool:
    # The lower ports belong to other protocols, such as mail, which a request must not reach.
    return LOWEST_PORT <= port <= _HIGHEST_PORT or (port == HTTPS_PORT and scheme == "https")
